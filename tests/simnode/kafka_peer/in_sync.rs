//! Asks the controller for other in-sync replicas, as Kafka's `AlterPartitionManager` does: one request at a time, for all that
//! wait.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ringlog_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::ErrorCode;

use super::channel::Channel;
use super::disk::Key;
use super::leading::Answer;
use super::peer::Peer;
use super::replica::Proposal;

/// Before what failed is sent again.
const AGAIN_MS: u64 = 50;
/// How long an answer is waited for.
const ANSWER_MS: u64 = 30_000;

/// Sends what replicas propose, to the end of the process.
pub async fn run(peer: Rc<Peer>) {
    let channel = Channel::default();
    loop {
        let proposals = take(&peer);
        if proposals.is_empty() {
            peer.proposed.wait().await;
            continue;
        }
        let answer = channel.ask(&peer, &request(&peer, &proposals), ANSWER_MS).await;
        let answers = answer.filter(|answer| answer.error_code == 0).map(|answer| answers(&answer)).unwrap_or_default();
        let mut is_again = false;
        for (key, proposal) in proposals {
            let answer = answers.get(&key).unwrap_or(&Answer::Later);
            sim::control().note(|| format!("{key:?}: {proposal:?} is answered {answer:?}"));
            is_again |= matches!(answer, Answer::Later);
            if let Some(replica) = peer.replica(key) {
                replica.borrow_mut().on_answer(&proposal, answer, &peer.brokers.borrow(), Peer::now_ms());
            }
        }
        peer.progress.notify_all();
        if is_again {
            sleep_ms(AGAIN_MS).await;
        }
    }
}

/// Looks for followers that lag, each half of the time that they may.
pub async fn look_for_lagging(peer: Rc<Peer>) {
    loop {
        sleep_ms((peer.settings.limits.lag_max_ms / 2).max(1)).await;
        for replica in peer.replicas.borrow().values() {
            replica.borrow_mut().propose_shrink(Peer::now_ms());
        }
        peer.proposed.notify_all();
    }
}

fn take(peer: &Peer) -> Vec<(Key, Proposal)> {
    let replicas = peer.replicas.borrow();
    let proposed = replicas.iter().filter_map(|(key, replica)| Some((*key, replica.borrow_mut().take_proposal()?)));
    proposed.collect()
}

fn request(peer: &Peer, proposals: &[(Key, Proposal)]) -> AlterPartitionRequest {
    let own = (peer.id(), peer.epoch.get());
    let mut topics: BTreeMap<_, Vec<PartitionData>> = BTreeMap::new();
    for (key, proposal) in proposals {
        let member = |(id, epoch): &(i32, i64)| BrokerState {
            broker_id: *id,
            broker_epoch: if *id == own.0 { own.1 } else { *epoch },
        };
        topics.entry(key.0).or_default().push(PartitionData {
            partition_index: key.1,
            leader_epoch: proposal.leader_epoch,
            new_isr_with_epochs: proposal.in_sync.iter().map(member).collect(),
            // A leader that was elected uncleanly has recovered by being there.
            leader_recovery_state: 0,
            partition_epoch: proposal.partition_epoch,
            ..PartitionData::default()
        });
    }
    let topic = |(topic_id, partitions)| TopicData { topic_id, partitions };
    AlterPartitionRequest { broker_id: own.0, broker_epoch: own.1, topics: topics.into_iter().map(topic).collect() }
}

fn answers(response: &AlterPartitionResponse) -> BTreeMap<Key, Answer> {
    let mut answers = BTreeMap::new();
    for topic in &response.topics {
        for it in &topic.partitions {
            let answer = match ErrorCode::from_code(it.error_code).unwrap_or(ErrorCode::UnknownServerError) {
                ErrorCode::None => Answer::Committed {
                    leader_epoch: it.leader_epoch,
                    partition_epoch: it.partition_epoch,
                    in_sync: it.isr.clone(),
                },
                ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted => Answer::Ineligible,
                ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::InvalidRequest
                | ErrorCode::NewLeaderElected => Answer::GivenUp,
                _ => Answer::Later,
            };
            answers.insert((topic.topic_id, it.partition_index), answer);
        }
    }
    answers
}
