//! `--generate`: a proposal.

use std::collections::BTreeMap;

use ringlog_client::Broker;
use ringlog_types::Random;

use super::cluster::Cluster;
use super::fault::Fault;
use super::placement;
use super::plan::{Assignment, LogDirs, TopicPartition, to_json};

/// Proposes replicas for all partitions of these topics, on these brokers.
pub fn run(
    cluster: &mut Cluster<'_>,
    topics: &[String],
    brokers: &[i32],
    is_rack_aware: bool,
    random: &mut Random,
) -> Result<(), Fault> {
    let current = cluster.assignment_of_topics(topics)?;
    let brokers = usable(cluster.nodes()?, brokers, is_rack_aware)?;
    let proposed = propose(&current, &brokers, random)?;
    let log_dirs = cluster.log_dirs(&current)?;
    cluster.out.line(&format!("Current partition replica assignment\n{}\n", to_json(&current, &log_dirs)));
    let proposal = to_json(&proposed, &LogDirs::new());
    cluster.out.line(&format!("Proposed partition reassignment configuration\n{proposal}"));
    Ok(())
}

/// Those that are wanted and there. Either all have racks or none.
fn usable(
    mut brokers: BTreeMap<i32, Broker>,
    wanted: &[i32],
    is_rack_aware: bool,
) -> Result<BTreeMap<i32, Broker>, Fault> {
    brokers.retain(|id, _| wanted.contains(id));
    if !is_rack_aware {
        brokers.values_mut().for_each(|broker| broker.rack = None);
    }
    let with_rack = brokers.values().filter(|broker| broker.rack.is_some()).count();
    if with_rack != 0 && with_rack != brokers.len() {
        return Err(Fault::operation(
            "Not all brokers have rack information. Add --disable-rack-aware in command line to make replica assignment \
             without rack information.",
        ));
    }
    Ok(brokers)
}

/// A topic keeps as many replicas as its first partition has.
fn propose(current: &Assignment, brokers: &BTreeMap<i32, Broker>, random: &mut Random) -> Result<Assignment, Fault> {
    let mut topics: BTreeMap<&str, Vec<(&TopicPartition, usize)>> = BTreeMap::new();
    for (partition, replicas) in current {
        topics.entry(&partition.topic).or_default().push((partition, replicas.len()));
    }
    let mut proposed = Assignment::new();
    for partitions in topics.into_values() {
        let factor = partitions.first().map_or(0, |(_, replicas)| *replicas);
        let placements = placement::place(brokers, partitions.len(), factor, random)?;
        proposed.extend(partitions.into_iter().map(|(partition, _)| partition.clone()).zip(placements));
    }
    Ok(proposed)
}
