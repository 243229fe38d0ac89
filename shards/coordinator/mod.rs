//! Drives the group coordinators: one for each partition of `__consumer_offsets` that this broker leads, on the core
//! where the partition lives.
//!
//! A request goes to the home of its group's partition ([`handle`]); the coordinator decides (`ringlog_coordinator`);
//! records are appended to the partition like any others, and answers leave once they are committed. Leading a
//! partition begins with reading all of it ([`on_leadership`]); until then its groups answer
//! `COORDINATOR_LOAD_IN_PROGRESS`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_config::ServerConfig;
use ringlog_coordinator::group::{
    self, Effects, GroupConfig, GroupCoordinator, LogRecord, Route, Token, TopicView, TransactionalProducer, Write,
    WriteToken,
};
use ringlog_log::TransactionRules;
use ringlog_log::validator::AppendOrigin;
use ringlog_metadata::MetadataImage;
use ringlog_partition::{ReadPlan, ReadRequest, Reader};
use ringlog_protocol::records::{
    BatchBuilder, BatchIter, BatchOptions, BatchRef, Compression, EndTransactionMarker, ProducerStamp, Scratch,
    Unpacker,
};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_ring as ring;
use ringlog_types::{
    ErrorCode, GROUP_METADATA_TOPIC, MonotonicMs, Now, Offset, PartitionIndex, TopicIdPartition, Uuid,
};
use rustc_hash::FxHashMap;
use tracing::{debug, error, info};

use crate::data::replica::{AppendRules, Appended, Replica};
use crate::dispatch::RequestContext;
use crate::flag::Flag;
use crate::mesh::LocalFuture;
use crate::shard::Shard;
use crate::storage::log_read::{LogReadError, ReadRange, StoredLog};

/// Bytes read at a time while loading.
const LOAD_BYTES: usize = 1024 * 1024;
/// The largest batch of group state that is unpacked.
const SCRATCH_BYTES: usize = 64 * 1024 * 1024;

/// The coordinators of one core.
#[derive(Default)]
pub struct Coordinators {
    groups: RefCell<FxHashMap<PartitionIndex, Rc<Driven>>>,
    next_token: Cell<u64>,
}

/// One coordinator with what it waits for.
struct Driven {
    replica: Rc<Replica>,
    /// `None` while it loads.
    machine: RefCell<Option<GroupCoordinator>>,
    /// Who waits for an answer.
    callers: RefCell<FxHashMap<Token, ring::OneshotSender<ResponseBody>>>,
    /// Writes in their order, which are not committed yet. Those at the end may wait for memory.
    pending: RefCell<VecDeque<PendingWrite>>,
    /// A task waits for memory for them.
    places_later: Cell<bool>,
    alarm: ring::Alarm,
    resigned: Flag,
    commit_timeout_ms: u64,
    compression: Compression,
}

struct PendingWrite {
    token: WriteToken,
    state: WriteState,
    /// `None` once its callers were told that it takes too long.
    deadline: Option<MonotonicMs>,
}

enum WriteState {
    /// Waits for memory: the batch.
    Waiting(Bytes),
    /// Has its place in the log.
    Appended(Appended),
}

/// The topics as this node's metadata shows them.
struct ImageTopics(Arc<MetadataImage>);

impl TopicView for ImageTopics {
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.topics.id(name)
    }

    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        self.0.topics.name(id).map(|name| StrBytes::copy_from(name))
    }

    fn partition_count(&self, name: &str) -> i32 {
        self.0.topics.by_name(name).map_or(0, |topic| topic.partitions.len() as i32)
    }
}

/// Answers a request about groups.
pub async fn handle(shard: &Rc<Shard>, context: &RequestContext, request: RequestBody) -> ResponseBody {
    let asked = group::Asked::of(&request, context.api_version);
    group::finish(ask(shard, context, request).await, asked)
}

