//! When a snapshot of this node's metadata is due, what it is made of, and which old ones go (KIP-630).

use bytes::Bytes;
use ringlog_metadata::MetadataImage;
use ringlog_protocol::EncodeError;
use ringlog_raft::snapshot::SnapshotWriter;
use ringlog_raft::{SnapshotId, VoterSet};
use ringlog_types::{MonotonicMs, Offset, TimestampMs};

/// How often old snapshots are looked for, as Kafka does.
const CLEANING_INTERVAL_MS: u64 = 60_000;

/// What of the configuration decides about snapshots.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotPolicy {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub max_bytes_between: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0 is never by time.
    pub max_interval_ms: u64,
    /// `metadata.max.retention.bytes` of log and snapshots; `None` is without limit.
    pub max_retention_bytes: Option<u64>,
    /// `metadata.max.retention.ms`; `None` is without limit.
    pub max_retention_ms: Option<i64>,
}

impl Default for SnapshotPolicy {
    /// Kafka's defaults.
    fn default() -> Self {
        SnapshotPolicy {
            max_bytes_between: 20 * 1024 * 1024,
            max_interval_ms: 3_600_000,
            max_retention_bytes: Some(100 * 1024 * 1024),
            max_retention_ms: Some(604_800_000),
        }
    }
}

/// When the next snapshot is due. One is written at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    policy: SnapshotPolicy,
    bytes: u64,
    /// Bytes of the log at the start that are counted already and still to be applied.
    counted: u64,
    /// The first record after the last snapshot came then.
    first_record_at: Option<MonotonicMs>,
    /// It is late, but the image doesn't allow a snapshot: time alone changes nothing.
    is_held_up: bool,
    /// Offset up to which the last snapshot covers, or the one being written.
    covered_to: Offset,
    is_writing: bool,
    clean_at: MonotonicMs,
}

impl Schedule {
    /// After a start with `bytes` that the newest snapshot, which ends at `covered_to`, doesn't cover.
    pub(crate) fn new(policy: SnapshotPolicy, bytes: u64, covered_to: Offset, now: MonotonicMs) -> Schedule {
        Schedule {
            policy,
            bytes,
            counted: bytes,
            first_record_at: None,
            is_held_up: false,
            covered_to,
            is_writing: false,
            clean_at: now.plus_ms(CLEANING_INTERVAL_MS),
        }
    }

    /// Records were applied.
    pub(crate) fn on_applied(&mut self, bytes: usize, now: MonotonicMs) {
        let counted = self.counted.min(bytes as u64);
        self.counted -= counted;
        self.bytes += bytes as u64 - counted;
        self.first_record_at.get_or_insert(now);
        self.is_held_up = false;
    }

    /// Another node's snapshot took the place of everything.
    pub(crate) fn on_adopted(&mut self, id: SnapshotId) {
        self.bytes = 0;
        self.counted = 0;
        self.first_record_at = None;
        self.covered_to = self.covered_to.max(id.end_offset);
    }

    /// Whether a snapshot of `image` is to be written now; if so it counts as begun.
    pub(crate) fn take_due(&mut self, image: &MetadataImage, now: MonotonicMs) -> bool {
        let provenance = image.provenance;
        let is_late = self.policy.max_interval_ms > 0
            && self.first_record_at.is_some_and(|first| now.since_ms(first) >= self.policy.max_interval_ms);
        let may = !self.is_writing
            && provenance.is_offset_batch_aligned
            && provenance.last_contained_offset >= self.covered_to
            && provenance.last_contained_epoch.0 >= 0;
        let is_due = may && (self.bytes >= self.policy.max_bytes_between || is_late);
        self.is_held_up = is_late && !may;
        if is_due {
            self.is_writing = true;
            self.bytes = 0;
            self.first_record_at = None;
            self.covered_to = provenance.last_contained_offset.plus(1);
        }
        is_due
    }

    /// Whether one is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// The snapshot that was begun is written, or failed.
    pub(crate) fn on_written(&mut self) {
        self.is_writing = false;
        self.is_held_up = false;
    }

    /// Whether old snapshots are to be looked for now.
    pub(crate) fn take_cleaning(&mut self, now: MonotonicMs) -> bool {
        let is_due = now >= self.clean_at;
        if is_due {
            self.clean_at = now.plus_ms(CLEANING_INTERVAL_MS);
        }
        is_due
    }

    /// When to look next.
    pub(crate) fn next_deadline(&self) -> MonotonicMs {
        let may_be_late = self.policy.max_interval_ms > 0 && !self.is_writing && !self.is_held_up;
        let late = self.first_record_at.filter(|_| may_be_late);
        let late = late.map(|first| first.plus_ms(self.policy.max_interval_ms));
        late.map_or(self.clean_at, |late| late.min(self.clean_at))
    }
}

