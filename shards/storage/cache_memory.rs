//! The memory of one core for records that are in files, too: the older part of what was written ([`super::frames`]), and
//! what was read ([`super::read_cache`]).
//!
//! Bound: the budget, or less while the host is short of memory ([`CacheMemory::set_limit`]). Who comes first has it; when
//! all is taken, who has less than half gets more of it, step by step ([`CacheMemory::excess`]).
//!
//! Memory that the system gives for the first time costs: it has to be cleared, and in a virtual machine the host may have
//! to find it first, which takes ten times as long. A core spends at most one part in [`TAKING_PARTS`] of its time on that,
//! so that what is merely kept doesn't hold up what has to be done. Memory that was taken once is used again, which costs
//! nothing.

use std::cell::Cell;
use std::rc::Rc;

use ringlog_ring as ring;

/// See the module's text: for what was written, and for what was read. Producers wait for the core, and first readers for
/// the disk.
const TAKING_PARTS: [u64; 2] = [16, 8];
/// So much of the memory changes hands at a time.
const STEP_PART: usize = 16;

/// See the module's text.
pub struct CacheMemory {
    budget_bytes: usize,
    limit_bytes: Cell<usize>,
    /// By kind.
    kept_bytes: [Cell<usize>; 2],
    /// Asked for in vain, with less than half, since the last look.
    is_wanted: [Cell<bool>; 2],
    /// By kind: nothing is taken from the system before.
    rests_until_ns: [Cell<u64>; 2],
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records that were written here.
    Written,
    /// Records that were read from a file.
    Read,
}

/// What is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Excess {
    /// Of what was written.
    pub written_bytes: usize,
    /// Of what was read.
    pub read_bytes: usize,
}

/// Bytes that count as long as this is there.
pub struct Kept {
    memory: Rc<CacheMemory>,
    kind: Kind,
    bytes: usize,
}

impl CacheMemory {
    /// At most `budget_bytes` in all.
    pub fn new(budget_bytes: usize) -> Rc<CacheMemory> {
        let (kept_bytes, is_wanted, rests_until_ns) = Default::default();
        let limit_bytes = Cell::new(budget_bytes);
        Rc::new(CacheMemory { budget_bytes, limit_bytes, kept_bytes, is_wanted, rests_until_ns })
    }

    /// The most that there ever is.
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// The most that there may be now.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes.get()
    }

    /// From now on there may be so many bytes, and no more than the budget. What is more than that has to be given up.
    pub fn set_limit(&self, bytes: usize) {
        self.limit_bytes.set(bytes.min(self.budget_bytes));
    }

    /// What is kept of this kind.
    pub fn in_use_bytes(&self, kind: Kind) -> usize {
        self.kept_bytes[kind as usize].get()
    }

    /// What is kept.
    pub fn all_in_use_bytes(&self) -> usize {
        self.in_use_bytes(Kind::Written) + self.in_use_bytes(Kind::Read)
    }

    /// Keeps `bytes` more.
    pub fn keep(self: &Rc<Self>, kind: Kind, bytes: usize) -> Kept {
        self.kept_bytes[kind as usize].update(|kept| kept + bytes);
        Kept { memory: self.clone(), kind, bytes }
    }

    /// Whether so many bytes more fit.
    pub fn has_room(&self, kind: Kind, bytes: usize) -> bool {
        let has_room = self.all_in_use_bytes() + bytes <= self.limit_bytes.get();
        if !has_room && self.in_use_bytes(kind) < self.limit_bytes.get() / 2 {
            self.is_wanted[kind as usize].set(true);
        }
        has_room
    }

    /// Whether memory may be taken from the system now.
    pub fn may_take(&self, kind: Kind) -> bool {
        ring::monotonic_ns() >= self.rests_until_ns[kind as usize].get()
    }

    /// Takes memory from the system, and sees how long that takes.
    pub fn taking<R>(&self, kind: Kind, take: impl FnOnce() -> R) -> R {
        let begun_ns = ring::monotonic_ns();
        let taken = take();
        let ended_ns = ring::monotonic_ns();
        let rest_ns = (ended_ns - begun_ns).saturating_mul(TAKING_PARTS[kind as usize] - 1);
        let rests_until_ns = &self.rests_until_ns[kind as usize];
        rests_until_ns.set(rests_until_ns.get().max(ended_ns).saturating_add(rest_ns));
        taken
    }

    /// It may be taken again at once.
    #[cfg(test)]
    pub fn rested(&self) {
        self.rests_until_ns.iter().for_each(|until| until.set(0));
    }

    /// What is to be given up now, once in a while: what is above the limit, of both in proportion; and what one kind has
    /// above half while the other asked for more in vain.
    pub fn excess(&self) -> Excess {
        let (written, read) = (self.in_use_bytes(Kind::Written), self.in_use_bytes(Kind::Read));
        let limit = self.limit_bytes.get();
        let is_wanted = |kind: Kind| self.is_wanted[kind as usize].take();
        let (written_is_wanted, read_is_wanted) = (is_wanted(Kind::Written), is_wanted(Kind::Read));
        let above = (written + read).saturating_sub(limit);
        if above > 0 {
            let of_written = (above as u128 * written as u128 / (written + read) as u128) as usize;
            return Excess { written_bytes: of_written, read_bytes: above - of_written };
        }
        let above_half = |bytes: usize| bytes.saturating_sub(limit / 2).min(limit / STEP_PART);
        Excess {
            written_bytes: if read_is_wanted { above_half(written) } else { 0 },
            read_bytes: if written_is_wanted { above_half(read) } else { 0 },
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.kept_bytes[self.kind as usize].update(|kept| kept - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_share_what_there_is() {
        let memory = CacheMemory::new(160);
        let kept = memory.keep(Kind::Written, 100);
        let _read = memory.keep(Kind::Read, 50);
        assert!(memory.has_room(Kind::Written, 10) && !memory.has_room(Kind::Written, 11));
        assert_eq!(memory.excess(), Excess::default(), "who has more than half may ask in vain");
        assert!(!memory.has_room(Kind::Read, 11));
        assert_eq!(memory.excess(), Excess { written_bytes: 10, read_bytes: 0 });
        assert_eq!(memory.excess(), Excess::default(), "nobody has asked since");
        memory.set_limit(75);
        assert_eq!(memory.excess(), Excess { written_bytes: 50, read_bytes: 25 });
        drop(kept);
        assert_eq!((memory.all_in_use_bytes(), memory.excess()), (50, Excess::default()));
        assert!(!memory.has_room(Kind::Written, 30));
        assert_eq!(memory.excess(), Excess { written_bytes: 0, read_bytes: 4 });
    }

    #[test]
    fn a_core_does_other_things_most_of_the_time() {
        let memory = CacheMemory::new(1);
        assert!(memory.may_take(Kind::Read));
        let begun_ns = ring::monotonic_ns();
        memory.taking(Kind::Read, || std::thread::sleep(std::time::Duration::from_millis(2)));
        assert!(memory.may_take(Kind::Written), "each has its own time");
        while !memory.may_take(Kind::Read) {
            std::thread::yield_now();
        }
        assert!(ring::monotonic_ns() - begun_ns >= TAKING_PARTS[Kind::Read as usize] * 2_000_000);
    }
}
