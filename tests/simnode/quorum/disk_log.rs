//! The metadata log as a disk has it: read by the tests' own means, bytes as they lie there.

use std::path::PathBuf;

use bytes::Bytes;
use ringlog_protocol::records::BatchIter;
use ringlog_ring::sim::{Control, HostId};

use super::check::voters::{VoterView, voters_of_batch};

/// Where a node keeps it.
pub const FOLDER: &str = "/d1/data/__cluster_metadata-0";

/// A batch.
#[derive(Debug, Clone)]
pub struct Entry {
    /// First offset.
    pub base: i64,
    /// The offset behind it.
    pub end: i64,
    /// The leader's epoch.
    pub epoch: i32,
    /// All of it.
    pub bytes: Bytes,
    /// The voters that it names.
    pub voters: Option<VoterView>,
}

/// Which view of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What a power failure leaves for certain.
    Safe,
    /// What readers see.
    Seen,
}

impl View {
    /// A file's bytes.
    pub fn file(self, world: &Control, host: HostId, name: &str) -> Option<Vec<u8>> {
        let path = PathBuf::from(format!("{FOLDER}/{name}"));
        match self {
            View::Safe => world.safe_file(host, &path),
            View::Seen => world.file(host, &path),
        }
    }
}

/// The log, as it was when it was last looked at.
#[derive(Debug, Clone)]
pub struct DiskLog {
    view: View,
    /// Batches that follow each other.
    pub entries: Vec<Entry>,
    /// End and epoch of the newest complete snapshot but the one that formatting writes.
    pub snapshot: Option<(i64, i32)>,
    /// The last file, and how much of it was read.
    last: (String, usize),
}

impl DiskLog {
    /// Nothing was looked at yet.
    pub fn new(view: View) -> DiskLog {
        DiskLog { view, entries: Vec::new(), snapshot: None, last: (String::new(), 0) }
    }

    /// The offset after the last record.
    pub fn end(&self) -> i64 {
        let of_snapshot = self.snapshot.map_or(0, |(end, _)| end);
        self.entries.last().map_or(0, |entry| entry.end).max(of_snapshot)
    }

    /// Epoch and end, as raft compares them.
    pub fn position(&self) -> (i32, i64) {
        let snapshot = self.snapshot.map_or((0, 0), |(end, epoch)| (epoch, end));
        self.entries.last().map_or((0, 0), |entry| (entry.epoch, entry.end)).max(snapshot)
    }

    /// The position behind the last record of an epoch below that.
    pub fn position_before(&self, epoch: i32) -> (i32, i64) {
        let snapshot = self.snapshot.map_or((0, 0), |(end, epoch)| (epoch, end));
        let last = self.entries.iter().rev().find(|entry| entry.epoch < epoch);
        last.map_or((0, 0), |entry| (entry.epoch, entry.end)).max(snapshot)
    }

    /// The epoch of the last record below `offset`, if that is known.
    pub fn epoch_before(&self, offset: i64) -> Option<i32> {
        let index = self.entries.partition_point(|entry| entry.end < offset);
        let entry = self.entries.get(index).filter(|entry| entry.end == offset).map(|entry| entry.epoch);
        entry.or(self.snapshot.filter(|(end, _)| *end == offset).map(|(_, epoch)| epoch))
    }

