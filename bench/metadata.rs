//! Criterion benches of a metadata image with a million partitions: its memory, snapshots in and out, and what the
//! controller does over all of it.

#![allow(missing_docs, reason = "criterion's macros")]

use std::fs;
use std::process;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, criterion_group};
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_metadata::controller::AllowAll;
use ringlog_metadata::image::SnapshotLoad;
use ringlog_metadata::{
    Controller, ControllerConfig, MetadataChanges, MetadataDelta, MetadataImage, MetadataLoader, Provenance,
    RequestContext,
};
use ringlog_protocol::RequestBody;
use ringlog_protocol::messages::BrokerHeartbeatRequest;
use ringlog_protocol::metadata_records::{
    MetadataRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord,
};
use ringlog_raft::SnapshotId;
use ringlog_raft::snapshot::{self, SnapshotWriter};
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid};

/// Brokers that hold replicas; one more holds none.
const BROKERS: u64 = 100;
const IDLE_BROKER: i32 = BROKERS as i32;
const REPLICATION_FACTOR: u64 = 3;

/// How a million partitions are spread over topics.
#[derive(Clone, Copy)]
struct Shape {
    topics: u32,
    partitions: u32,
}

const SHAPES: [Shape; 2] = [Shape { topics: 10_000, partitions: 100 }, Shape { topics: 100_000, partitions: 10 }];

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.topics, self.partitions)
    }
}

fn directory(broker: i32) -> Uuid {
    Uuid::random(&mut Random::from_seed(1_000 + broker.unsigned_abs() as u64))
}

fn topic_id(number: u32) -> Uuid {
    Uuid::random(&mut Random::from_seed(1_000_000 + u64::from(number)))
}

fn partition_record(topic_id: Uuid, index: u32, random: &mut Random) -> PartitionRecord {
    let first = random.below(BROKERS);
    let step = 1 + random.below(BROKERS / REPLICATION_FACTOR);
    let replicas: Vec<i32> = (0..REPLICATION_FACTOR).map(|place| ((first + place * step) % BROKERS) as i32).collect();
    PartitionRecord {
        partition_id: index as i32,
        topic_id,
        leader: replicas[0],
        leader_epoch: 3,
        partition_epoch: 7,
        isr: replicas.clone(),
        directories: replicas.iter().map(|id| directory(*id)).collect(),
        replicas,
        ..PartitionRecord::default()
    }
}

/// Set to the number of a shape it makes this program print that shape's memory and end.
const MEMORY_OF: &str = "RINGLOG_BENCH_MEMORY_OF";

/// Hands every record of a cluster of this shape to `sink`.
fn for_each_record(shape: Shape, sink: &mut dyn FnMut(MetadataRecord)) {
    let mut random = Random::from_seed(7);
    for record in BootstrapMetadata::latest().records {
        sink(record.record);
    }
    for broker in 0..=IDLE_BROKER {
        let log_dirs = vec![directory(broker)];
        sink(
            RegisterBrokerRecord { broker_id: broker, broker_epoch: 1, fenced: false, log_dirs, ..Default::default() }
                .into(),
        );
    }
    for number in 0..shape.topics {
        let topic_id = topic_id(number);
        sink(TopicRecord { name: format!("orders.events-v{number}").into(), topic_id }.into());
        for index in 0..shape.partitions {
            sink(partition_record(topic_id, index, &mut random).into());
        }
    }
}

fn image_of(shape: Shape) -> MetadataImage {
    let mut image = MetadataImage::empty();
    for_each_record(shape, &mut |record| {
        image.replay(&record, &mut MetadataChanges::default()).expect("the records fit");
    });
    image
}

fn write_snapshot(image: &MetadataImage) -> Vec<u8> {
    let id = SnapshotId { end_offset: Offset(5_000_000), epoch: LeaderEpoch(9) };
    let now = TimestampMs(1_700_000_000_000);
    let mut writer = SnapshotWriter::new(id, now, None, now);
    let mut file = Vec::new();
    image.for_each_record(image.metadata_version(), &mut |record| {
        writer.append(&record.encode_framed().expect("records fit"), now);
        writer.take_ready().iter().for_each(|batch| file.extend_from_slice(batch));
    });
    writer.finish(now).iter().for_each(|batch| file.extend_from_slice(batch));
    file
}

fn load_snapshot(file: &[u8]) -> MetadataImage {
    let mut load = SnapshotLoad::new();
    snapshot::read(file, |value| load.record(value)).expect("a whole snapshot");
    MetadataLoader::new().finish_snapshot(load, Provenance::EMPTY).expect("records fit").image
}

fn now() -> Now {
    Now { monotonic: MonotonicMs(1_000), wall: TimestampMs(1_700_000_000_000) }
}

fn activate(image: &MetadataImage) -> Controller {
    let mut controller = Controller::new(ControllerConfig::new(NodeId(1), "cluster", BootstrapMetadata::latest()));
    controller.activate(image.clone(), false, LeaderEpoch(1), Offset(5_000_000), now());
    controller
}

fn heartbeat(controller: &mut Controller, want_fence: bool) {
    let request = BrokerHeartbeatRequest {
        broker_id: IDLE_BROKER,
        broker_epoch: 1,
        want_fence,
        current_metadata_offset: 6_000_000,
        ..Default::default()
    };
    let context = RequestContext {
        api_version: 1,
        principal: "User:bench",
        is_token_authenticated: false,
        is_forwarded: true,
        authorizer: &AllowAll,
        now: now(),
        received_at: now().monotonic,
        next_offset: Offset(6_000_000),
        kraft_version: 1,
        may_raise_kraft_version: &|_| Ok(()),
        voters: &[NodeId(1)],
    };
    let result = controller.handle(&RequestBody::BrokerHeartbeat(request), &context).expect("is active");
    assert_eq!(result.records.len(), 1);
}

/// Bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// Prints what a partition takes, everything counted: in an image, and then in that of an active controller too, after
/// each partition changed in both. To be run in a process of its own, whose memory nothing else has used before.
fn print_memory(shape: Shape) {
    let before = resident_bytes();
    let mut image = image_of(shape);
    let count = image.topics.partition_count() as f64;
    let of_each = |bytes: usize| bytes.saturating_sub(before) as f64 / count;
    println!("metadata/memory/{shape}: {:.0} bytes per partition", of_each(resident_bytes()));
    let mut uncommitted = image.clone();
    for index in 0..shape.partitions {
        for from in (0..shape.topics).step_by(1_000) {
            let records: Vec<_> = (from..from + 1_000).map(|number| change(topic_id(number), index)).collect();
            uncommitted = replay(&uncommitted, &records).0;
            let (published, changes) = replay(&image, &records);
            image = published;
            uncommitted.share_with(&image, &changes);
        }
    }
    println!("metadata/memory_of_both/{shape}: {:.0} bytes per partition", of_each(resident_bytes()));
    drop(uncommitted);
}

fn change(topic_id: Uuid, index: u32) -> MetadataRecord {
    let isr = Some(vec![1, 2]);
    PartitionChangeRecord { partition_id: index as i32, topic_id, isr, ..Default::default() }.into()
}

fn replay(image: &MetadataImage, records: &[MetadataRecord]) -> (MetadataImage, MetadataChanges) {
    let mut delta = MetadataDelta::new(image);
    for record in records {
        delta.replay(record).expect("the partition is there");
    }
    delta.apply(Provenance::EMPTY)
}

fn whole_images(group: &mut BenchmarkGroup<'_, WallTime>, shape: Shape) {
    let file = write_snapshot(&image_of(shape));
    let image = load_snapshot(&file);
    group.bench_function(format!("load_snapshot/{shape}"), |bencher| {
        bencher.iter_with_large_drop(|| load_snapshot(&file));
    });
    group.bench_function(format!("read_snapshot_only/{shape}"), |bencher| {
        bencher.iter(|| snapshot::read(&file, |_| {}).expect("a whole snapshot"));
    });
    group.bench_function(format!("drop/{shape}"), |bencher| {
        bencher.iter_batched(|| load_snapshot(&file), drop, BatchSize::PerIteration);
    });
    group.bench_function(format!("write_snapshot/{shape}"), |bencher| {
        bencher.iter_with_large_drop(|| write_snapshot(&image));
    });
    group.bench_function(format!("changes_from_empty/{shape}"), |bencher| {
        bencher.iter_with_large_drop(|| MetadataChanges::between(&MetadataImage::empty(), &image));
    });
    let other = load_snapshot(&file);
    group.bench_function(format!("changes_between_equal/{shape}"), |bencher| {
        bencher.iter(|| MetadataChanges::between(&other, &image));
    });
    group.bench_function(format!("activate/{shape}"), |bencher| {
        bencher.iter_with_large_drop(|| activate(&image));
    });
    let mut controller = activate(&image);
    group.bench_function(format!("partitions_of_a_broker/{shape}"), |bencher| {
        bencher.iter(|| {
            // Fencing scans once, the other way doesn't.
            heartbeat(&mut controller, true);
            heartbeat(&mut controller, false);
        });
    });
    drop(controller);
    changes(group, shape, &image);
}

fn changes(group: &mut BenchmarkGroup<'_, WallTime>, shape: Shape, image: &MetadataImage) {
    let spread = |from: u32, count: u32| {
        let numbers = (from..from + count).map(|number| number.wrapping_mul(7919));
        numbers.map(|number| change(topic_id(number % shape.topics), number % shape.partitions)).collect::<Vec<_>>()
    };
    for count in [1, 10_000] {
        let mut from = 0;
        group.bench_function(format!("change_{count}/{shape}"), |bencher| {
            bencher.iter_batched(
                || {
                    from += count;
                    spread(from, count)
                },
                |records| replay(image, &records),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("share_after_{count}/{shape}"), |bencher| {
            bencher.iter_batched(
                || {
                    from += count;
                    let records = spread(from, count);
                    (replay(image, &records), replay(image, &records))
                },
                |((mut own, changes), (other, _))| {
                    own.share_with(&other, &changes);
                    (own, other)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn metadata(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metadata");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for shape in SHAPES {
        whole_images(&mut group, shape);
    }
    let large = image_of(Shape { topics: 1, partitions: 10_000 });
    group.bench_function("change_1/1x10000", |bencher| {
        bencher.iter_with_large_drop(|| replay(&large, &[change(topic_id(0), 7_000)]));
    });
    group.finish();
}

criterion_group!(benches, metadata);

fn main() {
    match std::env::var(MEMORY_OF).ok().and_then(|number| number.parse::<usize>().ok()) {
        Some(number) => print_memory(SHAPES[number]),
        None => {
            for number in 0..SHAPES.len() {
                let program = std::env::current_exe().expect("this program's path is known");
                let status = process::Command::new(program).env(MEMORY_OF, number.to_string()).status();
                assert!(status.expect("it starts once more").success());
            }
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
