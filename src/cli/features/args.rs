//! The options of `features`.

use crate::cli::argparse::{self, Command, End, Grammar, Kind, Opt};
use crate::cli::tool::Refusal;

const FEATURE: &str = "A feature and its level, feature=level. May be given several times.";
const METADATA: &str = "DEPRECATED. The release for metadata.version alone, such as 4.3-IV0.";
const RELEASE: &str = "The release whose levels all features get, such as 4.3. See version-mapping.";
const DRY_RUN: &str = "Have it checked, and change nothing.";
const UNSAFE: &str = "Do it even if metadata may be lost for good.";

const GRAMMAR: Grammar = Grammar {
    program: "kafka-features",
    about: "Shows and changes which features the cluster uses.",
    options: &[
        Opt::new(
            &["--bootstrap-server"],
            Kind::Text,
            "Brokers to begin with, HOST:PORT[,HOST:PORT]. They pass requests on to the controllers.",
        ),
        Opt::new(&["--bootstrap-controller"], Kind::Text, "Controllers to begin with, HOST:PORT[,HOST:PORT]."),
        Opt::new(&["--command-config"], Kind::Text, "A properties file for the client."),
    ],
    exclusive: ["--bootstrap-server", "--bootstrap-controller"],
    is_one_required: false,
    commands: &[
        Command {
            name: "describe",
            about: "Show what a node supports and what the cluster uses.",
            options: &[Opt::new(&["--node-id"], Kind::Number, "The node to ask; any if not given.")],
        },
        Command {
            name: "upgrade",
            about: "Raise levels.",
            options: &[
                Opt::new(&["--metadata"], Kind::Text, METADATA),
                Opt::new(&["--release-version"], Kind::Text, RELEASE),
                Opt::new(&["--feature"], Kind::List, FEATURE),
                Opt::new(&["--dry-run"], Kind::Switch, DRY_RUN),
            ],
        },
        Command {
            name: "downgrade",
            about: "Lower levels.",
            options: &[
                Opt::new(&["--metadata"], Kind::Text, METADATA),
                Opt::new(&["--release-version"], Kind::Text, RELEASE),
                Opt::new(&["--feature"], Kind::List, FEATURE),
                Opt::new(&["--unsafe"], Kind::Switch, UNSAFE),
                Opt::new(&["--dry-run"], Kind::Switch, DRY_RUN),
            ],
        },
        Command {
            name: "disable",
            about: "Lower levels to 0.",
            options: &[
                Opt::new(&["--feature"], Kind::List, "A feature. May be given several times."),
                Opt::new(&["--unsafe"], Kind::Switch, UNSAFE),
                Opt::new(&["--dry-run"], Kind::Switch, DRY_RUN),
            ],
        },
        Command {
            name: "version-mapping",
            about: "Show the levels that belong to a release.",
            options: &[Opt::new(
                &["--release-version"],
                Kind::Text,
                "The release: 3.3-IV3 at least, 4.3-IV0 if not given.",
            )],
        },
        Command {
            name: "feature-dependencies",
            about: "Show what levels need of other features.",
            options: &[Opt::new(&["--feature"], Kind::List, FEATURE).required()],
        },
    ],
};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Show the features of a node and the cluster.
    Describe {
        /// The node, or any.
        node_id: Option<i32>,
    },
    /// Change levels.
    Change(Change),
    /// Show a release's levels.
    VersionMapping {
        /// The release.
        release_version: Option<String>,
    },
    /// Show what levels need.
    FeatureDependencies {
        /// `feature=level`.
        features: Vec<String>,
    },
}

/// Which way levels go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Up.
    Upgrade,
    /// Down.
    Downgrade,
    /// Down to 0.
    Disable,
}

impl Direction {
    /// `upgrade`.
    pub fn verb(self) -> &'static str {
        match self {
            Direction::Upgrade => "upgrade",
            Direction::Downgrade => "downgrade",
            Direction::Disable => "disable",
        }
    }
}

/// Levels to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which way.
    pub direction: Direction,
    /// The release for metadata.version.
    pub metadata: Option<String>,
    /// The release for all.
    pub release_version: Option<String>,
    /// `feature=level`, or features to disable.
    pub features: Vec<String>,
    /// Whether metadata may get lost.
    pub is_unsafe: bool,
    /// Only check.
    pub dry_run: bool,
}

/// A line of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeaturesArgs {
    /// Brokers to begin with.
    pub servers: Option<String>,
    /// Or controllers.
    pub controllers: Option<String>,
    /// A properties file.
    pub command_config: Option<String>,
    /// What to do.
    pub action: Action,
}

/// What the tool says of a line that can't be. Kafka's ends it without a line end.
pub fn line_error(message: &str) -> String {
    format!("Command line error: {message}. Type --help for help.")
}

impl FeaturesArgs {
    /// Reads the arguments.
    pub fn read(arguments: &[String]) -> Result<FeaturesArgs, Refusal> {
        let parsed = argparse::parse(&GRAMMAR, arguments).map_err(|end| match end {
            End::Help(text) => Refusal { exit_code: 0, stdout: text, stderr: String::new() },
            End::Fault { message, .. } => Refusal { exit_code: 1, stdout: String::new(), stderr: line_error(&message) },
        })?;
        let change = |direction| Change {
            direction,
            metadata: parsed.text("--metadata"),
            release_version: parsed.text("--release-version"),
            features: parsed.list("--feature"),
            is_unsafe: parsed.is_given("--unsafe"),
            dry_run: parsed.is_given("--dry-run"),
        };
        let action = match parsed.command {
            "describe" => Action::Describe { node_id: parsed.number("--node-id") },
            "upgrade" => Action::Change(change(Direction::Upgrade)),
            "downgrade" => Action::Change(change(Direction::Downgrade)),
            "disable" => Action::Change(change(Direction::Disable)),
            "version-mapping" => Action::VersionMapping { release_version: parsed.text("--release-version") },
            _ => Action::FeatureDependencies { features: parsed.list("--feature") },
        };
        Ok(FeaturesArgs {
            servers: parsed.text("--bootstrap-server"),
            controllers: parsed.text("--bootstrap-controller"),
            command_config: parsed.text("--command-config"),
            action,
        })
    }
}
