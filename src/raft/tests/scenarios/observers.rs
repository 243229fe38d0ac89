//! A leader of whom thousands of brokers ask for metadata.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::FetchRequest;
use ringlog_raft::{Action, Effects, Event, QuorumState, QuorumStateVersion, Raft, RaftConfig, ReplyToken};
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random};

use super::node::{LOG, actions_of, ask, at, config, done, elected, empty, endpoint, fetch_of, start};

/// A single voter that leads.
fn leader(config: RaftConfig) -> Raft {
    let (mut raft, _) = start(config, empty(&[1]));
    let _ = raft.step(Event::LogFlushed, at(1));
    raft
}

/// What an idle broker asks: it has all and knows so.
fn idle_fetch(id: i32, offset: Offset) -> FetchRequest {
    let mut request = fetch_of(id, 7, 1, offset.0, 1);
    request.max_wait_ms = 500;
    request.max_bytes = 1_000_000;
    request.topics[0].partitions[0].high_watermark = offset.0;
    request
}

fn request(raft: &mut Raft, token: u64, request: FetchRequest, now: Now) -> Effects {
    let (listener, request) = ("CONTROLLER".to_owned(), request.into());
    raft.step(Event::Request { token: ReplyToken(token), listener, api_version: 18, request }, now)
}

/// What happened in a run.
#[derive(Debug, Default)]
struct Count {
    answers: u64,
    reads: u64,
    most_actions_in_a_step: usize,
}

/// Brokers that ask again a millisecond after they were answered, and a leader that writes a record twice a second.
struct Cluster {
    raft: Raft,
    now: u64,
    count: Count,
    /// Who asks next, by time.
    asks: BTreeMap<u64, Vec<i32>>,
    /// Who asked, by token.
    open: BTreeMap<u64, i32>,
    next_token: u64,
}

impl Cluster {
    fn take(&mut self, fx: Effects) {
        let actions = actions_of(fx);
        self.count.most_actions_in_a_step = self.count.most_actions_in_a_step.max(actions.len());
        for action in actions {
            match action {
                Action::FlushLog => {
                    let fx = self.raft.step(Event::LogFlushed, at(self.now));
                    self.take(fx);
                }
                Action::ReadLog { token, .. } => {
                    self.count.reads += 1;
                    let result = Ok(vec![Bytes::from_static(&[0; 90])]);
                    let fx = self.raft.step(Event::LogRead { token, result }, at(self.now));
                    self.take(fx);
                }
                Action::Reply { token, response } => self.on_answer(token, &response),
                _ => {}
            }
        }
    }

    fn on_answer(&mut self, token: ReplyToken, response: &ResponseBody) {
        let ResponseBody::Fetch(response) = response else { panic!("{response:?}") };
        assert_eq!(response.responses[0].partitions[0].error_code, 0);
        let broker = self.open.remove(&token.0).expect("each is answered once");
        self.count.answers += 1;
        self.asks.entry(self.now + 1).or_default().push(broker);
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            for broker in self.asks.remove(&self.now).unwrap_or_default() {
                let offset = self.raft.high_watermark().expect("it is led");
                self.next_token += 1;
                self.open.insert(self.next_token, broker);
                let fx = request(&mut self.raft, self.next_token, idle_fetch(broker, offset), at(self.now));
                self.take(fx);
            }
            if self.now.is_multiple_of(500) {
                let (_, fx) = self.raft.propose(LeaderEpoch(1), &[Bytes::from_static(b"x")], at(self.now)).unwrap();
                self.take(fx);
            }
            while self.raft.next_deadline().is_some_and(|due| due <= MonotonicMs(self.now)) {
                let fx = self.raft.step(Event::Tick, at(self.now));
                self.take(fx);
            }
            self.now += 1;
        }
    }
}

#[test]
fn thousands_of_idle_brokers_are_answered_twice_a_second_and_share_their_reads() {
    const BROKERS: i32 = 5_000;
    let asks = BTreeMap::from([(100, (10..10 + BROKERS).collect())]);
    let raft = leader(config(1));
    let (count, open) = (Count::default(), BTreeMap::new());
    let mut cluster = Cluster { raft, now: 100, count, asks, open, next_token: 0 };
    cluster.run(1_000);
    cluster.count = Count::default();
    cluster.run(10_000);
    let Count { answers, reads, most_actions_in_a_step } = cluster.count;
    // A record each half second, and one answer for records and high watermark together.
    let waves = 20;
    assert!((answers / BROKERS as u64).abs_diff(waves) <= 1, "{answers} answers");
    // A portion of answers per step, and a read for each.
    assert!(reads <= (waves + 1) * (BROKERS as u64 / 256 + 1), "{reads} reads");
    assert!(most_actions_in_a_step <= 260, "{most_actions_in_a_step} in one step");
    assert_eq!(cluster.open.len(), BROKERS as usize, "all wait");
}

