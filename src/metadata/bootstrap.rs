//! What a formatted log directory starts with.

use std::collections::BTreeMap;

use ringlog_protocol::StrBytes;
use ringlog_protocol::metadata_records::{
    FeatureLevelRecord, MetadataRecord, RecordAndVersion, UserScramCredentialRecord,
};

use crate::features::{self, FEATURES, FeatureError, KRAFT_VERSION, METADATA_VERSION, MetadataVersion, validate_level};

/// The records of bootstrap.checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapMetadata {
    /// `metadata.version` first, then the other features above level 0 by name, then SCRAM credentials.
    pub records: Vec<RecordAndVersion>,
}

/// Why a directory can't be formatted. The texts are Kafka's, as its tool prints them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// No such release.
    #[error("Unknown metadata.version '{name}'. Supported metadata.version are: {supported}")]
    UnknownRelease {
        /// What was asked for.
        name: String,
        /// All names that would do.
        supported: String,
    },
    /// No such feature.
    #[error("Unsupported feature: {name}. Supported features are: {supported}")]
    UnknownFeature {
        /// What was asked for.
        name: String,
        /// All names that would do.
        supported: String,
    },
    /// metadata.version is asked for in both ways.
    #[error("Use --release-version instead of --feature metadata.version=X to avoid ambiguity.")]
    AmbiguousRelease,
    /// No such level of metadata.version.
    #[error(
        "No MetadataVersion with feature level {0}. Valid feature levels are from {min} to {max}.",
        min = MetadataVersion::MINIMUM.0,
        max = MetadataVersion::LATEST_TESTING.0
    )]
    UnknownMetadataVersion(i16),
    /// A level of metadata.version that isn't for use yet.
    #[error("metadata.version {0} is not yet stable.")]
    UnstableMetadataVersion(MetadataVersion),
    /// SCRAM credentials need a higher metadata.version.
    #[error("SCRAM is only supported in metadata.version 3.5-IV2 or later.")]
    ScramUnsupported,
    /// A level that doesn't exist or lacks what it depends on.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// kraft.version doesn't fit the way of formatting.
    #[error("{0}")]
    KraftVersion(String),
}

/// What is asked for when a directory is formatted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BootstrapRequest {
    /// `--release-version`; `None` is the newest.
    pub release_version: Option<String>,
    /// `--feature NAME=LEVEL`.
    pub feature_levels: BTreeMap<String, i16>,
    /// `--add-scram`, ready computed.
    pub scram: Vec<UserScramCredentialRecord>,
    /// `unstable.feature.versions.enable`.
    pub unstable_feature_versions_enable: bool,
}

impl BootstrapMetadata {
    /// The records for a new cluster: defaults of the release, with the levels that were asked for.
    pub fn new(request: &BootstrapRequest) -> Result<BootstrapMetadata, BootstrapError> {
        let version = release(request)?;
        let mut levels: BTreeMap<&str, i16> = FEATURES
            .iter()
            .filter(|feature| feature.name != KRAFT_VERSION)
            .map(|feature| (feature.name, feature.default_level(version)))
            .collect();
        for (name, level) in request.feature_levels.iter().filter(|(name, _)| *name != METADATA_VERSION) {
            let feature = features::feature(name).ok_or_else(|| BootstrapError::UnknownFeature {
                name: name.clone(),
                supported: supported_features(),
            })?;
            if feature.name != KRAFT_VERSION {
                levels.insert(feature.name, *level);
            } else if !feature.has_level(*level) {
                return Err(FeatureError::UnknownLevel(name.clone(), *level).into());
            }
        }
        for (name, level) in levels.iter().filter(|(name, _)| **name != METADATA_VERSION) {
            if let Some(feature) = features::feature(name) {
                validate_level(feature, *level, &|other| levels.get(other).copied().unwrap_or(0))?;
            }
        }
        if !request.scram.is_empty() && !version.is_scram_supported() {
            return Err(BootstrapError::ScramUnsupported);
        }
        levels.remove(METADATA_VERSION);
        let mut records = vec![feature_record(METADATA_VERSION, version.0)];
        records
            .extend(levels.iter().filter(|(_, level)| **level > 0).map(|(name, level)| feature_record(name, *level)));
        let scram = request.scram.iter().cloned();
        records.extend(scram.map(|credential| RecordAndVersion { record: credential.into(), version: 0 }));
        Ok(BootstrapMetadata { records })
    }

