//! One core of a node with all its rooms: here they are put together, and nobody else knows them all.

use std::rc::Rc;
use std::sync::Arc;

use ringlog_ring::{self as ring, MAX_IO_BYTES};

use crate::admin::init_producer_id::ProducerIds;
use crate::admin::topic_creation::TopicCreation;
use crate::broker::lifecycle::Broker;
use crate::broker::metadata_publisher::Publisher;
use crate::controller::Controller;
use crate::coordinator::Coordinators;
use crate::core::{Core, Message};
use crate::data::DataPlane;
use crate::data::replica_fetcher::ReplicaFetcher;
use crate::data::replicas::Replicas;
use crate::data::replication_quotas::ReplicationQuotas;
use crate::dispatch::Dispatcher;
use crate::log_dirs::LogDirs;
use crate::metadata::MetadataView;
use crate::net::admission::Admission;
use crate::net::connection::Budgets;
use crate::net::listener::{ClaimedListener, Net};
use crate::net::response_memory::ResponseMemory;
use crate::node::Node;
use crate::storage::cache_memory::CacheMemory;
use crate::storage::context::{INDEX_WRITERS, StoreContext};
use crate::storage::disk_faults::DiskFaults;
use crate::storage::disk_space::DiskSpace;
use crate::storage::frames::FrameCache;
use crate::storage::open_files::OpenFiles;
use crate::storage::padding::Padding;
use crate::storage::read_ahead::ReadAhead;
use crate::storage::read_cache::ReadCache;

/// Memory of one core for what is read ahead of consumers: ten to sixteen of them.
const READ_AHEAD_BYTES: usize = 32 * 1024 * 1024;

/// One core.
pub struct Shard {
    /// What it is, whatever is on it.
    pub core: Rc<Core>,
    /// What it knows of the cluster.
    pub metadata: Rc<MetadataView>,
    /// Memory and open files of its logs.
    pub store: Rc<StoreContext>,
    /// Produce and Fetch.
    pub data: Rc<DataPlane>,
    /// The log directories, as far as this core writes in them.
    pub log_dirs: Rc<LogDirs>,
    /// Group coordinators of the `__consumer_offsets` partitions that live here.
    pub coordinators: Rc<Coordinators>,
    /// The way to the controller.
    pub controller: Rc<Controller>,
    /// New metadata on its way to this core's partitions.
    pub publisher: Rc<Publisher>,
    /// Who is let in.
    pub admission: Rc<Admission>,
    /// Connections.
    pub net: Rc<Net>,
    /// The broker's registration and heartbeats; used on core 0.
    pub broker: Rc<Broker>,
    /// From requests to handlers.
    #[cfg(test)]
    pub dispatcher: Rc<Dispatcher>,
}

/// For tests, which call other cores in whatever room.
#[cfg(test)]
impl crate::core::Room for Shard {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.core.close_rooms();
    }
}

fn bytes_of(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn store_of(node: &Node) -> StoreContext {
    let memory = CacheMemory::new(node.cache_memory_bytes);
    let cache = Rc::new(ReadCache::new(memory.clone(), READ_AHEAD_BYTES));
    let directories = node.log_dirs.directories.iter().map(|directory| directory.path.clone());
    StoreContext {
        space: Rc::new(DiskSpace::new(directories, node.shards)),
        index_turns: ring::ByteSemaphore::new(INDEX_WRITERS),
        recovery_reads: ring::ByteSemaphore::new(
            (bytes_of(node.config.ringlog.io_memory_bytes) / 2).max(2 * MAX_IO_BYTES),
        ),
        frames: FrameCache::new(bytes_of(node.config.ringlog.frames_memory_bytes), memory.clone()),
        memory,
        cache: cache.clone(),
        files: OpenFiles::new(node.descriptors.files_per_core),
        direct: if node.config.ringlog.direct_io == "off" { ring::Direct::Off } else { ring::Direct::Auto },
        faults: DiskFaults::default(),
        read_ahead: ReadAhead::new(READ_AHEAD_BYTES, cache),
        padding: Padding::default(),
    }
}

impl Shard {
    /// A core that knows no metadata and hosts nothing yet. `listeners` are those of the node.
    pub fn new(
        index: usize,
        node: Arc<Node>,
        listeners: Arc<Vec<ClaimedListener>>,
        mesh: ring::MeshEndpoint<Message>,
        seed: u64,
    ) -> Rc<Shard> {
        let store = Rc::new(store_of(&node));
        let response_memory = ResponseMemory::new(bytes_of(node.config.ringlog.response_memory_bytes));
        let core = Core::new(index, node, mesh, seed);
        let metadata = Rc::new(MetadataView::new(core.clone()));
        let replicas = Rc::new(Replicas::new(core.node.id, metadata.clone()));
        let quotas = Rc::new(ReplicationQuotas::new(core.clone(), metadata.clone()));
        let data = DataPlane::new(
            core.clone(),
            metadata.clone(),
            replicas.clone(),
            store.clone(),
            quotas.clone(),
            response_memory.clone(),
        );
        let data = Rc::new(data);
        let log_dirs = Rc::new(LogDirs::new(core.clone(), replicas.clone(), store.clone(), quotas.clone()));
        let coordinators = Coordinators::new(core.clone(), metadata.clone());
        replicas.set_observer(coordinators.clone());
        let controller = Rc::new(Controller::new(core.clone(), metadata.clone(), store.clone()));
        let fetcher =
            ReplicaFetcher::new(core.clone(), metadata.clone(), replicas.clone(), store.clone(), quotas.clone());
        let publisher = Rc::new(Publisher::new(
            core.clone(),
            metadata.clone(),
            replicas.clone(),
            Rc::new(fetcher),
            log_dirs.clone(),
            controller.clone(),
        ));
        let admission = Rc::new(Admission::new(core.clone(), metadata.clone()));
        let budgets = Rc::new(Budgets::new(core.clone(), response_memory.clone()));
        let net = Rc::new(Net::new(core.clone(), listeners, admission.clone(), budgets));
        let broker = Broker::new(core.clone(), metadata.clone(), log_dirs.clone(), controller.clone(), net.clone());
        let dispatcher = Rc::new(Dispatcher {
            core: core.clone(),
            metadata: metadata.clone(),
            data: data.clone(),
            log_dirs: log_dirs.clone(),
            coordinators: coordinators.clone(),
            controller: controller.clone(),
            creation: Rc::new(TopicCreation::new(controller.clone())),
            producer_ids: Rc::new(ProducerIds::new(controller.clone())),
            response_memory,
        });
        net.serve_by(dispatcher.clone());
        let broker = Rc::new(broker);
        let shard = Shard {
            core,
            metadata,
            store,
            data,
            log_dirs,
            coordinators,
            controller,
            publisher,
            admission,
            net,
            broker,
            #[cfg(test)]
            dispatcher,
        };
        shard.open_rooms();
        Rc::new(shard)
    }

    /// Other cores may call from now on.
    fn open_rooms(&self) {
        self.core.open(&self.metadata);
        self.core.open(&self.data);
        self.core.open(&self.data.quotas);
        self.core.open(&self.log_dirs);
        self.core.open(&self.coordinators);
        self.core.open(&self.controller);
        self.core.open(&self.admission);
        self.core.open(&self.net);
    }
}
