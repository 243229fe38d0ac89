//! Connections as the kernels at both ends see them: segments, acknowledgements, and what goes wrong with them.
//!
//! A pipe carries bytes one way. What its owner writes is taken as far as the send buffer goes, sent as far as the
//! receiver has room, and stays in the send buffer until it is acknowledged. A segment that doesn't arrive is sent again
//! after a time that doubles; after a long while the sender gives up. So a cut that heals delays bytes, and one that
//! lasts ends the connection at each end that has something to say; an end that is silent learns of nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use bytes::Bytes;

use super::network::Network;
use crate::backend::schedule::Event;
use crate::backend::trace::{Kind, TapKind};
use crate::backend::world::World;

const SECOND_NS: u64 = 1_000_000_000;
/// The most that travels as one.
const SEGMENT_BYTES: usize = 64 * 1024;
/// A handshake is repeated so often, after one second, two, four, …
const SYN_ATTEMPTS: u32 = 7;
/// How long a handshake may be half done.
const HALF_NS: u64 = 63 * SECOND_NS;

/// What an end's kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndState {
    Connecting,
    /// The other end asked for it and hasn't heard the answer yet.
    Half,
    Open,
    /// Its process has closed it; what was written is still sent.
    Closed,
    /// Nothing.
    Gone,
}

pub(crate) struct End {
    pub host: usize,
    pub address: SocketAddr,
    /// Whose it is; nobody's when it was closed, or isn't accepted yet.
    pub process: Option<u32>,
    pub state: EndState,
    /// To be told once.
    pub error: Option<i32>,
    /// The other end sends no more.
    pub has_ended: bool,
    pub is_read_shut: bool,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

/// Bytes one way; see the module's text.
pub(crate) struct Pipe {
    pub send_capacity: usize,
    pub receive_capacity: usize,
    /// Written, and not sent yet for lack of room at the other end.
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// On its way, in order.
    wire: VecDeque<Segment>,
    wire_bytes: usize,
    /// Arrived; the sender hasn't heard of it.
    unheard_bytes: usize,
    /// Of those, what was answered, and the answer lost.
    unanswered_bytes: usize,
    pub received: VecDeque<Bytes>,
    pub received_bytes: usize,
    /// After what was written comes the end.
    pub has_fin: bool,
    is_fin_sent: bool,
    last_arrival_ns: u64,
    free_at_ns: u64,
    is_arrival_posted: bool,
    is_window_posted: bool,
    failing_since_ns: Option<u64>,
    retransmit_ns: u64,
    sent_bytes: u64,
    delivered_bytes: u64,
}

struct Segment {
    arrives_at_ns: u64,
    /// Nothing: the end.
    bytes: Bytes,
}

/// Something that happens to an end of a connection.
pub(crate) struct StreamEvent {
    pub flow: u64,
    pub side: usize,
    pub kind: StreamEventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEventKind {
    /// A request for a connection arrives at side 1.
    Syn { attempt: u32 },
    /// Its answer arrives at side 0.
    SynAck,
    /// And the answer to that at side 1.
    Established,
    /// Nobody listens.
    Refused,
    /// There is no such host.
    Unreachable,
    /// A segment of what `side` sends may have arrived at the other side.
    Arrival,
    /// `side` hears that so many bytes have arrived.
    Acknowledged { bytes: usize },
    /// `side` sends again what was answered, for an answer that isn't lost.
    Unanswered,
    /// `side` hears that there is room, or asks whether.
    Window,
    /// The connection is gone, says the other end.
    Reset,
    /// Side 1 has waited long enough for the end of the handshake.
    HalfExpires,
}

impl End {
    pub fn new(host: usize, address: SocketAddr, process: Option<u32>, state: EndState) -> End {
        End {
            host,
            address,
            process,
            state,
            error: None,
            has_ended: false,
            is_read_shut: false,
            reader: None,
            writer: None,
        }
    }

