//! One core of a node, as all of its rooms see it.
//!
//! A *room* is what a part of the node keeps on one core: the partitions and what serves them, the log directories, the
//! coordinators, … Each knows those that it rests on and no others ([`Room`]). What is here knows none of them.

use std::any::{Any, TypeId};
use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_ring as ring;
use ringlog_types::Random;

use crate::flag::Flag;
use crate::mesh::{Call, Calls, LocalFuture};
use crate::metrics::ShardMetrics;
use crate::node::Node;

/// What travels between cores: work for the receiver.
pub type Message = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// What a core is, whatever is kept on it.
pub struct Core {
    /// Its place in the mesh.
    pub index: usize,
    /// The node around it.
    pub node: Arc<Node>,
    /// Its ends of the queues to and from the other cores.
    pub mesh: ring::MeshEndpoint<Message>,
    /// Calls to other cores that wait for their answers.
    pub(crate) calls: Calls,
    /// By their types: a handful, so a list. Filled while the core is put together, empty again when it has stopped.
    rooms: RefCell<Vec<(TypeId, Rc<dyn Any>)>>,
    /// Tasks beside join it ([`Core::spawn`]); it closes when the core stops.
    pub gate: ring::Gate,
    /// Set when the node begins to stop: no new client is accepted.
    pub closing: Flag,
    /// Set when the controller has handed over: until then the quorum needs to reach it.
    pub controller_closing: Flag,
    /// Set when this core has nothing left to do.
    pub stopped: Flag,
    /// By which the node ends that must not go on.
    pub faults: OnceCell<ring::FaultSender>,
    /// For ids and jitter.
    pub random: RefCell<Random>,
    /// What this core counts.
    pub metrics: ShardMetrics,
}

impl Core {
    /// A core with nothing on it.
    pub fn new(index: usize, node: Arc<Node>, mesh: ring::MeshEndpoint<Message>, seed: u64) -> Rc<Core> {
        Rc::new(Core {
            index,
            node,
            mesh,
            calls: Calls::default(),
            rooms: RefCell::default(),
            gate: ring::Gate::new(),
            closing: Flag::default(),
            controller_closing: Flag::default(),
            stopped: Flag::default(),
            faults: OnceCell::new(),
            random: RefCell::new(Random::from_seed(seed)),
            metrics: ShardMetrics::default(),
        })
    }

    /// Runs `work` beside. The core waits for it when it stops; what comes after that isn't begun.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        // When the gate is closed nobody is left to notice.
        let _ = self.gate.spawn(work);
    }

    /// Runs `work` beside, until it ends or the core stops: then it is dropped where it waits.
    pub fn spawn_until_stop(&self, work: impl Future<Output = ()> + 'static) {
        let gate = self.gate.clone();
        self.spawn(async move { futures_lite::future::or(work, gate.closing()).await });
    }

    /// From now on other cores reach this room.
    pub fn open<R: Room>(&self, room: &Rc<R>) {
        self.rooms.borrow_mut().push((TypeId::of::<R>(), room.clone()));
    }

    /// The room of that type on this core; none before it is opened and after the core has stopped.
    pub fn room<R: Room>(&self) -> Option<Rc<R>> {
        let rooms = self.rooms.borrow();
        let (_, room) = rooms.iter().find(|(of, _)| *of == TypeId::of::<R>())?;
        room.clone().downcast().ok()
    }

    /// The core has stopped: nobody calls here any more.
    pub fn close_rooms(&self) {
        self.rooms.take();
    }

    /// The node must not go on: it stops, and the process ends with this reason and an error.
    pub fn fail(&self, reason: &str) {
        match self.faults.get() {
            Some(faults) => faults.send(reason.to_owned()),
            None => panic!("{reason}"),
        }
    }
}

