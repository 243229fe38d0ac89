//! When to say in the log how far a long read of the metadata log is, so that an operator sees a start that goes on.

use ringlog_ring as ring;
use ringlog_types::MonotonicMs;

/// A line at most so often; what takes less says nothing.
const INTERVAL_MS: u64 = 1_000;

/// The time of the last line.
#[derive(Debug)]
pub struct Progress(MonotonicMs);

impl Progress {
    /// The work begins.
    pub fn begin() -> Progress {
        Progress(ring::now().monotonic)
    }

    /// Whether a line is due; it is taken to be written then.
    pub fn is_due(&mut self) -> bool {
        let now = ring::now().monotonic;
        let is_due = now.since_ms(self.0) >= INTERVAL_MS;
        if is_due {
            self.0 = now;
        }
        is_due
    }
}
