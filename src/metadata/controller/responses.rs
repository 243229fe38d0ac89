//! A controller's error answer to each API: the error in the request's own fields.

use ringlog_protocol::messages::*;
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::ErrorCode;

use super::error::ApiError;

/// The answer that says `error` of everything the request asked, such as NOT_CONTROLLER on a standby. `None` for APIs
/// that are not the controller's.
pub fn error_response(request: &RequestBody, error: ErrorCode, api_version: i16) -> Option<ResponseBody> {
    refusal(request, error.into(), api_version)
}

/// The same with a text of its own.
pub(crate) fn refusal(request: &RequestBody, error: ApiError, api_version: i16) -> Option<ResponseBody> {
    let error_code = error.code.code();
    let error_message = error.text();
    Some(match request {
        RequestBody::BrokerRegistration(_) => {
            BrokerRegistrationResponse { error_code, broker_epoch: -1, ..Default::default() }.into()
        }
        RequestBody::BrokerHeartbeat(_) => BrokerHeartbeatResponse { error_code, ..Default::default() }.into(),
        RequestBody::UnregisterBroker(_) => {
            UnregisterBrokerResponse { error_code, error_message, ..Default::default() }.into()
        }
        RequestBody::ControllerRegistration(_) => {
            ControllerRegistrationResponse { error_code, error_message, ..Default::default() }.into()
        }
        RequestBody::AlterPartition(_) => AlterPartitionResponse { error_code, ..Default::default() }.into(),
        RequestBody::AllocateProducerIds(_) => AllocateProducerIdsResponse { error_code, ..Default::default() }.into(),
        RequestBody::AssignReplicasToDirs(_) => {
            AssignReplicasToDirsResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::UpdateFeatures(_) => {
            UpdateFeaturesResponse { error_code, error_message, ..Default::default() }.into()
        }
        RequestBody::AlterPartitionReassignments(request) => reassignments(request, error_code, &error_message).into(),
        RequestBody::ListPartitionReassignments(_) => {
            ListPartitionReassignmentsResponse { error_code, error_message, ..Default::default() }.into()
        }
        RequestBody::CreateDelegationToken(_) => {
            CreateDelegationTokenResponse { error_code, ..Default::default() }.into()
        }
        RequestBody::RenewDelegationToken(_) => {
            RenewDelegationTokenResponse { error_code, expiry_timestamp_ms: -1, ..Default::default() }.into()
        }
        RequestBody::ExpireDelegationToken(_) => {
            ExpireDelegationTokenResponse { error_code, expiry_timestamp_ms: -1, ..Default::default() }.into()
        }
        request => return per_item(request, error_code, &error_message, api_version),
    })
}

/// APIs that have an error for each item.
fn per_item(
    request: &RequestBody,
    error_code: i16,
    error_message: &Option<StrBytes>,
    api_version: i16,
) -> Option<ResponseBody> {
    Some(match request {
        RequestBody::CreateTopics(request) => {
            let result = |topic: &create_topics_request::CreatableTopic| create_topics_response::CreatableTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message: error_message.clone(),
                ..Default::default()
            };
            CreateTopicsResponse { topics: request.topics.iter().map(result).collect(), ..Default::default() }.into()
        }
        RequestBody::DeleteTopics(request) => {
            let by_name = request.topic_names.iter().filter(|_| api_version < 6);
            let by_name = by_name.map(|name| (Some(name.clone()), ringlog_types::Uuid::ZERO));
            let by_state = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
            let results =
                by_name.chain(by_state).map(|(name, topic_id)| delete_topics_response::DeletableTopicResult {
                    name,
                    topic_id,
                    error_code,
                    error_message: error_message.clone(),
                });
            DeleteTopicsResponse { responses: results.collect(), ..Default::default() }.into()
        }
        RequestBody::CreatePartitions(request) => {
            let results = request.topics.iter().map(|topic| create_partitions_response::CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message: error_message.clone(),
            });
            CreatePartitionsResponse { results: results.collect(), ..Default::default() }.into()
        }
        RequestBody::AlterConfigs(request) => {
            let responses = request.resources.iter().map(|it| alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message: error_message.clone(),
                resource_type: it.resource_type,
                resource_name: it.resource_name.clone(),
            });
            AlterConfigsResponse { responses: responses.collect(), ..Default::default() }.into()
        }
        RequestBody::IncrementalAlterConfigs(request) => {
            let responses =
                request.resources.iter().map(|it| incremental_alter_configs_response::AlterConfigsResourceResponse {
                    error_code,
                    error_message: error_message.clone(),
                    resource_type: it.resource_type,
                    resource_name: it.resource_name.clone(),
                });
            IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }.into()
        }
        RequestBody::ElectLeaders(request) => elect_leaders(request, error_code, error_message).into(),
        request => return per_security_item(request, error_code, error_message),
    })
}

