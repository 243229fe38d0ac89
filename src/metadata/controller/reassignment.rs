//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455).

use ringlog_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ringlog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ringlog_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use ringlog_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, NodeId, PartitionIndex};

use super::MAX_RECORDS_PER_OPERATION;
use super::context::{Operation, RequestContext, Resource};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::plan::{Asked, Plan, Portion};
use super::state::{ActiveController, partition_id};
use super::{limits, responses};
use crate::image::PartitionImage;

impl ActiveController {
    pub(crate) fn alter_reassignments(
        &self,
        request: &AlterPartitionReassignmentsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        if !context.authorizer.allows(Operation::Alter, Resource::Cluster) {
            let error_code = ErrorCode::ClusterAuthorizationFailed.code();
            return Outcome::answer(AlterPartitionReassignmentsResponse {
                error_code,
                error_message: None,
                ..Default::default()
            });
        }
        // Kafka's answer to nothing is one with nothing said.
        if request.topics.is_empty() {
            return Outcome::answer(AlterPartitionReassignmentsResponse::default());
        }
        // Version 0 can't say it, and then the size may change.
        let may_resize = context.api_version < 1 || request.allow_replication_factor_change;
        Outcome::asked(Plan::asked(Reassignments {
            request: request.clone(),
            api_version: context.api_version,
            may_resize,
            next: (0, 0),
            records: Vec::new(),
            responses: Vec::new(),
            refusal: None,
        }))
    }

    fn reassign(
        &self,
        topic: &str,
        index: i32,
        target: Option<&[NodeId]>,
        may_resize: bool,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
        let found = self.image.topics.by_name(topic);
        let found = found.ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
        let partition = found.partitions.get(&PartitionIndex(index));
        let partition = partition.ok_or_else(|| unknown(format!("Unable to find partition {topic}:{index}.")))?;
        let id = partition_id(found.id, index);
        let Some(target) = target else {
            return self.cancel(topic, id, partition, records);
        };
        self.check_manual_assignment(target, None)?;
        if !may_resize {
            check_size(partition, target)?;
        }
        let sorted_difference = |from: &[NodeId], other: &[NodeId]| {
            let mut ids: Vec<NodeId> = from.iter().copied().filter(|id| !other.contains(id)).collect();
            ids.sort_unstable();
            ids
        };
        let removing = sorted_difference(partition.replicas(), target);
        let adding = sorted_difference(target, partition.replicas());
        let change = self.change_partition(id, &|id| self.is_active(id), |builder| {
            builder.replicas = target.iter().chain(&removing).copied().collect();
            // What a running reassignment adds or removes stays as it is where the new target adds or removes nobody.
            if !adding.is_empty() {
                builder.adding_replicas = adding;
            }
            if !removing.is_empty() {
                builder.removing_replicas = removing;
            }
        });
        records.extend(change);
        Ok(())
    }

    fn cancel(
        &self,
        topic: &str,
        id: ringlog_types::TopicIdPartition,
        partition: &PartitionImage,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        if !partition.is_reassigning() {
            return Err(ErrorCode::NoReassignmentInProgress.into());
        }
        let stays = |id: &NodeId| !partition.adding_replicas().contains(id);
        let replicas: Vec<NodeId> = partition.replicas().iter().copied().filter(stays).collect();
        let mut in_sync: Vec<NodeId> = partition.in_sync_replicas().iter().copied().filter(stays).collect();
        if in_sync.is_empty() {
            if !self.is_unclean_election_enabled(topic) {
                let text = format!(
                    "Unable to revert partition assignment for {topic}:{} because it would require an unclean leader \
                     election.",
                    id.partition
                );
                return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
            }
            in_sync.extend(replicas.first());
        }
        let change = self.change_partition(id, &|id| self.is_active(id), |builder| {
            builder.in_sync_replicas = in_sync;
            builder.replicas = replicas;
            builder.election = self.usual_election(topic);
            builder.removing_replicas.clear();
            builder.adding_replicas.clear();
        });
        records.extend(change);
        Ok(())
    }

    pub(crate) fn list_reassignments(
        &self,
        request: &ListPartitionReassignmentsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        if !context.authorizer.allows(Operation::Describe, Resource::Cluster) {
            let error_code = ErrorCode::ClusterAuthorizationFailed.code();
            return Outcome::answer(ListPartitionReassignmentsResponse {
                error_code,
                error_message: None,
                ..Default::default()
            });
        }
        let topics = match &request.topics {
            Some(asked) => self.asked_reassignments(asked),
            None => self.running_reassignments(),
        };
        Outcome::answer(ListPartitionReassignmentsResponse { topics, error_message: None, ..Default::default() })
    }

