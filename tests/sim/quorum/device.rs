//! The disk of a machine as its processes reach it: every operation is a step, takes time, and may fail.
//!
//! Operations on names are those of `shards/ring/fs.rs`; a process that dies between two steps leaves what was done.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_types::Random;

use super::ring::Ring;
use super::time::Us;
use crate::disk::{Crash, Disk};

/// Put after a file's name while it is written.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// What the system says of an operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("no space left on device")]
    Full,
    #[error("input/output error")]
    Io,
    #[error("no such file")]
    NotFound,
}

/// How long operations take, in microseconds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub read_us: Us,
    pub write_us: Us,
    pub sync_us: Us,
}

/// One machine's disk, which outlives its processes.
pub(crate) struct Device {
    pub disk: RefCell<Disk>,
    random: RefCell<Random>,
    pub pace: Cell<Pace>,
    /// The next sync fails.
    pub fails_sync: Cell<bool>,
    /// Nothing that grows a file succeeds.
    pub is_full: Cell<bool>,
    /// An operation failed since the process was started: then it may halt.
    pub has_failed: Cell<bool>,
}

impl Device {
    pub(crate) fn new(random: Random, pace: Pace) -> Device {
        Device {
            disk: RefCell::default(),
            random: RefCell::new(random),
            pace: Cell::new(pace),
            fails_sync: Cell::new(false),
            is_full: Cell::new(false),
            has_failed: Cell::new(false),
        }
    }

    pub(crate) fn crash(&self, crash: Crash) {
        self.disk.borrow_mut().crash(crash, &mut self.random.borrow_mut());
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub(crate) fn with_random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    fn refuse_if_full(&self) -> Result<(), DiskError> {
        if self.is_full.get() {
            self.has_failed.set(true);
            return Err(DiskError::Full);
        }
        Ok(())
    }
}

/// The disk as one process has it.
#[derive(Clone)]
pub(crate) struct Files {
    pub ring: Rc<Ring>,
    pub device: Rc<Device>,
}

impl Files {
    async fn take(&self, at_most: Us) {
        self.ring.step().await;
        if at_most > 0 {
            self.ring.sleep_us(1 + self.device.below(at_most)).await;
        }
    }

    fn note(&self, what: &str, name: &str) {
        self.ring.shared.note(self.ring.node, || format!("  {what} {name}"));
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.device.disk.borrow().read(name).is_some()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.device.disk.borrow().names().map(str::to_owned).collect()
    }

    pub(crate) fn len(&self, name: &str) -> Option<u64> {
        self.device.disk.borrow().read(name).map(|bytes| bytes.len() as u64)
    }

    /// At most `len` bytes from `position`.
    pub(crate) async fn read(&self, name: &str, position: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        self.take(self.device.pace.get().read_us).await;
        let disk = self.device.disk.borrow();
        let file = disk.read(name).ok_or(DiskError::NotFound)?;
        let rest = file.get(position as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(len)].to_vec())
    }

    pub(crate) async fn read_whole(&self, name: &str) -> Option<Vec<u8>> {
        self.read(name, 0, usize::MAX).await.ok()
    }

    pub(crate) async fn create(&self, name: &str) -> Result<(), DiskError> {
        self.ring.step().await;
        self.device.refuse_if_full()?;
        self.note("create", name);
        self.device.disk.borrow_mut().create(name);
        Ok(())
    }

    /// Makes the file anew, empty.
    pub(crate) async fn create_empty(&self, name: &str) -> Result<(), DiskError> {
        self.ring.step().await;
        self.device.refuse_if_full()?;
        self.device.disk.borrow_mut().create_empty(name);
        Ok(())
    }

    /// A write through the page cache.
    pub(crate) async fn write(&self, name: &str, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.take(self.device.pace.get().write_us / 4).await;
        self.device.refuse_if_full()?;
        self.device.disk.borrow_mut().write(name, position, bytes);
        Ok(())
    }

    /// Direct writes of whole blocks, in up to four pieces at the same time.
    pub(crate) async fn write_blocks(&self, name: &str, position: u64, bytes: Vec<u8>) -> Result<(), DiskError> {
        self.ring.step().await;
        self.device.refuse_if_full()?;
        let block = crate::disk::BLOCK_BYTES;
        let blocks = bytes.len() as u64 / block;
        let piece = (blocks / (1 + self.device.below(4)) * block).max(block);
        let mut writes: Vec<u64> = {
            let mut disk = self.device.disk.borrow_mut();
            let pieces = bytes.chunks(piece as usize).enumerate();
            pieces.map(|(i, bytes)| disk.start_write(name, position + i as u64 * piece, bytes.to_vec())).collect()
        };
        self.take(self.device.pace.get().write_us).await;
        self.note("written", name);
        while !writes.is_empty() {
            let next = self.device.below(writes.len() as u64) as usize;
            self.device.disk.borrow_mut().finish_write(writes.swap_remove(next));
            self.ring.step().await;
        }
        Ok(())
    }

    /// Cuts or lengthens a file.
    pub(crate) async fn set_len(&self, name: &str, len: u64) -> Result<(), DiskError> {
        self.ring.step().await;
        self.note(&format!("cut to {len}"), name);
        self.device.disk.borrow_mut().set_len(name, len);
        Ok(())
    }

    /// fdatasync.
    pub(crate) async fn sync(&self, name: &str) -> Result<(), DiskError> {
        self.ring.step().await;
        let sync = match self.device.disk.borrow().read(name) {
            Some(_) => self.device.disk.borrow().begin_sync(name),
            None => return Err(DiskError::NotFound),
        };
        self.take(self.device.pace.get().sync_us).await;
        if self.device.fails_sync.take() {
            self.device.has_failed.set(true);
            if self.exists(name) {
                self.device.with_random(|random| self.device.disk.borrow_mut().fail_sync(name, random));
            }
            return Err(DiskError::Io);
        }
        self.note("synced", name);
        self.device.disk.borrow_mut().finish_sync(sync);
        Ok(())
    }

    /// fsync of the directory.
    pub(crate) async fn sync_dir(&self) -> Result<(), DiskError> {
        self.take(self.device.pace.get().sync_us / 4).await;
        self.device.disk.borrow_mut().sync_names();
        Ok(())
    }

    /// Renames and syncs the directory.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.rename_unsynced(from, to).await?;
        self.sync_dir().await
    }

    pub(crate) async fn rename_unsynced(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.ring.step().await;
        if !self.exists(from) {
            return Err(DiskError::NotFound);
        }
        self.note("rename", to);
        self.device.disk.borrow_mut().rename_at_once(from, to);
        Ok(())
    }

    /// Removes a file; none there is fine.
    pub(crate) async fn remove(&self, name: &str) {
        self.ring.step().await;
        self.note("remove", name);
        self.device.disk.borrow_mut().remove(name);
    }

    /// Writes a file beside, syncs it, renames it to its place, and syncs the directory.
    pub(crate) async fn write_atomically(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let temporary = format!("{name}{TEMPORARY_SUFFIX}");
        self.create_empty(&temporary).await?;
        self.write(&temporary, 0, bytes).await?;
        self.sync(&temporary).await?;
        self.rename(&temporary, name).await
    }
}
