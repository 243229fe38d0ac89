//! The leader's log: proposals, batches, flushes, high watermark.

use bytes::Bytes;
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchBuilder, BatchOptions, value_record_len};
use ringlog_types::{LeaderEpoch, Now, Offset};

use super::leader::OpenBatch;
use super::state::State;
use super::{ProposeError, Proposed, Raft};
use crate::control_records::{ControlRecord, control_batch};
use crate::effects::{Action, Effects};

/// A data batch is at most this long, in bytes.
pub const MAX_BATCH_LEN: usize = 8 * 1024 * 1024;

impl Raft {
    pub(super) fn append_proposal(
        &mut self,
        epoch: LeaderEpoch,
        records: &[Bytes],
        now: Now,
        fx: &mut Effects,
    ) -> Result<Proposed, ProposeError> {
        assert!(!records.is_empty(), "a proposal has records");
        let size_behind = |open: usize| -> usize {
            let record_len = |(index, record): (usize, &Bytes)| value_record_len((open + index) as i32, record.len());
            records.iter().enumerate().map(record_len).sum()
        };
        let alone = BATCH_HEADER_LEN + size_behind(0);
        if !self.is_leader() || epoch != self.epoch {
            return Err(ProposeError::NotLeader(epoch));
        }
        if alone > MAX_BATCH_LEN {
            return Err(ProposeError::TooLarge(alone));
        }
        let first_offset = self.next_offset();
        let State::Leader(leader) = &mut self.state else { return Err(ProposeError::NotLeader(epoch)) };
        let open = leader.open_batch.as_ref().map_or((0, 0), |open| (open.size, open.records.len()));
        let mut size = size_behind(open.1);
        if self.log.unflushed_bytes + open.0 + size > self.config.max_unflushed_bytes.max(MAX_BATCH_LEN) {
            return Err(ProposeError::Overloaded);
        }
        if open.0 + size > MAX_BATCH_LEN {
            self.drain_open_batch(now, fx);
            size = size_behind(0);
        }
        let State::Leader(leader) = &mut self.state else { return Err(ProposeError::NotLeader(epoch)) };
        // With nothing under way there is nothing to wait for: what comes while this batch is being committed gathers
        // for the next.
        let is_idle = leader.open_batch.is_none() && leader.high_watermark.is_some_and(|known| known >= self.log.end);
        let deadline = now.monotonic.plus_ms(self.config.append_linger_ms);
        let open = leader.open_batch.get_or_insert_with(|| OpenBatch {
            first_offset,
            records: Vec::new(),
            size: BATCH_HEADER_LEN,
            deadline,
        });
        open.records.extend_from_slice(records);
        open.size += size;
        if self.config.append_linger_ms == 0 || is_idle {
            self.drain_open_batch(now, fx);
        }
        let last_offset = first_offset.plus(records.len() as i64 - 1);
        Ok(Proposed { first_offset, last_offset })
    }

    /// Writes what lingers.
    pub(super) fn drain_open_batch(&mut self, now: Now, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        let Some(open) = leader.open_batch.take() else { return };
        assert_eq!(open.first_offset, self.log.end, "offsets were promised");
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: open.first_offset,
            partition_leader_epoch: self.epoch,
            ..BatchOptions::default()
        });
        for record in &open.records {
            builder.append(now.wall, None, Some(record), &[]);
        }
        let end_offset = builder.next_offset();
        self.append_as_leader(builder.build(), end_offset, fx);
    }

    /// Writes control records as a batch of their own, after what lingers.
    pub(super) fn append_control(&mut self, records: Vec<ControlRecord>, now: Now, fx: &mut Effects) {
        self.drain_open_batch(now, fx);
        let base_offset = self.log.end;
        let batch = control_batch(base_offset, self.epoch, now.wall, &records);
        let end_offset = base_offset.plus(records.len() as i64);
        let changes_voters = records.iter().any(|record| matches!(record, ControlRecord::Voters(_)));
        for (index, record) in records.into_iter().enumerate() {
            self.history.apply(base_offset.plus(index as i64), record);
        }
        let check_quorum_ms = self.check_quorum_ms();
        if changes_voters && let State::Leader(leader) = &mut self.state {
            leader.set_voters(self.history.voters(), now.monotonic.plus_ms(check_quorum_ms));
            // Who waits as an observer may be a voter now, whose fetch commits this.
            self.waiting.parked.wake_all();
        }
        self.append_as_leader(batch, end_offset, fx);
    }

    fn append_as_leader(&mut self, batches: Bytes, end_offset: Offset, fx: &mut Effects) {
        self.log.epochs.assign(self.epoch, self.log.end);
        self.append(batches, end_offset, fx);
        self.waiting.parked.wake_voters(self.log.end);
    }

    /// To the end of the log, on any node.
    pub(super) fn append(&mut self, batches: Bytes, end_offset: Offset, fx: &mut Effects) {
        let base_offset = self.log.end;
        self.log.unflushed_bytes += batches.len();
        self.log.end = end_offset;
        fx.push(Action::AppendLog { base_offset, end_offset, batches });
    }

    /// Asks for a flush if one is needed and none is open. A broker's copy needs none: it never votes.
    pub(super) fn flush_if_due(&mut self, now: Now, fx: &mut Effects) {
        if self.log.flushed >= self.log.end {
            self.log.unflushed_bytes = 0;
            self.end_rebuilding_if_done(fx);
            return;
        }
        if !self.config.is_controller {
            self.log.flushed = self.log.end;
            self.log.unflushed_bytes = 0;
            // The next fetch waited for this.
            self.poll_follower(now, fx);
            return;
        }
        if self.log.flush_in_flight.is_none() {
            self.log.flush_in_flight = Some(self.log.end);
            self.log.flushing_bytes = self.log.unflushed_bytes;
            fx.push(Action::FlushLog);
        }
    }

    pub(super) fn on_flushed(&mut self, now: Now, fx: &mut Effects) {
        let Some(flushed) = self.log.flush_in_flight.take() else { return };
        self.log.unflushed_bytes = self.log.unflushed_bytes.saturating_sub(self.log.flushing_bytes);
        // A truncation or a snapshot may have come between.
        self.log.flushed = self.log.flushed.max(flushed.min(self.log.end));
        self.update_high_watermark(now, fx);
    }

    /// As leader: counts how far the majority is.
    pub(super) fn update_high_watermark(&mut self, now: Now, fx: &mut Effects) {
        let (me, flushed) = (self.key(), self.log.flushed);
        let State::Leader(leader) = &mut self.state else { return };
        leader.on_own_end(me, flushed);
        let Some(high_watermark) = leader.update_high_watermark() else { return };
        self.raise_high_watermark(high_watermark, fx);
        if high_watermark >= self.log.end {
            self.drain_open_batch(now, fx);
        }
        self.waiting.parked.wake_all();
        self.on_committed(high_watermark, now, fx);
    }

    pub(super) fn raise_high_watermark(&mut self, to: Offset, fx: &mut Effects) {
        if self.high_watermark.is_none_or(|known| known < to) {
            self.high_watermark = Some(to);
            fx.push(Action::HighWatermark(to));
        }
    }
}
