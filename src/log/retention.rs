//! Which old segments go: by time, by size, and below the log's start.

use ringlog_types::{Offset, TimestampMs};

use crate::{DeletedSegment, Log, LogConfig, Roll};

/// Why segments are deleted; the store logs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionReason {
    /// Older than `retention.ms`.
    Time,
    /// The log is larger than `retention.bytes`.
    Size,
    /// Wholly below the log's start.
    LogStart,
}

/// What retention did to the log's bookkeeping, for the store to do on disk: roll first, write the log-start
/// checkpoint if it lists this log, then rename the files of the deleted segments to `*.deleted`.
#[derive(Debug, Clone, Default)]
pub struct RetentionOutcome {
    /// All segments were to go, so the active one was sealed.
    pub roll: Option<Box<Roll>>,
    /// Oldest first.
    pub deleted: Vec<(DeletedSegment, RetentionReason)>,
}

impl Log {
    /// Deletes the segments that the topic's settings no longer keep. Only segments wholly below the high watermark
    /// go, oldest first; the log's start follows.
    pub fn delete_old_segments(
        &mut self,
        config: &LogConfig,
        high_watermark: Offset,
        now: TimestampMs,
    ) -> RetentionOutcome {
        let mut outcome = RetentionOutcome::default();
        self.delete_while(high_watermark, now, RetentionReason::LogStart, &mut outcome, |log, _, end, is_last| {
            !is_last && end <= log.log_start_offset
        });
        if !config.cleanup_delete {
            return outcome;
        }
        let retention_bytes = config.effective_retention_bytes();
        if retention_bytes >= 0 {
            let mut excess = i128::from(self.size()) - i128::from(retention_bytes);
            self.delete_while(high_watermark, now, RetentionReason::Size, &mut outcome, |_, segment, _, _| {
                excess -= i128::from(segment.size);
                excess >= 0
            });
        }
        if config.effective_retention_ms() >= 0 {
            self.delete_while(high_watermark, now, RetentionReason::Time, &mut outcome, |_, segment, _, _| {
                config.breaches_retention_ms(segment.largest_timestamp(), now)
            });
        }
        outcome
    }

    fn delete_while(
        &mut self,
        high_watermark: Offset,
        now: TimestampMs,
        reason: RetentionReason,
        outcome: &mut RetentionOutcome,
        mut goes: impl FnMut(&Log, &crate::SealedSegment, Offset, bool) -> bool,
    ) {
        let mut count = 0;
        for (i, segment) in self.sealed.iter().enumerate() {
            let end = self.sealed.get(i + 1).map_or(self.active.base_offset, |next| next.base_offset);
            if high_watermark < end || !goes(self, segment, end, false) {
                break;
            }
            count += 1;
        }
        let all_sealed = count == self.sealed.len();
        if all_sealed
            && self.active.size > 0
            && high_watermark >= self.log_end_offset
            && goes(self, &self.active.seal(), self.log_end_offset, true)
            && let Some(roll) = self.roll(self.log_end_offset, now)
        {
            outcome.roll = Some(roll);
            count += 1;
        }
        let deleted = self
            .sealed
            .drain(..count)
            .map(|segment| (DeletedSegment { base_offset: segment.base_offset, size: segment.size }, reason));
        outcome.deleted.extend(deleted);
        if count > 0 {
            self.advance_log_start_offset(self.first_segment_base_offset());
        }
    }
}
