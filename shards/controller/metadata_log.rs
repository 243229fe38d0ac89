//! The files of the metadata log: `__cluster_metadata-0`.
//!
//! It is a log like a partition's, but raft decides what is appended and what is committed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, QUORUM_STATE_FILE, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{DeletedSegment, Log, LogBatch, LogConfig, TruncationPlan};
use ringlog_protocol::records::BatchIter;
use ringlog_quorum::durable_mark::{self, DurableMark};
use ringlog_raft::{LeaderEpochs, QuorumState, SnapshotId};
use ringlog_ring as ring;
use ringlog_types::{LeaderEpoch, MonotonicMs, Offset};
use tracing::{debug, info, warn};

use super::metadata_log_error::MetadataLogError;
use super::recovery::recover;
use crate::core::Core;
use crate::storage::log_read::{self, ReadRange, StoredLog};
use crate::storage::log_recovery::{apply_recovery, deleted_segments, remove_segment};
use crate::storage::segment_store::SegmentStore;

/// Nothing was written for so long: the file is cut to its records.
const IDLE_MS: u64 = 20;
/// What lies before the records in a batch: base offset and length.
const BATCH_PREFIX_BYTES: usize = 12;

/// A snapshot in the directory.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotInfo {
    /// Bytes of its file.
    pub size: u64,
    /// Time of the last record that it covers, where it was read or written by this process.
    pub last_contained_ms: Option<i64>,
}

/// The log with its snapshots.
pub struct MetadataLog {
    core: Rc<Core>,
    /// The directory.
    pub directory: PathBuf,
    log: RefCell<Log>,
    store: Rc<SegmentStore>,
    /// How it is kept.
    pub config: Rc<LogConfig>,
    /// Complete snapshots.
    pub snapshots: RefCell<BTreeMap<SnapshotId, SnapshotInfo>>,
    /// What `ringlog-durable-mark` says.
    mark: Cell<DurableMark>,
    mark_written_at: Cell<MonotonicMs>,
    /// Taken by whoever writes the mark.
    mark_turn: ring::ByteSemaphore,
    /// Taken by whoever writes the log's files: a flush, a truncation, a snapshot in the log's place.
    files_turn: ring::ByteSemaphore,
    written_at: Cell<MonotonicMs>,
    /// A task waits for the log to be idle.
    is_cut_due: Cell<bool>,
}

impl StoredLog for MetadataLog {
    fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(&self.log.borrow())
    }

    fn store(&self) -> Rc<SegmentStore> {
        self.store.clone()
    }
}

impl MetadataLog {
    /// The log in `directory`.
    pub fn new(
        core: Rc<Core>,
        directory: &Path,
        log: Log,
        store: Rc<SegmentStore>,
        config: Rc<LogConfig>,
        snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
        mark: DurableMark,
    ) -> MetadataLog {
        MetadataLog {
            core,
            directory: directory.to_owned(),
            log: RefCell::new(log),
            store,
            config,
            snapshots: RefCell::new(snapshots),
            mark: Cell::new(mark),
            mark_written_at: Cell::new(ring::now().monotonic),
            mark_turn: ring::ByteSemaphore::new(1),
            files_turn: ring::ByteSemaphore::new(1),
            written_at: Cell::new(ring::now().monotonic),
            is_cut_due: Cell::new(false),
        }
    }

    /// Puts the path to what the system says.
    pub fn io_fault(&self, source: io::Error) -> MetadataLogError {
        MetadataLogError::Io { path: self.directory.clone(), source }
    }

    /// First offset of the log.
    pub fn start_offset(&self) -> Offset {
        self.log.borrow().log_start_offset()
    }

    /// The offset after the last record.
    pub fn end_offset(&self) -> Offset {
        self.log.borrow().log_end_offset()
    }

    /// Bytes of log and snapshots.
    pub fn size(&self) -> u64 {
        let snapshots: u64 = self.snapshots.borrow().values().map(|snapshot| snapshot.size).sum();
        self.log.borrow().size() + snapshots
    }

