//! Which replica a consumer should read from (KIP-392): one in its own rack, as Kafka's `RackAwareReplicaSelector` picks it.

use std::cmp::Reverse;

use ringlog_types::{MonotonicMs, NodeId, Offset};

use crate::{Partition, RemoteReplica, Role};

impl Partition {
    /// The follower that a consumer at `fetch_offset` is sent to: in sync, near it, with what it wants to read; of several the
    /// one that has most, then the one that caught up last. `None`: it reads from this replica, which leads and is near, or
    /// there is none that is better.
    pub fn preferred_read_replica(
        &self,
        fetch_offset: Offset,
        now: MonotonicMs,
        is_near: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        if self.role != Role::Leader || is_near(self.local) {
            return None;
        }
        let has_it = |remote: &&RemoteReplica| {
            self.isr.committed().contains(&remote.replica)
                && (remote.log_start_offset..=remote.log_end_offset).contains(&fetch_offset)
                && is_near(remote.replica)
        };
        let since_caught_up = |remote: &RemoteReplica| remote.last_caught_up.map_or(u64::MAX, |at| now.since_ms(at));
        let order = |remote: &&RemoteReplica| (remote.log_end_offset, Reverse(since_caught_up(remote)), remote.replica);
        self.remotes.iter().filter(has_it).max_by_key(order).map(|remote| remote.replica)
    }
}
