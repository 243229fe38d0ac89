//! Every API answers as Kafka's: the same requests to a node of either, in the same state, at every version.
//!
//! Bodies follow from the schemas; most are such as clients send, the others have something wrong in them. What differs by
//! nature is not compared, what differs on purpose is listed with its reason. `ANSWERS_SEED` and `ANSWERS_STEPS` repeat or
//! lengthen the walk; seed 0 draws a new one.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

mod answers {
    pub mod differences;
    pub mod generate;
    pub mod masks;
    pub mod names;
    pub mod pair;
    #[path = "../batches/records.rs"]
    pub mod records;
    pub mod walk;
    pub mod wire;

    pub use ringlog_e2e_tests::node::CLUSTER_ID;

    /// Of both nodes: nothing happens but what is asked for.
    pub const SETTINGS: &str = "auto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
         offsets.topic.num.partitions=3\ngroup.min.session.timeout.ms=100\nlog.cleaner.enable=false\nlog.retention.ms=-1\n\
         log.initial.task.delay.ms=86400000\n";
}

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use answers::walk::Walk;
use anyhow::{Result, ensure};

const USUAL_SEED: u64 = 11;
const USUAL_STEPS: u64 = 3_000;

fn number(name: &str) -> Result<Option<u64>> {
    Ok(env::var(name).ok().map(|text| text.parse()).transpose()?)
}

#[test]
fn requests_by_chance_are_answered_alike() -> Result<()> {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let seed = match number("ANSWERS_SEED")?.unwrap_or(USUAL_SEED) {
        0 => fresh,
        seed => seed,
    };
    let steps = number("ANSWERS_STEPS")?.unwrap_or(USUAL_STEPS);
    println!("ANSWERS_SEED={seed} ANSWERS_STEPS={steps}");
    let faults = Walk::start(seed, false)?.go(steps as usize, seed)?;
    ensure!(faults.is_empty(), "{} kinds of difference with seed {seed}:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
