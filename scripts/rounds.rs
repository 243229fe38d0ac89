//! Rounds of faults on real processes: `tests/e2e/fault_rounds.rs`, for as long as is wanted.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::e2e;

/// The program, and the test in it.
const PROGRAM: &str = "fault_rounds";
const TEST: &str = "clients_see_one_log_whatever_fails";

/// What is to run.
#[derive(clap::Args)]
pub struct Options {
    /// How many rounds, of 3 to 8 seconds each; a new cluster begins every 15.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// The first cluster's seed, the next ones have the next; a fresh one, if it isn't said.
    #[arg(long)]
    seed: Option<u64>,
    /// What the nodes are: `ringlog`, `mixed` with Kafka's, or `both` in turn.
    #[arg(long, default_value = "both", value_parser = ["ringlog", "mixed", "both"])]
    kinds: String,
    /// At the end, plant faults in the logs by hand, and see that the checker finds them.
    #[arg(long)]
    planted: bool,
}

/// Runs them; what failed is kept, and said how to repeat.
pub fn run(options: &Options) -> Result<()> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000,
    };
    let settings = [
        ("FAULT_ROUNDS", options.rounds.to_string()),
        ("FAULT_ROUNDS_SEED", seed.to_string()),
        ("FAULT_ROUNDS_KINDS", options.kinds.clone()),
        ("FAULT_ROUNDS_PLANTS", options.planted.to_string()),
    ];
    e2e::run_with(&[PROGRAM, TEST, "--nocapture"].map(str::to_owned), &settings)
}
