//! Which topics each broker has to do with: what its coming and going costs is proportional to their partitions, not to
//! all of the cluster.
//!
//! By topic, since an entry for each partition would take tens of megabytes for a million of them, and as much time at each
//! change of the leader, when clients wait.

use ringlog_types::{NodeId, Uuid};
use rustc_hash::FxHashMap;

use crate::image::{PartitionImage, TopicImage, TopicsImage};

/// How many partitions of each topic name a broker, if any does.
#[derive(Debug, Default)]
pub(crate) struct HostedTopics {
    by_broker: FxHashMap<NodeId, FxHashMap<Uuid, u32>>,
}

/// The brokers that a partition names: its replicas, and whoever else is in sync or eligible.
fn brokers(partition: &PartitionImage) -> impl Iterator<Item = NodeId> {
    let replicas = partition.replicas();
    let good = partition.in_sync_replicas().iter().chain(partition.eligible_leader_replicas());
    let others = good.filter(|id| !replicas.contains(id));
    replicas.iter().chain(others).copied()
}

/// Whether the partition names this broker.
pub(crate) fn names(partition: &PartitionImage, broker: NodeId) -> bool {
    brokers(partition).any(|named| named == broker)
}

impl HostedTopics {
    /// Of all partitions.
    pub(crate) fn of(topics: &TopicsImage) -> HostedTopics {
        let mut hosted = HostedTopics::default();
        let mut counts: FxHashMap<NodeId, u32> = FxHashMap::default();
        for topic in topics.iter() {
            for broker in topic.partitions.iter().flat_map(|(_, partition)| brokers(partition)) {
                *counts.entry(broker).or_default() += 1;
            }
            for (broker, count) in counts.drain() {
                hosted.by_broker.entry(broker).or_default().insert(topic.id, count);
            }
        }
        hosted
    }

    /// A partition of the topic was changed, or is new.
    pub(crate) fn update(&mut self, topic: Uuid, old: Option<&PartitionImage>, new: &PartitionImage) {
        // As a rule brokers only come and go in the in-sync set.
        if old.is_some_and(|old| brokers(old).eq(brokers(new))) {
            return;
        }
        for broker in brokers(new) {
            *self.by_broker.entry(broker).or_default().entry(topic).or_default() += 1;
        }
        for broker in old.into_iter().flat_map(brokers) {
            self.remove(broker, topic, 1);
        }
    }

    fn remove(&mut self, broker: NodeId, topic: Uuid, partitions: u32) {
        let Some(topics) = self.by_broker.get_mut(&broker) else { return };
        let Some(count) = topics.get_mut(&topic) else { return };
        *count = count.saturating_sub(partitions);
        if *count == 0 {
            topics.remove(&topic);
            if topics.is_empty() {
                self.by_broker.remove(&broker);
            }
        }
    }

    /// A topic is gone.
    pub(crate) fn on_topic_deleted(&mut self, topic: &TopicImage) {
        for broker in topic.partitions.iter().flat_map(|(_, partition)| brokers(partition)) {
            self.remove(broker, topic.id, 1);
        }
    }

    /// The topics of which partitions name `broker`.
    pub(crate) fn by(&self, broker: NodeId) -> impl Iterator<Item = Uuid> {
        self.by_broker.get(&broker).into_iter().flat_map(|topics| topics.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ringlog_protocol::metadata_records::{PartitionChangeRecord, PartitionRecord, RemoveTopicRecord, TopicRecord};
    use ringlog_types::{PartitionIndex, Random, TopicIdPartition};

    use super::*;
    use crate::image::{MetadataChanges, MetadataImage};

    fn some_ids(random: &mut Random) -> Vec<i32> {
        let mut ids: Vec<i32> = (0..6).filter(|_| random.below(3) == 0).collect();
        ids.push(9);
        ids
    }

    /// Whatever happens to partitions, the index is that of the image.
    #[test]
    fn it_follows_the_image() {
        for seed in 0..20 {
            let mut random = Random::from_seed(seed);
            let (mut image, mut hosted) = (MetadataImage::empty(), HostedTopics::default());
            let mut changes = MetadataChanges::default();
            for step in 0..400_u32 {
                let topics: Vec<Uuid> = image.topics.iter().map(|topic| topic.id).collect();
                let topic = topics.get(random.below(topics.len() as u64 + 1) as usize).copied();
                let Some(topic_id) = topic else {
                    let topic_id = Uuid::random(&mut random);
                    let record = TopicRecord { name: format!("t{step}").into(), topic_id };
                    image.replay(&record.into(), &mut changes).unwrap();
                    continue;
                };
                let count = image.topics.by_id(topic_id).unwrap().partitions.len() as i32;
                if random.below(30) == 0 {
                    let gone = image.topics.by_id(topic_id).unwrap().clone();
                    hosted.on_topic_deleted(&gone);
                    image.replay(&RemoveTopicRecord { topic_id }.into(), &mut changes).unwrap();
                    continue;
                }
                let (replicas, isr) = (some_ids(&mut random), some_ids(&mut random));
                let partition_id = random.below(count as u64 + 1) as i32;
                let id = TopicIdPartition { topic_id, partition: PartitionIndex(partition_id) };
                let record = if partition_id == count {
                    PartitionRecord { partition_id, topic_id, replicas, isr, ..Default::default() }.into()
                } else {
                    let replicas = (random.below(2) == 0).then_some(replicas);
                    PartitionChangeRecord { partition_id, topic_id, replicas, isr: Some(isr), ..Default::default() }
                        .into()
                };
                let old = image.topics.partition(id).cloned();
                image.replay(&record, &mut changes).unwrap();
                hosted.update(topic_id, old.as_ref(), image.topics.partition(id).unwrap());
            }
            let fresh = HostedTopics::of(&image.topics);
            for broker in (0..10).map(NodeId) {
                let counts = |hosted: &HostedTopics| -> BTreeMap<Uuid, u32> {
                    hosted.by_broker.get(&broker).into_iter().flatten().map(|(topic, count)| (*topic, *count)).collect()
                };
                let named = image.topics.iter().map(|topic| {
                    (topic.id, topic.partitions.iter().filter(|(_, partition)| names(partition, broker)).count() as u32)
                });
                let expected: BTreeMap<Uuid, u32> = named.filter(|(_, count)| *count > 0).collect();
                assert_eq!(counts(&hosted), expected, "seed {seed}, broker {broker}");
                assert_eq!(counts(&fresh), expected, "seed {seed}, broker {broker}");
            }
        }
    }
}
