//! The bytes of one file: as readers see them, and as they are safe on the device.
//!
//! A change (bytes written, a length set) is seen at once and kept in a list until it is safe. A power failure keeps or
//! loses each sector of each unsafe change by chance, and each set length; two rules of journaling file systems hold:
//! lengths become safe in their order, and when a file was cut, nothing is there that was written beyond the cut afterwards
//! unless the cut is, too.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::BLOCK_BYTES;

/// The device writes so much wholly or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;
const BLOCK: u64 = BLOCK_BYTES as u64;

type Block = [u8; BLOCK_BYTES];

#[derive(Clone)]
enum Place {
    Hole,
    /// Room was made, nothing written.
    Zeros,
    Data(Rc<Block>),
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Content {
    len: u64,
    blocks: Vec<Place>,
    allocated: u64,
    safe_len: u64,
    safe: Vec<Option<Rc<Block>>>,
    unsafe_changes: VecDeque<Change>,
    /// Something was written that went through the page cache.
    is_buffered: bool,
    /// Changes that were made safe or lost.
    settled: u64,
}

enum Change {
    /// Blocks from `first` on, whole, as they were after the write; it touched `len` bytes at `position`.
    Write {
        position: u64,
        len: u64,
        first: usize,
        blocks: Vec<Rc<Block>>,
    },
    Length {
        from: u64,
        to: u64,
    },
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Blocks that the file takes on its disk.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Blocks that a write would take in addition.
    pub fn wanted(&self, position: u64, len: u64) -> u64 {
        let blocks = (position / BLOCK)..(position + len).div_ceil(BLOCK);
        blocks.filter(|block| matches!(self.blocks.get(*block as usize), None | Some(Place::Hole))).count() as u64
    }

    pub fn read(&self, position: u64, len: u64) -> Vec<u8> {
        let end = position.saturating_add(len).min(self.len);
        let mut bytes = Vec::with_capacity(end.saturating_sub(position) as usize);
        let mut at = position;
        while at < end {
            let (block, within) = ((at / BLOCK) as usize, (at % BLOCK) as usize);
            let count = (BLOCK_BYTES - within).min((end - at) as usize);
            match self.blocks.get(block) {
                Some(Place::Data(data)) => bytes.extend_from_slice(&data[within..within + count]),
                _ => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        bytes
    }

    /// Writes; at most `keep` changes stay unsafe.
    pub fn write(&mut self, position: u64, bytes: &[u8], keep: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = position + bytes.len() as u64;
        let first = (position / BLOCK) as usize;
        let mut blocks = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let at = position + done as u64;
            let (block, within) = ((at / BLOCK) as usize, (at % BLOCK) as usize);
            let count = (BLOCK_BYTES - within).min(bytes.len() - done);
            let mut data = match self.blocks.get(block) {
                Some(Place::Data(data)) if count < BLOCK_BYTES => **data,
                _ => [0; BLOCK_BYTES],
            };
            data[within..within + count].copy_from_slice(&bytes[done..done + count]);
            let data = Rc::new(data);
            self.put(block, Place::Data(data.clone()));
            blocks.push(data);
            done += count;
        }
        self.len = self.len.max(end);
        self.unsafe_changes.push_back(Change::Write { position, len: bytes.len() as u64, first, blocks });
        self.bound(keep);
    }

    fn put(&mut self, block: usize, place: Place) {
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, Place::Hole);
        }
        let was_there = !matches!(self.blocks[block], Place::Hole);
        self.allocated += u64::from(!was_there);
        self.blocks[block] = place;
    }

    /// Cuts or lengthens with zeros.
    pub fn set_len(&mut self, len: u64, keep: usize) {
        let from = self.len;
        self.cut_seen(len);
        self.len = len;
        self.unsafe_changes.push_back(Change::Length { from, to: len });
        self.bound(keep);
    }

