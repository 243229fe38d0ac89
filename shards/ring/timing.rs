//! The clocks and what waits on them.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use ringlog_types::{MonotonicMs, Now};

use crate::backend::timer::{sleep_ms, sleep_until, wall_clock};
use crate::local::{Notify, either};

/// Both clocks. The monotonic one is the same on every core.
pub fn now() -> Now {
    Now { monotonic: MonotonicMs(monotonic_ns() / 1_000_000), wall: wall_clock() }
}

/// Nanoseconds of the monotonic clock, to see how long something short takes.
pub fn monotonic_ns() -> u64 {
    crate::backend::timer::monotonic_ns()
}

/// It took longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// The future's value, or [`Elapsed`] after `ms` milliseconds, when the future is dropped.
pub async fn timeout_ms<T>(ms: u64, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    either(async { Ok(future.await) }, async {
        sleep_ms(ms).await;
        Err(Elapsed)
    })
    .await
}

/// A deadline that one task waits for and others move. Clones share it.
///
/// Moving it later costs nothing; moving it earlier wakes the waiting task once.
#[derive(Clone, Default)]
pub struct Alarm(Rc<AlarmShared>);

#[derive(Default)]
struct AlarmShared {
    deadline: Cell<Option<MonotonicMs>>,
    /// The instant that the waiting task sleeps until.
    sleeping_until: Cell<Option<MonotonicMs>>,
    moved: Notify,
}

impl Alarm {
    /// One that isn't set.
    pub fn new() -> Alarm {
        Alarm::default()
    }

    /// Sets the deadline, or takes it away.
    pub fn set(&self, deadline: Option<MonotonicMs>) {
        self.0.deadline.set(deadline);
        let Some(deadline) = deadline else { return };
        if self.0.sleeping_until.get().is_none_or(|until| deadline < until) {
            self.0.moved.notify_all();
        }
    }

    /// Sets the deadline if none is set or the set one lies later.
    pub fn set_earlier(&self, deadline: MonotonicMs) {
        if self.0.deadline.get().is_none_or(|current| deadline < current) {
            self.set(Some(deadline));
        }
    }

    /// The deadline set now.
    pub fn deadline(&self) -> Option<MonotonicMs> {
        self.0.deadline.get()
    }

    /// Waits until the deadline, whatever it is moved to meanwhile, and takes it away. For one task at a time.
    pub async fn wait(&self) {
        loop {
            let deadline = self.0.deadline.get();
            self.0.sleeping_until.set(deadline);
            match deadline {
                None => self.0.moved.wait().await,
                Some(deadline) if now().monotonic >= deadline => {
                    self.0.deadline.set(None);
                    self.0.sleeping_until.set(None);
                    return;
                }
                Some(deadline) => either(sleep_until(deadline), self.0.moved.wait()).await,
            }
        }
    }
}
