//! The replica itself: role, epochs, high watermark and in-sync replicas.

use ringlog_log::{Log, LogConfig};
use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Offset, PartitionEpoch, TimestampMs, TopicIdPartition};

use crate::{AlterPartitionOutcome, AlterPartitionProposal, FollowerFetch, InSyncReplicas, RemoteReplica, Unserved};

/// What this replica is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes appends and serves reads.
    Leader,
    /// Copies from the leader; consumers may read from it up to its high watermark.
    Follower,
    /// It has not been told its role, or was ended (see [`Partition::unserved`]).
    Unassigned,
}

/// What a replica is to those who wait at it. When it differs from what they saw, they look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The role.
    pub role: Role,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Why nothing is served, if so.
    pub unserved: Option<Unserved>,
}

/// Whether the leader may miss committed records (it was elected uncleanly).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryState {
    /// Nothing is missing.
    #[default]
    Recovered,
    /// Elected uncleanly and not yet reported as recovered.
    Recovering,
}

/// Metadata that makes this replica the leader, or changes what it leads.
#[derive(Debug, Clone, Copy)]
pub struct LeaderState<'a> {
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch.
    pub partition_epoch: PartitionEpoch,
    /// All assigned replicas, this one included.
    pub replicas: &'a [NodeId],
    /// The ISR.
    pub isr: &'a [NodeId],
    /// Replicas that metadata shows fenced or shutting down: nothing waits for them outside of the ISR.
    pub inactive: &'a [NodeId],
    /// The recovery state.
    pub recovery_state: RecoveryState,
}

/// Metadata that makes this replica a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerState {
    /// The leader, -1 when there is none.
    pub leader: NodeId,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch.
    pub partition_epoch: PartitionEpoch,
}

/// Broker-level settings that the replica follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLimits {
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max_ms: u64,
}

impl Default for PartitionLimits {
    fn default() -> PartitionLimits {
        PartitionLimits { replica_lag_time_max_ms: 30_000 }
    }
}

/// What an event changed; the shard wakes waiters and sends proposals by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The high watermark moved to this: see to waiting produces (acks=all), consumers and DeleteRecords.
    pub high_watermark: Option<Offset>,
    /// The durable end moved to this: see to waiting produces with acks=1, and to what a follower may acknowledge.
    pub durable_end_offset: Option<Offset>,
    /// Role or leader epoch changed: all that waits on this partition is to be completed with an error.
    pub leadership_changed: bool,
    /// Ask the controller for this; [`Partition::on_alter_partition`] takes the answer.
    pub alter_partition: Option<AlterPartitionProposal>,
}

impl Effects {
    /// Takes over what a later event of the same turn changed.
    pub fn merge(&mut self, later: Effects) {
        self.high_watermark = later.high_watermark.or(self.high_watermark);
        self.durable_end_offset = later.durable_end_offset.or(self.durable_end_offset);
        self.leadership_changed |= later.leadership_changed;
        if later.alter_partition.is_some() {
            self.alter_partition = later.alter_partition;
        }
    }
}

/// One replica of a partition.
#[derive(Debug)]
pub struct Partition {
    pub(crate) id: TopicIdPartition,
    pub(crate) local: NodeId,
    pub(crate) role: Role,
    pub(crate) unserved: Option<Unserved>,
    pub(crate) leader: NodeId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) leader_epoch_start_offset: Offset,
    pub(crate) recovery_state: RecoveryState,
    pub(crate) high_watermark: Offset,
    pub(crate) durable_end_offset: Offset,
    pub(crate) assigned: u16,
    pub(crate) remotes: Vec<RemoteReplica>,
    pub(crate) isr: InSyncReplicas,
    pub(crate) limits: PartitionLimits,
    pub(crate) log: Log,
}

impl Partition {
    /// A replica without a role yet. `high_watermark` is the checkpointed one; it is held within the log.
    pub fn new(
        id: TopicIdPartition,
        local: NodeId,
        log: Log,
        high_watermark: Offset,
        limits: PartitionLimits,
    ) -> Partition {
        let durable_end_offset = log.log_end_offset();
        let mut partition = Partition {
            id,
            local,
            role: Role::Unassigned,
            unserved: None,
            leader: NodeId::NONE,
            leader_epoch: LeaderEpoch::NONE,
            partition_epoch: PartitionEpoch::NONE,
            leader_epoch_start_offset: Offset::NONE,
            recovery_state: RecoveryState::Recovered,
            high_watermark: high_watermark.max(log.log_start_offset()).min(durable_end_offset),
            durable_end_offset,
            assigned: 0,
            remotes: Vec::new(),
            isr: InSyncReplicas::default(),
            limits,
            log,
        };
        partition.log.set_jitter_seed(jitter_seed(id));
        let high_watermark = partition.high_watermark;
        partition.log.producers_mut().on_high_watermark(high_watermark);
        partition
    }

    /// Which partition.
    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    /// The role.
    #[inline]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Why nothing is served from here, if so.
    #[inline]
    pub fn unserved(&self) -> Option<Unserved> {
        self.unserved
    }

