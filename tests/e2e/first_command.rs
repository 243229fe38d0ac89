//! The first thing that somebody does: one command in an empty directory, records in, records out.

use std::process::Command;

use anyhow::{Result, ensure};
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::{paths, programs};

/// Kafka's console tools, and Ringlog's own of the same name.
const TOOLS: [Kind; 2] = [Kind::Kafka, Kind::Ringlog];

fn run(kind: Kind, tool: &str, arguments: &[&str], input: &str) -> Result<String> {
    match kind {
        Kind::Kafka => Jvm::shared()?.tool(&format!("kafka-{tool}"), arguments, input.as_bytes())?.success(),
        Kind::Ringlog => {
            let mut command = Command::new(paths::ringlog()?);
            Ok(String::from_utf8(programs::run(command.arg(tool).args(arguments), input.as_bytes())?)?)
        }
    }
}

#[test]
fn records_go_in_and_out_of_a_node_that_nobody_configured() -> Result<()> {
    // Kafka has no such command; there the same is shown with a node on settings.
    let mut node = match Kind::under_test() {
        Kind::Ringlog => Node::start_dev("first-command")?,
        Kind::Kafka => Node::start_new("first-command", Kind::Kafka, "")?,
    };
    let bootstrap = node.bootstrap();
    let mut expected = Vec::new();
    for (number, writer) in TOOLS.into_iter().enumerate() {
        let lines: Vec<String> = (0..3).map(|line| format!("line {line} of writer {number}")).collect();
        let input = lines.join("\n") + "\n";
        run(writer, "console-producer", &["--bootstrap-server", &bootstrap, "--topic", "quickstart"], &input)?;
        expected.extend(lines);
    }
    let read = |kind: Kind, bootstrap: &str| -> Result<Vec<String>> {
        let count = expected.len().to_string();
        let arguments =
            ["--bootstrap-server", bootstrap, "--topic", "quickstart", "--from-beginning", "--max-messages", &count];
        Ok(run(kind, "console-consumer", &arguments, "")?.lines().map(str::to_owned).collect())
    };
    for reader in TOOLS {
        let got = read(reader, &bootstrap)?;
        ensure!(got == expected, "{reader:?} read {got:?}");
        let topics = run(reader, "topics", &["--bootstrap-server", &bootstrap, "--list"], "")?;
        ensure!(topics.lines().any(|topic| topic == "quickstart"), "{reader:?} lists {topics:?}");
    }
    ensure!(node.is_alive(), "{}", node.last_words());
    node.stop()
}
