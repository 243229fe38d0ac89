//! The next image in the making.

use ringlog_protocol::metadata_records::MetadataRecord;

use super::{MetadataChanges, MetadataImage, Provenance, ReplayError};

/// Replays records over an image and keeps what they changed.
#[derive(Debug, Clone)]
pub struct MetadataDelta {
    image: MetadataImage,
    changes: MetadataChanges,
}

impl MetadataDelta {
    /// A delta over `base`, which stays as it is.
    pub fn new(base: &MetadataImage) -> MetadataDelta {
        MetadataDelta { image: base.clone(), changes: MetadataChanges::default() }
    }

    /// Replays one committed record. After an error the delta must not be applied.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        self.image.replay(record, &mut self.changes)
    }

    /// The image as of the records replayed so far.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// What the records replayed so far changed.
    pub fn changes(&self) -> &MetadataChanges {
        &self.changes
    }

    /// The new image, which ends at `provenance`, and what changed on the way.
    pub fn apply(mut self, provenance: Provenance) -> (MetadataImage, MetadataChanges) {
        self.image.provenance = provenance;
        (self.image, self.changes)
    }
}
