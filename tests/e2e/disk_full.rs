//! Full disks. A broker goes on serving what it has, refuses records with an error that says so, and takes them again when
//! there is room. A controller that can't keep its metadata stops and says why; the others go on, and it comes back when
//! there is room again.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::Connection;
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::node::{Kind, Node, Roles};
use ringlog_e2e_tests::small_disk::SmallDisk;
use ringlog_e2e_tests::topics::{Creator, TopicPlan};
use ringlog_e2e_tests::{wait_until, wire};
use ringlog_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringlog_types::ErrorCode;

/// What the system says.
const NO_SPACE: &str = "No space left on device";
/// The controller with the small disk.
const VICTIM: i32 = 1;

#[test]
fn a_controller_without_space_leaves_the_quorum_alone() -> Result<()> {
    let _turn = cluster::turn();
    // Dropped last, when nobody uses it any more.
    let Some(disk) = SmallDisk::new("disk-full", 32)? else { return Ok(()) };
    let mut cluster = ClusterPlan::new("full", Voters::Static)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    let metadata = disk.folder().join("metadata").display().to_string();
    let node = cluster.node(VICTIM)?;
    node.set("metadata.log.dir", &metadata)?;
    node.wipe(&[])?;
    cluster.start()?;
    let creator = Creator::start(&cluster.bootstrap(), "made", TopicPlan::replicated(1));
    creator.wait_for_more(5)?;
    let view = cluster.wait_until_caught_up()?;
    if view.leader == VICTIM {
        let another = view.voter_ids().into_iter().find(|id| *id != VICTIM).context("another controller")?;
        cluster.move_leadership_to(another)?;
    }
    run_out(&mut cluster, &disk, &creator).context("as a follower")?;
    cluster.move_leadership_to(VICTIM)?;
    run_out(&mut cluster, &disk, &creator).context("as the leader")?;
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    cluster.check_logs()?;
    cluster.stop_and_check()
}

fn run_out(cluster: &mut Cluster, disk: &SmallDisk, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let said = cluster.node(VICTIM)?.words()?.len();
    disk.fill()?;
    let ended = wait_until("the controller to end", PATIENCE, || Ok((!cluster.node(VICTIM)?.is_alive()).then_some(())));
    ended.with_context(|| cluster.explanation())?;
    let node = cluster.node(VICTIM)?;
    let status = node.wait_for_end(PATIENCE)?;
    let words = node.words()?;
    println!("the controller ended with {status}");
    ensure!(!status.success(), "it ended well");
    ensure!(words[said..].contains(NO_SPACE), "it didn't say that its disk is full: {}", node.explanation());
    creator.wait_for_more(10)?;
    let after = cluster.wait_for_leader()?;
    let is_same = (after.leader, after.epoch) == (before.leader, before.epoch);
    ensure!(is_same != (before.leader == VICTIM), "before: {before:?}\nafter: {after:?}");
    disk.free()?;
    cluster.start_node(VICTIM)?;
    cluster.wait_until_caught_up()?;
    creator.wait_for_more(5)?;
    cluster.check_logs()
}

/// Bytes of the batches that fill the disk.
const LARGE: usize = 900_000;

/// A node that is broker and controller, with its partitions on a small disk; its metadata lie there, too, or not.
fn node_on(disk: &SmallDisk, name: &str, metadata_apart: bool) -> Result<Node> {
    let mut node = Node::prepare(name, Kind::Ringlog, 1, "meta", "", "offsets.topic.num.partitions=1\n")?;
    let meta = node.folder().join("meta").display().to_string();
    let data = disk.folder().join("data").display().to_string();
    node.set("log.dirs", &data)?;
    node.set("metadata.log.dir", if metadata_apart { &meta } else { &data })?;
    node.format(&["--standalone"])?;
    node.start()?;
    Ok(node)
}

/// Produces until that is refused; how many batches were taken.
fn produce_until_refused(connection: &mut Connection, topic: &str, partitions: i32) -> Result<i64> {
    for taken in 0..1000 {
        let partition = taken as i32 % partitions;
        let answers = wire::produced(connection, &wire::produce(topic, [partition], &wire::batch(LARGE)))?;
        let answer = answers.first().context("an answer")?;
        if answer.error_code != 0 {
            let (error, text) = (wire::error(answer.error_code)?, answer.error_message.as_deref().unwrap_or_default());
            ensure!(error == ErrorCode::KafkaStorageError && text.contains("full"), "{error:?}: {text}");
            return Ok(taken);
        }
    }
    anyhow::bail!("the disk is never full")
}

fn is_taken(connection: &mut Connection, topic: &str) -> Result<()> {
    wait_until("records to be taken again", PATIENCE, || {
        Ok((wire::produced_to(connection, topic, 0, 1000)? == ErrorCode::None).then_some(()))
    })
}

