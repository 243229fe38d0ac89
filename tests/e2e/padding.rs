//! Kafka's tools read the files of a node that runs and has nothing to do, and of one that was killed then.
//!
//! Direct writes are whole blocks, and a busy log's file is made longer ahead of them; what is behind the last record goes
//! when nothing is written for a while.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringlog_client::{NewRecord, Producer, ProducerOptions};
use ringlog_e2e_tests::cluster::{self, metadata_shell};
use ringlog_e2e_tests::fetching::create;
use ringlog_e2e_tests::jvm::Jvm;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::wait_until;

/// Nothing is written for some seconds before padding goes.
const PATIENCE: Duration = Duration::from_secs(40);
/// Base offset and length.
const BATCH_PREFIX_BYTES: usize = 12;

/// The newest segment of a log.
fn active_segment(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let logs = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max().with_context(|| format!("a segment in {}", folder.display()))
}

/// Whether it ends with a batch.
fn ends_with_a_batch(file: &Path) -> Result<bool> {
    let bytes = fs::read(file)?;
    let mut at = 0;
    while at < bytes.len() {
        let Some(prefix) = bytes.get(at..at + BATCH_PREFIX_BYTES) else { return Ok(false) };
        let length = i32::from_be_bytes(prefix[8..].try_into()?);
        if length <= 0 {
            return Ok(false);
        }
        at += BATCH_PREFIX_BYTES + length as usize;
    }
    Ok(at == bytes.len())
}

/// The batches that `kafka-dump-log` shows of a segment.
fn dumped_batches(file: &Path) -> Result<usize> {
    let name = file.display().to_string();
    let shown = Jvm::shared()?.tool("kafka-dump-log", &["--files", &name], b"")?.success()?;
    ensure!(!shown.contains("isvalid: false") && !shown.contains("Found record size"), "{name}: {shown}");
    Ok(shown.lines().filter(|line| line.starts_with("baseOffset:")).count())
}

/// Writes `count` records of so many bytes, each in a batch of its own.
fn write(node: &Node, topic: &str, count: usize, bytes: usize) -> Result<()> {
    let mut client = node.client()?;
    let mut producer = Producer::new(topic, ProducerOptions::default(), 1);
    for _ in 0..count {
        let record = NewRecord { value: Some(vec![7; bytes]), partition: Some(0), ..NewRecord::default() };
        producer.append(&mut client, &record)?;
        for delivery in producer.flush(&mut client) {
            delivery.outcome?;
        }
    }
    Ok(())
}

#[test]
fn the_files_of_an_idle_node_end_with_their_last_record() -> Result<()> {
    let mut node = Node::start_new("idle", Kind::under_test(), "ringlog.shards=2")?;
    for (topic, count, bytes) in [("seldom", 3, 100), ("busy", 60, 900_000)] {
        create(&node.bootstrap(), topic, &[vec![1]], &[])?;
        write(&node, topic, count, bytes)?;
    }
    let folder = node.folder().join("data");
    for (topic, count) in [("seldom", 3), ("busy", 60)] {
        let segment = active_segment(&folder.join(format!("{topic}-0")))?;
        wait_until("the padding to go", PATIENCE, || Ok(ends_with_a_batch(&segment)?.then_some(())))?;
        ensure!(dumped_batches(&segment)? == count, "{topic}");
    }
    // And they go on where they were.
    write(&node, "busy", 1, 900_000)?;
    write(&node, "seldom", 1, 100)?;
    node.kill()?;
    node.start()?;
    for (topic, count) in [("seldom", 4), ("busy", 61)] {
        // What a kill leaves is cut by the next start, without waiting for anything to be written.
        let segment = active_segment(&folder.join(format!("{topic}-0")))?;
        ensure!(ends_with_a_batch(&segment)?, "{topic} after the start");
        ensure!(dumped_batches(&segment)? == count, "{topic}");
    }
    node.stop()
}

#[test]
fn the_metadata_of_a_killed_node_is_read_by_kafkas_tools() -> Result<()> {
    let mut node = Node::start_new("killed", Kind::under_test(), "")?;
    create(&node.bootstrap(), "kept", &[vec![1]], &[])?;
    let segment = active_segment(&node.metadata_folder())?;
    // The controller writes something twice a second; between that it is idle.
    wait_until("the metadata log to be idle", PATIENCE, || {
        node.pause()?;
        if ends_with_a_batch(&segment)? {
            return Ok(Some(()));
        }
        node.resume()?;
        Ok(None)
    })?;
    node.kill()?;
    ensure!(cluster::dump(&segment)?.contains("\"name\":\"kept\""));
    let shown = metadata_shell(&segment, &["ls", "/image/topics/byName"])?;
    ensure!(shown.contains("kept"), "the shell shows {shown}");
    Ok(())
}
