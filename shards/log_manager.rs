//! A node's log directories.

use std::path::PathBuf;
use std::rc::Rc;

use ringlog_config::ServerConfig;
use ringlog_types::Uuid;

use crate::shard::Shard;

/// The logs of one core.
#[derive(Default)]
pub struct LogDirs {}

/// A checked and locked directory.
#[derive(Debug)]
pub struct LogDirectory {
    /// Where.
    pub path: PathBuf,
    /// Its id.
    pub id: Uuid,
}

/// The node's directories.
#[derive(Debug)]
pub struct CheckedLogDirs {
    /// From meta.properties.
    pub cluster_id: String,
    /// In the order of `log.dirs`.
    pub directories: Vec<LogDirectory>,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LogDirFault {}

/// Checks and locks.
pub fn check_and_lock(_config: &ServerConfig) -> Result<CheckedLogDirs, LogDirFault> {
    Ok(CheckedLogDirs { cluster_id: String::new(), directories: Vec::new() })
}

/// Opens this core's logs.
pub async fn open(_shard: &Rc<Shard>) -> Result<(), LogDirFault> {
    Ok(())
}

/// Closes all logs of the node in order.
pub async fn close_all(_shard: &Rc<Shard>) {}
