//! Replicas on their way to other directories (AlterReplicaLogDirs, KIP-113), as their home core keeps them. What is done to
//! them is in [`super::relocation`] and [`super::mover`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_ring as ring;
use ringlog_types::{TopicIdPartition, TopicPartition, Uuid};
use rustc_hash::FxHashMap;

use crate::data::replica::Replica;
use crate::flag::Flag;

/// Directories that are remembered for replicas that aren't there yet. More are forgotten: who asks asks again.
const PREFERRED_MAX: usize = 100_000;

/// The moves of one core.
#[derive(Default)]
pub(super) struct Moves {
    under_way: RefCell<FxHashMap<TopicIdPartition, Rc<Move>>>,
    /// Those that nobody works on.
    queue: RefCell<VecDeque<Rc<Move>>>,
    /// Another one is in the queue.
    pub arrived: ring::Notify,
    /// Where replicas are to be made that aren't there yet.
    preferred: RefCell<FxHashMap<TopicPartition, usize>>,
    /// What the controller is to be told.
    pub assignments: Rc<WantedAssignments>,
}

/// One replica on its way.
pub(super) struct Move {
    /// The replica in use.
    pub current: Rc<Replica>,
    /// The copy. Nobody else knows it.
    pub future: Rc<Replica>,
    /// Place of the directory that it lies in.
    pub target: usize,
    /// It was taken back, or is done.
    pub is_over: Flag,
    /// Held by who copies or takes back.
    pub turn: ring::ByteSemaphore,
}

/// Where replicas are about to lie, for whoever tells the controller.
#[derive(Default)]
pub struct WantedAssignments {
    waiting: RefCell<Vec<(Uuid, TopicIdPartition)>>,
    arrived: ring::Notify,
}

impl WantedAssignments {
    pub(super) fn add(&self, directory: Uuid, id: TopicIdPartition) {
        self.waiting.borrow_mut().push((directory, id));
        self.arrived.notify_all();
    }

    /// All that wait, as soon as there are some.
    pub async fn take(&self) -> Vec<(Uuid, TopicIdPartition)> {
        while self.waiting.borrow().is_empty() {
            self.arrived.wait().await;
        }
        self.waiting.take()
    }
}

impl Moves {
    /// Those that are under way, in no order.
    pub fn all(&self) -> Vec<Rc<Move>> {
        self.under_way.borrow().values().cloned().collect()
    }

    /// Their copies.
    pub fn futures(&self) -> Vec<Rc<Replica>> {
        self.under_way.borrow().values().map(|moving| moving.future.clone()).collect()
    }

    /// One that nobody works on.
    pub fn next(&self) -> Option<Rc<Move>> {
        self.queue.borrow_mut().pop_front()
    }

    /// It is to be worked on.
    pub fn put(&self, moving: Rc<Move>) {
        self.queue.borrow_mut().push_back(moving);
        self.arrived.notify_all();
    }

    /// A copy is there, and to be filled.
    pub fn begin(&self, current: &Rc<Replica>, future: Rc<Replica>, target: usize) {
        let turn = ring::ByteSemaphore::new(1);
        let moving = Rc::new(Move { current: current.clone(), future, target, is_over: Flag::default(), turn });
        let before = self.under_way.borrow_mut().insert(current.id, moving.clone());
        assert!(before.is_none(), "two copies of {}", current.id);
        self.put(moving);
    }

    /// It is under way no more.
    pub fn end(&self, id: TopicIdPartition) -> Option<Rc<Move>> {
        let ended = self.under_way.borrow_mut().remove(&id)?;
        ended.is_over.set();
        self.queue.borrow_mut().retain(|waiting| !Rc::ptr_eq(waiting, &ended));
        Some(ended)
    }

    /// A directory failed: what moves from there or to there stays where it is. The next start finds the copies.
    pub fn on_failed(&self, place: usize) {
        let is_lost = |moving: &Rc<Move>| moving.target == place || moving.current.log_dir() == place;
        for lost in self.all().into_iter().filter(is_lost) {
            self.end(lost.current.id);
            lost.future.close(Unserved::LogDirectoryFailed);
        }
    }

    /// The one of that replica.
    pub fn of(&self, id: TopicIdPartition) -> Option<Rc<Move>> {
        self.under_way.borrow().get(&id).cloned()
    }

    /// The replica is to be made at that place.
    pub fn prefer(&self, name: &TopicPartition, place: usize) {
        let mut preferred = self.preferred.borrow_mut();
        if preferred.len() < PREFERRED_MAX || preferred.contains_key(name) {
            preferred.insert(name.clone(), place);
        }
    }

    /// Where the replica is to be made, if somebody said so before.
    pub fn take_preferred(&self, name: &TopicPartition) -> Option<usize> {
        self.preferred.borrow_mut().remove(name)
    }
}
