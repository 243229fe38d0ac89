//! Committing, fetching, deleting and losing offsets.

use ringlog_coordinator::group::TransactionalProducer;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ringlog_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use ringlog_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringlog_protocol::messages::*;
use ringlog_types::{ErrorCode, ProducerEpoch, ProducerId, Uuid};

use crate::harness::{CLICKS, Harness, ORDERS, join, text};

fn partition(index: i32, offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: offset,
        committed_leader_epoch: 3,
        committed_metadata: Some("note".into()),
    }
}

fn commit(group: &str, topic: &str, index: i32, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: text(group),
        topics: vec![OffsetCommitRequestTopic {
            name: text(topic),
            partitions: vec![partition(index, offset)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn member_commit(group: &str, generation: i32, member: &str) -> OffsetCommitRequest {
    OffsetCommitRequest {
        generation_id_or_member_epoch: generation,
        member_id: text(member),
        ..commit(group, "orders", 0, 5)
    }
}

fn committed(harness: &mut Harness, request: OffsetCommitRequest, version: i16) -> ErrorCode {
    let response: OffsetCommitResponse = harness.call(request, version);
    ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap()
}

/// Offset and error of one partition, as version 9 has it.
fn fetched(harness: &mut Harness, group: &str, topic: &str, index: i32, require_stable: bool) -> (i64, ErrorCode) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: text(group),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: text(topic),
                partition_indexes: vec![index],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        require_stable,
        ..Default::default()
    };
    let response: OffsetFetchResponse = harness.call(request, 9);
    let partition = &response.groups[0].topics[0].partitions[0];
    (partition.committed_offset, ErrorCode::from_code(partition.error_code).unwrap())
}

#[test]
fn an_offset_counts_when_it_is_written() {
    let mut harness = Harness::new();
    harness.writes_at_once = false;
    let token = harness.send(commit("g", "orders", 0, 42), 9);
    assert!(!harness.replies.contains_key(&token));
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (-1, ErrorCode::None));
    harness.finish_writes();
    let response: OffsetCommitResponse = harness.answer(token).unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (42, ErrorCode::None));
    assert_eq!(fetched(&mut harness, "g", "orders", 1, false), (-1, ErrorCode::None));
    assert_eq!(harness.state("g"), "Empty");

    let token = harness.send(commit("g", "orders", 0, 43), 9);
    harness.fail_writes(ErrorCode::NotEnoughReplicas);
    let response: OffsetCommitResponse = harness.answer(token).unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (42, ErrorCode::None));
    harness.fail_over();
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (42, ErrorCode::None));
}

#[test]
fn a_commit_has_kafka_s_bytes() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 7, 42), 9);
    let (record, producer) = &harness.log[0];
    assert_eq!(*producer, None);
    // Type 1; group, topic, partition.
    assert_eq!(record.key, b"\x00\x01\x00\x01g\x00\x06orders\x00\x00\x00\x07"[..]);
    // Version 4; offset, leader epoch, compact metadata, commit time, one tagged field: the topic's id.
    let mut value = b"\x00\x04\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x03\x05note".to_vec();
    value.extend(harness.now.wall.0.to_be_bytes());
    value.extend(b"\x01\x00\x10");
    value.extend(ORDERS.0);
    assert_eq!(record.value.as_deref(), Some(&value[..]));
}

#[test]
fn a_failed_first_commit_leaves_no_group() {
    let mut harness = Harness::new();
    harness.writes_at_once = false;
    harness.send(commit("g", "orders", 0, 42), 9);
    harness.fail_writes(ErrorCode::NotEnoughReplicas);
    assert_eq!(harness.state("g"), "Dead");
}

#[test]
fn a_commit_that_timed_out_still_counts_once_it_is_replicated() {
    let mut harness = Harness::new();
    harness.writes_at_once = false;
    let token = harness.send(commit("g", "orders", 0, 42), 9);
    let write = harness.under_way[0].token;
    harness.apply(|coordinator, now| coordinator.on_write_timed_out(write, now));
    let response: OffsetCommitResponse = harness.answer(token).unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable.code());
    harness.finish_writes();
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (42, ErrorCode::None));
}

