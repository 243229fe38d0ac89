//! How fast replicas may be copied (KIP-73): what was copied lately, against a rate, as Kafka's `ReplicationQuotaManager`
//! reckons.
//!
//! Bytes are counted when they have been copied, so one answer may exceed the rate; what comes next waits until the average
//! over the windows is below it again. The average is taken over the time since the oldest window began, one window at
//! least, so a copy that just began may have a second's worth at once.

use std::collections::VecDeque;

use ringlog_types::MonotonicMs;

/// The rate that limits nothing, Kafka's default.
pub const UNLIMITED: u64 = i64::MAX as u64;

/// Over which time bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaWindows {
    /// `replication.quota.window.num`.
    pub count: usize,
    /// `replication.quota.window.size.seconds`, in ms.
    pub size_ms: u64,
}

impl QuotaWindows {
    /// As configured; both are one at least.
    pub fn new(count: i32, size_seconds: i32) -> QuotaWindows {
        let at_least_one = |number: i32| u64::try_from(number).unwrap_or(1).max(1);
        QuotaWindows { count: at_least_one(count) as usize, size_ms: at_least_one(size_seconds) * 1_000 }
    }

    fn kept_ms(self) -> u64 {
        self.size_ms.saturating_mul(self.count as u64)
    }
}

/// What was copied lately.
#[derive(Debug)]
pub struct ReplicationQuota {
    windows: QuotaWindows,
    /// Oldest first; no more than the windows are, and one that ends.
    samples: VecDeque<Sample>,
}

/// What was copied in one window.
#[derive(Debug, Clone, Copy)]
struct Sample {
    begun: MonotonicMs,
    last: MonotonicMs,
    bytes: u64,
}

impl ReplicationQuota {
    /// Nothing was copied yet.
    pub fn new(windows: QuotaWindows) -> ReplicationQuota {
        ReplicationQuota { windows, samples: VecDeque::new() }
    }

    /// So many bytes were copied.
    pub fn record(&mut self, bytes: u64, now: MonotonicMs) {
        let kept_ms = self.windows.kept_ms();
        while self.samples.front().is_some_and(|oldest| now.since_ms(oldest.last) >= kept_ms) {
            self.samples.pop_front();
        }
        match self.samples.back_mut() {
            Some(newest) if now.since_ms(newest.begun) < self.windows.size_ms => {
                newest.bytes = newest.bytes.saturating_add(bytes);
                newest.last = now;
            }
            _ => self.samples.push_back(Sample { begun: now, last: now, bytes }),
        }
    }

    /// Whether more was copied than so many bytes a second: then, when to look again. Until that time nothing changes but by
    /// what is copied meanwhile.
    pub fn exceeded_until(&self, bytes_per_second: u64, now: MonotonicMs) -> Option<MonotonicMs> {
        if bytes_per_second >= UNLIMITED {
            return None;
        }
        let kept_ms = self.windows.kept_ms();
        let counts = |sample: &&Sample| now.since_ms(sample.last) < kept_ms;
        let oldest = self.samples.iter().find(counts)?;
        let bytes: u64 = self.samples.iter().filter(counts).fold(0, |sum, sample| sum.saturating_add(sample.bytes));
        let elapsed_ms = now.since_ms(oldest.begun).max(self.windows.size_ms);
        let thousandfold = u128::from(bytes) * 1_000;
        if thousandfold <= u128::from(bytes_per_second) * u128::from(elapsed_ms) {
            return None;
        }
        // The rate falls as time goes on, and again when the oldest window counts no more.
        let gone = oldest.last.plus_ms(kept_ms);
        let needed_ms = thousandfold.div_ceil(u128::from(bytes_per_second.max(1)));
        let fallen = oldest.begun.plus_ms(u64::try_from(needed_ms).unwrap_or(u64::MAX / 2));
        Some(fallen.min(gone).max(now.plus_ms(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonotonicMs = MonotonicMs(50_000);
    const RATE: u64 = 1_000_000;

    fn quota() -> ReplicationQuota {
        ReplicationQuota::new(QuotaWindows::new(11, 1))
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_the_average_counts() {
        let mut quota = quota();
        assert_eq!(quota.exceeded_until(RATE, NOW), None);
        quota.record(RATE, NOW);
        assert_eq!(quota.exceeded_until(RATE, NOW), None);
        quota.record(1, NOW);
        // A byte more than is due in a second: it is due a little later.
        assert_eq!(quota.exceeded_until(RATE, NOW), Some(NOW.plus_ms(1_001)));
        assert!(quota.exceeded_until(RATE, NOW.plus_ms(1_000)).is_some());
        assert_eq!(quota.exceeded_until(RATE, NOW.plus_ms(1_001)), None);
    }

    #[test]
    fn what_is_copied_as_soon_as_it_may_be_comes_at_the_rate() {
        let (mut quota, mut now, mut copied) = (quota(), NOW, 0);
        while copied < 60 * RATE {
            match quota.exceeded_until(RATE, now) {
                Some(until) => {
                    assert!(until > now);
                    now = until;
                }
                None => {
                    quota.record(RATE / 4, now);
                    copied += RATE / 4;
                }
            }
        }
        let took_ms = now.since_ms(NOW);
        assert!((57_000..=62_000).contains(&took_ms), "{took_ms}");
    }

    #[test]
    fn much_at_once_counts_until_its_window_is_gone() {
        let mut quota = quota();
        quota.record(100 * RATE, NOW);
        let until = quota.exceeded_until(RATE, NOW).unwrap();
        assert_eq!(until, NOW.plus_ms(11_000));
        assert!(quota.exceeded_until(RATE, MonotonicMs(until.0 - 1)).is_some());
        assert_eq!(quota.exceeded_until(RATE, until), None);
        quota.record(10, until);
        assert_eq!(quota.samples.len(), 1);
    }

    #[test]
    fn windows_are_bounded_whenever_something_is_copied() {
        let mut quota = quota();
        for step in 0..100_000 {
            quota.record(1, NOW.plus_ms(step * 7));
        }
        assert!(quota.samples.len() <= 13, "{}", quota.samples.len());
    }

    #[test]
    fn nothing_is_copied_beside_the_first_at_a_rate_of_nought_and_all_without_one() {
        let mut quota = quota();
        assert_eq!(quota.exceeded_until(0, NOW), None);
        quota.record(u64::MAX, NOW);
        quota.record(u64::MAX, NOW);
        assert_eq!(quota.exceeded_until(0, NOW), Some(NOW.plus_ms(11_000)));
        assert_eq!(quota.exceeded_until(UNLIMITED, NOW), None);
    }
}
