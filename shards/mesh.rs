//! How the cores of a node talk: a closure goes to another core, runs there on what that core owns, and its result
//! comes back. Nothing is shared; what travels is moved.
//!
//! Bounds: each ordered pair of cores has one queue of [`MESH_CAPACITY`] messages. A sender waits while it is full, so
//! a core that can't keep up slows those who ask it. Messages of one pair arrive and start in the order they were sent.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ringlog_ring as ring;
use slab::Slab;

use crate::shard::Shard;

/// Messages that may wait between one pair of cores.
pub const MESH_CAPACITY: usize = 1024;

/// A future that stays on its core.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What travels between cores: work for the receiver.
pub type Message = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// Calls to other cores whose answer is awaited here.
#[derive(Default)]
pub struct Calls {
    slots: RefCell<Slab<Rc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    answer: RefCell<Option<Box<dyn Any>>>,
    arrived: ring::Notify,
}

impl Calls {
    fn open(&self) -> (usize, Rc<Slot>) {
        let slot = Rc::new(Slot::default());
        (self.slots.borrow_mut().insert(slot.clone()), slot)
    }

    fn answer(&self, key: usize, answer: Box<dyn Any>) {
        // A slot is removed by its answer alone, so a key can't name another call's slot.
        let slot = self.slots.borrow_mut().remove(key);
        *slot.answer.borrow_mut() = Some(answer);
        slot.arrived.notify_all();
    }
}

impl Shard {
    /// Runs `work` on core `target` and returns what it gives.
    ///
    /// `work` itself runs in the order of sending; the future that it returns runs beside others. When `target` is
    /// this core, nothing travels.
    pub async fn invoke_on<T, W>(self: &Rc<Self>, target: usize, work: W) -> T
    where
        T: Send + 'static,
        W: FnOnce(&Rc<Shard>) -> LocalFuture<T> + Send + 'static,
    {
        self.begin_on(target, work).await.await
    }

    /// As [`Shard::invoke_on`], in two steps: the outer future ends when the work is on its way in order, the inner
    /// one when its result is there.
    pub async fn begin_on<T, W>(self: &Rc<Self>, target: usize, work: W) -> LocalFuture<T>
    where
        T: Send + 'static,
        W: FnOnce(&Rc<Shard>) -> LocalFuture<T> + Send + 'static,
    {
        if target == self.index {
            return work(self);
        }
        let (key, slot) = self.calls.open();
        let origin = self.index;
        let message: Message = Box::new(move |shard: &Rc<Shard>| {
            let result = work(shard);
            let shard = shard.clone();
            ring::spawn(async move {
                let value = result.await;
                let answer: Message =
                    Box::new(move |shard: &Rc<Shard>| shard.calls.answer(key, Box::new(value) as Box<dyn Any>));
                // A core that has stopped waits for nothing.
                let _ = shard.mesh.send(origin, answer).await;
            })
            .detach();
        });
        if self.mesh.send(target, message).await.is_err() {
            // The other core has stopped, as this one is about to: there is nothing to come.
            return Box::pin(std::future::pending());
        }
        Box::pin(async move {
            loop {
                if let Some(answer) = slot.answer.borrow_mut().take() {
                    return *answer.downcast::<T>().expect("an answer has the type of its call");
                }
                slot.arrived.wait().await;
            }
        })
    }
}

/// Takes messages from every other core and runs them, until the node stops.
pub async fn receive(shard: Rc<Shard>, peer: usize) {
    while let Some(message) = shard.mesh.recv_from(peer).await {
        message(&shard);
    }
}
