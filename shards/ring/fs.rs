//! Operations on files as wholes, on names and folders: a closed list. Data of segments goes through [`crate::File`].
//!
//! [`Fs`] is the list. [`run`] takes work that consists of such operations to the executor's helper thread; [`now`] is for
//! what runs where no executor is: the start of a node, and tools. The functions beside it do one thing each on the
//! helper thread.
//!
//! Operations are async so that a simulation can let time pass, and the power fail, between any two of them. In a real
//! process they have happened when they are polled: they block their thread.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use ringlog_types::TimestampMs;

pub use crate::backend::fs::{FileLock, Folder, Fs, ReadFile, WriteFile, now, run, run_apart, space_now};
use crate::trouble::again;

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

/// A name in a folder, and what kind of thing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: OsString,
    /// Whether it is a folder's.
    pub is_dir: bool,
}

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

/// A file system's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What unprivileged users may still write.
    pub available_bytes: u64,
}

/// What consists of several operations.
impl Fs {
    /// The whole file, which must not be larger than `limit` bytes (else `FileTooLarge`).
    pub async fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path).await?;
        let len = file.len().await?;
        if len > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?];
        let count = file.read_up_to(0, &mut bytes).await?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// [`Fs::read`], or `None` when there is no such file.
    pub async fn read_if_there(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        none_if_missing(self.read(path, limit).await)
    }

    /// Whether something lies at `path`.
    pub async fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(none_if_missing(self.metadata(path).await)?.is_some())
    }

    /// Whether a folder lies at `path`.
    pub async fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(none_if_missing(self.metadata(path).await)?.is_some_and(|found| found.is_dir))
    }

    /// Makes a file anew, or empties it, and writes `bytes` into it. Nothing of it survives a power failure for sure.
    pub async fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.create(path).await?.append(bytes)
    }

    /// Writes a file so that after a crash either the old or the new one is there, whole: to `NAME.tmp`, synced,
    /// renamed.
    pub async fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = self.create(&temporary).await?;
        file.append(bytes)?;
        file.sync().await?;
        drop(file);
        self.rename(&temporary, path).await?;
        self.sync_dir(folder_of(path)).await
    }

    /// Renames a file or folder, and syncs the folders it left and entered.
    pub async fn rename_and_sync(&self, from: &Path, to: &Path) -> io::Result<()> {
        // Opened first: once the name has changed nothing may be missing.
        let left = match folder_of(from) == folder_of(to) {
            true => None,
            false => Some(self.open_dir(folder_of(from)).await?),
        };
        let entered = self.open_dir(folder_of(to)).await?;
        self.rename(from, to).await?;
        if let Some(left) = left {
            left.sync().await?;
        }
        entered.sync().await
    }

    /// Makes the names in a folder survive a power failure.
    pub async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open_dir(path).await?.sync().await
    }

    /// Removes a file; none there is fine. Says whether there was one.
    pub async fn remove_file_if_there(&self, path: &Path) -> io::Result<bool> {
        Ok(none_if_missing(self.remove_file(path).await)?.is_some())
    }

    /// Makes a folder and those above it, as far as they are missing.
    pub async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = Some(path);
        while let Some(folder) = at.filter(|folder| !folder.as_os_str().is_empty()) {
            match self.create_dir(folder).await {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder),
                Err(_) if self.is_dir(folder).await? => break,
                Err(error) => return Err(error),
            }
            at = folder.parent();
        }
        for folder in missing.into_iter().rev() {
            match self.create_dir(folder).await {
                // Somebody else made it meanwhile.
                Err(_) if self.is_dir(folder).await? => {}
                made => made?,
            }
        }
        Ok(())
    }

    /// Removes a folder and all in it; none there is fine.
    pub async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        // A folder is met twice: to look into it, and, below its contents in the list, to remove it.
        let mut left = vec![(path.to_path_buf(), false)];
        while let Some((folder, is_empty)) = left.pop() {
            if is_empty {
                none_if_missing(self.remove_dir(&folder).await)?;
                continue;
            }
            let Some(entries) = none_if_missing(self.names(&folder).await)? else { continue };
            left.push((folder.clone(), true));
            for entry in entries {
                let path = folder.join(entry.name);
                match entry.is_dir {
                    true => left.push((path, false)),
                    false => drop(self.remove_file_if_there(&path).await?),
                }
            }
        }
        Ok(())
    }
}

/// What consists of several operations.
impl ReadFile {
    /// Fills `buffer` with what lies at `position`; `UnexpectedEof` when the file ends before.
    pub async fn read_exact_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.read_up_to(position, buffer).await? == buffer.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The same up to the end of the file; returns how much there was.
    pub async fn read_up_to(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(position + filled as u64, &mut buffer[filled..]).await? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }
}

/// [`run`] for work that can be done again, and is when there were too few descriptors for it.
pub async fn run_again<T, W>(work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnMut(Fs) -> io::Result<T> + Send + 'static,
{
    again(work, async |mut work| run(async move |fs| Ok((work(fs).await, work))).await).await
}

/// The whole file, which must not be larger than `limit` bytes (else `FileTooLarge`).
pub async fn read_to_vec(path: impl Into<PathBuf>, limit: usize) -> io::Result<Vec<u8>> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.read(&path, limit as u64).await).await
}

/// See [`Fs::write_atomically`].
pub async fn write_atomically(path: impl Into<PathBuf>, bytes: Vec<u8>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.write_atomically(&path, &bytes).await).await
}

/// See [`Fs::rename_and_sync`].
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
    let (from, to) = (from.into(), to.into());
    run_again(async move |fs: Fs| fs.rename_and_sync(&from, &to).await).await
}

/// Removes a file; none there is fine.
pub async fn remove_file(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.remove_file_if_there(&path).await.map(drop)).await
}

/// See [`Fs::remove_dir_all`].
pub async fn remove_dir_all(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.remove_dir_all(&path).await).await
}

/// See [`Fs::create_dir_all`].
pub async fn create_dir_all(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.create_dir_all(&path).await).await
}

/// See [`Fs::read_dir`].
pub async fn read_dir(path: impl Into<PathBuf>) -> io::Result<Vec<Entry>> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.read_dir(&path).await).await
}

/// What lies at `path`.
pub async fn metadata(path: impl Into<PathBuf>) -> io::Result<Metadata> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.metadata(&path).await).await
}

/// See [`Fs::sync_dir`].
pub async fn sync_dir(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.sync_dir(&path).await).await
}

/// See [`Fs::syncfs`].
pub async fn syncfs(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.syncfs(&path).await).await
}

/// See [`Fs::space`].
pub async fn space(path: impl Into<PathBuf>) -> io::Result<Space> {
    let path = path.into();
    run_again(async move |fs: Fs| fs.space(&path).await).await
}

/// The folder that a name stands in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
