//! What a delta changed, so that publishers look only at that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringlog_types::{NodeId, PartitionIndex, Uuid};

use super::{ConfigResource, MetadataImage, QuotaEntity, ScramMechanism, TopicImage};

/// What changed in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicChanges {
    /// Its name.
    pub name: Arc<str>,
    /// Whether the topic is new.
    pub is_created: bool,
    /// New or changed partitions.
    pub partitions: BTreeSet<PartitionIndex>,
}

/// What differs between two images. The new values are in the newer image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataChanges {
    /// Names of features whose finalized level was set.
    pub features: BTreeSet<Arc<str>>,
    /// Brokers that registered, changed or are gone.
    pub brokers: BTreeSet<NodeId>,
    /// Controllers that registered.
    pub controllers: BTreeSet<NodeId>,
    /// Topics that are new or whose partitions changed, by id.
    pub topics: BTreeMap<Uuid, TopicChanges>,
    /// Topics that are gone, with their names. A topic that came and went inside one delta is not here.
    pub deleted_topics: BTreeMap<Uuid, Arc<str>>,
    /// Resources whose dynamic configs changed, those of deleted topics included.
    pub configs: BTreeSet<ConfigResource>,
    /// Entities whose quotas changed.
    pub client_quotas: BTreeSet<QuotaEntity>,
    /// Whether producer ids were given out.
    pub producer_ids: bool,
    /// Access control entries that are new or gone.
    pub acls: BTreeSet<Uuid>,
    /// SCRAM credentials that changed or are gone.
    pub scram: BTreeSet<(ScramMechanism, Arc<str>)>,
    /// Delegation tokens that changed or are gone.
    pub tokens: BTreeSet<Arc<str>>,
}

impl MetadataChanges {
    /// Whether nothing changed (but the offset).
    pub fn is_empty(&self) -> bool {
        *self == MetadataChanges::default()
    }

    pub(super) fn topic(&mut self, topic: &TopicImage) -> &mut TopicChanges {
        self.topics.entry(topic.id).or_insert_with(|| TopicChanges {
            name: topic.name.clone(),
            is_created: false,
            partitions: BTreeSet::new(),
        })
    }

    pub(super) fn on_topic_deleted(&mut self, topic: &TopicImage) {
        let was_created_here = self.topics.remove(&topic.id).is_some_and(|changes| changes.is_created);
        if !was_created_here {
            self.deleted_topics.insert(topic.id, topic.name.clone());
        }
    }

    /// What differs between `old` and `new`. With the empty image as `old` it is everything, as a new publisher needs.
    pub fn between(old: &MetadataImage, new: &MetadataImage) -> MetadataChanges {
        let mut changes = MetadataChanges {
            features: differing(&old.features.levels, &new.features.levels),
            brokers: differing(&old.cluster.brokers, &new.cluster.brokers),
            controllers: differing(&old.cluster.controllers, &new.cluster.controllers),
            configs: old.configs.by_resource.differing_keys(&new.configs.by_resource).into_iter().collect(),
            client_quotas: differing(&old.client_quotas.entities, &new.client_quotas.entities),
            producer_ids: old.next_producer_id != new.next_producer_id,
            acls: differing(&old.acls.entries, &new.acls.entries),
            scram: differing(&old.scram.credentials, &new.scram.credentials),
            tokens: differing(&old.tokens.tokens, &new.tokens.tokens),
            ..MetadataChanges::default()
        };
        if old.features.metadata_version != new.features.metadata_version {
            changes.features.insert(Arc::from(crate::features::METADATA_VERSION));
        }
        let mut topics = Vec::new();
        for id in old.topics.by_id.differing_keys(&new.topics.by_id) {
            match (old.topics.by_id(id), new.topics.by_id(id)) {
                (old_topic, Some(topic)) => topics.push((id, TopicChanges::between(old_topic, topic))),
                (Some(topic), None) => changes.on_topic_deleted(topic),
                (None, None) => {}
            }
        }
        // At once, as inserting 100,000 one by one takes longer.
        changes.topics = topics.into_iter().collect();
        changes
    }
}

impl TopicChanges {
    fn between(old: Option<&Arc<TopicImage>>, new: &TopicImage) -> TopicChanges {
        TopicChanges {
            name: new.name.clone(),
            is_created: old.is_none(),
            partitions: match old {
                Some(old) => new.partitions.differing_from(&old.partitions).collect(),
                None => new.partitions.keys().collect(),
            },
        }
    }
}

fn differing<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
    let changed = old.iter().filter(|(key, value)| new.get(*key) != Some(*value)).map(|(key, _)| key.clone());
    let added = new.keys().filter(|key| !old.contains_key(*key)).cloned();
    changed.chain(added).collect()
}
