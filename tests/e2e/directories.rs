//! Directories go from Kafka to Ringlog and back, with all that is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use ringlog_e2e_tests::programs::Program;
use serde_json::{Value, json};

/// Everything in these topics, as Java's consumer reads it.
fn read_all(node: &Node, isolation: &str, topics: &[&str]) -> Result<Value> {
    let bootstrap = node.bootstrap();
    let mut arguments = vec!["dump", &bootstrap, isolation];
    arguments.extend(topics);
    Ok(serde_json::from_str(&Jvm::shared()?.run("Client", &arguments, b"")?.success()?)?)
}

fn tool(name: &str, arguments: &[&str]) -> Result<String> {
    Jvm::shared()?.tool(name, arguments, b"")?.success()
}

/// What must be the same on whichever program the directories are.
#[derive(Debug, PartialEq)]
struct Content {
    topics: Vec<String>,
    records: Value,
    offsets: Vec<String>,
    configs: String,
}

/// What the test below makes.
fn content(node: &Node) -> Result<Content> {
    let bootstrap = ["--bootstrap-server", &node.bootstrap()];
    let with = |name: &str, arguments: &[&str]| tool(name, &[&bootstrap, arguments].concat());
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let group = with("kafka-consumer-groups", &["--describe", "--group", "readers"])?;
    let cells = group.lines().filter(|line| line.starts_with("readers"));
    let offsets = cells.map(|line| line.split_whitespace().take(5).collect::<Vec<_>>().join(" ")).collect();
    Ok(Content {
        topics: sorted(with("kafka-topics", &["--describe", "--exclude-internal"])?),
        records: read_all(node, "read_uncommitted", &["java-none", "java-zstd", "kcat-lz4", "go-gzip"])?,
        offsets,
        configs: with("kafka-configs", &["--describe", "--entity-type", "topics", "--entity-name", "configured"])?,
    })
}

/// Fills a node with topics, records, a group and settings.
fn fill(node: &Node, round: &str) -> Result<()> {
    let bootstrap = node.bootstrap();
    for (program, codec) in
        [(Program::Java, "none"), (Program::Java, "zstd"), (Program::Kcat, "lz4"), (Program::Go, "gzip")]
    {
        let topic = format!("{}-{codec}", program.name());
        program.produce(&bootstrap, &topic, codec, &program.corpus()).with_context(|| format!("{topic} {round}"))?;
    }
    let topic = format!("only-{round}");
    tool("kafka-topics", &["--bootstrap-server", &bootstrap, "--create", "--topic", &topic, "--partitions", "2"])?;
    let create = ["--bootstrap-server", &bootstrap, "--create", "--if-not-exists", "--topic", "configured"];
    tool("kafka-topics", &create)?;
    let setting = format!("max.message.bytes={}", 2_000_000 + round.len());
    let alter = [
        "--bootstrap-server",
        &bootstrap,
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        "configured",
        "--add-config",
    ];
    tool("kafka-configs", &[&alter[..], &[&setting]].concat())?;
    let read =
        ["--bootstrap-server", &bootstrap, "--topic", "java-none", "--group", "readers", "--max-messages", "100"];
    let read = [&read[..], &["--timeout-ms", "20000", "--consumer-property", "auto.offset.reset=earliest"]].concat();
    tool("kafka-console-consumer", &read).map(drop)
}

/// `kafka-dump-log` finds each log of the folder whole.
fn check_logs(folder: &Path) -> Result<()> {
    let mut checked = 0;
    for partition in fs::read_dir(folder)? {
        let partition = partition?.path();
        if !partition.is_dir() {
            continue;
        }
        for file in fs::read_dir(&partition)? {
            let file = file?.path();
            if !matches!(file.extension().and_then(|end| end.to_str()), Some("log" | "index" | "timeindex")) {
                continue;
            }
            let name = file.display().to_string();
            let is_metadata = name.contains("__cluster_metadata");
            let more = if is_metadata { "--cluster-metadata-decoder" } else { "--deep-iteration" };
            let shown = tool("kafka-dump-log", &["--files", &name, more]).with_context(|| name.clone())?;
            for bad in
                ["isvalid: false", "Found timestamp mismatch", "Index offset", "Mismatches in", "corrupt", "Exception"]
            {
                ensure!(!shown.contains(bad), "{name}: {bad} in\n{}", &shown[shown.len().saturating_sub(1500)..]);
            }
            checked += 1;
        }
    }
    ensure!(checked >= 10, "only {checked} files are in {}", folder.display());
    Ok(())
}

/// A node's directories are Kafka's for a while, then its own again; nothing is lost on the way.
#[test]
fn kafka_and_the_node_take_turns_on_the_same_directories() -> Result<()> {
    let settings = "num.partitions=2";
    let mut node = Node::start_new("directories-turns", Kind::under_test(), settings)?;
    fill(&node, "first")?;
    let before = content(&node)?;
    ensure!(before.offsets.len() == 2, "{:?}", before.offsets);
    node.stop()?;
    check_logs(&node.folder().join("data"))?;

    node.become_kind(Kind::Kafka);
    node.start().context("Kafka on the node's directories")?;
    same(&before, &content(&node)?).context("Kafka on the node's directories")?;
    fill(&node, "second")?;
    let more = content(&node)?;
    node.stop()?;

    node.become_kind(Kind::under_test());
    node.start().context("back on directories that Kafka wrote to")?;
    same(&more, &content(&node)?).context("back on directories that Kafka wrote to")?;
    fill(&node, "third")?;
    node.stop()?;
    check_logs(&node.folder().join("data"))
}

