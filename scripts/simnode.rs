//! Whole nodes in a simulated, faulty world (`tests/simnode`), and the simulated ring's own tests.

use anyhow::Result;

use crate::{mutants, sim};

/// How long fresh seeds run when nothing else is asked for.
const SECONDS: u64 = 30;
/// And before a change lands.
const CI_SECONDS: u64 = 60;

/// What of the simulation is to run.
#[derive(clap::Args)]
pub struct Options {
    /// Run this seed, and print what it is like.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: tell what happens, line by line, with time, node and core.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run so many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Consecutive seeds from this one on, instead of fresh ones.
    #[arg(long)]
    from: Option<u64>,
    /// Run fresh seeds for so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// See that each deliberate mistake in the nodes is found; with a text, those that have it in their name.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    mutants: Option<String>,
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let numbers =
            [("--seed", self.seed), ("--seeds", self.seeds), ("--from", self.from), ("--seconds", self.seconds)];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?.to_string()]));
        numbers.flatten().chain(self.trace.then(|| "--trace".to_owned())).collect()
    }
}

/// Runs what is asked for; if that is nothing, all fixed seeds, and fresh ones for a while.
pub fn run(options: &Options) -> Result<()> {
    if let Some(text) = &options.mutants {
        return mutants::run(&[mutants::NODES], text);
    }
    let arguments = options.arguments();
    if !arguments.is_empty() {
        return hunt(&arguments);
    }
    tests()?;
    hunt(&["--seconds".to_owned(), SECONDS.to_string()])
}

/// What every change must pass.
pub fn run_in_ci() -> Result<()> {
    tests()?;
    hunt(&["--seconds".to_owned(), CI_SECONDS.to_string()])
}

fn tests() -> Result<()> {
    sim::cargo(&["test", "--profile", "sim", "-p", "ringlog-ring", "-p", "ringlog-simnode-tests"], &[])
}

fn hunt(arguments: &[String]) -> Result<()> {
    sim::cargo(&["run", "--profile", "sim", "-p", "ringlog-simnode-tests", "--bin", "simnode", "--"], arguments)
}
