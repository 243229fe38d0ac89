//! The memory that young records live in, of one core: taken for appends, given up oldest first when it runs out.
//!
//! An append first asks for room, [`FrameCache::has_room`], and then takes what it was let in for. Where there is no room
//! appends wait in the order in which they came, [`FrameCache::turn`]; nothing behind the first overtakes it.
//!
//! Bound: the budget. Beyond it go only a batch that is larger than all of it, alone, and the metadata log, which waits
//! for nobody and is flushed after each append. Readers get the frames themselves up to half of the budget, copies
//! beyond: a reader that doesn't move on must not keep writers from theirs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ringlog_ring::{self as ring, BytePermit, ByteSemaphore, Frame, FramePool};

/// How often who waits for memory looks again: what other cores give back wakes nobody here.
const RETRY_MS: u64 = 1;

/// A store gives up so much at a time, then it is another one's turn: none loses all of its youngest records at once.
const GIVEN_UP_BYTES: usize = 1 << 20;

/// A store whose records are in their file, and in frames as long as there is room.
pub trait HoldsFrames {
    /// Gives up about so many bytes of what is in its file, oldest first. Whether there may be more.
    fn release_clean_frames(&self, bytes: usize) -> bool;
}

/// Frames within a budget. What is in its file stays in memory as long as nobody else needs the room.
pub struct FrameCache {
    pool: FramePool,
    budget_bytes: usize,
    /// Stores that have frames to give up, in the order of their turns.
    clean: RefCell<VecDeque<Weak<dyn HoldsFrames>>>,
    /// Whose append comes next.
    turns: ByteSemaphore,
}

/// The right to append before all that come later.
pub struct AppendTurn(#[allow(dead_code, reason = "holds the turn")] BytePermit);

impl FrameCache {
    /// At most `budget_bytes` of frames, clean and dirty.
    pub fn new(budget_bytes: usize) -> FrameCache {
        let pool = FramePool::new(budget_bytes);
        FrameCache { pool, budget_bytes, clean: RefCell::default(), turns: ByteSemaphore::new(1) }
    }

    /// Whether `bytes` of frames can be taken now. Clean frames give way, store by store; `false` when too much memory is
    /// dirty or lent to readers.
    pub fn has_room(&self, bytes: usize) -> bool {
        let bytes = bytes.min(self.budget_bytes);
        while self.pool.in_use_bytes() + bytes > self.budget_bytes {
            let Some(first) = self.clean.borrow_mut().pop_front() else { return false };
            if let Some(store) = first.upgrade()
                && store.release_clean_frames(GIVEN_UP_BYTES)
            {
                self.clean.borrow_mut().push_back(first);
            }
        }
        true
    }

    /// An empty frame of `bytes`, for an append that was let in (or is allowed to exceed the budget).
    pub fn take(&self, bytes: usize) -> Frame {
        self.pool.try_frame(bytes).unwrap_or_else(|| self.pool.frame_beyond_budget(bytes))
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
        let frames = FrameCache::new(8 * FRAME);
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
        let frames = FrameCache::new(4 * FRAME);
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
