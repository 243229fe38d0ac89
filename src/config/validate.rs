//! What AlterConfigs, IncrementalAlterConfigs and CreateTopics accept, with Kafka's errors and texts.

use ringlog_types::ErrorCode;

use crate::alter::ResourceKind;
use crate::checks;
use crate::definition::{ConfigDef, UpdateMode};
use crate::registry::{self, Registry};
use crate::server::Values;
use crate::support::{self, Support, listener_base_key};
use crate::topic::{TopicConfig, group_bounds};
use crate::value::{ConfigValue, InvalidValue, parse_value};
use crate::{BrokerLayers, ConfigMap};

/// Why a dynamic configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// Error INVALID_CONFIG.
    #[error("{0}")]
    InvalidConfig(String),
    /// Error INVALID_REQUEST.
    #[error("{0}")]
    InvalidRequest(String),
}

impl ValidationError {
    /// The error code that goes with it.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ValidationError::InvalidConfig(_) => ErrorCode::InvalidConfig,
            ValidationError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        }
    }
}

fn invalid_config<T>(text: impl Into<String>) -> Result<T, ValidationError> {
    Err(ValidationError::InvalidConfig(text.into()))
}

fn invalid_request<T>(text: impl Into<String>) -> Result<T, ValidationError> {
    Err(ValidationError::InvalidRequest(text.into()))
}

/// Checks the name that a resource is configured by. Whether a topic exists is the caller's to check.
pub fn resource_name(kind: ResourceKind, name: &str) -> Result<(), ValidationError> {
    match kind {
        ResourceKind::Topic if name.is_empty() => invalid_request("Default topic resources are not allowed."),
        ResourceKind::Topic => match ringlog_types::validate_topic_name(name) {
            Ok(()) => Ok(()),
            Err(error) => invalid_request(error.to_string()),
        },
        ResourceKind::Broker if name.is_empty() => Ok(()),
        ResourceKind::Broker => match name.parse::<i32>() {
            Err(_) => invalid_request("Unable to parse broker name as a base 10 number."),
            Ok(id) if id < 0 => invalid_request("Invalid negative broker ID."),
            Ok(_) => Ok(()),
        },
        ResourceKind::ClientMetrics if name.is_empty() => invalid_request("Subscription name can't be empty"),
        ResourceKind::Group if name.is_empty() => invalid_request("Default group resources are not allowed."),
        ResourceKind::ClientMetrics | ResourceKind::Group => Ok(()),
    }
}

fn parse_all<'a>(
    registry: &Registry,
    values: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), InvalidValue> {
    for (key, text) in values {
        if let Some(definition) = registry.get(key) {
            parse_value(definition, text)?;
        }
    }
    Ok(())
}

/// Kafka's definitions of topics' keys in their own order: of several wrong values the first one here is told.
const TOPIC_ORDER: &[&str] = &[
    "segment.bytes",
    "segment.ms",
    "segment.jitter.ms",
    "segment.index.bytes",
    "flush.messages",
    "flush.ms",
    "retention.bytes",
    "retention.ms",
    "max.message.bytes",
    "index.interval.bytes",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "file.delete.delay.ms",
    "min.cleanable.dirty.ratio",
    "cleanup.policy",
    "unclean.leader.election.enable",
    "min.insync.replicas",
    "compression.type",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "preallocate",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
    "remote.storage.enable",
    "local.retention.ms",
    "local.retention.bytes",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "internal.segment.bytes",
];

/// Checks all overrides that a topic is to have. `layers` are those of the node that decides.
pub fn topic(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> Result<(), ValidationError> {
    if let Some(key) = overrides.keys().find(|key| registry::topic().get(key).is_none()) {
        return invalid_config(format!("Unknown topic config name: {key}"));
    }
    let mut ordered: Vec<(&String, &String)> = overrides.iter().collect();
    ordered.sort_by_key(|(key, _)| TOPIC_ORDER.iter().position(|known| known == key));
    parse_all(registry::topic(), ordered).map_err(|error| ValidationError::InvalidConfig(error.0))?;
    let config = TopicConfig::resolve(overrides, layers);
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return invalid_config(format!(
            "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
            config.min_compaction_lag_ms, config.max_compaction_lag_ms
        ));
    }
    if config.remote_storage_enable {
        return invalid_config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log \
             storage.",
        );
    }
    Ok(())
}

