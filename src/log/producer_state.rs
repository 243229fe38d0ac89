//! What a partition knows of its producers: the last batches of each, its open transaction, and from them the last
//! stable offset.
//!
//! A batch is first judged ([`ProducerStateManager::check`], no change) and, once it has offsets, applied
//! ([`ProducerStateManager::apply`]). Replicated and recovered batches are only
//! applied: they were accepted once.

use std::collections::BTreeMap;

use ringlog_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use rustc_hash::FxHashMap;

use ringlog_protocol::records::EndTransactionMarker;

use crate::LogBatch;
use crate::producer_snapshot::ProducerSnapshotEntry;
use crate::transaction_index::AbortedTransaction;
use crate::validator::AppendOrigin;

/// Batches remembered per producer, so that a retry of any of them is known as a duplicate. Clients keep at most this
/// many in flight.
pub const BATCHES_RETAINED: usize = 5;

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset minus first.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: TimestampMs,
}

impl ProducerBatch {
    /// Sequence of its first record.
    pub fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        (if first < 0 { first + i64::from(i32::MAX) + 1 } else { first }) as i32
    }

    /// Offset of its first record.
    pub fn first_offset(&self) -> Offset {
        Offset(self.last_offset.0 - i64::from(self.offset_delta))
    }
}

/// One producer's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerStateEntry {
    /// Current epoch.
    pub epoch: ProducerEpoch,
    /// Epoch of the coordinator that wrote the last marker, -1 for none.
    pub coordinator_epoch: i32,
    /// Time of its last batch or marker.
    pub last_timestamp: TimestampMs,
    /// Where its open transaction starts.
    pub transaction_first_offset: Option<Offset>,
    batches: [ProducerBatch; BATCHES_RETAINED],
    batch_count: u8,
}

const NO_BATCH: ProducerBatch =
    ProducerBatch { last_sequence: -1, last_offset: Offset::NONE, offset_delta: 0, timestamp: TimestampMs::NONE };

impl ProducerStateEntry {
    fn empty() -> ProducerStateEntry {
        ProducerStateEntry {
            epoch: ProducerEpoch::NONE,
            coordinator_epoch: -1,
            last_timestamp: TimestampMs::NONE,
            transaction_first_offset: None,
            batches: [NO_BATCH; BATCHES_RETAINED],
            batch_count: 0,
        }
    }

    /// The remembered batches of the current epoch, oldest first.
    pub fn batches(&self) -> &[ProducerBatch] {
        &self.batches[..usize::from(self.batch_count)]
    }

    /// The newest batch, or all `-1`.
    pub fn last_batch(&self) -> ProducerBatch {
        self.batches().last().copied().unwrap_or(NO_BATCH)
    }

    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batch_count = 0;
        }
    }

    fn push(&mut self, batch: ProducerBatch) {
        if usize::from(self.batch_count) == BATCHES_RETAINED {
            self.batches.rotate_left(1);
            self.batches[BATCHES_RETAINED - 1] = batch;
        } else {
            self.batches[usize::from(self.batch_count)] = batch;
            self.batch_count += 1;
        }
    }
}

/// A transaction that a marker has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTransaction {
    /// Whose it was.
    pub producer_id: ProducerId,
    /// Its first offset on this partition.
    pub first_offset: Offset,
    /// The marker's offset.
    pub last_offset: Offset,
    /// Ended by an ABORT marker: goes to the segment's transaction index.
    pub aborted: bool,
    /// The last stable offset as the index records it: first offset of the oldest other open transaction, else the
    /// offset after the marker.
    pub last_stable_offset: Offset,
}

impl CompletedTransaction {
    /// The entry of the transaction index, if it was aborted.
    pub fn index_entry(&self) -> Option<AbortedTransaction> {
        let CompletedTransaction { producer_id, first_offset, last_offset, aborted, last_stable_offset } = *self;
        aborted.then_some(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset })
    }
}

/// What [`ProducerStateManager::check`] finds about an acceptable batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    /// To be appended.
    Accept,
    /// Already in the log; answered with its place, not appended.
    Duplicate(ProducerBatch),
}

/// Why a batch is refused; each maps to one error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A gap or an unexpected start (`OUT_OF_ORDER_SEQUENCE_NUMBER`).
    #[error("out of order sequence number {sequence}, the producer's last is {last_sequence}")]
    OutOfOrderSequence {
        /// The batch's first sequence.
        sequence: i32,
        /// The last one known, -1 for none.
        last_sequence: i32,
    },
    /// An older epoch than the known one (`INVALID_PRODUCER_EPOCH`).
    #[error("epoch {epoch} is older than the producer's current epoch {current}")]
    InvalidEpoch {
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The known one.
        current: ProducerEpoch,
    },
    /// A plain batch inside an open transaction, or a transactional one that was not verified (`INVALID_TXN_STATE`).
    #[error("the batch does not fit the producer's transaction state")]
    InvalidTransactionState,
    /// A marker of an older coordinator (`TRANSACTION_COORDINATOR_FENCED`).
    #[error("coordinator epoch {epoch} is older than the known {current}")]
    CoordinatorFenced {
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The known one.
        current: i32,
    },
}