    /// What it is to those who wait at it.
    #[inline]
    pub fn standing(&self) -> Standing {
        Standing { role: self.role, leader_epoch: self.leader_epoch, unserved: self.unserved }
    }

    /// Whether what was appended still belongs into the log's files.
    #[inline]
    pub fn is_written(&self) -> bool {
        self.unserved.is_none_or(Unserved::is_still_written)
    }

    /// The leader as far as known, -1 for none.
    pub fn leader(&self) -> NodeId {
        self.leader
    }

    /// The leader epoch.
    #[inline]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The partition epoch.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Where the current leader epoch starts, -1 when not leader.
    pub fn leader_epoch_start_offset(&self) -> Offset {
        self.leader_epoch_start_offset
    }

    /// Everything below is committed.
    #[inline]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Everything below is on the device.
    #[inline]
    pub fn durable_end_offset(&self) -> Offset {
        self.durable_end_offset
    }

    /// Everything below is committed and of no open transaction.
    #[inline]
    pub fn last_stable_offset(&self) -> Offset {
        self.log.last_stable_offset(self.high_watermark)
    }

    /// The log.
    #[inline]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log, for the store's own bookkeeping (flushes, retention, memory).
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The ISR.
    pub fn isr(&self) -> &InSyncReplicas {
        &self.isr
    }

    /// The followers as the leader knows them.
    pub fn remote_replicas(&self) -> &[RemoteReplica] {
        &self.remotes
    }

    /// Metadata: this replica leads. An older partition epoch is ignored, and everything once its log can't be used any
    /// more. A new leader epoch starts at the log's end and resets what is known of followers; with the same one only
    /// assignment and ISR change.
    pub fn become_leader(&mut self, state: &LeaderState<'_>, config: &LogConfig, now: MonotonicMs) -> Effects {
        let is_older = state.partition_epoch < self.partition_epoch || state.leader_epoch < self.leader_epoch;
        if is_older || !self.is_written() {
            return Effects::default();
        }
        let new_epoch = self.role != Role::Leader || state.leader_epoch > self.leader_epoch;
        self.role = Role::Leader;
        self.leader = self.local;
        self.leader_epoch = state.leader_epoch;
        self.partition_epoch = state.partition_epoch;
        self.recovery_state = state.recovery_state;
        self.set_replicas(state.replicas);
        self.isr.set_committed(state.isr);
        let mut effects = Effects { leadership_changed: new_epoch, ..Effects::default() };
        if new_epoch {
            let log_end_offset = self.log.log_end_offset();
            self.leader_epoch_start_offset = log_end_offset;
            self.log.leader_epochs_mut().assign(state.leader_epoch, log_end_offset);
            for remote in &mut self.remotes {
                let in_sync = self.isr.committed().contains(&remote.replica);
                remote.reset(in_sync, log_end_offset, now);
            }
        }
        for remote in self.remotes.iter_mut().filter(|remote| state.inactive.contains(&remote.replica)) {
            remote.eligible_for_isr = false;
        }
        effects.high_watermark = self.advance_high_watermark(config, now);
        effects
    }

    fn set_replicas(&mut self, replicas: &[NodeId]) {
        self.assigned = replicas.len().min(usize::from(u16::MAX)) as u16;
        let local = self.local;
        self.remotes.retain(|remote| replicas.contains(&remote.replica));
        for &replica in replicas.iter().filter(|&&replica| replica != local) {
            if !self.remotes.iter().any(|remote| remote.replica == replica) {
                self.remotes.push(RemoteReplica::new(replica));
            }
        }
    }

    /// Metadata: another replica leads (or none). Returns whether leader or epoch changed, so that fetching starts
    /// anew; an older partition epoch is ignored, and everything once its log can't be used any more.
    pub fn become_follower(&mut self, state: &FollowerState) -> Effects {
        let is_older = state.partition_epoch < self.partition_epoch || state.leader_epoch < self.leader_epoch;
        if is_older || !self.is_written() {
            return Effects::default();
        }
        let changed = self.role != Role::Follower || state.leader_epoch > self.leader_epoch;
        self.role = Role::Follower;
        self.leader = state.leader;
        self.leader_epoch = state.leader_epoch;
        self.partition_epoch = state.partition_epoch;
        self.leader_epoch_start_offset = Offset::NONE;
        if state.leader != NodeId::NONE {
            // Who leads knows who is assigned.
            self.assigned = 0;
        }
        self.remotes = Vec::new();
        self.isr = InSyncReplicas::default();
        Effects { leadership_changed: changed, ..Effects::default() }
    }

    /// Nothing is served from here any more. A reason of less weight than the one that is known changes nothing.
    pub fn close(&mut self, why: Unserved) -> Effects {
        if self.unserved.is_some_and(|known| known >= why) {
            return Effects::default();
        }
        self.unserved = Some(why);
        if !why.is_still_written() {
            self.role = Role::Unassigned;
            self.remotes = Vec::new();
        }
        Effects { leadership_changed: true, ..Effects::default() }
    }

