//! The crate from outside: real rings, sockets and files. One binary for all of it.

mod executors;
mod files;
mod mesh;
mod tcp;
mod waiting;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringlog_ring::{ExecutorOptions, Executors};

/// Small rings, so that several executors fit into a modest limit on locked memory.
fn options() -> ExecutorOptions {
    ExecutorOptions { io_memory_bytes: 256 * 1024, ring_depth: 32, ..ExecutorOptions::default() }
}

/// Runs a future on an executor of its own.
fn run<T, F, Fut>(main: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let executors = Executors::start(vec![(options(), |_context| main())]).expect("an executor starts");
    executors.join().pop().expect("one value")
}

fn localhost() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// A folder that is removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    /// On the disk that the build uses, or, for `memory`, on a tmpfs.
    fn new(memory: bool) -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let base = if memory { PathBuf::from("/dev/shm") } else { PathBuf::from(env!("CARGO_TARGET_TMPDIR")) };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = base.join(format!("ringlog-ring-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        Scratch(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
