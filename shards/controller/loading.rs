//! What the controller finds on disk at start: log, snapshots, election state, bootstrap records.
//!
//! Reads the files in the order that [`ringlog_quorum::start`] names, and does what it makes of them.

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
use ringlog_log::{Log, LogConfig, Recovered, RecoveryInput, SegmentOnDisk};
use ringlog_metadata::bootstrap::BootstrapMetadata;
use ringlog_protocol::DecodeError;
use ringlog_protocol::metadata_records::{MetadataRecord, RecordAndVersion};
use ringlog_quorum::durable_mark::{self, DurableMark, DurableMarkError};
use ringlog_quorum::snapshot_load::SnapshotLoadError;
use ringlog_quorum::start::{Elections, Found, Refusal, Verdict, is_alone, judge};
use ringlog_quorum::{LoadedNode, LoadedSnapshot};
use ringlog_raft::control_records::ControlRecordError;
use ringlog_raft::quorum_state::QuorumStateError;
use ringlog_raft::snapshot::{self, SnapshotError};
use ringlog_raft::{ControlHistory, LoadedState, Memory, QuorumState, RaftConfig, SnapshotFile, SnapshotId};
use ringlog_ring as ring;
use ringlog_types::{CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, Offset, PartitionIndex};
use tracing::{info, warn};

use super::handle::Controller;
use super::metadata_log::{MetadataLog, SnapshotInfo};
use super::metadata_log_error::MetadataLogError;
use super::progress::Progress;
use super::recovery::{READ_BYTES, recover};
use super::{settings, snapshot_files};
use crate::storage::log_recovery::apply_recovery;
use crate::storage::segment_store::SegmentStore;

/// Small files are no larger.
const SMALL_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Why the metadata directory can't be loaded. Names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The disk, or the log's bytes.
    #[error(
        "the metadata log can't be loaded: {0}. All of its directory must be files that this node wrote, which its user may \
         read and write"
    )]
    Log(#[from] MetadataLogError),
    /// A small file can't be understood.
    #[error(
        "{path}: {source}. It keeps for whom this controller voted. Restore it; or, if this is the only controller or the \
         others have a leader without it, remove the file"
    )]
    QuorumState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: QuorumStateError,
    },
    /// A small file can't be understood.
    #[error("{path}: {source}. Remove it if the log is known to be whole")]
    Mark {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DurableMarkError,
    },
    /// A snapshot that is whole holds what this release doesn't understand.
    #[error("{path}: {source}. If a newer release wrote it, start that one")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotLoadError,
    },
    /// `bootstrap.checkpoint` can't be read.
    #[error(
        "{path} is damaged: {source}. Restore it, or take the file of another controller that was formatted with the same \
         options; a cluster that has metadata already doesn't need it, so there the file can be moved away"
    )]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotError,
    },
    /// A record that this release doesn't know.
    #[error("{path}: a metadata record can't be read: {source}. If a newer release wrote it, start that one")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// Control records of the log make no sense.
    #[error(
        "the metadata log holds a control record that can't be read: {0}. If a newer release wrote it, start that one; else \
         restore the directory from a backup"
    )]
    Control(#[from] ControlRecordError),
    /// Records are lost for good.
    #[error("{path}: {source}")]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What is lost.
        source: Refusal,
    },
}

/// Everything the driver starts with.
pub struct Loaded {
    /// The log.
    pub log: Rc<MetadataLog>,
    /// For the node.
    pub node: LoadedNode,
    /// First records of a new cluster.
    pub bootstrap: BootstrapMetadata,
}

/// Loads the metadata directory of this node; makes what is missing.
pub async fn load(controller: &Rc<Controller>, raft: &RaftConfig) -> Result<Loaded, LoadFault> {
    let config = &controller.core.node.config;
    let root = controller.core.node.log_dirs.metadata_path().to_owned();
    let directory = root.join(partition_directory(CLUSTER_METADATA_TOPIC, PartitionIndex(0)));
    let is_new = make_directory(&directory).await?;
    let bootstrap = read_bootstrap(&root, config.log_dirs.first()).await?;
    let mut files = Directory::read(directory, settings::metadata_log(config)).await?;
    let mut history = ControlHistory::new(settings::static_voters(config));
    if let Some(snapshot) = &files.snapshot {
        snapshot.load_history(&mut history);
    }
    let (memory, starts_over) = files.make_usable(raft, &history).await?;
    if starts_over {
        history = ControlHistory::new(settings::static_voters(config));
    }
    let Directory { path, snapshot, recovered, quorum_state, snapshots, mark, config: log_config, .. } = files;
    if recovered.truncated_bytes > 0 {
        info!(directory = %path.display(), bytes = recovered.truncated_bytes, "cut off a torn end");
    }
    apply_recovery(&path, &recovered).await.map_err(MetadataLogError::from)?;
    // The names that were found count as durable from here on, too: of segments, of snapshots, of quorum-state.
    ring::fs::sync_dir(&path).await.map_err(io_fault(&path))?;
    let log = open_log(controller, &path, recovered, log_config, snapshots, mark);
    let mut state = LoadedState {
        quorum_state,
        log_start_offset: log.start_offset(),
        log_end_offset: log.end_offset(),
        epochs: log.epochs(),
        snapshots: log.snapshots.borrow().keys().copied().collect(),
        history,
        memory,
    };
    if let Some(id) = state.log_must_restart_at() {
        log.restart(id.end_offset, Some(id.epoch)).await?;
        state.log_start_offset = log.start_offset();
        state.log_end_offset = log.end_offset();
        state.epochs = log.epochs();
    }
    let covered = snapshot.as_ref().map_or(Offset(0), |snapshot| snapshot.id.end_offset);
    let from = covered.max(state.log_start_offset);
    let bytes_since_snapshot = read_control_records(&log, from, &mut state.history).await?;
    if !is_new {
        info!(
            directory = %log.directory.display(),
            log.start = state.log_start_offset.0,
            log.end = state.log_end_offset.0,
            snapshot = snapshot.as_ref().map_or_else(|| "none".to_owned(), |snapshot| snapshot.id.to_string()),
            "metadata log loaded"
        );
    }
    Ok(Loaded { log, node: LoadedNode { state, snapshot, bytes_since_snapshot }, bootstrap })
}

