//! Random sequences: a second replayer agrees after every step, and the state stays sound.

use ringlog_protocol::messages::DeleteTopicsResponse;
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::delete_topics_request::DeleteTopicState;
use ringlog_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, DeleteTopicsRequest,
};
use ringlog_types::Random;

use super::leadership::alter;
use super::*;

pub(super) fn check(harness: &Harness) {
    for topic in harness.replica.topics.iter() {
        for partition in topic.partitions.values() {
            let is_replica = |id: &NodeId| partition.replicas().contains(id);
            assert!(partition.in_sync_replicas().iter().all(is_replica));
            assert!(partition.eligible_leader_replicas().iter().all(|id| !partition.in_sync_replicas().contains(id)));
            assert_eq!(partition.replicas().len(), partition.directories().len());
            if partition.has_leader() {
                assert!(partition.in_sync_replicas().contains(&partition.leader));
                assert!(harness.replica.cluster.is_active(partition.leader));
            }
        }
    }
    let version = harness.replica.metadata_version();
    let mut delta = MetadataDelta::new(&MetadataImage::empty());
    for record in harness.replica.to_records(version) {
        delta.replay(&record.record).unwrap();
    }
    assert_eq!(delta.apply(Provenance::EMPTY).0, harness.replica);
}

#[test]
fn replayers_agree_and_leaders_are_in_sync_and_alive() {
    for seed in 0..6 {
        let mut random = Random::from_seed(seed);
        let mut harness = Harness::with(|config| config.min_in_sync_replicas = 2);
        let mut life = 1;
        for id in 11..16 {
            harness.start(id, life, -1);
        }
        for step in 0..60 {
            let id = 11 + random.below(5) as i32;
            let is_fenced = harness.replica.cluster.broker(NodeId(id)).unwrap().is_fenced;
            match random.below(6) {
                0 => {
                    let name = format!("topic-{step}");
                    let result = harness.create(vec![topic(&name, 1 + random.below(4) as i32, 3)]);
                    let all_fenced = harness.replica.cluster.brokers.values().all(|broker| broker.is_fenced);
                    assert_eq!(result[0].0.is_none(), !all_fenced, "{result:?}");
                }
                1 if !is_fenced => harness.kill(id),
                1 | 2 if is_fenced => {
                    life += 1;
                    let previous = if random.below(2) == 0 { harness.epoch(id) } else { -1 };
                    harness.start(id, life, previous);
                }
                3 => {
                    let name = harness.replica.topics.iter().map(|topic| topic.name.to_string()).min();
                    if let (Some(name), 0) = (name, random.below(3)) {
                        let topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
                        let response: DeleteTopicsResponse =
                            harness.send(DeleteTopicsRequest { topics, ..Default::default() });
                        assert_eq!(response.responses[0].error_code, 0);
                    }
                }
                4 => reassign(&mut harness, &mut random),
                _ => grow(&mut harness),
            }
            check(&harness);
        }
    }
}

fn reassign(harness: &mut Harness, random: &mut Random) {
    let Some(name) = harness.replica.topics.iter().map(|topic| topic.name.to_string()).max() else { return };
    let first = random.below(5) as i32;
    let replicas = (0..3).map(|offset| 11 + (first + offset) % 5).collect();
    let partition = ReassignablePartition { partition_index: 0, replicas: Some(replicas) };
    let topics = vec![ReassignableTopic { name: name.into(), partitions: vec![partition] }];
    let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
    let response: AlterPartitionReassignmentsResponse = harness.send(request);
    assert_eq!(response.responses[0].partitions[0].error_code, 0);
}

/// Leaders take back every replica that is up.
fn grow(harness: &mut Harness) {
    let names: Vec<String> = harness.replica.topics.iter().map(|topic| topic.name.to_string()).collect();
    for name in names {
        let partition = harness.partition(&name, 0).clone();
        if partition.has_leader() {
            let is_up = |id: &&NodeId| harness.replica.cluster.is_active(**id);
            let members: Vec<i32> = partition.replicas().iter().filter(is_up).map(|id| id.0).collect();
            let (_, result) = alter(harness, &name, partition.leader.0, &members, |_| {});
            assert!(matches!(result, ErrorCode::None | ErrorCode::NewLeaderElected), "{result}");
        }
    }
}
