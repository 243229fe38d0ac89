//! The files beside a log's segments: offset, time and transaction index, producer snapshot. They are written when a
//! segment is sealed, apart from where acknowledgements wait; until they are there, readers get them from memory.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ringlog_log::Roll;
use ringlog_log::names::FileKind;
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::time_index::TimeIndex;
use ringlog_log::transaction_index::TransactionIndex;
use ringlog_ring as ring;
use ringlog_types::Offset;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::{SegmentReadError, SegmentStore};
use crate::storage::generations::Segment;
use crate::storage::log_recovery::remove_indexes;

/// No index is larger: a segment has at most 2 GiB.
const INDEX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What of a log's index files is held in memory.
#[derive(Default)]
pub(super) struct Indexes {
    /// Sealed segments whose index files are not written yet, and those for which that is under way.
    rolls: RefCell<Vec<Rc<Roll>>>,
    finishing: RefCell<Vec<Offset>>,
    /// Of those (there may be many), whose own file is safe on the device: a sealed segment doesn't change any more, once
    /// is enough.
    safe: RefCell<FxHashSet<Segment>>,
    /// The sealed segment read last, with its offset index.
    read_last: RefCell<Option<(Segment, Rc<OffsetIndex>)>>,
    /// The segment beside which an orderly stop left index files. They go before it grows: they would look whole once
    /// it is sealed.
    old: Cell<Option<Offset>>,
}

impl Indexes {
    /// A segment was sealed.
    pub fn on_roll(&self, roll: Box<Roll>) {
        self.rolls.borrow_mut().push(Rc::from(roll));
    }

    /// Sealed segments that nobody works on yet, of those for which `is_written`.
    fn take(&self, is_written: impl Fn(Offset) -> bool) -> SmallVec<[Rc<Roll>; 1]> {
        let mut finishing = self.finishing.borrow_mut();
        let taken: SmallVec<[Rc<Roll>; 1]> = self
            .rolls
            .borrow()
            .iter()
            .filter(|roll| is_written(roll.sealed.base_offset) && !finishing.contains(&roll.sealed.base_offset))
            .cloned()
            .collect();
        finishing.extend(taken.iter().map(|roll| roll.sealed.base_offset));
        taken
    }

    /// Nothing of a sealed segment is left to be written.
    fn on_finished(&self, base_offset: Offset) {
        self.rolls.borrow_mut().retain(|other| other.sealed.base_offset != base_offset);
        self.safe.borrow_mut().retain(|segment| segment.base_offset != base_offset);
        self.put_back(base_offset);
    }

    fn put_back(&self, base_offset: Offset) {
        self.finishing.borrow_mut().retain(|other| *other != base_offset);
    }

    /// Whether a sealed segment waits to be handed out.
    pub fn is_any_waiting(&self) -> bool {
        let finishing = self.finishing.borrow();
        self.rolls.borrow().iter().any(|roll| !finishing.contains(&roll.sealed.base_offset))
    }

    /// Sealed segments whose files aren't complete.
    pub fn unfinished(&self) -> SmallVec<[Offset; 2]> {
        self.rolls.borrow().iter().map(|roll| roll.sealed.base_offset).collect()
    }

    /// Whether the file of a sealed segment that isn't complete is known to be safe.
    pub fn is_safe(&self, segment: Segment) -> bool {
        self.safe.borrow().contains(&segment)
    }

    /// All of a sealed segment was in its file, and that was synced since.
    pub fn on_safe(&self, segment: Segment) {
        if self.unwritten(segment.base_offset).is_some() {
            self.safe.borrow_mut().insert(segment);
        }
    }

    /// Segments for which `goes` are no segments of the log any more.
    pub fn forget(&self, goes: impl Fn(Offset) -> bool) {
        *self.read_last.borrow_mut() = None;
        self.rolls.borrow_mut().retain(|roll| !goes(roll.sealed.base_offset));
        self.finishing.borrow_mut().retain(|base_offset| !goes(*base_offset));
        self.safe.borrow_mut().retain(|segment| !goes(segment.base_offset));
    }

    fn unwritten(&self, base_offset: Offset) -> Option<Rc<Roll>> {
        self.rolls.borrow().iter().find(|roll| roll.sealed.base_offset == base_offset).cloned()
    }
}

impl SegmentStore {
    /// Sealed segments whose bytes are all in their files, but whose indexes and producer snapshots are not.
    pub fn take_finished(&self) -> SmallVec<[Rc<Roll>; 1]> {
        self.indexes.take(|base_offset| self.tails.is_written(base_offset))
    }

