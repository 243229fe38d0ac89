//! What disks do wrong: noted where it happens, seen to by [`crate::log_dirs`].

use std::cell::RefCell;
use std::io;

use ringlog_ring as ring;

/// I/O errors of one shard that nobody has looked at yet.
#[derive(Default)]
pub struct DiskFaults {
    /// Place of the directory and what happened. Bounded: a directory is noted once.
    pending: RefCell<Vec<(usize, String)>>,
    arrived: ring::Notify,
}

impl DiskFaults {
    /// Something failed in the directory at `place`.
    pub fn report(&self, place: usize, what: String) {
        let mut pending = self.pending.borrow_mut();
        if !pending.iter().any(|(noted, _)| *noted == place) {
            pending.push((place, what));
            self.arrived.notify_all();
        }
    }

    /// Ends when something is reported.
    pub async fn reported(&self) {
        self.arrived.wait().await;
    }

    /// What was reported so far.
    pub fn take(&self) -> Vec<(usize, String)> {
        self.pending.take()
    }
}

/// The system's answer, with what to do where that is known.
pub fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "; the directory and all in it must belong to the user that runs Ringlog",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space on this disk and start again",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only: see the kernel's log for a disk error"
        }
        io::ErrorKind::NotADirectory => {
            "; a file is in the place of a directory: correct log.dirs, or move the file away"
        }
        io::ErrorKind::IsADirectory => "; a directory is in the place of a file: move it away",
        _ if error.raw_os_error() == Some(5) => "; the disk fails: see the kernel's log",
        _ => "",
    };
    format!("{error}{advice}")
}
