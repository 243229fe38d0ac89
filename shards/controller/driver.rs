//! The one task that owns raft, the controller machine, the image loader and the metadata log.
//!
//! It takes one thing after the other: a request, a finished flush or read, a deadline. Raft's effects are carried out
//! in their order; only a flush and reads run beside, and come back as events. Bounds: the mailbox; requests are left
//! in it while more than [`MAX_UNFLUSHED_BYTES`] wait for the disk, or before the leader has taken over its log.

use std::collections::{BTreeMap, VecDeque};
use std::process;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_metadata::controller::{AllowAll, RequestContext, error_response};
use ringlog_metadata::image::Publication;
use ringlog_metadata::{Controller, MetadataChanges, MetadataImage, MetadataLoader};
use ringlog_protocol::messages::UpdateFeaturesResponse;
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_raft::{
    Action, Effects, Event, Raft, ReadFailed, ReplyToken, RoleChange, SendError, SnapshotChunk, SnapshotId,
    SnapshotReadError, Step,
};
use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, Random};
use rustc_hash::FxHashMap;
use tracing::{error, info, trace, warn};

use super::loading::Loaded;
use super::metadata_log::{MetadataLog, MetadataLogError, READ_BYTES};
use super::snapshots::{self, Schedule, SnapshotJob};
use super::{ControllerFault, ControllerHandle, ControllerRequest, is_raft, settings, unavailable};
use crate::mesh::LocalFuture;
use crate::metadata_publisher;
use crate::shard::Shard;

/// Requests are not taken while more than this waits to be flushed. Far below raft's own limit, so that what the
/// controller has decided is never refused.
const MAX_UNFLUSHED_BYTES: usize = 16 * 1024 * 1024;
/// Records in one batch at most, as Kafka has it.
const MAX_BATCH_RECORDS: usize = 10_000;
/// Bytes of records in one batch: what raft takes, less what it adds.
const MAX_BATCH_BYTES: usize = 7 * 1024 * 1024;
/// Requests taken before their effects are carried out: they share a flush.
const MAX_REQUESTS_PER_TURN: usize = 64;
/// Finished flushes and reads that may wait.
const EVENTS_CAPACITY: usize = 64;
/// How long answers wait until all cores have taken the new metadata over.
const APPLY_WAIT_MS: u64 = 500;
/// The largest batch of the metadata log that is read, unpacked.
const SCRATCH_BYTES: usize = 32 * 1024 * 1024;

/// What the mailbox takes.
pub enum Command {
    /// A request, and where its answer goes.
    Request(Box<ControllerRequest>, Reply),
    /// Stop in order; the sender is dropped when that is done.
    Stop(ring::OneshotSender<()>),
}

/// Where an answer goes.
pub type Reply = ring::OneshotSender<ResponseBody>;

/// What runs beside the task and comes back.
enum Internal {
    Flushed(Result<(), MetadataLogError>),
    Raft(Box<Event>),
    SnapshotWritten(Option<SnapshotId>),
}

enum Wake {
    Command(Option<Command>),
    Internal(Option<Internal>),
    Deadline,
}

