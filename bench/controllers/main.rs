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

use anyhow::{Result, bail};
use clap::Parser;
use ringlog_bench::sides::{self, Numbers, Side};

use crate::load::Load;
use crate::measure::{failover, partitions};

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
        sides::of(self.only.as_deref(), self.against.is_some(), self.heap())
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let load = options.load();
    let header = format!(
        "{} topics of {} partitions with {} replicas, {} connections x {} requests in flight, Kafka's heap {}",
        load.topics,
        load.partitions_per_topic,
        load.replicas,
        load.connections,
        load.in_flight,
        options.heap()
    );
    let report = sides::measure_all(&options.sides(), &options.parts, |part, side| {
        let mut numbers = measure(&options, part, side)?;
        let prefix = match part {
            "one" => "1 controller: ",
            "three" => "3 controllers: ",
            _ => "",
        };
        numbers.iter_mut().for_each(|(name, _)| name.insert_str(0, prefix));
        Ok(numbers)
    });
    report.finish(&header, options.json.as_deref())
}

fn measure(options: &Options, part: &str, side: &Side) -> Result<Numbers> {
    match part {
        "one" => partitions(side, 1, &options.load(), options.turns),
        "three" => partitions(side, 3, &options.load(), options.turns),
        "failover" => {
            let (fetch, election) = (options.fetch_timeout_ms, options.fetch_timeout_ms / 2);
            let same =
                format!("controller.quorum.fetch.timeout.ms={fetch}\ncontroller.quorum.election.timeout.ms={election}");
            let mut numbers = failover(side, &format!("fetch timeout {fetch} ms"), &same, options.turns)?;
            numbers.extend(failover(side, "each side's defaults", "", options.turns)?);
            Ok(numbers)
        }
        _ => bail!("parts are one, three, failover; not {part}"),
    }
}
