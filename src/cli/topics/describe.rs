//! `topics --describe`.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_client::{Client, ClientError};
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ringlog_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use ringlog_protocol::messages::describe_topic_partitions_response::{
    DescribeTopicPartitionsResponsePartition as PartitionDescription,
    DescribeTopicPartitionsResponseTopic as TopicDescription,
};
use ringlog_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ringlog_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;
use ringlog_protocol::messages::{
    DescribeConfigsRequest, DescribeTopicPartitionsRequest, ListPartitionReassignmentsRequest,
};
use ringlog_types::ErrorCode;

use super::{LIST, TIMEOUT_MS, TopicsArgs, existing_names, names, number};
use crate::cli::admin::Admin;
use crate::cli::exception::Exception;
use crate::cli::output::Output;
use crate::cli::{java_hash, java_uuid};

/// Resource type of a topic's configuration.
const TOPIC_RESOURCE: i8 = 2;
/// The source of a configuration that nobody set.
const DEFAULT_SOURCE: i8 = 5;
/// Partitions that an answer describes at most unless the user says otherwise.
const DEFAULT_PARTITION_LIMIT: i32 = 2000;
/// Answers to one description at most; each holds at least one partition.
const MAX_PAGES: usize = 1_000_000;

type Reassignments = BTreeMap<(String, i32), OngoingPartitionReassignment>;
/// Name and value, in the cluster's order.
type Configs = Vec<(String, String)>;

/// Describes what `args` select.
pub fn run(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<(), Exception> {
    let names = selected(admin, args, out)?;
    if names.is_empty() {
        return Ok(());
    }
    let limit = number(args.partition_size_limit_per_response.as_ref(), "partition-size-limit-per-response")?;
    let limit = limit.unwrap_or(DEFAULT_PARTITION_LIMIT);
    let described = admin.call("describeTopics", out, |client| describe_topics(client, &names, limit))?;
    let topics = described?;
    let configs = describe_configs(admin, &names, out)?;
    let reassignments = list_reassignments(admin, &topics, out)?;
    let live: BTreeSet<i32> = admin.metadata("describeCluster", out)?.brokers.keys().copied().collect();
    // Kafka's tool has them in a map.
    let ordered = java_hash::sized_iteration_order(topics.iter().collect(), |topic| {
        java_hash::of_text(topic.name.as_deref().unwrap_or_default())
    });
    for topic in ordered {
        let name = topic.name.as_deref().unwrap_or_default();
        let empty = Configs::new();
        let description = Description {
            name,
            topic,
            configs: configs.get(name).unwrap_or(&empty),
            reassignments: &reassignments,
            live: &live,
        };
        description.print(args, out);
    }
    Ok(())
}

/// By id if one is given that isn't zero, else by name.
fn selected(admin: &mut Admin, args: &TopicsArgs, out: &mut dyn Output) -> Result<Vec<String>, Exception> {
    let Some(text) = &args.topic_id else { return existing_names(admin, args, out) };
    let id = java_uuid::parse(text).map_err(|fault| Exception::argument(fault.to_string()))?;
    if id.is_zero() {
        return existing_names(admin, args, out);
    }
    let all = TopicsArgs { topic: None, ..args.clone() };
    let names = names(admin, &all, out)?;
    let metadata = admin.metadata(LIST, out)?;
    let has_id = |name: &String| metadata.topics.get(name.as_str()).is_some_and(|topic| topic.id == id);
    let found: Vec<String> = names.into_iter().filter(has_id).collect();
    match found.is_empty() && !args.if_exists {
        true => Err(Exception::argument(format!("TopicId '{id}' does not exist as expected"))),
        false => Ok(found),
    }
}

/// The descriptions, or what the cluster says of a topic that it can't describe.
fn describe_topics(
    client: &mut Client,
    names: &[String],
    limit: i32,
) -> Result<Result<Vec<TopicDescription>, Exception>, ClientError> {
    let mut sorted = names.to_vec();
    sorted.sort();
    let mut cursor: Option<Cursor> = None;
    let mut topics: Vec<TopicDescription> = Vec::new();
    for _ in 0..MAX_PAGES {
        let from = cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str()).to_owned();
        let wanted = sorted.iter().filter(|name| **name >= from);
        let request = DescribeTopicPartitionsRequest {
            topics: wanted.map(|name| TopicRequest { name: StrBytes::copy_from(name) }).collect(),
            response_partition_limit: limit,
            cursor: cursor.take(),
        };
        let response = match client.send(&request) {
            Err(ClientError::UnsupportedApi { .. }) => return Ok(Ok(from_metadata(client, &sorted))),
            outcome => outcome?,
        };
        for topic in response.topics {
            if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                continue; // Deleted in the meantime.
            }
            if let Err(fault) = Exception::check(topic.error_code, None) {
                return Ok(Err(fault));
            }
            match topics.last_mut() {
                Some(last) if last.name == topic.name => last.partitions.extend(topic.partitions),
                _ => topics.push(topic),
            }
        }
        match response.next_cursor {
            Some(next) => {
                cursor = Some(Cursor { topic_name: next.topic_name, partition_index: next.partition_index });
            }
            None => break,
        }
    }
    Ok(Ok(topics))
}

