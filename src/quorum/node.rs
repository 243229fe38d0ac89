//! The node: inputs to the cores, their effects to work.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringlog_metadata::controller::{AllowAll, RequestContext, error_response};
use ringlog_metadata::image::Publication;
use ringlog_metadata::{Controller, ControllerConfig, MetadataChanges, MetadataImage, MetadataLoader};
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_protocol::{EncodeError, Encoder, ResponseBody};
use ringlog_raft::{
    Action, ControlHistory, Effects, Event, Raft, RaftConfig, ReadFailed, ReadToken, ReplyToken, RequestToken,
    RoleChange, SendError, SnapshotChunk, SnapshotId, SnapshotReadError, Step, VoterSet,
};
use ringlog_types::{BrokerEpoch, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random};

use crate::request::ControllerRequest;
use crate::snapshot_load::LoadedSnapshot;
use crate::snapshots::{Schedule, SnapshotJob, SnapshotPolicy};
use crate::start::LoadedNode;
use crate::work::{NodeFault, Work};

/// Requests are not taken while more than this waits to be flushed. Far below raft's own limit, so that what the
/// controller has decided is never refused.
const MAX_UNFLUSHED_BYTES: usize = 16 * 1024 * 1024;
/// Records in one batch at most, as Kafka has it.
const MAX_BATCH_RECORDS: usize = 10_000;
/// Bytes of records in one batch: what raft takes, less what it adds.
const MAX_BATCH_BYTES: usize = 7 * 1024 * 1024;
/// The largest batch of the metadata log that is read, unpacked.
const SCRATCH_BYTES: usize = 32 * 1024 * 1024;

/// What a node is made with.
#[derive(Debug)]
pub struct QuorumConfig {
    /// Raft's settings.
    pub raft: RaftConfig,
    /// The controller's; `None` on a node without that role, which follows for ever.
    pub controller: Option<ControllerConfig>,
    /// When snapshots are written and deleted.
    pub snapshots: SnapshotPolicy,
    /// `controller.quorum.voters`; empty for a dynamic quorum.
    pub static_voters: VoterSet,
}

/// What the driver tells a node.
#[derive(Debug)]
pub enum Input {
    /// Time passed; due at [`QuorumNode::next_deadline`], harmless at any time.
    Tick,
    /// Somebody asks raft or the controller. `token` names the request in the answer.
    Request {
        /// For the answer; unique among open requests.
        token: ReplyToken,
        /// The request.
        request: Box<ControllerRequest>,
    },
    /// The answer to [`Work::Send`], or why there is none.
    Response {
        /// Of the request.
        token: RequestToken,
        /// The answer.
        result: Result<ResponseBody, SendError>,
    },
    /// What had been appended before the open [`Work::FlushLog`] is durable.
    LogFlushed,
    /// Answers [`Work::ReadLog`].
    LogRead {
        /// Of the read.
        token: ReadToken,
        /// Whole batches, at least one.
        result: Result<Vec<Bytes>, ReadFailed>,
    },
    /// Answers [`Work::ReadCommitted`]: whole batches; none if the log holds nothing there.
    Committed(Bytes),
    /// Answers [`Work::ReadSnapshot`].
    SnapshotRead {
        /// Of the read.
        token: ReadToken,
        /// A chunk.
        result: Result<SnapshotChunk, SnapshotReadError>,
    },
    /// Answers [`Work::CheckSnapshot`]; after a failure the part file is gone.
    SnapshotChecked {
        /// Which.
        id: SnapshotId,
        /// What it holds; it is durable, under the name of its part file.
        result: Result<Box<LoadedSnapshot>, ReadFailed>,
    },
    /// Answers [`Work::CreateSnapshot`]: which one is there now; `None` when that failed.
    SnapshotCreated(Option<SnapshotId>),
    /// Old snapshots and log segments were deleted.
    LogStartAdvanced {
        /// The log's new start.
        log_start_offset: Offset,
    },
    /// This node is about to stop: a leader hands over, see [`QuorumNode::may_shut_down`].
    ShutDown,
}

