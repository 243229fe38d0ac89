//! Registered brokers and controllers.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_types::{BrokerEpoch, NodeId, Uuid};

/// Directory ids with a meaning of their own (KIP-858).
pub mod directory {
    use ringlog_types::Uuid;

    /// The broker has not yet said in which directory the replica lies.
    pub const UNASSIGNED: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// The replica lies in a directory that went offline and is not known by id.
    pub const LOST: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    /// The replica comes from a time before directory ids.
    pub const MIGRATING: Uuid = Uuid::ZERO;

    /// Whether `id` is one of the first 100, which no real directory may have.
    pub fn is_reserved(id: Uuid) -> bool {
        u128::from_be_bytes(id.0) < Uuid::RESERVED_COUNT
    }
}

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, such as `PLAINTEXT`.
    pub listener: Arc<str>,
    /// Host name or address.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// The levels of a feature that a node can run, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

impl VersionRange {
    /// Whether `level` lies in the range.
    pub fn contains(self, level: i16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// A broker's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerImage {
    /// `node.id`.
    pub id: NodeId,
    /// Rises with each registration; requests of the broker carry it.
    pub epoch: BrokerEpoch,
    /// Drawn anew at each start of the process.
    pub incarnation_id: Uuid,
    /// Listeners that clients and other brokers may use.
    pub endpoints: Vec<Endpoint>,
    /// What the broker supports, by feature.
    pub features: BTreeMap<Arc<str>, VersionRange>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Fenced brokers lead nothing and are in no ISR.
    pub is_fenced: bool,
    /// Whether it moves its leaderships away in order to stop.
    pub is_in_controlled_shutdown: bool,
    /// Whether it announced itself as a migrating ZooKeeper broker; never in a new cluster.
    pub is_migrating_zk_broker: bool,
    /// Ids of the online log directories, ascending; empty below metadata.version 3.7-IV2.
    pub directories: Vec<Uuid>,
    /// Directories that take no new replicas, ascending (KIP-1066). `None`: the broker made no statement.
    pub cordoned_directories: Option<Vec<Uuid>>,
}

impl BrokerImage {
    /// Whether it may lead and join in-sync sets: neither fenced nor shutting down.
    pub fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_in_controlled_shutdown
    }

    /// Whether a replica in `directory` is reachable: the directory is online, or not a real one.
    pub fn has_online_directory(&self, directory: Uuid) -> bool {
        if directory == directory::UNASSIGNED || directory == directory::MIGRATING {
            return true;
        }
        // A broker that registered below 3.7-IV2 named no directories; it would have halted without any.
        directory != directory::LOST
            && (self.directories.is_empty() || self.directories.binary_search(&directory).is_ok())
    }

    /// The directory of a new replica: the only one, else [`directory::UNASSIGNED`].
    pub fn default_directory(&self) -> Uuid {
        match self.directories.as_slice() {
            [only] => *only,
            [] => directory::MIGRATING,
            _ => directory::UNASSIGNED,
        }
    }

    /// Whether new replicas may be placed here: some directory is not cordoned.
    pub fn has_uncordoned_directory(&self) -> bool {
        match &self.cordoned_directories {
            None => true,
            Some(cordoned) => {
                self.directories.is_empty() || self.directories.iter().any(|directory| !cordoned.contains(directory))
            }
        }
    }

    /// The endpoint with this listener name.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }
}

/// A controller's registration. Never removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerImage {
    /// `node.id`.
    pub id: NodeId,
    /// Drawn anew at each start of the process.
    pub incarnation_id: Uuid,
    /// Whether it was ready for a ZooKeeper migration.
    pub is_zk_migration_ready: bool,
    /// Its controller listeners.
    pub endpoints: Vec<Endpoint>,
    /// What it supports, by feature.
    pub features: BTreeMap<Arc<str>, VersionRange>,
}

/// Brokers and controllers by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterImage {
    /// Registered brokers, fenced ones included.
    pub brokers: BTreeMap<NodeId, Arc<BrokerImage>>,
    /// Registered controllers.
    pub controllers: BTreeMap<NodeId, Arc<ControllerImage>>,
}

impl ClusterImage {
    /// The broker of this id, if it is registered.
    pub fn broker(&self, id: NodeId) -> Option<&Arc<BrokerImage>> {
        self.brokers.get(&id)
    }

    /// Whether the broker is registered, unfenced and not shutting down.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.is_active())
    }
}
