//! Shapes of the messages: one topic, one partition, taken apart and put together.

use ringlog_protocol::messages::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchRequest, FetchResponse, FetchSnapshotRequest,
    FetchSnapshotResponse, VoteRequest, begin_quorum_epoch_request, begin_quorum_epoch_response,
    end_quorum_epoch_request, end_quorum_epoch_response, fetch_request, fetch_response, fetch_snapshot_request,
    fetch_snapshot_response, vote_request, vote_response,
};
use ringlog_protocol::messages::{BeginQuorumEpochResponse, EndQuorumEpochResponse, VoteResponse};
use ringlog_protocol::{Records, StrBytes};
use ringlog_types::{CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, ErrorCode, LeaderEpoch, NodeId};

use super::state::KnownLeader;
use crate::config::RaftConfig;
use crate::effects::Destination;
use crate::voters::{Endpoint, Endpoints, ReplicaKey};

/// From this version on a Fetch names topics by id.
const FETCH_TOPIC_ID_VERSION: i16 = 13;

pub(super) fn topic() -> StrBytes {
    StrBytes::from_static(CLUSTER_METADATA_TOPIC)
}

fn cluster(config: &RaftConfig) -> Option<StrBytes> {
    Some(StrBytes::copy_from(&config.cluster_id))
}

/// The one element of a slice that must have one.
fn only<T>(items: &[T]) -> Option<&T> {
    match items {
        [item] => Some(item),
        _ => None,
    }
}

/// Epoch and leader as answers give them.
#[derive(Debug, Clone)]
pub(super) struct LeaderInfo {
    pub epoch: LeaderEpoch,
    pub leader_id: Option<NodeId>,
    /// The leader's endpoint on the listener that the request came in by.
    pub endpoint: Option<Endpoint>,
}

impl LeaderInfo {
    pub fn id(&self) -> i32 {
        self.leader_id.unwrap_or(NodeId::NONE).0
    }

    /// What an answer says, if it can be true at all.
    pub fn read(leader_id: i32, epoch: i32, endpoint: Option<Endpoint>) -> Option<LeaderInfo> {
        if epoch < 0 || leader_id < -1 {
            return None;
        }
        let leader_id = (leader_id >= 0).then_some(NodeId(leader_id));
        Some(LeaderInfo { epoch: LeaderEpoch(epoch), leader_id, endpoint })
    }
}

// ---- Vote ----

pub(super) fn vote_partition(request: &VoteRequest) -> Option<&vote_request::PartitionData> {
    let topic = only(&request.topics).filter(|topic| &*topic.topic_name == CLUSTER_METADATA_TOPIC)?;
    only(&topic.partitions).filter(|partition| partition.partition_index == 0)
}

pub(super) fn vote_request(
    config: &RaftConfig,
    epoch: LeaderEpoch,
    voter: ReplicaKey,
    last: (LeaderEpoch, i64),
    pre_vote: bool,
) -> VoteRequest {
    VoteRequest {
        cluster_id: cluster(config),
        voter_id: voter.id.0,
        topics: vec![vote_request::TopicData {
            topic_name: topic(),
            partitions: vec![vote_request::PartitionData {
                partition_index: 0,
                replica_epoch: epoch.0,
                replica_id: config.node_id.0,
                replica_directory_id: config.directory_id,
                voter_directory_id: voter.wire_directory_id(),
                last_offset_epoch: last.0.0,
                last_offset: last.1,
                pre_vote,
            }],
        }],
    }
}

pub(super) fn vote_failure(error: ErrorCode) -> VoteResponse {
    VoteResponse { error_code: error.code(), ..VoteResponse::default() }
}

pub(super) fn vote_response(leader: &LeaderInfo, error: ErrorCode, vote_granted: bool) -> VoteResponse {
    let endpoint = |e: &Endpoint| vote_response::NodeEndpoint {
        node_id: leader.id(),
        host: StrBytes::copy_from(&e.host),
        port: e.port,
    };
    VoteResponse {
        error_code: 0,
        topics: vec![vote_response::TopicData {
            topic_name: topic(),
            partitions: vec![vote_response::PartitionData {
                partition_index: 0,
                error_code: error.code(),
                leader_id: leader.id(),
                leader_epoch: leader.epoch.0,
                vote_granted,
            }],
        }],
        node_endpoints: leader.endpoint.iter().map(endpoint).collect(),
    }
}

