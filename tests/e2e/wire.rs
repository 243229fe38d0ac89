//! Requests as the tests want them, without a client that knows better: one partition's batch at a time, many at once, answers
//! that nobody reads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ringlog_client::{ClientOptions, Connection};
use ringlog_protocol::Records;
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use ringlog_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use ringlog_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_protocol::messages::produce_response::PartitionProduceResponse;
use ringlog_protocol::records::{BatchBuilder, BatchOptions};
use ringlog_types::{ErrorCode, TimestampMs};

use crate::node::Node;
use crate::wait_until;

/// Versions that name topics instead of giving their ids.
pub const PRODUCE_VERSION: i16 = 9;
/// See [`PRODUCE_VERSION`].
pub const FETCH_VERSION: i16 = 11;

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a node, with so much patience for an answer.
pub fn connect(node: &Node, patience: Duration) -> Result<Connection> {
    let options = ClientOptions { request_timeout: patience, ..ClientOptions::default() };
    Ok(Connection::connect(&node.bootstrap(), &options)?)
}

/// A batch of one record.
pub fn batch(value_bytes: usize) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(TimestampMs(now), None, Some(&vec![b'v'; value_bytes]), &[]);
    builder.build()
}

/// The same batch for each of the partitions, acks=-1.
pub fn produce(topic: &str, partitions: impl IntoIterator<Item = i32>, batch: &Bytes) -> ProduceRequest {
    let data =
        partitions.into_iter().map(|index| PartitionProduceData { index, records: Some(Records::from(batch.clone())) });
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned().into(),
            partition_data: data.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// Produces, and gives the partitions' answers.
pub fn produced(connection: &mut Connection, request: &ProduceRequest) -> Result<Vec<PartitionProduceResponse>> {
    let response = connection.call_in_version(request, PRODUCE_VERSION, Duration::ZERO)?;
    Ok(response.responses.into_iter().next().context("the topic's answer")?.partition_responses)
}

/// Produces to one partition; the error of it.
pub fn produced_to(connection: &mut Connection, topic: &str, partition: i32, value_bytes: usize) -> Result<ErrorCode> {
    produced_once_known(connection, &produce(topic, [partition], &batch(value_bytes)))
}

/// The error of the one partition that is produced to, once this part of this broker knows of it: what a broker tells of its
/// metadata and what it can be asked for come a moment after each other, in both kinds.
pub fn produced_once_known(connection: &mut Connection, request: &ProduceRequest) -> Result<ErrorCode> {
    wait_until("a partition to be known where it is led", PATIENCE, || {
        let answers = produced(connection, request)?;
        let code = error(answers.first().context("the partition's answer")?.error_code)?;
        let is_known = !matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::NotLeaderOrFollower);
        Ok(is_known.then_some(code))
    })
}

/// What a number in an answer means.
pub fn error(code: i16) -> Result<ErrorCode> {
    ErrorCode::from_code(code).with_context(|| format!("error {code}"))
}

/// Fetches from the beginning of each of the partitions.
pub fn fetch(topic: &str, partitions: impl IntoIterator<Item = i32>, max_bytes: i32) -> FetchRequest {
    let partitions = partitions.into_iter().map(|partition| FetchPartition {
        partition,
        partition_max_bytes: max_bytes,
        ..FetchPartition::default()
    });
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes,
        topics: vec![FetchTopic {
            topic: topic.to_owned().into(),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// Fetches from the beginning of one partition.
pub fn fetched(connection: &mut Connection, topic: &str, partition: i32, max_bytes: i32) -> Result<PartitionData> {
    let response = connection.call_in_version(&fetch(topic, [partition], max_bytes), FETCH_VERSION, Duration::ZERO)?;
    let topic = response.responses.into_iter().next().context("the topic's answer")?;
    topic.partitions.into_iter().next().context("the partition's answer")
}

/// Makes a topic with one replica of each partition on the only broker, and waits until it can be written to.
pub fn create_topic(node: &Node, topic: &str, partitions: i32) -> Result<()> {
    let mut client = node.client()?;
    let topics = vec![CreatableTopic {
        name: topic.to_owned().into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    }];
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..CreateTopicsRequest::default() };
    let response = client.send_to_controller(&request)?;
    let made = response.topics.first().context("the topic's answer")?;
    ensure!(made.error_code == 0, "creating {topic}: {:?} {:?}", error(made.error_code)?, made.error_message);
    let mut connection = connect(node, PATIENCE)?;
    // Logs are made in no particular order.
    wait_until("the topic's partitions", PATIENCE, || {
        let request = fetch(topic, 0..partitions, 1);
        let answer = connection.call_in_version(&request, FETCH_VERSION, Duration::ZERO)?;
        let answers: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).collect();
        let all_serve = answers.len() == partitions as usize && answers.iter().all(|answer| answer.error_code == 0);
        Ok(all_serve.then_some(()))
    })
}

/// Deletes a topic.
pub fn delete_topic(node: &Node, topic: &str) -> Result<()> {
    let topics = vec![DeleteTopicState { name: Some(topic.to_owned().into()), ..DeleteTopicState::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..DeleteTopicsRequest::default() };
    let response = node.client()?.send_to_controller(&request)?;
    let deleted = response.responses.first().context("the topic's answer")?;
    ensure!(deleted.error_code == 0, "deleting {topic}: {:?}", error(deleted.error_code)?);
    Ok(())
}

/// Sets one key of a topic.
pub fn alter_topic(node: &Node, topic: &str, key: &str, value: &str) -> Result<()> {
    alter(node, 2, topic, key, value)
}

/// Sets one key of all brokers.
pub fn alter_brokers(node: &Node, key: &str, value: &str) -> Result<()> {
    alter(node, 4, "", key, value)
}

fn alter(node: &Node, resource_type: i8, name: &str, key: &str, value: &str) -> Result<()> {
    let config =
        AlterableConfig { name: key.to_owned().into(), config_operation: 0, value: Some(value.to_owned().into()) };
    let resource = AlterConfigsResource { resource_type, resource_name: name.to_owned().into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = node.client()?.send_to_controller(&request)?;
    let answer = response.responses.first().context("an answer")?;
    ensure!(answer.error_code == 0, "{key}={value}: {:?}", answer.error_message);
    Ok(())
}
