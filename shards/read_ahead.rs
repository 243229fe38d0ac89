//! Reads ahead of a reader that goes through a log in order, so that the disk works while the client does.
//!
//! One chunk per log, begun when two reads follow each other. Bounds: a chunk is [`AHEAD_BYTES`], and all chunks of a
//! core together come out of one budget; without room there is no reading ahead.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_ring::{self as ring, BLOCK_BYTES, BytePermit, ByteSemaphore, File, MAX_IO_BYTES};
use ringlog_types::Offset;

/// Bytes read ahead: one disk operation, whatever block it begins in.
const AHEAD_BYTES: usize = MAX_IO_BYTES - BLOCK_BYTES;
/// A fetch may end in the middle of a batch, which the next one begins with: so much is read again.
const OVERLAP_BYTES: u64 = 128 * 1024;

/// What is read ahead of one log.
#[derive(Default)]
pub struct ReadAhead {
    chunk: RefCell<Option<Rc<Chunk>>>,
    /// Where the last read ended.
    last_end: Cell<Option<(Offset, u64)>>,
}

struct Chunk {
    segment: Offset,
    position: u64,
    /// `None` while the disk reads. Empty: nothing came of it.
    bytes: RefCell<Option<Bytes>>,
    arrived: ring::Notify,
    _permit: BytePermit,
}

impl ReadAhead {
    /// Reads `len` bytes at `position` of a segment's `file`, from what was read ahead if it is there. Bytes at or
    /// above `settled` may still change.
    pub async fn read(
        &self,
        file: &File,
        segment: Offset,
        (position, len): (u64, usize),
        settled: u64,
        budget: &ByteSemaphore,
    ) -> io::Result<Bytes> {
        let is_sequential = self
            .last_end
            .get()
            .is_some_and(|(last, end)| last == segment && (position..=position + OVERLAP_BYTES).contains(&end));
        let bytes = match self.take(segment, position, len).await {
            Some(bytes) => bytes,
            None => file.read(position, len).await?,
        };
        let end = position + bytes.len() as u64;
        self.last_end.set(Some((segment, end)));
        if is_sequential && bytes.len() == len {
            self.begin(file.clone(), segment, end.saturating_sub(OVERLAP_BYTES), settled, budget);
        }
        Ok(bytes)
    }

    async fn take(&self, segment: Offset, position: u64, len: usize) -> Option<Bytes> {
        let chunk = self.chunk.borrow().clone()?;
        let from = usize::try_from(position.checked_sub(chunk.position)?).ok()?;
        if chunk.segment != segment || from >= AHEAD_BYTES {
            return None;
        }
        while chunk.bytes.borrow().is_none() {
            chunk.arrived.wait().await;
        }
        let bytes = chunk.bytes.borrow();
        let bytes = bytes.as_ref()?;
        // A short answer would look like the end of the file.
        (from + len <= bytes.len()).then(|| bytes.slice(from..from + len))
    }

    fn begin(&self, file: File, segment: Offset, position: u64, settled: u64, budget: &ByteSemaphore) {
        let len = settled.saturating_sub(position).min(AHEAD_BYTES as u64) as usize;
        if (len as u64) < 2 * OVERLAP_BYTES {
            return;
        }
        let is_there = |chunk: &Rc<Chunk>| chunk.segment == segment && chunk.position == position;
        if self.chunk.borrow().as_ref().is_some_and(is_there) {
            return;
        }
        // The old chunk gives its room to the new one.
        *self.chunk.borrow_mut() = None;
        let Some(permit) = budget.try_acquire(AHEAD_BYTES) else { return };
        let (bytes, arrived) = (RefCell::new(None), ring::Notify::new());
        let chunk = Rc::new(Chunk { segment, position, bytes, arrived, _permit: permit });
        *self.chunk.borrow_mut() = Some(chunk.clone());
        ring::spawn_detached(async move {
            // A failure shows again when the reader comes to it.
            let bytes = file.read(position, len).await.unwrap_or_default();
            *chunk.bytes.borrow_mut() = Some(bytes);
            chunk.arrived.notify_all();
        });
    }

    /// The log changed its files, or nobody reads it any more.
    pub fn clear(&self) {
        *self.chunk.borrow_mut() = None;
        self.last_end.set(None);
    }
}
