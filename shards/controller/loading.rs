//! What the controller finds on disk at start: log, snapshots, election state, bootstrap records.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::checkpoint::{EpochEntry, parse_leader_epoch_checkpoint};
use ringlog_log::names::{
    BOOTSTRAP_CHECKPOINT_FILE, FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, PARTITION_METADATA_FILE,
    QUORUM_STATE_FILE, SegmentFile, partition_directory,
};
use ringlog_log::partition_metadata::format_partition_metadata;
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{Log, LogConfig, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep, SegmentOnDisk};
use ringlog_metadata::MetadataLoader;
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_metadata::image::{LoadError, Provenance};
use ringlog_partition::{Partition, PartitionLimits};
use ringlog_protocol::DecodeError;
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_raft::control_records::ControlRecordError;
use ringlog_raft::quorum_state::QuorumStateError;
use ringlog_raft::snapshot::{self, SnapshotError, SnapshotSummary};
use ringlog_raft::{ControlHistory, LoadedState, QuorumState, SnapshotFile, SnapshotId};
use ringlog_ring as ring;
use ringlog_types::{
    CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, Offset, PartitionIndex, TimestampMs, TopicIdPartition,
    TopicPartition, Uuid,
};
use tracing::info;

use super::metadata_log::{MetadataLog, MetadataLogError, READ_BYTES, SnapshotInfo};
use super::settings;
use crate::replica::Replica;
use crate::segment_store::SegmentStore;
use crate::shard::Shard;

/// Small files are no larger.
const SMALL_FILE_BYTES: usize = 4 * 1024 * 1024;
/// The largest snapshot that is loaded: a cluster of a million partitions needs about a tenth.
const SNAPSHOT_BYTES: usize = 2 * 1024 * 1024 * 1024;

/// Why the metadata directory can't be loaded. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The disk, or the log's bytes.
    #[error("the metadata log can't be loaded: {0}")]
    Log(#[from] MetadataLogError),
    /// A small file can't be understood.
    #[error("{path}: {source}")]
    QuorumState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: QuorumStateError,
    },
    /// A snapshot is damaged.
    #[error("{path}: {source}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotError,
    },
    /// A record that this release doesn't know.
    #[error("{path}: a metadata record can't be read: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// Control records of the log make no sense.
    #[error("the metadata log holds a damaged control record: {0}")]
    Control(#[from] ControlRecordError),
    /// Records contradict each other.
    #[error("the metadata can't be replayed: {0}")]
    Replay(#[from] LoadError),
    /// The beginning is gone.
    #[error(
        "{path}: the metadata log starts at offset {log_start_offset}, but there is no snapshot at or above it; restore \
         the directory from a backup, or format this node anew and let it join"
    )]
    NoSnapshot {
        /// The directory.
        path: PathBuf,
        /// Where the log starts.
        log_start_offset: Offset,
    },
}

/// Everything the driver starts with.
pub struct Loaded {
    /// The log.
    pub log: Rc<MetadataLog>,
    /// For raft.
    pub state: LoadedState,
    /// Image as of the latest snapshot.
    pub loader: MetadataLoader,
    /// First records of a new cluster.
    pub bootstrap: BootstrapMetadata,
    /// The directory's id; zero when Kafka before 3.7 formatted it.
    pub directory_id: Uuid,
    /// Bytes of records that the latest snapshot doesn't cover.
    pub bytes_since_snapshot: u64,
}

/// Loads the metadata directory of this node; makes what is missing.
pub async fn load(shard: &Rc<Shard>) -> Result<Loaded, LoadFault> {
    let config = &shard.node.config;
    let log_dirs = &shard.node.log_dirs;
    let root = log_dirs.metadata_path().to_owned();
    let directory_id = log_dirs.directories[log_dirs.metadata_directory].id;
    let directory = root.join(partition_directory(CLUSTER_METADATA_TOPIC, PartitionIndex(0)));
    let is_new = make_directory(&directory).await?;
    let files = list(&directory).await?;
    let bootstrap = read_bootstrap(&root, config.log_dirs.first()).await?;
    let mut snapshots = files.snapshots;
    let latest = snapshots.keys().next_back().copied();
    let mut log_config = settings::metadata_log(config);
    let mut recovered = recover(&directory, files.segments, files.producer_snapshots, &log_config).await?;
    let quorum_state = read_quorum_state(&directory).await?;

    let mut history = ControlHistory::new(settings::static_voters(config));
    let mut loader = MetadataLoader::new();
    if let Some(id) = latest {
        let summary = load_snapshot(&directory, id, &mut loader).await?;
        if let Some(info) = snapshots.get_mut(&id) {
            info.last_contained_ms = Some(summary.last_contained_log_timestamp.0);
        }
        history.load_snapshot(id, summary.kraft_version, summary.voters);
    }
    log_config.preallocate = false;
    let log = open_log(shard, &directory, &mut recovered, log_config, snapshots);
    let log_start_offset = log.start_offset();
    if log_start_offset > Offset(0) && latest.is_none_or(|id| id.end_offset < log_start_offset) {
        return Err(LoadFault::NoSnapshot { path: directory, log_start_offset });
    }
    let mut state = LoadedState {
        quorum_state,
        log_start_offset,
        log_end_offset: log.end_offset(),
        epochs: log.epochs(),
        snapshots: log.snapshots.borrow().keys().copied().collect(),
        history,
        is_rebuilding: false,
    };
    if let Some(id) = state.log_must_restart_at() {
        restart_at(&log, id).await?;
        state.log_start_offset = log.start_offset();
        state.log_end_offset = log.end_offset();
        state.epochs = log.epochs();
    }
    let from = latest.map_or(state.log_start_offset, |id| id.end_offset.max(state.log_start_offset));
    let bytes_since_snapshot = read_control_records(&log, from, &mut state.history).await?;
    if !is_new {
        info!(
            directory = %log.directory.display(),
            log.start = state.log_start_offset.0,
            log.end = state.log_end_offset.0,
            snapshot = latest.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            "metadata log loaded"
        );
    }
    Ok(Loaded { log, state, loader, bootstrap, directory_id, bytes_since_snapshot })
}

