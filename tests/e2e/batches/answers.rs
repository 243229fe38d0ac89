//! What a node makes of a batch: its answer and, when it took the batch, what it stored.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringlog_client::{Client, ClientOptions, Connection};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::Node;
use ringlog_e2e_tests::wait_until;
use ringlog_protocol::Records;
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ringlog_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::*;
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchIter, BatchRef, Compression, Scratch};
use serde_json::{Value, json};

use super::cases::{BatchCase, VERSION, packed};
use super::data::{abridged, masked, rewritten};
use super::records::{good_header, good_records, sealed, written};

/// The topics, each of which has other rules, and their settings.
pub const TOPICS: &[(&str, &[(&str, &str)])] = &[
    ("plain", &[]),
    ("uncompressed", &[("compression.type", "uncompressed")]),
    ("lz4", &[("compression.type", "lz4")]),
    ("appended", &[("message.timestamp.type", "LogAppendTime")]),
    ("compacted", &[("cleanup.policy", "compact,delete")]),
    ("recent", &[("message.timestamp.before.max.ms", "3600000")]),
    ("small", &[("max.message.bytes", "300")]),
];
/// Every log starts at this offset when batches are sent, so that its start can be told from a default.
const LOG_START: i64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest batch, unpacked.
const UNPACKED_MAX: usize = 64 << 20;

/// A connection to a node that has the topics.
pub struct Asker {
    connection: Connection,
    /// Stored batches to be read by Kafka's reader.
    stored: Vec<Vec<u8>>,
}

impl Asker {
    /// Makes the topics.
    pub fn new(node: &Node) -> Result<Asker> {
        let mut client = Client::connect(&node.bootstrap(), ClientOptions::default())?;
        let topics = TOPICS.iter().map(|(name, configs)| CreatableTopic {
            name: (*name).into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) })
                .collect(),
            ..CreatableTopic::default()
        });
        let request = CreateTopicsRequest { topics: topics.collect(), timeout_ms: 10_000, ..Default::default() };
        let created = client.send(&request)?;
        ensure!(created.topics.iter().all(|topic| topic.error_code == 0), "{created:?}");
        let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
        let mut asker = Asker { connection: Connection::connect(&node.bootstrap(), &options)?, stored: Vec::new() };
        for (topic, _) in TOPICS {
            asker.move_start(topic)?;
        }
        Ok(asker)
    }

    fn move_start(&mut self, topic: &str) -> Result<()> {
        let mut header = good_header(Compression::None, LOG_START as i32);
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
        (header.base_timestamp.0, header.max_timestamp.0) = (now_ms, now_ms + LOG_START - 1);
        let bytes = sealed(header, &written(&good_records(LOG_START as i32)));
        wait_until("a leader", PATIENCE, || Ok((self.produce(topic, VERSION, &bytes)?.error_code == 0).then_some(())))?;
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: LOG_START }];
        let topics = vec![DeleteRecordsTopic { name: topic.to_owned().into(), partitions }];
        let deleted = self.connection.call(&DeleteRecordsRequest { topics, timeout_ms: 10_000 })?;
        ensure!(deleted.topics[0].partitions[0].error_code == 0, "{deleted:?}");
        Ok(())
    }

    fn produce(
        &mut self,
        topic: &str,
        version: i16,
        bytes: &[u8],
    ) -> Result<produce_response::PartitionProduceResponse> {
        let records = Some(Records::from_chunks(vec![Bytes::copy_from_slice(bytes)]));
        let partition_data = vec![PartitionProduceData { index: 0, records }];
        let data = TopicProduceData { name: topic.to_owned().into(), partition_data, ..TopicProduceData::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![data], ..Default::default() };
        let mut answer = self.connection.call_in_version(&request, version, Duration::ZERO)?;
        let mut topic = answer.responses.pop().context("an answer for the topic")?;
        topic.partition_responses.pop().context("an answer for the partition")
    }

    /// What the node says to this batch in this topic.
    pub fn answer(&mut self, topic: &str, case: &BatchCase) -> Result<Value> {
        let answer = self.produce(topic, case.version, &case.bytes)?;
        let common = |text: &str| masked(text, &format!("{topic}-0"));
        if answer.error_code == 0 {
            ensure!(answer.record_errors.is_empty() && answer.error_message.is_none(), "{answer:?}");
            let stored = self.stored(topic, answer.base_offset).with_context(|| case.name.clone())?;
            let mut told = describe(&stored, &case.bytes, topic == "appended")?;
            told["append time"] = json!(if answer.log_append_time_ms < 0 { answer.log_append_time_ms } else { 0 });
            told["log start"] = json!(answer.log_start_offset);
            self.stored.push(stored);
            return Ok(told);
        }
        let rest = (answer.base_offset, answer.log_append_time_ms, answer.log_start_offset);
        let record_errors = answer.record_errors.iter();
        let record_errors: Vec<Value> = record_errors
            .map(|it| json!([it.batch_index, it.batch_index_error_message.as_deref().map(common)]))
            .collect();
        Ok(json!({
            "code": answer.error_code,
            "message": answer.error_message.as_deref().map(common),
            "records": abridged(record_errors),
            "rest": [rest.0, rest.1, rest.2],
        }))
    }

    /// The batch at this offset, which is the last one.
    fn stored(&mut self, topic: &str, offset: i64) -> Result<Vec<u8>> {
        let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: 8 << 20, ..Default::default() };
        let topics =
            vec![FetchTopic { topic: topic.to_owned().into(), partitions: vec![partition], ..Default::default() }];
        let request = FetchRequest { max_bytes: 8 << 20, topics, session_epoch: -1, ..Default::default() };
        let mut answer = self.connection.call_in_version(&request, 12, Duration::ZERO)?;
        let mut topic = answer.responses.pop().context("a topic")?;
        let partition = topic.partitions.pop().context("a partition")?;
        ensure!(partition.error_code == 0, "{partition:?}");
        Ok(partition.records.context("records")?.into_contiguous().to_vec())
    }

    /// What the node says to this batch in each topic, the same answers together.
    pub fn answers(&mut self, case: &BatchCase) -> Result<Vec<Value>> {
        let mut answers: Vec<(Vec<&str>, Value)> = Vec::new();
        for (topic, _) in TOPICS {
            let answer = self.answer(topic, case).with_context(|| format!("{}, topic {topic}", case.name))?;
            match answers.iter_mut().find(|(_, known)| *known == answer) {
                Some((topics, _)) => topics.push(topic),
                None => answers.push((vec![topic], answer)),
            }
        }
        let with_topics = |(topics, mut answer): (Vec<&str>, Value)| {
            answer["topics"] = json!(topics);
            answer
        };
        Ok(answers.into_iter().map(with_topics).collect())
    }

    /// What Kafka's reader of records says to everything that was stored since the last time: how many records, or why it
    /// can't read them.
    pub fn read_by_kafka(&mut self) -> Result<Vec<String>> {
        let lines: String = self.stored.drain(..).map(|bytes| STANDARD.encode(bytes) + "\n").collect();
        let told = Jvm::shared()?.run("Client", &["records"], lines.as_bytes())?.success()?;
        Ok(told.lines().map(str::to_owned).collect())
    }
}