    /// The log's leader epochs, as raft wants them.
    pub fn epochs(&self) -> LeaderEpochs {
        let log = self.log.borrow();
        let entries = log.leader_epochs().entries();
        LeaderEpochs::new(
            entries.iter().map(|it| ringlog_raft::EpochStart { epoch: it.epoch, start_offset: it.start_offset }),
        )
    }

    /// Appends whole batches with their final offsets, in memory; [`MetadataLog::flush`] brings them to the device.
    pub fn append(&self, batches: &Bytes) -> Result<(), MetadataLogError> {
        let now = ring::now().wall;
        for batch in BatchIter::new(batches) {
            let batch = batch?;
            let log_batch = LogBatch::of(&batch)?;
            let placement = self.log.borrow_mut().append(&[log_batch], &self.config, now)?;
            if let Some(roll) = placement.roll {
                self.store.roll(roll);
            }
            self.store.append(u64::from(placement.position), &[batch.bytes]);
        }
        Ok(())
    }

    /// Brings everything that was appended before to the device.
    pub async fn flush(self: &Rc<Self>) -> Result<(), MetadataLogError> {
        let turn = self.files_turn.acquire(1).await;
        self.flush_in_turn().await?;
        drop(turn);
        self.cut_padding_when_idle();
        self.write_mark_now_and_then();
        Ok(())
    }

    /// Writes everything that was appended before, which makes it survive this process but not a power failure: what
    /// a node does that nobody counts on.
    pub async fn write_out(self: &Rc<Self>) -> Result<(), MetadataLogError> {
        let turn = self.files_turn.acquire(1).await;
        self.write_changed_epochs().await?;
        let store = &self.store;
        store.write_out().await.map_err(|error| self.io_fault(error))?;
        for roll in store.take_finished() {
            store.finish(&roll).await.map_err(|error| self.io_fault(error))?;
        }
        drop(turn);
        self.cut_padding_when_idle();
        Ok(())
    }

    /// Kafka's tools stop at the zeros behind the last record, which a write of whole blocks leaves. They go once nothing is
    /// written for a moment: at once, each of many small flushes would have to change the file's length.
    fn cut_padding_when_idle(self: &Rc<Self>) {
        self.written_at.set(ring::now().monotonic);
        if self.is_cut_due.replace(true) {
            return;
        }
        let log = self.clone();
        self.core.spawn(async move {
            let mut idle_at = log.written_at.get().plus_ms(IDLE_MS);
            while ring::now().monotonic < idle_at {
                ring::sleep_until(idle_at).await;
                idle_at = log.written_at.get().plus_ms(IDLE_MS);
            }
            log.is_cut_due.set(false);
            let _turn = log.files_turn.acquire(1).await;
            if let Err(error) = log.store.cut_padding().await {
                warn!(directory = %log.directory.display(), "the metadata log can't be cut to its records: {error}");
            }
        });
    }

    async fn flush_in_turn(&self) -> Result<(), MetadataLogError> {
        let end_offset = self.end_offset();
        self.write_changed_epochs().await?;
        let store = &self.store;
        store.write_out().await.map_err(|error| self.io_fault(error))?;
        for roll in store.take_finished() {
            store.finish(&roll).await.map_err(|error| self.io_fault(error))?;
        }
        store.sync().await.map_err(|error| self.io_fault(error))?;
        self.log.borrow_mut().on_flushed(end_offset, ring::now().wall);
        Ok(())
    }

    /// Before the records of a new epoch: at the start it says which batch is of which epoch, as no checksum does.
    async fn write_changed_epochs(&self) -> Result<(), MetadataLogError> {
        let epochs_changed = self.log.borrow_mut().leader_epochs_mut().take_dirty();
        if epochs_changed {
            self.write_epochs().await?;
        }
        Ok(())
    }

    async fn write_epochs(&self) -> Result<(), MetadataLogError> {
        let text = format_leader_epoch_checkpoint(self.log.borrow().leader_epochs().entries());
        self.write_small(LEADER_EPOCH_CHECKPOINT_FILE, text.into_bytes()).await
    }

