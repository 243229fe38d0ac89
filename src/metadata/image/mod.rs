//! The metadata image: what replay of the committed metadata log gives, the same on every node.
//!
//! An image is immutable and cheap to clone: sections sit behind `Arc`s, topics and configs in maps ([`CowMap`]) and
//! partitions in tables ([`PartitionTable`]) that copy only what lies around a change. Replay is a function of the
//! records alone: no clock, randomness or map order gets in.
//!
//! A million partitions with three replicas take about 120 MB, everything counted.

mod changes;
mod cluster;
mod configs;
mod cow_map;
mod delta;
mod loader;
mod partition;
mod partition_table;
mod replay;
mod security;
mod sharing;
mod snapshot;
mod snapshot_load;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_types::{LeaderEpoch, Offset, ProducerId, TimestampMs};

pub use changes::{MetadataChanges, TopicChanges};
pub use cluster::{BrokerImage, ClusterImage, ControllerImage, Endpoint, VersionRange, directory};
pub use configs::{
    ClientQuotasImage, ConfigMap, ConfigResource, ConfigResourceType, ConfigsImage, QuotaEntity, QuotaMap,
};
pub use cow_map::CowMap;
pub use delta::MetadataDelta;
pub use loader::{LoadError, MetadataLoader, Publication};
pub use partition::{LeaderRecoveryState, PartitionImage, PartitionRegistration};
pub use partition_table::PartitionTable;
pub use replay::ReplayError;
pub use security::{AclEntry, AclsImage, DelegationToken, ScramCredential, ScramImage, ScramMechanism, TokensImage};
pub use snapshot_load::SnapshotLoad;
pub use topics::{TopicImage, TopicsImage};

use crate::features::{ELIGIBLE_LEADER_REPLICAS_VERSION, MetadataVersion};

/// How far an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The last offset that is in the image; -1 for the empty image.
    pub last_contained_offset: Offset,
    /// The leader epoch of that record.
    pub last_contained_epoch: LeaderEpoch,
    /// The append time of that record.
    pub last_contained_timestamp: TimestampMs,
    /// Whether the offset ends a record batch, so that a snapshot may be taken here.
    pub is_offset_batch_aligned: bool,
}

impl Provenance {
    /// Of the empty image.
    pub const EMPTY: Provenance = Provenance {
        last_contained_offset: Offset(-1),
        last_contained_epoch: LeaderEpoch(-1),
        last_contained_timestamp: TimestampMs(-1),
        is_offset_batch_aligned: true,
    };
}

/// Finalized feature levels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeaturesImage {
    /// `metadata.version`; `None` until the first record sets it.
    pub metadata_version: Option<MetadataVersion>,
    /// The other features above level 0. `kraft.version` is not among them: it lives in the Raft log's control records.
    pub levels: BTreeMap<Arc<str>, i16>,
}

impl FeaturesImage {
    /// `metadata.version`, the lowest when it is not set.
    pub fn metadata_version_or_default(&self) -> MetadataVersion {
        self.metadata_version.unwrap_or(MetadataVersion::MINIMUM)
    }

    /// The level of `feature`, 0 when it is not set. Also answers for `metadata.version`.
    pub fn level(&self, feature: &str) -> i16 {
        if feature == crate::features::METADATA_VERSION {
            return self.metadata_version.map_or(0, |version| version.0);
        }
        self.levels.get(feature).copied().unwrap_or(0)
    }

    /// Whether eligible leader replicas are kept (KIP-966).
    pub fn is_elr_enabled(&self) -> bool {
        self.level(ELIGIBLE_LEADER_REPLICAS_VERSION) >= 1
    }
}

/// The whole metadata as of one offset.
#[derive(Debug, Clone)]
pub struct MetadataImage {
    /// How far it goes.
    pub provenance: Provenance,
    /// Finalized features.
    pub features: Arc<FeaturesImage>,
    /// Brokers and controllers.
    pub cluster: Arc<ClusterImage>,
    /// Topics and partitions.
    pub topics: TopicsImage,
    /// Dynamic configs.
    pub configs: ConfigsImage,
    /// Client quotas.
    pub client_quotas: Arc<ClientQuotasImage>,
    /// The next producer id that is free; -1 as long as none was given out.
    pub next_producer_id: ProducerId,
    /// Access control entries.
    pub acls: Arc<AclsImage>,
    /// SCRAM credentials.
    pub scram: Arc<ScramImage>,
    /// Delegation tokens.
    pub tokens: Arc<TokensImage>,
    /// Where a migration from ZooKeeper stood (0 none); kept for old logs, always 0 in new clusters.
    pub zk_migration_state: i8,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage {
            provenance: Provenance::EMPTY,
            features: Arc::default(),
            cluster: Arc::default(),
            topics: TopicsImage::default(),
            configs: ConfigsImage::default(),
            client_quotas: Arc::default(),
            next_producer_id: ProducerId(-1),
            acls: Arc::default(),
            scram: Arc::default(),
            tokens: Arc::default(),
            zk_migration_state: 0,
        }
    }
}

impl PartialEq for MetadataImage {
    /// Compares the contents; the provenance is left out.
    fn eq(&self, other: &Self) -> bool {
        self.features == other.features
            && self.cluster == other.cluster
            && self.topics == other.topics
            && self.configs == other.configs
            && self.client_quotas == other.client_quotas
            && self.next_producer_id == other.next_producer_id
            && self.acls == other.acls
            && self.scram == other.scram
            && self.tokens == other.tokens
            && self.zk_migration_state == other.zk_migration_state
    }
}

impl MetadataImage {
    /// The image before any record.
    pub fn empty() -> MetadataImage {
        MetadataImage::default()
    }

    /// Whether nothing was ever replayed.
    pub fn is_empty(&self) -> bool {
        *self == MetadataImage::default()
    }

    /// `metadata.version`, the lowest when it is not set.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features.metadata_version_or_default()
    }
}
