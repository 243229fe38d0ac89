//! The way to the controller: of this node on its core, from every other core, and to the active one wherever it is.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use ringlog_metadata::controller::error_response;
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_protocol::messages::{
    AddRaftVoterResponse, BeginQuorumEpochResponse, DescribeQuorumResponse, EndQuorumEpochResponse, FetchResponse,
    FetchSnapshotResponse, RemoveRaftVoterResponse, UpdateRaftVoterResponse, VoteResponse,
};
use ringlog_protocol::{ApiKey, RequestBody, ResponseBody};
use ringlog_quorum::ControllerRequest;
use ringlog_raft::Endpoint;
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, Uuid};
use tracing::debug;

use super::contacts::Contacts;
use super::remote::{RemoteController, RemoteError};
use super::{arrivals, mailbox};
use crate::core::{Core, Room};
use crate::mesh::LocalFuture;
use crate::metadata::MetadataView;
use crate::net::peer::PeerVersions;
use crate::net::request::Peer;
use crate::storage::context::StoreContext;

/// The first version of DescribeQuorum that tells voters' directories and addresses.
const QUORUM_DIRECTORIES_SINCE: i16 = 2;
/// How long the active controller is looked for, as Kafka's forwarding does it. Clients have given up by then.
pub const REQUEST_LIMIT_MS: u64 = 60_000;
/// Wait before asking again, unless a leader shows before.
pub const RETRY_MS: u64 = 50;

/// A client's request, from a broker's listener (`is_forwarded`) or the controller's own.
pub fn request_of_client(body: RequestBody, api_version: i16, peer: &Peer, is_forwarded: bool) -> ControllerRequest {
    ControllerRequest {
        api_version,
        is_forwarded,
        client_address: Some(peer.address),
        listener: peer.listener.name.clone(),
        ..ControllerRequest::internal(body)
    }
}

/// The leader of the quorum, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLeader {
    /// Its id.
    pub id: Option<NodeId>,
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where its controller listens, if it is another node and that is known.
    pub endpoint: Option<Endpoint>,
    /// Whether this node leads.
    pub is_here: bool,
}

/// The way to the controller, on every core.
pub struct Controller {
    pub(super) core: Rc<Core>,
    pub(super) metadata: Rc<MetadataView>,
    /// For the metadata log.
    pub(super) store: Rc<StoreContext>,
    /// There on the controller's core.
    pub(super) handle: OnceCell<Rc<ControllerHandle>>,
}

impl Room for Controller {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Controller {
    /// It isn't started.
    pub fn new(core: Rc<Core>, metadata: Rc<MetadataView>, store: Rc<StoreContext>) -> Controller {
        Controller { core, metadata, store, handle: OnceCell::new() }
    }

    /// What this core knows of the cluster.
    pub fn metadata(&self) -> &MetadataView {
        &self.metadata
    }
}

/// The controller as its core holds it.
pub struct ControllerHandle {
    pub(super) mailbox: ring::LocalSender<mailbox::Command>,
    pub(super) raft_mailbox: ring::LocalSender<(Box<ControllerRequest>, mailbox::Reply)>,
    pub(super) arrivals: arrivals::Arrivals,
    pub(super) applied: Cell<Offset>,
    pub(super) leader: RefCell<KnownLeader>,
    pub(super) leader_changed: ring::Notify,
    pub(super) kraft_version: Cell<i16>,
    /// The metadata offset with which the finalized features last changed, or became known.
    pub(super) features_offset: Cell<Offset>,
    pub(super) remote: RemoteController,
    /// Who of the quorum answers.
    pub(super) contacts: Rc<Contacts>,
}

impl ControllerHandle {
    /// Asks this node; the answer comes when what was decided is committed and every core of this node has taken it over
    /// (or doesn't within half a second), or when the request's own time is up before it was begun. `None`: this node
    /// isn't the active controller.
    async fn ask_here(&self, mut request: ControllerRequest) -> Option<ResponseBody> {
        let now = ring::now().monotonic;
        request.received_at = Some(now);
        self.arrivals.note(&request.body, now);
        let Some(patience_ms) = request.patience_ms() else {
            return self.ask_at_length(request, Rc::default()).await;
        };
        let too_late = failure(&request, ErrorCode::RequestTimedOut);
        if patience_ms == 0 {
            return Some(too_late);
        }
        let is_begun = Rc::new(Cell::new(false));
        let asked = self.ask_at_length(request, is_begun.clone());
        begun_in_time(patience_ms, &is_begun, asked).await.unwrap_or(Some(too_late))
    }

