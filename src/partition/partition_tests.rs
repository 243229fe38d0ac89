use bytes::Bytes;
use ringlog_log::validator::AppendOrigin;
use ringlog_log::{EpochEndOffset, ListOffsetPlan, TransactionRules};
use ringlog_protocol::records::{BatchBuilder, BatchOptions, ProducerStamp, Unpacker, set_base_offset_and_epoch};
use ringlog_types::{
    BrokerEpoch, ErrorCode, Now, PartitionIndex, ProducerEpoch, ProducerId, Random, TopicPartition, Uuid,
};

use super::*;
use crate::{
    AppendContext, AppendError, DeleteRecordsError, IsolationLevel, LeaderAppend, ListOffsetsRequest, OffsetError,
    ReadError, ReadPlan, ReadRequest, Reader, Truncation, Unserved,
};

const LOCAL: NodeId = NodeId(1);
const CONSUMER: Reader = Reader::Consumer { isolation: IsolationLevel::ReadUncommitted, from_follower: true };

fn at(ms: u64) -> MonotonicMs {
    MonotonicMs(ms)
}

fn new_partition() -> Partition {
    let id = TopicIdPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(0) };
    let log = Log::new(Offset(0), TimestampMs(0), 0);
    Partition::new(id, LOCAL, log, Offset(0), PartitionLimits::default())
}

fn config(min_in_sync_replicas: i32) -> LogConfig {
    LogConfig { min_in_sync_replicas, segment_bytes: 1 << 20, ..LogConfig::default() }
}

fn lead(partition: &mut Partition, epoch: i32, replicas: &[i32], isr: &[i32], min: i32, now: u64) -> Effects {
    lead_without(partition, epoch, replicas, isr, &[], min, now)
}

/// Leads while some replicas' brokers are fenced.
fn lead_without(
    partition: &mut Partition,
    epoch: i32,
    replicas: &[i32],
    isr: &[i32],
    inactive: &[i32],
    min: i32,
    now: u64,
) -> Effects {
    let nodes = |ids: &[i32]| ids.iter().map(|&id| NodeId(id)).collect::<Vec<_>>();
    let state = LeaderState {
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(partition.partition_epoch().0 + 1),
        replicas: &nodes(replicas),
        isr: &nodes(isr),
        inactive: &nodes(inactive),
        recovery_state: RecoveryState::Recovered,
    };
    partition.become_leader(&state, &config(min), at(now))
}

fn follow(partition: &mut Partition, epoch: i32) -> Effects {
    let partition_epoch = PartitionEpoch(partition.partition_epoch().0 + 1);
    partition.become_follower(&FollowerState { leader: NodeId(2), leader_epoch: LeaderEpoch(epoch), partition_epoch })
}

fn records(count: usize, producer: Option<(i64, i16, i32)>) -> Bytes {
    let producer = producer.map_or(ProducerStamp::NONE, |(id, epoch, base_sequence)| ProducerStamp {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence,
    });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for _ in 0..count {
        builder.append(TimestampMs(1000), Some(b"key"), Some(b"value"), &[]);
    }
    builder.build()
}

fn prepare(partition: &mut Partition, bytes: &Bytes, acks: i16, min: i32) -> Result<LeaderAppend, AppendError> {
    let topic_partition = TopicPartition { topic: "t".into(), partition: PartitionIndex(0) };
    let context = AppendContext {
        topic_partition: &topic_partition,
        config: &config(min),
        origin: AppendOrigin::Client,
        required_acks: acks,
        rules: TransactionRules::default(),
        now: Now { monotonic: at(0), wall: TimestampMs(1000) },
    };
    partition.leader_prepare(bytes, &context, &mut Unpacker::new())
}

/// Appends `count` records and makes them durable.
fn append(partition: &mut Partition, count: usize, min: i32) -> Effects {
    let Ok(LeaderAppend::Append(prepared)) = prepare(partition, &records(count, None), 1, min) else {
        panic!("not appended")
    };
    partition.on_durable(prepared.next_offset, &config(min), at(0))
}

/// The registration with which a replica fetches, unless a test says otherwise.
fn registration(replica: i32) -> BrokerEpoch {
    BrokerEpoch(i64::from(replica) * 10)
}

fn fetch_from(partition: &mut Partition, replica: i32, offset: i64, min: i32, now: u64) -> Effects {
    fetch_with(partition, replica, registration(replica), offset, min, now)
}

fn fetch_with(
    partition: &mut Partition,
    replica: i32,
    broker_epoch: BrokerEpoch,
    offset: i64,
    min: i32,
    now: u64,
) -> Effects {
    let fetch = FollowerFetch {
        replica: NodeId(replica),
        fetch_offset: Offset(offset),
        log_start_offset: Offset(0),
        broker_epoch,
        eligible_for_isr: true,
    };
    partition.on_follower_fetch(&fetch, &config(min), at(now))
}