    /// The batches from `offset` on.
    pub fn from(&self, offset: i64) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.base < offset)..]
    }

    /// The newest voters that it names.
    pub fn voters(&self) -> Option<&VoterView> {
        self.entries.iter().rev().find_map(|entry| entry.voters.as_ref())
    }

    /// Looks at the disk. Says whether what was there before is still there.
    pub fn look(&mut self, world: &Control, host: HostId) -> bool {
        // A disk that fails shows nothing.
        let Ok(names) = world.list(host, FOLDER.as_ref()) else { return true };
        self.snapshot = names.iter().filter_map(|name| snapshot_name(name)).filter(|id| id.0 > 0).max();
        let mut files: Vec<&String> = names.iter().filter(|name| is_log(name)).collect();
        files.sort();
        let (name, position) = self.last.clone();
        let mut from = files.iter().position(|file| **file == name);
        let mut begin = position;
        let is_same = if from.is_some() {
            let content = self.view.file(world, host, &name).unwrap_or_default();
            // A file may hold nothing yet.
            let last = self.entries.last().filter(|_| position > 0).map(|entry| &entry.bytes[..]).unwrap_or_default();
            position >= last.len() && content.get(position - last.len()..position) == Some(last)
        } else {
            self.entries.is_empty()
        };
        if !is_same || from.is_none() {
            self.entries.clear();
            (from, begin) = (Some(0), 0);
        }
        for file in files.into_iter().skip(from.unwrap_or(0)) {
            let Some(content) = self.view.file(world, host, file) else { break };
            let content = Bytes::from(content);
            let mut position = begin.min(content.len());
            begin = 0;
            for batch in BatchIter::new(&content.clone()[position..]) {
                let Some(batch) = batch.ok().filter(|batch| batch.verify_crc().is_ok()) else { break };
                let (base, end) = (batch.header.base_offset.0, batch.header.next_offset().0);
                if self.entries.last().is_some_and(|last| last.end != base) {
                    break;
                }
                let bytes = content.slice(position..position + batch.bytes.len());
                position += batch.bytes.len();
                let epoch = batch.header.partition_leader_epoch.0;
                let voters = voters_of_batch(&bytes);
                self.entries.push(Entry { base, end, epoch, bytes, voters });
            }
            // The file before may not be safe up to its end yet.
            if position > 0 || self.entries.is_empty() {
                self.last = (file.clone(), position);
            }
        }
        is_same
    }
}

fn is_log(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|stem| stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit()))
}

/// End and epoch of a complete snapshot.
pub fn snapshot_name(name: &str) -> Option<(i64, i32)> {
    let (end, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    (end.len() == 20 && epoch.len() == 10).then_some(())?;
    Some((end.parse().ok()?, epoch.parse().ok()?))
}

/// What `quorum-state` says, as far as checkers want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Election {
    /// The epoch.
    pub epoch: i32,
    /// Who got the vote, or -1.
    pub voted: i32,
    /// Who leads, or -1.
    pub leader: i32,
}

/// Reads it.
pub fn election(world: &Control, host: HostId) -> Option<Election> {
    let file = View::Safe.file(world, host, "quorum-state")?;
    let text = std::str::from_utf8(&file).ok()?;
    let number = |key: &str| i32::try_from(number(text, key)?).ok();
    Some(Election { epoch: number("leaderEpoch")?, voted: number("votedId")?, leader: number("leaderId")? })
}

/// What stands in the mark of a node that has yet to get its log back, or to find out that there was none.
const REBUILDING: [&str; 2] = [r#""rebuilding":true"#, r#""blank":true"#];

/// How far a node knows its log to be on stable storage, by the file that it writes now and then.
pub fn durable_mark(world: &Control, host: HostId) -> i64 {
    let file = View::Safe.file(world, host, "ringlog-durable-mark").unwrap_or_default();
    std::str::from_utf8(&file).ok().and_then(|text| number(text, "durableOffset")).unwrap_or(0)
}

/// Whether a node knows that its log lacks what it had, by the same file.
pub fn is_rebuilding(world: &Control, host: HostId) -> bool {
    let file = View::Safe.file(world, host, "ringlog-durable-mark").unwrap_or_default();
    std::str::from_utf8(&file).is_ok_and(|text| REBUILDING.iter().any(|words| text.contains(words)))
}

/// The number of that key in a JSON text.
fn number(text: &str, key: &str) -> Option<i64> {
    let rest = text.split_once(key)?.1.trim_start_matches([':', '"', ' ']);
    let end = rest.find(|letter: char| letter != '-' && !letter.is_ascii_digit())?;
    rest[..end].parse().ok()
}
