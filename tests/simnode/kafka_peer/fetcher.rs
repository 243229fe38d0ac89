//! Fetches from one leader what replicas here follow there, as Kafka's `ReplicaFetcherThread` does: one request at a time, for
//! all of them, in versions that follow from `metadata.version`, without asking what the leader speaks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use ringlog_protocol::messages::fetch_response::PartitionData;
use ringlog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ringlog_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use ringlog_protocol::{Records, StrBytes};
use ringlog_ring::{self as ring, sim, sleep_ms, timeout_ms};
use ringlog_shards::LogCut;
use ringlog_types::{ErrorCode, Offset};

use super::disk::Key;
use super::fetch_session::FetchSession;
use super::following::{Cut, Position};
use super::peer::Peer;
use super::replica::Replica;
use crate::client::connection::{CallFault, Connection};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// See the module's text.
pub struct Fetcher {
    leader: i32,
    followed: RefCell<BTreeMap<Key, Followed>>,
    changed: ring::Notify,
    /// Who had records last comes last in the next request.
    turns: Cell<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Followed {
    turn: u64,
    /// Nothing is asked for before.
    not_before_ms: u64,
    /// Nothing is asked for until the metadata says something else.
    is_left_out: bool,
}

/// Why nothing came.
enum Fault {
    /// The leader isn't known, or can't be reached, or says nothing.
    Call(CallFault),
    /// It refuses the session.
    Session(ErrorCode),
}

impl From<CallFault> for Fault {
    fn from(fault: CallFault) -> Fault {
        Fault::Call(fault)
    }
}

impl Peer {
    /// A replica follows a leader, from now on in another epoch.
    pub fn follow(self: &Rc<Self>, replica: &Rc<RefCell<Replica>>, leader: i32) {
        let key = replica.borrow().key;
        self.unfollow(key);
        let cut = replica.borrow().cut_before_following();
        if let Some(cut) = cut {
            self.cut(replica, cut);
        }
        let known = self.fetchers.borrow().get(&leader).cloned();
        let fetcher = known.unwrap_or_else(|| {
            let (followed, changed) = (RefCell::default(), ring::Notify::new());
            let fetcher = Rc::new(Fetcher { leader, followed, changed, turns: Cell::new(0) });
            self.fetchers.borrow_mut().insert(leader, fetcher.clone());
            ring::spawn_detached(run(self.clone(), fetcher.clone()));
            fetcher
        });
        fetcher.followed.borrow_mut().insert(key, Followed::default());
        fetcher.changed.notify_all();
    }

    /// It follows nobody any more. An answer that is under way isn't of interest then.
    pub fn unfollow(&self, key: Key) {
        for fetcher in self.fetchers.borrow().values() {
            fetcher.followed.borrow_mut().remove(&key);
        }
    }

    fn cut(&self, replica: &Rc<RefCell<Replica>>, cut: Cut) {
        let (name, from) = (replica.borrow().log.borrow().name.clone(), replica.borrow().log.borrow().end());
        if cut.to < from {
            ring::observe(&LogCut { partition: name.clone(), from: Offset(from), to: Offset(cut.to) });
            sim::control().note(|| format!("{name} is cut from {from} to {}", cut.to));
        }
        let done = replica.borrow_mut().cut(cut);
        done.unwrap_or_else(|fault| self.complain(&format!("{name}: {fault}")));
    }
}

impl Fetcher {
    fn delay(&self, key: Key, for_ms: u64) {
        if let Some(followed) = self.followed.borrow_mut().get_mut(&key) {
            followed.not_before_ms = Peer::now_ms() + for_ms;
        }
    }

