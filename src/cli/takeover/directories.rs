//! The log directories of the node that is to be replaced, as they lie on this machine. They are only looked at.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::names::{
    CLEAN_SHUTDOWN_FILE, DirectoryKind, LOCK_FILE, META_PROPERTIES_FILE, PartitionDirectory, partition_directory,
};
use ringlog_types::{CLUSTER_METADATA_TOPIC, PartitionIndex, Uuid};
use rustix::fs::OFlags;
use rustix::process::{Flock, FlockOffsetType, FlockType};

use super::findings::{Finding, some_of};

/// Less free space than so many percent is warned of: a follower that catches up needs room.
const FREE_PERCENT: u64 = 10;

/// What a directory is there for, by the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// It is one of a broker's log directories.
    pub hosts_partitions: bool,
    /// The metadata log belongs there.
    pub hosts_metadata: bool,
}

/// What is in a directory.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// What it is there for.
    pub purpose: Purpose,
    /// `meta.properties`; none if it isn't there, an error if it can't be used.
    pub properties: Result<Option<MetaProperties>, String>,
    /// Whether a process has it locked; none if that can't be found out.
    pub is_in_use: Option<bool>,
    /// Whether an orderly stop left its mark.
    pub is_clean: bool,
    /// Whether the metadata log is there.
    pub has_metadata: bool,
    /// Copies that a move between directories is making.
    pub futures: Vec<String>,
    /// Replicas that the metadata gave to others.
    pub strays: Vec<String>,
    /// Deleted replicas whose files are still there.
    pub deleted: usize,
    /// Bytes that may be written, and bytes in all.
    pub space: Option<(u64, u64)>,
    /// Whether the file system takes direct I/O; none if it can't be tried.
    pub is_direct: Option<bool>,
}

impl Directory {
    /// Looks at it.
    pub fn look(path: &Path, purpose: Purpose) -> io::Result<Directory> {
        let file = path.join(META_PROPERTIES_FILE);
        let properties = match fs::read(&file) {
            Ok(bytes) => MetaProperties::parse(&bytes).map(Some).map_err(|fault| fault.to_string()),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(format!("{META_PROPERTIES_FILE} can't be read: {fault}")),
        };
        let space = rustix::fs::statvfs(path).ok();
        let mut directory = Directory {
            path: path.to_path_buf(),
            purpose,
            has_metadata: path.join(partition_directory(CLUSTER_METADATA_TOPIC, PartitionIndex(0))).is_dir(),
            properties,
            is_in_use: is_in_use(&path.join(LOCK_FILE)),
            is_clean: path.join(CLEAN_SHUTDOWN_FILE).exists(),
            futures: Vec::new(),
            strays: Vec::new(),
            deleted: 0,
            space: space.map(|it| (it.f_bavail * it.f_frsize, it.f_blocks * it.f_frsize)),
            is_direct: takes_direct(&file),
        };
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match PartitionDirectory::parse(&name).map(|it| it.kind) {
                Ok(DirectoryKind::Future) => directory.futures.push(name),
                Ok(DirectoryKind::Stray) => directory.strays.push(name),
                Ok(DirectoryKind::Delete) => directory.deleted += 1,
                Ok(DirectoryKind::Current) | Err(_) => {}
            }
        }
        Ok(directory)
    }
}

/// Asks who has the lock that nodes of both programs take, without taking it.
fn is_in_use(path: &Path) -> Option<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    let wanted = Flock { start: 0, length: 0, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    rustix::process::fcntl_getlk(&file, &wanted).ok().map(|holder| holder.is_some())
}

/// Opens a file as the server opens segments: what refuses O_DIRECT is used by way of the page cache.
fn takes_direct(path: &Path) -> Option<bool> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    let opened: io::Result<File> = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened {
        Ok(_) => Some(true),
        Err(fault) if matches!(fault.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Some(false),
        Err(_) => None,
    }
}

/// Whose directories they have to be.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The cluster that was asked.
    pub cluster_id: &'a str,
    /// `node.id`, if the configuration has one.
    pub node_id: Option<i32>,
}

