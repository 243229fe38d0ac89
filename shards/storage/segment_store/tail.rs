//! The young ends of a log's segments: frames that are appended to ([`SegmentStore::append`]), written from, and read from.
//! No I/O.
//!
//! All but the last tail belong to sealed segments that are being written out.

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ringlog_log::Roll;
use ringlog_ring::{BLOCK_BYTES, Frame, FrameSlice};
use ringlog_types::{Offset, align_down, align_up};

use super::SegmentStore;
use crate::storage::cache_memory::{CacheMemory, Kept, Kind};
use crate::storage::frames::FrameCache;
use crate::storage::generations::Segment;
use crate::storage::slices::Slices;

const FIRST_FRAME_BYTES: usize = 16 * 1024;
const LARGEST_FRAME_BYTES: usize = 256 * 1024;
/// Segments of a log of which something is in memory, at most, unless more are still to be written.
const TAILS_MAX: usize = 64;
const FIRST_ALLOCATION_BYTES: u64 = 1024 * 1024;
const LARGEST_ALLOCATION_BYTES: u64 = 32 * 1024 * 1024;

/// The tails of one log, oldest first; there is always one.
pub(super) struct Tails(RefCell<VecDeque<Tail>>);

/// The young end of a segment.
pub(super) struct Tail {
    pub segment: Segment,
    full: VecDeque<TailFrame>,
    open: Option<TailFrame>,
    /// Bytes of the segment.
    end: u64,
    /// Bytes of it that are in the file.
    written: u64,
    /// Length of the file, at most.
    pub file_len: u64,
    /// It is being made longer ahead of its writes.
    pub is_growing: bool,
    next_frame_bytes: usize,
    /// Its file doesn't exist yet.
    pub create: bool,
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
    /// It is in the file, and in memory as long as nobody else needs that.
    kept: Option<Kept>,
}

/// One contiguous write: bytes of a frame, from a block's start on.
#[derive(Clone)]
pub(super) struct Write {
    pub position: u64,
    pub slice: FrameSlice,
}

/// What one pass has to do for one segment.
pub(super) struct Job {
    pub segment: Segment,
    pub create: bool,
    pub sealed: bool,
    pub end: u64,
    /// The first block begins with bytes that only the file has: so many.
    pub head: usize,
    pub writes: Vec<Write>,
}

/// The active segment's file as it is, and as it should be left.
pub(super) struct ActiveFile {
    pub segment: Segment,
    pub end: u64,
    pub file_len: u64,
    pub create: bool,
}

impl SegmentStore {
    /// Whether there is memory for an append of `bytes`, until the next `await`. Other stores' clean frames give way.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let memory = self.tails.memory_for(bytes);
        self.context.frames.has_room(memory)
    }

    /// Copies `parts`, which follow each other, to the end of the active segment, which must be at `position`.
    pub fn append(&self, position: u64, parts: &[&[u8]]) {
        self.tails.append(&self.context.frames, position, parts);
    }

    /// Starts a new segment. The one before is cut to its size once it is written out; then its indexes are due, see
    /// [`SegmentStore::take_finished`].
    pub fn roll(&self, roll: Box<Roll>) {
        self.tails.roll(self.files.generations.begin(roll.new_base_offset));
        self.indexes.on_roll(roll);
    }
}

impl Tails {
    pub fn new(tail: Tail) -> Tails {
        Tails(RefCell::new(VecDeque::from([tail])))
    }

    pub fn active(&self) -> Segment {
        self.with_active(|tail| tail.segment)
    }

    pub fn with_active<R>(&self, look: impl FnOnce(&Tail) -> R) -> R {
        look(self.0.borrow().back().expect("a store has an active segment"))
    }

    /// `None` when the segment has no tail any more.
    pub fn with<R>(&self, segment: Segment, change: impl FnOnce(&mut Tail) -> R) -> Option<R> {
        self.0.borrow_mut().iter_mut().find(|tail| tail.segment == segment).map(change)
    }

