//! What is written can be read: batches with every kind of damage, and what a node makes of them.
//!
//! `tests/data/batches.jsonl` has what Apache Kafka 4.3.1 makes of them; with `RINGLOG_E2E_GOLDEN=write` it is written anew.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

mod batches {
    pub mod answers;
    pub mod cases;
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
use batches::answers::{Asker, differences};
use batches::cases::{self, BatchCase};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::paths;
use serde_json::{Value, json};

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

#[test]
fn kafka_answers_as_recorded() -> Result<()> {
    batches::answers::check_framings()?;
    let node = Node::start_new("batches-kafka", Kind::Kafka, "")?;
    let mut asker = Asker::new(&node)?;
    let mut lines = Vec::new();
    let mut reads = 0;
    for case in cases::all() {
        let mut answers = asker.answers(&case)?;
        let mut told = asker.read_by_kafka()?.into_iter();
        for answer in answers.iter_mut().filter(|answer| answer["code"] == 0) {
            let topics = answer["topics"].as_array().map_or(0, Vec::len);
            let told: Vec<String> = told.by_ref().take(topics).collect();
            reads += told.len();
            answer["read"] = json!(told.first());
        }
        lines.push(line(&case, &answers)?);
    }
    println!("{} batches, {reads} of them stored", lines.len());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if env::var("RINGLOG_E2E_GOLDEN").as_deref() == Ok("write") {
        fs::write(file(), &text)?;
    }
    let recorded = fs::read_to_string(file())?;
    for (recorded, found) in recorded.lines().zip(text.lines()) {
        ensure!(recorded == found, "recorded: {recorded}\nnow:      {found}");
    }
    ensure!(recorded.lines().count() == lines.len(), "other batches are recorded");
    Ok(())
}

#[test]
fn a_node_answers_as_kafka_did() -> Result<()> {
    let node = Node::start_new("batches", Kind::under_test(), "")?;
    let mut asker = Asker::new(&node)?;
    let recorded = fs::read_to_string(file())?;
    let mut faults = Vec::new();
    for (case, recorded) in cases::all().iter().zip(recorded.lines()) {
        let recorded: Value = serde_json::from_str(recorded)?;
        ensure!(recorded["name"] == case.name, "{} isn't recorded", case.name);
        let mut answers = recorded["answers"].as_array().context("answers are recorded")?.clone();
        for answer in &mut answers {
            answer.as_object_mut().context("an object")?.remove("read");
        }
        faults.extend(differences(&case.name, &answers, &asker.answers(case)?));
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
