//! What a broker answers from what it knows: its versions, the metadata, offsets, ends of epochs.

use std::rc::Rc;

use ringlog_metadata::image::{MetadataImage, TopicImage};
use ringlog_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use ringlog_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use ringlog_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ringlog_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use ringlog_protocol::messages::{
    ApiVersionsResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use ringlog_protocol::{ApiKey, StrBytes};
use ringlog_types::{ErrorCode, NodeId, Uuid};

use super::disk::Key;
use super::fetch::unknown;
use super::peer::Peer;

/// Features as Kafka 4.3.1 names them when it registers.
pub const FEATURES: [(&str, i16, i16); 7] = [
    ("eligible.leader.replicas.version", 0, 1),
    ("group.version", 0, 1),
    ("kraft.version", 0, 1),
    ("metadata.version", 7, 30),
    ("share.version", 0, 1),
    ("streams.version", 0, 1),
    ("transaction.version", 0, 2),
];

/// What is served here, by itself or by the controller.
pub const SERVED: [ApiKey; 14] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::InitProducerId,
    ApiKey::DeleteRecords,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::AlterPartitionReassignments,
    ApiKey::IncrementalAlterConfigs,
];

/// What is served in which versions, and the cluster's features.
pub fn api_versions(peer: &Peer) -> ApiVersionsResponse {
    let version = |key: &ApiKey| ApiVersion {
        api_key: key.code(),
        // Versions 0 to 2 of Produce are named for the sake of old clients, and refused.
        min_version: if *key == ApiKey::Produce { 0 } else { key.min_version() },
        max_version: key.max_version(),
    };
    let image = peer.image.borrow();
    let supported = FEATURES.iter().map(|(name, min_version, max_version)| SupportedFeatureKey {
        name: StrBytes::from(*name),
        min_version: *min_version,
        max_version: *max_version,
    });
    let finalized =
        FEATURES.iter().map(|(name, ..)| (name, image.features.level(name))).filter(|(_, level)| *level > 0);
    let finalized = finalized.map(|(name, level)| FinalizedFeatureKey {
        name: StrBytes::from(*name),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(version).collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.provenance.last_contained_offset.0,
        finalized_features: finalized.collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Brokers that serve, and the topics that are asked for.
pub fn metadata(peer: &Peer, request: &MetadataRequest) -> MetadataResponse {
    let image = peer.image.borrow();
    let alive = image.cluster.brokers.values().filter(|broker| !broker.is_fenced);
    let brokers: Vec<MetadataResponseBroker> = alive
        .filter_map(|broker| {
            let endpoint = broker.endpoint("PLAINTEXT")?;
            Some(MetadataResponseBroker {
                node_id: broker.id.0,
                host: StrBytes::copy_from(&endpoint.host),
                port: endpoint.port.into(),
                rack: broker.rack.as_deref().map(StrBytes::copy_from),
            })
        })
        .collect();
    let controller_id = brokers.first().map_or(-1, |broker| broker.node_id);
    let topics = match &request.topics {
        None => {
            let mut all: Vec<_> = image.topics.iter().map(|topic| describe(&image, topic)).collect();
            all.sort_by(|one, other| one.name.as_deref().cmp(&other.name.as_deref()));
            all
        }
        Some(wanted) => {
            let one = |wanted: &ringlog_protocol::messages::metadata_request::MetadataRequestTopic| {
                let by_name = wanted.name.as_deref().and_then(|name| image.topics.by_name(name));
                match by_name.or_else(|| image.topics.by_id(wanted.topic_id)) {
                    Some(topic) => describe(&image, topic),
                    None => MetadataResponseTopic {
                        error_code: match wanted.name {
                            Some(_) => ErrorCode::UnknownTopicOrPartition.code(),
                            None => ErrorCode::UnknownTopicId.code(),
                        },
                        name: wanted.name.clone(),
                        topic_id: wanted.topic_id,
                        ..MetadataResponseTopic::default()
                    },
                }
            };
            wanted.iter().map(one).collect()
        }
    };
    MetadataResponse { brokers, cluster_id: Some(cluster_id()), controller_id, topics, ..MetadataResponse::default() }
}

fn describe(image: &MetadataImage, topic: &TopicImage) -> MetadataResponseTopic {
    let is_alive = |id: NodeId| image.cluster.broker(id).is_some_and(|broker| !broker.is_fenced);
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<i32>>();
    let partitions = topic.partitions.iter().map(|(index, it)| {
        let has_leader = is_alive(it.leader);
        MetadataResponsePartition {
            error_code: if has_leader { 0 } else { ErrorCode::LeaderNotAvailable.code() },
            partition_index: index.0,
            leader_id: if has_leader { it.leader.0 } else { -1 },
            leader_epoch: it.leader_epoch.0,
            replica_nodes: ids(it.replicas()),
            isr_nodes: ids(it.in_sync_replicas()),
            offline_replicas: it.replicas().iter().filter(|id| !is_alive(**id)).map(|id| id.0).collect(),
        }
    });
    MetadataResponseTopic {
        name: Some(StrBytes::copy_from(&topic.name)),
        topic_id: topic.id,
        is_internal: topic.name.starts_with("__"),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

/// The cluster's id.
pub fn cluster_id() -> StrBytes {
    StrBytes::from(crate::node::CLUSTER_ID)
}

/// What is said of a partition that isn't here, to who named its topic.
fn unknown_by_name(peer: &Peer, key: Key) -> ErrorCode {
    match unknown(peer, key) {
        ErrorCode::UnknownTopicId => ErrorCode::UnknownTopicOrPartition,
        error => error,
    }
}

fn key_of(peer: &Peer, topic: &str, partition: i32) -> Key {
    (peer.image.borrow().topics.id(topic).unwrap_or(Uuid::ZERO), partition)
}

/// Offsets by time.
pub fn list_offsets(peer: &Rc<Peer>, request: &ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let is_consumer = request.replica_id < 0;
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for it in &topic.partitions {
            let key = key_of(peer, &topic.name, it.partition_index);
            let found = match peer.replica(key) {
                Some(replica) => replica.borrow().list_offset(it.timestamp, it.current_leader_epoch, is_consumer),
                None => Err(unknown_by_name(peer, key)),
            };
            let (timestamp, offset, leader_epoch) = found.unwrap_or((-1, -1, -1));
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: it.partition_index,
                error_code: found.err().unwrap_or(ErrorCode::None).code(),
                timestamp,
                offset,
                leader_epoch: if version >= 4 { leader_epoch } else { -1 },
            });
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    response
}

/// Where epochs end. Followers of this version don't ask for it any more.
pub fn offset_for_leader_epoch(peer: &Peer, request: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for it in &topic.partitions {
            let key = key_of(peer, &topic.topic, it.partition);
            let found = peer.replica(key).ok_or_else(|| unknown_by_name(peer, key)).and_then(|replica| {
                let replica = replica.borrow();
                replica.check(it.current_leader_epoch, true)?;
                let log = replica.log.borrow();
                Ok(log.epochs.end_for(it.leader_epoch, log.end()).unwrap_or((-1, -1)))
            });
            let (leader_epoch, end_offset) = found.unwrap_or((-1, -1));
            let error_code = found.err().unwrap_or(ErrorCode::None).code();
            partitions.push(EpochEndOffset { error_code, partition: it.partition, leader_epoch, end_offset });
        }
        response.topics.push(OffsetForLeaderTopicResult { topic: topic.topic.clone(), partitions });
    }
    response
}