fn read(partition: &Partition, offset: i64, reader: Reader) -> Result<ReadPlan, ReadError> {
    partition.read(&ReadRequest {
        fetch_offset: Offset(offset),
        reader,
        current_leader_epoch: None,
        last_fetched_epoch: None,
    })
}

#[test]
fn records_count_only_once_they_are_durable() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1], &[1], 1, 0);
    for expected in [0, 2] {
        let Ok(LeaderAppend::Append(prepared)) = prepare(&mut partition, &records(2, None), -1, 1) else { panic!() };
        assert_eq!((prepared.base_offset, prepared.next_offset), (Offset(expected), Offset(expected + 2)));
        assert_eq!(prepared.batch.header.partition_leader_epoch, LeaderEpoch(1));
    }
    assert_eq!(partition.high_watermark(), Offset(0));
    assert!(matches!(read(&partition, 0, CONSUMER), Ok(ReadPlan::Empty(_))));
    let effects = partition.on_durable(Offset(2), &config(1), at(0));
    assert_eq!((effects.high_watermark, effects.durable_end_offset), (Some(Offset(2)), Some(Offset(2))));
    assert!(matches!(read(&partition, 0, CONSUMER), Ok(ReadPlan::Records { limit: Offset(2), .. })));
    assert_eq!(partition.on_durable(Offset(2), &config(1), at(0)), Effects::default(), "said twice");
    partition.on_durable(Offset(4), &config(1), at(0));
    assert_eq!(partition.high_watermark(), Offset(4));
}

#[test]
fn only_a_leader_with_enough_replicas_takes_appends() {
    let mut partition = new_partition();
    let bytes = records(1, None);
    let refusal =
        |partition: &mut Partition, acks, min| prepare(partition, &bytes, acks, min).unwrap_err().error_code();
    assert_eq!(refusal(&mut partition, 1, 1), ErrorCode::NotLeaderOrFollower, "not told its role yet");
    follow(&mut partition, 1);
    assert_eq!(refusal(&mut partition, 1, 1), ErrorCode::NotLeaderOrFollower);
    lead(&mut partition, 2, &[1, 2, 3], &[1], 2, 0);
    assert_eq!(refusal(&mut partition, -1, 2), ErrorCode::NotEnoughReplicas);
    assert!(prepare(&mut partition, &bytes, 1, 2).is_ok(), "acks=1 doesn't care");
    lead(&mut partition, 2, &[1], &[1], 2, 0);
    assert!(prepare(&mut partition, &bytes, -1, 2).is_ok(), "no more than are assigned");
    partition.close(Unserved::LogDirectoryFailed);
    assert_eq!(refusal(&mut partition, 1, 1), ErrorCode::KafkaStorageError);
}

/// Whoever reads, asks or writes is told why nothing is served, once that is so.
#[test]
fn a_closed_replica_says_why() {
    let bytes = records(1, None);
    for (why, code) in [
        (Unserved::NodeStopping, ErrorCode::NotLeaderOrFollower),
        (Unserved::LogDirectoryFailed, ErrorCode::KafkaStorageError),
        (Unserved::NoReplicaHere, ErrorCode::NotLeaderOrFollower),
        (Unserved::TopicDeleted, ErrorCode::UnknownTopicOrPartition),
    ] {
        let mut partition = new_partition();
        lead(&mut partition, 1, &[1], &[1], 1, 0);
        append(&mut partition, 1, 1);
        let seen = partition.standing();
        assert!(partition.close(why).leadership_changed, "{why}: who waits looks again");
        assert_ne!(partition.standing(), seen, "{why}: who was about to wait looks again");
        assert!(!partition.close(why).leadership_changed);
        let stranger = Reader::Follower { replica: NodeId(9), stale_broker_epoch: false };
        for reader in [CONSUMER, stranger, Reader::Internal] {
            assert_eq!(read(&partition, 0, reader).unwrap_err().error_code(), code, "{why} {reader:?}");
            assert_eq!(read(&partition, 99, reader).unwrap_err().error_code(), code, "{why}: before the offset");
        }
        assert_eq!(prepare(&mut partition, &bytes, 1, 1).unwrap_err().error_code(), code, "{why}");
        let latest = ListOffsetsRequest {
            timestamp: TimestampMs(-1),
            current_leader_epoch: Some(LeaderEpoch(99)),
            isolation: None,
            leader_only: false,
        };
        assert_eq!(partition.list_offsets(&latest).unwrap_err().error_code(), code, "{why}: before the epoch");
        assert_eq!(partition.offset_for_leader_epoch(LeaderEpoch(1), None, true).unwrap_err().error_code(), code);
        assert_eq!(partition.delete_records(Offset(0), &config(1)).unwrap_err().error_code(), code);
    }
}

