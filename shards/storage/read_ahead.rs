//! Reads of segment files, ahead of whoever goes through a log in order, so that the disk works while the client does.
//!
//! A reader that goes on where it was before has a *window*: chunks of the file that follow each other, each of them one
//! disk operation, of which the next is on its way as soon as the last one is touched. Nothing of a window is read twice:
//! an answer is as short as what is there, and a batch that lies across two chunks is sent as slices of both. A reader is
//! known by where it ended. Others read from a window, too, but don't move it: who falls behind or runs ahead of it is
//! recognised and gets one of its own.
//!
//! What came from the disk is kept as long as there is memory ([`ReadCache`]), and is read from there by whoever
//! comes later. Where that ends a reader that goes on gets a window before it comes there.
//!
//! ```text
//!                  position ↓ wanted      ↓ read_to
//!   window      |■■■■■■■■■■■■■■|■■■■■■■■■■■■■■|··············|
//!                goes with the   touched: the   on its way
//!                next read       next begins
//! ```
//!
//! Bounds: [`ReadAhead::new`]'s bytes for all windows of a core and for what answers that are on their way hold of former
//! ones, however little that is, [`CHUNKS_MAX`] chunks for one, [`ENDS_MAX`] readers that
//! are known without a window. When there is no room, the window that was used longest ago gives way if that was
//! [`IDLE_MS`] ago; else a log is read as it is asked for, without a window.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ringlog_ring::{self as ring, BLOCK_BYTES, File, MAX_IO_BYTES};
use ringlog_types::{MonotonicMs, align_down};

use crate::storage::open_files::FileKey;
use crate::storage::read_cache::ReadCache;
use crate::storage::slices::Slices;

/// One disk operation.
const CHUNK_BYTES: u64 = MAX_IO_BYTES as u64;
/// Chunks of one window: one that a read begins in, one that it ends in, one on its way.
const CHUNKS_MAX: usize = 3;
/// Less isn't read ahead: it is read when it is asked for, and there may be more by then.
const CHUNK_MIN_BYTES: u64 = 64 * 1024;
/// Windows that nobody read from for so long give way to others.
const IDLE_MS: u64 = 1_000;
/// Ends of reads without a window that are remembered.
const ENDS_MAX: usize = 64;
/// A read may end within a batch, which the next one begins with: how far back it may begin.
const OVERLAP_BYTES: u64 = CHUNK_BYTES;

/// The windows of one core.
pub struct ReadAhead {
    budget_bytes: u64,
    cache: Rc<ReadCache>,
    windows: RefCell<Vec<Window>>,
    ends: RefCell<VecDeque<(FileKey, u64)>>,
    /// Of windows, and of chunks that answers hold a part of: all of a chunk stays in memory for any part of it.
    held_bytes: Arc<AtomicU64>,
}

/// Bytes of a chunk, which count until the last slice of them is gone, on whatever core.
struct Held {
    bytes: Bytes,
    _count: Count,
}

struct Count {
    bytes: u64,
    held_bytes: Arc<AtomicU64>,
}

