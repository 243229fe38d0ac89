//! Appends: what a leader gives offsets to, and what a follower takes over from its leader.

use bytes::Bytes;
use ringlog_log::{
    AppendOrigin, BatchSummary, LogAppendError, LogConfig, Placement, ProducerCheck, ProducerError, TransactionRules,
};
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset, TimestampMs};

use crate::{Effects, Partition, Role};

/// Under which rules a leader appends.
#[derive(Debug, Clone, Copy)]
pub struct AppendContext<'a> {
    /// The topic's settings.
    pub config: &'a LogConfig,
    /// Who writes.
    pub origin: AppendOrigin,
    /// `acks` of the request: -1 asks for all in-sync replicas.
    pub required_acks: i16,
    /// What is known of the batch's transaction.
    pub rules: TransactionRules,
    /// The time.
    pub now: Now,
}

/// What the leader writes into the batch's header while it is copied to its place. The CRC covers none of it but the
/// append time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// With `LogAppendTime`: the timestamp of all records; the CRC is then computed anew.
    pub log_append_time: Option<TimestampMs>,
}

/// A batch that has its offsets and its place. Write it, then report [`Partition::on_durable`] with `next_offset`.
#[derive(Debug)]
pub struct PreparedAppend {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last record: durable (acks=1) or below the high watermark (acks=all) acknowledges it.
    pub next_offset: Offset,
    /// As the response states it: -1 with `CreateTime`.
    pub log_append_time: TimestampMs,
    /// As the response states it.
    pub log_start_offset: Offset,
    /// The epoch that it was prepared in.
    pub leader_epoch: LeaderEpoch,
    /// Where it goes.
    pub placement: Placement,
    /// What to write into the header.
    pub patch: Patch,
    /// The batch to write instead of the one received, as the topic wants another codec. To be patched likewise.
    pub rewritten: Option<Bytes>,
}

/// A retry of a batch that is already in the log. Answered like the first try, once that is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateAppend {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// As the response states it.
    pub log_append_time: TimestampMs,
    /// As the response states it.
    pub log_start_offset: Offset,
}

/// What becomes of a leader's append.
#[derive(Debug)]
pub enum LeaderAppend {
    /// To be written.
    Append(Box<PreparedAppend>),
    /// Nothing to write.
    Duplicate(DuplicateAppend),
}

/// Why a leader refuses an append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log directory failed.
    #[error("the replica is offline")]
    Offline,
    /// This replica doesn't lead.
    #[error("not the leader")]
    NotLeader,
    /// acks=all with too few in-sync replicas.
    #[error("{in_sync} replicas are in sync, {required} are required")]
    NotEnoughReplicas {
        /// Committed in-sync replicas.
        in_sync: usize,
        /// The least number.
        required: usize,
    },
    /// The producer's state forbids it.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// It doesn't fit the log.
    #[error(transparent)]
    Log(#[from] LogAppendError),
}

impl AppendError {
    /// The code for the response.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            AppendError::Offline => ErrorCode::KafkaStorageError,
            AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
            AppendError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
            AppendError::Producer(error) => match error {
                ProducerError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
                ProducerError::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
                ProducerError::InvalidTransactionState => ErrorCode::InvalidTxnState,
                ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            },
            AppendError::Log(error) => match error {
                LogAppendError::RecordListTooLarge { .. } => ErrorCode::RecordListTooLarge,
                LogAppendError::OffsetsNotMonotonic { .. } => ErrorCode::UnknownServerError,
            },
        }
    }
}

/// A prefix of what was fetched from the leader, with its place. Write `bytes` of it, report
/// [`Partition::on_durable`], and go on with the rest, if any.
#[derive(Debug)]
pub struct FollowerAppend {
    /// Where it goes.
    pub placement: Placement,
    /// Length of the prefix; 0 when nothing of it may be taken.
    pub bytes: usize,
    /// The log's end after it.
    pub next_offset: Offset,
}

/// Why a follower can't take what it fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowerAppendError {
    /// This replica doesn't follow in that epoch any more.
    #[error("not a follower in leader epoch {0}")]
    NotFollower(LeaderEpoch),
    /// The bytes don't start at the log's end.
    #[error("fetched offset {fetched} is not the log's end {log_end_offset}")]
    UnexpectedOffset {
        /// Where they start.
        fetched: Offset,
        /// The log's end.
        log_end_offset: Offset,
    },
    /// A batch is corrupt: fetch it again.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// It doesn't fit the log.
    #[error(transparent)]
    Log(#[from] LogAppendError),
}
