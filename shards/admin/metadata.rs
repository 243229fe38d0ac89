//! Metadata: brokers, topics and who leads their partitions. Missing topics are created on demand.

use std::rc::Rc;
use std::sync::Arc;

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::{PartitionImage, TopicImage};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use ringlog_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ringlog_types::{ErrorCode, NodeId, PartitionIndex, Uuid, is_internal_topic, validate_topic_name};
use rustc_hash::FxHashSet;

use super::shown::{
    CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, controller_stand_in, endpoint, node_ids,
    offline_replicas, unfenced_brokers,
};
use super::topic_creation::TopicCreation;
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// From this version on topics can be asked for by id.
const TOPIC_IDS_FROM_VERSION: i16 = 12;

/// What the answer is made from.
#[derive(Clone, Copy)]
struct View<'a> {
    image: &'a MetadataImage,
    cluster_id: &'a str,
    node_id: NodeId,
    listener: &'a str,
    version: i16,
    /// Whether missing topics may be created.
    may_create: bool,
}

/// Answers Metadata. Topics that are to be created on demand are asked for here and show up in a later answer.
pub fn handle(
    metadata: &MetadataView,
    creation: &Rc<TopicCreation>,
    context: &RequestContext,
    request: MetadataRequest,
) -> MetadataResponse {
    let view = View {
        image: &metadata.image(),
        cluster_id: &metadata.node().cluster_id,
        node_id: metadata.node().id,
        listener: &context.peer.listener.name,
        version: context.api_version,
        may_create: metadata.node().config.topics.auto_create_topics_enable,
    };
    let (response, missing) = answer(view, request);
    if !missing.is_empty() {
        creation.begin(missing);
    }
    response
}

/// The answer, and the topics that are to be created.
fn answer(view: View<'_>, request: MetadataRequest) -> (MetadataResponse, Vec<String>) {
    let version = view.version;
    let operations = |asked: bool, all: i32| if asked { all } else { OPERATIONS_NOT_ASKED };
    let mut response = MetadataResponse {
        brokers: brokers(view),
        cluster_id: Some(StrBytes::copy_from(view.cluster_id)),
        controller_id: controller_stand_in(view.image, view.node_id).0,
        cluster_authorized_operations: operations(request.include_cluster_authorized_operations, CLUSTER_OPERATIONS),
        ..Default::default()
    };
    if let Some(asked) = request.topics.as_ref().filter(|asked| asked.iter().any(|topic| is_malformed(topic, version)))
    {
        return (refusal(asked), Vec::new());
    }
    let mut missing = Vec::new();
    // Version 0 can't say null: there an empty list stands for all topics.
    let asked = request.topics.filter(|topics| version >= 1 || !topics.is_empty());
    response.topics = match asked {
        None => view.image.topics.iter().map(|topic| describe(view, topic)).collect(),
        Some(asked) if asked.iter().any(|topic| !topic.topic_id.is_zero()) => topics_by_id(view, &asked),
        Some(asked) => {
            let create = view.may_create && request.allow_auto_topic_creation;
            topics_by_name(view, asked, if create { Some(&mut missing) } else { None })
        }
    };
    if request.include_topic_authorized_operations {
        let unknown_id = ErrorCode::UnknownTopicId.code();
        for topic in response.topics.iter_mut().filter(|topic| topic.error_code != unknown_id) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    (response, missing)
}

/// What Kafka says to a request that it doesn't look at: nothing but errors.
fn refusal(asked: &[MetadataRequestTopic]) -> MetadataResponse {
    let topic = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    };
    MetadataResponse { topics: asked.iter().map(topic).collect(), ..Default::default() }
}

fn is_malformed(topic: &MetadataRequestTopic, version: i16) -> bool {
    version < TOPIC_IDS_FROM_VERSION && (topic.name.is_none() || !topic.topic_id.is_zero())
}

fn brokers(view: View<'_>) -> Vec<MetadataResponseBroker> {
    let usable = unfenced_brokers(view.image, view.listener);
    usable
        .map(|(broker, endpoint)| MetadataResponseBroker {
            node_id: broker.id.0,
            host: StrBytes::copy_from(&endpoint.host),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_deref().map(StrBytes::copy_from),
        })
        .collect()
}

/// As soon as one id is given, names don't count.
fn topics_by_id(view: View<'_>, asked: &[MetadataRequestTopic]) -> Vec<MetadataResponseTopic> {
    let mut seen = FxHashSet::default();
    let ids = asked.iter().map(|topic| topic.topic_id).filter(|id| !id.is_zero() && seen.insert(*id));
    let answer = |id: Uuid| match view.image.topics.by_id(id) {
        Some(found) => describe(view, found),
        None => failed(None, id, ErrorCode::UnknownTopicId),
    };
    ids.map(answer).collect()
}

/// Puts the names of topics that could be created into `missing`.
fn topics_by_name(
    view: View<'_>,
    asked: Vec<MetadataRequestTopic>,
    mut missing: Option<&mut Vec<String>>,
) -> Vec<MetadataResponseTopic> {
    let mut topics = Vec::with_capacity(asked.len());
    let mut seen = FxHashSet::default();
    for name in asked.into_iter().filter_map(|topic| topic.name) {
        if !seen.insert(name.clone()) {
            continue;
        }
        topics.push(match view.image.topics.by_name(&name) {
            Some(found) => describe(view, found),
            None if validate_topic_name(&name).is_err() => {
                failed(Some(name), Uuid::ZERO, ErrorCode::InvalidTopicException)
            }
            None => {
                if let Some(missing) = &mut missing {
                    missing.push(name.to_string());
                }
                failed(Some(name), Uuid::ZERO, ErrorCode::UnknownTopicOrPartition)
            }
        });
    }
    topics
}

fn failed(name: Option<StrBytes>, topic_id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: error.code(),
        is_internal: name.as_deref().is_some_and(is_internal_topic),
        name,
        topic_id,
        ..Default::default()
    }
}

fn describe(view: View<'_>, topic: &Arc<TopicImage>) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().map(|(index, partition)| describe_partition(view, index, partition));
    MetadataResponseTopic {
        name: Some(StrBytes::copy_from(&topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: partitions.collect(),
        ..Default::default()
    }
}

fn describe_partition(view: View<'_>, index: PartitionIndex, partition: &PartitionImage) -> MetadataResponsePartition {
    let View { image, listener, version, .. } = view;
    let mut answer = MetadataResponsePartition {
        partition_index: index.0,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: node_ids(partition.replicas()),
        isr_nodes: node_ids(partition.in_sync_replicas()),
        offline_replicas: offline_replicas(image, partition, listener),
        leader_id: -1,
        ..Default::default()
    };
    if version == 0 {
        // Clients of version 0 take nodes that they can't find for an error of their own.
        let reachable = |node: &i32| endpoint(image, (*node).into(), listener).is_some();
        answer.replica_nodes.retain(reachable);
        answer.isr_nodes.retain(reachable);
    }
    let error = if endpoint(image, partition.leader, listener).is_some() {
        answer.leader_id = partition.leader.0;
        let hidden = answer.replica_nodes.len() < partition.replicas().len()
            || answer.isr_nodes.len() < partition.in_sync_replicas().len();
        if hidden { ErrorCode::ReplicaNotAvailable } else { ErrorCode::None }
    } else if version >= 6 && image.cluster.broker(partition.leader).is_some() {
        ErrorCode::ListenerNotFound
    } else {
        ErrorCode::LeaderNotAvailable
    };
    answer.error_code = error.code();
    answer
}

#[cfg(test)]
mod tests;
