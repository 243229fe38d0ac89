//! The controller's core: drives raft and the metadata machine, and hands their images to every core.
//!
//! One task owns raft, the controller, the image loader and the metadata log ([`driver`]). Others reach it through a
//! bounded mailbox, wherever they run: [`request`]. It runs on a core of its own, or in a task queue of its own beside
//! shard 0.
//!
//! ```text
//!   request() ──► mailbox ──► Controller::handle ──records──► Raft::propose ──► metadata log ──► fdatasync
//!                                                                                    │ high watermark
//!   response ◄── every core has taken it over ◄── image and changes ◄── MetadataLoader ◄┘
//! ```

mod driver;
mod loading;
mod metadata_log;
mod settings;
mod snapshots;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_metadata::controller::error_response;
use ringlog_protocol::messages::{
    AddRaftVoterResponse, BeginQuorumEpochResponse, DescribeQuorumResponse, EndQuorumEpochResponse, FetchResponse,
    FetchSnapshotResponse, RemoveRaftVoterResponse, UpdateRaftVoterResponse, VoteResponse,
};
use ringlog_protocol::{ApiKey, RequestBody, ResponseBody, StrBytes};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, NodeId, Offset};
use tracing::info;

use crate::connection::Peer;
use crate::shard::Shard;

pub use loading::LoadFault;
pub use settings::host_or_name;

/// Requests that may wait for the controller; further ones wait to get in.
const MAILBOX_CAPACITY: usize = 1024;
/// The weight of the controller's task queue where it shares a core; shard 0's own queue has 1000.
const SHARED_CORE_SHARES: usize = 250;
/// How often its queue gets a turn then, at least.
const SHARED_CORE_LATENCY_MS: u64 = 10;
/// The principal of whoever didn't authenticate.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

/// A request to the controller, and what it may want to know of the requester.
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
        }
    }

    /// A client's request, from a broker's listener (`is_forwarded`) or the controller's own.
    pub fn of_client(body: RequestBody, api_version: i16, peer: &Peer, is_forwarded: bool) -> ControllerRequest {
        ControllerRequest {
            api_version,
            is_forwarded,
            client_address: Some(peer.address),
            listener: peer.listener.name.clone(),
            ..ControllerRequest::internal(body)
        }
    }
}

/// Why the controller doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerFault {
    /// The metadata directory can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadFault),
    /// The quorum isn't just this node.
    #[error(
        "the metadata quorum has the voters {voters}, but this release of Ringlog runs a single controller that is its \
         own quorum: node {node_id} must be the only voter"
    )]
    NotTheOnlyVoter {
        /// The voters' ids, as text.
        voters: String,
        /// This node.
        node_id: NodeId,
    },
}

/// The controller as its core holds it.
pub struct ControllerHandle {
    mailbox: ring::LocalSender<driver::Command>,
    applied: Cell<Offset>,
    leader_id: Cell<Option<NodeId>>,
    kraft_version: Cell<i16>,
}

impl ControllerHandle {
    /// Asks the controller; the answer comes when what it decided is committed and every core of this node has taken it
    /// over (or doesn't within half a second).
    pub async fn submit(&self, request: ControllerRequest) -> ResponseBody {
        let refusal = unavailable(&request.body, request.api_version);
        let (reply, answer) = ring::oneshot();
        if self.mailbox.send(driver::Command::Request(Box::new(request), reply)).await.is_err() {
            return refusal;
        }
        answer.await.unwrap_or(refusal)
    }

    /// The newest metadata offset that all cores of this node have taken over; -1 at first.
    pub fn applied_offset(&self) -> Offset {
        self.applied.get()
    }

    /// The leader of the metadata quorum, as far as known.
    pub fn leader_id(&self) -> Option<NodeId> {
        self.leader_id.get()
    }

    /// The finalized `kraft.version`, which isn't part of the image.
    pub fn kraft_version(&self) -> i16 {
        self.kraft_version.get()
    }

    fn on_applied(&self, offset: Offset) {
        self.applied.set(self.applied.get().max(offset));
    }
}

