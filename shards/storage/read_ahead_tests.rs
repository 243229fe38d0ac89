//! How much the disk reads for what consumers get, when the log is in no memory.

use std::rc::Rc;

use ringlog_protocol::messages::{FetchRequest, ProduceRequest, fetch_request, produce_request};
use ringlog_protocol::records::{BatchBuilder, BatchIter, BatchOptions};
use ringlog_protocol::{ApiKey, Records};
use ringlog_ring as ring;
use ringlog_types::TimestampMs;

use crate::core::Room as _;
use crate::data::{fetch, produce};
use crate::log_dirs::tests::cluster::TestNode;
use crate::shard::Shard;
use crate::test_metadata::{context, on_every_core, served_image, start};

const TOPIC: &str = "t";
/// What is written to a partition that is alone.
const LOG_BYTES: usize = 12 << 20;
/// Consumers' limits, among them the default and what lies around one disk operation.
const FETCH_SIZES: [i32; 9] = [16 << 10, 64 << 10, 70_000, 256 << 10, 1_000_000, 1 << 20, 2 << 20, 3_000_000, 8 << 20];
/// Kafka's consumers don't want more than this of an answer.
const ANSWER_BYTES: i32 = 50 << 20;

/// Partitions with odd numbers are led by the other broker.
fn partitions(count: usize) -> Vec<i32> {
    (0..count as i32).map(|number| number * 2).collect()
}

/// Writes so many batches of about that size to each partition, and leaves nothing of them in memory.
async fn write(shard: &Rc<Shard>, partitions: &[i32], batch_bytes: usize, batches: i64) {
    for &index in partitions {
        for _ in 0..batches {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.append(TimestampMs(1000), None, Some(&vec![7; batch_bytes - 80]), &[]);
            let records = Some(Records::from(builder.build()));
            let data = produce_request::PartitionProduceData { index, records };
            let topic = produce_request::TopicProduceData {
                name: TOPIC.into(),
                partition_data: vec![data],
                ..Default::default()
            };
            let request = ProduceRequest { acks: 1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() };
            let response = produce::begin(&shard.data, &context(ApiKey::Produce, 8), request).await.await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
    }
    on_every_core(shard, |shard| {
        for replica in shard.data.replicas.all() {
            replica.release_clean_frames();
        }
        Box::pin(std::future::ready(()))
    })
    .await;
}

/// What all cores have read so far.
async fn disk_bytes(shard: &Rc<Shard>) -> u64 {
    let mut bytes = 0;
    for core in 0..shard.core.node.shards {
        bytes += shard.invoke_on(core, |_| Box::pin(std::future::ready(ring::disk_reads().bytes))).await;
    }
    bytes
}

/// A consumer of some partitions.
struct Consumer {
    /// With the next offset to read.
    partitions: Vec<(i32, i64)>,
    fetch_bytes: i32,
    answer_bytes: i32,
    served: u64,
    fetches: u64,
}

impl Consumer {
    fn new(partitions: &[i32], from: i64, fetch_bytes: i32) -> Consumer {
        let partitions = partitions.iter().map(|partition| (*partition, from)).collect();
        Consumer { partitions, fetch_bytes, answer_bytes: ANSWER_BYTES, served: 0, fetches: 0 }
    }

    /// Fetches once; whether anything came. Partitions that gave something come last next time.
    async fn fetch(&mut self, shard: &Rc<Shard>) -> bool {
        let wanted = self.partitions.iter().map(|(partition, fetch_offset)| fetch_request::FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            partition_max_bytes: self.fetch_bytes,
            ..Default::default()
        });
        let topic =
            fetch_request::FetchTopic { topic: TOPIC.into(), partitions: wanted.collect(), ..Default::default() };
        let max_bytes = self.answer_bytes;
        let request = FetchRequest { min_bytes: 1, max_bytes, topics: vec![topic], ..Default::default() };
        let response = fetch::handle(&shard.data, &context(ApiKey::Fetch, 12), request).await;
        self.fetches += 1;
        let mut given = Vec::new();
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            assert_eq!(data.error_code, 0);
            let records = data.records.map(Records::into_contiguous).unwrap_or_default();
            let Some(last) = BatchIter::new(&records).map_while(Result::ok).last() else {
                assert!(records.is_empty(), "an answer begins with a whole batch");
                continue;
            };
            self.served += records.len() as u64;
            given.push((data.partition_index, last.header.next_offset().0));
        }
        self.partitions.retain(|(partition, _)| !given.iter().any(|(other, _)| other == partition));
        let has_come = !given.is_empty();
        self.partitions.extend(given);
        has_come
    }

    /// Reads to the end.
    async fn read_all(&mut self, shard: &Rc<Shard>, partitions: usize, batches: i64) {
        while self.fetch(shard).await {}
        assert_eq!(self.partitions.len(), partitions);
        assert!(self.partitions.iter().all(|(_, offset)| *offset == batches), "{:?} of {batches}", self.partitions);
    }
}