async fn ask(shard: &Rc<Shard>, context: &RequestContext, request: RequestBody) -> ResponseBody {
    let image = shard.image();
    let Some(topic) = image.topics.by_name(GROUP_METADATA_TOPIC) else {
        if let RequestBody::ListGroups(_) = &request {
            return ringlog_protocol::messages::ListGroupsResponse::default().into();
        }
        return group::error_response(&request, context.api_version, ErrorCode::NotCoordinator);
    };
    let count = topic.partitions.len() as i32;
    let parts = match group::split(request, context.api_version, count) {
        Route::One(partition, request) => vec![(partition, request)],
        Route::Several(parts) => parts,
        Route::All(request) => (0..count).map(|partition| (PartitionIndex(partition), request.clone())).collect(),
    };
    let client_host = StrBytes::from(format!("/{}", context.peer.address.ip()));
    let caller = Caller {
        api_version: context.api_version,
        client_id: context.client_id.as_deref().map_or_else(StrBytes::default, StrBytes::copy_from),
        client_host,
    };
    let mut pending = Vec::with_capacity(parts.len());
    for (partition, request) in parts {
        let home = shard.home_of(TopicIdPartition { topic_id: topic.id, partition });
        let caller = caller.clone();
        let work = move |shard: &Rc<Shard>| -> LocalFuture<ResponseBody> {
            Box::pin(handle_here(shard.clone(), partition, caller, request))
        };
        pending.push(shard.begin_on(home, work).await);
    }
    let mut responses = Vec::with_capacity(pending.len());
    for response in pending {
        responses.push(response.await);
    }
    group::merge(responses).expect("a request of groups has at least one part")
}

/// The client, for the answer's version and the member's description.
#[derive(Clone)]
struct Caller {
    api_version: i16,
    client_id: StrBytes,
    client_host: StrBytes,
}

/// On the home core of the group's partition.
async fn handle_here(
    shard: Rc<Shard>,
    partition: PartitionIndex,
    caller: Caller,
    request: RequestBody,
) -> ResponseBody {
    let version = caller.api_version;
    let driven = shard.coordinators.groups.borrow().get(&partition).cloned();
    let Some(driven) = driven else {
        return group::error_response(&request, version, ErrorCode::NotCoordinator);
    };
    let token = Token(shard.coordinators.next_token.replace(shard.coordinators.next_token.get() + 1));
    let (sender, receiver) = ring::oneshot();
    let effects = {
        let mut machine = driven.machine.borrow_mut();
        let Some(machine) = machine.as_mut() else {
            return group::error_response(&request, version, ErrorCode::CoordinatorLoadInProgress);
        };
        driven.callers.borrow_mut().insert(token, sender);
        let Caller { api_version, client_id, client_host } = caller;
        let context = group::RequestContext { token, api_version, client_id, client_host };
        machine.handle(request.clone(), &context, ring::now(), &ImageTopics(shard.image()))
    };
    driven.carry_out(effects);
    match receiver.await {
        Ok(response) => response,
        // The coordinator moved away.
        Err(ring::Disconnected) => group::error_response(&request, version, ErrorCode::NotCoordinator),
    }
}

/// This broker became the leader of a partition of `__consumer_offsets`, or leads it in a new epoch, or no longer.
pub fn on_leadership(shard: &Rc<Shard>, replica: &Rc<Replica>, is_leader: bool) {
    let partition = replica.id.partition;
    let old = shard.coordinators.groups.borrow_mut().remove(&partition);
    if let Some(old) = old {
        old.resign();
    }
    if !is_leader {
        return;
    }
    let config = &shard.node.config.group;
    let driven = Rc::new(Driven {
        replica: replica.clone(),
        machine: RefCell::new(None),
        callers: RefCell::default(),
        pending: RefCell::default(),
        places_later: Cell::new(false),
        alarm: ring::Alarm::new(),
        resigned: Flag::default(),
        commit_timeout_ms: u64::try_from(config.offsets_commit_timeout_ms).unwrap_or(0),
        compression: u8::try_from(config.offsets_topic_compression_codec)
            .ok()
            .and_then(Compression::from_id)
            .unwrap_or(Compression::None),
    });
    shard.coordinators.groups.borrow_mut().insert(partition, driven.clone());
    let machine = GroupCoordinator::new(group_config(&shard.node.config), shard.random.borrow_mut().next_u64());
    let shard = shard.clone();
    ring::spawn_detached(async move {
        let Err(fault) = driven.clone().run(machine).await else { return };
        if driven.resigned.is_set() {
            return;
        }
        error!(partition = %driven.replica.name, "group state can't be loaded: {fault}");
        // As Kafka's: members look for another coordinator instead of waiting for this one to load.
        on_closed(&shard, &driven.replica);
    });
}

