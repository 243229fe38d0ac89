//! Executors, clocks, sockets, direct files and frames: everything that touches the kernel.
//!
//! Runs on: every core; an object belongs to the executor that made it unless its type is `Send`. Knows bytes, offsets
//! in files and addresses, nothing of Kafka. The only crate that may use glommio and `unsafe`.
//!
//! The public types come from one back end, chosen at compile time: glommio here; a simulated one (virtual time,
//! faulty disk and network) takes its place under `--cfg ringlog_sim`. What no back end differs in (frames, local
//! synchronisation, host checks) lies beside it.

mod apart;
#[path = "glommio_backend/mod.rs"]
mod backend;
mod frame;
pub mod fs;
mod gate;
mod host;
mod lane;
mod lease;
mod local;
mod outside;
mod port;
mod semaphore;
mod stall;
mod timing;
mod trouble;

pub use apart::blocking_apart;
pub use backend::executors::{
    ExecutorContext, ExecutorOptions, Executors, FaultSender, StartError, StopHandle, Stopped,
};
pub use backend::file::{Direct, DiskReads, File, Open, disk_reads};
pub use backend::mesh::{MeshBuilder, MeshEndpoint, TrySendError};
pub use backend::tasks::{
    Task, TaskQueue, blocking, blocking_again, needs_preempt, spawn, spawn_detached, spawn_into, yield_if_needed,
    yield_now,
};
pub use backend::tcp::{Connection, Listener, SocketOptions};
pub use backend::timer::{sleep_ms, sleep_until};
pub use frame::{Frame, FramePool, FrameSlice, MAX_FRAME_BYTES, MIN_FRAME_BYTES};
pub use gate::{Gate, GateClosed, GatePass};
pub use host::{Refusal, allowed_cpus, probe, raise_nofile, usable_cpus};
pub use lane::Lane;
pub use local::{
    Disconnected, LocalReceiver, LocalSender, Notified, Notify, OneshotReceiver, OneshotSender, TryLocalSendError,
    local_channel, oneshot,
};
pub use outside::{OutsideReceiver, OutsideSender, outside_channel};
pub use port::{ClaimedPort, ListeningSocket, PortHolder, port_holder};
pub use semaphore::{BytePermit, ByteSemaphore};
pub use stall::{StallStats, stall_stats};
pub use timing::{Alarm, Elapsed, now, timeout_ms};
pub use trouble::{Trouble, on_shortage, trouble};

/// Positions and lengths of direct I/O are multiples of this.
pub const BLOCK_BYTES: usize = 4096;

/// The most one disk operation moves; larger ones are split. Some devices hang on reads above their maximum transfer.
pub const MAX_IO_BYTES: usize = 1 << 20;
