use std::collections::BTreeMap;

use ringlog_protocol::messages::ApiVersionsResponse;
use ringlog_protocol::{ApiKey, Message, Request};

/// What a node said it speaks (KIP-35).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeVersions {
    ranges: BTreeMap<i16, (i16, i16)>,
}

impl NodeVersions {
    pub(crate) fn from_response(response: &ApiVersionsResponse) -> NodeVersions {
        let ranges = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        NodeVersions { ranges: ranges.collect() }
    }

    /// The lowest and highest version of the API on the node.
    pub fn range(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.ranges.get(&key.code()).copied()
    }

    /// The highest version that both sides speak and that isn't above `limit`.
    pub fn highest_common<R: Request>(&self, limit: i16) -> Option<i16> {
        let (min, max) = self.range(R::KEY)?;
        // Versions that are still unstable aren't used, though the codec knows them.
        let version = max.min(R::KEY.max_version()).min(limit);
        (version >= min.max(<R as Message>::MIN_VERSION)).then_some(version)
    }
}
