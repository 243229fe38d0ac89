//! One simulated node: its disk, its machine, and the driver between them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringlog_protocol::records::BatchIter;
use ringlog_raft::snapshot::{self, SnapshotWriter};
use ringlog_raft::{
    Action, ControlHistory, Effects, Endpoint, Endpoints, EpochStart, Event, LeaderEpochs, LoadedState, Memory,
    QuorumState, Raft, RaftConfig, ReadFailed, ReplyToken, SnapshotChunk, SnapshotId, SnapshotReadError, Step,
    VoterSet,
};
use ringlog_types::{LeaderEpoch, NodeId, Now, Offset, Random, TimestampMs, Uuid};

/// A batch as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub base: Offset,
    pub end: Offset,
    pub epoch: LeaderEpoch,
    pub bytes: Bytes,
}

/// What survives a crash, and what may not.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    pub quorum_state: Option<QuorumState>,
    pub log_start: Offset0,
    pub log: Vec<Batch>,
    /// Batches below this end are on stable storage.
    pub durable_end: i64,
    pub snapshots: BTreeMap<SnapshotId, Bytes>,
    pub part: Vec<u8>,
}

/// An offset that defaults to 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
pub struct Offset0(pub Offset);

impl Default for Offset0 {
    fn default() -> Self {
        Offset0(Offset(0))
    }
}

impl Disk {
    pub fn end(&self) -> Offset {
        self.log.last().map_or(self.log_start.0, |batch| batch.end)
    }

    fn load(&self, static_voters: &VoterSet) -> LoadedState {
        let mut history = ControlHistory::new(static_voters.clone());
        if let Some((id, file)) = self.snapshots.iter().next_back() {
            let summary = snapshot::read(file, |_| {}).expect("finished snapshots are whole");
            history.load_snapshot(*id, summary.kraft_version, summary.voters);
        }
        for batch in &self.log {
            history.apply_batches(&batch.bytes).unwrap();
        }
        let loaded = LoadedState {
            quorum_state: self.quorum_state.clone(),
            log_start_offset: self.log_start.0,
            log_end_offset: self.end(),
            epochs: LeaderEpochs::new(
                self.log.iter().map(|batch| EpochStart { epoch: batch.epoch, start_offset: batch.base }),
            ),
            snapshots: self.snapshots.keys().copied().collect(),
            history,
            memory: Memory::Whole,
        };
        assert_eq!(loaded.log_must_restart_at(), None);
        loaded
    }
}

/// What a step asked of the world outside of the node.
#[derive(Debug)]
pub enum Output {
    Send { to: NodeId, token: ringlog_raft::RequestToken, request: Box<ringlog_protocol::RequestBody> },
    Reply { token: ReplyToken, response: Box<ringlog_protocol::ResponseBody> },
    Flush,
    Committed(Offset),
    Leader(LeaderEpoch),
    Downloaded(SnapshotId),
}

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub incarnation: u64,
    pub disk: Disk,
    pub raft: Option<Raft>,
    /// What the open flush will make durable.
    pub flushing: i64,
    config: RaftConfig,
    static_voters: VoterSet,
}

pub fn endpoint(id: i32) -> Endpoint {
    Endpoint { host: "sim".to_owned(), port: 9000 + id as u16 }
}

impl Node {
    pub fn new(id: i32, is_controller: bool, static_voters: VoterSet, disk: Disk) -> Node {
        let directory_id = Uuid([id as u8; 16]);
        let mut config = RaftConfig::new(NodeId(id), directory_id, "simulated-cluster");
        config.is_controller = is_controller;
        config.bootstrap_servers = (1..=3).map(endpoint).collect();
        if is_controller {
            config.endpoints = Endpoints::from([("CONTROLLER".to_owned(), endpoint(id))]);
        }
        Node { id: NodeId(id), incarnation: 0, disk, raft: None, flushing: 0, config, static_voters }
    }

    /// Joins the voters by itself.
    pub fn set_auto_join(&mut self) {
        self.config.auto_join = true;
    }

    pub fn start(&mut self, random: &mut Random, now: Now) -> Vec<Output> {
        self.incarnation += 1;
        let loaded = self.disk.load(&self.static_voters);
        let (raft, fx) = Raft::new(self.config.clone(), loaded, Random::from_seed(random.next_u64()), now);
        self.raft = Some(raft);
        self.run(fx, now)
    }

