//! Records of coordinators as JSON, as Kafka's formatters for `__consumer_offsets`, `__transaction_state` and
//! `__share_group_state` write them: one object after the other, without anything between.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringlog_client::ConsumedRecord;
use ringlog_protocol::coordinator_records::group::{
    CoordinatorRecord as GroupRecord, GroupMetadataValue, GroupRecordKey, GroupRecordValue, OffsetCommitValue,
};
use ringlog_protocol::coordinator_records::share::{
    CoordinatorRecord as ShareRecord, ShareRecordKey, ShareRecordValue, ShareSnapshotValue, ShareUpdateValue,
};
use ringlog_protocol::coordinator_records::transaction::{
    CoordinatorRecord as TransactionRecord, TransactionLogValue, TransactionRecordKey, TransactionRecordValue,
};
use ringlog_protocol::{DecodeError, StrBytes};
use ringlog_types::Uuid;

/// Which records are shown. Others are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Offsets that groups committed.
    Offsets,
    /// Classic groups.
    GroupMetadata,
    /// Transactions.
    TransactionLog,
    /// What share groups have done with records.
    ShareGroup,
}

/// Type, key, and the value with its version.
type Shown = (i16, String, Option<(i16, String)>);

impl State {
    /// The record as JSON, or nothing if it is of another kind.
    pub fn format(self, record: &ConsumedRecord) -> Result<String, String> {
        let Some(key) = &record.key else { return Ok(String::new()) };
        let at_offset = |what: &str| format!("Could not read record at offset {} due to: {what}", record.offset);
        if key.len() < 2 {
            return Err(at_offset("Could not read version from key's buffer."));
        }
        let (key, value) = (Bytes::copy_from_slice(key), record.value.as_deref().map(Bytes::copy_from_slice));
        let shown = match self {
            State::Offsets | State::GroupMetadata => self.group(key, value),
            State::TransactionLog => transaction(key, value),
            State::ShareGroup => share(key, value),
        };
        match shown {
            Ok(shown) => Ok(shown.as_ref().map(json).unwrap_or_default()),
            Err(DecodeError::Unknown { .. }) => Ok(String::new()),
            Err(fault) => Err(at_offset(&fault.to_string())),
        }
    }

    fn group(self, key: Bytes, value: Option<Bytes>) -> Result<Option<Shown>, DecodeError> {
        let record = GroupRecord::decode(key, value)?;
        let type_id = record.key.type_id();
        let key = match (self, &record.key) {
            (State::Offsets, GroupRecordKey::OffsetCommit(key)) => {
                group_and_partition(&key.group, &key.topic, key.partition)
            }
            (State::Offsets, GroupRecordKey::LegacyOffsetCommit(key)) => {
                group_and_partition(&key.group, &key.topic, key.partition)
            }
            (State::GroupMetadata, GroupRecordKey::GroupMetadata(key)) => object(&[("group", text(&key.group))]),
            _ => return Ok(None),
        };
        let value = record.value.map(|(value, version)| {
            let shown = match value {
                GroupRecordValue::OffsetCommit(value) => offset_commit(&value, version),
                GroupRecordValue::LegacyOffsetCommit(value) => object(&[
                    ("offset", value.offset.to_string()),
                    ("metadata", text(&value.metadata)),
                    ("commitTimestamp", value.commit_timestamp.to_string()),
                ]),
                GroupRecordValue::GroupMetadata(value) => group_metadata(&value, version),
                _ => String::new(),
            };
            (version, shown)
        });
        Ok(Some((type_id, key, value)))
    }
}

fn json((type_id, key, value): &Shown) -> String {
    let key = object(&[("type", type_id.to_string()), ("data", key.clone())]);
    let value = match value {
        Some((version, value)) => object(&[("version", version.to_string()), ("data", value.clone())]),
        None => "null".to_owned(),
    };
    object(&[("key", key), ("value", value)])
}

/// Fields in this order; values are JSON already.
fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn array(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(","))
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn optional_text(value: Option<&StrBytes>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| text(value))
}

fn bytes(bytes: &[u8]) -> String {
    text(&STANDARD.encode(bytes))
}

fn id(id: Uuid) -> String {
    text(&id.to_string())
}

fn group_and_partition(group: &str, topic: &str, partition: i32) -> String {
    object(&[("group", text(group)), ("topic", text(topic)), ("partition", partition.to_string())])
}

fn offset_commit(value: &OffsetCommitValue, version: i16) -> String {
    let mut fields = vec![("offset", value.offset.to_string())];
    if version >= 3 {
        fields.push(("leaderEpoch", value.leader_epoch.to_string()));
    }
    fields.push(("metadata", text(&value.metadata)));
    fields.push(("commitTimestamp", value.commit_timestamp.to_string()));
    if version == 1 {
        fields.push(("expireTimestamp", value.expire_timestamp.to_string()));
    }
    if version >= 4 && !value.topic_id.is_zero() {
        fields.push(("topicId", id(value.topic_id)));
    }
    object(&fields)
}

