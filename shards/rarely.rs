//! Saying something once, and then only now and then.

use std::cell::Cell;

use ringlog_types::MonotonicMs;

/// Lets a message through when the last one was long ago.
#[derive(Default)]
pub struct Rarely {
    said_at: Cell<Option<MonotonicMs>>,
    kept_back: Cell<u64>,
}

impl Rarely {
    /// How many were kept back since the last one, if this one may be said: `every_ms` after that at the earliest.
    pub fn may_say(&self, now: MonotonicMs, every_ms: u64) -> Option<u64> {
        if self.said_at.get().is_some_and(|at| now.since_ms(at) < every_ms) {
            self.kept_back.set(self.kept_back.get() + 1);
            return None;
        }
        self.said_at.set(Some(now));
        Some(self.kept_back.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_per_interval() {
        let rarely = Rarely::default();
        let at = |ms| rarely.may_say(MonotonicMs(ms), 1_000);
        assert_eq!(
            [at(5), at(6), at(1_004), at(1_005), at(1_006), at(9_000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
