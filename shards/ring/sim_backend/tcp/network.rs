//! The network: links between hosts, who listens where, and all connections.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::stream::{End, EndState, Pipe, StreamEvent, StreamEventKind};
use crate::backend::disk::errno;
use crate::backend::host::Host;
use crate::backend::process::Process;
use crate::backend::schedule::Event;
use crate::backend::trace::{Kind, Tap, TapKind};
use crate::backend::world::World;
use crate::vocabulary::SocketOptions;

/// Ports that are given to listeners that ask for any.
const FIRST_LISTENER_PORT: u16 = 20_000;
/// The kernel's bound of a listener's queue.
const MOST_BACKLOG: usize = 4096;

/// Something to be said of one direction between two hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes.
    pub is_cut: bool,
    /// What passes takes so much longer.
    pub slow_ns: u64,
    /// Of a thousand segments so many are lost, besides those that are lost everywhere.
    pub loss_permille: u64,
}

/// A connection: an end that asked for it, and one that accepted it.
pub(crate) struct Flow {
    pub ends: [End; 2],
    /// By the end that sends.
    pub pipes: [Pipe; 2],
    /// Who is to accept it.
    pub listener: Option<u32>,
}

/// What a socket has a port for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortUse {
    /// To listen there later: nobody may be listening now.
    Claimed,
    /// To listen there, with others who do the same.
    Shared,
    /// To listen there alone.
    Exclusive,
}

pub(crate) struct ListenerState {
    pub process: u32,
    pub host: usize,
    pub address: SocketAddr,
    pub options: SocketOptions,
    pub how: PortUse,
    pub queue: VecDeque<u64>,
    /// Connections on their way into the queue.
    pub coming: usize,
    pub waiter: Option<Waker>,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Network {
    pub flows: FxHashMap<u64, Flow>,
    pub listeners: BTreeMap<u32, ListenerState>,
    links: BTreeMap<(usize, usize), Link>,
    next_flow: u64,
    next_listener: u32,
}

impl Network {
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    pub fn set_link(&mut self, from: usize, to: usize, link: Link) {
        self.links.insert((from, to), link);
    }

    pub fn heal(&mut self) {
        self.links.clear();
    }

    /// Whether a segment passes now.
    pub fn passes(&self, world: &World, from: usize, to: usize) -> bool {
        if from == to {
            return true;
        }
        let link = self.link(from, to);
        let lost = world.settings.network.loss_permille + link.loss_permille;
        !link.is_cut && !world.streams.network.permille(lost) && world.hosts.borrow()[to].has_power()
    }

    pub fn draw_delay_ns(&self, world: &World, from: usize, to: usize) -> u64 {
        let (settings, stream) = (&world.settings.network, &world.streams.network);
        if from == to {
            return stream.between(settings.loopback_delay_ns);
        }
        let mut delay_ns = stream.between(settings.delay_ns) + self.link(from, to).slow_ns;
        if stream.permille(settings.late_permille) {
            delay_ns += stream.below(settings.late_ns);
        }
        delay_ns
    }

    /// Something reaches the end `to` of a connection after the usual delay.
    pub fn send_event(&self, world: &World, id: u64, to: usize, kind: StreamEventKind) {
        let Some(flow) = self.flows.get(&id) else { return };
        let delay_ns = self.draw_delay_ns(world, flow.ends[1 - to].host, flow.ends[to].host);
        world.post_after(delay_ns, Event::Stream(StreamEvent { flow: id, side: to, kind }));
    }

    // ---- Listeners ----

    /// Gives a process a port.
    pub fn bind(
        &mut self,
        process: &Process,
        address: SocketAddr,
        options: SocketOptions,
        how: PortUse,
    ) -> io::Result<(u32, SocketAddr)> {
        let host = &process.host;
        if !address.ip().is_unspecified() && !host.is_own(address.ip()) {
            return Err(errno(libc::EADDRNOTAVAIL));
        }
        let mut address = address;
        if address.port() == 0 {
            let is_taken = |port| self.listeners.values().any(|it| it.host == host.number && it.address.port() == port);
            let port = (FIRST_LISTENER_PORT..u16::MAX).find(|port| !is_taken(*port));
            address.set_port(port.ok_or_else(|| errno(libc::EADDRINUSE))?);
        }
        self.check(host, address, how)?;
        self.next_listener += 1;
        let (process, host) = (process.id, host.number);
        let state =
            ListenerState { process, host, address, options, how, queue: VecDeque::new(), coming: 0, waiter: None };
        self.listeners.insert(self.next_listener, state);
        Ok((self.next_listener, address))
    }

