//! Why a node can't use its log directories, in its operator's words.

use std::io;
use std::path::{Path, PathBuf};

use ringlog_log::meta_properties::MetaPropertiesError;
use ringlog_types::{NodeId, TopicPartition};

use crate::storage::disk_faults::explain;

/// Why a node doesn't start on its log directories. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogDirFault {
    /// There is no meta.properties.
    #[error(
        "{0} is not formatted: it has no meta.properties. Format it with `ringlog storage format -t CLUSTER_ID -c FILE` \
         (`ringlog storage random-uuid` makes a cluster id; a node that joins a cluster takes that cluster's)"
    )]
    NotFormatted(PathBuf),
    /// meta.properties can't be understood.
    #[error("{path}: {fault}. If this directory belongs to the node, restore the file; else format another directory", path = .path.display())]
    MetaProperties {
        /// The directory.
        path: PathBuf,
        /// What is wrong with the file.
        fault: MetaPropertiesError,
    },
    /// Two directories belong to different clusters.
    #[error(
        "cluster id mismatch: {path} belongs to cluster {found}, {other} to cluster {expected}. Correct log.dirs, or \
         format the directory that is wrong for this cluster", path = .path.display(), other = .other.display()
    )]
    ClusterIdMismatch {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: String,
        /// The directory that it is compared with.
        other: PathBuf,
        /// That one's cluster.
        expected: String,
    },
    /// The directory belongs to another node.
    #[error(
        "{path} belongs to node.id {found}, but the configuration says node.id={expected}. Correct node.id or log.dirs",
        path = .path.display()
    )]
    NodeIdMismatch {
        /// The directory.
        path: PathBuf,
        /// The node in its meta.properties.
        found: NodeId,
        /// `node.id`.
        expected: NodeId,
    },
    /// Two directories have the same id, so one is a copy of the other.
    #[error(
        "{path} and {other} have the same directory.id: one is a copy of the other. Remove the copy from log.dirs",
        path = .path.display(), other = .other.display()
    )]
    SameDirectoryId {
        /// One of them.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// The same directory twice.
    #[error("{0} is listed twice in log.dirs")]
    ListedTwice(PathBuf),
    /// Another process holds the lock.
    #[error("{0} is in use by another process: another Ringlog or Kafka node runs on it. Stop that one first")]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("{path}: {what}: {reason}", path = .path.display(), reason = explain(.source))]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Every directory of log.dirs failed.
    #[error("none of log.dirs can be used: {0}")]
    NoneUsable(String),
    /// The metadata log lies in a directory that isn't the metadata directory.
    #[error(
        "{found} holds a metadata log, but metadata.log.dir is {expected}. Set metadata.log.dir to where the metadata log is, \
         or remove the one that is old", found = .found.display(), expected = .expected.display()
    )]
    StrayMetadataLog {
        /// Where it was found.
        found: PathBuf,
        /// Where it should be.
        expected: PathBuf,
    },
    /// A partition lies in two directories.
    #[error(
        "{partition} lies in {first} and in {second}. One of them is a copy: move it out of log.dirs",
        first = .first.display(), second = .second.display()
    )]
    DuplicateLog {
        /// The partition.
        partition: TopicPartition,
        /// One directory.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

impl LogDirFault {
    pub(super) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> LogDirFault {
        let path = path.to_path_buf();
        move |source| LogDirFault::Io { path, what, source }
    }
}
