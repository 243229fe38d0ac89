use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ringlog_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ringlog_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use ringlog_protocol::records::{BatchIter, BatchRef, ControlRecordType, Scratch, TimestampType};
use ringlog_types::{ErrorCode, Uuid};

use crate::group::{Assignment, Member};
use crate::patience::Backoff;
use crate::{Client, ClientError, CoordinatorType};

/// The version of Fetch from which topics go by id (KIP-516).
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// A batch that unpacks to more than this is refused, in bytes.
const MAX_UNPACKED_BATCH: usize = 256 << 20;

/// Where to start when nothing is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// The first record that is kept.
    Earliest,
    /// The end.
    Latest,
    /// The first record that is no older (KIP-1106), or the end.
    ByDuration(Duration),
    /// Nowhere: it is an error.
    None,
}

/// Where to start in a partition that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// The first record that is kept.
    Earliest,
    /// The end.
    Latest,
    /// This offset.
    At(i64),
}

/// What to read.
pub enum Subscription {
    /// All partitions of these topics, shared with the group if there is one.
    Topics(Vec<String>),
    /// As `Topics`, of all topics whose names fit; looked for again when the metadata is old.
    Matching(Box<dyn Fn(&str) -> bool>),
    /// Just these partitions.
    Partitions(Vec<(String, i32, StartOffset)>),
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subscription::Topics(topics) => f.debug_tuple("Topics").field(topics).finish(),
            Subscription::Matching(_) => f.write_str("Matching"),
            Subscription::Partitions(partitions) => f.debug_tuple("Partitions").field(partitions).finish(),
        }
    }
}

/// How a consumer behaves; `default()` has the Java client's values.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The group to join; none reads all partitions by itself and commits nothing.
    pub group_id: Option<String>,
    /// Makes it a static member (KIP-345).
    pub group_instance_id: Option<String>,
    /// Leave out records of open and aborted transactions.
    pub read_committed: bool,
    /// Where to start when nothing is committed or the offset is no longer there.
    pub auto_offset_reset: AutoOffsetReset,
    /// Commit what was given out this often, on leaving and before a rebalance; `None` commits only when told to.
    pub auto_commit_interval: Option<Duration>,
    /// Without a heartbeat for so long the member is out.
    pub session_timeout: Duration,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a rebalance waits for members.
    pub rebalance_timeout: Duration,
    /// How long a fetch waits at the broker for `fetch_min_bytes`.
    pub fetch_max_wait: Duration,
    /// See `fetch_max_wait`.
    pub fetch_min_bytes: i32,
    /// Bytes per answer, more or less.
    pub fetch_max_bytes: i32,
    /// Bytes per partition and answer, more or less.
    pub max_partition_fetch_bytes: i32,
    /// Compare checksums.
    pub check_crcs: bool,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        ConsumerOptions {
            group_id: None,
            group_instance_id: None,
            read_committed: false,
            auto_offset_reset: AutoOffsetReset::Latest,
            auto_commit_interval: Some(Duration::from_secs(5)),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            fetch_max_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            max_partition_fetch_bytes: 1 << 20,
            check_crcs: true,
        }
    }
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedHeader {
    /// The key.
    pub key: Vec<u8>,
    /// The value, or null.
    pub value: Option<Vec<u8>>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its topic.
    pub topic: std::sync::Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The epoch of the leader that wrote it, if known.
    pub leader_epoch: Option<i32>,
    /// Its time in milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// Whose time that is.
    pub timestamp_type: TimestampType,
    /// The key, or null.
    pub key: Option<Vec<u8>>,
    /// The value; null is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<ConsumedHeader>,
}

#[derive(Debug)]
struct Position {
    offset: i64,
    leader_epoch: i32,
}

/// Reads records, alone or as a member of a group. Everything happens in [`Consumer::poll`], heartbeats too: a member
/// that isn't polled for the session's length is out.
#[derive(Debug)]
pub struct Consumer {
    options: ConsumerOptions,
    subscription: Subscription,
    member: Option<Member>,
    topics: Vec<String>,
    /// Where to go on, by partition; what isn't here isn't read.
    positions: BTreeMap<(String, i32), Position>,
    /// Assigned partitions without a position yet.
    unpositioned: BTreeSet<(String, i32)>,
    last_commit: Instant,
    scratch: Scratch,
    /// Pauses while nobody can be reached.
    reconnect: Backoff,
    is_resolved: bool,
}

