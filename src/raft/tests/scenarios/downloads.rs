//! A snapshot that a follower fetches goes on where it was, as long as it is the same node's.

use bytes::Bytes;
use ringlog_protocol::messages::{
    FetchResponse, FetchSnapshotResponse, fetch_response, fetch_snapshot_request, fetch_snapshot_response,
};
use ringlog_protocol::{Records, RequestBody, ResponseBody, StrBytes};
use ringlog_raft::{Action, Event, Raft, RequestToken};
use ringlog_types::{CLUSTER_METADATA_TOPIC_ID, ErrorCode};

use super::node::{actions_of, at, told_of_leader, unattached};

/// The snapshot to which leaders send this node: end offset and epoch.
const SNAPSHOT: (i64, i32) = (100, 5);
const SIZE: i64 = 30;

/// What the node wants next, and what it does with files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Did {
    asks_for_bytes_from: Option<i64>,
    writes_at: Option<u64>,
    abandons: bool,
    finishes: bool,
}

/// Hands the node an event; what it did, and the token of its request to a leader.
fn step(raft: &mut Raft, event: Event, ms: u64) -> (Did, Option<RequestToken>) {
    let (mut did, mut token) = (Did::default(), None);
    for action in actions_of(raft.step(event, at(ms))) {
        match action {
            Action::Send { token: sent, request, .. } => match *request {
                RequestBody::Fetch(_) => token = Some(sent),
                RequestBody::FetchSnapshot(request) => {
                    token = Some(sent);
                    did.asks_for_bytes_from = Some(request.topics[0].partitions[0].position);
                    let id = &request.topics[0].partitions[0].snapshot_id;
                    let (end_offset, epoch) = SNAPSHOT;
                    assert_eq!(id, &fetch_snapshot_request::SnapshotId { end_offset, epoch });
                }
                _ => {}
            },
            Action::WriteSnapshot { position, .. } => did.writes_at = Some(position),
            Action::AbandonSnapshot { .. } => did.abandons = true,
            Action::FinishSnapshot { .. } => did.finishes = true,
            _ => {}
        }
    }
    (did, token)
}

fn answered(token: RequestToken, response: impl Into<ResponseBody>) -> Event {
    Event::Response { token, result: Ok(response.into()) }
}

/// The leader's answer to a fetch: have that snapshot first, or there is nothing new.
fn fetched(leader: (i32, i32), snapshot: Option<(i64, i32)>) -> FetchResponse {
    let (end_offset, epoch) = snapshot.unwrap_or((-1, -1));
    let partition = fetch_response::PartitionData {
        snapshot_id: fetch_response::SnapshotId { end_offset, epoch },
        current_leader: fetch_response::LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: leader.1 },
        high_watermark: -1,
        ..fetch_response::PartitionData::default()
    };
    let topic = fetch_response::FetchableTopicResponse {
        topic_id: CLUSTER_METADATA_TOPIC_ID,
        partitions: vec![partition],
        ..fetch_response::FetchableTopicResponse::default()
    };
    FetchResponse { responses: vec![topic], ..FetchResponse::default() }
}

/// The leader's answer with bytes of the file.
fn bytes(leader: (i32, i32), position: i64, count: usize, size: i64) -> FetchSnapshotResponse {
    let (end_offset, epoch) = SNAPSHOT;
    let partition = fetch_snapshot_response::PartitionSnapshot {
        snapshot_id: fetch_snapshot_response::SnapshotId { end_offset, epoch },
        current_leader: fetch_snapshot_response::LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: leader.1 },
        size,
        position,
        unaligned_records: Some(Records::from(Bytes::from(vec![7; count]))),
        ..fetch_snapshot_response::PartitionSnapshot::default()
    };
    let name = StrBytes::from_static("__cluster_metadata");
    let topics = vec![fetch_snapshot_response::TopicSnapshot { name, partitions: vec![partition] }];
    FetchSnapshotResponse { topics, ..FetchSnapshotResponse::default() }
}

