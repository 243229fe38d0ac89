//! A network that is cut and mended between the controllers: in both directions, in one, and by pulling a cable.
//!
//! Meanwhile somebody writes at every controller directly and keeps account: no two leaders take writes at the same time,
//! and nothing acknowledged is lost. `QUORUM_ROUNDS` repeats all cuts.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_client::{ClientOptions, Connection};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, PATIENCE, Voters};
use ringlog_e2e_tests::namespaces::Network;
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::quorum_view::{self, QuorumView};
use ringlog_e2e_tests::topics::{self, Attempt, Creator, TopicPlan};
use ringlog_e2e_tests::wait_until;
use ringlog_types::Uuid;

const CONTROLLERS: usize = 3;
/// Kafka's default.
const FETCH_TIMEOUT: Duration = Duration::from_millis(2000);
/// A leader that no majority asks steps down after one and a half times the fetch timeout. More is for what the test
/// itself and a busy machine take.
const RESIGNATION: Duration = Duration::from_millis(3000 + 2000);

fn rounds() -> usize {
    env::var("QUORUM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn cut_networks_never_have_two_leaders() -> Result<()> {
    if !Network::is_possible()? {
        return Ok(());
    }
    let _turn = cluster::turn();
    let network = Network::new(CONTROLLERS + 1)?;
    network.inside(|| cut_and_mend(&network))
}

fn cut_and_mend(network: &Network) -> Result<()> {
    let mut cluster = ClusterPlan::new("network", Voters::Initial)
        .settings(&format!("controller.quorum.fetch.timeout.ms={}", FETCH_TIMEOUT.as_millis()))
        .settings("controller.socket.timeout.ms=3000")
        .controllers(CONTROLLERS, &Kind::controllers()?, Roles::Controller)
        .brokers(1, &Kind::brokers()?)
        .places(network.places())
        .prepare()?;
    cluster.start()?;
    let mut writers = Writers::start(&cluster.controllers());
    let creator = Creator::start(&cluster.bootstrap(), "made", TopicPlan::replicated(1));
    creator.wait_for_more(3)?;
    for _ in 0..rounds() {
        leader_in_a_minority(network, &mut cluster, &creator).context("the leader is cut off from the others")?;
        follower_alone(network, &mut cluster, &creator).context("a follower is cut off from the others")?;
        follower_is_deaf(network, &mut cluster, &creator).context("a follower doesn't hear the leader")?;
        leader_is_dumb(network, &mut cluster, &creator).context("nobody hears the leader")?;
        leader_is_deaf(network, &mut cluster, &creator).context("the leader hears nobody")?;
        leader_unplugged(network, &mut cluster, &creator).context("the leader's cable is pulled")?;
    }
    let brokers = cluster.brokers();
    let (count, longest) = creator.finish(&brokers)?;
    let written = writers.finish(&brokers[0])?;
    println!("{count} topics by way of the broker, the longest took {longest:?}; {written} at the controllers");
    cluster.check_logs()?;
    cluster.stop_and_check()
}

/// The place of a controller in the network.
fn place(id: i32) -> usize {
    id as usize - 1
}

fn others(cluster: &Cluster, id: i32) -> Vec<i32> {
    cluster.controller_ids().into_iter().filter(|other| *other != id).collect()
}

/// Cuts between a controller and others, or mends: what it sends, what it gets.
fn change(network: &Network, id: i32, others: &[i32], sends: bool, gets: bool, is_cut: bool) -> Result<()> {
    let change = if is_cut { Network::cut } else { Network::mend };
    for other in others {
        if sends {
            change(network, place(id), place(*other))?;
        }
        if gets {
            change(network, place(*other), place(id))?;
        }
    }
    Ok(())
}

/// The leader loses the majority and steps down in time; the majority elects another, and that one stays.
fn lose_leader(
    cluster: &mut Cluster,
    creator: &Creator,
    cut: impl Fn() -> Result<()>,
    mend: impl Fn() -> Result<()>,
) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let leader = cluster.node(before.leader)?.controller();
    cut()?;
    let begin = Instant::now();
    wait_until("the leader to step down", PATIENCE, || Ok(quorum_view::ask(&leader)?.is_none().then_some(())))?;
    let resigned = begin.elapsed();
    ensure!(resigned < RESIGNATION, "it took the leader {resigned:?} to step down");
    let after = cluster.wait_for_leader_after(&before)?;
    println!("{} stepped down after {resigned:?}, {} leads after {:?}", before.leader, after.leader, begin.elapsed());
    ensure!(after.leader != before.leader, "{after:?}");
    creator.wait_for_more(3)?;
    mend()?;
    undisturbed(cluster, &after)?;
    creator.wait_for_more(3)
}

fn leader_in_a_minority(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let leader = cluster.wait_until_caught_up()?.leader;
    let others = others(cluster, leader);
    let change = |is_cut| change(network, leader, &others, true, true, is_cut);
    lose_leader(cluster, creator, || change(true), || change(false))
}

fn leader_is_dumb(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let leader = cluster.wait_until_caught_up()?.leader;
    let others = others(cluster, leader);
    let change = |is_cut| change(network, leader, &others, true, false, is_cut);
    lose_leader(cluster, creator, || change(true), || change(false))
}

fn leader_is_deaf(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let leader = cluster.wait_until_caught_up()?.leader;
    let others = others(cluster, leader);
    let change = |is_cut| change(network, leader, &others, false, true, is_cut);
    lose_leader(cluster, creator, || change(true), || change(false))
}

/// Whether it steps down in time nobody can see from outside.
fn leader_unplugged(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    network.unplug(place(before.leader))?;
    let after = cluster.wait_for_leader_after(&before)?;
    creator.wait_for_more(3)?;
    network.plug(place(before.leader))?;
    undisturbed(cluster, &after)?;
    creator.wait_for_more(3)
}

