//! A request or response of any API as one type.

use crate::ApiKey;
use crate::codec::{DecodeError, Decoder, EncodeError, Encoder, Message};
use crate::messages::*;

/// A message of another API than the one that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {actual} where one of {expected} is expected")]
pub struct WrongApi {
    /// The API that was expected.
    pub expected: ApiKey,
    /// The message's API.
    pub actual: ApiKey,
}

macro_rules! body_enum {
    ($doc:literal $enum:ident { $($api:ident($message:ident),)* }) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant)]
        pub enum $enum {
            $(#[doc = concat!("Of ", stringify!($api), ".")] $api($message),)*
        }

        #[allow(clippy::too_many_lines)]
        impl $enum {
            /// The API that it belongs to.
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $($enum::$api(_) => ApiKey::$api,)*
                }
            }

            /// Reads the body of this API and version; the header has been read.
            pub fn decode(key: ApiKey, version: i16, input: &mut Decoder) -> Result<$enum, DecodeError> {
                match key {
                    $(ApiKey::$api => $message::decode(input, version).map($enum::$api),)*
                }
            }

            /// The number of bytes that `encode` writes.
            pub fn size(&self, version: i16) -> Result<usize, EncodeError> {
                let mut count = Encoder::counting();
                self.encode(&mut count, version)?;
                Ok(count.len())
            }

            /// Writes the body, without a header.
            pub fn encode(&self, out: &mut Encoder, version: i16) -> Result<(), EncodeError> {
                match self {
                    $($enum::$api(message) => message.encode(out, version),)*
                }
            }
        }

        $(impl From<$message> for $enum {
            fn from(message: $message) -> $enum {
                $enum::$api(message)
            }
        }

        impl TryFrom<$enum> for $message {
            type Error = WrongApi;
            fn try_from(body: $enum) -> Result<$message, WrongApi> {
                match body {
                    $enum::$api(message) => Ok(message),
                    other => Err(WrongApi { expected: ApiKey::$api, actual: other.api_key() }),
                }
            }
        })*
    };
}

include!(concat!(env!("OUT_DIR"), "/bodies.rs"));
