//! DescribeAcls: there is no authorizer, so there is nothing to describe.

use ringlog_protocol::messages::DescribeAclsResponse;
use ringlog_types::ErrorCode;

/// The answer while no authorizer can be configured.
pub fn handle() -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..Default::default()
    }
}
