//! A partition's log as bookkeeping: which segments there are, where a batch goes, which bytes a read covers.
//!
//! Nothing here touches a file. The segment store asks, does the I/O, and reports. Offsets: `log_start_offset` ≤
//! `recovery_point` (everything below it is on the device) ≤ `log_end_offset` (the next offset to be given out).

use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

use crate::producer_snapshot::ProducerSnapshotEntry;
use crate::segment_index::SegmentIndex;
use crate::transaction_index::{AbortedTransaction, TransactionIndex};
use crate::{ActiveSegment, LeaderEpochCache, LogBatch, LogConfig, ProducerStateManager, SealedSegment};

/// One partition's log.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) active: ActiveSegment,
    pub(crate) log_start_offset: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) recovery_point: Offset,
    pub(crate) checkpointed_recovery_point: Offset,
    pub(crate) leader_epochs: LeaderEpochCache,
    pub(crate) producers: ProducerStateManager,
    pub(crate) last_flush: TimestampMs,
    pub(crate) jitter_seed: u64,
}

/// What a log is made from: the outcome of recovery.
#[derive(Debug, Clone)]
pub struct OpenedLog {
    /// Sealed segments, ascending.
    pub sealed: Vec<SealedSegment>,
    /// The newest segment.
    pub active: ActiveSegment,
    /// First offset that may be read.
    pub log_start_offset: Offset,
    /// Next offset to be given out.
    pub log_end_offset: Offset,
    /// Everything below is on the device.
    pub recovery_point: Offset,
    /// What the checkpoint of recovery points may say: more than is true, if the log ends before it.
    pub checkpointed_recovery_point: Offset,
    /// Leader epochs.
    pub leader_epochs: LeaderEpochCache,
    /// Producers as of `log_end_offset`.
    pub producers: ProducerStateManager,
}

/// Why an append can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogAppendError {
    /// More bytes than a segment may hold (`RECORD_LIST_TOO_LARGE`).
    #[error("{size} bytes of batches are more than a segment of {segment_bytes} may hold")]
    RecordListTooLarge {
        /// Bytes to append.
        size: u64,
        /// `segment.bytes`.
        segment_bytes: u32,
    },
    /// The first offset is below the log's end.
    #[error("the append starts at {first_offset}, below the log's end {log_end_offset}")]
    OffsetsNotMonotonic {
        /// First offset of the append.
        first_offset: Offset,
        /// The log's end.
        log_end_offset: Offset,
    },
}

/// A change of segment. The store writes the sealed one's indexes, flushes it (and then reports
/// [`Log::on_flushed`]), and creates the new one.
#[derive(Debug, Clone)]
pub struct Roll {
    /// The segment that is sealed.
    pub sealed: SealedSegment,
    /// Whole content of its `.index` and `.timeindex`.
    pub index: SegmentIndex,
    /// Whole content of its `.txnindex`, which exists only if this isn't empty.
    pub transaction_index: TransactionIndex,
    /// Base offset of the new segment.
    pub new_base_offset: Offset,
    /// A producer snapshot to write, named for the offset.
    pub producer_snapshot: Option<(Offset, Vec<ProducerSnapshotEntry>)>,
}

/// Where an append goes.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Do this first.
    pub roll: Option<Box<Roll>>,
    /// The segment's base offset.
    pub segment_base_offset: Offset,
    /// Byte position of the first batch in the segment.
    pub position: u32,
    /// Bytes to write.
    pub size: u32,
    /// Entries to append to the segment's `.txnindex`.
    pub aborted_transactions: Vec<AbortedTransaction>,
}

/// Where a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// At a batch of this segment.
    At {
        /// The segment.
        segment_base_offset: Offset,
        /// A batch starts here; the one sought starts here or later.
        position: u32,
        /// The batch at `position` is the one sought.
        exact: bool,
    },
    /// In a sealed segment: load its offset index and look the offset up there.
    NeedsIndex {
        /// The segment.
        segment_base_offset: Offset,
    },
}

