//! Saves leader epochs that have changed, one replica after the other.
//!
//! When a broker stops, thousands of its partitions get another leader at once. Each has a checkpoint to write, and what is
//! appended to a partition waits for its own: that is written by the append, and finds no others before it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use ringlog_ring as ring;
use rustc_hash::FxHashSet;
use tracing::error;

use crate::core::Core;
use crate::data::replica::Replica;

/// See the module's text.
#[derive(Default)]
pub struct EpochCheckpoints {
    /// Each replica once, however often its leader changes meanwhile.
    waiting: RefCell<VecDeque<Rc<Replica>>>,
    known: RefCell<FxHashSet<*const Replica>>,
    added: ring::Notify,
}

impl EpochCheckpoints {
    /// The epochs of a replica have changed.
    pub fn add(&self, replica: Rc<Replica>) {
        if self.known.borrow_mut().insert(Rc::as_ptr(&replica)) {
            self.waiting.borrow_mut().push_back(replica);
            self.added.notify_all();
        }
    }

    async fn next(&self) -> Rc<Replica> {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(replica) => {
                    self.known.borrow_mut().remove(&Rc::as_ptr(&replica));
                    return replica;
                }
                None => self.added.wait().await,
            }
        }
    }
}

/// Begins, for the replicas of one core. A core that stops saves what is left with the other files of each replica.
pub fn start(core: &Core, checkpoints: Rc<EpochCheckpoints>) {
    core.spawn_until_stop(async move {
        loop {
            let replica = checkpoints.next().await;
            if let Err(fault) = replica.persist_leader_epochs().await {
                error!(partition = %replica.name, "leader epochs can't be written: {fault}");
            }
        }
    });
}
