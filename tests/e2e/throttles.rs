//! Replication keeps to its throttles (KIP-73): by the leader's rate, by the follower's, and as `reassign-partitions` sets and
//! clears both. Only those that aren't in sync are held up.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_client::{Client, ClientOptions, NewRecord, Producer, ProducerOptions};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::replicas::{are_the_same_on, wait_for_in_sync};
use ringlog_e2e_tests::{fetching, paths, wait_until};
use ringlog_protocol::messages::ListPartitionReassignmentsRequest;

const TOPIC: &str = "moved";
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: usize = 3;
/// In each partition.
const RECORDS: usize = 32;
const RECORD_BYTES: usize = 100_000;
/// In a second.
const RATE: usize = 1_500_000;
/// What comes before the rate is in force, a second's worth, and the last answer, which may exceed it.
const AT_ONCE_BYTES: usize = 2 * RATE + PARTITIONS * 1_048_576;
/// The brokers: one that has the partitions, and one that gets them.
const FROM: i32 = 1;
const TO: i32 = 11;

fn least_time() -> Duration {
    Duration::from_millis(((PARTITIONS * RECORDS * RECORD_BYTES - AT_ONCE_BYTES) * 1_000 / RATE) as u64)
}

fn write(cluster: &Cluster, records: usize) -> Result<()> {
    let mut client = Client::connect(cluster.bootstrap().as_str(), ClientOptions::default())?;
    let mut producer = Producer::new(TOPIC, ProducerOptions { retries: 100, ..ProducerOptions::default() }, 1);
    for number in 0..records * PARTITIONS {
        let partition = Some((number % PARTITIONS) as i32);
        let value = Some(vec![b'x'; RECORD_BYTES]);
        let mut delivered: Vec<_> = producer
            .append(&mut client, &NewRecord { partition, value, ..NewRecord::default() })?
            .into_iter()
            .collect();
        delivered.extend(producer.flush(&mut client));
        ensure!(delivered.iter().all(|delivery| delivery.outcome.is_ok()), "{delivered:?}");
    }
    Ok(())
}

struct Tools<'a> {
    cluster: &'a mut Cluster,
    files: BTreeMap<&'static str, String>,
}

impl Tools<'_> {
    fn reassign(&self, step: &str, file: &str, more: &[&str]) -> Result<String> {
        let server = self.cluster.bootstrap();
        let words = ["--bootstrap-server", &server, step, "--reassignment-json-file", &self.files[file]];
        Jvm::shared()?.tool("kafka-reassign-partitions", &[&words[..], more].concat(), b"")?.success()
    }

    fn configure(&self, what: [&str; 2], change: [&str; 2]) -> Result<()> {
        let server = self.cluster.bootstrap();
        let words =
            ["--bootstrap-server", &server, "--alter", "--entity-type", what[0], "--entity-name", what[1], change[0]];
        Jvm::shared()?.tool("kafka-configs", &[&words[..], &[change[1]]].concat(), b"")?.success().map(drop)
    }

    fn config(&self, kind: &str, name: &str) -> Result<String> {
        let server = self.cluster.bootstrap();
        let words = ["--bootstrap-server", &server, "--describe", "--entity-type", kind, "--entity-name", name];
        Jvm::shared()?.tool("kafka-configs", &words, b"")?.success()
    }

    fn wait_until_done(&mut self) -> Result<()> {
        let mut client = self.cluster.client()?;
        let all = ListPartitionReassignmentsRequest::default();
        let done = wait_until("the reassignment to be done", PATIENCE, || {
            Ok(client.send_to_controller(&all)?.topics.is_empty().then_some(()))
        });
        done.with_context(|| self.cluster.explanation())
    }

    /// Has the other broker get all partitions; it takes as long as throttles have it take, and no bytes are missing.
    fn moves(&mut self, what: &str, least: Duration, more: &[&str]) -> Result<()> {
        let begun = Instant::now();
        self.reassign("--execute", "both", more)?;
        self.wait_until_done()?;
        let took = begun.elapsed();
        ensure!(took >= least, "{what}: {took:?} instead of {least:?} at least");
        wait_for_in_sync(self.cluster, TOPIC, PARTITIONS as i32, &BTreeSet::from([FROM, TO]))?;
        for partition in 0..PARTITIONS as i32 {
            let bytes = are_the_same_on(self.cluster, &[FROM, TO], TOPIC, partition)?;
            ensure!(bytes > RECORDS * RECORD_BYTES, "{bytes} bytes in partition {partition}");
        }
        Ok(())
    }

    fn back(&mut self) -> Result<()> {
        self.reassign("--execute", "one", &[])?;
        self.wait_until_done()?;
        // Its files go before it gets the partitions anew.
        let folder = self.cluster.node(TO)?.folder().join("data");
        wait_until("the replicas to be gone", PATIENCE, || {
            let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
            let names = names.collect::<Result<Vec<String>>>()?;
            let is_live = |name: &String| name.starts_with(TOPIC) && !name.ends_with("-delete");
            Ok((!names.iter().any(is_live)).then_some(()))
        })
    }
}

