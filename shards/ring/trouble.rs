//! What an I/O error means: the disk's own fault, a full disk, or something that this host has too little of.
//!
//! A lack of descriptors or kernel memory says nothing about the disk, and passes. Operations that open something wait
//! and try again for a while ([`patiently`]); before each try, who holds descriptors that can be spared is asked to
//! let some go ([`on_shortage`]).

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use crate::backend::relief;
use crate::backend::timer::sleep_ms;

/// The first wait; doubled each time.
const FIRST_WAIT_MS: u64 = 5;
/// Tries before the error is given to the caller, after a bit more than a second in all.
const TRIES: u32 = 9;

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The disk, or the user's part of it, is full.
    Full,
    /// Too few descriptors, in this process or the whole system, or too little memory in the kernel.
    Shortage,
    /// Anything else: the disk or file system fails.
    Fault,
}

/// What `error` says.
pub fn trouble(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Trouble::Full,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Trouble::Shortage,
        _ => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
            io::ErrorKind::OutOfMemory => Trouble::Shortage,
            _ => Trouble::Fault,
        },
    }
}

/// `relief` is called on this executor when something can't be opened for want of a descriptor.
pub fn on_shortage(relief: impl Fn() + 'static) {
    relief::set(Rc::new(relief));
}

/// Runs `attempt` again as long as it fails for want of something that comes back, a second or so at most.
pub(crate) async fn patiently<T>(mut attempt: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
    let mut wait_ms = FIRST_WAIT_MS;
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if trouble(&error) == Trouble::Shortage => {}
            outcome => return outcome,
        }
        if let Some(relief) = relief::get() {
            relief();
        }
        sleep_ms(wait_ms).await;
        wait_ms *= 2;
    }
    attempt().await
}

/// [`patiently`] for work that is taken elsewhere to be done, and comes back from there with its outcome.
pub(crate) async fn again<T, W>(work: W, attempt: impl AsyncFn(W) -> io::Result<(io::Result<T>, W)>) -> io::Result<T> {
    let work = Cell::new(Some(work));
    patiently(async || {
        let Some(now) = work.take() else { return Err(io::Error::other("panicked")) };
        let (outcome, now) = attempt(now).await?;
        work.set(Some(now));
        outcome
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_are_faults_of_the_disk() {
        let of = |number| trouble(&io::Error::from_raw_os_error(number));
        assert_eq!([libc::ENOSPC, libc::EDQUOT].map(of), [Trouble::Full; 2]);
        assert_eq!([libc::EMFILE, libc::ENFILE, libc::ENOMEM].map(of), [Trouble::Shortage; 3]);
        assert_eq!([libc::EIO, libc::EROFS, libc::ENOENT, libc::EACCES].map(of), [Trouble::Fault; 4]);
        assert_eq!(trouble(&io::ErrorKind::StorageFull.into()), Trouble::Full);
        assert_eq!(trouble(&io::Error::other("a panic")), Trouble::Fault);
    }
}
