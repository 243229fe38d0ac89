//! The options of `reassign-partitions` and which of them go together.

use clap::Parser;

use super::fault::Fault;
use crate::cli::exception::Exception;
use crate::cli::jopt::{self, Words};
use crate::cli::tool::{self, Refusal};

const ABOUT: &str = "This tool moves partitions between brokers, and replicas between the log directories of a broker.";
const TOOL: &str = "kafka-reassign-partitions";

/// The options.
#[derive(Debug, Clone, Default, Parser)]
#[command(about = ABOUT, next_line_help = true, term_width = 100)]
pub struct ReassignPartitionsArgs {
    /// Print the version.
    #[arg(long)]
    pub version: bool,
    /// Say whether a reassignment is done, and if so remove its throttles.
    #[arg(long)]
    pub verify: bool,
    /// Propose a reassignment of topics to brokers; nothing is moved.
    #[arg(long)]
    pub generate: bool,
    /// Begin the reassignment of --reassignment-json-file.
    #[arg(long)]
    pub execute: bool,
    /// Cancel a reassignment that is under way.
    #[arg(long)]
    pub cancel: bool,
    /// List all reassignments under way.
    #[arg(long)]
    pub list: bool,
    /// Where the cluster is reached, HOST:PORT[,HOST:PORT].
    #[arg(long, value_name = "Server(s) to use for bootstrapping", num_args = 0..=1)]
    pub bootstrap_server: Option<Option<String>>,
    /// Where controllers are reached, with --cancel and --list only.
    #[arg(long, value_name = "bootstrap controller to connect to", num_args = 0..=1)]
    pub bootstrap_controller: Option<Option<String>>,
    /// A properties file for the client.
    #[arg(long, value_name = "Admin client property file")]
    pub command_config: Option<String>,
    /// The reassignment: {"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],
    /// "log_dirs":["any","/data/1"]}]}. "log_dirs" may be left out; "any" leaves the choice to the broker.
    #[arg(long, value_name = "manual assignment json file path")]
    pub reassignment_json_file: Option<String>,
    /// The topics of --generate: {"version":1,"topics":[{"topic":"t"}]}.
    #[arg(long, value_name = "topics to reassign json file path")]
    pub topics_to_move_json_file: Option<String>,
    /// The brokers that --generate may give replicas to: 1,2,3.
    #[arg(long, value_name = "brokerlist")]
    pub broker_list: Option<String>,
    /// Have --generate pay no heed to racks.
    #[arg(long)]
    pub disable_rack_aware: bool,
    /// How many bytes a second may be moved between brokers. With --additional, also for what is under way.
    #[arg(long, value_name = "throttle")]
    pub throttle: Option<String>,
    /// How many bytes a second may be moved between log directories of a broker.
    #[arg(long, value_name = "replicaAlterLogDirsThrottle")]
    pub replica_alter_log_dirs_throttle: Option<String>,
    /// How many milliseconds to wait for moves between log directories to begin (10000 if not given).
    #[arg(long, value_name = "timeout")]
    pub timeout: Option<String>,
    /// Execute although other reassignments are under way; also to change their throttle.
    #[arg(long)]
    pub additional: bool,
    /// Leave throttles as they are.
    #[arg(long)]
    pub preserve_throttles: bool,
    /// Refuse a reassignment that changes how many replicas a partition has.
    #[arg(long)]
    pub disallow_replication_factor_change: bool,
}

