//! Starting executors on pinned threads, stopping them, and waiting for their end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::io_error;
use crate::backend::tasks::spawn_detached;
use crate::local::Notify;
use crate::stall::{self, Pulse};

/// How an executor runs.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The thread's name.
    pub name: String,
    /// The CPU to pin it to; see [`crate::usable_cpus`].
    pub cpu: Option<usize>,
    /// Registered memory for disk reads. It must cover all reads at a time: more goes to the heap, at several times
    /// the cost.
    pub io_memory_bytes: usize,
    /// Entries of each of its rings.
    pub ring_depth: usize,
    /// The longest that sockets and disk aren't looked at while tasks are busy.
    pub preempt_timer_us: u64,
    /// How long to look for work before sleeping; 0 on few cores.
    pub spin_before_park_us: u64,
}

impl Default for ExecutorOptions {
    fn default() -> ExecutorOptions {
        ExecutorOptions {
            name: "shard".to_owned(),
            cpu: None,
            io_memory_bytes: 64 << 20,
            ring_depth: 512,
            preempt_timer_us: 1000,
            spin_before_park_us: 0,
        }
    }
}

/// Why an executor didn't come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none: it failed before its future ran.
    #[error("executor {index} can't start: {source}")]
    NoExecutor {
        /// Which one.
        index: usize,
        /// Often: too little locked memory.
        source: io::Error,
    },
    /// Its future ended before it said that it was ready.
    #[error("executor {index} ended before it was ready")]
    EndedEarly {
        /// Which one.
        index: usize,
    },
    /// Its future said that it can't do its work.
    #[error("{reason}")]
    Failed {
        /// Which one.
        index: usize,
        /// Why.
        reason: String,
    },
    /// They were asked to stop before all were ready.
    #[error("asked to stop")]
    Stopped,
    /// The watchdog's thread.
    #[error("can't start the watchdog: {0}")]
    Watchdog(io::Error),
}

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

    /// Tells [`Executors::wait_until_ready`] that this one is.
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

/// The running executors.
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
    pub fn wait_until_ready(&mut self) -> Result<(), StartError> {
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
    pub fn wait_for_end(&mut self) -> Result<(), StartError> {
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
    pub fn wait_until_ended(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
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
    pub fn join(self) -> Vec<T> {
        let join = |(index, handle): (usize, ExecutorJoinHandle<T>)| match handle.join() {
            Ok(value) => value,
            Err(error) => panic!("executor {index} failed: {error}"),
        };
        self.handles.into_iter().enumerate().map(join).collect()
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
    spawn_detached(async move {
        beating.beat().await;
        notify.notify_all();
        beating.beat_forever().await;
    });
    let value = main(ExecutorContext { index, count, events, stopped }).await;
    pulse.detach();
    super::file::forget_leases();
    value
}
