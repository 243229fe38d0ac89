//! Which partitions are compared, and from where on.

use std::collections::BTreeMap;

use ringlog_client::{Client, ClientError, Metadata};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::ListOffsetsRequest;
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use super::replicas::{Partition, Watched};
use crate::cli::topic_filter::TopicFilter;

/// The partitions of the selected topics, each from its beginning at first.
pub fn partitions(metadata: &Metadata, filter: &TopicFilter) -> BTreeMap<Partition, Watched> {
    let topics = metadata.topics.values().filter(|topic| filter.is_match(&topic.name));
    let of_topic = topics.flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let watched = Watched { topic_id: topic.id, replicas: partition.replicas.clone(), offset: 0 };
            ((topic.name.clone(), partition.index), watched)
        })
    });
    of_topic.collect()
}

/// The partition's offset for a time, asked of its leader; -1 if it has no record that is so young.
pub fn offset(client: &mut Client, (topic, index): &Partition, time: i64) -> Result<i64, ClientError> {
    let leader = client.leader(topic, *index)?;
    let partition =
        ListOffsetsPartition { partition_index: *index, timestamp: time, ..ListOffsetsPartition::default() };
    let topics = vec![ListOffsetsTopic { name: StrBytes::copy_from(topic), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
    let response = client.send_to(leader, &request)?;
    let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let Some(found) = found else { return Ok(-1) };
    let checked = ClientError::check(found.error_code, None, || format!("offset of {topic}-{index}"));
    if checked.is_err() {
        client.forget_topic(topic);
    }
    checked.map(|()| found.offset)
}
