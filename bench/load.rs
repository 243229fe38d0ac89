//! The load: connections that send pre-encoded batches and take what comes back.

#![allow(clippy::disallowed_methods, reason = "a load generator measures time and runs threads")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use ringlog_client::{Client, ClientOptions, Connection};
use ringlog_protocol::Records;
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::records::{BatchBuilder, BatchIter, BatchOptions};
use ringlog_types::TimestampMs;

use crate::flow::Flow;

/// The newest versions that name topics by name.
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;
const FETCH_MAX_BYTES: i32 = 16 * 1024 * 1024;
const FETCH_PARTITION_MAX_BYTES: i32 = 1024 * 1024;
const FETCH_WAIT_MS: i32 = 500;
/// How long a new topic may take.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Nothing new for so long means that a consumer has all there is.
const CONSUME_STALL: Duration = Duration::from_secs(20);
const HIGHEST_LATENCY_US: u64 = 60_000_000;

/// What to send, and how.
#[derive(Debug, Clone)]
pub struct Load {
    /// The nodes. Each partition has a replica on all of them; they lead in turn.
    pub nodes: Vec<String>,
    /// The topic, made by [`Load::create_topic`].
    pub topic: String,
    /// Its partitions, spread over the connections.
    pub partitions: i32,
    /// Connections, each with a thread of its own.
    pub connections: usize,
    /// Unanswered requests per connection.
    pub in_flight: usize,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Bytes of a batch.
    pub batch_bytes: usize,
    /// acks.
    pub acks: i16,
    /// All connections together; `None` for full speed.
    pub rate_bytes_s: Option<f64>,
    /// flush.messages=1 on the topic.
    pub fsync: bool,
}

struct Worker {
    flow: Flow,
    latency: Histogram<u64>,
}

