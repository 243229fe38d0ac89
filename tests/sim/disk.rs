//! One directory on a simulated device.
//!
//! A file has its bytes as readers see them, and those that are surely on the device (`durable`) with the changes since
//! the last sync in their order. After a kill the former stay; writes in flight leave any of their sectors. After a power
//! loss each sector of each change since the last sync is kept or lost by chance, and so is each change of length. Names
//! change as on a journaling file system: of the changes since the last sync of the directory some first ones are kept.

use std::collections::BTreeMap;

use ringlog_types::Random;

/// Unit of direct I/O.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// The device writes so much wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// kill -9: the kernel and its caches live on.
    Kill,
    /// Only what the device keeps is left.
    PowerLoss,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { position: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
}

#[derive(Debug)]
struct InFlight {
    inode: usize,
    position: u64,
    bytes: Vec<u8>,
}

/// The directory.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    in_flight: BTreeMap<u64, InFlight>,
    next_write: u64,
}

impl Disk {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The whole file, if it is there.
    pub(crate) fn read(&self, name: &str) -> Option<&[u8]> {
        self.names.get(name).map(|inode| self.inodes[*inode].bytes.as_slice())
    }

    fn inode(&self, name: &str) -> usize {
        *self.names.get(name).unwrap_or_else(|| panic!("{name} isn't there"))
    }

    pub(crate) fn create(&mut self, name: &str) {
        if !self.names.contains_key(name) {
            self.inodes.push(Inode::default());
            self.link(name, self.inodes.len() - 1);
        }
    }

    fn link(&mut self, name: &str, inode: usize) {
        self.names.insert(name.to_owned(), inode);
        self.name_changes.push(NameChange::Link(name.to_owned(), inode));
    }

    /// Removes a name; none there is fine.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.names.remove(name).is_some() {
            self.name_changes.push(NameChange::Unlink(name.to_owned()));
        }
    }

    /// Renames; none there is fine.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(inode) = self.names.get(from).copied() {
            self.link(to, inode);
            self.remove(from);
        }
    }

    pub(crate) fn start_write(&mut self, name: &str, position: u64, bytes: Vec<u8>) -> u64 {
        assert!(position.is_multiple_of(BLOCK_BYTES) && (bytes.len() as u64).is_multiple_of(BLOCK_BYTES));
        let write = InFlight { inode: self.inode(name), position, bytes };
        let end = write.position + write.bytes.len() as u64;
        let overlaps = |other: &InFlight| {
            other.inode == write.inode
                && other.position < end
                && write.position < other.position + other.bytes.len() as u64
        };
        assert!(!self.in_flight.values().any(overlaps), "two writes of a block in flight");
        self.next_write += 1;
        self.in_flight.insert(self.next_write, write);
        self.next_write
    }

    pub(crate) fn finish_write(&mut self, id: u64) {
        let InFlight { inode, position, bytes } = self.in_flight.remove(&id).expect("in flight");
        let inode = &mut self.inodes[inode];
        put(&mut inode.bytes, position, &bytes);
        inode.unsynced.push(Change::Write { position, bytes });
    }

    /// Cuts or lengthens with zeros.
    pub(crate) fn set_len(&mut self, name: &str, len: u64) {
        let inode = self.inode(name);
        let inode = &mut self.inodes[inode];
        inode.bytes.resize(len as usize, 0);
        inode.unsynced.push(Change::Length(len));
    }

    /// fdatasync.
    pub(crate) fn sync(&mut self, name: &str) {
        let inode = self.inode(name);
        let inode = &mut self.inodes[inode];
        inode.durable = inode.bytes.clone();
        inode.unsynced.clear();
    }

    /// fsync of the directory.
    pub(crate) fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.name_changes.clear();
    }

    /// syncfs.
    pub(crate) fn sync_all(&mut self) {
        for name in self.names.keys().cloned().collect::<Vec<_>>() {
            self.sync(&name);
        }
        self.sync_names();
    }

    /// Writes a small file beside, syncs it, renames it to its place and syncs the directory.
    pub(crate) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.inodes.push(Inode { durable: bytes.clone(), bytes, unsynced: Vec::new() });
        self.link(name, self.inodes.len() - 1);
        self.sync_names();
    }

    pub(crate) fn crash(&mut self, crash: Crash, random: &mut Random) {
        // All lost, most lost, half, all kept: extremes find more than a fair coin.
        let kept_percent = [0, 10, 50, 90, 100][random.below(5) as usize];
        let is_kept = |random: &mut Random| random.below(100) < kept_percent;
        for (_, InFlight { inode, position, bytes }) in std::mem::take(&mut self.in_flight) {
            let inode = &mut self.inodes[inode];
            for (at, sector) in sectors(position, &bytes) {
                if is_kept(random) {
                    put(&mut inode.bytes, at, sector);
                    inode.unsynced.push(Change::Write { position: at, bytes: sector.to_vec() });
                }
            }
        }
        if crash == Crash::Kill {
            return;
        }
        let kept = random.below(self.name_changes.len() as u64 + 1) as usize;
        for change in self.name_changes.drain(..).take(kept) {
            match change {
                NameChange::Link(name, inode) => drop(self.durable_names.insert(name, inode)),
                NameChange::Unlink(name) => drop(self.durable_names.remove(&name)),
            }
        }
        self.names = self.durable_names.clone();
        for inode in &mut self.inodes {
            let changes = std::mem::take(&mut inode.unsynced);
            for change in changes {
                match change {
                    Change::Length(len) if is_kept(random) => inode.durable.resize(len as usize, 0),
                    Change::Length(_) => {}
                    Change::Write { position, bytes } => {
                        for (at, sector) in sectors(position, &bytes) {
                            if is_kept(random) {
                                put(&mut inode.durable, at, sector);
                            }
                        }
                    }
                }
            }
            inode.bytes = inode.durable.clone();
        }
    }
}

fn sectors(position: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    bytes.chunks(SECTOR_BYTES).enumerate().map(move |(i, sector)| (position + (i * SECTOR_BYTES) as u64, sector))
}

fn put(file: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (start, end) = (position as usize, position as usize + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}
