//! Three controllers: elections, losses of a minority and of the majority, orderly stops, snapshots.
//!
//! `QUORUM_ROUNDS` repeats the deaths, and waits for logs to be cut off below snapshots when it is more than 1;
//! `QUORUM_SIZE` makes them five controllers. `RINGLOG_E2E_CONTROLLERS` and `RINGLOG_E2E_BROKERS` say which programs play
//! the parts.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_client::{NewRecord, Producer, ProducerOptions};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::metadata_log::{self, MetadataLog};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::quorum_watch::QuorumWatch;
use ringlog_e2e_tests::topics::{self, Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;

/// A broker notices a controller that stands still only when it gives up a request: 30 seconds by default.
const SETTINGS: &str = "controller.socket.timeout.ms=3000";

fn rounds() -> usize {
    env::var("QUORUM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn size() -> usize {
    env::var("QUORUM_SIZE").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn the_quorum_does_what_a_majority_can() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("quorum", Voters::Initial)
        .settings(SETTINGS)
        .controllers(size(), &Kind::controllers()?, Roles::Controller)
        .brokers(3, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    let watch = QuorumWatch::start(&cluster);
    cluster.check_status()?;
    cluster.check_replication()?;
    let plan = TopicPlan::replicated(cluster.replicas());
    topics::create(&cluster.bootstrap(), "kept", &plan, PATIENCE)?;
    let creator = Creator::start(&cluster.bootstrap(), "made", plan.clone());
    creator.wait_for_more(5)?;
    for _ in 0..rounds() {
        leader_dies(&mut cluster, &creator).context("the leader dies")?;
        leader_stands_still(&mut cluster, &creator).context("the leader stands still")?;
        followers_die(&mut cluster, &creator).context("a minority dies")?;
    }
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    majority_dies(&mut cluster, &plan).context("the majority dies")?;
    cluster.check_logs()?;
    println!("{:?}", watch.finish()?);
    cluster.stop_and_check()
}

/// Others elect one of themselves; who comes back catches up.
fn leader_dies(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let killed = Instant::now();
    cluster.node(before.leader)?.kill()?;
    let after = cluster.wait_for_leader_after(&before)?;
    println!("killed {}; {} leads after {:?}", before.leader, after.leader, killed.elapsed());
    ensure!(after.leader != before.leader, "{after:?}");
    creator.wait_for_more(5)?;
    cluster.check_status()?;
    cluster.start_node(before.leader)?;
    let end = cluster.wait_until_caught_up()?;
    ensure!((end.leader, end.epoch) == (after.leader, after.epoch), "the one who came back disturbed: {end:?}");
    cluster.check_logs()
}

/// A leader that was away without noticing steps down, and disturbs nobody.
fn leader_stands_still(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    cluster.pause(before.leader)?;
    let after = cluster.wait_for_leader_after(&before)?;
    creator.wait_for_more(5)?;
    cluster.check_status()?;
    cluster.resume(before.leader)?;
    let end = cluster.wait_until_caught_up()?;
    ensure!((end.leader, end.epoch) == (after.leader, after.epoch), "the one who came back disturbed: {end:?}");
    creator.wait_for_more(5)?;
    cluster.check_logs()
}

/// As many followers as the others can do without: nobody notices.
fn followers_die(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let mut victims = others(cluster, before.leader);
    victims.truncate((size() - 1) / 2);
    for victim in &victims {
        cluster.node(*victim)?.kill()?;
    }
    creator.wait_for_more(10)?;
    let after = cluster.wait_for_leader()?;
    ensure!((after.leader, after.epoch) == (before.leader, before.epoch), "an election: {after:?}");
    cluster.check_status()?;
    for victim in &victims {
        cluster.start_node(*victim)?;
    }
    cluster.check_replication()?;
    let end = cluster.wait_until_caught_up()?;
    ensure!((end.leader, end.epoch) == (before.leader, before.epoch), "the one who came back disturbed: {end:?}");
    cluster.check_logs()
}

fn others(cluster: &Cluster, leader: i32) -> Vec<i32> {
    cluster.controller_ids().into_iter().filter(|id| *id != leader).collect()
}

/// Brokers go on with what they know; nothing can be changed until a majority is back.
fn majority_dies(cluster: &mut Cluster, plan: &TopicPlan) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let bootstrap = cluster.bootstrap();
    write_and_read(cluster, "before the loss")?;
    let mut victims = others(cluster, before.leader);
    victims.truncate(size().div_ceil(2));
    for victim in &victims {
        cluster.node(*victim)?.kill()?;
    }
    wait_until("the last controller to step down", PATIENCE, || Ok(cluster.view()?.is_none().then_some(())))?;
    write_and_read(cluster, "during the loss")?;
    let refusal = create_in_vain(cluster)?;
    ensure!(refusal.contains("TimeoutException"), "without a majority, creating a topic gives {refusal}");
    write_and_read(cluster, "later in the loss")?;
    for victim in &victims {
        cluster.node(*victim)?.spawn()?;
    }
    let after = cluster.wait_for_leader_after(&before)?;
    topics::create(&bootstrap, "refused", plan, PATIENCE)?;
    println!("{} leads in epoch {} after {} in {}", after.leader, after.epoch, before.leader, before.epoch);
    write_and_read(cluster, "after the loss")?;
    cluster.check_status()
}

/// What `kafka-topics` says when it can't create a topic. It gives up sooner than by default.
fn create_in_vain(cluster: &mut Cluster) -> Result<String> {
    let bootstrap = cluster.bootstrap();
    let config = cluster.nodes().next().context("a node")?.folder().join("hasty.properties");
    fs::write(&config, "default.api.timeout.ms=4000\nrequest.timeout.ms=4000\n")?;
    let config = config.display().to_string();
    let arguments = ["--bootstrap-server", &bootstrap, "--command-config", &config, "--create", "--topic", "refused"];
    let outcome = Jvm::shared()?.tool("kafka-topics", &arguments, b"")?;
    ensure!(outcome.status != 0, "a topic was created without a majority: {outcome:?}");
    Ok(outcome.output + &outcome.errors)
}

/// Appends a record to the topic `kept` with acks=all, and finds it with Java's consumer.
fn write_and_read(cluster: &Cluster, text: &str) -> Result<()> {
    let mut client = cluster.client()?;
    let mut producer = Producer::new("kept", ProducerOptions::default(), 1);
    producer.append(&mut client, &NewRecord { value: Some(text.as_bytes().to_vec()), ..NewRecord::default() })?;
    for delivery in producer.flush(&mut client) {
        delivery.outcome.with_context(|| text.to_owned())?;
    }
    let arguments = ["--bootstrap-server", &cluster.bootstrap(), "--topic", "kept", "--from-beginning"];
    let arguments = [&arguments[..], &["--partition", "0", "--timeout-ms", "2000"]].concat();
    let read = Jvm::shared()?.tool("kafka-console-consumer", &arguments, b"")?;
    ensure!(read.output.lines().any(|line| line == text), "{text} isn't in {read:?}");
    Ok(())
}

/// With a follower's patience of 20 seconds, a new leader can only have come so soon because the old one handed over.
const HAND_OVER: Duration = Duration::from_secs(12);

/// Nodes that are both: who stops in order hands over, and all start again after stopping or dying together.
#[test]
fn stops_in_order_hand_over() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("combined", Voters::Initial)
        .settings("controller.quorum.fetch.timeout.ms=20000")
        .settings("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500")
        .controllers(size(), &Kind::controllers()?, Roles::Both)
        .prepare()?;
    cluster.start()?;
    // One of them is always on its way out, and takes no new replicas.
    let plan = TopicPlan::replicated(cluster.replicas().min(2));
    topics::create(&cluster.bootstrap(), "kept", &plan, PATIENCE)?;
    let mut leaders = BTreeSet::new();
    for round in 0..2 * rounds() {
        let before = cluster.wait_until_caught_up()?;
        leaders.insert(before.leader);
        let asked = Instant::now();
        cluster.node(before.leader)?.ask_to_stop()?;
        let after = cluster.wait_for_leader_after(&before)?;
        println!("{} handed over to {} in {:?}", before.leader, after.leader, asked.elapsed());
        ensure!(after.leader != before.leader, "{after:?}");
        ensure!(asked.elapsed() < HAND_OVER, "the hand-over took {:?}", asked.elapsed());
        cluster.node(before.leader)?.wait_until_stopped()?;
        topics::create(&cluster.bootstrap(), &format!("after-stop-{round}"), &plan, PATIENCE)?;
        cluster.start_node(before.leader)?;
        cluster.check_status()?;
    }
    ensure!(leaders.len() > 1, "the leaders were {leaders:?}");
    cluster.check_logs()?;
    let before = cluster.wait_until_caught_up()?;
    cluster.stop()?;
    cluster.start()?;
    let after = cluster.wait_for_leader_after(&before)?;
    topics::create(&cluster.bootstrap(), "after-the-stop-of-all", &plan, PATIENCE)?;
    for id in cluster.controller_ids() {
        cluster.node(id)?.kill()?;
    }
    cluster.start()?;
    cluster.wait_for_leader_after(&after)?;
    topics::create(&cluster.bootstrap(), "after-the-death-of-all", &plan, PATIENCE)?;
    write_and_read(&cluster, "after all")?;
    cluster.check_logs()?;
    cluster.check_status()?;
    let there = topics::list(&cluster.bootstrap())?;
    ensure!(there.len() == 3 + 2 * rounds(), "topics are {:?}", there.keys());
    cluster.stop_and_check()
}

/// Snapshots and segments soon. Kafka ends when a batch doesn't fit into a segment.
const SMALL: &str = "metadata.log.max.record.bytes.between.snapshots=30000\n\
                     internal.metadata.log.segment.bytes=40000\n\
                     metadata.max.retention.bytes=50000";

#[test]
fn a_wiped_controller_of_a_static_quorum_comes_back_by_a_snapshot() -> Result<()> {
    snapshots("snapshots-static", Voters::Static, |cluster, id| {
        cluster.node(id)?.kill()?;
        cluster.node(id)?.wipe(&[])?;
        cluster.start_node(id)
    })
}

#[test]
fn a_wiped_controller_of_a_dynamic_quorum_comes_back_by_a_snapshot() -> Result<()> {
    snapshots("snapshots-dynamic", Voters::Initial, |cluster, id| {
        cluster.node(id)?.kill()?;
        cluster.remove_controller(id)?;
        cluster.node(id)?.wipe(&["--no-initial-controllers"])?;
        cluster.start_node(id)?;
        cluster.add_controller(id).map(drop)
    })
}

fn snapshots(name: &str, voters: Voters, come_back: impl Fn(&mut Cluster, i32) -> Result<()>) -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new(name, voters)
        .settings(SMALL)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    let mut made = make_until_snapshots(&mut cluster, "first", 1)?;
    if rounds() > 1 {
        // Kafka looks every minute.
        made.extend(make_until_snapshots(&mut cluster, "second", 1)?);
        wait_until("logs to be cut off below a snapshot", 2 * PATIENCE, || {
            let starts = cluster.controller_nodes().map(|node| Ok(MetadataLog::read(&node.metadata_folder())?.start()));
            let starts = starts.collect::<Result<Vec<_>>>()?;
            Ok(starts.iter().all(|start| *start > Some(0)).then_some(()))
        })?;
        cluster.check_logs()?;
    }
    for round in 0..rounds() {
        let view = cluster.wait_until_caught_up()?;
        let victim = others(&cluster, view.leader)[round % 2];
        come_back(&mut cluster, victim).context("coming back")?;
        cluster.wait_until_caught_up()?;
        let folder = cluster.node(victim)?.metadata_folder();
        let log = MetadataLog::read(&folder)?;
        let start = log.start().unwrap_or(log.end());
        let fetched = metadata_log::snapshots(&folder)?.first().and_then(|first| metadata_log::snapshot_end(first));
        ensure!(
            fetched.is_some_and(|end| 0 < end && end <= start),
            "its log starts at {start}, a snapshot at {fetched:?}"
        );
        cluster.check_logs()?;
        // The one who came back may lead, and makes snapshots of its own from what it fetched.
        made.extend(make_until_snapshots(&mut cluster, &format!("round-{round}"), 1)?);
        cluster.move_leadership_to(victim)?;
    }
    cluster.stop_and_check()?;
    for node in cluster.controller_nodes() {
        check_snapshots(&node.metadata_folder(), &made).with_context(|| format!("node {}", node.id()))?;
    }
    Ok(())
}

