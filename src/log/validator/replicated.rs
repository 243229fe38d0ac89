//! What a follower checks in batches that a leader sent: whole, uncorrupted, in order and of a known epoch.

use ringlog_protocol::records::{BatchError, BatchHeader, BatchIter};
use ringlog_types::{ErrorCode, LeaderEpoch, Offset};

/// The batches at the start of a fetch response that a follower may append, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicatedBatches {
    /// Their headers, in order; they are contiguous from byte 0.
    pub headers: Vec<BatchHeader>,
    /// Their bytes.
    pub valid_bytes: usize,
}

/// Why nothing of a leader's bytes can be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationError {
    /// A batch is malformed or doesn't match its checksum.
    #[error("batch at byte {position}: {fault}")]
    Corrupt {
        /// Where it starts.
        position: usize,
        /// What is wrong with it.
        fault: BatchError,
    },
    /// A batch doesn't lie after the one before it, or not at or after the log's end.
    #[error("batch at offset {found} where {expected} or more is expected")]
    OutOfOrder {
        /// Its base offset.
        found: Offset,
        /// The end of what is before it.
        expected: Offset,
    },
}

impl ReplicationError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            ReplicationError::Corrupt { .. } => ErrorCode::CorruptMessage,
            ReplicationError::OutOfOrder { .. } => ErrorCode::OffsetOutOfRange,
        }
    }
}

/// Checks what a follower fetched. A batch cut off at the end isn't there yet; from the first batch on whose epoch is above
/// `leader_epoch` all are left out (the follower's metadata is behind the leader's).
///
/// Offsets may have gaps, as compaction leaves them, but never go back. The first batch may hold offsets below those
/// asked for when the log is still empty; the caller then starts the log at that batch and passes its base offset.
pub fn check_replicated(
    records: &[u8],
    log_end_offset: Offset,
    leader_epoch: LeaderEpoch,
) -> Result<ReplicatedBatches, ReplicationError> {
    let mut found = ReplicatedBatches::default();
    let mut expected = log_end_offset;
    let mut iter = BatchIter::new(records);
    loop {
        let position = iter.position();
        let Some(batch) = iter.next() else { break };
        let batch = match batch {
            Ok(batch) => batch,
            Err(BatchError::Incomplete { .. }) => break,
            Err(fault) => return Err(ReplicationError::Corrupt { position, fault }),
        };
        if batch.header.partition_leader_epoch > leader_epoch {
            break;
        }
        batch.verify_crc().map_err(|fault| ReplicationError::Corrupt { position, fault })?;
        if batch.header.base_offset < expected {
            return Err(ReplicationError::OutOfOrder { found: batch.header.base_offset, expected });
        }
        expected = batch.header.next_offset();
        found.valid_bytes += batch.bytes.len();
        found.headers.push(batch.header);
    }
    Ok(found)
}