/// The directory as it was found; nothing of the log is changed yet.
struct Directory {
    path: PathBuf,
    config: LogConfig,
    quorum_state: Option<QuorumState>,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
    /// The newest one that is whole.
    snapshot: Option<LoadedSnapshot>,
    recovered: Recovered,
    mark: DurableMark,
}

impl Directory {
    async fn read(path: PathBuf, config: LogConfig) -> Result<Directory, LoadFault> {
        let Files { segments, producer_snapshots, mut snapshots } = list(&path).await?;
        let quorum_state = read_quorum_state(&path).await?;
        let mark = read_mark(&path).await?;
        let mut snapshot = None;
        while let Some((&id, _)) = snapshots.last_key_value() {
            let loaded = snapshot_files::load(&path, id).await.map_err(io_fault(&path.join(id.file_name())))?;
            let loaded = loaded.map_err(|source| LoadFault::Snapshot { path: path.join(id.file_name()), source })?;
            match loaded {
                Some(loaded) => {
                    if let Some(info) = snapshots.get_mut(&id) {
                        info.last_contained_ms = Some(loaded.summary.last_contained_log_timestamp.0);
                    }
                    snapshot = Some(loaded);
                    break;
                }
                None => drop(snapshots.remove(&id)),
            }
        }
        let input = recovery_input(&path, segments, producer_snapshots).await?;
        let newest_epoch = quorum_state.as_ref().map(|state| state.epoch);
        let recovered = recover(&path, input, &config, newest_epoch).await?;
        Ok(Directory { path, config, quorum_state, snapshots, snapshot, recovered, mark })
    }

    fn found(&self, raft: &RaftConfig, history: &ControlHistory) -> Found {
        let own_endpoint = raft.endpoints.get(&raft.default_listener);
        Found {
            log_start: self.recovered.log.log_start_offset,
            log_end: self.recovered.log.log_end_offset,
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.id),
            mark: self.mark,
            is_controller: raft.is_controller,
            is_alone: is_alone(history.voters(), raft.key(), &raft.bootstrap_servers, own_endpoint),
            is_voter: history.voters().is_voter(raft.key()),
            elections: self.quorum_state.as_ref().map(|state| Elections::of(state, raft.node_id)),
        }
    }

    /// Judges what was found, and removes what can't be used. Returns whether records are lost that this node may have
    /// acknowledged, and whether everything is fetched anew.
    async fn make_usable(&mut self, raft: &RaftConfig, history: &ControlHistory) -> Result<(Memory, bool), LoadFault> {
        let directory = self.path.display().to_string();
        let (memory, starts_over) = match judge(&self.found(raft, history)) {
            Verdict::Continue { mark, memory } => {
                self.write_mark(mark).await?;
                (memory, false)
            }
            Verdict::StartOver { mark, memory } => {
                warn!(
                    directory,
                    "the beginning of the metadata log is lost: all of it is fetched anew from the other controllers"
                );
                self.write_mark(Some(mark)).await?;
                self.start_over().await?;
                (memory, true)
            }
            Verdict::Refuse(source) => return Err(LoadFault::Lost { path: self.path.clone(), source }),
        };
        match memory {
            Memory::Whole => {}
            Memory::LostRecords => warn!(
                directory,
                "records of the metadata log are lost that this node may have acknowledged: it doesn't vote until it has \
                 fetched them again"
            ),
            Memory::Blank => info!(
                directory,
                "the metadata log of this voter is empty: if the others' are not it votes once it has fetched theirs, as \
                 its disk may have been replaced. To let it vote at once, remove {} while it is stopped",
                durable_mark::FILE_NAME
            ),
        }
        Ok((memory, starts_over))
    }

    async fn write_mark(&mut self, mark: Option<DurableMark>) -> Result<(), LoadFault> {
        let Some(mark) = mark else { return Ok(()) };
        self.mark = mark;
        let path = self.path.join(durable_mark::FILE_NAME);
        ring::fs::write_atomically(path.clone(), mark.to_json().into_bytes()).await.map_err(io_fault(&path))
    }

    /// Removes snapshots and log. The mark already says that they are missing.
    async fn start_over(&mut self) -> Result<(), LoadFault> {
        for id in std::mem::take(&mut self.snapshots).into_keys() {
            let path = self.path.join(id.file_name());
            ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
        }
        self.snapshot = None;
        for entry in ring::fs::read_dir(&self.path).await.map_err(io_fault(&self.path))? {
            if entry.name.to_str().is_some_and(|name| SegmentFile::parse(name).is_some()) {
                let path = self.path.join(&entry.name);
                ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
            }
        }
        let path = self.path.join(LEADER_EPOCH_CHECKPOINT_FILE);
        ring::fs::remove_file(path.clone()).await.map_err(io_fault(&path))?;
        ring::fs::sync_dir(&self.path).await.map_err(io_fault(&self.path))?;
        let nothing = recovery_input(&self.path, BTreeMap::new(), Vec::new()).await?;
        self.recovered = recover(&self.path, nothing, &self.config, None).await?;
        Ok(())
    }
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
    // Its name survives a power failure before anything in it may: once the file below is there, nobody looks again.
    if let Some(parent) = directory.parent() {
        ring::fs::sync_dir(parent).await.map_err(io_fault(parent))?;
    }
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
            return Ok(BootstrapMetadata::from_records(parse_bootstrap(&path, &bytes)?));
        }
    }
    Ok(BootstrapMetadata::latest())
}

