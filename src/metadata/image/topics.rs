//! Topics and their partitions.

use std::sync::Arc;

use ringlog_types::{TopicIdPartition, Uuid};

use super::{CowMap, PartitionImage, PartitionTable};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never used again.
    pub id: Uuid,
    /// Partitions by index. Without gaps once a batch is replayed whole.
    pub partitions: PartitionTable,
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
    pub fn partition(&self, id: TopicIdPartition) -> Option<&PartitionImage> {
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