#[test]
fn what_ends_a_replica_for_good_is_not_undone() {
    for why in Unserved::ALL {
        for later in Unserved::ALL {
            let mut partition = new_partition();
            lead(&mut partition, 1, &[1], &[1], 1, 0);
            partition.close(why);
            partition.close(later);
            assert_eq!(partition.unserved(), Some(why.max(later)), "the weightier reason stands");
            lead(&mut partition, 2, &[1, 2], &[1, 2], 1, 0);
            follow(&mut partition, 3);
            assert_eq!(partition.unserved(), Some(why.max(later)));
            let is_written = why.max(later) == Unserved::NodeStopping;
            assert_eq!(partition.is_written(), is_written);
            let role = if is_written { Role::Follower } else { Role::Unassigned };
            assert_eq!(partition.role(), role, "metadata brings no replica of a failed disk back");
        }
    }
}

#[test]
fn a_node_that_stops_still_acknowledges_what_it_took() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1], &[1], 1, 0);
    let Ok(LeaderAppend::Append(prepared)) = prepare(&mut partition, &records(3, None), -1, 1) else {
        panic!("not appended")
    };
    partition.close(Unserved::NodeStopping);
    let effects = partition.on_durable(prepared.next_offset, &config(1), at(1));
    assert_eq!(effects.high_watermark, Some(Offset(3)));
}

#[test]
fn what_an_only_replica_took_is_committed_once_written_though_nobody_leads_any_more() {
    let take = |replicas: &[i32], leader: NodeId| {
        let mut partition = new_partition();
        lead(&mut partition, 1, replicas, &[1], 1, 0);
        let Ok(LeaderAppend::Append(prepared)) = prepare(&mut partition, &records(3, None), 1, 1) else {
            panic!("not appended")
        };
        let partition_epoch = PartitionEpoch(partition.partition_epoch().0 + 1);
        partition.become_follower(&FollowerState { leader, leader_epoch: LeaderEpoch(2), partition_epoch });
        partition.on_durable(prepared.next_offset, &config(1), at(1)).high_watermark
    };
    assert_eq!(take(&[1], NodeId::NONE), Some(Offset(3)));
    assert_eq!(take(&[1, 2], NodeId::NONE), None, "another may have to say something about it");
    assert_eq!(take(&[1], NodeId(2)), None, "another leads");
}

#[test]
fn retries_of_a_producer_get_their_first_answer() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1], &[1], 1, 0);
    let first = records(3, Some((7, 0, 0)));
    assert!(matches!(prepare(&mut partition, &first, -1, 1), Ok(LeaderAppend::Append(_))));
    match prepare(&mut partition, &first, -1, 1) {
        Ok(LeaderAppend::Duplicate(held)) => {
            assert_eq!((held.base_offset, held.next_offset), (Offset(0), Offset(3)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(partition.log().log_end_offset(), Offset(3));
    assert!(matches!(prepare(&mut partition, &records(1, Some((7, 1, 0))), -1, 1), Ok(LeaderAppend::Append(_))));
    for (producer, code) in [
        ((7, 1, 5), ErrorCode::OutOfOrderSequenceNumber),
        ((7, 2, 5), ErrorCode::OutOfOrderSequenceNumber),
        ((7, 0, 3), ErrorCode::InvalidProducerEpoch),
    ] {
        assert_eq!(prepare(&mut partition, &records(1, Some(producer)), -1, 1).unwrap_err().error_code(), code);
    }
    let corrupt = Bytes::from(vec![0; 100]);
    assert!(matches!(prepare(&mut partition, &corrupt, -1, 1), Err(AppendError::Invalid(_))));
    assert_eq!(partition.log().log_end_offset(), Offset(4));
}

#[test]
fn the_high_watermark_is_what_all_in_sync_replicas_have() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2, 3], &[1, 2, 3], 2, 0);
    append(&mut partition, 10, 2);
    assert_eq!(partition.high_watermark(), Offset(0));
    assert_eq!(fetch_from(&mut partition, 2, 10, 2, 1).high_watermark, None);
    assert_eq!(fetch_from(&mut partition, 3, 4, 2, 1).high_watermark, Some(Offset(4)));
    assert_eq!(fetch_from(&mut partition, 3, 2, 2, 1).high_watermark, None, "never back");
    assert_eq!(partition.high_watermark(), Offset(4));
    assert_eq!(fetch_from(&mut partition, 3, 10, 2, 2).high_watermark, Some(Offset(10)));
}

#[test]
fn the_high_watermark_is_frozen_below_the_minimum() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2, 3], &[1, 2], 3, 0);
    append(&mut partition, 3, 3);
    fetch_from(&mut partition, 2, 3, 3, 1);
    assert_eq!(partition.high_watermark(), Offset(0), "acks=1 records stay invisible");
    assert!(!partition.has_enough_in_sync(&config(3)));
    let effects = lead(&mut partition, 1, &[1, 2, 3], &[1, 2], 2, 2);
    assert_eq!(effects.high_watermark, Some(Offset(3)), "a lower minimum lets it go");
    assert!(!effects.leadership_changed);
}

