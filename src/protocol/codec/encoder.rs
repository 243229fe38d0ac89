//! Writing: into one buffer that is allocated once, with `records` fields handed on by reference between its parts.

use super::{Bytes, EncodeError, Fields, MAX_STRING_LENGTH, Records, StrBytes, Uuid};
use bytes::{BufMut as _, BytesMut};

/// Collects what is written as chunks; or only counts it.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What was written since the last referenced chunk.
    buffer: BytesMut,
    chunks: Vec<Bytes>,
    length: usize,
    /// How much of `length` is in referenced chunks.
    referenced: usize,
    counting: bool,
    flexible: bool,
    fault: Option<EncodeError>,
}

impl Encoder {
    /// An encoder whose buffer grows as needed.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// An encoder with room for this many bytes besides referenced chunks.
    pub fn with_capacity(capacity: usize) -> Encoder {
        Encoder { buffer: BytesMut::with_capacity(capacity), ..Encoder::default() }
    }

    /// An encoder that counts and keeps nothing.
    pub fn counting() -> Encoder {
        Encoder { counting: true, ..Encoder::default() }
    }

    /// How many bytes were written or counted.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was written or counted.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many of the bytes need room in the buffer: all but those of referenced chunks.
    pub fn buffered_len(&self) -> usize {
        self.length - self.referenced
    }

    /// The bytes in order.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.cut();
        self.chunks
    }

    /// The bytes in one piece; copies if chunks were referenced.
    pub fn into_contiguous(self) -> Bytes {
        Records::from_chunks(self.finish()).into_contiguous()
    }

    /// What was written since the last call, in one piece; the room that is left stays for what follows.
    pub fn take_contiguous(&mut self) -> Bytes {
        self.cut();
        Records::from_chunks(std::mem::take(&mut self.chunks)).into_contiguous()
    }

    /// The first fault, if there was any.
    pub fn fault(&self) -> Option<EncodeError> {
        self.fault.clone()
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Keeps the first fault.
    #[cold]
    pub(crate) fn fail(&mut self, fault: EncodeError) {
        self.fault.get_or_insert(fault);
    }

    /// Makes what is in the buffer a chunk; the buffer's room that is left stays for what follows.
    fn cut(&mut self) {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
        }
    }

    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if !self.counting {
            self.buffer.put_slice(bytes);
        }
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.raw(&[u8::from(value)]);
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.raw(&value.0);
    }

    /// Seven bits a byte, low ones first.
    pub(crate) fn uvarint(&mut self, mut value: u32) {
        let mut bytes = [0; 5];
        let mut length = 0;
        while value >= 0x80 {
            bytes[length] = value as u8 | 0x80;
            value >>= 7;
            length += 1;
        }
        bytes[length] = value as u8;
        self.raw(&bytes[..=length]);
    }

    /// An array's or byte field's length: four bytes, or a varint of one more in flexible versions.
    fn length(&mut self, length: usize, what: &'static str) {
        match i32::try_from(length) {
            Ok(value) if self.flexible => self.uvarint(value.unsigned_abs() + 1),
            Ok(value) => self.i32(value),
            Err(_) => self.fail(EncodeError::TooLong { what, length }),
        }
    }

    fn null_length(&mut self) {
        if self.flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    fn any_string(&mut self, value: Option<&StrBytes>, compact: bool) {
        let length = value.map_or(0, |value| value.len());
        if length > MAX_STRING_LENGTH {
            return self.fail(EncodeError::TooLong { what: "a string", length });
        }
        match (value, compact) {
            (None, true) => self.uvarint(0),
            (None, false) => self.i16(-1),
            (Some(_), true) => self.uvarint(length as u32 + 1),
            (Some(_), false) => self.i16(length as i16),
        }
        self.raw(value.map_or(&[], |value| value.as_bytes()));
    }

    pub(crate) fn string(&mut self, value: &StrBytes) {
        self.any_string(Some(value), self.flexible);
    }

    pub(crate) fn nullable_string(&mut self, value: &Option<StrBytes>) {
        self.any_string(value.as_ref(), self.flexible);
    }

    /// A string with a two-byte length in every version.
    pub(crate) fn plain_nullable_string(&mut self, value: &Option<StrBytes>) {
        self.any_string(value.as_ref(), false);
    }

    pub(crate) fn bytes(&mut self, value: &Bytes) {
        self.length(value.len(), "a byte field");
        self.raw(value);
    }

    pub(crate) fn nullable_bytes(&mut self, value: &Option<Bytes>) {
        match value {
            Some(value) => self.bytes(value),
            None => self.null_length(),
        }
    }

    pub(crate) fn nullable_records(&mut self, value: &Option<Records>) {
        match value {
            Some(value) => self.records(value),
            None => self.null_length(),
        }
    }

    /// The length is written, the chunks are referenced.
    pub(crate) fn records(&mut self, records: &Records) {
        self.length(records.len(), "records");
        self.length += records.len();
        self.referenced += records.len();
        if !self.counting {
            self.cut();
            self.chunks.extend(records.chunks().iter().filter(|chunk| !chunk.is_empty()).cloned());
        }
    }

    pub(crate) fn array<T: Fields>(&mut self, array: &[T], version: i16) {
        self.length(array.len(), "an array");
        for element in array {
            element.write(self, version);
        }
    }

    pub(crate) fn nullable_array<T: Fields>(&mut self, array: &Option<Vec<T>>, version: i16) {
        match array {
            Some(array) => self.array(array, version),
            None => self.null_length(),
        }
    }

    /// A byte, negative for null, and the struct.
    pub(crate) fn nullable_struct<T: Fields>(&mut self, value: &Option<T>, version: i16) {
        match value {
            Some(value) => {
                self.i8(1);
                value.write(self, version);
            }
            None => self.i8(-1),
        }
    }

    /// A varint, 0 for null, and the struct, as tagged fields hold it.
    pub(crate) fn nullable_tagged_struct<T: Fields>(&mut self, value: &Option<T>, version: i16) {
        self.uvarint(u32::from(value.is_some()));
        if let Some(value) = value {
            value.write(self, version);
        }
    }

    /// How many tagged fields follow.
    pub(crate) fn tag_count(&mut self, count: u32) {
        if self.flexible {
            self.uvarint(count);
        }
    }

    /// The end of a struct without tagged fields.
    pub(crate) fn no_tags(&mut self) {
        self.tag_count(0);
    }

    /// A tagged field: its number, its length, and what `body` writes.
    pub(crate) fn tag(&mut self, number: u32, body: &dyn Fn(&mut Encoder)) {
        let mut count = Encoder { counting: true, flexible: self.flexible, ..Encoder::default() };
        body(&mut count);
        self.uvarint(number);
        self.uvarint(count.length as u32);
        if self.counting {
            self.length += count.length;
            self.referenced += count.referenced;
            if let Some(fault) = count.fault {
                self.fail(fault);
            }
        } else {
            body(self);
        }
    }

    /// A field that must not be ignored has a value in a version without it.
    pub(crate) fn not_in_version(&mut self, field: &'static str, version: i16) {
        self.fail(EncodeError::FieldNotInVersion { field, version });
    }

    /// A field is null where it must not be.
    pub(crate) fn null(&mut self, field: &'static str, version: i16) {
        self.fail(EncodeError::NullNotAllowed { field, version });
    }
}
