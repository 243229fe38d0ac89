//! The rules of one node, event by event.

use bytes::Bytes;
use ringlog_protocol::messages::{
    AddRaftVoterRequest, ApiVersionsResponse, BeginQuorumEpochRequest, DescribeQuorumRequest, DescribeQuorumResponse,
    FetchRequest, FetchResponse, FetchSnapshotRequest, VoteRequest, VoteResponse, add_raft_voter_request,
    api_versions_response, begin_quorum_epoch_request, describe_quorum_request, describe_quorum_response,
    fetch_request, fetch_response, fetch_snapshot_request, vote_request, vote_response,
};
use ringlog_protocol::records::{BatchIter, BatchRef};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_raft::control_records::ControlRecord;
use ringlog_raft::{
    Action, ControlHistory, Effects, Endpoint, Endpoints, EpochStart, Event, LeaderEpochs, LoadedState, ProposeError,
    QuorumState, QuorumStateVersion, Raft, RaftConfig, ReplicaKey, ReplyToken, RequestToken, SendError, SnapshotId,
    Step, VoterSet, snapshot,
};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC_ID, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid,
};

const STANDALONE: &[u8] = include_bytes!("data/standalone-0-0.checkpoint");
const LOG: &[u8] = include_bytes!("data/dynamic.log");
const DIRECTORY: Uuid = Uuid([9; 16]);

fn at(ms: u64) -> Now {
    Now { monotonic: MonotonicMs(ms), wall: TimestampMs(1_700_000_000_000 + ms as i64) }
}

fn endpoint(id: i32) -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port: 9090 + id as u16 }
}

fn config(id: i32) -> RaftConfig {
    let mut config = RaftConfig::new(NodeId(id), DIRECTORY, "cluster");
    config.endpoints = Endpoints::from([("CONTROLLER".to_owned(), endpoint(id))]);
    config.append_linger_ms = 0;
    config
}

fn empty(voters: &[i32]) -> LoadedState {
    let voters = VoterSet::from_static("CONTROLLER", voters.iter().map(|&id| (NodeId(id), endpoint(id)))).unwrap();
    LoadedState {
        quorum_state: None,
        log_start_offset: Offset(0),
        log_end_offset: Offset(0),
        epochs: LeaderEpochs::default(),
        snapshots: Vec::new(),
        history: ControlHistory::new(voters),
        is_rebuilding: false,
    }
}

/// What a step did, sorted by kind.
#[derive(Default, Debug)]
struct Done {
    persisted: Option<QuorumState>,
    appended: Vec<u8>,
    sent: Vec<(i32, RequestBody)>,
    reply: Option<ResponseBody>,
    high_watermark: Option<Offset>,
    became_leader: bool,
    flush: bool,
    reads: Vec<Action>,
}