#[test]
fn a_caught_up_replica_outside_of_the_isr_holds_the_high_watermark() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1], 1, 0);
    append(&mut partition, 5, 1);
    assert_eq!(partition.high_watermark(), Offset(5));
    let joins = fetch_from(&mut partition, 2, 5, 1, 1).alter_partition.unwrap();
    assert_eq!(joins.new_isr, [(NodeId(1), BrokerEpoch(-1)), (NodeId(2), BrokerEpoch(20))]);
    append(&mut partition, 5, 1);
    assert_eq!(partition.high_watermark(), Offset(5), "it counts from the proposal on");
    fetch_from(&mut partition, 2, 10, 1, 2);
    assert_eq!(partition.high_watermark(), Offset(10));
}

/// Otherwise a broker's quick restart would stop all producers for as long as it needs to catch up.
#[test]
fn a_replica_that_comes_back_with_a_new_registration_is_waited_for_once_it_has_caught_up_again() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1, 2], 1, 0);
    append(&mut partition, 5, 1);
    fetch_from(&mut partition, 2, 5, 1, 1);
    assert_eq!(partition.high_watermark(), Offset(5));
    lead_without(&mut partition, 1, &[1, 2], &[1], &[2], 1, 2);
    append(&mut partition, 5, 1);
    assert_eq!(partition.high_watermark(), Offset(10), "its broker is fenced");
    let anew = BrokerEpoch(21);
    fetch_with(&mut partition, 2, anew, 7, 1, 4);
    append(&mut partition, 5, 1);
    assert_eq!(partition.high_watermark(), Offset(15), "it isn't waited for while it catches up");
    let caught_up = fetch_with(&mut partition, 2, anew, 15, 1, 5);
    assert!(caught_up.alter_partition.is_some());
    append(&mut partition, 5, 1);
    assert_eq!(partition.high_watermark(), Offset(15), "it is about to join");
    fetch_with(&mut partition, 2, anew, 20, 1, 6);
    assert_eq!(partition.high_watermark(), Offset(20));
}

/// With ELR (KIP-966) a replica outside of the ISR is elected cleanly on the ground that nothing was committed since it
/// left. A proposal that the controller never got, or lost, must not have committed anything.
#[test]
fn a_proposed_isr_does_not_lift_the_freeze_below_the_minimum() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2, 3], &[1], 2, 0);
    append(&mut partition, 5, 2);
    let joins = fetch_from(&mut partition, 3, 5, 2, 1);
    assert_eq!(joins.alter_partition.map(|proposal| proposal.new_isr.len()), Some(2), "it asks to join");
    assert_eq!(joins.high_watermark, None);
    assert_eq!(fetch_from(&mut partition, 3, 5, 2, 2).high_watermark, None);
    assert_eq!(append(&mut partition, 5, 2).high_watermark, None);
    for lost in [AlterPartitionOutcome::Retry, AlterPartitionOutcome::GiveUp, AlterPartitionOutcome::Ineligible] {
        assert_eq!(partition.on_alter_partition(&lost, &config(2), at(3)).high_watermark, None, "{lost:?}");
    }
    assert_eq!(partition.high_watermark(), Offset(0), "1 is the only one in sync: 2 may be elected");
    fetch_from(&mut partition, 3, 5, 2, 4);
    let committed = AlterPartitionOutcome::Committed {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(partition.partition_epoch().0 + 1),
        isr: vec![NodeId(1), NodeId(3)],
    };
    assert_eq!(partition.on_alter_partition(&committed, &config(2), at(5)).high_watermark, Some(Offset(5)));
}

#[test]
fn expansion_needs_the_high_watermark_the_epoch_start_and_eligibility() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1], 1, 0);
    append(&mut partition, 5, 1);
    assert!(fetch_from(&mut partition, 2, 4, 1, 1).alter_partition.is_none());
    let fenced = FollowerFetch {
        replica: NodeId(2),
        fetch_offset: Offset(5),
        log_start_offset: Offset(0),
        broker_epoch: BrokerEpoch(1),
        eligible_for_isr: false,
    };
    assert!(partition.on_follower_fetch(&fenced, &config(1), at(1)).alter_partition.is_none());
    assert!(fetch_from(&mut partition, 2, 5, 1, 1).alter_partition.is_some());
    assert!(fetch_from(&mut partition, 2, 5, 1, 1).alter_partition.is_none(), "one at a time");
    partition.on_alter_partition(&AlterPartitionOutcome::Ineligible, &config(1), at(2));
    assert!(fetch_from(&mut partition, 2, 5, 1, 3).alter_partition.is_some(), "may try again");
    let committed = AlterPartitionOutcome::Committed {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(9),
        isr: vec![NodeId(1), NodeId(2)],
    };
    partition.on_alter_partition(&committed, &config(1), at(4));
    assert_eq!(partition.isr().committed(), [NodeId(1), NodeId(2)]);
    assert_eq!(partition.partition_epoch(), PartitionEpoch(9));
    assert!(fetch_from(&mut partition, 2, 5, 1, 5).alter_partition.is_none(), "already in");
    assert!(fetch_from(&mut partition, 4, 5, 1, 5).alter_partition.is_none(), "not assigned");
}

