//! The options of `metadata-quorum`.

use crate::cli::argparse::{self, Command, End, Grammar, Kind, Opt};
use crate::cli::tool::Refusal;

const GRAMMAR: Grammar = Grammar {
    program: "kafka-metadata-quorum",
    about: "Shows the controllers' quorum, and changes who is in it.",
    options: &[
        Opt::new(
            &["--bootstrap-server"],
            Kind::Text,
            "Brokers to begin with, HOST:PORT[,HOST:PORT]. They pass requests on to the controllers.",
        ),
        Opt::new(&["--bootstrap-controller"], Kind::Text, "Controllers to begin with, HOST:PORT[,HOST:PORT]."),
        Opt::new(
            &["--command-config"],
            Kind::Text,
            "A properties file for the client. For add-controller it is the configuration of the controller, too.",
        ),
    ],
    exclusive: ["--bootstrap-server", "--bootstrap-controller"],
    is_one_required: true,
    commands: &[
        Command {
            name: "describe",
            about: "Show the state of the quorum",
            options: &[
                Opt::new(&["--status"], Kind::Switch, "Show leader, voters and observers, and how far voters lag.")
                    .under("Status"),
                Opt::new(&["--replication"], Kind::Switch, "Show how far each replica is.").under("Replication"),
                Opt::new(&["--human-readable"], Kind::Switch, "Show times as ages.").under("Replication"),
            ],
        },
        Command {
            name: "add-controller",
            about: "Make a controller that follows the quorum a voter",
            options: &[Opt::new(&["--dry-run"], Kind::Switch, "Say what would be done, and don't do it.")],
        },
        Command {
            name: "remove-controller",
            about: "Take a voter out of the quorum",
            options: &[
                Opt::new(&["--controller-id", "-i"], Kind::Number, "The controller's node id.").required(),
                Opt::new(&["--controller-directory-id", "-d"], Kind::Text, "The id of its metadata directory.")
                    .required(),
                Opt::new(&["--dry-run"], Kind::Switch, "Say what would be done, and don't do it."),
            ],
        },
    ],
};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Show the quorum.
    Describe {
        /// As a whole.
        status: bool,
        /// Replica by replica.
        replication: bool,
        /// With ages for times.
        human_readable: bool,
    },
    /// Add the controller whose configuration is given.
    AddController {
        /// Only say so.
        dry_run: bool,
    },
    /// Remove a controller.
    RemoveController {
        /// Its id.
        id: i32,
        /// Its directory's id.
        directory_id: String,
        /// Only say so.
        dry_run: bool,
    },
}

/// A line of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataQuorumArgs {
    /// Brokers to begin with.
    pub servers: Option<String>,
    /// Or controllers.
    pub controllers: Option<String>,
    /// A properties file.
    pub command_config: Option<String>,
    /// What to do.
    pub action: Action,
}

impl MetadataQuorumArgs {
    /// Reads the arguments.
    pub fn read(arguments: &[String]) -> Result<MetadataQuorumArgs, Refusal> {
        let parsed = argparse::parse(&GRAMMAR, arguments).map_err(|end| match end {
            End::Help(text) => Refusal { exit_code: 0, stdout: text, stderr: String::new() },
            End::Fault { usage, message } => {
                let stderr = usage + &argparse::error_lines(&GRAMMAR, &message);
                Refusal { exit_code: 1, stdout: String::new(), stderr }
            }
        })?;
        let dry_run = parsed.is_given("--dry-run");
        let action = match parsed.command {
            "describe" => Action::Describe {
                status: parsed.is_given("--status"),
                replication: parsed.is_given("--replication"),
                human_readable: parsed.is_given("--human-readable"),
            },
            "add-controller" => Action::AddController { dry_run },
            _ => Action::RemoveController {
                id: parsed.number("--controller-id").unwrap_or_default(),
                directory_id: parsed.text("--controller-directory-id").unwrap_or_default(),
                dry_run,
            },
        };
        Ok(MetadataQuorumArgs {
            servers: parsed.text("--bootstrap-server"),
            controllers: parsed.text("--bootstrap-controller"),
            command_config: parsed.text("--command-config"),
            action,
        })
    }
}
