//! Pre-votes (KIP-996): who stands has asked a majority before, and who is in touch with its leader isn't for it. So a
//! node that is cut off for a while doesn't disturb the others when it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::elections::{Asked, VoterKey};
use super::{Checker, Checks, Found, holds};
use crate::quorum::shared::Shared;
use crate::quorum::time::{MS, Us};

/// What was seen of pre-votes.
#[derive(Debug, Default)]
pub(super) struct Disruption {
    /// Who said that it would vote, by candidate and the epoch that it asked in.
    granted: BTreeMap<(VoterKey, i32), BTreeSet<i32>>,
    /// The epoch in which each node last heard that the leader has committed more, and when.
    in_touch: BTreeMap<usize, (i32, Us)>,
}

impl Checks {
    /// The node's high watermark rose, of which only the leader tells.
    pub(super) fn note_in_touch(&mut self, shared: &Rc<Shared>, node: usize) {
        self.disruption.in_touch.insert(node, (self.nodes[node].epoch, shared.now()));
    }

    /// The node would vote for the one who asks.
    pub(super) fn check_pre_vote(&mut self, shared: &Rc<Shared>, node: usize, asked: Asked) -> Found {
        let view = &self.nodes[node];
        let leader = self.elections.leaders.get(&asked.epoch);
        // From a leader whose log is damaged nothing more can be fetched.
        let leads = self
            .nodes
            .iter()
            .any(|it| Some(&it.id) == leader && it.leads.is_some_and(|led| led.0 == asked.epoch) && !it.is_damaged);
        // It may wait for this answer for half as long before it takes the leader for gone.
        let window = shared.plan.timeouts.fetch_ms * MS / 2;
        let is_in_touch =
            self.disruption.in_touch.get(&node).is_some_and(|(epoch, at)| {
                *epoch == asked.epoch && *at >= view.awake_since && at + window >= shared.now()
            });
        holds!(
            Checker::Elections,
            !leads || !is_in_touch,
            "grants {} a pre-vote in epoch {}, though it is in touch with its leader",
            asked.candidate.0,
            asked.epoch
        );
        self.disruption.granted.entry((asked.candidate, asked.epoch)).or_default().insert(view.id);
        Ok(())
    }

    /// The node asks for votes in `epoch`.
    pub(super) fn check_stands(&self, node: usize, epoch: i32) -> Found {
        let view = &self.nodes[node];
        let key = ((view.id, view.directory), epoch - 1);
        let granted = self.disruption.granted.get(&key).map_or(0, |granted| granted.len());
        let needed = view.log.voters().len() / 2;
        holds!(
            Checker::Elections,
            granted >= needed,
            "stands in epoch {epoch}, though only {granted} of {needed} others were for it"
        );
        Ok(())
    }
}
