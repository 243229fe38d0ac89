//! What a node finds on its disk at start, with the steps of `shards/controller/loading.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_log::checkpoint::{EpochEntry, parse_leader_epoch_checkpoint};
use ringlog_log::names::{
    FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, PARTITION_METADATA_FILE, QUORUM_STATE_FILE, SegmentFile,
};
use ringlog_log::partition_metadata::format_partition_metadata;
use ringlog_log::{Log, LogConfig, Recovered, RecoveryInput, SegmentOnDisk};
use ringlog_protocol::records::BatchIter;
use ringlog_quorum::durable_mark::{self, DurableMark, DurableMarkError};
use ringlog_quorum::snapshot_load::SnapshotLoadError;
use ringlog_quorum::start::{Elections, Found, Refusal, Verdict, is_alone, judge};
use ringlog_quorum::{LoadedNode, LoadedSnapshot};
use ringlog_raft::control_records::ControlRecordError;
use ringlog_raft::quorum_state::QuorumStateError;
use ringlog_raft::{ControlHistory, LoadedState, QuorumState, RaftConfig, SnapshotFile, SnapshotId, VoterSet};
use ringlog_types::{CLUSTER_METADATA_TOPIC_ID, Offset};

use super::device::Files;
use super::metadata_log::{MetadataLog, MetadataLogError, READ_BYTES, SnapshotInfo, io_fault};
use super::recovery::{carry_out_all, recover};
use super::segment_store::SegmentStore;
use super::snapshot_files;

