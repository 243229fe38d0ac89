//! Fetch as a leader serves it: checks, positions, parked long polls, reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::{FetchRequest, FetchResponse, fetch_response};
use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, Now, Offset};

use super::Raft;
use super::state::{Position, State};
use super::wire;
use crate::effects::{Action, Effects};
use crate::event::{ReadFailed, ReadToken, ReplyToken};
use crate::snapshot_name::SnapshotId;
use crate::voters::ReplicaKey;

/// Fetches that may be parked; beyond it they are answered empty at once. A peer has one in flight.
const MAX_PARKED: usize = 1024;
/// A fetch never waits longer than this, whatever it asks for.
const MAX_WAIT_MS: u64 = 60_000;
/// A fetch gets at most this many bytes, unless its first batch is larger.
const MAX_FETCH_BYTES: u32 = 8 * 1024 * 1024;
/// On the wire: not known. Requests tell theirs from version 18 on (KIP-1166).
const NO_HIGH_WATERMARK: i64 = -1;

/// Who asked, and how.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub token: ReplyToken,
    pub listener: String,
    pub api_version: i16,
}

/// A fetch that waits for records or a higher high watermark.
#[derive(Debug)]
struct Parked {
    listener: String,
    offset: Offset,
    max_bytes: u32,
    deadline: MonotonicMs,
}

/// What an answer still needs bytes for.
#[derive(Debug)]
pub(super) enum ReadPurpose {
    Fetch,
    Snapshot { id: SnapshotId, position: i64 },
}

/// A read under way.
#[derive(Debug)]
pub(super) struct Reading {
    pub token: ReplyToken,
    pub listener: String,
    pub epoch: LeaderEpoch,
    pub purpose: ReadPurpose,
}

/// Requests that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    parked: BTreeMap<ReplyToken, Parked>,
    reading: BTreeMap<ReadToken, Reading>,
    next_read: u64,
}

impl Waiting {
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.parked.values().map(|parked| parked.deadline).min()
    }

    pub fn begin_read(&mut self, reading: Reading) -> ReadToken {
        let token = ReadToken(self.next_read);
        self.next_read += 1;
        self.reading.insert(token, reading);
        token
    }

    pub fn finish_read(&mut self, token: ReadToken) -> Option<Reading> {
        self.reading.remove(&token)
    }

    pub fn forget(&mut self, token: ReplyToken) {
        self.parked.remove(&token);
        self.reading.retain(|_, reading| reading.token != token);
    }
}

impl Raft {
    pub(super) fn on_fetch_request(&mut self, from: Asker, request: &FetchRequest, now: Now, fx: &mut Effects) {
        if let Some(response) = self.answer_or_park(&from, request, now, fx) {
            self.reply(from.token, response, fx);
        }
    }

