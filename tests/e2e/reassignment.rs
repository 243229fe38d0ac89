//! `reassign-partitions` says and does what Kafka's tool of this name says and does, in the same cluster: partitions move
//! to other brokers, with all their bytes.
//!
//! The steps are taken twice, by Kafka's tool and by Ringlog's, each time from the same state.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{
    Client, ClientOptions, Consumer, ConsumerOptions, NewRecord, Producer, ProducerOptions, StartOffset, Subscription,
};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::replicas::are_the_same_on;
use ringlog_e2e_tests::{fetching, paths, wait_until};
use ringlog_protocol::messages::ListPartitionReassignmentsRequest;

const TOPIC: &str = "moved";
const PATIENCE: Duration = Duration::from_secs(90);
/// Records in each partition, each in a batch of its own.
const RECORDS: usize = 60;
/// A follower gets one such batch with each answer, and waits for it.
const SLOWLY: &str = "replica.fetch.min.bytes=1000000\nreplica.fetch.max.bytes=1500\nreplica.fetch.wait.max.ms=500";

/// Where the partitions are at first.
const BEFORE: [&[i32]; 3] = [&[1], &[11], &[12]];

/// The files that the commands name.
const FILES: &[(&str, &str)] = &[
    ("hasty", "default.api.timeout.ms=2000\nrequest.timeout.ms=1000\n"),
    ("topics", r#"{"version":1,"topics":[{"topic":"moved"}]}"#),
    ("no-topic", r#"{"version":1,"topics":[{"topic":"nowhere"}]}"#),
    (
        "there",
        r#"{"version":1,"partitions":[
            {"topic":"moved","partition":1,"replicas":[13,12],"log_dirs":["any","any"]},
            {"topic":"moved","partition":0,"replicas":[13,11]}]}"#,
    ),
    ("aside", r#"{"partitions":[{"topic":"moved","partition":2,"replicas":[11]}]}"#),
    ("one", r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[13]}]}"#),
    ("in-order", r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[11,13]}]}"#),
    ("dirs", r#"{"partitions":[{"topic":"moved","partition":2,"replicas":[12],"log_dirs":["/nowhere"]}]}"#),
    ("cut", r#"{"version":1,"partitions":[{"topic":"moved""#),
    ("later", r#"{"version":2,"partitions":[]}"#),
    ("none", r#"{"version":1,"partitions":[]}"#),
    ("no-replicas", r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[]}]}"#),
    (
        "twice",
        r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[1]},{"topic":"moved","partition":0,"replicas":[11]}]}"#,
    ),
    ("same", r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[1,11,1]}]}"#),
    ("nobody", r#"{"partitions":[{"topic":"moved","partition":0,"replicas":[1,99]}]}"#),
    ("nowhere", r#"{"partitions":[{"topic":"nowhere","partition":0,"replicas":[1]}]}"#),
    (
        "beyond",
        r#"{"partitions":[{"topic":"moved","partition":7,"replicas":[1]},{"topic":"moved","partition":9,"replicas":[1]}]}"#,
    ),
];

/// What is refused or finds nothing, whatever the state is.
const REFUSED: &[&str] = &[
    "--bootstrap-server $SERVER --execute --reassignment-json-file $cut",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $later",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $none",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $no-replicas",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $twice",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $same",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $nobody",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $nowhere",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $beyond",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $there --throttle fast",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $there --timeout 1s",
    "--bootstrap-server $SERVER --execute --reassignment-json-file /no/such/file",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $no-topic --broker-list 1",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $cut --broker-list 1",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $topics --broker-list 1,1",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $topics --broker-list 1,x",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $topics --broker-list 98,99",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $there",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $nowhere",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $beyond --preserve-throttles",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $nobody --command-config $hasty",
    "--bootstrap-server $SERVER --cancel --reassignment-json-file $there",
    "--bootstrap-server $SERVER --cancel --reassignment-json-file $none --preserve-throttles",
    "--bootstrap-controller $CONTROLLER --cancel --reassignment-json-file $beyond --preserve-throttles",
    "--bootstrap-server $SERVER --list",
    "--bootstrap-server 127.0.0.1:1 --list --command-config $hasty",
    "--bootstrap-server nowhere --list",
    "--bootstrap-server $SERVER --list --command-config /no/such/file",
];

/// The reassignment begins.
const BEGIN: &[&str] = &[
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $topics --broker-list 13",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $there --throttle 10000000",
];

/// While it is under way.
const UNDER_WAY: &[&str] = &[
    "--bootstrap-server $SERVER --verify --reassignment-json-file $there",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $aside",
    "--bootstrap-server $SERVER --list",
    "--bootstrap-controller $CONTROLLER --list",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $aside",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $aside --additional --throttle 20000000 \
     --replica-alter-log-dirs-throttle 30000000",
    "--bootstrap-server $SERVER --list",
    "--bootstrap-server $SERVER --cancel --reassignment-json-file $aside --preserve-throttles",
    "--bootstrap-server $SERVER --list",
];

/// When all is where it shall be.
const DONE: &[&str] = &[
    "--bootstrap-server $SERVER --verify --reassignment-json-file $there --preserve-throttles",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $there",
    "--bootstrap-server $SERVER --list",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $one --disallow-replication-factor-change",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $in-order --throttle 5000000",
];

/// With throttles for a change of order, which moves nothing.
const LAST: &[&str] = &[
    "--bootstrap-server $SERVER --verify --reassignment-json-file $in-order",
    "--bootstrap-server $SERVER --generate --topics-to-move-json-file $topics --broker-list 12 --disable-rack-aware",
    "--bootstrap-server $SERVER --execute --reassignment-json-file $dirs",
    "--bootstrap-server $SERVER --verify --reassignment-json-file $dirs",
    "--bootstrap-server $SERVER --cancel --reassignment-json-file $dirs",
];

/// What has to be among all that is said, lest both tools fail alike.
const MILESTONES: &[&str] = &[
    "The inter-broker throttle limit was set to 10000000 B/s",
    "Successfully started partition reassignments for moved-0,moved-1",
    "leader.replication.throttled.rate=10000000 ",
    "follower.replication.throttled.replicas=0:11,0:13,1:12,1:13 ",
    "moved-0 is still in progress.",
    "moved-0: replicas: 13,11,1. adding: 11,13. removing: 1.",
    "Cannot execute because there is an existing partition assignment.",
    "Successfully cancelled partition reassignment for: moved-2",
    "moved-0 is completed.",
    "Clearing broker-level throttles on brokers 1,11,12,13",
    "Clearing topic-level throttles on topic moved",
    "moved-0: The replication factor is changed from 2 to 1",
    "Failed to alter dir for moved-2-12",
];

/// How two runs of the same are told apart, in a report only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Kafka,
    Ringlog,
}

