//! AssignReplicasToDirs: a broker says in which log directory each replica lies (KIP-858).

use std::collections::BTreeSet;

use ringlog_protocol::messages::assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
use ringlog_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use ringlog_protocol::metadata_records::{MetadataRecord, PartitionChangeRecord, RecordAndVersion};
use ringlog_types::{ErrorCode, NodeId, TopicIdPartition, Uuid};

use super::context::{Operation, RequestContext, Resource, record};
use super::leadership::LeadershipChange;
use super::outcome::Outcome;
use super::plan::Plan;
use super::state::{ActiveController, partition_id};
use crate::image::PartitionImage;

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
        let broker_id = NodeId(request.broker_id);
        let mut plan = Plan::default();
        let mut went_offline = BTreeSet::new();
        let mut directories = Vec::with_capacity(request.directories.len());
        for directory in &request.directories {
            let topics = directory.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let id = partition_id(topic.topic_id, partition.partition_index);
                    let result = self.assign(broker_id, id, directory.id);
                    let error_code = result.as_ref().err().map_or(0, |error| error.code());
                    if let Ok(assignment) = result {
                        went_offline.extend((!assignment.is_online).then_some(id));
                        assignment.record.into_iter().for_each(|record| plan.record(record));
                    }
                    PartitionData { partition_index: partition.partition_index, error_code }
                });
                TopicData { topic_id: topic.topic_id, partitions: partitions.collect() }
            });
            let topics = topics.collect();
            directories.push(DirectoryData { id: directory.id, topics });
        }
        // First all assignments, then what those to directories that are not online mean.
        let change = LeadershipChange { remove: Some(broker_id), ..Default::default() };
        plan.partitions(went_offline, change);
        Outcome::planned(plan, AssignReplicasToDirsResponse { directories, ..Default::default() })
    }

    /// The new directory of one replica. Also of one that lies there already, something may be due.
    fn assign(&self, broker_id: NodeId, id: TopicIdPartition, directory: Uuid) -> Result<Assignment, ErrorCode> {
        let topic = self.image.topics.by_id(id.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partitions.get(&id.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        partition.directory(broker_id).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let is_online = self.image.cluster.broker(broker_id).is_some_and(|it| it.has_online_directory(directory));
        let record = self.change_partition(id, &|id| self.is_active(id), |builder| {
            builder.assigned_directories.push((broker_id, directory));
        });
        // What follows from the directory's being offline is worked out from the same state, and must not contradict this.
        let decides_more = |it: &RecordAndVersion| match &it.record {
            MetadataRecord::PartitionChange(change) => {
                let lists = [&change.replicas, &change.isr, &change.eligible_leader_replicas];
                change.leader >= 0 || lists.into_iter().any(Option::is_some)
            }
            _ => false,
        };
        let record = match record {
            Some(record) if !is_online && decides_more(&record) => {
                self.assignment_alone(id, partition, broker_id, directory)
            }
            record => record,
        };
        Ok(Assignment { record, is_online })
    }

    fn assignment_alone(
        &self,
        id: TopicIdPartition,
        partition: &PartitionImage,
        broker_id: NodeId,
        directory: Uuid,
    ) -> Option<RecordAndVersion> {
        let mut directories = partition.directories().to_vec();
        let position = partition.replicas().iter().position(|replica| *replica == broker_id)?;
        let before = std::mem::replace(directories.get_mut(position)?, directory);
        let change = PartitionChangeRecord {
            partition_id: id.partition.0,
            topic_id: id.topic_id,
            directories: Some(directories),
            ..PartitionChangeRecord::default()
        };
        let version = self.metadata_version().partition_change_record_version();
        (before != directory).then(|| record(change.into(), version))
    }
}

/// A replica's move into another directory.
struct Assignment {
    record: Option<RecordAndVersion>,
    is_online: bool,
}
