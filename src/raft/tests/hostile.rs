//! Whatever peers send, in requests and in answers, a node neither panics nor goes back in epoch or high watermark.

use std::collections::VecDeque;

use bytes::Bytes;
use ringlog_protocol::messages::*;
use ringlog_protocol::records::{BatchBuilder, BatchIter, BatchOptions};
use ringlog_protocol::{Records, RequestBody, ResponseBody, StrBytes};
use ringlog_raft::{
    Action, ControlHistory, Effects, Endpoint, Endpoints, Event, LeaderEpochs, LoadedState, Memory, Raft, RaftConfig,
    ReadFailed, ReplyToken, RequestToken, SendError, SnapshotChunk, SnapshotReadError, Step, VoterSet,
};
use ringlog_types::{
    CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, MonotonicMs, NodeId, Now, Offset, Random, TimestampMs, Uuid,
};

const DIRECTORY: Uuid = Uuid([9; 16]);
const STEPS: u64 = 4_000;

fn endpoint(id: i32) -> Endpoint {
    Endpoint { host: "127.0.0.1".to_owned(), port: 9090 + id as u16 }
}

/// Numbers as nobody should send them, and plausible ones.
struct Dice {
    random: Random,
    /// The node's present epoch.
    epoch: i32,
}

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn number(&mut self) -> i64 {
        let near = self.random.below(12) as i64 - 2;
        [near, near, near, i64::MIN, -1, i64::from(i32::MAX), i64::MAX][self.random.below(7) as usize]
    }

    fn int(&mut self) -> i32 {
        let near = self.random.below(8) as i32 - 2;
        // The largest epoch would end all elections, which says nothing; it comes rarely.
        let large = if self.random.below(1000) == 0 { i32::MAX } else { 7 };
        [near, near, near, near, i32::MIN, large][self.random.below(6) as usize]
    }

    /// An epoch, mostly about the node's own.
    fn epoch(&mut self) -> i32 {
        match self.random.below(12) {
            0 => self.int(),
            1 => self.epoch.saturating_add(1),
            2 => self.epoch - 1,
            _ => self.epoch,
        }
    }

    fn flag(&mut self) -> bool {
        self.random.below(2) == 0
    }

    fn id(&mut self) -> i32 {
        [1, 2, 3, 3, -1, 7][self.random.below(6) as usize]
    }

    fn directory(&mut self) -> Uuid {
        [Uuid::ZERO, DIRECTORY, Uuid([3; 16])][self.random.below(3) as usize]
    }

    fn topic(&mut self) -> StrBytes {
        StrBytes::from_static(if self.random.below(20) == 0 { "other" } else { "__cluster_metadata" })
    }

    fn cluster(&mut self) -> Option<StrBytes> {
        [None, Some("cluster"), Some("other")][self.random.below(3) as usize].map(StrBytes::from_static)
    }

    /// None, one or two, mostly one.
    fn some<T>(&mut self, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        let count = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2][self.random.below(10) as usize];
        (0..count).map(|_| make(self)).collect()
    }

    fn bytes(&mut self) -> Bytes {
        let base = self.number().clamp(0, i64::MAX / 2);
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(base),
            partition_leader_epoch: LeaderEpoch(self.int()),
            ..BatchOptions::default()
        });
        builder.append(TimestampMs(1), None, Some(b"value"), &[]);
        let mut batch = builder.build().to_vec();
        match self.random.below(4) {
            0 => batch.truncate(self.random.below(batch.len() as u64 + 1) as usize),
            1 => {
                let at = self.random.below(batch.len() as u64) as usize;
                batch[at] ^= 1 << self.random.below(8);
            }
            _ => {}
        }
        batch.into()
    }
}

fn vote(dice: &mut Dice) -> RequestBody {
    let (cluster_id, voter_id) = (dice.cluster(), dice.id());
    let partition = |dice: &mut Dice| vote_request::PartitionData {
        partition_index: dice.below(20) as i32 / 19,
        replica_epoch: dice.epoch(),
        replica_id: dice.id(),
        replica_directory_id: dice.directory(),
        voter_directory_id: dice.directory(),
        last_offset_epoch: dice.int(),
        last_offset: dice.number(),
        pre_vote: dice.flag(),
    };
    let topics =
        dice.some(|dice| vote_request::TopicData { topic_name: dice.topic(), partitions: dice.some(partition) });
    VoteRequest { cluster_id, voter_id, topics }.into()
}

