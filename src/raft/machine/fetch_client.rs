//! Fetch as followers and observers send it: positions, records, divergence.

use ringlog_protocol::messages::{FetchResponse, fetch_response};
use ringlog_protocol::records::{BatchIter, BatchRef};
use ringlog_types::{LeaderEpoch, Now, Offset};

use super::Raft;
use super::requests::{Asked, Pending};
use super::responses::Outcome;
use super::state::State;
use super::wire::{self, FetchPosition};
use crate::control_records::ControlRecord;
use crate::effects::{Action, Effects, Fault};
use crate::snapshot_name::SnapshotId;

/// Epoch, next offset and control records of a batch.
type Checked = (LeaderEpoch, Offset, Vec<(Offset, ControlRecord)>);

impl Raft {
    /// What a follower has to ask its leader for, if nothing is awaited and what it has is durable.
    pub(super) fn poll_follower(&mut self, now: Now, fx: &mut Effects) {
        self.poll_membership(now, fx);
        self.poll_rebuilding(now, fx);
        let State::Follower(follower) = &self.state else { return };
        let download = follower.download;
        let is_busy = self.requests.any(|asked| matches!(asked, Asked::Fetch | Asked::FetchSnapshot { .. }));
        if is_busy {
            return self.poll_doubts(now, fx);
        }
        // The position acknowledges: only what is on stable storage may be acknowledged.
        if self.log.flushed < self.log.end || self.installing.is_some() {
            return;
        }
        let leader = self.leader.as_ref();
        let Some(to) = leader.and_then(|leader| wire::leader_destination(leader, &self.config.default_listener)) else {
            return self.ask_who_leads(now, fx);
        };
        if let Some(download) = download {
            let (id, position) = (download.id, download.position);
            let request = wire::snapshot_request(&self.config, self.epoch, id, position);
            self.send(to, Asked::FetchSnapshot { id, position }, request, now, fx);
        } else if self.requests.is_backing_off(&to, now.monotonic) {
            // The leader can't be reached: perhaps somebody knows of another.
            self.ask_who_leads(now, fx);
        } else {
            let request = wire::fetch_request(&self.config, &self.fetch_position());
            self.send(to, Asked::Fetch, request, now, fx);
        }
    }

    pub(super) fn fetch_position(&self) -> FetchPosition {
        FetchPosition {
            epoch: self.epoch,
            offset: self.log.end.0,
            last_fetched_epoch: self.log.last_epoch(),
            high_watermark: self.high_watermark.map_or(-1, |offset| offset.0),
        }
    }

    pub(super) fn on_fetch_response(&mut self, pending: &Pending, response: FetchResponse, now: Now, fx: &mut Effects) {
        let read = wire::read_fetch_response(&response).filter(|_| response.error_code == 0);
        let Some((partition, leader)) = read else { return self.back_off(pending, now) };
        match self.common_answer(partition.error_code, &leader, now, fx) {
            Outcome::Proceed => {}
            Outcome::Done => return,
            Outcome::BackOff => return self.back_off(pending, now),
        }
        // It may lead no longer.
        let is_from_leader = pending.epoch == self.epoch && self.leader_id() == leader.leader_id;
        if !matches!(self.state, State::Follower(_)) || !is_from_leader {
            return;
        }
        if self.take_fetched(partition, now, fx) {
            let fetch_deadline = now.monotonic.plus_ms(self.config.fetch_timeout_ms);
            if let State::Follower(follower) = &mut self.state {
                follower.fetch_deadline = fetch_deadline;
                follower.has_fetched = true;
                self.suspected = None;
            }
        } else {
            self.back_off(pending, now);
        }
    }

