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
    /// Below zero when permits were made to hold more than there is, see [`BytePermit::set`].
    available: isize,
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
        let capacity = capacity.min(isize::MAX as usize);
        let state = State { capacity, available: capacity as isize, next_id: 0, waiting: VecDeque::new() };
        ByteSemaphore(Rc::new(RefCell::new(state)))
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let mut state = self.0.borrow_mut();
        let bytes = bytes.min(state.capacity);
        if !state.waiting.is_empty() || state.available < bytes as isize {
            return None;
        }
        state.available -= bytes as isize;
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

    /// Holds `bytes`, whether they are free or not: for what is there already and must be counted.
    pub fn hold(&self, bytes: usize) -> BytePermit {
        let mut permit = BytePermit { semaphore: self.clone(), bytes: 0 };
        permit.set(bytes);
        permit
    }

    /// Bytes nobody holds.
    pub fn available(&self) -> usize {
        self.0.borrow().available.max(0) as usize
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
            state.available += bytes as isize;
            debug_assert!(state.available <= state.capacity as isize, "more was returned than taken");
            if state.waiting.is_empty() {
                return;
            }
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
            if *available < entry.bytes as isize {
                break;
            }
            *available -= entry.bytes as isize;
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

    /// Holds `bytes` from now on. What is more than before is taken whether it is free or not: others wait until it
    /// is returned.
    pub fn set(&mut self, bytes: usize) {
        self.shrink_to(bytes);
        let more = bytes.saturating_sub(self.bytes).min(isize::MAX as usize);
        self.semaphore.0.borrow_mut().available -= more as isize;
        self.bytes += more;
    }

    /// [`BytePermit::set`] on the way.
    #[must_use]
    pub fn holding(mut self, bytes: usize) -> BytePermit {
        self.set(bytes);
        self
    }

    /// Gives `bytes` of it away, or all that it has when that is less.
    pub fn split(&mut self, bytes: usize) -> BytePermit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BytePermit { semaphore: self.semaphore.clone(), bytes }
    }

    /// Takes `bytes` more, waiting its turn; keeps what it has meanwhile, so two that wait like this may wait for each
    /// other: see that somebody gives way.
    pub async fn grow(&mut self, bytes: usize) {
        let mut more = self.semaphore.acquire(bytes).await;
        self.bytes += std::mem::take(&mut more.bytes);
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_waits_is_served_in_order_and_not_overtaken() {
        let memory = ByteSemaphore::new(100);
        let first = memory.try_acquire(80).expect("room");
        let mut large = pin!(memory.acquire(90));
        let mut small = pin!(memory.acquire(10));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending(), "20 are free, but somebody came before");
        assert!(memory.try_acquire(1).is_none());
        drop(first);
        let Poll::Ready(large) = poll(large.as_mut()) else { panic!("all of it is free") };
        assert_eq!((large.bytes(), memory.available()), (90, 0));
        assert!(poll(small.as_mut()).is_ready());
    }

    #[test]
    fn one_that_gives_up_waiting_lets_the_next_one_in() {
        let memory = ByteSemaphore::new(100);
        let _held = memory.try_acquire(50).expect("room");
        let mut large = Box::pin(memory.acquire(90));
        let mut small = pin!(memory.acquire(10));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending());
        drop(large);
        assert!(poll(small.as_mut()).is_ready());
        assert_eq!((memory.waiters(), memory.available()), (0, 50), "the answer, which held ten, is dropped");
    }

    #[test]
    fn what_is_held_beyond_the_budget_keeps_others_out_until_it_is_returned() {
        let memory = ByteSemaphore::new(100);
        let mut permit = memory.hold(30);
        permit.set(250);
        assert_eq!((permit.bytes(), memory.available()), (250, 0));
        let mut other = pin!(memory.acquire(1));
        assert!(poll(other.as_mut()).is_pending());
        permit.set(120);
        assert!(poll(other.as_mut()).is_pending(), "still 20 too many");
        permit.set(99);
        assert!(poll(other.as_mut()).is_ready());
        drop(permit);
        assert_eq!(memory.available(), 100);
    }

    #[test]
    fn parts_of_a_permit_come_back_one_by_one() {
        let memory = ByteSemaphore::new(100);
        let mut whole = memory.try_acquire(60).expect("room");
        let part = whole.split(25);
        assert_eq!((whole.bytes(), part.bytes(), memory.available()), (35, 25, 40));
        drop(whole);
        assert_eq!(memory.available(), 75);
        drop(part);
        assert_eq!(memory.available(), 100);
    }

    #[test]
    fn a_permit_grows_in_its_turn_and_keeps_what_it_has() {
        let memory = ByteSemaphore::new(100);
        let mut mine = memory.try_acquire(40).expect("room");
        let others = memory.try_acquire(50).expect("room");
        {
            let mut growing = pin!(mine.grow(30));
            assert!(poll(growing.as_mut()).is_pending());
            drop(others);
            assert!(poll(growing.as_mut()).is_ready());
        }
        assert_eq!((mine.bytes(), memory.available()), (70, 30));
    }
}