    fn running_reassignments(&self) -> Vec<OngoingTopicReassignment> {
        let mut topics: Vec<OngoingTopicReassignment> = Vec::new();
        let mut last = None;
        for id in &self.indexes.reassigning {
            let Some(topic) = self.image.topics.by_id(id.topic_id) else { continue };
            if last.replace(id.topic_id) != Some(id.topic_id) {
                let name = StrBytes::copy_from(&topic.name);
                topics.push(OngoingTopicReassignment { name, partitions: Vec::new() });
            }
            let running = topic.partitions.get(&id.partition).and_then(|partition| ongoing(id.partition, partition));
            if let Some(topic) = topics.last_mut() {
                topic.partitions.extend(running);
            }
        }
        topics
    }

    fn asked_reassignments(&self, asked: &[ListPartitionReassignmentsTopics]) -> Vec<OngoingTopicReassignment> {
        let mut topics = Vec::new();
        for asked in asked {
            let Some(topic) = self.image.topics.by_name(&asked.name) else { continue };
            let indexes = asked.partition_indexes.iter().map(|index| PartitionIndex(*index));
            let found: Vec<_> = indexes.filter_map(|index| ongoing(index, topic.partitions.get(&index)?)).collect();
            if !found.is_empty() {
                topics.push(OngoingTopicReassignment { name: asked.name.clone(), partitions: found });
            }
        }
        topics
    }
}

fn ongoing(index: PartitionIndex, partition: &PartitionImage) -> Option<OngoingPartitionReassignment> {
    let numbers = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    partition.is_reassigning().then(|| OngoingPartitionReassignment {
        partition_index: index.0,
        replicas: numbers(partition.replicas()),
        adding_replicas: numbers(partition.adding_replicas()),
        removing_replicas: numbers(partition.removing_replicas()),
    })
}

/// AlterPartitionReassignments, as far as it is decided. All of it stands in one batch, or nothing.
#[derive(Debug)]
struct Reassignments {
    request: AlterPartitionReassignmentsRequest,
    api_version: i16,
    may_resize: bool,
    /// The places of topic and partition in the request that are to be decided next.
    next: (usize, usize),
    records: Vec<RecordAndVersion>,
    responses: Vec<ReassignableTopicResponse>,
    refusal: Option<ApiError>,
}

impl Asked for Reassignments {
    fn decide(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> usize {
        let mut count = 0;
        // What can't stand in one batch needs no further thought.
        while count < limit
            && self.records.len() <= MAX_RECORDS_PER_OPERATION
            && let Some(topic) = self.request.topics.get(self.next.0)
        {
            if self.next.1 == 0 {
                self.responses.push(ReassignableTopicResponse { name: topic.name.clone(), ..Default::default() });
            }
            let asked = topic.partitions.iter().skip(self.next.1).take(limit - count);
            let results = asked.map(|asked| {
                let target: Option<Vec<NodeId>> =
                    asked.replicas.as_ref().map(|ids| ids.iter().map(|id| NodeId(*id)).collect());
                let index = asked.partition_index;
                let result = state.reassign(&topic.name, index, target.as_deref(), self.may_resize, &mut self.records);
                let (error_code, error_message) = code_and_text(result);
                ReassignablePartitionResponse { partition_index: index, error_code, error_message }
            });
            let results: Vec<_> = results.collect();
            count += results.len().max(1);
            self.next.1 += results.len();
            if self.next.1 == topic.partitions.len() {
                self.next = (self.next.0 + 1, 0);
            }
            if let Some(topic) = self.responses.last_mut() {
                topic.partitions.extend(results);
            }
        }
        let is_all = count < limit || self.records.len() > MAX_RECORDS_PER_OPERATION;
        if is_all {
            let records = std::mem::take(&mut self.records);
            match limits::check(records.iter(), true) {
                Ok(()) => *portion = Portion { records, is_atomic: true },
                Err(error) => self.refusal = Some(error),
            }
        }
        if is_all { count.min(limit - 1) } else { count }
    }

    fn end(self: Box<Self>, _plan: &mut Plan) -> ResponseBody {
        let refused = self.refusal.clone().and_then(|error| {
            let request = RequestBody::AlterPartitionReassignments(self.request.clone());
            responses::refusal(&request, error, self.api_version)
        });
        refused.unwrap_or_else(|| {
            let response = AlterPartitionReassignmentsResponse {
                allow_replication_factor_change: self.request.allow_replication_factor_change,
                responses: self.responses,
                error_message: None,
                ..Default::default()
            };
            response.into()
        })
    }
}

/// The size counts without the replicas about to be removed; those being added count.
fn check_size(partition: &PartitionImage, target: &[NodeId]) -> Result<(), ApiError> {
    let current = partition.replicas().iter().filter(|id| !partition.removing_replicas().contains(id)).count();
    if current == target.len() {
        return Ok(());
    }
    let text = format!("The replication factor is changed from {current} to {}", target.len());
    Err(ApiError::new(ErrorCode::InvalidReplicationFactor, text))
}
