//! A reader of a topic: fetch sessions with each leader, from the start of the log on and then at its end; now and then
//! it begins anew, and must find what it found before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::Records;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ringlog_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use ringlog_protocol::records::{BatchIter, Scratch};
use ringlog_ring::{self as ring, sim, sleep_ms};
use ringlog_types::Uuid;

use super::Shared;
use super::connection::{CallFault, Connection};
use super::routes::{ASK_AGAIN_MS, route};
use crate::check::Asked;
use crate::check::ledger::Read;

/// The largest batch, unpacked.
const BATCH_BYTES_MAX: usize = 16 << 20;
const CALL_LIMIT_MS: u64 = 45_000;
const PAUSE_MS: u64 = 50;
/// The node doesn't lead the partition, or doesn't know it yet; or its log's end is behind what was asked for, see
/// [`Consumer::on_partition`].
const RETRIABLE: [i16; 5] = [3, 5, 6, 9, 100];
/// OFFSET_NOT_AVAILABLE besides: a new leader hasn't committed yet what it had when it was elected.
const OFFSET_RETRIABLE: [i16; 6] = [3, 5, 6, 9, 100, 78];
const OUT_OF_RANGE: i16 = 1;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const LATEST_TIME: i64 = -3;
/// A session lasts as long as its connection: in these runs none gets so old that it may be given up for another.
/// But followers' sessions may take the places of others.
const SESSION_ERRORS: [i16; 1] = [70];
/// The longest that a fetch is asked to wait for records.
const LONG_POLL_MS: i32 = 8_000;
/// By so much a node's clock may be ahead at the end of the longest wait, or cut it off.
const CLOCKS_DIFFER_MS: u64 = 20;
/// The longest that a fetch which waits may not notice records that are there, and acknowledged.
const NOTICED_WITHIN_NS: u64 = 6 * sim::SECOND;

/// See the module's text.
struct Consumer {
    number: usize,
    topic: usize,
    shared: Rc<Shared>,
    /// Where it is, by partition.
    positions: RefCell<BTreeMap<i32, i64>>,
    /// Ends of logs that it was told, by partition, and when the connection was opened on which it was.
    ends: RefCell<BTreeMap<i32, (u64, i64)>>,
    /// Replicas near it that leaders sent it to, by partition.
    preferred: RefCell<BTreeMap<i32, i32>>,
    is_stale: Cell<bool>,
}