    /// The driver says in `is_begun` when it takes the request. One that nobody waits for any more isn't begun.
    async fn ask_at_length(&self, request: ControllerRequest, is_begun: Rc<Cell<bool>>) -> Option<ResponseBody> {
        let (sender, answer) = ring::oneshot();
        let reply = mailbox::Reply { sender, is_begun };
        if request.is_for_raft() {
            self.raft_mailbox.send((Box::new(request), reply)).await.ok()?;
        } else {
            self.mailbox.send(mailbox::Command::Request(Box::new(request), reply)).await.ok()?;
        }
        answer.await.ok()
    }

    /// Asks the active controller, wherever it is, until `deadline`.
    async fn ask_active(&self, request: ControllerRequest, deadline: MonotonicMs) -> ResponseBody {
        loop {
            let leader = self.leader();
            let outcome = if leader.is_here {
                self.ask_here(request.clone()).await.ok_or(RemoteError::NotController)
            } else if let Some(endpoint) = &leader.endpoint {
                // A node that hangs isn't waited for once another one leads.
                let overtaken = async {
                    self.leader_other_than(&leader).await;
                    Err(RemoteError::NotController)
                };
                futures_lite::future::or(self.remote.ask(endpoint, &request, deadline), overtaken).await
            } else {
                Err(RemoteError::NotController)
            };
            let now = ring::now().monotonic;
            match outcome {
                Ok(response) => return response,
                Err(RemoteError::Refused(error)) => return failure(&request, error),
                Err(fault) => debug!(api = request.body.api_key().name(), leader = ?leader.id, "no answer: {fault}"),
            }
            if now >= deadline {
                return failure(&request, ErrorCode::RequestTimedOut);
            }
            let wait_ms = RETRY_MS.min(deadline.since_ms(now));
            if self.leader() == leader {
                let _ = ring::timeout_ms(wait_ms, self.leader_changed.wait()).await;
            }
        }
    }

    /// Why no controller can be asked for anything, if so.
    pub(super) fn lacks_controller(&self, now: MonotonicMs) -> Option<String> {
        let leader = self.leader();
        let named = || leader.id.map_or_else(|| "the leader".to_owned(), |id| format!("the leader, controller {id},"));
        match &leader.endpoint {
            _ if leader.is_here => None,
            None => Some(format!("the metadata quorum has no leader ({})", self.contacts.summary(now))),
            Some(endpoint) => {
                let fault = self.contacts.fault_of(endpoint)?;
                Some(format!("{} at {endpoint} can't be reached: {fault}", named()))
            }
        }
    }

    /// The newest metadata offset that all cores of this node have taken over; -1 at first.
    pub fn applied_offset(&self) -> Offset {
        self.applied.get()
    }

    /// The leader of the metadata quorum, as far as known.
    pub fn leader(&self) -> KnownLeader {
        self.leader.borrow().clone()
    }

    /// Waits until another node is known to lead.
    async fn leader_other_than(&self, leader: &KnownLeader) {
        let is_other = |now: &KnownLeader| now.epoch > leader.epoch && (now.is_here || now.endpoint.is_some());
        while !is_other(&self.leader.borrow()) {
            self.leader_changed.wait().await;
        }
    }

    pub(super) fn set_leader(&self, leader: KnownLeader) {
        *self.leader.borrow_mut() = leader;
        self.leader_changed.notify_all();
    }

    pub(super) fn on_published(&self, image: &MetadataImage, changes: &MetadataChanges) {
        if self.features_offset.get() == Offset::NONE || !changes.features.is_empty() {
            self.features_offset.set(image.provenance.last_contained_offset);
        }
    }

