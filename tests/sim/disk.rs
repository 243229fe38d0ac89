//! One directory on a simulated device.
//!
//! A file has its bytes as readers see them, and those that are surely on the device (`durable`) with the changes since
//! the last sync in their order. After a kill the former stay; writes in flight leave any of their sectors. After a power
//! loss each sector of each change since the last sync is kept or lost by chance, and so is each change of length. Names
//! change as on a journaling file system: of the changes since the last sync of the directory some first ones are kept.
//! A sync that fails leaves any of what it should have made durable. Bits may rot.

use std::collections::{BTreeMap, BTreeSet};

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

/// `bytes` is always what `unsynced` makes of `durable`.
#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Inode {
    /// Makes the oldest `count` changes durable.
    fn settle(&mut self, count: usize) {
        for change in self.unsynced.drain(..count) {
            match change {
                Change::Length(len) => self.durable.resize(len as usize, 0),
                Change::Write { position, bytes } => put(&mut self.durable, position, &bytes),
            }
        }
    }

    /// Each sector of each change that isn't durable is kept or lost.
    fn lose(&mut self, random: &mut Random, is_kept: impl Fn(&mut Random) -> bool) {
        if self.unsynced.is_empty() {
            return;
        }
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Length(len) if is_kept(random) => self.durable.resize(len as usize, 0),
                Change::Length(_) => {}
                Change::Write { position, bytes } => {
                    for (at, sector) in sectors(position, &bytes) {
                        if is_kept(random) {
                            put(&mut self.durable, at, sector);
                        }
                    }
                }
            }
        }
        self.bytes = self.durable.clone();
    }
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
    Rename(String, String, usize),
}

/// A sync that has begun: what it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sync {
    inode: usize,
    changes: usize,
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
    inodes: BTreeMap<usize, Inode>,
    next_inode: usize,
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
        self.names.get(name).map(|inode| self.inodes[inode].bytes.as_slice())
    }

    fn inode(&self, name: &str) -> usize {
        *self.names.get(name).unwrap_or_else(|| panic!("{name} isn't there"))
    }

    pub(crate) fn create(&mut self, name: &str) {
        if !self.names.contains_key(name) {
            let inode = self.new_inode(Inode::default());
            self.link(name, inode);
        }
    }

    fn new_inode(&mut self, inode: Inode) -> usize {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, inode);
        self.next_inode
    }

    fn inode_mut(&mut self, inode: usize) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an inode with a name, or in use")
    }

    /// Creates a file, or empties the one that is there.
    pub(crate) fn create_empty(&mut self, name: &str) {
        match self.read(name) {
            Some([]) => {}
            Some(_) => self.set_len(name, 0),
            None => self.create(name),
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

    /// Renames in one step, as journals do; none there is fine.
    pub(crate) fn rename_at_once(&mut self, from: &str, to: &str) {
        if let Some(inode) = self.names.remove(from) {
            self.names.insert(to.to_owned(), inode);
            self.name_changes.push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        }
    }

    /// Writes into the page cache.
    pub(crate) fn write(&mut self, name: &str, position: u64, bytes: &[u8]) {
        let inode = self.inode(name);
        let inode = self.inode_mut(inode);
        put(&mut inode.bytes, position, bytes);
        inode.unsynced.push(Change::Write { position, bytes: bytes.to_vec() });
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
        let inode = self.inode_mut(inode);
        put(&mut inode.bytes, position, &bytes);
        inode.unsynced.push(Change::Write { position, bytes });
    }

    /// Cuts or lengthens with zeros.
    pub(crate) fn set_len(&mut self, name: &str, len: u64) {
        let inode = self.inode(name);
        let inode = self.inode_mut(inode);
        inode.bytes.resize(len as usize, 0);
        inode.unsynced.push(Change::Length(len));
    }

    /// fdatasync.
    pub(crate) fn sync(&mut self, name: &str) {
        let sync = self.begin_sync(name);
        self.finish_sync(sync);
    }

    /// fdatasync begins: it covers what has been written before.
    pub(crate) fn begin_sync(&self, name: &str) -> Sync {
        let inode = self.inode(name);
        Sync { inode, changes: self.inodes[&inode].unsynced.len() }
    }

    /// One sync of a file runs at a time.
    pub(crate) fn finish_sync(&mut self, sync: Sync) {
        if let Some(inode) = self.inodes.get_mut(&sync.inode) {
            inode.settle(sync.changes.min(inode.unsynced.len()));
        }
    }

    /// fdatasync fails: what it should have made durable is there or lost, sector by sector.
    pub(crate) fn fail_sync(&mut self, name: &str, random: &mut Random) {
        let inode = self.inode(name);
        self.inode_mut(inode).lose(random, |random| random.below(2) == 0);
    }

    /// fsync of the directory.
    pub(crate) fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.name_changes.clear();
        self.forget_nameless();
    }

    /// Inodes without a name or a change that may still be lost are nobody's any more.
    fn forget_nameless(&mut self) {
        if self.inodes.len() <= 2 * self.names.len() + 8 {
            return;
        }
        let mut used: BTreeSet<usize> = self.names.values().chain(self.durable_names.values()).copied().collect();
        used.extend(self.in_flight.values().map(|write| write.inode));
        used.extend(self.name_changes.iter().filter_map(|change| match change {
            NameChange::Link(_, inode) | NameChange::Rename(_, _, inode) => Some(*inode),
            NameChange::Unlink(_) => None,
        }));
        self.inodes.retain(|id, inode| used.contains(id) || !inode.unsynced.is_empty());
    }

    /// Whether these bytes lie at `position` of the file, and would after a power loss.
    pub(crate) fn is_durable(&self, name: &str, position: u64, bytes: &[u8]) -> bool {
        let Some(durable) = self.durable(name) else { return false };
        let position = position as usize;
        durable.get(position..position + bytes.len()) == Some(bytes)
    }

    /// What a power loss would leave of the file for certain.
    pub(crate) fn durable(&self, name: &str) -> Option<&[u8]> {
        self.durable_names.get(name).map(|inode| self.inodes[inode].durable.as_slice())
    }

    /// Bits of one byte of a file turn, on the device itself.
    pub(crate) fn rot(&mut self, name: &str, position: usize, mask: u8) {
        let inode = self.inode(name);
        let inode = self.inode_mut(inode);
        inode.bytes[position] ^= mask;
        if let Some(byte) = inode.durable.get_mut(position) {
            *byte ^= mask;
        }
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
        let inode = self.new_inode(Inode { durable: bytes.clone(), bytes, unsynced: Vec::new() });
        self.link(name, inode);
        self.sync_names();
    }

    pub(crate) fn crash(&mut self, crash: Crash, random: &mut Random) {
        // All lost, most lost, half, all kept: extremes find more than a fair coin.
        let kept_percent = [0, 10, 50, 90, 100][random.below(5) as usize];
        let is_kept = |random: &mut Random| random.below(100) < kept_percent;
        for (_, InFlight { inode, position, bytes }) in std::mem::take(&mut self.in_flight) {
            let Some(inode) = self.inodes.get_mut(&inode) else { continue };
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
                NameChange::Rename(from, to, inode) => {
                    self.durable_names.remove(&from);
                    self.durable_names.insert(to, inode);
                }
            }
        }
        self.names = self.durable_names.clone();
        for inode in self.inodes.values_mut() {
            inode.lose(random, is_kept);
        }
        self.forget_nameless();
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