    fn cut_seen(&mut self, len: u64) {
        let kept = len.div_ceil(BLOCK) as usize;
        if self.blocks.len() > kept {
            let gone = self.blocks.drain(kept..).filter(|place| !matches!(place, Place::Hole)).count();
            self.allocated -= gone as u64;
        }
        let within = (len % BLOCK) as usize;
        if let (1.., Some(Place::Data(data))) = (within, self.blocks.get_mut((len / BLOCK) as usize)) {
            Rc::make_mut(data)[within..].fill(0);
        }
    }

    /// Makes room for `len` bytes, and the file so long if it is shorter.
    pub fn allocate(&mut self, len: u64, keep: usize) {
        for block in 0..len.div_ceil(BLOCK) as usize {
            if matches!(self.blocks.get(block), None | Some(Place::Hole)) {
                self.put(block, Place::Zeros);
            }
        }
        if len > self.len {
            self.set_len(len, keep);
        }
    }

    fn bound(&mut self, keep: usize) {
        while self.unsafe_changes.len() > keep {
            self.settle_oldest();
        }
    }

    /// A sync begins: what it covers.
    pub fn begin_sync(&self) -> u64 {
        self.settled + self.unsafe_changes.len() as u64
    }

    /// A sync ends.
    pub fn finish_sync(&mut self, covered: u64) {
        while self.settled < covered && !self.unsafe_changes.is_empty() {
            self.settle_oldest();
        }
    }

