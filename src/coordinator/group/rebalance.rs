//! The rebalance of a classic group: from the first join to the handing out of assignments.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use ringlog_types::{ErrorCode, Now};

use super::api::Token;
use super::classic::{ClassicGroup, InitialDelay, Member, State};
use super::shared::{AfterWrite, Shared, join_error};
use super::timer::{Deadline, TimerKey};

impl ClassicGroup {
    fn join_key(&self) -> TimerKey {
        TimerKey::Join { group: self.id.clone() }
    }

    /// Starts a member's session anew, with `timeout_ms` instead of its own when given.
    pub(crate) fn restart_session(&mut self, id: &StrBytes, timeout_ms: Option<u64>, shared: &mut Shared, now: Now) {
        let group = self.id.clone();
        if let Some(member) = self.members.get_mut(id) {
            let own = u64::try_from(member.session_timeout_ms).unwrap_or(0);
            let at = now.monotonic.plus_ms(timeout_ms.unwrap_or(own));
            shared.set_timer(&mut member.session, TimerKey::Session { group, member: id.clone() }, at);
        }
    }

    /// A change of membership asks for a new generation, or brings the one in the making nearer.
    pub(crate) fn rebalance_or_complete_join(&mut self, shared: &mut Shared, now: Now) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(shared, now),
            State::PreparingRebalance => self.maybe_complete_join(shared, now),
        }
    }

    /// Completes the join phase if nobody is missing. The initial delay is waited for in any case.
    pub(crate) fn maybe_complete_join(&mut self, shared: &mut Shared, now: Now) {
        if self.state == State::PreparingRebalance && self.initial_delay.is_none() && self.has_all_members_joined() {
            self.complete_join(shared, now);
        }
    }

    /// Asks all members to join again.
    pub(crate) fn prepare_rebalance(&mut self, shared: &mut Shared, now: Now) {
        if self.state == State::CompletingRebalance {
            self.fail_assignment(ErrorCode::RebalanceInProgress, shared, now);
        }
        self.sync_deadline.clear();
        let was_empty = self.state == State::Empty;
        self.transition_to(State::PreparingRebalance, now.wall);
        if was_empty {
            let delay_ms = u64::from(shared.config.initial_rebalance_delay_ms);
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.new_member_added = false;
            self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
            let key = self.join_key();
            shared.set_timer(&mut self.join_deadline, key, now.monotonic.plus_ms(delay_ms));
        } else if self.has_all_members_joined() {
            self.complete_join(shared, now);
        } else {
            self.schedule_join_end(shared, now);
        }
    }

    fn schedule_join_end(&mut self, shared: &mut Shared, now: Now) {
        let at = now.monotonic.plus_ms(self.rebalance_timeout_ms());
        let key = self.join_key();
        shared.set_timer(&mut self.join_deadline, key, at);
    }

    /// The join deadline has passed.
    pub(crate) fn on_join_deadline(&mut self, shared: &mut Shared, now: Now) {
        if self.state != State::PreparingRebalance {
            return;
        }
        if let Some(InitialDelay { delay_ms, remaining_ms }) = self.initial_delay
            && self.new_member_added
            && remaining_ms > 0
        {
            self.new_member_added = false;
            let next_ms = u64::from(shared.config.initial_rebalance_delay_ms).min(remaining_ms);
            let left_ms = remaining_ms.saturating_sub(delay_ms);
            self.initial_delay = Some(InitialDelay { delay_ms: next_ms, remaining_ms: left_ms });
            let key = self.join_key();
            shared.set_timer(&mut self.join_deadline, key, now.monotonic.plus_ms(next_ms));
            return;
        }
        self.complete_join(shared, now);
    }

    /// Ends the join phase: whoever has not joined is out, the others get their generation.
    fn complete_join(&mut self, shared: &mut Shared, now: Now) {
        self.join_deadline.clear();
        self.initial_delay = None;
        self.new_member_added = false;
        // Static members keep their place until their session ends (KIP-345).
        let missing: Vec<StrBytes> = self
            .members
            .iter()
            .filter(|(_, member)| member.awaiting_join.is_none() && member.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.remove_member(&id);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            self.schedule_join_end(shared, now);
            return;
        }
        self.next_generation(now.wall);
        if self.state == State::Empty {
            self.write(self.to_record(None), AfterWrite::Nothing, shared);
            return;
        }
        let members: Vec<StrBytes> = self.members.keys().cloned().collect();
        for id in members {
            let response = self.join_response(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
                if let Some(token) = member.awaiting_join.take() {
                    shared.reply_waiting(token, response);
                }
            }
            self.restart_session(&id, None, shared, now);
            self.pending_sync.insert(id);
        }
        let at = now.monotonic.plus_ms(self.rebalance_timeout_ms());
        let key = TimerKey::Sync { group: self.id.clone() };
        shared.set_timer(&mut self.sync_deadline, key, at);
    }

    /// The answer to a JoinGroup in the present generation.
    pub(crate) fn join_response(&self, member: &StrBytes) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member.clone(),
            members: if self.is_leader(member) { self.members_for_leader() } else { Vec::new() },
            ..Default::default()
        }
    }

    /// The sync deadline has passed: members that did not ask for their assignment are out.
    pub(crate) fn on_sync_deadline(&mut self, shared: &mut Shared, now: Now) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            // An assignment that is being written has until the write's own end.
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(&id);
        }
        self.prepare_rebalance(shared, now);
    }

    /// Nobody gets an assignment in this generation.
    pub(crate) fn fail_assignment(&mut self, error: ErrorCode, shared: &mut Shared, now: Now) {
        self.assignment_pending = false;
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        self.answer_syncs(|_, _| SyncGroupResponse { error_code: error.code(), ..Default::default() }, shared, now);
    }

    /// The leader's assignment is written: everybody who waits gets a share.
    pub(crate) fn propagate_assignment(
        &mut self,
        assignments: &BTreeMap<StrBytes, Bytes>,
        shared: &mut Shared,
        now: Now,
    ) {
        for (id, member) in &mut self.members {
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
        }
        self.assignment_pending = false;
        self.transition_to(State::Stable, now.wall);
        self.answer_syncs(ClassicGroup::sync_response, shared, now);
    }

    pub(crate) fn sync_response(&self, member: &Member) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..Default::default()
        }
    }

    fn answer_syncs(
        &mut self,
        response: impl Fn(&ClassicGroup, &Member) -> SyncGroupResponse,
        shared: &mut Shared,
        now: Now,
    ) {
        let waiting: Vec<(StrBytes, Token)> = self
            .members
            .iter_mut()
            .filter_map(|(id, member)| Some((id.clone(), member.awaiting_sync.take()?)))
            .collect();
        for (id, token) in waiting {
            if let Some(member) = self.members.get(&id) {
                shared.reply_waiting(token, response(self, member));
            }
            // A session that ran out during the wait was let pass, so it has to start again.
            self.restart_session(&id, None, shared, now);
        }
    }

    /// A member's session is over.
    pub(crate) fn on_session_end(&mut self, id: &StrBytes, shared: &mut Shared, now: Now) {
        let Some(member) = self.members.get(id) else { return };
        let waits = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
        // A member that waits for the group can't send heartbeats. Its first join however has a limit.
        if waits && !member.is_new {
            return;
        }
        self.expel(id, shared);
        self.after_removal(shared, now);
    }

    /// Removes a member and answers what it waits for.
    pub(crate) fn expel(&mut self, id: &str, shared: &mut Shared) {
        let Some(member) = self.remove_member(id) else { return };
        if let Some(token) = member.awaiting_join {
            shared.reply_waiting(token, join_error(ErrorCode::UnknownMemberId, StrBytes::default()));
        }
        if let Some(token) = member.awaiting_sync {
            let error_code = ErrorCode::UnknownMemberId.code();
            shared.reply_waiting(token, SyncGroupResponse { error_code, ..Default::default() });
        }
    }

    /// What a lost member means for the others.
    pub(crate) fn after_removal(&mut self, shared: &mut Shared, now: Now) {
        match self.state {
            State::Empty => {}
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(shared, now),
            State::PreparingRebalance => self.maybe_complete_join(shared, now),
        }
    }

    /// A member id that was handed out has not been used in time.
    pub(crate) fn on_pending_member_end(&mut self, id: &str, shared: &mut Shared, now: Now) {
        if self.pending_members.remove(id).is_some() {
            self.maybe_complete_join(shared, now);
        }
    }

    /// Starts the sessions of a group that was read from the log.
    pub(crate) fn start_sessions(&mut self, shared: &mut Shared, now: Now) {
        let members: Vec<StrBytes> = self.members.keys().cloned().collect();
        let too_many = members.len() > shared.config.max_group_size;
        for id in members {
            self.restart_session(&id, None, shared, now);
        }
        if too_many {
            self.prepare_rebalance(shared, now);
        }
    }

    /// Leadership is lost.
    pub(crate) fn abandon_waiting(&mut self, shared: &mut Shared) {
        for (id, member) in &mut self.members {
            if let Some(token) = member.awaiting_join.take() {
                shared.reply_waiting(token, join_error(ErrorCode::NotCoordinator, id.clone()));
            }
            if let Some(token) = member.awaiting_sync.take() {
                let error_code = ErrorCode::NotCoordinator.code();
                shared.reply_waiting(token, SyncGroupResponse { error_code, ..Default::default() });
            }
        }
    }

    /// Reserves a member id until the session time is over.
    pub(crate) fn add_pending_member(&mut self, id: StrBytes, session_timeout_ms: u64, shared: &mut Shared, now: Now) {
        let mut deadline = Deadline::default();
        let key = TimerKey::PendingMember { group: self.id.clone(), member: id.clone() };
        shared.set_timer(&mut deadline, key, now.monotonic.plus_ms(session_timeout_ms));
        self.pending_members.insert(id, deadline);
    }
}
