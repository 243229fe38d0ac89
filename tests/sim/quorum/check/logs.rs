//! Logs: what each node has, what of it is on stable storage, what is committed.
//!
//! A record is committed when a majority of the voters has it durably and the leader says so; from then on it must stay
//! everywhere, byte for byte.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_log::names::{FileKind, FileState, QUORUM_STATE_FILE, SegmentFile};
use ringlog_protocol::records::{BatchIter, BatchRef};
use ringlog_quorum::{LoadedNode, QuorumNode};
use ringlog_raft::{Memory, SnapshotFile, SnapshotId};
use ringlog_types::Offset;

use super::voters::{VoterView, voters_of_batch};
use super::{Checker, Checks, Found, NodeView, holds};
use crate::quorum::metadata_log::MetadataLog;
use crate::quorum::shared::Shared;
use crate::quorum::time::Us;

/// One batch.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub base: i64,
    pub end: i64,
    pub epoch: i32,
    pub bytes: Bytes,
    /// Segment and position.
    place: (Offset, u32),
}

/// The log of one node as it was told to keep it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeLog {
    pub start: i64,
    /// Epoch of the last record below the start.
    start_epoch: i32,
    pub entries: Vec<Entry>,
    /// Voters before any record, by static configuration or as formatted.
    pub initial_voters: VoterView,
    /// Voters as of offsets, the newest last.
    pub voters: Vec<(i64, VoterView)>,
    pub voters_changed_at: Us,
    /// All below is known to be durable.
    durable_to: i64,
}

impl NodeLog {
    pub(crate) fn new(initial_voters: VoterView) -> NodeLog {
        NodeLog { initial_voters, ..NodeLog::default() }
    }

    pub(crate) fn end(&self) -> i64 {
        self.entries.last().map_or(self.start, |entry| entry.end)
    }

    /// Epoch of the last record.
    pub(crate) fn last_epoch(&self) -> i32 {
        self.entries.last().map_or(self.start_epoch, |entry| entry.epoch)
    }

    pub(crate) fn voters(&self) -> &VoterView {
        self.voters.last().map_or(&self.initial_voters, |(_, voters)| voters)
    }

    /// Files, positions and lengths of the batches that end at or below `offset`.
    pub(crate) fn places_below(&self, offset: i64) -> Vec<(String, usize, u64)> {
        let place = |entry: &Entry| {
            let file = SegmentFile::live(entry.place.0, FileKind::Log).to_string();
            (file, entry.place.1 as usize, entry.bytes.len() as u64)
        };
        self.entries.iter().take_while(|entry| entry.end <= offset).map(place).collect()
    }

    /// The entries from the one that begins at `offset` on.
    fn from(&self, offset: i64) -> &[Entry] {
        &self.entries[self.entries.partition_point(|entry| entry.base < offset)..]
    }

    fn advance_start(&mut self, start: i64) {
        if start <= self.start {
            // A snapshot has taken the log's place meanwhile.
            return;
        }
        let gone = self.entries.partition_point(|entry| entry.end <= start);
        if let Some(last) = self.entries[..gone].last() {
            self.start_epoch = last.epoch;
        }
        self.entries.drain(..gone);
        self.start = start;
        // A snapshot stands for it, which is looked at itself.
        self.durable_to = self.durable_to.max(start);
    }

    fn restart(&mut self, end: i64, epoch: i32, voters: Option<VoterView>) {
        let voters = voters.map(|voters| (end - 1, voters)).into_iter().collect();
        let initial_voters = self.initial_voters.clone();
        *self =
            NodeLog { start: end, start_epoch: epoch, voters, initial_voters, durable_to: end, ..NodeLog::default() };
    }
}

/// What a leader takes for committed, not looked at yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToCommit {
    epoch: i32,
    pub end: i64,
    /// Where the leader's log ends once the work of the step is done.
    log_end: i64,
}

/// What is committed, from the first offset on.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub entries: Vec<Entry>,
    pub initial_voters: VoterView,
    /// Committed sets of voters, with the offsets of their batches.
    pub voters: Vec<(i64, VoterView)>,
    pub voters_changed_at: Us,
    /// How far the leader of each epoch committed.
    pub(super) ends: BTreeMap<i32, i64>,
}

impl Committed {
    /// How far leaders of epochs below `epoch` committed: a leader of that epoch has all of it.
    pub(crate) fn end_before_epoch(&self, epoch: i32) -> i64 {
        self.ends.range(..epoch).next_back().map_or(0, |(_, end)| *end)
    }

