//! A Kafka cluster is taken over node by node, each on its own directories, and given back the same way, while clients write
//! and read: nothing is lost, nothing is there twice, nobody sees more than a pause.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{Consumer, ConsumerOptions, StartOffset, Subscription};
use ringlog_e2e_tests::child::{self, LineProcess};
use ringlog_e2e_tests::cluster::{self, Cluster, ClusterPlan, Voters};
use ringlog_e2e_tests::fetching;
use ringlog_e2e_tests::jvm::{self, Jvm};
use ringlog_e2e_tests::node::{Kind, Roles};
use ringlog_e2e_tests::programs::{Member, Program};
use ringlog_e2e_tests::replicas::{are_the_same, states, wait_for_in_sync};
use ringlog_e2e_tests::wait_until;

/// Java's clients use this one.
const OF_JAVA: &str = "of-java";
/// And those of librdkafka this one.
const OF_KCAT: &str = "of-kcat";
const PARTITIONS: i32 = 3;
const OFFSETS: &str = "__consumer_offsets";
/// Of the topic with the offsets.
const OFFSETS_PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(90);

/// Offset by number, of each partition.
type Acknowledged = BTreeMap<i32, BTreeMap<i64, i64>>;

/// librdkafka as a producer: numbers, one a line, for as long as it is wanted.
struct KcatLoad {
    child: Child,
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<std::io::Result<i64>>,
}

impl KcatLoad {
    fn start(bootstrap: &str) -> Result<KcatLoad> {
        let mut command = Command::new("kcat");
        command.args(["-P", "-b", bootstrap, "-t", OF_KCAT, "-X", "enable.idempotence=true", "-X", "linger.ms=5"]);
        command.args(["-X", "message.timeout.ms=600000", "-X", "reconnect.backoff.max.ms=200"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting kcat")?;
        let input = child.stdin.take().context("input is piped")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let writer = thread::spawn(move || write_numbers(input, &until));
        Ok(KcatLoad { child, is_over, writer })
    }

    /// How many numbers were sent, all of them acknowledged.
    fn finish(mut self) -> Result<i64> {
        self.is_over.store(true, Ordering::Relaxed);
        let count = self.writer.join().expect("a writer doesn't panic")?;
        let status = child::wait_for_end(&mut self.child, PATIENCE)?;
        ensure!(status.success(), "kcat ended with {status}");
        Ok(count)
    }
}

fn write_numbers(mut input: ChildStdin, is_over: &AtomicBool) -> std::io::Result<i64> {
    let mut next = 0;
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..4 {
            writeln!(input, "{next}")?;
            next += 1;
        }
        input.flush()?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(next)
}

/// The numbers in a topic, in the order of each partition's offsets.
fn numbers(cluster: &Cluster, topic: &str) -> Result<BTreeMap<i32, Vec<(i64, i64)>>> {
    let mut client = cluster.client()?;
    let ends = ends(cluster, topic)?;
    let from_start = |partition| (topic.to_owned(), partition, StartOffset::Earliest);
    let mut consumer =
        Consumer::new(Subscription::Partitions((0..PARTITIONS).map(from_start).collect()), ConsumerOptions::default());
    let mut found: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    wait_until("all records", PATIENCE, || {
        for record in consumer.poll(&mut client)? {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
            found.entry(record.partition).or_default().push((record.offset, value.trim().parse()?));
        }
        let is_read = |(partition, end): (&i32, &i64)| {
            *end == 0 || found.get(partition).and_then(|all| all.last()).is_some_and(|(offset, _)| offset + 1 >= *end)
        };
        Ok(ends.iter().all(is_read).then_some(()))
    })?;
    Ok(found)
}

/// Where the partitions end.
fn ends(cluster: &Cluster, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let bootstrap = cluster.bootstrap();
    let arguments = ["--bootstrap-server", &bootstrap, "--topic", topic];
    let text = Jvm::shared()?.tool("kafka-get-offsets", &arguments, b"")?.success()?;
    let end = |line: &str| -> Result<(i32, i64)> {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, partition, end] = fields[..] else { anyhow::bail!("an unexpected line: {line}") };
        Ok((partition.parse()?, end.parse()?))
    };
    text.lines().map(end).collect()
}

/// What Java's producer was told so far.
fn take(lines: Vec<String>, acknowledged: &mut Acknowledged) -> Result<()> {
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let [partition, number, offset] = fields[..] else { anyhow::bail!("the producer says: {line}") };
        acknowledged.entry(partition.parse()?).or_default().insert(number.parse()?, offset.parse()?);
    }
    Ok(())
}

