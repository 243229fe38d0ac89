//! AssignReplicasToDirs: a broker says in which log directory each replica lies (KIP-858).

use ringlog_protocol::messages::assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
use ringlog_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_types::{ErrorCode, NodeId, TopicIdPartition, Uuid};

use super::context::{Operation, RequestContext, Resource};
use super::outcome::Outcome;
use super::state::{ActiveController, partition_id};

impl ActiveController {
    pub(crate) fn assign_replicas_to_dirs(
        &self,
        request: &AssignReplicasToDirsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let refuse = |error: ErrorCode| {
            Outcome::answer(AssignReplicasToDirsResponse { error_code: error.code(), ..Default::default() })
        };
        if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            return refuse(ErrorCode::ClusterAuthorizationFailed);
        }
        if !self.metadata_version().is_directory_assignment_supported() {
            return refuse(ErrorCode::UnsupportedVersion);
        }
        if !self.is_current_epoch(request.broker_id, request.broker_epoch) {
            return refuse(ErrorCode::StaleBrokerEpoch);
        }
        let mut records = Vec::new();
        let mut directories = Vec::with_capacity(request.directories.len());
        for directory in &request.directories {
            let topics = directory.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let id = partition_id(topic.topic_id, partition.partition_index);
                    let result = self.assign(NodeId(request.broker_id), id, directory.id, &mut records);
                    let error_code = result.err().map_or(0, ErrorCode::code);
                    PartitionData { partition_index: partition.partition_index, error_code }
                });
                TopicData { topic_id: topic.topic_id, partitions: partitions.collect() }
            });
            let topics = topics.collect();
            directories.push(DirectoryData { id: directory.id, topics });
        }
        Outcome::split(records, AssignReplicasToDirsResponse { directories, ..Default::default() })
    }

    fn assign(
        &self,
        broker_id: NodeId,
        id: TopicIdPartition,
        directory: Uuid,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ErrorCode> {
        let topic = self.image.topics.by_id(id.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partitions.get(&id.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let current = partition.directory(broker_id).ok_or(ErrorCode::NotLeaderOrFollower)?;
        if current == directory {
            return Ok(());
        }
        let is_online = self.image.cluster.broker(broker_id).is_some_and(|it| it.has_online_directory(directory));
        let is_acceptable = |id: NodeId| self.is_active(id) && (is_online || id != broker_id);
        let change = self.change_partition(id, &is_acceptable, |builder| {
            builder.assigned_directories.push((broker_id, directory));
            if !is_online {
                builder.in_sync_replicas.retain(|id| *id != broker_id);
            }
        });
        records.extend(change);
        Ok(())
    }
}