#[test]
fn laggards_leave_the_isr_but_count_until_that_is_committed() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2, 3], &[1, 2, 3], 1, 0);
    append(&mut partition, 5, 1);
    fetch_from(&mut partition, 2, 5, 1, 20_000);
    assert!(partition.propose_shrink(at(30_000)).is_none(), "a new leader gives everybody the whole lag time");
    let proposal = partition.propose_shrink(at(30_001)).unwrap();
    assert_eq!(proposal.new_isr.iter().map(|m| m.0.0).collect::<Vec<_>>(), [1, 2]);
    assert!(partition.propose_shrink(at(30_002)).is_none());
    fetch_from(&mut partition, 2, 5, 1, 30_003);
    assert_eq!(partition.high_watermark(), Offset(0));
    let committed = AlterPartitionOutcome::Committed {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(2),
        isr: vec![NodeId(1), NodeId(2)],
    };
    let effects = partition.on_alter_partition(&committed, &config(1), at(30_004));
    assert_eq!(effects.high_watermark, Some(Offset(5)));
}

#[test]
fn a_slow_follower_that_keeps_up_with_a_busy_leader_stays() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1, 2], 1, 0);
    let mut end = 0;
    for step in 1..20 {
        append(&mut partition, 5, 1);
        // Each fetch asks for what was the end at the fetch before.
        fetch_from(&mut partition, 2, end, 1, step * 10_000);
        end += 5;
        assert!(partition.propose_shrink(at(step * 10_000 + 15_000)).is_none(), "step {step}");
    }
}

#[test]
fn metadata_of_older_epochs_is_ignored_and_new_epochs_start_at_the_log_end() {
    let mut partition = new_partition();
    assert!(lead(&mut partition, 1, &[1], &[1], 1, 0).leadership_changed);
    append(&mut partition, 4, 1);
    assert!(!lead(&mut partition, 1, &[1, 2], &[1], 1, 0).leadership_changed);
    let stale = LeaderState {
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(0),
        replicas: &[LOCAL],
        isr: &[LOCAL],
        inactive: &[],
        recovery_state: RecoveryState::Recovered,
    };
    assert_eq!(partition.become_leader(&stale, &config(1), at(0)), Effects::default());
    assert_eq!(partition.leader_epoch(), LeaderEpoch(1));
    assert!(lead(&mut partition, 3, &[1, 2], &[1], 1, 0).leadership_changed);
    assert_eq!(partition.leader_epoch_start_offset(), Offset(4));
    let end = partition.offset_for_leader_epoch(LeaderEpoch(2), None, true).unwrap();
    assert_eq!(end, EpochEndOffset { epoch: LeaderEpoch(1), end_offset: Offset(4) });
    assert!(follow(&mut partition, 4).leadership_changed);
    assert!(!follow(&mut partition, 4).leadership_changed);
}

