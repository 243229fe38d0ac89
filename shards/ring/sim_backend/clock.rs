//! A host's clocks: both run at their own pace, the wall clock may be set.

use std::cell::Cell;

use ringlog_types::{MonotonicMs, TimestampMs};

/// The wall clock at the world's beginning.
const EPOCH_MS: i64 = 1_700_000_000_000;
const MILLION: u128 = 1_000_000;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Parts of a million of the world's time that pass here in one.
    rate: u128,
    monotonic_base_ns: u64,
    wall_offset_ms: Cell<i64>,
}

impl Clock {
    pub fn new(rate_ppm: i64, monotonic_base_ns: u64, wall_offset_ms: i64) -> Clock {
        let rate = (MILLION as i64 + rate_ppm.clamp(-500_000, 500_000)) as u128;
        Clock { rate, monotonic_base_ns, wall_offset_ms: Cell::new(wall_offset_ms) }
    }

    fn elapsed_ns(&self, world_ns: u64) -> u64 {
        (u128::from(world_ns) * self.rate / MILLION) as u64
    }

    pub fn monotonic_ns(&self, world_ns: u64) -> u64 {
        self.monotonic_base_ns + self.elapsed_ns(world_ns)
    }

    pub fn wall(&self, world_ns: u64) -> TimestampMs {
        TimestampMs(EPOCH_MS + self.wall_offset_ms.get() + (self.elapsed_ns(world_ns) / 1_000_000) as i64)
    }

    /// The first moment of the world at which the monotonic clock has reached `deadline`.
    pub fn moment_of(&self, deadline: MonotonicMs) -> u64 {
        let wanted_ns = deadline.0.saturating_mul(1_000_000).saturating_sub(self.monotonic_base_ns);
        let mut moment_ns = self.world_span(wanted_ns);
        while self.elapsed_ns(moment_ns) < wanted_ns && moment_ns < u64::MAX / 2 {
            moment_ns += 1;
        }
        moment_ns
    }

    /// How long the world takes for a span of this clock.
    pub fn world_span(&self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * MILLION / self.rate).unwrap_or(u64::MAX).min(u64::MAX / 2)
    }

    /// Somebody sets the wall clock, so far from the world's.
    pub fn set_wall_offset(&self, offset_ms: i64) {
        self.wall_offset_ms.set(offset_ms);
    }
}
