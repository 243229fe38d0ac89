//! Elections: one leader in an epoch, one vote per voter and epoch, epochs that only rise, nothing said before it is
//! durable, and nobody disturbs who is in touch with its leader (KIP-996).

use std::collections::{BTreeMap, BTreeSet};

use ringlog_protocol::messages::{VoteRequest, VoteResponse};
use ringlog_ring::sim::MS;
use ringlog_types::Uuid;

use super::super::disk_log::{self, Election};
use super::{Checks, Found, Wanted, ensure};

/// A node in the life of one directory: what votes.
type VoterKey = (i32, Uuid);

/// How late a node may notice that it leads no more, beside its time-outs.
const SLACK_NS: u64 = 200 * MS;

/// What was seen of all elections.
#[derive(Debug, Default)]
pub struct Elections {
    /// Leader by epoch.
    pub leaders: BTreeMap<i32, i32>,
    /// Who got whose vote.
    votes: BTreeMap<(VoterKey, i32), VoterKey>,
    /// Who said that it would vote, by candidate and the epoch that it asked in.
    granted: BTreeMap<(VoterKey, i32), BTreeSet<i32>>,
    /// The highest high watermark that was told, by epoch and listener.
    pub told: BTreeMap<(i32, usize), i64>,
}

impl Checks {
    /// How many votes a leader of that epoch needed at least. If it has changed the voters since, it isn't clear which set
    /// counted: neighbouring ones have one voter more or less.
    fn needed(&mut self, node: usize, epoch: i32) -> usize {
        self.look(node);
        let voters = self.own_voters(node).count();
        let last = self.nodes[node].safe.entries.iter().rev().find(|entry| entry.voters.is_some());
        if last.is_some_and(|last| last.epoch >= epoch) { self.majority(voters) } else { voters / 2 + 1 }
    }

    pub(super) fn majority(&self, voters: usize) -> usize {
        if self.is_dynamic { voters.saturating_sub(1) / 2 + usize::from(voters > 1) } else { voters / 2 + 1 }.max(1)
    }

    /// A node leads an epoch.
    pub(super) fn note_leader(&mut self, node: usize, epoch: i32) -> Found {
        let id = self.nodes[node].id;
        if let Some(leader) = self.elections.leaders.get(&epoch) {
            ensure!(*leader == id, "leads epoch {epoch}, as {leader} does");
            return Ok(());
        }
        let (needed, me) = (self.needed(node, epoch), (id, self.nodes[node].directory));
        let voters = self.elections.votes.iter().filter(|((_, of), to)| *of == epoch && **to == me);
        let mut voters: BTreeSet<i32> = voters.map(|((voter, _), _)| voter.0).collect();
        voters.insert(id);
        ensure!(voters.len() >= needed, "leads epoch {epoch} by the votes of {voters:?}, needed are {needed}");
        let (end, committed) = (self.nodes[node].safe.end(), self.committed.end_before_epoch(epoch));
        ensure!(
            end >= committed,
            "leads epoch {epoch} with a log up to {end}, but {committed} was committed in epochs before"
        );
        self.elections.leaders.insert(epoch, id);
        self.stats.elections += 1;
        self.see(Wanted::Leader, node);
        let now_ns = self.world.now_ns();
        self.nodes[node].leads = Some((epoch, now_ns));
        self.world.note(|| format!("node {id} leads epoch {epoch}"));
        Ok(())
    }

    /// A node says who leads, and answers as only the leader does.
    pub(super) fn check_claim(&mut self, node: usize, leader: i32, epoch: i32) -> Found {
        let id = self.nodes[node].id;
        ensure!(leader == id, "speaks for the leader {leader} of epoch {epoch}");
        self.note_leader(node, epoch)?;
        self.check_leader_votes(node, epoch)?;
        let found = self.check_contact(node, epoch);
        if found.is_ok() {
            return Ok(());
        }
        // A set of voters that isn't committed has its time, too.
        let (world, host) = (self.world.clone(), self.nodes[node].host);
        self.nodes[node].safe.look(&world, host);
        let own = self.nodes[node].safe.voters();
        if own.is_some_and(|own| own != self.committed.present_voters()) { Ok(()) } else { found }
    }

