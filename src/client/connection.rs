use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringlog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::{ApiKey, Decoder, Frame, Message, Request, StrBytes, frame};
use ringlog_types::ErrorCode;

use crate::patience::Patience;
use crate::{ClientError, ClientOptions, NodeVersions};

/// How much is read from the socket at once, in bytes.
const READ_BYTES: usize = 64 << 10;
/// Requests without their answers at most; a caller that pipelines more than this is at fault.
const MAX_IN_FLIGHT: usize = 1 << 16;

/// One socket to one node. Requests may be pipelined: answers come in the order of the requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    client_id: String,
    request_timeout: Duration,
    patience: Patience,
    max_frame_bytes: usize,
    input: BytesMut,
    versions: NodeVersions,
    next_correlation_id: i32,
    in_flight: VecDeque<(i32, ApiKey, i16)>,
}

impl Connection {
    /// Opens a socket and asks the node which versions it speaks.
    pub fn connect(address: &str, options: &ClientOptions) -> Result<Connection, ClientError> {
        Connection::connect_within(address, options, Patience::new(options.stop.clone()))
    }

    /// As [`Connection::connect`], and all waits of the connection are within `patience`.
    pub(crate) fn connect_within(
        address: &str,
        options: &ClientOptions,
        patience: Patience,
    ) -> Result<Connection, ClientError> {
        let mut connection = Connection::open_within(address, options, patience)?;
        connection.versions = connection.negotiate()?;
        Ok(connection)
    }

    /// Opens a socket and asks nothing: for frames that were encoded before, and for tests of bad input.
    pub fn open(address: &str, options: &ClientOptions) -> Result<Connection, ClientError> {
        Connection::open_within(address, options, Patience::new(options.stop.clone()))
    }

    fn open_within(address: &str, options: &ClientOptions, patience: Patience) -> Result<Connection, ClientError> {
        let fault = |source| ClientError::Connect { address: address.to_owned(), source };
        let stream = match patience.is_limited() {
            false => open_socket(address, options.connect_timeout).map_err(fault)?,
            true => open_socket_within(address, options.connect_timeout, &patience)?.map_err(fault)?,
        };
        stream.set_nodelay(true).map_err(fault)?;
        Ok(Connection {
            stream,
            address: address.to_owned(),
            client_id: options.client_id.clone(),
            request_timeout: options.request_timeout,
            patience,
            max_frame_bytes: options.max_frame_bytes,
            input: BytesMut::new(),
            versions: NodeVersions::default(),
            next_correlation_id: 0,
            in_flight: VecDeque::new(),
        })
    }

    /// `HOST:PORT` of the node.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the node speaks.
    pub fn versions(&self) -> &NodeVersions {
        &self.versions
    }

