//! The options of `leader-election` and which of them go together.

use clap::Parser;

use super::partitions;
use crate::cli::exception::Exception;
use crate::cli::failure::Failure;
use crate::cli::jopt::{self, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool has leaders of partitions elected.";

/// The options as they stand on the line.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
struct Options {
    /// Print the version.
    #[arg(long)]
    version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "host:port")]
    bootstrap_server: Option<String>,
    /// (DEPRECATED) As --command-config.
    #[arg(long = "admin.config", value_name = "config file")]
    admin_config: Option<String>,
    /// A properties file for the client.
    #[arg(long, value_name = "config file")]
    command_config: Option<String>,
    /// A file that names partitions: {"partitions": [{"topic": "foo", "partition": 1}]}. Not with --topic or
    /// --all-topic-partitions.
    #[arg(long, value_name = "path to JSON file")]
    path_to_json_file: Option<String>,
    /// The topic of the partition. Not with --all-topic-partitions or --path-to-json-file.
    #[arg(long, value_name = "topic name")]
    topic: Option<String>,
    /// The partition. REQUIRED with --topic.
    #[arg(long, value_name = "partition id")]
    partition: Option<String>,
    /// All partitions for which an election is of use. Not with --topic or --path-to-json-file.
    #[arg(long)]
    all_topic_partitions: bool,
    /// REQUIRED: "preferred" makes the first replica the leader if it isn't, "unclean" any that lives if there is none.
    #[arg(long, value_name = "election type")]
    election_type: Option<String>,
}

/// Which leader is to be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica.
    Preferred,
    /// Any, also one that isn't in sync, where there is none.
    Unclean,
}

impl ElectionType {
    fn read(text: &str) -> Option<ElectionType> {
        [ElectionType::Preferred, ElectionType::Unclean].into_iter().find(|it| it.name().eq_ignore_ascii_case(text))
    }

    /// `PREFERRED`.
    pub fn name(self) -> &'static str {
        match self {
            ElectionType::Preferred => "PREFERRED",
            ElectionType::Unclean => "UNCLEAN",
        }
    }

    /// Its number in ElectLeaders.
    pub fn code(self) -> i8 {
        match self {
            ElectionType::Preferred => 0,
            ElectionType::Unclean => 1,
        }
    }
}

/// A line of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionArgs {
    /// Brokers to begin with.
    pub servers: String,
    /// A properties file.
    pub command_config: Option<String>,
    /// Whether the file was named by the old option.
    pub is_old_config: bool,
    /// Which leaders.
    pub election_type: ElectionType,
    /// The partitions; `None` is all.
    pub partitions: Option<Vec<(String, i32)>>,
}

fn refuse(text: impl Into<String>) -> Refusal {
    Failure::new(&Exception::new("org.apache.kafka.tools.AdminCommandFailedException", text)).into()
}

impl ElectionArgs {
    /// Reads and checks the arguments, and the file that names partitions.
    pub fn read(tool: &str, arguments: &[String]) -> Result<ElectionArgs, Refusal> {
        let parsed = jopt::parse(tool, Words::Ignored, arguments);
        let options: Options = parsed.map_err(|fault| fault.with_trace::<Options>(tool))?;
        if options.version {
            return Err(tool::version_asked());
        }
        let (servers, election_type) = options.required()?;
        options.check_scope()?;
        let given = |option: &str| match option {
            "admin.config" => options.admin_config.is_some(),
            _ => options.command_config.is_some(),
        };
        tool::check_excluded::<Options>(tool, &given, "admin.config", &["command-config"])?;
        let election_type = ElectionType::read(election_type).ok_or_else(|| {
            let class = "joptsimple.ValueConversionException";
            let cause = Exception::new(class, format!("Value [{election_type}] is not one of [[PREFERRED,UNCLEAN]]"));
            Failure::of_value("election-type", election_type).caused_by(&cause)
        })?;
        Ok(ElectionArgs {
            servers: servers.to_owned(),
            is_old_config: options.admin_config.is_some(),
            partitions: options.partitions()?,
            command_config: options.command_config.or(options.admin_config),
            election_type,
        })
    }
}

impl Options {
    fn required(&self) -> Result<(&str, &str), Refusal> {
        match (&self.bootstrap_server, &self.election_type) {
            (Some(servers), Some(election_type)) => Ok((servers, election_type)),
            (servers, election_type) => {
                let options = [("bootstrap-server", servers), ("election-type", election_type)];
                let missing = options.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name);
                let missing: Vec<&str> = missing.collect();
                Err(refuse(format!("Missing required option(s): {}", missing.join(", "))))
            }
        }
    }

    /// The partitions are named in one way.
    fn check_scope(&self) -> Result<(), Refusal> {
        let ways = [self.topic.is_some(), self.all_topic_partitions, self.path_to_json_file.is_some()];
        if ways.iter().filter(|given| **given).count() != 1 {
            let text = "One and only one of the following options is required: topic, all-topic-partitions, \
                        path-to-json-file";
            return Err(refuse(text));
        }
        match (&self.topic, &self.partition) {
            (Some(_), None) => Err(refuse("Missing required option(s): partition")),
            (None, Some(_)) => Err(refuse("Option partition is only allowed if topic is used")),
            _ => Ok(()),
        }
    }

    fn partitions(&self) -> Result<Option<Vec<(String, i32)>>, Refusal> {
        if let Some(path) = &self.path_to_json_file {
            return Ok(Some(partitions::from_file(path)?));
        }
        let (Some(topic), Some(partition)) = (&self.topic, &self.partition) else { return Ok(None) };
        let number = partition.parse().map_err(|_| Failure::of_number("partition", partition))?;
        Ok(Some(vec![(topic.clone(), number)]))
    }
}
