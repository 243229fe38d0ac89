//! Starting executors on pinned threads, stopping them, and waiting for their end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::io_error;
use super::stall::{self, Pulse};
use crate::backend::tasks::{TaskQueue, spawn_into};
use crate::local::Notify;
use crate::timing::Elapsed;
use crate::vocabulary::{ExecutorOptions, StartError};

/// What an executor's main future gets.
pub struct ExecutorContext {
    index: usize,
    count: usize,
    events: mpsc::Sender<(usize, Event)>,
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
        let _ = self.events.send((self.index, Event::Ready));
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
    events: mpsc::Sender<(usize, Event)>,
}

impl FaultSender {
    /// For this reason. Of several the first counts.
    pub fn send(&self, reason: String) {
        let _ = self.events.send((self.index, Event::Failed(reason)));
    }
}

/// Knows whether this executor was asked to stop.
#[derive(Clone)]
pub struct Stopped {
    pulse: Arc<Pulse>,
    notify: Notify,
}

impl Stopped {
    /// Waits until asked to stop.
    pub async fn wait(&self) {
        while !self.pulse.stopping() {
            self.notify.wait().await;
        }
    }

    /// Whether asked to stop.
    pub fn is_set(&self) -> bool {
        self.pulse.stopping()
    }
}

/// Asks all executors to stop; for any thread.
#[derive(Clone)]
pub struct StopHandle {
    pulses: Arc<[Arc<Pulse>]>,
    events: mpsc::Sender<(usize, Event)>,
}

impl StopHandle {
    /// Sets every executor's [`Stopped`].
    pub fn stop(&self) {
        for pulse in self.pulses.iter() {
            pulse.stop();
        }
        let _ = self.events.send((0, Event::StopAsked));
    }
}

/// What the thread that started the executors gets to know of them.
enum Event {
    Ready,
    Failed(String),
    Ended,
    StopAsked,
}

/// The running executors. Waiting for them blocks the calling thread, which must not be an executor's; it is async for the
/// simulation.
///
/// A panic in any task ends the process (`panic = "abort"` in the project's profiles): a shard in a wrong state must
/// not go on. Where panics unwind (unit tests), [`Executors::join`] raises it again.
pub struct Executors<T: Send + 'static> {
    handles: Vec<ExecutorJoinHandle<T>>,
    events: mpsc::Receiver<(usize, Event)>,
    stop: StopHandle,
    ended: usize,
}

