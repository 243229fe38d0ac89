//! A Fetch request, from its decoded body to its response; consumers and followers alike. Read from the top:
//!
//! 1. [`handle`] resolves the fetch session (KIP-227) to a list of partitions and finds the home of each.
//! 2. [`read_here`], on the home core: the partition plans the read (`ringlog_partition`), `log_read` finds the bytes.
//!    They stay where they are: slices of the tail's frames, or of the buffers that the disk read into. A follower's
//!    offset is its acknowledgement and may move the high watermark.
//! 3. While there is less than the client's minimum, [`wait_for_progress`] waits at the homes, and step 2 comes again.
//!    What reading brought to light is answered at once: an error, that histories diverge, or that there is more to
//!    read. Partitions that the metadata doesn't know are no reason to hurry, as long as there are others: a client that
//!    still asks for a deleted topic would ask without a pause.
//!    A follower that isn't in sync gets nothing of a throttled partition while too much was copied: it waits as if there
//!    were nothing new, and looks again with its next fetch.
//! 4. The slices become the `records` of the response, and the connection sends them as they are.

mod messages;

use std::rc::Rc;
use std::sync::Arc;

use ringlog_log::transaction_index::AbortedTransaction as IndexedAbort;
use ringlog_metadata::MetadataImage;
use ringlog_partition::{
    FetchContext, FollowerFetch, IsolationLevel, PartitionResult, ReadInfo, ReadPlan, ReadRequest, Reader,
    SessionTopic, Standing,
};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::fetch_request::FetchRequest;
use ringlog_protocol::messages::fetch_response::FetchResponse;
use ringlog_ring::{self as ring, BytePermit};
use ringlog_types::{BrokerEpoch, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, TopicIdPartition};
use smallvec::SmallVec;

use crate::core::Room as _;
use crate::data::DataPlane;
use crate::data::replica::{Awaited, Replica};
use crate::data::replication_quotas::Throttled;
use crate::mesh::LocalFuture;
use crate::net::request::RequestContext;
use crate::scatter;
use crate::storage::log_read::{Read, ReadRange, available};
use crate::storage::slices::Slices;
use messages::Name;

/// How long a follower's fetch waits for records when all that it would get is a new high watermark. With records that follow
/// each other it comes with the next ones, in half as many answers.
const HIGH_WATERMARK_WAITS_MS: u64 = 10;

/// A follower's fetch that waits isn't woken by what is committed meanwhile. It looks for itself, at the pace at which fetches
/// come by default, however long it may wait: who reads from the follower waits for that.
const FOLLOWER_LOOKS_EVERY_MS: u64 = 500;

/// The largest batch by Kafka's defaults. A first batch that turns out to be larger than the memory taken for it is read
/// in a second attempt.
const USUAL_BATCH_BYTES: usize = 1_048_588;

/// Who fetches, and under which limits.
#[derive(Debug, Clone)]
struct Wanted {
    follower: Option<Follower>,
    /// Where a consumer is, if it is to be sent to a replica in its rack.
    place: Option<Arc<ConsumerPlace>>,
    isolation: IsolationLevel,
    from_follower: bool,
    /// Of all partitions.
    max_bytes: usize,
    /// The first batch may have so many when that is more.
    first_batch_bytes: usize,
}

/// Where a consumer is.
#[derive(Debug)]
struct ConsumerPlace {
    rack: StrBytes,
    /// The listener that it came in by, and would go to elsewhere.
    listener: String,
}

impl ConsumerPlace {
    /// Whether that broker is in the consumer's rack, and serves it.
    fn is_near(&self, image: &MetadataImage, broker: NodeId) -> bool {
        image.cluster.broker(broker).is_some_and(|broker| {
            broker.rack.as_deref() == Some(self.rack.as_str())
                && broker.is_active()
                && broker.endpoint(&self.listener).is_some()
        })
    }
}

/// A follower that fetches.
#[derive(Debug, Clone, Copy)]
struct Follower {
    id: NodeId,
    /// -1: not said.
    broker_epoch: BrokerEpoch,
    /// The metadata shows a later life of it.
    is_stale: bool,
    /// The metadata shows it in this very life, serving.
    is_active: bool,
}

impl Follower {
    fn new(id: NodeId, broker_epoch: BrokerEpoch) -> Follower {
        Follower { id, broker_epoch, is_stale: false, is_active: false }
    }

