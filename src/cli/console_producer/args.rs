//! The options of `console-producer`.

use std::time::Duration;

use clap::Parser;
use ringlog_client::{Bootstrap, ClientOptions, ProducerOptions};
use ringlog_protocol::records::Compression;

use super::line_reader::LineReader;
use crate::cli::client_config::ClientProperties;
use crate::cli::exception::Exception;
use crate::cli::jopt::{self, Words};
use crate::cli::signals::CLOSE_LIMIT;
use crate::cli::tool::{self, Refusal};

const LINE_READER: &str = "org.apache.kafka.tools.LineMessageReader";

const ABOUT: &str = "This tool helps to read data from standard input and publish it to Kafka.";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct ProducerArgs {
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// REQUIRED: the topic to write to.
    #[arg(long, value_name = "topic")]
    topic: Option<String>,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "server to connect to")]
    bootstrap_server: Option<String>,
    /// Wait for each message's acknowledgement before the next one is read.
    #[arg(long)]
    sync: bool,
    /// none, gzip, snappy, lz4 or zstd; gzip if only the option is given.
    #[arg(long, value_name = "compression-codec", num_args = 0..=1, default_missing_value = "gzip")]
    compression_codec: Option<String>,
    /// Bytes that are collected for a partition before they are sent. (default: 16384)
    #[arg(long, value_name = "size")]
    batch_size: Option<String>,
    /// How often a message is sent again. (default: 3)
    #[arg(long, value_name = "count")]
    message_send_max_retries: Option<String>,
    /// The pause before that. (default: 100)
    #[arg(long, value_name = "ms")]
    retry_backoff_ms: Option<String>,
    /// How long a message waits for others at most before it is sent. (default: 1000)
    #[arg(long, value_name = "timeout_ms")]
    timeout: Option<String>,
    /// The replicas that must have a message: 0, 1 or all. (default: -1)
    #[arg(long, value_name = "request required acks")]
    request_required_acks: Option<String>,
    /// How long an answer is waited for. (default: 1500)
    #[arg(long, value_name = "request timeout ms")]
    request_timeout_ms: Option<String>,
    /// The age at which metadata is asked for again. (default: 300000)
    #[arg(long, value_name = "metadata expiration interval")]
    metadata_expiry_ms: Option<String>,
    /// How long to wait for the topic's metadata. (default: 60000)
    #[arg(long, value_name = "max block on send")]
    max_block_ms: Option<String>,
    /// Bytes of a message at most; what waits is bounded by the batches. (default: 33554432)
    #[arg(long, value_name = "total memory in bytes")]
    max_memory_bytes: Option<String>,
    /// (DEPRECATED) As --batch-size. (default: 16384)
    #[arg(long, value_name = "memory in bytes per partition")]
    max_partition_memory_bytes: Option<String>,
    /// Only org.apache.kafka.tools.LineMessageReader.
    #[arg(long, value_name = "reader_class")]
    line_reader: Option<String>,
    /// Taken for compatibility. (default: 102400)
    #[arg(long, value_name = "size")]
    socket_buffer_size: Option<String>,
    /// (DEPRECATED) As --reader-property.
    #[arg(long, value_name = "prop")]
    property: Vec<String>,
    /// How lines are read: parse.key, parse.headers, ignore.error, key.separator, headers.delimiter,
    /// headers.separator, headers.key.separator, null.marker.
    #[arg(long, value_name = "prop")]
    reader_property: Vec<String>,
    /// A properties file of the same; --reader-property has precedence.
    #[arg(long, value_name = "config file")]
    reader_config: Option<String>,
    /// (DEPRECATED) As --command-property.
    #[arg(long, value_name = "producer_prop")]
    producer_property: Vec<String>,
    /// A producer configuration, key=value.
    #[arg(long, value_name = "producer_prop")]
    command_property: Vec<String>,
    /// (DEPRECATED) As --command-config.
    #[arg(long = "producer.config", value_name = "config file")]
    producer_config: Option<String>,
    /// A properties file of producer configurations; --command-property has precedence.
    #[arg(long, value_name = "config file")]
    command_config: Option<String>,
}

/// What the arguments come to.
#[derive(Debug)]
pub struct ProducerPlan {
    /// What to say before anything is done, with its line ends.
    pub notices: String,
    /// The cluster.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Wait for each message.
    pub is_sync: bool,
    /// How long a message waits for others.
    pub linger: Duration,
    /// How a line becomes a record.
    pub reader: LineReader,
    /// The client.
    pub client: ClientOptions,
    /// The producer.
    pub producer: ProducerOptions,
}

