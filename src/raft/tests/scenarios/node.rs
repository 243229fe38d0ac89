//! One node, what is sent to it, and what it does.

use ringlog_protocol::messages::{
    BeginQuorumEpochRequest, FetchRequest, VoteRequest, VoteResponse, begin_quorum_epoch_request, fetch_request,
    vote_request, vote_response,
};
use ringlog_protocol::records::{BatchIter, BatchRef};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_raft::control_records::ControlRecord;
use ringlog_raft::{
    Action, ControlHistory, Effects, Endpoint, Endpoints, EpochStart, Event, LeaderEpochs, LoadedState, Memory,
    QuorumState, QuorumStateVersion, Raft, RaftConfig, ReplyToken, RequestToken, SnapshotId, Step, VoterSet,
};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid,
};

pub const LOG: &[u8] = include_bytes!("../data/dynamic.log");
pub const DIRECTORY: Uuid = Uuid([9; 16]);

pub fn at(ms: u64) -> Now {
    Now { monotonic: MonotonicMs(ms), wall: TimestampMs(1_700_000_000_000 + ms as i64) }
}

pub fn endpoint(id: i32) -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port: 9090 + id as u16 }
}

pub fn config(id: i32) -> RaftConfig {
    let mut config = RaftConfig::new(NodeId(id), DIRECTORY, "cluster");
    config.endpoints = Endpoints::from([("CONTROLLER".to_owned(), endpoint(id))]);
    config.append_linger_ms = 0;
    config
}

pub fn empty(voters: &[i32]) -> LoadedState {
    let voters = VoterSet::from_static("CONTROLLER", voters.iter().map(|&id| (NodeId(id), endpoint(id)))).unwrap();
    LoadedState {
        quorum_state: None,
        log_start_offset: Offset(0),
        log_end_offset: Offset(0),
        epochs: LeaderEpochs::default(),
        snapshots: Vec::new(),
        history: ControlHistory::new(voters),
        memory: Memory::Whole,
    }
}

/// What a step did, sorted by kind.
#[derive(Default, Debug)]
pub struct Done {
    pub persisted: Option<QuorumState>,
    pub appended: Vec<u8>,
    pub sent: Vec<(i32, RequestBody)>,
    pub reply: Option<ResponseBody>,
    pub high_watermark: Option<Offset>,
    pub became_leader: bool,
    pub flush: bool,
    pub reads: Vec<Action>,
}

pub fn done(fx: Effects) -> Done {
    let mut done = Done::default();
    let actions = match fx.into_step() {
        Step::Ready(actions) => actions,
        Step::PersistFirst(first) => {
            done.persisted = Some(first.quorum_state.clone());
            first.persisted()
        }
    };
    for action in actions {
        match action {
            Action::AppendLog { batches, .. } => done.appended.extend_from_slice(&batches),
            Action::FlushLog => done.flush = true,
            Action::Send { to, request, .. } => done.sent.push((i32::from(to.endpoint.port) - 9090, *request)),
            Action::Reply { response, .. } => done.reply = Some(*response),
            Action::HighWatermark(offset) => done.high_watermark = Some(offset),
            Action::Role(role) => done.became_leader = role.is_leader,
            Action::Fatal(fault) => panic!("{fault}"),
            other => done.reads.push(other),
        }
    }
    done
}

pub fn ask(raft: &mut Raft, request: impl Into<RequestBody>, now: Now) -> Done {
    let request = request.into();
    let api_version = request.api_key().max_version();
    let listener = "CONTROLLER".to_owned();
    done(raft.step(Event::Request { token: ReplyToken(1), listener, api_version, request }, now))
}

pub fn start(config: RaftConfig, loaded: LoadedState) -> (Raft, Done) {
    let (raft, fx) = Raft::new(config, loaded, Random::from_seed(1), at(0));
    (raft, done(fx))
}

/// A standalone node as formatted by Kafka, and its first batch as Kafka wrote it.
pub fn standalone() -> (LoadedState, RaftConfig, BatchRef<'static>) {
    let kafkas = BatchIter::new(LOG).next().unwrap().unwrap();
    let voters = match &ControlRecord::parse_batch(&kafkas).unwrap()[..] {
        [_, _, (_, ControlRecord::Voters(voters))] => voters.clone(),
        other => panic!("{other:?}"),
    };
    let own = voters.iter().next().unwrap().clone();
    let mut loaded = empty(&[]);
    loaded.history.load_snapshot(SnapshotId::BOOTSTRAP, Some(1), Some(voters));
    loaded.snapshots.push(SnapshotId::BOOTSTRAP);
    let mut config = config(2);
    config.directory_id = own.key.directory_id.unwrap();
    config.endpoints = own.endpoints;
    (loaded, config, kafkas)
}

pub struct Vote {
    pub epoch: i32,
    pub id: i32,
    pub last: (i32, i64),
    pub pre_vote: bool,
}

pub fn vote(vote: &Vote) -> VoteRequest {
    VoteRequest {
        cluster_id: Some(StrBytes::from_static("cluster")),
        voter_id: 1,
        topics: vec![vote_request::TopicData {
            topic_name: StrBytes::from_static("__cluster_metadata"),
            partitions: vec![vote_request::PartitionData {
                partition_index: 0,
                replica_epoch: vote.epoch,
                replica_id: vote.id,
                replica_directory_id: Uuid([vote.id as u8; 16]),
                voter_directory_id: DIRECTORY,
                last_offset_epoch: vote.last.0,
                last_offset: vote.last.1,
                pre_vote: vote.pre_vote,
            }],
        }],
    }
}

