//! The bytes of one log: in memory while they are young, in direct-I/O files for good.
//!
//! ```text
//!   segment file   |■■■■■■■■|■■■■■■■■|■■■■■■■■|■■■■□□□□|        □ zeros up to the block or the preallocated end
//!   frames              ....|■■■■■■■■|■■■■■■■■|■■■■    |        kept while memory lasts: the tail cache
//!                           full     full     open   ↑ end
//!                                         ↑ written
//! ```
//!
//! An append copies a batch once, into the open frame. [`SegmentStore::write_out`] writes what is new: a full frame
//! from where it lies, the rest of the open one padded to its 4 KiB block, which is written again when it has grown.
//! Readers get slices of the frames themselves, or of buffers that were read from the file.
//!
//! A log that nobody writes holds no frame. Its next append begins in the middle of a block, whose earlier bytes are
//! then read back once, by the writer (`Head`).
//!
//! Bounds: one write pass at a time; memory is that of [`crate::storage::frames`], which who appends asks for room first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::Roll;
use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_ring::{self as ring, BLOCK_BYTES, ByteSemaphore, Direct, File, Frame, FrameSlice, Open, Trouble};
use ringlog_types::{Offset, align_down};
use smallvec::SmallVec;

use crate::data::replica::Replica;
use crate::log_dirs::{DiskFaults, DiskSpace};
use crate::storage::frames::FrameCache;
use crate::storage::open_files::{FileKey, OpenFiles};
use crate::storage::padding::Padding;
use crate::storage::read_ahead::ReadAhead;

mod growth;

/// Slices that follow each other in a log.
pub type Slices = SmallVec<[Bytes; 4]>;

const FIRST_FRAME_BYTES: usize = 16 * 1024;
const LARGEST_FRAME_BYTES: usize = 256 * 1024;
/// No index is larger: a segment has at most 2 GiB.
const INDEX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See [`StoreContext::index_turns`].
pub const INDEX_WRITERS: usize = 4;

/// What the stores of one core share.
pub struct StoreContext {
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
    /// What is read from files, ahead of readers that go on.
    pub read_ahead: ReadAhead,
    /// Logs that may have padding behind their last record.
    pub padding: Padding<Replica>,
}

/// The bytes of one log.
pub struct SegmentStore {
    context: Rc<StoreContext>,
    id: u64,
    directory: RefCell<PathBuf>,
    tails: RefCell<VecDeque<Tail>>,
    /// Sealed segments whose index files are not written yet, and those for which that is under way.
    rolls: RefCell<Vec<Rc<Roll>>>,
    finishing: RefCell<Vec<Offset>>,
    /// The sealed segment read last, with its offset index.
    index: RefCell<Option<(Offset, Rc<OffsetIndex>)>>,
    writing: Cell<bool>,
    /// A file that was made longer ahead of its writes has its length.
    grown: ring::Notify,
    /// Nobody serves this log any more: what isn't in its files never will be.
    abandoned: Cell<bool>,
    /// How many times names in the directory have changed, and how many of these changes are on the device. Flushes
    /// overlap: a flag that the first of them lowered would let the second acknowledge before the names are there.
    names_changed: Cell<u64>,
    names_synced: Cell<u64>,
    /// It is in the cache's queue of stores that have frames to give up.
    offered: Cell<bool>,
    /// The segment beside which an orderly stop left index files. They go before it grows: they would look whole once
    /// it is sealed.
    old_indexes: Cell<Option<Offset>>,
}

/// The young end of a segment. All but the last tail of a store belong to sealed segments that are being written out.
struct Tail {
    base_offset: Offset,
    full: VecDeque<TailFrame>,
    open: Option<TailFrame>,
    /// Bytes of the segment.
    end: u64,
    /// Bytes of it that are in the file.
    written: u64,
    /// Length of the file, at most.
    file_len: u64,
    /// It is being made longer ahead of its writes.
    is_growing: bool,
    next_frame_bytes: usize,
    /// Its file doesn't exist yet.
    create: bool,
    /// No more is appended: cut the file to `end` once everything is written.
    sealed: bool,
}

/// A frame and its place in the file.
struct TailFrame {
    /// Place of the frame's first byte; a multiple of the block.
    position: u64,
    /// Bytes at its beginning that only the file has.
    gap: usize,
    frame: Frame,
}

