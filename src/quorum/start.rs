//! What to make of the files that a node finds in its metadata directory.
//!
//! The driver reads them in this order, and asks here what they mean:
//!
//! 1. Snapshots, newest first, until one loads ([`crate::snapshot_load::SnapshotLoading`]); damaged ones are set aside.
//! 2. The log, by the recovery of `ringlog-log`, which finds where whole batches end.
//! 3. [`judge`]: whether log and snapshot fit together, and whether records are missing that had been acknowledged.
//!    Before anything is cut or removed for that, the mark must say so durably.
//! 4. What the verdict says is done, control records are read from the log's rest, and the node begins.

use ringlog_raft::{Endpoint, LoadedState, Memory, QuorumState, ReplicaKey, SnapshotId, VoterSet};
use ringlog_types::{NodeId, Offset};

use crate::durable_mark::DurableMark;
use crate::snapshot_load::LoadedSnapshot;

/// Everything that a node starts with.
#[derive(Debug)]
pub struct LoadedNode {
    /// For raft.
    pub state: LoadedState,
    /// The newest snapshot.
    pub snapshot: Option<LoadedSnapshot>,
    /// Bytes of records in the log that the snapshot doesn't cover.
    pub bytes_since_snapshot: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// First offset of the log.
    pub log_start: Offset,
    /// Where the whole batches of the log end.
    pub log_end: Offset,
    /// The newest snapshot that is whole.
    pub snapshot: Option<SnapshotId>,
    /// How far the log had been durable.
    pub mark: DurableMark,
    /// Whether this node has the controller role, so that others count on what it acknowledges.
    pub is_controller: bool,
    /// Whether it is alone by the voters that snapshot and log name, as long as the mark doesn't know better: there is
    /// nobody to fetch lost records from.
    pub is_alone: bool,
    /// Whether it votes by the voters that snapshot and log name.
    pub is_voter: bool,
    /// What is known of its elections; `None`: there is no `quorum-state`.
    pub elections: Option<Elections>,
}

/// What `quorum-state` says of this node's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elections {
    /// It has heard of an epoch.
    Watched,
    /// It led, or helped somebody into office.
    TookPart,
}

impl Elections {
    /// Of that node's file.
    pub fn of(state: &QuorumState, own: NodeId) -> Elections {
        let helped = state.voted.is_some_and(|vote| vote.id != own);
        if helped || state.leader_id == Some(own) { Elections::TookPart } else { Elections::Watched }
    }
}

/// What they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue {
        /// The mark to write durably before the node begins, if the one that is there isn't right.
        mark: Option<DurableMark>,
        /// Whether acknowledged records are missing.
        memory: Memory,
    },
    /// What is there can't be used without what is missing. Write the mark durably, then remove snapshots and log, and
    /// begin as an empty node that fetches everything.
    StartOver {
        /// The mark.
        mark: DurableMark,
        /// Whether acknowledged records are missing.
        memory: Memory,
    },
    /// Records are lost for good.
    Refuse(Refusal),
}

/// Why a node doesn't start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The log ends too early.
    #[error(
        "the metadata log ends at offset {log_end}, but everything below {durable_offset} had reached the disk: the \
         records between are damaged or lost, and there is no other controller to fetch them from. Restore the \
         directory from a backup, or remove {mark_file} to go on without them",
        mark_file = crate::durable_mark::FILE_NAME
    )]
    LogLost {
        /// Its end.
        log_end: Offset,
        /// What had been durable.
        durable_offset: Offset,
    },
    /// The beginning is gone.
    #[error(
        "the metadata log starts at offset {log_start}, but there is no whole snapshot at or above it, and no other \
         controller to fetch one from. Restore the directory from a backup"
    )]
    SnapshotLost {
        /// Where the log starts.
        log_start: Offset,
    },
}

/// Judges what was found.
pub fn judge(found: &Found) -> Verdict {
    let covered = found.snapshot.map_or(Offset(0), |id| id.end_offset);
    let has_beginning = found.log_start <= covered;
    // A snapshot beyond what is left is no comfort: records above both may have been acknowledged since the mark was
    // written. (When a snapshot takes the log's place, the mark is lowered first.)
    let is_log_short = found.log_end < found.mark.durable_offset;
    // Nobody counts on what a broker has.
    let is_rebuilding = found.is_controller && (found.mark.rebuilding || is_log_short || !has_beginning);
    let is_alone = found.is_alone && !found.mark.has_peers;
    if is_alone && is_log_short && found.is_controller {
        let (log_end, durable_offset) = (found.log_end, found.mark.durable_offset);
        return Verdict::Refuse(Refusal::LogLost { log_end, durable_offset });
    }
    if !has_beginning {
        if is_alone {
            return Verdict::Refuse(Refusal::SnapshotLost { log_start: found.log_start });
        }
        let mark = DurableMark { durable_offset: Offset(0), rebuilding: is_rebuilding, ..found.mark };
        return Verdict::StartOver { mark, memory: if is_rebuilding { Memory::LostRecords } else { Memory::Whole } };
    }
    let durable_offset = found.mark.durable_offset.min(found.log_end);
    let is_blank = is_blank(found, is_alone);
    let mark = DurableMark { durable_offset, rebuilding: is_rebuilding, blank: is_blank, ..found.mark };
    let memory = match (is_rebuilding, is_blank) {
        (true, _) => Memory::LostRecords,
        (false, true) => Memory::Blank,
        (false, false) => Memory::Whole,
    };
    Verdict::Continue { mark: (mark != found.mark).then_some(mark), memory }
}

