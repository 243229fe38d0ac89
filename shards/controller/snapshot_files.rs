//! Files of snapshots: this node's own ones are written, fetched ones are put together, old ones go.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_quorum::LoadedSnapshot;
use ringlog_quorum::snapshot_load::{SnapshotLoadError, SnapshotLoading};
use ringlog_quorum::snapshots::{SnapshotAge, SnapshotJob, SnapshotPolicy, SnapshotWriteError, next_to_delete};
use ringlog_raft::snapshot_name::{DELETED_SUFFIX, PART_SUFFIX};
use ringlog_raft::{SnapshotChunk, SnapshotId, SnapshotReadError, snapshot};
use ringlog_ring as ring;
use ringlog_ring::fs::Fs;
use ringlog_types::{Now, Offset, TimestampMs};
use tracing::{error, info, warn};

use super::metadata_log::{MetadataLog, SnapshotInfo};
use super::metadata_log_error::MetadataLogError;

/// Suffix of a snapshot that was found damaged; kept for whoever wants to know why.
const DAMAGED_SUFFIX: &str = ".checkpoint.damaged";
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1024 * 1024;
/// Bytes read before they are looked at.
const READ_BYTES: usize = 1024 * 1024;
/// Enough of a snapshot to hold its header.
const HEADER_BYTES: usize = 64 * 1024;

// ---- This node's own ----

/// Writes a snapshot on a thread of its own: it may take a while, and the controller goes on meanwhile.
pub async fn write(log: &Rc<MetadataLog>, job: SnapshotJob) -> io::Result<SnapshotId> {
    let id = job.id;
    let last_contained = job.image.provenance.last_contained_timestamp;
    let directory = log.directory.clone();
    let size = ring::fs::run_apart("write-snapshot", async move |fs| write_file(&fs, &directory, &job).await).await?;
    let info = SnapshotInfo { size, last_contained_ms: Some(last_contained.0) };
    log.snapshots.borrow_mut().insert(id, info);
    info!(snapshot = %id, bytes = size, "snapshot of the metadata written");
    Ok(id)
}

async fn write_file(fs: &Fs, directory: &Path, job: &SnapshotJob) -> io::Result<u64> {
    let part = directory.join(format!("{}-{}{PART_SUFFIX}", job.id, job.nonce));
    let mut file = fs.create(&part).await?;
    let mut gathered = Vec::with_capacity(WRITE_BYTES);
    let mut write = |bytes: Bytes| {
        if gathered.len() + bytes.len() > WRITE_BYTES {
            file.append(&gathered)?;
            gathered.clear();
        }
        gathered.extend_from_slice(&bytes);
        Ok(())
    };
    job.write_to(&mut write).map_err(|fault| match fault {
        SnapshotWriteError::Encode(fault) => io::Error::other(fault),
        SnapshotWriteError::Write(fault) => fault,
    })?;
    file.append(&gathered)?;
    file.set_read_only().await?;
    file.sync().await?;
    let size = file.len().await?;
    fs.rename_and_sync(&part, &directory.join(job.id.file_name())).await?;
    Ok(size)
}

// ---- Served to others ----

/// Bytes of a snapshot's file, for a peer that fetches it.
pub async fn read_chunk(
    log: &MetadataLog,
    id: SnapshotId,
    position: u64,
    max_bytes: u32,
) -> Result<SnapshotChunk, SnapshotReadError> {
    let size = log.snapshots.borrow().get(&id).map(|info| info.size).ok_or(SnapshotReadError::NotFound)?;
    if position >= size {
        return Err(SnapshotReadError::PositionOutOfRange);
    }
    let path = log.directory.join(id.file_name());
    let file = ring::File::open(&path, ring::Open::READ).await.map_err(|_| SnapshotReadError::NotFound)?;
    let bytes = file.read(position, max_bytes as usize).await.map_err(|_| SnapshotReadError::NotFound)?;
    Ok(SnapshotChunk { size, bytes })
}

// ---- Fetched from others ----

/// The file that a snapshot is put together in.
pub fn part_path(log: &MetadataLog, id: SnapshotId) -> PathBuf {
    log.directory.join(format!("{id}-fetched{PART_SUFFIX}"))
}

/// Writes bytes of a snapshot that is being fetched; those at position 0 begin it anew.
pub async fn write_part(
    log: &MetadataLog,
    id: SnapshotId,
    position: u64,
    bytes: Bytes,
) -> Result<(), MetadataLogError> {
    let path = part_path(log, id);
    let write = async move |fs: Fs| {
        let file = if position == 0 { fs.create(&path).await? } else { fs.open_to_write(&path).await? };
        file.write_all_at(position, &bytes).await
    };
    ring::fs::run(write).await.map_err(|error| log.io_fault(error))
}

