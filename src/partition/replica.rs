//! What a leader knows of a follower, learnt from its fetches.

use ringlog_types::{BrokerEpoch, MonotonicMs, NodeId, Offset};

/// A follower's fetch as the leader takes note of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Which follower.
    pub replica: NodeId,
    /// Its log end: the offset it asks for.
    pub fetch_offset: Offset,
    /// Its log start.
    pub log_start_offset: Offset,
    /// The registration it fetches with, -1 for "not said".
    pub broker_epoch: BrokerEpoch,
    /// Metadata shows it unfenced, not shutting down, and with this same broker epoch (or it gave none).
    pub eligible_for_isr: bool,
}

/// A follower in the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteReplica {
    /// Which follower.
    pub replica: NodeId,
    /// Its log end at its last fetch, -1 before the first in this leader epoch.
    pub log_end_offset: Offset,
    /// Its log start at its last fetch.
    pub log_start_offset: Offset,
    /// Registration of its last fetch.
    pub broker_epoch: BrokerEpoch,
    /// Whether it may enter the ISR by what metadata says.
    pub eligible_for_isr: bool,
    /// When it had all that the leader had.
    pub last_caught_up: Option<MonotonicMs>,
    /// With which registration it was: what a broker had before it was started anew says nothing about its way from there.
    caught_up_with: BrokerEpoch,
    last_fetch_leader_end: Offset,
    last_fetch: Option<MonotonicMs>,
}

impl RemoteReplica {
    /// A follower that has not fetched yet.
    pub fn new(replica: NodeId) -> RemoteReplica {
        RemoteReplica {
            replica,
            log_end_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            broker_epoch: BrokerEpoch::NONE,
            eligible_for_isr: true,
            last_caught_up: None,
            caught_up_with: BrokerEpoch::NONE,
            last_fetch_leader_end: Offset::NONE,
            last_fetch: None,
        }
    }

    /// A new leader epoch: members of the ISR count as caught up now, so that they get a full lag time to fetch.
    pub(crate) fn reset(&mut self, in_sync: bool, leader_end: Offset, now: MonotonicMs) {
        *self = RemoteReplica::new(self.replica);
        if in_sync {
            self.last_caught_up = Some(now);
            self.last_fetch = Some(now);
            self.last_fetch_leader_end = leader_end;
        }
    }

    /// Takes note of a fetch. It counts as caught up now when it asks for the leader's end, and as of its previous
    /// fetch when it asks for what was the end then.
    pub(crate) fn on_fetch(&mut self, fetch: &FollowerFetch, leader_end: Offset, now: MonotonicMs) {
        if fetch.broker_epoch != self.broker_epoch {
            self.last_fetch = None;
        }
        if fetch.fetch_offset >= leader_end {
            self.last_caught_up = Some(now);
            self.caught_up_with = fetch.broker_epoch;
        } else if fetch.fetch_offset >= self.last_fetch_leader_end && self.last_fetch.is_some() {
            self.last_caught_up = self.last_caught_up.max(self.last_fetch);
            self.caught_up_with = fetch.broker_epoch;
        }
        self.log_end_offset = fetch.fetch_offset;
        self.log_start_offset = fetch.log_start_offset;
        self.broker_epoch = fetch.broker_epoch;
        self.eligible_for_isr = fetch.eligible_for_isr;
        self.last_fetch_leader_end = leader_end;
        self.last_fetch = Some(now);
    }

    /// Whether the high watermark waits for it though it isn't in sync, so that it doesn't stay behind for ever: it has been
    /// caught up since its broker registered, and may join. One that comes back within the lag time of its end is waited for
    /// in Kafka too, until it has caught up on whatever it missed: nothing is committed meanwhile.
    pub(crate) fn is_about_to_join(&self, leader_end: Offset, now: MonotonicMs, lag_max_ms: u64) -> bool {
        self.eligible_for_isr
            && self.caught_up_with == self.broker_epoch
            && self.is_caught_up(leader_end, now, lag_max_ms)
    }

    /// Whether it is at the leader's end, or was within the lag time.
    pub fn is_caught_up(&self, leader_end: Offset, now: MonotonicMs, lag_max_ms: u64) -> bool {
        self.log_end_offset >= leader_end || self.last_caught_up.is_some_and(|at| now.since_ms(at) <= lag_max_ms)
    }
}
