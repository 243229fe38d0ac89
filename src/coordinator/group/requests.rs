//! The requests of members, up to the group that they concern.

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::leave_group_response::MemberResponse;
use ringlog_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest, SyncGroupResponse,
};
use ringlog_types::{ErrorCode, Now};

use super::api::RequestContext;
use super::classic::ClassicGroup;
use super::coordinator::{GroupCoordinator, classic};
use super::membership::{Join, leave_response, leaving_members, own};
use super::records::{GroupRecord, GroupType};
use super::shared::{AfterWrite, join_error};
use super::state::{Group, Membership};

/// The longest string of a member that goes into a `GroupMetadata` record, whose strings have two-byte lengths. Member
/// ids get a UUID on top.
const MAX_STRING_BYTES: usize = i16::MAX as usize - 64;

/// SyncGroup from this version on must say for which protocol it is (KIP-559).
const PROTOCOL_NAMED_VERSION: i16 = 5;

impl GroupCoordinator {
    pub(crate) fn join_group(&mut self, request: JoinGroupRequest, context: &RequestContext, now: Now) {
        let token = context.token;
        if let Err(error) = self.check_join(&request, context) {
            self.shared.reply(token, join_error(error, request.member_id));
            return;
        }
        let id = own(&request.group_id);
        let converted = match self.make_classic(&id) {
            Ok(records) => records,
            Err(error) => {
                self.shared.reply(token, join_error(error, request.member_id));
                return;
            }
        };
        let deleting = classic(&mut self.groups, &id).is_some_and(|group| group.deleting);
        let is_new = deleting || !self.groups.contains_key(&id);
        if is_new {
            if !request.member_id.is_empty() {
                self.shared.reply(token, join_error(ErrorCode::UnknownMemberId, request.member_id));
                return;
            }
            let group = self.groups.entry(id.clone()).or_insert_with(|| Group::classic(id.clone()));
            let mut fresh = ClassicGroup::new(id.clone());
            fresh.state_since = Some(now.wall);
            group.membership = Membership::Classic(Box::new(fresh));
        }
        let Some(group) = classic(&mut self.groups, &id) else { return };
        let writes_before = self.shared.writes_begun();
        let member = group.join(Join::new(context, request), &mut self.shared, now);
        let mut records = converted;
        if is_new && self.shared.writes_begun() == writes_before {
            // So that the group is known after a move even if it never gets beyond its first join.
            records.push(ClassicGroup::empty_record(&id, now.wall));
        }
        if !records.is_empty() {
            group.last_write = Some(self.shared.writes_begun());
            self.shared.write(records, AfterWrite::NewGroup { token, member });
        }
    }

    fn check_join(&self, request: &JoinGroupRequest, context: &RequestContext) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let config = &self.shared.config;
        if !(config.min_session_timeout_ms..=config.max_session_timeout_ms).contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let instance = request.group_instance_id.as_ref();
        let protocols = request.protocols.iter().map(|protocol| &protocol.name);
        let strings = [&request.group_id, &request.member_id, &request.protocol_type, &context.client_id];
        if strings.into_iter().chain(instance).chain(protocols).any(|text| text.len() > MAX_STRING_BYTES) {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    /// An empty group of the consumer protocol becomes a classic one when a classic member joins it; the tombstones of
    /// its records are returned. Groups of other protocols can't be joined.
    fn make_classic(&mut self, id: &StrBytes) -> Result<Vec<GroupRecord>, ErrorCode> {
        let Some(group) = self.groups.get_mut(id) else { return Ok(Vec::new()) };
        let Membership::Other(other) = &group.membership else { return Ok(Vec::new()) };
        if other.group_type != GroupType::Consumer || !other.members.is_empty() {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let records = other.tombstones(id);
        group.membership = Membership::Classic(Box::new(ClassicGroup::new(id.clone())));
        Ok(records)
    }

    pub(crate) fn sync_group(&mut self, request: SyncGroupRequest, context: &RequestContext) {
        let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        if context.api_version >= PROTOCOL_NAMED_VERSION && !names_protocol {
            let error_code = ErrorCode::InconsistentGroupProtocol.code();
            self.shared.reply(context.token, SyncGroupResponse { error_code, ..Default::default() });
            return;
        }
        let error = if request.group_id.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId };
        match classic(&mut self.groups, &request.group_id) {
            Some(group) if error != ErrorCode::InvalidGroupId => {
                group.sync(context.token, request, &mut self.shared);
            }
            _ => self.shared.reply(context.token, SyncGroupResponse { error_code: error.code(), ..Default::default() }),
        }
    }

    pub(crate) fn heartbeat(&mut self, request: &HeartbeatRequest, context: &RequestContext, now: Now) {
        let error = if request.group_id.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId };
        let response = match classic(&mut self.groups, &request.group_id) {
            Some(group) if error != ErrorCode::InvalidGroupId => group.heartbeat(request, &mut self.shared, now),
            _ => HeartbeatResponse { error_code: error.code(), ..Default::default() },
        };
        self.shared.reply(context.token, response);
    }

    pub(crate) fn leave_group(&mut self, request: &LeaveGroupRequest, context: &RequestContext, now: Now) {
        let version = context.api_version;
        if request.group_id.is_empty() {
            let members = unknown_members(request, version, ErrorCode::InvalidGroupId);
            let mut response = leave_response(members, version);
            response.error_code = ErrorCode::InvalidGroupId.code();
            response.members.clear();
            self.shared.reply(context.token, response);
            return;
        }
        let Some(group) = classic(&mut self.groups, &request.group_id) else {
            let members = unknown_members(request, version, ErrorCode::UnknownMemberId);
            self.shared.reply(context.token, leave_response(members, version));
            return;
        };
        let writes_before = self.shared.writes_begun();
        let response = group.leave(request, version, &mut self.shared, now);
        // The last member's departure is written before it is confirmed.
        self.shared.reply_after_write_since(writes_before, context.token, response);
    }
}

fn unknown_members(request: &LeaveGroupRequest, version: i16, error: ErrorCode) -> Vec<MemberResponse> {
    leaving_members(request, version)
        .into_iter()
        .map(|identity| MemberResponse {
            member_id: identity.member_id,
            group_instance_id: identity.group_instance_id,
            error_code: error.code(),
        })
        .collect()
}
