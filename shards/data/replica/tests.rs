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
fn a_follower_that_has_caught_up_is_proposed_and_is_in_when_the_controller_says_so() {
    on_executor("replica-isr", |directory| async move {
        let replica = leader(directory, &[LOCAL]);
        let proposals = Rc::new(Proposals::default());
        replica.set_proposals(&proposals);
        append(&replica);
        replica.written_out().await;
        fetch(&replica, Offset(1));
        let proposal = proposals.take().pop().expect("it is wanted in");
        assert_eq!(proposal.new_isr, [(LOCAL, BrokerEpoch::NONE), (FOLLOWER, BrokerEpoch(9))]);
        assert!(replica.is_proposed(&proposal));
        // One at a time.
        fetch(&replica, Offset(1));
        assert!(proposals.take().is_empty());
        let committed = |partition_epoch| AlterPartitionOutcome::Committed {
            leader_epoch: LeaderEpoch(3),
            partition_epoch: PartitionEpoch(partition_epoch),
            isr: vec![LOCAL, FOLLOWER],
        };
        replica.on_alter_partition(&proposal, &committed(6));
        assert_eq!(replica.partition.borrow().isr().committed(), [LOCAL, FOLLOWER]);
        assert!(!replica.is_proposed(&proposal));
        // What is answered to it once more, late, is about a partition that has gone on.
        replica.on_alter_partition(&proposal, &AlterPartitionOutcome::Ineligible);
        assert_eq!(replica.partition.borrow().isr().committed(), [LOCAL, FOLLOWER]);
    });
}

/// A follower in epoch 3.
fn follower(directory: std::path::PathBuf) -> Rc<Replica> {
    std::fs::create_dir(&directory).unwrap();
    let replica = leader(directory, &[LOCAL]);
    let state = FollowerState { leader: FOLLOWER, leader_epoch: LeaderEpoch(4), partition_epoch: PartitionEpoch(6) };
    replica.become_follower(&state);
    replica
}

/// What a leader in epoch 3 has in its file after five appends, and where each ends.
async fn led(directory: std::path::PathBuf) -> (Vec<u8>, Vec<usize>) {
    std::fs::create_dir(&directory).unwrap();
    let replica = leader(directory.clone(), &[LOCAL]);
    let mut ends = Vec::new();
    for _ in 0..5 {
        append(&replica);
        ends.push(replica.partition.borrow().log().size() as usize);
    }
    replica.written_out().await;
    let mut bytes = std::fs::read(directory.join("00000000000000000000.log")).unwrap();
    bytes.truncate(ends[4]);
    (bytes, ends)
}

#[test]
fn a_follower_has_what_its_leader_has_byte_for_byte_and_goes_back_where_it_is_told_to() {
    on_executor("replica-follows", |directory| async move {
        let (bytes, ends) = led(directory.join("leader")).await;
        let replica = follower(directory.join("follower"));
        let epoch = LeaderEpoch(4);
        let file = directory.join("follower").join("00000000000000000000.log");
        let is_copied = || std::fs::read(&file).unwrap()[..bytes.len()] == bytes;
        // A batch that is cut off isn't there yet.
        let taken = replica.append_fetched(&bytes[..ends[4] - 1], epoch, ring::now()).unwrap();
        assert_eq!((taken.bytes, taken.next_offset), (ends[3], Offset(4)));
        assert_eq!(replica.fetch_position(), None, "what isn't written isn't acknowledged");
        replica.written_out().await;
        let position = replica.fetch_position().unwrap();
        assert_eq!((position.fetch_offset, position.last_fetched_epoch), (Offset(4), LeaderEpoch(3)));
        replica.append_fetched(&bytes[ends[3]..], epoch, ring::now()).unwrap();
        replica.written_out().await;
        assert!(is_copied());
        replica.advance(Offset(2), Offset(0));
        assert_eq!(replica.high_watermark(), Offset(2));
        // Of another epoch, it isn't meant any more.
        replica.truncate(Offset(3), LeaderEpoch(3)).await.unwrap();
        assert_eq!(replica.log_end_offset(), Offset(5));
        replica.truncate(Offset(3), epoch).await.unwrap();
        assert_eq!((replica.log_end_offset(), replica.durable_end_offset()), (Offset(3), Offset(3)));
        assert_eq!(std::fs::metadata(&file).unwrap().len(), ends[2] as u64);
        replica.append_fetched(&bytes[ends[2]..], epoch, ring::now()).unwrap();
        replica.written_out().await;
        assert!(is_copied());
        assert_eq!(replica.high_watermark(), Offset(2));
    });
}

