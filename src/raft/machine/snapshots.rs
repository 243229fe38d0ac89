//! Snapshots from node to node (KIP-630), both sides, and what local ones change.

use ringlog_protocol::Records;
use ringlog_protocol::messages::{FetchSnapshotRequest, FetchSnapshotResponse, fetch_snapshot_response};
use ringlog_types::{ErrorCode, LeaderEpoch, Now, Offset};

use super::Raft;
use super::fetch_server::{Asker, ReadPurpose, Reading};
use super::requests::Pending;
use super::responses::Outcome;
use super::state::{Download, State};
use super::wire;
use crate::control_history::ControlHistory;
use crate::effects::{Action, Effects};
use crate::epochs::LeaderEpochs;
use crate::event::{ReadFailed, ReadToken, SnapshotChunk, SnapshotReadError};
use crate::snapshot_name::SnapshotId;
use crate::voters::ReplicaKey;

impl Raft {
    pub(super) fn on_snapshot_request(
        &mut self,
        from: Asker,
        request: &FetchSnapshotRequest,
        now: Now,
        fx: &mut Effects,
    ) {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return self.reply(from.token, wire::snapshot_failure(ErrorCode::InconsistentClusterId), fx);
        }
        if request.topics.is_empty() || request.replica_id == self.config.node_id.0 {
            return self.reply(from.token, wire::snapshot_failure(ErrorCode::InvalidRequest), fx);
        }
        let Some(asked) = wire::snapshot_partition(request) else {
            return self.reply(from.token, unknown_partition(request), fx);
        };
        let id = SnapshotId {
            end_offset: Offset(asked.snapshot_id.end_offset),
            epoch: LeaderEpoch(asked.snapshot_id.epoch),
        };
        let position = asked.position;
        if let Err(error) = self.check_leader(asked.current_leader_epoch) {
            let response = self.snapshot_error(&from.listener, id, position, error);
            return self.reply(from.token, response, fx);
        }
        if id == SnapshotId::BOOTSTRAP || !self.log.snapshots.contains(&id) {
            let response = self.snapshot_error(&from.listener, id, position, ErrorCode::SnapshotNotFound);
            return self.reply(from.token, response, fx);
        }
        let Ok(at) = u64::try_from(position) else {
            let response = self.snapshot_error(&from.listener, id, position, ErrorCode::PositionOutOfRange);
            return self.reply(from.token, response, fx);
        };
        let key = ReplicaKey::from_wire(request.replica_id, asked.replica_directory_id);
        let (own_id, check_quorum_ms) = (self.config.node_id, self.check_quorum_ms());
        if let State::Leader(leader) = &mut self.state {
            leader.on_heard(key, own_id, now.monotonic, check_quorum_ms);
        }
        let max_bytes = u32::try_from(request.max_bytes).unwrap_or(0).min(self.config.fetch_snapshot_max_bytes).max(1);
        let reading = Reading {
            askers: vec![(from.token, from.listener)],
            epoch: self.epoch,
            purpose: ReadPurpose::Snapshot { id, position },
        };
        let token = self.waiting.begin_read(reading);
        fx.push(Action::ReadSnapshot { token, id, position: at, max_bytes });
    }

    pub(super) fn on_snapshot_read(
        &mut self,
        token: ReadToken,
        result: Result<SnapshotChunk, SnapshotReadError>,
        fx: &mut Effects,
    ) {
        let Some(Reading { askers, epoch, purpose }) = self.waiting.finish_read(token) else { return };
        let ReadPurpose::Snapshot { id, position } = purpose else {
            panic!("a log read was answered with a snapshot's bytes");
        };
        let Some((asker, listener)) = askers.into_iter().next() else { return };
        let response = match result {
            _ if epoch != self.epoch || !self.is_leader() => {
                self.snapshot_error(&listener, id, position, ErrorCode::NotLeaderOrFollower)
            }
            Ok(chunk) => {
                let mut data = snapshot_data(id, position, ErrorCode::None);
                data.size = i64::try_from(chunk.size).unwrap_or(i64::MAX);
                data.unaligned_records = Some(Records::from(chunk.bytes));
                wire::snapshot_response(&self.leader_info(&listener), data)
            }
            Err(error) => {
                let error = match error {
                    SnapshotReadError::NotFound => ErrorCode::SnapshotNotFound,
                    SnapshotReadError::PositionOutOfRange => ErrorCode::PositionOutOfRange,
                };
                self.snapshot_error(&listener, id, position, error)
            }
        };
        self.reply(asker, response, fx);
    }

    fn snapshot_error(&self, listener: &str, id: SnapshotId, position: i64, error: ErrorCode) -> FetchSnapshotResponse {
        wire::snapshot_response(&self.leader_info(listener), snapshot_data(id, position, error))
    }

    /// The leader sends us to a snapshot. Whether that makes sense.
    pub(super) fn begin_download(&mut self, id: SnapshotId, now: Now, fx: &mut Effects) -> bool {
        // What a snapshot of ours covers is committed, even while the high watermark isn't known yet.
        let own = self.log.latest_snapshot().map(|own| own.end_offset);
        let is_behind = self.high_watermark.max(own).is_some_and(|known| id.end_offset < known);
        let fetch_deadline = now.monotonic.plus_ms(self.config.fetch_timeout_ms);
        let (Some(from), State::Follower(follower)) = (self.leader.as_ref().map(|leader| leader.id), &mut self.state)
        else {
            return false;
        };
        if is_behind || id == SnapshotId::BOOTSTRAP {
            return false;
        }
        let paused = self.paused_download.take_if(|paused| (paused.id, paused.from) == (id, from));
        follower.download = Some(paused.unwrap_or(Download { id, from, size: None, position: 0 }));
        follower.fetch_deadline = fetch_deadline;
        self.forget_paused_download(fx);
        true
    }

    /// Nothing comes of it any more.
    pub(super) fn forget_paused_download(&mut self, fx: &mut Effects) {
        if let Some(paused) = self.paused_download.take() {
            fx.push(Action::AbandonSnapshot { id: paused.id });
        }
    }

    pub(super) fn on_snapshot_response(
        &mut self,
        pending: &Pending,
        id: SnapshotId,
        position: u64,
        response: FetchSnapshotResponse,
        now: Now,
        fx: &mut Effects,
    ) {
        let read = wire::read_snapshot_response(&response).filter(|_| response.error_code == 0);
        let Some((partition, leader)) = read else {
            // Kafka's own error answers have no topics: the snapshot may be gone, so start over with a fetch.
            self.abandon_download(fx);
            return self.back_off(pending, now);
        };
        match self.common_answer(partition.error_code, &leader, now, fx) {
            Outcome::Proceed => {}
            Outcome::Done => return,
            Outcome::BackOff => {
                // Who leads no longer has the file still, and may be elected again.
                let leads_no_longer = partition.error_code == ErrorCode::NotLeaderOrFollower.code();
                if !leads_no_longer || leader.leader_id.is_none() {
                    self.abandon_download(fx);
                }
                return self.back_off(pending, now);
            }
        }
        let bytes = partition.unaligned_records.clone().unwrap_or_default().into_contiguous();
        let told = SnapshotId {
            end_offset: Offset(partition.snapshot_id.end_offset),
            epoch: LeaderEpoch(partition.snapshot_id.epoch),
        };
        let end = position + bytes.len() as u64;
        let is_sound = told == id && partition.position == position as i64 && !bytes.is_empty();
        let Ok(size) = u64::try_from(partition.size) else { return self.abandon_download(fx) };
        let fetch_deadline = now.monotonic.plus_ms(self.config.fetch_timeout_ms);
        let State::Follower(follower) = &mut self.state else { return };
        let Some(download) = follower.download else { return };
        let is_same_file = download.size.is_none_or(|known| known == size);
        if !is_sound || end > size || !is_same_file {
            self.abandon_download(fx);
            return self.back_off(pending, now);
        }
        follower.fetch_deadline = fetch_deadline;
        follower.has_fetched = true;
        fx.push(Action::WriteSnapshot { id, position, bytes });
        follower.download = Some(Download { size: Some(size), position: end, ..download });
        if end == size {
            follower.download = None;
            self.installing = Some(id);
            fx.push(Action::FinishSnapshot { id });
        }
    }

    fn abandon_download(&mut self, fx: &mut Effects) {
        if let State::Follower(follower) = &mut self.state
            && let Some(download) = follower.download.take()
        {
            fx.push(Action::AbandonSnapshot { id: download.id });
        }
    }

    pub(super) fn on_snapshot_installed(
        &mut self,
        id: SnapshotId,
        result: Result<Box<ControlHistory>, ReadFailed>,
        now: Now,
        fx: &mut Effects,
    ) {
        let fetch_deadline = now.monotonic.plus_ms(self.config.fetch_timeout_ms);
        if let State::Follower(follower) = &mut self.state {
            follower.fetch_deadline = fetch_deadline;
        }
        assert_eq!(self.installing.take(), Some(id), "one snapshot is installed at a time");
        // Nothing was appended since FinishSnapshot: until now this node neither fetched nor stood for election.
        let Ok(history) = result else { return };
        self.history = *history;
        self.log.start = id.end_offset;
        self.log.end = id.end_offset;
        self.log.flushed = id.end_offset;
        self.log.flush_in_flight = None;
        self.log.unflushed_bytes = 0;
        self.log.epochs = LeaderEpochs::default();
        // Older ones go with the log.
        self.log.snapshots = std::collections::BTreeSet::from([id]);
        self.raise_high_watermark(id.end_offset, fx);
    }

    pub(super) fn on_log_start_advanced(&mut self, log_start_offset: Offset) {
        self.log.start = self.log.start.max(log_start_offset).min(self.log.end);
        self.log.epochs.trim_before(self.log.start);
        let start = self.log.start;
        self.log.snapshots.retain(|id| id.end_offset >= start);
        self.history.trim_before(start);
    }
}

fn snapshot_data(id: SnapshotId, position: i64, error: ErrorCode) -> fetch_snapshot_response::PartitionSnapshot {
    fetch_snapshot_response::PartitionSnapshot {
        index: 0,
        error_code: error.code(),
        snapshot_id: fetch_snapshot_response::SnapshotId { end_offset: id.end_offset.0, epoch: id.epoch.0 },
        position,
        // Never null: Kafka's own null here can't be encoded.
        unaligned_records: Some(Records::default()),
        ..fetch_snapshot_response::PartitionSnapshot::default()
    }
}

fn unknown_partition(request: &FetchSnapshotRequest) -> FetchSnapshotResponse {
    let topics = request.topics.iter().take(1).map(|topic| fetch_snapshot_response::TopicSnapshot {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .take(1)
            .map(|partition| fetch_snapshot_response::PartitionSnapshot {
                index: partition.partition,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                unaligned_records: Some(Records::default()),
                ..fetch_snapshot_response::PartitionSnapshot::default()
            })
            .collect(),
    });
    FetchSnapshotResponse { topics: topics.collect(), ..FetchSnapshotResponse::default() }
}
