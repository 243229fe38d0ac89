//! Opens one log: lists its directory, feeds `ringlog_log::Recovery` with what it asks for, and does what it decides.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, LEADER_EPOCH_CHECKPOINT_FILE, SegmentFile};
use ringlog_log::producer_snapshot::{decode_producer_snapshot, encode_producer_snapshot};
use ringlog_log::segment_index::SegmentIndex;
use ringlog_log::{Log, LogConfig, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep};
use ringlog_ring::{self as ring, BLOCK_BYTES, ByteSemaphore, File, MAX_IO_BYTES, Open};
use ringlog_types::{Offset, TopicIdPartition};
use tracing::{info, warn};

use super::OpenLog;
use super::scan::{FoundLog, LogScan, scan_log};
use crate::storage::segment_store::{SegmentStore, StoreContext};

/// One read of a scan. A block less than the largest operation, since reads may begin within a block.
const SCAN_READ_BYTES: usize = MAX_IO_BYTES - BLOCK_BYTES;
/// No producer snapshot is larger: more than a million producers.
const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the checkpoints of the directory say of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checkpointed {
    pub recovery_point: Offset,
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
}

/// What opening logs of one directory needs.
pub(super) struct Opener {
    pub context: Rc<StoreContext>,
    /// Place of the directory.
    pub directory: usize,
    pub clean_shutdown: bool,
    pub config: LogConfig,
    /// Memory for reads of all logs that are being opened on this shard.
    pub read_budget: ByteSemaphore,
}

/// What became of a log that was opened.
pub(super) struct Opened {
    pub log: OpenLog,
    /// Its files were read from the recovery point on, or had to be changed.
    pub was_recovered: bool,
    pub truncated_bytes: u64,
}

impl Opener {
    /// Opens a log and makes good what a crash left of it.
    pub async fn open(&self, found: &FoundLog, checkpointed: Checkpointed) -> io::Result<Opened> {
        let scan = scan_log(found.path.clone(), self.clean_shutdown).await?;
        let is_clean = self.clean_shutdown && !scan.epochs_are_damaged;
        let is_trusted = is_clean && scan.newest_indexes.is_some();
        let mut scan = scan;
        let indexes = std::mem::take(&mut scan.indexes);
        let input = self.input(scan, checkpointed, is_clean);
        let has_segments = !input.segments.is_empty();
        let now = ring::now().wall;
        let mut recovery = Recovery::new(input, &self.config, now);
        self.feed(&mut recovery, &found.path).await?;
        let mut recovered = recovery.finish();
        perform(&found.path, &recovered).await?;
        let active = recovered.log.active.base_offset;
        let has_indexes =
            [FileKind::OffsetIndex, FileKind::TimeIndex].iter().any(|kind| indexes.contains(&(active, *kind)));
        let are_current = is_trusted && recovered.actions.is_empty();
        if has_indexes && !are_current {
            remove_indexes(&found.path, active).await?;
        }
        if recovered.log.leader_epochs.take_dirty() {
            let text = format_leader_epoch_checkpoint(recovered.log.leader_epochs.entries());
            ring::fs::write_atomically(found.path.join(LEADER_EPOCH_CHECKPOINT_FILE), text.into_bytes()).await?;
        }
        if recovered.is_corrupt_below_recovery_point {
            warn!(partition = %found.name, "records below the recovery point are damaged: the disk lost what it had confirmed");
        }
        let created = recovered.actions.iter().any(|action| matches!(action, RecoveryAction::CreateSegment { .. }));
        let truncated_bytes = recovered.truncated_bytes;
        let last_removed = last_removed(&recovered.actions);
        let mut log = Log::open(recovered.log, now);
        if let Some(last) = last_removed.filter(|last| *last > log.log_end_offset()) {
            // A tail that was being written is at the end of the last segment: more than that was whole once.
            let (end, lost_min) = (log.log_end_offset(), last.0 - log.log_end_offset().0);
            let path = found.path.display();
            warn!(partition = %found.name, directory = %path, from = end.0, to_min = last.0, records_min = lost_min,
                bytes = truncated_bytes, "cut the log where records are damaged: later segments, whole before, went with it");
        }
        log.set_jitter_seed(jitter_seed(found.id));
        let active = log.active_segment();
        let size = u64::from(active.size);
        let file_len = (!created).then_some(size);
        let (context, path) = (self.context.clone(), found.path.clone());
        let store = SegmentStore::new(context, path, active.base_offset, size, file_len);
        if has_indexes && are_current {
            // Most logs are not written again soon: theirs stay for the next stop.
            store.has_old_indexes();
        }
        if created && (has_segments || log.log_end_offset() > Offset(0)) {
            store.create_active().await?;
        }
        let high_watermark = checkpointed.high_watermark;
        let log = OpenLog { name: found.name.clone(), directory: self.directory, log, store, high_watermark };
        Ok(Opened { log, was_recovered: has_segments && !is_trusted, truncated_bytes })
    }

