//! The logs of `__consumer_offsets` that Kafka 4.3.1 wrote, against what Kafka's own tools say of them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use ringlog_coordinator::group::{
    GroupConfig, GroupCoordinator, RequestContext, Token, TopicView, TransactionalProducer, partition_of_group,
};
use ringlog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ringlog_protocol::messages::*;
use ringlog_protocol::records::{BatchIter, EndTransactionMarker, Scratch};
use ringlog_protocol::{ResponseBody, StrBytes};
use ringlog_types::{MonotonicMs, Now, TimestampMs, Uuid};
use serde_json::Value;

use crate::harness::text;

const PARTITIONS: i32 = 3;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/fixtures/single-node").join(name)
}

/// The files of a tar archive, by name.
fn untar(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut rest = archive;
    while rest.len() >= 512 && rest[0] != 0 {
        let field = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&rest[range]).trim_end_matches(['\0', ' ']).to_owned()
        };
        let size = usize::from_str_radix(&field(124..136), 8).unwrap();
        files.insert(field(0..100), rest[512..512 + size].to_vec());
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    files
}

struct Topics(BTreeMap<String, Uuid>);

impl TopicView for Topics {
    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.get(name).copied()
    }

    fn topic_name(&self, id: Uuid) -> Option<StrBytes> {
        self.0.iter().find(|(_, other)| **other == id).map(|(name, _)| text(name))
    }

    fn partition_count(&self, name: &str) -> i32 {
        if self.0.contains_key(name) { 3 } else { 0 }
    }
}

fn now() -> Now {
    Now { monotonic: MonotonicMs(0), wall: TimestampMs(1_795_324_400_000) }
}

/// A coordinator that has read the log, and the notes it made.
fn load(log: &[u8]) -> (GroupCoordinator, Vec<String>) {
    let mut coordinator = GroupCoordinator::new(GroupConfig::default(), 1);
    let mut notes = Vec::new();
    let mut scratch = Scratch::new(1 << 20);
    for batch in BatchIter::new(log) {
        let batch = batch.unwrap();
        let producer = batch.header.is_transactional().then_some(TransactionalProducer {
            producer_id: batch.header.producer_id,
            producer_epoch: batch.header.producer_epoch,
        });
        for record in batch.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            if batch.header.is_control() {
                let marker = EndTransactionMarker::parse(record.key.unwrap(), record.value.unwrap()).unwrap();
                coordinator.replay_end_transaction(batch.header.producer_id, marker.is_commit);
            } else {
                let bytes = |field: Option<&[u8]>| field.map(Bytes::copy_from_slice);
                let (key, value) = (bytes(record.key), bytes(record.value));
                notes.extend(coordinator.replay_record(key, value, producer).unwrap());
            }
        }
    }
    let effects = coordinator.finish_loading(now());
    assert!(effects.replies.is_empty() && effects.writes.is_empty());
    (coordinator, notes)
}

fn call<R: TryFrom<ResponseBody>>(
    coordinator: &mut GroupCoordinator,
    request: impl Into<ringlog_protocol::RequestBody>,
    api_version: i16,
    topics: &Topics,
) -> R {
    let context =
        RequestContext { token: Token(1), api_version, client_id: text("c"), client_host: text("/127.0.0.1") };
    let mut effects = coordinator.handle(request.into(), &context, now(), topics);
    let (_, body) = effects.replies.pop().unwrap();
    R::try_from(body).ok().unwrap()
}

/// Each offset as `offset, leader epoch, metadata`, by `topic-partition`.
fn offsets(coordinator: &mut GroupCoordinator, group: &str, topics: &Topics) -> BTreeMap<String, Value> {
    let ask = OffsetFetchRequestGroup { group_id: text(group), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![ask], ..Default::default() };
    let response: OffsetFetchResponse = call(coordinator, request, 9, topics);
    let mut offsets = BTreeMap::new();
    for topic in &response.groups[0].topics {
        for partition in &topic.partitions {
            let value = serde_json::json!([
                partition.committed_offset,
                partition.committed_leader_epoch,
                partition.metadata.as_ref().unwrap().as_str()
            ]);
            offsets.insert(format!("{}-{}", topic.name, partition.partition_index), value);
        }
    }
    offsets
}

