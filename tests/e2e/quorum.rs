//! Three controllers: elections, losses of a minority and of the majority, orderly stops, snapshots.
//!
//! `QUORUM_ROUNDS` repeats the deaths of leaders. `RINGLOG_E2E_CONTROLLERS` and `RINGLOG_E2E_BROKERS` say which programs
//! play the parts.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::env;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ringlog_client::{NewRecord, Producer, ProducerOptions};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::topics::{self, Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;

/// A broker notices a controller that stands still only when it gives up a request: 30 seconds by default.
const SETTINGS: &str = "controller.socket.timeout.ms=3000";

fn rounds() -> usize {
    env::var("QUORUM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn the_quorum_does_what_a_majority_can() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("quorum", Voters::Initial)
        .settings(SETTINGS)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(3, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    cluster.check_status()?;
    let plan = TopicPlan::replicated(cluster.replicas());
    topics::create(&cluster.bootstrap(), "kept", &plan, PATIENCE)?;
    let creator = Creator::start(&cluster.bootstrap(), "made", plan.clone());
    creator.wait_for_more(5)?;
    for _ in 0..rounds() {
        leader_dies(&mut cluster, &creator).context("the leader dies")?;
        leader_stands_still(&mut cluster, &creator).context("the leader stands still")?;
        follower_dies(&mut cluster, &creator).context("a follower dies")?;
    }
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    majority_dies(&mut cluster, &plan).context("the majority dies")?;
    cluster.check_logs()?;
    cluster.stop()
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

/// Nobody but the leader's view of it notices.
fn follower_dies(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let victim = others(cluster, before.leader)[0];
    cluster.node(victim)?.kill()?;
    creator.wait_for_more(10)?;
    let after = cluster.wait_for_leader()?;
    ensure!((after.leader, after.epoch) == (before.leader, before.epoch), "an election: {after:?}");
    cluster.check_status()?;
    cluster.start_node(victim)?;
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
    let victims = others(cluster, before.leader);
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