fn done(fx: Effects) -> Done {
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

fn ask(raft: &mut Raft, request: impl Into<RequestBody>, now: Now) -> Done {
    let request = request.into();
    let api_version = request.api_key().max_version();
    let listener = "CONTROLLER".to_owned();
    done(raft.step(Event::Request { token: ReplyToken(1), listener, api_version, request }, now))
}

fn start(config: RaftConfig, loaded: LoadedState) -> (Raft, Done) {
    let (raft, fx) = Raft::new(config, loaded, Random::from_seed(1), at(0));
    (raft, done(fx))
}

#[test]
fn a_single_static_voter_elects_itself_and_commits() {
    let (mut raft, first) = start(config(1), empty(&[1]));
    let persisted = first.persisted.unwrap();
    assert_eq!(
        persisted.to_json(),
        r#"{"clusterId":"","leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#
    );
    assert!(first.became_leader && first.flush && first.high_watermark.is_none());
    let batch = BatchIter::new(&first.appended).next().unwrap().unwrap();
    let records = ControlRecord::parse_batch(&batch).unwrap();
    let change =
        ControlRecord::LeaderChange { leader_id: NodeId(1), voter_ids: vec![NodeId(1)], granting_ids: vec![NodeId(1)] };
    assert_eq!(records, [(Offset(0), change)]);

    let flushed = done(raft.step(Event::LogFlushed, at(5)));
    assert_eq!(flushed.high_watermark, Some(Offset(1)));
    let records = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let (proposed, fx) = raft.propose(LeaderEpoch(1), &records, at(6)).unwrap();
    assert_eq!((proposed.first_offset, proposed.last_offset), (Offset(1), Offset(2)));
    assert!(done(fx).flush);
    assert_eq!(done(raft.step(Event::LogFlushed, at(9))).high_watermark, Some(Offset(3)));
    assert_eq!(raft.propose(LeaderEpoch(0), &records, at(9)).unwrap_err(), ProposeError::NotLeader(LeaderEpoch(0)));
    assert!(done(raft.step(Event::ShutDown, at(10))).sent.is_empty());
    assert!(raft.may_shut_down());
}

/// A standalone node as formatted by Kafka, and its first batch as Kafka wrote it.
fn standalone() -> (LoadedState, RaftConfig, BatchRef<'static>) {
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

#[test]
fn a_standalone_node_writes_what_kafka_wrote_first() {
    let (loaded, config, kafkas) = standalone();
    let time = kafkas.header.base_timestamp;
    let now = Now { monotonic: MonotonicMs(0), wall: time };
    let (_, fx) = Raft::new(config, loaded, Random::from_seed(1), now);
    let first = done(fx);
    assert_eq!(first.appended, kafkas.bytes);
    assert_eq!(
        first.persisted.unwrap().to_json(),
        r#"{"leaderId":2,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#
    );
}

#[test]
fn a_restarted_single_voter_leads_in_the_next_epoch_without_writing_voters_again() {
    let mut loaded = empty(&[]);
    loaded.history.apply_batches(LOG).unwrap();
    let summary = snapshot::read(STANDALONE, |_| {}).unwrap();
    assert!(summary.voters.is_some());
    let own = loaded.history.voters().iter().next().unwrap().clone();
    let end = BatchIter::new(LOG).map(|batch| batch.unwrap().header.next_offset()).last().unwrap();
    loaded.log_end_offset = end;
    loaded.epochs = LeaderEpochs::new([
        EpochStart { epoch: LeaderEpoch(1), start_offset: Offset(0) },
        EpochStart { epoch: LeaderEpoch(2), start_offset: Offset(36) },
    ]);
    loaded.quorum_state = Some(QuorumState {
        epoch: LeaderEpoch(2),
        leader_id: Some(NodeId(2)),
        voted: None,
        version: QuorumStateVersion::V1,
    });
    let mut config = config(2);
    config.directory_id = own.key.directory_id.unwrap();
    config.endpoints = own.endpoints;
    let (raft, first) = start(config, loaded);
    assert_eq!((raft.epoch(), raft.is_leader()), (LeaderEpoch(3), true));
    let batch = BatchIter::new(&first.appended).next().unwrap().unwrap();
    assert_eq!((batch.header.base_offset, batch.header.record_count), (end, 1));
}

struct Vote {
    epoch: i32,
    id: i32,
    last: (i32, i64),
    pre_vote: bool,
}

fn vote(vote: &Vote) -> VoteRequest {
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

fn vote_answer(done: Done) -> (i16, i32, bool) {
    let response: VoteResponse = done.reply.expect("an answer").try_into().unwrap();
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.leader_epoch, partition.vote_granted)
}

/// Unattached at epoch 5 with a log that ends at 10 in epoch 4.
fn unattached() -> Raft {
    let mut loaded = empty(&[1, 2, 3]);
    loaded.log_end_offset = Offset(10);
    loaded.epochs = LeaderEpochs::new([EpochStart { epoch: LeaderEpoch(4), start_offset: Offset(0) }]);
    let version = QuorumStateVersion::V0 { voter_ids: Vec::new() };
    loaded.quorum_state = Some(QuorumState { epoch: LeaderEpoch(5), leader_id: None, voted: None, version });
    start(config(1), loaded).0
}

#[test]
fn votes_go_to_fresh_logs_once_per_epoch() {
    let ok = ErrorCode::None.code();
    for (epoch, last, pre_vote, want) in [
        (5, (4, 10), false, (ok, 5, true)),
        (5, (4, 9), false, (ok, 5, false)),
        (6, (5, 1), false, (ok, 6, true)),
        (6, (3, 99), false, (ok, 6, false)),
        (5, (4, 10), true, (ok, 5, true)),
        (7, (4, 9), true, (ok, 7, false)),
        (4, (3, 10), false, (ErrorCode::FencedLeaderEpoch.code(), 5, false)),
        (6, (6, 10), false, (ErrorCode::InvalidRequest.code(), 5, false)),
        (6, (6, 10), true, (ok, 6, true)),
        (6, (7, 10), true, (ErrorCode::InvalidRequest.code(), 5, false)),
        (6, (4, -1), true, (ErrorCode::InvalidRequest.code(), 5, false)),
    ] {
        let request = vote(&Vote { epoch, id: 2, last, pre_vote });
        let answer = vote_answer(ask(&mut unattached(), request, at(1)));
        assert_eq!(answer, want, "epoch {epoch}, log {last:?}, PreVote {pre_vote}");
    }
    let mut raft = unattached();
    let granted = ask(&mut raft, vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote: false }), at(1));
    let persisted = granted.persisted.as_ref().expect("a vote is durable before it is answered");
    assert_eq!(persisted.voted.unwrap().id, NodeId(2));
    assert!(vote_answer(granted).2);
    assert!(!vote_answer(ask(&mut raft, vote(&Vote { epoch: 6, id: 3, last: (4, 10), pre_vote: false }), at(2))).2);
    assert!(vote_answer(ask(&mut raft, vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote: false }), at(3))).2);
    assert!(vote_answer(ask(&mut raft, vote(&Vote { epoch: 6, id: 3, last: (4, 10), pre_vote: true }), at(4))).2);
}

