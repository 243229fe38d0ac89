//! A thread of its own for work on files that takes a while and must be done in order.

use std::io;

use crate::backend::lane::LaneThread;
use crate::fs::Fs;
use crate::trouble::again;

/// Does one thing after the other on a thread that isn't an executor's, nor on its CPU alone. Ends when it is dropped.
///
/// Who hands work in waits for it, so what waits here is bounded by who does.
pub struct Lane(LaneThread);

impl Lane {
    /// Starts the thread.
    pub fn start(name: &str) -> io::Result<Lane> {
        LaneThread::start(name).map(Lane)
    }

    /// Runs `work` after all that came before. When there were too few descriptors for it, it is done again after a while
    /// (in the meantime others may have their turn). A panic in it becomes an error.
    pub async fn run<T, W>(&self, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: AsyncFnMut(Fs) -> io::Result<T> + Send + 'static,
    {
        again(work, async |mut work| self.0.run(async move |fs| Ok((work(fs).await, work))).await).await
    }
}
