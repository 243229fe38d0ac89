//! Copies to this core's replicas what their leaders, on other nodes, have. Read from the top:
//!
//! 1. [`ReplicaFetcher::follow`]: the metadata says that a replica follows a leader. Each leader has one task and one
//!    connection here, for all partitions that it leads and that live on this core.
//! 2. [`run`]: one Fetch after the other, in one fetch session ([`LeaderFetch`]); a request names what has changed.
//! 3. [`take_in`]: batches go into the logs as they came ([`Replica::append_fetched`]). The next fetch acknowledges what is
//!    on the device, so it waits for that; not long for a slow disk, whose partitions leave the session until it is done.
//! 4. A log that isn't as its leader's is cut, or begins anew ([`truncate`], [`look_for_start`]), beside the others.
//!
//! Bounds: a request at a time and leader, of `replica.fetch.response.max.bytes`; after an error a partition, or the whole
//! connection, waits: for some milliseconds at first, as a new leader may not know yet that it is one, and for
//! `replica.fetch.backoff.ms` when that goes on. Nothing is scheduled for a partition that has no news.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use ringlog_log::{EpochEndOffset, list_offsets_timestamp};
use ringlog_metadata::MetadataImage;
use ringlog_partition::{FetchPosition, FollowerAppendError, FollowerThrottle, LeaderFetch, NextFetch, backoff_ms};
use ringlog_protocol::messages::fetch_request::{self, FetchRequest};
use ringlog_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use ringlog_protocol::messages::list_offsets_response::ListOffsetsResponse;
use ringlog_protocol::{Records, RequestBody};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, PartitionIndex, TopicIdPartition};
use rustc_hash::FxHashMap;
use tracing::{debug, info, warn};

use crate::core::Core;
use crate::data::replica::Replica;
use crate::data::replicas::Replicas;
use crate::data::replication_quotas::{ReplicationQuotas, Throttled};
use crate::lasting::Lasting;
use crate::metadata::MetadataView;
use crate::net::peer::{NameLookups, Peer, PeerError};
use crate::storage::context::StoreContext;

/// How long the next fetch waits for what the one before brought to be on the device.
const WRITTEN_WITHIN_MS: u64 = 100;
/// A leader that can't be reached for so long is told of.
const SILENCE_TOLD_MS: u64 = 2_000;

/// What is fetched for the replicas of one core.
pub struct ReplicaFetcher {
    core: Rc<Core>,
    metadata: Rc<MetadataView>,
    replicas: Rc<Replicas>,
    store: Rc<StoreContext>,
    quotas: Rc<ReplicationQuotas>,
    lookups: NameLookups,
    leaders: RefCell<FxHashMap<NodeId, Rc<Leader>>>,
    /// Whom each partition follows.
    followed: RefCell<FxHashMap<TopicIdPartition, NodeId>>,
}

/// What is fetched from one leader.
struct Leader {
    id: NodeId,
    fetch: RefCell<LeaderFetch>,
    /// There may be something to fetch.
    changed: ring::Notify,
    /// Nothing is followed any more: its task ends, whatever it waits for.
    is_left: crate::flag::Flag,
    unreachable: Lasting,
}

/// Why fetching from a leader failed.
#[derive(Debug, thiserror::Error)]
enum FetchFault {
    #[error("broker {0} isn't known with a listener {1}")]
    Unknown(NodeId, String),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("it answers {0:?}")]
    Refused(ErrorCode),
}

/// Records that were appended, and what their leader said with them.
struct Appended {
    id: TopicIdPartition,
    replica: Rc<Replica>,
    leader_epoch: LeaderEpoch,
    end_offset: Offset,
    high_watermark: Offset,
    log_start_offset: Offset,
}

impl ReplicaFetcher {
    /// Nothing is followed yet.
    pub fn new(
        core: Rc<Core>,
        metadata: Rc<MetadataView>,
        replicas: Rc<Replicas>,
        store: Rc<StoreContext>,
        quotas: Rc<ReplicationQuotas>,
    ) -> ReplicaFetcher {
        ReplicaFetcher {
            core,
            metadata,
            replicas,
            store,
            quotas,
            lookups: NameLookups::default(),
            leaders: RefCell::default(),
            followed: RefCell::default(),
        }
    }

