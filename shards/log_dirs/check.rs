//! Before the start: are the log directories formatted, ours, and free?

use std::io;
use std::path::{Path, PathBuf};

use ringlog_config::ServerConfig;
use ringlog_log::clean_shutdown::parse_clean_shutdown;
use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::names::{CLEAN_SHUTDOWN_FILE, LOCK_FILE, META_PROPERTIES_FILE, partition_directory};
use ringlog_ring as ring;
use ringlog_ring::fs::Fs;
use ringlog_types::{BrokerEpoch, CLUSTER_METADATA_TOPIC, PartitionIndex, Random, Uuid};
use tracing::{error, info};

use super::fault::LogDirFault;
use crate::directories::{CheckedLogDirs, LogDirectory};

/// More is no meta.properties or marker.
const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Written and removed again to see that the directory takes writes.
const PROBE_FILE: &str = ".ringlog_probe";

/// A directory whose own files are in order.
struct Found {
    path: PathBuf,
    hosts_partitions: bool,
    properties: MetaProperties,
    lock: ring::fs::FileLock,
}

/// Log directories that are in order and locked, with nothing in them changed yet.
pub struct LockedLogDirs {
    cluster_id: String,
    found: Vec<Looked>,
    metadata_directory: usize,
}

/// Checks every directory of the configuration and locks it. Blocks; for the thread that starts executors.
///
/// Of several directories, one that the file system refuses is left out with an error in the log, as long as it isn't the
/// metadata log's and another is left. Everything else that is wrong refuses the start.
pub async fn check_and_lock(config: &ServerConfig) -> Result<LockedLogDirs, LogDirFault> {
    let fs = ring::fs::now();
    let (paths, metadata_directory) = configured_paths(config)?;
    let mut found = Vec::new();
    for (place, (path, hosts_partitions)) in paths.iter().enumerate() {
        match look_at(&fs, path, *hosts_partitions, config).await {
            Ok(directory) => found.push(Ok(directory)),
            Err(fault @ LogDirFault::Io { .. }) if place != metadata_directory => {
                found.push(Err((path.clone(), *hosts_partitions, fault.to_string())));
            }
            Err(fault) => return Err(fault),
        }
    }
    if config.roles.broker && !found.iter().flatten().any(|directory| directory.hosts_partitions) {
        let reasons = found.iter().filter_map(|looked| looked.as_ref().err().map(|(_, _, reason)| reason.as_str()));
        return Err(LogDirFault::NoneUsable(reasons.collect::<Vec<_>>().join("; ")));
    }
    let cluster_id = check_together(&found)?;
    check_metadata_log(&fs, &found, &paths[metadata_directory].0).await?;
    for (_, _, reason) in found.iter().filter_map(|looked| looked.as_ref().err()) {
        error!("{reason}; the node starts without this directory");
    }
    Ok(LockedLogDirs { cluster_id, found, metadata_directory })
}

impl LockedLogDirs {
    /// Reads and removes the clean-shutdown markers: to be called when nothing speaks against the start any more. Blocks.
    ///
    /// No marker is removed before all were read. A directory that refuses is left out, as in [`check_and_lock`].
    pub async fn take_over(self, config: &ServerConfig, random: &mut Random) -> Result<CheckedLogDirs, LogDirFault> {
        let fs = ring::fs::now();
        let LockedLogDirs { cluster_id, found, metadata_directory } = self;
        let mut marked = Vec::new();
        for (place, looked) in found.into_iter().enumerate() {
            marked.push(match looked {
                Ok(found) if found.hosts_partitions && config.roles.broker => {
                    match read_marker(&fs, &found.path).await {
                        Ok(marker) => Ok((found, marker)),
                        Err(fault) if place != metadata_directory => Err(left_out(found, &fault)),
                        Err(fault) => return Err(fault),
                    }
                }
                Ok(found) => Ok((found, None)),
                Err((path, hosts_partitions, reason)) => Err(offline(path, hosts_partitions, reason)),
            });
        }
        let mut directories = Vec::new();
        for (place, directory) in marked.into_iter().enumerate() {
            directories.push(match directory {
                Ok((mut found, marker)) => match take_over(&fs, &mut found, marker, random).await {
                    Ok(()) => online(found, marker),
                    Err(fault) if place != metadata_directory => left_out(found, &fault),
                    Err(fault) => return Err(fault),
                },
                Err(offline) => offline,
            });
        }
        if config.roles.broker && !directories.iter().any(LogDirectory::is_usable) {
            let reasons = directories.iter().filter_map(|directory| directory.offline.as_deref());
            return Err(LogDirFault::NoneUsable(reasons.collect::<Vec<_>>().join("; ")));
        }
        Ok(CheckedLogDirs { cluster_id, directories, metadata_directory })
    }
}