/// What a part of the node keeps on each core. Cores call each other's rooms of the same type.
pub trait Room: Sized + 'static {
    /// The core that it is on.
    fn core(&self) -> &Rc<Core>;

    /// Runs `work` in this room of core `target` and returns what it gives.
    ///
    /// `work` itself runs in the order of sending; the future that it returns runs beside others. When `target` is this
    /// core, nothing travels.
    fn invoke_on<T, W>(self: &Rc<Self>, target: usize, work: W) -> impl Future<Output = T>
    where
        T: Send + 'static,
        W: FnOnce(&Rc<Self>) -> LocalFuture<T> + Send + 'static,
    {
        async move { self.begin_on(target, work).await.answer().await }
    }

    /// As [`Room::invoke_on`], in two steps: this ends when the work is on its way in order; [`Call::answer`], when its
    /// result is there.
    fn begin_on<T, W>(self: &Rc<Self>, target: usize, work: W) -> impl Future<Output = Call<T>>
    where
        T: Send + 'static,
        W: FnOnce(&Rc<Self>) -> LocalFuture<T> + Send + 'static,
    {
        async move {
            let core = self.core();
            if target == core.index {
                return Call::here(work(self));
            }
            let (key, call) = core.calls.open();
            let origin = core.index;
            let message: Message = Box::new(move |core: &Rc<Core>| {
                // A core that has stopped answers nobody.
                let Some(room) = core.room::<Self>() else { return };
                let result = work(&room);
                let here = core.clone();
                core.spawn(async move {
                    let value = result.await;
                    let answer: Message =
                        Box::new(move |core: &Rc<Core>| core.calls.answer(key, Box::new(value) as Box<dyn Any>));
                    // A core that has stopped waits for nothing.
                    let _ = here.mesh.send(origin, answer).await;
                });
            });
            if core.mesh.send(target, message).await.is_err() {
                // The other core has stopped, as this one is about to: there is nothing to come.
                return Call::here(Box::pin(std::future::pending()));
            }
            call
        }
    }

    /// Does `work` in this room of core `target`, as soon as it gets there, and waits until it is done.
    fn tell<W>(self: &Rc<Self>, target: usize, work: W) -> impl Future<Output = ()>
    where
        W: FnOnce(&Rc<Self>) + Send + 'static,
    {
        self.ask(target, work)
    }

    /// As [`Room::tell`], and gives what `work` gives.
    fn ask<T, W>(self: &Rc<Self>, target: usize, work: W) -> impl Future<Output = T>
    where
        T: Send + 'static,
        W: FnOnce(&Rc<Self>) -> T + Send + 'static,
    {
        self.invoke_on(target, move |room| -> LocalFuture<T> { Box::pin(std::future::ready(work(room))) })
    }
}

/// Takes messages from another core and runs them, until the node stops.
pub async fn receive(core: Rc<Core>, peer: usize) {
    while let Some(message) = core.mesh.recv_from(peer).await {
        message(&core);
        // A full queue gives one after the other, without a pause of its own.
        ring::yield_if_needed().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::log_dirs::tests::cluster::TestNode;

    #[test]
    fn calls_begin_in_the_order_of_sending_and_answers_come_back_to_their_callers() {
        TestNode::formatted().run(2, async |shard| {
            for target in [0, 1] {
                let mut calls = Vec::new();
                for _ in 0..100 {
                    let count = move |room: &Rc<crate::metadata::MetadataView>| -> LocalFuture<(usize, u64)> {
                        let core = room.core().clone();
                        let before = core.metrics.requests.get();
                        core.metrics.requests.add(1);
                        Box::pin(async move {
                            ring::yield_now().await;
                            (core.index, before)
                        })
                    };
                    calls.push(shard.metadata.begin_on(target, count).await);
                }
                for number in (0..100).rev() {
                    let call = calls.pop().expect("as many as were begun");
                    assert_eq!(call.answer().await, (target, number));
                }
            }
        });
    }

    #[test]
    fn a_core_that_stops_waits_for_its_tasks_and_drops_those_that_never_end() {
        TestNode::formatted().run(1, async |shard| {
            let (core, ended) = (shard.core.clone(), Rc::new(Cell::new(0)));
            let (gate, count) = (core.gate.clone(), ended.clone());
            core.spawn(async move {
                gate.closing().await;
                ring::yield_now().await;
                count.set(count.get() + 1);
            });
            core.spawn_until_stop(std::future::pending());
            core.gate.close().await;
            assert_eq!(ended.get(), 1);
            let count = ended.clone();
            core.spawn(async move { count.set(2) });
            assert_eq!(ended.get(), 1, "nothing is begun any more");
        });
    }

    #[test]
    fn what_is_kept_on_a_core_is_found_by_its_type_until_it_stops() {
        TestNode::formatted().run(1, async |shard| {
            let found = shard.core.room::<crate::metadata::MetadataView>().expect("it is open");
            assert!(Rc::ptr_eq(&found, &shard.metadata));
            assert!(shard.core.room::<crate::broker::lifecycle::Broker>().is_none(), "no core calls it");
            shard.core.close_rooms();
            assert!(shard.core.room::<crate::metadata::MetadataView>().is_none());
        });
    }
}
