//! Metadata for the tests of handlers: two brokers, one of them fenced, and a few topics.

use ringlog_metadata::image::{MetadataDelta, Provenance};
use ringlog_metadata::{MetadataImage, MetadataVersion};
use ringlog_protocol::metadata_records::{
    FeatureLevelRecord, MetadataRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord, register_broker_record,
};
use ringlog_types::{LeaderEpoch, Offset, TimestampMs, Uuid};

/// A directory of broker 1.
pub const DIRECTORY: Uuid = Uuid([7; 16]);

/// An id for a test's topic.
pub fn topic_id(number: u8) -> Uuid {
    Uuid([number.max(1); 16])
}

/// Broker 1 (listeners PLAINTEXT at port 9092 and OTHER at 9093) serves, broker 2 (PLAINTEXT only) is fenced. `topics`:
/// name and how many partitions; each has the replicas 1 and 2 and is led by 1, but partitions with odd numbers by 2.
pub fn image(topics: &[(&str, i32)]) -> MetadataImage {
    let mut delta = MetadataDelta::new(&MetadataImage::empty());
    let mut replay = |record: MetadataRecord| delta.replay(&record).expect("the record fits");
    let level = MetadataVersion::LATEST_PRODUCTION.0;
    replay(FeatureLevelRecord { name: "metadata.version".into(), feature_level: level }.into());
    let end_point = |name: &'static str, port| register_broker_record::BrokerEndpoint {
        name: name.into(),
        host: "host".into(),
        port,
        security_protocol: 0,
    };
    for (broker_id, fenced, end_points) in [
        (1, false, vec![end_point("PLAINTEXT", 9092), end_point("OTHER", 9093)]),
        (2, true, vec![end_point("PLAINTEXT", 9092)]),
    ] {
        let record = RegisterBrokerRecord {
            broker_id,
            broker_epoch: 10,
            fenced,
            end_points,
            log_dirs: vec![DIRECTORY],
            rack: Some("r".into()),
            ..Default::default()
        };
        replay(record.into());
    }
    for (number, (name, partitions)) in topics.iter().enumerate() {
        let topic_id = topic_id(number as u8 + 1);
        replay(TopicRecord { name: ringlog_protocol::StrBytes::copy_from(name), topic_id }.into());
        for partition_id in 0..*partitions {
            let record = PartitionRecord {
                partition_id,
                topic_id,
                replicas: vec![1, 2],
                isr: vec![1],
                leader: 1 + partition_id % 2,
                leader_epoch: 5,
                directories: vec![DIRECTORY, DIRECTORY],
                ..Default::default()
            };
            replay(record.into());
        }
    }
    let provenance = Provenance {
        last_contained_offset: Offset(100),
        last_contained_epoch: LeaderEpoch(1),
        last_contained_timestamp: TimestampMs(0),
        is_offset_batch_aligned: true,
    };
    delta.apply(provenance).0
}
