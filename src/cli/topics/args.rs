//! The options of `topics` and which of them go together.

use clap::Parser;

use crate::cli::jopt::{self, Fault, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool helps to create, delete, describe, or change a topic.";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct TopicsArgs {
    /// Print the version.
    #[arg(long)]
    pub version: bool,
    /// REQUIRED: where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "server to connect to")]
    pub bootstrap_server: Option<String>,
    /// A properties file for the client.
    #[arg(long, value_name = "command config property file")]
    pub command_config: Option<String>,
    /// List all topics.
    #[arg(long)]
    pub list: bool,
    /// Create a topic.
    #[arg(long)]
    pub create: bool,
    /// Delete topics.
    #[arg(long)]
    pub delete: bool,
    /// Give topics more partitions. (Configurations are altered by `configs`.)
    #[arg(long)]
    pub alter: bool,
    /// Describe topics.
    #[arg(long)]
    pub describe: bool,
    /// The topic; a regular expression unless it is to be created.
    #[arg(long, value_name = "topic")]
    pub topic: Option<String>,
    /// The id of the topic to describe.
    #[arg(long, value_name = "topic-id")]
    pub topic_id: Option<String>,
    /// A configuration for the topic that is created. May be given several times.
    #[arg(long, value_name = "name=value")]
    pub config: Vec<String>,
    /// No longer supported.
    #[arg(long, value_name = "name")]
    pub delete_config: Vec<String>,
    /// How many partitions there shall be; the cluster's default if not given with --create.
    #[arg(long, value_name = "# of partitions")]
    pub partitions: Option<String>,
    /// How many replicas each partition shall have; the cluster's default if not given.
    #[arg(long, value_name = "replication factor")]
    pub replication_factor: Option<String>,
    /// The replicas of each partition: brokers joined by `:`, partitions by `,`.
    #[arg(long, value_name = "broker:broker,broker:broker,…")]
    pub replica_assignment: Option<String>,
    /// Describe only partitions that lack replicas.
    #[arg(long)]
    pub under_replicated_partitions: bool,
    /// Describe only partitions whose leader is not available.
    #[arg(long)]
    pub unavailable_partitions: bool,
    /// Describe only partitions with fewer in-sync replicas than configured as the minimum.
    #[arg(long)]
    pub under_min_isr_partitions: bool,
    /// Describe only partitions with just as many in-sync replicas as configured as the minimum.
    #[arg(long)]
    pub at_min_isr_partitions: bool,
    /// Describe only topics whose configuration was overridden.
    #[arg(long)]
    pub topics_with_overrides: bool,
    /// Do nothing if the topic to alter, delete or describe doesn't exist.
    #[arg(long)]
    pub if_exists: bool,
    /// Do not fail if the topic to create exists.
    #[arg(long)]
    pub if_not_exists: bool,
    /// Leave out internal topics when listing or describing.
    #[arg(long)]
    pub exclude_internal: bool,
    /// How many partitions one answer may describe.
    #[arg(long, value_name = "maximum number of partitions per response")]
    pub partition_size_limit_per_response: Option<String>,
}

/// Excluded options by option, in the order in which Kafka checks them.
const EXCLUDED: &[(&str, &[&str])] = &[
    ("config", &["delete", "describe", "list"]),
    ("partitions", &["delete", "describe", "list"]),
    ("replication-factor", &["alter", "delete", "describe", "list"]),
    ("replica-assignment", &["delete", "describe", "list"]),
];

const NOT_DESCRIBE: &[&str] = &["alter", "create", "delete", "list", "topics-with-overrides"];

const EXCLUDED_WITH_DESCRIBE: &[(&str, &[&str])] = &[
    ("under-replicated-partitions", NOT_DESCRIBE),
    ("under-min-isr-partitions", NOT_DESCRIBE),
    ("at-min-isr-partitions", NOT_DESCRIBE),
    ("unavailable-partitions", NOT_DESCRIBE),
    (
        "topics-with-overrides",
        &[
            "alter",
            "at-min-isr-partitions",
            "create",
            "delete",
            "list",
            "unavailable-partitions",
            "under-min-isr-partitions",
            "under-replicated-partitions",
        ],
    ),
    ("if-exists", &["create", "list"]),
    ("if-not-exists", &["alter", "delete", "describe", "list"]),
    ("exclude-internal", &["alter", "create", "delete"]),
];

