//! Why the metadata log can't be used.

use std::io;
use std::path::PathBuf;

use ringlog_log::LogAppendError;
use ringlog_protocol::records::BatchError;
use ringlog_types::Offset;

use crate::storage::disk_faults::explain;
use crate::storage::log_read::LogReadError;
use crate::storage::log_recovery::FileFault;

/// Why the metadata log can't be used. All are fatal: without it nothing may be decided.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLogError {
    /// The disk.
    #[error("{path}: {reason}", path = .path.display(), reason = explain(.source))]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Bytes of the log make no sense.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// A batch makes no sense.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// An append that the log can't take.
    #[error(transparent)]
    Append(#[from] LogAppendError),
    /// Records below the cut turned out to be damaged. The next start finds out what is left.
    #[error("cut at offset {to}, the metadata log ends at {log_end_offset}: the records between are damaged")]
    Truncated {
        /// Where the leader's log differs.
        to: Offset,
        /// Where this one ends now.
        log_end_offset: Offset,
    },
}

impl From<FileFault> for MetadataLogError {
    fn from(FileFault { path, source }: FileFault) -> MetadataLogError {
        MetadataLogError::Io { path, source }
    }
}