fn online(found: Found, clean_shutdown: Option<BrokerEpoch>) -> LogDirectory {
    LogDirectory {
        path: found.path,
        id: found.properties.directory_id.unwrap_or(Uuid([0; 16])),
        hosts_partitions: found.hosts_partitions,
        clean_shutdown,
        offline: None,
        lock: Some(found.lock),
    }
}

/// A directory that was in order until now.
fn left_out(found: Found, fault: &LogDirFault) -> LogDirectory {
    error!("{fault}; the node starts without this directory");
    offline(found.path, found.hosts_partitions, fault.to_string())
}

/// A directory that the disk refuses.
fn offline(path: PathBuf, hosts_partitions: bool, reason: String) -> LogDirectory {
    LogDirectory { path, id: Uuid([0; 16]), hosts_partitions, clean_shutdown: None, offline: Some(reason), lock: None }
}

/// The directories, whether each hosts partitions, and the place of the metadata log's.
fn configured_paths(config: &ServerConfig) -> Result<(Vec<(PathBuf, bool)>, usize), LogDirFault> {
    let absolute = |text: &str| {
        let path = Path::new(text);
        std::path::absolute(path).map_err(LogDirFault::io(path, "can't be made an absolute path"))
    };
    let mut paths: Vec<(PathBuf, bool)> = Vec::new();
    for text in &config.log_dirs {
        let path = absolute(text)?;
        if paths.iter().any(|(other, _)| *other == path) {
            return Err(LogDirFault::ListedTwice(path));
        }
        paths.push((path, true));
    }
    let metadata = absolute(&config.metadata_log_dir)?;
    let place = paths.iter().position(|(path, _)| *path == metadata).unwrap_or_else(|| {
        paths.push((metadata, false));
        paths.len() - 1
    });
    Ok((paths, place))
}

async fn look_at(fs: &Fs, path: &Path, hosts_partitions: bool, config: &ServerConfig) -> Result<Found, LogDirFault> {
    let properties_path = path.join(META_PROPERTIES_FILE);
    let bytes = match read_small(fs, &properties_path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LogDirFault::NotFormatted(path.to_path_buf()));
        }
        Err(error) => return Err(LogDirFault::io(&properties_path, "can't be read")(error)),
    };
    let properties = MetaProperties::parse(&bytes)
        .map_err(|fault| LogDirFault::MetaProperties { path: path.to_path_buf(), fault })?;
    if properties.node_id != config.node_id {
        let (found, expected) = (properties.node_id, config.node_id);
        return Err(LogDirFault::NodeIdMismatch { path: path.to_path_buf(), found, expected });
    }
    let lock = fs.lock(&path.join(LOCK_FILE)).await.map_err(|fault| match fault {
        ring::fs::LockError::Held(_) => LogDirFault::InUse(path.to_path_buf()),
        ring::fs::LockError::Io(file, source) => LogDirFault::Io { path: file, what: "can't be locked", source },
    })?;
    probe_writes(fs, path).await.map_err(LogDirFault::io(path, "can't be written to"))?;
    Ok(Found { path: path.to_path_buf(), hosts_partitions, properties, lock })
}

async fn read_small(fs: &Fs, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path).await?;
    let mut bytes = vec![0; file.len().await?.min(SMALL_FILE_BYTES_MAX) as usize];
    file.read_exact_at(0, &mut bytes).await?;
    Ok(bytes)
}

