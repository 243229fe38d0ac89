//! What an answer says of its asker as a whole, before it says anything of a partition.

use ringlog_protocol::ResponseBody;
use ringlog_types::ErrorCode;

/// The error at the top of an answer to one of raft's requests; [`ErrorCode::None`] if there is none, or no place for
/// one.
pub fn top_level_error(response: &ResponseBody) -> ErrorCode {
    let code = match response {
        ResponseBody::Vote(response) => response.error_code,
        ResponseBody::BeginQuorumEpoch(response) => response.error_code,
        ResponseBody::EndQuorumEpoch(response) => response.error_code,
        ResponseBody::Fetch(response) => response.error_code,
        ResponseBody::FetchSnapshot(response) => response.error_code,
        ResponseBody::DescribeQuorum(response) => response.error_code,
        ResponseBody::AddRaftVoter(response) => response.error_code,
        ResponseBody::RemoveRaftVoter(response) => response.error_code,
        ResponseBody::UpdateRaftVoter(response) => response.error_code,
        ResponseBody::ApiVersions(response) => response.error_code,
        _ => 0,
    };
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// Whether the error means that this node has no business there: it belongs to another cluster, or has no right. Asking
/// again soon is of no use.
pub fn is_stranger(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::InconsistentClusterId | ErrorCode::ClusterAuthorizationFailed)
}
