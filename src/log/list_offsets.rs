//! ListOffsets, planned: what is known at once, and else which segment to read from where.

use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

use crate::{ListOffsetPlan, Log, SealedSegment, list_offsets_timestamp};

impl Log {
    /// Plans the answer for a timestamp or one of [`list_offsets_timestamp`]. `LATEST` gives the log's end; a leader
    /// answers it for consumers from its high watermark instead.
    pub fn list_offset(&self, timestamp: TimestampMs) -> ListOffsetPlan {
        let none = ListOffsetPlan::Known {
            timestamp: TimestampMs::NONE,
            offset: Offset::NONE,
            leader_epoch: LeaderEpoch::NONE,
        };
        match timestamp.0 {
            list_offsets_timestamp::LATEST => {
                let leader_epoch = self.leader_epochs.latest_epoch().unwrap_or(LeaderEpoch::NONE);
                ListOffsetPlan::Known { timestamp: TimestampMs::NONE, offset: self.log_end_offset, leader_epoch }
            }
            list_offsets_timestamp::EARLIEST | list_offsets_timestamp::EARLIEST_LOCAL => {
                let epoch = self.leader_epochs.earliest().filter(|e| e.start_offset <= self.log_start_offset);
                ListOffsetPlan::Known {
                    timestamp: TimestampMs::NONE,
                    offset: self.log_start_offset,
                    leader_epoch: epoch.map_or(LeaderEpoch::NONE, |entry| entry.epoch),
                }
            }
            list_offsets_timestamp::MAX_TIMESTAMP => self.max_timestamp_plan().unwrap_or(none),
            target if target >= 0 => self.timestamp_plan(timestamp, Offset::NONE).unwrap_or(none),
            // Without tiered storage nothing is uploaded or awaits it; an unknown special value finds nothing.
            _ => none,
        }
    }

    /// Where to look further when a segment has no record that [`ListOffsetPlan::FirstAtOrAfter`] asks for: those that it
    /// has may all lie below the log's start.
    pub fn list_offset_behind(&self, segment_base_offset: Offset, target: TimestampMs) -> Option<ListOffsetPlan> {
        self.timestamp_plan(target, segment_base_offset)
    }

    /// Sealed segments with records that may be read. Others lie before them if a crash kept their files from going.
    fn sealed_in_use(&self) -> impl Iterator<Item = &SealedSegment> {
        let gone = self.sealed.iter().skip(1).filter(|next| next.base_offset <= self.log_start_offset).count();
        let is_all = self.active.base_offset <= self.log_start_offset;
        self.sealed.iter().skip(if is_all { self.sealed.len() } else { gone })
    }

    fn max_timestamp_plan(&self) -> Option<ListOffsetPlan> {
        let mut best: Option<(TimestampMs, Offset, Offset)> = None;
        let sealed = self.sealed_in_use().map(|s| (s.max_timestamp, s.offset_of_max_timestamp, s.base_offset));
        let active = &self.active;
        let newest = active.index.max_timestamp();
        let newest = (newest.timestamp, newest.offset, active.base_offset);
        for candidate in sealed.chain([newest]) {
            if candidate.0.0 >= 0 && best.is_none_or(|held| candidate.0 > held.0) {
                best = Some(candidate);
            }
        }
        // Where no record has a timestamp, the first one is as good as any.
        let first = self.sealed_in_use().next().map_or(active.base_offset, |segment| segment.base_offset);
        if best.is_none() && first >= self.log_end_offset {
            return None;
        }
        let (_, batch_offset, segment_base_offset) = best.unwrap_or((TimestampMs::NONE, first, first));
        let position = (segment_base_offset == self.active.base_offset)
            .then(|| self.active.position_of(batch_offset, self.log_end_offset).position);
        Some(ListOffsetPlan::MaxTimestampIn { segment_base_offset, batch_offset, position })
    }

    /// In a segment after `behind`.
    fn timestamp_plan(&self, target: TimestampMs, behind: Offset) -> Option<ListOffsetPlan> {
        let start_offset = self.log_start_offset;
        let mut sealed = self.sealed_in_use().filter(|segment| segment.base_offset > behind);
        if let Some(segment) = sealed.find(|segment| segment.largest_timestamp() >= target) {
            let segment_base_offset = segment.base_offset;
            return Some(ListOffsetPlan::FirstAtOrAfter { segment_base_offset, target, start_offset, position: None });
        }
        let active = &self.active;
        if active.base_offset <= behind || active.index.max_timestamp().timestamp < target {
            return None;
        }
        // All up to the last entry below the target is too early.
        let from = active.index.times.lookup(target).offset.max(start_offset);
        let position = active.index.offsets.lookup(from).position;
        let segment_base_offset = active.base_offset;
        Some(ListOffsetPlan::FirstAtOrAfter { segment_base_offset, target, start_offset, position: Some(position) })
    }
}
