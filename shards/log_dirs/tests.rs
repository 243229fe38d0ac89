//! Log directories on a real file system, with one and two shards: what Kafka wrote is opened and left as Kafka leaves
//! it, and what a kill leaves is made good.

pub(crate) mod cluster;
mod moves;

use std::collections::BTreeMap;
use std::path::Path;

use crate::core::Room as _;
use crate::directories::LogDirectory;
use crate::fixtures;
use cluster::{Claimed, TestNode, appended, appended_in_rounds, appended_unwritten, claim, claim_with, taken_over};
use ringlog_log::LogConfig;
use ringlog_log::names::{CLEAN_SHUTDOWN_FILE, FileKind, SegmentFile};
use ringlog_log::segment_index::SegmentIndex;
use ringlog_protocol::records::BatchIter;
use ringlog_types::{BrokerEpoch, Offset, Uuid};

use super::LogDirFault;

/// What the Java consumer saw of a fixture's partitions: log start, high watermark, last stable offset.
fn expected_offsets(fixture: &str) -> BTreeMap<String, (i64, i64, i64)> {
    let reads: serde_json::Value = serde_json::from_slice(&fixtures::reads_json(fixture)).unwrap();
    let offset = |read: &serde_json::Value, name: &str| read[name].as_i64().unwrap();
    let of = |read| (offset(read, "logStartOffset"), offset(read, "highWatermark"), offset(read, "lastStableOffset"));
    reads.as_object().unwrap().iter().map(|(name, read)| (name.clone(), of(read))).collect()
}

/// Partition directories of the fixture's log directory, with their topic ids.
fn partitions(files: &fixtures::Files) -> Vec<(String, Uuid)> {
    let of = |(path, bytes): (&String, &Vec<u8>)| {
        let name = path.strip_suffix("/partition.metadata")?;
        let id = ringlog_log::partition_metadata::parse_partition_metadata(bytes).unwrap();
        let is_current = !name.starts_with("__cluster_metadata") && !name.contains("-delete") && !name.contains('/');
        is_current.then(|| (name.to_owned(), id))
    };
    files.iter().filter_map(of).collect()
}

/// Opens a fixture on `shards` shards, claims all its logs and checks their offsets; then closes in order.
fn open_fixture_and_close(node: &TestNode, fixture: &str, shards: usize, is_clean: bool) {
    let expected = expected_offsets(fixture);
    let names = partitions(&fixtures::load(fixture));
    node.run(shards, async move |shard| {
        let epoch = shard.core.node.log_dirs.previous_broker_epoch();
        assert_eq!(epoch != BrokerEpoch::NONE, is_clean, "{epoch:?}");
        let mut checked = 0;
        for (name, topic_id) in &names {
            let Claimed { log_start, log_end, high_watermark, last_stable, .. } =
                claim(&shard, name, *topic_id, LogConfig::default()).await;
            if let Some(&(start, end, stable)) = expected.get(name) {
                assert_eq!((log_start, log_end, last_stable), (start, end, stable), "{name}");
                // Killed, it knows the high watermark of some seconds ago.
                assert!(if is_clean { high_watermark == end } else { high_watermark <= end }, "{name}");
                checked += 1;
            }
        }
        assert_eq!(checked, expected.len());
        super::close_all(&shard.log_dirs, Some(77)).await;
    });
}

