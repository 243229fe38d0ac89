//! The coordinator of one partition of `__consumer_offsets`.

use bytes::Bytes;
use ringlog_protocol::messages::RequestBody;
use ringlog_types::{ErrorCode, MonotonicMs, Now, ProducerId, Uuid};
use ringlog_protocol::StrBytes;

use super::api::{Effects, RequestContext, Token, TopicView, TransactionalProducer, WriteToken};
use super::config::GroupConfig;

/// The groups of one partition of `__consumer_offsets`. See the [module](super) for the order of calls.
#[derive(Debug)]
pub struct GroupCoordinator {}

impl GroupCoordinator {
    /// An empty coordinator. `seed` makes the member ids: let it be different on every load.
    pub fn new(config: GroupConfig, seed: u64) -> GroupCoordinator;

    /// Takes one data record of the log while loading. `Ok(Some(note))` when the record was skipped.
    pub fn replay_record(&mut self, key: Option<Bytes>, value: Option<Bytes>, producer: Option<TransactionalProducer>) -> Result<Option<String>, ReplayError>;

    /// Takes a transaction marker, while loading and after it: the producer's offsets become final or vanish.
    pub fn replay_end_transaction(&mut self, producer_id: ProducerId, committed: bool);

    /// Starts the sessions of the loaded groups' members.
    pub fn finish_loading(&mut self, now: Now) -> Effects;

    /// Decides a request.
    pub fn handle(&mut self, request: RequestBody, context: &RequestContext, now: Now, topics: &dyn TopicView) -> Effects;

    /// The write is below the high watermark.
    pub fn on_written(&mut self, token: WriteToken, now: Now) -> Effects;

    /// The write was not appended. Its callers get the error as group coordination shows it.
    pub fn on_write_failed(&mut self, token: WriteToken, error: ErrorCode, now: Now) -> Effects;

    /// The write is appended but not below the high watermark in time: the caller gets an error, the records stay.
    pub fn on_write_timed_out(&mut self, token: WriteToken, now: Now) -> Effects;

    /// Does what is due.
    pub fn on_tick(&mut self, now: Now) -> Effects;

    /// When [`Self::on_tick`] is wanted next; it may find nothing to do.
    pub fn next_deadline(&self) -> Option<MonotonicMs>;

    /// The caller is gone: its answer is dropped.
    pub fn forget(&mut self, token: Token);

    /// Topics are deleted: their offsets go.
    pub fn on_topics_deleted(&mut self, topics: &[(StrBytes, Uuid)], now: Now) -> Effects;

    /// Leadership is lost: everybody who waits gets `NOT_COORDINATOR`.
    pub fn resign(self) -> Effects;
}