#[test]
fn commits_are_checked_against_the_group() {
    let mut harness = Harness::new();
    let cases = |harness: &mut Harness, request, expected: ErrorCode| {
        assert_eq!(committed(harness, request, 9), expected);
    };
    cases(&mut harness, member_commit("none", 1, "m"), ErrorCode::GroupIdNotFound);
    assert_eq!(committed(&mut harness, member_commit("none", 1, "m"), 8), ErrorCode::IllegalGeneration);
    let members = harness.stable("g", 1);
    let member = members[0].clone();
    cases(&mut harness, member_commit("g", 1, &member), ErrorCode::None);
    cases(&mut harness, member_commit("g", 2, &member), ErrorCode::IllegalGeneration);
    cases(&mut harness, member_commit("g", 1, "other"), ErrorCode::UnknownMemberId);
    cases(&mut harness, commit("g", "orders", 0, 1), ErrorCode::UnknownMemberId);
    cases(&mut harness, commit("simple", "nothing", 0, 1), ErrorCode::UnknownTopicOrPartition);
    cases(&mut harness, commit("simple", "orders", 16, 1), ErrorCode::UnknownTopicOrPartition);
    cases(&mut harness, commit("simple", "orders", -1, 1), ErrorCode::UnknownTopicOrPartition);
    let mut long = commit("simple", "orders", 0, 1);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4_097)));
    cases(&mut harness, long.clone(), ErrorCode::OffsetMetadataTooLarge);
    long.topics[0].partitions[0].committed_metadata = None;
    cases(&mut harness, long, ErrorCode::None);
    harness.send(join("g", &member), 9);
    cases(&mut harness, member_commit("g", 2, &member), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_commit_keeps_the_session_of_its_member() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    for _ in 0..5 {
        harness.pass_ms(8_000);
        assert_eq!(committed(&mut harness, member_commit("g", 1, &members[0]), 9), ErrorCode::None);
    }
    assert_eq!(harness.heartbeat("g", 1, &members[0]), ErrorCode::None);
}

#[test]
fn topics_are_named_by_id_from_version_10_on() {
    let mut harness = Harness::new();
    let mut request = commit("g", "", 0, 7);
    request.topics[0].topic_id = ORDERS;
    assert_eq!(committed(&mut harness, request.clone(), 10), ErrorCode::None);
    request.topics[0].topic_id = Uuid([9; 16]);
    assert_eq!(committed(&mut harness, request, 10), ErrorCode::UnknownTopicId);
    let topics = [ORDERS, CLICKS, Uuid([9; 16])].map(|topic_id| OffsetFetchRequestTopics {
        topic_id,
        partition_indexes: vec![0],
        ..Default::default()
    });
    let ask = |topics: Option<Vec<OffsetFetchRequestTopics>>| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup { group_id: text("g"), topics, ..Default::default() }],
        ..Default::default()
    };
    let response: OffsetFetchResponse = harness.call(ask(Some(topics.to_vec())), 10);
    let found: Vec<(i64, i16)> = response.groups[0]
        .topics
        .iter()
        .map(|topic| (topic.partitions[0].committed_offset, topic.partitions[0].error_code))
        .collect();
    assert_eq!(found, [(7, 0), (-1, 0), (-1, ErrorCode::UnknownTopicId.code())]);
    let all: OffsetFetchResponse = harness.call(ask(None), 10);
    assert_eq!(all.groups[0].topics.len(), 1);
    assert_eq!(all.groups[0].topics[0].topic_id, ORDERS);
}

