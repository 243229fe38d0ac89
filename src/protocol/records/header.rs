//! The 61 bytes before a batch's records, and the changes that a leader makes to them.
//!
//! ```text
//!  0 base offset i64 | 8 batch length i32 | 12 leader epoch i32 | 16 magic i8 | 17 CRC-32C u32
//! 21 attributes i16  | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//!
//! The CRC covers byte 21 to the end: base offset and leader epoch may change without it.

use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::{Compression, DecompressError, RecordError};

/// Bytes of a batch before its records.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes that the batch length doesn't count: base offset and the length itself.
pub const BATCH_LENGTH_PREFIX_LEN: usize = 12;
/// The only batch format that Kafka 4 writes or takes.
pub const MAGIC: i8 = 2;

pub(crate) const CRC_START: usize = 17;
pub(crate) const ATTRIBUTES_START: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;
/// Bits that mean something. Kafka drops the others where it changes attributes.
const KNOWN_BITS: i16 = 0x7f;

/// Why bytes are no usable batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does. At the end of a fetched block or of a torn file that is normal.
    #[error("the batch needs {needed} bytes but only {available} are there")]
    Incomplete {
        /// Bytes that the batch takes, as far as is known.
        needed: usize,
        /// Bytes from the batch's start to the end of the input.
        available: usize,
    },
    /// The batch length is below what a header takes, or negative.
    #[error("batch length {0} is out of range")]
    InvalidLength(i32),
    /// A batch of another format.
    #[error("magic {0} is not supported")]
    UnsupportedMagic(i8),
    /// The bytes don't match their checksum.
    #[error("stored CRC is {stored:#010x}, computed is {computed:#010x}")]
    CrcMismatch {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Attribute bits 0 to 2 name no codec.
    #[error("compression type {0} is unknown")]
    UnknownCompression(u8),
    /// The record count is negative.
    #[error("record count {0} is negative")]
    InvalidRecordCount(i32),
    /// The last offset delta is negative, or the offsets pass the end of 64 bits.
    #[error("base offset {base_offset} with last offset delta {last_offset_delta} is out of range")]
    InvalidOffsets {
        /// The header's base offset.
        base_offset: i64,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// The records can't be decompressed, or are larger than allowed.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record is malformed.
    #[error("record {index}: {fault}")]
    Record {
        /// The record's place in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        fault: RecordError,
    },
    /// Bytes are left after the last record.
    #[error("{0} bytes follow the last record")]
    TrailingBytes(usize),
}

/// Which clock gave the timestamps of a batch (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    #[default]
    CreateTime,
    /// The leader's when it appended the batch: one for all records.
    LogAppendTime,
}

