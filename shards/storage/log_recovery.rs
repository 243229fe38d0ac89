//! Changes a log's files as its recovery decided (`ringlog_log::Recovery`): at start, and when a log is cut. One way for
//! partitions and for the metadata log.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::producer_snapshot::{decode_producer_snapshot, encode_producer_snapshot};
use ringlog_log::{Recovered, Recovery, RecoveryAction, RecoveryStep};
use ringlog_ring::{self as ring, BLOCK_BYTES, ByteSemaphore, Direct, File, MAX_IO_BYTES, Open};
use ringlog_types::Offset;
use tracing::{info, warn};

/// One read of a scan. A block less than the largest operation, since reads may begin within a block.
const SCAN_READ_BYTES: usize = MAX_IO_BYTES - BLOCK_BYTES;
/// No producer snapshot is larger: more than a million producers.
const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A segment without its producer snapshot, for which recovery has actions of its own.
const SEGMENT_FILES: [FileKind; 4] =
    [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TransactionIndex];

/// A file that can't be changed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = .path.display())]
pub struct FileFault {
    /// Which.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// Adds the file to what the system says of it.
fn at<T>(path: &Path, outcome: io::Result<T>) -> Result<T, FileFault> {
    outcome.map_err(|source| FileFault { path: path.to_owned(), source })
}

/// Gives recovery what it asks for of a partition's files, until it has decided. `read_budget` is the memory that all who
/// do this on a core share.
pub async fn read_for_recovery(
    recovery: &mut Recovery,
    directory: &Path,
    direct: Direct,
    read_budget: &ByteSemaphore,
) -> io::Result<()> {
    let mut reader = SegmentReader { directory, direct, open: None };
    loop {
        match recovery.step() {
            RecoveryStep::Done => return Ok(()),
            RecoveryStep::LoadSnapshot { offset } => {
                let file = directory.join(SegmentFile::live(offset, FileKind::ProducerSnapshot).to_string());
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
                let permit = read_budget.acquire(len.min(read_budget.capacity())).await;
                let bytes = reader.read(segment_base_offset, u64::from(position), len).await?;
                recovery.on_bytes(&bytes);
                drop((bytes, permit));
                ring::yield_if_needed().await;
            }
        }
    }
}

fn is_about_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge)
}

/// Reads segments in turn, one open at a time.
struct SegmentReader<'a> {
    directory: &'a Path,
    direct: Direct,
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
                let path = self.directory.join(SegmentFile::live(base_offset, FileKind::Log).to_string());
                let file = File::open(&path, Open { direct: self.direct, ..Open::READ }).await?;
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
pub async fn apply_recovery(directory: &Path, recovered: &Recovered) -> Result<(), FileFault> {
    if recovered.actions.is_empty() {
        return Ok(());
    }
    let mut deleted = deleted_segments(&recovered.actions);
    deleted.sort_unstable();
    for &base_offset in deleted.iter().rev() {
        info!(directory = %directory.display(), segment = base_offset.0, "removing a segment after the end of the log");
        remove_files(directory, base_offset, &SEGMENT_FILES).await?;
        at(directory, ring::fs::sync_dir(directory).await)?;
    }
    let active = recovered.log.active.base_offset;
    for action in &recovered.actions {
        match action {
            // It was cut or read before it turned out that nothing of it is left.
            RecoveryAction::TruncateSegment { base_offset, .. } | RecoveryAction::WriteIndexes { base_offset, .. }
                if deleted.contains(base_offset) => {}
            action => apply(directory, action, active).await?,
        }
    }
    at(directory, ring::fs::sync_dir(directory).await)
}

/// The segments that recovery removes.
pub fn deleted_segments(actions: &[RecoveryAction]) -> Vec<Offset> {
    let base_offset = |action: &RecoveryAction| match action {
        RecoveryAction::DeleteSegment { base_offset } => Some(*base_offset),
        _ => None,
    };
    actions.iter().filter_map(base_offset).collect()
}

/// Removes a segment with all that lies beside it.
pub async fn remove_segment(directory: &Path, base_offset: Offset) -> Result<(), FileFault> {
    remove_files(directory, base_offset, &FileKind::ALL).await
}

/// Removes index files of an active segment that don't say what it holds: once it is sealed they would look whole. The
/// caller syncs the directory.
pub async fn remove_indexes(directory: &Path, base_offset: Offset) -> Result<(), FileFault> {
    remove_files(directory, base_offset, &[FileKind::OffsetIndex, FileKind::TimeIndex]).await
}

/// Those that aren't there are fine.
async fn remove_files(directory: &Path, offset: Offset, kinds: &[FileKind]) -> Result<(), FileFault> {
    for &kind in kinds {
        let path = directory.join(SegmentFile::live(offset, kind).to_string());
        at(&path, ring::fs::remove_file(&path).await)?;
    }
    Ok(())
}

async fn write(path: PathBuf, bytes: Vec<u8>) -> Result<(), FileFault> {
    at(&path, ring::fs::write_atomically(&path, bytes).await)
}

async fn apply(directory: &Path, action: &RecoveryAction, active: Offset) -> Result<(), FileFault> {
    let path = |offset, kind| -> PathBuf { directory.join(SegmentFile::live(offset, kind).to_string()) };
    match action {
        RecoveryAction::TruncateSegment { base_offset, size } => {
            let path = path(*base_offset, FileKind::Log);
            at(&path, change_and_sync(&path, Some(u64::from(*size))).await)
        }
        RecoveryAction::WriteIndexes { base_offset, index, transactions } => {
            // What was read may only be in the page cache; from here on the recovery point may pass it.
            let log = path(*base_offset, FileKind::Log);
            at(&log, change_and_sync(&log, None).await)?;
            if transactions.entries().is_empty() {
                // One from before would speak of transactions that are no longer in the log.
                remove_files(directory, *base_offset, &[FileKind::TransactionIndex]).await?;
            } else if *base_offset != active {
                write(path(*base_offset, FileKind::TransactionIndex), transactions.encode()).await?;
            }
            // Those of the active segment are in memory until it is sealed or closed.
            if *base_offset == active {
                return Ok(());
            }
            write(path(*base_offset, FileKind::OffsetIndex), index.offsets.encode_from(0)).await?;
            write(path(*base_offset, FileKind::TimeIndex), index.times.encode_from(0)).await
        }
        RecoveryAction::DeleteSnapshot { offset } => {
            remove_files(directory, *offset, &[FileKind::ProducerSnapshot]).await
        }
        RecoveryAction::WriteSnapshot { offset, entries } => {
            write(path(*offset, FileKind::ProducerSnapshot), encode_producer_snapshot(entries)).await
        }
        // Deleted already; the store makes the new one.
        RecoveryAction::DeleteSegment { .. } | RecoveryAction::CreateSegment { .. } => Ok(()),
    }
}

/// Gives a segment its size, that which it seems to have unless another one is given, and brings it to the device.
///
/// A sync that failed before may have left the device with another length than the system shows, and would not be made up
/// for by one that succeeds: nothing has changed since.
async fn change_and_sync(path: &Path, size: Option<u64>) -> io::Result<()> {
    let file = File::open(path, Open::WRITE).await?;
    let size = match size {
        Some(size) => size,
        None => ring::fs::metadata(path).await?.len,
    };
    file.truncate(size).await?;
    file.fdatasync().await?;
    file.close().await
}
