//! What happens to partitions when a broker or a directory comes or goes.

use ringlog_protocol::metadata_records::{BrokerRegistrationChangeRecord, RecordAndVersion, UnregisterBrokerRecord};
use ringlog_types::{NodeId, TopicIdPartition, Uuid};

use super::context::record;
use super::hosted;
use super::partition_change::Election;
use super::plan::Plan;
use super::state::ActiveController;
use crate::image::{BrokerImage, PartitionImage};

/// Which broker goes or comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeadershipChange {
    /// Leaves in-sync sets and leads nothing.
    pub(crate) remove: Option<NodeId>,
    /// May lead although it is fenced still.
    pub(crate) add: Option<NodeId>,
    /// Came back from an unclean shutdown: leaves in-sync and eligible sets.
    pub(crate) unclean: Option<NodeId>,
}

impl ActiveController {
    /// Those of the partitions that name `broker` for which `wanted` holds.
    fn partitions_of(&self, broker: NodeId, wanted: impl Fn(&PartitionImage) -> bool) -> Vec<TopicIdPartition> {
        let topics = self.indexes.hosted.by(broker).filter_map(|topic| self.image.topics.by_id(topic));
        let found = topics.flat_map(|topic| {
            let named = topic.partitions.iter().filter(|(_, it)| hosted::names(it, broker) && wanted(it));
            named.map(|(partition, _)| TopicIdPartition { topic_id: topic.id, partition })
        });
        found.collect()
    }

    /// Elections and in-sync set changes for these partitions.
    pub(crate) fn update_leadership(
        &self,
        partitions: impl IntoIterator<Item = TopicIdPartition>,
        change: LeadershipChange,
        records: &mut Vec<RecordAndVersion>,
    ) {
        let is_gone = |id: NodeId| Some(id) == change.remove || Some(id) == change.unclean;
        let is_acceptable = |id: NodeId| !is_gone(id) && (Some(id) == change.add || self.is_active(id));
        for id in partitions {
            let topic = self.image.topics.name(id.topic_id);
            let record = self.change_partition(id, &is_acceptable, |builder| {
                builder.in_sync_replicas.retain(|id| !is_gone(*id));
                builder.unclean_replicas.extend(change.unclean);
                builder.election = topic.map_or(Election::Online, |topic| self.usual_election(topic));
            });
            records.extend(record);
        }
    }

    fn leave_in_sync_sets(&self, id: NodeId, plan: &mut Plan) {
        let partitions = self.partitions_of(id, |partition| partition.in_sync_replicas().contains(&id));
        plan.partitions(partitions, LeadershipChange { remove: Some(id), ..Default::default() });
    }

    fn partitions_where_eligible(&self, id: NodeId) -> Vec<TopicIdPartition> {
        self.partitions_of(id, |partition| partition.eligible_leader_replicas().contains(&id))
    }

    fn leave_uncleanly(&self, id: NodeId, plan: &mut Plan) {
        let change = LeadershipChange { unclean: Some(id), ..Default::default() };
        plan.partitions(self.partitions_of(id, |partition| partition.in_sync_replicas().contains(&id)), change);
        plan.partitions(self.partitions_where_eligible(id), change);
    }

    /// Registration of a new incarnation: partitions forget the previous life.
    pub(crate) fn on_previous_life_ended(&self, id: NodeId, was_clean: bool, plan: &mut Plan) {
        if was_clean || !self.image.features.is_elr_enabled() {
            self.leave_in_sync_sets(id, plan);
        } else {
            self.leave_uncleanly(id, plan);
        }
    }

    /// In-sync removals, then the fence record.
    pub(crate) fn fence_broker(&self, broker: &BrokerImage, plan: &mut Plan) {
        self.leave_in_sync_sets(broker.id, plan);
        plan.record(registration_change(broker, |change| change.fenced = 1, 0));
    }

    /// The unfence record, then elections for partitions without a leader.
    pub(crate) fn unfence_broker(&self, broker: &BrokerImage, plan: &mut Plan) {
        plan.record(registration_change(broker, |change| change.fenced = -1, 0));
        let leaderless = self.indexes.leaderless.iter().copied();
        plan.partitions(leaderless, LeadershipChange { add: Some(broker.id), ..Default::default() });
    }

    /// The shutdown record unless there is one, then in-sync removals and leader moves.
    pub(crate) fn begin_controlled_shutdown(&self, broker: &BrokerImage, plan: &mut Plan) {
        if !broker.is_in_controlled_shutdown {
            plan.record(registration_change(broker, |change| change.in_controlled_shutdown = 1, 1));
        }
        self.leave_in_sync_sets(broker.id, plan);
        plan.shutting_down = Some(broker.id);
    }

    /// Removals from in-sync sets, then the unregister record. Replica lists stay, and so do eligible sets: where the
    /// broker is eligible only what else is due is done.
    pub(crate) fn unregister(&self, broker: &BrokerImage, plan: &mut Plan) {
        self.leave_in_sync_sets(broker.id, plan);
        let change = LeadershipChange { remove: Some(broker.id), ..Default::default() };
        plan.partitions(self.partitions_where_eligible(broker.id), change);
        let gone = UnregisterBrokerRecord { broker_id: broker.id.0, broker_epoch: broker.epoch.0 };
        plan.record(record(gone.into(), 0));
    }

    /// Directories of the broker went offline: its replicas there leave in-sync sets, then the remaining directories
    /// are recorded. Directories that were offline before are ignored.
    pub(crate) fn on_directories_offline(&self, broker: &BrokerImage, offline: &[Uuid], plan: &mut Plan) {
        let newly: Vec<Uuid> = broker.directories.iter().copied().filter(|id| offline.contains(id)).collect();
        if newly.is_empty() {
            return;
        }
        let remaining: Vec<Uuid> = broker.directories.iter().copied().filter(|id| !offline.contains(id)).collect();
        // Where the replica isn't in sync something else may be due.
        let is_hit = |partition: &PartitionImage| {
            partition.directory(broker.id).is_some_and(|directory| newly.contains(&directory))
        };
        let change = LeadershipChange { remove: Some(broker.id), ..Default::default() };
        plan.partitions(self.partitions_of(broker.id, is_hit), change);
        plan.record(registration_change(broker, |change| change.log_dirs = remaining, 2));
    }
}

/// A record that changes `broker`'s registration.
pub(crate) fn registration_change(
    broker: &BrokerImage,
    edit: impl FnOnce(&mut BrokerRegistrationChangeRecord),
    version: i16,
) -> RecordAndVersion {
    let mut change = BrokerRegistrationChangeRecord {
        broker_id: broker.id.0,
        broker_epoch: broker.epoch.0,
        ..BrokerRegistrationChangeRecord::default()
    };
    edit(&mut change);
    record(change.into(), version)
}
