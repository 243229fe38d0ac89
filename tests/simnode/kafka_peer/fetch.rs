//! Fetch, of followers and consumers, as Kafka's `ReplicaManager` answers it.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::Records;
use ringlog_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use ringlog_protocol::messages::{FetchRequest, FetchResponse};
use ringlog_ring::timeout_ms;
use ringlog_types::ErrorCode;

use super::disk::Key;
use super::peer::Peer;
use super::reading::{Found, Reader, Wanted};
use super::sessions::Told;

/// From this version on a follower says in its state who it is.
const STATE_VERSION: i16 = 15;

/// What is said of a partition.
struct Part {
    key: Key,
    data: PartitionData,
    bytes: usize,
    /// The reader is to know at once, whatever it waits for.
    is_urgent: bool,
}

/// Answers when there is something, or time is up.
pub async fn fetch(peer: &Rc<Peer>, request: &FetchRequest, version: i16) -> FetchResponse {
    let reader = reader(request, version);
    let begun = peer.sessions.borrow_mut().begin(request);
    let (kind, asked) = match begun {
        Ok(begun) => begun,
        Err(error) => return FetchResponse { error_code: error.code(), ..FetchResponse::default() },
    };
    let deadline_ms = Peer::now_ms() + u64::try_from(request.max_wait_ms).unwrap_or(0);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut is_first = true;
    let parts = loop {
        let parts = look(peer, reader, request, &asked, is_first);
        is_first = false;
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        let left_ms = deadline_ms.saturating_sub(Peer::now_ms());
        let is_enough = bytes >= min_bytes && bytes > 0 || min_bytes == 0;
        if is_enough || left_ms == 0 || parts.is_empty() || parts.iter().any(|part| part.is_urgent) {
            break parts;
        }
        let _ = timeout_ms(left_ms, peer.progress.wait()).await;
    };
    let found: Vec<Told> = parts.iter().map(Part::told).collect();
    let (session_id, named) = peer.sessions.borrow_mut().finish(kind, &asked, &found);
    let mut response = FetchResponse { session_id, ..FetchResponse::default() };
    for (part, _) in parts.into_iter().zip(named).filter(|(_, is_named)| *is_named) {
        if let Reader::Follower(id, _) = reader {
            on_told(peer, part.key, id, part.data.high_watermark);
        }
        let responses = &mut response.responses;
        if responses.last().is_none_or(|last| last.topic_id != part.key.0) {
            responses.push(FetchableTopicResponse { topic_id: part.key.0, ..FetchableTopicResponse::default() });
        }
        responses.last_mut().into_iter().for_each(|topic| topic.partitions.push(part.data.clone()));
    }
    response
}

fn reader(request: &FetchRequest, version: i16) -> Reader {
    let (id, epoch) = match version >= STATE_VERSION {
        true => (request.replica_state.replica_id, request.replica_state.replica_epoch),
        false => (request.replica_id, -1),
    };
    if id >= 0 { Reader::Follower(id, epoch) } else { Reader::Consumer }
}

fn on_told(peer: &Peer, key: Key, follower: i32, high_watermark: i64) {
    let Some(replica) = peer.replica(key) else { return };
    let mut replica = replica.borrow_mut();
    if let Some(remote) = replica.remotes.get_mut(&follower) {
        remote.told_high_watermark = high_watermark;
    }
}

/// Reads all of them, in order, as far as there is room. What a follower's fetch says of it counts once.
fn look(peer: &Rc<Peer>, reader: Reader, request: &FetchRequest, asked: &[(Key, Wanted)], is_first: bool) -> Vec<Part> {
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
    let mut parts = Vec::new();
    let mut has_any = false;
    for (key, wanted) in asked {
        let wanted = Wanted { bytes_max: wanted.bytes_max.min(room), ..*wanted };
        let part = look_at(peer, reader, request.isolation_level, (*key, wanted), has_any);
        if is_first && let Reader::Follower(id, epoch) = reader {
            note(peer, *key, (id, epoch), &wanted, &part);
        }
        room = room.saturating_sub(part.bytes);
        has_any |= part.bytes > 0;
        parts.push(part);
    }
    if is_first && reader != Reader::Consumer {
        peer.on_progress();
    }
    parts
}

