//! One segment as the log sees it: sealed segments are a few numbers, the active one has its indexes in memory.
//

use std::collections::VecDeque;

use ringlog_types::{Offset, Random, TimestampMs};

use crate::offset_index::OffsetIndex;
use crate::segment_index::SegmentIndex;
use crate::time_index::TimeIndex;
use crate::transaction_index::TransactionIndex;
use crate::{LogBatch, LogConfig};

/// A segment that no longer grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Offset in its name; no batch in it starts below.
    pub base_offset: Offset,
    /// Bytes of batches.
    pub size: u32,
    /// Largest timestamp of its records, -1 when it holds none.
    pub max_timestamp: TimestampMs,
    /// Last offset of the batch that first had that timestamp.
    pub offset_of_max_timestamp: Offset,
    /// When the file was last changed; stands in where no record has a timestamp.
    pub last_modified: TimestampMs,
    /// Whether a `.txnindex` exists.
    pub has_transaction_index: bool,
}

impl SealedSegment {
    /// The time that retention goes by.
    pub fn largest_timestamp(&self) -> TimestampMs {
        if self.max_timestamp.0 >= 0 { self.max_timestamp } else { self.last_modified }
    }
}

/// Where an offset lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentPosition {
    /// A batch starts at this byte; the batch sought starts here or later.
    pub position: u32,
    /// The batch sought is the one at `position`.
    pub exact: bool,
}

/// The segment that is appended to.
#[derive(Debug, Clone)]
pub struct ActiveSegment {
    /// Offset in its name.
    pub base_offset: Offset,
    /// Bytes of batches.
    pub size: u32,
    /// When the file was last changed.
    pub last_modified: TimestampMs,
    /// When the segment was made or opened.
    pub created: TimestampMs,
    /// Largest timestamp of the first batch: `segment.ms` counts from it.
    pub first_batch_timestamp: Option<TimestampMs>,
    /// Offset and time index.
    pub index: SegmentIndex,
    /// Aborted transactions whose marker lies here.
    pub transaction_index: TransactionIndex,
    recent: VecDeque<BatchStart>,
    jitter_seed: u64,
}

/// Starts of the newest batches are kept, so that tail reads and the high watermark need no scan.
const RECENT_BATCHES_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchStart {
    relative_offset: u32,
    position: u32,
}

impl ActiveSegment {
    /// An empty segment. `jitter_seed` decides its share of `segment.jitter.ms`.
    pub fn new(base_offset: Offset, created: TimestampMs, jitter_seed: u64) -> ActiveSegment {
        ActiveSegment {
            base_offset,
            size: 0,
            last_modified: created,
            created,
            first_batch_timestamp: None,
            index: SegmentIndex::new(base_offset),
            transaction_index: TransactionIndex::new(),
            recent: VecDeque::new(),
            jitter_seed,
        }
    }

    /// An active segment again from a sealed one and its loaded indexes.
    pub fn reopen(
        sealed: SealedSegment,
        offsets: OffsetIndex,
        times: TimeIndex,
        transaction_index: TransactionIndex,
        first_batch_timestamp: Option<TimestampMs>,
        now: TimestampMs,
    ) -> ActiveSegment {
        let mut index = SegmentIndex::reopen(offsets, times);
        index.observe_timestamp(sealed.max_timestamp, sealed.offset_of_max_timestamp);
        ActiveSegment {
            size: sealed.size,
            last_modified: sealed.last_modified,
            first_batch_timestamp,
            index,
            transaction_index,
            ..ActiveSegment::new(sealed.base_offset, now, sealed.base_offset.0 as u64)
        }
    }

    /// Whether `segment.bytes`, `segment.ms`, a full index or an offset too far from the base asks for a new segment
    /// before `size` bytes up to `last_offset` are appended.
    pub fn should_roll(
        &self,
        config: &LogConfig,
        size: u64,
        last_offset: Offset,
        max_timestamp: TimestampMs,
        now: TimestampMs,
    ) -> bool {
        u64::from(self.size) + size > u64::from(config.segment_bytes)
            || (self.size > 0 && self.waited_for_roll(max_timestamp, now) > config.segment_ms - self.jitter_ms(config))
            || self.index.is_full(config.segment_index_bytes as usize)
            || self.relative(last_offset).is_none()
    }

    fn waited_for_roll(&self, max_timestamp: TimestampMs, now: TimestampMs) -> i64 {
        match self.first_batch_timestamp {
            Some(first) if first.0 >= 0 => max_timestamp.0.saturating_sub(first.0),
            _ => now.0.saturating_sub(self.created.0),
        }
    }

    fn jitter_ms(&self, config: &LogConfig) -> i64 {
        let bound = config.segment_jitter_ms.min(config.segment_ms).max(0) as u64;
        if bound == 0 { 0 } else { Random::from_seed(self.jitter_seed).below(bound) as i64 }
    }

    pub(crate) fn set_jitter_seed(&mut self, seed: u64) {
        self.jitter_seed = seed;
    }

    /// `offset` relative to the base, if an index entry can hold it.
    pub fn relative(&self, offset: Offset) -> Option<u32> {
        let relative = offset.0.checked_sub(self.base_offset.0)?;
        (0..=i64::from(i32::MAX)).contains(&relative).then_some(relative as u32)
    }

    /// Takes a batch at the segment's end; returns its position. The caller has rolled where it must.
    pub fn append(&mut self, batch: &LogBatch, config: &LogConfig, now: TimestampMs) -> u32 {
        let header = &batch.header;
        let position = self.size;
        let relative_last = self.relative(header.last_offset()).expect("the log rolls before offsets leave the range");
        if position == 0 {
            self.first_batch_timestamp = Some(header.max_timestamp);
        }
        self.index.on_append(header, position, config.index_interval_bytes);
        self.size += header.size_in_bytes() as u32;
        self.last_modified = now;
        if self.recent.len() == RECENT_BATCHES_MAX {
            self.recent.pop_front();
        }
        let relative_offset = self.relative(header.base_offset).unwrap_or(relative_last);
        self.recent.push_back(BatchStart { relative_offset, position });
        position
    }

    /// Where the batch that holds `offset` lies, from the starts of the newest batches, else the index.
    pub fn position_of(&self, offset: Offset, log_end_offset: Offset) -> SegmentPosition {
        if offset >= log_end_offset {
            return SegmentPosition { position: self.size, exact: true };
        }
        let Some(relative) = self.relative(offset) else { return SegmentPosition { position: 0, exact: false } };
        let at = self.recent.partition_point(|start| start.relative_offset <= relative);
        if at > 0 {
            return SegmentPosition { position: self.recent[at - 1].position, exact: true };
        }
        SegmentPosition { position: self.index.offsets.lookup(offset).position, exact: relative == 0 }
    }

    /// The numbers that stay when the segment is sealed.
    pub fn seal(&self) -> SealedSegment {
        let newest = self.index.max_timestamp();
        SealedSegment {
            base_offset: self.base_offset,
            size: self.size,
            max_timestamp: newest.timestamp,
            offset_of_max_timestamp: newest.offset,
            last_modified: self.last_modified,
            has_transaction_index: !self.transaction_index.entries().is_empty(),
        }
    }

    /// Gives back memory that only an active partition needs. Reads of the tail then scan from the last index entry.
    pub fn shrink(&mut self) {
        self.recent = VecDeque::new();
    }
}
