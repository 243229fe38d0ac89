//! What two controllers call differently, under common names, and in a common order.
//!
//! Topic ids and ids of ACLs are random, and broker epochs are offsets of the log. The common id of a topic follows from
//! its name and how often there was one of that name; the common epoch from the count of registrations.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_types::Uuid;

/// How far apart common epochs are. Offsets may be given relative to them.
pub const EPOCH_STEP: i64 = 1_000;
/// How far from an epoch an offset still counts as relative to it.
const EPOCH_REACH: i64 = 10;
/// Stands for the last offset of the controller's log; less by one, for that before the last request; and so on.
pub const LOG_END: i64 = 1 << 40;
/// How far back.
pub const LOG_ENDS: i64 = 10;
/// An id that nobody learns, as it was only made for a validation.
const PASSING: Uuid = Uuid([0xee; 16]);

/// One controller's own names.
#[derive(Debug, Default)]
pub struct Names {
    ids: BTreeMap<Uuid, Uuid>,
    own_ids: BTreeMap<Uuid, Uuid>,
    counts: BTreeMap<String, u64>,
    epochs: BTreeMap<i64, i64>,
    own_epochs: BTreeMap<i64, i64>,
    /// The log's last offset now, and before each of the last requests.
    ends: VecDeque<i64>,
}

fn common_id(text: &str, count: u64) -> Uuid {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (text, count, salt).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half(0));
    bytes[8..].copy_from_slice(&half(1));
    Uuid(bytes)
}

impl Names {
    fn learn_id(&mut self, own: Uuid, text: String) {
        let count = self.counts.entry(text.clone()).or_default();
        *count += 1;
        let common = common_id(&text, *count);
        self.ids.insert(own, common);
        self.own_ids.insert(common, own);
    }

