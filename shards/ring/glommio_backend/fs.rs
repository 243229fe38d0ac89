//! [`Fs`] on the kernel: each operation is a system call on the calling thread.

use std::fs::{self, OpenOptions, Permissions};
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::UNIX_EPOCH;

use ringlog_types::TimestampMs;

use crate::backend::apart::blocking_apart;
use crate::backend::tasks::blocking;
use crate::fs::{Entry, LockError, Metadata, Name, Space};

/// Runs work that consists of operations on files and names on the executor's helper thread. One at a time per executor.
pub async fn run<T, W>(work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
{
    blocking(move || at_once(work(Fs(())))).await
}

/// As [`run`], on a thread of its own: for what takes long.
pub async fn run_apart<T, W>(name: &str, work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
{
    blocking_apart(name, move || at_once(work(Fs(())))).await
}

/// Operations on the calling thread, which they block: not for executors.
pub fn now() -> Fs {
    Fs(())
}

/// The value of a future that waits for nothing but what a thread can do at once.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("work on files waits for files only"),
    }
}

/// The operations. See [`crate::fs`].
#[derive(Debug, Clone, Copy)]
pub struct Fs(());

/// A file that is open for reading.
#[derive(Debug)]
pub struct ReadFile(fs::File);

/// A file that is open for writing.
#[derive(Debug)]
pub struct WriteFile(fs::File);

/// A folder that is open.
#[derive(Debug)]
pub struct Folder(fs::File);

/// A file that this process has locked; unlocked on drop.
#[derive(Debug)]
pub struct FileLock(#[allow(dead_code, reason = "holds the lock")] fs::File);

impl Fs {
    /// Opens a file for reading.
    pub async fn open(&self, path: &Path) -> io::Result<ReadFile> {
        fs::File::open(path).map(ReadFile)
    }

    /// Makes a file, or empties it, and opens it for writing.
    pub async fn create(&self, path: &Path) -> io::Result<WriteFile> {
        fs::File::create(path).map(WriteFile)
    }

    /// Opens a file for writing as it is, made if need be.
    pub async fn open_to_write(&self, path: &Path) -> io::Result<WriteFile> {
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map(WriteFile)
    }

    /// Renames a file or folder; a file that has the name is replaced. The change may be undone by a power failure until
    /// the folder is synced.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Makes a folder.
    pub async fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    /// Removes an empty folder.
    pub async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    /// A folder's entries, by name. Entries that vanish meanwhile are left out.
    pub async fn read_dir(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) => entries.push(Entry { name: entry.file_name(), metadata: describe(&found) }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The names in a folder, in their order: quicker than [`Fs::read_dir`], as it doesn't look at what has them.
    pub async fn names(&self, path: &Path) -> io::Result<Vec<Name>> {
        let name = |entry: fs::DirEntry| {
            let is_dir = entry.file_type()?.is_dir();
            Ok(Name { name: entry.file_name(), is_dir })
        };
        let mut names = fs::read_dir(path)?.map(|entry| entry.and_then(name)).collect::<io::Result<Vec<Name>>>()?;
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    /// What lies at `path`.
    pub async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path).map(|found| describe(&found))
    }

    /// Cuts or extends a file to `len` bytes.
    pub async fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    /// Makes a file's bytes and length survive a power failure.
    pub async fn sync_file(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    /// Opens a folder, so that it can be synced whatever it is called then.
    pub async fn open_dir(&self, path: &Path) -> io::Result<Folder> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map(Folder)
    }

    /// Writes everything of the file system that holds `path` to the device: for many files at a time.
    pub async fn syncfs(&self, path: &Path) -> io::Result<()> {
        let file = fs::File::open(path)?;
        // SAFETY: the descriptor is open through the call.
        match unsafe { libc::syncfs(file.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The size of the file system that holds `path`.
    pub async fn space(&self, path: &Path) -> io::Result<Space> {
        space_now(path)
    }

    /// Locks a file (made if need be) against other processes; doesn't wait.
    pub async fn lock(&self, path: &Path) -> Result<FileLock, LockError> {
        let io = |error| LockError::Io(path.to_path_buf(), error);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        // SAFETY: the descriptor is open through the call.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 && lock_as_java(&file) {
            return Ok(FileLock(file));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EWOULDBLOCK | libc::EACCES) => Err(LockError::Held(path.to_path_buf())),
            _ => Err(io(error)),
        }
    }
}

impl Folder {
    /// Makes the names in it survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl ReadFile {
    /// Bytes in the file.
    pub async fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|found| found.len())
    }

    /// Reads what is there at `position`, at most `buffer`; 0 at the file's end.
    pub async fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl WriteFile {
    /// Writes `bytes` after what this has written before: a copy into the page cache, which waits for nothing.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes `bytes` at `position`.
    pub async fn write_all_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    /// Makes the file's bytes and length survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Nobody may open the file for writing any more.
    pub async fn set_read_only(&self) -> io::Result<()> {
        self.0.set_permissions(Permissions::from_mode(0o400))
    }

    /// Bytes in the file.
    pub async fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|found| found.len())
    }
}

/// [`Fs::space`], on the calling thread, which it doesn't keep long.
pub fn space_now(path: &Path) -> io::Result<Space> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zero is a valid `statvfs`.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with zero, and `found` is a valid place.
    match unsafe { libc::statvfs(path.as_ptr(), &mut found) } {
        0 => Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kafka's own lock on the file is a POSIX record lock, which `flock` doesn't see: take that too.
fn lock_as_java(file: &fs::File) -> bool {
    // SAFETY: all zero is a valid `flock`: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open and `lock` valid through the call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) == 0 }
}

fn describe(found: &fs::Metadata) -> Metadata {
    let modified = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified = TimestampMs(modified.map_or(0, |since| since.as_millis() as i64));
    Metadata { len: found.len(), modified, is_dir: found.is_dir() }
}
