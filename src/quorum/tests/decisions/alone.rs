//! A controller with a log in memory, alone or as the leader of voters that have all it has.

use bytes::Bytes;
use ringlog_metadata::ControllerConfig;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_metadata::features::FEATURES;
use ringlog_protocol::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, BrokerRegistrationResponse, FetchRequest, VoteResponse,
    broker_registration_request, fetch_request, vote_response,
};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_quorum::{ControllerRequest, Input, LoadedNode, QuorumConfig, QuorumNode, Work};
use ringlog_raft::{
    ControlHistory, Endpoint, LeaderEpochs, LoadedState, Memory, RaftConfig, ReplyToken, RequestToken, VoterSet,
};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid,
};

pub const SESSION_MS: u64 = 9_000;

pub fn voters(ids: &[i32]) -> VoterSet {
    let endpoint = |id: i32| Endpoint { host: "127.0.0.1".to_owned(), port: 9090 + id as u16 };
    VoterSet::from_static("CONTROLLER", ids.iter().map(|id| (NodeId(*id), endpoint(*id)))).expect("distinct ids")
}

pub fn config(ids: &[i32]) -> QuorumConfig {
    let raft = RaftConfig { append_linger_ms: 0, ..RaftConfig::new(NodeId(1), Uuid([9; 16]), "cluster") };
    let controller = ControllerConfig {
        session_timeout_ms: SESSION_MS,
        ..ControllerConfig::new(NodeId(1), "cluster", BootstrapMetadata::latest())
    };
    QuorumConfig {
        raft,
        controller: Some(controller),
        snapshots: SnapshotPolicy::default(),
        static_voters: voters(ids),
    }
}

pub fn loaded(ids: &[i32]) -> LoadedNode {
    let state = LoadedState {
        quorum_state: None,
        log_start_offset: Offset(0),
        log_end_offset: Offset(0),
        epochs: LeaderEpochs::default(),
        snapshots: Vec::new(),
        history: ControlHistory::new(voters(ids)),
        memory: Memory::Whole,
    };
    LoadedNode { state, snapshot: None, bytes_since_snapshot: 0 }
}

/// See the module's text.
pub struct Alone {
    pub node: QuorumNode,
    pub now_ms: u64,
    /// Batches with the offsets where they begin and end.
    pub log: Vec<(Offset, Offset, Bytes)>,
    pub answers: Vec<(ReplyToken, ResponseBody)>,
    pub renounced: Vec<String>,
    is_flushing: bool,
    next_token: u64,
    /// Who fetches all there is at once.
    follower: Option<i32>,
}

impl Alone {
    /// Leads, and is active.
    pub fn new() -> Alone {
        Alone::among(&[1])
    }

    /// Leads these voters of a static quorum.
    pub fn among(ids: &[i32]) -> Alone {
        let now = Now { monotonic: MonotonicMs(1), wall: TimestampMs(1_700_000_000_000) };
        let node = QuorumNode::new(config(ids), loaded(ids), Random::from_seed(1), now);
        let (log, answers, renounced) = (Vec::new(), Vec::new(), Vec::new());
        let mut alone = Alone {
            node,
            now_ms: 1,
            log,
            answers,
            renounced,
            is_flushing: false,
            next_token: 0,
            follower: ids.iter().copied().find(|id| *id != 1),
        };
        alone.work();
        if ids.len() > 1 {
            alone.now_ms += 5_000;
            alone.step(Input::Tick);
        }
        assert!(alone.node.raft().is_leader() && alone.node.takes_requests());
        alone
    }

    pub fn now(&self) -> Now {
        Now { monotonic: MonotonicMs(self.now_ms), wall: TimestampMs(1_700_000_000_000 + self.now_ms as i64) }
    }

    pub fn step(&mut self, input: Input) {
        self.node.step(input, self.now());
        self.work();
    }

