//! [`Fs`] in a simulation: each operation takes its time, and may fail.

use std::io;
use std::path::Path;

use super::apart::on_new_thread;
use super::disk::{Disk, Opening, errno};
use super::file::{Descriptor, close};
use super::probe::spend_ns;
use super::tasks::{guarded, in_turn};
use super::world;
use crate::fs::{Entry, LockError, Metadata, Name, Space};

/// Runs work that consists of operations on files and names on the executor's helper thread. One at a time per executor.
pub async fn run<T, W>(work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
{
    in_turn(async move { work(Fs(())).await }).await
}

/// As [`run`], on a thread of its own: for what takes long.
pub async fn run_apart<T, W>(name: &str, work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
{
    on_new_thread(name, guarded(async move { work(Fs(())).await })).await
}

/// Operations on the calling thread, which they block: not for executors.
pub fn now() -> Fs {
    Fs(())
}

/// The operations. See [`crate::fs`].
#[derive(Debug, Clone, Copy)]
pub struct Fs(());

/// A file that is open for reading.
pub struct ReadFile(Descriptor);

/// A file that is open for writing.
pub struct WriteFile {
    descriptor: Descriptor,
    position: u64,
}

/// A folder that is open.
pub struct Folder(Descriptor);

/// A file that this process has locked; unlocked on drop. Any core may hold it.
#[derive(Debug)]
pub struct FileLock {
    process: u32,
    key: usize,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let process = world::try_world().and_then(|world| world.process(self.process));
        if let Some(process) = process {
            close(&process, self.key);
        }
    }
}

/// [`Fs::space`], on the calling thread, which it doesn't keep long.
pub fn space_now(path: &Path) -> io::Result<Space> {
    let (disk, path) = world::current().process.host.disk_of(path);
    disk.metadata(&path)?;
    Ok(disk.space())
}

const READ: Opening = Opening { create: false, truncate: false, write: false, direct: false };
const WRITE: Opening = Opening { write: true, ..READ };

/// The disk that holds a path and the path on it, once a look at names has taken its time.
async fn arrive(path: &Path) -> (std::rc::Rc<Disk>, std::path::PathBuf) {
    let (disk, path) = world::current().process.host.disk_of(path);
    let name_ns = disk.settings.borrow().name_ns;
    disk.take(name_ns, 0).await;
    (disk, path)
}

async fn open(path: &Path, opening: Opening) -> io::Result<Descriptor> {
    arrive(path).await;
    Descriptor::open(path, opening)
}

impl Fs {
    /// Opens a file for reading.
    pub async fn open(&self, path: &Path) -> io::Result<ReadFile> {
        open(path, READ).await.map(ReadFile)
    }

    /// Makes a file, or empties it, and opens it for writing.
    pub async fn create(&self, path: &Path) -> io::Result<WriteFile> {
        let descriptor = open(path, Opening { create: true, truncate: true, ..WRITE }).await?;
        Ok(WriteFile { descriptor, position: 0 })
    }

    /// Opens a file for writing as it is, made if need be.
    pub async fn open_to_write(&self, path: &Path) -> io::Result<WriteFile> {
        let descriptor = open(path, Opening { create: true, ..WRITE }).await?;
        Ok(WriteFile { descriptor, position: 0 })
    }

    /// Renames a file or folder; a file that has the name is replaced. The change may be undone by a power failure until
    /// the folder is synced.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (disk, from) = arrive(from).await;
        let (other, to) = world::current().process.host.disk_of(to);
        if !std::rc::Rc::ptr_eq(&disk, &other) {
            return Err(errno(libc::EXDEV));
        }
        disk.rename(&from, &to)
    }

    /// Removes a file.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (disk, path) = arrive(path).await;
        disk.remove(&path, false)
    }

    /// Makes a folder.
    pub async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (disk, path) = arrive(path).await;
        disk.create_dir(&path)
    }

    /// Removes an empty folder.
    pub async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (disk, path) = arrive(path).await;
        disk.remove(&path, true)
    }

    /// A folder's entries, by name. Entries that vanish meanwhile are left out.
    pub async fn read_dir(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let (disk, path) = arrive(path).await;
        let entries = disk.list(&path)?;
        spend_ns(entries.len() as u64 * 500);
        Ok(entries.into_iter().map(|(name, metadata)| Entry { name, metadata }).collect())
    }

    /// The names in a folder, in their order: quicker than [`Fs::read_dir`], as it doesn't look at what has them.
    pub async fn names(&self, path: &Path) -> io::Result<Vec<Name>> {
        let (disk, path) = arrive(path).await;
        let entries = disk.list(&path)?;
        spend_ns(entries.len() as u64 * 100);
        Ok(entries.into_iter().map(|(name, metadata)| Name { name, is_dir: metadata.is_dir }).collect())
    }

    /// What lies at `path`.
    pub async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (disk, path) = arrive(path).await;
        disk.metadata(&path)
    }

    /// Cuts or extends a file to `len` bytes.
    pub async fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        let descriptor = open(path, WRITE).await?;
        descriptor.disk.set_len(descriptor.inode, len);
        Ok(())
    }

    /// Makes a file's bytes and length survive a power failure.
    pub async fn sync_file(&self, path: &Path) -> io::Result<()> {
        open(path, READ).await?.sync().await
    }

    /// Opens a folder, so that it can be synced whatever it is called then.
    pub async fn open_dir(&self, path: &Path) -> io::Result<Folder> {
        let folder = open(path, READ).await?;
        match folder.disk.is_dir(folder.inode) {
            true => Ok(Folder(folder)),
            false => Err(errno(libc::ENOTDIR)),
        }
    }

    /// Writes everything of the file system that holds `path` to the device: for many files at a time.
    pub async fn syncfs(&self, path: &Path) -> io::Result<()> {
        let (disk, path) = arrive(path).await;
        disk.metadata(&path)?;
        let covered = disk.begin_sync_all();
        let sync_ns = disk.settings.borrow().sync_ns;
        disk.take(sync_ns, 0).await;
        disk.finish_sync_all(covered)
    }

    /// The size of the file system that holds `path`.
    pub async fn space(&self, path: &Path) -> io::Result<Space> {
        let (disk, path) = arrive(path).await;
        disk.metadata(&path)?;
        Ok(disk.space())
    }

    /// Locks a file (made if need be) against other processes; doesn't wait.
    pub async fn lock(&self, path: &Path) -> Result<FileLock, LockError> {
        let opened = open(path, Opening { create: true, ..WRITE }).await;
        let descriptor = opened.map_err(|error| LockError::Io(path.to_path_buf(), error))?;
        match descriptor.lock() {
            true => {
                let (process, key) = descriptor.keep();
                Ok(FileLock { process, key })
            }
            false => Err(LockError::Held(path.to_path_buf())),
        }
    }
}

