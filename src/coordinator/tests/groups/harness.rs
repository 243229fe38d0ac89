//! A coordinator with a log that writes at once or when told, a clock, and callers that note their answers.

use std::collections::{BTreeMap, VecDeque};

use ringlog_coordinator::group::{
    Effects, GroupConfig, GroupCoordinator, LogRecord, RequestContext, Token, TopicView, TransactionalProducer, Write,
};
use ringlog_protocol::consumer_protocol::ConsumerProtocolSubscription;
use ringlog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringlog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringlog_protocol::messages::*;
use ringlog_protocol::{Message, RequestBody, ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, MonotonicMs, Now, TimestampMs, Uuid};

pub const ORDERS: Uuid = Uuid([1; 16]);
pub const CLICKS: Uuid = Uuid([2; 16]);

/// Two topics.
pub struct Topics;

impl TopicView for Topics {
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        match name {
            "orders" => Some(ORDERS),
            "clicks" => Some(CLICKS),
            _ => None,
        }
    }

    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        match id {
            ORDERS => Some("orders".into()),
            CLICKS => Some("clicks".into()),
            _ => None,
        }
    }

    fn partition_count(&self, name: &str) -> i32 {
        if self.topic_id(name).is_some() { 16 } else { 0 }
    }
}

pub struct Harness {
    pub coordinator: GroupCoordinator,
    pub config: GroupConfig,
    pub now: Now,
    /// Whether writes are done at once.
    pub writes_at_once: bool,
    pub under_way: VecDeque<Write>,
    pub log: Vec<(LogRecord, Option<TransactionalProducer>)>,
    pub replies: BTreeMap<Token, ResponseBody>,
    next_token: u64,
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::copy_from(text)
}

impl Harness {
    pub fn new() -> Harness {
        Harness::with(GroupConfig::default())
    }

    pub fn with(config: GroupConfig) -> Harness {
        let mut harness = Harness {
            coordinator: GroupCoordinator::new(config.clone(), 1),
            config,
            now: Now { monotonic: MonotonicMs(1_000), wall: TimestampMs(1_700_000_000_000) },
            writes_at_once: true,
            under_way: VecDeque::new(),
            log: Vec::new(),
            replies: BTreeMap::new(),
            next_token: 0,
        };
        let effects = harness.coordinator.finish_loading(harness.now);
        harness.take(effects);
        harness
    }

    fn take(&mut self, effects: Effects) {
        for (token, body) in effects.replies {
            assert!(self.replies.insert(token, body).is_none(), "{token:?} is answered twice");
        }
        self.under_way.extend(effects.writes);
        if self.writes_at_once {
            self.finish_writes();
        }
    }

    pub fn finish_writes(&mut self) {
        while let Some(write) = self.under_way.pop_front() {
            self.log.extend(write.records.into_iter().map(|record| (record, write.producer)));
            let effects = self.coordinator.on_written(write.token, self.now);
            self.take(effects);
        }
    }

    pub fn fail_writes(&mut self, error: ErrorCode) {
        while let Some(write) = self.under_way.pop_front() {
            let effects = self.coordinator.on_write_failed(write.token, error, self.now);
            self.take(effects);
        }
    }