    /// As a core knows it that has this image.
    fn known_by(self, image: &MetadataImage) -> Follower {
        let is_said = self.broker_epoch != BrokerEpoch::NONE;
        let Some(broker) = image.cluster.broker(self.id) else { return self };
        Follower {
            is_stale: is_said && self.broker_epoch < broker.epoch,
            is_active: broker.is_active() && (!is_said || self.broker_epoch == broker.epoch),
            ..self
        }
    }
}

/// One partition to read, on its way to its home.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Its place in the session's list.
    place: usize,
    id: TopicIdPartition,
    fetch_offset: Offset,
    max_bytes: usize,
    current_leader_epoch: LeaderEpoch,
    last_fetched_epoch: LeaderEpoch,
    log_start_offset: Offset,
}

/// What a read gave.
#[derive(Debug, Default)]
struct Outcome {
    error: Option<ErrorCode>,
    /// What the replica was when it was read.
    seen: Option<Standing>,
    info: Option<ReadInfo>,
    records: Slices,
    /// See [`Read::has_more`]; also of partitions for which there was no room.
    has_more: bool,
    /// The first batch is larger than what was allowed: so large.
    too_large_bytes: Option<usize>,
    aborted: Option<Vec<IndexedAbort>>,
    diverging: Option<(LeaderEpoch, Offset)>,
    /// A replica that the consumer should read from instead.
    preferred: Option<NodeId>,
    /// What a follower gets of it counts against a throttle.
    is_throttled: bool,
}

impl Outcome {
    /// An error that is known before anything is read; then Kafka's answer has an empty list of aborted transactions.
    fn unread(error: ErrorCode) -> Outcome {
        Outcome { error: Some(error), aborted: Some(Vec::new()), ..Outcome::default() }
    }
}

type ByHome = scatter::ByHome<Part>;

