//! The active controller's uncommitted state, and how replay of its own records changes it.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_types::{LeaderEpoch, NodeId, Now, Offset, PartitionIndex, Random, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;

use super::context::ControllerConfig;
use super::heartbeats::HeartbeatManager;
use super::hosted::HostedTopics;
use super::partition_change::{ChangeContext, Election, PartitionChange};
use super::periodic::Deadlines;
use super::plan::Plan;
use crate::features::MetadataVersion;
use crate::image::{ConfigResource, MetadataChanges, MetadataImage, PartitionImage};

pub(crate) const MIN_IN_SYNC_REPLICAS: &str = "min.insync.replicas";
pub(crate) const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

/// Partitions by what the controller asks about them, kept by replay.
#[derive(Debug, Default)]
pub(crate) struct PartitionIndexes {
    leader_counts: FxHashMap<NodeId, usize>,
    /// Partitions without a leader.
    pub(crate) leaderless: BTreeSet<TopicIdPartition>,
    /// Partitions led by another than their preferred replica.
    pub(crate) imbalanced: BTreeSet<TopicIdPartition>,
    /// Partitions with a running reassignment.
    pub(crate) reassigning: BTreeSet<TopicIdPartition>,
    /// By the brokers that they name.
    pub(crate) hosted: HostedTopics,
    /// One topic for each name that metrics show, with the others that would have the same: as a rule none, as their
    /// creation is refused.
    metric_names: FxHashMap<MetricName, BTreeSet<Arc<str>>>,
}

/// A topic's name; equal to others that are the same with `.` read as `_`, as in the names of metrics.
#[derive(Debug)]
struct MetricName(Arc<str>);

impl MetricName {
    fn shown(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|byte| if byte == b'.' { b'_' } else { byte })
    }
}

impl PartialEq for MetricName {
    fn eq(&self, other: &MetricName) -> bool {
        self.shown().eq(other.shown())
    }
}

impl Eq for MetricName {}

impl Hash for MetricName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown().for_each(|byte| state.write_u8(byte));
    }
}

impl PartitionIndexes {
    fn of(image: &MetadataImage) -> PartitionIndexes {
        let mut indexes = PartitionIndexes { hosted: HostedTopics::of(&image.topics), ..PartitionIndexes::default() };
        indexes.metric_names.reserve(image.topics.len());
        for topic in image.topics.iter() {
            indexes.on_topic_created(&topic.name);
            for (index, partition) in topic.partitions.iter() {
                indexes.add(TopicIdPartition { topic_id: topic.id, partition: index }, partition);
            }
        }
        indexes
    }

    fn add(&mut self, id: TopicIdPartition, partition: &PartitionImage) {
        if partition.has_leader() {
            *self.leader_counts.entry(partition.leader).or_default() += 1;
            if !partition.has_preferred_leader() {
                self.imbalanced.insert(id);
            }
        } else {
            self.leaderless.insert(id);
        }
        if partition.is_reassigning() {
            self.reassigning.insert(id);
        }
    }

    fn remove(&mut self, id: TopicIdPartition, partition: &PartitionImage) {
        if let Some(count) = self.leader_counts.get_mut(&partition.leader) {
            *count -= 1;
            if *count == 0 {
                self.leader_counts.remove(&partition.leader);
            }
        }
        self.leaderless.remove(&id);
        self.imbalanced.remove(&id);
        self.reassigning.remove(&id);
    }

    fn on_topic_created(&mut self, name: &Arc<str>) {
        match self.metric_names.entry(MetricName(name.clone())) {
            Entry::Vacant(free) => {
                free.insert(BTreeSet::new());
            }
            Entry::Occupied(mut taken) if taken.key().0 != *name => {
                taken.get_mut().insert(name.clone());
            }
            Entry::Occupied(_) => {}
        }
    }

    fn on_topic_deleted(&mut self, name: &Arc<str>) {
        if let Some((known, others)) = self.metric_names.remove_entry(&MetricName(name.clone())) {
            let names = others.into_iter().chain([known.0]);
            names.filter(|other| other != name).for_each(|other| self.on_topic_created(&other));
        }
    }

    /// Whether `broker` leads any partition.
    pub(crate) fn leads_partitions(&self, broker: NodeId) -> bool {
        self.leader_counts.contains_key(&broker)
    }

    /// The first existing topic whose metric names would be those of `name`.
    pub(crate) fn colliding_topic(&self, name: &str) -> Option<&Arc<str>> {
        let (known, others) = self.metric_names.get_key_value(&MetricName(name.into()))?;
        let names = others.iter().chain([&known.0]);
        names.filter(|existing| &***existing != name).min()
    }
}

