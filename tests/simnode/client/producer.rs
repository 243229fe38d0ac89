//! A producer: batches per partition, several requests on the way, and the same batch again, with the same sequence
//! numbers, after errors, time-outs and lost connections, as the Java client and librdkafka do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest, ProduceResponse};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, Compression, ProducerStamp};
use ringlog_ring::{self as ring, sim, sleep_ms, timeout_ms};
use ringlog_types::{ProducerEpoch, ProducerId, TimestampMs, Uuid};

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::{ASK_AGAIN_MS, route};
use crate::check::ledger::{Order, RecordName, value_of};
use crate::plan::ProducerPlan;

/// What a produce request may be told at any time: the node doesn't lead the partition, or doesn't know it yet; or it
/// took too long. Of partitions with several replicas also that too few of them are in sync.
const RETRIABLE: [i16; 8] = [3, 5, 6, 7, 13, 100, 19, 20];
/// How many of those there are with one replica.
const RETRIABLE_ALONE: usize = 6;
/// The shortest pause between two requests once nothing is wrong any more.
const HEALED_PAUSE_MS: u64 = 100;
const OUT_OF_ORDER: i16 = 45;
const DUPLICATE: i16 = 46;
const INVALID_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER: i16 = 59;
const PAUSE_MS: u64 = 20;
/// Of so many produce requests one is followed by a question of another sort.
const ASKS_BETWEEN_ONE_OF: u64 = 16;
/// What a node is given for a request.
const TIMEOUTS_MS: [i32; 2] = [300, 15_000];
/// What a producer sends at most, so that a run's work has a bound.
const BYTES_PER_MS: u64 = 300;

struct Batch {
    first: u64,
    /// Of its records: how long their values are, and their timestamps.
    lens: Vec<usize>,
    times: Vec<i64>,
    /// As it was sent first. It stays the same until the producer gets another id.
    bytes: Option<Bytes>,
    attempts: u32,
    is_in_flight: bool,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    next_number: u64,
    /// The id and epoch of the producer for this partition, if it has one, and the sequence of the next new batch.
    identity: Option<(i64, i16, i32)>,
    /// Whether anything was acknowledged under that identity: before, one batch at a time is on its way.
    is_known: bool,
}

/// See the module's text.
pub struct Producer {
    number: u32,
    plan: ProducerPlan,
    shared: Rc<Shared>,
    queues: RefCell<BTreeMap<i32, Queue>>,
    /// Leaders have changed, or a connection failed: ask again.
    is_stale: Cell<bool>,
    /// Topic, epoch and leader of each partition: the newest that was told.
    newest_leaders: RefCell<BTreeMap<i32, (Uuid, i32, i32)>>,
}

/// Runs a producer to the end of the run, and until all that it has begun is acknowledged.
pub async fn run(shared: Rc<Shared>, number: u32) {
    let plan = shared.plan.producers[number as usize].clone();
    let partitions = shared.plan.topics[plan.topic].partitions;
    let queues = (0..partitions).map(|partition| (partition, Queue::default())).collect();
    let producer = Producer {
        number,
        plan,
        shared: shared.clone(),
        queues: RefCell::new(queues),
        is_stale: Cell::new(false),
        newest_leaders: RefCell::default(),
    };
    let producer = Rc::new(producer);
    while !(shared.is_over.get() && producer.has_nothing_left()) {
        let (found, has_leaders) = producer.routes(partitions).await;
        producer.is_stale.set(false);
        if !has_leaders {
            let producer = producer.clone();
            ring::spawn_detached(async move {
                sleep_ms(ASK_AGAIN_MS).await;
                producer.is_stale.set(true);
            });
        }
        let senders = found.into_iter().map(|(address, topic_id, partitions)| {
            let producer = producer.clone();
            ring::spawn(async move { producer.send_to(address, topic_id, &partitions).await })
        });
        let senders: Vec<_> = senders.collect();
        for sender in senders {
            sender.await;
        }
        sleep_ms(PAUSE_MS + sim::draw(PAUSE_MS)).await;
    }
}

impl Producer {
    fn who(&self) -> String {
        format!("producer {}", self.number)
    }

    fn has_nothing_left(&self) -> bool {
        self.queues.borrow().values().all(|queue| queue.batches.is_empty())
    }

