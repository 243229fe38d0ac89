//! `metadata-quorum` and `features` say what Kafka's tools of these names say, about the same node.
//!
//! Every command is run by both, one after the other: what is asked for twice has to end the same twice.

use std::fs;

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::tool::ours;

/// A directory id that nobody has.
const NOBODY: &str = "dRzIH-JZUKJPhdqVcU5J_g";

/// `$SERVER` and `$CONTROLLER` are the node's addresses, `$NODE` is its configuration, and `$HASTY` one for a client
/// that doesn't wait long.
const COMMANDS: &[&str] = &[
    // Looking, by way of both listeners.
    "metadata-quorum --bootstrap-server $SERVER describe --status",
    "metadata-quorum --bootstrap-server $SERVER describe --replication",
    "metadata-quorum --bootstrap-server $SERVER describe --replication --human-readable",
    "metadata-quorum --bootstrap-controller $CONTROLLER describe --status",
    "metadata-quorum --bootstrap-controller $CONTROLLER --command-config $NODE describe --replication",
    "features --bootstrap-server $SERVER describe",
    "features --bootstrap-server $SERVER describe --node-id 1",
    "features --bootstrap-server $SERVER --command-config $HASTY describe --node-id 7",
    "features --bootstrap-controller $CONTROLLER describe",
    "features --bootstrap-controller $CONTROLLER describe --node-id 1",
    // Controllers that come and go.
    "metadata-quorum --bootstrap-server $SERVER --command-config $NODE add-controller --dry-run",
    "metadata-quorum --bootstrap-server $SERVER --command-config $NODE add-controller",
    "metadata-quorum --bootstrap-controller $CONTROLLER --command-config $NODE add-controller",
    "metadata-quorum --bootstrap-server $SERVER --command-config $HASTY add-controller",
    "metadata-quorum --bootstrap-server $SERVER add-controller",
    "metadata-quorum --bootstrap-server $SERVER remove-controller -i 9 -d $NOBODY --dry-run",
    "metadata-quorum --bootstrap-server $SERVER remove-controller -i 9 -d $NOBODY",
    "metadata-quorum --bootstrap-server $SERVER remove-controller -i 1 -d AAAAAAAAAAAAAAAAAAAAAA",
    "metadata-quorum --bootstrap-controller $CONTROLLER remove-controller -i 1 -d $NOBODY",
    // Levels that go up and down.
    "features --bootstrap-server $SERVER upgrade --feature share.version=1 --feature group.version=1",
    "features --bootstrap-server $SERVER upgrade --release-version 4.3 --dry-run",
    "features --bootstrap-server $SERVER upgrade --metadata 4.3",
    "features --bootstrap-server $SERVER upgrade --metadata 4.3-IV0 --feature a=1 --dry-run",
    "features --bootstrap-server $SERVER upgrade --release-version 4.0",
    "features --bootstrap-server $SERVER upgrade --feature metadata.version=31",
    "features --bootstrap-server $SERVER upgrade --feature share.version=9 --feature group.version=9",
    "features --bootstrap-server $SERVER upgrade --feature transaction.version=1",
    "features --bootstrap-server $SERVER downgrade --feature metadata.version=29",
    "features --bootstrap-server $SERVER downgrade --feature metadata.version=29 --unsafe --dry-run",
    "features --bootstrap-server $SERVER downgrade --release-version 3.7",
    "features --bootstrap-server $SERVER downgrade --feature transaction.version=1 --dry-run",
    "features --bootstrap-server $SERVER downgrade --feature transaction.version=1",
    "features --bootstrap-server $SERVER disable --feature share.version --dry-run",
    "features --bootstrap-server $SERVER disable --feature share.version --feature transaction.version",
    "features --bootstrap-server $SERVER disable --feature metadata.version",
    "features --bootstrap-server $SERVER disable --feature kraft.version",
    "features --bootstrap-server $SERVER disable --feature no.such.version --unsafe",
    "features --bootstrap-controller $CONTROLLER upgrade --feature share.version=1",
    "features --bootstrap-controller $CONTROLLER upgrade --feature kraft.version=2",
    "features --bootstrap-server $SERVER describe",
    // Nodes of the other kind, and none at all.
    "metadata-quorum --bootstrap-server $CONTROLLER describe --status",
    "metadata-quorum --bootstrap-controller $SERVER describe --replication",
    "features --bootstrap-server $CONTROLLER describe",
    "features --bootstrap-controller $SERVER upgrade --feature share.version=1",
    "metadata-quorum --bootstrap-server 127.0.0.1:1 --command-config $HASTY describe --status",
    "features --bootstrap-controller 127.0.0.1:1 --command-config $HASTY upgrade --feature share.version=1",
    // What needs no node.
    "features version-mapping",
    "features version-mapping --release-version 3.9",
    "features feature-dependencies --feature eligible.leader.replicas.version=1 --feature group.version=1",
];