fn begin(dice: &mut Dice) -> RequestBody {
    let partition = |dice: &mut Dice| begin_quorum_epoch_request::PartitionData {
        partition_index: 0,
        voter_directory_id: dice.directory(),
        leader_id: dice.id(),
        leader_epoch: dice.epoch(),
    };
    BeginQuorumEpochRequest {
        cluster_id: dice.cluster(),
        voter_id: dice.id(),
        topics: dice.some(|dice| begin_quorum_epoch_request::TopicData {
            topic_name: dice.topic(),
            partitions: dice.some(partition),
        }),
        leader_endpoints: dice.some(|_| begin_quorum_epoch_request::LeaderEndpoint {
            name: StrBytes::from_static("CONTROLLER"),
            host: StrBytes::from_static("127.0.0.1"),
            port: 9092,
        }),
    }
    .into()
}

fn end(dice: &mut Dice) -> RequestBody {
    let partition = |dice: &mut Dice| end_quorum_epoch_request::PartitionData {
        partition_index: 0,
        leader_id: dice.id(),
        leader_epoch: dice.epoch(),
        preferred_successors: vec![dice.id(); dice.below(4) as usize],
        preferred_candidates: dice.some(|dice| end_quorum_epoch_request::ReplicaInfo {
            candidate_id: dice.id(),
            candidate_directory_id: dice.directory(),
        }),
    };
    EndQuorumEpochRequest {
        cluster_id: dice.cluster(),
        topics: dice.some(|dice| end_quorum_epoch_request::TopicData {
            topic_name: dice.topic(),
            partitions: dice.some(partition),
        }),
        leader_endpoints: Vec::new(),
    }
    .into()
}

fn fetch(dice: &mut Dice) -> RequestBody {
    let partition = |dice: &mut Dice| fetch_request::FetchPartition {
        partition: 0,
        current_leader_epoch: dice.epoch(),
        fetch_offset: dice.number(),
        last_fetched_epoch: dice.int(),
        replica_directory_id: dice.directory(),
        high_watermark: dice.number(),
        ..fetch_request::FetchPartition::default()
    };
    FetchRequest {
        cluster_id: dice.cluster(),
        max_wait_ms: dice.int(),
        max_bytes: dice.int(),
        replica_state: fetch_request::ReplicaState { replica_id: dice.id(), replica_epoch: -1 },
        topics: dice.some(|dice| fetch_request::FetchTopic {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: dice.some(partition),
            ..fetch_request::FetchTopic::default()
        }),
        ..FetchRequest::default()
    }
    .into()
}

fn fetch_snapshot(dice: &mut Dice) -> RequestBody {
    let partition = |dice: &mut Dice| fetch_snapshot_request::PartitionSnapshot {
        partition: 0,
        current_leader_epoch: dice.epoch(),
        snapshot_id: fetch_snapshot_request::SnapshotId { end_offset: dice.number(), epoch: dice.int() },
        position: dice.number(),
        replica_directory_id: dice.directory(),
    };
    FetchSnapshotRequest {
        cluster_id: dice.cluster(),
        replica_id: dice.id(),
        max_bytes: dice.int(),
        topics: dice.some(|dice| fetch_snapshot_request::TopicSnapshot {
            name: dice.topic(),
            partitions: dice.some(partition),
        }),
    }
    .into()
}

fn membership(dice: &mut Dice) -> RequestBody {
    let (cluster_id, voter_id, voter_directory_id) = (dice.cluster(), dice.id(), dice.directory());
    let port = dice.int().unsigned_abs() as u16;
    match dice.below(3) {
        0 => AddRaftVoterRequest {
            cluster_id,
            timeout_ms: dice.int(),
            voter_id,
            voter_directory_id,
            listeners: dice.some(|_| add_raft_voter_request::Listener {
                name: StrBytes::from_static("CONTROLLER"),
                host: StrBytes::default(),
                port,
            }),
            ack_when_committed: dice.flag(),
        }
        .into(),
        1 => RemoveRaftVoterRequest { cluster_id, voter_id, voter_directory_id }.into(),
        _ => UpdateRaftVoterRequest {
            cluster_id,
            current_leader_epoch: dice.epoch(),
            voter_id,
            voter_directory_id,
            listeners: dice.some(|_| update_raft_voter_request::Listener {
                name: StrBytes::from_static("CONTROLLER"),
                host: StrBytes::default(),
                port,
            }),
            kraft_version_feature: update_raft_voter_request::KRaftVersionFeature {
                min_supported_version: dice.int() as i16,
                max_supported_version: dice.int() as i16,
            },
        }
        .into(),
    }
}

