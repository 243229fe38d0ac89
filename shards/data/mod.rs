//! Records: what Produce and Fetch do, and the replicas that they do it with.

pub mod batch_checks;
pub mod by_home;
pub mod fetch;
pub mod produce;
pub mod replica;
pub mod replica_fetcher;
pub mod replicas;
pub mod replication_quotas;

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_partition::{FetchSessionCache, FetchSessionCacheLimits};

use crate::core::{Core, Room};
use crate::data::batch_checks::BatchChecks;
use crate::data::replicas::Replicas;
use crate::data::replication_quotas::ReplicationQuotas;
use crate::metadata::MetadataView;
use crate::net::response_memory::ResponseMemory;
use crate::storage::context::StoreContext;

/// Records on one core.
pub struct DataPlane {
    /// The core.
    pub core: Rc<Core>,
    /// What it knows of the cluster.
    pub metadata: Rc<MetadataView>,
    /// The partitions that live here.
    pub replicas: Rc<Replicas>,
    /// Memory and open files of their logs.
    pub store: Rc<StoreContext>,
    /// Throttles of replication.
    pub quotas: Rc<ReplicationQuotas>,
    /// Memory for answers on their way out.
    pub response_memory: ResponseMemory,
    /// Fetch sessions of the connections of this core.
    fetch_sessions: RefCell<FetchSessionCache>,
    /// For batches that producers send.
    batch_checks: BatchChecks,
}

impl Room for DataPlane {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl DataPlane {
    /// No sessions yet.
    pub fn new(
        core: Rc<Core>,
        metadata: Rc<MetadataView>,
        replicas: Rc<Replicas>,
        store: Rc<StoreContext>,
        quotas: Rc<ReplicationQuotas>,
        response_memory: ResponseMemory,
    ) -> DataPlane {
        let slots = core.node.config.network.max_incremental_fetch_session_cache_slots;
        let sessions = FetchSessionCacheLimits {
            slots: usize::try_from(slots).unwrap_or(0).div_ceil(core.node.shards),
            ..FetchSessionCacheLimits::default()
        };
        DataPlane {
            core,
            metadata,
            replicas,
            store,
            quotas,
            response_memory,
            fetch_sessions: RefCell::new(FetchSessionCache::new(sessions)),
            batch_checks: BatchChecks::default(),
        }
    }
}

impl by_home::HasReplicas for DataPlane {
    fn replicas(&self) -> &Replicas {
        &self.replicas
    }
}