/// Answers a Fetch.
pub async fn handle(plane: &Rc<DataPlane>, context: &RequestContext, request: FetchRequest) -> FetchResponse {
    let now = ring::now().monotonic;
    let deadline = now.plus_ms(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let limit = usize::try_from(request.max_bytes.min(plane.core.node.config.network.fetch_max_bytes)).unwrap_or(0);
    let wanted = Wanted::of(plane, context, &request);
    let unknown_isolation = (!matches!(request.isolation_level, 0 | 1)).then(|| request.clone());
    let session = messages::session_request(request, context.api_version, wanted.follower.is_some());
    let mut fetch = match plane.fetch_sessions.borrow_mut().begin(session, now) {
        Ok(fetch) => fetch,
        Err(error) => return FetchResponse { error_code: error.error_code().code(), ..FetchResponse::default() },
    };
    let (mut outcomes, by_home) = find_homes(plane, &fetch);
    let mut known_to_follower = std::mem::take(&mut fetch.answered);
    if let Some(request) = unknown_isolation.filter(|_| !by_home.is_empty()) {
        return messages::refusal(request, context.api_version, ErrorCode::UnknownServerError);
    }
    let most = by_home.parts().fold(0, |sum: usize, part| sum.saturating_add(part.max_bytes)).min(limit);
    let mut memory = Memory::for_all(plane, most).await;
    let mut until = deadline;
    loop {
        let Memory { max_bytes, first_batch_bytes, .. } = memory;
        let limited = Wanted { max_bytes, first_batch_bytes, ..wanted.clone() };
        read(plane, &by_home, limited, &mut outcomes).await;
        let bytes: usize = outcomes.iter().map(|outcome| available(&outcome.records)).sum();
        let needs_bytes = outcomes.iter().filter_map(|outcome| outcome.too_large_bytes).max();
        if let Some(needs_bytes) = needs_bytes.filter(|_| bytes == 0) {
            memory = Memory::of_one_batch(plane, needs_bytes).await;
            continue;
        }
        context.answer_memory.keep(memory.permit.holding(bytes));
        let is_urgent = has_urgent(&by_home, &outcomes);
        // Where memory is scarce, waiting would not bring what the client would like to wait for.
        let enough = if max_bytes < most { min_bytes.min(max_bytes / 2) } else { min_bytes };
        let is_enough = bytes >= enough;
        let now = ring::now().monotonic;
        if wanted.follower.is_some() && known_to_follower.is_empty() {
            // Without a session nobody knows what it was told; it isn't told at once of what is older than its fetch.
            known_to_follower = high_watermarks(&outcomes);
        }
        if has_new_high_watermark(&known_to_follower, &outcomes) {
            until = until.min(now.plus_ms(HIGH_WATERMARK_WAITS_MS));
        }
        if is_enough || is_urgent || by_home.is_empty() || now >= until {
            break;
        }
        context.answer_memory.give_back();
        let (awaited, next_look) = match wanted.follower {
            Some(_) => (Awaited::Appended, until.min(now.plus_ms(FOLLOWER_LOOKS_EVERY_MS))),
            None => (Awaited::Committed, until),
        };
        wait_for_progress(plane, &by_home, &outcomes, awaited, next_look).await;
        memory = Memory::for_all(plane, most).await;
    }
    respond(plane, context, fetch, outcomes)
}

/// Memory for one round of reading.
struct Memory {
    permit: BytePermit,
    /// Bytes that may be read of all partitions.
    max_bytes: usize,
    /// The first batch may have so many when that is more.
    first_batch_bytes: usize,
}

impl Memory {
    /// For `wanted` bytes at most; what is scarce is shared.
    async fn for_all(plane: &DataPlane, wanted: usize) -> Memory {
        let permit = plane.response_memory.share(wanted.max(USUAL_BATCH_BYTES)).await;
        let (max_bytes, first_batch_bytes) = (wanted.min(permit.bytes()), permit.bytes());
        Memory { permit, max_bytes, first_batch_bytes }
    }

    /// For one batch that is known to have so many bytes, and nothing else.
    async fn of_one_batch(plane: &DataPlane, bytes: usize) -> Memory {
        let permit = plane.response_memory.exactly(bytes).await;
        Memory { permit, max_bytes: 0, first_batch_bytes: bytes }
    }
}

/// What Kafka's brokers call themselves when they read from their own logs: neither a consumer nor a follower.
const FUTURE_LOCAL_REPLICA: i32 = -3;

impl Wanted {
    fn of(plane: &DataPlane, context: &RequestContext, request: &FetchRequest) -> Wanted {
        let version = context.api_version;
        let (replica, epoch) = if version >= 15 {
            (request.replica_state.replica_id, request.replica_state.replica_epoch)
        } else {
            (request.replica_id, -1)
        };
        let selects = replica < 0 && plane.core.node.config.replica.selector_class.is_some();
        let place = (selects && !request.rack_id.is_empty()).then(|| {
            let listener = context.peer.listener.name.clone();
            Arc::new(ConsumerPlace { rack: request.rack_id.clone(), listener })
        });
        Wanted {
            place,
            follower: (replica >= 0).then(|| Follower::new(NodeId(replica), BrokerEpoch(epoch))),
            isolation: if request.isolation_level == 1 && replica != FUTURE_LOCAL_REPLICA {
                IsolationLevel::ReadCommitted
            } else {
                IsolationLevel::ReadUncommitted
            },
            from_follower: version >= 11,
            max_bytes: 0,
            first_batch_bytes: 0,
        }
    }
}

/// The home of each partition that is known; the others get their error at once.
fn find_homes(plane: &DataPlane, fetch: &FetchContext) -> (Vec<Outcome>, ByHome) {
    let image = plane.metadata.image();
    let mut by_home = ByHome::default();
    let mut outcomes = Vec::with_capacity(fetch.partitions.len());
    for (place, wanted) in fetch.partitions.iter().enumerate() {
        let (topic, unknown) = match &wanted.topic {
            SessionTopic::Id(id) => (image.topics.by_id(*id), ErrorCode::UnknownTopicId),
            SessionTopic::Name(name) => (image.topics.by_name(name), ErrorCode::UnknownTopicOrPartition),
        };
        let mut outcome = Outcome::default();
        match topic {
            None => outcome = Outcome::unread(unknown),
            Some(topic) if !topic.partitions.contains_key(&wanted.partition) => {
                outcome = Outcome::unread(ErrorCode::UnknownTopicOrPartition);
            }
            Some(topic) => {
                let id = TopicIdPartition { topic_id: topic.id, partition: wanted.partition };
                let part = Part {
                    place,
                    id,
                    fetch_offset: wanted.fetch_offset,
                    max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
                    current_leader_epoch: wanted.current_leader_epoch,
                    last_fetched_epoch: wanted.last_fetched_epoch,
                    log_start_offset: wanted.log_start_offset,
                };
                let home = plane.core.node.home_of(id);
                by_home.push(home, part);
            }
        }
        outcomes.push(outcome);
    }
    (outcomes, by_home)
}

/// Whether reading found something that the client is to know at once.
fn has_urgent(by_home: &ByHome, outcomes: &[Outcome]) -> bool {
    let mut read = by_home.parts().map(|part| &outcomes[part.place]);
    let is_urgent = |outcome: &Outcome| outcome.error.is_some() || outcome.diverging.is_some() || outcome.has_more;
    read.any(|outcome| is_urgent(outcome) || outcome.preferred.is_some())
}

/// Whether a follower doesn't know yet how far partitions are committed.
fn has_new_high_watermark(known: &[Offset], outcomes: &[Outcome]) -> bool {
    let is_new = |(known, outcome): (&Offset, &Outcome)| outcome.info.is_some_and(|it| it.high_watermark != *known);
    known.iter().zip(outcomes).any(is_new)
}

fn high_watermarks(outcomes: &[Outcome]) -> Vec<Offset> {
    outcomes.iter().map(|outcome| outcome.info.map_or(Offset::NONE, |info| info.high_watermark)).collect()
}

/// Reads at all homes, side by side, each its share of what is allowed. One batch may be larger than that, if it is all
/// that is read.
async fn read(plane: &Rc<DataPlane>, by_home: &ByHome, wanted: Wanted, outcomes: &mut [Outcome]) {
    let homes = by_home.homes();
    let wants: SmallVec<[usize; 4]> = homes
        .iter()
        .map(|(_, parts)| parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.max_bytes)))
        .collect();
    let shares = share_out(wanted.max_bytes, &wants);
    let mut favoured = 0;
    let mut places = 0..homes.len();
    loop {
        let mut pending = SmallVec::<[_; 4]>::new();
        for place in places {
            let (home, parts) = &homes[place];
            let (parts, max_bytes, may_exceed) = (parts.clone(), shares[place], place == favoured);
            let wanted = wanted.clone();
            let work = move |plane: &Rc<DataPlane>| -> LocalFuture<_> {
                Box::pin(read_here(plane.clone(), parts, wanted, Room::new(max_bytes, may_exceed)))
            };
            pending.push(plane.begin_on(*home, work).await);
        }
        for read in pending {
            for (place, outcome) in read.answer().await {
                outcomes[place] = outcome;
            }
        }
        if outcomes.iter().any(|outcome| !outcome.records.is_empty()) {
            return;
        }
        let has_any = |part: &Part| outcomes[part.place].too_large_bytes.is_some() || outcomes[part.place].has_more;
        let next = (favoured + 1..homes.len()).find(|&place| homes[place].1.iter().any(has_any));
        let Some(next) = next else { return };
        (favoured, places) = (next, next..next + 1);
    }
}

