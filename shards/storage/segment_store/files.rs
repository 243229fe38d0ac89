//! The files of one log: their names, their handles, and what of the names is on the device.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::names::{FileKind, SegmentFile};
use ringlog_ring::{self as ring, File, Open, Trouble};
use ringlog_types::Offset;

use crate::storage::context::StoreContext;
use crate::storage::generations::{Generations, Segment};
use crate::storage::open_files::FileKey;

/// See the module's text.
pub(super) struct SegmentFiles {
    context: Rc<StoreContext>,
    store: u64,
    directory: RefCell<PathBuf>,
    /// Which segments there are.
    pub generations: Generations,
    /// How many times names in the directory have changed, and how many of these changes are on the device. Flushes
    /// overlap: a flag that the first of them lowered would let the second acknowledge before the names are there.
    names_changed: Cell<u64>,
    names_synced: Cell<u64>,
    /// Nobody serves this log any more, and another one's files may get its names.
    is_abandoned: Cell<bool>,
    /// The directory is being renamed: a file that isn't found is looked for again when that is done.
    is_renaming: Cell<bool>,
    renamed: ring::Notify,
}

impl SegmentFiles {
    pub fn new(context: Rc<StoreContext>, store: u64, directory: PathBuf, generations: Generations) -> SegmentFiles {
        let directory = RefCell::new(directory);
        let (names_changed, names_synced, is_abandoned, is_renaming) = Default::default();
        let renamed = ring::Notify::new();
        SegmentFiles {
            context,
            store,
            directory,
            generations,
            names_changed,
            names_synced,
            is_abandoned,
            is_renaming,
            renamed,
        }
    }

    pub fn directory(&self) -> PathBuf {
        self.directory.borrow().clone()
    }

    pub fn is_in(&self, directory: &Path) -> bool {
        *self.directory.borrow() == directory
    }

    pub fn set_directory(&self, directory: PathBuf) {
        *self.directory.borrow_mut() = directory;
    }

    pub fn begin_rename(&self) {
        self.is_renaming.set(true);
    }

    pub fn end_rename(&self, directory: PathBuf) {
        self.set_directory(directory);
        self.is_renaming.set(false);
        self.renamed.notify_all();
    }

    /// Opens or reads a file; again when it wasn't found since the directory was renamed meanwhile.
    pub async fn find<T>(&self, mut find: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            let directory = self.directory();
            match find().await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    while self.is_renaming.get() {
                        self.renamed.wait().await;
                    }
                    if self.is_in(&directory) {
                        return Err(error);
                    }
                }
                found => return found,
            }
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.borrow().join(name)
    }

    pub fn path_of(&self, base_offset: Offset, kind: FileKind) -> PathBuf {
        self.path(SegmentFile::live(base_offset, kind).to_string())
    }

    pub fn key(&self, segment: Segment) -> FileKey {
        FileKey { store: self.store, segment }
    }

    /// Whether what is read of the segment is what it holds: it is still of the log, and the log still of its directory.
    #[inline]
    pub fn is_readable(&self, segment: Segment) -> bool {
        !self.is_abandoned.get() && self.generations.has(segment)
    }

    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned.get()
    }

    pub fn abandon(&self) {
        self.is_abandoned.set(true);
        self.context.read_ahead.forget(|file| file.store == self.store);
    }

    /// The segment's file. `NotFound` when the log doesn't have the segment any more, or what was opened may be another's.
    pub async fn open(&self, segment: Segment, create: bool) -> io::Result<File> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        if !self.generations.has(segment) {
            return Err(gone());
        }
        let key = self.key(segment);
        let open = || async {
            let path = self.path_of(segment.base_offset, FileKind::Log);
            File::open(&path, Open { create, direct: self.context.direct, ..Open::WRITE }).await
        };
        let file = self.find(async || self.context.files.open(key, open).await).await?;
        if self.generations.has(segment) {
            return Ok(file);
        }
        self.context.files.remove(key);
        Err(gone())
    }

    /// Makes what has been written to the segment survive a power failure.
    pub async fn sync_segment(&self, segment: Segment) -> io::Result<()> {
        self.open(segment, false).await?.fdatasync().await.map_err(never_again)
    }

    /// A file was made or removed.
    pub fn on_name_changed(&self) {
        self.names_changed.update(|count| count + 1);
    }

    /// Makes the names of the directory survive a power failure, if any changed.
    pub async fn sync_names(&self) -> io::Result<()> {
        let changed = self.names_changed.get();
        if self.names_synced.get() < changed {
            ring::fs::sync_dir(self.directory()).await.map_err(never_again)?;
            self.names_synced.set(changed.max(self.names_synced.get()));
        }
        Ok(())
    }

    /// Segments for which `goes` are no segments of the log any more: lets go what is held of their files.
    pub fn forget(&self, goes: impl Fn(Offset) -> bool) {
        for segment in self.generations.end(goes) {
            let key = self.key(segment);
            self.context.files.remove(key);
            self.context.read_ahead.forget(|file| file == key);
        }
    }
}

/// A sync that failed may have lost what it should have kept, and the next one wouldn't tell: whatever the reason, that
/// is a fault of the disk, a missing file apart.
fn never_again(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound || ring::trouble(&error) == Trouble::Fault {
        error
    } else {
        io::Error::other(format!("a sync failed: {error}"))
    }
}