    /// Whether this replica is in the assignment that the leader knows.
    pub fn knows_replica(&self, replica: NodeId) -> bool {
        self.remotes.iter().any(|remote| remote.replica == replica)
    }

    /// A follower's fetch was answered with records (not with an error or divergence): takes note of where it is,
    /// which may move the high watermark and let it into the ISR.
    pub fn on_follower_fetch(&mut self, fetch: &FollowerFetch, config: &LogConfig, now: MonotonicMs) -> Effects {
        let leader_end = self.durable_end_offset;
        if self.role != Role::Leader {
            return Effects::default();
        }
        let Some(remote) = self.remotes.iter_mut().find(|remote| remote.replica == fetch.replica) else {
            return Effects::default();
        };
        remote.on_fetch(fetch, leader_end, now);
        let alter_partition = self.propose_expansion(fetch.replica);
        Effects { high_watermark: self.advance_high_watermark(config, now), alter_partition, ..Effects::default() }
    }

    fn propose_expansion(&mut self, replica: NodeId) -> Option<AlterPartitionProposal> {
        let remote = self.remotes.iter().find(|remote| remote.replica == replica)?;
        let joins = !self.isr.has_pending()
            && !self.isr.committed().contains(&replica)
            && remote.eligible_for_isr
            && remote.log_end_offset >= self.high_watermark
            && remote.log_end_offset >= self.leader_epoch_start_offset;
        if !joins {
            return None;
        }
        let mut isr = self.isr.committed().to_vec();
        isr.push(replica);
        Some(self.propose(isr))
    }

    /// Called each `replica.lag.time.max.ms` / 2: proposes to remove followers that lag, from the ISR.
    pub fn propose_shrink(&mut self, now: MonotonicMs) -> Option<AlterPartitionProposal> {
        if self.role != Role::Leader || self.isr.has_pending() {
            return None;
        }
        let leader_end = self.durable_end_offset;
        let lag_max_ms = self.limits.replica_lag_time_max_ms;
        let in_sync = |replica: &NodeId| {
            *replica == self.local
                || self.remotes.iter().any(|r| r.replica == *replica && r.is_caught_up(leader_end, now, lag_max_ms))
        };
        if self.isr.committed().iter().all(in_sync) {
            return None;
        }
        let isr: Vec<_> = self.isr.committed().iter().copied().filter(in_sync).collect();
        Some(self.propose(isr))
    }

    fn propose(&mut self, isr: Vec<NodeId>) -> AlterPartitionProposal {
        let broker_epoch = |replica: NodeId| {
            let known = self.remotes.iter().find(|remote| remote.replica == replica);
            known.map_or(ringlog_types::BrokerEpoch::NONE, |remote| remote.broker_epoch)
        };
        let proposal = AlterPartitionProposal {
            id: self.id,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            new_isr: isr.iter().map(|&replica| (replica, broker_epoch(replica))).collect(),
            recovery_state: RecoveryState::Recovered,
        };
        self.isr.propose(isr);
        proposal
    }

    /// The controller's answer to a proposal.
    pub fn on_alter_partition(
        &mut self,
        outcome: &AlterPartitionOutcome,
        config: &LogConfig,
        now: MonotonicMs,
    ) -> Effects {
        if self.role != Role::Leader {
            return Effects::default();
        }
        match outcome {
            AlterPartitionOutcome::Committed { leader_epoch, partition_epoch, isr } => {
                // An equal epoch confirms what metadata has shown already, an older one says nothing any more.
                if *leader_epoch != self.leader_epoch || *partition_epoch < self.partition_epoch {
                    return Effects::default();
                }
                self.partition_epoch = *partition_epoch;
                self.recovery_state = RecoveryState::Recovered;
                self.isr.set_committed(isr);
            }
            AlterPartitionOutcome::Ineligible => self.isr.drop_pending(),
            // The pending set stays in force: the change may have been committed all the same.
            AlterPartitionOutcome::GiveUp | AlterPartitionOutcome::Retry => {}
        }
        Effects { high_watermark: self.advance_high_watermark(config, now), ..Effects::default() }
    }

    /// The smallest log start over this replica and the given live followers: what DeleteRecords reports and waits for.
    pub fn low_watermark(&self, is_alive: impl Fn(NodeId) -> bool) -> Offset {
        let remotes = self.remotes.iter().filter(|r| is_alive(r.replica)).map(|r| r.log_start_offset);
        remotes.fold(self.log.log_start_offset(), Offset::min)
    }

    /// Drops producers that were idle for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&mut self, config: &LogConfig, now: TimestampMs) -> usize {
        self.log.producers_mut().remove_expired(config.producer_id_expiration_ms, now)
    }
}

/// Spreads the rolls by time of a node's partitions.
pub(crate) fn jitter_seed(id: TopicIdPartition) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.topic_id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ (id.partition.0 as u64) << 32
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
