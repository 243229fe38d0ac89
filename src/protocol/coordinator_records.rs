//! The records that coordinators keep their state in: keys with a two-byte type, values with a two-byte version.
//! A null value deletes what the key names.

/// Makes a coordinator's key, value and record types from the list of its record types.
macro_rules! coordinator_record_enums {
    ($family:literal $key:ident $value:ident { $($id:literal $variant:ident($key_type:ident, $value_type:ident),)* }) => {
        use crate::codec::{Bytes, DecodeError, Decoder, EncodeError, Encoder, Message as _};

        #[doc = concat!("The key of a ", $family, " coordinator's record.")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum $key {
            $(#[doc = concat!("Type ", $id, ".")] $variant($key_type),)*
        }

        #[doc = concat!("The value of a ", $family, " coordinator's record.")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum $value {
            $(#[doc = concat!("Type ", $id, ".")] $variant($value_type),)*
        }

        impl $key {
            /// The type's number, which the key begins with.
            pub fn type_id(&self) -> i16 {
                match self {
                    $($key::$variant(_) => $id,)*
                }
            }

            /// The key's bytes: type and fields.
            pub fn encode(&self) -> Result<Bytes, EncodeError> {
                let mut out = Encoder::new();
                out.i16(self.type_id());
                match self {
                    $($key::$variant(key) => key.encode(&mut out, 0)?,)*
                }
                Ok(out.into_contiguous())
            }

            /// Reads a key, all of it.
            pub fn decode(bytes: Bytes) -> Result<$key, DecodeError> {
                let mut input = Decoder::new(bytes);
                let type_id = input.i16();
                if let Some(fault) = input.fault() {
                    return Err(fault);
                }
                let key = match type_id {
                    $($id => $key::$variant($key_type::decode(&mut input, 0)?),)*
                    _ => {
                        let what = concat!($family, " record type");
                        return Err(DecodeError::Unknown { what, value: type_id.into() });
                    }
                };
                input.expect_end()?;
                Ok(key)
            }
        }

        impl $value {
            /// The number of the type, which the key has and the value's bytes don't.
            pub fn type_id(&self) -> i16 {
                match self {
                    $($value::$variant(_) => $id,)*
                }
            }

            /// The value's bytes: version and fields.
            pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
                let mut out = Encoder::new();
                out.i16(version);
                match self {
                    $($value::$variant(value) => value.encode(&mut out, version)?,)*
                }
                Ok(out.into_contiguous())
            }

            /// Reads the value of a key of this type, all of it. Returns the value and its version.
            pub fn decode(type_id: i16, bytes: Bytes) -> Result<($value, i16), DecodeError> {
                let mut input = Decoder::new(bytes);
                let version = input.i16();
                if let Some(fault) = input.fault() {
                    return Err(fault);
                }
                let value = match type_id {
                    $($id => $value::$variant($value_type::decode(&mut input, version)?),)*
                    _ => {
                        let what = concat!($family, " record type");
                        return Err(DecodeError::Unknown { what, value: type_id.into() });
                    }
                };
                input.expect_end()?;
                Ok((value, version))
            }
        }

        $(impl From<$key_type> for $key {
            fn from(key: $key_type) -> $key {
                $key::$variant(key)
            }
        }

        impl From<$value_type> for $value {
            fn from(value: $value_type) -> $value {
                $value::$variant(value)
            }
        })*

        #[doc = concat!("A record of a ", $family, " coordinator.")]
        #[derive(Debug, Clone, PartialEq)]
        pub struct CoordinatorRecord {
            /// What the record is about.
            pub key: $key,
            /// The value and its version; `None` deletes.
            pub value: Option<($value, i16)>,
        }

        impl CoordinatorRecord {
            /// A record that sets the key's value. Both have to be of one type.
            pub fn new(key: impl Into<$key>, value: impl Into<$value>, version: i16) -> CoordinatorRecord {
                let (key, value) = (key.into(), value.into());
                assert_eq!(key.type_id(), value.type_id(), "the key and the value are of one record type");
                CoordinatorRecord { key, value: Some((value, version)) }
            }

            /// A record that deletes what the key names.
            pub fn tombstone(key: impl Into<$key>) -> CoordinatorRecord {
                CoordinatorRecord { key: key.into(), value: None }
            }

            /// The bytes of key and value.
            pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
                let value = self.value.as_ref().map(|(value, version)| value.encode(*version)).transpose()?;
                Ok((self.key.encode()?, value))
            }

            /// Reads a record from its key and value.
            pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<CoordinatorRecord, DecodeError> {
                let key = $key::decode(key)?;
                let value = value.map(|value| $value::decode(key.type_id(), value)).transpose()?;
                Ok(CoordinatorRecord { key, value })
            }
        }
    };
}
pub(crate) use coordinator_record_enums;

/// `__consumer_offsets`: groups of every kind and their offsets.
#[allow(clippy::too_many_lines)]
pub mod group {
    include!(concat!(env!("OUT_DIR"), "/group_records.rs"));
}

/// `__share_group_state` (KIP-932).
pub mod share {
    include!(concat!(env!("OUT_DIR"), "/share_records.rs"));
}

/// `__transaction_state`.
pub mod transaction {
    include!(concat!(env!("OUT_DIR"), "/transaction_records.rs"));
}
