//! Ringlog beside Kafka: which clusters are measured, and their numbers in one report.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ringlog_e2e_tests::cluster::{ClusterPlan, Voters};
use ringlog_e2e_tests::node::Kind;
use serde_json::json;

use crate::table::{self, Row};

/// One side, and how it is to be started.
#[derive(Debug, Clone)]
pub struct Side {
    /// Which program.
    pub kind: Kind,
    /// Options for Java, if it is Kafka.
    pub java_options: Vec<String>,
}

/// Names and numbers.
pub type Numbers = Vec<(String, f64)>;

/// The sides that were asked for; Kafka with so much heap, such as `1g`.
pub fn of(only: Option<&str>, is_against_kafka: bool, heap: &str) -> Vec<Side> {
    // As Kafka's own start script sets them.
    let kafka = [format!("-Xms{heap}"), format!("-Xmx{heap}"), "-XX:+UseG1GC".into(), "-XX:MaxGCPauseMillis=20".into()];
    let kafka = Side { kind: Kind::Kafka, java_options: kafka.into() };
    let ringlog = Side { kind: Kind::Ringlog, java_options: Vec::new() };
    match only {
        Some("kafka") => vec![kafka],
        None if is_against_kafka => vec![ringlog, kafka],
        _ => vec![ringlog],
    }
}

impl Side {
    /// For the table.
    pub fn name(&self) -> &'static str {
        if self.kind == Kind::Kafka { "kafka" } else { "ringlog" }
    }

    /// A cluster of this side, without nodes yet.
    pub fn plan(&self, what: &str, settings: &str) -> ClusterPlan {
        let options: Vec<&str> = self.java_options.iter().map(String::as_str).collect();
        let plan = ClusterPlan::new(&format!("bench-{}-{what}", self.name()), Voters::Initial);
        plan.settings(settings).java_options(&options)
    }
}

/// Measures each part on each side.
pub fn measure_all(sides: &[Side], parts: &[String], measure: impl Fn(&str, &Side) -> Result<Numbers>) -> Report {
    let mut report = Report { sides: sides.iter().map(Side::name).collect(), rows: Vec::new(), failures: Vec::new() };
    for part in parts {
        for (number, side) in sides.iter().enumerate() {
            println!("{part}: {}", side.name());
            match measure(part, side) {
                Ok(numbers) => report.add(number, numbers),
                // The other numbers are worth having all the same.
                Err(error) => report.failures.push(format!("{part}, {}: {error:#}", side.name())),
            }
        }
    }
    report
}

/// What was measured, and what couldn't be.
#[derive(Debug)]
pub struct Report {
    sides: Vec<&'static str>,
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, side: usize, numbers: Numbers) {
        for (name, value) in numbers {
            let known = self.rows.iter().position(|row| row.name == name);
            let place = known.unwrap_or_else(|| {
                self.rows.push(Row { name, values: vec![f64::NAN; self.sides.len()] });
                self.rows.len() - 1
            });
            self.rows[place].values[side] = value;
        }
    }

    /// Prints it, and writes it as JSON if that is wanted. A measurement that failed is an error.
    pub fn finish(&self, header: &str, json: Option<&Path>) -> Result<()> {
        println!("\n{header}\n\n{}", table::markdown(&self.sides, &self.rows));
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        if let Some(path) = json {
            fs::write(path, self.json()?).with_context(|| format!("can't write {}", path.display()))?;
        }
        if !self.failures.is_empty() {
            bail!("{} measurements failed", self.failures.len());
        }
        Ok(())
    }

    fn json(&self) -> Result<String> {
        let rows = self.rows.iter().map(|row| json!({ "name": row.name, "values": row.values }));
        let all = json!({ "sides": self.sides, "rows": rows.collect::<Vec<_>>(), "failures": self.failures });
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

/// Median and longest of some times, which are printed, too.
pub fn distribution(name: &str, mut times: Vec<Duration>) -> Numbers {
    times.sort();
    let (Some(median), Some(max)) = (times.get(times.len() / 2), times.last()) else { return Vec::new() };
    let shown: Vec<String> = times.iter().map(|time| format!("{:.0}", milliseconds(*time))).collect();
    println!("{name}, ms: {}", shown.join(" "));
    vec![(format!("{name}, median ms"), milliseconds(*median)), (format!("{name}, longest ms"), milliseconds(*max))]
}

/// So many.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