fn elect_leaders(
    request: &ElectLeadersRequest,
    error_code: i16,
    error_message: &Option<StrBytes>,
) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten().map(|topic| elect_leaders_response::ReplicaElectionResult {
        topic: topic.topic.clone(),
        partition_result: topic
            .partitions
            .iter()
            .map(|index| elect_leaders_response::PartitionResult {
                partition_id: *index,
                error_code,
                error_message: error_message.clone(),
            })
            .collect(),
    });
    ElectLeadersResponse { error_code, replica_election_results: topics.collect(), ..Default::default() }
}

fn reassignments(
    request: &AlterPartitionReassignmentsRequest,
    error_code: i16,
    error_message: &Option<StrBytes>,
) -> AlterPartitionReassignmentsResponse {
    use alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse};
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| ReassignablePartitionResponse {
            partition_index: partition.partition_index,
            error_code,
            error_message: error_message.clone(),
        });
        ReassignableTopicResponse { name: topic.name.clone(), partitions: partitions.collect() }
    });
    let (responses, error_message) = (topics.collect(), error_message.clone());
    AlterPartitionReassignmentsResponse { error_code, error_message, responses, ..Default::default() }
}

fn per_security_item(request: &RequestBody, error_code: i16, error_message: &Option<StrBytes>) -> Option<ResponseBody> {
    Some(match request {
        RequestBody::AlterClientQuotas(request) => {
            let entries = request.entries.iter().map(|entry| alter_client_quotas_response::EntryData {
                error_code,
                error_message: error_message.clone(),
                entity: entry
                    .entity
                    .iter()
                    .map(|part| alter_client_quotas_response::EntityData {
                        entity_type: part.entity_type.clone(),
                        entity_name: part.entity_name.clone(),
                    })
                    .collect(),
            });
            AlterClientQuotasResponse { entries: entries.collect(), ..Default::default() }.into()
        }
        RequestBody::CreateAcls(request) => {
            let result = create_acls_response::AclCreationResult { error_code, error_message: error_message.clone() };
            CreateAclsResponse { results: vec![result; request.creations.len()], ..Default::default() }.into()
        }
        RequestBody::DeleteAcls(request) => {
            let result = delete_acls_response::DeleteAclsFilterResult {
                error_code,
                error_message: error_message.clone(),
                matching_acls: vec![],
            };
            DeleteAclsResponse { filter_results: vec![result; request.filters.len()], ..Default::default() }.into()
        }
        RequestBody::AlterUserScramCredentials(request) => {
            let names = request.deletions.iter().map(|it| &it.name).chain(request.upsertions.iter().map(|it| &it.name));
            let users: std::collections::BTreeSet<_> = names.collect();
            let results =
                users.into_iter().map(|user| alter_user_scram_credentials_response::AlterUserScramCredentialsResult {
                    user: user.clone(),
                    error_code,
                    error_message: error_message.clone(),
                });
            AlterUserScramCredentialsResponse { results: results.collect(), ..Default::default() }.into()
        }
        _ => return None,
    })
}
