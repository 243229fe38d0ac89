//! TCP: listeners that share a port between executors, and connections.

pub(crate) mod network;
pub(crate) mod stream;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};

use self::network::{Flow, Network};
use self::stream::EndState;
use super::disk::errno;
use super::port::ListeningSocket;
use super::process::Process;
use super::tasks::yield_if_needed;
use super::world::{self, World};
use crate::timing::timeout_ms;
use crate::vocabulary::SocketOptions;

/// Slices that one send takes.
const MAX_SLICES: usize = 64;

/// Accepts connections for one executor.
pub struct Listener {
    process: Rc<Process>,
    socket: ListeningSocket,
}

impl Listener {
    /// Accepts from `socket`, here.
    pub fn adopt(socket: ListeningSocket) -> Listener {
        Listener { process: world::current().process.clone(), socket }
    }

    /// The next connection. An error is the listener's or the host's (out of descriptors): wait a moment and go on.
    ///
    /// Dropping this future may lose a connection that just came: accept in a task of its own, which ends with the
    /// listener.
    pub async fn accept(&self) -> io::Result<Connection> {
        let id = poll_fn(|context| self.poll_accept(context)).await?;
        Ok(Connection::new(self.process.clone(), id, 1))
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<io::Result<u64>> {
        let world = world::world();
        let mut network = world.network.borrow_mut();
        loop {
            let Some(listener) = network.listeners.get_mut(&self.socket.id()) else { return Poll::Pending };
            if listener.queue.is_empty() {
                listener.waiter = Some(context.waker().clone());
                return Poll::Pending;
            }
            if let Err(error) = self.process.take_descriptors(1) {
                return Poll::Ready(Err(error));
            }
            let id = listener.queue.pop_front();
            match id.and_then(|id| network.flows.get_mut(&id).map(|flow| (id, flow))) {
                Some((id, flow)) => {
                    flow.ends[1].process = Some(self.process.id);
                    return Poll::Ready(Ok(id));
                }
                // The other end is gone already.
                None => self.process.return_descriptors(1),
            }
        }
    }

    /// Where it listens; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.address())
    }
}

/// A TCP connection. Clones share it, so that one task reads while another writes; closed when the last is dropped.
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

struct Shared {
    process: Rc<Process>,
    id: u64,
    side: usize,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(world) = world::try_world().filter(|_| !self.process.has_ended()) else { return };
        self.process.return_descriptors(1);
        world.network.borrow_mut().close(&world, self.id, self.side, false);
    }
}

impl Connection {
    fn new(process: Rc<Process>, id: u64, side: usize) -> Connection {
        let world = world::world();
        let network = world.network.borrow();
        let ends = &network.flows[&id].ends;
        let (peer, local) = (ends[1 - side].address, ends[side].address);
        Connection(Rc::new(Shared { process, id, side, peer, local }))
    }

