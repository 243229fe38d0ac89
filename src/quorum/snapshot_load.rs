//! From a snapshot's bytes to an image and a voter set.

use bytes::Bytes;
use ringlog_metadata::image::{LoadError, Provenance, ReplayError};
use ringlog_metadata::{MetadataDelta, MetadataImage};
use ringlog_protocol::DecodeError;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_raft::snapshot::{self, SnapshotError, SnapshotSummary};
use ringlog_raft::{ControlHistory, SnapshotId};
use ringlog_types::Offset;

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
    /// It holds a record that this release doesn't know.
    #[error("a metadata record can't be read: {0}")]
    Record(#[from] DecodeError),
    /// Its records contradict each other.
    #[error("the metadata can't be replayed: {0}")]
    Replay(#[from] LoadError),
}

/// Checks and replays a whole snapshot. The bootstrap snapshot, which only names voters, gives the empty image.
pub fn load(id: SnapshotId, file: &[u8]) -> Result<LoadedSnapshot, SnapshotLoadError> {
    let mut delta = MetadataDelta::new(&MetadataImage::empty());
    let mut count = 0;
    let mut fault: Option<SnapshotLoadError> = None;
    let summary = snapshot::read(file, |value| {
        if fault.is_none() {
            fault = replay(&mut delta, count, value).err();
        }
        count += 1;
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
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
    let (image, _) = delta.apply(provenance);
    Ok(LoadedSnapshot { id, image, summary })
}

fn replay(delta: &mut MetadataDelta, count: i64, value: &[u8]) -> Result<(), SnapshotLoadError> {
    let (record, _) = MetadataRecord::decode_framed(Bytes::copy_from_slice(value))?;
    let marker = match &record {
        MetadataRecord::BeginTransaction(_)
        | MetadataRecord::EndTransaction(_)
        | MetadataRecord::AbortTransaction(_) => Some(record.name()),
        _ => None,
    };
    if let Some(name) = marker {
        return Err(LoadError::TransactionInSnapshot(name).into());
    }
    let offset = Offset(count);
    delta.replay(&record).map_err(|error: ReplayError| LoadError::Replay { offset, error }.into())
}