/// Up to where a segment may be read for a given limit offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadEnd {
    /// No byte at or after this position.
    pub position: u32,
    /// `position` is a batch boundary at the limit. Otherwise stop at the first batch whose base offset is at or
    /// above the limit.
    pub exact: bool,
}

/// The offset lies outside of the log (`OFFSET_OUT_OF_RANGE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} is outside of the log, which has {log_start_offset} to {log_end_offset}")]
pub struct OffsetOutOfRange {
    /// The offset.
    pub offset: Offset,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// End of the log.
    pub log_end_offset: Offset,
}

/// A segment whose files go: `.log`, `.index`, `.timeindex`, `.txnindex` and the `.snapshot` of its base offset are
/// renamed to `*.deleted` and unlinked after `file.delete.delay.ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    /// The segment.
    pub base_offset: Offset,
    /// Its bytes.
    pub size: u32,
}

/// How to find the answer to ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOffsetPlan {
    /// Known without reading. Offset -1 is "none".
    Known {
        /// -1 for the special timestamps.
        timestamp: TimestampMs,
        /// The offset.
        offset: Offset,
        /// -1 when not known.
        leader_epoch: LeaderEpoch,
    },
    /// Read the segment from a position found by its indexes: the first record at or after `start_offset` whose
    /// timestamp is at least `target`.
    FirstAtOrAfter {
        /// The segment.
        segment_base_offset: Offset,
        /// The timestamp sought.
        target: TimestampMs,
        /// Records below don't count.
        start_offset: Offset,
        /// Where to start in the active segment; `None`: look up time and offset index of the sealed segment.
        position: Option<u32>,
    },
    /// Read the batch that holds `batch_offset`; the answer is its first record with its largest timestamp.
    MaxTimestampIn {
        /// The segment.
        segment_base_offset: Offset,
        /// An offset in the batch (its last).
        batch_offset: Offset,
        /// Where to start in the active segment; `None`: look up the offset index of the sealed segment.
        position: Option<u32>,
    },
}

/// The special timestamps of ListOffsets.
pub mod list_offsets_timestamp {
    /// The log's end.
    pub const LATEST: i64 = -1;
    /// The log's start.
    pub const EARLIEST: i64 = -2;
    /// The record with the largest timestamp (KIP-734).
    pub const MAX_TIMESTAMP: i64 = -3;
    /// The start of what is kept locally (KIP-405).
    pub const EARLIEST_LOCAL: i64 = -4;
    /// The newest record in tiered storage (KIP-1005).
    pub const LATEST_TIERED: i64 = -5;
    /// The oldest record that awaits upload to tiered storage (KIP-1023).
    pub const EARLIEST_PENDING_UPLOAD: i64 = -6;
}

impl Log {
    /// A log from what recovery found.
    pub fn open(opened: OpenedLog, now: TimestampMs) -> Log {
        let begins = opened.active.base_offset;
        assert!(opened.log_end_offset >= begins, "the log ends before its last segment starts");
        assert!(opened.sealed.last().is_none_or(|last| last.base_offset < begins), "segments out of order");
        Log {
            sealed: opened.sealed,
            active: opened.active,
            log_start_offset: opened.log_start_offset,
            log_end_offset: opened.log_end_offset,
            recovery_point: opened.recovery_point,
            checkpointed_recovery_point: opened.checkpointed_recovery_point,
            leader_epochs: opened.leader_epochs,
            producers: opened.producers,
            last_flush: now,
            jitter_seed: 0,
        }
    }

    /// A log without records that starts at `offset`, as for a new partition.
    pub fn new(offset: Offset, now: TimestampMs, jitter_seed: u64) -> Log {
        Log {
            sealed: Vec::new(),
            active: ActiveSegment::new(offset, now, jitter_seed),
            log_start_offset: offset,
            log_end_offset: offset,
            recovery_point: offset,
            checkpointed_recovery_point: offset,
            leader_epochs: LeaderEpochCache::default(),
            producers: ProducerStateManager::new(offset),
            last_flush: now,
            jitter_seed,
        }
    }

