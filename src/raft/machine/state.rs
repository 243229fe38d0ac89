//! The states of a quorum member and what belongs to each.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Offset};

use super::leader::Leader;
use crate::epochs::LeaderEpochs;
use crate::snapshot_name::SnapshotId;
use crate::voters::{Endpoints, ReplicaKey, VoterSet};

/// See kraft states: which timers run and which requests go out.
#[derive(Debug)]
pub(super) enum State {
    /// Knows the epoch, follows nobody; asks bootstrap servers for the leader.
    Unattached {
        /// When a voter stands for election.
        election_deadline: MonotonicMs,
    },
    /// Asks whether it would win (KIP-996); epoch, vote and leader stay as they are.
    Prospective(Election),
    /// Voted for itself in a new epoch.
    Candidate(Election),
    /// Replicates from the leader.
    Follower(Follower),
    /// Leads.
    Leader(Box<Leader>),
    /// Led, gave up, tells the others so.
    Resigned(Resigned),
}

/// Votes of one election among the voters at its beginning.
#[derive(Debug)]
pub(super) struct Election {
    pub voters: VoterSet,
    /// Granted or not and when, of those who answered.
    votes: BTreeMap<NodeId, (bool, MonotonicMs)>,
    pub deadline: MonotonicMs,
}

/// A refused PreVote is asked for again after this time: who just refused for its leader's sake may meanwhile have
/// lost it, too.
const ASK_AGAIN_MS: u64 = 50;

impl Election {
    pub fn new(voters: VoterSet, own_vote: NodeId, deadline: MonotonicMs, now: MonotonicMs) -> Election {
        Election { voters, votes: BTreeMap::from([(own_vote, (true, now))]), deadline }
    }

    pub fn record(&mut self, id: NodeId, granted: bool, now: MonotonicMs) {
        if self.voters.get(id).is_some() {
            self.votes.insert(id, (granted, now));
        }
    }

    /// Forgets refusals that are old enough to be asked for again. Of a pre-vote only: a refused vote stays refused.
    pub fn ask_again(&mut self, now: MonotonicMs) {
        self.votes.retain(|_, (granted, at)| *granted || at.plus_ms(ASK_AGAIN_MS) > now);
    }

    /// When a refusal will be old enough next.
    pub fn next_asked_again(&self) -> Option<MonotonicMs> {
        self.votes.values().filter(|(granted, _)| !granted).map(|(_, at)| at.plus_ms(ASK_AGAIN_MS)).min()
    }

    pub fn is_won(&self) -> bool {
        self.votes.values().filter(|(granted, _)| *granted).count() >= self.voters.majority()
    }

    pub fn is_lost(&self) -> bool {
        let rejected = self.votes.values().filter(|(granted, _)| !granted).count();
        self.voters.len() - rejected < self.voters.majority()
    }

    pub fn granting(&self) -> Vec<NodeId> {
        self.votes.iter().filter(|(_, (granted, _))| *granted).map(|(id, _)| *id).collect()
    }

    /// Voters that have not answered yet.
    pub fn unanswered(&self) -> Vec<ReplicaKey> {
        self.voters.iter().map(|voter| voter.key).filter(|key| !self.votes.contains_key(&key.id)).collect()
    }
}

#[derive(Debug)]
pub(super) struct Follower {
    /// When a voter gives the leader up.
    pub fetch_deadline: MonotonicMs,
    /// Whether a fetch from this leader succeeded: from then on PreVotes of others are refused.
    pub has_fetched: bool,
    pub download: Option<Download>,
    /// When to look again whether our entry in the voter set is right, or whether to join it.
    pub membership_check_at: MonotonicMs,
    /// This leader has taken (or can't take) our UpdateRaftVoter.
    pub has_updated: bool,
    /// When others were asked last who leads, because this leader was silent.
    pub asked_others_at: Option<MonotonicMs>,
}

/// A snapshot on its way from the leader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Download {
    pub id: SnapshotId,
    /// Whose file it is: snapshots of the same id differ from node to node.
    pub from: NodeId,
    /// Of the file, once it was told.
    pub size: Option<u64>,
    /// Bytes that are there already.
    pub position: u64,
}

