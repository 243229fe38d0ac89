//! How the cores of a node talk: a closure goes to another core ([`crate::core::Room::begin_on`]), runs there on what that
//! core owns, and its result comes back to the call that waits for it. Nothing is shared; what travels is moved.
//!
//! Bounds: each ordered pair of cores has one queue of [`MESH_CAPACITY`] messages. A sender waits while it is full, so
//! a core that can't keep up slows those who ask it. Messages of one pair arrive and start in the order they were sent.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Messages that may wait between one pair of cores.
pub const MESH_CAPACITY: usize = 1024;

/// A future that stays on its core.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Calls to other cores whose answer is awaited here.
#[derive(Default)]
pub struct Calls {
    slots: RefCell<Slab<Rc<Slot>>>,
}

/// Where the answer of a call arrives.
#[derive(Default)]
struct Slot {
    answer: RefCell<Option<Box<dyn Any>>>,
    caller: RefCell<Option<Waker>>,
}

impl Calls {
    /// A place for an answer, and the call that waits for it.
    pub fn open<T: 'static>(&self) -> (usize, Call<T>) {
        let slot = Rc::new(Slot::default());
        (self.slots.borrow_mut().insert(slot.clone()), Call(Answer::There(slot, PhantomData)))
    }

    /// The answer to a call of this core.
    pub fn answer(&self, key: usize, answer: Box<dyn Any>) {
        // A slot is removed by its answer alone, so a key can't name another call's slot.
        let slot = self.slots.borrow_mut().remove(key);
        *slot.answer.borrow_mut() = Some(answer);
        if let Some(caller) = slot.caller.take() {
            caller.wake();
        }
    }
}

/// Work that was begun, on this core or another. [`Call::answer`] is what it gives.
#[must_use = "the work goes on, but nobody hears of it"]
pub struct Call<T>(Answer<T>);

impl<T: 'static> Call<T> {
    /// Of work on this core.
    pub fn here(work: LocalFuture<T>) -> Call<T> {
        Call(Answer::Here(work))
    }

    /// Ends when the work is done.
    pub fn answer(self) -> impl Future<Output = T> {
        self.0
    }
}

enum Answer<T> {
    Here(LocalFuture<T>),
    There(Rc<Slot>, PhantomData<fn() -> T>),
}

impl<T: 'static> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Answer::Here(work) => work.as_mut().poll(context),
            Answer::There(slot, _) => match slot.answer.take() {
                Some(answer) => Poll::Ready(*answer.downcast().expect("an answer has the type of its call")),
                None => {
                    *slot.caller.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                }
            },
        }
    }
}
