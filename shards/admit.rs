//! Whether a request is let through to its handler: the one stage for all APIs, before any of them.
//!
//! Which APIs there are, on which listener and in which versions, is `dispatch`'s. Who the client is, what it may do, how
//! much it may ask for and how long it is held back for that belongs here.

use ringlog_protocol::{ApiKey, RequestBody};

use crate::admin::acls;
use crate::net::request::RequestContext;
use crate::net::response_memory::ResponseMemory;
use crate::net::service::CloseReason;

/// Ends when the request may begin: it makes sense at all, and there is room for its answer. Else its connection ends, for
/// the reason that is returned.
pub async fn admit(
    context: &RequestContext,
    body: &RequestBody,
    response_memory: &ResponseMemory,
) -> Result<(), CloseReason> {
    if acls::has_unknown_elements(body) {
        return Err(CloseReason::UnknownElements(context.api_key.name()));
    }
    // Answers to Produce are small, and counted when they are sent; the quorum doesn't wait for clients that take none.
    if context.api_key != ApiKey::Produce && !context.peer.listener.is_controller {
        response_memory.has_room().await;
    }
    Ok(())
}
