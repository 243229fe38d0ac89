//! Criterion benches of what runs for each request: codec, batch validation, append and fetch planning.

#![allow(missing_docs, reason = "criterion's macros")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, BatchRef};
use ringlog_protocol::{Message, Records};
use ringlog_types::TimestampMs;

fn batch(records: usize, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for number in 0..records {
        builder.append(TimestampMs(1_700_000_000_000 + number as i64), Some(b"key"), Some(&vec![7; value_bytes]), &[]);
    }
    builder.build()
}

fn codec(criterion: &mut Criterion) {
    let data = PartitionProduceData { index: 0, records: Some(Records::from(batch(64, 1024))) };
    let topic = TopicProduceData { name: "topic".into(), partition_data: vec![data], ..TopicProduceData::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() };
    let bytes = request.to_bytes(12).expect("encodes");
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode_produce_64k", |bencher| {
        bencher.iter(|| ProduceRequest::from_bytes(bytes.clone(), 12).expect("decodes"));
    });
    group.finish();
}

fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for (name, records, value_bytes) in [("64x1k", 64, 1024), ("1000x100", 1000, 100), ("1x1k", 1, 1024)] {
        let bytes = batch(records, value_bytes);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("crc_{name}"), |bencher| {
            bencher.iter(|| BatchRef::parse(&bytes).expect("parses").verify_crc().expect("intact"));
        });
    }
    group.finish();
}

criterion_group!(benches, codec, validation);
criterion_main!(benches);