#[test]
fn reads_are_checked_as_kafka_checks_them() {
    let mut partition = new_partition();
    lead(&mut partition, 5, &[1, 2], &[1, 2], 1, 0);
    append(&mut partition, 10, 1);
    fetch_from(&mut partition, 2, 6, 1, 0);
    let follower = Reader::Follower { replica: NodeId(2), stale_broker_epoch: false };
    let request = |reader, offset, current: Option<i32>, last: Option<i32>| ReadRequest {
        fetch_offset: Offset(offset),
        reader,
        current_leader_epoch: current.map(LeaderEpoch),
        last_fetched_epoch: last.map(LeaderEpoch),
    };
    let stranger = Reader::Follower { replica: NodeId(9), stale_broker_epoch: false };
    let stale = Reader::Follower { replica: NodeId(2), stale_broker_epoch: true };
    for (request, code) in [
        (request(CONSUMER, 0, Some(4), None), ErrorCode::FencedLeaderEpoch),
        (request(CONSUMER, 0, Some(6), None), ErrorCode::UnknownLeaderEpoch),
        (request(CONSUMER, 11, None, None), ErrorCode::OffsetOutOfRange),
        (request(CONSUMER, -1, None, None), ErrorCode::OffsetOutOfRange),
        (request(stranger, 0, Some(5), None), ErrorCode::UnknownLeaderEpoch),
        (request(stranger, 0, None, None), ErrorCode::NotLeaderOrFollower),
        (request(stale, 0, Some(5), None), ErrorCode::NotLeaderOrFollower),
        (request(follower, 3, Some(5), Some(6)), ErrorCode::OffsetOutOfRange),
    ] {
        assert_eq!(partition.read(&request).unwrap_err().error_code(), code, "{request:?}");
    }
    let limit = |reader, offset| match read(&partition, offset, reader).unwrap() {
        ReadPlan::Records { limit, .. } => Some(limit.0),
        ReadPlan::Empty(info) => {
            assert_eq!((info.high_watermark, info.log_end_offset), (Offset(6), Offset(10)));
            None
        }
        ReadPlan::Diverging { .. } => panic!("no epoch was given"),
    };
    assert_eq!(limit(CONSUMER, 0), Some(6));
    assert_eq!(limit(CONSUMER, 6), None, "at the high watermark");
    assert_eq!(limit(CONSUMER, 8), None, "above it, but within the log");
    assert_eq!(limit(follower, 6), Some(10));
    assert_eq!(limit(Reader::Internal, 0), Some(10));
    assert!(matches!(
        partition.read(&request(follower, 4, Some(5), Some(3))),
        Ok(ReadPlan::Diverging {
            diverging_epoch: EpochEndOffset { epoch: LeaderEpoch(3), end_offset: Offset(0) },
            ..
        })
    ));
    assert!(matches!(partition.read(&request(follower, 4, Some(5), Some(5))), Ok(ReadPlan::Records { .. })));
    follow(&mut partition, 6);
    assert_eq!(read(&partition, 0, follower), Err(ReadError::NotLeaderOrFollower));
    let old_consumer = Reader::Consumer { isolation: IsolationLevel::ReadUncommitted, from_follower: false };
    assert_eq!(read(&partition, 0, old_consumer), Err(ReadError::NotLeaderOrFollower));
    assert!(read(&partition, 0, CONSUMER).is_ok());
}

#[test]
fn list_offsets_answers_from_the_high_watermark_and_waits_for_the_epoch_start() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1, 2], 1, 0);
    append(&mut partition, 10, 1);
    fetch_from(&mut partition, 2, 6, 1, 0);
    let ask = |partition: &Partition, timestamp, isolation| {
        partition.list_offsets(&ListOffsetsRequest {
            timestamp: TimestampMs(timestamp),
            current_leader_epoch: None,
            isolation,
            leader_only: true,
        })
    };
    let uncommitted = Some(IsolationLevel::ReadUncommitted);
    let latest = |offset| {
        let (timestamp, leader_epoch) = (TimestampMs(-1), partition.leader_epoch());
        Ok(ListOffsetPlan::Known { timestamp, offset: Offset(offset), leader_epoch })
    };
    assert_eq!(ask(&partition, -1, uncommitted), latest(6));
    assert_eq!(ask(&partition, -1, None), latest(10), "replicas see the end");
    assert_eq!(partition.filter_found_offset(Offset(5), uncommitted), Ok(true));
    assert_eq!(partition.filter_found_offset(Offset(6), uncommitted), Ok(false));
    lead(&mut partition, 2, &[1, 2], &[1, 2], 1, 0);
    assert_eq!(ask(&partition, -1, uncommitted), Err(OffsetError::OffsetNotAvailable));
    assert_eq!(partition.filter_found_offset(Offset(6), uncommitted), Err(OffsetError::OffsetNotAvailable));
    assert!(ask(&partition, -2, uncommitted).is_ok());
    fetch_from(&mut partition, 2, 10, 1, 0);
    assert!(ask(&partition, -1, uncommitted).is_ok());
}

#[test]
fn delete_records_is_bounded_by_the_high_watermark() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1, 2], 1, 0);
    append(&mut partition, 10, 1);
    fetch_from(&mut partition, 2, 6, 1, 0);
    let config = config(1);
    let out_of_range = |offset| Err(DeleteRecordsError::Read(ReadError::OffsetOutOfRange(Offset(offset))));
    assert_eq!(partition.delete_records(Offset(7), &config), out_of_range(7));
    assert_eq!(partition.delete_records(Offset(-2), &config), out_of_range(-2));
    assert_eq!(partition.delete_records(Offset(3), &config), Ok(Offset(3)));
    assert_eq!(partition.delete_records(Offset(2), &config), Ok(Offset(2)), "already gone");
    assert_eq!(partition.log().log_start_offset(), Offset(3));
    assert_eq!(partition.delete_records(Offset(-1), &config), Ok(Offset(6)));
    assert_eq!(partition.low_watermark(|_| true), Offset(0), "the follower has not deleted yet");
    assert_eq!(partition.low_watermark(|_| false), Offset(6));
    let compacted = LogConfig { cleanup_delete: false, cleanup_compact: true, ..config };
    assert_eq!(partition.delete_records(Offset(6), &compacted), Err(DeleteRecordsError::PolicyViolation));
}