fn io_fault(path: &Path) -> impl FnOnce(io::Error) -> LoadFault {
    move |source| LoadFault::Log(MetadataLogError::Io { path: path.to_owned(), source })
}

/// A small file's bytes; `None` when there is no such file.
async fn read_small(path: &Path) -> Result<Option<Vec<u8>>, LoadFault> {
    match ring::fs::read_to_vec(path, SMALL_FILE_BYTES).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_fault(path)(error)),
    }
}

/// Returns whether it wasn't there.
async fn make_directory(directory: &Path) -> Result<bool, LoadFault> {
    let path = directory.join(PARTITION_METADATA_FILE);
    if read_small(&path).await?.is_some() {
        return Ok(false);
    }
    ring::fs::create_dir_all(directory).await.map_err(io_fault(directory))?;
    let text = format_partition_metadata(CLUSTER_METADATA_TOPIC_ID);
    ring::fs::write_atomically(path.clone(), text.into_bytes()).await.map_err(io_fault(&path))?;
    Ok(true)
}

#[derive(Default)]
struct Files {
    segments: BTreeMap<Offset, SegmentOnDisk>,
    producer_snapshots: Vec<Offset>,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
}

/// What is in the directory; leftovers of writing and deleting are removed.
async fn list(directory: &Path) -> Result<Files, LoadFault> {
    let mut files = Files::default();
    let entries = ring::fs::read_dir(directory).await.map_err(io_fault(directory))?;
    let names: Vec<_> = entries.iter().filter_map(|entry| entry.name.to_str()).collect();
    for entry in &entries {
        let Some(name) = entry.name.to_str() else { continue };
        match (SnapshotId::parse_file_name(name), SegmentFile::parse(name)) {
            (Some((id, SnapshotFile::Complete)), _) => {
                files.snapshots.insert(id, SnapshotInfo { size: entry.metadata.len, last_contained_ms: None });
            }
            (Some(_), _) | (None, Some(SegmentFile { state: FileState::Deleted, .. })) => {
                let path = directory.join(name);
                ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
            }
            (None, Some(SegmentFile { offset, kind: FileKind::Log, state: FileState::Live })) => {
                let has = |kind| names.contains(&SegmentFile::live(offset, kind).to_string().as_str());
                files.segments.insert(
                    offset,
                    SegmentOnDisk {
                        base_offset: offset,
                        size: u32::try_from(entry.metadata.len).unwrap_or(u32::MAX),
                        last_modified: entry.metadata.modified,
                        has_valid_indexes: has(FileKind::OffsetIndex) && has(FileKind::TimeIndex),
                        has_transaction_index: false,
                        newest: None,
                    },
                );
            }
            (None, Some(SegmentFile { offset, kind: FileKind::ProducerSnapshot, state: FileState::Live })) => {
                files.producer_snapshots.push(offset);
            }
            _ => {}
        }
    }
    Ok(files)
}

/// The records of bootstrap.checkpoint; those of the newest release when there is no such file.
async fn read_bootstrap(root: &Path, first_log_dir: Option<&String>) -> Result<BootstrapMetadata, LoadFault> {
    let mut candidates = vec![root.join(BOOTSTRAP_CHECKPOINT_FILE)];
    candidates.extend(first_log_dir.map(|directory| Path::new(directory).join(BOOTSTRAP_CHECKPOINT_FILE)));
    for path in candidates {
        if let Some(bytes) = read_small(&path).await? {
            let (_, records) = parse_snapshot(&path, &bytes)?;
            return Ok(BootstrapMetadata::from_records(records));
        }
    }
    Ok(BootstrapMetadata::latest())
}