    fn settle_oldest(&mut self) {
        let Some(change) = self.unsafe_changes.pop_front() else { return };
        self.settled += 1;
        match change {
            Change::Length { to, .. } => self.set_safe_len(to),
            Change::Write { position, len, first, blocks } => {
                let whole = position.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK);
                for (index, block) in blocks.into_iter().enumerate() {
                    match whole {
                        true => self.put_safe(first + index, block),
                        false => self.settle_sectors(position, len, first + index, &block, &mut || true),
                    }
                }
                self.safe_len = self.safe_len.max(position + len);
            }
        }
    }

    fn put_safe(&mut self, block: usize, data: Rc<Block>) {
        if self.safe.len() <= block {
            self.safe.resize(block + 1, None);
        }
        self.safe[block] = Some(data);
    }

    /// Makes those sectors of a block safe that a write touched and `is_kept` wants.
    fn settle_sectors(
        &mut self,
        position: u64,
        len: u64,
        block: usize,
        data: &Block,
        is_kept: &mut dyn FnMut() -> bool,
    ) {
        let begin = block as u64 * BLOCK;
        let (from, to) = (position.max(begin), (position + len).min(begin + BLOCK));
        let mut sector = from / SECTOR_BYTES * SECTOR_BYTES;
        while sector < to {
            if is_kept() {
                let within = (sector - begin) as usize;
                if self.safe.len() <= block {
                    self.safe.resize(block + 1, None);
                }
                let safe = self.safe[block].get_or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
                let range = within..within + SECTOR_BYTES as usize;
                Rc::make_mut(safe)[range.clone()].copy_from_slice(&data[range]);
                self.safe_len = self.safe_len.max((sector + SECTOR_BYTES).min(position + len));
            }
            sector += SECTOR_BYTES;
        }
    }

    fn set_safe_len(&mut self, len: u64) {
        let kept = len.div_ceil(BLOCK) as usize;
        self.safe.truncate(kept);
        let within = (len % BLOCK) as usize;
        if let (1.., Some(Some(data))) = (within, self.safe.get_mut((len / BLOCK) as usize)) {
            Rc::make_mut(data)[within..].fill(0);
        }
        self.safe_len = len;
    }

    /// Of the oldest changes, up to `covered`, any sectors become safe, the others are lost.
    fn lose_up_to(&mut self, covered: u64, is_kept: &mut dyn FnMut() -> bool) {
        let mut lost_cut: Option<u64> = None;
        let mut is_length_lost = false;
        while self.settled < covered {
            let Some(change) = self.unsafe_changes.pop_front() else { return };
            self.settled += 1;
            match change {
                Change::Length { to, .. } if !is_length_lost && is_kept() => self.set_safe_len(to),
                Change::Length { from, to } => {
                    is_length_lost = true;
                    if to < from {
                        lost_cut = Some(lost_cut.map_or(to, |cut| cut.min(to)));
                    }
                }
                Change::Write { position, len, first, blocks } => {
                    let end = lost_cut.map_or(position + len, |cut| (position + len).min(cut));
                    let len = end.saturating_sub(position);
                    for (index, block) in blocks.iter().enumerate() {
                        self.settle_sectors(position, len, first + index, block, is_kept);
                    }
                }
            }
        }
    }

    /// The power fails.
    pub fn lose(&mut self, is_kept: &mut dyn FnMut() -> bool) {
        if !self.unsafe_changes.is_empty() {
            self.lose_up_to(u64::MAX, is_kept);
        }
        self.see_safe();
    }

    /// The page cache holds what is written.
    pub fn mark_buffered(&mut self) {
        self.is_buffered = true;
    }

    /// A sync fails: what it covered is on the device or lost, and nobody will try again. Readers see what the page cache
    /// has, as long as it has it (`is_cached`); it never has what went around it.
    pub fn fail_sync(&mut self, covered: u64, is_cached: bool, is_kept: &mut dyn FnMut() -> bool) {
        self.lose_up_to(covered, is_kept);
        if is_cached && self.is_buffered {
            return;
        }
        self.see_safe();
        let later = std::mem::take(&mut self.unsafe_changes);
        for change in &later {
            match change {
                Change::Length { to, .. } => {
                    self.cut_seen(*to);
                    self.len = *to;
                }
                Change::Write { position, len, first, blocks } => {
                    for (index, block) in blocks.iter().enumerate() {
                        self.see_sectors(*position, *len, first + index, block);
                    }
                    self.len = self.len.max(position + len);
                }
            }
        }
        self.unsafe_changes = later;
    }

    /// Readers see those sectors of a block that a write touched.
    fn see_sectors(&mut self, position: u64, len: u64, block: usize, data: &Rc<Block>) {
        let begin = block as u64 * BLOCK;
        let from = (position.max(begin) / SECTOR_BYTES * SECTOR_BYTES - begin) as usize;
        let to = ((position + len).min(begin + BLOCK).next_multiple_of(SECTOR_BYTES) - begin) as usize;
        let mut seen = match self.blocks.get(block) {
            Some(Place::Data(seen)) => **seen,
            _ => [0; BLOCK_BYTES],
        };
        seen[from..to].copy_from_slice(&data[from..to]);
        self.put(block, Place::Data(Rc::new(seen)));
    }

    fn see_safe(&mut self) {
        self.len = self.safe_len;
        let place = |data: &Option<Rc<Block>>| data.clone().map_or(Place::Hole, Place::Data);
        self.blocks = self.safe.iter().map(place).collect();
        self.allocated = self.safe.iter().flatten().count() as u64;
    }

    /// What a power failure would leave for certain.
    pub fn safe(&self) -> Vec<u8> {
        let place = |data: &Option<Rc<Block>>| data.clone().map_or(Place::Hole, Place::Data);
        let blocks = self.safe.iter().map(place).collect();
        Content { len: self.safe_len, blocks, ..Content::default() }.read(0, self.safe_len)
    }

    pub fn is_safe(&self) -> bool {
        self.unsafe_changes.is_empty()
    }

    /// Bits of a byte turn, on the device itself.
    pub fn rot(&mut self, position: u64, mask: u8) {
        let (block, within) = ((position / BLOCK) as usize, (position % BLOCK) as usize);
        if let Some(Place::Data(data)) = self.blocks.get_mut(block) {
            Rc::make_mut(data)[within] ^= mask;
        }
        if let Some(Some(data)) = self.safe.get_mut(block) {
            Rc::make_mut(data)[within] ^= mask;
        }
    }
}

#[cfg(test)]
mod tests;
