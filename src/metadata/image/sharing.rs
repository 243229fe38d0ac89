//! Two images that replayed the same records on their own become one in memory.
//!
//! An active controller has an image with all records that it decided, and this node publishes one with those that are
//! committed. Each replays on its own, so without care everything that ever changed would be there twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringlog_types::{PartitionIndex, Uuid};

use super::{ConfigsImage, MetadataChanges, MetadataImage, TopicImage, TopicsImage};

impl MetadataImage {
    /// Takes over from `other` the memory of what `changes` names and is equal in both. The content stays as it is; so
    /// does what `other` doesn't have yet or has no longer. Costs about as much as the replay of the changes did.
    pub fn share_with(&mut self, other: &MetadataImage, changes: &MetadataChanges) {
        self.topics.share_with(&other.topics, changes);
        self.configs.share_with(&other.configs, changes);
        share(&mut self.features, &other.features, !changes.features.is_empty());
        let is_cluster_changed = !changes.brokers.is_empty() || !changes.controllers.is_empty();
        share(&mut self.cluster, &other.cluster, is_cluster_changed);
        share(&mut self.client_quotas, &other.client_quotas, !changes.client_quotas.is_empty());
        share(&mut self.acls, &other.acls, !changes.acls.is_empty());
        share(&mut self.scram, &other.scram, !changes.scram.is_empty());
        share(&mut self.tokens, &other.tokens, !changes.tokens.is_empty());
    }
}

fn share<T: PartialEq>(own: &mut Arc<T>, other: &Arc<T>, is_changed: bool) {
    if is_changed && !Arc::ptr_eq(own, other) && own == other {
        *own = other.clone();
    }
}

impl TopicsImage {
    fn share_with(&mut self, other: &TopicsImage, changes: &MetadataChanges) {
        for (id, changed) in &changes.topics {
            let (Some(own), Some(others)) = (self.by_id.get(id), other.by_id.get(id)) else { continue };
            if Arc::ptr_eq(own, others) {
                continue;
            }
            if let Some(own) = self.by_id.get_mut(id) {
                share_topic(own, others, &changed.partitions);
            }
        }
        let ids = changes.topics.keys().chain(changes.deleted_topics.keys());
        self.by_id.share_buckets(&other.by_id, ids, Arc::ptr_eq);
        let created = changes.topics.values().filter(|changed| changed.is_created).map(|changed| &changed.name);
        let names = created.chain(changes.deleted_topics.values());
        self.by_name.share_buckets(&other.by_name, names, Uuid::eq);
    }
}

fn share_topic(own: &mut Arc<TopicImage>, other: &Arc<TopicImage>, changed: &BTreeSet<PartitionIndex>) {
    if own.id != other.id || own.name != other.name {
        return;
    }
    let is_same = if own.partitions.has_one_leaf() {
        own.partitions == other.partitions
    } else {
        let partitions = &mut Arc::make_mut(own).partitions;
        partitions.share_with(&other.partitions, changed.iter().copied());
        partitions.is_same(&other.partitions)
    };
    if is_same {
        *own = other.clone();
    }
}

impl ConfigsImage {
    fn share_with(&mut self, other: &ConfigsImage, changes: &MetadataChanges) {
        for resource in &changes.configs {
            let (Some(own), Some(others)) = (self.get(resource), other.get(resource)) else { continue };
            if !Arc::ptr_eq(own, others)
                && own == others
                && let Some(own) = self.by_resource.get_mut(resource)
            {
                *own = others.clone();
            }
        }
        self.by_resource.share_buckets(&other.by_resource, changes.configs.iter(), Arc::ptr_eq);
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::metadata_records::{
        ConfigRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
    };
    use ringlog_types::Random;

    use super::*;

    /// Any record that fits `image`; `number` makes names new.
    fn next_record(image: &MetadataImage, number: u64, random: &mut Random) -> MetadataRecord {
        let count = image.topics.len() as u64;
        let topic = image.topics.iter().nth(random.below(count) as usize);
        match (topic, random.below(40)) {
            (None, _) | (_, 0..=3) => {
                let topic_id = Uuid::random(&mut Random::from_seed(number));
                TopicRecord { name: format!("topic-{number}").into(), topic_id }.into()
            }
            (Some(topic), 4) => RemoveTopicRecord { topic_id: topic.id }.into(),
            (Some(topic), 5..=7) => ConfigRecord {
                resource_type: 2,
                resource_name: topic.name.to_string().into(),
                name: "retention.ms".into(),
                value: Some(number.to_string().into()),
            }
            .into(),
            (Some(topic), 8..=24) => PartitionRecord {
                partition_id: topic.partitions.len() as i32,
                topic_id: topic.id,
                replicas: vec![1, 2, 3],
                isr: vec![1, 2, 3],
                leader: 1,
                ..PartitionRecord::default()
            }
            .into(),
            (Some(topic), _) if topic.partitions.is_empty() => {
                PartitionRecord { partition_id: 0, topic_id: topic.id, ..PartitionRecord::default() }.into()
            }
            (Some(topic), _) => {
                let partition_id = random.below(topic.partitions.len() as u64) as i32;
                let leader = random.below(3) as i32;
                PartitionChangeRecord { partition_id, topic_id: topic.id, leader, ..Default::default() }.into()
            }
        }
    }

    /// All that a controller does: decide ahead, commit later, share after each commit.
    #[test]
    fn sharing_changes_nothing_and_leaves_one_copy() {
        for seed in 0..6 {
            let mut random = Random::from_seed(seed);
            let (mut uncommitted, mut committed) = (MetadataImage::empty(), MetadataImage::empty());
            let mut log = Vec::new();
            let mut end = 0;
            while log.len() < 1_000 {
                for _ in 0..random.below(20) {
                    let record = next_record(&uncommitted, log.len() as u64, &mut random);
                    uncommitted.replay(&record, &mut MetadataChanges::default()).unwrap();
                    log.push(record);
                }
                let mut changes = MetadataChanges::default();
                // Clones are what other cores hold; they must not see what comes later.
                let held = (uncommitted.clone(), committed.clone());
                let from = end;
                end += random.below((log.len() - from) as u64 + 1) as usize;
                for record in &log[from..end] {
                    committed.replay(record, &mut changes).unwrap();
                }
                let before = (uncommitted.clone(), committed.clone());
                uncommitted.share_with(&committed, &changes);
                assert_eq!((&uncommitted, &committed), (&before.0, &before.1));
                assert_eq!(held.0, before.0);
                assert_eq!(MetadataChanges::between(&held.1, &committed).topics, changes.topics);
            }
            let mut changes = MetadataChanges::default();
            for record in &log[end..] {
                committed.replay(record, &mut changes).unwrap();
            }
            uncommitted.share_with(&committed, &changes);
            assert_eq!(uncommitted, committed);
            assert!(uncommitted.topics.len() > 20);
            assert!(
                uncommitted
                    .topics
                    .iter()
                    .all(|topic| { Arc::ptr_eq(topic, committed.topics.by_id(topic.id).unwrap()) })
            );
            assert!(
                uncommitted
                    .configs
                    .iter()
                    .all(|(resource, configs)| { Arc::ptr_eq(configs, committed.configs.get(resource).unwrap()) })
            );
        }
    }
}
