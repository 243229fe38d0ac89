//! Raft's requests to other nodes, as `shards/controller/peers.rs` and `shards/net/peer.rs` send them: one connection per
//! destination, one request in flight on each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use ringlog_protocol::{RequestBody, ResponseBody};
use ringlog_quorum::Input;
use ringlog_raft::{Destination, Endpoint, RequestToken, SendError};
use ringlog_types::MonotonicMs;

use super::driver::Finished;
use super::network::{CallId, Packet, Place, encode_request};
use super::ring::{Channel, Ring, TaskHandle};

/// What came back for a call.
#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted(u64),
    Refused,
    Reset,
    Answered(Box<ResponseBody>),
}

/// Calls of a process that somebody waits for.
#[derive(Default)]
pub(crate) struct Calls {
    next: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Option<Outcome>>>,
}

impl Calls {
    /// Something came back; for a call that was given up nobody wants it.
    pub(crate) fn finish(&self, number: u64, outcome: Outcome) {
        if let Some(slot) = self.waiting.borrow_mut().get_mut(&number)
            && slot.is_none()
        {
            *slot = Some(outcome);
        }
    }
}

/// A call under way.
struct Call {
    calls: Rc<Calls>,
    number: u64,
}

impl Call {
    fn begin(calls: &Rc<Calls>) -> Call {
        let number = calls.next.get();
        calls.next.set(number + 1);
        calls.waiting.borrow_mut().insert(number, None);
        Call { calls: calls.clone(), number }
    }

    fn id(&self, ring: &Ring) -> CallId {
        CallId { place: ring.node, incarnation: ring.incarnation, number: self.number }
    }

    /// `None`: nothing came in time.
    async fn wait(&self, ring: &Ring, deadline: MonotonicMs) -> Option<Outcome> {
        poll_fn(|_| {
            let outcome = self.calls.waiting.borrow_mut().get_mut(&self.number).and_then(Option::take);
            match outcome {
                Some(outcome) => Poll::Ready(Some(outcome)),
                None if ring.is_due(deadline) => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.waiting.borrow_mut().remove(&self.number);
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerError {
    Refused,
    Socket,
    TimedOut,
}

/// An open connection: to whom, and to which life of it.
#[derive(Debug, Clone, Copy)]
struct Peer {
    place: Place,
    life: u64,
}

/// Connections to the quorum.
pub(crate) struct Peers {
    ring: Rc<Ring>,
    request_timeout_ms: u64,
    finished: Rc<Channel<Finished>>,
    calls: Rc<Calls>,
    lines: BTreeMap<Destination, Line>,
}

#[derive(Default)]
struct Line {
    idle: Rc<Cell<Option<Peer>>>,
    in_flight: Option<TaskHandle>,
}

impl Peers {
    pub(crate) fn new(
        ring: &Rc<Ring>,
        request_timeout_ms: u64,
        finished: Rc<Channel<Finished>>,
        calls: Rc<Calls>,
    ) -> Peers {
        Peers { ring: ring.clone(), request_timeout_ms, finished, calls, lines: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, to: Destination, token: RequestToken, request: RequestBody) {
        let line = self.lines.entry(to.clone()).or_default();
        // Drops what is in flight.
        line.in_flight = None;
        let (ring, idle, finished, calls) =
            (self.ring.clone(), line.idle.clone(), self.finished.clone(), self.calls.clone());
        let deadline = ring.now().monotonic.plus_ms(self.request_timeout_ms);
        let exchange = async move {
            let result = exchange(&ring, &calls, &idle, &to.endpoint, &request, deadline).await;
            let result = result.map_err(|fault| match fault {
                PeerError::Refused => SendError::Refused,
                PeerError::Socket | PeerError::TimedOut => SendError::Disconnected,
            });
            finished.send(Finished::Input(Box::new(Input::Response { token, result }))).await;
        };
        line.in_flight = Some(self.ring.spawn(exchange));
    }
}

async fn exchange(
    ring: &Rc<Ring>,
    calls: &Rc<Calls>,
    idle: &Cell<Option<Peer>>,
    to: &Endpoint,
    request: &RequestBody,
    deadline: MonotonicMs,
) -> Result<ResponseBody, PeerError> {
    let peer = match idle.take() {
        Some(peer) => peer,
        None => connect(ring, calls, to, deadline).await?,
    };
    match call(ring, calls, peer, request, deadline).await {
        Ok(response) => {
            idle.set(Some(peer));
            Ok(response)
        }
        Err(PeerError::Socket) => {
            // Whether the process has gone or only this connection is worth knowing at once.
            idle.set(Some(connect(ring, calls, to, deadline).await?));
            Err(PeerError::Socket)
        }
        Err(fault) => Err(fault),
    }
}

async fn connect(ring: &Rc<Ring>, calls: &Rc<Calls>, to: &Endpoint, deadline: MonotonicMs) -> Result<Peer, PeerError> {
    let Some(place) = ring.shared.place_of_host(&to.host) else { return Err(PeerError::Socket) };
    let call = Call::begin(calls);
    ring.shared.send(ring.node, place, Packet::Connect { call: call.id(ring), port: to.port });
    match call.wait(ring, deadline).await {
        Some(Outcome::Accepted(life)) => Ok(Peer { place, life }),
        Some(Outcome::Refused) => Err(PeerError::Refused),
        Some(Outcome::Reset | Outcome::Answered(_)) => Err(PeerError::Socket),
        None => Err(PeerError::TimedOut),
    }
}

async fn call(
    ring: &Rc<Ring>,
    calls: &Rc<Calls>,
    peer: Peer,
    request: &RequestBody,
    deadline: MonotonicMs,
) -> Result<ResponseBody, PeerError> {
    let api = request.api_key();
    let version = api.max_version();
    let body = encode_request(request, version).unwrap_or_else(|fault| panic!("a {} request: {fault}", api.name()));
    let call = Call::begin(calls);
    let packet = Packet::Request { call: call.id(ring), server: Some(peer.life), api, version, body };
    ring.shared.send(ring.node, peer.place, packet);
    match call.wait(ring, deadline).await {
        Some(Outcome::Answered(response)) => Ok(*response),
        Some(Outcome::Accepted(_) | Outcome::Refused | Outcome::Reset) => Err(PeerError::Socket),
        None => Err(PeerError::TimedOut),
    }
}
