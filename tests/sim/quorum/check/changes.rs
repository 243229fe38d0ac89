//! When a leader may change the voter set (KIP-853): once it has committed a record of its own epoch, and the change
//! before is committed, too. Otherwise two leaders could count on majorities that have nobody in common.

use super::{Checker, Checks, Found, holds};

impl Checks {
    /// A record at `base` that sets the voters has just been appended to the node's log.
    pub(super) fn check_change(&self, node: usize, base: i64, epoch: i32) -> Found {
        let view = &self.nodes[node];
        // The batch that a leader's epoch begins with may name the voters, too.
        let is_first = view.log.entries.iter().rev().nth(1).is_none_or(|before| before.epoch < epoch);
        if self.elections.leaders.get(&epoch) != Some(&view.id) || is_first {
            return Ok(());
        }
        let own = view.to_commit.map(|commit| commit.end);
        let has_committed = self.committed.ends.contains_key(&epoch) || own.is_some();
        holds!(
            Checker::Voters,
            has_committed,
            "changes the voters at {base} before it has committed anything of epoch {epoch}"
        );
        let committed = self.committed.end().max(own.unwrap_or(0));
        let before = view.log.voters.last().map_or(-1, |(offset, _)| *offset);
        holds!(
            Checker::Voters,
            before < committed,
            "changes the voters at {base}, but those of {before} aren't committed, only what is below {committed}"
        );
        Ok(())
    }
}