fn group_metadata(value: &GroupMetadataValue, version: i16) -> String {
    let members = value.members.iter().map(|member| {
        let mut fields = vec![("memberId", text(&member.member_id))];
        if version >= 3 {
            fields.push(("groupInstanceId", optional_text(member.group_instance_id.as_ref())));
        }
        fields.push(("clientId", text(&member.client_id)));
        fields.push(("clientHost", text(&member.client_host)));
        if version >= 1 {
            fields.push(("rebalanceTimeout", member.rebalance_timeout.to_string()));
        }
        fields.push(("sessionTimeout", member.session_timeout.to_string()));
        fields.push(("subscription", bytes(&member.subscription)));
        fields.push(("assignment", bytes(&member.assignment)));
        object(&fields)
    });
    let members = array(members);
    let mut fields = vec![
        ("protocolType", text(&value.protocol_type)),
        ("generation", value.generation.to_string()),
        ("protocol", optional_text(value.protocol.as_ref())),
        ("leader", optional_text(value.leader.as_ref())),
    ];
    if version >= 2 {
        fields.push(("currentStateTimestamp", value.current_state_timestamp.to_string()));
    }
    fields.push(("members", members));
    object(&fields)
}

fn transaction(key: Bytes, value: Option<Bytes>) -> Result<Option<Shown>, DecodeError> {
    let TransactionRecord { key, value } = TransactionRecord::decode(key, value)?;
    let type_id = key.type_id();
    let TransactionRecordKey::TransactionLog(key) = key;
    let value = value.map(|(value, version)| {
        let TransactionRecordValue::TransactionLog(value) = value;
        (version, transaction_log(&value))
    });
    Ok(Some((type_id, object(&[("transactionalId", text(&key.transactional_id))]), value)))
}

/// Fields that have tags are there when they have been set.
fn transaction_log(value: &TransactionLogValue) -> String {
    let tagged = |name: &'static str, value: i64, default: i64| (value != default).then(|| (name, value.to_string()));
    let partitions = value.transaction_partitions.as_ref().map_or_else(
        || "null".to_owned(),
        |topics| {
            array(topics.iter().map(|topic| {
                let partitions = array(topic.partition_ids.iter().map(i32::to_string));
                object(&[("topic", text(&topic.topic)), ("partitionIds", partitions)])
            }))
        },
    );
    let fields = [
        Some(("producerId", value.producer_id.to_string())),
        tagged("previousProducerId", value.previous_producer_id, -1),
        tagged("nextProducerId", value.next_producer_id, -1),
        Some(("producerEpoch", value.producer_epoch.to_string())),
        tagged("nextProducerEpoch", value.next_producer_epoch.into(), -1),
        Some(("transactionTimeoutMs", value.transaction_timeout_ms.to_string())),
        Some(("transactionStatus", value.transaction_status.to_string())),
        Some(("transactionPartitions", partitions)),
        Some(("transactionLastUpdateTimestampMs", value.transaction_last_update_timestamp_ms.to_string())),
        Some(("transactionStartTimestampMs", value.transaction_start_timestamp_ms.to_string())),
        tagged("clientTransactionVersion", value.client_transaction_version.into(), 0),
    ];
    object(&fields.into_iter().flatten().collect::<Vec<_>>())
}

fn share(key: Bytes, value: Option<Bytes>) -> Result<Option<Shown>, DecodeError> {
    let ShareRecord { key, value } = ShareRecord::decode(key, value)?;
    let type_id = key.type_id();
    let (group_id, topic_id, partition) = match key {
        ShareRecordKey::ShareSnapshot(key) => (key.group_id, key.topic_id, key.partition),
        ShareRecordKey::ShareUpdate(key) => (key.group_id, key.topic_id, key.partition),
    };
    let key = object(&[("groupId", text(&group_id)), ("topicId", id(topic_id)), ("partition", partition.to_string())]);
    let value = value.map(|(value, version)| {
        let shown = match value {
            ShareRecordValue::ShareSnapshot(value) => share_snapshot(&value),
            ShareRecordValue::ShareUpdate(value) => share_update(&value),
        };
        (version, shown)
    });
    Ok(Some((type_id, key, value)))
}

fn state_batch(first_offset: i64, last_offset: i64, delivery_state: i8, delivery_count: i16) -> String {
    object(&[
        ("firstOffset", first_offset.to_string()),
        ("lastOffset", last_offset.to_string()),
        ("deliveryState", delivery_state.to_string()),
        ("deliveryCount", delivery_count.to_string()),
    ])
}

/// A tagged field.
fn delivery_complete_count(count: i32) -> Option<(&'static str, String)> {
    (count != -1).then(|| ("deliveryCompleteCount", count.to_string()))
}

