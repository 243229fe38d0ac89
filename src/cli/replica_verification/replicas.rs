//! What the brokers hold: each is asked for its replicas of the partitions, from where they were the same so far.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ringlog_client::{Client, ClientError};
use ringlog_protocol::Records;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ringlog_protocol::messages::{FetchRequest, FetchResponse};
use ringlog_types::Uuid;

/// A replica that belongs to no broker: for whoever looks into logs, wherever they lie.
const DEBUGGING_REPLICA: i32 = -2;
/// The first version that names topics by their ids.
const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// The first version in which a replica is named apart.
const FIRST_WITH_REPLICA_STATE: i16 = 15;
/// What an answer that didn't come says of the high watermark.
const NO_HIGH_WATERMARK: i64 = -1;

/// A topic's partition.
pub type Partition = (String, i32);

/// What is compared.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The topic's id; zero if the cluster has none.
    pub topic_id: Uuid,
    /// The brokers that have a replica.
    pub replicas: Vec<i32>,
    /// Up to here the replicas are the same.
    pub offset: i64,
}

/// What a replica holds from an offset on.
#[derive(Debug, Clone)]
pub struct Held {
    /// Up to here it knows the records to be on all replicas in sync.
    pub high_watermark: i64,
    /// Batches.
    pub records: Bytes,
}

/// By partition what its replicas hold, by broker.
pub type Round = BTreeMap<Partition, BTreeMap<i32, Held>>;

/// How much is asked for, and how long a broker waits for something new.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of each partition.
    pub fetch_size: i32,
    /// Milliseconds.
    pub max_wait_ms: i32,
}

/// Asks all brokers at once. A replica whose broker doesn't answer holds nothing. With the round comes whether any broker
/// has answered.
pub fn fetch(client: &mut Client, watched: &BTreeMap<Partition, Watched>, limits: Limits) -> (Round, bool) {
    let mut round = Round::new();
    let mut brokers: BTreeMap<i32, BTreeMap<&Partition, &Watched>> = BTreeMap::new();
    for (partition, state) in watched {
        for broker in &state.replicas {
            let nothing = Held { high_watermark: NO_HIGH_WATERMARK, records: Bytes::new() };
            round.entry(partition.clone()).or_default().insert(*broker, nothing);
            brokers.entry(*broker).or_default().insert(partition, state);
        }
    }
    let is_sent =
        |(broker, wanted): &(i32, BTreeMap<&Partition, &Watched>)| send(client, *broker, wanted, limits).is_ok();
    let asked: Vec<(i32, BTreeMap<&Partition, &Watched>)> = brokers.into_iter().filter(is_sent).collect();
    let extra = Duration::from_millis(u64::from(limits.max_wait_ms.unsigned_abs()));
    let mut is_answered = false;
    for (broker, wanted) in asked {
        if let Ok(response) = client.on_node(broker, |connection| connection.receive::<FetchRequest>(extra)) {
            is_answered = true;
            take(&mut round, broker, &wanted, response);
        }
    }
    (round, is_answered)
}

fn send(
    client: &mut Client,
    broker: i32,
    wanted: &BTreeMap<&Partition, &Watched>,
    limits: Limits,
) -> Result<(), ClientError> {
    let mut topics: BTreeMap<&str, FetchTopic> = BTreeMap::new();
    for ((topic, partition), state) in wanted {
        let of_topic = topics.entry(topic).or_insert_with(|| FetchTopic {
            topic: topic.as_str().to_owned().into(),
            topic_id: state.topic_id,
            ..FetchTopic::default()
        });
        of_topic.partitions.push(FetchPartition {
            partition: *partition,
            fetch_offset: state.offset,
            partition_max_bytes: limits.fetch_size,
            ..FetchPartition::default()
        });
    }
    let have_ids = topics.values().all(|topic| !topic.topic_id.is_zero());
    client.on_node(broker, |connection| {
        let limit = if have_ids { i16::MAX } else { FIRST_WITH_TOPIC_IDS - 1 };
        let version = connection.version_up_to::<FetchRequest>(limit)?;
        let by_id = version >= FIRST_WITH_TOPIC_IDS;
        let topics = topics.into_values().map(|topic| match by_id {
            true => FetchTopic { topic: "".into(), ..topic },
            false => FetchTopic { topic_id: Uuid::ZERO, ..topic },
        });
        let mut request = FetchRequest {
            max_wait_ms: limits.max_wait_ms,
            min_bytes: 1,
            max_bytes: i32::MAX,
            session_epoch: -1,
            topics: topics.collect(),
            ..FetchRequest::default()
        };
        match version >= FIRST_WITH_REPLICA_STATE {
            true => request.replica_state = ReplicaState { replica_id: DEBUGGING_REPLICA, replica_epoch: -1 },
            false => request.replica_id = DEBUGGING_REPLICA,
        }
        connection.send_request(&request, version).map(drop)
    })
}

fn take(round: &mut Round, broker: i32, wanted: &BTreeMap<&Partition, &Watched>, response: FetchResponse) {
    for topic in response.responses {
        for data in topic.partitions {
            let is_meant = |(partition, state): &(&&Partition, &&Watched)| {
                let is_topic = match topic.topic_id.is_zero() {
                    true => partition.0 == topic.topic.as_str(),
                    false => state.topic_id == topic.topic_id,
                };
                is_topic && partition.1 == data.partition_index
            };
            let Some((partition, _)) = wanted.iter().find(is_meant) else { continue };
            let records = data.records.map(Records::into_contiguous).unwrap_or_default();
            let held = Held { high_watermark: data.high_watermark, records };
            if let Some(replicas) = round.get_mut(*partition) {
                replicas.insert(broker, held);
            }
        }
    }
}
