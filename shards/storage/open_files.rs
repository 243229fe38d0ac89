//! File handles of one core's segments, the least recently used closed when there are too many.
//!
//! Bound: [`OpenFiles::new`]'s capacity, this core's part of the process's descriptors, also while more files are in use at
//! a time: who comes then waits. A node hosts more partitions than it may hold files open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use ringlog_ring::{self as ring, File};
use rustc_hash::FxHashMap;

use crate::storage::generations::Segment;

/// How often who waits for a handle looks again.
const RETRY_MS: u64 = 1;
/// So many handles are closed at once, at least, when the system has none left.
const SHED_MIN: usize = 4;
/// Or one part in so many of all.
const SHED_PART: usize = 8;

/// A segment's file: the store's number and which segment of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// From [`OpenFiles::new_store`].
    pub store: u64,
    /// The segment.
    pub segment: Segment,
}

/// The open files of one core.
pub struct OpenFiles {
    capacity: usize,
    next_store: Cell<u64>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    files: FxHashMap<FileKey, (File, u64)>,
    by_use: BTreeMap<u64, FileKey>,
    uses: u64,
    /// Being opened.
    opening: usize,
    /// Forgotten while somebody used them.
    leaving: Vec<File>,
}

impl State {
    fn open(&mut self) -> usize {
        self.leaving.retain(File::is_shared);
        self.files.len() + self.opening + self.leaving.len()
    }

    /// Closes the file used longest ago that nobody uses now.
    fn close_one(&mut self) -> bool {
        let is_idle = |(_, key): &(&u64, &FileKey)| self.files.get(key).is_none_or(|(file, _)| !file.is_shared());
        let Some((use_, key)) = self.by_use.iter().find(is_idle).map(|(use_, key)| (*use_, *key)) else { return false };
        self.by_use.remove(&use_);
        self.files.remove(&key);
        true
    }
}

/// A file is being opened; until this is dropped it counts as open.
struct Opening<'a>(&'a OpenFiles);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().opening -= 1;
    }
}

impl OpenFiles {
    /// Holds at most `capacity` files.
    pub fn new(capacity: usize) -> OpenFiles {
        OpenFiles { capacity: capacity.max(1), next_store: Cell::new(0), state: RefCell::new(State::default()) }
    }

    /// A number for a new store, unique on this core.
    pub fn new_store(&self) -> u64 {
        let store = self.next_store.get();
        self.next_store.set(store + 1);
        store
    }

    /// The file, if it is open; counts as a use.
    pub fn get(&self, key: FileKey) -> Option<File> {
        let state = &mut *self.state.borrow_mut();
        let (file, used) = state.files.get_mut(&key)?;
        state.uses += 1;
        state.by_use.remove(used);
        *used = state.uses;
        state.by_use.insert(state.uses, key);
        Some(file.clone())
    }

    /// The file, opened by `open` if need be. Waits while all that may be open are in use: don't hold one meanwhile.
    pub async fn open<F>(&self, key: FileKey, open: impl FnOnce() -> F) -> io::Result<File>
    where
        F: Future<Output = io::Result<File>>,
    {
        let opening = loop {
            if let Some(file) = self.get(key) {
                return Ok(file);
            }
            if let Some(opening) = self.begin_opening() {
                break opening;
            }
            ring::sleep_ms(RETRY_MS).await;
        };
        let file = open().await?;
        drop(opening);
        self.insert(key, file.clone());
        Ok(file)
    }