    /// Connects within `timeout_ms` milliseconds.
    pub async fn connect(address: SocketAddr, timeout_ms: u64) -> io::Result<Connection> {
        let (world, process) = (world::world(), world::current().process.clone());
        if process.has_ended() {
            return Err(errno(libc::EINVAL));
        }
        process.take_descriptors(1)?;
        let id = world.network.borrow_mut().connect(&world, &process, address);
        // Given up when dropped.
        let connection = Connection::new(process, id, 0);
        let connected = poll_fn(|context| {
            connection.with(|_, flow| match flow.map(|flow| (flow.ends[0].state, flow)) {
                Some((EndState::Connecting, flow)) => {
                    flow.ends[0].writer = Some(context.waker().clone());
                    Poll::Pending
                }
                Some((EndState::Open, _)) => Poll::Ready(Ok(())),
                Some((_, flow)) => Poll::Ready(Err(errno(flow.ends[0].error.take().unwrap_or(libc::ECONNREFUSED)))),
                None => Poll::Ready(Err(errno(libc::ECONNREFUSED))),
            })
        });
        match self::timeout_ms(timeout_ms.max(1), connected).await {
            Ok(connected) => connected.map(|()| connection),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Does something with the connection, if anybody still knows it.
    fn with<T>(&self, work: impl FnOnce(&World, Option<&mut Flow>) -> T) -> T {
        let world = world::world();
        let mut network = world.network.borrow_mut();
        work(&world, network.flows.get_mut(&self.0.id))
    }

    fn with_network<T>(&self, work: impl FnOnce(&World, &mut Network) -> T) -> T {
        let world = world::world();
        let mut network = world.network.borrow_mut();
        work(&world, &mut network)
    }

    /// Takes what is there, up to `most` bytes; `WouldBlock` if nothing is.
    fn take(&self, most: usize, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        if most == 0 {
            return Ok(0);
        }
        let taken = self.with(|world, flow| {
            let Some(flow) = flow else { return Ok(0) };
            let (end, pipe) = (&mut flow.ends[self.0.side], &mut flow.pipes[1 - self.0.side]);
            if pipe.received_bytes == 0 {
                return match end.error.take() {
                    Some(error) => Err(errno(error)),
                    None if end.has_ended || end.is_read_shut || end.state == EndState::Gone => Ok(0),
                    None => Err(io::ErrorKind::WouldBlock.into()),
                };
            }
            let mut wanted = most.min(pipe.received_bytes);
            if wanted > 1 && world.streams.network.permille(world.settings.network.partial_permille) {
                wanted = 1 + world.streams.network.below(wanted as u64 - 1) as usize;
            }
            let mut left = wanted;
            while left > 0 {
                let Some(front) = pipe.received.front_mut() else { break };
                let count = front.len().min(left);
                take(&front[..count]);
                front.advance(count);
                if front.is_empty() {
                    pipe.received.pop_front();
                }
                left -= count;
            }
            pipe.received_bytes -= wanted;
            Ok(wanted)
        })?;
        if taken > 0 {
            self.with_network(|world, network| network.on_read(world, self.0.id, self.0.side));
        }
        Ok(taken)
    }

    /// Reads what is there into `buffer`, waiting for at least a byte; 0 at the end. One task reads at a time.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut filled = 0;
            let taken = self.take(buffer.len(), |bytes| {
                buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
            });
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.with(|_, flow| {
                        if let Some(flow) = flow {
                            flow.ends[self.0.side].reader = Some(context.waker().clone());
                        }
                    });
                    Poll::Pending
                }
                taken => Poll::Ready(taken),
            }
        })
        .await
    }

    /// Reads what is there into the room that `buffer` has left; never waits (`WouldBlock`). 0 at the end, or when
    /// there is no room.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_some(buffer, usize::MAX)
    }

    /// [`Connection::try_read`] of `limit` bytes at most.
    pub fn try_read_some(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        self.take(room.min(limit), |bytes| buffer.extend_from_slice(bytes))
    }

    /// Writes all chunks, removing what is written, without copying them together. One task writes at a time. When
    /// dropped or failed, what remains in `chunks` wasn't written.
    pub async fn write_chunks(&self, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
        while self.write_some(chunks).await? > 0 {
            yield_if_needed().await;
        }
        Ok(())
    }

    /// Writes as much as the socket takes at once, waiting until it takes at least a byte; the bytes written, 0 only
    /// when there is nothing to write. For writers that watch their progress.
    pub async fn write_some(&self, chunks: &mut VecDeque<Bytes>) -> io::Result<usize> {
        while chunks.front().is_some_and(Bytes::is_empty) {
            chunks.pop_front();
        }
        if chunks.is_empty() {
            return Ok(0);
        }
        poll_fn(|context| self.poll_write(chunks, context)).await
    }

    fn poll_write(&self, chunks: &mut VecDeque<Bytes>, context: &Context<'_>) -> Poll<io::Result<usize>> {
        let sent = self.with(|world, flow| {
            let Some(flow) = flow else { return Poll::Ready(Err(errno(libc::EPIPE))) };
            let (end, pipe) = (&mut flow.ends[self.0.side], &mut flow.pipes[self.0.side]);
            if let Some(error) = end.error.take() {
                return Poll::Ready(Err(errno(error)));
            }
            if end.state != EndState::Open || pipe.has_fin {
                return Poll::Ready(Err(errno(libc::EPIPE)));
            }
            let mut room = pipe.room();
            if room == 0 {
                end.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            if room > 1 && world.streams.network.permille(world.settings.network.partial_permille) {
                room = 1 + world.streams.network.below(room as u64 - 1) as usize;
            }
            let offered: usize = chunks.iter().take(MAX_SLICES).map(Bytes::len).sum();
            let mut sent = BytesMut::with_capacity(offered.min(room));
            for _ in 0..MAX_SLICES {
                let Some(front) = chunks.front_mut().filter(|_| sent.len() < room) else { break };
                let count = front.len().min(room - sent.len());
                // The kernel has a copy: whoever waits for the memory shall not wait for the network.
                sent.extend_from_slice(&front[..count]);
                front.advance(count);
                if front.is_empty() {
                    chunks.pop_front();
                }
            }
            let sent = sent.freeze();
            pipe.write(sent.clone());
            Poll::Ready(Ok(sent))
        });
        sent.map_ok(|sent| {
            self.with_network(|world, network| {
                network.on_written(world, self.0.id, self.0.side, &sent);
                network.pump(world, self.0.id, self.0.side);
            });
            sent.len()
        })
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.peer
    }

    /// This end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Ends reading, writing or both; tasks that wait in them are woken.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if self.0.process.has_ended() {
            return Err(errno(libc::ENOTCONN));
        }
        self.with(|_, flow| {
            let flow = flow.filter(|flow| flow.ends[self.0.side].state == EndState::Open);
            let Some(flow) = flow else { return Err(errno(libc::ENOTCONN)) };
            let end = &mut flow.ends[self.0.side];
            end.is_read_shut |= how != Shutdown::Write;
            flow.pipes[self.0.side].has_fin |= how != Shutdown::Read;
            end.wake_all();
            Ok(())
        })?;
        self.with_network(|world, network| network.pump(world, self.0.id, self.0.side));
        Ok(())
    }

    /// Sets the buffers' sizes, of a connection made with [`Connection::connect`].
    pub fn set_buffers(&self, options: SocketOptions) -> io::Result<()> {
        self.with(|_, flow| {
            let Some(flow) = flow else { return };
            let (side, pipes) = (self.0.side, &mut flow.pipes);
            pipes[side].send_capacity = options.send_buffer_bytes.unwrap_or(pipes[side].send_capacity);
            let receive = &mut pipes[1 - side].receive_capacity;
            *receive = options.receive_buffer_bytes.unwrap_or(*receive);
        });
        Ok(())
    }
}
