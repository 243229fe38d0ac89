//! Logs: what of each node's is on stable storage, what is committed.
//!
//! A record is committed when a majority of the voters has it durably and the leader says so; from then on it must stay
//! everywhere, byte for byte.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::RequestBody;
use ringlog_protocol::messages::{FetchRequest, FetchResponse};
use ringlog_protocol::records::BatchIter;

use super::super::disk_log::{DiskLog, Entry, View};
use super::voters::VoterView;
use super::{Checks, Found, ensure};

/// How often a node may ask for the same that it can't have: what it asked before may be on its way, to several nodes.
pub(super) const REPEATED: u32 = 8;
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

    /// Whether a record of that epoch is committed.
    pub fn has_of_epoch(&self, epoch: i32) -> bool {
        self.entries.iter().rev().take_while(|entry| entry.epoch >= epoch).any(|entry| entry.epoch == epoch)
    }

    /// Who votes by what is committed.
    pub fn present_voters(&self) -> &VoterView {
        self.voters.last().map_or(&self.initial_voters, |(_, voters)| voters)
    }

    /// Who voted before the first record.
    pub fn initial_voters(&self) -> &VoterView {
        &self.initial_voters
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
        let mut best: ((usize, usize, usize), Vec<Entry>, Vec<usize>) = Default::default();
        for node in &controllers {
            let Some(new) = self.new_entries(*node, last.as_ref(), end) else { continue };
            let has_all = |other: &usize| {
                let own = self.nodes[*other].safe.from(before);
                let has_all = own.len() >= new.len() && own.iter().zip(&new).all(|(own, new)| is_same(own, new));
                has_all && self.is_whole(*other, last.as_ref())
            };
            let holds = |other: &usize| {
                let view = &self.nodes[*other];
                let is_covered = view.safe.snapshot.is_some_and(|(covered, _)| covered >= end);
                let of_old_disk = view.lost.values().any(|lost| *lost >= end);
                let is_excused = view.is_damaged && view.promised >= end;
                is_covered || of_old_disk || is_excused || has_all(other)
            };
            let holders: Vec<usize> = controllers.iter().copied().filter(holds).collect();
            // Of two logs that go on differently, it is the one that more voters have, not the one that more may have had.
            let with_all = controllers.iter().copied().filter(|it| has_all(it));
            let votes = |it: &usize| {
                let view = &self.nodes[*it];
                self.committed.present_voters().holds(view.id, view.directory)
            };
            let count = with_all.clone().filter(votes).count();
            let rank = (count, with_all.count(), holders.len());
            if rank > best.0 {
                best = (rank, new, holders);
            }
        }
        let (_, new, holders) = best;
        self.check_majority(end, &new, &holders)?;
        for node in holders {
            let view = &mut self.nodes[node];
            let is_own = view.promised >= end && !view.is_damaged && !view.is_hurt;
            view.owed = if is_own { view.owed.max(end) } else { view.owed };
        }
        if let Some(epoch) = epoch {
            let last_epoch = new.last().map_or(0, |entry| entry.epoch);
            ensure!(last_epoch == epoch, "commits {end} in epoch {epoch} by a record of epoch {last_epoch}");
        }
        // It was the leader of the last record's epoch who committed all of them, also those of epochs before.
        if let Some(last) = new.last() {
            self.committed.ends.insert(last.epoch, last.end);
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

    /// A fetch says that all below its offset is durable here.
    pub(super) fn check_fetch_request(
        &mut self,
        node: usize,
        to: Option<usize>,
        body: &Rc<RequestBody>,
        fetch: &FetchRequest,
    ) -> Found {
        let Some(it) = fetch.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
        let (epoch, offset, now_ns) = (it.current_leader_epoch, it.fetch_offset, self.world.now_ns());
        ensure!(
            offset >= 0 && (0..=epoch).contains(&it.last_fetched_epoch),
            "fetches in epoch {epoch} at {offset} behind epoch {}",
            it.last_fetched_epoch
        );
        let durable = self.check_durable_epoch(node, epoch)?;
        // What goes to another one was asked before it knew its leader, and has waited for a connection.
        let is_to_leader = to.is_some_and(|to| self.elections.leaders.get(&epoch) == Some(&self.nodes[to].id));
        let view = &mut self.nodes[node];
        let news = view.in_touch.as_mut().filter(|news| news.epoch == epoch && news.known_ns.is_none());
        if let Some(news) = news.filter(|_| is_to_leader) {
            news.known_ns = Some(now_ns);
        }
        // Asked in an epoch that is over, and late because of its connection: whatever is answered, nobody waits for it.
        let is_over = durable.is_some_and(|durable| durable.epoch > epoch);
        if !is_over {
            view.last_fetch = Some(body.clone());
        }
        let is_follower = durable.is_some_and(|file| file.epoch == epoch && file.leader >= 0);
        view.fetches_as_follower = is_follower && !view.was_seeking;
        view.followed = if is_follower { view.followed.max(epoch) } else { view.followed };
        view.was_seeking = false;
        view.doubtful = None;
        if !view.is_controller || is_over {
            return Ok(());
        }
        let known = view.told.min(view.promised);
        if view.safe.end() < offset || offset < known || view.safe.position() != (it.last_fetched_epoch, offset) {
            self.look(node);
        }
        let view = &mut self.nodes[node];
        let (end, is_excused) = (view.safe.end(), view.is_hurt || view.is_damaged);
        // Worked out before the log was cut, it may have waited long for its connection.
        ensure!(end >= known || is_excused, "has a log up to {end}, though it had {known}, which is committed");
        // A snapshot of that end says the epoch, too. A request of before the log was cut may come late,
        // to several nodes.
        let of_log = view.safe.epoch_before(offset);
        let is_right = of_log.is_none_or(|of_log| of_log == it.last_fetched_epoch);
        let claim = (epoch, offset, it.last_fetched_epoch);
        let times = view.wrong_claim.filter(|(before, _)| *before == claim).map_or(1, |(_, times)| times + 1);
        view.wrong_claim = (!is_right && !is_excused).then_some((claim, times));
        ensure!(
            view.wrong_claim.is_none() || times < REPEATED,
            "fetches at {offset} behind epoch {} all the time, there is {of_log:?}",
            it.last_fetched_epoch
        );
        if end < offset && !is_excused {
            let text = format!("acknowledges {offset}, but only {end} is on stable storage");
            view.doubtful = Some((body.clone(), text));
            return Ok(());
        }
        view.promised = view.promised.min(end).max(offset);
        Ok(())
    }

    /// A leader answers a fetch: if it goes by what it says, that has to be true.
    pub(super) fn check_belief(&mut self, to: Option<usize>, asked: &RequestBody, answer: &FetchResponse) -> Found {
        let Some(to) = to else { return Ok(()) };
        let Some((_, text)) = self.nodes[to].doubtful.take_if(|(body, _)| std::ptr::eq(&**body, asked)) else {
            return Ok(());
        };
        let answer = answer.responses.first().and_then(|topic| topic.partitions.first());
        let is_believed =
            answer.is_some_and(|it| it.error_code == 0 && it.diverging_epoch.epoch < 0 && it.snapshot_id.epoch < 0);
        ensure!(!is_believed, "lets node {} believe that it is right: it {text}", self.nodes[to].id);
        Ok(())
    }

    /// Whether it is a node's last fetch, of the process that runs.
    pub(super) fn is_awaited(&self, node: usize, asked: &RequestBody) -> bool {
        self.nodes[node].last_fetch.as_ref().is_some_and(|last| std::ptr::eq(&**last, asked))
    }

    /// Nobody is sent back below what it knows to be committed.
    fn check_diverging(&self, to: usize, asked: &RequestBody, end: i64) -> Found {
        let view = &self.nodes[to];
        // It may have fetched by what its log was before it was cut.
        let is_excused = view.is_hurt || view.is_damaged || view.wrong_claim.is_some();
        ensure!(
            end >= view.told || !self.is_awaited(to, asked) || is_excused,
            "sends node {} back to {end}, though it has {}, which is committed",
            view.id,
            view.told
        );
        Ok(())
    }

    /// Whether a directory lacks committed records that it had acknowledged, and knows it: its disk was replaced, or
    /// what rotted of its log was cut off.
    pub(super) fn lacks_what_it_had(&mut self, node: usize) -> bool {
        let view = &self.nodes[node];
        if view.owed == 0 || !(view.is_hurt || view.rotten.is_some()) {
            return false;
        }
        self.look(node);
        let view = &self.nodes[node];
        if view.safe.end() >= view.owed {
            return false;
        }
        // What nobody has looked at is still there.
        let len = |name: &str| View::Seen.file(&self.world, view.host, name).map(|file| file.len() as u64);
        view.is_hurt || view.rotten.as_ref().is_some_and(|(name, whole)| len(name).is_some_and(|len| len < *whole))
    }

    /// What rotted is no longer there, or was made good.
    fn forget_damage(&mut self, node: usize) {
        let view = &self.nodes[node];
        let Some((name, _)) = &view.rotten else { return };
        let is_gone = View::Seen.file(&self.world, view.host, name).is_none();
        let mut log = DiskLog::new(View::Safe);
        log.look(&self.world, view.host);
        let is_right = |entry: &Entry| self.committed.at(entry.base).is_some_and(|it| it.bytes == entry.bytes);
        // A snapshot that covers it doesn't make the log's own batches good.
        let end = log.entries.last().map_or(0, |entry| entry.end);
        let is_whole = end >= view.owed && log.entries.iter().filter(|it| it.end <= view.owed).all(is_right);
        let is_log = name.ends_with(".log");
        let view = &mut self.nodes[node];
        if is_gone || is_log && is_whole {
            (view.rotten, view.is_damaged, view.safe) = (None, view.has_failed_to_sync, log);
        }
    }

    pub(super) fn check_fetch_answer(
        &mut self,
        node: usize,
        to: Option<usize>,
        whole: &RequestBody,
        answer: &FetchResponse,
    ) -> Found {
        let RequestBody::Fetch(asked) = whole else { return Ok(()) };
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
        self.check_change(node)?;
        if let Some(to) = to.filter(|_| it.diverging_epoch.epoch >= 0) {
            self.check_diverging(to, whole, it.diverging_epoch.end_offset)?;
        }
        let is_diverging = it.diverging_epoch.epoch >= 0 || it.snapshot_id.epoch >= 0;
        let is_known =
            |to: &usize| self.nodes[*to].is_controller && self.nodes[*to].directory == asked.replica_directory_id;
        let Some(to) = to.filter(|to| !is_diverging && is_known(to)) else { return Ok(()) };
        let offset = asked.fetch_offset;
        let known = high_watermark.min(offset);
        self.verify(to, known).map_err(|text| format!("lets node {} believe that it {text}", self.nodes[to].id))?;
        self.nodes[to].told = self.nodes[to].told.max(known);
        if !self.nodes[to].is_damaged {
            self.nodes[to].owed = self.nodes[to].owed.max(known);
        } else if offset >= self.nodes[to].owed && self.is_awaited(to, whole) {
            self.look(to);
            self.forget_damage(to);
        }
        let view = &self.nodes[node];
        let start = it.log_start_offset;
        let covered = || self.snapshots_of(node).max().unwrap_or(0);
        ensure!(
            start <= 0 || view.is_damaged || start <= covered(),
            "says that its log begins at {start}, but its newest snapshot ends at {}",
            covered()
        );
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
