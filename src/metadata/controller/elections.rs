//! ElectLeaders, and the periodic preferred and unclean elections.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use ringlog_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ringlog_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use ringlog_protocol::metadata_records::RecordAndVersion;
use ringlog_protocol::{ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, PartitionIndex, TopicIdPartition, Uuid};

use super::context::{Operation, RequestContext, Resource};
use super::error::{ApiError, code_and_text};
use super::outcome::Outcome;
use super::partition_change::Election;
use super::plan::{Asked, Plan, Portion};
use super::state::{ActiveController, partition_id};
use crate::image::TopicImage;

/// How many partitions one periodic run changes at most.
const MAX_ELECTIONS_PER_RUN: usize = 1_000;
/// And how many it looks at.
const MAX_PARTITIONS_PER_RUN: usize = 10_000;

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
        let left = match &request.topic_partitions {
            Some(topics) => Left::Named(topics.iter().map(|it| (it.topic.clone(), it.partitions.clone())).collect()),
            // An unknown type is told of what was named, and nothing was.
            None if election.is_none() => Left::Named(VecDeque::new()),
            None => Left::All(self.image.topics.iter().cloned().collect()),
        };
        let (election_type, next, results) = (request.election_type, 0, Vec::new());
        Outcome::asked(Plan::asked(Elections { election, election_type, left, next, results }))
    }

    fn elect(
        &self,
        (election, election_type): (Option<Election>, i8),
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

    /// A run of an election task over some of the partitions that it is for, beginning behind those of the run before.
    /// Whether there is more to do soon.
    pub(crate) fn run_elections(&mut self, election: Election) -> (Vec<RecordAndVersion>, bool) {
        let is_preferred = election == Election::Preferred;
        let (ids, cursor) = if is_preferred {
            (&self.indexes.imbalanced, self.preferred_cursor)
        } else {
            (&self.indexes.leaderless, self.unclean_cursor)
        };
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut is_enabled = BTreeMap::new();
        let mut may_elect = |topic_id: Uuid| {
            is_preferred
                || *is_enabled.entry(topic_id).or_insert_with(|| {
                    self.image.topics.name(topic_id).is_some_and(|name| self.is_unclean_election_enabled(name))
                })
        };
        let mut records = Vec::new();
        let mut last = None;
        for id in ids.range((from, Bound::Unbounded)).take(MAX_PARTITIONS_PER_RUN) {
            if may_elect(id.topic_id) {
                records.extend(self.change_partition(*id, &|id| self.is_active(id), |it| it.election = election));
            }
            last = Some(*id);
            if records.len() >= MAX_ELECTIONS_PER_RUN {
                break;
            }
        }
        let is_more = last.is_some_and(|last| ids.range((Bound::Excluded(last), Bound::Unbounded)).next().is_some());
        let cursor = last.filter(|_| is_more);
        *(if is_preferred { &mut self.preferred_cursor } else { &mut self.unclean_cursor }) = cursor;
        (records, is_more)
    }
}

/// ElectLeaders, as far as it is decided.
#[derive(Debug)]
struct Elections {
    election: Option<Election>,
    election_type: i8,
    left: Left,
    /// Of the first topic that is left, the partitions before this one are decided (their place in the request, where
    /// they are named).
    next: usize,
    results: Vec<ReplicaElectionResult>,
}

/// What is not decided yet.
#[derive(Debug)]
enum Left {
    /// These topics and partitions of the request.
    Named(VecDeque<(StrBytes, Vec<i32>)>),
    /// All partitions of these topics: every topic is answered, with the partitions where something was to be done.
    All(VecDeque<Arc<TopicImage>>),
}

/// What came of some partitions of a topic.
struct Decided {
    topic: StrBytes,
    results: Vec<PartitionResult>,
    /// How many partitions there were, with those of which nothing is answered.
    count: usize,
    is_last: bool,
}

impl Elections {
    /// Decides about at most `limit` partitions of the first topic that is left.
    fn decide_first(
        &mut self,
        state: &ActiveController,
        limit: usize,
        records: &mut Vec<RecordAndVersion>,
    ) -> Option<Decided> {
        let asked = (self.election, self.election_type);
        match &self.left {
            Left::Named(topics) => {
                let (topic, partitions) = topics.front()?;
                let id = state.image.topics.id(topic);
                let result = |index: &i32| {
                    let id = id.map(|id| partition_id(id, *index));
                    partition_result(*index, state.elect(asked, topic, *index, id, records))
                };
                let results: Vec<_> = partitions.iter().skip(self.next).take(limit).map(result).collect();
                let count = results.len();
                self.next += count;
                Some(Decided { topic: topic.clone(), results, count, is_last: self.next == partitions.len() })
            }
            Left::All(topics) => {
                let topic = topics.front()?;
                let (mut results, mut count) = (Vec::new(), 0);
                for (index, _) in topic.partitions.iter_from(PartitionIndex(self.next as i32)).take(limit) {
                    let id = TopicIdPartition { topic_id: topic.id, partition: index };
                    let result = state.elect(asked, &topic.name, index.0, Some(id), records);
                    if result.as_ref().err().is_none_or(|error| error.code != ErrorCode::ElectionNotNeeded) {
                        results.push(partition_result(index.0, result));
                    }
                    count += 1;
                    self.next = index.0 as usize + 1;
                }
                Some(Decided { topic: StrBytes::copy_from(&topic.name), results, count, is_last: count < limit })
            }
        }
    }
}

impl Asked for Elections {
    fn decide(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> usize {
        let mut count = 0;
        while count < limit {
            let is_begun = self.next > 0;
            let Some(decided) = self.decide_first(state, limit - count, &mut portion.records) else { break };
            // Topics without partitions take their time, too.
            count += decided.count.max(1);
            match self.results.last_mut().filter(|_| is_begun) {
                Some(begun) => begun.partition_result.extend(decided.results),
                None => {
                    self.results.push(ReplicaElectionResult { topic: decided.topic, partition_result: decided.results })
                }
            }
            if decided.is_last {
                self.next = 0;
                match &mut self.left {
                    Left::Named(topics) => drop(topics.pop_front()),
                    Left::All(topics) => drop(topics.pop_front()),
                }
            }
        }
        count
    }

    fn end(self: Box<Self>, _plan: &mut Plan) -> ResponseBody {
        let error_code = if self.election.is_none() { ErrorCode::InvalidRequest.code() } else { 0 };
        ElectLeadersResponse { error_code, replica_election_results: self.results, ..Default::default() }.into()
    }
}

fn partition_result(index: i32, result: Result<(), ApiError>) -> PartitionResult {
    let (error_code, error_message) = code_and_text(result);
    PartitionResult { partition_id: index, error_code, error_message }
}
