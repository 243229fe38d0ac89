//! Which segments a log has, and which of those that had a base offset one after another is meant.
//!
//! A segment's name is its base offset. When a log is cut and goes on, or a segment takes the place of others, a name may
//! come back with other bytes behind it; a number that is never used twice in a log tells them apart. Whoever held a place
//! in a segment across an `await` asks whether that is still there ([`Generations::has`]), and looks the place up again if
//! it isn't. The number is one that no other store of the core has either: a log may go on in another store.

use std::cell::{Cell, RefCell};

use ringlog_types::Offset;
use smallvec::SmallVec;

/// A segment of one log, as it was when somebody looked it up. Another one with the same base offset isn't it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Offset of its first record, and its name.
    pub base_offset: Offset,
    generation: u64,
}

impl Segment {
    /// The first with this base offset, of a log that exists for a test.
    #[cfg(test)]
    pub const fn first(base_offset: Offset) -> Segment {
        Segment { base_offset, generation: 0 }
    }
}

/// A store's number stands above those of its segments.
const STORE_SHIFT: u32 = 32;

/// The segments of one log, ascending. Most logs have one.
#[derive(Debug)]
pub(super) struct Generations {
    segments: RefCell<SmallVec<[Segment; 1]>>,
    next: Cell<u64>,
}

impl Generations {
    /// The segments that are there at start, of the store of that number.
    pub fn new(store: u64, base_offsets: impl IntoIterator<Item = Offset>) -> Generations {
        let first = store << STORE_SHIFT;
        let segments = base_offsets.into_iter().map(|base_offset| Segment { base_offset, generation: first }).collect();
        Generations { segments: RefCell::new(segments), next: Cell::new(first + 1) }
    }

    /// The segment that has this base offset now.
    #[inline]
    pub fn get(&self, base_offset: Offset) -> Option<Segment> {
        let segments = self.segments.borrow();
        // Mostly it is the last one.
        if let Some(last) = segments.last().filter(|last| last.base_offset == base_offset) {
            return Some(*last);
        }
        segments.binary_search_by_key(&base_offset, |segment| segment.base_offset).ok().map(|place| segments[place])
    }

    /// Whether it is still a segment of the log.
    #[inline]
    pub fn has(&self, segment: Segment) -> bool {
        self.get(segment.base_offset) == Some(segment)
    }

    /// A segment that begins now; it takes the place of one that has its base offset.
    pub fn begin(&self, base_offset: Offset) -> Segment {
        let segment = Segment { base_offset, generation: self.next.get() };
        self.next.set(segment.generation + 1);
        assert!(self.next.get() & ((1 << STORE_SHIFT) - 1) != 0, "a log has fewer segments than that");
        let mut segments = self.segments.borrow_mut();
        match segments.binary_search_by_key(&base_offset, |segment| segment.base_offset) {
            Ok(place) => segments[place] = segment,
            Err(place) => segments.insert(place, segment),
        }
        segment
    }

    /// Those for which `goes` are no segments of the log any more; returns them.
    pub fn end(&self, goes: impl Fn(Offset) -> bool) -> SmallVec<[Segment; 1]> {
        let mut ended = SmallVec::new();
        self.segments.borrow_mut().retain(|segment| {
            let goes = goes(segment.base_offset);
            ended.extend(goes.then_some(*segment));
            !goes
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_offset_that_comes_back_is_another_segment() {
        let generations = Generations::new(7, [Offset(0), Offset(10), Offset(20)]);
        let before = [0, 10, 20].map(|base| generations.get(Offset(base)).unwrap());
        assert_eq!(generations.get(Offset(5)), None);
        let ended = generations.end(|base| base >= Offset(10));
        assert_eq!(ended[..], before[1..]);
        assert_eq!(before.map(|segment| generations.has(segment)), [true, false, false]);
        let again = generations.begin(Offset(20));
        assert!(generations.has(again) && !generations.has(before[2]));
        // Between others, and in the place of one that is there.
        let between = generations.begin(Offset(10));
        let replaced = generations.begin(Offset(0));
        assert_eq!([0, 10, 20].map(|base| generations.get(Offset(base))), [Some(replaced), Some(between), Some(again)]);
        assert!(before.iter().all(|segment| !generations.has(*segment)));
    }
}
