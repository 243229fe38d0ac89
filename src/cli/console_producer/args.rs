//! The options of `console-producer`.

use std::time::Duration;

use clap::Parser;
use ringlog_client::{ClientOptions, ProducerOptions};
use ringlog_protocol::records::Compression;

use super::line_reader::LineReader;
use crate::cli::client_config::{ClientProperties, read_properties};
use crate::cli::tool::{self, Refusal, Style};

const LINE_READER: &str = "org.apache.kafka.tools.LineMessageReader";

/// This tool helps to read data from standard input and publish it to Kafka.
#[derive(Debug, Clone, Default, Parser)]
#[command(infer_long_args = true, next_line_help = true, term_width = 100)]
pub struct ProducerArgs {
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// REQUIRED: the topic to write to.
    #[arg(long, value_name = "topic", allow_hyphen_values = true)]
    topic: Option<String>,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "server to connect to", allow_hyphen_values = true)]
    bootstrap_server: Option<String>,
    /// Wait for each message's acknowledgement before the next one is read.
    #[arg(long)]
    sync: bool,
    /// none, gzip, snappy, lz4 or zstd; gzip if only the option is given.
    #[arg(long, value_name = "compression-codec", num_args = 0..=1, default_missing_value = "gzip")]
    compression_codec: Option<String>,
    /// Bytes that are collected for a partition before they are sent. (default: 16384)
    #[arg(long, value_name = "size", allow_hyphen_values = true)]
    batch_size: Option<String>,
    /// How often a message is sent again. (default: 3)
    #[arg(long, value_name = "count", allow_hyphen_values = true)]
    message_send_max_retries: Option<String>,
    /// The pause before that. (default: 100)
    #[arg(long, value_name = "ms", allow_hyphen_values = true)]
    retry_backoff_ms: Option<String>,
    /// How long a message waits for others at most before it is sent. (default: 1000)
    #[arg(long, value_name = "timeout_ms", allow_hyphen_values = true)]
    timeout: Option<String>,
    /// The replicas that must have a message: 0, 1 or all. (default: -1)
    #[arg(long, value_name = "request required acks", allow_hyphen_values = true)]
    request_required_acks: Option<String>,
    /// How long an answer is waited for. (default: 1500)
    #[arg(long, value_name = "request timeout ms", allow_hyphen_values = true)]
    request_timeout_ms: Option<String>,
    /// The age at which metadata is asked for again. (default: 300000)
    #[arg(long, value_name = "metadata expiration interval", allow_hyphen_values = true)]
    metadata_expiry_ms: Option<String>,
    /// How long to wait for the topic's metadata. (default: 60000)
    #[arg(long, value_name = "max block on send", allow_hyphen_values = true)]
    max_block_ms: Option<String>,
    /// Taken for compatibility; memory is bounded by the batches. (default: 33554432)
    #[arg(long, value_name = "total memory in bytes", allow_hyphen_values = true)]
    max_memory_bytes: Option<String>,
    /// (DEPRECATED) As --batch-size. (default: 16384)
    #[arg(long, value_name = "memory in bytes per partition", allow_hyphen_values = true)]
    max_partition_memory_bytes: Option<String>,
    /// Only org.apache.kafka.tools.LineMessageReader.
    #[arg(long, value_name = "reader_class", allow_hyphen_values = true)]
    line_reader: Option<String>,
    /// Taken for compatibility. (default: 102400)
    #[arg(long, value_name = "size", allow_hyphen_values = true)]
    socket_buffer_size: Option<String>,
    /// (DEPRECATED) As --reader-property.
    #[arg(long, value_name = "prop", allow_hyphen_values = true)]
    property: Vec<String>,
    /// How lines are read: parse.key, parse.headers, ignore.error, key.separator, headers.delimiter,
    /// headers.separator, headers.key.separator, null.marker.
    #[arg(long, value_name = "prop", allow_hyphen_values = true)]
    reader_property: Vec<String>,
    /// A properties file of the same; --reader-property has precedence.
    #[arg(long, value_name = "config file", allow_hyphen_values = true)]
    reader_config: Option<String>,
    /// (DEPRECATED) As --command-property.
    #[arg(long, value_name = "producer_prop", allow_hyphen_values = true)]
    producer_property: Vec<String>,
    /// A producer configuration, key=value.
    #[arg(long, value_name = "producer_prop", allow_hyphen_values = true)]
    command_property: Vec<String>,
    /// (DEPRECATED) As --command-config.
    #[arg(long = "producer.config", value_name = "config file", allow_hyphen_values = true)]
    producer_config: Option<String>,
    /// A properties file of producer configurations; --command-property has precedence.
    #[arg(long, value_name = "config file", allow_hyphen_values = true)]
    command_config: Option<String>,
}

