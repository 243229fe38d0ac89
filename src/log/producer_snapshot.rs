//! `<offset>.snapshot`: what is known of a partition's producers at that offset.
//!
//! int16 version (1), uint32 CRC-32C of what follows it, int32 count, then entries of 46 bytes: producer id i64, epoch
//! i16, last sequence i32, last offset i64, offset delta i32, timestamp i64, coordinator epoch i32, first offset of the
//! open transaction i64.

use ringlog_types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

const VERSION: i16 = 1;
const CRC_START: usize = 2;
const CRC_END: usize = 6;
const HEADER_LEN: usize = 10;
const ENTRY_LEN: usize = 46;

/// One producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSnapshotEntry {
    /// Whose state it is.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Last sequence of its last batch; -1 after a marker.
    pub last_sequence: i32,
    /// Last offset of its last batch; -1 when there is none.
    pub last_offset: Offset,
    /// Last less first offset of its last batch.
    pub offset_delta: i32,
    /// Timestamp of its last batch or marker.
    pub timestamp: TimestampMs,
    /// Epoch of the coordinator that wrote its last marker; -1 when there is none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, if it has one; -1 in the file when not.
    pub current_transaction_first_offset: Option<Offset>,
}

/// A snapshot that can't be used: an older one, or the log from its start, gives the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerSnapshotError {
    /// The size isn't that of the entries it claims.
    #[error("producer snapshot of {0} bytes doesn't fit its number of entries")]
    InvalidSize(usize),
    /// Another version.
    #[error("producer snapshot version {0} is not supported")]
    UnsupportedVersion(i16),
    /// The bytes don't match their checksum.
    #[error("producer snapshot is corrupt (CRC is no longer valid). Stored crc: {stored}. Computed crc: {computed}")]
    CrcMismatch {
        /// What the file says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// The file's content.
pub fn encode_producer_snapshot(entries: &[ProducerSnapshotEntry]) -> Vec<u8> {
    let count = i32::try_from(entries.len()).expect("fewer than 2^31 producers");
    let mut out = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&count.to_be_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.producer_id.0.to_be_bytes());
        out.extend_from_slice(&entry.producer_epoch.0.to_be_bytes());
        out.extend_from_slice(&entry.last_sequence.to_be_bytes());
        out.extend_from_slice(&entry.last_offset.0.to_be_bytes());
        out.extend_from_slice(&entry.offset_delta.to_be_bytes());
        out.extend_from_slice(&entry.timestamp.0.to_be_bytes());
        out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        let first_offset = entry.current_transaction_first_offset.unwrap_or(Offset::NONE);
        out.extend_from_slice(&first_offset.0.to_be_bytes());
    }
    let crc = crc32c::crc32c(&out[CRC_END..]);
    out[CRC_START..CRC_END].copy_from_slice(&crc.to_be_bytes());
    out
}

/// Reads a file's content.
pub fn decode_producer_snapshot(bytes: &[u8]) -> Result<Vec<ProducerSnapshotEntry>, ProducerSnapshotError> {
    let invalid_size = ProducerSnapshotError::InvalidSize(bytes.len());
    let header = bytes.first_chunk::<HEADER_LEN>().ok_or(invalid_size)?;
    let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *header;
    let version = i16::from_be_bytes([v0, v1]);
    if version != VERSION {
        return Err(ProducerSnapshotError::UnsupportedVersion(version));
    }
    let (stored, computed) = (u32::from_be_bytes([c0, c1, c2, c3]), crc32c::crc32c(&bytes[CRC_END..]));
    if stored != computed {
        return Err(ProducerSnapshotError::CrcMismatch { stored, computed });
    }
    let (entries, rest) = bytes[HEADER_LEN..].as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() || usize::try_from(i32::from_be_bytes([n0, n1, n2, n3])) != Ok(entries.len()) {
        return Err(invalid_size);
    }
    Ok(entries.iter().map(decode_entry).collect())
}

fn decode_entry(entry: &[u8; ENTRY_LEN]) -> ProducerSnapshotEntry {
    fn field<const N: usize>(entry: &[u8; ENTRY_LEN], at: usize) -> [u8; N] {
        entry[at..at + N].try_into().expect("the fields lie within the entry")
    }
    let first_offset = i64::from_be_bytes(field(entry, 38));
    ProducerSnapshotEntry {
        producer_id: ProducerId(i64::from_be_bytes(field(entry, 0))),
        producer_epoch: ProducerEpoch(i16::from_be_bytes(field(entry, 8))),
        last_sequence: i32::from_be_bytes(field(entry, 10)),
        last_offset: Offset(i64::from_be_bytes(field(entry, 14))),
        offset_delta: i32::from_be_bytes(field(entry, 22)),
        timestamp: TimestampMs(i64::from_be_bytes(field(entry, 26))),
        coordinator_epoch: i32::from_be_bytes(field(entry, 34)),
        current_transaction_first_offset: (first_offset >= 0).then_some(Offset(first_offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        let empty = encode_producer_snapshot(&[]);
        assert_eq!(empty, [0, 1, 0x48, 0x67, 0x4b, 0xc7, 0, 0, 0, 0]);
        assert_eq!(decode_producer_snapshot(&empty), Ok(Vec::new()));
        assert_eq!(decode_producer_snapshot(&empty[..9]), Err(ProducerSnapshotError::InvalidSize(9)));
        let mut bytes = empty.clone();
        bytes[1] = 2;
        assert_eq!(decode_producer_snapshot(&bytes), Err(ProducerSnapshotError::UnsupportedVersion(2)));
        let mut bytes = empty;
        bytes[9] = 1;
        assert!(matches!(decode_producer_snapshot(&bytes), Err(ProducerSnapshotError::CrcMismatch { .. })));
        let crc = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(decode_producer_snapshot(&bytes), Err(ProducerSnapshotError::InvalidSize(10)));
    }
}
