//! Tasks and the queues that share a core's time.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::core::{Core, TaskId, Thread};
use super::faults;
use super::process::Process;
use super::world::{self, World};

/// A running task: a future of its value. Dropping it cancels the task at its next `await`; see [`Task::detach`].
#[must_use = "dropping a task cancels it"]
pub struct Task<T> {
    outcome: Rc<Outcome<T>>,
    /// None once it may run on, or where nothing runs any more.
    id: Option<TaskId>,
}

struct Outcome<T> {
    value: RefCell<Option<T>>,
    has_stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Says that a task has stopped, however it did.
struct Stopping<T>(Rc<Outcome<T>>);

impl<T> Drop for Stopping<T> {
    fn drop(&mut self) {
        self.0.has_stopped.set(true);
        let waker = self.0.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: 'static> Task<T> {
    /// Lets it run on without anybody waiting for it.
    pub fn detach(mut self) {
        self.id = None;
    }

    /// Cancels it and waits until it has stopped; its value if it had ended before.
    pub async fn cancel(mut self) -> Option<T> {
        if let Some(id) = self.id.take() {
            id.cancel();
        }
        let outcome = self.outcome.clone();
        poll_fn(|context| if outcome.wait(context) { Poll::Ready(()) } else { Poll::Pending }).await;
        outcome.value.take()
    }
}

impl<T> Outcome<T> {
    /// Whether the task has stopped; if not, the caller is woken when it has.
    fn wait(&self, context: &Context<'_>) -> bool {
        if !self.has_stopped.get() {
            *self.waker.borrow_mut() = Some(context.waker().clone());
        }
        self.has_stopped.get()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if !self.outcome.wait(context) {
            return Poll::Pending;
        }
        let value = self.outcome.value.take();
        self.id = None;
        // Cancelled, with its core: nobody waits any more who would be told.
        value.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && !self.outcome.has_stopped.get()
        {
            id.cancel();
        }
    }
}

fn start<T: 'static>(
    future: impl Future<Output = T> + 'static,
    start: impl FnOnce(&Rc<Core>, &World, super::core::LocalFuture) -> TaskId,
    core: &Rc<Core>,
) -> Task<T> {
    let outcome =
        Rc::new(Outcome { value: RefCell::new(None), has_stopped: Cell::new(false), waker: RefCell::new(None) });
    if core.has_ended() || core.process.has_ended() {
        return Task { outcome, id: None };
    }
    let stopping = Stopping(outcome.clone());
    // A future may be large: it is moved once, to where it stays.
    let future = Box::pin(future);
    let body = async move {
        let value = future.await;
        *stopping.0.value.borrow_mut() = Some(value);
        drop(stopping);
    };
    let id = start(core, &world::world(), Box::pin(body));
    Task { outcome, id: Some(id) }
}

/// Starts a task in the queue of the running one. It runs to its first `await` before this returns.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    start(future, |core, world, body| core.spawn(world, body), &world::current())
}

/// Starts a task that nobody waits for.
pub fn spawn_detached(future: impl Future<Output = ()> + 'static) {
    spawn(future).detach();
}

/// Starts a task that runs on when nobody waits for it any more.
pub(crate) fn spawn_on<T: 'static>(core: &Rc<Core>, future: impl Future<Output = T> + 'static) -> Joined<T> {
    let mut task = start(future, |core, world, body| core.spawn_into(world, 0, body), core);
    task.id = None;
    Joined(task)
}

/// As [`spawn_on`], on the core whose code runs.
pub(crate) fn spawn_joined<T: 'static>(future: impl Future<Output = T> + 'static) -> Joined<T> {
    let mut task = spawn(future);
    task.id = None;
    Joined(task)
}

/// The value of a task that isn't cancelled when this is dropped.
pub(crate) struct Joined<T>(Task<T>);

impl<T> Future for Joined<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// A share of an executor's time.
#[derive(Clone, Copy)]
pub struct TaskQueue {
    core: u32,
    queue: usize,
}

impl TaskQueue {
    /// A queue of the running executor. `shares` (1 to 1000; the first queue has 1000) weigh it against the others when
    /// there is more to do than time; with `latency_ms` it is run at least that often, roughly.
    pub fn new(_name: &str, shares: usize, _latency_ms: Option<u64>) -> TaskQueue {
        let core = world::current();
        TaskQueue { core: core.id, queue: core.add_queue(shares) }
    }
}

/// Starts a task in `queue`.
pub fn spawn_into<T: 'static>(queue: TaskQueue, future: impl Future<Output = T> + 'static) -> Task<T> {
    let core = world::current();
    assert_eq!(core.id, queue.core, "a task queue is used on the executor that made it");
    start(future, |core, world, body| core.spawn_into(world, queue.queue, body), &core)
}

/// Whether this task has had its time: then it should yield.
pub fn needs_preempt() -> bool {
    world::current().needs_preempt(&world::world())
}

/// Lets other tasks run.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets other tasks run if this one has had its time.
pub async fn yield_if_needed() {
    if needs_preempt() {
        yield_now().await;
    }
}

/// Runs `work` on the executor's helper thread. One at a time per executor: for rare, slow system calls.
///
/// A panic in it becomes an error.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    in_turn(compute(work)).await
}

/// Runs work on the helper thread of the core whose code runs, after what the thread was given before.
pub(crate) fn in_turn<T: 'static>(work: impl Future<Output = io::Result<T>> + 'static) -> Joined<io::Result<T>> {
    let helper = helper_of(&world::current());
    let turns = helper.turns.clone();
    spawn_on(&helper, async move {
        let _turn = turns.acquire(1).await;
        guarded(work).await
    })
}

/// The thread that does blocking work for a core.
pub(crate) fn helper_of(core: &Rc<Core>) -> Rc<Core> {
    let known = core.helper.borrow().clone();
    known.unwrap_or_else(|| {
        let name = format!("{}-helper", core.name);
        let thread = Thread { index: core.index, name, preempt_us: 1_000, is_helper: true };
        let helper = core.process.add_core(&world::world(), thread);
        *core.helper.borrow_mut() = Some(helper.clone());
        helper
    })
}

/// Work that a thread does in one go.
pub(crate) async fn compute<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let world = world::world();
    super::probe::spend_ns(world.streams.cores.between(world.settings.cores.blocking_ns));
    work()
}

/// A panic on a thread beside the executors becomes an error. A fault of the program it is all the same.
pub(crate) async fn guarded<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut work = pin!(work);
    poll_fn(move |context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|payload| {
            if Process::is_end(&*payload) {
                resume_unwind(payload);
            }
            let message = faults::describe_panic(&*payload);
            faults::note_violation(&world::world(), format!("work beside the executors panicked: {message}"));
            Poll::Ready(Err(io::Error::other("panicked")))
        })
    })
    .await
}
