//! `.index`: entries of int32 offset (relative to the segment's base offset) and int32 position in the `.log`.
//!
//! The offset is the *last* of the batch that starts at the position, so the first batch of a segment never has an entry
//! and no entry is all zero. While a segment is active Kafka's file is preallocated, and its tail is zeros.

use ringlog_types::Offset;

/// Bytes of an entry.
pub const OFFSET_INDEX_ENTRY_LEN: usize = 8;

/// An index file's content can't be right: it must be rebuilt from the `.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The file's size is no multiple of an entry's.
    #[error("index size {0} is no multiple of an entry's size")]
    InvalidSize(usize),
    /// An entry isn't after the one before it, or is negative.
    #[error("index entry {0} is out of order")]
    OutOfOrder(usize),
}

/// The entries of an index file, without the preallocated room at its end, which is zeros.
pub(crate) fn used_entries<const LEN: usize>(bytes: &[u8]) -> Result<&[[u8; LEN]], IndexError> {
    let (entries, rest) = bytes.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err(IndexError::InvalidSize(bytes.len()));
    }
    let used = entries.iter().rposition(|entry| entry.iter().any(|byte| *byte != 0)).map_or(0, |last| last + 1);
    Ok(&entries[..used])
}

/// A batch and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetPosition {
    /// The batch's last offset; the segment's base offset where no entry applies.
    pub offset: Offset,
    /// The batch's first byte in the `.log`.
    pub position: u32,
}

/// A segment's offset index in memory: 8 bytes per entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetIndex {
    base_offset: Offset,
    /// Relative offset and position, both rising.
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    /// An empty index.
    pub fn new(base_offset: Offset) -> OffsetIndex {
        OffsetIndex { base_offset, entries: Vec::new() }
    }

    /// Reads a file's content; zeros at its end are preallocated room.
    pub fn load(base_offset: Offset, bytes: &[u8]) -> Result<OffsetIndex, IndexError> {
        let used = used_entries::<OFFSET_INDEX_ENTRY_LEN>(bytes)?;
        let mut entries: Vec<(u32, u32)> = Vec::with_capacity(used.len());
        for (index, entry) in used.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = *entry;
            let entry = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            let last = entries.last().copied();
            let rises = last.is_none_or(|last| last.0 < entry.0 && last.1 < entry.1);
            if !rises || entry.0 > i32::MAX as u32 || entry.1 > i32::MAX as u32 {
                return Err(IndexError::OutOfOrder(index));
            }
            entries.push(entry);
        }
        Ok(OffsetIndex { base_offset, entries })
    }

    /// Adds an entry for the batch that starts at `position` and ends with `last_offset`.
    ///
    /// # Panics
    /// If the entry doesn't follow the last one, or its offset is out of the segment's range.
    pub fn append(&mut self, last_offset: Offset, position: u32) {
        let relative =
            i32::try_from(last_offset.0 - self.base_offset.0).ok().and_then(|delta| u32::try_from(delta).ok());
        let relative = relative.expect("a segment spans 31 bits of offsets");
        let rises = self.entries.last().is_none_or(|last| last.0 < relative && last.1 < position);
        assert!(rises, "index entries rise");
        self.entries.push((relative, position));
    }

    /// The last entry at or below `offset`; from its position on a scan finds the batch that holds `offset`.
    pub fn lookup(&self, offset: Offset) -> OffsetPosition {
        let relative = offset.0.saturating_sub(self.base_offset.0);
        let after = self.entries.partition_point(|entry| i64::from(entry.0) <= relative);
        match after.checked_sub(1) {
            Some(index) => self.entry(index).expect("the index was found"),
            None => OffsetPosition { offset: self.base_offset, position: 0 },
        }
    }

    /// The first entry whose position is at least `position`: an upper bound when `size` bytes are to be read.
    pub fn first_from_position(&self, position: u32) -> Option<OffsetPosition> {
        self.entry(self.entries.partition_point(|entry| entry.1 < position))
    }

    /// The entry of that number.
    pub fn entry(&self, index: usize) -> Option<OffsetPosition> {
        let &(relative, position) = self.entries.get(index)?;
        Some(OffsetPosition { offset: self.base_offset.plus(i64::from(relative)), position })
    }

    /// The last entry.
    pub fn last(&self) -> Option<OffsetPosition> {
        self.entry(self.entries.len().checked_sub(1)?)
    }

    /// Drops the entries at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let relative = offset.0.saturating_sub(self.base_offset.0);
        let keep = self.entries.partition_point(|entry| i64::from(entry.0) < relative);
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

    /// Whether another entry would pass `segment.index.bytes`: then the segment rolls.
    pub fn is_full(&self, index_bytes_max: usize) -> bool {
        self.entries.len() >= index_bytes_max / OFFSET_INDEX_ENTRY_LEN
    }

    /// The file's content from entry `first` on; 0 gives all of it.
    pub fn encode_from(&self, first: usize) -> Vec<u8> {
        let entries = self.entries.get(first..).unwrap_or_default();
        entries.iter().flat_map(|entry| [entry.0.to_be_bytes(), entry.1.to_be_bytes()]).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> OffsetIndex {
        let mut index = OffsetIndex::new(Offset(100));
        index.append(Offset(105), 274);
        index.append(Offset(108), 548);
        index
    }

    #[test]
    fn lookup_gives_the_last_entry_at_or_below() {
        let index = index();
        let found = |offset| (index.lookup(Offset(offset)).offset.0, index.lookup(Offset(offset)).position);
        assert_eq!(found(0), (100, 0));
        assert_eq!(found(104), (100, 0));
        assert_eq!(found(105), (105, 274));
        assert_eq!(found(107), (105, 274));
        assert_eq!(found(i64::MAX), (108, 548));
        assert_eq!(index.first_from_position(275).unwrap().position, 548);
        assert_eq!(index.first_from_position(549), None);
    }

    #[test]
    fn a_preallocated_tail_is_left_out_and_faults_are_found() {
        let mut bytes = index().encode_from(0);
        bytes.resize(4096, 0);
        assert_eq!(OffsetIndex::load(Offset(100), &bytes), Ok(index()));
        bytes.pop();
        assert_eq!(OffsetIndex::load(Offset(100), &bytes), Err(IndexError::InvalidSize(4095)));
        let swapped = [&index().encode_from(1)[..], &index().encode_from(0)[..8]].concat();
        assert_eq!(OffsetIndex::load(Offset(100), &swapped), Err(IndexError::OutOfOrder(1)));
        assert_eq!(OffsetIndex::load(Offset(0), &[0xff; 8]), Err(IndexError::OutOfOrder(0)));
    }

    #[test]
    fn truncation_drops_entries_from_the_offset_on() {
        for (offset, left) in [(109, 2), (108, 1), (106, 1), (105, 0), (0, 0)] {
            let mut index = index();
            index.truncate_to(Offset(offset));
            assert_eq!(index.len(), left);
        }
        assert!(index().is_full(23) && !index().is_full(24));
    }
}
