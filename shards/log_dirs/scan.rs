//! Listing what lies in a log directory, and in a partition's. One trip to the helper thread for each.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use ringlog_log::checkpoint::{EpochEntry, parse_leader_epoch_checkpoint};
use ringlog_log::names::{
    DirectoryKind, FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, PARTITION_METADATA_FILE, PartitionDirectory,
    SegmentFile,
};
use ringlog_log::offset_index::{OFFSET_INDEX_ENTRY_LEN, OffsetIndex};
use ringlog_log::partition_metadata::parse_partition_metadata;
use ringlog_log::time_index::{TIME_INDEX_ENTRY_LEN, TimeIndex};
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_log::{LoadedIndexes, SegmentOnDisk};
use ringlog_ring as ring;
use ringlog_ring::fs::{Fs, Metadata};
use ringlog_types::{CLUSTER_METADATA_TOPIC, Offset, PartitionIndex, TopicIdPartition, TopicPartition};
use tracing::warn;

use super::leftovers;
use crate::placement;

/// The largest file that is read whole: an index at its largest, and more.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 30;
/// Kafka's directory for indexes of tiered segments.
const REMOTE_INDEX_CACHE_DIRECTORY: &str = "remote-log-index-cache";

/// What lies in a log directory, as far as one shard is concerned.
#[derive(Default)]
pub(super) struct DirectoryScan {
    /// Logs that live on the shard.
    pub logs: Vec<FoundLog>,
    /// `-delete` directories; shard 0 removes them.
    pub deleted: Vec<PathBuf>,
    /// Partition directories without a readable topic id; shard 0 sees to them.
    pub nameless: Vec<PathBuf>,
    /// Copies of logs that live on the shard, on their way from other directories.
    pub futures: Vec<FoundLog>,
}

/// A partition's directory.
pub(super) struct FoundLog {
    pub id: TopicIdPartition,
    pub name: TopicPartition,
    pub path: PathBuf,
}

/// Lists a log directory for the shard `index` of `shards`.
pub(super) async fn scan_directory(path: PathBuf, index: usize, shards: usize) -> io::Result<DirectoryScan> {
    ring::fs::run(async move |fs| {
        let mut scan = DirectoryScan::default();
        for entry in fs.names(&path).await? {
            if entry.is_dir {
                scan.take(&fs, &entry.name, path.join(&entry.name), index, shards).await?;
            }
        }
        Ok(scan)
    })
    .await
}

impl DirectoryScan {
    async fn take(&mut self, fs: &Fs, name: &OsStr, path: PathBuf, index: usize, shards: usize) -> io::Result<()> {
        let parsed = name.to_str().and_then(|name| PartitionDirectory::parse(name).ok());
        let Some(found) = parsed else {
            if index == 0 && name != REMOTE_INDEX_CACHE_DIRECTORY && name != "lost+found" {
                warn!(directory = %path.display(), "not a partition's directory; left alone");
            }
            return Ok(());
        };
        let is_metadata_log = found.topic == CLUSTER_METADATA_TOPIC && found.partition == PartitionIndex(0);
        match found.kind {
            DirectoryKind::Current if is_metadata_log => {}
            DirectoryKind::Current | DirectoryKind::Future => match topic_id_of(fs, &path).await? {
                Some(topic_id) => {
                    let id = TopicIdPartition { topic_id, partition: found.partition };
                    if placement::shard_of(id, shards) == index {
                        let name = TopicPartition { topic: found.topic.into(), partition: found.partition };
                        let is_future = found.kind == DirectoryKind::Future;
                        let logs = if is_future { &mut self.futures } else { &mut self.logs };
                        logs.push(FoundLog { id, name, path });
                    }
                }
                None if index == 0 => self.nameless.push(path),
                None => {}
            },
            DirectoryKind::Delete if index == 0 => self.deleted.push(path),
            DirectoryKind::Delete => {}
            DirectoryKind::Stray if index == 0 => warn!(
                directory = %path.display(),
                "stray: the metadata doesn't give this replica to this node. Remove it once you are sure of that"
            ),
            DirectoryKind::Stray => {}
        }
        Ok(())
    }
}

/// The topic id in a partition's directory, if there is one.
pub(super) async fn topic_id_of(fs: &Fs, path: &Path) -> io::Result<Option<ringlog_types::Uuid>> {
    let bytes = fs.read_if_there(&path.join(PARTITION_METADATA_FILE), FILE_BYTES_MAX).await?;
    Ok(bytes.and_then(|bytes| parse_partition_metadata(&bytes).ok()))
}

/// What lies in a partition's directory, leftovers of a crash settled.
pub(super) struct LogScan {
    pub segments: Vec<SegmentOnDisk>,
    /// Index files that are there, whatever they are worth.
    pub indexes: BTreeSet<(Offset, FileKind)>,
    /// Only after an orderly stop.
    pub newest_indexes: Option<LoadedIndexes>,
    pub snapshots: Vec<Offset>,
    pub leader_epochs: Vec<EpochEntry>,
    /// The leader epochs can't be read: they have to be found again in the batches.
    pub epochs_are_damaged: bool,
}

