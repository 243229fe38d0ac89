//! DescribeTopicPartitions: topics in name order, a page of partitions at a time (KIP-966).

use std::sync::Arc;

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::{PartitionImage, TopicImage};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use ringlog_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use ringlog_types::{ErrorCode, PartitionIndex, is_internal_topic, validate_topic_name};

use super::shown::{OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, endpoint, node_ids, offline_replicas};
use crate::metadata::MetadataView;
use crate::net::request::RequestContext;

/// Answers DescribeTopicPartitions.
pub fn handle(
    metadata: &MetadataView,
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    if !is_cursor_right(&request) {
        return refusal(request);
    }
    let limit = metadata.node().config.network.max_request_partition_size_limit;
    answer(&metadata.image(), &context.peer.listener.name, &request, limit)
}

/// Whether the cursor, if there is one, is in a topic that is asked for.
fn is_cursor_right(request: &DescribeTopicPartitionsRequest) -> bool {
    request.cursor.as_ref().is_none_or(|cursor| {
        let is_asked = request.topics.is_empty() || request.topics.iter().any(|it| it.name == cursor.topic_name);
        is_asked && cursor.partition_index >= 0
    })
}

fn refusal(request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.into_iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name),
        topic_authorized_operations: OPERATIONS_NOT_ASKED,
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn answer(
    image: &MetadataImage,
    listener: &str,
    request: &DescribeTopicPartitionsRequest,
    node_limit: i32,
) -> DescribeTopicPartitionsResponse {
    let all = request.topics.is_empty();
    let mut names: Vec<&str> = if all {
        image.topics.iter().map(|topic| &*topic.name).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let cursor = request.cursor.as_ref();
    if let Some(cursor) = cursor {
        names.retain(|name| *name >= cursor.topic_name.as_str());
    }
    let mut left = usize::try_from(request.response_partition_limit.min(node_limit)).unwrap_or(0).max(1);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        if left == 0 {
            response.next_cursor = Some(next(name, 0));
            break;
        }
        let first = cursor.filter(|cursor| cursor.topic_name.as_str() == name).map_or(0, |it| it.partition_index);
        let Some(topic) = image.topics.by_name(name) else {
            // It may have been deleted since the list was made.
            if !all {
                response.topics.push(missing(name));
            }
            continue;
        };
        let described = describe(image, listener, topic, first, left);
        left -= described.partitions.len();
        let continues_at = described.partitions.last().map_or(0, |last| last.partition_index.saturating_add(1));
        response.topics.push(described);
        if topic.partitions.contains_key(&PartitionIndex(continues_at)) && continues_at > 0 {
            response.next_cursor = Some(next(name, continues_at));
            break;
        }
    }
    response
}

fn next(name: &str, partition_index: i32) -> Cursor {
    Cursor { topic_name: StrBytes::copy_from(name), partition_index }
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let valid = validate_topic_name(name).is_ok();
    let error = if valid { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(StrBytes::copy_from(name)),
        is_internal: is_internal_topic(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn describe(
    image: &MetadataImage,
    listener: &str,
    topic: &Arc<TopicImage>,
    first: i32,
    limit: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter_from(PartitionIndex(first)).take(limit);
    DescribeTopicPartitionsResponseTopic {
        name: Some(StrBytes::copy_from(&topic.name)),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: partitions
            .map(|(index, partition)| describe_partition(image, listener, index, partition))
            .collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn describe_partition(
    image: &MetadataImage,
    listener: &str,
    index: PartitionIndex,
    partition: &PartitionImage,
) -> DescribeTopicPartitionsResponsePartition {
    let reachable = endpoint(image, partition.leader, listener).is_some();
    DescribeTopicPartitionsResponsePartition {
        error_code: 0,
        partition_index: index.0,
        leader_id: if reachable { partition.leader.0 } else { -1 },
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: node_ids(partition.replicas()),
        isr_nodes: node_ids(partition.in_sync_replicas()),
        eligible_leader_replicas: Some(node_ids(partition.eligible_leader_replicas())),
        last_known_elr: Some(node_ids(partition.last_known_elr())),
        offline_replicas: offline_replicas(image, partition, listener),
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::describe_topic_partitions_request;

    use super::super::test_images::image;
    use super::*;

    /// Topics with their partitions, and where the next page begins.
    type Page = (Vec<(String, Vec<i32>)>, Option<(String, i32)>);

    fn page(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Page {
        let image = image(&[("a", 3), ("b", 2), ("c", 4)]);
        let topic = |name: &&str| describe_topic_partitions_request::TopicRequest { name: StrBytes::copy_from(name) };
        let request = DescribeTopicPartitionsRequest {
            topics: topics.iter().map(topic).collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| describe_topic_partitions_request::Cursor {
                topic_name: StrBytes::copy_from(name),
                partition_index,
            }),
        };
        let response = answer(&image, "PLAINTEXT", &request, 2000);
        let topics = response.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            (topic.name.as_deref().unwrap_or("").to_owned(), partitions)
        });
        (topics.collect(), response.next_cursor.map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index)))
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let topic = |name: &str, partitions: &[i32]| (name.to_owned(), partitions.to_vec());
        let cursor = |name: &str, index| Some((name.to_owned(), index));
        assert_eq!(page(&[], 2, None), (vec![topic("a", &[0, 1])], cursor("a", 2)));
        assert_eq!(page(&[], 3, Some(("a", 2))), (vec![topic("a", &[2]), topic("b", &[0, 1])], cursor("c", 0)));
        assert_eq!(page(&[], 100, Some(("c", 0))), (vec![topic("c", &[0, 1, 2, 3])], None));
        assert_eq!(page(&["c", "a"], 3, None), (vec![topic("a", &[0, 1, 2])], cursor("c", 0)));
    }

    #[test]
    fn a_topic_that_was_asked_for_and_is_missing_is_said_so() {
        assert_eq!(page(&["x", "a"], 100, None).0.len(), 2);
        assert_eq!(page(&["x"], 100, Some(("y", 0))), (vec![], None));
        assert_eq!(page(&["a"], 0, None).0, [("a".to_owned(), vec![0])]);
    }
}
