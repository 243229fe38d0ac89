//! Voters that come and go: added and removed by Kafka's tool, joining by themselves, at new addresses, and a quorum of
//! static voters that becomes a dynamic one.
//!
//! `QUORUM_ROUNDS` repeats the comings and goings.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeSet;
use std::env;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::quorum_watch::QuorumWatch;
use ringlog_e2e_tests::topics::{self, Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;
use ringlog_types::Uuid;

fn rounds() -> usize {
    env::var("QUORUM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn voters(cluster: &mut Cluster) -> Result<BTreeSet<i32>> {
    Ok(cluster.wait_for_leader()?.voter_ids())
}

#[test]
fn voters_come_and_go() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("membership", Voters::Standalone)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    let watch = QuorumWatch::start(&cluster);
    ensure!(voters(&mut cluster)? == BTreeSet::from([1]), "the first controller begins alone");
    let creator = Creator::start(&cluster.bootstrap(), "made", TopicPlan::replicated(1));
    for _ in 0..rounds() {
        add_two(&mut cluster, &creator).context("adding two voters")?;
        remove_two(&mut cluster, &creator).context("removing two voters")?;
    }
    add_two(&mut cluster, &creator).context("adding two voters again")?;
    move_to_another_address(&mut cluster, &creator).context("a voter at another address")?;
    join_without_being_asked(&mut cluster, &creator).context("auto-join")?;
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    println!("{count} topics; the longest took {longest:?}");
    cluster.check_logs()?;
    println!("{:?}", watch.finish()?);
    cluster.stop_and_check()
}

/// Three voters outlive the death of their leader.
fn add_two(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    for id in cluster.controller_ids() {
        if !voters(cluster)?.contains(&id) {
            cluster.add_controller(id).with_context(|| format!("node {id}"))?;
            cluster.check_status()?;
        }
    }
    ensure!(voters(cluster)?.len() == 3);
    let before = cluster.wait_until_caught_up()?;
    cluster.node(before.leader)?.kill()?;
    let after = cluster.wait_for_leader_after(&before)?;
    println!("killed {}; {} leads", before.leader, after.leader);
    creator.wait_for_more(3)?;
    cluster.start_node(before.leader)?;
    cluster.check_logs()
}

/// The leader is the first to go. Who was removed isn't needed any more, and takes part as an observer.
fn remove_two(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let after = cluster.remove_controller(before.leader)?;
    ensure!(after.leader != before.leader && after.epoch > before.epoch, "{before:?}\n{after:?}");
    println!("removed the leader, {}; {} leads", before.leader, after.leader);
    let is_observer = "who was removed to be an observer";
    cluster.wait_for_view(is_observer, |view| view.observer_ids().contains(&before.leader))?;
    creator.wait_for_more(3)?;
    let follower = after.voter_ids().into_iter().find(|id| *id != after.leader).context("a follower")?;
    cluster.remove_controller(follower)?;
    cluster.check_status()?;
    cluster.check_logs()?;
    for id in [before.leader, follower] {
        cluster.node(id)?.kill()?;
    }
    creator.wait_for_more(3)?;
    let alone = cluster.wait_for_leader()?;
    ensure!((alone.leader, alone.epoch) == (after.leader, after.epoch), "an election of one: {alone:?}");
    for id in [before.leader, follower] {
        cluster.start_node(id)?;
    }
    cluster.wait_until_caught_up().map(drop)
}

fn move_to_another_address(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let view = cluster.wait_until_caught_up()?;
    let mover = view.voter_ids().into_iter().find(|id| *id != view.leader).context("a follower")?;
    let node = cluster.node(mover)?;
    node.stop()?;
    let before = node.controller();
    node.change_ports()?;
    let now = node.controller();
    ensure!(now != before, "another port is another port");
    node.start()?;
    cluster.wait_for_view("the voter's new address", |view| view.endpoints.contains(&(mover, now.clone())))?;
    // It can be reached there: as a voter that is needed.
    let view = cluster.wait_until_caught_up()?;
    let other = view.voter_ids().into_iter().find(|id| ![view.leader, mover].contains(id)).context("a third")?;
    cluster.node(other)?.kill()?;
    creator.wait_for_more(3)?;
    cluster.node(other)?.start()?;
    cluster.wait_until_caught_up().map(drop)
}

/// A fourth controller joins by itself, and again when it comes back with an empty directory.
fn join_without_being_asked(cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let kinds = Kind::controllers()?;
    cluster.add(4, kinds[3 % kinds.len()], Roles::Controller)?;
    cluster.node(4)?.set("controller.quorum.auto.join.enable", "true")?;
    cluster.start_node(4)?;
    let view = cluster.wait_for_view("a fourth voter", |view| view.voter_ids().contains(&4))?;
    let directory = |view: &ringlog_e2e_tests::quorum_view::QuorumView| {
        view.voters.iter().filter(|voter| voter.id == 4).map(|voter| voter.directory).collect::<Vec<_>>()
    };
    let first = directory(&view);
    creator.wait_for_more(3)?;
    cluster.node(4)?.kill()?;
    cluster.node(4)?.wipe(&["--no-initial-controllers"])?;
    cluster.start_node(4)?;
    cluster.wait_for_view("the fourth voter's new directory", |view| {
        view.voters.len() == 4 && directory(view).len() == 1 && directory(view) != first
    })?;
    creator.wait_for_more(3)?;
    cluster.check_status()?;
    cluster.check_logs()
}

#[test]
fn static_voters_become_dynamic() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("conversion", Voters::Static)
        .controllers(3, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .prepare()?;
    cluster.start()?;
    let view = cluster.wait_for_leader()?;
    ensure!(view.voters.iter().all(|voter| voter.directory == Uuid::default()), "{view:?}");
    ensure!(kraft_version(&cluster)? == "0", "kraft.version is {}", kraft_version(&cluster)?);
    let plan = TopicPlan::replicated(1);
    topics::create(&cluster.bootstrap(), "static", &plan, PATIENCE)?;
    upgrade(&cluster)?;
    let view = cluster.wait_for_view("directories of voters", |view| {
        view.voters.len() == 3 && view.voters.iter().all(|voter| voter.directory != Uuid::default())
    })?;
    wait_until("kraft.version 1", PATIENCE, || Ok((kraft_version(&cluster)? == "1").then_some(())))?;
    cluster.check_status()?;
    cluster.check_logs()?;
    // The log knows the voters now: nobody needs the setting any more.
    cluster.stop()?;
    cluster.become_dynamic()?;
    cluster.start()?;
    let removed = view.voters[0].id;
    cluster.remove_controller(removed)?;
    ensure!(voters(&mut cluster)?.len() == 2);
    cluster.add_controller(removed)?;
    topics::create(&cluster.bootstrap(), "dynamic", &plan, PATIENCE)?;
    cluster.check_status()?;
    cluster.check_logs()?;
    cluster.stop_and_check()
}

/// The leader may have to wait for what each voter says of itself, every two seconds.
fn upgrade(cluster: &Cluster) -> Result<()> {
    let bootstrap = cluster.bootstrap();
    let arguments = ["--bootstrap-server", &bootstrap, "upgrade", "--feature", "kraft.version=1"];
    let mut last = None;
    let outcome = wait_until("kraft.version to be upgraded", PATIENCE, || {
        let outcome = Jvm::shared()?.tool("kafka-features", &arguments, b"")?;
        let is_done = outcome.status == 0;
        last = Some(outcome);
        Ok(is_done.then_some(()))
    });
    outcome.with_context(|| format!("{last:?}"))
}

/// The finalized level by `kafka-features describe`.
fn kraft_version(cluster: &Cluster) -> Result<String> {
    let bootstrap = cluster.bootstrap();
    let shown = Jvm::shared()?.tool("kafka-features", &["--bootstrap-server", &bootstrap, "describe"], b"")?;
    let shown = shown.success()?;
    let line = shown.lines().find(|line| line.contains("kraft.version")).context("a line")?;
    let (_, level) = line.split_once("FinalizedVersionLevel:").context("a level")?;
    Ok(level.split_whitespace().next().context("a level")?.to_owned())
}
