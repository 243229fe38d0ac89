//! One client's connection: frames in, responses out, in order, with bounds on both.
//!
//! Requests are taken one after the other, as Kafka does, but for Produce: once its records are in their logs' tails
//! the next request is read while the disk works, so a client that pipelines keeps the core busy. Responses leave in
//! the order of their requests in any case.
//!
//! What a connection may hold: nothing while idle; a request's bytes as they arrive (never by its declared size),
//! counted against the shard's request memory; [`MAX_IN_FLIGHT`] unanswered Produce requests; one response on its way
//! out. A peer that sends an impossible frame, stops in the middle of one, or doesn't read its responses is closed,
//! nobody else notices.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use ringlog_protocol::frame::Frame;
use ringlog_ring::{self as ring, BytePermit};
use tracing::{debug, info};

use crate::dispatch::{self, Disposition};
use crate::mesh::LocalFuture;
use crate::shard::Shard;

/// Produce requests of one connection that may wait for their disk and followers.
const MAX_IN_FLIGHT: usize = 64;
/// First room for received bytes; doubles while a larger request arrives.
const READ_CHUNK_BYTES: usize = 64 * 1024;
/// The most by which the room grows at once.
const READ_CHUNK_MAX_BYTES: usize = 1024 * 1024;
/// Received while waiting; the rest is read into room made for it.
const FIRST_BYTES: usize = 128;
/// A request that has begun, and a response on its way out, must move on within this time.
const STALL_LIMIT_MS: u64 = 30_000;
/// The smallest frame: API key, version, correlation id.
const MIN_REQUEST_BYTES: usize = 8;

/// Where a connection came in.
#[derive(Debug)]
pub struct ListenerInfo {
    /// The listener's name, such as `PLAINTEXT`.
    pub name: String,
    /// Whether it serves the controller's APIs instead of the broker's.
    pub is_controller: bool,
}

/// What handlers may know of the peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The listener that it came in by.
    pub listener: Rc<ListenerInfo>,
    /// Its address, as `/127.0.0.1` in Kafka's answers.
    pub address: SocketAddr,
}

