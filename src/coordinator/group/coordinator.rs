//! The coordinator of one partition of `__consumer_offsets`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringlog_protocol::{RequestBody, StrBytes};
use ringlog_types::{ErrorCode, MonotonicMs, Now, ProducerId, Uuid};
use rustc_hash::FxHashMap;

use super::api::{Effects, RequestContext, Token, TopicView, TransactionalProducer, WriteToken};
use super::classic::{ClassicGroup, State};
use super::config::GroupConfig;
use super::fanout::{error_response, with_error};
use super::offsets::CommittedOffset;
use super::records::{GroupRecord, OtherRecord, ReplayError};
use super::shared::{AfterWrite, PendingWrite, Shared, join_error, write_error};
use super::state::{Group, Membership, OtherGroup};
use super::timer::TimerKey;

/// The groups of one partition of `__consumer_offsets`. See the [module](super) for the order of calls.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(crate) groups: FxHashMap<StrBytes, Group>,
    /// Which groups an open transaction has offsets in.
    transactions: BTreeMap<ProducerId, BTreeSet<StrBytes>>,
    pub(crate) shared: Shared,
    /// Counts applied offset records, so that transactional ones know their place.
    applied: u64,
}

impl GroupCoordinator {
    /// An empty coordinator. `seed` makes the member ids: let it be different on every load.
    pub fn new(config: GroupConfig, seed: u64) -> GroupCoordinator {
        GroupCoordinator {
            groups: FxHashMap::default(),
            transactions: BTreeMap::new(),
            shared: Shared::new(config, seed),
            applied: 0,
        }
    }

    /// Takes one data record of the log while loading; `producer` is that of a transactional batch. `Ok(Some(note))`
    /// when the record was skipped, which is worth a line in the log.
    pub fn replay_record(
        &mut self,
        key: Option<Bytes>,
        value: Option<Bytes>,
        producer: Option<TransactionalProducer>,
    ) -> Result<Option<String>, ReplayError> {
        // Slices of the log's buffers would keep all of them alive.
        let key = Bytes::copy_from_slice(&key.ok_or(ReplayError::NoKey)?);
        let value = value.map(|value| Bytes::copy_from_slice(&value));
        match GroupRecord::decode(key, value)? {
            Ok(GroupRecord::Group(key, Some(value))) => {
                let group = ClassicGroup::from_record(key.group.clone(), value);
                let entry = self.groups.entry(key.group.clone()).or_insert_with(|| Group::classic(key.group));
                entry.membership = Membership::Classic(Box::new(group));
                Ok(None)
            }
            Ok(GroupRecord::Group(key, None)) => {
                if matches!(self.groups.get(&key.group), Some(Group { membership: Membership::Classic(_), .. })) {
                    self.turn_classic(&key.group);
                }
                Ok(None)
            }
            Ok(record) => {
                self.apply(record, producer, None);
                Ok(None)
            }
            Err(note) => Ok(Some(note)),
        }
    }

