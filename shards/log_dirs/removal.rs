//! Files and directories that go after `file.delete.delay.ms`, so that whoever reads them still can; at once when the disk
//! is full.
//!
//! They go on a thread of its own, some at a time: unlinking a large file takes long, and nothing waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringlog_ring::fs::Fs;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::MonotonicMs;
use tracing::{info, warn};

use crate::shard::Shard;

/// Removed by one thread, before the next one is made.
const REMOVED_AT_A_TIME: usize = 64;
/// What can't be removed for now is tried again after this.
const AGAIN_MS: i64 = 1_000;

/// What goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    File(PathBuf),
    /// A partition's, with all in it.
    Directory(PathBuf),
}

/// One thing to remove, and the place of its log directory.
type Entry = (Target, usize);

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
    fn pop_due(&self, now: MonotonicMs, limit: usize, hurried: &dyn Fn(usize) -> bool) -> Vec<Entry> {
        let mut queue = self.queue.borrow_mut();
        let is_due = |(at, (_, place)): (&(MonotonicMs, u64), &Entry)| at.0 <= now || hurried(*place);
        let due: Vec<(MonotonicMs, u64)> =
            queue.iter().filter(|entry| is_due(*entry)).map(|(at, _)| *at).take(limit).collect();
        due.into_iter().filter_map(|at| queue.remove(&at)).collect()
    }
}

/// Removes what is due.
pub(super) async fn remove_due(shard: &Rc<Shard>) {
    let log_dirs = &shard.log_dirs;
    let is_full: Vec<bool> =
        (0..shard.node.log_dirs.directories.len()).map(|place| shard.store.space.is_full(place)).collect();
    while !log_dirs.background.is_closed() {
        let due = log_dirs.removals.pop_due(ring::now().monotonic, REMOVED_AT_A_TIME, &|place| is_full[place]);
        if due.is_empty() {
            return;
        }
        let removed = ring::fs::run_apart("remove", async move |fs| {
            let mut removed = Vec::with_capacity(due.len());
            for (target, place) in due {
                removed.push((remove(&fs, &target).await, target, place));
            }
            Ok(removed)
        });
        let removed = match removed.await {
            Ok(removed) => removed,
            // No thread could be made: the next start finds it.
            Err(error) => return warn!("deleted logs can't be removed: {error}"),
        };
        let mut is_short = false;
        for (outcome, target, place) in removed {
            match outcome {
                Ok(()) => {}
                Err(error) if ring::trouble(&error) == Trouble::Fault => {
                    log_dirs.fail(shard, place, &format!("a deleted file can't be removed: {error}")).await;
                }
                Err(error) => {
                    log_dirs.tell_passing(shard, place, "a deleted file can't be removed", &error);
                    log_dirs.removals.later(target, place, AGAIN_MS);
                    is_short = true;
                }
            }
        }
        if is_short {
            return;
        }
    }
}

/// Removes it; none there is fine.
async fn remove(fs: &Fs, target: &Target) -> io::Result<()> {
    match target {
        Target::File(path) => fs.remove_file_if_there(path).await.map(drop),
        Target::Directory(path) => {
            info!(directory = %path.display(), "removing a deleted log");
            fs.remove_dir_all(path).await
        }
    }
}
