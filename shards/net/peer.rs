//! A connection that this node opens to another one of the cluster: name look-up, version negotiation, one request at
//! a time.
//!
//! Runs on the core that opened it. Bounds: connecting and every call have a deadline; an answer is read as it comes,
//! never by its declared size, and may be no larger than [`MAX_RESPONSE_BYTES`]. After any failure the connection is
//! of no use and is to be dropped; dropping a call half-way does the same.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use ringlog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::{ApiKey, Decoder, RequestBody, ResponseBody, StrBytes, frame};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs};
use rustc_hash::FxHashMap;

/// The largest answer that is read: raft's fetches and snapshot chunks are configured far below.
const MAX_RESPONSE_BYTES: usize = 128 * 1024 * 1024;
/// First room for an answer; doubles while a larger one arrives.
const READ_BYTES: usize = 16 * 1024;
/// The most by which the room grows at once.
const READ_MAX_BYTES: usize = 1024 * 1024;

/// Why there is no connection or no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The host is there, but nothing listens at the port.
    #[error("nothing listens there")]
    Refused,
    /// The name has no address.
    #[error("{0}")]
    NoAddress(String),
    /// The socket failed or was closed by the other side.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The peer doesn't speak a version in which the request can be said.
    #[error("{0} is not spoken there in a version that this request needs")]
    UnsupportedVersion(&'static str),
    /// The answer makes no sense.
    #[error("its answer makes no sense: {0}")]
    Malformed(String),
}

/// What a peer speaks: the lowest and highest version of each API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerVersions(FxHashMap<i16, (i16, i16)>);

