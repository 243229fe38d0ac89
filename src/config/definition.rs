//! What Kafka knows about one configuration key.

/// The type of a key's value. [`ConfigType::code`] is what DescribeConfigs sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigType {
    /// `true` or `false`, in any case.
    Boolean,
    /// Text.
    String,
    /// 32-bit signed.
    Int,
    /// 16-bit signed.
    Short,
    /// 64-bit signed.
    Long,
    /// 64-bit floating point.
    Double,
    /// Texts separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl ConfigType {
    /// The code of a type in a DescribeConfigs answer (0 stands for a key that nobody knows).
    pub const fn code(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Short => 4,
            ConfigType::Long => 5,
            ConfigType::Double => 6,
            ConfigType::List => 7,
            ConfigType::Class => 8,
            ConfigType::Password => 9,
        }
    }

    /// Kafka's name of the type, as in its messages: `INT`.
    pub const fn name(self) -> &'static str {
        match self {
            ConfigType::Boolean => "BOOLEAN",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
            ConfigType::Class => "CLASS",
            ConfigType::Password => "PASSWORD",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<ConfigType> {
        let all = [
            ConfigType::Boolean,
            ConfigType::String,
            ConfigType::Int,
            ConfigType::Short,
            ConfigType::Long,
            ConfigType::Double,
            ConfigType::List,
            ConfigType::Class,
            ConfigType::Password,
        ];
        all.into_iter().find(|config_type| config_type.name().eq_ignore_ascii_case(name))
    }
}

/// Where a described value comes from. The code is DescribeConfigs' `config_source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopic = 1,
    /// Set dynamically on this broker.
    DynamicBroker = 2,
    /// Set dynamically for all brokers.
    DynamicDefaultBroker = 3,
    /// From the file the node was started with.
    StaticBroker = 4,
    /// Kafka's default.
    Default = 5,
    /// A logger's level.
    DynamicBrokerLogger = 6,
    /// Set on the client metrics subscription.
    DynamicClientMetrics = 7,
    /// Set on the group.
    DynamicGroup = 8,
}

impl ConfigSource {
    /// The code on the wire.
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// Kafka's name, as its tools print it.
    pub const fn name(self) -> &'static str {
        match self {
            ConfigSource::DynamicTopic => "DYNAMIC_TOPIC_CONFIG",
            ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
            ConfigSource::Default => "DEFAULT_CONFIG",
            ConfigSource::DynamicBrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
            ConfigSource::DynamicClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
            ConfigSource::DynamicGroup => "DYNAMIC_GROUP_CONFIG",
        }
    }
}

/// A key's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigDefault {
    /// None: the key must be given.
    Required,
    /// Kafka's `null`: not set, and no value stands in for it.
    Null,
    /// The text that stands in when the key isn't given.
    Value(&'static str),
}

impl ConfigDefault {
    /// The default's text, if there is one.
    pub const fn value(self) -> Option<&'static str> {
        match self {
            ConfigDefault::Value(value) => Some(value),
            ConfigDefault::Required | ConfigDefault::Null => None,
        }
    }
}

/// The rule that a parsed value must keep.
#[derive(Debug, Clone, PartialEq)]
pub enum Validator {
    /// Every value of the type.
    Any,
    /// A number between the bounds, both included. The texts are the bounds as Kafka writes them in messages.
    Range {
        /// The smallest number allowed.
        min: f64,
        /// The largest number allowed, if there is one.
        max: Option<f64>,
        /// `min` as text.
        min_text: &'static str,
        /// `max` as text.
        max_text: Option<&'static str>,
    },
    /// gzip's levels: 1 to 9, or -1 for the library's own choice.
    GzipLevel,
    /// One of these texts.
    OneOf(Vec<&'static str>),
    /// One of these texts, whatever the case.
    OneOfIgnoringCase(Vec<&'static str>),
    /// A list without empty elements; each one of `of` unless that is empty.
    ValidList {
        /// The elements allowed; all when empty.
        of: Vec<&'static str>,
        /// Whether the list may have no element.
        empty_allowed: bool,
    },
    /// Text that isn't empty; not set is allowed.
    NonEmptyString,
    /// Text that may be empty but must be set.
    NonNullString,
    /// `{id}@{host}:{port}` entries of `controller.quorum.voters`.
    QuorumVoters,
    /// `{host}:{port}` entries of `controller.quorum.bootstrap.servers`.
    BootstrapServers,
    /// `*`, or `{partition}:{broker}` entries.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:` and an ISO-8601 duration.
    ShareAutoOffsetReset,
}

/// How much Kafka's documentation makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Most users look at it.
    High,
    /// Some do.
    Medium,
    /// Hardly anybody does.
    Low,
}

/// How a broker key can change while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only by a restart.
    ReadOnly,
    /// Dynamically, on one broker.
    PerBroker,
    /// Dynamically, on one broker or for all.
    ClusterWide,
}

/// The unit of a synonym's number, when the key itself counts milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// As the key itself.
    Same,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl TimeUnit {
    /// `number` in the key's own unit. Saturates.
    pub const fn to_key_unit(self, number: i64) -> i64 {
        match self {
            TimeUnit::Same => number,
            TimeUnit::Minutes => number.saturating_mul(60_000),
            TimeUnit::Hours => number.saturating_mul(3_600_000),
        }
    }
}

/// A broker key that stands in for a topic's key which isn't set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerSynonym {
    /// The broker's key.
    pub name: &'static str,
    /// What its number counts.
    pub unit: TimeUnit,
}

/// One key: what Kafka 4.3.1 knows about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigDef {
    /// The key.
    pub name: &'static str,
    /// The type of its value.
    pub config_type: ConfigType,
    /// What holds when it isn't given.
    pub default: ConfigDefault,
    /// The rule for its value.
    pub validator: Validator,
    /// How much Kafka makes of it.
    pub importance: Importance,
    /// How a broker key changes at run time. Keys of other resources are [`UpdateMode::ClusterWide`].
    pub update_mode: UpdateMode,
    /// Broker keys: all names for the same setting, strongest first (empty: only its own name). Topic and group keys:
    /// the broker keys that stand in for it, strongest first.
    pub synonyms: Vec<BrokerSynonym>,
    /// Never shown.
    pub sensitive: bool,
    /// Left out of Kafka's documentation and of describe answers unless set.
    pub internal: bool,
    /// Broker keys: may be given for one listener as `listener.name.<name>.<key>`.
    pub listener_prefix: bool,
    /// Group keys: the broker key that bounds it from below.
    pub lower_bound: Option<&'static str>,
    /// Group keys: the broker key that bounds it from above.
    pub upper_bound: Option<&'static str>,
    /// What it does, and what Ringlog doesn't do of it. Empty for keys that DescribeConfigs doesn't explain.
    pub documentation: String,
}
