//! A group of whatever protocol, with its offsets.

use std::collections::BTreeSet;

use bytes::Bytes;
use ringlog_protocol::StrBytes;

use super::classic::ClassicGroup;
use super::offsets::Offsets;
use super::records::{GroupType, OtherRecord};

/// A group of the consumer, share or streams protocol, as far as the log tells: enough to list it, to keep its
/// offsets, and to delete it.
#[derive(Debug, PartialEq)]
pub(crate) struct OtherGroup {
    pub(crate) group_type: GroupType,
    pub(crate) members: BTreeSet<StrBytes>,
    /// The keys of its live records.
    pub(crate) keys: BTreeSet<Bytes>,
}

impl OtherGroup {
    pub(crate) fn new(group_type: GroupType) -> OtherGroup {
        OtherGroup { group_type, members: BTreeSet::new(), keys: BTreeSet::new() }
    }

    pub(crate) fn apply(&mut self, record: &OtherRecord) {
        if record.deleted {
            self.keys.remove(&record.key);
            if let Some(member) = &record.member {
                self.members.remove(member);
            }
        } else {
            self.keys.insert(record.key.clone());
            self.members.extend(record.member.clone());
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        if self.members.is_empty() { "Empty" } else { "Stable" }
    }
}

/// A group's membership.
#[derive(Debug)]
pub(crate) enum Membership {
    Classic(Box<ClassicGroup>),
    Other(OtherGroup),
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) membership: Membership,
    pub(crate) offsets: Offsets,
    /// Commits whose write is under way, so that expiry leaves the group alone.
    pub(crate) commits_pending: u32,
}

impl Group {
    pub(crate) fn classic(id: StrBytes) -> Group {
        Group {
            membership: Membership::Classic(Box::new(ClassicGroup::new(id))),
            offsets: Offsets::default(),
            commits_pending: 0,
        }
    }

    pub(crate) fn has_members(&self) -> bool {
        match &self.membership {
            Membership::Classic(group) => !group.is_empty(),
            Membership::Other(group) => !group.members.is_empty(),
        }
    }

    pub(crate) fn group_type(&self) -> GroupType {
        match &self.membership {
            Membership::Classic(_) => GroupType::Classic,
            Membership::Other(group) => group.group_type,
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match &self.membership {
            Membership::Classic(group) => group.state.name(),
            Membership::Other(group) => group.state_name(),
        }
    }
}
