//! Content of a `.checkpoint` file: batches from offset 0 with a header, the records, a footer (KIP-630). Also used for
//! `bootstrap.checkpoint`.
//!
//! ```text
//! control batch   SnapshotHeader [KRaftVersion Voters]     offset 0..
//! data batches    at most 1024 records, 8 MiB each
//! control batch   SnapshotFooter                           last offset
//! ```

use bytes::Bytes;
use ringlog_protocol::records::{BatchBuilder, BatchError, BatchIter, BatchOptions, BatchRef, Scratch};
use ringlog_types::{Offset, TimestampMs};

use crate::control_records::{ControlRecord, ControlRecordError, control_batch};
use crate::snapshot_name::SnapshotId;
use crate::voters::{Voter, VoterSet};

/// Records in a data batch at most.
pub const MAX_BATCH_RECORDS: i32 = 1024;
/// Bytes in a data batch at most, unless one record is larger.
pub const MAX_BATCH_LEN: usize = 8 * 1024 * 1024;
/// Bytes of a batch that is worth waiting for when a snapshot is read: the header of a damaged one may claim anything. No
/// batch of a metadata log, of which each record of a snapshot once was a part, comes near.
const LONGEST_BATCH_LEN: usize = 4 * MAX_BATCH_LEN;
/// Bytes that a record takes at most besides its payload.
const RECORD_OVERHEAD: usize = 32;

/// Writes a snapshot, batch by batch, so that a large one is never whole in memory.
#[derive(Debug)]
pub struct SnapshotWriter {
    id: SnapshotId,
    next_offset: Offset,
    open: Option<BatchBuilder>,
    ready: Vec<Bytes>,
}

impl SnapshotWriter {
    /// Begins with the header. `membership` as
    /// [`ControlHistory::membership_at`](crate::ControlHistory::membership_at) gives it; `last_contained_log_timestamp`
    /// is the time of the last batch that the snapshot covers; `now` becomes the time of the batch.
    pub fn new(
        id: SnapshotId,
        last_contained_log_timestamp: TimestampMs,
        membership: Option<(i16, &VoterSet)>,
        now: TimestampMs,
    ) -> SnapshotWriter {
        let mut first = vec![ControlRecord::SnapshotHeader { last_contained_log_timestamp }];
        if let Some((level, voters)) = membership {
            first.extend([ControlRecord::KRaftVersion(level), ControlRecord::Voters(voters.clone())]);
        }
        let ready = vec![control_batch(Offset(0), id.epoch, now, &first)];
        SnapshotWriter { id, next_offset: Offset(first.len() as i64), open: None, ready }
    }

    /// Adds a framed record. `now` becomes the time of its batch if it is the batch's first.
    pub fn append(&mut self, record: &[u8], now: TimestampMs) {
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.record_count() >= MAX_BATCH_RECORDS
                || open.uncompressed_size() + record.len() + RECORD_OVERHEAD > MAX_BATCH_LEN
        });
        if is_full {
            self.close_batch();
        }
        let open = self.open.get_or_insert_with(|| {
            BatchBuilder::new(BatchOptions {
                base_offset: self.next_offset,
                partition_leader_epoch: self.id.epoch,
                ..BatchOptions::default()
            })
        });
        open.append(now, None, Some(record), &[]);
    }

    /// Finished batches so far, to be written next; none comes twice.
    pub fn take_ready(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.ready)
    }

    /// Ends with the footer: the last batches to be written.
    pub fn finish(mut self, now: TimestampMs) -> Vec<Bytes> {
        self.close_batch();
        self.ready.push(control_batch(self.next_offset, self.id.epoch, now, &[ControlRecord::SnapshotFooter]));
        self.ready
    }

    fn close_batch(&mut self) {
        if let Some(open) = self.open.take() {
            self.next_offset = open.next_offset();
            self.ready.push(open.build());
        }
    }
}

/// The complete `0-0` snapshot with which a dynamic quorum begins: level 1 and the first voters (`--standalone`: just
/// the node itself; `--initial-controllers`: all of them).
pub fn bootstrap_snapshot(voters: impl IntoIterator<Item = Voter>, now: TimestampMs) -> Option<Bytes> {
    let voters = VoterSet::new(voters).filter(|set| !set.is_empty())?;
    let writer = SnapshotWriter::new(SnapshotId::BOOTSTRAP, now, Some((1, &voters)), now);
    Some(writer.finish(now).concat().into())
}

/// What a snapshot's control records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Time of the last record that it covers.
    pub last_contained_log_timestamp: TimestampMs,
    /// Level of `kraft.version`, if recorded.
    pub kraft_version: Option<i16>,
    /// The voters, if recorded.
    pub voters: Option<VoterSet>,
    /// Data records.
    pub record_count: u64,
}

/// The file is no usable snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A batch is cut off, or its checksum doesn't match.
    #[error("at byte {position}: {error}")]
    Batch {
        /// Where the batch begins.
        position: usize,
        /// What is wrong.
        error: BatchError,
    },
    /// A control record is damaged or unknown.
    #[error("at byte {position}: {error}")]
    Control {
        /// Where its batch begins.
        position: usize,
        /// What is wrong.
        error: ControlRecordError,
    },
    /// It doesn't begin with a header.
    #[error("there is no snapshot header at the start")]
    NoHeader,
    /// It doesn't end with a footer: writing it was not finished.
    #[error("there is no snapshot footer at the end, the file is incomplete")]
    NoFooter,
    /// Header, footer or membership records where they can't be, or offsets that don't count up from 0.
    #[error("at byte {position}: batches are out of order")]
    OutOfOrder {
        /// Where the batch begins.
        position: usize,
    },
    /// A data record without a value.
    #[error("the record at offset {0} has no value")]
    NoValue(Offset),
}

