//! Disks: file systems with what they do when the power fails, on devices that take their time.

mod content;
pub(crate) mod device;
pub(crate) mod names;

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_types::TimestampMs;

pub(super) use self::content::Content;
use self::device::{Device, DiskOperation};
use self::names::{InodeId, Names};
use super::clock::Clock;
use super::process::Process;
use super::settings::DiskSettings;
use super::streams::Stream;
use super::trace::Kind;
use super::world::{self, World};
use crate::BLOCK_BYTES;
use crate::fs::{Metadata, Space};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The error with a number.
pub(crate) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// A file system. It outlives processes, and what its host knows.
pub(crate) struct Disk {
    pub name: String,
    pub settings: RefCell<DiskSettings>,
    stream: Stream,
    names: RefCell<Names>,
    device: Device,
    clock: Rc<Clock>,
    used_blocks: Cell<u64>,
}

/// A file that a process has open.
pub(crate) struct Handle {
    pub disk: Rc<Disk>,
    pub inode: InodeId,
    pub path: Rc<PathBuf>,
    pub is_direct: bool,
    pub may_write: bool,
    /// Closing it releases the lock.
    pub holds_lock: bool,
}

/// How to open a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub create: bool,
    pub truncate: bool,
    pub write: bool,
    pub direct: bool,
}

impl Disk {
    pub fn new(name: &str, settings: DiskSettings, seed: u64, clock: &Rc<Clock>) -> Rc<Disk> {
        Rc::new(Disk {
            name: name.to_owned(),
            settings: RefCell::new(settings),
            stream: Stream::new(seed, "disk"),
            names: RefCell::default(),
            device: Device::default(),
            clock: clock.clone(),
            used_blocks: Cell::new(0),
        })
    }

    fn wall(&self) -> TimestampMs {
        self.clock.wall(world::world().local_ns())
    }

    /// Opens a file. Takes no time; callers do.
    pub fn open(self: &Rc<Self>, path: &Path, opening: Opening) -> io::Result<Handle> {
        if let Some(error) = self.fault(DiskOperation::Open, path) {
            return Err(error);
        }
        let now = self.wall();
        let mut names = self.names.borrow_mut();
        let inode = match names.find(path) {
            Ok(inode) => inode,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && opening.create => {
                if let Some(error) = self.fault(DiskOperation::Grow, path) {
                    return Err(error);
                }
                names.create_file(path, now)?
            }
            Err(error) => return Err(error),
        };
        let found = names.inode_mut(inode).ok_or_else(|| errno(libc::ENOENT))?;
        if found.is_dir() && (opening.write || opening.direct) {
            return Err(errno(libc::EISDIR));
        }
        if opening.write && found.is_read_only {
            return Err(errno(libc::EACCES));
        }
        found.uses += 1;
        drop(names);
        if opening.truncate {
            self.set_len(inode, 0);
        }
        let is_direct = opening.direct && self.settings.borrow().direct;
        let path = Rc::new(path.to_path_buf());
        Ok(Handle { disk: self.clone(), inode, path, is_direct, may_write: opening.write, holds_lock: false })
    }

    /// Somebody closed the file, or an operation on it is over.
    pub fn release(&self, inode: InodeId) {
        let mut names = self.names.borrow_mut();
        let Some(found) = names.inode_mut(inode) else { return };
        let was_there = found.is_there();
        found.uses = found.uses.saturating_sub(1);
        if was_there && !found.is_there() {
            let blocks = found.content().map_or(0, Content::allocated);
            self.used_blocks.set(self.used_blocks.get().saturating_sub(blocks));
        }
    }

    /// Changes a file's bytes.
    fn change<T>(&self, inode: InodeId, how: impl FnOnce(&mut Content) -> T) -> Option<T> {
        let now = self.wall();
        let mut names = self.names.borrow_mut();
        let found = names.inode_mut(inode)?;
        found.modified = now;
        let is_there = found.is_there();
        let content = found.content_mut()?;
        let before = content.allocated();
        let value = how(content);
        let after = content.allocated();
        if is_there {
            self.used_blocks.set((self.used_blocks.get() + after).saturating_sub(before));
        }
        Some(value)
    }