/// A full disk, or one that went read-only, is better found before the start than by the first record.
async fn probe_writes(fs: &Fs, path: &Path) -> io::Result<()> {
    let probe = path.join(PROBE_FILE);
    let mut file = fs.create(&probe).await?;
    let written = match file.append(&[0; 4096]) {
        Ok(()) => file.sync().await,
        failed => failed,
    };
    drop(file);
    let removed = fs.remove_file(&probe).await;
    written.and(removed)
}

type Looked = Result<Found, (PathBuf, bool, String)>;

/// One cluster, and no directory twice.
fn check_together(found: &[Looked]) -> Result<String, LogDirFault> {
    let mut checked: Vec<&Found> = Vec::new();
    for directory in found.iter().flatten() {
        if let Some(first) = checked.first()
            && first.properties.cluster_id != directory.properties.cluster_id
        {
            return Err(LogDirFault::ClusterIdMismatch {
                path: directory.path.clone(),
                found: directory.properties.cluster_id.clone(),
                other: first.path.clone(),
                expected: first.properties.cluster_id.clone(),
            });
        }
        let id = directory.properties.directory_id;
        if let Some(other) = checked.iter().find(|other| id.is_some() && other.properties.directory_id == id) {
            return Err(LogDirFault::SameDirectoryId { path: directory.path.clone(), other: other.path.clone() });
        }
        checked.push(directory);
    }
    let first = checked.first().map(|first| first.properties.cluster_id.clone());
    first.ok_or_else(|| LogDirFault::NoneUsable("none is formatted".to_owned()))
}

async fn check_metadata_log(fs: &Fs, found: &[Looked], expected: &Path) -> Result<(), LogDirFault> {
    let name = partition_directory(CLUSTER_METADATA_TOPIC, PartitionIndex(0));
    for directory in found.iter().flatten().filter(|directory| directory.path != expected) {
        if fs.is_dir(&directory.path.join(&name)).await.unwrap_or(false) {
            return Err(LogDirFault::StrayMetadataLog {
                found: directory.path.clone(),
                expected: expected.to_path_buf(),
            });
        }
    }
    Ok(())
}

/// Removes the marker, and gives the directory an id if an old tool gave it none.
async fn take_over(
    fs: &Fs,
    found: &mut Found,
    clean_shutdown: Option<BrokerEpoch>,
    random: &mut Random,
) -> Result<(), LogDirFault> {
    if found.properties.directory_id.is_none() {
        let id = Uuid::random(random);
        found.properties.directory_id = Some(id);
        let path = found.path.join(META_PROPERTIES_FILE);
        let text = found.properties.format(ring::now().wall);
        fs.write_atomically(&path, text.as_bytes()).await.map_err(LogDirFault::io(&path, "can't be written"))?;
        info!(directory = %found.path.display(), %id, "gave the directory an id");
    }
    if clean_shutdown.is_some() {
        let path = found.path.join(CLEAN_SHUTDOWN_FILE);
        remove_marker(fs, &path).await.map_err(LogDirFault::io(&path, "can't be removed"))
    } else if found.hosts_partitions {
        // After a crash: what the process wrote last is in the page cache only, if the host lived on. What is found is taken
        // for what it is (a log by its topic id, to begin with), so all of it has to stay.
        fs.syncfs(&found.path).await.map_err(LogDirFault::io(&found.path, "can't be synced"))
    } else {
        Ok(())
    }
}

/// What the clean-shutdown marker says; `None` if there is none.
async fn read_marker(fs: &Fs, directory: &Path) -> Result<Option<BrokerEpoch>, LogDirFault> {
    let path = directory.join(CLEAN_SHUTDOWN_FILE);
    match read_small(fs, &path).await {
        Ok(bytes) => Ok(Some(parse_clean_shutdown(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogDirFault::io(&path, "can't be read")(error)),
    }
}

/// The marker must be gone from the device before anything is written: it would vouch for what a crash left.
async fn remove_marker(fs: &Fs, path: &Path) -> io::Result<()> {
    fs.remove_file(path).await?;
    fs.sync_dir(path.parent().unwrap_or(path)).await
}
