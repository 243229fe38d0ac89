//! The way to the active controller, as Kafka's `NodeToControllerChannelManager` has it: whoever leads the quorum, by the newest
//! that is known.

use std::cell::RefCell;

use ringlog_protocol::Request;
use ringlog_protocol::messages::ApiVersionsRequest;
use ringlog_ring::sim;

use super::peer::Peer;
use crate::client::connection::{CallFault, Connection};

/// NOT_CONTROLLER.
pub const NOT_CONTROLLER: i16 = 41;

/// One connection, for one request at a time.
#[derive(Default)]
pub struct Channel(RefCell<Option<(i32, Connection)>>);

impl Channel {
    /// Asks whoever is known to be the active controller; nothing when nobody is, or there is no answer.
    pub async fn ask<R: Request>(&self, peer: &Peer, request: &R, limit_ms: u64) -> Option<R::Response> {
        let leader = peer.disk.metadata.borrow().leader?;
        let address = *peer.settings.controllers.get(&leader)?;
        let before = self.0.take().filter(|(known, _)| *known == leader);
        let mut connection = match before {
            Some((_, connection)) => connection,
            None => {
                let client_id = peer.id().to_string();
                let mut connection = Connection::open_as(address, &client_id).await.ok()?;
                connection.call(&ApiVersionsRequest::default(), limit_ms).await.ok()?;
                connection
            }
        };
        match connection.call(request, limit_ms).await {
            Ok(answer) => {
                *self.0.borrow_mut() = Some((leader, connection));
                Some(answer)
            }
            Err(fault) => {
                peer.judge(&format!("controller {leader}"), &fault);
                None
            }
        }
    }
}

impl Peer {
    /// A call failed. That there is no answer may be; that it makes no sense may not.
    pub fn judge(&self, who: &str, fault: &CallFault) {
        sim::control().note(|| format!("Kafka {} gets no answer from {who}: {fault:?}", self.id()));
        if let CallFault::Nonsense(text) = fault {
            self.complain(&format!("{who}: {text}"));
        }
    }
}
