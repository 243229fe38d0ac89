//! Configs, quotas, credentials, ACLs and features, by chance.

use ringlog_metadata::image::MetadataImage;
use ringlog_protocol::messages::alter_configs_request as all;
use ringlog_protocol::messages::create_acls_request::AclCreation;
use ringlog_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_protocol::messages::*;

use super::chance::Chance;
use super::requests::{self, text};

/// A key and some of its values, good and bad; the first is good.
type Key = (&'static str, &'static [&'static str]);

const OF_TOPICS: &[Key] = &[
    ("min.insync.replicas", &["1", "2", "2", "3", "0", "x"]),
    ("min.insync.replicas", &["1", "2", "2", "3"]),
    ("unclean.leader.election.enable", &["true", "false", "maybe"]),
    ("unclean.leader.election.enable", &["true", "false"]),
    ("retention.ms", &["-1", "1000", "5000", "", "1.5", "-2"]),
    ("cleanup.policy", &["compact", "delete", "compact,delete", "neither", ""]),
    ("segment.bytes", &["1048576", "1", "2000000"]),
    ("compression.type", &["zstd", "gzip", "producer", "rar"]),
    ("message.timestamp.type", &["CreateTime", "LogAppendTime", "never"]),
    ("leader.replication.throttled.replicas", &["0:11", "*", "x", "0:11,1:12"]),
    ("local.retention.ms", &["-2", "100", "100000000000"]),
    ("remote.storage.enable", &["false", "true"]),
    ("nonsense", &["1"]),
];
/// The values are good ones: a broker would have looked at them first.
const OF_BROKERS: &[Key] = &[
    ("log.retention.ms", &["1000", "5000"]),
    ("min.insync.replicas", &["1", "2", "3"]),
    ("unclean.leader.election.enable", &["true", "false"]),
    ("log.cleaner.threads", &["1", "2"]),
    ("leader.replication.throttled.rate", &["1000"]),
    ("cordoned.log.dirs", &["/a", "", "/a,/b"]),
];
const OF_CLIENT_METRICS: &[Key] = &[
    ("interval.ms", &["60000", "1", "x"]),
    ("metrics", &["org.", "", "*", "a.,b."]),
    ("match", &["client_id=a", "nonsense", "client_id=(", "client_software_name=a"]),
    ("nonsense", &["1"]),
];
const OF_GROUPS: &[Key] = &[
    ("consumer.session.timeout.ms", &["50000", "1", "x"]),
    ("consumer.heartbeat.interval.ms", &["5000", "6000", "1"]),
    ("share.auto.offset.reset", &["latest", "earliest", "by_duration:PT1H", "never"]),
    ("share.record.lock.duration.ms", &["15000", "30000", "1"]),
    ("streams.num.standby.replicas", &["1", "0", "99"]),
    ("nonsense", &["1"]),
];
const FEATURES: [&str; 7] = [
    "group.version",
    "transaction.version",
    "eligible.leader.replicas.version",
    "share.version",
    "streams.version",
    "kraft.version",
    "nonsense",
];

impl Chance {
    fn key(&mut self, keys: &[Key]) -> (&'static str, &'static str) {
        let (name, values) = keys[self.below(keys.len())];
        (name, values[self.below(values.len())])
    }

    /// A key and a value. Of several errors it is up to a hash map which one is told, so only the first may be bad.
    fn key_and_value(&mut self, keys: &[Key], is_first: bool) -> (&'static str, &'static str) {
        let (key, value) = self.key(keys);
        let is_doubtful = match key {
            "nonsense" | "cordoned.log.dirs" => true,
            "min.insync.replicas" => keys == OF_BROKERS,
            _ => false,
        };
        match keys.iter().find(|(name, _)| *name == key) {
            Some((_, values)) if !is_first && !is_doubtful => (key, values[0]),
            _ if !is_first => (keys[0].0, keys[0].1[0]),
            _ => (key, value),
        }
    }

    /// A key of topics and a value.
    pub fn topic_config(&mut self, is_first: bool) -> (&'static str, &'static str) {
        self.key_and_value(OF_TOPICS, is_first)
    }

    /// Something that has configs, and which keys it knows.
    fn resource(&mut self, image: &MetadataImage) -> (i8, String, &'static [Key]) {
        match self.below(20) {
            0..10 => (2, self.topic_name(image), OF_TOPICS),
            10 | 11 => (4, String::new(), OF_BROKERS),
            12..15 => {
                let broker = self.broker(image).to_string();
                (4, self.pick(&[broker.as_str(), &broker, &broker, "1", "99", "x"]).to_owned(), OF_BROKERS)
            }
            15 | 16 => (16, self.pick(&["m1", "m2", ""]).to_owned(), OF_CLIENT_METRICS),
            17 | 18 => (32, self.pick(&["g1", "g2", ""]).to_owned(), OF_GROUPS),
            _ => (self.pick(&[0, 9, 64]), "x".to_owned(), OF_GROUPS),
        }
    }

    /// Whether it would clear who is eligible, which is to be rare, see [`Chance::note_cleared`].
    fn would_clear(&mut self, image: &MetadataImage, key: &str) -> bool {
        let mut partitions = image.topics.iter().flat_map(|topic| topic.partitions.values());
        key == "min.insync.replicas"
            && partitions.any(|partition| !partition.eligible_leader_replicas().is_empty())
            && !self.percent(8)
    }

    pub fn configs(&mut self, image: &MetadataImage) -> IncrementalAlterConfigsRequest {
        let mut resources: Vec<AlterConfigsResource> = Vec::new();
        for _ in 0..1 + self.below(2) {
            let (resource_type, name, keys) = self.resource(image);
            let mut configs: Vec<AlterableConfig> = Vec::new();
            for _ in 0..1 + self.below(2) {
                let (key, value) = self.key_and_value(keys, configs.is_empty());
                if self.would_clear(image, key) {
                    continue;
                }
                let config_operation = self.pick(&[0, 0, 0, 0, 1, 1, 2, 3]);
                let value = (config_operation != 1).then(|| text(value));
                if configs.iter().all(|it| it.name != *key) {
                    configs.push(AlterableConfig { name: text(key), config_operation, value });
                }
            }
            resources.push(AlterConfigsResource { resource_type, resource_name: text(&name), configs });
        }
        IncrementalAlterConfigsRequest { resources, validate_only: self.percent(5) }
    }

    pub fn all_configs(&mut self, image: &MetadataImage) -> AlterConfigsRequest {
        let mut resources: Vec<all::AlterConfigsResource> = Vec::new();
        for _ in 0..1 + self.below(2) {
            let (resource_type, name, keys) = self.resource(image);
            let mut configs: Vec<all::AlterableConfig> = Vec::new();
            for _ in 0..self.below(3) {
                let (key, value) = self.key_and_value(keys, configs.is_empty());
                if self.would_clear(image, key) {
                    continue;
                }
                let value = Some(text(value));
                if configs.iter().all(|it| it.name != *key) {
                    configs.push(all::AlterableConfig { name: text(key), value });
                }
            }
            // Two of types that Kafka doesn't know make it forget to answer.
            if resources.iter().any(|it| it.resource_name == *name && keys == OF_GROUPS) {
                continue;
            }
            resources.push(all::AlterConfigsResource { resource_type, resource_name: text(&name), configs });
        }
        AlterConfigsRequest { resources, validate_only: self.percent(5) }
    }

    pub fn quotas(&mut self) -> AlterClientQuotasRequest {
        let mut request = AlterClientQuotasRequest { entries: Vec::new(), validate_only: self.percent(5) };
        for _ in 0..1 + self.below(2) {
            let user = self.pick(&[Some("u"), Some("v"), None, Some("")]);
            let client = self.pick(&[Some("c"), None]);
            let mut entity = vec![("user", user)];
            match self.below(20) {
                0..6 => entity.push(("client-id", client)),
                6..10 => entity = vec![("client-id", client)],
                10..14 => entity = vec![("ip", self.pick(&[Some("1.2.3.4"), None, Some("no host")]))],
                14 => entity.push(("ip", Some("1.2.3.4"))),
                15 => entity = vec![("nonsense", user)],
                16 => entity.push(("user", Some("w"))),
                17 => entity.clear(),
                _ => {}
            }
            let mut operations = Vec::new();
            for _ in 0..1 + self.below(2) {
                let rates =
                    ["producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate"];
                let key = match entity.first() {
                    Some(("ip", _)) if !operations.is_empty() || self.percent(90) => "connection_creation_rate",
                    _ if operations.is_empty() && self.percent(4) => {
                        self.pick(&["nonsense", "connection_creation_rate"])
                    }
                    _ => self.pick(&rates),
                };
                // Of several errors it is up to a hash map which one is told.
                let value = match operations.is_empty() {
                    true => self.pick(&[Some(5.0), Some(1_000.0), Some(5.5), Some(0.0), Some(-1.0), Some(1e20), None]),
                    false => self.pick(&[Some(5.0), Some(1_000.0), None]),
                };
                // Nobody is to be slowed down.
                let is_slow = |value: &f64| key == "controller_mutation_rate" && *value > 0.0;
                let value = value.map(|value| if is_slow(&value) { value * 1e9 } else { value });
                operations.push((key, value));
            }
            request.entries.extend(requests::quota(&entity, &operations).entries);
        }
        request
    }

    pub fn scram(&mut self) -> AlterUserScramCredentialsRequest {
        let mut user = || ["alice", "bob", "carol", ""][if self.percent(4) { 3 } else { self.below(3) }];
        let (one, other) = (user(), user());
        let mechanism = self.pick(&[1, 1, 1, 2, 2, 2, 0, 9]);
        let iterations = self.pick(&[4_096, 8_192, 16_384, 16_385, 1]);
        let upsertions = [(one, mechanism, iterations), (if self.percent(50) { one } else { other }, 1, 4_096)];
        let deletions = [(other, 1 + self.below(2) as i8), (one, 1 + self.below(2) as i8)];
        let (count, other_count) = (self.below(3), self.below(3));
        requests::scram(&upsertions[..count], &deletions[..other_count])
    }

    pub fn new_acls(&mut self) -> CreateAclsRequest {
        let creations = (0..1 + self.below(3)).map(|_| AclCreation {
            resource_type: self.pick(&[2, 3, 4]),
            resource_name: text(self.pick(&["t", "t", "u", "*", "kafka-cluster", ""])),
            resource_pattern_type: self.pick(&[3, 4]),
            principal: text(self.pick(&["User:a", "User:a", "User:b", "User:*", "nobody", ""])),
            host: text(self.pick(&["*", "*", "1.2.3.4", ""])),
            operation: self.pick(&[2, 3, 4, 8]),
            permission_type: self.pick(&[2, 3]),
        });
        CreateAclsRequest { creations: creations.collect() }
    }

    pub fn removed_acls(&mut self) -> DeleteAclsRequest {
        let filters = (0..1 + self.below(2)).map(|_| DeleteAclsFilter {
            resource_type_filter: self.pick(&[1, 1, 2, 3]),
            resource_name_filter: self.pick(&[None, Some("t"), Some("u")]).map(text),
            pattern_type_filter: self.pick(&[1, 2, 3, 4]),
            principal_filter: self.pick(&[None, None, Some("User:a"), Some("nobody")]).map(text),
            host_filter: self.pick(&[None, None, Some("*")]).map(text),
            operation: self.pick(&[1, 1, 3, 4]),
            permission_type: self.pick(&[1, 1, 2, 3]),
        });
        DeleteAclsRequest { filters: filters.collect() }
    }

    pub fn features(&mut self, image: &MetadataImage) -> UpdateFeaturesRequest {
        let mut updates: Vec<(&str, i16, i8)> = Vec::new();
        let mut is_only_checked = self.percent(15);
        for _ in 0..1 + self.below(2) {
            let upgrade_type = self.pick(&[1, 1, 1, 2, 2, 3, 0]);
            let mut update = (FEATURES[self.below(FEATURES.len())], -1 + self.below(5) as i16, upgrade_type);
            if update.0 == "kraft.version" && update.1 == 1 {
                // There is no way back, and the log would get voters.
                is_only_checked = true;
            }
            if self.percent(15) {
                let present = image.metadata_version().0;
                let level = self.pick(&[present, present, present, present - 1, present - 3, 7, 99]);
                // Upgrades are rare, as there are not many levels.
                let level = if self.percent(3) { present + 1 } else { level };
                update = ("metadata.version", level, upgrade_type);
            }
            if updates.iter().all(|it| it.0 != update.0) {
                updates.push(update);
            }
        }
        requests::features(&updates, is_only_checked)
    }
}
