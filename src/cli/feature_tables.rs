//! What the features are: `version-mapping` and `feature-dependencies`, which two tools have.

use ringlog_metadata::features::{FEATURES, Feature, METADATA_VERSION, MetadataVersion, feature};

use super::output::Output;

/// The level that a release's name means. The error is in the words of Kafka's tools.
pub fn metadata_version(release: &str) -> Result<MetadataVersion, String> {
    MetadataVersion::from_name(release).ok_or_else(|| {
        let known: Vec<&str> = MetadataVersion::all().map(MetadataVersion::name).collect();
        format!("Unknown metadata.version '{release}'. Supported metadata.version are: {}", known.join(", "))
    })
}

/// Prints the levels that a new cluster of a release has; of this one without a name.
pub fn version_mapping(release: Option<&str>, out: &mut dyn Output) -> Result<(), String> {
    let version = release.map_or(Ok(MetadataVersion::LATEST_PRODUCTION), metadata_version)?;
    // The release as the user calls it.
    let name = release.unwrap_or(version.name());
    out.line(&format!("{METADATA_VERSION}={} ({name})", version.0));
    for feature in FEATURES.iter().filter(|feature| feature.name != METADATA_VERSION) {
        out.line(&format!("{}={}", feature.name, feature.default_level(version)));
    }
    Ok(())
}

/// Prints what a level needs of other features. The tools differ in what they say of a level that there isn't.
pub fn feature_dependencies(
    (name, level): (&str, i16),
    no_such_level: impl Fn(&Feature, i16) -> String,
    out: &mut dyn Output,
) -> Result<(), String> {
    let feature = feature(name).ok_or_else(|| format!("Unknown feature: {name}"))?;
    if !feature.has_level(level) {
        return Err(match feature.name {
            METADATA_VERSION => format!("Unknown {METADATA_VERSION} {level}"),
            _ => no_such_level(feature, level),
        });
    }
    let shown = show_level(name, level);
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

/// Splits `name=level`.
pub fn parse_feature(argument: &str) -> Result<(String, i16), String> {
    let fault = |reason: String| format!("Can't parse feature=level string {argument}: {reason}");
    let (name, level) = argument.split_once('=').ok_or_else(|| fault("equals sign not found.".to_owned()))?;
    let level = level.trim();
    let parsed = level.parse().map_err(|_| fault(format!("unable to parse {level} as a short.")))?;
    Ok((name.trim().to_owned(), parsed))
}