    /// Writes a sealed segment's indexes and producer snapshot and makes all of it survive a power failure.
    pub async fn finish(&self, roll: &Roll) -> io::Result<()> {
        let base_offset = roll.sealed.base_offset;
        let Some(segment) = self.segment(base_offset) else {
            // It went meanwhile, and nobody needs its indexes.
            self.indexes.on_finished(base_offset);
            return Ok(());
        };
        if !self.indexes.is_safe(segment) {
            self.files.sync_segment(segment).await?;
            self.indexes.on_safe(segment);
        }
        if !roll.transaction_index.entries().is_empty() {
            self.write_file(base_offset, FileKind::TransactionIndex, roll.transaction_index.encode()).await?;
        }
        if let Some((offset, producers)) = &roll.producer_snapshot {
            self.write_file(*offset, FileKind::ProducerSnapshot, encode_producer_snapshot(producers)).await?;
        }
        // These last: where both are there, recovery takes the others for complete.
        self.write_file(base_offset, FileKind::OffsetIndex, roll.index.offsets.encode_from(0)).await?;
        self.write_file(base_offset, FileKind::TimeIndex, roll.index.times.encode_from(0)).await?;
        self.indexes.on_finished(base_offset);
        Ok(())
    }

    /// Writes one of the files beside a segment, whole. They may be large: not where acknowledgements wait.
    pub async fn write_file(&self, offset: Offset, kind: FileKind, bytes: Vec<u8>) -> io::Result<()> {
        let _turn = self.context.index_turns.acquire(1).await;
        let path = self.files.path_of(offset, kind);
        ring::fs::run_apart("write-index", async move |fs| fs.write_atomically(&path, &bytes).await).await
    }

    /// Base offset of the first sealed segment that isn't complete on the device: the recovery point stays at or below.
    pub fn unfinished_from(&self) -> Option<Offset> {
        self.indexes.unfinished().into_iter().min()
    }

    /// A sealed segment could not be finished for now: it will be handed out by [`SegmentStore::take_finished`] again.
    pub fn put_back(&self, base_offset: Offset) {
        self.indexes.put_back(base_offset);
    }

    /// Whether index files of a sealed segment are being written right now.
    pub fn is_finishing(&self) -> bool {
        !self.indexes.finishing.borrow().is_empty()
    }

    /// The active segment has index files that say what it holds now. They are removed by the first write.
    pub fn has_old_indexes(&self) {
        self.indexes.old.set(Some(self.tails.active().base_offset));
    }

    /// Removes them. A pass does so, too; who has to know what a pass will find calls this first, as it lets others run.
    pub async fn remove_old_indexes(&self) -> io::Result<()> {
        let Some(base_offset) = self.indexes.old.get() else { return Ok(()) };
        remove_indexes(&self.directory(), base_offset).await.map_err(|fault| fault.source)?;
        self.indexes.old.set(None);
        // The recovery point passes what is written next only after that.
        self.files.on_name_changed();
        Ok(())
    }

    /// The offset index of a sealed segment.
    pub async fn offset_index(&self, segment: Segment) -> Result<Rc<OffsetIndex>, SegmentReadError> {
        self.check_readable(segment)?;
        if let Some((_, index)) = self.indexes.read_last.borrow().as_ref().filter(|(read, _)| *read == segment) {
            return Ok(index.clone());
        }
        let index = match self.indexes.unwritten(segment.base_offset) {
            Some(roll) => Rc::new(roll.index.offsets.clone()),
            None => {
                let bytes = self.read_beside(segment, FileKind::OffsetIndex).await?;
                Rc::new(OffsetIndex::load(segment.base_offset, &bytes).map_err(damaged)?)
            }
        };
        *self.indexes.read_last.borrow_mut() = Some((segment, index.clone()));
        Ok(index)
    }

    /// The time index of a sealed segment. Read anew each time: searches for a timestamp are rare.
    pub async fn time_index(&self, segment: Segment) -> Result<TimeIndex, SegmentReadError> {
        self.check_readable(segment)?;
        if let Some(roll) = self.indexes.unwritten(segment.base_offset) {
            return Ok(roll.index.times.clone());
        }
        let bytes = self.read_beside(segment, FileKind::TimeIndex).await?;
        Ok(TimeIndex::load(segment.base_offset, &bytes).map_err(damaged)?)
    }

    /// The aborted transactions of a sealed segment.
    pub async fn transaction_index(&self, segment: Segment) -> Result<TransactionIndex, SegmentReadError> {
        self.check_readable(segment)?;
        if let Some(roll) = self.indexes.unwritten(segment.base_offset) {
            return Ok(roll.transaction_index.clone());
        }
        let bytes = self.read_beside(segment, FileKind::TransactionIndex).await?;
        Ok(TransactionIndex::load(segment.base_offset, &bytes).map_err(damaged)?)
    }

    /// One of the files beside a sealed segment.
    async fn read_beside(&self, segment: Segment, kind: FileKind) -> Result<Vec<u8>, SegmentReadError> {
        let path = || self.files.path_of(segment.base_offset, kind);
        let read = self.files.find(async || ring::fs::read_to_vec(path(), INDEX_BYTES_MAX).await).await;
        self.check_readable(segment)?;
        Ok(read?)
    }
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
