//! Requests that name groups of several partitions, and answers that carry nothing but an error.

use std::collections::BTreeMap;

use ringlog_protocol::messages::delete_groups_response::DeletableGroupResult;
use ringlog_protocol::messages::describe_groups_response::DescribedGroup;
use ringlog_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use ringlog_protocol::messages::offset_delete_response::OffsetDeleteResponseTopic;
use ringlog_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ringlog_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use ringlog_protocol::messages::{
    DeleteGroupsResponse, DescribeGroupsResponse, HeartbeatResponse, LeaveGroupResponse, ListGroupsResponse,
    OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse, SyncGroupResponse, TxnOffsetCommitResponse,
};
use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, PartitionIndex, java_string_hash};

use super::fetch::{GROUPS_VERSION, nothing, old_topic};
use super::shared::join_error;

/// OffsetFetch from this version on has an error for the whole group.
const FETCH_ERROR_VERSION: i16 = 2;

/// The partition of `__consumer_offsets` that a group belongs to. `partition_count` is positive.
pub fn partition_of_group(group_id: &str, partition_count: i32) -> PartitionIndex {
    assert!(partition_count > 0, "a topic has partitions");
    let hash = java_string_hash(group_id);
    PartitionIndex(hash.checked_abs().unwrap_or(0) % partition_count)
}

/// Who decides a request.
#[derive(Debug, PartialEq)]
pub enum Route {
    /// The coordinator of one partition.
    One(PartitionIndex, RequestBody),
    /// Several: each gets its part, and [`merge`] makes one answer of theirs.
    Several(Vec<(PartitionIndex, RequestBody)>),
    /// Every coordinator on this node gets the request; [`merge`] again.
    All(RequestBody),
}

/// Cuts a request of group coordination by the partitions of its groups. Requests of other APIs are the driver's
/// mistake.
pub fn split(request: RequestBody, api_version: i16, partition_count: i32) -> Route {
    let of = |group: &str| partition_of_group(group, partition_count);
    let partition = match &request {
        RequestBody::ListGroups(_) => return Route::All(request),
        RequestBody::DescribeGroups(request) => {
            let parts = by_partition(&request.groups, |group| of(group));
            return several(parts, |groups| {
                let mut part = request.clone();
                part.groups = groups;
                part.into()
            });
        }
        RequestBody::DeleteGroups(request) => {
            let parts = by_partition(&request.groups_names, |group| of(group));
            return several(parts, |groups| {
                let mut part = request.clone();
                part.groups_names = groups;
                part.into()
            });
        }
        RequestBody::OffsetFetch(request) if api_version >= GROUPS_VERSION => {
            let parts = by_partition(&request.groups, |group| of(&group.group_id));
            return several(parts, |groups| {
                let mut part = request.clone();
                part.groups = groups;
                part.into()
            });
        }
        RequestBody::JoinGroup(request) => of(&request.group_id),
        RequestBody::SyncGroup(request) => of(&request.group_id),
        RequestBody::Heartbeat(request) => of(&request.group_id),
        RequestBody::LeaveGroup(request) => of(&request.group_id),
        RequestBody::OffsetCommit(request) => of(&request.group_id),
        RequestBody::TxnOffsetCommit(request) => of(&request.group_id),
        RequestBody::OffsetFetch(request) => of(&request.group_id),
        RequestBody::OffsetDelete(request) => of(&request.group_id),
        other => panic!("{} is not a request of group coordination", other.api_key().name()),
    };
    Route::One(partition, request)
}

fn by_partition<T: Clone>(items: &[T], of: impl Fn(&T) -> PartitionIndex) -> Vec<(PartitionIndex, Vec<T>)> {
    let mut parts = BTreeMap::<PartitionIndex, Vec<T>>::new();
    for item in items {
        parts.entry(of(item)).or_default().push(item.clone());
    }
    parts.into_iter().collect()
}

/// A request that names no group at all has no part; [`merge`] of nothing isn't possible, so it stays one.
fn several<T>(parts: Vec<(PartitionIndex, Vec<T>)>, make: impl Fn(Vec<T>) -> RequestBody) -> Route {
    match parts.len() {
        0 => Route::One(PartitionIndex(0), make(Vec::new())),
        1 => {
            let mut parts = parts;
            let (partition, groups) = parts.remove(0);
            Route::One(partition, make(groups))
        }
        _ => Route::Several(parts.into_iter().map(|(partition, groups)| (partition, make(groups))).collect()),
    }
}

