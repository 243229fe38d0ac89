//! Looks at every record of a batch as its bytes come by, and keeps none of them.

use super::record::{RecordError, read_record};
use super::varint::{read_varint, read_varlong};
use super::{BatchError, UNREAD_MAX};

/// What a [`RecordWalk`] tells of a record. Deltas are to the header's base offset and timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSketch {
    /// The record's place in the batch, from 0.
    pub index: i32,
    /// Added to the base timestamp.
    pub timestamp_delta: i64,
    /// Added to the base offset.
    pub offset_delta: i32,
    /// Bytes of the key; `None` for null.
    pub key_len: Option<usize>,
    /// Bytes of the value; `None` for null.
    pub value_len: Option<usize>,
}

/// Reads records from pieces that end anywhere. As strict as [`super::RecordIter`].
#[derive(Debug)]
pub struct RecordWalk {
    count: i32,
    index: i32,
    /// Within a record whose bytes didn't come in one piece.
    within: Option<Within>,
}

/// Where a walk is within a record.
#[derive(Debug)]
struct Within {
    sketch: RecordSketch,
    /// Bytes of the record that are still to come.
    left: usize,
    /// Of them, those that come first and needn't be looked at.
    skip: usize,
    next: Field,
    headers_left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Key,
    Value,
    HeaderCount,
    HeaderKey,
    HeaderValue,
    End,
}

/// Bytes of the longest varint, and of attributes, timestamp and offset together.
const VARINT_LEN_MAX: usize = 10;
const START_LEN_MAX: usize = 1 + 10 + 5;
const LENGTH_LEN_MAX: usize = 5;

const _: () = assert!(START_LEN_MAX <= UNREAD_MAX && VARINT_LEN_MAX <= UNREAD_MAX);

impl RecordWalk {
    /// Over so many records.
    pub fn new(count: i32) -> RecordWalk {
        RecordWalk { count, index: 0, within: None }
    }

    /// Looks at what can be read of `bytes`, the next piece, and tells of each record that ends in it. Returns how many bytes
    /// are left over: they come again at the start of the next piece, and are [`UNREAD_MAX`] at most.
    pub fn advance(&mut self, bytes: &[u8], mut tell: impl FnMut(RecordSketch)) -> Result<usize, BatchError> {
        let mut input = bytes;
        while !input.is_empty() {
            if self.within.is_none() {
                if self.index >= self.count {
                    return Err(BatchError::TrailingBytes(input.len()));
                }
                let begun = self.begin_record(&mut input, &mut tell).map_err(|fault| self.fault(fault))?;
                if !begun {
                    break;
                }
            }
            if let Some(within) = &mut self.within {
                let index = self.index;
                let is_done = within.advance(&mut input).map_err(|fault| BatchError::Record { index, fault })?;
                if !is_done {
                    break;
                }
                tell(within.sketch);
                self.index += 1;
                self.within = None;
            }
        }
        Ok(input.len())
    }

    /// What is said at the end, where `unread` bytes were left over.
    pub fn end(&self, unread: usize) -> Result<(), BatchError> {
        if self.index == self.count && self.within.is_none() && unread == 0 {
            return Ok(());
        }
        Err(self.fault(RecordError::CutOff))
    }

    fn fault(&self, fault: RecordError) -> BatchError {
        BatchError::Record { index: self.index, fault }
    }

    /// Reads a record that is there as a whole, or begins with one that isn't. False if not even its length is there.
    fn begin_record(&mut self, input: &mut &[u8], tell: &mut impl FnMut(RecordSketch)) -> Result<bool, RecordError> {
        let mut ahead = *input;
        let len = match read_varint(&mut ahead) {
            Ok(len) => len,
            Err(_) if input.len() < LENGTH_LEN_MAX => return Ok(false),
            Err(fault) => return Err(fault.into()),
        };
        let left = usize::try_from(len).map_err(|_| RecordError::InvalidLength(len))?;
        if left <= ahead.len() {
            let record = read_record(input)?;
            tell(RecordSketch {
                index: self.index,
                timestamp_delta: record.timestamp_delta,
                offset_delta: record.offset_delta,
                key_len: record.key.map(<[u8]>::len),
                value_len: record.value.map(<[u8]>::len),
            });
            self.index += 1;
            return Ok(true);
        }
        *input = ahead;
        let sketch =
            RecordSketch { index: self.index, timestamp_delta: 0, offset_delta: 0, key_len: None, value_len: None };
        self.within = Some(Within { sketch, left, skip: 0, next: Field::Start, headers_left: 0 });
        Ok(true)
    }
}

impl Within {
    /// Whether the record has come to its end.
    fn advance(&mut self, input: &mut &[u8]) -> Result<bool, RecordError> {
        loop {
            let skipped = self.skip.min(input.len());
            *input = &input[skipped..];
            (self.skip, self.left) = (self.skip - skipped, self.left - skipped);
            if self.next == Field::End && self.skip == 0 {
                return if self.left == 0 { Ok(true) } else { Err(RecordError::TrailingBytes(self.left)) };
            }
            // What the field may need, unless the record ends before.
            let wanted = if self.next == Field::Start { START_LEN_MAX } else { VARINT_LEN_MAX };
            if self.skip > 0 || input.len() < wanted.min(self.left) {
                return Ok(false);
            }
            let within = &input[..input.len().min(self.left)];
            let mut rest = within;
            self.read_field(&mut rest)?;
            let read = within.len() - rest.len();
            *input = &input[read..];
            self.left -= read;
            if self.skip > self.left {
                return Err(RecordError::InvalidLength(i32::try_from(self.skip).unwrap_or(i32::MAX)));
            }
        }
    }

    fn read_field(&mut self, input: &mut &[u8]) -> Result<(), RecordError> {
        self.next = match self.next {
            Field::Start => {
                let (_, rest) = input.split_first().ok_or(RecordError::InvalidLength(1))?;
                *input = rest;
                self.sketch.timestamp_delta = read_varlong(input)?;
                self.sketch.offset_delta = read_varint(input)?;
                Field::Key
            }
            Field::Key => {
                self.sketch.key_len = self.read_nullable(input)?;
                Field::Value
            }
            Field::Value => {
                self.sketch.value_len = self.read_nullable(input)?;
                Field::HeaderCount
            }
            Field::HeaderCount => {
                let count = read_varint(input)?;
                self.headers_left = usize::try_from(count).map_err(|_| RecordError::InvalidHeaderCount(count))?;
                if self.headers_left > self.left / 2 {
                    return Err(RecordError::InvalidHeaderCount(count));
                }
                self.next_header()
            }
            Field::HeaderKey => {
                let len = read_varint(input)?;
                self.skip = usize::try_from(len).map_err(|_| RecordError::InvalidLength(len))?;
                Field::HeaderValue
            }
            Field::HeaderValue => {
                self.read_nullable(input)?;
                self.headers_left -= 1;
                self.next_header()
            }
            Field::End => Field::End,
        };
        Ok(())
    }

    fn next_header(&self) -> Field {
        if self.headers_left > 0 { Field::HeaderKey } else { Field::End }
    }

    /// Reads a length, and skips so many bytes.
    fn read_nullable(&mut self, input: &mut &[u8]) -> Result<Option<usize>, RecordError> {
        let len = usize::try_from(read_varint(input)?).ok();
        self.skip = len.unwrap_or(0);
        Ok(len)
    }
}