    pub fn wake_all(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl Pipe {
    pub fn new(world: &World) -> Pipe {
        let (settings, stream) = (&world.settings.network, &world.streams.network);
        Pipe {
            send_capacity: stream.between(settings.send_buffer_bytes) as usize,
            receive_capacity: stream.between(settings.receive_buffer_bytes) as usize,
            queue: VecDeque::new(),
            queued_bytes: 0,
            wire: VecDeque::new(),
            wire_bytes: 0,
            unheard_bytes: 0,
            unanswered_bytes: 0,
            received: VecDeque::new(),
            received_bytes: 0,
            has_fin: false,
            is_fin_sent: false,
            last_arrival_ns: 0,
            free_at_ns: 0,
            is_arrival_posted: false,
            is_window_posted: false,
            failing_since_ns: None,
            retransmit_ns: settings.retransmit_ns,
            sent_bytes: 0,
            delivered_bytes: 0,
        }
    }

    /// What the owner may still write at once.
    pub fn room(&self) -> usize {
        self.send_capacity.saturating_sub(self.queued_bytes + self.wire_bytes + self.unheard_bytes)
    }

    /// Whether something waits for room at the other end.
    pub fn is_waiting(&self) -> bool {
        self.queued_bytes > 0
    }

    /// Takes bytes to be sent.
    pub fn write(&mut self, bytes: Bytes) {
        self.queued_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    /// What is neither sent nor heard of is no more.
    pub fn forget(&mut self) {
        self.queue.clear();
        self.wire.clear();
        (self.queued_bytes, self.wire_bytes, self.unheard_bytes, self.unanswered_bytes) = (0, 0, 0, 0);
        self.failing_since_ns = None;
    }

    fn take_queued(&mut self, most: usize) -> Option<Bytes> {
        let front = self.queue.front_mut()?;
        let taken = match front.len() <= most {
            true => self.queue.pop_front()?,
            false => front.split_to(most),
        };
        self.queued_bytes -= taken.len();
        Some(taken)
    }

    /// When the next try is due after one that failed; none when it was the last.
    fn next_try(&mut self, world: &World) -> Option<u64> {
        let settings = &world.settings.network;
        let since_ns = *self.failing_since_ns.get_or_insert(world.now_ns());
        if world.now_ns() - since_ns >= settings.give_up_ns {
            return None;
        }
        let wait_ns = self.retransmit_ns;
        self.retransmit_ns = (wait_ns * 2).min(settings.retransmit_most_ns);
        Some(world.now_ns() + wait_ns)
    }

    fn succeed(&mut self, world: &World) {
        self.failing_since_ns = None;
        self.retransmit_ns = world.settings.network.retransmit_ns;
    }
}

impl StreamEvent {
    pub fn happen(self, world: &World) {
        let mut network = world.network.borrow_mut();
        let StreamEvent { flow, side, kind } = self;
        if !network.flows.contains_key(&flow) {
            return;
        }
        match kind {
            StreamEventKind::Syn { attempt } => network.on_syn(world, flow, attempt),
            StreamEventKind::SynAck => network.on_syn_ack(world, flow),
            StreamEventKind::Established => network.on_established(world, flow, true),
            StreamEventKind::Refused => {
                if network.passes_to(world, flow, 0) {
                    network.on_not_connected(world, flow, libc::ECONNREFUSED);
                }
            }
            StreamEventKind::Unreachable => {
                let host = network.flows[&flow].ends[1].host;
                if !Network::is_up(world, host) {
                    network.on_not_connected(world, flow, libc::EHOSTUNREACH);
                }
            }
            StreamEventKind::Arrival => network.on_arrival(world, flow, side),
            StreamEventKind::Acknowledged { bytes } => network.on_acknowledged(world, flow, side, bytes),
            StreamEventKind::Unanswered => network.on_unanswered(world, flow, side),
            StreamEventKind::HalfExpires => {
                if network.flows[&flow].ends[1].state == EndState::Half {
                    network.on_reset(world, flow, 1, libc::ETIMEDOUT);
                }
            }
            StreamEventKind::Window => network.on_window(world, flow, side),
            StreamEventKind::Reset => {
                if network.passes_to(world, flow, side) {
                    network.on_reset(world, flow, side, libc::ECONNRESET);
                }
            }
        }
    }
}

impl Network {
    /// Whether something passes to an end now.
    fn passes_to(&self, world: &World, id: u64, side: usize) -> bool {
        let Some(flow) = self.flows.get(&id) else { return false };
        let (from, to) = (flow.ends[1 - side].host, flow.ends[side].host);
        Network::is_up(world, to) && self.passes(world, from, to)
    }

    fn post(world: &World, at_ns: u64, flow: u64, side: usize, kind: StreamEventKind) {
        world.post(at_ns, Event::Stream(StreamEvent { flow, side, kind }));
    }

    // ---- The handshake ----

    fn on_syn(&mut self, world: &World, id: u64, attempt: u32) {
        let flow = &self.flows[&id];
        if flow.ends[0].state != EndState::Connecting {
            return;
        }
        let (host, address) = (flow.ends[1].host, flow.ends[1].address);
        if attempt < SYN_ATTEMPTS {
            let kind = StreamEventKind::Syn { attempt: attempt + 1 };
            Self::post(world, world.now_ns() + (SECOND_NS << attempt), id, 1, kind);
        }
        if !self.passes_to(world, id, 1) {
            return;
        }
        if self.flows[&id].ends[1].state == EndState::Gone {
            let Some(listener) = self.choose_listener(world, host, address) else {
                return self.send_event(world, id, 0, StreamEventKind::Refused);
            };
            if self.is_full(listener) {
                return;
            }
            let Some(state) = self.listeners.get_mut(&listener) else { return };
            state.coming += 1;
            Self::post(world, world.now_ns() + HALF_NS, id, 1, StreamEventKind::HalfExpires);
            let options = state.options;
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.listener = Some(listener);
                flow.ends[1].state = EndState::Half;
                flow.pipes[1].send_capacity = options.send_buffer_bytes.unwrap_or(flow.pipes[1].send_capacity);
                flow.pipes[0].receive_capacity = options.receive_buffer_bytes.unwrap_or(flow.pipes[0].receive_capacity);
            }
        }
        self.send_event(world, id, 0, StreamEventKind::SynAck);
    }

    fn on_syn_ack(&mut self, world: &World, id: u64) {
        if !self.passes_to(world, id, 0) {
            return;
        }
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.ends[0].state {
            EndState::Connecting => {
                flow.ends[0].state = EndState::Open;
                flow.ends[0].wake_writer();
            }
            // Given up meanwhile.
            EndState::Gone => return self.send_event(world, id, 1, StreamEventKind::Reset),
            _ => {}
        }
        self.send_event(world, id, 1, StreamEventKind::Established);
    }

    /// Side 1 hears that side 0 knows: by the answer, or by what comes after it.
    fn on_established(&mut self, world: &World, id: u64, is_segment: bool) {
        if self.flows[&id].ends[1].state != EndState::Half {
            return;
        }
        if is_segment && !self.passes_to(world, id, 1) {
            let at_ns = world.now_ns() + world.settings.network.retransmit_ns;
            return Self::post(world, at_ns, id, 1, StreamEventKind::Established);
        }
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let listener = flow.listener.take().and_then(|listener| self.listeners.get_mut(&listener));
        match listener {
            Some(listener) => {
                flow.ends[1].state = EndState::Open;
                listener.coming = listener.coming.saturating_sub(1);
                listener.queue.push_back(id);
                listener.waiter.take().into_iter().for_each(Waker::wake);
                world.trace.hash(Kind::Connection, world.now_ns(), id, 2);
                self.tap(world, TapKind::Connected, id, 0, 0, &Bytes::new());
            }
            None => {
                flow.ends[1].state = EndState::Gone;
                self.send_event(world, id, 0, StreamEventKind::Reset);
            }
        }
    }

    fn on_not_connected(&mut self, world: &World, id: u64, error: i32) {
        if self.flows[&id].ends[0].state == EndState::Connecting {
            self.on_reset(world, id, 0, error);
        }
    }

    // ---- Bytes ----

    /// Sends what there is room for at the other end.
    pub fn pump(&mut self, world: &World, id: u64, side: usize) {
        let Some(flow) = self.flows.get(&id) else { return };
        if !matches!(flow.ends[side].state, EndState::Open | EndState::Closed) {
            return;
        }
        let (from, to) = (flow.ends[side].host, flow.ends[1 - side].host);
        loop {
            let delay_ns = self.draw_delay_ns(world, from, to);
            let Some(pipe) = self.flows.get_mut(&id).map(|flow| &mut flow.pipes[side]) else { return };
            let room = pipe.receive_capacity.saturating_sub(pipe.received_bytes + pipe.wire_bytes);
            let mut most = room.min(SEGMENT_BYTES);
            if most > 1 && world.streams.network.permille(world.settings.network.partial_permille) {
                most = 1 + world.streams.network.below(most as u64 - 1) as usize;
            }
            let taken = if most > 0 { pipe.take_queued(most) } else { None };
            let bytes = match taken {
                Some(bytes) => bytes,
                None if pipe.has_fin && !pipe.is_fin_sent && pipe.queue.is_empty() => {
                    pipe.is_fin_sent = true;
                    Bytes::new()
                }
                None => return,
            };
            let transfer_ns = bytes.len() as u64 * SECOND_NS / world.settings.network.bytes_per_second.max(1);
            pipe.free_at_ns = pipe.free_at_ns.max(world.local_ns()) + transfer_ns;
            let arrives_at_ns = (pipe.free_at_ns + delay_ns).max(pipe.last_arrival_ns);
            pipe.last_arrival_ns = arrives_at_ns;
            pipe.wire_bytes += bytes.len();
            pipe.wire.push_back(Segment { arrives_at_ns, bytes });
            if !pipe.is_arrival_posted {
                pipe.is_arrival_posted = true;
                Self::post(world, arrives_at_ns, id, side, StreamEventKind::Arrival);
            }
        }
    }

    fn on_arrival(&mut self, world: &World, id: u64, side: usize) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.pipes[side].is_arrival_posted = false;
        }
        loop {
            let Some(flow) = self.flows.get(&id) else { return };
            let Some(segment) = flow.pipes[side].wire.front() else { return };
            let (at_ns, is_fin, state) = (segment.arrives_at_ns, segment.bytes.is_empty(), flow.ends[1 - side].state);
            if at_ns > world.now_ns() {
                return self.post_arrival(world, id, side, at_ns);
            }
            if !self.passes_to(world, id, 1 - side) {
                return self.on_unheard(world, id, side);
            }
            match state {
                EndState::Half | EndState::Connecting => self.on_established(world, id, false),
                EndState::Open => self.deliver(world, id, side),
                EndState::Closed if is_fin => self.deliver(world, id, side),
                EndState::Closed | EndState::Gone => {
                    // Nobody is there to take it. The answer may get lost; then the next try gets another.
                    self.send_event(world, id, side, StreamEventKind::Reset);
                    return self.on_unheard(world, id, side);
                }
            }
        }
    }

