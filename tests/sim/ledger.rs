//! What was promised to clients, kept apart from the cores.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringlog_types::Offset;

/// Producer id, epoch and sequence of a batch.
pub(crate) type BatchKey = (i64, i16, i32);

/// A batch in the log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub key: Option<BatchKey>,
    /// As it is in the file.
    pub bytes: Bytes,
}

/// The batches that were given offsets, and how much of them has to survive what.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By offset, from the first that was in the log when it was opened last.
    pub entries: Vec<Entry>,
    /// Where idempotent batches are; more than once only where the log's start had passed the earlier ones.
    pub keys: BTreeMap<BatchKey, BTreeSet<Offset>>,
    /// All below was acknowledged: survives a kill.
    pub acknowledged: i64,
    /// All below was flushed: survives a power loss.
    pub flushed: i64,
    /// DeleteRecords was answered for this.
    pub deleted: i64,
    /// The log's start was never above this.
    pub largest_start: i64,
}

impl Ledger {
    pub(crate) fn append(&mut self, entry: Entry) {
        if let Some(key) = entry.key {
            self.keys.entry(key).or_default().insert(entry.base_offset);
        }
        self.entries.push(entry);
    }

    pub(crate) fn on_acknowledged(&mut self, end_offset: Offset) {
        self.acknowledged = self.acknowledged.max(end_offset.0);
    }

    pub(crate) fn on_flushed(&mut self, end_offset: Offset) {
        self.flushed = self.flushed.max(end_offset.0);
    }

    /// A restart left the log with these batches, this start and this end.
    pub(crate) fn on_restart(&mut self, left: &BTreeSet<Offset>, start: Offset, end: Offset) {
        let first = left.first().copied().unwrap_or(start);
        let is_there = |base_offset: &Offset| *base_offset < first || left.contains(base_offset);
        self.entries.retain(|entry| entry.end_offset <= first || left.contains(&entry.base_offset));
        for places in self.keys.values_mut() {
            places.retain(is_there);
        }
        // Readers see them from now on, whether or not they were acknowledged before.
        self.acknowledged = end.0;
        self.flushed = self.flushed.min(end.0);
    }
}
