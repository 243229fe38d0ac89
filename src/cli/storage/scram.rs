//! `--add-scram`: `MECHANISM=[name=…,password=…|saltedpassword="…",salt="…",iterations=…]` (KIP-900, RFC 5802).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use ringlog_protocol::StrBytes;
use ringlog_protocol::metadata_records::UserScramCredentialRecord;
use ringlog_types::Random;
use sha2::{Digest, Sha256, Sha512};

const MIN_ITERATIONS: i32 = 4096;
const MAX_ITERATIONS: i32 = 16384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Sha256 = 1,
    Sha512 = 2,
}

impl Mechanism {
    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        const ANY: &str = "HMAC takes keys of any length";
        match self {
            Mechanism::Sha256 => {
                Hmac::<Sha256>::new_from_slice(key).expect(ANY).chain_update(data).finalize().into_bytes().to_vec()
            }
            Mechanism::Sha512 => {
                Hmac::<Sha512>::new_from_slice(key).expect(ANY).chain_update(data).finalize().into_bytes().to_vec()
            }
        }
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Mechanism::Sha256 => Sha256::digest(data).to_vec(),
            Mechanism::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mechanism::Sha256 => "SCRAM_SHA_256",
            Mechanism::Sha512 => "SCRAM_SHA_512",
        }
    }

    /// RFC 5802's `Hi`: PBKDF2 with one block.
    fn salted_password(self, password: &[u8], salt: &[u8], iterations: i32) -> Vec<u8> {
        let mut block = self.hmac(password, &[salt, &1u32.to_be_bytes()].concat());
        let mut result = block.clone();
        for _ in 1..iterations {
            block = self.hmac(password, &block);
            result.iter_mut().zip(&block).for_each(|(result, byte)| *result ^= byte);
        }
        result
    }
}

/// Reads the argument and derives the keys; a salt that isn't given is drawn.
pub fn parse(argument: &str, random: &mut Random) -> Result<UserScramCredentialRecord, String> {
    let (mechanism, rest) =
        argument.split_once('=').ok_or_else(|| format!("Failed to find equals sign in SCRAM argument '{argument}'"))?;
    let mechanism = match mechanism {
        "SCRAM-SHA-256" => Mechanism::Sha256,
        "SCRAM-SHA-512" => Mechanism::Sha512,
        other => return Err(format!("The add-scram mechanism {other} is not supported.")),
    };
    let list = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let list = list.ok_or("Expected configuration string to be in square brackets: [name=…]")?;
    let mut fields = std::collections::BTreeMap::new();
    for field in list.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("Missing equals sign in '{field}'"))?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        fields.insert(key.trim(), value);
    }
    let name = fields.remove("name").ok_or("You must supply 'name' to add-scram")?;
    let salt = match fields.remove("salt") {
        Some(text) => decode(text, "salt")?,
        None => random_salt(random),
    };
    let iterations = match fields.remove("iterations") {
        Some(text) => text.parse().map_err(|_| format!("The 'iterations' value '{text}' is not a number"))?,
        None => MIN_ITERATIONS,
    };
    if iterations < MIN_ITERATIONS {
        let name = mechanism.name();
        return Err(format!("The 'iterations' value must be >= {MIN_ITERATIONS} for add-scram using {name}"));
    }
    if iterations > MAX_ITERATIONS {
        let name = mechanism.name();
        return Err(format!("The 'iterations' value must be <= {MAX_ITERATIONS} for add-scram using {name}"));
    }
    let salted = match (fields.remove("password"), fields.remove("saltedpassword")) {
        (Some(_), Some(_)) => {
            return Err("You must only supply one of 'password' or 'saltedpassword' to add-scram".to_owned());
        }
        (Some(password), None) => mechanism.salted_password(password.as_bytes(), &salt, iterations),
        (None, Some(salted)) => decode(salted, "saltedpassword")?,
        (None, None) => return Err("You must supply one of 'password' or 'saltedpassword' to add-scram".to_owned()),
    };
    if let Some((key, _)) = fields.first_key_value() {
        return Err(format!("Unknown SCRAM configurations: {key}"));
    }
    let stored_key = mechanism.hash(&mechanism.hmac(&salted, b"Client Key"));
    Ok(UserScramCredentialRecord {
        name: StrBytes::copy_from(name),
        mechanism: mechanism as i8,
        salt: salt.into(),
        stored_key: stored_key.into(),
        server_key: mechanism.hmac(&salted, b"Server Key").into(),
        iterations,
    })
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| format!("Failed to decode given {what}: {text}"))
}

/// 25 letters and digits, as Kafka draws it.
fn random_salt(random: &mut Random) -> Vec<u8> {
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..25).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect()
}
