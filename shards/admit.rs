//! Whether a request is let through to its handler: the one stage for all APIs, before any of them.
//!
//! [`by_header`] decides on what is known before the body is read: the API is served on this listener, in this version.
//! [`by_body`] decides on the request as it is: whether it makes sense at all, and when there is room for its answer.
//! Who the client is, what it may do, how much it may ask for and how long it is held back for that belongs here, too.

use ringlog_protocol::{ApiKey, RequestBody};

use crate::admin::acls;
use crate::net::request::RequestContext;
use crate::net::response_memory::ResponseMemory;
use crate::net::service::CloseReason;

/// Why a request gets no further.
pub enum Refused {
    /// It is answered in version 0, with the versions that are served (KIP-511).
    AskAgainInVersion0,
    /// As in Kafka, its connection ends.
    Close(CloseReason),
}

/// Whether the body is worth reading. `is_served`: on the listener that the request came in by.
pub fn by_header(context: &RequestContext, is_served: bool) -> Result<(), Refused> {
    let api = context.api_key;
    if !is_served {
        let listener = context.peer.listener.name.clone();
        return Err(Refused::Close(CloseReason::UnknownApi(api.code(), listener)));
    }
    if (api.min_version()..=api.max_version()).contains(&context.api_version) {
        return Ok(());
    }
    if api == ApiKey::ApiVersions {
        return Err(Refused::AskAgainInVersion0);
    }
    Err(Refused::Close(CloseReason::UnsupportedVersion(api.name(), context.api_version)))
}

/// Whether the request may begin, and when.
pub async fn by_body(
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
