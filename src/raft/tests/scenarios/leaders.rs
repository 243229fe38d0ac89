//! What a leader answers, and when it counts as one.

use bytes::Bytes;
use ringlog_protocol::messages::{
    AddRaftVoterRequest, ApiVersionsResponse, DescribeQuorumRequest, DescribeQuorumResponse, FetchResponse,
    FetchSnapshotRequest, add_raft_voter_request, api_versions_response, describe_quorum_request,
    fetch_snapshot_request,
};
use ringlog_protocol::records::BatchIter;
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_raft::{Action, Event, ProposeError, Raft, ReplicaKey, ReplyToken, SnapshotId};
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Offset, Random, Uuid};

use super::node::{
    DIRECTORY, Done, ask, at, config, done, empty, endpoint, fetch, standalone, start, token_of, unattached,
};

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
    assert!(done(fx).reads.is_empty(), "who doesn't vote has no use for what isn't committed");
    let committed = done(raft.step(Event::LogFlushed, at(602)));
    assert!(matches!(&committed.reads[..], [Action::ReadLog { from: Offset(3), .. }]));
    // Who doesn't know the high watermark is told at once.
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
    let (offset, fx) = raft.upgrade_kraft_version(1, at(10)).unwrap();
    assert_eq!(offset, Some(Offset(4)));
    let appended = done(fx).appended;
    assert_eq!(BatchIter::new(&appended).next().unwrap().unwrap().header.record_count, 2);
    assert_eq!(raft.kraft_version(), 1);
    assert_eq!(raft.voters().get(NodeId(1)).unwrap().key.directory_id, Some(DIRECTORY));
    assert_eq!(done(raft.step(Event::LogFlushed, at(11))).high_watermark, Some(Offset(5)));
    assert!(raft.upgrade_kraft_version(0, at(12)).is_err());
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