#[test]
fn kafkas_directory_is_opened_and_left_as_it_was() {
    for shards in [1, 2] {
        let node = TestNode::of_fixture("single-node");
        open_fixture_and_close(&node, "single-node", shards, true);
        let before = fixtures::load("single-node");
        let after = node.files();
        for (path, bytes) in &before {
            let is_checkpoint = path.ends_with("offset-checkpoint");
            let went = path.ends_with(".deleted") || path.contains("-delete/") || path == ".kafka_cleanshutdown";
            if is_checkpoint {
                let lines = |bytes: &[u8]| {
                    let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                assert_eq!(lines(bytes), lines(&after[path]), "{path}");
            } else if !went {
                assert_eq!(Some(bytes), after.get(path), "{path}");
            }
        }
        let marker = &after[".kafka_cleanshutdown"];
        assert_eq!(marker, br#"{"version":0,"brokerEpoch":77}"#);
        for path in after.keys() {
            assert!(!path.ends_with(".deleted") && !path.ends_with(".tmp") && path != ".ringlog_probe", "{path}");
            assert!(before.contains_key(path) || path == ".lock", "{path} is new");
        }
    }
}

#[test]
fn what_a_kill_left_of_kafka_is_recovered() {
    let node = TestNode::of_fixture("unclean");
    open_fixture_and_close(&node, "unclean", 2, false);
    assert_indexes_follow_the_rule(&node, |path| !path.contains("fx-compact"));
    let snapshots = node.files().keys().filter(|path| path.ends_with(".snapshot")).count();
    assert!(snapshots > 10, "{snapshots} producer snapshots");
    // What it closed it trusts.
    open_fixture_and_close(&node, "unclean", 1, true);
}

/// Builds each segment's indexes anew from its batches and compares them with the files.
fn assert_indexes_follow_the_rule(node: &TestNode, counts: impl Fn(&str) -> bool) {
    let files = node.files();
    let mut compared = 0;
    for (path, log) in files.iter().filter(|(path, _)| path.ends_with(".log") && counts(path)) {
        if path.contains("-delete/") || path.starts_with("__cluster_metadata") {
            continue;
        }
        let name = path.rsplit('/').next().unwrap();
        let segment = SegmentFile::parse(name).unwrap();
        let mut index = SegmentIndex::new(segment.offset);
        let mut position = 0;
        for batch in BatchIter::new(log) {
            let batch = batch.unwrap();
            index.on_append(&batch.header, position, cluster::INDEX_INTERVAL_BYTES);
            position += batch.bytes.len() as u32;
        }
        assert_eq!(position as usize, log.len(), "{path} ends with a batch");
        index.on_close();
        let stem = path.strip_suffix(".log").unwrap();
        assert_eq!(index.offsets.encode_from(0), files[&format!("{stem}.index")], "{path}");
        assert_eq!(index.times.encode_from(0), files[&format!("{stem}.timeindex")], "{path}");
        compared += 1;
    }
    assert!(compared > 0);
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 4096, index_interval_bytes: cluster::INDEX_INTERVAL_BYTES, ..LogConfig::default() }
}

#[test]
fn acknowledged_records_survive_a_kill() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(2, async move |shard| {
        for partition in 0..4 {
            let name = format!("t-{partition}");
            claim_with(&shard, &name, topic, small_segments(), async |replica| appended_in_rounds(&replica, 60).await)
                .await;
        }
        // No close: that is the kill.
    });
    node.change("t-0", |log| log.extend_from_slice(&[0x55; 100]));
    node.change("t-1", |log| log.extend_from_slice(&[0; 8192]));
    for is_clean in [false, true] {
        node.run(1, async move |shard| {
            assert_eq!(shard.core.node.log_dirs.directories[0].clean_shutdown.is_some(), is_clean);
            for partition in 0..4 {
                let found = claim(&shard, &format!("t-{partition}"), topic, small_segments()).await;
                assert_eq!((found.log_start, found.log_end, found.producers), (0, 300, 1), "t-{partition}");
                assert_eq!(found.epochs, vec![(0, 0)]);
                assert!(found.segments > 10);
            }
            super::close_all(&shard.log_dirs, None).await;
        });
        assert_indexes_follow_the_rule(&node, |_| true);
    }
    // And they go on where they were.
    node.run(2, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 300, 5, 200).await).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    assert_indexes_follow_the_rule(&node, |_| true);
    node.run(2, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_end, found.high_watermark), (305, 305));
    });
}

#[test]
fn epochs_that_went_before_their_segments_are_found_again() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| {
            appended_in_rounds(&replica, 60).await;
            replica.flush().await.unwrap();
        })
        .await;
        super::checkpoints::write(&shard.log_dirs, super::checkpoint_rounds::Kinds::ALL).await;
    });
    // Retention took all but the end. The power failed: the names are back, and the epochs are not.
    let file = node.logs("t-0")[0].with_file_name("leader-epoch-checkpoint");
    for known in ["0\n1\n4 290\n", "0\n0\n"] {
        std::fs::write(&file, known).unwrap();
        node.run(1, async move |shard| {
            let found = claim(&shard, "t-0", topic, small_segments()).await;
            assert_eq!((found.log_start, found.log_end, found.epochs), (0, 300, vec![(0, 0)]), "{known}");
        });
    }
}

