//! Whom a node follows, and what becomes of its log.

use ringlog_protocol::messages::{DescribeQuorumResponse, FetchResponse, describe_quorum_response, fetch_response};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_raft::{
    Action, EpochStart, Event, LeaderEpochs, LoadedState, Memory, QuorumState, QuorumStateVersion, Raft, RaftConfig,
    RequestToken, SendError, SnapshotId, Step,
};
use ringlog_types::{CLUSTER_METADATA_TOPIC_ID, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, Random};

use super::node::{
    Done, Vote, actions_of, ask, at, begin, config, done, empty, fetch, start, token_of, token_to, told_of_leader,
    unattached, vote, vote_answer,
};

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
    actions_of(fx)
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

/// A leader's answer to a fetch that nothing can be added to.
fn nothing_new(leader_id: i32, leader_epoch: i32) -> FetchResponse {
    FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: vec![fetch_response::PartitionData {
                current_leader: fetch_response::LeaderIdAndEpoch { leader_id, leader_epoch },
                high_watermark: 0,
                ..fetch_response::PartitionData::default()
            }],
            ..fetch_response::FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    }
}

/// How the second connection fails tells whether the process is gone: elections wait for that. What never was there can
/// wait longer.
#[test]
fn a_leader_whose_connection_is_lost_is_asked_again_without_a_long_wait() {
    let mut raft = unattached();
    let fetch = token_to(raft.step(told_of_leader(2, 6), at(1)), 2, |request| matches!(request, RequestBody::Fetch(_)));
    let answer = Event::Response { token: fetch, result: Ok(nothing_new(2, 6).into()) };
    let fetch = token_to(raft.step(answer, at(2)), 2, |request| matches!(request, RequestBody::Fetch(_)));
    let _ = raft.step(Event::Response { token: fetch, result: Err(SendError::Disconnected) }, at(3));
    let again = raft.step(Event::Tick, at(3 + 20));
    let fetch = token_to(again, 2, |request| matches!(request, RequestBody::Fetch(_)));
    let _ = raft.step(Event::Response { token: fetch, result: Err(SendError::Disconnected) }, at(24));
    let waits = done(raft.step(Event::Tick, at(24 + 20)));
    assert!(waits.sent.is_empty(), "{waits:?}");
}

/// It names itself until there is another leader, so the answer brings nothing new, however soon it is asked again.
#[test]
fn a_leader_that_resigned_is_asked_again_after_a_back_off() {
    let is_fetch = |request: &RequestBody| matches!(request, RequestBody::Fetch(_));
    let mut raft = unattached();
    let fetch = token_to(raft.step(told_of_leader(2, 6), at(1)), 2, is_fetch);
    let mut resigned = nothing_new(2, 6);
    resigned.responses[0].partitions[0].error_code = ErrorCode::NotLeaderOrFollower.code();
    let answer = Event::Response { token: fetch, result: Ok(resigned.into()) };
    assert_eq!(fetches(&done(raft.step(answer, at(2)))), [3], "somebody else may know another leader");
    assert_eq!(fetches(&done(raft.step(Event::Tick, at(2 + 19)))), [0; 0]);
    token_to(raft.step(Event::Tick, at(2 + 20)), 2, is_fetch);
}

/// A leader may still count what was acknowledged to it before it was lost.
#[test]
fn a_node_that_lost_records_has_them_again_where_the_leaders_log_ended() {
    for (leader_end, is_done) in [(0, true), (3, false)] {
        let (mut raft, _) = start(config(1), LoadedState { memory: Memory::LostRecords, ..empty(&[1, 2, 3]) });
        let fetch = token_to(raft.step(told_of_leader(2, 6), at(1)), 2, |it| matches!(it, RequestBody::Fetch(_)));
        let answer = Event::Response { token: fetch, result: Ok(nothing_new(2, 6).into()) };
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

/// It is no voter by its own log, but by that of the candidate, who needs its vote; and their leader is gone for good.
#[test]
fn an_observer_whose_leader_is_silent_helps_to_elect_another() {
    let mut raft = start(RaftConfig { directory_id: ringlog_types::Uuid([4; 16]), ..config(1) }, empty(&[2, 3, 5])).0;
    let token = token_to(raft.step(told_of_leader(2, 6), at(1)), 2, |it| matches!(it, RequestBody::Fetch(_)));
    let _ = raft.step(Event::Response { token, result: Ok(nothing_new(2, 6).into()) }, at(2));
    let mut request = vote(&Vote { epoch: 6, id: 3, last: (4, 10), pre_vote: true });
    request.topics[0].partitions[0].voter_directory_id = ringlog_types::Uuid([4; 16]);
    assert!(!vote_answer(ask(&mut raft, request.clone(), at(1_900))).2, "it heard of its leader just now");
    assert!(vote_answer(ask(&mut raft, request, at(2_100))).2);
}
