//! What only the controller can decide: the request goes to its core, or later to another node, and its answer to the
//! client (KIP-590).

use std::rc::Rc;

use ringlog_protocol::{RequestBody, ResponseBody};

use crate::controller::{self, ControllerRequest};
use crate::dispatch::RequestContext;
use crate::shard::Shard;

/// Answers a client's request with what the controller says to it.
pub async fn to_controller(shard: &Rc<Shard>, context: &RequestContext, body: RequestBody) -> ResponseBody {
    let mut request = controller::request_of_client(body, context.api_version, &context.peer, true);
    request.client_id.clone_from(&context.client_id);
    controller::request(shard, request).await
}

/// A request of this broker's own to the controller, in the newest version.
pub async fn ask(shard: &Rc<Shard>, body: RequestBody) -> ResponseBody {
    controller::request(shard, ControllerRequest::internal(body)).await
}
