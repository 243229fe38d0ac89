//! What the metadata does to logs: claims those that exist, makes new ones, deletes, and sets strays aside.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::names::{
    DirectoryKind, PARTITION_METADATA_FILE, PartitionDirectory, partition_directory, suffixed_partition_directory,
};
use ringlog_log::partition_metadata::format_partition_metadata;
use ringlog_log::{Log, LogConfig};
use ringlog_partition::{Partition, PartitionLimits, Unserved};
use ringlog_ring as ring;
use ringlog_types::{Offset, TopicIdPartition, TopicPartition, Uuid};
use tracing::{info, warn};

use super::checkpoints::{self, Kinds};
use super::recover::jitter_seed;
use super::removal::Target;
use super::scan::topic_id_of;
use super::{LogDirs, OpenLog};
use crate::mesh::LocalFuture;
use crate::replica::Replica;
use crate::segment_store::SegmentStore;
use crate::shard::Shard;

/// How long a new log waits for an older one of its name to be deleted.
const DELETION_WAIT_MS: u64 = 10_000;
const DELETION_POLL_MS: u64 = 20;

/// Why there is no log for a partition. To clients, all of it is `KAFKA_STORAGE_ERROR`.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The assigned directory isn't one that works, and the log may lie in one that doesn't.
    #[error("the log directory of {0} is offline")]
    Offline(TopicPartition),
    /// The disk; its directory is offline from now on.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// What couldn't be made.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl LogDirs {
    /// The log of a partition that the metadata gives to this node, as a replica without a role, which is also put among
    /// [`Shard::replicas`]. A log that exists is taken as it is, wherever it lies; else one is made in `directory` if
    /// that is a directory of this node, or in the one with the fewest logs.
    ///
    /// For the home shard of `id`; waits until [`super::open`] is through there. One call at a time for a partition.
    pub async fn claim_or_create(
        &self,
        shard: &Rc<Shard>,
        id: TopicIdPartition,
        name: TopicPartition,
        directory: Option<Uuid>,
        config: Rc<LogConfig>,
    ) -> Result<Rc<Replica>, ClaimError> {
        self.opened.wait_until_set().await;
        if let Some(replica) = shard.replica(id) {
            return Ok(replica);
        }
        let claimed = self.unclaimed.borrow_mut().remove(&id);
        let open = match claimed {
            Some(open) => open,
            None => self.create(shard, id, name, directory).await?,
        };
        let limits = PartitionLimits {
            replica_lag_time_max_ms: u64::try_from(shard.node.config.replica.lag_time_max_ms).unwrap_or(0),
        };
        let partition = Partition::new(id, shard.node.id, open.log, open.high_watermark, limits);
        let replica = Replica::new(partition, open.name, open.directory, open.store, config);
        if self.has_failed(open.directory) {
            return Err(ClaimError::Offline(replica.name.clone()));
        }
        let before = shard.replicas.borrow_mut().insert(id, replica.clone());
        assert!(before.is_none(), "two claims of {id} at a time");
        Ok(replica)
    }

    async fn create(
        &self,
        shard: &Rc<Shard>,
        id: TopicIdPartition,
        name: TopicPartition,
        directory: Option<Uuid>,
    ) -> Result<OpenLog, ClaimError> {
        self.freshen_checkpoints(shard).await;
        let place = self.place_for_new(shard, directory).ok_or_else(|| ClaimError::Offline(name.clone()))?;
        let parent = &shard.node.log_dirs.directories[place].path;
        let path = parent.join(partition_directory(&name.topic, name.partition));
        let made = self.make_directory(shard, &path, id, &name).await;
        if let Err(source) = made {
            self.fail(shard, place, &format!("{}: {source}", path.display())).await;
            return Err(ClaimError::Io { path, source });
        }
        info!(partition = %name, topic.id = %id.topic_id, directory = %parent.display(), "created a log");
        let log = Log::new(Offset(0), ring::now().wall, jitter_seed(id));
        let store = SegmentStore::new(shard.store.clone(), path, Offset(0), 0, None);
        Ok(OpenLog { name, directory: place, log, store, high_watermark: Offset(0) })
    }

    /// A new log may have the name of one that was deleted before the last crash: no checkpoint may still list that.
    async fn freshen_checkpoints(&self, shard: &Rc<Shard>) {
        if !self.checkpoints_are_fresh.get() {
            checkpoints::write_from(shard, Kinds::ALL).await;
            self.checkpoints_are_fresh.set(true);
        }
    }

    fn place_for_new(&self, shard: &Shard, directory: Option<Uuid>) -> Option<usize> {
        let checked = &shard.node.log_dirs;
        let is_real = |id: &Uuid| u128::from_be_bytes(id.0) >= Uuid::RESERVED_COUNT;
        let assigned = directory.filter(is_real);
        if let Some(place) = assigned.and_then(|id| checked.place_of(id)) {
            return (!self.has_failed(place)).then_some(place);
        }
        let is_offline = |place: usize| checked.directories[place].offline.is_some() || self.has_failed(place);
        if assigned.is_some() && (0..checked.directories.len()).any(is_offline) {
            return None;
        }
        let usable = || {
            let places = 0..checked.directories.len();
            places.filter(|place| checked.directories[*place].is_usable() && !self.has_failed(*place))
        };
        let cordoned = &shard.node.config.cordoned_log_dirs;
        let is_cordoned = |place: &usize| is_cordoned(cordoned, &checked.directories[*place].path);
        let count = |place: &usize| self.logs_in(shard, *place);
        usable().filter(|place| !is_cordoned(place)).min_by_key(count).or_else(|| usable().min_by_key(count))
    }

    /// Logs of this shard in a directory. Shards get their logs by a hash, so each is a fair sample of the node.
    fn logs_in(&self, shard: &Shard, place: usize) -> usize {
        let replicas = shard.replicas.borrow();
        let unclaimed = self.unclaimed.borrow();
        replicas.values().filter(|replica| replica.log_dir.get() == place).count()
            + unclaimed.values().filter(|log| log.directory == place).count()
    }

    async fn make_directory(
        &self,
        shard: &Rc<Shard>,
        path: &Path,
        id: TopicIdPartition,
        name: &TopicPartition,
    ) -> io::Result<()> {
        let mut waited_ms = 0;
        while waited_ms < DELETION_WAIT_MS && is_in_use(shard, path).await {
            // An older topic of that name, which its home is about to delete.
            ring::sleep_ms(DELETION_POLL_MS).await;
            waited_ms += DELETION_POLL_MS;
        }
        let stray = suffixed(shard, path, name, DirectoryKind::Stray);
        let made = path.to_path_buf();
        on_names(shard, move || {
            match fs::create_dir(&made) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    set_aside(&made, &stray)?;
                    fs::create_dir(&made)?;
                }
                created => created?,
            }
            write_topic_id(&made, id)
        })
        .await
    }

    /// Deletes logs: nothing of them is served any more, which clients are told by `why`; their directories are renamed
    /// and go after `file.delete.delay.ms`. When this ends, new logs may take their names. Give it all that go at a time: the
    /// checkpoints are written once.
    pub async fn delete(&self, shard: &Rc<Shard>, replicas: Vec<Rc<Replica>>, why: Unserved) {
        let mut renamed = Vec::new();
        for replica in &replicas {
            replica.close(why);
            let place = replica.log_dir.get();
            if !self.has_failed(place) {
                replica.quiesced().await;
                self.forget_files(replica);
                let path = replica.store.directory();
                let delay_ms = replica.config.borrow().file_delete_delay_ms;
                let moved = rename_log(shard, &path, replica.id, &replica.name, DirectoryKind::Delete).await;
                if let Some(Some(moved)) = self.fail_if_err(shard, place, "a log can't be deleted", moved).await {
                    replica.store.set_directory(moved.clone());
                    renamed.push((moved, place, delay_ms));
                }
            }
            let mut known = shard.replicas.borrow_mut();
            if known.get(&replica.id).is_some_and(|known| Rc::ptr_eq(known, replica)) {
                known.remove(&replica.id);
            }
        }
        if !replicas.is_empty() {
            checkpoints::write_from(shard, Kinds::ALL).await;
        }
        for (path, place, delay_ms) in renamed {
            info!(directory = %path.display(), "deleted a log; its files go in {delay_ms} ms");
            self.removals.later(Target::Directory(path), place, delay_ms);
        }
    }

    fn forget_files(&self, replica: &Replica) {
        let partition = replica.partition.borrow();
        let log = partition.log();
        for segment in log.sealed_segments() {
            replica.store.forget(segment.base_offset);
        }
        replica.store.forget(log.active_segment().base_offset);
    }

    /// Sets logs aside that the metadata doesn't give to this node: `known` tells those that it does. To be called once
    /// the node has caught up with the metadata, before anything is created.
    pub async fn mark_strays(&self, shard: &Rc<Shard>, known: &dyn Fn(TopicIdPartition) -> bool) {
        self.opened.wait_until_set().await;
        let strays: Vec<(TopicIdPartition, OpenLog)> = {
            let mut unclaimed = self.unclaimed.borrow_mut();
            let ids: Vec<TopicIdPartition> = unclaimed.keys().copied().filter(|id| !known(*id)).collect();
            ids.into_iter().filter_map(|id| unclaimed.remove(&id).map(|log| (id, log))).collect()
        };
        let is_none = strays.is_empty();
        for (id, stray) in strays {
            let path = stray.store.directory();
            let moved = rename_log(shard, &path, id, &stray.name, DirectoryKind::Stray).await;
            if let Some(Some(moved)) = self.fail_if_err(shard, stray.directory, "a stray can't be renamed", moved).await
            {
                warn!(
                    partition = %stray.name, directory = %moved.display(),
                    "the metadata doesn't give this replica to this node; its log was set aside"
                );
            }
        }
        for path in self.nameless.take() {
            let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(found) = PartitionDirectory::parse(file_name) else { continue };
            let name = TopicPartition { topic: found.topic.into(), partition: found.partition };
            let (nameless, stray) = (path.clone(), suffixed(shard, &path, &name, DirectoryKind::Stray));
            let done = on_names(shard, move || {
                // A topic id by now: a new log has taken the name.
                if topic_id_of(&nameless)?.is_none() { set_aside(&nameless, &stray) } else { Ok(()) }
            });
            if let Err(error) = done.await {
                warn!(directory = %path.display(), "can't be set aside: {error}");
            }
        }
        if !is_none {
            checkpoints::write_from(shard, Kinds::ALL).await;
        }
    }
}

