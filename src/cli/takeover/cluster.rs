//! Asks the cluster for all that is judged. Nothing is changed there.

use std::collections::BTreeMap;

use ringlog_client::{ClientError, Target};
use ringlog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringlog_protocol::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use ringlog_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClientQuotasRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeQuorumRequest, DescribeQuorumResponse, ListGroupsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest,
};
use ringlog_protocol::{Request, StrBytes};
use ringlog_types::{CLUSTER_METADATA_TOPIC, ErrorCode, SHARE_STATE_TOPIC};

use super::brokers::{BrokerState, set_configs};
use super::partitions::{PartitionState, TopicState};
use super::quorum::QuorumState;
use super::usage::Usage;
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::output::Output;

/// Resource type of a topic's configuration.
const TOPIC_RESOURCE: i8 = 2;
/// Resource type of a broker's configuration.
const BROKER_RESOURCE: i8 = 4;
/// Topics whose configurations are asked for at once.
const TOPICS_AT_ONCE: usize = 200;
/// How long the controller may take over a request, in milliseconds.
const TIMEOUT_MS: i32 = 10_000;
/// What is judged of a topic's configuration.
const TOPIC_KEYS: [&str; 3] = ["cleanup.policy", "min.insync.replicas", "remote.storage.enable"];

/// What is known of the cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// What a broker says of features.
    pub features: ApiVersionsResponse,
    /// The controllers.
    pub quorum: QuorumState,
    /// The brokers by id.
    pub brokers: BTreeMap<i32, BrokerState>,
    /// All topics.
    pub topics: Vec<TopicState>,
    /// Partitions that are being reassigned; none if there is no leader to tell.
    pub reassigned: Option<Vec<String>>,
    /// Transactions and groups.
    pub usage: Usage,
}

impl Cluster {
    /// Asks. It's an error if nobody can be reached, or what is asked for isn't told.
    pub fn ask(admin: &mut Admin, out: &mut dyn Output) -> Result<Cluster, Exception> {
        let features = admin.ask("describeFeatures", Target::Any, &versions_request(), |_| false, out)?;
        Exception::check(features.error_code, None)?;
        let (id, mut brokers) = nodes(admin, out)?;
        let mut usage = Usage::default();
        for (id, broker) in &mut brokers {
            if !broker.is_fenced {
                ask_broker(admin, *id, broker, &mut usage, out)?;
            }
        }
        usage.quotas = quotas(admin, out)?;
        let topics = topics(admin, out)?;
        let quorum = quorum(admin, out)?;
        let reassigned = if quorum.leader < 0 { None } else { Some(reassigned(admin, out)?) };
        Ok(Cluster { id, features, quorum, brokers, topics, reassigned, usage })
    }
}

fn versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "ringlog".into(),
        client_software_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Asks one broker, once: that it can't be reached is an answer too.
fn ask_once<R: Request>(
    admin: &mut Admin,
    broker: i32,
    request: &R,
    out: &mut dyn Output,
) -> Result<Result<R::Response, ClientError>, Exception> {
    admin.call("describeCluster", out, |client| Ok(client.send_to(broker, request)))
}

/// The cluster's id and its brokers, with those that are fenced where the cluster tells of them.
fn nodes(admin: &mut Admin, out: &mut dyn Output) -> Result<(String, BTreeMap<i32, BrokerState>), Exception> {
    let request = DescribeClusterRequest { include_fenced_brokers: true, ..DescribeClusterRequest::default() };
    let response = admin.call("describeCluster", out, |client| match client.send(&request) {
        Err(ClientError::Encode { .. }) => client.send(&DescribeClusterRequest::default()),
        outcome => outcome,
    })?;
    Exception::check(response.error_code, response.error_message.as_ref())?;
    let state = |is_fenced| BrokerState { is_fenced, ..BrokerState::default() };
    let brokers = response.brokers.iter().map(|broker| (broker.broker_id, state(broker.is_fenced)));
    Ok((String::from(response.cluster_id), brokers.collect()))
}

