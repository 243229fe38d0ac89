//! Kafka's UUIDs: 16 bytes on the wire, 22 characters of URL-safe base64 in text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A topic's, directory's, cluster's or incarnation's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// All zero: no id.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// Directory ids below this are reserved (`UNASSIGNED`, `LOST`, `MIGRATING` and room for more).
    pub const RESERVED_COUNT: u128 = 100;

    /// Whether this is [`Uuid::ZERO`].
    #[inline]
    pub fn is_zero(self) -> bool {
        self == Uuid::ZERO
    }

    /// An id from random bytes as Kafka makes it: version 4, not reserved, and its text doesn't start with a dash,
    /// which a command line would take for an option. `None` asks for other bytes.
    pub fn from_random_bytes(mut bytes: [u8; 16]) -> Option<Uuid> {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let uuid = Uuid(bytes);
        (!uuid.to_string().starts_with('-')).then_some(uuid)
    }

    /// An id drawn from `random`.
    pub fn random(random: &mut crate::Random) -> Uuid {
        loop {
            if let Some(uuid) = Uuid::from_random_bytes(random.bytes16()) {
                return uuid;
            }
        }
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl std::fmt::Debug for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The text is no UUID: not 16 bytes of URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a UUID: wanted 22 characters of URL-safe base64")]
pub struct ParseUuidError(String);

impl std::str::FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Uuid, ParseUuidError> {
        let fault = || ParseUuidError(text.chars().take(64).collect());
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| fault())?;
        Ok(Uuid(bytes.try_into().map_err(|_| fault())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_trip() {
        let uuid: Uuid = "n6YqSH1sTxOJOrNXfaHaOw".parse().unwrap();
        assert_eq!(uuid.to_string(), "n6YqSH1sTxOJOrNXfaHaOw");
        assert_eq!(crate::CLUSTER_METADATA_TOPIC_ID.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert!("short".parse::<Uuid>().is_err());
        assert!("".parse::<Uuid>().is_err());
    }
}
