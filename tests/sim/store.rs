//! The young ends of segments, as `shards/storage/segment_store.rs` keeps them: what a pass has to write, and sealed segments
//! whose indexes are due.

use std::collections::{BTreeSet, VecDeque};

use ringlog_log::Roll;
use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_types::{Offset, Random, align_down, align_up};

use crate::disk::BLOCK_BYTES;

/// Name of one of a segment's files.
pub(crate) fn name(offset: Offset, kind: FileKind) -> String {
    SegmentFile::live(offset, kind).to_string()
}

/// The end of a segment in memory.
#[derive(Debug)]
pub(crate) struct Tail {
    pub base_offset: Offset,
    /// Bytes of the segment before this are only in the file.
    known_from: u64,
    bytes: Vec<u8>,
    pub written: u64,
    pub file_len: u64,
    pub create: bool,
    pub sealed: bool,
}

/// What one pass has to do for one segment.
#[derive(Debug)]
pub(crate) struct Job {
    pub base_offset: Offset,
    pub create: bool,
    pub sealed: bool,
    pub end: u64,
    pub allocate_to: Option<u64>,
    /// Where `bytes` go; a multiple of the block.
    pub from: u64,
    /// Bytes at the beginning that only the file has; zeros here.
    pub head: usize,
    /// Padded to the block.
    pub bytes: Vec<u8>,
}

/// The bytes of the log that aren't in files yet.
#[derive(Debug)]
pub(crate) struct Store {
    pub tails: VecDeque<Tail>,
    /// Sealed segments that aren't complete on the device.
    pub rolls: Vec<Roll>,
    pub finishing: BTreeSet<Offset>,
    pub names_changed: u64,
    pub names_synced: u64,
}

impl Store {
    pub(crate) fn new(base_offset: Offset, size: u64, file_len: Option<u64>) -> Store {
        let tails = VecDeque::from([Tail::new(base_offset, size, file_len)]);
        Store { tails, rolls: Vec::new(), finishing: BTreeSet::new(), names_changed: 0, names_synced: 0 }
    }

