//! Moves between the directories of a node, and what a crash leaves of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlog_log::LogConfig;
use ringlog_partition::{ReadPlan, ReadRequest, Reader};
use ringlog_ring as ring;
use ringlog_types::{ErrorCode, Offset, Uuid};

use super::cluster::{D1, D2, TestNode, appended, appended_in_rounds, claim_in};
use super::small_segments;
use crate::data::replica::Replica;
use crate::shard::Shard;
use crate::storage::log_read::{ReadRange, StoredLog as _, available};

const TOPIC: Uuid = Uuid([7; 16]);
const COPY: &str = "t-0.711669e5f1b04cb5b57675f03a1eb1c1-future";

fn config() -> LogConfig {
    LogConfig { file_delete_delay_ms: 0, ..small_segments() }
}

/// Folders of the partition in both directories.
fn folders(node: &TestNode) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["d1", "d2"] {
        for entry in fs::read_dir(node.path().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("t-0") {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    found.retain(|name| !name.ends_with("-delete"));
    found.sort();
    found
}

async fn moved(shard: &Shard, replica: &Rc<Replica>, place: usize) {
    assert_eq!(shard.log_dirs.move_replica(replica, place).await, ErrorCode::None);
    while shard.log_dirs.moves.of(replica.id).is_some() {
        ring::sleep_ms(1).await;
    }
    assert_eq!(replica.log_dir(), place);
}

/// What is read of all of the log, in bytes.
async fn read_all(replica: &Replica) -> usize {
    let (mut from, end) = (Offset(0), replica.log_end_offset());
    let mut bytes = 0;
    while from < end {
        let request = ReadRequest {
            fetch_offset: from,
            reader: Reader::Internal,
            current_leader_epoch: None,
            last_fetched_epoch: None,
        };
        let Ok(ReadPlan::Records { location, limit, .. }) = replica.plan_read(&request) else { panic!("at {from}") };
        let range = ReadRange { place: location, from, limit, max_bytes: 1, at_least_one: true };
        // One batch of five records.
        let read = replica.read(&range).await.unwrap();
        bytes += available(&read.slices);
        from = from.plus(5);
    }
    bytes
}

#[test]
fn a_log_goes_on_in_the_other_directory() {
    let node = TestNode::with_two_directories();
    node.run(2, async move |shard| {
        claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async |shard, replica| {
            appended_in_rounds(&replica, 40).await;
            let before = read_all(&replica).await;
            for (round, place) in [1, 0, 1].into_iter().enumerate() {
                moved(&shard, &replica, place).await;
                assert_eq!(read_all(&replica).await, before + round * before / 40);
                // It is written to as before, by the same producer.
                appended(&replica, 200 + round as i32 * 5, 5, 200).await;
            }
            // Where it is it needn't go.
            moved(&shard, &replica, 1).await;
        })
        .await;
    });
    assert_eq!(folders(&node), ["d2/t-0"]);
    // As after a kill.
    node.run(1, async move |shard| {
        let found = claim_in(&shard, "t-0", TOPIC, Some(D2), config(), async |_, replica| {
            read_all(&replica).await;
        })
        .await;
        assert_eq!((found.log_start, found.log_end, found.producers), (0, 215, 1));
        super::super::close_all(&shard.log_dirs, None).await;
    });
}

#[test]
fn what_is_deleted_meanwhile_stays_deleted() {
    let node = TestNode::with_two_directories();
    node.run(1, async move |shard| {
        claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async |shard, replica| {
            appended_in_rounds(&replica, 40).await;
            replica.delete_records(Offset(123)).unwrap();
            shard.log_dirs.after_log_start_moved(&replica).await;
            moved(&shard, &replica, 1).await;
            assert_eq!(replica.with_log(|log| log.log_start_offset()), Offset(123));
        })
        .await;
    });
    node.run(1, async move |shard| {
        let found = claim_in(&shard, "t-0", TOPIC, Some(D2), config(), async |_, _| {}).await;
        assert_eq!((found.log_start, found.log_end), (123, 200));
    });
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A node whose log has 100 records in `d1`, and a copy in `d2` that has 200.
fn with_longer_copy() -> (TestNode, PathBuf, PathBuf) {
    let node = TestNode::with_two_directories();
    let (log, future) = (node.path().join("d1/t-0"), node.path().join("d2").join(COPY));
    let aside = node.path().join("aside");
    for rounds in [20, 40] {
        node.run(1, async move |shard| {
            claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async move |_, replica| {
                let begun = replica.log_end_offset().0 as i32 / 5;
                for round in begun..rounds {
                    appended(&replica, round * 5, 5, 200).await;
                }
            })
            .await;
            super::super::close_all(&shard.log_dirs, None).await;
        });
        if rounds == 20 {
            copy(&log, &aside);
        }
    }
    fs::rename(&log, &future).unwrap();
    fs::rename(&aside, &log).unwrap();
    (node, log, future)
}

#[test]
fn a_copy_that_the_metadata_names_takes_the_place_of_less_than_it_has() {
    for is_alone in [false, true] {
        let (node, log, _) = with_longer_copy();
        if is_alone {
            fs::remove_dir_all(log).unwrap();
        }
        node.run(1, async move |shard| {
            let found = claim_in(&shard, "t-0", TOPIC, Some(D2), config(), async |shard, replica| {
                assert_eq!(replica.log_dir(), 1);
                assert!(shard.log_dirs.moves.of(replica.id).is_none());
                appended(&replica, 200, 5, 200).await;
            })
            .await;
            assert_eq!(found.log_end, 200);
        });
        assert_eq!(folders(&node), ["d2/t-0"]);
    }
}

#[test]
fn a_copy_that_the_metadata_does_not_name_becomes_what_the_log_is() {
    let (node, ..) = with_longer_copy();
    node.run(1, async move |shard| {
        let found = claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async |shard, replica| {
            // Nobody has to be told where it lies, by this metadata.
            while shard.log_dirs.moves.of(replica.id).is_some() {
                ring::sleep_ms(1).await;
            }
            assert_eq!((replica.log_dir(), replica.log_end_offset()), (1, Offset(100)));
            read_all(&replica).await;
        })
        .await;
        assert_eq!(found.log_end, 100);
    });
    assert_eq!(folders(&node), ["d2/t-0"]);
}

#[test]
fn a_copy_goes_with_its_replica_and_with_its_directory() {
    let node = TestNode::with_two_directories();
    node.run(1, async move |shard| {
        claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async |shard, replica| {
            appended_in_rounds(&replica, 200).await;
            assert_eq!(shard.log_dirs.move_replica(&replica, 1).await, ErrorCode::None);
            shard.log_dirs.fail(1, "a test").await;
            assert!(shard.log_dirs.moves.of(replica.id).is_none() && replica.unserved().is_none());
            // There may be a copy where nobody sees it.
            assert_eq!(shard.log_dirs.move_replica(&replica, 1).await, ErrorCode::KafkaStorageError);
            appended(&replica, 1000, 5, 200).await;
        })
        .await;
    });
    node.run(1, async move |shard| {
        claim_in(&shard, "t-0", TOPIC, Some(D1), config(), async |shard, replica| {
            // The copy is found again; or the move is done already, and goes back.
            let place = 1 - replica.log_dir();
            assert_eq!(shard.log_dirs.move_replica(&replica, place).await, ErrorCode::None);
            shard.log_dirs.delete(vec![replica.clone()], ringlog_partition::Unserved::TopicDeleted).await;
            assert!(shard.log_dirs.moves.of(replica.id).is_none());
        })
        .await;
    });
    assert_eq!(folders(&node), Vec::<String>::new());
}
