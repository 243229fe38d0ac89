//! A group coordinator whose records are kept by a simulated node: what it answered for survives crashes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringlog_coordinator::group::{
    Effects, GroupConfig, GroupCoordinator, RequestContext, Token, TopicView, Write, WriteToken,
};
use ringlog_log::validator::AppendOrigin;
use ringlog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringlog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ringlog_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use ringlog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringlog_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, BatchRef, Scratch};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, Offset, Random, Uuid};

use crate::bug::Bug;
use crate::runner::Stats;
use crate::world::{Appended, World};
use crate::{Violation, check, ensure, trace};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;
/// The group with members; the others are only committed to.
const CONSUMERS: &str = "consumers";
const GROUPS: [&str; 3] = [CONSUMERS, "one", "two"];

/// One topic.
struct Topics;

impl TopicView for Topics {
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        (name == TOPIC).then_some(Uuid([3; 16]))
    }

    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        (id == Uuid([3; 16])).then(|| TOPIC.into())
    }

    fn partition_count(&self, name: &str) -> i32 {
        if name == TOPIC { PARTITIONS } else { 0 }
    }
}

/// The offsets committed to one partition by one group.
#[derive(Debug, Clone, Copy, Default)]
struct Commits {
    /// The last one that was answered.
    answered: i64,
    sent: i64,
}

/// What a consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Waiting,
    Consuming,
}

#[derive(Debug)]
struct Member {
    id: StrBytes,
    generation: i32,
    doing: Doing,
}

/// Whose answer it is.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Commit { group: &'static str, partition: i32, offset: i64, member: Option<usize> },
    Join(usize),
    Sync(usize),
    Heartbeat(usize),
}

/// The node, its coordinator and the group's clients.
pub(crate) struct GroupWorld {
    world: World,
    coordinator: GroupCoordinator,
    random: Random,
    /// Appended and not committed.
    pending: VecDeque<(WriteToken, Offset)>,
    asked: BTreeMap<Token, Asked>,
    next_token: u64,
    commits: BTreeMap<(&'static str, i32), Commits>,
    members: Vec<Member>,
    /// The last generation whose assignment somebody got.
    synced_generation: i32,
    stats: Stats,
}

impl GroupWorld {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Result<GroupWorld, Violation> {
        let nobody = || Member { id: StrBytes::default(), generation: -1, doing: Doing::Nothing };
        let mut groups = GroupWorld {
            world: World::new(seed, bug, 0)?,
            coordinator: GroupCoordinator::new(GroupConfig::default(), 0),
            random: Random::from_seed(seed ^ 0x6772_6f75),
            pending: VecDeque::new(),
            asked: BTreeMap::new(),
            next_token: 0,
            commits: BTreeMap::new(),
            members: (0..3).map(|_| nobody()).collect(),
            synced_generation: 0,
            stats: Stats::default(),
        };
        groups.load()?;
        Ok(groups)
    }

    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        if self.world.step()? {
            return self.load();
        }
        self.on_progress()?;
        if self.coordinator.next_deadline().is_some_and(|deadline| deadline <= self.world.now.monotonic) {
            let effects = self.coordinator.on_tick(self.world.now);
            self.carry_out(effects)?;
        }
        match self.random.below(12) {
            0 => self.commit_without_members(),
            1 | 2 => {
                let who = self.random.below(self.members.len() as u64) as usize;
                self.go_on(who)
            }
            _ => Ok(()),
        }
    }

    /// Stops in order and looks once more.
    pub(crate) fn finish(mut self) -> Result<Stats, Violation> {
        self.world.stop_in_order()?;
        self.load()?;
        self.stats.add(&self.world.stats);
        Ok(self.stats)
    }

