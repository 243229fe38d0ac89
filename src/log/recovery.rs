//! Opens a log: finds its end, and rebuilds what the files can't be trusted for, as a machine fed with bytes.
//!
//! The store lists the directory, makes a [`Recovery`], and does what [`Recovery::step`] asks until it is done:
//!
//! * After an orderly stop only the newest segment's tail is read, from its last index entry, to find the log's end;
//!   producers come from the snapshot of that offset.
//! * Otherwise every segment from the recovery point on is read batch by batch: CRC, offsets, and cut at the first byte
//!   that is no whole, right batch (a torn write, or the zeros of preallocation). Its indexes are built anew, segments
//!   after a cut are deleted. Producers come from the newest snapshot at or below the first segment read; segments
//!   between that snapshot and there are read for producers alone. Snapshots above are deleted, and one of the log's end
//!   is written: they may know of batches that are lost.
//! * Truncation is the same with an end: everything at or above [`RecoveryInput::truncate_to`] is cut.
//! * A log that is never compacted has no gaps ([`Continuity`]): it is cut where one begins, or where a batch isn't of the
//!   leader epoch that it must be of. Neither offsets nor epochs are in a batch's checksum.
//!
//! Nothing is changed on disk before [`Recovery::finish`] says what to change; a crash in between finds the same files.

use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader, BatchRef};
use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

use crate::checkpoint::EpochEntry;
use crate::offset_index::OffsetIndex;
use crate::producer_snapshot::ProducerSnapshotEntry;
use crate::segment_index::SegmentIndex;
use crate::time_index::{TimeIndex, TimestampOffset};
use crate::transaction_index::TransactionIndex;
use crate::{
    ActiveSegment, LeaderEpochCache, Log, LogBatch, LogConfig, OpenedLog, ProducerStateManager, SealedSegment,
};

/// One `.log` file and what is known of its indexes.
#[derive(Debug, Clone)]
pub struct SegmentOnDisk {
    /// Offset in its name.
    pub base_offset: Offset,
    /// Bytes of the file.
    pub size: u32,
    /// When it was last changed.
    pub last_modified: TimestampMs,
    /// Both index files exist and their sizes are multiples of their entries.
    pub has_valid_indexes: bool,
    /// Whether a `.txnindex` exists.
    pub has_transaction_index: bool,
    /// Last entry of its time index; for sealed segments.
    pub newest: Option<TimestampOffset>,
}

/// The loaded indexes of the newest segment.
#[derive(Debug, Clone)]
pub struct LoadedIndexes {
    /// `.index`.
    pub offsets: OffsetIndex,
    /// `.timeindex`.
    pub times: TimeIndex,
    /// `.txnindex`, empty when there is none.
    pub transactions: TransactionIndex,
}

/// What the store found.
#[derive(Debug, Clone)]
pub struct RecoveryInput {
    /// The segments, by ascending base offset.
    pub segments: Vec<SegmentOnDisk>,
    /// Indexes of the last of them, after an orderly stop. `None` has it read from its start.
    pub newest_indexes: Option<LoadedIndexes>,
    /// From the checkpoint, 0 if not listed.
    pub recovery_point: Offset,
    /// From the checkpoint, 0 if not listed.
    pub log_start_offset: Offset,
    /// The clean-shutdown marker was there.
    pub clean_shutdown: bool,
    /// Offsets of the `.snapshot` files.
    pub snapshots: Vec<Offset>,
    /// Content of `leader-epoch-checkpoint`.
    pub leader_epochs: Vec<EpochEntry>,
    /// Cut the log here, at the start of the batch that holds this offset or is above it. Not below the first segment.
    pub truncate_to: Option<Offset>,
}

/// What a log's batches have to keep besides their own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Offsets rise; compaction may have left gaps.
    Rising,
    /// Each batch begins where the one before ended, and epochs never fall. [`RecoveryInput::leader_epochs`] was on the
    /// device before the records of each epoch: from its first entry on it knows the epoch of every batch.
    Contiguous,
}

