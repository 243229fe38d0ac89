//! What is written can be read: batches with every kind of damage, and what a node makes of them.
//!
//! `tests/data/batches.jsonl` has what Apache Kafka 4.3.1 makes of them; with `RINGLOG_E2E_GOLDEN=write` it is written anew.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

mod batches {
    pub mod answers;
    pub mod cases;
    #[path = "../../data/batches.rs"]
    pub mod data;
    pub mod framings;
    pub mod records;
}

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use batches::answers::Asker;
use batches::cases::{self, BatchCase};
use batches::data;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use serde_json::{Value, json};

/// Records are of the past.
const SETTINGS: &str = "log.retention.ms=-1\n";

fn file() -> PathBuf {
    paths::here().join("../data/batches.jsonl")
}

/// A line of the file.
fn line(case: &BatchCase, answers: &[Value]) -> Result<Value> {
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&case.bytes)?;
    let bytes = STANDARD.encode(packer.finish()?);
    Ok(json!({ "name": case.name, "version": case.version, "bytes": bytes, "answers": answers }))
}

fn recorded() -> Vec<data::Batch> {
    data::load(&paths::here().join("../data"))
}

/// Codecs may pack otherwise one day: what is sent is what was recorded, unless it is recorded anew.
fn to_send() -> Result<Vec<BatchCase>> {
    let made = cases::all();
    if is_writing() {
        return Ok(made);
    }
    let recorded = recorded();
    ensure!(made.iter().map(|case| &case.name).eq(recorded.iter().map(|batch| &batch.name)), "others are recorded");
    Ok(recorded.into_iter().map(|it| BatchCase { name: it.name, version: it.version, bytes: it.bytes }).collect())
}

fn is_writing() -> bool {
    env::var("RINGLOG_E2E_GOLDEN").as_deref() == Ok("write")
}

#[test]
fn kafka_answers_as_recorded() -> Result<()> {
    batches::answers::check_framings()?;
    let node = Node::start_new("batches-kafka", Kind::Kafka, SETTINGS)?;
    let mut asker = Asker::new(&node)?;
    let mut lines = Vec::new();
    let mut reads = 0;
    for case in to_send()? {
        let mut answers = asker.answers(&case)?;
        let mut told = asker.read_by_kafka()?.into_iter();
        for answer in answers.iter_mut().filter(|answer| answer["code"] == 0) {
            let topics = answer["topics"].as_array().map_or(0, Vec::len);
            let told: Vec<String> = told.by_ref().take(topics).collect();
            reads += told.len();
            answer["read"] = json!(told.first());
        }
        lines.push((case, answers));
    }
    println!("{} batches, {reads} of them stored", lines.len());
    if is_writing() {
        let lines = lines.iter().map(|(case, answers)| Ok(format!("{}\n", line(case, answers)?)));
        fs::write(file(), lines.collect::<Result<String>>()?)?;
        return Ok(());
    }
    for (recorded, (case, answers)) in recorded().iter().zip(&lines) {
        ensure!(recorded.answers == *answers, "{}\nrecorded: {:?}\nnow:      {answers:?}", case.name, recorded.answers);
    }
    Ok(())
}

#[test]
fn a_node_answers_as_kafka_did() -> Result<()> {
    let node = Node::start_new("batches", Kind::Ringlog, SETTINGS)?;
    let mut asker = Asker::new(&node)?;
    let mut faults = Vec::new();
    for recorded in recorded() {
        let expected = recorded.expected();
        let case = BatchCase { name: recorded.name, version: recorded.version, bytes: recorded.bytes };
        for (topic, expected) in expected {
            let told = asker.answer(&topic, &case).with_context(|| format!("{}, topic {topic}", case.name))?;
            if !expected.fits(&told) {
                faults.push(format!("{}, topic {topic}\n  expected: {expected:?}\n  told:     {told}", case.name));
            }
        }
    }
    // Whatever it stored, Kafka's consumers can read.
    for (index, told) in asker.read_by_kafka()?.into_iter().enumerate() {
        if told.parse::<i32>().is_err() {
            faults.push(format!("stored batch {index} can't be read: {told}"));
        }
    }
    ensure!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
