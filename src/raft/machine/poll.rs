//! What is due: timers, requests to send, the next deadline.

use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Now};

use super::Raft;
use super::requests::Asked;
use super::state::State;
use super::wire;
use crate::effects::{Destination, Effects};
use crate::event::SendError;
use crate::voters::ReplicaKey;

/// Transitions that one step may go through because of timers; each sets a new timer, so few happen.
const MAX_TRANSITIONS_PER_STEP: usize = 8;

impl Raft {
    pub(super) fn poll(&mut self, now: Now, fx: &mut Effects) {
        for pending in self.requests.expire(now.monotonic) {
            self.on_failed(&pending, SendError::Disconnected, now, fx);
        }
        for _ in 0..MAX_TRANSITIONS_PER_STEP {
            if !self.poll_timers(now, fx) {
                break;
            }
        }
        if self.is_leader() {
            self.poll_leader(now, fx);
        }
        self.answer_parked(now, fx);
        self.send_due(now, fx);
        self.flush_if_due(now, fx);
        self.deadline = self.compute_deadline(now.monotonic);
    }

    /// One transition that a timer or a lost election asks for. Whether there was one.
    fn poll_timers(&mut self, now: Now, fx: &mut Effects) -> bool {
        // A node that is leaving doesn't stand, nor one whose log is just being replaced. Nor does one stand with records
        // that aren't durable: it would keep the votes that it got with them, and lead without them after a power failure.
        let is_settled = self.installing.is_none() && self.log.flushed == self.log.end;
        let may_stand = self.is_voter() && self.may_stand() && !self.is_shutting_down && is_settled;
        let is_past = |deadline: MonotonicMs| deadline <= now.monotonic;
        match &self.state {
            State::Unattached { election_deadline } if may_stand && is_past(*election_deadline) => {
                self.become_prospective(now, fx);
            }
            State::Prospective(election) if election.is_lost() || is_past(election.deadline) => {
                self.leave_lost_prospect(now, fx);
            }
            // Lost or not, the timer is waited out: rivals get time to win.
            State::Candidate(election) if is_past(election.deadline) => self.become_prospective(now, fx),
            State::Follower(follower) if may_stand && is_past(follower.fetch_deadline) => {
                self.become_prospective(now, fx);
            }
            State::Leader(leader) => {
                let lost_quorum = leader.voters.len() > 1 && is_past(leader.check_quorum_deadline);
                if !lost_quorum && !leader.must_resign {
                    return false;
                }
                self.resign(now, fx);
            }
            State::Resigned(resigned) if is_past(resigned.deadline) => {
                let epoch = LeaderEpoch(self.epoch.0.saturating_add(1));
                self.become_unattached(epoch, now, fx);
            }
            _ => return false,
        }
        true
    }

    fn poll_leader(&mut self, now: Now, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else { return };
        leader.observers.expire(now.monotonic);
        if leader.open_batch.as_ref().is_some_and(|open| open.deadline <= now.monotonic) {
            self.drain_open_batch(now, fx);
        }
        self.poll_change(now, fx);
    }

    fn send_due(&mut self, now: Now, fx: &mut Effects) {
        match &mut self.state {
            State::Unattached { .. } => self.ask_who_leads(now, fx),
            State::Prospective(election) => {
                election.ask_again(now.monotonic);
                let voters = election.unanswered();
                self.send_votes(&voters, true, now, fx);
            }
            State::Candidate(election) => {
                let voters = election.unanswered();
                self.send_votes(&voters, false, now, fx);
            }
            State::Follower(_) => self.poll_follower(now, fx),
            State::Leader(_) => self.send_begins(now, fx),
            State::Resigned(resigned) => {
                let (voters, preferred) = (resigned.unacknowledged.clone(), resigned.preferred.clone());
                for voter in voters {
                    if let Some(to) = self.voter_destination(voter.id) {
                        let request = wire::end_request(&self.config, self.epoch, &preferred);
                        self.send(to, Asked::EndQuorumEpoch { voter }, request, now, fx);
                    }
                }
            }
        }
    }

    fn send_votes(&mut self, voters: &[ReplicaKey], is_pre_vote: bool, now: Now, fx: &mut Effects) {
        let (last_epoch, end) = self.last_epoch_and_end();
        for &voter in voters {
            if let Some(to) = self.voter_destination(voter.id) {
                let request = wire::vote_request(&self.config, self.epoch, voter, (last_epoch, end.0), is_pre_vote);
                self.send(to, Asked::Vote { voter, is_pre_vote }, request, now, fx);
            }
        }
    }

    fn send_begins(&mut self, now: Now, fx: &mut Effects) {
        let State::Leader(leader) = &self.state else { return };
        let due: Vec<ReplicaKey> = leader
            .voters
            .values()
            .map(|progress| progress.key)
            .filter(|key| key.id != self.config.node_id)
            .filter(|key| leader.begin_at.get(&key.id).is_none_or(|at| *at <= now.monotonic))
            .collect();
        for voter in due {
            let Some(to) = self.voter_destination(voter.id) else { continue };
            let request = wire::begin_request(&self.config, self.epoch, voter);
            if self.send(to, Asked::BeginQuorumEpoch { voter }, request, now, fx) {
                self.put_off_begin(voter.id, now);
            }
        }
    }

    /// Half a fetch timeout from now is the next BeginQuorumEpoch to a voter: it was just sent one, or fetched.
    pub(super) fn put_off_begin(&mut self, voter: NodeId, now: Now) {
        let at = now.monotonic.plus_ms(self.config.fetch_timeout_ms / 2);
        if let State::Leader(leader) = &mut self.state
            && leader.voters.contains_key(&voter)
        {
            leader.begin_at.insert(voter, at);
        }
    }

    pub(super) fn voter_destination(&self, id: NodeId) -> Option<Destination> {
        let endpoint = self.voters().endpoint(id, &self.config.default_listener)?.clone();
        Some(Destination { node_id: Some(id), endpoint })
    }

    fn compute_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        if self.waiting.parked.has_due() {
            return Some(now);
        }
        let mut deadlines: Vec<MonotonicMs> = self.requests.next_deadline(now).into_iter().collect();
        deadlines.extend(self.waiting.parked.next_deadline());
        deadlines.extend(self.patience_ends());
        deadlines.extend(self.doubts_leader_from());
        match &self.state {
            State::Unattached { election_deadline } if self.is_voter() => deadlines.push(*election_deadline),
            State::Unattached { .. } => {}
            State::Prospective(election) => {
                deadlines.push(election.deadline);
                deadlines.extend(election.next_asked_again());
            }
            State::Candidate(election) => deadlines.push(election.deadline),
            State::Follower(follower) => {
                if self.is_voter() {
                    deadlines.push(follower.fetch_deadline);
                }
                deadlines.push(follower.membership_check_at);
            }
            State::Leader(leader) => {
                if leader.voters.len() > 1 {
                    deadlines.push(leader.check_quorum_deadline);
                    deadlines.extend(leader.begin_at.values());
                }
                deadlines.extend(leader.open_batch.as_ref().map(|open| open.deadline));
                deadlines.extend(leader.change.as_ref().map(|change| change.deadline));
            }
            State::Resigned(resigned) => deadlines.push(resigned.deadline),
        }
        // What is past and still here waits for something else than time.
        deadlines.into_iter().filter(|deadline| *deadline > now).min()
    }
}