/// How a running log is truncated.
#[derive(Debug, Clone)]
pub enum TruncationPlan {
    /// It ends at or below the offset already.
    Nothing,
    /// The offset is below all segments: [`crate::Log::truncate_fully_and_start_at`].
    Fully,
    /// Run this through [`Recovery`] and open the outcome in place of the log.
    Rebuild(Box<RecoveryInput>),
}

impl Log {
    /// Plans a truncation to `offset`. No write may be in flight. `snapshots` are the offsets of the `.snapshot` files.
    pub fn plan_truncation(&self, offset: Offset, snapshots: Vec<Offset>) -> TruncationPlan {
        if offset >= self.log_end_offset {
            return TruncationPlan::Nothing;
        }
        if offset < self.first_segment_base_offset() {
            return TruncationPlan::Fully;
        }
        let on_disk = |segment: &SealedSegment| SegmentOnDisk {
            base_offset: segment.base_offset,
            size: segment.size,
            last_modified: segment.last_modified,
            has_valid_indexes: true,
            has_transaction_index: segment.has_transaction_index,
            newest: Some(TimestampOffset { timestamp: segment.max_timestamp, offset: segment.offset_of_max_timestamp }),
        };
        TruncationPlan::Rebuild(Box::new(RecoveryInput {
            segments: self.sealed.iter().chain([&self.active.seal()]).map(on_disk).collect(),
            newest_indexes: None,
            recovery_point: self.recovery_point.min(offset),
            log_start_offset: self.log_start_offset.min(offset),
            clean_shutdown: false,
            snapshots,
            leader_epochs: self.leader_epochs.entries().to_vec(),
            truncate_to: Some(offset),
        }))
    }
}

/// What the machine needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryStep {
    /// Load this snapshot and report [`Recovery::on_snapshot`].
    LoadSnapshot {
        /// The offset in its name.
        offset: Offset,
    },
    /// Read and report [`Recovery::on_bytes`]: at least `min_length` bytes, unless the file ends before; more is
    /// better.
    Read {
        /// The segment.
        segment_base_offset: Offset,
        /// Where to start.
        position: u32,
        /// The least number of bytes.
        min_length: u32,
    },
    /// Call [`Recovery::finish`].
    Done,
}

/// A change on disk. The store does them in this order.
#[derive(Debug, Clone)]
pub enum RecoveryAction {
    /// Cut the `.log` to this size.
    TruncateSegment {
        /// The segment.
        base_offset: Offset,
        /// Bytes that stay.
        size: u32,
    },
    /// Delete the segment's files.
    DeleteSegment {
        /// The segment.
        base_offset: Offset,
    },
    /// Write the index files anew (no `.txnindex` when it has no entries). Those of the active segment are in
    /// [`OpenedLog::active`] likewise.
    WriteIndexes {
        /// The segment.
        base_offset: Offset,
        /// `.index` and `.timeindex`.
        index: Box<SegmentIndex>,
        /// `.txnindex`.
        transactions: TransactionIndex,
    },
    /// Create an empty segment.
    CreateSegment {
        /// Its base offset.
        base_offset: Offset,
    },
    /// Delete a producer snapshot.
    DeleteSnapshot {
        /// The offset in its name.
        offset: Offset,
    },
    /// Write a producer snapshot.
    WriteSnapshot {
        /// The offset in its name.
        offset: Offset,
        /// Its entries.
        entries: Vec<ProducerSnapshotEntry>,
    },
}

/// The opened log, and what to change on disk before it is used.
#[derive(Debug)]
pub struct Recovered {
    /// For [`crate::Log::open`].
    pub log: OpenedLog,
    /// Changes on disk, in order.
    pub actions: Vec<RecoveryAction>,
    /// Bytes cut off the end, for the log message. Preallocated zeros count.
    pub truncated_bytes: u64,
    /// A segment below the recovery point is corrupt: its producers were only partly found.
    pub is_corrupt_below_recovery_point: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Below what is scanned: only producers are taken.
    Replay,
    /// Checked and indexed anew from the segment's start.
    Rebuild,
    /// The newest segment after an orderly stop: from its last index entry.
    Tail,
    /// Only the first header of the newest segment.
    FirstHeader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Scanning,
    WantsSnapshot(Offset),
    Done,
}

