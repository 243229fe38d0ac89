//! `.txnindex`: the aborted transactions whose markers lie in the segment, in the order of the markers.
//!
//! Entries of 34 bytes: int16 version (0), int64 producer id, first offset, last offset (the marker), last stable offset
//! after it. The file exists only where there is an entry.

use ringlog_types::{Offset, ProducerId};

/// Bytes of an entry.
pub const TRANSACTION_INDEX_ENTRY_LEN: usize = 34;
const VERSION: i16 = 0;

/// An aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// The last stable offset once the marker was there.
    pub last_stable_offset: Offset,
}

/// An index file's content can't be right: it must be rebuilt from the `.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionIndexError {
    /// The file's size is no multiple of an entry's.
    #[error("transaction index size {0} is no multiple of an entry's size")]
    InvalidSize(usize),
    /// An entry of an unknown version.
    #[error("transaction index entry {0} has an unknown version")]
    UnsupportedVersion(usize),
    /// An entry lies before the segment, ends before it starts, or its marker isn't after that of the one before.
    #[error("transaction index entry {0} is out of order")]
    OutOfOrder(usize),
}

impl AbortedTransaction {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; TRANSACTION_INDEX_ENTRY_LEN] {
        let mut out = [0; TRANSACTION_INDEX_ENTRY_LEN];
        out[..2].copy_from_slice(&VERSION.to_be_bytes());
        out[2..10].copy_from_slice(&self.producer_id.0.to_be_bytes());
        out[10..18].copy_from_slice(&self.first_offset.0.to_be_bytes());
        out[18..26].copy_from_slice(&self.last_offset.0.to_be_bytes());
        out[26..34].copy_from_slice(&self.last_stable_offset.0.to_be_bytes());
        out
    }

    /// An entry of version 0 or later: a later one starts with the same fields.
    fn decode(entry: &[u8; TRANSACTION_INDEX_ENTRY_LEN]) -> Option<AbortedTransaction> {
        let number =
            |at: usize| i64::from_be_bytes(entry[at..at + 8].try_into().expect("the fields lie within the entry"));
        (i16::from_be_bytes([entry[0], entry[1]]) >= VERSION).then(|| AbortedTransaction {
            producer_id: ProducerId(number(2)),
            first_offset: Offset(number(10)),
            last_offset: Offset(number(18)),
            last_stable_offset: Offset(number(26)),
        })
    }
}

/// What a read_committed fetch has to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AbortedSearch {
    /// Aborted transactions that reach into the range.
    pub transactions: Vec<AbortedTransaction>,
    /// Whether later segments needn't be searched.
    pub is_complete: bool,
}

/// A segment's transaction index in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionIndex {
    entries: Vec<AbortedTransaction>,
}

impl TransactionIndex {
    /// An empty index.
    pub fn new() -> TransactionIndex {
        TransactionIndex::default()
    }

    /// Reads a file's content.
    pub fn load(base_offset: Offset, bytes: &[u8]) -> Result<TransactionIndex, TransactionIndexError> {
        let (chunks, rest) = bytes.as_chunks::<TRANSACTION_INDEX_ENTRY_LEN>();
        if !rest.is_empty() {
            return Err(TransactionIndexError::InvalidSize(bytes.len()));
        }
        let mut entries: Vec<AbortedTransaction> = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            let entry = AbortedTransaction::decode(chunk).ok_or(TransactionIndexError::UnsupportedVersion(index))?;
            let follows = entries.last().is_none_or(|last| last.last_offset < entry.last_offset);
            if !follows || entry.last_offset < base_offset || entry.first_offset > entry.last_offset {
                return Err(TransactionIndexError::OutOfOrder(index));
            }
            entries.push(entry);
        }
        Ok(TransactionIndex { entries })
    }

    /// Adds a transaction, whose marker follows all others.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn append(&mut self, transaction: AbortedTransaction) {
        let follows = self.entries.last().is_none_or(|last| last.last_offset < transaction.last_offset);
        assert!(follows, "markers are indexed in order");
        self.entries.push(transaction);
    }

    /// The aborted transactions that overlap `fetch_offset..upper_bound_offset`. A transaction that began in the range may
    /// end in a later segment: the search is complete only once an entry's last stable offset reaches the upper bound.
    pub fn collect_aborted(&self, fetch_offset: Offset, upper_bound_offset: Offset) -> AbortedSearch {
        let mut found = AbortedSearch::default();
        // Markers are in order, so those before the fetch offset can be skipped at once.
        let start = self.entries.partition_point(|entry| entry.last_offset < fetch_offset);
        for entry in &self.entries[start..] {
            if entry.first_offset < upper_bound_offset {
                found.transactions.push(*entry);
            }
            if entry.last_stable_offset >= upper_bound_offset {
                found.is_complete = true;
                break;
            }
        }
        found
    }

    /// Drops the transactions whose marker is at or above `offset`.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.entries.partition_point(|entry| entry.last_offset < offset);
        self.entries.truncate(keep);
    }

    /// The transactions, in the order of their markers.
    pub fn entries(&self) -> &[AbortedTransaction] {
        &self.entries
    }

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        self.entries.iter().flat_map(AbortedTransaction::encode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(first),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    #[test]
    fn searches_stop_where_nothing_more_can_matter() {
        let mut index = TransactionIndex::new();
        for entry in [aborted(5, 8, 9), aborted(10, 20, 11), aborted(11, 25, 26)] {
            index.append(entry);
        }
        let search = |from, to| {
            let found = index.collect_aborted(Offset(from), Offset(to));
            (found.transactions.iter().map(|entry| entry.first_offset.0).collect::<Vec<_>>(), found.is_complete)
        };
        assert_eq!(search(0, 9), (vec![5], true));
        assert_eq!(search(9, 11), (vec![10], true));
        assert_eq!(search(9, 26), (vec![10, 11], true));
        assert_eq!(search(9, 100), (vec![10, 11], false));
        assert_eq!(search(26, 100), (vec![], false));
        assert_eq!(TransactionIndex::load(Offset(0), &index.encode()), Ok(index.clone()));
        index.truncate_to(Offset(25));
        assert_eq!(index.entries().len(), 2);
    }

    #[test]
    fn faults_are_found() {
        let good = [aborted(5, 8, 9).encode(), aborted(1, 10, 11).encode()].concat();
        assert!(TransactionIndex::load(Offset(8), &good).is_ok());
        assert_eq!(TransactionIndex::load(Offset(9), &good), Err(TransactionIndexError::OutOfOrder(0)));
        assert_eq!(TransactionIndex::load(Offset(0), &good[1..]), Err(TransactionIndexError::InvalidSize(67)));
        let negative = [&[0xff, 0xff][..], &good[2..34]].concat();
        assert_eq!(TransactionIndex::load(Offset(0), &negative), Err(TransactionIndexError::UnsupportedVersion(0)));
    }
}
