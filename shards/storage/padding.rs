//! What lies behind the last record of a file that is being written: zeros up to a block's end, and the space that a busy
//! log has ahead of its writes. Kafka's tools stop at it, so it goes when a log isn't written any more.
//!
//! One list per core of the logs that wrote since their padding went; a log is in it once, however often it writes. A sweep
//! looks at those that were noted [`IDLE_MS`] ago. Bounds: the list holds what this core has written to; a sweep cuts
//! [`LOGS_PER_SWEEP`] logs and comes once in [`SWEEP_EVERY_MS`], so that many logs that fall silent together don't keep the
//! disk busy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use ringlog_ring as ring;
use ringlog_types::MonotonicMs;

use crate::mesh::LocalFuture;

/// A log that wasn't written for so long is idle.
pub const IDLE_MS: u64 = 3_000;
/// Logs that one sweep cuts.
const LOGS_PER_SWEEP: usize = 128;
const SWEEP_EVERY_MS: u64 = 500;

/// When a log was written last, and whether it is listed.
#[derive(Debug)]
pub struct LastWrite {
    at: Cell<MonotonicMs>,
    is_listed: Cell<bool>,
}

impl Default for LastWrite {
    fn default() -> LastWrite {
        LastWrite { at: Cell::new(MonotonicMs(0)), is_listed: Cell::new(false) }
    }
}

/// A log that is written, and may have padding.
pub trait Padded {
    /// When it was written.
    fn last_write(&self) -> &LastWrite;

    /// Cuts what lies behind its last record, unless it is being written. Sees to what goes wrong.
    fn cut(self: Rc<Self>) -> LocalFuture<()>;
}

/// The logs of one core that may have padding.
#[derive(Default)]
pub struct Padding {
    /// With the time of the write that is known; there may have been later ones.
    listed: RefCell<VecDeque<(MonotonicMs, Weak<dyn Padded>)>>,
    swept: Cell<Option<MonotonicMs>>,
    /// There is something to wait for.
    pub begun: ring::Notify,
}

impl Padding {
    /// The log was written.
    pub fn on_written<T: Padded + 'static>(&self, log: &Rc<T>, now: MonotonicMs) {
        log.last_write().at.set(now);
        if log.last_write().is_listed.replace(true) {
            return;
        }
        let mut listed = self.listed.borrow_mut();
        let log: Weak<T> = Rc::downgrade(log);
        listed.push_back((now, log));
        if listed.len() == 1 {
            self.begun.notify_all();
        }
    }

    /// When the next sweep is due, if one is.
    pub fn next_sweep(&self) -> Option<MonotonicMs> {
        let idle = self.listed.borrow().front()?.0.plus_ms(IDLE_MS);
        Some(self.swept.get().map_or(idle, |swept| swept.plus_ms(SWEEP_EVERY_MS).max(idle)))
    }

    /// The logs that are idle by now. They are listed again when they are written again.
    pub fn sweep(&self, now: MonotonicMs) -> Vec<Rc<dyn Padded>> {
        let mut idle = Vec::new();
        if self.next_sweep().is_none_or(|due| now < due) {
            return idle;
        }
        self.swept.set(Some(now));
        let mut listed = self.listed.borrow_mut();
        while idle.len() < LOGS_PER_SWEEP
            && let Some((_, log)) = listed.pop_front_if(|(noted, _)| noted.plus_ms(IDLE_MS) <= now)
        {
            let Some(log) = log.upgrade() else { continue };
            let written = log.last_write().at.get();
            if written.plus_ms(IDLE_MS) <= now {
                log.last_write().is_listed.set(false);
                idle.push(log);
            } else {
                listed.push_back((written, Rc::downgrade(&log)));
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct TestLog(LastWrite);

    impl Padded for TestLog {
        fn last_write(&self) -> &LastWrite {
            &self.0
        }

        fn cut(self: Rc<Self>) -> LocalFuture<()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn at(ms: u64) -> MonotonicMs {
        MonotonicMs(ms)
    }

    #[test]
    fn a_log_is_cut_once_when_it_falls_silent() {
        let padding = Padding::default();
        let log = Rc::new(TestLog::default());
        assert_eq!(padding.next_sweep(), None);
        for ms in [1_000, 1_500, 3_000] {
            padding.on_written(&log, at(ms));
        }
        assert_eq!(padding.next_sweep(), Some(at(1_000 + IDLE_MS)));
        assert!(padding.sweep(at(999 + IDLE_MS)).is_empty());
        assert!(padding.sweep(at(1_000 + IDLE_MS)).is_empty(), "it was written since");
        assert_eq!(padding.next_sweep(), Some(at(3_000 + IDLE_MS)));
        assert_eq!(padding.sweep(at(3_000 + IDLE_MS)).len(), 1);
        assert_eq!(padding.next_sweep(), None);
        padding.on_written(&log, at(20_000));
        assert_eq!(padding.sweep(at(20_000 + IDLE_MS)).len(), 1, "again when it was written again");
    }

    #[test]
    fn many_logs_go_in_turns_and_those_that_are_gone_are_forgotten() {
        let padding = Padding::default();
        let logs: Vec<Rc<TestLog>> = (0..LOGS_PER_SWEEP + 10).map(|_| Rc::default()).collect();
        for log in &logs {
            padding.on_written(log, at(1));
        }
        padding.on_written(&Rc::<TestLog>::default(), at(1));
        let first = at(1 + IDLE_MS);
        assert_eq!(padding.sweep(first).len(), LOGS_PER_SWEEP);
        assert!(padding.sweep(first).is_empty(), "not at once");
        assert_eq!(padding.next_sweep(), Some(first.plus_ms(SWEEP_EVERY_MS)));
        assert_eq!(padding.sweep(first.plus_ms(SWEEP_EVERY_MS)).len(), 10);
        assert_eq!(padding.next_sweep(), None);
    }
}
