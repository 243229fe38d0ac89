//! Appends: what a leader gives offsets to, and what a follower takes over from its leader.

use bytes::Bytes;
use ringlog_log::validator::{
    AppendOrigin, BatchRules, CheckedBatch, Destination, ReplicationError, ValidatedBatch, ValidationError, check,
    check_replicated,
};
use ringlog_log::{LogAppendError, LogBatch, LogConfig, Placement, ProducerCheck, ProducerError, TransactionRules};
use ringlog_protocol::records::{BatchError, BatchHeader, BatchRef, Unpacker};
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset, TimestampMs, TopicPartition};

use crate::{Partition, Role, Unserved};

/// Under which rules a leader appends a batch that was checked.
#[derive(Debug, Clone, Copy)]
pub struct AppendContext<'a> {
    /// The partition's name, for messages.
    pub topic_partition: &'a TopicPartition,
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

/// A batch that has its offsets and its place. Write its header and payload, then report [`Partition::on_durable`]
/// with `next_offset`.
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
    /// What to write: the final header, and the payload as it came (or rewritten in the topic's codec).
    pub batch: ValidatedBatch,
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
    /// The batch itself is refused.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// Nothing is served from this replica.
    #[error("{0}")]
    Unserved(Unserved),
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
            AppendError::Invalid(error) => error.code,
            AppendError::Unserved(why) => why.error_code(),
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
    /// The bytes are no batches that continue the log: fetch again.
    #[error(transparent)]
    Invalid(#[from] ReplicationError),
    /// The log is empty and its start lies inside of the leader's first batch (the leader's start need not be a batch's):
    /// start the log anew at this offset ([`ringlog_log::Log::truncate_fully_and_start_at`]) and prepare again.
    #[error("the leader's first batch starts at {0}, below this empty log")]
    StartsBelowEmptyLog(Offset),
    /// A control batch can't be read.
    #[error("unreadable control batch: {0}")]
    Control(#[from] BatchError),
    /// It doesn't fit the log.
    #[error(transparent)]
    Log(#[from] LogAppendError),
}

impl Partition {
    /// Checks a batch of the node's own and gives it offsets and a place, as [`Partition::leader_append`] does.
    pub fn leader_prepare(
        &mut self,
        records: &Bytes,
        context: &AppendContext<'_>,
        unpacker: &mut Unpacker,
    ) -> Result<LeaderAppend, AppendError> {
        let rules = BatchRules::new(context.config, context.origin, context.now.wall);
        self.leader_append(check(records, context.topic_partition, &rules, unpacker), context)
    }

    /// Gives a batch that was checked by the topic's rules offsets and a place. From here on the log counts it; if it
    /// can't be written the replica is at its end ([`Partition::close`]).
    pub fn leader_append(
        &mut self,
        checked: Result<CheckedBatch, ValidationError>,
        context: &AppendContext<'_>,
    ) -> Result<LeaderAppend, AppendError> {
        let AppendContext { config, origin, now, topic_partition, .. } = *context;
        self.check_may_append(context)?;
        let batch = checked?.place(
            topic_partition,
            &Destination {
                base_offset: self.log.log_end_offset(),
                leader_epoch: self.leader_epoch,
                segment_bytes_max: config.segment_bytes as usize,
                now: now.wall,
            },
        )?;
        let logged = logged_batch(&batch);
        match self.log.producers().check(&logged, origin, context.rules)? {
            ProducerCheck::Accept => {}
            ProducerCheck::Duplicate(held) => {
                return Ok(LeaderAppend::Duplicate(DuplicateAppend {
                    base_offset: held.first_offset(),
                    next_offset: held.last_offset.plus(1),
                    // As Kafka answers, whatever the timestamp type.
                    log_append_time: held.timestamp,
                    log_start_offset: self.log.log_start_offset(),
                }));
            }
        }
        let placement = self.log.append(&[logged], config, now.wall)?;
        Ok(LeaderAppend::Append(Box::new(PreparedAppend {
            base_offset: batch.header.base_offset,
            next_offset: batch.header.next_offset(),
            log_append_time: batch.log_append_time(),
            log_start_offset: self.log.log_start_offset(),
            leader_epoch: self.leader_epoch,
            placement,
            batch,
        })))
    }

    fn check_may_append(&self, context: &AppendContext<'_>) -> Result<(), AppendError> {
        if let Some(why) = self.unserved {
            return Err(AppendError::Unserved(why));
        }
        match self.role {
            Role::Follower | Role::Unassigned => return Err(AppendError::NotLeader),
            Role::Leader => {}
        }
        let (in_sync, required) = (self.isr.committed().len(), self.effective_min_isr(context.config));
        if context.required_acks == -1 && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }

    /// Whether acks=all may be confirmed for what the high watermark has reached: false means
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`.
    pub fn has_enough_in_sync(&self, config: &LogConfig) -> bool {
        self.isr.maximal_len() >= self.effective_min_isr(config)
    }

    /// Takes over a prefix of what was fetched from the leader in `leader_epoch`, unchanged: as many batches as one
    /// segment can take. Batches of a higher epoch than this replica knows are left out.
    pub fn follower_prepare(
        &mut self,
        records: &[u8],
        leader_epoch: LeaderEpoch,
        config: &LogConfig,
        now: Now,
    ) -> Result<FollowerAppend, FollowerAppendError> {
        if self.role != Role::Follower || self.leader_epoch != leader_epoch {
            return Err(FollowerAppendError::NotFollower(leader_epoch));
        }
        let log_end_offset = self.log.log_end_offset();
        if self.log.log_start_offset() == log_end_offset
            && let Ok(first) = BatchHeader::parse(records)
            && first.base_offset < log_end_offset
            && first.last_offset() >= log_end_offset
        {
            return Err(FollowerAppendError::StartsBelowEmptyLog(first.base_offset));
        }
        let found = check_replicated(records, log_end_offset, self.leader_epoch)?;
        let mut batches = Vec::with_capacity(found.headers.len());
        let mut bytes = 0_usize;
        for header in found.headers {
            let end = bytes + header.size_in_bytes();
            // The first one goes in any case, and is refused below when it alone is too large.
            if !batches.is_empty() && end > config.segment_bytes as usize {
                break;
            }
            batches.push(replicated_batch(header, records.get(bytes..end).unwrap_or_default())?);
            bytes = end;
        }
        let placement = self.log.append(&batches, config, now.wall)?;
        Ok(FollowerAppend { placement, bytes, next_offset: self.log.log_end_offset() })
    }

    /// A follower learns the leader's high watermark and log start with each fetch; call it once what came with them
    /// is durable, and on empty answers. Returns the new high watermark if it moved, and whether the log's start did.
    pub fn follower_advance(
        &mut self,
        leader_high_watermark: Offset,
        leader_log_start_offset: Offset,
    ) -> (Option<Offset>, bool) {
        if self.role != Role::Follower {
            return (None, false);
        }
        let moved = self.raise_high_watermark(leader_high_watermark.min(self.durable_end_offset));
        let start = leader_log_start_offset.min(self.high_watermark);
        (moved, self.log.advance_log_start_offset(start))
    }
}

fn logged_batch(batch: &ValidatedBatch) -> LogBatch {
    if !batch.header.is_control() {
        return LogBatch::of_data(batch.header);
    }
    // Control batches are a few dozen bytes and come from coordinators only.
    let bytes = batch.to_contiguous();
    let marker = BatchRef::parse(&bytes).and_then(|parsed| LogBatch::of(&parsed)).ok().and_then(|logged| logged.marker);
    LogBatch { header: batch.header, marker }
}

fn replicated_batch(header: BatchHeader, bytes: &[u8]) -> Result<LogBatch, BatchError> {
    if header.is_control() { LogBatch::of(&BatchRef { header, bytes }) } else { Ok(LogBatch::of_data(header)) }
}
