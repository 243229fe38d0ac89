//! Kafka's wire encoding: what the generated structs call to read and write themselves.
//!
//! [`Decoder`] and [`Encoder`] both keep their first error and carry on harmlessly, so that generated code is a plain
//! list of fields; [`Message::decode`] and [`Message::encode`] report it. Both know whether the current message's
//! version is flexible (KIP-482: compact lengths and tagged fields).

mod decoder;
mod encoder;
mod error;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use error::{DecodeError, EncodeError};

// For the generated code, which imports everything from here.
pub(crate) use crate::record_chunks::Records;
pub(crate) use crate::str_bytes::StrBytes;
pub(crate) use bytes::Bytes;
pub(crate) use ringlog_types::Uuid;

/// A string is no longer than this in bytes: the plain encoding has a signed 16-bit length,
/// and Kafka holds the compact one to the same bound.
const MAX_STRING_LENGTH: usize = i16::MAX as usize;

/// What can be a field or an array's element. Generated for structs, written here for the types that arrays hold.
#[doc(hidden)]
pub trait Fields: Sized {
    /// The fewest bytes that a value takes in any version.
    const MIN_SIZE: usize;
    /// Reads a value; after a fault any value, with the fault kept in `d`.
    fn read(d: &mut Decoder, v: i16) -> Self;
    /// Writes the value, or counts it.
    fn write(&self, e: &mut Encoder, v: i16);
}

/// A request, response, header or record: a struct with versions of its own.
pub trait Message: Fields + std::fmt::Debug + Clone + PartialEq + Default {
    /// The type's name, as in `FetchResponse`.
    const NAME: &'static str;
    /// The first version that can be read and written.
    const MIN_VERSION: i16;
    /// The last one; for an API it may be one that isn't stable yet (see `ApiKey::max_version`).
    const MAX_VERSION: i16;
    /// The first flexible version (KIP-482), `i16::MAX` if there is none.
    const FLEXIBLE_FROM: i16;

    /// Reads a value of this version from the front of `input`. Unknown tagged fields are skipped. Strings, bytes
    /// and records share `input`'s buffer.
    fn decode(input: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !(Self::MIN_VERSION..=Self::MAX_VERSION).contains(&version) {
            return Err(DecodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        input.set_flexible(version >= Self::FLEXIBLE_FROM);
        let value = Self::read(input, version);
        input.fault().map_or(Ok(value), Err)
    }

    /// The number of bytes that `encode` writes.
    fn size(&self, version: i16) -> Result<usize, EncodeError> {
        let mut count = Encoder::counting();
        self.encode(&mut count, version)?;
        Ok(count.len())
    }

    /// Writes the value. Fields that this version lacks are dropped, but for those that must not be ignored, whose
    /// value has to be the default. After an error `out` holds a part of the message.
    fn encode(&self, out: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !(Self::MIN_VERSION..=Self::MAX_VERSION).contains(&version) {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        out.set_flexible(version >= Self::FLEXIBLE_FROM);
        self.write(out, version);
        out.fault().map_or(Ok(()), Err)
    }

    /// The value alone as contiguous bytes.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut out = Encoder::with_capacity(self.size(version)?);
        self.encode(&mut out, version)?;
        Ok(out.into_contiguous())
    }

    /// Reads a value that takes up all of `bytes`.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let value = Self::decode(&mut input, version)?;
        input.expect_end()?;
        Ok(value)
    }
}

/// `Fields` for what an array can hold besides structs.
macro_rules! element {
    ($($type:ty, $method:ident, $size:literal;)*) => {
        $(impl Fields for $type {
            const MIN_SIZE: usize = $size;
            fn read(d: &mut Decoder, _version: i16) -> Self {
                d.$method()
            }
            fn write(&self, e: &mut Encoder, _version: i16) {
                e.$method(*self);
            }
        })*
    };
}

element! {
    i8, i8, 1;
    i16, i16, 2;
    i32, i32, 4;
    i64, i64, 8;
    Uuid, uuid, 16;
}

impl Fields for StrBytes {
    const MIN_SIZE: usize = 1;
    fn read(d: &mut Decoder, _version: i16) -> Self {
        d.string()
    }
    fn write(&self, e: &mut Encoder, _version: i16) {
        e.string(self);
    }
}
