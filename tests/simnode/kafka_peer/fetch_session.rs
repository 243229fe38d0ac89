//! The fetch session that a follower keeps with its leader, as Kafka's `FetchSessionHandler` does (KIP-227).

use std::collections::{BTreeMap, BTreeSet};

use ringlog_types::ErrorCode;

use super::disk::Key;
use super::following::Position;

/// See the module's text.
#[derive(Debug, Default)]
pub struct FetchSession {
    id: i32,
    epoch: i32,
    /// What the leader knows.
    told: BTreeMap<Key, Position>,
}

/// A request's part of it.
#[derive(Debug)]
pub struct Next {
    /// 0: none yet.
    pub id: i32,
    /// 0: all are named.
    pub epoch: i32,
    /// Those whose position the leader doesn't know.
    pub named: Vec<(Key, Position)>,
    /// Those that it may forget.
    pub forgotten: Vec<Key>,
}

impl FetchSession {
    /// The next request, for these partitions in that order.
    pub fn next(&mut self, positions: &[(Key, Position)]) -> Next {
        let is_full = self.epoch == 0;
        let before = std::mem::take(&mut self.told);
        self.told = positions.iter().copied().collect();
        let is_named = |(key, position): &&(Key, Position)| is_full || before.get(key) != Some(position);
        let gone = before.keys().filter(|key| !is_full && !self.told.contains_key(key));
        Next {
            id: self.id,
            epoch: self.epoch,
            named: positions.iter().filter(is_named).copied().collect(),
            forgotten: gone.copied().collect(),
        }
    }

    /// An answer about these partitions came, in a session; 0 for none. An answer to a request that named all has to have
    /// all, and no answer may have others.
    pub fn on_answer(&mut self, id: i32, answered: &BTreeSet<Key>) -> Result<(), String> {
        let asked: BTreeSet<Key> = self.told.keys().copied().collect();
        let is_full = self.epoch == 0;
        if let Some(other) = answered.difference(&asked).next() {
            self.on_failure();
            return Err(format!("{other:?} is answered, which wasn't asked for"));
        }
        if let Some(missing) = asked.difference(answered).next().filter(|_| is_full) {
            self.on_failure();
            return Err(format!("a fetch of all is answered without {missing:?}"));
        }
        if !is_full && id != self.id && id != 0 {
            self.on_failure();
            return Err(format!("session {} is answered as {id}", self.id));
        }
        match id {
            0 => *self = FetchSession::default(),
            id => {
                self.id = id;
                self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
            }
        }
        Ok(())
    }

    /// The leader refuses it.
    pub fn on_refusal(&mut self, error: ErrorCode) {
        if error == ErrorCode::FetchSessionIdNotFound {
            self.id = 0;
        }
        self.epoch = 0;
    }

    /// Nobody knows what the leader made of a request.
    pub fn on_failure(&mut self) {
        self.epoch = 0;
    }
}
