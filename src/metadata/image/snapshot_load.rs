//! A snapshot on its way into an image, record by record: a million partitions are never there as records.

use bytes::Bytes;
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_types::Offset;

use super::{LoadError, MetadataChanges, MetadataImage, Provenance, ReplayError};

/// Builds the image that a snapshot holds. [`SnapshotLoad::finish`] ends it, once the caller has seen that the snapshot is
/// whole; dropping it leaves no trace.
///
/// The first fault is kept and told at the end, so that records can be handed on by whoever walks the file.
#[derive(Debug, Default)]
pub struct SnapshotLoad {
    image: MetadataImage,
    /// Of what is not topics; nobody asks for it.
    changes: MetadataChanges,
    record_count: u64,
    fault: Option<LoadError>,
}

impl SnapshotLoad {
    /// A load that has seen no record.
    pub fn new() -> SnapshotLoad {
        SnapshotLoad::default()
    }

    /// Takes the next record of the snapshot, framed as the file holds it.
    pub fn record(&mut self, value: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        match MetadataRecord::decode_framed(Bytes::copy_from_slice(value)) {
            Ok((record, _)) => self.replay(&record),
            Err(error) => self.fault = Some(LoadError::Decode { number: self.record_count, error }),
        }
    }

    /// Takes the next record of the snapshot.
    pub fn replay(&mut self, record: &MetadataRecord) {
        if self.fault.is_none() {
            self.fault = self.try_replay(record).err();
            self.record_count += 1;
        }
    }

    fn try_replay(&mut self, record: &MetadataRecord) -> Result<(), LoadError> {
        let replayed = match record {
            // What changed in which topic follows from the finished image, and would cost more than the image itself.
            MetadataRecord::Topic(record) => {
                self.image.add_topic(record);
                Ok(())
            }
            MetadataRecord::Partition(record) => self.image.put_partition(record).map(drop),
            MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => return Err(LoadError::TransactionInSnapshot(record.name())),
            record => self.image.replay(record, &mut self.changes),
        };
        let at_record = |error: ReplayError| LoadError::Replay { offset: Offset(self.record_count as i64), error };
        replayed.map_err(at_record)
    }

    /// The image, unless a record was at fault.
    pub fn finish(self, provenance: Provenance) -> Result<MetadataImage, LoadError> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(MetadataImage { provenance, ..self.image }),
        }
    }
}
