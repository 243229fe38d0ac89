//! What a formatted log directory starts with.

use std::collections::BTreeMap;

use ringlog_protocol::StrBytes;
use ringlog_protocol::metadata_records::{
    FeatureLevelRecord, MetadataRecord, RecordAndVersion, UserScramCredentialRecord,
};

use crate::features::{
    self, FEATURES, FeatureError, KRAFT_VERSION, METADATA_VERSION, MetadataVersion, validate_level,
};

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
    /// SCRAM credentials need a higher metadata.version.
    #[error("SCRAM is only supported in metadata.version 3.5-IV2 or later.")]
    ScramUnsupported,
    /// A level that doesn't exist or lacks what it depends on.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// kraft.version doesn't fit the way of formatting.
    #[error("{0}")]
    KraftVersion(&'static str),
}
