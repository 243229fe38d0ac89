//! Why nothing is served from a replica.

use ringlog_types::ErrorCode;

/// Why a broker serves nothing from a replica, now or any more. Who ends a replica says why ([`crate::Partition::close`]);
/// whoever waits at it, or comes too late, answers with [`Unserved::error_code`].
///
/// In ascending order of weight: a replica that was ended for one reason can still be ended for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unserved {
    /// The node stops. What was appended is still written and acknowledged.
    NodeStopping,
    /// Its log directory failed, or the log couldn't be opened. Final until the next start.
    LogDirectoryFailed,
    /// This broker holds no replica of the partition, or none any more.
    NoReplicaHere,
    /// The topic was deleted. One of the same name is another topic.
    TopicDeleted,
}

impl Unserved {
    /// Every one of them.
    pub const ALL: [Unserved; 4] =
        [Unserved::NodeStopping, Unserved::LogDirectoryFailed, Unserved::NoReplicaHere, Unserved::TopicDeleted];

    /// What clients are told, by Kafka 4.3.1: for a topic that is deleted under a request that waits, by name as by id
    /// `UNKNOWN_TOPIC_OR_PARTITION`. `UNKNOWN_TOPIC_ID` is for ids that the metadata doesn't know when a request comes.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Unserved::NodeStopping | Unserved::NoReplicaHere => ErrorCode::NotLeaderOrFollower,
            Unserved::LogDirectoryFailed => ErrorCode::KafkaStorageError,
            Unserved::TopicDeleted => ErrorCode::UnknownTopicOrPartition,
        }
    }

    /// Whether what was appended before still belongs into the log's files.
    pub fn is_still_written(self) -> bool {
        match self {
            Unserved::NodeStopping => true,
            Unserved::LogDirectoryFailed | Unserved::NoReplicaHere | Unserved::TopicDeleted => false,
        }
    }
}

impl std::fmt::Display for Unserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unserved::NodeStopping => "the node stops",
            Unserved::LogDirectoryFailed => "the log directory failed",
            Unserved::NoReplicaHere => "this broker has no replica of the partition",
            Unserved::TopicDeleted => "the topic was deleted",
        })
    }
}
