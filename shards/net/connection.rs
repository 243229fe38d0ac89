//! One client's connection: frames in, responses out, in order, with bounds on both.
//!
//! Requests are taken one after the other, and the next one only when the answer of the last is sent, as Kafka does, but
//! for Produce: once its records are in their logs' tails the next request is read while the disk works, so a client
//! that pipelines keeps the core busy. Responses leave in the order of their requests in any case.
//!
//! What a connection may hold: nothing while idle; a request's bytes as they arrive (never by its declared size), which
//! are counted in the core's [`RequestMemory`] from before they are read until the request is answered: where there is no
//! room, sockets aren't read; [`MAX_IN_FLIGHT`] unanswered Produce requests; one response on its way out, counted in the
//! core's [`crate::net::response_memory`]. A peer that sends an impossible frame, stops in the middle of one, is slower
//! than its [`Pace`], or doesn't take its responses is closed, nobody else notices.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use ringlog_protocol::frame::Frame;
use ringlog_ring::{self as ring, BytePermit, ByteSemaphore};
use ringlog_types::MonotonicMs;
use tracing::{debug, info};

use crate::core::Core;
use crate::mesh::LocalFuture;
use crate::net::request::{ListenerInfo, Peer};
use crate::net::response_memory::ResponseMemory;
use crate::net::service::{Answer, CloseReason, Disposition, Service};
use crate::node::Node;

/// Produce requests of one connection that may wait for their disk and followers.
const MAX_IN_FLIGHT: usize = 64;
/// Room for received bytes: the least, and what one busy connection gets at a time before a large request asks for more.
const ROOM_MIN_BYTES: usize = 4 * 1024;
const ROOM_MAX_BYTES: usize = 64 * 1024;
/// The most by which the room for one large request grows at once.
const GROWTH_MAX_BYTES: usize = 1024 * 1024;
/// Received while waiting; the rest is read into room made for it.
const FIRST_BYTES: usize = 128;
/// A request that has begun, and a response on its way out, must move on within this time.
const STALL_LIMIT_MS: u64 = 30_000;
/// A response must, while others wait for the memory that it holds.
const STALL_LIMIT_WANTED_MS: u64 = 3_000;
/// How often to look whether they do.
const LOOK_MS: u64 = 1_000;
/// The smallest frame: API key, version, correlation id.
const MIN_REQUEST_BYTES: usize = 8;
/// 64 KB/s: slower than that, a large request or answer outlasts the clients' own time-outs.
const SLOWEST_BYTES_PER_MS: u64 = 64;
/// Memory of one core for requests, unless `queued.max.request.bytes` says something else. More wait at their sockets.
const REQUEST_MEMORY_BYTES: usize = 256 * 1024 * 1024;

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
    Request(#[from] CloseReason),
    #[error("its responses could not be sent")]
    Writer,
}

/// What the connections of one core may hold together, and where it is counted.
pub struct Budgets {
    /// The core.
    pub core: Rc<Core>,
    /// Memory for what clients send.
    pub request_memory: RequestMemory,
    /// Memory for answers on their way out.
    pub response_memory: ResponseMemory,
}

impl Budgets {
    /// Nothing is held yet.
    pub fn new(core: Rc<Core>, response_memory: ResponseMemory) -> Budgets {
        Budgets { request_memory: RequestMemory::new(request_memory_bytes(&core.node)), core, response_memory }
    }
}

/// This core's part of the node's memory for requests.
fn request_memory_bytes(node: &Node) -> usize {
    let configured = usize::try_from(node.config.network.queued_max_request_bytes).ok().filter(|bytes| *bytes > 0);
    configured.map_or(REQUEST_MEMORY_BYTES, |bytes| bytes.div_ceil(node.shards))
}

/// Serves one connection until either side ends it.
pub async fn serve<S: Service>(
    budgets: Rc<Budgets>,
    service: Rc<S>,
    socket: ring::Connection,
    listener: Rc<ListenerInfo>,
) {
    let address = socket.peer_addr();
    let connection = Rc::new(Connection {
        socket,
        peer: Peer { listener, address },
        outbox: RefCell::default(),
        unsent: Cell::new(0),
        outbox_changed: ring::Notify::new(),
        closed: Cell::new(false),
    });
    let writer = ring::spawn(write_produced(budgets.clone(), connection.clone()));
    let outcome = read_requests(&budgets, &service, &connection).await;
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
    /// Answers to come, of Produce requests, with what their requests hold.
    outbox: RefCell<VecDeque<(LocalFuture<Option<Frame>>, RequestHold)>>,
    /// Those, and the one that is being waited for or sent.
    unsent: Cell<usize>,
    outbox_changed: ring::Notify,
    closed: Cell<bool>,
}

