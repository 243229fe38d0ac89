//! Messages between executors: one single-producer single-consumer queue per ordered pair.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::schedule::Event;
use super::trace::Kind;
use super::world;
use crate::local::{LocalReceiver, LocalSender, TryLocalSendError, local_channel};
use crate::vocabulary::TrySendError;

/// The ends of all queues until their executors take them. Clone it into every executor.
pub struct MeshBuilder<M: Send>(Arc<Ends<M>>);

struct Ends<M: Send> {
    peers: usize,
    capacity: usize,
    /// `[from * peers + to]`; those on the diagonal aren't used.
    queues: Vec<Mutex<Queue<M>>>,
    joined: Mutex<Joined>,
}

struct Joined {
    has_joined: Vec<bool>,
    waiters: Vec<Waker>,
}

struct Queue<M> {
    /// With the time at which the receiver can see them.
    messages: VecDeque<(u64, M)>,
    capacity: usize,
    last_ns: u64,
    is_closed_by_sender: bool,
    is_closed_by_receiver: bool,
    receiver: Option<Waker>,
    /// Whoever waits for room; all are woken, and one gets it.
    senders: Vec<Waker>,
}

fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Send> Clone for MeshBuilder<M> {
    fn clone(&self) -> Self {
        MeshBuilder(Arc::clone(&self.0))
    }
}