fn parse_bootstrap(path: &Path, file: &[u8]) -> Result<Vec<RecordAndVersion>, LoadFault> {
    let mut records = Vec::new();
    let mut undecodable = None;
    let read = snapshot::read(file, |value| match MetadataRecord::decode_framed(Bytes::copy_from_slice(value)) {
        Ok((record, version)) => records.push(RecordAndVersion { record, version }),
        Err(error) => {
            undecodable.get_or_insert(error);
        }
    });
    read.map_err(|source| LoadFault::Bootstrap { path: path.to_owned(), source })?;
    match undecodable {
        Some(source) => Err(LoadFault::Record { path: path.to_owned(), source }),
        None => Ok(records),
    }
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

async fn read_mark(directory: &Path) -> Result<DurableMark, LoadFault> {
    let path = directory.join(durable_mark::FILE_NAME);
    let Some(bytes) = read_small(&path).await? else { return Ok(DurableMark::default()) };
    DurableMark::from_json(&bytes).map_err(|source| LoadFault::Mark { path, source })
}

/// The whole log is read, as Kafka does with this one after every stop, and what is torn will be cut.
async fn recovery_input(
    directory: &Path,
    segments: BTreeMap<Offset, SegmentOnDisk>,
    producer_snapshots: Vec<Offset>,
) -> Result<RecoveryInput, LoadFault> {
    Ok(RecoveryInput {
        log_start_offset: segments.keys().next().copied().unwrap_or(Offset(0)),
        segments: segments.into_values().collect(),
        newest_indexes: None,
        recovery_point: Offset(0),
        clean_shutdown: false,
        snapshots: producer_snapshots,
        leader_epochs: read_epochs(directory).await?,
        truncate_to: None,
    })
}

fn open_log(
    controller: &Rc<Controller>,
    directory: &Path,
    recovered: Recovered,
    mut config: LogConfig,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
    mark: DurableMark,
) -> Rc<MetadataLog> {
    config.preallocate = false;
    let opened = recovered.log;
    let size = u64::from(opened.active.size);
    let path = directory.join(SegmentFile::live(opened.active.base_offset, FileKind::Log).to_string());
    let exists = path.exists();
    let log = Log::open(opened, ring::now().wall);
    let store = SegmentStore::new(controller.store.clone(), directory.to_owned(), &log, exists.then_some(size));
    Rc::new(MetadataLog::new(controller.core.clone(), directory, log, store, Rc::new(config), snapshots, mark))
}

/// Reads the log from `from` to its end, committed or not. Returns how many bytes that was.
async fn read_control_records(log: &MetadataLog, from: Offset, history: &mut ControlHistory) -> Result<u64, LoadFault> {
    let (mut at, mut bytes) = (from, 0);
    let mut progress = Progress::begin();
    while at < log.end_offset() {
        let batches = log.read(at, log.end_offset(), READ_BYTES).await?.concat();
        let Some(next) = next_offset(&batches) else { break };
        history.apply_batches(&batches)?;
        bytes += batches.len() as u64;
        at = next;
        if progress.is_due() {
            info!(at = at.0, end = log.end_offset().0, "still reading the metadata log");
        }
    }
    Ok(bytes)
}

/// The offset after the last batch.
pub fn next_offset(batches: &[u8]) -> Option<Offset> {
    let last = ringlog_protocol::records::BatchIter::new(batches).last()?;
    last.ok().map(|batch| batch.header.next_offset())
}
