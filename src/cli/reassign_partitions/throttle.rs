//! Throttles: how many bytes a second brokers may move, and which replicas that is about (KIP-73).

use std::collections::{BTreeMap, BTreeSet};

use ringlog_client::Target;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::cluster::{Cluster, Ongoing};
use super::fault::Fault;
use super::input::distinct;
use super::java_hash;
use super::plan::{Assignment, TopicPartition, join, plural};
use crate::cli::exception::Exception;

const LEADER_RATE: &str = "leader.replication.throttled.rate";
const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";
const LOG_DIRS_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
const LEADER_REPLICAS: &str = "leader.replication.throttled.replicas";
const FOLLOWER_REPLICAS: &str = "follower.replication.throttled.replicas";

/// Resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Operations on a configuration.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Who gives a partition's data to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Move {
    sources: BTreeSet<i32>,
    destinations: BTreeSet<i32>,
}

/// All that moves once a reassignment has begun.
#[derive(Debug)]
pub struct Moves(BTreeMap<TopicPartition, Move>);

impl Moves {
    /// What is under way and what is proposed. Where both are about a partition, its sources are those of the former.
    pub fn new(ongoing: &Ongoing, proposed: &Assignment, current: &Assignment) -> Moves {
        let mut moves = BTreeMap::new();
        for (partition, reassignment) in ongoing {
            let destinations: BTreeSet<i32> = reassignment.adding_replicas.iter().copied().collect();
            let sources = reassignment.replicas.iter().copied().filter(|it| !destinations.contains(it)).collect();
            moves.insert(partition.clone(), Move { sources, destinations });
        }
        for (partition, replicas) in proposed {
            let moved = moves.entry(partition.clone()).or_insert_with(|| {
                let sources = current.get(partition).into_iter().flatten().copied().collect();
                Move { sources, destinations: BTreeSet::new() }
            });
            moved.destinations = replicas.iter().copied().filter(|it| !moved.sources.contains(it)).collect();
        }
        Moves(moves)
    }

    /// The brokers that have a part in it.
    pub fn brokers(&self) -> BTreeSet<i32> {
        self.0.values().flat_map(|it| it.sources.union(&it.destinations)).copied().collect()
    }

    /// `PARTITION:BROKER,…` by topic, in the alphabet's order.
    fn throttled(&self, side: impl Fn(&Move) -> &BTreeSet<i32>) -> BTreeMap<&str, String> {
        let mut topics: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (partition, moved) in &self.0 {
            let replicas = topics.entry(&partition.topic).or_default();
            replicas.extend(side(moved).iter().map(|broker| format!("{}:{broker}", partition.partition)));
        }
        topics.into_iter().map(|(topic, replicas)| (topic, join(replicas))).collect()
    }
}

fn resource(resource_type: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsResource {
    let config = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: StrBytes::copy_from(name),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(StrBytes::copy_from),
    };
    let configs = configs.iter().map(config).collect();
    AlterConfigsResource { resource_type, resource_name: StrBytes::copy_from(name), configs }
}

