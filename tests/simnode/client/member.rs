//! A member of a classic group: joins, shares partitions out if it leads, heartbeats, commits, leaves or is gone without a
//! word, and comes back. Those of some groups have a `group.instance.id` of their own: they take their place again when
//! they are back before long, and what they were before may do nothing any more.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringlog_protocol::messages::join_group_response::JoinGroupResponseMember;
use ringlog_protocol::messages::leave_group_request::MemberIdentity;
use ringlog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ringlog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ringlog_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::Uuid;

use super::Shared;
use super::committer;
use super::connection::{CallFault, Connection};
use super::routes::route;
use crate::check::groups::{Place, Settled};
use crate::workload::GroupPlan;

const CALL_LIMIT_MS: u64 = 45_000;
const PROTOCOL: &str = "spread";
const KIND: &str = "consumer";

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE: i16 = 82;
/// What a member may be told at any time: the coordinator isn't there, still loads, or is elsewhere; or others came or
/// went.
const RETRIABLE: [i16; 6] = [14, 15, 16, ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE];
/// What a commit may be told, too: the broker doesn't know the topic yet, or writing took too long.
const COMMIT_RETRIABLE: [i16; 9] = [3, 7, 14, 15, 16, ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE, 100];
/// What somebody is told whose instance id another has by now: that, or that the coordinator can't tell, or has seen all
/// members of that name go.
const FENCED: [i16; 5] = [14, 15, 16, UNKNOWN_MEMBER, FENCED_INSTANCE];
/// The longest that a member stays away.
const AWAY_MS: u64 = 4_000;
/// How many commits a member asks for between two beats at most.
const COMMITS: u64 = 3;

/// The name of a group.
pub fn group_name(group: usize) -> String {
    format!("members-{group}")
}

/// What a member does next.
enum Next {
    /// It joins again.
    Join,
    /// It joins again, as somebody new.
    Anew,
    /// It looks for its coordinator.
    Find,
    /// It is gone for a while.
    Away,
    /// It begins anew at once, under the instance id that it has; this was its generation.
    Restart(i32),
}

/// What a member with an instance id was before it began anew.
struct Before {
    id: String,
    generation: i32,
}

struct Member {
    shared: Rc<Shared>,
    plan: GroupPlan,
    group: usize,
    number: usize,
    id: String,
    /// A generation was settled with it under this id: that is written down.
    is_written_down: bool,
    instance: Option<StrBytes>,
    before: Option<Before>,
}

/// Runs a member to the end of the run.
pub async fn run(shared: Rc<Shared>, group: usize, number: usize) {
    let plan = shared.plan.workload.groups[group].clone();
    let instance = plan.is_static.then(|| StrBytes::copy_from(&format!("place-{group}-{number}")));
    let mut member = Member {
        shared: shared.clone(),
        plan,
        group,
        number,
        id: String::new(),
        is_written_down: false,
        instance,
        before: None,
    };
    while !shared.is_over.get() {
        let key = (group_name(group), member.plan.topics[0], 0);
        let next = match committer::coordinator(&shared, &key).await {
            Ok(Some((mut connection, _))) => member.serve(&mut connection).await,
            Ok(None) => Ok(Next::Find),
            Err(fault) => Err(fault),
        };
        shared.groups.borrow_mut().settle(group, number, None);
        match next {
            Ok(Next::Away) => {
                member.id = String::new();
                sleep_ms(sim::draw(AWAY_MS)).await;
            }
            Ok(Next::Restart(generation)) => {
                member.before = Some(Before { id: std::mem::take(&mut member.id), generation });
                sleep_ms(sim::draw(member.plan.session_timeout_ms as u64 / 4)).await;
                continue;
            }
            Ok(_) => {}
            Err(fault) => shared.judge(&member.who(), &fault),
        }
        member.before = None;
        shared.groups.borrow_mut().on_restless(group, number);
        sleep_ms(20 + sim::draw(80)).await;
    }
}

impl Member {
    fn who(&self) -> String {
        format!("member {} of group {}", self.number, self.group)
    }

    fn complain(&self, fault: &str) {
        self.shared.complain(format!("{}: {fault}", self.who()));
    }