    async fn write_small(&self, name: &str, bytes: Vec<u8>) -> Result<(), MetadataLogError> {
        let path = self.directory.join(name);
        let outcome = ring::fs::write_atomically(path.clone(), bytes).await;
        outcome.map_err(|source| MetadataLogError::Io { path, source })
    }

    /// Writes the mark durably.
    pub async fn write_mark(&self, mark: DurableMark) -> Result<(), MetadataLogError> {
        let _turn = self.mark_turn.acquire(1).await;
        self.mark.set(mark);
        self.mark_written_at.set(ring::now().monotonic);
        self.write_small(durable_mark::FILE_NAME, mark.to_json().into_bytes()).await
    }

    /// What had been lost is there again, or it is known that nothing was. Returns whether something was.
    pub async fn end_rebuilding(&self) -> Result<bool, MetadataLogError> {
        let was_rebuilding = self.mark.get().rebuilding;
        let mark = DurableMark { rebuilding: false, blank: false, ..self.mark.get() };
        self.write_mark(mark).await?;
        Ok(was_rebuilding)
    }

    /// Notes whether others vote, too, by the newest voters of the log: before anybody counts on them.
    pub async fn note_peers(&self, has_peers: bool) -> Result<(), MetadataLogError> {
        if self.mark.get().has_peers == has_peers {
            return Ok(());
        }
        self.write_mark(DurableMark { has_peers, ..self.mark.get() }).await
    }

    /// Beside, so that it holds nobody up; a failure costs nothing but this mark.
    fn write_mark_now_and_then(self: &Rc<Self>) {
        let flushed = self.log.borrow().recovery_point();
        let age_ms = ring::now().monotonic.since_ms(self.mark_written_at.get());
        if self.mark.get().after_flush(flushed, age_ms).is_none() {
            return;
        }
        self.mark_written_at.set(ring::now().monotonic);
        let log = self.clone();
        self.core.spawn(async move {
            let _turn = log.mark_turn.acquire(1).await;
            // A truncation may have come between.
            let flushed = flushed.min(log.log.borrow().recovery_point());
            let Some(mark) = log.mark.get().after_flush(flushed, u64::MAX) else { return };
            log.mark.set(mark);
            if let Err(fault) = log.write_small(durable_mark::FILE_NAME, mark.to_json().into_bytes()).await {
                warn!("the durable mark can't be written: {fault}");
            }
        });
    }

    /// Makes raft's durable state durable.
    pub async fn write_quorum_state(&self, state: &QuorumState) -> Result<(), MetadataLogError> {
        self.write_small(QUORUM_STATE_FILE, state.to_json().into_bytes()).await
    }

    /// Whole batches from `from`, a batch's first offset, that begin below `limit`: about `max_bytes`, but one at
    /// least. Empty when there is none.
    pub async fn read(&self, from: Offset, limit: Offset, max_bytes: usize) -> Result<Vec<Bytes>, MetadataLogError> {
        let located = self.log.borrow().locate(from);
        let Ok(location) = located else { return Ok(Vec::new()) };
        let range = ReadRange { place: self.place(location), from, limit, max_bytes, at_least_one: true };
        Ok(whole_batches(&log_read::read(self, &range, usize::MAX).await?.slices))
    }

