//! Requests that name, or mean, any number of partitions: no step decides about all of them.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    alter_partition_reassignments_request, alter_partition_request, assign_replicas_to_dirs_request,
    elect_leaders_request,
};

use super::*;

const TOPICS: [&str; 3] = ["a", "b", "c"];
const PARTITIONS: i32 = 8_000;

/// Two brokers, and topics whose partitions prefer one of them in turn. All are led by broker 2.
fn led_by_one() -> Harness {
    let mut harness = Harness::new();
    harness.start(1, 1, -1);
    harness.start(2, 2, -1);
    for name in TOPICS {
        let replicas: [&[i32]; 2] = [&[1, 2], &[2, 1]];
        let assignments: Vec<&[i32]> = (0..PARTITIONS as usize).map(|index| replicas[index % 2]).collect();
        assert_eq!(harness.create(vec![assigned(name, &assignments)]), [(ErrorCode::None, None)]);
    }
    let epoch = harness.epoch(1);
    harness.kill(1);
    harness.start(1, 1, epoch);
    // They are in sync again.
    for name in TOPICS {
        let topic = harness.replica.topics.by_name(name).unwrap().clone();
        let partitions = topic.partitions.iter().filter(|(_, it)| it.in_sync_replicas().len() < 2);
        let partitions = partitions.map(|(index, it)| alter_partition_request::PartitionData {
            partition_index: index.0,
            leader_epoch: it.leader_epoch.0,
            partition_epoch: it.partition_epoch.0,
            new_isr_with_epochs: [2, 1]
                .map(|id| alter_partition_request::BrokerState { broker_id: id, broker_epoch: -1 })
                .to_vec(),
            ..Default::default()
        });
        let topics = vec![alter_partition_request::TopicData { topic_id: topic.id, partitions: partitions.collect() }];
        let broker_epoch = harness.epoch(2);
        let response: AlterPartitionResponse =
            harness.send(AlterPartitionRequest { broker_id: 2, broker_epoch, topics });
        assert!(response.topics[0].partitions.iter().all(|it| it.error_code == 0));
    }
    harness
}

fn elected(response: &ElectLeadersResponse) -> BTreeMap<String, BTreeSet<i32>> {
    let topics = response.replica_election_results.iter().map(|topic| {
        assert!(topic.partition_result.iter().all(|it| it.error_code == 0));
        (topic.topic.to_string(), topic.partition_result.iter().map(|it| it.partition_id).collect())
    });
    topics.collect()
}

#[test]
fn leaders_of_all_partitions_are_elected_in_portions() {
    let mut harness = led_by_one();
    let response: ElectLeadersResponse =
        harness.send(ElectLeadersRequest { election_type: 0, topic_partitions: None, ..Default::default() });
    assert!(harness.portions > 2, "{} portions", harness.portions);
    assert_eq!(response.replica_election_results.len(), TOPICS.len(), "each topic once");
    let even: BTreeSet<i32> = (0..PARTITIONS).step_by(2).collect();
    assert_eq!(elected(&response), TOPICS.map(|name| (name.to_owned(), even.clone())).into());
    assert_eq!((harness.partition("b", 6).leader, harness.partition("b", 7).leader), (NodeId(1), NodeId(2)));
}

#[test]
fn so_are_leaders_of_those_that_are_named() {
    let mut harness = led_by_one();
    // One topic is named twice.
    let topics = ["a", "nope", "b", "a"].map(|name| elect_leaders_request::TopicPartitions {
        topic: name.into(),
        partitions: (0..PARTITIONS).collect(),
    });
    let request =
        ElectLeadersRequest { election_type: 0, topic_partitions: Some(topics.to_vec()), ..Default::default() };
    let response: ElectLeadersResponse = harness.send(request);
    assert!(harness.portions > 2, "{} portions", harness.portions);
    let codes = response.replica_election_results.iter().map(|topic| {
        assert!(topic.partition_result.iter().map(|it| it.partition_id).eq(0..PARTITIONS));
        (topic.topic.to_string(), topic.partition_result[0].error_code, topic.partition_result[7_999].error_code)
    });
    let (done, needless, unknown) = (0, ErrorCode::ElectionNotNeeded.code(), ErrorCode::UnknownTopicOrPartition.code());
    let expected =
        [("a", done, needless), ("nope", unknown, unknown), ("b", done, needless), ("a", needless, needless)];
    assert!(codes.eq(expected.map(|(name, first, last)| (name.to_owned(), first, last))));
}