    pub fn set_len(&self, inode: InodeId, len: u64) {
        let keep = self.settings.borrow().unsafe_changes;
        self.change(inode, |content| content.set_len(len, keep));
        let world = world::world();
        world.trace.hash(Kind::Disk, world.now_ns(), inode << 8 | 4, len);
    }

    /// Takes room for `len` bytes from the file's start on.
    pub fn allocate(&self, inode: InodeId, path: &Path, len: u64) -> io::Result<()> {
        let wanted = {
            let names = self.names.borrow();
            names.inode(inode).and_then(|inode| inode.content()).map_or(0, |content| content.wanted(0, len))
        };
        if wanted > self.free_blocks() {
            return Err(errno(libc::ENOSPC));
        }
        if let Some(error) = (wanted > 0).then(|| self.fault(DiskOperation::Grow, path)).flatten() {
            return Err(error);
        }
        let keep = self.settings.borrow().unsafe_changes;
        self.change(inode, |content| content.allocate(len, keep));
        Ok(())
    }

    fn free_blocks(&self) -> u64 {
        (self.settings.borrow().size_bytes / BLOCK).saturating_sub(self.used_blocks.get())
    }

    /// How much of a write of `len` bytes there is room for.
    fn room_for(&self, inode: InodeId, path: &Path, position: u64, len: usize) -> io::Result<usize> {
        let wanted = {
            let names = self.names.borrow();
            names
                .inode(inode)
                .and_then(|inode| inode.content())
                .map_or(0, |content| content.wanted(position, len as u64))
        };
        if wanted == 0 {
            return Ok(len);
        }
        if let Some(error) = self.fault(DiskOperation::Grow, path) {
            return Err(error);
        }
        let missing = wanted.saturating_sub(self.free_blocks());
        match len.saturating_sub((missing * BLOCK) as usize) {
            0 => Err(errno(libc::ENOSPC)),
            room if missing > 0 => Ok((room / BLOCK_BYTES * BLOCK_BYTES).max(room.min(BLOCK_BYTES))),
            _ => Ok(len),
        }
    }

    /// A write into the page cache, at once.
    pub fn write_cached(&self, inode: InodeId, path: &Path, position: u64, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.fault(DiskOperation::Write, path) {
            return Err(error);
        }
        let part = self.room_for(inode, path, position, bytes.len())?;
        let keep = self.settings.borrow().unsafe_changes;
        self.change(inode, |content| {
            content.mark_buffered();
            content.write(position, &bytes[..part], keep);
        });
        let world = world::world();
        world.trace.hash_bytes(Kind::Disk, world.now_ns(), inode << 8 | 2, &bytes[..part]);
        Ok(part)
    }

    pub fn read_cached(&self, inode: InodeId, path: &Path, position: u64, len: u64) -> io::Result<Vec<u8>> {
        if let Some(error) = self.fault(DiskOperation::Read, path) {
            return Err(error);
        }
        let names = self.names.borrow();
        let found = names.inode(inode).ok_or_else(|| errno(libc::EIO))?;
        found.content().map(|content| content.read(position, len)).ok_or_else(|| errno(libc::EISDIR))
    }

    pub fn len(&self, inode: InodeId) -> u64 {
        self.names.borrow().inode(inode).and_then(|inode| inode.content()).map_or(0, Content::len)
    }

    pub fn is_dir(&self, inode: InodeId) -> bool {
        self.names.borrow().inode(inode).is_some_and(names::Inode::is_dir)
    }

    pub fn set_read_only(&self, inode: InodeId) {
        if let Some(inode) = self.names.borrow_mut().inode_mut(inode) {
            inode.is_read_only = true;
        }
    }

    pub fn begin_sync(&self, inode: InodeId) -> u64 {
        self.names.borrow().inode(inode).and_then(|inode| inode.content()).map_or(0, Content::begin_sync)
    }

