//! From one state to another.

use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, NodeId, Now, Offset};

use super::Raft;
use super::leader::Leader;
use super::state::{Election, Follower, KnownLeader, Resigned, State};
use super::wire::LeaderInfo;
use crate::control_records::ControlRecord;
use crate::effects::{Destination, Effects};
use crate::voters::{Endpoints, VersionRange, Voter};

/// After the leader's process has gone: the first follower stands so much later, when the others have seen it, too.
const FIRST_STANDS_MS: u64 = 10;
/// The next one so much after it: time for an election.
const NEXT_STANDS_MS: u64 = 100;

impl Raft {
    /// When this voter stands if it needn't wait: each voter after the one before it.
    fn stands_soon(&self, now: Now) -> MonotonicMs {
        let leader_id = self.leader_id();
        let others = self.voters().iter().filter(|voter| Some(voter.key.id) != leader_id);
        let rank = others.take_while(|voter| voter.key.id < self.config.node_id).count() as u64;
        now.monotonic.plus_ms(FIRST_STANDS_MS + rank * NEXT_STANDS_MS)
    }

    pub(super) fn new_election_deadline(&mut self, now: Now) -> MonotonicMs {
        let timeout_ms = self.config.election_timeout_ms;
        now.monotonic.plus_ms(timeout_ms + self.random.below(timeout_ms))
    }

    /// ×1.5 of the fetch timeout: a leader whom no majority asks for so long gives up.
    pub(super) fn check_quorum_ms(&self) -> u64 {
        self.config.fetch_timeout_ms * 3 / 2
    }

    /// Every transition passes here: connections start anew, and a leader's debts are settled.
    fn enter(&mut self, state: State, fx: &mut Effects) {
        let was_leader = self.is_leader();
        let old = std::mem::replace(&mut self.state, state);
        self.requests.reset();
        self.leaderless.clear();
        if let State::Follower(Follower { download: Some(download), .. }) = &old {
            self.paused_download = Some(*download);
        }
        if self.is_leader() {
            self.forget_paused_download(fx);
        }
        if was_leader {
            self.waiting.parked.wake_all();
            if let State::Leader(leader) = old
                && let Some(change) = leader.change
            {
                self.reply_change(change, ErrorCode::NotLeaderOrFollower, fx);
            }
        }
        if self.leader_id().is_some_and(|id| id != self.config.node_id) {
            self.is_handing_over = false;
        }
    }

    /// At `epoch`, following nobody. In the same epoch vote and leader stay.
    pub(super) fn become_unattached(&mut self, epoch: LeaderEpoch, now: Now, fx: &mut Effects) {
        debug_assert!(epoch >= self.epoch);
        // An election timer that runs goes on, so that rivals with ever higher epochs can't keep us from standing.
        let election_deadline = match &self.state {
            State::Unattached { election_deadline } => *election_deadline,
            State::Candidate(election) => election.deadline,
            State::Prospective(election) if !election.is_lost() && election.deadline > now.monotonic => {
                election.deadline
            }
            State::Resigned(resigned) => resigned.deadline,
            State::Prospective(_) | State::Follower(_) | State::Leader(_) => self.new_election_deadline(now),
        };
        if epoch > self.epoch {
            self.epoch = epoch;
            self.voted = None;
            self.leader = None;
        }
        self.enter(State::Unattached { election_deadline }, fx);
    }

    pub(super) fn become_follower(&mut self, epoch: LeaderEpoch, leader: KnownLeader, now: Now, fx: &mut Effects) {
        debug_assert!(epoch >= self.epoch && leader.id != self.config.node_id);
        if epoch > self.epoch {
            self.epoch = epoch;
            self.voted = None;
        }
        if self.leader.as_ref().is_some_and(|known| known.endpoints != leader.endpoints) {
            // Of a leader that was read from quorum-state only the id may have been known: who forwards to it has to hear.
            self.announced = None;
        }
        self.leader = Some(leader);
        let follower = Follower {
            fetch_deadline: now.monotonic.plus_ms(self.config.fetch_timeout_ms),
            has_fetched: false,
            download: None,
            membership_check_at: now.monotonic.plus_ms(self.config.fetch_timeout_ms),
            has_updated: false,
            asked_others_at: None,
        };
        self.rebuild_from_new_leader();
        self.enter(State::Follower(follower), fx);
    }

    /// Whether this node's log may decide about a candidate whose log ends there: what it says is all that this node
    /// ever acknowledged; or nobody in that election has ever had a record.
    pub(super) fn may_vote_for(&self, last_epoch: LeaderEpoch, end_offset: Offset) -> bool {
        let is_empty = |epoch: LeaderEpoch, end: Offset| (epoch, end) == (LeaderEpoch(0), Offset(0));
        let (own_epoch, own_end) = self.last_epoch_and_end();
        self.rebuilding.is_none() || self.is_blank && is_empty(own_epoch, own_end) && is_empty(last_epoch, end_offset)
    }

