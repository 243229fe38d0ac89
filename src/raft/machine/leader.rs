//! What a leader knows of the others: how far each has fetched, and when.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringlog_types::{MonotonicMs, NodeId, Now, Offset, TimestampMs};

use super::membership::PendingChange;
use super::observers::Observers;
use crate::voters::{ReplicaKey, Voter, VoterSet};

/// One replica's progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub key: ReplicaKey,
    /// Log end offset; `None`: no fetch in this epoch.
    pub end_offset: Option<Offset>,
    pub last_fetch: Option<Now>,
    /// When it last had all that the leader had.
    pub last_caught_up: TimestampMs,
    /// The leader's end at the last fetch.
    leader_end_at_last_fetch: Option<Offset>,
}

impl Progress {
    pub fn new(key: ReplicaKey) -> Progress {
        Progress {
            key,
            end_offset: None,
            last_fetch: None,
            last_caught_up: TimestampMs::NONE,
            leader_end_at_last_fetch: None,
        }
    }

    /// Whether a voter is that replica: one whose directory isn't known is, by its id.
    fn is_of(&self, key: ReplicaKey) -> bool {
        self.key.directory_id.is_none() || self.key.directory_id == key.directory_id
    }

    /// It has everything below `offset`, and no more, whatever it said before: its disk may have been replaced.
    pub fn on_fetch(&mut self, offset: Offset, leader_end: Offset, now: Now) {
        if offset >= leader_end {
            self.last_caught_up = now.wall;
        } else if let (Some(end), Some(last)) = (self.leader_end_at_last_fetch, self.last_fetch)
            && offset >= end
        {
            self.last_caught_up = last.wall;
        }
        self.leader_end_at_last_fetch = Some(leader_end);
        self.end_offset = Some(offset);
        self.last_fetch = Some(now);
    }
}

/// Proposals that wait for their batch to be written.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub first_offset: Offset,
    pub records: Vec<Bytes>,
    /// The batch's bytes.
    pub size: usize,
    pub deadline: MonotonicMs,
}

/// State of a leader.
#[derive(Debug)]
pub(super) struct Leader {
    pub epoch_start: Offset,
    /// First known when this epoch's first record is on a majority.
    pub high_watermark: Option<Offset>,
    pub voters: BTreeMap<NodeId, Progress>,
    pub observers: Observers,
    /// When each voter gets its next BeginQuorumEpoch.
    pub begin_at: BTreeMap<NodeId, MonotonicMs>,
    /// Voters heard of since the check-quorum timer was set.
    pub heard: BTreeSet<NodeId>,
    pub check_quorum_deadline: MonotonicMs,
    pub open_batch: Option<OpenBatch>,
    pub change: Option<PendingChange>,
    /// Directory ids and versions that voters told while `kraft.version` is 0.
    pub reported_voters: BTreeMap<NodeId, Voter>,
    /// A committed record took this node out of the voter set.
    pub must_resign: bool,
}

impl Leader {
    /// A new leader of `voters`, its log ending at `epoch_start`.
    pub fn new(voters: &VoterSet, epoch_start: Offset, now: MonotonicMs, check_quorum_ms: u64) -> Leader {
        Leader {
            epoch_start,
            high_watermark: None,
            voters: voters.iter().map(|voter| (voter.key.id, Progress::new(voter.key))).collect(),
            observers: Observers::default(),
            begin_at: BTreeMap::new(),
            heard: BTreeSet::new(),
            check_quorum_deadline: now.plus_ms(check_quorum_ms),
            open_batch: None,
            change: None,
            reported_voters: BTreeMap::new(),
            must_resign: false,
        }
    }

