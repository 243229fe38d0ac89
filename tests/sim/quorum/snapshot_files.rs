//! Files of snapshots, with the steps of `shards/controller/snapshot_files.rs`.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_quorum::LoadedSnapshot;
use ringlog_quorum::snapshot_load::{self, SnapshotLoadError};
use ringlog_quorum::snapshots::{SnapshotAge, SnapshotJob, SnapshotPolicy, next_to_delete};
use ringlog_raft::snapshot_name::{DELETED_SUFFIX, PART_SUFFIX};
use ringlog_raft::{SnapshotChunk, SnapshotId, SnapshotReadError, snapshot};
use ringlog_types::{Offset, TimestampMs};

use super::device::{DiskError, Files};
use super::metadata_log::{MetadataLog, MetadataLogError, SnapshotInfo, io_fault};

const DAMAGED_SUFFIX: &str = ".checkpoint.damaged";
/// Bytes gathered before they are written; in a node a megabyte.
const WRITE_BYTES: usize = 2_048;
/// Enough of a snapshot to hold its header.
const HEADER_BYTES: usize = 64 * 1024;

// ---- This node's own ----

pub(crate) async fn write(log: &Rc<MetadataLog>, job: SnapshotJob) -> Result<SnapshotId, DiskError> {
    let id = job.id;
    let last_contained = job.image.provenance.last_contained_timestamp;
    let size = write_file(log, &job).await?;
    let info = SnapshotInfo { size, last_contained_ms: Some(last_contained.0) };
    log.snapshots.borrow_mut().insert(id, info);
    Ok(id)
}

async fn write_file(log: &MetadataLog, job: &SnapshotJob) -> Result<u64, DiskError> {
    let part = format!("{}-{}{PART_SUFFIX}", job.id, job.nonce);
    let mut content = Vec::new();
    let gathered = job.write_to(|bytes| {
        content.extend_from_slice(&bytes);
        Ok::<(), DiskError>(())
    });
    gathered.map_err(|_| DiskError::Io)?;
    let files = &log.files;
    files.create_empty(&part).await?;
    let mut position = 0;
    for piece in content.chunks(WRITE_BYTES) {
        files.write(&part, position, piece).await?;
        position += piece.len() as u64;
    }
    files.sync(&part).await?;
    files.rename_unsynced(&part, &job.id.file_name()).await?;
    files.sync_dir().await?;
    let ring = log.ring();
    ring.shared.checks.borrow_mut().on_snapshot(ring.node, job.id, &content, true);
    Ok(content.len() as u64)
}

// ---- Served to others ----

pub(crate) async fn read_chunk(
    log: &MetadataLog,
    id: SnapshotId,
    position: u64,
    max_bytes: u32,
) -> Result<SnapshotChunk, SnapshotReadError> {
    let size = log.snapshots.borrow().get(&id).map(|info| info.size).ok_or(SnapshotReadError::NotFound)?;
    if position >= size {
        return Err(SnapshotReadError::PositionOutOfRange);
    }
    let bytes = log.files.read(&id.file_name(), position, max_bytes as usize).await;
    let bytes = bytes.map_err(|_| SnapshotReadError::NotFound)?;
    Ok(SnapshotChunk { size, bytes: bytes.into() })
}

// ---- Fetched from others ----

/// The file that a snapshot is put together in.
pub(crate) fn part_name(id: SnapshotId) -> String {
    format!("{id}-fetched{PART_SUFFIX}")
}

pub(crate) async fn write_part(
    log: &MetadataLog,
    id: SnapshotId,
    position: u64,
    bytes: Bytes,
) -> Result<(), MetadataLogError> {
    let part = part_name(id);
    let files = &log.files;
    if position == 0 {
        files.create_empty(&part).await.map_err(io_fault(&part))?;
    } else {
        files.create(&part).await.map_err(io_fault(&part))?;
    }
    files.write(&part, position, &bytes).await.map_err(io_fault(&part))
}

/// Checks a part file that is complete, makes it durable and loads it. One that is damaged is removed.
pub(crate) async fn check_part(log: &MetadataLog, id: SnapshotId) -> Option<(Box<LoadedSnapshot>, SnapshotInfo)> {
    let part = part_name(id);
    match load_part(log, id, &part).await {
        Some(loaded) => Some(loaded),
        None => {
            remove_part(log, id).await;
            None
        }
    }
}

async fn load_part(log: &MetadataLog, id: SnapshotId, part: &str) -> Option<(Box<LoadedSnapshot>, SnapshotInfo)> {
    let content = log.files.read_whole(part).await?;
    let loaded = snapshot_load::load(id, &content).ok()?;
    log.files.sync(part).await.ok()?;
    let ring = log.ring();
    ring.shared.checks.borrow_mut().on_snapshot(ring.node, id, &content, false);
    let last_contained_ms = Some(loaded.summary.last_contained_log_timestamp.0);
    Some((Box::new(loaded), SnapshotInfo { size: content.len() as u64, last_contained_ms }))
}

pub(crate) async fn remove_part(log: &MetadataLog, id: SnapshotId) {
    log.files.remove(&part_name(id)).await;
}

// ---- Found at start ----

/// Loads a snapshot of the directory. `Ok(None)`: it is damaged, and was set aside.
pub(crate) async fn load(
    files: &Files,
    id: SnapshotId,
) -> Result<Result<Option<LoadedSnapshot>, SnapshotLoadError>, DiskError> {
    let name = id.file_name();
    let content = files.read(&name, 0, usize::MAX).await?;
    match snapshot_load::load(id, &content) {
        Ok(loaded) => Ok(Ok(Some(loaded))),
        Err(SnapshotLoadError::Damaged(_)) => {
            files.rename(&name, &format!("{id}{DAMAGED_SUFFIX}")).await?;
            Ok(Ok(None))
        }
        Err(fault) => Ok(Err(fault)),
    }
}

// ---- Retention ----

/// Lets old snapshots go, and the log before the oldest that stays. Returns the log's new start if it moved.
pub(crate) async fn clean(
    log: &Rc<MetadataLog>,
    policy: &SnapshotPolicy,
    high_watermark: Offset,
) -> Result<Option<Offset>, MetadataLogError> {
    let before = log.start_offset();
    let now = log.ring().now();
    loop {
        let two: Vec<SnapshotId> = log.snapshots.borrow().keys().copied().take(2).collect();
        let [oldest, next] = two[..] else { break };
        let oldest = SnapshotAge { id: oldest, last_contained: last_contained(log, oldest).await };
        let next = SnapshotAge { id: next, last_contained: None };
        let Some((gone, start)) = next_to_delete(policy, oldest, next, log.size(), now.wall) else { break };
        log.snapshots.borrow_mut().remove(&gone);
        log.delete_later(&gone.file_name(), &format!("{gone}{DELETED_SUFFIX}")).await;
        log.advance_start(start, high_watermark).await?;
    }
    let start = log.start_offset();
    Ok((start > before).then_some(start))
}

async fn last_contained(log: &Rc<MetadataLog>, id: SnapshotId) -> Option<TimestampMs> {
    let known = log.snapshots.borrow().get(&id).and_then(|info| info.last_contained_ms);
    if let Some(known) = known {
        return Some(TimestampMs(known));
    }
    let head = log.files.read(&id.file_name(), 0, HEADER_BYTES).await.ok()?;
    let read = snapshot::read_header(&head)?;
    if let Some(info) = log.snapshots.borrow_mut().get_mut(&id) {
        info.last_contained_ms = Some(read.0);
    }
    Some(read)
}