#[test]
fn votes_of_foreign_clusters_and_for_other_voters_are_refused() {
    let mut request = vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote: false });
    request.cluster_id = Some(StrBytes::from_static("other"));
    let response: VoteResponse = ask(&mut unattached(), request, at(1)).reply.unwrap().try_into().unwrap();
    assert_eq!((response.error_code, response.topics.len()), (ErrorCode::InconsistentClusterId.code(), 0));
    let mut request = vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote: false });
    request.voter_id = 3;
    let answer = vote_answer(ask(&mut unattached(), request, at(1)));
    assert_eq!(answer, (ErrorCode::InvalidVoterKey.code(), 6, false));
    let mut request = vote(&Vote { epoch: 6, id: 2, last: (4, 10), pre_vote: false });
    request.topics.clear();
    let response: VoteResponse = ask(&mut unattached(), request, at(1)).reply.unwrap().try_into().unwrap();
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
}

fn begin(leader_id: i32, leader_epoch: i32) -> BeginQuorumEpochRequest {
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

#[test]
fn a_follower_fetches_from_the_leader_that_told_of_itself_and_never_from_two() {
    let mut raft = unattached();
    let told = ask(&mut raft, begin(2, 6), at(1));
    assert_eq!(told.persisted.unwrap().leader_id, Some(NodeId(2)));
    assert!(matches!(&told.sent[..], [(2, RequestBody::Fetch(fetch))]
        if fetch.topics[0].partitions[0].fetch_offset == 10 && fetch.topics[0].partitions[0].last_fetched_epoch == 4));
    let other = ask(&mut raft, begin(3, 6), at(2));
    assert!(other.persisted.is_none());
    let Some(ResponseBody::BeginQuorumEpoch(response)) = other.reply else { panic!("no answer") };
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownLeaderEpoch.code());
    assert_eq!(raft.leader_id(), Some(NodeId(2)));
    // A Vote of a node that doesn't know the leader, and the leader's silence.
    assert!(!vote_answer(ask(&mut raft, vote(&Vote { epoch: 6, id: 3, last: (4, 10), pre_vote: false }), at(3))).2);
    let silent = done(raft.step(Event::Tick, at(2100)));
    assert!(silent.sent.iter().all(|(_, request)| matches!(request, RequestBody::Vote(_))) && silent.sent.len() == 2);
    assert_eq!(raft.epoch(), LeaderEpoch(6), "a pre-vote doesn't raise the epoch");
}

#[test]
fn whoever_restarts_asks_for_no_votes_in_an_epoch_that_has_a_leader() {
    let mut loaded = empty(&[1, 2, 3]);
    loaded.log_end_offset = Offset(10);
    loaded.epochs = LeaderEpochs::new([EpochStart { epoch: LeaderEpoch(5), start_offset: Offset(8) }]);
    let own = ReplicaKey { id: NodeId(1), directory_id: Some(DIRECTORY) };
    loaded.quorum_state = Some(QuorumState {
        epoch: LeaderEpoch(5),
        leader_id: Some(NodeId(2)),
        voted: Some(own),
        version: QuorumStateVersion::V1,
    });
    let (mut raft, first) = start(config(1), loaded);
    assert!(matches!(&first.sent[..], [(2, RequestBody::Fetch(_))]), "{:?}", first.sent);
    let silent = done(raft.step(Event::Tick, at(2100)));
    assert!(silent.sent.iter().all(|(_, request)| matches!(request, RequestBody::Vote(vote)
        if vote.topics[0].partitions[0].pre_vote)));
}

#[test]
fn a_leader_of_whom_only_the_id_is_known_is_not_named() {
    let mut loaded = empty(&[1, 2, 3]);
    let version = QuorumStateVersion::V0 { voter_ids: Vec::new() };
    let leader_id = Some(NodeId(4));
    loaded.quorum_state = Some(QuorumState { epoch: LeaderEpoch(5), leader_id, voted: None, version });
    let (mut raft, _) = start(config(1), loaded);
    let answered = ask(&mut raft, fetch(5, 0, 0), at(1));
    let response: FetchResponse = answered.reply.unwrap().try_into().unwrap();
    let leader = &response.responses[0].partitions[0].current_leader;
    assert_eq!((leader.leader_id, leader.leader_epoch, response.node_endpoints.len()), (-1, 5, 0));
}