#[test]
fn segments_after_a_torn_one_go() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended_in_rounds(&replica, 60).await)
            .await;
    });
    // A power failure lost the middle of a segment that nobody had flushed.
    node.remove("recovery-point-offset-checkpoint");
    let logs = node.logs("t-0");
    let torn = &logs[3];
    let mut bytes = std::fs::read(torn).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    std::fs::write(torn, bytes).unwrap();
    let base_offset = SegmentFile::parse(torn.file_name().unwrap().to_str().unwrap()).unwrap().offset;
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert!(found.log_end >= base_offset.0 && found.log_end < base_offset.0 + 20, "{}", found.log_end);
        assert_eq!(found.segments, 4);
        super::close_all(&shard.log_dirs, None).await;
    });
    assert_indexes_follow_the_rule(&node, |_| true);
    assert_eq!(node.logs("t-0").len(), 4);
}

#[test]
fn an_emptied_log_goes_on_at_its_end_after_a_kill() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        let config = LogConfig { retention_bytes: 0, file_delete_delay_ms: 0, ..small_segments() };
        claim_with(&shard, "t-0", topic, config, async |replica| appended_in_rounds(&replica, 20).await).await;
        super::background::enforce_retention(&shard.log_dirs).await;
        super::removal::remove_due(&shard.log_dirs).await;
    });
    assert_eq!(node.logs("t-0").len(), 1);
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (100, 100));
    });
}

#[test]
fn deleted_records_stay_deleted_after_a_kill() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(2, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| {
            appended(&replica, 0, 5, 200).await;
            appended(&replica, 5, 5, 200).await;
        })
        .await;
        let id = cluster::id_of("t-0", topic);
        shard
            .invoke_on(shard.core.node.home_of(id), move |shard| {
                let shard = shard.clone();
                Box::pin(async move {
                    let replica = shard.data.replicas.get(id).unwrap();
                    replica.delete_records(Offset(7)).unwrap();
                    shard.log_dirs.after_log_start_moved(&replica).await;
                })
            })
            .await;
    });
    node.run(2, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (7, 10));
    });
}

#[test]
fn a_new_topic_inherits_nothing_from_a_deleted_one_of_its_name() {
    let node = TestNode::formatted();
    let (old, new) = (Uuid([7; 16]), Uuid([9; 16]));
    node.run(2, async move |shard| {
        claim_with(&shard, "t-0", old, small_segments(), async |replica| appended_in_rounds(&replica, 20).await).await;
        let id = cluster::id_of("t-0", old);
        shard
            .invoke_on(shard.core.node.home_of(id), move |shard| {
                let shard = shard.clone();
                Box::pin(async move {
                    let replica = shard.data.replicas.get(id).unwrap();
                    replica.delete_records(Offset(57)).unwrap();
                    shard.log_dirs.after_log_start_moved(&replica).await;
                    replica.flush().await.unwrap();
                    super::checkpoints::write_from(&shard.log_dirs, super::checkpoint_rounds::Kinds::ALL).await;
                    shard.log_dirs.delete(vec![replica], ringlog_partition::Unserved::TopicDeleted).await;
                    assert!(shard.data.replicas.get(id).is_none());
                })
            })
            .await;
        claim_with(&shard, "t-0", new, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
    });
    assert_eq!(node.directories().iter().filter(|name| name.ends_with("-delete")).count(), 1);
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", new, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (0, 5));
    });
}

