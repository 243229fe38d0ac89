//! A connection to a node: requests go out in order, and answers are expected in the same order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use ringlog_protocol::frame::{self, SIZE_LENGTH};
use ringlog_protocol::{Decoder, Message, Request};
use ringlog_ring::{Connection as Socket, sim, timeout_ms};

use crate::check::Asked;

const CONNECT_LIMIT_MS: u64 = 2_000;
/// The largest answer that a node of these runs gives.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// What one read brings, at most.
const READ_BYTES: usize = 16 * 1024;

/// Why there is no answer. Whether the request was carried out isn't known then.
#[derive(Debug)]
pub enum CallFault {
    /// The connection failed or ended.
    Connection(io::Error),
    /// It took so long.
    Timeout(u64),
    /// The answer makes no sense: no node may give it.
    Nonsense(String),
}

impl From<io::Error> for CallFault {
    fn from(error: io::Error) -> CallFault {
        CallFault::Connection(error)
    }
}

/// See the module's text.
pub struct Connection {
    socket: Socket,
    /// The name that it gives itself.
    client_id: String,
    input: BytesMut,
    /// What one read brings.
    buffer: Box<[u8]>,
    sent: i32,
    answered: i32,
    /// When it was opened: what it says of a node is of no later start of it.
    pub opened_at_ns: u64,
    /// Where the node listens.
    pub address: SocketAddr,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        Connection::open_as(address, "simnode").await
    }

    /// Connects, under a name.
    pub async fn open_as(address: SocketAddr, client_id: &str) -> io::Result<Connection> {
        let (socket, client_id) = (Socket::connect(address, CONNECT_LIMIT_MS).await?, client_id.to_owned());
        let opened_at_ns = sim::control().now_ns();
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Connection {
            socket,
            client_id,
            input: BytesMut::new(),
            buffer,
            sent: 0,
            answered: 0,
            opened_at_ns,
            address,
        })
    }

    /// What is asked now.
    pub fn asked(&self) -> Asked {
        Asked { opened_at_ns: self.opened_at_ns, sent_at_ns: sim::control().now_ns() }
    }

    /// Sends a request in the highest version and waits for its answer.
    pub async fn call<R: Request>(&mut self, request: &R, limit_ms: u64) -> Result<R::Response, CallFault> {
        self.call_at(request, R::KEY.max_version(), limit_ms).await
    }

    /// The same in another version.
    pub async fn call_at<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        limit_ms: u64,
    ) -> Result<R::Response, CallFault> {
        let exchange = async {
            self.send_at(request, version).await?;
            self.receive_at::<R>(version).await
        };
        timeout_ms(limit_ms, exchange).await.map_err(|_| CallFault::Timeout(limit_ms * sim::MS))?
    }

    /// Sends a request. Its answer comes after those to what was sent before.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<(), CallFault> {
        self.send_at(request, R::KEY.max_version()).await
    }

    async fn send_at<R: Request>(&mut self, request: &R, version: i16) -> Result<(), CallFault> {
        self.sent += 1;
        let encoded = frame::encode_request(request, version, self.sent, Some(&self.client_id));
        let frame = encoded.map_err(|fault| CallFault::Nonsense(format!("{:?}: {fault}", R::KEY)))?;
        self.socket.write_chunks(&mut VecDeque::from(frame.chunks)).await?;
        Ok(())
    }

    /// The next answer, which is to a request of this kind.
    pub async fn receive<R: Request>(&mut self) -> Result<R::Response, CallFault> {
        self.receive_at::<R>(R::KEY.max_version()).await
    }

    async fn receive_at<R: Request>(&mut self, version: i16) -> Result<R::Response, CallFault> {
        let nonsense = |what: String| CallFault::Nonsense(format!("answer to {:?}: {what}", R::KEY));
        self.answered += 1;
        self.fill(SIZE_LENGTH).await?;
        let size = self.input.split_to(SIZE_LENGTH);
        let size = size[..].try_into().map(i32::from_be_bytes).unwrap_or(-1);
        let len = usize::try_from(size).ok().filter(|len| *len <= FRAME_BYTES_MAX);
        let len = len.ok_or_else(|| nonsense(format!("a size of {size}")))?;
        self.fill(len).await?;
        let mut input = Decoder::new(self.input.split_to(len).freeze());
        match frame::decode_response_header(&mut input, R::KEY, version).map_err(|fault| nonsense(fault.to_string()))? {
            found if found == self.answered => {}
            found => return Err(nonsense(format!("it answers request {found} and not {}", self.answered))),
        }
        let response = R::Response::decode(&mut input, version).map_err(|fault| nonsense(fault.to_string()))?;
        input.expect_end().map_err(|fault| nonsense(fault.to_string()))?;
        Ok(response)
    }

    /// Bytes as they are, for who doesn't keep to the protocol.
    pub async fn send_raw(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.socket.write_chunks(&mut VecDeque::from([bytes.into()])).await
    }

    /// Waits for the node to close the connection; what it says meanwhile is of no interest.
    pub async fn until_closed(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 4 * 1024];
        while self.socket.read(&mut buffer).await? > 0 {}
        Ok(())
    }

    async fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.input.reserve((wanted + self.buffer.len()).saturating_sub(self.input.len()));
        while self.input.len() < wanted {
            match self.socket.read(&mut self.buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&self.buffer[..count]),
            }
        }
        Ok(())
    }
}
