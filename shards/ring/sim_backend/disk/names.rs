//! Names: folders and what stands in them, now and after a power failure.
//!
//! A change of names is seen at once and kept in a list until a folder that it touches is synced. A sync makes safe all
//! changes that touch the folder, and those before them that touch a folder which one of these touches: what depends on
//! something isn't there without it. A power failure keeps, of the changes of each folder, some first ones; a rename
//! between two folders is kept in both or in neither. With one journal for all, some first ones of all changes are kept.
//!
//! What is less strict on some file systems isn't counted on: syncing a file makes its bytes safe and not its name, and
//! syncing a folder the names in it and not its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};

use ringlog_types::TimestampMs;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::content::Content;
use super::errno;
use crate::backend::streams::Stream;

pub(crate) type InodeId = u64;

/// The root folder.
const ROOT: InodeId = 0;
/// So many inodes more than after the last sweep are swept for those that nobody needs.
const SWEEP_SLACK: usize = 64;

/// A file or folder, whatever it is called.
pub(crate) struct Inode {
    pub body: Body,
    pub modified: TimestampMs,
    pub is_read_only: bool,
    /// The process that has it locked.
    pub lock: Option<u32>,
    /// Names that it has now.
    pub names: u32,
    /// Who has it open, and operations that are under way.
    pub uses: u32,
}

pub(crate) enum Body {
    File(Content),
    Folder(Folder),
}

#[derive(Default)]
pub(crate) struct Folder {
    entries: BTreeMap<OsString, InodeId>,
    safe: BTreeMap<OsString, InodeId>,
}

/// In a folder a name comes to mean something, or nothing.
type Edit = (InodeId, OsString, Option<InodeId>);

struct NameChange(SmallVec<[Edit; 2]>);

impl NameChange {
    fn touches(&self, folders: &BTreeSet<InodeId>) -> bool {
        self.0.iter().any(|(folder, ..)| folders.contains(folder))
    }
}

/// See the module's text.
pub(crate) struct Names {
    inodes: FxHashMap<InodeId, Inode>,
    next: InodeId,
    changes: Vec<NameChange>,
    freed_blocks: u64,
    sweep_at: usize,
}

impl Inode {
    fn new(body: Body, modified: TimestampMs) -> Inode {
        Inode { body, modified, is_read_only: false, lock: None, names: 0, uses: 0 }
    }

    /// Whether it takes room.
    pub fn is_there(&self) -> bool {
        self.names > 0 || self.uses > 0
    }

    pub fn content(&self) -> Option<&Content> {
        match &self.body {
            Body::File(content) => Some(content),
            Body::Folder(_) => None,
        }
    }

    pub fn content_mut(&mut self) -> Option<&mut Content> {
        match &mut self.body {
            Body::File(content) => Some(content),
            Body::Folder(_) => None,
        }
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Folder(_))
    }
}

impl Default for Names {
    fn default() -> Names {
        let mut root = Inode::new(Body::Folder(Folder::default()), TimestampMs(0));
        root.names = 1;
        let inodes = FxHashMap::from_iter([(ROOT, root)]);
        Names { inodes, next: ROOT + 1, changes: Vec::new(), freed_blocks: 0, sweep_at: SWEEP_SLACK }
    }
}

impl Names {
    pub fn inode(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(&id)
    }

    pub fn inode_mut(&mut self, id: InodeId) -> Option<&mut Inode> {
        self.inodes.get_mut(&id)
    }