fn parse_snapshot(path: &Path, file: &[u8]) -> Result<(SnapshotSummary, Vec<RecordAndVersion>), LoadFault> {
    let mut records = Vec::new();
    let mut undecodable = None;
    let summary = snapshot::read(file, |value| match MetadataRecord::decode_framed(Bytes::copy_from_slice(value)) {
        Ok((record, version)) => records.push(RecordAndVersion { record, version }),
        Err(error) => {
            undecodable.get_or_insert(error);
        }
    });
    let summary = summary.map_err(|source| LoadFault::Snapshot { path: path.to_owned(), source })?;
    match undecodable {
        Some(source) => Err(LoadFault::Record { path: path.to_owned(), source }),
        None => Ok((summary, records)),
    }
}

async fn load_snapshot(
    directory: &Path,
    id: SnapshotId,
    loader: &mut MetadataLoader,
) -> Result<SnapshotSummary, LoadFault> {
    let path = directory.join(id.file_name());
    let bytes = ring::fs::read_to_vec(path.clone(), SNAPSHOT_BYTES).await.map_err(io_fault(&path))?;
    let (summary, records) = parse_snapshot(&path, &bytes)?;
    if id != SnapshotId::BOOTSTRAP {
        let provenance = Provenance {
            last_contained_offset: id.end_offset.plus(-1),
            last_contained_epoch: id.epoch,
            last_contained_timestamp: summary.last_contained_log_timestamp,
            is_offset_batch_aligned: true,
        };
        loader.load_snapshot(provenance, records.iter().map(|it| &it.record))?;
    }
    Ok(summary)
}

async fn read_quorum_state(directory: &Path) -> Result<Option<QuorumState>, LoadFault> {
    let path = directory.join(QUORUM_STATE_FILE);
    let Some(bytes) = read_small(&path).await? else { return Ok(None) };
    QuorumState::from_json(&bytes).map(Some).map_err(|source| LoadFault::QuorumState { path, source })
}

async fn read_epochs(directory: &Path) -> Result<Vec<EpochEntry>, LoadFault> {
    // A damaged file costs nothing: the log is read from its start.
    let bytes = read_small(&directory.join(LEADER_EPOCH_CHECKPOINT_FILE)).await?.unwrap_or_default();
    Ok(parse_leader_epoch_checkpoint(&bytes).unwrap_or_default())
}

/// Reads the whole log, as Kafka does with this one after every stop, and cuts what is torn.
async fn recover(
    directory: &Path,
    segments: BTreeMap<Offset, SegmentOnDisk>,
    producer_snapshots: Vec<Offset>,
    config: &LogConfig,
) -> Result<Recovered, LoadFault> {
    let input = RecoveryInput {
        log_start_offset: segments.keys().next().copied().unwrap_or(Offset(0)),
        segments: segments.into_values().collect(),
        newest_indexes: None,
        recovery_point: Offset(0),
        clean_shutdown: false,
        snapshots: producer_snapshots,
        leader_epochs: read_epochs(directory).await?,
        truncate_to: None,
    };
    let mut recovery = Recovery::new(input, config, ring::now().wall);
    loop {
        match recovery.step() {
            RecoveryStep::Done => break,
            // Nobody produces to this log with a producer id.
            RecoveryStep::LoadSnapshot { .. } => recovery.on_snapshot(Some(&[])),
            RecoveryStep::Read { segment_base_offset, position, min_length } => {
                let path = directory.join(SegmentFile::live(segment_base_offset, FileKind::Log).to_string());
                let file = ring::File::open(&path, ring::Open::READ).await.map_err(io_fault(&path))?;
                let len = READ_BYTES.max(min_length as usize);
                let bytes = file.read(u64::from(position), len).await.map_err(io_fault(&path))?;
                recovery.on_bytes(&bytes);
            }
        }
    }
    let recovered = recovery.finish();
    if recovered.truncated_bytes > 0 {
        info!(directory = %directory.display(), bytes = recovered.truncated_bytes, "cut off a torn end");
    }
    for action in &recovered.actions {
        carry_out(directory, action, recovered.log.active.base_offset).await?;
    }
    Ok(recovered)
}

