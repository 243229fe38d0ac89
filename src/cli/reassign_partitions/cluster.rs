//! What the tool asks the cluster.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_client::{Broker, Metadata, Target};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use ringlog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ringlog_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;
use ringlog_protocol::messages::{
    DescribeLogDirsRequest, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use ringlog_types::ErrorCode;

use super::fault::Fault;
use super::input::distinct;
use super::java_hash::{self, JavaHash};
use super::plan::{Assignment, Replica, TopicPartition, join_with};
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::output::Output;

/// How long the cluster may take over a request, in milliseconds.
pub const TIMEOUT_MS: i32 = 60_000;

/// Reassignments under way, by partition.
pub type Ongoing = BTreeMap<TopicPartition, OngoingPartitionReassignment>;

/// Where a replica lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// The directory that it is in.
    pub current: Option<String>,
    /// The directory that it is being moved to.
    pub future: Option<String>,
}

/// The cluster by way of its client, and the user's terminal.
pub struct Cluster<'a> {
    /// The client.
    pub admin: &'a mut Admin,
    /// What the user sees.
    pub out: &'a mut dyn Output,
}

/// Whether the controller that was asked isn't the active one.
fn is_other_controller(code: i16) -> bool {
    code == ErrorCode::NotController.code()
}

/// Numbers of partitions by topic.
pub fn by_topic<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    topics
}