/// Whether a voter may have lost all that it ever said, as far as it knows. A stop between its first vote and the mark
/// that says so leaves the vote.
fn is_blank(found: &Found, is_alone: bool) -> bool {
    let has_nothing = found.log_end == Offset(0) && found.snapshot.is_none_or(|id| id == SnapshotId::BOOTSTRAP);
    let is_first_start = found.elections.is_none() && has_nothing;
    let took_part = found.elections == Some(Elections::TookPart);
    found.is_controller && found.is_voter && !is_alone && (is_first_start || found.mark.blank && !took_part)
}

/// Whether a node is its whole quorum: the only voter that it knows of, or if it knows none, the only server to ask.
pub fn is_alone(
    voters: &VoterSet,
    own: ReplicaKey,
    bootstrap_servers: &[Endpoint],
    own_endpoint: Option<&Endpoint>,
) -> bool {
    if voters.is_empty() {
        return bootstrap_servers.iter().all(|server| Some(server) == own_endpoint);
    }
    voters.is_only_voter(own)
}

#[cfg(test)]
mod tests {
    use ringlog_types::LeaderEpoch;

    use super::*;

    fn marked(durable: i64, rebuilding: bool) -> DurableMark {
        DurableMark { durable_offset: Offset(durable), rebuilding, ..DurableMark::default() }
    }

    fn found(log: (i64, i64), snapshot: Option<i64>, durable: i64) -> Found {
        Found {
            log_start: Offset(log.0),
            log_end: Offset(log.1),
            snapshot: snapshot.map(|end| SnapshotId { end_offset: Offset(end), epoch: LeaderEpoch(1) }),
            mark: marked(durable, false),
            is_controller: true,
            is_alone: false,
            is_voter: true,
            elections: Some(Elections::Watched),
        }
    }

    fn goes_on(mark: Option<DurableMark>, is_rebuilding: bool) -> Verdict {
        Verdict::Continue { mark, memory: if is_rebuilding { Memory::LostRecords } else { Memory::Whole } }
    }

    #[test]
    fn whole_directories_go_on() {
        for whole in [found((0, 0), None, 0), found((0, 90), None, 80), found((50, 90), Some(60), 90)] {
            assert_eq!(judge(&whole), goes_on(None, false));
        }
        // A snapshot was fetched and the log was not emptied yet.
        let beyond = found((0, 40), Some(100), 40);
        assert_eq!(judge(&beyond), goes_on(None, false));
    }

    #[test]
    fn a_log_that_lost_durable_records_is_rebuilt_without_voting() {
        let short = found((0, 70), None, 90);
        let mark = marked(70, true);
        assert_eq!(judge(&short), goes_on(Some(mark), true));
        let again = Found { mark, ..short };
        assert_eq!(judge(&again), goes_on(None, true));
        let alone = Found { is_alone: true, ..short };
        assert!(matches!(judge(&alone), Verdict::Refuse(Refusal::LogLost { .. })));
        // What is left of the log names no other voter, but there were some.
        let known = Found { mark: DurableMark { has_peers: true, ..alone.mark }, ..alone };
        assert!(matches!(judge(&known), Verdict::Continue { memory: Memory::LostRecords, .. }));
        // The log was cut below the mark, so there is no telling how far above its snapshot it had reached.
        let covered = Found { snapshot: Some(SnapshotId { end_offset: Offset(95), epoch: LeaderEpoch(1) }), ..short };
        let mark = marked(70, true);
        assert_eq!(judge(&covered), goes_on(Some(mark), true));
        let broker = Found { is_controller: false, ..short };
        let mark = marked(70, false);
        assert_eq!(judge(&broker), goes_on(Some(mark), false));
    }

    #[test]
    fn a_log_whose_beginning_is_gone_starts_over() {
        let headless = found((50, 90), None, 60);
        let mark = marked(0, true);
        assert_eq!(judge(&headless), Verdict::StartOver { mark, memory: Memory::LostRecords });
        let older = found((50, 90), Some(40), 60);
        assert_eq!(judge(&older), Verdict::StartOver { mark, memory: Memory::LostRecords });
        let alone = Found { is_alone: true, ..headless };
        assert!(matches!(judge(&alone), Verdict::Refuse(Refusal::SnapshotLost { .. })));
    }

    #[test]
    fn a_voter_without_any_memory_is_blank_until_it_has_taken_part() {
        let first = Found { elections: None, ..found((0, 0), None, 0) };
        let mark = DurableMark { blank: true, ..first.mark };
        assert_eq!(judge(&first), Verdict::Continue { mark: Some(mark), memory: Memory::Blank });
        let formatted = Found { snapshot: Some(SnapshotId::BOOTSTRAP), ..first };
        assert!(matches!(judge(&formatted), Verdict::Continue { memory: Memory::Blank, .. }));
        // It heard of an epoch, or has begun to fetch.
        let later = Found { mark, elections: Some(Elections::Watched), ..found((0, 7), None, 0) };
        assert_eq!(judge(&later), Verdict::Continue { mark: None, memory: Memory::Blank });
        // Its vote is on the disk, the mark that it led to is not.
        let voted = Found { mark, elections: Some(Elections::TookPart), ..first };
        assert_eq!(judge(&voted), goes_on(Some(DurableMark { blank: false, ..mark }), false));
        // Nobody counts on these.
        for other in [
            Found { is_alone: true, ..first },
            Found { is_controller: false, ..first },
            Found { is_voter: false, ..first },
            Found { elections: Some(Elections::Watched), ..first },
        ] {
            assert_eq!(judge(&other), goes_on(None, false), "{other:?}");
        }
    }
}
