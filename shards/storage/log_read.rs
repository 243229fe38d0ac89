//! Reading batches of a log: from memory where they are young, from disk else. Used by fetches, by coordinators that
//! load, and by the search for a timestamp.
//!
//! Every read waits, and the log may be cut or lose segments meanwhile. A [`Place`] says which segment was meant, and is
//! looked up again when that isn't there any more.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::{Location, Log};
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader};
use ringlog_types::Offset;

use crate::storage::segment_store::{Segment, SegmentReadError, SegmentStore};
use crate::storage::slices::Slices;

/// How often a place is looked up again within one read. More often only a log changes that is being cut again and again.
const LOOKUPS_MAX: usize = 3;
/// The least that is read from a file at once, when the reader allows less than that: a few batches of the usual kind, and
/// what lies before them since the last index entry.
const MIN_DISK_READ_BYTES: usize = 16 * 1024;
/// Less is copied from the buffer that it was found in, which would otherwise stay as long as an answer isn't sent, and
/// count as no more than what is in it.
const SMALLEST_SLICE_BYTES: usize = MIN_DISK_READ_BYTES / 4;

/// A log: what it consists of, and its bytes.
pub trait StoredLog {
    /// Looks at what it consists of, now.
    fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R;

    /// Its bytes, where they are now.
    fn store(&self) -> Rc<SegmentStore>;

    /// Where that is, to be read whenever. Call it with what the log has just said, without an `await` between.
    fn place(&self, location: Location) -> Place {
        let (base_offset, position) = match location {
            Location::At { segment_base_offset, position, .. } => (segment_base_offset, Some(position)),
            Location::NeedsIndex { segment_base_offset } => (segment_base_offset, None),
        };
        Place { segment: self.store().segment(base_offset), position }
    }
}

/// Where in a log something was when it was looked up.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// `None` while the log is being cut there.
    segment: Option<Segment>,
    /// `None`: the segment's offset index tells.
    position: Option<u32>,
}

impl Place {
    /// Which segment.
    pub fn segment(&self) -> Result<Segment, SegmentReadError> {
        self.segment.ok_or(SegmentReadError::Replaced)
    }

    /// Whether the position in the segment is known.
    pub fn has_position(&self) -> bool {
        self.position.is_some()
    }
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRange {
    /// Where the batch of `from` lies, or may be looked for.
    pub place: Place,
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
    /// The log changed where it was read, and can't be looked up again: nobody serves it any more.
    #[error("the log is not what it was any more")]
    Replaced,
}

impl From<SegmentReadError> for LogReadError {
    fn from(error: SegmentReadError) -> LogReadError {
        match error {
            SegmentReadError::Replaced => LogReadError::Replaced,
            SegmentReadError::Io(error) => LogReadError::Io(error),
        }
    }
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

/// Reads batches; a first batch that was asked for whatever its size may still not have more than `memory` bytes.
pub async fn read<L: StoredLog>(stored: &L, range: &ReadRange, memory: usize) -> Result<Read, LogReadError> {
    let mut place = range.place;
    for _ in 0..=LOOKUPS_MAX {
        match read_at(stored, place, range, memory).await {
            Err(LogReadError::Replaced) => match stored.with_log(|log| log.locate(range.from)) {
                Ok(location) => place = stored.place(location),
                // Retention took it, or the log ends before it now.
                Err(_) => return Ok(Read::default()),
            },
            outcome => return outcome,
        }
    }
    Ok(Read { has_more: true, ..Read::default() })
}

async fn read_at<L: StoredLog>(
    stored: &L,
    place: Place,
    range: &ReadRange,
    memory: usize,
) -> Result<Read, LogReadError> {
    let store = stored.store();
    let mut segment = place.segment()?;
    let mut position = match place.position {
        Some(position) => u64::from(position),
        None => u64::from(store.offset_index(segment).await?.lookup(range.from).position),
    };
    loop {
        // The log may have changed while the index was read.
        let (end, next) = stored.with_log(|log| {
            let base_offset = segment.base_offset;
            (log.read_end(base_offset, range.limit), log.next_segment(base_offset))
        });
        let Some(end) = end else { return Ok(Read::default()) };
        let next = next.filter(|&next| next < range.limit);
        let stop = u64::from(end.position);
        if position < stop {
            let cut = BatchCut { store: &store, segment, stop, range, memory };
            let mut read = cut.read(position, end.exact).await?;
            if !read.slices.is_empty() || read.too_large_bytes.is_some() {
                read.has_more |= next.is_some();
                return Ok(read);
            }
        }
        match next {
            Some(next) => (segment, position) = (store.segment(next).ok_or(LogReadError::Replaced)?, 0),
            None => return Ok(Read::default()),
        }
    }
}

/// Finds where to begin and end within the bytes of one segment.
struct BatchCut<'a> {
    store: &'a SegmentStore,
    segment: Segment,
    stop: u64,
    range: &'a ReadRange,
    memory: usize,
}

impl BatchCut<'_> {
    async fn read(&self, from: u64, stop_is_exact: bool) -> Result<Read, LogReadError> {
        let max_bytes = self.range.max_bytes.max(BATCH_HEADER_LEN);
        let mut slices = self.bytes_at(from, self.stop, max_bytes).await?;
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

    /// Bytes of the segment from `position`, about as many as are wanted, but none from `stop` on. Fewer where they lie
    /// partly in memory and partly not, or are more than one disk operation moves; none only when the file is damaged.
    async fn bytes_at(&self, position: u64, stop: u64, wanted: usize) -> Result<Slices, SegmentReadError> {
        if let Some(slices) = self.store.read_memory(self.segment, position, stop, wanted) {
            return Ok(slices);
        }
        let len = (wanted.max(MIN_DISK_READ_BYTES) as u64).min(stop - position) as usize;
        self.store.read_file(self.segment, position, len).await
    }

    /// Reads on until `slices`, which begin at `from`, go up to `end`.
    async fn fill(&self, from: u64, slices: &mut Slices, end: u64) -> Result<(), LogReadError> {
        loop {
            let at = from + available(slices) as u64;
            if at >= end {
                return Ok(());
            }
            let more = self.bytes_at(at, self.stop.max(end), (end - at) as usize).await?;
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
        LogReadError::Corrupt { segment: self.segment.base_offset, position }
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
#[path = "log_read_tests.rs"]
mod tests;