/// The state of a controller that is active.
#[derive(Debug)]
pub(crate) struct ActiveController {
    pub(crate) config: Arc<ControllerConfig>,
    pub(crate) epoch: LeaderEpoch,
    /// With all records that this controller decided, committed or not.
    pub(crate) image: MetadataImage,
    pub(crate) indexes: PartitionIndexes,
    pub(crate) heartbeats: HeartbeatManager,
    /// Where each broker's RegisterBroker record lies. The broker's epoch can be lower, see `brokers.rs`.
    pub(crate) register_record_offsets: FxHashMap<NodeId, Offset>,
    pub(crate) random: Random,
    pub(crate) deadlines: Deadlines,
    /// Where the periodic elections go on that have more to do than one run may.
    pub(crate) preferred_cursor: Option<TopicIdPartition>,
    pub(crate) unclean_cursor: Option<TopicIdPartition>,
    /// A change that is being worked out.
    pub(crate) unfinished: Option<Plan>,
}

impl ActiveController {
    pub(crate) fn new(
        config: Arc<ControllerConfig>,
        image: MetadataImage,
        epoch: LeaderEpoch,
        next_offset: Offset,
        now: Now,
    ) -> ActiveController {
        let mut heartbeats = HeartbeatManager::new(config.session_timeout_ms, &image.cluster, now.monotonic);
        // The broker of the same node is this very process, or one that is gone: both hold the lock of the same
        // directories. So after a crash it needn't wait for the session of its former life (Kafka's does).
        heartbeats.end_session(config.node_id);
        // The log below is replayed already; its end is a safe bound of where the registrations lie.
        let last = Offset(next_offset.0 - 1);
        let register_record_offsets = image.cluster.brokers.keys().map(|id| (*id, last)).collect();
        let seed = config.random_seed ^ (u64::from(epoch.0.unsigned_abs()) << 32) ^ next_offset.0.unsigned_abs();
        ActiveController {
            indexes: PartitionIndexes::of(&image),
            heartbeats,
            register_record_offsets,
            random: Random::from_seed(seed),
            deadlines: Deadlines::new(&config, now.monotonic),
            preferred_cursor: None,
            unclean_cursor: None,
            unfinished: None,
            config,
            epoch,
            image,
        }
    }

    /// Replays records that this controller decided, the first of which will lie at `next_offset`.
    ///
    /// # Panics
    /// If a record doesn't fit the state: then no other node could replay it either, so it must not reach the log.
    pub(crate) fn replay_own(&mut self, records: &[RecordAndVersion], next_offset: Offset) {
        let mut changes = MetadataChanges::default();
        for (index, record) in records.iter().enumerate() {
            let offset = next_offset.plus(index as i64);
            self.replay(&record.record, offset, &mut changes);
        }
    }

    fn replay(&mut self, record: &MetadataRecord, offset: Offset, changes: &mut MetadataChanges) {
        let id = match record {
            MetadataRecord::Partition(record) => partition_id(record.topic_id, record.partition_id),
            MetadataRecord::PartitionChange(record) => partition_id(record.topic_id, record.partition_id),
            record => {
                self.replay_other(record, offset, changes);
                return;
            }
        };
        let old = self.image.topics.partition(id).cloned();
        if let Some(old) = &old {
            self.indexes.remove(id, old);
        }
        self.replay_into_image(record, changes);
        if let Some(new) = self.image.topics.partition(id) {
            self.indexes.add(id, new);
            self.indexes.hosted.update(id.topic_id, old.as_ref(), new);
        }
    }

    fn replay_other(&mut self, record: &MetadataRecord, offset: Offset, changes: &mut MetadataChanges) {
        match record {
            MetadataRecord::RemoveTopic(record) => {
                if let Some(topic) = self.image.topics.by_id(record.topic_id).cloned() {
                    self.indexes.on_topic_deleted(&topic.name);
                    for (index, partition) in topic.partitions.iter() {
                        self.indexes.remove(TopicIdPartition { topic_id: topic.id, partition: index }, partition);
                    }
                    self.indexes.hosted.on_topic_deleted(&topic);
                }
            }
            MetadataRecord::Topic(record) => self.indexes.on_topic_created(&record.name.as_str().into()),
            MetadataRecord::RegisterBroker(record) => {
                let id = NodeId(record.broker_id);
                self.heartbeats.register(id);
                self.register_record_offsets.insert(id, offset);
            }
            MetadataRecord::BrokerRegistrationChange(record) => {
                self.heartbeats.forget_offset(NodeId(record.broker_id));
                if record.fenced == 1 {
                    self.heartbeats.end_controlled_shutdown(NodeId(record.broker_id));
                }
            }
            MetadataRecord::UnregisterBroker(record) => {
                self.heartbeats.remove(NodeId(record.broker_id));
                self.register_record_offsets.remove(&NodeId(record.broker_id));
            }
            _ => {}
        }
        self.replay_into_image(record, changes);
    }

