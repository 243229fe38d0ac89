//! Requests by chance: bodies follow from the schemas, and what stands in a field from its name.

use ringlog_protocol::records::Compression;
use ringlog_types::{ProducerEpoch, ProducerId, Random};

use super::names::topic_id;
use super::records::{good_header, good_records, sealed, written};
use super::wire::{Api, Field, Value};

/// Topics that are there from the beginning, with their numbers of partitions.
pub const TOPICS: &[(&str, i32)] = &[("alpha", 3), ("beta", 1), ("gamma", 2), ("delta", 1)];
/// Groups; the first ones get members.
pub const GROUPS: &[&str] = &["g-live", "g-other", "g-offsets", "g-new"];
/// A broker that isn't there.
const NO_BROKER: i64 = 99;

/// What is known of the nodes, under common names.
#[derive(Debug, Default)]
pub struct World {
    /// Members with their groups and generations.
    pub members: Vec<(String, String, i64)>,
    /// Names of topics and their common ids.
    pub topics: Vec<(String, [u8; 16])>,
}

/// Draws requests.
pub struct Generator {
    random: Random,
    /// Of the present request: how many fields may still be odd.
    odd: usize,
    producer: i64,
    pub world: World,
}

/// Where a field is.
struct Place<'a> {
    api: &'static str,
    version: i16,
    /// The names of the fields around it, the outermost first.
    around: &'a [&'static str],
}

