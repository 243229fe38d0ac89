//! `features describe`.

use std::collections::BTreeMap;

use ringlog_client::Target;
use ringlog_metadata::features::{METADATA_VERSION, MetadataVersion};
use ringlog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::FeaturesError;
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::output::Output;

/// Describes what the node supports and what it thinks that the cluster uses.
pub fn run(admin: &mut Admin, node_id: Option<i32>, out: &mut dyn Output) -> Result<(), FeaturesError> {
    let target = match node_id {
        None => Target::Any,
        Some(id) if id < 0 => {
            return Err(FeaturesError::Invalid(format!("Invalid node id {id}: must be non-negative.")));
        }
        Some(id) => Target::Node(id),
    };
    let request = ApiVersionsRequest {
        client_software_name: "ringlog".into(),
        client_software_version: env!("CARGO_PKG_VERSION").into(),
    };
    let response = admin.ask("describeFeatures", target, &request, |_| false, out)?;
    Exception::check(response.error_code, None)?;
    out.write(lines(&response).as_bytes());
    Ok(())
}

/// A line for each feature that the node supports, by name.
pub fn lines(response: &ApiVersionsResponse) -> String {
    let finalized: BTreeMap<&str, i16> =
        response.finalized_features.iter().map(|it| (it.name.as_str(), it.max_version_level)).collect();
    let epoch = match response.finalized_features_epoch {
        -1 => "-".to_owned(),
        epoch => epoch.to_string(),
    };
    let supported: BTreeMap<&str, (i16, i16)> =
        response.supported_features.iter().map(|it| (it.name.as_str(), (it.min_version, it.max_version))).collect();
    let line = |(name, (min, max)): (&&str, &(i16, i16))| {
        let level = |level: i16| level_text(name, level);
        format!(
            "Feature: {name:<40}  SupportedMinVersion: {:<15}  SupportedMaxVersion: {:<15}  FinalizedVersionLevel: \
             {:<15}  Epoch: {epoch}\n",
            level(*min),
            level(*max),
            level(finalized.get(name).copied().unwrap_or(0))
        )
    };
    supported.iter().map(line).collect()
}

/// metadata.version's levels go by their names.
fn level_text(feature: &str, level: i16) -> String {
    match (feature, MetadataVersion::from_level(level)) {
        (METADATA_VERSION, Some(version)) => version.name().to_owned(),
        (METADATA_VERSION, None) => format!("UNKNOWN {level}"),
        _ => level.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};

    use super::*;

    fn described(epoch: i64, supported: &[(&'static str, i16, i16)], finalized: &[(&'static str, i16)]) -> String {
        let supported = supported.iter().map(|(name, min_version, max_version)| SupportedFeatureKey {
            name: (*name).into(),
            min_version: *min_version,
            max_version: *max_version,
        });
        let finalized = finalized.iter().map(|(name, level)| FinalizedFeatureKey {
            name: (*name).into(),
            max_version_level: *level,
            min_version_level: *level,
        });
        lines(&ApiVersionsResponse {
            supported_features: supported.collect(),
            finalized_features: finalized.collect(),
            finalized_features_epoch: epoch,
            ..ApiVersionsResponse::default()
        })
    }

    /// Against what Kafka's tool printed for the same answers.
    #[test]
    fn features_are_shown_as_kafka_shows_them() {
        let supported = [("metadata.version", 1, 99), ("aaa", 0, 3)];
        let expected = "\
Feature: aaa                                       SupportedMinVersion: 0                SupportedMaxVersion: 3                FinalizedVersionLevel: 0                Epoch: 5
Feature: metadata.version                          SupportedMinVersion: UNKNOWN 1        SupportedMaxVersion: UNKNOWN 99       FinalizedVersionLevel: UNKNOWN 99       Epoch: 5
";
        assert_eq!(described(5, &supported, &[("metadata.version", 99), ("zzz", 3)]), expected);
        let expected = "\
Feature: a-very-long-feature-name-that-is-longer-than-the-column  SupportedMinVersion: 0                SupportedMaxVersion: 32767            FinalizedVersionLevel: 0                Epoch: -
Feature: metadata.version                          SupportedMinVersion: 3.3-IV3          SupportedMaxVersion: 3.8-IV0          FinalizedVersionLevel: 3.8-IV0          Epoch: -
";
        let supported =
            [("metadata.version", 7, 20), ("a-very-long-feature-name-that-is-longer-than-the-column", 0, i16::MAX)];
        assert_eq!(described(-1, &supported, &[("metadata.version", 20)]), expected);
        assert_eq!(described(5, &[], &[]), "");
    }
}
