//! The bytes of the metadata log, young in memory and for good in files: the steps of `shards/storage/segment_store.rs` and
//! `shards/storage/log_read.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_log::offset_index::OffsetIndex;
use ringlog_log::producer_snapshot::encode_producer_snapshot;
use ringlog_log::{Location, Log, Roll};
use ringlog_protocol::records::{BATCH_HEADER_LEN, BatchHeader};
use ringlog_types::{Offset, align_up};

use super::device::{DiskError, Files};
use crate::disk::BLOCK_BYTES;
use crate::store::{Job, Store};

/// The young ends of the log's segments.
pub(crate) struct SegmentStore {
    files: Files,
    store: RefCell<Store>,
    /// The sealed segment read last, with its offset index.
    index: RefCell<Option<(Offset, Rc<OffsetIndex>)>>,
    old_indexes: Cell<Option<Offset>>,
}

/// Why bytes of the log can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("segment {segment} has no batch at {position}")]
    Corrupt { segment: Offset, position: u64 },
}

fn name(base_offset: Offset, kind: FileKind) -> String {
    SegmentFile::live(base_offset, kind).to_string()
}

impl SegmentStore {
    pub(crate) fn new(files: Files, base_offset: Offset, size: u64, file_len: Option<u64>) -> SegmentStore {
        let store = RefCell::new(Store::new(base_offset, size, file_len));
        SegmentStore { files, store, index: RefCell::new(None), old_indexes: Cell::new(None) }
    }

    pub(crate) fn append(&self, position: u64, bytes: &[u8]) {
        self.store.borrow_mut().append(position, bytes);
    }

    pub(crate) fn roll(&self, roll: Roll) {
        self.store.borrow_mut().roll(roll);
    }

    pub(crate) fn take_finished(&self) -> Vec<Roll> {
        self.store.borrow_mut().take_finished()
    }

    /// Somebody else needs the memory.
    pub(crate) fn release_clean(&self) {
        self.store.borrow_mut().release_clean();
    }

    /// Writes a sealed segment's indexes and makes all of it survive a power failure.
    pub(crate) async fn finish(&self, roll: &Roll) -> Result<(), DiskError> {
        let base_offset = roll.sealed.base_offset;
        self.files.sync(&name(base_offset, FileKind::Log)).await?;
        if let Some((offset, producers)) = &roll.producer_snapshot {
            self.write_file(*offset, FileKind::ProducerSnapshot, &encode_producer_snapshot(producers)).await?;
        }
        self.write_file(base_offset, FileKind::OffsetIndex, &roll.index.offsets.encode_from(0)).await?;
        self.write_file(base_offset, FileKind::TimeIndex, &roll.index.times.encode_from(0)).await?;
        self.store.borrow_mut().finished(base_offset);
        Ok(())
    }

    pub(crate) async fn write_file(&self, offset: Offset, kind: FileKind, bytes: &[u8]) -> Result<(), DiskError> {
        self.files.write_atomically(&name(offset, kind), bytes).await
    }

    async fn offset_index(&self, base_offset: Offset) -> Result<Rc<OffsetIndex>, DiskError> {
        if let Some((_, index)) = self.index.borrow().as_ref().filter(|(cached, _)| *cached == base_offset) {
            return Ok(index.clone());
        }
        let unwritten = {
            let store = self.store.borrow();
            let roll = store.rolls.iter().find(|roll| roll.sealed.base_offset == base_offset);
            roll.map(|roll| Rc::new(roll.index.offsets.clone()))
        };
        let index = match unwritten {
            Some(index) => index,
            None => {
                let bytes = self.files.read(&name(base_offset, FileKind::OffsetIndex), 0, usize::MAX).await?;
                Rc::new(OffsetIndex::load(base_offset, &bytes).map_err(|_| DiskError::Io)?)
            }
        };
        *self.index.borrow_mut() = Some((base_offset, index.clone()));
        Ok(index)
    }

    pub(crate) fn has_old_indexes(&self) {
        let base_offset = self.store.borrow_mut().active().base_offset;
        self.old_indexes.set(Some(base_offset));
    }

