//! What requests are told that wait at a replica, or come to it, when it ends: every handler, every state.
//!
//! The codes are those that Kafka 4.3.1 gave where it was asked. Where it lets a request wait until its time is up, though
//! it knows better (Fetch, Produce and DeleteRecords when the directory fails, DeleteRecords of a deleted topic), this
//! table has what its code would answer then; here that comes at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ringlog_log::TransactionRules;
use ringlog_log::validator::AppendOrigin;
use ringlog_metadata::{MetadataChanges, MetadataImage};
use ringlog_protocol::messages::{
    DeleteRecordsRequest, DescribeProducersRequest, FetchRequest, HeartbeatRequest, JoinGroupRequest,
    ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest, delete_records_request,
    describe_producers_request, fetch_request, join_group_request, list_offsets_request,
    offset_for_leader_epoch_request, produce_request,
};
use ringlog_protocol::metadata_records::{MetadataRecord, PartitionChangeRecord, RemoveTopicRecord};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, Unpacker};
use ringlog_protocol::{ApiKey, Records, RequestBody, ResponseBody};
use ringlog_ring as ring;
use ringlog_types::{
    BrokerEpoch, ErrorCode, GROUP_METADATA_TOPIC, NodeId, Offset, PartitionIndex, TimestampMs, TopicIdPartition,
};

use crate::admin::test_images::{DIRECTORY, topic_id};
use crate::core::Room as _;
use crate::data::replica::{AppendRules, Replica};
use crate::data::{fetch, produce};
use crate::log_dirs::tests::cluster::TestNode;
use crate::shard::Shard;
use crate::test_metadata::{EPOCH, changed, context, on_every_core, publish, served_image, start, unchanged};
use crate::{admin, coordinator};

use ErrorCode::{
    FencedLeaderEpoch, KafkaStorageError, None as NoError, NotCoordinator, NotLeaderOrFollower, UnknownTopicId,
    UnknownTopicOrPartition,
};

const TOPIC: &str = "t";
const GROUP: &str = "g";
/// Longer than any of these tests: what waits does so until something happens.
const FOREVER_MS: i32 = 600_000;

/// What happens to the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    TopicDeleted,
    /// The other replica leads.
    LeaderMoved,
    /// The other replica is the only one.
    Reassigned,
    DirectoryFailed,
    NodeStops,
}

/// A request about the partition, or about the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// In this version; from 13 on it names the topic by id.
    Fetch(i16),
    /// With the leader epoch that was.
    FetchInEpoch,
    /// acks=all; from 13 on it names the topic by id.
    Produce(i16),
    ListOffsets,
    DeleteRecords,
    OffsetForLeaderEpoch,
    DescribeProducers,
    JoinGroup,
    Heartbeat,
}

/// What waits while the state changes.
const WAITING: [Ask; 8] = [
    Ask::Fetch(4),
    Ask::Fetch(12),
    Ask::Fetch(17),
    Ask::FetchInEpoch,
    Ask::Produce(8),
    Ask::Produce(13),
    Ask::DeleteRecords,
    Ask::JoinGroup,
];

/// What comes afterwards. Group requests are apart: the metadata says where they belong.
const LATER: [Ask; 10] = [
    Ask::Fetch(4),
    Ask::Fetch(12),
    Ask::Fetch(17),
    Ask::FetchInEpoch,
    Ask::Produce(8),
    Ask::Produce(13),
    Ask::ListOffsets,
    Ask::DeleteRecords,
    Ask::OffsetForLeaderEpoch,
    Ask::DescribeProducers,
];

/// `None` for what goes on waiting, as in Kafka.
struct Row {
    state: State,
    waiting: [Option<ErrorCode>; WAITING.len()],
    later: [ErrorCode; LATER.len()],
}

const TABLE: [Row; 5] = [
    Row {
        state: State::TopicDeleted,
        waiting: [
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(UnknownTopicOrPartition),
            Some(NotCoordinator),
        ],
        later: [
            UnknownTopicOrPartition,
            UnknownTopicOrPartition,
            UnknownTopicId,
            UnknownTopicId,
            UnknownTopicOrPartition,
            UnknownTopicId,
            UnknownTopicOrPartition,
            UnknownTopicOrPartition,
            UnknownTopicOrPartition,
            UnknownTopicOrPartition,
        ],
    },
    Row {
        state: State::LeaderMoved,
        waiting: [
            Some(NotLeaderOrFollower),
            None,
            None,
            Some(FencedLeaderEpoch),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotCoordinator),
        ],
        later: [
            NotLeaderOrFollower,
            NoError,
            NoError,
            FencedLeaderEpoch,
            NotLeaderOrFollower,
            NotLeaderOrFollower,
            NotLeaderOrFollower,
            NotLeaderOrFollower,
            NotLeaderOrFollower,
            NoError,
        ],
    },
    Row {
        state: State::Reassigned,
        waiting: [
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotCoordinator),
        ],
        later: [NotLeaderOrFollower; LATER.len()],
    },
    Row {
        state: State::DirectoryFailed,
        waiting: [
            // Clients of that time don't know the error.
            Some(NotLeaderOrFollower),
            Some(KafkaStorageError),
            Some(KafkaStorageError),
            Some(KafkaStorageError),
            Some(KafkaStorageError),
            Some(KafkaStorageError),
            Some(KafkaStorageError),
            Some(NotCoordinator),
        ],
        later: [
            NotLeaderOrFollower,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
            KafkaStorageError,
        ],
    },
    Row {
        state: State::NodeStops,
        waiting: [
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotLeaderOrFollower),
            Some(NotCoordinator),
        ],
        later: [NotLeaderOrFollower; LATER.len()],
    },
];