    fn fail_sync(&self, inode: InodeId, covered: u64) {
        let (is_cached, kept_percent) = (self.stream.below(2) == 0, self.draw_kept_percent());
        self.change(inode, |content| {
            content.fail_sync(covered, is_cached, &mut || self.stream.below(100) < kept_percent);
        });
    }

    /// Makes a folder's names safe.
    pub fn sync_dir(&self, folder: InodeId, path: &Path) -> io::Result<()> {
        if let Some(error) = self.fault(DiskOperation::Sync, path) {
            return Err(error);
        }
        self.names.borrow_mut().sync_dir(folder);
        self.note(5, path, "synced");
        Ok(())
    }

    /// What a sync of everything covers that begins now.
    pub fn begin_sync_all(&self) -> Vec<(InodeId, u64)> {
        let names = self.names.borrow();
        let unsafe_files = |id: InodeId| {
            let content = names.inode(id)?.content()?;
            (!content.is_safe()).then(|| (id, content.begin_sync()))
        };
        names.ids().into_iter().filter_map(unsafe_files).collect()
    }

    pub fn finish_sync_all(&self, covered: Vec<(InodeId, u64)>) -> io::Result<()> {
        if let Some(error) = self.fault(DiskOperation::Sync, Path::new("")) {
            covered.into_iter().for_each(|(inode, covered)| self.fail_sync(inode, covered));
            return Err(error);
        }
        let mut names = self.names.borrow_mut();
        for (inode, covered) in covered {
            if let Some(content) = names.inode_mut(inode).and_then(|inode| inode.content_mut()) {
                content.finish_sync(covered);
            }
        }
        names.sync_all();
        drop(names);
        self.note(6, Path::new("/"), "everything is synced");
        Ok(())
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(error) = self.fault(DiskOperation::Rename, from).or_else(|| self.fault(DiskOperation::Rename, to)) {
            return Err(error);
        }
        let now = self.wall();
        self.counting_blocks(|names| names.rename(from, to, now))?;
        self.note(7, to, "has its name");
        Ok(())
    }

    pub fn remove(&self, path: &Path, is_dir: bool) -> io::Result<()> {
        if let Some(error) = self.fault(DiskOperation::Rename, path) {
            return Err(error);
        }
        let now = self.wall();
        self.counting_blocks(|names| names.remove(path, is_dir, now))?;
        self.note(8, path, "is removed");
        Ok(())
    }

    pub fn create_dir(&self, path: &Path) -> io::Result<()> {
        let now = self.wall();
        for operation in [DiskOperation::Rename, DiskOperation::Grow] {
            if let Some(error) = self.fault(operation, path) {
                return Err(error);
            }
        }
        self.names.borrow_mut().create_dir(path, now)?;
        self.note(9, path, "is made");
        Ok(())
    }

    /// Names may lose their file, which gives back its room.
    fn counting_blocks<T>(&self, how: impl FnOnce(&mut Names) -> io::Result<T>) -> io::Result<T> {
        let mut names = self.names.borrow_mut();
        let value = how(&mut names);
        self.used_blocks.set(self.used_blocks.get().saturating_sub(names.take_freed_blocks()));
        value
    }

