//! Names of directories and files in a log directory.
//!
//! ```text
//! <topic>-<partition>                          a replica
//! <topic>-<partition>.<32 hex digits>-delete   deleted, its files go after file.delete.delay.ms; cut to 255 characters
//! <topic>-<partition>.<32 hex digits>-future   being copied in from another log directory; never cut
//! <topic>-<partition>.<32 hex digits>-stray    not this broker's by the metadata; cut to 255 characters
//! <20 digits>.log .index .timeindex .txnindex  a segment, by its base offset
//! <20 digits>.snapshot                         producer state at that offset
//! <20 digits>-<10 digits>.checkpoint           metadata snapshot: end offset, epoch
//! ```
//!
//! After a whole file name: `.deleted` (to be unlinked), `.cleaned` (being written by the cleaner), `.swap` (finished
//! replacement).

use ringlog_types::{LeaderEpoch, Offset, PartitionIndex, Uuid};

/// An orderly stop left it.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// Held while a node runs on the directory.
pub const LOCK_FILE: &str = ".lock";
/// Who the directory belongs to.
pub const META_PROPERTIES_FILE: &str = "meta.properties";
/// Records that the first controller starts from.
pub const BOOTSTRAP_CHECKPOINT_FILE: &str = "bootstrap.checkpoint";
/// Per partition: everything below is flushed.
pub const RECOVERY_POINT_CHECKPOINT_FILE: &str = "recovery-point-offset-checkpoint";
/// Per partition: the log start offset, where it is above the first segment's base offset.
pub const LOG_START_OFFSET_CHECKPOINT_FILE: &str = "log-start-offset-checkpoint";
/// Per partition: the high watermark.
pub const REPLICATION_OFFSET_CHECKPOINT_FILE: &str = "replication-offset-checkpoint";
/// Per compacted partition: the first offset not yet cleaned.
pub const CLEANER_OFFSET_CHECKPOINT_FILE: &str = "cleaner-offset-checkpoint";
/// In a partition's directory: where each leader epoch starts.
pub const LEADER_EPOCH_CHECKPOINT_FILE: &str = "leader-epoch-checkpoint";
/// In a partition's directory: its topic id.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";
/// In the metadata log's directory: the voter's state.
pub const QUORUM_STATE_FILE: &str = "quorum-state";
/// Put after the name of a text file while it is written.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
/// Put after the name of a metadata snapshot while it is written or fetched.
pub const PART_SUFFIX: &str = ".part";

/// The longest file name that Kafka gives to a deleted or stray directory.
const NAME_LEN_MAX: usize = 255;

/// What a partition's directory is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryKind {
    /// The replica.
    Current,
    /// A deleted replica whose files are still to go.
    Delete,
    /// A copy that will take the replica's place in this log directory.
    Future,
    /// A replica that the metadata doesn't give to this broker.
    Stray,
}

impl DirectoryKind {
    fn suffix(self) -> &'static str {
        match self {
            DirectoryKind::Current => "",
            DirectoryKind::Delete => "-delete",
            DirectoryKind::Future => "-future",
            DirectoryKind::Stray => "-stray",
        }
    }
}

/// A partition's directory, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDirectory {
    /// The topic. In deleted and stray directories a long one may be cut.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// What it is there for.
    pub kind: DirectoryKind,
}

/// The name isn't one that Kafka gives to a partition's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("directory name {0:?} is not of the form topic-partition or topic-partition.uniqueId-(delete|future|stray)")]
pub struct InvalidDirectoryName(pub String);

impl PartitionDirectory {
    /// Reads a directory's name.
    pub fn parse(name: &str) -> Result<PartitionDirectory, InvalidDirectoryName> {
        Self::parse_inner(name).ok_or_else(|| InvalidDirectoryName(name.to_owned()))
    }

    fn parse_inner(name: &str) -> Option<PartitionDirectory> {
        let suffixed = [DirectoryKind::Delete, DirectoryKind::Future, DirectoryKind::Stray]
            .into_iter()
            .find_map(|kind| name.strip_suffix(kind.suffix()).map(|rest| (rest, kind)));
        let (base, kind) = match suffixed {
            Some((rest, kind)) => {
                let (base, unique_id) = rest.rsplit_once('.')?;
                if unique_id.is_empty() {
                    return None;
                }
                (base, kind)
            }
            None => (name, DirectoryKind::Current),
        };
        let (topic, partition) = base.rsplit_once('-')?;
        let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
        if topic.is_empty() || topic.contains(char::is_whitespace) || !digits {
            return None;
        }
        Some(PartitionDirectory { topic: topic.to_owned(), partition: PartitionIndex(partition.parse().ok()?), kind })
    }
}