impl PeerVersions {
    fn of(response: &ApiVersionsResponse) -> PeerVersions {
        PeerVersions(response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    /// The lowest and highest version of an API; `None` if the peer doesn't serve it.
    pub fn range(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.0.get(&api.code()).copied()
    }

    /// The highest version that both sides speak.
    pub fn common(&self, api: ApiKey) -> Option<i16> {
        let (min, max) = self.range(api)?;
        let version = max.min(api.max_version());
        (version >= min.max(api.min_version())).then_some(version)
    }
}

/// An open, negotiated connection.
pub struct Peer {
    socket: ring::Connection,
    client_id: String,
    versions: PeerVersions,
    next_correlation_id: i32,
    received: BytesMut,
}

impl Peer {
    /// Connects to `host:port` and asks what the peer speaks.
    pub async fn connect(
        lookups: &NameLookups,
        host: &str,
        port: u16,
        client_id: &str,
        deadline: MonotonicMs,
    ) -> Result<Peer, PeerError> {
        let mut peer = Peer::connect_unasked(lookups, host, port, client_id, deadline).await?;
        peer.negotiate(deadline).await?;
        Ok(peer)
    }

    /// Connects to `host:port`, and doesn't ask what the peer speaks: requests go by [`Peer::call_at`].
    pub async fn connect_unasked(
        lookups: &NameLookups,
        host: &str,
        port: u16,
        client_id: &str,
        deadline: MonotonicMs,
    ) -> Result<Peer, PeerError> {
        Ok(Peer {
            socket: connect(lookups, host, port, deadline).await?,
            client_id: client_id.to_owned(),
            versions: PeerVersions::default(),
            next_correlation_id: 0,
            received: BytesMut::new(),
        })
    }

    /// What the peer speaks.
    pub fn versions(&self) -> &PeerVersions {
        &self.versions
    }

    /// Whether an idle connection can be used: the other side has not closed it, and said nothing unasked.
    pub fn is_usable(&mut self) -> bool {
        self.received.reserve(1);
        self.socket.try_read(&mut self.received).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request at the highest version that both sides speak, and waits for the answer.
    pub async fn call(&mut self, request: &RequestBody, deadline: MonotonicMs) -> Result<ResponseBody, PeerError> {
        let api = request.api_key();
        let version = self.versions.common(api).ok_or(PeerError::UnsupportedVersion(api.name()))?;
        self.call_at(request, version, deadline).await
    }

    /// As [`Peer::call`], at that version.
    pub async fn call_at(
        &mut self,
        request: &RequestBody,
        version: i16,
        deadline: MonotonicMs,
    ) -> Result<ResponseBody, PeerError> {
        let api = request.api_key();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        // What the version has no field for can't be said in it.
        let frame = frame::encode_request_body(request, version, correlation_id, Some(&self.client_id))
            .map_err(|_| PeerError::UnsupportedVersion(api.name()))?;
        let mut chunks = VecDeque::from(frame.chunks);
        let exchange = async {
            self.socket.write_chunks(&mut chunks).await?;
            self.read_frame().await
        };
        let answer = ring::timeout_ms(remaining_ms(deadline), exchange).await.map_err(|_| PeerError::TimedOut)??;
        let malformed = |what: &dyn std::fmt::Display| PeerError::Malformed(what.to_string());
        let mut input = Decoder::new(answer);
        let echoed = frame::decode_response_header(&mut input, api, version).map_err(|fault| malformed(&fault))?;
        if echoed != correlation_id {
            return Err(malformed(&format_args!("correlation id {echoed} in the place of {correlation_id}")));
        }
        ResponseBody::decode(api, version, &mut input).map_err(|fault| malformed(&fault))
    }

    /// ApiVersions in the newest version; a peer that doesn't know it answers in version 0 what it knows (KIP-511).
    async fn negotiate(&mut self, deadline: MonotonicMs) -> Result<(), PeerError> {
        let request = RequestBody::from(ApiVersionsRequest {
            client_software_name: StrBytes::from_static("ringlog"),
            client_software_version: StrBytes::from_static(env!("CARGO_PKG_VERSION")),
        });
        let newest = ApiKey::ApiVersions.max_version();
        let response = match self.call_at(&request, newest, deadline).await {
            // An answer of version 0 doesn't decode as the newest: ask once more, in the version that all speak.
            Err(PeerError::Malformed(_)) => self.call_at(&request, 0, deadline).await?,
            outcome => outcome?,
        };
        let mut response = api_versions(response)?;
        if response.error_code == ErrorCode::UnsupportedVersion.code() {
            response = api_versions(self.call_at(&request, 0, deadline).await?)?;
        }
        if response.error_code != 0 {
            return Err(PeerError::Malformed(format!("ApiVersions gives error {}", response.error_code)));
        }
        self.versions = PeerVersions::of(&response);
        Ok(())
    }

    async fn read_frame(&mut self) -> Result<Bytes, PeerError> {
        loop {
            let wanted = match frame_size(&self.received)? {
                Some(size) if self.received.len() >= frame::SIZE_LENGTH + size => {
                    self.received.advance(frame::SIZE_LENGTH);
                    return Ok(self.received.split_to(size).freeze());
                }
                Some(size) => frame::SIZE_LENGTH + size - self.received.len(),
                None => READ_BYTES,
            };
            self.received.reserve(wanted.min(self.received.len().clamp(READ_BYTES, READ_MAX_BYTES)));
            match self.socket.try_read(&mut self.received) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut first = [0; 256];
                    match self.socket.read(&mut first).await? {
                        0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                        count => self.received.extend_from_slice(&first[..count]),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The size that the next frame announces.
fn frame_size(received: &BytesMut) -> Result<Option<usize>, PeerError> {
    let Some(prefix) = received.first_chunk::<{ frame::SIZE_LENGTH }>() else { return Ok(None) };
    let announced = i32::from_be_bytes(*prefix);
    match usize::try_from(announced) {
        Ok(size) if size <= MAX_RESPONSE_BYTES => Ok(Some(size)),
        _ => Err(PeerError::Malformed(format!("a frame of {announced} bytes"))),
    }
}

fn api_versions(response: ResponseBody) -> Result<ApiVersionsResponse, PeerError> {
    ApiVersionsResponse::try_from(response).map_err(|fault| PeerError::Malformed(fault.to_string()))
}

fn remaining_ms(deadline: MonotonicMs) -> u64 {
    deadline.since_ms(ring::now().monotonic)
}

/// Tries every address of the name. "Refused" is only what all of them said.
pub async fn connect(
    lookups: &NameLookups,
    host: &str,
    port: u16,
    deadline: MonotonicMs,
) -> Result<ring::Connection, PeerError> {
    let addresses = lookups.addresses(host, deadline).await?;
    let mut failed = PeerError::NoAddress(format!("{host} has no address"));
    let mut all_refused = true;
    for address in &addresses {
        match ring::Connection::connect(SocketAddr::new(*address, port), remaining_ms(deadline)).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                all_refused &= error.kind() == io::ErrorKind::ConnectionRefused;
                failed = error.into();
            }
        }
    }
    Err(if all_refused && !addresses.is_empty() { PeerError::Refused } else { failed })
}

/// Looks up names for connections. The system's resolver blocks, for many seconds when its servers don't answer: each
/// look-up has a thread of its own, and a name one look-up at a time, whoever asks for it. What is found late is there for
/// who asks next.
#[derive(Default)]
pub struct NameLookups {
    running: RefCell<FxHashMap<String, Rc<Lookup>>>,
}

/// The names that are looked up at a time. Raft asks for those of voters and bootstrap servers.
const MAX_LOOKUPS: usize = 32;
/// How long an attempt to connect waits for a look-up.
const LOOKUP_WAIT_MS: u64 = 1_000;
/// How long what was found is good.
const FOUND_MS: u64 = 1_000;

#[derive(Default)]
struct Lookup {
    found: RefCell<Option<Found>>,
    changed: ring::Notify,
}

struct Found {
    addresses: Result<Vec<IpAddr>, String>,
    at: MonotonicMs,
}

impl NameLookups {
    /// The addresses of a name; a number is one.
    async fn addresses(&self, host: &str, deadline: MonotonicMs) -> Result<Vec<IpAddr>, PeerError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let lookup = self.begin(host)?;
        let answer = async {
            loop {
                if let Some(found) = &*lookup.found.borrow() {
                    return found.addresses.clone();
                }
                lookup.changed.wait().await;
            }
        };
        match ring::timeout_ms(remaining_ms(deadline).min(LOOKUP_WAIT_MS), answer).await {
            Ok(found) => found.map_err(|reason| PeerError::NoAddress(format!("{host} has no address: {reason}"))),
            Err(ring::Elapsed) => Err(PeerError::NoAddress(format!("{host} is still being looked up"))),
        }
    }

    /// The look-up of that name that is running, or a new one.
    fn begin(&self, host: &str) -> Result<Rc<Lookup>, PeerError> {
        let mut running = self.running.borrow_mut();
        let now = ring::now().monotonic;
        running.retain(|_, lookup| lookup.found.borrow().as_ref().is_none_or(|it| now.since_ms(it.at) < FOUND_MS));
        if let Some(lookup) = running.get(host) {
            return Ok(lookup.clone());
        }
        if running.len() >= MAX_LOOKUPS {
            return Err(PeerError::NoAddress(format!("{host} can't be looked up: {MAX_LOOKUPS} names are already")));
        }
        let lookup = Rc::new(Lookup::default());
        running.insert(host.to_owned(), lookup.clone());
        let (name, answered) = (host.to_owned(), lookup.clone());
        ring::spawn_detached(async move {
            let found = ring::lookup(&name, 0).await;
            let addresses = found.map(|found| found.into_iter().map(|address| address.ip()).collect());
            let addresses = addresses.map_err(|fault| fault.to_string());
            *answered.found.borrow_mut() = Some(Found { addresses, at: ring::now().monotonic });
            answered.changed.notify_all();
        });
        Ok(lookup)
    }
}
