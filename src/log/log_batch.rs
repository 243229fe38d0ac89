//! What the log remembers of a record batch: its header, and the content of a transaction marker.

use ringlog_protocol::records::{BatchError, BatchHeader, BatchRef, EndTransactionMarker, Scratch};

/// One batch as the log and its producer state see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBatch {
    /// The header, with its final offsets and epoch.
    pub header: BatchHeader,
    /// The marker inside, when this is a control batch that ends a transaction.
    pub marker: Option<EndTransactionMarker>,
}

/// Largest control batch that is looked into, in bytes; a marker takes under 100.
const CONTROL_RECORDS_MAX: usize = 64 * 1024;

impl LogBatch {
    /// Of a whole batch. Only control batches are looked into.
    pub fn of(batch: &BatchRef<'_>) -> Result<LogBatch, BatchError> {
        let marker = if batch.header.is_control() { marker_of(batch)? } else { None };
        Ok(LogBatch { header: batch.header, marker })
    }

    /// Of a batch of data.
    pub fn of_data(header: BatchHeader) -> LogBatch {
        LogBatch { header, marker: None }
    }
}

fn marker_of(batch: &BatchRef<'_>) -> Result<Option<EndTransactionMarker>, BatchError> {
    let mut scratch = Scratch::new(CONTROL_RECORDS_MAX);
    let Some(record) = batch.records(&mut scratch)?.next() else { return Ok(None) };
    let record = record?;
    Ok(EndTransactionMarker::parse(record.key.unwrap_or_default(), record.value.unwrap_or_default()))
}