/// Extra rules for a client's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionRules {
    /// `transaction.partition.verification.enable`: the first batch of a transaction needs a guard that still stands.
    pub verification: Option<Option<VerificationGuard>>,
    /// Transaction version 2: an unknown producer must start at sequence 0, and a marker needs a higher epoch.
    pub version_two: bool,
}

/// Proof that the coordinator was asked about a transaction; void once a marker arrived in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verification {
    guard: VerificationGuard,
    lowest_sequence: i32,
    epoch: ProducerEpoch,
    created: TimestampMs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreplicated {
    producer_id: ProducerId,
    last_offset: Offset,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default)]
pub struct ProducerStateManager {
    producers: FxHashMap<ProducerId, ProducerStateEntry>,
    verifications: FxHashMap<ProducerId, Verification>,
    next_guard: u64,
    /// Open transactions by first offset.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// Ended transactions whose marker lies above the high watermark, by first offset.
    unreplicated: BTreeMap<Offset, Unreplicated>,
    map_end_offset: Option<Offset>,
    last_snapshot_offset: Option<Offset>,
}

impl ProducerStateManager {
    /// No producers, valid at `offset`.
    pub fn new(offset: Offset) -> ProducerStateManager {
        ProducerStateManager { map_end_offset: Some(offset), ..ProducerStateManager::default() }
    }

    /// The state that a snapshot valid at `offset` holds. Producers that have expired since are left out.
    pub fn from_snapshot(
        offset: Offset,
        entries: &[ProducerSnapshotEntry],
        expiration_ms: i64,
        now: TimestampMs,
    ) -> ProducerStateManager {
        let mut manager = ProducerStateManager::new(offset);
        manager.last_snapshot_offset = Some(offset);
        for entry in entries {
            let mut state = ProducerStateEntry::empty();
            state.epoch = entry.producer_epoch;
            state.coordinator_epoch = entry.coordinator_epoch;
            state.last_timestamp = entry.timestamp;
            state.transaction_first_offset = entry.current_transaction_first_offset;
            if entry.last_offset.0 >= 0 {
                state.push(ProducerBatch {
                    last_sequence: entry.last_sequence,
                    last_offset: entry.last_offset,
                    offset_delta: entry.offset_delta,
                    timestamp: entry.timestamp,
                });
            }
            if is_expired(&state, expiration_ms, now) {
                continue;
            }
            if let Some(first) = state.transaction_first_offset {
                manager.ongoing.insert(first, entry.producer_id);
            }
            manager.producers.insert(entry.producer_id, state);
        }
        manager
    }

    /// What a snapshot at [`Self::map_end_offset`] holds, in ascending order of producer id.
    pub fn snapshot(&self) -> Vec<ProducerSnapshotEntry> {
        let mut entries: Vec<_> = self
            .producers
            .iter()
            .map(|(&producer_id, state)| {
                let newest = state.last_batch();
                ProducerSnapshotEntry {
                    producer_id,
                    producer_epoch: state.epoch,
                    last_sequence: newest.last_sequence,
                    last_offset: newest.last_offset,
                    offset_delta: newest.offset_delta,
                    timestamp: state.last_timestamp,
                    coordinator_epoch: state.coordinator_epoch,
                    current_transaction_first_offset: state.transaction_first_offset,
                }
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.producer_id);
        entries
    }

    /// The offset up to which batches are applied; a snapshot taken now is named for it.
    pub fn map_end_offset(&self) -> Offset {
        self.map_end_offset.unwrap_or(Offset(0))
    }

    /// Records without producers also move the map's end.
    pub fn update_map_end_offset(&mut self, offset: Offset) {
        self.map_end_offset = Some(offset);
    }

    /// The offset of the newest snapshot.
    pub fn last_snapshot_offset(&self) -> Option<Offset> {
        self.last_snapshot_offset
    }

    /// Whether a snapshot now would differ in name from the newest one; notes it as taken if so.
    pub fn take_snapshot(&mut self) -> Option<(Offset, Vec<ProducerSnapshotEntry>)> {
        let offset = self.map_end_offset();
        if self.last_snapshot_offset.is_some_and(|last| last >= offset) {
            return None;
        }
        self.last_snapshot_offset = Some(offset);
        Some((offset, self.snapshot()))
    }

    /// Whether nothing is known of any producer.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// One producer.
    pub fn producer(&self, id: ProducerId) -> Option<&ProducerStateEntry> {
        self.producers.get(&id)
    }

    /// All producers in no order (`DescribeProducers`).
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerStateEntry)> {
        self.producers.iter().map(|(id, state)| (*id, state))
    }