/// What a request gets when the controller doesn't run (any more).
fn unavailable(body: &RequestBody, api_version: i16) -> ResponseBody {
    if let Some(response) = error_response(body, ErrorCode::NotController, api_version) {
        return response;
    }
    let error_code = ErrorCode::BrokerNotAvailable.code();
    match body.api_key() {
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

/// Whether [`request`] takes requests of this API.
pub fn takes(api: ApiKey) -> bool {
    is_raft(api)
        || matches!(
            api,
            ApiKey::BrokerRegistration
                | ApiKey::BrokerHeartbeat
                | ApiKey::UnregisterBroker
                | ApiKey::ControllerRegistration
                | ApiKey::CreateTopics
                | ApiKey::DeleteTopics
                | ApiKey::CreatePartitions
                | ApiKey::AlterPartition
                | ApiKey::ElectLeaders
                | ApiKey::AlterPartitionReassignments
                | ApiKey::ListPartitionReassignments
                | ApiKey::AssignReplicasToDirs
                | ApiKey::AllocateProducerIds
                | ApiKey::AlterConfigs
                | ApiKey::IncrementalAlterConfigs
                | ApiKey::UpdateFeatures
                | ApiKey::AlterClientQuotas
                | ApiKey::CreateAcls
                | ApiKey::DeleteAcls
                | ApiKey::AlterUserScramCredentials
                | ApiKey::CreateDelegationToken
                | ApiKey::RenewDelegationToken
                | ApiKey::ExpireDelegationToken
        )
}

/// Whether raft answers requests of this API.
fn is_raft(api: ApiKey) -> bool {
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

/// Asks the controller of this node, from any core. `request` must be of an API that [`takes`] knows.
pub async fn request(shard: &Rc<Shard>, request: ControllerRequest) -> ResponseBody {
    let controller = shard.node.controller_index;
    let work = |shard: &Rc<Shard>| -> crate::mesh::LocalFuture<ResponseBody> {
        let handle = shard.controller.get().cloned();
        Box::pin(async move {
            match handle {
                Some(handle) => handle.submit(request).await,
                None => unavailable(&request.body, request.api_version),
            }
        })
    };
    shard.invoke_on(controller, work).await
}

/// The newest metadata offset that all cores of this node have taken over, asked from any core.
pub async fn applied_offset(shard: &Rc<Shard>) -> Offset {
    let ask = |shard: &Rc<Shard>| -> crate::mesh::LocalFuture<Offset> {
        let offset = shard.controller.get().map_or(Offset::NONE, |handle| handle.applied_offset());
        Box::pin(std::future::ready(offset))
    };
    shard.invoke_on(shard.node.controller_index, ask).await
}

/// The finalized `kraft.version` and the leader of the quorum, asked from any core.
pub async fn quorum(shard: &Rc<Shard>) -> (i16, Option<NodeId>) {
    let ask = |shard: &Rc<Shard>| -> crate::mesh::LocalFuture<(i16, Option<NodeId>)> {
        let known = shard.controller.get().map_or((0, None), |handle| (handle.kraft_version(), handle.leader_id()));
        Box::pin(std::future::ready(known))
    };
    shard.invoke_on(shard.node.controller_index, ask).await
}

/// Loads the metadata log and joins the quorum. Requests may be sent from the moment this is called; they wait.
pub async fn start(shard: &Rc<Shard>) -> Result<(), ControllerFault> {
    let (mailbox, inbox) = ring::local_channel(MAILBOX_CAPACITY);
    let handle = Rc::new(ControllerHandle {
        mailbox,
        applied: Cell::new(Offset::NONE),
        leader_id: Cell::new(None),
        kraft_version: Cell::new(0),
    });
    // Before the first await: nobody finds this core without it.
    let is_first = shard.controller.set(handle.clone()).is_ok();
    assert!(is_first, "the controller is started once");
    let loaded = loading::load(shard).await?;
    let driver = driver::Driver::new(shard.clone(), handle, inbox, loaded)?;
    if shard.node.controller_index < shard.node.shards {
        let queue = ring::TaskQueue::new("controller", SHARED_CORE_SHARES, Some(SHARED_CORE_LATENCY_MS));
        ring::spawn_into(queue, driver.run()).detach();
    } else {
        ring::spawn_detached(driver.run());
    }
    Ok(())
}

/// Stops in order: what was proposed is written, the log is left as an orderly stop leaves it.
pub async fn stop(shard: Rc<Shard>) {
    let Some(handle) = shard.controller.get().cloned() else { return };
    let (done, stopped) = ring::oneshot();
    if handle.mailbox.send(driver::Command::Stop(done)).await.is_ok() {
        // The driver drops its end when it is done.
        let _ = stopped.await;
        info!("the controller has stopped");
    }
}
