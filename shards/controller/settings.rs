//! What of the node's configuration raft and the controller machine need.

use crate::node::Node;
use ringlog_config::ServerConfig;
use ringlog_log::LogConfig;
use ringlog_metadata::ControllerConfig;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_quorum::snapshots::SnapshotPolicy;
use ringlog_raft::{Endpoint, Endpoints, RaftConfig, VoterSet};

/// Kafka lets nobody set smaller segments for the metadata log, but by an internal key.
const MAX_INDEX_BYTES: u32 = 10 * 1024 * 1024;

fn ms(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn ms64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The host that a listener is reached by: its own, or this machine's name when it listens everywhere.
pub fn host_or_name(host: &str) -> String {
    if !host.is_empty() {
        return host.to_owned();
    }
    let name = ringlog_ring::hostname();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// Raft's settings.
pub fn raft(node: &Node) -> RaftConfig {
    let config = &node.config;
    let directory_id = node.log_dirs.directories[node.log_dirs.metadata_directory].id;
    let quorum = &config.quorum;
    let endpoints: Endpoints = config
        .advertised_controller_listeners
        .iter()
        .map(|listener| (listener.name.clone(), Endpoint { host: host_or_name(&listener.host), port: listener.port }))
        .collect();
    let bootstrap =
        config.quorum_bootstrap_servers.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port });
    RaftConfig {
        is_controller: config.roles.controller,
        endpoints,
        default_listener: config.controller_listener_names.first().cloned().unwrap_or_default(),
        bootstrap_servers: bootstrap.collect(),
        election_timeout_ms: ms(quorum.election_timeout_ms),
        fetch_timeout_ms: ms(quorum.fetch_timeout_ms),
        election_backoff_max_ms: ms(quorum.election_backoff_max_ms),
        request_timeout_ms: ms(quorum.request_timeout_ms),
        retry_backoff_ms: ms(quorum.retry_backoff_ms),
        append_linger_ms: ms(quorum.append_linger_ms),
        fetch_max_bytes: quorum.fetch_max_bytes.unsigned_abs(),
        fetch_snapshot_max_bytes: quorum.fetch_snapshot_max_bytes.unsigned_abs(),
        auto_join: quorum.auto_join_enable,
        ..RaftConfig::new(node.id, directory_id, node.cluster_id.clone())
    }
}

/// The voters of `controller.quorum.voters`; empty for a dynamic quorum.
pub fn static_voters(config: &ServerConfig) -> VoterSet {
    let listener = config.controller_listener_names.first().map_or("", String::as_str);
    let voters =
        config.quorum_voters.iter().map(|voter| (voter.id, Endpoint { host: voter.host.clone(), port: voter.port }));
    VoterSet::from_static(listener, voters).unwrap_or_default()
}

/// The controller machine's settings.
pub fn controller(node: &Node, bootstrap: BootstrapMetadata, random_seed: u64) -> ControllerConfig {
    let config = &node.config;
    let number = |key: &str| config.properties.get(key).and_then(|text| text.trim().parse::<i64>().ok());
    let flag = |key: &str| config.properties.get(key).is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    let defaults = ControllerConfig::new(node.id, &node.cluster_id, bootstrap);
    ControllerConfig {
        random_seed,
        session_timeout_ms: ms(config.controller.broker_session_timeout_ms),
        max_idle_interval_ms: ms(config.controller.metadata_max_idle_interval_ms),
        num_partitions: config.topics.num_partitions,
        default_replication_factor: i16::try_from(config.topics.default_replication_factor).unwrap_or(i16::MAX),
        min_in_sync_replicas: number("min.insync.replicas")
            .and_then(|value| i32::try_from(value).ok())
            .unwrap_or(defaults.min_in_sync_replicas),
        unclean_leader_election_enable: flag("unclean.leader.election.enable"),
        delete_topic_enable: config.topics.delete_topic_enable,
        auto_leader_rebalance_enable: config.controller.auto_leader_rebalance_enable,
        leader_imbalance_check_interval_ms: ms64(config.controller.leader_imbalance_check_interval_seconds)
            .saturating_mul(1000),
        unclean_leader_election_interval_ms: ms64(config.controller.unclean_leader_election_interval_ms),
        static_config: config.properties.clone(),
        unstable_feature_versions_enable: config.controller.unstable_feature_versions_enable,
        ..defaults
    }
}

/// When snapshots are written and deleted.
pub fn snapshots(config: &ServerConfig) -> SnapshotPolicy {
    let metadata = &config.metadata_log;
    SnapshotPolicy {
        max_bytes_between: u64::try_from(metadata.max_record_bytes_between_snapshots).unwrap_or(u64::MAX),
        max_interval_ms: ms64(metadata.max_snapshot_interval_ms),
        max_retention_bytes: u64::try_from(metadata.max_retention_bytes).ok(),
        max_retention_ms: Some(metadata.max_retention_ms).filter(|limit| *limit >= 0),
    }
}

/// How the metadata log is kept. What goes and when, snapshots decide, not retention.
pub fn metadata_log(config: &ServerConfig) -> LogConfig {
    let metadata = &config.metadata_log;
    let segment_bytes = metadata.internal_segment_bytes.unwrap_or(metadata.segment_bytes);
    LogConfig {
        segment_bytes: segment_bytes.unsigned_abs(),
        segment_ms: metadata.segment_ms,
        segment_index_bytes: MAX_INDEX_BYTES,
        max_message_bytes: metadata.max_batch_size_bytes.unsigned_abs(),
        file_delete_delay_ms: metadata.delete_delay_ms,
        retention_bytes: -1,
        retention_ms: -1,
        ..LogConfig::default()
    }
}