    /// Partitions by their leader's address.
    /// Also says whether all have one.
    async fn routes(&self, partitions: i32) -> (Vec<(SocketAddr, Uuid, Vec<i32>)>, bool) {
        let name = &self.shared.plan.topics[self.plan.topic].name;
        let route = route(&self.shared, name, partitions).await.unwrap_or_default();
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in route.leaders {
            let epoch = route.epochs.get(&partition).copied().unwrap_or(-1);
            let mut newest = self.newest_leaders.borrow_mut();
            let known = newest.entry(partition).or_insert((route.topic_id, epoch, leader));
            if known.0 != route.topic_id || known.1 <= epoch {
                *known = (route.topic_id, epoch, leader);
            }
            by_leader.entry(leader).or_default().push(partition);
        }
        let address = |(leader, partitions)| Some((*self.shared.brokers.get(&leader)?, route.topic_id, partitions));
        let has_leaders = !by_leader.contains_key(&-1);
        let routes: Vec<_> = by_leader.into_iter().filter_map(address).collect();
        (routes, has_leaders)
    }

    /// Whether a newer leader is known: who was cut off tells of itself, and takes what follows on records that it doesn't
    /// have for out of order. Java's producer wouldn't go back to it (KIP-320); this one sees what such a leader does.
    fn is_of_before(&self, partition: i32, address: SocketAddr) -> bool {
        let newest = self.newest_leaders.borrow();
        newest.get(&partition).is_some_and(|(_, _, leader)| self.shared.brokers.get(leader) != Some(&address))
    }

    async fn send_to(&self, address: SocketAddr, topic_id: Uuid, partitions: &[i32]) {
        if let Err(fault) = self.exchange(address, topic_id, partitions).await {
            self.shared.judge(&self.who(), &fault);
        }
        self.is_stale.set(true);
        // What wasn't answered is sent again.
        for partition in partitions {
            let mut queues = self.queues.borrow_mut();
            queues.get_mut(partition).into_iter().for_each(|queue| {
                queue.batches.iter_mut().for_each(|batch| batch.is_in_flight = false);
            });
        }
    }

    async fn exchange(&self, address: SocketAddr, topic_id: Uuid, partitions: &[i32]) -> Result<(), CallFault> {
        let mut connection = Connection::open(address).await?;
        let limit_ns = self.plan.answer_limit_ms * sim::MS;
        // Batches by partition, and when they were sent; between them, now and then, a question of another sort.
        let mut in_flight: VecDeque<(u64, Option<BTreeMap<i32, u64>>)> = VecDeque::new();
        let sent_now = || sim::control().now_ns();
        let unanswered_since = |sent_at_ns: u64| CallFault::Timeout(sim::control().now_ns() - sent_at_ns);
        loop {
            // Who needs an id waits until nothing is on its way.
            let may_send = |in_flight: usize| in_flight == 0 || !self.lacks_identity(partitions);
            while in_flight.len() < self.plan.in_flight && may_send(in_flight.len()) && !self.is_stale.get() {
                self.identify(&mut connection, partitions, in_flight.is_empty()).await?;
                let parts = self.take(partitions);
                if parts.is_empty() {
                    break;
                }
                let request = self.request(topic_id, &parts);
                let sent = timeout_ms(self.plan.answer_limit_ms, connection.send(&request)).await;
                sent.map_err(|_| CallFault::Timeout(limit_ns))??;
                match self.plan.acks {
                    0 => self.forget(&parts),
                    _ => in_flight.push_back((sent_now(), Some(parts))),
                }
                if self.plan.acks != 0 && sim::draw(ASKS_BETWEEN_ONE_OF) == 0 {
                    let sent =
                        timeout_ms(self.plan.answer_limit_ms, connection.send(&MetadataRequest::default())).await;
                    sent.map_err(|_| CallFault::Timeout(limit_ns))??;
                    in_flight.push_back((sent_now(), None));
                }
                let pause_ms = sim::draw(1 + self.plan.pause_ms_max) + self.len_of(&request) / BYTES_PER_MS;
                // That everything goes on again is seen with little, too.
                let is_healed = self.shared.healed_at_ns.get().is_some();
                sleep_ms(if is_healed { pause_ms.max(HEALED_PAUSE_MS) } else { pause_ms }).await;
            }
            let Some((sent_at_ns, parts)) = in_flight.pop_front() else {
                if self.is_stale.get() || self.shared.is_over.get() && self.has_nothing_left() {
                    return Ok(());
                }
                sleep_ms(1 + sim::draw(PAUSE_MS)).await;
                continue;
            };
            let Some(parts) = parts else {
                let answer = timeout_ms(self.plan.answer_limit_ms, connection.receive::<MetadataRequest>()).await;
                answer.map_err(|_| unanswered_since(sent_at_ns))??;
                continue;
            };
            let answer = timeout_ms(self.plan.answer_limit_ms, connection.receive::<ProduceRequest>()).await;
            let answer = answer.map_err(|_| unanswered_since(sent_at_ns))??;
            self.on_answer(&connection, &parts, answer)?;
        }
    }

