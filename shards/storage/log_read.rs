//! Reading batches of a log: from memory where they are young, from disk else. Used by fetches, by coordinators that
//! load, and by the search for a timestamp.

use std::io;

use bytes::Bytes;
use ringlog_log::Location;
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader};
use ringlog_types::Offset;

use crate::data::replica::Replica;
use crate::storage::segment_store::Slices;

/// The least that is read from a file at once, when the reader allows less than that: a few batches of the usual kind, and
/// what lies before them since the last index entry.
const MIN_DISK_READ_BYTES: usize = 16 * 1024;
/// Less is copied from the buffer that it was found in, which would otherwise stay as long as an answer isn't sent, and
/// count as no more than what is in it.
const SMALLEST_SLICE_BYTES: usize = MIN_DISK_READ_BYTES / 4;

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

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Batches. Empty when there is none in the range, or the first is larger than allowed; the last one may be cut off
    /// in the middle, as Kafka's own answers are.
    pub slices: Slices,
    /// There is more in the range than was read, though the reader would have taken it: one read ends with its segment,
    /// and with what one disk operation moves. Waiting would bring nothing.
    pub has_more: bool,
    /// The first batch is larger than allowed: so large.
    pub too_large_bytes: Option<usize>,
}

impl Replica {
    /// Reads batches.
    pub async fn read(&self, range: &ReadRange) -> Result<Read, LogReadError> {
        self.read_within(range, usize::MAX).await
    }

    /// [`Replica::read`]; a first batch that was asked for whatever its size may still not have more than `memory` bytes.
    pub async fn read_within(&self, range: &ReadRange, memory: usize) -> Result<Read, LogReadError> {
        let (Location::At { segment_base_offset, .. } | Location::NeedsIndex { segment_base_offset }) = range.location;
        let start = self.unless_gone(segment_base_offset, range.limit, self.start_of(range).await.map_err(Into::into));
        let Some((mut segment, mut position)) = start? else { return Ok(Read::default()) };
        loop {
            // The log may have changed while the index was read.
            let end = self.partition.borrow().log().read_end(segment, range.limit);
            let Some(end) = end else { return Ok(Read::default()) };
            let stop = u64::from(end.position);
            let next = self.partition.borrow().log().next_segment(segment).filter(|&next| next < range.limit);
            if position < stop {
                let cut = BatchCut { replica: self, segment, stop, range, memory };
                let read = cut.read(position, end.exact).await;
                let Some(mut read) = self.unless_gone(segment, range.limit, read)? else { return Ok(Read::default()) };
                if !read.slices.is_empty() || read.too_large_bytes.is_some() {
                    read.has_more |= next.is_some();
                    return Ok(read);
                }
            }
            match next {
                Some(next) => (segment, position) = (next, 0),
                None => return Ok(Read::default()),
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

    /// Bytes of one segment from `position`, about as many as are wanted, but none from `stop` on. Fewer where they lie
    /// partly in memory and partly not, or are more than one disk operation moves; none only when the file is damaged.
    async fn bytes_at(&self, segment: Offset, position: u64, stop: u64, wanted: usize) -> io::Result<Slices> {
        if let Some(slices) = self.store.read_memory(segment, position, stop, wanted) {
            return Ok(slices);
        }
        let len = (wanted.max(MIN_DISK_READ_BYTES) as u64).min(stop - position) as usize;
        self.store.read_file(segment, position, len).await
    }
}

/// Finds where to begin and end within the bytes of one segment.
struct BatchCut<'a> {
    replica: &'a Replica,
    segment: Offset,
    stop: u64,
    range: &'a ReadRange,
    memory: usize,
}

impl BatchCut<'_> {
    async fn read(&self, from: u64, stop_is_exact: bool) -> Result<Read, LogReadError> {
        let max_bytes = self.range.max_bytes.max(BATCH_HEADER_LEN);
        let mut slices = self.replica.bytes_at(self.segment, from, self.stop, max_bytes).await?;
        let mut start = from;
        // Batches before the one sought: at most what lies between two index entries.
        let first = loop {
            if start >= self.stop {
                return Ok(Read::default());
            }
            let Some(header) = header_at(&slices, (start - from) as usize) else {
                self.fill(from, &mut slices, start + BATCH_HEADER_LEN as u64).await?;
                continue;
            };
            let header = header.map_err(|()| self.corrupt(start))?;
            if header.last_offset() >= self.range.from {
                break header;
            }
            start += header.size_in_bytes() as u64;
        };
        if first.base_offset >= self.range.limit {
            return Ok(Read::default());
        }
        let first_len = first.size_in_bytes();
        let most = if self.range.at_least_one { self.memory } else { 0 };
        if first_len > self.range.max_bytes.max(most) {
            return Ok(Read { too_large_bytes: Some(first_len), ..Read::default() });
        }
        let wanted = first_len.max(self.range.max_bytes) as u64;
        let end = self.stop.min(start + wanted);
        self.fill(from, &mut slices, (start + first_len as u64).min(self.stop)).await?;
        let mut chosen = sub_slices(&slices, (start - from) as usize, (end - from) as usize);
        let has_more = start + (available(&chosen) as u64) < end;
        if !stop_is_exact {
            self.cut_at_limit(&mut chosen, start)?;
        }
        for slice in chosen.iter_mut().filter(|slice| slice.len() < SMALLEST_SLICE_BYTES) {
            *slice = Bytes::copy_from_slice(slice);
        }
        Ok(Read { slices: chosen, has_more, too_large_bytes: None })
    }

    /// Reads on until `slices`, which begin at `from`, go up to `end`.
    async fn fill(&self, from: u64, slices: &mut Slices, end: u64) -> Result<(), LogReadError> {
        loop {
            let at = from + available(slices) as u64;
            if at >= end {
                return Ok(());
            }
            let more = self.replica.bytes_at(self.segment, at, self.stop.max(end), (end - at) as usize).await?;
            if available(&more) == 0 {
                return Err(self.corrupt(at));
            }
            slices.extend(more);
        }
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
