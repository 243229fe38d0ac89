//! What Ringlog makes of each key of `server.properties`.
//!
//! A key that only tunes something which Ringlog doesn't do, or does another way, is harmless: it's accepted with a
//! warning. A key by which an operator turns something on, or relies on something (access control, policies, quotas,
//! metrics, tiered storage), is refused until it works.

use crate::ConfigMap;
use crate::listener::{Listener, SecurityProtocol, parse_security_protocol_map};
use crate::registry;
use crate::server::{ConfigError, Values, Warning};
use crate::value::parse_value;

/// What Ringlog makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what Kafka does with it.
    Supported,
    /// It changes nothing, for this reason.
    Harmless(&'static str),
    /// Kafka does this with it, which Ringlog doesn't yet: only the default can stand.
    NotYet(&'static str),
}

const THREADS: Support = Support::Harmless("shards take the place of Kafka's thread pools");
const PURGATORY: Support = Support::Harmless("a request that waits is forgotten as soon as it is answered");
const SECURED: Support = Support::Harmless("no listener uses SSL or SASL");
const QUOTAS: Support = Support::Harmless("it only tunes quotas, which aren't enforced yet");
const TRANSACTIONS: Support = Support::Harmless("it only tunes transactions, which aren't there yet");
const CONSUMER_GROUPS: Support =
    Support::Harmless("it only tunes the consumer rebalance protocol, which isn't there yet");
const SHARE_GROUPS: Support = Support::Harmless("it only tunes share groups, which aren't there yet");
const STREAMS_GROUPS: Support = Support::Harmless("it only tunes streams groups, which aren't there yet");
const COMPACTION: Support = Support::Harmless("it only tunes log compaction, which isn't there yet");
const TIERED: Support = Support::Harmless("it only tunes tiered storage, which isn't there yet");
const TOKENS: Support = Support::Harmless("it only tunes delegation tokens, which aren't there yet");
const SOCKETS: Support = Support::Harmless("the system sizes the sockets by which followers fetch");
const QUEUES: Support = Support::Harmless("requests don't queue for a thread: their core has them when they are read");
const METRICS: Support = Support::Harmless("it only tunes Kafka's JMX metrics");

/// The first row that has the key, or with `*` at its end the key's beginning, decides. What no row has is supported.
const RULES: &[(Support, &[&str])] = &[
    (Support::NotYet("authorization"), &["authorizer.class.name"]),
    (Support::NotYet("a policy class"), &["alter.config.policy.class.name", "create.topic.policy.class.name"]),
    (Support::NotYet("a quota callback class"), &["client.quota.callback.class"]),
    (Support::NotYet("configuration providers"), &["config.providers"]),
    (Support::NotYet("metrics reporters"), &["metric.reporters", "kafka.metrics.reporters"]),
    (Support::NotYet("a principal builder class"), &["principal.builder.class"]),
    (Support::NotYet("a replica selector of one's own"), &["replica.selector.class"]),
    (Support::NotYet("tiered storage"), &["remote.log.storage.system.enable"]),
    (Support::NotYet("delegation tokens"), &["delegation.token.secret.key"]),
    (Support::NotYet("Java security providers"), &["security.providers"]),
    (Support::NotYet("two-phase commit transactions"), &["transaction.two.phase.commit.enable"]),
    (
        Support::NotYet("versions that aren't released"),
        &["unstable.api.versions.enable", "unstable.feature.versions.enable"],
    ),
    (Support::NotYet("log compaction"), &["log.cleanup.policy"]),
    (Support::NotYet("quotas of connections"), &["max.connection.creation.rate"]),
    (Support::NotYet("a share group persister class"), &["group.share.persister.class.name"]),
    (
        THREADS,
        &[
            "background.threads",
            "num.io.threads",
            "num.network.threads",
            "num.recovery.threads.per.data.dir",
            "num.replica.fetchers",
            "group.coordinator.threads",
            "group.coordinator.background.threads",
            "group.coordinator.cached.buffer.max.bytes",
            "share.coordinator.threads",
        ],
    ),
    (
        PURGATORY,
        &[
            "delete.records.purgatory.purge.interval.requests",
            "fetch.purgatory.purge.interval.requests",
            "producer.purgatory.purge.interval.requests",
            "share.fetch.purgatory.purge.interval.requests",
        ],
    ),
    (SECURED, &["ssl.*", "sasl.*", "connections.max.reauth.ms", "connection.failed.authentication.delay.ms"]),
    (QUOTAS, &["quota.window.*", "controller.quota.window.*"]),
    (TRANSACTIONS, &["add.partitions.to.txn.*", "transaction.*", "transactional.id.expiration.ms"]),
    (CONSUMER_GROUPS, &["group.consumer.*"]),
    (SHARE_GROUPS, &["group.share.*", "share.coordinator.*"]),
    (STREAMS_GROUPS, &["group.streams.*"]),
    (COMPACTION, &["log.cleaner.*"]),
    (TIERED, &["remote.*", "log.local.retention.*", "follower.fetch.last.tiered.offset.enable"]),
    (TOKENS, &["delegation.token.*"]),
    (SOCKETS, &["replica.socket.receive.buffer.bytes"]),
    (QUEUES, &["queued.max.requests"]),
    (Support::Harmless("lz4 packs in one way only"), &["compression.lz4.level"]),
    (
        Support::Harmless("controllers' listeners open before the metadata is there, brokers' after it"),
        &["early.start.listeners"],
    ),
    (
        Support::Harmless("what gathers while a batch is written makes the next one"),
        &["group.coordinator.append.linger.ms"],
    ),
    (Support::Harmless("only the classic protocol is there yet"), &["group.coordinator.rebalance.protocols"]),
    (Support::Harmless("logs of groups are read in pieces of a fixed size"), &["offsets.load.buffer.size"]),
    (
        Support::Harmless("the controller is told of a lost directory for as long as that takes"),
        &["log.dir.failure.timeout.ms"],
    ),
    (Support::Harmless("a start isn't given up for taking long"), &["server.max.startup.time.ms"]),
    (
        Support::Harmless("a request to another node has one limit, for its connection too"),
        &["socket.connection.setup.timeout.*"],
    ),
    (METRICS, &["metrics.*", "kafka.metrics.*", "controller.performance.*", "telemetry.max.bytes"]),
];

/// Kafka's own classes that Ringlog has in another form, by the key that names them.
const BUILT_IN: &[(&str, &str)] =
    &[("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")];

/// What Ringlog makes of `key`; none for a key that it doesn't know.
pub fn of(key: &str) -> Option<Support> {
    if registry::broker().get(key).is_none() && registry::ringlog().get(key).is_none() {
        return None;
    }
    Some(of_known(key))
}

/// As [`of`], for a key that is known.
pub(crate) fn of_known(key: &str) -> Support {
    let matches = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == *pattern,
    };
    let rule = RULES.iter().find(|(_, patterns)| patterns.iter().any(&matches));
    rule.map_or(Support::Supported, |(support, _)| *support)
}

