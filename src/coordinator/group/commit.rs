//! Committing offsets: OffsetCommit and TxnOffsetCommit.

use ringlog_protocol::StrBytes;
use ringlog_protocol::coordinator_records::group::{OffsetCommitKey, OffsetCommitValue};
use ringlog_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use ringlog_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use ringlog_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use ringlog_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use ringlog_types::{ErrorCode, Now, ProducerEpoch, ProducerId, Uuid};

use super::api::{RequestContext, TopicView, TransactionalProducer};
use super::coordinator::GroupCoordinator;
use super::membership::own;
use super::records::{GroupRecord, GroupType};
use super::shared::AfterWrite;
use super::state::{Group, Membership};

/// OffsetCommit from this version on names topics by id (KIP-848).
const TOPIC_ID_VERSION: i16 = 10;
/// From this version on an unknown group is told apart from an old generation.
const GROUP_ID_NOT_FOUND_VERSION: i16 = 9;

/// Who commits.
struct Committer<'a> {
    group: &'a StrBytes,
    member: &'a StrBytes,
    instance: Option<&'a StrBytes>,
    generation: i32,
    transactional: bool,
    version: i16,
}

impl GroupCoordinator {
    pub(crate) fn offset_commit(
        &mut self,
        request: OffsetCommitRequest,
        context: &RequestContext,
        now: Now,
        topics: &dyn TopicView,
    ) {
        let committer = Committer {
            group: &request.group_id,
            member: &request.member_id,
            instance: request.group_instance_id.as_ref(),
            generation: request.generation_id_or_member_epoch,
            transactional: false,
            version: context.api_version,
        };
        let refused = self.admit_commit(&committer, now).err();
        let expire_timestamp = match request.retention_time_ms {
            -1 => -1,
            retention_ms => now.wall.0.saturating_add(retention_ms.max(0)),
        };
        let by_id = context.api_version >= TOPIC_ID_VERSION;
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let known = if by_id {
                topics.topic_name(topic.topic_id).map(|name| (name, topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)
            } else {
                let id = topics.topic_id(&topic.name);
                id.map(|id| (topic.name.clone(), id)).ok_or(ErrorCode::UnknownTopicOrPartition)
            };
            let count = known.as_ref().map_or(0, |(name, _)| topics.partition_count(name));
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let result = known.clone().and_then(|(name, id)| match refused {
                    _ if !(0..count).contains(&partition.partition_index) => Err(ErrorCode::UnknownTopicOrPartition),
                    Some(error) => Err(error),
                    None => self.commit_value(partition, id, expire_timestamp, now).map(|value| (name, value)),
                });
                let error = match result {
                    Ok((name, value)) => {
                        let key = offset_key(committer.group, name, partition.partition_index);
                        records.push(GroupRecord::Offset(key, Some(value)));
                        ErrorCode::None
                    }
                    Err(error) => error,
                };
                partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                });
            }
            // Kafka says nothing of topics that it knows and of which nothing is asked.
            if known.is_ok() && partitions.is_empty() {
                continue;
            }
            answers.push(OffsetCommitResponseTopic { topic_id: topic.topic_id, name: topic.name.clone(), partitions });
        }
        let response = OffsetCommitResponse { topics: answers, ..Default::default() };
        if records.is_empty() {
            self.shared.reply(context.token, response);
        } else {
            self.begin_commit(&request.group_id);
            self.shared.write(records, AfterWrite::Reply(context.token, response.into()));
        }
    }

    fn commit_value(
        &self,
        partition: &OffsetCommitRequestPartition,
        topic_id: Uuid,
        expire_timestamp: i64,
        now: Now,
    ) -> Result<OffsetCommitValue, ErrorCode> {
        Ok(OffsetCommitValue {
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: self.checked_metadata(partition.committed_metadata.as_ref())?,
            commit_timestamp: now.wall.0,
            expire_timestamp,
            topic_id,
        })
    }

    fn checked_metadata(&self, metadata: Option<&StrBytes>) -> Result<StrBytes, ErrorCode> {
        let metadata = metadata.cloned().unwrap_or_default();
        if metadata.len() > self.shared.config.max_offset_metadata_bytes {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        // A slice of the request would keep all of its buffer alive.
        Ok(StrBytes::copy_from(&metadata))
    }

    /// TxnOffsetCommit: the offsets count when the producer's transaction is committed.
    pub(crate) fn txn_offset_commit(
        &mut self,
        request: TxnOffsetCommitRequest,
        context: &RequestContext,
        now: Now,
        topics: &dyn TopicView,
    ) {
        let committer = Committer {
            group: &request.group_id,
            member: &request.member_id,
            instance: request.group_instance_id.as_ref(),
            generation: request.generation_id,
            transactional: true,
            version: context.api_version,
        };
        let refused = self.admit_commit(&committer, now).err();
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let count = topics.partition_count(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let exists = (0..count).contains(&partition.partition_index);
                let metadata = match (exists, refused) {
                    (false, _) => Err(ErrorCode::UnknownTopicOrPartition),
                    (true, Some(error)) => Err(error),
                    (true, None) => self.checked_metadata(partition.committed_metadata.as_ref()),
                };
                if let Ok(metadata) = &metadata {
                    let key = offset_key(&request.group_id, topic.name.clone(), partition.partition_index);
                    let value = OffsetCommitValue {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: metadata.clone(),
                        commit_timestamp: now.wall.0,
                        ..Default::default()
                    };
                    records.push(GroupRecord::Offset(key, Some(value)));
                }
                partitions.push(TxnOffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: metadata.err().unwrap_or(ErrorCode::None).code(),
                });
            }
            answers.push(TxnOffsetCommitResponseTopic { name: topic.name.clone(), partitions });
        }
        let response = TxnOffsetCommitResponse { topics: answers, ..Default::default() };
        if records.is_empty() {
            self.shared.reply(context.token, response);
            return;
        }
        self.begin_commit(&request.group_id);
        let producer = TransactionalProducer {
            producer_id: ProducerId(request.producer_id),
            producer_epoch: ProducerEpoch(request.producer_epoch),
        };
        let after = AfterWrite::Reply(context.token, response.into());
        self.shared.write_transactional(records, Some(producer), after);
    }

    /// Whether these credentials may commit; keeps the member's session.
    fn admit_commit(&mut self, committer: &Committer<'_>, now: Now) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get_mut(committer.group) else {
            return if committer.generation < 0 {
                Ok(())
            } else if committer.version >= GROUP_ID_NOT_FOUND_VERSION && !committer.transactional {
                Err(ErrorCode::GroupIdNotFound)
            } else {
                Err(ErrorCode::IllegalGeneration)
            };
        };
        match &mut group.membership {
            Membership::Classic(classic) => {
                let Committer { member, instance, generation, transactional, .. } = *committer;
                classic.validate_commit(member, instance, generation, transactional)?;
                if generation >= 0 {
                    classic.touch(member, &mut self.shared, now);
                }
                Ok(())
            }
            Membership::Other(other) => match other.group_type {
                GroupType::Share => Err(ErrorCode::GroupIdNotFound),
                _ if committer.generation < 0 && other.members.is_empty() => Ok(()),
                _ => Err(ErrorCode::UnknownMemberId),
            },
        }
    }

    fn begin_commit(&mut self, id: &StrBytes) {
        let group = self.groups.entry(own(id)).or_insert_with(|| Group::classic(own(id)));
        group.commits_pending = group.commits_pending.saturating_add(1);
    }
}

fn offset_key(group: &StrBytes, topic: StrBytes, partition: i32) -> OffsetCommitKey {
    OffsetCommitKey { group: own(group), topic: own(&topic), partition }
}
