//! A log directory that failed while its node ran: what happens to what lies there.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringlog_e2e_tests::cluster::PATIENCE;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::{wait_until, wire};
use ringlog_types::ErrorCode;

const PARTITIONS: i32 = 6;
/// More than a segment holds.
const LARGE: usize = 600_000;

/// The folders of a topic's logs in a log directory, whatever their names say of them.
fn logs_of(topic: &str, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("{topic}-")) || name.starts_with(&format!("{topic}.")) {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}

fn partition_of(log: &Path) -> Result<i32> {
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit('-').next().and_then(|number| number.parse().ok()).with_context(|| format!("{name} names a partition"))
}

/// A topic that is deleted while one of its directories is offline leaves nothing there, and the next start uses that
/// directory again.
#[test]
fn a_topic_deleted_while_its_directory_was_offline_leaves_nothing_there() -> Result<()> {
    let mut node = Node::prepare("offline", Kind::Ringlog, 1, "data,more", "", "log.segment.bytes=1048576")?;
    node.set("metadata.log.dir", &node.folder().join("meta").display().to_string())?;
    node.format(&["--standalone"])?;
    node.start()?;
    for topic in ["broken", "going", "staying"] {
        wire::create_topic(&node, topic, PARTITIONS)?;
    }
    let directory = node.folder().join("data");
    let (broken, going) = (logs_of("broken", &directory)?, logs_of("going", &directory)?);
    ensure!(!broken.is_empty() && !going.is_empty(), "nothing lies in {}", directory.display());
    let mut connection = wire::connect(&node, PATIENCE)?;
    for partition in 0..PARTITIONS {
        for topic in ["going", "staying"] {
            ensure!(wire::produced_to(&mut connection, topic, partition, 1000)? == ErrorCode::None);
        }
    }
    // Its next segment has no place to be made.
    fs::remove_dir_all(&broken[0])?;
    let partition = partition_of(&broken[0])?;
    wait_until("the directory to fail", PATIENCE, || {
        let error = wire::produced_to(&mut connection, "broken", partition, LARGE)?;
        Ok((error == ErrorCode::KafkaStorageError).then_some(()))
    })?;
    wire::delete_topic(&node, "going")?;
    wait_until("the deleted logs to go", PATIENCE, || Ok(logs_of("going", &directory)?.is_empty().then_some(())))?;
    ensure!(!logs_of("staying", &directory)?.is_empty(), "others' logs went, too");
    node.stop()?;
    node.start()?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    for partition in 0..PARTITIONS {
        wait_until("the logs that stayed", PATIENCE, || {
            let data = wire::fetched(&mut connection, "staying", partition, 1 << 20)?;
            Ok((data.error_code == 0 && data.high_watermark == 1).then_some(()))
        })?;
    }
    node.stop()
}