    /// Whether this node may ask for votes, as far as its log is concerned.
    pub(super) fn may_stand(&self) -> bool {
        let (last_epoch, end) = self.last_epoch_and_end();
        self.may_vote_for(last_epoch, end)
    }

    /// Whether the leader's process seems to be gone.
    pub(super) fn suspects_leader(&self) -> bool {
        self.suspected == Some(self.epoch)
    }

    /// A peer that was asked knows of no leader in this epoch either. When a majority is without one, as after a start
    /// of all, nobody needs to wait for a leader to show: this voter stands soon. Not after it gave its vote to
    /// somebody, who may be about to win.
    pub(super) fn on_leaderless_answer(&mut self, from: &Destination, now: Now) {
        let listener = &self.config.default_listener;
        let voter = self.voters().iter().find(|voter| voter.endpoints.get(listener) == Some(&from.endpoint));
        let Some(id) = voter.map(|voter| voter.key.id).filter(|id| *id != self.config.node_id) else { return };
        if self.leader.is_some() || self.voted.is_some() || !matches!(self.state, State::Unattached { .. }) {
            return;
        }
        self.leaderless.insert(id);
        let stand_at = self.stands_soon(now);
        if self.leaderless.len() + 1 == self.voters().majority()
            && let State::Unattached { election_deadline } = &mut self.state
        {
            *election_deadline = stand_at.min(*election_deadline);
        }
    }

    /// Nothing listens any more where the leader did. A follower needn't wait for its fetch timeout then: it stands
    /// soon, each after the one before it, so that they don't split the votes. Pre-votes see to it that nothing
    /// happens if only the way from here to the leader is broken. Once per epoch, until the leader answers again.
    pub(super) fn on_leader_refused(&mut self, now: Now) {
        if self.suspects_leader() || !self.is_voter() {
            return;
        }
        self.suspected = Some(self.epoch);
        let stand_at = self.stands_soon(now);
        if let State::Follower(follower) = &mut self.state {
            follower.fetch_deadline = follower.fetch_deadline.min(stand_at);
        }
    }

    pub(super) fn become_prospective(&mut self, now: Now, fx: &mut Effects) {
        let deadline = self.new_election_deadline(now);
        let election = Election::new(self.voters().clone(), self.config.node_id, deadline, now.monotonic);
        self.enter(State::Prospective(election), fx);
        self.check_election(now, fx);
    }

    pub(super) fn become_candidate(&mut self, now: Now, fx: &mut Effects) {
        let Some(next_epoch) = self.epoch.0.checked_add(1) else {
            // A peer brought the last epoch there is; nobody can be elected any more.
            return self.become_unattached(self.epoch, now, fx);
        };
        self.epoch = LeaderEpoch(next_epoch);
        self.voted = Some(self.key());
        self.leader = None;
        let deadline = self.new_election_deadline(now);
        let election = Election::new(self.voters().clone(), self.config.node_id, deadline, now.monotonic);
        self.enter(State::Candidate(election), fx);
        self.check_election(now, fx);
    }

    /// After a vote came in: on to the next state once there is a majority.
    pub(super) fn check_election(&mut self, now: Now, fx: &mut Effects) {
        match &self.state {
            State::Prospective(election) if election.is_won() => self.become_candidate(now, fx),
            State::Candidate(election) if election.is_won() => {
                let granting = election.granting();
                self.become_leader(granting, now, fx);
            }
            _ => {}
        }
    }

    /// No majority in a pre-vote: back to where the asking began.
    pub(super) fn leave_lost_prospect(&mut self, now: Now, fx: &mut Effects) {
        match self.leader.clone().filter(|leader| leader.id != self.config.node_id) {
            Some(leader) if leader.endpoints.contains_key(&self.config.default_listener) => {
                self.become_follower(self.epoch, leader, now, fx);
            }
            _ => self.become_unattached(self.epoch, now, fx),
        }
    }

    fn become_leader(&mut self, granting_ids: Vec<NodeId>, now: Now, fx: &mut Effects) {
        self.leader = Some(KnownLeader { id: self.config.node_id, endpoints: self.config.endpoints.clone() });
        self.voted = None;
        let check_quorum_ms = self.check_quorum_ms();
        let leader = Leader::new(self.voters(), self.log.end, now.monotonic, check_quorum_ms);
        self.enter(State::Leader(Box::new(leader)), fx);
        self.end_blankness(fx);
        let change = ControlRecord::LeaderChange {
            leader_id: self.config.node_id,
            voter_ids: self.voters().iter().map(|voter| voter.key.id).collect(),
            granting_ids,
        };
        let mut records = vec![change];
        if let Some(voters) = self.voters_to_record() {
            records.push(ControlRecord::KRaftVersion(self.kraft_version()));
            records.push(ControlRecord::Voters(voters));
        }
        self.append_control(records, now, fx);
        if self.is_shutting_down {
            // The votes came late: the others needn't wait to find that out.
            self.hand_over(now, fx);
        }
    }