    /// What may be asked for now, in order; when something else may be.
    fn positions(&self, peer: &Peer) -> (Vec<(Key, Position)>, Option<u64>) {
        let now_ms = Peer::now_ms();
        let followed = self.followed.borrow();
        let (ready, waiting): (Vec<_>, Vec<_>) =
            followed.iter().filter(|(_, it)| !it.is_left_out).partition(|(_, it)| it.not_before_ms <= now_ms);
        let mut ready: Vec<_> = ready.into_iter().map(|(key, it)| (it.turn, *key)).collect();
        ready.sort_unstable();
        let position = |(_, key): (u64, Key)| Some((key, peer.replica(key)?.borrow().position()));
        let due_ms = waiting.into_iter().map(|(_, it)| it.not_before_ms).min();
        (ready.into_iter().filter_map(position).collect(), due_ms)
    }
}

async fn run(peer: Rc<Peer>, fetcher: Rc<Fetcher>) {
    let mut connection = None;
    let mut session = FetchSession::default();
    loop {
        let (positions, due_ms) = fetcher.positions(&peer);
        if positions.is_empty() {
            connection = None;
            session = FetchSession::default();
            match due_ms.map(|due_ms| due_ms.saturating_sub(Peer::now_ms()).max(1)) {
                Some(for_ms) => drop(timeout_ms(for_ms, fetcher.changed.wait()).await),
                None => fetcher.changed.wait().await,
            }
            continue;
        }
        let asked: BTreeMap<Key, Position> = positions.iter().copied().collect();
        match fetch(&peer, &fetcher, &mut connection, &mut session, &positions).await {
            Ok(response) => take_in(&peer, &fetcher, &mut connection, &asked, response).await,
            Err(fault) => {
                match fault {
                    Fault::Call(fault) => {
                        peer.judge(&format!("leader {}", fetcher.leader), &fault);
                        connection = None;
                        session.on_failure();
                    }
                    Fault::Session(error) => session.on_refusal(error),
                }
                sleep_ms(peer.settings.fetch_backoff_ms).await;
            }
        }
    }
}

async fn fetch(
    peer: &Peer,
    fetcher: &Fetcher,
    connection: &mut Option<Connection>,
    session: &mut FetchSession,
    positions: &[(Key, Position)],
) -> Result<FetchResponse, Fault> {
    let next = session.next(positions);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (key, position) in &next.named {
        if topics.last().is_none_or(|last| last.topic_id != key.0) {
            topics.push(FetchTopic { topic_id: key.0, ..FetchTopic::default() });
        }
        let partition = FetchPartition {
            partition: key.1,
            current_leader_epoch: position.leader_epoch,
            fetch_offset: position.offset,
            last_fetched_epoch: position.last_epoch,
            log_start_offset: position.start,
            partition_max_bytes: peer.settings.partition_bytes,
            ..FetchPartition::default()
        };
        topics.last_mut().into_iter().for_each(|topic| topic.partitions.push(partition.clone()));
    }
    let forgotten = next.forgotten.iter().map(|key| ForgottenTopic {
        topic_id: key.0,
        partitions: vec![key.1],
        ..ForgottenTopic::default()
    });
    let request = FetchRequest {
        max_wait_ms: peer.settings.fetch_wait_ms,
        min_bytes: 1,
        max_bytes: peer.settings.response_bytes,
        session_id: next.id,
        session_epoch: next.epoch,
        topics,
        forgotten_topics_data: forgotten.collect(),
        replica_state: ReplicaState { replica_id: peer.id(), replica_epoch: peer.epoch.get() },
        ..FetchRequest::default()
    };
    let version = peer.image.borrow().metadata_version().fetch_request_version();
    let (leader, known) = (fetcher.leader, (next.id, next.epoch));
    sim::control().note(|| format!("fetches from {leader} in {known:?}: {:?}", next.named));
    let open = open(peer, fetcher, connection).await?;
    let response = open.call_at(&request, version, peer.settings.socket_ms).await?;
    if response.error_code != 0 {
        return Err(Fault::Session(ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::UnknownServerError)));
    }
    let answered = response.responses.iter().flat_map(|topic| topic.partitions.iter().map(|it| (topic.topic_id, it)));
    let answered = answered.map(|(topic_id, it)| (topic_id, it.partition_index)).collect();
    if let Err(fault) = session.on_answer(response.session_id, &answered) {
        // Kafka throws such an answer away.
        peer.complain(&format!("leader {}: {fault}", fetcher.leader));
    }
    Ok(response)
}

async fn open<'a>(
    peer: &Peer,
    fetcher: &Fetcher,
    connection: &'a mut Option<Connection>,
) -> Result<&'a mut Connection, CallFault> {
    if let Some(open) = connection {
        return Ok(open);
    }
    let endpoint = {
        let image = peer.image.borrow();
        let broker = image.cluster.broker(fetcher.leader.into());
        broker.and_then(|broker| broker.endpoint("PLAINTEXT").map(|it| (it.host.to_string(), it.port)))
    };
    let (host, port) = endpoint.ok_or(CallFault::Connection(io::ErrorKind::NotFound.into()))?;
    let address = ring::lookup(&host, port).await?.into_iter().next();
    let address = address.ok_or(CallFault::Connection(io::ErrorKind::NotFound.into()))?;
    let client_id = format!("broker-{}-fetcher-0", peer.id());
    let opened = Connection::open_as(address, &client_id).await?;
    Ok(connection.insert(opened))
}

