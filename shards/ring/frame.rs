//! Frames: the memory that appended records live in, from the socket's copy until the last reader has them.
//!
//! One owner appends; what is appended is published and never changes again, so slices of it go to the disk and to
//! sockets of any core without a copy. Memory is aligned for direct I/O, comes from a pool with a budget, and goes back
//! to the pool of the executor that took it, whoever drops it last.
//!
//! # Why sharing is sound
//!
//! A frame's bytes `0..len` are published: only `&[u8]` to them are ever made. Bytes `len..capacity` are unpublished:
//! only the owning [`Frame`], which isn't `Clone`, makes a `&mut [u8]` to them, under `&mut self`. The two ranges never
//! overlap, and `len` only grows while anybody else holds the memory ([`Frame::try_truncate`] checks that nobody does).
//! A slice reaches another thread through a channel, which orders the owner's writes before the reader's reads. The
//! memory stays mapped until every holder of the block is gone, because each holds the same `Arc`.
//!
//! # What readers hold
//!
//! A frame can't be used again while a reader has a slice of it, however small. [`FramePool::lent_bytes`] tells how much
//! memory that is, so that who lends may copy instead when it is too much.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use crate::BLOCK_BYTES;
use crate::backend::timer::sleep_ms;

/// The smallest frame.
pub const MIN_FRAME_BYTES: usize = 16 * 1024;
/// The largest frame.
pub const MAX_FRAME_BYTES: usize = 2 << 20;

/// 16 KiB, 32 KiB, … 2 MiB.
const CLASSES: usize = (MAX_FRAME_BYTES / MIN_FRAME_BYTES).ilog2() as usize + 1;
/// How often a task that waits for memory looks again.
const RETRY_MS: u64 = 1;

/// Frames of one executor, within a budget. Clones share it.
#[derive(Clone)]
pub struct FramePool(Rc<PoolShared>);

struct PoolShared {
    budget_bytes: usize,
    home: Arc<Home>,
    state: RefCell<PoolState>,
}

#[derive(Default)]
struct PoolState {
    /// Taken from the system: in use or free.
    allocated_bytes: usize,
    free_bytes: usize,
    free: [Vec<Memory>; CLASSES],
    next_ticket: u64,
    waiting: VecDeque<u64>,
}

/// Where memory comes back to, from any core.
struct Home {
    /// No more than the pool's budget.
    returned: SegQueue<Memory>,
    /// Bytes of the frames that readers hold slices of.
    lent_bytes: AtomicUsize,
    /// Bytes of the frames that were taken beyond the budget. Those don't come back; the system has them when they go.
    beyond_bytes: AtomicUsize,
}

impl FramePool {
    /// A pool that takes at most `budget_bytes` from the system.
    pub fn new(budget_bytes: usize) -> FramePool {
        let (returned, lent_bytes, beyond_bytes) = Default::default();
        let home = Arc::new(Home { returned, lent_bytes, beyond_bytes });
        FramePool(Rc::new(PoolShared { budget_bytes, home, state: RefCell::default() }))
    }

    /// An empty frame of at least `bytes` (up to [`MAX_FRAME_BYTES`]), or nothing when the budget doesn't allow it or
    /// others wait.
    pub fn try_frame(&self, bytes: usize) -> Option<Frame> {
        if !self.0.state.borrow().waiting.is_empty() {
            return None;
        }
        self.take(bytes)
    }

    /// [`FramePool::try_frame`] of memory that was used before: it costs nothing.
    pub fn try_used_frame(&self, bytes: usize) -> Option<Frame> {
        let class = class_of(bytes);
        let mut state = self.0.state.borrow_mut();
        state.collect(&self.0.home);
        if !state.waiting.is_empty() {
            return None;
        }
        let memory = state.free[class].pop()?;
        state.free_bytes -= memory.bytes;
        Some(Frame::new(memory, &self.0.home, false))
    }

    /// An empty frame, waiting until memory comes back. First come, first served.
    ///
    /// Foreign cores can't wake this one cheaply, so waiting looks again every millisecond.
    pub async fn acquire(&self, bytes: usize) -> Frame {
        assert!(size_of_class(class_of(bytes)) <= self.0.budget_bytes, "the budget never allows {bytes} bytes");
        if let Some(frame) = self.try_frame(bytes) {
            return frame;
        }
        let ticket = Ticket::new(&self.0);
        loop {
            if ticket.is_first()
                && let Some(frame) = self.take(bytes)
            {
                return frame;
            }
            sleep_ms(RETRY_MS).await;
        }
    }

    /// An empty frame, whatever the budget: for what can't wait, and is small. It counts as in use like the others.
    pub fn frame_beyond_budget(&self, bytes: usize) -> Frame {
        let size = size_of_class(class_of(bytes));
        let Some(memory) = Memory::allocate(size) else { handle_alloc_error(Memory::layout(size)) };
        self.0.home.beyond_bytes.fetch_add(size, Ordering::Relaxed);
        Frame::new(memory, &self.0.home, true)
    }