fn compare(node: &Node) -> Result<()> {
    let hasty = node.folder().join("hasty.properties");
    fs::write(&hasty, "default.api.timeout.ms=2000\nrequest.timeout.ms=1000\n")?;
    let mut differences = String::new();
    for command in COMMANDS {
        let command = command
            .replace("$SERVER", &node.bootstrap())
            .replace("$CONTROLLER", &node.controller())
            .replace("$NODE", &node.properties().display().to_string())
            .replace("$HASTY", &hasty.display().to_string())
            .replace("$NOBODY", NOBODY);
        let words: Vec<&str> = command.split_whitespace().collect();
        let (tool, arguments) = words.split_first().context("a command has a name")?;
        let kafkas = comparable(Jvm::shared()?.tool(&format!("kafka-{tool}"), arguments, b"")?);
        let ours = comparable(ours(&words)?);
        if kafkas != ours {
            differences += &format!("$ {command}\nkafka: {kafkas:#?}\nringlog: {ours:#?}\n");
        }
    }
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

/// The outcome without what can't be the same.
fn comparable(outcome: Outcome) -> Outcome {
    let output = outcome.output.split_inclusive('\n').map(without_counters).collect();
    Outcome { output, errors: without_log(&outcome.errors), ..outcome }
}

/// Offsets and times go on from one run to the next.
fn without_counters(line: &str) -> String {
    if let Some((before, _)) = line.split_once("Epoch: ") {
        return format!("{before}Epoch:\n");
    }
    if let Some((label, value)) = line.split_once(':')
        && ["HighWatermark", "MaxFollowerLag", "MaxFollowerLagTimeMs"].contains(&label)
    {
        let blanks = value.len() - value.trim_start().len();
        return format!("{label}:{}\n", " ".repeat(blanks));
    }
    let cells: Vec<&str> = line.split('\t').collect();
    if cells.len() == 8 && !line.starts_with("NodeId") {
        // Log end and the two times; an age is as wide as it is long.
        let masked = cells.iter().enumerate().map(|(column, cell)| match column {
            2 | 4 | 5 if cell.contains("ago") => "… ms ago",
            2 | 4 | 5 => "…",
            _ => cell,
        });
        return masked.collect::<Vec<_>>().join("\t");
    }
    if line.starts_with("NodeId") {
        return line.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    line.to_owned()
}

/// Without lines of the log, with what log4j adds to them, and without stack traces.
fn without_log(errors: &str) -> String {
    let is_frame = |line: &str| line.starts_with("\tat ") || line.starts_with("\t... ");
    let is_log = |line: &str| line.starts_with("[20") || line.starts_with("WARN ");
    let lines: Vec<&str> = errors.lines().collect();
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        let is_trace = is_frame(line)
            || line.starts_with("Caused by: ")
            || line.is_empty()
            || lines.get(at + 1).is_some_and(|next| is_frame(next));
        // The log has these exceptions in a line of their own.
        let before = at.checked_sub(1).map_or("", |before| lines[before]);
        let is_logged = before.contains("AdminMetadataManager") && line.contains("Exception: ");
        if !is_trace && !is_logged && !is_log(line) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[test]
fn tools_agree_about_a_dynamic_quorum() -> Result<()> {
    let mut node = Node::start_new("admin-tools-dynamic", Kind::under_test(), "")?;
    compare(&node)?;
    node.stop()
}

#[test]
fn tools_agree_about_a_static_quorum_and_its_upgrade() -> Result<()> {
    let mut node = Node::prepare("admin-tools-static", Kind::under_test(), 1, "data", "1@127.0.0.1", "")?;
    node.format(&[])?;
    node.start()?;
    compare(&node)?;
    // From kraft.version 1 on voters have directories.
    let upgrade = ["--bootstrap-server", &node.bootstrap(), "upgrade", "--feature", "kraft.version=1"];
    let outcome = ours(&[&["features"], &upgrade[..]].concat())?;
    ensure!(outcome.output == "kraft.version was upgraded to 1.\n", "{outcome:?}");
    compare(&node)?;
    node.stop()
}