/// Offsets that a reader got, by partition: each of them, once, in order.
fn check_reader(who: Program, records: &[(i64, i64)], ends: &BTreeMap<i32, i64>) -> Result<()> {
    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
    for (partition, offset) in records {
        let expected = next.entry(*partition).or_default();
        ensure!(*offset == *expected, "{who:?} got {partition}/{offset} where {expected} was due");
        *expected = offset + 1;
    }
    for (partition, end) in ends {
        let reached = next.get(&i64::from(*partition)).copied().unwrap_or(0);
        ensure!(reached == *end, "{who:?} got partition {partition} up to {reached} of {end}");
    }
    Ok(())
}

/// Everything that clients do while nodes change.
struct Load {
    producer: LineProcess,
    kcat: KcatLoad,
    readers: Vec<(Program, &'static str, Member)>,
    acknowledged: Acknowledged,
}

impl Load {
    fn start(cluster: &Cluster) -> Result<Load> {
        let bootstrap = cluster.bootstrap();
        let producer = LineProcess::start(jvm::java()?.args(["Client", "load", &bootstrap, OF_JAVA, "100"]), false)?;
        let readers = [(Program::Java, OF_JAVA), (Program::Kcat, OF_KCAT)];
        let readers = readers.map(|(program, topic)| {
            Ok((program, topic, program.join(&bootstrap, topic, &format!("readers-{topic}"))?))
        });
        Ok(Load {
            producer,
            kcat: KcatLoad::start(&bootstrap)?,
            readers: readers.into_iter().collect::<Result<_>>()?,
            acknowledged: Acknowledged::new(),
        })
    }

    /// Waits until writers and readers have gone on.
    fn goes_on(&mut self) -> Result<()> {
        let count = |acknowledged: &Acknowledged| acknowledged.values().map(BTreeMap::len).sum::<usize>();
        let before = count(&self.acknowledged);
        let mut read_before = Vec::new();
        for (.., reader) in &mut self.readers {
            read_before.push(reader.records()?.len());
        }
        wait_until("clients to go on", PATIENCE, || {
            take(self.producer.lines_so_far(), &mut self.acknowledged)?;
            let mut do_read = true;
            for ((.., reader), before) in self.readers.iter_mut().zip(&read_before) {
                do_read &= reader.records()?.len() >= before + 100;
            }
            Ok((count(&self.acknowledged) >= before + 100 && do_read).then_some(()))
        })
    }

