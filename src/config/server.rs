//! A node's static configuration: `server.properties` checked key by key and across keys, and typed.

use ringlog_types::NodeId;
use rustc_hash::FxHashMap;

use crate::checks;
use crate::definition::ConfigDefault;
use crate::listener::{Listener, SecurityProtocol, Voter};
use crate::registry;
use crate::sections::{
    ConsumerGroupConfig, ControllerConfig, GroupCoordinatorConfig, LogConfig, MetadataLogConfig, NetworkConfig,
    QuorumConfig, QuotaConfig, ReplicaConfig, RinglogConfig, ShareGroupConfig, StreamsGroupConfig, TopicDefaults,
    TransactionConfig,
};
use crate::support;
use crate::throttles::ThrottleRates;
use crate::value::{ConfigValue, InvalidValue, parse_value};
use crate::{BrokerLayers, ConfigMap};

/// Why a node can't start with a configuration. Displayed, it is a sentence that names the key, in Kafka's words where
/// Kafka has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key without a default isn't given.
    #[error("Missing required configuration \"{0}\" which has no default value.")]
    Missing(&'static str),
    /// A value breaks its key's rule.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// Keys contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// Kafka does something with this key that Ringlog can't do yet.
    #[error("{key}={value} asks for {function}, which Ringlog doesn't have yet. Remove the key or set its default{}.",
        .default.map(|default| format!(" ({default})")).unwrap_or_default())]
    NotYet {
        /// The key.
        key: String,
        /// The value as written; hidden for secrets.
        value: String,
        /// What it would do.
        function: &'static str,
        /// The value that can stand.
        default: Option<&'static str>,
    },
    /// A listener that Ringlog can't secure yet.
    #[error(
        "listeners={listener} asks for {function}, which Ringlog doesn't have yet: it serves PLAINTEXT listeners only, for \
         networks that are trusted."
    )]
    ListenerNotYet {
        /// As written.
        listener: String,
        /// What would secure it.
        function: &'static str,
    },
}

/// Something in a configuration that doesn't stop the node but that its operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Keys that neither Kafka nor Ringlog knows.
    UnknownKeys(Vec<String>),
    /// A key that changes nothing here.
    NoEffect {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// Values that work against each other.
    Unwise(String),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::UnknownKeys(keys) => {
                write!(f, "These configurations '[{}]' were supplied but are not used yet.", keys.join(", "))
            }
            Warning::NoEffect { key, reason } => write!(f, "{key} has no effect: {reason}."),
            Warning::Unwise(text) => f.write_str(text),
        }
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRoles {
    /// Serves clients.
    pub broker: bool,
    /// Votes in the metadata quorum, or waits to.
    pub controller: bool,
}

