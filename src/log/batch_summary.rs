//! What the log remembers of a record batch: its header's fields, and the content of a transaction marker.

use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// How records came to this replica; decides which checks apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// From a producer: everything is checked.
    Client,
    /// From this broker's own coordinator, such as a transaction marker or group state: sequences are not checked.
    Coordinator,
    /// From the leader, or read back at recovery: already accepted once, so only applied.
    Replication,
}

/// The end of a transaction, as a control batch carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Commit or abort.
    pub is_commit: bool,
    /// Epoch of the transaction coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// One batch as the log and its producer state see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSummary {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record; compaction keeps it even when that record is gone.
    pub last_offset: Offset,
    /// Whole batch with its header, in bytes.
    pub size: u32,
    /// Epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Largest timestamp of its records.
    pub max_timestamp: TimestampMs,
    /// `-1` when the producer is not idempotent.
    pub producer_id: ProducerId,
    /// `-1` when the producer is not idempotent.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record; `-1` for markers and when the producer is not idempotent.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// A control batch.
    pub control: bool,
    /// The marker inside, when this is a control batch that ends a transaction.
    pub marker: Option<EndTransactionMarker>,
}

impl BatchSummary {
    /// The offset after the last record.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.last_offset.plus(1)
    }

    /// Sequence of the last record, wrapping from `i32::MAX` to 0.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        sequence_plus(self.base_sequence, (self.last_offset.0 - self.base_offset.0) as i32)
    }

    /// Whether the batch names a producer.
    #[inline]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 > -1
    }
}

/// `sequence + increment`, wrapping from `i32::MAX` to 0 as producers count.
#[inline]
pub fn sequence_plus(sequence: i32, increment: i32) -> i32 {
    ((i64::from(sequence) + i64::from(increment)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_plus(5, 3), 8);
        assert_eq!(sequence_plus(i32::MAX, 0), i32::MAX);
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 4), 2);
    }
}
