//! `--execute`: begins a reassignment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringlog_client::Target;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use ringlog_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use ringlog_types::ErrorCode;

use super::cluster::{Cluster, TIMEOUT_MS};
use super::fault::Fault;
use super::input::{Reassignment, distinct};
use super::java_hash;
use super::plan::{TopicPartition, join, join_with, plural, to_json};
use super::throttle::Moves;
use crate::cli::exception::Exception;

/// How a reassignment is to begin.
#[derive(Debug)]
pub struct Execution {
    /// Whether others may be under way.
    pub is_additional: bool,
    /// Bytes a second between brokers; negative if there is no limit.
    pub rate: i64,
    /// The same between log directories.
    pub log_dirs_rate: i64,
    /// How long to wait for moves between log directories to begin.
    pub timeout: Duration,
    /// Whether partitions may get more or fewer replicas.
    pub may_change_factor: bool,
}

const IN_THE_WAY: &str = "Cannot execute because there is an existing partition assignment.  Use --additional to \
                          override this and create a new partition assignment in addition to the existing one. The \
                          --additional flag can also be used to change the throttle by resubmitting the current \
                          reassignment.";

/// Begins the reassignment that the file describes.
pub fn run(cluster: &mut Cluster<'_>, reassignment: &Reassignment, how: &Execution) -> Result<(), Fault> {
    reassignment.check()?;
    let proposed = reassignment.assignment();
    let ongoing = cluster.ongoing(None)?;
    if !how.is_additional && !ongoing.is_empty() {
        return Err(Fault::Terse(IN_THE_WAY.to_owned()));
    }
    check_brokers(cluster, reassignment)?;
    let partitions: Vec<TopicPartition> = proposed.keys().cloned().collect();
    let current = cluster.assignment_of(&partitions)?;
    let log_dirs = cluster.log_dirs(&current)?;
    cluster.out.line(&format!(
        "Current partition replica assignment\n\n{}\n\nSave this to use as the --reassignment-json-file option during \
         rollback",
        to_json(&current, &log_dirs)
    ));
    if how.rate >= 0 || how.log_dirs_rate >= 0 {
        cluster.out.line(
            "Warning: You must run --verify periodically, until the reassignment completes, to ensure the throttle is \
             removed.",
        );
        cluster.out.flush();
    }
    if how.rate >= 0 {
        cluster.throttle_moves(&Moves::new(&ongoing, &proposed, &current), how.rate)?;
        cluster.out.line(&format!("The inter-broker throttle limit was set to {} B/s", how.rate));
    }
    if how.log_dirs_rate >= 0 {
        let brokers: BTreeSet<i32> = reassignment.log_dirs.keys().map(|replica| replica.broker).collect();
        cluster.throttle_log_dirs(&brokers, how.log_dirs_rate)?;
        cluster.out.line(&format!("The replica-alter-dir throttle limit was set to {} B/s", how.log_dirs_rate));
    }
    let targets = proposed.into_iter().map(|(partition, replicas)| (partition, Some(replicas))).collect();
    let errors = cluster.reassign(&targets, how.may_change_factor)?;
    if !errors.is_empty() {
        return Err(Fault::Terse(format!("Error reassigning partition(s):\n{}", lines(&errors))));
    }
    let (end, all) = (plural(targets.len()), join(targets.keys()));
    cluster.out.line(&format!("Successfully started partition reassignment{end} for {all}"));
    cluster.out.flush();
    cluster.move_replicas(&reassignment.log_dirs, how.timeout)
}

/// `TOPIC-PARTITION: why`
pub fn lines(errors: &BTreeMap<TopicPartition, String>) -> String {
    join_with(errors.iter().map(|(partition, error)| format!("{partition}: {error}")), "\n")
}

/// Replicas can go only to brokers that live.
fn check_brokers(cluster: &mut Cluster<'_>, reassignment: &Reassignment) -> Result<(), Fault> {
    let alive = cluster.node_ids()?;
    let replicas = reassignment.partitions.iter().flat_map(|(_, replicas)| replicas);
    let mut brokers = distinct(replicas.copied());
    java_hash::sort(&mut brokers, |broker| *broker);
    match brokers.iter().find(|broker| !alive.contains(broker)) {
        Some(unknown) => Err(Fault::command_failed(format!("Unknown broker id {unknown}"))),
        None => Ok(()),
    }
}

impl Cluster<'_> {
    /// Asks for these replicas, or with `None` for an end of what is under way. Why it is refused, by partition.
    pub fn reassign(
        &mut self,
        targets: &BTreeMap<TopicPartition, Option<Vec<i32>>>,
        may_change_factor: bool,
    ) -> Result<BTreeMap<TopicPartition, String>, Fault> {
        let mut topics: Vec<ReassignableTopic> = Vec::new();
        for (TopicPartition { topic, partition }, replicas) in targets {
            let partition = ReassignablePartition { partition_index: *partition, replicas: replicas.clone() };
            match topics.last_mut() {
                Some(last) if last.name.as_str() == topic => last.partitions.push(partition),
                _ => topics.push(ReassignableTopic { name: StrBytes::copy_from(topic), partitions: vec![partition] }),
            }
        }
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: TIMEOUT_MS,
            allow_replication_factor_change: may_change_factor,
            topics,
        };
        let is_other =
            |response: &AlterPartitionReassignmentsResponse| response.error_code == ErrorCode::NotController.code();
        let call = "alterPartitionReassignments";
        let response = self.admin.ask(call, Target::Controller, &request, is_other, self.out)?;
        Exception::check(response.error_code, response.error_message.as_ref())?;
        let mut errors = BTreeMap::new();
        for topic in response.responses {
            for result in topic.partitions {
                let checked = Exception::check(result.error_code, result.error_message.as_ref());
                if let Err(fault) = checked {
                    let topic = topic.name.as_str().to_owned();
                    errors.insert(TopicPartition { topic, partition: result.partition_index }, fault.message);
                }
            }
        }
        Ok(errors)
    }
}
