//! Starting executors, stopping them, and waiting for their end.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::core::Thread;
use super::process::EXECUTOR_DESCRIPTORS;
use super::world;
use crate::timing::{Elapsed, timeout_ms};
use crate::vocabulary::{ExecutorOptions, StartError};

/// What an executor's main future gets.
pub struct ExecutorContext {
    index: usize,
    count: usize,
    events: Arc<Events>,
    stopped: Stopped,
}

impl ExecutorContext {
    /// Its place in the list given to [`Executors::start`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many executors there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tells [`Executors::ready`] that this one is.
    pub fn ready(&self) {
        self.events.send(self.index, Event::Ready);
    }

    /// Tells it, now or later, that this one can't do its work. The future may go on, until it is asked to stop or
    /// longer.
    pub fn faults(&self) -> FaultSender {
        FaultSender { index: self.index, events: self.events.clone() }
    }

    /// Resolves when a [`StopHandle`] asks to stop; a clone for another task.
    pub fn stopped(&self) -> Stopped {
        self.stopped.clone()
    }
}

/// Tells the thread that started the executors that one can't do its work.
pub struct FaultSender {
    index: usize,
    events: Arc<Events>,
}

impl FaultSender {
    /// For this reason. Of several the first counts.
    pub fn send(&self, reason: String) {
        self.events.send(self.index, Event::Failed(reason));
    }
}

/// What the thread that started the executors gets to know of them.
enum Event {
    Ready,
    Failed(String),
    Ended,
    StopAsked,
}

/// In their order, for one who waits.
#[derive(Default)]
struct Events(Mutex<EventQueue>);

#[derive(Default)]
struct EventQueue {
    queue: VecDeque<(usize, Event)>,
    waiter: Option<Waker>,
}

fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    fn send(&self, index: usize, event: Event) {
        let waiter = {
            let mut events = lock(&self.0);
            events.queue.push_back((index, event));
            events.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    async fn recv(&self) -> (usize, Event) {
        poll_fn(|context| {
            let mut events = lock(&self.0);
            match events.queue.pop_front() {
                Some(event) => Poll::Ready(event),
                None => {
                    events.waiter = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Whether executors shall stop, and who waits for that.
#[derive(Default)]
struct Stop {
    is_set: AtomicBool,
    waiters: Mutex<Vec<Waker>>,
}

/// Knows whether this executor was asked to stop.
#[derive(Clone)]
pub struct Stopped(Arc<Stop>);

impl Stopped {
    /// Waits until asked to stop.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set() {
                return Poll::Ready(());
            }
            let mut waiters = lock(&self.0.waiters);
            if !waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether asked to stop.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
    }
}

/// Asks all executors to stop; for any thread.
#[derive(Clone)]
pub struct StopHandle {
    stop: Arc<Stop>,
    events: Arc<Events>,
}

impl StopHandle {
    /// Sets every executor's [`Stopped`].
    pub fn stop(&self) {
        self.stop.is_set.store(true, Ordering::Relaxed);
        let waiters = std::mem::take(&mut *lock(&self.stop.waiters));
        waiters.into_iter().for_each(Waker::wake);
        self.events.send(0, Event::StopAsked);
    }
}

/// The running executors.
///
/// A panic in any task ends the process, and is a violation of the run.
pub struct Executors<T: Send + 'static> {
    /// Their values, once they have ended.
    values: Arc<Mutex<Vec<Option<T>>>>,
    count: usize,
    stop: StopHandle,
    ended: usize,
}

impl<T: Send + 'static> Executors<T> {
    /// Starts one executor per entry, and runs the entry's future on it.
    ///
    /// The futures start when all executors are there, so that none runs when another can't.
    pub fn start<F, Fut>(executors: Vec<(ExecutorOptions, F)>) -> Result<Executors<T>, StartError>
    where
        F: FnOnce(ExecutorContext) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (world, process) = (world::world(), world::current().process.clone());
        let count = executors.len();
        for (index, (options, _)) in executors.iter().enumerate() {
            let failed = |errno| StartError::NoExecutor { index, source: io::Error::from_raw_os_error(errno) };
            if options.cpu.is_some_and(|cpu| cpu >= process.host.cpus()) {
                process.return_descriptors(index * EXECUTOR_DESCRIPTORS);
                return Err(failed(libc::EINVAL));
            }
            if process.take_descriptors(EXECUTOR_DESCRIPTORS).is_err() {
                process.return_descriptors(index * EXECUTOR_DESCRIPTORS);
                return Err(failed(libc::EMFILE));
            }
        }
        let stop = StopHandle { stop: Arc::default(), events: Arc::default() };
        let values = Arc::new(Mutex::new((0..count).map(|_| None).collect::<Vec<_>>()));
        for (index, (options, main)) in executors.into_iter().enumerate() {
            let (name, preempt_us) = (options.name, options.preempt_timer_us);
            let core = process.add_core(&world, Thread { index, name, preempt_us, is_helper: false });
            let (events, stopped) = (stop.events.clone(), Stopped(stop.stop.clone()));
            let context = ExecutorContext { index, count, events: events.clone(), stopped };
            let (values, ending) = (values.clone(), core.clone());
            let body = async move {
                let value = main(context).await;
                lock(&values)[index] = Some(value);
                // What else it has is dropped, as with a thread that ends.
                let process = ending.process.clone();
                ending.end();
                process.return_descriptors(EXECUTOR_DESCRIPTORS);
                events.send(index, Event::Ended);
            };
            core.spawn_into(&world, 0, Box::pin(body));
        }
        Ok(Executors { values, count, stop, ended: 0 })
    }

    /// Waits until every executor has called [`ExecutorContext::ready`]. Ends as soon as one fails or ends, or they are
    /// asked to stop; the others are as they are then.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        for _ in 0..self.count {
            match self.stop.events.recv().await {
                (_, Event::Ready) => {}
                (index, Event::Failed(reason)) => return Err(StartError::Failed { index, reason }),
                (index, Event::Ended) => {
                    self.ended += 1;
                    return Err(StartError::EndedEarly { index });
                }
                (_, Event::StopAsked) => return Err(StartError::Stopped),
            }
        }
        Ok(())
    }

    /// Waits until all futures have ended, or one says that it can't do its work.
    pub async fn end(&mut self) -> Result<(), StartError> {
        while self.ended < self.count {
            match self.stop.events.recv().await {
                (_, Event::Ended) => self.ended += 1,
                (index, Event::Failed(reason)) => return Err(StartError::Failed { index, reason }),
                (_, Event::Ready | Event::StopAsked) => {}
            }
        }
        Ok(())
    }

    /// Waits until all futures have ended, for so long at most; whether they have.
    pub async fn end_within(&mut self, limit_ms: u64) -> bool {
        let events = self.stop.events.clone();
        let (ended, count) = (&mut self.ended, self.count);
        let all = async {
            while *ended < count {
                *ended += usize::from(matches!(events.recv().await.1, Event::Ended));
            }
        };
        timeout_ms(limit_ms, all).await.is_ok()
    }

    /// Asks them to stop, from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Waits for all futures to end; their values in order.
    pub async fn join(mut self) -> Vec<T> {
        while self.ended < self.count {
            self.ended += usize::from(matches!(self.stop.events.recv().await.1, Event::Ended));
        }
        lock(&self.values).drain(..).flatten().collect()
    }
}

/// The future's value, or [`Elapsed`] after `ms` milliseconds, on a thread that isn't an executor's.
pub async fn timeout_outside_ms<T>(ms: u64, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    timeout_ms(ms, future).await
}

/// Simulated code has no threads of its own that could wait.
pub fn block_on<T>(_future: impl Future<Output = T>) -> T {
    panic!("simulated code awaits instead of blocking a thread")
}
