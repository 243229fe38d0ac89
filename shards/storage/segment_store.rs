//! The bytes of one log: in memory while they are young, in direct-I/O files for good.
//!
//! ```text
//!   segment file   |■■■■■■■■|■■■■■■■■|■■■■■■■■|■■■■□□□□|        □ zeros up to the block or the preallocated end
//!   frames              ....|■■■■■■■■|■■■■■■■■|■■■■    |        kept while memory lasts: the tail cache
//!                           full     full     open   ↑ end
//!                                         ↑ written
//! ```
//!
//! [`SegmentStore::append`] copies a batch once, into the open frame (`tail`). [`SegmentStore::write_out`] writes what is
//! new (`writer`): a full frame from where it lies, the rest of the open one padded to its 4 KiB block, which is written
//! again when it has grown. Readers get slices of the frames themselves, or of buffers that were read from the file.
//!
//! A log that nobody writes holds no frame. Its next append begins in the middle of a block, whose earlier bytes are
//! then read back once, by the writer (`head`).
//!
//! Who reads names a [`Segment`], which is more than a base offset: when the log was cut or a segment replaced while
//! somebody waited, the same name may lead to other bytes, and the reader is told so ([`SegmentReadError::Replaced`]).
//!
//! Bounds: one write pass at a time; memory is that of [`crate::storage::frames`], which who appends asks for room first.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::Log;
use ringlog_types::Offset;
use smallvec::SmallVec;

use crate::storage::context::StoreContext;
use crate::storage::slices::Slices;

mod files;
mod indexes;
mod tail;
mod writer;

use crate::storage::generations::Generations;
pub use crate::storage::generations::Segment;
use files::SegmentFiles;
use indexes::Indexes;
use tail::{Tail, Tails};
use writer::Writer;

/// The bytes of one log.
pub struct SegmentStore {
    context: Rc<StoreContext>,
    files: SegmentFiles,
    tails: Tails,
    indexes: Indexes,
    writer: Writer,
}