/// Whether `cordoned.log.dirs` names the directory.
pub(super) fn is_cordoned(cordoned: &[String], path: &Path) -> bool {
    cordoned.iter().any(|text| text == "*" || std::path::absolute(text).is_ok_and(|cordoned| cordoned == path))
}

/// Does something with the names of partitions' directories. All of that in a node goes through one thread, so that what
/// is found there holds until the name is changed: a topic that is deleted and one that is made anew under its name may live
/// on different shards.
async fn on_names<T: Send + 'static>(
    shard: &Rc<Shard>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    shard.invoke_on(0, move |_| Box::pin(ring::blocking(work))).await
}

/// Whether some shard serves a log from this directory. One that only found a log there forgets it: its name is another's
/// now.
async fn is_in_use(shard: &Rc<Shard>, path: &Path) -> bool {
    if !path.is_dir() {
        return false;
    }
    for core in 0..shard.node.shards {
        let path = path.to_path_buf();
        let work = move |shard: &Rc<Shard>| -> LocalFuture<bool> {
            shard.log_dirs.unclaimed.borrow_mut().retain(|_, log| log.store.directory() != path);
            let in_use = shard.replicas.borrow().values().any(|replica| replica.store.directory() == path);
            Box::pin(std::future::ready(in_use))
        };
        if shard.invoke_on(core, work).await {
            return true;
        }
    }
    false
}

