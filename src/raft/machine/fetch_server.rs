//! Fetch as a leader serves it: checks, positions, parked long polls, reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::{FetchRequest, FetchResponse, fetch_response};
use ringlog_types::{ErrorCode, LeaderEpoch, NodeId, Now, Offset};

use super::Raft;
use super::parked::{Parked, ParkedFetches};
use super::state::{Position, State};
use super::wire;
use crate::effects::{Action, Effects};
use crate::event::{ReadFailed, ReadToken, ReplyToken};
use crate::snapshot_name::SnapshotId;
use crate::voters::ReplicaKey;

/// Waiting fetches that one step answers at most: with thousands of brokers, raft has other things to do in between.
const MAX_ANSWERS_PER_STEP: usize = 256;
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

/// What an answer still needs bytes for.
#[derive(Debug)]
pub(super) enum ReadPurpose {
    Fetch,
    Snapshot { id: SnapshotId, position: i64 },
}

/// A read under way, for one asker or for several with the same question; each with the listener that it came by.
#[derive(Debug)]
pub(super) struct Reading {
    pub askers: Vec<(ReplyToken, String)>,
    pub epoch: LeaderEpoch,
    pub purpose: ReadPurpose,
}

/// Requests that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub parked: ParkedFetches,
    reading: BTreeMap<ReadToken, Reading>,
    next_read: u64,
}

impl Waiting {
    pub fn begin_read(&mut self, reading: Reading) -> ReadToken {
        let token = ReadToken(self.next_read);
        self.next_read += 1;
        self.reading.insert(token, reading);
        token
    }

    pub fn finish_read(&mut self, token: ReadToken) -> Option<Reading> {
        self.reading.remove(&token)
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
                self.on_shorter_log(key, offset);
                let mut data = self.fetch_data(ErrorCode::None);
                data.snapshot_id = fetch_response::SnapshotId { end_offset: id.end_offset.0, epoch: id.epoch.0 };
                return Some(wire::fetch_response(&self.leader_info(&from.listener), data));
            }
            Position::Diverging { epoch, end_offset } => {
                self.on_shorter_log(key, offset.min(end_offset));
                let mut data = self.fetch_data(ErrorCode::None);
                data.diverging_epoch = fetch_response::EpochEndOffset { epoch: epoch.0, end_offset: end_offset.0 };
                return Some(wire::fetch_response(&self.leader_info(&from.listener), data));
            }
        }
        self.on_valid_fetch(key, offset, now, fx);
        let parked = Parked {
            listener: from.listener.clone(),
            epoch: self.epoch,
            offset,
            max_bytes: u32::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCH_BYTES),
            deadline: now.monotonic.plus_ms((request.max_wait_ms as u64).min(MAX_WAIT_MS)),
        };
        let voter = self.voter_id(key);
        let known = self.leader_high_watermark();
        let news_from = if voter.is_some() { self.log.end } else { known.unwrap_or(Offset(0)) };
        let knows_high_watermark = asked.high_watermark >= known.map_or(NO_HIGH_WATERMARK, |offset| offset.0);
        if offset >= news_from && knows_high_watermark && request.max_wait_ms > 0 {
            self.waiting.parked.park(voter, from.token, parked, self.config.max_parked_fetches);
            return None;
        }
        self.answer_or_read(from.token, parked, fx)
    }

    /// The voter that asks, if it is one.
    fn voter_id(&self, key: ReplicaKey) -> Option<NodeId> {
        let State::Leader(leader) = &self.state else { return None };
        leader.is_voter(key).then_some(key.id)
    }

    fn on_shorter_log(&mut self, key: ReplicaKey, end_offset: Offset) {
        if let State::Leader(leader) = &mut self.state {
            leader.on_shorter_log(key, end_offset);
        }
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

    fn empty_answer(&self, listener: &str) -> FetchResponse {
        wire::fetch_response(&self.leader_info(listener), self.fetch_data(ErrorCode::None))
    }

    /// Records if there are any (which takes a read), else an empty answer.
    fn answer_or_read(&mut self, token: ReplyToken, parked: Parked, fx: &mut Effects) -> Option<FetchResponse> {
        if self.log.end > parked.offset {
            self.read_log(vec![(token, parked.listener)], parked.offset, parked.max_bytes, fx);
            return None;
        }
        Some(self.empty_answer(&parked.listener))
    }

    fn read_log(&mut self, askers: Vec<(ReplyToken, String)>, from: Offset, max_bytes: u32, fx: &mut Effects) {
        let token = self.waiting.begin_read(Reading { askers, epoch: self.epoch, purpose: ReadPurpose::Fetch });
        fx.push(Action::ReadLog { token, from, max_bytes });
    }

    /// Answers a portion of the fetches that have waited for long enough, or for what there is now. Those with the same
    /// question share one read.
    pub(super) fn answer_parked(&mut self, now: Now, fx: &mut Effects) {
        self.waiting.parked.expire(now.monotonic);
        let mut reads: BTreeMap<(Offset, u32), Vec<(ReplyToken, String)>> = BTreeMap::new();
        for _ in 0..MAX_ANSWERS_PER_STEP {
            let Some((token, parked)) = self.waiting.parked.take_due() else { break };
            if let Err(error) = self.check_leader(parked.epoch.0) {
                let response = self.fetch_error(&parked.listener, error);
                self.reply(token, response, fx);
            } else if self.log.end > parked.offset {
                reads.entry((parked.offset, parked.max_bytes)).or_default().push((token, parked.listener));
            } else {
                let response = self.empty_answer(&parked.listener);
                self.reply(token, response, fx);
            }
        }
        for ((from, max_bytes), askers) in reads {
            self.read_log(askers, from, max_bytes, fx);
        }
    }

    pub(super) fn on_log_read(&mut self, token: ReadToken, result: Result<Vec<Bytes>, ReadFailed>, fx: &mut Effects) {
        let Some(reading) = self.waiting.finish_read(token) else { return };
        let is_led = reading.epoch == self.epoch && self.is_leader();
        for (asker, listener) in reading.askers {
            let response = match &result {
                _ if !is_led => self.fetch_error(&listener, ErrorCode::NotLeaderOrFollower),
                Ok(chunks) => {
                    let mut data = self.fetch_data(ErrorCode::None);
                    data.records = Some(Records::from_chunks(chunks.clone()));
                    wire::fetch_response(&self.leader_info(&listener), data)
                }
                // The segment may just have been deleted; the position is judged anew when the peer asks again.
                Err(ReadFailed) => self.fetch_error(&listener, ErrorCode::BrokerNotAvailable),
            };
            self.reply(asker, response, fx);
        }
    }
}