    /// Who votes by what is committed.
    pub(crate) fn present_voters(&self) -> &VoterView {
        self.voters.last().map_or(&self.initial_voters, |(_, voters)| voters)
    }

    pub(crate) fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    fn at(&self, base: i64) -> Option<&Entry> {
        self.entries.binary_search_by_key(&base, |entry| entry.base).ok().map(|index| &self.entries[index])
    }

    /// The batch that ends at `end`.
    pub(crate) fn ending_at(&self, end: i64) -> Option<&Entry> {
        let index = self.entries.partition_point(|entry| entry.end < end);
        self.entries.get(index).filter(|entry| entry.end == end)
    }
}

impl Checks {
    pub(super) fn append(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        batch: &BatchRef<'_>,
        place: (Offset, u32),
    ) -> Found {
        let log = &mut self.nodes[node].log;
        let header = &batch.header;
        let (base, end, epoch) = (header.base_offset.0, header.next_offset().0, header.partition_leader_epoch.0);
        holds!(Checker::Committed, base == log.end(), "appends at {base}, though its log ends at {}", log.end());
        let last = log.last_epoch();
        holds!(Checker::Elections, epoch >= last, "appends a record of epoch {epoch} after one of {last}");
        log.entries.push(Entry { base, end, epoch, bytes: Bytes::copy_from_slice(batch.bytes), place });
        self.note_voters(shared, node, batch, base)
    }

    pub(super) fn check_truncation(&mut self, node: usize, to: i64) -> Found {
        self.stats.truncations += 1;
        let view = &mut self.nodes[node];
        let known = view.high_watermark;
        holds!(Checker::Committed, to >= known, "cuts its log at {to}, below its high watermark {known}");
        // A leader of a later epoch may have committed them meanwhile, with others.
        let end = self.committed.end_before_epoch(view.epoch + 1);
        for entry in view.log.from(to).iter().take_while(|entry| entry.end <= end) {
            let is_committed = self.committed.at(entry.base).is_some_and(|committed| committed.bytes == entry.bytes);
            holds!(Checker::Committed, !is_committed, "cuts its log at {to}, but {} is committed", entry.base);
        }
        let log = &mut view.log;
        log.entries.retain(|entry| entry.end <= to);
        holds!(Checker::Committed, log.end() == to, "cuts its log at {to}, inside of a batch: {}", log.end());
        log.voters.retain(|(offset, _)| *offset < to);
        log.durable_to = log.durable_to.min(to);
        view.promised = view.promised.min(to);
        view.verified_to = view.verified_to.min(to);
        Ok(())
    }

    pub(super) fn on_adopted(&mut self, shared: &Rc<Shared>, node: usize, id: SnapshotId) -> Found {
        let (end, epoch) = (id.end_offset.0, id.epoch.0);
        self.stats.snapshots_fetched += 1;
        let committed = self.committed.end();
        holds!(Checker::Snapshots, end <= committed, "takes over snapshot {id}, but only {committed} is committed");
        let voters = self.voters_at(shared, end);
        let view = &mut self.nodes[node];
        view.log.restart(end, epoch, voters);
        view.log.voters_changed_at = shared.now();
        view.verified_to = end;
        // Everything before lies in the snapshot now.
        view.promised = view.promised.min(end);
        Ok(())
    }

    /// How far the node's log would be there after a power loss, looked at up to `wanted`.
    pub(super) fn durable_end(&mut self, shared: &Rc<Shared>, node: usize, wanted: i64) -> i64 {
        let log = &mut self.nodes[node].log;
        if log.durable_to >= wanted {
            return log.durable_to;
        }
        let disk = shared.devices[node].disk.borrow();
        let first = log.entries.partition_point(|entry| entry.base < log.durable_to);
        let mut name = (Offset(-1), String::new());
        for entry in &log.entries[first..] {
            if entry.base >= wanted {
                break;
            }
            if name.0 != entry.place.0 {
                name = (entry.place.0, SegmentFile::live(entry.place.0, FileKind::Log).to_string());
            }
            if !disk.is_durable(&name.1, u64::from(entry.place.1), &entry.bytes) {
                break;
            }
            log.durable_to = entry.end;
        }
        log.durable_to
    }

    /// Where the log begins behind a snapshot, that must be durable, too.
    fn has_durable_beginning(&self, shared: &Rc<Shared>, node: usize) -> bool {
        let start = self.nodes[node].log.start;
        if start == 0 {
            return true;
        }
        let disk = shared.devices[node].disk.borrow();
        disk.names().any(|name| match SnapshotId::parse_file_name(name) {
            Some((id, SnapshotFile::Complete)) => {
                id.end_offset.0 >= start && disk.durable(name).is_some_and(|durable| Some(durable) == disk.read(name))
            }
            _ => false,
        })
    }

