//! Real Kafka as a node's program.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::node::{Kind, Node, NodePlan, Roles};
use crate::paths;
use crate::place::Place;

/// What makes Kafka start soon and stay small, with so many MB of heap.
pub fn options(heap_mb: u32) -> Result<Vec<String>> {
    let archive = format!("-XX:SharedArchiveFile={}", archive()?.display());
    let mut options = vec!["-Xms64m".to_owned(), format!("-Xmx{heap_mb}m"), archive];
    options.extend(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned));
    Ok(options)
}

/// The command that a configuration file is to be added to.
pub fn server(options: &[String]) -> Result<Command> {
    let kafka = paths::kafka()?;
    let mut command = Command::new("java");
    command.args(options);
    command.arg(format!("-Dlog4j2.configurationFile={}/log4j2-server.xml", kafka.display()));
    command.arg("-cp").arg(format!("{}/libs/*", kafka.display())).arg("kafka.Kafka");
    Ok(command)
}

/// Kafka's classes as Java likes to load them, made once: with it a node starts in a third of the time.
fn archive() -> Result<PathBuf> {
    let work = paths::work()?;
    let archive = work.join("kafka.jsa");
    let lock = fs::File::create(work.join("kafka.jsa.lock"))?;
    lock.lock()?;
    if archive.is_file() {
        return Ok(archive);
    }
    let made = work.join("kafka.jsa.made");
    let _ = fs::remove_file(&made);
    let options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned);
    let mut node = Node::new(NodePlan {
        name: "kafka-archive".to_owned(),
        kind: Kind::Kafka,
        id: 1,
        roles: Roles::Both,
        log_dirs: "data".to_owned(),
        settings: String::new(),
        place: Place::loopback(),
        java_options: [&options[..], &[format!("-XX:ArchiveClassesAtExit={}", made.display())]].concat(),
    })?;
    node.set("controller.quorum.bootstrap.servers", &node.controller())?;
    node.format(&["--standalone"])?;
    node.start()?;
    node.stop()?;
    fs::rename(&made, &archive).context("Java makes an archive of the classes")?;
    Ok(archive)
}