/// One contiguous write: bytes of a frame, from a block's start on.
#[derive(Clone)]
struct Write {
    position: u64,
    slice: FrameSlice,
}

/// What one pass has to do for one segment.
struct Job {
    base_offset: Offset,
    create: bool,
    sealed: bool,
    end: u64,
    /// The first block begins with bytes that only the file has: so many.
    head: usize,
    writes: Vec<Write>,
}

impl SegmentStore {
    /// A store for the log in `directory` whose active segment is `base_offset` with `size` bytes, in a file of
    /// `file_len` bytes; `None` when that file is still to be created.
    pub fn new(
        context: Rc<StoreContext>,
        directory: PathBuf,
        base_offset: Offset,
        size: u64,
        file_len: Option<u64>,
    ) -> Rc<SegmentStore> {
        let id = context.files.new_store();
        let tail = Tail::new(base_offset, size, file_len);
        let tails = RefCell::new(VecDeque::from([tail]));
        let directory = RefCell::new(directory);
        let (writing, grown, abandoned, names_changed, names_synced, offered, old_indexes) = Default::default();
        let (rolls, finishing, index) = Default::default();
        Rc::new(SegmentStore {
            context,
            id,
            directory,
            tails,
            rolls,
            finishing,
            index,
            writing,
            grown,
            abandoned,
            names_changed,
            names_synced,
            offered,
            old_indexes,
        })
    }

    /// The memory that it shares with the other stores of this core.
    pub fn frames(&self) -> &FrameCache {
        &self.context.frames
    }

    /// How full the disks are.
    pub fn space(&self) -> &Rc<DiskSpace> {
        &self.context.space
    }

    /// Where its files lie.
    pub fn directory(&self) -> PathBuf {
        self.directory.borrow().clone()
    }

    /// Whether they lie there.
    pub fn is_in(&self, directory: &Path) -> bool {
        *self.directory.borrow() == directory
    }

    /// Its directory was renamed. Open files stay valid.
    pub fn set_directory(&self, directory: PathBuf) {
        *self.directory.borrow_mut() = directory;
    }