#[test]
fn old_versions_ask_for_one_group() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 2, 7), 9);
    for topics in [None, Some(vec![OffsetFetchRequestTopic { name: "orders".into(), partition_indexes: vec![2] }])] {
        let request = OffsetFetchRequest { group_id: text("g"), topics, ..Default::default() };
        let response: OffsetFetchResponse = harness.call(request, 5);
        let partition = &response.topics[0].partitions[0];
        assert_eq!(
            (partition.partition_index, partition.committed_offset, partition.committed_leader_epoch),
            (2, 7, 3)
        );
        assert_eq!(partition.metadata, Some(text("note")));
    }
}

#[test]
fn offsets_of_an_earlier_topic_of_the_same_name_are_not_found() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 0, 7), 9);
    for (record, _) in &mut harness.log {
        let value = record.value.as_mut().unwrap();
        let mut bytes = value.to_vec();
        let end = bytes.len();
        bytes[end - 16..].copy_from_slice(&[8; 16]);
        *value = bytes.into();
    }
    harness.fail_over();
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (-1, ErrorCode::None));
}

fn txn_commit(group: &str, offset: i64) -> TxnOffsetCommitRequest {
    use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    TxnOffsetCommitRequest {
        transactional_id: "t".into(),
        group_id: text(group),
        producer_id: 4,
        producer_epoch: 1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "orders".into(),
            partitions: vec![TxnOffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }],
        }],
        ..Default::default()
    }
}

#[test]
fn transactional_offsets_count_when_the_transaction_commits() {
    for commits in [true, false] {
        let mut harness = Harness::new();
        committed(&mut harness, commit("g", "orders", 0, 7), 9);
        let response: TxnOffsetCommitResponse = harness.call(txn_commit("g", 9), 3);
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        let producer = TransactionalProducer { producer_id: ProducerId(4), producer_epoch: ProducerEpoch(1) };
        assert_eq!(harness.log.last().unwrap().1, Some(producer));
        harness.fail_over();
        assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (7, ErrorCode::None));
        assert_eq!(fetched(&mut harness, "g", "orders", 0, true), (-1, ErrorCode::UnstableOffsetCommit));
        harness.coordinator.replay_end_transaction(ProducerId(4), commits);
        let expected = if commits { 9 } else { 7 };
        assert_eq!(fetched(&mut harness, "g", "orders", 0, true), (expected, ErrorCode::None));
    }
}

#[test]
fn a_plain_commit_after_a_transactional_one_stays() {
    let mut harness = Harness::new();
    harness.call::<TxnOffsetCommitResponse>(txn_commit("g", 9), 3);
    committed(&mut harness, commit("g", "orders", 0, 11), 9);
    harness.coordinator.replay_end_transaction(ProducerId(4), true);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (11, ErrorCode::None));
}

#[test]
fn offsets_of_topics_that_are_read_can_not_be_deleted() {
    let mut harness = Harness::new();
    let delete = |group: &str, topic: &str| OffsetDeleteRequest {
        group_id: text(group),
        topics: vec![OffsetDeleteRequestTopic {
            name: text(topic),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    let partition_error = |response: &OffsetDeleteResponse| response.topics[0].partitions[0].error_code;
    let none: OffsetDeleteResponse = harness.call(delete("none", "orders"), 0);
    assert_eq!(none.error_code, ErrorCode::GroupIdNotFound.code());
    let members = harness.stable("g", 1);
    committed(&mut harness, member_commit("g", 1, &members[0]), 9);
    let mut other = member_commit("g", 1, &members[0]);
    other.topics[0].name = "clicks".into();
    committed(&mut harness, other, 9);
    let read: OffsetDeleteResponse = harness.call(delete("g", "orders"), 0);
    assert_eq!(partition_error(&read), ErrorCode::GroupSubscribedToTopic.code());
    let unread: OffsetDeleteResponse = harness.call(delete("g", "clicks"), 0);
    assert_eq!((unread.error_code, partition_error(&unread)), (0, 0));
    assert_eq!(fetched(&mut harness, "g", "clicks", 0, false).0, -1);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, 5);
    let missing: OffsetDeleteResponse = harness.call(delete("g", "nothing"), 0);
    assert_eq!(partition_error(&missing), ErrorCode::UnknownTopicOrPartition.code());
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 0, 7), 9);
    committed(&mut harness, commit("g", "clicks", 0, 7), 9);
    let deleted = [(text("orders"), ORDERS), (text("clicks"), Uuid([7; 16]))];
    harness.apply(|coordinator, now| coordinator.on_topics_deleted(&deleted, now));
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, -1);
    assert_eq!(fetched(&mut harness, "g", "clicks", 0, false).0, 7, "another topic of that name");
}

