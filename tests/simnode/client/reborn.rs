//! A topic that is deleted and made anew under the same name while others write and read it, also by the ids of topics
//! that are gone: nothing of one ever shows under the other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_protocol::messages::{CreatePartitionsRequest, FetchRequest, ProduceRequest};
use ringlog_protocol::records::{BatchBuilder, BatchOptions};
use ringlog_protocol::{Records, StrBytes};
use ringlog_ring::{self as ring, sim, sleep_ms};
use ringlog_types::{TimestampMs, Uuid};

use super::connection::{CallFault, Connection};
use super::consumer::records;
use super::routes::ask;
use super::{Shared, admin};

const NAME: &str = "reborn";
const CALL_LIMIT_MS: u64 = 45_000;
/// Not led here, not known yet, or not any more; or it took too long.
const RETRIABLE: [i16; 6] = [3, 5, 6, 7, 9, 100];
/// Its partitions once it has got more.
const PARTITIONS: i32 = 3;
const ASK_TRIES: usize = 100;
/// How long it lives.
const LIFE_MS: u64 = 1_500;
/// How long a node that was started may be without a leader.
const LOW_MAX_NS: u64 = 20_000_000_000;
/// UNKNOWN_TOPIC_OR_PARTITION.
const GONE: i16 = 3;
/// INVALID_PARTITIONS: it has that many already.
const HAS_THEM: i16 = 37;

/// One of the topics that had the name.
#[derive(Default)]
struct Life {
    /// Somebody wants it gone.
    is_doomed: bool,
    /// How many partitions it has for certain.
    partitions: i32,
    /// What was acknowledged, by partition and offset.
    acknowledged: BTreeMap<(i32, i64), u64>,
}

struct Reborn {
    shared: Rc<Shared>,
    lives: RefCell<BTreeMap<Uuid, Life>>,
    current: Cell<Option<Uuid>>,
    next_number: Cell<u64>,
    /// What was acknowledged before is void: the power failed since.
    void_before_ns: Cell<u64>,
    /// Since when partitions were answered for by who knows less to be committed than was acknowledged.
    low_since_ns: RefCell<BTreeMap<(Uuid, i32), u64>>,
}

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let reborn = Reborn {
        shared,
        lives: RefCell::default(),
        current: Cell::new(None),
        next_number: Cell::new(0),
        void_before_ns: Cell::new(0),
        low_since_ns: RefCell::default(),
    };
    let reborn = Rc::new(reborn);
    let (writer, reader) = (reborn.clone(), reborn.clone());
    let writer = ring::spawn(async move { writer.keep(true).await });
    let reader = ring::spawn(async move { reader.keep(false).await });
    while !reborn.is_over() {
        if let Err(fault) = reborn.live().await {
            reborn.shared.judge("who makes a topic anew", &fault);
        }
        sleep_ms(20 + sim::draw(80)).await;
    }
    writer.await;
    reader.await;
}

impl Reborn {
    fn is_over(&self) -> bool {
        self.shared.is_over.get()
    }

    fn address(&self) -> SocketAddr {
        let addresses: Vec<_> = self.shared.brokers.values().copied().collect();
        addresses[sim::draw(addresses.len() as u64) as usize]
    }

    /// One life.
    async fn live(&self) -> Result<(), CallFault> {
        let mut connection = Connection::open(self.address()).await?;
        let configs = [("flush.messages", "1".to_owned())];
        match admin::create(&mut connection, NAME, (1, 1), &configs).await? {
            0 | admin::EXISTS => {}
            code => {
                self.shared.judge_code("who makes a topic anew", code, &admin::RETRIABLE);
                return Ok(());
            }
        }
        // The node may not know it yet, and who was told to delete the one before may do so now.
        let mut found = None;
        for _ in 0..ASK_TRIES {
            let is_doomed = |id: &Uuid| self.lives.borrow().get(id).is_some_and(|life| life.is_doomed);
            found = ask(&mut connection, NAME).await?.map(|route| route.topic_id).filter(|id| !is_doomed(id));
            if found.is_some() || self.is_over() {
                break;
            }
            sleep_ms(30).await;
        }
        let Some(id) = found else { return Ok(()) };
        self.lives.borrow_mut().entry(id).or_default().partitions = 1;
        self.current.set(Some(id));
        sleep_ms(sim::draw(LIFE_MS)).await;
        if sim::draw(2) == 0 {
            self.grow(&mut connection, id).await?;
            sleep_ms(sim::draw(LIFE_MS)).await;
        }
        // Once it is to go, nobody waits for it: only its successor counts.
        self.lives.borrow_mut().get_mut(&id).into_iter().for_each(|life| life.is_doomed = true);
        while !self.is_over() {
            match admin::delete(&mut connection, NAME).await? {
                0 | GONE => break,
                code => self.shared.judge_code("who deletes a topic", code, &admin::RETRIABLE),
            }
            sleep_ms(50).await;
        }
        Ok(())
    }

    async fn grow(&self, connection: &mut Connection, id: Uuid) -> Result<(), CallFault> {
        let topic = CreatePartitionsTopic { name: StrBytes::copy_from(NAME), count: PARTITIONS, assignments: None };
        let request =
            CreatePartitionsRequest { topics: vec![topic], timeout_ms: 20_000, ..CreatePartitionsRequest::default() };
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        match answer.results.first().map(|topic| topic.error_code) {
            Some(0 | HAS_THEM) => {
                self.lives.borrow_mut().get_mut(&id).into_iter().for_each(|life| life.partitions = PARTITIONS);
            }
            // A broker that gets no answer from a controller passes a request on again: what deleted the one before by its
            // name may be carried out twice.
            Some(GONE) if self.lives.borrow().len() > 1 => {}
            Some(code) => self.shared.judge_code("who adds partitions", code, &admin::RETRIABLE),
            None => return Err(CallFault::Nonsense("an answer without the topic".to_owned())),
        }
        Ok(())
    }