    /// The socket, for its options or to shut it down from another thread.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests that wait for their answers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a request in the highest common version and waits for its answer.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.call_up_to(request, i16::MAX)
    }

    /// As [`Connection::call`], in a version not above `limit`.
    pub fn call_up_to<R: Request>(&mut self, request: &R, limit: i16) -> Result<R::Response, ClientError> {
        let version = self.version_up_to::<R>(limit)?;
        self.call_in_version(request, version, Duration::ZERO)
    }

    /// Sends a request in exactly this version and waits for its answer, `extra_wait` longer than usual.
    pub fn call_in_version<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        extra_wait: Duration,
    ) -> Result<R::Response, ClientError> {
        self.send_request(request, version)?;
        self.receive::<R>(extra_wait)
    }

    /// The highest common version of an API.
    pub fn version_of<R: Request>(&self) -> Result<i16, ClientError> {
        self.version_up_to::<R>(i16::MAX)
    }

    /// The highest common version that isn't above `limit`.
    pub fn version_up_to<R: Request>(&self, limit: i16) -> Result<i16, ClientError> {
        self.versions.highest_common::<R>(limit).ok_or_else(|| ClientError::UnsupportedApi {
            address: self.address.clone(),
            api: R::KEY,
            client_min: R::KEY.min_version(),
            client_max: R::KEY.max_version().min(limit),
        })
    }

    /// Sends a request without waiting; [`Connection::receive`] takes the answers in the same order. Returns the
    /// correlation id.
    pub fn send_request<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, ClientError> {
        let correlation_id = self.next_correlation_id;
        let frame = frame::encode_request(request, version, correlation_id, Some(&self.client_id))
            .map_err(|source| ClientError::Encode { api: R::KEY, version, source })?;
        assert!(self.in_flight.len() < MAX_IN_FLIGHT, "a connection has a bounded number of requests in flight");
        self.send_frame(&frame)?;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        self.in_flight.push_back((correlation_id, R::KEY, version));
        Ok(correlation_id)
    }

    /// Sends a request that has no answer: Produce with acks=0.
    pub fn send_without_answer<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        self.send_request(request, version)?;
        self.in_flight.pop_back();
        Ok(())
    }

    /// Waits for the answer to the oldest request in flight, which must be one of type `R`.
    pub fn receive<R: Request>(&mut self, extra_wait: Duration) -> Result<R::Response, ClientError> {
        let (expected, api, version) = self.in_flight.pop_front().expect("there is a request in flight");
        assert!(api == R::KEY, "the oldest request is of the awaited API");
        let timeout = self.request_timeout + extra_wait;
        let mut input = Decoder::new(self.recv_frame_for(timeout, api.name())?);
        let decode_fault = |source| ClientError::Decode { address: self.address.clone(), api, source };
        let found = frame::decode_response_header(&mut input, api, version).map_err(decode_fault)?;
        if found != expected {
            return Err(ClientError::Correlation { address: self.address.clone(), expected, found });
        }
        let response = R::Response::decode(&mut input, version).map_err(decode_fault)?;
        input.expect_end().map_err(decode_fault)?;
        Ok(response)
    }

    /// Writes an encoded frame, its size included.
    pub fn send_frame(&mut self, frame: &Frame) -> Result<(), ClientError> {
        let mut slices: Vec<IoSlice<'_>> = frame.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = slices.as_mut_slice();
        let deadline = Instant::now() + self.request_timeout;
        while !rest.is_empty() {
            let step = self.step_until(deadline, "a request to be taken", self.request_timeout)?;
            self.stream.set_write_timeout(Some(step)).map_err(|source| self.io_fault(source))?;
            match self.stream.write_vectored(rest) {
                Ok(0) => return Err(ClientError::Closed { address: self.address.clone() }),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(fault) if is_to_be_tried_again(&fault) => {}
                Err(fault) => return Err(self.classify(fault)),
            }
        }
        Ok(())
    }

    /// How long to wait for the socket before it is looked again whether the time is up.
    fn step_until(&self, deadline: Instant, awaited: &'static str, timeout: Duration) -> Result<Duration, ClientError> {
        self.patience.check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            return Err(ClientError::Timeout { address: self.address.clone(), api: awaited, timeout_ms });
        }
        // Sockets take zero for no limit.
        Ok(self.patience.step(left).max(Duration::from_millis(1)))
    }

    /// Writes bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send_frame(&Frame { chunks: vec![Bytes::copy_from_slice(bytes)], len: bytes.len() })
    }

    /// Reads a frame and returns it without its size.
    pub fn recv_frame(&mut self) -> Result<Bytes, ClientError> {
        self.recv_frame_for(self.request_timeout, "a request")
    }

    /// As [`Connection::recv_frame`] with a limit of time; `awaited` is for the error.
    pub fn recv_frame_for(&mut self, timeout: Duration, awaited: &'static str) -> Result<Bytes, ClientError> {
        let deadline = Instant::now() + timeout;
        self.fill(frame::SIZE_LENGTH, deadline, timeout, awaited)?;
        let prefix = self.input.split_to(frame::SIZE_LENGTH);
        let size = i32::from_be_bytes(prefix[..].try_into().expect("four bytes were asked for"));
        let length = usize::try_from(size).ok().filter(|length| *length <= self.max_frame_bytes).ok_or_else(|| {
            ClientError::FrameSize { address: self.address.clone(), size, limit: self.max_frame_bytes }
        })?;
        self.fill(length, deadline, timeout, awaited)?;
        Ok(self.input.split_to(length).freeze())
    }

    /// Reads until there are `wanted` bytes. Memory grows with what has come, not with what was announced.
    fn fill(
        &mut self,
        wanted: usize,
        deadline: Instant,
        timeout: Duration,
        awaited: &'static str,
    ) -> Result<(), ClientError> {
        while self.input.len() < wanted {
            let step = self.step_until(deadline, awaited, timeout)?;
            self.stream.set_read_timeout(Some(step)).map_err(|source| self.io_fault(source))?;
            let filled = self.input.len();
            let step = (wanted - filled).clamp(READ_BYTES, READ_BYTES * 16);
            self.input.resize(filled + step, 0);
            let outcome = self.stream.read(&mut self.input[filled..]);
            self.input.truncate(filled + outcome.as_ref().copied().unwrap_or(0));
            match outcome {
                Ok(0) => return Err(ClientError::Closed { address: self.address.clone() }),
                Ok(_) => {}
                Err(fault) if is_to_be_tried_again(&fault) => {}
                Err(fault) => return Err(self.classify(fault)),
            }
        }
        Ok(())
    }

    fn classify(&self, fault: io::Error) -> ClientError {
        match fault.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                ClientError::Closed { address: self.address.clone() }
            }
            _ => self.io_fault(fault),
        }
    }

    fn io_fault(&self, source: io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }

    /// Asks for the versions, beginning with the highest known; a node that doesn't know that one says which it knows,
    /// in version 0 (KIP-511).
    fn negotiate(&mut self) -> Result<NodeVersions, ClientError> {
        let mut version = ApiKey::ApiVersions.max_version();
        loop {
            let request = ApiVersionsRequest {
                client_software_name: StrBytes::from("ringlog"),
                client_software_version: StrBytes::from(env!("CARGO_PKG_VERSION")),
            };
            let request = if version >= 3 { request } else { ApiVersionsRequest::default() };
            self.send_request(&request, version)?;
            let response = self.receive_versions(version)?;
            let versions = NodeVersions::from_response(&response);
            if response.error_code == ErrorCode::UnsupportedVersion.code() && version > 0 {
                let highest = versions.range(ApiKey::ApiVersions).map_or(0, |(_, max)| max);
                version = highest.clamp(0, version - 1);
                continue;
            }
            ClientError::check(response.error_code, None, || format!("{} refuses ApiVersions", self.address))?;
            return Ok(versions);
        }
    }

    /// Reads an ApiVersions answer, which is in version 0 if it says that the version isn't known.
    fn receive_versions(&mut self, version: i16) -> Result<ApiVersionsResponse, ClientError> {
        let api = ApiKey::ApiVersions;
        let (expected, ..) = self.in_flight.pop_front().expect("there is a request in flight");
        let bytes = self.recv_frame_for(self.request_timeout, api.name())?;
        let decode_fault = |source| ClientError::Decode { address: self.address.clone(), api, source };
        let mut input = Decoder::new(bytes.clone());
        let found = frame::decode_response_header(&mut input, api, version).map_err(decode_fault)?;
        if found != expected {
            return Err(ClientError::Correlation { address: self.address.clone(), expected, found });
        }
        let body = bytes.slice(input.position()..);
        if body.starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes()) {
            return ApiVersionsResponse::from_bytes(body, 0).map_err(decode_fault);
        }
        ApiVersionsResponse::from_bytes(body, version).map_err(decode_fault)
    }
}

/// A signal came, or a step of waiting is over.
fn is_to_be_tried_again(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn open_socket(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// Neither a name's lookup nor a connection that is being opened can be called off, so a thread of its own waits for
/// them. It ends with them, or with the process.
fn open_socket_within(
    address: &str,
    timeout: Duration,
    patience: &Patience,
) -> Result<io::Result<TcpStream>, ClientError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let owned = address.to_owned();
    std::thread::spawn(move || sender.send(open_socket(&owned, timeout)));
    loop {
        patience.check()?;
        match receiver.recv_timeout(patience.step(timeout)) {
            Ok(outcome) => return Ok(outcome),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(Err(io::ErrorKind::Other.into())),
        }
    }
}
