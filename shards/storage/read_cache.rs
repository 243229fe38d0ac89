//! What was read from segment files, kept for whoever reads it next.
//!
//! It stays where the disk wrote it: a frame of its own for each disk operation, whatever file it is from. When there is no
//! memory for another one, one goes: the oldest that nobody read from since it came, or was passed over. So a reader that
//! goes through a long log once doesn't push out what others come back for.
//!
//! ```text
//!   order   |a 0…9|a 9…19|b 7…17|a 30…40|            pieces of files a and b, in the order in which they were read
//! ```
//!
//! Bound: [`CacheMemory`], in whole frames, and what is under way beside it. What readers hold a slice of doesn't go before
//! others, and nothing is kept if all memory is held so, nor while the core has other things to do than to take memory from
//! the system.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ringlog_ring::{Frame, FramePool};
use rustc_hash::FxHashMap;

use crate::storage::cache_memory::{CacheMemory, Kept, Kind};
use crate::storage::open_files::FileKey;
use crate::storage::slices::Slices;

/// Whether memory may be taken is asked once for so much of a file: readers are slow where what is here and what isn't
/// take turns.
const STRETCH_BYTES: u64 = 16 << 20;
/// Stretches that are remembered.
const STRETCHES_MAX: usize = 64;

/// See the module's text.
pub struct ReadCache {
    memory: Rc<CacheMemory>,
    pool: FramePool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    files: FxHashMap<FileKey, Pieces>,
    /// Pieces in the order in which they may have to go: of which file, where they begin, and which it is that is meant.
    order: VecDeque<(FileKey, u64, u64)>,
    next_number: u64,
    /// Parts of files that were read lately.
    stretches: VecDeque<Stretch>,
}

/// What is here of one file. None of its pieces lies within another.
#[derive(Default)]
struct Pieces {
    /// By where they begin.
    by_start: BTreeMap<u64, Piece>,
    /// Where the file ends, if a reader came that far and it won't grow.
    file_end: Option<u64>,
}

/// A part of a file, from where it was asked whether memory may be taken for it.
struct Stretch {
    file: FileKey,
    from: u64,
    may_take: bool,
}

struct Piece {
    frame: Frame,
    number: u64,
    /// Somebody read from it since it came, or was passed over.
    was_used: Cell<bool>,
    _kept: Kept,
}

impl ReadCache {
    /// Keeps what `memory` has room for. There are `reading_bytes` more for what is being read and sent.
    pub fn new(memory: Rc<CacheMemory>, reading_bytes: usize) -> ReadCache {
        let pool = FramePool::new(memory.budget_bytes().saturating_add(reading_bytes));
        ReadCache { pool, memory, state: RefCell::default() }
    }

    /// A frame for `len` bytes of a file, to be given to [`ReadCache::keep`]. `None` when all memory is in use.
    pub fn frame(&self, key: FileKey, position: u64, len: usize) -> Option<Frame> {
        self.state.borrow_mut().begin(key, position, || self.memory.may_take(Kind::Read));
        let take = || {
            let mut frame = self.pool.try_frame(len)?;
            frame.touch();
            Some(frame)
        };
        self.pool.try_used_frame(len).or_else(|| self.memory.taking(Kind::Read, take))
    }

    /// Bytes of the file from `position` on, at most `wanted`, as far as they are here without a gap.
    pub fn get(&self, key: FileKey, position: u64, wanted: usize) -> Slices {
        let state = self.state.borrow();
        let mut slices = Slices::new();
        let Some(pieces) = state.files.get(&key) else { return slices };
        let (mut at, end) = (position, position + wanted as u64);
        while at < end
            && let Some((start, piece)) = pieces.at(at)
        {
            piece.was_used.set(true);
            let stop = (start + piece.frame.len() as u64).min(end);
            slices.push(piece.frame.slice((at - start) as usize..(stop - start) as usize));
            at = stop;
        }
        slices
    }

    /// Whether there is nothing to be read from the disk at `position`: it is here, or the file's end.
    pub fn has(&self, key: FileKey, position: u64) -> bool {
        let state = self.state.borrow();
        let Some(pieces) = state.files.get(&key) else { return false };
        pieces.at(position).is_some() || pieces.file_end.is_some_and(|end| end <= position)
    }

