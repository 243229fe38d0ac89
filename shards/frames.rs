//! The memory that young records live in, of one core: taken for appends, given up oldest first when it runs out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use ringlog_ring::{Frame, FramePool};

use crate::segment_store::SegmentStore;

/// What one append may take beyond the budget, once it was let in: more than the largest batch.
const OVERSHOOT_BYTES: usize = 256 * 1024 * 1024;

/// Frames within a budget. What is in its file stays in memory as long as nobody else needs the room.
///
/// An append is let in while [`FrameCache::has_room`]; then it takes what it needs.
pub struct FrameCache {
    pool: FramePool,
    budget_bytes: usize,
    /// Stores that have frames to give up, in the order in which those became clean.
    clean: RefCell<VecDeque<Weak<SegmentStore>>>,
}

impl FrameCache {
    /// At most `budget_bytes` of frames, clean and dirty, when an append is let in.
    pub fn new(budget_bytes: usize) -> FrameCache {
        let pool = FramePool::new(budget_bytes + OVERSHOOT_BYTES);
        FrameCache { pool, budget_bytes, clean: RefCell::default() }
    }

    /// Whether an append may go ahead. Clean frames give way, oldest first; `false` when all memory is dirty or lent
    /// to readers.
    pub fn has_room(&self) -> bool {
        while self.pool.in_use_bytes() >= self.budget_bytes {
            let Some(oldest) = self.clean.borrow_mut().pop_front() else { return false };
            if let Some(store) = oldest.upgrade() {
                store.release_clean_frames();
            }
        }
        true
    }

    /// An empty frame of `bytes`, for an append that was let in.
    pub fn take(&self, bytes: usize) -> Frame {
        self.pool
            .try_frame(bytes)
            .expect("an append that was let in finds memory: batches are smaller than the overshoot")
    }

    /// A store's frames may be given up from now on.
    pub fn on_clean(&self, store: &Rc<SegmentStore>) {
        self.clean.borrow_mut().push_back(Rc::downgrade(store));
    }

    /// Bytes taken.
    #[cfg(test)]
    pub fn in_use_bytes(&self) -> usize {
        self.pool.in_use_bytes()
    }
}
