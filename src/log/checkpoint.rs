//! The text checkpoints: line 1 the version (0), line 2 the number of entries, then one entry per line.
//!
//! Offset checkpoints of a log directory hold `<topic> <partition> <offset>`, a partition's `leader-epoch-checkpoint`
//! holds `<epoch> <start offset>`. A file of 0 bytes was never written and holds nothing. They are replaced whole: written
//! under another name, flushed, renamed.

use ringlog_types::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

const VERSION: i32 = 0;

/// A checkpoint that can't be read. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The file isn't text.
    #[error("checkpoint line {0} is not UTF-8")]
    NotText(usize),
    /// A line that isn't of the form it should have.
    #[error("malformed line {line} in checkpoint file: {text:?}")]
    MalformedLine {
        /// Its number.
        line: usize,
        /// Its start.
        text: String,
    },
    /// Another version.
    #[error("checkpoint version {0} on line 1 is not supported")]
    UnsupportedVersion(i32),
    /// Line 2 promises other than what follows.
    #[error("line 2 of the checkpoint says {expected} entries, but there are {found}")]
    WrongCount {
        /// What line 2 says.
        expected: usize,
        /// What was found.
        found: usize,
    },
}

/// An entry of a log directory's offset checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetCheckpointEntry {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
}

/// An entry of a partition's leader epoch checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The first offset that was written in it.
    pub start_offset: Offset,
}

fn malformed(line: usize, text: &str) -> CheckpointError {
    CheckpointError::MalformedLine { line, text: text.chars().take(128).collect() }
}

fn parse<T>(bytes: &[u8], entry: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, CheckpointError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        CheckpointError::NotText(line)
    })?;
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (_, first) = lines.next().unwrap_or((1, ""));
    let version: i32 = first.trim().parse().map_err(|_| malformed(1, first))?;
    if version != VERSION {
        return Err(CheckpointError::UnsupportedVersion(version));
    }
    let (_, second) = lines.next().unwrap_or((2, ""));
    let expected: usize = second.trim().parse().map_err(|_| malformed(2, second))?;
    let mut entries = Vec::new();
    for (line, text) in lines {
        entries.push(entry(text).ok_or_else(|| malformed(line, text))?);
    }
    if entries.len() == expected {
        Ok(entries)
    } else {
        Err(CheckpointError::WrongCount { expected, found: entries.len() })
    }
}

fn format(entries: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("{VERSION}\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&entry);
        text.push('\n');
    }
    text
}

/// Reads an offset checkpoint.
pub fn parse_offset_checkpoint(bytes: &[u8]) -> Result<Vec<OffsetCheckpointEntry>, CheckpointError> {
    parse(bytes, |line| {
        let mut fields = line.split_ascii_whitespace();
        let (topic, partition, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let partition = PartitionIndex(partition.parse().ok()?);
        let topic_partition = TopicPartition { topic: topic.into(), partition };
        fields.next().is_none().then_some(())?;
        Some(OffsetCheckpointEntry { topic_partition, offset: Offset(offset.parse().ok()?) })
    })
}

/// The content of an offset checkpoint.
pub fn format_offset_checkpoint(entries: &[OffsetCheckpointEntry]) -> String {
    format(entries.iter().map(|entry| {
        let TopicPartition { topic, partition } = &entry.topic_partition;
        format!("{topic} {partition} {}", entry.offset)
    }))
}

/// Reads a `leader-epoch-checkpoint`.
pub fn parse_leader_epoch_checkpoint(bytes: &[u8]) -> Result<Vec<EpochEntry>, CheckpointError> {
    parse(bytes, |line| {
        let mut fields = line.split_ascii_whitespace();
        let (epoch, start_offset) = (fields.next()?, fields.next()?);
        fields.next().is_none().then_some(())?;
        Some(EpochEntry { epoch: LeaderEpoch(epoch.parse().ok()?), start_offset: Offset(start_offset.parse().ok()?) })
    })
}

/// The content of a `leader-epoch-checkpoint`.
pub fn format_leader_epoch_checkpoint(entries: &[EpochEntry]) -> String {
    format(entries.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_line() {
        let read = |text: &str| parse_offset_checkpoint(text.as_bytes()).map(|entries| entries.len());
        assert_eq!(read(""), Ok(0));
        assert_eq!(read("0\n0\n"), Ok(0));
        assert_eq!(read("0\n2\na 0 5\nb.c 1 7\n"), Ok(2));
        assert_eq!(read("1\n0\n"), Err(CheckpointError::UnsupportedVersion(1)));
        assert_eq!(read("0\n2\na 0 5\n"), Err(CheckpointError::WrongCount { expected: 2, found: 1 }));
        assert_eq!(read("0\n1\na 0 5\nb 0 5\n"), Err(CheckpointError::WrongCount { expected: 1, found: 2 }));
        for (text, line) in [("x", 1), ("0\n", 2), ("0\n-1\n", 2), ("0\n1\na 0\n", 3), ("0\n2\na 0 5\na 0 5 6\n", 4)] {
            assert!(
                matches!(read(text), Err(CheckpointError::MalformedLine { line: found, .. }) if found == line),
                "{text}"
            );
        }
        assert_eq!(parse_offset_checkpoint(b"0\n1\n\xff 0 1\n"), Err(CheckpointError::NotText(3)));
    }
}
