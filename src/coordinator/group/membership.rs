//! The requests of a classic group's members: JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::leave_group_request::MemberIdentity;
use ringlog_protocol::messages::leave_group_response::MemberResponse;
use ringlog_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use ringlog_types::{ErrorCode, Now};

use super::api::{RequestContext, Token};
use super::classic::{ClassicGroup, Member, State};
use super::shared::{AfterWrite, Shared, StaticReplacement, join_error};
use super::timer::Deadline;

/// JoinGroup from this version on makes a new member ask twice, first for its id (KIP-394).
const MEMBER_ID_REQUIRED_VERSION: i16 = 4;
/// JoinGroup from this version on can tell a returning leader to skip the assignment (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;
/// Member ids of one group that may be handed out without having been used.
const MAX_PENDING_MEMBERS: usize = 10_000;

/// A JoinGroup request with what belongs to it.
pub(crate) struct Join<'a> {
    pub(crate) context: &'a RequestContext,
    pub(crate) request: JoinGroupRequest,
    /// Name and metadata of each protocol, most wanted first.
    protocols: Vec<(StrBytes, Bytes)>,
}

impl<'a> Join<'a> {
    pub(crate) fn new(context: &'a RequestContext, request: JoinGroupRequest) -> Join<'a> {
        let protocols = request.protocols.iter();
        let protocols =
            protocols.map(|protocol| (own(&protocol.name), Bytes::copy_from_slice(&protocol.metadata))).collect();
        Join { context, request, protocols }
    }

    fn token(&self) -> Token {
        self.context.token
    }

    /// Before version 1 the session timeout stands for both.
    fn rebalance_timeout_ms(&self) -> i32 {
        if self.context.api_version < 1 { self.request.session_timeout_ms } else { self.request.rebalance_timeout_ms }
    }

    fn member(&self) -> Member {
        Member {
            instance: self.request.group_instance_id.as_ref().map(own),
            client_id: own(&self.context.client_id),
            client_host: own(&self.context.client_host),
            session_timeout_ms: self.request.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms(),
            protocols: self.protocols.clone(),
            awaiting_join: Some(self.token()),
            is_new: true,
            ..Member::default()
        }
    }
}

impl ClassicGroup {
    /// JoinGroup. Returns the id under which the member is known, for the answer if the group can't be created.
    pub(crate) fn join(&mut self, join: Join<'_>, shared: &mut Shared, now: Now) -> StrBytes {
        let id = own(&join.request.member_id);
        let token = join.token();
        if !self.accepts(&id, shared.config.max_group_size) {
            self.expel(&id, shared);
            self.pending_members.remove(&id);
            self.maybe_complete_join(shared, now);
            shared.reply(token, join_error(ErrorCode::GroupMaxSizeReached, id.clone()));
            return id;
        }
        if !self.supports_protocols(&join.request.protocol_type, &join.protocols) {
            shared.reply(token, join_error(ErrorCode::InconsistentGroupProtocol, id.clone()));
            return id;
        }
        if !id.is_empty() {
            self.join_known(&id, join, shared, now);
            return id;
        }
        match join.request.group_instance_id.as_ref().map(own) {
            Some(instance) => self.join_static(&instance, join, shared, now),
            None => {
                let id = shared.member_id(&join.context.client_id);
                self.join_new(id.clone(), join, shared, now);
                id
            }
        }
    }

    /// Whether the group's size allows this member.
    fn accepts(&self, id: &str, max_size: usize) -> bool {
        let known = self.members.get(id);
        match self.state {
            State::Empty => true,
            // Those who already wait count: so a group that became too large loses the last to rejoin.
            State::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_join_count() < max_size
            }
            State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < max_size,
        }
    }

