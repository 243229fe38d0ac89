//! The options of `console-consumer` and which of them go together.

use std::time::Duration;

use clap::Parser;
use ringlog_client::{AutoOffsetReset, Bootstrap, ClientOptions, ConsumerOptions, StartOffset};
use ringlog_config::parse_duration;

use super::formatter::Formatter;
use crate::cli::client_config::ClientProperties;
use crate::cli::exception::Exception;
use crate::cli::jopt::{self, Fault, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool helps to read data from Kafka topics and outputs it to standard output.";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct ConsumerArgs {
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "server to connect to")]
    bootstrap_server: Option<String>,
    /// The topic to read.
    #[arg(long, value_name = "topic")]
    topic: Option<String>,
    /// A regular expression for the topics to read.
    #[arg(long, value_name = "regex")]
    include: Option<String>,
    /// The partition to read, from its end unless --offset says otherwise.
    #[arg(long, value_name = "partition")]
    partition: Option<String>,
    /// Where to start in the partition: a number, 'earliest' or 'latest'. (default: latest)
    #[arg(long, value_name = "consume offset")]
    offset: Option<String>,
    /// (DEPRECATED) As --command-property.
    #[arg(long, value_name = "consumer_prop")]
    consumer_property: Vec<String>,
    /// A consumer configuration, key=value.
    #[arg(long, value_name = "consumer_prop")]
    command_property: Vec<String>,
    /// (DEPRECATED) As --command-config.
    #[arg(long = "consumer.config", value_name = "config file")]
    consumer_config: Option<String>,
    /// A properties file of consumer configurations; --command-property has precedence.
    #[arg(long, value_name = "config file")]
    command_config: Option<String>,
    /// DefaultMessageFormatter, LoggingMessageFormatter, NoOpMessageFormatter, OffsetsMessageFormatter,
    /// GroupMetadataMessageFormatter or TransactionLogMessageFormatter of org.apache.kafka.tools.consumer.
    #[arg(long, value_name = "class")]
    formatter: Option<String>,
    /// (DEPRECATED) As --formatter-property.
    #[arg(long, value_name = "prop")]
    property: Vec<String>,
    /// What is printed: print.{timestamp,key,offset,epoch,partition,headers,value}=true|false, {key,line,headers}.separator,
    /// null.literal, {key,value,headers}.deserializer.
    #[arg(long, value_name = "prop")]
    formatter_property: Vec<String>,
    /// A properties file of the same; --formatter-property has precedence.
    #[arg(long, value_name = "config file")]
    formatter_config: Option<String>,
    /// Start with the first message that is kept where nothing is committed.
    #[arg(long)]
    from_beginning: bool,
    /// End after this many messages.
    #[arg(long, value_name = "num_messages")]
    max_messages: Option<String>,
    /// End when no message came for so long.
    #[arg(long, value_name = "timeout_ms")]
    timeout_ms: Option<String>,
    /// Skip a message that can't be shown, rather than end.
    #[arg(long)]
    skip_message_on_error: bool,
    /// Print the class that shows keys.
    #[arg(long, value_name = "deserializer for keys")]
    key_deserializer: Option<String>,
    /// Print the class that shows values.
    #[arg(long, value_name = "deserializer for values")]
    value_deserializer: Option<String>,
    /// Print when the consumer has ended, for system tests.
    #[arg(long)]
    enable_systest_events: bool,
    /// read_committed leaves out messages of open and aborted transactions. (default: read_uncommitted)
    #[arg(long, value_name = "level")]
    isolation_level: Option<String>,
    /// The group to be a member of.
    #[arg(long, value_name = "consumer group id")]
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
    /// What to say before anything is done, with its line ends.
    pub notices: String,
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

/// Where Kafka's tool logs.
pub const LOGGER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// What Kafka's tool says when it can't begin.
fn unknown_error(exception: &Exception) -> Refusal {
    Refusal::error(format!("ERROR Unknown error when running consumer:  ({LOGGER})\n{exception}"))
}

fn config_error(text: String) -> Refusal {
    unknown_error(&Exception::config(text))
}

/// What Java says when a tool hasn't thought of an exception.
fn uncaught(exception: &Exception) -> Refusal {
    Refusal::error(format!("Exception in thread \"main\" {exception}"))
}

