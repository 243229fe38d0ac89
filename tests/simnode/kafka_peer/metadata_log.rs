//! The metadata log as an observer of the quorum has it: what isn't committed yet, and the image of what is.

use std::collections::VecDeque;

use bytes::Bytes;
use ringlog_metadata::image::{MetadataImage, MetadataLoader, Provenance, SnapshotLoad};
use ringlog_protocol::metadata_records::MetadataRecord;
use ringlog_protocol::records::{BatchHeader, BatchIter, BatchRef, Scratch};
use ringlog_raft::snapshot::SnapshotReader;
use ringlog_types::{LeaderEpoch, Offset};

/// The largest batch, unpacked.
const UNPACKED_BYTES_MAX: usize = 32 << 20;

/// See the module's text.
#[derive(Default)]
pub struct MetadataLog {
    loader: MetadataLoader,
    /// Where the image ends, and the epoch of what comes last in it.
    applied: (i64, i32),
    /// Batches behind it.
    waiting: VecDeque<(BatchHeader, Bytes)>,
    /// The quorum's epoch and who leads in it, as far as it is known.
    pub epoch: i32,
    /// Who leads in it.
    pub leader: Option<i32>,
}

impl MetadataLog {
    /// The image of what is committed.
    pub fn image(&self) -> MetadataImage {
        self.loader.image().clone()
    }

    /// The last offset that is in the image; -1 for none.
    pub fn applied_offset(&self) -> i64 {
        self.applied.0 - 1
    }

    /// Where the log ends, and the epoch of what comes last; 0 when nothing does.
    pub fn end(&self) -> (i64, i32) {
        let last = self.waiting.back();
        last.map_or(self.applied, |(header, _)| (header.next_offset().0, header.partition_leader_epoch.0))
    }

    /// Appends what a leader answered. Batches must follow each other; what is cut off at the end comes again.
    pub fn append(&mut self, records: &Bytes) -> Result<(), String> {
        for batch in BatchIter::new(records) {
            let Ok(batch) = batch else { break };
            batch.verify_crc().map_err(|fault| fault.to_string())?;
            let (due, base) = (self.end().0, batch.header.base_offset.0);
            if base != due {
                return Err(format!("a metadata batch at {base} follows, and {due} was due"));
            }
            self.waiting.push_back((batch.header, records.slice_ref(batch.bytes)));
        }
        Ok(())
    }

    /// The leader's log parts from this one there: what isn't committed goes.
    pub fn truncate(&mut self, to: i64) -> Result<(), String> {
        if to < self.applied.0 {
            return Err(format!("the metadata log is to end at {to}, and is committed up to {}", self.applied.0));
        }
        self.waiting.retain(|(header, _)| header.next_offset().0 <= to);
        Ok(())
    }

    /// So much is committed. Says whether there is another image.
    pub fn commit(&mut self, high_watermark: i64) -> Result<bool, String> {
        while self.waiting.front().is_some_and(|(header, _)| header.next_offset().0 <= high_watermark) {
            let Some((header, bytes)) = self.waiting.pop_front() else { break };
            let records = records(&header, &bytes)?;
            let (epoch, time) = (header.partition_leader_epoch, header.max_timestamp);
            let loaded = self.loader.load_batch(header.base_offset, header.last_offset(), epoch, time, &records);
            loaded.map_err(|fault| fault.to_string())?;
            self.applied = (header.next_offset().0, epoch.0);
        }
        Ok(self.loader.publish().is_some())
    }

    /// A snapshot that ends before `end_offset` takes the place of all.
    pub fn load_snapshot(&mut self, (end_offset, epoch): (i64, i32), file: &[u8]) -> Result<(), String> {
        let mut load = SnapshotLoad::new();
        let mut reader = SnapshotReader::default();
        reader.read(file, true, |record| load.record(record)).map_err(|fault| fault.to_string())?;
        let summary = reader.finish().map_err(|fault| fault.to_string())?;
        let provenance = Provenance {
            last_contained_offset: Offset(end_offset - 1),
            last_contained_epoch: LeaderEpoch(epoch),
            last_contained_timestamp: summary.last_contained_log_timestamp,
            is_offset_batch_aligned: true,
        };
        self.loader.finish_snapshot(load, provenance).map_err(|fault| fault.to_string())?;
        self.waiting.clear();
        self.applied = (end_offset, epoch);
        Ok(())
    }
}

/// The records of a batch; none of a control batch.
fn records(header: &BatchHeader, bytes: &Bytes) -> Result<Vec<MetadataRecord>, String> {
    if header.is_control() {
        return Ok(Vec::new());
    }
    let mut scratch = Scratch::new(UNPACKED_BYTES_MAX);
    let batch = BatchRef::parse(bytes).map_err(|fault| fault.to_string())?;
    let mut records = Vec::new();
    for record in batch.records(&mut scratch).map_err(|fault| fault.to_string())? {
        let record = record.map_err(|fault| fault.to_string())?;
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        records.push(MetadataRecord::decode_framed(value).map_err(|fault| fault.to_string())?.0);
    }
    Ok(records)
}
