//! A partition as its home core holds it: the machine that decides (`ringlog_partition`), the bytes
//! (`segment_store`), and the task that writes them out.
//!
//! Both are private: what others may do to a replica is what this module offers, and what the machine then asks for is done
//! in one place ([`Replica::apply`]). `append`, `read` and `files` say the rest.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use ringlog_log::{DeletedSegment, LogConfig};
use ringlog_partition::{
    AlterPartitionOutcome, AlterPartitionProposal, DeleteRecordsError, Effects, FollowerFetch, FollowerState,
    LeaderState, Partition, Role, Standing, Unserved,
};
use ringlog_ring as ring;
use ringlog_types::{LeaderEpoch, NodeId, Offset, TimestampMs, TopicIdPartition, TopicPartition};

use crate::mesh::LocalFuture;
use crate::storage::context::StoreContext;
use crate::storage::disk_space::Stuck;
use crate::storage::frames::FrameCache;
use crate::storage::log_read::StoredLog as _;
use crate::storage::padding::{LastWrite, Padded};
use crate::storage::segment_store::SegmentStore;

mod append;
mod exchange;
mod files;
mod follow;
mod read;

pub use append::{AppendRules, Appended, ProduceFault, Told};
pub use follow::LogCut;

/// One replica of a partition.
pub struct Replica {
    /// Which partition.
    pub id: TopicIdPartition,
    /// Its topic's name, with the partition.
    pub name: TopicPartition,
    log_dir: Cell<usize>,
    partition: RefCell<Partition>,
    /// Another one once the log has moved to another directory.
    store: RefCell<Rc<SegmentStore>>,
    /// What the stores of this core share.
    context: Rc<StoreContext>,
    config: RefCell<Rc<LogConfig>>,
    /// Durable end, high watermark or role changed: whoever waits looks again.
    progress: ring::Notify,
    /// Fetches that wait: of consumers, and of followers.
    watchers: [RefCell<Vec<Weak<ring::Notify>>>; 2],
    writer_runs: Cell<bool>,
    last_write: LastWrite,
    /// There as long as the disk takes nothing more; the writer waits for better times.
    stuck: RefCell<Option<Stuck>>,
    must_rest: Cell<bool>,
    is_resting: Cell<bool>,
    /// Segments that are no part of the log any more, whose files still have their names.
    retired: RefCell<VecDeque<DeletedSegment>>,
    /// Work on the files beside the writer's joins it; it closes when they are given up.
    files: ring::Gate,
    /// Held while `leader-epoch-checkpoint` is written: who finds nothing to write knows that it is there.
    epochs_turn: ring::ByteSemaphore,
    /// Held while the log is cut or the role changes.
    role_turn: ring::ByteSemaphore,
    /// Held while files are synced, or renamed beside the writer.
    files_turn: ring::ByteSemaphore,
    /// The log is about to go on in another directory: appends wait, as they do for memory.
    holds_appends: Cell<bool>,
    /// Who asks the controller for other in-sync replicas.
    proposals: OnceCell<Rc<Proposals>>,
}

/// Changes of in-sync replicas that leaders of this core want, for whoever asks the controller for them.
#[derive(Default)]
pub struct Proposals {
    waiting: RefCell<Vec<AlterPartitionProposal>>,
    arrived: ring::Notify,
}

impl Proposals {
    /// One more: there is one at a time for each partition.
    pub fn add(&self, proposal: AlterPartitionProposal) {
        self.waiting.borrow_mut().push(proposal);
        self.arrived.notify_all();
    }

    /// All that wait.
    pub fn take(&self) -> Vec<AlterPartitionProposal> {
        self.waiting.take()
    }

    /// Ends when another one comes.
    pub async fn arrived(&self) {
        self.arrived.wait().await;
    }
}

impl Padded for Replica {
    fn last_write(&self) -> &LastWrite {
        &self.last_write
    }

    fn cut(self: Rc<Self>) -> LocalFuture<()> {
        Box::pin(async move {
            if let Err(error) = self.cut_padding().await {
                self.on_file_trouble("cutting a file to its records failed", &error);
            }
        })
    }
}

/// What a fetch waits for, besides another role of the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// More is committed: a consumer's.
    Committed,
    /// More was appended: a follower's.
    Appended,
}

/// Watchers that are gone are looked for when there are this many.
const WATCHERS_TO_SWEEP: usize = 16;

