//! What a broker fetches from one leader: which partitions, from where, and in which fetch session (KIP-227, as the client
//! has it).
//!
//! A request names the partitions whose position changed since the one before; the leader remembers the others. So a
//! request costs what has news, however many partitions are followed. A partition that waits (for a disk, or for the time
//! after an error) is taken out of the session, and doesn't hold the others up.

use std::collections::BTreeSet;

use ringlog_types::{LeaderEpoch, MonotonicMs, Offset, TopicIdPartition};
use rustc_hash::FxHashMap;

/// How far a follower has come, as its fetch says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// The epoch in which it follows.
    pub leader_epoch: LeaderEpoch,
    /// Where its log ends: everything below is on its device.
    pub fetch_offset: Offset,
    /// The epoch of the last record below; -1 when there is none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Where its log starts.
    pub log_start_offset: Offset,
}

/// A request's part about partitions and session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextFetch {
    /// 0: none yet.
    pub session_id: i32,
    /// 0: all partitions are named, and a new session is asked for.
    pub session_epoch: i32,
    /// Partitions with a new position, by topic.
    pub partitions: Vec<(TopicIdPartition, FetchPosition)>,
    /// Partitions that the session is to forget, by topic.
    pub forgotten: Vec<TopicIdPartition>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct LeaderFetch {
    session_id: i32,
    session_epoch: i32,
    followed: FxHashMap<TopicIdPartition, Followed>,
    /// Partitions to be looked at before the next request.
    changed: BTreeSet<TopicIdPartition>,
    /// When those come round again that wait for a time.
    delayed: BTreeSet<(MonotonicMs, TopicIdPartition)>,
    /// What the leader remembers of partitions that aren't followed any more.
    left: BTreeSet<TopicIdPartition>,
    /// How many the leader has been asked for.
    asked: usize,
    /// The last request was made while more had been fetched than throttles allow.
    is_throttling: bool,
}

/// More was fetched than throttles allow ([`crate::ReplicationQuota`]).
pub struct FollowerThrottle<'a> {
    /// When to look again.
    pub until: MonotonicMs,
    /// Whether a partition is throttled here.
    pub is_throttled: &'a dyn Fn(TopicIdPartition) -> bool,
}

#[derive(Debug, Clone, Copy)]
struct Followed {
    /// What the leader was told last, in this session.
    told: Option<FetchPosition>,
    wait: Wait,
    /// Failures that followed each other.
    failures: u8,
    /// It has all that the leader said is committed. Such a one is never throttled.
    is_in_sync: bool,
}

/// The wait after a first failure: a leader may not know yet that it is one. Doubled with each further one.
pub const FIRST_BACKOFF_MS: u64 = 20;

/// How long to wait after so many failures in a row.
pub fn backoff_ms(failures: u8, most_ms: u64) -> u64 {
    FIRST_BACKOFF_MS.saturating_mul(1 << failures.min(20)).min(most_ms)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// Until [`LeaderFetch::release`].
    Held,
    Until(MonotonicMs),
}

impl LeaderFetch {
    /// Whether no partition is followed.
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// How many are followed.
    pub fn len(&self) -> usize {
        self.followed.len()
    }

    /// A partition is to be followed, or in another epoch than before.
    pub fn follow(&mut self, id: TopicIdPartition) {
        let told = self.followed.get(&id).and_then(|known| known.told);
        self.wait(id, Followed { told, wait: Wait::No, failures: 0, is_in_sync: false });
        self.left.remove(&id);
    }

    /// A partition isn't followed any more.
    pub fn unfollow(&mut self, id: TopicIdPartition) {
        let Some(gone) = self.followed.remove(&id) else { return };
        self.forget_delay(id, gone.wait);
        self.changed.remove(&id);
        if gone.told.is_some() {
            self.asked -= 1;
            self.left.insert(id);
        }
    }

