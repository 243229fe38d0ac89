//! What is to happen, by time; at one time in the order in which it was decided.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::core::Core;
use super::disk::device::Operation;
use super::tcp::stream::StreamEvent;
use super::timer::Timer;
use super::waker::TaskWaker;

/// Something that happens.
pub(crate) enum Event {
    /// A core may run a task.
    Run(Rc<Core>),
    /// A task is woken by another core.
    WakeTask(Arc<TaskWaker>),
    /// Whoever waits is woken.
    Wake(Waker),
    /// A time has come.
    Timer(Rc<Timer>),
    /// An operation of a disk ends.
    Disk(Rc<Operation>),
    /// Something about a connection.
    Stream(StreamEvent),
    /// Anything else.
    Call(Box<dyn FnOnce()>),
}

struct Entry {
    at_ns: u64,
    number: u64,
    event: Event,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<Entry>>,
    posted: u64,
}

impl Schedule {
    pub fn post(&mut self, at_ns: u64, event: Event) {
        self.posted += 1;
        self.heap.push(Reverse(Entry { at_ns, number: self.posted, event }));
    }

    /// When the next thing happens.
    pub fn next_at_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.at_ns)
    }

    /// The next thing, unless it happens after `until_ns`.
    pub fn pop(&mut self, until_ns: u64) -> Option<(u64, Event)> {
        if self.next_at_ns()? > until_ns {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at_ns, entry.event))
    }

    /// Everything, to be dropped.
    pub fn take_all(&mut self) -> Vec<Event> {
        self.heap.drain().map(|Reverse(entry)| entry.event).collect()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_ns, self.number).cmp(&(other.at_ns, other.number))
    }
}
