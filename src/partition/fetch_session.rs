//! Fetch sessions (KIP-227): the server remembers what a client fetches, requests name only changes, and answers only
//! what has news.
//!
//! One cache per shard. A full cache takes in a new session only by evicting one that is stale, or that has lived for
//! the eviction time and is smaller or less privileged; otherwise the client goes on without a session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringlog_types::{ErrorCode, LeaderEpoch, MonotonicMs, Offset, PartitionIndex, Random, Uuid};
use rustc_hash::FxHashMap;

/// A topic as the request names it: by id from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionTopic {
    /// By id.
    Id(Uuid),
    /// By name.
    Name(Arc<str>),
}

/// One partition to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPartition {
    /// The topic.
    pub topic: SessionTopic,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset wanted.
    pub fetch_offset: Offset,
    /// `PartitionMaxBytes`.
    pub max_bytes: i32,
    /// The leader epoch that the client knows, -1 for none.
    pub current_leader_epoch: LeaderEpoch,
    /// Epoch of the last record that the client has, -1 for none.
    pub last_fetched_epoch: LeaderEpoch,
    /// A follower's log start, -1 for consumers.
    pub log_start_offset: Offset,
}

/// A partition to drop from the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenPartition {
    /// The topic.
    pub topic: SessionTopic,
    /// The partition.
    pub partition: PartitionIndex,
}

/// What a Fetch request says of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// 0 for none.
    pub session_id: i32,
    /// 0: full fetch and a new session; -1: full fetch without one; else incremental.
    pub session_epoch: i32,
    /// A follower's sessions are privileged.
    pub is_follower: bool,
    /// Version 13 on.
    pub uses_topic_ids: bool,
    /// Partitions named by the request.
    pub partitions: Vec<SessionPartition>,
    /// Partitions that it drops.
    pub forgotten: Vec<ForgottenPartition>,
}

/// Why a session request fails as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session is not here (any more): the client starts a new one.
    #[error("the fetch session is not known")]
    IdNotFound,
    /// Not the next epoch.
    #[error("the fetch session epoch is not the next one")]
    InvalidEpoch,
    /// The session names topics by id and the request by name, or the other way.
    #[error("the fetch session names topics in the other way")]
    TopicIdMismatch,
}

impl SessionError {
    /// The code for the response.
    pub fn error_code(self) -> ErrorCode {
        match self {
            SessionError::IdNotFound => ErrorCode::FetchSessionIdNotFound,
            SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
            SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
        }
    }
}

/// A fetch under way: what to read, and how its answer is made ([`FetchSessionCache::finish`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchContext {
    /// What to read, in this order.
    pub partitions: Vec<SessionPartition>,
    /// Of a follower's session: the high watermark that was answered last for each of them, -1 for none. Else empty.
    pub answered: Vec<Offset>,
    kind: ContextKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContextKind {
    Sessionless,
    Full { is_follower: bool, uses_topic_ids: bool },
    Incremental { session_id: i32, expected_epoch: i32 },
}

impl FetchContext {
    /// The session id for an answer that is empty because of a quota.
    pub fn throttled_session_id(&self) -> i32 {
        match self.kind {
            ContextKind::Incremental { session_id, .. } => session_id,
            ContextKind::Sessionless | ContextKind::Full { .. } => 0,
        }
    }

    /// Whether only partitions with news are answered.
    pub fn is_incremental(&self) -> bool {
        matches!(self.kind, ContextKind::Incremental { .. })
    }
}

/// What the session must know of a partition's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionResult {
    /// Its error.
    pub error: ErrorCode,
    /// Bytes of records.
    pub records_size: usize,
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its log start.
    pub log_start_offset: Offset,
    /// It names a preferred read replica or a diverging epoch.
    pub redirects_or_diverges: bool,
}

/// How to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedFetch {
    /// `SessionId` of the response, 0 for none.
    pub session_id: i32,
    /// Which results the response holds, in their order; `None`: all.
    pub include: Option<Vec<bool>>,
}

/// Bounds of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSessionCacheLimits {
    /// `max.incremental.fetch.session.cache.slots`, this shard's part.
    pub slots: usize,
    /// A session unused for this long is stale; one that lived this long may be evicted by a larger one.
    pub eviction_ms: u64,
}

impl Default for FetchSessionCacheLimits {
    fn default() -> FetchSessionCacheLimits {
        FetchSessionCacheLimits { slots: 1000, eviction_ms: 120_000 }
    }
}

type PartitionName = (SessionTopic, PartitionIndex);

