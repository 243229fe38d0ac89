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