/// Checks a part file that is complete, makes it durable and loads it. One that is damaged is removed.
pub async fn check_part(log: &MetadataLog, id: SnapshotId) -> Option<(Box<LoadedSnapshot>, SnapshotInfo)> {
    let path = part_path(log, id);
    let check = {
        let path = path.clone();
        async move |fs: Fs| {
            let loaded = load_file(&fs, &path, id).await?.map_err(io::Error::other)?;
            let file = fs.open_to_write(&path).await?;
            file.set_read_only().await?;
            file.sync().await?;
            let last_contained_ms = Some(loaded.summary.last_contained_log_timestamp.0);
            Ok((Box::new(loaded), SnapshotInfo { size: file.len().await?, last_contained_ms }))
        }
    };
    match ring::fs::run_apart("load-snapshot", check).await {
        Ok(loaded) => Some(loaded),
        Err(fault) => {
            error!(snapshot = %id, "the fetched snapshot can't be used: {fault}");
            remove_part(log, id).await;
            None
        }
    }
}

/// Gives up a part file.
pub async fn remove_part(log: &MetadataLog, id: SnapshotId) {
    if let Err(fault) = ring::fs::remove_file(part_path(log, id)).await {
        warn!(snapshot = %id, "its part can't be removed: {fault}");
    }
}

/// Reads, checks and replays a file, piece by piece; says in the log how far it is, as large ones take seconds.
async fn load_file(fs: &Fs, path: &Path, id: SnapshotId) -> io::Result<Result<LoadedSnapshot, SnapshotLoadError>> {
    let file = fs.open(path).await?;
    info!(snapshot = %id, bytes = file.len().await?, "loading a snapshot of the metadata");
    let mut loading = SnapshotLoading::begin(id);
    // What begins a batch that isn't all there yet stays for the next turn.
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let mut position = 0;
    loop {
        let kept = bytes.len();
        bytes.resize(kept + READ_BYTES, 0);
        let count = file.read_up_to(position, &mut bytes[kept..]).await?;
        bytes.truncate(kept + count);
        position += count as u64;
        let is_last = count == 0;
        let on_progress = |records| info!(snapshot = %id, records, "still loading the snapshot");
        match loading.read(&bytes, is_last, on_progress) {
            Ok(_) if is_last => return Ok(loading.finish()),
            Ok(read) => drop(bytes.drain(..read)),
            Err(fault) => return Ok(Err(fault)),
        }
    }
}

// ---- Found at start ----

/// Loads a snapshot of the directory. `Ok(None)`: it is damaged, and was set aside.
pub async fn load(directory: &Path, id: SnapshotId) -> io::Result<Result<Option<LoadedSnapshot>, SnapshotLoadError>> {
    let path = directory.join(id.file_name());
    let read = {
        let path = path.clone();
        async move |fs: Fs| load_file(&fs, &path, id).await
    };
    match ring::fs::run_apart("load-snapshot", read).await? {
        Ok(loaded) => Ok(Ok(Some(loaded))),
        Err(SnapshotLoadError::Damaged(fault)) => {
            error!(snapshot = %path.display(), "the snapshot is damaged and is set aside: {fault}");
            ring::fs::rename(path, directory.join(format!("{id}{DAMAGED_SUFFIX}"))).await?;
            Ok(Ok(None))
        }
        Err(fault) => Ok(Err(fault)),
    }
}

// ---- Retention ----

/// Lets old snapshots go, and the log before the oldest that stays, as long as there are two and `policy` says so.
/// Returns the log's new start if it moved.
pub async fn clean(
    log: &Rc<MetadataLog>,
    policy: &SnapshotPolicy,
    high_watermark: Offset,
    now: Now,
) -> Result<Option<Offset>, MetadataLogError> {
    let before = log.start_offset();
    loop {
        let two: Vec<SnapshotId> = log.snapshots.borrow().keys().copied().take(2).collect();
        let [oldest, next] = two[..] else { break };
        let oldest = SnapshotAge { id: oldest, last_contained: last_contained(log, oldest).await };
        let next = SnapshotAge { id: next, last_contained: None };
        let Some((gone, start)) = next_to_delete(policy, oldest, next, log.size(), now.wall) else { break };
        log.snapshots.borrow_mut().remove(&gone);
        log.delete_later(&gone.file_name(), &format!("{gone}{DELETED_SUFFIX}")).await;
        log.advance_start(start, high_watermark).await?;
        info!(snapshot = %gone, log.start = start.0, "old snapshot of the metadata deleted");
    }
    let start = log.start_offset();
    Ok((start > before).then_some(start))
}

/// The time of the last record that a snapshot covers, read from its first batch where it isn't known.
async fn last_contained(log: &Rc<MetadataLog>, id: SnapshotId) -> Option<TimestampMs> {
    let known = log.snapshots.borrow().get(&id).and_then(|info| info.last_contained_ms);
    if let Some(known) = known {
        return Some(TimestampMs(known));
    }
    let path = log.directory.join(id.file_name());
    let file = ring::File::open(&path, ring::Open::READ).await.ok()?;
    let head = file.read(0, HEADER_BYTES).await.ok()?;
    let Some(read) = snapshot::read_header(&head) else {
        warn!(snapshot = %id, "its header can't be read");
        return None;
    };
    if let Some(info) = log.snapshots.borrow_mut().get_mut(&id) {
        info.last_contained_ms = Some(read.0);
    }
    Some(read)
}
