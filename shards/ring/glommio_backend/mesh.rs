//! Messages between executors: one single-producer single-consumer queue per ordered pair.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use glommio::channels::shared_channel::{self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender};
use glommio::{GlommioError, ResourceType};

use crate::backend::tasks::{Task, spawn};
use crate::local::{LocalReceiver, LocalSender, TryLocalSendError, local_channel};
use crate::vocabulary::TrySendError;

/// The ends of all queues until their executors take them. Clone it into every executor.
pub struct MeshBuilder<M: Send>(Arc<Ends<M>>);

struct Ends<M: Send> {
    peers: usize,
    capacity: usize,
    /// `[from * peers + to]`; nothing on the diagonal.
    senders: Mutex<Vec<Option<SharedSender<M>>>>,
    receivers: Mutex<Vec<Option<SharedReceiver<M>>>>,
}

impl<M: Send> Clone for MeshBuilder<M> {
    fn clone(&self) -> Self {
        MeshBuilder(Arc::clone(&self.0))
    }
}

impl<M: Send + 'static> MeshBuilder<M> {
    /// Queues between `peers` executors, each of which holds up to `capacity` messages.
    pub fn new(peers: usize, capacity: usize) -> MeshBuilder<M> {
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for from in 0..peers {
            for to in 0..peers {
                let pair = (from != to).then(|| shared_channel::new_bounded(capacity));
                let (sender, receiver) = pair.unzip();
                senders.push(sender);
                receivers.push(receiver);
            }
        }
        let (senders, receivers) = (Mutex::new(senders), Mutex::new(receivers));
        MeshBuilder(Arc::new(Ends { peers, capacity, senders, receivers }))
    }

    /// Takes the ends of peer `index` and waits until all others have taken theirs. Once per index, on its executor.
    pub async fn join(&self, index: usize) -> MeshEndpoint<M> {
        assert!(index < self.0.peers, "the mesh has {} peers", self.0.peers);
        // Each end waits for its opposite: connect them all at a time, or two peers could wait for each other.
        let connecting: Vec<_> = (0..self.0.peers).map(|peer| self.connect(index, peer)).collect();
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for (sender, receiver) in connecting {
            senders.push(match sender {
                Some(task) => Some(task.await),
                None => None,
            });
            receivers.push(match receiver {
                Some(task) => Some(task.await),
                None => None,
            });
        }
        let (own_sender, own_receiver) = local_channel(self.0.capacity);
        MeshEndpoint(Rc::new(Endpoint { index, senders, receivers: RefCell::new(receivers), own_sender, own_receiver }))
    }

    #[allow(clippy::type_complexity, reason = "the two ends towards one peer, both optional")]
    fn connect(
        &self,
        index: usize,
        peer: usize,
    ) -> (Option<Task<ConnectedSender<M>>>, Option<Task<Rc<ConnectedReceiver<M>>>>) {
        if index == peer {
            return (None, None);
        }
        let sender = take(&self.0.senders, index * self.0.peers + peer);
        let receiver = take(&self.0.receivers, peer * self.0.peers + index);
        let receiver = async { Rc::new(receiver.connect().await) };
        (Some(spawn(sender.connect())), Some(spawn(receiver)))
    }
}

fn take<E>(ends: &Mutex<Vec<Option<E>>>, place: usize) -> E {
    let end = ends.lock().unwrap_or_else(PoisonError::into_inner)[place].take();
    end.expect("an executor joins the mesh once")
}

/// One executor's ends. Clones share them.
pub struct MeshEndpoint<M: Send>(Rc<Endpoint<M>>);

struct Endpoint<M: Send> {
    index: usize,
    senders: Vec<Option<ConnectedSender<M>>>,
    receivers: RefCell<Vec<Option<Rc<ConnectedReceiver<M>>>>>,
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
        self.0.senders.len()
    }

    /// Sends to a peer (or to itself), waiting while the queue is full. Gives the message back when the peer has ended.
    pub async fn send(&self, to: usize, message: M) -> Result<(), M> {
        let Some(sender) = &self.0.senders[to] else { return self.0.own_sender.send(message).await };
        match sender.send(message).await {
            Ok(()) => Ok(()),
            Err(error) => Err(returned(error)),
        }
    }

    /// Sends if the queue has room.
    pub fn try_send(&self, to: usize, message: M) -> Result<(), TrySendError<M>> {
        let Some(sender) = &self.0.senders[to] else {
            return self.0.own_sender.try_send(message).map_err(|error| match error {
                TryLocalSendError::Full(message) => TrySendError::Full(message),
                TryLocalSendError::Closed(message) => TrySendError::Closed(message),
            });
        };
        sender.try_send(message).map_err(|error| match error {
            GlommioError::WouldBlock(ResourceType::Channel(message)) => TrySendError::Full(message),
            error => TrySendError::Closed(returned(error)),
        })
    }

    /// The next message from a peer (or from itself); `None` once the peer has ended and its queue is empty. One task
    /// per peer receives.
    pub async fn recv_from(&self, peer: usize) -> Option<M> {
        let receiver = self.0.receivers.borrow()[peer].clone();
        match receiver {
            Some(receiver) => receiver.recv().await,
            None => self.0.own_receiver.recv().await,
        }
    }

    /// Ends sending: peers receive what is queued, then `None`.
    pub fn close(&self) {
        for sender in self.0.senders.iter().flatten() {
            sender.close();
        }
    }
}

fn returned<M>(error: GlommioError<M>) -> M {
    match error {
        GlommioError::Closed(ResourceType::Channel(message))
        | GlommioError::WouldBlock(ResourceType::Channel(message)) => message,
        _ => unreachable!("a channel's error carries the message"),
    }
}
