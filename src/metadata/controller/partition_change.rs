//! Builds the PartitionChange record for any change of a partition: reassignment, eligible leader replicas (KIP-966),
//! election, epoch bump. Every path that changes a partition goes through here.

use ringlog_protocol::metadata_records::{PartitionChangeRecord, RecordAndVersion};
use ringlog_types::{NodeId, TopicIdPartition, Uuid};

use super::context::record;
use crate::features::MetadataVersion;
use crate::image::{ClusterImage, LeaderRecoveryState, PartitionImage, directory};

/// What kind of leader election is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Election {
    /// The preferred replica if it can lead, else as online; never unclean.
    Preferred,
    /// Keep the leader if it can lead, else the first replica that can.
    Online,
    /// As online, and if none can lead, the first replica that is up: may lose records.
    Unclean,
}

/// No change of the leader in a PartitionChange record.
const NO_LEADER_CHANGE: i32 = -2;

/// The wanted state of a partition; [`PartitionChange::build`] makes the record.
pub(crate) struct PartitionChange<'a> {
    partition: &'a PartitionImage,
    id: TopicIdPartition,
    cluster: &'a ClusterImage,
    is_acceptable_leader: &'a dyn Fn(NodeId) -> bool,
    metadata_version: MetadataVersion,
    is_elr_enabled: bool,
    min_in_sync_replicas: usize,
    pub(crate) election: Election,
    pub(crate) in_sync_replicas: Vec<NodeId>,
    pub(crate) replicas: Vec<NodeId>,
    pub(crate) removing_replicas: Vec<NodeId>,
    pub(crate) adding_replicas: Vec<NodeId>,
    /// Replicas that came back from an unclean shutdown, and so are not eligible.
    pub(crate) unclean_replicas: Vec<NodeId>,
    pub(crate) leader_recovery_state: LeaderRecoveryState,
    /// Replica and its directory, to be changed.
    pub(crate) assigned_directories: Vec<(NodeId, Uuid)>,
    eligible_leader_replicas: Vec<NodeId>,
}

/// What a change needs to know of the cluster.
#[derive(Clone, Copy)]
pub(crate) struct ChangeContext<'a> {
    pub(crate) cluster: &'a ClusterImage,
    /// Whether a broker is up and may lead; its directory is checked besides.
    pub(crate) is_acceptable_leader: &'a dyn Fn(NodeId) -> bool,
    pub(crate) metadata_version: MetadataVersion,
    pub(crate) is_elr_enabled: bool,
    /// The topic's `min.insync.replicas`, at most its replication factor.
    pub(crate) min_in_sync_replicas: usize,
}

