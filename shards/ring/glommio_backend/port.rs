//! Ports that a process takes before it serves there, and who holds one that it can't have.
//!
//! Executors share a port by SO_REUSEPORT, which any other process of the same user may join without an error: clients
//! would reach one or the other by chance. So the port is first taken without it, by a [`ClaimedPort`]: bound and made
//! to listen, which the kernel allows nobody else to do meanwhile, and at once unmade again, so that clients are refused
//! until somebody serves them. A claim that is kept also keeps the kernel from giving the port to an outgoing
//! connection.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use socket2::{Domain, Protocol, Socket, Type};

use crate::vocabulary::{PortHolder, SocketOptions};

use super::tcp::set_buffers;

/// A port of this host that no other process listens at.
#[derive(Debug)]
pub struct ClaimedPort {
    socket: Socket,
    address: SocketAddr,
}

/// A listening socket on its way to the executor that will accept from it; see [`crate::Listener::adopt`].
#[derive(Debug)]
pub struct ListeningSocket(pub(crate) Socket);

impl ClaimedPort {
    /// Takes the port. Fails with `AddrInUse` while anybody else listens there, whatever the options of that socket,
    /// and while a connection has it that was made without SO_REUSEADDR (in TIME-WAIT for up to a minute).
    pub fn claim(address: SocketAddr) -> io::Result<ClaimedPort> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // For connections in TIME-WAIT that were accepted there.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // Port 0 has become another one.
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        let claimed = ClaimedPort { socket, address };
        claimed.check()?;
        Ok(claimed)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on `count` sockets that share the port. Fails with `AddrInUse` if somebody has come to listen there since
    /// the claim, or is about to: try again.
    pub fn listen(&self, options: SocketOptions, count: usize) -> io::Result<Vec<ListeningSocket>> {
        let _turn = self.turn()?;
        self.check()?;
        (0..count).map(|_| share(self.address, options)).collect()
    }

    /// Nobody else listens there.
    fn check(&self) -> io::Result<()> {
        self.socket.listen(1)?;
        // Stops listening; the port stays bound.
        self.socket.shutdown(Shutdown::Both)
    }

    /// Two processes that have a claim each must not check at a time and then both listen. The name is one of this
    /// network namespace, as the port is, and is free again when this process ends in whatever way.
    fn turn(&self) -> io::Result<UnixDatagram> {
        let name = format!("ringlog-listen-{}", self.address.port());
        UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(name)?)
    }
}

fn share(address: SocketAddr, options: SocketOptions) -> io::Result<ListeningSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit both; the receive buffer's size must be known before the handshake.
    set_buffers(&socket, options)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(ListeningSocket(socket))
}

/// Looks who listens at `address`. Reads what the kernel says of all sockets: for the moment when a port can't be had.
pub fn port_holder(address: SocketAddr) -> PortHolder {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let texts = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: Vec<String> = texts.flat_map(|text| listening_inodes(&text, address)).collect();
    if inodes.is_empty() { PortHolder::Nobody } else { process_of(&inodes).unwrap_or(PortHolder::Hidden) }
}

/// Inodes of the sockets in a table of the kernel's that listen where `address` would.
fn listening_inodes(table: &str, address: SocketAddr) -> Vec<String> {
    const LISTENING: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (host, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_wanted = *state == LISTENING && port == address.port() && overlap(parse_host(host)?, address.ip());
        is_wanted.then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Words of 32 bits in the machine's order.
fn parse_host(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|octets| Ipv6Addr::from(octets).to_canonical())
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other.to_canonical() || one.is_unspecified() || other.is_unspecified()
}

/// The process that has one of these sockets open.
fn process_of(inodes: &[String]) -> Option<PortHolder> {
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let has_it = |id: u32| {
        let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| wanted.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let id = ids.find(|id| has_it(*id))?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    Some(PortHolder::Process { id, name: name.trim().to_owned() })
}