    /// The tails, to look at.
    pub fn borrow(&self) -> Ref<'_, VecDeque<Tail>> {
        self.0.borrow()
    }

    pub fn append(&self, frames: &FrameCache, position: u64, parts: &[&[u8]]) {
        let mut tails = self.0.borrow_mut();
        let tail = tails.back_mut().expect("a store has an active segment");
        assert_eq!(tail.end, position, "an append goes to the end of the segment");
        for part in parts {
            tail.append(frames, part);
        }
    }

    /// Appends go to a new segment from now on.
    pub fn roll(&self, segment: Segment) {
        let mut tails = self.0.borrow_mut();
        let mut tail = Tail::new(segment, 0, None);
        if let Some(last) = tails.back_mut() {
            last.sealed = true;
            last.retire_open_frame();
            tail.next_frame_bytes = last.next_frame_bytes;
        }
        tails.push_back(tail);
        while tails.len() > TAILS_MAX && !tails[0].is_dirty() {
            tails.pop_front();
        }
    }

    pub fn is_dirty(&self) -> bool {
        self.0.borrow().iter().any(Tail::is_dirty)
    }

    /// Whether all of the segment is in its file.
    pub fn is_written(&self, base_offset: Offset) -> bool {
        !self.0.borrow().iter().any(|tail| tail.segment.base_offset == base_offset && tail.is_dirty())
    }

    /// Drops those of sealed segments that have nothing to write and nothing to show.
    pub fn drop_finished(&self) {
        drop_finished(&mut self.0.borrow_mut());
    }

    /// Gives up frames whose bytes are all in the file, oldest first, until it is as much memory as `wanted`; returns how much.
    pub fn release_clean(&self, wanted: usize) -> usize {
        self.take_from_each(wanted, Tail::release_clean)
    }

    /// Frames whose bytes are all in the file count as kept, oldest first, until that is as much memory as `wanted`; returns
    /// how much is kept of them, and how much they were with those that can't be kept.
    pub fn keep_clean(&self, wanted: usize, memory: &Rc<CacheMemory>) -> (usize, usize) {
        let mut kept = 0;
        let keep = |tail: &mut Tail, wanted: usize| {
            let of_tail = tail.keep_clean(wanted, memory);
            kept += of_tail;
            of_tail + tail.release_open(wanted - of_tail.min(wanted))
        };
        let passed_on = self.take_from_each(wanted, keep);
        (kept, passed_on)
    }

    /// Gives up kept frames, oldest first, until it is as much memory as `wanted`; returns how much.
    pub fn release_kept(&self, wanted: usize) -> usize {
        self.take_from_each(wanted, Tail::release_kept)
    }

    fn take_from_each(&self, wanted: usize, mut take: impl FnMut(&mut Tail, usize) -> usize) -> usize {
        let Ok(mut tails) = self.0.try_borrow_mut() else { return 0 };
        let mut taken = 0;
        for tail in tails.iter_mut() {
            if taken >= wanted {
                break;
            }
            taken += take(tail, wanted - taken);
        }
        drop_finished(&mut tails);
        taken
    }

    /// Gives up all frames, written or not.
    pub fn abandon(&self) {
        for tail in self.0.borrow_mut().iter_mut() {
            tail.full.clear();
            tail.open = None;
        }
    }

    /// The segment goes; the active one's tail stays, since there always is one.
    pub fn forget(&self, base_offset: Offset) {
        let mut tails = self.0.borrow_mut();
        if tails.len() > 1 {
            tails.retain(|tail| tail.segment.base_offset != base_offset);
        }
    }

    /// Nothing is in memory, and appends go to `tail`.
    pub fn reset(&self, tail: Tail) {
        *self.0.borrow_mut() = VecDeque::from([tail]);
    }

    /// Memory that an append of `bytes` may take.
    pub fn memory_for(&self, bytes: usize) -> usize {
        let next = self.with_active(|tail| tail.next_frame_bytes);
        // It may begin in the middle of a block or a new segment, and its own open frame may be one that gives way.
        let bytes = bytes + BLOCK_BYTES;
        frames_for(next, bytes).max(frames_for(FIRST_FRAME_BYTES, bytes))
    }
}

impl TailFrame {
    fn end(&self) -> u64 {
        self.position + self.frame.len() as u64
    }
}

