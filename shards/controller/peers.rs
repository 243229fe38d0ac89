//! Raft's requests to the other nodes of the quorum: one connection per destination, one request in flight on each.
//!
//! Bounds: the destinations that raft knows, which are voters and bootstrap servers; beyond [`MAX_CONNECTIONS`] the one
//! that was used longest ago is closed.

use std::cell::RefCell;
use std::rc::Rc;

use ringlog_protocol::messages::DescribeClusterRequest;
use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::Input;
use ringlog_raft::refusals::{is_stranger, top_level_error};
use ringlog_raft::{Destination, RequestToken, SendError};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, MonotonicMs, NodeId};
use rustc_hash::FxHashMap;
use tracing::debug;

use super::contacts::Contacts;
use super::mailbox::Finished;
use crate::net::peer::{NameLookups, Peer, PeerError};

/// Connections that are kept open.
const MAX_CONNECTIONS: usize = 64;
/// Controllers, in DescribeCluster's `endpoint_type`.
const CONTROLLERS: i8 = 2;

/// Connections to the quorum.
pub struct Peers {
    caller: Rc<Caller>,
    request_timeout_ms: u64,
    finished: ring::LocalSender<Finished>,
    lines: FxHashMap<Destination, Line>,
}

/// What all requests need.
struct Caller {
    client_id: String,
    lookups: NameLookups,
    contacts: Rc<Contacts>,
}

/// What leads to one destination.
struct Line {
    /// The open connection, while no request is on it.
    idle: Rc<RefCell<Option<Peer>>>,
    /// The request in flight. Dropping it closes its connection.
    in_flight: Option<ring::Task<()>>,
    used_at: MonotonicMs,
}

impl Peers {
    /// Without a connection. Answers go to `finished`, what they tell of their senders to `contacts`.
    pub fn new(
        node: NodeId,
        request_timeout_ms: u64,
        finished: ring::LocalSender<Finished>,
        contacts: Rc<Contacts>,
    ) -> Peers {
        // Kafka's name of the same client, by which operators know it in request logs.
        let client_id = format!("raft-client-{node}");
        let caller = Rc::new(Caller { client_id, lookups: NameLookups::default(), contacts });
        Peers { caller, request_timeout_ms, finished, lines: FxHashMap::default() }
    }

    /// Sends a request; its answer, or why there is none, comes as [`Input::Response`]. If one to the same destination
    /// is in flight raft has given it up: its connection is closed, as the peer may hold it for a while.
    pub fn send(&mut self, to: Destination, token: RequestToken, request: RequestBody) {
        let now = ring::now().monotonic;
        self.make_room(&to);
        self.caller.contacts.on_asked(&to, now);
        let line =
            self.lines.entry(to.clone()).or_insert_with(|| Line { idle: Rc::default(), in_flight: None, used_at: now });
        line.used_at = now;
        // Drops what is in flight.
        line.in_flight = None;
        let (idle, caller, finished) = (line.idle.clone(), self.caller.clone(), self.finished.clone());
        let deadline = now.plus_ms(self.request_timeout_ms);
        line.in_flight = Some(ring::spawn(async move {
            let api = request.api_key().name();
            let result = caller.exchange(&idle, &to, &request, deadline).await;
            let result = result.map_err(|fault| {
                debug!(to = %to.endpoint, node = ?to.node_id, api, "no answer: {fault}");
                caller.contacts.on_fault(&to, &fault, ring::now().monotonic);
                send_error(&fault)
            });
            let _ = finished.send(Finished::Input(Box::new(Input::Response { token, result }))).await;
        }));
    }

    fn make_room(&mut self, to: &Destination) {
        if self.lines.len() >= MAX_CONNECTIONS && !self.lines.contains_key(to) {
            let oldest = self.lines.iter().min_by_key(|(_, line)| line.used_at).map(|(oldest, _)| oldest.clone());
            if let Some(oldest) = oldest {
                self.lines.remove(&oldest);
            }
        }
    }
}

fn send_error(fault: &PeerError) -> SendError {
    match fault {
        PeerError::Refused => SendError::Refused,
        PeerError::NoAddress(_) | PeerError::Socket(_) | PeerError::TimedOut => SendError::Disconnected,
        PeerError::UnsupportedVersion(_) => SendError::UnsupportedVersion,
        PeerError::Malformed(_) => SendError::Malformed,
    }
}

impl Caller {
    /// One request and its answer, on the open connection or a new one. The connection is kept if all went well.
    async fn exchange(
        &self,
        idle: &RefCell<Option<Peer>>,
        to: &Destination,
        request: &RequestBody,
        deadline: MonotonicMs,
    ) -> Result<ResponseBody, PeerError> {
        // A peer that was restarted meanwhile is there again, but not on this connection.
        let open = idle.borrow_mut().take().and_then(|mut open| open.is_usable().then_some(open));
        let mut peer = match open {
            Some(peer) => peer,
            None => self.connect(to, deadline).await?,
        };
        match peer.call(request, deadline).await {
            Ok(response) => {
                self.note_contact(&mut peer, to, top_level_error(&response), deadline).await?;
                *idle.borrow_mut() = Some(peer);
                Ok(response)
            }
            Err(PeerError::Socket(error)) => {
                drop(peer);
                // Whether the process has gone or only this connection is worth knowing at once: a new one will tell, and
                // serves the next request.
                let again = self.connect(to, deadline).await?;
                *idle.borrow_mut() = Some(again);
                Err(error.into())
            }
            Err(fault) => Err(fault),
        }
    }

    async fn connect(&self, to: &Destination, deadline: MonotonicMs) -> Result<Peer, PeerError> {
        Peer::connect(&self.lookups, &to.endpoint.host, to.endpoint.port, &self.client_id, deadline).await
    }

    /// Notes what an answer tells of its sender. Of one that belongs to another cluster it is asked which.
    async fn note_contact(
        &self,
        peer: &mut Peer,
        to: &Destination,
        error: ErrorCode,
        deadline: MonotonicMs,
    ) -> Result<(), PeerError> {
        if !is_stranger(error) {
            self.contacts.on_answer(to, ring::now().monotonic);
            return Ok(());
        }
        let mut cluster_id = None;
        if error == ErrorCode::InconsistentClusterId {
            let question = DescribeClusterRequest { endpoint_type: CONTROLLERS, ..DescribeClusterRequest::default() };
            match peer.call(&question.into(), deadline).await {
                Ok(ResponseBody::DescribeCluster(response)) if response.error_code == 0 => {
                    cluster_id = Some(response.cluster_id);
                }
                // It needn't tell.
                Ok(_) | Err(PeerError::UnsupportedVersion(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        self.contacts.on_refusal(to, error, cluster_id.as_deref(), ring::now().monotonic);
        Ok(())
    }
}
