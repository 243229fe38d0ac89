//! Requests about ACLs: there is no authorizer, so there is nothing to describe; and what can't be a request about them.

use ringlog_protocol::RequestBody;
use ringlog_protocol::messages::DescribeAclsResponse;
use ringlog_types::ErrorCode;

/// Kafka's number for what isn't known, of resource types, pattern types, operations and permissions alike. Others that
/// stand for nothing are read.
const UNKNOWN: i8 = 0;

/// The answer to DescribeAcls while no authorizer can be configured.
pub fn describe() -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..Default::default()
    }
}

/// Whether something in the request is named unknown; Kafka takes such bytes for no request at all.
pub fn has_unknown_elements(body: &RequestBody) -> bool {
    match body {
        RequestBody::DescribeAcls(it) => {
            [it.resource_type_filter, it.pattern_type_filter, it.operation, it.permission_type].contains(&UNKNOWN)
        }
        RequestBody::DeleteAcls(it) => it.filters.iter().any(|it| {
            [it.resource_type_filter, it.pattern_type_filter, it.operation, it.permission_type].contains(&UNKNOWN)
        }),
        RequestBody::CreateAcls(it) => it.creations.iter().any(|it| {
            [it.resource_type, it.resource_pattern_type, it.operation, it.permission_type].contains(&UNKNOWN)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::DescribeAclsRequest;

    use super::*;

    #[test]
    fn only_what_is_named_unknown_is_no_request() {
        let asked = |operation| {
            has_unknown_elements(&RequestBody::DescribeAcls(DescribeAclsRequest {
                resource_type_filter: 9,
                pattern_type_filter: -1,
                operation,
                permission_type: 3,
                ..Default::default()
            }))
        };
        assert_eq!([0, 3, 20].map(asked), [true, false, false]);
    }
}
