//! What the server keeps of a SCRAM password (RFC 5802), and the HMAC of delegation tokens.

use bytes::Bytes;
use sha2::digest::Digest;
use sha2::digest::core_api::BlockSizeUser;
use sha2::{Sha256, Sha512};

use crate::image::{ScramCredential, ScramMechanism};

/// The fewest rounds that Kafka accepts.
pub const MIN_ITERATIONS: i32 = 4_096;
/// The most rounds that Kafka accepts.
pub const MAX_ITERATIONS: i32 = 16_384;

fn hmac<D: Digest + BlockSizeUser>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = vec![0; D::block_size()];
    if key.len() > block.len() {
        let short = D::digest(key);
        block[..short.len()].copy_from_slice(&short);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = D::new().chain_update(pad(0x36)).chain_update(message).finalize();
    D::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// HMAC-SHA512, as delegation tokens carry it.
pub(crate) fn hmac_sha512(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::<Sha512>(key, message)
}

/// The two keys that are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The hash of the client key.
    pub stored_key: Bytes,
    /// The server key.
    pub server_key: Bytes,
}

/// The keys that follow from a salted password.
pub fn keys_of(mechanism: ScramMechanism, salted_password: &[u8]) -> ScramKeys {
    fn keys<D: Digest + BlockSizeUser>(salted_password: &[u8]) -> ScramKeys {
        let client_key = hmac::<D>(salted_password, b"Client Key");
        ScramKeys {
            stored_key: Bytes::from(D::digest(&client_key).to_vec()),
            server_key: Bytes::from(hmac::<D>(salted_password, b"Server Key")),
        }
    }
    match mechanism {
        ScramMechanism::Sha256 => keys::<Sha256>(salted_password),
        ScramMechanism::Sha512 => keys::<Sha512>(salted_password),
    }
}

/// The password's salted hash: `iterations` rounds of HMAC.
pub fn salted_password(mechanism: ScramMechanism, password: &[u8], salt: &[u8], iterations: i32) -> Vec<u8> {
    fn salted<D: Digest + BlockSizeUser>(password: &[u8], salt: &[u8], iterations: i32) -> Vec<u8> {
        let mut round = hmac::<D>(password, &[salt, &[0, 0, 0, 1]].concat());
        let mut result = round.clone();
        for _ in 1..iterations {
            round = hmac::<D>(password, &round);
            result.iter_mut().zip(&round).for_each(|(byte, other)| *byte ^= other);
        }
        result
    }
    match mechanism {
        ScramMechanism::Sha256 => salted::<Sha256>(password, salt, iterations),
        ScramMechanism::Sha512 => salted::<Sha512>(password, salt, iterations),
    }
}

/// The credential of a password. `iterations` must be in the range that Kafka accepts.
pub fn credential(mechanism: ScramMechanism, password: &[u8], salt: Bytes, iterations: i32) -> ScramCredential {
    let keys = keys_of(mechanism, &salted_password(mechanism, password, &salt, iterations));
    ScramCredential { salt, stored_key: keys.stored_key, server_key: keys.server_key, iterations }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(signed: &[i8]) -> Vec<u8> {
        signed.iter().map(|byte| *byte as u8).collect()
    }

    /// Credentials that Kafka's own tool made, with their passwords.
    #[test]
    fn credentials_are_those_of_kafka() {
        let salt = Bytes::from_static(b"m4c15wcyvnqlcmfsjbnxjqckh");
        let made = credential(ScramMechanism::Sha256, b"alice-secret", salt, 4096);
        let stored = [
            -23, 7, -81, -110, 6, -8, -46, -35, 117, -35, -23, -65, 83, 90, 85, 81, 105, -33, 80, 31, 107, -109, -39,
            79, 102, -118, -39, 27, 74, 4, -84, -84,
        ];
        assert_eq!(made.stored_key, bytes(&stored));
        let salt = Bytes::from_static(b"7u7cxl9be13q3h41kkxfaqobf");
        let made = credential(ScramMechanism::Sha512, b"bob-secret", salt, 8192);
        assert_eq!(made.stored_key[..8], bytes(&[54, 35, 18, 56, 71, 43, 10, -47]));
        assert_eq!(made.server_key[..8], bytes(&[26, -79, -127, -122, -91, 44, 44, -79]));
    }
}
