//! ElectLeaders, and the periodic preferred and unclean elections.

use std::collections::BTreeMap;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ringlog_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_types::{ErrorCode, TopicIdPartition};

use super::context::{Operation, RequestContext, Resource};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::partition_change::Election;
use super::state::{ActiveController, partition_id};

/// How many partitions one periodic run changes at most.
pub(crate) const MAX_ELECTIONS_PER_RUN: usize = 1_000;

impl ActiveController {
    pub(crate) fn elect_leaders(&self, request: &ElectLeadersRequest, context: &RequestContext<'_>) -> Outcome {
        if !context.authorizer.allows(Operation::Alter, Resource::Cluster) {
            let error_code = ErrorCode::ClusterAuthorizationFailed.code();
            return Outcome::answer(ElectLeadersResponse { error_code, ..Default::default() });
        }
        if request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
            return Outcome::answer(ElectLeadersResponse::default());
        }
        let election = match request.election_type {
            0 => Some(Election::Preferred),
            1 => Some(Election::Unclean),
            _ => None,
        };
        let mut records = Vec::new();
        let mut results: Vec<ReplicaElectionResult> = Vec::new();
        match &request.topic_partitions {
            Some(topics) => {
                for topic in topics {
                    let partition_result = topic.partitions.iter().map(|index| {
                        let id = self.image.topics.id(&topic.topic).map(|id| partition_id(id, *index));
                        let result =
                            self.elect(election, request.election_type, &topic.topic, *index, id, &mut records);
                        partition_result(*index, result)
                    });
                    let partition_result = partition_result.collect();
                    results.push(ReplicaElectionResult { topic: topic.topic.clone(), partition_result });
                }
            }
            // An unknown type is told of what was named, and nothing was.
            None if election.is_none() => {}
            None => self.elect_all(election, request.election_type, &mut records, &mut results),
        }
        let error_code = if election.is_none() { ErrorCode::InvalidRequest.code() } else { 0 };
        let response = ElectLeadersResponse { error_code, replica_election_results: results, ..Default::default() };
        Outcome::split(records, response)
    }

    /// All partitions were asked for: every topic is answered, with the partitions where something was to be done.
    fn elect_all(
        &self,
        election: Option<Election>,
        election_type: i8,
        records: &mut Vec<RecordAndVersion>,
        results: &mut Vec<ReplicaElectionResult>,
    ) {
        for topic in self.image.topics.iter() {
            let mut of_topic = Vec::new();
            for index in topic.partitions.keys() {
                let id = TopicIdPartition { topic_id: topic.id, partition: index };
                let result = self.elect(election, election_type, &topic.name, index.0, Some(id), records);
                if result.as_ref().err().is_none_or(|error| error.code != ErrorCode::ElectionNotNeeded) {
                    of_topic.push(partition_result(index.0, result));
                }
            }
            let topic = StrBytes::copy_from(&topic.name);
            results.push(ReplicaElectionResult { topic, partition_result: of_topic });
        }
    }

    fn elect(
        &self,
        election: Option<Election>,
        election_type: i8,
        topic: &str,
        index: i32,
        id: Option<TopicIdPartition>,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<(), ApiError> {
        let Some(election) = election else {
            let text = format!("Unknown election type {election_type}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        };
        let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
        let id = id.ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
        let partition = self.image.topics.partition(id);
        let partition = partition.ok_or_else(|| unknown(format!("No such partition as {topic}-{index}")))?;
        let is_needed = match election {
            Election::Preferred => !partition.has_preferred_leader(),
            _ => !partition.has_leader(),
        };
        if !is_needed {
            return Err(ApiError::spelled(ErrorCode::ElectionNotNeeded));
        }
        let change = self.change_partition(id, &|id| self.is_active(id), |builder| builder.election = election);
        // Whatever is written counts, even that the present leader may not lead any more.
        let Some(change) = change else {
            return Err(ApiError::spelled(match election {
                Election::Preferred => ErrorCode::PreferredLeaderNotAvailable,
                _ => ErrorCode::EligibleLeadersNotAvailable,
            }));
        };
        records.push(change);
        Ok(())
    }

    /// A run of the preferred election task: records for at most [`MAX_ELECTIONS_PER_RUN`] partitions.
    pub(crate) fn elect_preferred(&self) -> Vec<RecordAndVersion> {
        let imbalanced = self.indexes.imbalanced.iter();
        let changes = imbalanced.filter_map(|id| {
            self.change_partition(*id, &|id| self.is_active(id), |it| it.election = Election::Preferred)
        });
        changes.take(MAX_ELECTIONS_PER_RUN).collect()
    }

    /// A run of the unclean election task: partitions without a leader whose topics allow it.
    pub(crate) fn elect_unclean(&self) -> Vec<RecordAndVersion> {
        let mut is_enabled = BTreeMap::new();
        let leaderless = self.indexes.leaderless.iter().filter(|id| {
            let enabled = is_enabled.entry(id.topic_id).or_insert_with(|| {
                let name = self.image.topics.name(id.topic_id);
                name.is_some_and(|name| self.is_unclean_election_enabled(name))
            });
            *enabled
        });
        let changes = leaderless.filter_map(|id| {
            self.change_partition(*id, &|id| self.is_active(id), |it| it.election = Election::Unclean)
        });
        changes.take(MAX_ELECTIONS_PER_RUN).collect()
    }
}

fn partition_result(index: i32, result: Result<(), ApiError>) -> PartitionResult {
    let (error_code, error_message) = code_and_text(result);
    PartitionResult { partition_id: index, error_code, error_message }
}
