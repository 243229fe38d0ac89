//! Files and directories that go after `file.delete.delay.ms`, so that whoever reads them still can.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringlog_ring as ring;
use ringlog_types::MonotonicMs;
use tracing::info;

use crate::shard::Shard;

/// What goes.
#[derive(Debug)]
pub(super) enum Target {
    File(PathBuf),
    /// A partition's, with all in it.
    Directory(PathBuf),
}

/// What one shard has to remove, by time. Bounded by what is on disk; a stop forgets it, the next start finds it again by
/// the names.
#[derive(Default)]
pub(super) struct Removals {
    queue: RefCell<BTreeMap<(MonotonicMs, u64), (Target, usize)>>,
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

    fn pop_due(&self, now: MonotonicMs) -> Option<(Target, usize)> {
        let mut queue = self.queue.borrow_mut();
        let entry = queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

/// Removes what is due.
pub(super) async fn remove_due(shard: &Rc<Shard>) {
    let log_dirs = &shard.log_dirs;
    while let Some((target, place)) = log_dirs.removals.pop_due(ring::now().monotonic) {
        if log_dirs.has_failed(place) {
            continue;
        }
        let removed: io::Result<()> = match target {
            Target::File(path) => ring::fs::remove_file(path).await,
            Target::Directory(path) => {
                info!(directory = %path.display(), "removing a deleted log");
                ring::fs::remove_dir_all(path).await
            }
        };
        log_dirs.fail_if_err(shard, place, "a deleted file can't be removed", removed).await;
    }
}