    /// Nothing is asked for of the partition until [`LeaderFetch::release`], or it is followed in another epoch.
    pub fn hold(&mut self, id: TopicIdPartition) {
        self.set_wait(id, Wait::Held);
    }

    /// Fetching the partition failed: nothing is asked for of it for a while, `most_ms` at most, as it has failed before.
    pub fn delay(&mut self, id: TopicIdPartition, now: MonotonicMs, most_ms: u64) {
        let Some(known) = self.followed.get_mut(&id) else { return };
        let wait_ms = backoff_ms(known.failures, most_ms);
        known.failures = known.failures.saturating_add(1);
        self.set_wait(id, Wait::Until(now.plus_ms(wait_ms)));
    }

    /// Fetching the partition succeeded; `is_in_sync`: its log has all that the leader said is committed.
    pub fn succeeded(&mut self, id: TopicIdPartition, is_in_sync: bool) {
        if let Some(known) = self.followed.get_mut(&id) {
            known.failures = 0;
            known.is_in_sync = is_in_sync;
        }
    }

    /// The partition was held, or something of it has changed.
    pub fn release(&mut self, id: TopicIdPartition) {
        self.set_wait(id, Wait::No);
    }

    fn set_wait(&mut self, id: TopicIdPartition, wait: Wait) {
        if let Some(known) = self.followed.get(&id).copied() {
            self.wait(id, Followed { wait, ..known });
        }
    }

    fn wait(&mut self, id: TopicIdPartition, now: Followed) {
        if let Some(before) = self.followed.insert(id, now) {
            self.forget_delay(id, before.wait);
        }
        if let Wait::Until(until) = now.wait {
            self.delayed.insert((until, id));
        }
        self.changed.insert(id);
    }

    fn forget_delay(&mut self, id: TopicIdPartition, wait: Wait) {
        if let Wait::Until(until) = wait {
            self.delayed.remove(&(until, id));
        }
    }

    /// When a partition comes round again.
    pub fn next_due(&self) -> Option<MonotonicMs> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// What the leader was told of the partition, if it was asked for it.
    pub fn told(&self, id: TopicIdPartition) -> Option<FetchPosition> {
        self.followed.get(&id)?.told
    }

    /// The next request; `None` when there is nothing to ask for. `position` knows how far a partition has come: `None`, that
    /// it can't be fetched now, and will be released.
    ///
    /// While a `throttle` is in force, throttled partitions that aren't in sync leave the session, until the time that it
    /// says.
    pub fn next(
        &mut self,
        now: MonotonicMs,
        throttle: Option<&FollowerThrottle<'_>>,
        mut position: impl FnMut(TopicIdPartition) -> Option<FetchPosition>,
    ) -> Option<NextFetch> {
        while let Some((_, id)) = self.delayed.first().copied().filter(|(at, _)| *at <= now) {
            self.release(id);
        }
        let is_full = self.session_epoch == 0;
        if is_full {
            self.changed.extend(self.followed.keys());
            self.left.clear();
        }
        let was_throttling = std::mem::replace(&mut self.is_throttling, throttle.is_some());
        if let Some(throttle) = throttle.filter(|_| !was_throttling) {
            // The leader would go on to send what it was asked for before.
            self.changed.extend(self.followed.keys().filter(|id| (throttle.is_throttled)(**id)));
        }
        let mut next = NextFetch {
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            partitions: Vec::new(),
            forgotten: std::mem::take(&mut self.left).into_iter().collect(),
        };
        for id in std::mem::take(&mut self.changed) {
            let Some(followed) = self.followed.get_mut(&id) else { continue };
            let before = if is_full { None } else { followed.told };
            if let Some(throttle) = throttle
                && followed.wait == Wait::No
                && !followed.is_in_sync
                && (throttle.is_throttled)(id)
            {
                followed.wait = Wait::Until(throttle.until);
                self.delayed.insert((throttle.until, id));
            }
            let wanted = if followed.wait == Wait::No { position(id) } else { None };
            self.asked = self.asked + usize::from(wanted.is_some()) - usize::from(followed.told.is_some());
            followed.told = wanted;
            match wanted {
                Some(wanted) if before != Some(wanted) => next.partitions.push((id, wanted)),
                Some(_) => {}
                None if before.is_some() => next.forgotten.push(id),
                None => {}
            }
        }
        if self.asked == 0 && next.forgotten.is_empty() {
            return None;
        }
        next.forgotten.sort_unstable();
        Some(next)
    }

