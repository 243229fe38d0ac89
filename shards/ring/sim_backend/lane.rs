//! A thread of its own that does one thing after the other.

use std::io;
use std::rc::Rc;

use super::core::{Core, Thread};
use super::fs;
use super::tasks::{guarded, spawn_on};
use super::world;
use crate::fs::Fs;

/// See [`crate::Lane`].
pub(crate) struct LaneThread(Rc<Core>);

impl LaneThread {
    pub fn start(name: &str) -> io::Result<LaneThread> {
        let core = world::current();
        let thread = Thread { index: core.index, name: name.to_owned(), preempt_us: 1_000, is_helper: true };
        Ok(LaneThread(core.process.add_core(&world::world(), thread)))
    }

    /// Runs `work` after all that came before. A panic in it becomes an error.
    pub async fn run<T, W>(&self, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: AsyncFnOnce(Fs) -> io::Result<T> + Send + 'static,
    {
        let turns = self.0.turns.clone();
        let work = async move {
            let _turn = turns.acquire(1).await;
            guarded(async move { work(fs::now()).await }).await
        };
        spawn_on(&self.0, work).await
    }
}

impl Drop for LaneThread {
    fn drop(&mut self) {
        // It ends with the last job: whoever waits for that has a turn.
        let thread = self.0.clone();
        if thread.has_ended() || thread.process.has_ended() {
            return;
        }
        let turns = thread.turns.clone();
        let ending = async move {
            let _last = turns.acquire(1).await;
            thread.process.remove_core(&thread);
        };
        drop(spawn_on(&self.0, ending));
    }
}
