//! The request to stop a node, which may come at any moment: before there is a node, while it starts, while it serves.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringlog_ring as ring;

/// Asks a node to stop. Clones share it; for any thread.
#[derive(Clone, Default)]
pub struct StopRequest(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    requested: Condvar,
}

#[derive(Default)]
struct State {
    is_requested: bool,
    /// The running executors.
    executors: Option<ring::StopHandle>,
}

impl StopRequest {
    /// Asks. A node that is starting ends soon, one that serves stops in order.
    pub fn request(&self) {
        let mut state = self.state();
        state.is_requested = true;
        if let Some(executors) = &state.executors {
            executors.stop();
        }
        self.0.requested.notify_all();
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        self.state().is_requested
    }

    /// Waits for the request, for so long at most; whether it was made. Blocks: not for executors.
    pub fn wait_for(&self, limit: Duration) -> bool {
        let waited = self.0.requested.wait_timeout_while(self.state(), limit, |state| !state.is_requested);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_requested
    }

    /// Hands the request on to these executors, also if it was made before.
    pub(crate) fn attach(&self, executors: ring::StopHandle) {
        let mut state = self.state();
        if state.is_requested {
            executors.stop();
        }
        state.executors = Some(executors);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
