//! Questions about offsets, DeleteRecords, and where a follower truncates.

use ringlog_log::{EpochEndOffset, ListOffsetPlan, Log, LogConfig, list_offsets_timestamp};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset, TimestampMs};

use crate::{IsolationLevel, Partition, ReadError, Role};

/// One partition of ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOffsetsRequest {
    /// A timestamp, or one of [`ringlog_log::list_offsets_timestamp`].
    pub timestamp: TimestampMs,
    /// The leader epoch that the asker knows.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// `None` for a replica or a debugging consumer, which see up to the log's end.
    pub isolation: Option<IsolationLevel>,
    /// Whether only a leader may answer (all but debugging consumers).
    pub leader_only: bool,
}

/// Why a question about offsets is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// As for a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A new leader whose high watermark has not reached the start of its epoch (KIP-207).
    #[error("the high watermark has not reached the start of the leader epoch")]
    OffsetNotAvailable,
}

impl OffsetError {
    /// The code for the response.
    pub fn error_code(self) -> ErrorCode {
        match self {
            OffsetError::Read(error) => error.error_code(),
            OffsetError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        }
    }
}

/// Why records can't be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRecordsError {
    /// As for a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The topic is compacted only.
    #[error("the topic's cleanup policy is not delete")]
    PolicyViolation,
}

impl DeleteRecordsError {
    /// The code for the response.
    pub fn error_code(self) -> ErrorCode {
        match self {
            DeleteRecordsError::Read(error) => error.error_code(),
            DeleteRecordsError::PolicyViolation => ErrorCode::PolicyViolation,
        }
    }
}

/// Where a follower truncates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Drop everything at or above. At most the log's end.
    pub offset: Offset,
    /// Whether history then agrees with the leader's; otherwise the next fetch tells more.
    pub complete: bool,
}

impl Partition {
    /// Plans an answer to ListOffsets. What a scan finds goes through [`Self::filter_found_offset`].
    pub fn list_offsets(&self, request: &ListOffsetsRequest) -> Result<ListOffsetPlan, OffsetError> {
        self.check_epoch_and_role(request.current_leader_epoch, request.leader_only)?;
        if request.timestamp.0 == list_offsets_timestamp::LATEST {
            if self.is_behind_epoch_start(request.isolation) {
                return Err(OffsetError::OffsetNotAvailable);
            }
            return Ok(ListOffsetPlan::Known {
                timestamp: TimestampMs::NONE,
                offset: self.last_fetchable_offset(request.isolation),
                leader_epoch: self.leader_epoch,
            });
        }
        Ok(self.log.list_offset(request.timestamp))
    }

    /// Judges an offset that a scan found for a timestamp: `Ok(false)` when the asker may not see it yet.
    pub fn filter_found_offset(&self, offset: Offset, isolation: Option<IsolationLevel>) -> Result<bool, OffsetError> {
        if offset < self.last_fetchable_offset(isolation) {
            return Ok(true);
        }
        if self.is_behind_epoch_start(isolation) { Err(OffsetError::OffsetNotAvailable) } else { Ok(false) }
    }

    fn is_behind_epoch_start(&self, isolation: Option<IsolationLevel>) -> bool {
        isolation.is_some() && self.role == Role::Leader && self.leader_epoch_start_offset > self.high_watermark
    }

    fn last_fetchable_offset(&self, isolation: Option<IsolationLevel>) -> Offset {
        match isolation {
            None => self.log.log_end_offset(),
            Some(IsolationLevel::ReadUncommitted) => self.high_watermark,
            Some(IsolationLevel::ReadCommitted) => self.last_stable_offset(),
        }
    }

    /// OffsetForLeaderEpoch: the largest epoch at or below `requested` and where it ends.
    pub fn offset_for_leader_epoch(
        &self,
        requested: LeaderEpoch,
        current_leader_epoch: Option<LeaderEpoch>,
        leader_only: bool,
    ) -> Result<EpochEndOffset, ReadError> {
        self.check_epoch_and_role(current_leader_epoch, leader_only)?;
        Ok(self.log.leader_epochs().end_offset_for(requested, self.log.log_end_offset()))
    }

    /// DeleteRecords on the leader: everything below `offset` (-1: the high watermark) goes. Returns the offset that
    /// followers' log starts must reach before the request is answered; the store then deletes segments by
    /// [`Log::delete_old_segments`] and writes the log-start checkpoint.
    pub fn delete_records(&mut self, offset: Offset, config: &LogConfig) -> Result<Offset, DeleteRecordsError> {
        self.check_epoch_and_role(None, true)?;
        if !config.cleanup_delete && config.cleanup_compact {
            return Err(DeleteRecordsError::PolicyViolation);
        }
        let target = if offset.is_none() { self.high_watermark } else { offset };
        if target.0 < 0 || target > self.high_watermark {
            return Err(ReadError::OffsetOutOfRange(target).into());
        }
        self.log.advance_log_start_offset(target);
        Ok(target)
    }

    /// Where to truncate after the leader said that histories diverge (KIP-595, KIP-101).
    pub fn truncation_for(&self, diverging: EpochEndOffset, fetch_offset: Offset) -> Truncation {
        let log_end = self.log.log_end_offset();
        if diverging.end_offset.0 < 0 {
            return Truncation { offset: fetch_offset.min(log_end), complete: true };
        }
        let own = self.log.leader_epochs().end_offset_for(diverging.epoch, log_end);
        if own == EpochEndOffset::UNDEFINED {
            return Truncation { offset: diverging.end_offset.min(log_end), complete: true };
        }
        if own.epoch != diverging.epoch {
            // We don't know the leader's epoch: ours ends where the next higher one began, and the next fetch states
            // an epoch that both may know.
            return Truncation { offset: own.end_offset.min(log_end), complete: false };
        }
        Truncation { offset: own.end_offset.min(diverging.end_offset).min(log_end), complete: true }
    }

    /// A copy of the log, in another directory, takes its place, and gets this one. Both have to end at the same offset, on
    /// their devices: `false`, and nothing is changed, if they don't, or nobody may write to them any more.
    pub fn exchange_log(&mut self, copy: &mut Partition) -> bool {
        let ends = |partition: &Partition| (partition.durable_end_offset, partition.log.log_end_offset());
        let is_whole = self.durable_end_offset == self.log.log_end_offset() && ends(self) == ends(copy);
        if !is_whole || !self.is_written() || !copy.is_written() {
            return false;
        }
        std::mem::swap(&mut self.log, &mut copy.log);
        // A copy knows the epochs of its batches only, not one that began at its end.
        *self.log.leader_epochs_mut() = copy.log.leader_epochs().clone();
        self.log.leader_epochs_mut().set_dirty();
        self.log.advance_log_start_offset(copy.log.log_start_offset());
        self.log.producers_mut().on_high_watermark(self.high_watermark);
        true
    }

    /// The log was truncated or rebuilt: takes over the new one. The high watermark never stays above its end.
    pub fn replace_log(&mut self, log: Log) {
        self.durable_end_offset = log.log_end_offset();
        self.high_watermark = self.high_watermark.min(self.durable_end_offset).max(log.log_start_offset());
        let checkpointed = self.log.checkpointed_recovery_point();
        self.log = log;
        self.log.note_checkpointed_recovery_point(checkpointed);
        self.log.set_jitter_seed(crate::partition::jitter_seed(self.id));
        self.log.producers_mut().on_high_watermark(self.high_watermark);
    }
}
