//! Reading: a cursor over one buffer that never reads, allocates or loops beyond what the buffer can hold.

use super::{Bytes, DecodeError, Fields, MAX_STRING_LENGTH, Records, StrBytes, Uuid};

/// An array's first allocation is at most this large in bytes, whatever its count says; it grows with the elements
/// that are really there.
const MAX_FIRST_ALLOCATION: usize = 64 * 1024;

/// A cursor over a buffer. After the first fault nothing remains to be read and every read gives a zero value.
#[derive(Debug)]
pub struct Decoder {
    bytes: Bytes,
    position: usize,
    /// The end of what may be read: the buffer's, or that of the tagged field that is being read.
    end: usize,
    flexible: bool,
    fault: Option<DecodeError>,
}

impl Decoder {
    /// A cursor at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Decoder {
        Decoder { position: 0, end: bytes.len(), bytes, flexible: false, fault: None }
    }

    /// How many bytes haven't been read.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Everything that hasn't been read.
    pub fn take_rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.position..self.end);
        self.position = self.end;
        rest
    }

    /// An error if anything hasn't been read.
    pub fn expect_end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes { remaining }),
        }
    }

    /// The first fault, if there was any.
    pub fn fault(&self) -> Option<DecodeError> {
        self.fault.clone()
    }

    /// The next two numbers, which stay unread: a request's API key and version.
    pub(crate) fn peek_two_i16(&mut self) -> Result<(i16, i16), DecodeError> {
        let position = self.position;
        let numbers = (self.i16(), self.i16());
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        self.position = position;
        Ok(numbers)
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Keeps the first fault and leaves nothing to read.
    #[cold]
    pub(crate) fn fail(&mut self, fault: DecodeError) {
        self.position = self.end;
        self.fault.get_or_insert(fault);
    }

    /// Moves over `length` bytes and tells where they begin.
    #[inline]
    fn advance(&mut self, length: usize) -> Option<usize> {
        let (position, remaining) = (self.position, self.remaining());
        if length > remaining {
            self.fail(DecodeError::Truncated { position, wanted: length, remaining });
            return None;
        }
        self.position += length;
        Some(position)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let start = self.advance(N);
        let found = start.and_then(|start| self.bytes.get(start..start + N)?.try_into().ok());
        found.unwrap_or([0; N])
    }

    /// `length` bytes that share the buffer.
    fn slice(&mut self, length: usize) -> Bytes {
        self.advance(length).map_or_else(Bytes::new, |start| self.bytes.slice(start..start + length))
    }

    /// One byte; anything but 0 is true.
    pub(crate) fn bool(&mut self) -> bool {
        self.u8() != 0
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.fixed())
    }

    pub(crate) fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.fixed())
    }

    pub(crate) fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.fixed())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.fixed())
    }

    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.fixed())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.fixed())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.fixed())
    }

    pub(crate) fn f64(&mut self) -> f64 {
        f64::from_be_bytes(self.fixed())
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        Uuid(self.fixed())
    }

    /// An unsigned varint of at most 32 bits: seven bits a byte, low ones first.
    pub(crate) fn uvarint(&mut self) -> u32 {
        let position = self.position;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8();
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        self.fail(DecodeError::InvalidVarint { position });
        0
    }

    /// A length or count within `0..=limit`, or `None` for null: a varint of one more in flexible versions.
    fn length(&mut self, plain: fn(&mut Decoder) -> i32, compact: bool, limit: usize) -> Option<usize> {
        let length = if compact { i64::from(self.uvarint()) - 1 } else { i64::from(plain(self)) };
        match usize::try_from(length) {
            Ok(length) if length <= limit => Some(length),
            Err(_) if length == -1 => None,
            _ => {
                self.fail(DecodeError::InvalidLength { position: self.position, length });
                None
            }
        }
    }

    fn required<T: Default>(&mut self, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.fail(DecodeError::UnexpectedNull { position: self.position });
            T::default()
        })
    }

    fn any_string(&mut self, compact: bool) -> Option<StrBytes> {
        let length = self.length(|d| i32::from(d.i16()), compact, MAX_STRING_LENGTH)?;
        let position = self.position;
        let bytes = self.slice(length);
        Some(StrBytes::from_utf8(bytes).unwrap_or_else(|_| {
            self.fail(DecodeError::InvalidUtf8 { position });
            StrBytes::default()
        }))
    }

    pub(crate) fn nullable_string(&mut self) -> Option<StrBytes> {
        self.any_string(self.flexible)
    }

    pub(crate) fn string(&mut self) -> StrBytes {
        let value = self.nullable_string();
        self.required(value)
    }

    /// A string with a two-byte length in every version.
    pub(crate) fn plain_nullable_string(&mut self) -> Option<StrBytes> {
        self.any_string(false)
    }

    pub(crate) fn nullable_bytes(&mut self) -> Option<Bytes> {
        let length = self.length(Decoder::i32, self.flexible, i32::MAX as usize)?;
        Some(self.slice(length))
    }

    pub(crate) fn bytes(&mut self) -> Bytes {
        let value = self.nullable_bytes();
        self.required(value)
    }

    pub(crate) fn nullable_records(&mut self) -> Option<Records> {
        self.nullable_bytes().map(Records::from)
    }

    pub(crate) fn records(&mut self) -> Records {
        let value = self.nullable_records();
        self.required(value)
    }

    /// An array. Its count may not be more than the remaining bytes can hold.
    pub(crate) fn nullable_array<T: Fields>(&mut self, version: i16) -> Option<Vec<T>> {
        let count = self.length(Decoder::i32, self.flexible, i32::MAX as usize)?;
        let limit = self.remaining() / T::MIN_SIZE.max(1);
        if count > limit {
            self.fail(DecodeError::InvalidLength { position: self.position, length: count as i64 });
            return None;
        }
        let first = MAX_FIRST_ALLOCATION / size_of::<T>().max(1);
        let mut array = Vec::with_capacity(count.min(first.max(1)));
        for _ in 0..count {
            array.push(T::read(self, version));
            if self.fault.is_some() {
                return None;
            }
        }
        Some(array)
    }

    pub(crate) fn array<T: Fields>(&mut self, version: i16) -> Vec<T> {
        let value = self.nullable_array(version);
        self.required(value)
    }

    /// A struct behind a byte that is negative for null.
    pub(crate) fn nullable_struct<T: Fields>(&mut self, version: i16) -> Option<T> {
        (self.i8() >= 0).then(|| T::read(self, version))
    }

    /// A struct in a tagged field, behind a varint that is 0 for null.
    pub(crate) fn nullable_tagged_struct<T: Fields>(&mut self, version: i16) -> Option<T> {
        (self.uvarint() > 0).then(|| T::read(self, version))
    }

    /// The tagged fields at a struct's end. `known` reads the field of a tag and returns true, or returns false for a
    /// tag that it doesn't know, which is then skipped. A known field has to take up all of its length.
    pub(crate) fn tags(&mut self, known: &mut dyn FnMut(u32, &mut Decoder) -> bool) {
        if !self.flexible {
            return;
        }
        for _ in 0..self.uvarint() {
            let tag = self.uvarint();
            let length = self.uvarint() as usize;
            let Some(start) = self.advance(length) else { return };
            let (outer_end, after) = (self.end, self.position);
            (self.position, self.end) = (start, after);
            if known(tag, self) && self.position != after {
                self.fail(DecodeError::TrailingBytes { remaining: after - self.position });
            }
            (self.position, self.end) = (after, outer_end);
            if self.fault.is_some() {
                self.position = self.end;
                return;
            }
        }
    }

    /// The tagged fields of a struct that knows none.
    pub(crate) fn skip_tags(&mut self) {
        self.tags(&mut |_, _| false);
    }
}
