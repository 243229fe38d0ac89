//! `bench/replication`: how soon records are taken again when a leader dies, how fast leaderships move when a broker stops,
//! and how long thousands of replicas take to be in sync again; and how that compares with Kafka.

#![allow(clippy::disallowed_methods, reason = "a load generator measures time and runs threads")]

mod catch_up;
mod full_load;
mod measure;
mod prober;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use catch_up::CatchUp;
use clap::Parser;
use ringlog_bench::sides::{self, Numbers, Side};
use ringlog_e2e_tests::node::Kind;

/// Measures brokers with replicas: failover, controlled shutdown, coming back with many partitions, catching up, long
/// full load.
#[derive(Debug, Parser)]
#[command(name = "replication")]
struct Options {
    /// Measure real Kafka 4.3.1 with the same load in the same run, and print ratios.
    #[arg(long, value_parser = ["kafka"])]
    against: Option<String>,
    /// Measure nothing but this side.
    #[arg(long, value_parser = ["ringlog", "kafka"], conflicts_with = "against")]
    only: Option<String>,
    /// Parts of the measurement, separated by commas: `failover`, `shutdown`, `many`, `catch-up`, `full-load`.
    #[arg(long, value_delimiter = ',', default_value = "failover,shutdown,many")]
    parts: Vec<String>,
    /// How often a leader is killed, per measurement.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// The brokers' session timeout where both sides have the same; heartbeats come ten times as often.
    #[arg(long, default_value_t = 2000)]
    session_timeout_ms: u32,
    /// Partitions that the broker leads which stops.
    #[arg(long, default_value_t = 10_000)]
    leaders: i32,
    /// Partitions with three replicas of which a broker is killed and comes back.
    #[arg(long, default_value_t = 20_000)]
    partitions: i32,
    /// The same for Kafka.
    #[arg(long, default_value_t = 2_000)]
    partitions_of_kafka: i32,
    /// What a broker has missed that catches up, in gigabytes. All brokers together need the room for all replicas.
    #[arg(long, default_value_t = 2.0)]
    missed_gb: f64,
    /// Replicas of the partitions that it catches up with.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    replicas: u8,
    /// What clients produce meanwhile, in megabytes a second.
    #[arg(long, default_value_t = 5.0)]
    meanwhile_mb_s: f64,
    /// How long the full load lasts, in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Kafka's heap.
    #[arg(long, default_value = "1g")]
    heap: String,
    /// Also write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let sides = sides::of(options.only.as_deref(), options.against.is_some(), &options.heap);
    let report = sides::measure_all(&sides, &options.parts, |part, side| measure(&options, part, side));
    let header = format!(
        "{} leaders that move, {} partitions that come back ({} of Kafka)",
        options.leaders, options.partitions, options.partitions_of_kafka
    );
    report.finish(&header, options.json.as_deref())
}

fn measure(options: &Options, part: &str, side: &Side) -> Result<Numbers> {
    match part {
        "failover" => {
            let session_ms = options.session_timeout_ms;
            let same =
                format!("broker.session.timeout.ms={session_ms}\nbroker.heartbeat.interval.ms={}", session_ms / 10);
            let mut numbers = measure::failover(side, &format!("session of {session_ms} ms"), &same, options.turns)?;
            numbers.extend(measure::failover(side, "each side's defaults", "", options.turns)?);
            Ok(numbers)
        }
        "shutdown" => measure::shutdown(side, options.leaders),
        "many" => {
            let of_kafka = side.kind == Kind::Kafka;
            measure::many(side, if of_kafka { options.partitions_of_kafka } else { options.partitions })
        }
        "catch-up" => {
            let wanted = CatchUp {
                missed_bytes: options.missed_gb * 1e9,
                rate_bytes_s: options.meanwhile_mb_s * 1e6,
                replicas: usize::from(options.replicas),
            };
            catch_up::catch_up(side, wanted)
        }
        "full-load" => full_load::full_load(side, Duration::from_secs_f64(options.minutes * 60.0)),
        _ => bail!("parts are failover, shutdown, many, catch-up, full-load; not {part}"),
    }
}
