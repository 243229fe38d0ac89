//! The results, as a table and as JSON.

use ringlog_bench::flow::Flow;
use ringlog_bench::table::{self, Row};
use serde::Serialize;

/// One node, measured once.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Start of the process to first Metadata answer.
    pub start_ms: Option<u64>,
    /// Resident memory before any load.
    pub idle_memory_bytes: u64,
    /// Producing.
    pub produce: Flow,
    /// Consuming.
    pub consume: Flow,
    /// Consuming the same once more.
    pub consume_again: Flow,
    /// Resident memory afterwards.
    pub memory_bytes: u64,
}

/// All measurements of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    load: String,
    outcomes: Vec<(String, Outcome)>,
}

/// A line of the table: what it is, its number, and whether more is better.
type Line = (&'static str, fn(&Outcome) -> f64, bool);

const LINES: &[Line] = &[
    ("start to first answer, ms", |o| o.start_ms.map_or(f64::NAN, |ms| ms as f64), false),
    ("idle memory, MB", |o| o.idle_memory_bytes as f64 / 1e6, false),
    ("produce, MB/s", |o| o.produce.mb_s(), true),
    ("produce, records/s", |o| o.produce.records_s(), true),
    ("produce, CPU s/GB", |o| o.produce.cpu_s_per_gb(), false),
    ("produce latency p50, ms", |o| o.produce.latency_ms[0], false),
    ("produce latency p99, ms", |o| o.produce.latency_ms[2], false),
    ("produce latency p99.9, ms", |o| o.produce.latency_ms[3], false),
    ("consume, MB/s", |o| o.consume.mb_s(), true),
    ("consume, records/s", |o| o.consume.records_s(), true),
    ("consume, CPU s/GB", |o| o.consume.cpu_s_per_gb(), false),
    ("consume again, MB/s", |o| o.consume_again.mb_s(), true),
    ("consume again, CPU s/GB", |o| o.consume_again.cpu_s_per_gb(), false),
    ("memory under load, MB", |o| o.memory_bytes as f64 / 1e6, false),
];

impl Report {
    /// An empty report on `load`.
    pub fn new(load: &str) -> Report {
        Report { load: load.to_owned(), outcomes: Vec::new() }
    }

    /// Adds a measurement of `node`.
    pub fn add(&mut self, node: &str, outcome: Outcome) {
        self.outcomes.push((node.to_owned(), outcome));
    }

    fn nodes(&self) -> Vec<&str> {
        let mut nodes = Vec::new();
        for (node, _) in &self.outcomes {
            if !nodes.contains(&node.as_str()) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// The best of a node's rounds.
    fn best(&self, node: &str, line: &Line) -> f64 {
        let values = self.outcomes.iter().filter(|(name, _)| name == node).map(|(_, outcome)| line.1(outcome));
        values.fold(f64::NAN, |best, value| if line.2 { best.max(value) } else { best.min(value) })
    }

    /// A table in Markdown, with a column of ratios when there are two nodes.
    pub fn table(&self) -> String {
        let nodes = self.nodes();
        let values = |line: &Line| nodes.iter().map(|node| self.best(node, line)).collect();
        let rows: Vec<Row> = LINES.iter().map(|line| Row { name: line.0.to_owned(), values: values(line) }).collect();
        format!("{}\n\n{}", self.load, table::markdown(&nodes, &rows))
    }

    /// Everything measured.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}
