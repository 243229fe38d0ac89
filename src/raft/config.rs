//! What the machine must know about its node and the quorum's timing.

use ringlog_types::{NodeId, Uuid};

use crate::voters::{Endpoint, Endpoints, ReplicaKey};

/// Settings of one node. All times in milliseconds, all sizes in bytes.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// `node.id`.
    pub node_id: NodeId,
    /// Id of the directory that holds the metadata log (`directory.id` of its meta.properties).
    pub directory_id: Uuid,
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether this node has the controller role. Without it the node is an observer for ever.
    pub is_controller: bool,
    /// This node's advertised controller listeners. Empty on a broker.
    pub endpoints: Endpoints,
    /// First of `controller.listener.names`: the listener by which quorum members reach each other.
    pub default_listener: String,
    /// `controller.quorum.bootstrap.servers`; if empty, the voters of the static configuration are asked.
    pub bootstrap_servers: Vec<Endpoint>,
    /// `controller.quorum.election.timeout.ms`.
    pub election_timeout_ms: u64,
    /// `controller.quorum.fetch.timeout.ms`.
    pub fetch_timeout_ms: u64,
    /// `controller.quorum.election.backoff.max.ms`.
    pub election_backoff_max_ms: u64,
    /// `controller.quorum.request.timeout.ms`.
    pub request_timeout_ms: u64,
    /// `controller.quorum.retry.backoff.ms`.
    pub retry_backoff_ms: u64,
    /// `controller.quorum.append.linger.ms`. 0 appends at once: right for a single voter, where each proposal's
    /// batch commits with the next flush anyway.
    pub append_linger_ms: u64,
    /// `controller.quorum.fetch.max.bytes`.
    pub fetch_max_bytes: u32,
    /// `controller.quorum.fetch.snapshot.max.bytes`.
    pub fetch_snapshot_max_bytes: u32,
    /// How long a leader may hold a fetch of ours.
    pub fetch_max_wait_ms: u32,
    /// Fetches that wait at a leader at most, each of some hundred bytes; beyond it those that have waited longest are
    /// answered before their time. Every node of the cluster has one.
    pub max_parked_fetches: usize,
    /// `controller.quorum.auto.join.enable`.
    pub auto_join: bool,
    /// Proposed bytes that may be appended but not yet flushed; beyond it proposals are refused as
    /// [`crate::ProposeError::Overloaded`].
    pub max_unflushed_bytes: usize,
}

impl RaftConfig {
    /// Kafka's defaults for everything that has one.
    pub fn new(node_id: NodeId, directory_id: Uuid, cluster_id: impl Into<String>) -> RaftConfig {
        RaftConfig {
            node_id,
            directory_id,
            cluster_id: cluster_id.into(),
            is_controller: true,
            endpoints: Endpoints::new(),
            default_listener: "CONTROLLER".to_owned(),
            bootstrap_servers: Vec::new(),
            election_timeout_ms: 1000,
            fetch_timeout_ms: 2000,
            election_backoff_max_ms: 1000,
            request_timeout_ms: 2000,
            retry_backoff_ms: 20,
            append_linger_ms: 25,
            fetch_max_bytes: 1024 * 1024,
            fetch_snapshot_max_bytes: 1024 * 1024,
            fetch_max_wait_ms: 500,
            max_parked_fetches: 100_000,
            auto_join: false,
            max_unflushed_bytes: 64 * 1024 * 1024,
        }
    }

    /// This node as a quorum member.
    pub fn key(&self) -> ReplicaKey {
        ReplicaKey { id: self.node_id, directory_id: (!self.directory_id.is_zero()).then_some(self.directory_id) }
    }
}