/// Error, leader, granted.
pub(super) fn read_vote_response(response: &VoteResponse) -> Option<(i16, LeaderInfo, bool)> {
    let topic = only(&response.topics).filter(|topic| &*topic.topic_name == CLUSTER_METADATA_TOPIC)?;
    let partition = only(&topic.partitions).filter(|partition| partition.partition_index == 0)?;
    let named = response.node_endpoints.iter().find(|e| e.node_id == partition.leader_id);
    let endpoint = named.map(|e| Endpoint { host: e.host.as_str().to_owned(), port: e.port });
    let leader = LeaderInfo::read(partition.leader_id, partition.leader_epoch, endpoint)?;
    Some((partition.error_code, leader, partition.vote_granted))
}

// ---- BeginQuorumEpoch, EndQuorumEpoch ----

pub(super) fn begin_partition(request: &BeginQuorumEpochRequest) -> Option<&begin_quorum_epoch_request::PartitionData> {
    let topic = only(&request.topics).filter(|topic| &*topic.topic_name == CLUSTER_METADATA_TOPIC)?;
    only(&topic.partitions).filter(|partition| partition.partition_index == 0)
}

pub(super) fn begin_endpoints(request: &BeginQuorumEpochRequest) -> Endpoints {
    let endpoint = |e: &begin_quorum_epoch_request::LeaderEndpoint| {
        (e.name.as_str().to_owned(), Endpoint { host: e.host.as_str().to_owned(), port: e.port })
    };
    request.leader_endpoints.iter().map(endpoint).collect()
}

pub(super) fn begin_request(config: &RaftConfig, epoch: LeaderEpoch, voter: ReplicaKey) -> BeginQuorumEpochRequest {
    BeginQuorumEpochRequest {
        cluster_id: cluster(config),
        voter_id: voter.id.0,
        topics: vec![begin_quorum_epoch_request::TopicData {
            topic_name: topic(),
            partitions: vec![begin_quorum_epoch_request::PartitionData {
                partition_index: 0,
                voter_directory_id: voter.wire_directory_id(),
                leader_id: config.node_id.0,
                leader_epoch: epoch.0,
            }],
        }],
        leader_endpoints: config
            .endpoints
            .iter()
            .map(|(name, e)| begin_quorum_epoch_request::LeaderEndpoint {
                name: StrBytes::copy_from(name),
                host: StrBytes::copy_from(&e.host),
                port: e.port,
            })
            .collect(),
    }
}

pub(super) fn begin_failure(error: ErrorCode) -> BeginQuorumEpochResponse {
    BeginQuorumEpochResponse { error_code: error.code(), ..BeginQuorumEpochResponse::default() }
}

pub(super) fn begin_response(leader: &LeaderInfo, error: ErrorCode) -> BeginQuorumEpochResponse {
    let endpoint = |e: &Endpoint| begin_quorum_epoch_response::NodeEndpoint {
        node_id: leader.id(),
        host: StrBytes::copy_from(&e.host),
        port: e.port,
    };
    BeginQuorumEpochResponse {
        error_code: 0,
        topics: vec![begin_quorum_epoch_response::TopicData {
            topic_name: topic(),
            partitions: vec![begin_quorum_epoch_response::PartitionData {
                partition_index: 0,
                error_code: error.code(),
                leader_id: leader.id(),
                leader_epoch: leader.epoch.0,
            }],
        }],
        node_endpoints: leader.endpoint.iter().map(endpoint).collect(),
    }
}

pub(super) fn read_begin_response(response: &BeginQuorumEpochResponse) -> Option<(i16, LeaderInfo)> {
    let partition = only(&only(&response.topics)?.partitions)?;
    let named = response.node_endpoints.iter().find(|e| e.node_id == partition.leader_id);
    let endpoint = named.map(|e| Endpoint { host: e.host.as_str().to_owned(), port: e.port });
    Some((partition.error_code, LeaderInfo::read(partition.leader_id, partition.leader_epoch, endpoint)?))
}

pub(super) fn end_partition(request: &EndQuorumEpochRequest) -> Option<&end_quorum_epoch_request::PartitionData> {
    let topic = only(&request.topics).filter(|topic| &*topic.topic_name == CLUSTER_METADATA_TOPIC)?;
    only(&topic.partitions).filter(|partition| partition.partition_index == 0)
}

pub(super) fn end_request(config: &RaftConfig, epoch: LeaderEpoch, preferred: &[ReplicaKey]) -> EndQuorumEpochRequest {
    EndQuorumEpochRequest {
        cluster_id: cluster(config),
        topics: vec![end_quorum_epoch_request::TopicData {
            topic_name: topic(),
            partitions: vec![end_quorum_epoch_request::PartitionData {
                partition_index: 0,
                leader_id: config.node_id.0,
                leader_epoch: epoch.0,
                preferred_candidates: preferred
                    .iter()
                    .map(|key| end_quorum_epoch_request::ReplicaInfo {
                        candidate_id: key.id.0,
                        candidate_directory_id: key.wire_directory_id(),
                    })
                    .collect(),
                preferred_successors: preferred.iter().map(|key| key.id.0).collect(),
            }],
        }],
        leader_endpoints: Vec::new(),
    }
}

