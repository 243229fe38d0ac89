use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::{ProduceRequest, ProduceResponse};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, Compression, RecordHeader};
use ringlog_protocol::{Records, StrBytes};
use ringlog_types::{ErrorCode, TimestampMs, Uuid};

use crate::{Client, ClientError, Partition};

/// The version of Produce from which topics go by id (KIP-516).
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// The bytes of a batch's header.
const BATCH_HEADER_BYTES: usize = 61;
/// The most bytes that a record adds to its key, value and headers, as the Java client reckons.
const RECORD_OVERHEAD: usize = 21;

/// A record to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The partition; else the key decides, else the batches take turns.
    pub partition: Option<i32>,
    /// The key, or null.
    pub key: Option<Vec<u8>>,
    /// The value; null is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; now, if there is none.
    pub timestamp: Option<i64>,
}

impl NewRecord {
    /// The bytes of the record at most, without those of its batch.
    fn size(&self) -> usize {
        let field = |field: Option<&Vec<u8>>| field.map_or(1, |field| varint_bytes(field.len()) + field.len());
        let header = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| field(Some(key)) + field(value.as_ref());
        let headers = varint_bytes(self.headers.len()) + self.headers.iter().map(header).sum::<usize>();
        field(self.key.as_ref()) + field(self.value.as_ref()) + headers + RECORD_OVERHEAD
    }

    fn sizes(&self) -> RecordSizes {
        RecordSizes { key: self.key.as_ref().map(Vec::len), value: self.value.as_ref().map(Vec::len) }
    }
}

/// The bytes of a length as Kafka writes it: zigzag, seven bits each.
fn varint_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

/// What is told of a record that wasn't sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSizes {
    /// Bytes of the key; `None` is null.
    pub key: Option<usize>,
    /// Bytes of the value; `None` is null.
    pub value: Option<usize>,
}

/// How a producer behaves; `default()` has the Java client's values.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// 0, 1 or -1 for all in-sync replicas.
    pub acks: i16,
    /// How long the leader may wait for the other replicas.
    pub timeout: Duration,
    /// Codec of the batches.
    pub compression: Compression,
    /// The codec's level, if not its default.
    pub compression_level: Option<i32>,
    /// Uncompressed bytes from which on a batch is sent.
    pub batch_bytes: usize,
    /// Bytes of a record at most.
    pub max_request_bytes: usize,
    /// Bytes of all that waits, which a record can't have more of.
    pub buffer_bytes: usize,
    /// How often a batch is sent again.
    pub retries: u32,
    /// The pause before that.
    pub retry_backoff: Duration,
    /// How long batches go on being sent when the client is stopped.
    pub stop_grace: Duration,
    /// Whether the topic may be created by asking for it.
    pub allow_auto_topic_creation: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            acks: -1,
            timeout: Duration::from_secs(30),
            compression: Compression::None,
            compression_level: None,
            batch_bytes: 16384,
            max_request_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            retries: 10,
            retry_backoff: Duration::from_millis(100),
            stop_grace: Duration::ZERO,
            allow_auto_topic_creation: true,
        }
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct Delivery {
    /// The batch's partition.
    pub partition: i32,
    /// The records that it had.
    pub records: Vec<RecordSizes>,
    /// The first record's offset (-1 with acks=0), or why the batch was given up.
    pub outcome: Result<i64, ClientError>,
}

/// Collects records of one topic into batches and sends them. Not idempotent: a retry after a lost connection may
/// write a batch twice.
#[derive(Debug)]
pub struct Producer {
    topic: String,
    options: ProducerOptions,
    open: BTreeMap<i32, Open>,
    sticky: u64,
}

/// A batch that records are added to.
#[derive(Debug)]
struct Open {
    batch: BatchBuilder,
    sizes: Vec<RecordSizes>,
}

/// A finished batch on its way.
struct Outgoing {
    partition: i32,
    sizes: Vec<RecordSizes>,
    records: Bytes,
}

impl Producer {
    /// Sends to `topic`. `seed` decides which partition the first batch without keys goes to.
    pub fn new(topic: &str, options: ProducerOptions, seed: u64) -> Producer {
        Producer { topic: topic.to_owned(), options, open: BTreeMap::new(), sticky: seed }
    }

    /// Records that wait in open batches.
    pub fn pending(&self) -> usize {
        self.open.values().map(|open| open.sizes.len()).sum()
    }

