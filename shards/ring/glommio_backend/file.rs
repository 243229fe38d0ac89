//! Files for direct I/O, with buffered I/O where the file system refuses that.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use glommio::io::{BufferedFile, DmaBuffer, DmaFile, OpenOptions, ReadResult};
use ringlog_types::{align_down, align_up};

use super::io_error;
use super::lease::LeaseTable;
use crate::frame::{Block, Frame, FrameSlice};
use crate::trouble::patiently;
use crate::vocabulary::{Direct, DiskReads, Open};
use crate::{BLOCK_BYTES, MAX_IO_BYTES};

/// Up to here a write that doesn't end at a block's end is copied whole instead of being split in two.
const COPY_BYTES: usize = 32 * 1024;
const BLOCK: u64 = BLOCK_BYTES as u64;

thread_local! {
    /// Results of reads that this executor has lent out.
    static READS: RefCell<LeaseTable<ReadResult>> = RefCell::new(LeaseTable::new());
    static DISK_READS: Cell<DiskReads> = const { Cell::new(DiskReads { operations: 0, bytes: 0 }) };
}

/// What this executor has read so far.
pub fn disk_reads() -> DiskReads {
    DISK_READS.get()
}

/// Leaks what is still lent: called when the executor ends, since the memory's owner ends with it.
pub(super) fn forget_leases() {
    READS.with_borrow_mut(|reads| *reads = LeaseTable::new());
}

/// An open file of one executor. Clones share it; closed when the last is dropped, better by [`File::close`].
///
/// Writes run on when the caller stops waiting for them, since a half-cancelled write leaves the file in doubt. Don't
/// have two writes to the same block under way at a time.
#[derive(Clone)]
pub struct File(Rc<Kind>);

enum Kind {
    Dma { file: DmaFile, direct: bool },
    Buffered(BufferedFile),
}

/// Bytes to write that stay where they are until the write has ended.
enum Source {
    /// A block-aligned part of a frame.
    Frame { block: Arc<Block>, start: usize, len: usize },
    /// A copy, padded with zeros to whole blocks.
    Copy(Rc<DmaBuffer>),
}

impl File {
    /// Opens a file. When descriptors are short this waits a while for some.
    pub async fn open(path: &Path, open: Open) -> io::Result<File> {
        patiently(async || File::open_now(path, open).await).await
    }

