//! Names of partitions' directories: given to new logs, taken from deleted ones.
//!
//! All of that in a node goes through one thread, so that what is found there holds until the name is changed: a topic that
//! is deleted and one that is made anew under its name may live on different shards. It is a thread of its own, and gets
//! many names at a time: nothing else waits behind the syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::names::{DirectoryKind, PARTITION_METADATA_FILE, suffixed_partition_directory};
use ringlog_log::partition_metadata::format_partition_metadata;
use ringlog_ring::fs::Fs;
use ringlog_ring::{self as ring, Trouble};
use ringlog_types::{TopicIdPartition, TopicPartition, Uuid};
use tracing::{info, warn};

use super::checkpoints;
use super::room::LogDirs;
use super::scan::topic_id_of;
use crate::core::Room as _;

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

async fn on_names<T, W>(dirs: &Rc<LogDirs>, work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnMut(Fs) -> io::Result<T> + Send + 'static,
{
    dirs.invoke_on(0, move |dirs| {
        let dirs = dirs.clone();
        Box::pin(async move { dirs.names()?.run(work).await })
    })
    .await
}

/// Makes directories for new logs; what became of each. `replaces` what has a name, as nobody uses it.
///
/// A new log may have the name of one that was deleted: before that, no checkpoint may list it any more.
pub(super) async fn make(dirs: &Rc<LogDirs>, names: Vec<NewName>, replaces: bool) -> io::Result<Vec<io::Result<Made>>> {
    dirs.invoke_on(0, |dirs| Box::pin(checkpoints::freshen(dirs.clone()))).await?;
    on_names(dirs, async move |fs| make_now(&fs, &names, replaces).await).await
}

async fn make_now(fs: &Fs, names: &[NewName], replaces: bool) -> io::Result<Vec<io::Result<Made>>> {
    let mut made: Vec<io::Result<Made>> = Vec::with_capacity(names.len());
    for name in names {
        made.push(make_one(fs, name, replaces).await);
    }
    // Everything is there before anything is synced: the first sync takes most of the others' work along.
    let mut parents = BTreeSet::new();
    for (name, made) in names.iter().zip(&mut made) {
        if matches!(made, Ok(Made::New)) {
            parents.extend(name.path.parent());
            if let Err(error) = sync(fs, &name.path).await {
                *made = Err(error);
            }
        }
    }
    for parent in parents {
        if let Err(error) = fs.sync_dir(parent).await {
            fail_in(parent, &error, names.iter().map(|name| &*name.path).zip(&mut made));
        }
    }
    let shortage = |made: &io::Result<Made>| made.as_ref().is_err_and(|e| ring::trouble(e) == Trouble::Shortage);
    match made.iter().position(shortage) {
        // All of it again: what is there already is found to be.
        Some(place) => made.swap_remove(place).map(|_| Vec::new()),
        None => Ok(made),
    }
}

/// What was done in a directory isn't there for good. The others have nothing to do with that: they may be on other disks.
fn fail_in<'a, T: 'a>(
    parent: &Path,
    error: &io::Error,
    outcomes: impl Iterator<Item = (&'a Path, &'a mut io::Result<T>)>,
) {
    for (_, outcome) in outcomes.filter(|(path, outcome)| path.parent() == Some(parent) && outcome.is_ok()) {
        *outcome = Err(again(error));
    }
}

/// One error for several.
pub(super) fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

async fn make_one(fs: &Fs, name: &NewName, replaces: bool) -> io::Result<Made> {
    match fs.create_dir(&name.path).await {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of an attempt that failed half-way.
            if topic_id_of(fs, &name.path).await? == Some(name.id.topic_id) {
                return Ok(Made::New);
            }
            if !replaces {
                return Ok(Made::NameTaken);
            }
            set_aside(fs, &name.path, &name.stray).await?;
            fs.create_dir(&name.path).await?;
        }
        created => created?,
    }
    let written = write_topic_id(fs, &name.path, name.id).await;
    if written.is_err() {
        let _ = fs.remove_dir_all(&name.path).await;
    }
    written.map(|()| Made::New)
}

/// Gives a new directory its topic id.
///
/// A crash before it is on the device leaves a directory without a topic id, and without records: it goes at the next
/// start.
async fn write_topic_id(fs: &Fs, path: &Path, id: TopicIdPartition) -> io::Result<()> {
    fs.write(&path.join(PARTITION_METADATA_FILE), format_partition_metadata(id.topic_id).as_bytes()).await
}

