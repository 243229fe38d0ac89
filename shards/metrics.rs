//! What one core counts. Plain cells: only their own core touches them.

use std::cell::Cell;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `amount`.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.set(self.0.get().wrapping_add(amount));
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The counters of one shard.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Requests received.
    pub requests: Counter,
    /// Bytes of record batches appended.
    pub appended_bytes: Counter,
    /// Bytes of responses sent.
    pub response_bytes: Counter,
}

/// What a core still holds once everything on it has come to an end: nothing, unless connections were cut off. Simulations
/// see to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers {
    /// The core.
    pub core: usize,
    /// Connections that were cut off.
    pub connections: usize,
    /// Memory of requests.
    pub request_bytes: usize,
    /// Memory of answers.
    pub response_bytes: usize,
    /// Clients' connections that are counted against the limits.
    pub admitted: usize,
}
