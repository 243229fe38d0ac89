//! Sleeping, and the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringlog_types::{MonotonicMs, TimestampMs};

/// The wall clock.
pub(crate) fn wall_clock() -> TimestampMs {
    TimestampMs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64))
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waits at least `ms` milliseconds.
pub async fn sleep_ms(ms: u64) {
    glommio::timer::sleep(Duration::from_millis(ms)).await;
}

/// Waits until the monotonic clock has reached `deadline`.
pub async fn sleep_until(deadline: MonotonicMs) {
    let deadline_ns = deadline.0.saturating_mul(1_000_000);
    // The kernel's timer may be a trifle early against this clock.
    while let Some(left @ 1..) = deadline_ns.checked_sub(monotonic_ns()) {
        glommio::timer::sleep(Duration::from_nanos(left)).await;
    }
}
