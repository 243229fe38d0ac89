//! What is measured of one side.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringlog_bench::load::Load;
use ringlog_bench::sides::{Numbers, Side, distribution, milliseconds};
use ringlog_bench::usage;
use ringlog_client::{Client, ClientOptions};
use ringlog_e2e_tests::cluster::{Cluster, FIRST_BROKER};
use ringlog_e2e_tests::fetching;
use ringlog_e2e_tests::node::Roles;
use ringlog_e2e_tests::wait_until;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::MetadataRequest;
use ringlog_protocol::messages::metadata_request::MetadataRequestTopic;

use crate::prober::{Outcome, Prober};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(600);
pub const TOPIC: &str = "bench";
/// Partitions of a topic.
const PER_TOPIC: i32 = 500;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);
/// Partitions that are written to while leaderships move.
const WRITTEN: i32 = 20;

/// A cluster of one controller and so many brokers.
pub fn cluster(side: &Side, what: &str, settings: &str, brokers: usize) -> Result<Cluster> {
    let settings = format!("auto.leader.rebalance.enable=false\n{settings}");
    let plan = side.plan(what, &settings).controllers(1, &[side.kind], Roles::Controller);
    let mut cluster = plan.brokers(brokers, &[side.kind]).prepare()?;
    cluster.start()?;
    Ok(cluster)
}

/// So many partitions, each on all three brokers, which are their first replicas in turn.
pub fn turned(partitions: i32) -> Vec<Vec<i32>> {
    let from = |first: i32| (0..3).map(|place| FIRST_BROKER + (first + place) % 3).collect();
    (0..partitions).map(|partition| from(partition % 3)).collect()
}

/// What producers send who are only held up by the brokers, acknowledged by all replicas in sync.
pub fn full_speed(nodes: Vec<String>, partitions: i32, connections: usize) -> Load {
    Load {
        nodes,
        topic: TOPIC.to_owned(),
        partitions,
        connections,
        in_flight: 5,
        record_bytes: 1024,
        batch_bytes: 65_536,
        acks: -1,
        rate_bytes_s: None,
        fsync: false,
    }
}

/// How many partitions of the topics each broker leads, and in how many all replicas are in sync.
pub struct Standing {
    /// By broker.
    pub leaders: BTreeMap<i32, i32>,
    /// Partitions.
    pub in_sync: i32,
}

pub fn standing(client: &mut Client, topics: &[String], replicas: usize) -> Result<Standing> {
    let named = |name: &String| MetadataRequestTopic {
        name: Some(StrBytes::copy_from(name)),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest { topics: Some(topics.iter().map(named).collect()), ..MetadataRequest::default() };
    let mut standing = Standing { leaders: BTreeMap::new(), in_sync: 0 };
    for partition in client.send(&request)?.topics.into_iter().flat_map(|topic| topic.partitions) {
        *standing.leaders.entry(partition.leader_id).or_default() += 1;
        standing.in_sync += i32::from(partition.isr_nodes.len() == replicas);
    }
    Ok(standing)
}

/// Partitions, each with these replicas, in turn.
fn create(cluster: &Cluster, partitions: i32, replicas: &[Vec<i32>]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for first in (0..partitions).step_by(PER_TOPIC as usize) {
        let name = format!("{TOPIC}-{first}");
        let count = PER_TOPIC.min(partitions - first) as usize;
        let assigned: Vec<Vec<i32>> = replicas.iter().cycle().take(count).cloned().collect();
        fetching::create(&cluster.brokers()[0], &name, &assigned, &[])?;
        names.push(name);
    }
    Ok(names)
}

/// From the death of a leader until another one acknowledges a record.
pub fn failover(side: &Side, name: &str, settings: &str, turns: usize) -> Result<Numbers> {
    let mut cluster = cluster(side, "leader-failover", settings, 3)?;
    let brokers: Vec<i32> = (FIRST_BROKER..FIRST_BROKER + 3).collect();
    fetching::create(&cluster.brokers()[0], TOPIC, &[brokers], &[])?;
    let topics = [TOPIC.to_owned()];
    let mut times = Vec::new();
    for _ in 0..turns {
        let mut client = Client::connect(cluster.brokers()[0].as_str(), ClientOptions::default())?;
        let leader = wait_until("all to be in sync", PATIENCE, || {
            let standing = standing(&mut client, &topics, 3)?;
            let leader = standing.leaders.keys().next().copied().filter(|leader| *leader >= 0);
            Ok(leader.filter(|_| standing.in_sync == 1))
        })?;
        let address = cluster.node(leader)?.bootstrap();
        let others = cluster.brokers().into_iter().filter(|other| *other != address).collect();
        let mut prober = Prober::new(TOPIC, others);
        wait_until("a record to be taken", PATIENCE, || {
            Ok((prober.produce(0)? == Outcome::Acknowledged).then_some(()))
        })?;
        cluster.node(leader)?.kill()?;
        let begin = Instant::now();
        while prober.produce(0)? != Outcome::Acknowledged {
            ensure!(begin.elapsed() < PATIENCE, "no record is taken after the death of a leader");
            thread::sleep(PAUSE);
        }
        times.push(begin.elapsed());
        cluster.start_node(leader)?;
    }
    Ok(distribution(&format!("failover of a leader, {name}"), times))
}

/// A broker that leads many partitions stops in order, while some of them are written to.
pub fn shutdown(side: &Side, leaders: i32) -> Result<Numbers> {
    let mut cluster = cluster(side, "shutdown", "", 2)?;
    let topics = create(&cluster, leaders, &[vec![FIRST_BROKER, FIRST_BROKER + 1]])?;
    let stays = cluster.node(FIRST_BROKER + 1)?.bootstrap();
    let mut client = Client::connect(stays.as_str(), ClientOptions::default())?;
    wait_until("all to be in sync", PATIENCE, || {
        let standing = standing(&mut client, &topics, 2)?;
        Ok((standing.in_sync == leaders && standing.leaders.get(&FIRST_BROKER) == Some(&leaders)).then_some(()))
    })?;
    let is_over = AtomicBool::new(false);
    let (moved, ended, (pause, failures)) = thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(|| write(&topics[0], &stays, &is_over));
        // Until it writes at a steady pace.
        thread::sleep(Duration::from_secs(3));
        let begin = Instant::now();
        cluster.node(FIRST_BROKER)?.ask_to_stop()?;
        let moved = wait_until("leaderships to move", PATIENCE, || {
            let standing = standing(&mut client, &topics, 2)?;
            Ok((standing.leaders.get(&(FIRST_BROKER + 1)) == Some(&leaders)).then(|| begin.elapsed()))
        });
        let ended = cluster.node(FIRST_BROKER)?.wait_for_end(PATIENCE).map(|_| begin.elapsed());
        is_over.store(true, Ordering::Relaxed);
        let written = writer.join().expect("a writer doesn't panic")?;
        Ok((moved?, ended?, written))
    })?;
    Ok(vec![
        (format!("{leaders} leaders moved, ms"), milliseconds(moved)),
        ("until the process had ended, ms".to_owned(), milliseconds(ended)),
        ("longest time that a partition took no record, ms".to_owned(), milliseconds(pause)),
        ("records that failed for good".to_owned(), f64::from(failures)),
    ])
}

