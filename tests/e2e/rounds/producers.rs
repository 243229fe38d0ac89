//! Our own producers: one batch at a time, sent again until it is known what became of it, with or without a producer id.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use ringlog_client::{Client, ClientError, ClientOptions};
use ringlog_protocol::Records;
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, ProducerStamp};
use ringlog_types::{ErrorCode, ProducerEpoch, ProducerId, TimestampMs, Uuid};

use super::dice::Dice;
use super::history::{History, value_of};
use super::plan::{MAX_MESSAGE_BYTES, Place};

/// From this version of Produce on topics go by id.
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// How long a batch is sent again.
const DELIVERY_TIME: Duration = Duration::from_secs(30);
/// Between batches, and before one is sent again.
const PAUSE: Duration = Duration::from_millis(15);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The most records of a batch.
const BATCH: usize = 5;
/// One batch in so many is too large to be taken.
const TOO_LARGE_ONCE_IN: usize = 60;

/// Options of all our clients here: who stands still is not waited for long.
pub fn options(name: &str) -> ClientOptions {
    ClientOptions {
        client_id: name.to_owned(),
        connect_timeout: Duration::from_millis(1500),
        request_timeout: Duration::from_secs(3),
        retry_timeout: Duration::from_millis(1500),
        reconnect_backoff_max: Duration::from_millis(200),
        ..ClientOptions::default()
    }
}

/// What one producer is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its process in the history.
    pub name: String,
    /// With a producer id and sequence numbers.
    pub is_idempotent: bool,
    /// Where it sends.
    pub places: Vec<Place>,
    /// Bytes of its largest values.
    pub value_bytes: usize,
}

