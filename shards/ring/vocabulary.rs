//! Options and errors of what a back end provides.

use std::io;
use std::net::IpAddr;

/// How an executor runs.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The thread's name.
    pub name: String,
    /// The CPU to pin it to; see [`crate::usable_cpus`].
    pub cpu: Option<usize>,
    /// Registered memory for disk reads. It must cover all reads at a time: more goes to the heap, at several times
    /// the cost.
    pub io_memory_bytes: usize,
    /// Entries of each of its rings.
    pub ring_depth: usize,
    /// The longest that sockets and disk aren't looked at while tasks are busy.
    pub preempt_timer_us: u64,
    /// How long to look for work before sleeping; 0 on few cores.
    pub spin_before_park_us: u64,
}

impl Default for ExecutorOptions {
    fn default() -> ExecutorOptions {
        ExecutorOptions {
            name: "shard".to_owned(),
            cpu: None,
            io_memory_bytes: 64 << 20,
            ring_depth: 512,
            preempt_timer_us: 1000,
            spin_before_park_us: 0,
        }
    }
}

/// Memory of the host, or of the control group that this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What processes may still take without others having to give something up that they use.
    pub available_bytes: u64,
}

/// Why an executor didn't come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none: it failed before its future ran.
    #[error("executor {index} can't start: {source}")]
    NoExecutor {
        /// Which one.
        index: usize,
        /// Often: too little locked memory.
        source: io::Error,
    },
    /// Its future ended before it said that it was ready.
    #[error("executor {index} ended before it was ready")]
    EndedEarly {
        /// Which one.
        index: usize,
    },
    /// Its future said that it can't do its work.
    #[error("{reason}")]
    Failed {
        /// Which one.
        index: usize,
        /// Why.
        reason: String,
    },
    /// They were asked to stop before all were ready.
    #[error("asked to stop")]
    Stopped,
    /// The watchdog's thread.
    #[error("can't start the watchdog: {0}")]
    Watchdog(io::Error),
}

/// Why io_uring can't be used here; the text says what an operator does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// EPERM.
    #[error(
        "io_uring is forbidden here: {sysctl}. Set the sysctl kernel.io_uring_disabled to 0; in a container also use a \
         seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register (Docker: --security-opt \
         seccomp=unconfined or a profile of your own)"
    )]
    Forbidden {
        /// What `kernel.io_uring_disabled` says.
        sysctl: String,
    },
    /// ENOSYS.
    #[error("this kernel has no io_uring: use Linux 5.15 or later (running: {release})")]
    NoIoUring {
        /// The kernel's release.
        release: String,
    },
    /// Not enough locked memory.
    #[error(
        "the limit on locked memory is too small ({limit_bytes} bytes): raise it to 8 MiB or more per shard, best \
         unlimited (ulimit -l unlimited; LimitMEMLOCK=infinity in a systemd unit; --ulimit memlock=-1 for Docker)"
    )]
    LockedMemory {
        /// RLIMIT_MEMLOCK, soft.
        limit_bytes: u64,
    },
    /// Out of file descriptors.
    #[error("out of file descriptors: raise the limit on open files (ulimit -n, LimitNOFILE in a systemd unit)")]
    FileDescriptors,
    /// Anything else.
    #[error("io_uring can't be set up: {message}")]
    Other {
        /// The kernel's word for it.
        message: String,
    },
}

/// The address that a host's name is, if it is one.
pub(crate) fn numeric(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Whether to go around the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// Direct I/O if the file system allows it.
    Auto,
    /// Buffered I/O.
    Off,
}

/// How to open a file. Reading is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Make the file if it isn't there. Needs `write`.
    pub create: bool,
    /// Cut the file to nothing. Needs `write`.
    pub truncate: bool,
    /// Allow writing.
    pub write: bool,
    /// Direct or buffered.
    pub direct: Direct,
}

impl Open {
    /// An existing file, for reading.
    pub const READ: Open = Open { create: false, truncate: false, write: false, direct: Direct::Auto };
    /// An existing file, for reading and writing.
    pub const WRITE: Open = Open { write: true, ..Open::READ };
    /// A file made if need be, for reading and writing.
    pub const CREATE: Open = Open { create: true, ..Open::WRITE };
}

/// Options of a listener, for it and the connections it accepts.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// SO_SNDBUF; the kernel's choice without.
    pub send_buffer_bytes: Option<usize>,
    /// SO_RCVBUF; the kernel's choice without.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions { backlog: 1024, send_buffer_bytes: None, receive_buffer_bytes: None }
    }
}

/// Why [`crate::MeshEndpoint::try_send`] gave the message back.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<M> {
    /// The queue to that peer is full.
    Full(M),
    /// The peer has ended.
    Closed(M),
}

/// How often and how long executors of this process didn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallStats {
    /// Answers that took longer than 5 ms, for whatever reason: also because others had the CPU.
    pub stalls: u64,
    /// Those of them before which the executor itself used 5 ms of CPU time: some task of it, or several, didn't yield.
    pub held: u64,
    /// The slowest answer, in milliseconds.
    pub longest_stall_ms: u64,
    /// The most CPU time that an executor used before it answered, in milliseconds: what is above it in the slowest answer is
    /// others' work on its CPU.
    pub longest_busy_ms: u64,
}

/// What an executor has read by [`crate::File::read`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskReads {
    /// Operations.
    pub operations: u64,
    /// Bytes that they moved: whole blocks.
    pub bytes: u64,
}

/// Who listens at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortHolder {
    /// Nobody: it is a connection that has the port.
    Nobody,
    /// A process that can't be seen, as another user's.
    Hidden,
    /// This one.
    Process {
        /// Its id.
        id: u32,
        /// Its name.
        name: String,
    },
}
