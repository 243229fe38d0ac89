//! AlterPartition: a leader asks for another in-sync set (KIP-497, KIP-903).

use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::alter_partition_request::PartitionData as AskedPartition;
use ringlog_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use ringlog_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_types::{ErrorCode, NodeId, TopicIdPartition};

use super::context::{Operation, RequestContext, Resource};
use super::outcome::Outcome;
use super::plan::{Asked, Plan, Portion};
use super::state::{ActiveController, partition_id};
use crate::image::{LeaderRecoveryState, PartitionImage};

impl ActiveController {
    pub(crate) fn alter_partition(&self, request: &AlterPartitionRequest, context: &RequestContext<'_>) -> Outcome {
        let refuse = |error: ErrorCode| {
            Outcome::answer(AlterPartitionResponse { error_code: error.code(), ..Default::default() })
        };
        if !context.authorizer.allows(Operation::ClusterAction, Resource::Cluster) {
            return refuse(ErrorCode::ClusterAuthorizationFailed);
        }
        if request.topics.is_empty() {
            return Outcome::answer(AlterPartitionResponse::default());
        }
        if !self.is_current_epoch(request.broker_id, request.broker_epoch) {
            return refuse(ErrorCode::StaleBrokerEpoch);
        }
        let (request, api_version) = (request.clone(), context.api_version);
        Outcome::asked(Plan::asked(Alterations { request, api_version, next: (0, 0), topics: Vec::new() }))
    }

    /// Whether the broker is registered with exactly this epoch.
    pub(crate) fn is_current_epoch(&self, broker_id: i32, broker_epoch: i64) -> bool {
        self.image.cluster.broker(NodeId(broker_id)).is_some_and(|broker| broker.epoch.0 == broker_epoch)
    }

    fn alter_one(
        &self,
        sender: NodeId,
        id: TopicIdPartition,
        asked: &AskedPartition,
        api_version: i16,
        records: &mut Vec<RecordAndVersion>,
    ) -> Result<PartitionData, ErrorCode> {
        let topic = self.image.topics.by_id(id.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partitions.get(&id.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        // Epochs are -1 for senders before version 3, which is to say: not checked.
        let members: Vec<(NodeId, i64)> = if api_version >= 3 {
            asked.new_isr_with_epochs.iter().map(|member| (NodeId(member.broker_id), member.broker_epoch)).collect()
        } else {
            asked.new_isr.iter().map(|id| (NodeId(*id), -1)).collect()
        };
        self.check_alteration(sender, partition, asked, &members)?;
        let recovery_state =
            LeaderRecoveryState::from_value(asked.leader_recovery_state).ok_or(ErrorCode::InvalidRequest)?;
        let change = self.change_partition(id, &|id| self.is_active(id), |builder| {
            builder.in_sync_replicas = members.iter().map(|(id, _)| *id).collect();
            builder.leader_recovery_state = recovery_state;
            builder.election = self.usual_election(&topic.name);
        });
        let after = match &change {
            Some(RecordAndVersion { record: MetadataRecord::PartitionChange(change), .. }) => {
                partition.merge(change).map_err(|_| ErrorCode::UnknownServerError)?
            }
            _ => PartitionImage::clone(partition),
        };
        records.extend(change);
        if after.leader != sender {
            // The change ended a reassignment that took the leadership away.
            return Err(ErrorCode::NewLeaderElected);
        }
        Ok(PartitionData {
            partition_index: asked.partition_index,
            error_code: 0,
            leader_id: after.leader.0,
            leader_epoch: after.leader_epoch.0,
            isr: after.in_sync_replicas().iter().map(|id| id.0).collect(),
            leader_recovery_state: after.leader_recovery_state as i8,
            partition_epoch: after.partition_epoch.0,
        })
    }

    /// The checks in Kafka's order; the first that fails is the answer.
    fn check_alteration(
        &self,
        sender: NodeId,
        partition: &PartitionImage,
        asked: &AskedPartition,
        members: &[(NodeId, i64)],
    ) -> Result<(), ErrorCode> {
        if asked.leader_epoch > partition.leader_epoch.0 || asked.partition_epoch > partition.partition_epoch.0 {
            // The sender knows more than this controller, which then can't be the active one any more.
            return Err(ErrorCode::NotController);
        }
        if asked.leader_epoch < partition.leader_epoch.0 {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if sender != partition.leader {
            return Err(ErrorCode::InvalidRequest);
        }
        if asked.partition_epoch < partition.partition_epoch.0 {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let mut ids: Vec<NodeId> = members.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let has_duplicates = ids.windows(2).any(|pair| pair[0] == pair[1]);
        let is_foreign = ids.iter().any(|id| !partition.replicas().contains(id));
        if ids.is_empty() || has_duplicates || is_foreign || !ids.contains(&partition.leader) {
            return Err(ErrorCode::InvalidRequest);
        }
        let is_recovering = asked.leader_recovery_state == LeaderRecoveryState::Recovering as i8;
        if is_recovering && (ids.len() > 1 || partition.leader_recovery_state == LeaderRecoveryState::Recovered) {
            return Err(ErrorCode::InvalidRequest);
        }
        let is_eligible = |(id, epoch): &(NodeId, i64)| {
            let broker = self.image.cluster.broker(*id);
            broker.is_some_and(|broker| broker.is_active() && (*epoch == -1 || broker.epoch.0 == *epoch))
        };
        if members.iter().all(is_eligible) { Ok(()) } else { Err(ErrorCode::IneligibleReplica) }
    }
}

/// AlterPartition, as far as it is decided. Each partition stands for itself.
#[derive(Debug)]
struct Alterations {
    request: AlterPartitionRequest,
    api_version: i16,
    /// The places of topic and partition in the request that are to be decided next.
    next: (usize, usize),
    topics: Vec<TopicData>,
}

impl Asked for Alterations {
    fn decide(&mut self, state: &ActiveController, limit: usize, portion: &mut Portion) -> usize {
        let sender = NodeId(self.request.broker_id);
        let mut count = 0;
        while count < limit
            && let Some(topic) = self.request.topics.get(self.next.0)
        {
            if self.next.1 == 0 {
                self.topics.push(TopicData { topic_id: topic.topic_id, partitions: Vec::new() });
            }
            let altered = topic.partitions.iter().skip(self.next.1).take(limit - count).map(|asked| {
                let id = partition_id(topic.topic_id, asked.partition_index);
                let result = state.alter_one(sender, id, asked, self.api_version, &mut portion.records);
                result.unwrap_or_else(|error| PartitionData {
                    partition_index: asked.partition_index,
                    error_code: error.code(),
                    ..Default::default()
                })
            });
            let altered: Vec<PartitionData> = altered.collect();
            count += altered.len().max(1);
            self.next.1 += altered.len();
            if self.next.1 == topic.partitions.len() {
                self.next = (self.next.0 + 1, 0);
            }
            if let Some(topic) = self.topics.last_mut() {
                topic.partitions.extend(altered);
            }
        }
        count
    }

    fn end(self: Box<Self>, _plan: &mut Plan) -> ResponseBody {
        AlterPartitionResponse { topics: self.topics, ..Default::default() }.into()
    }
}
