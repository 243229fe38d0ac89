//! What administrators and brokers ask controllers for, beside topics, configs and voters.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ringlog_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use ringlog_protocol::messages::create_acls_request::AclCreation;
use ringlog_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::update_features_request::FeatureUpdateKey;
use ringlog_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, AlterUserScramCredentialsRequest, CreateAclsRequest,
    DeleteAclsRequest, ElectLeadersRequest, UpdateFeaturesRequest,
};

use super::clients::{Known, TIMEOUT_MS, draw, send, topic};
use crate::client::connection::{CallFault, Connection};

/// Sends any of them.
pub(super) async fn send_any(known: &Known, connection: &mut Connection) -> Result<(), CallFault> {
    match draw(30) {
        0..8 => send(connection, reassign(known)).await,
        8..12 => send(connection, elect()).await,
        12..16 => send(connection, create_acl()).await,
        16..18 => send(connection, delete_acl()).await,
        18..20 => send(connection, alter_scram()).await,
        20..22 => send(connection, update_feature()).await,
        _ => match alter_partition(known) {
            Some(request) => send(connection, request).await,
            None => Ok(()),
        },
    }
}

/// Any of the brokers that there have ever been.
fn broker(known: &Known) -> i32 {
    let brokers: Vec<i32> = known.checks.borrow().brokers().map(|(id, _)| id).collect();
    brokers.get(draw(brokers.len())).copied().unwrap_or(1)
}

fn reassign(known: &Known) -> AlterPartitionReassignmentsRequest {
    let is_cancel = draw(4) == 0;
    let mut replicas: Vec<i32> = Vec::new();
    for _ in 0..=draw(3) {
        let broker = broker(known);
        if !replicas.contains(&broker) {
            replicas.push(broker);
        }
    }
    let partition =
        ReassignablePartition { partition_index: draw(3) as i32, replicas: (!is_cancel).then_some(replicas) };
    AlterPartitionReassignmentsRequest {
        timeout_ms: TIMEOUT_MS,
        allow_replication_factor_change: true,
        topics: vec![ReassignableTopic { name: topic(), partitions: vec![partition] }],
    }
}

fn elect() -> ElectLeadersRequest {
    let topic_partitions =
        (draw(3) > 0).then(|| vec![TopicPartitions { topic: topic(), partitions: (0..2).collect() }]);
    ElectLeadersRequest { election_type: draw(2) as i8, topic_partitions, timeout_ms: TIMEOUT_MS }
}

fn user() -> StrBytes {
    StrBytes::copy_from(&format!("user-{}", draw(3)))
}

fn create_acl() -> CreateAclsRequest {
    let creation = AclCreation {
        resource_type: 2,
        resource_name: topic(),
        resource_pattern_type: 3,
        principal: StrBytes::copy_from(&format!("User:user-{}", draw(3))),
        host: "*".into(),
        operation: 3 + draw(2) as i8,
        permission_type: 3,
    };
    CreateAclsRequest { creations: vec![creation] }
}

fn delete_acl() -> DeleteAclsRequest {
    let filter = DeleteAclsFilter {
        resource_type_filter: 2,
        resource_name_filter: Some(topic()),
        pattern_type_filter: 3,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    };
    DeleteAclsRequest { filters: vec![filter] }
}

fn alter_scram() -> AlterUserScramCredentialsRequest {
    let name = user();
    let (mut deletions, mut upsertions) = (Vec::new(), Vec::new());
    if draw(3) == 0 {
        deletions.push(ScramCredentialDeletion { name, mechanism: 1 });
    } else {
        let byte = draw(256) as u8;
        upsertions.push(ScramCredentialUpsertion {
            name,
            mechanism: 1,
            iterations: 4_096,
            salt: vec![byte; 16].into(),
            salted_password: vec![byte; 32].into(),
        });
    }
    AlterUserScramCredentialsRequest { deletions, upsertions }
}

fn update_feature() -> UpdateFeaturesRequest {
    let (feature, level, upgrade_type) = match draw(4) {
        0 => ("kraft.version", 1, 1),
        1 => ("transaction.version", draw(3) as i16, 1 + draw(2) as i8),
        2 => ("eligible.leader.replicas.version", 1, 1),
        _ => ("group.version", draw(2) as i16, 1 + draw(2) as i8),
    };
    let update =
        FeatureUpdateKey { feature: feature.into(), max_version_level: level, upgrade_type, allow_downgrade: false };
    UpdateFeaturesRequest { timeout_ms: TIMEOUT_MS, feature_updates: vec![update], validate_only: false }
}

/// A partition gains a replica in sync, or loses one, as its leader would say it: brokers don't yet.
fn alter_partition(known: &Known) -> Option<AlterPartitionRequest> {
    let checks = known.checks.borrow();
    let led: Vec<_> = checks.led_partitions().collect();
    let (topic_id, partition_index, partition) = *led.get(draw(led.len()))?;
    let epoch_of = |id: i32| checks.brokers().find(|(broker, _)| *broker == id).map_or(-1, |(_, epoch)| epoch);
    let mut in_sync: Vec<i32> = partition.in_sync_replicas.iter().map(|id| id.0).collect();
    let replica = partition.replicas.get(draw(partition.replicas.len()))?.0;
    match in_sync.iter().position(|id| *id == replica) {
        Some(place) if in_sync.len() > 1 && replica != partition.leader => drop(in_sync.remove(place)),
        Some(_) => {}
        None => in_sync.push(replica),
    }
    let broker_of = |id: &i32| BrokerState { broker_id: *id, broker_epoch: epoch_of(*id) };
    let asked = PartitionData {
        partition_index,
        leader_epoch: partition.leader_epoch,
        new_isr_with_epochs: in_sync.iter().map(broker_of).collect(),
        new_isr: Vec::new(),
        leader_recovery_state: 0,
        partition_epoch: partition.partition_epoch,
    };
    let topics = vec![TopicData { topic_id, partitions: vec![asked] }];
    let (broker_id, broker_epoch) = (partition.leader, epoch_of(partition.leader));
    Some(AlterPartitionRequest { broker_id, broker_epoch, topics })
}
