//! Listeners: one socket per listener and core, which share the port, so that the kernel spreads connections.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use ringlog_config::Listener;
use ringlog_ring::{self as ring, SocketOptions};
use tracing::{info, warn};

use crate::admission;
use crate::connection::{self, ListenerInfo};
use crate::flag::{ConnectionCount, Flag};
use crate::rarely::Rarely;
use crate::shard::Shard;

/// How long to stop accepting after the system refused a connection for lack of something.
const ACCEPT_BACKOFF_MS: u64 = 100;
/// How often to say that connections can't be accepted.
const SAY_EVERY_MS: u64 = 60_000;
/// How long open connections may take to finish at a stop.
const DRAIN_MS: u64 = 1_000;

/// Why a listener can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// The host name has no address.
    #[error("listener {listener}: {host} has no address: {source}")]
    NoAddress {
        /// The listener's name.
        listener: String,
        /// Its host.
        host: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The port is taken, or needs rights.
    #[error("listener {listener} can't be opened on {address}: {source}{}", remedy(source))]
    Bind {
        /// The listener's name.
        listener: String,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => ". Another process listens there: stop it, or change 'listeners'",
        std::io::ErrorKind::PermissionDenied => ". Ports below 1024 need CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => ". The address isn't one of this host's: change 'listeners'",
        _ => "",
    }
}

/// Opens a listener on this core.
pub fn open(shard: &Rc<Shard>, listener: &Listener, is_controller: bool) -> Result<(), ListenFault> {
    let address = resolve(listener)?;
    let network = &shard.node.config.network;
    let buffer = |bytes: i32| usize::try_from(bytes).ok().filter(|&bytes| bytes > 0);
    let options = SocketOptions {
        backlog: network.listen_backlog_size,
        send_buffer_bytes: buffer(network.send_buffer_bytes),
        receive_buffer_bytes: buffer(network.receive_buffer_bytes),
    };
    let name = listener.name.clone();
    let socket = ring::Listener::bind(address, options).map_err(|source| ListenFault::Bind {
        listener: name.clone(),
        address,
        source,
    })?;
    let info = Rc::new(ListenerInfo { name, is_controller });
    let shard = shard.clone();
    ring::spawn_detached(async move { accept(shard, socket, info).await });
    Ok(())
}

fn resolve(listener: &Listener) -> Result<SocketAddr, ListenFault> {
    let host = if listener.host.is_empty() { "0.0.0.0" } else { listener.host.as_str() };
    let no_address = |source| ListenFault::NoAddress { listener: listener.name.clone(), host: host.to_owned(), source };
    let mut addresses = (host, listener.port).to_socket_addrs().map_err(no_address)?;
    addresses.next().ok_or_else(|| no_address(std::io::ErrorKind::NotFound.into()))
}

async fn accept(shard: Rc<Shard>, socket: ring::Listener, listener: Rc<ListenerInfo>) {
    let is_controller = listener.is_controller;
    let failures = Rarely::default();
    while !closing_of(&shard, is_controller).is_set() {
        let connection = match race_stop(&shard, is_controller, socket.accept()).await {
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
        let admission = admission::admit(&shard, &listener, ip);
        match race_stop(&shard, is_controller, admission).await {
            None => return,
            Some(false) => continue,
            Some(true) => {}
        }
        count_of(&shard, is_controller).add();
        let (shard, listener) = (shard.clone(), listener.clone());
        ring::spawn_detached(async move {
            connection::serve(shard.clone(), connection, listener.clone()).await;
            count_of(&shard, is_controller).remove();
            admission::release(&shard, &listener, ip).await;
        });
    }
}

fn count_of(shard: &Shard, is_controller: bool) -> &ConnectionCount {
    if is_controller { &shard.controller_connections } else { &shard.connections }
}

fn closing_of(shard: &Shard, is_controller: bool) -> &Flag {
    if is_controller { &shard.controller_closing } else { &shard.closing }
}

/// `None` when the listener is closed first.
async fn race_stop<T>(shard: &Shard, is_controller: bool, work: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(work.await) }, async {
        closing_of(shard, is_controller).wait_until_set().await;
        None
    })
    .await
}

/// Stops accepting other controllers and brokers on this core. Those that are connected are cut off when the process
/// ends.
pub fn close_controller(shard: &Shard) {
    shard.controller_closing.set();
}

/// Stops accepting clients on this core and lets open connections finish what they have begun.
pub async fn close(shard: Rc<Shard>) {
    shard.closing.set();
    if ring::timeout_ms(DRAIN_MS, shard.connections.closed()).await.is_err() {
        info!(core = shard.index, open = shard.connections.open(), "connections are cut off");
    }
}