    /// Does what the node wants, and tells it.
    pub fn work(&mut self) {
        loop {
            while let Some(work) = self.node.next_work() {
                match work {
                    Work::Persist(_) => self.node.on_persisted(),
                    Work::AppendLog { base_offset, end_offset, batches } => {
                        self.log.push((base_offset, end_offset, batches));
                    }
                    Work::FlushLog => self.is_flushing = true,
                    Work::ReadCommitted { from, to } => {
                        let batches = self.log.iter().filter(|(base, ..)| *base >= from && *base < to);
                        let batches: Vec<&[u8]> = batches.map(|(_, _, bytes)| &bytes[..]).collect();
                        self.node.step(Input::Committed(batches.concat().into()), self.now());
                    }
                    Work::Publish { answers, .. } => self.answers.extend(answers),
                    Work::Reply { token, response } => self.answers.push((token, *response)),
                    Work::Renounced { reason, .. } => self.renounced.push(reason),
                    Work::Send { token, request, .. } => self.on_sent(token, &request),
                    Work::Halt(fault) => panic!("{fault}"),
                    _ => {}
                }
            }
            if !std::mem::take(&mut self.is_flushing) {
                return;
            }
            self.node.step(Input::LogFlushed, self.now());
            if let Some(follower) = self.follower.filter(|_| self.node.raft().is_leader()) {
                let token = self.token();
                let raft = self.node.raft();
                let request = Box::new(ControllerRequest {
                    listener: "CONTROLLER".to_owned(),
                    ..ControllerRequest::internal(fetch(follower, raft.epoch(), raft.log_end_offset()))
                });
                self.node.step(Input::Request { token, request }, self.now());
            }
        }
    }

    /// Everybody votes for it.
    fn on_sent(&mut self, token: RequestToken, request: &RequestBody) {
        let RequestBody::Vote(_) = request else { return };
        let partition = vote_response::PartitionData {
            vote_granted: true,
            leader_id: -1,
            leader_epoch: self.node.raft().epoch().0,
            ..vote_response::PartitionData::default()
        };
        let topics = vec![vote_response::TopicData { topic_name: TOPIC.into(), partitions: vec![partition] }];
        let response = VoteResponse { topics, ..VoteResponse::default() };
        self.node.step(Input::Response { token, result: Ok(response.into()) }, self.now());
    }

    fn token(&mut self) -> ReplyToken {
        self.next_token += 1;
        ReplyToken(self.next_token)
    }

    /// Time passes, and the node's deadlines are kept.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.node.next_deadline().0 <= end {
            self.now_ms = self.now_ms.max(self.node.next_deadline().0);
            self.step(Input::Tick);
        }
        self.now_ms = end;
    }

    /// Whether the broker is fenced, by what is committed.
    pub fn is_fenced(&self, id: i32) -> bool {
        self.node.image().cluster.broker(NodeId(id)).expect("it is registered").is_fenced
    }

    /// Sends a request; the answer, if there is one already.
    pub fn ask(&mut self, request: impl Into<RequestBody>) -> Option<ResponseBody> {
        let token = self.token();
        let request = Box::new(ControllerRequest::internal(request));
        self.step(Input::Request { token, request });
        let at = self.answers.iter().position(|(answered, _)| *answered == token)?;
        Some(self.answers.remove(at).1)
    }

    /// Registers a broker and unfences it. Its epoch.
    pub fn broker(&mut self, id: i32) -> i64 {
        let answer = self.ask(registration(id)).expect("it is decided at once");
        let answer = BrokerRegistrationResponse::try_from(answer).expect("its own answer");
        assert_eq!(answer.error_code, 0);
        self.ask(heartbeat(id, answer.broker_epoch));
        answer.broker_epoch
    }
}

pub fn registration(id: i32) -> BrokerRegistrationRequest {
    let features = FEATURES.iter().map(|feature| broker_registration_request::Feature {
        name: feature.name.into(),
        min_supported_version: 0,
        max_supported_version: 40,
    });
    BrokerRegistrationRequest {
        broker_id: id,
        cluster_id: "cluster".into(),
        incarnation_id: Uuid([id as u8; 16]),
        features: features.collect(),
        log_dirs: vec![Uuid([100 + id as u8; 16])],
        ..BrokerRegistrationRequest::default()
    }
}

const TOPIC: &str = "__cluster_metadata";

fn fetch(replica_id: i32, epoch: LeaderEpoch, offset: Offset) -> FetchRequest {
    FetchRequest {
        max_bytes: 1_000,
        replica_state: fetch_request::ReplicaState { replica_id, replica_epoch: -1 },
        topics: vec![fetch_request::FetchTopic {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: vec![fetch_request::FetchPartition {
                current_leader_epoch: epoch.0,
                fetch_offset: offset.0,
                last_fetched_epoch: epoch.0,
                replica_directory_id: Uuid([replica_id as u8; 16]),
                ..fetch_request::FetchPartition::default()
            }],
            ..fetch_request::FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

pub fn heartbeat(broker_id: i32, broker_epoch: i64) -> BrokerHeartbeatRequest {
    BrokerHeartbeatRequest {
        broker_id,
        broker_epoch,
        current_metadata_offset: i64::MAX,
        ..BrokerHeartbeatRequest::default()
    }
}
