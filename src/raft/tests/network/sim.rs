//! Time, network, faults and the checks.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::messages::{ApiVersionsResponse, RemoveRaftVoterRequest, api_versions_response};
use ringlog_protocol::{Decoder, Encoder, RequestBody, ResponseBody, StrBytes};
use ringlog_raft::{
    Endpoints, Event, ReplicaKey, ReplyToken, RequestToken, SendError, SnapshotId, VersionRange, Voter, VoterSet,
    snapshot,
};
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid};

use crate::node::{Disk, Node, Output, crc, endpoint};

/// How often what goes wrong: mean milliseconds between events for processes, percent for messages. 0: never.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    pub max_delay_ms: u64,
    pub crash: u64,
    pub partition: u64,
    pub snapshot: u64,
    /// Longest time that a flush takes.
    pub max_flush_ms: u64,
    /// Longest time that a crashed node stays away.
    pub max_restart_ms: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        loss_percent: 0,
        duplicate_percent: 0,
        max_delay_ms: 3,
        crash: 0,
        partition: 0,
        snapshot: 0,
        max_flush_ms: 8,
        max_restart_ms: 1,
    };
    pub const ALL: Faults = Faults {
        loss_percent: 5,
        duplicate_percent: 5,
        max_delay_ms: 40,
        crash: 6000,
        partition: 5000,
        snapshot: 3000,
        max_flush_ms: 8,
        max_restart_ms: 4000,
    };
    /// Elections all the time, votes and records that were just given are lost if they were not durable.
    pub const HARSH: Faults = Faults {
        loss_percent: 10,
        duplicate_percent: 10,
        max_delay_ms: 150,
        crash: 500,
        partition: 1500,
        snapshot: 0,
        max_flush_ms: 200,
        max_restart_ms: 60,
    };
}

#[derive(Debug, Clone)]
enum Parcel {
    Request { from: (NodeId, u64), token: RequestToken, request: RequestBody },
    Response { incarnation: u64, token: RequestToken, response: Result<ResponseBody, SendError> },
    Flushed { incarnation: u64 },
    Restart,
}

pub struct Sim {
    pub faults: Faults,
    pub downloads: usize,
    seed: u64,
    now_ms: u64,
    random: Random,
    nodes: BTreeMap<NodeId, Node>,
    queue: BTreeMap<(u64, u64), (NodeId, Parcel)>,
    next_parcel: u64,
    /// Open requests by the node that has to answer.
    open: BTreeMap<(NodeId, ReplyToken), (NodeId, u64, RequestToken)>,
    next_reply: u64,
    cut_off: Option<NodeId>,
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    /// What is committed, by base offset: end and checksum of the batch.
    committed: BTreeMap<i64, (i64, u32)>,
    high_watermarks: BTreeMap<NodeId, (u64, Offset)>,
}

impl Sim {
    pub fn new(seed: u64, voters: i32, observers: i32) -> Sim {
        let static_voters =
            VoterSet::from_static("CONTROLLER", (1..=voters).map(|id| (NodeId(id), endpoint(id)))).unwrap();
        let node = |id| (NodeId(id), Node::new(id, id <= voters, static_voters.clone(), Disk::default()));
        Sim::with_nodes(seed, (1..=voters + observers).map(node).collect())
    }

    /// A dynamic quorum: node 1 was formatted as its only voter, the others join by themselves.
    pub fn dynamic(seed: u64, controllers: i32) -> Sim {
        let mut nodes = BTreeMap::new();
        for id in 1..=controllers {
            let mut disk = Disk::default();
            if id == 1 {
                let voter = Voter {
                    key: ReplicaKey { id: NodeId(1), directory_id: Some(Uuid([1; 16])) },
                    endpoints: Endpoints::from([("CONTROLLER".to_owned(), endpoint(1))]),
                    kraft_version: VersionRange::SUPPORTED,
                };
                let file = snapshot::bootstrap_snapshot([voter], TimestampMs(1)).unwrap();
                disk.snapshots.insert(SnapshotId::BOOTSTRAP, file);
            }
            let mut node = Node::new(id, true, VoterSet::default(), disk);
            node.set_auto_join();
            nodes.insert(NodeId(id), node);
        }
        Sim::with_nodes(seed, nodes)
    }