/// A follower that reaches nobody, or whom the leader doesn't reach, changes nothing, neither then nor afterwards.
fn lose_follower(
    network: &Network,
    cluster: &mut Cluster,
    creator: &Creator,
    change: impl Fn(&Network, i32, &QuorumView, bool) -> Result<()>,
) -> Result<()> {
    let before = cluster.wait_until_caught_up()?;
    let follower = others(cluster, before.leader)[0];
    change(network, follower, &before, true)?;
    // There is nothing to wait for but the time in which it would have begun elections.
    let end = Instant::now() + FETCH_TIMEOUT * 3;
    while Instant::now() < end {
        creator.wait_for_more(1)?;
    }
    let view = cluster.wait_for_leader()?;
    ensure!((view.leader, view.epoch) == (before.leader, before.epoch), "an election: {view:?}");
    ensure!(!view.has_reached(follower, view.high_watermark), "the follower wasn't cut off: {view:?}");
    change(network, follower, &before, false)?;
    undisturbed(cluster, &before)
}

fn follower_alone(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    let ids = cluster.controller_ids();
    lose_follower(network, cluster, creator, |network, follower, _, is_cut| {
        let others: Vec<i32> = ids.iter().copied().filter(|id| *id != follower).collect();
        change(network, follower, &others, true, true, is_cut)
    })
}

fn follower_is_deaf(network: &Network, cluster: &mut Cluster, creator: &Creator) -> Result<()> {
    lose_follower(network, cluster, creator, |network, follower, view, is_cut| {
        change(network, view.leader, &[follower], true, false, is_cut)
    })
}

/// All catch up, and the leader remains.
fn undisturbed(cluster: &mut Cluster, before: &QuorumView) -> Result<()> {
    let after = cluster.wait_until_caught_up()?;
    ensure!((after.leader, after.epoch) == (before.leader, before.epoch), "an election after mending: {after:?}");
    cluster.check_logs()?;
    cluster.check_status()
}

/// One who writes at each controller.
struct Writers {
    is_ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Write>>>>,
}

/// A topic that a controller said it has created.
#[derive(Debug)]
struct Write {
    topic: String,
    id: Uuid,
    controller: String,
    /// The leader's epoch, if it was the same before and after.
    epoch: Option<i32>,
    sent: Instant,
    acknowledged: Instant,
}

impl Writers {
    fn start(controllers: &[String]) -> Writers {
        let is_ending = Arc::new(AtomicBool::new(false));
        let write = |(number, controller): (usize, &String)| {
            let (controller, is_ending) = (controller.clone(), Arc::clone(&is_ending));
            // A new thread is in the namespace of the one that starts it.
            thread::spawn(move || write_at(number, &controller, &is_ending))
        };
        let threads = controllers.iter().enumerate().map(write).collect();
        Writers { is_ending, threads }
    }

    /// Every topic is there, and those that were sent after others had been acknowledged are of no earlier epoch.
    fn finish(&mut self, broker: &str) -> Result<usize> {
        self.is_ending.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        for thread in self.threads.drain(..) {
            writes.extend(thread.join().expect("a writer doesn't panic")?);
        }
        let missing = |there: &BTreeMap<String, Uuid>| {
            writes.iter().filter(|write| there.get(&write.topic) != Some(&write.id)).count()
        };
        let there = wait_until("the broker to know all topics", Duration::from_secs(30), || {
            let there = topics::list(broker)?;
            Ok((missing(&there) == 0).then_some(there))
        });
        there.with_context(|| format!("of {} acknowledged topics some are lost", writes.len()))?;
        writes.sort_by_key(|write| write.acknowledged);
        for (number, later) in writes.iter().enumerate() {
            let newest =
                writes[..number].iter().filter(|one| one.acknowledged < later.sent).max_by_key(|one| one.epoch);
            let Some((newest, epoch)) = newest.zip(later.epoch) else { continue };
            let (one, other) = (&newest.controller, &later.controller);
            ensure!(newest.epoch <= Some(epoch), "{one} and {other} led at the same time: {newest:?}, then {later:?}");
        }
        Ok(writes.len())
    }
}

fn write_at(number: usize, controller: &str, is_ending: &AtomicBool) -> Result<Vec<Write>> {
    let patience = Duration::from_secs(1);
    let options = ClientOptions { connect_timeout: patience, request_timeout: patience, ..ClientOptions::default() };
    let mut writes = Vec::new();
    let mut connection = None;
    for turn in 0.. {
        if is_ending.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        if connection.is_none() {
            connection = Connection::connect(controller, &options).ok();
        }
        let Some(open) = &mut connection else { continue };
        let before = epoch(controller)?;
        let (topic, sent) = (format!("direct-{number}-{turn}"), Instant::now());
        match topics::attempt_on(open, &topic, &TopicPlan::replicated(1), patience)? {
            Attempt::Created(id) => {
                let acknowledged = Instant::now();
                let epoch = before.filter(|before| epoch(controller).is_ok_and(|after| after == Some(*before)));
                writes.push(Write { topic, id, controller: controller.to_owned(), epoch, sent, acknowledged });
            }
            Attempt::Exists => anyhow::bail!("{topic} was there before {} made it", controller),
            // It may be no leader, or its answer may come when nobody waits for it any more.
            Attempt::Unknown(said) if said.contains("NOT_CONTROLLER") => {}
            Attempt::Unknown(_) => connection = None,
        }
    }
    Ok(writes)
}

fn epoch(controller: &str) -> Result<Option<i32>> {
    Ok(quorum_view::ask(controller)?.map(|view| view.epoch))
}