    pub fn send(&mut self, request: impl Into<RequestBody>, api_version: i16) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        let context = RequestContext { token, api_version, client_id: text("client"), client_host: text("/10.0.0.1") };
        let effects = self.coordinator.handle(request.into(), &context, self.now, &Topics);
        self.take(effects);
        token
    }

    /// Sends what is answered at once.
    pub fn call<R: TryFrom<ResponseBody>>(&mut self, request: impl Into<RequestBody>, api_version: i16) -> R {
        let token = self.send(request, api_version);
        self.answer(token).expect("an answer")
    }

    pub fn answer<R: TryFrom<ResponseBody>>(&mut self, token: Token) -> Option<R> {
        self.replies.remove(&token).map(|body| R::try_from(body).ok().expect("the request's own response"))
    }

    /// Lets time pass, with every deadline on its way.
    pub fn pass_ms(&mut self, ms: u64) {
        let end = self.now.monotonic.plus_ms(ms);
        loop {
            let next = self.coordinator.next_deadline().filter(|next| *next <= end);
            let step = next.unwrap_or(end).max(self.now.monotonic);
            self.now.wall.0 += i64::try_from(step.since_ms(self.now.monotonic)).unwrap();
            self.now.monotonic = step;
            let effects = self.coordinator.on_tick(self.now);
            self.take(effects);
            if next.is_none() {
                return;
            }
        }
    }

    pub fn apply(&mut self, act: impl FnOnce(&mut GroupCoordinator, Now) -> Effects) {
        let effects = act(&mut self.coordinator, self.now);
        self.take(effects);
    }

    /// Another coordinator that reads this one's log.
    pub fn fail_over(&mut self) {
        self.coordinator = GroupCoordinator::new(self.config.clone(), 2);
        self.under_way.clear();
        for (record, producer) in self.log.clone() {
            let note = self.coordinator.replay_record(Some(record.key), record.value, producer).unwrap();
            assert_eq!(note, None);
        }
        let effects = self.coordinator.finish_loading(self.now);
        self.take(effects);
    }

    pub fn state(&mut self, group: &str) -> String {
        self.describe(group).group_state.to_string()
    }

    pub fn describe(&mut self, group: &str) -> describe_groups_response::DescribedGroup {
        let request = DescribeGroupsRequest { groups: vec![text(group)], ..Default::default() };
        self.call::<DescribeGroupsResponse>(request, 6).groups.remove(0)
    }

    /// Joins as KIP-394 has it: asks for an id first. Returns the id and the token of the join that waits.
    pub fn join_new(&mut self, group: &str) -> (StrBytes, Token) {
        let answer: JoinGroupResponse = self.call(join(group, ""), 9);
        assert_eq!(answer.error_code, ErrorCode::MemberIdRequired.code());
        let token = self.send(join(group, &answer.member_id), 9);
        (answer.member_id, token)
    }

    /// A stable group of `count` members. The first leads.
    pub fn stable(&mut self, group: &str, count: usize) -> Vec<StrBytes> {
        let joins: Vec<(StrBytes, Token)> = (0..count).map(|_| self.join_new(group)).collect();
        self.pass_ms(10_000);
        let answers: Vec<JoinGroupResponse> =
            joins.iter().map(|(_, token)| self.answer(*token).expect("the join is complete")).collect();
        let (leaders, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.member_id == answer.leader);
        assert_eq!(leaders.len(), 1);
        let mut members = vec![leaders[0].member_id.clone()];
        members.extend(others.iter().map(|answer| answer.member_id.clone()));
        self.sync_all(group, answers[0].generation_id, &members);
        members
    }

    /// Every member syncs, the first with assignments that name each member.
    pub fn sync_all(&mut self, group: &str, generation: i32, members: &[StrBytes]) {
        let mut waiting = Vec::new();
        for member in members.iter().skip(1) {
            waiting.push((member.clone(), self.send(sync(group, generation, member, &[]), 5)));
        }
        waiting.push((members[0].clone(), self.send(sync(group, generation, &members[0], members), 5)));
        for (member, token) in waiting {
            let answer: SyncGroupResponse = self.answer(token).expect("an assignment");
            assert_eq!(answer.error_code, 0);
            assert_eq!(answer.assignment, format!("for {member}").into_bytes());
        }
    }

    pub fn heartbeat(&mut self, group: &str, generation: i32, member: &StrBytes) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: text(group),
            generation_id: generation,
            member_id: member.clone(),
            ..Default::default()
        };
        ErrorCode::from_code(self.call::<HeartbeatResponse>(request, 4).error_code).unwrap()
    }

    pub fn leave(&mut self, group: &str, member: &StrBytes) -> i16 {
        let request = LeaveGroupRequest {
            group_id: text(group),
            members: vec![leave_group_request::MemberIdentity { member_id: member.clone(), ..Default::default() }],
            ..Default::default()
        };
        self.call::<LeaveGroupResponse>(request, 5).members[0].error_code
    }
}

pub fn subscription(topics: &[&str]) -> bytes::Bytes {
    let subscription =
        ConsumerProtocolSubscription { topics: topics.iter().map(|topic| text(topic)).collect(), ..Default::default() };
    let mut bytes = vec![0, 1];
    bytes.extend_from_slice(&subscription.to_bytes(1).unwrap());
    bytes.into()
}

/// A JoinGroup of a consumer of `orders` with the assignors range and sticky, sessions of 10 s and rebalances of 60 s.
pub fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = |name: &str| JoinGroupRequestProtocol { name: text(name), metadata: subscription(&["orders"]) };
    JoinGroupRequest {
        group_id: text(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: text(member),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range"), protocol("sticky")],
        ..Default::default()
    }
}

pub fn join_static(group: &str, member: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(text(instance)), ..join(group, member) }
}

pub fn sync(group: &str, generation: i32, member: &StrBytes, members: &[StrBytes]) -> SyncGroupRequest {
    let assignments = members.iter().map(|member| SyncGroupRequestAssignment {
        member_id: member.clone(),
        assignment: format!("for {member}").into_bytes().into(),
    });
    SyncGroupRequest {
        group_id: text(group),
        generation_id: generation,
        member_id: member.clone(),
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        assignments: assignments.collect(),
        ..Default::default()
    }
}
