//! The controller's core: drives this node of the metadata quorum, hands its images to every core, and finds the active
//! controller for whoever on this node needs it.
//!
//! One task owns raft, the controller, the image loader and the metadata log ([`driver`]). It runs on a core of its own,
//! or in a task queue of its own beside shard 0. Others reach it through bounded mailboxes, wherever they run:
//! [`request`] finds the active controller, here or on another node; [`request_here`] is for what comes in by the
//! controller's listener and is meant for this node.
//!
//! ```text
//!   request() ─┬─► mailbox ──► QuorumNode ──records──► raft ──► metadata log ──► fdatasync, followers' fetches
//!              │                                                     │ high watermark
//!              │   response ◄── every core has it ◄── image ◄────────┘
//!              └─► remote ──► the active controller's listener ──► response
//! ```

pub mod api;
mod arrivals;
mod contacts;
mod driver;
mod loading;
mod metadata_log;
mod peers;
mod progress;
mod recovery;
mod remote;
mod settings;
mod snapshot_files;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_metadata::controller::error_response;
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_protocol::messages::{
    AddRaftVoterResponse, BeginQuorumEpochResponse, DescribeQuorumResponse, EndQuorumEpochResponse, FetchResponse,
    FetchSnapshotResponse, RemoveRaftVoterResponse, UpdateRaftVoterResponse, VoteResponse,
};
use ringlog_protocol::{ApiKey, RequestBody, ResponseBody};
use ringlog_quorum::{QuorumConfig, QuorumNode};
use ringlog_raft::Endpoint;
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, Random, Uuid};
use tracing::{debug, info, warn};

use crate::lasting::Lasting;
use crate::net::connection::Peer;
use crate::net::peer::PeerVersions;
use crate::shard::Shard;
use contacts::Contacts;
use remote::{RemoteController, RemoteError};

pub use loading::LoadFault;
pub use ringlog_quorum::ControllerRequest;
pub use settings::host_or_name;

/// The first version of DescribeQuorum that tells voters' directories and addresses.
const QUORUM_DIRECTORIES_SINCE: i16 = 2;
/// Requests that may wait for the controller; further ones wait to get in.
const MAILBOX_CAPACITY: usize = 1024;
/// The weight of the controller's task queue where it shares a core; shard 0's own queue has 1000.
const SHARED_CORE_SHARES: usize = 250;
/// How often its queue gets a turn then, at least.
const SHARED_CORE_LATENCY_MS: u64 = 10;
/// How long the active controller is looked for, as Kafka's forwarding does it. Clients have given up by then.
const REQUEST_LIMIT_MS: u64 = 60_000;
/// Wait before asking again, unless a leader shows before.
const RETRY_MS: u64 = 50;
/// No active controller for so long is worth a line in the log.
const PATIENCE_MS: u64 = 5_000;
/// How often it is looked whether there is one.
const LOOK_MS: u64 = 1_000;

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