/// Runs a reader to the end of the run.
pub async fn run(shared: Rc<Shared>, number: usize) {
    let topic = number % shared.plan.topics.len();
    let consumer = Consumer {
        number,
        topic,
        shared: shared.clone(),
        positions: RefCell::default(),
        ends: RefCell::default(),
        preferred: RefCell::default(),
        is_stale: Cell::new(false),
    };
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
                    // The leader may know somebody else.
                    consumer.preferred.borrow_mut().retain(|partition, _| !partitions.contains(partition));
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
            // Now and then the leader is asked again who is near.
            if self.shared.plan.has_racks && sim::draw(6) == 0 {
                self.preferred.borrow_mut().remove(&partition);
            }
            let near = self.preferred.borrow().get(&partition).copied();
            by_leader.entry(near.unwrap_or(leader)).or_default().push(partition);
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
            let asked = connection.asked();
            let begun_ns = sim::control().now_ns();
            let limit_ms = self.shared.plan.answer_limit_ms + request.max_wait_ms as u64;
            let answer = connection.call(&request, limit_ms).await?;
            let took_ms = (sim::control().now_ns() - begun_ns) / sim::MS;
            let is_empty = answer.error_code == 0 && answer.responses.is_empty();
            if session_epoch > 0 && is_empty && took_ms + CLOCKS_DIFFER_MS < request.max_wait_ms as u64 {
                let text = format!("{}: an answer with nothing in it after {took_ms} ms", self.who());
                self.shared.complain(text);
            }
            if request.min_bytes == 1 {
                self.judge_wait(begun_ns, &told);
            }
            if answer.error_code != 0 {
                let may_be_evicted = self.shared.plan.replicas > 1;
                let allowed = if may_be_evicted { &SESSION_ERRORS[..] } else { &[] };
                self.shared.judge_code(&self.who(), answer.error_code, allowed);
                return Ok(());
            }
            session_id = answer.session_id;
            session_epoch = if session_id == 0 { 0 } else { session_epoch + 1 };
            if session_id == 0 {
                told.clear();
            }
            for partition in self.on_answer(address, asked, answer)? {
                self.start_again(&mut connection, partition).await?;
            }
            let is_near = partitions.iter().any(|partition| self.preferred.borrow().contains_key(partition));
            if !is_near && sim::draw(40) == 0 {
                let partition = partitions[sim::draw(partitions.len() as u64) as usize];
                self.ask_times(&mut connection, partition).await?;
            }
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
        let rack = self.shared.plan.has_racks.then(|| rack_of(self.number as i32));
        FetchRequest {
            rack_id: StrBytes::copy_from(rack.as_deref().unwrap_or_default()),
            max_wait_ms: [0, 100, 500, LONG_POLL_MS][sim::draw(4) as usize],
            min_bytes: 1 + sim::draw(2) as i32 * 1_000,
            max_bytes: [4 << 20, 4 << 20, 100_000, 1][sim::draw(4) as usize],
            isolation_level: sim::draw(2) as i8,
            session_id: session.0,
            session_epoch: session.1,
            topics,
            ..FetchRequest::default()
        }
    }

    /// What of this was acknowledged must have ended the wait.
    fn judge_wait(&self, begun_ns: u64, told: &BTreeMap<i32, i64>) {
        let healed_at_ns = self.shared.healed_at_ns.get().or_else(|| self.shared.plan.faults.is_empty().then_some(0));
        let Some(healed_at_ns) = healed_at_ns else { return };
        let now_ns = sim::control().now_ns();
        for (partition, position) in told {
            let place = (self.topic, *partition);
            let since_ns = self.shared.with_ledger(place, |ledger| ledger.acknowledged_from(*position));
            let Some(since_ns) = since_ns.map(|since_ns| since_ns.max(healed_at_ns).max(begun_ns)) else { continue };
            // Who follows waits for an answer that got lost, and whoever reads there waits, too.
            let is_near = self.preferred.borrow().contains_key(partition);
            let lost_ns = if is_near { self.shared.plan.lost_answer_ms() * sim::MS } else { 0 };
            if now_ns.saturating_sub(since_ns) > NOTICED_WITHIN_NS + lost_ns {
                let waited_ms = (now_ns - since_ns) / sim::MS;
                self.shared.complain(format!(
                    "{}: records of {place:?} at {position} weren't noticed for {waited_ms} ms",
                    self.who()
                ));
            }
        }
    }

    /// Returns partitions whose position isn't in the log.
    fn on_answer(&self, address: SocketAddr, asked: Asked, answer: FetchResponse) -> Result<Vec<i32>, CallFault> {
        let mut out_of_range = Vec::new();
        for found in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            if found.error_code == OUT_OF_RANGE {
                out_of_range.push(found.partition_index);
            } else {
                self.on_partition(address, asked, found).map_err(CallFault::Nonsense)?;
            }
        }
        Ok(out_of_range)
    }

    /// Goes on at the log's start.
    async fn start_again(&self, connection: &mut Connection, partition: i32) -> Result<(), CallFault> {
        let place = (self.topic, partition);
        // Who is near may be behind, and isn't asked where the log is.
        if self.preferred.borrow_mut().remove(&partition).is_some() {
            self.is_stale.set(true);
            return Ok(());
        }
        let Some((start, end)) = self.range(connection, partition).await? else { return Ok(()) };
        let mut positions = self.positions.borrow_mut();
        let Some(position) = positions.get_mut(&partition) else { return Ok(()) };
        // The start only moves up.
        if *position >= start && !self.shared.with_ledger(place, |ledger| ledger.may_have_lost()) {
            let range = format!("the log of {place:?} is from {start} to {end}");
            return Err(CallFault::Nonsense(format!("{position} is said to be out of range; {range}")));
        }
        *position = start;
        self.shared.reached.borrow_mut().insert((self.number, partition), start);
        Ok(())
    }

    /// Where a log starts and ends; nothing when the node can't say.
    async fn range(&self, connection: &mut Connection, partition: i32) -> Result<Option<(i64, i64)>, CallFault> {
        let place = (self.topic, partition);
        let name = &self.shared.plan.topics[self.topic].name;
        let asked = connection.asked();
        let mut found = Vec::new();
        for at_ms in [EARLIEST, LATEST] {
            match list_offset(connection, name, partition, at_ms).await? {
                Ok((offset, _)) => found.push(offset),
                Err(code) => {
                    self.shared.judge_partition(&self.who(), code, &OFFSET_RETRIABLE, connection.address, place);
                    self.is_stale.set(true);
                    return Ok(None);
                }
            }
        }
        let now_ms = ring::now().wall.0;
        let checked = self.shared.with_ledger(place, |ledger| ledger.on_start(asked, (found[0], found[1]), now_ms));
        checked.map_err(|fault| CallFault::Nonsense(format!("partition {place:?}: {fault}")))?;
        self.ends.borrow_mut().insert(partition, (asked.opened_at_ns, found[1]));
        Ok(Some((found[0], found[1])))
    }

    /// Looks something up by its time.
    async fn ask_times(&self, connection: &mut Connection, partition: i32) -> Result<(), CallFault> {
        let place = (self.topic, partition);
        let name = &self.shared.plan.topics[self.topic].name;
        let asked = connection.asked();
        let known_end = self.shared.with_ledger(place, |ledger| ledger.end());
        let at_ms = if sim::draw(3) == 0 { LATEST_TIME } else { ring::now().wall.0 - sim::draw(10_000) as i64 };
        let found = match list_offset(connection, name, partition, at_ms).await? {
            Ok(found) => found,
            Err(code) => {
                self.shared.judge_partition(&self.who(), code, &OFFSET_RETRIABLE, connection.address, place);
                return Ok(());
            }
        };
        let Some((start, _)) = self.range(connection, partition).await? else { return Ok(()) };
        let checked = self.shared.with_ledger(place, |ledger| match at_ms {
            LATEST_TIME => ledger.on_latest_time(asked, found, start, known_end),
            _ => ledger.on_time(asked, at_ms, found, start, known_end),
        });
        checked.map_err(|fault| CallFault::Nonsense(format!("partition {place:?}: {fault}")))
    }

    fn on_partition(&self, address: SocketAddr, asked: Asked, found: PartitionData) -> Result<(), String> {
        let place = (self.topic, found.partition_index);
        let mut positions = self.positions.borrow_mut();
        let asked_for = positions.len();
        let position =
            positions.get_mut(&found.partition_index).ok_or("a partition that wasn't asked for".to_owned())?;
        match found.error_code {
            0 => {}
            code => {
                let who = format!("{} of {place:?} at {position}", self.who());
                self.preferred.borrow_mut().remove(&found.partition_index);
                self.shared.judge_partition(&who, code, &RETRIABLE, address, place);
                self.is_stale.set(true);
                return Ok(());
            }
        }
        if self.shared.brokers.contains_key(&found.preferred_read_replica) {
            let near = found.preferred_read_replica;
            let is_near = self.shared.plan.has_racks && rack_of(near) == rack_of(self.number as i32);
            if !is_near || self.shared.brokers.get(&near) == Some(&address) {
                return Err(format!("partition {place:?}: sent to {near} by {address}"));
            }
            self.preferred.borrow_mut().insert(found.partition_index, near);
            self.is_stale.set(true);
            return Ok(());
        }
        let bytes = found.records.map(Records::into_contiguous).unwrap_or_default();
        let records = records(&bytes, *position)?;
        let told = self.ends.borrow().get(&found.partition_index).copied();
        let is_told_here = |(at_ns, _): &(u64, i64)| *at_ns == asked.opened_at_ns && !self.shared.plan.is_unclean;
        if let Some((_, end)) = told.filter(is_told_here).filter(|(_, end)| found.high_watermark < *end) {
            return Err(format!("partition {place:?}: it ends at {}, and {end} was told before", found.high_watermark));
        }
        // Nothing else is asked for, so there is room for it.
        let more = &self.shared.plan.workload.topics[self.topic];
        let stays = !more.is_pruned
            && more.retention.bytes.is_none()
            && more.retention.ms.is_none()
            && !self.shared.with_ledger(place, |ledger| ledger.may_have_lost());
        if stays && asked_for == 1 && records.is_empty() && *position < found.high_watermark {
            return Err(format!("partition {place:?}: nothing at {position}, below {}", found.high_watermark));
        }
        let next = self.shared.with_ledger(place, |ledger| ledger.on_read(place, asked, *position, &records));
        let next = next.map_err(|fault| format!("partition {place:?}: {fault}"))?;
        // Where it is it may have got to before a power failure.
        if !records.is_empty() && next > found.high_watermark {
            return Err(format!("partition {place:?}: records up to {next}, above {}", found.high_watermark));
        }
        *position = next;
        self.shared.reached.borrow_mut().insert((self.number, found.partition_index), next);
        Ok(())
    }
}

