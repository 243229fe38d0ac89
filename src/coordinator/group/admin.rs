//! What administrators ask: ListGroups, DescribeGroups, DeleteGroups and OffsetDelete.

use std::collections::BTreeSet;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::delete_groups_response::DeletableGroupResult;
use ringlog_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use ringlog_protocol::messages::list_groups_response::ListedGroup;
use ringlog_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use ringlog_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest,
    ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use ringlog_types::ErrorCode;

use super::api::{RequestContext, TopicView};
use super::classic::{ClassicGroup, State};
use super::coordinator::GroupCoordinator;
use super::records::{GroupRecord, OtherRecord};
use super::shared::AfterWrite;
use super::state::{Group, Membership, OtherGroup};

/// DescribeGroups from this version on says when a group isn't there (KIP-1043).
const GROUP_ID_NOT_FOUND_VERSION: i16 = 6;

impl GroupCoordinator {
    pub(crate) fn list_groups(&mut self, request: &ListGroupsRequest, context: &RequestContext) {
        let wanted = |filter: &[StrBytes], name: &str| {
            filter.is_empty() || filter.iter().any(|entry| entry.eq_ignore_ascii_case(name))
        };
        let groups = self
            .groups
            .iter()
            .filter(|(_, group)| wanted(&request.states_filter, group.state_name()))
            .filter(|(_, group)| wanted(&request.types_filter, group.group_type().name()))
            .map(|(id, group)| ListedGroup {
                group_id: id.clone(),
                protocol_type: match &group.membership {
                    Membership::Classic(classic) => classic.protocol_type.clone().unwrap_or_default(),
                    Membership::Other(other) => StrBytes::from(other.group_type.protocol_type()),
                },
                group_state: StrBytes::from(group.state_name()),
                group_type: StrBytes::from(group.group_type().name()),
            })
            .collect();
        self.shared.reply(context.token, ListGroupsResponse { groups, ..Default::default() });
    }

    pub(crate) fn describe_groups(&mut self, request: &DescribeGroupsRequest, context: &RequestContext) {
        let groups = request.groups.iter().map(|id| self.describe_group(id, context.api_version)).collect();
        self.shared.reply(context.token, DescribeGroupsResponse { groups, ..Default::default() });
    }

    fn describe_group(&self, id: &StrBytes, version: i16) -> DescribedGroup {
        let missing = match self.groups.get(id).map(|group| &group.membership) {
            Some(Membership::Classic(group)) => return describe(group),
            Some(Membership::Other(_)) => format!("Group {id} is not a classic group."),
            None => format!("Group {id} not found."),
        };
        let mut described =
            DescribedGroup { group_id: id.clone(), group_state: StrBytes::from("Dead"), ..Default::default() };
        if version >= GROUP_ID_NOT_FOUND_VERSION {
            described.error_code = ErrorCode::GroupIdNotFound.code();
            described.error_message = Some(StrBytes::from(missing));
        }
        described
    }

