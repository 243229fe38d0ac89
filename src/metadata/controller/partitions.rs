//! CreatePartitions.

use std::collections::BTreeSet;

use ringlog_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ringlog_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ringlog_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_types::{ErrorCode, NodeId, PartitionIndex};

use super::MAX_RECORDS_PER_OPERATION;
use super::context::{Operation, RequestContext, Resource, repeated};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::state::ActiveController;

impl ActiveController {
    pub(crate) fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
        context: &RequestContext<'_>,
    ) -> Outcome {
        let mut names: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
        let duplicates = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut records = Vec::new();
        let mut results = Vec::new();
        for topic in &request.topics {
            let is_duplicate = duplicates.contains(topic.name.as_str());
            if is_duplicate && !names.remove(topic.name.as_str()) {
                continue;
            }
            let may_alter = context.authorizer.allows(Operation::Alter, Resource::Topic(&topic.name));
            let result = if is_duplicate {
                Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
            } else if may_alter {
                self.add_partitions(topic, &mut records)
            } else {
                Err(ErrorCode::TopicAuthorizationFailed.into())
            };
            let (error_code, error_message) = code_and_text(result);
            let name = topic.name.clone();
            results.push(CreatePartitionsTopicResult { name, error_code, error_message });
        }
        if request.validate_only {
            records.clear();
        }
        Outcome::atomic(records, CreatePartitionsResponse { results, ..Default::default() })
    }

    fn add_partitions(
        &mut self,
        request: &CreatePartitionsTopic,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        let topic = self.image.topics.by_name(&request.name).ok_or(ErrorCode::UnknownTopicOrPartition)?.clone();
        let existing = topic.partitions.len();
        let wanted = usize::try_from(request.count).unwrap_or(0);
        if wanted == existing {
            let text = format!("Topic already has {existing} partition(s).");
            return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
        }
        if wanted < existing {
            let text = format!(
                "The topic {} currently has {existing} partition(s); {} would not be an increase.",
                topic.name, request.count
            );
            return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
        }
        let additional = wanted - existing;
        if let Some(assignments) = request.assignments.as_ref().filter(|it| it.len() != additional) {
            let text = format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
        }
        if records.len() + additional > MAX_RECORDS_PER_OPERATION {
            let text = "Excessively large number of partitions per request.";
            return Err(ApiError::new(ErrorCode::PolicyViolation, text));
        }
        let first = topic.partitions.get(&PartitionIndex(0));
        let replication_factor = first.map_or(1, |partition| partition.replicas().len());
        let placed = match &request.assignments {
            Some(assignments) => {
                let mut placed = Vec::with_capacity(additional);
                for (offset, assignment) in assignments.iter().enumerate() {
                    let replicas: Vec<NodeId> = assignment.broker_ids.iter().map(|id| NodeId(*id)).collect();
                    self.check_manual_assignment(&replicas, Some(replication_factor))?;
                    self.check_any_active(&replicas, (existing + offset) as i32)?;
                    placed.push(replicas);
                }
                placed
            }
            None => self.place_partitions(additional, replication_factor)?,
        };
        for (offset, replicas) in placed.iter().enumerate() {
            let index = PartitionIndex((existing + offset) as i32);
            records.push(self.new_partition_record(topic.id, index, replicas));
        }
        Ok(())
    }
}
