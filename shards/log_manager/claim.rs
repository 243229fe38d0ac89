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
use ringlog_partition::{Partition, PartitionLimits};
use ringlog_ring as ring;
use ringlog_types::{Offset, TopicIdPartition, TopicPartition, Uuid};
use tracing::{info, warn};

use super::checkpoints::{self, Kinds};
use super::offline::mark_offline;
use super::recover::jitter_seed;
use super::removal::Target;
use super::{LogDirs, OpenLog};
use crate::replica::Replica;
use crate::segment_store::SegmentStore;
use crate::shard::Shard;

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
        let made = self.make_directory(shard, parent, &path, id).await;
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
        parent: &Path,
        path: &Path,
        id: TopicIdPartition,
    ) -> io::Result<()> {
        match make_directory(parent.to_path_buf(), path.to_path_buf(), id).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Another topic of that name, which the metadata no longer knows.
                self.unclaimed.borrow_mut().retain(|_, log| log.store.directory() != path);
                set_aside(shard, path.to_path_buf()).await?;
                make_directory(parent.to_path_buf(), path.to_path_buf(), id).await
            }
            made => made,
        }
    }

    /// Deletes logs: nothing of them is served any more, their directories are renamed and go after
    /// `file.delete.delay.ms`. When this ends, new logs may take their names. Give it all that go at a time: the
    /// checkpoints are written once.
    pub async fn delete(&self, shard: &Rc<Shard>, replicas: Vec<Rc<Replica>>) {
        let mut renamed = Vec::new();
        for replica in &replicas {
            mark_offline(replica);
            let place = replica.log_dir.get();
            if !self.has_failed(place) {
                replica.quiesced().await;
                self.forget_files(replica);
                let path = replica.store.directory();
                let delay_ms = replica.config.borrow().file_delete_delay_ms;
                let moved = rename_log(shard, &path, &replica.name, DirectoryKind::Delete).await;
                if let Some(moved) = self.fail_if_err(shard, place, "a log can't be deleted", moved).await {
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
        let strays: Vec<OpenLog> = {
            let mut unclaimed = self.unclaimed.borrow_mut();
            let ids: Vec<TopicIdPartition> = unclaimed.keys().copied().filter(|id| !known(*id)).collect();
            ids.iter().filter_map(|id| unclaimed.remove(id)).collect()
        };
        let is_none = strays.is_empty();
        for stray in strays {
            let path = stray.store.directory();
            let moved = rename_log(shard, &path, &stray.name, DirectoryKind::Stray).await;
            if let Some(moved) = self.fail_if_err(shard, stray.directory, "a stray can't be renamed", moved).await {
                warn!(
                    partition = %stray.name, directory = %moved.display(),
                    "the metadata doesn't give this replica to this node; its log was set aside"
                );
            }
        }
        for path in self.nameless.take() {
            if let Err(error) = set_aside(shard, path.clone()).await {
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

/// Makes a partition's directory with its topic id, for good.
///
/// A crash in between leaves a directory without a topic id, and without records: it is removed at the next start.
async fn make_directory(parent: PathBuf, path: PathBuf, id: TopicIdPartition) -> io::Result<()> {
    ring::blocking(move || {
        fs::create_dir(&path)?;
        let mut file = fs::File::create(path.join(PARTITION_METADATA_FILE))?;
        file.write_all(format_partition_metadata(id.topic_id).as_bytes())?;
        file.sync_all()?;
        fs::File::open(&path)?.sync_all()?;
        fs::File::open(&parent)?.sync_all()
    })
    .await
}

/// Renames a log's directory; its new path. One that is gone already was renamed by somebody else.
async fn rename_log(
    shard: &Rc<Shard>,
    path: &Path,
    name: &TopicPartition,
    kind: DirectoryKind,
) -> io::Result<PathBuf> {
    let unique_id = Uuid::random(&mut shard.random.borrow_mut());
    let moved = path.with_file_name(suffixed_partition_directory(&name.topic, name.partition, kind, unique_id));
    match ring::fs::rename(path, moved.clone()).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(moved),
    }
}

/// Makes room where a directory is that no log is known for: removes it if it holds no records, else calls it a stray.
async fn set_aside(shard: &Rc<Shard>, path: PathBuf) -> io::Result<()> {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(found) = PartitionDirectory::parse(file_name) else { return Ok(()) };
    let looked_at = path.clone();
    let has_records = ring::blocking(move || {
        for entry in fs::read_dir(&looked_at)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "log") && entry.metadata()?.len() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await?;
    if has_records {
        warn!(directory = %path.display(), "no topic that the metadata knows lies here; the directory was set aside");
        let name = TopicPartition { topic: found.topic.into(), partition: found.partition };
        rename_log(shard, &path, &name, DirectoryKind::Stray).await.map(drop)
    } else {
        info!(directory = %path.display(), "removing a log that was never written");
        ring::fs::remove_dir_all(path).await
    }
}
