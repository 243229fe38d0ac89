//! What the controller listener serves.

use std::rc::Rc;

use ringlog_protocol::{ApiKey, RequestBody, ResponseBody};

use crate::dispatch::RequestContext;
use crate::shard::Shard;

/// Whether the controller listener serves the API.
pub fn serves(_api: ApiKey) -> bool {
    false
}

/// Answers a request.
pub async fn handle(_shard: &Rc<Shard>, _context: &RequestContext, _body: RequestBody) -> ResponseBody {
    unreachable!("nothing is served yet")
}
