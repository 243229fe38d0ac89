//! What lasts is said once, then rarely, and once more when it is over.

use std::cell::Cell;

use ringlog_types::MonotonicMs;

/// The wait before something is said again is as long as it has lasted, but within these bounds.
const AGAIN_MIN_MS: u64 = 60_000;
/// See [`AGAIN_MIN_MS`].
const AGAIN_MAX_MS: u64 = 30 * 60_000;

/// A state of affairs that may last, and when it was last worth a line in the log.
#[derive(Debug, Default)]
pub struct Lasting {
    patience_ms: u64,
    since: Cell<Option<MonotonicMs>>,
    told_at: Cell<Option<MonotonicMs>>,
}

impl Lasting {
    /// Of something that is only worth a line when it has lasted for `patience_ms`.
    pub fn after(patience_ms: u64) -> Lasting {
        Lasting { patience_ms, ..Lasting::default() }
    }

    /// It is so, at `now`. Returns for how long it has been, in milliseconds, if that is to be said now.
    #[must_use]
    pub fn holds(&self, now: MonotonicMs) -> Option<u64> {
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let lasted_ms = now.since_ms(since);
        let is_due = match self.told_at.get() {
            None => lasted_ms >= self.patience_ms,
            Some(told_at) => {
                let wait_ms = told_at.since_ms(since).clamp(AGAIN_MIN_MS, AGAIN_MAX_MS);
                now.since_ms(told_at) >= wait_ms
            }
        };
        if is_due {
            self.told_at.set(Some(now));
        }
        is_due.then_some(lasted_ms)
    }

    /// It isn't so, at `now`. Returns for how long it had been, in milliseconds, if that was said and this ends it.
    pub fn over(&self, now: MonotonicMs) -> Option<u64> {
        let since = self.since.take()?;
        self.told_at.take().map(|_| now.since_ms(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lasting: &Lasting, seconds: impl Iterator<Item = u64>) -> Vec<u64> {
        seconds.filter(|second| lasting.holds(MonotonicMs(second * 1000)).is_some()).collect()
    }

    #[test]
    fn what_lasts_is_said_once_then_rarely_then_when_it_is_over() {
        let lasting = Lasting::after(5_000);
        assert_eq!(told(&lasting, 100..7300), [105, 165, 230, 360, 620, 1140, 2180, 3980, 5780]);
        assert_eq!(lasting.over(MonotonicMs(7_300_000)), Some(7_200_000));
        assert_eq!(lasting.over(MonotonicMs(7_300_000)), None);
        assert_eq!(told(&lasting, 8000..8010), [8005], "from the beginning");
    }

    #[test]
    fn what_is_over_before_it_was_said_is_never_spoken_of() {
        let lasting = Lasting::after(5_000);
        assert_eq!(told(&lasting, 100..104), [0; 0]);
        assert_eq!(lasting.over(MonotonicMs(104_000)), None);
        assert_eq!(told(&lasting, 105..112), [110], "from the beginning");
        let at_once = Lasting::default();
        assert_eq!(told(&at_once, 7..9), [7]);
    }
}
