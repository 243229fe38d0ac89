//! Metadata logs and snapshots that Apache Kafka 4.3.1 wrote, replayed.

#[path = "../../../tests/data/fixtures.rs"]
mod fixtures;

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_metadata::MetadataVersion;
use ringlog_metadata::bootstrap::{BootstrapMetadata, BootstrapRequest};
use ringlog_metadata::image::{
    ConfigResource, ConfigResourceType, MetadataChanges, MetadataDelta, MetadataImage, MetadataLoader, Provenance,
    SnapshotLoad,
};
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_types::Offset;
use serde_json::Value;

const FIXTURES: [&str; 3] = ["single-node", "unclean", "dynamic-quorum-jbod"];

/// The records of each batch with base and last offset; control batches have none.
fn batches(bytes: &[u8]) -> Vec<(Offset, Offset, Vec<RecordAndVersion>)> {
    let mut scratch = Scratch::new(1 << 20);
    let batches = BatchIter::new(bytes).map(|batch| {
        let batch = batch.expect("whole batches");
        let mut records = Vec::new();
        if !batch.header.is_control() {
            for record in batch.records(&mut scratch).unwrap() {
                let value = Bytes::copy_from_slice(record.unwrap().value.unwrap());
                let (record, version) = MetadataRecord::decode_framed(value).unwrap();
                records.push(RecordAndVersion { record, version });
            }
        }
        (batch.header.base_offset, batch.header.last_offset(), records)
    });
    batches.collect()
}

fn load_log(bytes: &[u8], until: Option<Offset>) -> MetadataLoader {
    let mut loader = MetadataLoader::new();
    for batch in BatchIter::new(bytes).map(Result::unwrap) {
        let header = batch.header;
        if until.is_some_and(|until| header.base_offset >= until) {
            break;
        }
        let records: Vec<MetadataRecord> =
            batches(batch.bytes).remove(0).2.into_iter().map(|record| record.record).collect();
        let (last, epoch) = (header.last_offset(), header.partition_leader_epoch);
        loader.load_batch(header.base_offset, last, epoch, header.max_timestamp, &records).unwrap();
        loader.publish();
    }
    loader
}

fn metadata_files(name: &str) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let files = fixtures::load(name);
    let is_metadata = |path: &str| path.contains("__cluster_metadata-0/");
    let log = files.iter().find(|(path, _)| is_metadata(path) && path.ends_with("0000.log")).unwrap().1.clone();
    let snapshots = files.into_iter().filter(|(path, _)| is_metadata(path) && path.ends_with(".checkpoint"));
    (log, snapshots.collect())
}

fn snapshot_image(bytes: &[u8]) -> MetadataImage {
    let mut scratch = Scratch::new(1 << 20);
    let mut load = SnapshotLoad::new();
    for batch in BatchIter::new(bytes).map(Result::unwrap).filter(|batch| !batch.header.is_control()) {
        batch.records(&mut scratch).unwrap().for_each(|record| load.record(record.unwrap().value.unwrap()));
    }
    MetadataLoader::new().finish_snapshot(load, Provenance::EMPTY).unwrap().image
}

fn as_json(configs: Option<&std::sync::Arc<ringlog_metadata::image::ConfigMap>>) -> Value {
    let pairs = configs.into_iter().flat_map(|configs| configs.iter());
    Value::Object(pairs.map(|(key, value)| (key.to_string(), Value::from(value.to_string()))).collect())
}

#[test]
fn logs_give_the_state_that_the_admin_client_saw() {
    for name in FIXTURES {
        let (log, _) = metadata_files(name);
        let loader = load_log(&log, None);
        let image = loader.image();
        let path = format!("{}/../../tests/data/fixtures/{name}.state.json", env!("CARGO_MANIFEST_DIR"));
        let state: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let topics = state["topics"].as_object().unwrap();
        assert_eq!(image.topics.len(), topics.len(), "{name}");
        for (topic_name, expected) in topics {
            let topic = image.topics.by_name(topic_name).unwrap();
            assert_eq!(topic.id.to_string(), expected["topicId"].as_str().unwrap());
            assert_eq!(topic.partitions.len() as u64, expected["partitions"].as_u64().unwrap());
            let configs = as_json(image.configs.get(&ConfigResource::topic(topic_name)));
            assert_eq!(configs, expected["configs"], "{name} {topic_name}");
        }
        for (broker, expected) in state["brokerConfigs"].as_object().unwrap() {
            let id = if broker == "<default>" { "" } else { broker };
            let resource = ConfigResource::new(ConfigResourceType::Broker, id);
            assert_eq!(as_json(image.configs.get(&resource)), *expected, "{name} broker {broker}");
        }
        for (feature, level) in state["finalizedFeatures"].as_object().unwrap() {
            // kraft.version lives in control records.
            if feature != "kraft.version" {
                assert_eq!(i64::from(image.features.level(feature)), level.as_i64().unwrap(), "{feature}");
            }
        }
        let quotas = state["quotas"].as_array().unwrap();
        assert_eq!(image.client_quotas.entities.len(), quotas.len());
        let credentials = state["scram"].as_object().unwrap().len();
        assert_eq!(image.scram.credentials.len(), credentials);
    }
}

