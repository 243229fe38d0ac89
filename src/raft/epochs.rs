//! Which leader epoch begins at which offset of the log (KIP-101).

use ringlog_types::{LeaderEpoch, Offset};

/// The first offset of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first record.
    pub start_offset: Offset,
}

/// An epoch together with the offset behind its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// First offset that no longer belongs to it.
    pub end_offset: Offset,
}

/// The epochs of the log, epochs and offsets both ascending. One entry per election that led to records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// From the log's own cache (`leader-epoch-checkpoint` and recovery). Entries out of order are dropped.
    pub fn new(entries: impl IntoIterator<Item = EpochStart>) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for entry in entries {
            epochs.assign(entry.epoch, entry.start_offset);
        }
        epochs
    }

    /// All entries.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The last epoch that has records.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Records that `epoch` begins at `start_offset`, unless the epoch is known already.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self.entries.last().is_none_or(|last| last.epoch < epoch && last.start_offset <= start_offset) {
            if self.entries.last().is_some_and(|last| last.start_offset == start_offset) {
                self.entries.pop();
            }
            self.entries.push(EpochStart { epoch, start_offset });
        }
    }

    /// Forgets everything at and above `end_offset`.
    pub fn truncate_to(&mut self, end_offset: Offset) {
        self.entries.retain(|entry| entry.start_offset < end_offset);
    }

    /// Forgets what lies wholly below `start_offset`; the epoch that covers it now begins there.
    pub fn trim_before(&mut self, start_offset: Offset) {
        let covering = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if covering > 0 {
            self.entries.drain(..covering - 1);
            self.entries[0].start_offset = start_offset;
        }
    }

    /// The largest epoch that is not above `epoch`, and where it ends; `log_end_offset` ends the latest. `None` when
    /// all known epochs are above.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<EpochEnd> {
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let entry = self.entries[..above].last()?;
        let end_offset = self.entries.get(above).map_or(log_end_offset, |next| next.start_offset);
        Some(EpochEnd { epoch: entry.epoch, end_offset })
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        self.entries[..after].last().map(|entry| entry.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs::new(
            entries.iter().map(|&(epoch, start)| EpochStart { epoch: LeaderEpoch(epoch), start_offset: Offset(start) }),
        )
    }

    fn end(epoch: i32, end: i64) -> Option<EpochEnd> {
        Some(EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(end) })
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[(1, 0), (4, 10), (6, 30)]);
        assert_eq!(epochs.end_of(LeaderEpoch(0), Offset(50)), None);
        assert_eq!(epochs.end_of(LeaderEpoch(1), Offset(50)), end(1, 10));
        assert_eq!(epochs.end_of(LeaderEpoch(3), Offset(50)), end(1, 10));
        assert_eq!(epochs.end_of(LeaderEpoch(5), Offset(50)), end(4, 30));
        assert_eq!(epochs.end_of(LeaderEpoch(9), Offset(50)), end(6, 50));
        assert_eq!(epochs.epoch_of(Offset(29)), Some(LeaderEpoch(4)));
    }

    #[test]
    fn truncation_and_trimming_keep_what_is_left() {
        let mut cut = epochs(&[(1, 0), (4, 10), (6, 30)]);
        cut.truncate_to(Offset(30));
        assert_eq!(cut.latest(), Some(LeaderEpoch(4)));
        cut.trim_before(Offset(12));
        assert_eq!(cut, epochs(&[(4, 12)]));
        cut.truncate_to(Offset(0));
        assert_eq!(cut.latest(), None);
    }
}