    /// Whether a port may be had, beside those who listen there.
    pub fn check(&self, host: &Host, address: SocketAddr, how: PortUse) -> io::Result<()> {
        let mut others = self.at(host.number, address).filter(|other| other.how != PortUse::Claimed);
        match others.any(|other| how != PortUse::Shared || other.how != PortUse::Shared) {
            true => Err(errno(libc::EADDRINUSE)),
            false => Ok(()),
        }
    }

    /// The process that listens at an address of a host.
    pub fn holder(&self, host: &Host, address: SocketAddr) -> Option<u32> {
        let mut listeners = self.at(host.number, address).filter(|other| other.how != PortUse::Claimed);
        listeners.next().map(|listener| listener.process)
    }

    /// Those who have the port at an address, which may be any.
    fn at(&self, host: usize, address: SocketAddr) -> impl Iterator<Item = &ListenerState> {
        self.listeners.values().filter(move |other| {
            let (own, its) = (address.ip(), other.address.ip());
            let is_same = own == its || own.is_unspecified() || its.is_unspecified();
            other.host == host && other.address.port() == address.port() && is_same
        })
    }

    /// A listener closes: those who wait to be accepted are reset.
    pub fn close_listener(&mut self, world: &World, id: u32) {
        let Some(listener) = self.listeners.remove(&id) else { return };
        for flow in listener.queue {
            self.close(world, flow, 1, true);
        }
    }

    /// One of those who listen at an address of a host.
    pub fn choose_listener(&self, world: &World, host: usize, address: SocketAddr) -> Option<u32> {
        let listens = |listener: &ListenerState| {
            let ip = listener.address.ip();
            listener.how != PortUse::Claimed
                && listener.host == host
                && listener.address.port() == address.port()
                && (ip.is_unspecified() || ip == address.ip())
        };
        let found: Vec<u32> = self.listeners.iter().filter(|(_, it)| listens(it)).map(|(id, _)| *id).collect();
        match found.len() {
            0 => None,
            count => Some(found[world.streams.network.below(count as u64) as usize]),
        }
    }

    pub fn is_full(&self, listener: u32) -> bool {
        self.listeners.get(&listener).is_none_or(|listener| {
            let bound = usize::try_from(listener.options.backlog).unwrap_or(0).clamp(1, MOST_BACKLOG);
            listener.queue.len() + listener.coming >= bound
        })
    }

    // ---- Connections ----

    /// A process asks for a connection. What answers comes later.
    pub fn connect(&mut self, world: &World, process: &Process, to: SocketAddr) -> u64 {
        let host = &process.host;
        let own: IpAddr = if to.ip().is_loopback() { to.ip() } else { host.address() };
        let from = SocketAddr::new(own, host.take_port());
        let peer = match to.ip().is_loopback() || to.ip() == host.address() {
            true => Some(host.number),
            false => world.host_at(to.ip()).map(|host| host.number),
        };
        self.next_flow += 1;
        let id = self.next_flow;
        let ends = [
            End::new(host.number, from, Some(process.id), EndState::Connecting),
            // An address that no host has is one that never answers.
            End::new(peer.unwrap_or(usize::MAX), to, None, EndState::Gone),
        ];
        let pipes = [Pipe::new(world), Pipe::new(world)];
        self.flows.insert(id, Flow { ends, pipes, listener: None });
        if peer.is_some() {
            self.send_event(world, id, 1, StreamEventKind::Syn { attempt: 0 });
        }
        if let Some(after_ns) = world.settings.network.unreachable_after_ns {
            let event = StreamEvent { flow: id, side: 0, kind: StreamEventKind::Unreachable };
            world.post_after(after_ns, Event::Stream(event));
        }
        id
    }

    pub fn is_up(world: &World, host: usize) -> bool {
        world.hosts.borrow().get(host).is_some_and(|host: &Rc<Host>| host.has_power())
    }

