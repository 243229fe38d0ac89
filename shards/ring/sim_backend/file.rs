//! Files for direct I/O, with buffered I/O where the file system refuses that.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use ringlog_types::{align_down, align_up};

use super::disk::device::{Done, Source, What};
use super::disk::names::InodeId;
use super::disk::{Disk, Handle, Opening, errno};
use super::process::Process;
use super::tasks::spawn_joined;
use super::world;
use crate::frame::{Frame, FrameSlice};
use crate::trouble::patiently;
use crate::vocabulary::{Direct, DiskReads, Open};
use crate::{BLOCK_BYTES, MAX_IO_BYTES};

/// Up to here a write that doesn't end at a block's end is copied whole instead of being split in two.
const COPY_BYTES: usize = 32 * 1024;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// An open file of one executor. Clones share it; closed when the last is dropped, better by [`File::close`].
///
/// Writes run on when the caller stops waiting for them, since a half-cancelled write leaves the file in doubt. Don't
/// have two writes to the same block under way at a time.
#[derive(Clone)]
pub struct File(Rc<Descriptor>);

/// A place in a process's table of files; given back on drop, unless the process is gone, and its table with it.
pub(crate) struct Descriptor {
    process: Rc<Process>,
    key: usize,
    pub disk: Rc<Disk>,
    pub inode: InodeId,
    pub path: Rc<PathBuf>,
    is_direct: bool,
    may_write: bool,
    /// Somebody else closes it.
    is_kept: bool,
}

/// What this executor has read so far.
pub fn disk_reads() -> DiskReads {
    world::current().disk_reads.get()
}

/// Closes a file of a process that still runs.
pub(crate) fn close(process: &Process, key: usize) {
    if process.has_ended() {
        return;
    }
    let handle = process.files.borrow_mut().try_remove(key);
    if let Some(handle) = handle {
        process.return_descriptors(1);
        if handle.holds_lock {
            handle.disk.unlock(handle.inode);
        }
        handle.disk.release(handle.inode);
    }
}

impl Descriptor {
    /// Opens a file of the running process. Takes no time; callers do.
    pub fn open(path: &Path, opening: Opening) -> io::Result<Descriptor> {
        let process = world::current().process.clone();
        if process.has_ended() {
            return Err(errno(libc::EIO));
        }
        process.take_descriptors(1)?;
        let (disk, path) = process.host.disk_of(path);
        let handle = disk.open(&path, opening).inspect_err(|_| process.return_descriptors(1))?;
        let Handle { disk, inode, path, is_direct, may_write, .. } = &handle;
        let (disk, inode, path, is_direct, may_write) = (disk.clone(), *inode, path.clone(), *is_direct, *may_write);
        let key = process.files.borrow_mut().insert(handle);
        Ok(Descriptor { process, key, disk, inode, path, is_direct, may_write, is_kept: false })
    }

    /// The file stays open until [`close`] is called with these.
    pub fn keep(mut self) -> (u32, usize) {
        self.is_kept = true;
        (self.process.id, self.key)
    }

    /// Locks the file; false if another process has it.
    pub fn lock(&self) -> bool {
        let is_locked = self.disk.lock(self.inode, &self.process);
        if let Some(handle) = self.process.files.borrow_mut().get_mut(self.key) {
            handle.holds_lock = is_locked;
        }
        is_locked
    }

    /// Bytes at `position`, as many as there are up to `len`.
    async fn read(&self, position: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // As the kernel may stop early, only nothing at all is the end.
        while (bytes.len() as u64) < len {
            let (at, left) = (position + bytes.len() as u64, len - bytes.len() as u64);
            let what = What::Read { position: at, len: left };
            let submitted = self.disk.submit(&self.process, self.inode, &self.path, self.is_direct, what);
            let Done::Bytes(piece) = submitted.await? else { return Err(errno(libc::EIO)) };
            let is_whole_blocks = (piece.len() as u64).is_multiple_of(BLOCK);
            if bytes.is_empty() {
                bytes = piece;
            } else {
                bytes.extend_from_slice(&piece);
            }
            if self.is_direct && !is_whole_blocks {
                // What comes next must begin with a block again; a part of one is read anew, unless it is the last.
                let whole = align_down(bytes.len() as u64, BLOCK);
                if position + bytes.len() as u64 >= self.disk.len(self.inode) {
                    break;
                }
                bytes.truncate(whole as usize);
            } else if bytes.len() as u64 == len || at == position + bytes.len() as u64 {
                break;
            }
        }
        Ok(bytes)
    }