    /// Bytes in frames and slices of them.
    pub fn in_use_bytes(&self) -> usize {
        let mut state = self.0.state.borrow_mut();
        state.collect(&self.0.home);
        state.allocated_bytes - state.free_bytes + self.0.home.beyond_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the frames that readers hold slices of, whole frames each.
    pub fn lent_bytes(&self) -> usize {
        self.0.home.lent_bytes.load(Ordering::Relaxed)
    }

    /// The most that may be in use.
    pub fn budget_bytes(&self) -> usize {
        self.0.budget_bytes
    }

    /// Tasks that wait for memory.
    pub fn waiters(&self) -> usize {
        self.0.state.borrow().waiting.len()
    }

    /// Gives free memory back to the system.
    pub fn trim(&self) {
        let mut state = self.0.state.borrow_mut();
        state.collect(&self.0.home);
        state.release_free(usize::MAX);
    }

    fn take(&self, bytes: usize) -> Option<Frame> {
        let class = class_of(bytes);
        let size = size_of_class(class);
        let mut state = self.0.state.borrow_mut();
        state.collect(&self.0.home);
        let memory = match state.free[class].pop() {
            Some(memory) => {
                state.free_bytes -= size;
                memory
            }
            None => {
                let room = self.0.budget_bytes - state.allocated_bytes;
                if room < size {
                    state.release_free(size - room);
                }
                if self.0.budget_bytes - state.allocated_bytes < size {
                    return None;
                }
                let memory = Memory::allocate(size)?;
                state.allocated_bytes += size;
                memory
            }
        };
        Some(Frame::new(memory, &self.0.home, false))
    }
}

impl PoolState {
    fn collect(&mut self, home: &Home) {
        while let Some(memory) = home.returned.pop() {
            self.free_bytes += memory.bytes;
            self.free[class_of(memory.bytes)].push(memory);
        }
    }

    /// Gives back to the system at least `wanted` bytes of free memory, if that much is free.
    fn release_free(&mut self, wanted: usize) {
        let mut released = 0;
        for list in &mut self.free {
            while released < wanted
                && let Some(memory) = list.pop()
            {
                released += memory.bytes;
            }
        }
        self.free_bytes -= released;
        self.allocated_bytes -= released;
    }
}

/// A place in the queue for memory; given up on drop.
struct Ticket<'a> {
    pool: &'a PoolShared,
    number: u64,
}

impl Ticket<'_> {
    fn new(pool: &PoolShared) -> Ticket<'_> {
        let mut state = pool.state.borrow_mut();
        let number = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(number);
        Ticket { pool, number }
    }

    fn is_first(&self) -> bool {
        self.pool.state.borrow().waiting.front() == Some(&self.number)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pool.state.borrow_mut().waiting.retain(|number| *number != self.number);
    }
}

fn class_of(bytes: usize) -> usize {
    assert!(bytes <= MAX_FRAME_BYTES, "a frame of {bytes} bytes is too large");
    (bytes.max(MIN_FRAME_BYTES).next_power_of_two() / MIN_FRAME_BYTES).ilog2() as usize
}

fn size_of_class(class: usize) -> usize {
    MIN_FRAME_BYTES << class
}

/// Initialised memory aligned to [`BLOCK_BYTES`].
struct Memory {
    data: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns plain bytes that no thread is tied to.
unsafe impl Send for Memory {}
// SAFETY: shared access hands out a pointer only; who dereferences it argues for that (see the module's text).
unsafe impl Sync for Memory {}

impl Memory {
    /// `None` when the system has none.
    fn allocate(bytes: usize) -> Option<Memory> {
        let layout = Memory::layout(bytes);
        // SAFETY: the layout's size isn't zero: the smallest class is 16 KiB.
        let data = unsafe { alloc_zeroed(layout) };
        NonNull::new(data).map(|data| Memory { data, bytes })
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, BLOCK_BYTES).expect("frame sizes are small powers of two")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with the same layout, and dropped once.
        unsafe { dealloc(self.data.as_ptr(), Memory::layout(self.bytes)) };
    }
}

/// A frame's memory as its frame, slices and writes hold it.
pub(crate) struct Block {
    memory: ManuallyDrop<Memory>,
    home: Arc<Home>,
    is_beyond_budget: bool,
    /// Slices that readers hold.
    readers: AtomicUsize,
}

impl Block {
    pub(crate) fn data(&self) -> *mut u8 {
        self.memory.data.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if self.is_beyond_budget {
            self.home.beyond_bytes.fetch_sub(memory.bytes, Ordering::Relaxed);
            return;
        }
        self.home.returned.push(memory);
    }
}