    /// The answer came, in a session of that id.
    pub fn on_answer(&mut self, session_id: i32) {
        if session_id == 0 {
            // The leader keeps no session: everything is named each time.
            (self.session_id, self.session_epoch) = (0, 0);
            return;
        }
        self.session_id = session_id;
        self.session_epoch = if self.session_epoch == i32::MAX { 1 } else { self.session_epoch + 1 };
    }

    /// The leader doesn't know the session, or nobody knows what it made of the request: a new one takes its place.
    pub fn on_failure(&mut self, is_known_there: bool) {
        if !is_known_there {
            self.session_id = 0;
        }
        self.session_epoch = 0;
    }
}

#[cfg(test)]
mod tests {
    use ringlog_types::{PartitionIndex, Uuid};

    use super::*;

    fn id(partition: i32) -> TopicIdPartition {
        TopicIdPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(partition) }
    }

    fn at(offset: i64) -> FetchPosition {
        FetchPosition {
            leader_epoch: LeaderEpoch(3),
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch(3),
            log_start_offset: Offset(0),
        }
    }

    fn following(count: i32) -> LeaderFetch {
        let mut fetch = LeaderFetch::default();
        (0..count).for_each(|partition| fetch.follow(id(partition)));
        fetch
    }

    const NOW: MonotonicMs = MonotonicMs(1_000);

    #[test]
    fn the_first_request_names_all_and_later_ones_what_has_changed() {
        let mut fetch = following(3);
        let first = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
        assert_eq!((first.session_id, first.session_epoch, first.partitions.len()), (0, 0, 3));
        fetch.on_answer(77);
        let second = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
        assert_eq!((second.session_id, second.session_epoch), (77, 1));
        assert!(second.partitions.is_empty() && second.forgotten.is_empty());
        fetch.on_answer(77);
        fetch.release(id(1));
        let third = fetch.next(NOW, None, |_| Some(at(6))).unwrap();
        assert_eq!((third.session_epoch, third.partitions), (2, vec![(id(1), at(6))]));
    }

    #[test]
    fn who_waits_leaves_the_session_and_comes_back() {
        let mut fetch = following(3);
        fetch.next(NOW, None, |_| Some(at(5)));
        fetch.on_answer(77);
        fetch.hold(id(0));
        fetch.delay(id(2), NOW, 50);
        assert_eq!(fetch.next_due(), Some(NOW.plus_ms(20)));
        // The second time in a row.
        fetch.delay(id(2), NOW, 50);
        assert_eq!(fetch.next_due(), Some(NOW.plus_ms(40)));
        fetch.delay(id(2), NOW, 50);
        assert_eq!(fetch.next_due(), Some(NOW.plus_ms(50)));
        let next = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
        assert_eq!((next.partitions, next.forgotten), (vec![], vec![id(0), id(2)]));
        assert_eq!((fetch.told(id(0)), fetch.told(id(1))), (None, Some(at(5))));
        fetch.on_answer(77);
        fetch.release(id(0));
        let next = fetch.next(NOW.plus_ms(50), None, |_| Some(at(5))).unwrap();
        assert_eq!((next.partitions, next.forgotten), (vec![(id(0), at(5)), (id(2), at(5))], vec![]));
        assert_eq!(fetch.next_due(), None);
    }

    #[test]
    fn nothing_is_asked_for_when_all_wait_or_are_gone() {
        let mut fetch = following(2);
        assert_eq!(fetch.next(NOW, None, |_| None), None);
        fetch.release(id(0));
        fetch.release(id(1));
        fetch.next(NOW, None, |_| Some(at(5)));
        fetch.on_answer(77);
        fetch.unfollow(id(0));
        fetch.hold(id(1));
        // The leader is told once that it is to forget them.
        let next = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
        assert_eq!(next.forgotten, [id(0), id(1)]);
        fetch.on_answer(77);
        assert_eq!(fetch.next(NOW, None, |_| Some(at(5))), None);
        assert_eq!(fetch.len(), 1);
    }

    #[test]
    fn one_that_is_followed_again_is_not_forgotten() {
        let mut fetch = following(1);
        fetch.next(NOW, None, |_| Some(at(5)));
        fetch.on_answer(77);
        fetch.unfollow(id(0));
        fetch.follow(id(0));
        let next = fetch.next(NOW, None, |_| Some(at(9))).unwrap();
        assert_eq!((next.partitions, next.forgotten), (vec![(id(0), at(9))], vec![]));
    }

    #[test]
    fn after_a_failure_everything_is_named_again() {
        let mut fetch = following(2);
        fetch.next(NOW, None, |_| Some(at(5)));
        fetch.on_answer(77);
        fetch.unfollow(id(0));
        fetch.on_failure(true);
        let next = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
        assert_eq!((next.session_id, next.session_epoch), (77, 0));
        assert_eq!((next.partitions, next.forgotten), (vec![(id(1), at(5))], vec![]));
        fetch.on_failure(false);
        assert_eq!(fetch.next(NOW, None, |_| Some(at(5))).unwrap().session_id, 0);
    }

    #[test]
    fn a_leader_without_room_for_sessions_is_told_all_each_time() {
        let mut fetch = following(2);
        for _ in 0..3 {
            let next = fetch.next(NOW, None, |_| Some(at(5))).unwrap();
            assert_eq!((next.session_id, next.session_epoch, next.partitions.len()), (0, 0, 2));
            fetch.on_answer(0);
        }
    }

    #[test]
    fn throttled_partitions_leave_the_session_while_too_much_was_fetched_but_for_those_in_sync() {
        let mut fetch = following(4);
        fetch.next(NOW, None, |_| Some(at(5)));
        fetch.on_answer(77);
        fetch.succeeded(id(1), true);
        let (until, is_throttled) = (NOW.plus_ms(300), |of: TopicIdPartition| of != id(3));
        let throttle = FollowerThrottle { until, is_throttled: &is_throttled };
        let next = fetch.next(NOW, Some(&throttle), |_| Some(at(5))).unwrap();
        assert_eq!((next.partitions, next.forgotten), (vec![], vec![id(0), id(2)]), "also what had no news");
        fetch.on_answer(77);
        assert_eq!(fetch.next_due(), Some(until));
        // One falls behind meanwhile, and another one is followed.
        fetch.succeeded(id(1), false);
        fetch.release(id(1));
        fetch.follow(id(9));
        let next = fetch.next(NOW, Some(&throttle), |_| Some(at(6))).unwrap();
        assert_eq!((next.partitions, next.forgotten), (vec![], vec![id(1)]));
        fetch.on_answer(77);
        // Still too much: they wait on.
        let throttle = FollowerThrottle { until: until.plus_ms(100), is_throttled: &is_throttled };
        assert!(fetch.next(until, Some(&throttle), |_| Some(at(6))).unwrap().partitions.is_empty());
        fetch.on_answer(77);
        let next = fetch.next(until.plus_ms(100), None, |_| Some(at(6))).unwrap();
        let back = [0, 1, 2, 9].map(|partition| (id(partition), at(6)));
        assert_eq!((next.partitions, next.forgotten), (back.to_vec(), vec![]));
        assert_eq!(fetch.next_due(), None);
    }
}
