//! Kafka's own command-line tools print against Ringlog what they print against Kafka.
//!
//! The transcripts in `golden/` were written by running them against Kafka 4.3.1.

use std::fs;

use anyhow::Result;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use ringlog_e2e_tests::transcript::{self, Difference};

/// Where Ringlog means to differ.
const DIFFERENCES: &[Difference] = &[];

#[test]
fn tools_print_what_they_print_against_kafka() -> Result<()> {
    let node = Node::start_new("tools", Kind::under_test(), "")?;
    let mut files: Vec<_> =
        fs::read_dir(paths::here().join("golden"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut failures = String::new();
    for file in &files {
        if let Err(error) = transcript::play(file, &node, DIFFERENCES) {
            failures.push_str(&format!("=== {}: {error:#}\n", file.display()));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}
