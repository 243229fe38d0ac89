//! The files that the tool is given: reassignments, and topics to move.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::fault::Fault;
use super::java_hash::{self, JavaHash};
use super::json::Json;
use super::plan::{ANY, Assignment, LogDirs, Replica, TopicPartition, join, join_with};
use crate::cli::exception::Exception;

/// What a reassignment file says.
#[derive(Debug, Default)]
pub struct Reassignment {
    /// Each partition with its replicas, as often as the file has it.
    pub partitions: Vec<(TopicPartition, Vec<i32>)>,
    /// Where replicas shall lie that may not be in any directory.
    pub log_dirs: LogDirs,
}

/// A file's text.
pub fn read(path: &str) -> Result<String, Fault> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|fault| {
        let outer = Exception::new("java.io.IOException", format!("Unable to read file {path}"));
        Fault::Thrown(vec![outer, Exception::file(path, &fault)])
    })
}

fn mapping(message: String) -> Fault {
    Fault::from_thrown(Exception::new("com.fasterxml.jackson.databind.JsonMappingException", message))
}

fn fields(value: &Json) -> Result<&[(String, Json)], Fault> {
    match value {
        Json::Object(fields) => Ok(fields),
        other => Err(mapping(format!("Expected JSON object, received {other}"))),
    }
}

fn find<'a>(fields: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn get<'a>(fields: &'a [(String, Json)], name: &str) -> Result<&'a Json, Fault> {
    find(fields, name).ok_or_else(|| mapping(format!("No such field exists: `{name}`")))
}

fn unexpected(expected: &str, value: &Json) -> Fault {
    mapping(format!("Expected `{expected}` value, received {value}"))
}

fn integer(value: &Json) -> Result<i32, Fault> {
    let number = if let Json::Number(text) = value { text.parse().ok() } else { None };
    number.ok_or_else(|| unexpected("Integer", value))
}

fn string(value: &Json) -> Result<String, Fault> {
    if let Json::String(text) = value { Ok(text.clone()) } else { Err(unexpected("String", value)) }
}

fn list<T>(value: &Json, item: impl Fn(&Json) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    match value {
        Json::Array(items) => items.iter().map(item).collect(),
        other => Err(unexpected("JSON array", other)),
    }
}

/// The items of the list that a file of version 1 has under this name.
fn items<'a>(file: &'a Json, name: &str) -> Result<&'a [Json], Fault> {
    let fields = fields(file)?;
    match find(fields, "version").map(integer).transpose()? {
        None | Some(1) => {}
        Some(other) => return Err(Fault::operation(format!("Not supported version field value {other}"))),
    }
    match find(fields, name) {
        None => Ok(&[]),
        Some(Json::Array(items)) => Ok(items),
        Some(other) => Err(mapping(format!("Expected JSON array, received {other}"))),
    }
}

impl Reassignment {
    /// Reads a reassignment.
    pub fn parse(text: &str) -> Result<Reassignment, Fault> {
        let file = Json::parse(text).map_err(|fault| {
            let cause = Exception::new(fault.class, fault.to_string());
            Fault::operation(fault.to_string()).caused_by(Fault::from_thrown(cause))
        })?;
        let mut reassignment = Reassignment::default();
        for item in items(&file, "partitions")? {
            let fields = fields(item)?;
            let topic = string(get(fields, "topic")?)?;
            let partition = TopicPartition { topic, partition: integer(get(fields, "partition")?)? };
            let replicas = list(get(fields, "replicas")?, integer)?;
            let log_dirs = find(fields, "log_dirs").map(|value| list(value, string)).transpose()?;
            if let Some(log_dirs) = &log_dirs {
                if log_dirs.len() != replicas.len() {
                    return Err(Fault::command_failed(format!(
                        "Size of replicas list [{}] is different from size of log dirs list [{}] for partition \
                         {partition}",
                        join_with(&replicas, ", "),
                        join_with(log_dirs, ", ")
                    )));
                }
                for (broker, log_dir) in replicas.iter().zip(log_dirs).filter(|(_, log_dir)| *log_dir != ANY) {
                    let replica = Replica { partition: partition.clone(), broker: *broker };
                    reassignment.log_dirs.insert(replica, log_dir.clone());
                }
            }
            reassignment.partitions.push((partition, replicas));
        }
        Ok(reassignment)
    }

