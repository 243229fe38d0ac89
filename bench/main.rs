//! `bench/produce-consume`: how much a node moves, at which cost and latency, and how that compares with Kafka.
//!
//! The load is the same for every node: connections that send pre-encoded batches over real sockets, so that the
//! generator costs as little as can be. What the broker costs is read from its process: CPU seconds and memory.

#![allow(clippy::disallowed_methods, reason = "a load generator measures time and runs threads")]

mod node;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use ringlog_bench::load::Load;

use crate::node::{Kind, Nodes};
use crate::report::{Outcome, Report};

/// Measures a Kafka-compatible node: throughput, CPU seconds per GB, latency, start-up time, memory.
#[derive(Debug, Parser)]
#[command(name = "produce-consume")]
struct Options {
    /// Nodes that are one cluster; each partition has a replica on all of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Measure nodes that run already (HOST:PORT,…, with the ids 1, 2, …) instead of starting some.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Measure real Kafka 4.3.1 with the same load in the same run, and print ratios.
    #[arg(long, value_parser = ["kafka"])]
    against: Option<String>,
    /// Seconds of producing per measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Times that both nodes are measured, one after the other; the best of each counts.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Connections that produce, and that consume.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Requests of a connection that may be unanswered.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Bytes of a batch, about.
    #[arg(long, default_value_t = 65_536)]
    batch_bytes: usize,
    /// acks of the producer: -1, 0 or 1.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    acks: i16,
    /// Produce at this rate (MB/s) instead of at full speed; latencies then count from when a request was due.
    #[arg(long)]
    rate_mb_s: Option<f64>,
    /// Also fsync before acknowledging (flush.messages=1 on the topic).
    #[arg(long)]
    fsync: bool,
    /// Where the nodes that are started keep their data.
    #[arg(long, default_value = "target/bench-data")]
    data_dir: PathBuf,
    /// The ringlog binary.
    #[arg(long, default_value = "target/release/ringlog")]
    ringlog: PathBuf,
    /// Also write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut report = Report::new(&options_text(&options));
    if let Some(bootstrap) = &options.bootstrap {
        report.add("node", measure(&options, &Nodes::attach(bootstrap))?);
    } else {
        for _ in 0..options.rounds {
            report.add("ringlog", measure_started(&options, Kind::Ringlog)?);
            if options.against.is_some() {
                report.add("kafka", measure_started(&options, Kind::Kafka)?);
            }
        }
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()?).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn options_text(options: &Options) -> String {
    format!(
        "{} partitions{}, {} connections x {} requests in flight, {}-byte records in {}-byte batches, acks={}{}{}",
        options.partitions,
        if options.nodes > 1 { format!(" with {} replicas", options.nodes) } else { String::new() },
        options.connections.max(usize::from(options.nodes)),
        options.in_flight,
        options.record_bytes,
        options.batch_bytes,
        options.acks,
        if options.fsync { ", fsync per append" } else { "" },
        options.rate_mb_s.map_or(String::new(), |rate| format!(", {rate} MB/s")),
    )
}

fn measure_started(options: &Options, kind: Kind) -> anyhow::Result<Outcome> {
    let nodes = Nodes::start(kind, usize::from(options.nodes), &options.data_dir, &options.ringlog)?;
    let outcome = measure(options, &nodes);
    nodes.stop()?;
    outcome
}

fn measure(options: &Options, nodes: &Nodes) -> anyhow::Result<Outcome> {
    // What a node that has just started and does nothing holds.
    std::thread::sleep(Duration::from_secs(2));
    let idle_memory_bytes = nodes.usage()?.memory_bytes;
    let load = Load {
        nodes: nodes.addresses(),
        topic: format!("bench-{}", std::process::id()),
        partitions: options.partitions,
        connections: options.connections.max(nodes.addresses().len()),
        in_flight: options.in_flight.max(1),
        record_bytes: options.record_bytes,
        batch_bytes: options.batch_bytes,
        acks: options.acks,
        rate_bytes_s: options.rate_mb_s.map(|rate| rate * 1e6),
        fsync: options.fsync,
    };
    load.create_topic()?;
    // Warm up: connections, code paths, the JVM's compiler.
    load.produce(Duration::from_secs(options.seconds.div_ceil(3).max(2)))?;
    let before = nodes.usage()?;
    let produced = load.produce(Duration::from_secs(options.seconds))?;
    let between = nodes.usage()?;
    let consumed = load.consume(produced.bytes)?;
    let once = nodes.usage()?;
    let again = load.consume(produced.bytes)?;
    let after = nodes.usage()?;
    Ok(Outcome {
        start_ms: nodes.start_ms(),
        idle_memory_bytes,
        produce: produced.with_cpu(between.cpu_seconds - before.cpu_seconds),
        consume: consumed.with_cpu(once.cpu_seconds - between.cpu_seconds),
        consume_again: again.with_cpu(after.cpu_seconds - once.cpu_seconds),
        memory_bytes: after.memory_bytes,
    })
}