/// Why bytes of a segment can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentReadError {
    /// The segment isn't there any more, or another one has its name: what is sought has to be looked up again.
    #[error("the segment is not part of the log any more")]
    Replaced,
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SegmentStore {
    /// A store for the log in `directory`, whose active segment is in a file of `file_len` bytes; `None` when that is
    /// still to be created.
    pub fn new(context: Rc<StoreContext>, directory: PathBuf, log: &Log, file_len: Option<u64>) -> Rc<SegmentStore> {
        let sealed = log.sealed_segments().iter().map(|segment| segment.base_offset);
        let active = log.active_segment();
        Self::with_segments(context, directory, sealed, active.base_offset, u64::from(active.size), file_len)
    }

    fn with_segments(
        context: Rc<StoreContext>,
        directory: PathBuf,
        sealed: impl IntoIterator<Item = Offset>,
        active: Offset,
        size: u64,
        file_len: Option<u64>,
    ) -> Rc<SegmentStore> {
        let store = context.files.new_store();
        let generations = Generations::new(store, sealed);
        let tails = Tails::new(Tail::new(generations.begin(active), size, file_len));
        let files = SegmentFiles::new(context.clone(), store, directory, generations);
        let (indexes, writer) = Default::default();
        Rc::new(SegmentStore { context, files, tails, indexes, writer })
    }

    /// What this store shares with others of its core.
    pub fn context(&self) -> &Rc<StoreContext> {
        &self.context
    }

    /// Where its files lie.
    pub fn directory(&self) -> PathBuf {
        self.files.directory()
    }

    /// Whether they lie there.
    pub fn is_in(&self, directory: &Path) -> bool {
        self.files.is_in(directory)
    }

    /// Its directory was renamed. Open files stay valid.
    pub fn set_directory(&self, directory: PathBuf) {
        self.files.set_directory(directory);
    }

    /// Its directory is about to be renamed while it is read. Until [`SegmentStore::end_rename`] nothing is written.
    pub fn begin_rename(&self) {
        self.files.begin_rename();
    }

    /// It has that name now, or kept the one it had.
    pub fn end_rename(&self, directory: PathBuf) {
        self.files.end_rename(directory);
    }

    /// Path of a file of the log.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.files.path(name)
    }

    /// The segment that has this base offset now.
    #[inline]
    pub fn segment(&self, base_offset: Offset) -> Option<Segment> {
        self.files.generations.get(base_offset)
    }

    /// An I/O error in this store's files: the log directory at `place` fails.
    pub fn report_fault(&self, place: usize, what: &str, error: &io::Error) {
        self.context.faults.report(place, format!("{}: {what}: {error}", self.directory().display()));
    }

    /// Whether bytes wait to be written, or a sealed segment to be handed out by [`SegmentStore::take_finished`].
    pub fn is_dirty(&self) -> bool {
        // A sealed segment whose file was complete before makes no tail dirty.
        !self.files.is_abandoned() && (self.indexes.is_any_waiting() || self.tails.is_dirty())
    }

    /// Makes what has been written survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        let (sealed, growing) = self.unsafe_segments();
        self.files.sync_names().await?;
        for segment in sealed {
            if self.sync_segment(segment).await? {
                self.indexes.on_safe(segment);
            }
        }
        for segment in growing {
            self.sync_segment(segment).await?;
        }
        Ok(())
    }

    /// Segments of which something written may not be safe: sealed ones of which all is written, and the others.
    fn unsafe_segments(&self) -> (SmallVec<[Segment; 2]>, SmallVec<[Segment; 2]>) {
        let tails = self.tails.borrow();
        let unfinished = self.indexes.unfinished().into_iter().filter_map(|base_offset| self.segment(base_offset));
        let waiting: SmallVec<[Segment; 2]> = unfinished.filter(|segment| !self.indexes.is_safe(*segment)).collect();
        // Tails of sealed segments stay for readers when all is safe, as long as there is memory: there may be many.
        let active = tails.back().map(|tail| tail.segment);
        let may_grow = |segment: &Segment| active == Some(*segment) || waiting.contains(segment);
        // One that was begun while the last pass wrote has no file yet, even if it is sealed already.
        let written = tails.iter().filter(|tail| !tail.create).map(|tail| tail.segment);
        let growing = written.filter(may_grow).collect();
        let is_young = |segment: &Segment| tails.iter().any(|tail| tail.segment == *segment);
        let sealed = waiting.iter().copied().filter(|sealed| !is_young(sealed)).collect();
        (sealed, growing)
    }

    /// Whether it was there still: one that went meanwhile nobody needs on the device any more.
    async fn sync_segment(&self, segment: Segment) -> io::Result<bool> {
        match self.files.sync_segment(segment).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.files.generations.has(segment) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// Makes the active segment's file if it isn't there, for good: it tells where an empty log starts.
    pub async fn create_active(&self) -> io::Result<()> {
        let segment = self.tails.active();
        self.files.open(segment, true).await?;
        self.files.on_name_changed();
        self.files.sync_names().await?;
        self.tails.with(segment, |tail| tail.create = false);
        Ok(())
    }

    /// [`SegmentStore::create_active`], if there is no such file.
    pub async fn create_active_if_missing(&self) -> io::Result<()> {
        let is_missing = self.tails.with_active(|tail| tail.create);
        if is_missing { self.create_active().await } else { Ok(()) }
    }

    /// Bytes from `position` of a segment as they lie in memory, at most `max_bytes` and not beyond `limit`; `None`
    /// when the first of them is only in the file.
    pub fn read_memory(&self, segment: Segment, position: u64, limit: u64, max_bytes: usize) -> Option<Slices> {
        let tails = self.tails.borrow();
        let tail = tails.iter().find(|tail| tail.segment == segment)?;
        tail.read(&self.context.frames, position, limit.min(position + max_bytes as u64))
    }

    /// Bytes from `position` of a segment's file: at most `len`, and fewer where that spares a disk operation
    /// ([`ReadAhead::read`]); none that lie in memory.
    pub async fn read_file(&self, segment: Segment, position: u64, len: usize) -> Result<Slices, SegmentReadError> {
        self.check_readable(segment)?;
        let read = async {
            let file = self.files.open(segment, false).await?;
            // What follows in the file is not what will be there, or is at hand.
            let settled = self.tails.with(segment, |tail| tail.settled_from(position)).unwrap_or(u64::MAX);
            self.context.read_ahead.read(&file, self.files.key(segment), position, len, settled).await
        };
        let read = read.await;
        self.check_readable(segment)?;
        Ok(read?)
    }

    /// To be asked after each `await`, before anything is made of what came.
    fn check_readable(&self, segment: Segment) -> Result<(), SegmentReadError> {
        if self.files.is_readable(segment) { Ok(()) } else { Err(SegmentReadError::Replaced) }
    }

    /// A segment's file is about to be renamed or removed: forgets what is held of it.
    pub fn forget(&self, base_offset: Offset) {
        let goes = |known: Offset| known == base_offset;
        self.files.forget(goes);
        self.indexes.forget(goes);
        self.tails.forget(base_offset);
    }

    /// The log was cut: its active segment is another than before, and nothing of it is in memory. The file, if there is
    /// one, has `file_len` bytes.
    pub fn reset(&self, log: &Log, file_len: Option<u64>) {
        let active = log.active_segment();
        // A segment that is sealed again is another then, with another index.
        let goes = |known: Offset| known == active.base_offset || log.segment_size(known).is_none();
        self.files.forget(goes);
        self.indexes.forget(goes);
        let segment = self.files.generations.begin(active.base_offset);
        self.tails.reset(Tail::new(segment, u64::from(active.size), file_len));
    }

    /// Nobody serves this log any more. Its memory is others'; what was not written is lost, and was acknowledged to
    /// nobody. Nothing is read from its files any more either: their names may become another log's.
    pub fn abandon(&self) {
        self.tails.abandon();
        self.files.abandon();
    }
}

#[cfg(test)]
#[path = "segment_store_tests.rs"]
pub(crate) mod tests;
