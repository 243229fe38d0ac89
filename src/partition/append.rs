//! What a leader appends, up to its acknowledgement: [`Partition::leader_append`] gives it offsets and a place, the store
//! writes it, [`Partition::on_durable`] hears of that and moves the high watermark, [`Partition::acknowledged`] tells what
//! became of it.

use bytes::Bytes;
use ringlog_log::validator::{
    AppendOrigin, BatchRules, CheckedBatch, Destination, ValidatedBatch, ValidationError, check,
};
use ringlog_log::{LogAppendError, LogBatch, LogConfig, Placement, ProducerCheck, ProducerError, TransactionRules};
use ringlog_protocol::records::{BatchRef, Unpacker};
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, TimestampMs, TopicPartition};

use crate::{Effects, Partition, Role, Unserved};

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

    /// Writes are on the device up to `end_offset`. Called in order of the appends; a report for an older leader epoch
    /// is as good, as the bytes are there all the same.
    pub fn on_durable(&mut self, end_offset: Offset, config: &LogConfig, now: MonotonicMs) -> Effects {
        let end_offset = end_offset.min(self.log.log_end_offset());
        if self.role == Role::Unassigned || end_offset <= self.durable_end_offset {
            return Effects::default();
        }
        self.durable_end_offset = end_offset;
        let high_watermark = match self.role {
            Role::Leader => self.advance_high_watermark(config, now),
            // What was appended while it led alone, and is written now that nobody leads: there is no replica that could
            // say otherwise, and a node that stops in order leaves the high watermark at the log's end, as Kafka's does.
            Role::Follower if self.leader == NodeId::NONE && self.assigned == 1 => {
                self.raise_high_watermark(end_offset)
            }
            Role::Follower | Role::Unassigned => None,
        };
        Effects { high_watermark, durable_end_offset: Some(end_offset), ..Effects::default() }
    }

    /// Moves the high watermark of a leader to what all members of the maximal ISR, and caught-up followers about to
    /// join it, have. Frozen while the committed ISR is below its minimum: replicas outside of it may be elected by ELR
    /// (KIP-966) on the ground that nothing was committed without them, and a proposal may never reach the controller.
    pub(crate) fn advance_high_watermark(&mut self, config: &LogConfig, now: MonotonicMs) -> Option<Offset> {
        if self.role != Role::Leader || self.isr.committed().len() < self.effective_min_isr(config) {
            return None;
        }
        let leader_end = self.durable_end_offset;
        let lag_max_ms = self.limits.replica_lag_time_max_ms;
        let mut candidate = leader_end;
        for remote in &self.remotes {
            if remote.log_end_offset < candidate
                && (self.isr.maximal_contains(remote.replica) || remote.is_about_to_join(leader_end, now, lag_max_ms))
            {
                candidate = remote.log_end_offset;
            }
        }
        self.raise_high_watermark(candidate)
    }

    /// Everything below `candidate` is committed, if it wasn't before; returns it then.
    pub(crate) fn raise_high_watermark(&mut self, candidate: Offset) -> Option<Offset> {
        if candidate <= self.high_watermark {
            return None;
        }
        self.high_watermark = candidate;
        self.log.producers_mut().on_high_watermark(candidate);
        Some(candidate)
    }

    /// The least number of in-sync replicas for acks=all and for the high watermark to move: `min.insync.replicas`,
    /// but no more than are assigned.
    pub fn effective_min_isr(&self, config: &LogConfig) -> usize {
        usize::try_from(config.min_in_sync_replicas).unwrap_or(1).min(usize::from(self.assigned)).max(1)
    }

    /// What is to be said of records that were appended in `leader_epoch` and end at `end_offset`: acknowledged once they are
    /// durable here (acks 0 and 1) or committed (acks -1), or why they never will be. `None` as long as that is open.
    pub fn acknowledged(
        &self,
        end_offset: Offset,
        leader_epoch: LeaderEpoch,
        acks: i16,
        config: &LogConfig,
    ) -> Option<Result<(), ErrorCode>> {
        if let Some(why) = self.unserved.filter(|why| !why.is_still_written()) {
            return Some(Err(why.error_code()));
        }
        if self.role != Role::Leader || self.leader_epoch != leader_epoch {
            return Some(Err(ErrorCode::NotLeaderOrFollower));
        }
        let is_durable = self.durable_end_offset >= end_offset;
        if acks != -1 {
            return is_durable.then_some(Ok(()));
        }
        if self.high_watermark < end_offset {
            // A node that stops writes what it took, and doesn't wait for others.
            return self.unserved.filter(|_| is_durable).map(|why| Err(why.error_code()));
        }
        Some(if self.has_enough_in_sync(config) { Ok(()) } else { Err(ErrorCode::NotEnoughReplicasAfterAppend) })
    }

    /// Whether acks=all may be confirmed for what the high watermark has reached: false means
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`.
    pub fn has_enough_in_sync(&self, config: &LogConfig) -> bool {
        self.isr.maximal_len() >= self.effective_min_isr(config)
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