/// One answer of several coordinators' to the parts of one request. `None` if there are none or they don't fit
/// together.
pub fn merge(responses: impl IntoIterator<Item = ResponseBody>) -> Option<ResponseBody> {
    let mut responses = responses.into_iter();
    let mut merged = responses.next()?;
    for response in responses {
        match (&mut merged, response) {
            (ResponseBody::ListGroups(all), ResponseBody::ListGroups(part)) => {
                // A coordinator that still loads makes the list incomplete, which its error says.
                if all.error_code == 0 {
                    all.error_code = part.error_code;
                }
                all.groups.extend(part.groups);
            }
            (ResponseBody::DescribeGroups(all), ResponseBody::DescribeGroups(part)) => all.groups.extend(part.groups),
            (ResponseBody::DeleteGroups(all), ResponseBody::DeleteGroups(part)) => all.results.extend(part.results),
            (ResponseBody::OffsetFetch(all), ResponseBody::OffsetFetch(part)) => all.groups.extend(part.groups),
            _ => return None,
        }
    }
    Some(merged)
}

/// What of a request its answer depends on beside the groups.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    api_version: i16,
    includes_operations: bool,
}

impl Asked {
    /// Of this request.
    pub fn of(request: &RequestBody, api_version: i16) -> Asked {
        let includes_operations = match request {
            RequestBody::DescribeGroups(request) => request.include_authorized_operations,
            _ => false,
        };
        Asked { api_version, includes_operations }
    }
}

/// Operations on a group as the bits of `authorized_operations`: without an authorizer, all that there are (KIP-430):
/// 3 read, 6 delete, 8 describe, 10 and 11 describe and alter configs.
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;
/// JoinGroup from this version on can say null for a protocol's name.
const NO_PROTOCOL_VERSION: i16 = 7;

/// The last touches to an answer, in the shape that Kafka gives it.
pub fn finish(mut response: ResponseBody, asked: Asked) -> ResponseBody {
    match &mut response {
        ResponseBody::DescribeGroups(response) if asked.includes_operations => {
            for group in response.groups.iter_mut().filter(|group| group.error_code == 0) {
                group.authorized_operations = GROUP_OPERATIONS;
            }
        }
        ResponseBody::JoinGroup(response) if asked.api_version < NO_PROTOCOL_VERSION => {
            response.protocol_name.get_or_insert_default();
        }
        ResponseBody::OffsetCommit(response) => {
            let is_known = |topic: &OffsetCommitResponseTopic| {
                !topic.partitions.is_empty() && topic.partitions.iter().all(|it| !is_unknown(it.error_code))
            };
            if !response.topics.iter().all(is_known) {
                let name = |topic: &OffsetCommitResponseTopic| (topic.name.clone(), topic.topic_id);
                join_alike(&mut response.topics, name, |known, more| known.partitions.extend(more.partitions));
            }
        }
        ResponseBody::OffsetDelete(response) => {
            let is_known = |topic: &OffsetDeleteResponseTopic| {
                !topic.partitions.is_empty() && topic.partitions.iter().all(|it| !is_unknown(it.error_code))
            };
            if !response.topics.iter().all(is_known) {
                let name = |topic: &OffsetDeleteResponseTopic| topic.name.clone();
                join_alike(&mut response.topics, name, |known, more| known.partitions.extend(more.partitions));
            }
        }
        _ => {}
    }
    response
}

/// Whether this is said before the coordinator is asked.
fn is_unknown(error_code: i16) -> bool {
    [ErrorCode::UnknownTopicOrPartition.code(), ErrorCode::UnknownTopicId.code()].contains(&error_code)
}

/// A topic that is named twice is answered once, but only where Kafka adds the coordinator's answers to others.
fn join_alike<T, K: Ord>(topics: &mut Vec<T>, name: impl Fn(&T) -> K, join: impl Fn(&mut T, T)) {
    let mut joined: Vec<T> = Vec::with_capacity(topics.len());
    let mut places = BTreeMap::new();
    for topic in std::mem::take(topics) {
        let place = *places.entry(name(&topic)).or_insert(joined.len());
        match joined.get_mut(place) {
            Some(known) => join(known, topic),
            None => joined.push(topic),
        }
    }
    *topics = joined;
}