    /// Keeps what was read from `position` of a file, none of which will change any more, if there is room.
    pub fn keep(&self, key: FileKey, position: u64, frame: Frame) {
        let mut state = self.state.borrow_mut();
        let may_take = state.stretch(key, position).is_some_and(|stretch| stretch.may_take);
        // Another reader's disk operation may have brought it meanwhile.
        if frame.is_empty() || state.files.get(&key).is_some_and(|pieces| pieces.hold(position, frame.len())) {
            return;
        }
        let has_room = || self.memory.has_room(Kind::Read, frame.capacity());
        if has_room() && !may_take {
            return;
        }
        while !has_room() {
            if !state.give_up_one() {
                return;
            }
        }
        state.put(key, position, frame, &self.memory);
    }

    /// The file ends there, for good. Known as long as something of it is here.
    pub fn on_file_end(&self, key: FileKey, end: u64) {
        if let Some(pieces) = self.state.borrow_mut().files.get_mut(&key) {
            pieces.file_end = Some(end);
        }
    }

    /// The files for which `is_it` have changed, or gone.
    pub fn forget(&self, is_it: impl Fn(FileKey) -> bool) {
        let mut state = self.state.borrow_mut();
        let before = state.files.len();
        state.files.retain(|key, _| !is_it(*key));
        if state.files.len() < before {
            state.order.retain(|(key, ..)| !is_it(*key));
        }
        state.stretches.retain(|stretch| !is_it(stretch.file));
    }

    /// Gives so many bytes back to the system, in whole frames, and what isn't used any more.
    pub fn give_back(&self, bytes: usize) {
        let left = self.memory.in_use_bytes(Kind::Read).saturating_sub(bytes);
        let mut state = self.state.borrow_mut();
        while self.memory.in_use_bytes(Kind::Read) > left && state.give_up_one() {}
        self.pool.trim();
    }
}

impl State {
    /// The part of the file that was begun last before `position`, or there.
    fn stretch(&self, key: FileKey, position: u64) -> Option<&Stretch> {
        let holds = |stretch: &&Stretch| {
            stretch.file == key && (stretch.from..stretch.from + STRETCH_BYTES).contains(&position)
        };
        self.stretches.iter().rev().find(holds)
    }

    /// What lies at `position` is about to be read. Who comes back to where it was asked last asks again.
    fn begin(&mut self, key: FileKey, position: u64, may_take: impl FnOnce() -> bool) {
        if self.stretch(key, position).is_some_and(|stretch| stretch.from < position) {
            return;
        }
        let may_take = may_take();
        if self.stretches.len() == STRETCHES_MAX {
            self.stretches.pop_front();
        }
        self.stretches.push_back(Stretch { file: key, from: position, may_take });
    }

    fn put(&mut self, key: FileKey, start: u64, frame: Frame, memory: &Rc<CacheMemory>) {
        let end = start + frame.len() as u64;
        let number = self.next_number;
        self.next_number += 1;
        self.order.push_back((key, start, number));
        let pieces = &mut self.files.entry(key).or_default().by_start;
        // What begins within it and ends there has no reader any more.
        let mut has_replaced = false;
        while let Some((&other, piece)) = pieces.range(start..).next()
            && other + piece.frame.len() as u64 <= end
        {
            pieces.remove(&other);
            has_replaced = true;
        }
        let kept = memory.keep(Kind::Read, frame.capacity());
        pieces.insert(start, Piece { frame, number, was_used: Cell::new(false), _kept: kept });
        if has_replaced {
            // Their turns would stay as long as there is room, and the end of a log that grows is read again and again.
            let is_there = |at: &u64, number: u64| pieces.get(at).is_some_and(|piece| piece.number == number);
            self.order.retain(|(file, at, number)| *file != key || is_there(at, *number));
        }
    }