    fn join_new(&mut self, id: StrBytes, join: Join<'_>, shared: &mut Shared, now: Now) {
        if join.context.api_version < MEMBER_ID_REQUIRED_VERSION {
            self.add_and_rebalance(id, &join, shared, now);
        } else if self.pending_members.len() >= MAX_PENDING_MEMBERS {
            shared.reply(join.token(), join_error(ErrorCode::CoordinatorLoadInProgress, StrBytes::default()));
        } else {
            let timeout_ms = u64::try_from(join.request.session_timeout_ms).unwrap_or(0);
            self.add_pending_member(id.clone(), timeout_ms, shared, now);
            shared.reply(join.token(), join_error(ErrorCode::MemberIdRequired, id));
        }
    }

    fn join_static(&mut self, instance: &StrBytes, join: Join<'_>, shared: &mut Shared, now: Now) -> StrBytes {
        let id = shared.member_id(instance);
        match self.static_members.get(instance).cloned() {
            None => self.add_and_rebalance(id.clone(), &join, shared, now),
            Some(old) => self.replace_static(instance, &old, &id, &join, shared, now),
        }
        id
    }

    fn join_known(&mut self, id: &StrBytes, join: Join<'_>, shared: &mut Shared, now: Now) {
        let instance = join.request.group_instance_id.as_ref();
        if self.pending_members.contains_key(id) {
            if instance.is_some() {
                // Ids are handed out to dynamic members only.
                shared.reply(join.token(), join_error(ErrorCode::UnknownServerError, id.clone()));
            } else {
                self.add_and_rebalance(id.clone(), &join, shared, now);
            }
            return;
        }
        if let Err(error) = self.validate_member(id, instance) {
            shared.reply(join.token(), join_error(error, id.clone()));
            return;
        }
        let same = self.members.get(id).is_some_and(|member| member.protocols == join.protocols);
        match self.state {
            State::PreparingRebalance => self.update_and_rebalance(id, &join, shared, now),
            // The same again: the first answer got lost.
            State::CompletingRebalance if same => shared.reply(join.token(), self.join_response(id)),
            State::Stable if same && !self.is_leader(id) => shared.reply(join.token(), self.join_response(id)),
            // The leader rejoins to have the assignment made anew, others because their subscription changed.
            State::CompletingRebalance | State::Stable => self.update_and_rebalance(id, &join, shared, now),
            State::Empty => shared.reply(join.token(), join_error(ErrorCode::UnknownMemberId, StrBytes::default())),
        }
    }

    fn add_and_rebalance(&mut self, id: StrBytes, join: &Join<'_>, shared: &mut Shared, now: Now) {
        if self.initial_delay.is_some() {
            self.new_member_added = true;
        }
        self.add_member(id.clone(), join.member(), &own(&join.request.protocol_type));
        shared.wait(join.token());
        let timeout_ms = shared.config.new_member_join_timeout_ms;
        self.restart_session(&id, Some(timeout_ms), shared, now);
        self.rebalance_or_complete_join(shared, now);
    }

    fn update_and_rebalance(&mut self, id: &StrBytes, join: &Join<'_>, shared: &mut Shared, now: Now) {
        self.update_member(id, join, shared);
        self.rebalance_or_complete_join(shared, now);
    }

    fn update_member(&mut self, id: &StrBytes, join: &Join<'_>, shared: &mut Shared) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols.clone();
        member.session_timeout_ms = join.request.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms();
        shared.wait(join.token());
        if let Some(earlier) = member.awaiting_join.replace(join.token()) {
            // Only the last of several joins is answered with a generation; clients take this as "join again".
            shared.reply_waiting(earlier, join_error(ErrorCode::RebalanceInProgress, id.clone()));
        }
    }