/// The controller as its core holds it.
pub struct ControllerHandle {
    mailbox: ring::LocalSender<driver::Command>,
    raft_mailbox: ring::LocalSender<(Box<ControllerRequest>, driver::Reply)>,
    arrivals: arrivals::Arrivals,
    applied: Cell<Offset>,
    leader: RefCell<KnownLeader>,
    leader_changed: ring::Notify,
    kraft_version: Cell<i16>,
    /// The metadata offset with which the finalized features last changed, or became known.
    features_offset: Cell<Offset>,
    remote: RemoteController,
    /// Who of the quorum answers.
    contacts: Rc<Contacts>,
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
        let reply = driver::Reply { sender, is_begun };
        if request.is_for_raft() {
            self.raft_mailbox.send((Box::new(request), reply)).await.ok()?;
        } else {
            self.mailbox.send(driver::Command::Request(Box::new(request), reply)).await.ok()?;
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
    fn lacks_controller(&self, now: MonotonicMs) -> Option<String> {
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

    fn set_leader(&self, leader: KnownLeader) {
        *self.leader.borrow_mut() = leader;
        self.leader_changed.notify_all();
    }

    fn on_published(&self, image: &MetadataImage, changes: &MetadataChanges) {
        if self.features_offset.get() == Offset::NONE || !changes.features.is_empty() {
            self.features_offset.set(image.provenance.last_contained_offset);
        }
    }

    fn on_applied(&self, offset: Offset) {
        self.applied.set(self.applied.get().max(offset));
    }
}

/// What comes of `asked`, which is dropped when it isn't begun in time. What is begun is waited for, as in Kafka: what is
/// appended is never taken back.
async fn begun_in_time<T>(
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
pub async fn request(shard: &Rc<Shard>, request: ControllerRequest) -> ResponseBody {
    request_within(shard, request, REQUEST_LIMIT_MS).await
}

/// As [`request`], but it is looked for no longer than `limit_ms`.
pub async fn request_within(shard: &Rc<Shard>, request: ControllerRequest, limit_ms: u64) -> ResponseBody {
    let deadline = ring::now().monotonic.plus_ms(limit_ms);
    let api_version = request.api_version;
    let response = on_handle(shard, move |handle| {
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
pub async fn request_here(shard: &Rc<Shard>, request: ControllerRequest) -> ResponseBody {
    let api_version = request.api_version;
    fitting(ask_here(shard, request).await, api_version)
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

async fn ask_here(shard: &Rc<Shard>, request: ControllerRequest) -> ResponseBody {
    on_handle(shard, move |handle| {
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
    shard: &Rc<Shard>,
    work: impl FnOnce(Option<Rc<ControllerHandle>>) -> crate::mesh::LocalFuture<T> + Send + 'static,
) -> T {
    shard.invoke_on(shard.node.controller_index, |shard| work(shard.controller.get().cloned())).await
}

/// The newest metadata offset that all cores of this node have taken over, asked from any core.
pub async fn applied_offset(shard: &Rc<Shard>) -> Offset {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> crate::mesh::LocalFuture<Offset> {
        Box::pin(std::future::ready(handle.map_or(Offset::NONE, |handle| handle.applied_offset())))
    };
    on_handle(shard, ask).await
}

/// Why no controller can be asked for anything, if so; asked from any core.
pub async fn why_unreachable(shard: &Rc<Shard>) -> Option<String> {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> crate::mesh::LocalFuture<Option<String>> {
        let reason = handle.and_then(|handle| handle.lacks_controller(ring::now().monotonic));
        Box::pin(std::future::ready(reason))
    };
    on_handle(shard, ask).await
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
pub async fn quorum(shard: &Rc<Shard>) -> Quorum {
    let ask = |handle: Option<Rc<ControllerHandle>>| -> crate::mesh::LocalFuture<Quorum> {
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
    on_handle(shard, ask).await
}

/// Loads the metadata log and joins the quorum. Requests may be sent from the moment this is called; they wait.
pub async fn start(shard: &Rc<Shard>) -> Result<(), LoadFault> {
    let (mailbox, controller_inbox) = ring::local_channel(MAILBOX_CAPACITY);
    let (raft_mailbox, raft_inbox) = ring::local_channel(MAILBOX_CAPACITY);
    let attempt_ms = u64::try_from(shard.node.config.controller.socket_timeout_ms).unwrap_or(0);
    let random_seed = shard.random.borrow_mut().next_u64();
    let handle = Rc::new(ControllerHandle {
        mailbox,
        raft_mailbox,
        arrivals: arrivals::Arrivals::default(),
        applied: Cell::new(Offset::NONE),
        leader: RefCell::new(KnownLeader { id: None, epoch: LeaderEpoch(0), endpoint: None, is_here: false }),
        leader_changed: ring::Notify::new(),
        kraft_version: Cell::new(0),
        features_offset: Cell::new(Offset::NONE),
        remote: RemoteController::new(shard.node.id, attempt_ms, Random::from_seed(random_seed)),
        contacts: Rc::new(Contacts::new(&shard.node.cluster_id)),
    });
    // Before the first await: nobody finds this core without it.
    let is_first = shard.controller.set(handle.clone()).is_ok();
    assert!(is_first, "the controller is started once");
    let node = shard.node.clone();
    let raft = settings::raft(&node);
    let loaded = loading::load(shard, &raft).await?;
    let mut random = Random::from_seed(shard.random.borrow_mut().next_u64());
    let policy = settings::snapshots(&node.config);
    let request_timeout_ms = raft.request_timeout_ms;
    let controller =
        node.config.roles.controller.then(|| settings::controller(&node, loaded.bootstrap, random.next_u64()));
    let static_voters = settings::static_voters(&node.config);
    let config = QuorumConfig { raft, controller, snapshots: policy, static_voters };
    let machine = QuorumNode::new(config, loaded.node, random, ring::now());
    let inboxes = driver::Inboxes { controller: controller_inbox, raft: raft_inbox };
    ring::spawn_detached(watch_quorum(shard.clone(), handle.clone()));
    let driver = driver::Driver::new(shard.clone(), handle, inboxes, machine, loaded.log, policy, request_timeout_ms);
    if node.controller_index < node.shards {
        let queue = ring::TaskQueue::new("controller", SHARED_CORE_SHARES, Some(SHARED_CORE_LATENCY_MS));
        ring::spawn_into(queue, driver.run()).detach();
    } else {
        ring::spawn_detached(driver.run());
    }
    if node.config.roles.broker {
        ring::spawn_detached(follow_versions(shard.clone()));
    }
    Ok(())
}

/// Says in the log when there is no active controller, and why; ends the node when it has no business in its quorum.
async fn watch_quorum(shard: Rc<Shard>, handle: Rc<ControllerHandle>) {
    let silence = Lasting::after(PATIENCE_MS);
    while !shard.controller_closing.is_set() {
        let stranger = async { Some(handle.contacts.fatal().await) };
        let look = async {
            ring::sleep_ms(LOOK_MS).await;
            None
        };
        if let Some(reason) = futures_lite::future::or(stranger, look).await {
            return shard.fail(&reason);
        }
        let now = ring::now().monotonic;
        let Some(reason) = handle.lacks_controller(now) else {
            if let Some(lasted_ms) = silence.over(now) {
                info!("there is an active controller again, after {} s", lasted_ms / 1000);
            }
            continue;
        };
        if let Some(lasted_ms) = silence.holds(now) {
            let consequence = match (shard.node.config.roles.broker, handle.applied_offset()) {
                (false, _) => "nothing can be changed in the cluster",
                (true, Offset::NONE) => "this broker can't serve before it is registered",
                (true, _) => "producing and fetching go on with the metadata known so far, nothing can be changed",
            };
            warn!("no active controller for {} s: {reason}; {consequence}", lasted_ms / 1000);
        }
    }
}

/// Asks each new active controller what it speaks, so that ApiVersions is right before the first forwarded request.
async fn follow_versions(shard: Rc<Shard>) {
    let Some(handle) = shard.controller.get().cloned() else { return };
    while !shard.closing.is_set() {
        let leader = handle.leader();
        if let Some(endpoint) = leader.endpoint.as_ref().filter(|_| !leader.is_here) {
            let deadline = ring::now().monotonic.plus_ms(REQUEST_LIMIT_MS);
            if handle.remote.learn_versions(endpoint, deadline).await.is_err() {
                ring::sleep_ms(RETRY_MS).await;
                continue;
            }
        }
        if handle.leader() == leader {
            handle.leader_changed.wait().await;
        }
    }
}

/// Stops in order: leadership is handed over, what was proposed is written, the log is left as an orderly stop leaves it.
pub async fn stop(shard: Rc<Shard>) {
    let Some(handle) = shard.controller.get().cloned() else { return };
    let (done, stopped) = ring::oneshot();
    if handle.mailbox.send(driver::Command::Stop(done)).await.is_ok() {
        // The driver drops its end when it is done.
        let _ = stopped.await;
        info!("the controller has stopped");
    }
}
