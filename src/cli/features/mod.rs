//! `features` (`kafka-features`): shows and changes which features the cluster uses (KIP-584, KIP-1022).

mod args;
mod describe;
mod update;

use ringlog_metadata::features::Feature;

pub use args::FeaturesArgs;

use self::args::Action;
use super::admin::{self, Admin, AdminError};
use super::exception::Exception;
use super::feature_tables;
use super::output::Output;

/// Why the command failed. The texts are those that Kafka's tool prints.
#[derive(Debug, thiserror::Error)]
enum FeaturesError {
    /// Arguments that don't go together.
    #[error("{}", args::line_error(.0))]
    Line(&'static str),
    /// What the user asks for can't be.
    #[error("{0}")]
    Invalid(String),
    /// There is no client.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The cluster can't be asked.
    #[error(transparent)]
    Cluster(#[from] Exception),
}

/// Runs the tool and returns its exit code.
pub fn run(args: &FeaturesArgs, out: &mut dyn Output) -> u8 {
    match execute(args, out) {
        Ok(()) => 0,
        Err(FeaturesError::Line(message)) => {
            out.write_error(&args::line_error(message));
            1
        }
        Err(fault) => {
            out.error(&fault.to_string());
            1
        }
    }
}

fn execute(args: &FeaturesArgs, out: &mut dyn Output) -> Result<(), FeaturesError> {
    match &args.action {
        Action::VersionMapping { release_version } => {
            return feature_tables::version_mapping(release_version.as_deref(), out).map_err(FeaturesError::Invalid);
        }
        Action::FeatureDependencies { features } => {
            let print = |argument: &String| {
                let (feature, level) = feature_tables::parse_feature(argument)?;
                feature_tables::feature_dependencies((&feature, level), no_such_level, out)
            };
            return features.iter().try_for_each(print).map_err(FeaturesError::Invalid);
        }
        Action::Describe { .. } | Action::Change(_) => {}
    }
    let config = admin::read_config(args.command_config.as_deref(), str::to_owned).map_err(FeaturesError::Invalid)?;
    if args.servers.is_none() && args.controllers.is_none() {
        return Err(FeaturesError::Line("You must specify either --bootstrap-controller or --bootstrap-server."));
    }
    let mut admin = Admin::new(args.servers.clone(), args.controllers.clone(), &config)?;
    match &args.action {
        Action::Describe { node_id } => describe::run(&mut admin, *node_id, out),
        Action::Change(change) => update::run(&mut admin, change, out),
        Action::VersionMapping { .. } | Action::FeatureDependencies { .. } => Ok(()),
    }
}

/// What Kafka's tool says of a level that the feature doesn't have.
fn no_such_level(feature: &Feature, level: i16) -> String {
    format!("No feature:{} with feature level {level}", feature.name)
}
