//! What a process runs on: tasks, timers, channels and turns in virtual time, named as in `shards/ring`.
//!
//! Whenever something happens to a process its tasks are polled in a random order, over and over until none makes
//! progress: so no wakers are needed, and one seed gives one order. A process that dies drops its tasks where they are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringlog_types::{MonotonicMs, Now};

use super::shared::{Event, Shared};
use super::time::{Clock, MS, Us};

/// Polls of all tasks at one moment; a process that needs more spins.
const MAX_PASSES: usize = 10_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// How a process ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Stopped,
    /// `process::exit` after a fault.
    Halted(String),
    /// The step had come at which the world wants it to crash.
    CrashStep,
}

/// One process.
pub(crate) struct Ring {
    pub shared: Rc<Shared>,
    pub node: usize,
    pub incarnation: u64,
    clock: Rc<Clock>,
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    has_progressed: Cell<bool>,
    /// When somebody wants to be polled again.
    next_wake: Cell<Us>,
    /// The earliest wake that stands in the world's queue.
    scheduled: Cell<Us>,
    end: RefCell<Option<End>>,
    is_dead: Cell<bool>,
    /// After so many steps of its tasks the process crashes.
    steps_to_crash: Cell<u64>,
}

impl Ring {
    pub(crate) fn new(shared: Rc<Shared>, node: usize, incarnation: u64, clock: Rc<Clock>) -> Rc<Ring> {
        Rc::new(Ring {
            shared,
            node,
            incarnation,
            clock,
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            has_progressed: Cell::new(false),
            next_wake: Cell::new(Us::MAX),
            scheduled: Cell::new(Us::MAX),
            end: RefCell::new(None),
            is_dead: Cell::new(false),
            steps_to_crash: Cell::new(u64::MAX),
        })
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now(self.shared.now())
    }

    /// Polls the tasks until nothing moves any more. Returns how the process ended, if it did.
    pub(crate) fn run(&self) -> Option<End> {
        let mut context = Context::from_waker(Waker::noop());
        for pass in 0.. {
            assert!(pass < MAX_PASSES, "the process of node {} spins", self.node);
            self.has_progressed.set(false);
            self.next_wake.set(Us::MAX);
            let mut tasks = self.tasks.take();
            if tasks.len() > 1 {
                let first = self.shared.schedule(tasks.len() as u64) as usize;
                tasks.rotate_left(first);
            }
            tasks.retain_mut(|task| {
                let is_done = self.end.borrow().is_none() && task.as_mut().poll(&mut context).is_ready();
                if is_done {
                    self.on_progress();
                }
                !is_done
            });
            let mut spawned = self.spawned.take();
            self.has_progressed.set(self.has_progressed.get() || !spawned.is_empty());
            tasks.append(&mut spawned);
            *self.tasks.borrow_mut() = tasks;
            if self.end.borrow().is_some() {
                return self.end.take();
            }
            if !self.has_progressed.get() {
                break;
            }
        }
        self.schedule_wake();
        None
    }

    fn schedule_wake(&self) {
        let (now, at) = (self.shared.now(), self.next_wake.get());
        let is_scheduled = (now + 1..=at).contains(&self.scheduled.get());
        if at != Us::MAX && !is_scheduled {
            let at = at.max(now + 1);
            self.scheduled.set(at);
            self.shared.post_at(at, Event::Wake { node: self.node, incarnation: self.incarnation });
        }
    }

    /// The process is gone: nothing of it runs any more.
    pub(crate) fn kill(&self) {
        self.is_dead.set(true);
        // A task's end may let another one go on; both are dropped, in no run.
        drop(self.tasks.take());
        drop(self.spawned.take());
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.get()
    }

    /// The process ends by itself, at once.
    pub(crate) fn exit(&self, end: End) {
        self.is_dead.set(self.is_dead.get() || end != End::Stopped);
        self.end.borrow_mut().get_or_insert(end);
    }

    /// The process is to crash between two of its steps, so many from now.
    pub(crate) fn crash_after(&self, steps: u64) {
        self.steps_to_crash.set(steps);
    }

    pub(crate) fn on_progress(&self) {
        self.has_progressed.set(true);
    }