    fn post_arrival(&mut self, world: &World, id: u64, side: usize, at_ns: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !std::mem::replace(&mut flow.pipes[side].is_arrival_posted, true) {
            Self::post(world, at_ns, id, side, StreamEventKind::Arrival);
        }
    }

    /// A segment, or the answer to it, got lost: again later, or never.
    fn on_unheard(&mut self, world: &World, id: u64, side: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.pipes[side].next_try(world) {
            Some(at_ns) => self.post_arrival(world, id, side, at_ns),
            None => self.on_reset(world, id, side, libc::ETIMEDOUT),
        }
    }

    fn deliver(&mut self, world: &World, id: u64, side: usize) {
        let hears = self.passes_to(world, id, side);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let (pipe, end) = (&mut flow.pipes[side], &mut flow.ends[1 - side]);
        let Some(Segment { bytes, .. }) = pipe.wire.pop_front() else { return };
        let len = bytes.len();
        pipe.wire_bytes -= len;
        pipe.unheard_bytes += len;
        let position = pipe.delivered_bytes;
        pipe.delivered_bytes += len as u64;
        let kind = if len == 0 { TapKind::Ended } else { TapKind::Delivered };
        if len == 0 {
            end.has_ended = true;
        } else {
            pipe.received_bytes += len;
            pipe.received.push_back(bytes.clone());
        }
        end.wake_reader();
        world.trace.hash_bytes(Kind::Delivered, world.now_ns(), id << 1 | side as u64, &bytes);
        self.tap(world, kind, id, side, position, &bytes);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let (pipe, sender) = (&mut flow.pipes[side], &flow.ends[side]);
        if !hears {
            pipe.unanswered_bytes += len.max(1);
            if pipe.unanswered_bytes == len.max(1) {
                self.try_again(world, id, side);
            }
            return;
        }
        pipe.succeed(world);
        if sender.writer.is_some() || pipe.is_waiting() {
            self.send_event(world, id, side, StreamEventKind::Acknowledged { bytes: len });
        } else {
            // Nobody looks before the answer could be there.
            pipe.unheard_bytes -= len;
        }
    }

