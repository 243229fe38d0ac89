//! A directory whose disk fails goes offline, with all its replicas, until the next start. Others serve on.

use std::io;
use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::Uuid;
use tracing::{debug, error, warn};

use super::room::LogDirs;
use crate::core::Room as _;

/// How often to tell of trouble that passes.
const PASSING_EVERY_MS: u64 = 60_000;

impl LogDirs {
    /// Whether the directory at `place` can't be used any more.
    pub fn has_failed(&self, place: usize) -> bool {
        self.failed.borrow().contains(&place)
    }

    /// Ids of the directories that failed since the start, for heartbeats. Those that were offline from the start were
    /// never registered.
    pub fn failed_ids(&self) -> Vec<Uuid> {
        self.failed.borrow().iter().map(|place| self.core.node.log_dirs.directories[*place].id).collect()
    }

    /// Whether the node has to stop: no directory is left for partitions, or the metadata log's failed.
    pub fn must_halt(&self) -> bool {
        self.must_halt_without(None)
    }

    /// Whether it would have to, were the directory at `place` to fail.
    pub(super) fn is_last(&self, place: usize) -> bool {
        self.must_halt_without(Some(place))
    }

    fn must_halt_without(&self, place: Option<usize>) -> bool {
        let checked = &self.core.node.log_dirs;
        let is_gone = |one: usize| self.has_failed(one) || Some(one) == place;
        let is_left = |one: usize| checked.directories[one].is_usable() && !is_gone(one);
        is_gone(checked.metadata_directory)
            || (self.core.node.config.roles.broker && !(0..checked.directories.len()).any(is_left))
    }

    /// The directory at `place` failed: on every shard its replicas go offline, and nothing more is written there.
    pub async fn fail(self: &Rc<Self>, place: usize, reason: &str) {
        if self.has_failed(place) {
            return;
        }
        let path = self.core.node.log_dirs.directories[place].path.display();
        error!(directory = %path, "log directory goes offline until the next start: {reason}");
        self.take_offline(place);
        for core in (0..self.core.node.shards).filter(|core| *core != self.core.index) {
            self.tell(core, move |dirs| dirs.take_offline(place)).await;
        }
    }

    /// [`LogDirs::fail`] for an I/O error, if it is one. Trouble that passes is only told of.
    pub(super) async fn fail_if_err<T>(self: &Rc<Self>, place: usize, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) if ring::trouble(&fault) == Trouble::Fault => {
                self.fail(place, &format!("{what}: {fault}")).await;
                None
            }
            Err(passing) => {
                self.tell_passing(place, what, &passing);
                None
            }
        }
    }

    /// Says, now and then, what can't be done for the time being.
    pub(super) fn tell_passing(&self, place: usize, what: &str, error: &io::Error) {
        let directory = self.core.node.log_dirs.directories[place].path.display();
        match self.passing.may_say(ring::now().monotonic, PASSING_EVERY_MS) {
            Some(kept_back) => warn!(%directory, kept_back, "{what} for now: {error}"),
            None => debug!(%directory, "{what} for now: {error}"),
        }
    }

    fn take_offline(self: &Rc<Self>, place: usize) {
        if self.has_failed(place) {
            return;
        }
        self.failed.borrow_mut().push(place);
        for unclaimed in [&self.unclaimed, &self.unclaimed_futures] {
            unclaimed.borrow_mut().retain(|_, log| log.directory != place);
        }
        self.moves.on_failed(place);
        for replica in self.replicas.all().iter().filter(|replica| replica.log_dir() == place) {
            replica.close(Unserved::LogDirectoryFailed);
            self.replicas.closed(replica);
        }
        self.failures_changed.notify_all();
    }
}

/// Takes directories offline as faults are reported; runs on every shard until its background ends.
pub(super) async fn watch_faults(dirs: Rc<LogDirs>) {
    loop {
        take_faults(&dirs).await;
        futures_lite::future::or(dirs.store.faults.reported(), dirs.background.closing()).await;
        if dirs.background.is_closed() {
            return;
        }
    }
}

/// Sees to what was reported so far.
pub(super) async fn take_faults(dirs: &Rc<LogDirs>) {
    for (place, what) in dirs.store.faults.take() {
        dirs.fail(place, &what).await;
    }
}
