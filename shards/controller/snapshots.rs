//! Snapshots of this node's metadata: when one is due, how it is written, which old ones go.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use ringlog_config::MetadataLogConfig;
use ringlog_metadata::MetadataImage;
use ringlog_raft::snapshot::SnapshotWriter;
use ringlog_raft::snapshot_name::{DELETED_SUFFIX, PART_SUFFIX};
use ringlog_raft::{SnapshotId, VoterSet};
use ringlog_ring as ring;
use ringlog_types::{MonotonicMs, Now, Offset, TimestampMs};
use tracing::{info, warn};

use super::loading::snapshot_timestamp;
use super::metadata_log::{MetadataLog, MetadataLogError, SnapshotInfo};

/// How often old snapshots are looked for, as Kafka does.
const CLEANING_INTERVAL_MS: u64 = 60_000;

/// When the next snapshot is due. One is written at a time.
pub struct Schedule {
    max_bytes: u64,
    max_interval_ms: u64,
    bytes: u64,
    /// The first record after the last snapshot came then.
    first_record_at: Option<MonotonicMs>,
    /// Offset up to which the last snapshot covers, or the one being written.
    covered_to: Offset,
    is_writing: bool,
    clean_at: MonotonicMs,
}

impl Schedule {
    /// After a start with `bytes` that the newest snapshot, which ends at `covered_to`, doesn't cover.
    pub fn new(config: &MetadataLogConfig, bytes: u64, covered_to: Offset, now: MonotonicMs) -> Schedule {
        Schedule {
            max_bytes: u64::try_from(config.max_record_bytes_between_snapshots).unwrap_or(u64::MAX),
            max_interval_ms: u64::try_from(config.max_snapshot_interval_ms).unwrap_or(0),
            bytes,
            first_record_at: (bytes > 0).then_some(now),
            covered_to,
            is_writing: false,
            clean_at: now.plus_ms(CLEANING_INTERVAL_MS),
        }
    }

    /// Records were applied.
    pub fn on_applied(&mut self, bytes: usize, now: MonotonicMs) {
        self.bytes += bytes as u64;
        self.first_record_at.get_or_insert(now);
    }

    /// Whether a snapshot of `image` is to be written now; if so it counts as begun.
    pub fn take_due(&mut self, image: &MetadataImage, now: MonotonicMs) -> bool {
        let provenance = image.provenance;
        let is_late = self.max_interval_ms > 0
            && self.first_record_at.is_some_and(|first| now.since_ms(first) >= self.max_interval_ms);
        let may = !self.is_writing
            && provenance.is_offset_batch_aligned
            && provenance.last_contained_offset >= self.covered_to
            && provenance.last_contained_epoch.0 >= 0;
        let is_due = may && (self.bytes >= self.max_bytes || is_late);
        if is_due {
            self.is_writing = true;
            self.bytes = 0;
            self.first_record_at = None;
            self.covered_to = provenance.last_contained_offset.plus(1);
        }
        is_due
    }

    /// Whether one is being written.
    pub fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// The snapshot that was begun is written, or failed.
    pub fn on_written(&mut self) {
        self.is_writing = false;
    }

    /// Whether old snapshots are to be looked for now.
    pub fn take_cleaning(&mut self, now: MonotonicMs) -> bool {
        let is_due = now >= self.clean_at;
        if is_due {
            self.clean_at = now.plus_ms(CLEANING_INTERVAL_MS);
        }
        is_due
    }

    /// When to look next.
    pub fn next_deadline(&self) -> MonotonicMs {
        let late = self.first_record_at.filter(|_| self.max_interval_ms > 0 && !self.is_writing);
        let late = late.map(|first| first.plus_ms(self.max_interval_ms));
        late.map_or(self.clean_at, |late| late.min(self.clean_at))
    }
}

/// What one snapshot is made of.
pub struct SnapshotJob {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds.
    pub image: MetadataImage,
    /// `kraft.version` and voters as of its end.
    pub membership: Option<(i16, VoterSet)>,
    /// The time.
    pub now: TimestampMs,
    /// A number for the part file's name.
    pub nonce: u64,
}