#[test]
fn what_is_appended_while_old_index_files_go_is_told_of() {
    on_executor("replica-old-indexes", |directory| async move {
        for name in ["00000000000000000000.index", "00000000000000000000.timeindex"] {
            std::fs::write(directory.join(name), [0; 24]).unwrap();
        }
        let replica = leader(directory, &[LOCAL]);
        replica.store().has_old_indexes();
        append(&replica);
        // The pass begins, and a thread apart removes the files.
        ring::yield_now().await;
        append(&replica);
        replica.written_out().await;
        assert_eq!(replica.durable_end_offset(), Offset(2));
    });
}

#[test]
fn a_follower_that_is_far_behind_begins_anew() {
    on_executor("replica-anew", |directory| async move {
        let (bytes, _) = led(directory.join("leader")).await;
        let replica = follower(directory.join("follower"));
        let epoch = LeaderEpoch(4);
        replica.append_fetched(&bytes, epoch, ring::now()).unwrap();
        replica.written_out().await;
        replica.restart_at(Offset(100), epoch).await.unwrap();
        let position = replica.fetch_position().unwrap();
        assert_eq!((position.fetch_offset, position.log_start_offset), (Offset(100), Offset(100)));
        assert_eq!(position.last_fetched_epoch, LeaderEpoch::NONE);
        let logs: Vec<_> = std::fs::read_dir(directory.join("follower"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".log"))
            .collect();
        assert_eq!(logs, ["00000000000000000100.log"]);
        // It can lead from there.
        replica.become_leader(&LeaderState {
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(7),
            replicas: &[LOCAL, FOLLOWER],
            isr: &[LOCAL],
            inactive: &[],
            recovery_state: RecoveryState::Recovered,
        });
        assert_eq!(append(&replica).base_offset, Offset(100));
        replica.written_out().await;
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

/// The records are in their file before the checkpoint of their epoch is, which finds no room for a while.
#[test]
fn what_lacks_only_its_epoch_is_durable_once_there_is_room_for_that() {
    on_executor("replica-epochs", |directory| async move {
        let (bytes, _) = led(directory.join("leader")).await;
        let replica = follower(directory.join("follower"));
        replica.set_config(Rc::new(LogConfig { flush_messages: 1, ..LogConfig::default() }));
        let epoch = LeaderEpoch(4);
        let temporary = directory.join("follower").join("leader-epoch-checkpoint.tmp");
        // Opens, and takes nothing.
        std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
        replica.append_fetched(&bytes, epoch, ring::now()).unwrap();
        replica.written_out().await;
        assert!(replica.is_stuck());
        assert_eq!(replica.fetch_position(), None);
        let refused = replica.truncate(Offset(2), epoch).await.unwrap_err();
        assert_eq!(ring::trouble(&refused), ring::Trouble::Full, "it passes");
        std::fs::remove_file(&temporary).unwrap();
        while replica.fetch_position().is_none() {
            replica.progressed().await;
        }
        replica.written_out().await;
        assert!(!replica.is_stuck());
        replica.truncate(Offset(2), epoch).await.unwrap();
        assert_eq!(replica.fetch_position().unwrap().fetch_offset, Offset(2));
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
