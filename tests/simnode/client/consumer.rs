//! A reader of a topic: fetch sessions with each leader, from the start of the log on and then at its end; now and then
//! it begins anew, and must find what it found before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::Records;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::{FetchRequest, FetchResponse};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_ring::{self as ring, sim, sleep_ms};
use ringlog_types::Uuid;

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::{ASK_AGAIN_MS, route};
use crate::check::ledger::Read;

/// The largest batch, unpacked.
const BATCH_BYTES_MAX: usize = 16 << 20;
const CALL_LIMIT_MS: u64 = 45_000;
const PAUSE_MS: u64 = 50;
/// The node doesn't lead the partition, or doesn't know it yet; or its log's end is behind what was asked for, see
/// [`Consumer::on_partition`].
const RETRIABLE: [i16; 5] = [3, 5, 6, 9, 100];
const OUT_OF_RANGE: i16 = 1;
/// The session is gone.
const SESSION_ERRORS: [i16; 4] = [70, 71, 72, 106];

/// See the module's text.
struct Consumer {
    number: usize,
    topic: usize,
    shared: Rc<Shared>,
    /// Where it is, by partition.
    positions: RefCell<BTreeMap<i32, i64>>,
    is_stale: Cell<bool>,
}

/// Runs a reader to the end of the run.
pub async fn run(shared: Rc<Shared>, number: usize) {
    let topic = number % shared.plan.topics.len();
    let consumer =
        Consumer { number, topic, shared: shared.clone(), positions: RefCell::default(), is_stale: Cell::new(false) };
    let consumer = Rc::new(consumer);
    while !shared.is_over.get() {
        if sim::draw(8) == 0 {
            consumer.positions.borrow_mut().clear();
        }
        let (found, has_leaders) = consumer.routes().await;
        consumer.is_stale.set(false);
        if !has_leaders {
            let consumer = consumer.clone();
            ring::spawn_detached(async move {
                sleep_ms(ASK_AGAIN_MS).await;
                consumer.is_stale.set(true);
            });
        }
        let readers = found.into_iter().map(|(address, topic_id, partitions)| {
            let consumer = consumer.clone();
            ring::spawn(async move {
                if let Err(fault) = consumer.read(address, topic_id, &partitions).await {
                    consumer.shared.judge(&consumer.who(), &fault);
                }
                consumer.is_stale.set(true);
            })
        });
        let readers: Vec<_> = readers.collect();
        for reader in readers {
            reader.await;
        }
        sleep_ms(PAUSE_MS + sim::draw(PAUSE_MS)).await;
    }
}

impl Consumer {
    fn who(&self) -> String {
        format!("reader {}", self.number)
    }

    /// Partitions by their leader's address; whether all have one.
    async fn routes(&self) -> (Vec<(SocketAddr, Uuid, Vec<i32>)>, bool) {
        let topic = &self.shared.plan.topics[self.topic];
        let route = route(&self.shared, &topic.name, topic.partitions).await.unwrap_or_default();
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in route.leaders {
            by_leader.entry(leader).or_default().push(partition);
        }
        let address = |(leader, partitions)| Some((*self.shared.brokers.get(&leader)?, route.topic_id, partitions));
        let has_leaders = !by_leader.contains_key(&-1);
        let routes: Vec<_> = by_leader.into_iter().filter_map(address).collect();
        (routes, has_leaders)
    }

    /// One fetch session.
    async fn read(&self, address: SocketAddr, topic_id: Uuid, partitions: &[i32]) -> Result<(), CallFault> {
        let mut connection = Connection::open(address).await?;
        let (mut session_id, mut session_epoch) = (0, 0);
        // What the node knows of where this reader is.
        let mut told: BTreeMap<i32, i64> = BTreeMap::new();
        while !self.is_stale.get() && !self.shared.is_over.get() {
            let changed = self.changed(partitions, &told);
            let request = self.request(topic_id, &changed, (session_id, session_epoch));
            told.extend(changed);
            let answer = connection.call(&request, CALL_LIMIT_MS).await?;
            if answer.error_code != 0 {
                self.shared.judge_code(&self.who(), answer.error_code, &SESSION_ERRORS);
                return Ok(());
            }
            session_id = answer.session_id;
            session_epoch = if session_id == 0 { 0 } else { session_epoch + 1 };
            if session_id == 0 {
                told.clear();
            }
            self.on_answer(&connection, answer)?;
            sleep_ms(sim::draw(10)).await;
        }
        Ok(())
    }

