//! A request to the controller or to raft, with what they may want to know of the requester.

use std::net::SocketAddr;

use ringlog_protocol::{ApiKey, RequestBody, StrBytes};
use ringlog_types::MonotonicMs;

/// The principal of whoever didn't authenticate.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

/// A request, and who asks.
#[derive(Debug, Clone)]
pub struct ControllerRequest {
    /// The request.
    pub body: RequestBody,
    /// Its version; the response is meant for the same.
    pub api_version: i16,
    /// Who asks, such as `User:alice`; the client's own principal when a broker passes its request on.
    pub principal: String,
    /// Whether the principal came by a delegation token.
    pub is_token_authenticated: bool,
    /// Whether a broker passes it on.
    pub is_forwarded: bool,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// Where the client is.
    pub client_address: Option<SocketAddr>,
    /// The listener by which it came in; raft's answers name endpoints of that listener. Empty for this node's own.
    pub listener: String,
    /// When it came to the controller; `None`: just now.
    pub received_at: Option<MonotonicMs>,
}

impl ControllerRequest {
    /// A request of this node's own broker, in the newest version.
    pub fn internal(body: impl Into<RequestBody>) -> ControllerRequest {
        let body = body.into();
        ControllerRequest {
            api_version: body.api_key().max_version(),
            body,
            principal: ANONYMOUS.to_owned(),
            is_token_authenticated: false,
            is_forwarded: false,
            client_id: None,
            client_address: None,
            listener: String::new(),
            received_at: None,
        }
    }

    /// How long it may wait before the controller begins with it, in milliseconds; what is begun is done, however long
    /// that takes. `None`: as long as it has to.
    pub fn patience_ms(&self) -> Option<u64> {
        let timeout_ms = match &self.body {
            RequestBody::CreateTopics(request) => request.timeout_ms,
            RequestBody::DeleteTopics(request) => request.timeout_ms,
            RequestBody::CreatePartitions(request) => request.timeout_ms,
            RequestBody::ElectLeaders(request) => request.timeout_ms,
            RequestBody::AlterPartitionReassignments(request) => request.timeout_ms,
            // Kafka's takes no notice of the timeouts of UpdateFeatures and ListPartitionReassignments.
            _ => return None,
        };
        Some(u64::try_from(timeout_ms).unwrap_or(0))
    }

    /// Whether raft answers it, and not the controller.
    pub fn is_for_raft(&self) -> bool {
        is_raft(self.body.api_key())
    }
}

/// Whether raft answers requests of this API.
pub fn is_raft(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::Vote
            | ApiKey::BeginQuorumEpoch
            | ApiKey::EndQuorumEpoch
            | ApiKey::Fetch
            | ApiKey::FetchSnapshot
            | ApiKey::DescribeQuorum
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter
            | ApiKey::UpdateRaftVoter
    )
}