impl Cluster<'_> {
    /// The nodes that live: brokers, or controllers if those are asked.
    pub fn nodes(&mut self) -> Result<BTreeMap<i32, Broker>, Fault> {
        let nodes = self.admin.call("listNodes", self.out, |client| {
            client.refresh_metadata(Some(&[]), false).map(|metadata| metadata.brokers.clone())
        })?;
        Ok(nodes)
    }

    /// Their ids.
    pub fn node_ids(&mut self) -> Result<BTreeSet<i32>, Fault> {
        Ok(self.nodes()?.into_keys().collect())
    }

    /// Reassignments under way, of these partitions or of all.
    pub fn ongoing(&mut self, partitions: Option<&Assignment>) -> Result<Ongoing, Fault> {
        let topics = partitions.map(|partitions| {
            let topics = by_topic(partitions.keys()).into_iter().map(|(name, partition_indexes)| {
                ListPartitionReassignmentsTopics { name: StrBytes::copy_from(name), partition_indexes }
            });
            topics.collect()
        });
        let request = ListPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics };
        let is_other = |response: &ListPartitionReassignmentsResponse| is_other_controller(response.error_code);
        let call = "listPartitionReassignments";
        let response = self.admin.ask(call, Target::Controller, &request, is_other, self.out)?;
        Exception::check(response.error_code, response.error_message.as_ref())?;
        let by_partition = response.topics.into_iter().flat_map(|topic| {
            let name = String::from(topic.name);
            let key = move |partition| TopicPartition { topic: name.clone(), partition };
            topic.partitions.into_iter().map(move |it| (key(it.partition_index), it))
        });
        Ok(by_partition.collect())
    }

    /// What is known of topics; they may not exist.
    pub fn metadata_of(&mut self, topics: &[String]) -> Result<Metadata, Fault> {
        if topics.iter().any(String::is_empty) {
            let text = "The given topic name '' cannot be represented in a request.";
            return Err(Exception::new("InvalidTopicException", text).into());
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let metadata = self
            .admin
            .call("describeTopics", self.out, |client| client.refresh_metadata(Some(&names), false).cloned())?;
        Ok(metadata)
    }

    /// As [`Cluster::metadata_of`], of topics that have to exist.
    pub fn metadata_of_existing(&mut self, topics: &[String]) -> Result<Metadata, Fault> {
        let metadata = self.metadata_of(topics)?;
        for name in topics {
            let code = metadata.topics.get(name.as_str()).map(|topic| topic.error_code);
            let code = code.unwrap_or(ErrorCode::UnknownTopicOrPartition.code());
            if code == ErrorCode::UnknownTopicOrPartition.code() {
                let text = format!("Topic {name} not found.");
                return Err(Exception::new("UnknownTopicOrPartitionException", text).into());
            }
            Exception::check(code, None)?;
        }
        Ok(metadata)
    }

    /// The replicas of all partitions of these topics.
    pub fn assignment_of_topics(&mut self, topics: &[String]) -> Result<Assignment, Fault> {
        let mut topics = distinct(topics.iter().cloned());
        java_hash::sort(&mut topics, |topic| topic.java_hash());
        let metadata = self.metadata_of_existing(&topics)?;
        let mut assignment = Assignment::new();
        for name in topics {
            let known = metadata.topics.get(name.as_str());
            for partition in known.into_iter().flat_map(|topic| &topic.partitions) {
                let key = TopicPartition { topic: name.clone(), partition: partition.index };
                assignment.insert(key, partition.replicas.clone());
            }
        }
        Ok(assignment)
    }

    /// The replicas of these partitions, all of which have to exist.
    pub fn assignment_of(&mut self, partitions: &[TopicPartition]) -> Result<Assignment, Fault> {
        let topics: Vec<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        let mut known = self.assignment_of_topics(&topics)?;
        let mut missing: Vec<&TopicPartition> =
            partitions.iter().filter(|partition| !known.contains_key(partition)).collect();
        if missing.is_empty() {
            known.retain(|partition, _| partitions.contains(partition));
            return Ok(known);
        }
        java_hash::sort(&mut missing, |partition| partition.java_hash());
        let text = format!("Unable to find partition: {}", join_with(missing, ", "));
        Err(Exception::new("UnknownTopicOrPartitionException", text).into())
    }

    /// Where replicas lie. Those that aren't found have no directory.
    pub fn locations<'r>(
        &mut self,
        replicas: impl IntoIterator<Item = &'r Replica>,
    ) -> Result<BTreeMap<Replica, Location>, Fault> {
        let mut locations: BTreeMap<Replica, Location> =
            replicas.into_iter().map(|replica| (replica.clone(), Location::default())).collect();
        let brokers: BTreeSet<i32> = locations.keys().map(|replica| replica.broker).collect();
        for broker in brokers {
            let wanted = locations.keys().filter(|replica| replica.broker == broker).map(|replica| &replica.partition);
            let topics = by_topic(wanted).into_iter();
            let topic = |(name, partitions)| DescribableLogDirTopic { topic: StrBytes::copy_from(name), partitions };
            let request = DescribeLogDirsRequest { topics: Some(topics.map(topic).collect()) };
            let call = "describeReplicaLogDirs";
            let response = self.admin.ask(call, Target::Node(broker), &request, |_| false, self.out)?;
            Exception::check(response.error_code, None)?;
            for dir in response.results {
                if dir.error_code == ErrorCode::KafkaStorageError.code() {
                    continue;
                }
                Exception::check(dir.error_code, None)?;
                for topic in dir.topics {
                    for found in topic.partitions {
                        let partition = found.partition_index;
                        let partition = TopicPartition { topic: topic.name.as_str().to_owned(), partition };
                        let Some(location) = locations.get_mut(&Replica { partition, broker }) else { continue };
                        let place = if found.is_future_key { &mut location.future } else { &mut location.current };
                        *place = Some(dir.log_dir.as_str().to_owned());
                    }
                }
            }
        }
        Ok(locations)
    }

    /// Where the replicas lie that are on brokers that live.
    pub fn log_dirs(&mut self, assignment: &Assignment) -> Result<super::plan::LogDirs, Fault> {
        let alive = self.node_ids()?;
        let replicas: Vec<Replica> = replicas_of(assignment).filter(|it| alive.contains(&it.broker)).collect();
        let locations = self.locations(&replicas)?;
        Ok(locations.into_iter().filter_map(|(replica, it)| Some((replica, it.current?))).collect())
    }
}

/// All replicas.
pub fn replicas_of(assignment: &Assignment) -> impl Iterator<Item = Replica> {
    assignment.iter().flat_map(|(partition, brokers)| {
        brokers.iter().map(|broker| Replica { partition: partition.clone(), broker: *broker })
    })
}
