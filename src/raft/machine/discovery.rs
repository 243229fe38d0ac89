//! Asking others who leads: with a Fetch, as Kafka does it, whose answer names the leader whoever gives it.
//!
//! A node that knows no leader asks one server after the other, and doesn't wait long for one that hangs. An observer
//! does the same while its leader is silent: voters notice by their fetch timeout and elect another one, of which
//! nobody tells observers.

use ringlog_protocol::messages::FetchResponse;
use ringlog_types::{MonotonicMs, Now};

use super::Raft;
use super::requests::{Asked, Pending};
use super::responses::Outcome;
use super::state::State;
use super::wire;
use crate::effects::{Destination, Effects};

/// A server that has not answered for so long doesn't keep us from asking another one.
const PATIENCE_MS: u64 = 500;
/// A leader holds a fetch for its longest wait; so long after that its silence is strange.
const SILENCE_MS: u64 = 500;
/// An observer whose leader is silent asks others so often.
const OBSERVER_INTERVAL_MS: u64 = 250;

impl Raft {
    /// Asks a random server, unless one is being asked.
    pub(super) fn ask_who_leads(&mut self, now: Now, fx: &mut Effects) {
        // Who is asked may turn out to be the leader, and the position acknowledges.
        let is_settled = self.log.flushed == self.log.end && self.installing.is_none();
        let since = self.requests.youngest(|asked| matches!(asked, Asked::WhoLeads));
        if !is_settled || since.is_some_and(|since| now.monotonic.since_ms(since) < PATIENCE_MS) {
            return;
        }
        let mut servers = self.servers();
        servers.retain(|to| self.requests.is_ready(to, now.monotonic));
        if servers.is_empty() {
            return;
        }
        let chosen = self.random.below(servers.len() as u64) as usize;
        let request = wire::fetch_request(&self.config, &self.fetch_position());
        self.send(servers.swap_remove(chosen), Asked::WhoLeads, request, now, fx);
    }

    /// Whoever may know the leader, without this node and the leader itself.
    fn servers(&self) -> Vec<Destination> {
        let listener = &self.config.default_listener;
        let own = self.config.endpoints.get(listener);
        let leader = self.leader.as_ref().and_then(|leader| leader.endpoints.get(listener));
        let bootstrap = self.config.bootstrap_servers.iter();
        let servers: Vec<Destination> = bootstrap
            .filter(|endpoint| Some(*endpoint) != own && Some(*endpoint) != leader)
            .map(|endpoint| Destination { node_id: None, endpoint: endpoint.clone() })
            .collect();
        if !servers.is_empty() {
            return servers;
        }
        let others = self.voters().iter().map(|voter| voter.key.id);
        let others = others.filter(|id| *id != self.config.node_id && Some(*id) != self.leader_id());
        others.filter_map(|id| self.voter_destination(id)).collect()
    }

    /// Nothing answers where the leader is known to be.
    pub(super) fn is_leader_out_of_reach(&self, now: Now) -> bool {
        let leader = self.leader.as_ref();
        let to = leader.and_then(|leader| wire::leader_destination(leader, &self.config.default_listener));
        to.is_some_and(|to| self.requests.is_backing_off(&to, now.monotonic))
    }

    /// As an observer that awaits its leader's answer: when to ask others.
    pub(super) fn doubts_leader_from(&self) -> Option<MonotonicMs> {
        let State::Follower(follower) = &self.state else { return None };
        if self.is_voter() {
            return None;
        }
        let asked = self.requests.youngest(|asked| matches!(asked, Asked::Fetch | Asked::FetchSnapshot { .. }))?;
        let silent_from = asked.plus_ms(u64::from(self.config.fetch_max_wait_ms) + SILENCE_MS);
        Some(follower.asked_others_at.map_or(silent_from, |at| silent_from.max(at.plus_ms(OBSERVER_INTERVAL_MS))))
    }

    /// Asks others when the leader has been silent for long enough.
    pub(super) fn poll_doubts(&mut self, now: Now, fx: &mut Effects) {
        if self.doubts_leader_from().is_some_and(|from| from <= now.monotonic) {
            self.ask_who_leads(now, fx);
            if let State::Follower(follower) = &mut self.state {
                follower.asked_others_at = Some(now.monotonic);
            }
        }
    }

    /// When a server that was asked who leads has been silent for long enough.
    pub(super) fn patience_ends(&self) -> Option<MonotonicMs> {
        self.requests.youngest(|asked| matches!(asked, Asked::WhoLeads)).map(|asked| asked.plus_ms(PATIENCE_MS))
    }

    /// The answer counts for its epoch and leader alone: records mean nothing from anyone but the leader, who is asked
    /// again as such.
    pub(super) fn on_who_leads(&mut self, pending: &Pending, response: &FetchResponse, now: Now, fx: &mut Effects) {
        let read = wire::read_fetch_response(response).filter(|_| response.error_code == 0);
        let Some((partition, leader)) = read else { return self.back_off(pending, now) };
        if leader.leader_id.is_none() && leader.epoch == self.epoch {
            self.on_leaderless_answer(&pending.to, now);
        }
        let before = (self.epoch, self.leader_id());
        let outcome = self.common_answer(partition.error_code, &leader, now, fx);
        // Who told nothing new is left alone for a while.
        if outcome == Outcome::BackOff || before == (self.epoch, self.leader_id()) {
            self.back_off(pending, now);
        }
    }
}
