//! Which partitions each broker has to do with: what its coming and going costs is proportional to them, not to all
//! partitions of the cluster.
//!
//! An entry takes some 13 bytes, so a million partitions with three replicas cost the active controller 40 MB.

use std::collections::BTreeSet;

use ringlog_types::{NodeId, PartitionIndex, TopicIdPartition, Uuid};
use rustc_hash::FxHashMap;

use crate::image::{PartitionImage, TopicsImage};

/// A topic's number and a partition of it.
type Entry = (u32, PartitionIndex);

/// Partitions by broker. Topics have small numbers here; that of a topic that is gone is used again.
#[derive(Debug, Default)]
pub(crate) struct HostedPartitions {
    numbers: FxHashMap<Uuid, u32>,
    topics: Vec<Uuid>,
    free: Vec<u32>,
    by_broker: FxHashMap<NodeId, BTreeSet<Entry>>,
}

/// The brokers that a partition names: its replicas, and whoever else is in sync or eligible.
fn brokers(partition: &PartitionImage) -> impl Iterator<Item = NodeId> {
    let replicas = partition.replicas();
    let good = partition.in_sync_replicas().iter().chain(partition.eligible_leader_replicas());
    let others = good.filter(|id| !replicas.contains(id));
    replicas.iter().chain(others).copied()
}

impl HostedPartitions {
    /// Of all partitions.
    pub(crate) fn of(topics: &TopicsImage) -> HostedPartitions {
        let mut hosted = HostedPartitions::default();
        let mut entries: FxHashMap<NodeId, Vec<Entry>> = FxHashMap::default();
        for topic in topics.iter() {
            let number = hosted.number(topic.id);
            for (index, partition) in topic.partitions.iter() {
                for broker in brokers(partition) {
                    entries.entry(broker).or_default().push((number, index));
                }
            }
        }
        // At once, as they are in order already.
        hosted.by_broker =
            entries.into_iter().map(|(broker, entries)| (broker, entries.into_iter().collect())).collect();
        hosted
    }

    fn number(&mut self, topic: Uuid) -> u32 {
        if let Some(number) = self.numbers.get(&topic) {
            return *number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.topics[number as usize] = topic;
                number
            }
            None => {
                self.topics.push(topic);
                self.topics.len() as u32 - 1
            }
        };
        self.numbers.insert(topic, number);
        number
    }

    /// A partition was changed, or is new.
    pub(crate) fn update(&mut self, id: TopicIdPartition, old: Option<&PartitionImage>, new: &PartitionImage) {
        // As a rule brokers only come and go in the in-sync set.
        if old.is_some_and(|old| brokers(old).eq(brokers(new))) {
            return;
        }
        let entry = (self.number(id.topic_id), id.partition);
        for broker in old.into_iter().flat_map(brokers) {
            self.remove(broker, entry);
        }
        for broker in brokers(new) {
            self.by_broker.entry(broker).or_default().insert(entry);
        }
    }

    fn remove(&mut self, broker: NodeId, entry: Entry) {
        if let Some(entries) = self.by_broker.get_mut(&broker) {
            entries.remove(&entry);
            if entries.is_empty() {
                self.by_broker.remove(&broker);
            }
        }
    }

    /// A topic is gone, with these partitions.
    pub(crate) fn on_topic_deleted<'a>(
        &mut self,
        topic: Uuid,
        partitions: impl Iterator<Item = (PartitionIndex, &'a PartitionImage)>,
    ) {
        let Some(number) = self.numbers.remove(&topic) else { return };
        for (index, partition) in partitions {
            for broker in brokers(partition) {
                self.remove(broker, (number, index));
            }
        }
        self.free.push(number);
    }

    /// The partitions that name `broker`, topic by topic.
    pub(crate) fn by(&self, broker: NodeId) -> impl Iterator<Item = TopicIdPartition> {
        let entries = self.by_broker.get(&broker).into_iter().flatten();
        entries.map(|(number, partition)| TopicIdPartition {
            topic_id: self.topics[*number as usize],
            partition: *partition,
        })
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::metadata_records::{PartitionChangeRecord, PartitionRecord, RemoveTopicRecord, TopicRecord};
    use ringlog_types::Random;

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
            let (mut image, mut hosted) = (MetadataImage::empty(), HostedPartitions::default());
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
                    hosted.on_topic_deleted(topic_id, gone.partitions.iter());
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
                hosted.update(id, old.as_ref(), image.topics.partition(id).unwrap());
            }
            let fresh = HostedPartitions::of(&image.topics);
            for broker in (0..10).map(NodeId) {
                let by = |hosted: &HostedPartitions| hosted.by(broker).collect::<BTreeSet<_>>();
                let named = image.topics.iter().flat_map(|topic| {
                    let named = topic.partitions.iter().filter(|(_, it)| brokers(it).any(|id| id == broker));
                    named.map(|(partition, _)| TopicIdPartition { topic_id: topic.id, partition })
                });
                assert_eq!(by(&hosted), named.collect::<BTreeSet<_>>(), "seed {seed}, broker {broker}");
                assert_eq!(by(&fresh), by(&hosted));
            }
            assert!(hosted.topics.len() <= hosted.numbers.len() + hosted.free.len());
        }
    }
}