    /// Whether the answer made sense.
    fn take_fetched(&mut self, partition: &fetch_response::PartitionData, now: Now, fx: &mut Effects) -> bool {
        let (diverging, snapshot) = (&partition.diverging_epoch, &partition.snapshot_id);
        if diverging.epoch >= 0 || diverging.end_offset >= 0 {
            if diverging.epoch < 0 || diverging.end_offset < 0 {
                return false;
            }
            self.truncate_to_common(LeaderEpoch(diverging.epoch), Offset(diverging.end_offset), fx);
            return true;
        }
        if snapshot.end_offset >= 0 || snapshot.epoch >= 0 {
            if snapshot.end_offset < 0 || snapshot.epoch < 0 {
                return false;
            }
            let id = SnapshotId { end_offset: Offset(snapshot.end_offset), epoch: LeaderEpoch(snapshot.epoch) };
            return self.begin_download(id, now, fx);
        }
        self.forget_paused_download(fx);
        let is_sound = match &partition.records {
            Some(records) if !records.is_empty() => self.append_fetched(records.clone().into_contiguous(), fx),
            _ => true,
        };
        if partition.high_watermark >= 0 {
            let told = Offset(partition.high_watermark);
            self.told_high_watermark = self.told_high_watermark.max(Some(told));
            self.on_log_continued();
            self.raise_high_watermark(told.min(self.log.end), fx);
        }
        is_sound
    }

    /// Appends what continues our log; leaves out what is damaged, misplaced, or of epochs yet to come. Whether all of
    /// it was good.
    fn append_fetched(&mut self, bytes: bytes::Bytes, fx: &mut Effects) -> bool {
        let mut end = self.log.end;
        let mut accepted = 0;
        let mut is_sound = true;
        let mut controls: Vec<(Offset, ControlRecord)> = Vec::new();
        let mut batches = BatchIter::new(&bytes);
        let mut last_epoch = self.log.last_epoch();
        while let Some(batch) = batches.next() {
            let Some(found) = batch.ok().and_then(|batch| self.check_fetched(&batch, end, last_epoch)) else {
                is_sound = false;
                break;
            };
            let (epoch, next, records) = found;
            self.log.epochs.assign(epoch, end);
            controls.extend(records);
            (end, last_epoch, accepted) = (next, epoch, batches.position());
        }
        if accepted > 0 {
            self.append(bytes.slice(..accepted), end, fx);
            for (offset, record) in controls {
                self.history.apply(offset, record);
            }
        }
        is_sound
    }

    /// Epoch, next offset and control records of a batch that may be appended at `end`.
    fn check_fetched(&self, batch: &BatchRef<'_>, end: Offset, last_epoch: LeaderEpoch) -> Option<Checked> {
        let header = &batch.header;
        let epoch = header.partition_leader_epoch;
        let is_in_place = header.base_offset == end && header.next_offset() > end;
        if !is_in_place || epoch < last_epoch || epoch > self.epoch || batch.verify_crc().is_err() {
            return None;
        }
        let controls = if header.is_control() { ControlRecord::parse_batch(batch).ok()? } else { Vec::new() };
        Some((epoch, header.next_offset(), controls))
    }

    /// The leader's log parts from ours: drops what the leader doesn't have (KIP-101).
    fn truncate_to_common(&mut self, epoch: LeaderEpoch, end_offset: Offset, fx: &mut Effects) {
        let to = match self.log.epochs.end_of(epoch, self.log.end) {
            _ if epoch == LeaderEpoch(0) => end_offset.min(self.log.end),
            Some(own) if own.epoch == epoch => own.end_offset.min(end_offset),
            Some(own) => own.end_offset,
            // All that is known here is of later epochs; what lies below it is covered by a snapshot.
            None => self.log.epochs.entries().first().map_or(self.log.start, |first| first.start_offset),
        };
        // What the log's start or a snapshot covers is committed, even while the high watermark isn't known yet.
        let covered = self.log.latest_snapshot().map_or(self.log.start, |id| id.end_offset).max(self.log.start);
        let high_watermark = self.high_watermark.map_or(covered, |known| known.max(covered));
        if to < high_watermark {
            fx.push(Action::Fatal(Fault::TruncationBelowHighWatermark { to, high_watermark, epoch: self.epoch }));
            return;
        }
        if to < self.log.end {
            self.log.truncate_to(to);
            self.history.truncate_to(to);
            fx.push(Action::TruncateLog { to });
        }
    }
}
