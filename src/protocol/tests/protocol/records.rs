//! Metadata and coordinator records in the form in which logs hold them.

use crate::common::Vector;
use bytes::Bytes;
use ringlog_protocol::coordinator_records::group::{
    CoordinatorRecord, GroupRecordKey, GroupRecordValue, OffsetCommitKey, OffsetCommitValue,
};
use ringlog_protocol::coordinator_records::{share, transaction};
use ringlog_protocol::metadata_records::{FeatureLevelRecord, MetadataRecord, RecordAndVersion};
use ringlog_protocol::{DecodeError, Message as _};

#[test]
fn a_metadata_record_is_framed_as_kafka_frames_it() {
    let record = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 };
    let framed = RecordAndVersion { record: record.clone().into(), version: 0 }.encode_framed().unwrap();
    // Frame version 1, type 12, version 0, a compact string of 16, the level, no tagged fields.
    assert_eq!(framed[..4], [1, 12, 0, 17]);
    assert_eq!(framed[framed.len() - 3..], [0, 30, 0]);
    assert_eq!(MetadataRecord::decode_framed(framed), Ok((MetadataRecord::FeatureLevel(record), 0)));
}

#[test]
fn every_metadata_record_type_is_known_by_its_number() {
    let ids = [
        ("RegisterBrokerRecord", 0),
        ("TopicRecord", 2),
        ("PartitionRecord", 3),
        ("PartitionChangeRecord", 5),
        ("FenceBrokerRecord", 7),
        ("ProducerIdsRecord", 15),
        ("BrokerRegistrationChangeRecord", 17),
        ("RegisterControllerRecord", 27),
        ("ClearElrRecord", 28),
    ];
    for (name, id) in ids {
        for Vector { version, bytes, .. } in crate::common::vectors().into_iter().filter(|each| each.message == name) {
            let framed: Bytes = [&[1, id as u8, version as u8], &bytes[..]].concat().into();
            let (record, read_version) = MetadataRecord::decode_framed(framed.clone()).unwrap();
            assert_eq!((record.type_id(), record.name(), read_version), (id, name, version));
            assert!((record.min_version()..=record.max_version()).contains(&version));
            assert_eq!(record.encode_framed(version), Ok(framed));
        }
    }
}

#[test]
fn a_metadata_record_of_an_unknown_frame_type_or_version_is_an_error() {
    let decode = |bytes: &'static [u8]| MetadataRecord::decode_framed(Bytes::from_static(bytes)).unwrap_err();
    assert_eq!(decode(&[2, 2, 0]), DecodeError::Unknown { what: "metadata frame version", value: 2 });
    assert_eq!(decode(&[1, 6, 0]), DecodeError::Unknown { what: "metadata record type", value: 6 });
    assert_eq!(decode(&[1, 2, 1]), DecodeError::UnsupportedVersion { message: "TopicRecord", version: 1 });
    assert!(matches!(decode(&[]), DecodeError::Truncated { .. }));
    assert_eq!(decode(&[1, 20, 0, 0, 0]), DecodeError::TrailingBytes { remaining: 1 });
}

#[test]
fn a_group_record_has_its_type_in_the_key_and_its_version_in_the_value() {
    let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
    let value = OffsetCommitValue { offset: 42, metadata: "m".into(), ..Default::default() };
    let record = CoordinatorRecord::new(key.clone(), value, 3);
    let (key_bytes, value_bytes) = record.encode().unwrap();
    assert_eq!(&key_bytes[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);
    assert_eq!(value_bytes.as_ref().unwrap()[..2], [0, 3]);
    assert_eq!(CoordinatorRecord::decode(key_bytes.clone(), value_bytes), Ok(record));

    let tombstone = CoordinatorRecord::tombstone(key);
    assert_eq!(tombstone.encode(), Ok((key_bytes.clone(), None)));
    assert_eq!(CoordinatorRecord::decode(key_bytes, None), Ok(tombstone));
}

#[test]
fn a_coordinator_record_of_an_unknown_type_or_version_is_an_error() {
    let unknown = |value| DecodeError::Unknown { what: "group record type", value };
    assert_eq!(GroupRecordKey::decode(Bytes::from_static(&[0, 9])), Err(unknown(9)));
    assert_eq!(GroupRecordValue::decode(-1, Bytes::from_static(&[0, 0])), Err(unknown(-1)));
    let unsupported = DecodeError::UnsupportedVersion { message: "OffsetCommitValue", version: 5 };
    assert_eq!(GroupRecordValue::decode(1, Bytes::from_static(&[0, 5])), Err(unsupported));
    assert!(GroupRecordKey::decode(Bytes::from_static(&[0])).is_err());
    assert!(share::ShareRecordKey::decode(Bytes::from_static(&[0, 2])).is_err());
}

#[test]
fn share_and_transaction_records_round_trip() {
    let key = transaction::TransactionLogKey { transactional_id: "tx".into() };
    let value = transaction::TransactionLogValue { producer_id: 9, ..Default::default() };
    let record = transaction::CoordinatorRecord::new(key, value, 1);
    let (key, value) = record.encode().unwrap();
    assert_eq!(transaction::CoordinatorRecord::decode(key, value), Ok(record));

    let key = share::ShareUpdateKey { group_id: "g".into(), ..Default::default() };
    let record = share::CoordinatorRecord::new(key, share::ShareUpdateValue::default(), 0);
    let (key, value) = record.encode().unwrap();
    assert_eq!(&key[..2], [0, 1]);
    assert_eq!(share::CoordinatorRecord::decode(key, value), Ok(record));
}

#[test]
fn null_in_a_tagged_struct_is_a_varint() {
    use ringlog_protocol::coordinator_records::group::ConsumerGroupMemberMetadataValue;
    let null = ConsumerGroupMemberMetadataValue { classic_member_metadata: None, ..Default::default() };
    let bytes = null.to_bytes(0).unwrap();
    // One tagged field: number 0, length 1, null.
    assert_eq!(bytes[bytes.len() - 4..], [1, 0, 1, 0]);
    assert_eq!(ConsumerGroupMemberMetadataValue::from_bytes(bytes, 0), Ok(null));
}