    fn finish(mut self, cluster: &Cluster) -> Result<()> {
        take(self.producer.finish(PATIENCE)?, &mut self.acknowledged)?;
        let sent = self.kcat.finish()?;
        let of_java = numbers(cluster, OF_JAVA)?;
        for (partition, found) in &of_java {
            let told = &self.acknowledged[partition];
            ensure!(
                found.iter().enumerate().all(|(place, (_, number))| *number == place as i64),
                "a number is missing, or there twice, in partition {partition}"
            );
            ensure!(found.len() == told.len(), "{} are there of {}", found.len(), told.len());
            let misplaced = found.iter().find(|(offset, number)| told.get(number) != Some(offset));
            ensure!(misplaced.is_none(), "{misplaced:?} isn't where it was acknowledged");
        }
        let of_kcat = numbers(cluster, OF_KCAT)?;
        let is_in_order = |found: &Vec<(i64, i64)>| found.is_sorted_by(|left, right| left.1 < right.1);
        ensure!(of_kcat.values().all(is_in_order), "records of kcat changed their order, or are there twice");
        let all: BTreeSet<i64> = of_kcat.values().flatten().map(|(_, number)| *number).collect();
        ensure!(all.len() as i64 == sent, "{} numbers are there of {sent}", all.len());
        for (program, topic, mut reader) in self.readers {
            let ends = ends(cluster, topic)?;
            let total: i64 = ends.values().sum();
            wait_until("readers to get to the end", PATIENCE, || {
                Ok((reader.records()?.len() as i64 >= total).then_some(()))
            })?;
            check_reader(program, &reader.leave()?, &ends)?;
        }
        Ok(())
    }
}

/// Each partition's first replica leads it again.
fn elect_preferred(cluster: &Cluster) -> Result<()> {
    let bootstrap = cluster.bootstrap();
    let mut client = cluster.client()?;
    wait_until("preferred leaders", PATIENCE, || {
        let arguments = ["--bootstrap-server", &bootstrap, "--election-type", "preferred", "--all-topic-partitions"];
        Jvm::shared()?.tool("kafka-leader-election", &arguments, b"")?;
        let Ok(states) = states(&mut client, OF_JAVA) else { return Ok(None) };
        let leaders: BTreeSet<i32> = states.values().map(|(leader, _)| *leader).collect();
        Ok((leaders.len() == PARTITIONS as usize).then_some(()))
    })
}

/// Every node becomes one of the other kind, one after the other.
fn replace_all(cluster: &mut Cluster, kind: Kind, load: &mut Load) -> Result<()> {
    let all: BTreeSet<i32> = cluster.controller_ids().into_iter().collect();
    for id in cluster.controller_ids() {
        let node = cluster.node(id)?;
        node.stop()?;
        node.become_kind(kind);
        node.start()?;
        for (topic, partitions) in [(OF_JAVA, PARTITIONS), (OF_KCAT, PARTITIONS), (OFFSETS, OFFSETS_PARTITIONS)] {
            wait_for_in_sync(cluster, topic, partitions, &all).with_context(|| format!("{id} is {kind:?}"))?;
        }
        elect_preferred(cluster).with_context(|| format!("{id} is {kind:?}"))?;
        load.goes_on().with_context(|| format!("{id} is {kind:?}\n{}", cluster.explanation()))?;
    }
    Ok(())
}

#[test]
fn kafka_is_replaced_in_place_and_comes_back() -> Result<()> {
    let _turn = cluster::turn();
    let mut cluster = ClusterPlan::new("takeover", Voters::Initial)
        .settings("min.insync.replicas=2\noffsets.topic.replication.factor=3\nauto.leader.rebalance.enable=false")
        .settings("transaction.state.log.replication.factor=3\nshare.coordinator.state.topic.replication.factor=3")
        .controllers(3, &[Kind::Kafka], Roles::Both)
        .prepare()?;
    cluster.start()?;
    let replicas = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
    for topic in [OF_JAVA, OF_KCAT] {
        fetching::create(&cluster.bootstrap(), topic, &replicas, &[])?;
    }
    let mut load = Load::start(&cluster)?;
    load.goes_on()?;
    replace_all(&mut cluster, Kind::Ringlog, &mut load)?;
    replace_all(&mut cluster, Kind::Kafka, &mut load)?;
    load.finish(&cluster)?;
    for topic in [OF_JAVA, OF_KCAT] {
        are_the_same(&mut cluster, topic, PARTITIONS)?;
    }
    are_the_same(&mut cluster, OFFSETS, OFFSETS_PARTITIONS)?;
    cluster.stop_and_check()
}