impl Replica {
    /// A replica that has not been told its role yet; its log directory has the place `log_dir` in `log.dirs`.
    pub fn new(
        partition: Partition,
        name: TopicPartition,
        log_dir: usize,
        store: Rc<SegmentStore>,
        config: Rc<LogConfig>,
    ) -> Rc<Replica> {
        Rc::new(Replica {
            id: partition.id(),
            name,
            log_dir: Cell::new(log_dir),
            partition: RefCell::new(partition),
            context: store.context().clone(),
            store: RefCell::new(store),
            config: RefCell::new(config),
            progress: ring::Notify::new(),
            watchers: Default::default(),
            writer_runs: Cell::new(false),
            last_write: LastWrite::default(),
            stuck: RefCell::default(),
            must_rest: Cell::new(false),
            is_resting: Cell::new(false),
            retired: RefCell::default(),
            files: ring::Gate::new(),
            epochs_turn: ring::ByteSemaphore::new(1),
            role_turn: ring::ByteSemaphore::new(1),
            files_turn: ring::ByteSemaphore::new(1),
            holds_appends: Cell::new(false),
            proposals: OnceCell::new(),
        })
    }

    /// Place of its log directory in `log.dirs`.
    pub fn log_dir(&self) -> usize {
        self.log_dir.get()
    }

    /// The topic's settings, shared by its partitions on this core.
    pub fn config(&self) -> Rc<LogConfig> {
        self.config.borrow().clone()
    }

    /// The topic's settings have changed.
    pub fn set_config(&self, config: Rc<LogConfig>) {
        *self.config.borrow_mut() = config;
        // The least number of in-sync replicas may have changed.
        self.progress.notify_all();
    }

    /// The memory that appends take, of this core.
    pub fn frames(&self) -> &FrameCache {
        &self.context.frames
    }

    /// What it is to those who wait at it.
    pub fn standing(&self) -> Standing {
        self.partition.borrow().standing()
    }

    /// The epoch in which the replica leads, if it does.
    pub fn led_epoch(&self) -> Option<LeaderEpoch> {
        let Standing { role, leader_epoch, .. } = self.standing();
        (role == Role::Leader).then_some(leader_epoch)
    }

    /// Why nothing is served from here, if so.
    pub fn unserved(&self) -> Option<Unserved> {
        self.partition.borrow().unserved()
    }

    /// Everything below is on the device.
    pub fn durable_end_offset(&self) -> Offset {
        self.partition.borrow().durable_end_offset()
    }

    /// Everything below is committed.
    pub fn high_watermark(&self) -> Offset {
        self.partition.borrow().high_watermark()
    }

    /// The smallest log start over this replica and the followers that are alive.
    pub fn low_watermark(&self, is_alive: impl Fn(NodeId) -> bool) -> Offset {
        self.partition.borrow().low_watermark(is_alive)
    }

    /// Metadata: this replica leads.
    pub fn become_leader(&self, state: &LeaderState<'_>) {
        let config = self.config();
        let effects = self.partition.borrow_mut().become_leader(state, &config, ring::now().monotonic);
        self.apply(effects);
    }

    /// Metadata: another replica leads, or none.
    pub fn become_follower(&self, state: &FollowerState) {
        let effects = self.partition.borrow_mut().become_follower(state);
        self.apply(effects);
    }

    /// A follower's fetch is its acknowledgement.
    pub fn on_follower_fetch(&self, fetch: &FollowerFetch) {
        let config = self.config();
        let effects = self.partition.borrow_mut().on_follower_fetch(fetch, &config, ring::now().monotonic);
        self.apply(effects);
    }

    /// Records below `offset` (-1: the high watermark) are deleted. Returns the offset that followers' logs must start at,
    /// too, before that is acknowledged, and the epoch in which it was asked.
    pub fn delete_records(&self, offset: Offset) -> Result<(Offset, LeaderEpoch), DeleteRecordsError> {
        let mut partition = self.partition.borrow_mut();
        let target = partition.delete_records(offset, &self.config.borrow())?;
        Ok((target, partition.leader_epoch()))
    }