#[test]
fn followers_copy_batches_of_known_epochs_and_trail_the_leader() {
    let mut partition = new_partition();
    follow(&mut partition, 3);
    let placed = |offset, epoch| {
        let mut bytes = records(2, None).to_vec();
        set_base_offset_and_epoch(&mut bytes, Offset(offset), LeaderEpoch(epoch));
        bytes
    };
    let fetched = [placed(0, 1), placed(2, 3), placed(4, 4)].concat();
    let now = Now { monotonic: at(0), wall: TimestampMs(0) };
    let append = partition.follower_prepare(&fetched, LeaderEpoch(3), &config(1), now).unwrap();
    assert_eq!((append.bytes, append.next_offset), (fetched.len() / 3 * 2, Offset(4)));
    assert_eq!(partition.log().leader_epochs().latest_epoch(), Some(LeaderEpoch(3)));
    assert_eq!(partition.follower_advance(Offset(9), Offset(0)), (None, false), "nothing is durable yet");
    partition.on_durable(Offset(4), &config(1), at(0));
    assert_eq!(partition.follower_advance(Offset(3), Offset(1)), (Some(Offset(3)), true));
    assert_eq!(partition.follower_advance(Offset(9), Offset(9)), (Some(Offset(4)), true), "held within the log");
    assert!(partition.follower_prepare(&placed(0, 3), LeaderEpoch(3), &config(1), now).is_err(), "not at the end");
    assert!(partition.follower_prepare(&placed(4, 3), LeaderEpoch(2), &config(1), now).is_err(), "other epoch");
    partition.close(Unserved::NodeStopping);
    assert!(partition.follower_prepare(&placed(4, 3), LeaderEpoch(3), &config(1), now).is_err(), "the node stops");
}

#[test]
fn an_empty_follower_may_have_to_start_inside_of_a_batch() {
    let mut partition = new_partition();
    follow(&mut partition, 1);
    partition.replace_log(Log::new(Offset(5), TimestampMs(0), 0));
    let mut bytes = records(4, None).to_vec();
    set_base_offset_and_epoch(&mut bytes, Offset(3), LeaderEpoch(1));
    let now = Now { monotonic: at(0), wall: TimestampMs(0) };
    let prepare = |partition: &mut Partition| partition.follower_prepare(&bytes, LeaderEpoch(1), &config(1), now);
    let error = prepare(&mut partition).unwrap_err();
    assert_eq!(error, crate::FollowerAppendError::StartsBelowEmptyLog(Offset(3)));
    partition.replace_log(Log::new(Offset(3), TimestampMs(0), 0));
    assert_eq!(prepare(&mut partition).unwrap().next_offset, Offset(7));
}

#[test]
fn an_idle_partition_is_small() {
    assert!(size_of::<Partition>() <= 1024, "{}", size_of::<Partition>());
}

#[test]
fn followers_truncate_where_histories_part() {
    let mut partition = new_partition();
    follow(&mut partition, 9);
    let now = Now { monotonic: at(0), wall: TimestampMs(0) };
    for (epoch, start, count) in [(2, 0, 20), (4, 20, 10), (6, 30, 10)] {
        let mut bytes = records(count, None).to_vec();
        set_base_offset_and_epoch(&mut bytes, Offset(start), LeaderEpoch(epoch));
        partition.follower_prepare(&bytes, LeaderEpoch(9), &config(1), now).unwrap();
    }
    for (epoch, end, offset, complete) in [
        (6, 35, 35, true),
        (6, 55, 40, true),
        (5, 25, 30, false),
        (4, 25, 25, true),
        (4, 33, 30, true),
        (7, 38, 38, true),
        (1, 5, 0, true),
        (-1, -1, 33, true),
    ] {
        let diverging = EpochEndOffset { epoch: LeaderEpoch(epoch), end_offset: Offset(end) };
        let found = partition.truncation_for(diverging, Offset(33));
        assert_eq!(found, Truncation { offset: Offset(offset), complete }, "{epoch} {end}");
    }
    partition.on_durable(Offset(40), &config(1), at(0));
    partition.follower_advance(Offset(35), Offset(0));
    partition.replace_log(Log::new(Offset(0), TimestampMs(0), 0));
    assert_eq!((partition.high_watermark(), partition.durable_end_offset()), (Offset(0), Offset(0)));
}