    async fn remove_old_indexes(&self) {
        let Some(base_offset) = self.old_indexes.get() else { return };
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            self.files.remove(&name(base_offset, kind)).await;
        }
        self.old_indexes.set(None);
        self.store.borrow_mut().names_changed += 1;
    }

    /// Writes everything that was appended before the call.
    pub(crate) async fn write_out(&self) -> Result<(), DiskError> {
        self.remove_old_indexes().await;
        let jobs = self.files.device.with_random(|random| self.store.borrow().jobs(random));
        for mut job in jobs {
            let file = name(job.base_offset, FileKind::Log);
            if job.create {
                self.files.create(&file).await?;
            }
            let file_len = self.write_job(&file, &mut job).await?;
            let mut store = self.store.borrow_mut();
            let Some(tail) = store.tail(job.base_offset) else { continue };
            let was_created = std::mem::replace(&mut tail.create, false);
            tail.written = job.end;
            tail.file_len = file_len;
            store.names_changed += u64::from(was_created);
        }
        Ok(())
    }

    /// Returns the file's length afterwards.
    async fn write_job(&self, file: &str, job: &mut Job) -> Result<u64, DiskError> {
        let mut file_len = self.store.borrow_mut().tail(job.base_offset).map_or(0, |tail| tail.file_len);
        if let Some(to) = job.allocate_to
            && self.files.len(file).is_some_and(|len| len < to)
        {
            self.files.set_len(file, to).await?;
            file_len = file_len.max(to);
        }
        if !job.bytes.is_empty() {
            if job.head > 0 {
                let before = self.files.read(file, job.from, job.head).await?;
                if before.len() != job.head {
                    return Err(DiskError::Io);
                }
                job.bytes[..job.head].copy_from_slice(&before);
            }
            let end = job.from + job.bytes.len() as u64;
            self.files.write_blocks(file, job.from, std::mem::take(&mut job.bytes)).await?;
            file_len = file_len.max(align_up(end, BLOCK_BYTES));
        }
        if job.sealed && file_len > job.end {
            self.files.set_len(file, job.end).await?;
            file_len = job.end;
        }
        Ok(file_len)
    }

    /// Makes what has been written survive a power failure.
    pub(crate) async fn sync(&self) -> Result<(), DiskError> {
        let segments = self.store.borrow().unsynced_segments();
        let (changed, synced) = (self.store.borrow().names_changed, self.store.borrow().names_synced);
        if synced < changed {
            self.files.sync_dir().await?;
            let mut store = self.store.borrow_mut();
            store.names_synced = changed.max(store.names_synced);
        }
        for base_offset in segments {
            match self.files.sync(&name(base_offset, FileKind::Log)).await {
                // It was renamed meanwhile: nobody needs it on the device any more.
                Err(DiskError::NotFound) if !self.store.borrow().is_held(base_offset) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Makes the active segment's file if it isn't there.
    pub(crate) async fn create_active(&self) -> Result<(), DiskError> {
        let base_offset = self.store.borrow_mut().active().base_offset;
        self.files.create(&name(base_offset, FileKind::Log)).await?;
        self.files.sync_dir().await?;
        if let Some(tail) = self.store.borrow_mut().tail(base_offset) {
            tail.create = false;
        }
        Ok(())
    }

    /// Cuts the active file to its bytes. Everything must have been written.
    pub(crate) async fn trim(&self) -> Result<(), DiskError> {
        let (base_offset, end, file_len, create) = {
            let mut store = self.store.borrow_mut();
            let tail = store.active();
            (tail.base_offset, tail.end(), tail.file_len, tail.create)
        };
        let file = name(base_offset, FileKind::Log);
        if create {
            self.files.create(&file).await?;
        }
        if file_len != end {
            self.files.set_len(&file, end).await?;
        }
        if let Some(tail) = self.store.borrow_mut().tail(base_offset) {
            tail.create = false;
            tail.file_len = end;
        }
        Ok(())
    }

    /// Cuts the active file to its bytes, if it is longer and nothing waits to be written.
    pub(crate) async fn cut_padding(&self) -> Result<(), DiskError> {
        let has_padding = self.store.borrow().padding().is_some();
        if has_padding { self.trim().await } else { Ok(()) }
    }

    /// A segment's file is about to go.
    pub(crate) fn forget(&self, base_offset: Offset) {
        *self.index.borrow_mut() = None;
        self.store.borrow_mut().forget(base_offset);
    }

    /// The log was cut.
    pub(crate) fn reset(&self, base_offset: Offset, size: u64, file_len: Option<u64>) {
        // A segment that is sealed again has another index then.
        *self.index.borrow_mut() = None;
        self.store.borrow_mut().reset(base_offset, size, file_len);
    }

    /// Batches from the one that holds `from` on: about `max_bytes`, at least one, none at or above `limit`. The last
    /// one may be cut off.
    pub(crate) async fn read(
        &self,
        log: &RefCell<Log>,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let located = log.borrow().locate(from);
        let Ok(location) = located else { return Ok(Vec::new()) };
        let (mut segment, mut position) = match location {
            Location::At { segment_base_offset, position, .. } => (segment_base_offset, u64::from(position)),
            Location::NeedsIndex { segment_base_offset } => match self.offset_index(segment_base_offset).await {
                Ok(index) => (segment_base_offset, u64::from(index.lookup(from).position)),
                Err(DiskError::NotFound) if log.borrow().segment_size(segment_base_offset).is_none() => {
                    return Ok(Vec::new());
                }
                Err(fault) => return Err(fault.into()),
            },
        };
        loop {
            let Some(end) = log.borrow().read_end(segment, limit) else { return Ok(Vec::new()) };
            let stop = u64::from(end.position);
            if position < stop {
                let bytes = match self.bytes_at(segment, position, stop).await {
                    Err(DiskError::NotFound) if log.borrow().segment_size(segment).is_none() => return Ok(Vec::new()),
                    outcome => outcome?,
                };
                let batches = choose(&bytes, from, limit, max_bytes, end.exact);
                let batches = batches.map_err(|at| ReadError::Corrupt { segment, position: position + at as u64 })?;
                if !batches.is_empty() {
                    return Ok(batches);
                }
            }
            let next = log.borrow().next_segment(segment);
            match next.filter(|&next| next < limit) {
                Some(next) => (segment, position) = (next, 0),
                None => return Ok(Vec::new()),
            }
        }
    }

    async fn bytes_at(&self, segment: Offset, position: u64, stop: u64) -> Result<Vec<u8>, DiskError> {
        let mut bytes = Vec::new();
        loop {
            let at = position + bytes.len() as u64;
            if let Some(young) = self.store.borrow().read_memory(segment, at, stop) {
                bytes.extend_from_slice(young);
                return Ok(bytes);
            }
            // Behind what is written the file holds padding, or nothing.
            let written = self.store.borrow_mut().tail(segment).map_or(stop, |tail| tail.written.min(stop));
            let len = written.saturating_sub(at) as usize;
            let old = self.files.read(&name(segment, FileKind::Log), at, len).await?;
            if old.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&old);
        }
    }
}

/// The batches of `bytes` that are asked for, the last one perhaps in part; else where there is none though one must be.
fn choose(bytes: &[u8], from: Offset, limit: Offset, max_bytes: usize, is_exact: bool) -> Result<Vec<u8>, usize> {
    let header_at =
        |at: usize| bytes.get(at..at + BATCH_HEADER_LEN).map(|header| BatchHeader::parse(header).or(Err(at)));
    let mut start = 0;
    let first = loop {
        if start >= bytes.len() {
            return Ok(Vec::new());
        }
        let header = header_at(start).ok_or(start)??;
        if header.last_offset() >= from {
            break header;
        }
        start += header.size_in_bytes();
    };
    if first.base_offset >= limit {
        return Ok(Vec::new());
    }
    let first_len = first.size_in_bytes();
    if bytes.len() < start + first_len {
        return Err(start);
    }
    let mut end = bytes.len().min(start + first_len.max(max_bytes));
    if !is_exact {
        let mut at = start;
        while at < end
            && let Some(header) = header_at(at)
        {
            let header = header?;
            if header.base_offset >= limit {
                end = at;
            }
            at += header.size_in_bytes();
        }
    }
    Ok(bytes[start..end].to_vec())
}
