//! What can be wrong with bytes that are read, and with values that are written.

/// The bytes aren't what they should be. `position` counts from the decoder's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("at byte {position}: {wanted} bytes wanted, {remaining} left")]
    Truncated {
        /// Where the value begins.
        position: usize,
        /// The value's length in bytes.
        wanted: usize,
        /// The bytes that are there.
        remaining: usize,
    },
    /// A length or count that is negative, or larger than can be.
    #[error("at byte {position}: the length {length} is out of bounds")]
    InvalidLength {
        /// The byte after the length.
        position: usize,
        /// The length as it was read.
        length: i64,
    },
    /// Null for a field that has to have a value.
    #[error("at byte {position}: null where a value is required")]
    UnexpectedNull {
        /// The byte after the null.
        position: usize,
    },
    /// A string isn't UTF-8.
    #[error("at byte {position}: a string is not UTF-8")]
    InvalidUtf8 {
        /// Where the string begins.
        position: usize,
    },
    /// A varint of more than 32 bits.
    #[error("at byte {position}: a varint is longer than 32 bits")]
    InvalidVarint {
        /// Where the varint begins.
        position: usize,
    },
    /// There are bytes after the value's end.
    #[error("{remaining} bytes after the end")]
    TrailingBytes {
        /// How many.
        remaining: usize,
    },
    /// A version that the message doesn't have.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// An API key, record type or frame version that isn't known.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: i64,
    },
}

/// The value can't be written in the version that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A version that the message doesn't have.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A field that must not be ignored has a value, and the version lacks the field.
    #[error("{field} is set, but version {version} has no such field")]
    FieldNotInVersion {
        /// The field, as `Struct.Field`.
        field: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A field is null, and must not be in this version.
    #[error("{field} is null, which version {version} can't hold")]
    NullNotAllowed {
        /// The field, as `Struct.Field`.
        field: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A string, array, byte field or frame is longer than its length field can say.
    #[error("{what} of length {length} is too long")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length in bytes, or elements.
        length: usize,
    },
}
