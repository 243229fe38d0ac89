//! A controller that is its own quorum, with a log in memory.

use bytes::Bytes;
use ringlog_metadata::ControllerConfig;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_protocol::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, BrokerRegistrationResponse, broker_registration_request,
};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_quorum::{ControllerRequest, Input, LoadedNode, QuorumConfig, QuorumNode, Work};
use ringlog_raft::{ControlHistory, Endpoint, LeaderEpochs, LoadedState, Memory, RaftConfig, ReplyToken, VoterSet};
use ringlog_types::{MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid};

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
    /// Flushes are reported only when asked for.
    pub is_disk_slow: bool,
    is_flushing: bool,
    next_token: u64,
}

impl Alone {
    /// Leads, and is active.
    pub fn new() -> Alone {
        let now = Now { monotonic: MonotonicMs(1), wall: TimestampMs(1_700_000_000_000) };
        let node = QuorumNode::new(config(&[1]), loaded(&[1]), Random::from_seed(1), now);
        let (log, answers, renounced) = (Vec::new(), Vec::new(), Vec::new());
        let mut alone =
            Alone { node, now_ms: 1, log, answers, renounced, is_disk_slow: false, is_flushing: false, next_token: 0 };
        alone.work();
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
                    Work::Halt(fault) => panic!("{fault}"),
                    _ => {}
                }
            }
            if !self.is_flushing || self.is_disk_slow {
                return;
            }
            self.is_flushing = false;
            self.node.step(Input::LogFlushed, self.now());
        }
    }

    /// Sends a request; the answer, if there is one already.
    pub fn ask(&mut self, request: impl Into<RequestBody>) -> Option<ResponseBody> {
        self.next_token += 1;
        let token = ReplyToken(self.next_token);
        let request = Box::new(ControllerRequest::internal(request));
        self.step(Input::Request { token, request });
        let at = self.answers.iter().position(|(answered, _)| *answered == token)?;
        Some(self.answers.remove(at).1)
    }

    /// Registers a broker and unfences it. Its epoch.
    pub fn broker(&mut self, id: i32) -> i64 {
        let features =
            ringlog_metadata::features::FEATURES.iter().map(|feature| broker_registration_request::Feature {
                name: feature.name.into(),
                min_supported_version: 0,
                max_supported_version: 40,
            });
        let registration = BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid([id as u8; 16]),
            features: features.collect(),
            log_dirs: vec![Uuid([100 + id as u8; 16])],
            ..BrokerRegistrationRequest::default()
        };
        let answer = self.ask(registration).expect("it is decided at once");
        let answer = BrokerRegistrationResponse::try_from(answer).expect("its own answer");
        assert_eq!(answer.error_code, 0);
        self.ask(heartbeat(id, answer.broker_epoch));
        answer.broker_epoch
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