/// What to do, with the options that it needs and those that it may have besides.
struct Action {
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

/// Options that go with every action.
const COMMON: &[&str] = &["bootstrap-server", "command-config"];

const ACTIONS: &[Action] = &[
    Action { name: "verify", required: &["reassignment-json-file"], optional: &["preserve-throttles"] },
    Action {
        name: "generate",
        required: &["topics-to-move-json-file", "broker-list"],
        optional: &["disable-rack-aware"],
    },
    Action {
        name: "execute",
        required: &["reassignment-json-file"],
        optional: &[
            "additional",
            "disallow-replication-factor-change",
            "replica-alter-log-dirs-throttle",
            "throttle",
            "timeout",
        ],
    },
    Action {
        name: "cancel",
        required: &["reassignment-json-file"],
        optional: &["bootstrap-controller", "preserve-throttles", "timeout"],
    },
    Action { name: "list", required: &[], optional: &["bootstrap-controller"] },
];

/// What jopt-simple's exceptions are called that nobody catches in Kafka's tool.
fn refuse(fault: &jopt::Fault) -> Refusal {
    let uncaught = |class: &str| {
        let exception = Exception::new(&format!("joptsimple.{class}"), fault.to_string());
        Refusal::error(format!("Exception in thread \"main\" {exception}"))
    };
    match fault {
        jopt::Fault::Empty | jopt::Fault::Help => fault.with_help::<ReassignPartitionsArgs>(TOOL),
        jopt::Fault::Unrecognized(_) => uncaught("UnrecognizedOptionException"),
        jopt::Fault::MissingArgument(_) => uncaught("OptionMissingRequiredArgumentException"),
        jopt::Fault::Repeated(_) => {
            let class = "joptsimple.MultipleArgumentsForOptionException";
            let stdout = Fault::from_thrown(Exception::new(class, fault.to_string())).to_string();
            Refusal { exit_code: 1, stdout, stderr: String::new() }
        }
    }
}

/// The options of a line in its order, by their names.
fn names(arguments: &[String]) -> impl Iterator<Item = &str> {
    let options = arguments.iter().filter(|argument| argument.starts_with('-'));
    options.map(|option| option.trim_start_matches('-').split('=').next().unwrap_or_default())
}

impl ReassignPartitionsArgs {
    /// Reads and checks the arguments.
    pub fn read(arguments: &[String]) -> Result<ReassignPartitionsArgs, Refusal> {
        let args: ReassignPartitionsArgs =
            jopt::parse(TOOL, Words::Ignored, arguments).map_err(|fault| refuse(&fault))?;
        if args.version {
            return Err(tool::version_asked());
        }
        args.check(arguments)?;
        Ok(args)
    }

    fn check(&self, arguments: &[String]) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::with_help::<ReassignPartitionsArgs>(TOOL, text));
        let mut given = ACTIONS.iter().filter(|action| self.is_given(action.name));
        let (Some(action), None) = (given.next(), given.next()) else {
            return refuse(
                "Command must include exactly one action: --generate, --execute, --verify, --cancel, --list",
            );
        };
        match (&self.bootstrap_server, &self.bootstrap_controller) {
            (None, None) => return refuse("Please specify either --bootstrap-server or --bootstrap-controller"),
            (Some(_), Some(_)) => {
                return refuse("Please don't specify both --bootstrap-server and --bootstrap-controller");
            }
            _ => {}
        }
        if let Some(missing) = action.required.iter().find(|option| !self.is_given(option)) {
            return Err(tool::missing::<ReassignPartitionsArgs>(TOOL, missing));
        }
        let goes_with_it = |option: &str| {
            option == action.name
                || [COMMON, action.required, action.optional].iter().any(|them| them.contains(&option))
        };
        match names(arguments).find(|option| self.is_given(option) && !goes_with_it(option)) {
            Some(option) => refuse(&format!("Option \"[{option}]\" can't be used with action \"[{}]\"", action.name)),
            None => Ok(()),
        }
    }

    fn is_given(&self, option: &str) -> bool {
        match option {
            "verify" => self.verify,
            "generate" => self.generate,
            "execute" => self.execute,
            "cancel" => self.cancel,
            "list" => self.list,
            "bootstrap-server" => self.bootstrap_server.is_some(),
            "bootstrap-controller" => self.bootstrap_controller.is_some(),
            "command-config" => self.command_config.is_some(),
            "reassignment-json-file" => self.reassignment_json_file.is_some(),
            "topics-to-move-json-file" => self.topics_to_move_json_file.is_some(),
            "broker-list" => self.broker_list.is_some(),
            "disable-rack-aware" => self.disable_rack_aware,
            "throttle" => self.throttle.is_some(),
            "replica-alter-log-dirs-throttle" => self.replica_alter_log_dirs_throttle.is_some(),
            "timeout" => self.timeout.is_some(),
            "additional" => self.additional,
            "preserve-throttles" => self.preserve_throttles,
            "disallow-replication-factor-change" => self.disallow_replication_factor_change,
            _ => false,
        }
    }
}
