//! What clients were told: it is committed before it is said.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::records::{BatchRef, Scratch};
use ringlog_types::Uuid;

use super::super::disk_log::Entry;
use super::{Checks, Found, ensure};

/// What was promised.
#[derive(Debug, Default)]
pub struct Promises {
    /// Topics whose creation was acknowledged, by name as it was then.
    pub topics: BTreeMap<Uuid, String>,
    /// Blocks of producer ids that were given out: first and length.
    producer_ids: BTreeMap<i64, i32>,
}

/// The metadata records of a batch.
fn records(entry: &Entry) -> Vec<MetadataRecord> {
    let Some(batch) = BatchRef::parse(&entry.bytes).ok().filter(|batch| !batch.header.is_control()) else {
        return Vec::new();
    };
    let mut scratch = Scratch::new(1 << 24);
    let Ok(records) = batch.records(&mut scratch) else { return Vec::new() };
    let values = records.filter_map(|record| record.ok()?.value.map(Bytes::copy_from_slice));
    values.filter_map(|value| Some(MetadataRecord::decode_framed(value).ok()?.0)).collect()
}

impl Checks {
    /// Whether a majority has such a record durably, beyond what is known to be committed.
    fn majority_has(&mut self, is_it: impl Fn(&MetadataRecord) -> bool) -> bool {
        let end = self.committed.end();
        let mut count = 0;
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_controller {
                continue;
            }
            self.look(node);
            let view = &self.nodes[node];
            let is_covered = view.safe.snapshot.is_some_and(|(covered, _)| covered > end);
            count += usize::from(is_covered || view.safe.from(end).iter().any(|it| records(it).iter().any(&is_it)));
        }
        count >= self.majority(self.committed.present_voters().count())
    }

    /// An answer of the controller leaves a node.
    pub(super) fn check_promise(&mut self, response: &ResponseBody) -> Found {
        match response {
            ResponseBody::CreateTopics(it) => {
                for topic in it.topics.iter().filter(|topic| topic.error_code == 0 && !topic.topic_id.is_zero()) {
                    let id = topic.topic_id;
                    let is_there = self.model.history.topics.contains(&id)
                        || self.majority_has(|it| matches!(it, MetadataRecord::Topic(it) if it.topic_id == id));
                    ensure!(is_there, "says that topic {:?} is created, which isn't committed", topic.name);
                    self.promises.topics.insert(id, topic.name.to_string());
                    self.stats.promises += 1;
                }
            }
            ResponseBody::DeleteTopics(it) => {
                for topic in it.responses.iter().filter(|topic| topic.error_code == 0) {
                    let id = topic.topic_id;
                    let is_gone = !self.model.topics.contains_key(&id)
                        || self.majority_has(|it| matches!(it, MetadataRecord::RemoveTopic(it) if it.topic_id == id));
                    ensure!(is_gone, "says that topic {:?} is deleted, which is there", topic.name);
                    self.stats.promises += 1;
                }
            }
            ResponseBody::BrokerRegistration(it) if it.error_code == 0 => {
                let epoch = it.broker_epoch;
                let is_there = self.model.history.registrations.contains_key(&epoch)
                    || self.majority_has(
                        |it| matches!(it, MetadataRecord::RegisterBroker(it) if it.broker_epoch == epoch),
                    );
                ensure!(is_there, "gives a broker epoch {epoch}, which isn't committed");
                self.stats.promises += 1;
            }
            ResponseBody::AllocateProducerIds(it) if it.error_code == 0 => {
                let (first, len) = (it.producer_id_start, it.producer_id_len);
                let end = first + i64::from(len);
                let is_there = end <= self.model.next_producer_id
                    || self
                        .majority_has(|it| matches!(it, MetadataRecord::ProducerIds(it) if it.next_producer_id >= end));
                ensure!(is_there, "gives out producer ids to {end}, which isn't committed");
                let before = self.promises.producer_ids.range(..end).next_back();
                let is_free = before.is_none_or(|(start, len)| start + i64::from(*len) <= first);
                ensure!(is_free, "gives out producer ids from {first} on twice");
                self.promises.producer_ids.insert(first, len);
                self.stats.promises += 1;
            }
            ResponseBody::AlterPartition(it) if it.error_code == 0 => {
                for topic in &it.topics {
                    for told in topic.partitions.iter().filter(|told| told.error_code == 0) {
                        let (id, index, epoch) = (topic.topic_id, told.partition_index, told.partition_epoch);
                        let known = self.model.topics.get(&id).map(|topic| topic.partitions.get(&index));
                        // A topic that isn't there any more has no epoch.
                        let is_there = known.is_none_or(|it| it.is_some_and(|it| it.partition_epoch >= epoch))
                            || self.majority_has(
                                |it| matches!(it, MetadataRecord::PartitionChange(it) if it.topic_id == id),
                            );
                        ensure!(is_there, "tells epoch {epoch} of partition {index} of {id}, which isn't committed");
                        self.stats.promises += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What was made is there, unless it was deleted.
    pub fn check_promises_at_the_end(&self) -> Found {
        for (id, name) in &self.promises.topics {
            ensure!(self.model.history.topics.contains(id), "topic {name} was said to be created, and never was");
        }
        Ok(())
    }
}