    pub(super) fn on_applied(&self, offset: Offset) {
        self.applied.set(self.applied.get().max(offset));
    }
}

/// What comes of `asked`, which is dropped when it isn't begun in time. What is begun is waited for, as in Kafka: what is
/// appended is never taken back.
pub(super) async fn begun_in_time<T>(
    patience_ms: u64,
    is_begun: &Cell<bool>,
    asked: impl Future<Output = T>,
) -> Result<T, ring::Elapsed> {
    let time_is_up = async {
        ring::sleep_ms(patience_ms).await;
        if is_begun.get() {
            std::future::pending::<()>().await;
        }
        Err(ring::Elapsed)
    };
    futures_lite::future::or(async { Ok(asked.await) }, time_is_up).await
}

/// What a request gets that can't be done.
fn failure(request: &ControllerRequest, error: ErrorCode) -> ResponseBody {
    error_response(&request.body, error, request.api_version)
        .unwrap_or_else(|| raft_failure(request.body.api_key(), error))
}

/// The same for requests to raft.
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

/// Whether [`request`] takes requests of this API.
pub fn takes(api: ApiKey) -> bool {
    ringlog_quorum::is_raft(api)
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

/// Asks the active controller, on this node or another, from any core: for this broker's own requests and those of its
/// clients. `request` must be of an API that [`takes`] knows.
pub async fn request(controller: &Rc<Controller>, request: ControllerRequest) -> ResponseBody {
    request_within(controller, request, REQUEST_LIMIT_MS).await
}

/// As [`request`], but it is looked for no longer than `limit_ms`.
pub async fn request_within(controller: &Rc<Controller>, request: ControllerRequest, limit_ms: u64) -> ResponseBody {
    let deadline = ring::now().monotonic.plus_ms(limit_ms);
    let api_version = request.api_version;
    let response = on_handle(controller, move |handle| {
        Box::pin(async move {
            match handle {
                Some(handle) => handle.ask_active(request, deadline).await,
                None => failure(&request, ErrorCode::NotController),
            }
        })
    });
    fitting(response.await, api_version)
}

/// Asks this node's controller or raft, from any core: for what came in by the controller's listener.
pub async fn request_here(controller: &Rc<Controller>, request: ControllerRequest) -> ResponseBody {
    let api_version = request.api_version;
    fitting(ask_here(controller, request).await, api_version)
}

/// Leaves out what an older version of an answer can't hold, and must not.
fn fitting(mut response: ResponseBody, api_version: i16) -> ResponseBody {
    if let ResponseBody::DescribeQuorum(response) = &mut response
        && api_version < QUORUM_DIRECTORIES_SINCE
    {
        response.nodes.clear();
        response.error_message = None;
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.error_message = None;
            let replicas = partition.current_voters.iter_mut().chain(&mut partition.observers);
            replicas.for_each(|replica| replica.replica_directory_id = Uuid::ZERO);
        }
    }
    response
}

async fn ask_here(controller: &Rc<Controller>, request: ControllerRequest) -> ResponseBody {
    on_handle(controller, move |handle| {
        Box::pin(async move {
            let error = if request.is_for_raft() { ErrorCode::BrokerNotAvailable } else { ErrorCode::NotController };
            let refusal = failure(&request, error);
            match handle {
                Some(handle) => handle.ask_here(request).await.unwrap_or(refusal),
                None => refusal,
            }
        })
    })
    .await
}

/// Runs `work` on the controller's core; `None` before it has started there.
async fn on_handle<T: Send + 'static>(
    controller: &Rc<Controller>,
    work: impl FnOnce(Option<Rc<ControllerHandle>>) -> LocalFuture<T> + Send + 'static,
) -> T {
    controller
        .invoke_on(controller.core.node.controller_index, |controller| work(controller.handle.get().cloned()))
        .await
}

/// The newest metadata offset that all cores of this node have taken over, asked from any core.
pub async fn applied_offset(controller: &Rc<Controller>) -> Offset {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> LocalFuture<Offset> {
        Box::pin(std::future::ready(handle.map_or(Offset::NONE, |handle| handle.applied_offset())))
    };
    on_handle(controller, ask).await
}

/// Why no controller can be asked for anything, if so; asked from any core.
pub async fn why_unreachable(controller: &Rc<Controller>) -> Option<String> {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> LocalFuture<Option<String>> {
        let reason = handle.and_then(|handle| handle.lacks_controller(ring::now().monotonic));
        Box::pin(std::future::ready(reason))
    };
    on_handle(controller, ask).await
}

/// What is known of the quorum beside its image.
#[derive(Debug, Clone)]
pub struct Quorum {
    /// The finalized `kraft.version`.
    pub kraft_version: i16,
    /// The metadata offset with which the finalized features last changed. -1: nothing is known yet.
    pub features_offset: Offset,
    /// The leader.
    pub leader_id: Option<NodeId>,
    /// What the active controller speaks, if it is another node: brokers advertise no more of what they forward.
    pub controller_versions: Option<PeerVersions>,
}

impl Quorum {
    /// Before the controller has started.
    const UNKNOWN: Quorum =
        Quorum { kraft_version: 0, features_offset: Offset::NONE, leader_id: None, controller_versions: None };
}

/// What is known of the quorum, asked from any core.
pub async fn quorum(controller: &Rc<Controller>) -> Quorum {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> LocalFuture<Quorum> {
        let known = handle.map_or(Quorum::UNKNOWN, |handle| {
            let leader = handle.leader();
            Quorum {
                kraft_version: handle.kraft_version.get(),
                features_offset: handle.features_offset.get(),
                leader_id: leader.id,
                controller_versions: handle.remote.versions().filter(|_| !leader.is_here),
            }
        });
        Box::pin(std::future::ready(known))
    };
    on_handle(controller, ask).await
}
