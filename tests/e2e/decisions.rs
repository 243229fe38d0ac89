//! A controller decides as Kafka's does: the same requests to both, the same answers, the same records in the log.
//!
//! `DECISIONS_RELEASES` names the releases of the told story, separated by commas, or `all`. `DECISIONS_SEED` and
//! `DECISIONS_STEPS` repeat or lengthen the random run; seed 0 draws a new one. Without a seed it is always the same: where
//! Kafka contradicts itself within a decision, Ringlog doesn't follow, and few seeds come across that.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

mod decisions {
    pub mod chance;
    pub mod chance_brokers;
    pub mod chance_settings;
    pub mod chance_topics;
    pub mod names;
    pub mod pair;
    pub mod requests;
    pub mod script;
    pub mod voters;
    pub mod walk;
}

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use decisions::pair::Pair;
use decisions::{script, voters, walk};
use ringlog_e2e_tests::cluster;
use ringlog_e2e_tests::node::Kind;
use ringlog_metadata::features::MetadataVersion;

/// Levels around which what is written changes.
const RELEASES: &[&str] = &["3.3-IV3", "3.5-IV2", "3.6-IV2", "3.7-IV4", "3.9-IV0", "4.0-IV3", "4.3-IV0"];
/// Of the random run.
const USUAL_SEED: u64 = 7;
/// Enough for every day.
const FEW_RELEASES: &[&str] = &["3.3-IV3", "3.7-IV4", "4.3-IV0"];

fn releases() -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match env::var("DECISIONS_RELEASES").as_deref() {
        Ok("all") => owned(RELEASES),
        Ok(names) => names.split(',').map(str::to_owned).collect(),
        Err(_) => owned(FEW_RELEASES),
    }
}

#[test]
fn a_told_story_ends_alike() -> Result<()> {
    let _turn = cluster::turn();
    for release in releases() {
        let level = MetadataVersion::from_name(&release).with_context(|| format!("no release {release}"))?;
        let mut pair = Pair::start(&release)?;
        script::tell(&mut pair, level.0).with_context(|| format!("at {release}"))?;
    }
    Ok(())
}

#[test]
fn steps_by_chance_are_taken_alike() -> Result<()> {
    let _turn = cluster::turn();
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = number("DECISIONS_SEED")?.unwrap_or(USUAL_SEED);
    let seed = if seed == 0 { fresh } else { seed };
    let steps = number("DECISIONS_STEPS")?.unwrap_or(1_000);
    // The level is drawn too, mostly the newest.
    let releases = [RELEASES, &[RELEASES[RELEASES.len() - 1]; 7]].concat();
    let release = match env::var("DECISIONS_RELEASES") {
        Ok(release) => release,
        Err(_) => releases[seed as usize % releases.len()].to_owned(),
    };
    println!("DECISIONS_SEED={seed} DECISIONS_STEPS={steps}, at {release}");
    let (mut left, mut seed) = (steps as usize, seed);
    while left > 0 {
        let mut pair = Pair::start(&release)?;
        left -= walk::walk(&mut pair, seed, left).with_context(|| format!("at {release}"))?;
        seed = seed.wrapping_add(1 << 32);
    }
    Ok(())
}

#[test]
fn changes_of_voters_are_refused_alike() -> Result<()> {
    let _turn = cluster::turn();
    let kafka = voters::answers(Kind::Kafka)?;
    let ringlog = voters::answers(Kind::Ringlog)?;
    for (answer, other) in kafka.iter().zip(&ringlog) {
        ensure!(answer == other, "Kafka:   {answer}\nRinglog: {other}");
    }
    ensure!(kafka.len() == ringlog.len());
    Ok(())
}