/// A replica was closed: it no longer leads anything.
pub fn on_closed(shard: &Rc<Shard>, replica: &Replica) {
    if &*replica.name.topic != GROUP_METADATA_TOPIC {
        return;
    }
    let mut groups = shard.coordinators.groups.borrow_mut();
    let is_its = |driven: &Rc<Driven>| driven.replica.id == replica.id;
    let driven = groups.get(&replica.id.partition).filter(|driven| is_its(driven)).cloned();
    if let Some(driven) = driven {
        groups.remove(&replica.id.partition);
        drop(groups);
        driven.resign();
    }
}

/// Topics are gone: their committed offsets go too.
pub fn on_topics_deleted(shard: &Rc<Shard>, topics: &[(StrBytes, Uuid)]) {
    let all: Vec<Rc<Driven>> = shard.coordinators.groups.borrow().values().cloned().collect();
    for driven in all {
        let effects =
            driven.machine.borrow_mut().as_mut().map(|machine| machine.on_topics_deleted(topics, ring::now()));
        driven.carry_out(effects.unwrap_or_default());
    }
}

/// The node stops: nobody is answered any more, so that members find their next coordinator.
pub fn resign_all(shard: &Rc<Shard>) {
    for (_, driven) in shard.coordinators.groups.borrow_mut().drain() {
        driven.resign();
    }
}