    /// A replica of this core follows a leader, or follows it in another epoch than before.
    pub fn follow(self: &Rc<Self>, replica: &Rc<Replica>, leader: NodeId, leader_epoch: LeaderEpoch) {
        let id = replica.id;
        let before = self.followed.borrow_mut().insert(id, leader);
        if let Some(before) = before.filter(|before| *before != leader) {
            self.leave(id, before);
        }
        let leader = self.leader(leader);
        leader.fetch.borrow_mut().follow(id);
        if let Some(to) = replica.truncation_before_following() {
            self.beside(&leader, replica, leader_epoch, async move |replica| replica.truncate(to, leader_epoch).await);
        }
        leader.changed.notify_all();
    }

    /// A replica follows nobody any more. What is under way for it ends by itself.
    pub fn unfollow(&self, id: TopicIdPartition) {
        let before = self.followed.borrow_mut().remove(&id);
        if let Some(before) = before {
            self.leave(id, before);
        }
    }

    fn leave(&self, id: TopicIdPartition, leader: NodeId) {
        let mut leaders = self.leaders.borrow_mut();
        let Some(known) = leaders.get(&leader) else { return };
        known.fetch.borrow_mut().unfollow(id);
        if known.fetch.borrow().is_empty() {
            known.is_left.set();
            leaders.remove(&leader);
        }
    }

    fn leader(self: &Rc<Self>, id: NodeId) -> Rc<Leader> {
        if let Some(known) = self.leaders.borrow().get(&id) {
            return known.clone();
        }
        let leader = Rc::new(Leader {
            id,
            fetch: RefCell::default(),
            changed: ring::Notify::new(),
            is_left: crate::flag::Flag::default(),
            unreachable: Lasting::after(SILENCE_TOLD_MS),
        });
        self.leaders.borrow_mut().insert(id, leader.clone());
        let (fetcher, fetched) = (self.clone(), leader.clone());
        self.core.spawn_until_stop(async move {
            futures_lite::future::or(run(&fetcher, &fetched), fetched.is_left.wait_until_set()).await;
        });
        leader
    }

    /// Does something to a replica's log while the others are fetched on.
    fn beside(
        &self,
        leader: &Rc<Leader>,
        replica: &Rc<Replica>,
        leader_epoch: LeaderEpoch,
        work: impl AsyncFnOnce(&Rc<Replica>) -> io::Result<()> + 'static,
    ) {
        // The leader was asked meanwhile: in another epoch it is followed anew, and nobody would release it.
        if !replica.follows_in(leader_epoch) {
            return;
        }
        leader.fetch.borrow_mut().hold(replica.id);
        let (leader, replica, backoff_ms) = (leader.clone(), replica.clone(), self.backoff_ms());
        self.core.spawn(async move {
            if let Err(error) = work(&replica).await {
                replica.on_file_trouble("changing the log as its leader has it failed", &error);
                ring::sleep_ms(backoff_ms).await;
            }
            if replica.follows_in(leader_epoch) {
                leader.release(replica.id);
            }
        });
    }

    fn backoff_ms(&self) -> u64 {
        u64::try_from(self.core.node.config.replica.fetch_backoff_ms).unwrap_or(0)
    }

    fn delay(&self, leader: &Leader, id: TopicIdPartition) {
        leader.fetch.borrow_mut().delay(id, ring::now().monotonic, self.backoff_ms());
    }
}

impl Leader {
    fn release(&self, id: TopicIdPartition) {
        self.fetch.borrow_mut().release(id);
        self.changed.notify_all();
    }
}