impl<M: Send + 'static> MeshBuilder<M> {
    /// Queues between `peers` executors, each of which holds up to `capacity` messages.
    pub fn new(peers: usize, capacity: usize) -> MeshBuilder<M> {
        let queue = || Queue {
            messages: VecDeque::new(),
            capacity,
            last_ns: 0,
            is_closed_by_sender: false,
            is_closed_by_receiver: false,
            receiver: None,
            senders: Vec::new(),
        };
        let queues = (0..peers * peers).map(|_| Mutex::new(queue())).collect();
        let joined = Mutex::new(Joined { has_joined: vec![false; peers], waiters: Vec::new() });
        MeshBuilder(Arc::new(Ends { peers, capacity, queues, joined }))
    }

    /// Takes the ends of peer `index` and waits until all others have taken theirs. Once per index, on its executor.
    pub async fn join(&self, index: usize) -> MeshEndpoint<M> {
        assert!(index < self.0.peers, "the mesh has {} peers", self.0.peers);
        let waiters = {
            let mut joined = lock(&self.0.joined);
            let before = std::mem::replace(&mut joined.has_joined[index], true);
            assert!(!before, "an executor joins the mesh once");
            std::mem::take(&mut joined.waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
        let (own_sender, own_receiver) = local_channel(self.0.capacity);
        let endpoint = MeshEndpoint(Rc::new(Endpoint { index, ends: self.0.clone(), own_sender, own_receiver }));
        poll_fn(|context| {
            let mut joined = lock(&self.0.joined);
            if joined.has_joined.iter().all(|has_joined| *has_joined) {
                return Poll::Ready(());
            }
            joined.waiters.push(context.waker().clone());
            Poll::Pending
        })
        .await;
        endpoint
    }
}

/// One executor's ends. Clones share them.
pub struct MeshEndpoint<M: Send>(Rc<Endpoint<M>>);

struct Endpoint<M: Send> {
    index: usize,
    ends: Arc<Ends<M>>,
    own_sender: LocalSender<M>,
    own_receiver: LocalReceiver<M>,
}

impl<M: Send> Clone for MeshEndpoint<M> {
    fn clone(&self) -> Self {
        MeshEndpoint(Rc::clone(&self.0))
    }
}

impl<M: Send + 'static> MeshEndpoint<M> {
    /// This executor's number in the mesh.
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// How many executors the mesh has.
    pub fn peers(&self) -> usize {
        self.0.ends.peers
    }

    /// Sends to a peer (or to itself), waiting while the queue is full. Gives the message back when the peer has ended.
    pub async fn send(&self, to: usize, message: M) -> Result<(), M> {
        if to == self.0.index {
            return self.0.own_sender.send(message).await;
        }
        let mut message = Some(message);
        poll_fn(|context| {
            let Some(sent) = message.take() else { return Poll::Pending };
            match self.0.push(to, sent, Some(context)) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(back)) => Poll::Ready(Err(back)),
                Err(TrySendError::Full(back)) => {
                    message = Some(back);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Sends if the queue has room.
    pub fn try_send(&self, to: usize, message: M) -> Result<(), TrySendError<M>> {
        if to == self.0.index {
            return self.0.own_sender.try_send(message).map_err(|error| match error {
                TryLocalSendError::Full(message) => TrySendError::Full(message),
                TryLocalSendError::Closed(message) => TrySendError::Closed(message),
            });
        }
        self.0.push(to, message, None)
    }

    /// The next message from a peer (or from itself); `None` once the peer has ended and its queue is empty. One task
    /// per peer receives.
    pub async fn recv_from(&self, peer: usize) -> Option<M> {
        if peer == self.0.index {
            return self.0.own_receiver.recv().await;
        }
        poll_fn(|context| self.0.pop(peer, context)).await
    }

    /// Ends sending: peers receive what is queued, then `None`.
    pub fn close(&self) {
        self.0.close_senders();
    }
}

impl<M: Send> Endpoint<M> {
    fn queue(&self, from: usize, to: usize) -> MutexGuard<'_, Queue<M>> {
        lock(&self.ends.queues[from * self.ends.peers + to])
    }

    fn push(&self, to: usize, message: M, waiting: Option<&Context<'_>>) -> Result<(), TrySendError<M>> {
        let world = world::world();
        let mut queue = self.queue(self.index, to);
        if queue.is_closed_by_receiver || queue.is_closed_by_sender {
            return Err(TrySendError::Closed(message));
        }
        if queue.messages.len() >= queue.capacity {
            if let Some(context) = waiting {
                queue.senders.push(context.waker().clone());
            }
            return Err(TrySendError::Full(message));
        }
        let delay_ns = world.streams.cores.between(world.settings.cores.between_cores_ns);
        let seen_at_ns = (world.local_ns() + delay_ns).max(queue.last_ns);
        queue.last_ns = seen_at_ns;
        queue.messages.push_back((seen_at_ns, message));
        world.trace.hash(Kind::Sent, seen_at_ns, self.index as u64, to as u64);
        if let Some(receiver) = queue.receiver.take() {
            world.post(seen_at_ns, Event::Wake(receiver));
        }
        Ok(())
    }

    fn pop(&self, peer: usize, context: &Context<'_>) -> Poll<Option<M>> {
        let mut queue = self.queue(peer, self.index);
        let world = world::world();
        match queue.messages.front() {
            Some((seen_at_ns, _)) if *seen_at_ns <= world.local_ns() => {
                let (_, message) = queue.messages.pop_front().expect("there is a first one");
                let senders = std::mem::take(&mut queue.senders);
                drop(queue);
                senders.into_iter().for_each(Waker::wake);
                Poll::Ready(Some(message))
            }
            Some((seen_at_ns, _)) => {
                world.post(*seen_at_ns, Event::Wake(context.waker().clone()));
                Poll::Pending
            }
            None if queue.is_closed_by_sender => Poll::Ready(None),
            None => {
                queue.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn close_senders(&self) {
        for to in (0..self.ends.peers).filter(|to| *to != self.index) {
            let (receiver, senders) = {
                let mut queue = self.queue(self.index, to);
                queue.is_closed_by_sender = true;
                (queue.receiver.take(), std::mem::take(&mut queue.senders))
            };
            receiver.into_iter().chain(senders).for_each(Waker::wake);
        }
    }
}

impl<M: Send> Drop for Endpoint<M> {
    fn drop(&mut self) {
        self.close_senders();
        for from in (0..self.ends.peers).filter(|from| *from != self.index) {
            let (messages, senders) = {
                let mut queue = self.queue(from, self.index);
                queue.is_closed_by_receiver = true;
                (std::mem::take(&mut queue.messages), std::mem::take(&mut queue.senders))
            };
            drop(messages);
            senders.into_iter().for_each(Waker::wake);
        }
    }
}
