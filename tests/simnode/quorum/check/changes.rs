//! Changes of the voters (KIP-853): a leader may change them once it has committed a record of its own epoch, and the change
//! before is committed, too; otherwise two leaders could count on majorities that have nobody in common. A set counts from
//! the moment its record is in the log, and no longer than it is; who isn't in the set that is committed leads no more.

use ringlog_protocol::messages::describe_quorum_response::PartitionData;
use ringlog_ring::sim::MS;
use ringlog_types::Uuid;

use super::super::disk_log::Entry;
use super::voters::VoterView;
use super::{Checks, Found, ensure};

/// How long a leader that was removed may take to resign.
const REMOVED_LEADS_NS: u64 = 1_000 * MS;
/// A leader that is asked for other voters asks the new one first what it speaks, and waits for that.
const ASKED_NS: u64 = 5_000 * MS;
/// How long a set of voters may be in force that isn't seen on the disk yet.
const UNSEEN_NS: u64 = 1_000 * MS;

impl Checks {
    /// Who votes by a node's log, as far as it was looked at.
    pub(super) fn own_voters(&self, node: usize) -> &VoterView {
        let log = &self.nodes[node].safe;
        let of_snapshot = || self.committed.voters_at(log.snapshot.map_or(0, |(end, _)| end));
        log.voters().or_else(of_snapshot).unwrap_or(self.committed.initial_voters())
    }

    /// A majority of the voters has what is committed. Which set counted isn't seen from outside: it is the one of what is
    /// committed now, or one that follows in the log of somebody who has all of it.
    pub(super) fn check_majority(&self, end: i64, new: &[Entry], holders: &[usize]) -> Found {
        let before = self.committed.present_voters();
        let named = new.iter().filter_map(|entry| entry.voters.as_ref());
        let later =
            holders.iter().flat_map(|node| self.nodes[*node].safe.from(end)).filter_map(|it| it.voters.as_ref());
        let sets: Vec<&VoterView> = [before].into_iter().chain(named).chain(later).collect();
        let is_enough = sets.iter().any(|set| {
            let votes = |node: &&usize| {
                let view = &self.nodes[**node];
                let of_old_disk =
                    view.lost.iter().any(|(directory, lost)| *lost >= end && set.holds(view.id, *directory));
                set.holds(view.id, view.directory) || of_old_disk
            };
            holders.iter().filter(votes).count() > set.count() / 2
        });
        // What the leader has just been asked for may count before it is seen on a disk.
        let is_changing = self.asked_to_change_ns.is_some_and(|at_ns| at_ns + ASKED_NS >= self.world.now_ns());
        let is_enough = is_enough || is_changing && holders.len() >= self.majority(before.count());
        let holders: Vec<i32> = holders.iter().map(|node| self.nodes[*node].id).collect();
        ensure!(
            is_enough,
            "says that {end} is committed, but above {} only {holders:?} of the voters {:?} have it durably",
            self.committed.end(),
            sets.last()
        );
        Ok(())
    }

    /// Looks at what a node's log says of voters beyond what is committed.
    pub(super) fn check_change(&mut self, node: usize) -> Found {
        if !self.is_dynamic || !self.nodes[node].is_controller {
            return Ok(());
        }
        self.look(node);
        let committed = self.committed.end();
        let log = &self.nodes[node].safe;
        let new = log.from(committed);
        if new.iter().all(|entry| entry.voters.is_none()) || self.nodes[node].is_damaged {
            return Ok(());
        }
        for other in 0..self.nodes.len() {
            self.look(other);
        }
        let log = &self.nodes[node].safe;
        let new = log.from(committed);
        let mut before = (-1, self.committed.present_voters());
        // Another log than the one that is committed says nothing of that.
        let is_the_same = self.committed.entries.last().is_none_or(|last| {
            let own = log.from(last.base).first();
            own.is_none_or(|own| own.base >= last.end || own.bytes == last.bytes)
        });
        if !is_the_same {
            return Ok(());
        }
        for (place, entry) in new.iter().enumerate() {
            let Some(voters) = &entry.voters else { continue };
            let (base, epoch) = (entry.base, entry.epoch);
            let difference = before.1.difference(voters);
            let is_first_set = before.0 < 0 && self.committed.voters.is_empty();
            ensure!(
                difference <= 1 || is_first_set,
                "the voters at {base} are {voters:?}, after {:?}: {difference} changes at once",
                before.1
            );
            // The batch that a leader's epoch begins with may name the voters, too.
            let earlier =
                place.checked_sub(1).map(|at| new[at].epoch).or(self.committed.entries.last().map(|it| it.epoch));
            let of_its_epoch = new[..place].iter().rfind(|it| it.epoch == epoch && it.voters.is_some());
            if earlier == Some(epoch) {
                let first = new.iter().find(|it| it.epoch == epoch);
                let is_committed = self.committed.has_of_epoch(epoch) || self.may_be_committed(first);
                ensure!(is_committed, "changes the voters at {base} before it has committed anything of epoch {epoch}");
                ensure!(
                    self.may_be_committed(of_its_epoch),
                    "changes the voters at {base}, but those at {:?} aren't committed",
                    of_its_epoch.map(|it| it.base)
                );
            }
            before = (base, voters);
        }
        Ok(())
    }