/// A core that is behind is about to make the log of a topic that is deleted again, while another one serves that of a newer
/// topic of its name.
#[test]
fn a_topic_that_is_gone_again_takes_nobodys_directory() {
    let node = TestNode::formatted();
    let (old, new) = (Uuid([7; 16]), Uuid([9; 16]));
    node.run(2, async move |shard| {
        claim_with(&shard, "t-0", new, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
        let id = cluster::id_of("t-0", old);
        let work = move |shard: &std::rc::Rc<crate::shard::Shard>| -> crate::mesh::LocalFuture<()> {
            let shard = shard.clone();
            Box::pin(async move {
                // That it is deleted again this core gets to know while it waits.
                let asked = std::cell::Cell::new(0);
                let is_outdated = |topic| {
                    assert_eq!(topic, old);
                    asked.replace(asked.get() + 1) > 2
                };
                let claim = cluster::claim_of("t-0", old, None, small_segments());
                let refused = shard.log_dirs.claim_all(vec![claim], &is_outdated).await;
                assert!(matches!(&refused[..], [(_, error)] if error.is_outdated() && !error.passes()), "{refused:?}");
                assert!(asked.get() > 2 && shard.data.replicas.get(id).is_none());
            })
        };
        shard.invoke_on(shard.core.node.home_of(id), work).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    assert!(!node.directories().iter().any(|name| name.ends_with("-stray")), "{:?}", node.directories());
    node.run(2, async move |shard| {
        assert_eq!(claim(&shard, "t-0", new, small_segments()).await.log_end, 5);
    });
}

#[test]
fn strays_are_set_aside_and_half_made_directories_go() {
    let node = TestNode::formatted();
    let (known, stray) = (Uuid([7; 16]), Uuid([9; 16]));
    node.run(1, async move |shard| {
        for (name, id) in [("a-0", known), ("b-0", stray)] {
            claim_with(&shard, name, id, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
        }
        super::close_all(&shard.log_dirs, None).await;
    });
    std::fs::create_dir(node.path().join("c-0")).unwrap();
    node.run(1, async move |shard| {
        let log_dirs = &shard.log_dirs;
        log_dirs.mark_strays(&|id| id.topic_id == known).await;
        let found = claim(&shard, "a-0", known, small_segments()).await;
        assert_eq!(found.log_end, 5);
        let found = claim(&shard, "b-0", Uuid([11; 16]), small_segments()).await;
        assert_eq!(found.log_end, 0);
        super::close_all(&shard.log_dirs, None).await;
    });
    let directories = node.directories();
    assert!(directories.iter().any(|name| name.starts_with("b-0.") && name.ends_with("-stray")), "{directories:?}");
    assert!(!directories.contains(&"c-0".to_owned()));
}

#[test]
fn a_log_that_took_a_strays_name_stays() {
    let node = TestNode::formatted();
    let (old, new) = (Uuid([7; 16]), Uuid([9; 16]));
    node.run(2, async move |shard| {
        for partition in 0..8 {
            let name = format!("t-{partition}");
            claim_with(&shard, &name, old, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
        }
        super::close_all(&shard.log_dirs, None).await;
    });
    node.run(2, async move |shard| {
        // The new topic is made before the shards look for strays.
        for partition in 0..8 {
            let name = format!("t-{partition}");
            claim_with(&shard, &name, new, small_segments(), async |replica| appended(&replica, 0, 3, 200).await).await;
        }
        for core in 0..2 {
            let work = move |shard: &std::rc::Rc<crate::shard::Shard>| -> crate::mesh::LocalFuture<()> {
                let shard = shard.clone();
                Box::pin(async move { shard.log_dirs.mark_strays(&|id| id.topic_id == new).await })
            };
            shard.invoke_on(core, work).await;
        }
        super::close_all(&shard.log_dirs, None).await;
    });
    assert_eq!(node.directories().iter().filter(|name| name.ends_with("-stray")).count(), 8);
    node.run(1, async move |shard| {
        for partition in 0..8 {
            let found = claim(&shard, &format!("t-{partition}"), new, small_segments()).await;
            assert_eq!(found.log_end, 3);
        }
    });
}

#[test]
fn a_stop_with_records_in_memory_writes_them() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(2, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| {
            for round in 0..60 {
                appended_unwritten(&replica, round * 5, 5, 200);
            }
        })
        .await;
        super::close_all(&shard.log_dirs, Some(5)).await;
    });
    assert_indexes_follow_the_rule(&node, |_| true);
    node.run(2, async move |shard| {
        assert_eq!(shard.core.node.log_dirs.previous_broker_epoch(), BrokerEpoch(5));
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_end, found.high_watermark), (300, 300));
    });
}