    fn try_again(&mut self, world: &World, id: u64, side: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.pipes[side].next_try(world) {
            Some(at_ns) => Self::post(world, at_ns, id, side, StreamEventKind::Unanswered),
            None => self.on_reset(world, id, side, libc::ETIMEDOUT),
        }
    }

    fn on_unanswered(&mut self, world: &World, id: u64, side: usize) {
        if !self.passes_to(world, id, 1 - side) || !self.passes_to(world, id, side) {
            return self.try_again(world, id, side);
        }
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let bytes = std::mem::take(&mut flow.pipes[side].unanswered_bytes);
        self.on_acknowledged(world, id, side, bytes);
    }

    fn on_acknowledged(&mut self, world: &World, id: u64, side: usize, bytes: usize) {
        let is_heard = self.passes_to(world, id, side);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let pipe = &mut flow.pipes[side];
        if !is_heard {
            let is_first = pipe.unanswered_bytes == 0;
            pipe.unanswered_bytes += bytes.max(1);
            return if is_first {
                self.try_again(world, id, side)
            };
        }
        pipe.succeed(world);
        pipe.unheard_bytes = pipe.unheard_bytes.saturating_sub(bytes);
        if pipe.room() > 0 {
            flow.ends[side].wake_writer();
        }
        self.pump(world, id, side);
    }

