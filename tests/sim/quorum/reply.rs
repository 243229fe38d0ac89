//! Where an answer goes, as the listener of `shards/` has it: what is dropped without an answer is refused.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use ringlog_metadata::controller::error_response;
use ringlog_protocol::messages::{
    AddRaftVoterResponse, ApiVersionsResponse, BeginQuorumEpochResponse, DescribeQuorumResponse,
    EndQuorumEpochResponse, FetchResponse, FetchSnapshotResponse, RemoveRaftVoterResponse, UpdateRaftVoterResponse,
    VoteResponse, api_versions_response,
};
use ringlog_protocol::{ApiKey, RequestBody, ResponseBody, StrBytes};
use ringlog_quorum::is_raft;
use ringlog_types::ErrorCode;

use super::network::{CallId, Packet, encode_response};
use super::ring::Ring;

/// See the module's text.
pub(crate) struct Reply {
    ring: Rc<Ring>,
    call: CallId,
    api: ApiKey,
    version: i16,
    open: Rc<RefCell<BTreeSet<CallId>>>,
    refusal: Option<Box<ResponseBody>>,
}

impl Reply {
    pub(crate) fn new(
        ring: &Rc<Ring>,
        call: CallId,
        version: i16,
        request: &RequestBody,
        open: &Rc<RefCell<BTreeSet<CallId>>>,
    ) -> Reply {
        let api = request.api_key();
        let refusal = if is_raft(api) {
            raft_failure(api, ErrorCode::BrokerNotAvailable)
        } else {
            error_response(request, ErrorCode::NotController, version).expect("a request for the controller")
        };
        open.borrow_mut().insert(call);
        Reply { ring: ring.clone(), call, api, version, open: open.clone(), refusal: Some(Box::new(refusal)) }
    }

    pub(crate) fn send(mut self, response: ResponseBody) {
        self.refusal = None;
        self.post(&response);
    }

    fn post(&self, response: &ResponseBody) {
        let (shared, node) = (&self.ring.shared, self.ring.node);
        self.open.borrow_mut().remove(&self.call);
        shared.checks.borrow_mut().on_response_sent(shared, node, self.call, response);
        let body = encode_response(response, self.version);
        let body = body.unwrap_or_else(|fault| panic!("a {} response: {fault}", self.api.name()));
        let packet = Packet::Response { call: self.call, api: self.api, version: self.version, body };
        shared.send(node, self.call.place, packet);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(refusal) = self.refusal.take()
            && !self.ring.is_dead()
        {
            self.post(&refusal);
        }
    }
}

/// What requests to raft get that can't be done.
fn raft_failure(api: ApiKey, error: ErrorCode) -> ResponseBody {
    let error_code = error.code();
    match api {
        ApiKey::Vote => VoteResponse { error_code, ..Default::default() }.into(),
        ApiKey::BeginQuorumEpoch => BeginQuorumEpochResponse { error_code, ..Default::default() }.into(),
        ApiKey::EndQuorumEpoch => EndQuorumEpochResponse { error_code, ..Default::default() }.into(),
        ApiKey::FetchSnapshot => FetchSnapshotResponse { error_code, ..Default::default() }.into(),
        ApiKey::DescribeQuorum => DescribeQuorumResponse { error_code, ..Default::default() }.into(),
        ApiKey::AddRaftVoter => AddRaftVoterResponse { error_code, ..Default::default() }.into(),
        ApiKey::RemoveRaftVoter => RemoveRaftVoterResponse { error_code, ..Default::default() }.into(),
        ApiKey::UpdateRaftVoter => UpdateRaftVoterResponse { error_code, ..Default::default() }.into(),
        _ => FetchResponse { error_code, ..Default::default() }.into(),
    }
}

/// What a controller says of itself.
pub(crate) fn api_versions() -> ResponseBody {
    let feature = api_versions_response::SupportedFeatureKey {
        name: StrBytes::from_static("kraft.version"),
        min_version: 0,
        max_version: 1,
    };
    ApiVersionsResponse { supported_features: vec![feature], ..ApiVersionsResponse::default() }.into()
}
