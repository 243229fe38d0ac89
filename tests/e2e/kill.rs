//! What was acknowledged survives `kill -9`, once and in order.
//!
//! Kafka's own producer with its defaults (idempotent, acks=all) numbers what it sends to each partition and goes on
//! through the deaths of the node. `KILL_ROUNDS` sets their number.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ringlog_client::{Client, Consumer, ConsumerOptions, StartOffset, Subscription};
use ringlog_e2e_tests::child::LineProcess;
use ringlog_e2e_tests::jvm::{self, Jvm};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::wire;
use ringlog_types::ErrorCode;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(90);

/// Whoever reads the log has to see that it isn't the torn end of every kill.
#[test]
fn whole_records_that_are_cut_off_behind_damage_are_warned_of() -> Result<()> {
    const RECORDS: i64 = 40;
    let mut node = Node::start_new("cut", Kind::under_test(), "log.segment.bytes=1048576")?;
    wire::create_topic(&node, "cut", 1)?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    for _ in 0..RECORDS {
        let answer = wire::produced_to(&mut connection, "cut", 0, 60_000)?;
        ensure!(answer == ErrorCode::None, "{answer:?}");
    }
    node.kill()?;
    let directory = node.folder().join("data/cut-0");
    let first = directory.join("00000000000000000000.log");
    let mut bytes = fs::read(&first)?;
    // Within the second record.
    bytes[90_000] ^= 1;
    fs::write(&first, bytes)?;
    node.start()?;
    let words = node.words()?;
    let warning = words.lines().find(|line| line.contains(" WARN cut the log")).context("a warning")?;
    let lost: i64 = value_of(warning, "records_min")?.parse()?;
    ensure!(value_of(warning, "from")? == "1" && (1..RECORDS).contains(&lost), "{warning}");
    ensure!(warning.contains(&*directory.to_string_lossy()), "{warning}");
    node.stop()
}

/// What stands behind `key=` in a line of the log.
fn value_of<'a>(line: &'a str, key: &str) -> Result<&'a str> {
    let (_, after) = line.split_once(&format!(" {key}=")).with_context(|| format!("no {key} in {line}"))?;
    Ok(after.split_whitespace().next().unwrap_or_default())
}

/// What the producer was told, by partition: the offset of each number.
type Acknowledged = BTreeMap<i32, BTreeMap<i64, i64>>;

/// Numbers that are random enough for choosing moments.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() -> Result<()> {
    let rounds: u32 = env::var("KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    let mut dice = Dice(seed.into());
    println!("{rounds} rounds, seed {seed}");
    // Small segments, so that kills meet rolls.
    let mut node = Node::start_new("kill", Kind::under_test(), "log.segment.bytes=4194304")?;
    create_topic(&node)?;
    let mut producer = LineProcess::start(jvm::java()?.args(["Client", "load", &node.bootstrap(), "numbered"]), false)?;
    let mut acknowledged = Acknowledged::new();
    let mut verified: BTreeMap<i32, i64> = BTreeMap::new();
    for round in 0..rounds {
        // Each round makes progress first, then lasts a random time longer.
        let count = |acknowledged: &Acknowledged| acknowledged.values().map(BTreeMap::len).sum::<usize>();
        let goal = count(&acknowledged) + 500;
        while count(&acknowledged) < goal {
            let line = producer.next_line(PATIENCE).with_context(|| format!("round {round}; {}", node.last_words()))?;
            take(&line.context("the producer goes on")?, &mut acknowledged)?;
        }
        let end = Instant::now() + Duration::from_millis(dice.below(1000));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Ok(line) = producer.next_line(left) else { break };
            take(&line.context("the producer goes on")?, &mut acknowledged)?;
        }
        node.kill()?;
        for line in producer.lines_so_far() {
            take(&line, &mut acknowledged)?;
        }
        node.start().with_context(|| format!("after kill {round}"))?;
        let records = read(&node, &verified)?;
        check(&records, &acknowledged, &verified).with_context(|| format!("after kill {round}, seed {seed}"))?;
        // The next round reads on from here, so that a hundred rounds don't read a hundred times.
        for (partition, numbers) in &acknowledged {
            verified.insert(*partition, numbers.values().max().copied().unwrap_or(0));
        }
    }
    for line in producer.finish(PATIENCE)? {
        take(&line, &mut acknowledged)?;
    }
    let everything = read(&node, &BTreeMap::new())?;
    check(&everything, &acknowledged, &BTreeMap::new()).with_context(|| format!("at the end, seed {seed}"))?;
    let sent: usize = acknowledged.values().map(BTreeMap::len).sum();
    let there: usize = everything.values().map(Vec::len).sum();
    ensure!(sent == there, "{sent} records were acknowledged, {there} are there");
    println!("{sent} records");
    node.stop()?;
    check_files(&node)
}