    /// Partitions whose position isn't what the node was told.
    fn changed(&self, partitions: &[i32], told: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let mut positions = self.positions.borrow_mut();
        let wanted = partitions.iter().map(|partition| (*partition, *positions.entry(*partition).or_insert(0)));
        wanted.filter(|(partition, position)| told.get(partition) != Some(position)).collect()
    }

    fn request(&self, topic_id: Uuid, wanted: &BTreeMap<i32, i64>, session: (i32, i32)) -> FetchRequest {
        let partition = |(partition, offset): (&i32, &i64)| FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: 1 << (10 + sim::draw(11)),
            ..FetchPartition::default()
        };
        let partitions: Vec<_> = wanted.iter().map(partition).collect();
        let topics = match partitions.is_empty() {
            true => Vec::new(),
            false => vec![FetchTopic { topic_id, partitions, ..FetchTopic::default() }],
        };
        FetchRequest {
            max_wait_ms: [0, 100, 500][sim::draw(3) as usize],
            min_bytes: 1 + sim::draw(2) as i32 * 1_000,
            max_bytes: 4 << 20,
            session_id: session.0,
            session_epoch: session.1,
            topics,
            ..FetchRequest::default()
        }
    }

    fn on_answer(&self, connection: &Connection, answer: FetchResponse) -> Result<(), CallFault> {
        for found in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            self.on_partition(connection, found).map_err(CallFault::Nonsense)?;
        }
        Ok(())
    }

    fn on_partition(&self, connection: &Connection, found: PartitionData) -> Result<(), String> {
        let place = (self.topic, found.partition_index);
        let mut positions = self.positions.borrow_mut();
        let position =
            positions.get_mut(&found.partition_index).ok_or("a partition that wasn't asked for".to_owned())?;
        let may_have_lost = self.shared.with_ledger(place, |ledger| ledger.may_have_lost());
        match found.error_code {
            0 => {}
            OUT_OF_RANGE if may_have_lost => {
                *position = 0;
                return Ok(());
            }
            code => {
                self.shared.judge_code(&format!("{} of {place:?} at {position}", self.who()), code, &RETRIABLE);
                self.is_stale.set(true);
                return Ok(());
            }
        }
        let bytes = found.records.map(Records::into_contiguous).unwrap_or_default();
        let records = records(&bytes, *position)?;
        let next = self
            .shared
            .with_ledger(place, |ledger| ledger.on_read(place, connection.opened_at_ns, *position, &records));
        let next = next.map_err(|fault| format!("partition {place:?}: {fault}"))?;
        if next > found.high_watermark {
            return Err(format!("partition {place:?}: records up to {next}, above {}", found.high_watermark));
        }
        *position = next;
        self.shared.reached.borrow_mut().insert((self.number, found.partition_index), next);
        Ok(())
    }
}

/// The records from `offset` on. What is cut off at the answer's size limit is left out.
pub fn records(bytes: &[u8], offset: i64) -> Result<Vec<Read>, String> {
    let mut scratch = Scratch::new(BATCH_BYTES_MAX);
    let mut records = Vec::new();
    for batch in BatchIter::new(bytes) {
        let Ok(batch) = batch else { break };
        batch.verify_crc().map_err(|fault| format!("a batch at {}: {fault}", batch.header.base_offset.0))?;
        for record in batch.records(&mut scratch).map_err(|fault| fault.to_string())? {
            let record = record.map_err(|fault| fault.to_string())?;
            if record.offset.0 >= offset {
                records.push(Read { offset: record.offset.0, value: record.value.unwrap_or_default().to_vec() });
            }
        }
    }
    Ok(records)
}

/// All records of a partition, from the first to the last; also the error that a node gave instead.
pub async fn read_all(
    connection: &mut Connection,
    topic_id: Uuid,
    partition: i32,
) -> Result<Result<Vec<Read>, i16>, CallFault> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let wanted = FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            max_bytes: 4 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic { topic_id, partitions: vec![wanted], ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        let part = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let Some(part) = part.filter(|_| answer.error_code == 0) else { return Ok(Err(answer.error_code)) };
        if part.error_code != 0 {
            return Ok(Err(part.error_code));
        }
        let bytes = part.records.map(Records::into_contiguous).unwrap_or_default();
        let mut read = records(&bytes, offset).map_err(CallFault::Nonsense)?;
        for record in &read {
            if record.offset != offset {
                return Err(CallFault::Nonsense(format!("{} follows, and {offset} was due", record.offset)));
            }
            offset += 1;
        }
        if read.is_empty() && offset < part.high_watermark {
            return Err(CallFault::Nonsense(format!("nothing at {offset}, below {}", part.high_watermark)));
        }
        found.append(&mut read);
        if offset >= part.high_watermark {
            return Ok(Ok(found));
        }
    }
}