/// For a cluster that doesn't know DescribeTopicPartitions: no eligible leader replicas then.
fn from_metadata(client: &Client, names: &[String]) -> Vec<TopicDescription> {
    let known = names.iter().filter_map(|name| client.metadata().topics.get(name.as_str()));
    let describe = |topic: &ringlog_client::Topic| TopicDescription {
        name: Some(StrBytes::copy_from(&topic.name)),
        topic_id: topic.id,
        is_internal: topic.is_internal,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionDescription {
                partition_index: partition.index,
                leader_id: partition.leader,
                leader_epoch: partition.leader_epoch,
                replica_nodes: partition.replicas.clone(),
                isr_nodes: partition.in_sync_replicas.clone(),
                eligible_leader_replicas: None,
                last_known_elr: None,
                ..PartitionDescription::default()
            })
            .collect(),
        ..TopicDescription::default()
    };
    known.map(describe).collect()
}

/// What isn't at its default, by topic.
fn describe_configs(
    admin: &mut Admin,
    names: &[String],
    out: &mut dyn Output,
) -> Result<BTreeMap<String, Configs>, Exception> {
    let resource = |name: &String| DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: StrBytes::copy_from(name),
        configuration_keys: None,
    };
    let request =
        DescribeConfigsRequest { resources: names.iter().map(resource).collect(), ..DescribeConfigsRequest::default() };
    let response = admin.call("describeConfigs", out, |client| client.send(&request))?;
    let mut configs = BTreeMap::new();
    for result in response.results {
        if result.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            continue;
        }
        Exception::check(result.error_code, result.error_message.as_ref())?;
        let set = result.configs.into_iter().filter(|config| config.config_source != DEFAULT_SOURCE);
        let pairs = set.map(|config| (String::from(config.name), config.value.map(String::from).unwrap_or_default()));
        configs.insert(String::from(result.resource_name), pairs.collect());
    }
    Ok(configs)
}

/// Reassignments under way; none if the user may not ask, as in Kafka's tool.
fn list_reassignments(
    admin: &mut Admin,
    topics: &[TopicDescription],
    out: &mut dyn Output,
) -> Result<Reassignments, Exception> {
    let wanted = topics.iter().map(|topic| ListPartitionReassignmentsTopics {
        name: topic.name.clone().unwrap_or_default(),
        partition_indexes: topic.partitions.iter().map(|partition| partition.partition_index).collect(),
    });
    let request = ListPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics: Some(wanted.collect()) };
    let response =
        admin.call("listPartitionReassignments", out, |client| match client.send_to_controller(&request) {
            Err(ClientError::UnsupportedApi { .. }) => Ok(None),
            outcome => outcome.map(Some),
        })?;
    let Some(response) = response else { return Ok(Reassignments::new()) };
    if response.error_code == ErrorCode::ClusterAuthorizationFailed.code() {
        return Ok(Reassignments::new());
    }
    Exception::check(response.error_code, response.error_message.as_ref())?;
    let by_partition = response.topics.into_iter().flat_map(|topic| {
        let name = String::from(topic.name);
        topic.partitions.into_iter().map(move |it| ((name.clone(), it.partition_index), it))
    });
    Ok(by_partition.collect())
}