pub(super) fn end_failure(error: ErrorCode) -> EndQuorumEpochResponse {
    EndQuorumEpochResponse { error_code: error.code(), ..EndQuorumEpochResponse::default() }
}

pub(super) fn end_response(leader: &LeaderInfo, error: ErrorCode) -> EndQuorumEpochResponse {
    let endpoint = |e: &Endpoint| end_quorum_epoch_response::NodeEndpoint {
        node_id: leader.id(),
        host: StrBytes::copy_from(&e.host),
        port: e.port,
    };
    EndQuorumEpochResponse {
        error_code: 0,
        topics: vec![end_quorum_epoch_response::TopicData {
            topic_name: topic(),
            partitions: vec![end_quorum_epoch_response::PartitionData {
                partition_index: 0,
                error_code: error.code(),
                leader_id: leader.id(),
                leader_epoch: leader.epoch.0,
            }],
        }],
        node_endpoints: leader.endpoint.iter().map(endpoint).collect(),
    }
}

pub(super) fn read_end_response(response: &EndQuorumEpochResponse) -> Option<(i16, LeaderInfo)> {
    let partition = only(&only(&response.topics)?.partitions)?;
    let named = response.node_endpoints.iter().find(|e| e.node_id == partition.leader_id);
    let endpoint = named.map(|e| Endpoint { host: e.host.as_str().to_owned(), port: e.port });
    Some((partition.error_code, LeaderInfo::read(partition.leader_id, partition.leader_epoch, endpoint)?))
}

// ---- Fetch ----

pub(super) fn fetch_partition(request: &FetchRequest, version: i16) -> Option<&fetch_request::FetchPartition> {
    let topic = only(&request.topics)?;
    let is_ours = if version >= FETCH_TOPIC_ID_VERSION {
        topic.topic_id == CLUSTER_METADATA_TOPIC_ID
    } else {
        &*topic.topic == CLUSTER_METADATA_TOPIC
    };
    only(&topic.partitions).filter(|partition| is_ours && partition.partition == 0)
}

/// Who fetches, in either place that versions put it.
pub(super) fn fetch_replica_id(request: &FetchRequest, version: i16) -> NodeId {
    NodeId(if version >= 15 { request.replica_state.replica_id } else { request.replica_id })
}

pub(super) struct FetchPosition {
    pub epoch: LeaderEpoch,
    pub offset: i64,
    pub last_fetched_epoch: LeaderEpoch,
    pub high_watermark: i64,
}

pub(super) fn fetch_request(config: &RaftConfig, position: &FetchPosition) -> FetchRequest {
    FetchRequest {
        cluster_id: cluster(config),
        // Only where version 15 put it; older ones know no voters by Fetch that we would speak to.
        replica_state: fetch_request::ReplicaState { replica_id: config.node_id.0, replica_epoch: -1 },
        max_wait_ms: config.fetch_max_wait_ms as i32,
        min_bytes: 0,
        max_bytes: config.fetch_max_bytes as i32,
        session_id: 0,
        session_epoch: -1,
        topics: vec![fetch_request::FetchTopic {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            topic: topic(),
            partitions: vec![fetch_request::FetchPartition {
                partition: 0,
                current_leader_epoch: position.epoch.0,
                fetch_offset: position.offset,
                last_fetched_epoch: position.last_fetched_epoch.0,
                log_start_offset: -1,
                partition_max_bytes: 0,
                replica_directory_id: config.directory_id,
                high_watermark: position.high_watermark,
            }],
        }],
        ..FetchRequest::default()
    }
}

pub(super) fn fetch_failure(error: ErrorCode) -> FetchResponse {
    FetchResponse { error_code: error.code(), ..FetchResponse::default() }
}

/// An answer with `partition`, whose leader fields are filled in here.
pub(super) fn fetch_response(leader: &LeaderInfo, mut partition: fetch_response::PartitionData) -> FetchResponse {
    partition.current_leader =
        fetch_response::LeaderIdAndEpoch { leader_id: leader.id(), leader_epoch: leader.epoch.0 };
    let endpoint = |e: &Endpoint| fetch_response::NodeEndpoint {
        node_id: leader.id(),
        host: StrBytes::copy_from(&e.host),
        port: i32::from(e.port),
        rack: None,
    };
    FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            topic: topic(),
            partitions: vec![partition],
        }],
        node_endpoints: leader.endpoint.iter().map(endpoint).collect(),
        ..FetchResponse::default()
    }
}