/// All of a partition, and those in sync.
type Replicas = (Vec<i32>, BTreeSet<i32>);
/// What was run, and what it said.
type Said = Vec<(String, Outcome)>;

struct Steps<'a> {
    cluster: &'a mut Cluster,
    maker: Maker,
    files: BTreeMap<&'static str, PathBuf>,
    said: Said,
}

impl Steps<'_> {
    fn run(&mut self, commands: &[&str]) -> Result<()> {
        for command in commands {
            let mut line = command.replace("$SERVER", &self.cluster.bootstrap());
            line = line.replace("$CONTROLLER", &self.cluster.controllers().join(","));
            let words = line.split_whitespace().map(|word| match word.strip_prefix('$') {
                Some(file) => self.files.get(file).with_context(|| file.to_owned()).map(|it| it.display().to_string()),
                None => Ok(word.to_owned()),
            });
            let words: Vec<String> = words.collect::<Result<_>>()?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let outcome = match self.maker {
                Maker::Kafka => Jvm::shared()?.tool("kafka-reassign-partitions", &words, b"")?,
                Maker::Ringlog => ringlog(&words)?,
            };
            self.said.push(((*command).to_owned(), comparable(&outcome)));
        }
        Ok(())
    }

    /// What Kafka's tool says of the configurations that throttles are, which are the tools' doing.
    fn look_at_configs(&mut self) -> Result<()> {
        let server = self.cluster.bootstrap();
        for (kind, name) in [("topics", TOPIC), ("brokers", "1"), ("brokers", "12"), ("brokers", "13")] {
            let words = ["--bootstrap-server", &server, "--describe", "--entity-type", kind, "--entity-name", name];
            let said = Jvm::shared()?.tool("kafka-configs", &words, b"")?;
            self.said.push((format!("configs of {kind} {name}"), said));
        }
        Ok(())
    }

    /// Replicas and who of them is in sync, by partition.
    fn replicas(&mut self) -> Result<Vec<Replicas>> {
        let mut client = self.cluster.client()?;
        let partitions = &client.refresh_metadata(Some(&[TOPIC]), false)?.topics[TOPIC].partitions;
        Ok(partitions.iter().map(|it| (it.replicas.clone(), it.in_sync_replicas.iter().copied().collect())).collect())
    }

    fn take(mut self) -> Result<Said> {
        let replicas: Vec<Vec<i32>> = BEFORE.iter().map(|replicas| replicas.to_vec()).collect();
        let topic = fetching::create(&self.cluster.bootstrap(), TOPIC, &replicas, &[])?;
        let written = write(self.cluster)?;
        self.run(REFUSED)?;
        self.run(BEGIN)?;
        self.look_at_configs()?;
        self.run(UNDER_WAY)?;
        self.look_at_configs()?;
        let mut client = self.cluster.client()?;
        let all = ListPartitionReassignmentsRequest::default();
        let done = wait_until("the reassignment to be done", PATIENCE, || {
            let under_way = client.send_to_controller(&all)?.topics;
            Ok(under_way.is_empty().then_some(()))
        });
        done.with_context(|| format!("{:?}\n{}", self.replicas(), self.cluster.explanation()))?;
        self.look_at_configs()?;
        self.run(DONE)?;
        self.look_at_configs()?;
        self.run(LAST)?;
        self.look_at_configs()?;
        let with_all_in_sync =
            |replicas: &[i32]| -> Replicas { (replicas.to_vec(), replicas.iter().copied().collect()) };
        let expected = [&[11, 13][..], &[13, 12], &[12]].map(with_all_in_sync);
        let found = self.replicas()?;
        ensure!(found == expected, "{found:?}");
        for (partition, nodes) in [(0, [11, 13]), (1, [13, 12])] {
            let bytes = are_the_same_on(self.cluster, &nodes, TOPIC, partition)?;
            ensure!(bytes > RECORDS * 1000, "{bytes} bytes in partition {partition}");
        }
        read(self.cluster, &written)?;
        fetching::delete(&self.cluster.bootstrap(), &topic)?;
        Ok(self.said)
    }
}

