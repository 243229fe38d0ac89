//! Memory budgets in bytes, granted in the order of asking.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A budget of bytes shared by the tasks of one executor. Clones share it.
///
/// First come, first served: a large request isn't overtaken by small ones behind it. More than the whole budget is
/// granted as the whole budget, so that one over-large request runs alone instead of never.
#[derive(Clone)]
pub struct ByteSemaphore(Rc<RefCell<State>>);

struct State {
    capacity: usize,
    available: usize,
    next_id: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: u64,
    bytes: usize,
    waker: Waker,
    granted: bool,
}

impl ByteSemaphore {
    /// A budget of `capacity` bytes.
    pub fn new(capacity: usize) -> ByteSemaphore {
        let state = State { capacity, available: capacity, next_id: 0, waiting: VecDeque::new() };
        ByteSemaphore(Rc::new(RefCell::new(state)))
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let mut state = self.0.borrow_mut();
        let bytes = bytes.min(state.capacity);
        if !state.waiting.is_empty() || state.available < bytes {
            return None;
        }
        state.available -= bytes;
        drop(state);
        Some(BytePermit { semaphore: self.clone(), bytes })
    }

    /// Takes `bytes`, waiting its turn.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        let bytes = bytes.min(self.0.borrow().capacity);
        Acquire { semaphore: self, bytes, id: None }.await;
        BytePermit { semaphore: self.clone(), bytes }
    }

    /// Bytes nobody holds.
    pub fn available(&self) -> usize {
        self.0.borrow().available
    }

    /// The whole budget.
    pub fn capacity(&self) -> usize {
        self.0.borrow().capacity
    }

    /// Tasks that wait.
    pub fn waiters(&self) -> usize {
        self.0.borrow().waiting.len()
    }

    fn release(&self, bytes: usize) {
        let mut wake = Vec::new();
        {
            let mut state = self.0.borrow_mut();
            state.available += bytes;
            debug_assert!(state.available <= state.capacity, "more was returned than taken");
            state.grant(&mut wake);
        }
        for waker in wake {
            waker.wake();
        }
    }
}

impl State {
    /// Grants to waiters from the front as far as the bytes go.
    fn grant(&mut self, wake: &mut Vec<Waker>) {
        let State { available, waiting, .. } = self;
        for entry in waiting.iter_mut().filter(|entry| !entry.granted) {
            if *available < entry.bytes {
                break;
            }
            *available -= entry.bytes;
            entry.granted = true;
            wake.push(entry.waker.clone());
        }
    }
}

struct Acquire<'a> {
    semaphore: &'a ByteSemaphore,
    bytes: usize,
    id: Option<u64>,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.semaphore.0.borrow_mut();
        let Some(id) = self.id else {
            let id = state.next_id;
            state.next_id += 1;
            let waker = context.waker().clone();
            state.waiting.push_back(Waiting { id, bytes: self.bytes, waker, granted: false });
            drop(state);
            self.id = Some(id);
            return Poll::Pending;
        };
        let position = state.waiting.iter().position(|entry| entry.id == id);
        let Some(position) = position else { return Poll::Ready(()) };
        if !state.waiting[position].granted {
            state.waiting[position].waker.clone_from(context.waker());
            return Poll::Pending;
        }
        state.waiting.remove(position);
        drop(state);
        self.id = None;
        Poll::Ready(())
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let granted = {
            let mut state = self.semaphore.0.borrow_mut();
            let position = state.waiting.iter().position(|entry| entry.id == id);
            position.and_then(|position| state.waiting.remove(position)).is_some_and(|entry| entry.granted)
        };
        // Also when nothing was granted: the one behind may fit now.
        self.semaphore.release(if granted { self.bytes } else { 0 });
    }
}

/// Bytes taken from a [`ByteSemaphore`]; returned on drop.
pub struct BytePermit {
    semaphore: ByteSemaphore,
    bytes: usize,
}

impl BytePermit {
    /// How many it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what is above `bytes` now.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(surplus) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.semaphore.release(surplus);
        }
    }

    /// Takes `bytes` more if they are free; whether it did.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes > self.semaphore.capacity() {
            return false;
        }
        let Some(mut more) = self.semaphore.try_acquire(bytes) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.semaphore.release(self.bytes);
    }
}