#[test]
fn at_the_bound_brokers_wait_less_and_nobody_is_forgotten() {
    let raft = leader(RaftConfig { max_parked_fetches: 8, ..config(1) });
    let asks = BTreeMap::from([(100, (10..30).collect())]);
    let (count, open) = (Count::default(), BTreeMap::new());
    let mut cluster = Cluster { raft, now: 100, count, asks, open, next_token: 0 };
    cluster.run(100);
    let waiting = |cluster: &Cluster| cluster.open.len();
    assert_eq!(waiting(&cluster), 8);
    assert_eq!(cluster.asks.values().map(Vec::len).sum::<usize>(), 12, "the others were answered, and ask again");
    cluster.run(5_000);
    assert_eq!(waiting(&cluster), 8);
}

#[test]
fn a_voter_gets_records_at_once_and_all_are_told_when_the_leader_resigns() {
    let mut raft = elected(&[1, 2, 3]);
    let _ = request(&mut raft, 1, fetch_of(2, 2, 1, 1, 1), at(5_010));
    assert_eq!(raft.high_watermark(), Some(Offset(1)));
    let mut voter = idle_fetch(3, Offset(1));
    voter.topics[0].partitions[0].replica_directory_id = ringlog_types::Uuid([3; 16]);
    assert!(actions_of(request(&mut raft, 2, voter, at(5_011))).is_empty());
    assert!(actions_of(request(&mut raft, 3, idle_fetch(9, Offset(1)), at(5_012))).is_empty());
    let (_, fx) = raft.propose(LeaderEpoch(1), &[Bytes::from_static(b"x")], at(5_013)).unwrap();
    let reads = actions_of(fx).into_iter().filter(|action| matches!(action, Action::ReadLog { .. })).count();
    assert_eq!(reads, 1, "for the voter alone");
    let fx = raft.step(Event::Resign { epoch: LeaderEpoch(1) }, at(5_014));
    let told = actions_of(fx).into_iter().filter_map(|action| match action {
        Action::Reply { token, response } => Some((token, *response)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(matches!(&told[..], [(ReplyToken(3), ResponseBody::Fetch(_))]), "{told:?}");
}

#[test]
fn a_broker_that_remembers_its_leader_by_name_alone_tells_where_it_listens_once_it_hears() {
    // Its log went with the power, and with it the voters; quorum-state is there.
    let mut loaded = empty(&[]);
    let leader_id = Some(NodeId(1));
    let version = QuorumStateVersion::V1;
    loaded.quorum_state = Some(QuorumState { epoch: LeaderEpoch(1), leader_id, voted: None, version });
    let own = RaftConfig { is_controller: false, bootstrap_servers: vec![endpoint(1)], ..config(5) };
    let (mut broker, fx) = Raft::new(own, loaded, Random::from_seed(1), at(0));
    let mut actions = actions_of(fx);
    let is_role = |action: &Action| matches!(action, Action::Role(role) if role.leader_id == leader_id);
    assert!(actions.iter().any(is_role), "{actions:?}");
    assert_eq!(broker.leader_endpoint(), None);
    actions.extend(actions_of(broker.step(Event::Tick, at(1))));
    let asked = actions.into_iter().find_map(|action| match action {
        Action::Send { token, request, .. } => Some((token, *request)),
        _ => None,
    });
    let (token, asked) = asked.expect("it asks who leads");
    let mut leader = leader(config(1));
    let read = ask(&mut leader, asked, at(10)).reads.into_iter().find_map(|action| match action {
        Action::ReadLog { token, .. } => Some(token),
        _ => None,
    });
    let result = Ok(vec![Bytes::from_static(LOG)]);
    let fx = leader.step(Event::LogRead { token: read.expect("the leader reads its log"), result }, at(10));
    let answer = done(fx).reply.expect("an answer");
    let told = actions_of(broker.step(Event::Response { token, result: Ok(answer) }, at(11)));
    assert_eq!(broker.leader_endpoint(), Some(&endpoint(1)));
    assert!(told.iter().any(is_role), "who forwards to the leader doesn't hear where it is: {told:?}");
}
