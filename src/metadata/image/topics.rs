//! Topics and their partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_types::{LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, TopicIdPartition, Uuid};

use super::CowMap;

/// Node ids in the order that the records gave; the order means something.
pub type NodeList = Box<[NodeId]>;

/// Whether the leader may have lost records that were committed (KIP-704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i8)]
pub enum LeaderRecoveryState {
    /// The leader was in sync when it was elected, or has recovered since.
    #[default]
    Recovered = 0,
    /// Elected uncleanly and not yet recovered.
    Recovering = 1,
}

impl LeaderRecoveryState {
    /// The state that travels as `value`.
    pub fn from_value(value: i8) -> Option<LeaderRecoveryState> {
        match value {
            0 => Some(LeaderRecoveryState::Recovered),
            1 => Some(LeaderRecoveryState::Recovering),
            _ => None,
        }
    }
}

/// A partition's registration. About 270 bytes with three replicas, allocations included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionImage {
    /// Assigned brokers; the first is the preferred leader.
    pub replicas: NodeList,
    /// The log directory of each replica, as long as `replicas`.
    pub directories: Box<[Uuid]>,
    /// The in-sync replicas; may be empty (KIP-966).
    pub in_sync_replicas: NodeList,
    /// Replicas out of sync that hold all committed records (KIP-966).
    pub eligible_leader_replicas: NodeList,
    /// The last leader, kept when there is no leader (KIP-966).
    pub last_known_elr: NodeList,
    /// Replicas that a running reassignment takes away.
    pub removing_replicas: NodeList,
    /// Replicas that a running reassignment adds.
    pub adding_replicas: NodeList,
    /// The leader; [`NodeId::NONE`] when there is none.
    pub leader: NodeId,
    /// Rises with each leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this registration.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader recovers from an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
}

impl PartitionImage {
    /// The first of the assigned replicas.
    pub fn preferred_replica(&self) -> NodeId {
        self.replicas.first().copied().unwrap_or(NodeId::NONE)
    }

    /// Whether there is a leader.
    pub fn has_leader(&self) -> bool {
        !self.leader.is_none()
    }

    /// Whether there is a leader and it is the preferred one.
    pub fn has_preferred_leader(&self) -> bool {
        self.leader == self.preferred_replica()
    }

    /// Whether a reassignment is running.
    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas.is_empty() || !self.adding_replicas.is_empty()
    }

    /// The directory of `replica`'s copy; `None` if it is no replica.
    pub fn directory(&self, replica: NodeId) -> Option<Uuid> {
        let position = self.replicas.iter().position(|id| *id == replica)?;
        self.directories.get(position).copied()
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never used again.
    pub id: Uuid,
    /// Partitions by index. Without gaps once a batch is replayed whole.
    pub partitions: BTreeMap<PartitionIndex, Arc<PartitionImage>>,
}

/// All topics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicsImage {
    pub(super) by_id: CowMap<Uuid, Arc<TopicImage>>,
    pub(super) by_name: CowMap<Arc<str>, Uuid>,
    pub(super) partition_count: usize,
}

impl TopicsImage {
    /// The topic of this id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// The topic of this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id))
    }

    /// The id of the topic of this name.
    pub fn id(&self, name: &str) -> Option<Uuid> {
        self.by_name.get(name).copied()
    }

    /// The name of the topic of this id.
    pub fn name(&self, id: Uuid) -> Option<&Arc<str>> {
        self.by_id.get(&id).map(|topic| &topic.name)
    }

    /// A partition by topic id.
    pub fn partition(&self, id: TopicIdPartition) -> Option<&Arc<PartitionImage>> {
        self.by_id.get(&id.topic_id)?.partitions.get(&id.partition)
    }

    /// All topics, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_id.values()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no topics.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million partitions must fit: the struct, its counts in the `Arc`, and the lists that are usually not empty.
    #[test]
    fn a_partition_is_small() {
        let lists = 3 * (size_of::<NodeId>() * 2 + size_of::<Uuid>());
        assert!(size_of::<PartitionImage>() + 16 + lists <= 240, "{}", size_of::<PartitionImage>());
    }
}
