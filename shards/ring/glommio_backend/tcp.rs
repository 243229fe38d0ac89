//! TCP: listeners that share a port between executors, and connections.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use glommio::net::{TcpListener, TcpStream};
use socket2::{SockRef, Socket};

use super::io_error;
use crate::backend::port::ListeningSocket;
use crate::backend::tasks::yield_if_needed;
use crate::vocabulary::SocketOptions;

/// Slices that one send takes.
const MAX_SLICES: usize = 64;

/// Accepts connections for one executor.
pub struct Listener(TcpListener);

impl Listener {
    /// Accepts from `socket`, here.
    pub fn adopt(socket: ListeningSocket) -> Listener {
        // SAFETY: the descriptor is a listening TCP socket that nobody else owns from here on.
        Listener(unsafe { TcpListener::from_raw_fd(socket.0.into_raw_fd()) })
    }

    /// The next connection. An error is the listener's or the host's (out of descriptors): wait a moment and go on.
    ///
    /// Dropping this future may lose a connection that just came: accept in a task of its own, which ends with the
    /// listener.
    pub async fn accept(&self) -> io::Result<Connection> {
        loop {
            let stream = match self.0.accept().await.map_err(io_error) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                result => result?,
            };
            // Fails only when the other end is gone already.
            if let Ok(connection) = Connection::new(stream) {
                return Ok(connection);
            }
        }
    }

    /// Where it listens; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map_err(io_error)
    }
}

pub(crate) fn set_buffers(socket: &Socket, options: SocketOptions) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// A TCP connection. Clones share it, so that one task reads while another writes; closed when the last is dropped.
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

struct Shared {
    stream: RefCell<TcpStream>,
    descriptor: RawFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true).map_err(io_error)?;
        let (peer, local) = (stream.peer_addr().map_err(io_error)?, stream.local_addr().map_err(io_error)?);
        let descriptor = stream.as_raw_fd();
        Ok(Connection(Rc::new(Shared { stream: RefCell::new(stream), descriptor, peer, local })))
    }

    /// Connects within `timeout_ms` milliseconds.
    ///
    /// A connection to a port of this host where nobody listens may get just that port for its own end, and then reaches
    /// itself: that counts as refused, and leaves nothing behind that would keep a listener from the port.
    pub async fn connect(address: SocketAddr, timeout_ms: u64) -> io::Result<Connection> {
        let timeout = Duration::from_millis(timeout_ms.max(1));
        let connection = Connection::new(TcpStream::connect_timeout(address, timeout).await.map_err(io_error)?)?;
        if connection.0.local == connection.0.peer {
            // Closes with a reset, without TIME-WAIT.
            connection.socket(|socket| socket.set_linger(Some(Duration::ZERO)))?;
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the connection reached itself"));
        }
        Ok(connection)
    }

    /// Reads what is there into `buffer`, waiting for at least a byte; 0 at the end. One task reads at a time.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut stream = self.0.stream.borrow_mut();
            futures_io::AsyncRead::poll_read(Pin::new(&mut *stream), context, buffer)
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
        let room = buffer.spare_capacity_mut();
        let (data, len) = (room.as_mut_ptr(), room.len().min(limit));
        if len == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: `room` is writable for `len` bytes, and the descriptor is open as long as `self` lives.
            let received = unsafe { libc::recv(self.0.descriptor, data.cast(), len, libc::MSG_DONTWAIT) };
            if let Ok(received) = usize::try_from(received) {
                let filled = buffer.len() + received;
                // SAFETY: the kernel has just written these bytes.
                unsafe { buffer.set_len(filled) };
                return Ok(received);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
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
        let written = match self.send_vectored(chunks) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.send_when_ready(&chunks[0]).await,
            result => result,
        }?;
        advance(chunks, written);
        Ok(written)
    }

    /// One send of up to [`MAX_SLICES`] chunks; never waits.
    fn send_vectored(&self, chunks: &VecDeque<Bytes>) -> io::Result<usize> {
        let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SLICES];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: chunk.len() };
            count += 1;
        }
        // SAFETY: all zero is a valid message header: no address, no control data, no slices.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = slices.as_mut_ptr();
        message.msg_iovlen = count as _;
        loop {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the header refers to `count` slices of chunks that are borrowed through the call, which only
            // reads them; the descriptor is open as long as `self` lives.
            let sent = unsafe { libc::sendmsg(self.0.descriptor, &message, flags) };
            if sent >= 0 {
                return Ok(sent as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Waits until the socket takes bytes, and sends of `chunk`.
    async fn send_when_ready(&self, chunk: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut stream = self.0.stream.borrow_mut();
            match futures_io::AsyncWrite::poll_write(Pin::new(&mut *stream), context, chunk) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                result => result,
            }
        })
        .await
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
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: the descriptor is open as long as `self` lives.
        match unsafe { libc::shutdown(self.0.descriptor, how) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sets the buffers' sizes, of a connection made with [`Connection::connect`].
    pub fn set_buffers(&self, options: SocketOptions) -> io::Result<()> {
        self.socket(|socket| set_buffers(socket, options))
    }

    fn socket<T>(&self, set: impl FnOnce(&Socket) -> T) -> T {
        // SAFETY: the descriptor is open as long as `self` lives, longer than this borrow.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.0.descriptor) };
        set(&SockRef::from(&descriptor))
    }
}

/// Drops the first `written` bytes.
fn advance(chunks: &mut VecDeque<Bytes>, written: usize) {
    let mut left = written;
    while let Some(front) = chunks.front_mut() {
        if left < front.len() {
            front.advance(left);
            return;
        }
        left -= front.len();
        chunks.pop_front();
    }
}
