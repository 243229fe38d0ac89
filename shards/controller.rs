//! The controller's core: drives raft and the metadata machine.

use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::{RequestBody, ResponseBody, StrBytes};
use ringlog_types::NodeId;

use crate::connection::Peer;
use crate::shard::Shard;

/// Shape only, until the controller is there.
#[derive(Debug, Clone)]
pub struct ControllerRequest {
    pub body: RequestBody,
    pub api_version: i16,
    pub principal: String,
    pub is_token_authenticated: bool,
    pub is_forwarded: bool,
    pub client_id: Option<StrBytes>,
    pub client_address: Option<SocketAddr>,
    pub listener: String,
}
impl ControllerRequest {
    pub fn internal(body: impl Into<RequestBody>) -> ControllerRequest {
        let _ = body;
        unimplemented!()
    }
    pub fn of_client(_body: RequestBody, _api_version: i16, _peer: &Peer, _is_forwarded: bool) -> ControllerRequest {
        unimplemented!()
    }
}
pub async fn request(_shard: &Rc<Shard>, _request: ControllerRequest) -> ResponseBody {
    unimplemented!()
}
pub async fn quorum(_shard: &Rc<Shard>) -> (i16, Option<NodeId>) {
    (0, None)
}

/// The controller as its core holds it.
pub struct ControllerHandle {}

/// Why the controller doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum ControllerFault {}

/// Loads the metadata log and joins the quorum.
pub async fn start(_shard: &Rc<Shard>) -> Result<(), ControllerFault> {
    Ok(())
}

/// Stops in order.
pub async fn stop(_shard: Rc<Shard>) {}