/// A fault after which the node must not go on.
#[derive(Debug, thiserror::Error)]
enum DriverFault {
    #[error(transparent)]
    Log(#[from] MetadataLogError),
    #[error(transparent)]
    Raft(#[from] ringlog_raft::Fault),
    #[error("the metadata can't be replayed: {0}")]
    Replay(#[from] ringlog_metadata::image::LoadError),
    #[error("a metadata record can't be read: {0}")]
    Decode(#[from] ringlog_protocol::DecodeError),
    #[error("another node leads the metadata quorum, which this release of Ringlog can't follow yet")]
    OtherLeader,
}

/// See the module's text.
pub struct Driver {
    shard: Rc<Shard>,
    handle: Rc<ControllerHandle>,
    inbox: ring::LocalReceiver<Command>,
    events: ring::LocalReceiver<Internal>,
    events_sender: ring::LocalSender<Internal>,
    raft: Raft,
    controller: Controller,
    loader: MetadataLoader,
    log: Rc<MetadataLog>,
    schedule: Schedule,
    scratch: Scratch,
    random: Random,
    /// Effects that are not carried out yet.
    effects: VecDeque<Effects>,
    /// Answers by the offset that must be committed first.
    commits: BTreeMap<Offset, Vec<(Reply, ResponseBody)>>,
    raft_replies: FxHashMap<ReplyToken, Reply>,
    next_reply: u64,
    /// The epoch in which this node leads but hasn't taken over its log.
    to_activate: Option<LeaderEpoch>,
    /// The next offset to be applied.
    applied_to: Offset,
    high_watermark: Offset,
    has_published: bool,
    unflushed_bytes: usize,
    is_flushing: bool,
    has_warned_of_peers: bool,
}

impl Driver {
    /// The task's state, and raft's first effects.
    pub fn new(
        shard: Rc<Shard>,
        handle: Rc<ControllerHandle>,
        inbox: ring::LocalReceiver<Command>,
        loaded: Loaded,
    ) -> Result<Driver, ControllerFault> {
        let Loaded { log, state, loader, bootstrap, directory_id, bytes_since_snapshot } = loaded;
        let node = shard.node.clone();
        let config = settings::raft(&node, directory_id, state.history.voters().len() == 1);
        if !state.history.voters().is_only_voter(config.key()) {
            let voters: Vec<String> = state.history.voters().iter().map(|voter| voter.key.to_string()).collect();
            return Err(ControllerFault::NotTheOnlyVoter { voters: voters.join(", "), node_id: node.id });
        }
        let now = ring::now();
        let mut random = Random::from_seed(shard.random.borrow_mut().next_u64());
        let latest = state.snapshots.iter().copied().max().filter(|id| *id != SnapshotId::BOOTSTRAP);
        let covered_to = latest.map_or(Offset(0), |id| id.end_offset);
        let applied_to = covered_to.max(state.log_start_offset);
        let schedule = Schedule::new(&node.config.metadata_log, bytes_since_snapshot, covered_to, now.monotonic);
        let controller = Controller::new(settings::controller(&node, bootstrap, random.next_u64()));
        let (raft, effects) = Raft::new(config, state, Random::from_seed(random.next_u64()), now);
        let (events_sender, events) = ring::local_channel(EVENTS_CAPACITY);
        Ok(Driver {
            shard,
            handle,
            inbox,
            events,
            events_sender,
            raft,
            controller,
            loader,
            log,
            schedule,
            scratch: Scratch::new(SCRATCH_BYTES),
            random,
            effects: VecDeque::from([effects]),
            commits: BTreeMap::new(),
            raft_replies: FxHashMap::default(),
            next_reply: 0,
            to_activate: None,
            applied_to,
            high_watermark: applied_to,
            has_published: false,
            unflushed_bytes: 0,
            is_flushing: false,
            has_warned_of_peers: false,
        })
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        match self.serve().await {
            Ok(done) => {
                if let Err(fault) = self.stop().await {
                    error!("the metadata log was not closed in order: {fault}");
                }
                drop(done);
            }
            Err(fault) => {
                // Going on would mean to decide on metadata that isn't kept. Kafka halts as well.
                error!("the controller failed, the process ends: {fault}");
                process::exit(1);
            }
        }
    }

    async fn serve(&mut self) -> Result<Option<ring::OneshotSender<()>>, DriverFault> {
        self.run_effects().await?;
        loop {
            match self.next().await {
                Wake::Command(Some(Command::Stop(done))) => return Ok(Some(done)),
                Wake::Command(None) | Wake::Internal(None) => return Ok(None),
                Wake::Command(Some(Command::Request(request, reply))) => {
                    self.on_request(*request, reply);
                    for _ in 1..MAX_REQUESTS_PER_TURN {
                        if !self.takes_requests() {
                            break;
                        }
                        match self.inbox.try_recv() {
                            Some(Command::Request(request, reply)) => self.on_request(*request, reply),
                            Some(Command::Stop(done)) => return Ok(Some(done)),
                            None => break,
                        }
                    }
                }
                Wake::Internal(Some(event)) => self.on_internal(event)?,
                Wake::Deadline => self.on_deadline().await?,
            }
            self.run_effects().await?;
        }
    }

    /// Before this node has taken over the log that it leads, requests wait in the mailbox.
    fn takes_requests(&self) -> bool {
        self.to_activate.is_none() && self.unflushed_bytes < MAX_UNFLUSHED_BYTES
    }

    async fn next(&self) -> Wake {
        let takes_requests = self.takes_requests();
        let command = async {
            if takes_requests { Wake::Command(self.inbox.recv().await) } else { std::future::pending().await }
        };
        let internal = async { Wake::Internal(self.events.recv().await) };
        let deadline = async {
            ring::sleep_until(self.next_deadline()).await;
            Wake::Deadline
        };
        let first = futures_lite::future::or(internal, command);
        futures_lite::future::or(first, deadline).await
    }

    fn next_deadline(&self) -> MonotonicMs {
        let deadlines = [self.raft.next_deadline(), self.controller.next_deadline()];
        deadlines.into_iter().flatten().fold(self.schedule.next_deadline(), MonotonicMs::min)
    }

    async fn on_deadline(&mut self) -> Result<(), DriverFault> {
        let now = ring::now();
        self.step(Event::Tick);
        if self.to_activate.is_none() && self.controller.next_deadline().is_some_and(|due| due <= now.monotonic) {
            for result in self.controller.on_tick(now, self.raft.next_offset()) {
                self.propose(&result.records, result.is_atomic);
            }
        }
        self.begin_snapshot(now.monotonic);
        if self.schedule.take_cleaning(now.monotonic) {
            let config = &self.shard.node.config.metadata_log;
            if let Some(start) = snapshots::clean(&self.log, config, self.high_watermark, now).await? {
                self.step(Event::LogStartAdvanced { log_start_offset: start });
            }
        }
        Ok(())
    }

    fn on_internal(&mut self, event: Internal) -> Result<(), DriverFault> {
        match event {
            Internal::Flushed(outcome) => {
                outcome?;
                self.is_flushing = false;
                self.unflushed_bytes = 0;
                self.step(Event::LogFlushed);
            }
            Internal::Raft(event) => self.step(*event),
            Internal::SnapshotWritten(written) => {
                self.schedule.on_written();
                if let Some(id) = written {
                    self.step(Event::SnapshotCreated { id });
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        let effects = self.raft.step(event, ring::now());
        self.queue(effects);
    }

    fn queue(&mut self, effects: Effects) {
        if !effects.is_empty() {
            self.effects.push_back(effects);
        }
    }

    async fn run_effects(&mut self) -> Result<(), DriverFault> {
        while let Some(effects) = self.effects.pop_front() {
            let actions = match effects.into_step() {
                Step::Ready(actions) => actions,
                Step::PersistFirst(first) => {
                    self.log.write_quorum_state(&first.quorum_state).await?;
                    first.persisted()
                }
            };
            for action in actions {
                self.carry_out(action).await?;
            }
        }
        self.handle.kraft_version.set(self.raft.kraft_version());
        Ok(())
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), DriverFault> {
        match action {
            Action::AppendLog { batches, .. } => {
                self.log.append(&batches)?;
                self.unflushed_bytes += batches.len();
            }
            Action::FlushLog => self.begin_flush(),
            Action::Send { token, .. } => {
                if !self.has_warned_of_peers {
                    warn!("this release of Ringlog doesn't talk to other controllers yet; they count as unreachable");
                    self.has_warned_of_peers = true;
                }
                self.step(Event::Response { token, result: Err(SendError::Disconnected) });
            }
            Action::Reply { token, response } => {
                if let Some(reply) = self.raft_replies.remove(&token) {
                    let _ = reply.send(*response);
                }
            }
            Action::ReadLog { token, from, max_bytes } => {
                let log = self.log.clone();
                self.beside(async move {
                    let read = log.read(from, log.end_offset(), max_bytes as usize).await;
                    let result = read.ok().filter(|batches| !batches.is_empty()).ok_or(ReadFailed);
                    Internal::Raft(Box::new(Event::LogRead { token, result }))
                });
            }
            Action::ReadSnapshot { token, id, position, max_bytes } => {
                let log = self.log.clone();
                self.beside(async move {
                    let result = read_snapshot(&log, id, position, max_bytes).await;
                    Internal::Raft(Box::new(Event::SnapshotRead { token, result }))
                });
            }
            Action::HighWatermark(high_watermark) => self.on_high_watermark(high_watermark).await?,
            Action::Role(role) => self.on_role(role),
            Action::Fatal(fault) => return Err(fault.into()),
            // The only voter leads or nobody does: these are for followers.
            Action::TruncateLog { .. }
            | Action::WriteSnapshot { .. }
            | Action::FinishSnapshot { .. }
            | Action::AbandonSnapshot { .. } => return Err(DriverFault::OtherLeader),
        }
        Ok(())
    }

    /// Runs something beside this task; its outcome comes back as an event.
    fn beside(&self, work: impl Future<Output = Internal> + 'static) {
        let events = self.events_sender.clone();
        ring::spawn_detached(async move {
            let _ = events.send(work.await).await;
        });
    }

    fn begin_flush(&mut self) {
        assert!(!self.is_flushing, "raft has one flush open at a time");
        self.is_flushing = true;
        let log = self.log.clone();
        self.beside(async move { Internal::Flushed(log.flush().await) });
    }

    fn on_role(&mut self, role: RoleChange) {
        self.handle.leader_id.set(role.leader_id);
        if role.is_leader {
            info!(epoch = role.epoch.0, "leads the metadata quorum");
            self.to_activate = Some(role.epoch);
            return;
        }
        self.to_activate = None;
        if self.controller.active_epoch().is_some() {
            self.controller.resign();
        }
        // They may be committed all the same; Kafka's answer is the same.
        for (reply, response) in std::mem::take(&mut self.commits).into_values().flatten() {
            drop(response);
            drop(reply);
        }
    }

    async fn on_high_watermark(&mut self, high_watermark: Offset) -> Result<(), DriverFault> {
        self.high_watermark = high_watermark;
        let mut publications = Vec::new();
        while self.applied_to < high_watermark {
            let batches: Bytes = match self.log.read(self.applied_to, high_watermark, READ_BYTES).await?.as_slice() {
                [one] => one.clone(),
                chunks => chunks.concat().into(),
            };
            let before = self.applied_to;
            self.load(&batches, &mut publications)?;
            if self.applied_to == before {
                break;
            }
            self.schedule.on_applied(batches.len(), ring::now().monotonic);
        }
        publications.extend(self.loader.publish());
        let answers = self.take_committed();
        self.publish(publications, answers).await;
        self.activate_if_caught_up();
        self.begin_snapshot(ring::now().monotonic);
        Ok(())
    }

    fn load(&mut self, batches: &Bytes, publications: &mut Vec<Publication>) -> Result<(), DriverFault> {
        for batch in BatchIter::new(batches) {
            let batch = batch.map_err(MetadataLogError::Batch)?;
            let header = batch.header;
            let mut records = Vec::new();
            if !header.is_control() {
                for record in batch.records(&mut self.scratch).map_err(MetadataLogError::Batch)? {
                    let record = record.map_err(MetadataLogError::Batch)?;
                    let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                    records.push(MetadataRecord::decode_framed(value)?.0);
                }
            }
            let early = self.loader.load_batch(
                header.base_offset,
                header.last_offset(),
                header.partition_leader_epoch,
                header.max_timestamp,
                &records,
            )?;
            publications.extend(early);
            self.applied_to = header.next_offset();
        }
        Ok(())
    }

    fn take_committed(&mut self) -> Vec<(Reply, ResponseBody)> {
        let open = self.commits.split_off(&self.high_watermark);
        std::mem::replace(&mut self.commits, open).into_values().flatten().collect()
    }

    /// Sends new images to every core, then the answers that they belong to.
    async fn publish(&mut self, publications: Vec<Publication>, answers: Vec<(Reply, ResponseBody)>) {
        let mut pending: Vec<LocalFuture<()>> = Vec::new();
        let mut offset = None;
        for Publication { image, mut changes } in publications {
            if !self.has_published {
                // The latest snapshot was loaded without being published.
                changes = MetadataChanges::between(&MetadataImage::empty(), &image);
                self.has_published = true;
            }
            offset = Some(image.provenance.last_contained_offset);
            let (image, changes) = (Arc::new(image), Arc::new(changes));
            for core in 0..self.shard.mesh.peers() {
                let (image, changes) = (image.clone(), changes.clone());
                let work = move |shard: &Rc<Shard>| metadata_publisher::apply(shard, image, changes);
                pending.push(self.shard.begin_on(core, work).await);
            }
        }
        if offset.is_none() && answers.is_empty() {
            return;
        }
        let handle = self.handle.clone();
        ring::spawn_detached(async move {
            let mut all = Box::pin(async move {
                for core in pending {
                    core.await;
                }
                if let Some(offset) = offset {
                    handle.on_applied(offset);
                }
            });
            let in_time = answers.is_empty() || ring::timeout_ms(APPLY_WAIT_MS, &mut all).await.is_ok();
            let is_through = in_time && !answers.is_empty();
            for (reply, response) in answers {
                let _ = reply.send(response);
            }
            if !is_through {
                all.await;
            }
        });
    }

    /// A leader becomes active once it has applied all of its log, with the first record of its epoch.
    fn activate_if_caught_up(&mut self) {
        let Some(epoch) = self.to_activate.filter(|_| self.applied_to == self.raft.next_offset()) else { return };
        self.to_activate = None;
        let open_transaction = self.loader.open_transaction().is_some();
        let image = self.loader.image().clone();
        let next_offset = self.raft.next_offset();
        let result = self.controller.activate(image, open_transaction, epoch, next_offset, ring::now());
        self.propose(&result.records, result.is_atomic);
    }

    /// Appends what the controller decided. Returns the last record's offset.
    fn propose(&mut self, records: &[RecordAndVersion], is_atomic: bool) -> Option<Offset> {
        let epoch = self.controller.active_epoch()?;
        let mut last = None;
        for chunk in batches(records, is_atomic) {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(fault) => return self.renounce(epoch, &fault),
            };
            match self.raft.propose(epoch, &chunk, ring::now()) {
                Ok((proposed, effects)) => {
                    last = Some(proposed.last_offset);
                    self.queue(effects);
                }
                Err(fault) => return self.renounce(epoch, &fault),
            }
        }
        last
    }

    /// What the controller believes is not in the log: it has to begin anew from what is.
    fn renounce(&mut self, epoch: LeaderEpoch, fault: &dyn std::fmt::Display) -> Option<Offset> {
        error!(epoch = epoch.0, "the controller gives up its leadership: {fault}");
        self.controller.resign();
        self.step(Event::Resign { epoch });
        None
    }

    fn on_request(&mut self, request: ControllerRequest, reply: Reply) {
        trace!(
            api = request.body.api_key().name(),
            principal = request.principal,
            client = ?request.client_id,
            address = ?request.client_address,
            "request to the controller"
        );
        if is_raft(request.body.api_key()) {
            let token = ReplyToken(self.next_reply);
            self.next_reply += 1;
            self.raft_replies.insert(token, reply);
            let ControllerRequest { body, api_version, listener, .. } = request;
            self.step(Event::Request { token, listener, api_version, request: body });
            return;
        }
        let now = ring::now();
        if let RequestBody::BrokerHeartbeat(heartbeat) = &request.body {
            let (id, epoch) = (NodeId(heartbeat.broker_id), BrokerEpoch(heartbeat.broker_epoch));
            self.controller.on_heartbeat_received(id, epoch, now.monotonic);
        }
        let voters: Vec<NodeId> = self.raft.voters().iter().map(|voter| voter.key.id).collect();
        let context = RequestContext {
            api_version: request.api_version,
            principal: &request.principal,
            is_token_authenticated: request.is_token_authenticated,
            is_forwarded: request.is_forwarded,
            authorizer: &AllowAll,
            now,
            next_offset: self.raft.next_offset(),
            kraft_version: self.raft.kraft_version(),
            voters: &voters,
        };
        let Ok(result) = self.controller.handle(&request.body, &context) else {
            let _ = reply.send(unavailable(&request.body, request.api_version));
            return;
        };
        let mut last = None;
        if !result.records.is_empty() {
            last = self.propose(&result.records, result.is_atomic);
            if last.is_none() {
                let error = ErrorCode::UnknownServerError;
                let failed = error_response(&request.body, error, request.api_version);
                let _ = reply.send(failed.unwrap_or(result.response));
                return;
            }
        }
        if let Some(level) = result.kraft_version {
            match self.raft.upgrade_kraft_version(level, false, now) {
                Ok((offset, effects)) => {
                    last = offset.or(last);
                    self.queue(effects);
                }
                Err(fault) => {
                    let refused = UpdateFeaturesResponse {
                        error_code: ErrorCode::InvalidUpdateVersion.code(),
                        error_message: Some(fault.to_string().into()),
                        ..UpdateFeaturesResponse::default()
                    };
                    let _ = reply.send(refused.into());
                    return;
                }
            }
        }
        // Without records of its own the answer rests on what was appended before.
        let after = last.unwrap_or_else(|| self.raft.next_offset().plus(-1));
        if after < self.high_watermark {
            let _ = reply.send(result.response);
        } else {
            self.commits.entry(after).or_default().push((reply, result.response));
        }
    }

    fn begin_snapshot(&mut self, now: MonotonicMs) {
        let image = self.loader.image();
        if self.loader.open_transaction().is_some() || !self.schedule.take_due(image, now) {
            return;
        }
        let provenance = image.provenance;
        let end_offset = provenance.last_contained_offset.plus(1);
        let id = SnapshotId { end_offset, epoch: provenance.last_contained_epoch };
        let membership = self.raft.history().membership_at(end_offset);
        let job = SnapshotJob {
            id,
            image: image.clone(),
            membership: membership.map(|(level, voters)| (level, voters.clone())),
            now: ring::now().wall,
            nonce: self.random.next_u64(),
        };
        let log = self.log.clone();
        self.beside(async move {
            let written = snapshots::write(&log, job).await;
            Internal::SnapshotWritten(written.inspect_err(|error| error!("no snapshot written: {error}")).ok())
        });
    }

    /// Flushes what is appended, and leaves the files in order.
    async fn stop(&mut self) -> Result<(), DriverFault> {
        self.step(Event::ShutDown);
        self.run_effects().await?;
        // Nothing may run on a helper thread when the executor ends.
        while self.is_flushing || self.schedule.is_writing() {
            match self.events.recv().await {
                Some(event) => self.on_internal(event)?,
                None => break,
            }
            self.run_effects().await?;
        }
        self.log.flush().await?;
        self.log.close().await?;
        Ok(())
    }
}

async fn read_snapshot(
    log: &MetadataLog,
    id: SnapshotId,
    position: u64,
    max_bytes: u32,
) -> Result<SnapshotChunk, SnapshotReadError> {
    let size = log.snapshots.borrow().get(&id).map(|info| info.size).ok_or(SnapshotReadError::NotFound)?;
    if position >= size {
        return Err(SnapshotReadError::PositionOutOfRange);
    }
    let path = log.directory.join(id.file_name());
    let file = ring::File::open(&path, ring::Open::READ).await.map_err(|_| SnapshotReadError::NotFound)?;
    let bytes = file.read(position, max_bytes as usize).await.map_err(|_| SnapshotReadError::NotFound)?;
    Ok(SnapshotChunk { size, bytes })
}

/// Framed records in units that fit into a batch; all in one if they must stand together.
fn batches(
    records: &[RecordAndVersion],
    is_atomic: bool,
) -> impl Iterator<Item = Result<Vec<Bytes>, ringlog_protocol::EncodeError>> + '_ {
    let mut left = records;
    std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while let Some((first, rest)) = left.split_first() {
            let value = match first.encode_framed() {
                Ok(value) => value,
                Err(error) => {
                    left = &[];
                    return Some(Err(error));
                }
            };
            let is_full = chunk.len() >= MAX_BATCH_RECORDS || bytes + value.len() > MAX_BATCH_BYTES;
            if is_full && !is_atomic && !chunk.is_empty() {
                break;
            }
            bytes += value.len() + 32;
            chunk.push(value);
            left = rest;
        }
        (!chunk.is_empty()).then_some(Ok(chunk))
    })
}
