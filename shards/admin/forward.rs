//! What only the controller can decide: the request goes to its core, or later to another node, and its answer to the
//! client (KIP-590).

use std::rc::Rc;

use ringlog_protocol::{RequestBody, ResponseBody};

use crate::controller::{self, Controller, ControllerRequest};
use crate::net::request::RequestContext;

/// Answers a client's request with what the controller says to it.
pub async fn to_controller(controller: &Rc<Controller>, context: &RequestContext, body: RequestBody) -> ResponseBody {
    let mut request = controller::request_of_client(body, context.api_version, &context.peer, true);
    request.client_id.clone_from(&context.client_id);
    controller::request(controller, request).await
}

/// A request of this broker's own to the controller, in the newest version.
pub async fn ask(controller: &Rc<Controller>, body: RequestBody) -> ResponseBody {
    controller::request(controller, ControllerRequest::internal(body)).await
}

/// A client's request for the controller of this node.
pub fn request_of(context: &RequestContext, body: RequestBody) -> ControllerRequest {
    ControllerRequest {
        client_id: context.client_id.clone(),
        ..controller::request_of_client(body, context.api_version, &context.peer, false)
    }
}
