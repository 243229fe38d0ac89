//! Ports that a process takes before it serves there.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::process::Process;
use super::tcp::network::PortUse;
use super::world;
use crate::vocabulary::{PortHolder, SocketOptions};

/// A port of this host that no other process listens at.
#[derive(Debug)]
pub struct ClaimedPort {
    process: u32,
    id: u32,
    address: SocketAddr,
}

/// A listening socket on its way to the executor that will accept from it; see [`crate::Listener::adopt`].
#[derive(Debug)]
pub struct ListeningSocket {
    process: u32,
    id: u32,
    address: SocketAddr,
}

/// Takes a descriptor of the running process for what `open` gives.
fn with_descriptor<T>(open: impl FnOnce(&Rc<Process>) -> io::Result<T>) -> io::Result<T> {
    let process = world::current().process.clone();
    process.take_descriptors(1)?;
    open(&process).inspect_err(|_| process.return_descriptors(1))
}

/// Gives back a descriptor of a process that still runs; nobody's otherwise.
fn close(process: u32, id: u32) {
    let Some(world) = world::try_world() else { return };
    if let Some(process) = world.process(process).filter(|process| !process.has_ended()) {
        process.return_descriptors(1);
        world.network.borrow_mut().close_listener(&world, id);
    }
}

impl ClaimedPort {
    /// Takes the port. Fails with `AddrInUse` while anybody else listens there.
    pub fn claim(address: SocketAddr) -> io::Result<ClaimedPort> {
        with_descriptor(|process| {
            let options = SocketOptions::default();
            let (id, address) =
                world::world().network.borrow_mut().bind(process, address, options, PortUse::Claimed)?;
            Ok(ClaimedPort { process: process.id, id, address })
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on `count` sockets that share the port. Fails with `AddrInUse` if somebody has come to listen there since
    /// the claim.
    pub fn listen(&self, options: SocketOptions, count: usize) -> io::Result<Vec<ListeningSocket>> {
        world::world().network.borrow().check(&world::current().process.host, self.address, PortUse::Claimed)?;
        (0..count).map(|_| ListeningSocket::open(self.address, options, PortUse::Shared)).collect()
    }
}

impl Drop for ClaimedPort {
    fn drop(&mut self) {
        close(self.process, self.id);
    }
}

impl ListeningSocket {
    pub(crate) fn open(address: SocketAddr, options: SocketOptions, how: PortUse) -> io::Result<ListeningSocket> {
        with_descriptor(|process| {
            let (id, address) = world::world().network.borrow_mut().bind(process, address, options, how)?;
            Ok(ListeningSocket { process: process.id, id, address })
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        close(self.process, self.id);
    }
}

/// Looks who listens at `address`.
pub fn port_holder(address: SocketAddr) -> PortHolder {
    let world = world::world();
    let holder = world.network.borrow().holder(&world::current().process.host, address);
    match holder.and_then(|id| world.process(id)) {
        Some(process) => PortHolder::Process { id: process.id, name: process.name.clone() },
        None => PortHolder::Nobody,
    }
}
