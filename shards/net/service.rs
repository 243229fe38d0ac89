//! What stands behind a connection, as the connection sees it.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::frame::Frame;
use ringlog_protocol::{DecodeError, EncodeError};
use ringlog_ring::BytePermit;

use crate::mesh::LocalFuture;
use crate::net::request::Peer;

/// Answers requests.
pub trait Service: 'static {
    /// Reads one request and starts it. When this ends, a Produce has its place in the log.
    fn begin(self: &Rc<Self>, peer: &Peer, request: Bytes) -> impl Future<Output = Result<Disposition, CloseReason>>;
}

/// What is to happen to a request that was begun.
pub enum Disposition {
    /// A Produce; the future gives the response.
    Produced(LocalFuture<Option<Frame>>),
    /// Any other; here is the response.
    Answered(Answer),
    /// There is nothing to send.
    Silent,
}

/// A response, and its part of the core's [`crate::net::response_memory`].
pub struct Answer {
    /// What to send.
    pub frame: Frame,
    /// To be dropped when it is sent.
    pub memory: BytePermit,
}

/// A request that Kafka, too, answers by closing the connection.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The header or body can't be read.
    #[error("{api} version {version}: {source}")]
    Malformed {
        /// The API's name or number.
        api: String,
        /// As in the header; -1 when the header itself is damaged.
        version: i16,
        /// What is wrong.
        source: DecodeError,
    },
    /// No such API, or not on this listener.
    #[error("API key {0} is not served on listener {1}")]
    UnknownApi(i16, String),
    /// The API exists but not at this version.
    #[error("{0} version {1} is not supported")]
    UnsupportedVersion(&'static str, i16),
    /// A request about ACLs with a number that stands for nothing.
    #[error("{0} contains unknown elements")]
    UnknownElements(&'static str),
    /// The response doesn't fit the version: a fault of this node.
    #[error("the response could not be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Produce with acks 0 failed: Kafka closes so that the client refreshes its metadata.
    #[error("a Produce request with acks=0 failed")]
    UnacknowledgedProduce,
}
