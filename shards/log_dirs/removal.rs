//! Files and directories that go after `file.delete.delay.ms`, so that whoever reads them still can; at once when the disk
//! is full.
//!
//! They go on a thread of its own, some at a time: unlinking a large file takes long, and nothing waits for it.

use std::io;
use std::rc::Rc;

use ringlog_ring::fs::Fs;
use ringlog_ring::{self as ring, Trouble};
use tracing::{info, warn};

use super::removals::Target;
use super::room::LogDirs;

/// Removed by one thread, before the next one is made.
const REMOVED_AT_A_TIME: usize = 64;
/// What can't be removed for now is tried again after this.
const AGAIN_MS: i64 = 1_000;

/// Removes what is due.
pub(super) async fn remove_due(dirs: &Rc<LogDirs>) {
    let log_dirs = &dirs;
    let is_full: Vec<bool> =
        (0..dirs.core.node.log_dirs.directories.len()).map(|place| dirs.store.space.is_full(place)).collect();
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
                    log_dirs.fail(place, &format!("a deleted file can't be removed: {error}")).await;
                }
                Err(error) => {
                    log_dirs.tell_passing(place, "a deleted file can't be removed", &error);
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
