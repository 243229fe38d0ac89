//! What has to happen, and soon.

use std::rc::Rc;

use super::{Checker, Checks, Found, holds};
use crate::quorum::host::Host;
use crate::quorum::shared::Shared;
use crate::quorum::time::{MS, Us};

/// A step of the schedule's clock, a tick of a node's, and what a process needs to hear of it.
const SLACK_US: Us = 60 * MS;
/// Work that takes longer than this keeps a node from noticing the time.
pub(super) const LONG_WORK_US: Us = 20 * MS;

impl Checks {
    /// Check-quorum: a leader whom nobody asks for 1.5 fetch timeouts gives up. One that a minority still asks may go on
    /// for once more as long, since what it heard before counts with what it hears then.
    pub(super) fn check_quorum_contact(&mut self, shared: &Rc<Shared>, hosts: &[Host]) -> Found {
        let now = shared.now();
        let timeout = shared.plan.timeouts.fetch_ms * MS * 3 / 2;
        let timeout = timeout + timeout / 100 + SLACK_US;
        for (node, view) in self.nodes.iter().enumerate() {
            let Some((epoch, since)) = view.leads else { continue };
            if !view.is_running || hosts[node].is_paused || view.busy_since.is_some() {
                continue;
            }
            self.check_leader_votes(shared, node)?;
            let begin = since.max(view.awake_since).max(view.log.voters_changed_at);
            let voters = view.log.voters();
            if voters.len() == 1 {
                continue;
            }
            let heard_for = |window: Us| {
                let heard = view
                    .heard
                    .iter()
                    .filter(|((id, directory), at)| **at + window >= now && voters.holds(*id, *directory));
                heard.count()
            };
            let needed = voters.len() / 2 + usize::from(!voters.holds(view.id, view.directory));
            for (window, least) in [(timeout, 1), (2 * timeout, needed)] {
                let heard = heard_for(window);
                holds!(
                    Checker::Liveness,
                    heard >= least || now.saturating_sub(begin) <= window,
                    "n{node} still leads epoch {epoch}, though only {heard} of {needed} others asked for {window} us"
                );
            }
        }
        Ok(())
    }
}
