//! Waits between attempts that fail one after the other.

use crate::Random;

/// Doubles from attempt to attempt, up to a limit, and is spread by a fifth to either side, so that those who failed
/// together don't try together again. Kafka's `ExponentialBackoff`, as its clients use it for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExponentialBackoff {
    /// After the first failure.
    pub initial_ms: u64,
    /// At most.
    pub max_ms: u64,
}

/// The spread is one part in so many, to either side.
const SPREAD: u64 = 5;
/// Doublings after which any limit is reached.
const MAX_DOUBLINGS: u32 = 32;

impl ExponentialBackoff {
    /// Between connections of nodes to controllers, as in Kafka 4.3.1: some two attempts a second to a peer that isn't
    /// there.
    pub const RECONNECT: ExponentialBackoff = ExponentialBackoff { initial_ms: 50, max_ms: 500 };

    /// How long to wait after `failures` in a row.
    pub fn wait_ms(self, failures: u32, random: &mut Random) -> u64 {
        let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
        let wait_ms = self.initial_ms.saturating_mul(1 << doublings).min(self.max_ms);
        let spread_ms = wait_ms / SPREAD;
        wait_ms - spread_ms + random.below(2 * spread_ms + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_are_spread() {
        let mut random = Random::from_seed(3);
        let backoff = ExponentialBackoff::RECONNECT;
        for (failures, middle) in [(1, 50), (2, 100), (3, 200), (4, 400), (5, 500), (6, 500), (u32::MAX, 500)] {
            let waits: Vec<u64> = (0..1000).map(|_| backoff.wait_ms(failures, &mut random)).collect();
            let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
            assert!(least >= middle * 4 / 5 && most <= middle * 6 / 5, "{failures}: {least} to {most}");
            assert!(most - least > middle / 4, "{failures}: {least} to {most}");
        }
        let none = ExponentialBackoff { initial_ms: 0, max_ms: 0 };
        assert_eq!(none.wait_ms(3, &mut random), 0);
    }
}