fn assert_frugal(what: &str, disk: u64, served: u64) {
    assert!(
        disk as f64 <= served as f64 * 1.2,
        "{what}: {disk} bytes read for {served}, {:.2}",
        disk as f64 / served as f64
    );
}

/// One that keeps nothing of what it has read.
fn on_node(shards: usize, topic_partitions: i32, scenario: impl AsyncFnOnce(Rc<Shard>) + Send + 'static) {
    on_node_with_cache(0, shards, topic_partitions, scenario);
}

fn on_node_with_cache(
    cache_bytes: usize,
    shards: usize,
    topic_partitions: i32,
    scenario: impl AsyncFnOnce(Rc<Shard>) + Send + 'static,
) {
    let node = TestNode::formatted().with_cache(cache_bytes);
    node.run(shards, async move |shard| {
        start(&shard, served_image(&[(TOPIC, topic_partitions)])).await;
        scenario(shard).await;
    });
}

#[test]
fn one_reader_costs_what_it_gets_at_every_size() {
    for batch_bytes in [2_000, 16_384, 300_000, 1_000_000] {
        on_node(1, 1, async move |shard| {
            let batches = (LOG_BYTES / batch_bytes) as i64;
            write(&shard, &[0], batch_bytes, batches).await;
            for fetch_bytes in FETCH_SIZES {
                for from in [0, batches / 3] {
                    let before = disk_bytes(&shard).await;
                    let mut consumer = Consumer::new(&[0], from, fetch_bytes);
                    consumer.read_all(&shard, 1, batches).await;
                    let what = format!("batches of {batch_bytes}, fetches of {fetch_bytes}, from {from}");
                    assert_frugal(&what, disk_bytes(&shard).await - before, consumer.served);
                    // Answers are short only where that spares something.
                    let largest = fetch_bytes.clamp(batch_bytes as i32, 1 << 20) as u64;
                    assert!(
                        consumer.fetches <= 2 * consumer.served / largest + 4,
                        "{what}: {} fetches",
                        consumer.fetches
                    );
                }
            }
        });
    }
}

#[test]
fn two_readers_cost_what_they_get_wherever_they_are() {
    on_node(1, 1, async move |shard| {
        let batch_bytes = 16_384;
        let batches = (LOG_BYTES / batch_bytes) as i64;
        write(&shard, &[0], batch_bytes, batches).await;
        for fetch_bytes in [70_000, 1 << 20, 8 << 20] {
            for ahead_by in [0, 1, 20, 70, batches / 2] {
                let before = disk_bytes(&shard).await;
                let mut first = Consumer::new(&[0], ahead_by, fetch_bytes);
                let mut second = Consumer::new(&[0], 0, fetch_bytes);
                while first.fetch(&shard).await | second.fetch(&shard).await {}
                let served = first.served + second.served;
                let what = format!("fetches of {fetch_bytes}, {ahead_by} batches apart");
                assert_frugal(&what, disk_bytes(&shard).await - before, served);
            }
        }
    });
}

