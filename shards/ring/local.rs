//! Waiting and handing over between tasks of one executor. No atomics: nothing here is `Send`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes tasks that wait for a condition to change. Clones share the waiters.
///
/// Waiters are woken in the order in which they came. A `notify_one` that finds nobody is kept for the next waiter (one
/// only); `notify_all` reaches those that wait now. Check the condition, then `wait().await` without another `await`
/// between: then no wake-up is lost.
#[derive(Clone, Default)]
pub struct Notify(Rc<RefCell<NotifyState>>);

#[derive(Default)]
struct NotifyState {
    next_id: u64,
    stored: bool,
    waiting: BTreeMap<u64, Waker>,
}

impl Notify {
    /// One that nobody waits for.
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes the first waiter, or the next that comes when there is none.
    pub fn notify_one(&self) {
        let first = {
            let mut state = self.0.borrow_mut();
            let first = state.waiting.pop_first();
            if first.is_none() {
                state.stored = true;
            }
            first
        };
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Wakes all that wait now.
    pub fn notify_all(&self) {
        let waiting = std::mem::take(&mut self.0.borrow_mut().waiting);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Waits to be woken.
    pub fn wait(&self) -> Notified<'_> {
        Notified { notify: self, id: None }
    }

    /// Tasks that wait now.
    pub fn waiters(&self) -> usize {
        self.0.borrow().waiting.len()
    }
}

/// Resolves when notified; see [`Notify::wait`].
#[must_use = "waits only when awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    id: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.notify.0.borrow_mut();
        match self.id {
            None => {
                if state.stored {
                    state.stored = false;
                    return Poll::Ready(());
                }
                let id = state.next_id;
                state.next_id += 1;
                state.waiting.insert(id, context.waker().clone());
                drop(state);
                self.id = Some(id);
                Poll::Pending
            }
            Some(id) => match state.waiting.get_mut(&id) {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => {
                    drop(state);
                    self.id = None;
                    Poll::Ready(())
                }
            },
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let was_waiting = self.notify.0.borrow_mut().waiting.remove(&id).is_some();
        if !was_waiting && self.notify.waiters() > 0 {
            // Woken but dropped before it looked: the wake-up belongs to the next.
            self.notify.notify_one();
        }
    }
}

struct ChannelState<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver: bool,
}

struct ChannelShared<T> {
    state: RefCell<ChannelState<T>>,
    room: Notify,
    arrival: Notify,
}

/// A bounded queue between tasks of one executor.
pub fn local_channel<T>(capacity: usize) -> (LocalSender<T>, LocalReceiver<T>) {
    assert!(capacity > 0, "a channel holds at least one item");
    let state = ChannelState { queue: VecDeque::new(), capacity, senders: 1, receiver: true };
    let shared = Rc::new(ChannelShared { state: RefCell::new(state), room: Notify::new(), arrival: Notify::new() });
    (LocalSender(Rc::clone(&shared)), LocalReceiver(shared))
}

/// Puts items into a [`local_channel`]. Clones share it.
pub struct LocalSender<T>(Rc<ChannelShared<T>>);

/// Takes items from a [`local_channel`].
pub struct LocalReceiver<T>(Rc<ChannelShared<T>>);

/// Why [`LocalSender::try_send`] gave the item back.
#[derive(Debug, PartialEq, Eq)]
pub enum TryLocalSendError<T> {
    /// The queue holds as many as it may.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> LocalSender<T> {
    /// Enqueues the item, or gives it back.
    pub fn try_send(&self, item: T) -> Result<(), TryLocalSendError<T>> {
        {
            let mut state = self.0.state.borrow_mut();
            if !state.receiver {
                return Err(TryLocalSendError::Closed(item));
            }
            if state.queue.len() >= state.capacity {
                return Err(TryLocalSendError::Full(item));
            }
            state.queue.push_back(item);
        }
        self.0.arrival.notify_one();
        Ok(())
    }

    /// Enqueues the item, waiting while the queue is full. Gives it back when the receiver is gone.
    pub async fn send(&self, item: T) -> Result<(), T> {
        let mut item = item;
        loop {
            match self.try_send(item) {
                Ok(()) => return Ok(()),
                Err(TryLocalSendError::Closed(back)) => return Err(back),
                Err(TryLocalSendError::Full(back)) => item = back,
            }
            self.0.room.wait().await;
        }
    }
}

impl<T> Clone for LocalSender<T> {
    fn clone(&self) -> Self {
        self.0.state.borrow_mut().senders += 1;
        LocalSender(Rc::clone(&self.0))
    }
}

impl<T> Drop for LocalSender<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.borrow_mut();
            state.senders -= 1;
            state.senders
        };
        if left == 0 {
            self.0.arrival.notify_all();
        }
    }
}

impl<T> LocalReceiver<T> {
    /// The next item if one is there.
    pub fn try_recv(&self) -> Option<T> {
        let item = self.0.state.borrow_mut().queue.pop_front();
        if item.is_some() && self.0.room.waiters() > 0 {
            self.0.room.notify_one();
        }
        item
    }

    /// The next item; `None` once all senders are gone and the queue is empty.
    pub async fn recv(&self) -> Option<T> {
        loop {
            if let Some(item) = self.try_recv() {
                return Some(item);
            }
            if self.0.state.borrow().senders == 0 {
                return None;
            }
            self.0.arrival.wait().await;
        }
    }

    /// Items in the queue.
    pub fn len(&self) -> usize {
        self.0.state.borrow().queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for LocalReceiver<T> {
    fn drop(&mut self) {
        let queue = {
            let mut state = self.0.state.borrow_mut();
            state.receiver = false;
            std::mem::take(&mut state.queue)
        };
        self.0.room.notify_all();
        drop(queue);
    }
}

struct OneshotState<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender: bool,
    receiver: bool,
}

/// The other side was dropped without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side is gone")]
pub struct Disconnected;

/// Hands one value to another task of the same executor.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let state = OneshotState { value: None, waker: None, sender: true, receiver: true };
    let shared = Rc::new(RefCell::new(state));
    (OneshotSender(Rc::clone(&shared)), OneshotReceiver(shared))
}

/// Gives the value; see [`oneshot`].
pub struct OneshotSender<T>(Rc<RefCell<OneshotState<T>>>);

/// Takes the value: a future; see [`oneshot`].
pub struct OneshotReceiver<T>(Rc<RefCell<OneshotState<T>>>);

impl<T> OneshotSender<T> {
    /// Gives the value, or gets it back when nobody waits for it any more.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.0.borrow_mut();
        if !state.receiver {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
    }

    /// Whether the receiver was dropped.
    pub fn is_closed(&self) -> bool {
        !self.0.borrow().receiver
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.sender = false;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Result<T, Disconnected>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.borrow_mut();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !state.sender {
            return Poll::Ready(Err(Disconnected));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for OneshotReceiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.receiver = false;
        state.waker = None;
    }
}

/// Whichever of two futures ends first; the first when both are ready.
pub(crate) async fn either<T>(first: impl Future<Output = T>, second: impl Future<Output = T>) -> T {
    let mut first = std::pin::pin!(first);
    let mut second = std::pin::pin!(second);
    poll_fn(|context| match first.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(value),
        Poll::Pending => second.as_mut().poll(context),
    })
    .await
}
