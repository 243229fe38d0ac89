//! What a handler knows of its request beside the body: who sent it, and how.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::{ApiKey, StrBytes};
use ringlog_ring::BytePermit;

/// Where a connection came in.
#[derive(Debug)]
pub struct ListenerInfo {
    /// The listener's name, such as `PLAINTEXT`.
    pub name: String,
    /// Whether it serves the controller's APIs instead of the broker's.
    pub is_controller: bool,
}

/// What handlers may know of the peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The listener that it came in by.
    pub listener: Rc<ListenerInfo>,
    /// Its address, as `/127.0.0.1` in Kafka's answers.
    pub address: SocketAddr,
}

/// A request without its body.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who sent it and by which listener.
    pub peer: Peer,
    /// The API.
    pub api_key: ApiKey,
    /// The version of request and response.
    pub api_version: i16,
    /// The client's number of the request.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// For handlers that took memory for their answer.
    pub answer_memory: AnswerMemory,
}

/// What an answer has taken of the core's [`crate::net::response_memory`], until it is sent. Clones share it.
#[derive(Clone, Default)]
pub struct AnswerMemory(Rc<RefCell<Option<BytePermit>>>);

impl AnswerMemory {
    /// The answer's records, or whatever is large in it, lie in this memory.
    pub fn keep(&self, permit: BytePermit) {
        *self.0.borrow_mut() = Some(permit);
    }

    /// For the answer, which is there.
    pub fn take(&self) -> Option<BytePermit> {
        self.0.take()
    }

    /// There is no answer yet after all.
    pub fn give_back(&self) {
        self.0.take();
    }
}

impl std::fmt::Debug for AnswerMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerMemory")
    }
}
