//! Who stands, who votes for whom, and who hands over.

use bytes::Bytes;
use ringlog_protocol::messages::{FetchResponse, VoteResponse, fetch_response, vote_response};
use ringlog_protocol::records::BatchIter;
use ringlog_protocol::{RequestBody, StrBytes};
use ringlog_raft::control_records::ControlRecord;
use ringlog_raft::{
    Action, Effects, EpochStart, Event, LeaderEpochs, LoadedState, Memory, ProposeError, QuorumState,
    QuorumStateVersion, Raft, ReplicaKey, ReplyToken, RequestToken, SendError, Step, snapshot,
};
use ringlog_types::{CLUSTER_METADATA_TOPIC_ID, ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random};

use super::node::{
    DIRECTORY, LOG, Vote, actions_of, ask, at, begin, config, done, empty, standalone, start, token_of, unattached,
    vote, vote_answer,
};

const STANDALONE: &[u8] = include_bytes!("../data/standalone-0-0.checkpoint");

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
    loaded.memory = Memory::LostRecords;
    let (mut raft, _) = start(config(1), loaded);
    for pre_vote in [true, false] {
        let asked = vote(&Vote { epoch: 3, id: 2, last: (2, 10), pre_vote });
        assert!(!vote_answer(ask(&mut raft, asked, at(1))).2);
    }
    assert!(done(raft.step(Event::Tick, at(9_000))).sent.iter().all(|(_, it)| !matches!(it, RequestBody::Vote(_))));
    let alone = LoadedState { memory: Memory::LostRecords, ..empty(&[1]) };
    assert!(!start(config(1), alone).1.became_leader);
}

/// A Vote that a step sent, by its token; what is to be persisted before is.
fn sent_vote(fx: Effects) -> Option<RequestToken> {
    actions_of(fx).iter().find_map(|action| match action {
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

/// Steps until `until_ms`, at the times that the machine asks for; every request is refused. How many there were.
fn requests_that_are_refused(raft: &mut Raft, mut now_ms: u64, until_ms: u64) -> usize {
    let mut count = 0;
    while now_ms <= until_ms {
        let mut events = vec![Event::Tick];
        while let Some(event) = events.pop() {
            for action in actions_of(raft.step(event, at(now_ms))) {
                if let Action::Send { token, .. } = action {
                    count += 1;
                    events.push(Event::Response { token, result: Err(SendError::Refused) });
                }
            }
        }
        now_ms = raft.next_deadline().expect("something is always due").0.max(now_ms + 1);
    }
    count
}

#[test]
fn peers_that_are_not_there_are_asked_some_two_times_a_second_however_restless_the_quorum_is() {
    let mut raft = unattached();
    let at_first = requests_that_are_refused(&mut raft, 3_000, 4_000);
    assert!((6..=14).contains(&at_first), "{at_first} in the first second, of two peers");
    let later = requests_that_are_refused(&mut raft, 4_001, 64_000);
    assert!((150..=300).contains(&later), "{later} in a minute, of two peers");
    // Who has answered once is asked as soon as ever.
    let vote = loop {
        let next = raft.next_deadline().expect("something is always due");
        if let Some(vote) = sent_vote(raft.step(Event::Tick, at(next.0))) {
            break (vote, next.0);
        }
    };
    let _ = raft.step(Event::Response { token: vote.0, result: Ok(VoteResponse::default().into()) }, at(vote.1));
    let again = requests_that_are_refused(&mut raft, vote.1 + 1, vote.1 + 1_000);
    assert!(again >= 5, "{again} in the second after an answer");
}
