//! Fetches that wait for something new. No step looks at all of them, nor answers more than a portion.
//!
//! A voter's fetch is answered as soon as the log grows. An observer's waits until something is committed, before which
//! it could do nothing with it: so it gets the records and the high watermark that covers them in one answer. With
//! thousands of brokers that is half of all messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringlog_types::{LeaderEpoch, MonotonicMs, NodeId, Offset};

use crate::event::ReplyToken;

/// A fetch that waits for records or a higher high watermark.
#[derive(Debug)]
pub(super) struct Parked {
    pub listener: String,
    /// Of the leader that was asked.
    pub epoch: LeaderEpoch,
    pub offset: Offset,
    pub max_bytes: u32,
    pub deadline: MonotonicMs,
}

/// All of them, and those whose turn to be answered has come.
#[derive(Debug, Default)]
pub(super) struct ParkedFetches {
    /// One of each voter.
    voters: BTreeMap<NodeId, (ReplyToken, Parked)>,
    others: BTreeMap<ReplyToken, Parked>,
    /// To be answered: whole waves, first come first served.
    due: VecDeque<BTreeMap<ReplyToken, Parked>>,
    /// Of voters, of others, and of those that are due.
    by_deadline: BTreeSet<(MonotonicMs, ReplyToken)>,
}

impl ParkedFetches {
    /// Lets a fetch wait, of a voter or somebody else. If `limit` wait already, the one that would be answered next for
    /// its time's sake is answered now: nobody is turned away, all wait a little less.
    pub fn park(&mut self, voter: Option<NodeId>, token: ReplyToken, parked: Parked, limit: usize) {
        if self.by_deadline.len() >= limit.max(1)
            && let Some((_, first)) = self.by_deadline.first().copied()
        {
            self.make_due(first);
        }
        self.by_deadline.insert((parked.deadline, token));
        let Some(voter) = voter else {
            self.others.insert(token, parked);
            return;
        };
        // Who asks again has given up its earlier request.
        if let Some((token, earlier)) = self.voters.insert(voter, (token, parked)) {
            self.due.push_back(BTreeMap::from([(token, earlier)]));
        }
    }

    /// Something was committed, or the leader is none any more: everybody is to know.
    pub fn wake_all(&mut self) {
        self.wake_voters(Offset(i64::MAX));
        if !self.others.is_empty() {
            self.due.push_back(std::mem::take(&mut self.others));
        }
    }

    /// The log grew: voters whose fetch began below `end` get the records, before all others.
    pub fn wake_voters(&mut self, end: Offset) {
        let behind = self.voters.iter().filter(|(_, (_, parked))| parked.offset < end);
        let behind: Vec<NodeId> = behind.map(|(voter, _)| *voter).collect();
        let wave: BTreeMap<ReplyToken, Parked> = behind.iter().filter_map(|voter| self.voters.remove(voter)).collect();
        if !wave.is_empty() {
            self.due.push_front(wave);
        }
    }

    /// Those that have waited for long enough are due.
    pub fn expire(&mut self, now: MonotonicMs) {
        while let Some((deadline, token)) = self.by_deadline.first().copied()
            && deadline <= now
        {
            self.make_due(token);
        }
    }

    fn make_due(&mut self, first: ReplyToken) {
        self.by_deadline.pop_first();
        let of_voter = self.voters.iter().find(|(_, (token, _))| *token == first).map(|(voter, _)| *voter);
        let parked = of_voter.and_then(|voter| self.voters.remove(&voter)).map(|(_, parked)| parked);
        // Else it is due already.
        if let Some(parked) = parked.or_else(|| self.others.remove(&first)) {
            match self.due.back_mut() {
                Some(wave) => drop(wave.insert(first, parked)),
                None => self.due.push_back(BTreeMap::from([(first, parked)])),
            }
        }
    }

    /// The next one to be answered.
    pub fn take_due(&mut self) -> Option<(ReplyToken, Parked)> {
        let wave = self.due.front_mut()?;
        let (token, parked) = wave.pop_first()?;
        if wave.is_empty() {
            self.due.pop_front();
        }
        self.by_deadline.remove(&(parked.deadline, token));
        Some((token, parked))
    }

    /// Whether answers are due.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When one has waited for long enough next.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(offset: i64, deadline: u64) -> Parked {
        Parked {
            listener: "CONTROLLER".to_owned(),
            epoch: LeaderEpoch(1),
            offset: Offset(offset),
            max_bytes: 1,
            deadline: MonotonicMs(deadline),
        }
    }

    fn due(fetches: &mut ParkedFetches) -> Vec<u64> {
        std::iter::from_fn(|| fetches.take_due()).map(|(token, _)| token.0).collect()
    }

    #[test]
    fn voters_wait_for_records_and_others_for_what_is_committed() {
        let mut fetches = ParkedFetches::default();
        fetches.park(None, ReplyToken(1), parked(5, 100), 10);
        fetches.park(Some(NodeId(2)), ReplyToken(2), parked(5, 100), 10);
        fetches.park(Some(NodeId(3)), ReplyToken(3), parked(6, 100), 10);
        fetches.wake_voters(Offset(6));
        assert_eq!(due(&mut fetches), [2]);
        fetches.wake_all();
        assert_eq!(due(&mut fetches), [3, 1]);
        assert_eq!((fetches.next_deadline(), fetches.has_due()), (None, false));
    }

    #[test]
    fn each_is_answered_once_when_its_time_is_up() {
        let mut fetches = ParkedFetches::default();
        for (token, deadline) in [(1, 300), (2, 100), (3, 200)] {
            fetches.park(None, ReplyToken(token), parked(5, deadline), 10);
        }
        fetches.expire(MonotonicMs(200));
        assert_eq!((due(&mut fetches), fetches.next_deadline()), (vec![2, 3], Some(MonotonicMs(300))));
        // It is due twice over.
        fetches.wake_all();
        fetches.expire(MonotonicMs(300));
        assert_eq!((due(&mut fetches), fetches.next_deadline()), (vec![1], None));
    }

    #[test]
    fn at_the_bound_who_has_waited_longest_is_answered() {
        let mut fetches = ParkedFetches::default();
        for token in 1..=4 {
            fetches.park(None, ReplyToken(token), parked(5, 100 + token), 2);
        }
        assert_eq!(fetches.by_deadline.len(), 2);
        assert_eq!(due(&mut fetches), [1, 2]);
        // A voter that asks again no longer waits for its earlier request.
        fetches.park(Some(NodeId(2)), ReplyToken(5), parked(5, 500), 9);
        fetches.park(Some(NodeId(2)), ReplyToken(6), parked(5, 500), 9);
        assert_eq!(due(&mut fetches), [5]);
        assert_eq!(fetches.voters.len() + fetches.others.len(), fetches.by_deadline.len());
    }
}
