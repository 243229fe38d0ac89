//! OffsetFetch: reads committed offsets.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ringlog_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use ringlog_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use ringlog_types::{ErrorCode, Uuid};

use super::api::{RequestContext, TopicView};
use super::coordinator::GroupCoordinator;
use super::offsets::Offsets;
use super::records::GroupType;
use super::state::Membership;

/// OffsetFetch from this version on asks for several groups.
pub(crate) const GROUPS_VERSION: i16 = 8;
/// OffsetFetch from this version on names topics by id.
const TOPIC_ID_VERSION: i16 = 10;

/// How to read.
struct Reader<'a> {
    topics: &'a dyn TopicView,
    require_stable: bool,
}

impl GroupCoordinator {
    pub(crate) fn offset_fetch(
        &mut self,
        request: &OffsetFetchRequest,
        context: &RequestContext,
        topics: &dyn TopicView,
    ) {
        let reader = Reader { topics, require_stable: request.require_stable };
        let mut response = OffsetFetchResponse::default();
        if context.api_version >= GROUPS_VERSION {
            response.groups = request.groups.iter().map(|group| self.fetch_group(group, context, &reader)).collect();
        } else {
            response.topics = self.fetch_one(request, &reader);
        }
        self.shared.reply(context.token, response);
    }

    fn fetch_group(
        &self,
        request: &OffsetFetchRequestGroup,
        context: &RequestContext,
        reader: &Reader<'_>,
    ) -> OffsetFetchResponseGroup {
        let mut response = OffsetFetchResponseGroup { group_id: request.group_id.clone(), ..Default::default() };
        if let Err(error) = self.admit_fetch(request) {
            response.error_code = error.code();
            return response;
        }
        let by_id = context.api_version >= TOPIC_ID_VERSION;
        let offsets = self.groups.get(&request.group_id).map(|group| &group.offsets);
        let Some(asked) = &request.topics else {
            for name in offsets.into_iter().flat_map(Offsets::topics).map(|(name, _)| name) {
                let id = reader.topics.topic_id(name);
                // Without an id the topic can't be named.
                if by_id && id.is_none() {
                    continue;
                }
                let topic_id = if by_id { id.unwrap_or(Uuid::ZERO) } else { Uuid::ZERO };
                let partitions = reader.all(offsets, name);
                response.topics.push(OffsetFetchResponseTopics { topic_id, name: name.clone(), partitions });
            }
            return response;
        };
        for topic in asked {
            let name = if by_id { reader.topics.topic_name(topic.topic_id) } else { Some(topic.name.clone()) };
            let partitions = topic.partition_indexes.iter().map(|index| match &name {
                Some(name) => reader.one(offsets, name, *index),
                None => nothing(*index, ErrorCode::UnknownTopicId),
            });
            response.topics.push(OffsetFetchResponseTopics {
                topic_id: topic.topic_id,
                name: topic.name.clone(),
                partitions: partitions.collect(),
            });
        }
        response
    }

    /// A member of a consumer group shows its epoch; those groups have no members here.
    fn admit_fetch(&self, request: &OffsetFetchRequestGroup) -> Result<(), ErrorCode> {
        let names_member = request.member_id.as_ref().is_some_and(|id| !id.is_empty()) || request.member_epoch >= 0;
        match self.groups.get(&request.group_id).map(|group| &group.membership) {
            Some(Membership::Other(other)) if names_member && other.group_type != GroupType::Share => {
                Err(ErrorCode::UnknownMemberId)
            }
            _ => Ok(()),
        }
    }

    fn fetch_one(&self, request: &OffsetFetchRequest, reader: &Reader<'_>) -> Vec<OffsetFetchResponseTopic> {
        let offsets = self.groups.get(&request.group_id).map(|group| &group.offsets);
        match &request.topics {
            None => offsets
                .into_iter()
                .flat_map(Offsets::topics)
                .map(|(name, _)| old_topic(name, reader.all(offsets, name)))
                .collect(),
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let partitions = topic.partition_indexes.iter();
                    old_topic(&topic.name, partitions.map(|index| reader.one(offsets, &topic.name, *index)).collect())
                })
                .collect(),
        }
    }
}

impl Reader<'_> {
    fn all(&self, offsets: Option<&Offsets>, topic: &StrBytes) -> Vec<OffsetFetchResponsePartitions> {
        let partitions = offsets.into_iter().flat_map(|offsets| offsets.partitions(topic));
        partitions.map(|(index, _)| self.one(offsets, topic, index)).collect()
    }

    fn one(&self, offsets: Option<&Offsets>, topic: &StrBytes, partition: i32) -> OffsetFetchResponsePartitions {
        let Some(offsets) = offsets else { return nothing(partition, ErrorCode::None) };
        if self.require_stable && offsets.is_unstable(topic, partition) {
            return nothing(partition, ErrorCode::UnstableOffsetCommit);
        }
        let topic_id = self.topics.topic_id(topic).unwrap_or(Uuid::ZERO);
        match offsets.get(topic, partition).filter(|offset| offset.is_of_topic(topic_id)) {
            None => nothing(partition, ErrorCode::None),
            Some(offset) => OffsetFetchResponsePartitions {
                partition_index: partition,
                committed_offset: offset.offset,
                committed_leader_epoch: offset.leader_epoch,
                metadata: Some(offset.metadata.clone()),
                ..Default::default()
            },
        }
    }
}

/// Kafka's way to say that there is no offset.
pub(crate) fn nothing(partition: i32, error: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(StrBytes::default()),
        error_code: error.code(),
    }
}

pub(crate) fn old_topic(name: &StrBytes, partitions: Vec<OffsetFetchResponsePartitions>) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    });
    OffsetFetchResponseTopic { name: name.clone(), partitions: partitions.collect() }
}
