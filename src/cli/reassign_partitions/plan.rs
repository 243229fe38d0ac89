//! What a reassignment is made of: partitions, their replicas, and where these lie.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// A partition. They are ordered by topic and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}-{}", self.topic, self.partition)
    }
}

/// A partition on a broker. They are ordered by broker and partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The broker.
    pub broker: i32,
    /// The partition.
    pub partition: TopicPartition,
}

impl fmt::Display for Replica {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}-{}", self.partition, self.broker)
    }
}

/// Replicas by partition, the preferred one first.
pub type Assignment = BTreeMap<TopicPartition, Vec<i32>>;
/// Log directories by replica.
pub type LogDirs = BTreeMap<Replica, String>;

/// The directory of a replica that may be in any.
pub const ANY: &str = "any";

/// The text of a reassignment file. Replicas without a directory may be in any.
pub fn to_json(assignment: &Assignment, log_dirs: &LogDirs) -> String {
    let partitions: Vec<String> = assignment
        .iter()
        .map(|(partition, replicas)| {
            let dir = |broker: &i32| {
                let replica = Replica { partition: partition.clone(), broker: *broker };
                log_dirs.get(&replica).map_or(ANY, String::as_str)
            };
            // Kafka's order of keys, which isn't the alphabet's.
            format!(
                "{{\"topic\":{},\"partition\":{},\"replicas\":{},\"log_dirs\":{}}}",
                Value::from(partition.topic.as_str()),
                partition.partition,
                json!(replicas),
                json!(replicas.iter().map(dir).collect::<Vec<_>>())
            )
        })
        .collect();
    format!("{{\"version\":1,\"partitions\":[{}]}}", partitions.join(","))
}

/// Numbers or names with `,` between them.
pub fn join<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    join_with(items, ",")
}

/// The same with anything between them.
pub fn join_with<T: fmt::Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

/// The end of a word of which there are so many.
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
