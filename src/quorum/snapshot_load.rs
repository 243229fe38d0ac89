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

/// How many records lie between two calls of the `on_progress` of [`load`].
pub const PROGRESS_RECORDS: u64 = 1_000_000;

/// Checks and replays a whole snapshot. The bootstrap snapshot, which only names voters, gives the empty image.
/// `on_progress` hears the number of records so far, every [`PROGRESS_RECORDS`].
pub fn load(
    id: SnapshotId,
    file: &[u8],
    mut on_progress: impl FnMut(u64),
) -> Result<LoadedSnapshot, SnapshotLoadError> {
    let mut load = SnapshotLoad::new();
    let mut record_count = 0;
    let summary = snapshot::read(file, |value| {
        load.record(value);
        record_count += 1;
        if record_count % PROGRESS_RECORDS == 0 {
            on_progress(record_count);
        }
    })?;
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
