//! The replicas without a vote that fetch from a leader: all brokers of the cluster, thousands of them. No step looks at
//! all of them.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_types::{MonotonicMs, Now, Offset};

use super::leader::Progress;
use crate::voters::ReplicaKey;

/// Observers that are remembered at most; the one silent for longest makes room.
const MAX_OBSERVERS: usize = 10_000;
/// An observer is forgotten after this silence.
const EXPIRY_MS: u64 = 300_000;

/// Their progress, each found by its key and by how long it has been silent.
#[derive(Debug, Default)]
pub(super) struct Observers {
    progress: BTreeMap<ReplicaKey, Progress>,
    by_last_fetch: BTreeSet<(MonotonicMs, ReplicaKey)>,
}

impl Observers {
    /// One of them.
    pub fn get(&self, key: &ReplicaKey) -> Option<&Progress> {
        self.progress.get(key)
    }

    /// All of them, by their keys.
    pub fn values(&self) -> impl Iterator<Item = &Progress> {
        self.progress.values()
    }

    /// A valid fetch.
    pub fn on_fetch(&mut self, key: ReplicaKey, offset: Offset, leader_end: Offset, now: Now) {
        let mut progress = self.remove(&key).unwrap_or_else(|| Progress::new(key));
        progress.on_fetch(offset, leader_end, now);
        self.insert(progress);
    }

    /// Takes one in that is known already, such as a former voter. One that never fetched isn't remembered.
    pub fn insert(&mut self, progress: Progress) {
        let Some(last_fetch) = progress.last_fetch else { return };
        self.remove(&progress.key);
        if self.progress.len() >= MAX_OBSERVERS
            && let Some((_, silent)) = self.by_last_fetch.first().copied()
        {
            self.remove(&silent);
        }
        self.by_last_fetch.insert((last_fetch.monotonic, progress.key));
        self.progress.insert(progress.key, progress);
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &ReplicaKey) -> Option<Progress> {
        let progress = self.progress.remove(key)?;
        let last_fetch = progress.last_fetch.map(|at| at.monotonic);
        self.by_last_fetch.remove(&(last_fetch.unwrap_or(MonotonicMs(0)), *key));
        Some(progress)
    }

    /// Forgets those that have been silent for too long.
    pub fn expire(&mut self, now: MonotonicMs) {
        while let Some((last_fetch, key)) = self.by_last_fetch.first().copied()
            && now.since_ms(last_fetch) >= EXPIRY_MS
        {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::{NodeId, TimestampMs};

    use super::*;

    fn key(id: i32) -> ReplicaKey {
        ReplicaKey { id: NodeId(id), directory_id: None }
    }

    fn at(ms: u64) -> Now {
        Now { monotonic: MonotonicMs(ms), wall: TimestampMs(ms as i64) }
    }

    #[test]
    fn the_silent_make_room_and_are_forgotten() {
        let mut observers = Observers::default();
        for id in 0..MAX_OBSERVERS as i32 {
            observers.on_fetch(key(id), Offset(1), Offset(2), at(id as u64));
        }
        // The first of all asks again, so that the second is silent for longest.
        observers.on_fetch(key(0), Offset(2), Offset(2), at(20_000));
        observers.on_fetch(key(-7), Offset(2), Offset(2), at(20_001));
        assert!(
            observers.get(&key(1)).is_none() && observers.get(&key(0)).is_some() && observers.get(&key(-7)).is_some()
        );
        assert_eq!(observers.values().count(), MAX_OBSERVERS);
        observers.expire(MonotonicMs(9_999 + EXPIRY_MS));
        assert_eq!(observers.values().count(), 2);
        observers.expire(MonotonicMs(20_001 + EXPIRY_MS));
        assert_eq!((observers.values().count(), observers.by_last_fetch.len()), (0, 0));
    }
}
