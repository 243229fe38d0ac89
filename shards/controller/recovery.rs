//! Finds where the metadata log ends, at start and when it is cut, and changes its files accordingly.

use std::io;
use std::path::{Path, PathBuf};

use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{Continuity, LogConfig, Recovered, Recovery, RecoveryAction, RecoveryInput, RecoveryStep};
use ringlog_ring as ring;
use ringlog_types::{LeaderEpoch, Offset};
use tracing::info;

use super::metadata_log::{MetadataLogError, READ_BYTES};
use super::progress::Progress;

/// Reads the log's segments and finds where whole batches end that continue each other, none of an epoch above
/// `newest_epoch`. Nothing is changed; see [`carry_out_all`].
pub async fn recover(
    directory: &Path,
    input: RecoveryInput,
    config: &LogConfig,
    newest_epoch: Option<LeaderEpoch>,
) -> Result<Recovered, MetadataLogError> {
    let recovery = Recovery::with_continuity(input, config, ring::now().wall, Continuity::Contiguous);
    let mut recovery = recovery.with_newest_epoch(newest_epoch);
    let mut progress = Progress::begin();
    loop {
        match recovery.step() {
            RecoveryStep::Done => return Ok(recovery.finish()),
            // Nobody produces to this log with a producer id.
            RecoveryStep::LoadSnapshot { .. } => recovery.on_snapshot(Some(&[])),
            RecoveryStep::Read { segment_base_offset, position, min_length } => {
                let path = directory.join(SegmentFile::live(segment_base_offset, FileKind::Log).to_string());
                let fault = |source| MetadataLogError::Io { path: path.clone(), source };
                let file = ring::File::open(&path, ring::Open::READ).await.map_err(fault)?;
                let len = READ_BYTES.max(min_length as usize);
                let bytes = file.read(u64::from(position), len).await.map_err(fault)?;
                recovery.on_bytes(&bytes);
                if progress.is_due() {
                    info!(segment = segment_base_offset.0, position, "still checking the metadata log");
                }
            }
        }
    }
}

/// Changes the files as recovery decided: whole segments go first, the last one foremost, so that a crash in between
/// leaves no hole.
pub async fn carry_out_all(directory: &Path, recovered: &Recovered) -> Result<(), MetadataLogError> {
    let mut deleted = deleted_segments(&recovered.actions);
    deleted.sort_unstable_by(|a, b| b.cmp(a));
    for base_offset in deleted {
        delete_segment(directory, base_offset).await?;
    }
    for action in &recovered.actions {
        carry_out(directory, action, recovered.log.active.base_offset).await?;
    }
    Ok(())
}

/// The segments that are to go.
pub fn deleted_segments(actions: &[RecoveryAction]) -> Vec<Offset> {
    let base_offset = |action: &RecoveryAction| match action {
        RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
        _ => None,
    };
    actions.iter().filter_map(base_offset).collect()
}

/// Removes a segment's files.
pub async fn delete_segment(directory: &Path, base_offset: Offset) -> Result<(), MetadataLogError> {
    for kind in FileKind::ALL {
        let path = directory.join(SegmentFile::live(base_offset, kind).to_string());
        let outcome = ring::fs::remove_file(path.clone()).await;
        outcome.map_err(|source| MetadataLogError::Io { path, source })?;
    }
    Ok(())
}

async fn carry_out(directory: &Path, action: &RecoveryAction, active: Offset) -> Result<(), MetadataLogError> {
    let path = |offset: Offset, kind: FileKind| directory.join(SegmentFile::live(offset, kind).to_string());
    let write = async |path: PathBuf, bytes: Vec<u8>| {
        let outcome = ring::fs::write_atomically(path.clone(), bytes).await;
        outcome.map_err(|source| MetadataLogError::Io { path, source })
    };
    match action {
        RecoveryAction::TruncateSegment { base_offset, size } => {
            let path = path(*base_offset, FileKind::Log);
            let fault = |source| MetadataLogError::Io { path: path.clone(), source };
            let file = match ring::File::open(&path, ring::Open::WRITE).await {
                // It was cut before it turned out that nothing of it is left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened.map_err(fault)?,
            };
            file.truncate(u64::from(*size)).await.map_err(fault)?;
            file.fdatasync().await.map_err(fault)
        }
        // Segments of this log are deleted before the other changes, and the store makes new ones with the first
        // append. Indexes of the active segment are written when it is sealed or closed.
        RecoveryAction::DeleteSegment { .. } | RecoveryAction::CreateSegment { .. } => Ok(()),
        RecoveryAction::WriteIndexes { base_offset, index, .. } => {
            // What was read may only be in a cache, and counts as durable from here on.
            let log = path(*base_offset, FileKind::Log);
            let fault = |source| MetadataLogError::Io { path: log.clone(), source };
            let file = ring::File::open(&log, ring::Open::WRITE).await.map_err(fault)?;
            file.fdatasync().await.map_err(fault)?;
            if *base_offset == active {
                return Ok(());
            }
            write(path(*base_offset, FileKind::OffsetIndex), index.offsets.encode_from(0)).await?;
            write(path(*base_offset, FileKind::TimeIndex), index.times.encode_from(0)).await
        }
        RecoveryAction::DeleteSnapshot { offset } => {
            let path = path(*offset, FileKind::ProducerSnapshot);
            let outcome = ring::fs::remove_file(path.clone()).await;
            outcome.map_err(|source| MetadataLogError::Io { path, source })
        }
        RecoveryAction::WriteSnapshot { offset, entries } => {
            write(path(*offset, FileKind::ProducerSnapshot), encode_producer_snapshot(entries)).await
        }
    }
}