/// The answer that gives `error` for everything that the request asks: `COORDINATOR_LOAD_IN_PROGRESS`,
/// `NOT_COORDINATOR` and the like.
pub fn error_response(request: &RequestBody, api_version: i16, error: ErrorCode) -> ResponseBody {
    let error_code = error.code();
    match request {
        RequestBody::JoinGroup(_) => join_error(error, StrBytes::default()).into(),
        RequestBody::SyncGroup(_) => SyncGroupResponse { error_code, ..Default::default() }.into(),
        RequestBody::Heartbeat(_) => HeartbeatResponse { error_code, ..Default::default() }.into(),
        RequestBody::LeaveGroup(_) => LeaveGroupResponse { error_code, ..Default::default() }.into(),
        RequestBody::OffsetDelete(_) => OffsetDeleteResponse { error_code, ..Default::default() }.into(),
        RequestBody::ListGroups(_) => ListGroupsResponse { error_code, ..Default::default() }.into(),
        RequestBody::OffsetCommit(request) => {
            let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
                topic_id: topic.topic_id,
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code,
                    })
                    .collect(),
            });
            OffsetCommitResponse { topics: topics.collect(), ..Default::default() }.into()
        }
        RequestBody::TxnOffsetCommit(request) => {
            let topics = request.topics.iter().map(|topic| TxnOffsetCommitResponseTopic {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| TxnOffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code,
                    })
                    .collect(),
            });
            TxnOffsetCommitResponse { topics: topics.collect(), ..Default::default() }.into()
        }
        RequestBody::OffsetFetch(request) => fetch_error(request, api_version, error).into(),
        RequestBody::DescribeGroups(request) => {
            let groups = request.groups.iter().map(|id| DescribedGroup {
                group_id: id.clone(),
                error_code,
                ..Default::default()
            });
            DescribeGroupsResponse { groups: groups.collect(), ..Default::default() }.into()
        }
        RequestBody::DeleteGroups(request) => {
            let results =
                request.groups_names.iter().map(|id| DeletableGroupResult { group_id: id.clone(), error_code });
            DeleteGroupsResponse { results: results.collect(), ..Default::default() }.into()
        }
        other => panic!("{} is not a request of group coordination", other.api_key().name()),
    }
}

fn fetch_error(
    request: &ringlog_protocol::messages::OffsetFetchRequest,
    api_version: i16,
    error: ErrorCode,
) -> OffsetFetchResponse {
    if api_version >= GROUPS_VERSION {
        let groups = request.groups.iter().map(|group| OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            error_code: error.code(),
            ..Default::default()
        });
        return OffsetFetchResponse { groups: groups.collect(), ..Default::default() };
    }
    let mut response = OffsetFetchResponse::default();
    if api_version >= FETCH_ERROR_VERSION {
        response.error_code = error.code();
    } else {
        // Only partitions have errors.
        response.topics = request
            .topics
            .iter()
            .flatten()
            .map(|topic| {
                old_topic(&topic.name, topic.partition_indexes.iter().map(|index| nothing(*index, error)).collect())
            })
            .collect();
    }
    response
}

/// Turns the answer of a write that failed into its error.
pub(crate) fn with_error(body: ResponseBody, error: ErrorCode) -> ResponseBody {
    let error_code = error.code();
    let spoil = |code: &mut i16| {
        if *code == 0 {
            *code = error_code;
        }
    };
    let mut body = body;
    match &mut body {
        ResponseBody::OffsetCommit(response) => {
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|partition| spoil(&mut partition.error_code));
        }
        ResponseBody::TxnOffsetCommit(response) => {
            let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            partitions.for_each(|partition| spoil(&mut partition.error_code));
        }
        ResponseBody::DeleteGroups(response) => {
            response.results.iter_mut().for_each(|result| spoil(&mut result.error_code));
        }
        ResponseBody::OffsetDelete(response) => {
            response.error_code = error_code;
            response.topics.clear();
        }
        ResponseBody::LeaveGroup(response) => {
            response.error_code = error_code;
            response.members.clear();
        }
        other => panic!("{} doesn't wait for writes", other.api_key().name()),
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_named_twice_is_answered_once_beside_an_unknown_one() {
        let topic = |name: &'static str, errors: &[ErrorCode]| OffsetCommitResponseTopic {
            name: StrBytes::from_static(name),
            partitions: errors
                .iter()
                .map(|error| OffsetCommitResponsePartition { error_code: error.code(), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let finished = |topics| {
            let asked = Asked { api_version: 8, includes_operations: false };
            let response = OffsetCommitResponse { topics, ..Default::default() };
            let ResponseBody::OffsetCommit(response) = finish(response.into(), asked) else { panic!("another answer") };
            response.topics.iter().map(|it| (it.name.to_string(), it.partitions.len())).collect::<Vec<_>>()
        };
        let (fine, refused, unknown) =
            (ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::UnknownTopicOrPartition);
        let twice = vec![("a".to_owned(), 2), ("a".to_owned(), 1)];
        assert_eq!(finished(vec![topic("a", &[fine, fine]), topic("a", &[fine])]), twice);
        assert_eq!(finished(vec![topic("a", &[refused, refused]), topic("a", &[refused])]), twice);
        let once = vec![("a".to_owned(), 2)];
        assert_eq!(finished(vec![topic("a", &[fine]), topic("a", &[unknown])]), once);
        let beside_nothing = vec![("a".to_owned(), 2), ("gone".to_owned(), 0)];
        assert_eq!(finished(vec![topic("a", &[fine]), topic("gone", &[]), topic("a", &[fine])]), beside_nothing);
    }
}