#[test]
fn kafka_s_logs_load_to_the_groups_and_offsets_that_kafka_shows() {
    let state: Value = serde_json::from_slice(&std::fs::read(fixture("state.json")).unwrap()).unwrap();
    let topics = Topics(
        state["topics"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, topic)| (name.clone(), topic["topicId"].as_str().unwrap().parse().unwrap()))
            .collect(),
    );
    let compressed = std::fs::read(fixture("data.tar.gz")).unwrap();
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut archive).unwrap();
    let files = untar(&archive);
    let mut coordinators: Vec<GroupCoordinator> = (0..PARTITIONS)
        .map(|partition| {
            let (coordinator, notes) =
                load(&files[&format!("data/__consumer_offsets-{partition}/00000000000000000000.log")]);
            assert!(notes.is_empty(), "{notes:?}");
            coordinator
        })
        .collect();
    let mut listed = BTreeMap::new();
    for coordinator in &mut coordinators {
        let list: ListGroupsResponse = call(coordinator, ListGroupsRequest::default(), 5, &topics);
        for group in list.groups {
            let shown = [&group.group_type, &group.protocol_type, &group.group_state].map(|field| field.to_string());
            listed.insert(group.group_id.to_string(), shown);
        }
    }
    let groups = state["groups"].as_object().unwrap();
    let expected: BTreeMap<String, [String; 3]> = groups
        .iter()
        .map(|(name, group)| {
            let shown = ["type", "protocol", "state"].map(|field| group[field].as_str().unwrap());
            // Kafka's tools write the type as a name; on the wire it is in small letters.
            (name.clone(), [&shown[0].to_lowercase(), shown[1], shown[2]].map(str::to_owned))
        })
        .collect();
    assert_eq!(listed, expected);
    for (name, group) in groups {
        let partition = partition_of_group(name, PARTITIONS).0 as usize;
        let expected: BTreeMap<String, Value> = group["offsets[offset,leaderEpoch,metadata]"]
            .as_object()
            .map(|offsets| offsets.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            .unwrap_or_default();
        assert_eq!(offsets(&mut coordinators[partition], name, &topics), expected, "{name}");
    }
}

#[test]
fn records_of_unknown_types_are_skipped_and_broken_ones_stop_the_load() {
    let mut coordinator = GroupCoordinator::new(GroupConfig::default(), 1);
    let note = coordinator.replay_record(Some(Bytes::from_static(&[0, 99, 1])), None, None).unwrap();
    assert!(note.unwrap().contains("type 99"));
    for key in [&[][..], &[0], &[0, 1, 0, 5, b'g'], &[0, 5, 0, 1, b'g'], &[0, 3, 0xff, 0xff]] {
        assert!(coordinator.replay_record(Some(Bytes::from_static(key)), None, None).is_err(), "{key:?}");
    }
    let key = Bytes::from_static(&[0, 2, 0, 1, b'g']);
    for value in [&[][..], &[0, 9], &[0, 3, 0, 5]] {
        let value = Some(Bytes::from_static(value));
        assert!(coordinator.replay_record(Some(key.clone()), value, None).is_err());
    }
    assert!(coordinator.replay_record(None, None, None).is_err());
}

#[test]
fn an_empty_group_of_the_new_protocol_becomes_classic_when_a_classic_member_joins() {
    let mut harness = crate::harness::Harness::new();
    // ConsumerGroupMetadata of group "g": epoch 3.
    let key = Bytes::from_static(&[0, 3, 0, 1, b'g']);
    let value = Bytes::from_static(&[0, 0, 0, 0, 0, 3, 0]);
    harness.coordinator.replay_record(Some(key.clone()), Some(value), None).unwrap();
    let described = harness.describe("g");
    assert_eq!(described.error_message, Some(text("Group g is not a classic group.")));
    harness.stable("g", 1);
    assert_eq!(harness.state("g"), "Stable");
    let (tombstone, _) = &harness.log[0];
    assert_eq!((tombstone.key.clone(), tombstone.value.clone()), (key, None));
}
