//! `leader-election`, `log-dirs`, `replica-verification` and the filters of `topics` say and do what Kafka's tools of these
//! names do, about replicas that are all there, that lack a node, and that lack all nodes in sync.
//!
//! What changes something is done twice from the same state: first by Kafka's tool, then by ours.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::child::LineProcess;
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::fetching;
use ringlog_e2e_tests::jvm::{self, Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::replicas::{are_the_same, states, wait_for_in_sync};
use ringlog_e2e_tests::tool::{Tool, ours};
use ringlog_e2e_tests::{paths, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
/// The topic with a replica on every node.
const WIDE: &str = "wide";
const WIDE_PARTITIONS: i32 = 20;
/// The one that a single stopped node leaves with one replica.
const PAIR: &str = "pair";
/// The one that has no replica on node 3.
const FRAGILE: &str = "fragile";

/// Whose tools are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Kafkas,
    Ours,
}

struct Setup {
    cluster: Cluster,
    folder: PathBuf,
    differences: String,
}

impl Setup {
    fn start() -> Result<Setup> {
        let mut cluster = ClusterPlan::new("replica-tools", Voters::Static)
            .settings("broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500")
            .settings("offsets.topic.replication.factor=3\nreplica.lag.time.max.ms=5000")
            .settings("auto.leader.rebalance.enable=false\nreplica.fetch.backoff.ms=200")
            .controllers(3, &[Kind::under_test()], Roles::Both)
            .prepare()?;
        cluster.start()?;
        let bootstrap = cluster.bootstrap();
        let orders = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
        let wide: Vec<Vec<i32>> = orders.iter().cycle().take(WIDE_PARTITIONS as usize).cloned().collect();
        fetching::create(&bootstrap, WIDE, &wide, &[("min.insync.replicas", "2")])?;
        fetching::create(&bootstrap, PAIR, &[vec![1, 2], vec![2, 3], vec![3, 1]], &[("min.insync.replicas", "2")])?;
        fetching::create(&bootstrap, FRAGILE, &[vec![1, 2]], &[])?;
        for topic in [WIDE, PAIR, FRAGILE] {
            write(&bootstrap, topic)?;
        }
        let mut setup = Setup { cluster, folder: paths::scratch("replica-tools")?, differences: String::new() };
        setup.wait_for_all()?;
        are_the_same(&mut setup.cluster, WIDE, WIDE_PARTITIONS)?;
        Ok(setup)
    }

    fn wait_for_all(&mut self) -> Result<()> {
        wait_for_in_sync(&mut self.cluster, WIDE, WIDE_PARTITIONS, &BTreeSet::from([1, 2, 3]))?;
        wait_for_in_sync(&mut self.cluster, FRAGILE, 1, &BTreeSet::from([1, 2]))?;
        let mut client = self.cluster.client()?;
        wait_until("two in sync everywhere", PATIENCE, || {
            let states = states(&mut client, PAIR)?;
            Ok(states.values().all(|(_, in_sync)| in_sync.len() == 2).then_some(()))
        })
    }

    /// What the command says, by these tools.
    fn run(&self, whose: Whose, command: &str) -> Result<Outcome> {
        let servers = self.cluster.bootstrap();
        let command = command.replace("$SERVERS", &servers).replace("$DIR", &self.folder.display().to_string());
        let words: Vec<&str> = command.split_whitespace().collect();
        let (tool, arguments) = words.split_first().context("a command has a name")?;
        Ok(comparable(match whose {
            Whose::Kafkas => Jvm::shared()?.tool(&format!("kafka-{tool}"), arguments, b"")?,
            Whose::Ours => ours(&words)?,
        }))
    }

    /// Both tools say the same.
    fn both(&mut self, command: &str) -> Result<Outcome> {
        let (kafkas, ours) = (self.run(Whose::Kafkas, command)?, self.run(Whose::Ours, command)?);
        self.compare(command, &kafkas, &ours);
        Ok(kafkas)
    }

    fn compare(&mut self, command: &str, kafkas: &Outcome, ours: &Outcome) {
        if kafkas != ours {
            self.differences += &format!("$ {command}\nkafka: {kafkas:#?}\nringlog: {ours:#?}\n");
        }
    }

    /// As [`Setup::both`], and they say this.
    fn both_say(&mut self, command: &str, expected: &str) -> Result<()> {
        let outcome = self.both(command)?;
        ensure!(outcome.output.contains(expected), "$ {command}\n{outcome:#?}\nlacks: {expected}");
        Ok(())
    }

    fn restart(&mut self, id: i32) -> Result<()> {
        self.cluster.node(id)?.stop()?;
        self.cluster.start_node(id)?;
        self.wait_for_all()
    }
}

fn write(bootstrap: &str, topic: &str) -> Result<()> {
    let lines: String = (0..500).map(|number| format!("record {number}\n")).collect();
    let arguments = ["console-producer", "--bootstrap-server", bootstrap, "--topic", topic];
    let arguments = [&arguments[..], &["--command-property", "batch.size=512"]].concat();
    Tool::start(&arguments, &lines)?.finish()?.success().map(drop)
}

/// The outcome without warnings, without the log's dates, and without the frames of stack traces.
fn comparable(outcome: Outcome) -> Outcome {
    let is_frame = |line: &&str| line.trim_start().starts_with("at ") || line.trim_start().starts_with("... ");
    let undated = |line| match line {
        dated if str::starts_with(dated, "[20") => dated.split_once("] ").map_or(dated, |(_, rest)| rest),
        line => line,
    };
    let lines = outcome.errors.split_inclusive('\n').filter(|line| !is_frame(line)).map(undated);
    Outcome { errors: lines.filter(|line| !line.starts_with("WARN ")).collect(), ..outcome }
}

/// While everybody is there.
fn with_all(setup: &mut Setup) -> Result<()> {
    let dirs = "log-dirs --bootstrap-server $SERVERS --describe";
    for rest in ["", " --topic-list wide", " --topic-list pair,nosuch --broker-list 3,1", " --broker-list 2,2"] {
        setup.both_say(&format!("{dirs}{rest}"), "\"logDirs\":[{\"partitions\":[{\"partition\":\"")?;
    }
    setup.both_say(&format!("{dirs} --topic-list nosuch"), "\"partitions\":[],\"error\":null")?;
    let outcome = setup.both(&format!("{dirs} --broker-list 17,1,0"))?;
    ensure!(outcome.errors.contains("do not exist") && outcome.status == 1, "{outcome:#?}");
    let outcome = setup.both(&format!("{dirs} --broker-list 1,x"))?;
    ensure!(outcome.errors.starts_with("For input string: \"x\"\n"), "{outcome:#?}");
    let elect = "leader-election --bootstrap-server $SERVERS";
    for scope in ["--topic wide --partition 0", "--topic fragile --partition 0"] {
        for election in ["preferred", "UNCLEAN"] {
            let command = format!("{elect} --election-type {election} {scope}");
            setup.both_say(&command, "Valid replica already elected for partitions ")?;
        }
    }
    for scope in ["--topic nosuch --partition 0", "--topic wide --partition 999"] {
        setup.both_say(&format!("{elect} --election-type preferred {scope}"), "UnknownTopicOrPartitionException")?;
    }
    for election in ["preferred", "unclean"] {
        let outcome = setup.both(&format!("{elect} --election-type {election} --all-topic-partitions"))?;
        ensure!((outcome.status, outcome.output.as_str()) == (0, ""), "{outcome:#?}");
    }
    filters(setup, &["at-min-isr"])
}

/// The filters of `topics --describe`; those in `full` find something, the others nothing.
fn filters(setup: &mut Setup, full: &[&str]) -> Result<()> {
    for filter in ["under-replicated", "unavailable", "under-min-isr", "at-min-isr"] {
        let command = format!("topics --bootstrap-server $SERVERS --describe --{filter}-partitions");
        let outcome = setup.both(&command)?;
        ensure!(outcome.output.is_empty() != full.contains(&filter), "{filter}: {outcome:#?}");
    }
    setup.both("topics --bootstrap-server $SERVERS --describe").map(drop)
}

/// Node 1 was away, so others lead its partitions.
fn preferred(setup: &mut Setup) -> Result<()> {
    let some: Vec<String> = (0..WIDE_PARTITIONS)
        .filter(|partition| partition % 2 == 0)
        .map(|partition| format!("{{\"topic\":\"wide\",\"partition\":{partition}}}"))
        .chain(["{\"topic\":\"nosuch\",\"partition\":1}".to_owned(), "{\"topic\":\"pair\",\"partition\":7}".to_owned()])
        .collect();
    fs::write(setup.folder.join("some.json"), format!("{{\"partitions\":[{}]}}", some.join(",")))?;
    let elect = "leader-election --bootstrap-server $SERVERS --election-type preferred";
    let one = format!("{elect} --topic fragile --partition 0");
    let file = format!("{elect} --path-to-json-file $DIR/some.json");
    let all = format!("{elect} --all-topic-partitions");
    let commands = [&one, &one, &file, &file, &all, &all];
    let mut said = Vec::new();
    for whose in [Whose::Kafkas, Whose::Ours] {
        setup.restart(1)?;
        said.push(commands.iter().map(|command| setup.run(whose, command)).collect::<Result<Vec<_>>>()?);
    }
    for ((command, kafkas), ours) in commands.iter().zip(&said[0]).zip(&said[1]) {
        setup.compare(command, kafkas, ours);
    }
    let success = |at: usize| said[0][at].output.contains("Successfully completed leader election (PREFERRED)");
    ensure!([0, 2, 4].into_iter().all(success), "{:#?}", said[0]);
    Ok(())
}

/// One node is stopped, then another one, too, which leaves no majority of controllers.
fn with_some(setup: &mut Setup) -> Result<()> {
    setup.cluster.node(1)?.stop()?;
    wait_for_in_sync(&mut setup.cluster, WIDE, WIDE_PARTITIONS, &BTreeSet::from([2, 3]))?;
    filters(setup, &["under-replicated", "under-min-isr", "at-min-isr"])?;
    let dirs = "log-dirs --bootstrap-server $SERVERS --describe";
    let outcome = setup.both(&format!("{dirs} --broker-list 1,2"))?;
    ensure!(outcome.errors.contains("do not exist"), "{outcome:#?}");
    setup.both_say(dirs, "from brokers 2,3\n")?;
    let elect = "leader-election --bootstrap-server $SERVERS --election-type";
    setup.both_say(&format!("{elect} preferred --all-topic-partitions"), "PreferredLeaderNotAvailableException")?;
    setup.both_say(&format!("{elect} unclean --topic wide --partition 0"), "Valid replica already elected")?;
    setup.cluster.start_node(1)?;
    setup.wait_for_all()
}

/// Node 2 misses what node 1 has, and only node 2 is left.
fn lose_all_in_sync(setup: &mut Setup) -> Result<()> {
    setup.cluster.node(2)?.stop()?;
    wait_for_in_sync(&mut setup.cluster, FRAGILE, 1, &BTreeSet::from([1]))?;
    write(&setup.cluster.bootstrap(), FRAGILE)?;
    setup.cluster.node(1)?.kill()?;
    setup.cluster.start_node(2)?;
    wait_for_in_sync(&mut setup.cluster, WIDE, WIDE_PARTITIONS, &BTreeSet::from([2, 3]))?;
    let mut client = setup.cluster.client()?;
    wait_until("pairs without node 1", PATIENCE, || {
        let Ok(states) = states(&mut client, PAIR) else { return Ok(None) };
        let expected = [BTreeSet::from([2]), BTreeSet::from([2, 3]), BTreeSet::from([3])];
        Ok(states.values().map(|(_, in_sync)| in_sync).eq(&expected).then_some(()))
    })?;
    wait_until("a partition without a leader", PATIENCE, || {
        Ok(states(&mut client, FRAGILE)
            .is_ok_and(|states| states.values().all(|(leader, _)| *leader < 0))
            .then_some(()))
    })
}

fn unclean(setup: &mut Setup) -> Result<()> {
    let elect = "leader-election --bootstrap-server $SERVERS --topic fragile --partition 0 --election-type";
    let unclean = format!("{elect} unclean");
    let mut said = Vec::new();
    for whose in [Whose::Kafkas, Whose::Ours] {
        lose_all_in_sync(setup)?;
        if whose == Whose::Kafkas {
            filters(setup, &["under-replicated", "unavailable", "under-min-isr", "at-min-isr"])?;
            setup.both_say(&format!("{elect} preferred"), "PreferredLeaderNotAvailableException")?;
        }
        said.push([setup.run(whose, &unclean)?, setup.run(whose, &unclean)?]);
        setup.cluster.start_node(1)?;
        setup.wait_for_all()?;
    }
    for (kafkas, ours) in said[0].iter().zip(&said[1]) {
        setup.compare(&unclean, kafkas, ours);
    }
    ensure!(said[0][0].output.contains("Successfully completed leader election (UNCLEAN)"), "{said:#?}");
    ensure!(said[0][1].output.contains("Valid replica already elected"), "{said:#?}");
    Ok(())
}

/// The first lines of the verification, without their times.
fn verification(setup: &Setup, whose: Whose, arguments: &[&str]) -> Result<Vec<String>> {
    let servers = setup.cluster.bootstrap();
    let mut command = match whose {
        Whose::Kafkas => {
            let mut java = jvm::java()?;
            java.arg("org.apache.kafka.tools.ReplicaVerificationTool");
            java
        }
        Whose::Ours => {
            let mut ringlog = Command::new(paths::ringlog()?);
            ringlog.arg("replica-verification");
            ringlog
        }
    };
    command.args(["--broker-list", &servers, "--report-interval-ms", "1000"]).args(arguments);
    let mut process = LineProcess::start(&mut command, false)?;
    let mut lines = Vec::new();
    while lines.len() < 3 {
        let line = process.next_line(PATIENCE)?.with_context(|| format!("{whose:?} ended after {lines:?}"))?;
        let (time, rest) = line.split_once(": ").with_context(|| line.clone())?;
        ensure!(time.len() == "2026-11-22 05:25:06,990".len(), "{line}");
        lines.push(rest.to_owned());
    }
    process.terminate()?;
    Ok(lines)
}

fn verify(setup: &mut Setup) -> Result<()> {
    for arguments in
        [&["--time", "-2"][..], &["--topics-include", "pair|fragile"], &["--fetch-size", "700", "--time", "-2"]]
    {
        let kafkas = verification(setup, Whose::Kafkas, arguments)?;
        let ours = verification(setup, Whose::Ours, arguments)?;
        ensure!(kafkas == ours, "{arguments:?}: {kafkas:#?} {ours:#?}");
    }
    setup.both("replica-verification --broker-list $SERVERS --topics-include nosuch")?;
    for refused in ["--topics-include (", "--fetch-size x", "--max-wait-ms 1.5", "--report-interval-ms -"] {
        let outcome = setup.both(&format!("replica-verification --broker-list $SERVERS {refused}"))?;
        ensure!(outcome.status == 1, "{refused}: {outcome:#?}");
    }
    Ok(())
}

#[test]
fn tools_agree_about_replicas() -> Result<()> {
    let _turn = cluster::turn();
    let mut setup = Setup::start()?;
    with_all(&mut setup).context("with all nodes")?;
    preferred(&mut setup).context("preferred leaders")?;
    verify(&mut setup).context("replica-verification")?;
    with_some(&mut setup).context("without a node")?;
    unclean(&mut setup).context("unclean elections")?;
    ensure!(setup.differences.is_empty(), "{}", setup.differences);
    fs::remove_dir_all(&setup.folder)?;
    setup.cluster.stop().map(drop)
}