#[test]
fn describing_counts_every_log() {
    let node = TestNode::of_fixture("single-node");
    let names = partitions(&fixtures::load("single-node"));
    node.run(2, async move |shard| {
        for (name, topic_id) in &names {
            claim(&shard, name, *topic_id, LogConfig::default()).await;
        }
        let described = shard.log_dirs.describe().await;
        assert_eq!(described.len(), 1);
        assert_eq!(described[0].logs.len(), names.len());
        assert!(described[0].total_bytes > described[0].usable_bytes && described[0].usable_bytes > 0);
        assert!(described[0].logs.iter().map(|log| log.size_bytes).sum::<i64>() > 10_000);
    });
}

#[test]
fn a_directory_whose_marker_cannot_be_read_is_left_out() {
    let node = TestNode::of_fixture("dynamic-quorum-jbod");
    let (first, second) = (node.path().join("d1"), node.path().join("d2"));
    // A read of a directory is refused, as one of a bad block is.
    let spoil = |directory: &Path| {
        let marker = directory.join(CLEAN_SHUTDOWN_FILE);
        std::fs::remove_file(&marker).unwrap();
        std::fs::create_dir(&marker).unwrap();
    };
    spoil(&second);
    let checked = taken_over(&node.config_with("d1", "d2", 2)).unwrap();
    let offline = |directory: &LogDirectory| directory.offline.is_some();
    assert_eq!(checked.directories.iter().map(offline).collect::<Vec<_>>(), [false, true]);
    let reason = checked.directories[1].offline.as_deref().unwrap();
    assert!(reason.contains("d2/.kafka_cleanshutdown: can't be read"), "{reason}");
    assert!(!first.join(CLEAN_SHUTDOWN_FILE).exists());
    assert_eq!(checked.previous_broker_epoch(), BrokerEpoch::NONE);
    drop(checked);
    // Where the metadata log lies, nothing can be left out, and nothing is changed then.
    let node = TestNode::of_fixture("dynamic-quorum-jbod");
    spoil(&node.path().join("d1"));
    let fault = taken_over(&node.config_with("d1", "d2", 2)).err().unwrap().to_string();
    assert!(fault.contains("d1/.kafka_cleanshutdown: can't be read"), "{fault}");
    assert!(node.path().join("d2").join(CLEAN_SHUTDOWN_FILE).exists());
}

#[test]
fn refusals_say_what_to_do() {
    let node = TestNode::formatted();
    let checked = taken_over(&node.config(1)).unwrap();
    assert_eq!(checked.directories.len(), 1);
    assert!(matches!(taken_over(&node.config(1)), Err(LogDirFault::InUse(_))));
    drop(checked);
    let text = |node: &TestNode| taken_over(&node.config(1)).err().unwrap().to_string();
    node.rewrite("meta.properties", |text| text.replace("node.id=1", "node.id=4"));
    assert!(text(&node).contains("belongs to node.id 4"));
    node.rewrite("meta.properties", |text| text.replace("version=1", "version=0"));
    assert!(text(&node).contains("only version 1"));
    node.remove("meta.properties");
    assert!(text(&node).contains("ringlog storage format -t"));
    let two = TestNode::of_fixture("dynamic-quorum-jbod");
    let config = two.config_with("d1", "d2", 2);
    let checked = taken_over(&config).unwrap();
    assert_eq!(checked.usable_ids().len(), 2);
    assert_ne!(checked.previous_broker_epoch(), BrokerEpoch::NONE);
    drop(checked);
    two.rewrite("d2/meta.properties", |text| {
        let lines = text.lines().map(|line| if line.starts_with("cluster.id") { "cluster.id=other" } else { line });
        lines.collect::<Vec<_>>().join("\n")
    });
    let fault = taken_over(&config).err().unwrap().to_string();
    assert!(fault.contains("cluster id mismatch") && fault.contains("other"), "{fault}");
    std::fs::copy(two.path().join("d1/meta.properties"), two.path().join("d2/meta.properties")).unwrap();
    let fault = taken_over(&config).err().unwrap().to_string();
    assert!(fault.contains("same directory.id"), "{fault}");
}