    /// A static member is back under its instance id, without its old member id.
    fn replace_static(
        &mut self,
        instance: &StrBytes,
        old: &StrBytes,
        new: &StrBytes,
        join: &Join<'_>,
        shared: &mut Shared,
        now: Now,
    ) {
        let leader = self.leader.clone().unwrap_or_default();
        let before = self.members.get(old).cloned().unwrap_or_default();
        let (joining, syncing) = self.replace_static_member(instance, old, new);
        if let Some(token) = joining {
            shared.reply_waiting(token, join_error(ErrorCode::FencedInstanceId, old.clone()));
        }
        if let Some(token) = syncing {
            let error_code = ErrorCode::FencedInstanceId.code();
            shared.reply_waiting(token, SyncGroupResponse { error_code, ..Default::default() });
        }
        self.restart_session(new, None, shared, now);
        self.update_member(new, join, shared);
        match self.state {
            State::Stable if self.protocol_name == self.select_protocol() => {}
            State::Stable | State::CompletingRebalance => return self.prepare_rebalance(shared, now),
            State::Empty | State::PreparingRebalance => return self.rebalance_or_complete_join(shared, now),
        }
        // The group stays as it is; the new id is kept before the member hears of it.
        let token = join.token();
        if let Some(member) = self.members.get_mut(new) {
            member.awaiting_join = None;
        }
        let is_leader = self.is_leader(new);
        let mut response = self.join_response(new);
        if join.context.api_version >= SKIP_ASSIGNMENT_VERSION {
            response.skip_assignment = is_leader;
        } else {
            // An older leader can't be told to skip the assignment: it is made to believe that it follows.
            response.leader = leader;
            response.members = Vec::new();
        }
        self.write(
            self.to_record(None),
            AfterWrite::StaticMember(Box::new(StaticReplacement {
                group: self.id.clone(),
                token,
                instance: instance.clone(),
                old_member: old.clone(),
                new_member: new.clone(),
                old_protocols: before.protocols,
                old_session_timeout_ms: before.session_timeout_ms,
                old_rebalance_timeout_ms: before.rebalance_timeout_ms,
                response,
            })),
            shared,
        );
    }

    /// Undoes [`Self::replace_static`] after its record could not be written.
    pub(crate) fn restore_static(&mut self, replacement: &StaticReplacement, shared: &mut Shared, now: Now) {
        if self.static_members.get(&replacement.instance) != Some(&replacement.new_member) {
            return;
        }
        let (joining, syncing) =
            self.replace_static_member(&replacement.instance, &replacement.new_member, &replacement.old_member);
        if let Some(token) = joining {
            shared.reply_waiting(token, join_error(ErrorCode::UnknownMemberId, StrBytes::default()));
        }
        if let Some(token) = syncing {
            let error_code = ErrorCode::UnknownMemberId.code();
            shared.reply_waiting(token, SyncGroupResponse { error_code, ..Default::default() });
        }
        if let Some(member) = self.members.get_mut(&replacement.old_member) {
            member.protocols = replacement.old_protocols.clone();
            member.session_timeout_ms = replacement.old_session_timeout_ms;
            member.rebalance_timeout_ms = replacement.old_rebalance_timeout_ms;
        }
        self.restart_session(&replacement.old_member, None, shared, now);
    }

