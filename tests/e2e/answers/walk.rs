//! A walk of requests by chance through two nodes, and what they answer differently on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_protocol::records::Compression;

use super::differences::{NOT_SERVED, meant};
use super::generate::{GROUPS, Generator, TOPICS};
use super::pair::{Outcome, Pair, SPREADING, Served};
use super::records::{good_header, good_records, sealed, written};
use super::wire::{Api, Value};

/// After so many kinds of difference a walk ends: most of them follow from the first.
const FAULTS_MAX: usize = 60;
/// APIs that change something: asking again is asking something else.
const CHANGING: &[&str] = &[
    "Produce",
    "Fetch",
    "OffsetCommit",
    "JoinGroup",
    "SyncGroup",
    "LeaveGroup",
    "DeleteGroups",
    "OffsetDelete",
    "CreateTopics",
    "DeleteTopics",
    "CreatePartitions",
    "DeleteRecords",
    "InitProducerId",
    "AlterConfigs",
    "IncrementalAlterConfigs",
    "AlterClientQuotas",
    "AlterUserScramCredentials",
    "AlterPartitionReassignments",
    "ElectLeaders",
    "UpdateFeatures",
];
/// Those that most requests are of, in practice and here.
const FREQUENT: &[&str] = &[
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "SyncGroup",
    "Heartbeat",
    "LeaveGroup",
    "CreateTopics",
    "DeleteTopics",
    "DescribeGroups",
    "ListGroups",
];

/// A walk.
pub struct Walk {
    pair: Pair,
    generator: Generator,
    served: Vec<Served>,
    /// One for each kind of difference.
    faults: BTreeMap<String, String>,
    step: usize,
}

