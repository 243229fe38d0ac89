//! From a snapshot's bytes to an image and a voter set.

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::{LoadError, Provenance, SnapshotLoad};
use ringlog_raft::snapshot::{self, SnapshotError, SnapshotSummary};
use ringlog_raft::{ControlHistory, SnapshotId};

/// A snapshot as the node takes it over.
#[derive(Debug)]
pub struct LoadedSnapshot {
    /// Which.
    pub id: SnapshotId,
    /// The metadata that it holds.
    pub image: MetadataImage,
    /// What its control records say.
    pub summary: SnapshotSummary,
}

impl LoadedSnapshot {
    /// Puts voters and `kraft.version` of the snapshot in the place of what `history` says.
    pub fn load_history(&self, history: &mut ControlHistory) {
        history.load_snapshot(self.id, self.summary.kraft_version, self.summary.voters.clone());
    }
}

/// A snapshot can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotLoadError {
    /// Its bytes are damaged, or not all there: another copy may be good.
    #[error(transparent)]
    Damaged(#[from] SnapshotError),
    /// It is whole, but holds a record that this release doesn't know, or records that contradict each other.
    #[error(transparent)]
    Records(#[from] LoadError),
}

/// Checks and replays a whole snapshot. The bootstrap snapshot, which only names voters, gives the empty image.
pub fn load(id: SnapshotId, file: &[u8]) -> Result<LoadedSnapshot, SnapshotLoadError> {
    let mut load = SnapshotLoad::new();
    let summary = snapshot::read(file, |value| load.record(value))?;
    let provenance = if id == SnapshotId::BOOTSTRAP {
        Provenance::EMPTY
    } else {
        Provenance {
            last_contained_offset: id.end_offset.plus(-1),
            last_contained_epoch: id.epoch,
            last_contained_timestamp: summary.last_contained_log_timestamp,
            is_offset_batch_aligned: true,
        }
    };
    Ok(LoadedSnapshot { id, image: load.finish(provenance)?, summary })
}