/// Answers the fetch that was just sent: the logs part at `end_offset` of `epoch`.
fn diverging(raft: &mut Raft, token: RequestToken, epoch: i32, end_offset: i64) -> Vec<Action> {
    let partition = fetch_response::PartitionData {
        diverging_epoch: fetch_response::EpochEndOffset { epoch, end_offset },
        current_leader: fetch_response::LeaderIdAndEpoch { leader_id: 2, leader_epoch: 14 },
        high_watermark: -1,
        ..fetch_response::PartitionData::default()
    };
    let topic = fetch_response::FetchableTopicResponse {
        topic_id: CLUSTER_METADATA_TOPIC_ID,
        partitions: vec![partition],
        ..fetch_response::FetchableTopicResponse::default()
    };
    let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
    let fx = raft.step(Event::Response { token, result: Ok(response.into()) }, at(5));
    match fx.into_step() {
        Step::Ready(actions) => actions,
        Step::PersistFirst(first) => first.persisted(),
    }
}

/// A follower of node 2 whose log was opened again: it begins below the snapshot up to which epochs were forgotten.
fn reopened_behind_a_snapshot() -> (Raft, RequestToken) {
    let mut loaded = empty(&[1, 2, 3]);
    loaded.log_start_offset = Offset(16);
    loaded.log_end_offset = Offset(30);
    loaded.epochs = LeaderEpochs::new([EpochStart { epoch: LeaderEpoch(12), start_offset: Offset(29) }]);
    loaded.snapshots.push(SnapshotId { end_offset: Offset(29), epoch: LeaderEpoch(11) });
    let version = QuorumStateVersion::V0 { voter_ids: Vec::new() };
    let leader_id = Some(NodeId(2));
    loaded.quorum_state = Some(QuorumState { epoch: LeaderEpoch(14), leader_id, voted: None, version });
    let (raft, fx) = Raft::new(config(1), loaded, Random::from_seed(1), at(0));
    let Step::Ready(actions) = fx.into_step() else { panic!("nothing has changed") };
    let token = actions.into_iter().find_map(|action| match action {
        Action::Send { token, .. } => Some(token),
        _ => None,
    });
    (raft, token.expect("a fetch from the leader"))
}

#[test]
fn a_follower_never_cuts_what_its_snapshot_covers() {
    let (mut raft, token) = reopened_behind_a_snapshot();
    let actions = diverging(&mut raft, token, 11, 29);
    let cut = actions.iter().find_map(|action| match action {
        Action::TruncateLog { to } => Some(*to),
        _ => None,
    });
    assert_eq!(cut, Some(Offset(29)), "{actions:?}");
    let (mut raft, token) = reopened_behind_a_snapshot();
    let actions = diverging(&mut raft, token, 0, 20);
    assert!(actions.iter().any(|action| matches!(action, Action::Fatal(_))), "{actions:?}");
}

fn fetch(epoch: i32, offset: i64, last_epoch: i32) -> FetchRequest {
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

/// A single voter that leads in epoch 1 and has committed offsets 0 to 2.
fn leader() -> Raft {
    let (mut raft, _) = start(config(1), empty(&[1]));
    let _ = raft.step(Event::LogFlushed, at(1));
    let records = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let _ = raft.propose(LeaderEpoch(1), &records, at(2)).unwrap().1;
    let _ = raft.step(Event::LogFlushed, at(3));
    raft
}

#[test]
fn a_leader_judges_fetch_positions() {
    for (epoch, offset, last_epoch, error) in [
        (0, 0, 0, ErrorCode::FencedLeaderEpoch),
        (2, 0, 0, ErrorCode::UnknownLeaderEpoch),
        (1, -1, 0, ErrorCode::InvalidRequest),
        (1, 0, 2, ErrorCode::InvalidRequest),
    ] {
        let answered = ask(&mut leader(), fetch(epoch, offset, last_epoch), at(10));
        let response: FetchResponse = answered.reply.unwrap().try_into().unwrap();
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, error.code());
        assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (1, 1));
        assert_eq!(response.node_endpoints[0].port, 9091);
    }
    let answered = ask(&mut leader(), fetch(1, 99, 1), at(10));
    let response: FetchResponse = answered.reply.unwrap().try_into().unwrap();
    let diverging = &response.responses[0].partitions[0].diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (1, 3));
    let answered = ask(&mut leader(), fetch(1, 1, 1), at(10));
    assert!(matches!(&answered.reads[..], [Action::ReadLog { from: Offset(1), max_bytes: 1000, .. }]));
    let answered = ask(&mut leader(), fetch(1, 3, 1), at(10));
    let response: FetchResponse = answered.reply.unwrap().try_into().unwrap();
    assert_eq!(response.responses[0].partitions[0].high_watermark, 3);
    let mut raft = leader();
    let _ =
        raft.step(Event::SnapshotCreated { id: SnapshotId { end_offset: Offset(3), epoch: LeaderEpoch(1) } }, at(4));
    let answered = ask(&mut raft, fetch(1, 0, 0), at(10));
    let response: FetchResponse = answered.reply.unwrap().try_into().unwrap();
    assert_eq!(response.responses[0].partitions[0].snapshot_id.end_offset, 3);
}