#[test]
fn an_interrupted_compaction_is_finished() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended_in_rounds(&replica, 60).await)
            .await;
        super::close_all(&shard.log_dirs, None).await;
    });
    let logs = node.logs("t-0");
    let swap = |path: &Path, kind: FileKind| {
        let live = path.with_extension(&kind.suffix()[1..]);
        let mut name = live.clone().into_os_string();
        name.push(".swap");
        std::fs::rename(live, name).unwrap();
    };
    // The second and third segment have become one, of which the first part is all that compaction kept.
    for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
        swap(&logs[1], kind);
    }
    let unfinished = node.path().join("t-0/00000000000000000290.log.cleaned");
    std::fs::write(&unfinished, b"half").unwrap();
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (0, 300));
        super::close_all(&shard.log_dirs, None).await;
    });
    assert_eq!(node.logs("t-0"), logs);
    assert!(!unfinished.exists());
}

#[test]
fn retention_rolls_a_log_that_nobody_wrote_since_the_start() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    node.run(1, async move |shard| {
        let config = LogConfig { retention_bytes: 0, file_delete_delay_ms: 0, ..small_segments() };
        claim_with(&shard, "t-0", topic, config, async |replica| {
            // The high watermark follows once the leader looks at its log again.
            replica.wake_writer();
            replica.written_out().await;
        })
        .await;
        super::background::enforce_retention(&shard.log_dirs).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (5, 5));
    });
}

#[test]
fn indexes_from_before_a_kill_are_not_trusted() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    let index = node.logs("t-0").pop().unwrap().with_extension("index");
    assert!(index.exists());
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 5, 5, 200).await).await;
    });
    assert!(!index.exists(), "the segment has grown");
    // As an earlier life could have left them.
    std::fs::write(&index, []).unwrap();
    std::fs::write(index.with_extension("timeindex"), []).unwrap();
    node.run(1, async move |shard| {
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!(found.log_end, 10);
        // Nobody writes to it: what they say is read again only after an orderly stop.
        super::close_all(&shard.log_dirs, None).await;
    });
    assert!(!std::fs::read(index.with_extension("timeindex")).unwrap().is_empty(), "written anew");
    std::fs::write(index.with_extension("timeindex"), []).unwrap();
    let log_dir = index.ancestors().nth(2).unwrap();
    std::fs::remove_file(log_dir.join(CLEAN_SHUTDOWN_FILE)).unwrap();
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 10, 1, 200).await).await;
    });
    assert!(!index.exists() && !index.with_extension("timeindex").exists());
}

/// When thousands of partitions get another leader, nobody waits for thousands of files.
#[test]
fn leader_epochs_are_in_their_file_before_recovery_needs_them_there() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| appended(&replica, 0, 5, 200).await).await;
    });
    let file = node.logs("t-0")[0].with_file_name("leader-epoch-checkpoint");
    assert!(!file.exists(), "recovery reads the batches");
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| replica.flush().await.unwrap()).await;
    });
    let flushed = std::fs::read_to_string(&file).expect("recovery may begin behind them now");
    std::fs::remove_file(&file).unwrap();
    node.run(1, async move |shard| {
        claim(&shard, "t-0", topic, small_segments()).await;
        super::close_all(&shard.log_dirs, None).await;
    });
    assert_eq!(std::fs::read_to_string(&file).unwrap(), flushed, "after an orderly stop nothing is read");
}

#[test]
fn a_log_of_which_recovery_keeps_nothing_opens() {
    let node = TestNode::formatted();
    let topic = Uuid([7; 16]);
    node.run(1, async move |shard| {
        claim_with(&shard, "t-0", topic, small_segments(), async |replica| {
            appended(&replica, 0, 5, 200).await;
            replica.delete_records(Offset(5)).unwrap();
        })
        .await;
        super::checkpoints::write_from(&shard.log_dirs, super::checkpoint_rounds::Kinds::ALL).await;
    });
    // The device lost the records, but not where the log starts: the segment is cut, and then goes as a whole.
    node.change("t-0", |log| log.fill(0x55));
    node.run(1, async move |shard| {
        assert!(!shard.log_dirs.has_failed(0));
        let found = claim(&shard, "t-0", topic, small_segments()).await;
        assert_eq!((found.log_start, found.log_end), (5, 5));
    });
}