#[derive(Debug)]
struct CachedPartition {
    request: SessionPartition,
    /// As last answered; -1 so that the next answer has news.
    high_watermark: Offset,
    log_start_offset: Offset,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    privileged: bool,
    uses_topic_ids: bool,
    created: MonotonicMs,
    last_used: MonotonicMs,
    /// Size under which it is listed for eviction.
    listed_size: usize,
    /// By turn: who got data goes to the end, so that a response limit starves nobody.
    partitions: BTreeMap<u64, CachedPartition>,
    turns: FxHashMap<PartitionName, u64>,
    next_turn: u64,
}

/// Kafka's order of eviction: unprivileged first, then small, then by id.
type EvictionKey = (bool, usize, i32);

/// All sessions of a shard.
#[derive(Debug)]
pub struct FetchSessionCache {
    limits: FetchSessionCacheLimits,
    sessions: FxHashMap<i32, Session>,
    by_last_use: BTreeSet<(MonotonicMs, i32)>,
    evictable_by_all: BTreeSet<EvictionKey>,
    evictable_by_privileged: BTreeSet<EvictionKey>,
    evictions: u64,
}

impl FetchSessionCache {
    /// An empty cache.
    pub fn new(limits: FetchSessionCacheLimits) -> FetchSessionCache {
        FetchSessionCache {
            limits,
            sessions: FxHashMap::default(),
            by_last_use: BTreeSet::new(),
            evictable_by_all: BTreeSet::new(),
            evictable_by_privileged: BTreeSet::new(),
            evictions: 0,
        }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Partitions in all sessions.
    pub fn partition_count(&self) -> usize {
        self.sessions.values().map(|session| session.partitions.len()).sum()
    }

    /// Sessions evicted so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Resolves a request: takes its changes into its session and lists what to read.
    pub fn begin(&mut self, request: SessionRequest, now: MonotonicMs) -> Result<FetchContext, SessionError> {
        let SessionRequest { session_id, session_epoch, is_follower, uses_topic_ids, partitions, forgotten } = request;
        if session_epoch == 0 || session_epoch == -1 {
            // A full fetch replaces the session that it names.
            if session_id != 0 {
                self.remove(session_id);
            }
            let kind = if session_epoch == -1 {
                ContextKind::Sessionless
            } else {
                ContextKind::Full { is_follower, uses_topic_ids }
            };
            return Ok(FetchContext { partitions, answered: Vec::new(), kind });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(SessionError::IdNotFound)?;
        if session.epoch != session_epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(SessionError::TopicIdMismatch);
        }
        for partition in &partitions {
            session.put(partition.clone());
        }
        for ForgottenPartition { topic, partition } in forgotten {
            if let Some(turn) = session.turns.remove(&(topic, partition)) {
                session.partitions.remove(&turn);
            }
        }
        if session.partitions.is_empty() {
            self.remove(session_id);
            return Ok(FetchContext { partitions, answered: Vec::new(), kind: ContextKind::Sessionless });
        }
        session.epoch = next_epoch(session.epoch);
        let expected_epoch = session.epoch;
        let partitions = session.partitions.values().map(|cached| cached.request.clone()).collect();
        let answered_to = session.privileged.then_some(&session.partitions).into_iter().flat_map(BTreeMap::values);
        let answered = answered_to.map(|cached| cached.high_watermark).collect();
        self.touch(session_id, now);
        Ok(FetchContext { partitions, answered, kind: ContextKind::Incremental { session_id, expected_epoch } })
    }

    /// Decides the answer: its session's id, and whether it has all partitions or those of which there is something new.
    /// `results` are those of `context.partitions`, in their order.
    pub fn finish(
        &mut self,
        context: FetchContext,
        results: &[PartitionResult],
        now: MonotonicMs,
        random: &mut Random,
    ) -> Result<FinishedFetch, SessionError> {
        assert_eq!(context.partitions.len(), results.len(), "one result for each partition");
        match context.kind {
            ContextKind::Sessionless => Ok(FinishedFetch { session_id: 0, include: None }),
            ContextKind::Full { is_follower, uses_topic_ids } => {
                let session_id = self.create(context.partitions, results, is_follower, uses_topic_ids, now, random);
                Ok(FinishedFetch { session_id, include: None })
            }
            ContextKind::Incremental { session_id, expected_epoch } => {
                // The session may have been evicted or used again while this fetch waited.
                let session = self.sessions.get_mut(&session_id).ok_or(SessionError::IdNotFound)?;
                if session.epoch != expected_epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                let include = context.partitions.iter().zip(results).map(|(p, r)| session.note_result(p, r)).collect();
                Ok(FinishedFetch { session_id, include: Some(include) })
            }
        }
    }

    fn create(
        &mut self,
        partitions: Vec<SessionPartition>,
        results: &[PartitionResult],
        privileged: bool,
        uses_topic_ids: bool,
        now: MonotonicMs,
        random: &mut Random,
    ) -> i32 {
        let size = partitions.len();
        if self.sessions.len() >= self.limits.slots && !self.try_evict(privileged, size, now) {
            return 0;
        }
        let mut session = Session {
            epoch: 1,
            privileged,
            uses_topic_ids,
            created: now,
            last_used: now,
            listed_size: usize::MAX,
            partitions: BTreeMap::new(),
            turns: FxHashMap::default(),
            next_turn: 0,
        };
        for (partition, result) in partitions.into_iter().zip(results) {
            session.put(partition);
            if let Some(mut cached) = session.partitions.last_entry() {
                cached.get_mut().note_answer(result);
            }
        }
        let session_id = loop {
            let candidate = random.below(i32::MAX as u64) as i32 + 1;
            if !self.sessions.contains_key(&candidate) {
                break candidate;
            }
        };
        self.sessions.insert(session_id, session);
        self.touch(session_id, now);
        session_id
    }

    fn try_evict(&mut self, privileged: bool, size: usize, now: MonotonicMs) -> bool {
        let Some(&(last_used, oldest)) = self.by_last_use.first() else { return false };
        let victim = if now.since_ms(last_used) > self.limits.eviction_ms {
            oldest
        } else {
            let list = if privileged { &self.evictable_by_privileged } else { &self.evictable_by_all };
            match list.first() {
                Some(first) if (privileged, size, 0) >= *first => first.2,
                _ => return false,
            }
        };
        self.remove(victim);
        self.evictions += 1;
        true
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.by_last_use.remove(&(session.last_used, session_id));
            let key = (session.privileged, session.listed_size, session_id);
            self.evictable_by_all.remove(&key);
            self.evictable_by_privileged.remove(&key);
        }
    }