/// The machine. See the module's text.
#[derive(Debug)]
pub struct Recovery {
    input: RecoveryInput,
    config: LogConfig,
    now: TimestampMs,
    continuity: Continuity,
    /// No batch is of an epoch above, in a log without gaps.
    newest_epoch: Option<LeaderEpoch>,
    /// The epochs as they were given.
    known_epochs: LeaderEpochCache,
    /// Of the last batch that was rebuilt.
    last_epoch: LeaderEpoch,
    phase: Phase,
    mode: Mode,
    /// The segment being read.
    current: usize,
    position: u32,
    min_length: u32,
    /// First segment to rebuild; `segments.len()` for none.
    rebuild_from: usize,
    /// Producer snapshots above may know of batches that a power failure took from an earlier segment.
    snapshots_hold_to: Option<Offset>,
    next_offset: Offset,
    index: SegmentIndex,
    transactions: TransactionIndex,
    first_batch_timestamp: Option<TimestampMs>,
    leader_epochs: LeaderEpochCache,
    /// Of batches before the first known epoch, in a log that keeps its epochs.
    earlier_epochs: LeaderEpochCache,
    producers: ProducerStateManager,
    actions: Vec<RecoveryAction>,
    truncated_bytes: u64,
    is_corrupt: bool,
}

impl Recovery {
    /// Starts. `input.segments` may be empty (a new directory).
    pub fn new(input: RecoveryInput, config: &LogConfig, now: TimestampMs) -> Recovery {
        Recovery::with_continuity(input, config, now, Continuity::Rising)
    }

    /// Starts, for a log whose batches have more to keep.
    pub fn with_continuity(
        input: RecoveryInput,
        config: &LogConfig,
        now: TimestampMs,
        continuity: Continuity,
    ) -> Recovery {
        let leader_epochs = LeaderEpochCache::from_entries(&input.leader_epochs);
        let base = input.segments.last().map_or(input.log_start_offset, |segment| segment.base_offset);
        let mut recovery = Recovery {
            config: config.clone(),
            now,
            continuity,
            newest_epoch: None,
            known_epochs: leader_epochs.clone(),
            last_epoch: LeaderEpoch::NONE,
            phase: Phase::Done,
            mode: Mode::Rebuild,
            current: 0,
            position: 0,
            min_length: BATCH_HEADER_LEN as u32,
            rebuild_from: 0,
            snapshots_hold_to: None,
            next_offset: base,
            index: SegmentIndex::new(base),
            transactions: TransactionIndex::new(),
            first_batch_timestamp: None,
            leader_epochs,
            earlier_epochs: LeaderEpochCache::default(),
            producers: ProducerStateManager::new(input.log_start_offset),
            actions: Vec::new(),
            truncated_bytes: 0,
            is_corrupt: false,
            input,
        };
        recovery.drop_segments_above_truncation();
        if !recovery.input.segments.is_empty() {
            recovery.begin();
        }
        recovery
    }

    /// Takes a batch of an epoch above for damaged, in a log without gaps: the node had known of no such epoch.
    pub fn with_newest_epoch(self, newest_epoch: Option<LeaderEpoch>) -> Recovery {
        Recovery { newest_epoch, ..self }
    }

    fn drop_segments_above_truncation(&mut self) {
        let Some(limit) = self.input.truncate_to else { return };
        // The segment that starts right at the limit stays, empty, as long as it is the first.
        let kept = self.input.segments.partition_point(|s| s.base_offset < limit).max(1);
        let dropped = self.input.segments.split_off(kept.min(self.input.segments.len()));
        self.input.newest_indexes = None;
        for segment in dropped {
            self.truncated_bytes += u64::from(segment.size);
            self.actions.push(RecoveryAction::DeleteSegment { base_offset: segment.base_offset });
        }
    }