impl Consumer {
    /// A consumer that has done nothing yet.
    pub fn new(subscription: Subscription, options: ConsumerOptions) -> Consumer {
        let is_assigned = matches!(subscription, Subscription::Partitions(_));
        let member = options.group_id.clone().filter(|_| !is_assigned).map(|group_id| {
            Member::new(
                group_id,
                options.group_instance_id.clone(),
                options.session_timeout,
                options.heartbeat_interval,
                options.rebalance_timeout,
            )
        });
        Consumer {
            options,
            subscription,
            member,
            topics: Vec::new(),
            positions: BTreeMap::new(),
            unpositioned: BTreeSet::new(),
            last_commit: Instant::now(),
            scratch: Scratch::new(MAX_UNPACKED_BATCH),
            reconnect: Backoff::default(),
            is_resolved: false,
        }
    }

    /// Partitions that are being read.
    pub fn assignment(&self) -> Vec<(String, i32)> {
        self.positions.keys().chain(&self.unpositioned).cloned().collect()
    }

    /// The offset of the next record of a partition that is being read.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.positions.get(&(topic.to_owned(), partition)).map(|position| position.offset)
    }

    /// Goes on at `offset`, for example to give back records that poll returned but that weren't used.
    pub fn seek(&mut self, topic: &str, partition: i32, offset: i64) {
        let key = (topic.to_owned(), partition);
        self.unpositioned.remove(&key);
        self.positions.insert(key, Position { offset, leader_epoch: -1 });
    }

    /// Does what is due and returns records as soon as there are some, or none when a fetch's wait is over or something
    /// that may mend itself stands in the way. Its waits end with the client's deadline.
    pub fn poll(&mut self, client: &mut Client) -> Result<Vec<ConsumedRecord>, ClientError> {
        match self.do_what_is_due(client) {
            Err(fault) if fault.is_retriable() => {
                if let Some(group_id) = &self.options.group_id {
                    client.forget_coordinator(CoordinatorType::Group, group_id);
                }
                let pause = if fault.is_unreachable() { self.reconnect.next() } else { client.options().retry_backoff };
                client.pause(pause)?;
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }

    fn do_what_is_due(&mut self, client: &mut Client) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.resolve(client)?;
        self.keep_membership(client)?;
        self.set_positions(client)?;
        self.commit_if_due(client)?;
        let records = self.fetch(client)?;
        self.reconnect = Backoff::new(client.options().reconnect_backoff, client.options().reconnect_backoff_max);
        Ok(records)
    }

    /// Commits the positions and leaves the group.
    pub fn close(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.options.auto_commit_interval.is_some() {
            self.commit(client)?;
        }
        match &mut self.member {
            Some(member) => member.leave(client),
            None => Ok(()),
        }
    }

    /// Finds out what is subscribed to: at the start, and when the metadata is old.
    fn resolve(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.is_resolved && !client.is_metadata_old() {
            return Ok(());
        }
        let mut topics = match &self.subscription {
            Subscription::Topics(topics) => topics.clone(),
            Subscription::Matching(fits) => {
                let metadata = client.refresh_metadata(None, false)?;
                metadata.topics.keys().filter(|name| fits(name)).map(|name| name.to_string()).collect()
            }
            Subscription::Partitions(partitions) => partitions.iter().map(|(topic, ..)| topic.clone()).collect(),
        };
        topics.sort();
        topics.dedup();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.refresh_metadata(Some(&names), true)?;
        check_topics(client, &topics)?;
        let is_known =
            |topic: &&String| client.metadata().topics.get(topic.as_str()).is_some_and(|it| it.error_code == 0);
        let are_all_known = topics.iter().filter(is_known).count() == topics.len();
        let partitions = self.partitions_of(client, &topics);
        if let Some(member) = &mut self.member {
            if self.is_resolved && (topics != self.topics) {
                member.ask_to_rejoin();
            }
        } else if !matches!(self.subscription, Subscription::Partitions(_)) {
            self.assign(partitions);
        } else if !self.is_resolved {
            self.assign_named();
        }
        self.topics = topics;
        self.is_resolved = are_all_known || self.member.is_some();
        if self.is_resolved { Ok(()) } else { client.pause(client.options().retry_backoff) }
    }

    fn partitions_of(&self, client: &Client, topics: &[String]) -> BTreeSet<(String, i32)> {
        let known = topics.iter().filter_map(|topic| client.metadata().topics.get(topic.as_str()));
        known.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.clone(), partition.index))).collect()
    }

    fn assign_named(&mut self) {
        let Subscription::Partitions(partitions) = &self.subscription else { return };
        for (topic, partition, start) in partitions {
            let key = (topic.clone(), *partition);
            match start {
                StartOffset::At(offset) => {
                    self.positions.insert(key, Position { offset: *offset, leader_epoch: -1 });
                }
                StartOffset::Earliest | StartOffset::Latest => {
                    self.unpositioned.insert(key);
                }
            }
        }
    }

    /// Keeps positions of partitions that stay.
    fn assign(&mut self, assigned: BTreeSet<(String, i32)>) {
        self.positions.retain(|key, _| assigned.contains(key));
        self.unpositioned = assigned.into_iter().filter(|key| !self.positions.contains_key(key)).collect();
    }

    fn keep_membership(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let Some(member) = &mut self.member else { return Ok(()) };
        match member.heartbeat(client) {
            Err(fault) if !fault.is_retriable() => return Err(fault),
            _ => {}
        }
        if !member.must_join() {
            return Ok(());
        }
        if self.options.auto_commit_interval.is_some() && !self.positions.is_empty() {
            // What can't be committed any more was lost to another member, which reads it again.
            let _ = self.commit(client);
        }
        let topics = self.topics.clone();
        let member = self.member.as_mut().expect("it is a member");
        let assignment = member.join(client, &topics, count_partitions)?;
        // Another member may have read on since: all positions are asked for.
        self.positions.clear();
        self.assign(flatten(assignment));
        Ok(())
    }

    /// Committed offsets first, then the reset policy.
    fn set_positions(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.unpositioned.is_empty() {
            return Ok(());
        }
        if let Some(group_id) = self.options.group_id.clone() {
            for (key, offset, leader_epoch) in crate::group_offsets::fetch(client, &group_id, &self.unpositioned)? {
                if self.unpositioned.remove(&key) {
                    self.positions.insert(key, Position { offset, leader_epoch });
                }
            }
        }
        for key in self.unpositioned.clone() {
            match self.reset_offset(client, &key) {
                Ok(offset) => {
                    self.unpositioned.remove(&key);
                    self.positions.insert(key, Position { offset, leader_epoch: -1 });
                }
                Err(fault) if fault.is_unreachable() => return Err(fault),
                Err(fault) if fault.is_retriable() => client.forget_topic(&key.0),
                Err(fault) => return Err(fault),
            }
        }
        // Partitions that have no leader now, or don't exist: those that do are read meanwhile.
        if self.unpositioned.is_empty() { Ok(()) } else { client.pause(client.options().retry_backoff) }
    }

    fn reset_offset(&self, client: &mut Client, key: &(String, i32)) -> Result<i64, ClientError> {
        let named = match &self.subscription {
            Subscription::Partitions(partitions) => {
                partitions.iter().find(|(topic, partition, _)| *topic == key.0 && *partition == key.1)
            }
            _ => None,
        };
        let (earliest, latest) = (-2, -1);
        let timestamp = match (named, self.options.auto_offset_reset) {
            (Some((.., StartOffset::Earliest)), _) => earliest,
            (Some((.., StartOffset::Latest)), _) => latest,
            (_, AutoOffsetReset::Earliest) => earliest,
            (_, AutoOffsetReset::Latest) => latest,
            (_, AutoOffsetReset::ByDuration(age)) => {
                let since = SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            (_, AutoOffsetReset::None) => return Err(ClientError::NoOffset(format!("{}-{}", key.0, key.1))),
        };
        match list_offset(client, &key.0, key.1, timestamp, self.options.read_committed)? {
            // No record is so young.
            -1 if timestamp >= 0 => list_offset(client, &key.0, key.1, latest, self.options.read_committed),
            offset => Ok(offset),
        }
    }

    fn commit_if_due(&mut self, client: &mut Client) -> Result<(), ClientError> {
        match self.options.auto_commit_interval {
            Some(interval) if self.last_commit.elapsed() >= interval => self.commit(client),
            _ => Ok(()),
        }
    }

    /// Commits the positions, if there is a group.
    pub fn commit(&mut self, client: &mut Client) -> Result<(), ClientError> {
        self.last_commit = Instant::now();
        let Some(group_id) = self.options.group_id.clone() else { return Ok(()) };
        if self.positions.is_empty() {
            return Ok(());
        }
        let offsets = self
            .positions
            .iter()
            .map(|(key, position)| (key.clone(), position.offset, position.leader_epoch))
            .collect();
        let code = crate::group_offsets::commit(client, &group_id, self.member.as_ref(), offsets)?;
        match &mut self.member {
            Some(member) => member.on_code(client, code, "commit"),
            None => ClientError::check(code, None, || format!("commit in group '{group_id}'")),
        }
    }

    /// One request to each leader, all at once, then their answers.
    fn fetch(&mut self, client: &mut Client) -> Result<Vec<ConsumedRecord>, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<(String, i32)>> = BTreeMap::new();
        for (topic, partition) in self.positions.keys() {
            let known = client.metadata().partition(topic, *partition).map_or(-1, |it| it.leader);
            if known >= 0 {
                by_leader.entry(known).or_default().push((topic.clone(), *partition));
            } else {
                let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
                client.refresh_metadata(Some(&names), false)?;
            }
        }
        if by_leader.is_empty() {
            client.pause(self.options.fetch_max_wait.min(Duration::from_millis(100)))?;
            return Ok(Vec::new());
        }
        let wait = client.time_for(self.options.fetch_max_wait);
        let mut sent = VecDeque::new();
        let mut fault = None;
        for (leader, partitions) in &by_leader {
            match self.send_fetch(client, *leader, partitions, wait) {
                Ok(()) => sent.push_back(*leader),
                Err(other) => fault = Some(other),
            }
        }
        let mut records = Vec::new();
        for leader in sent {
            match client.on_node(leader, |connection| connection.receive::<FetchRequest>(wait)) {
                Ok(response) => self.on_response(client, response, &mut records)?,
                Err(other @ (ClientError::OutOfTime | ClientError::Stopped)) => return Err(other),
                Err(other) => fault = Some(other),
            }
        }
        if let Some(fault) = fault {
            self.topics.iter().for_each(|topic| client.forget_topic(topic));
            if records.is_empty() {
                return Err(fault);
            }
        }
        Ok(records)
    }

    fn send_fetch(
        &self,
        client: &mut Client,
        leader: i32,
        partitions: &[(String, i32)],
        max_wait: Duration,
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, (Uuid, Vec<FetchPartition>)> = BTreeMap::new();
        for key in partitions {
            let id = client.metadata().topics.get(key.0.as_str()).map_or(Uuid::ZERO, |topic| topic.id);
            let Some(position) = self.positions.get(key) else { continue };
            topics.entry(&key.0).or_insert((id, Vec::new())).1.push(FetchPartition {
                partition: key.1,
                fetch_offset: position.offset,
                partition_max_bytes: self.options.max_partition_fetch_bytes,
                ..FetchPartition::default()
            });
        }
        let have_ids = topics.values().all(|(id, _)| !id.is_zero());
        let limit = if have_ids { i16::MAX } else { FIRST_VERSION_WITH_TOPIC_IDS - 1 };
        client.on_node(leader, |connection| {
            let version = connection.version_up_to::<FetchRequest>(limit)?;
            let by_id = version >= FIRST_VERSION_WITH_TOPIC_IDS;
            let topics = topics.into_iter().map(|(name, (topic_id, partitions))| match by_id {
                true => FetchTopic { topic_id, partitions, ..FetchTopic::default() },
                false => FetchTopic { topic: StrBytes::copy_from(name), partitions, ..FetchTopic::default() },
            });
            let request = FetchRequest {
                max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
                min_bytes: self.options.fetch_min_bytes,
                max_bytes: self.options.fetch_max_bytes,
                isolation_level: i8::from(self.options.read_committed),
                session_epoch: -1,
                topics: topics.collect(),
                ..FetchRequest::default()
            };
            connection.send_request(&request, version).map(drop)
        })
    }

    fn on_response(
        &mut self,
        client: &mut Client,
        response: FetchResponse,
        records: &mut Vec<ConsumedRecord>,
    ) -> Result<(), ClientError> {
        ClientError::check(response.error_code, None, || "fetch".to_owned())?;
        for topic in response.responses {
            let Some(name) = topic_name(client, &topic) else { continue };
            for partition in topic.partitions {
                self.on_partition(client, &name, partition, records)?;
            }
        }
        Ok(())
    }

    fn on_partition(
        &mut self,
        client: &mut Client,
        topic: &std::sync::Arc<str>,
        data: PartitionData,
        records: &mut Vec<ConsumedRecord>,
    ) -> Result<(), ClientError> {
        let key = (topic.to_string(), data.partition_index);
        match ErrorCode::from_code(data.error_code) {
            Some(ErrorCode::None) => {}
            Some(ErrorCode::OffsetOutOfRange) => {
                let position = self.positions.remove(&key);
                if self.options.auto_offset_reset == AutoOffsetReset::None {
                    let partition = format!("{topic}-{}", key.1);
                    return Err(ClientError::OffsetOutOfRange {
                        partition,
                        offset: position.map_or(-1, |it| it.offset),
                    });
                }
                // As for a partition that is new.
                self.unpositioned.insert(key);
                return Ok(());
            }
            Some(code) if code.is_retriable() => {
                client.forget_topic(topic);
                return Ok(());
            }
            _ => return ClientError::check(data.error_code, None, || format!("fetch of {topic}-{}", key.1)),
        }
        let Some(position) = self.positions.get_mut(&key) else { return Ok(()) };
        let Some(bytes) = data.records.map(ringlog_protocol::Records::into_contiguous) else { return Ok(()) };
        let mut aborted = AbortedProducers::new(
            data.aborted_transactions.unwrap_or_default().into_iter().map(|it| (it.first_offset, it.producer_id)),
        );
        for batch in BatchIter::new(&bytes) {
            let Ok(batch) = batch else { break }; // Cut off at the answer's size limit: fetched again.
            let corrupt = |reason: String| ClientError::CorruptBatch {
                partition: format!("{topic}-{}", key.1),
                offset: batch.header.base_offset.0,
                reason,
            };
            if self.options.check_crcs {
                batch.verify_crc().map_err(|fault| corrupt(fault.to_string()))?;
            }
            if batch.header.next_offset().0 <= position.offset {
                continue;
            }
            let is_left_out =
                aborted.leaves_out(&batch, &mut self.scratch).map_err(|fault| corrupt(fault.to_string()))?;
            if !is_left_out || !self.options.read_committed && !batch.header.is_control() {
                let from = position.offset;
                append_records(topic, key.1, from, &batch, &mut self.scratch, records).map_err(corrupt)?;
            }
            position.offset = batch.header.next_offset().0;
            position.leader_epoch = batch.header.partition_leader_epoch.0;
        }
        Ok(())
    }
}