impl Folder {
    /// Makes the names in it survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        let Descriptor { disk, inode, path, .. } = &self.0;
        let sync_ns = disk.settings.borrow().sync_ns;
        disk.take(sync_ns, 0).await;
        disk.sync_dir(*inode, path)
    }
}

impl ReadFile {
    /// Bytes in the file.
    pub async fn len(&self) -> io::Result<u64> {
        Ok(self.0.disk.len(self.0.inode))
    }

    /// Reads what is there at `position`, at most `buffer`; 0 at the file's end.
    pub async fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let cached_ns = self.0.disk.settings.borrow().cached_ns;
        self.0.disk.take(cached_ns, buffer.len() as u64).await;
        let bytes = self.0.disk.read_cached(self.0.inode, &self.0.path, position, buffer.len() as u64)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl WriteFile {
    /// Writes `bytes` after what this has written before: a copy into the page cache, which waits for nothing.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        spend_ns(2_000 + bytes.len() as u64 / 8);
        let mut done = 0;
        while done < bytes.len() {
            let Descriptor { disk, inode, path, .. } = &self.descriptor;
            let written = disk.write_cached(*inode, path, self.position, &bytes[done..])?;
            self.position += written as u64;
            done += written;
        }
        Ok(())
    }

    /// Writes `bytes` at `position`.
    pub async fn write_all_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let Descriptor { disk, inode, path, .. } = &self.descriptor;
        let cached_ns = disk.settings.borrow().cached_ns;
        disk.take(cached_ns, 0).await;
        let mut done = 0;
        while done < bytes.len() {
            done += disk.write_cached(*inode, path, position + done as u64, &bytes[done..])?;
        }
        Ok(())
    }

    /// Makes the file's bytes and length survive a power failure.
    pub async fn sync(&self) -> io::Result<()> {
        self.descriptor.sync().await
    }

    /// Nobody may open the file for writing any more.
    pub async fn set_read_only(&self) -> io::Result<()> {
        self.descriptor.disk.set_read_only(self.descriptor.inode);
        Ok(())
    }

    /// Bytes in the file.
    pub async fn len(&self) -> io::Result<u64> {
        Ok(self.descriptor.disk.len(self.descriptor.inode))
    }
}
