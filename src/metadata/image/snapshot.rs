//! The image as records: what a snapshot of it holds.

use ringlog_protocol::StrBytes;
use ringlog_protocol::metadata_records::{
    AccessControlEntryRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord, FeatureLevelRecord,
    MetadataRecord, PartitionRecord, ProducerIdsRecord, RecordAndVersion, RegisterBrokerRecord,
    RegisterControllerRecord, TopicRecord, UserScramCredentialRecord, ZkMigrationStateRecord, client_quota_record,
    register_broker_record, register_controller_record,
};
use ringlog_types::{NodeId, PartitionIndex, Uuid};

use super::{BrokerImage, ControllerImage, MetadataImage, PartitionImage};
use crate::features::{METADATA_VERSION, MetadataVersion};

fn text(value: &str) -> StrBytes {
    StrBytes::copy_from(value)
}

fn numbers(ids: &[NodeId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

fn at_version(record: MetadataRecord, version: i16) -> RecordAndVersion {
    RecordAndVersion { record, version }
}

impl PartitionImage {
    /// The record that registers this partition anew, with fields that `metadata_version` doesn't know left out.
    pub fn to_record(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
        metadata_version: MetadataVersion,
    ) -> RecordAndVersion {
        let version = metadata_version.partition_record_version();
        let elr = |ids: &[NodeId]| (version >= 2 && !ids.is_empty()).then(|| numbers(ids));
        let record = PartitionRecord {
            partition_id: index.0,
            topic_id,
            replicas: numbers(self.replicas()),
            isr: numbers(self.in_sync_replicas()),
            removing_replicas: numbers(self.removing_replicas()),
            adding_replicas: numbers(self.adding_replicas()),
            leader: self.leader.0,
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch.0,
            directories: if version >= 1 { self.directories().to_vec() } else { Vec::new() },
            leader_recovery_state: self.leader_recovery_state as i8,
            eligible_leader_replicas: elr(self.eligible_leader_replicas()),
            last_known_elr: elr(self.last_known_elr()),
        };
        at_version(MetadataRecord::Partition(record), version)
    }
}

impl BrokerImage {
    /// The record that registers this broker anew, with fields that `metadata_version` doesn't know left out.
    pub fn to_record(&self, metadata_version: MetadataVersion) -> RecordAndVersion {
        let version = metadata_version.register_broker_record_version();
        let end_points = self.endpoints.iter().map(|endpoint| register_broker_record::BrokerEndpoint {
            name: text(&endpoint.listener),
            host: text(&endpoint.host),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = self.features.iter().map(|(name, range)| register_broker_record::BrokerFeature {
            name: text(name),
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        let record = RegisterBrokerRecord {
            broker_id: self.id.0,
            is_migrating_zk_broker: version >= 2 && self.is_migrating_zk_broker,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch.0,
            end_points: end_points.collect(),
            features: features.collect(),
            rack: self.rack.as_deref().map(text),
            fenced: self.is_fenced,
            in_controlled_shutdown: version >= 1 && self.is_in_controlled_shutdown,
            log_dirs: if version >= 3 { self.directories.clone() } else { Vec::new() },
            cordoned_log_dirs: if version >= 4 { self.cordoned_directories.clone() } else { None },
        };
        at_version(MetadataRecord::RegisterBroker(record), version)
    }
}

impl ControllerImage {
    /// The record that registers this controller anew.
    pub fn to_record(&self) -> RecordAndVersion {
        let end_points = self.endpoints.iter().map(|endpoint| register_controller_record::ControllerEndpoint {
            name: text(&endpoint.listener),
            host: text(&endpoint.host),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        });
        let features = self.features.iter().map(|(name, range)| register_controller_record::ControllerFeature {
            name: text(name),
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        let record = RegisterControllerRecord {
            controller_id: self.id.0,
            incarnation_id: self.incarnation_id,
            zk_migration_ready: self.is_zk_migration_ready,
            end_points: end_points.collect(),
            features: features.collect(),
        };
        at_version(MetadataRecord::RegisterController(record), 0)
    }
}

impl MetadataImage {
    /// The records of a snapshot of this image, in Kafka's order of sections.
    pub fn to_records(&self, metadata_version: MetadataVersion) -> Vec<RecordAndVersion> {
        let mut records = Vec::new();
        self.for_each_record(metadata_version, &mut |record| records.push(record));
        records
    }

    /// Hands each record of a snapshot to `sink`, in Kafka's order of sections: features, brokers, controllers, topics
    /// with their partitions, configs, quotas, producer ids, access control entries, SCRAM credentials, tokens.
    pub fn for_each_record(&self, metadata_version: MetadataVersion, sink: &mut dyn FnMut(RecordAndVersion)) {
        self.feature_records(metadata_version, sink);
        for broker in self.cluster.brokers.values() {
            sink(broker.to_record(metadata_version));
        }
        if metadata_version.is_controller_registration_supported() {
            for controller in self.cluster.controllers.values() {
                sink(controller.to_record());
            }
        }
        for topic in self.topics.iter() {
            let record = TopicRecord { name: text(&topic.name), topic_id: topic.id };
            sink(at_version(MetadataRecord::Topic(record), 0));
            for (index, partition) in topic.partitions.iter() {
                sink(partition.to_record(topic.id, index, metadata_version));
            }
        }
        self.config_and_quota_records(sink);
        self.security_records(metadata_version, sink);
    }

    fn feature_records(&self, metadata_version: MetadataVersion, sink: &mut dyn FnMut(RecordAndVersion)) {
        let mut set_level = |name: &str, level: i16| {
            let record = FeatureLevelRecord { name: text(name), feature_level: level };
            sink(at_version(MetadataRecord::FeatureLevel(record), 0));
        };
        if self.features.metadata_version.is_some() {
            set_level(METADATA_VERSION, metadata_version.0);
        }
        for (name, level) in &self.features.levels {
            set_level(name, *level);
        }
        if self.zk_migration_state != 0 && metadata_version.is_migration_supported() {
            let record = ZkMigrationStateRecord { zk_migration_state: self.zk_migration_state };
            sink(at_version(MetadataRecord::ZkMigrationState(record), 0));
        }
    }

    fn config_and_quota_records(&self, sink: &mut dyn FnMut(RecordAndVersion)) {
        for (resource, configs) in self.configs.iter() {
            for (name, value) in configs.iter() {
                let record = ConfigRecord {
                    resource_type: resource.resource_type.code(),
                    resource_name: text(&resource.name),
                    name: text(name),
                    value: Some(text(value)),
                };
                sink(at_version(MetadataRecord::Config(record), 0));
            }
        }
        for (entity, values) in &self.client_quotas.entities {
            for (key, value) in values {
                let entity = entity.iter().map(|(entity_type, name)| client_quota_record::EntityData {
                    entity_type: text(entity_type),
                    entity_name: name.as_deref().map(text),
                });
                let record =
                    ClientQuotaRecord { entity: entity.collect(), key: text(key), value: *value, remove: false };
                sink(at_version(MetadataRecord::ClientQuota(record), 0));
            }
        }
        if self.next_producer_id.0 >= 0 {
            let next_producer_id = self.next_producer_id.0;
            let record = ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id };
            sink(at_version(MetadataRecord::ProducerIds(record), 0));
        }
    }

    fn security_records(&self, metadata_version: MetadataVersion, sink: &mut dyn FnMut(RecordAndVersion)) {
        for (id, entry) in &self.acls.entries {
            let record = AccessControlEntryRecord {
                id: *id,
                resource_type: entry.resource_type,
                resource_name: text(&entry.resource_name),
                pattern_type: entry.pattern_type,
                principal: text(&entry.principal),
                host: text(&entry.host),
                operation: entry.operation,
                permission_type: entry.permission_type,
            };
            sink(at_version(MetadataRecord::AccessControlEntry(record), 0));
        }
        if metadata_version.is_scram_supported() {
            for ((mechanism, user), credential) in &self.scram.credentials {
                let record = UserScramCredentialRecord {
                    name: text(user),
                    mechanism: *mechanism as i8,
                    salt: credential.salt.clone(),
                    stored_key: credential.stored_key.clone(),
                    server_key: credential.server_key.clone(),
                    iterations: credential.iterations,
                };
                sink(at_version(MetadataRecord::UserScramCredential(record), 0));
            }
        }
        if metadata_version.is_delegation_token_supported() {
            for token in self.tokens.tokens.values() {
                let record = DelegationTokenRecord {
                    owner: text(&token.owner),
                    requester: text(&token.requester),
                    renewers: token.renewers.iter().map(|renewer| text(renewer)).collect(),
                    issue_timestamp: token.issue_timestamp.0,
                    max_timestamp: token.max_timestamp.0,
                    expiration_timestamp: token.expiration_timestamp.0,
                    token_id: text(&token.token_id),
                };
                sink(at_version(MetadataRecord::DelegationToken(record), 0));
            }
        }
    }
}
