//! Offsets that nobody needs any more (`offsets.retention.minutes`, KIP-211).

use ringlog_protocol::StrBytes;
use ringlog_types::Now;

use super::classic::{ClassicGroup, State};
use super::coordinator::GroupCoordinator;
use super::offsets::CommittedOffset;
use super::records::GroupRecord;
use super::state::{Group, Membership};

/// From when on an offset's retention runs.
enum Retention<'a> {
    /// Never over.
    Kept,
    /// From the commit on.
    SinceCommit,
    /// From when the group became empty.
    SinceEmpty(i64),
    /// From the commit on, unless a member reads the topic.
    Unsubscribed(&'a ClassicGroup),
}

impl GroupCoordinator {
    /// Writes tombstones for what has expired, and for groups that are left with nothing.
    pub(crate) fn expire_offsets(&mut self, now: Now) {
        let mut records = Vec::new();
        for (id, group) in &self.groups {
            // A commit under way might be newer than what would be deleted behind it.
            if group.commits_pending == 0 {
                expire_group(id, group, self.shared.config.offsets_retention_ms, now, &mut records);
            }
        }
        self.write_in_batches(records);
    }
}

fn expire_group(id: &StrBytes, group: &Group, retention_ms: i64, now: Now, records: &mut Vec<GroupRecord>) {
    let retention = match &group.membership {
        Membership::Classic(classic) => retention_of(classic),
        Membership::Other(other) if other.members.is_empty() => Retention::SinceCommit,
        Membership::Other(_) => Retention::Kept,
    };
    let mut is_left = group.offsets.has_open_transaction();
    for (topic, partitions) in group.offsets.topics() {
        for (partition, offset) in partitions {
            let unstable = group.offsets.is_unstable(topic, *partition);
            if !unstable && retention.is_over(topic, offset, retention_ms, now.wall.0) {
                records.push(GroupRecord::offset_tombstone(id, topic, *partition));
            } else {
                is_left = true;
            }
        }
    }
    if !is_left
        && let Membership::Classic(classic) = &group.membership
        && classic.is_idle()
    {
        records.push(GroupRecord::group_tombstone(id));
    }
}

fn retention_of(group: &ClassicGroup) -> Retention<'_> {
    match (&group.protocol_type, group.state) {
        // A simple group: its offsets are all there is.
        (None, _) => Retention::SinceCommit,
        (Some(_), State::Empty) => match group.state_since {
            Some(since) => Retention::SinceEmpty(since.0),
            None => Retention::SinceCommit,
        },
        (Some(_), State::Stable) if group.is_consumer() && group.subscribed_topics.is_some() => {
            Retention::Unsubscribed(group)
        }
        (Some(_), _) => Retention::Kept,
    }
}

impl Retention<'_> {
    fn is_over(&self, topic: &str, offset: &CommittedOffset, retention_ms: i64, now_ms: i64) -> bool {
        let since = match self {
            Retention::Kept => return false,
            Retention::Unsubscribed(group) if group.is_subscribed(topic) => return false,
            Retention::SinceCommit | Retention::Unsubscribed(_) => offset.commit_timestamp,
            Retention::SinceEmpty(since) => *since,
        };
        if offset.expire_timestamp != -1 {
            return now_ms >= offset.expire_timestamp;
        }
        now_ms.saturating_sub(since) >= retention_ms
    }
}
