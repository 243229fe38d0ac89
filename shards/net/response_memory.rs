//! Memory of one core for answers on their way out: records that lie in frames or in buffers of the disk, and everything
//! that was encoded.
//!
//! An answer whose size is known beforehand as a limit (Fetch) asks for room and is given a share of what is left, so
//! that a few that nobody takes leave room for others. Any other answer is counted once it is there; while that makes
//! more than there is, no further request is begun.
//!
//! Bound: the budget, one answer's excess for each request that had begun, and a batch larger than the budget, alone.

use ringlog_ring::{BytePermit, ByteSemaphore};

/// So much is always given: most batches fit.
const SMALLEST_SHARE_BYTES: usize = 256 * 1024;
/// One answer gets at most this part of what is left.
const PART_OF_THE_REST: usize = 4;

/// The memory. Clones share it.
#[derive(Clone)]
pub struct ResponseMemory(ByteSemaphore);

impl ResponseMemory {
    /// `bytes` for all answers together.
    pub fn new(bytes: usize) -> ResponseMemory {
        ResponseMemory(ByteSemaphore::new(bytes))
    }

    /// Room for an answer that could use up to `wanted` bytes, but does with less.
    pub async fn share(&self, wanted: usize) -> BytePermit {
        self.0.acquire(share_of(self.0.available(), wanted)).await
    }

    /// Room for `bytes`, all of them; the whole budget when that is less.
    pub async fn exactly(&self, bytes: usize) -> BytePermit {
        self.0.acquire(bytes).await
    }

    /// Counts an answer that is there.
    pub fn hold(&self, bytes: usize) -> BytePermit {
        self.0.hold(bytes)
    }

    /// Ends when answers may be made: at once, unless there is nothing left.
    pub async fn has_room(&self) {
        if self.0.available() == 0 {
            drop(self.0.acquire(1).await);
        }
    }

    /// Whether somebody waits for what others hold.
    pub fn is_wanted(&self) -> bool {
        self.0.waiters() > 0
    }

    /// Bytes that are held; where answers exceed the budget, all of it.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity() - self.0.available()
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.0.available()
    }
}

fn share_of(available: usize, wanted: usize) -> usize {
    wanted.min((available / PART_OF_THE_REST).max(SMALLEST_SHARE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn answers_that_are_not_taken_leave_room_for_others() {
        let mut available = 128 * MIB;
        for _ in 0..8 {
            available -= share_of(available, 16 * MIB);
        }
        assert!(available > 16 * MIB, "{available}");
        for _ in 0..40 {
            let share = share_of(available, 16 * MIB);
            assert!(share >= SMALLEST_SHARE_BYTES);
            available = available.saturating_sub(share);
        }
    }

    #[test]
    fn nobody_is_given_more_than_asked_for() {
        assert_eq!(share_of(128 * MIB, 1000), 1000);
        assert_eq!(share_of(0, 1000), 1000);
    }
}