    /// Sets what decides the share of `segment.jitter.ms`; it should differ between partitions, so that they don't roll
    /// all at once.
    pub fn set_jitter_seed(&mut self, seed: u64) {
        self.jitter_seed = seed;
        self.active.set_jitter_seed(seed ^ self.active.base_offset.0 as u64);
    }

    /// First offset that may be read.
    #[inline]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Next offset to be given out.
    #[inline]
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Everything below is on the device (`recovery-point-offset-checkpoint`).
    #[inline]
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// The leader epochs.
    pub fn leader_epochs(&self) -> &LeaderEpochCache {
        &self.leader_epochs
    }

    /// The leader epochs, to change.
    pub fn leader_epochs_mut(&mut self) -> &mut LeaderEpochCache {
        &mut self.leader_epochs
    }

    /// The producers.
    pub fn producers(&self) -> &ProducerStateManager {
        &self.producers
    }

    /// The producers, to change.
    pub fn producers_mut(&mut self) -> &mut ProducerStateManager {
        &mut self.producers
    }

    /// The segment that is appended to.
    pub fn active_segment(&self) -> &ActiveSegment {
        &self.active
    }

    /// The segment that is appended to, for the store to close or shrink.
    pub fn active_segment_mut(&mut self) -> &mut ActiveSegment {
        &mut self.active
    }

    /// The sealed segments, ascending.
    pub fn sealed_segments(&self) -> &[SealedSegment] {
        &self.sealed
    }

    /// Base offset of the oldest segment.
    pub fn first_segment_base_offset(&self) -> Offset {
        self.sealed.first().map_or(self.active.base_offset, |segment| segment.base_offset)
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.sealed.iter().map(|segment| u64::from(segment.size)).sum::<u64>() + u64::from(self.active.size)
    }

