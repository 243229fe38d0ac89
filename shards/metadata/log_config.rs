//! A topic's configuration as its logs want it.

use ringlog_config::{ServerConfig, TopicConfig, TopicTimestampType};
use ringlog_log::LogConfig;
use ringlog_log::validator::TopicCompression;
use ringlog_protocol::records::{Compression, TimestampType};

/// What a topic's logs follow.
pub fn log_config(topic: &TopicConfig, server: &ServerConfig) -> LogConfig {
    LogConfig {
        cleanup_delete: topic.cleanup_policy.delete,
        cleanup_compact: topic.cleanup_policy.compact,
        compression: compression(topic),
        delete_retention_ms: topic.delete_retention_ms,
        file_delete_delay_ms: topic.file_delete_delay_ms,
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        index_interval_bytes: unsigned(topic.index_interval_bytes),
        max_message_bytes: unsigned(topic.max_message_bytes),
        message_timestamp_type: match topic.message_timestamp_type {
            TopicTimestampType::CreateTime => TimestampType::CreateTime,
            TopicTimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        message_timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        message_timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        min_in_sync_replicas: topic.min_insync_replicas,
        preallocate: topic.preallocate,
        remote_storage_enable: topic.remote_storage_enable,
        local_retention_bytes: topic.local_retention_bytes,
        local_retention_ms: topic.local_retention_ms,
        retention_bytes: topic.retention_bytes,
        retention_ms: topic.retention_ms,
        segment_bytes: unsigned(topic.effective_segment_bytes()),
        segment_index_bytes: unsigned(topic.segment_index_bytes),
        segment_jitter_ms: topic.segment_jitter_ms,
        segment_ms: topic.segment_ms,
        unclean_leader_election_enable: topic.unclean_leader_election_enable,
        producer_id_expiration_ms: i64::from(server.log.producer_id_expiration_ms),
    }
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn compression(topic: &TopicConfig) -> TopicCompression {
    use ringlog_config::TopicCompression as Configured;
    let levels = topic.compression_levels;
    let (compression, level) = match topic.compression {
        Configured::Producer => return TopicCompression::Producer,
        Configured::Uncompressed => (Compression::None, None),
        // -1 is the library's own choice.
        Configured::Gzip => (Compression::Gzip, Some(levels.gzip).filter(|level| *level != -1)),
        Configured::Snappy => (Compression::Snappy, None),
        Configured::Lz4 => (Compression::Lz4, Some(levels.lz4)),
        Configured::Zstd => (Compression::Zstd, Some(levels.zstd)),
    };
    TopicCompression::Codec { compression, level }
}