impl Load {
    /// Makes the topic and waits until all of its partitions have leaders.
    pub fn create_topic(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.nodes[0], ClientOptions::default())?;
        let mut topic = CreatableTopic { name: self.topic.clone().into(), ..CreatableTopic::default() };
        if self.nodes.len() == 1 {
            (topic.num_partitions, topic.replication_factor) = (self.partitions, 1);
        } else {
            (topic.num_partitions, topic.replication_factor) = (-1, -1);
            let count = self.nodes.len();
            topic.assignments = (0..self.partitions)
                .map(|partition_index| CreatableReplicaAssignment {
                    partition_index,
                    broker_ids: (0..count)
                        .map(|place| node_id((self.node_of(partition_index) + place) % count))
                        .collect(),
                })
                .collect();
        }
        if self.fsync {
            let config = CreatableTopicConfig { name: "flush.messages".into(), value: Some("1".into()) };
            topic.configs.push(config);
        }
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..CreateTopicsRequest::default() };
        let response = client.send_to_controller(&request)?;
        for topic in &response.topics {
            // 36: a run before this one made it.
            ensure!(topic.error_code == 0 || topic.error_code == 36, "the topic can't be made: {}", topic.error_code);
        }
        self.wait_until_taken()
    }

    /// Waits until all partitions have leaders, and each of these has taken a record.
    pub fn wait_until_taken(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.nodes[0], ClientOptions::default())?;
        let asked = Instant::now();
        while asked.elapsed() < READY_WITHIN {
            let ready = (0..self.partitions).all(|partition| client.leader(&self.topic, partition).is_ok());
            if ready && self.first_records_are_taken()? {
                return Ok(());
            }
            client.forget_topic(&self.topic);
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the topic's partitions have no leaders")
    }

    /// A node may tell clients of its leaders before these take anything.
    fn first_records_are_taken(&self) -> anyhow::Result<bool> {
        let mut connections = Vec::new();
        for node in &self.nodes {
            connections.push(Connection::connect(node, &ClientOptions::default())?);
        }
        let (batch, _) = Load { acks: -1, record_bytes: 1, batch_bytes: 1, ..self.clone() }.batch();
        for partition in 0..self.partitions {
            let request = ProduceRequest { acks: -1, ..self.produce_request(partition, &batch) };
            let connection = &mut connections[self.node_of(partition)];
            connection.send_request(&request, PRODUCE_VERSION)?;
            let response = connection.receive::<ProduceRequest>(Duration::ZERO)?;
            let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            if answers.into_iter().any(|answer| answer.error_code != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run(&self, work: impl Fn(usize) -> anyhow::Result<Worker> + Send + Sync) -> anyhow::Result<Flow> {
        let started = Instant::now();
        let workers: Vec<anyhow::Result<Worker>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|index| {
                    scope.spawn({
                        let work = &work;
                        move || work(index)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a worker panicked")).collect()
        });
        let mut total = Flow { seconds: started.elapsed().as_secs_f64(), ..Flow::default() };
        let mut latency = histogram()?;
        for worker in workers {
            let worker = worker?;
            total.bytes += worker.flow.bytes;
            total.records += worker.flow.records;
            latency.add(&worker.latency)?;
        }
        total.latency_ms =
            [50.0, 90.0, 99.0, 99.9, 100.0].map(|percentile| latency.value_at_percentile(percentile) as f64 / 1e3);
        Ok(total)
    }

    /// Produces for `time`.
    pub fn produce(&self, time: Duration) -> anyhow::Result<Flow> {
        let until = Instant::now() + time;
        self.produce_until(|| Instant::now() >= until)
    }

    /// Produces until it is over, or a connection fails: the others don't go on without it.
    pub fn produce_until(&self, is_over: impl Fn() -> bool + Send + Sync) -> anyhow::Result<Flow> {
        let (batch, records) = self.batch();
        let has_failed = AtomicBool::new(false);
        let is_over = || is_over() || has_failed.load(Ordering::Relaxed);
        self.run(|index| {
            let worker = self.produce_on(index, &batch, records, &is_over);
            worker.inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
        })
    }

    fn batch(&self) -> (Bytes, u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut count = 0;
        while count == 0 || builder.uncompressed_size() + self.record_bytes <= self.batch_bytes {
            let value: Vec<u8> =
                (0..self.record_bytes).map(|place| (place as u8).wrapping_mul(31) ^ count as u8).collect();
            builder.append(TimestampMs(now), None, Some(&value), &[]);
            count += 1;
        }
        (builder.build(), count)
    }

    /// The place of the node that leads a partition.
    fn node_of(&self, partition: i32) -> usize {
        partition as usize % self.nodes.len()
    }

    /// This connection's node, and its partitions there.
    fn share(&self, index: usize) -> (&str, Vec<i32>) {
        let count = self.nodes.len();
        let (node, among) = (index % count, (self.connections - index % count).div_ceil(count));
        let is_own =
            |partition: &i32| self.node_of(*partition) == node && *partition as usize / count % among == index / count;
        (&self.nodes[node], (0..self.partitions).filter(is_own).collect())
    }

    fn produce_on(
        &self,
        index: usize,
        batch: &Bytes,
        records: u64,
        is_over: &dyn Fn() -> bool,
    ) -> anyhow::Result<Worker> {
        let mut worker = Worker { flow: Flow::default(), latency: histogram()? };
        let (node, partitions) = self.share(index);
        if partitions.is_empty() {
            return Ok(worker);
        }
        let mut connection = Connection::connect(node, &ClientOptions::default())?;
        let pace =
            self.rate_bytes_s.map(|rate| Duration::from_secs_f64(batch.len() as f64 * self.connections as f64 / rate));
        let mut due = Instant::now();
        let mut sent: VecDeque<Instant> = VecDeque::new();
        let mut turn = 0;
        loop {
            let now = Instant::now();
            let may_send = sent.len() < self.in_flight && pace.is_none_or(|_| due <= now) && !is_over();
            if may_send {
                let request = self.produce_request(partitions[turn % partitions.len()], batch);
                turn += 1;
                if self.acks == 0 {
                    connection.send_without_answer(&request, PRODUCE_VERSION)?;
                    worker.count(batch, records);
                } else {
                    connection.send_request(&request, PRODUCE_VERSION)?;
                    sent.push_back(pace.map_or(now, |_| due));
                }
                if let Some(pace) = pace {
                    due += pace;
                }
                continue;
            }
            let Some(begun) = sent.pop_front() else {
                if is_over() {
                    return Ok(worker);
                }
                std::thread::sleep(due.saturating_duration_since(now));
                continue;
            };
            let response = connection.receive::<ProduceRequest>(Duration::ZERO)?;
            let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
            let code = answer.context("an empty Produce answer")?.error_code;
            ensure!(code == 0, "Produce failed with error {code}");
            let latency_us = begun.elapsed().as_micros() as u64;
            worker.latency.record(latency_us.clamp(1, HIGHEST_LATENCY_US))?;
            worker.count(batch, records);
        }
    }

    fn produce_request(&self, partition: i32, batch: &Bytes) -> ProduceRequest {
        let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.clone())) };
        let topic = TopicProduceData {
            name: self.topic.clone().into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        };
        ProduceRequest { acks: self.acks, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
    }

    /// Consumes `bytes` from the start of the topic, all connections together.
    pub fn consume(&self, bytes: u64) -> anyhow::Result<Flow> {
        let share = bytes / self.connections as u64;
        let topic: Arc<str> = Arc::from(self.topic.as_str());
        self.run(|index| self.consume_on(index, &topic, share))
    }

    fn consume_on(&self, index: usize, topic: &Arc<str>, wanted: u64) -> anyhow::Result<Worker> {
        let mut worker = Worker { flow: Flow::default(), latency: histogram()? };
        let (node, partitions) = self.share(index);
        let mut positions: Vec<(i32, i64)> = partitions.into_iter().map(|partition| (partition, 0)).collect();
        if positions.is_empty() {
            return Ok(worker);
        }
        let mut connection = Connection::connect(node, &ClientOptions::default())?;
        let mut progress = Instant::now();
        while worker.flow.bytes < wanted && progress.elapsed() < CONSUME_STALL {
            let begun = Instant::now();
            connection.send_request(&fetch_request(topic, &positions), FETCH_VERSION)?;
            let response = connection.receive::<FetchRequest>(Duration::from_millis(FETCH_WAIT_MS as u64))?;
            worker.latency.record((begun.elapsed().as_micros() as u64).clamp(1, HIGHEST_LATENCY_US))?;
            ensure!(response.error_code == 0, "Fetch failed with error {}", response.error_code);
            for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
                ensure!(
                    data.error_code == 0,
                    "Fetch of partition {} failed: {}",
                    data.partition_index,
                    data.error_code
                );
                let Some(records) = data.records.clone() else { continue };
                let bytes = records.into_contiguous();
                let position = positions.iter_mut().find(|(partition, _)| *partition == data.partition_index);
                let position = &mut position.context("a partition that wasn't asked for")?.1;
                for batch in BatchIter::new(&bytes) {
                    // The last one may be cut off.
                    let Ok(batch) = batch else { break };
                    *position = batch.header.next_offset().0;
                    worker.flow.bytes += batch.bytes.len() as u64;
                    worker.flow.records += batch.header.record_count as u64;
                    progress = Instant::now();
                }
            }
            // Who got data comes last the next time, so that no partition starves.
            positions.rotate_left(1);
        }
        Ok(worker)
    }
}

/// `node.id` of the node with that place.
pub fn node_id(place: usize) -> i32 {
    place as i32 + 1
}

impl Worker {
    fn count(&mut self, batch: &Bytes, records: u64) {
        self.flow.bytes += batch.len() as u64;
        self.flow.records += records;
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, HIGHEST_LATENCY_US, 3)?)
}

fn fetch_request(topic: &Arc<str>, positions: &[(i32, i64)]) -> FetchRequest {
    let partitions = positions.iter().map(|&(partition, fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch: -1,
        partition_max_bytes: FETCH_PARTITION_MAX_BYTES,
        ..FetchPartition::default()
    });
    let topic =
        FetchTopic { topic: topic.to_string().into(), partitions: partitions.collect(), ..FetchTopic::default() };
    FetchRequest {
        max_wait_ms: FETCH_WAIT_MS,
        min_bytes: 1,
        max_bytes: FETCH_MAX_BYTES,
        session_epoch: -1,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}