    /// The owner of an end closes it. With `is_abrupt`, or if it leaves something unread, the other end is reset; else it
    /// gets what was sent, and then the end.
    pub fn close(&mut self, world: &World, id: u64, side: usize, is_abrupt: bool) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let has_unread = flow.pipes[1 - side].received_bytes > 0;
        let end = &mut flow.ends[side];
        (end.reader, end.writer, end.process) = (None, None, None);
        match end.state {
            EndState::Open | EndState::Half if is_abrupt || has_unread => {
                end.state = EndState::Gone;
                self.send_event(world, id, 1 - side, StreamEventKind::Reset);
                // It may get lost.
                self.on_receiver_gone(world, id, side);
            }
            EndState::Open => {
                end.state = EndState::Closed;
                flow.pipes[side].has_fin = true;
                self.pump(world, id, side);
            }
            _ => end.state = EndState::Gone,
        }
        self.forget_if_over(id);
    }

    /// Nobody has an end of the connection any more.
    pub fn forget_if_over(&mut self, id: u64) {
        let is_over = |end: &End| matches!(end.state, EndState::Closed | EndState::Gone) && end.process.is_none();
        if self.flows.get(&id).is_some_and(|flow| flow.ends.iter().all(is_over)) {
            self.flows.remove(&id);
        }
    }

    /// A host has lost its power: its kernel knows of nothing, and tells nobody.
    pub fn forget_host(&mut self, world: &World, host: usize) {
        self.listeners.retain(|_, listener| listener.host != host);
        for id in self.ids() {
            for side in [0, 1] {
                let Some(flow) = self.flows.get_mut(&id) else { continue };
                if flow.ends[side].host == host {
                    (flow.ends[side].state, flow.ends[side].process) = (EndState::Gone, None);
                    flow.pipes[side].forget();
                    self.on_receiver_gone(world, id, side);
                }
            }
            self.forget_if_over(id);
        }
    }

    /// All connections between two hosts are reset at both ends.
    pub fn reset_between(&mut self, world: &World, one: usize, other: usize) -> usize {
        let mut count = 0;
        for id in self.ids() {
            let hosts = self.flows[&id].ends.each_ref().map(|end| end.host);
            if hosts == [one, other] || hosts == [other, one] {
                count += 1;
                self.on_reset(world, id, 0, libc::ECONNRESET);
                self.on_reset(world, id, 1, libc::ECONNRESET);
            }
        }
        count
    }

    /// In the order of their making.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.flows.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// An end learns that the connection is gone.
    pub fn on_reset(&mut self, world: &World, id: u64, side: usize, error: i32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let end = &mut flow.ends[side];
        if end.state == EndState::Gone {
            return;
        }
        end.state = EndState::Gone;
        end.error = Some(error);
        end.wake_all();
        flow.pipes[side].forget();
        if side == 1
            && let Some(listener) = flow.listener.take().and_then(|id| self.listeners.get_mut(&id))
        {
            listener.coming = listener.coming.saturating_sub(1);
        }
        world.trace.hash(Kind::Connection, world.now_ns(), id, side as u64);
        self.tap(world, TapKind::Reset, id, 1 - side, 0, &Bytes::new());
        self.forget_if_over(id);
    }

    /// Shows something that the end `from` did to those who look on.
    pub fn tap(&self, world: &World, kind: TapKind, id: u64, from: usize, position: u64, bytes: &Bytes) {
        let Some(flow) = self.flows.get(&id) else { return };
        let (sender, receiver) = (flow.ends[from].address, flow.ends[1 - from].address);
        if world.trace.has_taps() {
            let at_ns = world.local_ns();
            world.trace.tap(&Tap { kind, at_ns, connection: id, from: sender, to: receiver, position, bytes });
        }
        match kind {
            TapKind::Sent | TapKind::Delivered => {}
            _ => world.trace.tell(|| format!("connection {id}, {sender} to {receiver}: {kind:?}")),
        }
    }
}

/// A process has ended: the kernel closes what it had open. Without power nobody does.
pub(crate) fn on_process_ended(world: &World, process: &Process, has_power: bool) {
    if !has_power {
        return;
    }
    let mut network = world.network.borrow_mut();
    let listeners = network.listeners.iter().filter(|(_, listener)| listener.process == process.id);
    for id in listeners.map(|(id, _)| *id).collect::<Vec<_>>() {
        network.close_listener(world, id);
    }
    for id in network.ids() {
        for side in [0, 1] {
            if network.flows.get(&id).is_some_and(|flow| flow.ends[side].process == Some(process.id)) {
                network.close(world, id, side, false);
            }
        }
    }
}
