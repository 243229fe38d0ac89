//! Vote and PreVote, both sides (KIP-595, KIP-853, KIP-996).

use ringlog_protocol::messages::{VoteRequest, VoteResponse};
use ringlog_types::{ErrorCode, LeaderEpoch, NodeId, Now, Offset};

use super::Raft;
use super::fetch_server::Asker;
use super::requests::Pending;
use super::responses::Outcome;
use super::state::State;
use super::wire;
use crate::effects::Effects;
use crate::voters::ReplicaKey;

impl Raft {
    pub(super) fn on_vote_request(&mut self, from: &Asker, request: &VoteRequest, now: Now, fx: &mut Effects) {
        let response = self.answer_vote(from, request, now, fx);
        self.reply(from.token, response, fx);
    }

    fn answer_vote(&mut self, from: &Asker, request: &VoteRequest, now: Now, fx: &mut Effects) -> VoteResponse {
        if self.is_foreign_cluster(request.cluster_id.as_deref()) {
            return wire::vote_failure(ErrorCode::InconsistentClusterId);
        }
        let Some(asked) = wire::vote_partition(request) else {
            return wire::vote_failure(ErrorCode::InvalidRequest);
        };
        let refuse = |raft: &Raft, error| wire::vote_response(&raft.leader_info(&from.listener), error, false);
        let is_impossible_epoch = if asked.pre_vote {
            asked.last_offset_epoch > asked.replica_epoch
        } else {
            asked.last_offset_epoch >= asked.replica_epoch
        };
        if asked.last_offset < 0 || asked.last_offset_epoch < 0 || asked.replica_epoch < 0 || is_impossible_epoch {
            return refuse(self, ErrorCode::InvalidRequest);
        }
        if asked.replica_epoch < self.epoch.0 {
            return refuse(self, ErrorCode::FencedLeaderEpoch);
        }
        if asked.replica_id < 0 {
            return refuse(self, ErrorCode::InvalidRequest);
        }
        if asked.replica_epoch > self.epoch.0 {
            self.become_unattached(LeaderEpoch(asked.replica_epoch), now, fx);
        }
        if !self.is_addressee(request.voter_id, asked.voter_directory_id) {
            return refuse(self, ErrorCode::InvalidVoterKey);
        }
        let asker = ReplicaKey::from_wire(asked.replica_id, asked.replica_directory_id);
        let is_fresh = self.is_fresh(asked.last_offset_epoch, asked.last_offset);
        let may_vote = self.may_vote_for(LeaderEpoch(asked.last_offset_epoch), Offset(asked.last_offset));
        let is_granted = may_vote
            && if asked.pre_vote {
                self.grants_pre_vote(is_fresh, now)
            } else {
                self.grant_vote(asker, is_fresh, now, fx)
            };
        wire::vote_response(&self.leader_info(&from.listener), ErrorCode::None, is_granted)
    }

    /// Whether a request meant for that voter reached the right node and directory; older versions don't say.
    pub(super) fn is_addressee(&self, voter_id: i32, directory_id: ringlog_types::Uuid) -> bool {
        voter_id < 0
            || voter_id == self.config.node_id.0 && (directory_id.is_zero() || directory_id == self.config.directory_id)
    }

    /// Whether we would vote, if it came to that. Changes nothing.
    fn grants_pre_vote(&self, is_fresh: bool, now: Now) -> bool {
        match &self.state {
            State::Leader(_) => false,
            // Who is in touch with its leader doesn't help to replace it. Time alone ends that for an observer, which others
            // may count among the voters: it stands in no election.
            State::Follower(follower) => {
                let is_in_touch = follower.has_fetched && follower.fetch_deadline > now.monotonic;
                is_fresh && (!is_in_touch || self.suspects_leader())
            }
            State::Unattached { .. } | State::Prospective(_) | State::Candidate(_) | State::Resigned(_) => is_fresh,
        }
    }

    /// One vote per epoch.
    fn grant_vote(&mut self, asker: ReplicaKey, is_fresh: bool, now: Now, fx: &mut Effects) -> bool {
        let has_leader = self.leader.is_some();
        let (State::Unattached { .. } | State::Prospective(_)) = &self.state else { return false };
        if let Some(voted) = self.voted {
            return voted.id == asker.id && (voted.directory_id.is_none() || voted.directory_id == asker.directory_id);
        }
        if has_leader || !is_fresh {
            return false;
        }
        self.voted = Some(asker);
        self.end_blankness(fx);
        let deadline = self.new_election_deadline(now);
        match &mut self.state {
            State::Unattached { election_deadline } => *election_deadline = deadline,
            State::Prospective(election) => election.deadline = deadline,
            _ => {}
        }
        true
    }

    pub(super) fn on_vote_response(
        &mut self,
        pending: &Pending,
        voter: ReplicaKey,
        response: &VoteResponse,
        now: Now,
        fx: &mut Effects,
    ) {
        if response.error_code != 0 {
            return self.on_vote_failure(pending, voter.id, response.error_code, now, fx);
        }
        let Some((error, leader, is_granted)) = wire::read_vote_response(response) else {
            return self.back_off(pending, now);
        };
        match self.common_answer(error, &leader, now, fx) {
            Outcome::Proceed => {}
            Outcome::Done => return,
            Outcome::BackOff => return self.back_off(pending, now),
        }
        if let State::Prospective(election) | State::Candidate(election) = &mut self.state
            && pending.epoch == self.epoch
        {
            election.record(voter.id, is_granted, now.monotonic);
            self.check_election(now, fx);
        }
    }

    /// A top-level error, or no answer.
    pub(super) fn on_vote_failure(&mut self, pending: &Pending, voter: NodeId, error: i16, now: Now, fx: &mut Effects) {
        if error == ErrorCode::UnsupportedVersion.code()
            && matches!(self.state, State::Prospective(_))
            && self.voters().get(voter).is_some()
        {
            // A voter without PreVote: stand at once, or the quorum could never elect anybody.
            return self.become_candidate(now, fx);
        }
        self.back_off(pending, now);
    }
}
