//! Where partitions are led, as any broker tells.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::MetadataRequest;
use ringlog_protocol::messages::metadata_request::MetadataRequestTopic;
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::Uuid;

use super::Shared;
use super::connection::{CallFault, Connection};

const CALL_LIMIT_MS: u64 = 10_000;
const PAUSE_MS: u64 = 50;
/// How soon a client asks again where partitions are that have no leader.
pub const ASK_AGAIN_MS: u64 = 300;
const TRIES: usize = 8;

/// What is known of a topic.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// Its id.
    pub topic_id: Uuid,
    /// Its partitions' leaders, by partition; -1 for none.
    pub leaders: BTreeMap<i32, i32>,
    /// The epochs of these.
    pub epochs: BTreeMap<i32, i32>,
    /// How many replicas are in sync, and how many there are, by partition.
    pub in_sync: BTreeMap<i32, (usize, usize)>,
}

/// Asks one broker after the other for a topic with all its partitions; none when none of them knows it.
pub async fn route(shared: &Rc<Shared>, name: &str, partitions: i32) -> Option<Route> {
    for _ in 0..TRIES {
        let addresses: Vec<_> = shared.brokers.values().copied().collect();
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        if let Ok(mut connection) = Connection::open(address).await {
            match ask(&mut connection, name).await {
                Ok(Some(route)) if route.leaders.len() == partitions as usize => return Some(route),
                Ok(_) => {}
                Err(fault) => shared.judge("metadata", &fault),
            }
        }
        sleep_ms(PAUSE_MS + sim::draw(PAUSE_MS)).await;
    }
    None
}

/// What one node says of a topic; none when it doesn't know it.
pub async fn ask(connection: &mut Connection, name: &str) -> Result<Option<Route>, CallFault> {
    let topic = MetadataRequestTopic { name: Some(StrBytes::copy_from(name)), ..MetadataRequestTopic::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
    let found = connection.call(&request, CALL_LIMIT_MS).await?.topics.into_iter().next();
    Ok(found.filter(|topic| topic.error_code == 0).map(|topic| Route {
        topic_id: topic.topic_id,
        leaders: topic.partitions.iter().map(|it| (it.partition_index, it.leader_id)).collect(),
        epochs: topic.partitions.iter().map(|it| (it.partition_index, it.leader_epoch)).collect(),
        in_sync: topic
            .partitions
            .iter()
            .map(|it| (it.partition_index, (it.isr_nodes.len(), it.replica_nodes.len())))
            .collect(),
    }))
}