    /// Check-quorum: a leader whom nobody asks for 1.5 fetch time-outs gives up. One that a minority still asks may go on
    /// for once more as long, since what it heard before counts with what it hears then.
    fn check_contact(&self, node: usize, epoch: i32) -> Found {
        let view = &self.nodes[node];
        let Some((_, since_ns)) = view.leads.filter(|(led, _)| *led == epoch) else { return Ok(()) };
        let now_ns = self.world.now_ns();
        let timeout_ns = self.fetch_timeout_ns * 3 / 2 * 101 / 100 + SLACK_NS;
        let begin_ns = since_ns.max(view.awake_since_ns).max(self.committed.voters_changed_ns);
        let voters = self.committed.present_voters();
        if view.disturbances > 0 || voters.count() < 2 {
            return Ok(());
        }
        let needed = self.majority(voters.count()) - 1;
        for (window_ns, least) in [(timeout_ns, needed.min(1)), (2 * timeout_ns, needed)] {
            let is_heard = |key: &VoterKey, at_ns: u64| {
                at_ns + window_ns >= now_ns && key.0 != view.id && voters.holds(key.0, key.1)
            };
            let heard = view.heard.iter().filter(|(key, at_ns)| is_heard(key, **at_ns)).count();
            ensure!(
                heard >= least || now_ns.saturating_sub(begin_ns) <= window_ns,
                "still leads epoch {epoch}, though only {heard} of {needed} others asked for {} ms",
                window_ns / MS
            );
        }
        Ok(())
    }

    /// What a node says in an epoch must not be forgotten by a restart.
    pub(super) fn check_durable_epoch(&mut self, node: usize, epoch: i32) -> Result<Option<Election>, String> {
        if epoch == 0 {
            return Ok(None);
        }
        let durable = disk_log::election(&self.world, self.nodes[node].host);
        let of_file = durable.map_or(0, |durable| durable.epoch);
        ensure!(of_file >= epoch, "speaks in epoch {epoch}, its file says {of_file}");
        let view = &mut self.nodes[node];
        ensure!(of_file >= view.acted, "its file's epoch fell from {} to {of_file}", view.acted);
        view.acted = of_file;
        Ok(durable)
    }

    pub(super) fn check_vote_request(&mut self, node: usize, vote: &VoteRequest) -> Found {
        let Some(it) = vote.topics.first().and_then(|topic| topic.partitions.first()) else { return Ok(()) };
        let is_possible = match it.pre_vote {
            true => it.last_offset_epoch <= it.replica_epoch,
            false => it.last_offset_epoch < it.replica_epoch,
        };
        ensure!(
            is_possible && it.last_offset >= 0 && it.last_offset_epoch >= 0,
            "asks for a vote in epoch {} with a log up to {} of epoch {}",
            it.replica_epoch,
            it.last_offset,
            it.last_offset_epoch
        );
        // It has given its leader up.
        (self.nodes[node].in_touch, self.nodes[node].was_seeking) = (None, true);
        let candidate = (self.nodes[node].id, self.nodes[node].directory);
        self.check_asks_voter(node, vote.voter_id, it.voter_directory_id, it.replica_epoch)?;
        if it.pre_vote {
            return self.check_durable_epoch(node, it.replica_epoch).map(|_| ());
        }
        let granted = self.elections.granted.get(&(candidate, it.replica_epoch - 1)).map_or(0, BTreeSet::len);
        let needed = self.needed(node, it.replica_epoch);
        ensure!(
            granted + 1 >= needed,
            "stands in epoch {}, though only {granted} of {needed} others were for it",
            it.replica_epoch
        );
        let view = &self.nodes[node];
        let (end, is_hurt) = (view.safe.end(), view.is_hurt || view.is_damaged);
        // Who asked late for the vote of an election that it has lost may have cut its log since.
        let is_late = view.acted > it.replica_epoch || view.followed >= it.replica_epoch;
        ensure!(
            end >= it.last_offset || is_hurt || is_late,
            "asks for a vote in epoch {} with a log up to {}, of which only {end} is durable",
            it.replica_epoch,
            it.last_offset
        );
        self.check_vote(node, it.replica_epoch, candidate)
    }

