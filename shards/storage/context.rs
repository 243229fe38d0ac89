//! What the logs of one core share.

use std::rc::Rc;

use ringlog_ring::{ByteSemaphore, Direct};

use crate::storage::cache_memory::{CacheMemory, Excess};
use crate::storage::disk_faults::DiskFaults;
use crate::storage::disk_space::DiskSpace;
use crate::storage::frames::FrameCache;
use crate::storage::open_files::OpenFiles;
use crate::storage::padding::Padding;
use crate::storage::read_ahead::ReadAhead;
use crate::storage::read_cache::ReadCache;

/// See [`StoreContext::index_turns`].
pub const INDEX_WRITERS: usize = 4;

/// What the stores of one core share.
pub struct StoreContext {
    /// What there is for records that are in files, too.
    pub memory: Rc<CacheMemory>,
    /// Frames and the order in which clean ones are given up.
    pub frames: FrameCache,
    /// Open segment files.
    pub files: OpenFiles,
    /// Whether to ask for O_DIRECT.
    pub direct: Direct,
    /// I/O errors, which take their log directory offline.
    pub faults: DiskFaults,
    /// How full the disks are.
    pub space: Rc<DiskSpace>,
    /// Index files that may be written at a time, each on a thread of its own.
    pub index_turns: ByteSemaphore,
    /// Memory for reading logs that are recovered or cut.
    pub recovery_reads: ByteSemaphore,
    /// What was read from files.
    pub cache: Rc<ReadCache>,
    /// What is read from files, ahead of readers that go on.
    pub read_ahead: ReadAhead,
    /// Logs that may have padding behind their last record.
    pub padding: Padding,
}

impl StoreContext {
    /// Once in a while: what may not be kept any more goes.
    pub fn give_way(&self) {
        let Excess { written_bytes, read_bytes } = self.memory.excess();
        if written_bytes > 0 {
            self.frames.give_back(written_bytes);
        }
        if read_bytes > 0 {
            self.cache.give_back(read_bytes);
        }
    }
}