/// Writes to some partitions in turn; the longest time that one took nothing, and how many failed for good.
fn write(topic: &str, bootstrap: &str, is_over: &AtomicBool) -> Result<(Duration, u32)> {
    let mut prober = Prober::new(topic, vec![bootstrap.to_owned()]);
    let mut taken: BTreeMap<i32, Instant> = BTreeMap::new();
    let (mut pause, mut failures) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::Relaxed) {
        for partition in 0..WRITTEN {
            match prober.produce(partition)? {
                Outcome::Acknowledged => {
                    let now = Instant::now();
                    let before = taken.insert(partition, now);
                    pause = pause.max(before.map_or(Duration::ZERO, |before| now - before));
                }
                Outcome::Again => {}
                Outcome::Failed(_) => failures += 1,
            }
        }
        thread::sleep(PAUSE);
    }
    Ok((pause, failures))
}

/// A broker of three is killed and comes back: until all partitions have all of their replicas in sync.
pub fn many(side: &Side, partitions: i32) -> Result<Numbers> {
    let mut cluster = cluster(side, "many", "", 3)?;
    let begin = Instant::now();
    let topics = create(&cluster, partitions, &turned(3))?;
    let mut client = Client::connect(cluster.brokers()[0].as_str(), ClientOptions::default())?;
    let mut wait_for = |what: &str, in_sync: i32| {
        wait_until(what, PATIENCE, || Ok((standing(&mut client, &topics, 3)?.in_sync == in_sync).then_some(())))
    };
    wait_for("all to be in sync", partitions)?;
    let created = begin.elapsed();
    let last = FIRST_BROKER + 2;
    let idle = cpu(&cluster)?;
    thread::sleep(Duration::from_secs(5));
    let idle = (cpu(&cluster)? - idle) / 5.0;
    let memory: u64 = cluster.nodes().map(ringlog_e2e_tests::node::Node::resident_bytes).sum::<Result<u64>>()?;
    cluster.node(last)?.kill()?;
    wait_for("the dead broker to leave all in-sync replicas", 0)?;
    let begin = Instant::now();
    cluster.start_node(last)?;
    let started = begin.elapsed();
    wait_for("all to be in sync again", partitions)?;
    let back = begin.elapsed();
    cluster.node(last)?.stop().context("stopping it in order")?;
    Ok(vec![
        ("partitions with three replicas".to_owned(), f64::from(partitions)),
        ("created and in sync, s".to_owned(), created.as_secs_f64()),
        ("idle, cores of all nodes".to_owned(), idle),
        ("memory of all nodes, MB".to_owned(), memory as f64 / 1e6),
        ("killed and started: serves after, s".to_owned(), started.as_secs_f64()),
        ("killed and started: all in sync after, s".to_owned(), back.as_secs_f64()),
    ])
}

fn cpu(cluster: &Cluster) -> Result<f64> {
    cluster.nodes().map(|node| Ok(usage::of(node.process_id()?)?.cpu_seconds)).sum()
}
