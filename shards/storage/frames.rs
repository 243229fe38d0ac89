//! The memory that young records live in, of one core: taken for appends, given up oldest first when it runs out.
//!
//! What is in its file by then stays in memory as long as that isn't needed otherwise ([`CacheMemory`]): the youngest
//! records of all logs of a core, whoever reads them first. Such frames are *kept*; they go in the order in which they
//! were written, and their memory is used again for what is written next.
//!
//! An append first asks for room, [`FrameCache::has_room`], and then takes what it was let in for. Where there is no room
//! appends wait in the order in which they came, [`FrameCache::turn`]; nothing behind the first overtakes it.
//!
//! Bound: the budget, kept frames apart. Beyond it go only a batch that is larger than all of it, alone, and the metadata log, which waits
//! for nobody and is flushed after each append. Readers get the frames themselves up to half of the budget, copies
//! beyond: a reader that doesn't move on must not keep writers from theirs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ringlog_ring::{self as ring, BytePermit, ByteSemaphore, Frame, FramePool};

use crate::storage::cache_memory::{CacheMemory, Kind};

/// How often who waits for memory looks again: what other cores give back wakes nobody here.
const RETRY_MS: u64 = 1;

/// A store gives up so much at a time, then it is another one's turn: none loses all of its youngest records at once.
const GIVEN_UP_BYTES: usize = 1 << 20;
/// Smaller frames aren't looked at when they are taken from the system: all of them together are little.
const COUNTED_BYTES: usize = 128 * 1024;
/// Turns of stores that have kept frames, at most: the oldest goes before another comes.
const KEPT_MAX: usize = 1 << 16;

/// A store whose records are in their file, and in frames as long as there is room.
pub trait HoldsFrames {
    /// Gives up about so many bytes of what is in its file, oldest first. Whether there may be more.
    fn release_clean_frames(&self, bytes: usize) -> bool;

    /// The same, but the frames stay where they are, and count as kept; how much of them. The open one isn't kept.
    fn keep_clean_frames(&self, bytes: usize, memory: &Rc<CacheMemory>) -> (usize, bool);

    /// Gives up about so many bytes of what is kept, oldest first; returns how many.
    fn release_kept_frames(&self, bytes: usize) -> usize;
}

/// Frames within a budget. What is in its file stays in memory as long as nobody else needs the room.
pub struct FrameCache {
    pool: FramePool,
    budget_bytes: usize,
    memory: Rc<CacheMemory>,
    /// Stores that have frames to give up, in the order of their turns.
    clean: RefCell<VecDeque<Weak<dyn HoldsFrames>>>,
    /// Stores that have kept frames, and so many bytes of them, in the order in which those were written.
    kept: RefCell<VecDeque<(Weak<dyn HoldsFrames>, usize)>>,
    /// Whose append comes next.
    turns: ByteSemaphore,
}