/// Ten of thirty bytes came from node 2, which then fell silent for so long that the node asks for pre-votes.
fn broken_off() -> Raft {
    let mut raft = unattached();
    let (_, token) = step(&mut raft, told_of_leader(2, 6), 1);
    let (did, token) = step(&mut raft, answered(token.unwrap(), fetched((2, 6), Some(SNAPSHOT))), 2);
    assert_eq!(did.asks_for_bytes_from, Some(0));
    let (did, _) = step(&mut raft, answered(token.unwrap(), bytes((2, 6), 0, 10, SIZE)), 3);
    assert_eq!((did.writes_at, did.asks_for_bytes_from), (Some(0), Some(10)));
    let (did, _) = step(&mut raft, Event::Tick, 2_100);
    assert_eq!(did, Did::default(), "what is there may be of use");
    raft
}

#[test]
fn a_download_goes_on_when_its_leader_is_back() {
    let mut raft = broken_off();
    let (_, token) = step(&mut raft, told_of_leader(2, 7), 2_200);
    let (did, token) = step(&mut raft, answered(token.unwrap(), fetched((2, 7), Some(SNAPSHOT))), 2_201);
    assert_eq!(did, Did { asks_for_bytes_from: Some(10), ..Did::default() });
    let (did, _) = step(&mut raft, answered(token.unwrap(), bytes((2, 7), 10, 20, SIZE)), 2_202);
    assert_eq!(did, Did { writes_at: Some(10), finishes: true, ..Did::default() });
}

#[test]
fn a_download_from_a_leader_that_resigned_waits_and_goes_on() {
    let mut raft = unattached();
    let (_, token) = step(&mut raft, told_of_leader(2, 6), 1);
    let (_, token) = step(&mut raft, answered(token.unwrap(), fetched((2, 6), Some(SNAPSHOT))), 2);
    let (_, token) = step(&mut raft, answered(token.unwrap(), bytes((2, 6), 0, 10, SIZE)), 3);
    let mut resigned = bytes((2, 6), 0, 0, 0);
    resigned.topics[0].partitions[0].error_code = ErrorCode::NotLeaderOrFollower.code();
    let (did, _) = step(&mut raft, answered(token.unwrap(), resigned), 4);
    assert_eq!(did, Did::default(), "neither asked at once nor given up");
    let (did, _) = step(&mut raft, Event::Tick, 4 + 20);
    assert_eq!(did, Did { asks_for_bytes_from: Some(10), ..Did::default() });
}

/// Nodes write snapshots themselves: those of the same name have other bytes.
#[test]
fn the_file_of_another_leader_is_fetched_from_its_beginning() {
    let mut raft = broken_off();
    let (_, token) = step(&mut raft, told_of_leader(3, 7), 2_200);
    let (did, token) = step(&mut raft, answered(token.unwrap(), fetched((3, 7), Some(SNAPSHOT))), 2_201);
    assert_eq!(did, Did { asks_for_bytes_from: Some(0), abandons: true, ..Did::default() });
    let (did, _) = step(&mut raft, answered(token.unwrap(), bytes((3, 7), 0, 10, SIZE)), 2_202);
    assert_eq!(did.writes_at, Some(0));
}

#[test]
fn a_file_that_has_become_another_is_given_up() {
    let mut raft = broken_off();
    let (_, token) = step(&mut raft, told_of_leader(2, 7), 2_200);
    let (_, token) = step(&mut raft, answered(token.unwrap(), fetched((2, 7), Some(SNAPSHOT))), 2_201);
    let (did, _) = step(&mut raft, answered(token.unwrap(), bytes((2, 7), 10, 20, SIZE + 1)), 2_202);
    assert_eq!(did, Did { abandons: true, ..Did::default() });
}

#[test]
fn what_was_broken_off_goes_when_it_is_not_needed() {
    let mut raft = broken_off();
    let (_, token) = step(&mut raft, told_of_leader(2, 7), 2_200);
    let (did, _) = step(&mut raft, answered(token.unwrap(), fetched((2, 7), None)), 2_201);
    assert_eq!((did.abandons, did.asks_for_bytes_from), (true, None));
}
