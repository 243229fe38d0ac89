//! Writes a batch with the bytes that the Java client would write (up to the compressor's choices).

use bytes::{BufMut, Bytes};
use ringlog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::header::attributes;
use super::varint::{varint_len, varlong_len, write_varint, write_varlong};
use super::{BATCH_HEADER_LEN, BATCH_LENGTH_PREFIX_LEN, BatchHeader, Compression, MAGIC, RecordHeader, TimestampType};

/// The idempotent producer's fields of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// -1 for none.
    pub producer_id: ProducerId,
    /// -1 for none.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record; -1 for none.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// Not idempotent.
    pub const NONE: ProducerStamp =
        ProducerStamp { producer_id: ProducerId::NONE, producer_epoch: ProducerEpoch::NONE, base_sequence: -1 };
}

/// What a new batch's header says. Start from `default()`: offset 0, epoch -1, uncompressed, CreateTime, no producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// -1 from a producer; the leader sets it on append.
    pub partition_leader_epoch: LeaderEpoch,
    /// Codec of the records.
    pub compression: Compression,
    /// The codec's level; `None` is its default. Snappy and LZ4 have only one here.
    pub compression_level: Option<i32>,
    /// For LogAppendTime the time of the append; `None` is CreateTime.
    pub log_append_time: Option<TimestampMs>,
    /// The producer's fields.
    pub producer: ProducerStamp,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds control records.
    pub is_control: bool,
    /// Set by compaction: takes the place of the base timestamp.
    pub delete_horizon: Option<TimestampMs>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            base_offset: Offset(0),
            partition_leader_epoch: LeaderEpoch::NONE,
            compression: Compression::None,
            compression_level: None,
            log_append_time: None,
            producer: ProducerStamp::NONE,
            is_transactional: false,
            is_control: false,
            delete_horizon: None,
        }
    }
}

/// Collects records and writes them as one batch.
///
/// The caller bounds what it appends: a batch of 2 GiB or more, or with offsets further apart than 31 bits, is a
/// programmer error and panics.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records; compressed only at the end.
    buffer: Vec<u8>,
    base_timestamp: Option<TimestampMs>,
    max_timestamp: TimestampMs,
    next_offset: Offset,
    last_offset_delta: i32,
    record_count: i32,
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint_len(bytes.len() as i32) + bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            write_varint(out, i32::try_from(bytes.len()).expect("a field is below 2 GiB"));
            out.put_slice(bytes);
        }
        None => write_varint(out, -1),
    }
}

/// Bytes that a record takes in a batch whose value is so long, in bytes, and which has neither key nor headers, nor a
/// timestamp other than the batch's.
pub fn value_record_len(offset_delta: i32, value_len: usize) -> usize {
    let value = varint_len(i32::try_from(value_len).unwrap_or(i32::MAX)) + value_len;
    let body = 1 + varlong_len(0) + varint_len(offset_delta) + nullable_len(None) + value + varint_len(0);
    varint_len(i32::try_from(body).unwrap_or(i32::MAX)) + body
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> BatchBuilder {
        let mut buffer = Vec::with_capacity(512);
        buffer.resize(BATCH_HEADER_LEN, 0);
        BatchBuilder {
            options,
            buffer,
            base_timestamp: options.delete_horizon,
            max_timestamp: TimestampMs::NONE,
            next_offset: options.base_offset,
            last_offset_delta: 0,
            record_count: 0,
        }
    }

    /// Adds a record at the next offset.
    pub fn append(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) -> &mut Self {
        self.append_at(self.next_offset, timestamp, key, value, headers.iter().copied())
    }

    /// Adds a record at `offset`, which isn't before the next one: compaction leaves gaps.
    pub fn append_at<'h>(
        &mut self,
        offset: Offset,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = RecordHeader<'h>> + Clone,
    ) -> &mut Self {
        assert!(offset >= self.next_offset, "offsets in a batch rise");
        let offset_delta =
            i32::try_from(offset.0 - self.options.base_offset.0).expect("a batch spans 31 bits of offsets");
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        let timestamp_delta = timestamp.0.wrapping_sub(base_timestamp.0);
        let (mut header_count, mut headers_len) = (0i32, 0);
        for header in headers.clone() {
            header_count += 1;
            headers_len += nullable_len(Some(header.key)) + nullable_len(header.value);
        }
        let body_len = 1
            + varlong_len(timestamp_delta)
            + varint_len(offset_delta)
            + nullable_len(key)
            + nullable_len(value)
            + varint_len(header_count)
            + headers_len;
        let out = &mut self.buffer;
        write_varint(out, i32::try_from(body_len).expect("a record is below 2 GiB"));
        out.put_u8(0);
        write_varlong(out, timestamp_delta);
        write_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        write_varint(out, header_count);
        for header in headers {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.next_offset = offset.plus(1);
        self.last_offset_delta = offset_delta;
        self.record_count += 1;
        self
    }

    /// Makes the batch end at `offset`, though its last record lies before: compaction keeps a batch's offset range.
    pub fn retain_last_offset(&mut self, offset: Offset) -> &mut Self {
        assert!(offset.plus(1) >= self.next_offset, "the last offset isn't before the last record");
        self.last_offset_delta =
            i32::try_from(offset.0 - self.options.base_offset.0).expect("a batch spans 31 bits of offsets");
        self.next_offset = offset.plus(1);
        self
    }

    /// Sets the largest timestamp for a batch that keeps no record.
    pub fn retain_max_timestamp(&mut self, timestamp: TimestampMs) -> &mut Self {
        self.max_timestamp = timestamp;
        self
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch so far if it isn't compressed.
    pub fn uncompressed_size(&self) -> usize {
        self.buffer.len()
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The finished batch.
    pub fn build(self) -> Bytes {
        let BatchBuilder { options, mut buffer, .. } = self;
        if options.compression != Compression::None {
            let mut compressed = Vec::with_capacity(BATCH_HEADER_LEN + buffer.len() / 2);
            compressed.resize(BATCH_HEADER_LEN, 0);
            options.compression.compress_into(&buffer[BATCH_HEADER_LEN..], options.compression_level, &mut compressed);
            buffer = compressed;
        }
        let timestamp_type = match options.log_append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        };
        let mut header = BatchHeader {
            base_offset: options.base_offset,
            batch_length: i32::try_from(buffer.len() - BATCH_LENGTH_PREFIX_LEN).expect("a batch is below 2 GiB"),
            partition_leader_epoch: options.partition_leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: attributes(
                options.compression,
                timestamp_type,
                options.is_transactional,
                options.is_control,
                options.delete_horizon.is_some(),
            ),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(TimestampMs::NONE),
            max_timestamp: options.log_append_time.unwrap_or(self.max_timestamp),
            producer_id: options.producer.producer_id,
            producer_epoch: options.producer.producer_epoch,
            base_sequence: options.producer.base_sequence,
            record_count: self.record_count,
        };
        header.seal(&buffer[BATCH_HEADER_LEN..]);
        buffer[..BATCH_HEADER_LEN].copy_from_slice(&header.encode());
        Bytes::from(buffer)
    }
}