    fn input(&self, scan: LogScan, checkpointed: Checkpointed, clean_shutdown: bool) -> RecoveryInput {
        // Epochs that can't be read are in the batches, all of which then have to be read.
        let recovery_point = if scan.epochs_are_damaged { Offset(0) } else { checkpointed.recovery_point };
        RecoveryInput {
            segments: scan.segments,
            newest_indexes: scan.newest_indexes.filter(|_| clean_shutdown),
            recovery_point,
            log_start_offset: checkpointed.log_start_offset,
            clean_shutdown,
            snapshots: scan.snapshots,
            leader_epochs: scan.leader_epochs,
            truncate_to: None,
        }
    }

    async fn feed(&self, recovery: &mut Recovery, path: &Path) -> io::Result<()> {
        let mut reader = SegmentReader { path, context: &self.context, open: None };
        loop {
            match recovery.step() {
                RecoveryStep::Done => return Ok(()),
                RecoveryStep::LoadSnapshot { offset } => {
                    let file = path.join(SegmentFile::live(offset, FileKind::ProducerSnapshot).to_string());
                    let entries = match ring::fs::read_to_vec(&file, SNAPSHOT_BYTES_MAX).await {
                        Ok(bytes) => decode_producer_snapshot(&bytes)
                            .inspect_err(|fault| warn!(file = %file.display(), "not used: {fault}"))
                            .ok(),
                        Err(error) if is_about_content(&error) => None,
                        Err(error) => return Err(error),
                    };
                    recovery.on_snapshot(entries.as_deref());
                }
                RecoveryStep::Read { segment_base_offset, position, min_length } => {
                    let len = SCAN_READ_BYTES.max(min_length as usize);
                    let permit = self.read_budget.acquire(len.min(self.read_budget.capacity())).await;
                    let bytes = reader.read(segment_base_offset, u64::from(position), len).await?;
                    recovery.on_bytes(&bytes);
                    drop((bytes, permit));
                    ring::yield_if_needed().await;
                }
            }
        }
    }
}

/// Spreads rolls by time over partitions.
pub(super) fn jitter_seed(id: TopicIdPartition) -> u64 {
    let mut seed = [0; 8];
    seed.copy_from_slice(&id.topic_id.0[..8]);
    u64::from_be_bytes(seed) ^ u64::from(id.partition.0.unsigned_abs())
}

fn is_about_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge)
}

/// Reads segments in turn, one open at a time.
struct SegmentReader<'a> {
    path: &'a Path,
    context: &'a StoreContext,
    open: Option<(Offset, File)>,
}

impl SegmentReader<'_> {
    async fn read(&mut self, base_offset: Offset, position: u64, len: usize) -> io::Result<Bytes> {
        if let Some((_, file)) = self.open.take_if(|(open, _)| *open != base_offset) {
            file.close().await?;
        }
        let file = match &self.open {
            Some((_, file)) => file.clone(),
            None => {
                let path = self.path.join(SegmentFile::live(base_offset, FileKind::Log).to_string());
                let file = File::open(&path, Open { direct: self.context.direct, ..Open::READ }).await?;
                self.open = Some((base_offset, file.clone()));
                file
            }
        };
        file.read(position, len).await
    }
}

