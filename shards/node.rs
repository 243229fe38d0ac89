//! What every core of a node knows alike and nobody changes.

use ringlog_config::ServerConfig;
use ringlog_types::{MonotonicMs, NodeId, TopicIdPartition, Uuid};

use crate::descriptors::Descriptors;
use crate::directories::CheckedLogDirs;
use crate::placement;

/// The facts.
#[derive(Debug)]
pub struct Node {
    /// `server.properties`, parsed and checked.
    pub config: ServerConfig,
    /// `node.id`.
    pub id: NodeId,
    /// The cluster's id, from `meta.properties`.
    pub cluster_id: String,
    /// The log directories, checked and locked.
    pub log_dirs: CheckedLogDirs,
    /// Memory of each core that hosts partitions for what was read from files, bytes.
    pub cache_memory_bytes: usize,
    /// How its file descriptors are divided.
    pub descriptors: Descriptors,
    /// This process: a new one for each start.
    pub incarnation_id: Uuid,
    /// When this process began to start.
    pub started_at: MonotonicMs,
    /// Cores that host partitions: indexes `0..shards` of the mesh.
    pub shards: usize,
    /// The core that runs the controller: the last of the mesh when it has a core of its own, else 0.
    pub controller_index: usize,
}

impl Node {
    /// The core that hosts `id`.
    pub fn home_of(&self, id: TopicIdPartition) -> usize {
        placement::shard_of(id, self.shards)
    }
}
