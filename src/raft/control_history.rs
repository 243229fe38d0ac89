//! Voter sets and `kraft.version` levels by the offset of the record that set them: effective at once, uncommitted
//! too, and rolled back when the log is truncated (KIP-853).

use ringlog_protocol::records::{BatchIter, BatchRef};
use ringlog_types::Offset;

use crate::control_records::{ControlRecord, ControlRecordError};
use crate::snapshot_name::SnapshotId;
use crate::voters::VoterSet;

/// What the control records of snapshot and log say about membership.
#[derive(Debug, Clone, Default)]
pub struct ControlHistory {
    static_voters: VoterSet,
    voters: Vec<(Offset, VoterSet)>,
    kraft_versions: Vec<(Offset, i16)>,
}

impl ControlHistory {
    /// Nothing but the static configuration, which any record beats. Empty with a dynamic quorum.
    pub fn new(static_voters: VoterSet) -> ControlHistory {
        ControlHistory { static_voters, ..ControlHistory::default() }
    }

    /// Takes over what a snapshot says, in place of everything so far. `membership` is what
    /// [`crate::snapshot::read`] found.
    pub fn load_snapshot(&mut self, id: SnapshotId, kraft_version: Option<i16>, voters: Option<VoterSet>) {
        // As of the last offset that the snapshot contains; -1 for the bootstrap snapshot.
        let offset = Offset(id.end_offset.0 - 1);
        self.kraft_versions = kraft_version.map(|level| (offset, level)).into_iter().collect();
        self.voters = voters.map(|voters| (offset, voters)).into_iter().collect();
    }

    /// Takes in log bytes: whole batches, in order. Data batches are skipped without a look at their records. The
    /// driver feeds the whole log at start, from the latest snapshot's end on.
    pub fn apply_batches(&mut self, batches: &[u8]) -> Result<(), ControlRecordError> {
        for batch in BatchIter::new(batches) {
            self.apply_batch(&batch?)?;
        }
        Ok(())
    }

    /// As [`ControlHistory::apply_batches`], for one batch.
    pub fn apply_batch(&mut self, batch: &BatchRef<'_>) -> Result<(), ControlRecordError> {
        if batch.header.is_control() {
            for (offset, record) in ControlRecord::parse_batch(batch)? {
                self.apply(offset, record);
            }
        }
        Ok(())
    }

    /// Takes in one record.
    pub(crate) fn apply(&mut self, offset: Offset, record: ControlRecord) {
        match record {
            ControlRecord::KRaftVersion(level) => self.kraft_versions.push((offset, level)),
            ControlRecord::Voters(voters) => self.voters.push((offset, voters)),
            ControlRecord::LeaderChange { .. }
            | ControlRecord::SnapshotHeader { .. }
            | ControlRecord::SnapshotFooter => {}
        }
    }

    /// Forgets records at and above `end_offset`.
    pub fn truncate_to(&mut self, end_offset: Offset) {
        self.voters.retain(|(offset, _)| *offset < end_offset);
        self.kraft_versions.retain(|(offset, _)| *offset < end_offset);
    }

    /// Forgets records that a later one, still at or below `offset`, replaced: no snapshot before `offset` will be
    /// asked for any more.
    pub fn trim_before(&mut self, offset: Offset) {
        trim(&mut self.voters, offset);
        trim(&mut self.kraft_versions, offset);
    }

    /// The voters now.
    pub fn voters(&self) -> &VoterSet {
        self.voters.last().map_or(&self.static_voters, |(_, voters)| voters)
    }

    /// Where the record with the present voters lies; -1: in the bootstrap snapshot; `None`: static configuration.
    pub fn voters_offset(&self) -> Option<Offset> {
        self.voters.last().map(|(offset, _)| *offset)
    }

    /// The level of `kraft.version` now; 0 without a record.
    pub fn kraft_version(&self) -> i16 {
        self.kraft_versions.last().map_or(0, |(_, level)| *level)
    }

    /// Level and voters as of a snapshot's end: what its first batch has to say. `None` at level 0, where it says
    /// nothing.
    pub fn membership_at(&self, end_offset: Offset) -> Option<(i16, &VoterSet)> {
        let level = at(&self.kraft_versions, end_offset).copied().unwrap_or(0);
        (level > 0).then(|| (level, at(&self.voters, end_offset).unwrap_or(&self.static_voters)))
    }
}

fn at<T>(entries: &[(Offset, T)], end_offset: Offset) -> Option<&T> {
    entries.iter().rev().find(|(offset, _)| *offset < end_offset).map(|(_, value)| value)
}

fn trim<T>(entries: &mut Vec<(Offset, T)>, offset: Offset) {
    let below = entries.partition_point(|(at, _)| *at < offset);
    entries.drain(..below.saturating_sub(1));
}