#[test]
fn a_long_poll_waits_for_records_or_time() {
    let mut raft = leader();
    let mut request = fetch(1, 3, 1);
    request.max_wait_ms = 500;
    request.topics[0].partitions[0].high_watermark = 3;
    assert!(ask(&mut raft, request.clone(), at(10)).reply.is_none());
    assert_eq!(raft.next_deadline(), Some(MonotonicMs(510)));
    assert!(done(raft.step(Event::Tick, at(510))).reply.is_some());
    assert!(ask(&mut raft, request.clone(), at(600)).reply.is_none());
    let (_, fx) = raft.propose(LeaderEpoch(1), &[Bytes::from_static(b"x")], at(601)).unwrap();
    assert!(matches!(&done(fx).reads[..], [Action::ReadLog { from: Offset(3), .. }]));
    // Who doesn't know the high watermark is told at once.
    let _ = raft.step(Event::LogFlushed, at(602));
    request.topics[0].partitions[0].fetch_offset = 4;
    assert!(ask(&mut raft, request, at(603)).reply.is_some());
}

#[test]
fn snapshots_that_are_not_there_are_answered_with_records() {
    let request = FetchSnapshotRequest {
        replica_id: 5,
        topics: vec![fetch_snapshot_request::TopicSnapshot {
            name: StrBytes::from_static("__cluster_metadata"),
            partitions: vec![fetch_snapshot_request::PartitionSnapshot {
                current_leader_epoch: 1,
                ..fetch_snapshot_request::PartitionSnapshot::default()
            }],
        }],
        ..FetchSnapshotRequest::default()
    };
    let Some(ResponseBody::FetchSnapshot(response)) = ask(&mut leader(), request, at(10)).reply else {
        panic!("no answer")
    };
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::SnapshotNotFound.code());
    assert!(ResponseBody::from(response).size(1).is_ok());
}

#[test]
fn the_leader_describes_the_quorum() {
    let request = DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: StrBytes::from_static("__cluster_metadata"),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        }],
    };
    let mut raft = leader();
    let _ = ask(&mut raft, fetch(1, 3, 1), at(10));
    let response: DescribeQuorumResponse = ask(&mut raft, request.clone(), at(20)).reply.unwrap().try_into().unwrap();
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.leader_id, partition.leader_epoch, partition.high_watermark), (1, 1, 3));
    assert_eq!(partition.current_voters[0].log_end_offset, 3);
    assert_eq!(partition.observers[0].replica_id, 5);
    assert_eq!(response.nodes[0].listeners[0].port, 9091);
    let response: DescribeQuorumResponse = ask(&mut unattached(), request, at(1)).reply.unwrap().try_into().unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::NotLeaderOrFollower.code());
}

#[test]
fn proposals_gather_while_a_batch_is_being_committed() {
    let mut config = config(1);
    config.append_linger_ms = 25;
    let (mut raft, _) = start(config, empty(&[1]));
    let _ = raft.step(Event::LogFlushed, at(1));
    let record = [Bytes::from_static(b"x")];
    let records_of =
        |done: &Done| BatchIter::new(&done.appended).next().map(|batch| batch.unwrap().header.record_count);
    let (_, fx) = raft.propose(LeaderEpoch(1), &record, at(10)).unwrap();
    assert_eq!(records_of(&done(fx)), Some(1), "nothing is under way, so nothing is waited for");
    for n in 0..3 {
        let (proposed, fx) = raft.propose(LeaderEpoch(1), &record, at(11 + n)).unwrap();
        assert_eq!(proposed.first_offset, Offset(2 + n as i64));
        assert!(done(fx).appended.is_empty());
    }
    assert_eq!((raft.next_offset(), raft.next_deadline()), (Offset(5), Some(MonotonicMs(36))));
    let drained = done(raft.step(Event::LogFlushed, at(20)));
    assert_eq!(records_of(&drained), Some(3));
    let (_, fx) = raft.propose(LeaderEpoch(1), &record, at(30)).unwrap();
    assert!(done(fx).appended.is_empty());
    let drained = done(raft.step(Event::Tick, at(55)));
    assert_eq!(records_of(&drained), Some(1), "the linger time bounds the wait");
    let huge = [Bytes::from(vec![0; 9 * 1024 * 1024])];
    assert!(matches!(raft.propose(LeaderEpoch(1), &huge, at(60)), Err(ProposeError::TooLarge(_))));
}

