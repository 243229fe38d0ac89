//! Listeners: one socket per listener and core, which share the port, so that the kernel spreads connections.
//!
//! Ports are claimed before anything else of the node starts ([`claim_all`]), so that one which can't be had refuses the
//! start while nothing is changed yet; they are listened at when the node can serve ([`open`]).

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_config::{Listener, ServerConfig};
use ringlog_ring::{self as ring, ClaimedPort, ListeningSocket, PortHolder, SocketOptions};
use tracing::{info, warn};

use crate::core::{Core, Room};
use crate::flag::{ConnectionCount, Flag};
use crate::mesh::LocalFuture;
use crate::net::admission::{self, Admission};
use crate::net::connection::{self, Budgets};
use crate::net::request::ListenerInfo;
use crate::net::service::Service;
use crate::rarely::Rarely;
use crate::stop::StopRequest;

/// How long to stop accepting after the system refused a connection for lack of something.
const ACCEPT_BACKOFF_MS: u64 = 100;
/// How often to say that connections can't be accepted.
const SAY_EVERY_MS: u64 = 60_000;
/// How long open connections may take to finish at a stop.
const DRAIN_MS: u64 = 1_000;
/// How long the name of a listener's host may be looked up.
const RESOLVE_LIMIT_MS: u64 = 10_000;
/// How long a port is tried for at which another process listens: one that is just ending, if all is well.
const HELD_LIMIT_MS: u64 = 1_000;
/// How long one is tried for that some connection has.
const CONNECTED_LIMIT_MS: u64 = 5_000;
/// How often it is tried.
const TRY_EVERY_MS: u64 = 50;
/// How often one is tried that was claimed, and so may be there any moment.
const REOPEN_MS: u64 = 20;

/// Why a listener can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// The host name has no address.
    #[error(
        "listener {listener}: {host} has no address: {reason}. Correct the host in 'listeners', or what resolves names on \
         this machine"
    )]
    NoAddress {
        /// The listener's name.
        listener: String,
        /// Its host.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// The port is taken, or needs rights.
    #[error("listener {listener} can't be opened on {address}: {source}{}", remedy(source, holder))]
    Bind {
        /// The listener's name.
        listener: String,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
        /// Who listens there.
        holder: PortHolder,
    },
}