    /// Writes or reads, of the topic that is there or of one that was.
    async fn keep(&self, writes: bool) {
        let who = if writes { "who writes to a topic made anew" } else { "who reads a topic made anew" };
        while !self.is_over() {
            sleep_ms(10 + sim::draw(60)).await;
            let Ok(mut connection) = Connection::open(self.address()).await else { continue };
            for _ in 0..sim::draw(20) {
                let outcome = self.step(&mut connection, writes).await;
                match outcome {
                    Ok(true) if !self.is_over() => sleep_ms(sim::draw(20)).await,
                    Ok(_) => break,
                    Err(fault) => {
                        self.shared.judge(who, &fault);
                        break;
                    }
                }
            }
        }
    }

    /// Says whether this node can be asked further.
    async fn step(&self, connection: &mut Connection, writes: bool) -> Result<bool, CallFault> {
        let old = {
            let lives = self.lives.borrow();
            let place = sim::draw(lives.len().max(1) as u64) as usize;
            lives.keys().nth(place).copied().filter(|_| sim::draw(5) == 0)
        };
        let Some(id) = old.or(self.current.get()) else { return Ok(false) };
        let partitions = self.lives.borrow().get(&id).map_or(1, |life| life.partitions);
        let partition = sim::draw(partitions.max(1) as u64) as i32;
        match writes {
            true => self.write(connection, id, partition).await,
            false => self.read(connection, id, partition).await,
        }
    }

    async fn write(&self, connection: &mut Connection, id: Uuid, partition: i32) -> Result<bool, CallFault> {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let value = format!("{id}/{partition}/{number}");
        builder.append(TimestampMs(ring::now().wall.0), None, Some(value.as_bytes()), &[]);
        let records = Some(Records::from(builder.build()));
        let topic = TopicProduceData {
            topic_id: id,
            partition_data: vec![PartitionProduceData { index: partition, records }],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 10_000, topic_data: vec![topic] };
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        let found = answer.responses.into_iter().flat_map(|topic| topic.partition_responses).next();
        let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
        if found.error_code != 0 {
            self.shared.judge_code("who writes to a topic made anew", found.error_code, &RETRIABLE);
            return Ok(false);
        }
        self.forget_lost();
        if connection.opened_at_ns < self.void_before_ns.get() {
            return Ok(true);
        }
        let mut lives = self.lives.borrow_mut();
        let Some(life) = lives.get_mut(&id) else { return Ok(true) };
        match life.acknowledged.insert((partition, found.base_offset), number) {
            Some(other) => {
                let offset = found.base_offset;
                Err(CallFault::Nonsense(format!("{other} and {number} are both at {offset} of {id}-{partition}")))
            }
            None => Ok(true),
        }
    }

    fn forget_lost(&self) {
        let lost_power_ns = self.shared.lost_power_ns.get();
        if self.void_before_ns.replace(lost_power_ns) < lost_power_ns {
            self.lives.borrow_mut().values_mut().for_each(|life| life.acknowledged.clear());
        }
    }

    async fn read(&self, connection: &mut Connection, id: Uuid, partition: i32) -> Result<bool, CallFault> {
        self.forget_lost();
        let known = {
            let lives = self.lives.borrow();
            let known = lives.get(&id).filter(|life| !life.is_doomed).map(|life| life.acknowledged.clone());
            known.unwrap_or_default()
        };
        let end = known.range((partition, 0)..(partition + 1, 0)).next_back().map_or(0, |((_, offset), _)| offset + 1);
        let wanted = FetchPartition {
            partition,
            fetch_offset: sim::draw(end.unsigned_abs() + 1) as i64,
            partition_max_bytes: 20_000,
            ..FetchPartition::default()
        };
        let offset = wanted.fetch_offset;
        let request = FetchRequest {
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic { topic_id: id, partitions: vec![wanted], ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        let part = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let code = part.as_ref().map_or(answer.error_code, |part| part.error_code);
        let Some(part) = part.filter(|_| code == 0) else {
            self.shared.judge_code("who reads a topic made anew", code, &RETRIABLE);
            return Ok(false);
        };
        let nonsense = |text: String| CallFault::Nonsense(format!("{id}-{partition}: {text}"));
        // Who was started and doesn't lead yet answers consumers as a follower: what it knows to be committed may be old.
        if part.high_watermark < end {
            let now_ns = sim::control().now_ns();
            let since_ns = *self.low_since_ns.borrow_mut().entry((id, partition)).or_insert(now_ns);
            let text = || format!("it ends at {}, and {end} was acknowledged", part.high_watermark);
            return if now_ns - since_ns > LOW_MAX_NS { Err(nonsense(text())) } else { Ok(false) };
        }
        self.low_since_ns.borrow_mut().remove(&(id, partition));
        let bytes = part.records.map(Records::into_contiguous).unwrap_or_default();
        for (place, record) in records(&bytes, offset).map_err(nonsense)?.into_iter().enumerate() {
            let value = String::from_utf8_lossy(&record.value).into_owned();
            let number = value.strip_prefix(&format!("{id}/{partition}/")).and_then(|number| number.parse().ok());
            let is_right = match known.get(&(partition, record.offset)) {
                Some(known) => number == Some(*known),
                None => number.is_some_and(|number: u64| number < self.next_number.get()),
            };
            if !is_right || record.offset != offset + place as i64 {
                return Err(nonsense(format!("{value} is at {}", record.offset)));
            }
        }
        Ok(true)
    }
}