    /// A member at one coordinator.
    async fn serve(&mut self, connection: &mut Connection) -> Result<Next, CallFault> {
        let mut next = Next::Join;
        // Who joins again because others have come or gone doesn't have partitions shared out once more.
        let mut is_prompted = self.before.is_some();
        while matches!(next, Next::Join | Next::Anew) && !self.shared.is_over.get() {
            if matches!(next, Next::Anew) {
                self.id.clear();
                is_prompted = false;
            }
            if !std::mem::replace(&mut is_prompted, true) {
                self.shared.groups.borrow_mut().on_restless(self.group, self.number);
            }
            self.shared.groups.borrow_mut().settle(self.group, self.number, None);
            next = self.take_part(connection).await?;
        }
        Ok(next)
    }

    /// Joins and works until something is in the way.
    async fn take_part(&mut self, connection: &mut Connection) -> Result<Next, CallFault> {
        let joined = self.join(connection).await?;
        match joined.error_code {
            0 => {}
            MEMBER_ID_REQUIRED if self.id.is_empty() && self.instance.is_none() => {
                self.id = joined.member_id.as_str().to_owned();
                return Ok(Next::Join);
            }
            code => {
                self.before = None;
                return Ok(self.on_error(code, &RETRIABLE));
            }
        }
        let generation = joined.generation_id;
        self.is_written_down &= self.id == joined.member_id.as_str();
        self.id = joined.member_id.as_str().to_owned();
        self.come_back(connection, generation).await?;
        let Some(assignments) = self.share_out(&joined) else { return Ok(Next::Find) };
        let asked = connection.asked();
        let request = SyncGroupRequest {
            group_id: self.group_id(),
            generation_id: generation,
            member_id: StrBytes::copy_from(&self.id),
            protocol_type: Some(StrBytes::copy_from(KIND)),
            protocol_name: Some(StrBytes::copy_from(PROTOCOL)),
            group_instance_id: self.instance.clone(),
            assignments,
        };
        let synced = connection.call(&request, self.rebalance_limit_ms()).await?;
        if synced.error_code != 0 {
            return Ok(self.on_error(synced.error_code, &RETRIABLE));
        }
        self.is_written_down = true;
        let told = (asked, sim::control().now_ns());
        let found = {
            let mut groups = self.shared.groups.borrow_mut();
            groups.on_synced(self.group, (self.name(), generation), &synced.assignment, told)
        };
        match found {
            Ok((places, members)) => self.work(connection, generation, &places, members).await,
            Err(fault) => {
                self.complain(&fault);
                Ok(Next::Find)
            }
        }
    }

    /// What the group knows it by for good.
    fn name(&self) -> &str {
        self.instance.as_deref().unwrap_or(&self.id)
    }

    /// It has joined. If it had just begun anew, it is where it was, and what it was before may do nothing more.
    async fn come_back(&mut self, connection: &mut Connection, generation: i32) -> Result<(), CallFault> {
        let before = self.before.take();
        let session_ns = self.plan.session_timeout_ms as u64 * sim::MS;
        let now_ns = sim::control().now_ns();
        {
            let mut groups = self.shared.groups.borrow_mut();
            let was = before.as_ref().map(|before| before.generation);
            let is_calm = self.shared.is_calm();
            let all = (self.plan.members, session_ns);
            let checked = groups.on_joined(self.group, self.number, (was.filter(|_| is_calm), generation), all, now_ns);
            drop(groups);
            checked.unwrap_or_else(|fault| self.complain(&fault));
        }
        let Some(before) = before.filter(|before| before.id != self.id) else { return Ok(()) };
        let request = HeartbeatRequest {
            group_id: self.group_id(),
            generation_id: before.generation,
            member_id: StrBytes::copy_from(&before.id),
            group_instance_id: self.instance.clone(),
        };
        let code = connection.call(&request, CALL_LIMIT_MS).await?.error_code;
        if !self.shared.groups.borrow().has_lost_since(now_ns) {
            // Nobody goes, and no coordinator, as long as nothing is wrong.
            let allowed = if self.shared.is_calm() { &FENCED[4..] } else { &FENCED[..] };
            self.shared.judge_code(&format!("what {} was before", self.who()), code, allowed);
        }
        Ok(())
    }

    fn group_id(&self) -> StrBytes {
        StrBytes::copy_from(&group_name(self.group))
    }