    /// Adds a record to its partition's batch. If the batch is full then, it is sent and what became of it returned.
    pub fn append(&mut self, client: &mut Client, record: &NewRecord) -> Result<Option<Delivery>, ClientError> {
        let partitions = client.partitions(&self.topic, self.options.allow_auto_topic_creation)?;
        let size = record.size();
        self.check_size(size + BATCH_HEADER_BYTES)?;
        let partition = self.choose(record, &partitions);
        let is_full = |open: &Open| open.batch.uncompressed_size() + size > self.options.batch_bytes;
        let full = match self.open.get(&partition).is_some_and(is_full) {
            true => self.open.remove(&partition),
            false => None,
        };
        let delivery = match full {
            Some(batch) => self.deliver(client, vec![(partition, batch)]).pop(),
            None => None,
        };
        let options = BatchOptions {
            compression: self.options.compression,
            compression_level: self.options.compression_level,
            ..BatchOptions::default()
        };
        let headers: Vec<RecordHeader<'_>> =
            record.headers.iter().map(|(key, value)| RecordHeader { key, value: value.as_deref() }).collect();
        let new = || Open { batch: BatchBuilder::new(options), sizes: Vec::new() };
        let open = self.open.entry(partition).or_insert_with(new);
        open.sizes.push(record.sizes());
        open.batch.append(
            TimestampMs(record.timestamp.unwrap_or_else(now_ms)),
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
        Ok(delivery)
    }

    fn check_size(&self, size: usize) -> Result<(), ClientError> {
        let ProducerOptions { max_request_bytes, buffer_bytes, .. } = self.options;
        let larger_than = match size {
            size if size > max_request_bytes => {
                format!("{max_request_bytes}, which is the value of the max.request.size configuration.")
            }
            size if size > buffer_bytes => {
                "the total memory buffer you have configured with the buffer.memory configuration.".to_owned()
            }
            _ => return Ok(()),
        };
        let message = format!("The message is {size} bytes when serialized which is larger than {larger_than}");
        let code = ErrorCode::MessageTooLarge.code();
        Err(ClientError::Broker { context: "not sent".to_owned(), code, message: Some(message) })
    }

    /// Sends all open batches and waits for what becomes of them.
    pub fn flush(&mut self, client: &mut Client) -> Vec<Delivery> {
        let open = std::mem::take(&mut self.open);
        self.sticky = self.sticky.wrapping_add(1);
        self.deliver(client, open.into_iter().collect())
    }

    /// The record's own partition, or its key's, or the one that batches go to at present.
    fn choose(&mut self, record: &NewRecord, partitions: &[Partition]) -> i32 {
        let count = partitions.len() as u64;
        match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, partitions.len() as i32),
            (None, None) => {
                let available: Vec<i32> = partitions.iter().filter(|it| it.leader >= 0).map(|it| it.index).collect();
                match available.len() as u64 {
                    0 => (self.sticky % count.max(1)) as i32,
                    available_count => available[(self.sticky % available_count) as usize],
                }
            }
        }
    }

    fn deliver(&mut self, client: &mut Client, batches: Vec<(i32, Open)>) -> Vec<Delivery> {
        client.with_grace(self.options.stop_grace, |client| self.deliver_all(client, batches))
    }

    fn deliver_all(&mut self, client: &mut Client, batches: Vec<(i32, Open)>) -> Vec<Delivery> {
        if !batches.is_empty() {
            self.sticky = self.sticky.wrapping_add(1);
        }
        let mut waiting: Vec<Outgoing> = batches
            .into_iter()
            .map(|(partition, Open { batch, sizes })| Outgoing { partition, sizes, records: batch.build() })
            .collect();
        let mut done = Vec::new();
        let mut attempt = 0;
        while !waiting.is_empty() {
            let mut failed = Vec::new();
            for (partition, outcome) in self.send_once(client, &waiting) {
                let is_final = match &outcome {
                    Ok(_) => true,
                    Err(fault) => !fault.is_retriable() || attempt >= self.options.retries,
                };
                let Some(index) = waiting.iter().position(|batch| batch.partition == partition) else { continue };
                let batch = waiting.swap_remove(index);
                match is_final {
                    true => done.push(Delivery { partition, records: batch.sizes, outcome }),
                    false => failed.push(batch),
                }
            }
            // What no answer spoke of is tried again like what failed.
            if attempt >= self.options.retries {
                done.extend(waiting.drain(..).map(|batch| Delivery {
                    partition: batch.partition,
                    records: batch.sizes,
                    outcome: Err(self.fault(batch.partition, ErrorCode::UnknownServerError.code(), None)),
                }));
            }
            waiting.append(&mut failed);
            if !waiting.is_empty() {
                attempt += 1;
                client.forget_topic(&self.topic);
                if client.pause(self.options.retry_backoff).is_err() {
                    // The next try says the same of every batch, and nothing of it is tried again.
                    attempt = self.options.retries;
                }
            }
        }
        done
    }

    /// One request to each leader, then their answers.
    fn send_once(&self, client: &mut Client, batches: &[Outgoing]) -> Vec<(i32, Result<i64, ClientError>)> {
        let mut outcomes = Vec::new();
        let mut by_leader: BTreeMap<i32, Vec<&Outgoing>> = BTreeMap::new();
        for batch in batches {
            match client.leader(&self.topic, batch.partition) {
                Ok(leader) => by_leader.entry(leader).or_default().push(batch),
                Err(fault) => outcomes.push((batch.partition, Err(fault))),
            }
        }
        let topic_id = client.metadata().topics.get(self.topic.as_str()).map_or(Uuid::ZERO, |topic| topic.id);
        for (leader, batches) in by_leader {
            match client.on_node(leader, |connection| self.send_to_leader(connection, topic_id, &batches)) {
                Ok(Some(response)) => outcomes.extend(self.outcomes(response)),
                Ok(None) => outcomes.extend(batches.iter().map(|batch| (batch.partition, Ok(-1)))),
                Err(fault) => {
                    let text = fault.to_string();
                    let is_retriable = fault.is_retriable();
                    let mut first = Some(fault);
                    outcomes.extend(batches.iter().map(|batch| {
                        let code = match is_retriable {
                            true => ErrorCode::NetworkException,
                            false => ErrorCode::UnknownServerError,
                        };
                        let fault = first
                            .take()
                            .unwrap_or_else(|| self.fault(batch.partition, code.code(), Some(text.clone())));
                        (batch.partition, Err(fault))
                    }));
                }
            }
        }
        outcomes
    }

    fn send_to_leader(
        &self,
        connection: &mut crate::Connection,
        topic_id: Uuid,
        batches: &[&Outgoing],
    ) -> Result<Option<ProduceResponse>, ClientError> {
        let limit = if topic_id.is_zero() { FIRST_VERSION_WITH_TOPIC_IDS - 1 } else { i16::MAX };
        let version = connection.version_up_to::<ProduceRequest>(limit)?;
        let partition_data = batches.iter().map(|batch| PartitionProduceData {
            index: batch.partition,
            records: Some(Records::from(batch.records.clone())),
        });
        let mut topic = TopicProduceData { partition_data: partition_data.collect(), ..TopicProduceData::default() };
        match version >= FIRST_VERSION_WITH_TOPIC_IDS {
            true => topic.topic_id = topic_id,
            false => topic.name = StrBytes::copy_from(&self.topic),
        }
        let request = ProduceRequest {
            transactional_id: None,
            acks: self.options.acks,
            timeout_ms: i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![topic],
        };
        match self.options.acks {
            0 => connection.send_without_answer(&request, version).map(|()| None),
            _ => connection.call_in_version(&request, version, Duration::ZERO).map(Some),
        }
    }

    fn outcomes(&self, response: ProduceResponse) -> Vec<(i32, Result<i64, ClientError>)> {
        let partitions = response.responses.into_iter().flat_map(|topic| topic.partition_responses);
        partitions
            .map(|partition| match partition.error_code {
                0 => (partition.index, Ok(partition.base_offset)),
                code => {
                    let record_error =
                        partition.record_errors.into_iter().find_map(|record| record.batch_index_error_message);
                    let message = partition.error_message.or(record_error).map(String::from);
                    (partition.index, Err(self.fault(partition.index, code, message)))
                }
            })
            .collect()
    }

    fn fault(&self, partition: i32, code: i16, message: Option<String>) -> ClientError {
        ClientError::Broker { context: format!("{}-{partition}", self.topic), code, message }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The partition that the Java client sends a key to.
pub fn partition_of_key(key: &[u8], partition_count: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partition_count.max(1)
}

/// Murmur 2 of 32 bits with the seed that Kafka's clients agree on.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)) as i32
}
