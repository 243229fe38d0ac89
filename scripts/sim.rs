//! The cores in a simulated, faulty world (`tests/sim`).

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{ci, mutants, paths};

/// What switches the simulated back end of the ring on. The simulation of the cores doesn't use it, but is built with it,
/// too: what both are made of is built once.
pub const FLAGS: &str = "--cfg ringlog_sim";
/// How long fresh seeds run when nothing else is asked for.
const SECONDS: u64 = 30;
/// And before a change lands.
const CI_SECONDS: u64 = 40;

/// What of the simulations is to run.
#[derive(clap::Args)]
pub struct Options {
    /// Only these scenarios: log, groups, faults, elections.
    scenarios: Vec<String>,
    /// Repeat the runs of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run so many fresh seeds of each scenario.
    #[arg(long)]
    seeds: Option<u64>,
    /// Consecutive seeds from this one on, instead of fresh ones.
    #[arg(long)]
    from: Option<u64>,
    /// Run fresh seeds for so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run elections of the metadata quorum until so many epochs have had a leader.
    #[arg(long)]
    elections: Option<u64>,
    /// See that each deliberate mistake in the cores is found; with a text, those that have it in their name.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    mutants: Option<String>,
}

impl Options {
    /// For the program that runs seeds.
    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--seed", self.seed),
            ("--seeds", self.seeds),
            ("--from", self.from),
            ("--seconds", self.seconds),
            ("--elections", self.elections),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?.to_string()]));
        let trace = self.trace.then(|| "--trace".to_owned());
        self.scenarios.iter().cloned().chain(numbers.flatten()).chain(trace).collect()
    }
}

/// Runs what is asked for; if that is nothing, all fixed seeds and checks of the simulation, and fresh seeds for a while.
pub fn run(options: &Options) -> Result<()> {
    if let Some(text) = &options.mutants {
        return mutants::run(&[mutants::CORES], text);
    }
    let arguments = options.arguments();
    if !arguments.is_empty() {
        return hunt(&arguments);
    }
    tests()?;
    hunt(&["--seconds".to_owned(), SECONDS.to_string()])
}

/// What every change must pass: the fixed seeds, those that once found a fault, the checks of the simulation, and fresh
/// seeds for a while.
pub fn run_in_ci() -> Result<()> {
    tests()?;
    hunt(&["--seconds".to_owned(), CI_SECONDS.to_string()])
}

fn tests() -> Result<()> {
    cargo(&["test", "--profile", "sim", "-p", "ringlog-sim-tests"], &[])
}

fn hunt(arguments: &[String]) -> Result<()> {
    cargo(&["run", "--profile", "sim", "-p", "ringlog-sim-tests", "--bin", "hunt", "--"], arguments)
}

/// Where what is built for simulations goes: the flag would have everything else built anew each time.
pub fn target_folder() -> Result<PathBuf> {
    Ok(ci::target_folder()?.join("ringlog_sim"))
}

/// Cargo with what simulations are built with.
pub fn cargo(arguments: &[&str], more: &[String]) -> Result<()> {
    let mut command = Command::new(paths::cargo());
    command.args(arguments).args(more).current_dir(paths::root());
    command.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", target_folder()?);
    ci::run_command(&mut command)
}