    /// The process dies; of what was not flushed a random part is left.
    pub fn crash(&mut self, random: &mut Random) {
        self.raft = None;
        let unflushed = self.disk.log.iter().filter(|batch| batch.end.0 > self.disk.durable_end).count() as u64;
        let lost = random.below(unflushed + 1) as usize;
        let kept = self.disk.log.len() - lost;
        self.disk.log.truncate(kept);
        self.disk.durable_end = self.disk.end().0;
        self.disk.part.clear();
    }

    pub fn step(&mut self, event: Event, now: Now) -> Vec<Output> {
        let Some(raft) = &mut self.raft else { return Vec::new() };
        let fx = raft.step(event, now);
        self.run(fx, now)
    }

    pub fn propose(&mut self, value: Bytes, now: Now) -> Vec<Output> {
        let Some(raft) = &mut self.raft else { return Vec::new() };
        match raft.propose(raft.epoch(), &[value.clone(), value], now) {
            Ok((proposed, fx)) => {
                assert_eq!(proposed.last_offset, proposed.first_offset.plus(1));
                self.run(fx, now)
            }
            Err(_) => Vec::new(),
        }
    }

    /// Writes a snapshot of everything that is committed here, and drops the log below it.
    pub fn snapshot(&mut self, now: Now) -> Vec<Output> {
        let Some(raft) = &self.raft else { return Vec::new() };
        let Some(high_watermark) = raft.high_watermark() else { return Vec::new() };
        let Some(last) = self.disk.log.iter().rev().find(|b| b.end <= high_watermark) else { return Vec::new() };
        let id = SnapshotId { end_offset: last.end, epoch: last.epoch };
        if self.disk.snapshots.contains_key(&id) {
            return Vec::new();
        }
        let mut records = Vec::new();
        if let Some(file) = self.disk.snapshots.values().next_back() {
            snapshot::read(file, |record| records.push(record.to_vec())).unwrap();
        }
        let covered = self.disk.snapshots.keys().next_back().map_or(Offset(0), |id| id.end_offset);
        for batch in self.disk.log.iter().filter(|b| b.base >= covered && b.end <= id.end_offset) {
            records.push([&batch.base.0.to_be_bytes()[..], &crc(&batch.bytes).to_be_bytes()].concat());
        }
        let time = TimestampMs(now.wall.0);
        let mut writer = SnapshotWriter::new(id, time, raft.history().membership_at(id.end_offset), time);
        records.iter().for_each(|record| writer.append(record, time));
        self.disk.snapshots.insert(id, writer.finish(time).concat().into());
        self.disk.log.retain(|batch| batch.base >= id.end_offset);
        self.disk.log_start = Offset0(id.end_offset);
        self.disk.snapshots.retain(|kept, _| *kept >= id);
        let mut outputs = self.step(Event::SnapshotCreated { id }, now);
        outputs.extend(self.step(Event::LogStartAdvanced { log_start_offset: id.end_offset }, now));
        outputs
    }

    /// Carries out effects in order; what the driver answers at once is stepped on the spot.
    fn run(&mut self, fx: Effects, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        let mut steps = VecDeque::from([fx]);
        while let Some(fx) = steps.pop_front() {
            let actions = match fx.into_step() {
                Step::Ready(actions) => actions,
                Step::PersistFirst(first) => {
                    // Through the file's own bytes, as after a restart.
                    let json = first.quorum_state.to_json();
                    self.disk.quorum_state = Some(QuorumState::from_json(json.as_bytes()).unwrap());
                    first.persisted()
                }
            };
            for action in actions {
                if let Some(event) = self.act(action, &mut outputs) {
                    let raft = self.raft.as_mut().expect("a running node");
                    steps.push_back(raft.step(event, now));
                }
            }
        }
        outputs
    }