    /// Writes all of it; continues where the kernel stopped early.
    async fn write(&self, position: u64, source: Source) -> io::Result<()> {
        if !self.may_write {
            return Err(errno(libc::EBADF));
        }
        let len = source.bytes().len();
        let mut source = Some(source);
        let mut done = 0;
        while done < len {
            let taken = source.take().expect("put back below");
            let (rest, piece) = split(taken, done);
            source = Some(rest);
            let what = What::Write { position: position + done as u64, source: piece };
            let submitted = self.disk.submit(&self.process, self.inode, &self.path, self.is_direct, what);
            let Done::Count(written) = submitted.await? else { return Err(errno(libc::EIO)) };
            let reached = done + written;
            // What comes after a partial write must begin with a block again.
            let next = match reached == len || !self.is_direct {
                true => reached,
                false => align_down(reached as u64, BLOCK) as usize,
            };
            if next == done {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done = next;
        }
        Ok(())
    }

    /// Makes what was written safe.
    pub async fn sync(&self) -> io::Result<()> {
        let what = What::Sync { covered: self.disk.begin_sync(self.inode) };
        let submitted = self.disk.submit(&self.process, self.inode, &self.path, false, what);
        submitted.await.map(drop)
    }
}

/// The bytes again, and those from `from` on, to be written.
fn split(source: Source, from: usize) -> (Source, Source) {
    let rest = match &source {
        Source::Frame { slice, start, len } => {
            Source::Frame { slice: slice.clone(), start: start + from, len: len - from }
        }
        Source::Copy(bytes) => Source::Copy(bytes[from..].to_vec()),
    };
    (source, rest)
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if !self.is_kept {
            close(&self.process, self.key);
        }
    }
}

impl File {
    /// Opens a file. When descriptors are short this waits a while for some.
    pub async fn open(path: &Path, open: Open) -> io::Result<File> {
        patiently(async || File::open_now(path, open).await).await
    }

    async fn open_now(path: &Path, open: Open) -> io::Result<File> {
        let (disk, _) = world::current().process.host.disk_of(path);
        let name_ns = disk.settings.borrow().name_ns;
        disk.take(name_ns, 0).await;
        let Open { create, truncate, write, direct } = open;
        let opening = Opening { create, truncate, write, direct: direct == Direct::Auto };
        Descriptor::open(path, opening).map(|descriptor| File(Rc::new(descriptor)))
    }

    /// Whether there is another clone of it: somebody else uses it.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Whether it goes around the page cache.
    pub fn is_direct(&self) -> bool {
        self.0.is_direct
    }

    /// Writes the frame's bytes of `range`, see [`File::write_slice`].
    pub async fn write_frame(&self, position: u64, frame: &Frame, range: Range<usize>) -> io::Result<()> {
        self.write_slice(position, &frame.lend(range)).await
    }

    /// Writes a frame's bytes at `position`; they begin at a block's start in the frame, and `position` is one in the
    /// file. When they don't end at a block's end, zeros fill the last block.
    pub async fn write_slice(&self, position: u64, slice: &FrameSlice) -> io::Result<()> {
        let aligned = position.is_multiple_of(BLOCK) && slice.start().is_multiple_of(BLOCK_BYTES);
        assert!(aligned, "writes begin with a block");
        let bytes = slice.as_ref();
        let whole = align_down(bytes.len() as u64, BLOCK) as usize;
        if !self.0.is_direct || (whole < bytes.len() && bytes.len() <= COPY_BYTES) {
            return self.write_source(position, Source::Copy(padded(bytes))).await;
        }
        // Every piece is under way before the first is waited for.
        let mut writes = Vec::new();
        let mut done = 0;
        while done < whole {
            let len = (whole - done).min(MAX_IO_BYTES);
            let source = Source::Frame { slice: slice.clone(), start: done, len };
            writes.push(self.write_source(position + done as u64, source));
            done += len;
        }
        if whole < bytes.len() {
            writes.push(self.write_source(position + whole as u64, Source::Copy(padded(&bytes[whole..]))));
        }
        let mut result = Ok(());
        for write in writes {
            result = result.and(write.await);
        }
        result
    }

