//! What one core owns, and what it knows of the node around it.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_metadata::MetadataImage;
use ringlog_partition::fetch_session::FetchSessionCache;
use ringlog_ring as ring;
use ringlog_types::{NodeId, Random, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;

use crate::controller::ControllerHandle;
use crate::coordinator::Coordinators;
use crate::log_manager::LogDirs;
use crate::mesh::{Calls, Message};
use crate::metrics::ShardMetrics;
use crate::placement;
use crate::replica::Replica;

/// What every core of a node knows alike and nobody changes.
#[derive(Debug)]
pub struct Node {
    /// `server.properties`, parsed and checked.
    pub config: ServerConfig,
    /// `node.id`.
    pub id: NodeId,
    /// The cluster's id, from `meta.properties`.
    pub cluster_id: String,
    /// The directory id of each log dir, in the order of `log.dirs`.
    pub directory_ids: Vec<Uuid>,
    /// This process: a new one for each start.
    pub incarnation_id: Uuid,
    /// Cores that host partitions: indexes `0..shards` of the mesh.
    pub shards: usize,
    /// The core that runs the controller: the last of the mesh when it has a core of its own, else 0.
    pub controller_index: usize,
}

/// One core.
pub struct Shard {
    /// Its place in the mesh.
    pub index: usize,
    /// The node around it.
    pub node: Arc<Node>,
    /// Its ends of the queues to and from the other cores.
    pub mesh: ring::MeshEndpoint<Message>,
    /// Calls to other cores that wait for their answers.
    pub calls: Calls,
    /// The newest metadata that reached this core.
    image: RefCell<Arc<MetadataImage>>,
    /// Changes with each new image.
    pub image_changed: ring::Notify,
    /// The partitions that live here.
    pub replicas: RefCell<FxHashMap<TopicIdPartition, Rc<Replica>>>,
    /// The log directories, as far as this core writes in them.
    pub log_dirs: LogDirs,
    /// Fetch sessions of the connections of this core.
    pub fetch_sessions: RefCell<FetchSessionCache>,
    /// Group coordinators of the `__consumer_offsets` partitions that live here.
    pub coordinators: Coordinators,
    /// There on the controller's core.
    pub controller: OnceCell<Rc<ControllerHandle>>,
    /// Background tasks join it; it closes at shutdown.
    pub gate: ring::Gate,
    /// Set when the node begins to stop.
    pub stopping: Cell<bool>,
    /// For ids and jitter.
    pub random: RefCell<Random>,
    /// What this core counts.
    pub metrics: ShardMetrics,
}

impl Shard {
    /// The newest metadata that reached this core.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.borrow().clone()
    }

    /// Takes over newer metadata; returns what it replaces.
    pub fn replace_image(&self, image: Arc<MetadataImage>) -> Arc<MetadataImage> {
        let old = self.image.replace(image);
        self.image_changed.notify_all();
        old
    }

    /// The core that hosts `id`.
    pub fn home_of(&self, id: TopicIdPartition) -> usize {
        placement::shard_of(id, self.node.shards)
    }

    /// The replica of `id`, if it lives here.
    pub fn replica(&self, id: TopicIdPartition) -> Option<Rc<Replica>> {
        self.replicas.borrow().get(&id).cloned()
    }
}
