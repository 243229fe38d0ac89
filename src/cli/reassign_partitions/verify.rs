//! `--verify`: how far a reassignment is.

use super::cluster::Cluster;
use super::fault::Fault;
use super::input::Reassignment;
use super::log_dirs;
use super::plan::{TopicPartition, join};
use crate::cli::exception::Exception;

/// Says how far each partition and each move is; when nothing is under way any more, throttles go.
pub fn run(cluster: &mut Cluster<'_>, reassignment: &Reassignment, keeps_throttles: bool) -> Result<(), Fault> {
    let targets = reassignment.assignment();
    let ongoing = cluster.ongoing(None)?;
    let settled = targets.keys().filter(|partition| !ongoing.contains_key(partition));
    let mut topics: Vec<String> = settled.map(|partition| partition.topic.clone()).collect();
    topics.dedup();
    let metadata = cluster.metadata_of(&topics)?;
    let mut lines = vec!["Status of partition reassignment:".to_owned()];
    for (partition, wanted) in &targets {
        if ongoing.contains_key(partition) {
            lines.push(format!("Reassignment of partition {partition} is still in progress."));
            continue;
        }
        let TopicPartition { topic, partition: number } = partition;
        let partitions = metadata.topics.get(topic.as_str()).map_or(0, |topic| topic.partitions.len());
        if *number < 0 && partitions > 0 {
            let text = format!("Index {number} out of bounds for length {partitions}");
            return Err(Fault::from_thrown(Exception::new("java.lang.IndexOutOfBoundsException", text)));
        }
        let current = metadata.partition(topic, *number).map_or(&[][..], |known| &known.replicas);
        lines.push(match current == wanted {
            true => format!("Reassignment of partition {partition} is completed."),
            false => format!(
                "There is no active reassignment of partition {partition}, but replica set is {} rather than {}.",
                join(current),
                join(wanted)
            ),
        });
    }
    cluster.out.line(&lines.join("\n"));
    cluster.out.flush();
    let locations = cluster.locations(reassignment.log_dirs.keys())?;
    let moves = locations.iter().zip(reassignment.log_dirs.values());
    let lines: Vec<String> =
        moves.map(|((replica, location), target)| log_dirs::describe(replica, target, location)).collect();
    cluster.out.line(&lines.join("\n"));
    let is_moving = locations.values().any(|location| location.future.is_some());
    match !ongoing.is_empty() || is_moving || keeps_throttles {
        true => Ok(()),
        false => cluster.clear_throttles(&targets, &reassignment.topics()),
    }
}
