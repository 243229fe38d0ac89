//! What DescribeLogDirs shows.

use std::path::PathBuf;
use std::rc::Rc;

use ringlog_ring as ring;
use ringlog_types::{ErrorCode, TopicPartition};

use super::room::LogDirs;
use crate::core::Room as _;
use crate::mesh::LocalFuture;
use crate::storage::log_read::StoredLog;

/// One log directory of `log.dirs`.
#[derive(Debug, Clone)]
pub struct DirectoryDescription {
    /// Absolute.
    pub path: PathBuf,
    /// [`ErrorCode::KafkaStorageError`] when it is offline.
    pub error: ErrorCode,
    /// Size of its file system, -1 when not known.
    pub total_bytes: i64,
    /// What can still be written there, -1 when not known.
    pub usable_bytes: i64,
    /// Whether `cordoned.log.dirs` names it.
    pub is_cordoned: bool,
    /// Its logs, by name. Empty when it is offline.
    pub logs: Vec<LogDescription>,
}

/// A log in it.
#[derive(Debug, Clone)]
pub struct LogDescription {
    /// Which partition.
    pub name: TopicPartition,
    /// Bytes of its segments.
    pub size_bytes: i64,
    /// How far it is behind: its high watermark for the replica in use, the replica for one that is being moved in.
    pub offset_lag: i64,
    /// It will take the place of the replica in use.
    pub is_future: bool,
}

impl LogDirs {
    /// The node's log directories with the logs of all shards.
    pub async fn describe(self: &Rc<Self>) -> Vec<DirectoryDescription> {
        let mut answers = Vec::new();
        for core in 0..self.core.node.shards {
            let work = |dirs: &Rc<LogDirs>| -> LocalFuture<Vec<(usize, LogDescription)>> {
                Box::pin(std::future::ready(describe_here(dirs)))
            };
            answers.push(self.begin_on(core, work).await);
        }
        let mut logs = Vec::new();
        for answer in answers {
            logs.append(&mut answer.answer().await);
        }
        logs.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let mut described = Vec::new();
        for (place, directory) in self.core.node.log_dirs.directories.iter().enumerate() {
            if directory.hosts_partitions {
                let is_online = directory.is_usable() && !self.has_failed(place);
                let space = if is_online { ring::fs::space(&directory.path).await.ok() } else { None };
                let bytes = |bytes: Option<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
                let of_directory = logs.iter().filter(|(found, _)| is_online && *found == place);
                described.push(DirectoryDescription {
                    path: directory.path.clone(),
                    error: if is_online { ErrorCode::None } else { ErrorCode::KafkaStorageError },
                    total_bytes: bytes(space.map(|space| space.total_bytes)),
                    usable_bytes: bytes(space.map(|space| space.available_bytes)),
                    is_cordoned: self.is_cordoned(place),
                    logs: of_directory.map(|(_, log)| log.clone()).collect(),
                });
            }
        }
        described
    }
}

fn describe_here(dirs: &Rc<LogDirs>) -> Vec<(usize, LogDescription)> {
    let describe = |replica: Rc<crate::data::replica::Replica>| {
        let (size, end_offset) = replica.with_log(|log| (log.size(), log.log_end_offset()));
        let description = LogDescription {
            name: replica.name.clone(),
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: (replica.high_watermark().0 - end_offset.0).max(0),
            is_future: false,
        };
        (replica.log_dir(), description)
    };
    let mut described: Vec<_> = dirs.replicas.all().into_iter().map(describe).collect();
    for moving in dirs.moves.all() {
        let (size, end_offset) = moving.future.with_log(|log| (log.size(), log.log_end_offset()));
        let description = LogDescription {
            name: moving.future.name.clone(),
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: moving.current.log_end_offset().0 - end_offset.0,
            is_future: true,
        };
        described.push((moving.target, description));
    }
    described
}