/// The directory of a replica.
pub fn partition_directory(topic: &str, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}")
}

/// The name that a replica's directory gets when it is deleted, copied to or found to be stray; `unique_id` is random.
pub fn suffixed_partition_directory(
    topic: &str,
    partition: PartitionIndex,
    kind: DirectoryKind,
    unique_id: Uuid,
) -> String {
    use std::fmt::Write as _;
    if kind == DirectoryKind::Current {
        return partition_directory(topic, partition);
    }
    let mut tail = format!("-{partition}.");
    for byte in unique_id.0 {
        write!(tail, "{byte:02x}").expect("writing to a string doesn't fail");
    }
    tail.push_str(kind.suffix());
    let room = if kind == DirectoryKind::Future { usize::MAX } else { NAME_LEN_MAX.saturating_sub(tail.len()) };
    let topic = match topic.char_indices().nth(room) {
        Some((cut, _)) => &topic[..cut],
        None => topic,
    };
    format!("{topic}{tail}")
}

/// The files of a segment, and the producer snapshots that are named in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `.log`: record batches.
    Log,
    /// `.index`: offsets to positions.
    OffsetIndex,
    /// `.timeindex`: timestamps to offsets.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TransactionIndex,
    /// `.snapshot`: producer state.
    ProducerSnapshot,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [FileKind; 5] = [
        FileKind::Log,
        FileKind::OffsetIndex,
        FileKind::TimeIndex,
        FileKind::TransactionIndex,
        FileKind::ProducerSnapshot,
    ];

    /// The suffix, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            FileKind::Log => ".log",
            FileKind::OffsetIndex => ".index",
            FileKind::TimeIndex => ".timeindex",
            FileKind::TransactionIndex => ".txnindex",
            FileKind::ProducerSnapshot => ".snapshot",
        }
    }
}

/// What was put after a whole file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileState {
    /// Nothing: the file is in use.
    Live,
    /// `.deleted`: to be unlinked.
    Deleted,
    /// `.cleaned`: the cleaner's unfinished output.
    Cleaned,
    /// `.swap`: the cleaner's finished output, on its way in.
    Swap,
}

impl FileState {
    /// The suffix, with its dot; empty for [`FileState::Live`].
    pub fn suffix(self) -> &'static str {
        match self {
            FileState::Live => "",
            FileState::Deleted => ".deleted",
            FileState::Cleaned => ".cleaned",
            FileState::Swap => ".swap",
        }
    }
}

/// A file in a partition's directory that is named after an offset. `Display` gives the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// The segment's base offset, or the offset that the producer snapshot is valid at.
    pub offset: Offset,
    /// What it holds.
    pub kind: FileKind,
    /// What is to become of it.
    pub state: FileState,
}

impl SegmentFile {
    /// The file in use.
    pub fn live(offset: Offset, kind: FileKind) -> SegmentFile {
        SegmentFile { offset, kind, state: FileState::Live }
    }

    /// Reads a file's name. `None`: it is another file.
    pub fn parse(name: &str) -> Option<SegmentFile> {
        let (name, state) = [FileState::Deleted, FileState::Cleaned, FileState::Swap]
            .into_iter()
            .find_map(|state| name.strip_suffix(state.suffix()).map(|rest| (rest, state)))
            .unwrap_or((name, FileState::Live));
        let (digits, _) = name.split_once('.')?;
        let kind = FileKind::ALL.into_iter().find(|kind| &name[digits.len()..] == kind.suffix())?;
        // The offsets within must fit too.
        let offset = parse_digits(digits, 20).filter(|offset| offset.checked_add(1 << 32).is_some())?;
        Some(SegmentFile { offset: Offset(offset), kind, state })
    }
}

impl std::fmt::Display for SegmentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}{}{}", self.offset.0, self.kind.suffix(), self.state.suffix())
    }
}

/// A metadata snapshot's name: `<end offset>-<epoch>.checkpoint`. `Display` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotFile {
    /// The first offset that isn't in it.
    pub end_offset: Offset,
    /// Epoch of the last record in it.
    pub epoch: LeaderEpoch,
}