    /// Whether enough nodes have a batch for it to be committed; what isn't there is.
    fn may_be_committed(&self, entry: Option<&Entry>) -> bool {
        let Some(entry) = entry else { return true };
        let holds = |view: &&super::NodeView| {
            let own = view.safe.from(entry.base).first().is_some_and(|own| own.bytes == entry.bytes);
            view.is_controller
                && (own || view.safe.snapshot.is_some_and(|(end, _)| end > entry.base) || view.is_damaged)
        };
        let count = self.nodes.iter().filter(holds).count();
        count >= self.majority(self.committed.present_voters().count())
    }

    /// A node that isn't a voter by what is committed, nor by what it has beyond that, doesn't lead for long: only until
    /// the record that took it out is committed.
    pub(super) fn check_leader_votes(&mut self, node: usize, epoch: i32) -> Found {
        let now_ns = self.world.now_ns();
        let is_out = |checks: &Checks, set: &VoterView| {
            let view = &checks.nodes[node];
            !set.holds(view.id, view.directory)
        };
        if !is_out(self, self.committed.present_voters()) {
            return Ok(());
        }
        self.look(node);
        let view = &self.nodes[node];
        let begin_ns = self.committed.voters_changed_ns.max(view.awake_since_ns);
        let is_late = view.disturbances == 0 && now_ns.saturating_sub(begin_ns) > REMOVED_LEADS_NS;
        ensure!(
            !is_late || !is_out(self, self.own_voters(node)),
            "leads epoch {epoch}, though it was taken out of the voters {} ms ago",
            now_ns.saturating_sub(self.committed.voters_changed_ns) / MS
        );
        Ok(())
    }

    /// A candidate asks who is a voter by its own log, all of which is on its disk.
    pub(super) fn check_asks_voter(&mut self, node: usize, voter: i32, directory: Uuid, epoch: i32) -> Found {
        if voter < 0 || self.elections.leaders.contains_key(&epoch) || self.nodes[node].is_damaged {
            return Ok(());
        }
        self.look(node);
        let view = &self.nodes[node];
        let voters = self.own_voters(node);
        let is_voter = voters
            .iter()
            .any(|(id, known)| *id == voter && (directory.is_zero() || known.is_none_or(|known| known == directory)));
        ensure!(
            is_voter || view.is_hurt || view.acted > epoch,
            "asks {voter} with directory {directory} for its vote in epoch {epoch}, who isn't one of {voters:?}"
        );
        Ok(())
    }

    /// A leader says who votes.
    pub(super) fn check_described(&mut self, node: usize, told: &PartitionData) -> Found {
        if !self.is_dynamic {
            return Ok(());
        }
        let voters = told
            .current_voters
            .iter()
            .map(|it| (it.replica_id, (!it.replica_directory_id.is_zero()).then_some(it.replica_directory_id)));
        let told_voters = VoterView::initial(voters);
        self.check_change(node)?;
        let is_known = {
            let log = &self.nodes[node].safe;
            let committed = log.from(self.committed.end()).iter().filter_map(|entry| entry.voters.as_ref());
            let mut sets = committed.chain([self.committed.present_voters(), self.own_voters(node)]);
            sets.any(|set| set.difference(&told_voters) == 0)
        };
        let (now_ns, view) = (self.world.now_ns(), &mut self.nodes[node]);
        if is_known || view.is_damaged {
            view.unknown_voters = None;
            return Ok(());
        }
        let since_ns = match view.unknown_voters.take() {
            Some((epoch, set, since_ns)) if epoch == told.leader_epoch && set == told_voters => since_ns,
            _ => now_ns,
        };
        view.unknown_voters = Some((told.leader_epoch, told_voters, since_ns));
        // It may have been appended and not be written yet.
        let is_awake = view.disturbances == 0 && view.awake_since_ns < since_ns;
        ensure!(
            !is_awake || now_ns - since_ns <= UNSEEN_NS,
            "has the voters {:?} for {} ms, and its log says {:?}",
            self.nodes[node].unknown_voters,
            (now_ns - since_ns) / MS,
            self.own_voters(node)
        );
        Ok(())
    }
}