/// On the home core.
async fn read_here(
    plane: Rc<DataPlane>,
    parts: Vec<Part>,
    mut wanted: Wanted,
    mut room: Room,
) -> Vec<(usize, Outcome)> {
    wanted.follower = wanted.follower.map(|follower| follower.known_by(&plane.metadata.image()));
    let mut outcomes = Vec::with_capacity(parts.len());
    for part in parts {
        let outcome = match plane.replicas.served(part.id) {
            Ok(replica) => read_partition(&plane, &replica, &part, &wanted, room.allow(part.max_bytes)).await,
            Err(why) => Outcome { error: Some(why.error_code()), ..Outcome::default() },
        };
        room.take(available(&outcome.records));
        if outcome.too_large_bytes.is_some() {
            room.was_too_large(part.max_bytes);
        }
        outcomes.push((part.place, outcome));
    }
    outcomes
}

async fn read_partition(
    plane: &DataPlane,
    replica: &Replica,
    part: &Part,
    wanted: &Wanted,
    allowed: Option<Allowed>,
) -> Outcome {
    let reader = match wanted.follower {
        Some(follower) => Reader::Follower { replica: follower.id, stale_broker_epoch: follower.is_stale },
        None => Reader::Consumer { isolation: wanted.isolation, from_follower: wanted.from_follower },
    };
    let known = |epoch: LeaderEpoch| (epoch.0 >= 0).then_some(epoch);
    let request = ReadRequest {
        fetch_offset: part.fetch_offset,
        reader,
        current_leader_epoch: known(part.current_leader_epoch),
        last_fetched_epoch: known(part.last_fetched_epoch),
    };
    let seen = Some(replica.standing());
    let plan = match replica.plan_read(&request) {
        Ok(plan) => plan,
        Err(error) => return Outcome { error: Some(error.error_code()), ..Outcome::default() },
    };
    if let (Some(follower), ReadPlan::Records { .. } | ReadPlan::Empty(_)) = (wanted.follower, &plan) {
        replica.on_follower_fetch(&FollowerFetch {
            replica: follower.id,
            fetch_offset: part.fetch_offset,
            log_start_offset: part.log_start_offset,
            broker_epoch: follower.broker_epoch,
            eligible_for_isr: follower.is_active,
        });
    }
    if let (Some(place), ReadPlan::Records { info, .. } | ReadPlan::Empty(info)) = (&wanted.place, &plan) {
        let image = plane.metadata.image();
        let preferred = replica.preferred_read_replica(part.fetch_offset, |broker| place.is_near(&image, broker));
        if preferred.is_some() {
            return Outcome { seen, info: Some(*info), preferred, ..Outcome::default() };
        }
    }
    let plan = match (wanted.follower, plan) {
        (Some(follower), ReadPlan::Records { info, .. }) if plane.quotas.withholds(replica, follower.id) => {
            ReadPlan::Empty(info)
        }
        (_, plan) => plan,
    };
    match plan {
        ReadPlan::Empty(info) => {
            let is_committed = wanted.follower.is_none() && wanted.isolation == IsolationLevel::ReadCommitted;
            Outcome { seen, info: Some(info), aborted: is_committed.then(Vec::new), ..Outcome::default() }
        }
        ReadPlan::Diverging { diverging_epoch, info } => Outcome {
            seen,
            info: Some(info),
            diverging: Some((diverging_epoch.epoch, diverging_epoch.end_offset)),
            ..Outcome::default()
        },
        ReadPlan::Records { location, limit, read_committed, info } => {
            let Some(Allowed { max_bytes, at_least_one }) = allowed else {
                return Outcome { seen, info: Some(info), has_more: true, ..Outcome::default() };
            };
            let range = ReadRange { place: location, from: part.fetch_offset, limit, max_bytes, at_least_one };
            let outcome = read_records(replica, &range, wanted.first_batch_bytes, read_committed, info).await;
            let is_throttled = wanted.follower.is_some()
                && plane.quotas.is_any_throttled()
                && plane.quotas.is_throttled(Throttled::Leader, part.id);
            Outcome { seen, is_throttled, ..outcome }
        }
    }
}

