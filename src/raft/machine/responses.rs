//! Answers to our requests: dispatch, failures, and what all answers have in common.

use ringlog_protocol::ResponseBody;
use ringlog_types::{ErrorCode, Now};

use super::Raft;
use super::requests::{Asked, Pending};
use super::state::State;
use super::wire::LeaderInfo;
use crate::effects::{Action, Destination, Effects};
use crate::event::{ReplyToken, RequestToken, SendError};
use crate::refusals::{is_stranger, top_level_error};
use crate::voters::Endpoints;

/// What to do with an answer after its error, epoch and leader were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No error, our epoch: the rest counts.
    Proceed,
    /// Nothing more to take from it.
    Done,
    /// Ask again after the back-off.
    BackOff,
}

impl Raft {
    /// Sends a request, unless one to the same node is awaited or backing off. Whether it went out.
    pub(super) fn send(
        &mut self,
        to: Destination,
        asked: Asked,
        request: impl Into<ringlog_protocol::RequestBody>,
        now: Now,
        fx: &mut Effects,
    ) -> bool {
        if !self.requests.is_ready(&to, now.monotonic) {
            return false;
        }
        let token = self.requests.begin(to.clone(), asked, self.epoch, now.monotonic, self.config.request_timeout_ms);
        fx.push(Action::Send { to, token, request: Box::new(request.into()) });
        true
    }

    pub(super) fn reply(&self, token: ReplyToken, response: impl Into<ResponseBody>, fx: &mut Effects) {
        fx.push(Action::Reply { token, response: Box::new(response.into()) });
    }

    pub(super) fn back_off(&mut self, pending: &Pending, now: Now) {
        self.requests.back_off(pending.to.clone(), now.monotonic.plus_ms(self.config.retry_backoff_ms));
    }

    pub(super) fn on_response(
        &mut self,
        token: RequestToken,
        result: Result<ResponseBody, SendError>,
        now: Now,
        fx: &mut Effects,
    ) {
        // Given up at a transition or by its timeout.
        let Some(pending) = self.requests.finish(token) else { return };
        match result {
            Ok(response) => {
                if is_stranger(top_level_error(&response)) {
                    self.requests.on_unconnected(&pending.to.endpoint, now.monotonic, &mut self.random);
                } else {
                    self.requests.on_connected(&pending.to.endpoint, now.monotonic);
                }
                self.on_answer(&pending, response, now, fx);
            }
            Err(error) => {
                if matches!(error, SendError::Refused | SendError::Disconnected) {
                    self.requests.on_unconnected(&pending.to.endpoint, now.monotonic, &mut self.random);
                }
                self.on_failed(&pending, error, now, fx);
            }
        }
    }

    fn on_answer(&mut self, pending: &Pending, response: ResponseBody, now: Now, fx: &mut Effects) {
        match (pending.asked, response) {
            (Asked::Vote { voter, .. }, ResponseBody::Vote(response)) => {
                self.on_vote_response(pending, voter, &response, now, fx);
            }
            (Asked::BeginQuorumEpoch { .. }, ResponseBody::BeginQuorumEpoch(response)) => {
                self.on_begin_response(pending, &response, now, fx);
            }
            (Asked::EndQuorumEpoch { voter }, ResponseBody::EndQuorumEpoch(response)) => {
                self.on_end_response(pending, voter, &response, now, fx);
            }
            (Asked::Fetch, ResponseBody::Fetch(response)) => self.on_fetch_response(pending, response, now, fx),
            (Asked::WhoLeads, ResponseBody::Fetch(response)) => self.on_who_leads(pending, &response, now, fx),
            (Asked::FetchSnapshot { id, position }, ResponseBody::FetchSnapshot(response)) => {
                self.on_snapshot_response(pending, id, position, response, now, fx);
            }
            (Asked::LeaderEnd, ResponseBody::DescribeQuorum(response)) => self.on_leader_end(pending, &response, now),
            (Asked::ApiVersions { newcomer }, ResponseBody::ApiVersions(response)) => {
                self.on_newcomer_versions(newcomer, Some(&response), now, fx);
            }
            (Asked::UpdateVoter, ResponseBody::UpdateRaftVoter(response)) => {
                self.on_update_response(pending, &response, now, fx);
            }
            (Asked::AddVoter, ResponseBody::AddRaftVoter(_))
            | (Asked::RemoveVoter, ResponseBody::RemoveRaftVoter(_)) => {
                // Whatever came of it shows in the voter set; the next period looks again.
            }
            _ => self.on_failed(pending, SendError::Malformed, now, fx),
        }
    }

    pub(super) fn on_failed(&mut self, pending: &Pending, error: SendError, now: Now, fx: &mut Effects) {
        match pending.asked {
            Asked::Vote { voter, is_pre_vote } if error == SendError::UnsupportedVersion && is_pre_vote => {
                self.on_vote_failure(pending, voter.id, ErrorCode::UnsupportedVersion.code(), now, fx);
            }
            Asked::ApiVersions { newcomer } => self.on_newcomer_versions(newcomer, None, now, fx),
            Asked::UpdateVoter if error == SendError::UnsupportedVersion => {
                if let State::Follower(follower) = &mut self.state {
                    follower.has_updated = true;
                }
            }
            Asked::Fetch | Asked::FetchSnapshot { .. }
                if error == SendError::Refused && pending.to.node_id.is_some_and(|id| Some(id) == self.leader_id()) =>
            {
                self.on_leader_refused(now);
                self.back_off(pending, now);
            }
            _ => self.back_off(pending, now),
        }
    }

    /// The rules that hold for the partition-level error, epoch and leader of every answer.
    pub(super) fn common_answer(&mut self, error: i16, told: &LeaderInfo, now: Now, fx: &mut Effects) -> Outcome {
        if told.epoch < self.epoch || error == ErrorCode::UnknownLeaderEpoch.code() {
            return Outcome::Done;
        }
        let was = (self.epoch, self.leader_id());
        let endpoints: Endpoints =
            told.endpoint.iter().map(|e| (self.config.default_listener.clone(), e.clone())).collect();
        let is_newer = told.epoch > self.epoch;
        if !self.learn(told, endpoints.clone(), now, fx) {
            // Two leaders in one epoch: somebody is wrong, and it is not for an answer to decide who.
            return Outcome::BackOff;
        }
        if told.leader_id == self.leader_id() && self.is_leader_out_of_reach(now) {
            self.find_leader_at(endpoints);
        }
        let is_superseded = is_newer || was != (self.epoch, self.leader_id());
        match ErrorCode::from_code(error) {
            Some(ErrorCode::None) if is_newer => Outcome::Done,
            Some(ErrorCode::None) => Outcome::Proceed,
            _ if is_superseded => Outcome::Done,
            // Also of who names itself and leads no longer: until there is another leader it answers each time the same.
            _ => Outcome::BackOff,
        }
    }
}
