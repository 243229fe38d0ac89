//! Logs: what of each node's is on stable storage, what is committed.
//!
//! A record is committed when a majority of the voters has it durably and the leader says so; from then on it must stay
//! everywhere, byte for byte.

use std::collections::BTreeMap;

use ringlog_protocol::messages::{FetchRequest, FetchResponse};
use ringlog_protocol::records::BatchIter;

use super::super::disk_log::Entry;
use super::voters::VoterView;
use super::{Checks, Found, ensure};

/// NOT_LEADER_OR_FOLLOWER.
const NOT_LEADER: i16 = 6;

/// What is committed, from the first offset on.
pub struct Committed {
    /// All batches.
    pub entries: Vec<Entry>,
    initial_voters: VoterView,
    /// Committed sets of voters, with the offsets of their batches.
    pub voters: Vec<(i64, VoterView)>,
    /// When they last changed.
    pub voters_changed_ns: u64,
    /// How far the leader of each epoch committed.
    ends: BTreeMap<i32, i64>,
}

impl Committed {
    /// Nothing.
    pub fn new(initial_voters: VoterView) -> Committed {
        Committed {
            entries: Vec::new(),
            initial_voters,
            voters: Vec::new(),
            voters_changed_ns: 0,
            ends: BTreeMap::new(),
        }
    }

    /// The offset behind it.
    pub fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    /// How far leaders of epochs below `epoch` committed: a leader of that epoch has all of it.
    pub fn end_before_epoch(&self, epoch: i32) -> i64 {
        self.ends.range(..epoch).next_back().map_or(0, |(_, end)| *end)
    }

    /// Who votes by what is committed.
    pub fn present_voters(&self) -> &VoterView {
        self.voters.last().map_or(&self.initial_voters, |(_, voters)| voters)
    }

    /// Who voted by the records below `end`, if some record says it.
    pub fn voters_at(&self, end: i64) -> Option<&VoterView> {
        self.voters.iter().rev().find(|(offset, _)| *offset < end).map(|(_, voters)| voters)
    }

    /// The batch that begins there.
    pub fn at(&self, base: i64) -> Option<&Entry> {
        self.entries.binary_search_by_key(&base, |entry| entry.base).ok().map(|index| &self.entries[index])
    }

    /// The batch that ends at `end`.
    pub fn ending_at(&self, end: i64) -> Option<&Entry> {
        let index = self.entries.partition_point(|entry| entry.end < end);
        self.entries.get(index).filter(|entry| entry.end == end)
    }
}

fn is_same(one: &Entry, other: &Entry) -> bool {
    one.base == other.base && one.bytes == other.bytes
}

impl Checks {
    /// Looks at the disk of a node.
    pub(super) fn look(&mut self, node: usize) {
        let (world, host) = (self.world.clone(), self.nodes[node].host);
        if !self.nodes[node].safe.look(&world, host) {
            self.nodes[node].verified_to = 0;
        }
    }