/// What is stored, without what differs from run to run.
fn describe(stored: &[u8], sent: &[u8], is_append_time: bool) -> Result<Value> {
    let mut batches = BatchIter::new(stored);
    let batch = batches.next().context("a batch is stored")??;
    ensure!(batches.next().is_none(), "one batch is stored");
    batch.verify_crc()?;
    let header = &batch.header;
    let is_as_sent = sent.get(BATCH_HEADER_LEN..).is_some_and(|sent| sent.starts_with(batch.payload()));
    let records = if is_as_sent { json!("as sent") } else { written_anew(&batch)? };
    Ok(json!({
        "code": 0,
        "attributes": header.attributes,
        "last offset delta": header.last_offset_delta,
        "count": header.record_count,
        "base timestamp": header.base_timestamp.0,
        "max timestamp": if is_append_time { 0 } else { header.max_timestamp.0 },
        "producer": [header.producer_id.0, i64::from(header.producer_epoch.0), i64::from(header.base_sequence)],
        "records": records,
    }))
}

fn written_anew(batch: &BatchRef<'_>) -> Result<Value> {
    let unpacked = batch.header.compression()?.decompress(batch.payload(), UNPACKED_MAX)?;
    let mut scratch = Scratch::new(UNPACKED_MAX);
    let count = batch.records(&mut scratch)?.filter_map(Result::ok).count();
    Ok(rewritten(count, &unpacked))
}

/// Whether the codec's own framing of records is what the readers here take for it.
pub fn check_framings() -> Result<()> {
    let records = written(&good_records(3));
    for compression in Compression::ALL {
        if compression.decompress(&packed(compression, &records), UNPACKED_MAX)? != records {
            bail!("{} isn't read as it is written", compression.name());
        }
    }
    Ok(())
}
