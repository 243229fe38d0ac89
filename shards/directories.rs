//! The log directories as they were found before the start.

use std::path::{Path, PathBuf};

use ringlog_ring as ring;
use ringlog_types::{BrokerEpoch, Uuid};

/// The node's log directories, checked; locked against other processes as long as this lives.
#[derive(Debug)]
pub struct CheckedLogDirs {
    /// `cluster.id`, the same in all of them.
    pub cluster_id: String,
    /// Those of `log.dirs` in its order, then `metadata.log.dir` if it isn't one of them.
    pub directories: Vec<LogDirectory>,
    /// Place of the directory with the metadata log.
    pub metadata_directory: usize,
}

/// One of them.
#[derive(Debug)]
pub struct LogDirectory {
    /// Absolute.
    pub path: PathBuf,
    /// `directory.id`. Zero when the directory couldn't be read.
    pub id: Uuid,
    /// Whether it is one of `log.dirs`, and not only the metadata log's.
    pub hosts_partitions: bool,
    /// The last stop was an orderly one: the broker epoch of that time, which may be none.
    pub clean_shutdown: Option<BrokerEpoch>,
    /// Why it can't be used, where others can.
    pub offline: Option<String>,
    /// Held for as long as the node runs.
    pub lock: Option<ring::fs::FileLock>,
}

impl CheckedLogDirs {
    /// Ids of the directories that can host partitions, ascending, as a registration lists them.
    pub fn usable_ids(&self) -> Vec<Uuid> {
        let usable = self.directories.iter().filter(|directory| directory.is_usable());
        let mut ids: Vec<Uuid> = usable.map(|directory| directory.id).collect();
        ids.sort_unstable();
        ids
    }

    /// The broker epoch to register with as the previous one: known only if every directory was left in order and all
    /// agree.
    pub fn previous_broker_epoch(&self) -> BrokerEpoch {
        let mut epochs = self.directories.iter().filter(|directory| directory.hosts_partitions).map(|directory| {
            directory.clean_shutdown.filter(|_| directory.offline.is_none()).unwrap_or(BrokerEpoch::NONE)
        });
        let first = epochs.next().unwrap_or(BrokerEpoch::NONE);
        if epochs.all(|epoch| epoch == first) { first } else { BrokerEpoch::NONE }
    }

    /// Whether every directory with partitions was left by an orderly stop.
    pub fn were_left_in_order(&self) -> bool {
        self.directories.iter().filter(|directory| directory.is_usable()).all(|it| it.clean_shutdown.is_some())
    }

    /// Where the metadata log lies.
    pub fn metadata_path(&self) -> &Path {
        &self.directories[self.metadata_directory].path
    }

    /// The place of a directory.
    pub fn place_of(&self, id: Uuid) -> Option<usize> {
        self.directories.iter().position(|directory| directory.is_usable() && directory.id == id)
    }
}

impl LogDirectory {
    /// Whether partitions can lie here.
    pub fn is_usable(&self) -> bool {
        self.hosts_partitions && self.offline.is_none()
    }
}