/// A follower has come so far.
fn note(peer: &Peer, key: Key, (id, epoch): (i32, i64), wanted: &Wanted, part: &Part) {
    if part.data.error_code != 0 || part.data.diverging_epoch.end_offset >= 0 {
        return;
    }
    let Some(replica) = peer.replica(key) else { return };
    let at = (wanted.offset, wanted.start);
    replica.borrow_mut().on_follower_fetch(id, epoch, at, &peer.brokers.borrow(), Peer::now_ms());
}

fn look_at(peer: &Peer, reader: Reader, isolation: i8, (key, wanted): (Key, Wanted), has_any: bool) -> Part {
    let Some(replica) = peer.replica(key) else { return refused(peer, key, unknown(peer, key)) };
    let replica = replica.borrow();
    let found = replica.read(reader, &wanted, &peer.brokers.borrow(), !has_any);
    let (records, diverging_epoch) = match found {
        Ok(Found::Records(records)) => (records, EpochEndOffset::default()),
        Ok(Found::Diverging(epoch, end_offset)) => (Bytes::new(), EpochEndOffset { epoch, end_offset }),
        Err(error) => return refused(peer, key, error),
    };
    let told = match reader {
        Reader::Follower(id, _) => replica.remotes.get(&id).map(|remote| remote.told_high_watermark),
        Reader::Consumer => None,
    };
    let is_diverging = diverging_epoch.end_offset >= 0;
    let bytes = records.len();
    let is_null = records.is_empty() && peer.settings.says_null;
    let data = PartitionData {
        partition_index: key.1,
        high_watermark: replica.high_watermark(),
        last_stable_offset: replica.high_watermark(),
        log_start_offset: replica.log.borrow().start(),
        // Who asks for what is stable is told which transactions to skip: there are none.
        aborted_transactions: (isolation == 1).then(Vec::new),
        records: (!is_null).then(|| Records::from(records)),
        diverging_epoch,
        ..PartitionData::default()
    };
    let is_news = told.is_some_and(|told| told < replica.high_watermark());
    Part { key, data, bytes, is_urgent: is_diverging || is_news }
}

/// Why a replica isn't here.
pub fn unknown(peer: &Peer, key: Key) -> ErrorCode {
    let image = peer.image.borrow();
    match image.topics.by_id(key.0) {
        None => ErrorCode::UnknownTopicId,
        Some(topic) if topic.partitions.get(&key.1.into()).is_some() => ErrorCode::NotLeaderOrFollower,
        Some(_) => ErrorCode::UnknownTopicOrPartition,
    }
}

/// Who leads, for who asked somebody else.
pub fn leader_of(peer: &Peer, key: Key, error: ErrorCode) -> Option<(i32, i32)> {
    if !matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
        return None;
    }
    let image = peer.image.borrow();
    let partition = image.topics.by_id(key.0)?.partitions.get(&key.1.into())?;
    Some((partition.leader.0, partition.leader_epoch.0))
}

fn refused(peer: &Peer, key: Key, error: ErrorCode) -> Part {
    let current_leader = leader_of(peer, key, error);
    let current_leader = current_leader.map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch });
    let data = PartitionData {
        partition_index: key.1,
        error_code: error.code(),
        high_watermark: -1,
        records: (!peer.settings.says_null).then(Records::default),
        current_leader: current_leader.unwrap_or_default(),
        ..PartitionData::default()
    };
    Part { key, data, bytes: 0, is_urgent: true }
}

impl Part {
    fn told(&self) -> Told {
        Told {
            key: self.key,
            has_records: self.bytes > 0,
            is_special: self.data.error_code != 0 || self.data.diverging_epoch.end_offset >= 0,
            offsets: (self.data.high_watermark, self.data.log_start_offset),
        }
    }
}
