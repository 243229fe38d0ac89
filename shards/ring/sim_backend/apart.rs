//! Long work on a thread of its own.

use std::future::Future;
use std::io;

use super::core::Thread;
use super::tasks::{Joined, compute, guarded, spawn_on};
use super::world;

/// Runs `work` on a new thread. A panic in it becomes an error.
pub async fn blocking_apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    on_new_thread(name, guarded(compute(work))).await
}

/// Runs a future on a thread that ends with it.
pub(crate) fn on_new_thread<T: 'static>(name: &str, work: impl Future<Output = T> + 'static) -> Joined<T> {
    let core = world::current();
    let thread = Thread { index: core.index, name: name.to_owned(), preempt_us: 1_000, is_helper: true };
    let thread = core.process.add_core(&world::world(), thread);
    let ending = thread.clone();
    let body = async move {
        let value = work.await;
        ending.process.remove_core(&ending);
        value
    };
    spawn_on(&thread, body)
}
