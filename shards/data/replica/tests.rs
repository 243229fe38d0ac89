use ringlog_log::validator::AppendOrigin;
use ringlog_log::{Log, TransactionRules};
use ringlog_partition::{PartitionLimits, RecoveryState};
use ringlog_protocol::records::{BatchBuilder, Unpacker};
use ringlog_types::{BrokerEpoch, ErrorCode, PartitionEpoch, PartitionIndex, Uuid};

use super::*;
use crate::storage::segment_store::tests::{context, on_executor};

const LOCAL: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);

/// A leader whose partition has a replica on node 2, too, which isn't in sync unless `isr` says so.
fn leader(directory: std::path::PathBuf, isr: &[NodeId]) -> Rc<Replica> {
    let id = TopicIdPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) };
    let name = TopicPartition { topic: "t".into(), partition: PartitionIndex(0) };
    let log = Log::new(Offset(0), ring::now().wall, 0);
    let store = SegmentStore::new(context(16 << 20), directory, &log, None);
    let partition = Partition::new(id, LOCAL, log, Offset(0), PartitionLimits::default());
    let replica = Replica::new(partition, name, 0, store, Rc::new(LogConfig::default()));
    replica.become_leader(&LeaderState {
        leader_epoch: LeaderEpoch(3),
        partition_epoch: PartitionEpoch(5),
        replicas: &[LOCAL, FOLLOWER],
        isr,
        inactive: &[],
        recovery_state: RecoveryState::Recovered,
    });
    replica
}

fn append(replica: &Rc<Replica>) -> Appended {
    let mut builder = BatchBuilder::new(Default::default());
    builder.append(ring::now().wall, None, Some(&[1; 100]), &[]);
    let transaction = TransactionRules::default();
    let rules = AppendRules { origin: AppendOrigin::Coordinator, required_acks: -1, transaction };
    replica.append_own(&builder.build(), &rules, &mut Unpacker::new(), ring::now()).unwrap()
}

fn fetch(replica: &Replica, fetch_offset: Offset) {
    replica.on_follower_fetch(&FollowerFetch {
        replica: FOLLOWER,
        fetch_offset,
        log_start_offset: Offset(0),
        broker_epoch: BrokerEpoch(9),
        eligible_for_isr: true,
    });
}

#[test]
fn in_sync_replicas_that_nobody_asks_for_are_not_waited_for() {
    on_executor("replica-isr", |directory| async move {
        let replica = leader(directory, &[LOCAL]);
        append(&replica);
        replica.written_out().await;
        // It would be taken in now, which this node can't ask for. Were it counted on all the same, what it then lacks
        // would never be committed.
        fetch(&replica, Offset(1));
        assert!(!replica.partition.borrow().isr().has_pending());
        assert_eq!(replica.partition.borrow().isr().committed(), [LOCAL]);
        assert!(replica.isr_is_told.get());
    });
}

#[test]
fn a_producer_that_wants_all_waits_for_the_fetch_of_the_follower() {
    on_executor("replica-follower", |directory| async move {
        let replica = leader(directory, &[LOCAL, FOLLOWER]);
        let appended = append(&replica);
        replica.written_out().await;
        assert_eq!(replica.acknowledged(&appended, 1), Some(Ok(())));
        assert_eq!(replica.acknowledged(&appended, -1), None);
        let waiting = ring::spawn({
            let replica = replica.clone();
            async move { replica.progressed().await }
        });
        while replica.waiting().1 == 0 {
            ring::yield_now().await;
        }
        fetch(&replica, Offset(1));
        waiting.await;
        assert_eq!(replica.acknowledged(&appended, -1), Some(Ok(())));
        // Another leader: what waits is told, and what was appended in the old epoch isn't acknowledged any more.
        let appended = append(&replica);
        replica.become_follower(&FollowerState {
            leader: FOLLOWER,
            leader_epoch: LeaderEpoch(4),
            partition_epoch: PartitionEpoch(6),
        });
        assert_eq!(replica.acknowledged(&appended, -1), Some(Err(ErrorCode::NotLeaderOrFollower)));
        assert_eq!(replica.led_epoch(), None);
        replica.written_out().await;
    });
}

#[test]
fn a_replica_that_was_deleted_writes_nothing_more() {
    on_executor("replica-deleted", |directory| async move {
        let replica = leader(directory.clone(), &[LOCAL]);
        append(&replica);
        replica.written_out().await;
        let appended = append(&replica);
        replica.close(Unserved::TopicDeleted);
        assert_eq!(replica.acknowledged(&appended, 1), Some(Err(ErrorCode::UnknownTopicOrPartition)));
        replica.give_up_files().await;
        assert!(replica.has_given_up_files());
        // Another log has its names by now.
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        replica.flush().await.unwrap();
        replica.persist_leader_epochs().await.unwrap();
        replica.end_old_segments();
        replica.retire_segments(|path| panic!("{} was renamed", path.display())).await.unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    });
}
