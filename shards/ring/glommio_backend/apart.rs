//! Long work on a thread of its own: reading and writing snapshots of the metadata, removing a log, looking up names.
//!
//! [`crate::blocking`] has one helper thread per executor, which quick calls share, those among them that
//! acknowledgements wait for; something that takes a while must not stand in their way. Such work is rare, so a thread
//! is made for each and ends with it. What must be done in order goes to a [`crate::Lane`].

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::outside::outside_channel;

/// How much nicer than the executors the thread is.
const NICENESS: libc::c_int = 5;

/// Runs `work` on a new thread, which may use any of the process's CPUs. A panic in it becomes an error.
pub async fn blocking_apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = outside_channel(1);
    let run = move || {
        leave_the_executors_cpu();
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("panicked")));
        let _ = sender.send(outcome);
    };
    // Not awaited: who waits for it may be dropped meanwhile.
    drop(thread::Builder::new().name(name.to_owned()).spawn(run)?);
    receiver.recv().await.unwrap_or_else(|| Err(io::Error::other("the thread ended without an answer")))
}

/// A thread inherits the CPU that its maker is pinned to; the process's main thread isn't pinned.
pub(crate) fn leave_the_executors_cpu() {
    let mut mask = [0u64; 128];
    let size = mem::size_of_val(&mask);
    // SAFETY: no arguments.
    let main_thread = unsafe { libc::getpid() };
    // SAFETY: the mask is valid for its size in bytes.
    let known = unsafe { libc::sched_getaffinity(main_thread, size, mask.as_mut_ptr().cast()) };
    if known == 0 {
        // SAFETY: the mask was filled by the call above; 0 is this thread.
        unsafe { libc::sched_setaffinity(0, size, mask.as_ptr().cast()) };
    }
    // SAFETY: plain numbers; on Linux 0 is this thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}
