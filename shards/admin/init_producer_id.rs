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
use crate::controller::Controller;
use crate::core::Room as _;

/// The next block is asked for when no more ids than this are left: a tenth of a block.
const PREFETCH_BELOW: i64 = 100;
/// How long a request waits for a block before the client is told to try again.
const WAIT_MS: u64 = 5_000;

/// The producer ids that a core may give out.
pub struct ProducerIds {
    controller: Rc<Controller>,
    blocks: Blocks,
}

/// What is left of the blocks that the controller gave.
#[derive(Default)]
struct Blocks {
    /// At most two blocks: the one in use and the next.
    left: RefCell<VecDeque<Range<i64>>>,
    is_asking: Cell<bool>,
    answered: ring::Notify,
}

impl ProducerIds {
    /// None yet.
    pub fn new(controller: Rc<Controller>) -> ProducerIds {
        ProducerIds { controller, blocks: Blocks::default() }
    }
}

impl Blocks {
    fn take(&self) -> Option<i64> {
        let mut blocks = self.left.borrow_mut();
        while let Some(block) = blocks.front_mut() {
            match block.next() {
                Some(id) => return Some(id),
                None => drop(blocks.pop_front()),
            }
        }
        None
    }

    fn wants_block(&self) -> bool {
        let blocks = self.left.borrow();
        let low = |block: &Range<i64>| block.end - block.start <= PREFETCH_BELOW;
        !self.is_asking.get() && (blocks.is_empty() || (blocks.len() == 1 && blocks.front().is_some_and(low)))
    }
}

/// Answers InitProducerId. A transactional id is refused: FindCoordinator has already said why.
pub async fn handle(ids: &Rc<ProducerIds>, request: InitProducerIdRequest) -> InitProducerIdResponse {
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
    match next_id(ids).await {
        Some(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        None => failed(ErrorCode::CoordinatorLoadInProgress),
    }
}

async fn next_id(ids: &Rc<ProducerIds>) -> Option<i64> {
    let blocks = &ids.blocks;
    let deadline = ring::now().monotonic.plus_ms(WAIT_MS);
    loop {
        let id = blocks.take();
        if blocks.wants_block() {
            blocks.is_asking.set(true);
            // When the gate is closed the node stops.
            if ids.controller.core().gate.spawn(fetch_block(ids.clone())).is_err() {
                blocks.is_asking.set(false);
                return id;
            }
        }
        let left_ms = deadline.since_ms(ring::now().monotonic);
        if id.is_some() || left_ms == 0 {
            return id;
        }
        let answered = ring::timeout_ms(left_ms, blocks.answered.wait()).await;
        if answered.is_err() || blocks.left.borrow().is_empty() {
            return None;
        }
    }
}

async fn fetch_block(ids: Rc<ProducerIds>) {
    let (blocks, controller) = (&ids.blocks, &ids.controller);
    let broker = controller.core().node.id;
    let broker_epoch = controller.metadata().image().cluster.broker(broker).map_or(-1, |broker| broker.epoch.0);
    let request = AllocateProducerIdsRequest { broker_id: broker.0, broker_epoch };
    let response = forward::ask(controller, request.into()).await;
    match response {
        ResponseBody::AllocateProducerIds(block) if block.error_code == 0 && block.producer_id_len > 0 => {
            let end = block.producer_id_start.saturating_add(i64::from(block.producer_id_len));
            blocks.left.borrow_mut().push_back(block.producer_id_start..end);
        }
        ResponseBody::AllocateProducerIds(refused) => {
            let error = ErrorCode::from_code(refused.error_code).map_or("unknown error", ErrorCode::name);
            warn!(error, "the controller gave no producer ids");
        }
        other => warn!(api = %other.api_key(), "the controller answered AllocateProducerIds as another API"),
    }
    blocks.is_asking.set(false);
    blocks.answered.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_for_at_first_and_when_nine_tenths_are_used() {
        let blocks = Blocks::default();
        assert!(blocks.wants_block());
        assert_eq!(blocks.take(), None);
        blocks.left.borrow_mut().push_back(3000..4000);
        for expected in 3000..3900 {
            assert!(!blocks.wants_block());
            assert_eq!(blocks.take(), Some(expected));
        }
        assert!(blocks.wants_block());
        blocks.left.borrow_mut().push_back(7000..8000);
        assert!(!blocks.wants_block());
        let rest: Vec<i64> = std::iter::from_fn(|| blocks.take()).take(101).collect();
        assert_eq!((rest[0], rest[99], rest[100]), (3900, 3999, 7000));
    }
}
