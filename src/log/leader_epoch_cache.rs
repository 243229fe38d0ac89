//! Which leader epoch wrote which part of the log (KIP-101, KIP-279), as kept in `leader-epoch-checkpoint`.

use ringlog_types::{LeaderEpoch, Offset};

use crate::checkpoint::EpochEntry;

/// Answer to "where does this epoch end": both `-1` when the epoch is above all known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The largest known epoch at or below the one asked for.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

impl EpochEndOffset {
    /// Kafka's undefined answer.
    pub const UNDEFINED: EpochEndOffset = EpochEndOffset { epoch: LeaderEpoch::NONE, end_offset: Offset::NONE };
}

/// Epochs in ascending order with ascending start offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
    dirty: bool,
}

impl LeaderEpochCache {
    /// A cache with the entries of a checkpoint file. Entries that break the order are dropped as [`Self::assign`]
    /// would.
    pub fn from_entries(entries: &[EpochEntry]) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::default();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        cache.dirty = false;
        cache
    }

    /// What the checkpoint file should hold.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// Whether the entries changed since the last call of this method; the caller then rewrites the checkpoint file.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The checkpoint that was to be written for [`LeaderEpochCache::take_dirty`] was not.
    pub fn set_dirty(&mut self) {
        self.dirty = true;
    }

    /// Notes that `epoch` starts at `start_offset`. Later entries that contradict it (a higher or equal epoch, or an
    /// equal or higher start) are dropped. Returns whether anything changed. Negative values are ignored.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch.0 < 0 || start_offset.0 < 0 {
            return false;
        }
        if let Some(last) = self.entries.last()
            && epoch == last.epoch
            && start_offset >= last.start_offset
        {
            return false;
        }
        while self.entries.last().is_some_and(|e| e.epoch >= epoch || e.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        self.dirty = true;
        true
    }

    /// The newest epoch.
    #[inline]
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The oldest entry.
    pub fn earliest(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// The newest epoch below `epoch`.
    pub fn previous_epoch(&self, epoch: LeaderEpoch) -> Option<LeaderEpoch> {
        let at = self.entries.partition_point(|e| e.epoch < epoch);
        at.checked_sub(1).map(|i| self.entries[i].epoch)
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let at = self.entries.partition_point(|e| e.start_offset <= offset);
        at.checked_sub(1).map(|i| self.entries[i].epoch)
    }

    /// `OffsetsForLeaderEpoch`: the largest epoch at or below `requested` and where it ends.
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end_offset: Offset) -> EpochEndOffset {
        if requested.is_none() {
            return EpochEndOffset::UNDEFINED;
        }
        let higher = self.entries.partition_point(|e| e.epoch <= requested);
        match (self.entries.get(higher), higher.checked_sub(1).map(|i| self.entries[i].epoch)) {
            (None, Some(floor)) if floor == requested => {
                EpochEndOffset { epoch: requested, end_offset: log_end_offset }
            }
            (None, _) => EpochEndOffset::UNDEFINED,
            (Some(next), floor) => EpochEndOffset { epoch: floor.unwrap_or(requested), end_offset: next.start_offset },
        }
    }

    /// Drops epochs that start at or after `end_offset`.
    pub fn truncate_from_end(&mut self, end_offset: Offset) {
        if end_offset.0 < 0 {
            return;
        }
        let kept = self.entries.partition_point(|e| e.start_offset < end_offset);
        if kept < self.entries.len() {
            self.entries.truncate(kept);
            self.dirty = true;
        }
    }

    /// Drops what lies before `start_offset`; the epoch that holds it then starts there.
    pub fn truncate_from_start(&mut self, start_offset: Offset) {
        let at = self.entries.partition_point(|e| e.start_offset <= start_offset);
        if at == 0 || start_offset.0 < 0 {
            return;
        }
        if at == 1 && self.entries[0].start_offset == start_offset {
            return;
        }
        self.entries.drain(..at - 1);
        self.entries[0].start_offset = start_offset;
        self.dirty = true;
    }

    /// Puts what was before the oldest entry, by ascending offset, in front of it.
    pub fn prepend(&mut self, earlier: &LeaderEpochCache) {
        let mut entries = earlier.entries.clone();
        if let Some(oldest) = self.entries.first() {
            entries.retain(|entry| entry.epoch <= oldest.epoch && entry.start_offset < oldest.start_offset);
        }
        if entries.is_empty() {
            return;
        }
        // The oldest epoch may begin further ahead than was known.
        let known = usize::from(self.entries.first().map(|it| it.epoch) == entries.last().map(|it| it.epoch));
        self.entries.splice(..known, entries);
        self.dirty = true;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.dirty |= !self.entries.is_empty();
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        let entries: Vec<_> =
            entries.iter().map(|&(e, o)| EpochEntry { epoch: LeaderEpoch(e), start_offset: Offset(o) }).collect();
        LeaderEpochCache::from_entries(&entries)
    }

    fn pairs(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect()
    }

    #[test]
    fn assigning_keeps_epochs_and_offsets_rising() {
        for (before, assign, after) in [
            (&[][..], (2, 0), &[(2, 0)][..]),
            (&[(2, 0)], (2, 5), &[(2, 0)]),
            (&[(2, 3)], (2, 1), &[(2, 1)]),
            (&[(2, 0)], (3, 5), &[(2, 0), (3, 5)]),
            (&[(2, 0), (3, 5)], (4, 5), &[(2, 0), (4, 5)]),
            (&[(2, 0), (3, 5), (5, 9)], (4, 7), &[(2, 0), (3, 5), (4, 7)]),
            (&[(2, 0), (3, 5)], (1, 9), &[(1, 9)]),
            (&[(2, 0)], (-1, 5), &[(2, 0)]),
        ] {
            let mut cache = cache(before);
            let changed = cache.assign(LeaderEpoch(assign.0), Offset(assign.1));
            assert_eq!(pairs(&cache), after, "{before:?} {assign:?}");
            assert_eq!(changed, before != after);
            assert_eq!(cache.take_dirty(), changed);
            assert!(!cache.take_dirty());
        }
    }

    #[test]
    fn what_was_earlier_is_put_in_front() {
        for (known, earlier, after) in [
            (&[][..], &[(1, 0)][..], &[(1, 0)][..]),
            (&[(4, 20)], &[], &[(4, 20)]),
            (&[(4, 20), (6, 30)], &[(1, 0), (4, 10)], &[(1, 0), (4, 10), (6, 30)]),
            (&[(4, 20), (6, 30)], &[(1, 0), (3, 10)], &[(1, 0), (3, 10), (4, 20), (6, 30)]),
            (&[(4, 20)], &[(1, 0), (5, 10)], &[(1, 0), (4, 20)]),
        ] {
            let mut joined = cache(known);
            joined.prepend(&cache(earlier));
            assert_eq!(pairs(&joined), after, "{known:?} {earlier:?}");
        }
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let cache = cache(&[(2, 10), (4, 20), (5, 30)]);
        for (requested, epoch, end) in
            [(-1, -1, -1), (0, 0, 10), (2, 2, 20), (3, 2, 20), (4, 4, 30), (5, 5, 44), (6, -1, -1)]
        {
            let expected = EpochEndOffset { epoch: LeaderEpoch(epoch), end_offset: Offset(end) };
            assert_eq!(cache.end_offset_for(LeaderEpoch(requested), Offset(44)), expected, "{requested}");
        }
        let empty = LeaderEpochCache::default();
        assert_eq!(empty.end_offset_for(LeaderEpoch(0), Offset(4)), EpochEndOffset::UNDEFINED);
    }

    #[test]
    fn truncation_from_both_ends() {
        for (start, end, expected) in [
            (0, 100, &[(2, 10), (4, 20), (5, 30)][..]),
            (10, 100, &[(2, 10), (4, 20), (5, 30)]),
            (15, 100, &[(2, 15), (4, 20), (5, 30)]),
            (20, 30, &[(4, 20)]),
            (40, 100, &[(5, 40)]),
            (0, 10, &[]),
            (0, 11, &[(2, 10)]),
        ] {
            let mut cache = cache(&[(2, 10), (4, 20), (5, 30)]);
            cache.truncate_from_end(Offset(end));
            cache.truncate_from_start(Offset(start));
            assert_eq!(pairs(&cache), expected, "{start} {end}");
        }
    }

    #[test]
    fn offsets_map_to_epochs() {
        let cache = cache(&[(2, 10), (4, 20)]);
        for (offset, epoch) in [(9, None), (10, Some(2)), (19, Some(2)), (20, Some(4)), (99, Some(4))] {
            assert_eq!(cache.epoch_for_offset(Offset(offset)), epoch.map(LeaderEpoch));
        }
        assert_eq!(cache.previous_epoch(LeaderEpoch(4)), Some(LeaderEpoch(2)));
        assert_eq!(cache.previous_epoch(LeaderEpoch(2)), None);
    }
}