    /// The records of the newest release with its defaults.
    pub fn latest() -> BootstrapMetadata {
        match BootstrapMetadata::new(&BootstrapRequest::default()) {
            Ok(bootstrap) => bootstrap,
            Err(error) => panic!("the defaults of the newest release contradict each other: {error}"),
        }
    }

    /// Those of a bootstrap.checkpoint; control records left out.
    pub fn from_records(records: Vec<RecordAndVersion>) -> BootstrapMetadata {
        BootstrapMetadata { records }
    }

    /// The level that the records give `feature`; 0 without one.
    pub fn level(&self, feature: &str) -> i16 {
        let levels = self.records.iter().filter_map(|record| match &record.record {
            MetadataRecord::FeatureLevel(record) if record.name == feature => Some(record.feature_level),
            _ => None,
        });
        levels.last().unwrap_or(0)
    }

    /// `metadata.version`; the lowest without a record.
    pub fn metadata_version(&self) -> MetadataVersion {
        MetadataVersion::from_level(self.level(METADATA_VERSION)).unwrap_or(MetadataVersion::MINIMUM)
    }
}

fn feature_record(name: &str, level: i16) -> RecordAndVersion {
    let record = FeatureLevelRecord { name: StrBytes::copy_from(name), feature_level: level };
    RecordAndVersion { record: record.into(), version: 0 }
}

/// By its name or, as a feature, by its level.
fn release(request: &BootstrapRequest) -> Result<MetadataVersion, BootstrapError> {
    let level = request.feature_levels.get(METADATA_VERSION);
    let Some(name) = &request.release_version else {
        let Some(level) = level else { return Ok(MetadataVersion::LATEST_PRODUCTION) };
        let version = MetadataVersion::from_level(*level).ok_or(BootstrapError::UnknownMetadataVersion(*level))?;
        let is_allowed = version.is_production() || request.unstable_feature_versions_enable;
        return if is_allowed { Ok(version) } else { Err(BootstrapError::UnstableMetadataVersion(version)) };
    };
    if level.is_some() {
        return Err(BootstrapError::AmbiguousRelease);
    }
    let is_allowed = |it: &MetadataVersion| it.is_production() || request.unstable_feature_versions_enable;
    MetadataVersion::from_name(name).filter(is_allowed).ok_or_else(|| {
        let supported: Vec<&str> = MetadataVersion::all().filter(is_allowed).map(MetadataVersion::name).collect();
        BootstrapError::UnknownRelease { name: name.clone(), supported: supported.join(", ") }
    })
}

/// Those whose level is asked for by name; the release has an option of its own.
fn supported_features() -> String {
    let names = FEATURES.iter().map(|feature| feature.name).filter(|name| *name != METADATA_VERSION);
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.join(", ")
}

/// How the node's quorum is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuorumFormat {
    /// `controller.quorum.voters` names the voters.
    StaticVoters,
    /// `--standalone` or `--initial-controllers`: a first voter set is written.
    InitialVoters,
    /// `--no-initial-controllers`: joins later.
    NoInitialVoters,
    /// Neither; a broker needs none.
    Unspecified,
}

/// The `kraft.version` of a directory formatted so: 1 with dynamic voters, else 0. Refuses contradictions in Kafka's
/// words.
pub fn kraft_version(quorum: QuorumFormat, is_controller: bool, asked: Option<i16>) -> Result<i16, BootstrapError> {
    let is_dynamic = matches!(quorum, QuorumFormat::InitialVoters | QuorumFormat::NoInitialVoters);
    if quorum == QuorumFormat::Unspecified && is_controller {
        return Err(BootstrapError::KraftVersion(
            "Because controller.quorum.voters is not set on this controller, you must specify one of the following: \
             --standalone, --initial-controllers, or --no-initial-controllers."
                .to_owned(),
        ));
    }
    match asked {
        Some(0) if is_dynamic => Err(BootstrapError::KraftVersion(
            "Cannot set kraft.version to 0 if controller.quorum.voters is empty and one of the flags --standalone, \
             --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try removing \
             the --feature flag for kraft.version."
                .to_owned(),
        )),
        Some(level @ 1..) if !is_dynamic => Err(BootstrapError::KraftVersion(format!(
            "Cannot set kraft.version to {level} unless controller.quorum.voters is empty and one of the flags --standalone, \
             --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try using \
             one of --standalone, --initial-controllers, or --no-initial-controllers and removing \
             controller.quorum.voters."
        ))),
        _ => Ok(i16::from(is_dynamic)),
    }
}