#[test]
fn many_partitions_in_one_fetch_cost_what_is_sent_of_them() {
    for shards in [1, 2] {
        for answer_bytes in [100_000, 1_000_000, 5 << 20, ANSWER_BYTES] {
            on_node(shards, 16, async move |shard| {
                let (partitions, batches) = (partitions(4), 60);
                write(&shard, &partitions, 100_000, batches).await;
                let before = disk_bytes(&shard).await;
                let mut consumer = Consumer { answer_bytes, ..Consumer::new(&partitions, 0, 1 << 20) };
                consumer.read_all(&shard, partitions.len(), batches).await;
                let what = format!("answers of {answer_bytes} on {shards} cores");
                assert_frugal(&what, disk_bytes(&shard).await - before, consumer.served);
            });
        }
    }
}

/// More readers than there is room to read ahead for: each gets on, and what is read for them stays in proportion.
#[test]
fn readers_without_room_get_on() {
    on_node(1, 80, async move |shard| {
        let partitions = partitions(40);
        write(&shard, &partitions, 100_000, 25).await;
        let before = disk_bytes(&shard).await;
        let mut consumers: Vec<Consumer> =
            partitions.iter().map(|partition| Consumer::new(&[*partition], 0, 256 << 10)).collect();
        let mut is_going = true;
        while is_going {
            is_going = false;
            for consumer in &mut consumers {
                is_going |= consumer.fetch(&shard).await;
            }
        }
        let served: u64 = consumers.iter().map(|consumer| consumer.served).sum();
        assert!(disk_bytes(&shard).await - before <= 2 * served);
    });
}

/// What was read once is in memory for whoever comes next, however small its fetches are.
#[test]
fn what_was_read_is_read_from_memory_again() {
    on_node_with_cache(64 << 20, 2, 4, async move |shard| {
        let (batch_bytes, batches) = (16_384, 500);
        let partitions = partitions(2);
        write(&shard, &partitions, batch_bytes, batches).await;
        // Where a log may still grow, its last piece isn't read ahead.
        let most = 2 * 2 * 64 * 1024;
        // Memory for it comes at its pace.
        loop {
            let before = disk_bytes(&shard).await;
            Consumer::new(&partitions, 0, 1 << 20).read_all(&shard, 2, batches).await;
            if disk_bytes(&shard).await - before <= most {
                break;
            }
        }
        for fetch_bytes in FETCH_SIZES {
            for from in [0, batches / 3] {
                let before = disk_bytes(&shard).await;
                let mut consumer = Consumer::new(&partitions, from, fetch_bytes);
                consumer.read_all(&shard, 2, batches).await;
                let (read, served) = (disk_bytes(&shard).await - before, consumer.served);
                assert!(read <= most, "fetches of {fetch_bytes} from {from}: {read} bytes read again of {served}");
            }
        }
    });
}

/// A cache that is too small for a log costs nothing but what it saves.
#[test]
fn readers_of_more_than_is_kept_get_on() {
    on_node_with_cache(2 << 20, 1, 1, async move |shard| {
        let (batch_bytes, batches) = (16_384, (LOG_BYTES / 16_384) as i64);
        write(&shard, &[0], batch_bytes, batches).await;
        for ahead_by in [0, 20, batches / 2] {
            let before = disk_bytes(&shard).await;
            let mut first = Consumer::new(&[0], ahead_by, 1 << 20);
            let mut second = Consumer::new(&[0], 0, 1 << 20);
            while first.fetch(&shard).await | second.fetch(&shard).await {}
            let what = format!("{ahead_by} batches apart");
            assert_frugal(&what, disk_bytes(&shard).await - before, first.served + second.served);
        }
    });
}

/// Waiting for more than one read gives would only waste time.
#[test]
fn a_reader_that_wants_more_at_once_than_is_read_at_once_does_not_wait() {
    on_node(1, 1, async move |shard| {
        write(&shard, &[0], 16_384, 500).await;
        let wanted = fetch_request::FetchPartition {
            partition_max_bytes: 8 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            ..Default::default()
        };
        let topic = fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![wanted], ..Default::default() };
        let request = FetchRequest {
            min_bytes: 4 << 20,
            max_bytes: ANSWER_BYTES,
            max_wait_ms: 600_000,
            topics: vec![topic],
            ..Default::default()
        };
        let response = fetch::handle(&shard.data, &context(ApiKey::Fetch, 12), request).await;
        assert!(response.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 500_000));
    });
}