    /// A fetch at `offset` says that all below is durable here.
    pub(super) fn check_acknowledgement(&mut self, shared: &Rc<Shared>, node: usize, offset: i64) -> Found {
        if !self.nodes[node].is_controller {
            return Ok(());
        }
        let end = self.nodes[node].log.end();
        holds!(Checker::Durability, offset == end, "fetches at {offset}, its log ends at {end}");
        let durable = self.durable_end(shared, node, offset);
        let is_damaged = self.nodes[node].is_damaged;
        holds!(
            Checker::Durability,
            durable >= offset || is_damaged,
            "acknowledges {offset}, but only {durable} is on stable storage"
        );
        let has_beginning = self.has_durable_beginning(shared, node) || is_damaged;
        holds!(Checker::Durability, has_beginning, "acknowledges {offset} without a snapshot of the beginning");
        self.nodes[node].promised = offset;
        Ok(())
    }

    pub(super) fn check_high_watermark(&mut self, shared: &Rc<Shared>, node: usize, machine: &QuorumNode) -> Found {
        let raft = machine.raft();
        let Some(high_watermark) = raft.high_watermark().map(|offset| offset.0) else { return Ok(()) };
        let view = &self.nodes[node];
        let known = view.high_watermark;
        holds!(
            Checker::Committed,
            high_watermark >= known,
            "its high watermark falls from {known} to {high_watermark}"
        );
        if high_watermark == known {
            return Ok(());
        }
        self.nodes[node].high_watermark = high_watermark;
        let committed = self.committed.end();
        if high_watermark > committed {
            let is_own = raft.leader_id().is_some_and(|id| id.0 == self.nodes[node].id);
            holds!(
                Checker::Committed,
                is_own,
                "its high watermark is {high_watermark}, but no leader has committed more than {committed}"
            );
            // Who votes is said by the log with all that this step appends to it.
            let log_end = raft.log_end_offset().0;
            self.nodes[node].to_commit = Some(ToCommit { epoch: raft.epoch().0, end: high_watermark, log_end });
        }
        self.commit_if_appended(shared, node)?;
        // Until a snapshot has really taken the log's place, what is there says nothing.
        let is_being_replaced = raft.log_start_offset().0 > self.nodes[node].log.start;
        if is_being_replaced { Ok(()) } else { self.verify_committed(node) }
    }

    /// A commit counts once the leader's log is there as the leader saw it.
    pub(super) fn commit_if_appended(&mut self, shared: &Rc<Shared>, node: usize) -> Found {
        let view = &mut self.nodes[node];
        match view.to_commit.take_if(|commit| commit.log_end <= view.log.end()) {
            Some(ToCommit { epoch, end, .. }) => self.commit(shared, node, epoch, end),
            None => Ok(()),
        }
    }

    /// A leader says that everything below `end` is committed.
    fn commit(&mut self, shared: &Rc<Shared>, node: usize, epoch: i32, end: i64) -> Found {
        let before = self.committed.end();
        let log = &self.nodes[node].log;
        holds!(
            Checker::Committed,
            log.start <= before,
            "commits {end}, but its log begins at {}, above {before}",
            log.start
        );
        let new: Vec<Entry> = log.from(before).iter().take_while(|entry| entry.end <= end).cloned().collect();
        let (first, last) = (new.first().map(|entry| entry.base), new.last().map(|entry| entry.end));
        let is_whole = first == Some(before) && last == Some(end);
        holds!(Checker::Committed, is_whole, "commits {end}, but has {first:?} to {last:?}");
        let last_epoch = new.last().map_or(0, |entry| entry.epoch);
        holds!(
            Checker::Committed,
            last_epoch == epoch,
            "commits {end} in epoch {epoch} by a record of epoch {last_epoch}"
        );
        let voters = log.voters().clone();
        let mut holders = Vec::new();
        for (id, directory) in voters.iter() {
            let Some(voter) = self.nodes.iter().position(|view| view.id == *id) else { continue };
            let is_same = directory.is_none_or(|directory| directory == self.nodes[voter].directory);
            let of_old_disk = match directory {
                Some(directory) => self.nodes[voter].lost.get(directory).copied(),
                None => self.acknowledged_by_old_disks(node, voter),
            };
            if is_same && self.holds_durably(shared, voter, end) || of_old_disk.is_some_and(|lost| lost >= end) {
                holders.push(*id);
            }
        }
        let needed = voters.len() / 2 + 1;
        holds!(
            Checker::Durability,
            holders.len() >= needed,
            "commits {end}, but only {holders:?} of the voters {voters:?} have it durably"
        );
        self.committed.ends.insert(epoch, end);
        for entry in new {
            self.replay_committed(&entry)?;
            if let Some(voters) = voters_of_batch(&entry.bytes) {
                self.committed.voters.push((entry.base, voters));
                self.committed.voters_changed_at = shared.now();
            }
            self.committed.entries.push(entry);
        }
        Ok(())
    }