struct Description<'a> {
    name: &'a str,
    topic: &'a TopicDescription,
    configs: &'a Configs,
    reassignments: &'a Reassignments,
    live: &'a BTreeSet<i32>,
}

impl Description<'_> {
    fn print(&self, args: &TopicsArgs, out: &mut dyn Output) {
        let filters = [
            args.under_replicated_partitions,
            args.unavailable_partitions,
            args.under_min_isr_partitions,
            args.at_min_isr_partitions,
        ];
        let has_filter = filters.contains(&true);
        if args.topics_with_overrides {
            if !self.configs.is_empty() {
                out.line(&self.header());
            }
            return;
        }
        if !has_filter {
            out.line(&self.header());
        }
        for partition in &self.topic.partitions {
            if !has_filter || self.is_selected(args, partition) {
                out.line(&self.partition_line(partition));
            }
        }
    }

    fn header(&self) -> String {
        let configs: Vec<String> = self.configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let replication_factor = self.topic.partitions.first().map_or(0, |first| self.replication_factor(first));
        let id = match self.topic.topic_id {
            id if id.is_zero() => String::new(),
            id => format!("\tTopicId: {id}"),
        };
        format!(
            "Topic: {}{id}\tPartitionCount: {}\tReplicationFactor: {replication_factor}\tConfigs: {}",
            self.name,
            self.topic.partitions.len(),
            configs.join(",")
        )
    }

    fn reassignment(&self, partition: &PartitionDescription) -> Option<&OngoingPartitionReassignment> {
        self.reassignments.get(&(self.name.to_owned(), partition.partition_index))
    }

    /// Replicas that are only being added don't count.
    fn replication_factor(&self, partition: &PartitionDescription) -> usize {
        let adding = self.reassignment(partition).map_or(0, |it| it.adding_replicas.len());
        partition.replica_nodes.len().saturating_sub(adding)
    }

    fn is_selected(&self, args: &TopicsArgs, partition: &PartitionDescription) -> bool {
        let min_isr = self.configs.iter().find(|(key, _)| key == "min.insync.replicas");
        let min_isr = min_isr.and_then(|(_, value)| value.parse::<usize>().ok()).unwrap_or(1);
        let isr = partition.isr_nodes.len();
        args.under_replicated_partitions && isr < self.replication_factor(partition)
            || args.unavailable_partitions && !self.live.contains(&partition.leader_id)
            || args.under_min_isr_partitions && isr < min_isr
            || args.at_min_isr_partitions && isr == min_isr
    }

    fn partition_line(&self, partition: &PartitionDescription) -> String {
        let leader = match partition.leader_id {
            id if id < 0 => "none".to_owned(),
            id => id.to_string(),
        };
        let mut line = format!(
            "\tTopic: {}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}",
            self.name,
            partition.partition_index,
            join(&partition.replica_nodes),
            join(&partition.isr_nodes),
        );
        if let Some(reassignment) = self.reassignment(partition) {
            line += &format!("\tAdding Replicas: {}", join(&reassignment.adding_replicas));
            line += &format!("\tRemoving Replicas: {}", join(&reassignment.removing_replicas));
        }
        let or_unknown = |nodes: &Option<Vec<i32>>| nodes.as_ref().map_or("N/A".to_owned(), |nodes| join(nodes));
        line += &format!("\tElr: {}", or_unknown(&partition.eligible_leader_replicas));
        line += &format!("\tLastKnownElr: {}", or_unknown(&partition.last_known_elr));
        line
    }
}

fn join(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
