//! From a snapshot's bytes to an image and a voter set.

use ringlog_metadata::MetadataImage;
use ringlog_metadata::image::{LoadError, Provenance, SnapshotLoad};
use ringlog_raft::snapshot::{SnapshotError, SnapshotReader, SnapshotSummary};
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

/// How many records lie between two calls of the `on_progress` of [`SnapshotLoading::read`].
pub const PROGRESS_RECORDS: u64 = 1_000_000;

/// Checks and replays a snapshot piece by piece: neither its size nor that of a whole file in memory is a limit.
#[derive(Debug)]
pub struct SnapshotLoading {
    id: SnapshotId,
    records: SnapshotLoad,
    reader: SnapshotReader,
}

impl SnapshotLoading {
    /// Begins. The bootstrap snapshot, which only names voters, gives the empty image.
    pub fn begin(id: SnapshotId) -> SnapshotLoading {
        SnapshotLoading { id, records: SnapshotLoad::new(), reader: SnapshotReader::default() }
    }

    /// Replays the next bytes, as [`SnapshotReader::read`] takes them, and returns how many were read. `on_progress` hears
    /// the number of records so far, every [`PROGRESS_RECORDS`].
    pub fn read(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        mut on_progress: impl FnMut(u64),
    ) -> Result<usize, SnapshotLoadError> {
        let mut count = self.reader.record_count();
        let records = &mut self.records;
        let read = self.reader.read(bytes, is_last, |value| {
            records.record(value);
            count += 1;
            if count.is_multiple_of(PROGRESS_RECORDS) {
                on_progress(count);
            }
        });
        Ok(read?)
    }

    /// All was read.
    pub fn finish(self) -> Result<LoadedSnapshot, SnapshotLoadError> {
        let SnapshotLoading { id, records, reader } = self;
        let summary = reader.finish()?;
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
        Ok(LoadedSnapshot { id, image: records.finish(provenance)?, summary })
    }
}

/// Checks and replays a whole snapshot that is in memory.
pub fn load(id: SnapshotId, file: &[u8]) -> Result<LoadedSnapshot, SnapshotLoadError> {
    let mut loading = SnapshotLoading::begin(id);
    loading.read(file, true, |_| {})?;
    loading.finish()
}
