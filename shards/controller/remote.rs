//! Requests to the active controller when that is another node: this broker's own ones go as they are, clients' ones in
//! an Envelope with the client's principal and address (KIP-590).
//!
//! Runs on the controller's core. Bounds: a few connections for either sort, one request in flight on each; further
//! ones wait their turn, first come first served, until their deadline. Where connecting fails, one tries for all, after
//! waits that grow.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ringlog_protocol::messages::{DefaultPrincipalData, EnvelopeRequest, EnvelopeResponse};
use ringlog_protocol::{Decoder, Message, Records, ResponseBody, StrBytes, frame};
use ringlog_quorum::ControllerRequest;
use ringlog_raft::Endpoint;
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, ExponentialBackoff, MonotonicMs, NodeId, Random};

use crate::net::peer::{NameLookups, Peer, PeerError, PeerVersions};

/// Connections for requests of clients.
const FORWARDING_CONNECTIONS: usize = 8;
/// Connections for requests of this broker's own, which must not wait behind clients'.
const OWN_CONNECTIONS: usize = 4;
/// Version of the principal's serialized form.
const PRINCIPAL_VERSION: i16 = 0;

/// Why a try gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No connection, or no answer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The node isn't the active controller (any more).
    #[error("it is not the active controller")]
    NotController,
    /// The controller refuses the envelope.
    #[error("it refuses the forwarded request: {0:?}")]
    Refused(ErrorCode),
}

/// Connections to the active controller.
pub struct RemoteController {
    client_id: String,
    forwarding: Lanes,
    own: Lanes,
    /// `controller.socket.timeout.ms`: one try takes no longer.
    attempt_ms: u64,
    /// What the controller that was asked last speaks.
    versions: RefCell<Option<(Endpoint, PeerVersions)>>,
    lookups: NameLookups,
    reconnecting: Reconnecting,
}

/// Connecting has failed, to that place and so often in a row.
struct Reconnecting {
    turn: ring::ByteSemaphore,
    failed: RefCell<Option<(Endpoint, u32)>>,
    until: Cell<MonotonicMs>,
    random: RefCell<Random>,
}

impl Reconnecting {
    fn failures_of(&self, leader: &Endpoint) -> u32 {
        self.failed.borrow().as_ref().filter(|(endpoint, _)| endpoint == leader).map_or(0, |(_, failures)| *failures)
    }

    fn on_failed(&self, leader: &Endpoint) {
        let failures = self.failures_of(leader).saturating_add(1);
        let wait_ms = ExponentialBackoff::RECONNECT.wait_ms(failures, &mut self.random.borrow_mut());
        self.until.set(ring::now().monotonic.plus_ms(wait_ms));
        *self.failed.borrow_mut() = Some((leader.clone(), failures));
    }

    fn on_connected(&self) {
        *self.failed.borrow_mut() = None;
    }
}

struct Lanes {
    turns: ring::ByteSemaphore,
    idle: RefCell<Vec<(Endpoint, Peer)>>,
}

impl Lanes {
    fn new(connections: usize) -> Lanes {
        Lanes { turns: ring::ByteSemaphore::new(connections), idle: RefCell::default() }
    }

    /// An open connection to that node; those that are closed, or lead to former leaders, go.
    fn take(&self, leader: &Endpoint) -> Option<Peer> {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|(endpoint, peer)| endpoint == leader && peer.is_usable());
        idle.pop().map(|(_, peer)| peer)
    }
}

impl RemoteController {
    /// Without a connection. One try takes no longer than `attempt_ms`.
    pub fn new(node: NodeId, attempt_ms: u64, random: Random) -> RemoteController {
        let reconnecting = Reconnecting {
            turn: ring::ByteSemaphore::new(1),
            failed: RefCell::default(),
            until: Cell::new(ring::now().monotonic),
            random: RefCell::new(random),
        };
        RemoteController {
            client_id: node.to_string(),
            forwarding: Lanes::new(FORWARDING_CONNECTIONS),
            own: Lanes::new(OWN_CONNECTIONS),
            attempt_ms,
            versions: RefCell::new(None),
            lookups: NameLookups::default(),
            reconnecting,
        }
    }

    /// What the controller that was asked last speaks.
    pub fn versions(&self) -> Option<PeerVersions> {
        self.versions.borrow().as_ref().map(|(_, versions)| versions.clone())
    }

    /// Learns what the controller speaks, if it isn't known: brokers advertise no more than it does.
    pub async fn learn_versions(&self, leader: &Endpoint, deadline: MonotonicMs) -> Result<(), PeerError> {
        if self.versions.borrow().as_ref().is_some_and(|(known, _)| known == leader) {
            return Ok(());
        }
        let peer = self.connect(leader, deadline).await?;
        self.own.idle.borrow_mut().push((leader.clone(), peer));
        Ok(())
    }

    /// Asks the active controller at `leader` once.
    pub async fn ask(
        &self,
        leader: &Endpoint,
        request: &ControllerRequest,
        deadline: MonotonicMs,
    ) -> Result<ResponseBody, RemoteError> {
        let lanes = if request.is_forwarded { &self.forwarding } else { &self.own };
        let deadline = deadline.min(ring::now().monotonic.plus_ms(self.attempt_ms));
        let left_ms = deadline.since_ms(ring::now().monotonic);
        let _turn = ring::timeout_ms(left_ms, lanes.turns.acquire(1)).await.map_err(|_| PeerError::TimedOut)?;
        let mut peer = match lanes.take(leader) {
            Some(peer) => peer,
            None => self.connect(leader, deadline).await?,
        };
        let outcome = ask_peer(&mut peer, request, deadline).await;
        if !matches!(outcome, Err(RemoteError::Peer(_))) {
            lanes.idle.borrow_mut().push((leader.clone(), peer));
        }
        outcome
    }