/// Memory that one owner appends to. Goes back to its pool when it and all slices of it are gone.
pub struct Frame {
    block: Arc<Block>,
    len: usize,
}

impl Frame {
    fn new(memory: Memory, home: &Arc<Home>, is_beyond_budget: bool) -> Frame {
        let (memory, home) = (ManuallyDrop::new(memory), Arc::clone(home));
        Frame { block: Arc::new(Block { memory, home, is_beyond_budget, readers: AtomicUsize::new(0) }), len: 0 }
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.block.memory.bytes
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.len
    }

    /// Whether a slice or a running write holds the memory too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.block) > 1
    }

    /// Whether a reader holds a slice of it.
    pub fn is_lent(&self) -> bool {
        self.block.readers.load(Ordering::Relaxed) > 0
    }

    /// What was appended.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: published bytes are initialised and never written again; the block lives as long as `self`.
        unsafe { slice::from_raw_parts(self.block.data(), self.len) }
    }

    /// Has the system find all of its memory now, and not bit by bit as it is appended to.
    pub fn touch(&mut self) {
        for at in (self.len..self.capacity()).step_by(BLOCK_BYTES) {
            // SAFETY: an unpublished byte within the block; `&mut self` makes this the only access to it.
            unsafe { self.block.data().add(at).write_volatile(0) };
        }
    }

    /// Where the next byte will lie.
    #[cfg(not(ringlog_sim))]
    pub(crate) fn place(&mut self) -> *mut u8 {
        // SAFETY: within the block, or right behind it.
        unsafe { self.block.data().add(self.len) }
    }

    /// Publishes `len` bytes that somebody has written to [`Frame::place`].
    #[cfg(not(ringlog_sim))]
    pub(crate) fn publish(&mut self, len: usize) {
        assert!(len <= self.remaining(), "{len} bytes don't fit into the {} that remain", self.remaining());
        self.len += len;
    }

    /// Appends a copy of `bytes`, which must fit.
    pub fn append(&mut self, bytes: &[u8]) {
        self.append_with(bytes.len(), |place| place.copy_from_slice(bytes));
    }

    /// Appends `len` bytes, which must fit, that `fill` writes. What it leaves alone holds arbitrary old bytes.
    pub fn append_with<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(len <= self.remaining(), "{len} bytes don't fit into the {} that remain", self.remaining());
        // SAFETY: unpublished bytes within the block, initialised at its allocation; `&mut self` makes this the only
        // reference to them, and it ends before they are published below.
        let place = unsafe { slice::from_raw_parts_mut(self.block.data().add(self.len), len) };
        let result = fill(place);
        self.len += len;
        result
    }

    /// Shares the appended bytes of `range` without a copy, for any core.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} isn't within {} bytes", self.len);
        if range.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(ReaderSlice::new(self.lend(range)))
    }

    /// Shares the appended bytes of `range` for a write ([`crate::File::write_slice`]).
    pub fn lend(&self, range: Range<usize>) -> FrameSlice {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} isn't within {} bytes", self.len);
        FrameSlice { block: Arc::clone(&self.block), start: range.start, len: range.len() }
    }

    /// Takes back what was appended from `len` on. Refused (false) while anybody else holds the memory: then copy what
    /// remains into a new frame.
    #[must_use]
    pub fn try_truncate(&mut self, len: usize) -> bool {
        assert!(len <= self.len, "can't truncate {} bytes to {len}", self.len);
        // `get_mut` also orders this after all that former holders read.
        if len < self.len && Arc::get_mut(&mut self.block).is_none() {
            return false;
        }
        self.len = len;
        true
    }
}

/// A shared range of published bytes.
#[derive(Clone)]
pub struct FrameSlice {
    block: Arc<Block>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for FrameSlice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lay within the published bytes when this was made; those are initialised and never written
        // again while this holds the block.
        unsafe { slice::from_raw_parts(self.block.data().add(self.start), self.len) }
    }
}

impl FrameSlice {
    /// Where it begins in its frame.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// For a write that outlives the borrow.
    #[cfg(not(ringlog_sim))]
    pub(crate) fn block(&self) -> Arc<Block> {
        Arc::clone(&self.block)
    }
}

/// A slice that counts as lent. The numbers are nobody's proof of anything: they order no other memory.
struct ReaderSlice(FrameSlice);

impl ReaderSlice {
    fn new(slice: FrameSlice) -> ReaderSlice {
        let block = &slice.block;
        if block.readers.fetch_add(1, Ordering::Relaxed) == 0 {
            block.home.lent_bytes.fetch_add(block.memory.bytes, Ordering::Relaxed);
        }
        ReaderSlice(slice)
    }
}

impl AsRef<[u8]> for ReaderSlice {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Drop for ReaderSlice {
    fn drop(&mut self) {
        let block = &self.0.block;
        if block.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            block.home.lent_bytes.fetch_sub(block.memory.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