    /// Places batches that already have their offsets at the log's end, in a new segment when `config` or their size asks
    /// for one, and takes them into epochs and producers. All of them go to one segment.
    pub fn append(
        &mut self,
        batches: &[LogBatch],
        config: &LogConfig,
        now: TimestampMs,
    ) -> Result<Placement, LogAppendError> {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Ok(self.placement(None, self.active.size, 0));
        };
        let size: u64 = batches.iter().map(|batch| batch.header.size_in_bytes() as u64).sum();
        if size > u64::from(config.segment_bytes) {
            return Err(LogAppendError::RecordListTooLarge { size, segment_bytes: config.segment_bytes });
        }
        let first_offset = first.header.base_offset;
        if first_offset < self.log_end_offset {
            return Err(LogAppendError::OffsetsNotMonotonic { first_offset, log_end_offset: self.log_end_offset });
        }
        let newest = batches.iter().map(|batch| batch.header.max_timestamp).max().unwrap_or(TimestampMs::NONE);
        let roll = if self.active.should_roll(config, size, last.header.last_offset(), newest, now) {
            self.roll(first_offset, now)
        } else {
            None
        };
        let mut placement = self.placement(roll, self.active.size, size as u32);
        for batch in batches {
            self.active.append(batch, config, now);
            self.leader_epochs.assign(batch.header.partition_leader_epoch, batch.header.base_offset);
            if let Some(aborted) = self.producers.apply(batch).and_then(|completed| completed.index_entry()) {
                self.active.transaction_index.append(aborted);
                placement.aborted_transactions.push(aborted);
            }
        }
        self.log_end_offset = last.header.next_offset();
        Ok(placement)
    }

    fn placement(&self, roll: Option<Box<Roll>>, position: u32, size: u32) -> Placement {
        let segment_base_offset = self.active.base_offset;
        Placement { roll, segment_base_offset, position, size, aborted_transactions: Vec::new() }
    }

    /// Seals the active segment and starts a new one at `base_offset`, or at the log's end if that is higher. An empty
    /// segment that already starts there is kept.
    pub fn roll(&mut self, base_offset: Offset, now: TimestampMs) -> Option<Box<Roll>> {
        let new_base_offset = base_offset.max(self.log_end_offset);
        if new_base_offset == self.active.base_offset {
            return None;
        }
        let seed = self.jitter_seed ^ new_base_offset.0 as u64;
        let mut old = std::mem::replace(&mut self.active, ActiveSegment::new(new_base_offset, now, seed));
        old.index.on_close();
        let sealed = old.seal();
        self.sealed.push(sealed);
        self.producers.update_map_end_offset(new_base_offset);
        Some(Box::new(Roll {
            sealed,
            index: old.index,
            transaction_index: old.transaction_index,
            new_base_offset,
            producer_snapshot: self.producers.take_snapshot(),
        }))
    }

    /// Where the batch that holds `offset` lies. The log's end is a valid place, with nothing behind it.
    pub fn locate(&self, offset: Offset) -> Result<Location, OffsetOutOfRange> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            let (log_start_offset, log_end_offset) = (self.log_start_offset, self.log_end_offset);
            return Err(OffsetOutOfRange { offset, log_start_offset, log_end_offset });
        }
        if offset >= self.active.base_offset {
            let found = self.active.position_of(offset, self.log_end_offset);
            return Ok(Location::At {
                segment_base_offset: self.active.base_offset,
                position: found.position,
                exact: found.exact,
            });
        }
        let at = self.sealed.partition_point(|segment| segment.base_offset <= offset);
        let segment = self.sealed[at.saturating_sub(1)];
        if segment.base_offset >= offset {
            return Ok(Location::At { segment_base_offset: segment.base_offset, position: 0, exact: true });
        }
        Ok(Location::NeedsIndex { segment_base_offset: segment.base_offset })
    }

    /// The segment after the one with this base offset: a read that finds nothing at the end of one (compaction took
    /// it) goes on there.
    pub fn next_segment(&self, base_offset: Offset) -> Option<Offset> {
        let at = self.sealed.partition_point(|segment| segment.base_offset <= base_offset);
        match self.sealed.get(at) {
            Some(segment) => Some(segment.base_offset),
            None => (self.active.base_offset > base_offset).then_some(self.active.base_offset),
        }
    }

    /// Bytes of a segment, if it still exists.
    pub fn segment_size(&self, base_offset: Offset) -> Option<u32> {
        if base_offset == self.active.base_offset {
            return Some(self.active.size);
        }
        self.sealed.binary_search_by_key(&base_offset, |segment| segment.base_offset).ok().map(|i| self.sealed[i].size)
    }

    /// Up to where a segment may be read so that no record at or above `limit` is seen.
    pub fn read_end(&self, segment_base_offset: Offset, limit: Offset) -> Option<ReadEnd> {
        let size = self.segment_size(segment_base_offset)?;
        if limit <= segment_base_offset {
            return Some(ReadEnd { position: 0, exact: true });
        }
        if limit >= self.log_end_offset || self.next_segment(segment_base_offset).is_some_and(|next| limit >= next) {
            return Some(ReadEnd { position: size, exact: true });
        }
        if segment_base_offset == self.active.base_offset {
            let found = self.active.position_of(limit, self.log_end_offset);
            if found.exact {
                return Some(ReadEnd { position: found.position, exact: true });
            }
        }
        Some(ReadEnd { position: size, exact: false })
    }

    /// The last stable offset: nothing at or above it is committed for `read_committed`.
    #[inline]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        match self.producers.first_unstable_offset() {
            Some(first) => first.max(self.log_start_offset).min(high_watermark),
            None => high_watermark,
        }
    }

    /// Sealed segments whose `.txnindex` may hold aborted transactions that overlap a read from `fetch_offset`, in the
    /// order to look at them; the active segment's index comes last. Ask each with
    /// [`crate::transaction_index::TransactionIndex::collect_aborted`] until the search is complete.
    pub fn transaction_index_segments(&self, fetch_offset: Offset) -> impl Iterator<Item = Offset> + '_ {
        let from = self.sealed.partition_point(|s| s.base_offset <= fetch_offset).saturating_sub(1);
        self.sealed[from..].iter().filter(|s| s.has_transaction_index).map(|s| s.base_offset)
    }

    /// Raises the log's start (DeleteRecords, or the leader's start on a follower); the caller has checked it against
    /// the high watermark. Returns whether it moved; the checkpoint must then be written before segments go.
    pub fn advance_log_start_offset(&mut self, offset: Offset) -> bool {
        if offset <= self.log_start_offset {
            return false;
        }
        self.log_start_offset = offset;
        self.leader_epochs.truncate_from_start(offset);
        self.producers.on_log_start_offset(offset);
        true
    }

    /// Drops everything and starts anew at `offset`: a follower whose leader's log starts above its end. All segments
    /// returned are to be deleted and an empty one created.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset, now: TimestampMs) -> Vec<DeletedSegment> {
        let mut deleted: Vec<_> = self
            .sealed
            .drain(..)
            .map(|segment| DeletedSegment { base_offset: segment.base_offset, size: segment.size })
            .collect();
        deleted.push(DeletedSegment { base_offset: self.active.base_offset, size: self.active.size });
        self.active = ActiveSegment::new(offset, now, self.jitter_seed ^ offset.0 as u64);
        self.log_start_offset = offset;
        self.log_end_offset = offset;
        self.note_checkpointed_recovery_point(self.recovery_point);
        self.recovery_point = offset;
        self.leader_epochs.clear();
        self.producers.truncate_fully_and_start_at(offset);
        deleted
    }

    /// Offset and epoch of the log's last record (`-1` epoch on an empty log), as a follower's fetch states them.
    pub fn last_fetched_epoch(&self) -> LeaderEpoch {
        self.leader_epochs.latest_epoch().unwrap_or(LeaderEpoch::NONE)
    }

    /// Whether enough unflushed messages have gathered (`flush.messages`), or recovery might not look at them, as it
    /// believes a recovery point of before the log was cut.
    #[inline]
    pub fn must_flush(&self, config: &LogConfig) -> bool {
        self.log_end_offset.0 - self.recovery_point.0 >= config.flush_messages
            || self.recovery_point < self.checkpointed_recovery_point.min(self.log_end_offset)
    }

    /// The checkpoint of recovery points may name this one, of before the log was cut.
    pub fn note_checkpointed_recovery_point(&mut self, offset: Offset) {
        self.checkpointed_recovery_point = self.checkpointed_recovery_point.max(offset);
    }

    /// What the checkpoint of recovery points may name at most, as far as it is above the recovery point.
    pub fn checkpointed_recovery_point(&self) -> Offset {
        self.checkpointed_recovery_point.max(self.recovery_point)
    }

    /// Whether unflushed messages are older than `flush.ms`.
    pub fn flush_is_due(&self, config: &LogConfig, now: TimestampMs) -> bool {
        self.recovery_point < self.log_end_offset && now.0.saturating_sub(self.last_flush.0) >= config.flush_ms
    }

    /// Everything below `offset` is now on the device.
    pub fn on_flushed(&mut self, offset: Offset, now: TimestampMs) {
        self.recovery_point = self.recovery_point.max(offset.min(self.log_end_offset));
        self.last_flush = now;
    }

    /// What `log-start-offset-checkpoint` lists: every start above 0. Kafka leaves out a start at the first segment's
    /// base; here segments leave the bookkeeping before their files are gone, and a crash in between must not bring
    /// back what DeleteRecords deleted.
    pub fn log_start_offset_to_checkpoint(&self) -> Option<Offset> {
        (self.log_start_offset > Offset(0)).then_some(self.log_start_offset)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
