//! What happens, for whoever looks on: a hash over all of it, a story to read, taps on connections, and values that
//! programs show.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use bytes::Bytes;

use super::world;

/// What is hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Poll = 1,
    Start,
    End,
    Sent,
    Delivered,
    Connection,
    Disk,
    Names,
    Crash,
}

/// Where and when something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Since the world began.
    pub at_ns: u64,
    /// The host's name; empty for what the world does.
    pub host: String,
    /// The process's number.
    pub process: Option<u32>,
    /// The process's name.
    pub program: String,
    /// The name of its thread: an executor, its helper, or `main`.
    pub thread: String,
    /// The executor's place in its process.
    pub core: usize,
}

/// Something that a connection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapKind {
    /// It is open at both ends.
    Connected,
    /// Bytes were given to the sender's kernel.
    Sent,
    /// Bytes came to the receiver's kernel.
    Delivered,
    /// The receiver knows that no more come.
    Ended,
    /// The end at `to` learnt that the connection is gone.
    Reset,
}

/// See [`TapKind`].
pub struct Tap<'a> {
    /// What happened.
    pub kind: TapKind,
    /// When.
    pub at_ns: u64,
    /// Names the connection.
    pub connection: u64,
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// How many bytes went this way before.
    pub position: u64,
    /// The bytes.
    pub bytes: &'a Bytes,
}

pub(crate) type Teller = Box<dyn FnMut(&Context, &str)>;
pub(crate) type Observer = Box<dyn FnMut(&Context, &dyn Any)>;
pub(crate) type Tapper = Box<dyn FnMut(&Tap<'_>)>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Trace {
    hash: Cell<u64>,
    teller: RefCell<Option<Teller>>,
    observers: RefCell<Vec<Observer>>,
    tappers: RefCell<Vec<Tapper>>,
}

impl Trace {
    pub fn hash(&self, kind: Kind, at_ns: u64, what: u64, more: u64) {
        let mut hash = self.hash.get();
        for word in [kind as u64, at_ns, what, more] {
            hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.hash.set(hash);
    }

    pub fn hash_bytes(&self, kind: Kind, at_ns: u64, what: u64, bytes: &[u8]) {
        let mut sum = bytes.len() as u64;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = (sum.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.hash(kind, at_ns, what, sum);
    }

    pub fn value(&self) -> u64 {
        self.hash.get()
    }

    pub fn set_teller(&self, teller: Option<Teller>) {
        *self.teller.borrow_mut() = teller;
    }

    pub fn add_observer(&self, observer: Observer) {
        self.observers.borrow_mut().push(observer);
    }

    pub fn add_tapper(&self, tapper: Tapper) {
        self.tappers.borrow_mut().push(tapper);
    }

    /// Adds a sentence to the story, if somebody listens.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        let Some(mut teller) = self.teller.take() else { return };
        teller(&context(), &text());
        self.teller.borrow_mut().get_or_insert(teller);
    }

    pub fn observe(&self, value: &dyn Any) {
        let mut observers = self.observers.take();
        if observers.is_empty() {
            return;
        }
        let context = context();
        observers.iter_mut().for_each(|observer| observer(&context, value));
        let mut added = self.observers.replace(observers);
        self.observers.borrow_mut().append(&mut added);
    }

    pub fn has_taps(&self) -> bool {
        !self.tappers.borrow().is_empty()
    }

    pub fn tap(&self, tap: &Tap<'_>) {
        let mut tappers = self.tappers.take();
        tappers.iter_mut().for_each(|tapper| tapper(tap));
        let mut added = self.tappers.replace(tappers);
        self.tappers.borrow_mut().append(&mut added);
    }

    /// Lets go of whoever looked on.
    pub fn end(&self) {
        drop((self.teller.take(), self.observers.take(), self.tappers.take()));
    }
}

/// Where and when the calling code runs.
pub(crate) fn context() -> Context {
    let at_ns = world::moment().map_or(0, |(_, at_ns)| at_ns);
    match world::try_current() {
        None => Context {
            at_ns,
            host: String::new(),
            process: None,
            program: String::new(),
            thread: String::new(),
            core: 0,
        },
        Some(core) => Context {
            at_ns,
            host: core.process.host.name().to_owned(),
            process: Some(core.process.id),
            program: core.process.name.clone(),
            thread: core.name.clone(),
            core: core.index,
        },
    }
}