const DAY_MS: u64 = 24 * 3_600_000;

#[test]
fn offsets_of_a_simple_group_expire_after_the_commit() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 0, 7), 9);
    harness.pass_ms(6 * DAY_MS);
    committed(&mut harness, commit("g", "clicks", 0, 7), 9);
    harness.pass_ms(DAY_MS + 600_000);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, -1);
    assert_eq!(fetched(&mut harness, "g", "clicks", 0, false).0, 7);
    harness.pass_ms(6 * DAY_MS);
    assert_eq!(harness.state("g"), "Dead");
    let (tombstone, _) = harness.log.last().unwrap();
    assert_eq!((&tombstone.key[..2], &tombstone.value), (&[0, 2][..], &None));
    harness.fail_over();
    assert_eq!(harness.state("g"), "Dead");
}

#[test]
fn offsets_of_a_consumer_group_expire_after_it_became_empty() {
    let mut harness = Harness::new();
    let members = harness.stable("g", 1);
    committed(&mut harness, member_commit("g", 1, &members[0]), 9);
    for _ in 0..(8 * DAY_MS / 9_000) {
        harness.pass_ms(9_000);
        harness.heartbeat("g", 1, &members[0]);
    }
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, 5, "a topic that is read");
    harness.leave("g", &members[0]);
    harness.pass_ms(7 * DAY_MS - 600_000);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, 5);
    harness.pass_ms(1_200_000);
    assert_eq!(harness.state("g"), "Dead");
}

#[test]
fn an_old_client_s_own_retention_is_kept_over_a_move() {
    let mut harness = Harness::new();
    let request = OffsetCommitRequest { retention_time_ms: 1_800_000, ..commit("g", "orders", 0, 7) };
    assert_eq!(committed(&mut harness, request, 4), ErrorCode::None);
    assert_eq!(&harness.log[0].0.value.as_ref().unwrap()[..2], &[0, 1]);
    harness.fail_over();
    harness.pass_ms(600_000);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, 7);
    harness.pass_ms(1_800_000);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, -1);
}

#[test]
fn a_commit_under_way_is_not_expired_behind_its_back() {
    let mut harness = Harness::new();
    committed(&mut harness, commit("g", "orders", 0, 7), 9);
    harness.writes_at_once = false;
    harness.pass_ms(7 * DAY_MS - 600_000);
    let token = harness.send(commit("g", "orders", 0, 8), 9);
    harness.pass_ms(1_200_000);
    harness.finish_writes();
    assert!(harness.answer::<OffsetCommitResponse>(token).is_some());
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false).0, 8);
}

#[test]
fn too_many_writes_under_way_turn_requests_away() {
    let config = ringlog_coordinator::group::GroupConfig { max_pending_writes: 1, ..Default::default() };
    let mut harness = Harness::with(config);
    harness.writes_at_once = false;
    harness.send(commit("g", "orders", 0, 7), 9);
    let busy = committed(&mut harness, commit("g", "orders", 1, 7), 9);
    assert_eq!(busy, ErrorCode::CoordinatorLoadInProgress);
    assert_eq!(fetched(&mut harness, "g", "orders", 0, false), (-1, ErrorCode::None));
}

#[test]
fn a_group_id_too_long_for_the_record_is_an_error_for_the_caller_only() {
    let mut harness = Harness::new();
    let long: StrBytes = text(&"g".repeat(40_000));
    assert_eq!(committed(&mut harness, commit(&long, "orders", 0, 7), 9), ErrorCode::UnknownServerError);
    assert!(harness.log.is_empty());
}
