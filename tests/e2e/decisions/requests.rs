//! Requests in few words.

use bytes::Bytes;
use ringlog_metadata::features::FEATURES;
use ringlog_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use ringlog_protocol::messages::broker_registration_request::{Feature, Listener};
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::update_features_request::FeatureUpdateKey;
use ringlog_protocol::messages::*;
use ringlog_protocol::{StrBytes, messages::create_partitions_request as partitions};
use ringlog_types::Uuid;

use ringlog_e2e_tests::node::CLUSTER_ID;

/// A text as messages hold it.
pub fn text(text: &str) -> StrBytes {
    StrBytes::copy_from(text)
}

/// A directory of a broker.
pub fn directory(broker: i32, number: u8) -> Uuid {
    let mut bytes = [3; 16];
    bytes[..2].copy_from_slice(&[(100 + broker) as u8, number]);
    Uuid(bytes)
}

/// A broker's registration in one of its lives, with its first directories.
pub fn registration(broker: i32, life: u32, directories: u8) -> BrokerRegistrationRequest {
    let features = FEATURES.iter().map(|feature| {
        let range = feature.supported_range(false);
        Feature { name: feature.name.into(), min_supported_version: range.min, max_supported_version: range.max }
    });
    let port = (9_000 + broker) as u16;
    BrokerRegistrationRequest {
        broker_id: broker,
        cluster_id: text(CLUSTER_ID),
        incarnation_id: Uuid((u128::MAX / 3 + u128::from(life)).to_be_bytes()),
        listeners: vec![Listener { name: text("PLAINTEXT"), host: text("localhost"), port, security_protocol: 0 }],
        features: features.collect(),
        rack: (broker % 2 == 0).then(|| text("even")),
        log_dirs: (1..=directories).map(|number| directory(broker, number)).collect(),
        ..BrokerRegistrationRequest::default()
    }
}

/// A topic with these replicas of each partition.
pub fn topic(name: &str, assignments: &[&[i32]], configs: &[(&str, &str)]) -> CreatableTopic {
    let assignments = assignments.iter().enumerate().map(|(index, brokers)| CreatableReplicaAssignment {
        partition_index: index as i32,
        broker_ids: brokers.to_vec(),
    });
    let configs =
        configs.iter().map(|(name, value)| CreatableTopicConfig { name: text(name), value: Some(text(value)) });
    CreatableTopic {
        name: text(name),
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        configs: configs.collect(),
    }
}

/// Creates topics.
pub fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false }
}

/// Adds partitions up to `count`.
pub fn create_partitions(name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) -> CreatePartitionsRequest {
    let assignments = assignments.map(|assignments| {
        let assignment = |broker_ids| partitions::CreatePartitionsAssignment { broker_ids };
        assignments.into_iter().map(assignment).collect()
    });
    CreatePartitionsRequest {
        topics: vec![partitions::CreatePartitionsTopic { name: text(name), count, assignments }],
        timeout_ms: 10_000,
        validate_only: false,
    }
}

/// Deletes a topic by name or by id.
pub fn delete_topic(name: Option<&str>, topic_id: Uuid) -> DeleteTopicsRequest {
    let topics = vec![DeleteTopicState { name: name.map(text), topic_id }];
    DeleteTopicsRequest { topics, timeout_ms: 10_000, ..DeleteTopicsRequest::default() }
}

/// Moves a partition, or ends its move.
pub fn reassign(
    topic: &str,
    partition_index: i32,
    replicas: Option<&[i32]>,
    allow_replication_factor_change: bool,
) -> AlterPartitionReassignmentsRequest {
    let partitions = vec![ReassignablePartition { partition_index, replicas: replicas.map(<[i32]>::to_vec) }];
    AlterPartitionReassignmentsRequest {
        timeout_ms: 10_000,
        allow_replication_factor_change,
        topics: vec![ReassignableTopic { name: text(topic), partitions }],
    }
}

