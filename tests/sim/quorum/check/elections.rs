//! Elections: one leader in an epoch, one vote per voter and epoch, epochs that only rise, and nothing said before it is
//! durable.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_quorum::QuorumNode;
use ringlog_types::Uuid;

use super::logs::DurableElection;
use super::{Checker, Checks, Found, holds};
use crate::quorum::network::CallId;
use crate::quorum::shared::Shared;

/// A node in the life of one directory: what votes.
pub(super) type VoterKey = (i32, Uuid);

/// A request for a vote that a node has to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub candidate: VoterKey,
    pub epoch: i32,
    pub is_pre_vote: bool,
    /// Epoch and end of the candidate's log.
    pub log: (i32, i64),
}

/// What was seen of all elections.
#[derive(Debug, Default)]
pub(crate) struct Elections {
    /// Leader by epoch.
    pub(super) leaders: BTreeMap<i32, i32>,
    /// Who got whose vote.
    votes: BTreeMap<(VoterKey, i32), VoterKey>,
    pub(super) asked: BTreeMap<(usize, CallId), Asked>,
}

impl Checks {
    /// Epoch and role after a step.
    pub(super) fn check_epoch(&mut self, shared: &Rc<Shared>, node: usize, machine: &QuorumNode) -> Found {
        let raft = machine.raft();
        let (epoch, now) = (raft.epoch().0, shared.now());
        let view = &mut self.nodes[node];
        holds!(Checker::Elections, epoch >= view.epoch, "its epoch falls from {} to {epoch}", view.epoch);
        view.epoch = epoch;
        // One that stops resigns in the step in which it wins.
        if raft.leader_id().is_some_and(|id| id.0 == view.id) {
            self.note_leader(shared, node, epoch)?;
        }
        let view = &mut self.nodes[node];
        if !raft.is_leader() {
            view.leads = None;
        } else if view.leads.is_none_or(|(led, _)| led != epoch) {
            view.leads = Some((epoch, now));
            view.heard.clear();
        }
        Ok(())
    }

    fn note_leader(&mut self, shared: &Rc<Shared>, node: usize, epoch: i32) -> Found {
        let view = &self.nodes[node];
        if let Some(leader) = self.elections.leaders.get(&epoch) {
            holds!(Checker::Elections, *leader == view.id, "leads epoch {epoch}, as {leader} does");
            return Ok(());
        }
        holds!(Checker::Elections, view.may_vote(), "leads epoch {epoch} while it rebuilds its log");
        let (end, committed) = (view.log.end(), self.committed.end_before_epoch(epoch));
        holds!(
            Checker::Elections,
            end >= committed,
            "leads epoch {epoch} with a log up to {end}, but {committed} was committed in epochs before"
        );
        self.elections.leaders.insert(epoch, view.id);
        self.stats.elections += 1;
        shared.note(node, || format!("leads epoch {epoch}"));
        Ok(())
    }

    /// What a node says in an epoch must not be forgotten by a restart.
    pub(super) fn check_durable_epoch(
        &mut self,
        shared: &Rc<Shared>,
        node: usize,
        epoch: i32,
    ) -> Result<Option<DurableElection>, (Checker, String)> {
        if epoch == 0 {
            return Ok(None);
        }
        let durable = Checks::durable_election(shared, node);
        let of_file = durable.map_or(0, |durable| durable.epoch);
        holds!(Checker::Durability, of_file >= epoch, "speaks in epoch {epoch}, its file says {of_file}");
        let view = &mut self.nodes[node];
        view.acted_epoch = view.acted_epoch.max(epoch);
        Ok(durable)
    }

    /// The node gave its vote away, perhaps to itself.
    pub(super) fn check_vote(&mut self, shared: &Rc<Shared>, node: usize, epoch: i32, candidate: VoterKey) -> Found {
        let view = &self.nodes[node];
        let voter = (view.id, view.directory);
        holds!(Checker::Elections, view.may_vote(), "votes in epoch {epoch} while it rebuilds its log");
        let given = *self.elections.votes.entry((voter, epoch)).or_insert(candidate);
        holds!(
            Checker::Elections,
            given == candidate,
            "votes for {} in epoch {epoch} and also for {}",
            given.0,
            candidate.0
        );
        let durable = self.check_durable_epoch(shared, node, epoch)?;
        let is_kept = durable.is_some_and(|it| it.epoch > epoch || it.voted == candidate.0 || it.leader == candidate.0);
        holds!(Checker::Durability, is_kept, "votes for {} in epoch {epoch}, its file says {durable:?}", candidate.0);
        Ok(())
    }

    /// A vote was granted to somebody else.
    pub(super) fn check_grant(&mut self, shared: &Rc<Shared>, node: usize, asked: Asked) -> Found {
        let (log, voter) = (&self.nodes[node].log, (self.nodes[node].id, self.nodes[node].directory));
        let own = (log.last_epoch(), log.end());
        // The same candidate may ask again, when it has even become the leader.
        let is_given = self.elections.votes.get(&(voter, asked.epoch)) == Some(&asked.candidate);
        holds!(
            Checker::Elections,
            asked.log >= own || is_given && !asked.is_pre_vote,
            "grants {} a vote for epoch {} with a log up to {:?}, behind its own {own:?}",
            asked.candidate.0,
            asked.epoch,
            asked.log
        );
        if asked.is_pre_vote {
            holds!(Checker::Elections, self.nodes[node].may_vote(), "grants a pre-vote while it rebuilds its log");
            return self.check_pre_vote(shared, node, asked);
        }
        self.check_vote(shared, node, asked.epoch, asked.candidate)
    }
}