/// The key without `listener.name.<name>.` (and a SASL mechanism), if it is given for one listener.
pub(crate) fn listener_base_key(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("listener.name.")?;
    let (_, base) = rest.split_once('.')?;
    let mechanism_keys = [
        "connections.max.reauth.ms",
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
    ];
    Some(mechanism_keys.into_iter().find(|key| base.ends_with(key)).unwrap_or(base))
}

/// Judges every key given: refused functions, keys without effect, unknown keys.
pub(crate) fn check(given: &ConfigMap, values: &Values, errors: &mut Vec<ConfigError>, warnings: &mut Vec<Warning>) {
    let mut unknown = Vec::new();
    for (key, text) in given {
        let base = listener_base_key(key).unwrap_or(key);
        let (Some(support), Some(definition)) =
            (of(base), registry::broker().get(base).or_else(|| registry::ringlog().get(base)))
        else {
            unknown.push(key.clone());
            continue;
        };
        let default = definition.default.value().and_then(|text| parse_value(definition, text).ok());
        let value = if base == key { values.value(key).cloned() } else { parse_value(definition, text).ok() };
        if value == default || BUILT_IN.contains(&(base, text.as_str())) {
            continue;
        }
        match support {
            Support::Supported => {}
            Support::Harmless(reason) => warnings.push(Warning::NoEffect { key: key.clone(), reason }),
            Support::NotYet(function) => errors.push(ConfigError::NotYet {
                key: key.clone(),
                value: if definition.sensitive { "[hidden]".to_owned() } else { text.clone() },
                function,
                default: definition.default.value().filter(|text| !text.is_empty()),
            }),
        }
    }
    if !unknown.is_empty() {
        warnings.push(Warning::UnknownKeys(unknown));
    }
}

