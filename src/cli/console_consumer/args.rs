//! The options of `console-consumer` and which of them go together.

use std::time::Duration;

use clap::Parser;
use ringlog_client::{AutoOffsetReset, ClientOptions, ConsumerOptions, StartOffset};

use super::formatter::Formatter;
use crate::cli::client_config::{ClientProperties, read_properties};
use crate::cli::tool::{self, Refusal, Style};

/// This tool helps to read data from Kafka topics and outputs it to standard output.
#[derive(Debug, Clone, Default, Parser)]
#[command(infer_long_args = true, next_line_help = true, term_width = 100)]
pub struct ConsumerArgs {
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "server to connect to", allow_hyphen_values = true)]
    bootstrap_server: Option<String>,
    /// The topic to read.
    #[arg(long, value_name = "topic", allow_hyphen_values = true)]
    topic: Option<String>,
    /// A regular expression for the topics to read.
    #[arg(long, value_name = "regex", allow_hyphen_values = true)]
    include: Option<String>,
    /// The partition to read, from its end unless --offset says otherwise.
    #[arg(long, value_name = "partition", allow_hyphen_values = true)]
    partition: Option<String>,
    /// Where to start in the partition: a number, 'earliest' or 'latest'. (default: latest)
    #[arg(long, value_name = "consume offset", allow_hyphen_values = true)]
    offset: Option<String>,
    /// (DEPRECATED) As --command-property.
    #[arg(long, value_name = "consumer_prop", allow_hyphen_values = true)]
    consumer_property: Vec<String>,
    /// A consumer configuration, key=value.
    #[arg(long, value_name = "consumer_prop", allow_hyphen_values = true)]
    command_property: Vec<String>,
    /// (DEPRECATED) As --command-config.
    #[arg(long = "consumer.config", value_name = "config file", allow_hyphen_values = true)]
    consumer_config: Option<String>,
    /// A properties file of consumer configurations; --command-property has precedence.
    #[arg(long, value_name = "config file", allow_hyphen_values = true)]
    command_config: Option<String>,
    /// DefaultMessageFormatter or NoOpMessageFormatter of org.apache.kafka.tools.consumer.
    #[arg(long, value_name = "class", allow_hyphen_values = true)]
    formatter: Option<String>,
    /// (DEPRECATED) As --formatter-property.
    #[arg(long, value_name = "prop", allow_hyphen_values = true)]
    property: Vec<String>,
    /// What is printed: print.{timestamp,key,offset,epoch,partition,headers,value}=true|false, {key,line,headers}.separator,
    /// null.literal, {key,value,headers}.deserializer.
    #[arg(long, value_name = "prop", allow_hyphen_values = true)]
    formatter_property: Vec<String>,
    /// A properties file of the same; --formatter-property has precedence.
    #[arg(long, value_name = "config file", allow_hyphen_values = true)]
    formatter_config: Option<String>,
    /// Start with the first message that is kept where nothing is committed.
    #[arg(long)]
    from_beginning: bool,
    /// End after this many messages.
    #[arg(long, value_name = "num_messages", allow_hyphen_values = true)]
    max_messages: Option<String>,
    /// End when no message came for so long.
    #[arg(long, value_name = "timeout_ms", allow_hyphen_values = true)]
    timeout_ms: Option<String>,
    /// Skip a message that can't be shown, rather than end.
    #[arg(long)]
    skip_message_on_error: bool,
    /// Print the class that shows keys.
    #[arg(long, value_name = "deserializer for keys", allow_hyphen_values = true)]
    key_deserializer: Option<String>,
    /// Print the class that shows values.
    #[arg(long, value_name = "deserializer for values", allow_hyphen_values = true)]
    value_deserializer: Option<String>,
    /// Print when the consumer has ended, for system tests.
    #[arg(long)]
    enable_systest_events: bool,
    /// read_committed leaves out messages of open and aborted transactions. (default: read_uncommitted)
    #[arg(long, value_name = "level", allow_hyphen_values = true)]
    isolation_level: Option<String>,
    /// The group to be a member of.
    #[arg(long, value_name = "consumer group id", allow_hyphen_values = true)]
    group: Option<String>,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A topic.
    Topic(String),
    /// Topics whose names fit.
    Include(String),
    /// A partition.
    Partition(String, i32, StartOffset),
}

/// What the arguments come to.
#[derive(Debug)]
pub struct ConsumerPlan {
    /// The cluster.
    pub bootstrap: String,
    /// What is read.
    pub source: Source,
    /// What is printed.
    pub formatter: Formatter,
    /// The end by count.
    pub max_messages: Option<u64>,
    /// The end by silence.
    pub timeout: Option<Duration>,
    /// Skip what can't be shown.
    pub skips_errors: bool,
    /// Say when it has ended.
    pub has_systest_events: bool,
    /// The client.
    pub client: ClientOptions,
    /// The consumer.
    pub consumer: ConsumerOptions,
}