impl ProducerArgs {
    /// Reads and checks the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<ProducerPlan, Refusal> {
        let args: ProducerArgs =
            jopt::parse(tool, Words::Ignored, arguments).map_err(|fault| fault.with_help::<ProducerArgs>(tool))?;
        if args.version {
            return Err(tool::version_asked());
        }
        let (bootstrap, topic) = args.check(tool)?;
        let notices = args.notices();
        args.plan(bootstrap, topic, notices.clone()).map_err(|refusal| refusal.after(&notices))
    }

    fn check(&self, tool: &str) -> Result<(String, String), Refusal> {
        let refuse = |text: &str| Err(Refusal::with_help::<ProducerArgs>(tool, text));
        let Some(topic) = self.topic.clone() else { return Err(tool::missing::<ProducerArgs>(tool, "topic")) };
        let pairs = [
            ("command-config", self.command_config.is_some(), "producer.config", self.producer_config.is_some()),
            (
                "command-property",
                !self.command_property.is_empty(),
                "producer-property",
                !self.producer_property.is_empty(),
            ),
            ("reader-property", !self.reader_property.is_empty(), "property", !self.property.is_empty()),
        ];
        if let Some((new, _, old, _)) = pairs.iter().find(|(_, new, _, old)| *new && *old) {
            return refuse(&format!("Options --{new} and --{old} cannot be specified together."));
        }
        match self.bootstrap_server.as_deref() {
            None | Some("") => refuse("Error while validating the bootstrap address"),
            Some(list) if !list.split(',').all(has_port) => {
                refuse("Please provide valid host:port like host1:9091,host2:9092")
            }
            Some(list) => Ok((list.to_owned(), topic)),
        }
    }

    /// Options that still work and will go.
    fn notices(&self) -> String {
        let old = [
            ("producer-property", !self.producer_property.is_empty(), "a future version", "command-property"),
            ("producer.config", self.producer_config.is_some(), "a future version", "command-config"),
            ("property", !self.property.is_empty(), "a future version", "reader-property"),
            ("max-partition-memory-bytes", self.max_partition_memory_bytes.is_some(), "Apache Kafka 5.0", "batch-size"),
        ];
        let notice = |(name, _, when, other): &(&str, bool, &str, &str)| {
            format!("Warning: --{name} is deprecated and will be removed in {when}. Use --{other} instead.\n")
        };
        old.iter().filter(|(_, is_given, ..)| *is_given).map(notice).collect()
    }

    fn plan(&self, bootstrap: String, topic: String, notices: String) -> Result<ProducerPlan, Refusal> {
        let exception = |exception: Exception| Refusal::error(exception.to_string());
        let config = |text: String| exception(Exception::config(text));
        let properties = self.properties().map_err(exception)?;
        self.check_numbers()?;
        if self.line_reader.as_deref().is_some_and(|class| class != LINE_READER) {
            let class = self.line_reader.clone().unwrap_or_default();
            let text = format!("{class}: only {LINE_READER} is built in, and Java classes can't be loaded");
            return Err(exception(Exception::new("java.lang.ClassNotFoundException", text)));
        }
        let mut reader = ClientProperties::from_optional_file(self.reader_config.as_ref()).map_err(exception)?;
        let given = if self.reader_property.is_empty() { &self.property } else { &self.reader_property };
        tool::key_values(given).iter().for_each(|(key, value)| reader.set(key, value));
        let kafka_exception = |text: String| exception(Exception::new("org.apache.kafka.common.KafkaException", text));
        let plan = ProducerPlan {
            notices,
            topic,
            is_sync: self.sync,
            linger: properties.long_millis("linger.ms", 1000).map_err(config)?,
            reader: LineReader::new(&reader.into_map()).map_err(kafka_exception)?,
            client: client_options(&properties).map_err(config)?,
            producer: producer_options(&properties).map_err(config)?,
            bootstrap,
        };
        Bootstrap::Servers(&plan.bootstrap).check().map_err(|fault| {
            let cause = Exception::config(fault.to_string());
            let text = Exception::new("org.apache.kafka.common.KafkaException", "Failed to construct kafka producer");
            Refusal::error(format!("{text}\nCaused by: {cause}"))
        })?;
        Ok(plan)
    }

    /// Numbers that are options are looked at before they count as properties.
    fn check_numbers(&self) -> Result<(), Refusal> {
        let options = [
            ("batch-size", &self.batch_size),
            ("message-send-max-retries", &self.message_send_max_retries),
            ("retry-backoff-ms", &self.retry_backoff_ms),
            ("timeout", &self.timeout),
            ("request-timeout-ms", &self.request_timeout_ms),
            ("metadata-expiry-ms", &self.metadata_expiry_ms),
            ("max-block-ms", &self.max_block_ms),
            ("max-memory-bytes", &self.max_memory_bytes),
            ("max-partition-memory-bytes", &self.max_partition_memory_bytes),
            ("socket-buffer-size", &self.socket_buffer_size),
        ];
        for (option, value) in options {
            if let Some(text) = value
                && text.parse::<i64>().is_err()
            {
                return Err(Refusal::error(format!("Cannot parse argument '{text}' of option {option}")));
            }
        }
        Ok(())
    }

    /// A file, properties on the line, and options: an option that is given has precedence, one that isn't gives its
    /// default only where nothing else is said.
    fn properties(&self) -> Result<ClientProperties, Exception> {
        let file = self.command_config.as_ref().or(self.producer_config.as_ref());
        let mut properties = ClientProperties::from_optional_file(file)?;
        let given = if self.command_property.is_empty() { &self.producer_property } else { &self.command_property };
        tool::key_values(given).iter().for_each(|(key, value)| properties.set(key, value));
        let batch_size = self.max_partition_memory_bytes.as_ref().or(self.batch_size.as_ref());
        let options = [
            ("compression.type", self.compression_codec.as_ref(), "none"),
            ("linger.ms", self.timeout.as_ref(), "1000"),
            ("acks", self.request_required_acks.as_ref(), "-1"),
            ("request.timeout.ms", self.request_timeout_ms.as_ref(), "1500"),
            ("retries", self.message_send_max_retries.as_ref(), "3"),
            ("retry.backoff.ms", self.retry_backoff_ms.as_ref(), "100"),
            ("batch.size", batch_size, "16384"),
            ("buffer.memory", self.max_memory_bytes.as_ref(), "33554432"),
            ("metadata.max.age.ms", self.metadata_expiry_ms.as_ref(), "300000"),
            ("max.block.ms", self.max_block_ms.as_ref(), "60000"),
        ];
        for (key, option, default) in options {
            match option {
                Some(value) => properties.set(key, value),
                None => properties.set_default(key, default),
            }
        }
        Ok(properties)
    }
}