/// Refuses listeners that Ringlog can't secure yet.
pub(crate) fn check_listeners(listeners: &[Listener], errors: &mut Vec<ConfigError>) {
    let of = |listener: &Listener| not_yet(listener.security_protocol, listener.to_string());
    errors.extend(listeners.iter().filter_map(of));
}

/// The same where the listeners as a whole make no sense.
pub(crate) fn check_listener_texts(values: &Values, errors: &mut Vec<ConfigError>) {
    let listeners = values.get::<Option<Vec<String>>>("listeners").unwrap_or_default();
    let protocols = parse_security_protocol_map(&values.get::<String>("listener.security.protocol.map"));
    let of = |text: &String| {
        let (name, _) = text.split_once("://")?;
        let mapped = protocols.as_ref().ok().and_then(|protocols| protocols.get(&name.to_ascii_uppercase()).copied());
        not_yet(mapped.or_else(|| SecurityProtocol::from_name(name))?, text.clone())
    };
    errors.extend(listeners.iter().filter_map(of));
}

fn not_yet(protocol: SecurityProtocol, listener: String) -> Option<ConfigError> {
    let function = match protocol {
        SecurityProtocol::Plaintext => return None,
        SecurityProtocol::Ssl => "TLS",
        SecurityProtocol::SaslPlaintext => "SASL",
        SecurityProtocol::SaslSsl => "TLS and SASL",
    };
    Some(ConfigError::ListenerNotYet { listener, function })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections;

    #[test]
    fn every_key_has_a_status_and_every_rule_a_key() {
        let keys: Vec<&str> = registry::broker().iter().chain(registry::ringlog().iter()).map(|d| d.name).collect();
        assert!(keys.iter().all(|key| of(key).is_some()));
        assert_eq!(of("no.such.key"), None);
        for pattern in RULES.iter().flat_map(|(_, patterns)| patterns.iter()) {
            let prefix = pattern.trim_end_matches('*');
            assert!(keys.iter().any(|key| key.starts_with(prefix)), "{pattern} matches no key");
        }
    }

    #[test]
    fn supported_keys_are_read_somewhere() {
        let elsewhere = [
            "advertised.listeners",
            "broker.id",
            "broker.rack",
            "controller.listener.names",
            "controller.quorum.bootstrap.servers",
            "controller.quorum.voters",
            "cordoned.log.dirs",
            "inter.broker.listener.name",
            "listener.security.protocol.map",
            "listeners",
            "log.dir",
            "log.dirs",
            "metadata.log.dir",
            "node.id",
            "process.roles",
            "security.inter.broker.protocol",
        ];
        let of_topics: Vec<&str> =
            registry::topic().iter().flat_map(|topic| topic.synonyms.iter().map(|synonym| synonym.name)).collect();
        for definition in registry::broker().iter().filter(|d| of(d.name) == Some(Support::Supported)) {
            let name = definition.name;
            let read = elsewhere.contains(&name)
                || of_topics.contains(&name)
                || sections::fields().any(|(key, _)| *key == name);
            assert!(read, "{name} counts as supported, but nothing reads it");
        }
    }

    #[test]
    fn listener_keys_are_traced_to_their_base() {
        assert_eq!(listener_base_key("listener.name.plaintext.max.connections"), Some("max.connections"));
        assert_eq!(listener_base_key("listener.name.s.scram-sha-256.sasl.jaas.config"), Some("sasl.jaas.config"));
        assert_eq!(listener_base_key("max.connections"), None);
        assert_eq!(listener_base_key("listener.name.x"), None);
    }
}
