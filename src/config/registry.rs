//! The keys of each kind of resource, read once from the tables in `data/`.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use crate::definition::{
    BrokerSynonym, ConfigDef, ConfigDefault, ConfigType, Importance, TimeUnit, UpdateMode, Validator,
};
use crate::support::{self, Support};

/// The keys of one kind of resource.
#[derive(Debug)]
pub struct Registry {
    /// In order of name.
    definitions: Vec<ConfigDef>,
    by_name: FxHashMap<&'static str, usize>,
}

impl Registry {
    /// Of these keys and the texts about them.
    fn new(mut definitions: Vec<ConfigDef>, documentation: &'static str) -> Registry {
        let mut texts: FxHashMap<_, _> = documentation.lines().skip(1).filter_map(|row| row.split_once('\t')).collect();
        for definition in &mut definitions {
            definition.documentation.insert_str(0, texts.remove(definition.name).unwrap_or_default());
        }
        assert!(texts.is_empty(), "texts about keys that aren't there: {texts:?}");
        definitions.sort_by_key(|definition| definition.name);
        let by_name: FxHashMap<_, _> =
            definitions.iter().enumerate().map(|(index, definition)| (definition.name, index)).collect();
        assert_eq!(by_name.len(), definitions.len(), "a key occurs twice in a table");
        Registry { definitions, by_name }
    }

    /// What is known about `key`.
    pub fn get(&self, key: &str) -> Option<&ConfigDef> {
        self.by_name.get(key).and_then(|&index| self.definitions.get(index))
    }

    /// Every key, in order of name.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigDef> {
        self.definitions.iter()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.definitions.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }
}

/// The keys of `server.properties`.
pub fn broker() -> &'static Registry {
    static BROKER: LazyLock<Registry> = LazyLock::new(|| {
        let rows = rows(include_str!("data/broker-configs.tsv"));
        let definitions = rows.map(|row| with_status(broker_definition(&row)));
        Registry::new(definitions.collect(), include_str!("data/documentation/broker.tsv"))
    });
    &BROKER
}

/// Broker keys that exist only as dynamic configuration: the replication throttles.
pub fn broker_dynamic_only() -> &'static Registry {
    static DYNAMIC: LazyLock<Registry> = LazyLock::new(|| {
        let rows = rows(include_str!("data/broker-dynamic-only-configs.tsv"));
        // As in Kafka, DescribeConfigs has no texts about these.
        Registry::new(rows.map(|row| broker_definition(&row)).collect(), "")
    });
    &DYNAMIC
}

/// Ringlog's own keys of `server.properties`.
pub fn ringlog() -> &'static Registry {
    static RINGLOG: LazyLock<Registry> = LazyLock::new(|| {
        let rows = rows(include_str!("data/ringlog-configs.tsv"));
        let definitions = rows.map(|row| broker_definition(&row));
        Registry::new(definitions.collect(), include_str!("data/documentation/ringlog.tsv"))
    });
    &RINGLOG
}

/// The keys of a topic.
pub fn topic() -> &'static Registry {
    static TOPIC: LazyLock<Registry> = LazyLock::new(|| {
        let rows = rows(include_str!("data/topic-configs.tsv"));
        let definition = |row: Row| ConfigDef {
            synonyms: synonyms(row.text("broker_synonyms_in_order")),
            internal: row.text("internal") == "true",
            ..row.definition()
        };
        Registry::new(rows.map(definition).collect(), include_str!("data/documentation/topic.tsv"))
    });
    &TOPIC
}

/// The keys of a group.
pub fn group() -> &'static Registry {
    static GROUP: LazyLock<Registry> = LazyLock::new(|| {
        let bound = |text: &'static str| text.split_once('=').map(|(key, _)| key);
        let definition = |row: Row| {
            let synonym = row.text("broker_synonym");
            let mut definition = ConfigDef {
                synonyms: if synonym == "none" { Vec::new() } else { synonyms(synonym) },
                lower_bound: bound(row.text("broker_min")),
                upper_bound: bound(row.text("broker_max")),
                ..row.definition()
            };
            if definition.name == "streams.num.standby.replicas" {
                definition.upper_bound = Some("group.streams.max.standby.replicas");
            }
            definition
        };
        let definitions = rows(include_str!("data/group-configs.tsv")).map(definition);
        Registry::new(definitions.collect(), include_str!("data/documentation/group.tsv"))
    });
    &GROUP
}

/// The keys of a client metrics subscription.
pub fn client_metrics() -> &'static Registry {
    static CLIENT_METRICS: LazyLock<Registry> = LazyLock::new(|| {
        let rows = rows(include_str!("data/client-metrics-configs.tsv"));
        let definitions = rows.map(|row| row.definition());
        Registry::new(definitions.collect(), include_str!("data/documentation/client-metrics.tsv"))
    });
    &CLIENT_METRICS
}

