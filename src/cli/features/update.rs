//! `features upgrade`, `downgrade` and `disable`.

use std::collections::BTreeMap;

use ringlog_client::Target;
use ringlog_metadata::features::{FEATURES, METADATA_VERSION};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::update_features_request::FeatureUpdateKey;
use ringlog_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ringlog_types::ErrorCode;

use super::FeaturesError;
use super::args::{Change, Direction};
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::feature_tables::{metadata_version, parse_feature};
use crate::cli::output::Output;

/// `upgrade_type` of UpdateFeatures: up.
const UPGRADE: i8 = 1;
/// Down unless metadata would get lost.
const SAFE_DOWNGRADE: i8 = 2;
/// Down in any case.
const UNSAFE_DOWNGRADE: i8 = 3;

/// Level by feature.
type Levels = BTreeMap<String, i16>;

/// Has the cluster change the levels, and prints what became of each feature.
pub fn run(admin: &mut Admin, change: &Change, out: &mut dyn Output) -> Result<(), FeaturesError> {
    let levels = levels(change, out).map_err(FeaturesError::Invalid)?;
    if levels.contains_key("") {
        return Err(FeaturesError::Invalid("Provided feature can not be empty.".to_owned()));
    }
    let upgrade_type = match change.direction {
        Direction::Upgrade => UPGRADE,
        _ if change.is_unsafe => UNSAFE_DOWNGRADE,
        _ => SAFE_DOWNGRADE,
    };
    let update = |(feature, level): (&String, &i16)| FeatureUpdateKey {
        feature: StrBytes::copy_from(feature),
        max_version_level: *level,
        upgrade_type,
        ..FeatureUpdateKey::default()
    };
    let request = UpdateFeaturesRequest {
        timeout_ms: admin.request_timeout_ms(),
        feature_updates: levels.iter().map(update).collect(),
        validate_only: change.dry_run,
    };
    let is_other = |response: &UpdateFeaturesResponse| response.error_code == ErrorCode::NotController.code();
    let answer = admin.ask("updateFeatures", Target::Controller, &request, is_other, out);
    let results = results(&levels, answer);
    results.iter().for_each(|(feature, outcome)| out.line(&outcome_line(change, feature, levels[*feature], outcome)));
    let failed = results.values().filter(|outcome| outcome.is_err()).count();
    match failed {
        0 => Ok(()),
        failed => Err(FeaturesError::Invalid(format!("{failed} out of {} operation(s) failed.", results.len()))),
    }
}

/// What the arguments ask for. The errors are in the order in which Kafka's tool finds them.
fn levels(change: &Change, out: &mut dyn Output) -> Result<Levels, String> {
    let mut levels = Levels::new();
    if let Some(release) = &change.release_version {
        if change.metadata.is_some() || !change.features.is_empty() {
            return Err("Can not specify `release-version` with other feature flags.".to_owned());
        }
        let version = metadata_version(release)?;
        for feature in FEATURES {
            let level = feature.default_level(version);
            // Nothing can be raised to 0.
            if level > 0 || change.direction != Direction::Upgrade {
                levels.insert(feature.name.to_owned(), level);
            }
        }
        return Ok(levels);
    }
    let mut add = |name: String, level: i16| {
        if levels.contains_key(&name) {
            return Err(format!("Feature {name} was specified more than once."));
        }
        if level == 0 && change.direction == Direction::Upgrade {
            return Err("The upgradeType flag should be set to SAFE_DOWNGRADE or UNSAFE_DOWNGRADE when the provided \
                        maxVersionLevel:0 is < 1."
                .to_owned());
        }
        if level < 0 {
            return Err("Cannot specify a negative version level.".to_owned());
        }
        levels.insert(name, level);
        Ok(())
    };
    if let Some(release) = &change.metadata {
        out.line(" `metadata` flag is deprecated and may be removed in a future release.");
        add(METADATA_VERSION.to_owned(), metadata_version(release)?.0)?;
    }
    for argument in &change.features {
        let (name, level) = match change.direction {
            Direction::Disable => (argument.clone(), 0),
            _ => parse_feature(argument)?,
        };
        add(name, level)?;
    }
    if levels.is_empty() {
        return Err(format!("You must specify at least one feature to {}", change.direction.verb()));
    }
    Ok(levels)
}

/// What became of each feature: the same for all, except that old nodes tell them apart.
fn results(
    levels: &Levels,
    answer: Result<UpdateFeaturesResponse, Exception>,
) -> BTreeMap<&str, Result<(), Exception>> {
    let answer = answer.and_then(|response| {
        Exception::check(response.error_code, response.error_message.as_ref())?;
        Ok(response.results)
    });
    let outcome = |feature: &str| {
        let results = answer.as_ref().map_err(Exception::clone)?;
        match results.iter().find(|result| result.feature.as_str() == feature) {
            Some(result) => Exception::check(result.error_code, result.error_message.as_ref()),
            None => Ok(()),
        }
    };
    levels.keys().map(|feature| (feature.as_str(), outcome(feature))).collect()
}

fn outcome_line(change: &Change, feature: &str, level: i16, outcome: &Result<(), Exception>) -> String {
    let verb = change.direction.verb();
    let target = match change.direction {
        Direction::Disable => String::new(),
        _ => format!(" to {level}"),
    };
    match outcome {
        Ok(()) => {
            let done = if change.dry_run { "can be" } else { "was" };
            // "upgraded", "disabled": all end in e.
            format!("{feature} {done} {verb}d{target}.")
        }
        Err(fault) => {
            let failed = if change.dry_run { "Can not" } else { "Could not" };
            format!("{failed} {verb} {feature}{target}. {}", fault.message)
        }
    }
}