    fn begin_opening(&self) -> Option<Opening<'_>> {
        let state = &mut *self.state.borrow_mut();
        if state.open() >= self.capacity && !state.close_one() {
            return None;
        }
        state.opening += 1;
        Some(Opening(self))
    }

    fn insert(&self, key: FileKey, file: File) {
        let state = &mut *self.state.borrow_mut();
        state.uses += 1;
        if let Some((_, used)) = state.files.insert(key, (file, state.uses)) {
            state.by_use.remove(&used);
        }
        state.by_use.insert(state.uses, key);
    }

    /// The system has no descriptor left: closes some that nobody uses now.
    pub fn shed(&self) {
        let state = &mut *self.state.borrow_mut();
        for _ in 0..(state.files.len() / SHED_PART).max(SHED_MIN) {
            if !state.close_one() {
                return;
            }
        }
    }

    /// Forgets a file that is about to be removed.
    pub fn remove(&self, key: FileKey) {
        let state = &mut *self.state.borrow_mut();
        if let Some((file, used)) = state.files.remove(&key) {
            state.by_use.remove(&used);
            if file.is_shared() {
                state.leaving.push(file);
            }
        }
    }

    /// Files that are open.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.state.borrow_mut().open()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    use ringlog_ring::{Direct, ExecutorContext, ExecutorOptions, Executors, Open};
    use ringlog_types::Offset;

    use super::*;

    /// Runs `test` on an executor with a folder for its files.
    fn on_executor<Fut: Future<Output = ()> + 'static>(
        name: &'static str,
        test: impl FnOnce(PathBuf) -> Fut + Send + 'static,
    ) {
        let folder = std::env::temp_dir().join(format!("ringlog-open-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let inside = folder.clone();
        let run = move |context: ExecutorContext| async move {
            context.ready();
            test(inside).await;
        };
        ring::block_on(Executors::start(vec![(ExecutorOptions::default(), run)]).unwrap().join());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn key(store: u64) -> FileKey {
        FileKey { store, segment: Segment::first(Offset(0)) }
    }

    async fn open(files: &OpenFiles, folder: &Path, number: u64) -> File {
        let path = folder.join(number.to_string());
        let options = Open { create: true, direct: Direct::Off, ..Open::WRITE };
        files.open(key(number), || async move { File::open(&path, options).await }).await.unwrap()
    }

    #[test]
    fn the_file_used_longest_ago_gives_way() {
        on_executor("lru", |folder| async move {
            let files = OpenFiles::new(3);
            for number in 0..3 {
                drop(open(&files, &folder, number).await);
            }
            drop(files.get(key(0)));
            drop(open(&files, &folder, 3).await);
            let is_open = [0, 1, 2, 3].map(|number| files.get(key(number)).is_some());
            assert_eq!((is_open, files.count()), ([true, false, true, true], 3));
        });
    }

    #[test]
    fn who_comes_when_all_files_are_in_use_waits() {
        on_executor("wait", |folder| async move {
            let files = Rc::new(OpenFiles::new(2));
            let (first, second) = (open(&files, &folder, 0).await, open(&files, &folder, 1).await);
            let waiting = ring::spawn({
                let (files, folder) = (files.clone(), folder.clone());
                async move { open(&files, &folder, 2).await }
            });
            ring::sleep_ms(20).await;
            assert_eq!((files.count(), files.get(key(2)).is_some()), (2, false));
            drop(second);
            let third = waiting.await;
            assert_eq!((files.count(), files.get(key(1)).is_some()), (2, false));
            drop((first, third));
        });
    }

    #[test]
    fn a_file_that_is_forgotten_counts_as_long_as_it_is_used() {
        on_executor("leaving", |folder| async move {
            let files = OpenFiles::new(2);
            let file = open(&files, &folder, 0).await;
            files.remove(key(0));
            assert!(files.get(key(0)).is_none());
            assert_eq!(files.count(), 1);
            drop(file);
            assert_eq!(files.count(), 0);
        });
    }

    #[test]
    fn files_that_nobody_uses_are_closed_when_descriptors_are_short() {
        on_executor("shed", |folder| async move {
            let files = OpenFiles::new(100);
            let used = open(&files, &folder, 0).await;
            for number in 1..10 {
                drop(open(&files, &folder, number).await);
            }
            files.shed();
            assert_eq!((files.count(), files.get(key(0)).is_some(), files.get(key(9)).is_some()), (6, true, true));
            for _ in 0..5 {
                files.shed();
            }
            assert_eq!(files.count(), 1);
            drop(used);
        });
    }

    #[test]
    fn what_can_not_be_opened_holds_no_place() {
        on_executor("failed", |folder| async move {
            let files = OpenFiles::new(1);
            let missing = folder.join("missing");
            let failed = files.open(key(0), || async move { File::open(&missing, Open::READ).await }).await;
            assert_eq!(failed.err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
            assert_eq!(files.count(), 0);
            drop(open(&files, &folder, 1).await);
        });
    }
}