/// The right to append before all that come later.
pub struct AppendTurn(#[allow(dead_code, reason = "holds the turn")] BytePermit);

impl FrameCache {
    /// At most `budget_bytes` of frames, clean and dirty, and those that are kept as long as `memory` allows it.
    pub fn new(budget_bytes: usize, memory: Rc<CacheMemory>) -> FrameCache {
        let pool = FramePool::new(budget_bytes.saturating_add(memory.budget_bytes()));
        let (clean, kept) = Default::default();
        FrameCache { pool, budget_bytes, memory, clean, kept, turns: ByteSemaphore::new(1) }
    }

    /// Whether `bytes` of frames can be taken now. Clean frames give way, store by store; `false` when too much memory is
    /// dirty or lent to readers.
    pub fn has_room(&self, bytes: usize) -> bool {
        let bytes = bytes.min(self.budget_bytes);
        while self.pool.in_use_bytes().saturating_sub(self.memory.in_use_bytes(Kind::Written)) + bytes
            > self.budget_bytes
        {
            let Some(first) = self.clean.borrow_mut().pop_front() else { return false };
            if let Some(store) = first.upgrade()
                && self.pass_on(&first, &*store)
            {
                self.clean.borrow_mut().push_back(first);
            }
        }
        true
    }

    /// Keeps some of a store's clean frames: beside others if there is memory for that, else in place of the oldest kept
    /// ones. Whether there may be more clean ones.
    fn pass_on(&self, place: &Weak<dyn HoldsFrames>, store: &dyn HoldsFrames) -> bool {
        let may_grow = self.memory.has_room(Kind::Written, GIVEN_UP_BYTES) && self.memory.may_take(Kind::Written);
        if !may_grow && self.give_up_kept(GIVEN_UP_BYTES) == 0 {
            return store.release_clean_frames(GIVEN_UP_BYTES);
        }
        let (bytes, has_more) = store.keep_clean_frames(GIVEN_UP_BYTES, &self.memory);
        if bytes > 0 {
            if self.kept.borrow().len() == KEPT_MAX {
                self.give_up_kept(1);
            }
            self.kept.borrow_mut().push_back((place.clone(), bytes));
        }
        has_more
    }

    /// Gives up kept frames, those that were written first before others; returns how many bytes.
    fn give_up_kept(&self, bytes: usize) -> usize {
        let mut given_up = 0;
        while given_up < bytes {
            let Some((store, of_store)) = self.kept.borrow_mut().pop_front() else { break };
            given_up += store.upgrade().map_or(0, |store| store.release_kept_frames(of_store));
        }
        given_up
    }

    /// Gives back to the system what isn't used, and so many bytes of kept frames.
    pub fn give_back(&self, kept_bytes: usize) {
        self.give_up_kept(kept_bytes);
        self.pool.trim();
    }

    /// An empty frame of `bytes`, for an append that was let in (or is allowed to exceed the budget).
    pub fn take(&self, bytes: usize) -> Frame {
        if let Some(frame) = self.pool.try_used_frame(bytes) {
            return frame;
        }
        let take = || self.pool.try_frame(bytes).unwrap_or_else(|| self.pool.frame_beyond_budget(bytes));
        if bytes < COUNTED_BYTES {
            return take();
        }
        self.memory.taking(Kind::Written, || {
            let mut frame = take();
            frame.touch();
            frame
        })
    }

    /// Whether an append would overtake others that wait.
    pub fn is_waited_for(&self) -> bool {
        self.turns.available() == 0
    }

    /// Waits for the appends that came before.
    pub async fn turn(&self) -> AppendTurn {
        AppendTurn(self.turns.acquire(1).await)
    }

    /// A moment for frames to be written, or to come back from readers.
    pub async fn wait_a_moment(&self) {
        ring::sleep_ms(RETRY_MS).await;
    }

    /// Bytes of a frame for a reader.
    pub fn share(&self, frame: &Frame, range: Range<usize>) -> Bytes {
        if frame.is_lent() || self.pool.lent_bytes() + frame.capacity() <= self.budget_bytes / 2 {
            frame.slice(range)
        } else {
            Bytes::copy_from_slice(&frame.as_slice()[range])
        }
    }

    /// A store's frames may be given up from now on.
    pub fn on_clean<S: HoldsFrames + 'static>(&self, store: &Rc<S>) {
        let store: Weak<S> = Rc::downgrade(store);
        self.clean.borrow_mut().push_back(store);
    }

    /// Bytes taken.
    #[cfg(test)]
    pub fn in_use_bytes(&self) -> usize {
        self.pool.in_use_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 256 * 1024;

    #[test]
    fn readers_hold_half_of_the_memory_and_get_copies_of_the_rest() {
        let frames = FrameCache::new(8 * FRAME, CacheMemory::new(0));
        let mut taken = Vec::new();
        for number in 0..8_u8 {
            assert!(frames.has_room(FRAME));
            let mut frame = frames.take(FRAME);
            frame.append(&[number; 1000]);
            taken.push(frame);
        }
        assert!(!frames.has_room(1));
        let slices: Vec<Bytes> = taken.iter().map(|frame| frames.share(frame, 10..20)).collect();
        assert!(slices.iter().zip(0..8_u8).all(|(slice, number)| slice[..] == [number; 10]));
        // A second reader of a frame that is lent costs nothing more.
        let again = frames.share(&taken[0], 0..1000);
        drop(taken);
        assert_eq!(frames.in_use_bytes(), 4 * FRAME, "the others were copied");
        assert!(frames.has_room(4 * FRAME));
        drop((slices, again));
        assert_eq!(frames.in_use_bytes(), 0);
    }

    #[test]
    fn a_batch_larger_than_all_memory_is_let_in_alone() {
        let frames = FrameCache::new(4 * FRAME, CacheMemory::new(0));
        let small = frames.take(1);
        assert!(!frames.has_room(100 * FRAME));
        drop(small);
        assert!(frames.has_room(100 * FRAME));
        let large: Vec<Frame> = (0..100).map(|_| frames.take(FRAME)).collect();
        assert!(!frames.has_room(1));
        drop(large);
        assert_eq!(frames.in_use_bytes(), 0);
    }
}
