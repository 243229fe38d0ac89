//! Fetches as bytes on the wire: which version, which session, which partitions, and how long the answer took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringlog_client::{Client, ClientOptions, Connection};
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic, ReplicaState};
use ringlog_protocol::messages::fetch_response::FetchResponse;
use ringlog_types::{ErrorCode, Uuid};

use crate::wait_until;

/// From this version on topics are named by id.
pub const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// From this version on the request says in a structure who fetches.
const FIRST_WITH_REPLICA_STATE: i16 = 15;
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic as a test knows it.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

/// One partition of a fetch.
#[derive(Debug, Clone)]
pub struct Part {
    /// Named by id or by name as the version has it.
    pub topic: Topic,
    /// Which partition.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// The leader epoch that the client knows, -1 for none.
    pub leader_epoch: i32,
    /// Bytes wanted of it.
    pub max_bytes: i32,
}

impl Part {
    /// A partition from this offset on, without an epoch.
    pub fn of(topic: &Topic, partition: i32, offset: i64) -> Part {
        Part { topic: topic.clone(), partition, offset, leader_epoch: -1, max_bytes: 1 << 20 }
    }
}

/// Everything of a fetch but its partitions.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The request's version.
    pub version: i16,
    /// A broker that replicates.
    pub follower: Option<i32>,
    /// Session id and epoch; (0, -1) for none, (0, 0) for a new one.
    pub session: (i32, i32),
    /// How long the node may wait.
    pub max_wait: Duration,
    /// What ends the wait.
    pub min_bytes: i32,
    /// Bytes wanted in all.
    pub max_bytes: i32,
}

impl Wanted {
    /// A consumer that asks without a session and doesn't wait.
    pub fn at_once(version: i16) -> Wanted {
        Wanted {
            version,
            follower: None,
            session: (0, -1),
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: i32::MAX,
        }
    }

    /// The request for these partitions.
    pub fn request(&self, parts: &[Part]) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for part in parts {
            let wanted = FetchPartition {
                partition: part.partition,
                fetch_offset: part.offset,
                current_leader_epoch: part.leader_epoch,
                partition_max_bytes: part.max_bytes,
                log_start_offset: if self.follower.is_some() { 0 } else { -1 },
                ..FetchPartition::default()
            };
            let mut topic = FetchTopic { partitions: vec![wanted], ..FetchTopic::default() };
            if self.version >= FIRST_WITH_TOPIC_IDS {
                topic.topic_id = part.topic.id;
            } else {
                topic.topic = part.topic.name.clone().into();
            }
            topics.push(topic);
        }
        let replica = self.follower.unwrap_or(-1);
        let has_state = self.version >= FIRST_WITH_REPLICA_STATE;
        FetchRequest {
            replica_id: if has_state { -1 } else { replica },
            replica_state: ReplicaState { replica_id: if has_state { replica } else { -1 }, replica_epoch: -1 },
            max_wait_ms: self.max_wait.as_millis() as i32,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            session_id: if self.version >= 7 { self.session.0 } else { 0 },
            session_epoch: if self.version >= 7 { self.session.1 } else { -1 },
            topics,
            ..FetchRequest::default()
        }
    }

    /// Sends it and waits.
    pub fn fetch(&self, connection: &mut Connection, parts: &[Part]) -> Result<Fetched> {
        let started = Instant::now();
        let response =
            connection.call_in_version(&self.request(parts), self.version, self.max_wait).context("a fetch")?;
        Ok(Fetched { response, took: started.elapsed() })
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The response.
    pub response: FetchResponse,
    /// How long it took.
    pub took: Duration,
}

impl Fetched {
    /// The errors of the answered partitions that have one, in order.
    pub fn errors(&self) -> Vec<ErrorCode> {
        let codes = self.response.responses.iter().flat_map(|topic| &topic.partitions);
        codes.filter(|data| data.error_code != 0).map(|data| known(data.error_code)).collect()
    }

    /// Bytes of records in all.
    pub fn bytes(&self) -> usize {
        let answered = self.response.responses.iter().flat_map(|topic| &topic.partitions);
        answered.filter_map(|data| data.records.as_ref()).map(|records| records.len()).sum()
    }
}

/// An error code as this project knows it.
pub fn known(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// A connection to a node.
pub fn connect(address: &str) -> Result<Connection> {
    Ok(Connection::connect(address, &ClientOptions::default())?)
}

/// Creates a topic whose partitions are on these brokers, and waits until `bootstrap` knows it and every leader serves it.
pub fn create(bootstrap: &str, name: &str, replicas: &[Vec<i32>], configs: &[(&str, &str)]) -> Result<Topic> {
    let assigned = |(partition_index, broker_ids): (i32, &Vec<i32>)| CreatableReplicaAssignment {
        partition_index,
        broker_ids: broker_ids.clone(),
    };
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned().into(),
        value: Some((*value).to_owned().into()),
    };
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned().into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: (0..).zip(replicas).map(assigned).collect(),
            configs: configs.iter().map(config).collect(),
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let mut client = Client::connect(bootstrap, ClientOptions::default())?;
    let id = wait_until(&format!("topic {name}"), PATIENCE, || {
        let response = client.send(&request)?;
        let topic = response.topics.first().context("an answer for the topic")?;
        match known(topic.error_code) {
            ErrorCode::None => Ok(Some(topic.topic_id)),
            // A new broker may not be unfenced yet, and an old topic of that name not gone everywhere.
            error if error.is_retriable() || error == ErrorCode::TopicAlreadyExists => Ok(None),
            error => anyhow::bail!("topic {name} can't be created: {error} {:?}", topic.error_message),
        }
    })?;
    let topic = Topic { name: name.to_owned(), id };
    // What a broker tells of its metadata, and what it and others can be asked for, come a moment after each other.
    wait_until(&format!("topic {name} to be served"), PATIENCE, || {
        let metadata = client.refresh_metadata(Some(&[name]), false)?;
        let there = metadata.topics.get(name);
        let Some(there) = there.filter(|topic| topic.id == id && topic.partitions.len() == replicas.len()) else {
            return Ok(None);
        };
        let mut led: BTreeMap<i32, Vec<Part>> = BTreeMap::new();
        for partition in &there.partitions {
            led.entry(partition.leader).or_default().push(Part::of(&topic, partition.index, 0));
        }
        for (leader, parts) in led {
            let Some(broker) = metadata.brokers.get(&leader) else { return Ok(None) };
            let request = Wanted { max_bytes: 1, ..Wanted::at_once(FIRST_WITH_TOPIC_IDS) };
            if !request.fetch(&mut connect(&broker.address())?, &parts)?.errors().is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    Ok(topic)
}

/// Deletes a topic.
pub fn delete(bootstrap: &str, topic: &Topic) -> Result<()> {
    let state = DeleteTopicState { name: None, topic_id: topic.id };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 30_000, ..DeleteTopicsRequest::default() };
    let response = Client::connect(bootstrap, ClientOptions::default())?.send(&request)?;
    let code = known(response.responses.first().context("an answer for the topic")?.error_code);
    anyhow::ensure!(code == ErrorCode::None, "topic {} can't be deleted: {code}", topic.name);
    Ok(())
}