fn request(dice: &mut Dice) -> RequestBody {
    match dice.below(6) {
        0 => vote(dice),
        1 => begin(dice),
        2 => end(dice),
        3 => fetch(dice),
        4 => fetch_snapshot(dice),
        _ => membership(dice),
    }
}

/// An answer to the request, of its kind or of another.
fn answer(dice: &mut Dice, request: &RequestBody) -> Result<ResponseBody, SendError> {
    if dice.below(10) == 0 {
        return Err([SendError::Disconnected, SendError::Refused, SendError::UnsupportedVersion, SendError::Malformed]
            [dice.below(4) as usize]);
    }
    let error_code = [0, 0, 0, 74, 75, 6, 42, 35, 104, -1, 1][dice.below(11) as usize];
    let (leader_id, leader_epoch) = ([-1, -1, dice.id()][dice.below(3) as usize], dice.epoch());
    Ok(match request {
        RequestBody::Vote(_) => VoteResponse {
            topics: dice.some(|dice| vote_response::TopicData {
                topic_name: dice.topic(),
                partitions: dice.some(|dice| vote_response::PartitionData {
                    error_code,
                    leader_id,
                    leader_epoch,
                    vote_granted: dice.flag(),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
        .into(),
        RequestBody::BeginQuorumEpoch(_) => BeginQuorumEpochResponse {
            topics: dice.some(|dice| begin_quorum_epoch_response::TopicData {
                topic_name: dice.topic(),
                partitions: dice.some(|_| begin_quorum_epoch_response::PartitionData {
                    error_code,
                    leader_id,
                    leader_epoch,
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
        .into(),
        RequestBody::Fetch(_) => fetched(dice, error_code, leader_id, leader_epoch),
        RequestBody::FetchSnapshot(_) => FetchSnapshotResponse {
            topics: dice.some(|dice| fetch_snapshot_response::TopicSnapshot {
                name: dice.topic(),
                partitions: dice.some(|dice| fetch_snapshot_response::PartitionSnapshot {
                    error_code,
                    snapshot_id: fetch_snapshot_response::SnapshotId { end_offset: dice.number(), epoch: dice.int() },
                    current_leader: fetch_snapshot_response::LeaderIdAndEpoch { leader_id, leader_epoch },
                    size: dice.number(),
                    position: dice.number(),
                    unaligned_records: Some(Records::from(dice.bytes())),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
        .into(),
        _ => UpdateRaftVoterResponse {
            error_code,
            current_leader: update_raft_voter_response::CurrentLeader {
                leader_id,
                leader_epoch,
                host: StrBytes::default(),
                port: dice.int(),
            },
            ..Default::default()
        }
        .into(),
    })
}

fn fetched(dice: &mut Dice, error_code: i16, leader_id: i32, leader_epoch: i32) -> ResponseBody {
    let odd = dice.below(8);
    let partition = |dice: &mut Dice| fetch_response::PartitionData {
        error_code,
        high_watermark: dice.number(),
        diverging_epoch: match odd {
            0 => fetch_response::EpochEndOffset { epoch: dice.int(), end_offset: dice.number() },
            _ => fetch_response::EpochEndOffset::default(),
        },
        snapshot_id: match odd {
            1 => fetch_response::SnapshotId { end_offset: dice.number(), epoch: dice.int() },
            _ => fetch_response::SnapshotId::default(),
        },
        current_leader: fetch_response::LeaderIdAndEpoch { leader_id, leader_epoch },
        records: Some(Records::from(dice.bytes())),
        ..Default::default()
    };
    FetchResponse {
        responses: dice.some(|dice| fetch_response::FetchableTopicResponse {
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            partitions: dice.some(partition),
            ..Default::default()
        }),
        ..Default::default()
    }
    .into()
}

/// The node, and what it waits for.
struct Attacked {
    raft: Raft,
    asked: VecDeque<(RequestToken, RequestBody)>,
    replies: u64,
    halted: bool,
}

impl Attacked {
    fn new(seed: u64) -> Attacked {
        let voters = VoterSet::from_static("CONTROLLER", (1..=3).map(|id| (NodeId(id), endpoint(id)))).unwrap();
        let loaded = LoadedState {
            quorum_state: None,
            log_start_offset: Offset(0),
            log_end_offset: Offset(0),
            epochs: LeaderEpochs::default(),
            snapshots: Vec::new(),
            history: ControlHistory::new(voters),
            memory: [Memory::Whole, Memory::Whole, Memory::LostRecords, Memory::Whole, Memory::Blank]
                [seed as usize % 5],
        };
        let mut config = RaftConfig::new(NodeId(1), DIRECTORY, "cluster");
        config.endpoints = Endpoints::from([("CONTROLLER".to_owned(), endpoint(1))]);
        let now = Now { monotonic: MonotonicMs(0), wall: TimestampMs(1) };
        let (raft, fx) = Raft::new(config, loaded, Random::from_seed(seed), now);
        let mut node = Attacked { raft, asked: VecDeque::new(), replies: 0, halted: false };
        node.take(fx, now);
        node
    }

    fn step(&mut self, event: Event, now: Now) {
        let before = (self.raft.epoch(), self.raft.high_watermark());
        let fx = self.raft.step(event, now);
        let after = (self.raft.epoch(), self.raft.high_watermark());
        assert!(after.0 >= before.0 && after.1 >= before.1, "{before:?} to {after:?}");
        self.take(fx, now);
    }

    fn take(&mut self, fx: Effects, now: Now) {
        let actions = match fx.into_step() {
            Step::Ready(actions) => actions,
            Step::PersistFirst(first) => first.persisted(),
        };
        for action in actions {
            let event = match action {
                Action::Send { token, request, .. } => {
                    self.asked.push_back((token, *request));
                    continue;
                }
                Action::Reply { response, .. } => {
                    self.replies += 1;
                    // Every answer can be said.
                    let version = response.api_key().max_version();
                    assert!(response.size(version).is_ok());
                    continue;
                }
                Action::AppendLog { batches, .. } => {
                    assert!(BatchIter::new(&batches).all(|batch| batch.is_ok()));
                    continue;
                }
                Action::FlushLog => Event::LogFlushed,
                Action::ReadLog { token, .. } => Event::LogRead { token, result: Err(ReadFailed) },
                Action::ReadSnapshot { token, .. } => {
                    Event::SnapshotRead { token, result: Err(SnapshotReadError::NotFound) as Result<SnapshotChunk, _> }
                }
                Action::FinishSnapshot { id } => Event::SnapshotInstalled { id, result: Err(ReadFailed) },
                // Only a leader that lost committed records asks for that.
                Action::Fatal(_) => {
                    self.halted = true;
                    continue;
                }
                _ => continue,
            };
            self.step(event, now);
        }
    }
}

#[test]
fn nothing_that_peers_send_breaks_a_node() {
    let (mut leading, mut replies) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice { random: Random::from_seed(seed), epoch: 0 };
        let mut node = Attacked::new(seed);
        let mut now = Now { monotonic: MonotonicMs(0), wall: TimestampMs(1) };
        for step in 0..STEPS {
            now.monotonic = now.monotonic.plus_ms(dice.below(60));
            dice.epoch = node.raft.epoch().0;
            match dice.below(4) {
                0 => node.step(Event::Tick, now),
                1 => {
                    let request = request(&mut dice);
                    let api_version = request.api_key().max_version();
                    let listener = "CONTROLLER".to_owned();
                    node.step(Event::Request { token: ReplyToken(step), listener, api_version, request }, now);
                }
                2 => {
                    if let Some((token, request)) = node.asked.pop_front() {
                        let result = answer(&mut dice, &request);
                        node.step(Event::Response { token, result }, now);
                    }
                }
                _ if node.raft.is_leader() => {
                    leading += 1;
                    if let Ok((_, fx)) = node.raft.propose(node.raft.epoch(), &[Bytes::from_static(b"x")], now) {
                        node.take(fx, now);
                    }
                }
                _ => {}
            }
            if node.halted {
                break;
            }
        }
        replies += node.replies;
    }
    assert!(leading > 100 && replies > 10_000, "the runs do little: {leading} {replies}");
}
