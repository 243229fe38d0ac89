//! AssignReplicasToDirs: a broker says in which log directory each replica lies (KIP-858).

use std::collections::BTreeSet;

use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
use ringlog_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use ringlog_protocol::metadata_records::{MetadataRecord, PartitionChangeRecord, RecordAndVersion};
use ringlog_types::{ErrorCode, NodeId, TopicIdPartition, Uuid};

use super::context::{Operation, RequestContext, Resource, record};
use super::leadership::LeadershipChange;
use super::outcome::Outcome;
use super::plan::{Asked, Plan, Portion};
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
        let (request, went_offline, directories) = (request.clone(), BTreeSet::new(), Vec::new());
        Outcome::asked(Plan::asked(Assignments { request, next: (0, 0, 0), went_offline, directories }))
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

/// AssignReplicasToDirs, as far as it is decided.
#[derive(Debug)]
struct Assignments {
    request: AssignReplicasToDirsRequest,
    /// The places of directory, topic and partition in the request that are to be decided next.
    next: (usize, usize, usize),
    /// Assigned to directories that are not online.
    went_offline: BTreeSet<TopicIdPartition>,
    directories: Vec<DirectoryData>,
}

impl Assignments {
    /// Decides about at most `limit` partitions of one topic in one directory. How many there were; `None`: no more.
    fn decide_first(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> Option<usize> {
        let broker_id = NodeId(self.request.broker_id);
        let directory = self.request.directories.get(self.next.0)?;
        if self.next.1 == 0 && self.next.2 == 0 {
            self.directories.push(DirectoryData { id: directory.id, topics: Vec::new() });
        }
        let answer = self.directories.last_mut()?;
        let Some(topic) = directory.topics.get(self.next.1) else {
            self.next = (self.next.0 + 1, 0, 0);
            return Some(0);
        };
        if self.next.2 == 0 {
            answer.topics.push(TopicData { topic_id: topic.topic_id, partitions: Vec::new() });
        }
        let mut count = 0;
        for partition in topic.partitions.iter().skip(self.next.2).take(limit) {
            let id = partition_id(topic.topic_id, partition.partition_index);
            let result = state.assign(broker_id, id, directory.id);
            let error_code = result.as_ref().err().map_or(0, |error| error.code());
            if let Ok(assignment) = result {
                self.went_offline.extend((!assignment.is_online).then_some(id));
                portion.records.extend(assignment.record);
            }
            if let Some(topic) = answer.topics.last_mut() {
                topic.partitions.push(PartitionData { partition_index: partition.partition_index, error_code });
            }
            count += 1;
        }
        self.next.2 += count;
        if self.next.2 == topic.partitions.len() {
            self.next = (self.next.0, self.next.1 + 1, 0);
        }
        Some(count)
    }
}

impl Asked for Assignments {
    fn decide(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(decided) = self.decide_first(state, limit - count, portion)
        {
            count += decided.max(1);
        }
        count
    }

    /// First all assignments, then what those to directories that are not online mean.
    fn end(self: Box<Self>, plan: &mut Plan) -> ResponseBody {
        let change = LeadershipChange { remove: Some(NodeId(self.request.broker_id)), ..Default::default() };
        plan.partitions(self.went_offline, change);
        AssignReplicasToDirsResponse { directories: self.directories, ..Default::default() }.into()
    }
}
