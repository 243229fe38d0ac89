//! `storage` (`kafka-storage`): formats log directories and looks at them.

mod format;
mod info;
mod scram;

#[cfg(test)]
mod fixture_tests;

use std::path::Path;

use clap::{Args, Parser, Subcommand};
use ringlog_config::{ConfigMap, ServerConfig};
use ringlog_metadata::features::Feature;
use ringlog_types::{Random, Uuid};

use super::client_config::read_properties;
use super::feature_tables;
use super::output::Output;
use super::tool::{self, Refusal};

pub use format::now;

/// The Kafka storage tool.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true)]
pub struct StorageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get information about the Kafka log directories on this node.
    Info(ConfigArgs),
    /// Format the Kafka log directories on this node.
    Format(format::FormatArgs),
    /// Print the features that belong to a metadata version.
    VersionMapping(VersionMappingArgs),
    /// Print what feature versions depend on.
    FeatureDependencies(FeatureArgs),
    /// Print a random UUID.
    RandomUuid,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The Kafka configuration file to use.
    #[arg(long, short)]
    config: String,
}

#[derive(Debug, Args)]
struct VersionMappingArgs {
    /// The release version: 3.3-IV3 at least. (default: 4.3-IV0)
    #[arg(long, short)]
    release_version: Option<String>,
}

#[derive(Debug, Args)]
struct FeatureArgs {
    /// A feature and its version, feature=version. May be given several times.
    #[arg(long, short, required = true)]
    feature: Vec<String>,
}

impl StorageArgs {
    /// Reads the arguments.
    pub fn read(tool: &str, arguments: &[String]) -> Result<StorageArgs, Refusal> {
        tool::parse(tool, arguments)
    }
}

/// Runs the tool and returns its exit code.
pub fn run(args: StorageArgs, out: &mut dyn Output) -> u8 {
    let mut random = Random::from_seed(super::random_seed());
    let outcome = match args.command {
        Command::Info(args) => info::run(&args.config, out),
        Command::Format(args) => format::run(&args, &mut random, out).map(|()| 0),
        Command::VersionMapping(args) => {
            feature_tables::version_mapping(args.release_version.as_deref(), out).map(|()| 0)
        }
        Command::FeatureDependencies(args) => {
            args.feature.iter().try_for_each(|feature| feature_dependencies(feature, out)).map(|()| 0)
        }
        Command::RandomUuid => {
            out.line(&Uuid::random(&mut random).to_string());
            Ok(0)
        }
    };
    outcome.unwrap_or_else(|text| {
        out.error(&text);
        1
    })
}

/// Reads and checks a node's configuration; all that is wrong is in the error, a line each.
fn read_config(path: &str) -> Result<ServerConfig, String> {
    let properties: ConfigMap = read_properties(Path::new(path))?;
    let (config, _) = ServerConfig::from_properties(&properties)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(config)
}

/// All log directories, the metadata's too, sorted.
fn directories(config: &ServerConfig) -> Vec<String> {
    let mut directories = config.log_dirs.clone();
    directories.push(config.metadata_log_dir.clone());
    directories.sort();
    directories.dedup();
    directories
}

/// `feature=version`, with this tool's own words for one that can't be.
fn feature_dependencies(argument: &str, out: &mut dyn Output) -> Result<(), String> {
    let expected = "Expected format: 'feature=version' (e.g. 'group.version=1')";
    let (name, level) =
        argument.split_once('=').ok_or_else(|| format!("Invalid feature format: {argument}. {expected}"))?;
    let (name, level) = (name.trim(), level.trim());
    let level = level.parse().map_err(|_| format!("Invalid version format: {level} for feature {name}"))?;
    let no_such_level =
        |feature: &Feature, level: i16| format!("Feature level {level} is not supported for feature {}", feature.name);
    feature_tables::feature_dependencies((name, level), no_such_level, out)
}

/// Formats the directories of a node with static voters: `storage format -t CLUSTER_ID`.
pub fn format_directories(
    config: &ServerConfig,
    cluster_id: &str,
    random: &mut Random,
    out: &mut dyn Output,
) -> Result<(), String> {
    let args = format::FormatArgs { cluster_id: cluster_id.to_owned(), ..format::FormatArgs::default() };
    format::format(&args, config, random, format::now(), out)
}