fn group_config(config: &ServerConfig) -> GroupConfig {
    let group = &config.group;
    GroupConfig {
        min_session_timeout_ms: group.min_session_timeout_ms,
        max_session_timeout_ms: group.max_session_timeout_ms,
        initial_rebalance_delay_ms: u32::try_from(group.initial_rebalance_delay_ms).unwrap_or(0),
        max_group_size: usize::try_from(group.max_size).unwrap_or(usize::MAX),
        max_offset_metadata_bytes: usize::try_from(group.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: i64::from(group.offsets_retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: u64::try_from(group.offsets_retention_check_interval_ms)
            .unwrap_or(600_000),
        ..GroupConfig::default()
    }
}

/// Why group state can't be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadFault {
    #[error(transparent)]
    Read(#[from] LogReadError),
    #[error("{0}")]
    Refused(String),
}

impl Driven {
    /// Loads, then serves timers and commits until it resigns.
    async fn run(self: Rc<Self>, mut machine: GroupCoordinator) -> Result<(), LoadFault> {
        let started = ring::now().monotonic;
        let records = self.load(&mut machine).await?;
        if self.resigned.is_set() {
            return Ok(());
        }
        let took_ms = ring::now().monotonic.since_ms(started);
        info!(partition = %self.replica.name, records, took_ms, "group coordinator loaded");
        let effects = machine.finish_loading(ring::now());
        *self.machine.borrow_mut() = Some(machine);
        self.carry_out(effects);
        while !self.resigned.is_set() {
            futures_lite::future::or(
                async { self.replica.progressed().await },
                futures_lite::future::or(async { self.alarm.wait().await }, self.resigned.wait_until_set()),
            )
            .await;
            self.on_progress();
            self.on_time();
        }
        Ok(())
    }

    /// Reads the whole partition into the machine; returns how many records it holds. What was appended before this
    /// leadership and isn't on disk yet is waited for.
    async fn load(&self, machine: &mut GroupCoordinator) -> Result<u64, LoadFault> {
        let (mut next, end) = { self.replica.with_log(|log| (log.log_start_offset(), log.log_end_offset())) };
        let mut scratch = Scratch::new(SCRATCH_BYTES);
        let mut records = 0;
        while !self.resigned.is_set() {
            let request = ReadRequest {
                fetch_offset: next,
                reader: Reader::Internal,
                current_leader_epoch: None,
                last_fetched_epoch: None,
            };
            let plan = self.replica.plan_read(&request).map_err(|fault| LoadFault::Refused(fault.to_string()))?;
            let ReadPlan::Records { location, limit, .. } = plan else {
                if next >= end {
                    break;
                }
                futures_lite::future::or(self.replica.progressed(), self.resigned.wait_until_set()).await;
                continue;
            };
            let range = ReadRange { place: location, from: next, limit, max_bytes: LOAD_BYTES, at_least_one: true };
            let bytes = self.replica.read(&range).await?.slices.concat();
            let before = next;
            for batch in BatchIter::new(&bytes) {
                // The last one may be cut off; it comes whole with the next read.
                let Ok(batch) = batch else { break };
                records += replay_batch(machine, &batch, &mut scratch, &self.replica)?;
                next = batch.header.next_offset();
            }
            if next == before {
                return Err(LoadFault::Refused(format!("no batch can be read at offset {next}")));
            }
            ring::yield_if_needed().await;
        }
        Ok(records)
    }

    /// Sends answers and appends records.
    fn carry_out(self: &Rc<Self>, effects: Effects) {
        let mut work = VecDeque::from([effects]);
        while let Some(effects) = work.pop_front() {
            for (token, response) in effects.replies {
                if let Some(caller) = self.callers.borrow_mut().remove(&token) {
                    // Nobody there any more: nothing to tell.
                    let _ = caller.send(response);
                }
            }
            for write in effects.writes {
                if let Some(refused) = self.append(write) {
                    work.push_back(refused);
                }
            }
        }
        let deadline = self.machine.borrow().as_ref().and_then(GroupCoordinator::next_deadline);
        let writes = self.pending.borrow().iter().find_map(|write| write.deadline);
        self.alarm.set(deadline.into_iter().chain(writes).min());
    }

    /// Appends one write, or lets it wait for memory behind those that came before; what the machine makes of a refusal.
    fn append(self: &Rc<Self>, write: Write) -> Option<Effects> {
        let now = ring::now();
        let batch = self.batch_of(&write);
        let frames = self.replica.frames();
        let must_wait = self.places_later.get() || frames.is_waited_for() || !self.replica.has_room_for(batch.len());
        let state = if must_wait {
            WriteState::Waiting(batch)
        } else {
            match self.append_now(&batch, now) {
                Ok(appended) => WriteState::Appended(appended),
                Err(code) => return self.refused(write.token, code, now),
            }
        };
        let deadline = Some(now.monotonic.plus_ms(self.commit_timeout_ms));
        self.pending.borrow_mut().push_back(PendingWrite { token: write.token, state, deadline });
        if must_wait && !self.places_later.replace(true) {
            ring::spawn_detached(self.clone().place_waiting());
        }
        None
    }

    fn append_now(&self, batch: &Bytes, now: Now) -> Result<Appended, ErrorCode> {
        let rules = AppendRules {
            origin: AppendOrigin::Coordinator,
            required_acks: -1,
            transaction: TransactionRules::default(),
        };
        self.replica.append_own(batch, &rules, &mut Unpacker::new(), now).map_err(|fault| fault.code)
    }

    fn refused(&self, token: WriteToken, code: ErrorCode, now: Now) -> Option<Effects> {
        debug!(partition = %self.replica.name, error = %code, "group state was not written");
        self.machine.borrow_mut().as_mut().map(|machine| machine.on_write_failed(token, code, now))
    }

    /// Appends the writes that wait, in their order, as memory comes back.
    async fn place_waiting(self: Rc<Self>) {
        let frames = self.replica.frames();
        let turn = frames.turn().await;
        while let Some((place, batch)) = self.first_waiting() {
            if !self.replica.has_room_for(batch.len()) {
                frames.wait_a_moment().await;
                continue;
            }
            let now = ring::now();
            match self.append_now(&batch, now) {
                Ok(appended) => self.pending.borrow_mut()[place].state = WriteState::Appended(appended),
                Err(code) => {
                    let removed = self.pending.borrow_mut().remove(place);
                    let effects = removed.and_then(|write| self.refused(write.token, code, now));
                    self.carry_out(effects.unwrap_or_default());
                }
            }
        }
        self.places_later.set(false);
        drop(turn);
    }

    fn first_waiting(&self) -> Option<(usize, Bytes)> {
        let pending = self.pending.borrow();
        let waiting = pending.iter().enumerate().find_map(|(place, write)| match &write.state {
            WriteState::Waiting(batch) => Some((place, batch.clone())),
            WriteState::Appended(_) => None,
        });
        waiting.filter(|_| !self.resigned.is_set())
    }

    fn batch_of(&self, write: &Write) -> Bytes {
        let producer = write.producer.map_or(ProducerStamp::NONE, |producer| ProducerStamp {
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            base_sequence: -1,
        });
        let timestamp = ring::now().wall;
        let mut batch = BatchBuilder::new(BatchOptions {
            compression: self.compression,
            producer,
            is_transactional: write.producer.is_some(),
            ..BatchOptions::default()
        });
        for LogRecord { key, value } in &write.records {
            batch.append(timestamp, Some(key), value.as_deref(), &[]);
        }
        batch.build()
    }

    /// Tells the machine of writes that are committed, in their order, or that never will be.
    fn on_progress(self: &Rc<Self>) {
        loop {
            let outcome = {
                let pending = self.pending.borrow();
                let Some(PendingWrite { state: WriteState::Appended(first), .. }) = pending.front() else { return };
                self.replica.acknowledged(first, -1)
            };
            let Some(outcome) = outcome else { return };
            let Some(write) = self.pending.borrow_mut().pop_front() else { return };
            let now = ring::now();
            let effects = self.machine.borrow_mut().as_mut().map(|machine| match outcome {
                Ok(()) => machine.on_written(write.token, now),
                Err(code) => machine.on_write_failed(write.token, code, now),
            });
            self.carry_out(effects.unwrap_or_default());
        }
    }

    fn on_time(self: &Rc<Self>) {
        let now = ring::now();
        let (late, unplaced) = self.take_late(now.monotonic);
        for token in unplaced {
            let effects = self.refused(token, ErrorCode::RequestTimedOut, now);
            self.carry_out(effects.unwrap_or_default());
        }
        for token in late {
            let effects = self.machine.borrow_mut().as_mut().map(|machine| machine.on_write_timed_out(token, now));
            self.carry_out(effects.unwrap_or_default());
        }
        let effects = self.machine.borrow_mut().as_mut().map(|machine| machine.on_tick(now));
        self.carry_out(effects.unwrap_or_default());
    }

    /// Writes that take too long: those that have a place in the log may still be committed, those that have none never
    /// will be. They go, since their callers may ask for more of them as long as there is no memory.
    fn take_late(&self, now: MonotonicMs) -> (Vec<WriteToken>, Vec<WriteToken>) {
        let (mut late, mut unplaced) = (Vec::new(), Vec::new());
        self.pending.borrow_mut().retain_mut(|write| {
            if write.deadline.is_none_or(|deadline| deadline > now) {
                return true;
            }
            write.deadline = None;
            let has_place = matches!(write.state, WriteState::Appended(_));
            if has_place {
                late.push(write.token)
            } else {
                unplaced.push(write.token)
            }
            has_place
        });
        (late, unplaced)
    }

    fn resign(&self) {
        self.resigned.set();
        let effects = self.machine.borrow_mut().take().map(GroupCoordinator::resign);
        for (token, response) in effects.into_iter().flat_map(|effects| effects.replies) {
            if let Some(caller) = self.callers.borrow_mut().remove(&token) {
                let _ = caller.send(response);
            }
        }
        self.callers.borrow_mut().clear();
        self.pending.borrow_mut().clear();
    }
}

fn replay_batch(
    machine: &mut GroupCoordinator,
    batch: &BatchRef<'_>,
    scratch: &mut Scratch,
    replica: &Replica,
) -> Result<u64, LoadFault> {
    let at = |fault: &dyn std::fmt::Display, offset: Offset| LoadFault::Refused(format!("offset {offset}: {fault}"));
    let header = batch.header;
    let producer = header
        .is_transactional()
        .then_some(TransactionalProducer { producer_id: header.producer_id, producer_epoch: header.producer_epoch });
    let mut count = 0;
    for record in batch.records(scratch).map_err(|fault| at(&fault, header.base_offset))? {
        let record = record.map_err(|fault| at(&fault, header.base_offset))?;
        count += 1;
        if header.is_control() {
            let marker = EndTransactionMarker::parse(record.key.unwrap_or_default(), record.value.unwrap_or_default());
            if let Some(marker) = marker {
                machine.replay_end_transaction(header.producer_id, marker.is_commit);
            }
            continue;
        }
        let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let skipped = machine
            .replay_record(copy(record.key), copy(record.value), producer)
            .map_err(|fault| at(&fault, record.offset))?;
        if let Some(skipped) = skipped {
            debug!(partition = %replica.name, offset = %record.offset, "record of group state skipped: {skipped}");
        }
    }
    Ok(count)
}
