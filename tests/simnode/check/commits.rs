//! Offsets that consumers committed.

use std::collections::BTreeMap;

/// A group's partition.
type Key = (String, usize, i32);

#[derive(Debug, Default)]
struct Commit {
    acknowledged: Option<i64>,
    /// Since then the power of the coordinator failed or a commit's outcome is unknown: any of these may stand.
    possible: Vec<i64>,
    /// Nothing was promised for a power failure: any that was ever committed may stand again, or none.
    is_any: bool,
}

/// See the module's text. Each partition of a group is committed by one client, one offset after the other.
#[derive(Debug, Default)]
pub struct Commits {
    commits: BTreeMap<Key, Commit>,
    void_before_ns: u64,
    /// How many were acknowledged.
    pub answers: u64,
}

impl Commits {
    /// An offset is about to be committed.
    pub fn on_attempt(&mut self, key: &Key, offset: i64) {
        let commit = self.commits.entry(key.clone()).or_default();
        if commit.possible.last() != Some(&offset) {
            commit.possible.push(offset);
        }
    }

    /// It was acknowledged. An attempt before it may still be under way on a connection that failed.
    pub fn on_acknowledged(&mut self, key: &Key, offset: i64, opened_at_ns: u64, is_first_try: bool) {
        self.answers += 1;
        let is_void = opened_at_ns < self.void_before_ns;
        let commit = self.commits.entry(key.clone()).or_default();
        if is_void {
            return;
        }
        commit.acknowledged = Some(offset);
        commit.is_any = false;
        if is_first_try {
            commit.possible.clear();
        }
    }

    /// The power of brokers failed that promised nothing for that case.
    pub fn on_loss(&mut self, now_ns: u64) {
        self.void_before_ns = now_ns;
        for commit in self.commits.values_mut() {
            commit.acknowledged = None;
            commit.is_any = true;
        }
    }

    /// What a fetch of the committed offset gave; -1 for none.
    pub fn check(&mut self, key: &Key, found: i64) -> Result<(), String> {
        let Some(commit) = self.commits.get_mut(key) else { return Ok(()) };
        let is_right = commit.is_any
            || match commit.acknowledged {
                Some(offset) => found == offset || commit.possible.contains(&found),
                None => found == -1 || commit.possible.contains(&found),
            };
        match is_right {
            true => Ok(()),
            false => Err(format!("{key:?}: {found} is committed, after {commit:?}")),
        }
    }

    /// Those that were asked about.
    pub fn keys(&self) -> Vec<Key> {
        self.commits.keys().cloned().collect()
    }
}
