//! The active controller's decisions, as replicated state.
//!
//! [`Controller::handle`] looks at a request against the *uncommitted* state and returns records and a response. The
//! records are replayed at once, so that the next request sees them; the response is to be sent when they are
//! committed. State changes by replay alone. On loss of leadership the uncommitted state is dropped.
//!
//! One file per subject; none of them writes state.

mod context;

use ringlog_protocol::messages::RequestBody;
use ringlog_types::{LeaderEpoch, MonotonicMs, Now, Offset};

pub use context::{
    AllowAll, Authorize, ControllerConfig, ControllerError, ControllerResult, Operation, RequestContext, Resource,
    TickResult,
};

use crate::image::MetadataImage;

/// A controller node's state: active with uncommitted metadata, or standing by.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
}

impl Controller {
    /// A controller that stands by.
    pub fn new(config: ControllerConfig) -> Controller {
        Controller { config }
    }

    /// Becomes active as leader of `epoch`. `image` is all that is in the log below `next_offset`; with
    /// `open_transaction`, records after its image belong to a transaction that was never ended. The records returned
    /// must be appended first of all.
    pub fn activate(
        &mut self,
        image: MetadataImage,
        open_transaction: bool,
        epoch: LeaderEpoch,
        next_offset: Offset,
        now: Now,
    ) -> Vec<TickResult> { unimplemented!() }

    /// Lost the leadership: drops the uncommitted state and answers NotActive until activated again.
    pub fn resign(&mut self) {}

    /// The epoch in which this controller is active.
    pub fn active_epoch(&self) -> Option<LeaderEpoch>;

    /// The newest state, uncommitted records included, if active.
    pub fn uncommitted_image(&self) -> Option<&MetadataImage>;

    /// Notes a heartbeat's arrival before it is handled, so that a slow queue fences nobody.
    pub fn on_heartbeat_received(&mut self, broker: ringlog_types::NodeId, epoch: ringlog_types::BrokerEpoch, now: Now);

    /// Decides a request.
    pub fn handle(&mut self, request: RequestBody, context: &RequestContext<'_>)
    -> Result<ControllerResult, ControllerError>;

    /// When [`Controller::on_tick`] has work next; `None` while standing by.
    pub fn next_deadline(&self) -> Option<MonotonicMs>;

    /// Runs the periodic tasks that are due. Records of each result go into the log in order, the first at
    /// `next_offset`.
    pub fn on_tick(&mut self, now: Now, next_offset: Offset) -> Vec<TickResult> { unimplemented!() }
}
