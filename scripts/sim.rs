//! The cores in a simulated, faulty world (`tests/sim`).

use std::process::Command;

use anyhow::Result;

use crate::{ci, paths};

/// How long fresh seeds run when nothing else is asked for.
const SECONDS: u64 = 30;

/// Runs one seed, or so many fresh ones, or fresh ones for a while and all checks of the simulation itself.
pub fn run(seed: Option<u64>, seeds: Option<u64>) -> Result<()> {
    let mut command = Command::new(paths::cargo());
    command.args(["test", "-p", "ringlog-sim-tests", "--"]).current_dir(paths::root());
    match (seed, seeds) {
        (Some(seed), _) => command.arg("promises_survive_crashes").env("RINGLOG_SIM_SEED", seed.to_string()),
        (None, Some(seeds)) => command.arg("promises_survive_crashes").env("RINGLOG_SIM_SEEDS", seeds.to_string()),
        (None, None) => command.env("RINGLOG_SIM_SECONDS", SECONDS.to_string()),
    };
    command.arg("--nocapture");
    ci::run_command(&mut command)
}

/// What every change must pass: the fixed seeds, those that once found a fault, and the checks of the simulation.
/// Fresh seeds, which look for new faults, are `cargo xtask sim`.
pub fn fixed() -> Result<()> {
    ci::cargo(["test", "-p", "ringlog-sim-tests"])
}