#[test]
fn the_balancer_looks_at_a_portion_at_a_time_and_comes_to_all() {
    let mut harness = led_by_one();
    // None can be moved: broker 1 is gone again.
    let epoch = harness.epoch(1);
    harness.kill(1);
    harness.now_ms += 300_000;
    harness.heartbeat(2, |_| {});
    let mut ticks = 0;
    while harness.controller.next_deadline().is_some_and(|due| due <= harness.now().monotonic) {
        harness.tick();
        ticks += 1;
        assert!(ticks < 20, "it comes to an end");
    }
    harness.start(1, 1, epoch);
    let due = harness.controller.next_deadline().unwrap();
    assert!(due > harness.now().monotonic);
}

fn reassigned(partitions: i32, replicas: &[i32]) -> AlterPartitionReassignmentsRequest {
    let partitions =
        (0..partitions).map(|partition_index| alter_partition_reassignments_request::ReassignablePartition {
            partition_index,
            replicas: Some(replicas.to_vec()),
        });
    let topic =
        alter_partition_reassignments_request::ReassignableTopic { name: "a".into(), partitions: partitions.collect() };
    let again = alter_partition_reassignments_request::ReassignableTopic { name: "b".into(), ..topic.clone() };
    AlterPartitionReassignmentsRequest { topics: vec![topic, again], ..Default::default() }
}

#[test]
fn reassignments_are_thought_over_in_portions_and_done_at_once_or_not_at_all() {
    let mut harness = led_by_one();
    harness.start(3, 3, -1);
    let before = harness.log.len();
    // 16,000 records fit into no batch.
    let response: AlterPartitionReassignmentsResponse = harness.send(reassigned(PARTITIONS, &[3, 2]));
    let refused = (ErrorCode::PolicyViolation.code(), Some("Unable to perform excessively large batch operation."));
    assert_eq!((response.error_code, response.error_message.as_deref()), refused);
    let of_partition = &response.responses[1].partitions[7_999];
    assert_eq!((of_partition.error_code, of_partition.error_message.as_deref()), refused);
    assert_eq!(harness.log.len(), before);
    // Where nothing is to be done nothing is written.
    let response: AlterPartitionReassignmentsResponse = harness.send(reassigned(PARTITIONS, &[1, 2]));
    assert_eq!((response.error_code, harness.portions), (0, 2));
    let changed = harness.log.len() - before;
    assert_eq!(changed, PARTITIONS as usize, "the order of half of them");
    let response: AlterPartitionReassignmentsResponse = harness.send(reassigned(4_000, &[3, 2]));
    assert_eq!(response.error_code, 0);
    let response: ListPartitionReassignmentsResponse =
        harness.send(ListPartitionReassignmentsRequest { topics: None, ..Default::default() });
    let running = response.topics.iter().map(|topic| (topic.name.to_string(), topic.partitions.len()));
    assert_eq!(running.collect::<BTreeMap<_, _>>(), BTreeMap::from([("a".to_owned(), 4_000), ("b".to_owned(), 4_000)]));
}

#[test]
fn directories_of_any_number_of_replicas_are_assigned() {
    let mut harness = led_by_one();
    let online = Uuid([101; 16]);
    let directories = [online, Uuid([77; 16])].map(|id| assign_replicas_to_dirs_request::DirectoryData {
        id,
        topics: TOPICS
            .map(|name| assign_replicas_to_dirs_request::TopicData {
                topic_id: harness.replica.topics.id(name).unwrap(),
                partitions: (0..PARTITIONS)
                    .filter(|index| (index % 2 == 0) == (id == online))
                    .map(|partition_index| assign_replicas_to_dirs_request::PartitionData { partition_index })
                    .collect(),
            })
            .to_vec(),
    });
    let request =
        AssignReplicasToDirsRequest { broker_id: 1, broker_epoch: harness.epoch(1), directories: directories.to_vec() };
    let response: AssignReplicasToDirsResponse = harness.send(request);
    assert!(harness.portions > 3, "{} portions", harness.portions);
    let answered = response.directories.iter().flat_map(|directory| &directory.topics);
    assert!(answered.clone().all(|topic| topic.partitions.iter().all(|it| it.error_code == 0)));
    assert_eq!(answered.map(|topic| topic.partitions.len()).sum::<usize>(), 3 * PARTITIONS as usize);
    // The second directory isn't online, so what is assigned to it is no longer in sync.
    assert_eq!(ids(harness.partition("c", 6).in_sync_replicas()), [2, 1]);
    assert_eq!(ids(harness.partition("c", 7).in_sync_replicas()), [2]);
}