    async fn join(&self, connection: &mut Connection) -> Result<JoinGroupResponse, CallFault> {
        // What it says is its own, and sometimes new: then the group's partitions are shared out again.
        let metadata = format!("{}/{}/{}", self.group, self.number, sim::draw(2)).into_bytes();
        if !self.name().is_empty() {
            self.shared.groups.borrow_mut().on_join(self.group, self.name(), &metadata);
        }
        let protocol = JoinGroupRequestProtocol { name: StrBytes::copy_from(PROTOCOL), metadata: metadata.into() };
        let request = JoinGroupRequest {
            group_id: self.group_id(),
            session_timeout_ms: self.plan.session_timeout_ms,
            rebalance_timeout_ms: self.plan.rebalance_timeout_ms,
            member_id: StrBytes::copy_from(&self.id),
            group_instance_id: self.instance.clone(),
            protocol_type: StrBytes::copy_from(KIND),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        connection.call(&request, self.rebalance_limit_ms()).await
    }

    /// How long it waits where others are waited for.
    fn rebalance_limit_ms(&self) -> u64 {
        let waits_ms = self.plan.rebalance_timeout_ms + self.plan.session_timeout_ms;
        self.shared.plan.answer_limit_ms + waits_ms as u64
    }

    /// What the leader says of all; nothing where others lead.
    fn share_out(&self, joined: &JoinGroupResponse) -> Option<Vec<SyncGroupRequestAssignment>> {
        if joined.leader != joined.member_id {
            if !joined.members.is_empty() {
                self.complain("it doesn't lead, and is told of members");
            }
            return Some(Vec::new());
        }
        if joined.skip_assignment {
            return Some(Vec::new());
        }
        let name =
            |it: &JoinGroupResponseMember| it.group_instance_id.as_ref().unwrap_or(&it.member_id).as_str().to_owned();
        let members: Vec<_> = joined.members.iter().map(|it| (name(it), it.metadata.to_vec())).collect();
        let ids: BTreeMap<_, _> = joined.members.iter().map(|it| (name(it), it.member_id.clone())).collect();
        let topics = self.plan.topics.iter();
        let places = topics
            .flat_map(|topic| (0..self.shared.plan.topics[*topic].partitions).map(|partition| (*topic, partition)));
        let places: Vec<Place> = places.collect();
        let mut groups = self.shared.groups.borrow_mut();
        let told = groups.share_out(self.group, joined.generation_id, self.name(), &members, &places);
        drop(groups);
        let told = told.map_err(|fault| self.complain(&fault)).ok()?;
        let told = told.into_iter().map(|(member, text)| SyncGroupRequestAssignment {
            member_id: ids[&member].clone(),
            assignment: text.into_bytes().into(),
        });
        Some(told.collect())
    }

    /// Beats and commits until the group changes, or the member doesn't want to any more.
    async fn work(
        &self,
        connection: &mut Connection,
        generation: i32,
        places: &[Place],
        members: usize,
    ) -> Result<Next, CallFault> {
        let mut topic_ids = Vec::new();
        for topic in &self.plan.topics {
            let topic = &self.shared.plan.topics[*topic];
            let Some(route) = route(&self.shared, &topic.name, topic.partitions).await else { return Ok(Next::Find) };
            topic_ids.push(route.topic_id);
        }
        let topic_id = |place: &Place| topic_ids[self.plan.topics.iter().position(|it| *it == place.0).unwrap_or(0)];
        for place in places {
            self.look(connection, topic_id(place), *place).await?;
        }
        let beat_ms = self.plan.session_timeout_ms as u64 / 4;
        while !self.shared.is_over.get() {
            if let Some(next) = self.beat(connection, generation, members).await? {
                return Ok(next);
            }
            for _ in 0..sim::draw(COMMITS + 1) {
                if places.is_empty() {
                    break;
                }
                let place = places[sim::draw(places.len() as u64) as usize];
                if let Some(next) = self.commit(connection, generation, topic_id(&place), place).await? {
                    return Ok(next);
                }
                sleep_ms(sim::draw(30)).await;
            }
            if self.shared.healed_at_ns.get().is_none() && sim::draw(100) < self.plan.leaves_percent {
                return self.go(connection, generation).await;
            }
            sleep_ms(sim::draw(beat_ms)).await;
        }
        Ok(Next::Find)
    }

    /// What its predecessor committed.
    async fn look(&self, connection: &mut Connection, topic_id: Uuid, place: Place) -> Result<(), CallFault> {
        let asked = connection.asked();
        match committer::fetch(connection, topic_id, &(group_name(self.group), place.0, place.1)).await? {
            Ok(found) => {
                let checked = self.shared.groups.borrow_mut().check(self.group, place, found, asked.sent_at_ns);
                checked.unwrap_or_else(|fault| self.complain(&fault));
            }
            Err(code) => self.shared.judge_code(&self.who(), code, &COMMIT_RETRIABLE),
        }
        Ok(())
    }

    async fn beat(
        &self,
        connection: &mut Connection,
        generation: i32,
        members: usize,
    ) -> Result<Option<Next>, CallFault> {
        let asked = connection.asked();
        let request = HeartbeatRequest {
            group_id: self.group_id(),
            generation_id: generation,
            member_id: StrBytes::copy_from(&self.id),
            group_instance_id: self.instance.clone(),
        };
        let code = connection.call(&request, self.shared.plan.answer_limit_ms).await?.error_code;
        if code != 0 {
            return Ok(Some(self.on_error(code, &RETRIABLE)));
        }
        let mut groups = self.shared.groups.borrow_mut();
        let checked = groups.on_success((self.group, &self.id), generation, asked);
        groups.on_beat(self.group, self.number, asked.sent_at_ns);
        groups.settle(self.group, self.number, Some(Settled { generation, members, at_ns: asked.sent_at_ns }));
        checked.unwrap_or_else(|fault| self.complain(&fault));
        Ok(None)
    }

    async fn commit(
        &self,
        connection: &mut Connection,
        generation: i32,
        topic_id: Uuid,
        place: Place,
    ) -> Result<Option<Next>, CallFault> {
        let offset = self.shared.groups.borrow_mut().on_commit(self.group, generation, place);
        let part = OffsetCommitRequestPartition {
            partition_index: place.1,
            committed_offset: offset,
            committed_leader_epoch: -1,
            ..OffsetCommitRequestPartition::default()
        };
        let topic =
            OffsetCommitRequestTopic { topic_id, partitions: vec![part], ..OffsetCommitRequestTopic::default() };
        let request = OffsetCommitRequest {
            group_id: self.group_id(),
            generation_id_or_member_epoch: generation,
            member_id: StrBytes::copy_from(&self.id),
            group_instance_id: self.instance.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let asked = connection.asked();
        let answer = connection.call(&request, CALL_LIMIT_MS).await?;
        let code = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).next();
        let code = code.ok_or_else(|| CallFault::Nonsense("a commit's answer without the partition".to_owned()))?;
        let is_refused = [ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE].contains(&code);
        if code == 0 || is_refused {
            let told = (asked, sim::control().now_ns());
            self.shared.groups.borrow_mut().on_committed(self.group, place, offset, is_refused, told);
        }
        if code != 0 {
            return Ok(Some(self.on_error(code, &COMMIT_RETRIABLE)));
        }
        let checked = self.shared.groups.borrow().on_success((self.group, &self.id), generation, asked);
        checked.unwrap_or_else(|fault| self.complain(&format!("commits {place:?}: {fault}")));
        Ok(None)
    }

    /// It leaves, or says nothing.
    async fn go(&self, connection: &mut Connection, generation: i32) -> Result<Next, CallFault> {
        if self.instance.is_some() && sim::draw(4) > 0 {
            return Ok(Next::Restart(generation));
        }
        if sim::draw(2) == 0 {
            return Ok(Next::Away);
        }
        self.shared.groups.borrow_mut().on_restless(self.group, self.number);
        let member = MemberIdentity {
            member_id: StrBytes::copy_from(&self.id),
            group_instance_id: self.instance.clone(),
            ..MemberIdentity::default()
        };
        let request =
            LeaveGroupRequest { group_id: self.group_id(), members: vec![member], ..LeaveGroupRequest::default() };
        let code = connection.call(&request, CALL_LIMIT_MS).await?.error_code;
        if code != 0 {
            self.shared.judge_code(&self.who(), code, &RETRIABLE);
        }
        Ok(Next::Away)
    }

    fn on_error(&self, code: i16, allowed: &[i16]) -> Next {
        // After a power failure the coordinator may know it by an id that it had before; after any end of the coordinator,
        // if it has the new one of a generation that was never settled.
        let has_lost = || self.shared.groups.borrow().has_lost_since(1);
        let may_be_fenced = self.instance.is_some() && (!self.is_written_down || has_lost());
        if !(code == FENCED_INSTANCE && may_be_fenced) {
            self.shared.judge_code(&self.who(), code, allowed);
        }
        if code == ILLEGAL_GENERATION {
            // A generation has gone by without it: when it joins again, partitions may be shared out once more.
            self.shared.groups.borrow_mut().on_restless(self.group, self.number);
        }
        match code {
            UNKNOWN_MEMBER | FENCED_INSTANCE => Next::Anew,
            ILLEGAL_GENERATION | REBALANCE => Next::Join,
            _ => Next::Find,
        }
    }
}