    /// Inodes in the order of their making: what is drawn for one after the other mustn't depend on a hash.
    pub fn ids(&self) -> Vec<InodeId> {
        let mut ids: Vec<InodeId> = self.inodes.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    fn folder(&self, id: InodeId) -> io::Result<&Folder> {
        match self.inodes.get(&id).map(|inode| &inode.body) {
            Some(Body::Folder(folder)) => Ok(folder),
            Some(Body::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn folder_mut(&mut self, id: InodeId) -> Option<&mut Folder> {
        match self.inodes.get_mut(&id).map(|inode| &mut inode.body) {
            Some(Body::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    /// What lies at a path.
    pub fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = *self.folder(at)?.entries.get(name).ok_or_else(|| errno(libc::ENOENT))?;
            }
        }
        Ok(at)
    }

    /// What lies at a path as far as a power failure would leave it for certain.
    pub fn find_safe(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                at = *self.folder(at)?.safe.get(name).ok_or_else(|| errno(libc::ENOENT))?;
            }
        }
        Ok(at)
    }

    /// The folder that a path's last name stands in, and the name.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(InodeId, &'a OsStr)> {
        let name = path.file_name().ok_or_else(|| errno(libc::EINVAL))?;
        let folder = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.folder(folder)?;
        Ok((folder, name))
    }

    /// Entries of a folder, by name.
    pub fn list(&self, path: &Path) -> io::Result<Vec<(OsString, InodeId)>> {
        let folder = self.folder(self.find(path)?)?;
        Ok(folder.entries.iter().map(|(name, id)| (name.clone(), *id)).collect())
    }

    fn add(&mut self, body: Body, now: TimestampMs) -> InodeId {
        let id = self.next;
        self.next += 1;
        self.inodes.insert(id, Inode::new(body, now));
        id
    }

    /// Carries out a change as readers see it, and notes it.
    fn change(&mut self, edits: SmallVec<[Edit; 2]>, now: TimestampMs) {
        let mut met: SmallVec<[(InodeId, bool); 4]> = SmallVec::new();
        for (folder, name, to) in &edits {
            let entries = &mut self.folder_mut(*folder).expect("a folder was found").entries;
            let before = match to {
                Some(id) => entries.insert(name.clone(), *id),
                None => entries.remove(name),
            };
            for (id, by) in before.map(|id| (id, -1)).into_iter().chain(to.map(|id| (id, 1))) {
                if let Some(inode) = self.inodes.get_mut(&id) {
                    if !met.iter().any(|(known, _)| *known == id) {
                        met.push((id, inode.is_there()));
                    }
                    inode.names = inode.names.saturating_add_signed(by);
                }
            }
            if let Some(folder) = self.inodes.get_mut(folder) {
                folder.modified = now;
            }
        }
        for (id, was_there) in met {
            let gone = self.inodes.get(&id).filter(|inode| was_there && !inode.is_there());
            self.freed_blocks += gone.and_then(Inode::content).map_or(0, Content::allocated);
        }
        self.changes.push(NameChange(edits));
        self.sweep_if_due();
    }

    /// Blocks of files that lost their last name since the last call.
    pub fn take_freed_blocks(&mut self) -> u64 {
        std::mem::take(&mut self.freed_blocks)
    }

    /// Makes an empty file. Nothing has the name.
    pub fn create_file(&mut self, path: &Path, now: TimestampMs) -> io::Result<InodeId> {
        let (folder, name) = self.place(path)?;
        let id = self.add(Body::File(Content::default()), now);
        self.change(smallvec![(folder, name.to_owned(), Some(id))], now);
        Ok(id)
    }

    pub fn create_dir(&mut self, path: &Path, now: TimestampMs) -> io::Result<()> {
        if path.file_name().is_none() {
            return Err(errno(libc::EEXIST));
        }
        let (folder, name) = self.place(path)?;
        if self.folder(folder)?.entries.contains_key(name) {
            return Err(errno(libc::EEXIST));
        }
        let id = self.add(Body::Folder(Folder::default()), now);
        self.change(smallvec![(folder, name.to_owned(), Some(id))], now);
        Ok(())
    }

    /// Removes a file's name, or that of an empty folder.
    pub fn remove(&mut self, path: &Path, is_dir: bool, now: TimestampMs) -> io::Result<()> {
        let id = self.find(path)?;
        match &self.inodes[&id].body {
            Body::File(_) if is_dir => return Err(errno(libc::ENOTDIR)),
            Body::Folder(_) if !is_dir => return Err(errno(libc::EISDIR)),
            Body::Folder(folder) if !folder.entries.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            _ => {}
        }
        let (folder, name) = self.place(path)?;
        self.change(smallvec![(folder, name.to_owned(), None)], now);
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path, now: TimestampMs) -> io::Result<()> {
        let id = self.find(from)?;
        let (left, old) = self.place(from)?;
        let (entered, new) = self.place(to)?;
        if to.starts_with(from) && to != from {
            return Err(errno(libc::EINVAL));
        }
        let replaced = self.folder(entered)?.entries.get(new).copied();
        if replaced == Some(id) {
            return Ok(());
        }
        let is_dir = self.inodes[&id].is_dir();
        match replaced.map(|id| &self.inodes[&id].body) {
            Some(Body::Folder(_)) if !is_dir => return Err(errno(libc::EISDIR)),
            Some(Body::Folder(folder)) if !folder.entries.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            Some(Body::File(_)) if is_dir => return Err(errno(libc::ENOTDIR)),
            _ => {}
        }
        self.change(smallvec![(left, old.to_owned(), None), (entered, new.to_owned(), Some(id))], now);
        Ok(())
    }

    /// A folder is synced.
    pub fn sync_dir(&mut self, folder: InodeId) {
        let mut folders = BTreeSet::from([folder]);
        let mut is_due = vec![false; self.changes.len()];
        for (change, is_due) in self.changes.iter().zip(&mut is_due).rev() {
            if change.touches(&folders) {
                *is_due = true;
                folders.extend(change.0.iter().map(|(folder, ..)| *folder));
            }
        }
        let mut due = is_due.into_iter();
        let (settled, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes).into_iter().partition(|_| due.next().unwrap_or(false));
        self.changes = left;
        settled.into_iter().for_each(|change| self.settle(change));
        self.sweep_if_due();
    }

    /// All names are synced.
    pub fn sync_all(&mut self) {
        std::mem::take(&mut self.changes).into_iter().for_each(|change| self.settle(change));
        self.sweep_if_due();
    }

    fn settle(&mut self, change: NameChange) {
        for (folder, name, to) in change.0 {
            // A folder that is gone, with all that was in it.
            let Some(folder) = self.folder_mut(folder) else { continue };
            match to {
                Some(id) => drop(folder.safe.insert(name, id)),
                None => drop(folder.safe.remove(&name)),
            }
        }
    }

    /// The power fails: what is kept becomes what there is.
    pub fn lose(&mut self, stream: &Stream, kept_percent: u64, has_one_journal: bool) -> usize {
        let mut stopped: BTreeSet<InodeId> = BTreeSet::new();
        let mut is_stopped = false;
        let mut lost = 0;
        for change in std::mem::take(&mut self.changes) {
            is_stopped = has_one_journal && is_stopped;
            let is_lost = is_stopped || change.touches(&stopped) || stream.below(100) >= kept_percent;
            if is_lost {
                is_stopped = true;
                lost += 1;
                stopped.extend(change.0.iter().map(|(folder, ..)| *folder));
            } else {
                self.settle(change);
            }
        }
        for inode in self.inodes.values_mut() {
            (inode.names, inode.uses, inode.lock) = (0, 0, None);
            if let Body::Folder(folder) = &mut inode.body {
                folder.entries = folder.safe.clone();
            }
        }
        self.sweep();
        // Counted anew: after what was lost, names may lead elsewhere.
        let mut counts: FxHashMap<InodeId, u32> = FxHashMap::from_iter([(ROOT, 1)]);
        for inode in self.inodes.values() {
            if let Body::Folder(folder) = &inode.body {
                folder.entries.values().for_each(|id| *counts.entry(*id).or_default() += 1);
            }
        }
        for (id, inode) in &mut self.inodes {
            inode.names = counts.get(id).copied().unwrap_or(0);
        }
        lost
    }

    fn sweep_if_due(&mut self) {
        if self.inodes.len() > self.sweep_at {
            self.sweep();
        }
    }

    /// Forgets inodes that no name leads to, now or after a power failure, and that nobody uses.
    fn sweep(&mut self) {
        let mut needed: BTreeSet<InodeId> = BTreeSet::new();
        let mut left = vec![ROOT];
        left.extend(
            self.changes.iter().flat_map(|change| &change.0).flat_map(|(folder, _, to)| [Some(*folder), *to]).flatten(),
        );
        left.extend(self.inodes.iter().filter(|(_, inode)| inode.uses > 0).map(|(id, _)| *id));
        while let Some(id) = left.pop() {
            if needed.insert(id)
                && let Some(Body::Folder(folder)) = self.inodes.get(&id).map(|inode| &inode.body)
            {
                left.extend(folder.entries.values().chain(folder.safe.values()));
            }
        }
        self.inodes.retain(|id, _| needed.contains(id));
        self.sweep_at = 2 * self.inodes.len() + SWEEP_SLACK;
    }
}

#[cfg(test)]
mod tests;
