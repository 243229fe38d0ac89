//! Grows a segment's offset and time index as batches are appended, by Kafka's rule.
//!
//! Count the bytes appended since the last entry; before a batch is appended, if that count is *above*
//! `index.interval.bytes`, both indexes get an entry for it and the count starts anew. The time index entry holds the
//! largest timestamp so far and is only made where that rose; closing the segment adds a last one.

use ringlog_protocol::records::BatchHeader;
use ringlog_types::{Offset, TimestampMs};

use crate::offset_index::OffsetIndex;
use crate::time_index::{TimeIndex, TimestampOffset};

/// Both indexes of a segment that is appended to.
#[derive(Debug, Clone)]
pub struct SegmentIndex {
    /// Offsets to positions.
    pub offsets: OffsetIndex,
    /// Timestamps to offsets.
    pub times: TimeIndex,
    max_timestamp: TimestampOffset,
    bytes_since_entry: u64,
}

impl SegmentIndex {
    /// Of an empty segment.
    pub fn new(base_offset: Offset) -> SegmentIndex {
        Self::reopen(OffsetIndex::new(base_offset), TimeIndex::new(base_offset))
    }

    /// Of a segment that is opened again: the count of bytes starts at 0, and the largest timestamp is the time index's
    /// last (which for a segment closed in order is that of the segment).
    pub fn reopen(offsets: OffsetIndex, times: TimeIndex) -> SegmentIndex {
        let max_timestamp = times.last();
        SegmentIndex { offsets, times, max_timestamp, bytes_since_entry: 0 }
    }

    /// Notes a batch that is appended at `position`. Says whether an index entry was made for it.
    pub fn on_append(&mut self, header: &BatchHeader, position: u32, index_interval_bytes: u32) -> bool {
        if header.max_timestamp > self.max_timestamp.timestamp {
            self.max_timestamp = TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        let due = self.bytes_since_entry > u64::from(index_interval_bytes);
        if due {
            self.offsets.append(header.last_offset(), position);
            self.times.maybe_append(self.max_timestamp.timestamp, self.max_timestamp.offset);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size_in_bytes() as u64;
        due
    }

    /// The segment rolls or closes in order: its largest timestamp gets an entry, if it has none. The segment may still be
    /// appended to.
    pub fn on_close(&mut self) {
        self.times.maybe_append(self.max_timestamp.timestamp, self.max_timestamp.offset);
    }

    /// The segment was cut at `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        self.offsets.truncate_to(offset);
        self.times.truncate_to(offset);
        self.max_timestamp = self.times.last();
        self.bytes_since_entry = 0;
    }

    /// The segment's largest timestamp, -1 if none, and the last offset of the batch that first had it.
    pub fn max_timestamp(&self) -> TimestampOffset {
        self.max_timestamp
    }

    /// Corrects the largest timestamp where a scan found what the indexes don't hold.
    pub fn observe_timestamp(&mut self, timestamp: TimestampMs, offset: Offset) {
        if timestamp > self.max_timestamp.timestamp {
            self.max_timestamp = TimestampOffset { timestamp, offset };
        }
    }

    /// Whether either file has reached `segment.index.bytes`: then the segment rolls.
    pub fn is_full(&self, index_bytes_max: usize) -> bool {
        self.offsets.is_full(index_bytes_max) || self.times.is_full(index_bytes_max)
    }
}