    /// What a voter without a known directory had acknowledged before it got its present disk: the leader can't know
    /// better until it hears of it again.
    fn acknowledged_by_old_disks(&self, leader: usize, voter: usize) -> Option<i64> {
        let NodeView { id, directory, lost, .. } = &self.nodes[voter];
        let is_heard = self.nodes[leader].heard.contains_key(&(*id, *directory));
        lost.values().copied().max().filter(|_| !is_heard)
    }

    /// Whether a voter has everything below `end`, or had it before its disk was damaged.
    pub(super) fn holds_durably(&mut self, shared: &Rc<Shared>, node: usize, end: i64) -> bool {
        if self.nodes[node].is_damaged || self.nodes[node].is_rebuilding {
            return true;
        }
        self.durable_end(shared, node, end) >= end && self.has_durable_beginning(shared, node)
    }

    /// What is committed here is what is committed everywhere.
    pub(super) fn verify_committed(&mut self, node: usize) -> Found {
        let view = &mut self.nodes[node];
        let to = view.high_watermark.min(view.log.end()).min(self.committed.end());
        if to <= view.verified_to {
            return Ok(());
        }
        let mut at = view.verified_to.max(view.log.start);
        for entry in view.log.from(at) {
            if entry.base >= to {
                break;
            }
            let committed = self.committed.at(entry.base);
            let is_same = committed.is_some_and(|committed| committed.bytes == entry.bytes);
            holds!(
                Checker::Committed,
                is_same,
                "has a record of epoch {} at {}, where one of epoch {:?} is committed",
                entry.epoch,
                entry.base,
                committed.map(|committed| committed.epoch)
            );
            at = entry.end;
        }
        view.verified_to = at;
        Ok(())
    }

    /// The log may begin where a snapshot ends, not later.
    pub(super) fn check_start(&mut self, shared: &Rc<Shared>, node: usize, start: i64) -> Found {
        let oldest = {
            let disk = shared.devices[node].disk.borrow();
            let ends = disk.names().filter_map(|name| match SnapshotId::parse_file_name(name)? {
                (id, SnapshotFile::Complete) if id != SnapshotId::BOOTSTRAP => Some(id.end_offset.0),
                _ => None,
            });
            ends.min()
        };
        let known = self.committed.end();
        holds!(
            Checker::Snapshots,
            oldest.is_some_and(|oldest| start <= oldest),
            "its log begins at {start}, but its oldest snapshot ends at {oldest:?}"
        );
        holds!(Checker::Snapshots, start <= known, "its log begins at {start}, but only {known} is committed");
        self.nodes[node].log.advance_start(start);
        Ok(())
    }

