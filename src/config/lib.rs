//! Kafka's configuration: every key with its type, default, rule and update mode; `server.properties` as Kafka reads
//! it; and what a topic, group or broker is effectively configured with.
//!
//! Pure functions over text: nothing here reads a file or the environment. The tables in `data/` are facts about Kafka
//! 4.3.1 and are parsed once, on first use.
//!
//! - [`registry`]: the keys, [`ConfigDef`] each; [`parse_value`] checks one value.
//! - [`properties`]: `server.properties` text to a [`ConfigMap`] and back.
//! - [`ServerConfig`]: a node's static configuration, checked across keys and typed.
//! - [`TopicConfig`]: what a topic's overrides and the broker's configuration come to.
//! - [`describe`]: entries of a DescribeConfigs answer. [`validate`] and [`alter`]: what AlterConfigs accepts.
//! - [`support`]: which broker keys Ringlog honours, ignores for a reason, or refuses.
//! - [`logger`]: the loggers of a node and their levels.

pub mod alter;
mod checks;
mod definition;
pub mod describe;
mod listener;
pub mod logger;
pub mod properties;
pub mod registry;
pub mod sections;
mod server;
pub mod support;
mod throttles;
mod topic;
pub mod validate;
mod value;

use std::collections::BTreeMap;

pub use alter::{AlterError, AlterOp, ResourceKind};
pub use definition::{
    BrokerSynonym, ConfigDef, ConfigDefault, ConfigSource, ConfigType, Importance, TimeUnit, UpdateMode, Validator,
};
pub use describe::{ConfigEntryDescription, ConfigSynonym};
pub use listener::{
    Listener, SecurityProtocol, Voter, parse_bootstrap_servers, parse_listeners, parse_security_protocol_map,
    parse_voters,
};
pub use sections::{
    ConsumerGroupConfig, ControllerConfig, GroupCoordinatorConfig, LogConfig, MetadataLogConfig, NetworkConfig,
    QuorumConfig, QuotaConfig, ReplicaConfig, RinglogConfig, ShareGroupConfig, StreamsGroupConfig, TopicDefaults,
    TransactionConfig,
};
pub use server::{ConfigError, ProcessRoles, ServerConfig, Warning};
pub use throttles::{ThrottleRates, ThrottledPartitions, TopicThrottles};
pub use topic::{
    CleanupPolicy, CompressionLevels, GroupOverrides, ThrottledReplicas, TopicCompression, TopicConfig,
    TopicTimestampType,
};
pub use validate::ValidationError;
pub use value::{ConfigValue, InvalidValue, parse_duration, parse_value};

/// Keys and values as written, in key order. The shape of `server.properties`, of a topic's overrides and of each
/// dynamic configuration in the metadata log.
pub type ConfigMap = BTreeMap<String, String>;

/// What decides a broker's effective value of a key: dynamic per broker, else dynamic cluster default, else the
/// static file, else Kafka's default.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Dynamic configuration of this broker (BROKER resource named by its id).
    pub per_broker: &'a ConfigMap,
    /// Dynamic configuration of all brokers (BROKER resource with an empty name).
    pub cluster_default: &'a ConfigMap,
    /// What the node was started with.
    pub static_config: &'a ConfigMap,
}

/// An empty [`ConfigMap`], to stand for a layer that isn't there.
pub static EMPTY: ConfigMap = BTreeMap::new();

impl<'a> BrokerLayers<'a> {
    /// Layers with a static configuration only.
    pub fn from_static(static_config: &'a ConfigMap) -> Self {
        BrokerLayers { per_broker: &EMPTY, cluster_default: &EMPTY, static_config }
    }

    /// The value that wins for `key` alone (synonyms not followed), or none when only Kafka's default is left.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let layers = [self.per_broker, self.cluster_default, self.static_config];
        layers.into_iter().find_map(|layer| layer.get(key)).map(String::as_str)
    }

    /// One map in which the stronger layers have overwritten the weaker ones. A stronger key also removes its synonyms:
    /// a dynamic `log.retention.ms` leaves nothing of a static `log.retention.hours`.
    pub fn merged(&self) -> ConfigMap {
        let mut merged = self.static_config.clone();
        for layer in [self.cluster_default, self.per_broker] {
            for (key, value) in layer {
                if let Some(definition) = registry::broker().get(key) {
                    for synonym in &definition.synonyms {
                        merged.remove(synonym.name);
                    }
                }
                merged.insert(key.clone(), value.clone());
            }
        }
        merged
    }
}