/// The rack of a broker, or of a reader.
pub fn rack_of(number: i32) -> String {
    format!("rack-{}", number % 2)
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
                let value = record.value.unwrap_or_default().to_vec();
                records.push(Read { offset: record.offset.0, at_ms: record.timestamp.0, value });
            }
        }
    }
    Ok(records)
}

/// Where the first record is whose time isn't below, and its time; or the error.
async fn list_offset(
    connection: &mut Connection,
    name: &str,
    partition: i32,
    at_ms: i64,
) -> Result<Result<(i64, i64), i16>, CallFault> {
    let partition =
        ListOffsetsPartition { partition_index: partition, timestamp: at_ms, ..ListOffsetsPartition::default() };
    let name = StrBytes::copy_from(name);
    let topic = ListOffsetsTopic { name, partitions: vec![partition] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], timeout_ms: 10_000, ..ListOffsetsRequest::default() };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    Ok(if found.error_code == 0 { Ok((found.offset, found.timestamp)) } else { Err(found.error_code) })
}

/// Where a partition starts and all of its records; also the error that a node gave instead. There may be holes where a
/// power failure took all of a segment that nothing was promised for, and left the name of the next one: as Kafka does, a
/// node goes on behind it.
pub async fn read_all(
    connection: &mut Connection,
    (name, topic_id): (&str, Uuid),
    partition: i32,
    may_have_holes: bool,
) -> Result<Result<(i64, Vec<Read>), i16>, CallFault> {
    let start = match list_offset(connection, name, partition, EARLIEST).await? {
        Ok((start, _)) => start,
        Err(code) => return Ok(Err(code)),
    };
    let (mut found, mut offset) = (Vec::new(), start);
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
            if record.offset < offset || (record.offset > offset && !may_have_holes) {
                return Err(CallFault::Nonsense(format!("{} follows, and {offset} was due", record.offset)));
            }
            offset = record.offset + 1;
        }
        if read.is_empty() && offset < part.high_watermark {
            if may_have_holes {
                return Ok(Ok((start, found)));
            }
            // Retention may have taken it while it was read.
            if list_offset(connection, name, partition, EARLIEST).await?.is_ok_and(|(start, _)| start > offset) {
                return Ok(Err(OUT_OF_RANGE));
            }
            return Err(CallFault::Nonsense(format!("nothing at {offset}, below {}", part.high_watermark)));
        }
        found.append(&mut read);
        if offset >= part.high_watermark {
            return Ok(Ok((start, found)));
        }
    }
}
