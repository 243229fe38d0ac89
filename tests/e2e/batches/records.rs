//! Records and batches written field by field, so that each field can lie.

use ringlog_protocol::records::varint::{write_varint, write_varlong};
use ringlog_protocol::records::{BATCH_HEADER_LEN, BATCH_LENGTH_PREFIX_LEN, BatchHeader, Compression, MAGIC};
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// The time of ordinary records. Long ago, so that no clock matters.
pub const PAST_MS: i64 = 1_700_000_000_000;

/// One record, as it shall be written.
#[derive(Debug, Clone)]
pub struct RecordPlan {
    /// What the length field says more than there is.
    pub length_lie: i32,
    /// The attributes, of which there are none.
    pub attributes: u8,
    /// Added to the base timestamp.
    pub timestamp_delta: i64,
    /// Added to the base offset.
    pub offset_delta: i32,
    /// The key's length field and its bytes.
    pub key: (i32, Vec<u8>),
    /// The value's length field and its bytes.
    pub value: (i32, Vec<u8>),
    /// The number of headers that is written.
    pub header_count: i32,
    /// The bytes that follow it.
    pub headers: Vec<u8>,
}

/// A length field and the bytes that it speaks of.
pub fn sized(bytes: &[u8]) -> (i32, Vec<u8>) {
    (i32::try_from(bytes.len()).unwrap_or(i32::MAX), bytes.to_vec())
}

/// A record's header: the key's length field, key, the value's length field, value.
pub fn header(key_length: i32, key: &[u8], value_length: i32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, key_length);
    out.extend_from_slice(key);
    write_varint(&mut out, value_length);
    out.extend_from_slice(value);
    out
}

impl RecordPlan {
    /// A good record.
    pub fn good(index: i32) -> RecordPlan {
        RecordPlan {
            length_lie: 0,
            attributes: 0,
            timestamp_delta: i64::from(index),
            offset_delta: index,
            key: sized(format!("key {index}").as_bytes()),
            value: sized(format!("the value of record {index}, the value of record {index}").as_bytes()),
            header_count: 1,
            headers: header(1, b"h", 2, b"hv"),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut body = vec![self.attributes];
        write_varlong(&mut body, self.timestamp_delta);
        write_varint(&mut body, self.offset_delta);
        for (length, bytes) in [&self.key, &self.value] {
            write_varint(&mut body, *length);
            body.extend_from_slice(bytes);
        }
        write_varint(&mut body, self.header_count);
        body.extend_from_slice(&self.headers);
        write_varint(out, i32::try_from(body.len()).unwrap_or(i32::MAX).wrapping_add(self.length_lie));
        out.extend_from_slice(&body);
    }
}

/// The records' bytes, not yet compressed.
pub fn written(records: &[RecordPlan]) -> Vec<u8> {
    let mut out = Vec::new();
    records.iter().for_each(|record| record.write(&mut out));
    out
}

/// So many good records.
pub fn good_records(count: i32) -> Vec<RecordPlan> {
    (0..count).map(RecordPlan::good).collect()
}

/// The header that is right for so many good records.
pub fn good_header(compression: Compression, count: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        batch_length: 0,
        partition_leader_epoch: LeaderEpoch(-1),
        magic: MAGIC,
        crc: 0,
        attributes: i16::from(compression.id()),
        last_offset_delta: count - 1,
        base_timestamp: TimestampMs(PAST_MS),
        max_timestamp: TimestampMs(PAST_MS + i64::from(count) - 1),
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: count,
    }
}

/// A batch with this header, whose length and checksum are made right.
pub fn sealed(mut header: BatchHeader, payload: &[u8]) -> Vec<u8> {
    header.batch_length = (BATCH_HEADER_LEN - BATCH_LENGTH_PREFIX_LEN + payload.len()) as i32;
    header.seal(payload);
    [&header.encode()[..], payload].concat()
}