    /// Whether this producer has a transaction open in this epoch.
    pub fn has_ongoing_transaction(&self, id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producers.get(&id).is_some_and(|p| p.epoch == epoch && p.transaction_first_offset.is_some())
    }

    /// Begins the verification of a transaction with its coordinator. Asking again returns the same guard while it
    /// stands, and keeps the lowest sequence seen.
    pub fn begin_verification(
        &mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        now: TimestampMs,
    ) -> VerificationGuard {
        self.next_guard += 1;
        let fresh =
            Verification { guard: VerificationGuard(self.next_guard), lowest_sequence: sequence, epoch, created: now };
        let entry = self.verifications.entry(id).or_insert(fresh);
        if epoch > entry.epoch {
            *entry = fresh;
        }
        entry.lowest_sequence = entry.lowest_sequence.min(sequence);
        entry.guard
    }

    /// Judges a batch before it gets offsets: it is accepted, it is one of the last that its producer sent already, or its
    /// sequence, its epoch or its transaction forbid it.
    pub fn check(
        &self,
        batch: &LogBatch,
        origin: AppendOrigin,
        rules: TransactionRules,
    ) -> Result<ProducerCheck, ProducerError> {
        if !batch.header.has_producer_id() {
            return Ok(ProducerCheck::Accept);
        }
        let state = self.producers.get(&batch.header.producer_id);
        if let Some(marker) = batch.marker {
            return check_marker(state, batch, marker, rules).map(|()| ProducerCheck::Accept);
        }
        if origin == AppendOrigin::Client {
            if let Some(duplicate) = state.and_then(|state| find_duplicate(state, batch)) {
                return Ok(ProducerCheck::Duplicate(duplicate));
            }
            self.check_verification(batch, rules)?;
        }
        let current = state.map_or(ProducerEpoch::NONE, |state| state.epoch);
        if batch.header.producer_epoch < current {
            return Err(ProducerError::InvalidEpoch { epoch: batch.header.producer_epoch, current });
        }
        if origin == AppendOrigin::Client {
            check_sequence(state, batch, rules)?;
        }
        if !batch.header.is_transactional() && state.is_some_and(|state| state.transaction_first_offset.is_some()) {
            return Err(ProducerError::InvalidTransactionState);
        }
        Ok(ProducerCheck::Accept)
    }

    fn check_verification(&self, batch: &LogBatch, rules: TransactionRules) -> Result<(), ProducerError> {
        let Some(guard) = rules.verification else { return Ok(()) };
        if !batch.header.is_transactional()
            || self.has_ongoing_transaction(batch.header.producer_id, batch.header.producer_epoch)
        {
            return Ok(());
        }
        match (guard, self.verifications.get(&batch.header.producer_id)) {
            (Some(guard), Some(held)) if held.guard == guard => {
                if batch.header.base_sequence > held.lowest_sequence {
                    let last_sequence = held.lowest_sequence;
                    return Err(ProducerError::OutOfOrderSequence {
                        sequence: batch.header.base_sequence,
                        last_sequence,
                    });
                }
                Ok(())
            }
            _ => Err(ProducerError::InvalidTransactionState),
        }
    }

    /// Takes a batch with its offsets into the state. Returns the transaction that it ends, if any.
    pub fn apply(&mut self, batch: &LogBatch) -> Option<CompletedTransaction> {
        self.map_end_offset = Some(batch.header.next_offset());
        if !batch.header.has_producer_id() {
            return None;
        }
        if let Some(marker) = batch.marker {
            return self.apply_marker(batch, marker);
        }
        if batch.header.is_control() {
            return None;
        }
        let state = self.producers.entry(batch.header.producer_id).or_insert_with(ProducerStateEntry::empty);
        state.set_epoch(batch.header.producer_epoch);
        state.push(ProducerBatch {
            last_sequence: batch.header.last_sequence(),
            last_offset: batch.header.last_offset(),
            offset_delta: batch.header.last_offset_delta,
            timestamp: batch.header.max_timestamp,
        });
        state.last_timestamp = batch.header.max_timestamp;
        if batch.header.is_transactional() && state.transaction_first_offset.is_none() {
            state.transaction_first_offset = Some(batch.header.base_offset);
            self.ongoing.insert(batch.header.base_offset, batch.header.producer_id);
            self.verifications.remove(&batch.header.producer_id);
        }
        None
    }

