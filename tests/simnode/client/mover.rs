//! An admin that moves replicas between brokers and between their directories, takes it back, and has leaders elected.

use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use ringlog_protocol::messages::elect_leaders_request::TopicPartitions;
use ringlog_protocol::messages::{AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ElectLeadersRequest};
use ringlog_ring::{sim, sleep_ms};

use super::connection::{CallFault, Connection};
use super::{Shared, admin};
use crate::plan::NodePlan;

const CALL_LIMIT_MS: u64 = 45_000;
const TIMEOUT_MS: i32 = 10_000;
/// It isn't moving.
const NOT_MOVING: i16 = 85;
/// The topic isn't known yet, or a broker isn't.
const NOT_KNOWN: [i16; 2] = [3, 39];
/// Nobody has to be elected; who is preferred isn't up; nobody who may lead is.
const ELECTION: [i16; 6] = [3, 7, 41, 80, 83, 84];
/// The topic isn't known there, or the broker has no replica: it remembers where one is to be made.
const NOT_THERE: [i16; 2] = [3, 9];
/// The group coordinator's topic.
const OFFSETS: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: u64 = 3;

/// Runs to the end of the run.
pub async fn run(shared: Rc<Shared>) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        if let Ok(mut connection) = Connection::open(address).await {
            for _ in 0..1 + sim::draw(4) {
                if shared.is_over.get() {
                    break;
                }
                if let Err(fault) = step(&shared, &mut connection).await {
                    shared.judge("mover", &fault);
                    break;
                }
                sleep_ms(sim::draw(800)).await;
            }
        }
        sleep_ms(50 + sim::draw(300)).await;
    }
}

/// A topic, and one of its partitions.
fn draw_partition(shared: &Shared) -> (String, i32) {
    if sim::draw(5) == 0 {
        return (OFFSETS.to_owned(), sim::draw(OFFSETS_PARTITIONS) as i32);
    }
    let topics = &shared.plan.topics;
    let topic = &topics[sim::draw(topics.len() as u64) as usize];
    (topic.name.clone(), sim::draw(topic.partitions as u64) as i32)
}

async fn step(shared: &Rc<Shared>, connection: &mut Connection) -> Result<(), CallFault> {
    let (topic, partition) = draw_partition(shared);
    match sim::draw(11) {
        8.. => change_directory(shared, &topic, partition).await,
        0..=2 => elect(shared, connection, &topic, partition).await,
        3 => reassign(shared, connection, (&topic, partition), None).await,
        _ => {
            let replicas = draw_replicas(shared);
            reassign(shared, connection, (&topic, partition), Some(replicas)).await
        }
    }
}

/// Brokers in some order: two at least, so that acknowledgements by two are possible.
fn draw_replicas(shared: &Shared) -> Vec<i32> {
    let mut brokers: Vec<i32> = shared.brokers.keys().copied().collect();
    for place in (1..brokers.len()).rev() {
        brokers.swap(place, sim::draw(place as u64 + 1) as usize);
    }
    let usual = shared.plan.replicas as usize;
    let count = if sim::draw(3) == 0 { 2 + sim::draw(brokers.len() as u64 - 1) as usize } else { usual };
    brokers.truncate(count);
    brokers
}

async fn reassign(
    shared: &Rc<Shared>,
    connection: &mut Connection,
    (topic, partition): (&str, i32),
    replicas: Option<Vec<i32>>,
) -> Result<(), CallFault> {
    let is_cancel = replicas.is_none();
    sim::control().note(|| format!("mover: {topic}-{partition} to {replicas:?}"));
    let partition = ReassignablePartition { partition_index: partition, replicas };
    let topic = ReassignableTopic { name: StrBytes::copy_from(topic), partitions: vec![partition] };
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: TIMEOUT_MS,
        topics: vec![topic],
        ..AlterPartitionReassignmentsRequest::default()
    };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    if answer.error_code != 0 {
        shared.judge_code("mover", answer.error_code, &admin::RETRIABLE);
        return Ok(());
    }
    let found = answer.responses.iter().flat_map(|topic| &topic.partitions).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    match found.error_code {
        0 => {}
        NOT_MOVING if is_cancel => {}
        code => shared.judge_code("mover", code, &[&NOT_KNOWN[..], &admin::RETRIABLE].concat()),
    }
    Ok(())
}

/// On some broker with several directories a replica is to lie in one of them.
async fn change_directory(shared: &Rc<Shared>, topic: &str, partition: i32) -> Result<(), CallFault> {
    let has_some = |node: &&NodePlan| node.is_broker && node.log_dirs > 1;
    let nodes: Vec<&NodePlan> = shared.plan.nodes.iter().filter(has_some).collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let node = nodes[sim::draw(nodes.len() as u64) as usize];
    let path = node.directories()[sim::draw(node.log_dirs as u64) as usize].clone();
    sim::control().note(|| format!("mover: {topic}-{partition} of {} to {path}", node.id));
    let topic = AlterReplicaLogDirTopic { name: StrBytes::copy_from(topic), partitions: vec![partition] };
    let directory = AlterReplicaLogDir { path: StrBytes::copy_from(&path), topics: vec![topic] };
    let mut connection = Connection::open(shared.brokers[&node.id]).await?;
    let answer = connection.call(&AlterReplicaLogDirsRequest { dirs: vec![directory] }, CALL_LIMIT_MS).await?;
    let found = answer.results.iter().flat_map(|topic| &topic.partitions).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    if found.error_code != 0 {
        shared.judge_code("mover, of a directory", found.error_code, &NOT_THERE);
    }
    Ok(())
}

async fn elect(shared: &Rc<Shared>, connection: &mut Connection, topic: &str, partition: i32) -> Result<(), CallFault> {
    let is_unclean = shared.plan.is_unclean && sim::draw(2) == 0;
    let partitions = TopicPartitions { topic: StrBytes::copy_from(topic), partitions: vec![partition] };
    let request = ElectLeadersRequest {
        election_type: i8::from(is_unclean),
        topic_partitions: Some(vec![partitions]),
        timeout_ms: TIMEOUT_MS,
    };
    let answer = connection.call(&request, CALL_LIMIT_MS).await?;
    let results = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    for code in results.map(|result| result.error_code).chain([answer.error_code]).filter(|code| *code != 0) {
        shared.judge_code("mover, of an election", code, &ELECTION);
    }
    Ok(())
}