    fn begin(&mut self) {
        let segments = &self.input.segments;
        let newest = segments.len() - 1;
        let first_bad = segments[..newest].iter().position(|segment| !segment.has_valid_indexes);
        let trusts_newest = self.input.clean_shutdown && self.input.truncate_to.is_none();
        if let (true, Some(loaded), true) = (trusts_newest, &self.input.newest_indexes, first_bad.is_none()) {
            let (offsets, times) = (loaded.offsets.clone(), loaded.times.clone());
            self.transactions = loaded.transactions.clone();
            self.position = offsets.last().map_or(0, |entry| entry.position).min(segments[newest].size);
            self.index = SegmentIndex::reopen(offsets, times);
            self.rebuild_from = segments.len();
            self.current = newest;
            self.mode = Mode::FirstHeader;
            self.phase = Phase::Scanning;
            if segments[newest].size < BATCH_HEADER_LEN as u32 {
                self.enter_tail();
            }
            return;
        }
        let is_only_newest = trusts_newest || self.input.truncate_to.is_some();
        let from = if is_only_newest { newest } else { self.floor_segment(self.input.recovery_point) };
        self.rebuild_from = first_bad.map_or(from, |bad| bad.min(from)).min(newest);
        let start = self.input.segments[self.rebuild_from].base_offset;
        self.snapshots_hold_to = (!is_only_newest).then_some(start);
        self.want_snapshot(start);
    }

    fn floor_segment(&self, offset: Offset) -> usize {
        self.input.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
    }

    /// Producers are wanted as of `offset` at most, from a snapshot after which no record is missing: of those below the log's
    /// start, or before the first segment (a power failure may have brought the snapshot back alone), some may be what a
    /// producer wrote last, and what it writes next would be taken for out of order. As Kafka's truncateAndReload, which does
    /// without the one of the log's start, too.
    fn want_snapshot(&mut self, offset: Offset) {
        let first = self.input.segments.first().map_or(Offset(0), |segment| segment.base_offset);
        let start = self.input.log_start_offset.max(first);
        let usable = |snapshot: &Offset| (start..=offset).contains(snapshot);
        match self.input.snapshots.iter().copied().filter(usable).max() {
            Some(snapshot) => self.phase = Phase::WantsSnapshot(snapshot),
            None => {
                self.producers = ProducerStateManager::new(start);
                self.replay_from(start);
            }
        }
    }

    fn replay_from(&mut self, offset: Offset) {
        self.phase = Phase::Scanning;
        let first = self.floor_segment(offset);
        if self.rebuild_from < self.input.segments.len() && first >= self.rebuild_from {
            self.enter_segment(self.rebuild_from);
        } else if self.rebuild_from == self.input.segments.len() && offset >= self.next_offset {
            self.phase = Phase::Done;
        } else {
            self.enter_segment(first);
        }
    }

    fn enter_segment(&mut self, segment: usize) {
        self.current = segment;
        self.position = 0;
        self.min_length = BATCH_HEADER_LEN as u32;
        if segment < self.rebuild_from {
            self.mode = Mode::Replay;
        } else {
            let base_offset = self.input.segments[segment].base_offset;
            self.mode = Mode::Rebuild;
            self.next_offset = base_offset;
            self.index = SegmentIndex::new(base_offset);
            self.transactions = TransactionIndex::new();
            self.first_batch_timestamp = None;
        }
        if self.input.segments[segment].size == 0 {
            self.end_segment();
        }
    }

    fn enter_tail(&mut self) {
        self.mode = Mode::Tail;
        self.min_length = BATCH_HEADER_LEN as u32;
        self.next_offset = self.input.segments[self.current].base_offset;
        if self.position >= self.input.segments[self.current].size {
            self.end_segment();
        }
    }

    /// What is needed next.
    pub fn step(&self) -> RecoveryStep {
        match self.phase {
            Phase::Done => RecoveryStep::Done,
            Phase::WantsSnapshot(offset) => RecoveryStep::LoadSnapshot { offset },
            Phase::Scanning => RecoveryStep::Read {
                segment_base_offset: self.input.segments[self.current].base_offset,
                position: if self.mode == Mode::FirstHeader { 0 } else { self.position },
                min_length: self.min_length,
            },
        }
    }

    /// The snapshot asked for; `None` when it can't be used: it is deleted and an older one tried.
    pub fn on_snapshot(&mut self, entries: Option<&[ProducerSnapshotEntry]>) {
        let Phase::WantsSnapshot(offset) = self.phase else { panic!("no snapshot was asked for") };
        match entries {
            Some(entries) => {
                let expiration_ms = self.config.producer_id_expiration_ms;
                self.producers = ProducerStateManager::from_snapshot(offset, entries, expiration_ms, self.now);
                self.replay_from(offset.max(self.input.log_start_offset));
            }
            None => {
                self.actions.push(RecoveryAction::DeleteSnapshot { offset });
                self.input.snapshots.retain(|snapshot| *snapshot != offset);
                self.want_snapshot(offset);
            }
        }
    }