    /// Drops everything at and above `to`, a batch's first offset. Reads that are under way end below.
    pub async fn truncate_to(&self, to: Offset) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire(1).await;
        if let Some(mark) = self.mark.get().before_truncation(to) {
            self.write_mark(mark).await?;
        }
        // All of it is in the files then, and no write is in flight.
        self.flush_in_turn().await?;
        let plan = self.log.borrow().plan_truncation(to, Vec::new());
        match plan {
            TruncationPlan::Nothing => {}
            TruncationPlan::Fully => self.restart(to, None).await?,
            TruncationPlan::Rebuild(input) => {
                let recovered = recover(&self.directory, *input, &self.config, None).await?;
                let opened = recovered.log.clone();
                if opened.log_end_offset != to {
                    return Err(MetadataLogError::Truncated { to, log_end_offset: opened.log_end_offset });
                }
                let size = u64::from(opened.active.size);
                for segment in deleted_segments(&recovered.actions) {
                    self.store.forget(segment);
                }
                apply_recovery(&self.directory, &recovered).await?;
                *self.log.borrow_mut() = Log::open(opened, ring::now().wall);
                self.store.reset(&self.log.borrow(), Some(size));
                // A segment that had been sealed has index files, which say too much now.
                self.store.has_old_indexes();
                self.write_epochs().await?;
            }
        }
        info!(to = to.0, "the metadata log was cut where it differs from the leader's");
        Ok(())
    }

    /// A checked snapshot takes the log's place: the log begins anew at its end.
    pub async fn adopt_snapshot(
        &self,
        id: SnapshotId,
        part: &Path,
        info: SnapshotInfo,
    ) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire(1).await;
        let path = self.directory.join(id.file_name());
        ring::fs::rename(part.to_owned(), path).await.map_err(|error| self.io_fault(error))?;
        let older: Vec<SnapshotId> = self.snapshots.borrow().range(..id).map(|(older, _)| *older).collect();
        self.snapshots.borrow_mut().insert(id, info);
        self.restart(id.end_offset, Some(id.epoch)).await?;
        for older in older {
            self.snapshots.borrow_mut().remove(&older);
            self.delete_later(&older.file_name(), &format!("{older}{}", ringlog_raft::snapshot_name::DELETED_SUFFIX))
                .await;
        }
        info!(snapshot = %id, "the metadata log begins anew at the end of a snapshot");
        Ok(())
    }

    /// Empties the log so that it starts and ends at `offset`, behind a record of `epoch`.
    pub async fn restart(&self, offset: Offset, epoch: Option<LeaderEpoch>) -> Result<(), MetadataLogError> {
        // Between the old log's end and the new one's beginning there is none.
        if let Some(mark) = self.mark.get().before_truncation(Offset(0)) {
            self.write_mark(mark).await?;
        }
        let now = ring::now().wall;
        let deleted = self.log.borrow_mut().truncate_fully_and_start_at(offset, now);
        // Reads that are under way end here: what they read has no meaning any more.
        self.store.reset(&self.log.borrow(), None);
        for DeletedSegment { base_offset, .. } in deleted {
            remove_segment(&self.directory, base_offset).await?;
        }
        if let Some(epoch) = epoch {
            self.log.borrow_mut().leader_epochs_mut().assign(epoch, offset);
        }
        self.store.create_active().await.map_err(|error| self.io_fault(error))?;
        self.write_epochs().await
    }

    /// Leaves the files as an orderly stop leaves them. Everything must have been flushed.
    pub async fn close(&self) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire(1).await;
        let store = &self.store;
        store.trim().await.map_err(|error| self.io_fault(error))?;
        let (base_offset, offsets, times, producers) = {
            let mut log = self.log.borrow_mut();
            let end_offset = log.log_end_offset();
            log.producers_mut().update_map_end_offset(end_offset);
            let producers = log.producers_mut().take_snapshot();
            let active = log.active_segment_mut();
            active.index.on_close();
            (active.base_offset, active.index.offsets.encode_from(0), active.index.times.encode_from(0), producers)
        };
        let fault = |error| self.io_fault(error);
        store.write_file(base_offset, FileKind::OffsetIndex, offsets).await.map_err(fault)?;
        store.write_file(base_offset, FileKind::TimeIndex, times).await.map_err(fault)?;
        if let Some((offset, entries)) = producers {
            let bytes = encode_producer_snapshot(&entries);
            store.write_file(offset, FileKind::ProducerSnapshot, bytes).await.map_err(fault)?;
        }
        self.write_epochs().await?;
        let flushed = self.log.borrow().recovery_point();
        match self.mark.get().after_flush(flushed, u64::MAX) {
            Some(mark) => self.write_mark(mark).await,
            None => Ok(()),
        }
    }

    /// Lets go what snapshots replace: everything below `offset`, the end of the oldest snapshot that stays. Whole
    /// segments only; their files are unlinked after a while.
    pub async fn advance_start(
        self: &Rc<Self>,
        offset: Offset,
        high_watermark: Offset,
    ) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire(1).await;
        // What is sealed and not finished yet must not be deleted under the hands of the next flush.
        self.flush_in_turn().await?;
        let outcome = {
            let mut log = self.log.borrow_mut();
            log.advance_log_start_offset(offset);
            log.delete_old_segments(&self.config, high_watermark, ring::now().wall)
        };
        for (deleted, _) in outcome.deleted {
            self.store.forget(deleted.base_offset);
            for kind in FileKind::ALL {
                let file = SegmentFile::live(deleted.base_offset, kind);
                self.delete_later(&file.to_string(), &SegmentFile { state: FileState::Deleted, ..file }.to_string())
                    .await;
            }
            debug!(base_offset = deleted.base_offset.0, "a segment of the metadata log is deleted");
        }
        self.write_epochs().await
    }

    /// Renames a file, and unlinks it after `internal.metadata.delete.delay.millis`. A name that isn't there is fine.
    pub async fn delete_later(&self, name: &str, deleted_name: &str) {
        let (from, to) = (self.directory.join(name), self.directory.join(deleted_name));
        match ring::fs::rename(from.clone(), to.clone()).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                warn!(file = %from.display(), "can't delete: {error}");
                return;
            }
        }
        let delay_ms = u64::try_from(self.config.file_delete_delay_ms).unwrap_or(0);
        self.core.spawn_until_stop(async move {
            ring::sleep_ms(delay_ms).await;
            if let Err(error) = ring::fs::remove_file(to.clone()).await {
                warn!(file = %to.display(), "can't delete: {error}");
            }
        });
    }
}

