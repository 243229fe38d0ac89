//! Parts of requests that several clients send.

use ringlog_metadata::features::FEATURES;
use ringlog_protocol::StrBytes;

/// All features with what this release runs of them.
pub(super) fn features<T>(of: impl Fn(StrBytes, i16, i16) -> T) -> Vec<T> {
    let ranges = FEATURES.iter().map(|feature| (feature.name, feature.supported_range(false)));
    ranges.map(|(name, range)| of(name.into(), range.min, range.max)).collect()
}