impl ConsumerArgs {
    /// Reads and checks the arguments. `random` becomes part of the group's name if none is given.
    pub fn read(tool: &str, arguments: &[String], random: u64) -> Result<ConsumerPlan, Refusal> {
        let args: ConsumerArgs = tool::parse(tool, Style::Jopt, arguments)?;
        if args.version {
            return Err(tool::version_asked());
        }
        args.check(tool)?;
        let text = |text: String| Refusal::error(text);
        let properties = args.properties()?;
        let group_id = args.group_id(tool, &properties)?;
        let is_earliest = args.is_earliest(&properties)?;
        let source = args.source(tool, is_earliest)?;
        let consumer = args.consumer_options(&properties, is_earliest, group_id, random).map_err(text)?;
        Ok(ConsumerPlan {
            bootstrap: args.bootstrap_server.clone().unwrap_or_default(),
            source,
            formatter: args.formatter()?,
            max_messages: number(args.max_messages.as_ref(), "max-messages")?
                .and_then(|count: i64| u64::try_from(count).ok()),
            timeout: number(args.timeout_ms.as_ref(), "timeout-ms")?
                .and_then(|timeout: i64| u64::try_from(timeout).ok())
                .map(Duration::from_millis),
            skips_errors: args.skip_message_on_error,
            has_systest_events: args.enable_systest_events,
            client: properties.client_options("console-consumer").map_err(text)?,
            consumer,
        })
    }

