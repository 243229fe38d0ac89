//! The topic-level settings that a log follows, already resolved from topic, broker and defaults.

use ringlog_protocol::records::TimestampType;
use ringlog_types::TimestampMs;

use crate::validator::TopicCompression;

/// The settings of one topic's logs. Shared by all of a topic's partitions on a shard and passed into each operation,
/// so that a change needs no walk over the logs.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `cleanup.policy` contains `delete`.
    pub cleanup_delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `compression.type` with its level.
    pub compression: TopicCompression,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: i64,
    /// `min.insync.replicas`.
    pub min_in_sync_replicas: i32,
    /// `preallocate`.
    pub preallocate: bool,
    /// `remote.storage.enable`.
    pub remote_storage_enable: bool,
    /// `local.retention.bytes`, -2 for "as `retention.bytes`".
    pub local_retention_bytes: i64,
    /// `local.retention.ms`, -2 for "as `retention.ms`".
    pub local_retention_ms: i64,
    /// `retention.bytes`, -1 for no limit.
    pub retention_bytes: i64,
    /// `retention.ms`, -1 for no limit.
    pub retention_ms: i64,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election_enable: bool,
    /// The broker's `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            cleanup_delete: true,
            cleanup_compact: false,
            compression: TopicCompression::Producer,
            delete_retention_ms: 86_400_000,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            min_in_sync_replicas: 1,
            preallocate: false,
            remote_storage_enable: false,
            local_retention_bytes: -2,
            local_retention_ms: -2,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1 << 30,
            segment_index_bytes: 10_485_760,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            unclean_leader_election_enable: false,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// The local retention by time that is in force, -1 for none.
    pub fn effective_retention_ms(&self) -> i64 {
        if self.remote_storage_enable && self.local_retention_ms != -2 {
            self.local_retention_ms
        } else {
            self.retention_ms
        }
    }

    /// The local retention by size that is in force, -1 for none.
    pub fn effective_retention_bytes(&self) -> i64 {
        if self.remote_storage_enable && self.local_retention_bytes != -2 {
            self.local_retention_bytes
        } else {
            self.retention_bytes
        }
    }

    /// Whether a segment whose newest record is `largest_timestamp` is past retention at `now`.
    pub fn breaches_retention_ms(&self, largest_timestamp: TimestampMs, now: TimestampMs) -> bool {
        let retention_ms = self.effective_retention_ms();
        retention_ms >= 0 && now.0.saturating_sub(largest_timestamp.0) > retention_ms
    }
}