/// Does what recovery decided.
///
/// Whole segments go first, the last one foremost: a crash in between then leaves a shorter log with the same end, which
/// the next recovery finds again. Were the torn segment cut first, the ones after it would look sound.
async fn perform(path: &Path, recovered: &Recovered) -> io::Result<()> {
    if recovered.actions.is_empty() {
        return Ok(());
    }
    let mut deleted: Vec<Offset> = recovered
        .actions
        .iter()
        .filter_map(|action| match action {
            RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
            _ => None,
        })
        .collect();
    deleted.sort_unstable();
    for &base_offset in deleted.iter().rev() {
        info!(directory = %path.display(), segment = base_offset.0, "removing a segment after the end of the log");
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex] {
            ring::fs::remove_file(path.join(SegmentFile::live(base_offset, kind).to_string())).await?;
        }
        ring::fs::sync_dir(path).await?;
    }
    let active = recovered.log.active.base_offset;
    for action in &recovered.actions {
        match action {
            // It was cut or read before it turned out that nothing of it is left.
            RecoveryAction::TruncateSegment { base_offset, .. } | RecoveryAction::WriteIndexes { base_offset, .. }
                if deleted.contains(base_offset) => {}
            action => perform_one(path, action, active).await?,
        }
    }
    ring::fs::sync_dir(path).await
}

/// The newest of the segments that recovery removes.
fn last_removed(actions: &[RecoveryAction]) -> Option<Offset> {
    let removed = actions.iter().filter_map(|action| match action {
        RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
        _ => None,
    });
    removed.max()
}

/// Removes index files of an active segment that don't say what it holds: once it is sealed they would look whole.
async fn remove_indexes(path: &Path, base_offset: Offset) -> io::Result<()> {
    for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
        ring::fs::remove_file(path.join(SegmentFile::live(base_offset, kind).to_string())).await?;
    }
    ring::fs::sync_dir(path).await
}

async fn perform_one(path: &Path, action: &RecoveryAction, active: Offset) -> io::Result<()> {
    let file = |offset, kind| -> PathBuf { path.join(SegmentFile::live(offset, kind).to_string()) };
    match action {
        RecoveryAction::TruncateSegment { base_offset, size } => {
            let log = File::open(&file(*base_offset, FileKind::Log), Open::WRITE).await?;
            log.truncate(u64::from(*size)).await?;
            log.fdatasync().await?;
            log.close().await
        }
        RecoveryAction::WriteIndexes { base_offset, index, transactions } => {
            // What was read may only be in the page cache; from here on the recovery point may pass it.
            let log = File::open(&file(*base_offset, FileKind::Log), Open::WRITE).await?;
            log.fdatasync().await?;
            log.close().await?;
            let path = file(*base_offset, FileKind::TransactionIndex);
            if transactions.entries().is_empty() {
                // One from before would speak of transactions that are no longer in the log.
                ring::fs::remove_file(path).await?;
            } else if *base_offset != active {
                ring::fs::write_atomically(path, transactions.encode()).await?;
            }
            // Those of the active segment are in memory until it is sealed or closed.
            if *base_offset == active { Ok(()) } else { write_indexes(file, *base_offset, index).await }
        }
        RecoveryAction::DeleteSnapshot { offset } => {
            ring::fs::remove_file(file(*offset, FileKind::ProducerSnapshot)).await
        }
        RecoveryAction::WriteSnapshot { offset, entries } => {
            ring::fs::write_atomically(file(*offset, FileKind::ProducerSnapshot), encode_producer_snapshot(entries))
                .await
        }
        // Deleted already; the store makes the new one.
        RecoveryAction::DeleteSegment { .. } | RecoveryAction::CreateSegment { .. } => Ok(()),
    }
}

async fn write_indexes(
    file: impl Fn(Offset, FileKind) -> PathBuf,
    base_offset: Offset,
    index: &SegmentIndex,
) -> io::Result<()> {
    ring::fs::write_atomically(file(base_offset, FileKind::OffsetIndex), index.offsets.encode_from(0)).await?;
    ring::fs::write_atomically(file(base_offset, FileKind::TimeIndex), index.times.encode_from(0)).await
}
