//! ListOffsets, planned: what is known at once, and else which segment to read from where.

use ringlog_types::{LeaderEpoch, Offset, TimestampMs};

use crate::{ListOffsetPlan, Log, list_offsets_timestamp};

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
            target if target >= 0 => self.timestamp_plan(timestamp).unwrap_or(none),
            // Without tiered storage nothing is uploaded or awaits it; an unknown special value finds nothing.
            _ => none,
        }
    }

    fn max_timestamp_plan(&self) -> Option<ListOffsetPlan> {
        let mut best: Option<(TimestampMs, Offset, Offset)> = None;
        let sealed = self.sealed.iter().map(|s| (s.max_timestamp, s.offset_of_max_timestamp, s.base_offset));
        let active = &self.active;
        let newest = active.index.max_timestamp();
        let newest = (newest.timestamp, newest.offset, active.base_offset);
        for candidate in sealed.chain([newest]) {
            if candidate.0.0 >= 0 && best.is_none_or(|held| candidate.0 > held.0) {
                best = Some(candidate);
            }
        }
        // Where no record has a timestamp, the first one is as good as any.
        let first = self.sealed.first().map_or(active.base_offset, |segment| segment.base_offset);
        if best.is_none() && first >= self.log_end_offset {
            return None;
        }
        let (_, batch_offset, segment_base_offset) = best.unwrap_or((TimestampMs::NONE, first, first));
        let position = (segment_base_offset == self.active.base_offset)
            .then(|| self.active.position_of(batch_offset, self.log_end_offset).position);
        Some(ListOffsetPlan::MaxTimestampIn { segment_base_offset, batch_offset, position })
    }

    fn timestamp_plan(&self, target: TimestampMs) -> Option<ListOffsetPlan> {
        let start_offset = self.log_start_offset;
        if let Some(segment) = self.sealed.iter().find(|segment| segment.largest_timestamp() >= target) {
            let segment_base_offset = segment.base_offset;
            return Some(ListOffsetPlan::FirstAtOrAfter { segment_base_offset, target, start_offset, position: None });
        }
        let active = &self.active;
        if active.index.max_timestamp().timestamp < target {
            return None;
        }
        // All up to the last entry below the target is too early.
        let from = active.index.times.lookup(target).offset.max(start_offset);
        let position = active.index.offsets.lookup(from).position;
        let segment_base_offset = active.base_offset;
        Some(ListOffsetPlan::FirstAtOrAfter { segment_base_offset, target, start_offset, position: Some(position) })
    }
}