    /// Somebody says that everything below `end` is committed, perhaps as the leader of an epoch.
    pub(super) fn commit(&mut self, end: i64, epoch: Option<i32>) -> Found {
        let before = self.committed.end();
        if end <= before {
            return Ok(());
        }
        let controllers: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_controller).collect();
        controllers.iter().for_each(|node| self.look(*node));
        let last = self.committed.entries.last().cloned();
        let mut best: (Vec<Entry>, Vec<i32>) = (Vec::new(), Vec::new());
        for node in &controllers {
            let Some(new) = self.new_entries(*node, last.as_ref(), end) else { continue };
            let holds = |other: &usize| {
                let view = &self.nodes[*other];
                let is_covered = view.safe.snapshot.is_some_and(|(covered, _)| covered >= end);
                let of_old_disk = view.lost.values().any(|lost| *lost >= end);
                let own = view.safe.from(before);
                let has_all = own.len() >= new.len() && own.iter().zip(&new).all(|(own, new)| is_same(own, new));
                let is_excused = view.is_damaged && view.promised >= end;
                is_covered || of_old_disk || is_excused || has_all && self.is_whole(*other, last.as_ref())
            };
            let holders: Vec<i32> =
                controllers.iter().filter(|other| holds(other)).map(|it| self.nodes[*it].id).collect();
            if holders.len() > best.1.len() {
                best = (new, holders);
            }
        }
        let (new, holders) = best;
        let named = new.iter().rev().find_map(|entry| entry.voters.as_ref());
        let voters = named.unwrap_or(self.committed.present_voters()).clone();
        let votes = |id: &i32| self.is_dynamic || voters.iter().any(|(voter, _)| voter == id);
        let count = holders.iter().filter(|id| votes(id)).count();
        let needed = self.majority(voters.count());
        ensure!(
            count >= needed,
            "says that {end} is committed, but above {before} only {holders:?} of the voters {voters:?} have it durably"
        );
        if let Some(epoch) = epoch {
            let last_epoch = new.last().map_or(0, |entry| entry.epoch);
            ensure!(last_epoch == epoch, "commits {end} in epoch {epoch} by a record of epoch {last_epoch}");
        }
        for entry in new {
            self.replay_committed(&entry)?;
            if let Some(voters) = &entry.voters {
                let difference = self.committed.present_voters().difference(voters);
                let is_first = self.committed.voters.is_empty();
                ensure!(
                    difference <= 1 || is_first,
                    "the voters at {} are {voters:?}, {difference} changes at once",
                    entry.base
                );
                self.committed.voters.push((entry.base, voters.clone()));
                self.committed.voters_changed_ns = self.world.now_ns();
            }
            let of_epoch = self.committed.ends.entry(entry.epoch).or_default();
            *of_epoch = entry.end.max(*of_epoch);
            self.committed.entries.push(entry);
        }
        Ok(())
    }

    /// Whether a node's log goes on where what is committed ends.
    fn is_whole(&self, node: usize, last: Option<&Entry>) -> bool {
        let log = &self.nodes[node].safe;
        let Some(last) = last else { return log.entries.first().is_none_or(|first| first.base == 0) };
        match log.from(last.base).first() {
            Some(own) if own.base == last.base => is_same(own, last),
            // It begins behind it.
            Some(own) => own.base == last.end && log.entries.first().is_some_and(|first| first.base == own.base),
            None => false,
        }
    }

    /// What a node has durably between what is committed and `end`.
    fn new_entries(&self, node: usize, last: Option<&Entry>, end: i64) -> Option<Vec<Entry>> {
        let before = last.map_or(0, |last| last.end);
        let new = self.nodes[node].safe.from(before);
        let count = new.iter().position(|entry| entry.end >= end)? + 1;
        (self.is_whole(node, last) && new.first()?.base == before).then(|| new[..count].to_vec())
    }

    /// What is committed here is what is committed everywhere.
    pub(super) fn verify(&mut self, node: usize, to: i64) -> Found {
        self.look(node);
        let to = to.min(self.committed.end());
        let view = &mut self.nodes[node];
        if to <= view.verified_to {
            return Ok(());
        }
        for entry in view.safe.from(view.verified_to).iter().take_while(|entry| entry.base < to) {
            let committed = self.committed.at(entry.base);
            ensure!(
                committed.is_some_and(|committed| committed.bytes == entry.bytes),
                "has a record of epoch {} at {}, where one of epoch {:?} is committed",
                entry.epoch,
                entry.base,
                committed.map(|committed| committed.epoch)
            );
        }
        view.verified_to = to;
        Ok(())
    }

    pub(super) fn check_fetch_request(&mut self, node: usize, fetch: &FetchRequest) -> Found {
        let Some(it) = fetch.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
        let (epoch, offset) = (it.current_leader_epoch, it.fetch_offset);
        ensure!(
            offset >= 0 && (0..=epoch).contains(&it.last_fetched_epoch),
            "fetches in epoch {epoch} at {offset} behind epoch {}",
            it.last_fetched_epoch
        );
        let durable = self.check_durable_epoch(node, epoch)?;
        if !self.nodes[node].is_controller || durable.is_some_and(|durable| durable.epoch > epoch) {
            return Ok(());
        }
        let known = self.nodes[node].told.min(self.nodes[node].promised);
        if self.nodes[node].safe.end() < offset || offset < known {
            self.look(node);
        }
        let view = &mut self.nodes[node];
        let end = view.safe.end();
        ensure!(
            end >= offset || view.is_hurt || view.is_damaged,
            "acknowledges {offset}, but only {end} is on stable storage"
        );
        // A request may have waited long for its connection.
        ensure!(
            end >= known || view.is_hurt || view.is_damaged,
            "has a log up to {end}, though it had {known}, which is committed"
        );
        view.promised = view.promised.min(end).max(offset);
        Ok(())
    }

    pub(super) fn check_fetch_answer(
        &mut self,
        node: usize,
        to: Option<usize>,
        asked: &FetchRequest,
        answer: &FetchResponse,
    ) -> Found {
        let asked = asked.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.responses.first().and_then(|topic| topic.partitions.first());
        let (Some(asked), Some(it)) = (asked, answer) else { return Ok(()) };
        if it.error_code == NOT_LEADER && self.nodes[node].leads.is_some_and(|led| led.0 == asked.current_leader_epoch)
        {
            self.nodes[node].leads = None;
        }
        if it.error_code != 0 || asked.current_leader_epoch <= 0 {
            return Ok(());
        }
        let epoch = asked.current_leader_epoch;
        self.check_claim(node, self.nodes[node].id, epoch)?;
        let high_watermark = it.high_watermark;
        if high_watermark >= 0 {
            self.commit(high_watermark, Some(epoch))?;
            if let Some(to) = to {
                let told = self.elections.told.entry((epoch, to)).or_default();
                ensure!(high_watermark >= *told, "tells a high watermark of {high_watermark} after one of {told}");
                *told = high_watermark;
            }
        }
        let is_diverging = it.diverging_epoch.epoch >= 0 || it.snapshot_id.epoch >= 0;
        let is_known =
            |to: &usize| self.nodes[*to].is_controller && self.nodes[*to].directory == asked.replica_directory_id;
        let Some(to) = to.filter(|to| !is_diverging && is_known(to)) else { return Ok(()) };
        let offset = asked.fetch_offset;
        let known = high_watermark.min(offset);
        self.verify(to, known).map_err(|text| format!("lets node {} believe that it {text}", self.nodes[to].id))?;
        self.nodes[to].told = self.nodes[to].told.max(known);
        if offset >= self.nodes[to].lost.values().copied().max().unwrap_or(0).min(self.committed.end()) {
            self.nodes[to].is_hurt = false;
        }
        let Some(records) = it.records.clone().filter(|records| !records.is_empty()) else { return Ok(()) };
        if self.nodes[node].is_damaged {
            return Ok(());
        }
        let bytes = records.into_contiguous();
        let mut next = offset;
        for batch in BatchIter::new(&bytes) {
            let Some(batch) = batch.ok().filter(|batch| batch.verify_crc().is_ok()) else {
                return Err(format!("sends damaged records at {next}"));
            };
            let base = batch.header.base_offset.0;
            ensure!(base == next, "sends a batch of offset {base} in the place of {next}");
            next = batch.header.next_offset().0;
            let committed = self.committed.at(base).filter(|committed| {
                next <= self.committed.end_before_epoch(epoch + 1) && committed.bytes != batch.bytes
            });
            ensure!(committed.is_none(), "sends another batch at {base} than the one that is committed");
        }
        Ok(())
    }
}
