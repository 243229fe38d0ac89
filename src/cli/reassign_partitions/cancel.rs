//! `--cancel`: ends reassignments before they are done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cluster::Cluster;
use super::execute::lines;
use super::fault::Fault;
use super::input::Reassignment;
use super::plan::{LogDirs, TopicPartition, join, plural};
use crate::cli::exception::Exception;

/// Cancels what is under way of a reassignment, and takes its throttles away unless they are to be kept.
pub fn run(
    cluster: &mut Cluster<'_>,
    reassignment: &Reassignment,
    timeout: Duration,
    keeps_throttles: bool,
) -> Result<(), Fault> {
    let targets = reassignment.assignment();
    targets.keys().try_for_each(check)?;
    let ongoing = cluster.ongoing(Some(&targets))?;
    if ongoing.is_empty() {
        cluster.out.line("None of the specified partition reassignments are active.");
    } else {
        let none = ongoing.into_keys().map(|partition| (partition, None));
        let cancelled: BTreeMap<TopicPartition, Option<Vec<i32>>> = none.collect();
        let errors = cluster.reassign(&cancelled, true)?;
        if !errors.is_empty() {
            let text =
                format!("Error cancelling partition reassignment{} for:\n{}", plural(errors.len()), lines(&errors));
            return Err(Fault::Terse(text));
        }
        let (end, all) = (plural(cancelled.len()), join(cancelled.keys()));
        cluster.out.line(&format!("Successfully cancelled partition reassignment{end} for: {all}"));
    }
    cluster.out.flush();
    let locations = cluster.locations(reassignment.log_dirs.keys())?;
    let moving = locations.into_iter().filter(|(_, location)| location.future.is_some());
    let back: LogDirs = moving.filter_map(|(replica, location)| Some((replica, location.current?))).collect();
    if back.is_empty() {
        // Without a line's end in Kafka's tool, too.
        cluster.out.write(b"None of the specified partition moves are active.");
    } else {
        cluster.move_replicas(&back, timeout)?;
    }
    match keeps_throttles {
        true => Ok(()),
        false => cluster.clear_throttles(&targets, &reassignment.topics()),
    }
}

/// What Kafka's client doesn't ask about.
fn check(partition: &TopicPartition) -> Result<(), Fault> {
    let text = if partition.topic.is_empty() {
        "The given topic name '' cannot be represented in a request.".to_owned()
    } else if partition.partition < 0 {
        format!("The given partition index {} is not valid.", partition.partition)
    } else {
        return Ok(());
    };
    Err(Exception::new("InvalidTopicException", text).into())
}
