//! `metadata.version`, the other features, and what each level allows (KIP-584, KIP-1022).

/// The feature that says which records may be written.
pub const METADATA_VERSION: &str = "metadata.version";
/// The feature of dynamic voter sets (KIP-853); finalized in the Raft log, never in metadata records.
pub const KRAFT_VERSION: &str = "kraft.version";
/// The feature of transaction protocol 2 (KIP-890).
pub const TRANSACTION_VERSION: &str = "transaction.version";
/// The feature of the new group protocol (KIP-848).
pub const GROUP_VERSION: &str = "group.version";
/// The feature of eligible leader replicas (KIP-966).
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";
/// The feature of share groups (KIP-932).
pub const SHARE_VERSION: &str = "share.version";
/// The feature of the streams group protocol (KIP-1071).
pub const STREAMS_VERSION: &str = "streams.version";

/// A level of `metadata.version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataVersion(pub i16);

/// Level, name, and whether it changes what the metadata can say compared to the level before.
const METADATA_VERSIONS: &[(i16, &str, bool)] = &[
    (7, "3.3-IV3", true),
    (8, "3.4-IV0", true),
    (9, "3.5-IV0", false),
    (10, "3.5-IV1", false),
    (11, "3.5-IV2", true),
    (12, "3.6-IV0", false),
    (13, "3.6-IV1", true),
    (14, "3.6-IV2", true),
    (15, "3.7-IV0", true),
    (16, "3.7-IV1", false),
    (17, "3.7-IV2", true),
    (18, "3.7-IV3", false),
    (19, "3.7-IV4", false),
    (20, "3.8-IV0", false),
    (21, "3.9-IV0", false),
    (22, "4.0-IV0", false),
    (23, "4.0-IV1", true),
    (24, "4.0-IV2", false),
    (25, "4.0-IV3", false),
    (26, "4.1-IV0", false),
    (27, "4.1-IV1", false),
    (28, "4.2-IV0", false),
    (29, "4.2-IV1", false),
    (30, "4.3-IV0", true),
    (31, "4.4-IV0", false),
];

impl MetadataVersion {
    /// The lowest level that is still run: 3.3-IV3.
    pub const MINIMUM: MetadataVersion = MetadataVersion(7);
    /// The highest level for use: 4.3-IV0.
    pub const LATEST_PRODUCTION: MetadataVersion = MetadataVersion(30);
    /// The highest level that exists: 4.4-IV0, for tests with unstable features only.
    pub const LATEST_TESTING: MetadataVersion = MetadataVersion(31);

    /// The level's entry, if this version of Kafka knows the level.
    pub fn from_level(level: i16) -> Option<MetadataVersion> {
        METADATA_VERSIONS.iter().any(|(known, ..)| *known == level).then_some(MetadataVersion(level))
    }

    /// All levels, ascending.
    pub fn all() -> impl DoubleEndedIterator<Item = MetadataVersion> {
        METADATA_VERSIONS.iter().map(|(level, ..)| MetadataVersion(*level))
    }

    /// The level of a name such as `4.3-IV0`, or the last one of a release such as `4.3` or `4.3.1`. A release that
    /// isn't out yet has none.
    pub fn from_name(name: &str) -> Option<MetadataVersion> {
        let mut segments = name.splitn(3, '.');
        let release = match (segments.next(), segments.next()) {
            (Some(major), Some(minor)) => format!("{major}.{minor}"),
            _ => return None,
        };
        let exact = |(_, known, _): &&(i16, &str, bool)| *known == release;
        let in_release = |(level, known, _): &&(i16, &str, bool)| {
            MetadataVersion(*level).is_production() && known.split_once("-IV").is_some_and(|it| it.0 == release)
        };
        let found = METADATA_VERSIONS.iter().find(exact).or_else(|| METADATA_VERSIONS.iter().rev().find(in_release));
        found.map(|(level, ..)| MetadataVersion(*level))
    }