impl Ask {
    /// Sends it to the handler; its error.
    async fn ask(self, shard: &Rc<Shard>, wait_ms: i32) -> ErrorCode {
        let code = match self {
            Ask::Fetch(version) => fetched(shard, version, -1, wait_ms).await,
            Ask::FetchInEpoch => fetched(shard, 17, EPOCH, wait_ms).await,
            Ask::Produce(version) => {
                let context = context(ApiKey::Produce, version);
                let response = produce::begin(&shard.data, &context, produced(version, wait_ms)).await.await;
                let answer = &response.responses[0].partition_responses[0];
                let has_place = answer.base_offset >= 0;
                assert_eq!(has_place, wait_ms > 0, "what was appended keeps its place, as in Kafka's answers");
                answer.error_code
            }
            Ask::JoinGroup | Ask::Heartbeat => self.ask_coordinator(shard).await,
            other => other.ask_about_offsets(shard, wait_ms).await,
        };
        ErrorCode::from_code(code).unwrap()
    }

    async fn ask_about_offsets(self, shard: &Rc<Shard>, wait_ms: i32) -> i16 {
        match self {
            Ask::ListOffsets => {
                let partition = list_offsets_request::ListOffsetsPartition { timestamp: -1, ..Default::default() };
                let topic = list_offsets_request::ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] };
                let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
                let response =
                    admin::list_offsets::handle(&shard.data, &context(ApiKey::ListOffsets, 7), request).await;
                response.topics[0].partitions[0].error_code
            }
            Ask::DeleteRecords => {
                let partition = delete_records_request::DeleteRecordsPartition { partition_index: 0, offset: -1 };
                let topic =
                    delete_records_request::DeleteRecordsTopic { name: TOPIC.into(), partitions: vec![partition] };
                let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: wait_ms };
                let response =
                    admin::delete_records::handle(&shard.log_dirs, &context(ApiKey::DeleteRecords, 2), request).await;
                response.topics[0].partitions[0].error_code
            }
            Ask::OffsetForLeaderEpoch => {
                let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition {
                    leader_epoch: EPOCH,
                    current_leader_epoch: -1,
                    ..Default::default()
                };
                let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic {
                    topic: TOPIC.into(),
                    partitions: vec![partition],
                };
                let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
                let context = context(ApiKey::OffsetForLeaderEpoch, 4);
                let response = admin::offset_for_leader_epoch::handle(&shard.data, &context, request).await;
                response.topics[0].partitions[0].error_code
            }
            Ask::DescribeProducers => {
                let topic = describe_producers_request::TopicRequest { name: TOPIC.into(), partition_indexes: vec![0] };
                let request = DescribeProducersRequest { topics: vec![topic] };
                let context = context(ApiKey::DescribeProducers, 0);
                let response = admin::describe_producers::handle(&shard.data, &context, request).await;
                response.topics[0].partitions[0].error_code
            }
            other => unreachable!("{other:?} is asked elsewhere"),
        }
    }

    async fn ask_coordinator(self, shard: &Rc<Shard>) -> i16 {
        let (key, version, request): (_, _, RequestBody) = match self {
            Ask::JoinGroup => {
                let protocol =
                    join_group_request::JoinGroupRequestProtocol { name: "range".into(), ..Default::default() };
                let request = JoinGroupRequest {
                    group_id: GROUP.into(),
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: FOREVER_MS,
                    protocol_type: "consumer".into(),
                    protocols: vec![protocol],
                    ..Default::default()
                };
                (ApiKey::JoinGroup, 3, request.into())
            }
            _ => {
                let request = HeartbeatRequest { group_id: GROUP.into(), member_id: "m".into(), ..Default::default() };
                (ApiKey::Heartbeat, 3, request.into())
            }
        };
        match coordinator::handle(&shard.coordinators, &context(key, version), request).await {
            ResponseBody::JoinGroup(response) => response.error_code,
            ResponseBody::Heartbeat(response) => response.error_code,
            other => panic!("{other:?} answers {self:?}"),
        }
    }
}

