//! `batches.jsonl`: batches with every kind of damage, and what Apache Kafka 4.3.1 made of each in topics of several kinds.
//! `tests/e2e/batches.rs` writes it.
//!
//! A line is a batch: its `name`, the `version` of Produce, its `bytes` (deflated, in base64) and `answers`. Of an answer,
//! `topics` got it; `code` 0 has what was stored and whether Kafka's reader can `read` that; others have the rest of the
//! partition's response.

use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Errors of single records that Ringlog lists at most.
const RECORD_ERRORS_MAX: usize = 1000;
/// More than so many aren't written down one by one.
const RECORD_ERRORS_SHOWN: usize = 8;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_SERVER_ERROR: i16 = -1;
const MESSAGE_TOO_LARGE: i16 = 10;

/// A batch that was sent.
pub struct Batch {
    pub name: String,
    /// Of Produce.
    pub version: i16,
    pub bytes: Vec<u8>,
    pub answers: Vec<Value>,
}

/// What Ringlog is to make of a batch.
#[derive(Debug)]
pub enum Expected {
    /// What Kafka makes of it.
    Same(Value),
    /// The same, but that records are numbered from 0 on.
    Numbered(Value),
    /// INVALID_RECORD.
    Refused,
    /// INVALID_RECORD or UNKNOWN_SERVER_ERROR.
    Damaged,
}

/// All of them, from the folder that this file is in.
pub fn load(folder: &Path) -> Vec<Batch> {
    let text = std::fs::read_to_string(folder.join("batches.jsonl")).expect("the file is there");
    text.lines().map(Batch::parse).collect()
}

impl Batch {
    fn parse(line: &str) -> Batch {
        let line: Value = serde_json::from_str(line).expect("a line is an object");
        let packed = STANDARD.decode(line["bytes"].as_str().unwrap_or_default()).expect("bytes are in base64");
        let mut bytes = Vec::new();
        flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("bytes are deflated");
        Batch {
            name: line["name"].as_str().unwrap_or_default().to_owned(),
            version: line["version"].as_i64().unwrap_or_default() as i16,
            bytes,
            answers: line["answers"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// What is expected in each topic.
    pub fn expected(&self) -> Vec<(String, Expected)> {
        let mut all = Vec::new();
        for answer in &self.answers {
            let mut told = answer.clone();
            let fields = told.as_object_mut().expect("an answer is an object");
            let topics = fields.remove("topics");
            fields.remove("read");
            for topic in topics.iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str) {
                all.push((topic.to_owned(), self.expected_in(topic, told.clone())));
            }
        }
        all
    }

    /// Where Ringlog means to differ from Kafka, and why.
    fn expected_in(&self, topic: &str, mut told: Value) -> Expected {
        let name = self.name.as_str();
        // Kafka skips over what it doesn't rewrite, and its consumers fail at what it stored so.
        let is_unreadable = |answer: &Value| answer["read"].as_str().is_some_and(|read| read.parse::<i32>().is_err());
        if self.answers.iter().any(is_unreadable) && told["code"] != MESSAGE_TOO_LARGE {
            return Expected::Refused;
        }
        // Kafka fails without an answer of its own: at a length of more than 32 bits, and at more memory than it has.
        if name == "none record: a varint that is too long" || name.ends_with("record: the greatest length") {
            return Expected::Refused;
        }
        // Bytes that were unpacked may be found to be no records before or after the codec finds damage.
        if name.ends_with(": flipped bits") && (told["code"] == INVALID_RECORD || told["code"] == UNKNOWN_SERVER_ERROR)
        {
            return Expected::Damaged;
        }
        // Kafka leaves them as they are, and they have offsets that other records have, too.
        if topic != "lz4" && name.starts_with("none record: offsets") && told["code"] == 0 {
            told["records"] = Value::Null;
            return Expected::Numbered(told);
        }
        // Kafka puts another key in the place of one that isn't UTF-8 when it writes a batch anew.
        if name.ends_with("a header whose key is no text") && told["records"].is_object() {
            told["records"] = json!({ "count": 3, "bytes": 183, "crc": 888_473_725 });
        }
        Expected::Same(told)
    }
}

impl Expected {
    /// Whether this is an answer in the form of the file.
    pub fn fits(&self, told: &Value) -> bool {
        match self {
            Expected::Same(expected) => expected == told,
            Expected::Refused => told["code"] == INVALID_RECORD && told["message"].is_null(),
            Expected::Damaged => told["code"] == INVALID_RECORD || told["code"] == UNKNOWN_SERVER_ERROR,
            Expected::Numbered(expected) => {
                let mut told = told.clone();
                let records = told["records"].take();
                records.is_object() && told == *expected
            }
        }
    }
}

/// The words of an answer, without the name of the partition and the times of the run.
pub fn masked(text: &str, partition: &str) -> String {
    let text = text.replace(partition, "<partition>");
    let Some((before, _)) = text.split_once(" The timestamp should be within [") else { return text };
    let after = text.rsplit_once(']').map_or("", |(_, after)| after);
    format!("{before} The timestamp should be within [<times>]{after}")
}

/// Errors of single records; of many only the first and how many there are.
pub fn abridged(errors: Vec<Value>) -> Value {
    match errors.first() {
        Some(first) if errors.len() > RECORD_ERRORS_SHOWN => json!([first, errors.len().min(RECORD_ERRORS_MAX)]),
        _ => json!(errors),
    }
}

/// Records that were written anew, by their bytes when they aren't packed.
pub fn rewritten(count: usize, unpacked: &[u8]) -> Value {
    let mut crc = flate2::Crc::new();
    crc.update(unpacked);
    json!({ "count": count, "bytes": unpacked.len(), "crc": crc.sum() })
}