/// Sends until `stop`.
pub fn run(plan: &Plan, bootstrap: &str, seed: u64, history: &History, stop: &AtomicBool) -> Result<()> {
    let kind = if plan.is_idempotent { "idempotent" } else { "plain" };
    history.tell(&plan.name, &format!("is ok {kind}"));
    let client = Client::new(bootstrap, options(&plan.name))?;
    let mut producer =
        Producer { plan, client, history, dice: Dice::new(seed), identity: None, next: vec![0; plan.places.len()] };
    while !stop.load(Ordering::Relaxed) {
        for index in 0..plan.places.len() {
            producer.send_one(index);
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Id and epoch, and the sequence number that each partition expects.
#[derive(Debug)]
struct Identity {
    id: ProducerId,
    epoch: ProducerEpoch,
    sequences: Vec<i32>,
}

struct Producer<'a> {
    plan: &'a Plan,
    client: Client,
    history: &'a History,
    dice: Dice,
    identity: Option<Identity>,
    /// The next record's number, by place.
    next: Vec<u64>,
}

/// What became of one attempt.
enum Attempt {
    /// Written, and where.
    Written(Option<i64>),
    /// Certainly not written by this attempt; whether to try again.
    NotWritten(ErrorCode, bool),
    /// It may be written.
    Unknown(String),
    /// Never sent.
    NotSent,
}

impl Producer<'_> {
    /// One batch to one partition, until it is known what became of it.
    fn send_one(&mut self, index: usize) {
        let place = &self.plan.places[index];
        let is_too_large = !self.plan.is_idempotent && self.dice.once_in(TOO_LARGE_ONCE_IN);
        let count = if is_too_large { 1 } else { 1 + self.dice.below(BATCH) };
        let first = self.next[index];
        self.next[index] += count as u64;
        let names: Vec<String> = (first..).take(count).map(|number| format!("{}:{number}", self.plan.name)).collect();
        let bytes = if is_too_large { MAX_MESSAGE_BYTES * 2 } else { 40 + self.dice.below(self.plan.value_bytes) };
        for name in &names {
            self.history.tell(&self.plan.name, &format!("send invoke {place} {name}"));
        }
        let Some(batch) = self.batch(index, &names, bytes) else {
            return self.tell("fail", place, &names, "no producer id");
        };
        let deadline = Instant::now() + DELIVERY_TIME;
        let (mut is_uncertain, mut last) = (false, "NotSent".to_owned());
        while Instant::now() < deadline {
            if is_uncertain && !self.plan.is_idempotent {
                names.iter().for_each(|name| self.history.tell(&self.plan.name, &format!("send again {place} {name}")));
            }
            match self.attempt(place, &batch) {
                Attempt::Written(offset) => {
                    for (position, name) in names.iter().enumerate() {
                        let offset = offset.map_or("-".to_owned(), |offset| (offset + position as i64).to_string());
                        self.history.tell(&self.plan.name, &format!("send ok {place} {name} {offset}"));
                    }
                    if let Some(identity) = &mut self.identity {
                        identity.sequences[index] += count as i32;
                    }
                    return;
                }
                Attempt::NotWritten(code, may_try_again) => {
                    last = format!("{code:?}");
                    if code == ErrorCode::OutOfOrderSequenceNumber || code == ErrorCode::UnknownProducerId {
                        self.history.tell(&self.plan.name, &format!("sequence fail {place} {code:?} for {}", names[0]));
                    }
                    if !may_try_again {
                        break;
                    }
                }
                Attempt::Unknown(why) => (is_uncertain, last) = (true, why),
                Attempt::NotSent => {}
            }
            self.client.forget_topic(&place.topic);
            thread::sleep(RETRY_PAUSE);
        }
        self.tell(if is_uncertain { "info" } else { "fail" }, place, &names, &last);
        self.begin_anew();
    }

    fn tell(&self, phase: &str, place: &Place, names: &[String], why: &str) {
        let why = why.replace('\n', " ");
        names.iter().for_each(|name| self.history.tell(&self.plan.name, &format!("send {phase} {place} {name} {why}")));
    }

    /// After a batch of which nobody knows: the next epoch, in which all numbers begin again, shuts out the one before
    /// (KIP-360).
    fn begin_anew(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.epoch = ProducerEpoch(identity.epoch.0 + 1);
            identity.sequences.fill(0);
        }
    }

    fn batch(&mut self, index: usize, names: &[String], bytes: usize) -> Option<Bytes> {
        let mut options = BatchOptions::default();
        if self.plan.is_idempotent {
            if self.identity.is_none() {
                self.identity = self.new_identity();
            }
            let Identity { id, epoch, sequences } = self.identity.as_ref()?;
            options.producer =
                ProducerStamp { producer_id: *id, producer_epoch: *epoch, base_sequence: sequences[index] };
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = TimestampMs(now.map_or(0, |since| since.as_millis() as i64));
        let mut builder = BatchBuilder::new(options);
        for name in names {
            builder.append(now, None, Some(&value_of(name, bytes)), &[]);
        }
        Some(builder.build())
    }

    fn new_identity(&mut self) -> Option<Identity> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let deadline = Instant::now() + DELIVERY_TIME;
        while Instant::now() < deadline {
            if let Ok(response) = self.client.send(&request)
                && response.error_code == 0
            {
                let (id, epoch) = (ProducerId(response.producer_id), ProducerEpoch(response.producer_epoch));
                return Some(Identity { id, epoch, sequences: vec![0; self.plan.places.len()] });
            }
            thread::sleep(RETRY_PAUSE);
        }
        None
    }

    fn attempt(&mut self, place: &Place, batch: &Bytes) -> Attempt {
        let Ok(leader) = self.client.leader(&place.topic, place.partition) else { return Attempt::NotSent };
        let id = self.client.metadata().topics.get(place.topic.as_str()).map_or(Uuid::ZERO, |topic| topic.id);
        // Half of the producers name topics, the others give ids.
        let by_id = self.plan.is_idempotent && !id.is_zero();
        let limit = if by_id { i16::MAX } else { FIRST_VERSION_WITH_TOPIC_IDS - 1 };
        let mut is_sent = false;
        let outcome = self.client.on_node(leader, |connection| {
            let version = connection.version_up_to::<ProduceRequest>(limit)?;
            let data = PartitionProduceData { index: place.partition, records: Some(Records::from(batch.clone())) };
            let mut topic = TopicProduceData { partition_data: vec![data], ..TopicProduceData::default() };
            match version >= FIRST_VERSION_WITH_TOPIC_IDS {
                true => topic.topic_id = id,
                false => topic.name = place.topic.clone().into(),
            }
            let request =
                ProduceRequest { acks: -1, timeout_ms: 2000, topic_data: vec![topic], transactional_id: None };
            is_sent = true;
            connection.call_in_version(&request, version, Duration::ZERO)
        });
        let answer = match outcome {
            Ok(response) => response.responses.into_iter().flat_map(|topic| topic.partition_responses).next(),
            Err(_) if !is_sent => return Attempt::NotSent,
            Err(ClientError::Connect { .. }) => return Attempt::NotSent,
            Err(fault) => return Attempt::Unknown(fault.to_string()),
        };
        let Some(answer) = answer else { return Attempt::Unknown("no answer for the partition".to_owned()) };
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => Attempt::Written(Some(answer.base_offset).filter(|offset| *offset >= 0)),
            // It was written by an earlier attempt, so long ago that nobody knows where.
            Some(ErrorCode::DuplicateSequenceNumber) => Attempt::Written(None),
            // These are said before anything is appended; others may be said of what was.
            Some(code @ (ErrorCode::NotEnoughReplicas | ErrorCode::ThrottlingQuotaExceeded)) => {
                Attempt::NotWritten(code, true)
            }
            Some(
                code @ (ErrorCode::MessageTooLarge
                | ErrorCode::OutOfOrderSequenceNumber
                | ErrorCode::UnknownProducerId
                | ErrorCode::InvalidProducerEpoch),
            ) => Attempt::NotWritten(code, false),
            Some(code) => Attempt::Unknown(format!("{code:?}")),
            None => Attempt::Unknown(format!("error {}", answer.error_code)),
        }
    }
}