/// Fetches, as long as there is something to fetch.
async fn run(fetcher: &Rc<ReplicaFetcher>, leader: &Rc<Leader>) {
    let mut peer = None;
    let mut failures = 0_u8;
    loop {
        let Some(next) = next_fetch(fetcher, leader) else {
            let due = leader.fetch.borrow().next_due();
            match due.map(|due| due.since_ms(ring::now().monotonic)) {
                // Somebody tells, or it is time.
                Some(left_ms) => drop(ring::timeout_ms(left_ms.max(1), leader.changed.wait()).await),
                None => leader.changed.wait().await,
            }
            continue;
        };
        match fetch(fetcher, leader, &mut peer, next).await {
            Ok(response) => {
                failures = 0;
                leader.unreachable.over(ring::now().monotonic);
                take_in(fetcher, leader, &mut peer, response).await;
            }
            Err(fault) => {
                peer = None;
                on_fault(leader, &fault);
                ring::sleep_ms(backoff_ms(failures, fetcher.backoff_ms())).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

/// What to ask for next, as far as throttles allow. Partitions whose records aren't written yet come back when they are.
fn next_fetch(fetcher: &Rc<ReplicaFetcher>, leader: &Rc<Leader>) -> Option<NextFetch> {
    let mut unready = Vec::new();
    let quotas = &fetcher.quotas;
    let is_throttled = |id| quotas.is_throttled(Throttled::Follower, id);
    let exceeded_until = if quotas.is_any_throttled() { quotas.exceeded_until(Throttled::Follower) } else { None };
    let throttle = exceeded_until.map(|until| FollowerThrottle { until, is_throttled: &is_throttled });
    let next = leader.fetch.borrow_mut().next(ring::now().monotonic, throttle.as_ref(), |id| {
        let position = fetcher.replicas.get(id).and_then(|replica| replica.fetch_position());
        if position.is_none() {
            unready.push(id);
        }
        position
    });
    for id in unready {
        leader.fetch.borrow_mut().hold(id);
        let Some(replica) = fetcher.replicas.get(id) else { continue };
        let (leader, standing) = (leader.clone(), replica.standing());
        fetcher.core.spawn_until_stop(async move {
            while replica.standing() == standing && replica.fetch_position().is_none() {
                replica.progressed().await;
            }
            leader.release(id);
        });
    }
    next
}

fn on_fault(leader: &Leader, fault: &FetchFault) {
    let is_known_there = !matches!(fault, FetchFault::Refused(ErrorCode::FetchSessionIdNotFound));
    leader.fetch.borrow_mut().on_failure(is_known_there);
    let partitions = leader.fetch.borrow().len();
    match leader.unreachable.holds(ring::now().monotonic) {
        Some(lasted_ms) => {
            let (leader, seconds) = (leader.id.0, lasted_ms / 1_000);
            warn!(leader, partitions, "nothing can be fetched from the leader for {seconds} s: {fault}");
        }
        None => debug!(leader = leader.id.0, partitions, "a fetch failed: {fault}"),
    }
}

/// One Fetch.
async fn fetch(
    fetcher: &ReplicaFetcher,
    leader: &Leader,
    peer: &mut Option<Peer>,
    next: NextFetch,
) -> Result<FetchResponse, FetchFault> {
    let image = fetcher.metadata.image();
    let version = image.metadata_version().fetch_request_version();
    let request = request(fetcher, next, version);
    let deadline = deadline(fetcher);
    let response = call(fetcher, leader, peer, &image, request.into(), version, deadline).await?;
    let response = FetchResponse::try_from(response).map_err(|fault| PeerError::Malformed(fault.to_string()))?;
    match ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => {
            leader.fetch.borrow_mut().on_answer(response.session_id);
            Ok(response)
        }
        error => Err(FetchFault::Refused(error)),
    }
}

fn deadline(fetcher: &ReplicaFetcher) -> MonotonicMs {
    let limit_ms = u64::try_from(fetcher.core.node.config.replica.socket_timeout_ms).unwrap_or(0);
    ring::now().monotonic.plus_ms(limit_ms)
}

/// Asks the leader, by the connection that there is, or a new one. Followers don't ask what a leader speaks: the versions of
/// their requests follow from `metadata.version`.
async fn call(
    fetcher: &ReplicaFetcher,
    leader: &Leader,
    peer: &mut Option<Peer>,
    image: &MetadataImage,
    request: RequestBody,
    version: i16,
    deadline: MonotonicMs,
) -> Result<ringlog_protocol::ResponseBody, FetchFault> {
    let peer = match peer {
        Some(peer) => peer,
        None => {
            let listener = &fetcher.core.node.config.inter_broker_listener_name;
            let broker = image.cluster.broker(leader.id);
            let endpoint =
                broker.and_then(|broker| broker.endpoints.iter().find(|endpoint| *endpoint.listener == **listener));
            let endpoint = endpoint.ok_or_else(|| FetchFault::Unknown(leader.id, listener.clone()))?;
            let client_id = format!("broker-{}-fetcher-{}", fetcher.core.node.id, fetcher.core.index);
            let connected =
                Peer::connect_unasked(&fetcher.lookups, &endpoint.host, endpoint.port, &client_id, deadline).await?;
            peer.insert(connected)
        }
    };
    Ok(peer.call_at(&request, version, deadline).await?)
}

fn request(fetcher: &ReplicaFetcher, next: NextFetch, version: i16) -> FetchRequest {
    let config = &fetcher.core.node.config.replica;
    let mut topics: Vec<fetch_request::FetchTopic> = Vec::new();
    for (id, position) in next.partitions {
        if topics.last().is_none_or(|last| last.topic_id != id.topic_id) {
            topics.push(fetch_request::FetchTopic { topic_id: id.topic_id, ..fetch_request::FetchTopic::default() });
        }
        let partition = fetch_request::FetchPartition {
            partition: id.partition.0,
            current_leader_epoch: position.leader_epoch.0,
            fetch_offset: position.fetch_offset.0,
            last_fetched_epoch: position.last_fetched_epoch.0,
            log_start_offset: position.log_start_offset.0,
            partition_max_bytes: config.fetch_max_bytes,
            ..fetch_request::FetchPartition::default()
        };
        topics.last_mut().expect("one was pushed").partitions.push(partition);
    }
    let mut forgotten: Vec<fetch_request::ForgottenTopic> = Vec::new();
    for id in next.forgotten {
        if forgotten.last().is_none_or(|last| last.topic_id != id.topic_id) {
            forgotten.push(fetch_request::ForgottenTopic {
                topic_id: id.topic_id,
                ..fetch_request::ForgottenTopic::default()
            });
        }
        forgotten.last_mut().expect("one was pushed").partitions.push(id.partition.0);
    }
    let own = fetcher.core.node.id.0;
    let epoch = fetcher.metadata.broker_epoch().map_or(-1, |epoch| epoch.0);
    let mut request = FetchRequest {
        max_wait_ms: config.fetch_wait_max_ms,
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_response_max_bytes,
        session_id: next.session_id,
        session_epoch: next.session_epoch,
        topics,
        forgotten_topics_data: forgotten,
        ..FetchRequest::default()
    };
    if version >= 15 {
        request.replica_state = fetch_request::ReplicaState { replica_id: own, replica_epoch: epoch };
    } else {
        request.replica_id = own;
    }
    request
}

/// Takes an answer over, partition by partition.
async fn take_in(fetcher: &Rc<ReplicaFetcher>, leader: &Rc<Leader>, peer: &mut Option<Peer>, response: FetchResponse) {
    let (mut appended, mut lost) = (Vec::new(), Vec::new());
    for topic in response.responses {
        for data in topic.partitions {
            let id = TopicIdPartition { topic_id: topic.topic_id, partition: PartitionIndex(data.partition_index) };
            let Some(asked) = leader.fetch.borrow().told(id) else { continue };
            let Some(replica) = fetcher.replicas.get(id).filter(|replica| replica.follows_in(asked.leader_epoch))
            else {
                continue;
            };
            match ErrorCode::from_code(data.error_code).unwrap_or(ErrorCode::UnknownServerError) {
                ErrorCode::None if data.diverging_epoch.epoch >= 0 || data.diverging_epoch.end_offset >= 0 => {
                    truncate(fetcher, leader, &replica, asked, &data);
                }
                ErrorCode::None => match append(fetcher, &replica, asked, data).await {
                    Ok(taken) => {
                        let is_in_sync = taken.end_offset >= taken.high_watermark;
                        leader.fetch.borrow_mut().succeeded(id, is_in_sync);
                        appended.push(taken);
                    }
                    Err(fault) => {
                        let leader_id = leader.id.0;
                        match fault {
                            // The directory says so, once for all of them.
                            AppendFault::DiskFull => debug!(partition = %replica.name, leader_id, "{fault}"),
                            _ => {
                                warn!(partition = %replica.name, leader_id, "what was fetched can't be appended: {fault}")
                            }
                        }
                        fetcher.delay(leader, id);
                    }
                },
                ErrorCode::OffsetOutOfRange => lost.push((replica, asked)),
                // The metadata knows more than this core does: it will say who leads.
                ErrorCode::FencedLeaderEpoch => leader.fetch.borrow_mut().hold(id),
                error => {
                    debug!(partition = %replica.name, leader = leader.id.0, ?error, "nothing is fetched");
                    fetcher.delay(leader, id);
                }
            }
        }
    }
    finish(fetcher, leader, appended).await;
    for (replica, asked) in lost {
        if let Err(fault) = look_for_start(fetcher, leader, peer, &replica, asked).await {
            *peer = None;
            on_fault(leader, &fault);
            fetcher.delay(leader, replica.id);
        }
    }
}

/// Why records weren't appended.
#[derive(Debug, thiserror::Error)]
enum AppendFault {
    #[error(transparent)]
    Refused(#[from] FollowerAppendError),
    #[error(transparent)]
    Restart(#[from] io::Error),
    #[error("the disk is full")]
    DiskFull,
}

/// Appends what was fetched of a partition, in order.
async fn append(
    fetcher: &ReplicaFetcher,
    replica: &Rc<Replica>,
    asked: FetchPosition,
    data: PartitionData,
) -> Result<Appended, AppendFault> {
    let mut records: Bytes = data.records.map(Records::into_contiguous).unwrap_or_default();
    if fetcher.quotas.is_any_throttled() && fetcher.quotas.is_throttled(Throttled::Follower, replica.id) {
        fetcher.quotas.record(Throttled::Follower, records.len());
    }
    while !records.is_empty() {
        let now = ring::now();
        if !replica.has_disk_for_fetched(records.len(), now) {
            return Err(AppendFault::DiskFull);
        }
        let frames = &fetcher.store.frames;
        if frames.is_waited_for() || !replica.has_room_for_fetched(records.len()) {
            // In the order in which producers' appends wait, too.
            let _turn = frames.turn().await;
            while !replica.has_room_for_fetched(records.len()) && replica.follows_in(asked.leader_epoch) {
                frames.wait_a_moment().await;
            }
        }
        match replica.append_fetched(&records, asked.leader_epoch, now) {
            // What follows is of an epoch that this node doesn't know yet, or cut off at the answer's limit.
            Ok(taken) if taken.bytes == 0 => break,
            Ok(taken) => records.advance(taken.bytes),
            Err(FollowerAppendError::NotFollower(_)) => break,
            // The leader's log starts within its first batch: it would not be sent for an offset below that start.
            Err(FollowerAppendError::StartsBelowEmptyLog(offset)) => {
                let restarted = replica.restart_at(offset, asked.leader_epoch).await;
                restarted.inspect_err(|error| replica.on_file_trouble("beginning the log anew failed", error))?;
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(Appended {
        id: replica.id,
        replica: replica.clone(),
        leader_epoch: asked.leader_epoch,
        end_offset: replica.log_end_offset(),
        high_watermark: Offset(data.high_watermark),
        log_start_offset: Offset(data.log_start_offset),
    })
}

impl Appended {
    /// Waits until the records are on the device, or never will be.
    async fn written(&self) {
        while self.replica.durable_end_offset() < self.end_offset && self.replica.follows_in(self.leader_epoch) {
            self.replica.progressed().await;
        }
    }

    /// The next fetch may acknowledge them.
    fn conclude(&self, leader: &Leader) {
        if !self.replica.follows_in(self.leader_epoch) {
            return;
        }
        let has_moved = self.replica.advance(self.high_watermark, self.log_start_offset);
        let position = self.replica.fetch_position();
        if has_moved || position != leader.fetch.borrow().told(self.id) {
            leader.release(self.id);
        }
    }
}

/// Waits for what was appended to be on the device; what takes long is waited for beside.
async fn finish(fetcher: &ReplicaFetcher, leader: &Rc<Leader>, appended: Vec<Appended>) {
    let deadline = ring::now().monotonic.plus_ms(WRITTEN_WITHIN_MS);
    for one in appended {
        let left_ms = deadline.since_ms(ring::now().monotonic);
        // In another epoch it is followed anew, and nobody would release what is held for this one.
        if !one.replica.follows_in(one.leader_epoch) {
            continue;
        }
        let is_written = one.replica.durable_end_offset() >= one.end_offset
            || (left_ms > 0 && ring::timeout_ms(left_ms, one.written()).await.is_ok());
        if is_written {
            one.conclude(leader);
            continue;
        }
        leader.fetch.borrow_mut().hold(one.id);
        let leader = leader.clone();
        fetcher.core.spawn_until_stop(async move {
            one.written().await;
            one.conclude(&leader);
        });
    }
}

/// The leader's log parts from this one: what the leader doesn't have goes.
fn truncate(
    fetcher: &ReplicaFetcher,
    leader: &Rc<Leader>,
    replica: &Rc<Replica>,
    asked: FetchPosition,
    data: &PartitionData,
) {
    let diverging = EpochEndOffset {
        epoch: LeaderEpoch(data.diverging_epoch.epoch),
        end_offset: Offset(data.diverging_epoch.end_offset),
    };
    let to = replica.truncation_for(diverging, asked.fetch_offset).offset;
    let epoch = asked.leader_epoch;
    fetcher.beside(leader, replica, epoch, async move |replica| replica.truncate(to, epoch).await);
}

/// The leader doesn't have the offset that was asked for: its log ends before, after an unclean election, or starts behind.
async fn look_for_start(
    fetcher: &ReplicaFetcher,
    leader: &Rc<Leader>,
    peer: &mut Option<Peer>,
    replica: &Rc<Replica>,
    asked: FetchPosition,
) -> Result<(), FetchFault> {
    let epoch = asked.leader_epoch;
    let end = replica.log_end_offset();
    let latest = list_offset(fetcher, leader, peer, replica, asked, list_offsets_timestamp::LATEST).await?;
    if latest < end {
        let (offset, name) = (latest.0, &replica.name);
        warn!(partition = %name, leader = leader.id.0, offset, end = end.0, "the leader's log ends before this one");
        fetcher.beside(leader, replica, epoch, async move |replica| replica.truncate(latest, epoch).await);
        return Ok(());
    }
    let earliest = list_offset(fetcher, leader, peer, replica, asked, list_offsets_timestamp::EARLIEST).await?;
    if earliest > end {
        info!(partition = %replica.name, leader = leader.id.0, start = earliest.0, "the leader's log starts behind this one");
        fetcher.beside(leader, replica, epoch, async move |replica| replica.restart_at(earliest, epoch).await);
        return Ok(());
    }
    // It has it by now.
    fetcher.delay(leader, replica.id);
    Ok(())
}

async fn list_offset(
    fetcher: &ReplicaFetcher,
    leader: &Leader,
    peer: &mut Option<Peer>,
    replica: &Replica,
    asked: FetchPosition,
    timestamp: i64,
) -> Result<Offset, FetchFault> {
    let image = fetcher.metadata.image();
    let version = image.metadata_version().list_offsets_request_version();
    let partition = ListOffsetsPartition {
        partition_index: replica.id.partition.0,
        current_leader_epoch: asked.leader_epoch.0,
        timestamp,
    };
    let name = ringlog_protocol::StrBytes::copy_from(&replica.name.topic);
    let request = ListOffsetsRequest {
        replica_id: fetcher.core.node.id.0,
        topics: vec![ListOffsetsTopic { name, partitions: vec![partition] }],
        ..ListOffsetsRequest::default()
    };
    let deadline = deadline(fetcher);
    let response = call(fetcher, leader, peer, &image, request.into(), version, deadline).await?;
    let response = ListOffsetsResponse::try_from(response).map_err(|fault| PeerError::Malformed(fault.to_string()))?;
    let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let found = found.ok_or_else(|| PeerError::Malformed("an answer without the partition".to_owned()))?;
    match ErrorCode::from_code(found.error_code).unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => Ok(Offset(found.offset)),
        error => Err(FetchFault::Refused(error)),
    }
}