async fn read_records(
    replica: &Replica,
    range: &ReadRange,
    memory: usize,
    read_committed: bool,
    info: ReadInfo,
) -> Outcome {
    let mut outcome = Outcome { info: Some(info), ..Outcome::default() };
    let read = async {
        Read { slices: outcome.records, has_more: outcome.has_more, too_large_bytes: outcome.too_large_bytes } =
            replica.read_within(range, memory).await?;
        if read_committed {
            outcome.aborted = Some(replica.aborted_transactions(range.from, range.limit).await?);
        }
        Ok::<(), crate::storage::log_read::LogReadError>(())
    };
    if let Err(fault) = read.await {
        return Outcome { error: Some(replica.on_read_fault("reading failed", &fault)), ..Outcome::default() };
    }
    outcome
}

/// Ends when something changed for one of the partitions since it was read, or at the deadline.
async fn wait_for_progress(
    plane: &Rc<DataPlane>,
    by_home: &ByHome,
    outcomes: &[Outcome],
    awaited: Awaited,
    deadline: MonotonicMs,
) {
    let progress = ring::Notify::new();
    let happened = Rc::new(std::cell::Cell::new(false));
    for (home, parts) in by_home.homes() {
        let seen: Vec<Seen> = parts
            .iter()
            .map(|part| Seen { id: part.id, standing: outcomes[part.place].seen, info: outcomes[part.place].info })
            .collect();
        let watch = plane
            .begin_on(*home, move |plane: &Rc<DataPlane>| -> LocalFuture<()> {
                Box::pin(watch_here(plane.clone(), seen, awaited, deadline))
            })
            .await;
        let (progress, happened) = (progress.clone(), happened.clone());
        plane.core.spawn(async move {
            watch.answer().await;
            happened.set(true);
            progress.notify_all();
        });
    }
    while !happened.get() {
        progress.wait().await;
    }
}

