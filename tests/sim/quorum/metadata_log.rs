//! The files of the metadata log, with the steps of `shards/controller/metadata_log.rs`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::checkpoint::format_leader_epoch_checkpoint;
use ringlog_log::names::{FileKind, FileState, LEADER_EPOCH_CHECKPOINT_FILE, QUORUM_STATE_FILE, SegmentFile};
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{DeletedSegment, Log, LogAppendError, LogBatch, LogConfig, TruncationPlan};
use ringlog_protocol::records::{BatchError, BatchIter};
use ringlog_quorum::durable_mark::{self, DurableMark};
use ringlog_raft::{EpochStart, LeaderEpochs, QuorumState, SnapshotId, snapshot_name};
use ringlog_types::{LeaderEpoch, MonotonicMs, Offset};

use super::device::{DiskError, Files};
use super::recovery::{carry_out_all, delete_segment, deleted_segments, recover};
use super::ring::{Ring, Turns};
use super::segment_store::{ReadError, SegmentStore};

/// How much of the log is read at once; in a node it is a megabyte.
pub(crate) const READ_BYTES: usize = 16 * 1024;
/// Nothing was written for so long: the file is cut to its records.
const IDLE_MS: u64 = 20;
/// What lies before the records in a batch: base offset and length.
const BATCH_PREFIX_BYTES: usize = 12;

/// Why the metadata log can't be used. All are fatal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataLogError {
    #[error("{file}: {source}")]
    Io { file: String, source: DiskError },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Append(#[from] LogAppendError),
    #[error("cut at offset {to}, the metadata log ends at {log_end_offset}: the records between are damaged")]
    Truncated { to: Offset, log_end_offset: Offset },
}

pub(crate) fn io_fault(file: &str) -> impl FnOnce(DiskError) -> MetadataLogError {
    let file = file.to_owned();
    move |source| MetadataLogError::Io { file, source }
}

/// A snapshot in the directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnapshotInfo {
    pub size: u64,
    /// Time of the last record that it covers, where it was read or written by this process.
    pub last_contained_ms: Option<i64>,
}

/// The log with its snapshots.
pub(crate) struct MetadataLog {
    pub files: Files,
    pub log: RefCell<Log>,
    pub store: SegmentStore,
    pub config: LogConfig,
    pub snapshots: RefCell<BTreeMap<SnapshotId, SnapshotInfo>>,
    mark: Cell<DurableMark>,
    mark_written_at: Cell<MonotonicMs>,
    mark_turn: Turns,
    files_turn: Turns,
    written_at: Cell<MonotonicMs>,
    is_cut_due: Cell<bool>,
    generation: Cell<u64>,
}

impl MetadataLog {
    pub(crate) fn new(
        files: Files,
        log: Log,
        store: SegmentStore,
        config: LogConfig,
        snapshots: BTreeMap<SnapshotId, SnapshotInfo>,
        mark: DurableMark,
    ) -> MetadataLog {
        let ring = files.ring.clone();
        MetadataLog {
            files,
            log: RefCell::new(log),
            store,
            config,
            snapshots: RefCell::new(snapshots),
            mark: Cell::new(mark),
            mark_written_at: Cell::new(ring.now().monotonic),
            mark_turn: Turns::new(&ring),
            files_turn: Turns::new(&ring),
            written_at: Cell::new(ring.now().monotonic),
            is_cut_due: Cell::new(false),
            generation: Cell::new(0),
        }
    }

    pub(crate) fn ring(&self) -> &Rc<Ring> {
        &self.files.ring
    }

    pub(crate) fn start_offset(&self) -> Offset {
        self.log.borrow().log_start_offset()
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.log.borrow().log_end_offset()
    }

    /// Bytes of log and snapshots.
    pub(crate) fn size(&self) -> u64 {
        let snapshots: u64 = self.snapshots.borrow().values().map(|snapshot| snapshot.size).sum();
        self.log.borrow().size() + snapshots
    }

    pub(crate) fn epochs(&self) -> LeaderEpochs {
        let log = self.log.borrow();
        let entries = log.leader_epochs().entries();
        LeaderEpochs::new(entries.iter().map(|it| EpochStart { epoch: it.epoch, start_offset: it.start_offset }))
    }