fn numbers(ids: &[NodeId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

impl<'a> PartitionChange<'a> {
    /// A change of `partition` that wants everything as it is.
    pub(crate) fn new(
        partition: &'a PartitionImage,
        id: TopicIdPartition,
        context: ChangeContext<'a>,
    ) -> PartitionChange<'a> {
        PartitionChange {
            partition,
            id,
            cluster: context.cluster,
            is_acceptable_leader: context.is_acceptable_leader,
            metadata_version: context.metadata_version,
            is_elr_enabled: context.is_elr_enabled,
            min_in_sync_replicas: context.min_in_sync_replicas,
            election: Election::Online,
            in_sync_replicas: partition.in_sync_replicas().to_vec(),
            replicas: partition.replicas().to_vec(),
            removing_replicas: partition.removing_replicas().to_vec(),
            adding_replicas: partition.adding_replicas().to_vec(),
            unclean_replicas: Vec::new(),
            leader_recovery_state: partition.leader_recovery_state,
            assigned_directories: Vec::new(),
            eligible_leader_replicas: partition.eligible_leader_replicas().to_vec(),
        }
    }

    /// The record, or `None` if nothing differs.
    pub(crate) fn build(mut self) -> Option<RecordAndVersion> {
        let mut change = PartitionChangeRecord {
            partition_id: self.id.partition.0,
            topic_id: self.id.topic_id,
            ..PartitionChangeRecord::default()
        };
        self.complete_reassignment();
        self.update_elr();
        self.elect(&mut change);
        self.write_elr(&mut change);
        let may_write_isr = !self.in_sync_replicas.is_empty() || self.is_elr_enabled;
        if change.isr.is_none() && may_write_isr && *self.in_sync_replicas != *self.partition.in_sync_replicas() {
            change.isr = Some(numbers(&self.in_sync_replicas));
        }
        self.bump_leader_epoch(&mut change);
        self.update_last_known_leader(&mut change);
        self.write_assignment(&mut change);
        if self.leader_recovery_state != self.partition.leader_recovery_state {
            change.leader_recovery_state = self.leader_recovery_state as i8;
        }
        let empty = PartitionChangeRecord {
            partition_id: self.id.partition.0,
            topic_id: self.id.topic_id,
            ..PartitionChangeRecord::default()
        };
        (change != empty).then(|| record(change.into(), self.metadata_version.partition_change_record_version()))
    }

    /// Ends the running reassignment if the in-sync replicas allow it.
    fn complete_reassignment(&mut self) {
        if self.removing_replicas.is_empty() && self.adding_replicas.is_empty() {
            return;
        }
        let stays = |id: &NodeId| !self.removing_replicas.contains(id);
        let in_sync: Vec<NodeId> = self.in_sync_replicas.iter().copied().filter(stays).collect();
        let replicas: Vec<NodeId> = self.replicas.iter().copied().filter(stays).collect();
        let all_in_sync = |ids: &[NodeId]| ids.iter().all(|id| in_sync.contains(id));
        if in_sync.is_empty() || !all_in_sync(&self.adding_replicas) {
            return;
        }
        // With fewer copies afterwards, all that remain must be good.
        if self.adding_replicas.len() < self.removing_replicas.len() && !all_in_sync(&replicas) {
            return;
        }
        self.in_sync_replicas = in_sync;
        self.replicas = replicas;
        self.removing_replicas.clear();
        self.adding_replicas.clear();
    }

    fn update_elr(&mut self) {
        if !self.is_elr_enabled {
            return;
        }
        if self.in_sync_replicas.len() >= self.min_in_sync_replicas {
            self.eligible_leader_replicas.clear();
            return;
        }
        let mut eligible = std::mem::take(&mut self.eligible_leader_replicas);
        eligible.extend_from_slice(self.partition.in_sync_replicas());
        eligible.retain(|id| !self.in_sync_replicas.contains(id) && !self.unclean_replicas.contains(id));
        eligible.retain(|id| !self.is_added(*id));
        eligible.sort_unstable();
        eligible.dedup();
        self.eligible_leader_replicas = eligible;
    }

    /// Whether it becomes a replica by this change. Who is removed while too few are in sync stays among the eligible ones,
    /// or is the last known leader; added again it has nothing in its log, and must not lead. (Kafka elects it.)
    fn is_added(&self, id: NodeId) -> bool {
        self.replicas.contains(&id) && !self.partition.replicas().contains(&id)
    }

    fn is_acceptable(&self, id: NodeId) -> bool {
        if !(self.is_acceptable_leader)(id) {
            return false;
        }
        let Some(broker) = self.cluster.broker(id) else { return false };
        // Where the replica lies now: a directory that this very change assigns does not count yet.
        match self.partition.directory(id) {
            Some(directory) => broker.has_online_directory(directory),
            // A replica that this change adds lies nowhere yet.
            None => self.replicas.contains(&id),
        }
    }

    fn is_valid_leader(&self, id: NodeId) -> bool {
        // Who was eligible before the feature was turned off still is.
        let is_eligible =
            self.in_sync_replicas.is_empty() && self.eligible_leader_replicas.contains(&id) && !self.is_added(id);
        (self.in_sync_replicas.contains(&id) || is_eligible) && self.is_acceptable(id)
    }

    /// The leader to be and whether its election is unclean.
    fn choose_leader(&self) -> (NodeId, bool) {
        if self.election == Election::Preferred
            && let Some(preferred) = self.replicas.first().filter(|id| self.is_valid_leader(**id))
        {
            return (*preferred, false);
        }
        if self.is_valid_leader(self.partition.leader) && self.replicas.contains(&self.partition.leader) {
            return (self.partition.leader, false);
        }
        if let Some(first) = self.replicas.iter().find(|id| self.is_valid_leader(**id)) {
            return (*first, false);
        }
        if self.is_elr_enabled
            && self.in_sync_replicas.is_empty()
            && self.eligible_leader_replicas.is_empty()
            && let [last_known] = self.partition.last_known_elr()
            && !self.is_added(*last_known)
            && self.is_acceptable(*last_known)
        {
            return (*last_known, true);
        }
        if self.election == Election::Unclean
            && let Some(first) = self.replicas.iter().find(|id| self.is_acceptable(**id))
        {
            return (*first, true);
        }
        (NodeId::NONE, false)
    }

    fn elect(&mut self, change: &mut PartitionChangeRecord) {
        let (leader, is_unclean) = self.choose_leader();
        if leader == self.partition.leader {
            return;
        }
        change.leader = leader.0;
        if is_unclean {
            // The new leader may lack committed records, so nobody else counts as in sync.
            change.isr = Some(vec![leader.0]);
            self.in_sync_replicas = vec![leader];
            // Whatever the old leader says of itself in this very change, the new one has to recover. (Kafka's controller
            // writes what the old one said.)
            self.leader_recovery_state = LeaderRecoveryState::Recovering;
        } else if self.eligible_leader_replicas.contains(&leader) {
            self.in_sync_replicas = vec![leader];
            self.eligible_leader_replicas.retain(|id| *id != leader);
        }
    }

    fn write_elr(&mut self, change: &mut PartitionChangeRecord) {
        let is_clean = change.isr.is_none();
        if !is_clean || !self.is_elr_enabled {
            self.eligible_leader_replicas.clear();
        }
        if *self.eligible_leader_replicas != *self.partition.eligible_leader_replicas() {
            change.eligible_leader_replicas = Some(numbers(&self.eligible_leader_replicas));
        }
    }

    fn bump_leader_epoch(&self, change: &mut PartitionChangeRecord) {
        if change.leader != NO_LEADER_CHANGE {
            return;
        }
        let is_replica_removed = self.partition.replicas().iter().any(|id| !self.replicas.contains(id));
        // An in-sync set whose last member goes is kept as it is.
        let is_isr_shrunk = change.isr.is_some()
            && self.partition.in_sync_replicas().iter().any(|id| !self.in_sync_replicas.contains(id));
        let by_shrink = self.metadata_version.is_leader_epoch_bump_required_on_isr_shrink() && is_isr_shrunk;
        if is_replica_removed || by_shrink {
            change.leader = self.partition.leader.0;
        }
    }

    fn update_last_known_leader(&self, change: &mut PartitionChangeRecord) {
        if !self.is_elr_enabled {
            return;
        }
        let old = self.partition;
        // Only the first time that it becomes leaderless. Kafka writes -1 where that wasn't noted then, and so do we.
        let is_leaderless = change.leader == NodeId::NONE.0;
        if is_leaderless && old.last_known_elr().is_empty() {
            change.last_known_elr = Some(vec![old.leader.0]);
        } else if !old.last_known_elr().is_empty()
            && (change.leader >= 0 || old.last_known_elr().iter().any(|id| self.is_added(*id)))
        {
            change.last_known_elr = Some(Vec::new());
        }
    }

    fn write_assignment(&self, change: &mut PartitionChangeRecord) {
        let old = self.partition;
        let has_directories = self.metadata_version.is_directory_assignment_supported();
        let directory_of = |id: &NodeId| {
            let assigned = self.assigned_directories.iter().find(|(replica, _)| replica == id).map(|(_, it)| *it);
            let default = || self.cluster.broker(*id).map(|broker| broker.default_directory());
            assigned.or_else(|| old.directory(*id)).or_else(default).unwrap_or(directory::UNASSIGNED)
        };
        let directories: Vec<Uuid> = self.replicas.iter().map(directory_of).collect();
        let are_replicas_changed = *self.replicas != *old.replicas();
        if are_replicas_changed {
            change.replicas = Some(numbers(&self.replicas));
        }
        if has_directories && *directories != *old.directories() {
            change.directories = Some(directories);
        }
        if *self.removing_replicas != *old.removing_replicas() {
            change.removing_replicas = Some(numbers(&self.removing_replicas));
        }
        if *self.adding_replicas != *old.adding_replicas() {
            change.adding_replicas = Some(numbers(&self.adding_replicas));
        }
    }
}