    fn lacks_identity(&self, partitions: &[i32]) -> bool {
        let queues = self.queues.borrow();
        self.plan.is_idempotent && partitions.iter().any(|partition| queues[partition].identity.is_none())
    }

    /// Gets an id for partitions that need one. Answers to what was sent before would be in the way.
    async fn identify(&self, connection: &mut Connection, partitions: &[i32], is_free: bool) -> Result<(), CallFault> {
        if !self.plan.is_idempotent || !is_free {
            return Ok(());
        }
        for partition in partitions {
            if self.queues.borrow()[partition].identity.is_some() {
                continue;
            }
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                producer_id: -1,
                producer_epoch: -1,
                ..InitProducerIdRequest::default()
            };
            let answer = connection.call(&request, self.plan.answer_limit_ms).await?;
            match answer.error_code {
                0 => {
                    let mut queues = self.queues.borrow_mut();
                    let Some(queue) = queues.get_mut(partition) else { continue };
                    queue.identity = Some((answer.producer_id, answer.producer_epoch, 0));
                    queue.is_known = false;
                    queue.batches.iter_mut().for_each(|batch| batch.bytes = None);
                }
                // No coordinator at the moment.
                code => self.shared.judge_code(&self.who(), code, &[7, 14, 15, 16, 41]),
            }
        }
        Ok(())
    }

    /// The next batch of each partition that may be sent now, by its first number.
    fn take(&self, partitions: &[i32]) -> BTreeMap<i32, u64> {
        let mut queues = self.queues.borrow_mut();
        let mut parts = BTreeMap::new();
        for partition in partitions {
            let Some(queue) = queues.get_mut(partition) else { continue };
            let is_idle = sim::draw(4) == 0;
            if !self.shared.is_over.get() && queue.batches.len() < self.plan.in_flight && !is_idle {
                self.add_batch(*partition, queue);
            }
            let is_ready = !self.plan.is_idempotent || queue.identity.is_some();
            let waiting = queue.batches.iter().position(|batch| !batch.is_in_flight);
            let Some(place) = waiting.filter(|_| is_ready) else { continue };
            // What is sent again goes alone, and so does what comes first of all.
            let is_alone = !queue.is_known || queue.batches[place].attempts > 0 || queue.batches[0].attempts > 1;
            let most = if self.plan.is_idempotent { self.plan.in_flight } else { 1 };
            if place >= most || (is_alone && place > 0) {
                continue;
            }
            self.seal(*partition, queue, place);
            let batch = &mut queue.batches[place];
            batch.is_in_flight = true;
            batch.attempts += 1;
            parts.insert(*partition, batch.first);
            let names = (0..batch.lens.len() as u64).map(|place| self.name(batch.first + place));
            self.shared.with_ledger((self.plan.topic, *partition), |ledger| {
                names.for_each(|name| ledger.on_attempt(name));
            });
        }
        parts
    }

    fn name(&self, number: u64) -> RecordName {
        RecordName { producer: self.number, number }
    }

    fn add_batch(&self, partition: i32, queue: &mut Queue) {
        let count = 1 + sim::draw(self.plan.batch_records_max);
        let lens = (0..count).map(|_| 24 + sim::draw(self.plan.value_bytes_max) as usize).collect::<Vec<_>>();
        let back_ms = self.shared.plan.workload.topics[self.plan.topic].back_ms;
        let now_ms = ring::now().wall.0;
        let times: Vec<i64> =
            lens.iter().map(|_| now_ms - if back_ms > 0 { sim::draw(back_ms) as i64 } else { 0 }).collect();
        let first = queue.next_number;
        queue.next_number += count;
        let promise = match self.plan.acks {
            0 => Order::None,
            _ if self.plan.is_idempotent => Order::Always,
            _ => Order::UntilRetried,
        };
        self.shared.with_ledger((self.plan.topic, partition), |ledger| {
            for (place, len) in lens.iter().enumerate() {
                ledger.on_new(self.name(first + place as u64), (*len, times[place]), promise);
            }
        });
        queue.batches.push_back(Batch { first, lens, times, bytes: None, attempts: 0, is_in_flight: false });
    }

    /// Gives a batch its bytes.
    fn seal(&self, partition: i32, queue: &mut Queue, place: usize) {
        let batch = &mut queue.batches[place];
        if batch.bytes.is_some() {
            return;
        }
        let producer = match &mut queue.identity {
            Some((id, epoch, next_sequence)) => {
                let base_sequence = *next_sequence;
                *next_sequence += batch.lens.len() as i32;
                ProducerStamp { producer_id: ProducerId(*id), producer_epoch: ProducerEpoch(*epoch), base_sequence }
            }
            None => ProducerStamp::NONE,
        };
        let compression = match self.plan.is_compressed {
            true => Compression::Lz4,
            false => Compression::None,
        };
        let mut builder = BatchBuilder::new(BatchOptions { producer, compression, ..BatchOptions::default() });
        for (place, len) in batch.lens.iter().enumerate() {
            let name = RecordName { producer: self.number, number: batch.first + place as u64 };
            let at = TimestampMs(batch.times[place]);
            builder.append(at, None, Some(&value_of((self.plan.topic, partition), name, *len)), &[]);
        }
        batch.bytes = Some(builder.build());
    }

    fn request(&self, topic_id: Uuid, parts: &BTreeMap<i32, u64>) -> ProduceRequest {
        let queues = self.queues.borrow();
        let data = |(partition, first): (&i32, &u64)| {
            let batch = queues[partition].batches.iter().find(|batch| batch.first == *first)?;
            Some(PartitionProduceData { index: *partition, records: batch.bytes.clone().map(Records::from) })
        };
        let partition_data = parts.iter().filter_map(data).collect();
        let topic = TopicProduceData { topic_id, partition_data, ..TopicProduceData::default() };
        let timeout_ms = TIMEOUTS_MS[sim::draw(TIMEOUTS_MS.len() as u64) as usize];
        ProduceRequest { transactional_id: None, acks: self.plan.acks, timeout_ms, topic_data: vec![topic] }
    }

    fn len_of(&self, request: &ProduceRequest) -> u64 {
        let parts = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
        parts.filter_map(|part| part.records.as_ref()).map(|records| records.len() as u64).sum()
    }

    /// Sent, and never spoken of again.
    fn forget(&self, parts: &BTreeMap<i32, u64>) {
        let mut queues = self.queues.borrow_mut();
        for (partition, first) in parts {
            queues.get_mut(partition).into_iter().for_each(|queue| {
                queue.batches.retain(|batch| batch.first != *first);
                queue.is_known = true;
            });
        }
    }

    fn on_answer(
        &self,
        connection: &Connection,
        parts: &BTreeMap<i32, u64>,
        answer: ProduceResponse,
    ) -> Result<(), CallFault> {
        let answers: Vec<_> = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).collect();
        let named: BTreeSet<i32> = answers.iter().map(|answer| answer.index).collect();
        if answers.len() != parts.len() || !named.iter().eq(parts.keys()) {
            return Err(CallFault::Nonsense(format!("partitions {named:?} are answered, and asked were {parts:?}")));
        }
        for answer in answers {
            self.on_partition(connection, answer.index, parts[&answer.index], answer.error_code, answer.base_offset);
        }
        Ok(())
    }

    fn on_partition(&self, connection: &Connection, partition: i32, first: u64, code: i16, base_offset: i64) {
        let place = (self.plan.topic, partition);
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(&partition) else { return };
        let Some(index) = queue.batches.iter().position(|batch| batch.first == first) else { return };
        let may_have_lost = self.shared.with_ledger(place, |ledger| ledger.may_have_lost());
        let was_pruned = self.shared.with_ledger(place, |ledger| ledger.starts.was_asked());
        let who = format!("{} to partition {partition}", self.who());
        match code {
            0 | DUPLICATE => {
                let count = queue.batches[index].lens.len() as u64;
                queue.batches.remove(index);
                queue.is_known = true;
                let offset = (code == 0 && base_offset >= 0).then_some(base_offset);
                let name = RecordName { producer: self.number, number: first };
                let (now_ns, opened_at_ns) = (sim::control().now_ns(), connection.opened_at_ns);
                let told = self
                    .shared
                    .with_ledger(place, |ledger| ledger.on_acknowledged(now_ns, opened_at_ns, name, count, offset));
                told.unwrap_or_else(|fault| self.shared.complain(format!("{who}: {fault}")));
                return;
            }
            // One before it has failed.
            OUT_OF_ORDER if index > 0 => {}
            OUT_OF_ORDER if self.is_of_before(partition, connection.address) => self.is_stale.set(true),
            // What the node knew of the producer went with the power.
            OUT_OF_ORDER | INVALID_EPOCH | UNKNOWN_PRODUCER if may_have_lost => queue.identity = None,
            // After a crash producers are read from a snapshot and from what comes behind the log's start: of one whose
            // last batches were deleted, between the two, an older one is known, in Kafka as here. Java's producer begins
            // anew then, too.
            OUT_OF_ORDER if was_pruned && !self.shared.is_calm() => queue.identity = None,
            code => {
                let may_lack = self.shared.plan.replicas > 1;
                let allowed = if may_lack { &RETRIABLE[..] } else { &RETRIABLE[..RETRIABLE_ALONE] };
                self.shared.judge_partition(&who, code, allowed, connection.address, place);
                self.is_stale.set(true);
            }
        }
        queue.batches[index].is_in_flight = false;
    }
}
