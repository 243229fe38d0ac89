//! What is measured of one side.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringlog_bench::sides::{Numbers, Side, distribution, milliseconds};
use ringlog_bench::usage;
use ringlog_e2e_tests::cluster::Cluster;
use ringlog_e2e_tests::metadata_log;
use ringlog_e2e_tests::node::{Node, Roles};
use ringlog_e2e_tests::quorum_view::QuorumView;
use ringlog_e2e_tests::wait_until;

use crate::brokers::Brokers;
use crate::load::{self, Load};

/// A node with a million partitions may need long to load them.
const PATIENCE: Duration = Duration::from_secs(600);
/// What all nodes together may use of cores when they do nothing.
const IDLE_CORES: f64 = 0.3;
const SNAPSHOT_SIZE: &str = "metadata.log.max.record.bytes.between.snapshots";

/// Creating partitions at so many controllers, and what follows from having so many partitions.
pub fn partitions(side: &Side, controllers: usize, load: &Load, turns: usize) -> Result<Numbers> {
    let plan = side.plan(&format!("{controllers}"), "");
    let mut cluster = plan.controllers(controllers, &[side.kind], Roles::Controller).prepare()?;
    cluster.start()?;
    let brokers = Brokers::start(&cluster.controllers())?;
    let mut numbers = create(&mut cluster, load).context("creating partitions")?;
    match controllers {
        1 => numbers.extend(start_again(&mut cluster)?),
        _ => numbers.extend(hand_over(&mut cluster, turns)?),
    }
    drop(brokers);
    Ok(numbers)
}

/// From the death of the active controller until a topic is created by way of a broker that stays up.
pub fn failover(side: &Side, name: &str, settings: &str, kills: usize) -> Result<Numbers> {
    let plan = side.plan(&format!("failover-{name}"), settings);
    let plan = plan.controllers(3, &[side.kind], Roles::Controller).brokers(1, &[side.kind]);
    let mut cluster = plan.prepare()?;
    cluster.start()?;
    load::until_created(&cluster.brokers(), "before", PATIENCE)?;
    let mut times = Vec::new();
    for kill in 0..kills {
        let view = wait_until_idle(&mut cluster)?;
        cluster.node(view.leader)?.kill()?;
        let begin = Instant::now();
        load::until_created(&cluster.brokers(), &format!("after-{kill}"), PATIENCE)?;
        times.push(begin.elapsed());
        cluster.start_node(view.leader)?;
    }
    Ok(distribution(&format!("failover by way of a broker, {name}"), times))
}

fn create(cluster: &mut Cluster, load: &Load) -> Result<Numbers> {
    let view = cluster.wait_for_leader()?;
    let active = cluster.node(view.leader)?;
    let (address, process) = (active.controller(), active.process_id()?);
    let before = usage::of(process)?;
    let time = load.run(&address)?;
    let after = usage::of(process)?;
    let partitions = load.topics as f64 * f64::from(load.partitions_per_topic);
    let cpu = (after.cpu_seconds - before.cpu_seconds) / (partitions / 1e5);
    Ok(vec![
        ("partitions created per second".to_owned(), partitions / time.as_secs_f64()),
        ("CPU s of the active one per 100,000 partitions".to_owned(), cpu),
        ("memory of the active one, MB".to_owned(), after.memory_bytes as f64 / 1e6),
    ])
}

/// The time from the start of the process until it creates a topic, and its memory then.
fn start(cluster: &mut Cluster, topic: &str) -> Result<(f64, f64)> {
    let controllers = cluster.controllers();
    let node = cluster.node(1)?;
    let begin = Instant::now();
    node.spawn()?;
    load::until_created(&controllers, topic, PATIENCE).with_context(|| node.explanation())?;
    let time = begin.elapsed();
    Ok((milliseconds(time), node.resident_bytes()? as f64 / 1e6))
}

fn start_again(cluster: &mut Cluster) -> Result<Numbers> {
    cluster.node(1)?.stop()?;
    let (log_ms, _) = start(cluster, "again-1")?;
    let end = cluster.wait_for_leader()?.high_watermark;
    let folder = cluster.node(1)?.metadata_folder();
    // The next start makes a snapshot of everything, and the one after it begins with that.
    cluster.node(1)?.stop()?;
    cluster.node(1)?.set(SNAPSHOT_SIZE, "1")?;
    start(cluster, "again-2")?;
    wait_until("a snapshot of everything", PATIENCE, || {
        let newest = metadata_log::snapshots(&folder)?.pop();
        Ok(newest.filter(|newest| metadata_log::snapshot_end(newest) >= Some(end)).map(drop))
    })?;
    cluster.node(1)?.stop()?;
    cluster.node(1)?.set(SNAPSHOT_SIZE, "")?;
    let snapshot = metadata_log::snapshots(&folder)?.pop().context("it is there")?;
    let size = snapshot.metadata()?.len();
    let (snapshot_ms, memory) = start(cluster, "again-3")?;
    Ok(vec![
        ("start with the directory as it was left, ms".to_owned(), log_ms),
        ("start from a snapshot of everything, ms".to_owned(), snapshot_ms),
        ("snapshot, MB".to_owned(), size as f64 / 1e6),
        ("memory after that start, MB".to_owned(), memory),
    ])
}

/// How an active controller goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Its connections are closed, which tells the others at once.
    Kill,
    /// Nothing comes from it any more, as from a machine that has lost its power or its network.
    Standstill,
    /// In order.
    Stop,
}

/// From the end of the active controller until the next one has created a topic.
fn hand_over(cluster: &mut Cluster, turns: usize) -> Result<Numbers> {
    let mut numbers = Vec::new();
    for (name, farewell) in
        [("kill -9", Farewell::Kill), ("a standstill", Farewell::Standstill), ("a stop in order", Farewell::Stop)]
    {
        let mut times = Vec::new();
        for turn in 0..turns {
            let view = wait_until_idle(cluster)?;
            let others: Vec<String> =
                cluster.controller_nodes().filter(|node| node.id() != view.leader).map(Node::controller).collect();
            let begin = Instant::now();
            match farewell {
                Farewell::Kill => cluster.node(view.leader)?.kill()?,
                Farewell::Standstill => cluster.pause(view.leader)?,
                Farewell::Stop => cluster.node(view.leader)?.ask_to_stop()?,
            }
            load::until_created(&others, &format!("hand-over-{farewell:?}-{turn}"), PATIENCE)?;
            times.push(begin.elapsed());
            match farewell {
                Farewell::Kill => cluster.start_node(view.leader)?,
                Farewell::Standstill => cluster.resume(view.leader)?,
                Farewell::Stop => {
                    cluster.node(view.leader)?.wait_until_stopped()?;
                    cluster.start_node(view.leader)?;
                }
            }
        }
        numbers.extend(distribution(&format!("hand-over after {name}"), times));
    }
    Ok(numbers)
}

/// Who has just started has everything in its log long before it has loaded it, and takes the others' time meanwhile.
fn wait_until_idle(cluster: &mut Cluster) -> Result<QuorumView> {
    wait_until("the controllers to be idle", PATIENCE, || {
        let used = |cluster: &Cluster| -> Result<f64> {
            cluster.nodes().map(|node| Ok(usage::of(node.process_id()?)?.cpu_seconds)).sum()
        };
        let before = used(cluster)?;
        let begin = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        let share = (used(cluster)? - before) / begin.elapsed().as_secs_f64();
        Ok((share < IDLE_CORES).then_some(()))
    })?;
    cluster.wait_until_caught_up()
}