impl Tail {
    /// Of a segment with `size` bytes in a file of `file_len`; `None` when that is still to be made.
    pub fn new(segment: Segment, size: u64, file_len: Option<u64>) -> Tail {
        Tail {
            segment,
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

    pub fn is_dirty(&self) -> bool {
        self.written < self.end || (self.sealed && (self.file_len != self.end || self.create))
    }

    /// Whether the file goes on behind the last record.
    pub fn has_padding(&self) -> bool {
        !self.create && !self.is_dirty() && self.file_len > self.end
    }

    pub fn file(&self) -> ActiveFile {
        ActiveFile { segment: self.segment, end: self.end, file_len: self.file_len, create: self.create }
    }

    /// The file was cut to the bytes that it had when `cut` was taken. Others may have been appended meanwhile.
    pub fn on_cut(&mut self, cut: &ActiveFile) {
        self.create = false;
        self.file_len = cut.end;
        if self.end == cut.end {
            // It has to get busy again before its file is made longer ahead of its writes.
            self.next_frame_bytes = FIRST_FRAME_BYTES;
        }
    }

    /// What a job was for is in the file, whose length is `file_len` now. Returns whether it was made for that.
    pub fn on_written(&mut self, job: &Job, file_len: u64) -> bool {
        self.written = job.end;
        self.file_len = file_len;
        std::mem::replace(&mut self.create, false)
    }

    /// From here on what is in the file may still change, or is at hand for a reader at `position`.
    pub fn settled_from(&self, position: u64) -> u64 {
        let first = self.full.front().or(self.open.as_ref());
        let memory_start = first.map_or(self.end, |first| first.position + first.gap as u64);
        Some(memory_start).filter(|start| *start > position).unwrap_or(u64::MAX).min(self.written)
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
                    self.open.insert(TailFrame { position, gap, frame, kept: None })
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(open.frame.remaining()));
            open.frame.append(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// The full frames that have something behind `position`: there may be thousands before them.
    fn full_from(&self, position: u64) -> impl Iterator<Item = &TailFrame> {
        self.full.range(self.full.partition_point(|full| full.end() <= position)..)
    }

    /// What has to be written now. The bytes themselves are shared, so that appends go on meanwhile.
    pub fn job(&self) -> Job {
        let from = align_down(self.written, BLOCK_BYTES as u64);
        let mut head = 0;
        let mut writes = Vec::new();
        let young = self.full_from(from).chain(&self.open);
        let dirty = young.filter(|tail| self.written < self.end && tail.end() > from);
        for TailFrame { position, gap, frame, .. } in dirty {
            let start = from.saturating_sub(*position) as usize;
            if writes.is_empty() {
                head = gap.saturating_sub(start);
            }
            writes.push(Write { position: position + start as u64, slice: frame.lend(start..frame.len()) });
        }
        Job { segment: self.segment, create: self.create, sealed: self.sealed, end: self.end, head, writes }
    }

    /// Bytes from `position` as they lie in memory, none at or above `limit`; `None` when the first is only in the file.
    pub fn read(&self, frames: &FrameCache, position: u64, limit: u64) -> Option<Slices> {
        let end = limit.min(self.end);
        let mut slices = Slices::new();
        let mut at = position;
        for tail in self.full_from(position).chain(&self.open) {
            if tail.end() <= at {
                continue;
            }
            if at >= end || at < tail.position + tail.gap as u64 {
                break;
            }
            let stop = tail.end().min(end);
            slices.push(frames.share(&tail.frame, (at - tail.position) as usize..(stop - tail.position) as usize));
            at = stop;
        }
        (at > position || position >= end).then_some(slices)
    }

    fn release_clean(&mut self, wanted: usize) -> usize {
        let mut released = 0;
        while released < wanted
            && let Some(full) = self.full.front().filter(|full| full.end() <= self.written)
        {
            released += full.frame.capacity();
            self.full.pop_front();
        }
        released + self.release_open(wanted.saturating_sub(released))
    }

    /// The open frame, if all frames before it are given up or kept, and it is in the file itself.
    fn release_open(&mut self, wanted: usize) -> usize {
        let is_oldest = self.full.back().is_none_or(|last| last.kept.is_some());
        if wanted > 0
            && is_oldest
            && self.written == self.end
            && let Some(open) = self.open.take()
        {
            self.next_frame_bytes = FIRST_FRAME_BYTES;
            return open.frame.capacity();
        }
        0
    }

    fn keep_clean(&mut self, wanted: usize, memory: &Rc<CacheMemory>) -> usize {
        let (mut kept, written) = (0, self.written);
        let first = self.full.partition_point(|full| full.kept.is_some());
        for full in self.full.range_mut(first..).take_while(|full| full.end() <= written) {
            if kept >= wanted {
                break;
            }
            kept += full.frame.capacity();
            full.kept = Some(memory.keep(Kind::Written, full.frame.capacity()));
        }
        kept
    }

    fn release_kept(&mut self, wanted: usize) -> usize {
        let mut released = 0;
        while released < wanted
            && let Some(full) = self.full.pop_front_if(|full| full.kept.is_some())
        {
            released += full.frame.capacity();
        }
        released
    }

    /// By how much, and to what length, the file of a busy log should be made longer now.
    pub fn growth(&self) -> Option<(u64, u64)> {
        let busy = self.next_frame_bytes == LARGEST_FRAME_BYTES && !self.sealed && !self.is_growing;
        let step = self.end.clamp(FIRST_ALLOCATION_BYTES, LARGEST_ALLOCATION_BYTES);
        if !busy || self.end + step / 2 <= self.file_len {
            return None;
        }
        Some((step, align_up(self.end + step, FIRST_ALLOCATION_BYTES)))
    }
}

fn drop_finished(tails: &mut VecDeque<Tail>) {
    while tails.len() > 1 && tails.front().is_some_and(|tail| !tail.is_dirty() && tail.full.is_empty()) {
        tails.pop_front();
    }
}

/// The frame after one of so many bytes: a log that goes on being written gets larger ones.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(size: u64) -> Tail {
        Tail::new(Segment::first(Offset(0)), size, Some(size))
    }

    fn written(tail: &mut Tail) {
        let job = tail.job();
        let file_len = align_up(job.end, BLOCK_BYTES as u64);
        tail.on_written(&job, file_len);
    }

    #[test]
    fn an_append_in_the_middle_of_a_block_writes_the_block_with_its_head() {
        let frames = FrameCache::new(4 << 20, CacheMemory::new(0));
        let mut tail = tail(5000);
        tail.append(&frames, &[7; 100]);
        let job = tail.job();
        let [Write { position, slice }] = &job.writes[..] else { panic!("one write") };
        assert_eq!((*position, slice.as_ref().len(), job.head, job.end), (4096, 1004, 904, 5100));
        written(&mut tail);
        assert!(!tail.is_dirty() && tail.has_padding());
        // What only the file has isn't shown from memory, the rest is.
        assert!(tail.read(&frames, 4999, 5100).is_none());
        assert_eq!(tail.read(&frames, 5000, 5100).unwrap().concat(), [7; 100]);
        assert_eq!(tail.settled_from(4999), 5000);
    }

    #[test]
    fn frames_double_and_begin_small_again_when_they_were_given_up() {
        let frames = FrameCache::new(64 << 20, CacheMemory::new(0));
        let mut tail = tail(0);
        let mut taken = Vec::new();
        for _ in 0..7 {
            tail.append(&frames, &vec![1; tail.open.as_ref().map_or(1, |open| open.frame.remaining() + 1)]);
            taken.push(tail.open.as_ref().unwrap().frame.capacity() / 1024);
        }
        assert_eq!(taken, [16, 32, 64, 128, 256, 256, 256]);
        assert_eq!(tail.release_clean(usize::MAX), 0, "nothing is written");
        written(&mut tail);
        assert_eq!(tail.release_clean(40 * 1024), 48 * 1024, "the oldest, and no more than it takes");
        assert!(tail.read(&frames, 48 * 1024 - 1, u64::MAX).is_none());
        assert_eq!(tail.read(&frames, 48 * 1024, u64::MAX).unwrap().len(), 5);
        assert_eq!(tail.release_clean(usize::MAX), 960 * 1024);
        assert_eq!(frames.in_use_bytes(), 0);
        tail.append(&frames, &[1]);
        assert_eq!(tail.open.as_ref().unwrap().frame.capacity(), 16 * 1024);
    }

    #[test]
    fn memory_that_is_asked_for_is_enough_wherever_the_append_begins() {
        for size in [0, 1, 4095, 4096, 9000] {
            for len in [1, 12_287, 12_288, 12_289, 16_384, 100_000, 3_000_000] {
                let frames = FrameCache::new(64 << 20, CacheMemory::new(0));
                let tails = Tails::new(tail(size));
                let asked = tails.memory_for(len);
                tails.append(&frames, size, &[&vec![1; len]]);
                assert!(frames.in_use_bytes() <= asked, "{len} bytes at {size} took more than {asked}");
            }
        }
    }
}