    /// What a node found on its disk when it was started.
    pub(super) fn check_loaded(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        loaded: &LoadedNode,
        log: &MetadataLog,
    ) -> Found {
        let state = &loaded.state;
        let (start, end) = (state.log_start_offset.0, state.log_end_offset.0);
        let covered = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.id.end_offset.0);
        let epoch = state.quorum_state.as_ref().map_or(0, |state| state.epoch.0);
        let epoch = epoch.max(state.epochs.latest().map_or(0, |epoch| epoch.0));
        let view = &mut self.nodes[node];
        view.is_rebuilding = state.memory != Memory::Whole;
        view.is_blank = state.memory == Memory::Blank;
        if state.memory == Memory::Whole {
            let (acted, promised) = (view.acted_epoch, view.promised);
            holds!(Checker::Durability, epoch >= acted, "comes back at epoch {epoch} after it acted in {acted}");
            holds!(
                Checker::Durability,
                end.max(covered) >= promised || !view.is_controller,
                "comes back with a log up to {end} and votes, though it had acknowledged {promised}"
            );
        }
        // Whatever rotted was found now, or it would lie in files that nobody needs.
        view.is_damaged = false;
        view.promised = view.promised.min(end.max(covered));
        let id = loaded.snapshot.as_ref().map(|snapshot| snapshot.id).filter(|id| *id != SnapshotId::BOOTSTRAP);
        let voters = id.and_then(|id| self.voters_at(shared, id.end_offset.0));
        self.read_log(shared, node, start, end, log)?;
        let log = &mut self.nodes[node].log;
        if let Some((id, voters)) = id.zip(voters)
            && id.end_offset.0 >= start
        {
            log.voters.retain(|(offset, _)| *offset >= id.end_offset.0);
            log.voters.insert(0, (id.end_offset.0 - 1, voters));
        }
        self.nodes[node].verified_to = 0;
        self.verify_committed(node)
    }

    /// Reads the files as they are and compares them with what was there before.
    fn read_log(&mut self, shared: &Rc<Shared>, node: usize, start: i64, end: i64, log: &MetadataLog) -> Found {
        let mut entries: Vec<Entry> = Vec::new();
        let mut segments: Vec<SegmentFile> =
            log.files.names().iter().filter_map(|name| SegmentFile::parse(name)).collect();
        segments.retain(|file| file.kind == FileKind::Log && file.state == FileState::Live);
        segments.sort_by_key(|file| file.offset);
        for file in segments {
            let disk = shared.devices[node].disk.borrow();
            let content = Bytes::copy_from_slice(disk.read(&file.to_string()).unwrap_or_default());
            let mut position = 0;
            for batch in BatchIter::new(&content) {
                let batch = batch.map_err(|fault| (Checker::Durability, format!("{file} at {position}: {fault}")))?;
                let header = batch.header;
                if header.next_offset().0 > start {
                    entries.push(Entry {
                        base: header.base_offset.0,
                        end: header.next_offset().0,
                        epoch: header.partition_leader_epoch.0,
                        bytes: content.slice(position..position + batch.bytes.len()),
                        place: (file.offset, position as u32),
                    });
                }
                position += batch.bytes.len();
            }
        }
        let is_contiguous =
            entries.windows(2).all(|pair| pair[0].end == pair[1].base && pair[0].epoch <= pair[1].epoch);
        holds!(Checker::Durability, is_contiguous, "its log has a gap, or epochs that fall");
        let last = entries.last().map_or(start, |entry| entry.end);
        holds!(Checker::Durability, last == end, "its files end at {last}, its log at {end}");
        let old = std::mem::take(&mut self.nodes[node].log);
        for entry in &entries {
            let before = old.from(entry.base).first().filter(|before| before.base == entry.base);
            let is_same = before.is_none_or(|before| before.epoch != entry.epoch || before.bytes == entry.bytes);
            holds!(Checker::Durability, is_same, "the batch at {} is another one after the restart", entry.base);
        }
        let is_old_start = old.start == start;
        let start_epoch = match old.entries.iter().find(|entry| entry.end == start) {
            Some(entry) => entry.epoch,
            None if is_old_start => old.start_epoch,
            None => self.committed.ending_at(start).map_or(0, |entry| entry.epoch),
        };
        let kept = old.voters.into_iter().filter(|(offset, _)| *offset < start).collect();
        let log = NodeLog {
            start,
            start_epoch,
            entries,
            voters: kept,
            durable_to: start,
            ..NodeLog::new(old.initial_voters)
        };
        self.nodes[node].log = log;
        for index in 0..self.nodes[node].log.entries.len() {
            let entry = self.nodes[node].log.entries[index].clone();
            if let Some(voters) = voters_of_batch(&entry.bytes) {
                self.nodes[node].log.voters.push((entry.base, voters));
            }
        }
        self.nodes[node].log.voters_changed_at = shared.now();
        Ok(())
    }

    /// The epoch and the vote that the file would hold after a power loss.
    pub(super) fn durable_election(shared: &Rc<Shared>, node: usize) -> Option<DurableElection> {
        let disk = shared.devices[node].disk.borrow();
        let text = std::str::from_utf8(disk.durable(QUORUM_STATE_FILE)?).ok()?;
        let number = |key: &str| {
            let rest = text.split_once(key)?.1.trim_start_matches([':', '"']);
            let end = rest.find(|letter: char| letter != '-' && !letter.is_ascii_digit())?;
            rest[..end].parse::<i32>().ok()
        };
        let (epoch, voted, leader) = (number("leaderEpoch")?, number("votedId")?, number("leaderId")?);
        Some(DurableElection { epoch, voted, leader })
    }
}

/// What `quorum-state` says, as far as checkers want to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct DurableElection {
    pub epoch: i32,
    pub voted: i32,
    pub leader: i32,
}