    pub(crate) fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
        self.on_progress();
    }

    /// A task that ends when the handle is dropped.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) -> TaskHandle {
        let is_cancelled = Rc::new(Cell::new(false));
        let cancelled = is_cancelled.clone();
        let mut task = Box::pin(task);
        self.spawn_detached(poll_fn(
            move |context| {
                if cancelled.get() { Poll::Ready(()) } else { task.as_mut().poll(context) }
            },
        ));
        TaskHandle { ring: self.clone(), is_cancelled }
    }

    /// Between two steps: here the process may die.
    pub(crate) async fn step(&self) {
        let left = self.steps_to_crash.get();
        if left != u64::MAX {
            self.steps_to_crash.set(left.saturating_sub(1));
            if left <= 1 {
                self.exit(End::CrashStep);
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn is_past(&self, moment: Us) -> bool {
        let is_past = self.shared.now() >= moment;
        if !is_past {
            self.next_wake.set(self.next_wake.get().min(moment));
        }
        is_past
    }

    async fn sleep_until_moment(&self, moment: Us) {
        poll_fn(|_| if self.is_past(moment) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub(crate) async fn sleep_us(&self, us: Us) {
        if us > 0 {
            self.sleep_until_moment(self.shared.now() + us).await;
        }
    }

    pub(crate) async fn sleep_ms(&self, ms: u64) {
        self.sleep_us(ms.saturating_mul(MS)).await;
    }

    /// Whether the machine's clock has reached `deadline`; if not, the process is woken then.
    pub(crate) fn is_due(&self, deadline: MonotonicMs) -> bool {
        self.is_past(self.clock.moment_of(deadline))
    }

    /// What comes first: the outcome, or `None` when the time is over.
    pub(crate) async fn timeout_at<T>(&self, deadline: MonotonicMs, work: impl Future<Output = T>) -> Option<T> {
        let mut work = Box::pin(work);
        poll_fn(|context| {
            if let Poll::Ready(outcome) = work.as_mut().poll(context) {
                return Poll::Ready(Some(outcome));
            }
            if self.is_due(deadline) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// See [`Ring::spawn`].
pub(crate) struct TaskHandle {
    ring: Rc<Ring>,
    is_cancelled: Rc<Cell<bool>>,
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.is_cancelled.set(true);
        self.ring.on_progress();
    }
}

/// A bounded queue between tasks of a process.
pub(crate) struct Channel<T> {
    ring: Rc<Ring>,
    capacity: usize,
    queue: RefCell<VecDeque<T>>,
}

impl<T> Channel<T> {
    pub(crate) fn new(ring: &Rc<Ring>, capacity: usize) -> Rc<Channel<T>> {
        Rc::new(Channel { ring: ring.clone(), capacity, queue: RefCell::default() })
    }

    pub(crate) async fn send(&self, item: T) {
        poll_fn(|_| if self.queue.borrow().len() < self.capacity { Poll::Ready(()) } else { Poll::Pending }).await;
        self.push(item);
    }

    /// From outside of the process, which has no more room than that either: what doesn't fit is lost.
    pub(crate) fn push(&self, item: T) {
        if self.queue.borrow().len() < self.capacity {
            self.queue.borrow_mut().push_back(item);
            self.ring.on_progress();
        }
    }

    pub(crate) fn try_recv(&self) -> Option<T> {
        let item = self.queue.borrow_mut().pop_front();
        if item.is_some() {
            self.ring.on_progress();
        }
        item
    }
}

/// One at a time, first come first served.
pub(crate) struct Turns {
    ring: Rc<Ring>,
    next: Cell<u64>,
    serving: Cell<u64>,
}

impl Turns {
    pub(crate) fn new(ring: &Rc<Ring>) -> Turns {
        Turns { ring: ring.clone(), next: Cell::new(0), serving: Cell::new(0) }
    }

    pub(crate) async fn acquire(&self) -> Turn<'_> {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        poll_fn(|_| if self.serving.get() == ticket { Poll::Ready(()) } else { Poll::Pending }).await;
        Turn(self)
    }
}

/// The turn of whoever holds it.
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get() + 1);
        self.0.ring.on_progress();
    }
}
