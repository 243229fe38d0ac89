//! Tasks and the queues that share an executor's time.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::{Latency, Shares, TaskQueueHandle};

/// A running task: a future of its value. Dropping it cancels the task at its next `await`; see [`Task::detach`].
#[must_use = "dropping a task cancels it"]
pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    /// Lets it run on without anybody waiting for it.
    pub fn detach(self) {
        drop(self.0.detach());
    }

    /// Cancels it and waits until it has stopped; its value if it had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Starts a task in the queue of the running one. It runs to its first `await` before this returns.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task(glommio::spawn_local(future))
}

/// Starts a task that nobody waits for.
pub fn spawn_detached(future: impl Future<Output = ()> + 'static) {
    drop(glommio::spawn_local(future).detach());
}

/// A share of an executor's time.
#[derive(Clone, Copy)]
pub struct TaskQueue(TaskQueueHandle);

impl TaskQueue {
    /// A queue of the running executor. `shares` (1 to 1000; the first queue has 1000) weigh it against the others when
    /// there is more to do than time; with `latency_ms` it is run at least that often, roughly.
    pub fn new(name: &str, shares: usize, latency_ms: Option<u64>) -> TaskQueue {
        let latency = latency_ms.map_or(Latency::NotImportant, |ms| Latency::Matters(Duration::from_millis(ms)));
        TaskQueue(glommio::executor().create_task_queue(Shares::Static(shares), latency, name))
    }
}

/// Starts a task in `queue`.
pub fn spawn_into<T: 'static>(queue: TaskQueue, future: impl Future<Output = T> + 'static) -> Task<T> {
    match glommio::spawn_local_into(future, queue.0) {
        Ok(task) => Task(task),
        Err(_) => panic!("a task queue is used on the executor that made it"),
    }
}

/// Whether this task has had its time: then it should yield.
#[inline]
pub fn needs_preempt() -> bool {
    glommio::executor().need_preempt()
}

/// Lets other tasks run.
pub async fn yield_now() {
    glommio::executor().yield_now().await;
}

/// Lets other tasks run if this one has had its time.
pub async fn yield_if_needed() {
    glommio::executor().yield_if_needed().await;
}

/// Runs `work` on the executor's helper thread. One at a time per executor: for rare, quick system calls.
///
/// A panic in it becomes an error; it would otherwise end the helper thread and leave the caller waiting for ever.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let guarded = move || catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("panicked")));
    // As a task of its own: the helper's answer is always collected, also when the caller is dropped meanwhile.
    let task = glommio::spawn_local(async move { glommio::executor().spawn_blocking(guarded).await }).detach();
    task.await.unwrap_or_else(|| Err(io::Error::other("the executor is ending")))
}