/// Writes a snapshot on a helper thread: it may take a while, and the controller goes on meanwhile.
pub async fn write(log: &Rc<MetadataLog>, job: SnapshotJob) -> io::Result<SnapshotId> {
    let id = job.id;
    let last_contained = job.image.provenance.last_contained_timestamp;
    let directory = log.directory.clone();
    let size = ring::blocking(move || write_file(&directory, &job)).await?;
    let info = SnapshotInfo { size, last_contained_ms: Some(last_contained.0) };
    log.snapshots.borrow_mut().insert(id, info);
    info!(snapshot = %id, bytes = size, "snapshot of the metadata written");
    Ok(id)
}

fn write_file(directory: &Path, job: &SnapshotJob) -> io::Result<u64> {
    let part = directory.join(format!("{}-{}{PART_SUFFIX}", job.id, job.nonce));
    let mut file = io::BufWriter::new(fs::File::create(&part)?);
    let membership = job.membership.as_ref().map(|(level, voters)| (*level, voters));
    let mut writer = SnapshotWriter::new(job.id, job.image.provenance.last_contained_timestamp, membership, job.now);
    let mut outcome = Ok(());
    job.image.for_each_record(job.image.metadata_version(), &mut |record| {
        if outcome.is_ok() {
            outcome = record.encode_framed().map_err(io::Error::other).and_then(|value| {
                writer.append(&value, job.now);
                writer.take_ready().iter().try_for_each(|batch| file.write_all(batch))
            });
        }
    });
    outcome?;
    for batch in writer.finish(job.now) {
        file.write_all(&batch)?;
    }
    let file = file.into_inner()?;
    file.set_permissions(fs::Permissions::from_mode(0o400))?;
    file.sync_all()?;
    let size = file.metadata()?.len();
    fs::rename(&part, directory.join(job.id.file_name()))?;
    fs::File::open(directory)?.sync_all()?;
    Ok(size)
}

/// Lets old snapshots go, and the log before the oldest that stays, while there are two and the directory is too large
/// or the oldest too old. Returns the log's new start if it moved.
pub async fn clean(
    log: &Rc<MetadataLog>,
    config: &MetadataLogConfig,
    high_watermark: Offset,
    now: Now,
) -> Result<Option<Offset>, MetadataLogError> {
    let before = log.start_offset();
    loop {
        let (oldest, next) = {
            let snapshots = log.snapshots.borrow();
            let mut ids = snapshots.keys().copied();
            match (ids.next(), ids.next()) {
                (Some(oldest), Some(next)) => (oldest, next),
                _ => break,
            }
        };
        let is_too_large = config.max_retention_bytes >= 0
            && log.size() > u64::try_from(config.max_retention_bytes).unwrap_or(u64::MAX);
        if !is_too_large && !is_too_old(log, oldest, config, now).await {
            break;
        }
        log.snapshots.borrow_mut().remove(&oldest);
        let name = oldest.file_name();
        let deleted = format!("{oldest}{DELETED_SUFFIX}");
        log.delete_later(&name, &deleted).await;
        log.advance_start(next.end_offset, high_watermark).await?;
        info!(snapshot = %oldest, log.start = next.end_offset.0, "old snapshot of the metadata deleted");
    }
    let start = log.start_offset();
    Ok((start > before).then_some(start))
}

async fn is_too_old(log: &Rc<MetadataLog>, id: SnapshotId, config: &MetadataLogConfig, now: Now) -> bool {
    if config.max_retention_ms < 0 {
        return false;
    }
    let known = log.snapshots.borrow().get(&id).and_then(|info| info.last_contained_ms);
    let last_contained_ms = match known {
        Some(known) => known,
        None => {
            let Some(read) = snapshot_timestamp(&log.directory, id).await else {
                warn!(snapshot = %id, "can't be read");
                return false;
            };
            if let Some(info) = log.snapshots.borrow_mut().get_mut(&id) {
                info.last_contained_ms = Some(read.0);
            }
            read.0
        }
    };
    now.wall.0.saturating_sub(last_contained_ms) > config.max_retention_ms
}
