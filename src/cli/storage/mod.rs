//! `storage` (`kafka-storage`): formats log directories and looks at them.

mod format;
mod info;
mod scram;

#[cfg(test)]
mod fixture_tests;

use std::path::Path;

use clap::{Args, Parser, Subcommand};
use ringlog_config::{ConfigMap, ServerConfig};
use ringlog_metadata::features::{FEATURES, METADATA_VERSION, MetadataVersion};
use ringlog_types::{Random, Uuid};

use super::client_config::read_properties;
use super::output::Output;
use super::tool::{self, Refusal, Style};

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
        tool::parse(tool, Style::Argparse, arguments)
    }
}

/// Runs the tool and returns its exit code.
pub fn run(args: StorageArgs, out: &mut dyn Output) -> u8 {
    let mut random = Random::from_seed(super::random_seed());
    let outcome = match args.command {
        Command::Info(args) => info::run(&args.config, out),
        Command::Format(args) => format::run(&args, &mut random, out).map(|()| 0),
        Command::VersionMapping(args) => version_mapping(args.release_version.as_deref(), out).map(|()| 0),
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

fn version_mapping(release: Option<&str>, out: &mut dyn Output) -> Result<(), String> {
    let version = match release {
        None => MetadataVersion::LATEST_PRODUCTION,
        Some(name) => MetadataVersion::from_name(name).ok_or_else(|| {
            let known: Vec<&str> = MetadataVersion::all().map(MetadataVersion::name).collect();
            format!("Unknown metadata.version '{name}'. Supported metadata.version are: {}", known.join(", "))
        })?,
    };
    out.line(&format!("{METADATA_VERSION}={} ({version})", version.0));
    for feature in FEATURES.iter().filter(|feature| feature.name != METADATA_VERSION) {
        out.line(&format!("{}={}", feature.name, feature.default_level(version)));
    }
    Ok(())
}

fn feature_dependencies(argument: &str, out: &mut dyn Output) -> Result<(), String> {
    let (name, level) = parse_feature(argument)?;
    let feature = ringlog_metadata::features::feature(&name).ok_or_else(|| format!("Unknown feature: {name}"))?;
    if !feature.has_level(level) {
        return Err(format!("Feature level {level} is not supported for feature {name}"));
    }
    let shown = show_level(&name, level);
    match feature.dependencies(level) {
        [] => out.line(&format!("{shown} has no dependencies.")),
        dependencies => {
            out.line(&format!("{shown} requires:"));
            dependencies.iter().for_each(|(name, level)| out.line(&format!("    {}", show_level(name, *level))));
        }
    }
    Ok(())
}

/// `name=level`, for metadata.version with the level's name.
fn show_level(name: &str, level: i16) -> String {
    match name {
        METADATA_VERSION => format!("{name}={level} ({})", MetadataVersion(level)),
        _ => format!("{name}={level}"),
    }
}

fn parse_feature(argument: &str) -> Result<(String, i16), String> {
    let fault = |reason: String| format!("Can't parse feature=level string {argument}: {reason}");
    let (name, level) = argument.split_once('=').ok_or_else(|| fault("equals sign not found.".to_owned()))?;
    let parsed = level.trim().parse().map_err(|_| fault(format!("unable to parse {level} as a short.")))?;
    Ok((name.trim().to_owned(), parsed))
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