#[test]
fn kraft_version_rises_once_every_voter_is_known() {
    let mut raft = leader();
    let (offset, fx) = raft.upgrade_kraft_version(1, false, at(10)).unwrap();
    assert_eq!(offset, Some(Offset(4)));
    let appended = done(fx).appended;
    assert_eq!(BatchIter::new(&appended).next().unwrap().unwrap().header.record_count, 2);
    assert_eq!(raft.kraft_version(), 1);
    assert_eq!(raft.voters().get(NodeId(1)).unwrap().key.directory_id, Some(DIRECTORY));
    assert_eq!(done(raft.step(Event::LogFlushed, at(11))).high_watermark, Some(Offset(5)));
    assert!(raft.upgrade_kraft_version(0, false, at(12)).is_err());
}

/// The one request in flight to that node, by its token.
fn token_of(fx: Effects) -> RequestToken {
    let Step::Ready(actions) = fx.into_step() else { panic!("nothing is to be persisted") };
    let token = actions.iter().find_map(|action| match action {
        Action::Send { token, .. } => Some(*token),
        _ => None,
    });
    token.expect("a request")
}

#[test]
fn a_follower_whose_leaders_process_is_gone_stands_at_once() {
    let mut raft = unattached();
    let told = raft.step(
        Event::Request {
            token: ReplyToken(1),
            listener: "CONTROLLER".to_owned(),
            api_version: 1,
            request: begin(2, 6).into(),
        },
        at(1),
    );
    let Step::PersistFirst(first) = told.into_step() else { panic!("the leader is persisted") };
    let fetch = first.persisted().into_iter().find_map(|action| match action {
        Action::Send { token, .. } => Some(token),
        _ => None,
    });
    let refused = Event::Response { token: fetch.expect("a fetch"), result: Err(SendError::Refused) };
    let _ = raft.step(refused, at(2));
    assert!(raft.next_deadline().is_some_and(|deadline| deadline <= MonotonicMs(40)));
    // Somebody else may try before: this node saw the same.
    assert!(vote_answer(ask(&mut raft, vote(&Vote { epoch: 6, id: 3, last: (4, 10), pre_vote: true }), at(3))).2);
    let stood = done(raft.step(Event::Tick, at(40)));
    assert!(stood.sent.iter().any(|(_, request)| matches!(request, RequestBody::Vote(_))));
    assert_eq!(raft.epoch(), LeaderEpoch(6), "a pre-vote doesn't raise the epoch");
}

