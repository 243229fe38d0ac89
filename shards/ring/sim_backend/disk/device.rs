//! The device: operations that take time, overtake each other, fail, or don't end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::content::SECTOR_BYTES;
use super::names::InodeId;
use super::{Disk, errno};
use crate::backend::faults::note_violation;
use crate::backend::process::Process;
use crate::backend::schedule::Event;
use crate::backend::settings::Range;
use crate::backend::trace::Kind;
use crate::backend::world::{self, World};
use crate::frame::FrameSlice;
use crate::{BLOCK_BYTES, MAX_IO_BYTES};

const SECOND_NS: u64 = 1_000_000_000;

/// What kind of operation a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOperation {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// More room is taken, by a write or by a new name.
    Grow,
    /// What was written is made safe.
    Sync,
    /// A file is opened.
    Open,
    /// A name changes.
    Rename,
    /// Names are looked at.
    Look,
}

/// An operation fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFault {
    /// Only files and folders of this path; all if it is `/`.
    pub under: PathBuf,
    /// What fails.
    pub operations: Vec<DiskOperation>,
    /// The error's number.
    pub errno: i32,
    /// Of a thousand operations so many fail.
    pub permille: u64,
    /// After so many failures the fault is over; never without.
    pub left: Option<u64>,
}

/// Bytes to write, which stay where they are until the write has ended.
pub(crate) enum Source {
    Frame { slice: FrameSlice, start: usize, len: usize },
    Copy(Vec<u8>),
}

impl Source {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Source::Frame { slice, start, len } => &slice.as_ref()[*start..start + len],
            Source::Copy(bytes) => bytes,
        }
    }
}

pub(crate) enum What {
    Read {
        position: u64,
        len: u64,
    },
    Write {
        position: u64,
        source: Source,
    },
    /// Up to this change.
    Sync {
        covered: u64,
    },
}

/// What came of an operation: bytes that were read, how many were written, nothing.
pub(crate) enum Done {
    Bytes(Vec<u8>),
    Count(usize),
    Synced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    /// Its device hangs.
    Held,
    Over,
}

/// An operation on a file.
pub(crate) struct Operation {
    disk: Rc<Disk>,
    inode: InodeId,
    path: Rc<PathBuf>,
    process: Rc<Process>,
    what: RefCell<Option<What>>,
    state: Cell<State>,
    outcome: RefCell<Option<io::Result<Done>>>,
    waiter: RefCell<Option<Waker>>,
}

/// Of the device itself.
#[derive(Default)]
pub(crate) struct Device {
    under_way: RefCell<Vec<Rc<Operation>>>,
    free_at_ns: Cell<u64>,
    hangs: Cell<bool>,
    held: RefCell<Vec<Waker>>,
    slowness: Cell<u64>,
    faults: RefCell<Vec<DiskFault>>,
}

impl Disk {
    /// How long something takes from now on that moves so many bytes.
    fn draw_ns(&self, base: Range, bytes: u64) -> u64 {
        let settings = self.settings.borrow();
        let now_ns = world::world().local_ns();
        let transfer_ns = bytes.saturating_mul(SECOND_NS) / settings.bytes_per_second.max(1);
        let begin_ns = self.device.free_at_ns.get().max(now_ns);
        self.device.free_at_ns.set(begin_ns + transfer_ns);
        let is_slow = self.stream.permille(settings.slow_permille);
        let mut own_ns = self.stream.between(base);
        if is_slow {
            own_ns += self.stream.between(settings.slow_ns);
        }
        begin_ns + transfer_ns - now_ns + own_ns * (1 + self.device.slowness.get())
    }

    /// Begins an operation. It goes on when nobody waits for it any more.
    pub(crate) fn submit(
        self: &Rc<Self>,
        process: &Rc<Process>,
        inode: InodeId,
        path: &Rc<PathBuf>,
        is_direct: bool,
        what: What,
    ) -> Submitted {
        let world = world::world();
        let operation = Rc::new(Operation {
            disk: self.clone(),
            inode,
            path: path.clone(),
            process: process.clone(),
            what: RefCell::new(None),
            state: Cell::new(State::UnderWay),
            outcome: RefCell::new(None),
            waiter: RefCell::new(None),
        });
        if process.has_ended() {
            operation.state.set(State::Over);
            return Submitted(operation);
        }
        if let Some(error) = is_direct.then(|| refuse_unaligned(&what)).flatten() {
            operation.outcome.replace(Some(Err(error)));
            operation.state.set(State::Over);
            return Submitted(operation);
        }
        let pace = self.settings.borrow().clone();
        let (base, bytes) = match &what {
            Read { len, .. } => (if is_direct { pace.read_ns } else { pace.cached_ns }, *len),
            Write { source, .. } if is_direct => (pace.write_ns, source.bytes().len() as u64),
            Write { .. } => (pace.cached_ns, 0),
            Sync { .. } => (pace.sync_ns, 0),
        };
        if let Write { position, source } = &what {
            self.look_for_overlap(&world, &operation, *position, source.bytes().len() as u64);
        }
        let is_buffered = !is_direct && matches!(what, Write { .. });
        operation.what.replace(Some(what));
        self.device.under_way.borrow_mut().push(operation.clone());
        if let Some(inode) = self.names.borrow_mut().inode_mut(inode) {
            inode.uses += 1;
            if let Some(content) = inode.content_mut().filter(|_| is_buffered) {
                content.mark_buffered();
            }
        }
        world.post_after(self.draw_ns(base, bytes), Event::Disk(operation.clone()));
        Submitted(operation)
    }

