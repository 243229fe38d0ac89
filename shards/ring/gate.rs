//! Background tasks join a gate; who closes it waits until the last one has left.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use crate::backend::tasks::spawn_detached;
use crate::local::Notify;

/// Counts the tasks inside and lets nobody in once closed. Clones share it.
#[derive(Clone, Default)]
pub struct Gate(Rc<GateShared>);

#[derive(Default)]
struct GateShared {
    inside: Cell<usize>,
    closed: Cell<bool>,
    change: RefCell<Notify>,
}

/// The gate is closed: no new work starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shutting down")]
pub struct GateClosed;

/// Being inside; leaves on drop.
pub struct GatePass(Rc<GateShared>);

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Enters, unless closed.
    pub fn enter(&self) -> Result<GatePass, GateClosed> {
        if self.0.closed.get() {
            return Err(GateClosed);
        }
        self.0.inside.set(self.0.inside.get() + 1);
        Ok(GatePass(Rc::clone(&self.0)))
    }

    /// Runs the future as a task inside the gate.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Result<(), GateClosed> {
        let pass = self.enter()?;
        spawn_detached(async move {
            future.await;
            drop(pass);
        });
        Ok(())
    }

    /// Lets nobody in any more; those inside can ask [`Gate::is_closed`] or wait for [`Gate::closing`].
    pub fn begin_close(&self) {
        self.0.closed.set(true);
        self.notify().notify_all();
    }

    /// Closes, and waits until everybody has left.
    pub async fn close(&self) {
        self.begin_close();
        while self.0.inside.get() > 0 {
            self.notify().wait().await;
        }
    }

    /// Resolves when the gate begins to close.
    pub async fn closing(&self) {
        while !self.0.closed.get() {
            self.notify().wait().await;
        }
    }

    /// Whether it is closed or closing.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.0.inside.get()
    }

    fn notify(&self) -> Notify {
        self.0.change.borrow().clone()
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        let left = self.0.inside.get() - 1;
        self.0.inside.set(left);
        if left == 0 && self.0.closed.get() {
            let notify = self.0.change.borrow().clone();
            notify.notify_all();
        }
    }
}