/// Judges directories that are on this machine.
pub fn judge(directories: &[Directory], owner: Owner<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: Vec<(Uuid, &Path)> = Vec::new();
    for directory in directories {
        let name = directory.path.display();
        findings.extend(judge_owner(directory, owner));
        let id = directory.properties.as_ref().ok().and_then(|it| it.as_ref()?.directory_id);
        if let Some(id) = id {
            if let Some((_, other)) = seen.iter().find(|(known, _)| *known == id) {
                let other = other.display();
                findings
                    .push(Finding::stop(format!("{name} has the directory.id of {other}: one is a copy, remove it")));
            }
            seen.push((id, &directory.path));
        }
        findings.push(judge_stop(directory));
        findings.extend(judge_folders(directory));
        findings.extend(judge_disk(directory));
    }
    findings
}

fn judge_owner(directory: &Directory, owner: Owner<'_>) -> Vec<Finding> {
    let name = directory.path.display();
    let properties = match &directory.properties {
        Ok(Some(properties)) => properties,
        Ok(None) => {
            let text =
                format!("{name} has no {META_PROPERTIES_FILE}: it isn't formatted, or isn't the node's directory");
            return vec![Finding::stop(text)];
        }
        Err(reason) => return vec![Finding::stop(format!("{name}: {reason}: have the file mended"))],
    };
    let mut findings = Vec::new();
    if properties.cluster_id != owner.cluster_id {
        findings.push(Finding::stop(format!(
            "{name} belongs to cluster {}, and the brokers to {}: give the right --bootstrap-server or --config",
            properties.cluster_id, owner.cluster_id
        )));
    }
    if owner.node_id.is_some_and(|id| id != properties.node_id.0) {
        findings.push(Finding::stop(format!(
            "{name} belongs to node {}, and node.id is another: set node.id or log.dirs right",
            properties.node_id
        )));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(match properties.directory_id {
            Some(id) => format!("{name} is the node's, with directory.id {id}"),
            None => format!("{name} is the node's, and gets a directory.id at the start"),
        }));
    }
    findings
}

fn judge_stop(directory: &Directory) -> Finding {
    let name = directory.path.display();
    match (directory.is_in_use, directory.is_clean) {
        (Some(true), _) => Finding::ok(format!("{name} is in use: stop its node with SIGTERM before Ringlog starts")),
        (_, true) => Finding::ok(format!("{name} was left in order")),
        (Some(false), false) if !directory.purpose.hosts_partitions => Finding::ok(format!("{name} isn't in use")),
        (Some(false), false) => Finding::warn(format!(
            "{name} has no {CLEAN_SHUTDOWN_FILE}: its node was killed; logs are read and checked at the \
             start, which takes a while"
        )),
        (None, false) => {
            Finding::warn(format!("{name}: can't find out whether a node uses it: run this as the node's user"))
        }
    }
}

fn judge_folders(directory: &Directory) -> Vec<Finding> {
    let name = directory.path.display();
    let mut findings = Vec::new();
    if directory.has_metadata && !directory.purpose.hosts_metadata {
        findings.push(Finding::stop(format!(
            "{name} has the metadata log, which belongs elsewhere by the configuration: mend metadata.log.dir or log.dirs"
        )));
    }
    if !directory.futures.is_empty() {
        findings.push(Finding::ok(format!(
            "{name} has copies of a move between directories, which Ringlog goes on with: {}",
            some_of(&directory.futures)
        )));
    }
    if !directory.strays.is_empty() {
        findings.push(Finding::warn(format!(
            "{name} has replicas that aren't this broker's any more, which stay as they are: remove them if nobody wants \
             them: {}",
            some_of(&directory.strays)
        )));
    }
    if directory.deleted > 0 {
        findings.push(Finding::ok(format!("{name} has {} deleted replicas, which Ringlog removes", directory.deleted)));
    }
    findings
}

fn judge_disk(directory: &Directory) -> Vec<Finding> {
    let name = directory.path.display();
    let mut findings = Vec::new();
    if let Some((free, all)) = directory.space {
        let percent = free.saturating_mul(100) / all.max(1);
        let text = format!("{name} has {percent} % of its disk free");
        findings.push(match percent < FREE_PERCENT {
            true => Finding::warn(format!("{text}: free some, records for a full disk are refused")),
            false => Finding::ok(text),
        });
    }
    findings.extend(directory.is_direct.map(|is_direct| match is_direct {
        true => Finding::ok(format!("{name} takes direct I/O")),
        false => Finding::warn(format!("{name} doesn't take direct I/O: Ringlog goes through the page cache there")),
    }));
    findings
}

#[cfg(test)]
#[path = "directories_tests.rs"]
mod tests;
