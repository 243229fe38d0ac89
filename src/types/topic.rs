//! Topic names and the pairs that name a partition.

use std::sync::Arc;

use crate::{PartitionIndex, Uuid};

/// The topic of the metadata quorum's log.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";
/// The fixed id of [`CLUSTER_METADATA_TOPIC`].
pub const CLUSTER_METADATA_TOPIC_ID: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// The topic of group state and committed offsets.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// The topic of transaction state.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// The topic of share group state.
pub const SHARE_STATE_TOPIC: &str = "__share_group_state";

/// A partition by its topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number within the topic.
    pub partition: PartitionIndex,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A partition by its topic's id, which unlike the name is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's number within the topic.
    pub partition: PartitionIndex,
}

impl std::fmt::Display for TopicIdPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// Whether Kafka marks the topic as internal.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_STATE_TOPIC)
}

/// Why a topic can't have this name. The text is Kafka's, as its tools show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTopicName(pub String);

impl std::fmt::Display for InvalidTopicName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTopicName {}

/// Checks a topic's name by Kafka's rules: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`.
pub fn validate_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    let fault = |why: String| Err(InvalidTopicName(why));
    if name.is_empty() {
        return fault("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return fault(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    if name.len() > 249 {
        return fault(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length 249"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return fault(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ));
    }
    Ok(())
}

/// Whether two topic names give the same metric name, as `.` and `_` are one there.
pub fn topics_collide(a: &str, b: &str) -> bool {
    a != b && a.replace('.', "_") == b.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "A.b_c-9", &"x".repeat(249)] {
            assert_eq!(validate_topic_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "é", "a/b", &"x".repeat(250)] {
            assert!(validate_topic_name(bad).is_err(), "{bad}");
        }
        assert!(topics_collide("a.b", "a_b"));
        assert!(!topics_collide("a.b", "a.b"));
    }
}
