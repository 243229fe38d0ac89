//! Ringlog and Kafka in one cluster: controllers replaced one by one under load, brokers of one kind under controllers of
//! the other.
//!
//! With `RINGLOG_E2E_NODE=kafka` all nodes are Kafka, which shows that the tests ask for what Kafka does. `QUORUM_ROUNDS`
//! repeats the replacement, `QUORUM_SIZE` is the number of controllers over a broker.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeSet;
use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::metadata_log::{self, MetadataLog, Snapshots};
use ringlog_e2e_tests::node::{Kind, Node, Roles};
use ringlog_e2e_tests::programs::Program;
use ringlog_e2e_tests::quorum_watch::QuorumWatch;
use ringlog_e2e_tests::topics::{CREATOR_PAUSE, Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;

const PARTITIONS: i64 = 3;

fn rounds() -> usize {
    env::var("QUORUM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn size() -> usize {
    env::var("QUORUM_SIZE").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// All controllers become the other program, one by one, and back again; each newcomer leads for a while. The one that
/// begins a round hands its snapshot to one of the other kind. A broker of each kind looks on.
#[test]
fn controllers_are_replaced_one_by_one() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("mixed", Voters::Static)
        // So small that two nodes often make one of the same offset.
        .settings("metadata.log.max.record.bytes.between.snapshots=500")
        .settings("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500")
        .controllers(3, &[Kind::Kafka], Roles::Controller)
        .brokers(2, &[Kind::Kafka, Kind::under_test()])
        .prepare()?;
    cluster.start()?;
    let watch = QuorumWatch::start(&cluster);
    let plan = TopicPlan { ballast_bytes: 2000, ..TopicPlan::replicated(1) };
    // However many rounds there are, the topics are as many.
    let pause = CREATOR_PAUSE * u32::try_from(rounds())?;
    let creator = Creator::start_with_pauses(&cluster.bootstrap(), "made", plan, pause);
    for _ in 0..rounds() {
        for kind in [Kind::under_test(), Kind::Kafka] {
            for (number, id) in cluster.controller_ids().into_iter().enumerate() {
                let step = || format!("controller {id} becomes {kind:?}");
                replace(&mut cluster, id, kind, &creator).with_context(step)?;
                if number == 0 {
                    fetch_snapshot(&mut cluster, id).context("fetching a snapshot from it")?;
                }
            }
        }
    }
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    cluster.check_logs()?;
    println!("{:?}", watch.finish()?);
    let committed = cluster.wait_until_caught_up()?.high_watermark;
    cluster.stop_and_check()?;
    check_observers(&cluster, committed)
}

fn snapshots(node: &Node) -> Snapshots {
    Snapshots { id: node.id(), folder: node.metadata_folder(), may_lead: node.roles() != Roles::Broker }
}

/// Who looks on has the log that the voters have, and makes the snapshots that the other program makes.
fn check_observers(cluster: &Cluster, committed: i64) -> Result<()> {
    let read = |node: &Node| Ok::<_, anyhow::Error>((node.id(), MetadataLog::read(&node.metadata_folder())?));
    let controller = cluster.controller_nodes().next().context("a controller")?;
    for observer in cluster.nodes().filter(|node| node.roles() == Roles::Broker) {
        let logs = [read(controller)?, read(observer)?];
        let end = committed.min(logs[1].1.end());
        let compared = metadata_log::compare(&logs, end)?;
        println!("{compared} batches of {} compared, to {end} of {committed}", observer.id());
        // What a controller keeps is of the program that it was then.
        let others = cluster.nodes().filter(|node| node.id() != observer.id());
        let others: Vec<Snapshots> = others.map(snapshots).collect();
        let compared = metadata_log::compare_snapshots(&snapshots(observer), &others)?;
        println!("{compared} snapshots of {} compared", observer.id());
        ensure!(compared > 0, "node {} never made a snapshot of an offset that another one made one of", observer.id());
    }
    Ok(())
}

fn replace(cluster: &mut Cluster, id: i32, kind: Kind, creator: &Creator) -> Result<()> {
    let node = cluster.node(id)?;
    node.stop()?;
    node.become_kind(kind);
    node.start()?;
    cluster.wait_until_caught_up()?;
    cluster.check_status()?;
    cluster.check_logs()?;
    let view = cluster.move_leadership_to(id)?;
    println!("node {id} is {kind:?} and leads in epoch {}", view.epoch);
    creator.wait_for_more(5)?;
    cluster.check_status()?;
    cluster.check_logs()
}

/// Another controller loses its directory and comes back by the leader's snapshot.
fn fetch_snapshot(cluster: &mut Cluster, leader: i32) -> Result<()> {
    let folder = cluster.node(leader)?.metadata_folder();
    wait_until("a snapshot of the leader", PATIENCE, || {
        Ok((!metadata_log::snapshots(&folder)?.is_empty()).then_some(()))
    })?;
    let victim = cluster.controller_ids().into_iter().find(|id| *id != leader).context("another one")?;
    let node = cluster.node(victim)?;
    node.kill()?;
    node.wipe(&[])?;
    node.start()?;
    let view = cluster.wait_until_caught_up()?;
    ensure!(view.leader == leader, "{} has become the leader", view.leader);
    // What the leader knows of it may be of its life before.
    let folder = cluster.node(victim)?.metadata_folder();
    wait_until("a log that begins at a snapshot", PATIENCE, || {
        let log = MetadataLog::read(&folder)?;
        ensure!(log.start() != Some(0), "the log of {victim} starts at 0");
        Ok((log.end() > 0).then_some(()))
    })?;
    cluster.wait_until_caught_up()?;
    cluster.check_logs()
}

#[test]
fn a_broker_of_kafka_under_the_controllers() -> Result<()> {
    broker_under("kafka-broker", Kind::under_test(), Kind::Kafka)
}

#[test]
fn a_broker_under_controllers_of_kafka() -> Result<()> {
    broker_under("kafka-controllers", Kind::Kafka, Kind::under_test())
}

fn broker_under(name: &str, controllers: Kind, broker: Kind) -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new(name, Voters::Initial)
        .settings("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500")
        .controllers(size(), &[controllers], Roles::Controller)
        .brokers(1, &[broker])
        .prepare()?;
    cluster.start()?;
    administer(&cluster, "first")?;
    exchange(&cluster, "first")?;
    let before = cluster.wait_until_caught_up()?;
    cluster.node(before.leader)?.kill()?;
    if size() > 1 {
        cluster.wait_for_leader_after(&before)?;
        administer(&cluster, "second")?;
        exchange(&cluster, "second")?;
    }
    cluster.node(before.leader)?.start()?;
    cluster.wait_for_leader_after(&before)?;
    administer(&cluster, "third")?;
    let broker = cluster::FIRST_BROKER;
    cluster.node(broker)?.stop()?;
    cluster.node(broker)?.start()?;
    exchange(&cluster, "third")?;
    cluster.node(broker)?.kill()?;
    cluster.node(broker)?.start()?;
    exchange(&cluster, "first")?;
    cluster.check_status()?;
    cluster.check_logs()?;
    cluster.stop_and_check()
}

fn tool(cluster: &Cluster, name: &str, arguments: &[&str]) -> Result<String> {
    let bootstrap = cluster.bootstrap();
    Jvm::shared()?.tool(name, &[&["--bootstrap-server", &bootstrap], arguments].concat(), b"")?.success()
}

/// Topics made, configured, enlarged and deleted by Kafka's tools.
fn administer(cluster: &Cluster, topic: &str) -> Result<()> {
    let create = |topic: &str| tool(cluster, "kafka-topics", &["--create", "--topic", topic, "--partitions", "2"]);
    create(topic)?;
    create(&format!("{topic}-deleted"))?;
    let count = PARTITIONS.to_string();
    tool(cluster, "kafka-topics", &["--alter", "--topic", topic, "--partitions", &count])?;
    let entity = ["--entity-type", "topics", "--entity-name", topic];
    tool(cluster, "kafka-configs", &[&["--alter", "--add-config", "max.message.bytes=2000000"], &entity[..]].concat())?;
    tool(cluster, "kafka-topics", &["--delete", "--topic", &format!("{topic}-deleted")])?;
    wait_until("the broker to know of it", Duration::from_secs(20), || {
        let topics = match tool(cluster, "kafka-topics", &["--describe", "--exclude-internal"]) {
            // The tool asks for all names first, and one of them may go before it asks what they are, or how they are set.
            Err(error) if error.to_string().contains("UnknownTopicOrPartitionException") => return Ok(None),
            topics => topics?,
        };
        let configs = tool(cluster, "kafka-configs", &[&["--describe"], &entity[..]].concat())?;
        let rows =
            topics.lines().filter(|line| line.contains(&format!("Topic: {topic}\t")) && line.contains("Leader: "));
        let is_known = rows.count() as i64 == PARTITIONS
            && !topics.contains(&format!("{topic}-deleted"))
            && configs.contains("max.message.bytes=2000000");
        Ok(is_known.then_some(()))
    })
}

/// Java's producer writes, Java's consumer reads it back; a member of a group gets all partitions.
fn exchange(cluster: &Cluster, topic: &str) -> Result<()> {
    let bootstrap = cluster.bootstrap();
    let before = records(cluster, topic)?;
    let sent = Program::Java.corpus();
    Program::Java.produce(&bootstrap, topic, "lz4", &sent)?;
    let count = before + sent.len();
    let read = Program::Java.consume(&bootstrap, &[topic.to_owned()], count)?;
    let mut latest: Vec<_> = read.into_iter().map(|(_, record)| record).collect();
    let mut expected: Vec<_> = sent.iter().cycle().take(count).cloned().collect();
    latest.sort();
    expected.sort();
    ensure!(latest == expected, "{} records came back of {}, not the same", latest.len(), expected.len());
    let group = format!("readers-of-{topic}");
    let mut member = Program::Java.join(&bootstrap, topic, &group)?;
    let all: BTreeSet<i64> = (0..PARTITIONS).collect();
    wait_until("all partitions", PATIENCE, || Ok((*member.assigned()? == all).then_some(())))?;
    wait_until("the records", PATIENCE, || Ok((member.records()?.len() >= sent.len()).then_some(())))?;
    member.leave()?;
    let shown = tool(cluster, "kafka-consumer-groups", &["--describe", "--group", &group])?;
    let rows = shown.lines().filter(|line| line.starts_with(&group)).count();
    ensure!(rows as i64 == PARTITIONS, "{shown}");
    Ok(())
}

/// How many records a topic has by its end offsets.
fn records(cluster: &Cluster, topic: &str) -> Result<usize> {
    let shown = tool(cluster, "kafka-get-offsets", &["--topic", topic, "--time", "latest"])?;
    let ends = shown.lines().filter_map(|line| line.rsplit(':').next()?.trim().parse::<usize>().ok());
    Ok(ends.sum())
}