    /// Path of a file of the log.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.borrow().join(name)
    }

    /// Starts a new segment. The one before is cut to its size once it is written out; then its indexes are due, see
    /// [`SegmentStore::take_finished`].
    pub fn roll(&self, roll: Box<Roll>) {
        let mut tails = self.tails.borrow_mut();
        let mut tail = Tail::new(roll.new_base_offset, 0, None);
        if let Some(last) = tails.back_mut() {
            last.sealed = true;
            last.retire_open_frame();
            tail.next_frame_bytes = last.next_frame_bytes;
        }
        tails.push_back(tail);
        self.rolls.borrow_mut().push(Rc::from(roll));
    }

    /// Sealed segments whose bytes are all in their files, but whose indexes and producer snapshots are not.
    pub fn take_finished(&self) -> SmallVec<[Rc<Roll>; 1]> {
        let tails = self.tails.borrow();
        let is_written =
            |roll: &Rc<Roll>| !tails.iter().any(|tail| tail.base_offset == roll.sealed.base_offset && tail.is_dirty());
        let mut finishing = self.finishing.borrow_mut();
        let finished: SmallVec<[Rc<Roll>; 1]> = self
            .rolls
            .borrow()
            .iter()
            .filter(|roll| is_written(roll) && !finishing.contains(&roll.sealed.base_offset))
            .cloned()
            .collect();
        finishing.extend(finished.iter().map(|roll| roll.sealed.base_offset));
        finished
    }

    /// Writes a sealed segment's indexes and producer snapshot and makes all of it survive a power failure.
    pub async fn finish(&self, roll: &Roll) -> io::Result<()> {
        let base_offset = roll.sealed.base_offset;
        self.sync_segment(base_offset).await?;
        if !roll.transaction_index.entries().is_empty() {
            self.write_file(base_offset, FileKind::TransactionIndex, roll.transaction_index.encode()).await?;
        }
        if let Some((offset, producers)) = &roll.producer_snapshot {
            self.write_file(*offset, FileKind::ProducerSnapshot, encode_producer_snapshot(producers)).await?;
        }
        // These last: where both are there, recovery takes the others for complete.
        self.write_file(base_offset, FileKind::OffsetIndex, roll.index.offsets.encode_from(0)).await?;
        self.write_file(base_offset, FileKind::TimeIndex, roll.index.times.encode_from(0)).await?;
        self.finished(base_offset);
        Ok(())
    }

    /// Nothing of a sealed segment is left to be written.
    fn finished(&self, base_offset: Offset) {
        self.rolls.borrow_mut().retain(|other| other.sealed.base_offset != base_offset);
        self.finishing.borrow_mut().retain(|other| *other != base_offset);
    }

    /// Writes one of the files beside a segment, whole. They may be large: not where acknowledgements wait.
    pub async fn write_file(&self, offset: Offset, kind: FileKind, bytes: Vec<u8>) -> io::Result<()> {
        let _turn = self.context.index_turns.acquire(1).await;
        let path = self.path(SegmentFile::live(offset, kind).to_string());
        ring::fs::run_apart("write-index", async move |fs| fs.write_atomically(&path, &bytes).await).await
    }

    /// The offset index of a sealed segment.
    pub async fn offset_index(&self, base_offset: Offset) -> io::Result<Rc<OffsetIndex>> {
        if let Some((_, index)) = self.index.borrow().as_ref().filter(|(cached, _)| *cached == base_offset) {
            return Ok(index.clone());
        }
        let unwritten = self.rolls.borrow().iter().find(|roll| roll.sealed.base_offset == base_offset).cloned();
        let index = match unwritten {
            Some(roll) => Rc::new(roll.index.offsets.clone()),
            None => {
                let path = self.path(SegmentFile::live(base_offset, FileKind::OffsetIndex).to_string());
                let bytes = ring::fs::read_to_vec(path, INDEX_BYTES_MAX).await?;
                let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                Rc::new(OffsetIndex::load(base_offset, &bytes).map_err(damaged)?)
            }
        };
        *self.index.borrow_mut() = Some((base_offset, index.clone()));
        Ok(index)
    }

    /// The time index of a sealed segment. Read anew each time: searches for a timestamp are rare.
    pub async fn time_index(&self, base_offset: Offset) -> io::Result<TimeIndex> {
        let unwritten = self.rolls.borrow().iter().find(|roll| roll.sealed.base_offset == base_offset).cloned();
        if let Some(roll) = unwritten {
            return Ok(roll.index.times.clone());
        }
        let path = self.path(SegmentFile::live(base_offset, FileKind::TimeIndex).to_string());
        let bytes = ring::fs::read_to_vec(path, INDEX_BYTES_MAX).await?;
        TimeIndex::load(base_offset, &bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The aborted transactions of a sealed segment.
    pub async fn transaction_index(&self, base_offset: Offset) -> io::Result<TransactionIndex> {
        let unwritten = self.rolls.borrow().iter().find(|roll| roll.sealed.base_offset == base_offset).cloned();
        if let Some(roll) = unwritten {
            return Ok(roll.transaction_index.clone());
        }
        let path = self.path(SegmentFile::live(base_offset, FileKind::TransactionIndex).to_string());
        let bytes = ring::fs::read_to_vec(path, INDEX_BYTES_MAX).await?;
        TransactionIndex::load(base_offset, &bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Whether there is memory for an append of `bytes`, until the next `await`. Other stores' clean frames give way.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let next = self.tails.borrow().back().map_or(FIRST_FRAME_BYTES, |tail| tail.next_frame_bytes);
        // It may begin in the middle of a block or a new segment, and its own open frame may be one that gives way.
        let bytes = bytes + BLOCK_BYTES;
        self.context.frames.has_room(frames_for(next, bytes).max(frames_for(FIRST_FRAME_BYTES, bytes)))
    }

    /// Copies `parts`, which follow each other, to the end of the active segment, which must be at `position`.
    pub fn append(&self, position: u64, parts: &[&[u8]]) {
        let mut tails = self.tails.borrow_mut();
        let tail = tails.back_mut().expect("a store has an active segment");
        assert_eq!(tail.end, position, "an append goes to the end of the segment");
        for part in parts {
            tail.append(&self.context.frames, part);
        }
    }

    /// Whether bytes wait to be written, or a sealed segment to be handed out by [`SegmentStore::take_finished`].
    pub fn is_dirty(&self) -> bool {
        if self.abandoned.get() {
            return false;
        }
        // A sealed segment whose file was complete before makes no tail dirty.
        let finishing = self.finishing.borrow();
        let is_waiting = self.rolls.borrow().iter().any(|roll| !finishing.contains(&roll.sealed.base_offset));
        is_waiting || self.tails.borrow().iter().any(Tail::is_dirty)
    }

    /// Writes everything that was appended before the call. One pass runs at a time: the caller sees to it.
    pub async fn write_out(self: &Rc<Self>) -> io::Result<()> {
        assert!(!self.writing.replace(true), "one write pass at a time");
        let outcome = self.write_pass().await;
        self.writing.set(false);
        outcome
    }

    /// The active segment has index files that say what it holds now. They are removed by the first write.
    pub fn has_old_indexes(&self) {
        self.old_indexes.set(self.tails.borrow().back().map(|tail| tail.base_offset));
    }

    async fn remove_old_indexes(&self) -> io::Result<()> {
        let Some(base_offset) = self.old_indexes.get() else { return Ok(()) };
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            ring::fs::remove_file(self.path(SegmentFile::live(base_offset, kind).to_string())).await?;
        }
        self.old_indexes.set(None);
        // The recovery point passes what is written next only after that.
        self.names_changed.update(|count| count + 1);
        Ok(())
    }

    async fn write_pass(self: &Rc<Self>) -> io::Result<()> {
        self.remove_old_indexes().await?;
        let jobs: SmallVec<[Job; 2]> =
            self.tails.borrow().iter().filter(|tail| tail.is_dirty()).map(Tail::job).collect();
        for job in jobs {
            let file = self.open(job.base_offset, job.create).await?;
            self.grow_ahead(&file, job.base_offset);
            let file_len = self.write_job(&file, &job).await?;
            let mut tails = self.tails.borrow_mut();
            let tail = tails.iter_mut().find(|tail| tail.base_offset == job.base_offset);
            let Some(tail) = tail else { continue };
            if std::mem::replace(&mut tail.create, false) {
                self.names_changed.update(|count| count + 1);
            }
            tail.written = job.end;
            tail.file_len = file_len;
        }
        self.drop_finished_tails();
        if !self.offered.replace(true) {
            self.context.frames.on_clean(self);
        }
        Ok(())
    }

    /// Returns the file's length afterwards. When this ends no write is under way any more.
    async fn write_job(&self, file: &File, job: &Job) -> io::Result<u64> {
        let mut running = SmallVec::<[ring::Task<io::Result<u64>>; 8]>::new();
        for (place, write) in job.writes.iter().enumerate() {
            let head = if place == 0 { job.head } else { 0 };
            let (file, write) = (file.clone(), write.clone());
            running.push(ring::spawn(async move { write.run(&file, head).await }));
        }
        let written = farthest(running).await?;
        if job.sealed {
            self.grown(job.base_offset).await;
        }
        let file_len = self.file_len(job.base_offset).max(written);
        if job.sealed && file_len > job.end {
            file.truncate(job.end).await?;
            return Ok(job.end);
        }
        Ok(file_len)
    }

    fn file_len(&self, base_offset: Offset) -> u64 {
        self.with_tail(base_offset, |tail| tail.file_len).unwrap_or(0)
    }

    fn with_tail<R>(&self, base_offset: Offset, read: impl FnOnce(&mut Tail) -> R) -> Option<R> {
        self.tails.borrow_mut().iter_mut().find(|tail| tail.base_offset == base_offset).map(read)
    }

    /// Nobody serves this log any more. Its memory is others'; what was not written is lost, and was acknowledged to
    /// nobody.
    pub fn abandon(&self) {
        self.abandoned.set(true);
        for tail in self.tails.borrow_mut().iter_mut() {
            tail.full.clear();
            tail.open = None;
        }
        self.context.read_ahead.forget(|file| file.store == self.id);
    }

    fn drop_finished_tails(&self) {
        let mut tails = self.tails.borrow_mut();
        while tails.len() > 1 && tails.front().is_some_and(|tail| !tail.is_dirty() && tail.full.is_empty()) {
            tails.pop_front();
        }
    }

    /// Makes what has been written survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        let segments: SmallVec<[Offset; 2]> = {
            let tails = self.tails.borrow();
            let tails = tails.iter().filter(|tail| !tail.create).map(|tail| tail.base_offset);
            // Sealed segments leave the tails once they are written, and are synced when their indexes are.
            let rolls = self.rolls.borrow();
            let sealed =
                rolls.iter().map(|roll| roll.sealed.base_offset).filter(|base| !tails.clone().any(|b| b == *base));
            sealed.chain(tails.clone()).collect()
        };
        let changed = self.names_changed.get();
        if self.names_synced.get() < changed {
            ring::fs::sync_dir(self.directory()).await.map_err(never_again)?;
            self.names_synced.set(changed.max(self.names_synced.get()));
        }
        for base_offset in segments {
            match self.sync_segment(base_offset).await {
                // Retention renamed it meanwhile: nobody needs it on the device any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_held(base_offset) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn sync_segment(&self, base_offset: Offset) -> io::Result<()> {
        self.open(base_offset, false).await?.fdatasync().await.map_err(never_again)
    }

    /// Whether the segment is young, or sealed and not finished.
    fn is_held(&self, base_offset: Offset) -> bool {
        self.tails.borrow().iter().any(|tail| tail.base_offset == base_offset)
            || self.rolls.borrow().iter().any(|roll| roll.sealed.base_offset == base_offset)
    }

    /// Base offset of the first sealed segment that isn't complete on the device: the recovery point stays at or below.
    pub fn unfinished_from(&self) -> Option<Offset> {
        self.rolls.borrow().iter().map(|roll| roll.sealed.base_offset).min()
    }

    /// A sealed segment could not be finished for now: it will be handed out by [`SegmentStore::take_finished`] again.
    pub fn put_back(&self, base_offset: Offset) {
        self.finishing.borrow_mut().retain(|other| *other != base_offset);
    }

    /// Whether index files of a sealed segment are being written right now.
    pub fn is_finishing(&self) -> bool {
        !self.finishing.borrow().is_empty()
    }

    /// Makes the active segment's file if it isn't there, for good: it tells where an empty log starts.
    pub async fn create_active(&self) -> io::Result<()> {
        let base_offset = self.tails.borrow().back().expect("a store has an active segment").base_offset;
        self.open(base_offset, true).await?;
        ring::fs::sync_dir(self.directory()).await.map_err(never_again)?;
        if let Some(tail) = self.tails.borrow_mut().iter_mut().find(|tail| tail.base_offset == base_offset) {
            tail.create = false;
        }
        Ok(())
    }

    /// [`SegmentStore::create_active`], if there is no such file.
    pub async fn create_active_if_missing(&self) -> io::Result<()> {
        let is_missing = self.tails.borrow().back().is_some_and(|tail| tail.create);
        if is_missing { self.create_active().await } else { Ok(()) }
    }

    /// An I/O error in this store's files: the log directory at `place` fails.
    pub fn report_fault(&self, place: usize, what: &str, error: &io::Error) {
        self.context.faults.report(place, format!("{}: {what}: {error}", self.directory().display()));
    }

    /// Cuts the active file to its bytes, as an orderly stop leaves it. Everything must have been written.
    pub async fn trim(&self) -> io::Result<()> {
        self.active_has_grown().await;
        let (base_offset, end, file_len, create) = {
            let tails = self.tails.borrow();
            let tail = tails.back().expect("a store has an active segment");
            assert!(!tail.is_dirty(), "trimmed before it was written out");
            (tail.base_offset, tail.end, tail.file_len, tail.create)
        };
        let file = self.open(base_offset, create).await?;
        if file_len != end {
            file.truncate(end).await?;
        }
        // Others may have been appended to it, or behind it, meanwhile.
        if let Some(tail) = self.tails.borrow_mut().iter_mut().find(|tail| tail.base_offset == base_offset) {
            tail.create = false;
            tail.file_len = end;
            if tail.end == end {
                // It has to get busy again before its file is made longer ahead of its writes.
                tail.next_frame_bytes = FIRST_FRAME_BYTES;
            }
        }
        Ok(())
    }

    /// Cuts the active file to its bytes, if it is longer and nothing waits to be written. Nobody may write meanwhile: the
    /// caller sees to it. Appends go on.
    pub async fn cut_padding(&self) -> io::Result<()> {
        if self.has_padding() { self.trim().await } else { Ok(()) }
    }

    /// Whether [`SegmentStore::cut_padding`] has something to do.
    pub fn has_padding(&self) -> bool {
        let tails = self.tails.borrow();
        tails.back().is_some_and(|tail| !tail.create && !tail.is_dirty() && tail.file_len > tail.end)
    }

    /// What this store shares with others of its core.
    pub fn context(&self) -> &StoreContext {
        &self.context
    }

    /// Bytes from `position` of a segment as they lie in memory, at most `max_bytes` and not beyond `limit`; `None`
    /// when the first of them is only in the file.
    pub fn read_memory(&self, base_offset: Offset, position: u64, limit: u64, max_bytes: usize) -> Option<Slices> {
        let tails = self.tails.borrow();
        let tail = tails.iter().find(|tail| tail.base_offset == base_offset)?;
        tail.read(&self.context.frames, position, limit.min(tail.end).min(position + max_bytes as u64))
    }

    /// Bytes from `position` of a segment's file: at most `len`, and fewer where that spares a disk operation
    /// ([`ReadAhead::read`]); none that lie in memory.
    pub async fn read_file(&self, base_offset: Offset, position: u64, len: usize) -> io::Result<Slices> {
        let file = self.open(base_offset, false).await?;
        let settled = {
            let tails = self.tails.borrow();
            let tail = tails.iter().find(|tail| tail.base_offset == base_offset);
            // What follows in the file is not what will be there, or is at hand.
            tail.map_or(u64::MAX, |tail| {
                Some(tail.memory_start()).filter(|start| *start > position).unwrap_or(u64::MAX).min(tail.written)
            })
        };
        let key = FileKey { store: self.id, base_offset };
        self.context.read_ahead.read(&file, key, position, len, settled).await
    }

    async fn open(&self, base_offset: Offset, create: bool) -> io::Result<File> {
        let key = FileKey { store: self.id, base_offset };
        let open = || async {
            let path = self.path(SegmentFile::live(base_offset, FileKind::Log).to_string());
            File::open(&path, Open { create, direct: self.context.direct, ..Open::WRITE }).await
        };
        self.context.files.open(key, open).await
    }

    /// A segment's file is about to be renamed or removed: forgets what is held of it.
    pub fn forget(&self, base_offset: Offset) {
        let key = FileKey { store: self.id, base_offset };
        self.context.files.remove(key);
        self.context.read_ahead.forget(|file| file == key);
        *self.index.borrow_mut() = None;
        self.finished(base_offset);
        let mut tails = self.tails.borrow_mut();
        if tails.len() > 1 {
            tails.retain(|tail| tail.base_offset != base_offset);
        }
    }

    /// The log was cut: its active segment is now `base_offset` with `size` bytes, and nothing is in memory. The
    /// file, if there is one, has `file_len` bytes.
    pub fn reset(&self, base_offset: Offset, size: u64, file_len: Option<u64>) {
        self.context.read_ahead.forget(|file| file.store == self.id);
        // A segment that is sealed again has another index then.
        *self.index.borrow_mut() = None;
        *self.tails.borrow_mut() = VecDeque::from([Tail::new(base_offset, size, file_len)]);
    }

    /// Gives up frames whose bytes are all in the file; returns how many bytes that freed for others.
    pub fn release_clean_frames(&self) -> usize {
        self.offered.set(false);
        // While it is being written to, its pass offers it again.
        let Ok(mut tails) = self.tails.try_borrow_mut() else { return 0 };
        if self.writing.get() {
            return 0;
        }
        let mut released = 0;
        for tail in tails.iter_mut() {
            while let Some(full) = tail.full.front().filter(|full| full.end() <= tail.written) {
                released += full.frame.capacity();
                tail.full.pop_front();
            }
            if tail.full.is_empty()
                && tail.written == tail.end
                && let Some(open) = tail.open.take()
            {
                released += open.frame.capacity();
                tail.next_frame_bytes = FIRST_FRAME_BYTES;
            }
        }
        drop(tails);
        self.drop_finished_tails();
        released
    }
}

impl TailFrame {
    fn end(&self) -> u64 {
        self.position + self.frame.len() as u64
    }
}

impl Tail {
    fn new(base_offset: Offset, size: u64, file_len: Option<u64>) -> Tail {
        Tail {
            base_offset,
            full: VecDeque::new(),
            open: None,
            end: size,
            written: size,
            file_len: file_len.unwrap_or(0),
            is_growing: false,
            next_frame_bytes: FIRST_FRAME_BYTES,
            create: file_len.is_none(),
            sealed: false,
        }
    }

    /// From here on readers find it in memory.
    fn memory_start(&self) -> u64 {
        let first = self.full.front().or(self.open.as_ref());
        first.map_or(self.end, |first| first.position + first.gap as u64)
    }

    fn is_dirty(&self) -> bool {
        self.written < self.end || (self.sealed && (self.file_len != self.end || self.create))
    }

    fn retire_open_frame(&mut self) {
        self.full.extend(self.open.take());
    }

    fn append(&mut self, frames: &FrameCache, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open.as_ref().is_some_and(|open| open.frame.remaining() == 0) {
                self.retire_open_frame();
            }
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let position = align_down(self.end, BLOCK_BYTES as u64);
                    let gap = (self.end - position) as usize;
                    let mut frame = frames.take(self.next_frame_bytes);
                    self.next_frame_bytes = after_frame(self.next_frame_bytes);
                    frame.append_with(gap, |unknown| unknown.fill(0));
                    self.open.insert(TailFrame { position, gap, frame })
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(open.frame.remaining()));
            open.frame.append(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// What has to be written now. The bytes themselves are shared, so that appends go on meanwhile.
    fn job(&self) -> Job {
        let from = align_down(self.written, BLOCK_BYTES as u64);
        let mut head = 0;
        let mut writes = Vec::new();
        let dirty = self.full.iter().chain(&self.open).filter(|tail| self.written < self.end && tail.end() > from);
        for TailFrame { position, gap, frame } in dirty {
            let start = from.saturating_sub(*position) as usize;
            if writes.is_empty() {
                head = gap.saturating_sub(start);
            }
            writes.push(Write { position: position + start as u64, slice: frame.lend(start..frame.len()) });
        }
        Job { base_offset: self.base_offset, create: self.create, sealed: self.sealed, end: self.end, head, writes }
    }

    fn read(&self, frames: &FrameCache, position: u64, end: u64) -> Option<Slices> {
        let mut slices = Slices::new();
        let mut at = position;
        for tail in self.full.iter().chain(&self.open) {
            if at >= end || tail.end() <= at {
                continue;
            }
            if at < tail.position + tail.gap as u64 {
                break;
            }
            let stop = tail.end().min(end);
            slices.push(frames.share(&tail.frame, (at - tail.position) as usize..(stop - tail.position) as usize));
            at = stop;
        }
        (at > position || position >= end).then_some(slices)
    }
}

fn after_frame(bytes: usize) -> usize {
    (bytes * 2).min(LARGEST_FRAME_BYTES)
}

/// Memory of the frames that `bytes` take when the first has `next` of them.
fn frames_for(mut next: usize, bytes: usize) -> usize {
    let mut sum = 0;
    while sum < bytes {
        sum += next;
        next = after_frame(next);
    }
    sum
}

impl Write {
    /// Returns the file's length as this write leaves it.
    async fn run(self, file: &File, head: usize) -> io::Result<u64> {
        let Write { position, slice } = self;
        let bytes = slice.as_ref();
        if head == 0 {
            file.write_slice(position, &slice).await?;
        } else {
            file.write_all_at(position, &with_head(file, position, head, bytes).await?).await?;
        }
        Ok(ringlog_types::align_up(position + bytes.len() as u64, BLOCK_BYTES as u64))
    }
}

/// The farthest end of these writes, or what the first of them failed with. None of them runs any more when this ends.
async fn farthest(running: SmallVec<[ring::Task<io::Result<u64>>; 8]>) -> io::Result<u64> {
    let mut end = Ok(0);
    for write in running {
        let one = write.await;
        end = end.and_then(|end: u64| one.map(|other| end.max(other)));
    }
    end
}

/// A sync that failed may have lost what it should have kept, and the next one wouldn't tell: whatever the reason, that
/// is a fault of the disk, a missing file apart.
fn never_again(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound || ring::trouble(&error) == Trouble::Fault {
        error
    } else {
        io::Error::other(format!("a sync failed: {error}"))
    }
}

/// `bytes` with its first `head` ones taken from the file.
async fn with_head(file: &File, position: u64, head: usize, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let before = file.read(position, head).await?;
    if before.len() != head {
        let message = format!("wanted {head} bytes before position {}, found {}", position + head as u64, before.len());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let mut merged = bytes.to_vec();
    merged[..head].copy_from_slice(&before);
    Ok(merged)
}

#[cfg(test)]
#[path = "segment_store_tests.rs"]
mod tests;
