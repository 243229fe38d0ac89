//! Executors, clocks, sockets, direct files and frames: everything that touches the kernel.
//!
//! Runs on: every core; an object belongs to the executor that made it unless its type is `Send`. Knows bytes, offsets
//! in files and addresses, nothing of Kafka. The only crate that may use glommio and `unsafe`.
//!
//! The public types come from one back end, chosen at compile time: glommio here; a simulated one (virtual time,
//! faulty disk and network) takes its place under `--cfg ringlog_sim`. What no back end differs in (frames, local
//! synchronisation, host checks) lies beside it.

#[cfg(not(ringlog_sim))]
#[path = "glommio_backend/mod.rs"]
mod backend;
#[cfg(ringlog_sim)]
#[path = "sim_backend/mod.rs"]
mod backend;
mod frame;
pub mod fs;
mod gate;
mod lane;
mod local;
mod outside;
mod semaphore;
mod timing;
mod trouble;
mod turns;
mod vocabulary;

pub use backend::apart::blocking_apart;
pub use backend::executors::{
    ExecutorContext, Executors, FaultSender, StopHandle, Stopped, block_on, timeout_outside_ms,
};
pub use backend::file::{File, disk_reads};
pub use backend::host::{allowed_cpus, halt, hostname, lookup, memory, probe, raise_nofile, usable_cpus};
pub use backend::mesh::{MeshBuilder, MeshEndpoint};
pub use backend::port::{ClaimedPort, ListeningSocket, port_holder};
pub use backend::probe::{observe, spend_ns};
#[cfg(ringlog_sim)]
pub use backend::sim;
pub use backend::stall::stall_stats;
pub use backend::tasks::{
    Task, TaskQueue, blocking, needs_preempt, spawn, spawn_detached, spawn_into, yield_if_needed, yield_now,
};
pub use backend::tcp::{Connection, Listener};
pub use backend::timer::{sleep_ms, sleep_until};
pub use frame::{Frame, FramePool, FrameSlice, MAX_FRAME_BYTES, MIN_FRAME_BYTES};
pub use gate::{Gate, GateClosed, GatePass};
pub use lane::Lane;
pub use local::{
    Disconnected, LocalReceiver, LocalSender, Notified, Notify, OneshotReceiver, OneshotSender, TryLocalSendError,
    local_channel, oneshot,
};
pub use outside::{OutsideReceiver, OutsideSender, outside_channel};
pub use semaphore::{BytePermit, ByteSemaphore};
pub use timing::{Alarm, Elapsed, monotonic_ns, now, timeout_ms};
pub use trouble::{Trouble, on_shortage, trouble};
pub use turns::Turns;
pub use vocabulary::{
    Direct, DiskReads, ExecutorOptions, HostMemory, Open, PortHolder, Refusal, SocketOptions, StallStats, StartError,
    TrySendError,
};

/// Positions and lengths of direct I/O are multiples of this.
pub const BLOCK_BYTES: usize = 4096;

/// The most one disk operation moves; larger ones are split. Some devices hang on reads above their maximum transfer.
pub const MAX_IO_BYTES: usize = 1 << 20;