    /// Kafka's name, such as `4.3-IV0`.
    pub fn name(self) -> &'static str {
        METADATA_VERSIONS.iter().find(|(level, ..)| *level == self.0).map_or("unknown", |(_, name, _)| name)
    }

    /// Whether it may be used outside of tests.
    pub fn is_production(self) -> bool {
        self <= MetadataVersion::LATEST_PRODUCTION
    }

    /// Whether a step between the two levels changes what the metadata can say, so that a downgrade would lose it.
    pub fn is_metadata_changed_between(a: MetadataVersion, b: MetadataVersion) -> bool {
        let (low, high) = (a.min(b), a.max(b));
        METADATA_VERSIONS.iter().any(|(level, _, changed)| low.0 < *level && *level <= high.0 && *changed)
    }

    /// Version of RegisterBrokerRecord at this level.
    pub fn register_broker_record_version(self) -> i16 {
        match self.0 {
            30.. => 4,
            17.. => 3,
            8.. => 2,
            _ => 1,
        }
    }

    /// Version of PartitionRecord at this level.
    pub fn partition_record_version(self) -> i16 {
        match self.0 {
            23.. => 2,
            17.. => 1,
            _ => 0,
        }
    }

    /// Version of PartitionChangeRecord at this level.
    pub fn partition_change_record_version(self) -> i16 {
        self.partition_record_version()
    }

    /// The version in which brokers send Fetch to each other at this level.
    pub fn fetch_request_version(self) -> i16 {
        match self.0 {
            27.. => 18,
            21.. => 17,
            19.. => 16,
            10.. => 15,
            9.. => 14,
            _ => 13,
        }
    }

    /// The version in which brokers send ListOffsets to each other at this level.
    pub fn list_offsets_request_version(self) -> i16 {
        match self.0 {
            29.. => 11,
            25.. => 10,
            21.. => 9,
            9.. => 8,
            _ => 7,
        }
    }

    /// Whether SCRAM credentials may be recorded.
    pub fn is_scram_supported(self) -> bool {
        self.0 >= 11
    }

    /// Whether an ISR that only shrinks bumps the leader epoch.
    pub fn is_leader_epoch_bump_required_on_isr_shrink(self) -> bool {
        self.0 < 12
    }

    /// Whether metadata transactions may be used (KIP-868).
    pub fn is_metadata_transaction_supported(self) -> bool {
        self.0 >= 13
    }

    /// Whether delegation tokens may be recorded.
    pub fn is_delegation_token_supported(self) -> bool {
        self.0 >= 14
    }

    /// Whether controllers register themselves (KIP-919).
    pub fn is_controller_registration_supported(self) -> bool {
        self.0 >= 15
    }

    /// Whether replicas have directories (KIP-858).
    pub fn is_directory_assignment_supported(self) -> bool {
        self.0 >= 17
    }

    /// Whether records can hold eligible leader replicas (KIP-966).
    pub fn is_elr_supported(self) -> bool {
        self.0 >= 23
    }

    /// Whether directories can be cordoned (KIP-1066).
    pub fn is_cordoned_log_dirs_supported(self) -> bool {
        self.0 >= 30
    }

    /// Whether the state of a ZooKeeper migration can be recorded.
    pub fn is_migration_supported(self) -> bool {
        self.0 >= 8
    }
}

impl std::fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One level of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureLevel {
    /// The level.
    pub level: i16,
    /// From this `metadata.version` on, a new cluster gets the level by default.
    pub bootstrap_metadata_version: MetadataVersion,
    /// Levels of other features that it needs at least.
    pub dependencies: &'static [(&'static str, i16)],
}

/// A feature other than `metadata.version` has a row per level here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Its levels, ascending from 0; empty for `metadata.version`, see [`MetadataVersion`].
    pub levels: &'static [FeatureLevel],
}

const fn level(
    level: i16,
    bootstrap_metadata_version: i16,
    dependencies: &'static [(&'static str, i16)],
) -> FeatureLevel {
    FeatureLevel { level, bootstrap_metadata_version: MetadataVersion(bootstrap_metadata_version), dependencies }
}

