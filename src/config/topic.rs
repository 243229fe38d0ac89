//! What a topic is configured with once its overrides, the broker's configuration and Kafka's defaults are put together.

use crate::definition::ConfigDef;
use crate::registry;
use crate::value::{ConfigValue, parse_value};
use crate::{BrokerLayers, ConfigMap};

/// What happens to records that are no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Of each key only the last record stays.
    pub compact: bool,
    /// Segments that are too old or too many go.
    pub delete: bool,
}

/// How a topic's batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer did.
    Producer,
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl TopicCompression {
    fn from_name(name: &str) -> TopicCompression {
        match name {
            "uncompressed" => TopicCompression::Uncompressed,
            "gzip" => TopicCompression::Gzip,
            "snappy" => TopicCompression::Snappy,
            "lz4" => TopicCompression::Lz4,
            "zstd" => TopicCompression::Zstd,
            _ => TopicCompression::Producer,
        }
    }
}

/// The level per compression, for batches that the broker compresses itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionLevels {
    /// 1 to 9, or -1 for the library's own choice.
    pub gzip: i32,
    /// 1 to 17.
    pub lz4: i32,
    /// -131072 to 22.
    pub zstd: i32,
}

/// Which timestamp a record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicTimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// Replicas whose replication is throttled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All replicas of the topic.
    All,
    /// These: (partition, broker).
    Of(Vec<(i32, i32)>),
}

/// A topic's effective configuration: all 34 keys. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are Kafka's keys")]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression: TopicCompression,
    pub compression_levels: CompressionLevels,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub follower_replication_throttled_replicas: ThrottledReplicas,
    pub index_interval_bytes: i32,
    /// For tests of brokers: overrides [`Self::segment_bytes`] without its floor.
    pub internal_segment_bytes: Option<i32>,
    pub leader_replication_throttled_replicas: ThrottledReplicas,
    pub local_retention_bytes: i64,
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TopicTimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub remote_log_copy_disable: bool,
    pub remote_log_delete_on_disable: bool,
    pub remote_storage_enable: bool,
    /// Negative: no bound.
    pub retention_bytes: i64,
    /// -1: for ever.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

impl Default for TopicConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        TopicConfig {
            cleanup_policy: CleanupPolicy { compact: false, delete: true },
            compression: TopicCompression::Producer,
            compression_levels: CompressionLevels { gzip: -1, lz4: 9, zstd: 3 },
            delete_retention_ms: 86_400_000,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            follower_replication_throttled_replicas: ThrottledReplicas::None,
            index_interval_bytes: 4096,
            internal_segment_bytes: None,
            leader_replication_throttled_replicas: ThrottledReplicas::None,
            local_retention_bytes: -2,
            local_retention_ms: -2,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TopicTimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            preallocate: false,
            remote_log_copy_disable: false,
            remote_log_delete_on_disable: false,
            remote_storage_enable: false,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1 << 30,
            segment_index_bytes: 10_485_760,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            unclean_leader_election_enable: false,
        }
    }
}

impl TopicConfig {
    /// What a topic without overrides has on this broker. Values that don't parse count as not set: they were refused
    /// when they were given.
    pub fn from_broker(layers: &BrokerLayers<'_>) -> TopicConfig {
        let mut config = TopicConfig::default();
        for definition in registry::topic().iter() {
            if let Some(value) = broker_value(definition, layers) {
                config.set(definition.name, &value);
            }
        }
        config
    }

    /// This configuration with a topic's overrides on top. Unknown keys and values that don't parse are ignored: they
    /// were refused when they were given, so only another version can have written them.
    pub fn with_overrides(&self, overrides: &ConfigMap) -> TopicConfig {
        let mut config = self.clone();
        for (key, text) in overrides {
            let Some(definition) = registry::topic().get(key) else { continue };
            if let Ok(value) = parse_value(definition, text) {
                config.set(definition.name, &value);
            }
        }
        config
    }