    /// Takes a transaction marker, while loading and after it: the producer's offsets become final or vanish.
    pub fn replay_end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        for id in self.transactions.remove(&producer_id).unwrap_or_default() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.offsets.end_transaction(producer_id, committed);
            }
            self.drop_if_gone(&id);
        }
    }

    /// Starts the sessions of the loaded groups' members.
    pub fn finish_loading(&mut self, now: Now) -> Effects {
        for group in self.groups.values_mut() {
            if let Membership::Classic(classic) = &mut group.membership {
                classic.start_sessions(&mut self.shared, now);
            }
        }
        self.schedule_expiry(now);
        self.shared.take_effects()
    }

    /// Decides a request. One that isn't of group coordination is the driver's mistake.
    pub fn handle(
        &mut self,
        request: RequestBody,
        context: &RequestContext,
        now: Now,
        topics: &dyn TopicView,
    ) -> Effects {
        if self.shared.is_full() && may_write(&request) {
            let error = ErrorCode::CoordinatorLoadInProgress;
            self.shared.reply(context.token, error_response(&request, context.api_version, error));
            return self.shared.take_effects();
        }
        match request {
            RequestBody::JoinGroup(request) => self.join_group(request, context, now),
            RequestBody::SyncGroup(request) => self.sync_group(request, context),
            RequestBody::Heartbeat(request) => self.heartbeat(&request, context, now),
            RequestBody::LeaveGroup(request) => self.leave_group(&request, context, now),
            RequestBody::OffsetCommit(request) => self.offset_commit(request, context, now, topics),
            RequestBody::TxnOffsetCommit(request) => self.txn_offset_commit(request, context, now, topics),
            RequestBody::OffsetFetch(request) => self.offset_fetch(&request, context, topics),
            RequestBody::OffsetDelete(request) => self.offset_delete(&request, context, topics),
            RequestBody::ListGroups(request) => self.list_groups(&request, context),
            RequestBody::DescribeGroups(request) => self.describe_groups(&request, context),
            RequestBody::DeleteGroups(request) => self.delete_groups(&request, context),
            other => panic!("{} is not a request of group coordination", other.api_key().name()),
        }
        self.shared.take_effects()
    }

    /// The write is below the high watermark.
    pub fn on_written(&mut self, token: WriteToken, now: Now) -> Effects {
        let Some(write) = self.shared.pending.remove(&token) else { return self.shared.take_effects() };
        self.forget_pending_commit(&write);
        for record in write.records {
            self.apply(record, write.producer, Some(token));
        }
        match write.after {
            AfterWrite::Nothing | AfterWrite::NewGroup { .. } => {}
            AfterWrite::Reply(token, body) => self.shared.reply_waiting(token, body),
            AfterWrite::StaticMember(replacement) => {
                self.shared.reply_waiting(replacement.token, replacement.response);
            }
            AfterWrite::Assignment { group, generation, assignments } => {
                if let Some(group) = completing(&mut self.groups, &group, generation) {
                    group.propagate_assignment(&assignments, &mut self.shared, now);
                }
            }
        }
        self.shared.take_effects()
    }

    /// The write was not appended. Its callers get the error as group coordination shows it.
    pub fn on_write_failed(&mut self, token: WriteToken, error: ErrorCode, now: Now) -> Effects {
        let Some(write) = self.shared.pending.remove(&token) else { return self.shared.take_effects() };
        self.forget_pending_commit(&write);
        let groups: BTreeSet<StrBytes> = write.records.iter().map(|record| record.group().clone()).collect();
        self.fail(write.after, write_error(error), now);
        for group in groups {
            if let Some(classic) = classic(&mut self.groups, &group) {
                classic.deleting = false;
            }
            self.drop_if_gone(&group);
        }
        self.shared.take_effects()
    }

    /// The write is appended but not below the high watermark in time: the caller gets an error, while the records
    /// stay and count when [`Self::on_written`] comes.
    pub fn on_write_timed_out(&mut self, token: WriteToken, now: Now) -> Effects {
        if let Some(write) = self.shared.pending.get_mut(&token) {
            let after = std::mem::replace(&mut write.after, AfterWrite::Nothing);
            self.fail(after, write_error(ErrorCode::RequestTimedOut), now);
        }
        self.shared.take_effects()
    }

    fn fail(&mut self, after: AfterWrite, error: ErrorCode, now: Now) {
        match after {
            AfterWrite::Nothing => {}
            AfterWrite::Reply(token, body) => self.shared.reply_waiting(token, with_error(body, error)),
            AfterWrite::NewGroup { token, member } => self.shared.reply_waiting(token, join_error(error, member)),
            AfterWrite::StaticMember(replacement) => {
                if let Some(group) = classic(&mut self.groups, &replacement.group) {
                    group.restore_static(&replacement, &mut self.shared, now);
                }
                self.shared.reply_waiting(replacement.token, join_error(error, StrBytes::default()));
            }
            AfterWrite::Assignment { group, generation, .. } => {
                if let Some(group) = completing(&mut self.groups, &group, generation) {
                    group.fail_assignment(error, &mut self.shared, now);
                    group.prepare_rebalance(&mut self.shared, now);
                }
            }
        }
    }

    /// Does what is due.
    pub fn on_tick(&mut self, now: Now) -> Effects {
        while let Some((at, key)) = self.shared.timers.pop(now.monotonic) {
            self.on_timer(at, &key, now);
        }
        self.shared.take_effects()
    }

    fn on_timer(&mut self, at: MonotonicMs, key: &TimerKey, now: Now) {
        let shared = &mut self.shared;
        let is_due = |shared: &mut Shared, deadline: &mut super::timer::Deadline| {
            shared.timers.is_due(deadline, at, key, now.monotonic)
        };
        match key {
            TimerKey::Session { group, member } => {
                let Some(classic) = classic(&mut self.groups, group) else { return };
                if classic.session_of(member).is_some_and(|deadline| is_due(shared, deadline)) {
                    classic.on_session_end(member, shared, now);
                }
            }
            TimerKey::PendingMember { group, member } => {
                let Some(classic) = classic(&mut self.groups, group) else { return };
                if classic.pending_members.get_mut(member).is_some_and(|deadline| is_due(shared, deadline)) {
                    classic.on_pending_member_end(member, shared, now);
                }
            }
            TimerKey::Join { group } => {
                let Some(classic) = classic(&mut self.groups, group) else { return };
                if is_due(shared, &mut classic.join_deadline) {
                    classic.on_join_deadline(shared, now);
                }
            }
            TimerKey::Sync { group } => {
                let Some(classic) = classic(&mut self.groups, group) else { return };
                if is_due(shared, &mut classic.sync_deadline) {
                    classic.on_sync_deadline(shared, now);
                }
            }
            TimerKey::Expiry => {
                let mut deadline = std::mem::take(&mut shared.expiry);
                let due = is_due(shared, &mut deadline);
                shared.expiry = deadline;
                if due {
                    self.expire_offsets(now);
                    self.schedule_expiry(now);
                }
            }
        }
    }

    fn schedule_expiry(&mut self, now: Now) {
        let at = now.monotonic.plus_ms(self.shared.config.offsets_retention_check_interval_ms);
        let mut deadline = std::mem::take(&mut self.shared.expiry);
        self.shared.set_timer(&mut deadline, TimerKey::Expiry, at);
        self.shared.expiry = deadline;
    }

    /// When [`Self::on_tick`] is wanted next; it may find nothing to do.
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.shared.timers.next()
    }

    /// The caller is gone: its answer is dropped. The member it speaks for stays until its session ends.
    pub fn forget(&mut self, token: Token) {
        self.shared.forget(token);
    }

    /// Leadership is lost: everybody who waits gets `NOT_COORDINATOR`.
    pub fn resign(mut self) -> Effects {
        for group in self.groups.values_mut() {
            if let Membership::Classic(group) = &mut group.membership {
                group.abandon_waiting(&mut self.shared);
            }
        }
        let error = ErrorCode::NotCoordinator;
        for (_, write) in std::mem::take(&mut self.shared.pending) {
            match write.after {
                AfterWrite::Nothing | AfterWrite::Assignment { .. } => {}
                AfterWrite::Reply(token, body) => self.shared.reply_waiting(token, with_error(body, error)),
                AfterWrite::NewGroup { token, member } => self.shared.reply_waiting(token, join_error(error, member)),
                AfterWrite::StaticMember(replacement) => {
                    self.shared.reply_waiting(replacement.token, join_error(error, StrBytes::default()));
                }
            }
        }
        let mut effects = self.shared.take_effects();
        effects.writes.clear();
        effects
    }

    /// Topics are deleted: their offsets go. Ids keep a new topic of the same name apart.
    pub fn on_topics_deleted(&mut self, topics: &[(StrBytes, Uuid)], now: Now) -> Effects {
        let _ = now;
        let mut records = Vec::new();
        for (id, group) in &self.groups {
            for (topic, topic_id) in topics {
                for (partition, offset) in group.offsets.partitions(topic) {
                    if offset.is_of_topic(*topic_id) {
                        records.push(GroupRecord::offset_tombstone(id, topic, partition));
                    }
                }
            }
        }
        self.write_in_batches(records);
        self.shared.take_effects()
    }

    /// Writes records that nobody waits for, in batches that fit.
    pub(crate) fn write_in_batches(&mut self, mut records: Vec<GroupRecord>) {
        for record in &records {
            self.note_deletion(record);
        }
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(MAX_RECORDS_PER_WRITE));
            self.shared.write(records, AfterWrite::Nothing);
            records = rest;
        }
    }

    pub(crate) fn note_deletion(&mut self, record: &GroupRecord) {
        if let GroupRecord::Group(key, None) = record
            && let Some(group) = classic(&mut self.groups, &key.group)
        {
            group.deleting = true;
            // Ids that were given out go with it; who gets one from now on is the first of a new group.
            group.pending_members.clear();
        }
    }

    /// The only place where offsets and other protocols' groups change. `written` is the record's write, if it comes
    /// from one.
    fn apply(&mut self, record: GroupRecord, producer: Option<TransactionalProducer>, written: Option<WriteToken>) {
        match record {
            GroupRecord::Offset(key, Some(value)) => {
                self.applied += 1;
                let offset = CommittedOffset::new(value, self.applied);
                let entry = self.groups.entry(key.group.clone());
                let group = entry.or_insert_with(|| Group::classic(key.group.clone()));
                match producer {
                    None => group.offsets.put(key.topic, key.partition, offset),
                    Some(producer) => {
                        let id = producer.producer_id;
                        group.offsets.put_transactional(id, key.topic, key.partition, offset);
                        self.transactions.entry(id).or_default().insert(key.group);
                    }
                }
            }
            GroupRecord::Offset(key, None) => {
                if let Some(group) = self.groups.get_mut(&key.group) {
                    group.offsets.remove(&key.topic, key.partition);
                }
            }
            // A live group's membership is session state, newer than what was written.
            GroupRecord::Group(_, Some(_)) => {}
            GroupRecord::Group(key, None) => {
                // Who joined meanwhile, or has a newer record on its way, is a new group already.
                let outdated = |group: &ClassicGroup| group.last_write > written.map(|token| token.0);
                if classic(&mut self.groups, &key.group).is_some_and(|group| group.is_idle() && !outdated(group)) {
                    self.turn_classic(&key.group);
                }
            }
            GroupRecord::Other(record) => self.apply_other(&record),
        }
    }

    fn apply_other(&mut self, record: &OtherRecord) {
        if record.deleted {
            if let Some(Group { membership: Membership::Other(other), .. }) = self.groups.get_mut(&record.group) {
                other.apply(record);
                if other.keys.is_empty() {
                    self.turn_classic(&record.group);
                }
            }
            return;
        }
        let group = self.groups.entry(record.group.clone()).or_insert_with(|| Group::classic(record.group.clone()));
        match &mut group.membership {
            Membership::Other(other) if other.group_type == record.group_type => other.apply(record),
            membership => {
                let mut other = OtherGroup::new(record.group_type);
                other.apply(record);
                *membership = Membership::Other(other);
            }
        }
    }

    /// The records that made the group are gone. Offsets have tombstones of their own, so what is left may be a simple
    /// group with offsets.
    pub(crate) fn turn_classic(&mut self, id: &StrBytes) {
        if let Some(group) = self.groups.get_mut(id) {
            group.membership = Membership::Classic(Box::new(ClassicGroup::new(id.clone())));
        }
        self.drop_if_gone(id);
    }

    /// Removes a group that has neither members nor a record nor offsets nor commits under way.
    pub(crate) fn drop_if_gone(&mut self, id: &StrBytes) {
        if let Some(group) = self.groups.get(id)
            && group.offsets.is_empty()
            && group.commits_pending == 0
            && matches!(&group.membership, Membership::Classic(classic) if classic.is_untouched())
        {
            self.groups.remove(id);
        }
    }

    fn forget_pending_commit(&mut self, write: &PendingWrite) {
        if let Some(GroupRecord::Offset(key, Some(_))) = write.records.first()
            && let Some(group) = self.groups.get_mut(&key.group)
        {
            group.commits_pending = group.commits_pending.saturating_sub(1);
        }
    }
}

/// Records of one write that the coordinator makes on its own, so that a batch stays below `max.message.bytes`.
const MAX_RECORDS_PER_WRITE: usize = 1_000;

fn may_write(request: &RequestBody) -> bool {
    !matches!(
        request,
        RequestBody::Heartbeat(_)
            | RequestBody::OffsetFetch(_)
            | RequestBody::ListGroups(_)
            | RequestBody::DescribeGroups(_)
    )
}

/// The classic group with this id.
pub(crate) fn classic<'a>(groups: &'a mut FxHashMap<StrBytes, Group>, id: &str) -> Option<&'a mut ClassicGroup> {
    match groups.get_mut(id) {
        Some(Group { membership: Membership::Classic(group), .. }) => Some(group),
        _ => None,
    }
}

/// The group if it still waits for the assignment of this generation.
fn completing<'a>(
    groups: &'a mut FxHashMap<StrBytes, Group>,
    id: &str,
    generation: i32,
) -> Option<&'a mut ClassicGroup> {
    classic(groups, id).filter(|group| {
        group.state == State::CompletingRebalance && group.generation == generation && group.assignment_pending
    })
}