/// All features, in the order in which Kafka's tools list them.
pub const FEATURES: &[Feature] = &[
    Feature { name: METADATA_VERSION, levels: &[] },
    Feature { name: KRAFT_VERSION, levels: &[level(0, 7, &[]), level(1, 21, &[])] },
    Feature { name: TRANSACTION_VERSION, levels: &[level(0, 7, &[]), level(1, 24, &[]), level(2, 24, &[])] },
    Feature { name: GROUP_VERSION, levels: &[level(0, 7, &[]), level(1, 22, &[])] },
    Feature {
        name: ELIGIBLE_LEADER_REPLICAS_VERSION,
        levels: &[level(0, 7, &[]), level(1, 26, &[(METADATA_VERSION, 23)])],
    },
    Feature { name: SHARE_VERSION, levels: &[level(0, 7, &[]), level(1, 28, &[])] },
    Feature { name: STREAMS_VERSION, levels: &[level(0, 7, &[]), level(1, 29, &[])] },
];

/// Features of which brokers serve no level but 0, where they are off: transactions, consumer groups of the new protocol,
/// share groups, streams groups.
pub const NOT_SERVED: &[&str] = &[TRANSACTION_VERSION, GROUP_VERSION, SHARE_VERSION, STREAMS_VERSION];

/// The feature of this name.
pub fn feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}

impl Feature {
    /// The levels that a node supports, lowest and highest. Level 31 of `metadata.version` only with unstable features.
    pub fn supported_range(&self, unstable: bool) -> crate::image::VersionRange {
        use crate::image::VersionRange;
        if self.name == METADATA_VERSION {
            let max = if unstable { MetadataVersion::LATEST_TESTING } else { MetadataVersion::LATEST_PRODUCTION };
            return VersionRange { min: MetadataVersion::MINIMUM.0, max: max.0 };
        }
        VersionRange { min: 0, max: self.levels.last().map_or(0, |last| last.level) }
    }

    /// The levels that a broker of this release says it supports, lowest and highest, in a cluster where the feature is
    /// finalized at `finalized`. What it can't serve yet it doesn't support, so that nobody turns it on; but a cluster
    /// that has it on (as Kafka's own tool formats them) takes no broker that says so, and all else works there.
    pub fn range_of_brokers(&self, finalized: i16, unstable: bool) -> crate::image::VersionRange {
        let supported = self.supported_range(unstable);
        if NOT_SERVED.contains(&self.name) {
            return crate::image::VersionRange { min: 0, max: finalized.clamp(0, supported.max) };
        }
        supported
    }

    /// Whether the level exists.
    pub fn has_level(&self, level: i16) -> bool {
        if self.name == METADATA_VERSION {
            return MetadataVersion::from_level(level).is_some();
        }
        self.levels.iter().any(|it| it.level == level)
    }

    /// The level that a new cluster with this `metadata.version` gets by default.
    pub fn default_level(&self, metadata_version: MetadataVersion) -> i16 {
        if self.name == METADATA_VERSION {
            return metadata_version.0;
        }
        let applies = |it: &&FeatureLevel| it.bootstrap_metadata_version <= metadata_version;
        self.levels.iter().rev().find(applies).map_or(0, |it| it.level)
    }

    /// What `level` needs of other features.
    pub fn dependencies(&self, level: i16) -> &'static [(&'static str, i16)] {
        self.levels.iter().find(|it| it.level == level).map_or(&[], |it| it.dependencies)
    }
}

/// A feature level that the proposed levels of others don't allow. The text is Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The level doesn't exist.
    #[error("No feature:{0} with feature level {1}")]
    UnknownLevel(String, i16),
    /// Another feature must be higher first.
    #[error("{feature} could not be set to {level} because it depends on {dependency} level {needed}")]
    Dependency {
        /// The feature.
        feature: &'static str,
        /// Its level.
        level: i16,
        /// The feature that is too low.
        dependency: &'static str,
        /// The level that it needs.
        needed: i16,
    },
}

/// Checks that `feature` may have `level` when the features have the levels that `proposed` gives.
pub fn validate_level(feature: &Feature, level: i16, proposed: &dyn Fn(&str) -> i16) -> Result<(), FeatureError> {
    if !feature.has_level(level) {
        return Err(FeatureError::UnknownLevel(feature.name.to_owned(), level));
    }
    for (dependency, needed) in feature.dependencies(level) {
        if proposed(dependency) < *needed {
            return Err(FeatureError::Dependency { feature: feature.name, level, dependency, needed: *needed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
