//! Ids, offsets, epochs, time, error codes and the seeded random generator that every crate shares.
//!
//! Pure values: no I/O, no clock, no thread. A newtype's inner value is public, since the wire needs it; the type is
//! there so that an epoch can't be passed where an offset is meant.

mod backoff;
mod error_code;
mod ids;
mod java_hash;
mod random;
mod time;
mod topic;
mod uuid;

pub use backoff::ExponentialBackoff;
pub use error_code::ErrorCode;
pub use ids::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
};
pub use java_hash::{java_string_hash, partition_for_key, sort_as_hash_map, sort_as_sized_hash_map};
pub use random::Random;
pub use time::{MonotonicMs, Now, TimestampMs};
pub use topic::{
    CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, GROUP_METADATA_TOPIC, InvalidTopicName, SHARE_STATE_TOPIC,
    TRANSACTION_STATE_TOPIC, TopicIdPartition, TopicPartition, is_internal_topic, topics_collide, validate_topic_name,
};
pub use uuid::{ParseUuidError, Uuid};

/// Rounds `value` up to a multiple of `alignment`, which must be a power of two.
#[inline]
pub const fn align_up(value: u64, alignment: u64) -> u64 {
    (value + alignment - 1) & !(alignment - 1)
}

/// Rounds `value` down to a multiple of `alignment`, which must be a power of two.
#[inline]
pub const fn align_down(value: u64, alignment: u64) -> u64 {
    value & !(alignment - 1)
}
