//! The simulated world: what happens in it, and that one seed decides it.
#![cfg(ringlog_sim)]

mod disks;
mod names;
mod network;
mod processes;
mod seeds;
mod tasks;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_ring::sim::{HostId, HostSettings, SECOND, Settings, World};
use ringlog_ring::{ClaimedPort, Connection, Listener, SocketOptions, fs};

/// A world with two hosts, `n0` and `n1`.
fn world(seed: u64) -> (World, [HostId; 2]) {
    let world = World::new(Settings { seed, ..Settings::default() });
    let hosts = ["n0", "n1"].map(|name| world.add_host(HostSettings::named(name)));
    (world, hosts)
}

/// Runs a program to its end.
fn run<T: 'static, Fut: Future<Output = T> + 'static>(
    world: &World,
    host: HostId,
    main: impl FnOnce() -> Fut + 'static,
) -> T {
    world.run_program(host, "test", 3600 * SECOND, main).expect("the program ends")
}

/// Something that programs and the test itself look at.
fn shared<T: Default>() -> Rc<RefCell<T>> {
    Rc::default()
}

/// What different seeds show.
fn outcomes<T: Ord>(seeds: u64, show: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..seeds).map(show).collect()
}

fn calm(world: &World) {
    let violations = world.take_violations();
    assert!(violations.is_empty(), "{violations:?}");
}

async fn write(connection: &Connection, bytes: &[u8]) -> std::io::Result<()> {
    connection.write_chunks(&mut VecDeque::from([Bytes::copy_from_slice(bytes)])).await
}

/// Writes a file that survives everything.
async fn put(path: &str, bytes: &[u8]) {
    let (path, bytes) = (Path::new(path).to_path_buf(), bytes.to_vec());
    fs::write_atomically(path, bytes).await.expect("writes");
}

/// Listens at an address.
fn listen(address: &str, options: SocketOptions) -> std::io::Result<Listener> {
    let port = ClaimedPort::claim(address.parse().expect("an address"))?;
    Ok(port.listen(options, 1)?.into_iter().map(Listener::adopt).next().expect("one"))
}
