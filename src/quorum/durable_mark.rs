//! `ringlog-durable-mark`, a small file beside the metadata log: how far the log is known to be on stable storage.
//!
//! A torn write at a log's end is cut off at start, and nothing that was acknowledged goes with it. Damage below what
//! had been made durable is another matter: a voter that cut that off, too, and then voted by the log that is left
//! could help a leader into office that lacks committed records. The mark tells the two apart: a log that ends below it
//! has lost records. Then the node doesn't vote until it has fetched them again, and the file remembers that.
//!
//! A voter without any record, vote or epoch may be new, as its whole quorum is, or have lost everything with its disk;
//! the mark remembers that this isn't known yet.
//!
//! The file is Ringlog's own; Kafka ignores it. It may be missing or behind, as it is written now and then only, and
//! never holds up an acknowledgement.
//!
//! ```text
//! {"version":0,"durableOffset":4711,"rebuilding":false,"hasPeers":true}
//! ```

use ringlog_types::Offset;
use serde::{Deserialize, Serialize};

/// The file's name in the metadata log's directory. Replaced as `quorum-state` is.
pub const FILE_NAME: &str = "ringlog-durable-mark";

/// How often the mark is written at most.
const MARK_INTERVAL_MS: u64 = 5_000;
/// Longest file that is read, in bytes.
const MAX_FILE_LEN: usize = 4096;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableMark {
    /// All records below this were on stable storage.
    pub durable_offset: Offset,
    /// Records were lost, and not all of them are there again.
    pub rebuilding: bool,
    /// Nothing was there at the first start, and no election has shown yet that the quorum is new.
    pub blank: bool,
    /// Others vote, too. A log that lost records may name this node alone: those that made others voters are gone.
    pub has_peers: bool,
}

impl Default for DurableMark {
    fn default() -> Self {
        DurableMark { durable_offset: Offset(0), rebuilding: false, blank: false, has_peers: false }
    }
}

/// The file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurableMarkError {
    /// Not the JSON that it should be.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Written by something newer.
    #[error("it has version {0}, this release reads 0")]
    UnknownVersion(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: i64,
    durable_offset: i64,
    rebuilding: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    blank: bool,
    #[serde(default)]
    has_peers: bool,
}

impl DurableMark {
    /// The file's bytes.
    pub fn to_json(self) -> String {
        let DurableMark { durable_offset, rebuilding, blank, has_peers } = self;
        let file = File { version: 0, durable_offset: durable_offset.0, rebuilding, blank, has_peers };
        serde_json::to_string(&file).expect("numbers and booleans serialize")
    }

    /// Reads the file's bytes.
    pub fn from_json(bytes: &[u8]) -> Result<DurableMark, DurableMarkError> {
        if bytes.len() > MAX_FILE_LEN {
            return Err(DurableMarkError::Damaged(format!("{} bytes long", bytes.len())));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| DurableMarkError::Damaged(error.to_string()))?;
        if file.version != 0 {
            return Err(DurableMarkError::UnknownVersion(file.version));
        }
        if file.durable_offset < 0 {
            return Err(DurableMarkError::Damaged("a negative offset".to_owned()));
        }
        let File { rebuilding, blank, has_peers, .. } = file;
        Ok(DurableMark { durable_offset: Offset(file.durable_offset), rebuilding, blank, has_peers })
    }

    /// The mark to write now that the log is durable up to `flushed`; `None`: this one, written `age_ms` ago, will do
    /// for a while.
    pub fn after_flush(self, flushed: Offset, age_ms: u64) -> Option<DurableMark> {
        let is_due = flushed > self.durable_offset && age_ms >= MARK_INTERVAL_MS;
        is_due.then_some(DurableMark { durable_offset: flushed, ..self })
    }

    /// The mark to write, and to make durable, before the log is cut at `to`; `None`: this one stays right.
    pub fn before_truncation(self, to: Offset) -> Option<DurableMark> {
        (to < self.durable_offset).then_some(DurableMark { durable_offset: to, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_back() {
        let mark = DurableMark { durable_offset: Offset(4711), rebuilding: true, blank: false, has_peers: true };
        assert_eq!(DurableMark::from_json(mark.to_json().as_bytes()), Ok(mark));
        assert_eq!(mark.to_json(), r#"{"version":0,"durableOffset":4711,"rebuilding":true,"hasPeers":true}"#);
        let blank = DurableMark { blank: true, ..mark };
        assert_eq!(DurableMark::from_json(blank.to_json().as_bytes()), Ok(blank));
        let older = br#"{"version":0,"durableOffset":4711,"rebuilding":true}"#;
        assert_eq!(DurableMark::from_json(older), Ok(DurableMark { has_peers: false, ..mark }));
        for damaged in ["", "{}", r#"{"version":0,"durableOffset":-1,"rebuilding":false}"#] {
            assert!(matches!(DurableMark::from_json(damaged.as_bytes()), Err(DurableMarkError::Damaged(_))));
        }
        let newer = mark.to_json().replace("\"version\":0", "\"version\":1");
        assert_eq!(DurableMark::from_json(newer.as_bytes()), Err(DurableMarkError::UnknownVersion(1)));
    }

    #[test]
    fn it_follows_the_log_now_and_then_and_never_lies_above_a_cut() {
        let mark = DurableMark { durable_offset: Offset(100), ..DurableMark::default() };
        assert_eq!(mark.after_flush(Offset(101), 4_999), None);
        assert_eq!(mark.after_flush(Offset(100), 9_000), None);
        let next = mark.after_flush(Offset(1000), 5_000).expect("due");
        assert_eq!(next.durable_offset, Offset(1000));
        assert_eq!(next.before_truncation(Offset(1000)), None);
        assert_eq!(next.before_truncation(Offset(7)).map(|mark| mark.durable_offset), Some(Offset(7)));
    }
}