    /// The node started: a new coordinator reads the log. Whoever waited for an answer will never get one.
    fn load(&mut self) -> Result<(), Violation> {
        self.pending.clear();
        self.asked.clear();
        for member in self.members.iter_mut().filter(|member| member.doing == Doing::Waiting) {
            member.doing = Doing::Nothing;
        }
        self.coordinator = GroupCoordinator::new(GroupConfig::default(), self.random.next_u64());
        let mut scratch = Scratch::new(1 << 20);
        for placed in check::read_segments(&self.world.disk)?.values().flatten() {
            let batch = BatchRef::parse(&placed.bytes).map_err(|fault| fault.to_string())?;
            for record in batch.records(&mut scratch).map_err(|fault| fault.to_string())? {
                let record = record.map_err(|fault| fault.to_string())?;
                let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                let note = self.coordinator.replay_record(copy(record.key), copy(record.value), None);
                ensure!(note == Ok(None), "the record at {} can't be loaded: {note:?}", record.offset);
            }
        }
        let effects = self.coordinator.finish_loading(self.world.now);
        self.carry_out(effects)?;
        self.check_commits()
    }

    /// What was answered for is there, or something that was sent later.
    fn check_commits(&mut self) -> Result<(), Violation> {
        for ((group, partition), mut commits) in self.commits.clone() {
            let topic = OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![partition] };
            let request =
                OffsetFetchRequest { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
            let token = self.next_token();
            let effects = self.coordinator.handle(request.into(), &context(token, 7), self.world.now, &Topics);
            let Some((_, ResponseBody::OffsetFetch(response))) = effects.replies.into_iter().next() else {
                return Err("OffsetFetch isn't answered".to_owned());
            };
            let found = response.topics.first().and_then(|topic| topic.partitions.first());
            let found = found.map_or(-1, |partition| partition.committed_offset).max(0);
            let Commits { answered, sent } = commits;
            let is_one = (answered..=sent).contains(&found);
            ensure!(is_one, "{group} has {found} for partition {partition}, not one of {answered} to {sent}");
            // It can be read now.
            commits.answered = found;
            self.commits.insert((group, partition), commits);
        }
        Ok(())
    }

    fn on_progress(&mut self) -> Result<(), Violation> {
        while let Some((token, end_offset)) = self.pending.front().copied() {
            if self.world.partition.high_watermark() < end_offset {
                break;
            }
            self.pending.pop_front();
            let effects = self.coordinator.on_written(token, self.world.now);
            self.carry_out(effects)?;
        }
        Ok(())
    }

