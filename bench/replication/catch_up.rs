//! A broker that was away catches up, while clients go on producing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use ringlog_bench::load::Load;
use ringlog_bench::sides::{Numbers, Side};
use ringlog_client::{Client, ClientOptions};
use ringlog_e2e_tests::cluster::FIRST_BROKER;
use ringlog_e2e_tests::fetching;
use ringlog_e2e_tests::wait_until;

use crate::measure::{PATIENCE, TOPIC, cluster, full_speed, standing};

/// Two of three brokers lead them in turn.
const PARTITIONS: i32 = 6;
/// How long the pace of before is measured.
const BEFORE: Duration = Duration::from_secs(10);

/// What is asked of a broker that was away.
#[derive(Debug, Clone, Copy)]
pub struct CatchUp {
    /// What it misses, in bytes.
    pub missed_bytes: f64,
    /// What is produced while it catches up, in bytes a second.
    pub rate_bytes_s: f64,
    /// Replicas of each partition: with two of them it alone has all partitions, the others half of them each.
    pub replicas: usize,
}

/// The last replica of all partitions is dead while much is produced. From its start until it is in sync again; and what
/// producers notice of it.
pub fn catch_up(side: &Side, CatchUp { missed_bytes, rate_bytes_s, replicas: copies }: CatchUp) -> Result<Numbers> {
    let mut cluster = cluster(side, "catch-up", "", 3)?;
    let (first, second, third) = (FIRST_BROKER, FIRST_BROKER + 1, FIRST_BROKER + 2);
    let assigned = match copies {
        2 => [vec![first, third], vec![second, third]],
        _ => [vec![first, second, third], vec![second, first, third]],
    };
    let replicas: Vec<Vec<i32>> = assigned.into_iter().cycle().take(PARTITIONS as usize).collect();
    fetching::create(&cluster.brokers()[0], TOPIC, &replicas, &[])?;
    let nodes = vec![cluster.node(first)?.bootstrap(), cluster.node(second)?.bootstrap()];
    let mut client = Client::connect(nodes[0].as_str(), ClientOptions::default())?;
    let topics = [TOPIC.to_owned()];
    let mut wait_for = |what: &str, replicas: usize| {
        wait_until(what, PATIENCE, || {
            Ok((standing(&mut client, &topics, replicas)?.in_sync == PARTITIONS).then_some(()))
        })
    };
    wait_for("all to be in sync", copies)?;
    cluster.node(third)?.kill()?;
    wait_for("the dead broker to leave all in-sync replicas", copies - 1)?;

    let at_full_speed = full_speed(nodes, PARTITIONS, 2);
    at_full_speed.wait_until_taken()?;
    let mut missed = 0.0;
    while missed < missed_bytes {
        missed += at_full_speed.produce(Duration::from_secs(1))?.bytes as f64;
    }
    let at_a_pace = Load { batch_bytes: 16_384, rate_bytes_s: Some(rate_bytes_s), ..at_full_speed };
    let before = at_a_pace.produce(BEFORE)?;

    let is_over = AtomicBool::new(false);
    let (back, meanwhile) = thread::scope(|scope| -> Result<_> {
        let producing = scope.spawn(|| at_a_pace.produce_until(|| is_over.load(Ordering::Relaxed)));
        let begin = Instant::now();
        let back = cluster.start_node(third).and_then(|()| wait_for("all to be in sync again", copies));
        let back = back.map(|()| begin.elapsed());
        is_over.store(true, Ordering::Relaxed);
        let meanwhile = producing.join().expect("a producer doesn't panic")?;
        Ok((back?, meanwhile))
    })?;
    let [.., p99_before, _, _] = before.latency_ms;
    let [.., p99, p999, _] = meanwhile.latency_ms;
    Ok(vec![
        ("missed by a broker that comes back, GB".to_owned(), missed / 1e9),
        ("started until in sync again, s".to_owned(), back.as_secs_f64()),
        (
            "caught up with, MB/s".to_owned(),
            (missed + before.bytes as f64 + meanwhile.bytes as f64) / 1e6 / back.as_secs_f64(),
        ),
        ("produced meanwhile, MB/s".to_owned(), meanwhile.mb_s()),
        ("produce latency before, p99 ms".to_owned(), p99_before),
        ("produce latency meanwhile, p99 ms".to_owned(), p99),
        ("produce latency meanwhile, p99.9 ms".to_owned(), p999),
    ])
}