    fn check(&self, tool: &str) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::with_help::<ConsumerArgs>(tool, text));
        if self.topic.is_some() == self.include.is_some() {
            return refuse("Exactly one of the following arguments is required: [topic], [include]");
        }
        if self.partition.is_some() && self.topic.is_none() {
            return refuse("The topic is required when partition is specified.");
        }
        if self.partition.is_some() && self.group.is_some() {
            return refuse("Options group and partition cannot be specified together.");
        }
        if self.offset.is_some() && self.partition.is_none() {
            return refuse("The partition is required when offset is specified.");
        }
        if self.offset.is_some() && self.from_beginning {
            return refuse("Options from-beginning and offset cannot be specified together.");
        }
        let pairs = [
            (
                "consumer-property",
                !self.consumer_property.is_empty(),
                "command-property",
                !self.command_property.is_empty(),
            ),
            ("consumer.config", self.consumer_config.is_some(), "command-config", self.command_config.is_some()),
            ("property", !self.property.is_empty(), "formatter-property", !self.formatter_property.is_empty()),
        ];
        if let Some((old, _, new, _)) = pairs.iter().find(|(_, old, _, new)| *old && *new) {
            return refuse(&format!("Options --{old} and --{new} cannot be specified together."));
        }
        if self.bootstrap_server.is_none() {
            return Err(tool::missing::<ConsumerArgs>(tool, "bootstrap-server"));
        }
        Ok(())
    }

    fn properties(&self) -> Result<ClientProperties, Refusal> {
        let file = self.command_config.as_ref().or(self.consumer_config.as_ref());
        let mut properties = match file {
            Some(path) => ClientProperties::from_file(path).map_err(Refusal::error)?,
            None => ClientProperties::default(),
        };
        let given = if self.command_property.is_empty() { &self.consumer_property } else { &self.command_property };
        for (key, value) in tool::key_values(given, false)? {
            properties.set(&key, &value);
        }
        if let Some(level) = &self.isolation_level {
            properties.set("isolation.level", level);
        }
        Ok(properties)
    }

    fn group_id(&self, tool: &str, properties: &ClientProperties) -> Result<Option<String>, Refusal> {
        let configured = properties.get("group.id");
        match (self.group.as_deref(), configured) {
            (Some(given), Some(other)) if given != other => {
                let text = format!(
                    "The group ids provided in different places (directly using '--group', via '--consumer-property', \
                     or via '--consumer.config') do not match. Detected group ids: '{given}', '{other}'"
                );
                Err(Refusal::with_help::<ConsumerArgs>(tool, &text))
            }
            (given, other) => Ok(given.or(other).map(str::to_owned)),
        }
    }

    fn is_earliest(&self, properties: &ClientProperties) -> Result<bool, Refusal> {
        match properties.get("auto.offset.reset") {
            Some(reset) if self.from_beginning && reset != "earliest" => Err(Refusal::error(format!(
                "Can't simultaneously specify --from-beginning and 'auto.offset.reset={reset}', please remove one option"
            ))),
            reset => Ok(self.from_beginning || reset == Some("earliest")),
        }
    }

    fn source(&self, tool: &str, is_earliest: bool) -> Result<Source, Refusal> {
        let Some(topic) = self.topic.clone() else {
            return Ok(Source::Include(self.include.clone().unwrap_or_default()));
        };
        let Some(partition) = number(self.partition.as_ref(), "partition")? else { return Ok(Source::Topic(topic)) };
        let start = match self.offset.as_deref() {
            None if is_earliest => StartOffset::Earliest,
            None => StartOffset::Latest,
            Some(text) if text.eq_ignore_ascii_case("earliest") => StartOffset::Earliest,
            Some(text) if text.eq_ignore_ascii_case("latest") => StartOffset::Latest,
            Some(text) => match text.parse() {
                Ok(offset @ 0..) => StartOffset::At(offset),
                _ => {
                    let text = format!(
                        "The provided offset value '{text}' is incorrect. Valid values are 'earliest', 'latest', or a \
                         non-negative long."
                    );
                    return Err(Refusal::with_help::<ConsumerArgs>(tool, &text));
                }
            },
        };
        Ok(Source::Partition(topic, partition, start))
    }

    fn formatter(&self) -> Result<Formatter, Refusal> {
        let mut properties = match &self.formatter_config {
            Some(path) => read_properties(path.as_ref()).map_err(Refusal::error)?,
            None => Default::default(),
        };
        let given = if self.formatter_property.is_empty() { &self.property } else { &self.formatter_property };
        properties.extend(tool::key_values(given, true)?);
        for (key, class) in [("key", &self.key_deserializer), ("value", &self.value_deserializer)] {
            if let Some(class) = class {
                properties.insert(format!("{key}.deserializer"), class.clone());
            }
        }
        Formatter::new(self.formatter.as_deref(), &properties).map_err(Refusal::error)
    }

    fn consumer_options(
        &self,
        properties: &ClientProperties,
        is_earliest: bool,
        group_id: Option<String>,
        random: u64,
    ) -> Result<ConsumerOptions, String> {
        let defaults = ConsumerOptions::default();
        // A group that nobody named isn't used again: its offsets aren't kept.
        let is_named = group_id.is_some();
        let auto_commit: bool = properties.parse("enable.auto.commit", is_named)?;
        let interval = properties.millis("auto.commit.interval.ms", 5000)?;
        let read_committed = match properties.get("isolation.level") {
            None | Some("read_uncommitted") => false,
            Some("read_committed") => true,
            Some(other) => {
                return Err(format!(
                    "Invalid value {other} for configuration isolation.level: String must be one of: read_committed, \
                     read_uncommitted"
                ));
            }
        };
        let auto_offset_reset = match properties.get("auto.offset.reset") {
            _ if is_earliest => AutoOffsetReset::Earliest,
            None | Some("latest") => AutoOffsetReset::Latest,
            Some("none") => AutoOffsetReset::None,
            Some(other) => {
                return Err(format!(
                    "Invalid value {other} for configuration auto.offset.reset: The value must be either 'earliest', \
                     'latest' or 'none'"
                ));
            }
        };
        Ok(ConsumerOptions {
            group_id: Some(group_id.unwrap_or_else(|| format!("console-consumer-{}", random % 100_000))),
            group_instance_id: properties.get("group.instance.id").map(str::to_owned),
            read_committed,
            auto_offset_reset,
            auto_commit_interval: auto_commit.then_some(interval),
            session_timeout: properties.millis("session.timeout.ms", 45_000)?,
            heartbeat_interval: properties.millis("heartbeat.interval.ms", 3000)?,
            rebalance_timeout: properties.millis("max.poll.interval.ms", 300_000)?,
            fetch_max_wait: properties.millis("fetch.max.wait.ms", 500)?,
            fetch_min_bytes: properties.parse("fetch.min.bytes", 1)?,
            fetch_max_bytes: properties.parse("fetch.max.bytes", defaults.fetch_max_bytes)?,
            max_partition_fetch_bytes: properties
                .parse("max.partition.fetch.bytes", defaults.max_partition_fetch_bytes)?,
            check_crcs: properties.parse("check.crcs", true)?,
        })
    }
}

fn number<N: std::str::FromStr>(text: Option<&String>, option: &str) -> Result<Option<N>, Refusal> {
    let parse = |text: &String| {
        text.parse().map_err(|_| Refusal::error(format!("Cannot parse argument '{text}' of option {option}")))
    };
    text.map(parse).transpose()
}
