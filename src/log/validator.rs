//! Checks what is to be appended, and says how it must be stored. Kafka's `LogValidator` and the checks before it.
//!
//! [`BatchCheck`] is the leader's side: it looks at one batch from a producer, in steps that a core can afford, wherever the
//! batch was received. [`CheckedBatch::place`] then gives it offsets at its home. [`validate`] does both at once, for
//! batches of the node's own. [`check_replicated`] is the follower's: batches that a leader has checked and stored already.
//!
//! Every compressed batch is unpacked, into a small buffer, and nothing of it is kept: what consumers couldn't read must
//! not be stored, for they would stop at it for ever. [`BatchRules::looks_inside`] switches that off for those who trust
//! their producers.
//!
//! # Where this differs from Kafka
//!
//! * Kafka skips over keys and values of compressed batches that stay as they are, and so takes records whose length isn't
//!   what their fields take, and LZ4 frames with empty blocks; its consumers can't read either. Here they are INVALID_RECORD.
//! * Uncompressed batches whose records aren't numbered 0, 1, 2... are numbered anew; Kafka stores them as they are.
//! * A batch that unpacks to more than [`BatchRules::unpacked_bytes_max`] is MESSAGE_TOO_LARGE, at which the Java producer
//!   splits it; Kafka has no limit.
//! * Where Kafka fails with UNKNOWN_SERVER_ERROR because a length has more than 32 bits, or is more than the memory it has,
//!   this is INVALID_RECORD. Other failures of Kafka's keep its code, since clients know it.
//! * At most [`RECORD_ERRORS_MAX`] record errors are listed.

mod check;
mod envelope;
mod faults;
mod replicated;
mod rewrite;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use ringlog_protocol::records::{BatchHeader, Compression, TimestampType, Unpacker};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs, TopicPartition};

use crate::LogConfig;

pub use check::{BatchCheck, CheckProgress};
pub use envelope::{RequestFault, holds_transaction};
pub use faults::{RECORD_ERRORS_MAX, RecordFault, ValidationError};
pub use replicated::{ReplicatedBatches, ReplicationError, check_replicated};

/// A topic's `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// `producer`: as the batch came.
    Producer,
    /// This codec (`uncompressed` is [`Compression::None`]) with the level of `compression.*.level`.
    Codec {
        /// The codec.
        compression: Compression,
        /// Its level; `None` is the default.
        level: Option<i32>,
    },
}

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer, which isn't trusted.
    Client,
    /// A group, transaction or share coordinator, which may write control records.
    Coordinator,
    /// The leader of the metadata quorum, which sets the epoch of its batches itself and may write any size.
    RaftLeader,
}

/// What the batch is checked against.
#[derive(Debug, Clone, Copy)]
pub struct BatchRules {
    /// Who appends.
    pub origin: AppendOrigin,
    /// Whether the request's version knows zstd (Produce 7 on).
    pub is_zstd_allowed: bool,
    /// Whether compressed batches are unpacked where their header answers all other questions.
    pub looks_inside: bool,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
    /// What a batch may unpack to.
    pub unpacked_bytes_max: usize,
    /// Whether `cleanup.policy` has `compact`: then records need keys.
    pub is_compacted: bool,
    /// The present, which timestamps are compared with.
    pub now: TimestampMs,
}

/// What a batch may unpack to unless the caller says otherwise: as much as a request may have, with Kafka's defaults.
const UNPACKED_BYTES_MAX: usize = 100 << 20;

impl BatchRules {
    /// Those of a topic with these settings.
    pub fn new(config: &LogConfig, origin: AppendOrigin, now: TimestampMs) -> BatchRules {
        BatchRules {
            origin,
            is_zstd_allowed: true,
            looks_inside: true,
            compression: config.compression,
            timestamp_type: config.message_timestamp_type,
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
            message_bytes_max: config.max_message_bytes as usize,
            unpacked_bytes_max: UNPACKED_BYTES_MAX,
            is_compacted: config.cleanup_compact,
            now,
        }
    }
}