    fn note(&self, what: u64, path: &Path, text: &str) {
        let world = world::world();
        world.trace.hash_bytes(Kind::Names, world.now_ns(), what, path.as_os_str().as_encoded_bytes());
        world.trace.tell(|| format!("{}: {} {text}", self.name, path.display()));
    }

    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        if let Some(error) = self.fault(DiskOperation::Look, path) {
            return Err(error);
        }
        let names = self.names.borrow();
        Ok(describe(&names, names.find(path)?))
    }

    pub fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Metadata)>> {
        if let Some(error) = self.fault(DiskOperation::Look, path) {
            return Err(error);
        }
        self.listed(path)
    }

    /// What is in a folder, whatever fails.
    pub fn listed(&self, path: &Path) -> io::Result<Vec<(OsString, Metadata)>> {
        let names = self.names.borrow();
        let entries = names.list(path)?;
        Ok(entries.into_iter().map(|(name, id)| (name, describe(&names, id))).collect())
    }

    pub fn space(&self) -> Space {
        let total_bytes = self.settings.borrow().size_bytes / BLOCK * BLOCK;
        Space { total_bytes, available_bytes: self.free_blocks() * BLOCK }
    }

    /// Locks a file for a process; false if another has it.
    pub fn lock(&self, inode: InodeId, process: &Process) -> bool {
        let mut names = self.names.borrow_mut();
        let Some(inode) = names.inode_mut(inode) else { return false };
        let is_free = inode.lock.is_none();
        if is_free {
            inode.lock = Some(process.id);
        }
        is_free
    }

    pub fn unlock(&self, inode: InodeId) {
        if let Some(inode) = self.names.borrow_mut().inode_mut(inode) {
            inode.lock = None;
        }
    }

    /// The power fails: only what is safe, or happened to get there, is left.
    pub fn lose_power(&self, world: &World) {
        self.abort(None);
        self.set_hanging(false);
        let kept_percent = self.draw_kept_percent();
        let journals = self.settings.borrow().journals_names;
        let mut names = self.names.borrow_mut();
        let lost = names.lose(&self.stream, kept_percent, journals);
        for id in names.ids() {
            if let Some(content) = names.inode_mut(id).and_then(|inode| inode.content_mut()) {
                content.lose(&mut || self.stream.below(100) < kept_percent);
            }
        }
        let allocated = |id: InodeId| names.inode(id)?.content().map(Content::allocated);
        self.used_blocks.set(names.ids().into_iter().filter_map(allocated).sum());
        world.trace.hash(Kind::Crash, world.now_ns(), kept_percent, lost as u64);
        world.trace.tell(|| {
            format!("{}: kept {kept_percent} % of what was unsafe; {lost} changes of names are undone", self.name)
        });
    }

    // ---- For those who look on ----

    /// A file as readers see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.with_content(path, |content| content.read(0, content.len()))
    }

    /// Looks at a file as readers see it.
    pub fn with_content<T>(&self, path: &Path, work: impl FnOnce(&Content) -> T) -> Option<T> {
        let names = self.names.borrow();
        names.inode(names.find(path).ok()?)?.content().map(work)
    }

    /// A file as a power failure would leave it for certain.
    pub fn safe_content(&self, path: &Path) -> Option<Vec<u8>> {
        let names = self.names.borrow();
        Some(names.inode(names.find_safe(path).ok()?)?.content()?.safe())
    }

    /// Bits of a byte of a file turn. Says whether there is such a byte.
    pub fn rot(&self, path: &Path, position: u64, mask: u8) -> bool {
        let mut names = self.names.borrow_mut();
        let Ok(id) = names.find(path) else { return false };
        let Some(content) = names.inode_mut(id).and_then(|inode| inode.content_mut()) else { return false };
        let is_there = position < content.len();
        if is_there {
            content.rot(position, mask);
        }
        is_there
    }
}

fn describe(names: &Names, id: InodeId) -> Metadata {
    match names.inode(id) {
        Some(inode) => Metadata {
            len: inode.content().map_or(BLOCK, Content::len),
            modified: inode.modified,
            is_dir: inode.is_dir(),
        },
        None => Metadata { len: 0, modified: TimestampMs(0), is_dir: false },
    }
}

/// A process has ended: its files are closed, its locks free, its operations over.
pub(crate) fn on_process_ended(process: &Rc<Process>, has_power: bool) {
    let handles: Vec<Handle> = process.files.borrow_mut().drain().collect();
    if !has_power {
        // The disks themselves are about to lose everything that isn't safe.
        return;
    }
    for disk in process.host.disks() {
        disk.abort(Some(process));
    }
    for handle in handles {
        if handle.holds_lock {
            handle.disk.unlock(handle.inode);
        }
        handle.disk.release(handle.inode);
    }
}
