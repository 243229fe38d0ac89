//! `bench/metadata`: how fast controllers create partitions, start with many of them, and take over from each other; and
//! how that compares with Kafka.
//!
//! The brokers are simulated for the partitions, so that no logs are made: they register at the controllers and send
//! heartbeats. The failover is measured by way of a real broker.

#![allow(clippy::disallowed_methods, reason = "a load generator measures time and runs threads")]

mod brokers;
mod load;
mod measure;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use ringlog_bench::table::{self, Row};
use ringlog_e2e_tests::node::Kind;
use serde_json::json;

use crate::load::Load;
use crate::measure::{Numbers, Side};

/// Measures controllers: creation of partitions, starts with many, hand-over, failover.
#[derive(Debug, Parser)]
#[command(name = "metadata")]
struct Options {
    /// Measure real Kafka 4.3.1 with the same load in the same run, and print ratios.
    #[arg(long, value_parser = ["kafka"])]
    against: Option<String>,
    /// Measure nothing but this side.
    #[arg(long, value_parser = ["ringlog", "kafka"], conflicts_with = "against")]
    only: Option<String>,
    /// Parts of the measurement, separated by commas: `one` and `three` controllers with many partitions, `failover`.
    #[arg(long, value_delimiter = ',', default_value = "one,three,failover")]
    parts: Vec<String>,
    /// Partitions in all.
    #[arg(long, default_value_t = 100_000)]
    partitions: usize,
    /// Partitions of a topic; each request creates one topic.
    #[arg(long, default_value_t = 100)]
    partitions_per_topic: i32,
    /// Replicas of a partition.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i16).range(1..=3))]
    replicas: i16,
    /// Connections that create topics.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests of a connection that may be unanswered.
    #[arg(long, default_value_t = 2)]
    in_flight: usize,
    /// How often active controllers are killed or stopped, per measurement.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// The fetch timeout of the failover with the same timeouts on both sides; the election timeout is half of it.
    #[arg(long, default_value_t = 1000)]
    fetch_timeout_ms: u32,
    /// Kafka's heap, such as 1g. Without it, what Kafka's own script sets, and four times that from half a million
    /// partitions on.
    #[arg(long)]
    heap: Option<String>,
    /// Also write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    fn heap(&self) -> &str {
        match &self.heap {
            Some(heap) => heap,
            None if self.partitions >= 500_000 => "4g",
            None => "1g",
        }
    }

    fn load(&self) -> Load {
        Load {
            topics: self.partitions.div_ceil(self.partitions_per_topic.max(1) as usize),
            partitions_per_topic: self.partitions_per_topic,
            replicas: self.replicas,
            connections: self.connections.max(1),
            in_flight: self.in_flight.max(1),
        }
    }

    fn sides(&self) -> Vec<Side> {
        let heap = self.heap();
        // As Kafka's own start script sets them.
        let kafka =
            [format!("-Xms{heap}"), format!("-Xmx{heap}"), "-XX:+UseG1GC".into(), "-XX:MaxGCPauseMillis=20".into()];
        let kafka = Side { kind: Kind::Kafka, java_options: kafka.into() };
        let ringlog = Side { kind: Kind::Ringlog, java_options: Vec::new() };
        match (self.only.as_deref(), self.against.as_deref()) {
            (Some("kafka"), _) => vec![kafka],
            (None, Some(_)) => vec![ringlog, kafka],
            _ => vec![ringlog],
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let sides = options.sides();
    let mut report = Report { sides: sides.iter().map(Side::name).collect(), rows: Vec::new(), failures: Vec::new() };
    for part in &options.parts {
        for (number, side) in sides.iter().enumerate() {
            println!("{part}: {}", side.name());
            match measure(&options, part, side) {
                Ok(numbers) => report.add(number, part, numbers),
                // The other numbers are worth having all the same.
                Err(error) => report.failures.push(format!("{part}, {}: {error:#}", side.name())),
            }
        }
    }
    print!("{}", report.text(&options));
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()?).with_context(|| format!("can't write {}", path.display()))?;
    }
    if !report.failures.is_empty() {
        bail!("{} measurements failed", report.failures.len());
    }
    Ok(())
}

fn measure(options: &Options, part: &str, side: &Side) -> Result<Numbers> {
    match part {
        "one" => side.partitions(1, &options.load(), options.turns),
        "three" => side.partitions(3, &options.load(), options.turns),
        "failover" => {
            let (fetch, election) = (options.fetch_timeout_ms, options.fetch_timeout_ms / 2);
            let same =
                format!("controller.quorum.fetch.timeout.ms={fetch}\ncontroller.quorum.election.timeout.ms={election}");
            let mut numbers = side.failover(&format!("fetch timeout {fetch} ms"), &same, options.turns)?;
            numbers.extend(side.failover("each side's defaults", "", options.turns)?);
            Ok(numbers)
        }
        _ => bail!("parts are one, three, failover; not {part}"),
    }
}

struct Report {
    sides: Vec<&'static str>,
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, side: usize, part: &str, numbers: Numbers) {
        for (name, value) in numbers {
            let name = match part {
                "one" => format!("1 controller: {name}"),
                "three" => format!("3 controllers: {name}"),
                _ => name,
            };
            let known = self.rows.iter().position(|row| row.name == name);
            let place = known.unwrap_or_else(|| {
                self.rows.push(Row { name, values: vec![f64::NAN; self.sides.len()] });
                self.rows.len() - 1
            });
            self.rows[place].values[side] = value;
        }
    }

    fn text(&self, options: &Options) -> String {
        let load = options.load();
        let mut text = format!(
            "\n{} topics of {} partitions with {} replicas, {} connections x {} requests in flight, Kafka's heap {}\n\n",
            load.topics,
            load.partitions_per_topic,
            load.replicas,
            load.connections,
            load.in_flight,
            options.heap()
        );
        text.push_str(&table::markdown(&self.sides, &self.rows));
        for failure in &self.failures {
            text.push_str(&format!("\nfailed: {failure}\n"));
        }
        text
    }

    fn json(&self) -> Result<String> {
        let rows = self.rows.iter().map(|row| json!({ "name": row.name, "values": row.values }));
        let all = json!({
            "sides": self.sides,
            "rows": rows.collect::<Vec<_>>(),
            "failures": self.failures,
        });
        Ok(serde_json::to_string_pretty(&all)?)
    }
}
