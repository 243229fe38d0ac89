//! The request to stop a node, which may come at any moment: before there is a node, while it starts, while it serves.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use ringlog_ring as ring;

/// Asks a node to stop. Clones share it; for any thread.
#[derive(Clone, Default)]
pub struct StopRequest(Arc<Shared>);

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    is_requested: bool,
    waiters: Vec<Waker>,
    /// The running executors.
    executors: Option<ring::StopHandle>,
}

impl StopRequest {
    /// Asks. A node that is starting ends soon, one that serves stops in order.
    pub fn request(&self) {
        let waiters = {
            let mut state = self.state();
            state.is_requested = true;
            if let Some(executors) = &state.executors {
                executors.stop();
            }
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        self.state().is_requested
    }

    /// Waits for the request.
    pub async fn wait(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.is_requested {
                return Poll::Ready(());
            }
            if !state.waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                state.waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
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
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
