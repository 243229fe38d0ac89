//! One record: varint length, attributes (always 0), timestamp delta, offset delta, key, value, headers.

use ringlog_types::{Offset, TimestampMs};

use super::varint::{VarintError, read_varint, read_varlong};
use super::{BatchError, BatchHeader, TimestampType};

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A number in it can't be read.
    #[error(transparent)]
    Varint(#[from] VarintError),
    /// A length is negative where it can't be, or passes the end of what it lies in.
    #[error("length {0} is out of range")]
    InvalidLength(i32),
    /// The number of headers is negative or more than the record's bytes can hold.
    #[error("header count {0} is out of range")]
    InvalidHeaderCount(i32),
    /// The batch ends before its records do.
    #[error("the records end before it does")]
    CutOff,
    /// The record's fields end before its length does.
    #[error("{0} bytes of the record are left over")]
    TrailingBytes(usize),
}

/// A record, as a view into its batch (or into the [`super::Scratch`] it was decompressed to).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Where the record lies in the partition.
    pub offset: Offset,
    /// Its time, by the batch's timestamp type.
    pub timestamp: TimestampMs,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, whose framing was checked.
    pub headers: RecordHeaders<'a>,
    /// Bytes of the whole record, uncompressed, its length field included.
    pub size_in_bytes: usize,
}

/// A record header (KIP-82).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The key: UTF-8 by Kafka's rules, which nobody checks.
    pub key: &'a [u8],
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

/// A record's headers: an iterator that can be copied to start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordHeaders<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl RecordHeaders<'_> {
    /// How many are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.count = self.count.checked_sub(1)?;
        // The framing was checked when the record was read.
        read_header(&mut self.bytes).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

#[inline]
fn take<'a>(input: &mut &'a [u8], len: i32) -> Result<&'a [u8], RecordError> {
    let fault = RecordError::InvalidLength(len);
    let (taken, rest) = input.split_at_checked(usize::try_from(len).map_err(|_| fault)?).ok_or(fault)?;
    *input = rest;
    Ok(taken)
}

#[inline]
fn take_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    // Any negative length is null in Kafka's reader, though writers use -1 only.
    let len = read_varint(input)?;
    if len < 0 { Ok(None) } else { take(input, len).map(Some) }
}

fn read_header<'a>(input: &mut &'a [u8]) -> Result<RecordHeader<'a>, RecordError> {
    let key_len = read_varint(input)?;
    let key = take(input, key_len)?;
    let value = take_nullable(input)?;
    Ok(RecordHeader { key, value })
}

/// A record before offset and timestamp are made absolute.
pub(super) struct RawRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: RecordHeaders<'a>,
    size_in_bytes: usize,
}

pub(super) fn read_record<'a>(input: &mut &'a [u8]) -> Result<RawRecord<'a>, RecordError> {
    let before = input.len();
    let len = read_varint(input)?;
    let mut body = take(input, len)?;
    let size_in_bytes = before - input.len();
    take(&mut body, 1)?;
    let timestamp_delta = read_varlong(&mut body)?;
    let offset_delta = read_varint(&mut body)?;
    let key = take_nullable(&mut body)?;
    let value = take_nullable(&mut body)?;
    let count = read_varint(&mut body)?;
    // A header takes at least two bytes.
    let bounded = usize::try_from(count).ok().filter(|count| *count <= body.len() / 2);
    let count = bounded.ok_or(RecordError::InvalidHeaderCount(count))?;
    let headers = RecordHeaders { bytes: body, count };
    for _ in 0..count {
        read_header(&mut body)?;
    }
    if !body.is_empty() {
        return Err(RecordError::TrailingBytes(body.len()));
    }
    Ok(RawRecord { timestamp_delta, offset_delta, key, value, headers, size_in_bytes })
}

/// Walks a batch's records. Bounded by the batch's record count and by its bytes. The first error ends it; bytes that
/// are left after the last record are an error too. As in Kafka, offset deltas aren't checked against each other or
/// against the header: the append path does that.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: BatchHeader,
    input: &'a [u8],
    index: i32,
    failed: bool,
}

impl<'a> RecordIter<'a> {
    /// Over the uncompressed records of a batch with this header.
    pub fn new(header: BatchHeader, records: &'a [u8]) -> RecordIter<'a> {
        RecordIter { header, input: records, index: 0, failed: false }
    }

    fn read(&mut self) -> Result<RecordRef<'a>, RecordError> {
        let raw = read_record(&mut self.input)?;
        // Both wrap, as in Java.
        let offset = self.header.base_offset.0.wrapping_add(i64::from(raw.offset_delta));
        let timestamp = match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp,
            TimestampType::CreateTime => TimestampMs(self.header.base_timestamp.0.wrapping_add(raw.timestamp_delta)),
        };
        Ok(RecordRef {
            offset: Offset(offset),
            timestamp,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
            size_in_bytes: raw.size_in_bytes,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index >= self.header.record_count {
            self.failed = true;
            return (!self.input.is_empty()).then_some(Err(BatchError::TrailingBytes(self.input.len())));
        }
        let index = self.index;
        self.index += 1;
        let record = self.read().map_err(|fault| BatchError::Record { index, fault });
        self.failed = record.is_err();
        Some(record)
    }
}
