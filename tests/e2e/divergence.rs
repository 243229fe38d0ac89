//! Two logs that part: a leader takes records that its follower never gets, and dies; the follower leads on and takes others;
//! and who comes back cuts what nobody else has. Between a node of Ringlog and one of Kafka, each leading in turn.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{Client, ClientOptions};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, FIRST_BROKER, Voters};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::replicas::{are_the_same_on, states, wait_for_in_sync};
use ringlog_e2e_tests::{fetching, wait_until, wire};
use ringlog_protocol::messages::ProduceRequest;
use ringlog_types::ErrorCode;

const TOPIC: &str = "parted";
const PATIENCE: Duration = Duration::from_secs(90);

/// Batches of one record each that the leader answers for alone.
fn produce(cluster: &mut Cluster, leader: i32, count: usize, value_bytes: usize) -> Result<usize> {
    let batch = wire::batch(value_bytes);
    let request = ProduceRequest { acks: 1, ..wire::produce(TOPIC, [0], &batch) };
    let mut connection = fetching::connect(&cluster.node(leader)?.bootstrap())?;
    for _ in 0..count {
        let code = wire::produced_once_known(&mut connection, &request)?;
        ensure!(code == ErrorCode::None, "{code:?}");
    }
    Ok(count * batch.len())
}

fn wait_for_leader(cluster: &mut Cluster, leader: i32) -> Result<()> {
    let address = cluster.node(leader)?.bootstrap();
    let outcome = wait_until("the follower to lead", PATIENCE, || {
        let Ok(mut client) = Client::connect(address.as_str(), ClientOptions::default()) else { return Ok(None) };
        let Ok(states) = states(&mut client, TOPIC) else { return Ok(None) };
        Ok(states.get(&0).is_some_and(|(now, _)| *now == leader).then_some(()))
    });
    outcome.with_context(|| cluster.explanation())
}

fn logs_part(name: &str, kinds: &[Kind]) -> Result<()> {
    let _turn = cluster::turn();
    // Who stands still for a moment stays in sync.
    let mut cluster = ClusterPlan::new(name, Voters::Static)
        .settings("broker.session.timeout.ms=20000\nbroker.heartbeat.interval.ms=500\nreplica.lag.time.max.ms=60000")
        .settings("auto.leader.rebalance.enable=false\nreplica.fetch.backoff.ms=200\nmin.insync.replicas=1")
        .controllers(1, &[Kind::under_test()], Roles::Controller)
        .brokers(2, kinds)
        .prepare()?;
    cluster.start()?;
    let pair = [FIRST_BROKER, FIRST_BROKER + 1];
    let both = BTreeSet::from(pair);
    fetching::create(&cluster.bootstrap(), TOPIC, &[pair.to_vec()], &[])?;
    wait_for_in_sync(&mut cluster, TOPIC, 1, &both)?;
    let mut kept = 0;
    for [leader, follower] in [pair, [pair[1], pair[0]], pair] {
        wait_for_leader(&mut cluster, leader)?;
        kept += produce(&mut cluster, leader, 10, 100)?;
        ensure!(are_the_same_on(&mut cluster, &pair, TOPIC, 0)? == kept, "the follower has what was kept");
        cluster.pause(follower)?;
        // More than the other will have written: its end alone tells nothing.
        let parted = produce(&mut cluster, leader, 40, 150)?;
        cluster.node(leader)?.kill()?;
        cluster.resume(follower)?;
        wait_for_leader(&mut cluster, follower)?;
        kept += produce(&mut cluster, follower, 20, 200)?;
        cluster.start_node(leader)?;
        wait_for_in_sync(&mut cluster, TOPIC, 1, &both)?;
        let compared = are_the_same_on(&mut cluster, &pair, TOPIC, 0)?;
        // The first of them may have answered the fetch that waited when the follower was brought to a standstill.
        let got = compared.checked_sub(kept).context("less than was kept")?;
        ensure!(
            got % (parted / 40) == 0 && got < parted / 2,
            "{leader} has {compared} bytes, {kept} of them were kept"
        );
        println!("{leader} cut {} of {parted} bytes", parted - got);
        kept = compared;
    }
    cluster.stop().map(drop)
}

#[test]
fn logs_of_one_kind_part_and_are_the_same_again() -> Result<()> {
    logs_part("parted", &[Kind::under_test()])
}

#[test]
fn logs_of_both_kinds_part_and_are_the_same_again() -> Result<()> {
    logs_part("parted-mixed", &[Kind::under_test(), Kind::Kafka])
}
