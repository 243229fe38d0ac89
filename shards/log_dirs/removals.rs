//! Files and directories that wait to be removed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;

use ringlog_ring as ring;
use ringlog_types::MonotonicMs;

/// What goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    File(PathBuf),
    /// A partition's, with all in it.
    Directory(PathBuf),
}

/// One thing to remove, and the place of its log directory.
pub(super) type Entry = (Target, usize);

/// What one shard has to remove, by time. Bounded by what is on disk; a stop forgets it, the next start finds it again by
/// the names.
#[derive(Default)]
pub(super) struct Removals {
    queue: RefCell<BTreeMap<(MonotonicMs, u64), Entry>>,
    number: Cell<u64>,
    /// The earliest deadline moved.
    pub changed: ring::Notify,
}

impl Removals {
    /// Removes `target`, which lies in the log directory at `place`, in `delay_ms`.
    pub fn later(&self, target: Target, place: usize, delay_ms: i64) {
        let deadline = ring::now().monotonic.plus_ms(u64::try_from(delay_ms).unwrap_or(0));
        let number = self.number.get();
        self.number.set(number + 1);
        let mut queue = self.queue.borrow_mut();
        let is_first = queue.first_key_value().is_none_or(|((first, _), _)| deadline < *first);
        queue.insert((deadline, number), (target, place));
        if is_first {
            self.changed.notify_all();
        }
    }

    /// When something goes next.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.queue.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Up to `limit` things that go now: those whose time has come, and those in directories that are `hurried`.
    pub fn pop_due(&self, now: MonotonicMs, limit: usize, hurried: &dyn Fn(usize) -> bool) -> Vec<Entry> {
        let mut queue = self.queue.borrow_mut();
        let is_due = |(at, (_, place)): (&(MonotonicMs, u64), &Entry)| at.0 <= now || hurried(*place);
        let due: Vec<(MonotonicMs, u64)> =
            queue.iter().filter(|entry| is_due(*entry)).map(|(at, _)| *at).take(limit).collect();
        due.into_iter().filter_map(|at| queue.remove(&at)).collect()
    }
}