    /// Replicas by partition; where the file has a partition twice, the last.
    pub fn assignment(&self) -> Assignment {
        self.partitions.iter().cloned().collect()
    }

    /// The topics in the order in which Kafka's tool names them.
    pub fn topics(&self) -> Vec<String> {
        let mut topics = distinct(self.partitions.iter().map(|(partition, _)| partition.topic.clone()));
        java_hash::sort(&mut topics, |topic| topic.java_hash());
        topics
    }

    /// A reassignment that is to be executed has partitions, each once, and each with replicas on different brokers.
    pub fn check(&self) -> Result<(), Fault> {
        if self.partitions.is_empty() {
            return Err(Fault::command_failed("Partition reassignment list cannot be empty"));
        }
        if self.partitions.iter().any(|(_, replicas)| replicas.is_empty()) {
            return Err(Fault::command_failed("Partition replica list cannot be empty"));
        }
        let mut again = repeated(self.partitions.iter().map(|(partition, _)| partition));
        if !again.is_empty() {
            java_hash::sort(&mut again, |partition| partition.java_hash());
            let text = format!("Partition reassignment contains duplicate topic partitions: {}", join(again));
            return Err(Fault::command_failed(text));
        }
        let entries: Vec<String> = self
            .partitions
            .iter()
            .map(|(partition, replicas)| (partition, repeated(replicas)))
            .filter(|(_, again)| !again.is_empty())
            .map(|(partition, mut again)| {
                java_hash::sort(&mut again, |broker| **broker);
                format!("{partition} contains multiple entries for {}", join(again))
            })
            .collect();
        match entries.is_empty() {
            true => Ok(()),
            false => Err(Fault::command_failed(format!(
                "Partition replica lists may not contain duplicate entries: {}",
                entries.join(". ")
            ))),
        }
    }
}

/// Reads the topics that are to be moved.
pub fn parse_topics(text: &str) -> Result<Vec<String>, Fault> {
    let file = Json::parse(text).map_err(|_| Fault::operation("The input string is not a valid JSON"))?;
    let topics: Vec<String> = items(&file, "topics")?
        .iter()
        .map(|item| string(get(fields(item)?, "topic")?))
        .collect::<Result<_, Fault>>()?;
    let mut again = repeated(&topics);
    if again.is_empty() {
        return Ok(topics);
    }
    java_hash::sort(&mut again, |topic| topic.java_hash());
    let again = join_with(again, ", ");
    Err(Fault::command_failed(format!("List of topics to reassign contains duplicate entries: [{again}]")))
}

/// Reads `1,2,3`.
pub fn parse_brokers(text: &str) -> Result<Vec<i32>, Fault> {
    // Java drops empty parts at the end, unless there is nothing else.
    let trimmed = text.trim_end_matches(',');
    let parts = if trimmed.is_empty() && !text.is_empty() { Vec::new() } else { trimmed.split(',').collect() };
    let number = |part: &str| {
        let message = format!("For input string: \"{part}\"");
        part.parse::<i32>().map_err(|_| Fault::from_thrown(Exception::new("java.lang.NumberFormatException", message)))
    };
    let brokers: Vec<i32> = parts.into_iter().map(number).collect::<Result<_, Fault>>()?;
    let mut again = repeated(&brokers);
    if again.is_empty() {
        return Ok(brokers);
    }
    java_hash::sort(&mut again, |broker| **broker);
    let again = join_with(again, ", ");
    Err(Fault::command_failed(format!("Broker list contains duplicate entries: [{again}]")))
}

/// Each item once, in the order of its first place.
pub fn distinct<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

/// What is there more than once, in the order of its first place.
fn repeated<'a, T: Ord>(items: impl IntoIterator<Item = &'a T>) -> Vec<&'a T> {
    let items: Vec<&T> = items.into_iter().collect();
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    items.iter().for_each(|item| *counts.entry(*item).or_default() += 1);
    distinct(items).into_iter().filter(|item| counts[item] > 1).collect()
}
