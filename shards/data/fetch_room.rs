//! How the bytes of a fetch's answer are divided: among the homes of its partitions, and at a home among its partitions.
//! What would be too much isn't read.

use smallvec::SmallVec;

/// Divides `total` bytes among those who want so many each: all get what they want if that fits, else nobody gets more
/// than another who wants more than that.
pub fn share_out(total: usize, wants: &[usize]) -> SmallVec<[usize; 4]> {
    let mut order: SmallVec<[usize; 4]> = (0..wants.len()).collect();
    order.sort_unstable_by_key(|&place| wants[place]);
    let mut shares = SmallVec::from_elem(0, wants.len());
    let mut left = total;
    for (served, &place) in order.iter().enumerate() {
        let share = wants[place].min(left / (wants.len() - served));
        shares[place] = share;
        left -= share;
    }
    shares
}

/// What a home may still answer, partition after partition.
#[derive(Debug)]
pub struct Room {
    left: usize,
    /// The first batch of all may be larger than what is allowed: else a reader would never get past it.
    may_exceed: bool,
    is_full: bool,
}

/// What a partition may be read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Bytes, at most.
    pub max_bytes: usize,
    /// But one batch in any case.
    pub at_least_one: bool,
}

impl Room {
    /// For so many bytes; `may_exceed` for one batch even if that is larger.
    pub fn new(bytes: usize, may_exceed: bool) -> Room {
        Room { left: bytes, may_exceed, is_full: bytes == 0 }
    }

    /// What may be read of a partition of which the client takes so many bytes; `None`: nothing more is to be read.
    pub fn allow(&self, partition_max_bytes: usize) -> Option<Allowed> {
        let allowed = Allowed { max_bytes: partition_max_bytes.min(self.left), at_least_one: self.may_exceed };
        (self.may_exceed || !self.is_full).then_some(allowed)
    }

    /// So many bytes were read.
    pub fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.may_exceed &= bytes == 0;
        self.is_full |= self.left == 0;
    }

    /// The first batch of a partition didn't fit, of which the client takes so many bytes. That of another one is hardly
    /// smaller, and each look at one may be a disk operation.
    pub fn was_too_large(&mut self, partition_max_bytes: usize) {
        self.is_full |= partition_max_bytes > self.left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_what_fits_and_equal_shares_else() {
        for (total, wants, shares) in [
            (100, vec![], vec![]),
            (100, vec![100], vec![100]),
            (100, vec![30, 70], vec![30, 70]),
            (100, vec![300, 70], vec![50, 50]),
            (100, vec![300, 10, 90], vec![45, 10, 45]),
            (100, vec![20, 10, 90], vec![20, 10, 70]),
            (0, vec![20, 10], vec![0, 0]),
            (1, vec![20, 10, 5], vec![1, 0, 0]),
            (usize::MAX, vec![usize::MAX, 1], vec![usize::MAX - 1, 1]),
        ] {
            assert_eq!(share_out(total, &wants).to_vec(), shares, "{total} among {wants:?}");
        }
    }

    #[test]
    fn one_batch_may_exceed_and_then_all_is_full() {
        let mut room = Room::new(100, true);
        assert_eq!(room.allow(40), Some(Allowed { max_bytes: 40, at_least_one: true }));
        room.take(0);
        assert_eq!(room.allow(400), Some(Allowed { max_bytes: 100, at_least_one: true }), "nothing so far");
        room.take(250);
        assert_eq!(room.allow(400), None);
        let mut room = Room::new(0, true);
        assert_eq!(room.allow(400), Some(Allowed { max_bytes: 0, at_least_one: true }));
        room.take(1);
        assert_eq!(room.allow(400), None);
        assert_eq!(Room::new(0, false).allow(400), None);
    }

    #[test]
    fn a_batch_that_does_not_fit_ends_the_reading_unless_its_own_partition_is_the_limit() {
        let mut room = Room::new(100, false);
        room.take(60);
        room.was_too_large(30);
        assert_eq!(room.allow(400), Some(Allowed { max_bytes: 40, at_least_one: false }));
        room.was_too_large(400);
        assert_eq!(room.allow(10), None);
    }
}