    /// Gives up a piece. False when readers hold all of them.
    fn give_up_one(&mut self) -> bool {
        // Twice, as the first look at one that was used only notes that it is to be used again.
        for _ in 0..2 * self.order.len() {
            let Some(next) = self.order.pop_front() else { return false };
            let (key, start, number) = next;
            let Some(pieces) = self.files.get_mut(&key) else { continue };
            let Some(piece) = pieces.by_start.get(&start).filter(|piece| piece.number == number) else { continue };
            if piece.was_used.take() || piece.frame.is_lent() {
                self.order.push_back(next);
                continue;
            }
            pieces.by_start.remove(&start);
            if pieces.by_start.is_empty() {
                self.files.remove(&key);
            }
            return true;
        }
        false
    }
}

impl Pieces {
    /// The piece that holds the byte at `position`, and where it begins. Of two that overlap the later one goes farther.
    fn at(&self, position: u64) -> Option<(u64, &Piece)> {
        let (start, piece) = self.by_start.range(..=position).next_back()?;
        (start + piece.frame.len() as u64 > position).then_some((*start, piece))
    }

    /// Whether one piece has all of it.
    fn hold(&self, position: u64, len: usize) -> bool {
        self.at(position).is_some_and(|(start, piece)| start + piece.frame.len() as u64 >= position + len as u64)
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::Offset;

    use super::*;
    use crate::storage::generations::Segment;

    const KIB: usize = 1024;
    /// KiB of a frame.
    const FRAME: usize = 64;

    /// One that memory comes to as it likes, for so many frames.
    fn cache(frames: usize) -> ReadCache {
        ReadCache::new(CacheMemory::new(frames * FRAME * KIB), 16 * FRAME * KIB)
    }

    fn key(store: u64) -> FileKey {
        FileKey { store, segment: Segment::first(Offset(0)) }
    }

    /// So many KiB, each byte of which is the number of its KiB in the file.
    fn keep(cache: &ReadCache, key: FileKey, start: usize, kib: usize) {
        while !cache.memory.may_take(Kind::Read) {
            std::thread::yield_now();
        }
        keep_now(cache, key, start, kib);
    }

    fn keep_now(cache: &ReadCache, key: FileKey, start: usize, kib: usize) {
        let mut frame = cache.frame(key, (start * KIB) as u64, kib * KIB).expect("a frame for what is being read");
        (start..start + kib).for_each(|number| frame.append(&[number as u8; KIB]));
        cache.keep(key, (start * KIB) as u64, frame);
    }

    /// The numbers that are there, and that they are what they should be.
    fn got(cache: &ReadCache, key: FileKey, start: usize, kib: usize) -> usize {
        let bytes = cache.get(key, (start * KIB) as u64, kib * KIB).concat();
        for (number, chunk) in bytes.chunks(KIB).enumerate() {
            assert_eq!(chunk, [(start + number) as u8; KIB]);
        }
        bytes.len() / KIB
    }

    fn kept(cache: &ReadCache) -> usize {
        cache.memory.in_use_bytes(Kind::Read) / KIB
    }

    #[test]
    fn what_lies_together_is_read_together_whenever_it_was_kept() {
        let cache = cache(8);
        keep(&cache, key(1), 16, 16);
        keep(&cache, key(2), 0, 10);
        keep(&cache, key(1), 24, 16);
        keep(&cache, key(1), 48, FRAME);
        keep(&cache, key(1), 48 + FRAME, FRAME);
        assert_eq!(got(&cache, key(1), 20, 100), 20);
        assert_eq!(got(&cache, key(1), 20, 6), 6);
        assert_eq!(got(&cache, key(1), 50, 9 * FRAME), 2 * FRAME - 2, "it lies in two frames");
        assert_eq!((got(&cache, key(1), 15, 1), got(&cache, key(2), 20, 1), got(&cache, key(3), 0, 1)), (0, 0, 0));
        let has = |kib: usize| cache.has(key(1), (kib * KIB) as u64);
        let end = 48 + 2 * FRAME;
        assert!(has(16) && has(39) && !has(40) && has(48) && !has(end));
        cache.on_file_end(key(1), (end * KIB) as u64);
        assert!(has(end) && has(end + 2) && !has(40));
    }

    #[test]
    fn what_is_there_is_not_kept_twice() {
        let cache = cache(4);
        for _ in 0..100 {
            keep(&cache, key(1), 0, 60);
            keep(&cache, key(1), 20, 20);
            keep(&cache, key(1), 30, 60);
        }
        assert_eq!((kept(&cache), got(&cache, key(1), 0, 200)), (2 * FRAME, 90));
        keep(&cache, key(1), 0, 120);
        assert_eq!((kept(&cache), got(&cache, key(1), 0, 200)), (2 * FRAME, 120), "the two within it are gone");
        for kib in 121..128 {
            keep(&cache, key(1), 0, kib);
        }
        assert_eq!(cache.state.borrow().order.len(), 1, "what was replaced has no turn");
    }

    #[test]
    fn what_was_used_again_stays_and_what_was_read_once_goes() {
        let cache = cache(4);
        let there = |cache: &ReadCache| (0..20).filter(|store| cache.has(key(*store), 0)).collect::<Vec<_>>();
        (0..4).for_each(|store| keep(&cache, key(store), 0, FRAME));
        assert_eq!(got(&cache, key(0), 0, 16), 16);
        let held = cache.get(key(1), 0, 1);
        keep(&cache, key(4), 0, FRAME);
        keep(&cache, key(5), 0, FRAME);
        assert_eq!(there(&cache), [0, 1, 4, 5]);
        assert_eq!(kept(&cache), 4 * FRAME);
        drop(held);
        (6..20).for_each(|store| keep(&cache, key(store), 0, FRAME));
        assert_eq!(there(&cache), [16, 17, 18, 19], "long ago counts for nothing");
    }

    #[test]
    fn who_holds_all_of_it_keeps_others_from_nothing_but_being_kept() {
        let cache = cache(2);
        keep(&cache, key(1), 0, FRAME);
        keep(&cache, key(1), FRAME, FRAME);
        let held = cache.get(key(1), 0, 2 * FRAME * KIB);
        keep(&cache, key(2), 0, 10);
        assert!(!cache.has(key(2), 0) && cache.has(key(1), 0));
        drop(held);
        keep(&cache, key(2), 0, 10);
        assert!(cache.has(key(2), 0));
    }

    #[test]
    fn memory_goes_back_when_the_host_needs_it() {
        let cache = cache(4);
        (0..4).for_each(|store| keep(&cache, key(store), 0, FRAME));
        assert_eq!(kept(&cache), 4 * FRAME);
        cache.give_back((3 * FRAME - 1) * KIB);
        assert_eq!(kept(&cache), FRAME);
        assert!(cache.has(key(3), 0) && !cache.has(key(2), 0));
        cache.give_back(usize::MAX);
        cache.memory.set_limit(0);
        keep(&cache, key(9), 0, 1);
        assert_eq!((kept(&cache), cache.pool.in_use_bytes()), (0, 0));
    }

    #[test]
    fn memory_is_not_taken_while_other_things_have_to_be_done() {
        let cache = cache(4);
        cache.memory.taking(Kind::Read, || std::thread::sleep(std::time::Duration::from_secs(1)));
        keep_now(&cache, key(1), 0, FRAME);
        assert_eq!(kept(&cache), 0);
        // It is asked once for a stretch, and again when somebody comes back.
        cache.memory.rested();
        keep_now(&cache, key(1), FRAME, FRAME);
        assert_eq!(kept(&cache), 0);
        keep_now(&cache, key(1), 0, FRAME);
        assert_eq!(kept(&cache), FRAME);
        // Where there is no room anyway memory changes hands, and none is taken.
        (2..6).for_each(|store| keep(&cache, key(store), 0, FRAME));
        cache.memory.taking(Kind::Read, || std::thread::sleep(std::time::Duration::from_secs(1)));
        keep_now(&cache, key(9), 0, FRAME);
        assert!(cache.has(key(9), 0) && kept(&cache) == 4 * FRAME);
    }

    #[test]
    fn files_that_go_leave_nothing() {
        let cache = cache(2);
        for store in 0..1000 {
            keep(&cache, key(store), 0, 40);
            cache.forget(|known| known == key(store));
        }
        let state = cache.state.borrow();
        assert!(state.files.is_empty() && state.order.is_empty() && state.stretches.is_empty());
        assert_eq!((kept(&cache), cache.pool.in_use_bytes()), (0, 0));
    }
}