/// Lists a partition's directory.
pub(super) async fn scan_log(path: PathBuf, clean_shutdown: bool) -> io::Result<LogScan> {
    ring::fs::run(async move |fs| {
        leftovers::settle(&fs, &path).await?;
        let mut scan = LogScan {
            segments: Vec::new(),
            indexes: BTreeSet::new(),
            newest_indexes: None,
            snapshots: Vec::new(),
            leader_epochs: Vec::new(),
            epochs_are_damaged: false,
        };
        let mut indexes: BTreeSet<(Offset, FileKind)> = BTreeSet::new();
        for entry in fs.names(&path).await? {
            let Some(file) = entry.name.to_str().and_then(SegmentFile::parse) else { continue };
            match file.kind {
                _ if file.state != FileState::Live => {}
                FileKind::Log => {
                    let found = fs.metadata(&path.join(&entry.name)).await?;
                    scan.segments.push(segment(file.offset, &found));
                }
                FileKind::ProducerSnapshot => scan.snapshots.push(file.offset),
                kind => drop(indexes.insert((file.offset, kind))),
            }
        }
        scan.segments.sort_unstable_by_key(|segment| segment.base_offset);
        scan.snapshots.sort_unstable();
        let newest = scan.segments.last().map(|segment| segment.base_offset);
        for segment in &mut scan.segments {
            let base_offset = segment.base_offset;
            segment.has_transaction_index = indexes.contains(&(base_offset, FileKind::TransactionIndex));
            let both = [FileKind::OffsetIndex, FileKind::TimeIndex];
            if both.iter().all(|kind| indexes.contains(&(base_offset, *kind))) && newest != Some(base_offset) {
                look_at_indexes(&fs, &path, segment).await?;
            }
        }
        if let Some(newest) = scan.segments.last_mut().filter(|_| clean_shutdown) {
            scan.newest_indexes = load_indexes(&fs, &path, newest).await?;
            newest.has_valid_indexes = scan.newest_indexes.is_some();
        }
        let epochs = fs.read_if_there(&path.join(LEADER_EPOCH_CHECKPOINT_FILE), FILE_BYTES_MAX).await?;
        match epochs.map(|bytes| parse_leader_epoch_checkpoint(&bytes)) {
            None => {}
            Some(Ok(epochs)) => scan.leader_epochs = epochs,
            Some(Err(fault)) => {
                warn!(directory = %path.display(), "leader-epoch-checkpoint: {fault}; read anew from the log");
                scan.epochs_are_damaged = true;
            }
        }
        scan.indexes = indexes;
        Ok(scan)
    })
    .await
}

fn segment(base_offset: Offset, found: &Metadata) -> SegmentOnDisk {
    SegmentOnDisk {
        base_offset,
        // No segment is so large; recovery cuts what can't be one.
        size: u32::try_from(found.len).unwrap_or(u32::MAX),
        last_modified: found.modified,
        has_valid_indexes: false,
        has_transaction_index: false,
        newest: None,
    }
}

fn index_path(path: &Path, base_offset: Offset, kind: FileKind) -> PathBuf {
    path.join(SegmentFile::live(base_offset, kind).to_string())
}

/// Of a sealed segment only the size of its indexes and the last entry of the time index are looked at.
async fn look_at_indexes(fs: &Fs, path: &Path, segment: &mut SegmentOnDisk) -> io::Result<()> {
    let base_offset = segment.base_offset;
    let offsets = fs.metadata(&index_path(path, base_offset, FileKind::OffsetIndex)).await?.len;
    let times_path = index_path(path, base_offset, FileKind::TimeIndex);
    let times = fs.open(&times_path).await?;
    let len = times.len().await?;
    let entry_len = TIME_INDEX_ENTRY_LEN as u64;
    if !offsets.is_multiple_of(OFFSET_INDEX_ENTRY_LEN as u64) || !len.is_multiple_of(entry_len) {
        return Ok(());
    }
    segment.has_valid_indexes = true;
    if len == 0 {
        return Ok(());
    }
    let mut last = [0; TIME_INDEX_ENTRY_LEN];
    times.read_exact_at(len - entry_len, &mut last).await?;
    // Zeros: preallocated room, so the last entry lies further ahead.
    let is_room = last == [0; TIME_INDEX_ENTRY_LEN];
    let bytes = if is_room { fs.read(&times_path, FILE_BYTES_MAX).await? } else { last.to_vec() };
    match TimeIndex::load(base_offset, &bytes) {
        Ok(index) if index.is_empty() => {}
        Ok(index) => segment.newest = Some(index.last()),
        Err(_) => segment.has_valid_indexes = false,
    }
    Ok(())
}

/// `None` when any of them is missing or damaged: the segment is then read whole.
async fn load_indexes(fs: &Fs, path: &Path, newest: &SegmentOnDisk) -> io::Result<Option<LoadedIndexes>> {
    let base_offset = newest.base_offset;
    let read = async |kind| fs.read_if_there(&index_path(path, base_offset, kind), FILE_BYTES_MAX).await;
    let (Some(offsets), Some(times)) = (read(FileKind::OffsetIndex).await?, read(FileKind::TimeIndex).await?) else {
        return Ok(None);
    };
    let transactions = read(FileKind::TransactionIndex).await?.unwrap_or_default();
    let loaded = (
        OffsetIndex::load(base_offset, &offsets),
        TimeIndex::load(base_offset, &times),
        TransactionIndex::load(base_offset, &transactions),
    );
    Ok(match loaded {
        (Ok(offsets), Ok(times), Ok(transactions)) => Some(LoadedIndexes { offsets, times, transactions }),
        _ => None,
    })
}
