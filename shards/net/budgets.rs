//! What the connections of one core may hold together.

use std::rc::Rc;

use crate::core::Core;
use crate::net::request_memory::RequestMemory;
use crate::net::response_memory::ResponseMemory;
use crate::node::Node;

/// Memory of one core for requests, unless `queued.max.request.bytes` says something else. More wait at their sockets.
const REQUEST_MEMORY_BYTES: usize = 256 * 1024 * 1024;

/// Memory of one core for requests and answers, and where they are counted.
pub struct Budgets {
    /// The core.
    pub core: Rc<Core>,
    /// Memory for what clients send.
    pub request_memory: RequestMemory,
    /// Memory for answers on their way out.
    pub response_memory: ResponseMemory,
}

impl Budgets {
    /// Nothing is held yet.
    pub fn new(core: Rc<Core>, response_memory: ResponseMemory) -> Budgets {
        Budgets { request_memory: RequestMemory::new(request_memory_bytes(&core.node)), core, response_memory }
    }
}

/// This core's part of the node's memory for requests.
fn request_memory_bytes(node: &Node) -> usize {
    let configured = usize::try_from(node.config.network.queued_max_request_bytes).ok().filter(|bytes| *bytes > 0);
    configured.map_or(REQUEST_MEMORY_BYTES, |bytes| bytes.div_ceil(node.shards))
}
