//! DescribeQuorum (KIP-595, KIP-836, KIP-853).

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_response};
use ringlog_types::{CLUSTER_METADATA_TOPIC, ErrorCode, Now};

use super::fetch_server::Asker;
use super::leader::Progress;
use super::state::State;
use super::wire;
use super::{Raft, refusal};
use crate::effects::Effects;

impl Raft {
    pub(super) fn on_describe_request(
        &mut self,
        from: &Asker,
        request: &DescribeQuorumRequest,
        now: Now,
        fx: &mut Effects,
    ) {
        let response = self.answer_describe(request, now);
        self.reply(from.token, response, fx);
    }

    fn answer_describe(&self, request: &DescribeQuorumRequest, now: Now) -> DescribeQuorumResponse {
        let is_ours = matches!(&request.topics[..], [topic] if &*topic.topic_name == CLUSTER_METADATA_TOPIC
            && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0));
        if !is_ours {
            return unknown_partitions(request);
        }
        let partition = self.describe_partition(now);
        let nodes = if partition.error_code == 0 { self.describe_nodes() } else { Vec::new() };
        DescribeQuorumResponse {
            topics: vec![describe_quorum_response::TopicData {
                topic_name: wire::topic(),
                partitions: vec![partition],
            }],
            nodes,
            ..DescribeQuorumResponse::default()
        }
    }

    fn describe_partition(&self, now: Now) -> describe_quorum_response::PartitionData {
        let State::Leader(leader) = &self.state else {
            let error = ErrorCode::NotLeaderOrFollower;
            return describe_quorum_response::PartitionData {
                error_code: error.code(),
                error_message: Some(StrBytes::from_static(refusal::NOT_LEADER)),
                ..describe_quorum_response::PartitionData::default()
            };
        };
        let replica = |progress: &Progress| describe_quorum_response::ReplicaState {
            replica_id: progress.key.id.0,
            replica_directory_id: progress.key.wire_directory_id(),
            log_end_offset: progress.end_offset.map_or(-1, |offset| offset.0),
            last_fetch_timestamp: progress.last_fetch.map_or(-1, |at| at.wall.0),
            last_caught_up_timestamp: progress.last_caught_up.0,
        };
        let voter = |progress: &Progress| {
            let mut state = replica(progress);
            if progress.key.id == self.config.node_id {
                state.log_end_offset = self.log.end.0;
                state.last_fetch_timestamp = now.wall.0;
                state.last_caught_up_timestamp = now.wall.0;
            }
            state
        };
        describe_quorum_response::PartitionData {
            leader_id: self.config.node_id.0,
            leader_epoch: self.epoch.0,
            high_watermark: leader.high_watermark.map_or(-1, |offset| offset.0),
            current_voters: leader.voters.values().map(voter).collect(),
            observers: leader.observers.values().map(replica).collect(),
            ..describe_quorum_response::PartitionData::default()
        }
    }

    fn describe_nodes(&self) -> Vec<describe_quorum_response::Node> {
        let node = |voter: &crate::Voter| describe_quorum_response::Node {
            node_id: voter.key.id.0,
            listeners: voter
                .endpoints
                .iter()
                .map(|(name, endpoint)| describe_quorum_response::Listener {
                    name: StrBytes::copy_from(name),
                    host: StrBytes::copy_from(&endpoint.host),
                    port: endpoint.port,
                })
                .collect(),
        };
        self.voters().iter().map(node).collect()
    }
}

fn unknown_partitions(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let error_code = ErrorCode::UnknownTopicOrPartition.code();
    let topics = request.topics.iter().map(|topic| describe_quorum_response::TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| describe_quorum_response::PartitionData {
                partition_index: partition.partition_index,
                error_code,
                error_message: Some(StrBytes::from_static("This server does not host this topic-partition.")),
                ..describe_quorum_response::PartitionData::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() }
}