impl Connection {
    /// Ends when fewer than `limit` answers are unsent.
    async fn sent_but(&self, limit: usize) -> Result<(), Close> {
        while self.unsent.get() >= limit && !self.closed.get() {
            self.outbox_changed.wait().await;
        }
        if self.closed.get() { Err(Close::Writer) } else { Ok(()) }
    }

    fn give_up(&self) {
        info!(peer = %self.peer.address, "closing connection: it takes no response");
        self.closed.set(true);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.outbox.borrow_mut().clear();
        self.outbox_changed.notify_all();
    }
}

async fn read_requests<S: Service>(
    budgets: &Rc<Budgets>,
    service: &Rc<S>,
    connection: &Rc<Connection>,
) -> Result<(), Close> {
    let mut input = Input::new();
    while let Some((frame, hold)) = input.next_request(budgets, connection).await? {
        match service.begin(&connection.peer, frame).await? {
            Disposition::Produced(response) => {
                connection.outbox.borrow_mut().push_back((response, hold));
                connection.unsent.set(connection.unsent.get() + 1);
                connection.outbox_changed.notify_all();
                connection.sent_but(MAX_IN_FLIGHT).await?;
            }
            Disposition::Answered(answer) => {
                drop(hold);
                connection.sent_but(1).await?;
                if !send_answer(budgets, connection, answer).await {
                    return Err(Close::Writer);
                }
            }
            Disposition::Silent => {}
        }
    }
    Ok(())
}

/// What has been received and not been taken for a request yet.
struct Input {
    received: BytesMut,
    hold: RequestHold,
    /// Room to make for the next bytes, by what came before.
    room_bytes: usize,
}

impl Input {
    fn new() -> Input {
        Input { received: BytesMut::new(), hold: RequestHold::default(), room_bytes: ROOM_MIN_BYTES }
    }

