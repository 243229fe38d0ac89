//! Random sequences of requests, failures and time: nothing panics, nobody waits for ever, and what was written is
//! what another coordinator reads.

use ringlog_coordinator::group::{GroupConfig, Token};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::*;
use ringlog_types::{ErrorCode, ProducerId, Random};

use crate::harness::{Harness, join, sync, text};

struct Run {
    harness: Harness,
    random: Random,
    members: Vec<StrBytes>,
    asked: Vec<Token>,
    /// Whether writes fail at times.
    fails: bool,
}

impl Run {
    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.random.below(count as u64)).unwrap()
    }

    fn group(&mut self) -> &'static str {
        ["a", "b", ""][self.pick(9).saturating_sub(6)]
    }

    fn member(&mut self) -> StrBytes {
        if self.members.is_empty() || self.pick(12) == 0 {
            return StrBytes::default();
        }
        let index = self.pick(self.members.len());
        self.members[index].clone()
    }

    fn generation(&mut self) -> i32 {
        i32::try_from(self.pick(12)).unwrap() - 1
    }

    fn ask(&mut self, request: impl Into<ringlog_protocol::RequestBody>, version: i16) {
        let token = self.harness.send(request, version);
        self.asked.push(token);
    }

    fn step(&mut self) {
        let group = self.group();
        let member = self.member();
        let generation = self.generation();
        match self.pick(16) {
            0..=3 => {
                let instance = [None, None, Some("i"), Some("j")][self.pick(4)];
                let request = JoinGroupRequest { group_instance_id: instance.map(text), ..join(group, &member) };
                let version = [0, 3, 5, 8, 9][self.pick(5)];
                self.ask(request, version);
            }
            4..=6 => {
                let all = self.members.clone();
                self.ask(sync(group, generation, &member, &all), 5);
            }
            7 => {
                let request = HeartbeatRequest {
                    group_id: text(group),
                    generation_id: generation,
                    member_id: member,
                    ..Default::default()
                };
                self.ask(request, 4);
            }
            8 => {
                let identity = leave_group_request::MemberIdentity { member_id: member, ..Default::default() };
                let request =
                    LeaveGroupRequest { group_id: text(group), members: vec![identity], ..Default::default() };
                self.ask(request, 5);
            }
            9 | 10 => {
                use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
                let partition = OffsetCommitRequestPartition {
                    partition_index: generation,
                    committed_offset: 1,
                    ..Default::default()
                };
                let topic = OffsetCommitRequestTopic {
                    name: "orders".into(),
                    partitions: vec![partition],
                    ..Default::default()
                };
                let request = OffsetCommitRequest {
                    group_id: text(group),
                    generation_id_or_member_epoch: generation,
                    member_id: member,
                    topics: vec![topic],
                    ..Default::default()
                };
                self.ask(request, 9);
            }
            11 => self.ask(DeleteGroupsRequest { groups_names: vec![text(group)] }, 2),
            12 => self.harness.finish_writes(),
            13 if self.fails => {
                let error = [ErrorCode::NotEnoughReplicas, ErrorCode::MessageTooLarge][self.pick(2)];
                self.harness.fail_writes(error);
            }
            14 => {
                let ms = self.random.below(20_000);
                self.harness.pass_ms(ms);
            }
            _ => self.harness.coordinator.replay_end_transaction(ProducerId(1), true),
        }
        self.learn();
    }

    /// Notes the ids that answers carry, so that later requests make sense.
    fn learn(&mut self) {
        for body in self.harness.replies.values() {
            if let ringlog_protocol::ResponseBody::JoinGroup(answer) = body
                && !answer.member_id.is_empty()
                && !self.members.contains(&answer.member_id)
            {
                self.members.push(answer.member_id.clone());
            }
        }
        while self.members.len() > 8 {
            self.members.remove(0);
        }
    }
}

#[test]
fn everybody_is_answered_and_the_log_tells_the_same() {
    for seed in 0..200 {
        let config = GroupConfig { max_group_size: 4, ..GroupConfig::default() };
        let mut run = Run {
            harness: Harness::with(config),
            random: Random::from_seed(seed),
            members: Vec::new(),
            asked: Vec::new(),
            fails: seed % 2 == 1,
        };
        run.harness.writes_at_once = false;
        for _ in 0..300 {
            run.step();
        }
        run.harness.writes_at_once = true;
        run.harness.finish_writes();
        // New members may wait for five minutes, then the rest for a rebalance each.
        run.harness.pass_ms(1_200_000);
        for token in &run.asked {
            assert!(run.harness.replies.contains_key(token), "seed {seed}: {token:?} is not answered");
        }
        let before = snapshot(&mut run.harness);
        run.harness.fail_over();
        // A group whose record could not be written is known in memory only, as in Kafka; offsets never.
        let after = snapshot(&mut run.harness);
        assert_eq!(after.1, before.1, "seed {seed}");
        if !run.fails {
            assert_eq!(after.0, before.0, "seed {seed}");
        }
    }
}

/// What the groups and their offsets are, as far as it outlasts a move.
fn snapshot(harness: &mut Harness) -> (Vec<String>, Vec<String>) {
    let (mut groups, mut offsets) = (Vec::new(), Vec::new());
    for group in ["a", "b", ""] {
        let described = harness.describe(group);
        groups.push(format!("{group} {} {}", described.group_state, described.protocol_type));
        let ask =
            offset_fetch_request::OffsetFetchRequestGroup { group_id: text(group), topics: None, ..Default::default() };
        let fetched: OffsetFetchResponse =
            harness.call(OffsetFetchRequest { groups: vec![ask], ..Default::default() }, 9);
        offsets.push(format!("{:?}", fetched.groups));
    }
    (groups, offsets)
}
