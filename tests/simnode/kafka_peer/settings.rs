//! What a peer is like: its part of `server.properties`, and what differs from one Kafka to another.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringlog_types::{Random, Uuid};

use super::replica::Limits;
use crate::client::consumer::rack_of;
use crate::node;
use crate::plan::{CLIENT_PORT, CONTROLLER_PORT, NodePlan, Plan};

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Those of its replicas.
    pub limits: Limits,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called there.
    pub host: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Of its only directory.
    pub directory_id: Uuid,
    /// Controllers by their ids.
    pub controllers: BTreeMap<i32, SocketAddr>,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub save_ms: u64,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_ms: i32,
    /// `replica.fetch.backoff.ms`.
    pub fetch_backoff_ms: u64,
    /// `replica.fetch.max.bytes`.
    pub partition_bytes: i32,
    /// `replica.fetch.response.max.bytes`.
    pub response_bytes: i32,
    /// `replica.socket.timeout.ms`.
    pub socket_ms: u64,
    /// Records that aren't there are null, as older Kafkas say it, and not empty. Both are right.
    pub says_null: bool,
    /// Fetch sessions at a time (`max.incremental.fetch.session.cache.slots`); 0: whoever asks for one gets none, as where the
    /// cache is full.
    pub sessions: usize,
    /// From which its incarnations are drawn.
    pub seed: u64,
}

impl Settings {
    /// Of a node of a plan. `address` tells where a host is.
    pub fn of(plan: &Plan, node: &NodePlan, address: impl Fn(i32) -> std::net::IpAddr) -> Settings {
        let number =
            |key: &str, default: u64| plan.property(key).and_then(|value| value.parse().ok()).unwrap_or(default);
        let seed = plan.seed ^ (node.id as u64) << 48 ^ 0x0ca_f0ca;
        let mut random = Random::from_seed(seed);
        let controllers = plan.nodes.iter().filter(|node| node.is_controller);
        Settings {
            limits: Limits {
                own_id: node.id,
                min_in_sync: number("min.insync.replicas", 1) as usize,
                lag_max_ms: number("replica.lag.time.max.ms", 30_000),
                is_unclean: plan.is_unclean,
            },
            address: SocketAddr::new(address(node.id), CLIENT_PORT),
            host: node.host(),
            rack: plan.has_racks.then(|| rack_of(node.id)),
            directory_id: node::directory_id(plan, node.id, 0, 0),
            controllers: controllers
                .map(|node| (node.id, SocketAddr::new(address(node.id), CONTROLLER_PORT)))
                .collect(),
            heartbeat_ms: number("broker.heartbeat.interval.ms", 2_000),
            save_ms: number("replica.high.watermark.checkpoint.interval.ms", 5_000),
            fetch_wait_ms: number("replica.fetch.wait.max.ms", 500) as i32,
            fetch_backoff_ms: number("replica.fetch.backoff.ms", 1_000),
            partition_bytes: number("replica.fetch.max.bytes", 1 << 20) as i32,
            response_bytes: number("replica.fetch.response.max.bytes", 10 << 20) as i32,
            socket_ms: number("replica.socket.timeout.ms", 30_000),
            says_null: random.below(2) == 0,
            sessions: [0, 1, 1_000][random.below(3) as usize],
            seed,
        }
    }
}
