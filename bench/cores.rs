//! Criterion benches of what runs for each request: codec, batch validation, append and fetch planning.

#![allow(missing_docs, reason = "criterion's macros")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlog_log::validator::AppendOrigin;
use ringlog_log::{Log, LogConfig, TransactionRules};
use ringlog_partition::{
    AppendContext, IsolationLevel, LeaderAppend, LeaderState, Partition, PartitionLimits, ReadRequest, Reader,
    RecoveryState,
};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, BatchRef, Unpacker};
use ringlog_protocol::{Message, Records};
use ringlog_types::{
    LeaderEpoch, MonotonicMs, NodeId, Now, Offset, PartitionEpoch, PartitionIndex, TimestampMs, TopicIdPartition,
    TopicPartition, Uuid,
};

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

/// A leader of one replica, with `batches` batches in its log.
fn leader(batches: usize) -> (Partition, LogConfig, TopicPartition) {
    let (now, config) = (now(), LogConfig::default());
    let id = TopicIdPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) };
    let name = TopicPartition { topic: "topic".into(), partition: PartitionIndex(0) };
    let log = Log::new(Offset(0), now.wall, 0);
    let mut partition = Partition::new(id, NodeId(1), log, Offset(0), PartitionLimits::default());
    let state = LeaderState {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        replicas: &[NodeId(1)],
        isr: &[NodeId(1)],
        inactive: &[],
        recovery_state: RecoveryState::Recovered,
    };
    partition.become_leader(&state, &config, now.monotonic);
    let records = batch(64, 1024);
    for _ in 0..batches {
        append(&mut partition, &config, &name, &records);
    }
    (partition, config, name)
}

fn now() -> Now {
    Now { monotonic: MonotonicMs(1_000_000), wall: TimestampMs(1_700_000_001_000) }
}

fn append(partition: &mut Partition, config: &LogConfig, name: &TopicPartition, records: &Bytes) {
    let context = AppendContext {
        topic_partition: name,
        config,
        origin: AppendOrigin::Client,
        required_acks: -1,
        rules: TransactionRules::default(),
        now: now(),
    };
    let appended = partition.leader_prepare(records, &context, &mut Unpacker::new()).expect("is taken");
    let LeaderAppend::Append(prepared) = appended else { panic!("no producer id, so no duplicate") };
    partition.on_durable(prepared.next_offset, config, now().monotonic);
}

fn append_and_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    let records = batch(64, 1024);
    group.throughput(Throughput::Bytes(records.len() as u64));
    group.bench_function("validate_and_append_64x1k", |bencher| {
        let (mut partition, config, name) = leader(0);
        bencher.iter(|| append(&mut partition, &config, &name, &records));
    });
    group.throughput(Throughput::Elements(1));
    let (partition, ..) = leader(10_000);
    for (name, fetch_offset) in [("tail", 64 * 9_999), ("middle", 64 * 5_000)] {
        let request = ReadRequest {
            fetch_offset: Offset(fetch_offset),
            reader: Reader::Consumer { isolation: IsolationLevel::ReadUncommitted, from_follower: true },
            current_leader_epoch: None,
            last_fetched_epoch: None,
        };
        group.bench_function(format!("plan_fetch_{name}"), |bencher| {
            bencher.iter(|| partition.read(&request).expect("is in the log"));
        });
    }
    group.finish();
}

criterion_group!(benches, codec, validation, append_and_read);
criterion_main!(benches);
