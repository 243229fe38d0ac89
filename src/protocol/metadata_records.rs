//! The records of the `__cluster_metadata` log (KIP-500), and the frame around each in a record's value.

use crate::codec::{Bytes, DecodeError, Decoder, EncodeError, Encoder, Message as _};

/// The version of the frame around a record: `uvarint` frame version, type id and record version, then the fields.
const FRAME_VERSION: u32 = 1;

/// A record and the version that it is written in.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordAndVersion {
    /// The record.
    pub record: MetadataRecord,
    /// Its version.
    pub version: i16,
}

/// Makes `MetadataRecord` from the list of types.
macro_rules! metadata_record_enum {
    ($($id:literal $variant:ident($record:ident),)*) => {
        /// A metadata record of any type.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant)]
        pub enum MetadataRecord {
            $(#[doc = concat!("Type ", $id, ".")] $variant($record),)*
        }

        impl MetadataRecord {
            /// The type's number in the frame.
            pub fn type_id(&self) -> u32 {
                match self {
                    $(MetadataRecord::$variant(_) => $id,)*
                }
            }

            /// The type's name, as in `TopicRecord`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(MetadataRecord::$variant(_) => $record::NAME,)*
                }
            }

            /// The type's first version.
            pub fn min_version(&self) -> i16 {
                match self {
                    $(MetadataRecord::$variant(_) => $record::MIN_VERSION,)*
                }
            }

            /// The type's last version.
            pub fn max_version(&self) -> i16 {
                match self {
                    $(MetadataRecord::$variant(_) => $record::MAX_VERSION,)*
                }
            }

            fn encode_fields(&self, out: &mut Encoder, version: i16) -> Result<(), EncodeError> {
                match self {
                    $(MetadataRecord::$variant(record) => record.encode(out, version),)*
                }
            }

            fn decode_fields(type_id: u32, input: &mut Decoder, version: i16) -> Result<MetadataRecord, DecodeError> {
                match type_id {
                    $($id => $record::decode(input, version).map(MetadataRecord::$variant),)*
                    _ => Err(DecodeError::Unknown { what: "metadata record type", value: type_id.into() }),
                }
            }
        }

        $(impl From<$record> for MetadataRecord {
            fn from(record: $record) -> MetadataRecord {
                MetadataRecord::$variant(record)
            }
        })*
    };
}
pub(crate) use metadata_record_enum;

impl MetadataRecord {
    fn write_framed(&self, out: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        out.uvarint(FRAME_VERSION);
        out.uvarint(self.type_id());
        out.uvarint(u32::from(version.unsigned_abs()));
        self.encode_fields(out, version)
    }

    /// The value of the log's record: the frame and the fields.
    pub fn encode_framed(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut count = Encoder::counting();
        self.write_framed(&mut count, version)?;
        let mut out = Encoder::with_capacity(count.len());
        self.write_framed(&mut out, version)?;
        Ok(out.into_contiguous())
    }

    /// Reads a record's value, all of it. Returns the record and its version.
    pub fn decode_framed(value: Bytes) -> Result<(MetadataRecord, i16), DecodeError> {
        let mut input = Decoder::new(value);
        let (frame_version, type_id, version) = (input.uvarint(), input.uvarint(), input.uvarint());
        if let Some(fault) = input.fault() {
            return Err(fault);
        }
        if frame_version != FRAME_VERSION {
            return Err(DecodeError::Unknown { what: "metadata frame version", value: frame_version.into() });
        }
        let unknown = |_| DecodeError::Unknown { what: "metadata record version", value: version.into() };
        let version = i16::try_from(version).map_err(unknown)?;
        let record = MetadataRecord::decode_fields(type_id, &mut input, version)?;
        input.expect_end()?;
        Ok((record, version))
    }
}

impl RecordAndVersion {
    /// See [`MetadataRecord::encode_framed`].
    pub fn encode_framed(&self) -> Result<Bytes, EncodeError> {
        self.record.encode_framed(self.version)
    }

    /// The same by way of a buffer that many records share: for those that are of use together, and not for long.
    pub fn encode_framed_by(&self, buffer: &mut Encoder) -> Result<Bytes, EncodeError> {
        self.record.write_framed(buffer, self.version)?;
        Ok(buffer.take_contiguous())
    }

    /// How long that is, in bytes.
    pub fn framed_len(&self) -> Result<usize, EncodeError> {
        let mut count = Encoder::counting();
        self.record.write_framed(&mut count, self.version)?;
        Ok(count.len())
    }
}

include!(concat!(env!("OUT_DIR"), "/metadata_records.rs"));
