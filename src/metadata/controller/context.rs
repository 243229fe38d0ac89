//! What the controller needs to know besides the request, and what it answers.

use std::collections::BTreeSet;

use ringlog_protocol::ResponseBody;
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_types::{MonotonicMs, NodeId, Now, Offset};

use crate::bootstrap::BootstrapMetadata;

/// What of server.properties the controller acts on. Durations in milliseconds.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// `node.id`.
    pub node_id: NodeId,
    /// The cluster's id, from meta.properties.
    pub cluster_id: String,
    /// Seeds topic ids and placement.
    pub random_seed: u64,
    /// What to write when the log is empty, from bootstrap.checkpoint.
    pub bootstrap: BootstrapMetadata,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: u64,
    /// `metadata.max.idle.interval.ms`; 0 turns the NoOp records off.
    pub max_idle_interval_ms: u64,
    /// `num.partitions`, for topics created with -1.
    pub num_partitions: i32,
    /// `default.replication.factor`, for topics created with -1.
    pub default_replication_factor: i16,
    /// `min.insync.replicas` of this node's file.
    pub min_in_sync_replicas: i32,
    /// `unclean.leader.election.enable` of this node's file.
    pub unclean_leader_election_enable: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`, here in milliseconds.
    pub leader_imbalance_check_interval_ms: u64,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_leader_election_interval_ms: u64,
    /// `delegation.token.expiry.check.interval.ms`.
    pub delegation_token_expiry_check_interval_ms: u64,
    /// `delegation.token.max.lifetime.ms`.
    pub delegation_token_max_lifetime_ms: i64,
    /// `delegation.token.expiry.time.ms`.
    pub delegation_token_expiry_time_ms: i64,
    /// `delegation.token.secret.key`; without it tokens are disabled.
    pub delegation_token_secret: Option<String>,
    /// server.properties as written, behind the dynamic configs of topics and groups.
    pub static_config: ringlog_config::ConfigMap,
    /// Whether an authorizer is configured; without one there are no ACLs.
    pub has_authorizer: bool,
    /// `unstable.feature.versions.enable`.
    pub unstable_feature_versions_enable: bool,
}

impl ControllerConfig {
    /// Kafka's defaults for everything else.
    pub fn new(node_id: NodeId, cluster_id: &str, bootstrap: BootstrapMetadata) -> ControllerConfig {
        ControllerConfig {
            node_id,
            cluster_id: cluster_id.to_owned(),
            random_seed: 0,
            bootstrap,
            session_timeout_ms: 9_000,
            max_idle_interval_ms: 500,
            num_partitions: 1,
            default_replication_factor: 1,
            min_in_sync_replicas: 1,
            unclean_leader_election_enable: false,
            delete_topic_enable: true,
            auto_leader_rebalance_enable: true,
            leader_imbalance_check_interval_ms: 300_000,
            unclean_leader_election_interval_ms: 300_000,
            delegation_token_expiry_check_interval_ms: 3_600_000,
            delegation_token_max_lifetime_ms: 604_800_000,
            delegation_token_expiry_time_ms: 86_400_000,
            delegation_token_secret: None,
            static_config: ringlog_config::ConfigMap::new(),
            has_authorizer: false,
            unstable_feature_versions_enable: false,
        }
    }
}

/// What may be done to a resource, by Kafka's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Kafka's own")]
pub enum Operation {
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    CreateTokens,
}

/// To what a permission applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// The cluster, `kafka-cluster`.
    Cluster,
    /// A topic by name.
    Topic(&'a str),
    /// A group by id.
    Group(&'a str),
    /// A principal, such as `User:alice`.
    User(&'a str),
}

/// Says what the requester may do.
pub trait Authorize {
    /// Whether the requester may do `operation` on `resource`.
    fn allows(&self, operation: Operation, resource: Resource<'_>) -> bool;
}

/// Without an authorizer everything is allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authorize for AllowAll {
    fn allows(&self, _operation: Operation, _resource: Resource<'_>) -> bool {
        true
    }
}

/// The circumstances of a request.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    /// The version of the request.
    pub api_version: i16,
    /// Who asks, such as `User:alice`; the client's principal when a broker forwarded the request.
    pub principal: &'a str,
    /// Whether the principal came by a delegation token.
    pub is_token_authenticated: bool,
    /// Whether a broker forwarded it, so that the broker has already checked broker configs.
    pub is_forwarded: bool,
    /// What the principal may do.
    pub authorizer: &'a dyn Authorize,
    /// The clocks.
    pub now: Now,
    /// When the request came to this node, perhaps a while ago.
    pub received_at: MonotonicMs,
    /// The offset that the next record appended to the metadata log will get.
    pub next_offset: Offset,
    /// The finalized `kraft.version`, which only Raft knows.
    pub kraft_version: i16,
    /// Whether that may be raised to a level, which only Raft knows, with its reason if not.
    pub may_raise_kraft_version: &'a dyn Fn(i16) -> Result<(), String>,
    /// The quorum's voters, which only Raft knows.
    pub voters: &'a [NodeId],
}

impl std::fmt::Debug for RequestContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestContext")
            .field("api_version", &self.api_version)
            .field("principal", &self.principal)
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

/// What the controller decided. The records are already replayed into its uncommitted state.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerResult {
    /// To be appended at the context's `next_offset`, in this order and without anything between.
    pub records: Vec<RecordAndVersion>,
    /// Whether the records must stand in one batch; else they may be split over several.
    pub is_atomic: bool,
    /// What to answer once the last record is committed. Without records: once everything appended before is. `None`:
    /// more is to be worked out first, see [`Controller::go_on`](super::Controller::go_on).
    pub response: Option<ResponseBody>,
    /// A `kraft.version` that Raft must finalize before the answer; it said that it can.
    pub kraft_version: Option<i16>,
}

/// Records that a timer made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TickResult {
    /// To be appended at once, at the offset that was given.
    pub records: Vec<RecordAndVersion>,
    /// Whether the records must stand in one batch.
    pub is_atomic: bool,
}

/// Why the controller did not look at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// This controller is not the active one: answer NOT_CONTROLLER.
    #[error("this is not the active controller")]
    NotActive,
    /// Not a request for a controller's state.
    #[error("not a request that the controller's state answers")]
    NotMine,
}

pub(super) fn record(record: MetadataRecord, version: i16) -> RecordAndVersion {
    RecordAndVersion { record, version }
}

/// What is named more than once.
pub(crate) fn repeated<T: Ord + Copy>(named: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    named.filter(|name| !seen.insert(*name)).collect()
}
