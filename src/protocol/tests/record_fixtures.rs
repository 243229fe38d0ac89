//! Record batches as Apache Kafka 4.3.1 wrote them.

#[path = "../../../tests/data/fixtures.rs"]
mod fixtures;

use ringlog_protocol::records::*;
use ringlog_types::Offset;
use serde_json::Value;

const FIXTURES: [&str; 3] = ["single-node", "unclean", "dynamic-quorum-jbod"];
const UNPACKED_MAX: usize = 1 << 20;

fn batches(bytes: &[u8]) -> Vec<BatchRef<'_>> {
    BatchIter::new(bytes).map(|batch| batch.expect("Kafka's batches are whole")).collect()
}

#[test]
fn every_batch_matches_its_checksum_and_can_be_read() {
    let (mut batch_count, mut record_count) = (0, 0);
    let mut scratch = Scratch::new(UNPACKED_MAX);
    for name in FIXTURES.into_iter().chain(["formatted"]) {
        for (path, bytes) in fixtures::load(name) {
            if ![".log", ".log.deleted", ".checkpoint"].iter().any(|suffix| path.ends_with(suffix)) {
                continue;
            }
            for batch in batches(&bytes) {
                batch.verify_crc().unwrap_or_else(|fault| panic!("{name} {path}: {fault}"));
                assert_eq!(batch.header.encode(), batch.bytes[..BATCH_HEADER_LEN]);
                let records: Vec<_> = batch.records(&mut scratch).unwrap().map(Result::unwrap).collect();
                assert_eq!(records.len(), batch.header.record_count as usize);
                batch_count += 1;
                record_count += records.len();
            }
        }
    }
    assert!(batch_count > 400 && record_count > 3000, "{batch_count} batches, {record_count} records");
}

/// What a batch's options were, read back from its header.
fn options_of(header: &BatchHeader) -> BatchOptions {
    BatchOptions {
        base_offset: header.base_offset,
        partition_leader_epoch: header.partition_leader_epoch,
        compression: header.compression().unwrap(),
        compression_level: None,
        log_append_time: (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp),
        producer: ProducerStamp {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        },
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
        delete_horizon: header.delete_horizon(),
    }
}

#[test]
fn rebuilt_batches_are_equal_byte_for_byte() {
    let mut rebuilt_count = 0;
    let mut scratch = Scratch::new(UNPACKED_MAX);
    for name in FIXTURES {
        let files = fixtures::load(name);
        for (path, bytes) in fixtures::with_suffix(&files, ".log") {
            for batch in batches(bytes) {
                if batch.header.compression() != Ok(Compression::None) {
                    continue;
                }
                let mut builder = BatchBuilder::new(options_of(&batch.header));
                for record in batch.records(&mut scratch).unwrap().map(Result::unwrap) {
                    builder.append_at(record.offset, record.timestamp, record.key, record.value, record.headers);
                }
                builder.retain_last_offset(batch.header.last_offset());
                assert_eq!(builder.build(), batch.bytes, "{name} {path} at offset {}", batch.header.base_offset);
                rebuilt_count += 1;
            }
        }
    }
    assert!(rebuilt_count > 300, "{rebuilt_count}");
}

#[test]
fn repacked_batches_hold_the_same_records() {
    let files = fixtures::load("single-node");
    let (mut scratch, mut scratch_repacked) = (Scratch::new(UNPACKED_MAX), Scratch::new(UNPACKED_MAX));
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bytes = &files[&format!("fx-{}-0/00000000000000000000.log", codec.name())];
        for batch in batches(bytes) {
            assert_eq!(batch.header.compression(), Ok(codec));
            for target in Compression::ALL {
                let mut builder = BatchBuilder::new(BatchOptions { compression: target, ..options_of(&batch.header) });
                for record in batch.records(&mut scratch).unwrap().map(Result::unwrap) {
                    builder.append_at(record.offset, record.timestamp, record.key, record.value, record.headers);
                }
                let repacked = builder.build();
                let repacked = BatchRef::parse(&repacked).unwrap();
                repacked.verify_crc().unwrap();
                let before = batch.records(&mut scratch).unwrap().map(Result::unwrap);
                let after = repacked.records(&mut scratch_repacked).unwrap().map(Result::unwrap);
                assert!(before.eq(after), "{codec:?} to {target:?}");
            }
        }
    }
}

/// Bytes as reads.json writes them.
fn text_of(bytes: Option<&[u8]>) -> Value {
    match bytes {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(format!("base64:{}", base64(bytes))),
        },
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            out.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

fn json_of(batch: &BatchRef<'_>, record: &RecordRef<'_>) -> Value {
    let timestamp_type = match batch.header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    let mut json = serde_json::json!({
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "timestampType": timestamp_type,
        "leaderEpoch": batch.header.partition_leader_epoch.0,
        "key": text_of(record.key),
        "value": text_of(record.value),
    });
    if !record.headers.is_empty() {
        let headers = record.headers.map(|header| Value::from(vec![text_of(Some(header.key)), text_of(header.value)]));
        json["headers"] = headers.collect();
    }
    json
}

#[test]
fn records_are_those_that_the_java_consumer_read() {
    let mut scratch = Scratch::new(UNPACKED_MAX);
    let mut compared = 0;
    for name in FIXTURES {
        let files = fixtures::load(name);
        let reads: Value = serde_json::from_slice(&fixtures::reads_json(name)).unwrap();
        for (partition, read) in reads.as_object().unwrap() {
            let in_partition = |path: &str| {
                path.rsplit_once('/').is_some_and(|(folder, _)| folder.rsplit('/').next() == Some(partition.as_str()))
            };
            let mut found = Vec::new();
            for (path, bytes) in fixtures::with_suffix(&files, ".log") {
                if !in_partition(path) {
                    continue;
                }
                for batch in batches(bytes) {
                    if batch.header.is_control() {
                        continue;
                    }
                    for record in batch.records(&mut scratch).unwrap().map(Result::unwrap) {
                        if record.offset >= Offset(read["logStartOffset"].as_i64().unwrap()) {
                            found.push(json_of(&batch, &record));
                        }
                    }
                }
            }
            assert_eq!(&Value::from(found), &read["records"], "{name} {partition}");
            compared += read["records"].as_array().unwrap().len();
        }
    }
    assert!(compared > 2000, "{compared}");
}

#[test]
fn transaction_markers_are_read() {
    let files = fixtures::load("single-node");
    let mut scratch = Scratch::new(0);
    let mut markers = Vec::new();
    for (_, bytes) in fixtures::with_suffix(&files, "fx-txn-0/00000000000000000004.log") {
        for batch in batches(bytes).into_iter().filter(|batch| batch.header.is_control()) {
            for record in batch.records(&mut scratch).unwrap().map(Result::unwrap) {
                let marker = EndTransactionMarker::parse(record.key.unwrap(), record.value.unwrap()).unwrap();
                let header = &batch.header;
                let built = end_transaction_batch(
                    header.base_offset,
                    header.partition_leader_epoch,
                    record.timestamp,
                    header.producer_id,
                    header.producer_epoch,
                    marker,
                );
                assert_eq!(built, batch.bytes);
                markers.push(marker.is_commit);
            }
        }
    }
    assert!(markers.contains(&true) && markers.contains(&false), "{markers:?}");
}