    /// The voters that the leader knows.
    pub fn voter_ids(&self) -> Vec<NodeId> {
        let leader = self.leader().and_then(|id| self.nodes[&id].raft.as_ref());
        leader.map_or_else(Vec::new, |raft| raft.voters().iter().map(|voter| voter.key.id).collect())
    }

    /// Asks the leader to take a voter out, as an administrator does. The answer is not waited for.
    pub fn remove_voter(&mut self, id: NodeId) {
        let (leader, now) = (self.leader().expect("a leader"), self.now());
        let request =
            RemoveRaftVoterRequest { cluster_id: None, voter_id: id.0, voter_directory_id: Uuid([id.0 as u8; 16]) };
        self.next_reply += 1;
        let token = ReplyToken(self.next_reply);
        // Nobody receives it: request token and incarnation of a node that never sent one.
        self.open.insert((leader, token), (leader, 0, RequestToken(u64::MAX)));
        let listener = "CONTROLLER".to_owned();
        let event = Event::Request { token, listener, api_version: 0, request: request.into() };
        let outputs = self.node(leader).step(event, now);
        self.take(leader, outputs);
    }

    fn with_nodes(seed: u64, nodes: BTreeMap<NodeId, Node>) -> Sim {
        let mut sim = Sim {
            faults: Faults::NONE,
            downloads: 0,
            seed,
            now_ms: 1000,
            random: Random::from_seed(seed),
            nodes,
            queue: BTreeMap::new(),
            next_parcel: 0,
            open: BTreeMap::new(),
            next_reply: 0,
            cut_off: None,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            high_watermarks: BTreeMap::new(),
        };
        for id in sim.ids() {
            sim.start(id);
        }
        sim
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn now(&self) -> Now {
        Now { monotonic: MonotonicMs(self.now_ms), wall: TimestampMs(1_700_000_000_000 + self.now_ms as i64) }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the simulation")
    }

    fn start(&mut self, id: NodeId) {
        let (now, mut random) = (self.now(), self.random.clone());
        let outputs = self.node(id).start(&mut random, now);
        self.random = random;
        self.take(id, outputs);
    }

    pub fn crash(&mut self, id: NodeId) {
        let mut random = self.random.clone();
        self.node(id).crash(&mut random);
        self.random = random;
        self.open.retain(|(node, _), _| *node != id);
    }

    pub fn heal(&mut self) {
        self.faults = Faults::NONE;
        self.cut_off = None;
    }

    /// The node that leads in the highest epoch.
    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| node.raft.as_ref().is_some_and(|raft| raft.is_leader());
        self.nodes.values().filter(leads).max_by_key(|node| node.raft.as_ref().map(|raft| raft.epoch())).map(|n| n.id)
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.nodes.values().filter_map(|node| Some(node.raft.as_ref()?.epoch())).max().unwrap()
    }

    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    pub fn committed_end(&self) -> i64 {
        self.committed.values().next_back().map_or(0, |(end, _)| *end)
    }

    pub fn assert_all_caught_up(&self, end: i64) {
        for node in self.nodes.values() {
            let known = node.raft.as_ref().and_then(|raft| raft.high_watermark());
            assert!(
                known >= Some(Offset(end)),
                "seed {}: node {} is at {known:?} of {end}: {:?}",
                self.seed,
                node.id,
                node.raft
            );
        }
    }

    /// Stops a leader in order. Milliseconds until it may end.
    pub fn shut_down(&mut self, id: NodeId) -> u64 {
        let (now, began) = (self.now(), self.now_ms);
        let outputs = self.node(id).step(Event::ShutDown, now);
        self.take(id, outputs);
        while !self.nodes[&id].raft.as_ref().unwrap().may_shut_down() && self.now_ms < began + 5000 {
            self.run_for(1);
        }
        self.now_ms - began
    }

