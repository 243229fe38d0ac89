//! What a log directory of a new node starts with: `meta.properties`, `bootstrap.checkpoint`, and where the metadata lies
//! the first snapshot of a dynamic quorum.

use std::io;
use std::path::Path;

use ringlog_log::meta_properties::MetaProperties;
use ringlog_log::names::{META_PROPERTIES_FILE, partition_directory};
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_raft::snapshot::{SnapshotWriter, bootstrap_snapshot};
use ringlog_raft::{SnapshotId, Voter};
use ringlog_ring::fs::Fs;
use ringlog_types::{CLUSTER_METADATA_TOPIC, LeaderEpoch, Offset, PartitionIndex, TimestampMs};

const BOOTSTRAP_CHECKPOINT_FILE: &str = "bootstrap.checkpoint";
/// The file's batches carry this epoch.
const BOOTSTRAP_CHECKPOINT_ID: SnapshotId = SnapshotId { end_offset: Offset(0), epoch: LeaderEpoch(0) };

/// What the directories of a node say.
pub struct DirectoryFormat<'a> {
    /// Whose it is.
    pub properties: MetaProperties,
    /// What the metadata of a new cluster begins with.
    pub bootstrap: &'a BootstrapMetadata,
    /// For the metadata's directory: the voters that a dynamic quorum starts with. None: no snapshot.
    pub voters: &'a [Voter],
    /// When.
    pub now: TimestampMs,
}

/// Makes a directory as `storage format` does, durably. `meta.properties` comes last: with it the directory counts as
/// formatted.
pub async fn format_directory(fs: &Fs, directory: &Path, format: &DirectoryFormat<'_>) -> io::Result<()> {
    let now = format.now;
    let is_new = !fs.is_dir(directory).await?;
    fs.create_dir_all(directory).await?;
    let checkpoint = bootstrap_checkpoint(format.bootstrap, now);
    fs.write_atomically(&directory.join(BOOTSTRAP_CHECKPOINT_FILE), &checkpoint).await?;
    if let Some(snapshot) = bootstrap_snapshot(format.voters.iter().cloned(), now) {
        let log = directory.join(partition_directory(CLUSTER_METADATA_TOPIC, PartitionIndex(0)));
        fs.create_dir_all(&log).await?;
        fs.write_atomically(&log.join(SnapshotId::BOOTSTRAP.file_name()), &snapshot).await?;
    }
    fs.write_atomically(&directory.join(META_PROPERTIES_FILE), format.properties.format(now).as_bytes()).await?;
    match directory.parent() {
        Some(parent) if is_new => fs.sync_dir(parent).await,
        _ => Ok(()),
    }
}

/// A snapshot of the bootstrap records.
fn bootstrap_checkpoint(bootstrap: &BootstrapMetadata, now: TimestampMs) -> Vec<u8> {
    let mut writer = SnapshotWriter::new(BOOTSTRAP_CHECKPOINT_ID, TimestampMs(0), None, now);
    for record in &bootstrap.records {
        let framed = record.record.encode_framed(record.version).expect("bootstrap records fit their versions");
        writer.append(&framed, now);
    }
    writer.finish(now).concat()
}