#[test]
fn snapshots_equal_the_log_up_to_them_and_come_back_from_records() {
    let mut compared = 0;
    for name in FIXTURES {
        let (log, snapshots) = metadata_files(name);
        for (path, bytes) in snapshots {
            let file = path.rsplit('/').next().unwrap();
            let end = Offset(file[..20].parse().unwrap());
            if end.0 == 0 {
                continue;
            }
            let from_log = load_log(&log, Some(end));
            let from_snapshot = snapshot_image(&bytes);
            assert_eq!(*from_log.image(), from_snapshot, "{name} {file}");

            // The same records as Kafka's, but for order.
            let version = from_snapshot.metadata_version();
            let sorted = |records: Vec<RecordAndVersion>| {
                let mut records: Vec<String> = records.iter().map(|it| format!("{it:?}")).collect();
                records.sort_unstable();
                records
            };
            let mut ours = from_snapshot.to_records(version);
            let mut kafkas: Vec<RecordAndVersion> = batches(&bytes).into_iter().flat_map(|it| it.2).collect();
            for records in [&mut ours, &mut kafkas] {
                records.iter_mut().for_each(|it| normalize(&mut it.record));
            }
            assert_eq!(sorted(ours), sorted(kafkas), "{name} {file}");
            compared += 1;
        }
    }
    assert!(compared >= 4);
}

/// Lists whose order means nothing.
fn normalize(record: &mut MetadataRecord) {
    match record {
        MetadataRecord::RegisterBroker(record) => {
            record.features.sort_by(|a, b| a.name.cmp(&b.name));
            record.log_dirs.sort_unstable();
        }
        MetadataRecord::RegisterController(record) => record.features.sort_by(|a, b| a.name.cmp(&b.name)),
        MetadataRecord::ClientQuota(record) => record.entity.sort_by(|a, b| a.entity_type.cmp(&b.entity_type)),
        _ => {}
    }
}

#[test]
fn images_come_back_from_their_records_and_changes_say_everything() {
    for name in FIXTURES {
        let (log, _) = metadata_files(name);
        let loader = load_log(&log, None);
        let image = loader.image();
        let mut delta = MetadataDelta::new(&MetadataImage::empty());
        for record in image.to_records(image.metadata_version()) {
            let framed = record.encode_framed().unwrap();
            let (again, version) = MetadataRecord::decode_framed(framed).unwrap();
            assert_eq!(version, record.version);
            delta.replay(&again).unwrap();
        }
        let (again, changes) = delta.apply(Provenance::EMPTY);
        assert_eq!(again, *image, "{name}");
        let between = MetadataChanges::between(&MetadataImage::empty(), image);
        assert_eq!(changes, between, "{name}");
        assert!(MetadataChanges::between(image, &again).is_empty());
        // An older metadata.version leaves out what it can't say, and replays still.
        let mut older = MetadataDelta::new(&MetadataImage::empty());
        for record in image.to_records(MetadataVersion::MINIMUM) {
            let (record, _) = MetadataRecord::decode_framed(record.encode_framed().unwrap()).unwrap();
            older.replay(&record).unwrap();
        }
    }
}

#[test]
fn bootstrap_records_are_those_of_kafkas_format() {
    let files = fixtures::load("formatted");
    let expected = |run: &str| -> Vec<RecordAndVersion> {
        let bytes = files.iter().find(|(path, _)| path.contains(run) && path.ends_with("bootstrap.checkpoint"));
        batches(bytes.unwrap().1).into_iter().flat_map(|it| it.2).collect()
    };
    let made = |release: Option<&str>, levels: &[(&str, i16)]| {
        let feature_levels = levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        let release_version = release.map(str::to_owned);
        let request = BootstrapRequest { release_version, feature_levels, ..Default::default() };
        BootstrapMetadata::new(&request).map(|bootstrap| bootstrap.records).map_err(|error| error.to_string())
    };
    assert_eq!(made(None, &[]), Ok(expected("static-combined/")));
    assert_eq!(made(Some("3.9-IV0"), &[]), Ok(expected("static-3.9/")));
    assert_eq!(made(Some("3.3-IV3"), &[]), Ok(expected("static-3.3-IV3/")));
    assert_eq!(made(None, &[("transaction.version", 1), ("group.version", 0)]), Ok(expected("static-feature/")));
    let output = String::from_utf8(files["static-unstable-4.4/output.txt"].clone()).unwrap();
    assert!(output.contains(&made(Some("4.4-IV0"), &[]).unwrap_err()));
}
