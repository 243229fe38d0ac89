//! Partitions with replicas on several nodes, of Ringlog and of Kafka in one cluster: all in sync, byte for byte the same,
//! and nothing that was acknowledged is lost when nodes stop, are killed and come back.
//!
//! With `RINGLOG_E2E_NODE=kafka` all nodes are Kafka.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::{
    Client, ClientOptions, Consumer, ConsumerOptions, NewRecord, Producer, ProducerOptions, StartOffset, Subscription,
};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::fetching::{self, Part, Wanted};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::replicas::{are_the_same, wait_for_in_sync};
use ringlog_e2e_tests::wait_until;

const TOPIC: &str = "replicated";
const PARTITIONS: i32 = 3;
/// Records between two events.
const RECORDS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(90);

/// What was acknowledged.
struct Load {
    producer: Producer,
    client: Client,
    acknowledged: BTreeSet<String>,
    next: usize,
}

impl Load {
    fn new(cluster: &Cluster) -> Result<Load> {
        let options = ProducerOptions { retries: 600, ..ProducerOptions::default() };
        let client = Client::connect(cluster.bootstrap().as_str(), ClientOptions::default())?;
        Ok(Load { producer: Producer::new(TOPIC, options, 1), client, acknowledged: BTreeSet::new(), next: 0 })
    }

    /// Some records to all partitions; all of them have to be acknowledged by all that are in sync.
    fn run(&mut self) -> Result<()> {
        let mut names = Vec::new();
        for number in self.next..self.next + RECORDS {
            let value = format!("record {number} {}", "x".repeat(number % 700));
            let partition = Some(number as i32 % PARTITIONS);
            let record = NewRecord { partition, value: Some(value.clone().into_bytes()), ..NewRecord::default() };
            let delivered = self.producer.append(&mut self.client, &record)?;
            ensure!(delivered.iter().all(|delivery| delivery.outcome.is_ok()), "{delivered:?}");
            names.push(value);
        }
        self.next += RECORDS;
        let delivered = self.producer.flush(&mut self.client);
        if let Some(failed) = delivered.iter().find(|delivery| delivery.outcome.is_err()) {
            bail!("not acknowledged: {failed:?}");
        }
        self.acknowledged.extend(names);
        Ok(())
    }
}

/// Everything that was acknowledged is there, and nothing else. What was sent again may be there twice.
fn all_is_there(cluster: &mut Cluster, load: &Load) -> Result<()> {
    let mut client = cluster.client()?;
    let from_start = |partition| (TOPIC.to_owned(), partition, StartOffset::Earliest);
    let subscription = Subscription::Partitions((0..PARTITIONS).map(from_start).collect());
    let mut consumer = Consumer::new(subscription, ConsumerOptions::default());
    let mut found = BTreeSet::new();
    wait_until("all that was acknowledged", PATIENCE, || {
        for record in consumer.poll(&mut client)? {
            found.insert(String::from_utf8(record.value.unwrap_or_default().to_vec())?);
        }
        Ok(load.acknowledged.is_subset(&found).then_some(()))
    })?;
    ensure!(found == load.acknowledged, "{} are there of {}", found.len(), load.acknowledged.len());
    Ok(())
}

fn replicated(name: &str, kinds: &[Kind]) -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new(name, Voters::Static)
        .settings("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500")
        .settings("min.insync.replicas=2\noffsets.topic.replication.factor=3\nreplica.lag.time.max.ms=5000")
        .settings("auto.leader.rebalance.enable=false\nreplica.fetch.backoff.ms=200")
        .controllers(3, kinds, Roles::Both)
        .prepare()?;
    cluster.start()?;
    let replicas = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
    fetching::create(&cluster.bootstrap(), TOPIC, &replicas, &[])?;
    let all: BTreeSet<i32> = (1..=3).collect();
    let mut load = Load::new(&cluster)?;
    load.run()?;
    wait_for_in_sync(&mut cluster, TOPIC, PARTITIONS, &all)?;
    are_the_same(&mut cluster, TOPIC, PARTITIONS)?;
    for id in cluster.controller_ids() {
        let others: BTreeSet<i32> = all.iter().copied().filter(|other| *other != id).collect();
        for is_killed in [false, true] {
            let node = cluster.node(id)?;
            if is_killed {
                node.kill()?
            } else {
                node.stop()?
            }
            load.run().with_context(|| format!("{id} is gone, killed: {is_killed}"))?;
            wait_for_in_sync(&mut cluster, TOPIC, PARTITIONS, &others)?;
            cluster.node(id)?.start()?;
            load.run()?;
            wait_for_in_sync(&mut cluster, TOPIC, PARTITIONS, &all)
                .with_context(|| format!("{id} is back, killed: {is_killed}"))?;
        }
    }
    are_the_same(&mut cluster, TOPIC, PARTITIONS)?;
    all_is_there(&mut cluster, &load)?;
    cluster.stop_and_check()
}