#[test]
fn voters_that_all_know_no_leader_need_not_wait_for_one() {
    let (mut raft, fx) = Raft::new(config(1), empty(&[1, 2, 3]), Random::from_seed(1), at(0));
    let token = token_of(fx);
    let nobody = FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: vec![fetch_response::PartitionData {
                error_code: ErrorCode::NotLeaderOrFollower.code(),
                current_leader: fetch_response::LeaderIdAndEpoch { leader_id: -1, leader_epoch: 0 },
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let _ = raft.step(Event::Response { token, result: Ok(nobody.into()) }, at(1));
    let stood = done(raft.step(Event::Tick, at(30)));
    assert!(stood.sent.iter().any(|(_, request)| matches!(request, RequestBody::Vote(_))), "{stood:?}");
}

#[test]
fn a_node_that_lost_records_neither_votes_nor_stands_until_it_has_them_again() {
    let mut loaded = empty(&[1, 2, 3]);
    loaded.is_rebuilding = true;
    let (mut raft, _) = start(config(1), loaded);
    for pre_vote in [true, false] {
        let asked = vote(&Vote { epoch: 3, id: 2, last: (2, 10), pre_vote });
        assert!(!vote_answer(ask(&mut raft, asked, at(1))).2);
    }
    assert!(done(raft.step(Event::Tick, at(9_000))).sent.iter().all(|(_, it)| !matches!(it, RequestBody::Vote(_))));
    let alone = LoadedState { is_rebuilding: true, ..empty(&[1]) };
    assert!(!start(config(1), alone).1.became_leader);
}

/// The token of the request to that node which `wanted` picks, and what else the step did.
fn token_to(fx: Effects, id: i32, wanted: impl Fn(&RequestBody) -> bool) -> RequestToken {
    let actions = match fx.into_step() {
        Step::Ready(actions) => actions,
        Step::PersistFirst(first) => first.persisted(),
    };
    let token = actions.into_iter().find_map(|action| match action {
        Action::Send { to, token, request } if to.endpoint == endpoint(id) && wanted(&request) => Some(token),
        _ => None,
    });
    token.expect("a request")
}

/// A leader may still count what was acknowledged to it before it was lost.
#[test]
fn a_node_that_lost_records_has_them_again_where_the_leaders_log_ended() {
    for (leader_end, is_done) in [(0, true), (3, false)] {
        let (mut raft, _) = start(config(1), LoadedState { is_rebuilding: true, ..empty(&[1, 2, 3]) });
        let request = begin(2, 6).into();
        let told = Event::Request { token: ReplyToken(1), listener: "CONTROLLER".to_owned(), api_version: 1, request };
        let fetch = token_to(raft.step(told, at(1)), 2, |it| matches!(it, RequestBody::Fetch(_)));
        let nothing = FetchResponse {
            responses: vec![fetch_response::FetchableTopicResponse {
                topic_id: CLUSTER_METADATA_TOPIC_ID,
                partitions: vec![fetch_response::PartitionData {
                    current_leader: fetch_response::LeaderIdAndEpoch { leader_id: 2, leader_epoch: 6 },
                    high_watermark: 0,
                    ..fetch_response::PartitionData::default()
                }],
                ..fetch_response::FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };
        let answer = Event::Response { token: fetch, result: Ok(nothing.into()) };
        let asked = token_to(raft.step(answer, at(2)), 2, |it| matches!(it, RequestBody::DescribeQuorum(_)));
        let leader = describe_quorum_response::ReplicaState {
            replica_id: 2,
            log_end_offset: leader_end,
            ..describe_quorum_response::ReplicaState::default()
        };
        let described = DescribeQuorumResponse {
            topics: vec![describe_quorum_response::TopicData {
                topic_name: StrBytes::from_static("__cluster_metadata"),
                partitions: vec![describe_quorum_response::PartitionData {
                    leader_id: 2,
                    leader_epoch: 6,
                    current_voters: vec![leader],
                    ..describe_quorum_response::PartitionData::default()
                }],
            }],
            ..DescribeQuorumResponse::default()
        };
        let after = done(raft.step(Event::Response { token: asked, result: Ok(described.into()) }, at(3)));
        assert_eq!(after.reads.iter().any(|it| matches!(it, Action::Rebuilt)), is_done, "{leader_end}");
        assert_eq!(raft.is_rebuilding(), !is_done);
    }
}

/// A single dynamic voter that leads in epoch 1, and has committed what it wrote first.
fn standalone_leader() -> Raft {
    let (loaded, config, _) = standalone();
    let (mut raft, fx) = Raft::new(config, loaded, Random::from_seed(1), at(0));
    done(fx);
    done(raft.step(Event::LogFlushed, at(1)));
    raft
}

#[test]
fn who_led_alone_for_long_still_leads_when_a_second_voter_comes() {
    let mut raft = standalone_leader();
    let newcomer = ReplicaKey::from_wire(5, Uuid([5; 16]));
    let end = raft.log_end_offset();
    let mut request = fetch(1, end.0, 1);
    request.cluster_id = Some("cluster".into());
    request.topics[0].partitions[0].replica_directory_id = Uuid([5; 16]);
    assert!(ask(&mut raft, request, at(60_000)).reply.is_some());
    let add = AddRaftVoterRequest {
        cluster_id: Some("cluster".into()),
        timeout_ms: 10_000,
        voter_id: 5,
        voter_directory_id: Uuid([5; 16]),
        listeners: vec![add_raft_voter_request::Listener {
            name: "CONTROLLER".into(),
            host: "127.0.0.1".into(),
            port: endpoint(5).port,
        }],
        ack_when_committed: true,
    };
    let listener = "CONTROLLER".to_owned();
    let request = RequestBody::from(add);
    let api_version = request.api_key().max_version();
    let asked = raft.step(Event::Request { token: ReplyToken(7), listener, api_version, request }, at(60_001));
    let token = token_of(asked);
    let feature =
        api_versions_response::SupportedFeatureKey { name: "kraft.version".into(), min_version: 0, max_version: 1 };
    let versions = ApiVersionsResponse { supported_features: vec![feature], ..ApiVersionsResponse::default() };
    let answered = raft.step(Event::Response { token, result: Ok(versions.into()) }, at(60_002));
    assert!(!done(answered).appended.is_empty(), "the new voter set is written");
    assert!(raft.voters().is_voter(newcomer));
    done(raft.step(Event::Tick, at(60_003)));
    assert!(raft.is_leader(), "the newcomer has had no time to be heard");
    // It fetches the new set, which commits it.
    let _ = raft.step(Event::LogFlushed, at(60_004));
    let mut request = fetch(1, raft.log_end_offset().0, 1);
    request.topics[0].partitions[0].replica_directory_id = Uuid([5; 16]);
    let fetched = ask(&mut raft, request, at(60_005));
    assert_eq!(fetched.high_watermark, Some(raft.log_end_offset()));
    // One that falls silent for good is missed in the end.
    done(raft.step(Event::Tick, at(70_000)));
    assert!(!raft.is_leader());
}

/// Which nodes of `sent` are asked by a Fetch.
fn fetches(done: &Done) -> Vec<i32> {
    let fetches = done.sent.iter().filter(|(_, request)| matches!(request, RequestBody::Fetch(_)));
    fetches.map(|(to, _)| *to).collect()
}

#[test]
fn an_observer_of_a_silent_leader_asks_others_and_follows_whom_they_name() {
    let observer = RaftConfig { is_controller: false, ..config(9) };
    let (mut raft, first) = start(observer, empty(&[1, 2, 3]));
    assert_eq!(fetches(&first).len(), 1);
    let told = ask(&mut raft, begin(2, 6), at(1));
    assert_eq!(fetches(&told), [2]);
    assert!(fetches(&done(raft.step(Event::Tick, at(900)))).is_empty(), "the leader may hold a fetch for a while");
    let deadline = raft.next_deadline().unwrap();
    assert_eq!(deadline, MonotonicMs(1001));
    let doubting = raft.step(Event::Tick, at(1001));
    let token = token_of(doubting);
    assert_eq!(raft.leader_id(), Some(NodeId(2)), "doubts are no reason to leave");
    let other = FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: vec![fetch_response::PartitionData {
                error_code: ErrorCode::FencedLeaderEpoch.code(),
                current_leader: fetch_response::LeaderIdAndEpoch { leader_id: 3, leader_epoch: 7 },
                ..fetch_response::PartitionData::default()
            }],
            ..fetch_response::FetchableTopicResponse::default()
        }],
        node_endpoints: vec![fetch_response::NodeEndpoint {
            node_id: 3,
            host: "127.0.0.1".into(),
            port: 9093,
            rack: None,
        }],
        ..FetchResponse::default()
    };
    let named = done(raft.step(Event::Response { token, result: Ok(other.into()) }, at(1010)));
    assert_eq!((raft.leader_id(), raft.epoch()), (Some(NodeId(3)), LeaderEpoch(7)));
    assert_eq!(fetches(&named), [3]);
}

#[test]
fn who_knows_no_leader_waits_for_no_server_that_hangs() {
    let (mut raft, first) = start(RaftConfig { is_controller: false, ..config(9) }, empty(&[1, 2, 3]));
    let mut asked = fetches(&first);
    for at_ms in [499, 500, 1000, 1500] {
        asked.extend(fetches(&done(raft.step(Event::Tick, at(at_ms)))));
    }
    asked.sort_unstable();
    assert_eq!(asked, [1, 2, 3]);
}

/// A Vote that a step sent, by its token; what is to be persisted before is.
fn sent_vote(fx: Effects) -> Option<RequestToken> {
    let actions = match fx.into_step() {
        Step::Ready(actions) => actions,
        Step::PersistFirst(first) => first.persisted(),
    };
    actions.iter().find_map(|action| match action {
        Action::Send { token, request, .. } if matches!(**request, RequestBody::Vote(_)) => Some(*token),
        _ => None,
    })
}

fn granted(epoch: i32) -> VoteResponse {
    VoteResponse {
        topics: vec![vote_response::TopicData {
            topic_name: StrBytes::from_static("__cluster_metadata"),
            partitions: vec![vote_response::PartitionData {
                leader_id: -1,
                leader_epoch: epoch,
                vote_granted: true,
                ..vote_response::PartitionData::default()
            }],
        }],
        ..VoteResponse::default()
    }
}

#[test]
fn who_wins_an_election_while_it_stops_hands_over() {
    let mut raft = unattached();
    let now = at(3000);
    let pre_vote = sent_vote(raft.step(Event::Tick, now)).expect("a pre-vote");
    let asking = raft.step(Event::Response { token: pre_vote, result: Ok(granted(5).into()) }, now);
    let vote = sent_vote(asking).expect("a vote");
    assert_eq!(raft.epoch(), LeaderEpoch(6));
    assert!(done(raft.step(Event::ShutDown, now)).sent.is_empty());
    let won = done(raft.step(Event::Response { token: vote, result: Ok(granted(6).into()) }, now));
    assert!(!raft.is_leader() && !raft.may_shut_down(), "{won:?}");
    let told = won.sent.iter().filter(|(_, request)| matches!(request, RequestBody::EndQuorumEpoch(_)));
    assert_eq!(told.count(), 2);
}
