//! How long a peer may take: for a request to arrive, for an answer to be taken.

use ringlog_types::MonotonicMs;

/// 64 KB/s: slower than that, a large request or answer outlasts the clients' own time-outs.
pub const SLOWEST_BYTES_PER_MS: u64 = 64;

/// A peer's time for one request or answer.
///
/// It must move on within `pause_ms`, and on the whole be no slower than [`SLOWEST_BYTES_PER_MS`] after a first
/// `pause_ms`: else it could make the node hold memory for as long as it likes, at a byte now and then.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pause_ms: u64,
    begun: MonotonicMs,
}

impl Pace {
    /// Of something that begins now.
    pub fn begin(now: MonotonicMs, pause_ms: u64) -> Pace {
        Pace { pause_ms, begun: now }
    }

    /// How long the next bytes may take when `bytes` have gone so far; none when the time is over.
    pub fn next_ms(&self, now: MonotonicMs, bytes: u64) -> Option<u64> {
        let allowed_ms = self.pause_ms + bytes / SLOWEST_BYTES_PER_MS;
        let left_ms = allowed_ms.checked_sub(now.since_ms(self.begun)).filter(|left_ms| *left_ms > 0)?;
        Some(left_ms.min(self.pause_ms))
    }

    /// From `since` on it was the node that let the peer wait.
    pub fn forgive(&mut self, since: MonotonicMs, now: MonotonicMs) {
        self.begun = self.begun.plus_ms(now.since_ms(since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_moves_on_has_its_pause_again_and_one_that_trickles_does_not() {
        let start = MonotonicMs(500);
        let pace = Pace::begin(start, 30_000);
        assert_eq!(pace.next_ms(start, 0), Some(30_000));
        assert_eq!(pace.next_ms(start.plus_ms(29_999), 0), Some(1));
        assert_eq!(pace.next_ms(start.plus_ms(30_000), 0), None);
        // 64 KB in the first second are worth a second.
        assert_eq!(pace.next_ms(start.plus_ms(1_000), 64_000), Some(30_000));
        assert_eq!(pace.next_ms(start.plus_ms(30_000), 64_000), Some(1_000));
        // A byte every 29 s.
        assert_eq!(pace.next_ms(start.plus_ms(58_000), 2), None);
    }

    #[test]
    fn a_wait_for_the_node_is_not_the_peers() {
        let start = MonotonicMs(0);
        let mut pace = Pace::begin(start, 1_000);
        pace.forgive(start.plus_ms(100), start.plus_ms(60_100));
        assert_eq!(pace.next_ms(start.plus_ms(60_200), 0), Some(800));
    }
}
