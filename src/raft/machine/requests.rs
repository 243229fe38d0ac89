//! Requests on their way: one awaited per destination, timeouts, back-off after failures.
//!
//! Who answers what can't be used is asked again after `controller.quorum.retry.backoff.ms`, and once more who answered
//! before and whose connection was lost. Where no connection comes about, the waits grow as in Kafka's client, and
//! outlast transitions: a peer that isn't there is to cost nothing, however restless the quorum is without it.

use std::collections::BTreeMap;

use ringlog_types::{ExponentialBackoff, LeaderEpoch, MonotonicMs, Random};

use crate::effects::Destination;
use crate::event::RequestToken;
use crate::snapshot_name::SnapshotId;
use crate::voters::{Endpoint, ReplicaKey};

/// What is known of a way is forgotten so long after it was used, or could have been.
const FORGOTTEN_AFTER_MS: u64 = 10_000;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Vote {
        voter: ReplicaKey,
        is_pre_vote: bool,
    },
    BeginQuorumEpoch {
        voter: ReplicaKey,
    },
    EndQuorumEpoch {
        voter: ReplicaKey,
    },
    Fetch,
    /// A Fetch to somebody who may know the leader, or be it.
    WhoLeads,
    FetchSnapshot {
        id: SnapshotId,
        position: u64,
    },
    /// Where the leader's log ends, by DescribeQuorum.
    LeaderEnd,
    /// Of somebody who is to become a voter.
    ApiVersions {
        newcomer: ReplicaKey,
    },
    AddVoter,
    RemoveVoter,
    UpdateVoter,
}

/// A request whose answer is awaited.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub to: Destination,
    pub asked: Asked,
    /// Our epoch when it was sent.
    pub epoch: LeaderEpoch,
    sent_at: MonotonicMs,
    deadline: MonotonicMs,
}

/// What is known of the way to a place.
#[derive(Debug, Clone, Copy)]
struct Connection {
    /// How often in a row connecting has failed, or the connection was lost. None: something was answered.
    failures: u32,
    /// When it may be tried again.
    until: MonotonicMs,
}

/// All requests of this node. Bounded by the number of destinations: voters, bootstrap servers, the leader.
#[derive(Debug, Default)]
pub(super) struct Requests {
    next_token: u64,
    pending: BTreeMap<RequestToken, Pending>,
    backing_off: BTreeMap<Destination, MonotonicMs>,
    connections: BTreeMap<Endpoint, Connection>,
}

impl Requests {
    /// Whether a request may go to `to` now.
    pub fn is_ready(&self, to: &Destination, now: MonotonicMs) -> bool {
        !self.is_awaited(to) && !self.is_backing_off(to, now)
    }

    /// Whether an answer from `to` is awaited.
    pub fn is_awaited(&self, to: &Destination) -> bool {
        self.pending.values().any(|pending| pending.to == *to)
    }

    pub fn is_backing_off(&self, to: &Destination, now: MonotonicMs) -> bool {
        let is_unconnected = || self.connections.get(&to.endpoint).is_some_and(|connection| connection.until > now);
        self.backing_off.get(to).is_some_and(|until| *until > now) || is_unconnected()
    }

    /// Whether an answer of that sort is awaited from anyone.
    pub fn any(&self, mut wanted: impl FnMut(&Asked) -> bool) -> bool {
        self.pending.values().any(|pending| wanted(&pending.asked))
    }

    /// When the last one of that sort was sent that is awaited.
    pub fn youngest(&self, mut wanted: impl FnMut(&Asked) -> bool) -> Option<MonotonicMs> {
        self.pending.values().filter(|pending| wanted(&pending.asked)).map(|pending| pending.sent_at).max()
    }

    /// Notes a request that is sent `now`, and to be given up after `timeout_ms`.
    pub fn begin(
        &mut self,
        to: Destination,
        asked: Asked,
        epoch: LeaderEpoch,
        now: MonotonicMs,
        timeout_ms: u64,
    ) -> RequestToken {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        self.backing_off.remove(&to);
        let deadline = now.plus_ms(timeout_ms);
        self.pending.insert(token, Pending { to, asked, epoch, sent_at: now, deadline });
        token
    }

    /// The request that `token` names, no longer awaited; `None` if it was given up.
    pub fn finish(&mut self, token: RequestToken) -> Option<Pending> {
        self.pending.remove(&token)
    }

    pub fn back_off(&mut self, to: Destination, until: MonotonicMs) {
        self.backing_off.insert(to, until);
    }

    /// There is no connection to that place: it was refused or lost, or this node is a stranger there. One that had
    /// been answering may be tried again at once: how it fails then tells whether its process is gone.
    pub fn on_unconnected(&mut self, to: &Endpoint, now: MonotonicMs, random: &mut Random) {
        let mut wait_ms = |failures| ExponentialBackoff::RECONNECT.wait_ms(failures, random);
        let (failures, wait_ms) = match self.connections.get(to) {
            Some(Connection { failures: 0, .. }) => (1, 0),
            Some(Connection { failures, .. }) => (failures.saturating_add(1), wait_ms(*failures)),
            None => (2, wait_ms(1)),
        };
        self.connections.insert(to.clone(), Connection { failures, until: now.plus_ms(wait_ms) });
    }

    /// Something was answered from there.
    pub fn on_connected(&mut self, to: &Endpoint, now: MonotonicMs) {
        let answering = Connection { failures: 0, until: now };
        match self.connections.get_mut(to) {
            Some(known) => *known = answering,
            None => drop(self.connections.insert(to.clone(), answering)),
        }
    }

    /// Forgets everything that is awaited, as at each transition.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.backing_off.clear();
    }

    /// Takes out those that took too long.
    pub fn expire(&mut self, now: MonotonicMs) -> Vec<Pending> {
        self.backing_off.retain(|_, until| *until > now);
        self.connections.retain(|_, connection| connection.until.plus_ms(FORGOTTEN_AFTER_MS) > now);
        let expired: Vec<_> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(token, _)| *token).collect();
        expired.into_iter().filter_map(|token| self.pending.remove(&token)).collect()
    }

    /// What is next, after `now`.
    pub fn next_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        let pending = self.pending.values().map(|pending| pending.deadline).min();
        let unconnected =
            self.connections.values().map(|connection| connection.until).filter(|until| *until > now).min();
        pending.into_iter().chain(self.backing_off.values().copied().min()).chain(unconnected).min()
    }
}