/// Where a batch goes.
#[derive(Debug, Clone, Copy)]
pub struct Destination {
    /// The offset that the first record gets: the log's end.
    pub base_offset: Offset,
    /// The epoch of this leader.
    pub leader_epoch: LeaderEpoch,
    /// `segment.bytes`.
    pub segment_bytes_max: usize,
    /// The time of the append.
    pub now: TimestampMs,
}

/// A batch that may be stored once it has its offsets: its header, then its records, which are a slice of the input unless
/// they had to be written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch {
    header: BatchHeader,
    payload: Bytes,
    is_rewritten: bool,
    origin: AppendOrigin,
    timestamp_type: TimestampType,
    /// The largest timestamp of its records.
    max_timestamp: TimestampMs,
}

impl CheckedBatch {
    /// Puts offsets, epoch and timestamps into the header.
    pub fn place(
        self,
        topic_partition: &TopicPartition,
        destination: &Destination,
    ) -> Result<ValidatedBatch, ValidationError> {
        let (mut header, origin) = (self.header, self.origin);
        if origin == AppendOrigin::RaftLeader && header.partition_leader_epoch != destination.leader_epoch {
            return Err(ValidationError::invalid_record(format!(
                "Append from Raft leader did not set the batch epoch correctly, expected {} but the batch has {}",
                destination.leader_epoch, header.partition_leader_epoch
            )));
        }
        let size = header.size_in_bytes();
        if size > destination.segment_bytes_max {
            return Err(ValidationError::new(
                ErrorCode::RecordListTooLarge,
                format!(
                    "Message batch size is {size} bytes in append to partition {topic_partition}, which exceeds the \
                     maximum configured segment size of {}.",
                    destination.segment_bytes_max
                ),
            ));
        }
        header.base_offset = destination.base_offset;
        header.partition_leader_epoch = destination.leader_epoch;
        let max_timestamp = match self.timestamp_type {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => destination.now,
        };
        if (header.timestamp_type(), header.max_timestamp) != (self.timestamp_type, max_timestamp) {
            header.set_max_timestamp(self.timestamp_type, max_timestamp);
        }
        Ok(ValidatedBatch { header, payload: self.payload, is_rewritten: self.is_rewritten })
    }

    /// Bytes of the whole batch.
    pub fn size_in_bytes(&self) -> usize {
        self.header.size_in_bytes()
    }
}

/// A batch as it must be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedBatch {
    /// Offsets, epoch, timestamps and CRC are final.
    pub header: BatchHeader,
    /// What follows the header.
    pub payload: Bytes,
    /// Whether the records were written anew: unpacked, packed with the topic's codec, or numbered.
    pub is_rewritten: bool,
}

impl ValidatedBatch {
    /// Bytes of the whole batch.
    pub fn size_in_bytes(&self) -> usize {
        self.header.size_in_bytes()
    }

    /// The append time to answer with: that of the batch with LogAppendTime, else -1.
    pub fn log_append_time(&self) -> TimestampMs {
        match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp,
            TimestampType::CreateTime => TimestampMs::NONE,
        }
    }

    /// Header and records in one piece: copies them.
    pub fn to_contiguous(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_in_bytes());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.payload);
        out.freeze()
    }
}

/// Checks a batch in one go.
pub fn check(
    records: &Bytes,
    topic_partition: &TopicPartition,
    rules: &BatchRules,
    unpacker: &mut Unpacker,
) -> Result<CheckedBatch, ValidationError> {
    let mut check = BatchCheck::begin(records.clone(), topic_partition.clone(), *rules);
    check.run(unpacker);
    check.finish()
}

/// Checks and places a batch in one go.
pub fn validate(
    records: &Bytes,
    topic_partition: &TopicPartition,
    rules: &BatchRules,
    destination: &Destination,
    unpacker: &mut Unpacker,
) -> Result<ValidatedBatch, ValidationError> {
    check(records, topic_partition, rules, unpacker)?.place(topic_partition, destination)
}