fn create_topic(node: &Node) -> Result<()> {
    let bootstrap = node.bootstrap();
    let partitions = PARTITIONS.to_string();
    let create = ["--bootstrap-server", &bootstrap, "--create", "--topic", "numbered", "--partitions", &partitions];
    Jvm::shared()?.tool("kafka-topics", &create, b"")?.success().map(drop)
}

/// `PARTITION NUMBER OFFSET`.
fn take(line: &str, acknowledged: &mut Acknowledged) -> Result<()> {
    let numbers: Vec<i64> = line
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("the producer said {line}"))?;
    let [partition, number, offset] = numbers[..].try_into().context("three numbers")?;
    let before = acknowledged.entry(partition.try_into()?).or_default().insert(number, offset);
    ensure!(before.is_none(), "number {number} was acknowledged twice");
    Ok(())
}

/// Offset and number of each record from the given offsets to the ends, by partition.
fn read(node: &Node, from: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Vec<(i64, i64)>>> {
    let mut client: Client = node.client()?;
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let start = from.get(&partition).copied().unwrap_or(0);
        let end = end_offset(node, partition)?;
        let subscription = Subscription::Partitions(vec![("numbered".into(), partition, StartOffset::At(start))]);
        let mut consumer = Consumer::new(subscription, ConsumerOptions::default());
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while start + (records.len() as i64) < end {
            ensure!(
                Instant::now() < deadline,
                "{partition}: {} records came from {start}, the end is {end}",
                records.len()
            );
            for record in consumer.poll(&mut client)? {
                let value = record.value.as_ref().context("a value")?;
                let number = std::str::from_utf8(value)?.trim_end().parse()?;
                records.push((record.offset, number));
            }
        }
        all.insert(partition, records);
    }
    Ok(all)
}

fn end_offset(node: &Node, partition: i32) -> Result<i64> {
    let bootstrap = node.bootstrap();
    let partition = format!("numbered:{partition}");
    let arguments = ["--bootstrap-server", &bootstrap, "--topic-partitions", &partition, "--time", "latest"];
    let output = Jvm::shared()?.tool("kafka-get-offsets", &arguments, b"")?.success()?;
    output.trim().rsplit(':').next().and_then(|end| end.parse().ok()).with_context(|| format!("an end in {output}"))
}

/// Numbers and offsets both go up by one, and each acknowledged number is at its offset.
fn check(
    records: &BTreeMap<i32, Vec<(i64, i64)>>,
    acknowledged: &Acknowledged,
    from: &BTreeMap<i32, i64>,
) -> Result<()> {
    for (partition, records) in records {
        let start = from.get(partition).copied().unwrap_or(0);
        for ((offset, number), expected) in records.iter().zip(start..) {
            ensure!(*offset == expected, "partition {partition}: offset {offset} in the place of {expected}");
            // Every record of a partition is numbered, so numbers and offsets are the same.
            ensure!(*number == expected, "partition {partition}: number {number} at offset {offset}");
        }
        let end = start + records.len() as i64;
        for (number, offset) in acknowledged.get(partition).into_iter().flatten() {
            ensure!(number == offset, "partition {partition}: number {number} was acknowledged at offset {offset}");
            ensure!(*offset < end, "partition {partition}: lost number {number}, acknowledged; the log ends at {end}");
        }
    }
    Ok(())
}

fn check_files(node: &Node) -> Result<()> {
    let mut jvm = Jvm::shared()?;
    for partition in 0..PARTITIONS {
        let mut logs: Vec<_> = fs::read_dir(node.folder().join(format!("data/numbered-{partition}")))?
            .map(|file| Ok(file?.path().display().to_string()))
            .collect::<Result<_>>()?;
        logs.retain(|name| name.ends_with(".log"));
        logs.sort();
        let shown = jvm.tool("kafka-dump-log", &["--files", &logs.join(","), "--deep-iteration"], b"")?.success()?;
        ensure!(shown.contains("isvalid: true") && !shown.contains("isvalid: false"), "partition {partition}");
    }
    Ok(())
}
