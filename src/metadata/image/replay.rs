//! What each record does to the image.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_protocol::metadata_records::{
    AccessControlEntryRecord, BrokerRegistrationChangeRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord,
    FeatureLevelRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
    RegisterControllerRecord, TopicRecord, UserScramCredentialRecord,
};
use ringlog_types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, ProducerId, TimestampMs, Uuid};

use super::partition::ShortLists;
use super::{
    AclEntry, BrokerImage, ConfigResource, ConfigResourceType, ControllerImage, DelegationToken, Endpoint,
    LeaderRecoveryState, MetadataChanges, MetadataImage, PartitionImage, PartitionRegistration, PartitionTable,
    ScramCredential, ScramMechanism, TopicImage, VersionRange, directory,
};
use crate::features::{self, MetadataVersion};

/// A record that doesn't fit the image. No writer makes one, so the log is damaged or of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The record is of a broker that is not registered, or registered anew since.
    #[error("{record}: broker {id} is not registered with epoch {epoch}")]
    UnknownBroker {
        /// The record's type.
        record: &'static str,
        /// The broker.
        id: i32,
        /// The epoch in the record.
        epoch: i64,
    },
    /// The record is of a topic that is not there.
    #[error("{record}: there is no topic {topic}")]
    UnknownTopic {
        /// The record's type.
        record: &'static str,
        /// Id or name.
        topic: String,
    },
    /// The record changes a partition that is not there.
    #[error("PartitionChangeRecord: topic {topic_id} has no partition {partition}")]
    UnknownPartition {
        /// The topic's id.
        topic_id: Uuid,
        /// The partition's index.
        partition: i32,
    },
    /// A field holds a number that has no meaning here.
    #[error("{record}: {field} can't be {value}")]
    InvalidField {
        /// The record's type.
        record: &'static str,
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The feature level is none that this version runs.
    #[error("FeatureLevelRecord: level {level} of {feature} is not supported")]
    UnsupportedFeature {
        /// The feature.
        feature: String,
        /// The level in the record.
        level: i16,
    },
    /// Replica and directory lists differ in length.
    #[error("{record}: {replicas} replicas, but {directories} directories")]
    DirectoryCount {
        /// The record's type.
        record: &'static str,
        /// Length of the replica list.
        replicas: usize,
        /// Length of the directory list.
        directories: usize,
    },
    /// The access control entry to be removed is not there.
    #[error("RemoveAccessControlEntryRecord: there is no entry {0}")]
    UnknownAcl(Uuid),
}

fn node_list(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn sorted(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.sort_unstable();
    ids
}

/// Directories for `replicas`: those of the record, or all MIGRATING when it has none.
fn directories<'a>(
    record: &'static str,
    replicas: usize,
    given: Option<&'a [Uuid]>,
) -> Result<Cow<'a, [Uuid]>, ReplayError> {
    match given {
        Some(given) if !given.is_empty() => {
            if given.len() != replicas {
                return Err(ReplayError::DirectoryCount { record, replicas, directories: given.len() });
            }
            Ok(Cow::Borrowed(given))
        }
        _ => Ok(Cow::Owned(vec![directory::MIGRATING; replicas])),
    }
}