impl ConsumerArgs {
    /// Reads and checks the arguments. `random` becomes part of the group's name if none is given.
    pub fn read(tool: &str, arguments: &[String], random: u64) -> Result<ConsumerPlan, Refusal> {
        let args: ConsumerArgs = jopt::parse(tool, Words::Ignored, arguments).map_err(|fault| refuse(tool, &fault))?;
        if args.version {
            return Err(tool::version_asked());
        }
        args.check(tool)?;
        let notices = args.notices();
        args.plan(tool, random, notices.clone()).map_err(|refusal| refusal.after(&notices))
    }

    fn plan(&self, tool: &str, random: u64, notices: String) -> Result<ConsumerPlan, Refusal> {
        let properties = self.properties()?;
        let group_id = self.group_id(tool, &properties)?;
        let is_earliest = self.is_earliest(&properties)?;
        let source = self.source(tool, is_earliest)?;
        let formatter = self.formatter(tool)?;
        let timeout = number(self.timeout_ms.as_ref(), "timeout-ms").map_err(|fault| uncaught(&fault))?;
        let consumer = self.consumer_options(&properties, is_earliest, group_id, random).map_err(config_error)?;
        let plan = ConsumerPlan {
            notices,
            bootstrap: self.bootstrap_server.clone().unwrap_or_default(),
            source,
            formatter,
            max_messages: self.max_messages()?.and_then(|count| u64::try_from(count).ok()),
            timeout: timeout.and_then(|timeout: i64| u64::try_from(timeout).ok()).map(Duration::from_millis),
            skips_errors: self.skip_message_on_error,
            has_systest_events: self.enable_systest_events,
            client: properties.client_options("console-consumer").map_err(config_error)?,
            consumer,
        };
        plan.check()?;
        Ok(plan)
    }

    /// Options that still work and will go.
    fn notices(&self) -> String {
        let old = [
            ("consumer-property", !self.consumer_property.is_empty(), "command-property"),
            ("consumer.config", self.consumer_config.is_some(), "command-config"),
            ("property", !self.property.is_empty(), "formatter-property"),
        ];
        let notice = |(name, _, other): &(&str, bool, &str)| {
            format!("Option --{name} is deprecated and will be removed in a future version. Use --{other} instead.\n")
        };
        old.iter().filter(|(_, is_given, _)| *is_given).map(notice).collect()
    }