    /// The bytes asked for. Fewer than asked for means that the file ends there.
    pub fn on_bytes(&mut self, bytes: &[u8]) {
        assert!(self.phase == Phase::Scanning, "no bytes were asked for");
        if self.mode == Mode::FirstHeader {
            self.first_batch_timestamp = BatchHeader::parse(bytes).ok().map(|header| header.max_timestamp);
            self.enter_tail();
            return;
        }
        let segment = self.current;
        let is_short = bytes.len() < self.min_length as usize;
        let mut rest = bytes;
        loop {
            let left = self.input.segments[segment].size - self.position;
            if left == 0 {
                return self.end_segment();
            }
            let taken = match self.next_batch(rest, left) {
                Next::Batch(batch, logged) => {
                    self.take(&batch.header, &logged);
                    batch.bytes.len()
                }
                Next::NeedsMore(length) if !is_short || rest.len() != bytes.len() => {
                    self.min_length = length;
                    return;
                }
                Next::NeedsMore(_) | Next::Cut => return self.cut(),
            };
            self.min_length = BATCH_HEADER_LEN as u32;
            self.position += taken as u32;
            rest = &rest[taken..];
        }
    }

    fn next_batch<'a>(&self, bytes: &'a [u8], left: u32) -> Next<'a> {
        if left < BATCH_HEADER_LEN as u32 {
            return Next::Cut;
        }
        if bytes.len() < BATCH_HEADER_LEN {
            return Next::NeedsMore(BATCH_HEADER_LEN as u32);
        }
        let Ok(header) = BatchHeader::parse(bytes) else { return Next::Cut };
        let size = header.size_in_bytes();
        if size > left as usize {
            return Next::Cut;
        }
        let Some(whole) = bytes.get(..size) else { return Next::NeedsMore(size as u32) };
        let batch = BatchRef { header, bytes: whole };
        if self.mode != Mode::Replay {
            let base_offset = self.input.segments[self.current].base_offset;
            let is_in_range = header.last_offset().0 - base_offset.0 <= i64::from(i32::MAX);
            let is_past_end = self.input.truncate_to.is_some_and(|limit| header.last_offset() >= limit);
            if !self.continues(&header) || !is_in_range || is_past_end || batch.verify_crc().is_err() {
                return Next::Cut;
            }
        }
        match LogBatch::of(&batch) {
            Ok(logged) => Next::Batch(batch, logged),
            Err(_) => Next::Cut,
        }
    }

    fn continues(&self, header: &BatchHeader) -> bool {
        let (offset, epoch) = (header.base_offset, header.partition_leader_epoch);
        if self.continuity == Continuity::Rising {
            return offset >= self.next_offset;
        }
        let is_known = match (self.known_epochs.epoch_for_offset(offset), self.known_epochs.earliest()) {
            (Some(known), _) => known == epoch,
            (None, Some(next)) => epoch <= next.epoch,
            (None, None) => true,
        };
        let is_bounded = self.newest_epoch.is_none_or(|newest| epoch <= newest);
        offset == self.next_offset && epoch >= self.last_epoch && is_known && is_bounded
    }

    fn take(&mut self, header: &BatchHeader, logged: &LogBatch) {
        if self.mode == Mode::Rebuild {
            if self.position == 0 {
                self.first_batch_timestamp = Some(header.max_timestamp);
            }
            self.index.on_append(header, self.position, self.config.index_interval_bytes);
            if self.leader_epochs.latest_epoch().is_none_or(|latest| header.partition_leader_epoch > latest) {
                self.leader_epochs.assign(header.partition_leader_epoch, header.base_offset);
            }
            let is_earlier = self.known_epochs.earliest().is_some_and(|it| header.base_offset < it.start_offset);
            if is_earlier && self.continuity == Continuity::Contiguous {
                self.earlier_epochs.assign(header.partition_leader_epoch, header.base_offset);
            }
        }
        if self.mode != Mode::Replay {
            self.next_offset = header.next_offset();
            self.last_epoch = header.partition_leader_epoch;
        }
        if self.mode == Mode::Tail {
            self.index.observe_timestamp(header.max_timestamp, header.last_offset());
            return;
        }
        let applied_from = self.producers.map_end_offset().max(self.input.log_start_offset);
        if header.last_offset() >= applied_from
            && let Some(aborted) = self.producers.apply(logged).and_then(|completed| completed.index_entry())
            && self.mode == Mode::Rebuild
        {
            self.transactions.append(aborted);
        }
    }

    /// The rest of the segment, and all after it, is no log.
    fn cut(&mut self) {
        if self.mode == Mode::Replay {
            // What lies below the recovery point was durable: leave it, and do without its producers.
            self.is_corrupt = true;
            return self.end_segment();
        }
        let segment = &mut self.input.segments[self.current];
        self.truncated_bytes += u64::from(segment.size - self.position);
        segment.size = self.position;
        let (base_offset, size) = (segment.base_offset, segment.size);
        self.actions.push(RecoveryAction::TruncateSegment { base_offset, size });
        self.drop_later_segments();
        self.end_segment();
    }

    fn drop_later_segments(&mut self) {
        for dropped in self.input.segments.split_off(self.current + 1) {
            self.truncated_bytes += u64::from(dropped.size);
            self.actions.push(RecoveryAction::DeleteSegment { base_offset: dropped.base_offset });
        }
    }

    fn end_segment(&mut self) {
        let next = self.input.segments.get(self.current + 1).map(|segment| segment.base_offset);
        let may_be_apart = self.mode != Mode::Rebuild || self.continuity == Continuity::Rising;
        if next.is_some_and(|next| next != self.next_offset) && !may_be_apart {
            self.drop_later_segments();
        }
        let is_newest = self.current + 1 == self.input.segments.len();
        match self.mode {
            Mode::FirstHeader => {}
            Mode::Tail => {
                let log_end_offset = self.next_offset;
                if self.input.snapshots.is_empty() {
                    // An orderly stop leaves a snapshot wherever there were producers.
                    self.producers = ProducerStateManager::new(log_end_offset);
                    self.phase = Phase::Done;
                } else {
                    self.want_snapshot(log_end_offset);
                }
            }
            Mode::Replay if is_newest => self.phase = Phase::Done,
            Mode::Replay => self.enter_segment(self.current + 1),
            Mode::Rebuild => {
                if !is_newest {
                    self.index.on_close();
                }
                self.note_rebuilt();
                if is_newest { self.phase = Phase::Done } else { self.enter_segment(self.current + 1) }
            }
        }
    }

    fn note_rebuilt(&mut self) {
        let newest = self.index.max_timestamp();
        let segment = &mut self.input.segments[self.current];
        segment.newest = Some(newest);
        segment.has_transaction_index = !self.transactions.entries().is_empty();
        self.actions.push(RecoveryAction::WriteIndexes {
            base_offset: segment.base_offset,
            index: Box::new(self.index.clone()),
            transactions: self.transactions.clone(),
        });
    }

    /// The outcome, once [`Self::step`] says so.
    pub fn finish(mut self) -> Recovered {
        assert!(self.phase == Phase::Done, "recovery is not done");
        let log_start_offset = self.input.log_start_offset;
        if self.input.segments.is_empty() || self.next_offset < log_start_offset {
            return self.finish_empty(log_start_offset);
        }
        let log_end_offset = self.next_offset;
        let log_start_offset = log_start_offset.max(self.input.segments[0].base_offset);
        self.leader_epochs.prepend(&self.earlier_epochs);
        self.leader_epochs.truncate_from_end(log_end_offset);
        self.leader_epochs.truncate_from_start(log_start_offset);
        self.producers.update_map_end_offset(log_end_offset);
        let is_untouched = self.actions.is_empty();
        self.settle_snapshots(log_end_offset, is_untouched);
        let newest = self.input.segments.pop().expect("there is a segment");
        let active = self.active_segment(&newest);
        let sealed = self.input.segments.iter().map(sealed_segment).collect();
        let trusted = self.input.clean_shutdown && is_untouched;
        let recovery_point = if trusted { log_end_offset } else { self.input.recovery_point.min(log_end_offset) };
        Recovered {
            log: OpenedLog {
                sealed,
                active,
                log_start_offset,
                log_end_offset,
                recovery_point: recovery_point.max(log_start_offset),
                checkpointed_recovery_point: self.input.recovery_point,
                leader_epochs: self.leader_epochs,
                producers: self.producers,
            },
            actions: self.actions,
            truncated_bytes: self.truncated_bytes,
            is_corrupt_below_recovery_point: self.is_corrupt,
        }
    }

    /// Nothing usable: the log starts anew.
    fn finish_empty(mut self, offset: Offset) -> Recovered {
        for segment in std::mem::take(&mut self.input.segments) {
            self.actions.push(RecoveryAction::DeleteSegment { base_offset: segment.base_offset });
        }
        for offset in std::mem::take(&mut self.input.snapshots) {
            self.actions.push(RecoveryAction::DeleteSnapshot { offset });
        }
        self.actions.push(RecoveryAction::CreateSegment { base_offset: offset });
        self.leader_epochs.truncate_from_end(offset);
        Recovered {
            log: OpenedLog {
                sealed: Vec::new(),
                active: ActiveSegment::new(offset, self.now, offset.0 as u64),
                log_start_offset: offset,
                log_end_offset: offset,
                recovery_point: offset,
                checkpointed_recovery_point: self.input.recovery_point,
                leader_epochs: self.leader_epochs,
                producers: ProducerStateManager::new(offset),
            },
            actions: self.actions,
            truncated_bytes: self.truncated_bytes,
            is_corrupt_below_recovery_point: self.is_corrupt,
        }
    }

    fn active_segment(&mut self, newest: &SegmentOnDisk) -> ActiveSegment {
        let SegmentIndex { offsets, times, .. } = self.index.clone();
        let TimestampOffset { timestamp, offset } = self.index.max_timestamp();
        let mut sealed = sealed_segment(newest);
        sealed.max_timestamp = timestamp;
        sealed.offset_of_max_timestamp = offset;
        let transactions = std::mem::take(&mut self.transactions);
        ActiveSegment::reopen(sealed, offsets, times, transactions, self.first_batch_timestamp, self.now)
    }

    /// Keeps the snapshots at the base offsets of segments and the newest; drops all above the log's end, and those that
    /// were written for bytes which weren't flushed yet. Every later open would believe them.
    fn settle_snapshots(&mut self, log_end_offset: Offset, is_untouched: bool) {
        let hold_to = self.snapshots_hold_to.map_or(log_end_offset, |offset| offset.min(log_end_offset));
        let newest = self.input.snapshots.iter().copied().filter(|offset| *offset <= hold_to).max();
        for offset in std::mem::take(&mut self.input.snapshots) {
            let is_of_segment = self.input.segments.iter().any(|segment| segment.base_offset == offset);
            if offset > hold_to || (Some(offset) != newest && !is_of_segment) {
                self.actions.push(RecoveryAction::DeleteSnapshot { offset });
            }
        }
        let is_current = newest == Some(log_end_offset);
        if !is_untouched
            && !is_current
            && !self.producers.is_empty()
            && let Some((offset, entries)) = self.producers.take_snapshot()
        {
            self.actions.push(RecoveryAction::WriteSnapshot { offset, entries });
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "lives on the stack for one turn of the loop")]
enum Next<'a> {
    Batch(BatchRef<'a>, LogBatch),
    NeedsMore(u32),
    Cut,
}

fn sealed_segment(segment: &SegmentOnDisk) -> SealedSegment {
    let none = TimestampOffset { timestamp: TimestampMs::NONE, offset: segment.base_offset };
    let newest = segment.newest.unwrap_or(none);
    SealedSegment {
        base_offset: segment.base_offset,
        size: segment.size,
        max_timestamp: newest.timestamp,
        offset_of_max_timestamp: newest.offset,
        last_modified: segment.last_modified,
        has_transaction_index: segment.has_transaction_index,
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
