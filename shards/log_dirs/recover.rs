//! Opens one log: lists its directory, has `ringlog_log::Recovery` decide on what it asks for, and does that.

use std::io;
use std::rc::Rc;

use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, LEADER_EPOCH_CHECKPOINT_FILE};
use ringlog_log::{Log, LogConfig, Recovery, RecoveryAction, RecoveryInput};
use ringlog_ring as ring;
use ringlog_types::Offset;
use tracing::warn;

use super::room::OpenLog;
use super::scan::{FoundLog, LogScan, scan_log};
use crate::storage::context::StoreContext;
use crate::storage::log_recovery::{apply_recovery, deleted_segments, read_for_recovery};
use crate::storage::segment_store::SegmentStore;

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
        let mut scan = scan_log(found.path.clone(), self.clean_shutdown).await?;
        let is_clean = self.clean_shutdown && !scan.epochs_are_damaged;
        let is_trusted = is_clean && scan.newest_indexes.is_some();
        let indexes = std::mem::take(&mut scan.indexes);
        // Epochs that aren't known are in the batches, all of which then have to be read.
        let lacks_epochs = !is_clean && lacks_first_epochs(&scan, checkpointed);
        let is_read_whole = scan.epochs_are_damaged || lacks_epochs;
        if lacks_epochs {
            scan.leader_epochs.clear();
        }
        let recovery_point = if is_read_whole { Offset(0) } else { checkpointed.recovery_point };
        let input = RecoveryInput {
            segments: scan.segments,
            newest_indexes: scan.newest_indexes.filter(|_| is_clean),
            recovery_point,
            log_start_offset: checkpointed.log_start_offset,
            clean_shutdown: is_clean,
            snapshots: scan.snapshots,
            leader_epochs: scan.leader_epochs,
            truncate_to: None,
        };
        let has_segments = !input.segments.is_empty();
        let now = ring::now().wall;
        let mut recovery = Recovery::new(input, &self.config, now);
        read_for_recovery(&mut recovery, &found.path, self.context.direct, &self.context.recovery_reads).await?;
        let mut recovered = recovery.finish();
        apply_recovery(&found.path, &recovered).await.map_err(|fault| fault.source)?;
        let active = recovered.log.active.base_offset;
        let has_indexes =
            [FileKind::OffsetIndex, FileKind::TimeIndex].iter().any(|kind| indexes.contains(&(active, *kind)));
        // Otherwise they are written before recovery can do without what it read.
        if is_read_whole && recovered.log.leader_epochs.take_dirty() {
            let text = format_leader_epoch_checkpoint(recovered.log.leader_epochs.entries());
            ring::fs::write_atomically(found.path.join(LEADER_EPOCH_CHECKPOINT_FILE), text.into_bytes()).await?;
        }
        if recovered.is_corrupt_below_recovery_point {
            warn!(partition = %found.name, "records below the recovery point are damaged: the disk lost what it had confirmed");
        }
        let created = recovered.actions.iter().any(|action| matches!(action, RecoveryAction::CreateSegment { .. }));
        let truncated_bytes = recovered.truncated_bytes;
        let last_removed = last_removed(&recovered.actions);
        let log = Log::open(recovered.log, now);
        if let Some(last) = last_removed.filter(|last| *last > log.log_end_offset()) {
            // A tail that was being written is at the end of the last segment: more than that was whole once.
            let (end, lost_min) = (log.log_end_offset(), last.0 - log.log_end_offset().0);
            let path = found.path.display();
            warn!(partition = %found.name, directory = %path, from = end.0, to_min = last.0, records_min = lost_min,
                bytes = truncated_bytes, "cut the log where records are damaged: later segments, whole before, went with it");
        }
        let file_len = (!created).then_some(u64::from(log.active_segment().size));
        let (context, path) = (self.context.clone(), found.path.clone());
        let store = SegmentStore::new(context, path, &log, file_len);
        if has_indexes {
            // Whether they are right or not: most logs are not written again soon, and what recovery may rely on is
            // written anew at the next stop.
            store.has_old_indexes();
        }
        if created && (has_segments || log.log_end_offset() > Offset(0)) {
            store.create_active().await?;
        }
        // A power failure may have taken what was committed here.
        let high_watermark = checkpointed.high_watermark.min(log.log_end_offset());
        let log = OpenLog { name: found.name.clone(), directory: self.directory, log, store, high_watermark };
        Ok(Opened { log, was_recovered: has_segments && !is_trusted, truncated_bytes })
    }
}

/// Whether nobody knows of which epoch the log's first records are: a power failure gave segments their names back that
/// retention had taken, but not the file of epochs what it had said of them.
fn lacks_first_epochs(scan: &LogScan, checkpointed: Checkpointed) -> bool {
    let Some(first) = scan.segments.first() else { return false };
    let start = first.base_offset.max(checkpointed.log_start_offset);
    let known_from = scan.leader_epochs.first().map_or(checkpointed.recovery_point, |epoch| epoch.start_offset);
    start < known_from
}

/// The newest of the segments that recovery removes.
fn last_removed(actions: &[RecoveryAction]) -> Option<Offset> {
    deleted_segments(actions).into_iter().max()
}