/// Creates topics until every controller has so many more snapshots; the topics' names.
fn make_until_snapshots(cluster: &mut Cluster, prefix: &str, more: usize) -> Result<BTreeSet<String>> {
    let count = |cluster: &Cluster| {
        let counts = cluster.controller_nodes().map(|node| Ok(metadata_log::snapshots(&node.metadata_folder())?.len()));
        counts.collect::<Result<Vec<usize>>>()
    };
    let before = count(cluster)?;
    let plan = TopicPlan { ballast_bytes: 4000, ..TopicPlan::replicated(1) };
    let mut made = BTreeSet::new();
    wait_until("snapshots", PATIENCE, || {
        let name = format!("{prefix}-{}", made.len());
        topics::create(&cluster.bootstrap(), &name, &plan, PATIENCE)?;
        made.insert(name);
        let now = count(cluster)?;
        Ok(now.iter().zip(&before).all(|(now, before)| *now >= before + more).then_some(()))
    })?;
    Ok(made)
}

/// Kafka's tools read the snapshots; with the newest, topics are among those that were made, and many of them.
fn check_snapshots(folder: &Path, made: &BTreeSet<String>) -> Result<()> {
    let snapshots = metadata_log::snapshots(folder)?;
    for snapshot in &snapshots {
        let shown = cluster::dump(snapshot)?;
        ensure!(shown.contains("SnapshotHeader") && shown.contains("SnapshotFooter"), "{}", snapshot.display());
    }
    let newest = snapshots.last().context("a snapshot")?;
    let shown = cluster::metadata_shell(newest, &["ls", "/image/topics/byName"])?;
    let there: BTreeSet<String> = shown.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(there.is_subset(made), "{} holds {there:?}", newest.display());
    ensure!(2 * there.len() > made.len(), "{} holds {} of {} topics", newest.display(), there.len(), made.len());
    Ok(())
}
