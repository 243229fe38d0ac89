//! The crate from outside, on the back end that it was built with: real rings, sockets and files, or simulated ones.
//! One binary for all of it.

mod executors;
mod files;
mod mesh;
mod tcp;
mod waiting;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ringlog_ring::{ExecutorContext, ExecutorOptions, Executors};

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
    run_all(vec![(options(), |_context| main())]).pop().expect("one value")
}

/// Runs executors to their end.
fn run_all<T, F, Fut>(executors: Vec<(ExecutorOptions, F)>) -> Vec<T>
where
    T: Send + 'static,
    F: FnOnce(ExecutorContext) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    process(|| async { Executors::start(executors).expect("executors start").join().await })
}

/// Runs a process's main function.
#[cfg(not(ringlog_sim))]
fn process<T, Fut: Future<Output = T>>(main: impl FnOnce() -> Fut) -> T {
    ringlog_ring::block_on(main())
}

/// Runs a process's main function, in a world where things rarely go as a whole.
#[cfg(ringlog_sim)]
fn process<T: 'static, Fut: Future<Output = T> + 'static>(main: impl FnOnce() -> Fut + 'static) -> T {
    use ringlog_ring::sim::{DiskSettings, HostSettings, NetworkSettings, SECOND, Settings, World};

    let network = NetworkSettings { partial_permille: 200, ..NetworkSettings::default() };
    let world = World::new(Settings { seed: 11, network, ..Settings::default() });
    let disk = DiskSettings { partial_permille: 100, ..DiskSettings::default() };
    let host = world.add_host(HostSettings { disk: disk.clone(), ..HostSettings::named("host") });
    world.mount(host, &PathBuf::from(MEMORY), DiskSettings { direct: false, ..disk });
    let value = world.run_program(host, "test", 600 * SECOND, main);
    let violations = world.take_violations();
    assert!(violations.is_empty(), "{violations:?}");
    value.expect("the process ends")
}

fn localhost() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// A file system without direct I/O.
const MEMORY: &str = "/dev/shm";

/// A folder that is removed with the value.
struct Scratch(PathBuf);

#[cfg(not(ringlog_sim))]
impl Scratch {
    /// On the disk that the build uses, or, for `memory`, on a tmpfs.
    fn new(memory: bool) -> Scratch {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let base = if memory { MEMORY } else { env!("CARGO_TARGET_TMPDIR") };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(base).join(format!("ringlog-ring-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        Scratch(folder)
    }
}

#[cfg(not(ringlog_sim))]
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(ringlog_sim)]
impl Scratch {
    /// Every world has new disks.
    fn new(memory: bool) -> Scratch {
        Scratch(PathBuf::from(if memory { MEMORY } else { "/" }))
    }
}

impl Scratch {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
