//! What one core owns, and what it knows of the node around it.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::ServerConfig;
use ringlog_metadata::MetadataImage;
use ringlog_partition::{FetchSessionCache, FetchSessionCacheLimits, Unserved};
use ringlog_ring as ring;
use ringlog_types::{MonotonicMs, NodeId, Random, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;

use crate::admin::AdminState;
use crate::broker::lifecycle::BrokerLifecycle;
use crate::broker::metadata_publisher::{self, Publisher};
use crate::controller::ControllerHandle;
use crate::coordinator::Coordinators;
use crate::data::batch_checks::BatchChecks;
use crate::data::replica::Replica;
use crate::descriptors::Descriptors;
use crate::flag::{ConnectionCount, Flag};
use crate::log_dirs::{CheckedLogDirs, DiskFaults, DiskSpace, LogDirs};
use crate::mesh::{Calls, Message};
use crate::metrics::ShardMetrics;
use crate::net::admission::Admission;
use crate::net::listener::ClaimedListener;
use crate::net::request_memory::RequestMemory;
use crate::net::response_memory::ResponseMemory;
use crate::placement;
use crate::storage::frames::FrameCache;
use crate::storage::open_files::OpenFiles;
use crate::storage::padding::Padding;
use crate::storage::read_ahead::ReadAhead;
use crate::storage::segment_store::{INDEX_WRITERS, StoreContext};

/// Memory of one core for what is read ahead of consumers: ten to sixteen of them.
const READ_AHEAD_BYTES: usize = 32 * 1024 * 1024;
/// Memory of one core for requests, unless `queued.max.request.bytes` says something else. More wait at their sockets.
const REQUEST_MEMORY_BYTES: usize = 256 * 1024 * 1024;

/// What every core of a node knows alike and nobody changes.
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
    /// The listeners, with their ports.
    pub listeners: Vec<ClaimedListener>,
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
    /// Memory and open files of the logs.
    pub store: Rc<StoreContext>,
    /// Fetch sessions of the connections of this core.
    pub fetch_sessions: RefCell<FetchSessionCache>,
    /// Group coordinators of the `__consumer_offsets` partitions that live here.
    pub coordinators: Coordinators,
    /// What the handlers of `admin` remember.
    pub admin: AdminState,
    /// There on the controller's core.
    pub controller: OnceCell<Rc<ControllerHandle>>,
    /// The broker's registration and heartbeats, on core 0.
    pub broker: BrokerLifecycle,
    /// New metadata on its way to this core's partitions.
    pub publisher: Publisher,
    /// Background tasks join it; it closes at shutdown.
    pub gate: ring::Gate,
    /// Which connections are let in.
    pub admission: Admission,
    /// Clients' connections of this core.
    pub connections: ConnectionCount,
    /// Connections of this core that came in by a controller listener.
    pub controller_connections: ConnectionCount,
    /// Memory for what clients send.
    pub request_memory: RequestMemory,
    /// Memory for answers on their way out.
    pub response_memory: ResponseMemory,
    /// For batches that producers send.
    pub batch_checks: BatchChecks,
    /// Set when the node begins to stop: no new client is accepted.
    pub closing: Flag,
    /// Set when the controller has handed over: until then the quorum needs to reach it.
    pub controller_closing: Flag,
    /// Set when this core has nothing left to do.
    pub stopped: Flag,
    /// By which the node ends that must not go on.
    pub faults: OnceCell<ring::FaultSender>,
    /// For ids and jitter.
    pub random: RefCell<Random>,
    /// What this core counts.
    pub metrics: ShardMetrics,
}

fn bytes_of(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// This core's part of the node's memory for requests.
fn request_memory_bytes(node: &Node) -> usize {
    let configured = usize::try_from(node.config.network.queued_max_request_bytes).ok().filter(|bytes| *bytes > 0);
    configured.map_or(REQUEST_MEMORY_BYTES, |bytes| bytes.div_ceil(node.shards))
}

impl Shard {
    /// A core that knows no metadata and hosts nothing yet.
    pub fn new(index: usize, node: Arc<Node>, mesh: ring::MeshEndpoint<Message>, seed: u64) -> Shard {
        let slots = node.config.network.max_incremental_fetch_session_cache_slots;
        let sessions = FetchSessionCacheLimits {
            slots: usize::try_from(slots).unwrap_or(0).div_ceil(node.shards),
            ..FetchSessionCacheLimits::default()
        };
        let directories = node.log_dirs.directories.iter().map(|directory| directory.path.clone());
        let store = StoreContext {
            space: Rc::new(DiskSpace::new(directories, node.shards)),
            index_turns: ring::ByteSemaphore::new(INDEX_WRITERS),
            frames: FrameCache::new(bytes_of(node.config.ringlog.frames_memory_bytes)),
            files: OpenFiles::new(node.descriptors.files_per_core),
            direct: if node.config.ringlog.direct_io == "off" { ring::Direct::Off } else { ring::Direct::Auto },
            faults: DiskFaults::default(),
            read_ahead: ReadAhead::new(READ_AHEAD_BYTES),
            padding: Padding::default(),
        };
        Shard {
            index,
            mesh,
            calls: Calls::default(),
            image: RefCell::new(Arc::new(MetadataImage::empty())),
            image_changed: ring::Notify::new(),
            replicas: RefCell::default(),
            log_dirs: LogDirs::default(),
            store: Rc::new(store),
            fetch_sessions: RefCell::new(FetchSessionCache::new(sessions)),
            coordinators: Coordinators::default(),
            admin: AdminState::default(),
            controller: OnceCell::new(),
            broker: BrokerLifecycle::default(),
            publisher: Publisher::default(),
            gate: ring::Gate::new(),
            admission: Admission::default(),
            connections: ConnectionCount::default(),
            controller_connections: ConnectionCount::default(),
            request_memory: RequestMemory::new(request_memory_bytes(&node)),
            response_memory: ResponseMemory::new(bytes_of(node.config.ringlog.response_memory_bytes)),
            batch_checks: BatchChecks::default(),
            closing: Flag::default(),
            controller_closing: Flag::default(),
            stopped: Flag::default(),
            faults: OnceCell::new(),
            random: RefCell::new(Random::from_seed(seed)),
            metrics: ShardMetrics::default(),
            node,
        }
    }

    /// The node must not go on: it stops, and the process ends with this reason and an error.
    pub fn fail(&self, reason: &str) {
        match self.faults.get() {
            Some(faults) => faults.send(reason.to_owned()),
            None => panic!("{reason}"),
        }
    }

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

    /// The replica of `id` for a request, or why nothing of it is served here.
    pub fn served(&self, id: TopicIdPartition) -> Result<Rc<Replica>, Unserved> {
        match self.replica(id) {
            Some(replica) => replica.unserved().map_or(Ok(replica), Err),
            None => Err(metadata_publisher::why_absent(self, id)),
        }
    }

    /// The node stops: whoever waits at a replica of this core is answered.
    pub fn stop_serving(&self) {
        let replicas: Vec<Rc<Replica>> = self.replicas.borrow().values().cloned().collect();
        for replica in replicas {
            replica.close(Unserved::NodeStopping);
        }
    }

    /// The replica of `id`, if it lives here. Requests ask [`Shard::served`].
    pub fn replica(&self, id: TopicIdPartition) -> Option<Rc<Replica>> {
        self.replicas.borrow().get(&id).cloned()
    }
}