impl Cluster<'_> {
    fn alter(&mut self, target: Target, resources: Vec<AlterConfigsResource>) -> Result<(), Fault> {
        if resources.is_empty() {
            return Ok(());
        }
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let response: IncrementalAlterConfigsResponse =
            self.admin.ask("incrementalAlterConfigs", target, &request, |_| false, self.out)?;
        let mut results = response.responses.iter();
        Ok(results.try_for_each(|result| Exception::check(result.error_code, result.error_message.as_ref()))?)
    }

    /// A broker is told itself, or by the controller if controllers are asked.
    fn alter_brokers(&mut self, brokers: &BTreeSet<i32>, configs: &[(&str, Option<&str>)]) -> Result<(), Fault> {
        let of = |broker: &i32| resource(BROKER, &broker.to_string(), configs);
        if self.admin.asks_controllers() {
            return self.alter(Target::Controller, brokers.iter().map(of).collect());
        }
        // Those that live first: the others are waited for in vain.
        let alive = self.node_ids()?;
        let (first, last): (Vec<i32>, Vec<i32>) = brokers.iter().partition(|broker| alive.contains(broker));
        first.iter().chain(&last).try_for_each(|broker| self.alter(Target::Node(*broker), vec![of(broker)]))
    }

    fn set_rate(&mut self, brokers: &BTreeSet<i32>, keys: &[&str], rate: i64) -> Result<(), Fault> {
        let rate = rate.to_string();
        let configs: Vec<(&str, Option<&str>)> = keys.iter().map(|key| (*key, Some(rate.as_str()))).collect();
        self.alter_brokers(brokers, &configs)
    }

    /// Says which replicas are throttled, and by how much.
    pub fn throttle_moves(&mut self, moves: &Moves, rate: i64) -> Result<(), Fault> {
        let (leaders, followers) = (moves.throttled(|it| &it.sources), moves.throttled(|it| &it.destinations));
        let resources = leaders.iter().map(|(topic, leaders)| {
            let followers = followers.get(topic).map_or("", String::as_str);
            resource(TOPIC, topic, &[(LEADER_REPLICAS, Some(leaders)), (FOLLOWER_REPLICAS, Some(followers))])
        });
        self.alter(Target::Any, resources.collect())?;
        self.set_rate(&moves.brokers(), &[LEADER_RATE, FOLLOWER_RATE], rate)
    }

    /// Throttles what is moved between log directories.
    pub fn throttle_log_dirs(&mut self, brokers: &BTreeSet<i32>, rate: i64) -> Result<(), Fault> {
        self.set_rate(brokers, &[LOG_DIRS_RATE], rate)
    }

    /// Takes all throttles away that a reassignment may have set.
    pub fn clear_throttles(&mut self, assignment: &Assignment, topics: &[String]) -> Result<(), Fault> {
        let alive = self.node_ids()?;
        let mut brokers = distinct(alive.iter().chain(assignment.values().flatten()).copied());
        java_hash::sort(&mut brokers, |broker| *broker);
        let (end, all) = (plural(brokers.len()), join(&brokers));
        self.out.line(&format!("Clearing broker-level throttles on broker{end} {all}"));
        self.out.flush();
        let brokers = brokers.into_iter().collect();
        self.alter_brokers(&brokers, &[LEADER_RATE, FOLLOWER_RATE, LOG_DIRS_RATE].map(|key| (key, None)))?;
        let (end, all) = (plural(topics.len()), join(topics));
        self.out.line(&format!("Clearing topic-level throttles on topic{end} {all}"));
        self.out.flush();
        let none = [LEADER_REPLICAS, FOLLOWER_REPLICAS].map(|key| (key, None));
        self.alter(Target::Any, topics.iter().map(|topic| resource(TOPIC, topic, &none)).collect())
    }
}

#[cfg(test)]
mod tests {
    use ringlog_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;

    use super::*;

    fn partition(partition: i32) -> TopicPartition {
        TopicPartition { topic: "t".to_owned(), partition }
    }

    #[test]
    fn sources_are_those_of_what_is_under_way() {
        let reassignment = OngoingPartitionReassignment {
            replicas: vec![4, 1, 2],
            adding_replicas: vec![4],
            removing_replicas: vec![2],
            ..OngoingPartitionReassignment::default()
        };
        let ongoing = Ongoing::from([(partition(10), reassignment)]);
        let proposed = Assignment::from([(partition(10), vec![3, 1, 2]), (partition(2), vec![5, 6])]);
        let current = Assignment::from([(partition(10), vec![4, 1, 2]), (partition(2), vec![6])]);
        let moves = Moves::new(&ongoing, &proposed, &current);
        assert_eq!(moves.throttled(|it| &it.sources)["t"], "10:1,10:2,2:6");
        assert_eq!(moves.throttled(|it| &it.destinations)["t"], "10:3,2:5");
        assert_eq!(moves.brokers(), BTreeSet::from([1, 2, 3, 5, 6]));
    }
}