impl MetadataImage {
    /// Replays one record and notes in `changes` what it changed. Transaction markers are the loader's and change
    /// nothing here.
    pub fn replay(&mut self, record: &MetadataRecord, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::RegisterBroker(record) => self.replay_register_broker(record, changes),
            MetadataRecord::UnregisterBroker(record) => {
                self.broker_mut("UnregisterBrokerRecord", record.broker_id, record.broker_epoch)?;
                Arc::make_mut(&mut self.cluster).brokers.remove(&NodeId(record.broker_id));
                changes.brokers.insert(NodeId(record.broker_id));
                return Ok(());
            }
            MetadataRecord::BrokerRegistrationChange(record) => {
                return self.replay_registration_change(record, changes);
            }
            MetadataRecord::FenceBroker(record) => {
                self.broker_mut("FenceBrokerRecord", record.id, record.epoch)?.is_fenced = true;
                changes.brokers.insert(NodeId(record.id));
            }
            MetadataRecord::UnfenceBroker(record) => {
                self.broker_mut("UnfenceBrokerRecord", record.id, record.epoch)?.is_fenced = false;
                changes.brokers.insert(NodeId(record.id));
            }
            MetadataRecord::RegisterController(record) => self.replay_register_controller(record, changes),
            MetadataRecord::Topic(record) => self.replay_topic(record, changes),
            MetadataRecord::Partition(record) => return self.replay_partition(record, changes),
            MetadataRecord::PartitionChange(record) => return self.replay_partition_change(record, changes),
            MetadataRecord::RemoveTopic(record) => return self.replay_remove_topic(record.topic_id, changes),
            MetadataRecord::ClearElr(record) => return self.replay_clear_elr(&record.topic_name, changes),
            MetadataRecord::Config(record) => return self.replay_config(record, changes),
            MetadataRecord::FeatureLevel(record) => return self.replay_feature_level(record, changes),
            MetadataRecord::ClientQuota(record) => self.replay_client_quota(record, changes),
            MetadataRecord::ProducerIds(record) => {
                if record.next_producer_id <= self.next_producer_id.0 {
                    return Err(ReplayError::InvalidField {
                        record: "ProducerIdsRecord",
                        field: "nextProducerId",
                        value: record.next_producer_id,
                    });
                }
                self.next_producer_id = ProducerId(record.next_producer_id);
                changes.producer_ids = true;
            }
            MetadataRecord::ZkMigrationState(record) => self.zk_migration_state = record.zk_migration_state,
            MetadataRecord::NoOp(_)
            | MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => {}
            record => return self.replay_security(record, changes),
        }
        Ok(())
    }

    fn replay_security(&mut self, record: &MetadataRecord, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::AccessControlEntry(record) => self.replay_acl(record, changes),
            MetadataRecord::RemoveAccessControlEntry(record) => {
                let removed = Arc::make_mut(&mut self.acls).entries.remove(&record.id);
                removed.ok_or(ReplayError::UnknownAcl(record.id))?;
                changes.acls.insert(record.id);
            }
            MetadataRecord::UserScramCredential(record) => return self.replay_scram(record, changes),
            MetadataRecord::RemoveUserScramCredential(record) => {
                let mechanism = scram_mechanism("RemoveUserScramCredentialRecord", record.mechanism)?;
                let key = (mechanism, Arc::<str>::from(record.name.as_str()));
                Arc::make_mut(&mut self.scram).credentials.remove(&key);
                changes.scram.insert(key);
            }
            MetadataRecord::DelegationToken(record) => self.replay_token(record, changes),
            MetadataRecord::RemoveDelegationToken(record) => {
                let id = Arc::<str>::from(record.token_id.as_str());
                Arc::make_mut(&mut self.tokens).tokens.remove(&id);
                changes.tokens.insert(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn broker_mut(&mut self, record: &'static str, id: i32, epoch: i64) -> Result<&mut BrokerImage, ReplayError> {
        let broker = Arc::make_mut(&mut self.cluster).brokers.get_mut(&NodeId(id));
        match broker {
            Some(broker) if broker.epoch.0 == epoch => Ok(Arc::make_mut(broker)),
            _ => Err(ReplayError::UnknownBroker { record, id, epoch }),
        }
    }

    fn replay_register_broker(&mut self, record: &RegisterBrokerRecord, changes: &mut MetadataChanges) {
        let endpoints = record.end_points.iter().map(|endpoint| Endpoint {
            listener: endpoint.name.as_str().into(),
            host: endpoint.host.as_str().into(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            let range = VersionRange { min: feature.min_supported_version, max: feature.max_supported_version };
            (Arc::from(feature.name.as_str()), range)
        });
        let broker = BrokerImage {
            id: NodeId(record.broker_id),
            epoch: BrokerEpoch(record.broker_epoch),
            incarnation_id: record.incarnation_id,
            endpoints: endpoints.collect(),
            features: features.collect(),
            rack: record.rack.as_ref().map(|rack| rack.as_str().into()),
            is_fenced: record.fenced,
            is_in_controlled_shutdown: record.in_controlled_shutdown,
            is_migrating_zk_broker: record.is_migrating_zk_broker,
            directories: sorted(record.log_dirs.clone()),
            cordoned_directories: record.cordoned_log_dirs.clone().map(sorted),
        };
        changes.brokers.insert(broker.id);
        Arc::make_mut(&mut self.cluster).brokers.insert(broker.id, Arc::new(broker));
    }

    fn replay_registration_change(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
        changes: &mut MetadataChanges,
    ) -> Result<(), ReplayError> {
        const NAME: &str = "BrokerRegistrationChangeRecord";
        let is_fenced = match record.fenced {
            -1 => Some(false),
            0 => None,
            1 => Some(true),
            value => return Err(ReplayError::InvalidField { record: NAME, field: "fenced", value: value.into() }),
        };
        let is_shutting_down = match record.in_controlled_shutdown {
            0 => None,
            1 => Some(true),
            value => {
                let field = "inControlledShutdown";
                return Err(ReplayError::InvalidField { record: NAME, field, value: value.into() });
            }
        };
        let broker = self.broker_mut(NAME, record.broker_id, record.broker_epoch)?;
        broker.is_fenced = is_fenced.unwrap_or(broker.is_fenced);
        broker.is_in_controlled_shutdown = is_shutting_down.unwrap_or(broker.is_in_controlled_shutdown);
        if !record.log_dirs.is_empty() {
            broker.directories = sorted(record.log_dirs.clone());
        }
        if let Some(cordoned) = &record.cordoned_log_dirs {
            broker.cordoned_directories = Some(sorted(cordoned.clone()));
        }
        changes.brokers.insert(NodeId(record.broker_id));
        Ok(())
    }

    fn replay_register_controller(&mut self, record: &RegisterControllerRecord, changes: &mut MetadataChanges) {
        let endpoints = record.end_points.iter().map(|endpoint| Endpoint {
            listener: endpoint.name.as_str().into(),
            host: endpoint.host.as_str().into(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = record.features.iter().map(|feature| {
            let range = VersionRange { min: feature.min_supported_version, max: feature.max_supported_version };
            (Arc::from(feature.name.as_str()), range)
        });
        let controller = ControllerImage {
            id: NodeId(record.controller_id),
            incarnation_id: record.incarnation_id,
            is_zk_migration_ready: record.zk_migration_ready,
            endpoints: endpoints.collect(),
            features: features.collect(),
        };
        changes.controllers.insert(controller.id);
        Arc::make_mut(&mut self.cluster).controllers.insert(controller.id, Arc::new(controller));
    }

    fn replay_topic(&mut self, record: &TopicRecord, changes: &mut MetadataChanges) {
        if let Some(topic) = self.add_topic(record) {
            changes.topic(&topic).is_created = true;
        }
    }

    /// Replays the record without noting a change. Returns the topic if it is new.
    pub(super) fn add_topic(&mut self, record: &TopicRecord) -> Option<Arc<TopicImage>> {
        if self.topics.by_id.contains_key(&record.topic_id) {
            return None;
        }
        let name = Arc::<str>::from(record.name.as_str());
        let topic = Arc::new(TopicImage { name: name.clone(), id: record.topic_id, partitions: PartitionTable::new() });
        self.topics.by_id.insert(record.topic_id, topic.clone());
        self.topics.by_name.insert(name, record.topic_id);
        Some(topic)
    }

    fn replay_partition(&mut self, record: &PartitionRecord, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        let topic = self.put_partition(record)?;
        changes.topic(topic).partitions.insert(PartitionIndex(record.partition_id));
        Ok(())
    }

    /// Replays the record without noting a change. Returns the topic.
    pub(super) fn put_partition(&mut self, record: &PartitionRecord) -> Result<&TopicImage, ReplayError> {
        let partition = PartitionImage::from_record(record)?;
        let topic = self.topics.by_id.get_mut(&record.topic_id).ok_or_else(|| ReplayError::UnknownTopic {
            record: "PartitionRecord",
            topic: record.topic_id.to_string(),
        })?;
        let partitions = &mut Arc::make_mut(topic).partitions;
        if partitions.insert(PartitionIndex(record.partition_id), partition).is_none() {
            self.topics.partition_count += 1;
        }
        Ok(topic)
    }

    fn replay_partition_change(
        &mut self,
        record: &PartitionChangeRecord,
        changes: &mut MetadataChanges,
    ) -> Result<(), ReplayError> {
        let index = PartitionIndex(record.partition_id);
        let topic = self.topics.by_id.get_mut(&record.topic_id).ok_or_else(|| ReplayError::UnknownTopic {
            record: "PartitionChangeRecord",
            topic: record.topic_id.to_string(),
        })?;
        let old = topic
            .partitions
            .get(&index)
            .ok_or(ReplayError::UnknownPartition { topic_id: record.topic_id, partition: record.partition_id })?;
        let new = old.merge(record)?;
        changes.topic(topic).partitions.insert(index);
        Arc::make_mut(topic).partitions.insert(index, new);
        Ok(())
    }

    fn replay_remove_topic(&mut self, id: Uuid, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        let topic = self
            .topics
            .by_id
            .remove(&id)
            .ok_or_else(|| ReplayError::UnknownTopic { record: "RemoveTopicRecord", topic: id.to_string() })?;
        self.topics.by_name.remove(&topic.name);
        self.topics.partition_count -= topic.partitions.len();
        let resource = ConfigResource::topic(&topic.name);
        if self.configs.by_resource.remove(&resource).is_some() {
            changes.configs.insert(resource);
        }
        changes.on_topic_deleted(&topic);
        Ok(())
    }

    fn replay_clear_elr(&mut self, topic_name: &str, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        let ids = if topic_name.is_empty() {
            self.topics.iter().map(|topic| topic.id).collect()
        } else {
            let id = self
                .topics
                .id(topic_name)
                .ok_or_else(|| ReplayError::UnknownTopic { record: "ClearElrRecord", topic: topic_name.to_owned() })?;
            vec![id]
        };
        let holds_elr = |partition: &PartitionImage| {
            !partition.eligible_leader_replicas().is_empty() || !partition.last_known_elr().is_empty()
        };
        for id in ids {
            let Some(topic) = self.topics.by_id(id) else { continue };
            let cleared = topic.partitions.iter().filter(|(_, partition)| holds_elr(partition));
            let cleared: Vec<_> = cleared.map(|(index, partition)| (index, partition.without_elr())).collect();
            let Some(topic) = self.topics.by_id.get_mut(&id).filter(|_| !cleared.is_empty()) else { continue };
            let topic_changes = changes.topic(topic);
            let topic = Arc::make_mut(topic);
            for (index, partition) in cleared {
                topic.partitions.insert(index, partition);
                topic_changes.partitions.insert(index);
            }
        }
        Ok(())
    }

    fn replay_config(&mut self, record: &ConfigRecord, changes: &mut MetadataChanges) -> Result<(), ReplayError> {
        let resource_type = ConfigResourceType::from_code(record.resource_type).ok_or(ReplayError::InvalidField {
            record: "ConfigRecord",
            field: "resourceType",
            value: record.resource_type.into(),
        })?;
        let resource = ConfigResource::new(resource_type, &record.resource_name);
        match (&record.value, self.configs.by_resource.get_mut(&resource)) {
            (Some(value), Some(configs)) => {
                Arc::make_mut(configs).insert(record.name.as_str().into(), value.as_str().into());
            }
            (Some(value), None) => {
                let configs = BTreeMap::from([(record.name.as_str().into(), value.as_str().into())]);
                self.configs.by_resource.insert(resource.clone(), Arc::new(configs));
            }
            (None, Some(configs)) => {
                Arc::make_mut(configs).remove(record.name.as_str());
                if configs.is_empty() {
                    self.configs.by_resource.remove(&resource);
                }
            }
            (None, None) => {}
        }
        changes.configs.insert(resource);
        Ok(())
    }

    fn replay_feature_level(
        &mut self,
        record: &FeatureLevelRecord,
        changes: &mut MetadataChanges,
    ) -> Result<(), ReplayError> {
        let unsupported = || ReplayError::UnsupportedFeature {
            feature: record.name.as_str().chars().take(64).collect(),
            level: record.feature_level,
        };
        let name = record.name.as_str();
        let feature = features::feature(name).ok_or_else(unsupported)?;
        let image = Arc::make_mut(&mut self.features);
        if name == features::METADATA_VERSION {
            let version = MetadataVersion::from_level(record.feature_level).ok_or_else(unsupported)?;
            image.metadata_version = Some(version);
        } else if record.feature_level == 0 {
            image.levels.remove(name);
        } else if feature.has_level(record.feature_level) {
            image.levels.insert(Arc::from(name), record.feature_level);
        } else {
            return Err(unsupported());
        }
        changes.features.insert(Arc::from(name));
        Ok(())
    }

    fn replay_client_quota(&mut self, record: &ClientQuotaRecord, changes: &mut MetadataChanges) {
        let entity: super::QuotaEntity = record
            .entity
            .iter()
            .map(|part| {
                (Arc::from(part.entity_type.as_str()), part.entity_name.as_ref().map(|name| Arc::from(name.as_str())))
            })
            .collect();
        let entities = &mut Arc::make_mut(&mut self.client_quotas).entities;
        if record.remove {
            if let Some(values) = entities.get_mut(&entity) {
                values.remove(record.key.as_str());
                if values.is_empty() {
                    entities.remove(&entity);
                }
            }
        } else {
            entities.entry(entity.clone()).or_default().insert(record.key.as_str().into(), record.value);
        }
        changes.client_quotas.insert(entity);
    }

    fn replay_acl(&mut self, record: &AccessControlEntryRecord, changes: &mut MetadataChanges) {
        let entry = AclEntry {
            resource_type: record.resource_type,
            resource_name: record.resource_name.as_str().into(),
            pattern_type: record.pattern_type,
            principal: record.principal.as_str().into(),
            host: record.host.as_str().into(),
            operation: record.operation,
            permission_type: record.permission_type,
        };
        Arc::make_mut(&mut self.acls).entries.insert(record.id, Arc::new(entry));
        changes.acls.insert(record.id);
    }

    fn replay_scram(
        &mut self,
        record: &UserScramCredentialRecord,
        changes: &mut MetadataChanges,
    ) -> Result<(), ReplayError> {
        let mechanism = scram_mechanism("UserScramCredentialRecord", record.mechanism)?;
        let key = (mechanism, Arc::<str>::from(record.name.as_str()));
        let credential = ScramCredential {
            // Copies, as a slice would keep the whole batch alive.
            salt: Bytes::copy_from_slice(&record.salt),
            stored_key: Bytes::copy_from_slice(&record.stored_key),
            server_key: Bytes::copy_from_slice(&record.server_key),
            iterations: record.iterations,
        };
        Arc::make_mut(&mut self.scram).credentials.insert(key.clone(), credential);
        changes.scram.insert(key);
        Ok(())
    }

    fn replay_token(&mut self, record: &DelegationTokenRecord, changes: &mut MetadataChanges) {
        let token = DelegationToken {
            token_id: record.token_id.as_str().into(),
            owner: record.owner.as_str().into(),
            requester: record.requester.as_str().into(),
            renewers: record.renewers.iter().map(|renewer| renewer.as_str().into()).collect(),
            issue_timestamp: TimestampMs(record.issue_timestamp),
            max_timestamp: TimestampMs(record.max_timestamp),
            expiration_timestamp: TimestampMs(record.expiration_timestamp),
        };
        let id = token.token_id.clone();
        Arc::make_mut(&mut self.tokens).tokens.insert(id.clone(), Arc::new(token));
        changes.tokens.insert(id);
    }
}

fn scram_mechanism(record: &'static str, code: i8) -> Result<ScramMechanism, ReplayError> {
    let invalid = ReplayError::InvalidField { record, field: "mechanism", value: code.into() };
    ScramMechanism::from_code(code).ok_or(invalid)
}

impl PartitionImage {
    fn from_record(record: &PartitionRecord) -> Result<PartitionImage, ReplayError> {
        const NAME: &str = "PartitionRecord";
        let invalid = |field, value: i64| ReplayError::InvalidField { record: NAME, field, value };
        if record.partition_id < 0 {
            return Err(invalid("partitionId", record.partition_id.into()));
        }
        let leader_recovery_state = LeaderRecoveryState::from_value(record.leader_recovery_state)
            .ok_or_else(|| invalid("leaderRecoveryState", record.leader_recovery_state.into()))?;
        let directories = directories(NAME, record.replicas.len(), Some(&record.directories))?;
        let eligible_leader_replicas = record.eligible_leader_replicas.as_deref().unwrap_or_default();
        let last_known_elr = record.last_known_elr.as_deref().unwrap_or_default();
        let lists = ShortLists {
            replicas: &record.replicas,
            in_sync_replicas: &record.isr,
            eligible_leader_replicas,
            last_known_elr,
            directories: &directories,
        };
        if record.removing_replicas.is_empty()
            && record.adding_replicas.is_empty()
            && let Some(mut image) = PartitionImage::with_few_replicas(&lists)
        {
            image.leader = NodeId(record.leader);
            image.leader_epoch = LeaderEpoch(record.leader_epoch);
            image.partition_epoch = PartitionEpoch(record.partition_epoch);
            image.leader_recovery_state = leader_recovery_state;
            return Ok(image);
        }
        Ok(PartitionImage::new(&PartitionRegistration {
            replicas: node_list(&record.replicas),
            directories: directories.into_owned(),
            in_sync_replicas: node_list(&record.isr),
            eligible_leader_replicas: node_list(eligible_leader_replicas),
            last_known_elr: node_list(last_known_elr),
            removing_replicas: node_list(&record.removing_replicas),
            adding_replicas: node_list(&record.adding_replicas),
            leader: NodeId(record.leader),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: PartitionEpoch(record.partition_epoch),
            leader_recovery_state,
        }))
    }

    /// The registration after ClearElr.
    fn without_elr(&self) -> PartitionImage {
        let mut registration = self.to_registration();
        registration.eligible_leader_replicas.clear();
        registration.last_known_elr.clear();
        registration.partition_epoch = PartitionEpoch(self.partition_epoch.0.saturating_add(1));
        PartitionImage::new(&registration)
    }

    /// The registration after `record`: absent fields keep their values, a present `leader` bumps the leader epoch even
    /// when it is the same one, and the partition epoch always rises.
    pub fn merge(&self, record: &PartitionChangeRecord) -> Result<PartitionImage, ReplayError> {
        const NAME: &str = "PartitionChangeRecord";
        let mut registration = self.to_registration();
        let set = |list: &mut Vec<NodeId>, given: &Option<Vec<i32>>| {
            if let Some(given) = given {
                *list = node_list(given);
            }
        };
        set(&mut registration.replicas, &record.replicas);
        set(&mut registration.in_sync_replicas, &record.isr);
        set(&mut registration.eligible_leader_replicas, &record.eligible_leader_replicas);
        set(&mut registration.last_known_elr, &record.last_known_elr);
        set(&mut registration.removing_replicas, &record.removing_replicas);
        set(&mut registration.adding_replicas, &record.adding_replicas);
        let is_given = record.directories.as_ref().is_some_and(|directories| !directories.is_empty());
        // Other replicas in directories of the same ids: the list stays as it is.
        if is_given || registration.replicas.len() != registration.directories.len() {
            let given = directories(NAME, registration.replicas.len(), record.directories.as_deref())?;
            registration.directories = given.into_owned();
        }
        if record.leader != -2 {
            registration.leader = NodeId(record.leader);
            registration.leader_epoch = LeaderEpoch(self.leader_epoch.0.saturating_add(1));
        }
        if record.leader_recovery_state != -1 {
            let value = record.leader_recovery_state;
            registration.leader_recovery_state = LeaderRecoveryState::from_value(value)
                .ok_or(ReplayError::InvalidField { record: NAME, field: "leaderRecoveryState", value: value.into() })?;
        }
        registration.partition_epoch = PartitionEpoch(self.partition_epoch.0.saturating_add(1));
        Ok(PartitionImage::new(&registration))
    }
}
