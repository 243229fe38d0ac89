//! Wakers of tasks: numbers that any thread may hold, of tasks that live on this one.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use super::world;

/// Names a task.
pub(crate) struct TaskWaker {
    /// The world that it is in; numbers of cores and tasks begin anew in each.
    pub world: u64,
    pub core: u32,
    /// Its place among the core's tasks.
    pub key: usize,
    /// Tells it from others that had the place.
    pub serial: u64,
    /// It is on its way to be run.
    pub is_woken: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            note(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            note(self.clone());
        }
    }
}

/// A task that was woken: by which core, if by one, and when.
pub(crate) struct Woken {
    pub task: Arc<TaskWaker>,
    pub by: Option<u32>,
    pub at_ns: u64,
}

thread_local! {
    /// Apart from the world, which may be in the middle of something when a destructor wakes somebody.
    static WOKEN: RefCell<Vec<Woken>> = const { RefCell::new(Vec::new()) };
}

fn note(task: Arc<TaskWaker>) {
    let Some((by, at_ns)) = world::moment() else { return };
    WOKEN.with_borrow_mut(|woken| woken.push(Woken { task, by, at_ns }));
}

/// Takes those that were woken since the last call, in their order, into `into`, which is empty.
pub(crate) fn take_woken(into: &mut Vec<Woken>) {
    WOKEN.with_borrow_mut(|woken| std::mem::swap(woken, into));
}
