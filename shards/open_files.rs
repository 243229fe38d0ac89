//! File handles of one core's segments, the least recently used closed when there are too many.
//!
//! Bound: [`OpenFiles::new`]'s capacity, this core's share of the process's limit of open files. A node hosts more
//! partitions than it may hold files open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ringlog_ring::File;
use ringlog_types::Offset;
use rustc_hash::FxHashMap;

/// A segment's file: the store's number and the segment's base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// From [`OpenFiles::new_store`].
    pub store: u64,
    /// The segment.
    pub base_offset: Offset,
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
}

impl OpenFiles {
    /// Holds at most `capacity` files.
    pub fn new(capacity: usize) -> OpenFiles {
        OpenFiles { capacity: capacity.max(8), next_store: Cell::new(0), state: RefCell::new(State::default()) }
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

    /// Takes in an opened file. The file that gives way closes when its last user drops it.
    pub fn insert(&self, key: FileKey, file: File) {
        let state = &mut *self.state.borrow_mut();
        state.uses += 1;
        if let Some((_, used)) = state.files.insert(key, (file, state.uses)) {
            state.by_use.remove(&used);
        }
        state.by_use.insert(state.uses, key);
        while state.files.len() > self.capacity {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            state.files.remove(&oldest);
        }
    }

    /// Forgets a file that is about to be removed.
    pub fn remove(&self, key: FileKey) {
        let state = &mut *self.state.borrow_mut();
        if let Some((_, used)) = state.files.remove(&key) {
            state.by_use.remove(&used);
        }
    }
}
