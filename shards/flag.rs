//! Small things to wait for on one core.

use std::cell::Cell;

use ringlog_ring as ring;

/// Something that happens once.
#[derive(Default)]
pub struct Flag {
    set: Cell<bool>,
    changed: ring::Notify,
}

impl Flag {
    /// It has happened.
    pub fn set(&self) {
        self.set.set(true);
        self.changed.notify_all();
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Ends when it has happened.
    pub async fn wait_until_set(&self) {
        while !self.set.get() {
            self.changed.wait().await;
        }
    }
}

/// How many connections a core serves.
#[derive(Default)]
pub struct ConnectionCount {
    open: Cell<usize>,
    changed: ring::Notify,
}

impl ConnectionCount {
    /// One more.
    pub fn add(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// One less.
    pub fn remove(&self) {
        self.open.set(self.open.get() - 1);
        self.changed.notify_all();
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Ends when there are none.
    pub async fn closed(&self) {
        while self.open.get() > 0 {
            self.changed.wait().await;
        }
    }
}