fn share_snapshot(value: &ShareSnapshotValue) -> String {
    let batches = value.state_batches.iter();
    let batches = batches.map(|it| state_batch(it.first_offset, it.last_offset, it.delivery_state, it.delivery_count));
    let fields = [
        Some(("snapshotEpoch", value.snapshot_epoch.to_string())),
        Some(("stateEpoch", value.state_epoch.to_string())),
        Some(("leaderEpoch", value.leader_epoch.to_string())),
        Some(("startOffset", value.start_offset.to_string())),
        delivery_complete_count(value.delivery_complete_count),
        Some(("createTimestamp", value.create_timestamp.to_string())),
        Some(("writeTimestamp", value.write_timestamp.to_string())),
        Some(("stateBatches", array(batches))),
    ];
    object(&fields.into_iter().flatten().collect::<Vec<_>>())
}

fn share_update(value: &ShareUpdateValue) -> String {
    let batches = value.state_batches.iter();
    let batches = batches.map(|it| state_batch(it.first_offset, it.last_offset, it.delivery_state, it.delivery_count));
    let fields = [
        Some(("snapshotEpoch", value.snapshot_epoch.to_string())),
        Some(("leaderEpoch", value.leader_epoch.to_string())),
        Some(("startOffset", value.start_offset.to_string())),
        delivery_complete_count(value.delivery_complete_count),
        Some(("stateBatches", array(batches))),
    ];
    object(&fields.into_iter().flatten().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ringlog_protocol::records::TimestampType;

    use super::*;

    const VECTORS: &[u8] = include_bytes!("../../../tests/data/wire-vectors.jsonl.gz");

    fn record(key: Vec<u8>, value: Option<Vec<u8>>) -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 0,
            offset: 3,
            leader_epoch: None,
            timestamp: 0,
            timestamp_type: TimestampType::CreateTime,
            key: Some(key),
            value,
            headers: Vec::new(),
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// Kafka's own classes serialized these, to bytes and to JSON.
    #[test]
    fn records_are_written_as_kafkas_converters_write_them() {
        let mut text = String::new();
        flate2::read::GzDecoder::new(VECTORS).read_to_string(&mut text).expect("the vectors are whole");
        let vectors: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut checked = 0;
        for (state, type_id, family) in [
            (State::Offsets, 0, "LegacyOffsetCommit"),
            (State::Offsets, 1, "OffsetCommit"),
            (State::GroupMetadata, 2, "GroupMetadata"),
            (State::TransactionLog, 0, "TransactionLog"),
            (State::ShareGroup, 0, "ShareSnapshot"),
            (State::ShareGroup, 1, "ShareUpdate"),
        ] {
            let of = |suffix: &str| {
                let name = format!("{family}{suffix}");
                vectors.iter().filter(move |vector| vector["m"] == name.as_str()).collect::<Vec<_>>()
            };
            for (key, value) in of("Key").into_iter().flat_map(|key| of("Value").into_iter().map(move |it| (key, it))) {
                let begin = |number: i64| i16::try_from(number).expect("a small number").to_be_bytes();
                let version = value["v"].as_i64().expect("a version");
                let bytes = |begins: [u8; 2], vector: &serde_json::Value| {
                    [&begins[..], &unhex(vector["hex"].as_str().expect("hex"))].concat()
                };
                let shown = state.format(&record(bytes(begin(type_id), key), Some(bytes(begin(version), value))));
                let shown: serde_json::Value = serde_json::from_str(&shown.expect("it can be read")).expect("JSON");
                let expected = serde_json::json!({
                    "key": { "type": type_id, "data": key["json"] },
                    "value": { "version": version, "data": value["json"] },
                });
                assert_eq!(shown, expected);
                checked += 1;
            }
        }
        assert!(checked >= 40, "only {checked} pairs of keys and values were found");
    }

    #[test]
    fn other_records_are_left_out_and_what_is_none_is_named() {
        let offset_commit = vec![0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 5];
        let tombstone = record(offset_commit, None);
        let shown = r#"{"key":{"type":1,"data":{"group":"g","topic":"t","partition":5}},"value":null}"#;
        assert_eq!(State::Offsets.format(&tombstone).as_deref(), Ok(shown));
        assert_eq!(State::GroupMetadata.format(&tombstone).as_deref(), Ok(""));
        assert_eq!(State::Offsets.format(&record(vec![0, 99], None)).as_deref(), Ok(""));
        assert_eq!(State::Offsets.format(&ConsumedRecord { key: None, ..tombstone }).as_deref(), Ok(""));
        let fault = State::Offsets.format(&record(vec![b'k'], None)).unwrap_err();
        assert_eq!(fault, "Could not read record at offset 3 due to: Could not read version from key's buffer.");
        assert!(State::Offsets.format(&record(vec![0, 1, 9], None)).is_err());
    }
}