    fn next_token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn ask(&mut self, request: impl Into<RequestBody>, version: i16, asked: Asked) -> Result<(), Violation> {
        let token = self.next_token();
        trace::note(|| format!("{asked:?}"));
        self.asked.insert(token, asked);
        let effects = self.coordinator.handle(request.into(), &context(token, version), self.world.now, &Topics);
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Effects) -> Result<(), Violation> {
        let mut work = VecDeque::from([effects]);
        while let Some(effects) = work.pop_front() {
            for (token, response) in effects.replies {
                self.on_answer(token, response)?;
            }
            for write in effects.writes {
                let token = write.token;
                let end_offset = self.append(&write)?;
                if self.world.bug == Some(Bug::AnswerCommitsEarly) {
                    work.push_back(self.coordinator.on_written(token, self.world.now));
                } else {
                    self.pending.push_back((token, end_offset));
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, write: &Write) -> Result<Offset, Violation> {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in &write.records {
            batch.append(self.world.now.wall, Some(&record.key), record.value.as_deref(), &[]);
        }
        match self.world.append(&batch.build(), AppendOrigin::Coordinator) {
            Ok(Appended::New { end_offset, .. }) => Ok(end_offset),
            Ok(Appended::Again { .. }) => Err("group state is taken for a duplicate".to_owned()),
            Err(error) => Err(format!("group state is refused: {error}")),
        }
    }

    fn commit_without_members(&mut self) -> Result<(), Violation> {
        let group = GROUPS[1 + self.random.below(2) as usize];
        self.commit(group, None)
    }

    fn commit(&mut self, group: &'static str, member: Option<usize>) -> Result<(), Violation> {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        let commits = self.commits.entry((group, partition)).or_default();
        commits.sent += 1;
        let offset = commits.sent;
        let (member_id, generation) = match member {
            Some(who) => (self.members[who].id.clone(), self.members[who].generation),
            None => (StrBytes::default(), -1),
        };
        let of_partition =
            OffsetCommitRequestPartition { partition_index: partition, committed_offset: offset, ..Default::default() };
        let of_topic =
            OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![of_partition], ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: generation,
            member_id,
            topics: vec![of_topic],
            ..Default::default()
        };
        self.ask(request, 8, Asked::Commit { group, partition, offset, member })
    }

    /// A consumer does what comes next for it.
    fn go_on(&mut self, who: usize) -> Result<(), Violation> {
        match self.members[who].doing {
            Doing::Waiting => Ok(()),
            Doing::Nothing => {
                self.members[who].doing = Doing::Waiting;
                let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() };
                let request = JoinGroupRequest {
                    group_id: CONSUMERS.into(),
                    session_timeout_ms: 30_000,
                    rebalance_timeout_ms: 20_000,
                    member_id: self.members[who].id.clone(),
                    protocol_type: "consumer".into(),
                    protocols: vec![protocol],
                    ..Default::default()
                };
                self.ask(request, 9, Asked::Join(who))
            }
            Doing::Consuming if self.random.below(2) == 0 => self.commit(CONSUMERS, Some(who)),
            Doing::Consuming => {
                let request = HeartbeatRequest {
                    group_id: CONSUMERS.into(),
                    generation_id: self.members[who].generation,
                    member_id: self.members[who].id.clone(),
                    ..Default::default()
                };
                self.ask(request, 4, Asked::Heartbeat(who))
            }
        }
    }

    fn on_answer(&mut self, token: Token, response: ResponseBody) -> Result<(), Violation> {
        let asked = self.asked.remove(&token).ok_or_else(|| format!("{token:?} is answered twice"))?;
        match (asked, response) {
            (Asked::Commit { group, partition, offset, member }, ResponseBody::OffsetCommit(response)) => {
                let code = response.topics[0].partitions[0].error_code;
                if code == 0 {
                    self.stats.commits += 1;
                    let commits = self.commits.entry((group, partition)).or_default();
                    commits.answered = commits.answered.max(offset);
                } else if let Some(who) = member {
                    self.rejoin(who, code);
                }
                Ok(())
            }
            (Asked::Heartbeat(who), ResponseBody::Heartbeat(response)) => {
                self.rejoin(who, response.error_code);
                Ok(())
            }
            (Asked::Join(who), ResponseBody::JoinGroup(response)) => self.on_joined(who, response),
            (Asked::Sync(who), ResponseBody::SyncGroup(response)) => {
                self.members[who].doing = Doing::Consuming;
                if response.error_code == 0 {
                    self.stats.rebalances += 1;
                    self.synced_generation = self.synced_generation.max(self.members[who].generation);
                }
                self.rejoin(who, response.error_code);
                Ok(())
            }
            (asked, response) => Err(format!("{asked:?} is answered with {response:?}")),
        }
    }

    fn on_joined(&mut self, who: usize, response: JoinGroupResponse) -> Result<(), Violation> {
        let member = &mut self.members[who];
        member.doing = Doing::Nothing;
        if response.error_code == ErrorCode::MemberIdRequired.code() {
            member.id = response.member_id;
            return Ok(());
        }
        if response.error_code != 0 {
            self.rejoin(who, response.error_code);
            return Ok(());
        }
        let generation = response.generation_id;
        let synced = self.synced_generation;
        ensure!(generation >= synced, "generation {generation} follows {synced}, which had its assignment");
        member.generation = generation;
        member.doing = Doing::Waiting;
        let assignment = |id: &StrBytes| SyncGroupRequestAssignment {
            member_id: id.clone(),
            assignment: Bytes::from_static(b"everything"),
        };
        let request = SyncGroupRequest {
            group_id: CONSUMERS.into(),
            generation_id: generation,
            member_id: member.id.clone(),
            protocol_type: response.protocol_type.clone(),
            protocol_name: response.protocol_name.clone(),
            assignments: response.members.iter().map(|member| assignment(&member.member_id)).collect(),
            ..Default::default()
        };
        self.ask(request, 5, Asked::Sync(who))
    }

    fn rejoin(&mut self, who: usize, code: i16) {
        let member = &mut self.members[who];
        if code != 0 {
            member.doing = Doing::Nothing;
        }
        if code == ErrorCode::UnknownMemberId.code() {
            member.id = StrBytes::default();
        }
    }
}

fn context(token: Token, api_version: i16) -> RequestContext {
    RequestContext { token, api_version, client_id: "client".into(), client_host: "/10.0.0.1".into() }
}