/// Why the metadata directory can't be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadFault {
    #[error("the metadata log can't be loaded: {0}")]
    Log(#[from] MetadataLogError),
    #[error("quorum-state: {0}")]
    QuorumState(#[from] QuorumStateError),
    #[error("the durable mark: {0}")]
    Mark(#[from] DurableMarkError),
    #[error("a snapshot that is whole: {0}")]
    Snapshot(#[from] SnapshotLoadError),
    #[error("the metadata log holds a damaged control record: {0}")]
    Control(#[from] ControlRecordError),
    #[error(transparent)]
    Lost(#[from] Refusal),
}

/// Everything the driver starts with.
pub(crate) struct Loaded {
    pub log: Rc<MetadataLog>,
    pub node: LoadedNode,
}

/// Loads the metadata directory of this node; makes what is missing.
pub(crate) async fn load(
    files: &Files,
    raft: &RaftConfig,
    static_voters: &VoterSet,
    config: &LogConfig,
) -> Result<Loaded, LoadFault> {
    make_directory(files).await?;
    let mut directory = Directory::read(files, config).await?;
    let mut history = ControlHistory::new(static_voters.clone());
    if let Some(snapshot) = &directory.snapshot {
        snapshot.load_history(&mut history);
    }
    let found = directory.found(raft, &history);
    let memory = match judge(&found) {
        Verdict::Continue { mark, memory } => {
            directory.write_mark(mark).await?;
            memory
        }
        Verdict::StartOver { mark, memory } => {
            directory.write_mark(Some(mark)).await?;
            directory.start_over().await?;
            history = ControlHistory::new(static_voters.clone());
            memory
        }
        Verdict::Refuse(source) => return Err(source.into()),
    };
    let Directory { snapshot, recovered, quorum_state, snapshots, mark, .. } = directory;
    carry_out_all(files, &recovered).await?;
    // The same holds for names: of segments, of snapshots, of quorum-state.
    files.sync_dir().await.map_err(io_fault("the directory"))?;
    let log = open_log(files, recovered, config, snapshots, mark);
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
    Ok(Loaded { log, node: LoadedNode { state, snapshot, bytes_since_snapshot } })
}

/// The directory as it was found; nothing of the log is changed yet.
struct Directory {
    files: Files,
    config: LogConfig,
    quorum_state: Option<QuorumState>,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
    /// The newest one that is whole.
    snapshot: Option<LoadedSnapshot>,
    recovered: Recovered,
    mark: DurableMark,
}

impl Directory {
    async fn read(files: &Files, config: &LogConfig) -> Result<Directory, LoadFault> {
        let Listed { segments, producer_snapshots, mut snapshots } = list(files).await;
        let quorum_state = match files.read_whole(QUORUM_STATE_FILE).await {
            Some(bytes) => Some(QuorumState::from_json(&bytes)?),
            None => None,
        };
        let mark = match files.read_whole(durable_mark::FILE_NAME).await {
            Some(bytes) => DurableMark::from_json(&bytes)?,
            None => DurableMark::default(),
        };
        let mut snapshot = None;
        while let Some((&id, _)) = snapshots.last_key_value() {
            let loaded = snapshot_files::load(files, id).await.map_err(io_fault("a snapshot"))?;
            match loaded? {
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
        let input = recovery_input(files, segments, producer_snapshots).await;
        let newest_epoch = quorum_state.as_ref().map(|state| state.epoch);
        let recovered = recover(files, input, config, newest_epoch).await?;
        let (files, config) = (files.clone(), config.clone());
        Ok(Directory { files, config, quorum_state, snapshots, snapshot, recovered, mark })
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

    async fn write_mark(&mut self, mark: Option<DurableMark>) -> Result<(), LoadFault> {
        let Some(mark) = mark else { return Ok(()) };
        self.mark = mark;
        let written = self.files.write_atomically(durable_mark::FILE_NAME, mark.to_json().as_bytes()).await;
        Ok(written.map_err(io_fault(durable_mark::FILE_NAME))?)
    }

    /// Removes snapshots and log. The mark already says that they are missing.
    async fn start_over(&mut self) -> Result<(), LoadFault> {
        for id in std::mem::take(&mut self.snapshots).into_keys() {
            self.files.remove(&id.file_name()).await;
        }
        self.snapshot = None;
        for name in self.files.names() {
            if SegmentFile::parse(&name).is_some() {
                self.files.remove(&name).await;
            }
        }
        self.files.remove(LEADER_EPOCH_CHECKPOINT_FILE).await;
        self.files.sync_dir().await.map_err(io_fault("the directory"))?;
        let nothing = recovery_input(&self.files, BTreeMap::new(), Vec::new()).await;
        self.recovered = recover(&self.files, nothing, &self.config, None).await?;
        Ok(())
    }
}

async fn make_directory(files: &Files) -> Result<(), LoadFault> {
    if files.exists(PARTITION_METADATA_FILE) {
        return Ok(());
    }
    let text = format_partition_metadata(CLUSTER_METADATA_TOPIC_ID);
    let written = files.write_atomically(PARTITION_METADATA_FILE, text.as_bytes()).await;
    Ok(written.map_err(io_fault(PARTITION_METADATA_FILE))?)
}

#[derive(Default)]
struct Listed {
    segments: BTreeMap<Offset, SegmentOnDisk>,
    producer_snapshots: Vec<Offset>,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
}

/// What is in the directory; leftovers of writing and deleting are removed.
async fn list(files: &Files) -> Listed {
    let mut listed = Listed::default();
    let names = files.names();
    let modified = files.ring.now().wall;
    for name in &names {
        let size = files.len(name).unwrap_or(0);
        match (SnapshotId::parse_file_name(name), SegmentFile::parse(name)) {
            (Some((id, SnapshotFile::Complete)), _) => {
                listed.snapshots.insert(id, SnapshotInfo { size, last_contained_ms: None });
            }
            (Some(_), _) | (None, Some(SegmentFile { state: FileState::Deleted, .. })) => files.remove(name).await,
            (None, Some(SegmentFile { offset, kind: FileKind::Log, state: FileState::Live })) => {
                let has = |kind| names.contains(&SegmentFile::live(offset, kind).to_string());
                listed.segments.insert(
                    offset,
                    SegmentOnDisk {
                        base_offset: offset,
                        size: u32::try_from(size).unwrap_or(u32::MAX),
                        last_modified: modified,
                        has_valid_indexes: has(FileKind::OffsetIndex) && has(FileKind::TimeIndex),
                        has_transaction_index: false,
                        newest: None,
                    },
                );
            }
            (None, Some(SegmentFile { offset, kind: FileKind::ProducerSnapshot, state: FileState::Live })) => {
                listed.producer_snapshots.push(offset);
            }
            _ => {}
        }
    }
    listed
}

async fn read_epochs(files: &Files) -> Vec<EpochEntry> {
    // A damaged file costs nothing: the log is read from its start.
    let bytes = files.read_whole(LEADER_EPOCH_CHECKPOINT_FILE).await.unwrap_or_default();
    parse_leader_epoch_checkpoint(&bytes).unwrap_or_default()
}

/// The whole log is read, and what is torn will be cut.
async fn recovery_input(
    files: &Files,
    segments: BTreeMap<Offset, SegmentOnDisk>,
    producer_snapshots: Vec<Offset>,
) -> RecoveryInput {
    RecoveryInput {
        log_start_offset: segments.keys().next().copied().unwrap_or(Offset(0)),
        segments: segments.into_values().collect(),
        newest_indexes: None,
        recovery_point: Offset(0),
        clean_shutdown: false,
        snapshots: producer_snapshots,
        leader_epochs: read_epochs(files).await,
        truncate_to: None,
    }
}

fn open_log(
    files: &Files,
    recovered: Recovered,
    config: &LogConfig,
    snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
    mark: DurableMark,
) -> Rc<MetadataLog> {
    let opened = recovered.log;
    let (base_offset, size) = (opened.active.base_offset, u64::from(opened.active.size));
    let exists = files.exists(&SegmentFile::live(base_offset, FileKind::Log).to_string());
    let store = SegmentStore::new(files.clone(), base_offset, size, exists.then_some(size));
    let log = Log::open(opened, files.ring.now().wall);
    Rc::new(MetadataLog::new(files.clone(), log, store, config.clone(), snapshots, mark))
}

/// Reads the log from `from` to its end, committed or not. Returns how many bytes that was.
async fn read_control_records(log: &MetadataLog, from: Offset, history: &mut ControlHistory) -> Result<u64, LoadFault> {
    let (mut at, mut bytes) = (from, 0);
    while at < log.end_offset() {
        let batches = log.read(at, log.end_offset(), READ_BYTES).await?;
        let last = BatchIter::new(&batches).last().and_then(Result::ok);
        let Some(next) = last.map(|batch| batch.header.next_offset()) else { break };
        history.apply_batches(&batches)?;
        bytes += batches.len() as u64;
        at = next;
    }
    Ok(bytes)
}