/// Checks a whole snapshot that is in memory and hands each framed data record to `on_record`, in order; see
/// [`SnapshotReader`].
pub fn read(file: &[u8], on_record: impl FnMut(&[u8])) -> Result<SnapshotSummary, SnapshotError> {
    let mut reader = SnapshotReader::default();
    reader.read(file, true, on_record)?;
    reader.finish()
}

/// The time of the last record that a snapshot covers, from the beginning of its file; `None` if that is damaged.
pub fn read_header(beginning: &[u8]) -> Option<TimestampMs> {
    let batch = BatchIter::new(beginning).next()?.ok().filter(|batch| batch.verify_crc().is_ok())?;
    let (_, first) = ControlRecord::parse_batch(&batch).ok()?.into_iter().next()?;
    match first {
        ControlRecord::SnapshotHeader { last_contained_log_timestamp } => Some(last_contained_log_timestamp),
        _ => None,
    }
}

/// Reads a snapshot piece by piece, so that a large one is never whole in memory. Records are handed out before the
/// footer was seen: discard them when [`SnapshotReader::read`] or [`SnapshotReader::finish`] fails.
#[derive(Debug)]
pub struct SnapshotReader {
    /// Bytes of whole batches so far.
    position: usize,
    next_offset: Offset,
    header: Option<TimestampMs>,
    has_footer: bool,
    kraft_version: Option<i16>,
    voters: Option<VoterSet>,
    record_count: u64,
    scratch: Scratch,
}

impl Default for SnapshotReader {
    fn default() -> SnapshotReader {
        SnapshotReader {
            position: 0,
            next_offset: Offset(0),
            header: None,
            has_footer: false,
            kraft_version: None,
            voters: None,
            record_count: 0,
            scratch: Scratch::new(MAX_BATCH_LEN * 2),
        }
    }
}

impl SnapshotReader {
    /// Hands each framed data record of the next bytes to `on_record`, in order. Returns how many of the bytes were
    /// read: the others begin a batch that isn't all there, and come first in the next call, with more after them. There
    /// are none if this `is_last`.
    pub fn read(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        mut on_record: impl FnMut(&[u8]),
    ) -> Result<usize, SnapshotError> {
        let begun_at = self.position;
        for batch in BatchIter::new(bytes) {
            let position = self.position;
            let batch = match batch {
                Ok(batch) => batch,
                Err(BatchError::Incomplete { needed, .. }) if !is_last && needed <= LONGEST_BATCH_LEN => break,
                Err(error) => return Err(SnapshotError::Batch { position, error }),
            };
            batch.verify_crc().map_err(|error| SnapshotError::Batch { position, error })?;
            if batch.header.base_offset != self.next_offset || self.has_footer {
                return Err(SnapshotError::OutOfOrder { position });
            }
            self.next_offset = batch.header.next_offset();
            if batch.header.is_control() {
                self.on_control(&batch, position)?;
            } else {
                self.on_data(&batch, position, &mut on_record)?;
            }
            self.position += batch.bytes.len();
        }
        Ok(self.position - begun_at)
    }

    /// Data records so far.
    pub fn record_count(&self) -> u64 {
        self.record_count
    }

    /// All was read: what the control records say.
    pub fn finish(self) -> Result<SnapshotSummary, SnapshotError> {
        let Some(last_contained_log_timestamp) = self.header else { return Err(SnapshotError::NoHeader) };
        if !self.has_footer {
            return Err(SnapshotError::NoFooter);
        }
        Ok(SnapshotSummary {
            last_contained_log_timestamp,
            kraft_version: self.kraft_version,
            voters: self.voters,
            record_count: self.record_count,
        })
    }

    fn on_control(&mut self, batch: &BatchRef<'_>, position: usize) -> Result<(), SnapshotError> {
        let records = ControlRecord::parse_batch(batch).map_err(|error| SnapshotError::Control { position, error })?;
        for (_, record) in records {
            match record {
                ControlRecord::SnapshotHeader { last_contained_log_timestamp } if self.header.is_none() => {
                    self.header = Some(last_contained_log_timestamp);
                }
                _ if self.header.is_none() => return Err(SnapshotError::NoHeader),
                ControlRecord::KRaftVersion(level) if self.kraft_version.is_none() && self.record_count == 0 => {
                    self.kraft_version = Some(level);
                }
                ControlRecord::Voters(voters) if self.voters.is_none() && self.record_count == 0 => {
                    self.voters = Some(voters);
                }
                ControlRecord::SnapshotFooter if !self.has_footer => self.has_footer = true,
                _ => return Err(SnapshotError::OutOfOrder { position }),
            }
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        batch: &BatchRef<'_>,
        position: usize,
        on_record: &mut impl FnMut(&[u8]),
    ) -> Result<(), SnapshotError> {
        if self.header.is_none() {
            return Err(SnapshotError::NoHeader);
        }
        let fault = |error| SnapshotError::Batch { position, error };
        for record in batch.records(&mut self.scratch).map_err(fault)? {
            let record = record.map_err(fault)?;
            on_record(record.value.ok_or(SnapshotError::NoValue(record.offset))?);
            self.record_count += 1;
        }
        Ok(())
    }
}
