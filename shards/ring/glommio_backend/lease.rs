//! Lending memory that belongs to one executor to anybody, without a copy.
//!
//! The owner keeps what keeps the memory alive in a table and gives out [`Bytes`]. When the last clone is dropped, on
//! whatever core, the entry's number goes onto a lock-free queue; the owner drops the entry when it next looks. So
//! the memory is released on its own core only.

use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

/// Entries lent by one executor at a time.
const CAPACITY: usize = 16 * 1024;

/// What one executor has lent.
pub(crate) struct LeaseTable<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
    returned: Arc<ArrayQueue<u32>>,
}

impl<T> LeaseTable<T> {
    pub(crate) fn new() -> LeaseTable<T> {
        LeaseTable { entries: Vec::new(), free: Vec::new(), returned: Arc::new(ArrayQueue::new(CAPACITY)) }
    }

    /// Lends `len` bytes at `data` for as long as any clone of the answer lives; gives the keeper back when as many
    /// entries as may be are lent.
    ///
    /// # Safety
    ///
    /// While `keeper` lives, the bytes stay valid, initialised and unchanged at this address, also when `keeper` moves,
    /// and any thread may read them.
    pub(crate) unsafe fn lend(&mut self, keeper: T, data: *const u8, len: usize) -> Result<Bytes, T> {
        self.reclaim();
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.entries.len() < CAPACITY => {
                self.entries.push(None);
                self.entries.len() as u32 - 1
            }
            None => return Err(keeper),
        };
        self.entries[id as usize] = Some(keeper);
        Ok(Bytes::from_owner(Lease { data, len, id, returned: Arc::clone(&self.returned) }))
    }

    /// Drops what came back.
    pub(crate) fn reclaim(&mut self) {
        while let Some(id) = self.returned.pop() {
            self.entries[id as usize] = None;
            self.free.push(id);
        }
    }

    /// Entries that are lent.
    #[cfg(test)]
    pub(crate) fn lent(&mut self) -> usize {
        self.reclaim();
        self.entries.len() - self.free.len()
    }
}

impl<T> Drop for LeaseTable<T> {
    fn drop(&mut self) {
        self.reclaim();
        // What is still lent must outlive this executor: leak it.
        for entry in self.entries.drain(..).flatten() {
            std::mem::forget(entry);
        }
    }
}

struct Lease {
    data: *const u8,
    len: usize,
    id: u32,
    returned: Arc<ArrayQueue<u32>>,
}

// SAFETY: the bytes are read-only while lent, and `LeaseTable::lend`'s caller promised that any thread may read them.
unsafe impl Send for Lease {}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: by `LeaseTable::lend`'s contract, valid while the table's entry lives, which is until this drops.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Never full: it has room for every entry, and each is returned once.
        let _ = self.returned.push(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::LeaseTable;

    #[test]
    fn an_entry_is_dropped_by_its_owner_after_the_last_clone_went_elsewhere() {
        let mut table = LeaseTable::<Box<[u8]>>::new();
        let keeper: Box<[u8]> = vec![7; 100].into();
        let data = keeper.as_ptr();
        // SAFETY: a boxed slice keeps its address, and nobody writes to it.
        let bytes = unsafe { table.lend(keeper, data, 100) }.expect("room");
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(table.lent(), 1);
        std::thread::Builder::new().spawn(move || assert_eq!(&part[..], &[7; 10])).unwrap().join().unwrap();
        assert_eq!(table.lent(), 0);
    }
}