/// A node's static configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// `node.id`.
    pub node_id: NodeId,
    /// `process.roles`.
    pub roles: ProcessRoles,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `log.dirs`, else `log.dir`. Never empty.
    pub log_dirs: Vec<String>,
    /// `metadata.log.dir`, else the first of [`Self::log_dirs`].
    pub metadata_log_dir: String,
    /// `cordoned.log.dirs`; `*` stands for all.
    pub cordoned_log_dirs: Vec<String>,
    /// Everything in `listeners`, controller listeners included.
    pub listeners: Vec<Listener>,
    /// What the broker registers: `advertised.listeners` or else [`Self::listeners`], without controller listeners. An
    /// empty host stands for the machine's host name, which the caller looks up.
    pub advertised_listeners: Vec<Listener>,
    /// What the controller registers, by the same rule.
    pub advertised_controller_listeners: Vec<Listener>,
    /// `controller.listener.names`. The first is the one that this node calls controllers by.
    pub controller_listener_names: Vec<String>,
    /// The listener by which brokers talk to each other.
    pub inter_broker_listener_name: String,
    /// `listener.security.protocol.map`, controller listeners included.
    pub security_protocols: FxHashMap<String, SecurityProtocol>,
    /// `early.start.listeners`, else the controller's.
    pub early_start_listeners: Vec<String>,
    /// `controller.quorum.voters`; empty for a dynamic quorum.
    pub quorum_voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers`, (host, port) each.
    pub quorum_bootstrap_servers: Vec<(String, u16)>,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// New topics.
    pub topics: TopicDefaults,
    /// The node's own handling of logs.
    pub log: LogConfig,
    /// Replication.
    pub replica: ReplicaConfig,
    /// Classic groups and offsets.
    pub group: GroupCoordinatorConfig,
    /// Consumer groups.
    pub consumer_group: ConsumerGroupConfig,
    /// Share groups.
    pub share_group: ShareGroupConfig,
    /// Streams groups.
    pub streams_group: StreamsGroupConfig,
    /// Transactions.
    pub transaction: TransactionConfig,
    /// The controller.
    pub controller: ControllerConfig,
    /// The metadata quorum.
    pub quorum: QuorumConfig,
    /// The metadata log on disk.
    pub metadata_log: MetadataLogConfig,
    /// Quota windows.
    pub quota: QuotaConfig,
    /// Rates of replication: dynamic only.
    pub throttle_rates: ThrottleRates,
    /// Ringlog's own keys.
    pub ringlog: RinglogConfig,
    /// Everything given, as text, for DescribeConfigs and [`crate::TopicConfig`]. As in Kafka, `node.id` and
    /// `broker.id` are both there when one is.
    pub properties: ConfigMap,
}

impl ServerConfig {
    /// Checks a configuration and types it. All that is wrong is reported, not only the first.
    pub fn from_properties(given: &ConfigMap) -> Result<(ServerConfig, Vec<Warning>), Vec<ConfigError>> {
        let mut properties = given.clone();
        for (key, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
            if let (None, Some(id)) = (given.get(key), given.get(other)) {
                properties.insert(key.to_owned(), id.clone());
            }
        }
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        let values = Values::parse(&properties, &mut errors);
        // Roles and listeners make no sense with a default in the place of a value that was refused.
        let endpoints = if errors.is_empty() { Some(checks::endpoints(&properties, &values)) } else { None };
        checks::consistency(&values, &mut errors);
        support::check(&properties, &values, &mut errors, &mut warnings);
        let endpoints = match endpoints {
            Some(Ok(endpoints)) => endpoints,
            Some(Err(error)) => {
                // Often a consequence: with TLS or SASL in play Kafka wants more of the other keys.
                support::check_listener_texts(&values, &mut errors);
                errors.push(error);
                return Err(errors);
            }
            None => return Err(errors),
        };
        checks::warn(&values, &endpoints, &mut warnings);
        support::check_listeners(&endpoints.listeners, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let config = ServerConfig::from_values(&values, endpoints, properties);
        Ok((config, warnings))
    }

    /// A single node, broker and controller, that keeps its data in `data_dir` and serves `localhost:port`, its
    /// controller the port above. Internal topics have one replica.
    pub fn dev(data_dir: &str, port: u16) -> ServerConfig {
        let controller_port = port.checked_add(1).unwrap_or(port - 1);
        let listeners = format!("PLAINTEXT://localhost:{port},CONTROLLER://localhost:{controller_port}");
        let voters = format!("1@localhost:{controller_port}");
        let entries = [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("listeners", listeners.as_str()),
            ("advertised.listeners", &format!("PLAINTEXT://localhost:{port}")),
            ("controller.listener.names", "CONTROLLER"),
            ("controller.quorum.voters", voters.as_str()),
            ("offsets.topic.replication.factor", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("share.coordinator.state.topic.replication.factor", "1"),
            ("share.coordinator.state.topic.min.isr", "1"),
            ("group.initial.rebalance.delay.ms", "0"),
            // Whoever develops has other uses for his memory.
            ("ringlog.cache.memory.bytes", "67108864"),
        ];
        let mut map: ConfigMap = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        // A list key: a comma in the path would make two directories of it.
        map.insert("log.dirs".to_owned(), "placeholder".to_owned());
        let (mut config, _) = ServerConfig::from_properties(&map).expect("the built-in configuration is valid");
        config.log_dirs = vec![data_dir.to_owned()];
        config.metadata_log_dir = data_dir.to_owned();
        config.properties.insert("log.dirs".to_owned(), data_dir.to_owned());
        config
    }

    /// This configuration with dynamic ones on top: only what can change while the node runs, which is not the
    /// listeners, directories or quorum. Dynamic values that don't parse count as not set.
    pub fn with_dynamic(&self, per_broker: &ConfigMap, cluster_default: &ConfigMap) -> ServerConfig {
        let throttle_rates = ThrottleRates::of(per_broker, cluster_default);
        let dynamic = |layer: &ConfigMap| -> ConfigMap {
            let can_change =
                |key: &str| registry::broker().get(key).is_some_and(|d| d.update_mode != crate::UpdateMode::ReadOnly);
            layer.iter().filter(|(key, _)| can_change(key)).map(|(key, text)| (key.clone(), text.clone())).collect()
        };
        let (per_broker, cluster_default) = (dynamic(per_broker), dynamic(cluster_default));
        let layers = BrokerLayers {
            per_broker: &per_broker,
            cluster_default: &cluster_default,
            static_config: &self.properties,
        };
        let values = Values::parse_lenient(&layers);
        let mut config = self.clone();
        config.set_sections(&values);
        config.throttle_rates = throttle_rates;
        config.cordoned_log_dirs = cordoned_log_dirs(&values);
        config
    }

    /// The layers that decide broker and topic configuration on this node.
    pub fn layers<'a>(&'a self, per_broker: &'a ConfigMap, cluster_default: &'a ConfigMap) -> BrokerLayers<'a> {
        BrokerLayers { per_broker, cluster_default, static_config: &self.properties }
    }

    /// Listeners that serve clients and brokers.
    pub fn broker_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| !self.is_controller_listener(&listener.name))
    }

    /// Listeners that serve the controller's peers.
    pub fn controller_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| self.is_controller_listener(&listener.name))
    }

    /// Whether a listener of that name is the controller's.
    pub fn is_controller_listener(&self, name: &str) -> bool {
        self.controller_listener_names.iter().any(|one| one == name)
    }

    /// What is given for `key` on one listener: `listener.name.<listener>.<key>`, else `<key>`.
    pub fn listener_value(&self, listener: &str, key: &str) -> Option<&str> {
        let own = format!("listener.name.{}.{key}", listener.to_ascii_lowercase());
        self.properties.get(&own).or_else(|| self.properties.get(key)).map(String::as_str)
    }

    fn from_values(values: &Values, endpoints: checks::Endpoints, properties: ConfigMap) -> ServerConfig {
        let roles: Vec<String> = values.get("process.roles");
        let has_role = |role: &str| roles.iter().any(|one| one == role);
        let log_dirs = values.log_dirs();
        let metadata_log_dir: Option<String> = values.get("metadata.log.dir");
        ServerConfig {
            node_id: NodeId(values.get("node.id")),
            roles: ProcessRoles { broker: has_role("broker"), controller: has_role("controller") },
            rack: values.get("broker.rack"),
            metadata_log_dir: metadata_log_dir.or_else(|| log_dirs.first().cloned()).expect("log.dir has a default"),
            log_dirs,
            cordoned_log_dirs: cordoned_log_dirs(values),
            listeners: endpoints.listeners,
            advertised_listeners: endpoints.advertised,
            advertised_controller_listeners: endpoints.advertised_controller,
            controller_listener_names: endpoints.controller_names,
            inter_broker_listener_name: endpoints.inter_broker_name,
            security_protocols: endpoints.protocols,
            early_start_listeners: endpoints.early_start,
            quorum_voters: endpoints.voters,
            quorum_bootstrap_servers: endpoints.bootstrap_servers,
            network: NetworkConfig::from_values(values),
            topics: TopicDefaults::from_values(values),
            log: LogConfig::from_values(values),
            replica: ReplicaConfig::from_values(values),
            group: GroupCoordinatorConfig::from_values(values),
            consumer_group: ConsumerGroupConfig::from_values(values),
            share_group: ShareGroupConfig::from_values(values),
            streams_group: StreamsGroupConfig::from_values(values),
            transaction: TransactionConfig::from_values(values),
            controller: ControllerConfig::from_values(values),
            quorum: QuorumConfig::from_values(values),
            metadata_log: MetadataLogConfig::from_values(values),
            quota: QuotaConfig::from_values(values),
            throttle_rates: ThrottleRates::default(),
            ringlog: RinglogConfig::from_values(values),
            properties,
        }
    }

    fn set_sections(&mut self, values: &Values) {
        self.network = NetworkConfig::from_values(values);
        self.topics = TopicDefaults::from_values(values);
        self.log = LogConfig::from_values(values);
        self.replica = ReplicaConfig::from_values(values);
        self.group = GroupCoordinatorConfig::from_values(values);
        self.consumer_group = ConsumerGroupConfig::from_values(values);
        self.share_group = ShareGroupConfig::from_values(values);
        self.streams_group = StreamsGroupConfig::from_values(values);
        self.transaction = TransactionConfig::from_values(values);
        self.controller = ControllerConfig::from_values(values);
    }
}

/// The value of every known key: as given, else the default, else nothing.
pub(crate) struct Values {
    values: FxHashMap<&'static str, ConfigValue>,
}

impl Values {
    /// Parses what is given and puts defaults in for the rest. Where a value is refused its default stands, so that
    /// later checks can go on.
    pub(crate) fn parse(given: &ConfigMap, errors: &mut Vec<ConfigError>) -> Values {
        let mut values = FxHashMap::default();
        for definition in registry::broker().iter().chain(registry::ringlog().iter()) {
            let text = given.get(definition.name);
            let refused = text.and_then(|text| match parse_value(definition, text) {
                Ok(value) => {
                    values.insert(definition.name, value);
                    None
                }
                Err(error) => Some(error),
            });
            if let (Some(text), true) = (definition.default.value(), text.is_none() || refused.is_some())
                && let Ok(value) = parse_value(definition, text)
            {
                values.insert(definition.name, value);
            }
            if text.is_none() && definition.default == ConfigDefault::Required {
                errors.push(ConfigError::Missing(definition.name));
            }
            errors.extend(refused.map(ConfigError::from));
        }
        Values { values }
    }

    fn parse_lenient(layers: &BrokerLayers<'_>) -> Values {
        let mut values = FxHashMap::default();
        for definition in registry::broker().iter().chain(registry::ringlog().iter()) {
            let stored = [layers.per_broker, layers.cluster_default, layers.static_config];
            let texts = stored.into_iter().filter_map(|layer| layer.get(definition.name)).map(String::as_str);
            let value = texts.chain(definition.default.value()).find_map(|text| parse_value(definition, text).ok());
            if let Some(value) = value {
                values.insert(definition.name, value);
            }
        }
        Values { values }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&ConfigValue> {
        self.values.get(key)
    }

    /// The value of a key that always has one of type `T`; anything else is a mistake in this crate.
    pub(crate) fn get<T: FromValue>(&self, key: &str) -> T {
        T::from_value(self.values.get(key)).unwrap_or_else(|| panic!("{key} has no value of the type asked for"))
    }

    pub(crate) fn log_dirs(&self) -> Vec<String> {
        let dirs: Option<Vec<String>> = self.get("log.dirs");
        dirs.unwrap_or_else(|| self.get("log.dir"))
    }
}

/// A Rust type that a value can be read as.
pub(crate) trait FromValue: Sized {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self>;
}

macro_rules! from_integer {
    ($($type:ty),+) => {$(
        impl FromValue for $type {
            fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
                match value? {
                    ConfigValue::Integer(number) => <$type>::try_from(*number).ok(),
                    _ => None,
                }
            }
        }
    )+};
}

from_integer!(i16, i32, i64);

impl FromValue for bool {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
        match value? {
            ConfigValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl FromValue for f64 {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
        match value? {
            ConfigValue::Double(number) => Some(*number),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
        match value? {
            ConfigValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
        match value? {
            ConfigValue::List(list) => Some(list.clone()),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<&ConfigValue>) -> Option<Self> {
        match value {
            None => Some(None),
            Some(_) => T::from_value(value).map(Some),
        }
    }
}

fn cordoned_log_dirs(values: &Values) -> Vec<String> {
    values.get::<Option<Vec<String>>>("cordoned.log.dirs").unwrap_or_default()
}
