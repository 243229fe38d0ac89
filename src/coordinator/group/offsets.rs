//! The committed offsets of one group.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::StrBytes;
use ringlog_protocol::coordinator_records::group::OffsetCommitValue;
use ringlog_types::{ProducerId, Uuid};

/// One committed offset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    /// -1 when the client gave none.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: StrBytes,
    pub(crate) commit_timestamp: i64,
    /// -1 unless an old client asked for its own retention.
    pub(crate) expire_timestamp: i64,
    /// Zero when it wasn't known.
    pub(crate) topic_id: Uuid,
    /// The place in the log's order: a later plain commit beats a transactional one that ends afterwards.
    order: u64,
}

impl CommittedOffset {
    pub(crate) fn new(value: OffsetCommitValue, order: u64) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_timestamp: value.commit_timestamp,
            expire_timestamp: value.expire_timestamp,
            topic_id: value.topic_id,
            order,
        }
    }

    /// Whether it belongs to the topic with this id, as far as both ids are known. Another topic of the same name
    /// has no use for it.
    pub(crate) fn is_of_topic(&self, id: Uuid) -> bool {
        id.is_zero() || self.topic_id.is_zero() || self.topic_id == id
    }
}

type Partitions = BTreeMap<i32, CommittedOffset>;

/// Committed offsets, and those of transactions that are open.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Offsets {
    committed: BTreeMap<StrBytes, Partitions>,
    transactional: BTreeMap<ProducerId, BTreeMap<StrBytes, Partitions>>,
}

impl Offsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.transactional.is_empty()
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.committed.get(topic)?.get(&partition)
    }

    /// The partitions of a topic that have an offset.
    pub(crate) fn partitions(&self, topic: &str) -> impl Iterator<Item = (i32, &CommittedOffset)> {
        self.committed.get(topic).into_iter().flatten().map(|(index, offset)| (*index, offset))
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&StrBytes, &Partitions)> {
        self.committed.iter()
    }

    /// Every topic and partition that has an offset, be it in an open transaction.
    pub(crate) fn keys(&self) -> BTreeSet<(StrBytes, i32)> {
        let transactional = self.transactional.values().flatten();
        let all = self.committed.iter().chain(transactional);
        all.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (topic.clone(), *partition))).collect()
    }

    /// Whether the partition's offset may yet change by a transaction that is open.
    pub(crate) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        self.transactional
            .values()
            .any(|topics| topics.get(topic).is_some_and(|partitions| partitions.contains_key(&partition)))
    }

    pub(crate) fn has_open_transaction(&self) -> bool {
        !self.transactional.is_empty()
    }

    pub(crate) fn put(&mut self, topic: StrBytes, partition: i32, offset: CommittedOffset) {
        self.committed.entry(topic).or_default().insert(partition, offset);
    }

    pub(crate) fn put_transactional(
        &mut self,
        producer: ProducerId,
        topic: StrBytes,
        partition: i32,
        offset: CommittedOffset,
    ) {
        self.transactional.entry(producer).or_default().entry(topic).or_default().insert(partition, offset);
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) {
        remove_from(&mut self.committed, topic, partition);
        self.transactional.retain(|_, topics| {
            remove_from(topics, topic, partition);
            !topics.is_empty()
        });
    }

    /// A producer's transaction has ended.
    pub(crate) fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        let Some(topics) = self.transactional.remove(&producer) else { return };
        if !committed {
            return;
        }
        for (topic, partitions) in topics {
            let own = self.committed.entry(topic).or_default();
            for (partition, offset) in partitions {
                if own.get(&partition).is_none_or(|present| present.order < offset.order) {
                    own.insert(partition, offset);
                }
            }
        }
    }
}

fn remove_from(topics: &mut BTreeMap<StrBytes, Partitions>, topic: &str, partition: i32) {
    if let Some(partitions) = topics.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
    }
}
