//! The options of `replica-verification`.

use clap::Parser;

use crate::cli::exception::Exception;
use crate::cli::failure::Failure;
use crate::cli::jopt::{self, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool compares what the replicas of topics hold, all the time.";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct VerificationArgs {
    /// Print the version.
    #[arg(long)]
    pub version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "hostname:port,…,hostname:port")]
    pub broker_list: Option<String>,
    /// How much a fetch may bring of each partition. (default: 1048576)
    #[arg(long, value_name = "bytes")]
    fetch_size: Option<String>,
    /// How long a fetch waits for new records. (default: 1000)
    #[arg(long, value_name = "ms")]
    max_wait_ms: Option<String>,
    /// A regular expression for the topics. (default: .*)
    #[arg(long, value_name = "regex")]
    topics_include: Option<String>,
    /// Where to begin: at the first record of this time, at the end (-1) or at the begin (-2). (default: -1)
    #[arg(long, value_name = "timestamp")]
    time: Option<String>,
    /// How often is said how far the replicas are. (default: 30000)
    #[arg(long, value_name = "ms")]
    report_interval_ms: Option<String>,
}

impl VerificationArgs {
    /// Reads and checks the arguments. Numbers are looked at when they are needed, as in Kafka's tool.
    pub fn read(tool: &str, arguments: &[String]) -> Result<VerificationArgs, Refusal> {
        let parsed = jopt::parse(tool, Words::Ignored, arguments);
        let args: VerificationArgs = parsed.map_err(|fault| fault.with_trace::<VerificationArgs>(tool))?;
        if args.version {
            return Err(tool::version_asked());
        }
        if args.broker_list.is_none() {
            return Err(tool::missing::<VerificationArgs>(tool, "broker-list"));
        }
        Ok(args)
    }

    /// What the topics' names have to fit.
    pub fn topics_include(&self) -> &str {
        self.topics_include.as_deref().unwrap_or(".*")
    }

    /// Bytes per partition.
    pub fn fetch_size(&self) -> Result<i32, Failure> {
        number("fetch-size", self.fetch_size.as_ref(), 1 << 20)
    }

    /// Milliseconds.
    pub fn max_wait_ms(&self) -> Result<i32, Failure> {
        number("max-wait-ms", self.max_wait_ms.as_ref(), 1000)
    }

    /// A time in milliseconds since 1970, or -1 or -2.
    pub fn time(&self) -> Result<i64, Failure> {
        number("time", self.time.as_ref(), -1)
    }

    /// Milliseconds.
    pub fn report_interval_ms(&self) -> Result<i64, Failure> {
        number("report-interval-ms", self.report_interval_ms.as_ref(), 30_000)
    }
}

fn number<N: std::str::FromStr>(option: &str, text: Option<&String>, default: N) -> Result<N, Failure> {
    let parse = |text: &String| text.parse().map_err(|_| Failure::of_number(option, text));
    text.map_or(Ok(default), parse)
}

/// What Kafka's tool says of a list of brokers that can't be one.
pub fn check_broker_list(list: &str) -> Result<(), &'static str> {
    if list.trim().is_empty() {
        return Err("Error while validating the bootstrap address\n");
    }
    let is_address = |address: &str| {
        let port = address.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>().is_ok()));
        port == Some((true, true))
    };
    match list.split(',').all(is_address) {
        true => Ok(()),
        false => Err("Please provide valid host:port like host1:9091,host2:9092\n"),
    }
}

/// An exception without a class of its own.
pub fn runtime(text: impl Into<String>) -> Failure {
    Failure::new(&Exception::new("java.lang.RuntimeException", text))
}
