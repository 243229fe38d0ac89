//! Names of snapshots: `<end offset, 20 digits>-<epoch, 10 digits>.checkpoint`.

use ringlog_types::{LeaderEpoch, Offset};

/// Suffix of a finished snapshot file.
pub const SUFFIX: &str = ".checkpoint";
/// Suffix of one that is being written or fetched.
pub const PART_SUFFIX: &str = ".checkpoint.part";
/// Suffix of one that is to be unlinked.
pub const DELETED_SUFFIX: &str = ".checkpoint.deleted";

/// Which part of the log a snapshot replaces: everything below `end_offset`, whose last record has epoch `epoch`.
///
/// Ordered by offset, then epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// First offset that is not contained.
    pub end_offset: Offset,
    /// Leader epoch of the last contained record.
    pub epoch: LeaderEpoch,
}

impl SnapshotId {
    /// The snapshot that formatting writes to name the first voters. It replaces no part of the log and is never
    /// served.
    pub const BOOTSTRAP: SnapshotId = SnapshotId { end_offset: Offset(0), epoch: LeaderEpoch(0) };

    /// The file name, such as `00000000000000000066-0000000001.checkpoint`.
    pub fn file_name(self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// What a file name in the metadata log's directory says. `None`: not a snapshot's name.
    pub fn parse_file_name(name: &str) -> Option<(SnapshotId, SnapshotFile)> {
        let stem = name.get(..31)?;
        let (end_offset, epoch) = (stem.get(..20)?, stem.get(21..)?);
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if stem.as_bytes().get(20) != Some(&b'-') || !digits(end_offset) || !digits(epoch) {
            return None;
        }
        let id = SnapshotId { end_offset: Offset(end_offset.parse().ok()?), epoch: LeaderEpoch(epoch.parse().ok()?) };
        let rest = name.get(31..)?;
        if rest == SUFFIX {
            return Some((id, SnapshotFile::Complete));
        }
        if rest.ends_with(PART_SUFFIX) {
            // Kafka puts a random part between the name and the suffix.
            return Some((id, SnapshotFile::Part));
        }
        (rest == DELETED_SUFFIX).then_some((id, SnapshotFile::Deleted))
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}-{:010}", self.end_offset.0, self.epoch.0)
    }
}

/// In which state a snapshot's file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotFile {
    /// Finished; readable once its footer was found.
    Complete,
    /// Being written or fetched; worthless after a restart.
    Part,
    /// Waiting for its deletion; removed at start.
    Deleted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        let id = SnapshotId { end_offset: Offset(66), epoch: LeaderEpoch(1) };
        assert_eq!(id.file_name(), "00000000000000000066-0000000001.checkpoint");
        assert_eq!(SnapshotId::parse_file_name(&id.file_name()), Some((id, SnapshotFile::Complete)));
        let name = "00000000000000000066-0000000001-7212342.checkpoint.part";
        assert_eq!(SnapshotId::parse_file_name(name), Some((id, SnapshotFile::Part)));
        let name = "00000000000000000066-0000000001.checkpoint.deleted";
        assert_eq!(SnapshotId::parse_file_name(name), Some((id, SnapshotFile::Deleted)));
        assert_eq!(SnapshotId::BOOTSTRAP.file_name(), "00000000000000000000-0000000000.checkpoint");
    }

    #[test]
    fn other_names_are_no_snapshots() {
        for name in [
            "00000000000000000066.snapshot",
            "quorum-state",
            "0000000000000000006-0000000001.checkpoint",
            "99999999999999999999-0000000001.checkpoint",
            "0000000000000000006é-0000000001.checkpoint",
            "+0000000000000000066-0000000001.checkpoint",
            "00000000000000000066-0000000001.checkpoint~",
        ] {
            assert_eq!(SnapshotId::parse_file_name(name), None, "{name}");
        }
    }
}