impl<T: Send + 'static> Executors<T> {
    /// Starts one executor per entry, each on its own thread, and runs the entry's future on it.
    ///
    /// Returns when all rings are set up; the futures start only then, so that none runs when another can't.
    pub fn start<F, Fut>(executors: Vec<(ExecutorOptions, F)>) -> Result<Executors<T>, StartError>
    where
        F: FnOnce(ExecutorContext) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let count = executors.len();
        let pulses: Arc<[Arc<Pulse>]> = (0..count).map(|_| Pulse::new()).collect();
        let (events, received) = mpsc::channel();
        let (mut handles, mut starts) = (Vec::new(), Vec::new());
        for (index, (options, main)) in executors.into_iter().enumerate() {
            let (up_sender, up) = mpsc::channel();
            let (start_sender, start_receiver) = mpsc::channel::<()>();
            let (pulse, events) = (Arc::clone(&pulses[index]), events.clone());
            let body = move || async move {
                let _ = up_sender.send(());
                // Blocks the thread, which has nothing else to do yet. No word means that another one failed.
                if start_receiver.recv().is_err() {
                    std::future::pending::<()>().await;
                }
                let value = run_main(index, count, pulse, events.clone(), main).await;
                let _ = events.send((index, Event::Ended));
                value
            };
            let handle = builder(&options).spawn(body);
            let handle = handle.map_err(|error| StartError::NoExecutor { index, source: io_error(error) })?;
            match up.recv() {
                Ok(()) => {}
                Err(_) => {
                    let error = handle.join().err().map_or_else(|| io::Error::other("ended at once"), io_error);
                    return Err(StartError::NoExecutor { index, source: error });
                }
            }
            handles.push(handle);
            starts.push(start_sender);
        }
        stall::watch(pulses.to_vec()).map_err(StartError::Watchdog)?;
        for start in starts {
            let _ = start.send(());
        }
        Ok(Executors { handles, events: received, stop: StopHandle { pulses, events }, ended: 0 })
    }

    /// Waits until every executor has called [`ExecutorContext::ready`]. Ends as soon as one fails or ends, or they are
    /// asked to stop; the others are as they are then.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        for _ in 0..self.handles.len() {
            match self.events.recv() {
                Ok((_, Event::Ready)) => {}
                Ok((index, Event::Failed(reason))) => return Err(StartError::Failed { index, reason }),
                Ok((index, Event::Ended)) => {
                    self.ended += 1;
                    return Err(StartError::EndedEarly { index });
                }
                Ok((_, Event::StopAsked)) | Err(_) => return Err(StartError::Stopped),
            }
        }
        Ok(())
    }

    /// Waits until all futures have ended, or one says that it can't do its work.
    pub async fn end(&mut self) -> Result<(), StartError> {
        while self.ended < self.handles.len() {
            match self.events.recv() {
                Ok((_, Event::Ended)) => self.ended += 1,
                Ok((index, Event::Failed(reason))) => return Err(StartError::Failed { index, reason }),
                Ok((_, Event::Ready | Event::StopAsked)) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Waits until all futures have ended, for so long at most; whether they have.
    pub async fn end_within(&mut self, limit_ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        while self.ended < self.handles.len() {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((_, Event::Ended)) => self.ended += 1,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    /// Asks them to stop, from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Waits for all futures to end; their values in order.
    pub async fn join(self) -> Vec<T> {
        let join = |(index, handle): (usize, ExecutorJoinHandle<T>)| match handle.join() {
            Ok(value) => value,
            Err(error) => panic!("executor {index} failed: {error}"),
        };
        self.handles.into_iter().enumerate().map(join).collect()
    }
}

/// Runs a future on the calling thread, which isn't an executor's, and sleeps while it waits.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    wait(future, None).expect("there is no limit")
}

/// The future's value, or [`Elapsed`] after `ms` milliseconds, on a thread that isn't an executor's. Blocks it.
pub async fn timeout_outside_ms<T>(ms: u64, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    wait(future, Some(Duration::from_millis(ms))).ok_or(Elapsed)
}

/// Polls a future until it has a value, or time is up.
fn wait<T>(future: impl Future<Output = T>, limit: Option<Duration>) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        match limit.map(|limit| limit.saturating_sub(begun.elapsed())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

fn builder(options: &ExecutorOptions) -> LocalExecutorBuilder {
    let builder = LocalExecutorBuilder::new(options.cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(&options.name)
        .io_memory(options.io_memory_bytes)
        .ring_depth(options.ring_depth)
        .preempt_timer(Duration::from_micros(options.preempt_timer_us));
    match options.spin_before_park_us {
        0 => builder,
        us => builder.spin_before_park(Duration::from_micros(us)),
    }
}

async fn run_main<F, Fut, T>(
    index: usize,
    count: usize,
    pulse: Arc<Pulse>,
    events: mpsc::Sender<(usize, Event)>,
    main: F,
) -> T
where
    F: FnOnce(ExecutorContext) -> Fut,
    Fut: Future<Output = T> + 'static,
{
    pulse.attach();
    let notify = Notify::new();
    let stopped = Stopped { pulse: Arc::clone(&pulse), notify: notify.clone() };
    let beating = Arc::clone(&pulse);
    // In a queue of its own: how soon it runs is how soon the executor comes round, however many tasks wait for a turn.
    spawn_into(TaskQueue::new("pulse", 1000, Some(1)), async move {
        beating.beat().await;
        notify.notify_all();
        beating.beat_forever().await;
    })
    .detach();
    let value = main(ExecutorContext { index, count, events, stopped }).await;
    pulse.detach();
    super::file::forget_leases();
    value
}