    /// The node gave its vote away, perhaps to itself.
    fn check_vote(&mut self, node: usize, epoch: i32, candidate: VoterKey) -> Found {
        let voter = (self.nodes[node].id, self.nodes[node].directory);
        if voter != candidate {
            self.see(Wanted::Voter, node);
        }
        ensure!(
            !self.lacks_what_it_had(node),
            "votes for {} in epoch {epoch} while it lacks records below {}, which it had acknowledged",
            candidate.0,
            self.nodes[node].owed
        );
        let given = *self.elections.votes.entry((voter, epoch)).or_insert(candidate);
        ensure!(given == candidate, "votes for {} in epoch {epoch} and also for {}", given.0, candidate.0);
        let durable = self.check_durable_epoch(node, epoch)?;
        let is_kept = durable.is_some_and(|it| it.epoch > epoch || it.voted == candidate.0 || it.leader == candidate.0);
        ensure!(is_kept, "votes for {} in epoch {epoch}, its file says {durable:?}", candidate.0);
        Ok(())
    }

    pub(super) fn check_vote_answer(
        &mut self,
        node: usize,
        asked: &VoteRequest,
        answer: &VoteResponse,
        heard_ns: u64,
    ) -> Found {
        let (voter_id, asked) = (asked.voter_id, asked.topics.first().and_then(|topic| topic.partitions.first()));
        let answer = answer.topics.first().and_then(|topic| topic.partitions.first());
        let (Some(asked), Some(answer)) = (asked, answer) else { return Ok(()) };
        if answer.error_code != 0 || !answer.vote_granted {
            return Ok(());
        }
        ensure!(
            answer.leader_epoch == asked.replica_epoch,
            "grants a vote for epoch {} in epoch {}",
            asked.replica_epoch,
            answer.leader_epoch
        );
        let is_meant = voter_id < 0
            || voter_id == self.nodes[node].id
                && (asked.voter_directory_id.is_zero() || asked.voter_directory_id == self.nodes[node].directory);
        ensure!(
            is_meant,
            "grants {} the vote of {voter_id} with directory {}, which it isn't",
            asked.replica_id,
            asked.voter_directory_id
        );
        let candidate = (asked.replica_id, asked.replica_directory_id);
        let epoch = asked.replica_epoch;
        let (world, host) = (self.world.clone(), self.nodes[node].host);
        self.nodes[node].safe.look(&world, host);
        if asked.pre_vote {
            return self.check_pre_vote(node, candidate, epoch, heard_ns);
        }
        let voter = (self.nodes[node].id, self.nodes[node].directory);
        // The same candidate may ask again, when it has even become the leader.
        let is_given = self.elections.votes.get(&(voter, epoch)) == Some(&candidate);
        let own = self.nodes[node].safe.position_before(epoch);
        let log = (asked.last_offset_epoch, asked.last_offset);
        ensure!(
            log >= own || is_given,
            "grants {} a vote for epoch {epoch} with a log up to {log:?}, behind its own {own:?}",
            candidate.0
        );
        self.check_vote(node, epoch, candidate)
    }

    /// The node would vote for the one who asks.
    fn check_pre_vote(&mut self, node: usize, candidate: VoterKey, epoch: i32, heard_ns: u64) -> Found {
        let view = &self.nodes[node];
        let leader = self.elections.leaders.get(&epoch);
        let leads = self.elections.leaders.last_key_value().is_some_and(|(last, _)| *last == epoch)
            && self
                .nodes
                .iter()
                .any(|it| Some(&it.id) == leader && !it.is_damaged && it.leads.is_some_and(|led| led.0 == epoch));
        // It may wait for this answer for half as long before it takes the leader for gone.
        let (window_ns, now_ns) = (self.fetch_timeout_ns / 2, self.world.now_ns());
        // What came before it had taken the news in, it may have answered before, too.
        let is_in_touch = view.disturbances == 0
            && view.in_touch.is_some_and(|news| {
                news.epoch == epoch
                    && news.since_ns >= view.awake_since_ns
                    && news.since_ns + window_ns >= now_ns
                    && news.known_ns.is_some_and(|known_ns| known_ns <= heard_ns)
            });
        ensure!(
            !leads || !is_in_touch,
            "grants {} a pre-vote in epoch {epoch}, though it is in touch with its leader",
            candidate.0
        );
        self.elections.granted.entry((candidate, epoch)).or_default().insert(view.id);
        Ok(())
    }
}
