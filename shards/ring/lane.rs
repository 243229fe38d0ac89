//! A thread of its own for work that takes a while and must be done in order.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use crate::apart::leave_the_executors_cpu;
use crate::outside::outside_channel;
use crate::trouble::patiently_elsewhere;

type Job = Box<dyn FnOnce() + Send>;

/// Does one thing after the other on a thread that isn't an executor's, nor on its CPU alone. Ends when it is dropped.
///
/// Who hands work in waits for it, so what waits here is bounded by who does.
pub struct Lane(mpsc::Sender<Job>);

impl Lane {
    /// Starts the thread.
    pub fn start(name: &str) -> io::Result<Lane> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || {
            leave_the_executors_cpu();
            while let Ok(job) = jobs.recv() {
                job();
            }
        };
        // Not awaited: it ends with the last job after the lane is dropped.
        drop(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(Lane(sender))
    }

    /// Runs `work` after all that came before. When there were too few descriptors for it, it is done again after a while
    /// (in the meantime others may have their turn). A panic in it becomes an error.
    pub async fn run<T, W>(&self, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: FnMut() -> io::Result<T> + Send + 'static,
    {
        let run = |mut work: W| self.run_once(move || (work(), work));
        patiently_elsewhere(work, run).await
    }

    async fn run_once<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = outside_channel(1);
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| io::Error::other("panicked"));
            let _ = sender.send(outcome);
        };
        let ended = || io::Error::other("the thread has ended");
        self.0.send(Box::new(job)).map_err(|_| ended())?;
        receiver.recv().await.unwrap_or_else(|| Err(ended()))
    }
}
