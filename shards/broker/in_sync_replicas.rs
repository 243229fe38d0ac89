//! Asks the controller for other in-sync replicas (AlterPartition, KIP-497): leaders of this core want followers in that
//! have caught up, and out that haven't for `replica.lag.time.max.ms`.
//!
//! One request at a time and core, for all partitions that wait. A partition has one proposal at a time; until it is answered
//! both sets are in force, so one that fails for the moment is sent again.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_partition::{AlterPartitionOutcome, AlterPartitionProposal, RecoveryState};
use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, alter_partition_request as wire};
use ringlog_ring as ring;
use ringlog_types::{
    BrokerEpoch, ErrorCode, LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, TopicIdPartition, Uuid,
};
use rustc_hash::FxHashMap;
use tracing::{debug, info};

use crate::controller::{self, Controller, ControllerRequest};
use crate::core::Room as _;
use crate::data::replicas::Replicas;

/// Partitions in one request at most.
const MAX_PER_REQUEST: usize = 10_000;
/// Wait before what failed is sent again, as in Kafka.
const RETRY_MS: u64 = 50;
/// How long the controller is looked for in one go.
const REQUEST_MS: u64 = 10_000;

/// Begins, for the leaders of one core.
pub fn start(replicas: &Rc<Replicas>, controller: &Rc<Controller>) {
    let core = controller.core().clone();
    core.spawn_until_stop(send(replicas.clone(), controller.clone()));
    core.spawn_until_stop(shrink(replicas.clone(), controller.clone()));
}

/// Looks for followers that lag, each half of `replica.lag.time.max.ms`.
async fn shrink(replicas: Rc<Replicas>, controller: Rc<Controller>) {
    let lag_max_ms = controller.core().node.config.replica.lag_time_max_ms;
    let every_ms = u64::try_from(lag_max_ms / 2).unwrap_or(0).max(1);
    loop {
        ring::sleep_ms(every_ms).await;
        let mut turns = ring::Turns::begin();
        for id in replicas.ids() {
            turns.step().await;
            let Some(replica) = replicas.get(id).filter(|replica| replica.has_followers()) else { continue };
            if let Some(left) = replica.propose_shrink() {
                let left: Vec<i32> = left.iter().map(|replica| replica.0).collect();
                info!(partition = %replica.name, isr = ?left, "shrinking the in-sync replicas");
            }
        }
    }
}

async fn send(replicas: Rc<Replicas>, controller: Rc<Controller>) {
    let mut waiting: Vec<AlterPartitionProposal> = Vec::new();
    loop {
        waiting.extend(replicas.proposals.take());
        // The metadata may have made some of them void.
        waiting.retain(|proposal| replicas.get(proposal.id).is_some_and(|replica| replica.is_proposed(proposal)));
        if waiting.is_empty() {
            replicas.proposals.arrived().await;
            continue;
        }
        let rest = waiting.split_off(waiting.len().min(MAX_PER_REQUEST));
        let again = ask(&replicas, &controller, std::mem::replace(&mut waiting, rest)).await;
        if !again.is_empty() {
            waiting.extend(again);
            ring::sleep_ms(RETRY_MS).await;
        }
    }
}

/// Asks for these, and tells each leader what became of it. Returns those that are to be sent again.
async fn ask(
    replicas: &Replicas,
    controller: &Rc<Controller>,
    proposals: Vec<AlterPartitionProposal>,
) -> Vec<AlterPartitionProposal> {
    let Some(epoch) = controller.metadata().broker_epoch() else { return proposals };
    let request = request(controller.core().node.id, epoch, &proposals);
    let response = controller::request_within(controller, ControllerRequest::internal(request), REQUEST_MS).await;
    let outcomes = match response {
        ResponseBody::AlterPartition(response) if response.error_code == 0 => outcomes(&response),
        response => {
            debug!(?response, "in-sync replicas can't be changed for now");
            return proposals;
        }
    };
    let mut again = Vec::new();
    for proposal in proposals {
        let outcome = outcomes.get(&proposal.id).unwrap_or(&AlterPartitionOutcome::Retry);
        let Some(replica) = replicas.get(proposal.id) else { continue };
        debug!(partition = %replica.name, ?proposal, ?outcome, "in-sync replicas");
        replica.on_alter_partition(&proposal, outcome);
        if *outcome == AlterPartitionOutcome::Retry {
            again.push(proposal);
        }
    }
    again
}

fn request(own: NodeId, epoch: BrokerEpoch, proposals: &[AlterPartitionProposal]) -> AlterPartitionRequest {
    let mut topics: BTreeMap<Uuid, Vec<wire::PartitionData>> = BTreeMap::new();
    for proposal in proposals {
        let member = |(replica, broker_epoch): &(NodeId, BrokerEpoch)| wire::BrokerState {
            broker_id: replica.0,
            broker_epoch: if *replica == own { epoch.0 } else { broker_epoch.0 },
        };
        topics.entry(proposal.id.topic_id).or_default().push(wire::PartitionData {
            partition_index: proposal.id.partition.0,
            leader_epoch: proposal.leader_epoch.0,
            new_isr_with_epochs: proposal.new_isr.iter().map(member).collect(),
            leader_recovery_state: i8::from(proposal.recovery_state == RecoveryState::Recovering),
            partition_epoch: proposal.partition_epoch.0,
            ..wire::PartitionData::default()
        });
    }
    let topic = |(topic_id, partitions)| wire::TopicData { topic_id, partitions };
    AlterPartitionRequest { broker_id: own.0, broker_epoch: epoch.0, topics: topics.into_iter().map(topic).collect() }
}

fn outcomes(response: &AlterPartitionResponse) -> FxHashMap<TopicIdPartition, AlterPartitionOutcome> {
    let mut outcomes = FxHashMap::default();
    for topic in &response.topics {
        for found in &topic.partitions {
            let id = TopicIdPartition { topic_id: topic.topic_id, partition: PartitionIndex(found.partition_index) };
            let outcome = match ErrorCode::from_code(found.error_code).unwrap_or(ErrorCode::UnknownServerError) {
                ErrorCode::None => AlterPartitionOutcome::Committed {
                    leader_epoch: LeaderEpoch(found.leader_epoch),
                    partition_epoch: PartitionEpoch(found.partition_epoch),
                    isr: found.isr.iter().map(|replica| NodeId(*replica)).collect(),
                },
                ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted => AlterPartitionOutcome::Ineligible,
                ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::InvalidRequest
                | ErrorCode::NewLeaderElected => AlterPartitionOutcome::GiveUp,
                _ => AlterPartitionOutcome::Retry,
            };
            outcomes.insert(id, outcome);
        }
    }
    outcomes
}