    /// Writes a copy of `bytes` at `position`, a block's start; zeros fill the last block. For small things.
    pub async fn write_all_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK), "writes begin with a block");
        for (number, piece) in bytes.chunks(MAX_IO_BYTES).enumerate() {
            let at = position + (number * MAX_IO_BYTES) as u64;
            self.write_source(at, Source::Copy(padded(piece))).await?;
        }
        Ok(())
    }

    fn write_source(&self, position: u64, source: Source) -> impl Future<Output = io::Result<()>> + use<> {
        let this = self.clone();
        spawn_joined(async move { this.0.write(position, source).await })
    }

    /// Reads up to `len` bytes from `position`, any; fewer at the file's end.
    pub async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let here = position + bytes.len() as u64;
            let start = align_down(here, BLOCK);
            let skip = (here - start) as usize;
            let wanted = (MAX_IO_BYTES - skip).min(len - bytes.len());
            let size = align_up((skip + wanted) as u64, BLOCK);
            let piece = self.0.read(start, size).await?;
            let core = world::current();
            let DiskReads { operations, bytes: moved } = core.disk_reads.get();
            core.disk_reads.set(DiskReads { operations: operations + 1, bytes: moved + piece.len() as u64 });
            let found = piece.len().saturating_sub(skip).min(wanted);
            if found > 0 {
                bytes.extend_from_slice(&piece[skip..skip + found]);
            }
            if found < wanted {
                break;
            }
        }
        Ok(bytes.into())
    }

    /// Reads up to `len` bytes from `position`, a block's start, to the end of the frame, which is one, too; fewer at the
    /// file's end.
    pub async fn read_frame(&self, position: u64, mut frame: Frame, len: usize) -> io::Result<Frame> {
        let aligned = position.is_multiple_of(BLOCK) && frame.len().is_multiple_of(BLOCK_BYTES);
        assert!(aligned && len <= frame.remaining(), "a read into a frame begins with a block and fits");
        let this = self.clone();
        spawn_joined(async move {
            frame.append(&this.read(position, len).await?);
            Ok(frame)
        })
        .await
    }

    /// Makes the file at least `size` bytes long with space on the disk; new bytes read as zeros. False when the file
    /// system can't: then the file grows as it is written.
    pub async fn preallocate(&self, size: u64) -> io::Result<bool> {
        let name_ns = self.0.disk.settings.borrow().name_ns;
        self.0.disk.take(name_ns, 0).await;
        if !self.0.disk.settings.borrow().direct {
            return Ok(false);
        }
        self.0.disk.allocate(self.0.inode, &self.0.path, size).map(|()| true)
    }

    /// Cuts or extends the file to `len` bytes.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        let this = self.clone();
        let cut = async move {
            let name_ns = this.0.disk.settings.borrow().name_ns;
            this.0.disk.take(name_ns, 0).await;
            if !this.0.may_write {
                return Err(errno(libc::EINVAL));
            }
            this.0.disk.set_len(this.0.inode, len);
            Ok(())
        };
        spawn_joined(cut).await
    }

    /// Waits until what was written, and the file's length, are on the device.
    pub async fn fdatasync(&self) -> io::Result<()> {
        let this = self.clone();
        spawn_joined(async move { this.0.sync().await }).await
    }

    /// Closes it, if this is the last clone.
    pub async fn close(self) -> io::Result<()> {
        Ok(())
    }
}

/// A copy with zeros up to a block's end.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(bytes.len().next_multiple_of(BLOCK_BYTES));
    copy.extend_from_slice(bytes);
    copy.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    copy
}
