//! Finds where the metadata log ends, with the steps of `shards/controller/recovery.rs` and `shards/log_recovery.rs`.

use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{Continuity, LogConfig, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep};
use ringlog_types::{LeaderEpoch, Offset};

use super::device::Files;
use super::metadata_log::{MetadataLogError, READ_BYTES, io_fault};

/// Reads the log's segments and finds where whole batches end. Nothing is changed.
pub(crate) async fn recover(
    files: &Files,
    input: RecoveryInput,
    config: &LogConfig,
    newest_epoch: Option<LeaderEpoch>,
) -> Result<Recovered, MetadataLogError> {
    let recovery = Recovery::with_continuity(input, config, files.ring.now().wall, Continuity::Contiguous);
    let mut recovery = recovery.with_newest_epoch(newest_epoch);
    loop {
        match recovery.step() {
            RecoveryStep::Done => return Ok(recovery.finish()),
            // Nobody produces to this log with a producer id.
            RecoveryStep::LoadSnapshot { .. } => recovery.on_snapshot(Some(&[])),
            RecoveryStep::Read { segment_base_offset, position, min_length } => {
                let file = SegmentFile::live(segment_base_offset, FileKind::Log).to_string();
                let len = READ_BYTES.max(min_length as usize);
                let bytes = files.read(&file, u64::from(position), len).await.map_err(io_fault(&file))?;
                recovery.on_bytes(&bytes);
            }
        }
    }
}

/// Changes the files as recovery decided: whole segments go first, the last one foremost.
pub(crate) async fn carry_out_all(files: &Files, recovered: &Recovered) -> Result<(), MetadataLogError> {
    let mut deleted = deleted_segments(&recovered.actions);
    deleted.sort_unstable_by(|a, b| b.cmp(a));
    if recovered.actions.is_empty() {
        return Ok(());
    }
    for &base_offset in &deleted {
        delete_segment(files, base_offset).await;
        files.sync_dir().await.map_err(io_fault("the directory"))?;
    }
    for action in &recovered.actions {
        match action {
            RecoveryAction::TruncateSegment { base_offset, .. } | RecoveryAction::WriteIndexes { base_offset, .. }
                if deleted.contains(base_offset) => {}
            action => carry_out(files, action, recovered.log.active.base_offset).await?,
        }
    }
    files.sync_dir().await.map_err(io_fault("the directory"))
}

pub(crate) fn deleted_segments(actions: &[RecoveryAction]) -> Vec<Offset> {
    let base_offset = |action: &RecoveryAction| match action {
        RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
        _ => None,
    };
    actions.iter().filter_map(base_offset).collect()
}

pub(crate) async fn delete_segment(files: &Files, base_offset: Offset) {
    for kind in FileKind::ALL {
        files.remove(&SegmentFile::live(base_offset, kind).to_string()).await;
    }
}

async fn carry_out(files: &Files, action: &RecoveryAction, active: Offset) -> Result<(), MetadataLogError> {
    let name = |offset: Offset, kind: FileKind| SegmentFile::live(offset, kind).to_string();
    match action {
        RecoveryAction::TruncateSegment { base_offset, size } => {
            let file = name(*base_offset, FileKind::Log);
            // It was cut before it turned out that nothing of it is left.
            if !files.exists(&file) {
                return Ok(());
            }
            files.set_len(&file, u64::from(*size)).await.map_err(io_fault(&file))?;
            files.sync(&file).await.map_err(io_fault(&file))
        }
        // Segments of this log are deleted before the other changes, and the store makes new ones with the first
        // append. Indexes of the active segment are written when it is sealed or closed.
        RecoveryAction::DeleteSegment { .. } | RecoveryAction::CreateSegment { .. } => Ok(()),
        RecoveryAction::WriteIndexes { base_offset, index, .. } => {
            // What was read may only be in a cache, and counts as durable from here on.
            let file = name(*base_offset, FileKind::Log);
            files.sync(&file).await.map_err(io_fault(&file))?;
            if *base_offset == active {
                return Ok(());
            }
            let file = name(*base_offset, FileKind::OffsetIndex);
            files.write_atomically(&file, &index.offsets.encode_from(0)).await.map_err(io_fault(&file))?;
            let file = name(*base_offset, FileKind::TimeIndex);
            files.write_atomically(&file, &index.times.encode_from(0)).await.map_err(io_fault(&file))
        }
        RecoveryAction::DeleteSnapshot { offset } => {
            files.remove(&name(*offset, FileKind::ProducerSnapshot)).await;
            Ok(())
        }
        RecoveryAction::WriteSnapshot { offset, entries } => {
            let file = name(*offset, FileKind::ProducerSnapshot);
            files.write_atomically(&file, &encode_producer_snapshot(entries)).await.map_err(io_fault(&file))
        }
    }
}
