//! Messages from threads that aren't executors (signal handlers, the main thread) to an executor.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A queue into an executor for rare messages. `capacity` bounds it.
pub fn outside_channel<M: Send>(capacity: usize) -> (OutsideSender<M>, OutsideReceiver<M>) {
    let state = State { queue: VecDeque::new(), capacity, waker: None, senders: 1 };
    let shared = Arc::new(Mutex::new(state));
    (OutsideSender(Arc::clone(&shared)), OutsideReceiver(shared))
}

struct State<M> {
    queue: VecDeque<M>,
    capacity: usize,
    /// Set, replaced and dropped by the receiving executor only; senders wake it by reference.
    waker: Option<Waker>,
    senders: usize,
}

/// The sending end; for any thread. Clones share the queue.
pub struct OutsideSender<M>(Arc<Mutex<State<M>>>);

/// The receiving end; move it into one executor.
pub struct OutsideReceiver<M>(Arc<Mutex<State<M>>>);

fn lock<M>(state: &Mutex<State<M>>) -> MutexGuard<'_, State<M>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Send> OutsideSender<M> {
    /// Enqueues the message and wakes the executor; gives it back when the queue is full.
    pub fn send(&self, message: M) -> Result<(), M> {
        let mut state = lock(&self.0);
        if state.queue.len() >= state.capacity {
            return Err(message);
        }
        state.queue.push_back(message);
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
        Ok(())
    }
}

impl<M> Clone for OutsideSender<M> {
    fn clone(&self) -> Self {
        lock(&self.0).senders += 1;
        OutsideSender(Arc::clone(&self.0))
    }
}

impl<M> Drop for OutsideSender<M> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.senders -= 1;
        if let (0, Some(waker)) = (state.senders, &state.waker) {
            waker.wake_by_ref();
        }
    }
}

impl<M: Send> OutsideReceiver<M> {
    /// The next message; `None` once all senders are gone and the queue is empty.
    pub async fn recv(&self) -> Option<M> {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            if let Some(message) = state.queue.pop_front() {
                return Poll::Ready(Some(message));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl<M> Drop for OutsideReceiver<M> {
    fn drop(&mut self) {
        let waker = lock(&self.0).waker.take();
        drop(waker);
    }
}