    /// Drops producers that were idle for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&self, now: TimestampMs) {
        self.partition.borrow_mut().remove_expired_producers(&self.config.borrow(), now);
    }

    /// Nothing is served from here any more: whoever waits is told `why`.
    pub fn close(&self, why: Unserved) {
        let effects = self.partition.borrow_mut().close(why);
        if !why.is_still_written() {
            self.store().abandon();
        }
        self.apply(effects);
    }

    /// Does what an event asks for. All of it is named here: who adds to [`Effects`] says what becomes of it.
    fn apply(&self, effects: Effects) {
        let Effects { high_watermark, durable_end_offset, leadership_changed, alter_partition } = effects;
        if let Some(proposal) = alter_partition {
            self.propose(proposal);
        }
        if leadership_changed {
            self.wake_waiters();
        } else if high_watermark.is_some() {
            self.progress.notify_all();
            self.wake_fetches(Awaited::Committed);
        } else if durable_end_offset.is_some() {
            self.progress.notify_all();
        }
    }

    fn propose(&self, proposal: AlterPartitionProposal) {
        if let Some(proposals) = self.proposals.get() {
            proposals.add(proposal);
        }
    }

    /// What this replica wants of the in-sync replicas goes there from now on. Called once, when it is there to be served.
    pub fn set_proposals(&self, proposals: &Rc<Proposals>) {
        let _ = self.proposals.set(proposals.clone());
    }

    /// Has followers leave the in-sync replicas that haven't caught up for `replica.lag.time.max.ms`. Returns who is to stay.
    pub fn propose_shrink(&self) -> Option<Vec<NodeId>> {
        let proposal = self.partition.borrow_mut().propose_shrink(ring::now().monotonic)?;
        let left = proposal.new_isr.iter().map(|(replica, _)| *replica).collect();
        self.propose(proposal);
        Some(left)
    }

    /// The controller's answer to a proposal. One that comes late, when the metadata has gone on, says nothing any more.
    pub fn on_alter_partition(&self, proposal: &AlterPartitionProposal, outcome: &AlterPartitionOutcome) {
        let config = self.config();
        let mut partition = self.partition.borrow_mut();
        let is_of_now = (partition.leader_epoch(), partition.partition_epoch())
            == (proposal.leader_epoch, proposal.partition_epoch);
        if !is_of_now {
            return;
        }
        let effects = partition.on_alter_partition(outcome, &config, ring::now().monotonic);
        drop(partition);
        self.apply(effects);
    }

    /// Whether the metadata still waits for what was proposed.
    pub fn is_proposed(&self, proposal: &AlterPartitionProposal) -> bool {
        let partition = self.partition.borrow();
        partition.role() == Role::Leader
            && partition.isr().has_pending()
            && (partition.leader_epoch(), partition.partition_epoch())
                == (proposal.leader_epoch, proposal.partition_epoch)
    }

    /// Whether the metadata has a follower among the in-sync replicas, as far as this replica knows as its leader.
    pub fn is_in_sync(&self, follower: NodeId) -> bool {
        self.partition.borrow().isr().committed().contains(&follower)
    }

    /// Whether there are other replicas, as far as it knows as their leader.
    pub fn has_followers(&self) -> bool {
        !self.partition.borrow().remote_replicas().is_empty()
    }

    /// Lets everybody who waits on this partition look again.
    fn wake_waiters(&self) {
        self.progress.notify_all();
        self.wake_fetches(Awaited::Committed);
        self.wake_fetches(Awaited::Appended);
    }

    fn wake_fetches(&self, what: Awaited) {
        for watcher in self.watchers[what as usize].take() {
            if let Some(watcher) = watcher.upgrade() {
                watcher.notify_all();
            }
        }
    }

    /// Ends when durable end, high watermark or role have changed, or settings that they depend on.
    pub fn progressed(&self) -> impl Future<Output = ()> + '_ {
        self.progress.wait()
    }

    /// Notifies `watcher` once, when what it awaits happens or the role changes.
    pub fn watch(&self, watcher: &Rc<ring::Notify>, what: Awaited) {
        let mut watchers = self.watchers[what as usize].borrow_mut();
        if watchers.len() >= WATCHERS_TO_SWEEP && watchers.len() == watchers.capacity() {
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Rc::downgrade(watcher));
    }

    /// How many watch, and how many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> (usize, usize) {
        let living = |list: &RefCell<Vec<Weak<ring::Notify>>>| {
            list.borrow().iter().filter(|watcher| watcher.strong_count() > 0).count()
        };
        (self.watchers.iter().map(living).sum(), self.progress.waiters())
    }
}

#[cfg(test)]
mod tests;
