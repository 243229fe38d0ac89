//! Virtual time: the queue of what is to happen, and the clocks of each machine.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringlog_types::{MonotonicMs, Now, TimestampMs};

/// Microseconds since the world began.
pub(crate) type Us = u64;

/// One millisecond.
pub(crate) const MS: Us = 1_000;
/// One second.
pub(crate) const SECOND: Us = 1_000_000;

/// The wall clock at the world's beginning.
const EPOCH_MS: i64 = 1_700_000_000_000;
const MILLION: i64 = 1_000_000;

/// What is to happen, by time; at the same time in the order of posting.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    posted: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Us,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), posted: 0 }
    }

    pub(crate) fn post(&mut self, at: Us, event: E) {
        self.posted += 1;
        self.heap.push(Reverse(Entry { at, number: self.posted, event }));
    }

    /// The next thing that happens, unless that is after `until`.
    pub(crate) fn pop(&mut self, until: Us) -> Option<(Us, E)> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at > until) {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

/// A machine's clocks: both run at their own pace, the wall clock may be set.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Parts per million faster than the world's time.
    rate_ppm: i64,
    monotonic_base_us: u64,
    wall_offset_ms: Cell<i64>,
}

impl Clock {
    pub(crate) fn new(rate_ppm: i64, monotonic_base_us: u64, wall_offset_ms: i64) -> Clock {
        Clock { rate_ppm, monotonic_base_us, wall_offset_ms: Cell::new(wall_offset_ms) }
    }

    fn elapsed_us(&self, now: Us) -> u64 {
        now * (MILLION + self.rate_ppm) as u64 / MILLION as u64
    }

    /// What the machine's clocks show.
    pub(crate) fn now(&self, now: Us) -> Now {
        let elapsed = self.elapsed_us(now);
        Now {
            monotonic: MonotonicMs((self.monotonic_base_us + elapsed) / MS),
            wall: TimestampMs(EPOCH_MS + self.wall_offset_ms.get() + (elapsed / MS) as i64),
        }
    }

    /// The first moment at which the machine's clock has reached `deadline`.
    pub(crate) fn moment_of(&self, deadline: MonotonicMs) -> Us {
        let wanted = deadline.0.saturating_mul(MS).saturating_sub(self.monotonic_base_us);
        if wanted > u64::MAX / MILLION as u64 {
            return Us::MAX;
        }
        let mut moment = wanted * MILLION as u64 / (MILLION + self.rate_ppm) as u64;
        while self.elapsed_us(moment) < wanted {
            moment += 1;
        }
        moment
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall(&self, offset_ms: i64) {
        self.wall_offset_ms.set(offset_ms);
    }
}