    fn act(&mut self, action: Action, outputs: &mut Vec<Output>) -> Option<Event> {
        match action {
            Action::TruncateLog { to } => {
                self.disk.log.retain(|batch| batch.end <= to);
                assert_eq!(self.disk.end(), to, "truncation at a batch boundary");
                self.disk.durable_end = self.disk.durable_end.min(to.0);
                self.flushing = self.flushing.min(to.0);
            }
            Action::AppendLog { base_offset, end_offset, batches } => self.append(base_offset, end_offset, &batches),
            Action::FlushLog => {
                self.flushing = self.disk.end().0;
                outputs.push(Output::Flush);
            }
            Action::Send { to, token, request } => {
                outputs.push(Output::Send { to: NodeId(i32::from(to.endpoint.port) - 9000), token, request });
            }
            Action::Reply { token, response } => outputs.push(Output::Reply { token, response }),
            Action::ReadLog { token, from, max_bytes } => return Some(self.read_log(token, from, max_bytes)),
            Action::ReadSnapshot { token, id, position, max_bytes } => {
                let file = self.disk.snapshots.get(&id).ok_or(SnapshotReadError::NotFound);
                let result = file.and_then(|file| {
                    // Small pieces, so that a download takes several.
                    let end = (position as usize + (max_bytes as usize).min(100)).min(file.len());
                    let from = usize::try_from(position).ok().filter(|from| *from < file.len());
                    let from = from.ok_or(SnapshotReadError::PositionOutOfRange)?;
                    Ok(SnapshotChunk { size: file.len() as u64, bytes: file.slice(from..end) })
                });
                return Some(Event::SnapshotRead { token, result });
            }
            Action::WriteSnapshot { position, bytes, .. } => {
                self.disk.part.truncate(position as usize);
                assert_eq!(self.disk.part.len() as u64, position);
                self.disk.part.extend_from_slice(&bytes);
            }
            Action::FinishSnapshot { id } => return Some(self.finish_snapshot(id, outputs)),
            Action::AbandonSnapshot { .. } => self.disk.part.clear(),
            Action::HighWatermark(offset) => outputs.push(Output::Committed(offset)),
            Action::Role(role) if role.is_leader => outputs.push(Output::Leader(role.epoch)),
            Action::Role(_) | Action::Rebuilt => {}
            Action::Fatal(fault) => panic!("node {}: {fault}", self.id),
        }
        None
    }

    fn append(&mut self, base_offset: Offset, end_offset: Offset, batches: &Bytes) {
        assert_eq!(base_offset, self.disk.end());
        for batch in BatchIter::new(batches) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            assert_eq!(batch.header.base_offset, self.disk.end());
            self.disk.log.push(Batch {
                base: batch.header.base_offset,
                end: batch.header.next_offset(),
                epoch: batch.header.partition_leader_epoch,
                bytes: Bytes::copy_from_slice(batch.bytes),
            });
        }
        assert_eq!(end_offset, self.disk.end());
    }

    fn read_log(&self, token: ringlog_raft::ReadToken, from: Offset, max_bytes: u32) -> Event {
        let mut size = 0;
        let mut chunks = Vec::new();
        for batch in self.disk.log.iter().filter(|batch| batch.base >= from) {
            if size > 0 && size + batch.bytes.len() > max_bytes.min(600) as usize {
                break;
            }
            size += batch.bytes.len();
            chunks.push(batch.bytes.clone());
        }
        let result = if chunks.is_empty() { Err(ReadFailed) } else { Ok(chunks) };
        Event::LogRead { token, result }
    }

    fn finish_snapshot(&mut self, id: SnapshotId, outputs: &mut Vec<Output>) -> Event {
        let file = Bytes::from(std::mem::take(&mut self.disk.part));
        let summary = snapshot::read(&file, |_| {}).expect("a fetched snapshot is whole");
        let mut history = ControlHistory::new(self.static_voters.clone());
        history.load_snapshot(id, summary.kraft_version, summary.voters);
        self.disk.snapshots = BTreeMap::from([(id, file)]);
        self.disk.log.clear();
        self.disk.log_start = Offset0(id.end_offset);
        self.disk.durable_end = id.end_offset.0;
        outputs.push(Output::Downloaded(id));
        Event::SnapshotInstalled { id, result: Ok(Box::new(history)) }
    }
}

/// The checksum that tells batches apart.
pub fn crc(batch: &[u8]) -> u32 {
    u32::from_be_bytes(batch[17..21].try_into().unwrap())
}