    /// Takes over a changed voter set: who left becomes an observer, who came brings what it had as one. Of the new set
    /// a majority must be heard by `check_quorum_deadline`: whoever led alone has heard nobody so far.
    pub fn set_voters(&mut self, voters: &VoterSet, check_quorum_deadline: MonotonicMs) {
        self.heard.clear();
        self.check_quorum_deadline = check_quorum_deadline;
        let mut old = std::mem::take(&mut self.voters);
        for voter in voters.iter() {
            let known = old
                .get(&voter.key.id)
                .filter(|progress| voter.key.directory_id.is_none() || progress.key == voter.key)
                .copied()
                .or_else(|| self.observers.get(&voter.key).copied());
            if known.is_some() {
                old.remove(&voter.key.id);
                self.observers.remove(&voter.key);
            }
            let progress = known.map_or_else(|| Progress::new(voter.key), |p| Progress { key: voter.key, ..p });
            self.voters.insert(voter.key.id, progress);
        }
        old.into_values().for_each(|progress| self.observers.insert(progress));
        self.begin_at.retain(|id, _| voters.get(*id).is_some());
    }

    /// Whether `key` is one of the voters; a voter whose directory isn't known is one by its id.
    fn voter_mut(&mut self, key: ReplicaKey) -> Option<&mut Progress> {
        self.voters.get_mut(&key.id).filter(|progress| progress.is_of(key))
    }

    /// A valid fetch: the position is the acknowledgement.
    pub fn on_fetch(&mut self, key: ReplicaKey, offset: Offset, leader_end: Offset, now: Now) {
        match self.voter_mut(key) {
            Some(progress) => progress.on_fetch(offset, leader_end, now),
            None => self.observers.on_fetch(key, offset, leader_end, now),
        }
    }

    /// A voter's log can't be continued where it says that it ends: it has no more than that, whatever it said before.
    pub fn on_shorter_log(&mut self, key: ReplicaKey, end_offset: Offset) {
        if let Some(progress) = self.voter_mut(key) {
            progress.end_offset = progress.end_offset.map(|known| known.min(end_offset));
        }
    }

    /// Whether that replica votes.
    pub fn is_voter(&self, key: ReplicaKey) -> bool {
        self.voters.get(&key.id).is_some_and(|progress| progress.is_of(key))
    }

    /// Our own durable log end.
    pub fn on_own_end(&mut self, key: ReplicaKey, flushed: Offset) {
        if let Some(progress) = self.voter_mut(key) {
            progress.end_offset = Some(flushed);
        }
    }

    /// A voter is alive and follows: sets the check-quorum timer anew once a majority was heard of.
    pub fn on_heard(&mut self, key: ReplicaKey, own_id: NodeId, now: MonotonicMs, check_quorum_ms: u64) {
        if self.voter_mut(key).is_none() || key.id == own_id {
            return;
        }
        self.heard.insert(key.id);
        let needed = self.voters.len() / 2 + usize::from(!self.voters.contains_key(&own_id));
        if self.heard.len() >= needed {
            self.heard.clear();
            self.check_quorum_deadline = now.plus_ms(check_quorum_ms);
        }
    }

    /// The offset below which everything is on a majority; `None` as long as that isn't above the epoch's start.
    /// Only rises.
    pub fn update_high_watermark(&mut self) -> Option<Offset> {
        let mut ends: Vec<Offset> =
            self.voters.values().map(|progress| progress.end_offset.unwrap_or(Offset::NONE)).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        // An offset above the epoch's start: only then is a record of this epoch on the majority (Raft, 5.4.2).
        let candidate = ends.get(ends.len() / 2).copied().filter(|end| *end > self.epoch_start)?;
        if self.high_watermark.is_some_and(|known| known >= candidate) {
            return None;
        }
        self.high_watermark = Some(candidate);
        Some(candidate)
    }

    /// The other voters, best informed first.
    pub fn successors(&self, own_id: NodeId) -> Vec<ReplicaKey> {
        let mut others: Vec<&Progress> = self.voters.values().filter(|progress| progress.key.id != own_id).collect();
        others.sort_by_key(|progress| std::cmp::Reverse(progress.end_offset));
        others.into_iter().map(|progress| progress.key).collect()
    }
}