fn same(before: &Content, after: &Content) -> Result<()> {
    ensure!(before.topics == after.topics, "topics were {:#?}\nand are {:#?}", before.topics, after.topics);
    ensure!(before.offsets == after.offsets, "offsets were {:#?}\nand are {:#?}", before.offsets, after.offsets);
    ensure!(before.configs == after.configs, "configs were {}\nand are {}", before.configs, after.configs);
    for (partition, records) in before.records.as_object().context("an object")? {
        ensure!(
            *records == after.records[partition],
            "{partition} was {}\nand is {}",
            brief(records),
            brief(&after.records[partition])
        );
    }
    Ok(())
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(1500).collect()
}

fn fixtures() -> PathBuf {
    paths::here().join("../data/fixtures")
}

/// Starts the node on a fixture and compares what a consumer reads with what Kafka gave.
fn fixture(name: &str, id: i32, log_dirs: &str, voters: &str) -> Result<()> {
    // Records of the fixtures are older than retention allows.
    let settings = "log.retention.ms=-1\nlog.message.timestamp.before.max.ms=9223372036854775807\nbroker.rack=rack-a";
    let mut node = Node::prepare(&format!("directories-{name}"), Kind::under_test(), id, log_dirs, voters, settings)?;
    let packed = fs::File::open(fixtures().join(format!("{name}.tar.gz")))?;
    tar::Archive::new(GzDecoder::new(packed)).unpack(node.folder())?;
    node.start().with_context(|| format!("on the fixture {name}"))?;
    let reads: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(fixtures().join(format!("{name}.reads.json")))?)?;
    let mut topics: Vec<&str> = reads.keys().filter_map(|partition| Some(partition.rsplit_once('-')?.0)).collect();
    topics.dedup();
    let uncommitted = read_all(&node, "read_uncommitted", &topics)?;
    let committed = read_all(&node, "read_committed", &topics)?;
    for (partition, expected) in &reads {
        compare(expected, &uncommitted[partition], &committed[partition])
            .with_context(|| format!("{name} {partition}"))?;
    }
    node.stop()
}

fn compare(expected: &Value, uncommitted: &Value, committed: &Value) -> Result<()> {
    ensure!(uncommitted["start"] == expected["logStartOffset"], "the log starts at {}", uncommitted["start"]);
    // A transaction that was open in the fixture may have been ended by its timeout meanwhile, with a marker.
    let is_open = expected["lastStableOffset"] != expected["highWatermark"];
    let (end, high_watermark) = (uncommitted["end"].as_i64(), expected["highWatermark"].as_i64());
    let is_same = end == high_watermark || (is_open && end == high_watermark.map(|offset| offset + 1));
    ensure!(is_same, "the high watermark is {}", uncommitted["end"]);
    let shown = uncommitted["records"].as_array().context("records")?;
    let records = expected["records"].as_array().context("records")?;
    ensure!(records.len() == shown.len(), "{} records were expected, {} came", records.len(), shown.len());
    for (record, shown) in records.iter().zip(shown) {
        for field in ["offset", "timestamp", "timestampType", "leaderEpoch"] {
            ensure!(record[field] == shown[field], "{field} of {record} is {}", shown[field]);
        }
        for field in ["key", "value"] {
            ensure!(bytes(&record[field])? == shown[field], "{field} of {record} is {}", shown[field]);
        }
        let empty = Vec::new();
        let headers = record["headers"].as_array().unwrap_or(&empty);
        let headers = headers.iter().map(|pair| Ok(json!([pair[0], bytes(&pair[1])?]))).collect::<Result<Vec<_>>>()?;
        ensure!(shown["headers"] == Value::Array(headers), "headers of {record} are {}", shown["headers"]);
    }
    let offsets =
        committed["records"].as_array().context("records")?.iter().filter_map(|record| record["offset"].as_i64());
    let expected = expected["readCommittedOffsets"].as_str().context("ranges")?;
    let committed = ranges(offsets);
    let is_same = committed == expected || (is_open && committed.starts_with(expected));
    ensure!(is_same, "committed are {committed}, not {expected}");
    Ok(())
}

/// The fixtures' notation: text, or `base64:`.
fn bytes(shown: &Value) -> Result<Value> {
    Ok(match shown.as_str() {
        None => Value::Null,
        Some(text) => match text.strip_prefix("base64:") {
            Some(encoded) => encoded.into(),
            None => STANDARD.encode(text).into(),
        },
    })
}

/// `0-3,9,11-12`.
fn ranges(offsets: impl Iterator<Item = i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => ranges.push((offset, offset)),
        }
    }
    let shown =
        ranges.iter().map(|(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") });
    shown.collect::<Vec<_>>().join(",")
}

#[test]
fn a_directory_that_kafka_closed() -> Result<()> {
    fixture("single-node", 1, "data", "1@127.0.0.1")
}

#[test]
fn a_directory_whose_kafka_was_killed() -> Result<()> {
    fixture("unclean", 1, "data", "1@127.0.0.1")
}

#[test]
fn two_log_directories_of_a_dynamic_quorum() -> Result<()> {
    fixture("dynamic-quorum-jbod", 2, "data/d1,data/d2", "")
}
