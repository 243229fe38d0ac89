//! Streams of random numbers: one for each kind of question, so that a new question of one kind doesn't change the answers
//! to all others.

use std::cell::RefCell;

use ringlog_types::Random;

use super::settings::Range;

/// A stream.
pub(crate) struct Stream(RefCell<Random>);

impl Stream {
    /// The stream `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Stream {
        // FNV-1a.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
        Stream(RefCell::new(Random::from_seed(seed ^ name)))
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.0.borrow_mut().below(bound)
    }

    pub fn between(&self, (least, most): Range) -> u64 {
        match most.checked_sub(least) {
            Some(width @ 1..) => least + self.below(width.saturating_add(1)),
            _ => least,
        }
    }

    /// Yes so many times of a thousand.
    pub fn permille(&self, of_a_thousand: u64) -> bool {
        of_a_thousand > 0 && self.below(1000) < of_a_thousand
    }

    pub fn next(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }
}