fn ringlog(words: &[&str]) -> Result<Outcome> {
    let output = Command::new(paths::ringlog()?).arg("reassign-partitions").args(words).output()?;
    Ok(Outcome {
        status: output.status.code().unwrap_or(-1),
        output: String::from_utf8(output.stdout)?,
        errors: String::from_utf8(output.stderr)?,
    })
}

/// Without stack frames and what is logged.
fn comparable(outcome: &Outcome) -> Outcome {
    let is_frame = |line: &&str| line.starts_with("\tat ") || line.starts_with("\t... ");
    let is_log = |line: &&str| line.starts_with("[20") || line.starts_with("WARN ");
    let output = outcome.output.split_inclusive('\n').filter(|line| !is_frame(line)).collect();
    let errors = outcome.errors.split_inclusive('\n').filter(|line| !is_frame(line) && !is_log(line)).collect();
    Outcome { status: outcome.status, output, errors }
}

/// Writes to all partitions; what was acknowledged.
fn write(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut client = Client::connect(cluster.bootstrap().as_str(), ClientOptions::default())?;
    let mut producer = Producer::new(TOPIC, ProducerOptions { retries: 100, ..ProducerOptions::default() }, 1);
    let mut written = BTreeSet::new();
    for number in 0..RECORDS * BEFORE.len() {
        let value = format!("record {number} {}", "x".repeat(1000));
        let partition = Some((number % BEFORE.len()) as i32);
        let record = NewRecord { partition, value: Some(value.clone().into_bytes()), ..NewRecord::default() };
        let mut delivered: Vec<_> = producer.append(&mut client, &record)?.into_iter().collect();
        delivered.extend(producer.flush(&mut client));
        ensure!(delivered.iter().all(|delivery| delivery.outcome.is_ok()), "{delivered:?}");
        written.insert(value);
    }
    Ok(written)
}

/// All that was written is there, and nothing else.
fn read(cluster: &Cluster, written: &BTreeSet<String>) -> Result<()> {
    let mut client = cluster.client()?;
    let from_start = |partition| (TOPIC.to_owned(), partition, StartOffset::Earliest);
    let subscription = Subscription::Partitions((0..BEFORE.len() as i32).map(from_start).collect());
    let mut consumer = Consumer::new(subscription, ConsumerOptions::default());
    let mut found = BTreeSet::new();
    wait_until("all that was written", PATIENCE, || {
        for record in consumer.poll(&mut client)? {
            found.insert(String::from_utf8(record.value.unwrap_or_default().to_vec())?);
        }
        Ok((found.len() >= written.len()).then_some(()))
    })?;
    ensure!(found == *written, "{} are there of {}", found.len(), written.len());
    Ok(())
}

fn show(outcome: &Outcome) -> String {
    format!("{}{}= {}\n", outcome.output, outcome.errors, outcome.status)
}

#[test]
fn the_tool_does_what_kafkas_does() -> Result<()> {
    let _turn = cluster::turn();
    let kinds = [Kind::under_test()];
    let mut cluster = ClusterPlan::new("reassignment", Voters::Static)
        .settings(SLOWLY)
        .controllers(1, &kinds, Roles::Both)
        .brokers(3, &kinds)
        .prepare()?;
    cluster.start()?;
    let folder = paths::scratch("reassignment-files")?;
    let mut files = BTreeMap::new();
    for (name, text) in FILES {
        let file = folder.join(name);
        fs::write(&file, text)?;
        files.insert(*name, file);
    }
    let mut take = |maker| -> Result<Said> {
        let steps = Steps { cluster: &mut cluster, maker, files: files.clone(), said: Said::new() };
        steps.take().with_context(|| format!("{maker:?}"))
    };
    let (kafkas, ours) = (take(Maker::Kafka)?, take(Maker::Ringlog)?);
    let mut differences = String::new();
    for ((command, kafkas), (_, ours)) in kafkas.iter().zip(&ours) {
        if kafkas != ours {
            differences += &format!("$ {command}\nkafka:\n{}ringlog:\n{}\n", show(kafkas), show(ours));
        }
    }
    ensure!(differences.is_empty() && kafkas.len() == ours.len(), "{differences}");
    for text in MILESTONES {
        let is_said = kafkas.iter().any(|(_, outcome)| outcome.output.contains(text));
        ensure!(is_said, "nobody said {text}:\n{}", kafkas.iter().map(|(_, it)| show(it)).collect::<String>());
    }
    fs::remove_dir_all(&folder)?;
    cluster.stop_and_check()
}