#[test]
fn what_is_throttled_takes_its_time() -> Result<()> {
    let _turn = cluster::turn();
    let kinds = [Kind::under_test()];
    let mut cluster = ClusterPlan::new("throttles", Voters::Static)
        .controllers(1, &kinds, Roles::Both)
        .brokers(1, &kinds)
        .prepare()?;
    cluster.start()?;
    fetching::create(&cluster.bootstrap(), TOPIC, &[vec![FROM], vec![FROM], vec![FROM]], &[])?;
    write(&cluster, RECORDS)?;
    let folder = paths::scratch("throttles-files")?;
    let mut files = BTreeMap::new();
    for (name, replicas) in [("both", vec![FROM, TO]), ("one", vec![FROM])] {
        let partition = |it| format!(r#"{{"topic":"{TOPIC}","partition":{it},"replicas":{replicas:?}}}"#);
        let partitions: Vec<String> = (0..PARTITIONS).map(partition).collect();
        let file = folder.join(name);
        fs::write(&file, format!(r#"{{"version":1,"partitions":[{}]}}"#, partitions.join(",")))?;
        files.insert(name, file.display().to_string());
    }
    let mut tools = Tools { cluster: &mut cluster, files };
    // Each of both alone, and each for the first time.
    for (what, broker, replicas) in [("leader", "1", "0:1,1:1,2:1"), ("follower", "11", "*")] {
        let replicas = format!("{what}.replication.throttled.replicas=[{replicas}]");
        let rate = format!("{what}.replication.throttled.rate={RATE}");
        tools.configure(["topics", TOPIC], ["--add-config", &replicas])?;
        tools.configure(["brokers", broker], ["--add-config", &rate])?;
        tools.moves(what, least_time(), &[])?;
        // Who is in sync isn't held up, whatever the rate.
        tools.configure(["brokers", broker], ["--add-config", &format!("{what}.replication.throttled.rate=1")])?;
        write(tools.cluster, 4)?;
        wait_for_in_sync(tools.cluster, TOPIC, PARTITIONS as i32, &BTreeSet::from([FROM, TO]))?;
        tools.configure(["brokers", broker], ["--delete-config", &format!("{what}.replication.throttled.rate")])?;
        tools.configure(["topics", TOPIC], ["--delete-config", &format!("{what}.replication.throttled.replicas")])?;
        tools.back()?;
    }
    // As operators do it. How long that takes isn't said: time without copies is made up for, as in Kafka.
    tools.moves("both", Duration::ZERO, &["--throttle", &RATE.to_string()])?;
    ensure!(tools.config("brokers", "1")?.contains("throttled.rate"), "the throttle is still there");
    let verified = tools.reassign("--verify", "both", &[])?;
    ensure!(verified.contains("Clearing broker-level throttles on brokers 1,11"), "{verified}");
    for (kind, name) in [("brokers", "1"), ("brokers", "11"), ("topics", TOPIC)] {
        let said = tools.config(kind, name)?;
        ensure!(!said.contains("throttled"), "{said}");
    }
    fs::remove_dir_all(&folder)?;
    cluster.stop_and_check()
}