    /// An answer, or `None` if there will be one later.
    fn answer_or_park(
        &mut self,
        from: &Asker,
        request: &FetchRequest,
        now: Now,
        fx: &mut Effects,
    ) -> Option<FetchResponse> {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return Some(wire::fetch_failure(ErrorCode::InconsistentClusterId));
        }
        let Some(asked) = wire::fetch_partition(request, from.api_version) else {
            return Some(wire::fetch_failure(ErrorCode::InvalidRequest));
        };
        let replica_id = wire::fetch_replica_id(request, from.api_version);
        let is_invalid = request.max_wait_ms < 0
            || asked.fetch_offset < 0
            || asked.last_fetched_epoch < 0
            || asked.current_leader_epoch < 0
            || asked.last_fetched_epoch > asked.current_leader_epoch;
        if is_invalid {
            return Some(self.fetch_error(&from.listener, ErrorCode::InvalidRequest));
        }
        if let Err(error) = self.check_leader(asked.current_leader_epoch) {
            return Some(self.fetch_error(&from.listener, error));
        }
        let key = ReplicaKey::from_wire(replica_id.0, asked.replica_directory_id);
        if replica_id == self.config.node_id {
            return Some(self.fetch_error(&from.listener, ErrorCode::UnknownServerError));
        }
        let offset = Offset(asked.fetch_offset);
        match self.log.position(offset, LeaderEpoch(asked.last_fetched_epoch)) {
            Position::Valid => {}
            Position::Snapshot(id) => {
                let mut data = self.fetch_data(ErrorCode::None);
                data.snapshot_id = fetch_response::SnapshotId { end_offset: id.end_offset.0, epoch: id.epoch.0 };
                return Some(wire::fetch_response(&self.leader_info(&from.listener), data));
            }
            Position::Diverging { epoch, end_offset } => {
                let mut data = self.fetch_data(ErrorCode::None);
                data.diverging_epoch = fetch_response::EpochEndOffset { epoch: epoch.0, end_offset: end_offset.0 };
                return Some(wire::fetch_response(&self.leader_info(&from.listener), data));
            }
        }
        self.on_valid_fetch(key, offset, now, fx);
        let parked = Parked {
            listener: from.listener.clone(),
            offset,
            max_bytes: u32::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCH_BYTES),
            deadline: now.monotonic.plus_ms((request.max_wait_ms as u64).min(MAX_WAIT_MS)),
        };
        let known = self.leader_high_watermark().map_or(NO_HIGH_WATERMARK, |offset| offset.0);
        let must_wait = self.log.end <= offset
            && request.max_wait_ms > 0
            && asked.high_watermark >= known
            && self.waiting.parked.len() < MAX_PARKED;
        if must_wait {
            self.waiting.parked.insert(from.token, parked);
            return None;
        }
        self.answer_parked(from.token, parked, fx)
    }

    /// Who fetches from a valid position has everything below it.
    fn on_valid_fetch(&mut self, key: ReplicaKey, offset: Offset, now: Now, fx: &mut Effects) {
        let (own_id, end, check_quorum_ms) = (self.config.node_id, self.log.end, self.check_quorum_ms());
        let State::Leader(leader) = &mut self.state else { return };
        leader.on_heard(key, own_id, now.monotonic, check_quorum_ms);
        // Clients that are no replicas (id -1) read, but are no part of the quorum.
        if key.id.0 >= 0 {
            leader.on_fetch(key, offset, end, now);
        }
        self.put_off_begin(key.id, now);
        self.update_high_watermark(now, fx);
    }

    /// Whether a request for the leader of `epoch` reached it.
    pub(super) fn check_leader(&self, epoch: i32) -> Result<(), ErrorCode> {
        if epoch < self.epoch.0 {
            Err(ErrorCode::FencedLeaderEpoch)
        } else if epoch > self.epoch.0 {
            Err(ErrorCode::UnknownLeaderEpoch)
        } else if !self.is_leader() {
            Err(ErrorCode::NotLeaderOrFollower)
        } else if self.is_shutting_down {
            Err(ErrorCode::BrokerNotAvailable)
        } else {
            Ok(())
        }
    }

    /// What a leader tells in this epoch: unknown until its first record is on a majority.
    pub(super) fn leader_high_watermark(&self) -> Option<Offset> {
        match &self.state {
            State::Leader(leader) => leader.high_watermark,
            _ => self.high_watermark,
        }
    }

    fn fetch_data(&self, error: ErrorCode) -> fetch_response::PartitionData {
        let high_watermark = self.leader_high_watermark().map_or(NO_HIGH_WATERMARK, |offset| offset.0);
        wire::fetch_data(error, high_watermark, self.log.start.0)
    }

    fn fetch_error(&self, listener: &str, error: ErrorCode) -> FetchResponse {
        let data = wire::fetch_data(error, NO_HIGH_WATERMARK, self.log.start.0);
        wire::fetch_response(&self.leader_info(listener), data)
    }

    /// Records if there are any (which takes a read), else an empty answer.
    fn answer_parked(&mut self, token: ReplyToken, parked: Parked, fx: &mut Effects) -> Option<FetchResponse> {
        if self.log.end > parked.offset {
            let reading = Reading { token, listener: parked.listener, epoch: self.epoch, purpose: ReadPurpose::Fetch };
            let read = self.waiting.begin_read(reading);
            fx.push(Action::ReadLog { token: read, from: parked.offset, max_bytes: parked.max_bytes });
            return None;
        }
        Some(wire::fetch_response(&self.leader_info(&parked.listener), self.fetch_data(ErrorCode::None)))
    }

    fn answer_where(&mut self, mut is_due: impl FnMut(&Parked) -> bool, fx: &mut Effects) {
        let due: Vec<ReplyToken> =
            self.waiting.parked.iter().filter(|(_, parked)| is_due(parked)).map(|(token, _)| *token).collect();
        for token in due {
            if let Some(parked) = self.waiting.parked.remove(&token)
                && let Some(response) = self.answer_parked(token, parked, fx)
            {
                self.reply(token, response, fx);
            }
        }
    }

    /// The log grew, or the high watermark rose (which everybody wants to know at once).
    pub(super) fn answer_ready_fetches(&mut self, all: bool, fx: &mut Effects) {
        let end = self.log.end;
        self.answer_where(|parked| all || parked.offset < end, fx);
    }

    pub(super) fn answer_expired_fetches(&mut self, now: Now, fx: &mut Effects) {
        self.answer_where(|parked| parked.deadline <= now.monotonic, fx);
    }

    /// Leadership is over: nobody waits for it any longer.
    pub(super) fn fail_waiting(&mut self, error: ErrorCode, fx: &mut Effects) {
        for (token, parked) in std::mem::take(&mut self.waiting.parked) {
            let response = self.fetch_error(&parked.listener, error);
            self.reply(token, response, fx);
        }
    }

    pub(super) fn on_log_read(&mut self, token: ReadToken, result: Result<Vec<Bytes>, ReadFailed>, fx: &mut Effects) {
        let Some(reading) = self.waiting.finish_read(token) else { return };
        let response = match result {
            _ if reading.epoch != self.epoch || !self.is_leader() => {
                self.fetch_error(&reading.listener, ErrorCode::NotLeaderOrFollower)
            }
            Ok(chunks) => {
                let mut data = self.fetch_data(ErrorCode::None);
                data.records = Some(Records::from_chunks(chunks));
                wire::fetch_response(&self.leader_info(&reading.listener), data)
            }
            // The segment may just have been deleted; the position is judged anew when the peer asks again.
            Err(ReadFailed) => self.fetch_error(&reading.listener, ErrorCode::BrokerNotAvailable),
        };
        self.reply(reading.token, response, fx);
    }

    pub(super) fn on_abandoned(&mut self, token: ReplyToken) {
        self.waiting.forget(token);
        if let State::Leader(leader) = &mut self.state
            && let Some(change) = &mut leader.change
        {
            change.forget(token);
        }
    }
}