/// See the crate's text.
pub struct QuorumNode {
    raft: Raft,
    controller: Option<Controller>,
    loader: MetadataLoader,
    schedule: Schedule,
    static_voters: VoterSet,
    scratch: Scratch,
    random: Random,
    work: VecDeque<Work>,
    /// [`Work::Persist`] was handed out and not reported as done.
    is_persisting: bool,
    /// The controller works on a change in portions, for this request or of its own accord.
    unfinished: Option<Option<ReplyToken>>,
    /// Answers by the offset that must be committed first.
    commits: BTreeMap<Offset, Vec<(ReplyToken, ResponseBody)>>,
    /// The epoch in which this node leads but hasn't taken over its log.
    to_activate: Option<LeaderEpoch>,
    /// The next offset to be applied.
    applied_to: Offset,
    high_watermark: Offset,
    /// Where the open [`Work::ReadCommitted`] begins.
    reading_committed_from: Option<Offset>,
    has_published: bool,
}

impl QuorumNode {
    /// A node as it starts; its first work is ready.
    pub fn new(config: QuorumConfig, loaded: LoadedNode, mut random: Random, now: Now) -> QuorumNode {
        let LoadedNode { state, snapshot, bytes_since_snapshot } = loaded;
        let mut loader = MetadataLoader::new();
        let mut covered_to = Offset(0);
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.id != SnapshotId::BOOTSTRAP) {
            covered_to = snapshot.id.end_offset;
            drop(loader.adopt(snapshot.image));
        }
        let applied_to = covered_to.max(state.log_start_offset);
        let schedule = Schedule::new(config.snapshots, bytes_since_snapshot, covered_to, now.monotonic);
        let (raft, effects) = Raft::new(config.raft, state, Random::from_seed(random.next_u64()), now);
        let mut node = QuorumNode {
            raft,
            controller: config.controller.map(Controller::new),
            loader,
            schedule,
            static_voters: config.static_voters,
            scratch: Scratch::new(SCRATCH_BYTES),
            random,
            work: VecDeque::new(),
            is_persisting: false,
            unfinished: None,
            commits: BTreeMap::new(),
            to_activate: None,
            applied_to,
            high_watermark: applied_to,
            reading_committed_from: None,
            has_published: false,
        };
        node.take(effects);
        node
    }

    /// The next thing to do; `None`: nothing, until the next input or until what was handed out is persisted.
    pub fn next_work(&mut self) -> Option<Work> {
        if self.is_persisting {
            return None;
        }
        let work = self.work.pop_front()?;
        self.is_persisting = matches!(work, Work::Persist(_));
        Some(work)
    }

    /// The state of the last [`Work::Persist`] is durable.
    pub fn on_persisted(&mut self) {
        assert!(self.is_persisting, "a state is persisted that was not handed out");
        self.is_persisting = false;
    }

    /// Takes in one input.
    pub fn step(&mut self, input: Input, now: Now) {
        match input {
            Input::Tick => {
                self.on_tick(now);
                self.go_on(now);
            }
            Input::Request { token, request } => self.on_request(token, *request, now),
            Input::Response { token, result } => self.step_raft(Event::Response { token, result }, now),
            Input::LogFlushed => self.step_raft(Event::LogFlushed, now),
            Input::LogRead { token, result } => self.step_raft(Event::LogRead { token, result }, now),
            Input::Committed(batches) => self.on_committed(&batches, now),
            Input::SnapshotRead { token, result } => self.step_raft(Event::SnapshotRead { token, result }, now),
            Input::SnapshotChecked { id, result } => self.on_snapshot_checked(id, result, now),
            Input::SnapshotCreated(created) => {
                self.schedule.on_written();
                if let Some(id) = created {
                    self.step_raft(Event::SnapshotCreated { id }, now);
                }
            }
            Input::LogStartAdvanced { log_start_offset } => {
                self.step_raft(Event::LogStartAdvanced { log_start_offset }, now);
            }
            Input::ShutDown => self.step_raft(Event::ShutDown, now),
        }
        self.activate_if_caught_up(now);
    }

    /// Heartbeats of brokers came in, at these times, whose requests may wait for their turn for a while yet: they count
    /// from then on, so that a controller that is at work fences nobody. To be told before [`Input::Tick`].
    pub fn on_heartbeats_received(&mut self, heartbeats: impl IntoIterator<Item = (NodeId, BrokerEpoch, MonotonicMs)>) {
        if let Some(controller) = &mut self.controller {
            heartbeats.into_iter().for_each(|(id, epoch, at)| controller.on_heartbeat_received(id, epoch, at));
        }
    }

    /// A broker's process was found gone then. What follows is due at once, see [`QuorumNode::next_deadline`].
    pub fn on_broker_gone(&mut self, id: NodeId, epoch: BrokerEpoch, at: MonotonicMs) {
        if let Some(controller) = &mut self.controller {
            controller.on_broker_gone(id, epoch, at);
        }
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_deadline(&self) -> MonotonicMs {
        if self.is_going_on() {
            return MonotonicMs(0);
        }
        // Before it has taken over its log, or while it is at work, the controller has nothing to do by time.
        let is_free = self.to_activate.is_none() && self.unfinished.is_none();
        let of_controller = self.controller.as_ref().filter(|_| is_free);
        let deadlines = [self.raft.next_deadline(), of_controller.and_then(Controller::next_deadline)];
        deadlines.into_iter().flatten().fold(self.schedule.next_deadline(), MonotonicMs::min)
    }

    /// Whether requests to the controller are taken now. Before this node has taken over the log that it leads, while a
    /// large change is worked out, or the disk can't keep up, they are to wait. Requests to raft are always taken.
    pub fn takes_requests(&self) -> bool {
        self.to_activate.is_none() && self.unfinished.is_none() && self.raft.unflushed_bytes() < MAX_UNFLUSHED_BYTES
    }

    /// Whether the next portion of a large change can be worked out, with the next [`Input::Tick`].
    pub fn is_going_on(&self) -> bool {
        self.unfinished.is_some() && self.raft.unflushed_bytes() < MAX_UNFLUSHED_BYTES
    }

    /// Consensus, to be looked at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The newest image of committed records.
    pub fn image(&self) -> &MetadataImage {
        self.loader.image()
    }

    /// The newest state of the active controller, uncommitted records included.
    pub fn uncommitted_image(&self) -> Option<&MetadataImage> {
        self.controller.as_ref()?.uncommitted_image()
    }

    /// Whether a snapshot is being written.
    pub fn is_writing_snapshot(&self) -> bool {
        self.schedule.is_writing()
    }

    /// After [`Input::ShutDown`]: whether a successor is known, so that the process may end.
    pub fn may_shut_down(&self) -> bool {
        self.raft.may_shut_down()
    }

    fn step_raft(&mut self, event: Event, now: Now) {
        let effects = self.raft.step(event, now);
        self.take(effects);
    }

    /// Raft's effects become work, in their order.
    fn take(&mut self, effects: Effects) {
        let actions = match effects.into_step() {
            Step::Ready(actions) => actions,
            Step::PersistFirst(first) => {
                self.work.push_back(Work::Persist(first.quorum_state.clone()));
                first.persisted()
            }
        };
        for action in actions {
            let work = match action {
                Action::TruncateLog { to } => Work::TruncateLog { to },
                Action::AppendLog { base_offset, end_offset, batches } => {
                    Work::AppendLog { base_offset, end_offset, batches }
                }
                Action::FlushLog => Work::FlushLog,
                Action::Send { to, token, request } => Work::Send { to, token, request },
                Action::Reply { token, response } => Work::Reply { token, response },
                Action::ReadLog { token, from, max_bytes } => Work::ReadLog { token, from, max_bytes },
                Action::ReadSnapshot { token, id, position, max_bytes } => {
                    Work::ReadSnapshot { token, id, position, max_bytes }
                }
                Action::WriteSnapshot { id, position, bytes } => Work::WriteSnapshot { id, position, bytes },
                Action::FinishSnapshot { id } => Work::CheckSnapshot { id },
                Action::AbandonSnapshot { id } => Work::AbandonSnapshot { id },
                Action::HighWatermark(high_watermark) => {
                    self.high_watermark = self.high_watermark.max(high_watermark);
                    self.read_committed();
                    if let Some(first) = self.first_publication() {
                        self.work.push_back(Work::Publish { publications: vec![first], answers: Vec::new() });
                    }
                    continue;
                }
                Action::Role(role) => self.on_role(role),
                Action::Rebuilt => Work::Rebuilt,
                Action::Fatal(fault) => Work::Halt(fault.into()),
            };
            self.work.push_back(work);
        }
    }

    fn on_role(&mut self, role: RoleChange) -> Work {
        self.to_activate = role.is_leader.then_some(role.epoch);
        if !role.is_leader {
            if let Some(controller) = &mut self.controller {
                controller.resign();
            }
            // They may be committed all the same; Kafka's answer is the same.
            let waiting = std::mem::take(&mut self.commits).into_values().flatten().map(|(token, _)| token);
            let tokens = waiting.chain(self.unfinished.take().flatten());
            self.work.extend(tokens.map(|token| Work::Refuse { token }));
        }
        Work::Role(role)
    }

    fn on_tick(&mut self, now: Now) {
        self.step_raft(Event::Tick, now);
        let next_offset = self.raft.next_offset();
        if self.takes_requests()
            && let Some(controller) = &mut self.controller
            && controller.next_deadline().is_some_and(|due| due <= now.monotonic)
        {
            let results = controller.on_tick(now, next_offset);
            self.unfinished = controller.is_unfinished().then_some(None);
            for result in results {
                self.propose(&result.records, result.is_atomic, now);
            }
        }
        self.begin_snapshot(now);
        if self.schedule.take_cleaning(now.monotonic) {
            self.work.push_back(Work::CleanSnapshots);
        }
    }

    // ---- Committed records become images ----

    /// Asks for what is committed and not applied, if it isn't asked for yet.
    fn read_committed(&mut self) {
        if self.reading_committed_from.is_none() && self.applied_to < self.high_watermark {
            self.reading_committed_from = Some(self.applied_to);
            self.work.push_back(Work::ReadCommitted { from: self.applied_to, to: self.high_watermark });
        }
    }

    fn on_committed(&mut self, batches: &Bytes, now: Now) {
        let mut publications = Vec::new();
        let before = self.applied_to;
        if self.reading_committed_from.take() != Some(before) {
            // A snapshot took the place of all that meanwhile.
            return self.read_committed();
        }
        if let Err(fault) = self.apply(batches, &mut publications) {
            return self.work.push_back(Work::Halt(fault));
        }
        if self.applied_to == before {
            return self.work.push_back(Work::Halt(NodeFault::Missing(before)));
        }
        self.schedule.on_applied(batches.len(), now.monotonic);
        self.publish(publications);
        self.read_committed();
        self.begin_snapshot(now);
    }

    fn apply(&mut self, batches: &Bytes, publications: &mut Vec<Publication>) -> Result<(), NodeFault> {
        for batch in BatchIter::new(batches) {
            let at = self.applied_to;
            let batch = batch.map_err(|source| NodeFault::Batch { offset: at, source })?;
            let header = batch.header;
            if header.base_offset >= self.high_watermark {
                break;
            }
            if header.next_offset() <= self.applied_to {
                continue;
            }
            if header.base_offset > self.applied_to {
                return Err(NodeFault::Missing(at));
            }
            // It was good when it was appended or recovered; a device may have damaged it since.
            batch.verify_crc().map_err(|source| NodeFault::Batch { offset: at, source })?;
            let mut records = Vec::new();
            if !header.is_control() {
                let fault = |source| NodeFault::Batch { offset: at, source };
                for record in batch.records(&mut self.scratch).map_err(fault)? {
                    let record = record.map_err(fault)?;
                    let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                    let decoded = MetadataRecord::decode_framed(value);
                    let offset = record.offset;
                    records.push(decoded.map_err(|source| NodeFault::Record { offset, source })?.0);
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

    /// Hands out what is new, and the answers that waited for it.
    fn publish(&mut self, mut publications: Vec<Publication>) {
        publications.extend(self.loader.publish());
        // What was decided and is now committed needn't be in memory twice.
        if let Some(controller) = &mut self.controller {
            publications.iter().for_each(|it| controller.share_with(&it.image, &it.changes));
        }
        let open = self.commits.split_off(&self.applied_to.min(self.high_watermark));
        let answers: Vec<_> = std::mem::replace(&mut self.commits, open).into_values().flatten().collect();
        if !self.has_published {
            publications = self.first_publication().into_iter().collect();
        }
        if !publications.is_empty() || !answers.is_empty() {
            self.work.push_back(Work::Publish { publications, answers });
        }
    }

    /// The first image that is handed out is one that has caught up: nobody should act on how the cluster once was.
    fn first_publication(&mut self) -> Option<Publication> {
        let is_behind = self.raft.told_high_watermark().is_none_or(|told| self.applied_to < told);
        let image = self.loader.image();
        if self.has_published || is_behind || image.provenance.last_contained_offset.0 < 0 {
            return None;
        }
        self.has_published = true;
        let changes = MetadataChanges::between(&MetadataImage::empty(), image);
        Some(Publication { image: image.clone(), changes })
    }

    // ---- Snapshots ----

    fn begin_snapshot(&mut self, now: Now) {
        let image = self.loader.image();
        if self.loader.open_transaction().is_some() || !self.schedule.take_due(image, now.monotonic) {
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
            now: now.wall,
            nonce: self.random.next_u64(),
        };
        self.work.push_back(Work::CreateSnapshot(Box::new(job)));
    }

    /// A fetched snapshot is complete, or damaged.
    fn on_snapshot_checked(&mut self, id: SnapshotId, result: Result<Box<LoadedSnapshot>, ReadFailed>, now: Now) {
        let Ok(snapshot) = result else {
            return self.step_raft(Event::SnapshotInstalled { id, result: Err(ReadFailed) }, now);
        };
        self.work.push_back(Work::AdoptSnapshot { id });
        let mut history = ControlHistory::new(self.static_voters.clone());
        snapshot.load_history(&mut history);
        self.applied_to = id.end_offset;
        self.high_watermark = self.high_watermark.max(id.end_offset);
        self.schedule.on_adopted(id);
        let publication = self.loader.adopt(snapshot.image);
        self.publish(vec![publication]);
        self.step_raft(Event::SnapshotInstalled { id, result: Ok(Box::new(history)) }, now);
    }

    // ---- The active controller ----

    /// A leader becomes active once it has applied all of its log, with the first record of its epoch.
    fn activate_if_caught_up(&mut self, now: Now) {
        let Some(epoch) = self.to_activate.filter(|_| self.applied_to == self.raft.next_offset()) else { return };
        self.to_activate = None;
        let open_transaction = self.loader.open_transaction().is_some();
        let image = self.loader.image().clone();
        let next_offset = self.raft.next_offset();
        let Some(controller) = &mut self.controller else { return };
        let result = controller.activate(image, open_transaction, epoch, next_offset, now);
        self.propose(&result.records, result.is_atomic, now);
    }

    /// Appends what the controller decided. Returns the last record's offset.
    fn propose(&mut self, records: &[RecordAndVersion], is_atomic: bool, now: Now) -> Option<Offset> {
        let epoch = self.controller.as_ref()?.active_epoch()?;
        let mut last = None;
        for chunk in batches(records, is_atomic) {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(fault) => return self.renounce(epoch, fault.to_string(), now),
            };
            match self.raft.propose(epoch, &chunk, now) {
                Ok((proposed, effects)) => {
                    last = Some(proposed.last_offset);
                    self.take(effects);
                }
                Err(fault) => return self.renounce(epoch, fault.to_string(), now),
            }
        }
        last
    }

    /// What the controller believes is not in the log: it has to begin anew from what is.
    fn renounce(&mut self, epoch: LeaderEpoch, reason: String, now: Now) -> Option<Offset> {
        self.work.push_back(Work::Renounced { epoch, reason });
        if let Some(controller) = &mut self.controller {
            controller.resign();
        }
        self.step_raft(Event::Resign { epoch }, now);
        None
    }

    /// Raises `kraft.version`, which raft said that it can. The offset to wait for; `None`: it failed after all, and
    /// with it all that was decided.
    fn raise_kraft_version(&mut self, level: i16, now: Now) -> Option<Option<Offset>> {
        match self.raft.upgrade_kraft_version(level, now) {
            Ok((offset, effects)) => {
                self.take(effects);
                Some(offset)
            }
            Err(fault) => {
                self.renounce(self.raft.epoch(), fault.to_string(), now);
                None
            }
        }
    }

    fn on_request(&mut self, token: ReplyToken, request: ControllerRequest, now: Now) {
        if request.is_for_raft() {
            let ControllerRequest { body: request, api_version, listener, .. } = request;
            return self.step_raft(Event::Request { token, listener, api_version, request }, now);
        }
        let voters: Vec<NodeId> = self.raft.voters().iter().map(|voter| voter.key.id).collect();
        let context = RequestContext {
            api_version: request.api_version,
            principal: &request.principal,
            is_token_authenticated: request.is_token_authenticated,
            is_forwarded: request.is_forwarded,
            authorizer: &AllowAll,
            now,
            received_at: request.received_at.unwrap_or(now.monotonic),
            next_offset: self.raft.next_offset(),
            kraft_version: self.raft.kraft_version(),
            may_raise_kraft_version: &|level| {
                self.raft.may_upgrade_kraft_version(level).map_err(|fault| fault.to_string())
            },
            voters: &voters,
        };
        let Some(controller) = &mut self.controller else { return self.work.push_back(Work::Refuse { token }) };
        let Ok(result) = controller.handle(&request.body, &context) else {
            return self.work.push_back(Work::Refuse { token });
        };
        let Some(response) = result.response else {
            self.unfinished = Some(Some(token));
            self.propose(&result.records, result.is_atomic, now);
            return;
        };
        let last = if result.records.is_empty() {
            Some(None)
        } else {
            self.propose(&result.records, result.is_atomic, now).map(Some)
        };
        let last = match result.kraft_version {
            Some(level) => last.and_then(|last| self.raise_kraft_version(level, now).map(|offset| offset.or(last))),
            None => last,
        };
        let Some(last) = last else {
            let failed = error_response(&request.body, ErrorCode::UnknownServerError, request.api_version);
            let response = Box::new(failed.unwrap_or(response));
            return self.work.push_back(Work::Reply { token, response });
        };
        self.answer_after(last, token, response);
    }

    /// Answers once the record at `last` is applied. Without records of its own an answer rests on what was appended
    /// before.
    fn answer_after(&mut self, last: Option<Offset>, token: ReplyToken, response: ResponseBody) {
        let after = last.unwrap_or_else(|| self.raft.next_offset().plus(-1));
        if after < self.applied_to {
            self.work.push_back(Work::Reply { token, response: Box::new(response) });
        } else {
            self.commits.entry(after).or_default().push((token, response));
        }
    }

    /// Works out the next portion of a large change.
    fn go_on(&mut self, now: Now) {
        if !self.is_going_on() {
            return;
        }
        let next_offset = self.raft.next_offset();
        let Some(controller) = &mut self.controller else { return };
        let Some(result) = controller.go_on(next_offset) else { return };
        let is_unfinished = controller.is_unfinished();
        let last = self.propose(&result.records, result.is_atomic, now);
        if is_unfinished {
            return;
        }
        // Gone, if proposing it cost the leadership.
        if let (Some(Some(token)), Some(response)) = (self.unfinished.take(), result.response) {
            self.answer_after(last, token, response);
        }
    }
}

/// Room for records that are encoded together.
const ENCODING_BYTES: usize = 16 * 1024;

/// Framed records in units that fit into a batch; all in one if they must stand together.
fn batches(
    records: &[RecordAndVersion],
    is_atomic: bool,
) -> impl Iterator<Item = Result<Vec<Bytes>, EncodeError>> + '_ {
    let mut left = records;
    let mut buffer = Encoder::with_capacity(ENCODING_BYTES);
    std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while let Some((first, rest)) = left.split_first() {
            let value = match first.encode_framed_by(&mut buffer) {
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
