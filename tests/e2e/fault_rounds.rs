//! Rounds of faults on real processes: three to five nodes in network namespaces under a load of real clients are killed,
//! stopped, paused, cut off and run out of disks, and what the clients saw is judged.
//!
//! `cargo xtask rounds` sets `FAULT_ROUNDS`, `FAULT_ROUNDS_SEED`, `FAULT_ROUNDS_KINDS` (`ringlog`, `mixed`, `both`) and
//! `FAULT_ROUNDS_PLANTS`. The same seed draws the same cluster and, but for who is the active controller, the same faults.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

mod rounds {
    pub mod checker;
    pub mod dice;
    pub mod faults;
    pub mod files;
    pub mod history;
    pub mod load;
    pub mod plan;
    pub mod producers;
    pub mod programs;
    pub mod readers;
    pub mod run;
    pub mod world;
}

use std::env;

use anyhow::{Context, Result};
use ringlog_e2e_tests::cluster;
use rounds::plan::Kinds;
use rounds::run::{Options, run};

/// What is run before each change lands: as many as don't take long, and always the same.
const USUAL_ROUNDS: usize = 3;
const USUAL_SEED: u64 = 1;

#[test]
fn clients_see_one_log_whatever_fails() -> Result<()> {
    let _turn = cluster::turn();
    let options = Options {
        rounds: setting("FAULT_ROUNDS")?.unwrap_or(USUAL_ROUNDS),
        seed: setting("FAULT_ROUNDS_SEED")?.unwrap_or(USUAL_SEED),
        kinds: setting("FAULT_ROUNDS_KINDS")?.unwrap_or(Kinds::Ringlog),
        plants: setting("FAULT_ROUNDS_PLANTS")?.unwrap_or(true),
    };
    run(options)
}

fn setting<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name}={text}"))).transpose()
}