    /// The voter set that a new leader has to write, if it has to: nothing but the bootstrap snapshot names it yet,
    /// or our own entry is out of date.
    fn voters_to_record(&self) -> Option<crate::VoterSet> {
        if self.kraft_version() == 0 {
            return None;
        }
        let own = self.own_voter();
        let voters = self.voters().updated(own).unwrap_or_else(|| self.voters().clone());
        let is_only_bootstrap = self.history.voters_offset().is_none_or(|offset| offset.0 < 0);
        (is_only_bootstrap || voters != *self.voters()).then_some(voters)
    }

    /// This node's entry as it should stand in the voter set.
    pub(super) fn own_voter(&self) -> Voter {
        let known = self.voters().get(self.config.node_id).map(|voter| voter.endpoints.clone());
        let endpoints =
            if self.config.endpoints.is_empty() { known.unwrap_or_default() } else { self.config.endpoints.clone() };
        Voter { key: self.key(), endpoints, kraft_version: VersionRange::SUPPORTED }
    }

    /// Gives up leadership and tells the voters.
    pub(super) fn resign(&mut self, now: Now, fx: &mut Effects) {
        let State::Leader(leader) = &self.state else { return };
        let preferred = leader.successors(self.config.node_id);
        let unacknowledged =
            self.voters().iter().map(|voter| voter.key).filter(|key| key.id != self.config.node_id).collect();
        let deadline = self.new_election_deadline(now);
        self.enter(State::Resigned(Resigned { deadline, unacknowledged, preferred }), fx);
    }

    pub(super) fn on_shut_down(&mut self, now: Now, fx: &mut Effects) {
        self.is_shutting_down = true;
        if self.is_leader() {
            self.hand_over(now, fx);
        }
    }

    fn hand_over(&mut self, now: Now, fx: &mut Effects) {
        self.is_handing_over = self.voters().len() > 1;
        self.drain_open_batch(now, fx);
        self.resign(now, fx);
    }

    /// What a peer says about an epoch that isn't below ours. `false`: it contradicts what is known (two leaders in
    /// one epoch, or us as a leader that we never were); nothing changed then.
    pub(super) fn learn(&mut self, told: &LeaderInfo, endpoints: Endpoints, now: Now, fx: &mut Effects) -> bool {
        if told.epoch < self.epoch {
            return true;
        }
        let is_new = told.epoch > self.epoch;
        let known = self.leader.clone().filter(|_| !is_new);
        match (told.leader_id, &known) {
            (Some(id), Some(known)) if id != known.id => return false,
            (Some(id), None) if id == self.config.node_id => return false,
            _ => {}
        }
        let Some(id) = told.leader_id.filter(|id| *id != self.config.node_id) else {
            if is_new {
                self.become_unattached(told.epoch, now, fx);
            }
            return true;
        };
        let endpoints = if endpoints.is_empty() {
            self.voters().get(id).map(|voter| voter.endpoints.clone()).unwrap_or_default()
        } else {
            endpoints
        };
        let is_reachable = endpoints.contains_key(&self.config.default_listener);
        let is_better = known.is_none_or(|known| known.endpoints.len() < endpoints.len());
        if is_reachable && is_better {
            self.become_follower(told.epoch, KnownLeader { id, endpoints }, now, fx);
        } else if is_new {
            // The leader can't be reached: keep asking bootstrap servers.
            self.become_unattached(told.epoch, now, fx);
        }
        true
    }

    /// The leader listens elsewhere than was known, since it started again: what is awaited from there won't come.
    pub(super) fn find_leader_at(&mut self, endpoints: Endpoints) {
        let listener = &self.config.default_listener;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.id != self.config.node_id) else { return };
        if !endpoints.contains_key(listener) || endpoints.get(listener) == leader.endpoints.get(listener) {
            return;
        }
        leader.endpoints = endpoints;
        self.announced = None;
        if matches!(self.state, State::Follower(_)) {
            self.requests.reset();
        }
    }

    /// What answers say about the leader, with its endpoint on the asker's listener. A leader of whom only the id is
    /// known isn't named: Kafka can't bear that unless its voter set knows the rest.
    pub(super) fn leader_info(&self, listener: &str) -> LeaderInfo {
        let endpoint = self.leader.as_ref().and_then(|leader| {
            leader.endpoints.get(listener).or_else(|| self.voters().endpoint(leader.id, listener)).cloned()
        });
        LeaderInfo { epoch: self.epoch, leader_id: self.leader_id().filter(|_| endpoint.is_some()), endpoint }
    }

    /// Kafka's first check of nearly every request.
    pub(super) fn is_foreign_cluster(&self, cluster_id: Option<&str>) -> bool {
        cluster_id.is_some_and(|id| id != self.config.cluster_id)
    }
}
