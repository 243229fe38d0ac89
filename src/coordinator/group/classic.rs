//! A classic group's membership: who is in it, in which generation, and who waits for what.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringlog_protocol::StrBytes;
use ringlog_protocol::coordinator_records::group::group_metadata_value::MemberMetadata;
use ringlog_protocol::coordinator_records::group::{GroupMetadataKey, GroupMetadataValue};
use ringlog_protocol::messages::join_group_response::JoinGroupResponseMember;
use ringlog_types::{ErrorCode, TimestampMs};

use super::api::Token;
use super::records::GroupRecord;
use super::shared::{AfterWrite, Shared};
use super::subscription;
use super::timer::Deadline;

/// The protocol type of groups that consume topics.
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Where a classic group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members; offsets may be left.
    Empty,
    /// Members are asked to join (again).
    PreparingRebalance,
    /// The leader is asked for the assignment.
    CompletingRebalance,
    /// Every member may have its assignment.
    Stable,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// One member.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) instance: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) client_host: StrBytes,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    /// Name and metadata of each protocol that it supports, most wanted first.
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(crate) awaiting_join: Option<Token>,
    pub(crate) awaiting_sync: Option<Token>,
    /// In its first JoinGroup, so that it doesn't know its id yet or sends no heartbeats.
    pub(crate) is_new: bool,
    pub(crate) session: Deadline,
}

impl Member {
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name.as_str() == protocol)
            .map(|(_, data)| data.clone())
            .unwrap_or_default()
    }
}

/// The initial delay of a group that was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitialDelay {
    pub(crate) delay_ms: u64,
    pub(crate) remaining_ms: u64,
}

/// A classic group.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    pub(crate) id: StrBytes,
    pub(crate) state: State,
    pub(crate) previous_state: State,
    pub(crate) state_since: Option<TimestampMs>,
    pub(crate) generation: i32,
    /// `None` for a group that has only ever had simple commits.
    pub(crate) protocol_type: Option<StrBytes>,
    pub(crate) protocol_name: Option<StrBytes>,
    pub(crate) leader: Option<StrBytes>,
    pub(crate) members: BTreeMap<StrBytes, Member>,
    /// Instance id to member id.
    pub(crate) static_members: BTreeMap<StrBytes, StrBytes>,
    /// Ids given out with `MEMBER_ID_REQUIRED`.
    pub(crate) pending_members: BTreeMap<StrBytes, Deadline>,
    /// Members that have not sent SyncGroup in this generation.
    pub(crate) pending_sync: BTreeSet<StrBytes>,
    /// `None` when unknown: no consumer group or unreadable metadata.
    pub(crate) subscribed_topics: Option<BTreeSet<StrBytes>>,
    /// A member came during the initial delay, so that the delay is prolonged.
    pub(crate) new_member_added: bool,
    pub(crate) initial_delay: Option<InitialDelay>,
    pub(crate) join_deadline: Deadline,
    pub(crate) sync_deadline: Deadline,
    /// The leader's assignment of this generation is being written.
    pub(crate) assignment_pending: bool,
    /// The number of the last write with a record of this group, so that a tombstone written before it is known as
    /// outdated.
    pub(crate) last_write: Option<u64>,
    /// Its tombstone is being written: whoever joins now joins a new group.
    pub(crate) deleting: bool,
}

impl ClassicGroup {
    pub(crate) fn new(id: StrBytes) -> ClassicGroup {
        ClassicGroup {
            id,
            state: State::Empty,
            previous_state: State::Empty,
            state_since: None,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            join_deadline: Deadline::default(),
            sync_deadline: Deadline::default(),
            assignment_pending: false,
            last_write: None,
            deleting: false,
        }
    }

    /// The group that a `GroupMetadata` record describes.
    pub(crate) fn from_record(id: StrBytes, value: GroupMetadataValue) -> ClassicGroup {
        let mut group = ClassicGroup::new(id);
        group.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        group.previous_state = group.state;
        group.state_since = (value.current_state_timestamp != -1).then_some(TimestampMs(value.current_state_timestamp));
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        group.protocol_name = value.protocol;
        group.leader = value.leader;
        let protocol = group.protocol_name.clone().unwrap_or_default();
        for record in value.members {
            let member = Member {
                instance: record.group_instance_id,
                client_id: record.client_id,
                client_host: record.client_host,
                session_timeout_ms: record.session_timeout,
                // Version 0 has no rebalance timeout: the session's takes its place.
                rebalance_timeout_ms: if record.rebalance_timeout == -1 {
                    record.session_timeout
                } else {
                    record.rebalance_timeout
                },
                protocols: vec![(protocol.clone(), record.subscription)],
                assignment: record.assignment,
                ..Member::default()
            };
            if let Some(instance) = &member.instance {
                group.static_members.insert(instance.clone(), record.member_id.clone());
            }
            group.members.insert(record.member_id, member);
        }
        if group.leader.as_ref().is_none_or(|leader| !group.members.contains_key(leader)) {
            group.leader = group.members.keys().next().cloned();
        }
        group.update_subscribed_topics();
        group
    }