    pub fn run_for(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            self.break_something();
            while let Some((&key, _)) = self.queue.range(..=(self.now_ms, u64::MAX)).next() {
                let (to, parcel) = self.queue.remove(&key).unwrap();
                self.deliver(to, parcel);
            }
            for id in self.ids() {
                let due = self.nodes[&id].raft.as_ref().and_then(|raft| raft.next_deadline());
                if due.is_some_and(|at| at.0 <= self.now_ms) {
                    let now = self.now();
                    let outputs = self.node(id).step(Event::Tick, now);
                    self.take(id, outputs);
                }
            }
            if self.random.below(40) == 0 {
                self.propose_somewhere();
            }
        }
    }

    /// To everybody who thinks it leads.
    fn propose_somewhere(&mut self) {
        for id in self.ids() {
            let now = self.now();
            if self.nodes[&id].raft.as_ref().is_some_and(|raft| raft.is_leader()) {
                let value = Bytes::from(format!("{} from {id}", self.now_ms));
                let outputs = self.node(id).propose(value, now);
                self.take(id, outputs);
            }
        }
    }

    fn happens(&mut self, mean_ms: u64) -> bool {
        mean_ms > 0 && self.random.below(mean_ms) == 0
    }

    fn any_node(&mut self) -> NodeId {
        let ids = self.ids();
        ids[self.random.below(ids.len() as u64) as usize]
    }

    fn break_something(&mut self) {
        if self.happens(self.faults.crash) {
            let id = self.any_node();
            if self.nodes[&id].raft.is_some() {
                self.crash(id);
                let after = 1 + self.random.below(self.faults.max_restart_ms);
                self.post(after, id, Parcel::Restart);
            }
        }
        if self.happens(self.faults.partition) {
            self.cut_off = if self.random.below(2) == 0 { Some(self.any_node()) } else { None };
        }
        if self.happens(self.faults.snapshot) {
            let (id, now) = (self.any_node(), self.now());
            let outputs = self.node(id).snapshot(now);
            self.take(id, outputs);
        }
    }

    fn post(&mut self, after_ms: u64, to: NodeId, parcel: Parcel) {
        self.next_parcel += 1;
        self.queue.insert((self.now_ms + after_ms, self.next_parcel), (to, parcel));
    }

    fn post_over_network(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let is_cut = self.cut_off.is_some_and(|cut| cut == from || cut == to);
        if is_cut || self.random.below(100) < self.faults.loss_percent {
            return;
        }
        let delay = 1 + self.random.below(self.faults.max_delay_ms);
        if self.random.below(100) < self.faults.duplicate_percent {
            let again = delay + self.random.below(200);
            self.post(again, to, parcel.clone());
        }
        self.post(delay, to, parcel);
    }

    fn deliver(&mut self, to: NodeId, parcel: Parcel) {
        let now = self.now();
        let node = self.nodes.get_mut(&to).expect("a node of the simulation");
        let incarnation = node.incarnation;
        let outputs = match parcel {
            Parcel::Restart => return self.start(to),
            _ if node.raft.is_none() => return,
            Parcel::Request { from, token, request: RequestBody::ApiVersions(_) } => {
                let response = Ok(api_versions().into());
                return self.post_over_network(to, from.0, Parcel::Response { incarnation: from.1, token, response });
            }
            Parcel::Request { from, token, request } => {
                self.next_reply += 1;
                let reply = ReplyToken(self.next_reply);
                self.open.insert((to, reply), (from.0, from.1, token));
                let api_version = request.api_key().max_version();
                let listener = "CONTROLLER".to_owned();
                node.step(Event::Request { token: reply, listener, api_version, request }, now)
            }
            Parcel::Response { incarnation: of, token, response } if of == incarnation => {
                node.step(Event::Response { token, result: response }, now)
            }
            Parcel::Flushed { incarnation: of } if of == incarnation => {
                node.disk.durable_end = node.disk.durable_end.max(node.flushing);
                node.step(Event::LogFlushed, now)
            }
            Parcel::Response { .. } | Parcel::Flushed { .. } => return,
        };
        self.take(to, outputs);
    }

    fn take(&mut self, id: NodeId, outputs: Vec<Output>) {
        let incarnation = self.nodes[&id].incarnation;
        for output in outputs {
            match output {
                Output::Send { to, token, request } => {
                    assert!(self.nodes.contains_key(&to), "node {id} sends to {to}");
                    let request = over_the_wire_request(&request);
                    self.post_over_network(id, to, Parcel::Request { from: (id, incarnation), token, request });
                }
                Output::Reply { token, response } => {
                    let Some((to, of, request)) = self.open.remove(&(id, token)) else {
                        panic!("node {id} answered {token:?} twice");
                    };
                    let response = Ok(over_the_wire_response(&response));
                    self.post_over_network(id, to, Parcel::Response { incarnation: of, token: request, response });
                }
                Output::Flush => {
                    let after = 1 + self.random.below(self.faults.max_flush_ms);
                    self.post(after, id, Parcel::Flushed { incarnation });
                }
                Output::Committed(offset) => self.check_committed(id, offset),
                Output::Leader(epoch) => {
                    let leader = *self.leaders.entry(epoch).or_insert(id);
                    assert_eq!(leader, id, "seed {}: two leaders in epoch {epoch}", self.seed);
                }
                Output::Downloaded(snapshot_id) => {
                    self.downloads += 1;
                    let file = self.nodes[&id].disk.snapshots[&snapshot_id].clone();
                    self.check_snapshot(snapshot_id.end_offset, &file);
                }
            }
        }
    }

    fn check_committed(&mut self, id: NodeId, high_watermark: Offset) {
        let node = &self.nodes[&id];
        let before = self.high_watermarks.insert(id, (node.incarnation, high_watermark));
        if let Some((incarnation, before)) = before {
            let fell = incarnation == node.incarnation && before >= high_watermark;
            assert!(!fell, "seed {}: the high watermark of {id} fell from {before} to {high_watermark}", self.seed);
        }
        assert!(high_watermark <= node.disk.end());
        for batch in node.disk.log.iter().filter(|batch| batch.end <= high_watermark) {
            let content = (batch.end.0, crc(&batch.bytes));
            let known = *self.committed.entry(batch.base.0).or_insert(content);
            assert_eq!(known, content, "seed {}: node {id} has another batch at {}", self.seed, batch.base);
        }
        let mut next = 0;
        for (base, (end, _)) in &self.committed {
            assert_eq!(*base, next, "seed {}: committed batches have a gap", self.seed);
            next = *end;
        }
    }

    /// A snapshot names every batch that it covers.
    fn check_snapshot(&self, end_offset: Offset, file: &[u8]) {
        let mut found = BTreeMap::new();
        snapshot::read(file, |record| {
            let base = i64::from_be_bytes(record[..8].try_into().unwrap());
            found.insert(base, u32::from_be_bytes(record[8..].try_into().unwrap()));
        })
        .unwrap();
        let expected: BTreeMap<i64, u32> =
            self.committed.range(..end_offset.0).map(|(base, (_, crc))| (*base, *crc)).collect();
        assert_eq!(found, expected, "seed {}: a snapshot differs from what it replaces", self.seed);
    }
}

fn over_the_wire_request(request: &RequestBody) -> RequestBody {
    let (key, version) = (request.api_key(), request.api_key().max_version());
    let mut out = Encoder::new();
    request.encode(&mut out, version).unwrap();
    let bytes = out.into_contiguous();
    RequestBody::decode(key, version, &mut Decoder::new(bytes)).unwrap()
}

fn over_the_wire_response(response: &ResponseBody) -> ResponseBody {
    let (key, version) = (response.api_key(), response.api_key().max_version());
    let mut out = Encoder::new();
    response.encode(&mut out, version).unwrap();
    let bytes = out.into_contiguous();
    ResponseBody::decode(key, version, &mut Decoder::new(bytes)).unwrap()
}

fn api_versions() -> ApiVersionsResponse {
    let feature = api_versions_response::SupportedFeatureKey {
        name: StrBytes::from_static("kraft.version"),
        min_version: 0,
        max_version: 1,
    };
    ApiVersionsResponse { supported_features: vec![feature], ..ApiVersionsResponse::default() }
}