    async fn connect(&self, leader: &Endpoint, deadline: MonotonicMs) -> Result<Peer, PeerError> {
        let left_ms = || deadline.since_ms(ring::now().monotonic);
        let reconnecting = &self.reconnecting;
        let mut turn = None;
        while reconnecting.failures_of(leader) > 0 {
            if turn.is_none() {
                let wait = reconnecting.turn.acquire(1);
                turn = Some(ring::timeout_ms(left_ms(), wait).await.map_err(|_| PeerError::TimedOut)?);
                // Perhaps the one before has been let in.
                continue;
            }
            let wait_ms = reconnecting.until.get().since_ms(ring::now().monotonic);
            if wait_ms == 0 {
                break;
            }
            ring::sleep_ms(wait_ms.min(left_ms())).await;
            if left_ms() == 0 {
                return Err(PeerError::TimedOut);
            }
        }
        match Peer::connect(&self.lookups, &leader.host, leader.port, &self.client_id, deadline).await {
            Ok(peer) => {
                reconnecting.on_connected();
                *self.versions.borrow_mut() = Some((leader.clone(), peer.versions().clone()));
                Ok(peer)
            }
            Err(fault) => {
                reconnecting.on_failed(leader);
                Err(fault)
            }
        }
    }
}

async fn ask_peer(
    peer: &mut Peer,
    request: &ControllerRequest,
    deadline: MonotonicMs,
) -> Result<ResponseBody, RemoteError> {
    if !request.is_forwarded {
        let response = peer.call(&request.body, deadline).await?;
        return if is_not_controller(&response) { Err(RemoteError::NotController) } else { Ok(response) };
    }
    let response = peer.call(&envelope(request)?.into(), deadline).await?;
    let response = EnvelopeResponse::try_from(response).map_err(|fault| PeerError::Malformed(fault.to_string()))?;
    match ErrorCode::from_code(response.error_code) {
        Some(ErrorCode::None) => {}
        Some(ErrorCode::NotController) => return Err(RemoteError::NotController),
        other => return Err(RemoteError::Refused(other.unwrap_or(ErrorCode::UnknownServerError))),
    }
    let (api, version) = (request.body.api_key(), request.api_version);
    let malformed = |fault: &dyn std::fmt::Display| PeerError::Malformed(fault.to_string());
    let data = response.response_data.ok_or_else(|| malformed(&"an envelope without an answer"))?;
    let mut input = Decoder::new(data);
    frame::decode_response_header(&mut input, api, version).map_err(|fault| malformed(&fault))?;
    Ok(ResponseBody::decode(api, version, &mut input).map_err(|fault| malformed(&fault))?)
}

/// The client's request, and who the client is.
fn envelope(request: &ControllerRequest) -> Result<EnvelopeRequest, PeerError> {
    let name = request.body.api_key().name();
    let client_id = request.client_id.as_deref();
    let frame = frame::encode_request_body(&request.body, request.api_version, 0, client_id)
        .map_err(|_| PeerError::UnsupportedVersion(name))?;
    let request_data = Records::from_chunks(frame.chunks).into_contiguous().slice(frame::SIZE_LENGTH..);
    let (kind, principal) = request.principal.split_once(':').unwrap_or(("User", &request.principal));
    let principal = DefaultPrincipalData {
        type_: StrBytes::copy_from(kind),
        name: StrBytes::copy_from(principal),
        token_authenticated: request.is_token_authenticated,
    };
    let encoded = principal.to_bytes(PRINCIPAL_VERSION).map_err(|_| PeerError::UnsupportedVersion(name))?;
    let mut request_principal = BytesMut::with_capacity(2 + encoded.len());
    request_principal.put_i16(PRINCIPAL_VERSION);
    request_principal.extend_from_slice(&encoded);
    let client_host_address = match request.client_address.map(|address| address.ip()) {
        Some(IpAddr::V6(address)) => Bytes::copy_from_slice(&address.octets()),
        Some(IpAddr::V4(address)) => Bytes::copy_from_slice(&address.octets()),
        None => Bytes::from_static(&[127, 0, 0, 1]),
    };
    Ok(EnvelopeRequest { request_data, request_principal: Some(request_principal.freeze()), client_host_address })
}

/// Whether an answer to a request of a broker's own says that the node isn't the active controller.
fn is_not_controller(response: &ResponseBody) -> bool {
    let code = match response {
        ResponseBody::BrokerRegistration(response) => response.error_code,
        ResponseBody::BrokerHeartbeat(response) => response.error_code,
        ResponseBody::ControllerRegistration(response) => response.error_code,
        ResponseBody::AllocateProducerIds(response) => response.error_code,
        ResponseBody::AlterPartition(response) => response.error_code,
        ResponseBody::AssignReplicasToDirs(response) => response.error_code,
        ResponseBody::CreateTopics(response) => {
            let all = !response.topics.is_empty();
            let code = response.topics.first().map_or(0, |topic| topic.error_code);
            if all { code } else { 0 }
        }
        _ => 0,
    };
    code == ErrorCode::NotController.code()
}