    /// Two writes of a block at a time leave the block in doubt: nobody may do that.
    fn look_for_overlap(&self, world: &World, new: &Operation, position: u64, len: u64) {
        let block = BLOCK_BYTES as u64;
        let range = position / block * block..(position + len).next_multiple_of(block);
        for other in self.device.under_way.borrow().iter().filter(|other| other.inode == new.inode) {
            if let Some(Write { position, source }) = &*other.what.borrow()
                && *position < range.end
                && range.start < *position + source.bytes().len() as u64
            {
                let path = new.path.display();
                note_violation(
                    world,
                    format!("two writes of a block of {path} at a time, at {position} and {}", range.start),
                );
            }
        }
    }

    /// Waits as long as something takes that moves no bytes of files.
    pub(crate) async fn take(&self, base: Range, bytes: u64) {
        crate::backend::timer::sleep_ns(self.draw_ns(base, bytes)).await;
        std::future::poll_fn(|context| {
            if !self.device.hangs.get() {
                return Poll::Ready(());
            }
            self.device.held.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The error that an operation is to fail with, if it is.
    pub(crate) fn fault(&self, operation: DiskOperation, path: &std::path::Path) -> Option<io::Error> {
        let mut faults = self.device.faults.borrow_mut();
        let hit = faults.iter_mut().find(|fault| {
            fault.operations.contains(&operation)
                && path.starts_with(&fault.under)
                && self.stream.permille(fault.permille)
        })?;
        let error = errno(hit.errno);
        if let Some(left) = &mut hit.left {
            *left = left.saturating_sub(1);
        }
        faults.retain(|fault| fault.left != Some(0));
        Some(error)
    }

    pub(crate) fn add_fault(&self, fault: DiskFault) {
        self.device.faults.borrow_mut().push(fault);
    }

    /// Nothing fails, hangs or is slow any more.
    pub(crate) fn mend(&self) {
        self.device.faults.borrow_mut().clear();
        self.set_hanging(false);
        self.set_slowness(1);
    }

    /// Nothing ends any more, until it does.
    pub(crate) fn set_hanging(&self, hangs: bool) {
        if self.device.hangs.replace(hangs) && !hangs {
            let world = world::world();
            let held = self.device.held.take();
            held.into_iter().for_each(Waker::wake);
            for operation in
                self.device.under_way.borrow().iter().filter(|operation| operation.state.get() == State::Held)
            {
                operation.state.set(State::UnderWay);
                world.post_after(self.stream.below(1_000_000), Event::Disk(operation.clone()));
            }
        }
    }

    /// Everything takes so many times longer.
    pub(crate) fn set_slowness(&self, times: u64) {
        self.device.slowness.set(times.saturating_sub(1));
    }

    /// Operations of a process, or all, end here: writes that were under way leave any of their sectors.
    pub(crate) fn abort(&self, of: Option<&Rc<Process>>) {
        let is_meant = |operation: &Rc<Operation>| of.is_none_or(|process| Rc::ptr_eq(process, &operation.process));
        let (aborted, left): (Vec<_>, Vec<_>) = self.device.under_way.take().into_iter().partition(is_meant);
        self.device.under_way.replace(left);
        let kept_percent = self.draw_kept_percent();
        for operation in aborted {
            operation.state.set(State::Over);
            let what = operation.what.take();
            if let Some(Write { position, source }) = &what {
                self.write_some_sectors(operation.inode, *position, source.bytes(), kept_percent);
            }
            self.release(operation.inode);
        }
    }

    /// All lost, most lost, half, most kept, all kept: extremes find more than a fair coin.
    pub(crate) fn draw_kept_percent(&self) -> u64 {
        [0, 10, 50, 90, 100][self.stream.below(5) as usize]
    }

    fn write_some_sectors(&self, inode: InodeId, position: u64, bytes: &[u8], kept_percent: u64) {
        let keep = self.settings.borrow().unsafe_changes;
        for (number, sector) in bytes.chunks(SECTOR_BYTES as usize).enumerate() {
            if self.stream.below(100) < kept_percent {
                self.change(inode, |content| content.write(position + number as u64 * SECTOR_BYTES, sector, keep));
            }
        }
    }

    /// How much of a transfer is done: all, or some whole blocks.
    fn draw_part(&self, len: usize) -> usize {
        let blocks = len.div_ceil(BLOCK_BYTES) as u64;
        if blocks > 1 && self.stream.permille(self.settings.borrow().partial_permille) {
            return (1 + self.stream.below(blocks - 1)) as usize * BLOCK_BYTES;
        }
        len
    }
}

use What::{Read, Sync, Write};

impl Operation {
    /// Its time has come.
    pub fn complete(self: &Rc<Self>) {
        if self.state.get() != State::UnderWay {
            return;
        }
        if self.disk.device.hangs.get() {
            return self.state.set(State::Held);
        }
        self.state.set(State::Over);
        self.disk.device.under_way.borrow_mut().retain(|other| !Rc::ptr_eq(other, self));
        let what = self.what.take();
        let outcome = match &what {
            Some(Read { position, len }) => self.read(*position, *len),
            Some(Write { position, source }) => self.write(*position, source.bytes()),
            Some(Sync { covered }) => self.sync(*covered),
            None => return,
        };
        // The frame that was written from is free before anybody hears of the end.
        drop(what);
        self.disk.release(self.inode);
        self.outcome.replace(Some(outcome));
        let waiter = self.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    fn hash(&self, what: u64, bytes: &[u8]) {
        let world = world::world();
        world.trace.hash_bytes(Kind::Disk, world.now_ns(), self.inode << 8 | what, bytes);
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        let world = world::world();
        world.trace.tell(|| format!("{}: {} {}", self.disk.name, self.path.display(), text()));
    }

    fn read(&self, position: u64, len: u64) -> io::Result<Done> {
        if let Some(error) = self.disk.fault(DiskOperation::Read, &self.path) {
            self.tell(|| format!("read of {len} at {position} fails: {error}"));
            return Err(error);
        }
        let names = self.disk.names.borrow();
        let Some(content) = names.inode(self.inode).and_then(|inode| inode.content()) else {
            return Err(errno(libc::EIO));
        };
        let mut bytes = content.read(position, len);
        drop(names);
        bytes.truncate(self.disk.draw_part(bytes.len()));
        self.mix_in_writes(position, &mut bytes);
        self.hash(1, &bytes);
        Ok(Done::Bytes(bytes))
    }

    /// Sectors that are being written at the time may be read as they are after it.
    fn mix_in_writes(&self, position: u64, bytes: &mut [u8]) {
        let under_way = self.disk.device.under_way.borrow();
        for other in under_way.iter().filter(|other| other.inode == self.inode) {
            let what = other.what.borrow();
            let Some(Write { position: begin, source }) = &*what else { continue };
            for (number, sector) in source.bytes().chunks(SECTOR_BYTES as usize).enumerate() {
                let at = (begin + number as u64 * SECTOR_BYTES).checked_sub(position);
                let place = at.and_then(|at| bytes.get_mut(at as usize..at as usize + sector.len()));
                if let Some(place) = place
                    && self.disk.stream.below(2) == 0
                {
                    place.copy_from_slice(sector);
                }
            }
        }
    }

    fn write(&self, position: u64, bytes: &[u8]) -> io::Result<Done> {
        if let Some(error) = self.disk.fault(DiskOperation::Write, &self.path) {
            self.tell(|| format!("write of {} at {position} fails: {error}", bytes.len()));
            let kept_percent = self.disk.draw_kept_percent();
            self.disk.write_some_sectors(self.inode, position, bytes, kept_percent);
            return Err(error);
        }
        let part = self.disk.draw_part(bytes.len());
        let part = self.disk.room_for(self.inode, &self.path, position, part)?;
        let bytes = &bytes[..part];
        let keep = self.disk.settings.borrow().unsafe_changes;
        self.disk.change(self.inode, |content| content.write(position, bytes, keep));
        self.hash(2, bytes);
        self.tell(|| format!("written {part} at {position}"));
        Ok(Done::Count(part))
    }

    fn sync(&self, covered: u64) -> io::Result<Done> {
        let world = world::world();
        if let Some(error) = self.disk.fault(DiskOperation::Sync, &self.path) {
            self.disk.fail_sync(self.inode, covered);
            self.tell(|| format!("sync fails: {error}"));
            return Err(error);
        }
        if let Some(content) = self.disk.names.borrow_mut().inode_mut(self.inode).and_then(|inode| inode.content_mut())
        {
            content.finish_sync(covered);
        }
        world.trace.hash(Kind::Disk, world.now_ns(), self.inode << 8 | 3, covered);
        self.tell(|| "synced".to_owned());
        Ok(Done::Synced)
    }
}

/// An operation that was begun.
pub(crate) struct Submitted(Rc<Operation>);

impl Future for Submitted {
    type Output = io::Result<Done>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.0.waiter.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// Direct I/O that isn't in whole blocks, or from memory that doesn't begin with one.
fn refuse_unaligned(what: &What) -> Option<io::Error> {
    let block = BLOCK_BYTES as u64;
    let (position, len) = match what {
        Read { position, len } => (*position, *len),
        Write { position, source } => (*position, source.bytes().len() as u64),
        Sync { .. } => return None,
    };
    let is_frame = matches!(what, Write { source: Source::Frame { .. }, .. });
    let address = if let Write { source, .. } = what { source.bytes().as_ptr().addr() as u64 } else { 0 };
    let is_refused = !position.is_multiple_of(block)
        || !len.is_multiple_of(block)
        || len > MAX_IO_BYTES as u64
        || (is_frame && !address.is_multiple_of(block));
    is_refused.then(|| errno(libc::EINVAL))
}