/// Elects leaders of some partitions, or of all.
pub fn elect(election_type: i8, partitions: Option<&[(&str, &[i32])]>) -> ElectLeadersRequest {
    let topics = partitions.map(|partitions| {
        let topic =
            |(name, indexes): &(&str, &[i32])| TopicPartitions { topic: text(name), partitions: indexes.to_vec() };
        partitions.iter().map(topic).collect()
    });
    ElectLeadersRequest { election_type, topic_partitions: topics, timeout_ms: 10_000 }
}

/// Changes configs of one resource: key, operation, value.
pub fn configs(
    resource_type: i8,
    name: &str,
    operations: &[(&str, i8, Option<&str>)],
) -> IncrementalAlterConfigsRequest {
    use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs = operations.iter().map(|(key, config_operation, value)| AlterableConfig {
        name: text(key),
        config_operation: *config_operation,
        value: value.map(text),
    });
    let resource = AlterConfigsResource { resource_type, resource_name: text(name), configs: configs.collect() };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

/// One resource of the older request, which sets all configs that a resource has.
pub fn all_configs(
    resource_type: i8,
    name: &str,
    values: &[(&str, &str)],
) -> alter_configs_request::AlterConfigsResource {
    let configs = values
        .iter()
        .map(|(key, value)| alter_configs_request::AlterableConfig { name: text(key), value: Some(text(value)) });
    let configs = configs.collect();
    alter_configs_request::AlterConfigsResource { resource_type, resource_name: text(name), configs }
}

/// The parts of a quota's entity; no name is the default.
pub type QuotaParts<'a> = &'a [(&'a str, Option<&'a str>)];

/// Keys of quotas and their values; without a value they are removed.
pub type QuotaChanges<'a> = &'a [(&'a str, Option<f64>)];

/// Changes quotas of one entity.
pub fn quota(entity: QuotaParts<'_>, operations: QuotaChanges<'_>) -> AlterClientQuotasRequest {
    let entity = entity.iter().map(|(kind, name)| EntityData { entity_type: text(kind), entity_name: name.map(text) });
    let operations = operations.iter().map(|(key, value)| OpData {
        key: text(key),
        value: value.unwrap_or(0.0),
        remove: value.is_none(),
    });
    let entry = EntryData { entity: entity.collect(), ops: operations.collect() };
    AlterClientQuotasRequest { entries: vec![entry], validate_only: false }
}

/// Sets and removes SCRAM credentials: name, mechanism, iterations.
pub fn scram(upsertions: &[(&str, i8, i32)], deletions: &[(&str, i8)]) -> AlterUserScramCredentialsRequest {
    let upsertions = upsertions.iter().map(|(name, mechanism, iterations)| ScramCredentialUpsertion {
        name: text(name),
        mechanism: *mechanism,
        iterations: *iterations,
        salt: Bytes::from_static(b"salt"),
        salted_password: Bytes::from(vec![7; if *mechanism == 1 { 32 } else { 64 }]),
    });
    let deletions =
        deletions.iter().map(|(name, mechanism)| ScramCredentialDeletion { name: text(name), mechanism: *mechanism });
    AlterUserScramCredentialsRequest { upsertions: upsertions.collect(), deletions: deletions.collect() }
}

/// Changes feature levels: name, level, type of the change.
pub fn features(updates: &[(&str, i16, i8)], validate_only: bool) -> UpdateFeaturesRequest {
    let updates = updates.iter().map(|(feature, max_version_level, upgrade_type)| FeatureUpdateKey {
        feature: text(feature),
        max_version_level: *max_version_level,
        upgrade_type: *upgrade_type,
        ..FeatureUpdateKey::default()
    });
    UpdateFeaturesRequest { timeout_ms: 10_000, feature_updates: updates.collect(), validate_only }
}

/// A broker says where its replicas of one topic lie.
pub fn assign_directory(
    broker_id: i32,
    broker_epoch: i64,
    id: Uuid,
    topic_id: Uuid,
    partitions: &[i32],
) -> AssignReplicasToDirsRequest {
    use ringlog_protocol::messages::assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
    let partitions = partitions.iter().map(|index| PartitionData { partition_index: *index }).collect();
    let directories = vec![DirectoryData { id, topics: vec![TopicData { topic_id, partitions }] }];
    AssignReplicasToDirsRequest { broker_id, broker_epoch, directories }
}