    /// SyncGroup.
    pub(crate) fn sync(&mut self, token: Token, request: SyncGroupRequest, shared: &mut Shared) {
        if let Err(error) = self.validate_sync(&request) {
            shared.reply(token, SyncGroupResponse { error_code: error.code(), ..Default::default() });
            return;
        }
        let id = request.member_id;
        self.pending_sync.remove(&id);
        let leads = self.is_leader(&id);
        let Some(member) = self.members.get_mut(&id) else { return };
        if self.state == State::Stable {
            if let Some(member) = self.members.get(&id) {
                shared.reply(token, self.sync_response(member));
            }
            return;
        }
        shared.wait(token);
        if let Some(earlier) = member.awaiting_sync.replace(token) {
            let error_code = ErrorCode::RebalanceInProgress.code();
            shared.reply_waiting(earlier, SyncGroupResponse { error_code, ..Default::default() });
        }
        if leads && !self.assignment_pending {
            let assignments: BTreeMap<StrBytes, Bytes> = request
                .assignments
                .into_iter()
                .filter(|assignment| self.members.contains_key(&assignment.member_id))
                .map(|assignment| (own(&assignment.member_id), Bytes::copy_from_slice(&assignment.assignment)))
                .collect();
            self.assignment_pending = true;
            let record = self.to_record(Some(&assignments));
            let (group, generation) = (self.id.clone(), self.generation);
            self.write(record, AfterWrite::Assignment { group, generation, assignments }, shared);
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |asked: &Option<StrBytes>, own: &Option<StrBytes>| asked.is_some() && asked != own;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(&mut self, request: &HeartbeatRequest, shared: &mut Shared, now: Now) -> HeartbeatResponse {
        let error = match self.validate_member(&request.member_id, request.group_instance_id.as_ref()) {
            Err(error) => error,
            Ok(()) if request.generation_id != self.generation => ErrorCode::IllegalGeneration,
            Ok(()) => {
                self.restart_session(&request.member_id, None, shared, now);
                match self.state {
                    State::Empty => ErrorCode::UnknownMemberId,
                    State::PreparingRebalance => ErrorCode::RebalanceInProgress,
                    State::CompletingRebalance | State::Stable => ErrorCode::None,
                }
            }
        };
        HeartbeatResponse { error_code: error.code(), ..Default::default() }
    }

    /// LeaveGroup.
    pub(crate) fn leave(
        &mut self,
        request: &LeaveGroupRequest,
        version: i16,
        shared: &mut Shared,
        now: Now,
    ) -> LeaveGroupResponse {
        let mut has_left = false;
        let mut members = Vec::new();
        for identity in leaving_members(request, version) {
            let result = self.leave_one(&identity, shared);
            has_left |= result.is_ok();
            members.push(MemberResponse {
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
            });
        }
        // As in Kafka also if it was only an id that had been given out.
        if has_left {
            self.after_removal(shared, now);
        }
        leave_response(members, version)
    }

    fn leave_one(&mut self, identity: &MemberIdentity, shared: &mut Shared) -> Result<(), ErrorCode> {
        let instance = identity.group_instance_id.as_ref();
        let id = if identity.member_id.is_empty() {
            // An administrator removes whoever has the instance id now.
            let current = instance.and_then(|instance| self.static_members.get(instance));
            current.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else if self.pending_members.remove(&identity.member_id).is_some() {
            return Ok(());
        } else {
            self.validate_member(&identity.member_id, instance)?;
            identity.member_id.clone()
        };
        self.expel(&id, shared);
        Ok(())
    }

    /// Keeps the session of a member that commits offsets, as a heartbeat does.
    pub(crate) fn touch(&mut self, id: &StrBytes, shared: &mut Shared, now: Now) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.restart_session(id, None, shared, now);
        }
    }

    /// Whether offsets may be committed with these credentials.
    pub(crate) fn validate_commit(
        &self,
        member: &str,
        instance: Option<&StrBytes>,
        generation: i32,
        transactional: bool,
    ) -> Result<(), ErrorCode> {
        // Without a generation: an administrator, or a consumer that picks its partitions itself.
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member.is_empty() || instance.is_some() {
            self.validate_member(member, instance)?;
            if generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !transactional && self.state != State::Empty {
            // Transactional commits of old producers don't name a member.
            return Err(ErrorCode::UnknownMemberId);
        }
        if !transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// The deadline of a member's session or of a reserved id.
    pub(crate) fn session_of(&mut self, id: &StrBytes) -> Option<&mut Deadline> {
        self.members.get_mut(id).map(|member| &mut member.session)
    }
}

/// The members that a LeaveGroup names: before version 3 it names one outside of the list.
pub(crate) fn leaving_members(request: &LeaveGroupRequest, version: i16) -> Vec<MemberIdentity> {
    if version >= 3 {
        request.members.clone()
    } else {
        vec![MemberIdentity { member_id: request.member_id.clone(), ..Default::default() }]
    }
}

/// Before version 3 the one member's error is the answer's.
pub(crate) fn leave_response(members: Vec<MemberResponse>, version: i16) -> LeaveGroupResponse {
    if version >= 3 {
        LeaveGroupResponse { members, ..Default::default() }
    } else {
        let error_code = members.first().map_or(0, |member| member.error_code);
        LeaveGroupResponse { error_code, ..Default::default() }
    }
}

/// A copy that doesn't keep the request's buffer alive.
pub(crate) fn own(text: &StrBytes) -> StrBytes {
    StrBytes::copy_from(text)
}