#[test]
fn among_nodes_of_one_kind() -> Result<()> {
    let kind = Kind::under_test();
    replicated("replicas", &[kind])
}

#[test]
fn among_nodes_of_both_kinds() -> Result<()> {
    replicated("mixed-replicas", &[Kind::Kafka, Kind::under_test(), Kind::Kafka])
}

/// Kafka waits for the session.
#[test]
fn a_process_that_ends_is_replaced_before_its_session_does() -> Result<()> {
    if Kind::under_test() == Kind::Kafka {
        return Ok(());
    }
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("sudden", Voters::Static)
        .settings("broker.session.timeout.ms=3600000\nmin.insync.replicas=2\nauto.leader.rebalance.enable=false")
        .controllers(3, &[Kind::Ringlog], Roles::Both)
        .prepare()?;
    cluster.start()?;
    fetching::create(&cluster.bootstrap(), TOPIC, &[vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]], &[])?;
    let all: BTreeSet<i32> = (1..=3).collect();
    let mut load = Load::new(&cluster)?;
    load.run()?;
    // Whichever of them is the active controller is killed as well, and the others know.
    for id in cluster.controller_ids() {
        wait_for_in_sync(&mut cluster, TOPIC, PARTITIONS, &all)?;
        cluster.node(id)?.kill()?;
        load.run().with_context(|| format!("{id} was killed\n{}", cluster.explanation()))?;
        cluster.node(id)?.start()?;
    }
    wait_for_in_sync(&mut cluster, TOPIC, PARTITIONS, &all)?;
    all_is_there(&mut cluster, &load)?;
    cluster.stop_and_check()
}

/// KIP-392: a consumer in a rack is sent to a replica there.
#[test]
fn consumers_read_from_replicas_in_their_racks() -> Result<()> {
    let _turn = cluster::turn();
    let kind = Kind::under_test();
    let mut cluster = ClusterPlan::new("racks", Voters::Static)
        .settings("replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector")
        .settings("auto.leader.rebalance.enable=false")
        .controllers(3, &[kind], Roles::Both)
        .prepare()?;
    for id in cluster.controller_ids() {
        cluster.node(id)?.set("broker.rack", &format!("rack-{id}"))?;
    }
    cluster.start()?;
    let replicas = [vec![1, 2, 3], vec![1, 3, 2], vec![1, 2, 3]];
    let topic = fetching::create(&cluster.bootstrap(), TOPIC, &replicas, &[])?;
    let mut load = Load::new(&cluster)?;
    load.run()?;
    let mut fetch = |from: i32, partition: i32, rack: &str| -> Result<(i32, usize)> {
        let mut connection = fetching::connect(&cluster.node(from)?.bootstrap())?;
        let mut request = Wanted::at_once(13).request(&[Part::of(&topic, partition, 0)]);
        request.rack_id = rack.to_owned().into();
        let response = connection.call_in_version(&request, 13, Duration::ZERO)?;
        let data = response.responses.into_iter().flat_map(|topic| topic.partitions).next().context("an answer")?;
        ensure!(data.error_code == 0, "{data:?}");
        Ok((data.preferred_read_replica, data.records.map_or(0, |records| records.len())))
    };
    // The leader sends away only who is nearer to another one, and only to where the records are.
    wait_until("the follower in the rack", PATIENCE, || Ok((fetch(1, 0, "rack-2")?.0 == 2).then_some(())))?;
    let (preferred, bytes) = fetch(1, 0, "rack-2")?;
    ensure!((preferred, bytes) == (2, 0), "{preferred} {bytes}");
    for (partition, rack) in [(0, ""), (0, "rack-1"), (1, "elsewhere")] {
        let (preferred, bytes) = fetch(1, partition, rack)?;
        ensure!(preferred == -1 && bytes > 0, "{partition} {rack}: {preferred} {bytes}");
    }
    wait_until("what is committed to be known there", PATIENCE, || Ok((fetch(2, 0, "rack-2")?.1 > 0).then_some(())))?;
    cluster.stop_and_check()
}
