//! Names of partitions' directories: given to new logs, taken from deleted ones.
//!
//! All of that in a node goes through one thread, so that what is found there holds until the name is changed: a topic that
//! is deleted and one that is made anew under its name may live on different shards. It is a thread of its own, and gets
//! many names at a time: nothing else waits behind the syncs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::names::{DirectoryKind, PARTITION_METADATA_FILE, suffixed_partition_directory};
use ringlog_log::partition_metadata::format_partition_metadata;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{TopicIdPartition, TopicPartition, Uuid};
use tracing::{info, warn};

use super::LogDirs;
use super::checkpoints;
use super::scan::topic_id_of;
use crate::mesh::LocalFuture;
use crate::shard::Shard;

/// Names that are given or taken at a time.
pub(super) const NAMES_AT_A_TIME: usize = 64;

/// A directory to be made.
#[derive(Debug, Clone)]
pub(super) struct NewName {
    pub path: PathBuf,
    /// What lies there gets this name if it holds records.
    pub stray: PathBuf,
    pub id: TopicIdPartition,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It is there, empty but for its topic id, for good.
    New,
    /// Another one has the name.
    NameTaken,
}

/// A directory to be renamed.
#[derive(Debug, Clone)]
pub(super) struct OldName {
    pub path: PathBuf,
    pub renamed: PathBuf,
    pub id: TopicIdPartition,
}

impl LogDirs {
    /// The thread; on shard 0.
    fn names(&self) -> io::Result<Rc<ring::Lane>> {
        if let Some(lane) = &*self.names.borrow() {
            return Ok(lane.clone());
        }
        let lane = Rc::new(ring::Lane::start("log-names")?);
        *self.names.borrow_mut() = Some(lane.clone());
        Ok(lane)
    }
}

async fn on_names<T, W>(shard: &Rc<Shard>, work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: FnMut() -> io::Result<T> + Send + 'static,
{
    shard
        .invoke_on(0, move |shard| {
            let shard = shard.clone();
            Box::pin(async move { shard.log_dirs.names()?.run(work).await })
        })
        .await
}

/// Makes directories for new logs; what became of each. `replaces` what has a name, as nobody uses it.
///
/// A new log may have the name of one that was deleted: before that, no checkpoint may list it any more.
pub(super) async fn make(shard: &Rc<Shard>, names: Vec<NewName>, replaces: bool) -> io::Result<Vec<io::Result<Made>>> {
    shard.invoke_on(0, |shard| Box::pin(checkpoints::freshen(shard.clone()))).await?;
    on_names(shard, move || make_now(&names, replaces)).await
}

fn make_now(names: &[NewName], replaces: bool) -> io::Result<Vec<io::Result<Made>>> {
    let mut made: Vec<io::Result<Made>> = names.iter().map(|name| make_one(name, replaces)).collect();
    // Everything is there before anything is synced: the first sync takes most of the others' work along.
    let mut parents = BTreeSet::new();
    for (name, made) in names.iter().zip(&mut made) {
        if matches!(made, Ok(Made::New)) {
            parents.extend(name.path.parent());
            if let Err(error) = sync(&name.path.join(PARTITION_METADATA_FILE)).and_then(|()| sync(&name.path)) {
                *made = Err(error);
            }
        }
    }
    parents.into_iter().try_for_each(sync)?;
    let shortage = |made: &io::Result<Made>| made.as_ref().is_err_and(|e| ring::trouble(e) == Trouble::Shortage);
    match made.iter().position(shortage) {
        // All of it again: what is there already is found to be.
        Some(place) => made.swap_remove(place).map(|_| Vec::new()),
        None => Ok(made),
    }
}

fn make_one(name: &NewName, replaces: bool) -> io::Result<Made> {
    match fs::create_dir(&name.path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of an attempt that failed half-way.
            if topic_id_of(&name.path)? == Some(name.id.topic_id) {
                return Ok(Made::New);
            }
            if !replaces {
                return Ok(Made::NameTaken);
            }
            set_aside(&name.path, &name.stray)?;
            fs::create_dir(&name.path)?;
        }
        created => created?,
    }
    let written = write_topic_id(&name.path, name.id);
    if written.is_err() {
        let _ = fs::remove_dir_all(&name.path);
    }
    written.map(|()| Made::New)
}

/// Gives a new directory its topic id.
///
/// A crash before it is on the device leaves a directory without a topic id, and without records: it goes at the next
/// start.
fn write_topic_id(path: &Path, id: TopicIdPartition) -> io::Result<()> {
    let mut file = fs::File::create(path.join(PARTITION_METADATA_FILE))?;
    file.write_all(format_partition_metadata(id.topic_id).as_bytes())
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Renames logs' directories; whether each was, or another log lies there by now. No checkpoint that is written from now on
/// may list them: the caller has seen to that.
pub(super) async fn rename(shard: &Rc<Shard>, names: Vec<OldName>) -> io::Result<Vec<io::Result<bool>>> {
    let note = |shard: &Rc<Shard>| -> LocalFuture<()> {
        shard.log_dirs.checkpoints.on_name_gone();
        Box::pin(std::future::ready(()))
    };
    shard.invoke_on(0, note).await;
    on_names(shard, move || rename_now(&names)).await
}

fn rename_now(names: &[OldName]) -> io::Result<Vec<io::Result<bool>>> {
    // Opened first: once a name has changed nothing may be missing.
    let parents: BTreeSet<&Path> = names.iter().filter_map(|name| name.path.parent()).collect();
    let parents = parents.into_iter().map(fs::File::open).collect::<io::Result<Vec<_>>>()?;
    let rename = |name: &OldName| match topic_id_of(&name.path)? == Some(name.id.topic_id) {
        true => fs::rename(&name.path, &name.renamed).map(|()| true),
        // It was done by an attempt that failed later.
        false => Ok(name.renamed.exists()),
    };
    let renamed: Vec<io::Result<bool>> = names.iter().map(rename).collect();
    parents.iter().try_for_each(fs::File::sync_all)?;
    Ok(renamed)
}

/// Removes logs of a directory that is offline, with all in them; those that stay, and why. On a thread of its own.
pub(super) fn remove_offline(names: &[OldName]) -> Vec<(PathBuf, io::Error)> {
    let remove = |name: &OldName| {
        if topic_id_of(&name.path)? == Some(name.id.topic_id) {
            // A crash in the middle leaves what the next start removes.
            fs::rename(&name.path, &name.renamed)?;
            fs::remove_dir_all(&name.renamed)?;
            info!(directory = %name.path.display(), "removed a deleted log from a directory that is offline");
        }
        Ok(())
    };
    names.iter().filter_map(|name| remove(name).err().map(|error| (name.path.clone(), error))).collect()
}

/// A directory that a crash left without a topic id is set aside, if it is still one.
pub(super) async fn set_aside_nameless(shard: &Rc<Shard>, path: PathBuf, stray: PathBuf) -> io::Result<()> {
    // A topic id by now: a new log has taken the name.
    on_names(shard, move || if topic_id_of(&path)?.is_none() { set_aside(&path, &stray) } else { Ok(()) }).await
}

/// The path of a log's directory with a suffix.
pub(super) fn suffixed(shard: &Shard, path: &Path, name: &TopicPartition, kind: DirectoryKind) -> PathBuf {
    let unique_id = Uuid::random(&mut shard.random.borrow_mut());
    path.with_file_name(suffixed_partition_directory(&name.topic, name.partition, kind, unique_id))
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