/// Which producers' batches belong to transactions that were aborted, as a partition's answer is walked.
struct AbortedProducers {
    /// First offset and producer, first ones first.
    starts: VecDeque<(i64, i64)>,
    open: BTreeSet<i64>,
}

impl AbortedProducers {
    fn new(starts: impl Iterator<Item = (i64, i64)>) -> AbortedProducers {
        let mut starts: Vec<(i64, i64)> = starts.collect();
        starts.sort_unstable();
        AbortedProducers { starts: starts.into(), open: BTreeSet::new() }
    }

    /// Whether the batch holds nothing for a reader of committed records: it is of an aborted transaction or control.
    fn leaves_out(
        &mut self,
        batch: &BatchRef<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, ringlog_protocol::records::BatchError> {
        while self.starts.front().is_some_and(|(offset, _)| *offset <= batch.header.last_offset().0) {
            self.open.extend(self.starts.pop_front().map(|(_, producer)| producer));
        }
        let producer = batch.header.producer_id.0;
        if batch.header.is_control() {
            if let Some(record) = batch.records(scratch)?.next() {
                let is_abort = |key: &[u8]| matches!(ControlRecordType::parse_key(key), Some(ControlRecordType::Abort));
                if record?.key.is_some_and(is_abort) {
                    self.open.remove(&producer);
                }
            }
            return Ok(true);
        }
        Ok(batch.header.is_transactional() && self.open.contains(&producer))
    }
}

fn append_records(
    topic: &std::sync::Arc<str>,
    partition: i32,
    from: i64,
    batch: &BatchRef<'_>,
    scratch: &mut Scratch,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), String> {
    let leader_epoch = Some(batch.header.partition_leader_epoch.0).filter(|epoch| *epoch >= 0);
    for record in batch.records(scratch).map_err(|fault| fault.to_string())? {
        let record = record.map_err(|fault| fault.to_string())?;
        if record.offset.0 < from {
            continue;
        }
        let headers = record
            .headers
            .map(|header| ConsumedHeader { key: header.key.to_vec(), value: header.value.map(<[u8]>::to_vec) });
        records.push(ConsumedRecord {
            topic: topic.clone(),
            partition,
            offset: record.offset.0,
            leader_epoch,
            timestamp: record.timestamp.0,
            timestamp_type: batch.header.timestamp_type(),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        });
    }
    Ok(())
}

/// Some topics will never be there, or never for this user.
fn check_topics(client: &Client, topics: &[String]) -> Result<(), ClientError> {
    let known = &client.metadata().topics;
    for (code, what) in [
        (ErrorCode::InvalidTopicException, "Invalid topics"),
        (ErrorCode::TopicAuthorizationFailed, "Not authorized to access topics"),
    ] {
        let has_code = |name: &&String| known.get(name.as_str()).is_some_and(|topic| topic.error_code == code.code());
        let names: Vec<&str> = topics.iter().filter(has_code).map(String::as_str).collect();
        if !names.is_empty() {
            let message = Some(format!("{what}: [{}]", names.join(", ")));
            return Err(ClientError::Broker { context: "subscription".to_owned(), code: code.code(), message });
        }
    }
    Ok(())
}

fn topic_name(client: &Client, topic: &FetchableTopicResponse) -> Option<std::sync::Arc<str>> {
    if !topic.topic.is_empty() {
        return Some(std::sync::Arc::from(topic.topic.as_str()));
    }
    client.metadata().topics.iter().find(|(_, known)| known.id == topic.topic_id).map(|(name, _)| name.clone())
}

fn flatten(assignment: Assignment) -> BTreeSet<(String, i32)> {
    assignment
        .into_iter()
        .flat_map(|(topic, partitions)| partitions.into_iter().map(move |partition| (topic.clone(), partition)))
        .collect()
}

fn count_partitions(client: &mut Client, topics: &BTreeSet<String>) -> Result<BTreeMap<String, i32>, ClientError> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let metadata = client.refresh_metadata(Some(&names), false)?;
    let count = |name: &String| Some((name.clone(), metadata.topics.get(name.as_str())?.partitions.len() as i32));
    Ok(topics.iter().filter_map(count).collect())
}

/// The offset for a timestamp of a partition: -2 is the earliest, -1 the latest.
fn list_offset(
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
    read_committed: bool,
) -> Result<i64, ClientError> {
    let leader = client.leader_now(topic, partition)?;
    let partition_request =
        ListOffsetsPartition { partition_index: partition, timestamp, ..ListOffsetsPartition::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: i8::from(read_committed),
        topics: vec![ListOffsetsTopic { name: StrBytes::copy_from(topic), partitions: vec![partition_request] }],
        timeout_ms: 0,
    };
    let response = client.send_to(leader, &request)?;
    let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let code = found.as_ref().map_or(unknown, |found| found.error_code);
    ClientError::check(code, None, || format!("offset of {topic}-{partition}"))?;
    Ok(found.map_or(0, |found| found.offset))
}