/// Random events; the rules of the high watermark hold after each.
#[test]
fn random_events_keep_the_invariants() {
    for seed in 0..40 {
        let mut random = Random::from_seed(seed);
        let mut partition = new_partition();
        let mut epoch = 1;
        lead(&mut partition, epoch, &[1, 2, 3], &[1, 2, 3], 2, 0);
        let mut in_flight: Vec<Offset> = Vec::new();
        let mut high_watermark = Offset(0);
        for step in 0..300 {
            let now = step * 3000;
            match random.below(8) {
                0 | 1 => {
                    if let Ok(LeaderAppend::Append(prepared)) = prepare(&mut partition, &records(2, None), 1, 2) {
                        in_flight.push(prepared.next_offset);
                    }
                }
                2 | 3 if !in_flight.is_empty() => {
                    partition.on_durable(in_flight.remove(0), &config(2), at(now));
                }
                4 => {
                    partition.propose_shrink(at(now));
                }
                5 if partition.isr().has_pending() => {
                    let size = 1 + random.below(3) as i32;
                    let committed = AlterPartitionOutcome::Committed {
                        leader_epoch: LeaderEpoch(epoch),
                        partition_epoch: PartitionEpoch(partition.partition_epoch().0 + 1),
                        isr: (1..=size).map(NodeId).collect(),
                    };
                    partition.on_alter_partition(&committed, &config(2), at(now));
                }
                6 if random.below(10) == 0 => {
                    epoch += 1;
                    lead(&mut partition, epoch, &[1, 2, 3], &[1, 2, 3], 2, now);
                }
                _ => {
                    let replica = 2 + random.below(2) as i32;
                    let offset = random.below(partition.durable_end_offset().0 as u64 + 1) as i64;
                    fetch_from(&mut partition, replica, offset, 2, now);
                }
            }
            let found = partition.high_watermark();
            assert!(found >= high_watermark, "seed {seed}: the high watermark went back");
            if found > high_watermark {
                assert!(partition.isr().committed().len() >= 2, "seed {seed}: moved below the minimum");
                let held = |r: &&RemoteReplica| partition.isr().maximal_contains(r.replica);
                assert!(partition.remote_replicas().iter().filter(held).all(|r| r.log_end_offset >= found));
            }
            assert!(found <= partition.durable_end_offset());
            assert!(partition.durable_end_offset() <= partition.log().log_end_offset());
            high_watermark = found;
        }
    }
}

fn fetched_to(partition: &mut Partition, replica: i32, offset: i64, now: u64) -> Effects {
    let fetch = FollowerFetch {
        replica: NodeId(replica),
        fetch_offset: Offset(offset),
        log_start_offset: Offset(0),
        broker_epoch: BrokerEpoch(7),
        eligible_for_isr: true,
    };
    partition.on_follower_fetch(&fetch, &config(1), at(now))
}

#[test]
fn a_follower_reads_what_the_leader_still_writes_and_nobody_else_does() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2], &[1, 2], 1, 0);
    let Ok(LeaderAppend::Append(prepared)) = prepare(&mut partition, &records(3, None), -1, 1) else {
        panic!("not appended")
    };
    let read = |partition: &Partition, reader| {
        let request =
            ReadRequest { fetch_offset: Offset(0), reader, current_leader_epoch: None, last_fetched_epoch: None };
        partition.read(&request).map(|plan| matches!(plan, ReadPlan::Records { limit: Offset(3), .. }))
    };
    let follower = Reader::Follower { replica: NodeId(2), stale_broker_epoch: false };
    assert_eq!((read(&partition, follower), read(&partition, CONSUMER)), (Ok(true), Ok(false)));
    // The follower has it first: it counts once the leader has it, too.
    assert_eq!(fetched_to(&mut partition, 2, 3, 1).high_watermark, None);
    assert_eq!(partition.high_watermark(), Offset(0));
    let effects = partition.on_durable(prepared.next_offset, &config(1), at(2));
    assert_eq!(effects.high_watermark, Some(Offset(3)));
    assert_eq!(read(&partition, CONSUMER), Ok(true));
}

#[test]
fn a_consumer_is_sent_to_a_replica_near_it_that_has_what_it_reads() {
    let mut partition = new_partition();
    lead(&mut partition, 1, &[1, 2, 3, 4], &[1, 2, 3], 1, 0);
    append(&mut partition, 5, 1);
    let near = |ids: &'static [i32]| move |id: NodeId| ids.contains(&id.0);
    assert_eq!(partition.preferred_read_replica(Offset(2), at(1), near(&[2, 3])), None, "nobody has it yet");
    fetched_to(&mut partition, 2, 3, 1);
    fetched_to(&mut partition, 3, 5, 2);
    fetched_to(&mut partition, 4, 4, 2);
    let preferred = |ids, offset| partition.preferred_read_replica(Offset(offset), at(3), near(ids));
    assert_eq!(preferred(&[2], 2), Some(NodeId(2)));
    assert_eq!(preferred(&[2, 3], 2), Some(NodeId(3)), "who has most");
    assert_eq!(preferred(&[2], 4), None, "it lacks what is asked for");
    assert_eq!(preferred(&[4], 2), None, "it isn't in sync");
    assert_eq!(preferred(&[1, 2, 3], 2), None, "the leader is as near");
    assert_eq!(preferred(&[], 2), None);
}
