//! Kafka's own command-line tools print against Ringlog what they print against Kafka.
//!
//! The transcripts in `golden/` were written by running them against Kafka 4.3.1.

use std::fs;

use anyhow::Result;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use ringlog_e2e_tests::transcript::{self, Difference};

/// Where Ringlog means to differ.
const DIFFERENCES: &[Difference] = &[
    no_api("\tSaslHandshake(", SASL),
    no_api("\tSaslAuthenticate(", SASL),
    no_api("\tAddPartitionsToTxn(", TXN),
    no_api("\tAddOffsetsToTxn(", TXN),
    no_api("\tEndTxn(", TXN),
    no_api("\tWriteTxnMarkers(", TXN),
    no_api("\tTxnOffsetCommit(", TXN),
    no_api("\tConsumerGroupHeartbeat(", CONSUMER),
    no_api("\tConsumerGroupDescribe(", CONSUMER),
    no_api("\tShareGroupHeartbeat(", SHARE),
    no_api("\tShareGroupDescribe(", SHARE),
    no_api("\tShareFetch(", SHARE),
    no_api("\tShareAcknowledge(", SHARE),
    no_api("\tInitializeShareGroupState(", SHARE),
    no_api("\tReadShareGroupState(", SHARE),
    no_api("\tWriteShareGroupState(", SHARE),
    no_api("\tDeleteShareGroupState(", SHARE),
    no_api("\tReadShareGroupStateSummary(", SHARE),
    no_api("\tDescribeShareGroupOffsets(", SHARE),
    no_api("\tAlterShareGroupOffsets(", SHARE),
    no_api("\tDeleteShareGroupOffsets(", SHARE),
    no_api("\tStreamsGroupHeartbeat(", STREAMS),
    no_api("\tStreamsGroupDescribe(", STREAMS),
];

const SASL: &str = "Ringlog has no SASL listeners yet, so it doesn't name the APIs that a client would log in by.";
const TXN: &str = "Ringlog has no transactions yet; a producer that asks for them is told so by the missing API.";
const CONSUMER: &str = "Ringlog has classic groups only so far; clients fall back to them when these APIs are missing.";
const SHARE: &str = "Ringlog has no share groups yet.";
const STREAMS: &str = "Ringlog has no streams groups yet.";

/// An API that Kafka names and Ringlog doesn't.
const fn no_api(line: &'static str, reason: &'static str) -> Difference {
    Difference { command: "kafka-broker-api-versions", line, reason }
}

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
