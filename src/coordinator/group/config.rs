//! The limits and timeouts of group coordination.

/// Limits and timeouts, by the broker configs of the same names. [`Default`] gives Kafka's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first join of an empty group waits for others.
    pub initial_rebalance_delay_ms: u32,
    /// `group.max.size`: members per group.
    pub max_group_size: usize,
    /// `offset.metadata.max.bytes`: the longest metadata of one committed offset.
    pub max_offset_metadata_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: u64,
    /// How long a new member's first JoinGroup may wait before it is dropped. Not configurable in Kafka.
    pub new_member_join_timeout_ms: u64,
    /// Writes that may wait for their result; beyond it requests get `COORDINATOR_LOAD_IN_PROGRESS`, which clients
    /// retry.
    pub max_pending_writes: usize,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_group_size: i32::MAX as usize,
            max_offset_metadata_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            new_member_join_timeout_ms: 300_000,
            max_pending_writes: 10_000,
        }
    }
}