impl Count {
    fn new(bytes: u64, held_bytes: &Arc<AtomicU64>) -> Count {
        held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Count { bytes, held_bytes: held_bytes.clone() }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Chunks of a segment's file that follow each other, and their reader.
struct Window {
    file: FileKey,
    chunks: VecDeque<Rc<Chunk>>,
    /// Where its reader ended.
    read_to: u64,
    used: MonotonicMs,
}

struct Chunk {
    /// Where it begins: a block.
    start: u64,
    /// Where it is meant to end; the file may end before.
    end: u64,
    state: RefCell<State>,
    arrived: ring::Notify,
}

enum State {
    Reading,
    There(Bytes),
    /// The error shows again where somebody asks for these bytes.
    Failed,
}

/// Where bytes come from.
enum Source {
    /// The reader's own window.
    Own(Rc<Chunk>),
    /// What was read before.
    Kept(Slices),
    /// Another's window.
    Lent(Rc<Chunk>),
}

impl ReadAhead {
    /// Windows hold at most so many bytes; what they have read is kept in `cache`.
    pub fn new(budget_bytes: usize, cache: Rc<ReadCache>) -> ReadAhead {
        let (windows, ends, held_bytes) = Default::default();
        ReadAhead { budget_bytes: budget_bytes as u64, cache, windows, ends, held_bytes }
    }

    /// Bytes from `position` of a segment's `file`: about as many as are `wanted`, but no more than one disk operation
    /// moves; fewer where that spares an operation. None only at the file's end. Bytes at or above `settled` may still
    /// change.
    pub async fn read(
        &self,
        file: &File,
        key: FileKey,
        position: u64,
        wanted: usize,
        settled: u64,
    ) -> io::Result<Slices> {
        let wanted = wanted.min(MAX_IO_BYTES);
        let now = ring::now().monotonic;
        let slices = match self.source(file, key, position, wanted, settled, now) {
            Some(Source::Own(chunk)) => {
                let slices = self.gather(key, chunk, position, wanted).await;
                self.go_on(file, key, position, end_of(position, &slices), settled);
                slices
            }
            Some(Source::Kept(slices)) => {
                let (goes_on, end) = (self.goes_on(key, position), end_of(position, &slices));
                self.remember(key, position, end);
                if goes_on {
                    self.begin_behind(file, key, end, settled, now);
                }
                slices
            }
            Some(Source::Lent(chunk)) => {
                let slices = self.gather(key, chunk, position, wanted).await;
                self.remember(key, position, end_of(position, &slices));
                slices
            }
            None => Slices::new(),
        };
        if slices.is_empty() { self.read_once(file, key, position, wanted, settled).await } else { Ok(slices) }
    }

    async fn read_once(
        &self,
        file: &File,
        key: FileKey,
        position: u64,
        wanted: usize,
        settled: u64,
    ) -> io::Result<Slices> {
        let room = MAX_IO_BYTES - (position % BLOCK_BYTES as u64) as usize;
        let len = (wanted.min(room) as u64).min(settled.saturating_sub(position)) as usize;
        let bytes = file.read(position, len).await?;
        let slices = if bytes.is_empty() { Slices::new() } else { Slices::from_iter([bytes]) };
        self.remember(key, position, end_of(position, &slices));
        Ok(slices)
    }

    /// A reader that has no window read from `position` to `end`.
    fn remember(&self, key: FileKey, position: u64, end: u64) {
        let mut ends = self.ends.borrow_mut();
        // It may be known from its last read, which others' ends may not drive out.
        if let Some(known) = ends.iter().position(|(file, last)| *file == key && is_close(*last, position)) {
            ends.remove(known);
        }
        if ends.len() >= ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back((key, end));
    }

    /// What is there from `position` on. Waits for the first chunk, and for the next one only when the first has less
    /// than half of what is wanted.
    async fn gather(&self, key: FileKey, first: Rc<Chunk>, position: u64, wanted: usize) -> Slices {
        let mut slices = Slices::new();
        let mut have = 0;
        let mut chunk = Some(first);
        while let Some(here) = chunk {
            if have >= wanted.div_ceil(2) && here.is_on_its_way() {
                break;
            }
            let Some(bytes) = here.bytes().await else { break };
            let at = position + have as u64;
            let Some(found) = usize::try_from(at - here.start).ok().filter(|from| *from < bytes.len()) else { break };
            let part = bytes.slice(found..bytes.len().min(found + wanted - have));
            have += part.len();
            slices.push(part);
            let is_whole = here.start + bytes.len() as u64 == here.end;
            chunk = (have < wanted && is_whole).then(|| self.find(key, position + have as u64)).flatten();
        }
        slices
    }

    /// Where to read from, with a new window for a reader that goes on; `None` for one that doesn't, or without room.
    fn source(
        &self,
        file: &File,
        key: FileKey,
        position: u64,
        wanted: usize,
        settled: u64,
        now: MonotonicMs,
    ) -> Option<Source> {
        if let Some(chunk) = self.own(file, key, position, settled, now) {
            return Some(Source::Own(chunk));
        }
        let kept = self.cache.get(key, position, wanted);
        if !kept.is_empty() {
            return Some(Source::Kept(kept));
        }
        if let Some(chunk) = self.find(key, position) {
            return Some(Source::Lent(chunk));
        }
        if !self.goes_on(key, position) {
            return None;
        }
        self.begin(file, key, position, settled, now).map(Source::Own)
    }

    /// A new window, for a reader that is or will be at `position`.
    fn begin(&self, file: &File, key: FileKey, position: u64, settled: u64, now: MonotonicMs) -> Option<Rc<Chunk>> {
        let chunk = self.fetch(file, key, position, settled, now)?;
        let chunks = VecDeque::from([chunk.clone()]);
        self.windows.borrow_mut().push(Window { file: key, chunks, read_to: position, used: now });
        Some(chunk)
    }

    /// For a reader that goes on at `end`, up to where it read what is kept.
    fn begin_behind(&self, file: &File, key: FileKey, end: u64, settled: u64, now: MonotonicMs) {
        let is_there = self.cache.has(key, end) || closest(&mut self.windows.borrow_mut(), key, end).is_some();
        if !is_there && settled.saturating_sub(end) >= CHUNK_MIN_BYTES {
            self.begin(file, key, end, settled, now);
        }
    }

    /// From the window of the reader that is at `position`. There may not have been more before, or no room for it.
    fn own(&self, file: &File, key: FileKey, position: u64, settled: u64, now: MonotonicMs) -> Option<Rc<Chunk>> {
        let is_at_end = {
            let mut windows = self.windows.borrow_mut();
            let window = closest(&mut windows, key, position)?;
            window.used = now;
            if let Some(chunk) = window.chunk_at(position) {
                return Some(chunk);
            }
            window.end() == position && window.is_whole() && !self.cache.has(key, position)
        };
        let chunk = if is_at_end { self.fetch(file, key, position, settled, now)? } else { return None };
        let mut windows = self.windows.borrow_mut();
        let window = closest(&mut windows, key, position)?;
        // The one before may hold the beginning of a batch.
        window.chunks.drain(..window.chunks.len() - 1);
        window.chunks.push_back(chunk.clone());
        Some(chunk)
    }

    /// Whether a read there follows one that was: from a segment's first byte, or from where another ended.
    fn goes_on(&self, key: FileKey, position: u64) -> bool {
        let follows = |(file, end): &(FileKey, u64)| *file == key && is_close(*end, position);
        position == 0 || self.ends.borrow().iter().any(follows)
    }

    /// After its reader's read of `position..end`: what lies before it goes, and what comes after it is fetched.
    fn go_on(&self, file: &File, key: FileKey, position: u64, end: u64, settled: u64) {
        let now = ring::now().monotonic;
        let next = {
            let mut windows = self.windows.borrow_mut();
            let Some(window) = closest(&mut windows, key, position) else { return };
            window.read_to = end;
            if window.is_through() {
                windows.retain(|window| !window.is_through());
                return;
            }
            while window.chunks.len() > 1 && window.chunks[1].start <= position {
                window.chunks.pop_front();
            }
            // The first read of a log may be the only one.
            let is_only_begun = position == 0 && end < window.end();
            let is_touched = window.chunks.back().is_some_and(|last| last.start < end);
            let is_due = is_touched && !is_only_begun && window.is_whole() && window.chunks.len() < CHUNKS_MAX;
            if is_due { window.end() } else { return }
        };
        if settled.saturating_sub(next) < CHUNK_MIN_BYTES || self.cache.has(key, next) {
            return;
        }
        let Some(chunk) = self.fetch(file, key, next, settled, now) else { return };
        if let Some(window) = closest(&mut self.windows.borrow_mut(), key, end) {
            window.chunks.push_back(chunk);
        }
    }

    /// Begins to read a chunk, if there is room.
    fn fetch(&self, file: &File, key: FileKey, position: u64, settled: u64, now: MonotonicMs) -> Option<Rc<Chunk>> {
        let chunk = Rc::new(Chunk::planned(position, settled)?);
        self.make_room(chunk.len(), now)?;
        let frame = self.cache.frame(key, chunk.start, chunk.len() as usize)?;
        let count = Count::new(chunk.len(), &self.held_bytes);
        let (file, reading, cache) = (file.clone(), chunk.clone(), self.cache.clone());
        ring::spawn_detached(async move {
            let read = file.read_frame(reading.start, frame, reading.len() as usize).await;
            let held = read.map(|frame| {
                let (bytes, end) = (frame.slice(0..frame.len()), reading.start + frame.len() as u64);
                cache.keep(key, reading.start, frame);
                if end < reading.end {
                    cache.on_file_end(key, end);
                }
                Bytes::from_owner(Held { bytes, _count: count })
            });
            *reading.state.borrow_mut() = held.map_or(State::Failed, State::There);
            reading.arrived.notify_all();
        });
        Some(chunk)
    }

    /// Sees to it that a chunk of `len` bytes fits; `None` when it can't.
    fn make_room(&self, len: u64, now: MonotonicMs) -> Option<()> {
        let mut windows = self.windows.borrow_mut();
        loop {
            if self.held_bytes.load(Ordering::Relaxed) + len <= self.budget_bytes {
                return Some(());
            }
            let (place, oldest) = windows.iter().enumerate().min_by_key(|(_, window)| window.used)?;
            if now.since_ms(oldest.used) < IDLE_MS {
                return None;
            }
            windows.swap_remove(place);
        }
    }

    fn find(&self, key: FileKey, position: u64) -> Option<Rc<Chunk>> {
        self.windows.borrow().iter().find(|window| window.covers(key, position))?.chunk_at(position)
    }

    /// The segments of a log for which `is_it` have changed, or gone.
    pub fn forget(&self, is_it: impl Fn(FileKey) -> bool) {
        self.windows.borrow_mut().retain(|window| !is_it(window.file));
        self.ends.borrow_mut().retain(|(file, _)| !is_it(*file));
        self.cache.forget(is_it);
    }
}

/// Whether a reader that ended at `end` may be the one that begins at `position`: at the same place, or with the batch that
/// was cut off there.
fn is_close(end: u64, position: u64) -> bool {
    end.checked_sub(position).is_some_and(|back| back <= OVERLAP_BYTES)
}

/// The window whose reader ended there, or closest behind.
fn closest(windows: &mut [Window], key: FileKey, position: u64) -> Option<&mut Window> {
    let own = windows.iter_mut().filter(|window| window.file == key && is_close(window.read_to, position));
    own.min_by_key(|window| window.read_to - position)
}

fn end_of(position: u64, slices: &[Bytes]) -> u64 {
    position + slices.iter().map(Bytes::len).sum::<usize>() as u64
}

impl Window {
    fn covers(&self, key: FileKey, position: u64) -> bool {
        self.file == key && self.chunk_at(position).is_some()
    }

    /// The last chunk that holds the byte: where the one before ended within a block, both do.
    fn chunk_at(&self, position: u64) -> Option<Rc<Chunk>> {
        self.chunks.iter().rev().find(|chunk| chunk.holds(position)).cloned()
    }

    fn end(&self) -> u64 {
        self.chunks.back().map_or(0, |chunk| chunk.end)
    }

    /// Whether its reader has come to the file's end.
    fn is_through(&self) -> bool {
        !self.is_whole() && !self.chunks.back().is_some_and(|last| last.holds(self.read_to))
    }

    /// Whether the file goes on behind it, as far as is known.
    fn is_whole(&self) -> bool {
        self.chunks.back().is_some_and(|last| match &*last.state.borrow() {
            State::Reading => true,
            State::There(bytes) => bytes.len() as u64 == last.len(),
            State::Failed => false,
        })
    }
}

impl Chunk {
    /// The chunk for a reader at `position`; `None` when nothing is settled there.
    fn planned(position: u64, settled: u64) -> Option<Chunk> {
        let start = align_down(position, BLOCK_BYTES as u64);
        let end = settled.min(start + CHUNK_BYTES);
        let state = RefCell::new(State::Reading);
        (end > position).then(|| Chunk { start, end, state, arrived: ring::Notify::new() })
    }

    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn holds(&self, position: u64) -> bool {
        let end = match &*self.state.borrow() {
            State::Reading => self.end,
            State::There(bytes) => self.start + bytes.len() as u64,
            State::Failed => self.start,
        };
        (self.start..end).contains(&position)
    }

    fn is_on_its_way(&self) -> bool {
        matches!(*self.state.borrow(), State::Reading)
    }

    /// Its bytes, once they are there.
    async fn bytes(&self) -> Option<Bytes> {
        loop {
            match &*self.state.borrow() {
                State::Reading => {}
                State::There(bytes) => return Some(bytes.clone()),
                State::Failed => return None,
            }
            self.arrived.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ringlog_ring::{Direct, Open};
    use ringlog_types::Offset;

    use super::*;
    use crate::storage::cache_memory::CacheMemory;
    use crate::storage::generations::Segment;
    use crate::storage::segment_store::tests::on_executor;

    /// Answers hold what they were given until they are sent. That must not count for longer: without room nothing is read ahead.
    #[test]
    fn what_readers_have_done_with_makes_room_again() {
        on_executor("read-ahead-room", |directory| async move {
            let open = Open { write: true, create: true, truncate: false, direct: Direct::Auto };
            let file = File::open(&directory.join("log"), open).await.unwrap();
            let len = 24 * CHUNK_BYTES;
            for chunk in 0..24_u8 {
                let bytes = vec![chunk; CHUNK_BYTES as usize];
                file.write_all_at(u64::from(chunk) * CHUNK_BYTES, &bytes).await.unwrap();
            }
            let ahead = ReadAhead::new(
                4 * CHUNK_BYTES as usize,
                Rc::new(ReadCache::new(CacheMemory::new(0), 4 * CHUNK_BYTES as usize)),
            );
            let key = FileKey { store: 1, segment: Segment::first(Offset(0)) };
            let (mut position, mut answers) = (0, VecDeque::new());
            while position < len {
                let slices = ahead.read(&file, key, position, 300_000, len).await.unwrap();
                let mut at = position;
                for slice in &slices {
                    assert!(slice.iter().zip(at..).all(|(byte, at)| u64::from(*byte) == at / CHUNK_BYTES));
                    at += slice.len() as u64;
                }
                assert!(at > position);
                position = at;
                answers.push_back(slices);
                answers.truncate(if position.is_multiple_of(2) { 2 } else { 1 });
                assert_eq!(ahead.windows.borrow().len(), 1, "its reader is read ahead for at {position}");
                assert!(ahead.held_bytes.load(Ordering::Relaxed) <= 4 * CHUNK_BYTES);
            }
            drop(answers);
            ahead.forget(|_| true);
            // Reads that nobody wants any more end on their own.
            while ahead.held_bytes.load(Ordering::Relaxed) > 0 {
                ring::yield_now().await;
            }
        });
    }
}
