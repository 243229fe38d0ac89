//! One queue of deadlines per coordinator.
//!
//! A session is prolonged with every heartbeat, so a deadline that moves back costs nothing: its entry in the queue
//! stays and is put in again when it comes up too early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringlog_protocol::StrBytes;
use ringlog_types::MonotonicMs;

/// What a deadline belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// A member's session.
    Session { group: StrBytes, member: StrBytes },
    /// A member id that was handed out and hasn't joined yet.
    PendingMember { group: StrBytes, member: StrBytes },
    /// The end of a group's join phase.
    Join { group: StrBytes },
    /// The end of a group's sync phase.
    Sync { group: StrBytes },
    /// The search for expired offsets.
    Expiry,
}

/// A deadline as its owner keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    at: Option<MonotonicMs>,
    /// The earliest entry in the queue that stands for it.
    queued: Option<MonotonicMs>,
}

impl Deadline {
    /// Cancels; the queue's entry finds nothing to do.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }
}

/// All deadlines of a coordinator: at most a few entries per [`Deadline`].
#[derive(Debug, Default)]
pub(crate) struct DeadlineQueue {
    heap: BinaryHeap<Reverse<(MonotonicMs, TimerKey)>>,
}

impl DeadlineQueue {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, deadline: &mut Deadline, key: TimerKey, at: MonotonicMs) {
        deadline.at = Some(at);
        if deadline.queued.is_none_or(|queued| at < queued) {
            deadline.queued = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// The earliest entry.
    pub(crate) fn next(&self) -> Option<MonotonicMs> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that has come up. Its owner is asked with [`Self::is_due`].
    pub(crate) fn pop(&mut self, now: MonotonicMs) -> Option<(MonotonicMs, TimerKey)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether the deadline of a popped entry has passed; one that moved back is put in again.
    pub(crate) fn is_due(
        &mut self,
        deadline: &mut Deadline,
        popped_at: MonotonicMs,
        key: &TimerKey,
        now: MonotonicMs,
    ) -> bool {
        if deadline.queued != Some(popped_at) {
            return false;
        }
        deadline.queued = None;
        match deadline.at {
            None => false,
            Some(at) if at <= now => {
                deadline.at = None;
                true
            }
            Some(at) => {
                self.set(deadline, key.clone(), at);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fires_once_and_only_when_it_is_due() {
        let mut queue = DeadlineQueue::default();
        let mut deadline = Deadline::default();
        let key = TimerKey::Expiry;
        queue.set(&mut deadline, key.clone(), MonotonicMs(10));
        queue.set(&mut deadline, key.clone(), MonotonicMs(30));
        assert_eq!(queue.pop(MonotonicMs(9)), None);
        let (at, popped) = queue.pop(MonotonicMs(10)).unwrap();
        assert!(!queue.is_due(&mut deadline, at, &popped, MonotonicMs(10)));
        queue.set(&mut deadline, key, MonotonicMs(20));
        let mut fired = 0;
        while let Some((at, popped)) = queue.pop(MonotonicMs(40)) {
            fired += u32::from(queue.is_due(&mut deadline, at, &popped, MonotonicMs(40)));
        }
        assert_eq!(fired, 1);
        assert_eq!(queue.next(), None);
    }
}
