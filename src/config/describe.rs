//! The entries of a DescribeConfigs answer. Callers leave out what wasn't asked for: entries by their name, synonyms
//! when the request didn't include them.

use crate::definition::{ConfigDef, ConfigSource, ConfigType, UpdateMode};
use crate::registry;
use crate::support::listener_base_key;
use crate::topic::broker_value;
use crate::value::parse_value;
use crate::{BrokerLayers, ConfigMap};

/// A value of a described key in one of the places it can come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key there.
    pub name: String,
    /// The value there; none for secrets.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
}

/// What DescribeConfigs says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntryDescription {
    /// The key.
    pub name: String,
    /// The value that holds; none for secrets and where nothing is set.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Whether that is Kafka's default (version 0 of the answer).
    pub is_default: bool,
    /// Whether only a restart can change it.
    pub read_only: bool,
    /// Whether it is a secret, or may be one because nobody knows the key.
    pub sensitive: bool,
    /// The type; none for a key that nobody knows.
    pub config_type: Option<ConfigType>,
    /// Every place that has a value, strongest first.
    pub synonyms: Vec<ConfigSynonym>,
    /// What the key does; none for keys that only a listener's prefix or nobody at all knows.
    pub documentation: Option<&'static str>,
}

impl ConfigEntryDescription {
    fn new(
        name: &str,
        value: Option<String>,
        definition: Option<&'static ConfigDef>,
        read_only: bool,
        synonyms: Vec<ConfigSynonym>,
    ) -> ConfigEntryDescription {
        let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
        let sensitive = definition.is_none_or(|definition| definition.sensitive);
        ConfigEntryDescription {
            name: name.to_owned(),
            value: value.filter(|_| !sensitive),
            source,
            is_default: source == ConfigSource::Default,
            read_only,
            sensitive,
            config_type: definition.map(|definition| definition.config_type),
            synonyms,
            documentation: definition.and_then(|definition| documentation_of(name, definition)),
        }
    }

    /// The code of [`Self::config_type`] on the wire.
    pub fn type_code(&self) -> i8 {
        self.config_type.map_or(0, ConfigType::code)
    }
}