    pub(crate) fn append(&mut self, position: u64, bytes: &[u8]) {
        let tail = self.tails.back_mut().expect("an active segment");
        assert_eq!(tail.end(), position, "an append goes to the end of the segment");
        tail.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn roll(&mut self, roll: Roll) {
        self.tails.back_mut().expect("an active segment").sealed = true;
        self.tails.push_back(Tail::new(roll.new_base_offset, 0, None));
        self.rolls.push(roll);
    }

    /// Whether a pass has something to write, or a sealed segment to hand out.
    pub(crate) fn is_dirty(&self) -> bool {
        let is_waiting = self.rolls.iter().any(|roll| !self.finishing.contains(&roll.sealed.base_offset));
        self.tails.iter().any(Tail::is_dirty) || is_waiting
    }

    pub(crate) fn tail(&mut self, base_offset: Offset) -> Option<&mut Tail> {
        self.tails.iter_mut().find(|tail| tail.base_offset == base_offset)
    }

    pub(crate) fn active(&mut self) -> &mut Tail {
        self.tails.back_mut().expect("an active segment")
    }

    /// The active segment and its bytes, if its file is longer and has all of them.
    pub(crate) fn padding(&self) -> Option<(Offset, u64)> {
        let tail = self.tails.back()?;
        let has_padding = !tail.create && !tail.is_dirty() && tail.file_len > tail.end();
        has_padding.then(|| (tail.base_offset, tail.end()))
    }

    pub(crate) fn jobs(&self, random: &mut Random) -> Vec<Job> {
        self.tails.iter().filter(|tail| tail.is_dirty()).map(|tail| tail.job(random)).collect()
    }

    /// After a pass: written tails of sealed segments go; returns the sealed segments that can be finished now.
    pub(crate) fn take_finished(&mut self) -> Vec<Roll> {
        while self.tails.len() > 1 && self.tails.front().is_some_and(|tail| !tail.is_dirty()) {
            self.tails.pop_front();
        }
        let mut finished = Vec::new();
        for roll in &self.rolls {
            let base_offset = roll.sealed.base_offset;
            let is_written = !self.tails.iter().any(|tail| tail.base_offset == base_offset && tail.is_dirty());
            if is_written && self.finishing.insert(base_offset) {
                finished.push(roll.clone());
            }
        }
        finished
    }

    pub(crate) fn finished(&mut self, base_offset: Offset) {
        self.rolls.retain(|roll| roll.sealed.base_offset != base_offset);
        self.finishing.remove(&base_offset);
    }

    /// Gives up memory whose bytes are all in the file.
    pub(crate) fn release_clean(&mut self) {
        for tail in &mut self.tails {
            if tail.written == tail.end() {
                tail.known_from = tail.end();
                tail.bytes = Vec::new();
            }
        }
    }

    /// Bytes of a segment as they lie in memory; `None` when the first of them is only in the file.
    pub(crate) fn read_memory(&self, base_offset: Offset, position: u64, end: u64) -> Option<&[u8]> {
        let tail = self.tails.iter().find(|tail| tail.base_offset == base_offset)?;
        let from = position.checked_sub(tail.known_from)? as usize;
        let to = (end.min(tail.end()) - tail.known_from) as usize;
        tail.bytes.get(from..to.max(from))
    }

    /// Whether the segment is young, or sealed and not finished.
    pub(crate) fn is_held(&self, base_offset: Offset) -> bool {
        self.tails.iter().any(|tail| tail.base_offset == base_offset)
            || self.rolls.iter().any(|roll| roll.sealed.base_offset == base_offset)
    }

    /// The recovery point stays at or below.
    pub(crate) fn unfinished_from(&self) -> Option<Offset> {
        self.rolls.iter().map(|roll| roll.sealed.base_offset).min()
    }

    /// How far the recovery point may go when everything below `end_offset` is synced.
    pub(crate) fn flushed_up_to(&self, end_offset: Offset) -> Offset {
        self.unfinished_from().map_or(end_offset, |unfinished| unfinished.min(end_offset))
    }

    /// Segments whose files hold bytes that may not be synced.
    pub(crate) fn unsynced_segments(&self) -> Vec<Offset> {
        let tails = self.tails.iter().filter(|tail| !tail.create).map(|tail| tail.base_offset);
        let mut segments: BTreeSet<Offset> = tails.collect();
        let created = |base: &Offset| !self.tails.iter().any(|tail| tail.base_offset == *base && tail.create);
        segments.extend(self.rolls.iter().map(|roll| roll.sealed.base_offset).filter(created));
        segments.into_iter().collect()
    }

    /// A segment's files are about to go.
    pub(crate) fn forget(&mut self, base_offset: Offset) {
        self.finished(base_offset);
        if self.tails.len() > 1 {
            self.tails.retain(|tail| tail.base_offset != base_offset);
        }
    }
}

impl Store {
    /// The log was cut: its active segment is now this one, and nothing is in memory.
    pub(crate) fn reset(&mut self, base_offset: Offset, size: u64, file_len: Option<u64>) {
        self.tails = VecDeque::from([Tail::new(base_offset, size, file_len)]);
    }
}

impl Tail {
    fn new(base_offset: Offset, size: u64, file_len: Option<u64>) -> Tail {
        Tail {
            base_offset,
            known_from: size,
            bytes: Vec::new(),
            written: size,
            file_len: file_len.unwrap_or(0),
            create: file_len.is_none(),
            sealed: false,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.known_from + self.bytes.len() as u64
    }

    fn is_dirty(&self) -> bool {
        self.written < self.end() || (self.sealed && (self.file_len != self.end() || self.create))
    }

    fn job(&self, random: &mut Random) -> Job {
        let from = align_down(self.written, BLOCK_BYTES);
        let mut bytes = Vec::new();
        let mut head = 0;
        if self.written < self.end() {
            head = self.known_from.saturating_sub(from) as usize;
            bytes.resize(head, 0);
            bytes.extend_from_slice(&self.bytes[from.saturating_sub(self.known_from) as usize..]);
            bytes.resize(align_up(bytes.len() as u64, BLOCK_BYTES) as usize, 0);
        }
        let wants_room = !self.sealed && self.end() > self.file_len && random.below(3) == 0;
        let room = align_up(self.end(), BLOCK_BYTES) + random.below(4) * BLOCK_BYTES;
        Job {
            base_offset: self.base_offset,
            create: self.create,
            sealed: self.sealed,
            end: self.end(),
            allocate_to: wants_room.then_some(room),
            from,
            head,
            bytes,
        }
    }
}
