//! A node's log directories: which there are, the logs in them, and the files that say what state they are in.
//!
//! Life of a directory:
//! 1. [`check_and_lock`], before any executor runs: it is formatted, ours and nobody else's.
//! 2. [`open`] on every shard: each finds the logs that live on it (`scan`), recovers them where the last stop was no
//!    orderly one (`recover`), and keeps them until the metadata claims them ([`LogDirs::claim_all`]).
//! 3. While it serves: `background` (retention, flushes, expiry of producers, removal of what was deleted) runs as one
//!    task per shard; shard 0 also writes the `checkpoints` of the whole node.
//! 4. [`close_all`]: every log is written out with its indexes, then the checkpoints, then `.kafka_cleanshutdown`.
//!
//! What a crash leaves at any moment is made good by 2. The rules that this rests on:
//! * a recovery point never passes bytes, or index files of a sealed segment, that aren't on the device;
//! * index files of the active segment are only trusted together with the clean-shutdown marker, which is removed
//!   before anything else is touched and written after everything else is on the device;
//! * a checkpoint never names an offset for a log that is gone once another log may take its name.
//!
//! An I/O error takes its directory offline until the next start ([`LogDirs::fail`]), but for a full disk (`space`) and a
//! lack of descriptors, which pass.

mod background;
mod check;
mod checkpoints;
mod claim;
mod close;
mod deletion;
mod describe;
mod directory;
mod fault;
mod leftovers;
mod names;
mod offline;
mod open;
mod recover;
mod removal;
mod scan;
mod settings;
mod space;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_ring as ring;
use ringlog_types::{Offset, TopicIdPartition, TopicPartition};
use rustc_hash::FxHashMap;

pub use check::check_and_lock;
pub use claim::Claim;
pub use close::close_all;
pub use describe::{DirectoryDescription, LogDescription};
pub use directory::CheckedLogDirs;
pub use fault::{LogDirFault, explain};
pub use offline::DiskFaults;
pub use open::open;
pub use settings::log_config;
pub use space::{DiskSpace, Stuck, Writer, allows_preallocation};

use crate::flag::Flag;
use crate::rarely::Rarely;
use crate::storage::segment_store::SegmentStore;

/// The log directories as one shard sees them.
#[derive(Default)]
pub struct LogDirs {
    /// Logs found at start that the metadata hasn't claimed yet.
    unclaimed: RefCell<FxHashMap<TopicIdPartition, OpenLog>>,
    /// Set when [`open`] is through on this shard.
    opened: Flag,
    /// Places of the directories that failed.
    failed: RefCell<Vec<usize>>,
    /// A directory failed: heartbeats have to tell.
    pub failures_changed: ring::Notify,
    /// Places of directories that hold `-future` logs, which nobody recovered.
    unrecovered_futures: RefCell<Vec<usize>>,
    /// What was found at start, by directory; shard 0 sums it up.
    summaries: RefCell<Vec<open::OpenSummary>>,
    removals: removal::Removals,
    /// Partition directories without a readable topic id; shard 0 has them.
    nameless: RefCell<Vec<PathBuf>>,
    /// The background tasks of this shard; closes when the logs do.
    background: ring::Gate,
    /// Used on shard 0, which writes the checkpoints of all shards.
    checkpoints: checkpoints::Checkpoints,
    /// Used on shard 0: the thread that gives and takes names of logs.
    names: RefCell<Option<Rc<ring::Lane>>>,
    /// Logs of this shard by the places of their directories.
    counts: RefCell<Vec<usize>>,
    /// Troubles that pass were told of.
    passing: Rarely,
}

impl LogDirs {
    /// Logs of this shard in the directory at `place`.
    fn logs_in(&self, place: usize) -> usize {
        self.counts.borrow().get(place).copied().unwrap_or(0)
    }

    /// There are `change` more.
    fn count(&self, place: usize, change: isize) {
        let mut counts = self.counts.borrow_mut();
        if counts.len() <= place {
            counts.resize(place + 1, 0);
        }
        counts[place] = counts[place].saturating_add_signed(change);
    }
}

/// A log that is ready for use.
struct OpenLog {
    name: TopicPartition,
    /// Place of its directory.
    directory: usize,
    log: Log,
    store: Rc<SegmentStore>,
    /// As checkpointed.
    high_watermark: Offset,
}