/// A batch's header, decoded. Parsing checks the magic, that the length holds a header, that record count and last
/// offset delta aren't negative and that the last offset fits; it neither checks the CRC nor the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, as it was written (compaction may have removed that record).
    pub base_offset: Offset,
    /// Bytes after this field: the size less 12. At least 49.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: LeaderEpoch,
    /// Always [`MAGIC`].
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec and flags; use the methods.
    pub attributes: i16,
    /// Last offset less base offset; never negative.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are added to; the delete horizon when that flag is set.
    pub base_timestamp: TimestampMs,
    /// The largest timestamp; with LogAppendTime that of every record.
    pub max_timestamp: TimestampMs,
    /// -1 when the producer isn't idempotent.
    pub producer_id: ProducerId,
    /// -1 when the producer isn't idempotent.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record; -1 when there is none.
    pub base_sequence: i32,
    /// Number of records; may be 0 after compaction.
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the fields lie within the header")
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may end before the batch does.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(Self::fault_of_short(bytes));
        };
        let header = BatchHeader::decode(bytes);
        header.check()?;
        Ok(header)
    }

    /// The fields as they are, unchecked.
    pub fn decode(bytes: &[u8; BATCH_HEADER_LEN]) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field(bytes, 0))),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, 12))),
            magic: bytes[16] as i8,
            crc: u32::from_be_bytes(field(bytes, CRC_START)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_START)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: TimestampMs(i64::from_be_bytes(field(bytes, 27))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(bytes, 35))),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        }
    }

    fn fault_of_short(bytes: &[u8]) -> BatchError {
        if let Some(&magic) = bytes.get(16)
            && magic as i8 != MAGIC
        {
            return BatchError::UnsupportedMagic(magic as i8);
        }
        if let Some(length) = bytes.get(8..12).and_then(|field| field.first_chunk::<4>()) {
            let length = i32::from_be_bytes(*length);
            if length < (BATCH_HEADER_LEN - BATCH_LENGTH_PREFIX_LEN) as i32 {
                return BatchError::InvalidLength(length);
            }
        }
        BatchError::Incomplete { needed: BATCH_HEADER_LEN, available: bytes.len() }
    }

    /// What [`BatchHeader::parse`] checks.
    pub fn check(&self) -> Result<(), BatchError> {
        // The magic comes first: another format has another header, so no other field means anything.
        if self.magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(self.magic));
        }
        if self.batch_length < (BATCH_HEADER_LEN - BATCH_LENGTH_PREFIX_LEN) as i32 {
            return Err(BatchError::InvalidLength(self.batch_length));
        }
        if self.record_count < 0 {
            return Err(BatchError::InvalidRecordCount(self.record_count));
        }
        let next_offset = self.base_offset.0.checked_add(i64::from(self.last_offset_delta) + 1);
        if self.last_offset_delta < 0 || next_offset.is_none() {
            let (base_offset, last_offset_delta) = (self.base_offset.0, self.last_offset_delta);
            return Err(BatchError::InvalidOffsets { base_offset, last_offset_delta });
        }
        Ok(())
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut out = [0; BATCH_HEADER_LEN];
        out[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.0.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Sets [`Self::crc`] for these header fields and records (compressed as they are stored).
    pub fn seal(&mut self, payload: &[u8]) {
        let head = crc32c::crc32c(&self.encode()[ATTRIBUTES_START..]);
        self.crc = crc32c::crc32c_append(head, payload);
    }

    /// Bytes of the whole batch.
    #[inline]
    pub fn size_in_bytes(&self) -> usize {
        self.batch_length as usize + BATCH_LENGTH_PREFIX_LEN
    }

    /// The offset of the last record as it was written.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta) + 1)
    }

    /// How the records are compressed.
    #[inline]
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes & COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// Whose clock the timestamps are from.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch belongs to a transaction (data or marker).
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the records are control records, which consumers never see.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// When compaction may drop the batch's tombstones or markers, once it has set that (KIP-534).
    #[inline]
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote it.
    #[inline]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// Sequence of the last record; -1 when there is none.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == -1 { -1 } else { super::sequence_plus(self.base_sequence, self.last_offset_delta) }
    }

    /// Sets timestamp type and largest timestamp. The CRC, which was right before, is so after; that takes no pass over the
    /// records, as a CRC is linear in the bytes that change.
    pub fn set_max_timestamp(&mut self, timestamp_type: TimestampType, max_timestamp: TimestampMs) {
        let head_crc = |header: &BatchHeader| crc32c::crc32c(&header.encode()[ATTRIBUTES_START..]);
        let before = head_crc(self);
        self.attributes = with_timestamp_type(self.attributes, timestamp_type);
        self.max_timestamp = max_timestamp;
        let change = before ^ head_crc(self);
        self.crc ^= crc32c::crc32c_combine(change, 0, self.size_in_bytes() - BATCH_HEADER_LEN);
    }
}

fn with_timestamp_type(attributes: i16, timestamp_type: TimestampType) -> i16 {
    match timestamp_type {
        TimestampType::CreateTime => attributes & KNOWN_BITS & !TIMESTAMP_TYPE_BIT,
        TimestampType::LogAppendTime => attributes & KNOWN_BITS | TIMESTAMP_TYPE_BIT,
    }
}

/// Puts the attribute bits together.
pub(crate) fn attributes(
    compression: Compression,
    timestamp_type: TimestampType,
    is_transactional: bool,
    is_control: bool,
    has_delete_horizon: bool,
) -> i16 {
    let flag = |set: bool, bit: i16| if set { bit } else { 0 };
    i16::from(compression.id())
        | flag(timestamp_type == TimestampType::LogAppendTime, TIMESTAMP_TYPE_BIT)
        | flag(is_transactional, TRANSACTIONAL_BIT)
        | flag(is_control, CONTROL_BIT)
        | flag(has_delete_horizon, DELETE_HORIZON_BIT)
}

/// Sets where the batch at the start of `batch` lies and who appended it. The CRC doesn't cover either.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_base_offset_and_epoch(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= BATCH_HEADER_LEN, "a batch has at least a header");
    batch[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Marks the batch as LogAppendTime with this timestamp and computes its CRC anew. `batch` is exactly one batch.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_log_append_time(batch: &mut [u8], timestamp: TimestampMs) {
    set_max_timestamp(batch, TimestampType::LogAppendTime, timestamp);
}

/// Sets timestamp type and largest timestamp, and computes the CRC anew if that changed the batch. `batch` is exactly one
/// batch.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_max_timestamp(batch: &mut [u8], timestamp_type: TimestampType, timestamp: TimestampMs) {
    assert!(batch.len() >= BATCH_HEADER_LEN, "a batch has at least a header");
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES_START], batch[ATTRIBUTES_START + 1]]);
    let is_append_time = attributes & TIMESTAMP_TYPE_BIT != 0;
    if is_append_time == (timestamp_type == TimestampType::LogAppendTime) && batch[35..43] == timestamp.0.to_be_bytes()
    {
        return;
    }
    let attributes = with_timestamp_type(attributes, timestamp_type);
    batch[ATTRIBUTES_START..ATTRIBUTES_START + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.0.to_be_bytes());
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_START..]);
    batch[CRC_START..ATTRIBUTES_START].copy_from_slice(&crc.to_be_bytes());
}
