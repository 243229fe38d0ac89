//! The options of `log-dirs`.

use clap::Parser;

use crate::cli::jopt::{self, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool helps to see what lies in the log directories of brokers.";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct LogDirsArgs {
    /// Print the version.
    #[arg(long)]
    pub version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "servers to begin with")]
    pub bootstrap_server: Option<String>,
    /// A properties file for the client.
    #[arg(long, value_name = "admin client property file")]
    pub command_config: Option<String>,
    /// REQUIRED: describe the log directories.
    #[arg(long)]
    pub describe: bool,
    /// The topics, topic1,topic2. All if not given.
    #[arg(long, value_name = "topic list")]
    pub topic_list: Option<String>,
    /// The ids of the brokers, 0,1,2. All if not given.
    #[arg(long, value_name = "broker list")]
    pub broker_list: Option<String>,
}

impl LogDirsArgs {
    /// Reads and checks the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<LogDirsArgs, Refusal> {
        let parsed = jopt::parse(tool, Words::Ignored, arguments);
        let args: LogDirsArgs = parsed.map_err(|fault| fault.with_trace::<LogDirsArgs>(tool))?;
        if args.version {
            return Err(tool::version_asked());
        }
        if args.bootstrap_server.is_none() {
            return Err(tool::missing::<LogDirsArgs>(tool, "bootstrap-server"));
        }
        if !args.describe {
            return Err(tool::missing::<LogDirsArgs>(tool, "describe"));
        }
        Ok(args)
    }

    /// The topics that were named.
    pub fn topics(&self) -> Vec<&str> {
        parts(self.topic_list.as_deref())
    }

    /// The brokers that were named, not yet read as numbers.
    pub fn brokers(&self) -> Vec<&str> {
        parts(self.broker_list.as_deref())
    }
}

fn parts(list: Option<&str>) -> Vec<&str> {
    list.unwrap_or_default().split(',').filter(|part| !part.is_empty()).collect()
}