#[derive(Debug)]
pub(super) struct Resigned {
    pub deadline: MonotonicMs,
    /// Voters that have not acknowledged EndQuorumEpoch.
    pub unacknowledged: BTreeSet<ReplicaKey>,
    /// Best successors first.
    pub preferred: Vec<ReplicaKey>,
}

/// The leader as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownLeader {
    pub id: NodeId,
    pub endpoints: Endpoints,
}

/// Where the log stands.
#[derive(Debug)]
pub(super) struct LogState {
    pub start: Offset,
    pub end: Offset,
    /// Everything below is durable.
    pub flushed: Offset,
    /// What the open flush covers.
    pub flush_in_flight: Option<Offset>,
    pub unflushed_bytes: usize,
    /// Bytes of `unflushed_bytes` that the open flush covers.
    pub flushing_bytes: usize,
    pub epochs: LeaderEpochs,
    pub snapshots: BTreeSet<SnapshotId>,
}

impl LogState {
    /// Epoch of the last record, of the snapshot when the log is empty behind one, or 0.
    pub fn last_epoch(&self) -> LeaderEpoch {
        let from_snapshot = || self.latest_snapshot().filter(|id| id.end_offset == self.end).map(|id| id.epoch);
        self.epochs.latest().or_else(from_snapshot).unwrap_or(LeaderEpoch(0))
    }

    pub fn latest_snapshot(&self) -> Option<SnapshotId> {
        self.snapshots.last().copied().filter(|id| *id != SnapshotId::BOOTSTRAP)
    }

    pub fn earliest_snapshot(&self) -> Option<SnapshotId> {
        self.snapshots.iter().copied().find(|id| *id != SnapshotId::BOOTSTRAP)
    }

    pub fn truncate_to(&mut self, to: Offset) {
        self.end = to;
        self.flushed = self.flushed.min(to);
        self.flush_in_flight = self.flush_in_flight.map(|end| end.min(to));
        self.epochs.truncate_to(to);
    }

    /// Whether a fetch at `offset` after a record of `last_fetched_epoch` continues this log.
    pub fn position(&self, offset: Offset, last_fetched_epoch: LeaderEpoch) -> Position {
        if let Some(latest) = self.latest_snapshot() {
            if offset == Offset(0) {
                return Position::Snapshot(latest);
            }
            if offset < self.start || (offset == self.start && self.is_foreign_to_earliest(last_fetched_epoch)) {
                return Position::Snapshot(latest);
            }
            if self.earliest_snapshot().is_some_and(|id| id.end_offset == self.start && last_fetched_epoch < id.epoch) {
                return Position::Snapshot(latest);
            }
        }
        if offset == Offset(0) && self.start == Offset(0) {
            return Position::Valid;
        }
        let end = match self.epochs.end_of(last_fetched_epoch, self.end) {
            Some(end) => (end.epoch, end.end_offset),
            // The asker's epochs are all below those that are known. These begin behind a snapshot, whose own epoch ends
            // there; with an older epoch than that there is no place to part at. (After a restart the log may begin
            // below what is known of its epochs, at its first segment.)
            None => match (self.snapshot_before_epochs(), self.latest_snapshot()) {
                (Some(id), _) if id.epoch <= last_fetched_epoch => (id.epoch, id.end_offset),
                (_, Some(latest)) => return Position::Snapshot(latest),
                (_, None) => (LeaderEpoch(0), self.start),
            },
        };
        if end.0 != last_fetched_epoch || end.1 < offset {
            return Position::Diverging { epoch: end.0, end_offset: end.1 };
        }
        Position::Valid
    }

    /// The snapshot behind which the first known epoch begins, or will begin.
    fn snapshot_before_epochs(&self) -> Option<SnapshotId> {
        let begin = self.epochs.entries().first().map_or(self.end, |first| first.start_offset);
        self.snapshots.iter().copied().find(|id| *id != SnapshotId::BOOTSTRAP && id.end_offset == begin)
    }