    /// [`Self::from_broker`] and [`Self::with_overrides`] in one.
    pub fn resolve(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> TopicConfig {
        TopicConfig::from_broker(layers).with_overrides(overrides)
    }

    /// The size at which a segment is rolled.
    pub fn effective_segment_bytes(&self) -> i32 {
        self.internal_segment_bytes.unwrap_or(self.segment_bytes)
    }

    fn set(&mut self, key: &str, value: &ConfigValue) {
        match value {
            ConfigValue::Boolean(flag) => self.set_flag(key, *flag),
            ConfigValue::Integer(number) => self.set_number(key, *number),
            ConfigValue::Double(number) if key == "min.cleanable.dirty.ratio" => {
                self.min_cleanable_dirty_ratio = *number;
            }
            ConfigValue::String(text) if key == "compression.type" => {
                self.compression = TopicCompression::from_name(text);
            }
            ConfigValue::String(text) if key == "message.timestamp.type" => {
                let append = text == "LogAppendTime";
                self.message_timestamp_type =
                    if append { TopicTimestampType::LogAppendTime } else { TopicTimestampType::CreateTime };
            }
            ConfigValue::List(list) => match key {
                "cleanup.policy" => {
                    let has = |name: &str| list.iter().any(|element| element == name);
                    self.cleanup_policy = CleanupPolicy { compact: has("compact"), delete: has("delete") };
                }
                "follower.replication.throttled.replicas" => {
                    self.follower_replication_throttled_replicas = throttled(list);
                }
                "leader.replication.throttled.replicas" => {
                    self.leader_replication_throttled_replicas = throttled(list);
                }
                _ => unreachable!("{key} is no list"),
            },
            _ => unreachable!("{key} has another type"),
        }
    }

    fn set_flag(&mut self, key: &str, flag: bool) {
        let field = match key {
            "preallocate" => &mut self.preallocate,
            "remote.log.copy.disable" => &mut self.remote_log_copy_disable,
            "remote.log.delete.on.disable" => &mut self.remote_log_delete_on_disable,
            "remote.storage.enable" => &mut self.remote_storage_enable,
            "unclean.leader.election.enable" => &mut self.unclean_leader_election_enable,
            _ => unreachable!("{key} is no boolean"),
        };
        *field = flag;
    }

    fn set_number(&mut self, key: &str, number: i64) {
        let int = i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
        match key {
            "compression.gzip.level" => self.compression_levels.gzip = int,
            "compression.lz4.level" => self.compression_levels.lz4 = int,
            "compression.zstd.level" => self.compression_levels.zstd = int,
            "delete.retention.ms" => self.delete_retention_ms = number,
            "file.delete.delay.ms" => self.file_delete_delay_ms = number,
            "flush.messages" => self.flush_messages = number,
            "flush.ms" => self.flush_ms = number,
            "index.interval.bytes" => self.index_interval_bytes = int,
            "internal.segment.bytes" => self.internal_segment_bytes = Some(int),
            "local.retention.bytes" => self.local_retention_bytes = number,
            "local.retention.ms" => self.local_retention_ms = number,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = number,
            "max.message.bytes" => self.max_message_bytes = int,
            "message.timestamp.after.max.ms" => self.message_timestamp_after_max_ms = number,
            "message.timestamp.before.max.ms" => self.message_timestamp_before_max_ms = number,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = number,
            "min.insync.replicas" => self.min_insync_replicas = int,
            "retention.bytes" => self.retention_bytes = number,
            "retention.ms" => self.retention_ms = number,
            "segment.bytes" => self.segment_bytes = int,
            "segment.index.bytes" => self.segment_index_bytes = int,
            "segment.jitter.ms" => self.segment_jitter_ms = number,
            "segment.ms" => self.segment_ms = number,
            _ => unreachable!("{key} is no number"),
        }
    }
}

/// Replicas of `partition:broker` entries; entries that are neither are left out.
fn throttled(list: &[String]) -> ThrottledReplicas {
    if list.iter().any(|element| element == "*") {
        return ThrottledReplicas::All;
    }
    let parse = |entry: &String| {
        let (partition, broker) = entry.split_once(':')?;
        Some((partition.parse().ok()?, broker.parse().ok()?))
    };
    let replicas: Vec<(i32, i32)> = list.iter().filter_map(parse).collect();
    if replicas.is_empty() { ThrottledReplicas::None } else { ThrottledReplicas::Of(replicas) }
}

/// What the broker's configuration (Kafka's default included) makes of a topic's or group's key: the strongest layer
/// decides, in it the first synonym. None for a key that no broker key stands in for.
pub(crate) fn broker_value(definition: &ConfigDef, layers: &BrokerLayers<'_>) -> Option<ConfigValue> {
    let parse = |synonym: &crate::BrokerSynonym, text: &str| {
        let broker_definition = registry::broker().get(synonym.name)?;
        match parse_value(broker_definition, text).ok()? {
            ConfigValue::Integer(number) => {
                let number = synonym.unit.to_key_unit(number);
                let for_ever = definition.name == "retention.ms" && number < 0;
                Some(ConfigValue::Integer(if for_ever { -1 } else { number }))
            }
            value => Some(value),
        }
    };
    for layer in [layers.per_broker, layers.cluster_default, layers.static_config] {
        for synonym in &definition.synonyms {
            if let Some(value) = layer.get(synonym.name).and_then(|text| parse(synonym, text)) {
                return Some(value);
            }
        }
    }
    let default = |synonym: &crate::BrokerSynonym| {
        let text = registry::broker().get(synonym.name)?.default.value()?;
        parse(synonym, text)
    };
    definition.synonyms.iter().find_map(default)
}

/// What a group overrides of the broker's group configuration, typed. None means that the broker's value holds; a
/// value outside the broker's bounds is moved to the nearer bound, as Kafka does when the bounds change later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are Kafka's keys")]
pub struct GroupOverrides {
    pub consumer_assignment_interval_ms: Option<i32>,
    pub consumer_heartbeat_interval_ms: Option<i32>,
    pub consumer_session_timeout_ms: Option<i32>,
    pub share_assignment_interval_ms: Option<i32>,
    pub share_auto_offset_reset: Option<String>,
    pub share_delivery_count_limit: Option<i32>,
    pub share_heartbeat_interval_ms: Option<i32>,
    pub share_isolation_level: Option<String>,
    pub share_partition_max_record_locks: Option<i32>,
    pub share_record_lock_duration_ms: Option<i32>,
    pub share_renew_acknowledge_enable: Option<bool>,
    pub share_session_timeout_ms: Option<i32>,
    pub streams_assignment_interval_ms: Option<i32>,
    pub streams_heartbeat_interval_ms: Option<i32>,
    pub streams_initial_rebalance_delay_ms: Option<i32>,
    pub streams_num_standby_replicas: Option<i32>,
    pub streams_session_timeout_ms: Option<i32>,
}

impl GroupOverrides {
    /// Reads a group's dynamic configuration. Values that don't parse count as not set.
    pub fn from_map(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> GroupOverrides {
        let value = |key: &str| {
            let definition = registry::group().get(key)?;
            parse_value(definition, overrides.get(key)?).ok()
        };
        let int = |key: &str| match value(key)? {
            ConfigValue::Integer(number) => {
                let definition = registry::group().get(key)?;
                let (lower, upper) = group_bounds(definition, layers);
                let number = number.min(upper.unwrap_or(i64::MAX)).max(lower.unwrap_or(i64::MIN));
                i32::try_from(number).ok()
            }
            _ => None,
        };
        let text = |key: &str| value(key).map(|value| value.to_string());
        GroupOverrides {
            consumer_assignment_interval_ms: int("consumer.assignment.interval.ms"),
            consumer_heartbeat_interval_ms: int("consumer.heartbeat.interval.ms"),
            consumer_session_timeout_ms: int("consumer.session.timeout.ms"),
            share_assignment_interval_ms: int("share.assignment.interval.ms"),
            share_auto_offset_reset: text("share.auto.offset.reset"),
            share_delivery_count_limit: int("share.delivery.count.limit"),
            share_heartbeat_interval_ms: int("share.heartbeat.interval.ms"),
            share_isolation_level: text("share.isolation.level"),
            share_partition_max_record_locks: int("share.partition.max.record.locks"),
            share_record_lock_duration_ms: int("share.record.lock.duration.ms"),
            share_renew_acknowledge_enable: match value("share.renew.acknowledge.enable") {
                Some(ConfigValue::Boolean(flag)) => Some(flag),
                _ => None,
            },
            share_session_timeout_ms: int("share.session.timeout.ms"),
            streams_assignment_interval_ms: int("streams.assignment.interval.ms"),
            streams_heartbeat_interval_ms: int("streams.heartbeat.interval.ms"),
            streams_initial_rebalance_delay_ms: int("streams.initial.rebalance.delay.ms"),
            streams_num_standby_replicas: int("streams.num.standby.replicas"),
            streams_session_timeout_ms: int("streams.session.timeout.ms"),
        }
    }
}

/// The broker's bounds of a group's number, where it has any.
pub(crate) fn group_bounds(definition: &ConfigDef, layers: &BrokerLayers<'_>) -> (Option<i64>, Option<i64>) {
    let bound = |key: Option<&'static str>| match broker_integer(key?, layers) {
        ConfigValue::Integer(number) => Some(number),
        _ => None,
    };
    (bound(definition.lower_bound), bound(definition.upper_bound))
}

fn broker_integer(key: &'static str, layers: &BrokerLayers<'_>) -> ConfigValue {
    let definition = registry::broker().get(key).expect("bounds name broker keys");
    let given = layers.get(key).and_then(|text| parse_value(definition, text).ok());
    let default = || parse_value(definition, definition.default.value().unwrap_or_default()).ok();
    given.or_else(default).expect("bounds have defaults")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_the_tables() {
        let empty = ConfigMap::new();
        assert_eq!(TopicConfig::from_broker(&BrokerLayers::from_static(&empty)), TopicConfig::default());
        let of_tables: ConfigMap = registry::topic()
            .iter()
            .filter_map(|definition| Some((definition.name.to_owned(), definition.default.value()?.to_owned())))
            .collect();
        let strange = TopicConfig { retention_ms: 1, segment_bytes: 2, preallocate: true, ..TopicConfig::default() };
        assert_eq!(strange.with_overrides(&of_tables), TopicConfig::default());
    }

    #[test]
    fn the_strongest_layer_decides_and_in_it_the_first_synonym() {
        let static_config =
            map(&[("log.retention.hours", "1"), ("log.retention.minutes", "5"), ("log.roll.hours", "2")]);
        let cluster_default = map(&[("log.retention.ms", "7"), ("min.insync.replicas", "2")]);
        let per_broker = map(&[("min.insync.replicas", "3"), ("log.cleanup.policy", "compact, delete")]);
        let mut layers = BrokerLayers::from_static(&static_config);
        assert_eq!(TopicConfig::from_broker(&layers).retention_ms, 300_000);
        layers.cluster_default = &cluster_default;
        layers.per_broker = &per_broker;
        let config = TopicConfig::from_broker(&layers);
        assert_eq!((config.retention_ms, config.segment_ms, config.min_insync_replicas), (7, 7_200_000, 3));
        assert_eq!(config.cleanup_policy, CleanupPolicy { compact: true, delete: true });
        let overrides = map(&[
            ("retention.ms", "9"),
            ("compression.type", "zstd"),
            ("internal.segment.bytes", "10"),
            ("leader.replication.throttled.replicas", "0:1,2:3"),
            ("follower.replication.throttled.replicas", "*"),
            ("segment.ms", "broken"),
            ("unknown", "1"),
        ]);
        let config = config.with_overrides(&overrides);
        assert_eq!((config.retention_ms, config.segment_ms, config.effective_segment_bytes()), (9, 7_200_000, 10));
        assert_eq!(config.compression, TopicCompression::Zstd);
        assert_eq!(config.leader_replication_throttled_replicas, ThrottledReplicas::Of(vec![(0, 1), (2, 3)]));
        assert_eq!(config.follower_replication_throttled_replicas, ThrottledReplicas::All);
    }

    #[test]
    fn flush_interval_falls_back_to_the_scheduler_and_negative_retention_means_for_ever() {
        let static_config = map(&[("log.flush.scheduler.interval.ms", "5000"), ("log.retention.minutes", "-7")]);
        let config = TopicConfig::from_broker(&BrokerLayers::from_static(&static_config));
        assert_eq!((config.flush_ms, config.retention_ms), (5000, -1));
    }

    #[test]
    fn a_groups_numbers_stay_within_the_brokers_bounds() {
        let empty = ConfigMap::new();
        let layers = BrokerLayers::from_static(&empty);
        let overrides = map(&[("consumer.session.timeout.ms", "90000"), ("share.isolation.level", "read_committed")]);
        let group = GroupOverrides::from_map(&overrides, &layers);
        assert_eq!(group.consumer_session_timeout_ms, Some(60_000));
        assert_eq!(group.share_isolation_level.as_deref(), Some("read_committed"));
        assert_eq!(group.consumer_heartbeat_interval_ms, None);
    }
}
