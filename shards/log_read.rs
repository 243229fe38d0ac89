//! Reading batches of a log: from memory where they are young, from disk else. Used by fetches, by coordinators that
//! load, and by the search for a timestamp.

use std::io;

use bytes::Bytes;
use ringlog_log::Location;
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader};
use ringlog_types::Offset;

use crate::replica::Replica;
use crate::segment_store::Slices;

/// The first read of a log that lies on disk, when the reader allows less than that.
const MIN_DISK_READ_BYTES: usize = 64 * 1024;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRange {
    /// Where the batch of `from` lies, or may be looked for.
    pub location: Location,
    /// The batch that holds this offset comes first.
    pub from: Offset,
    /// No batch at or above this offset.
    pub limit: Offset,
    /// Bytes wanted, at most.
    pub max_bytes: usize,
    /// Give one batch even if it is larger than `max_bytes`.
    pub at_least_one: bool,
}

/// Why bytes of a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A batch's header doesn't make sense where one must start.
    #[error("segment {segment} has no batch at {position}")]
    Corrupt {
        /// The segment's base offset.
        segment: Offset,
        /// Where in it.
        position: u64,
    },
}

impl Replica {
    /// Reads batches. Empty when there is none in the range, or the first is larger than allowed; the last one may be
    /// cut off in the middle, as Kafka's own answers are.
    pub async fn read(&self, range: &ReadRange) -> Result<Slices, LogReadError> {
        let (Location::At { segment_base_offset, .. } | Location::NeedsIndex { segment_base_offset }) = range.location;
        let start = self.unless_gone(segment_base_offset, range.limit, self.start_of(range).await.map_err(Into::into));
        let Some((mut segment, mut position)) = start? else { return Ok(Slices::new()) };
        loop {
            // The log may have changed while the index was read.
            let end = self.partition.borrow().log().read_end(segment, range.limit);
            let Some(end) = end else { return Ok(Slices::new()) };
            let stop = u64::from(end.position);
            if position < stop {
                let mut cut = BatchCut { replica: self, segment, stop, range, found_too_large: false };
                let read = cut.read(position, end.exact).await;
                let Some(slices) = self.unless_gone(segment, range.limit, read)? else { return Ok(Slices::new()) };
                if !slices.is_empty() || cut.found_too_large {
                    return Ok(slices);
                }
            }
            let next = self.partition.borrow().log().next_segment(segment);
            match next.filter(|&next| next < range.limit) {
                Some(next) => (segment, position) = (next, 0),
                None => return Ok(Slices::new()),
            }
        }
    }