fn fields(fields: &[(&'static str, Value)]) -> Value {
    Value::Struct(fields.to_vec())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn one(value: Value) -> Value {
    Value::List(vec![value])
}

/// The first place where two values differ.
fn first_difference(kafka: &Value, ringlog: &Value) -> String {
    match (kafka, ringlog) {
        (Value::Struct(kafka), Value::Struct(ringlog)) if kafka.len() == ringlog.len() => {
            let differing = kafka.iter().zip(ringlog).find(|(kafka, ringlog)| kafka != ringlog);
            let Some(((name, kafka), (_, ringlog))) = differing else { return String::new() };
            format!(".{name}{}", first_difference(kafka, ringlog))
        }
        (Value::List(kafka), Value::List(ringlog)) if kafka.len() == ringlog.len() => {
            let differing = kafka.iter().zip(ringlog).find(|(kafka, ringlog)| kafka != ringlog);
            let Some((kafka, ringlog)) = differing else { return String::new() };
            first_difference(kafka, ringlog)
        }
        _ => format!(": {kafka:?} or {ringlog:?}").chars().take(160).collect(),
    }
}

impl Walk {
    /// Two nodes with some topics, records and offsets.
    pub fn start(seed: u64, is_controller: bool) -> Result<Walk> {
        let mut pair = Pair::start(super::SETTINGS, is_controller)?;
        let (served, others) = pair.served()?;
        let unexpected: Vec<&String> = others.iter().filter(|it| !NOT_SERVED.contains(&it.as_str())).collect();
        ensure!(is_controller || unexpected.is_empty(), "not served as Kafka does: {unexpected:?}");
        let generator = Generator::new(seed);
        let mut walk = Walk { pair, generator, served, faults: BTreeMap::new(), step: 0 };
        if !is_controller {
            walk.set_up().context("setting up")?;
        }
        Ok(walk)
    }

    fn api(&self, name: &str) -> Result<&'static Api> {
        self.pair.apis.get(name).copied().with_context(|| format!("no API {name}"))
    }

    /// Asks for what must succeed on both.
    fn must(&mut self, name: &str, version: i16, body: &Value) -> Result<Value> {
        let api = self.api(name)?;
        let (kafka, ringlog) = self.pair.ask(api, version, body)?;
        let (Outcome::Answer(kafka), Outcome::Answer(ringlog)) = (&kafka, &ringlog) else {
            anyhow::bail!("{name}: {kafka:?} and {ringlog:?}");
        };
        ensure!(kafka == ringlog, "{name}\nKafka:   {kafka:?}\nRinglog: {ringlog:?}");
        Ok(kafka.clone())
    }

    fn set_up(&mut self) -> Result<()> {
        let config = |name: &str, value: &str| fields(&[("Name", text(name)), ("Value", text(value))]);
        let topics = TOPICS.iter().map(|(name, partitions)| {
            let configs = match *name {
                "beta" => vec![config("cleanup.policy", "compact,delete")],
                "gamma" => vec![config("max.message.bytes", "2000")],
                _ => Vec::new(),
            };
            fields(&[
                ("Name", text(name)),
                ("NumPartitions", Value::Int(i64::from(*partitions))),
                ("ReplicationFactor", Value::Int(1)),
                ("Configs", Value::List(configs)),
            ])
        });
        self.must(
            "CreateTopics",
            7,
            &fields(&[("Topics", Value::List(topics.collect())), ("TimeoutMs", Value::Int(20_000))]),
        )?;
        self.settle_topics()?;
        for (topic, partition, batches) in [("alpha", 0, 3), ("alpha", 1, 1), ("beta", 0, 3), ("gamma", 0, 2)] {
            for batch in 0..batches {
                let compression = [Compression::None, Compression::Gzip, Compression::Lz4][batch as usize];
                let mut header = good_header(compression, 3);
                header.base_timestamp.0 += 10_000 * batch;
                header.max_timestamp.0 += 10_000 * batch;
                let records = sealed(header, &compression.compress(&written(&good_records(3)), None));
                self.produce(topic, partition, records)?;
            }
        }
        let partitions = one(fields(&[("PartitionIndex", Value::Int(0)), ("Offset", Value::Int(3))]));
        let topics = one(fields(&[("Name", text("beta")), ("Partitions", partitions)]));
        self.must("DeleteRecords", 2, &fields(&[("Topics", topics), ("TimeoutMs", Value::Int(10_000))]))?;
        for group in GROUPS {
            let body = fields(&[("KeyType", Value::Int(0)), ("CoordinatorKeys", one(text(group)))]);
            self.pair.wait_for("FindCoordinator", 4, &body, |answer| {
                let found = answer.get("Coordinators").map(Value::list).unwrap_or_default();
                found.iter().all(|it| it.get("ErrorCode").and_then(Value::int) == Some(0))
            })?;
            // The coordinator may be loading still.
            self.pair.wait_for("DescribeGroups", 5, &fields(&[("Groups", one(text(group)))]), |answer| {
                let groups = answer.get("Groups").map(Value::list).unwrap_or_default();
                groups.iter().all(|it| it.get("ErrorCode").and_then(Value::int) == Some(0))
            })?;
        }
        let nobody = fields(&[
            ("TransactionalId", Value::Null),
            ("TransactionTimeoutMs", Value::Int(60_000)),
            ("ProducerId", Value::Int(-1)),
            ("ProducerEpoch", Value::Int(-1)),
        ]);
        // The first one has to wait for a block of ids.
        self.pair
            .wait_for("InitProducerId", 4, &nobody, |answer| answer.get("ErrorCode").and_then(Value::int) == Some(0))?;
        self.commit("g-offsets", "alpha", 5)?;
        self.commit("g-other", "beta", 4)?;
        self.join("g-live")?;
        self.join("g-live")?;
        Ok(())
    }

    fn produce(&mut self, topic: &str, partition: i64, records: Vec<u8>) -> Result<()> {
        let data = one(fields(&[("Index", Value::Int(partition)), ("Records", Value::Bytes(records))]));
        let topics = one(fields(&[("Name", text(topic)), ("PartitionData", data)]));
        let body = fields(&[
            ("TransactionalId", Value::Null),
            ("Acks", Value::Int(-1)),
            ("TimeoutMs", Value::Int(10_000)),
            ("TopicData", topics),
        ]);
        self.must("Produce", 12, &body).map(drop)
    }

    fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Result<()> {
        let partition = fields(&[
            ("PartitionIndex", Value::Int(0)),
            ("CommittedOffset", Value::Int(offset)),
            ("CommittedLeaderEpoch", Value::Int(-1)),
            ("CommittedMetadata", text("m")),
        ]);
        let topics = one(fields(&[("Name", text(topic)), ("Partitions", one(partition))]));
        let body = fields(&[
            ("GroupId", text(group)),
            ("GenerationIdOrMemberEpoch", Value::Int(-1)),
            ("GroupInstanceId", Value::Null),
            ("Topics", topics),
        ]);
        self.must("OffsetCommit", 8, &body).map(drop)
    }

    /// Makes a member of a group, as far as it gets, and gives it what it gets as the leader.
    fn join(&mut self, group: &str) -> Result<()> {
        let protocol = fields(&[
            ("Name", text("range")),
            ("Metadata", Value::Bytes(vec![0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
        ]);
        let body = |member: &str| {
            fields(&[
                ("GroupId", text(group)),
                ("SessionTimeoutMs", Value::Int(600_000)),
                ("RebalanceTimeoutMs", Value::Int(250)),
                ("MemberId", text(member)),
                ("GroupInstanceId", Value::Null),
                ("ProtocolType", text("consumer")),
                ("Protocols", one(protocol.clone())),
                ("Reason", Value::Null),
            ])
        };
        let api = self.api("JoinGroup")?;
        let first = self.compare(api, 9, &body(""))?;
        let member = first.as_ref().and_then(|answer| answer.get("MemberId")?.text()).unwrap_or_default().to_owned();
        let Some(joined) = self.compare(api, 9, &body(&member))? else { return Ok(()) };
        let generation = joined.get("GenerationId").and_then(Value::int).unwrap_or(-1);
        let is_leader = joined.get("Leader").and_then(Value::text) == Some(&member);
        let assignment = fields(&[
            ("MemberId", text(&member)),
            ("Assignment", Value::Bytes(vec![0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        ]);
        let sync = fields(&[
            ("GroupId", text(group)),
            ("GenerationId", Value::Int(generation)),
            ("MemberId", text(&member)),
            ("GroupInstanceId", Value::Null),
            ("ProtocolType", text("consumer")),
            ("ProtocolName", text("range")),
            ("Assignments", if is_leader { one(assignment) } else { Value::List(Vec::new()) }),
        ]);
        let api = self.api("SyncGroup")?;
        self.compare(api, 5, &sync)?;
        self.settle_group(group)
    }

    /// Goes so many steps; the differences that it met.
    pub fn go(&mut self, steps: usize, seed: u64) -> Result<Vec<String>> {
        for step in 1..=steps {
            self.step = step;
            if let Err(fault) = self.one_step() {
                println!("{}", self.pair.explanation());
                let fault = format!("step {step} of seed {seed}: {fault:#}");
                self.faults.insert("the walk".to_owned(), fault);
                break;
            }
            if self.faults.len() >= FAULTS_MAX {
                break;
            }
        }
        Ok(self.faults.values().cloned().collect())
    }

    /// Bytes that are no request, or only most of one.
    fn broken_request(&mut self) -> Result<()> {
        let (api, first, last) = self.generator.pick(&self.served);
        let version = first + self.generator.below((last - first) as usize + 1) as i16;
        let body = self.generator.body(api, version);
        let mut bytes = api.encode_request(version, 77, super::pair::CLIENT_ID, &body);
        match self.generator.below(3) {
            // The size says so much.
            0 => {
                let cut = 4 + self.generator.below(bytes.len() - 4);
                bytes.truncate(cut.max(12));
            }
            1 => bytes[6..8].copy_from_slice(&(last + 1).to_be_bytes()),
            _ => {
                let key = self.generator.pick(&[4, 7, 52, 58, 62, 67, 93, 500, -1, i16::MAX]);
                bytes[4..6].copy_from_slice(&key.to_be_bytes());
            }
        }
        let size = (bytes.len() - 4) as i32;
        bytes[..4].copy_from_slice(&size.to_be_bytes());
        let (kafka, ringlog) = self.pair.send_bytes(&bytes)?;
        if kafka != ringlog {
            let kind = format!("broken {}", api.name);
            let step = self.step;
            let told = format!("step {step}: {bytes:02x?}\n  Kafka:   {kafka:?}\n  Ringlog: {ringlog:?}\n");
            self.faults.entry(kind).or_insert(told);
        }
        Ok(())
    }

    fn one_step(&mut self) -> Result<()> {
        if self.generator.percent(1) {
            return self.broken_request();
        }
        if self.generator.percent(2) {
            let group = self.generator.pick(&GROUPS[..2]);
            return self.join(group);
        }
        let (mut api, mut first, mut last) = self.generator.pick(&self.served);
        if self.generator.percent(50) {
            let name = self.generator.pick(FREQUENT);
            if let Some(found) = self.served.iter().find(|(api, ..)| api.name == name) {
                (api, first, last) = *found;
            }
        }
        let version = first + self.generator.below((last - first) as usize + 1) as i16;
        let body = self.generator.body(api, version);
        self.settle_members(api, &body)?;
        match self.compare(api, version, &body)? {
            Some(_) => self.settle(api, &body),
            None => Ok(()),
        }
    }

    /// Asks both and notes a difference; Kafka's answer.
    fn compare(&mut self, api: &'static Api, version: i16, body: &Value) -> Result<Option<Value>> {
        let (kafka, ringlog) = match CHANGING.contains(&api.name) {
            true => self.pair.ask(api, version, body)?,
            false => self.pair.ask_until_alike(api, version, body, self.patience(api))?,
        };
        if kafka != ringlog && meant(api.name, version, body, &kafka, &ringlog).is_none() {
            self.note(api, version, body, &kafka, &ringlog);
        }
        let Outcome::Answer(answer) = kafka else { return Ok(None) };
        if api.name == "JoinGroup" {
            self.remember_member(body, &answer);
        }
        Ok(Some(answer))
    }

    /// Where something is different already, it will be again.
    fn patience(&self, api: &Api) -> Duration {
        let is_faulty = self.faults.keys().any(|kind| kind.starts_with(api.name));
        if is_faulty { SPREADING / 50 } else { SPREADING }
    }

    fn note(&mut self, api: &Api, version: i16, body: &Value, kafka: &Outcome, ringlog: &Outcome) {
        let place = match (kafka, ringlog) {
            (Outcome::Answer(kafka), Outcome::Answer(ringlog)) => first_difference(kafka, ringlog),
            _ => String::new(),
        };
        let kind = match place.split_once(": ") {
            Some((path, _)) => format!("{}{path}", api.name),
            None => format!("{}{place}", api.name),
        };
        let number = self.faults.len();
        let step = self.step;
        self.faults.entry(kind).or_insert_with(|| {
            let cut = |outcome: &Outcome| format!("{outcome:?}").chars().take(1_500).collect::<String>();
            let asked: String = format!("{body:?}").chars().take(1_500).collect();
            format!(
                "{number}, step {step}: {} version {version}{place}\n  asked:   {asked}\n  Kafka:   {}\n  Ringlog: {}\n",
                api.name,
                cut(kafka),
                cut(ringlog)
            )
        });
    }

    /// Members whose session ends leave at either node in its own moment: groups that are to be changed are looked at
    /// first, until both show them alike.
    fn settle_members(&mut self, api: &Api, body: &Value) -> Result<()> {
        let asked = match api.name {
            "JoinGroup" | "SyncGroup" | "Heartbeat" | "LeaveGroup" | "OffsetCommit" | "OffsetDelete" => {
                body.get("GroupId").cloned().map(|group| vec![group])
            }
            "DeleteGroups" => body.get("GroupsNames").map(|groups| Value::list(groups).to_vec()),
            _ => None,
        };
        let Some(groups) = asked else { return Ok(()) };
        let body = fields(&[("Groups", Value::List(groups))]);
        let api = self.api("DescribeGroups")?;
        let (kafka, ringlog) = self.pair.ask_until_alike(api, 5, &body, self.patience(api))?;
        if kafka != ringlog {
            self.note(api, 5, &body, &kafka, &ringlog);
        }
        Ok(())
    }

    /// Waits until what was changed is the same everywhere.
    fn settle(&mut self, api: &Api, body: &Value) -> Result<()> {
        match (api.name, body.get("GroupId").and_then(Value::text)) {
            ("CreateTopics" | "DeleteTopics" | "CreatePartitions", _) => self.settle_topics(),
            ("JoinGroup" | "LeaveGroup" | "SyncGroup", Some(group)) if !group.trim().is_empty() => {
                self.settle_group(group)
            }
            _ => Ok(()),
        }
    }

    fn remember_member(&mut self, body: &Value, answer: &Value) {
        let group = body.get("GroupId").and_then(Value::text).unwrap_or_default();
        let member = answer.get("MemberId").and_then(Value::text).unwrap_or_default();
        let generation = answer.get("GenerationId").and_then(Value::int).unwrap_or(-1);
        if !member.is_empty() {
            let members = &mut self.generator.world.members;
            members.retain(|(_, known, _)| known != member);
            members.push((group.to_owned(), member.to_owned(), generation));
            if members.len() > 6 {
                members.remove(0);
            }
        }
    }

    fn settle_group(&mut self, group: &str) -> Result<()> {
        let body = fields(&[("Groups", one(text(group)))]);
        self.pair.wait_for("DescribeGroups", 5, &body, |answer| {
            let groups = answer.get("Groups").map(Value::list).unwrap_or_default();
            let state = groups.first().and_then(|it| it.get("GroupState")?.text());
            !matches!(state, Some("PreparingRebalance" | "CompletingRebalance"))
        })
    }

    fn settle_topics(&mut self) -> Result<()> {
        let api = self.api("Metadata")?;
        let body = fields(&[("Topics", Value::Null)]);
        self.pair.wait_for("Metadata", 12, &body, |answer| {
            let topics = answer.get("Topics").map(Value::list).unwrap_or_default();
            let partitions =
                topics.iter().flat_map(|topic| topic.get("Partitions").map(Value::list).unwrap_or_default());
            partitions.into_iter().all(|it| it.get("ErrorCode").and_then(Value::int) == Some(0))
        })?;
        let (kafka, ringlog) = self.pair.ask_until_alike(api, 12, &body, self.patience(api))?;
        let Outcome::Answer(answer) = &kafka else { return Ok(()) };
        if kafka != ringlog {
            self.note(api, 12, &body, &kafka, &ringlog);
        }
        let mut asked = Vec::new();
        self.generator.world.topics.clear();
        for topic in answer.get("Topics").map(Value::list).unwrap_or_default() {
            let (Some(Value::Text(name)), Some(Value::Id(id))) = (topic.get("Name"), topic.get("TopicId")) else {
                continue;
            };
            if name != "__consumer_offsets" {
                self.generator.world.topics.push((name.clone(), *id));
            }
            let partitions = topic.get("Partitions").map(Value::list).unwrap_or_default().iter();
            let partitions = partitions.map(|it| {
                let index = it.get("PartitionIndex").cloned().unwrap_or(Value::Int(0));
                fields(&[
                    ("PartitionIndex", index),
                    ("CurrentLeaderEpoch", Value::Int(-1)),
                    ("Timestamp", Value::Int(-1)),
                ])
            });
            asked.push(fields(&[("Name", text(name)), ("Partitions", Value::List(partitions.collect()))]));
        }
        // The logs are there, too.
        let body = fields(&[("ReplicaId", Value::Int(-1)), ("Topics", Value::List(asked))]);
        self.pair.wait_for("ListOffsets", 7, &body, |answer| {
            let topics = answer.get("Topics").map(Value::list).unwrap_or_default();
            let partitions =
                topics.iter().flat_map(|topic| topic.get("Partitions").map(Value::list).unwrap_or_default());
            partitions.into_iter().all(|it| it.get("ErrorCode").and_then(Value::int) == Some(0))
        })
    }
}