    fn touch(&mut self, session_id: i32, now: MonotonicMs) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        self.by_last_use.remove(&(session.last_used, session_id));
        let old_key = (session.privileged, session.listed_size, session_id);
        self.evictable_by_all.remove(&old_key);
        self.evictable_by_privileged.remove(&old_key);
        session.last_used = now;
        session.listed_size = session.partitions.len();
        self.by_last_use.insert((now, session_id));
        let key = (session.privileged, session.listed_size, session_id);
        let lived_long = now.since_ms(session.created) > self.limits.eviction_ms;
        if lived_long {
            self.evictable_by_all.insert(key);
        }
        if lived_long || !session.privileged {
            self.evictable_by_privileged.insert(key);
        }
    }
}

impl Session {
    fn put(&mut self, request: SessionPartition) {
        let name = (request.topic.clone(), request.partition);
        if let Some(cached) = self.turns.get(&name).and_then(|turn| self.partitions.get_mut(turn)) {
            cached.request = request;
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turns.insert(name, turn);
        let (high_watermark, log_start_offset) = (Offset::NONE, Offset::NONE);
        self.partitions.insert(turn, CachedPartition { request, high_watermark, log_start_offset });
    }

    /// Whether the answer holds this result.
    fn note_result(&mut self, partition: &SessionPartition, result: &PartitionResult) -> bool {
        let name = (partition.topic.clone(), partition.partition);
        let Some(turn) = self.turns.get_mut(&name) else { return true };
        let Some(cached) = self.partitions.get_mut(turn) else { return true };
        let has_news = cached.note_answer(result);
        if result.records_size > 0
            && let Some(cached) = self.partitions.remove(turn)
        {
            *turn = self.next_turn;
            self.next_turn += 1;
            self.partitions.insert(*turn, cached);
        }
        has_news
    }
}

impl CachedPartition {
    fn note_answer(&mut self, result: &PartitionResult) -> bool {
        let has_news = result.records_size > 0
            || self.high_watermark != result.high_watermark
            || self.log_start_offset != result.log_start_offset
            || result.redirects_or_diverges
            || !result.error.is_none();
        self.log_start_offset = result.log_start_offset;
        // After an error the partition is answered again even when nothing else changed.
        self.high_watermark = if result.error.is_none() { result.high_watermark } else { Offset::NONE };
        has_news
    }
}

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        i32::MAX => 1,
        epoch if epoch < 0 => -1,
        epoch => epoch + 1,
    }
}

#[cfg(test)]
#[path = "fetch_session_tests.rs"]
mod tests;