    /// The next request without its size prefix, with what it holds of the core's request memory; `None` when the peer
    /// is done.
    async fn next_request(
        &mut self,
        budgets: &Rc<Budgets>,
        connection: &Connection,
    ) -> Result<Option<(Bytes, RequestHold)>, Close> {
        let network = &budgets.core.node.config.network;
        let max_bytes = usize::try_from(network.request_max_bytes).unwrap_or(0);
        let mut pace = Pace::begin(ring::now().monotonic, STALL_LIMIT_MS);
        loop {
            let missing = match frame_size(&self.received, max_bytes)? {
                Some(size) if self.received.len() >= 4 + size => {
                    self.received.advance(4);
                    let frame = self.received.split_to(size).freeze();
                    return Ok(Some((frame, self.hold.split(4 + size))));
                }
                Some(size) => 4 + size - self.received.len(),
                None => 1,
            };
            if self.make_room(budgets, missing, &mut pace).await? {
                let room = self.room_left();
                match connection.socket.try_read_some(&mut self.received, room) {
                    Ok(0) => return Ok(None),
                    Ok(count) => {
                        self.room_bytes = next_room(self.room_bytes, count, room);
                        continue;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let is_idle = self.received.is_empty();
            let limit_ms = if is_idle {
                // It holds nothing until something comes.
                *self = Input { room_bytes: self.room_bytes, ..Input::new() };
                u64::try_from(network.connections_max_idle_ms).unwrap_or(u64::MAX)
            } else {
                pace.next_ms(ring::now().monotonic, self.received.len() as u64).ok_or(Close::Stalled)?
            };
            let mut first = [0; FIRST_BYTES];
            match ring::timeout_ms(limit_ms, connection.socket.read(&mut first)).await {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(count)) => self.received.extend_from_slice(&first[..count]),
                Ok(Err(error)) => return Err(error.into()),
                Err(ring::Elapsed) => return Err(if is_idle { Close::Idle } else { Close::Stalled }),
            }
            if is_idle {
                pace = Pace::begin(ring::now().monotonic, STALL_LIMIT_MS);
            }
        }
    }

    /// Bytes that may be received now: there is memory for them, and it is counted.
    fn room_left(&self) -> usize {
        self.received.capacity().min(self.hold.bytes()).saturating_sub(self.received.len())
    }

    /// Makes room when `missing` bytes of a request are still to come. Room is counted before it is made; where there is
    /// none for now, this waits, or says so (false) if nothing of the request is here yet.
    async fn make_room(&mut self, budgets: &Budgets, missing: usize, pace: &mut Pace) -> Result<bool, Close> {
        let len = self.received.len();
        // Large requests get twice as much each time.
        let needed = missing.min(len.clamp(self.room_bytes, GROWTH_MAX_BYTES));
        if self.room_left() >= needed {
            return Ok(true);
        }
        let more = needed.max(self.room_bytes);
        let memory = &budgets.request_memory;
        if !memory.try_grow(&mut self.hold, len + more) {
            if len == 0 {
                return Ok(false);
            }
            let since = ring::now().monotonic;
            let grown = memory.grow(&mut self.hold, len + more);
            if len <= FIRST_BYTES {
                grown.await;
            } else {
                // Others may need what this one has taken.
                ring::timeout_ms(STALL_LIMIT_MS, grown).await.map_err(|_| Close::NoMemory)?;
            }
            pace.forgive(since, ring::now().monotonic);
        }
        self.received.reserve(more);
        Ok(true)
    }
}

/// Room for a connection's next bytes: one that fills what it is offered gets more, one that sends little gets little.
fn next_room(current: usize, received: usize, offered: usize) -> usize {
    let next = if received >= offered { current * 2 } else { current.min(received.saturating_mul(4)) };
    next.clamp(ROOM_MIN_BYTES, ROOM_MAX_BYTES)
}

fn frame_size(received: &BytesMut, max_bytes: usize) -> Result<Option<usize>, Close> {
    let Some(prefix) = received.first_chunk::<4>() else { return Ok(None) };
    let announced = i32::from_be_bytes(*prefix);
    match usize::try_from(announced) {
        Ok(size) if (MIN_REQUEST_BYTES..=max_bytes).contains(&size) => Ok(Some(size)),
        _ => Err(Close::FrameSize(announced, max_bytes)),
    }
}

/// Memory of one core for what clients send.
///
/// A request's first bytes take their room in the order of asking. One that has begun asks for more as it arrives, and
/// keeps what it has: several large ones could wait for each other for ever. So beside the shared memory there is room
/// for one request of the largest size, which goes to one of them at a time, and that one can be finished.
///
/// Bound: the shared memory and the largest request.
pub struct RequestMemory {
    shared: ByteSemaphore,
    /// Whose request takes what it needs beside the shared memory.
    turn: ByteSemaphore,
}

/// What a connection's received bytes, or one of its requests, have taken.
#[derive(Default)]
pub struct RequestHold {
    permit: Option<BytePermit>,
    turn: Option<BytePermit>,
}

impl RequestMemory {
    /// `shared_bytes` for all requests together, and beside it room for one that is as large as may be.
    pub fn new(shared_bytes: usize) -> RequestMemory {
        RequestMemory { shared: ByteSemaphore::new(shared_bytes), turn: ByteSemaphore::new(1) }
    }

    /// Takes room for `bytes` in all, beyond what `hold` has; whether there was.
    pub fn try_grow(&self, hold: &mut RequestHold, bytes: usize) -> bool {
        if hold.turn.is_some() {
            return true;
        }
        match &mut hold.permit {
            Some(permit) => bytes <= permit.bytes() || permit.try_grow(bytes - permit.bytes()),
            none => {
                *none = self.shared.try_acquire(bytes);
                none.is_some()
            }
        }
    }

    /// [`RequestMemory::try_grow`], waiting its turn. Who has nothing yet waits for the shared memory alone.
    pub async fn grow(&self, hold: &mut RequestHold, bytes: usize) {
        if self.try_grow(hold, bytes) {
            return;
        }
        let Some(permit) = &mut hold.permit else {
            hold.permit = Some(self.shared.acquire(bytes).await);
            return;
        };
        let more = bytes - permit.bytes();
        let shared = async {
            permit.grow(more).await;
            None
        };
        hold.turn = futures_lite::future::or(shared, async { Some(self.turn.acquire(1).await) }).await;
    }

    /// Bytes of the shared memory that are held.
    pub fn held_bytes(&self) -> usize {
        self.shared.capacity() - self.shared.available()
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.shared.available()
    }
}

impl RequestHold {
    /// So many bytes may be there.
    pub fn bytes(&self) -> usize {
        match (&self.turn, &self.permit) {
            (Some(_), _) => usize::MAX,
            (None, Some(permit)) => permit.bytes(),
            (None, None) => 0,
        }
    }

    /// A request of `bytes` is complete: its part goes with it. The turn goes, too: what it allowed lies in there.
    pub fn split(&mut self, bytes: usize) -> RequestHold {
        RequestHold { permit: self.permit.as_mut().map(|permit| permit.split(bytes)), turn: self.turn.take() }
    }
}

/// A peer's time for one request or answer: for the one to arrive, for the other to be taken.
///
/// It must move on within `pause_ms`, and on the whole be no slower than [`SLOWEST_BYTES_PER_MS`] after a first
/// `pause_ms`: else it could make the node hold memory for as long as it likes, at a byte now and then.
#[derive(Debug, Clone, Copy)]
struct Pace {
    pause_ms: u64,
    begun: MonotonicMs,
}

impl Pace {
    /// Of something that begins now.
    fn begin(now: MonotonicMs, pause_ms: u64) -> Pace {
        Pace { pause_ms, begun: now }
    }

    /// How long the next bytes may take when `bytes` have gone so far; none when the time is over.
    fn next_ms(&self, now: MonotonicMs, bytes: u64) -> Option<u64> {
        let allowed_ms = self.pause_ms + bytes / SLOWEST_BYTES_PER_MS;
        let left_ms = allowed_ms.checked_sub(now.since_ms(self.begun)).filter(|left_ms| *left_ms > 0)?;
        Some(left_ms.min(self.pause_ms))
    }

    /// From `since` on it was the node that let the peer wait.
    fn forgive(&mut self, since: MonotonicMs, now: MonotonicMs) {
        self.begun = self.begun.plus_ms(now.since_ms(since));
    }
}

/// Sends the answers of Produce requests, in their order.
async fn write_produced(budgets: Rc<Budgets>, connection: Rc<Connection>) {
    loop {
        let next = connection.outbox.borrow_mut().pop_front();
        let Some((response, hold)) = next else {
            if connection.closed.get() {
                return;
            }
            connection.outbox_changed.wait().await;
            continue;
        };
        let frame = response.await;
        // Its records may have been referred to until here.
        drop(hold);
        if let Some(frame) = frame {
            let memory = budgets.response_memory.hold(frame.len);
            if !send_answer(&budgets, &connection, Answer { frame, memory }).await {
                return;
            }
        }
        connection.unsent.set(connection.unsent.get() - 1);
        connection.outbox_changed.notify_all();
    }
}

/// Sends one answer; nobody else sends meanwhile. Whether the peer took it; if not, the connection is over.
async fn send_answer(budgets: &Budgets, connection: &Connection, answer: Answer) -> bool {
    let Answer { frame, memory } = answer;
    budgets.core.metrics.response_bytes.add(frame.len as u64);
    let is_sent = send(budgets, &connection.socket, VecDeque::from(frame.chunks), memory).await;
    if !is_sent {
        connection.give_up();
    }
    is_sent
}

/// Whether all was sent; a peer that takes nothing for [`STALL_LIMIT_MS`], or only now and then a little, is given up.
async fn send(
    budgets: &Budgets,
    socket: &ring::Connection,
    mut chunks: VecDeque<Bytes>,
    mut memory: BytePermit,
) -> bool {
    let begun = ring::now().monotonic;
    let pace = Pace::begin(begun, STALL_LIMIT_MS);
    let (mut sent, mut moved_at) = (0_u64, begun);
    loop {
        match ring::timeout_ms(LOOK_MS, socket.write_some(&mut chunks)).await {
            Ok(Ok(0)) => return true,
            Ok(Ok(count)) => {
                sent += count as u64;
                moved_at = ring::now().monotonic;
                memory.shrink_to(memory.bytes().saturating_sub(count));
            }
            Ok(Err(_)) => return false,
            Err(ring::Elapsed) => {}
        }
        let now = ring::now().monotonic;
        let limit_ms = if budgets.response_memory.is_wanted() { STALL_LIMIT_WANTED_MS } else { STALL_LIMIT_MS };
        if now.since_ms(moved_at) >= limit_ms || pace.next_ms(now, sent).is_none() {
            return false;
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
