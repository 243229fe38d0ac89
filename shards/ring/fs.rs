//! Operations on names and folders, on the executor's helper thread. For rare, quick things; data goes through
//! [`crate::File`], long work to [`crate::blocking_apart`] or a [`crate::Lane`].

use std::ffi::{CString, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ringlog_types::TimestampMs;

use crate::backend::tasks::blocking_again;

/// What a file or folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes.
    pub len: u64,
    /// When it was last written.
    pub modified: TimestampMs,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: OsString,
    /// What it is.
    pub metadata: Metadata,
}

/// A file that this process has locked; unlocked on drop.
#[derive(Debug)]
pub struct FileLock(#[allow(dead_code, reason = "holds the lock")] fs::File);

/// Why a file couldn't be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{0} is locked by another process")]
    Held(PathBuf),
    /// It couldn't be opened or locked.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// The whole file, which must not be larger than `limit` bytes (else `FileTooLarge`).
pub async fn read_to_vec(path: impl Into<PathBuf>, limit: usize) -> io::Result<Vec<u8>> {
    let path = path.into();
    blocking_again(move || {
        let mut bytes = Vec::new();
        fs::File::open(&path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    })
    .await
}

/// Writes a file so that after a crash either the old or the new one is there, whole: to `NAME.tmp`, synced, renamed.
pub async fn write_atomically(path: impl Into<PathBuf>, bytes: Vec<u8>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || write_atomically_now(&path, &bytes)).await
}

/// [`write_atomically`] on the calling thread, for use outside of executors.
pub fn write_atomically_now(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Renames a file or folder, and syncs the folders it left and entered.
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
    let (from, to) = (from.into(), to.into());
    blocking_again(move || {
        // Opened first: once the name has changed nothing may be missing.
        let (left, entered) = (from.parent(), to.parent());
        let left = left.filter(|left| Some(*left) != entered).map(open_folder).transpose()?;
        let entered = entered.map(open_folder).transpose()?;
        fs::rename(&from, &to)?;
        left.into_iter().chain(entered).try_for_each(|folder| folder.sync_all())
    })
    .await
}

/// Removes a file; none there is fine.
pub async fn remove_file(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || fine_if_missing(fs::remove_file(&path))).await
}

/// Removes a folder and all in it; none there is fine.
pub async fn remove_dir_all(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || fine_if_missing(fs::remove_dir_all(&path))).await
}

/// Makes a folder and those above it.
pub async fn create_dir_all(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || fs::create_dir_all(&path)).await
}

/// A folder's entries, by name. Entries that vanish meanwhile are left out.
pub async fn read_dir(path: impl Into<PathBuf>) -> io::Result<Vec<Entry>> {
    let path = path.into();
    blocking_again(move || {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) => entries.push(Entry { name: entry.file_name(), metadata: describe(&found) }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    })
    .await
}

/// What lies at `path`.
pub async fn metadata(path: impl Into<PathBuf>) -> io::Result<Metadata> {
    let path = path.into();
    blocking_again(move || fs::metadata(&path).map(|found| describe(&found))).await
}

/// Makes the names in a folder survive a power failure.
pub async fn sync_dir(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || sync_folder(&path)).await
}

/// Writes everything of the file system that holds `path` to the device: for many files at a time.
pub async fn syncfs(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking_again(move || {
        let file = fs::File::open(&path)?;
        // SAFETY: the descriptor is open through the call.
        match unsafe { libc::syncfs(file.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
    .await
}

/// Bytes that may still be written to the file system that holds `path`.
pub async fn available_space(path: impl Into<PathBuf>) -> io::Result<u64> {
    let path = path.into();
    blocking_again(move || Ok(space(&path)?.available_bytes)).await
}

/// A file system's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What unprivileged users may still write.
    pub available_bytes: u64,
}

/// The size of the file system that holds `path`; on the calling thread (a quick call).
pub fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
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

/// Locks a file (made if need be) against other processes, on the calling thread; doesn't wait.
pub fn lock_file(path: &Path) -> Result<FileLock, LockError> {
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

fn sync_folder(path: &Path) -> io::Result<()> {
    open_folder(path)?.sync_all()
}

fn open_folder(path: &Path) -> io::Result<fs::File> {
    fs::File::open(if path.as_os_str().is_empty() { Path::new(".") } else { path })
}

fn fine_if_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