/// Gives a new directory its topic id, for good.
///
/// A crash before that leaves a directory without a topic id, and without records: it goes at the next start.
fn write_topic_id(path: &Path, id: TopicIdPartition) -> io::Result<()> {
    let mut file = fs::File::create(path.join(PARTITION_METADATA_FILE))?;
    file.write_all(format_partition_metadata(id.topic_id).as_bytes())?;
    file.sync_all()?;
    sync(path)?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// The path of a log's directory with a suffix.
fn suffixed(shard: &Shard, path: &Path, name: &TopicPartition, kind: DirectoryKind) -> PathBuf {
    let unique_id = Uuid::random(&mut shard.random.borrow_mut());
    path.with_file_name(suffixed_partition_directory(&name.topic, name.partition, kind, unique_id))
}

/// Renames a log's directory; its new path, or `None` when another log lies there by now.
async fn rename_log(
    shard: &Rc<Shard>,
    path: &Path,
    id: TopicIdPartition,
    name: &TopicPartition,
    kind: DirectoryKind,
) -> io::Result<Option<PathBuf>> {
    let (path, moved) = (path.to_path_buf(), suffixed(shard, path, name, kind));
    on_names(shard, move || {
        if topic_id_of(&path)? != Some(id.topic_id) {
            return Ok(None);
        }
        fs::rename(&path, &moved)?;
        path.parent().map_or(Ok(()), sync)?;
        Ok(Some(moved))
    })
    .await
}

/// Makes room where a directory is that no log is known for: removes it if it holds no records, else calls it a stray.
fn set_aside(path: &Path, stray: &Path) -> io::Result<()> {
    let mut has_records = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_log = entry.path().extension().is_some_and(|extension| extension == "log");
        has_records |= is_log && entry.metadata()?.len() > 0;
    }
    if has_records {
        warn!(directory = %stray.display(), "set aside a log of no topic that the metadata knows");
        fs::rename(path, stray)
    } else {
        info!(directory = %path.display(), "removing a log that was never written");
        fs::remove_dir_all(path)
    }
}