/// The quotas of users and client ids.
pub fn quota() -> &'static Registry {
    static QUOTA: LazyLock<Registry> = LazyLock::new(|| quota_of("user / client-id / user+client-id"));
    &QUOTA
}

/// The quotas of client addresses.
pub fn ip_quota() -> &'static Registry {
    static QUOTA: LazyLock<Registry> = LazyLock::new(|| quota_of("ip"));
    &QUOTA
}

fn quota_of(entity: &str) -> Registry {
    let rows = rows(include_str!("data/quota-configs.tsv"));
    // Quotas aren't described with texts.
    Registry::new(rows.filter(|row| row.text("entity") == entity).map(|row| row.definition()).collect(), "")
}

/// One line of a table, by the names in its first line.
struct Row {
    names: Vec<&'static str>,
    cells: Vec<&'static str>,
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    let mut lines = table.lines();
    let names: Vec<&'static str> = lines.next().unwrap_or_default().split('\t').collect();
    lines.map(move |line| Row { names: names.clone(), cells: line.split('\t').collect() })
}

impl Row {
    fn text(&self, column: &str) -> &'static str {
        let index = self.names.iter().position(|name| *name == column);
        index.and_then(|index| self.cells.get(index)).copied().unwrap_or_default()
    }

    fn definition(&self) -> ConfigDef {
        let name = if self.names.contains(&"name") { self.text("name") } else { self.text("key") };
        let config_type = ConfigType::from_name(self.text("type")).expect("the tables name known types");
        ConfigDef {
            name,
            config_type,
            default: match self.text("default") {
                "(required)" => ConfigDefault::Required,
                "null" => ConfigDefault::Null,
                "\"\"" => ConfigDefault::Value(""),
                value => ConfigDefault::Value(value),
            },
            validator: validator(name, config_type, self.text("valid")),
            importance: match self.text("importance") {
                "high" => Importance::High,
                "low" => Importance::Low,
                _ => Importance::Medium,
            },
            update_mode: UpdateMode::ClusterWide,
            synonyms: Vec::new(),
            sensitive: config_type == ConfigType::Password,
            internal: false,
            listener_prefix: false,
            lower_bound: None,
            upper_bound: None,
            documentation: String::new(),
        }
    }
}

/// Says after the text what isn't honoured.
fn with_status(definition: ConfigDef) -> ConfigDef {
    let documentation = match support::of_known(definition.name) {
        Support::Supported => String::new(),
        Support::Harmless(reason) => format!(" No effect here: {reason}."),
        Support::NotYet(function) => {
            format!(" Ringlog refuses any other value than the default: it doesn't have {function} yet.")
        }
    };
    ConfigDef { documentation, ..definition }
}

fn broker_definition(row: &Row) -> ConfigDef {
    ConfigDef {
        update_mode: match row.text("update_mode") {
            "cluster-wide" => UpdateMode::ClusterWide,
            "per-broker" => UpdateMode::PerBroker,
            _ => UpdateMode::ReadOnly,
        },
        synonyms: synonyms(row.text("synonyms")),
        sensitive: row.text("sensitive") == "true",
        internal: row.text("internal") == "true",
        listener_prefix: row.text("listener_prefix").starts_with("listener"),
        ..row.definition()
    }
}

fn synonyms(cell: &'static str) -> Vec<BrokerSynonym> {
    let synonym = |text: &'static str| match text.split_once('(') {
        None => BrokerSynonym { name: text, unit: TimeUnit::Same },
        Some((name, "minutes)")) => BrokerSynonym { name, unit: TimeUnit::Minutes },
        Some((name, _)) => BrokerSynonym { name, unit: TimeUnit::Hours },
    };
    cell.split(',').filter(|text| !text.is_empty()).map(synonym).collect()
}

/// Keys of type list whose rule the tables don't print: these must not be empty.
const NON_EMPTY_LISTS: [&str; 7] = [
    "advertised.listeners",
    "controller.listener.names",
    "group.consumer.assignors",
    "group.share.assignors",
    "listeners",
    "log.dir",
    "log.dirs",
];