    fn apply_marker(&mut self, batch: &LogBatch, marker: EndTransactionMarker) -> Option<CompletedTransaction> {
        self.verifications.remove(&batch.header.producer_id);
        let state = self.producers.entry(batch.header.producer_id).or_insert_with(ProducerStateEntry::empty);
        state.set_epoch(batch.header.producer_epoch);
        state.coordinator_epoch = marker.coordinator_epoch;
        state.last_timestamp = batch.header.max_timestamp;
        let first_offset = state.transaction_first_offset.take()?;
        self.ongoing.remove(&first_offset);
        let ended = Unreplicated { producer_id: batch.header.producer_id, last_offset: batch.header.last_offset() };
        self.unreplicated.insert(first_offset, ended);
        Some(CompletedTransaction {
            producer_id: batch.header.producer_id,
            first_offset,
            last_offset: batch.header.last_offset(),
            aborted: !marker.is_commit,
            last_stable_offset: self.ongoing.keys().next().copied().unwrap_or(batch.header.next_offset()),
        })
    }

    /// Transactions whose marker lies below the high watermark no longer hold back the last stable offset.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, ended| ended.last_offset >= high_watermark);
        }
    }

    /// First offset of the oldest transaction that is open, or ended above the high watermark.
    #[inline]
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        match (self.ongoing.keys().next(), self.unreplicated.keys().next()) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    /// Removes producers without an open transaction that were idle for `expiration_ms`, and stale verifications.
    /// Returns how many producers went.
    pub fn remove_expired(&mut self, expiration_ms: i64, now: TimestampMs) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, state| !is_expired(state, expiration_ms, now));
        self.verifications.retain(|_, held| now.0.saturating_sub(held.created.0) < expiration_ms);
        before - self.producers.len()
    }

    /// The log now starts at `log_start_offset`.
    pub fn on_log_start_offset(&mut self, log_start_offset: Offset) {
        self.unreplicated.retain(|_, ended| ended.last_offset >= log_start_offset);
        if self.map_end_offset() < log_start_offset {
            self.map_end_offset = Some(log_start_offset);
        }
    }

    /// Forgets everything; the log is empty and starts at `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) {
        *self = ProducerStateManager { next_guard: self.next_guard, ..ProducerStateManager::new(offset) };
    }
}

fn is_expired(state: &ProducerStateEntry, expiration_ms: i64, now: TimestampMs) -> bool {
    state.transaction_first_offset.is_none() && now.0.saturating_sub(state.last_timestamp.0) >= expiration_ms
}

fn find_duplicate(state: &ProducerStateEntry, batch: &LogBatch) -> Option<ProducerBatch> {
    if state.epoch != batch.header.producer_epoch {
        return None;
    }
    let (first, last) = (batch.header.base_sequence, batch.header.last_sequence());
    state.batches().iter().find(|held| held.first_sequence() == first && held.last_sequence == last).copied()
}

fn check_sequence(
    state: Option<&ProducerStateEntry>,
    batch: &LogBatch,
    rules: TransactionRules,
) -> Result<(), ProducerError> {
    let sequence = batch.header.base_sequence;
    let fault = |last_sequence| Err(ProducerError::OutOfOrderSequence { sequence, last_sequence });
    let Some(state) = state.filter(|state| !state.epoch.is_none()) else {
        // All that this producer wrote may be gone by retention, so any start is accepted from it.
        let must_start_at_zero = rules.version_two && batch.header.is_transactional();
        return if must_start_at_zero && sequence != 0 { fault(-1) } else { Ok(()) };
    };
    let last_sequence = state.last_batch().last_sequence;
    if state.epoch != batch.header.producer_epoch {
        return if sequence == 0 { Ok(()) } else { fault(last_sequence) };
    }
    let in_sequence =
        i64::from(sequence) == i64::from(last_sequence) + 1 || (sequence == 0 && last_sequence == i32::MAX);
    if in_sequence { Ok(()) } else { fault(last_sequence) }
}

fn check_marker(
    state: Option<&ProducerStateEntry>,
    batch: &LogBatch,
    marker: EndTransactionMarker,
    rules: TransactionRules,
) -> Result<(), ProducerError> {
    let Some(state) = state else { return Ok(()) };
    let (epoch, current) = (batch.header.producer_epoch, state.epoch);
    // KIP-890: the coordinator has bumped the epoch, so an equal one can only be a retry of a marker, or exhaustion.
    let equal_is_stale = rules.version_two && epoch.0 != i16::MAX && state.transaction_first_offset.is_some();
    if epoch < current || (epoch == current && equal_is_stale) {
        return Err(ProducerError::InvalidEpoch { epoch, current });
    }
    if marker.coordinator_epoch < state.coordinator_epoch {
        let current = state.coordinator_epoch;
        return Err(ProducerError::CoordinatorFenced { epoch: marker.coordinator_epoch, current });
    }
    Ok(())
}

#[cfg(test)]
#[path = "producer_state_tests.rs"]
mod tests;