fn commit_offset(node: &Node, offset: i64) -> Result<ErrorCode> {
    let partition =
        OffsetCommitRequestPartition { committed_offset: offset, ..OffsetCommitRequestPartition::default() };
    let request = OffsetCommitRequest {
        group_id: "readers".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "small".into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let mut client = node.client()?;
    client.coordinator(ringlog_client::CoordinatorType::Group, "readers")?;
    let response = client.connection(1)?.call_in_version(&request, 8, Duration::ZERO)?;
    wire::error(response.topics[0].partitions[0].error_code)
}

/// What clients write leaves something for the node itself: reading, administration and the offsets of groups go on.
#[test]
fn a_broker_that_was_filled_up_serves_on_and_a_deleted_topic_makes_room() -> Result<()> {
    let Some(disk) = SmallDisk::new("filled-disk", 128)? else { return Ok(()) };
    let mut node = node_on(&disk, "filled", false)?;
    wire::create_topic(&node, "small", 1)?;
    wire::create_topic(&node, "large", 2)?;
    let committed = || Ok((commit_offset(&node, 1)? == ErrorCode::None).then_some(()));
    wait_until("the group's coordinator", PATIENCE, committed)?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    ensure!(wire::produced_to(&mut connection, "small", 0, 1000)? == ErrorCode::None);
    let taken = produce_until_refused(&mut connection, "large", 2)?;
    ensure!(taken > 50, "{taken} batches fit");
    ensure!(wire::produced_to(&mut connection, "small", 0, LARGE)? == ErrorCode::KafkaStorageError);
    let data = wire::fetched(&mut connection, "large", 0, 2 << 20)?;
    ensure!(data.error_code == 0 && data.high_watermark == (taken + 1) / 2, "{data:?}");
    for offset in 2..50 {
        ensure!(commit_offset(&node, offset)? == ErrorCode::None, "offset {offset}");
    }
    wire::create_topic(&node, "later", 8)?;
    // A restart changes nothing.
    node.stop()?;
    node.start()?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    ensure!(wire::produced_to(&mut connection, "small", 0, LARGE)? == ErrorCode::KafkaStorageError);
    wire::delete_topic(&node, "large")?;
    is_taken(&mut connection, "small")?;
    is_taken(&mut connection, "later")?;
    ensure!(!node.words()?.contains("offline"), "a directory went offline:\n{}", node.last_words());
    node.stop()
}

/// Retention is looked after while a disk is full, whenever its time would be.
#[test]
fn retention_makes_room_on_a_full_disk() -> Result<()> {
    let Some(disk) = SmallDisk::new("retained-disk", 128)? else { return Ok(()) };
    let mut node = node_on(&disk, "retained", false)?;
    wire::create_topic(&node, "small", 1)?;
    wire::create_topic(&node, "kept-short", 1)?;
    for (key, value) in [("segment.bytes", "4194304"), ("retention.bytes", "8388608")] {
        wire::alter_topic(&node, "kept-short", key, value)?;
    }
    let mut connection = wire::connect(&node, PATIENCE)?;
    produce_until_refused(&mut connection, "kept-short", 1)?;
    is_taken(&mut connection, "small")?;
    let data = wire::fetched(&mut connection, "kept-short", 0, 1000)?;
    ensure!(data.error_code == ErrorCode::OffsetOutOfRange.code(), "its beginning is still there: {data:?}");
    ensure!(!node.words()?.contains("offline"), "a directory went offline:\n{}", node.last_words());
    node.stop()
}

/// A disk that others fill to the last block.
#[test]
fn a_broker_on_a_disk_that_others_filled_waits_for_room() -> Result<()> {
    let Some(disk) = SmallDisk::new("shared-disk", 128)? else { return Ok(()) };
    let mut node = node_on(&disk, "shared", true)?;
    wire::create_topic(&node, "small", 2)?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    for _ in 0..5 {
        ensure!(wire::produced_to(&mut connection, "small", 0, LARGE)? == ErrorCode::None);
    }
    disk.fill()?;
    // Accepted before it was known, one may wait until its time is up.
    let mut request = wire::produce("small", [1], &wire::batch(LARGE));
    request.timeout_ms = 1_000;
    let refused = wait_until("records to be refused", PATIENCE, || {
        let answers = wire::produced(&mut connection, &request)?;
        let error = wire::error(answers.first().context("an answer")?.error_code)?;
        Ok(Some(error).filter(|error| !matches!(error, ErrorCode::None | ErrorCode::RequestTimedOut)))
    })?;
    ensure!(refused == ErrorCode::KafkaStorageError, "{refused:?}");
    let data = wire::fetched(&mut connection, "small", 0, 2 << 20)?;
    ensure!(data.error_code == 0 && data.high_watermark == 5, "{data:?}");
    disk.free()?;
    for partition in 0..2 {
        wait_until("records to be taken again", PATIENCE, || {
            Ok((wire::produced_to(&mut connection, "small", partition, 1000)? == ErrorCode::None).then_some(()))
        })?;
    }
    let words = node.words()?;
    ensure!(!words.contains("offline"), "a directory went offline:\n{words}");
    node.stop()?;
    node.start()?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    let data = wire::fetched(&mut connection, "small", 0, 2 << 20)?;
    ensure!(data.error_code == 0 && data.high_watermark == 6, "{data:?}");
    node.stop()
}
