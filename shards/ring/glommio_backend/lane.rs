//! A thread of its own that does one thing after the other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use super::apart::leave_the_executors_cpu;
use super::fs::at_once;
use crate::fs::Fs;
use crate::outside::outside_channel;

type Job = Box<dyn FnOnce() + Send>;

/// See [`crate::Lane`].
pub(crate) struct LaneThread(mpsc::Sender<Job>);

impl LaneThread {
    pub fn start(name: &str) -> io::Result<LaneThread> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || {
            leave_the_executors_cpu();
            while let Ok(job) = jobs.recv() {
                job();
            }
        };
        // Not awaited: it ends with the last job after the lane is dropped.
        drop(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(LaneThread(sender))
    }

    /// Runs `work` after all that came before. A panic in it becomes an error.
    pub async fn run<T, W>(&self, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
    {
        let (sender, receiver) = outside_channel(1);
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| at_once(work(super::fs::now()))));
            let _ = sender.send(outcome.unwrap_or_else(|_| Err(io::Error::other("panicked"))));
        };
        let ended = || io::Error::other("the thread has ended");
        self.0.send(Box::new(job)).map_err(|_| ended())?;
        receiver.recv().await.unwrap_or_else(|| Err(ended()))
    }
}
