//! Records that are hard to carry unchanged, and their JSON form that the client programs speak.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Null or bytes.
    pub key: Option<Vec<u8>>,
    /// Null or bytes.
    pub value: Option<Vec<u8>>,
    /// In order, names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> Record {
        Record { key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec), headers: Vec::new() }
    }

    fn with(mut self, name: &str, value: Option<&[u8]>) -> Record {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    /// One line for a client program.
    pub fn to_json(&self) -> Value {
        let headers: Vec<Value> =
            self.headers.iter().map(|(name, value)| json!([name, to_text(value.as_deref())])).collect();
        json!({ "key": to_text(self.key.as_deref()), "value": to_text(self.value.as_deref()), "headers": headers })
    }

    /// What a client program shows.
    pub fn from_json(shown: &Value) -> Result<Record> {
        let headers = shown["headers"].as_array().context("headers are a list")?;
        let header = |pair: &Value| Ok((pair[0].as_str().context("a name is text")?.to_owned(), to_bytes(&pair[1])?));
        Ok(Record {
            key: to_bytes(&shown["key"])?,
            value: to_bytes(&shown["value"])?,
            headers: headers.iter().map(header).collect::<Result<_>>()?,
        })
    }
}

fn to_text(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| STANDARD.encode(bytes).into())
}

fn to_bytes(shown: &Value) -> Result<Option<Vec<u8>>> {
    if shown.is_null() {
        return Ok(None);
    }
    Ok(Some(STANDARD.decode(shown.as_str().context("bytes are base64")?)?))
}

/// Text that every client can send: keyed and unkeyed records, headers, more than one batch's worth.
pub fn plain() -> Vec<Record> {
    let mut records = vec![
        Record::new(None, Some(b"unkeyed")),
        Record::new(Some(b"key"), Some(b"keyed")),
        Record::new(Some("Schl\u{fc}ssel".as_bytes()), Some("\u{4e2d}\u{1f600}".as_bytes())),
    ];
    for number in 0..200 {
        let key = format!("key-{}", number % 20);
        let value = format!("row {number} {}", "abcdefghij".repeat(10));
        records.push(Record::new(Some(key.as_bytes()), Some(value.as_bytes())));
    }
    for record in &mut records {
        record.headers.push(("kind".to_owned(), Some(b"plain".to_vec())));
        record.headers.push(("second".to_owned(), Some(b"2".to_vec())));
    }
    records
}

/// Also nulls, empty and binary fields, repeated headers, large values.
pub fn hard() -> Vec<Record> {
    let binary: Vec<u8> = (0..=255).collect();
    let mut state = 7u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(300_000).collect();
    let mut records = vec![
        Record::new(Some(b"tombstone"), None),
        Record::new(Some(b""), Some(b"")),
        Record::new(Some(&binary), Some(&binary)),
        Record::new(Some(b"large"), Some(&b"compressible ".repeat(50_000))),
        Record::new(Some(b"noise"), Some(&noise)),
        Record::new(Some(b"headers"), Some(b"h")).with("a", Some(b"1")).with("a", Some(b"")).with("b", Some(&binary)),
    ];
    records.extend(plain());
    records
}