    fn max_messages(&self) -> Result<Option<i32>, Refusal> {
        // Kafka's tool looks at it when it begins to read.
        number(self.max_messages.as_ref(), "max-messages").map_err(|fault| {
            let refusal = unknown_error(&fault);
            Refusal { stderr: "Processed a total of 0 messages\n".to_owned() + &refusal.stderr, ..refusal }
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
        let mut properties = ClientProperties::from_optional_file(file).map_err(|fault| uncaught(&fault))?;
        let given = if self.command_property.is_empty() { &self.consumer_property } else { &self.command_property };
        tool::key_values(given).iter().for_each(|(key, value)| properties.set(key, value));
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
        let partition = number(self.partition.as_ref(), "partition").map_err(|fault| uncaught(&fault))?;
        let Some(partition) = partition else { return Ok(Source::Topic(topic)) };
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

    fn formatter(&self, tool: &str) -> Result<Formatter, Refusal> {
        let with_help = |text: &str| Refusal::with_help::<ConsumerArgs>(tool, text);
        let properties = ClientProperties::from_optional_file(self.formatter_config.as_ref());
        let mut properties = properties.map_err(|fault| with_help(&fault.message))?;
        let given = if self.formatter_property.is_empty() { &self.property } else { &self.formatter_property };
        tool::key_values(given).iter().for_each(|(key, value)| properties.set(key, value));
        for (key, class) in [("key", &self.key_deserializer), ("value", &self.value_deserializer)] {
            if let Some(class) = class {
                properties.set(&format!("{key}.deserializer"), class);
            }
        }
        Formatter::new(self.formatter.as_deref(), &properties.into_map()).map_err(|text| with_help(&text))
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
        let auto_commit = properties.boolean("enable.auto.commit", is_named)?;
        let interval = properties.int_millis("auto.commit.interval.ms", 5000)?;
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
                let age = other.strip_prefix("by_duration:").and_then(parse_duration);
                AutoOffsetReset::ByDuration(age.ok_or_else(|| {
                    format!(
                        "Invalid value {other} for configuration auto.offset.reset: Invalid value `{other}` for \
                         configuration auto.offset.reset. The value must be either 'earliest', 'latest', 'none' or of \
                         the format 'by_duration:<PnDTnHnMn.nS.>'."
                    )
                })?)
            }
        };
        Ok(ConsumerOptions {
            group_id: Some(group_id.unwrap_or_else(|| format!("console-consumer-{}", random % 100_000))),
            group_instance_id: properties.get("group.instance.id").map(str::to_owned),
            read_committed,
            auto_offset_reset,
            auto_commit_interval: auto_commit.then_some(interval),
            session_timeout: properties.int_millis("session.timeout.ms", 45_000)?,
            heartbeat_interval: properties.int_millis("heartbeat.interval.ms", 3000)?,
            rebalance_timeout: properties.int_millis("max.poll.interval.ms", 300_000)?,
            fetch_max_wait: properties.int_millis("fetch.max.wait.ms", 500)?,
            fetch_min_bytes: properties.int("fetch.min.bytes", 1, 0)?,
            fetch_max_bytes: properties.int("fetch.max.bytes", defaults.fetch_max_bytes, 0)?,
            max_partition_fetch_bytes: properties.int(
                "max.partition.fetch.bytes",
                defaults.max_partition_fetch_bytes,
                0,
            )?,
            check_crcs: properties.boolean("check.crcs", true)?,
        })
    }
}

impl ConsumerPlan {
    /// What a client of Kafka's finds out before it asks anybody.
    fn check(&self) -> Result<(), Refusal> {
        let failed = "Failed to construct kafka consumer";
        let caused_by = |cause: Exception| {
            let exception = Exception::new("org.apache.kafka.common.KafkaException", failed);
            Refusal::error(format!(
                "ERROR Unknown error when running consumer:  ({LOGGER})\n{exception}\nCaused by: {cause}"
            ))
        };
        if self.bootstrap.is_empty() {
            let text = "Configuration 'bootstrap.servers' must not be empty. Valid values include: any non-empty value";
            return Err(config_error(text.to_owned()));
        }
        if self.consumer.group_id.as_deref().is_some_and(|group_id| group_id.trim().is_empty()) {
            let text = "The configured group.id should not be an empty string or whitespace.";
            return Err(caused_by(Exception::new("InvalidGroupIdException", text)));
        }
        if self.consumer.heartbeat_interval >= self.consumer.session_timeout {
            return Err(caused_by(Exception::argument("Heartbeat must be set lower than the session timeout")));
        }
        if self.source == Source::Topic(String::new()) {
            let text = "Topic collection to subscribe to cannot contain null or empty topic";
            return Err(unknown_error(&Exception::argument(text)));
        }
        Bootstrap::Servers(&self.bootstrap).check().map_err(|fault| caused_by(Exception::config(fault.to_string())))
    }
}

/// Kafka's tool doesn't expect an option twice wherever it looks at it.
fn refuse(tool: &str, fault: &Fault) -> Refusal {
    let exception = Exception::new("joptsimple.MultipleArgumentsForOptionException", fault.to_string());
    match fault {
        Fault::Repeated(option) if option == "topic" || option == "include" => unknown_error(&exception),
        Fault::Repeated(option) if option == "max-messages" => {
            let refusal = unknown_error(&exception);
            Refusal { stderr: "Processed a total of 0 messages\n".to_owned() + &refusal.stderr, ..refusal }
        }
        Fault::Repeated(_) => uncaught(&exception),
        fault => fault.with_help::<ConsumerArgs>(tool),
    }
}

fn number<N: std::str::FromStr>(text: Option<&String>, option: &str) -> Result<Option<N>, Exception> {
    let parse = |text: &String| {
        let class = "joptsimple.OptionArgumentConversionException";
        text.parse().map_err(|_| Exception::new(class, format!("Cannot parse argument '{text}' of option {option}")))
    };
    text.map(parse).transpose()
}
