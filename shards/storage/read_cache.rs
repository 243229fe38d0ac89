//! What was read from segment files, kept for whoever reads it next.
//!
//! It lies in slabs of [`SLAB_BYTES`]: what is read is copied to the end of the open one, whatever file it is from. When there
//! is no memory for another slab, one goes with all that is in it: the oldest that nobody read from since it came, or was
//! passed over. So a reader that goes through a long log once doesn't push out what others come back for.
//!
//! ```text
//!   slabs   |a0 … a9|a9 b0 b1 … |b7 a10 …|            pieces of files a and b, in the order in which they were read
//! ```
//!
//! Bound: the budget, or less while the host is short of memory ([`ReadCache::set_limit`]). Readers hold slices of slabs;
//! a slab that went while somebody holds a part of it counts until that is over, and nothing is kept if all memory is held so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use ringlog_ring::{Frame, FramePool, MAX_FRAME_BYTES};
use rustc_hash::FxHashMap;

use crate::storage::open_files::FileKey;
use crate::storage::slices::Slices;

/// What is taken and given up at a time.
const SLAB_BYTES: usize = MAX_FRAME_BYTES;

/// See the module's text.
pub struct ReadCache {
    budget_bytes: usize,
    pool: FramePool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    limit_bytes: usize,
    files: FxHashMap<FileKey, Pieces>,
    slabs: FxHashMap<u64, Slab>,
    /// Slabs in the order in which they may have to go; the last is open.
    order: VecDeque<u64>,
    next_slab: u64,
}

/// What is here of one file. None of its pieces lies within another.
#[derive(Default)]
struct Pieces {
    /// By where they begin.
    by_start: BTreeMap<u64, Piece>,
    /// Where the file ends, if a reader came that far and it won't grow.
    file_end: Option<u64>,
}

#[derive(Clone, Copy)]
struct Piece {
    slab: u64,
    /// Where in it.
    at: usize,
    len: usize,
}

struct Slab {
    frame: Frame,
    /// Somebody read from it since it came, or was passed over.
    was_used: bool,
    /// What was put there; it may have gone by itself.
    pieces: Vec<(FileKey, u64)>,
}

impl ReadCache {
    /// Keeps at most `budget_bytes`, in whole slabs.
    pub fn new(budget_bytes: usize) -> ReadCache {
        let budget_bytes = budget_bytes / SLAB_BYTES * SLAB_BYTES;
        let state = RefCell::new(State { limit_bytes: budget_bytes, ..State::default() });
        ReadCache { budget_bytes, pool: FramePool::new(budget_bytes), state }
    }