    /// `None` when files were missing because retention took the segment meanwhile.
    fn unless_gone<T>(
        &self,
        segment: Offset,
        limit: Offset,
        outcome: Result<T, LogReadError>,
    ) -> Result<Option<T>, LogReadError> {
        match outcome {
            Err(LogReadError::Io(error))
                if error.kind() == io::ErrorKind::NotFound
                    && self.partition.borrow().log().read_end(segment, limit).is_none() =>
            {
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    async fn start_of(&self, range: &ReadRange) -> io::Result<(Offset, u64)> {
        Ok(match range.location {
            Location::At { segment_base_offset, position, .. } => (segment_base_offset, u64::from(position)),
            Location::NeedsIndex { segment_base_offset } => {
                let index = self.store.offset_index(segment_base_offset).await?;
                (segment_base_offset, u64::from(index.lookup(range.from).position))
            }
        })
    }

    /// Bytes of one segment from `position`, at least `wanted` unless `stop` comes first.
    async fn bytes_at(&self, segment: Offset, position: u64, stop: u64, wanted: usize) -> io::Result<Slices> {
        if let Some(slices) = self.store.read_memory(segment, position, stop, wanted) {
            return Ok(slices);
        }
        let len = (wanted.max(MIN_DISK_READ_BYTES) as u64).min(stop - position) as usize;
        Ok(Slices::from_iter([self.store.read_file(segment, position, len).await?]))
    }
}

/// Finds where to begin and end within the bytes of one segment.
struct BatchCut<'a> {
    replica: &'a Replica,
    segment: Offset,
    stop: u64,
    range: &'a ReadRange,
    found_too_large: bool,
}

impl BatchCut<'_> {
    async fn read(&mut self, from: u64, stop_is_exact: bool) -> Result<Slices, LogReadError> {
        let max_bytes = self.range.max_bytes.max(BATCH_HEADER_LEN);
        let mut slices = self.replica.bytes_at(self.segment, from, self.stop, max_bytes).await?;
        let mut start = from;
        // Batches before the one sought: at most what lies between two index entries.
        let first = loop {
            if start >= self.stop {
                return Ok(Slices::new());
            }
            let Some(header) = header_at(&slices, (start - from) as usize) else {
                slices = self.more(from, &slices, start + BATCH_HEADER_LEN as u64).await?;
                continue;
            };
            let header = header.map_err(|()| self.corrupt(start))?;
            if header.last_offset() >= self.range.from {
                break header;
            }
            start += header.size_in_bytes() as u64;
        };
        if first.base_offset >= self.range.limit {
            return Ok(Slices::new());
        }
        let first_len = first.size_in_bytes();
        if first_len > self.range.max_bytes && !self.range.at_least_one {
            self.found_too_large = true;
            return Ok(Slices::new());
        }
        let wanted = first_len.max(self.range.max_bytes) as u64;
        let end = self.stop.min(start + wanted);
        if available(&slices) < (start + first_len as u64 - from) as usize {
            slices = self.more(from, &slices, end).await?;
        }
        let mut chosen = sub_slices(&slices, (start - from) as usize, (end - from) as usize);
        if !stop_is_exact {
            self.cut_at_limit(&mut chosen, start)?;
        }
        Ok(chosen)
    }

    /// All bytes from `from` up to `end`, as far as there are.
    async fn more(&self, from: u64, have: &Slices, end: u64) -> Result<Slices, LogReadError> {
        let slices = self.replica.bytes_at(self.segment, from, self.stop, (end - from) as usize).await?;
        let mut slices = slices;
        while available(&slices) < (end.min(self.stop) - from) as usize {
            let at = from + available(&slices) as u64;
            let next = self.replica.bytes_at(self.segment, at, self.stop, (end - at) as usize).await?;
            if available(&next) == 0 {
                break;
            }
            slices.extend(next);
        }
        if available(&slices) <= available(have) { Err(self.corrupt(from)) } else { Ok(slices) }
    }

    /// Drops batches at or above the limit.
    fn cut_at_limit(&self, slices: &mut Slices, start: u64) -> Result<(), LogReadError> {
        let mut at = 0;
        while let Some(header) = header_at(slices, at) {
            let header = header.map_err(|()| self.corrupt(start + at as u64))?;
            if header.base_offset >= self.range.limit {
                *slices = sub_slices(slices, 0, at);
                return Ok(());
            }
            at += header.size_in_bytes();
        }
        Ok(())
    }

    fn corrupt(&self, position: u64) -> LogReadError {
        LogReadError::Corrupt { segment: self.segment, position }
    }
}

/// Bytes in `slices`.
pub fn available(slices: &[Bytes]) -> usize {
    slices.iter().map(Bytes::len).sum()
}

/// The header at `at`, `None` when its bytes aren't all there.
fn header_at(slices: &[Bytes], at: usize) -> Option<Result<BatchHeader, ()>> {
    let mut skip = at;
    let mut header = [0; BATCH_HEADER_LEN];
    let mut filled = 0;
    for slice in slices {
        if skip >= slice.len() {
            skip -= slice.len();
            continue;
        }
        let part = &slice[skip..];
        let len = part.len().min(BATCH_HEADER_LEN - filled);
        header[filled..filled + len].copy_from_slice(&part[..len]);
        filled += len;
        skip = 0;
        if filled == BATCH_HEADER_LEN {
            return Some(BatchHeader::parse(&header).map_err(|_| ()));
        }
    }
    None
}

/// Bytes `start..end` of what `slices` hold together, without a copy.
fn sub_slices(slices: &[Bytes], start: usize, end: usize) -> Slices {
    let mut chosen = Slices::new();
    let mut at = 0;
    for slice in slices {
        let (from, to) = (start.max(at), end.min(at + slice.len()));
        if from < to {
            chosen.push(slice.slice(from - at..to - at));
        }
        at += slice.len();
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_slices_join_without_gaps() {
        let slices = [Bytes::from_static(b"abc"), Bytes::from_static(b""), Bytes::from_static(b"defg")];
        for start in 0..=7 {
            for end in start..=9 {
                let whole: Vec<u8> = sub_slices(&slices, start, end).concat();
                assert_eq!(whole, &b"abcdefg"[start.min(7)..end.min(7)]);
            }
        }
    }
}
