//! Batches with every kind of damage, and what Apache Kafka 4.3.1 made of them (`tests/data/batches.jsonl`).

#[path = "../../../tests/data/batches.rs"]
mod batches;

use std::path::Path;

use batches::{Batch, abridged, masked, rewritten};
use bytes::Bytes;
use ringlog_log::LogConfig;
use ringlog_log::validator::*;
use ringlog_protocol::records::{BatchRef, Compression, Scratch, TimestampType, Unpacker};
use ringlog_types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicPartition};
use serde_json::{Value, json};

const NOW: TimestampMs = TimestampMs(1_800_000_000_000);
/// Larger than any of the batches.
const UNPACKED_MAX: usize = 64 << 20;

fn cases() -> Vec<Batch> {
    batches::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data"))
}

fn records(case: &Batch) -> Bytes {
    Bytes::copy_from_slice(&case.bytes)
}

/// The topics' settings, as in `tests/e2e/batches/answers.rs`.
fn config(topic: &str) -> LogConfig {
    let codec = |compression| TopicCompression::Codec { compression, level: None };
    let config = LogConfig::default();
    match topic {
        "uncompressed" => LogConfig { compression: codec(Compression::None), ..config },
        "lz4" => LogConfig { compression: codec(Compression::Lz4), ..config },
        "appended" => LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..config },
        "compacted" => LogConfig { cleanup_compact: true, ..config },
        "recent" => LogConfig { message_timestamp_before_max_ms: 3_600_000, ..config },
        "small" => LogConfig { max_message_bytes: 300, ..config },
        _ => config,
    }
}

fn rules(case: &Batch, topic: &str) -> BatchRules {
    let rules = BatchRules::new(&config(topic), AppendOrigin::Client, NOW);
    BatchRules { is_zstd_allowed: case.version >= 7, ..rules }
}

fn topic_partition(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: PartitionIndex(0) }
}

fn outcome(case: &Batch, topic: &str) -> Result<ValidatedBatch, ValidationError> {
    let destination =
        Destination { base_offset: Offset(500), leader_epoch: LeaderEpoch(7), segment_bytes_max: 1 << 30, now: NOW };
    let topic_partition = topic_partition(topic);
    validate(&records(case), &topic_partition, &rules(case, topic), &destination, &mut Unpacker::new())
}

/// In the form of the file, as far as a validator can tell.
fn told(case: &Batch, topic: &str) -> Value {
    let words = |text: &str| masked(text, &format!("{topic}-0"));
    if let Err(fault) = holds_transaction(&case.bytes) {
        return json!({ "code": fault.code.code(), "message": fault.message, "records": [], "rest": "unknown" });
    }
    match outcome(case, topic) {
        Ok(batch) => {
            let header = &batch.header;
            let is_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
            json!({
                "code": 0,
                "attributes": header.attributes,
                "last offset delta": header.last_offset_delta,
                "count": header.record_count,
                "base timestamp": header.base_timestamp.0,
                "max timestamp": if is_append_time { 0 } else { header.max_timestamp.0 },
                "producer": [header.producer_id.0, i64::from(header.producer_epoch.0), i64::from(header.base_sequence)],
                "records": if batch.is_rewritten { written_anew(&batch) } else { json!("as sent") },
                "append time": "unknown",
                "log start": "unknown",
            })
        }
        Err(error) => {
            // Neither is in older versions.
            let is_listed = case.version >= 8;
            let errors = error.record_errors.iter().filter(|_| is_listed);
            let errors: Vec<Value> = errors.map(|it| json!([it.batch_index, words(&it.message)])).collect();
            let message = error.response_message().filter(|_| is_listed).map(words);
            let code = error.code.code();
            json!({ "code": code, "message": message, "records": abridged(errors), "rest": "unknown" })
        }
    }
}

fn written_anew(batch: &ValidatedBatch) -> Value {
    let bytes = batch.header.compression().unwrap().decompress(&batch.payload, UNPACKED_MAX).unwrap();
    rewritten(batch.header.record_count as usize, &bytes)
}

#[test]
fn a_batch_is_judged_as_kafka_judges_it() {
    let (mut judged, mut faults) = (0, Vec::new());
    for mut case in cases() {
        // Transactions aren't a validator's business, and neither are producers' epochs.
        if holds_transaction(&case.bytes) == Ok(true) || case.name == "producer: epoch -2" {
            continue;
        }
        for field in ["rest", "append time", "log start"] {
            case.answers.iter_mut().filter_map(|answer| answer.get_mut(field)).for_each(|it| *it = json!("unknown"));
        }
        for (topic, expected) in case.expected() {
            judged += 1;
            let told = told(&case, &topic);
            if !expected.fits(&told) {
                faults.push(format!("{}, topic {topic}\n  expected: {expected:?}\n  told:     {told}", case.name));
            }
        }
    }
    assert!(judged > 5_000, "{judged}");
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn what_is_taken_can_be_read() {
    let mut scratch = Scratch::new(UNPACKED_MAX);
    for case in cases() {
        for topic in ["plain", "uncompressed", "lz4", "appended"] {
            let Ok(batch) = outcome(&case, topic) else { continue };
            let stored = batch.to_contiguous();
            let stored = BatchRef::parse(&stored).unwrap();
            stored.verify_crc().unwrap();
            let records = stored.records(&mut scratch).unwrap().collect::<Result<Vec<_>, _>>();
            let records = records.unwrap_or_else(|fault| panic!("{}, topic {topic}: {fault}", case.name));
            assert_eq!(records.len(), batch.header.record_count as usize);
            assert_eq!(records.last().unwrap().offset, batch.header.last_offset(), "{}", case.name);
        }
    }
}

#[test]
fn steps_of_any_size_end_alike() {
    let mut unpacker = Unpacker::new();
    for case in cases() {
        for topic in ["plain", "lz4"] {
            let whole = check(&records(&case), &topic_partition(topic), &rules(&case, topic), &mut unpacker);
            for budget in [1, 100_000] {
                let mut check = BatchCheck::begin(records(&case), topic_partition(topic), rules(&case, topic));
                let mut steps = 0;
                loop {
                    match check.step(&mut unpacker, budget) {
                        CheckProgress::Done => break,
                        CheckProgress::More => steps += 1,
                        CheckProgress::Long => check.run(&mut unpacker),
                    }
                }
                assert!(steps <= 1 + (4 << 20) / budget.min(1 << 15), "{}: {steps} steps", case.name);
                assert_eq!(check.finish(), whole, "{}", case.name);
            }
        }
    }
}

/// With the switch off, a good header is believed and nothing else is different.
#[test]
fn who_trusts_producers_believes_their_headers() {
    let (mut believed, mut unpacker) = (0, Unpacker::new());
    for case in cases().into_iter().filter(|case| holds_transaction(&case.bytes) == Ok(false)) {
        let looking = rules(&case, "plain");
        let trusting = BatchRules { looks_inside: false, ..looking };
        let seen = check(&records(&case), &topic_partition("plain"), &looking, &mut unpacker);
        let trusted = check(&records(&case), &topic_partition("plain"), &trusting, &mut unpacker);
        if seen.is_ok() {
            assert!(trusted.is_ok(), "{}", case.name);
        }
        let is_compressed = case.bytes.get(22).is_some_and(|attributes| attributes & 7 != 0);
        if !is_compressed {
            assert_eq!(seen, trusted, "{}", case.name);
        }
        believed += usize::from(seen.is_err() && trusted.is_ok());
    }
    assert!(believed > 200, "{believed}");
}