/// Makes a new directory's topic id survive a power failure.
async fn sync(fs: &Fs, path: &Path) -> io::Result<()> {
    fs.sync_file(&path.join(PARTITION_METADATA_FILE)).await?;
    fs.sync_dir(path).await
}

/// Renames logs' directories; whether each was, or another log lies there by now. No checkpoint that is written from now on
/// may list them: the caller has seen to that.
pub(super) async fn rename(dirs: &Rc<LogDirs>, names: Vec<OldName>) -> io::Result<Vec<io::Result<bool>>> {
    dirs.tell(0, |dirs| dirs.checkpoints.on_name_gone()).await;
    on_names(dirs, async move |fs| rename_now(&fs, &names).await).await
}

async fn rename_now(fs: &Fs, names: &[OldName]) -> io::Result<Vec<io::Result<bool>>> {
    // Opened first: once a name has changed nothing may be missing.
    let parents: BTreeSet<&Path> = names.iter().filter_map(|name| name.path.parent()).collect();
    let mut folders = BTreeMap::new();
    for parent in parents {
        match fs.open_dir(parent).await {
            Err(error) if ring::trouble(&error) == Trouble::Shortage => return Err(error),
            opened => drop(folders.insert(parent, opened)),
        }
    }
    let mut renamed = Vec::with_capacity(names.len());
    for name in names {
        let folder = name.path.parent().and_then(|parent| folders.get(parent));
        renamed.push(match folder {
            Some(Err(error)) => Err(again(error)),
            _ => rename_one(fs, name).await,
        });
    }
    for (parent, folder) in folders {
        let Ok(folder) = folder else { continue };
        if let Err(error) = folder.sync().await {
            fail_in(parent, &error, names.iter().map(|name| &*name.path).zip(&mut renamed));
        }
    }
    Ok(renamed)
}

async fn rename_one(fs: &Fs, name: &OldName) -> io::Result<bool> {
    match topic_id_of(fs, &name.path).await? == Some(name.id.topic_id) {
        true => fs.rename(&name.path, &name.renamed).await.map(|()| true),
        // It was done by an attempt that failed later.
        false => fs.exists(&name.renamed).await,
    }
}

/// Removes logs of a directory that is offline, with all in them; those that stay, and why. On a thread of its own.
pub(super) async fn remove_offline(fs: &Fs, names: &[OldName]) -> Vec<(PathBuf, io::Error)> {
    let mut failed = Vec::new();
    for name in names {
        if let Err(error) = remove_one_offline(fs, name).await {
            failed.push((name.path.clone(), error));
        }
    }
    failed
}

async fn remove_one_offline(fs: &Fs, name: &OldName) -> io::Result<()> {
    if topic_id_of(fs, &name.path).await? == Some(name.id.topic_id) {
        // A crash in the middle leaves what the next start removes.
        fs.rename(&name.path, &name.renamed).await?;
        fs.remove_dir_all(&name.renamed).await?;
        info!(directory = %name.path.display(), "removed a deleted log from a directory that is offline");
    }
    Ok(())
}

/// A directory that a crash left without a topic id is set aside, if it is still one.
pub(super) async fn set_aside_nameless(dirs: &Rc<LogDirs>, path: PathBuf, stray: PathBuf) -> io::Result<()> {
    // A topic id by now: a new log has taken the name.
    let set_aside = async move |fs: Fs| match topic_id_of(&fs, &path).await? {
        None => set_aside(&fs, &path, &stray).await,
        Some(_) => Ok(()),
    };
    on_names(dirs, set_aside).await
}

/// The path of a log's directory with a suffix.
pub(super) fn suffixed(dirs: &LogDirs, path: &Path, name: &TopicPartition, kind: DirectoryKind) -> PathBuf {
    let unique_id = Uuid::random(&mut dirs.core.random.borrow_mut());
    path.with_file_name(suffixed_partition_directory(&name.topic, name.partition, kind, unique_id))
}

/// Makes room where a directory is that no log is known for: removes it if it holds no records, else calls it a stray.
async fn set_aside(fs: &Fs, path: &Path, stray: &Path) -> io::Result<()> {
    let is_log = |name: &Path| name.extension().is_some_and(|extension| extension == "log");
    let entries = fs.read_dir(path).await?;
    let has_records = entries.iter().any(|entry| is_log(Path::new(&entry.name)) && entry.metadata.len > 0);
    if has_records {
        warn!(directory = %stray.display(), "set aside a log of no topic that the metadata knows");
        fs.rename(path, stray).await
    } else {
        info!(directory = %path.display(), "removing a log that was never written");
        fs.remove_dir_all(path).await
    }
}