/// `slices` without the part of a batch at their end.
fn whole_batches(slices: &[Bytes]) -> Vec<Bytes> {
    let available: usize = slices.iter().map(Bytes::len).sum();
    let mut end = 0;
    while let Some(len) = batch_len(slices, end) {
        if end + len > available {
            break;
        }
        end += len;
    }
    let mut whole = Vec::with_capacity(slices.len());
    let mut left = end;
    for slice in slices {
        let len = slice.len().min(left);
        if len > 0 {
            whole.push(slice.slice(..len));
        }
        left -= len;
    }
    whole
}

/// Bytes of the batch that begins at `at`.
fn batch_len(slices: &[Bytes], at: usize) -> Option<usize> {
    let mut prefix = [0; BATCH_PREFIX_BYTES];
    let (mut skip, mut filled) = (at, 0);
    for slice in slices {
        let part = slice.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(slice.len());
        let len = part.len().min(BATCH_PREFIX_BYTES - filled);
        prefix[filled..filled + len].copy_from_slice(&part[..len]);
        filled += len;
    }
    let length = i32::from_be_bytes(prefix[8..].try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|_| filled == BATCH_PREFIX_BYTES)?;
    Some(length + BATCH_PREFIX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_cut_off_at_the_end_is_left_out() {
        let mut bytes = Vec::new();
        for length in [5u8, 60] {
            bytes.extend([0; 8]);
            bytes.extend(i32::from(length).to_be_bytes());
            bytes.extend(vec![length; usize::from(length)]);
        }
        let whole = Bytes::from(bytes);
        for cut in 0..=whole.len() {
            for split in 0..=cut {
                let slices = [whole.slice(..split), whole.slice(split..cut)];
                let expected = if cut >= 17 + 72 {
                    17 + 72
                } else if cut >= 17 {
                    17
                } else {
                    0
                };
                assert_eq!(whole_batches(&slices).concat(), &whole[..expected], "{cut} {split}");
            }
        }
    }
}