/// Whether a metadata snapshot is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotFileState {
    /// It is.
    Complete,
    /// `.part`: being written or fetched; thrown away at start.
    Partial,
    /// `.deleted`: to be unlinked.
    Deleted,
}

impl SnapshotFile {
    /// Reads a file's name. `None`: it is another file.
    pub fn parse(name: &str) -> Option<(SnapshotFile, SnapshotFileState)> {
        let (name, state) = if let Some(name) = name.strip_suffix(PART_SUFFIX) {
            (name, SnapshotFileState::Partial)
        } else if let Some(name) = name.strip_suffix(FileState::Deleted.suffix()) {
            (name, SnapshotFileState::Deleted)
        } else {
            (name, SnapshotFileState::Complete)
        };
        let (end_offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
        let epoch = i32::try_from(parse_digits(epoch, 10)?).ok()?;
        let end_offset = Offset(parse_digits(end_offset, 20)?);
        Some((SnapshotFile { end_offset, epoch: LeaderEpoch(epoch) }, state))
    }
}

impl std::fmt::Display for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}-{:010}.checkpoint", self.end_offset.0, self.epoch.0)
    }
}

fn parse_digits(digits: &str, len: usize) -> Option<i64> {
    let all_digits = digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names_round_trip() {
        let id = Uuid([0x71; 16]);
        for kind in [DirectoryKind::Current, DirectoryKind::Delete, DirectoryKind::Future, DirectoryKind::Stray] {
            let name = suffixed_partition_directory("a.b-c", PartitionIndex(12), kind, id);
            let parsed = PartitionDirectory::parse(&name).unwrap();
            assert_eq!(parsed, PartitionDirectory { topic: "a.b-c".into(), partition: PartitionIndex(12), kind });
        }
        let seen = "fx-deleted-0.711669e5f1b04cb5b57675f03a1eb1c1-delete";
        assert_eq!(PartitionDirectory::parse(seen).unwrap().topic, "fx-deleted");
        for bad in [
            "",
            "-0",
            "topic",
            "topic-",
            "topic-x",
            "t-0.-delete",
            "t-delete",
            "remote-log-index-cache",
            "t-99999999999",
        ] {
            assert!(PartitionDirectory::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_names_are_cut_where_kafka_cuts_them() {
        let topic = "t".repeat(249);
        for kind in [DirectoryKind::Delete, DirectoryKind::Stray] {
            let name = suffixed_partition_directory(&topic, PartitionIndex(7), kind, Uuid::ZERO);
            assert_eq!(name.len(), 255);
            assert_eq!(PartitionDirectory::parse(&name).unwrap().partition, PartitionIndex(7));
        }
        let future = suffixed_partition_directory(&topic, PartitionIndex(7), DirectoryKind::Future, Uuid::ZERO);
        assert_eq!(future.len(), 249 + 2 + 1 + 32 + 7);
    }

    #[test]
    fn file_names_round_trip() {
        for kind in FileKind::ALL {
            for state in [FileState::Live, FileState::Deleted, FileState::Cleaned, FileState::Swap] {
                let file = SegmentFile { offset: Offset(1234), kind, state };
                assert_eq!(SegmentFile::parse(&file.to_string()), Some(file));
            }
        }
        assert_eq!(
            SegmentFile::live(Offset(16), FileKind::ProducerSnapshot).to_string(),
            "00000000000000000016.snapshot"
        );
        for other in [
            "16.log",
            "00000000000000000016",
            "00000000000000000016.log.part",
            "partition.metadata",
            "99999999999999999999.log",
        ] {
            assert_eq!(SegmentFile::parse(other), None, "{other}");
        }
    }

    #[test]
    fn metadata_snapshot_names_round_trip() {
        let file = SnapshotFile { end_offset: Offset(66), epoch: LeaderEpoch(1) };
        assert_eq!(file.to_string(), "00000000000000000066-0000000001.checkpoint");
        assert_eq!(SnapshotFile::parse(&file.to_string()), Some((file, SnapshotFileState::Complete)));
        assert_eq!(SnapshotFile::parse(&format!("{file}.part")), Some((file, SnapshotFileState::Partial)));
        assert_eq!(SnapshotFile::parse(&format!("{file}.deleted")), Some((file, SnapshotFileState::Deleted)));
        assert_eq!(SnapshotFile::parse("bootstrap.checkpoint"), None);
    }
}