    pub(crate) fn delete_groups(&mut self, request: &DeleteGroupsRequest, context: &RequestContext) {
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(request.groups_names.len());
        let mut seen = BTreeSet::new();
        for id in &request.groups_names {
            if !seen.insert(id) {
                continue;
            }
            let error = match self.groups.get(id) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) if group.has_members() => ErrorCode::NonEmptyGroup,
                Some(group) => {
                    self.deletion(id, group, &mut records);
                    ErrorCode::None
                }
            };
            results.push(DeletableGroupResult { group_id: id.clone(), error_code: error.code() });
        }
        let response = DeleteGroupsResponse { results, ..Default::default() };
        if records.is_empty() {
            self.shared.reply(context.token, response);
            return;
        }
        for record in &records {
            self.note_deletion(record);
        }
        self.shared.write(records, AfterWrite::Reply(context.token, response.into()));
    }

    /// The tombstones that make a group disappear, offsets first.
    fn deletion(&self, id: &StrBytes, group: &Group, records: &mut Vec<GroupRecord>) {
        let mut offsets = group.offsets.keys();
        if group.commits_pending > 0 {
            // What is on its way into the log is deleted as well.
            let pending = self.shared.pending.values().flat_map(|write| &write.records);
            offsets.extend(pending.filter_map(|record| match record {
                GroupRecord::Offset(key, Some(_)) if key.group == *id => Some((key.topic.clone(), key.partition)),
                _ => None,
            }));
        }
        records.extend(offsets.iter().map(|(topic, index)| GroupRecord::offset_tombstone(id, topic, *index)));
        match &group.membership {
            Membership::Classic(_) => records.push(GroupRecord::group_tombstone(id)),
            Membership::Other(other) => records.extend(other.tombstones(id)),
        }
    }

    pub(crate) fn offset_delete(
        &mut self,
        request: &OffsetDeleteRequest,
        context: &RequestContext,
        topics: &dyn TopicView,
    ) {
        let group = match self.groups.get(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            None => Err(ErrorCode::GroupIdNotFound),
            Some(group) => deletable_offsets(group).map(|()| group),
        };
        let group = match group {
            Ok(group) => group,
            Err(error) => {
                let response = OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
                self.shared.reply(context.token, response);
                return;
            }
        };
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let subscribed =
                matches!(&group.membership, Membership::Classic(classic) if classic.is_subscribed(&topic.name));
            let count = topics.partition_count(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let error = if !(0..count).contains(&index) {
                    ErrorCode::UnknownTopicOrPartition
                } else if subscribed {
                    ErrorCode::GroupSubscribedToTopic
                } else {
                    ErrorCode::None
                };
                if error.is_none() && group.offsets.get(&topic.name, index).is_some() {
                    records.push(GroupRecord::offset_tombstone(&request.group_id, &topic.name, index));
                }
                partitions.push(OffsetDeleteResponsePartition { partition_index: index, error_code: error.code() });
            }
            // Kafka says nothing of topics that it knows and of which nothing is asked.
            if count > 0 && partitions.is_empty() {
                continue;
            }
            answers.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions });
        }
        let response = OffsetDeleteResponse { topics: answers, ..Default::default() };
        if records.is_empty() {
            self.shared.reply(context.token, response);
        } else {
            self.shared.write(records, AfterWrite::Reply(context.token, response.into()));
        }
    }
}

/// Offsets of a group with members can be deleted only when it is known which topics they read.
fn deletable_offsets(group: &Group) -> Result<(), ErrorCode> {
    match &group.membership {
        Membership::Classic(classic) if classic.is_empty() || classic.is_consumer() => Ok(()),
        Membership::Classic(_) => Err(ErrorCode::NonEmptyGroup),
        Membership::Other(other) if other.members.is_empty() => Ok(()),
        Membership::Other(_) => Err(ErrorCode::NonEmptyGroup),
    }
}

fn describe(group: &ClassicGroup) -> DescribedGroup {
    let is_stable = group.state == State::Stable;
    let protocol = group.protocol_name.clone().filter(|_| is_stable).unwrap_or_default();
    let members = group.members.iter().map(|(id, member)| DescribedGroupMember {
        member_id: id.clone(),
        group_instance_id: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: if is_stable { member.metadata(&protocol) } else { Default::default() },
        member_assignment: if is_stable { member.assignment.clone() } else { Default::default() },
    });
    DescribedGroup {
        group_id: group.id.clone(),
        group_state: StrBytes::from(group.state.name()),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        members: members.collect(),
        protocol_data: protocol,
        ..Default::default()
    }
}

impl OtherGroup {
    /// Tombstones for all of the group's records, members' before the group's own.
    pub(crate) fn tombstones(&self, id: &StrBytes) -> Vec<GroupRecord> {
        let record = |key: &bytes::Bytes| {
            GroupRecord::Other(OtherRecord {
                group_type: self.group_type,
                group: id.clone(),
                member: None,
                key: key.clone(),
                deleted: true,
            })
        };
        // Keys begin with the record's type, and the lower types are what the higher ones hang on.
        self.keys.iter().rev().map(record).collect()
    }
}