async fn fetched(shard: &Rc<Shard>, version: i16, current_leader_epoch: i32, wait_ms: i32) -> i16 {
    let partition = fetch_request::FetchPartition {
        current_leader_epoch,
        // The end of what consumers may read.
        fetch_offset: 1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let mut topic = fetch_request::FetchTopic { partitions: vec![partition], ..Default::default() };
    if version >= 13 {
        topic.topic_id = topic_id(1);
    } else {
        topic.topic = TOPIC.into();
    }
    let request = FetchRequest { max_wait_ms: wait_ms, min_bytes: 1, topics: vec![topic], ..Default::default() };
    let response = fetch::handle(&shard.data, &context(ApiKey::Fetch, version), request).await;
    assert_eq!(response.error_code, 0);
    response.responses[0].partitions[0].error_code
}

fn produced(version: i16, timeout_ms: i32) -> ProduceRequest {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(TimestampMs(1000), None, Some(b"value"), &[]);
    let partition = produce_request::PartitionProduceData { index: 0, records: Some(Records::from(builder.build())) };
    let mut topic = produce_request::TopicProduceData { partition_data: vec![partition], ..Default::default() };
    if version >= 13 {
        topic.topic_id = topic_id(1);
    } else {
        topic.name = TOPIC.into();
    }
    ProduceRequest { acks: -1, timeout_ms, topic_data: vec![topic], ..Default::default() }
}

/// Both brokers are in sync.
fn first_image() -> MetadataImage {
    let in_sync = |topic_id| PartitionChangeRecord { topic_id, isr: Some(vec![1, 2]), ..unchanged() }.into();
    changed(&served_image(&[(TOPIC, 1), (GROUP_METADATA_TOPIC, 1)]), vec![in_sync(topic_id(1)), in_sync(topic_id(2))])
}

/// Brings both topics into the state.
async fn bring_about(shard: &Rc<Shard>, state: State) {
    let topics = [topic_id(1), topic_id(2)];
    let records: Vec<MetadataRecord> = match state {
        State::TopicDeleted => topics.map(|topic_id| RemoveTopicRecord { topic_id }.into()).into(),
        State::LeaderMoved => {
            topics.map(|topic_id| PartitionChangeRecord { topic_id, leader: 2, ..unchanged() }.into()).into()
        }
        State::Reassigned => {
            let away = |topic_id| PartitionChangeRecord {
                topic_id,
                leader: 2,
                isr: Some(vec![2]),
                replicas: Some(vec![2]),
                directories: Some(vec![DIRECTORY]),
                ..unchanged()
            };
            topics.map(|topic_id| away(topic_id).into()).into()
        }
        State::DirectoryFailed => return shard.log_dirs.fail(0, "the test says so").await,
        State::NodeStops => {
            return on_every_core(shard, |shard| {
                shard.coordinators.resign_all();
                shard.data.replicas.stop_serving();
                Box::pin(std::future::ready(()))
            })
            .await;
        }
    };
    let new = changed(&shard.metadata.image(), records);
    publish(shard, new).await;
}

/// The leader has three records, of which consumers see one: the follower has that, and stands still.
async fn lead_with_a_follower_that_stands_still(shard: &Rc<Shard>) {
    start(shard, first_image()).await;
    let id = TopicIdPartition { topic_id: topic_id(1), partition: PartitionIndex(0) };
    let one = ring::spawn({
        let shard = shard.clone();
        async move { Ask::Produce(8).ask(&shard, FOREVER_MS).await }
    });
    shard
        .invoke_on(shard.core.node.home_of(id), move |shard| {
            let replica = shard.data.replicas.served(id).unwrap();
            Box::pin(async move {
                until(&replica, |replica| replica.durable_end_offset() == Offset(1)).await;
                replica.on_follower_fetch(&ringlog_partition::FollowerFetch {
                    replica: NodeId(2),
                    fetch_offset: Offset(1),
                    log_start_offset: Offset(0),
                    broker_epoch: BrokerEpoch(10),
                    eligible_for_isr: true,
                });
            })
        })
        .await;
    assert_eq!(one.await, NoError);
    while Ask::Heartbeat.ask(shard, 0).await == ErrorCode::CoordinatorLoadInProgress {
        ring::yield_now().await;
    }
}

async fn until(replica: &Rc<Replica>, is_so: impl Fn(&Replica) -> bool) {
    while !is_so(replica) {
        replica.progressed().await;
    }
}

/// Waits until the requests are where they wait for good: the records of both Produces are durable, and nothing moves.
async fn until_all_wait(shard: &Rc<Shard>) {
    let id = TopicIdPartition { topic_id: topic_id(1), partition: PartitionIndex(0) };
    shard
        .invoke_on(shard.core.node.home_of(id), move |shard| {
            let replica = shard.data.replicas.served(id).unwrap();
            Box::pin(async move {
                until(&replica, |replica| replica.durable_end_offset() == Offset(3)).await;
                while replica.waiting().0 < 4 || replica.waiting().1 < 3 {
                    ring::yield_now().await;
                }
            })
        })
        .await;
}

fn run_row(row: &'static Row, shards: usize) {
    let node = TestNode::formatted();
    node.run(shards, async move |shard| {
        let Row { state, waiting, later } = row;
        lead_with_a_follower_that_stands_still(&shard).await;
        let answers: Rc<RefCell<Vec<Option<ErrorCode>>>> = Rc::new(RefCell::new(vec![None; WAITING.len()]));
        let answered = ring::Notify::new();
        for (place, ask) in WAITING.into_iter().enumerate() {
            let (shard, answers, answered) = (shard.clone(), answers.clone(), answered.clone());
            ring::spawn_detached(async move {
                let answer = ask.ask(&shard, FOREVER_MS).await;
                answers.borrow_mut()[place] = Some(answer);
                answered.notify_all();
            });
        }
        until_all_wait(&shard).await;
        assert_eq!(*answers.borrow(), [None; WAITING.len()], "{state:?}: nothing has happened yet");
        bring_about(&shard, *state).await;
        let expected = waiting.iter().flatten().count();
        while answers.borrow().iter().flatten().count() < expected {
            answered.wait().await;
        }
        for (place, ask) in WAITING.into_iter().enumerate() {
            assert_eq!(answers.borrow()[place], waiting[place], "{state:?}: {ask:?} waited");
        }
        for (place, ask) in LATER.into_iter().enumerate() {
            assert_eq!(ask.ask(&shard, 0).await, later[place], "{state:?}: {ask:?} came later");
        }
        for ask in [Ask::JoinGroup, Ask::Heartbeat] {
            assert_eq!(ask.ask(&shard, 0).await, NotCoordinator, "{state:?}: {ask:?} came later");
        }
    });
}

#[test]
fn every_handler_says_what_became_of_a_replica() {
    for row in &TABLE {
        for shards in [1, 2] {
            run_row(row, shards);
        }
    }
}

/// Metadata arrives on one core after the other: one that still knows the topic asks one that doesn't.
#[test]
fn a_core_that_is_behind_hears_of_the_deletion() {
    let node = TestNode::formatted();
    node.run(2, async move |shard| {
        lead_with_a_follower_that_stands_still(&shard).await;
        let id = TopicIdPartition { topic_id: topic_id(1), partition: PartitionIndex(0) };
        let (home, other) = (shard.core.node.home_of(id), 1 - shard.core.node.home_of(id));
        let old = shard.metadata.image();
        let new = changed(&old, vec![RemoveTopicRecord { topic_id: topic_id(1) }.into()]);
        let changes = Arc::new(MetadataChanges::between(&old, &new));
        shard.invoke_on(home, |shard| shard.metadata.publish(Arc::new(new), changes)).await;
        for ask in [Ask::Fetch(4), Ask::Fetch(17), Ask::Produce(13), Ask::ListOffsets] {
            let asked = shard.invoke_on(other, move |shard| {
                let shard = shard.clone();
                Box::pin(async move { ask.ask(&shard, 0).await })
            });
            assert_eq!(asked.await, UnknownTopicOrPartition, "{ask:?}");
        }
    });
}

/// Members look for another coordinator then, instead of being told for ever that this one loads.
#[test]
fn a_coordinator_that_cannot_load_is_none() {
    let node = TestNode::formatted();
    node.run(1, async move |shard| {
        lead_with_a_follower_that_stands_still(&shard).await;
        let id = TopicIdPartition { topic_id: topic_id(2), partition: PartitionIndex(0) };
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(TimestampMs(1000), None, Some(b"without a key"), &[]);
        let rules = AppendRules {
            origin: AppendOrigin::Coordinator,
            required_acks: 1,
            transaction: TransactionRules::default(),
        };
        let replica = shard.data.replicas.served(id).unwrap();
        replica.append_own(&builder.build(), &rules, &mut Unpacker::new(), ring::now()).unwrap();
        for leader in [2, 1] {
            let change = PartitionChangeRecord { topic_id: topic_id(2), leader, ..unchanged() };
            publish(&shard, changed(&shard.metadata.image(), vec![change.into()])).await;
        }
        let mut answer = ErrorCode::CoordinatorLoadInProgress;
        while answer == ErrorCode::CoordinatorLoadInProgress {
            ring::yield_now().await;
            answer = Ask::Heartbeat.ask(&shard, 0).await;
        }
        assert_eq!(answer, NotCoordinator);
    });
}
