//! One segment as the log sees it: sealed segments are a few numbers, the active one has its indexes in memory.
//!
//! Index rule (`.index`, `.timeindex`): before a batch is appended, if more than `index.interval.bytes` were appended
//! since the last entry, an entry is added for this batch: its last offset and its position; and in the time index
//! the largest timestamp so far with the last offset of the batch that first had it.

use std::collections::VecDeque;

use ringlog_types::{Offset, Random, TimestampMs};

use crate::{BatchSummary, CompletedTransaction, LogConfig};

/// An entry of the offset index, relative to its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetIndexEntry {
    /// Last offset of the batch minus the segment's base offset.
    pub relative_offset: u32,
    /// Byte position of the batch in the segment.
    pub position: u32,
}

/// An entry of the time index, relative to its segment: no record up to the offset is later than the timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeIndexEntry {
    /// The timestamp.
    pub timestamp: TimestampMs,
    /// Offset minus the segment's base offset.
    pub relative_offset: u32,
}

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSegment {
    /// Offset in its name.
    pub base_offset: Offset,
    /// Bytes of batches.
    pub size: u32,
    /// Largest timestamp of its records, -1 when it holds none.
    pub max_timestamp: TimestampMs,
    /// Last offset of the batch that first had that timestamp.
    pub offset_of_max_timestamp: Offset,
    /// When the file was last changed.
    pub last_modified: TimestampMs,
    /// When the segment was made or opened.
    pub created: TimestampMs,
    /// Largest timestamp of the first batch: `segment.ms` counts from it.
    pub first_batch_timestamp: Option<TimestampMs>,
    /// Entries of the `.index` file.
    pub offset_index: Vec<OffsetIndexEntry>,
    /// Entries of the `.timeindex` file.
    pub time_index: Vec<TimeIndexEntry>,
    /// Entries of the `.txnindex` file.
    pub aborted_transactions: Vec<CompletedTransaction>,
    bytes_since_index_entry: u32,
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
            max_timestamp: TimestampMs::NONE,
            offset_of_max_timestamp: base_offset,
            last_modified: created,
            created,
            first_batch_timestamp: None,
            offset_index: Vec::new(),
            time_index: Vec::new(),
            aborted_transactions: Vec::new(),
            bytes_since_index_entry: 0,
            recent: VecDeque::new(),
            jitter_seed,
        }
    }

    /// An active segment again from a sealed one and its loaded indexes.
    pub fn reopen(
        sealed: SealedSegment,
        offset_index: Vec<OffsetIndexEntry>,
        time_index: Vec<TimeIndexEntry>,
        aborted_transactions: Vec<CompletedTransaction>,
        first_batch_timestamp: Option<TimestampMs>,
        now: TimestampMs,
    ) -> ActiveSegment {
        ActiveSegment {
            size: sealed.size,
            max_timestamp: sealed.max_timestamp,
            offset_of_max_timestamp: sealed.offset_of_max_timestamp,
            last_modified: sealed.last_modified,
            first_batch_timestamp,
            offset_index,
            time_index,
            aborted_transactions,
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
            || self.offset_index.len() >= config.offset_index_entries_max()
            || self.time_index.len() >= config.time_index_entries_max()
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

    /// `offset` relative to the base, if an index entry can hold it.
    pub fn relative(&self, offset: Offset) -> Option<u32> {
        let relative = offset.0.checked_sub(self.base_offset.0)?;
        (0..=i64::from(i32::MAX)).contains(&relative).then_some(relative as u32)
    }

    /// Takes a batch at the segment's end; returns its position. The caller has rolled where it must.
    pub fn append(&mut self, batch: &BatchSummary, config: &LogConfig, now: TimestampMs) -> u32 {
        let position = self.size;
        let relative_last = self.relative(batch.last_offset).expect("the log rolls before offsets leave the range");
        if position == 0 {
            self.first_batch_timestamp = Some(batch.max_timestamp);
        }
        if batch.max_timestamp > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp;
            self.offset_of_max_timestamp = batch.last_offset;
        }
        if self.bytes_since_index_entry > config.index_interval_bytes {
            self.offset_index.push(OffsetIndexEntry { relative_offset: relative_last, position });
            self.push_time_entry();
            self.bytes_since_index_entry = 0;
        }
        self.bytes_since_index_entry = self.bytes_since_index_entry.saturating_add(batch.size);
        self.size += batch.size;
        self.last_modified = now;
        if self.recent.len() == RECENT_BATCHES_MAX {
            self.recent.pop_front();
        }
        let relative_offset = self.relative(batch.base_offset).unwrap_or(relative_last);
        self.recent.push_back(BatchStart { relative_offset, position });
        position
    }

    fn push_time_entry(&mut self) {
        let newest = self.time_index.last().map_or(TimestampMs::NONE, |entry| entry.timestamp);
        if self.max_timestamp > newest
            && let Some(relative_offset) = self.relative(self.offset_of_max_timestamp)
        {
            self.time_index.push(TimeIndexEntry { timestamp: self.max_timestamp, relative_offset });
        }
    }

    /// The time index as its file holds it after a roll or an orderly stop: with the closing entry.
    pub fn closed_time_index(&mut self) -> &[TimeIndexEntry] {
        self.push_time_entry();
        &self.time_index
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
        SegmentPosition { position: lookup_position(&self.offset_index, relative), exact: relative == 0 }
    }

    /// The numbers that stay when the segment is sealed.
    pub fn seal(&self) -> SealedSegment {
        SealedSegment {
            base_offset: self.base_offset,
            size: self.size,
            max_timestamp: self.max_timestamp,
            offset_of_max_timestamp: self.offset_of_max_timestamp,
            last_modified: self.last_modified,
            has_transaction_index: !self.aborted_transactions.is_empty(),
        }
    }

    /// Gives back memory that only an active partition needs. Reads of the tail then scan from the last index entry.
    pub fn shrink(&mut self) {
        self.recent = VecDeque::new();
        self.offset_index.shrink_to_fit();
        self.time_index.shrink_to_fit();
    }
}

/// Position of the newest entry at or below `relative_offset`, else 0: the batch that holds the offset starts there
/// or later. The entry's offset is the *last* of its batch, so an offset inside that batch finds the entry before.
pub fn lookup_position(entries: &[OffsetIndexEntry], relative_offset: u32) -> u32 {
    let at = entries.partition_point(|entry| entry.relative_offset <= relative_offset);
    at.checked_sub(1).map_or(0, |i| entries[i].position)
}
