//! Control records: what leaders write into a log between the data.

use bytes::Bytes;
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::{BatchBuilder, BatchOptions, ProducerStamp};

/// The type in a control record's key: int16 version (0), int16 type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum ControlRecordType {
    /// Ends a transaction, its records don't count.
    Abort = 0,
    /// Ends a transaction, its records count.
    Commit = 1,
    /// First record of a leader's epoch in a KRaft log.
    LeaderChange = 2,
    /// Opens a snapshot file.
    SnapshotHeader = 3,
    /// Closes a snapshot file.
    SnapshotFooter = 4,
    /// The finalized `kraft.version` (KIP-853).
    KRaftVersion = 5,
    /// The voter set (KIP-853).
    KRaftVoters = 6,
}

impl ControlRecordType {
    /// Reads a control record's key. `None`: no such type, or the key is too short. A newer key version may add fields at
    /// the end, which are left alone.
    pub fn parse_key(key: &[u8]) -> Option<ControlRecordType> {
        let (version, rest) = key.split_first_chunk::<2>()?;
        let (code, _) = rest.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes(*code) {
            0 => ControlRecordType::Abort,
            1 => ControlRecordType::Commit,
            2 => ControlRecordType::LeaderChange,
            3 => ControlRecordType::SnapshotHeader,
            4 => ControlRecordType::SnapshotFooter,
            5 => ControlRecordType::KRaftVersion,
            6 => ControlRecordType::KRaftVoters,
            _ => return None,
        })
    }

    /// The key's bytes.
    pub fn key(self) -> [u8; 4] {
        let [high, low] = (self as i16).to_be_bytes();
        [0, 0, high, low]
    }
}

/// A transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Commit or abort.
    pub is_commit: bool,
    /// Leader epoch of the transaction coordinator's partition, which fences older coordinators.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads a control record. `None`: it is no marker, or malformed.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<EndTransactionMarker> {
        let is_commit = match ControlRecordType::parse_key(key)? {
            ControlRecordType::Commit => true,
            ControlRecordType::Abort => false,
            _ => return None,
        };
        let (version, rest) = value.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        let (epoch, _) = rest.split_first_chunk::<4>()?;
        Some(EndTransactionMarker { is_commit, coordinator_epoch: i32::from_be_bytes(*epoch) })
    }

    /// The record's key.
    pub fn key(&self) -> [u8; 4] {
        if self.is_commit { ControlRecordType::Commit.key() } else { ControlRecordType::Abort.key() }
    }

    /// The record's value: int16 version (0), int32 coordinator epoch.
    pub fn value(&self) -> [u8; 6] {
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        value
    }
}

/// A batch of control records: type, and value beginning with its int16 version.
pub fn control_batch(
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    timestamp: TimestampMs,
    records: &[(ControlRecordType, &[u8])],
) -> Bytes {
    let options =
        BatchOptions { base_offset, partition_leader_epoch: leader_epoch, is_control: true, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for (record_type, value) in records {
        builder.append(timestamp, Some(&record_type.key()), Some(value), &[]);
    }
    builder.build()
}

/// The batch that ends a producer's transaction in a partition.
pub fn end_transaction_batch(
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    timestamp: TimestampMs,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    marker: EndTransactionMarker,
) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset,
        partition_leader_epoch: leader_epoch,
        producer: ProducerStamp { producer_id, producer_epoch, base_sequence: -1 },
        is_transactional: true,
        is_control: true,
        ..BatchOptions::default()
    });
    builder.append(timestamp, Some(&marker.key()), Some(&marker.value()), &[]);
    builder.build()
}