    fn is_foreign_to_earliest(&self, epoch: LeaderEpoch) -> bool {
        self.earliest_snapshot().is_some_and(|id| id.end_offset == self.start && id.epoch != epoch)
    }
}

/// What a fetch position means on this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// It continues the log.
    Valid,
    /// Only a snapshot can bring the asker here.
    Snapshot(SnapshotId),
    /// The logs part at or before this end of this epoch.
    Diverging { epoch: LeaderEpoch, end_offset: Offset },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epochs::EpochStart;

    fn log(start: i64, end: i64, epochs: &[(i32, i64)], snapshots: &[(i64, i32)]) -> LogState {
        LogState {
            start: Offset(start),
            end: Offset(end),
            flushed: Offset(end),
            flush_in_flight: None,
            unflushed_bytes: 0,
            flushing_bytes: 0,
            epochs: LeaderEpochs::new(
                epochs.iter().map(|&(e, s)| EpochStart { epoch: LeaderEpoch(e), start_offset: Offset(s) }),
            ),
            snapshots: snapshots
                .iter()
                .map(|&(end, epoch)| SnapshotId { end_offset: Offset(end), epoch: LeaderEpoch(epoch) })
                .collect(),
        }
    }

    fn diverging(epoch: i32, end: i64) -> Position {
        Position::Diverging { epoch: LeaderEpoch(epoch), end_offset: Offset(end) }
    }

    fn snapshot(end: i64, epoch: i32) -> Position {
        Position::Snapshot(SnapshotId { end_offset: Offset(end), epoch: LeaderEpoch(epoch) })
    }

    #[test]
    fn positions_without_snapshot() {
        let log = log(0, 50, &[(1, 0), (4, 10), (6, 30)], &[(0, 0)]);
        for (offset, epoch, want) in [
            (0, 0, Position::Valid),
            (10, 1, Position::Valid),
            (50, 6, Position::Valid),
            (12, 1, diverging(1, 10)),
            (20, 5, diverging(4, 30)),
            (60, 6, diverging(6, 50)),
            (60, 9, diverging(6, 50)),
            (3, 0, diverging(0, 0)),
        ] {
            assert_eq!(log.position(Offset(offset), LeaderEpoch(epoch)), want, "{offset} {epoch}");
        }
    }

    #[test]
    fn positions_behind_a_snapshot() {
        let trimmed = log(20, 50, &[(4, 20), (6, 30)], &[(20, 4), (40, 6)]);
        for (offset, epoch, want) in [
            (0, 0, snapshot(40, 6)),
            (12, 1, snapshot(40, 6)),
            (20, 1, snapshot(40, 6)),
            (25, 3, snapshot(40, 6)),
            (20, 4, Position::Valid),
            (35, 6, Position::Valid),
            (35, 5, diverging(4, 30)),
        ] {
            assert_eq!(trimmed.position(Offset(offset), LeaderEpoch(epoch)), want, "{offset} {epoch}");
        }
        let untrimmed = log(0, 50, &[(1, 0)], &[(20, 1)]);
        assert_eq!(untrimmed.position(Offset(0), LeaderEpoch(0)), snapshot(20, 1));
        // Epochs were forgotten up to a snapshot's end, and a restart found the segment that begins far below it.
        let reopened = log(0, 50, &[(5, 40), (6, 45)], &[(40, 4)]);
        assert_eq!(reopened.position(Offset(38), LeaderEpoch(4)), Position::Valid);
        assert_eq!(reopened.position(Offset(40), LeaderEpoch(4)), Position::Valid);
        assert_eq!(reopened.position(Offset(43), LeaderEpoch(4)), diverging(4, 40));
        assert_eq!(reopened.position(Offset(38), LeaderEpoch(3)), snapshot(40, 4));
        assert_eq!(reopened.position(Offset(42), LeaderEpoch(5)), Position::Valid);
        assert_eq!(reopened.position(Offset(49), LeaderEpoch(5)), diverging(5, 45));
        let empty = log(20, 20, &[], &[(20, 4)]);
        assert_eq!(empty.position(Offset(20), LeaderEpoch(4)), Position::Valid);
        assert_eq!(empty.last_epoch(), LeaderEpoch(4));
    }
}
