//! Newtypes for Kafka's numbers. `-1` keeps Kafka's meaning of "none" or "unknown" in each.

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// Kafka's `-1`: none, or not known.
            pub const NONE: $name = $name(-1);

            /// Whether this is [`Self::NONE`].
            #[inline]
            pub const fn is_none(self) -> bool {
                self.0 == -1
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            #[inline]
            fn from(value: $inner) -> Self {
                $name(value)
            }
        }

        impl From<$name> for $inner {
            #[inline]
            fn from(value: $name) -> $inner {
                value.0
            }
        }
    };
}

id!(
    /// A broker's or controller's `node.id`.
    NodeId(i32)
);
id!(
    /// The number of a partition within its topic, from 0.
    PartitionIndex(i32)
);
id!(
    /// The position of a record in a partition's log.
    Offset(i64)
);
id!(
    /// Rises each time a partition (or the metadata quorum) gets a new leader.
    LeaderEpoch(i32)
);
id!(
    /// Rises with every change to a partition's registration in the metadata.
    PartitionEpoch(i32)
);
id!(
    /// A broker's registration: the metadata offset at which it registered.
    BrokerEpoch(i64)
);
id!(
    /// Names an idempotent or transactional producer.
    ProducerId(i64)
);
id!(
    /// Fences older instances of the same producer.
    ProducerEpoch(i16)
);

/// One pinned executor of this node; shard 0 exists on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Offset {
    /// The offset `count` records later.
    #[inline]
    #[must_use]
    pub const fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}