/// What the format tool says of the directories that it writes, as in `Formatting metadata directory DIR with
/// metadata.version 4.3-IV0.`
pub fn directory_description(quorum: QuorumFormat, is_metadata_directory: bool) -> &'static str {
    match quorum {
        _ if !is_metadata_directory => "data directory",
        QuorumFormat::InitialVoters => "dynamic metadata voter directory",
        QuorumFormat::StaticVoters | QuorumFormat::NoInitialVoters | QuorumFormat::Unspecified => "metadata directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quorum_decides_the_kraft_version() {
        assert_eq!(kraft_version(QuorumFormat::StaticVoters, true, None), Ok(0));
        assert_eq!(kraft_version(QuorumFormat::InitialVoters, true, None), Ok(1));
        assert_eq!(kraft_version(QuorumFormat::Unspecified, false, None), Ok(0));
        for (quorum, asked) in [
            (QuorumFormat::StaticVoters, Some(1)),
            (QuorumFormat::InitialVoters, Some(0)),
            (QuorumFormat::Unspecified, None),
        ] {
            assert!(kraft_version(quorum, true, asked).is_err(), "{quorum:?} {asked:?}");
        }
    }

    #[test]
    fn levels_that_do_not_fit_are_refused() {
        let refused = |release: Option<&str>, name: &str, level: i16| {
            let request = BootstrapRequest {
                release_version: release.map(str::to_owned),
                feature_levels: BTreeMap::from([(name.to_owned(), level)]),
                ..BootstrapRequest::default()
            };
            BootstrapMetadata::new(&request).map(drop).map_err(|error| error.to_string())
        };
        let text =
            "eligible.leader.replicas.version could not be set to 1 because it depends on metadata.version level 23";
        assert_eq!(refused(Some("3.9"), "eligible.leader.replicas.version", 1), Err(text.to_owned()));
        let text = "No feature:group.version with feature level 9";
        assert_eq!(refused(None, "group.version", 9), Err(text.to_owned()));
        assert!(refused(None, "no.such.feature", 1).unwrap_err().starts_with("Unsupported feature: no.such.feature."));
        assert_eq!(refused(None, "eligible.leader.replicas.version", 1), Ok(()));
        let supported = "Supported features are: eligible.leader.replicas.version, group.version, kraft.version, \
                         share.version, streams.version, transaction.version";
        assert!(refused(None, "no.such.feature", 1).unwrap_err().ends_with(supported));
    }

    #[test]
    fn the_release_can_be_asked_for_as_a_feature() {
        let with_level = |release: Option<&str>, level: i16, unstable: bool| {
            let request = BootstrapRequest {
                release_version: release.map(str::to_owned),
                feature_levels: BTreeMap::from([(METADATA_VERSION.to_owned(), level)]),
                unstable_feature_versions_enable: unstable,
                ..BootstrapRequest::default()
            };
            BootstrapMetadata::new(&request).map_err(|error| error.to_string())
        };
        let named = BootstrapRequest { release_version: Some("4.0-IV3".to_owned()), ..BootstrapRequest::default() };
        assert_eq!(with_level(None, 25, false).as_ref(), Ok(&BootstrapMetadata::new(&named).unwrap()));
        let refused = [
            (Some("4.1"), 25, "Use --release-version instead of --feature metadata.version=X to avoid ambiguity."),
            (None, 6, "No MetadataVersion with feature level 6. Valid feature levels are from 7 to 31."),
            (None, 31, "metadata.version 4.4-IV0 is not yet stable."),
        ];
        for (release, level, text) in refused {
            assert_eq!(with_level(release, level, false), Err(text.to_owned()));
        }
        assert!(with_level(None, 31, true).is_ok());
    }
}
