//! The log directories as one core keeps them.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_ring as ring;
use ringlog_types::{MonotonicMs, Offset, TopicIdPartition, TopicPartition};
use rustc_hash::{FxHashMap, FxHashSet};

use super::checkpoint_rounds::CheckpointRounds;
use super::moves::Moves;
use super::removals::Removals;
use crate::core::{Core, Room};
use crate::data::by_home::HasReplicas;
use crate::data::replicas::Replicas;
use crate::data::replication_quotas::ReplicationQuotas;
use crate::flag::Flag;
use crate::rarely::Rarely;
use crate::storage::context::StoreContext;
use crate::storage::segment_store::SegmentStore;

/// The log directories as one shard sees them.
pub struct LogDirs {
    pub(super) core: Rc<Core>,
    /// The replicas that the logs became.
    pub(super) replicas: Rc<Replicas>,
    pub(super) store: Rc<StoreContext>,
    /// Logs found at start that the metadata hasn't claimed yet.
    pub(super) unclaimed: RefCell<FxHashMap<TopicIdPartition, OpenLog>>,
    /// Directories that this shard is making for logs that it doesn't serve yet.
    pub(super) being_made: RefCell<FxHashSet<PathBuf>>,
    /// Set when [`super::open`] is through on this shard.
    pub(super) opened: Flag,
    /// Places of the directories that failed.
    pub(super) failed: RefCell<Vec<usize>>,
    /// A directory failed: heartbeats have to tell.
    pub failures_changed: ring::Notify,
    /// Copies in other directories, found at start: their moves go on when the replicas are claimed.
    pub(super) unclaimed_futures: RefCell<FxHashMap<TopicIdPartition, OpenLog>>,
    /// Replicas on their way to other directories.
    pub(super) moves: Moves,
    /// Throttles of that, among others.
    pub(super) quotas: Rc<ReplicationQuotas>,
    /// What was found at start, by directory; shard 0 sums it up.
    pub(super) summaries: RefCell<Vec<OpenSummary>>,
    pub(super) removals: Removals,
    /// Partition directories without a readable topic id; shard 0 has them.
    pub(super) nameless: RefCell<Vec<PathBuf>>,
    /// What gives logs to this shard and takes them from it is inside; closes right before the logs do, so that a directory
    /// that is left in order stays as it is.
    pub(super) changes: ring::Gate,
    /// The background tasks of this shard; closes when the logs do.
    pub(super) background: ring::Gate,
    /// Used on shard 0, which writes the checkpoints of all shards.
    pub(super) checkpoints: CheckpointRounds,
    /// Used on shard 0: the thread that gives and takes names of logs.
    pub(super) names: RefCell<Option<Rc<ring::Lane>>>,
    /// Logs of this shard by the places of their directories.
    pub(super) counts: RefCell<Vec<usize>>,
    /// Troubles that pass were told of.
    pub(super) passing: Rarely,
}

impl Room for LogDirs {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl HasReplicas for LogDirs {
    fn replicas(&self) -> &Replicas {
        &self.replicas
    }
}

impl LogDirs {
    /// Nothing is opened yet.
    pub fn new(
        core: Rc<Core>,
        replicas: Rc<Replicas>,
        store: Rc<StoreContext>,
        quotas: Rc<ReplicationQuotas>,
    ) -> LogDirs {
        LogDirs {
            core,
            replicas,
            store,
            unclaimed: RefCell::default(),
            being_made: RefCell::default(),
            opened: Flag::default(),
            failed: RefCell::default(),
            failures_changed: ring::Notify::new(),
            unclaimed_futures: RefCell::default(),
            moves: Moves::default(),
            quotas,
            summaries: RefCell::default(),
            removals: Removals::default(),
            nameless: RefCell::default(),
            changes: ring::Gate::new(),
            background: ring::Gate::new(),
            checkpoints: CheckpointRounds::default(),
            names: RefCell::default(),
            counts: RefCell::default(),
            passing: Rarely::default(),
        }
    }

    /// Ends at `deadline`, or when `woken` does, or the logs are closed.
    pub(super) async fn idle_until(&self, deadline: MonotonicMs, woken: impl Future<Output = ()>) {
        let closing = futures_lite::future::or(woken, self.background.closing());
        futures_lite::future::or(closing, ring::sleep_until(deadline)).await;
    }

    /// Logs of this shard in the directory at `place`.
    pub(super) fn logs_in(&self, place: usize) -> usize {
        self.counts.borrow().get(place).copied().unwrap_or(0)
    }

    /// There are `change` more.
    pub(super) fn count(&self, place: usize, change: isize) {
        let mut counts = self.counts.borrow_mut();
        if counts.len() <= place {
            counts.resize(place + 1, 0);
        }
        counts[place] = counts[place].saturating_add_signed(change);
    }
}

/// A log that is ready for use.
pub(super) struct OpenLog {
    pub(super) name: TopicPartition,
    /// Place of its directory.
    pub(super) directory: usize,
    pub(super) log: Log,
    pub(super) store: Rc<SegmentStore>,
    /// As checkpointed.
    pub(super) high_watermark: Offset,
}

/// What a shard found in a directory, for the summary.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenSummary {
    pub logs: usize,
    pub recovered: usize,
    pub truncated_bytes: u64,
    pub took_ms: u64,
}
