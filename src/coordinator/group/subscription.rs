//! The metadata that consumers put into JoinGroup (`ConsumerProtocolSubscription`): only its topics are of interest.

use bytes::Bytes;
use ringlog_protocol::consumer_protocol::ConsumerProtocolSubscription;
use ringlog_protocol::{Decoder, Message, StrBytes};

/// The topics of a subscription; `None` if it isn't one.
pub(crate) fn topics(metadata: &Bytes) -> Option<Vec<StrBytes>> {
    let version = i16::from_be_bytes(*metadata.first_chunk::<2>()?);
    if version < 0 {
        return None;
    }
    // A newer version adds fields at the end.
    let version = version.min(ConsumerProtocolSubscription::MAX_VERSION);
    let mut input = Decoder::new(metadata.slice(2..));
    ConsumerProtocolSubscription::decode(&mut input, version).ok().map(|subscription| subscription.topics)
}