    async fn open_now(path: &Path, open: Open) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(open.write).create(open.create).truncate(open.truncate).mode(0o644);
        if open.direct == Direct::Auto {
            match options.dma_open(path).await.map_err(io_error) {
                Ok(file) => {
                    let direct = is_direct(file.as_raw_fd());
                    return Ok(File(Rc::new(Kind::Dma { file, direct })));
                }
                Err(error) if refuses_direct(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let file = options.buffered_open(path).await.map_err(io_error)?;
        Ok(File(Rc::new(Kind::Buffered(file))))
    }

    /// Whether there is another clone of it: somebody else uses it.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Whether it goes around the page cache.
    pub fn is_direct(&self) -> bool {
        matches!(*self.0, Kind::Dma { direct: true, .. })
    }

    /// Writes the frame's bytes of `range`, see [`File::write_slice`].
    pub async fn write_frame(&self, position: u64, frame: &Frame, range: Range<usize>) -> io::Result<()> {
        self.write_slice(position, &frame.lend(range)).await
    }

    /// Writes a frame's bytes at `position`; they begin at a block's start in the frame, and `position` is one in the
    /// file. When they don't end at a block's end, zeros fill the last block.
    ///
    /// Whole blocks go to the disk from the frame's own memory.
    pub async fn write_slice(&self, position: u64, slice: &FrameSlice) -> io::Result<()> {
        let aligned = position.is_multiple_of(BLOCK) && slice.start().is_multiple_of(BLOCK_BYTES);
        assert!(aligned, "writes begin with a block");
        let bytes = slice.as_ref();
        if let Kind::Buffered(_) = &*self.0 {
            return self.write_buffered(position, padded_vec(bytes)).await;
        }
        let whole = align_down(bytes.len() as u64, BLOCK) as usize;
        if whole < bytes.len() && bytes.len() <= COPY_BYTES {
            return self.write_source(position, padded(bytes)).await;
        }
        // Every piece is under way before the first is waited for.
        let mut writes = Vec::new();
        let mut done = 0;
        while done < whole {
            let len = (whole - done).min(MAX_IO_BYTES);
            let source = Source::Frame { block: slice.block(), start: slice.start() + done, len };
            writes.push(self.write_source(position + done as u64, source));
            done += len;
        }
        if whole < bytes.len() {
            writes.push(self.write_source(position + whole as u64, padded(&bytes[whole..])));
        }
        all(writes).await
    }

    /// Writes a copy of `bytes` at `position`, a block's start; zeros fill the last block. For small things.
    pub async fn write_all_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK), "writes begin with a block");
        if let Kind::Buffered(_) = &*self.0 {
            return self.write_buffered(position, padded_vec(bytes)).await;
        }
        for (number, piece) in bytes.chunks(MAX_IO_BYTES).enumerate() {
            self.write_source(position + (number * MAX_IO_BYTES) as u64, padded(piece)).await?;
        }
        Ok(())
    }

    /// Reads up to `len` bytes from `position`, any; fewer at the file's end. Up to [`MAX_IO_BYTES`] less a block
    /// nothing is copied: the answer refers to the buffer that the disk wrote into.
    pub async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let start = align_down(position, BLOCK);
        let end = align_up(position.saturating_add(len as u64), BLOCK);
        if end - start <= MAX_IO_BYTES as u64 {
            return self.read_once(position, len).await;
        }
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let here = position + bytes.len() as u64;
            let room = MAX_IO_BYTES - (here % BLOCK) as usize;
            let wanted = room.min(len - bytes.len());
            let piece = self.read_once(here, wanted).await?;
            bytes.extend_from_slice(&piece);
            if piece.len() < wanted {
                break;
            }
        }
        Ok(bytes.into())
    }

    async fn read_once(&self, position: u64, len: usize) -> io::Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (result, skip) = match &*self.0 {
            Kind::Dma { file, .. } => {
                let start = align_down(position, BLOCK);
                let size = (align_up(position + len as u64, BLOCK) - start) as usize;
                READS.with_borrow_mut(LeaseTable::reclaim);
                (file.read_at_aligned(start, size).await, (position - start) as usize)
            }
            Kind::Buffered(file) => (file.read_at(position, len).await, 0),
        };
        let result = result.map_err(io_error)?;
        count_read(result.len());
        let found = result.len().saturating_sub(skip).min(len);
        if found == 0 {
            return Ok(Bytes::new());
        }
        let data = result[skip..skip + found].as_ptr();
        // SAFETY: `ReadResult` refers to a buffer of its own, which doesn't move with it and isn't written once the
        // read has ended; plain memory that any thread may read.
        let lent = READS.with_borrow_mut(|reads| unsafe { reads.lend(result, data, found) });
        // As many leases as may be are out: copy.
        Ok(lent.unwrap_or_else(|result| Bytes::copy_from_slice(&result[skip..skip + found])))
    }

    /// Reads up to `len` bytes from `position`, a block's start, to the end of the frame, which is one, too; fewer at the
    /// file's end. Nothing is copied where the file is read directly.
    pub async fn read_frame(&self, position: u64, frame: Frame, len: usize) -> io::Result<Frame> {
        let aligned = position.is_multiple_of(BLOCK) && frame.len().is_multiple_of(BLOCK_BYTES);
        assert!(aligned && len <= frame.remaining(), "a read into a frame begins with a block and fits");
        let this = self.clone();
        detached(async move {
            // When this is dropped half-way (the executor ends), the kernel may still write to the memory: leak it.
            let mut frame = ManuallyDrop::new(frame);
            let (size, before) = (len.next_multiple_of(BLOCK_BYTES), frame.len());
            let result = match &*this.0 {
                Kind::Dma { file, .. } => {
                    // SAFETY: whole blocks behind what is published, and the frame is as long as a number of those; nobody
                    // else has a reference to them, and they stay valid until the frame is dropped below, after the read.
                    let place = unsafe { DmaBuffer::borrowed(frame.place(), size) };
                    file.read_into(position, place).await.map_err(io_error)
                }
                Kind::Buffered(file) => file.read_at(position, len).await.map_err(io_error).map(|read| {
                    frame.append(&read);
                    0
                }),
            };
            let mut frame = ManuallyDrop::into_inner(frame);
            frame.publish(result?.min(len));
            count_read(frame.len() - before);
            Ok(frame)
        })
        .await
    }

    /// Makes the file at least `size` bytes long with space on the disk; new bytes read as zeros. False when the file
    /// system can't: then the file grows as it is written.
    pub async fn preallocate(&self, size: u64) -> io::Result<bool> {
        let result = match &*self.0 {
            Kind::Dma { file, .. } => file.pre_allocate(size, false).await,
            Kind::Buffered(file) => file.pre_allocate(size, false).await,
        };
        match result.map_err(io_error) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Cuts or extends the file to `len` bytes.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        let this = self.clone();
        detached(async move {
            match &*this.0 {
                Kind::Dma { file, .. } => file.truncate(len).await.map_err(io_error),
                Kind::Buffered(file) => file.truncate(len).await.map_err(io_error),
            }
        })
        .await
    }

    /// Waits until what was written, and the file's length, are on the device.
    pub async fn fdatasync(&self) -> io::Result<()> {
        let this = self.clone();
        detached(async move {
            match &*this.0 {
                Kind::Dma { file, .. } => file.fdatasync().await.map_err(io_error),
                Kind::Buffered(file) => file.fdatasync().await.map_err(io_error),
            }
        })
        .await
    }

    /// Closes it, if this is the last clone.
    pub async fn close(self) -> io::Result<()> {
        match Rc::into_inner(self.0) {
            Some(Kind::Dma { file, .. }) => file.close().await.map_err(io_error),
            Some(Kind::Buffered(file)) => file.close().await.map_err(io_error),
            None => Ok(()),
        }
    }

    fn write_source(&self, position: u64, source: Source) -> impl Future<Output = io::Result<()>> + use<> {
        let this = self.clone();
        detached(async move {
            let Kind::Dma { file, .. } = &*this.0 else { unreachable!("buffered writes go another way") };
            source.write(file, position).await
        })
    }

    fn write_buffered(&self, position: u64, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>> + use<> {
        let this = self.clone();
        detached(async move {
            let Kind::Buffered(file) = &*this.0 else { unreachable!("direct writes go another way") };
            let mut done = 0;
            while done < bytes.len() {
                let piece = bytes[done..bytes.len().min(done + MAX_IO_BYTES)].to_vec();
                match file.write_at(piece, position + done as u64).await.map_err(io_error)? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => done += written,
                }
            }
            Ok(())
        })
    }
}

