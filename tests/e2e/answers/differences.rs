//! Where Ringlog means to answer otherwise than Kafka, or doesn't serve something yet.

use super::pair::Outcome;
use super::wire::Value;

/// APIs of Kafka that aren't served, all because what they are for isn't here yet.
pub const NOT_SERVED: &[&str] = &[];

/// Why these may differ.
pub fn meant(api: &str, version: i16, request: &Value, kafka: &Outcome, ringlog: &Outcome) -> Option<&'static str> {
    let _ = (api, version, request, kafka, ringlog);
    None
}
