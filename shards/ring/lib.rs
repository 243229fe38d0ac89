//! The one crate that knows the async runtime: executors, sockets, direct-I/O files, frames, channels, clock.
