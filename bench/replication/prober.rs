//! A producer that tries again and again, and knows what became of each try.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringlog_client::{Client, ClientOptions, Connection};
use ringlog_e2e_tests::wire;
use ringlog_types::ErrorCode;

const VALUE_BYTES: usize = 100;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged by all in sync.
    Acknowledged,
    /// Somebody else has to be asked, or later.
    Again,
    /// A client would give up.
    Failed(ErrorCode),
}

/// It asks some of the brokers who leads.
pub struct Prober {
    topic: String,
    bootstrap: Vec<String>,
    connections: BTreeMap<String, Connection>,
    leaders: BTreeMap<i32, String>,
}

impl Prober {
    /// Produces to this topic.
    pub fn new(topic: &str, bootstrap: Vec<String>) -> Prober {
        Prober { topic: topic.to_owned(), bootstrap, connections: BTreeMap::new(), leaders: BTreeMap::new() }
    }

    fn options() -> ClientOptions {
        let limit = Duration::from_secs(2);
        ClientOptions { connect_timeout: limit, request_timeout: limit, ..ClientOptions::default() }
    }

    fn find_leader(&mut self, partition: i32) -> Option<String> {
        if let Some(known) = self.leaders.get(&partition) {
            return Some(known.clone());
        }
        for bootstrap in &self.bootstrap {
            let Ok(mut client) = Client::connect(bootstrap.as_str(), Prober::options()) else { continue };
            let Ok(metadata) = client.refresh_metadata(Some(&[self.topic.as_str()]), false) else { continue };
            let Some(topic) = metadata.topics.get(self.topic.as_str()) else { continue };
            for partition in &topic.partitions {
                if let Some(broker) = metadata.brokers.get(&partition.leader) {
                    self.leaders.insert(partition.index, format!("{}:{}", broker.host, broker.port));
                }
            }
            break;
        }
        self.leaders.get(&partition).cloned()
    }

    /// One record.
    pub fn produce(&mut self, partition: i32) -> Result<Outcome> {
        let Some(leader) = self.find_leader(partition) else { return Ok(Outcome::Again) };
        if !self.connections.contains_key(&leader) {
            let Ok(connection) = Connection::connect(&leader, &Prober::options()) else {
                self.leaders.clear();
                return Ok(Outcome::Again);
            };
            self.connections.insert(leader.clone(), connection);
        }
        let connection = self.connections.get_mut(&leader).context("it was just made")?;
        let Ok(code) = wire::produced_to(connection, &self.topic, partition, VALUE_BYTES) else {
            self.connections.remove(&leader);
            self.leaders.clear();
            return Ok(Outcome::Again);
        };
        if code == ErrorCode::None {
            return Ok(Outcome::Acknowledged);
        }
        self.leaders.clear();
        Ok(if code.is_retriable() { Outcome::Again } else { Outcome::Failed(code) })
    }
}