/// What the arguments come to.
#[derive(Debug)]
pub struct ProducerPlan {
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
        let args: ProducerArgs = tool::parse(tool, Style::Jopt, arguments)?;
        if args.version {
            return Err(tool::version_asked());
        }
        let Some(topic) = args.topic.clone() else { return Err(tool::missing::<ProducerArgs>(tool, "topic")) };
        let given = |option: &str| match option {
            "command-config" => args.command_config.is_some(),
            "producer.config" => args.producer_config.is_some(),
            "command-property" => !args.command_property.is_empty(),
            "producer-property" => !args.producer_property.is_empty(),
            "reader-property" => !args.reader_property.is_empty(),
            _ => !args.property.is_empty(),
        };
        let exclude = |option: &str, other: &str| tool::check_excluded::<ProducerArgs>(tool, &given, option, &[other]);
        exclude("producer.config", "command-config")?;
        exclude("producer-property", "command-property")?;
        exclude("property", "reader-property")?;
        if let Some(codec) = &args.compression_codec
            && Compression::from_name(codec).is_none()
        {
            return Err(Refusal::error(format!("Unknown compression name: {codec}")));
        }
        let bootstrap = args.bootstrap_server.clone();
        let bootstrap = bootstrap.ok_or_else(|| tool::missing::<ProducerArgs>(tool, "bootstrap-server"))?;
        args.plan(bootstrap, topic).map_err(|refusal| match refusal {
            Fault::Refusal(refusal) => refusal,
            Fault::Text(text) => Refusal::error(text),
        })
    }

    fn plan(&self, bootstrap: String, topic: String) -> Result<ProducerPlan, Fault> {
        if self.line_reader.as_deref().is_some_and(|class| class != LINE_READER) {
            return Err(Fault::Text(format!(
                "--line-reader: only {LINE_READER} is built in; Java classes can't be loaded"
            )));
        }
        let properties = self.properties()?;
        let mut reader = match &self.reader_config {
            Some(path) => read_properties(path.as_ref()).map_err(Fault::Text)?,
            None => Default::default(),
        };
        let given = if self.reader_property.is_empty() { &self.property } else { &self.reader_property };
        reader.extend(tool::key_values(given, true).map_err(Fault::Refusal)?);
        Ok(ProducerPlan {
            bootstrap,
            topic,
            is_sync: self.sync,
            linger: properties.millis("linger.ms", 1000).map_err(Fault::Text)?,
            reader: LineReader::new(&reader).map_err(Fault::Text)?,
            client: self.client_options(&properties).map_err(Fault::Text)?,
            producer: producer_options(&properties).map_err(Fault::Text)?,
        })
    }

    /// A file, properties on the line, and options: an option that is given has precedence, one that isn't gives its
    /// default only where nothing else is said.
    fn properties(&self) -> Result<ClientProperties, Fault> {
        let file = self.command_config.as_ref().or(self.producer_config.as_ref());
        let mut properties = match file {
            Some(path) => ClientProperties::from_file(path).map_err(Fault::Text)?,
            None => ClientProperties::default(),
        };
        let given = if self.command_property.is_empty() { &self.producer_property } else { &self.command_property };
        for (key, value) in tool::key_values(given, false).map_err(Fault::Refusal)? {
            properties.set(&key, &value);
        }
        let batch_size = self.max_partition_memory_bytes.as_ref().or(self.batch_size.as_ref());
        let options = [
            ("compression.type", self.compression_codec.as_ref(), "none"),
            ("linger.ms", self.timeout.as_ref(), "1000"),
            ("acks", self.request_required_acks.as_ref(), "-1"),
            ("request.timeout.ms", self.request_timeout_ms.as_ref(), "1500"),
            ("retries", self.message_send_max_retries.as_ref(), "3"),
            ("retry.backoff.ms", self.retry_backoff_ms.as_ref(), "100"),
            ("batch.size", batch_size, "16384"),
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

    fn client_options(&self, properties: &ClientProperties) -> Result<ClientOptions, String> {
        Ok(ClientOptions {
            retry_timeout: properties.millis("max.block.ms", 60_000)?,
            ..properties.client_options("console-producer")?
        })
    }
}

enum Fault {
    Refusal(Refusal),
    Text(String),
}

fn producer_options(properties: &ClientProperties) -> Result<ProducerOptions, String> {
    let name = properties.get("compression.type").unwrap_or("none");
    let compression = Compression::from_name(name).ok_or_else(|| format!("Unknown compression name: {name}"))?;
    let level = properties.get(&format!("compression.{name}.level")).map(str::parse::<i32>).transpose();
    let acks = match properties.get("acks").unwrap_or("all") {
        "all" | "-1" => -1,
        "0" => 0,
        "1" => 1,
        other => {
            return Err(format!("Invalid value {other} for configuration acks: String must be one of: all, -1, 0, 1"));
        }
    };
    Ok(ProducerOptions {
        acks,
        timeout: properties.millis("request.timeout.ms", 1500)?,
        compression,
        compression_level: level.map_err(|_| format!("Invalid value for configuration compression.{name}.level"))?,
        batch_bytes: properties.parse("batch.size", 16384)?,
        max_request_bytes: properties.parse("max.request.size", 1 << 20)?,
        retries: properties.parse("retries", 3)?,
        retry_backoff: properties.millis("retry.backoff.ms", 100)?,
        allow_auto_topic_creation: true,
    })
}