async fn carry_out(directory: &Path, action: &RecoveryAction, active: Offset) -> Result<(), LoadFault> {
    let path = |offset: Offset, kind: FileKind| directory.join(SegmentFile::live(offset, kind).to_string());
    match action {
        RecoveryAction::TruncateSegment { base_offset, size } => {
            let path = path(*base_offset, FileKind::Log);
            let file = ring::File::open(&path, ring::Open::WRITE).await.map_err(io_fault(&path))?;
            file.truncate(u64::from(*size)).await.map_err(io_fault(&path))?;
            file.fdatasync().await.map_err(io_fault(&path))
        }
        RecoveryAction::DeleteSegment { base_offset } => {
            for kind in FileKind::ALL {
                let path = path(*base_offset, kind);
                ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
            }
            Ok(())
        }
        // Those of the active segment are written when it is sealed or closed.
        RecoveryAction::WriteIndexes { base_offset, .. } if *base_offset == active => Ok(()),
        RecoveryAction::WriteIndexes { base_offset, index, .. } => {
            for (kind, bytes) in [
                (FileKind::OffsetIndex, index.offsets.encode_from(0)),
                (FileKind::TimeIndex, index.times.encode_from(0)),
            ] {
                let path = path(*base_offset, kind);
                ring::fs::write_atomically(path.clone(), bytes).await.map_err(io_fault(&path))?;
            }
            Ok(())
        }
        // The store makes it with the first append.
        RecoveryAction::CreateSegment { .. } => Ok(()),
        RecoveryAction::DeleteSnapshot { offset } => {
            let path = path(*offset, FileKind::ProducerSnapshot);
            ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))
        }
        RecoveryAction::WriteSnapshot { offset, entries } => {
            let path = path(*offset, FileKind::ProducerSnapshot);
            let bytes = encode_producer_snapshot(entries);
            ring::fs::write_atomically(path.clone(), bytes).await.map_err(io_fault(&path))
        }
    }
}

fn open_log(
    shard: &Rc<Shard>,
    directory: &Path,
    recovered: &mut Recovered,
    config: LogConfig,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
) -> Rc<MetadataLog> {
    let opened = recovered.log.clone();
    let (base_offset, size) = (opened.active.base_offset, u64::from(opened.active.size));
    let path = directory.join(SegmentFile::live(base_offset, FileKind::Log).to_string());
    let exists = path.exists();
    let store = SegmentStore::new(shard.store.clone(), directory.to_owned(), base_offset, size, exists.then_some(size));
    let id = TopicIdPartition { topic_id: CLUSTER_METADATA_TOPIC_ID, partition: PartitionIndex(0) };
    let name = TopicPartition { topic: CLUSTER_METADATA_TOPIC.into(), partition: PartitionIndex(0) };
    let log = Log::open(opened, ring::now().wall);
    let high_watermark = log.log_start_offset();
    let partition = Partition::new(id, shard.node.id, log, high_watermark, PartitionLimits::default());
    let config = Rc::new(config);
    Rc::new(MetadataLog {
        directory: directory.to_owned(),
        replica: Replica::new(partition, name, 0, store, config.clone()),
        config,
        snapshots: RefCell::new(snapshots),
    })
}

/// Empties the log so that it begins at the end of a snapshot that lies beyond it.
async fn restart_at(log: &Rc<MetadataLog>, id: SnapshotId) -> Result<(), LoadFault> {
    let now = ring::now().wall;
    let deleted = log.replica.partition.borrow_mut().log_mut().truncate_fully_and_start_at(id.end_offset, now);
    for segment in deleted {
        log.replica.store.forget(segment.base_offset);
        for kind in FileKind::ALL {
            let path = log.directory.join(SegmentFile::live(segment.base_offset, kind).to_string());
            ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
        }
    }
    log.replica.store.reset(id.end_offset, 0, None);
    log.replica.partition.borrow_mut().log_mut().leader_epochs_mut().assign(id.epoch, id.end_offset);
    info!(directory = %log.directory.display(), snapshot = %id, "the log begins anew at the end of its snapshot");
    Ok(())
}

/// Reads the log from `from` to its end, committed or not. Returns how many bytes that was.
async fn read_control_records(log: &MetadataLog, from: Offset, history: &mut ControlHistory) -> Result<u64, LoadFault> {
    let (mut at, mut bytes) = (from, 0);
    while at < log.end_offset() {
        let batches = log.read(at, log.end_offset(), READ_BYTES).await?.concat();
        let Some(next) = next_offset(&batches) else { break };
        history.apply_batches(&batches)?;
        bytes += batches.len() as u64;
        at = next;
    }
    Ok(bytes)
}

/// The offset after the last batch.
pub fn next_offset(batches: &[u8]) -> Option<Offset> {
    let last = ringlog_protocol::records::BatchIter::new(batches).last()?;
    last.ok().map(|batch| batch.header.next_offset())
}

/// The time of the last record that a snapshot covers, from its first batch.
pub async fn snapshot_timestamp(directory: &Path, id: SnapshotId) -> Option<TimestampMs> {
    let bytes = ring::fs::read_to_vec(directory.join(id.file_name()), SNAPSHOT_BYTES).await.ok()?;
    snapshot::read(&bytes, |_| {}).ok().map(|summary| summary.last_contained_log_timestamp)
}
