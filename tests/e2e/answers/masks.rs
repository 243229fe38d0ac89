//! What two nodes in the same state tell differently by nature, and must not be compared.

use super::wire::Value;

/// The API (all if empty), the field, and why it isn't compared.
const MASKED: &[(&str, &str, &str)] = &[
    ("", "ThrottleTimeMs", "there are no quotas here"),
    ("", "Host", "an address of the node"),
    ("", "Port", "an address of the node"),
    ("", "BrokerEpoch", "an offset in the metadata log"),
    ("", "LogAppendTimeMs", "a time"),
    ("", "LastTimestamp", "a time"),
    ("InitProducerId", "ProducerId", "from blocks that the controller gives"),
    ("DescribeLogDirs", "LogDir", "a path"),
    ("DescribeLogDirs", "TotalBytes", "of the file system"),
    ("DescribeLogDirs", "UsableBytes", "of the file system"),
    ("DescribeQuorum", "LeaderEpoch", "counts elections"),
    ("DescribeQuorum", "HighWatermark", "counts records of the metadata log"),
    ("DescribeQuorum", "LogEndOffset", "counts records of the metadata log"),
    ("DescribeQuorum", "LastFetchTimestamp", "a time"),
    ("DescribeQuorum", "LastCaughtUpTimestamp", "a time"),
    ("ApiVersions", "FinalizedFeaturesEpoch", "an offset in the metadata log"),
    ("DescribeConfigs", "Documentation", "in words of our own"),
];

/// Lists whose order follows from hash codes or from ids that differ.
const UNORDERED: &[(&str, &str)] = &[("", "Members")];

/// Puts nothing in the place of what isn't compared.
pub fn mask(api: &str, answer: &mut Value) {
    answer.visit("", &mut |name, value| {
        if MASKED.iter().any(|(of, field, _)| *field == name && (of.is_empty() || *of == api)) {
            *value = Value::Null;
        }
        if let Value::List(items) = value
            && UNORDERED.iter().any(|(of, field)| *field == name && (of.is_empty() || *of == api))
        {
            items.sort_by_cached_key(|item| format!("{item:?}"));
        }
    });
}
