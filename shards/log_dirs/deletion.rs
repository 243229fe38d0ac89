//! What the metadata takes from this node: logs are deleted, and those that it doesn't know set aside.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_log::names::{DirectoryKind, PartitionDirectory};
use ringlog_partition::Unserved;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{TopicIdPartition, TopicPartition};
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use super::checkpoint_rounds::Kinds;
use super::checkpoints;
use super::names::{self, NAMES_AT_A_TIME, OldName};
use super::removals::Target;
use super::room::{LogDirs, OpenLog};
use crate::data::replica::Replica;

impl LogDirs {
    /// Deletes logs: nothing of them is served any more, which clients are told by `why`; their directories are renamed
    /// and go after `file.delete.delay.ms`. When this ends, new logs may take their names. Give it all that go at a
    /// time: the checkpoints are written once. Once the logs are about to be closed, nothing is: the next start does it.
    pub async fn delete(self: &Rc<Self>, replicas: Vec<Rc<Replica>>, why: Unserved) {
        if let Ok(_until_done) = self.changes.enter() {
            self.delete_now(replicas, why).await;
        }
    }

    /// As [`LogDirs::delete`], for who is inside of [`LogDirs::changes`] already.
    pub(super) async fn delete_now(self: &Rc<Self>, replicas: Vec<Rc<Replica>>, why: Unserved) {
        let mut turns = ring::Turns::begin();
        for replica in &replicas {
            replica.close(why);
            turns.step().await;
        }
        let mut replicas = replicas;
        for place in 0..replicas.len() {
            // A copy in another directory goes, too.
            let is_in_use = self.replicas.get(replicas[place].id).is_some_and(|it| Rc::ptr_eq(&it, &replicas[place]));
            if is_in_use && let Some(future) = self.end_move(replicas[place].id).await {
                future.close(why);
                replicas.push(future);
            }
        }
        let mut removals = Vec::new();
        for some in replicas.chunks(NAMES_AT_A_TIME) {
            let (lost, there): (Vec<Rc<Replica>>, Vec<Rc<Replica>>) =
                some.iter().cloned().partition(|replica| self.has_failed(replica.log_dir()));
            remove_from_failed(self, lost);
            if !there.is_empty() {
                self.rename_deleted(&there, &mut removals).await;
            }
            for replica in some {
                self.forget(replica);
            }
        }
        if !replicas.is_empty() {
            checkpoints::write_from(self, Kinds::ALL).await;
        }
        for (target, place, delay_ms) in removals {
            self.removals.later(target, place, delay_ms);
        }
    }

    /// Gives the directories names that say that they go; adds what is to be removed.
    pub(super) async fn rename_deleted(
        self: &Rc<Self>,
        some: &[Rc<Replica>],
        removals: &mut Vec<(Target, usize, i64)>,
    ) {
        let mut old = Vec::with_capacity(some.len());
        for replica in some {
            replica.give_up_files().await;
            let path = replica.directory();
            let renamed = names::suffixed(self, &path, &replica.name, DirectoryKind::Delete);
            old.push(OldName { path, renamed, id: replica.id });
        }
        let outcomes = names::rename(self, old.clone()).await;
        let mut outcomes = outcomes.map(Vec::into_iter);
        let mut deleted = Vec::new();
        for (replica, name) in some.iter().zip(old) {
            let outcome = match &mut outcomes {
                Ok(outcomes) => outcomes.next().unwrap_or(Ok(false)),
                Err(error) => Err(names::again(error)),
            };
            let place = replica.log_dir();
            match outcome {
                Ok(true) => {
                    let delay_ms = replica.config().file_delete_delay_ms;
                    replica.set_directory(name.renamed.clone());
                    removals.push((Target::Directory(name.renamed), place, delay_ms));
                    deleted.push((replica.name.clone(), place));
                }
                // Another log lies there by now.
                Ok(false) => {}
                Err(error) => {
                    let directory = name.path.display();
                    warn!(%directory, "a deleted log keeps its files: {error}; the next start sets it aside as a stray");
                    if !self.has_failed(place) && ring::trouble(&error) == Trouble::Fault {
                        self.fail(place, &format!("a log can't be deleted: {error}")).await;
                    }
                }
            }
        }
        tell_deleted(self, deleted);
    }

    fn forget(&self, replica: &Rc<Replica>) {
        if self.replicas.remove(replica) {
            self.count(replica.log_dir(), -1);
        }
    }

