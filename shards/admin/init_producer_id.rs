//! InitProducerId: ids for idempotent producers (KIP-98, KIP-730).
//!
//! Each core has a block of 1000 ids of its own, which it gets from the controller at the first request, and asks for
//! the next block when it has used nine tenths of one. Ids are unique in the cluster and rise within a core.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use ringlog_protocol::ResponseBody;
use ringlog_protocol::messages::AllocateProducerIdsRequest;
use ringlog_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use ringlog_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use ringlog_ring as ring;
use ringlog_types::ErrorCode;
use tracing::warn;

use super::forward;
use crate::dispatch::RequestContext;
use crate::shard::Shard;

/// The next block is asked for when no more ids than this are left: a tenth of a block.
const PREFETCH_BELOW: i64 = 100;
/// How long a request waits for a block before the client is told to try again.
const WAIT_MS: u64 = 5_000;

/// The producer ids that a core may give out.
#[derive(Default)]
pub struct ProducerIds {
    /// At most two blocks: the one in use and the next.
    blocks: RefCell<VecDeque<Range<i64>>>,
    is_asking: Cell<bool>,
    answered: ring::Notify,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        let mut blocks = self.blocks.borrow_mut();
        while let Some(block) = blocks.front_mut() {
            match block.next() {
                Some(id) => return Some(id),
                None => drop(blocks.pop_front()),
            }
        }
        None
    }

    fn wants_block(&self) -> bool {
        let blocks = self.blocks.borrow();
        let low = |block: &Range<i64>| block.end - block.start <= PREFETCH_BELOW;
        !self.is_asking.get() && (blocks.is_empty() || (blocks.len() == 1 && blocks.front().is_some_and(low)))
    }
}

/// Answers InitProducerId. A transactional id is refused: FindCoordinator has already said why.
pub async fn handle(
    shard: &Rc<Shard>,
    _context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return failed(ErrorCode::InvalidRequest);
    }
    match request.transactional_id.as_deref() {
        Some("") => return failed(ErrorCode::InvalidRequest),
        Some(_) => return failed(ErrorCode::UnsupportedVersion),
        None => {}
    }
    match next_id(shard).await {
        Some(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        None => failed(ErrorCode::CoordinatorLoadInProgress),
    }
}

async fn next_id(shard: &Rc<Shard>) -> Option<i64> {
    let ids = &shard.admin.producer_ids;
    let deadline = ring::now().monotonic.plus_ms(WAIT_MS);
    loop {
        let id = ids.take();
        if ids.wants_block() {
            ids.is_asking.set(true);
            // When the gate is closed the node stops.
            if shard.gate.spawn(fetch_block(shard.clone())).is_err() {
                ids.is_asking.set(false);
                return id;
            }
        }
        let left_ms = deadline.since_ms(ring::now().monotonic);
        if id.is_some() || left_ms == 0 {
            return id;
        }
        let answered = ring::timeout_ms(left_ms, ids.answered.wait()).await;
        if answered.is_err() || ids.blocks.borrow().is_empty() {
            return None;
        }
    }
}

async fn fetch_block(shard: Rc<Shard>) {
    let ids = &shard.admin.producer_ids;
    let broker = shard.node.id;
    let broker_epoch = shard.image().cluster.broker(broker).map_or(-1, |broker| broker.epoch.0);
    let request = AllocateProducerIdsRequest { broker_id: broker.0, broker_epoch };
    let response = forward::ask(&shard, request.into()).await;
    match response {
        ResponseBody::AllocateProducerIds(block) if block.error_code == 0 && block.producer_id_len > 0 => {
            let end = block.producer_id_start.saturating_add(i64::from(block.producer_id_len));
            ids.blocks.borrow_mut().push_back(block.producer_id_start..end);
        }
        ResponseBody::AllocateProducerIds(refused) => {
            let error = ErrorCode::from_code(refused.error_code).map_or("unknown error", ErrorCode::name);
            warn!(error, "the controller gave no producer ids");
        }
        other => warn!(api = %other.api_key(), "the controller answered AllocateProducerIds as another API"),
    }
    ids.is_asking.set(false);
    ids.answered.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_for_at_first_and_when_nine_tenths_are_used() {
        let ids = ProducerIds::default();
        assert!(ids.wants_block());
        assert_eq!(ids.take(), None);
        ids.blocks.borrow_mut().push_back(3000..4000);
        for expected in 3000..3900 {
            assert!(!ids.wants_block());
            assert_eq!(ids.take(), Some(expected));
        }
        assert!(ids.wants_block());
        ids.blocks.borrow_mut().push_back(7000..8000);
        assert!(!ids.wants_block());
        let rest: Vec<i64> = std::iter::from_fn(|| ids.take()).take(101).collect();
        assert_eq!((rest[0], rest[99], rest[100]), (3900, 3999, 7000));
    }
}