    fn learn(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic(it) => self.learn_id(it.topic_id, it.name.to_string()),
            MetadataRecord::AccessControlEntry(it) => {
                let mut binding = it.clone();
                binding.id = Uuid::ZERO;
                self.learn_id(it.id, format!("{binding:?}"));
            }
            MetadataRecord::RegisterBroker(it) if !self.epochs.contains_key(&it.broker_epoch) => {
                let common = EPOCH_STEP * (self.epochs.len() as i64 + 1);
                self.epochs.insert(it.broker_epoch, common);
                self.own_epochs.insert(common, it.broker_epoch);
            }
            _ => {}
        }
    }

    /// Notes the log's last offset after a request.
    pub fn on_log_end(&mut self, last_offset: i64) {
        self.ends.push_front(last_offset);
        self.ends.truncate(LOG_ENDS as usize + 1);
    }

    /// Forgets how far the log went before.
    pub fn forget_log_ends(&mut self) {
        self.ends.truncate(1);
    }

    fn to_own_offset(&self, offset: &mut i64) {
        let back = usize::try_from(LOG_END - *offset).unwrap_or(usize::MAX);
        match self.ends.get(back.min(self.ends.len().saturating_sub(1))) {
            Some(own) if back <= LOG_ENDS as usize => *offset = *own,
            _ => self.to_own_epoch(offset),
        }
    }

    fn to_own_id(&self, id: &mut Uuid) {
        *id = self.own_ids.get(id).copied().unwrap_or(*id);
    }

    fn to_own_epoch(&self, epoch: &mut i64) {
        let nearest = (*epoch + EPOCH_STEP / 2).div_euclid(EPOCH_STEP) * EPOCH_STEP;
        let distance = *epoch - nearest;
        if let Some(own) = self.own_epochs.get(&nearest).filter(|_| distance.abs() <= EPOCH_REACH) {
            *epoch = own + distance;
        }
    }

    /// Puts the controller's own names in the place of the common ones.
    pub fn to_own(&self, request: &mut RequestBody) {
        match request {
            RequestBody::BrokerRegistration(it) => self.to_own_epoch(&mut it.previous_broker_epoch),
            RequestBody::BrokerHeartbeat(it) => {
                self.to_own_epoch(&mut it.broker_epoch);
                self.to_own_offset(&mut it.current_metadata_offset);
            }
            RequestBody::AlterPartition(it) => {
                self.to_own_epoch(&mut it.broker_epoch);
                for topic in &mut it.topics {
                    self.to_own_id(&mut topic.topic_id);
                    let members = topic.partitions.iter_mut().flat_map(|partition| &mut partition.new_isr_with_epochs);
                    members.for_each(|member| self.to_own_epoch(&mut member.broker_epoch));
                }
            }
            RequestBody::AssignReplicasToDirs(it) => {
                self.to_own_epoch(&mut it.broker_epoch);
                let topics = it.directories.iter_mut().flat_map(|directory| &mut directory.topics);
                topics.for_each(|topic| self.to_own_id(&mut topic.topic_id));
            }
            RequestBody::AllocateProducerIds(it) => self.to_own_epoch(&mut it.broker_epoch),
            RequestBody::DeleteTopics(it) => it.topics.iter_mut().for_each(|topic| self.to_own_id(&mut topic.topic_id)),
            _ => {}
        }
    }

    fn to_common_id(&self, id: &mut Uuid) {
        *id = self.ids.get(id).copied().unwrap_or(*id);
    }

    fn to_common_epoch(&self, epoch: &mut i64) {
        *epoch = self.epochs.get(epoch).copied().unwrap_or(*epoch);
    }

    /// The answer under common names. Where Kafka's order is that of a hash map or of chance, it is sorted.
    pub fn to_common(&self, response: &mut ResponseBody) {
        match response {
            ResponseBody::BrokerRegistration(it) => self.to_common_epoch(&mut it.broker_epoch),
            ResponseBody::CreateTopics(it) => {
                for topic in &mut it.topics {
                    topic.topic_id = match topic.topic_id {
                        id if id.is_zero() => id,
                        id => self.ids.get(&id).copied().unwrap_or(PASSING),
                    };
                    topic.configs.iter_mut().for_each(|configs| configs.sort_by_key(|it| it.name.to_string()));
                }
                it.topics.sort_by_key(|topic| topic.name.to_string());
            }
            ResponseBody::DeleteTopics(it) => {
                it.responses.iter_mut().for_each(|topic| self.to_common_id(&mut topic.topic_id));
                // Kafka shuffles them, so that nobody learns from the order what exists.
                it.responses.sort_by_key(|topic| (topic.topic_id, format!("{topic:?}")));
            }
            ResponseBody::AlterPartition(it) => {
                it.topics.iter_mut().for_each(|topic| self.to_common_id(&mut topic.topic_id));
            }
            ResponseBody::AssignReplicasToDirs(it) => {
                let topics = it.directories.iter_mut().flat_map(|directory| &mut directory.topics);
                topics.for_each(|topic| self.to_common_id(&mut topic.topic_id));
            }
            // The others come in the order of Kafka's hash maps.
            ResponseBody::ElectLeaders(it) => {
                it.replica_election_results.sort_by_key(|topic| topic.topic.to_string());
                for topic in &mut it.replica_election_results {
                    topic.partition_result.sort_by_key(|partition| partition.partition_id);
                }
            }
            ResponseBody::ListPartitionReassignments(it) => {
                it.topics.sort_by_key(|topic| topic.name.to_string());
                it.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|it| it.partition_index));
            }
            ResponseBody::UpdateFeatures(it) => it.results.sort_by_key(|it| it.feature.to_string()),
            ResponseBody::AlterConfigs(it) => {
                it.responses.sort_by_key(|it| (it.resource_type, it.resource_name.to_string()));
            }
            ResponseBody::IncrementalAlterConfigs(it) => {
                it.responses.sort_by_key(|it| (it.resource_type, it.resource_name.to_string()));
            }
            ResponseBody::AlterUserScramCredentials(it) => it.results.sort_by_key(|it| it.user.to_string()),
            ResponseBody::AlterClientQuotas(it) => {
                it.entries.iter_mut().for_each(|entry| entry.entity.sort_by_key(|part| part.entity_type.to_string()));
                it.entries.sort_by_key(|entry| format!("{:?}", entry.entity));
            }
            ResponseBody::DeleteAcls(it) => {
                it.filter_results.iter_mut().for_each(|it| it.matching_acls.sort_by_key(|acl| format!("{acl:?}")));
            }
            _ => {}
        }
    }

    /// The records of one decision under common names.
    pub fn rename_records(&mut self, records: &mut [RecordAndVersion]) {
        for record in records.iter_mut() {
            self.learn(&record.record);
            self.rename(&mut record.record);
        }
        // Several features are looked at in the order of a hash map, and one brings configs.
        if records.iter().any(|it| matches!(it.record, MetadataRecord::FeatureLevel(_))) {
            records.sort_by_key(|it| it.record.type_id());
        }
        // Kafka walks through hash maps by topic id, and ids are random; by resource, whose type has a random hash.
        for alike in records.chunk_by_mut(|one, other| one.record.type_id() == other.record.type_id()) {
            alike.sort_by_key(|it| match &it.record {
                MetadataRecord::PartitionChange(it) => (format!("{:?}", it.topic_id), it.partition_id),
                MetadataRecord::Config(it) => (format!("{} {}", it.resource_name, it.name), it.resource_type.into()),
                MetadataRecord::RemoveTopic(it) => (format!("{:?}", it.topic_id), 0),
                MetadataRecord::UserScramCredential(it) => (it.name.to_string(), it.mechanism.into()),
                MetadataRecord::RemoveUserScramCredential(it) => (it.name.to_string(), it.mechanism.into()),
                MetadataRecord::ClientQuota(it) => (format!("{:?} {}", it.entity, it.key), 0),
                MetadataRecord::FeatureLevel(it) => (it.name.to_string(), 0),
                MetadataRecord::ClearElr(it) => (it.topic_name.to_string(), 0),
                MetadataRecord::RemoveAccessControlEntry(it) => (format!("{:?}", it.id), 0),
                _ => Default::default(),
            });
        }
    }

    fn rename(&self, record: &mut MetadataRecord) {
        match record {
            MetadataRecord::Topic(it) => self.to_common_id(&mut it.topic_id),
            MetadataRecord::RemoveTopic(it) => self.to_common_id(&mut it.topic_id),
            MetadataRecord::Partition(it) => self.to_common_id(&mut it.topic_id),
            MetadataRecord::PartitionChange(it) => {
                self.to_common_id(&mut it.topic_id);
                // They come in the order of a hash set.
                it.eligible_leader_replicas.iter_mut().for_each(|ids| ids.sort_unstable());
            }
            MetadataRecord::AccessControlEntry(it) => self.to_common_id(&mut it.id),
            MetadataRecord::RemoveAccessControlEntry(it) => self.to_common_id(&mut it.id),
            MetadataRecord::RegisterBroker(it) => self.to_common_epoch(&mut it.broker_epoch),
            MetadataRecord::BrokerRegistrationChange(it) => self.to_common_epoch(&mut it.broker_epoch),
            MetadataRecord::UnregisterBroker(it) => self.to_common_epoch(&mut it.broker_epoch),
            MetadataRecord::ProducerIds(it) => self.to_common_epoch(&mut it.broker_epoch),
            // The parts of a quota's entity come in the order of a hash map.
            MetadataRecord::ClientQuota(it) => it.entity.sort_by_key(|part| part.entity_type.to_string()),
            _ => {}
        }
    }
}
