//! What a leader of the metadata quorum says of itself and the others.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{ClientOptions, Connection};
use ringlog_protocol::messages::DescribeQuorumRequest;
use ringlog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use ringlog_protocol::messages::describe_quorum_response::ReplicaState;
use ringlog_types::{ErrorCode, Uuid};

/// The answer of the node that says it is the leader.
#[derive(Debug, Clone)]
pub struct QuorumView {
    /// Its id.
    pub leader: i32,
    /// Its epoch.
    pub epoch: i32,
    /// -1 while it isn't known.
    pub high_watermark: i64,
    /// Who has a vote.
    pub voters: Vec<Replica>,
    /// Who only reads.
    pub observers: Vec<Replica>,
    /// `HOST:PORT` of each voter, as told by version 2 of the answer.
    pub endpoints: Vec<(i32, String)>,
}

/// A node that reads the metadata log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Its id.
    pub id: i32,
    /// Its directory; zero with kraft.version 0.
    pub directory: Uuid,
    /// How far it has the log; -1 if that isn't known.
    pub log_end: i64,
    /// When it asked last; -1 if it never did.
    pub last_fetch_ms: i64,
}

impl QuorumView {
    /// The voters' ids.
    pub fn voter_ids(&self) -> BTreeSet<i32> {
        self.voters.iter().map(|voter| voter.id).collect()
    }

    /// The observers' ids.
    pub fn observer_ids(&self) -> BTreeSet<i32> {
        self.observers.iter().map(|observer| observer.id).collect()
    }

    /// Whether it has everything up to this offset. The same id may be there twice, with a directory that is no more.
    pub fn has_reached(&self, id: i32, offset: i64) -> bool {
        self.voters.iter().chain(&self.observers).any(|replica| replica.id == id && replica.log_end >= offset)
    }
}

/// Asks a node for its view; none if it doesn't answer within a second or says that it isn't the leader.
pub fn ask(controller: &str) -> Result<Option<QuorumView>> {
    let patience = Duration::from_secs(1);
    let options = ClientOptions { connect_timeout: patience, request_timeout: patience, ..ClientOptions::default() };
    let Ok(mut connection) = Connection::connect(controller, &options) else { return Ok(None) };
    let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![PartitionData::default()] };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let Ok(response) = connection.call(&request) else { return Ok(None) };
    let not_leader = |code: i16| {
        [ErrorCode::NotLeaderOrFollower, ErrorCode::BrokerNotAvailable].iter().any(|known| known.code() == code)
    };
    if not_leader(response.error_code) {
        return Ok(None);
    }
    ensure!(response.error_code == 0, "{controller} answers DescribeQuorum with error {}", response.error_code);
    let partition = response.topics.first().and_then(|topic| topic.partitions.first()).context("one partition")?;
    if not_leader(partition.error_code) {
        return Ok(None);
    }
    ensure!(partition.error_code == 0, "{controller} answers DescribeQuorum with error {}", partition.error_code);
    let endpoint = |node: &ringlog_protocol::messages::describe_quorum_response::Node| {
        let listener = node.listeners.first()?;
        Some((node.node_id, format!("{}:{}", listener.host, listener.port)))
    };
    Ok(Some(QuorumView {
        leader: partition.leader_id,
        epoch: partition.leader_epoch,
        high_watermark: partition.high_watermark,
        voters: partition.current_voters.iter().map(replica).collect(),
        observers: partition.observers.iter().map(replica).collect(),
        endpoints: response.nodes.iter().filter_map(endpoint).collect(),
    }))
}

fn replica(state: &ReplicaState) -> Replica {
    Replica {
        id: state.replica_id,
        directory: state.replica_directory_id,
        log_end: state.log_end_offset,
        last_fetch_ms: state.last_fetch_timestamp,
    }
}