    /// Bytes of the file from `position` on, at most `wanted`, as far as they are here without a gap.
    pub fn get(&self, key: FileKey, position: u64, wanted: usize) -> Slices {
        let mut state = self.state.borrow_mut();
        let State { files, slabs, .. } = &mut *state;
        let mut slices = Slices::new();
        let Some(pieces) = files.get(&key) else { return slices };
        let (mut at, end) = (position, position + wanted as u64);
        while at < end
            && let Some((start, piece)) = pieces.at(at)
        {
            let slab = slabs.get_mut(&piece.slab).expect("a piece's slab is there");
            slab.was_used = true;
            let stop = (start + piece.len as u64).min(end);
            slices.push(slab.frame.slice(piece.at + (at - start) as usize..piece.at + (stop - start) as usize));
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

    /// Keeps bytes of a file, none of which will change any more, as far as there is room.
    pub fn keep(&self, key: FileKey, position: u64, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let mut kept = 0;
        while kept < bytes.len() {
            let start = position + kept as u64;
            // Another reader's disk operation may have brought it meanwhile.
            if let Some((other, piece)) = state.files.get(&key).and_then(|pieces| pieces.at(start)) {
                kept = (other + piece.len as u64 - position) as usize;
                continue;
            }
            let Some(slab) = self.open_slab(&mut state) else { return };
            kept += state.put(slab, key, start, &bytes[kept..]);
        }
    }

    /// The file ends there, for good. Known as long as something of it is here.
    pub fn on_file_end(&self, key: FileKey, end: u64) {
        if let Some(pieces) = self.state.borrow_mut().files.get_mut(&key) {
            pieces.file_end = Some(end);
        }
    }

    /// The files for which `is_it` have changed, or gone. Their slabs go when it is their turn.
    pub fn forget(&self, is_it: impl Fn(FileKey) -> bool) {
        self.state.borrow_mut().files.retain(|key, _| !is_it(*key));
    }

    /// Keeps no more than that from now on, and no more than the budget; memory that isn't used any more goes back to the
    /// system.
    pub fn set_limit(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.limit_bytes = bytes.min(self.budget_bytes);
        while self.pool.in_use_bytes() > state.limit_bytes && state.give_up_one() {}
        self.pool.trim();
    }

    /// See [`ReadCache::set_limit`].
    pub fn limit_bytes(&self) -> usize {
        self.state.borrow().limit_bytes
    }

    /// The most that it ever keeps.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// What it keeps, and what readers hold of what it kept.
    pub fn in_use_bytes(&self) -> usize {
        self.pool.in_use_bytes()
    }

    /// A slab that isn't full.
    fn open_slab(&self, state: &mut State) -> Option<u64> {
        if let Some(last) = state.order.back()
            && state.slabs[last].frame.remaining() > 0
        {
            return Some(*last);
        }
        while self.pool.in_use_bytes() + SLAB_BYTES > state.limit_bytes {
            if !state.give_up_one() {
                return None;
            }
        }
        let frame = self.pool.try_frame(SLAB_BYTES)?;
        let number = state.next_slab;
        state.next_slab += 1;
        state.slabs.insert(number, Slab { frame, was_used: false, pieces: Vec::new() });
        state.order.push_back(number);
        Some(number)
    }
}

impl State {
    /// Copies what of `bytes` fits into the slab; returns how much.
    fn put(&mut self, number: u64, key: FileKey, start: u64, bytes: &[u8]) -> usize {
        let slab = self.slabs.get_mut(&number).expect("it is open");
        let at = slab.frame.len();
        let len = bytes.len().min(slab.frame.remaining());
        slab.frame.append(&bytes[..len]);
        slab.pieces.push((key, start));
        let pieces = &mut self.files.entry(key).or_default().by_start;
        // What begins within it and ends there has no reader any more.
        while let Some((&other, piece)) = pieces.range(start..).next()
            && other + piece.len as u64 <= start + len as u64
        {
            pieces.remove(&other);
        }
        pieces.insert(start, Piece { slab: number, at, len });
        len
    }

    /// Gives up a slab. False when readers hold all of them.
    fn give_up_one(&mut self) -> bool {
        // Twice, as the first look at one that was used only notes that it is to be used again.
        for _ in 0..2 * self.order.len() {
            let Some(number) = self.order.pop_front() else { return false };
            let slab = self.slabs.get_mut(&number).expect("it is in order");
            if std::mem::take(&mut slab.was_used) || slab.frame.is_lent() {
                self.order.push_back(number);
                continue;
            }
            for (key, start) in self.slabs.remove(&number).into_iter().flat_map(|slab| slab.pieces) {
                let Some(pieces) = self.files.get_mut(&key) else { continue };
                if pieces.by_start.get(&start).is_some_and(|piece| piece.slab == number) {
                    pieces.by_start.remove(&start);
                }
                if pieces.by_start.is_empty() {
                    self.files.remove(&key);
                }
            }
            return true;
        }
        false
    }
}

impl Pieces {
    /// The piece that holds the byte at `position`, and where it begins. Of two that overlap the later one goes farther.
    fn at(&self, position: u64) -> Option<(u64, Piece)> {
        let (start, piece) = self.by_start.range(..=position).next_back()?;
        (start + piece.len as u64 > position).then_some((*start, *piece))
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::Offset;

    use super::*;
    use crate::storage::generations::Segment;

    const KIB: usize = 1024;
    const SLAB_KIB: usize = SLAB_BYTES / KIB;

    fn key(store: u64) -> FileKey {
        FileKey { store, segment: Segment::first(Offset(0)) }
    }

    /// So many KiB, each byte of which is the number of its KiB in the file.
    fn keep(cache: &ReadCache, key: FileKey, start: usize, kib: usize) {
        let bytes: Vec<u8> = (start..start + kib).flat_map(|number| [number as u8; KIB]).collect();
        cache.keep(key, (start * KIB) as u64, &bytes);
    }

    /// The numbers that are there, and that they are what they should be.
    fn got(cache: &ReadCache, key: FileKey, start: usize, kib: usize) -> usize {
        let bytes = cache.get(key, (start * KIB) as u64, kib * KIB).concat();
        for (number, chunk) in bytes.chunks(KIB).enumerate() {
            assert_eq!(chunk, [(start + number) as u8; KIB]);
        }
        bytes.len() / KIB
    }

    #[test]
    fn what_lies_together_is_read_together_whenever_it_was_kept() {
        let cache = ReadCache::new(4 * SLAB_BYTES);
        keep(&cache, key(1), 16, 16);
        keep(&cache, key(2), 0, 10);
        keep(&cache, key(1), 24, 16);
        keep(&cache, key(1), 48, SLAB_KIB);
        assert_eq!(got(&cache, key(1), 20, 100), 20);
        assert_eq!(got(&cache, key(1), 20, 6), 6);
        assert_eq!(got(&cache, key(1), 50, 9 * SLAB_KIB), SLAB_KIB - 2, "it lies in two slabs");
        assert_eq!((got(&cache, key(1), 15, 1), got(&cache, key(2), 20, 1), got(&cache, key(3), 0, 1)), (0, 0, 0));
        let has = |kib: usize| cache.has(key(1), (kib * KIB) as u64);
        assert!(has(16) && has(39) && !has(40) && has(48) && !has(48 + SLAB_KIB));
        cache.on_file_end(key(1), ((48 + SLAB_KIB) * KIB) as u64);
        assert!(has(48 + SLAB_KIB) && has(50 + SLAB_KIB) && !has(40));
    }

    #[test]
    fn what_is_there_is_not_kept_twice() {
        let cache = ReadCache::new(2 * SLAB_BYTES);
        for _ in 0..100 {
            keep(&cache, key(1), 0, 100);
            keep(&cache, key(1), 50, 100);
        }
        assert_eq!((cache.in_use_bytes(), got(&cache, key(1), 0, 200)), (SLAB_BYTES, 150));
    }

    #[test]
    fn what_was_used_again_stays_and_what_was_read_once_goes() {
        let cache = ReadCache::new(4 * SLAB_BYTES);
        let there = |cache: &ReadCache| (0..20).filter(|store| cache.has(key(*store), 0)).collect::<Vec<_>>();
        (0..4).for_each(|store| keep(&cache, key(store), 0, SLAB_KIB));
        assert_eq!(got(&cache, key(0), 0, 16), 16);
        let held = cache.get(key(1), 0, 1);
        keep(&cache, key(4), 0, SLAB_KIB);
        keep(&cache, key(5), 0, SLAB_KIB);
        assert_eq!(there(&cache), [0, 1, 4, 5]);
        assert_eq!(cache.in_use_bytes(), 4 * SLAB_BYTES);
        drop(held);
        (6..20).for_each(|store| keep(&cache, key(store), 0, SLAB_KIB));
        assert_eq!(there(&cache), [16, 17, 18, 19], "long ago counts for nothing");
    }

    #[test]
    fn who_holds_all_of_it_keeps_others_from_nothing_but_being_kept() {
        let cache = ReadCache::new(2 * SLAB_BYTES);
        keep(&cache, key(1), 0, 2 * SLAB_KIB);
        let held = cache.get(key(1), 0, 2 * SLAB_BYTES);
        keep(&cache, key(2), 0, 10);
        assert!(!cache.has(key(2), 0) && cache.has(key(1), 0));
        cache.forget(|known| known == key(1));
        assert!(!cache.has(key(1), 0));
        drop(held);
        keep(&cache, key(2), 0, 10);
        assert!(cache.has(key(2), 0));
    }

    #[test]
    fn memory_goes_back_when_the_host_needs_it() {
        let cache = ReadCache::new(4 * SLAB_BYTES + 1);
        assert_eq!(cache.budget_bytes(), 4 * SLAB_BYTES);
        (0..4).for_each(|store| keep(&cache, key(store), 0, SLAB_KIB));
        cache.set_limit(SLAB_BYTES + 1);
        assert_eq!(cache.in_use_bytes(), SLAB_BYTES);
        assert!(cache.has(key(3), 0) && !cache.has(key(2), 0));
        cache.set_limit(0);
        keep(&cache, key(9), 0, 1);
        assert_eq!(cache.in_use_bytes(), 0);
        cache.set_limit(usize::MAX);
        assert_eq!(cache.limit_bytes(), 4 * SLAB_BYTES);
    }

    #[test]
    fn files_that_go_leave_nothing() {
        let cache = ReadCache::new(2 * SLAB_BYTES);
        for store in 0..1000 {
            keep(&cache, key(store), 0, 40);
            cache.forget(|known| known == key(store));
        }
        let state = cache.state.borrow();
        assert!(state.files.is_empty() && state.slabs.len() <= 2 && state.order.len() <= 2);
        assert!(cache.in_use_bytes() <= 2 * SLAB_BYTES);
    }
}