pub fn vote_answer(done: Done) -> (i16, i32, bool) {
    let response: VoteResponse = done.reply.expect("an answer").try_into().unwrap();
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.leader_epoch, partition.vote_granted)
}

/// Unattached at epoch 5 with a log that ends at 10 in epoch 4.
pub fn unattached() -> Raft {
    let mut loaded = empty(&[1, 2, 3]);
    loaded.log_end_offset = Offset(10);
    loaded.epochs = LeaderEpochs::new([EpochStart { epoch: LeaderEpoch(4), start_offset: Offset(0) }]);
    let version = QuorumStateVersion::V0 { voter_ids: Vec::new() };
    loaded.quorum_state = Some(QuorumState { epoch: LeaderEpoch(5), leader_id: None, voted: None, version });
    start(config(1), loaded).0
}

pub fn begin(leader_id: i32, leader_epoch: i32) -> BeginQuorumEpochRequest {
    BeginQuorumEpochRequest {
        cluster_id: None,
        voter_id: 1,
        topics: vec![begin_quorum_epoch_request::TopicData {
            topic_name: StrBytes::from_static("__cluster_metadata"),
            partitions: vec![begin_quorum_epoch_request::PartitionData {
                partition_index: 0,
                voter_directory_id: DIRECTORY,
                leader_id,
                leader_epoch,
            }],
        }],
        leader_endpoints: Vec::new(),
    }
}

pub fn fetch(epoch: i32, offset: i64, last_epoch: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        max_bytes: 1000,
        replica_state: fetch_request::ReplicaState { replica_id: 5, replica_epoch: -1 },
        topics: vec![fetch_request::FetchTopic {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: vec![fetch_request::FetchPartition {
                partition: 0,
                current_leader_epoch: epoch,
                fetch_offset: offset,
                last_fetched_epoch: last_epoch,
                ..fetch_request::FetchPartition::default()
            }],
            ..fetch_request::FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// The one request in flight to that node, by its token.
pub fn token_of(fx: Effects) -> RequestToken {
    let Step::Ready(actions) = fx.into_step() else { panic!("nothing is to be persisted") };
    let token = actions.iter().find_map(|action| match action {
        Action::Send { token, .. } => Some(*token),
        _ => None,
    });
    token.expect("a request")
}

/// What a step did, once what is to be persisted before is.
pub fn actions_of(fx: Effects) -> Vec<Action> {
    match fx.into_step() {
        Step::Ready(actions) => actions,
        Step::PersistFirst(first) => first.persisted(),
    }
}

/// The token of the request to that node which `wanted` picks, and what else the step did.
pub fn token_to(fx: Effects, id: i32, wanted: impl Fn(&RequestBody) -> bool) -> RequestToken {
    let token = actions_of(fx).into_iter().find_map(|action| match action {
        Action::Send { to, token, request } if to.endpoint == endpoint(id) && wanted(&request) => Some(token),
        _ => None,
    });
    token.expect("a request")
}

/// Node 1 as leader of epoch 1 among these voters, its own first record on its disk.
pub fn elected(voters: &[i32]) -> Raft {
    elected_from(empty(voters))
}

/// The same from what it found on its disk.
pub fn elected_from(loaded: LoadedState) -> Raft {
    let (mut raft, _) = start(config(1), loaded);
    let mut sent = actions_of(raft.step(Event::Tick, at(5_000)));
    while !raft.is_leader() {
        let asked = sent.iter().find_map(|action| match action {
            Action::Send { token, request, .. } => match &**request {
                RequestBody::Vote(request) => Some((*token, request.topics[0].partitions[0].pre_vote)),
                _ => None,
            },
            _ => None,
        });
        let (token, pre_vote) = asked.expect("somebody is asked for a vote");
        sent.retain(|action| !matches!(action, Action::Send { token: other, .. } if *other == token));
        let partition = vote_response::PartitionData {
            vote_granted: true,
            leader_id: -1,
            leader_epoch: raft.epoch().0,
            ..vote_response::PartitionData::default()
        };
        let topic_name = StrBytes::from_static("__cluster_metadata");
        let topics = vec![vote_response::TopicData { topic_name, partitions: vec![partition] }];
        let response = VoteResponse { topics, ..VoteResponse::default() };
        let fx = raft.step(Event::Response { token, result: Ok(response.into()) }, at(5_001));
        let more = actions_of(fx);
        if !pre_vote || raft.epoch() > LeaderEpoch(0) {
            sent.retain(|_| !pre_vote);
        }
        sent.extend(more);
    }
    let _ = raft.step(Event::LogFlushed, at(5_002));
    raft
}

/// A fetch of that replica, whose directory has the same number unless it has got a new disk.
pub fn fetch_of(id: i32, directory: u8, epoch: i32, offset: i64, last_epoch: i32) -> FetchRequest {
    let mut request = fetch(epoch, offset, last_epoch);
    request.replica_state.replica_id = id;
    request.topics[0].partitions[0].replica_directory_id = Uuid([directory; 16]);
    request
}

/// A leader tells of itself.
pub fn told_of_leader(leader_id: i32, epoch: i32) -> Event {
    let request = begin(leader_id, epoch).into();
    Event::Request { token: ReplyToken(1), listener: "CONTROLLER".to_owned(), api_version: 1, request }
}