/// What only the broker itself can tell.
fn ask_broker(
    admin: &mut Admin,
    id: i32,
    broker: &mut BrokerState,
    usage: &mut Usage,
    out: &mut dyn Output,
) -> Result<(), Exception> {
    if let Err(fault) = ask_once(admin, id, &versions_request(), out)? {
        broker.unreachable = Some(fault.to_string());
        usage.unlisted.push(format!("broker {id} can't be reached"));
        return Ok(());
    }
    let resource = DescribeConfigsResource {
        resource_type: BROKER_RESOURCE,
        resource_name: StrBytes::from(id.to_string()),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    broker.configs = Some(match ask_once(admin, id, &request, out)? {
        Err(fault) => Err(fault.to_string()),
        Ok(response) => configs_of(&response).map_err(|fault| fault.message),
    });
    list_usage(admin, id, usage, out)
}

fn configs_of(response: &DescribeConfigsResponse) -> Result<BTreeMap<String, String>, Exception> {
    let mut all = BTreeMap::new();
    for result in &response.results {
        Exception::check(result.error_code, result.error_message.as_ref())?;
        let entries = result.configs.iter();
        all.extend(set_configs(entries.map(|it| (it.name.as_str(), it.value.as_deref(), it.config_source))));
    }
    Ok(all)
}

fn list_usage(admin: &mut Admin, id: i32, usage: &mut Usage, out: &mut dyn Output) -> Result<(), Exception> {
    let mut refuse = |what: &str, reason: String| usage.unlisted.push(format!("{what} of broker {id} ({reason})"));
    let name = |code: i16| ErrorCode::from_code(code).map_or_else(|| code.to_string(), |code| code.name().to_owned());
    match ask_once(admin, id, &ListTransactionsRequest::default(), out)? {
        Ok(response) if response.error_code != 0 => refuse("transactions", name(response.error_code)),
        Ok(response) => {
            let ids = response.transaction_states.iter().map(|it| it.transactional_id.to_string());
            usage.transactional_ids.extend(ids);
        }
        Err(fault) => refuse("transactions", fault.to_string()),
    }
    let mut refuse = |what: &str, reason: String| usage.unlisted.push(format!("{what} of broker {id} ({reason})"));
    match ask_once(admin, id, &ListGroupsRequest::default(), out)? {
        Ok(response) if response.error_code != 0 => refuse("groups", name(response.error_code)),
        Ok(response) => response.groups.iter().for_each(|group| usage.add_group(&group.group_id, &group.group_type)),
        Err(fault) => refuse("groups", fault.to_string()),
    }
    Ok(())
}

/// How many quotas of clients there are. A user who may not ask learns nothing of them.
fn quotas(admin: &mut Admin, out: &mut dyn Output) -> Result<usize, Exception> {
    let request = DescribeClientQuotasRequest::default();
    let response = admin.call("describeClientQuotas", out, |client| client.send(&request))?;
    Ok(response.entries.map_or(0, |entries| entries.len()))
}

fn quorum(admin: &mut Admin, out: &mut dyn Output) -> Result<QuorumState, Exception> {
    let partition = AskedPartition { partition_index: 0 };
    let topic = AskedTopic { topic_name: CLUSTER_METADATA_TOPIC.into(), partitions: vec![partition] };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let is_misplaced = |response: &DescribeQuorumResponse| {
        let of_partitions = response.topics.iter().flat_map(|topic| &topic.partitions).map(|it| it.error_code);
        let mut codes = std::iter::once(response.error_code).chain(of_partitions);
        codes.any(|code| ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable))
    };
    let none = QuorumState { leader: -1, ..QuorumState::default() };
    let response = match admin.ask("describeMetadataQuorum", Target::Controller, &request, is_misplaced, out) {
        // The brokers answer, so it is the controllers who don't.
        Err(fault) if fault.class.ends_with("TimeoutException") => return Ok(none),
        outcome => outcome?,
    };
    Exception::check(response.error_code, response.error_message.as_ref())?;
    let Some(partition) = response.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(none) };
    Exception::check(partition.error_code, partition.error_message.as_ref())?;
    Ok(QuorumState::from_partition(partition))
}

fn reassigned(admin: &mut Admin, out: &mut dyn Output) -> Result<Vec<String>, Exception> {
    let request = ListPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics: None };
    let response = admin.ask(
        "listPartitionReassignments",
        Target::Controller,
        &request,
        |answer| answer.error_code == ErrorCode::NotController.code(),
        out,
    )?;
    Exception::check(response.error_code, response.error_message.as_ref())?;
    let partitions = response.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| format!("{}-{}", topic.name, partition.partition_index))
    });
    Ok(partitions.collect())
}

fn topics(admin: &mut Admin, out: &mut dyn Output) -> Result<Vec<TopicState>, Exception> {
    let metadata = admin.call("listTopics", out, |client| client.refresh_metadata(None, false).cloned())?;
    let mut topics: Vec<TopicState> = metadata.topics.values().map(topic_state).collect();
    for some in topics.chunks_mut(TOPICS_AT_ONCE) {
        let resource = |topic: &TopicState| DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: StrBytes::copy_from(&topic.name),
            configuration_keys: Some(TOPIC_KEYS.iter().map(|key| (*key).into()).collect()),
        };
        let request = DescribeConfigsRequest {
            resources: some.iter().map(resource).collect(),
            ..DescribeConfigsRequest::default()
        };
        let response = admin.call("describeConfigs", out, |client| client.send(&request))?;
        for result in &response.results {
            // Deleted in the meantime.
            if result.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                continue;
            }
            Exception::check(result.error_code, result.error_message.as_ref())?;
            let Some(topic) = some.iter_mut().find(|topic| topic.name == result.resource_name.as_str()) else {
                continue;
            };
            for config in &result.configs {
                set_config(topic, &config.name, config.value.as_deref().unwrap_or_default());
            }
        }
    }
    Ok(topics)
}

fn topic_state(topic: &ringlog_client::Topic) -> TopicState {
    let partitions = topic.partitions.iter().map(|partition| PartitionState {
        index: partition.index,
        leader: partition.leader,
        replicas: partition.replicas.clone(),
        in_sync: partition.in_sync_replicas.clone(),
    });
    TopicState {
        name: topic.name.clone(),
        is_internal: topic.is_internal || topic.name == SHARE_STATE_TOPIC,
        min_in_sync: 1,
        partitions: partitions.collect(),
        ..TopicState::default()
    }
}

fn set_config(topic: &mut TopicState, key: &str, value: &str) {
    match key {
        "cleanup.policy" => topic.is_compacted = value.split(',').any(|policy| policy.trim() == "compact"),
        "min.insync.replicas" => topic.min_in_sync = value.parse().unwrap_or(1),
        "remote.storage.enable" => topic.is_remote = value == "true",
        _ => {}
    }
}
