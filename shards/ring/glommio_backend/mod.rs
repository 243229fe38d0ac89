//! The back end on glommio: io_uring, one executor per thread.

pub(crate) mod apart;
pub(crate) mod executors;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod host;
pub(crate) mod lane;
mod lease;
pub(crate) mod mesh;
pub(crate) mod port;
pub(crate) mod probe;
pub(crate) mod relief;
pub(crate) mod stall;
pub(crate) mod tasks;
pub(crate) mod tcp;
pub(crate) mod timer;

use std::io;

use glommio::GlommioError;

/// The plain I/O error in one of glommio's, with its error number if it has one.
pub(crate) fn io_error<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        GlommioError::EnhancedIoError { source, .. } => source,
        GlommioError::TimedOut(_) => io::ErrorKind::TimedOut.into(),
        other => io::Error::other(other.to_string()),
    }
}