    /// The receiver has read: if the sender waits for room, it is told.
    pub fn on_read(&mut self, world: &World, id: u64, side: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let pipe = &mut flow.pipes[1 - side];
        if pipe.is_waiting() && !std::mem::replace(&mut pipe.is_window_posted, true) {
            self.send_event(world, id, 1 - side, StreamEventKind::Window);
        }
    }

    /// What the end `side` had received went with it. A sender that waits for room there asks by itself after a while, and
    /// learns that nobody is there.
    pub fn on_receiver_gone(&mut self, world: &World, id: u64, side: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let pipe = &mut flow.pipes[1 - side];
        pipe.received.clear();
        pipe.received_bytes = 0;
        let at_ns = world.now_ns() + world.settings.network.retransmit_ns;
        if !std::mem::replace(&mut pipe.is_window_posted, true) {
            Self::post(world, at_ns, id, 1 - side, StreamEventKind::Window);
        }
    }

    fn on_window(&mut self, world: &World, id: u64, side: usize) {
        if !self.passes_to(world, id, side) {
            // The sender asks by itself after a while.
            let at_ns = world.now_ns() + world.settings.network.retransmit_ns;
            return Self::post(world, at_ns, id, side, StreamEventKind::Window);
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.pipes[side].is_window_posted = false;
        }
        self.pump(world, id, side);
    }

    /// Notes what an end's owner has written.
    pub fn on_written(&mut self, world: &World, id: u64, side: usize, bytes: &Bytes) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let position = flow.pipes[side].sent_bytes;
        flow.pipes[side].sent_bytes += bytes.len() as u64;
        self.tap(world, TapKind::Sent, id, side, position, bytes);
    }
}