/// A partition's answer without records.
pub(super) fn fetch_data(error: ErrorCode, high_watermark: i64, log_start: i64) -> fetch_response::PartitionData {
    fetch_response::PartitionData {
        partition_index: 0,
        error_code: error.code(),
        high_watermark,
        log_start_offset: log_start,
        records: Some(Records::default()),
        ..fetch_response::PartitionData::default()
    }
}

pub(super) fn read_fetch_response(response: &FetchResponse) -> Option<(&fetch_response::PartitionData, LeaderInfo)> {
    let topic = only(&response.responses)?;
    let is_ours = topic.topic_id == CLUSTER_METADATA_TOPIC_ID || &*topic.topic == CLUSTER_METADATA_TOPIC;
    let partition = only(&topic.partitions).filter(|partition| is_ours && partition.partition_index == 0)?;
    let leader = &partition.current_leader;
    let named = response.node_endpoints.iter().find(|e| e.node_id == leader.leader_id);
    let endpoint =
        named.and_then(|e| Some(Endpoint { host: e.host.as_str().to_owned(), port: u16::try_from(e.port).ok()? }));
    Some((partition, LeaderInfo::read(leader.leader_id, leader.leader_epoch, endpoint)?))
}

// ---- FetchSnapshot ----

pub(super) fn snapshot_partition(request: &FetchSnapshotRequest) -> Option<&fetch_snapshot_request::PartitionSnapshot> {
    let topic = only(&request.topics).filter(|topic| &*topic.name == CLUSTER_METADATA_TOPIC)?;
    only(&topic.partitions).filter(|partition| partition.partition == 0)
}

pub(super) fn snapshot_request(
    config: &RaftConfig,
    epoch: LeaderEpoch,
    id: crate::SnapshotId,
    position: u64,
) -> FetchSnapshotRequest {
    FetchSnapshotRequest {
        cluster_id: cluster(config),
        replica_id: config.node_id.0,
        max_bytes: config.fetch_snapshot_max_bytes as i32,
        topics: vec![fetch_snapshot_request::TopicSnapshot {
            name: topic(),
            partitions: vec![fetch_snapshot_request::PartitionSnapshot {
                partition: 0,
                current_leader_epoch: epoch.0,
                snapshot_id: fetch_snapshot_request::SnapshotId { end_offset: id.end_offset.0, epoch: id.epoch.0 },
                position: position as i64,
                replica_directory_id: config.directory_id,
            }],
        }],
    }
}

pub(super) fn snapshot_failure(error: ErrorCode) -> FetchSnapshotResponse {
    FetchSnapshotResponse { error_code: error.code(), ..FetchSnapshotResponse::default() }
}

pub(super) fn snapshot_response(
    leader: &LeaderInfo,
    mut partition: fetch_snapshot_response::PartitionSnapshot,
) -> FetchSnapshotResponse {
    partition.current_leader =
        fetch_snapshot_response::LeaderIdAndEpoch { leader_id: leader.id(), leader_epoch: leader.epoch.0 };
    let endpoint = |e: &Endpoint| fetch_snapshot_response::NodeEndpoint {
        node_id: leader.id(),
        host: StrBytes::copy_from(&e.host),
        port: e.port,
    };
    FetchSnapshotResponse {
        topics: vec![fetch_snapshot_response::TopicSnapshot { name: topic(), partitions: vec![partition] }],
        node_endpoints: leader.endpoint.iter().map(endpoint).collect(),
        ..FetchSnapshotResponse::default()
    }
}

pub(super) fn read_snapshot_response(
    response: &FetchSnapshotResponse,
) -> Option<(&fetch_snapshot_response::PartitionSnapshot, LeaderInfo)> {
    let topic = only(&response.topics).filter(|topic| &*topic.name == CLUSTER_METADATA_TOPIC)?;
    let partition = only(&topic.partitions).filter(|partition| partition.index == 0)?;
    let leader = &partition.current_leader;
    let named = response.node_endpoints.iter().find(|e| e.node_id == leader.leader_id);
    let endpoint = named.map(|e| Endpoint { host: e.host.as_str().to_owned(), port: e.port });
    Some((partition, LeaderInfo::read(leader.leader_id, leader.leader_epoch, endpoint)?))
}

/// Where requests to the leader go.
pub(super) fn leader_destination(leader: &KnownLeader, listener: &str) -> Option<Destination> {
    Some(Destination { node_id: Some(leader.id), endpoint: leader.endpoints.get(listener)?.clone() })
}