/// Kafka's tool has its help for those who ask only; an option that was given twice it finds when it is at work.
fn refuse(tool: &str, fault: &Fault) -> Refusal {
    match fault {
        Fault::Empty | Fault::Help => fault.with_help::<TopicsArgs>(tool),
        Fault::Repeated(option) if option != "bootstrap-server" => Refusal {
            exit_code: 1,
            stdout: format!("Error while executing topic command : {fault}\n"),
            stderr: format!(
                "ERROR joptsimple.MultipleArgumentsForOptionException: {fault}\n (org.apache.kafka.tools.TopicCommand)\n"
            ),
        },
        fault => Refusal::error(fault.to_string()),
    }
}

impl TopicsArgs {
    /// Reads and checks the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<TopicsArgs, Refusal> {
        let args: TopicsArgs = jopt::parse(tool, Words::Ignored, arguments).map_err(|fault| refuse(tool, &fault))?;
        if args.version {
            return Err(tool::version_asked());
        }
        args.check(tool)?;
        Ok(args)
    }

    fn check(&self, tool: &str) -> Result<(), Refusal> {
        let actions = [self.list, self.describe, self.create, self.alter, self.delete];
        if actions.iter().filter(|given| **given).count() != 1 {
            let text = "Command must include exactly one action: --list, --describe, --create, --alter or --delete";
            return Err(Refusal::with_help::<TopicsArgs>(tool, text));
        }
        if self.bootstrap_server.is_none() {
            return Err(Refusal::error("--bootstrap-server must be specified"));
        }
        if (self.create || self.alter || self.delete) && self.topic.is_none() {
            return Err(tool::missing::<TopicsArgs>(tool, "topic"));
        }
        let given = |option: &str| self.is_given(option);
        let excluded = |option: &str, others: &[&str]| tool::check_excluded::<TopicsArgs>(tool, &given, option, others);
        if self.alter {
            if !self.config.is_empty() {
                let text = "Option \"[config]\" can't be used with option \"[alter]\" (the kafka-configs tool can be \
                            used to alter topic configurations)";
                return Err(Refusal::with_help::<TopicsArgs>(tool, text));
            }
            if self.partitions.is_none() {
                return Err(tool::missing::<TopicsArgs>(tool, "partitions"));
            }
        }
        for (option, others) in EXCLUDED {
            excluded(option, others)?;
        }
        if self.create {
            excluded("replica-assignment", &["partitions", "replication-factor"])?;
        }
        for (option, others) in EXCLUDED_WITH_DESCRIBE {
            excluded(option, others)?;
        }
        if !self.delete_config.is_empty() {
            return Err(Refusal::error("Option delete-config is no longer supported."));
        }
        Ok(())
    }

    fn is_given(&self, option: &str) -> bool {
        match option {
            "list" => self.list,
            "create" => self.create,
            "delete" => self.delete,
            "alter" => self.alter,
            "describe" => self.describe,
            "config" => !self.config.is_empty(),
            "partitions" => self.partitions.is_some(),
            "replication-factor" => self.replication_factor.is_some(),
            "replica-assignment" => self.replica_assignment.is_some(),
            "under-replicated-partitions" => self.under_replicated_partitions,
            "unavailable-partitions" => self.unavailable_partitions,
            "under-min-isr-partitions" => self.under_min_isr_partitions,
            "at-min-isr-partitions" => self.at_min_isr_partitions,
            "topics-with-overrides" => self.topics_with_overrides,
            "if-exists" => self.if_exists,
            "if-not-exists" => self.if_not_exists,
            "exclude-internal" => self.exclude_internal,
            _ => false,
        }
    }
}