/// Takes an answer over, partition by partition.
async fn take_in(
    peer: &Rc<Peer>,
    fetcher: &Fetcher,
    connection: &mut Option<Connection>,
    asked: &BTreeMap<Key, Position>,
    response: FetchResponse,
) {
    let mut lost = Vec::new();
    for topic in response.responses {
        for data in topic.partitions {
            let key = (topic.topic_id, data.partition_index);
            let (Some(position), Some(replica)) = (asked.get(&key), peer.replica(key)) else { continue };
            let is_followed = fetcher.followed.borrow().contains_key(&key);
            if !is_followed || !replica.borrow().is_at(*position, fetcher.leader) {
                continue;
            }
            match ErrorCode::from_code(data.error_code).unwrap_or(ErrorCode::UnknownServerError) {
                ErrorCode::None => take_in_partition(peer, fetcher, &replica, data),
                ErrorCode::OffsetOutOfRange => lost.push(replica),
                // The metadata knows more than this fetcher does: it will say who leads.
                ErrorCode::FencedLeaderEpoch => {
                    let mut followed = fetcher.followed.borrow_mut();
                    followed.get_mut(&key).into_iter().for_each(|followed| followed.is_left_out = true);
                }
                error => {
                    sim::control().note(|| format!("{key:?} isn't fetched: {error:?}"));
                    fetcher.delay(key, peer.settings.fetch_backoff_ms);
                }
            }
        }
    }
    peer.on_progress();
    for replica in lost {
        let key = replica.borrow().key;
        if let Err(fault) = find_range(peer, fetcher, connection, &replica).await {
            peer.judge(&format!("leader {}", fetcher.leader), &fault);
            *connection = None;
            fetcher.delay(key, peer.settings.fetch_backoff_ms);
        }
    }
}

fn take_in_partition(peer: &Rc<Peer>, fetcher: &Fetcher, replica: &Rc<RefCell<Replica>>, data: PartitionData) {
    let diverging = (data.diverging_epoch.epoch, data.diverging_epoch.end_offset);
    if diverging.0 >= 0 || diverging.1 >= 0 {
        let cut = replica.borrow().cut_for(diverging);
        peer.cut(replica, cut);
        return;
    }
    let records: Bytes = data.records.map(Records::into_contiguous).unwrap_or_default();
    let key = replica.borrow().key;
    let mut replica = replica.borrow_mut();
    if !records.is_empty() {
        let turn = fetcher.turns.get() + 1;
        fetcher.turns.set(turn);
        fetcher.followed.borrow_mut().get_mut(&key).into_iter().for_each(|followed| followed.turn = turn);
    }
    match replica.append_fetched(&records) {
        Ok(()) => replica.on_leader_offsets(data.high_watermark, data.log_start_offset),
        // Such a partition fails for good.
        Err(fault) => peer.complain(&format!("leader {} of {key:?}: {fault}", fetcher.leader)),
    }
}

/// The leader doesn't have the offset that was asked for: its log ends before, or starts behind.
async fn find_range(
    peer: &Rc<Peer>,
    fetcher: &Fetcher,
    connection: &mut Option<Connection>,
    replica: &Rc<RefCell<Replica>>,
) -> Result<(), CallFault> {
    let position = replica.borrow().position();
    let still = |replica: &Rc<RefCell<Replica>>| replica.borrow().is_at(position, fetcher.leader);
    let latest = list_offset(peer, fetcher, connection, replica, LATEST).await?;
    if !still(replica) {
        return Ok(());
    }
    match latest {
        Ok(latest) if latest < position.offset => {
            peer.cut(replica, Cut { to: latest });
            return Ok(());
        }
        Ok(_) => {}
        Err(_) => {
            fetcher.delay(replica.borrow().key, peer.settings.fetch_backoff_ms);
            return Ok(());
        }
    }
    let earliest = list_offset(peer, fetcher, connection, replica, EARLIEST).await?;
    match earliest {
        _ if !still(replica) => {}
        Ok(earliest) if earliest > position.offset => replica.borrow_mut().restart_at(earliest),
        _ => fetcher.delay(replica.borrow().key, peer.settings.fetch_backoff_ms),
    }
    Ok(())
}

async fn list_offset(
    peer: &Peer,
    fetcher: &Fetcher,
    connection: &mut Option<Connection>,
    replica: &Rc<RefCell<Replica>>,
    timestamp: i64,
) -> Result<Result<i64, i16>, CallFault> {
    let (name, key, leader_epoch) = {
        let replica = replica.borrow();
        (StrBytes::copy_from(&replica.topic), replica.key, replica.leader_epoch)
    };
    let partition = ListOffsetsPartition { partition_index: key.1, current_leader_epoch: leader_epoch, timestamp };
    let request = ListOffsetsRequest {
        replica_id: peer.id(),
        topics: vec![ListOffsetsTopic { name, partitions: vec![partition] }],
        ..ListOffsetsRequest::default()
    };
    let version = peer.image.borrow().metadata_version().list_offsets_request_version();
    let open = open(peer, fetcher, connection).await?;
    let answer = open.call_at(&request, version, peer.settings.socket_ms).await?;
    let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let found = found.ok_or_else(|| CallFault::Nonsense("an answer without the partition".to_owned()))?;
    Ok(if found.error_code == 0 { Ok(found.offset) } else { Err(found.error_code) })
}