/// What one snapshot is made of.
#[derive(Debug)]
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

/// Why a snapshot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotWriteError<E> {
    /// A record doesn't fit the finalized version.
    #[error(transparent)]
    Encode(EncodeError),
    /// The bytes could not be written.
    #[error(transparent)]
    Write(E),
}

impl SnapshotJob {
    /// Hands the file's bytes to `write`, batch by batch. May take long: a million partitions about a second.
    pub fn write_to<E>(&self, mut write: impl FnMut(Bytes) -> Result<(), E>) -> Result<(), SnapshotWriteError<E>> {
        let membership = self.membership.as_ref().map(|(level, voters)| (*level, voters));
        let last_contained = self.image.provenance.last_contained_timestamp;
        let mut writer = SnapshotWriter::new(self.id, last_contained, membership, self.now);
        let mut outcome = Ok(());
        self.image.for_each_record(self.image.metadata_version(), &mut |record| {
            if outcome.is_ok() {
                outcome = record.encode_framed().map_err(SnapshotWriteError::Encode).and_then(|value| {
                    writer.append(&value, self.now);
                    writer.take_ready().into_iter().try_for_each(&mut write).map_err(SnapshotWriteError::Write)
                });
            }
        });
        outcome?;
        writer.finish(self.now).into_iter().try_for_each(write).map_err(SnapshotWriteError::Write)
    }
}

/// A snapshot in the directory, as far as retention wants to know.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotAge {
    /// Which.
    pub id: SnapshotId,
    /// Time of the last record that it covers, if known.
    pub last_contained: Option<TimestampMs>,
}

/// The oldest snapshot, if it is to go, and the log's new start: the end of the next one. `oldest` and `next` are the
/// first two of the directory, `size` is that of log and snapshots together, in bytes.
pub fn next_to_delete(
    policy: &SnapshotPolicy,
    oldest: SnapshotAge,
    next: SnapshotAge,
    size: u64,
    now: TimestampMs,
) -> Option<(SnapshotId, Offset)> {
    let is_too_large = policy.max_retention_bytes.is_some_and(|limit| size > limit);
    let age_ms = oldest.last_contained.map(|last| now.0.saturating_sub(last.0));
    let is_too_old = age_ms.zip(policy.max_retention_ms).is_some_and(|(age, limit)| age > limit);
    (is_too_large || is_too_old).then_some((oldest.id, next.id.end_offset))
}

#[cfg(test)]
mod tests {
    use ringlog_metadata::Provenance;
    use ringlog_types::LeaderEpoch;

    use super::*;

    fn image(last: i64, is_offset_batch_aligned: bool) -> MetadataImage {
        let provenance = Provenance {
            last_contained_offset: Offset(last),
            last_contained_epoch: LeaderEpoch(1),
            last_contained_timestamp: TimestampMs(1),
            is_offset_batch_aligned,
        };
        MetadataImage { provenance, ..MetadataImage::empty() }
    }

    #[test]
    fn nothing_is_due_by_time_while_no_snapshot_can_be_taken() {
        let policy = SnapshotPolicy { max_interval_ms: 1_000, ..SnapshotPolicy::default() };
        let mut schedule = Schedule::new(policy, 500, Offset(10), MonotonicMs(0));
        // The log holds more than the snapshot, but nobody has told yet what of it is committed.
        assert_eq!(schedule.next_deadline(), MonotonicMs(CLEANING_INTERVAL_MS));
        schedule.on_applied(500, MonotonicMs(2_000));
        assert_eq!(schedule.next_deadline(), MonotonicMs(3_000));
        // A transaction is open: only another record, not time, can change that.
        assert!(!schedule.take_due(&image(15, false), MonotonicMs(3_000)));
        assert_eq!(schedule.next_deadline(), MonotonicMs(CLEANING_INTERVAL_MS));
        schedule.on_applied(50, MonotonicMs(3_100));
        assert!(schedule.take_due(&image(16, true), MonotonicMs(3_100)));
    }

    #[test]
    fn bytes_of_the_log_at_the_start_count_once() {
        let policy = SnapshotPolicy { max_bytes_between: 900, max_interval_ms: 0, ..SnapshotPolicy::default() };
        let mut schedule = Schedule::new(policy, 500, Offset(10), MonotonicMs(0));
        schedule.on_applied(500, MonotonicMs(1));
        assert!(!schedule.take_due(&image(15, true), MonotonicMs(1)));
        schedule.on_applied(400, MonotonicMs(2));
        assert!(schedule.take_due(&image(16, true), MonotonicMs(2)));
    }
}