    /// The record that keeps this group, with `assignments` or else what each member has.
    pub(crate) fn to_record(&self, assignments: Option<&BTreeMap<StrBytes, Bytes>>) -> GroupRecord {
        let protocol = self.protocol_name.clone().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberMetadata {
            member_id: id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: match assignments {
                Some(assignments) => assignments.get(id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        });
        GroupRecord::Group(
            GroupMetadataKey { group: self.id.clone() },
            Some(GroupMetadataValue {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                generation: self.generation,
                protocol: self.protocol_name.clone(),
                leader: self.leader.clone().filter(|_| !self.members.is_empty()),
                current_state_timestamp: self.state_since.unwrap_or(TimestampMs::NONE).0,
                members: members.collect(),
            }),
        )
    }

    /// The record of a group that was just made for its first member.
    pub(crate) fn empty_record(id: &StrBytes, wall: TimestampMs) -> GroupRecord {
        GroupRecord::Group(
            GroupMetadataKey { group: id.clone() },
            Some(GroupMetadataValue {
                protocol: None,
                leader: None,
                current_state_timestamp: wall.0,
                ..Default::default()
            }),
        )
    }

    /// Writes this group's record.
    pub(crate) fn write(&mut self, record: GroupRecord, after: AfterWrite, shared: &mut Shared) {
        self.last_write = Some(shared.writes_begun());
        shared.write(vec![record], after);
    }

    pub(crate) fn transition_to(&mut self, state: State, wall: TimestampMs) {
        self.previous_state = self.state;
        self.state = state;
        self.state_since = Some(wall);
    }

    pub(crate) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.as_str() == member)
    }

    pub(crate) fn is_consumer(&self) -> bool {
        self.protocol_type.as_ref().is_some_and(|name| name.as_str() == CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether nothing but its offsets keeps this group.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.pending_members.is_empty() && self.state == State::Empty
    }

    /// Whether it has no members. Ids that were given out for a join that hasn't come don't count.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.state == State::Empty
    }

    /// Whether it is like new: no members, no record.
    pub(crate) fn is_untouched(&self) -> bool {
        self.is_idle() && self.state_since.is_none() && self.protocol_type.is_none()
    }

    /// The longest of its members' rebalance timeouts.
    pub(crate) fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| u64::try_from(member.rebalance_timeout_ms).unwrap_or(0)).max().unwrap_or(0)
    }

    pub(crate) fn has_all_members_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    pub(crate) fn awaiting_join_count(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    /// Whether a member with these protocols can be one of this group.
    pub(crate) fn supports_protocols(&self, protocol_type: &str, protocols: &[(StrBytes, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_ref().is_some_and(|own| own.as_str() == protocol_type)
            && protocols.iter().any(|(name, _)| self.supported_by_all(name))
    }

    fn supported_by_all(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.protocols.iter().any(|(name, _)| name.as_str() == protocol))
    }

    /// The protocol that most members want most, among those that all support.
    pub(crate) fn select_protocol(&self) -> Option<StrBytes> {
        let first = self.members.values().next()?;
        let candidates: BTreeSet<&StrBytes> =
            first.protocols.iter().map(|(name, _)| name).filter(|name| self.supported_by_all(name)).collect();
        let mut votes: BTreeMap<&StrBytes, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| candidates.contains(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        // The first of equals, so that the outcome doesn't depend on anything else.
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    /// What the leader gets to see of the members.
    pub(crate) fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol_name.clone().unwrap_or_default();
        self.members
            .iter()
            .map(|(id, member)| JoinGroupResponseMember {
                member_id: id.clone(),
                group_instance_id: member.instance.clone(),
                metadata: member.metadata(&protocol),
            })
            .collect()
    }

    /// Whether a request's member is known and not replaced by another with its instance id (KIP-345).
    pub(crate) fn validate_member(&self, member: &str, instance: Option<&StrBytes>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current.as_str() != member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Adds a member; the first one leads.
    pub(crate) fn add_member(&mut self, id: StrBytes, member: Member, protocol_type: &StrBytes) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &member.instance {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.pending_members.remove(&id);
        self.members.insert(id, member);
    }

    /// Takes a member out and returns it, with whatever it waits for.
    pub(crate) fn remove_member(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance
            && self.static_members.get(instance).is_some_and(|current| current.as_str() == id)
        {
            self.static_members.remove(instance);
        }
        self.pending_sync.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives a static member's place to a new id; returns what the old one waited for.
    pub(crate) fn replace_static_member(
        &mut self,
        instance: &StrBytes,
        old: &StrBytes,
        new: &StrBytes,
    ) -> (Option<Token>, Option<Token>) {
        let Some(mut member) = self.members.remove(old) else { return (None, None) };
        let waits = (member.awaiting_join.take(), member.awaiting_sync.take());
        member.session = Deadline::default();
        // It waits for the group's deadlines from here on, not for that of a first join.
        member.is_new = false;
        self.members.insert(new.clone(), member);
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.clone());
        }
        self.static_members.insert(instance.clone(), new.clone());
        waits
    }

    /// If the leader is not among those who joined, another takes its place. False when nobody joined.
    pub(crate) fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.awaiting_join.is_some();
        if self.leader.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(joined) {
            return true;
        }
        let other = self.members.iter().find(|(_, member)| joined(member)).map(|(id, _)| id.clone());
        match other {
            Some(other) => {
                self.leader = Some(other);
                true
            }
            None => false,
        }
    }

    /// Begins the next generation with whoever is in the group.
    pub(crate) fn next_generation(&mut self, wall: TimestampMs) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        self.assignment_pending = false;
        if self.members.is_empty() {
            self.protocol_name = None;
            self.leader = None;
            self.update_subscribed_topics();
            self.transition_to(State::Empty, wall);
        } else {
            self.protocol_name = self.select_protocol();
            self.update_subscribed_topics();
            self.transition_to(State::CompletingRebalance, wall);
        }
    }

    fn update_subscribed_topics(&mut self) {
        self.subscribed_topics = if !self.is_consumer() {
            None
        } else if self.members.is_empty() {
            Some(BTreeSet::new())
        } else {
            self.protocol_name.as_ref().and_then(|protocol| {
                let mut topics = BTreeSet::new();
                for member in self.members.values() {
                    topics.extend(subscription::topics(&member.metadata(protocol))?);
                }
                Some(topics)
            })
        };
    }

    /// Whether a member reads this topic. Unknown counts as yes for consumers.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a group with one member as Kafka 4.3.1 wrote it.
    const KAFKA_S_VALUE: &str =
        "00030008636f6e73756d657200000001000572616e6765003a636f6e73756d65722d66782d672d656d7074792d332d616138
        64386438372d663934392d343265392d393231642d373862366265633435643537000001a201ab245d00000001003a636f6e
        73756d65722d66782d672d656d7074792d332d61613864386438372d663934392d343265392d393231642d37386236626563
        3435643537ffff0015636f6e73756d65722d66782d672d656d7074792d33000a2f3132372e302e302e31000493e00000afc8
        0000001e000300000001000866782d6d756c7469ffffffff00000000ffffffffffff00000024000300000001000866782d6d
        756c746900000003000000000000000100000002ffffffff";

    #[test]
    fn a_group_s_record_has_kafka_s_bytes() {
        let value: Vec<u8> = KAFKA_S_VALUE
            .split_whitespace()
            .flat_map(|line| line.as_bytes().chunks(2))
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        let key = Bytes::from_static(b"\x00\x02\x00\x0afx-g-empty");
        let Ok(GroupRecord::Group(_, Some(read))) =
            GroupRecord::decode(key.clone(), Some(value.clone().into())).unwrap()
        else {
            panic!("another record");
        };
        let group = ClassicGroup::from_record("fx-g-empty".into(), read);
        assert_eq!((group.state, group.generation, group.members.len()), (State::Stable, 1, 1));
        assert!(group.is_subscribed("fx-multi") && !group.is_subscribed("fx-none"));
        let written = group.to_record(None).encode().unwrap();
        assert_eq!(written.key, key);
        assert_eq!(written.value.as_deref(), Some(value.as_slice()));
    }
}
