//! Sends batches that are just as large as their topic allows, and some that are too large: those are refused, and nothing
//! of them is ever seen.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::ProduceRequest;
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::records::{BatchBuilder, BatchOptions};
use ringlog_ring::{self as ring, sim, sleep_ms};
use ringlog_types::TimestampMs;

use super::connection::{CallFault, Connection};
use super::routes::route;
use super::{Shared, changer};
use crate::check::ledger::{Order, RecordName, value_of};

/// Among producers.
const NUMBER: u32 = 1_000;
const CALL_LIMIT_MS: u64 = 45_000;
/// The node doesn't lead the partition, or doesn't know it yet; or it took too long.
const RETRIABLE: [i16; 6] = [3, 5, 6, 7, 13, 100];
const MESSAGE_TOO_LARGE: i16 = 10;
const RECORD_LIST_TOO_LARGE: i16 = 18;
/// Segments up to this are overstepped, too; others may have been told twice as much.
const SEGMENT_BYTES_MAX: u64 = 100_000;

/// When nothing is wrong, everybody has heard of a limit within this time.
const KNOWN_WITHIN_NS: u64 = 2 * sim::SECOND;

/// What is sent, and what it is told.
#[derive(Clone, Copy)]
struct Attempt {
    bytes: u64,
    refused_by: Option<i16>,
    /// It may be there all the same: not everybody has heard of the limit yet.
    may_pass: bool,
}

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let next = Cell::new(0);
    for (topic, more) in shared.plan.topics.iter().zip(&shared.plan.workload.topics) {
        if let Some(bytes) = more.message_bytes_max.filter(|_| shared.plan.workload.has_late_limits) {
            changer::set(&shared, &topic.name, "max.message.bytes", &bytes.to_string()).await;
        }
    }
    let set_at_ns = sim::control().now_ns();
    while !shared.is_over.get() {
        sleep_ms(50 + sim::draw(400)).await;
        let number = sim::draw(shared.plan.topics.len() as u64) as usize;
        let plan = &shared.plan.topics[number];
        let place = (number, sim::draw(plan.partitions as u64) as i32);
        let Some(attempt) = draw(&shared, number, set_at_ns) else { continue };
        let Some(route) = route(&shared, &plan.name, plan.partitions).await else { continue };
        let leader = route.leaders.get(&place.1).and_then(|leader| shared.brokers.get(leader)).copied();
        let Some(leader) = leader else { continue };
        let Ok(mut connection) = Connection::open(leader).await else { continue };
        let name = RecordName { producer: NUMBER, number: next.replace(next.get() + 1) };
        let now_ms = ring::now().wall.0;
        let Some((bytes, len)) = batch(place, name, attempt.bytes as usize, now_ms) else { continue };
        if attempt.refused_by.is_none() || attempt.may_pass {
            shared.with_ledger(place, |ledger| {
                ledger.on_new(name, (len, now_ms), Order::None);
                ledger.on_attempt(name);
            });
        }
        let data = PartitionProduceData { index: place.1, records: Some(Records::from(bytes)) };
        let topic =
            TopicProduceData { topic_id: route.topic_id, partition_data: vec![data], ..TopicProduceData::default() };
        let request = ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 15_000, topic_data: vec![topic] };
        if let Err(fault) = send(&shared, &mut connection, &request, place, (name, attempt)).await {
            shared.judge("who sends large batches", &fault);
        }
    }
}

fn draw(shared: &Shared, topic: usize, set_at_ns: u64) -> Option<Attempt> {
    let limit = shared.plan.workload.topics[topic].message_bytes_max;
    let segment_bytes = shared.plan.topics[topic].segment_bytes;
    // A broker that is cut off hears of nothing.
    let is_known = shared.is_calm() && sim::control().now_ns() > set_at_ns + KNOWN_WITHIN_NS;
    let may_pass = shared.plan.workload.has_late_limits && !is_known;
    let refused = |bytes, code| Some(Attempt { bytes, refused_by: Some(code), may_pass });
    match (limit, sim::draw(2)) {
        (Some(limit), 0) => Some(Attempt { bytes: limit, refused_by: None, may_pass: true }),
        (Some(limit), _) => refused(limit + 1, MESSAGE_TOO_LARGE),
        (None, _) if segment_bytes <= SEGMENT_BYTES_MAX => {
            let attempt = refused(2 * segment_bytes + 1, RECORD_LIST_TOO_LARGE);
            attempt.map(|attempt| Attempt { may_pass: false, ..attempt })
        }
        (None, _) => None,
    }
}

/// A batch of one record that has just so many bytes, and how long its value is; none if there is no such batch.
fn batch(place: (usize, i32), name: RecordName, bytes: usize, at_ms: i64) -> Option<(Bytes, usize)> {
    let mut len = bytes.checked_sub(100)?;
    for _ in 0..4 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(TimestampMs(at_ms), None, Some(&value_of(place, name, len)), &[]);
        let built = builder.build();
        if built.len() == bytes {
            return Some((built, len));
        }
        len = (len + bytes).checked_sub(built.len())?;
    }
    None
}

async fn send(
    shared: &Rc<Shared>,
    connection: &mut Connection,
    request: &ProduceRequest,
    place: (usize, i32),
    (name, attempt): (RecordName, Attempt),
) -> Result<(), CallFault> {
    let answer = connection.call(request, CALL_LIMIT_MS).await?;
    let found = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    let who = format!("who sends {} bytes to {place:?}", attempt.bytes);
    match (found.error_code, attempt.refused_by) {
        (0, _) if attempt.refused_by.is_none() || attempt.may_pass => {
            let (now_ns, opened_at_ns) = (sim::control().now_ns(), connection.opened_at_ns);
            let offset = Some(found.base_offset);
            let told =
                shared.with_ledger(place, |ledger| ledger.on_acknowledged(now_ns, opened_at_ns, name, 1, offset));
            told.unwrap_or_else(|fault| shared.complain(format!("{who}: {fault}")));
        }
        (0, refused_by) => shared.complain(format!("{who} is told that they are there, and not {refused_by:?}")),
        (code, Some(refused_by)) if code == refused_by => {}
        (code, _) => shared.judge_partition(&who, code, &RETRIABLE, connection.address, place),
    }
    Ok(())
}