/// Why a connection ends before its peer closes it.
#[derive(Debug, thiserror::Error)]
enum Close {
    #[error("the socket failed: {0}")]
    Socket(#[from] std::io::Error),
    #[error("a frame of {0} bytes was announced; socket.request.max.bytes is {1}")]
    FrameSize(i32, usize),
    #[error("no progress for {STALL_LIMIT_MS} ms in the middle of a request")]
    Stalled,
    #[error("no memory for its request in {STALL_LIMIT_MS} ms")]
    NoMemory,
    #[error("idle for connections.max.idle.ms")]
    Idle,
    #[error("the request can't be answered: {0}")]
    Request(#[from] dispatch::CloseReason),
    #[error("its responses could not be sent")]
    Writer,
}

/// Serves one connection until either side ends it.
pub async fn serve(shard: Rc<Shard>, socket: ring::Connection, listener: Rc<ListenerInfo>) {
    let address = socket.peer_addr();
    let connection = Rc::new(Connection {
        socket,
        peer: Peer { listener, address },
        outbox: RefCell::new(VecDeque::new()),
        outbox_changed: ring::Notify::new(),
        closed: Cell::new(false),
    });
    let writer = ring::spawn(write_responses(shard.clone(), connection.clone()));
    let outcome = read_requests(&shard, &connection).await;
    // What was accepted is still answered; then the writer ends.
    connection.closed.set(true);
    connection.outbox_changed.notify_all();
    writer.await;
    match outcome {
        Ok(()) => {}
        Err(Close::Idle | Close::Socket(_)) => debug!(peer = %address, "connection closed"),
        Err(reason) => info!(peer = %address, "closing connection: {reason}"),
    }
}

struct Connection {
    socket: ring::Connection,
    peer: Peer,
    outbox: RefCell<VecDeque<LocalFuture<Option<Frame>>>>,
    outbox_changed: ring::Notify,
    closed: Cell<bool>,
}

async fn read_requests(shard: &Rc<Shard>, connection: &Rc<Connection>) -> Result<(), Close> {
    let mut received = BytesMut::new();
    while let Some(Request { frame, memory }) = next_request(shard, connection, &mut received).await? {
        while connection.outbox.borrow().len() >= MAX_IN_FLIGHT && !connection.closed.get() {
            connection.outbox_changed.wait().await;
        }
        if connection.closed.get() {
            return Err(Close::Writer);
        }
        let response = match dispatch::begin(shard, &connection.peer, frame).await? {
            Disposition::Respond(response) => response,
            Disposition::Silent => continue,
        };
        let response = match memory {
            None => response,
            // Its records may be referred to until then.
            Some(memory) => Box::pin(async move {
                let frame = response.await;
                drop(memory);
                frame
            }),
        };
        connection.outbox.borrow_mut().push_back(response);
        connection.outbox_changed.notify_all();
    }
    Ok(())
}

/// A received request, without its size prefix.
struct Request {
    frame: Bytes,
    /// What a large one has taken of the core's request memory.
    memory: Option<BytePermit>,
}

/// The next request, or `None` when the peer is done.
async fn next_request(
    shard: &Rc<Shard>,
    connection: &Connection,
    received: &mut BytesMut,
) -> Result<Option<Request>, Close> {
    let max_bytes = shard.node.config.network.request_max_bytes as usize;
    let mut memory: Option<BytePermit> = None;
    loop {
        let wanted = match frame_size(received, max_bytes)? {
            Some(size) if received.len() >= 4 + size => {
                received.advance(4);
                let frame = received.split_to(size).freeze();
                return Ok(Some(Request { frame, memory }));
            }
            Some(size) => 4 + size - received.len(),
            None => READ_CHUNK_BYTES,
        };
        if received.len() >= READ_CHUNK_BYTES {
            // A large request takes its share of the core's memory as it arrives, before more of it is read.
            let held = memory.as_ref().map_or(0, BytePermit::bytes);
            let grown = received.len().saturating_mul(2).min(received.len() + wanted);
            if held < grown && !memory.as_mut().is_some_and(|memory| memory.try_grow(grown - held)) {
                drop(memory.take());
                let permit = shard.request_memory.acquire(grown);
                memory = Some(ring::timeout_ms(STALL_LIMIT_MS, permit).await.map_err(|_| Close::NoMemory)?);
            }
        }
        let idle = received.is_empty();
        received.reserve(wanted.min(received.len().clamp(READ_CHUNK_BYTES, READ_CHUNK_MAX_BYTES)));
        match connection.socket.try_read(received) {
            Ok(0) => return Ok(None),
            Ok(_) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if idle {
            // An idle connection holds no memory but this.
            *received = BytesMut::new();
        }
        let mut first = [0; FIRST_BYTES];
        let idle_ms = u64::try_from(shard.node.config.network.connections_max_idle_ms).unwrap_or(u64::MAX);
        let limit_ms = if idle { idle_ms } else { STALL_LIMIT_MS };
        match ring::timeout_ms(limit_ms, connection.socket.read(&mut first)).await {
            Ok(Ok(0)) => return Ok(None),
            Ok(Ok(count)) => received.extend_from_slice(&first[..count]),
            Ok(Err(error)) => return Err(error.into()),
            Err(ring::Elapsed) => return Err(if idle { Close::Idle } else { Close::Stalled }),
        }
    }
}

fn frame_size(received: &BytesMut, max_bytes: usize) -> Result<Option<usize>, Close> {
    let Some(prefix) = received.first_chunk::<4>() else { return Ok(None) };
    let announced = i32::from_be_bytes(*prefix);
    match usize::try_from(announced) {
        Ok(size) if (MIN_REQUEST_BYTES..=max_bytes).contains(&size) => Ok(Some(size)),
        _ => Err(Close::FrameSize(announced, max_bytes)),
    }
}

/// Sends responses in order of their requests.
async fn write_responses(shard: Rc<Shard>, connection: Rc<Connection>) {
    loop {
        let next = connection.outbox.borrow_mut().pop_front();
        let Some(response) = next else {
            if connection.closed.get() {
                return;
            }
            connection.outbox_changed.wait().await;
            continue;
        };
        let frame = response.await;
        connection.outbox_changed.notify_all();
        let Some(frame) = frame else { continue };
        shard.metrics.response_bytes.add(frame.len as u64);
        if !send(&connection.socket, VecDeque::from(frame.chunks)).await {
            info!(peer = %connection.peer.address, "closing connection: it takes no response");
            connection.closed.set(true);
            let _ = connection.socket.shutdown(Shutdown::Both);
            connection.outbox.borrow_mut().clear();
            return;
        }
    }
}

/// Whether all was sent; a peer that takes nothing for [`STALL_LIMIT_MS`] is given up.
async fn send(socket: &ring::Connection, mut chunks: VecDeque<Bytes>) -> bool {
    loop {
        match ring::timeout_ms(STALL_LIMIT_MS, socket.write_some(&mut chunks)).await {
            Ok(Ok(0)) => return true,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(ring::Elapsed) => return false,
        }
    }
}
