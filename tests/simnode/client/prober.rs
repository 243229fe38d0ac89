//! A producer with sequence numbers that doesn't keep to them: the same batch again is where it was, and one whose
//! predecessor isn't there is refused.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, ProducerStamp};
use ringlog_ring::{self as ring, sim, sleep_ms};
use ringlog_types::{ProducerEpoch, ProducerId, TimestampMs, Uuid};

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::route;
use crate::check::ledger::{Order, RecordName, value_of};

/// Among producers.
const NUMBER: u32 = 2_000;
const CALL_LIMIT_MS: u64 = 45_000;
const VALUE_BYTES: usize = 60;
/// The node doesn't lead the partition, or doesn't know it yet; or it took too long.
const RETRIABLE: [i16; 6] = [3, 5, 6, 7, 13, 100];
const NO_COORDINATOR: [i16; 5] = [7, 14, 15, 16, 41];
const OUT_OF_ORDER: i16 = 45;

/// A producer of its own, and what it has sent to a partition.
#[derive(Clone)]
struct Probe {
    shared: Rc<Shared>,
    place: (usize, i32),
    topic_id: Uuid,
    producer: (i64, i16),
    at_ms: i64,
    /// Of its records.
    first: RecordName,
    /// Records of each batch.
    count: i32,
}

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let next = Cell::new(0);
    let mut last: Option<Probe> = None;
    while !shared.is_over.get() {
        sleep_ms(50 + sim::draw(400)).await;
        let old = last.take_if(|_| sim::draw(3) == 0);
        let number = sim::draw(shared.plan.topics.len() as u64) as usize;
        let drawn = (number, sim::draw(shared.plan.topics[number].partitions as u64) as i32);
        let place = old.as_ref().map_or(drawn, |old| old.place);
        let plan = &shared.plan.topics[place.0];
        let Some(route) = route(&shared, &plan.name, plan.partitions).await else { continue };
        let leader = route.leaders.get(&place.1).and_then(|leader| shared.brokers.get(leader)).copied();
        let Some(leader) = leader else { continue };
        // All of it on one connection: in one life of the node.
        let Ok(mut connection) = Connection::open(leader).await else { continue };
        let outcome = match old {
            Some(old) => old.repeat(&mut connection).await.map(|()| None),
            None => try_out(&shared, &mut connection, place, route.topic_id, &next).await,
        };
        match outcome {
            Ok(probe) => last = probe.or(last),
            Err(fault) => shared.judge("prober", &fault),
        }
    }
}

/// The probe, if all of it was answered.
async fn try_out(
    shared: &Rc<Shared>,
    connection: &mut Connection,
    place: (usize, i32),
    topic_id: Uuid,
    next: &Cell<u64>,
) -> Result<Option<Probe>, CallFault> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    if answer.error_code != 0 {
        shared.judge_code("prober", answer.error_code, &NO_COORDINATOR);
        return Ok(None);
    }
    let producer = (answer.producer_id, answer.producer_epoch);
    let first = RecordName { producer: NUMBER, number: next.get() };
    let count = 1 + sim::draw(4) as i32;
    next.set(next.get() + 3 * count as u64);
    let at_ms = ring::now().wall.0;
    let probe = Probe { shared: shared.clone(), place, topic_id, producer, at_ms, first, count };
    if !probe.send(connection, 0, true).await? || !probe.send(connection, 0, true).await? {
        return Ok(None);
    }
    let gap = count + 1 + sim::draw(3) as i32;
    probe.send(connection, gap, false).await?;
    Ok(probe.send(connection, count, true).await?.then_some(probe))
}

impl Probe {
    /// Sends its last batch again, perhaps in another life of the node, which knows it still: unless what it knew may be
    /// gone, or the batch.
    async fn repeat(&self, connection: &mut Connection) -> Result<(), CallFault> {
        let more = &self.shared.plan.workload.topics[self.place.0];
        let may_be_gone = more.is_pruned || more.retention.bytes.is_some() || more.retention.ms.is_some();
        if may_be_gone || self.shared.with_ledger(self.place, |ledger| ledger.may_have_lost()) {
            return Ok(());
        }
        self.send(connection, self.count, true).await.map(drop)
    }

    /// Sends its batch from a sequence number on. Says whether it is there.
    async fn send(&self, connection: &mut Connection, sequence: i32, is_right: bool) -> Result<bool, CallFault> {
        let first = RecordName { number: self.first.number + sequence as u64, ..self.first };
        if is_right {
            self.shared.with_ledger(self.place, |ledger| {
                for ahead in 0..self.count as u64 {
                    let name = RecordName { number: first.number + ahead, ..first };
                    ledger.on_new(name, (VALUE_BYTES, self.at_ms), Order::Always);
                    ledger.on_attempt(name);
                }
            });
        }
        let records = Some(Records::from(self.batch(first, sequence)));
        let data = PartitionProduceData { index: self.place.1, records };
        let topic = TopicProduceData { topic_id: self.topic_id, partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 15_000, topic_data: vec![topic] };
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        let found = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
        let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
        let who = format!("prober of {:?} with sequence {sequence}", self.place);
        match found.error_code {
            0 if is_right => {
                let (now_ns, opened_at_ns) = (sim::control().now_ns(), connection.opened_at_ns);
                let (count, offset) = (self.count as u64, Some(found.base_offset));
                let told = self.shared.with_ledger(self.place, |ledger| {
                    ledger.on_acknowledged(now_ns, opened_at_ns, first, count, offset)
                });
                told.map_err(|fault| CallFault::Nonsense(format!("{who}: {fault}")))?;
            }
            0 => return Err(CallFault::Nonsense(format!("{who}: it is taken, and its predecessor isn't there"))),
            OUT_OF_ORDER if !is_right => {}
            // A power failure meanwhile took what was known.
            OUT_OF_ORDER if self.shared.with_ledger(self.place, |ledger| ledger.may_have_lost()) => {}
            code => self.shared.judge_partition(&who, code, &RETRIABLE, connection.address, self.place),
        }
        Ok(found.error_code == 0)
    }

    fn batch(&self, first: RecordName, sequence: i32) -> Bytes {
        let (id, epoch) = self.producer;
        let producer = ProducerStamp {
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: sequence,
        };
        let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
        for ahead in 0..self.count as u64 {
            let value = value_of(self.place, RecordName { number: first.number + ahead, ..first }, VALUE_BYTES);
            builder.append(TimestampMs(self.at_ms), None, Some(&value), &[]);
        }
        builder.build()
    }
}
