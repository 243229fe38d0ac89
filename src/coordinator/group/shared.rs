//! What all groups of a coordinator use: settings, deadlines, answers and writes under way.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringlog_protocol::messages::JoinGroupResponse;
use ringlog_protocol::{ResponseBody, StrBytes};
use ringlog_types::{ErrorCode, MonotonicMs, Random};
use rustc_hash::FxHashSet;

use super::api::{Effects, LogRecord, Token, TransactionalProducer, Write, WriteToken};
use super::config::GroupConfig;
use super::fanout::with_error;
use super::records::GroupRecord;
use super::timer::{Deadline, DeadlineQueue, TimerKey};

/// What follows a write.
#[derive(Debug)]
pub(crate) enum AfterWrite {
    /// Nobody waits.
    Nothing,
    /// The answer that the write held back.
    Reply(Token, ResponseBody),
    /// The leader's assignment: hand it out, the group is stable.
    Assignment { group: StrBytes, generation: i32, assignments: BTreeMap<StrBytes, Bytes> },
    /// The first record of a group; only a failure is of interest to the member that joined it.
    NewGroup { token: Token, member: StrBytes },
    /// A static member came back under a new id while the group stays as it is.
    StaticMember(Box<StaticReplacement>),
}

/// What is needed to answer or undo the return of a static member.
#[derive(Debug)]
pub(crate) struct StaticReplacement {
    pub(crate) group: StrBytes,
    pub(crate) token: Token,
    pub(crate) instance: StrBytes,
    pub(crate) old_member: StrBytes,
    pub(crate) new_member: StrBytes,
    pub(crate) old_protocols: Vec<(StrBytes, Bytes)>,
    pub(crate) old_session_timeout_ms: i32,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) response: JoinGroupResponse,
}

/// A write whose result is awaited.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) records: Vec<GroupRecord>,
    pub(crate) producer: Option<TransactionalProducer>,
    pub(crate) after: AfterWrite,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GroupConfig,
    pub(crate) timers: DeadlineQueue,
    pub(crate) expiry: Deadline,
    /// Writes under way, by token. Bounded by `max_pending_writes` for those that requests cause.
    pub(crate) pending: BTreeMap<WriteToken, PendingWrite>,
    random: Random,
    effects: Effects,
    /// Requests whose answer is kept back: JoinGroup, SyncGroup and what waits for a write.
    waiting: FxHashSet<Token>,
    next_write: u64,
}

impl Shared {
    pub(crate) fn new(config: GroupConfig, seed: u64) -> Shared {
        Shared {
            config,
            timers: DeadlineQueue::default(),
            expiry: Deadline::default(),
            pending: BTreeMap::new(),
            random: Random::from_seed(seed),
            effects: Effects::default(),
            waiting: FxHashSet::default(),
            next_write: 0,
        }
    }

    /// Gives out what was decided since the last call.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Answers at once.
    pub(crate) fn reply(&mut self, token: Token, body: impl Into<ResponseBody>) {
        self.effects.replies.push((token, body.into()));
    }

    /// Notes that `token` gets its answer later.
    pub(crate) fn wait(&mut self, token: Token) {
        self.waiting.insert(token);
    }

    /// Answers a request that was kept waiting, unless its caller is gone.
    pub(crate) fn reply_waiting(&mut self, token: Token, body: impl Into<ResponseBody>) {
        if self.waiting.remove(&token) {
            self.effects.replies.push((token, body.into()));
        }
    }

    pub(crate) fn forget(&mut self, token: Token) {
        self.waiting.remove(&token);
    }

    /// Whether requests that write are to be refused for now.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= self.config.max_pending_writes
    }

    /// Hands records to the driver.
    pub(crate) fn write(&mut self, records: Vec<GroupRecord>, after: AfterWrite) {
        self.write_transactional(records, None, after);
    }

    /// How many writes there were so far.
    pub(crate) fn writes_begun(&self) -> u64 {
        self.next_write
    }

    /// Answers when the last of the writes after the first `writes_before` is done, or at once if there was none.
    pub(crate) fn reply_after_write_since(&mut self, writes_before: u64, token: Token, body: impl Into<ResponseBody>) {
        if self.next_write > writes_before
            && let Some(write) = self.pending.get_mut(&WriteToken(self.next_write - 1))
            && matches!(write.after, AfterWrite::Nothing)
        {
            write.after = AfterWrite::Reply(token, body.into());
            self.waiting.insert(token);
        } else {
            self.reply(token, body);
        }
    }

    /// Hands records to the driver, for a transactional batch if `producer` is given.
    pub(crate) fn write_transactional(
        &mut self,
        records: Vec<GroupRecord>,
        producer: Option<TransactionalProducer>,
        after: AfterWrite,
    ) {
        assert!(!records.is_empty(), "a write without records never completes");
        match &after {
            AfterWrite::Reply(token, _) => {
                self.waiting.insert(*token);
            }
            AfterWrite::StaticMember(replacement) => {
                self.waiting.insert(replacement.token);
            }
            AfterWrite::Nothing | AfterWrite::Assignment { .. } | AfterWrite::NewGroup { .. } => {}
        }
        let encoded: Option<Vec<LogRecord>> = records.iter().map(GroupRecord::encode).collect();
        let Some(encoded) = encoded else {
            // A field that fits the request but not the record's format.
            self.fail_unencodable(after);
            return;
        };
        let token = WriteToken(self.next_write);
        self.next_write += 1;
        self.pending.insert(token, PendingWrite { records, producer, after });
        self.effects.writes.push(Write { token, producer, records: encoded });
    }

    fn fail_unencodable(&mut self, after: AfterWrite) {
        match after {
            AfterWrite::Reply(token, body) => {
                self.reply_waiting(token, with_error(body, ErrorCode::UnknownServerError))
            }
            AfterWrite::NewGroup { token, member } => {
                self.reply_waiting(token, join_error(ErrorCode::UnknownServerError, member));
            }
            AfterWrite::StaticMember(replacement) => {
                self.reply_waiting(replacement.token, join_error(ErrorCode::UnknownServerError, StrBytes::default()));
            }
            // The strings of a group's metadata are checked before they get into it.
            AfterWrite::Assignment { .. } | AfterWrite::Nothing => {}
        }
    }

    pub(crate) fn set_timer(&mut self, deadline: &mut Deadline, key: TimerKey, at: MonotonicMs) {
        self.timers.set(deadline, key, at);
    }

    /// A member id as Kafka makes it: the prefix, a dash, a random UUID in its usual text form.
    pub(crate) fn member_id(&mut self, prefix: &str) -> StrBytes {
        let mut bytes = self.random.bytes16();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(prefix.len() + 37);
        text.push_str(prefix);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 0 | 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        StrBytes::from(text)
    }
}

/// A JoinGroup answer that carries nothing but an error and the member's id.
pub(crate) fn join_error(error: ErrorCode, member_id: StrBytes) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        protocol_name: None,
        member_id,
        ..Default::default()
    }
}

/// The error that a caller sees when a write fails with `error`.
pub(crate) fn write_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
