//! Finds where the metadata log ends, at start and when it is cut.

use std::path::Path;

use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::{Continuity, LogConfig, Recovered, Recovery, RecoveryInput, RecoveryStep};
use ringlog_ring as ring;
use ringlog_types::LeaderEpoch;
use tracing::info;

use super::metadata_log_error::MetadataLogError;
use super::progress::Progress;

/// How much of the log is read at once.
pub const READ_BYTES: usize = 1024 * 1024;

/// Reads the log's segments and finds where whole batches end that continue each other, none of an epoch above
/// `newest_epoch`. Nothing is changed; see [`crate::storage::log_recovery`].
pub async fn recover(
    directory: &Path,
    input: RecoveryInput,
    config: &LogConfig,
    newest_epoch: Option<LeaderEpoch>,
) -> Result<Recovered, MetadataLogError> {
    let recovery = Recovery::with_continuity(input, config, ring::now().wall, Continuity::Contiguous);
    let mut recovery = recovery.with_newest_epoch(newest_epoch);
    let mut progress = Progress::begin();
    loop {
        match recovery.step() {
            RecoveryStep::Done => return Ok(recovery.finish()),
            // Nobody produces to this log with a producer id.
            RecoveryStep::LoadSnapshot { .. } => recovery.on_snapshot(Some(&[])),
            RecoveryStep::Read { segment_base_offset, position, min_length } => {
                let path = directory.join(SegmentFile::live(segment_base_offset, FileKind::Log).to_string());
                let fault = |source| MetadataLogError::Io { path: path.clone(), source };
                let file = ring::File::open(&path, ring::Open::READ).await.map_err(fault)?;
                let len = READ_BYTES.max(min_length as usize);
                let bytes = file.read(u64::from(position), len).await.map_err(fault)?;
                recovery.on_bytes(&bytes);
                if progress.is_due() {
                    info!(segment = segment_base_offset.0, position, "still checking the metadata log");
                }
            }
        }
    }
}
