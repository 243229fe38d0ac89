//! Memory of one core for what clients send: every byte of a request is counted from before it is read until its
//! request is answered. Where there is no room, sockets aren't read.
//!
//! A request's first bytes take their room in the order of asking. One that has begun asks for more as it arrives, and
//! keeps what it has: several large ones could wait for each other for ever. So beside the shared memory there is room
//! for one request of the largest size, which goes to one of them at a time, and that one can be finished.
//!
//! Bound: the shared memory and the largest request.

use ringlog_ring::{BytePermit, ByteSemaphore};

/// The memory.
pub struct RequestMemory {
    shared: ByteSemaphore,
    /// Whose request takes what it needs beside the shared memory.
    turn: ByteSemaphore,
}

/// What a connection's received bytes, or one of its requests, have taken.
#[derive(Default)]
pub struct RequestHold {
    permit: Option<BytePermit>,
    turn: Option<BytePermit>,
}

impl RequestMemory {
    /// `shared_bytes` for all requests together, and beside it room for one that is as large as may be.
    pub fn new(shared_bytes: usize) -> RequestMemory {
        RequestMemory { shared: ByteSemaphore::new(shared_bytes), turn: ByteSemaphore::new(1) }
    }

    /// Takes room for `bytes` in all, beyond what `hold` has; whether there was.
    pub fn try_grow(&self, hold: &mut RequestHold, bytes: usize) -> bool {
        if hold.turn.is_some() {
            return true;
        }
        match &mut hold.permit {
            Some(permit) => bytes <= permit.bytes() || permit.try_grow(bytes - permit.bytes()),
            none => {
                *none = self.shared.try_acquire(bytes);
                none.is_some()
            }
        }
    }

    /// [`RequestMemory::try_grow`], waiting its turn. Who has nothing yet waits for the shared memory alone.
    pub async fn grow(&self, hold: &mut RequestHold, bytes: usize) {
        if self.try_grow(hold, bytes) {
            return;
        }
        let Some(permit) = &mut hold.permit else {
            hold.permit = Some(self.shared.acquire(bytes).await);
            return;
        };
        let more = bytes - permit.bytes();
        let shared = async {
            permit.grow(more).await;
            None
        };
        hold.turn = futures_lite::future::or(shared, async { Some(self.turn.acquire(1).await) }).await;
    }

    /// Bytes of the shared memory that are held.
    pub fn held_bytes(&self) -> usize {
        self.shared.capacity() - self.shared.available()
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.shared.available()
    }
}

impl RequestHold {
    /// So many bytes may be there.
    pub fn bytes(&self) -> usize {
        match (&self.turn, &self.permit) {
            (Some(_), _) => usize::MAX,
            (None, Some(permit)) => permit.bytes(),
            (None, None) => 0,
        }
    }

    /// A request of `bytes` is complete: its part goes with it. The turn goes, too: what it allowed lies in there.
    pub fn split(&mut self, bytes: usize) -> RequestHold {
        RequestHold { permit: self.permit.as_mut().map(|permit| permit.split(bytes)), turn: self.turn.take() }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready<F: Future<Output = ()>>(future: Pin<&mut F>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn what_is_split_off_is_returned_with_its_request() {
        let memory = RequestMemory::new(1000);
        let mut received = RequestHold::default();
        assert!(memory.try_grow(&mut received, 600));
        let first = received.split(100);
        let second = received.split(200);
        assert!(memory.try_grow(&mut received, 300), "it still has them");
        assert_eq!(memory.available(), 400);
        drop(second);
        assert_eq!(memory.available(), 600);
        drop((received, first));
        assert_eq!(memory.available(), 1000);
    }

    #[test]
    fn large_requests_that_began_together_are_finished_one_after_the_other() {
        let memory = RequestMemory::new(1000);
        let mut holds: Vec<RequestHold> = (0..4).map(|_| RequestHold::default()).collect();
        assert!(holds.iter_mut().all(|hold| memory.try_grow(hold, 250)));
        // All of it is taken, and each wants more.
        let [first, second, third, fourth] = &mut holds[..] else { panic!("four") };
        assert!(is_ready(pin!(memory.grow(first, 900))), "the turn is free");
        assert!(memory.try_grow(first, 5000), "whose turn it is takes what it needs");
        {
            let mut waiting = pin!(memory.grow(second, 400));
            assert!(!is_ready(waiting.as_mut()));
            // Done: its turn and its bytes are free.
            drop(first.split(5000));
            assert!(is_ready(waiting.as_mut()));
        }
        assert!(!memory.try_grow(third, 900) && !memory.try_grow(fourth, 900));
    }

    #[test]
    fn who_has_nothing_yet_waits_without_the_turn() {
        let memory = RequestMemory::new(1000);
        let mut all = RequestHold::default();
        assert!(memory.try_grow(&mut all, 1000));
        let mut newcomer = RequestHold::default();
        let mut waiting = pin!(memory.grow(&mut newcomer, 10));
        assert!(!is_ready(waiting.as_mut()));
        assert!(is_ready(pin!(memory.grow(&mut all, 2000))), "who has begun goes on beside");
        drop(all);
        assert!(is_ready(waiting.as_mut()));
    }
}
