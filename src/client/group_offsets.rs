//! A group's committed offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ringlog_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringlog_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};

use crate::group::Member;
use crate::{Client, ClientError, CoordinatorType};

/// The last versions that go by topic name.
const LAST_COMMIT_BY_NAME: i16 = 9;
const LAST_FETCH_BY_NAME: i16 = 9;

/// A partition, an offset in it, and the epoch of the record before it or -1.
pub(crate) type PartitionOffset = ((String, i32), i64, i32);

/// Commits offsets and returns the first error code, or 0.
pub(crate) fn commit(
    client: &mut Client,
    group_id: &str,
    member: Option<&Member>,
    offsets: Vec<PartitionOffset>,
) -> Result<i16, ClientError> {
    let mut topics: BTreeMap<String, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset, leader_epoch) in offsets {
        topics.entry(topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_leader_epoch: leader_epoch,
            committed_metadata: Some(StrBytes::default()),
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopic {
        name: StrBytes::from(name),
        partitions,
        ..OffsetCommitRequestTopic::default()
    });
    let request = OffsetCommitRequest {
        group_id: StrBytes::copy_from(group_id),
        generation_id_or_member_epoch: member.map_or(-1, Member::generation),
        member_id: member.map(|member| member.member_id().clone()).unwrap_or_default(),
        group_instance_id: member.and_then(Member::instance_id),
        topics: topics.collect(),
        ..OffsetCommitRequest::default()
    };
    let node = client.coordinator(CoordinatorType::Group, group_id)?;
    let response = client.on_node(node, |connection| connection.call_up_to(&request, LAST_COMMIT_BY_NAME))?;
    let codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}

/// The committed offsets of those partitions that have one.
pub(crate) fn fetch(
    client: &mut Client,
    group_id: &str,
    partitions: &BTreeSet<(String, i32)>,
) -> Result<Vec<PartitionOffset>, ClientError> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let node = client.coordinator(CoordinatorType::Group, group_id)?;
    let response = client.on_node(node, |connection| {
        let version = connection.version_up_to::<OffsetFetchRequest>(LAST_FETCH_BY_NAME)?;
        connection.call_in_version(&fetch_request(group_id, topics, version), version, Duration::ZERO)
    })?;
    read_response(response, group_id)
}

fn fetch_request(group_id: &str, topics: BTreeMap<&str, Vec<i32>>, version: i16) -> OffsetFetchRequest {
    let group_id = StrBytes::copy_from(group_id);
    let topics = topics.into_iter().map(|(name, partition_indexes)| (StrBytes::copy_from(name), partition_indexes));
    if version >= 8 {
        let topics = topics.map(|(name, partition_indexes)| OffsetFetchRequestTopics {
            name,
            partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        let group =
            OffsetFetchRequestGroup { group_id, topics: Some(topics.collect()), ..OffsetFetchRequestGroup::default() };
        return OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    }
    let topics = topics.map(|(name, partition_indexes)| OffsetFetchRequestTopic { name, partition_indexes });
    OffsetFetchRequest { group_id, topics: Some(topics.collect()), ..OffsetFetchRequest::default() }
}

fn read_response(response: OffsetFetchResponse, group_id: &str) -> Result<Vec<PartitionOffset>, ClientError> {
    let context = || format!("committed offsets of group '{group_id}'");
    ClientError::check(response.error_code, None, context)?;
    let mut offsets = Vec::new();
    let mut add = |topic: &str, partition: i32, offset: i64, leader_epoch: i32, code: i16| {
        ClientError::check(code, None, context)?;
        if offset >= 0 {
            offsets.push(((topic.to_owned(), partition), offset, leader_epoch));
        }
        Ok(())
    };
    for topic in &response.topics {
        for found in &topic.partitions {
            let epoch = found.committed_leader_epoch;
            add(&topic.name, found.partition_index, found.committed_offset, epoch, found.error_code)?;
        }
    }
    for group in &response.groups {
        ClientError::check(group.error_code, None, context)?;
        for topic in &group.topics {
            for found in &topic.partitions {
                let epoch = found.committed_leader_epoch;
                add(&topic.name, found.partition_index, found.committed_offset, epoch, found.error_code)?;
            }
        }
    }
    Ok(offsets)
}
