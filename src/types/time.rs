//! Time as it is passed into the cores. They never read a clock.

/// Milliseconds since 1970, as Kafka writes them in records. `-1` means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// Kafka's `-1`: no timestamp.
    pub const NONE: TimestampMs = TimestampMs(-1);
}

impl std::fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds on a clock that never goes back; only differences mean anything. For timeouts and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// The instant `ms` milliseconds later.
    #[inline]
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> MonotonicMs {
        MonotonicMs(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this; 0 when it lies later.
    #[inline]
    pub const fn since_ms(self, earlier: MonotonicMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks, read once per event and passed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For timeouts.
    pub monotonic: MonotonicMs,
    /// For record timestamps and retention.
    pub wall: TimestampMs,
}