impl Place<'_> {
    fn is_in(&self, name: &str) -> bool {
        self.around.contains(&name)
    }
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator { random: Random::from_seed(seed), odd: 0, producer: 1_000_000, world: World::default() }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Mostly one of the first, now and then, if the request may have something odd, one of the others.
    fn usually<T: Clone>(&mut self, usual: &[T], odd: &[T]) -> T {
        if self.odd > 0 && !odd.is_empty() && self.percent(25) {
            self.odd -= 1;
            return self.pick(odd);
        }
        self.pick(usual)
    }

    /// A body. Most have nothing odd in them.
    pub fn body(&mut self, api: &'static Api, version: i16) -> Value {
        self.odd = if self.percent(45) { 1 + self.below(2) } else { 0 };
        let place = Place { api: api.name, version, around: &[] };
        let mut body = self.fields(&api.request.fields, &place);
        if let (true, Value::Struct(fields)) = (api.name == "AlterUserScramCredentials", &mut body) {
            // Kafka's brokers lose what is added while the last credentials of a mechanism are removed.
            let emptied = self.pick(&["Deletions", "Upsertions"]);
            fields
                .iter_mut()
                .filter(|(name, _)| *name == emptied)
                .for_each(|(_, value)| *value = Value::List(Vec::new()));
        }
        body
    }

    fn fields(&mut self, fields: &[Field], place: &Place<'_>) -> Value {
        let present = fields.iter().filter(|field| field.versions.contains(place.version));
        Value::Struct(present.map(|field| (field.name, self.field(field, place))).collect())
    }

    fn field(&mut self, field: &Field, place: &Place<'_>) -> Value {
        let around = [place.around, &[field.name]].concat();
        let place = Place { around: &around, ..*place };
        if field.nullable.contains(place.version) && self.is_null(field, &place) {
            return Value::Null;
        }
        if field.tag.is_some() && self.percent(80) {
            return field.default_value(place.version);
        }
        if !field.is_list {
            return self.one(field, &place);
        }
        let count = self.usually(&[1, 1, 1, 1, 2, 2, 3], &[0, 0, 5]);
        let mut items: Vec<Value> = (0..count).map(|_| self.one(field, &place)).collect();
        // Two protocols of one name keep Kafka's groups from ever getting stable.
        if place.api == "JoinGroup" {
            items.dedup_by(|one, other| one.get("Name") == other.get("Name"));
            items.truncate(2);
        } else if place.api == "AlterConfigs" && field.name == "Resources" {
            // Kafka never answers a request that names a resource twice.
            let mut named = Vec::new();
            items.retain(|item| {
                let resource = (item.get("ResourceType").cloned(), item.get("ResourceName").cloned());
                let is_new = !named.contains(&resource);
                named.push(resource);
                is_new
            });
        } else if self.odd > 0 && !items.is_empty() && self.percent(15) {
            self.odd -= 1;
            items.push(items[0].clone());
        }
        Value::List(items)
    }

    fn is_null(&mut self, field: &Field, place: &Place<'_>) -> bool {
        let percent = match (place.api, field.name) {
            ("Metadata", "Name") => {
                if self.percent(50) {
                    100
                } else {
                    0
                }
            }
            (_, "TransactionalId" | "TransactionalIdPattern" | "GroupInstanceId" | "Cursor" | "ConfigurationKeys") => {
                85
            }
            (_, "ProtocolType" | "ProtocolName") => 15,
            (_, "ClusterId") => 70,
            // Kafka fails without an answer.
            ("Produce", "Records") => 0,
            // Of everybody, this client as well: Kafka would slow it down.
            ("AlterClientQuotas", "EntityName") => 0,
            _ => 20,
        };
        self.percent(percent)
    }

    fn one(&mut self, field: &Field, place: &Place<'_>) -> Value {
        match field.kind {
            "bool" => Value::Bool(self.flag(field.name, place)),
            "int8" | "int16" | "int32" | "int64" | "uint16" => {
                let number = self.number(field.name, place);
                Value::Int(match field.kind {
                    "int8" => i64::from(number as i8),
                    "int16" => i64::from(number as i16),
                    "uint16" => i64::from(number as u16),
                    "int32" => i64::from(number as i32),
                    _ => number,
                })
            }
            "float64" => Value::Float(self.usually(&[1024.0, 10.5, 1.0], &[0.0, -1.0, f64::INFINITY, 1e300])),
            "string" => Value::Text(self.text(field.name, place)),
            "bytes" => Value::Bytes(self.bytes(field.name, place)),
            "records" => Value::Bytes(self.records()),
            "uuid" => Value::Id(self.id(place)),
            _ => self.fields(&field.fields, place),
        }
    }

    fn flag(&mut self, name: &str, place: &Place<'_>) -> bool {
        match (place.api, name) {
            // Features stay as they are, and brokers keep their settings.
            ("UpdateFeatures", "ValidateOnly") => true,
            (_, "AllowAutoTopicCreation") => self.percent(10),
            (_, "ValidateOnly") => self.percent(40),
            _ => self.percent(50),
        }
    }

    fn id(&mut self, place: &Place<'_>) -> [u8; 16] {
        if matches!(place.api, "AddRaftVoter" | "RemoveRaftVoter" | "Fetch") && !place.is_in("Topics") {
            return self.usually(&[[7; 16]], &[[0; 16]]);
        }
        let known: Vec<[u8; 16]> = self.world.topics.iter().map(|(_, id)| *id).collect();
        match place.api {
            "Metadata" | "DeleteTopics" if self.percent(50) => [0; 16],
            "DeleteTopics" => self.usually(&[topic_id("t1", 1), [3; 16]], &[[0; 16]]),
            _ => self.usually(&known, &[[0; 16], [9; 16], topic_id("t1", 1)]),
        }
    }

    fn number(&mut self, name: &str, place: &Place<'_>) -> i64 {
        const MAX_32: i64 = i32::MAX as i64;
        const MIN_32: i64 = i32::MIN as i64;
        match (place.api, name) {
            (_, "Acks") => self.usually(&[-1, -1, 1, 0], &[2, -2, 100]),
            (_, "Index" | "Partition" | "PartitionIndex" | "PartitionIndexes" | "Partitions") => {
                self.usually(&[0, 0, 0, 1, 2], &[3, -1, NO_BROKER, MAX_32, MIN_32])
            }
            ("ListOffsets", "Timestamp") => {
                let recent = super::records::PAST_MS + 3;
                self.usually(&[-1, -2, -3, 0, recent, recent + 4_000], &[-4, -5, -6, -7, i64::MAX, i64::MIN, 1])
            }
            (_, "FetchOffset" | "Offset") => self.usually(&[0, 3, 5, 8, -1], &[-2, 1_000, i64::MAX, i64::MIN]),
            (_, "CommittedOffset") => self.usually(&[0, 5, 17], &[-1, -2, i64::MAX]),
            (_, "CurrentLeaderEpoch" | "LeaderEpoch" | "CommittedLeaderEpoch" | "LastFetchedEpoch") => {
                self.usually(&[-1, -1, 0, 0], &[1, 5, -2, MAX_32])
            }
            ("Fetch", "LogStartOffset") => self.usually(&[-1, 0], &[5]),
            ("Fetch", "HighWatermark") => i64::MAX,
            (_, "MaxWaitMs") => self.usually(&[0, 1, 5], &[-1]),
            (_, "MinBytes") => self.usually(&[0, 1], &[-1, 1_000]),
            (_, "MaxBytes" | "PartitionMaxBytes") => self.usually(&[1 << 20, 1 << 20, 700], &[0, 1, -1, MAX_32]),
            (_, "IsolationLevel") => self.usually(&[0, 1], &[2, -1]),
            (_, "SessionId") => 0,
            (_, "SessionEpoch") => self.usually(&[-1, -1, 0], &[1, 7, MAX_32]),
            (_, "ReplicaId") => self.usually(&[-1], &[-2, -3, 1, NO_BROKER]),
            (_, "ReplicaEpoch") => -1,
            // Its place is taken by the session's timeout then.
            ("JoinGroup", "SessionTimeoutMs") if place.version == 0 => self.usually(&[250], &[0, -1, MAX_32]),
            (_, "SessionTimeoutMs") => self.usually(&[600_000], &[0, -1, 50, MAX_32]),
            ("JoinGroup", "RebalanceTimeoutMs") => 250,
            (_, "GenerationId" | "GenerationIdOrMemberEpoch") => self.usually(&[1, -1, 2], &[0, -2, MAX_32]),
            (_, "MemberEpoch") => self.usually(&[-1], &[0, 5, -2]),
            (_, "RetentionTimeMs") => self.usually(&[-1], &[0, 1, 5_000]),
            (_, "NumPartitions") => self.usually(&[1, 2, -1], &[0, -2, 3]),
            (_, "ReplicationFactor") => self.usually(&[1, -1], &[0, 2, -2, 100]),
            (_, "BrokerIds" | "Replicas") => self.usually(&[1], &[2, -1, NO_BROKER]),
            (_, "Count") => self.usually(&[2, 3, 4], &[0, 1, -1, 100]),
            (_, "BrokerId") => self.usually(&[NO_BROKER], &[-1, 7, MAX_32]),
            // 1 and 2 make Kafka create topics for transactions and share groups.
            (_, "KeyType") => self.usually(&[0], &[3, -1]),
            (_, "EndpointType") => self.usually(&[1], &[0, 2, 3, -1]),
            (_, "ResourceType" | "ResourceTypes") if place.api.contains("Config") => {
                self.usually(&[2, 2, 2, 4, 16, 32], &[0, 1, 8, 64, 3, -1, 127])
            }
            (_, "ConfigOperation") => self.usually(&[0, 0, 1], &[2, 3, 4, -1]),
            (_, "ResourcePatternType" | "PatternTypeFilter") => self.usually(&[3, 4], &[0, 1, 2, 5, -1]),
            (_, "ResourceType" | "ResourceTypeFilter") => self.usually(&[2, 3, 4], &[0, 1, 5, 6, 9, -1]),
            (_, "Operation") => self.usually(&[3, 4, 2], &[0, 1, 14, 20, -1]),
            (_, "PermissionType") => self.usually(&[3, 2], &[0, 1, 4, -1]),
            (_, "MatchType") => self.usually(&[0, 1, 2], &[3, -1]),
            (_, "Mechanism") => self.usually(&[1, 2], &[0, 3, -1]),
            (_, "Iterations") => self.usually(&[4_096, 8_192], &[0, 4_095, 16_385, MAX_32]),
            (_, "ElectionType") => self.usually(&[0, 1], &[2, -1]),
            (_, "MaxVersionLevel") => self.usually(&[1, 25, 30], &[0, -1, 99]),
            (_, "UpgradeType") => self.usually(&[1, 2], &[0, 3, 4, -1]),
            (_, "VoterId") => self.usually(&[NO_BROKER], &[-1, 5]),
            (_, "Port") => self.usually(&[9_093], &[0, 65_535]),
            ("InitProducerId", "ProducerId") => self.usually(&[-1], &[5, 0, -2]),
            ("InitProducerId", "ProducerEpoch") => self.usually(&[-1], &[3, 0, -2]),
            (_, "TransactionTimeoutMs") => self.usually(&[60_000, MAX_32], &[0, -1]),
            (_, "ProducerIdFilters") => self.usually(&[1, 5], &[-1]),
            (_, "DurationFilter") => self.usually(&[-1], &[0, 1_000]),
            (_, "ResponsePartitionLimit") => self.usually(&[2_000, 100], &[1, 2, 0, -1]),
            (_, "MaxLifetimeMs" | "RenewPeriodMs" | "ExpiryTimePeriodMs") => self.usually(&[60_000, -1], &[0, -2]),
            (_, "TimeoutMs") => self.usually(&[5_000, 10_000], &[30_000]),
            _ => self.usually(&[0, 1], &[-1, 5, MAX_32, MIN_32]),
        }
    }

    fn topic(&mut self, place: &Place<'_>) -> String {
        let known: Vec<&str> = TOPICS.iter().map(|(name, _)| *name).collect();
        let usual = [&known[..], &known[..], &["t1", "t2", "t3"]].concat();
        let odd = ["nothing", "", ".", "bad name", "__cluster_metadata", "ü", "__consumer_offsets"];
        // What coordinators write has times in it, and batches by chance.
        let odd = if matches!(place.api, "Fetch" | "ListOffsets") { &odd[..6] } else { &odd[..] };
        self.usually(&usual, odd).to_owned()
    }

    fn group(&mut self, place: &Place<'_>) -> String {
        // Kafka remembers a group, until it starts again, to which only what it refused was committed.
        let odd: &[&str] = if place.api == "OffsetCommit" { &[""] } else { &["nobody", "", "ü", " "] };
        self.usually(GROUPS, odd).to_owned()
    }

    fn member(&mut self) -> String {
        let mut known: Vec<String> = self.world.members.iter().map(|(_, member, _)| member.clone()).collect();
        known.push(String::new());
        self.usually(&known, &["unknown".to_owned(), "answers-member-977".to_owned()])
    }

    fn text(&mut self, name: &str, place: &Place<'_>) -> String {
        let text: &str = match (place.api, name) {
            // What is made and deleted is not what others need.
            ("CreateTopics" | "DeleteTopics" | "CreatePartitions", "Name" | "TopicNames")
                if !place.is_in("Configs") =>
            {
                let odd = ["", "..", "bad name", "__cluster_metadata", "t.1", "t_1", "alpha", "__consumer_offsets"];
                let odd = if place.api == "CreateTopics" { &odd[..] } else { &odd[..6] };
                self.usually(&["t1", "t2", "t3"], odd)
            }
            ("DescribeQuorum", "TopicName") => self.usually(&["__cluster_metadata"], &["alpha", ""]),
            ("JoinGroup", "Name") => self.usually(&["range", "roundrobin"], &["", "cooperative"]),
            ("CreateTopics" | "AlterConfigs" | "IncrementalAlterConfigs", "Name" | "Value")
            | (_, "ConfigurationKeys") => {
                return self.config(name, place);
            }
            // An empty one ends Kafka's controller.
            ("AddRaftVoter", "Name") => self.usually(&["CONTROLLER"], &["OTHER"]),
            ("DescribeUserScramCredentials" | "AlterUserScramCredentials", "Name") => {
                self.usually(&["alice", "bob"], &["", "ü"])
            }
            ("AlterClientQuotas", "Key") => self.usually(
                &["producer_byte_rate", "consumer_byte_rate", "request_percentage"],
                &["", "nonsense", "connection_creation_rate"],
            ),
            (_, "Topic" | "TopicName" | "Name") => return self.topic(place),
            (_, "GroupId" | "Groups" | "GroupsNames" | "Key" | "CoordinatorKeys") => return self.group(place),
            (_, "MemberId") => return self.member(),
            (_, "GroupInstanceId") => self.usually(&["static-1"], &["", "static-2"]),
            (_, "ProtocolType") => self.usually(&["consumer"], &["", "connect"]),
            (_, "ProtocolName") => self.usually(&["range"], &["", "roundrobin"]),
            (_, "Reason" | "RackId") => self.usually(&["", "why"], &[]),
            (_, "CommittedMetadata") => {
                if self.percent(3) {
                    return "m".repeat(self.pick(&[4_096, 4_097]));
                }
                self.usually(&["", "metadata"], &[])
            }
            (_, "ResourceName" | "ResourceNameFilter") => {
                let usual = ["alpha", "beta", "1", "g-live", "metrics"];
                self.usually(&usual, &["", "nothing", "2", "-1", "x", "__consumer_offsets"])
            }
            (_, "ClientSoftwareName") => self.usually(&["answers", "a-b.c"], &["", "bad name!", "-a"]),
            (_, "ClientSoftwareVersion") => self.usually(&["1", "1.0-x"], &["", "bad version!"]),
            (_, "StatesFilter") => self.usually(&["Stable", "Empty", "stable"], &["", "Nonsense", "Dead"]),
            (_, "TypesFilter") => self.usually(&["classic", "consumer"], &["", "Nonsense", "CLASSIC"]),
            (_, "StateFilters") => self.usually(&["Ongoing", "Empty"], &["Nonsense", ""]),
            (_, "EntityType") => self.usually(&["user", "client-id", "ip"], &["", "nonsense"]),
            (_, "EntityName" | "Match") => self.usually(&["alice", "127.0.0.2"], &["", "nonsense.invalid"]),
            (_, "Feature") => self.usually(&["metadata.version", "group.version"], &["", "nonsense", "kraft.version"]),
            (_, "Principal" | "PrincipalFilter") => self.usually(&["User:alice", "User:*"], &["", "alice"]),
            (_, "PrincipalType" | "OwnerPrincipalType") => self.usually(&["User"], &["", "Group"]),
            // An empty one ends Kafka's controller.
            ("AddRaftVoter", "Host") => self.usually(&["127.0.0.1"], &["localhost"]),
            (_, "Host" | "HostFilter") => self.usually(&["*", "127.0.0.1"], &[""]),
            (_, "ClusterId") => self.usually(&[super::CLUSTER_ID], &["another", ""]),
            ("SaslHandshake", "Mechanism") => self.usually(&["PLAIN", "SCRAM-SHA-256"], &["", "GSSAPI"]),
            (_, "TransactionalId" | "TransactionalIds") => self.usually(&["tx"], &[""]),
            (_, "TransactionalIdPattern") => self.usually(&["tx.*"], &["", "["]),
            _ => self.usually(&["text"], &[""]),
        };
        text.to_owned()
    }

    /// A configuration key or value; what goes together is left to chance.
    fn config(&mut self, name: &str, place: &Place<'_>) -> String {
        if name == "Value" {
            let usual = ["1000", "60000", "delete", "producer", "true", "CreateTime", "1048576", "lz4"];
            return self.usually(&usual, &["", "nonsense", "-1", "-2", "1.5", "99999999999999999999"]).to_owned();
        }
        let topics = [
            "retention.ms",
            "segment.ms",
            "cleanup.policy",
            "compression.type",
            "max.message.bytes",
            "min.insync.replicas",
            "message.timestamp.type",
            "flush.messages",
        ];
        let brokers = ["log.cleaner.threads", "log.retention.ms", "message.max.bytes", "num.io.threads"];
        let others = ["consumer.session.timeout.ms", "interval.ms", "metrics", "match", "nonsense", "", "node.id"];
        let usual = if place.api == "CreateTopics" { topics.to_vec() } else { [&topics[..], &brokers].concat() };
        self.usually(&usual, &others).to_owned()
    }

    fn bytes(&mut self, name: &str, place: &Place<'_>) -> Vec<u8> {
        match (place.api, name) {
            ("JoinGroup", "Metadata") => {
                self.usually(&[subscription("alpha"), subscription("beta")], &[vec![], vec![1, 2]])
            }
            (_, "Assignment") => vec![0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            (_, "Salt" | "SaltedPassword") => self.usually(&[vec![5; 16]], &[vec![]]),
            _ => self.usually(&[vec![1, 2, 3], vec![0, b'u', 0, b'p']], &[vec![]]),
        }
    }

    /// Mostly a good batch.
    fn records(&mut self) -> Vec<u8> {
        let count = 1 + self.below(3) as i32;
        let compression = self.pick(&[Compression::None, Compression::None, Compression::Gzip, Compression::Zstd]);
        let mut header = good_header(compression, count);
        if self.percent(30) {
            // Some producers come again, with the next sequence or another.
            self.producer += i64::from(self.percent(50));
            header.producer_id = ProducerId(self.producer);
            header.producer_epoch = ProducerEpoch(self.usually(&[0, 0, 0, 1], &[-1]));
            header.base_sequence = self.usually(&[0, 0, count], &[7, -1, i32::MAX]);
        }
        match self.usually(&[0, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 3, 4, 5]) {
            1 => header.attributes |= 1 << 4,
            2 => header.attributes |= 1 << 5,
            3 => header.record_count += 1,
            4 => return b"this is no batch of records".to_vec(),
            5 => return Vec::new(),
            _ => {}
        }
        let mut batch = sealed(header, &compression.compress(&written(&good_records(count)), None));
        if self.odd > 0 && self.percent(10) {
            self.odd -= 1;
            let at = self.below(batch.len());
            batch[at] ^= 1;
        }
        batch
    }
}

/// A consumer's subscription to one topic, version 1.
fn subscription(topic: &str) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0, 0, 1];
    out.extend((topic.len() as i16).to_be_bytes());
    out.extend(topic.as_bytes());
    out.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    out
}