    /// Appends whole batches with their final offsets, in memory.
    pub(crate) fn append(&self, batches: &Bytes) -> Result<(), MetadataLogError> {
        let now = self.ring().now().wall;
        for batch in BatchIter::new(batches) {
            let batch = batch?;
            let log_batch = LogBatch::of(&batch)?;
            let placement = self.log.borrow_mut().append(&[log_batch], &self.config, now)?;
            if let Some(roll) = placement.roll {
                self.store.roll(*roll);
            }
            self.store.append(u64::from(placement.position), batch.bytes);
            let place = (placement.segment_base_offset, placement.position);
            let shared = &self.ring().shared;
            shared.checks.borrow_mut().on_appended(shared, self.ring().node, &batch, place);
        }
        Ok(())
    }

    /// Brings everything that was appended before to the device.
    pub(crate) async fn flush(self: &Rc<Self>) -> Result<(), MetadataLogError> {
        let turn = self.files_turn.acquire().await;
        self.flush_in_turn().await?;
        drop(turn);
        self.cut_padding_when_idle();
        self.write_mark_now_and_then();
        Ok(())
    }

    /// Writes everything that was appended before, as a node does that nobody counts on.
    pub(crate) async fn write_out(self: &Rc<Self>) -> Result<(), MetadataLogError> {
        let turn = self.files_turn.acquire().await;
        self.write_changed_epochs().await?;
        self.store.write_out().await.map_err(io_fault("log"))?;
        for roll in self.store.take_finished() {
            self.store.finish(&roll).await.map_err(io_fault("log"))?;
        }
        drop(turn);
        self.cut_padding_when_idle();
        Ok(())
    }

    /// Once nothing is written for a moment, the file ends with its last record.
    fn cut_padding_when_idle(self: &Rc<Self>) {
        self.written_at.set(self.ring().now().monotonic);
        if self.is_cut_due.replace(true) {
            return;
        }
        let log = self.clone();
        self.ring().spawn_detached(async move {
            let mut idle_at = log.written_at.get().plus_ms(IDLE_MS);
            while log.ring().now().monotonic < idle_at {
                log.ring().sleep_ms(idle_at.since_ms(log.ring().now().monotonic)).await;
                idle_at = log.written_at.get().plus_ms(IDLE_MS);
            }
            log.is_cut_due.set(false);
            let _turn = log.files_turn.acquire().await;
            if log.store.cut_padding().await.is_err() {
                log.ring().shared.note(log.ring().node, || "the metadata log can't be cut to its records".to_owned());
            }
        });
    }