fn has_port(server: &str) -> bool {
    let port = server.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn client_options(properties: &ClientProperties) -> Result<ClientOptions, String> {
    Ok(ClientOptions {
        retry_timeout: properties.long_millis("max.block.ms", 60_000)?,
        ..properties.client_options("console-producer")?
    })
}

fn producer_options(properties: &ClientProperties) -> Result<ProducerOptions, String> {
    let one_of = |key: &str, value: &str, values: &str| {
        format!("Invalid value {value} for configuration {key}: String must be one of: {values}")
    };
    let name = properties.get("compression.type").unwrap_or("none");
    let compression = Compression::from_name(name)
        .ok_or_else(|| one_of("compression.type", name, "none, gzip, snappy, lz4, zstd"))?;
    let level = format!("compression.{name}.level");
    let level = properties.get(&level).map(|_| properties.int(&level, 0, i32::MIN)).transpose()?;
    let acks = match properties.get("acks").unwrap_or("all") {
        "all" | "-1" => -1,
        "0" => 0,
        "1" => 1,
        other => return Err(one_of("acks", other, "all, -1, 0, 1")),
    };
    let size = |number: i64| usize::try_from(number).unwrap_or(0);
    Ok(ProducerOptions {
        acks,
        timeout: properties.int_millis("request.timeout.ms", 1500)?,
        compression,
        compression_level: level,
        batch_bytes: size(properties.int("batch.size", 16384, 0)?.into()),
        max_request_bytes: size(properties.int("max.request.size", 1 << 20, 0)?.into()),
        buffer_bytes: size(properties.long("buffer.memory", 32 << 20, 0)?),
        retries: properties.int("retries", 3, 0)?.unsigned_abs(),
        retry_backoff: properties.long_millis("retry.backoff.ms", 100)?,
        // What was taken, and what of it is on its way, isn't lost when a signal comes.
        stop_grace: CLOSE_LIMIT,
        allow_auto_topic_creation: true,
    })
}