    /// Sets logs aside that the metadata doesn't give to this node: `known` tells those that it does. To be called once
    /// the node has caught up with the metadata, before anything is created.
    pub async fn mark_strays(self: &Rc<Self>, known: &dyn Fn(TopicIdPartition) -> bool) {
        self.opened.wait_until_set().await;
        let Ok(_until_done) = self.changes.enter() else { return };
        let strays: Vec<(TopicIdPartition, OpenLog)> = {
            let take = |unclaimed: &RefCell<FxHashMap<TopicIdPartition, OpenLog>>| {
                let mut unclaimed = unclaimed.borrow_mut();
                let ids: Vec<TopicIdPartition> = unclaimed.keys().copied().filter(|id| !known(*id)).collect();
                let strays = ids.into_iter().filter_map(|id| unclaimed.remove(&id).map(|log| (id, log)));
                strays.collect::<Vec<_>>()
            };
            [&self.unclaimed, &self.unclaimed_futures].into_iter().flat_map(take).collect()
        };
        for some in strays.chunks(NAMES_AT_A_TIME) {
            self.set_aside(some).await;
        }
        for path in self.nameless.take() {
            let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(found) = PartitionDirectory::parse(file_name) else { continue };
            let name = TopicPartition { topic: found.topic.into(), partition: found.partition };
            let stray = names::suffixed(self, &path, &name, DirectoryKind::Stray);
            if let Err(error) = names::set_aside_nameless(self, path.clone(), stray).await {
                warn!(directory = %path.display(), "can't be set aside: {error}");
            }
        }
        if !strays.is_empty() {
            checkpoints::write_from(self, Kinds::ALL).await;
        }
    }

    async fn set_aside(self: &Rc<Self>, some: &[(TopicIdPartition, OpenLog)]) {
        let old = some.iter().map(|(id, stray)| {
            let path = stray.store.directory();
            let renamed = names::suffixed(self, &path, &stray.name, DirectoryKind::Stray);
            OldName { path, renamed, id: *id }
        });
        let old: Vec<OldName> = old.collect();
        let what = "a stray can't be renamed";
        let renamed = names::rename(self, old.clone()).await;
        let Some(renamed) = self.fail_if_err(some[0].1.directory, what, renamed).await else { return };
        for (((_, stray), old), renamed) in some.iter().zip(old).zip(renamed) {
            self.count(stray.directory, -1);
            if let Some(true) = self.fail_if_err(stray.directory, what, renamed).await {
                warn!(
                    partition = %stray.name, directory = %old.renamed.display(),
                    "the metadata doesn't give this replica to this node; its log was set aside"
                );
            }
        }
    }
}

/// Of a directory that is offline, deleted logs go if the disk lets them; nobody waits for that, since it may hang. Nothing
/// new takes their names there before the next start.
fn remove_from_failed(dirs: &LogDirs, lost: Vec<Rc<Replica>>) {
    if lost.is_empty() {
        return;
    }
    let names: Vec<OldName> = lost
        .iter()
        .map(|replica| {
            let path = replica.directory();
            let renamed = names::suffixed(dirs, &path, &replica.name, DirectoryKind::Delete);
            OldName { path, renamed, id: replica.id }
        })
        .collect();
    dirs.core.spawn_until_stop(async move {
        let removed =
            ring::fs::run_apart("remove-offline", async move |fs| Ok(names::remove_offline(&fs, &names).await)).await;
        for (directory, error) in removed.unwrap_or_else(|error| vec![(std::path::PathBuf::new(), error)]) {
            let directory = directory.display();
            warn!(
                %directory,
                "the files of a deleted log stay, as its log directory is offline ({error}); a start that can use the \
                 directory sets them aside as a stray"
            );
        }
    });
}

/// One line for each topic.
fn tell_deleted(dirs: &LogDirs, deleted: Vec<(TopicPartition, usize)>) {
    let of_topic = |a: &(TopicPartition, usize), b: &(TopicPartition, usize)| a.0.topic == b.0.topic && a.1 == b.1;
    for deleted in deleted.chunk_by(of_topic) {
        let directory = dirs.core.node.log_dirs.directories[deleted[0].1].path.display();
        let partitions: Vec<i32> = deleted.iter().map(|(name, _)| name.partition.0).collect();
        info!(topic = &*deleted[0].0.topic, ?partitions, %directory, "deleted logs; their files go after file.delete.delay.ms");
    }
}