    async fn flush_in_turn(&self) -> Result<(), MetadataLogError> {
        let end_offset = self.end_offset();
        self.write_changed_epochs().await?;
        self.store.write_out().await.map_err(io_fault("log"))?;
        for roll in self.store.take_finished() {
            self.store.finish(&roll).await.map_err(io_fault("log"))?;
        }
        self.store.sync().await.map_err(io_fault("log"))?;
        let now = self.ring().now().wall;
        self.log.borrow_mut().on_flushed(end_offset, now);
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
        self.write_small(LEADER_EPOCH_CHECKPOINT_FILE, text.as_bytes()).await
    }

    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), MetadataLogError> {
        self.files.write_atomically(name, bytes).await.map_err(io_fault(name))
    }

    /// Writes the mark durably.
    pub(crate) async fn write_mark(&self, mark: DurableMark) -> Result<(), MetadataLogError> {
        let _turn = self.mark_turn.acquire().await;
        self.mark.set(mark);
        self.mark_written_at.set(self.ring().now().monotonic);
        self.write_small(durable_mark::FILE_NAME, mark.to_json().as_bytes()).await
    }

    /// What had been lost is there again, or it is known that nothing was.
    pub(crate) async fn end_rebuilding(&self) -> Result<(), MetadataLogError> {
        let mark = DurableMark { rebuilding: false, blank: false, ..self.mark.get() };
        self.write_mark(mark).await
    }

    /// Whether others vote, too, by the newest voters of the log.
    pub(crate) async fn note_peers(&self, has_peers: bool) -> Result<(), MetadataLogError> {
        if self.mark.get().has_peers == has_peers {
            return Ok(());
        }
        self.write_mark(DurableMark { has_peers, ..self.mark.get() }).await
    }

    fn write_mark_now_and_then(self: &Rc<Self>) {
        let flushed = self.log.borrow().recovery_point();
        let age_ms = self.ring().now().monotonic.since_ms(self.mark_written_at.get());
        if self.mark.get().after_flush(flushed, age_ms).is_none() {
            return;
        }
        self.mark_written_at.set(self.ring().now().monotonic);
        let log = self.clone();
        self.ring().spawn_detached(async move {
            let _turn = log.mark_turn.acquire().await;
            // A truncation may have come between.
            let flushed = flushed.min(log.log.borrow().recovery_point());
            let Some(mark) = log.mark.get().after_flush(flushed, u64::MAX) else { return };
            log.mark.set(mark);
            // A failure costs nothing but this mark.
            let _ = log.write_small(durable_mark::FILE_NAME, mark.to_json().as_bytes()).await;
        });
    }

    /// Makes raft's durable state durable.
    pub(crate) async fn write_quorum_state(&self, state: &QuorumState) -> Result<(), MetadataLogError> {
        self.write_small(QUORUM_STATE_FILE, state.to_json().as_bytes()).await
    }

    /// Whole batches from `from` that begin below `limit`: about `max_bytes`, but one at least.
    pub(crate) async fn read(&self, from: Offset, limit: Offset, max_bytes: usize) -> Result<Bytes, MetadataLogError> {
        let generation = self.generation.get();
        match self.store.read(&self.log, from, limit, max_bytes).await {
            Ok(bytes) => Ok(whole_batches(bytes)),
            // Not an error of the disk: these files were removed meanwhile.
            Err(_) if self.generation.get() != generation => Ok(Bytes::new()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Drops everything at and above `to`, a batch's first offset.
    pub(crate) async fn truncate_to(&self, to: Offset) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire().await;
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
                let recovered = recover(&self.files, *input, &self.config, None).await?;
                let opened = recovered.log.clone();
                if opened.log_end_offset != to {
                    return Err(MetadataLogError::Truncated { to, log_end_offset: opened.log_end_offset });
                }
                let (base_offset, size) = (opened.active.base_offset, u64::from(opened.active.size));
                carry_out_all(&self.files, &recovered).await?;
                for segment in deleted_segments(&recovered.actions) {
                    self.store.forget(segment);
                }
                *self.log.borrow_mut() = Log::open(opened, self.ring().now().wall);
                self.store.reset(base_offset, size, Some(size));
                self.store.has_old_indexes();
                self.write_epochs().await?;
            }
        }
        Ok(())
    }

    /// A checked snapshot takes the log's place.
    pub(crate) async fn adopt_snapshot(
        &self,
        id: SnapshotId,
        part: &str,
        info: SnapshotInfo,
    ) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire().await;
        self.generation.set(self.generation.get() + 1);
        self.files.rename(part, &id.file_name()).await.map_err(io_fault(part))?;
        let older: Vec<SnapshotId> = self.snapshots.borrow().range(..id).map(|(older, _)| *older).collect();
        self.snapshots.borrow_mut().insert(id, info);
        self.restart(id.end_offset, Some(id.epoch)).await?;
        for older in older {
            self.snapshots.borrow_mut().remove(&older);
            self.delete_later(&older.file_name(), &format!("{older}{}", snapshot_name::DELETED_SUFFIX)).await;
        }
        Ok(())
    }

    /// Empties the log so that it starts and ends at `offset`, behind a record of `epoch`.
    pub(crate) async fn restart(&self, offset: Offset, epoch: Option<LeaderEpoch>) -> Result<(), MetadataLogError> {
        // Between the old log's end and the new one's beginning there is none.
        if let Some(mark) = self.mark.get().before_truncation(Offset(0)) {
            self.write_mark(mark).await?;
        }
        let now = self.ring().now().wall;
        let deleted = self.log.borrow_mut().truncate_fully_and_start_at(offset, now);
        for DeletedSegment { base_offset, .. } in &deleted {
            self.store.forget(*base_offset);
        }
        self.store.reset(offset, 0, None);
        for DeletedSegment { base_offset, .. } in deleted {
            delete_segment(&self.files, base_offset).await;
        }
        if let Some(epoch) = epoch {
            self.log.borrow_mut().leader_epochs_mut().assign(epoch, offset);
        }
        self.store.create_active().await.map_err(io_fault("log"))?;
        self.write_epochs().await
    }

    /// Leaves the files as an orderly stop leaves them. Everything must have been flushed.
    pub(crate) async fn close(&self) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire().await;
        self.store.trim().await.map_err(io_fault("log"))?;
        let (base_offset, offsets, times, producers) = {
            let mut log = self.log.borrow_mut();
            let end_offset = log.log_end_offset();
            log.producers_mut().update_map_end_offset(end_offset);
            let producers = log.producers_mut().take_snapshot();
            let active = log.active_segment_mut();
            active.index.on_close();
            (active.base_offset, active.index.offsets.encode_from(0), active.index.times.encode_from(0), producers)
        };
        self.store.write_file(base_offset, FileKind::OffsetIndex, &offsets).await.map_err(io_fault("index"))?;
        self.store.write_file(base_offset, FileKind::TimeIndex, &times).await.map_err(io_fault("index"))?;
        if let Some((offset, entries)) = producers {
            let bytes = encode_producer_snapshot(&entries);
            self.store.write_file(offset, FileKind::ProducerSnapshot, &bytes).await.map_err(io_fault("producers"))?;
        }
        self.write_epochs().await?;
        let flushed = self.log.borrow().recovery_point();
        match self.mark.get().after_flush(flushed, u64::MAX) {
            Some(mark) => self.write_mark(mark).await,
            None => Ok(()),
        }
    }

    /// Lets go what snapshots replace: everything below `offset`. Whole segments only.
    pub(crate) async fn advance_start(&self, offset: Offset, high_watermark: Offset) -> Result<(), MetadataLogError> {
        let _turn = self.files_turn.acquire().await;
        // What is sealed and not finished yet must not be deleted under the hands of the next flush.
        self.flush_in_turn().await?;
        let now = self.ring().now().wall;
        let outcome = {
            let mut log = self.log.borrow_mut();
            log.advance_log_start_offset(offset);
            log.delete_old_segments(&self.config, high_watermark, now)
        };
        for (deleted, _) in outcome.deleted {
            self.store.forget(deleted.base_offset);
            for kind in FileKind::ALL {
                let file = SegmentFile::live(deleted.base_offset, kind);
                let gone = SegmentFile { state: FileState::Deleted, ..file };
                self.delete_later(&file.to_string(), &gone.to_string()).await;
            }
        }
        self.write_epochs().await
    }

    /// Renames a file, and unlinks it after a while. A name that isn't there is fine.
    pub(crate) async fn delete_later(&self, name: &str, deleted_name: &str) {
        if self.files.rename(name, deleted_name).await.is_err() {
            return;
        }
        let delay_ms = u64::try_from(self.config.file_delete_delay_ms).unwrap_or(0);
        let (files, deleted_name) = (self.files.clone(), deleted_name.to_owned());
        self.ring().spawn_detached(async move {
            files.ring.sleep_ms(delay_ms).await;
            files.remove(&deleted_name).await;
        });
    }
}

/// `bytes` without the part of a batch at their end.
fn whole_batches(mut bytes: Vec<u8>) -> Bytes {
    let mut end = 0;
    while let Some(prefix) = bytes.get(end..end + BATCH_PREFIX_BYTES) {
        let length = i32::from_be_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
        let Ok(length) = usize::try_from(length) else { break };
        if end + BATCH_PREFIX_BYTES + length > bytes.len() {
            break;
        }
        end += BATCH_PREFIX_BYTES + length;
    }
    bytes.truncate(end);
    bytes.into()
}