fn remedy(error: &std::io::Error, holder: &PortHolder) -> String {
    match (error.kind(), holder) {
        (std::io::ErrorKind::AddrInUse, PortHolder::Process { id, name }) => {
            format!(". Process {id} ({name}) listens there: stop it, or change 'listeners'")
        }
        (std::io::ErrorKind::AddrInUse, PortHolder::Hidden) => {
            ". Another process listens there: stop it, or change 'listeners'".to_owned()
        }
        (std::io::ErrorKind::AddrInUse, PortHolder::Nobody) => {
            ". Nobody listens there: an outgoing connection has the port, or had it less than a minute ago (TIME-WAIT). \
             Start again in a minute, or take a port outside of the sysctl net.ipv4.ip_local_port_range"
                .to_owned()
        }
        (std::io::ErrorKind::PermissionDenied, _) => ". Ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        (std::io::ErrorKind::AddrNotAvailable, _) => {
            ". The address isn't one of this host's: change 'listeners' (what clients are told is 'advertised.listeners')"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// A listener of the configuration and the port that is kept for it.
#[derive(Debug)]
pub struct ClaimedListener {
    name: String,
    is_controller: bool,
    port: ClaimedPort,
}

#[cfg(test)]
impl ClaimedListener {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

/// Serves one connection until either side ends it.
type Serve = Box<dyn Fn(ring::Connection, Rc<ListenerInfo>) -> LocalFuture<()>>;

/// Connections of one core.
pub struct Net {
    /// The core.
    pub core: Rc<Core>,
    listeners: Arc<Vec<ClaimedListener>>,
    admission: Rc<Admission>,
    /// Clients' connections.
    connections: ConnectionCount,
    /// Those that came in by a controller listener.
    controller_connections: ConnectionCount,
    /// What they may hold.
    pub budgets: Rc<Budgets>,
    serve: OnceCell<Serve>,
}

impl Room for Net {
    fn core(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Net {
    /// Nobody is connected yet. `listeners` are those of the node.
    pub fn new(
        core: Rc<Core>,
        listeners: Arc<Vec<ClaimedListener>>,
        admission: Rc<Admission>,
        budgets: Rc<Budgets>,
    ) -> Net {
        Net {
            core,
            listeners,
            admission,
            connections: ConnectionCount::default(),
            controller_connections: ConnectionCount::default(),
            budgets,
            serve: OnceCell::new(),
        }
    }

    /// Connections of whatever sort that are open on this core.
    pub fn open_connections(&self) -> usize {
        self.connections.open() + self.controller_connections.open()
    }

    /// Connections are served by `service`; said once, while the core is put together.
    pub fn serve_by<S: Service>(&self, service: Rc<S>) {
        let budgets = self.budgets.clone();
        let serve = move |socket, listener| -> LocalFuture<()> {
            Box::pin(connection::serve(budgets.clone(), service.clone(), socket, listener))
        };
        assert!(self.serve.set(Box::new(serve)).is_ok(), "one service");
    }

    /// Serves one connection until either side ends it.
    async fn serve(&self, socket: ring::Connection, listener: Rc<ListenerInfo>) {
        if let Some(serve) = self.serve.get() {
            serve(socket, listener).await;
        }
    }
}

/// Takes the ports of all listeners. Blocks for as long as names are looked up and ports are waited for; `None` when the
/// node is asked to stop meanwhile.
pub async fn claim_all(config: &ServerConfig, stop: &StopRequest) -> Result<Option<Vec<ClaimedListener>>, ListenFault> {
    let mut claimed = Vec::new();
    for listener in &config.listeners {
        let Some(address) = resolve(listener, stop).await? else { return Ok(None) };
        let Some(port) = claim(listener, address, stop).await? else { return Ok(None) };
        let is_controller = config.is_controller_listener(&listener.name);
        claimed.push(ClaimedListener { name: listener.name.clone(), is_controller, port });
    }
    Ok(Some(claimed))
}

/// The address of a listener. The system's resolver can't be interrupted: it is left behind when it takes too long.
async fn resolve(listener: &Listener, stop: &StopRequest) -> Result<Option<SocketAddr>, ListenFault> {
    let host = if listener.host.is_empty() { "0.0.0.0" } else { listener.host.as_str() };
    let no_address =
        |reason: String| ListenFault::NoAddress { listener: listener.name.clone(), host: host.to_owned(), reason };
    let found = futures_lite::future::or(async { Some(ring::lookup(host, listener.port).await) }, async {
        stop.wait().await;
        None
    });
    match ring::timeout_outside_ms(RESOLVE_LIMIT_MS, found).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(addresses))) => match addresses.first() {
            Some(address) => Ok(Some(*address)),
            None => Err(no_address("the name is known, but no address of it".to_owned())),
        },
        Ok(Some(Err(fault))) => Err(no_address(fault.to_string())),
        Err(_) => Err(no_address(format!("no answer for {} s", RESOLVE_LIMIT_MS / 1_000))),
    }
}

async fn claim(
    listener: &Listener,
    address: SocketAddr,
    stop: &StopRequest,
) -> Result<Option<ClaimedPort>, ListenFault> {
    let begun = ring::now().monotonic;
    let mut has_told = false;
    loop {
        let source = match ClaimedPort::claim(address) {
            Ok(port) => return Ok(Some(port)),
            Err(source) => source,
        };
        let is_taken = source.kind() == std::io::ErrorKind::AddrInUse;
        let holder = if is_taken { ring::port_holder(address) } else { PortHolder::Nobody };
        let limit_ms = match holder {
            PortHolder::Nobody => CONNECTED_LIMIT_MS,
            PortHolder::Hidden | PortHolder::Process { .. } => HELD_LIMIT_MS,
        };
        if !is_taken || ring::now().monotonic >= begun.plus_ms(limit_ms) {
            return Err(ListenFault::Bind { listener: listener.name.clone(), address, source, holder });
        }
        if !has_told {
            has_told = true;
            info!(listener = listener.name, %address, "the port is in use, waiting for it for a moment");
        }
        if ring::timeout_outside_ms(TRY_EVERY_MS, stop.wait()).await.is_ok() {
            return Ok(None);
        }
    }
}

/// Listens at all ports of that sort: a controller's on this core, a broker's on every core that hosts partitions.
pub async fn open(net: &Rc<Net>, is_controller: bool) -> Result<(), ListenFault> {
    let cores = if is_controller { net.core.index..net.core.index + 1 } else { 0..net.core.node.shards };
    let listeners = net.listeners.iter().enumerate();
    for (place, listener) in listeners.filter(|(_, listener)| listener.is_controller == is_controller) {
        let sockets = listen(net, listener, cores.len()).await?;
        for (core, socket) in cores.clone().zip(sockets) {
            net.tell(core, move |net| accept_from(net, &net.listeners[place], socket)).await;
        }
    }
    Ok(())
}

/// The port is ours since the start, but for another process that may use it as its own (SO_REUSEPORT, or claimed too).
async fn listen(net: &Net, listener: &ClaimedListener, count: usize) -> Result<Vec<ListeningSocket>, ListenFault> {
    let network = &net.core.node.config.network;
    let buffer = |bytes: i32| usize::try_from(bytes).ok().filter(|&bytes| bytes > 0);
    let options = SocketOptions {
        backlog: network.listen_backlog_size,
        send_buffer_bytes: buffer(network.send_buffer_bytes),
        receive_buffer_bytes: buffer(network.receive_buffer_bytes),
    };
    let deadline = ring::now().monotonic.plus_ms(HELD_LIMIT_MS);
    loop {
        let source = match listener.port.listen(options, count) {
            Ok(sockets) => return Ok(sockets),
            Err(source) => source,
        };
        let address = listener.port.address();
        let is_taken = source.kind() == std::io::ErrorKind::AddrInUse;
        if !is_taken || ring::now().monotonic >= deadline {
            let holder = if is_taken { ring::port_holder(address) } else { PortHolder::Nobody };
            return Err(ListenFault::Bind { listener: listener.name.clone(), address, source, holder });
        }
        ring::sleep_ms(REOPEN_MS).await;
    }
}

fn accept_from(net: &Rc<Net>, listener: &ClaimedListener, socket: ListeningSocket) {
    let info = Rc::new(ListenerInfo { name: listener.name.clone(), is_controller: listener.is_controller });
    let (core, net, socket) = (net.core.clone(), net.clone(), ring::Listener::adopt(socket));
    core.spawn(async move { accept(net, socket, info).await });
}

async fn accept(net: Rc<Net>, socket: ring::Listener, listener: Rc<ListenerInfo>) {
    let is_controller = listener.is_controller;
    let failures = Rarely::default();
    while !closing_of(&net, is_controller).is_set() {
        let connection = match race_stop(&net, is_controller, socket.accept()).await {
            None => return,
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                if let Some(kept_back) = failures.may_say(ring::now().monotonic, SAY_EVERY_MS) {
                    warn!(listener = listener.name, kept_back, "can't accept a connection: {error}");
                }
                ring::sleep_ms(ACCEPT_BACKOFF_MS).await;
                continue;
            }
        };
        let ip = connection.peer_addr().ip();
        let admission = admission::admit(&net.admission, &listener, ip);
        match race_stop(&net, is_controller, admission).await {
            None => return,
            Some(false) => continue,
            Some(true) => {}
        }
        count_of(&net, is_controller).add();
        let (net, listener) = (net.clone(), listener.clone());
        // [`close`] waits for it, as it is counted.
        ring::spawn_detached(async move {
            net.serve(connection, listener.clone()).await;
            count_of(&net, is_controller).remove();
            admission::release(&net.admission, &listener, ip).await;
        });
    }
}

fn count_of(net: &Net, is_controller: bool) -> &ConnectionCount {
    if is_controller { &net.controller_connections } else { &net.connections }
}

fn closing_of(net: &Net, is_controller: bool) -> &Flag {
    if is_controller { &net.core.controller_closing } else { &net.core.closing }
}

/// `None` when the listener is closed first.
async fn race_stop<T>(net: &Net, is_controller: bool, work: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(work.await) }, async {
        closing_of(net, is_controller).wait_until_set().await;
        None
    })
    .await
}

/// Stops accepting other controllers and brokers on this core. Those that are connected are cut off when the process
/// ends.
pub fn close_controller(net: &Net) {
    net.core.controller_closing.set();
}

/// Stops accepting clients on this core and lets open connections finish what they have begun.
pub async fn close(net: Rc<Net>) {
    net.core.closing.set();
    if ring::timeout_ms(DRAIN_MS, net.connections.closed()).await.is_err() {
        info!(core = net.core.index, open = net.connections.open(), "connections are cut off");
    }
}