/// The text about a key; as in Kafka, a key with a listener's prefix has none.
fn documentation_of(name: &str, definition: &'static ConfigDef) -> Option<&'static str> {
    let has_one = definition.name == name && !definition.documentation.is_empty();
    has_one.then_some(definition.documentation.as_str())
}

/// All places that have a value for one of `names`, strongest place first. As in Kafka, what comes before the first
/// occurrence of `name` itself is left out.
fn places(name: &str, names: &[&str], sensitive: bool, layers: &BrokerLayers<'_>) -> Vec<ConfigSynonym> {
    let mut synonyms = Vec::new();
    let mut add = |name: &str, text: &str, source| {
        let value = (!sensitive).then(|| text.to_owned());
        synonyms.push(ConfigSynonym { name: name.to_owned(), value, source });
    };
    for (layer, source) in [
        (layers.per_broker, ConfigSource::DynamicBroker),
        (layers.cluster_default, ConfigSource::DynamicDefaultBroker),
        (layers.static_config, ConfigSource::StaticBroker),
    ] {
        for name in names {
            if let Some(text) = layer.get(*name) {
                add(name, text, source);
            }
        }
    }
    for name in names {
        // Keys that are only dynamic have no place among the static defaults.
        let definition = registry::broker().get(name).or_else(|| registry::ringlog().get(name));
        if let Some(text) = definition.and_then(|definition| definition.default.value()) {
            add(name, text, ConfigSource::Default);
        }
    }
    let first = synonyms.iter().position(|synonym| synonym.name == name).unwrap_or(synonyms.len());
    synonyms.split_off(first)
}

/// The places of the broker keys that stand in for a topic's or group's key.
fn broker_places(definition: &ConfigDef, layers: &BrokerLayers<'_>) -> Option<Vec<ConfigSynonym>> {
    let names: Vec<&str> = definition.synonyms.iter().map(|synonym| synonym.name).collect();
    let first = names.first()?;
    Some(places(first, &names, definition.sensitive, layers))
}

/// A topic with these overrides, on a broker with these layers.
pub fn topic(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> Vec<ConfigEntryDescription> {
    let mut entries = Vec::new();
    for definition in registry::topic().iter() {
        let text = overrides.get(definition.name);
        if definition.internal && text.is_none() {
            continue;
        }
        let own = text.and_then(|text| parse_value(definition, text).ok());
        let value = own.clone().or_else(|| broker_value(definition, layers)).map(|value| value.to_string());
        let value = value.or_else(|| definition.default.value().map(str::to_owned));
        let mut synonyms = broker_places(definition, layers).unwrap_or_default();
        if own.is_some() {
            let source = ConfigSource::DynamicTopic;
            synonyms.insert(0, ConfigSynonym { name: definition.name.to_owned(), value: value.clone(), source });
        }
        entries.push(ConfigEntryDescription::new(definition.name, value, Some(definition), false, synonyms));
    }
    entries
}

/// A broker (or a controller, by its node id) with these layers.
pub fn broker(layers: &BrokerLayers<'_>) -> Vec<ConfigEntryDescription> {
    let merged = layers.merged();
    let mut entries: Vec<ConfigEntryDescription> = registry::broker()
        .iter()
        .filter(|definition| !definition.internal || merged.contains_key(definition.name))
        .map(|definition| {
            let given = merged.get(definition.name).and_then(|text| parse_value(definition, text).ok());
            let value = given.map(|value| value.to_string());
            broker_entry(definition.name, value.or_else(|| definition.default.value().map(str::to_owned)), layers)
        })
        .collect();
    let others = merged.iter().filter(|(key, _)| registry::broker().get(key).is_none());
    entries.extend(others.map(|(key, text)| broker_entry(key, Some(text.clone()), layers)));
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    entries
}

/// The cluster's default for brokers: what is dynamically set there and nothing else.
pub fn broker_default(cluster_default: &ConfigMap) -> Vec<ConfigEntryDescription> {
    let layers = BrokerLayers { per_broker: &crate::EMPTY, cluster_default, static_config: &crate::EMPTY };
    let only_there = |mut entry: ConfigEntryDescription| {
        entry.synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        entry.source = entry.synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
        entry
    };
    cluster_default.iter().map(|(key, text)| only_there(broker_entry(key, Some(text.clone()), &layers))).collect()
}

fn broker_definition(key: &str) -> Option<&'static ConfigDef> {
    registry::broker()
        .get(key)
        .or_else(|| registry::broker_dynamic_only().get(key))
        .or_else(|| registry::ringlog().get(key))
}

fn broker_entry(name: &str, value: Option<String>, layers: &BrokerLayers<'_>) -> ConfigEntryDescription {
    let own = broker_definition(name);
    let base = listener_base_key(name);
    let definition = own.or_else(|| broker_definition(base?));
    let sensitive = definition.is_none_or(|definition| definition.sensitive);
    let read_only = own.is_none_or(|definition| definition.update_mode == UpdateMode::ReadOnly);
    let names: Vec<&str> = match own {
        Some(definition) if !definition.synonyms.is_empty() => {
            definition.synonyms.iter().map(|synonym| synonym.name).collect()
        }
        _ => std::iter::once(name).chain(base).collect(),
    };
    let synonyms = places(name, &names, sensitive, layers);
    ConfigEntryDescription::new(name, value, definition, read_only, synonyms)
}

/// A group with these overrides, on a broker with these layers.
pub fn group(overrides: &ConfigMap, layers: &BrokerLayers<'_>) -> Vec<ConfigEntryDescription> {
    let mut entries = Vec::new();
    for definition in registry::group().iter() {
        let own = overrides.get(definition.name).and_then(|text| parse_value(definition, text).ok());
        let value = own.clone().or_else(|| broker_value(definition, layers)).map(|value| value.to_string());
        let value = value.or_else(|| definition.default.value().map(str::to_owned));
        let mut synonyms = broker_places(definition, layers).unwrap_or_else(|| {
            let (name, source) = (definition.name.to_owned(), ConfigSource::Default);
            vec![ConfigSynonym { name, value: definition.default.value().map(str::to_owned), source }]
        });
        if own.is_some() {
            let source = ConfigSource::DynamicGroup;
            synonyms.insert(0, ConfigSynonym { name: definition.name.to_owned(), value: value.clone(), source });
        }
        entries.push(ConfigEntryDescription::new(definition.name, value, Some(definition), false, synonyms));
    }
    entries
}

/// A client metrics subscription with these overrides.
pub fn client_metrics(overrides: &ConfigMap) -> Vec<ConfigEntryDescription> {
    let entry = |definition: &'static ConfigDef| {
        let own = overrides.get(definition.name).and_then(|text| parse_value(definition, text).ok());
        let value = own.as_ref().map(ToString::to_string);
        let source = ConfigSource::DynamicClientMetrics;
        let synonym = ConfigSynonym { name: definition.name.to_owned(), value: value.clone(), source };
        let synonyms = if own.is_some() { vec![synonym] } else { Vec::new() };
        let value = value.or_else(|| definition.default.value().map(str::to_owned));
        ConfigEntryDescription::new(definition.name, value, Some(definition), false, synonyms)
    };
    registry::client_metrics().iter().map(entry).collect()
}