/// A partition as it was read.
struct Seen {
    id: TopicIdPartition,
    standing: Option<Standing>,
    info: Option<ReadInfo>,
}

/// On the home core: ends when one of the partitions is no longer as it was `seen`, or at the deadline.
async fn watch_here(plane: Rc<DataPlane>, seen: Vec<Seen>, awaited: Awaited, deadline: MonotonicMs) {
    let changed = Rc::new(ring::Notify::new());
    for Seen { id, standing, info } in seen {
        let Some(replica) = plane.replicas.get(id) else { return };
        let has_news = info.is_none_or(|info| replica.read_info().has_news(&info, awaited == Awaited::Appended));
        if Some(replica.standing()) != standing || has_news {
            return;
        }
        replica.watch(&changed, awaited);
    }
    let left_ms = deadline.since_ms(ring::now().monotonic);
    // Time's up, or there is news: either way the fetch looks again.
    let _ = ring::timeout_ms(left_ms, changed.wait()).await;
}

/// Ends a fetch: tells the session what was found, and makes the response of what is new.
fn respond(plane: &DataPlane, context: &RequestContext, fetch: FetchContext, outcomes: Vec<Outcome>) -> FetchResponse {
    let throttled = outcomes.iter().filter(|outcome| outcome.is_throttled);
    plane.quotas.record(Throttled::Leader, throttled.map(|outcome| available(&outcome.records)).sum());
    let results: Vec<PartitionResult> = outcomes.iter().map(messages::result_of).collect();
    let names: Vec<Name> =
        fetch.partitions.iter().map(|partition| (partition.topic.clone(), partition.partition)).collect();
    let now = ring::now().monotonic;
    let finished = plane.fetch_sessions.borrow_mut().finish(fetch, &results, now, &mut plane.core.random.borrow_mut());
    match finished {
        Ok(finished) => messages::response(&finished, names, outcomes, context.api_version),
        Err(error) => FetchResponse { error_code: error.error_code().code(), ..FetchResponse::default() },
    }
}

/// Divides `total` bytes among those who want so many each: all get what they want if that fits, else nobody gets more
/// than another who wants more than that.
fn share_out(total: usize, wants: &[usize]) -> SmallVec<[usize; 4]> {
    let mut order: SmallVec<[usize; 4]> = (0..wants.len()).collect();
    order.sort_unstable_by_key(|&place| wants[place]);
    let mut shares = SmallVec::from_elem(0, wants.len());
    let mut left = total;
    for (served, &place) in order.iter().enumerate() {
        let share = wants[place].min(left / (wants.len() - served));
        shares[place] = share;
        left -= share;
    }
    shares
}

/// What a home may still answer, partition after partition.
#[derive(Debug)]
struct Room {
    left: usize,
    /// The first batch of all may be larger than what is allowed: else a reader would never get past it.
    may_exceed: bool,
    is_full: bool,
}

/// What a partition may be read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allowed {
    /// Bytes, at most.
    max_bytes: usize,
    /// But one batch in any case.
    at_least_one: bool,
}

impl Room {
    /// For so many bytes; `may_exceed` for one batch even if that is larger.
    fn new(bytes: usize, may_exceed: bool) -> Room {
        Room { left: bytes, may_exceed, is_full: bytes == 0 }
    }

    /// What may be read of a partition of which the client takes so many bytes; `None`: nothing more is to be read.
    fn allow(&self, partition_max_bytes: usize) -> Option<Allowed> {
        let allowed = Allowed { max_bytes: partition_max_bytes.min(self.left), at_least_one: self.may_exceed };
        (self.may_exceed || !self.is_full).then_some(allowed)
    }

    /// So many bytes were read.
    fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.may_exceed &= bytes == 0;
        self.is_full |= self.left == 0;
    }

    /// The first batch of a partition didn't fit, of which the client takes so many bytes. That of another one is hardly
    /// smaller, and each look at one may be a disk operation.
    fn was_too_large(&mut self, partition_max_bytes: usize) {
        self.is_full |= partition_max_bytes > self.left;
    }
}

#[cfg(test)]
mod tests;