    fn replay_into_image(&mut self, record: &MetadataRecord, changes: &mut MetadataChanges) {
        if let Err(error) = self.image.replay(record, changes) {
            panic!("the controller made a record that can't be replayed: {error}");
        }
    }

    pub(crate) fn metadata_version(&self) -> MetadataVersion {
        self.image.metadata_version()
    }

    /// A topic's config where it is set: on the topic, this controller's own dynamic configs, the cluster's default.
    fn dynamic_topic_config(&self, topic: &str, key: &str) -> Option<&Arc<str>> {
        let configs = &self.image.configs;
        configs
            .value(&ConfigResource::topic(topic), key)
            .or_else(|| configs.value(&ConfigResource::broker(self.config.node_id), key))
            .or_else(|| configs.value(&ConfigResource::broker_default(), key))
    }

    /// Whether a leader may be elected that is not in sync.
    pub(crate) fn is_unclean_election_enabled(&self, topic: &str) -> bool {
        let value = self.dynamic_topic_config(topic, UNCLEAN_LEADER_ELECTION_ENABLE);
        value.map_or(self.config.unclean_leader_election_enable, |value| value.eq_ignore_ascii_case("true"))
    }

    /// `min.insync.replicas` of the topic, at most its replication factor.
    pub(crate) fn effective_min_in_sync_replicas(&self, topic: &str) -> usize {
        let value = self.dynamic_topic_config(topic, MIN_IN_SYNC_REPLICAS).and_then(|value| value.parse().ok());
        let value = value.unwrap_or(usize::try_from(self.config.min_in_sync_replicas).unwrap_or(1));
        let partition = self.image.topics.by_name(topic).and_then(|topic| topic.partitions.get(&PartitionIndex(0)));
        partition.map_or(value, |partition| value.min(partition.replicas().len()))
    }

    /// The election that partitions of the topic get when brokers come and go, and in-sync sets change.
    pub(crate) fn usual_election(&self, topic: &str) -> Election {
        if self.is_unclean_election_enabled(topic) { Election::Unclean } else { Election::Online }
    }

    /// Builds a change of one partition, which `edit` describes. A leader that is not in sync is only elected if it says
    /// so, see [`ActiveController::usual_election`].
    pub(crate) fn change_partition(
        &self,
        id: TopicIdPartition,
        is_acceptable_leader: &dyn Fn(NodeId) -> bool,
        edit: impl FnOnce(&mut PartitionChange<'_>),
    ) -> Option<RecordAndVersion> {
        let topic = self.image.topics.by_id(id.topic_id)?;
        let partition = topic.partitions.get(&id.partition)?;
        let context = ChangeContext {
            cluster: &self.image.cluster,
            is_acceptable_leader,
            metadata_version: self.metadata_version(),
            is_elr_enabled: self.image.features.is_elr_enabled(),
            min_in_sync_replicas: self.effective_min_in_sync_replicas(&topic.name),
        };
        let mut change = PartitionChange::new(partition, id, context);
        edit(&mut change);
        change.build()
    }

    /// Whether the broker is up, as the state has it now.
    pub(crate) fn is_active(&self, id: NodeId) -> bool {
        self.image.cluster.is_active(id)
    }
}

pub(crate) fn partition_id(topic_id: Uuid, partition: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id, partition: PartitionIndex(partition) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_collide_by_their_names_in_metrics_until_they_are_gone() {
        let mut indexes = PartitionIndexes::default();
        let names = ["a.b_c", "a_b.c", "a.b.c", "other"].map(Arc::<str>::from);
        for name in names.iter().chain(&names) {
            indexes.on_topic_created(name);
        }
        let colliding = |indexes: &PartitionIndexes, name| indexes.colliding_topic(name).map(|name| name.to_string());
        assert_eq!(colliding(&indexes, "a_b_c").as_deref(), Some("a.b.c"));
        assert_eq!(colliding(&indexes, "a.b.c").as_deref(), Some("a.b_c"));
        assert_eq!(colliding(&indexes, "other"), None);
        assert_eq!(colliding(&indexes, "a_b"), None);
        indexes.on_topic_deleted(&names[0]);
        assert_eq!(colliding(&indexes, "a.b.c").as_deref(), Some("a_b.c"));
        indexes.on_topic_deleted(&names[2]);
        assert_eq!(colliding(&indexes, "a_b_c").as_deref(), Some("a_b.c"));
        indexes.on_topic_deleted(&names[1]);
        assert_eq!(colliding(&indexes, "a_b_c"), None);
        assert_eq!(indexes.metric_names.len(), 1);
    }
}