fn validator(name: &str, config_type: ConfigType, cell: &'static str) -> Validator {
    match (name, cell) {
        ("controller.quorum.voters", _) => return Validator::QuorumVoters,
        ("controller.quorum.bootstrap.servers", _) => return Validator::BootstrapServers,
        ("share.auto.offset.reset", _) => return Validator::ShareAutoOffsetReset,
        (_, "non-empty string") => return Validator::NonEmptyString,
        (_, "non-null string") => return Validator::NonNullString,
        (_, "[1,...,9] or -1") => return Validator::GzipLevel,
        (_, "[partitionId]:[brokerId],[partitionId]:[brokerId],...") => return Validator::ThrottledReplicas,
        _ => {}
    }
    let inside = |text: &'static str| text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let one_of = |text: &'static str| inside(text).map(|text| text.split(", ").collect::<Vec<_>>());
    if config_type == ConfigType::List {
        let of = one_of(cell).unwrap_or_default();
        let empty_allowed = match name {
            "process.roles" | "group.coordinator.rebalance.protocols" => false,
            _ => !NON_EMPTY_LISTS.contains(&name),
        };
        return Validator::ValidList { of, empty_allowed };
    }
    if let Some(list) = cell.strip_prefix("(case insensitive) ").and_then(one_of) {
        return Validator::OneOfIgnoringCase(list);
    }
    let Some(inner) = inside(cell) else { return Validator::Any };
    match inner.split_once(",...") {
        Some((min_text, rest)) => {
            let max_text = rest.strip_prefix(',');
            let number = |text: &str| text.parse::<f64>().expect("the tables bound numbers by numbers");
            Validator::Range { min: number(min_text), max: max_text.map(number), min_text, max_text }
        }
        None => Validator::OneOf(inner.split(", ").collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_value;

    fn all() -> Vec<&'static Registry> {
        vec![broker(), broker_dynamic_only(), ringlog(), topic(), group(), client_metrics(), quota(), ip_quota()]
    }

    #[test]
    fn tables_are_complete() {
        let sizes: Vec<_> = all().into_iter().map(Registry::len).collect();
        assert_eq!(sizes, [360, 3, 7, 34, 17, 3, 4, 1]);
    }

    #[test]
    fn every_default_parses_and_keeps_its_own_rule() {
        for definition in all().into_iter().flat_map(Registry::iter) {
            if let ConfigDefault::Value(default) = definition.default {
                parse_value(definition, default).unwrap_or_else(|error| panic!("{}: {error}", definition.name));
            }
        }
    }

    #[test]
    fn every_key_has_a_text_of_its_own() {
        let mut seen: FxHashMap<String, &str> = FxHashMap::default();
        for registry in [broker(), ringlog(), topic(), group(), client_metrics()] {
            seen.clear();
            for definition in registry.iter() {
                let (name, text) = (definition.name, definition.documentation.as_str());
                assert!(text.len() > 30 && text.len() < 500 && text.ends_with('.'), "{name}: {text}");
                let letters = |text: &str| text.chars().all(|letter| !letter.is_control());
                assert!(letters(text) && text.trim() == text && !text.contains("  "), "{name}: {text}");
                let unit = [("ms", "millisecond"), ("minutes", "minute"), ("hours", "hour"), ("seconds", "second")];
                let unit = unit.into_iter().find(|(end, _)| name.rsplit('.').next() == Some(end));
                assert!(unit.is_none_or(|(_, unit)| text.contains(unit)), "{name} doesn't say its unit: {text}");
                let taken = seen.insert(text.to_owned(), name);
                assert_eq!(taken, None, "{name} has another key's text");
            }
        }
        for definition in [broker_dynamic_only(), quota()].into_iter().flat_map(Registry::iter) {
            assert_eq!(definition.documentation, "", "{}", definition.name);
        }
    }

    #[test]
    fn texts_say_what_is_not_honoured() {
        let text = |key: &str| broker().get(key).map(|definition| definition.documentation.as_str());
        let threads =
            "How many threads process requests. No effect here: shards take the place of Kafka's thread pools.";
        assert_eq!(text("num.io.threads"), Some(threads));
        let authorizer = "The Java class that decides who may do what; with none everybody may do everything. Ringlog \
                          refuses any other value than the default: it doesn't have authorization yet.";
        assert_eq!(text("authorizer.class.name"), Some(authorizer));
    }

    #[test]
    fn synonyms_name_broker_keys() {
        for definition in [broker(), topic(), group()].into_iter().flat_map(Registry::iter) {
            let bounds = [definition.lower_bound, definition.upper_bound].into_iter().flatten();
            for name in definition.synonyms.iter().map(|synonym| synonym.name).chain(bounds) {
                assert!(broker().get(name).is_some(), "{name}, synonym or bound of {}", definition.name);
            }
        }
        let retention = &topic().get("retention.ms").expect("a topic key").synonyms;
        let units: Vec<_> = retention.iter().map(|synonym| synonym.unit).collect();
        assert_eq!(units, [TimeUnit::Same, TimeUnit::Minutes, TimeUnit::Hours]);
    }
}
