//! What goes into and comes out of the coordinator.

use bytes::Bytes;
use ringlog_protocol::{ResponseBody, StrBytes};
use ringlog_types::{ProducerEpoch, ProducerId, Uuid};

/// Names one request to the driver; answered exactly once unless [`super::GroupCoordinator::forget`] took it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names one write, rising in the order in which writes must be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteToken(pub u64);

/// Who asks, and in which version.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Under which the answer comes back. Never used for another request.
    pub token: Token,
    /// The version of the request's API.
    pub api_version: i16,
    /// The client id of the request's header; empty when null.
    pub client_id: StrBytes,
    /// The client's address as Kafka shows it: `/127.0.0.1`.
    pub client_host: StrBytes,
}

/// The topics that exist, as this node's metadata shows them.
pub trait TopicView {
    /// The id of the topic with this name.
    fn topic_id(&self, name: &str) -> Option<Uuid>;
    /// The name of the topic with this id.
    fn topic_name(&self, id: Uuid) -> Option<StrBytes>;
    /// How many partitions the topic with this name has; 0 when there is none.
    fn partition_count(&self, name: &str) -> i32;
}

/// What a call decided. Both lists are in order; sending and appending may overlap.
#[derive(Debug, Default)]
#[must_use = "answers and records get lost"]
pub struct Effects {
    /// Answers to send now.
    pub replies: Vec<(Token, ResponseBody)>,
    /// Records to append with acks=all, in this order.
    pub writes: Vec<Write>,
}

/// Records that belong into one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// To be handed back with the result.
    pub token: WriteToken,
    /// The transactional producer that the batch must carry; `None` for a plain batch.
    pub producer: Option<TransactionalProducer>,
    /// Never empty.
    pub records: Vec<LogRecord>,
}

/// The producer of transactional offset commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionalProducer {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
}

/// One record of `__consumer_offsets` in the bytes that Kafka 4.3.1 writes: the key begins with the record type, the
/// value with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The key.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}
