//! What the tests share: the vectors that Kafka 4.3.1 wrote, and every message type by name.

use bytes::Bytes;
use ringlog_protocol::{DecodeError, EncodeError, Message};
use std::io::Read as _;

/// One message at one version, as Kafka's own classes wrote it.
#[derive(Debug, Clone)]
pub struct Vector {
    /// The Rust type's name.
    pub message: String,
    pub version: i16,
    /// Every field set, rather than all at their defaults.
    pub full: bool,
    pub bytes: Bytes,
    /// The same as Kafka prints it.
    pub json: serde_json::Value,
}

/// Every vector of `tests/data`.
pub fn vectors() -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/wire-vectors.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Vector {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    let name = json["m"].as_str().unwrap();
    let hex = json["hex"].as_str().unwrap().as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    Vector {
        message: match name {
            "ControlRecordTypeSchema" => "ControlRecordKey".to_string(),
            // A struct of this name has no request or response suffix to lose.
            "DefaultPrincipalData" | "QuorumStateData" => name.to_string(),
            _ => name.strip_suffix("Data").unwrap_or(name).to_string(),
        },
        version: i16::try_from(json["v"].as_i64().unwrap()).unwrap(),
        full: json["set"] == "full",
        bytes: hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect(),
        json: json["json"].clone(),
    }
}

/// What became of bytes that were decoded and encoded again.
pub enum Recoded {
    Undecodable(DecodeError),
    Unencodable(EncodeError),
    Done { bytes: Bytes, size: usize, debug: String },
}

/// Decodes and encodes again.
pub fn recode<M: Message>(bytes: Bytes, version: i16, with_debug: bool) -> Recoded {
    let message = match M::from_bytes(bytes, version) {
        Ok(message) => message,
        Err(error) => return Recoded::Undecodable(error),
    };
    match (message.to_bytes(version), message.size(version)) {
        (Ok(bytes), Ok(size)) => {
            let debug = if with_debug { format!("{message:?}") } else { String::new() };
            Recoded::Done { bytes, size, debug }
        }
        (Err(error), _) | (_, Err(error)) => Recoded::Unencodable(error),
    }
}

/// A message type.
pub struct Kind {
    pub name: &'static str,
    pub min_version: i16,
    pub max_version: i16,
    pub recode: fn(Bytes, i16, bool) -> Recoded,
}

macro_rules! every_message {
    ($($($path:ident)::+,)*) => {
        /// Every generated message type.
        pub fn kinds() -> Vec<Kind> {
            vec![$(Kind {
                name: <ringlog_protocol::$($path)::+ as Message>::NAME,
                min_version: <ringlog_protocol::$($path)::+ as Message>::MIN_VERSION,
                max_version: <ringlog_protocol::$($path)::+ as Message>::MAX_VERSION,
                recode: recode::<ringlog_protocol::$($path)::+>,
            },)*]
        }
    };
}
include!(concat!(env!("OUT_DIR"), "/registry.rs"));