/// Checks all overrides that a group is to have. `layers` are those of the node that decides.
pub fn group(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> Result<(), ValidationError> {
    if let Some(key) = overrides.keys().find(|key| registry::group().get(key).is_none()) {
        return invalid_config(format!("Unknown group config name: {key}"));
    }
    parse_all(registry::group(), overrides).map_err(|error| ValidationError::InvalidConfig(error.0))?;
    for (key, text) in overrides {
        let Some(definition) = registry::group().get(key) else { continue };
        let Ok(ConfigValue::Integer(number)) = parse_value(definition, text) else { continue };
        let (lower, upper) = group_bounds(definition, layers);
        if let (Some(lower), Some(name)) = (lower, definition.lower_bound)
            && number < lower
        {
            return invalid_config(format!("{key} must be greater than or equal to {name}"));
        }
        if let (Some(upper), Some(name)) = (upper, definition.upper_bound)
            && number > upper
        {
            return invalid_config(format!("{key} must be less than or equal to {name}"));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (heartbeat, session) = (format!("{kind}.heartbeat.interval.ms"), format!("{kind}.session.timeout.ms"));
        if group_number(&heartbeat, overrides, layers) >= group_number(&session, overrides, layers) {
            return invalid_config(format!("{session} must be greater than {heartbeat}"));
        }
    }
    Ok(())
}

fn group_number(key: &str, overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> Option<i64> {
    let definition = registry::group().get(key)?;
    let own = overrides.get(key).and_then(|text| parse_value(definition, text).ok());
    match own.or_else(|| crate::topic::broker_value(definition, layers))? {
        ConfigValue::Integer(number) => Some(number),
        _ => None,
    }
}

/// The shortest and longest interval of a client metrics subscription, in milliseconds.
pub const CLIENT_METRICS_INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;

/// Checks everything that a client metrics subscription is to have.
pub fn client_metrics(overrides: &ConfigMap) -> Result<(), ValidationError> {
    if let Some(key) = overrides.keys().find(|key| registry::client_metrics().get(key).is_none()) {
        return invalid_request(format!("Unknown client metrics configuration: {key}"));
    }
    for (key, text) in overrides {
        let Some(definition) = registry::client_metrics().get(key) else { continue };
        let value = parse_value(definition, text).map_err(|error| ValidationError::InvalidConfig(error.0))?;
        match value {
            ConfigValue::Integer(number) if !CLIENT_METRICS_INTERVAL_MS.contains(&number) => {
                return invalid_request(format!(
                    "Invalid value {number} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
                ));
            }
            ConfigValue::List(patterns) if key == "match" => {
                if let Some(pattern) = patterns.iter().find(|pattern| !is_client_pattern(pattern)) {
                    return invalid_config(format!("Illegal client matching pattern: {pattern}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a client metrics subscription can select clients by.
pub const CLIENT_SELECTORS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

fn is_client_pattern(text: &str) -> bool {
    let mut parts = text.split('=');
    let (Some(selector), Some(expression), None) = (parts.next(), parts.next(), parts.next()) else { return false };
    CLIENT_SELECTORS.contains(&selector.trim()) && is_plausible_expression(expression.trim())
}

/// Whether a regular expression has its brackets paired and its repetitions something to repeat. The full syntax is
/// judged where the expression is used.
fn is_plausible_expression(expression: &str) -> bool {
    let mut depth = 0_usize;
    let mut in_class = false;
    let mut repeatable = false;
    let mut characters = expression.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.next().is_none() => return false,
            ']' if in_class => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' if depth == 0 => return false,
            ')' => depth -= 1,
            '*' | '+' | '?' if !repeatable => return false,
            _ => {}
        }
        // After "(" only "?" may follow, which begins a group's flags.
        repeatable = !matches!(character, '|') && (character != '(' || characters.as_str().starts_with('?'));
    }
    depth == 0 && !in_class
}

/// Security keys that change dynamically only for one listener.
const LISTENER_ONLY: [&str; 10] = [
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Listener keys that can be set for all brokers.
const CLUSTER_LEVEL_LISTENER: [&str; 3] = ["max.connection.creation.rate", "max.connections", "num.network.threads"];

fn dynamic_definition(key: &str) -> Option<&'static ConfigDef> {
    registry::broker().get(key).or_else(|| registry::broker_dynamic_only().get(key))
}

fn is_per_broker(key: &str) -> bool {
    match listener_base_key(key) {
        Some(base) => dynamic_definition(base).is_some() && !CLUSTER_LEVEL_LISTENER.contains(&base),
        None => registry::broker().get(key).is_some_and(|definition| definition.update_mode == UpdateMode::PerBroker),
    }
}

/// Checks everything that a broker, or with `per_broker` false all brokers, is to be configured with dynamically.
/// `layers` are those of the broker that checks, before the change. Keys that nobody knows pass, as in Kafka.
pub fn broker(new: &ConfigMap, per_broker: bool, layers: &BrokerLayers<'_>) -> Result<(), ValidationError> {
    let refuse = |what: &str, is_refused: &dyn Fn(&str) -> bool| {
        let keys: Vec<&str> = new.keys().map(String::as_str).filter(|key| is_refused(key)).collect();
        if keys.is_empty() { Ok(()) } else { invalid_request(format!("{what}: [{}]", keys.join(", "))) }
    };
    refuse("Cannot update these configs dynamically", &|key| {
        let definition = registry::broker().get(key).or_else(|| registry::ringlog().get(key));
        definition.is_some_and(|definition| definition.update_mode == UpdateMode::ReadOnly)
    })?;
    refuse("These security configs can be dynamically updated only per-listener using the listener prefix", &|key| {
        LISTENER_ONLY.contains(&key)
    })?;
    for (key, text) in new {
        let Some(definition) = dynamic_definition(listener_base_key(key).unwrap_or(key)) else { continue };
        parse_value(definition, text).map_err(|error| ValidationError::InvalidRequest(error.0))?;
    }
    if !per_broker {
        let what = "Cannot update these configs at default cluster level, broker id must be specified";
        refuse(what, &is_per_broker)?;
    }
    check_result(new, per_broker, layers)?;
    check_threads(new, per_broker, layers)?;
    check_support(new)
}

/// Checks a change of a broker's or all brokers' `min.insync.replicas` while eligible leader replicas (KIP-966) are on:
/// only the cluster's value may change, and it can't be removed. `removed` tells that the change deletes the key.
pub fn min_insync_replicas_with_elr(per_broker: bool, removed: bool) -> Result<(), ValidationError> {
    match (per_broker, removed) {
        (true, _) => invalid_config("Broker-level min.insync.replicas cannot be altered while ELR is enabled."),
        (false, true) => invalid_config("Cluster-level min.insync.replicas cannot be removed while ELR is enabled."),
        (false, false) => Ok(()),
    }
}

/// A key whose function isn't there can't be turned on dynamically either.
fn check_support(new: &ConfigMap) -> Result<(), ValidationError> {
    for (key, text) in new {
        let base = listener_base_key(key).unwrap_or(key);
        let (Some(Support::NotYet(function)), Some(definition)) = (support::of(base), registry::broker().get(base))
        else {
            continue;
        };
        let default = definition.default.value().and_then(|default| parse_value(definition, default).ok());
        if parse_value(definition, text).ok() != default {
            return invalid_request(format!("{key} asks for {function}, which Ringlog doesn't have yet"));
        }
    }
    Ok(())
}

/// What the broker's whole configuration is, and would come to.
fn before_and_after(new: &ConfigMap, per_broker: bool, layers: &BrokerLayers<'_>) -> (Values, Values) {
    let mut after = *layers;
    if per_broker {
        after.per_broker = new;
    } else {
        after.cluster_default = new;
    }
    let mut ignored = Vec::new();
    let before = Values::parse(&layers.merged(), &mut ignored);
    (before, Values::parse(&after.merged(), &mut ignored))
}

/// Kafka's pools of threads that can be resized while a broker runs.
const THREAD_POOLS: &[&str] =
    &["background.threads", "num.io.threads", "num.recovery.threads.per.data.dir", "num.replica.fetchers"];

/// Numbers of threads may at most double, and halve, at a time. Nothing here has such pools, but scripts go by the refusal.
fn check_threads(new: &ConfigMap, per_broker: bool, layers: &BrokerLayers<'_>) -> Result<(), ValidationError> {
    let (before, values) = before_and_after(new, per_broker, layers);
    let wrong = |text: String| {
        let exception = "org.apache.kafka.common.config.ConfigException";
        invalid_request(format!("Invalid value {exception}: {text} for configuration Invalid dynamic configuration"))
    };
    for key in THREAD_POOLS {
        let (old, count) = (i64::from(before.get::<i32>(key)), i64::from(values.get::<i32>(key)));
        let failed = format!("Dynamic thread count update validation failed for {key}={count}");
        if count < old / 2 {
            return wrong(format!("{failed}, value should be at least half the current value {old}"));
        }
        if count > old * 2 {
            return wrong(format!("{failed}, value should not be greater than double the current value {old}"));
        }
    }
    let key = "log.cleaner.threads";
    let (old, count) = (i64::from(before.get::<i32>(key)), i64::from(values.get::<i32>(key)));
    if before.get::<bool>("log.cleaner.enable") && count < old / 2 {
        return wrong(format!("Log cleaner threads cannot be reduced to less than half the current value {old}"));
    }
    if before.get::<bool>("log.cleaner.enable") && count > old * 2 {
        return wrong(format!("Log cleaner threads cannot be increased to more than double the current value {old}"));
    }
    Ok(())
}

/// Checks what the broker's whole configuration would come to.
fn check_result(new: &ConfigMap, per_broker: bool, layers: &BrokerLayers<'_>) -> Result<(), ValidationError> {
    let (before, values) = before_and_after(new, per_broker, layers);
    let (mut errors_before, mut errors) = (Vec::new(), Vec::new());
    checks::consistency(&before, &mut errors_before);
    checks::consistency(&values, &mut errors);
    match errors.into_iter().find(|error| !errors_before.contains(error)) {
        None => Ok(()),
        Some(error) => invalid_request(format!("requirement failed: {error}")),
    }
}