impl Source {
    /// Writes all of it; continues where the kernel stopped early.
    async fn write(self, file: &DmaFile, position: u64) -> io::Result<()> {
        // When this future is dropped half-way (the executor ends), the kernel may still read the memory: leak it.
        let source = ManuallyDrop::new(self);
        let (data, len) = match &*source {
            // SAFETY: `start` lies within the block.
            Source::Frame { block, start, len } => (unsafe { block.data().add(*start) }, *len),
            Source::Copy(buffer) => (buffer.as_ptr().cast_mut(), buffer.len()),
        };
        let mut done = 0;
        let mut result = Ok(());
        while done < len && result.is_ok() {
            let written = match &*source {
                Source::Copy(buffer) if done == 0 => file.write_rc_at(Rc::clone(buffer), position).await,
                _ => {
                    // SAFETY: `done` is less than `len`; the memory stays valid until `source` is dropped below, after
                    // the write, and unchanged: these are published bytes of a frame, or a copy that only this has.
                    let rest = unsafe { DmaBuffer::borrowed(data.add(done), len - done) };
                    file.write_at(rest, position + done as u64).await
                }
            };
            match written.map_err(io_error) {
                // What comes after a partial write must begin with a block again.
                Ok(written) if written >= BLOCK_BYTES || done + written == len => {
                    done =
                        if done + written == len { len } else { align_down((done + written) as u64, BLOCK) as usize };
                }
                Ok(_) => result = Err(io::ErrorKind::WriteZero.into()),
                Err(error) => result = Err(error),
            }
        }
        drop(ManuallyDrop::into_inner(source));
        result
    }
}

/// A copy of `bytes` with zeros up to a block's end, aligned for direct I/O.
fn padded(bytes: &[u8]) -> Source {
    READS.with_borrow_mut(LeaseTable::reclaim);
    let mut buffer = glommio::allocate_dma_buffer(bytes.len().next_multiple_of(BLOCK_BYTES));
    let place = buffer.as_bytes_mut();
    place[..bytes.len()].copy_from_slice(bytes);
    place[bytes.len()..].fill(0);
    Source::Copy(Rc::new(buffer))
}

fn padded_vec(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(bytes.len().next_multiple_of(BLOCK_BYTES));
    copy.extend_from_slice(bytes);
    copy.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    copy
}

/// Runs the operation as a task that goes on when the answer isn't waited for any more.
fn detached<T: 'static>(
    operation: impl Future<Output = io::Result<T>> + 'static,
) -> impl Future<Output = io::Result<T>> {
    let task = glommio::spawn_local(operation).detach();
    async move { task.await.unwrap_or_else(|| Err(io::Error::other("the executor is ending"))) }
}

/// Waits for all of them; the first error if any.
async fn all(writes: Vec<impl Future<Output = io::Result<()>>>) -> io::Result<()> {
    let mut result = Ok(());
    for write in writes {
        result = result.and(write.await);
    }
    result
}

fn count_read(len: usize) {
    DISK_READS.with(|reads| {
        let DiskReads { operations, bytes } = reads.get();
        reads.set(DiskReads { operations: operations + 1, bytes: bytes + len as u64 });
    });
}

fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn is_direct(descriptor: RawFd) -> bool {
    // SAFETY: asks for the flags of an open descriptor.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_DIRECT != 0
}
