//! BeginQuorumEpoch and EndQuorumEpoch, both sides.

use ringlog_protocol::messages::{
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, EndQuorumEpochRequest, EndQuorumEpochResponse,
};
use ringlog_types::{ErrorCode, NodeId, Now};

use super::Raft;
use super::fetch_server::Asker;
use super::requests::Pending;
use super::responses::Outcome;
use super::state::State;
use super::wire::{self, LeaderInfo};
use crate::effects::Effects;
use crate::voters::{Endpoints, ReplicaKey};

impl Raft {
    pub(super) fn on_begin_request(
        &mut self,
        from: &Asker,
        request: &BeginQuorumEpochRequest,
        now: Now,
        fx: &mut Effects,
    ) {
        let response = self.answer_begin(from, request, now, fx);
        self.reply(from.token, response, fx);
    }

    fn answer_begin(
        &mut self,
        from: &Asker,
        request: &BeginQuorumEpochRequest,
        now: Now,
        fx: &mut Effects,
    ) -> BeginQuorumEpochResponse {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return wire::begin_failure(ErrorCode::InconsistentClusterId);
        }
        let Some(told) = wire::begin_partition(request) else {
            return wire::begin_failure(ErrorCode::InvalidRequest);
        };
        let endpoints = wire::begin_endpoints(request);
        let error = self.follow_told_leader(told.leader_id, told.leader_epoch, endpoints, now, fx);
        let error = match error {
            // Known since it took effect: the request was true, though meant for someone else.
            ErrorCode::None if !self.is_addressee(request.voter_id, told.voter_directory_id) => {
                ErrorCode::InvalidVoterKey
            }
            other => other,
        };
        wire::begin_response(&self.leader_info(&from.listener), error)
    }

    /// The leader tells of itself. A contradiction is answered with UNKNOWN_LEADER_EPOCH, which no peer dies of.
    fn follow_told_leader(
        &mut self,
        leader_id: i32,
        epoch: i32,
        endpoints: Endpoints,
        now: Now,
        fx: &mut Effects,
    ) -> ErrorCode {
        if epoch < self.epoch.0 {
            return ErrorCode::FencedLeaderEpoch;
        }
        let Some(told) = LeaderInfo::read(leader_id, epoch, None).filter(|told| told.leader_id.is_some()) else {
            return ErrorCode::UnknownLeaderEpoch;
        };
        if !self.learn(&told, endpoints.clone(), now, fx) {
            return ErrorCode::UnknownLeaderEpoch;
        }
        self.find_leader_at(endpoints);
        ErrorCode::None
    }

    pub(super) fn on_end_request(&mut self, from: &Asker, request: &EndQuorumEpochRequest, now: Now, fx: &mut Effects) {
        let response = self.answer_end(from, request, now, fx);
        self.reply(from.token, response, fx);
    }

    fn answer_end(
        &mut self,
        from: &Asker,
        request: &EndQuorumEpochRequest,
        now: Now,
        fx: &mut Effects,
    ) -> EndQuorumEpochResponse {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return wire::end_failure(ErrorCode::InconsistentClusterId);
        }
        let Some(told) = wire::end_partition(request) else {
            return wire::end_failure(ErrorCode::InvalidRequest);
        };
        let endpoint = |e: &ringlog_protocol::messages::end_quorum_epoch_request::LeaderEndpoint| {
            let endpoint = crate::Endpoint { host: e.host.as_str().to_owned(), port: e.port };
            (e.name.as_str().to_owned(), endpoint)
        };
        let endpoints = request.leader_endpoints.iter().map(endpoint).collect();
        let error = self.follow_told_leader(told.leader_id, told.leader_epoch, endpoints, now, fx);
        if error.is_none() && self.leader_id() == Some(NodeId(told.leader_id)) {
            let me = self.key();
            let candidates: Vec<ReplicaKey> = if told.preferred_candidates.is_empty() {
                told.preferred_successors.iter().map(|id| ReplicaKey { id: NodeId(*id), directory_id: None }).collect()
            } else {
                told.preferred_candidates
                    .iter()
                    .map(|c| ReplicaKey::from_wire(c.candidate_id, c.candidate_directory_id))
                    .collect()
            };
            let position = candidates
                .iter()
                .position(|key| key.id == me.id && (key.directory_id.is_none() || key.directory_id == me.directory_id));
            let backoff_ms = end_epoch_backoff_ms(self.config.election_backoff_max_ms, position, candidates.len());
            if let State::Follower(follower) = &mut self.state {
                follower.fetch_deadline = now.monotonic.plus_ms(backoff_ms);
            }
        }
        wire::end_response(&self.leader_info(&from.listener), error)
    }

    pub(super) fn on_begin_response(
        &mut self,
        pending: &Pending,
        response: &BeginQuorumEpochResponse,
        now: Now,
        fx: &mut Effects,
    ) {
        let read = wire::read_begin_response(response).filter(|_| response.error_code == 0);
        match read.map(|(error, leader)| self.common_answer(error, &leader, now, fx)) {
            Some(Outcome::Proceed | Outcome::Done) => {}
            Some(Outcome::BackOff) | None => self.back_off(pending, now),
        }
    }

    pub(super) fn on_end_response(
        &mut self,
        pending: &Pending,
        voter: ReplicaKey,
        response: &EndQuorumEpochResponse,
        now: Now,
        fx: &mut Effects,
    ) {
        let read = wire::read_end_response(response).filter(|_| response.error_code == 0);
        match read.map(|(error, leader)| self.common_answer(error, &leader, now, fx)) {
            Some(Outcome::Proceed) => {
                if let State::Resigned(resigned) = &mut self.state {
                    resigned.unacknowledged.remove(&voter);
                }
            }
            Some(Outcome::Done) => {}
            Some(Outcome::BackOff) | None => self.back_off(pending, now),
        }
    }
}

/// How long a follower waits after its leader resigned, by its place among the preferred successors: the first not at
/// all, the others 2ᵏ apart up to `max_ms`. Without a list nobody waits.
fn end_epoch_backoff_ms(max_ms: u64, position: Option<usize>, count: usize) -> u64 {
    if count == 0 {
        return 0;
    }
    match position {
        Some(0) => 0,
        Some(position) => {
            let shift = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let base = max_ms.checked_shr(shift(count - 1)).unwrap_or(0);
            let scaled = base.checked_mul(1_u64.checked_shl(shift(position - 1)).unwrap_or(u64::MAX));
            scaled.unwrap_or(max_ms).min(max_ms)
        }
        None => max_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::end_epoch_backoff_ms;

    #[test]
    fn successors_stand_one_after_the_other() {
        assert_eq!(end_epoch_backoff_ms(1000, Some(0), 2), 0);
        assert_eq!(end_epoch_backoff_ms(1000, Some(1), 2), 500);
        assert_eq!(end_epoch_backoff_ms(1000, Some(1), 4), 125);
        assert_eq!(end_epoch_backoff_ms(1000, Some(3), 4), 500);
        assert_eq!(end_epoch_backoff_ms(1000, None, 4), 1000);
        assert_eq!(end_epoch_backoff_ms(1000, None, 0), 0);
        assert_eq!(end_epoch_backoff_ms(1000, Some(900), 1000), 0);
    }
}
