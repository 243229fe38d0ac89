//! `.timeindex`: entries of int64 timestamp and int32 offset (relative to the segment's base offset): no record up to and
//! including that offset is later than the timestamp.
//!
//! While a segment is active Kafka's file is preallocated, and its tail is zeros.

use ringlog_types::{Offset, TimestampMs};

use crate::offset_index::{IndexError, used_entries};

/// Bytes of an entry.
pub const TIME_INDEX_ENTRY_LEN: usize = 12;

/// A timestamp and where it was first reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The largest timestamp so far; -1 where no entry applies.
    pub timestamp: TimestampMs,
    /// The last offset of the batch that first had it; the segment's base offset where no entry applies.
    pub offset: Offset,
}

/// A segment's time index in memory: 16 bytes per entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeIndex {
    base_offset: Offset,
    /// Timestamp (rising) and relative offset (never falling).
    entries: Vec<(i64, u32)>,
}

impl TimeIndex {
    /// An empty index.
    pub fn new(base_offset: Offset) -> TimeIndex {
        TimeIndex { base_offset, entries: Vec::new() }
    }

    /// Reads a file's content; zeros at its end are preallocated room.
    pub fn load(base_offset: Offset, bytes: &[u8]) -> Result<TimeIndex, IndexError> {
        let used = used_entries::<TIME_INDEX_ENTRY_LEN>(bytes)?;
        let mut entries: Vec<(i64, u32)> = Vec::with_capacity(used.len());
        for (index, entry) in used.iter().enumerate() {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
            let entry = (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]));
            let rises = entries.last().is_none_or(|last| last.0 < entry.0 && last.1 <= entry.1);
            if !rises || entry.0 < 0 || entry.1 > i32::MAX as u32 {
                return Err(IndexError::OutOfOrder(index));
            }
            entries.push(entry);
        }
        Ok(TimeIndex { base_offset, entries })
    }

    /// Adds an entry if its timestamp is above the last one's (-1 in an empty index). Says whether it did.
    ///
    /// # Panics
    /// If the offset is before the last entry's or out of the segment's range.
    pub fn maybe_append(&mut self, timestamp: TimestampMs, offset: Offset) -> bool {
        let last = self.last();
        if timestamp <= last.timestamp {
            return false;
        }
        assert!(offset >= last.offset, "index entries rise");
        let relative = i32::try_from(offset.0 - self.base_offset.0).expect("a segment spans 31 bits of offsets");
        self.entries.push((timestamp.0, relative as u32));
        true
    }

    /// The last entry at or below `timestamp`: the first record at or after it, if any, isn't before that offset.
    pub fn lookup(&self, timestamp: TimestampMs) -> TimestampOffset {
        self.entry_before(self.entries.partition_point(|entry| entry.0 <= timestamp.0))
    }

    /// The last entry.
    pub fn last(&self) -> TimestampOffset {
        self.entry_before(self.entries.len())
    }

    fn entry_before(&self, end: usize) -> TimestampOffset {
        match end.checked_sub(1).and_then(|index| self.entries.get(index)) {
            Some(&(timestamp, relative)) => TimestampOffset {
                timestamp: TimestampMs(timestamp),
                offset: self.base_offset.plus(i64::from(relative)),
            },
            None => TimestampOffset { timestamp: TimestampMs::NONE, offset: self.base_offset },
        }
    }

    /// Drops the entries at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let relative = offset.0.saturating_sub(self.base_offset.0);
        let keep = self.entries.partition_point(|entry| i64::from(entry.1) < relative);
        self.entries.truncate(keep);
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the segment must roll: one entry less than `segment.index.bytes` can hold, as closing the segment adds
    /// one.
    pub fn is_full(&self, index_bytes_max: usize) -> bool {
        self.entries.len() + 1 >= index_bytes_max / TIME_INDEX_ENTRY_LEN
    }

    /// The file's content from entry `first` on; 0 gives all of it.
    pub fn encode_from(&self, first: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len().saturating_sub(first) * TIME_INDEX_ENTRY_LEN);
        for (timestamp, relative) in self.entries.get(first..).unwrap_or_default() {
            out.extend_from_slice(&timestamp.to_be_bytes());
            out.extend_from_slice(&relative.to_be_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> TimeIndex {
        let mut index = TimeIndex::new(Offset(42));
        assert!(!index.maybe_append(TimestampMs::NONE, Offset(43)));
        assert!(index.maybe_append(TimestampMs(470), Offset(47)));
        assert!(!index.maybe_append(TimestampMs(470), Offset(50)));
        assert!(index.maybe_append(TimestampMs(500), Offset(50)));
        index
    }

    #[test]
    fn lookup_gives_the_last_entry_at_or_below() {
        let index = index();
        let found = |timestamp| {
            (index.lookup(TimestampMs(timestamp)).timestamp.0, index.lookup(TimestampMs(timestamp)).offset.0)
        };
        assert_eq!(found(0), (-1, 42));
        assert_eq!(found(470), (470, 47));
        assert_eq!(found(499), (470, 47));
        assert_eq!(found(i64::MAX), (500, 50));
    }

    #[test]
    fn a_preallocated_tail_is_left_out_and_faults_are_found() {
        let mut bytes = index().encode_from(0);
        bytes.resize(4092, 0);
        assert_eq!(TimeIndex::load(Offset(42), &bytes), Ok(index()));
        assert_eq!(TimeIndex::load(Offset(42), &bytes[..13]), Err(IndexError::InvalidSize(13)));
        let swapped = [&index().encode_from(1)[..], &index().encode_from(0)[..12]].concat();
        assert_eq!(TimeIndex::load(Offset(42), &swapped), Err(IndexError::OutOfOrder(1)));
    }

    #[test]
    fn truncation_drops_entries_from_the_offset_on() {
        for (offset, left) in [(51, 2), (50, 1), (47, 0)] {
            let mut index = index();
            index.truncate_to(Offset(offset));
            assert_eq!(index.len(), left);
        }
        assert!(index().is_full(36) && !index().is_full(48));
    }
}
