//! A directory whose disk fails goes offline, with all its replicas, until the next start. Others serve on.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::Uuid;
use tracing::{debug, error, warn};

use super::LogDirs;
use super::background::replicas;
use crate::coordinator;
use crate::shard::Shard;

/// How often to tell of trouble that passes.
const PASSING_EVERY_MS: u64 = 60_000;

/// I/O errors of one shard that nobody has looked at yet.
#[derive(Default)]
pub struct DiskFaults {
    /// Place of the directory and what happened. Bounded: a directory is noted once.
    pending: RefCell<Vec<(usize, String)>>,
    arrived: ring::Notify,
}

impl DiskFaults {
    /// Something failed in the directory at `place`.
    pub fn report(&self, place: usize, what: String) {
        let mut pending = self.pending.borrow_mut();
        if !pending.iter().any(|(noted, _)| *noted == place) {
            pending.push((place, what));
            self.arrived.notify_all();
        }
    }
}

impl LogDirs {
    /// Whether the directory at `place` can't be used any more.
    pub fn has_failed(&self, place: usize) -> bool {
        self.failed.borrow().contains(&place)
    }

    /// Ids of the directories that failed since the start, for heartbeats. Those that were offline from the start were
    /// never registered.
    pub fn failed_ids(&self, shard: &Shard) -> Vec<Uuid> {
        self.failed.borrow().iter().map(|place| shard.node.log_dirs.directories[*place].id).collect()
    }

    /// Whether the node has to stop: no directory is left for partitions, or the metadata log's failed.
    pub fn must_halt(&self, shard: &Shard) -> bool {
        self.must_halt_without(shard, None)
    }

    /// Whether it would have to, were the directory at `place` to fail.
    pub(super) fn is_last(&self, shard: &Shard, place: usize) -> bool {
        self.must_halt_without(shard, Some(place))
    }

    fn must_halt_without(&self, shard: &Shard, place: Option<usize>) -> bool {
        let checked = &shard.node.log_dirs;
        let is_gone = |one: usize| self.has_failed(one) || Some(one) == place;
        let is_left = |one: usize| checked.directories[one].is_usable() && !is_gone(one);
        is_gone(checked.metadata_directory)
            || (shard.node.config.roles.broker && !(0..checked.directories.len()).any(is_left))
    }

    /// The directory at `place` failed: on every shard its replicas go offline, and nothing more is written there.
    pub async fn fail(&self, shard: &Rc<Shard>, place: usize, reason: &str) {
        if self.has_failed(place) {
            return;
        }
        let path = shard.node.log_dirs.directories[place].path.display();
        error!(directory = %path, "log directory goes offline until the next start: {reason}");
        self.take_offline(shard, place);
        for core in (0..shard.node.shards).filter(|core| *core != shard.index) {
            shard
                .invoke_on(core, move |shard| {
                    shard.log_dirs.take_offline(shard, place);
                    Box::pin(std::future::ready(()))
                })
                .await;
        }
    }

    /// [`LogDirs::fail`] for an I/O error, if it is one. Trouble that passes is only told of.
    pub(super) async fn fail_if_err<T>(
        &self,
        shard: &Rc<Shard>,
        place: usize,
        what: &str,
        result: io::Result<T>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) if ring::trouble(&fault) == Trouble::Fault => {
                self.fail(shard, place, &format!("{what}: {fault}")).await;
                None
            }
            Err(passing) => {
                self.tell_passing(shard, place, what, &passing);
                None
            }
        }
    }

    /// Says, now and then, what can't be done for the time being.
    pub(super) fn tell_passing(&self, shard: &Shard, place: usize, what: &str, error: &io::Error) {
        let directory = shard.node.log_dirs.directories[place].path.display();
        match self.passing.may_say(ring::now().monotonic, PASSING_EVERY_MS) {
            Some(kept_back) => warn!(%directory, kept_back, "{what} for now: {error}"),
            None => debug!(%directory, "{what} for now: {error}"),
        }
    }

    fn take_offline(&self, shard: &Rc<Shard>, place: usize) {
        if self.has_failed(place) {
            return;
        }
        self.failed.borrow_mut().push(place);
        self.unclaimed.borrow_mut().retain(|_, log| log.directory != place);
        for replica in replicas(shard).iter().filter(|replica| replica.log_dir() == place) {
            replica.close(Unserved::LogDirectoryFailed);
            coordinator::on_closed(shard, replica);
        }
        self.failures_changed.notify_all();
    }
}

/// Takes directories offline as faults are reported; runs on every shard until its background ends.
pub(super) async fn watch_faults(shard: Rc<Shard>) {
    loop {
        take_faults(&shard).await;
        let faults = &shard.store.faults;
        futures_lite::future::or(faults.arrived.wait(), shard.log_dirs.background.closing()).await;
        if shard.log_dirs.background.is_closed() {
            return;
        }
    }
}

/// Sees to what was reported so far.
pub(super) async fn take_faults(shard: &Rc<Shard>) {
    let pending = shard.store.faults.pending.take();
    for (place, what) in pending {
        shard.log_dirs.fail(shard, place, &what).await;
    }
}
