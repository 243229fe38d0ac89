//! The cores (`tests/sim`), and whole nodes (`tests/simnode`), in a simulated, faulty world.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::mutants::{self, Kind};
use crate::{ci, paths};

/// What switches the simulated back end of the ring on. The simulation of the cores doesn't use it, but is built with it,
/// too: what both are made of is built once.
pub const FLAGS: &str = "--cfg ringlog_sim";
/// How long fresh seeds run when nothing else is asked for.
const SECONDS: &str = "30";

/// Seeds whose runs are compared in two profiles.
const HASHED_SEEDS: &str = "3";

/// A simulation.
pub struct Simulation {
    /// What runs seeds, and the mistakes that it has to find.
    kind: Kind,
    /// Packages whose tests belong to it.
    tests: &'static [&'static str],
    /// The seeds that run before a change lands.
    in_ci: &'static [&'static str],
}

/// The cores.
pub const CORES: Simulation =
    Simulation { kind: mutants::CORES, tests: &["ringlog-sim-tests"], in_ci: &["--seconds", "40"] };

/// Whole nodes, and the ring that they run on. Before a change lands the same seeds run each time: its workloads and their
/// checkers are young, and what a fresh seed finds is to be looked at without holding a change up that it isn't about.
pub const NODES: Simulation = Simulation {
    kind: mutants::NODES,
    tests: &["ringlog-ring", "ringlog-simnode-tests"],
    in_ci: &["--from", "1022", "--seeds", "78"],
};

/// What of a simulation is to run, and of its scenarios.
#[derive(clap::Args)]
pub struct ScenarioOptions {
    /// Only these scenarios: of cores log, groups, faults, elections; of whole nodes nodes, faults, elections.
    scenarios: Vec<String>,
    /// Run elections of the metadata quorum until so many epochs have had a leader.
    #[arg(long)]
    elections: Option<u64>,
    #[command(flatten)]
    options: Options,
}

/// What of the simulation of whole nodes is to run.
#[derive(clap::Args)]
pub struct NodeOptions {
    /// With `--seed`: leave out parts of its plan, as in `faults:3,5`.
    #[arg(long, value_name = "PARTS", requires = "seed")]
    without: Vec<String>,
    /// See that the same seeds give the same runs in a debug build.
    #[arg(long, exclusive = true)]
    profiles: bool,
    #[command(flatten)]
    scenarios: ScenarioOptions,
}

/// What of a simulation is to run.
#[derive(clap::Args)]
struct Options {
    /// Repeat the runs of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run so many fresh seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Consecutive seeds from this one on, instead of fresh ones.
    #[arg(long)]
    from: Option<u64>,
    /// Run fresh seeds for so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// See that each deliberate mistake is found; with a text, those that have it in their name.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    mutants: Option<String>,
}

impl Options {
    /// For the program that runs seeds.
    fn arguments(&self) -> Vec<String> {
        let numbers =
            [("--seed", self.seed), ("--seeds", self.seeds), ("--from", self.from), ("--seconds", self.seconds)];
        let trace = self.trace.then(|| "--trace".to_owned());
        numbers.into_iter().flat_map(|(name, value)| number(name, value)).chain(trace).collect()
    }
}

fn number(name: &str, value: Option<u64>) -> impl Iterator<Item = String> {
    value.into_iter().flat_map(move |value| [name.to_owned(), value.to_string()])
}

/// Runs of whole nodes what is asked for.
pub fn run_nodes(options: &NodeOptions) -> Result<()> {
    if options.profiles {
        return compare_profiles();
    }
    let without = options.without.iter().flat_map(|parts| ["--without".to_owned(), parts.clone()]);
    NODES.run(&options.scenarios, without.collect())
}

/// Some seeds in both profiles: an assertion that changes something, or a number that overflows, would show.
pub fn compare_profiles() -> Result<()> {
    let hashes = |profile: &str| -> Result<String> {
        let Kind { package, program, .. } = NODES.kind;
        let run = ["run", "-q", "--profile", profile, "-p", package, "--bin", program, "--"];
        let mut command = cargo_command(&run)?;
        command.args(["--hashes", "--from", "1", "--seeds", HASHED_SEEDS]);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{program} fails in profile {profile}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let (fast, debug) = (hashes("sim")?, hashes("sim-debug")?);
    ensure!(fast == debug, "the same seeds give other runs in a debug build:\n{fast}\n{debug}");
    print!("the same in both profiles:\n{fast}");
    Ok(())
}

impl Simulation {
    /// Runs what is asked for, with further arguments.
    pub fn run(&self, options: &ScenarioOptions, mut arguments: Vec<String>) -> Result<()> {
        arguments.extend(options.scenarios.iter().cloned().chain(number("--elections", options.elections)));
        self.run_with(&options.options, arguments)
    }

    /// If nothing is asked for, all fixed seeds and checks of the simulation, and fresh seeds for a while.
    fn run_with(&self, options: &Options, mut arguments: Vec<String>) -> Result<()> {
        if let Some(text) = &options.mutants {
            return mutants::run(std::slice::from_ref(&self.kind), text);
        }
        arguments.extend(options.arguments());
        if !arguments.is_empty() {
            return self.hunt(&arguments);
        }
        self.run_all(&["--seconds", SECONDS])
    }

    /// What every change must pass: the fixed seeds, those that once found a fault, the checks of the simulation, and
    /// more seeds.
    pub fn run_in_ci(&self) -> Result<()> {
        self.run_all(self.in_ci)
    }

    fn run_all(&self, hunt: &[&str]) -> Result<()> {
        let packages: Vec<&str> = self.tests.iter().flat_map(|package| ["-p", package]).collect();
        cargo(&[&["test", "--profile", "sim"], &packages[..]].concat(), &[])?;
        self.hunt(&hunt.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    fn hunt(&self, arguments: &[String]) -> Result<()> {
        let Kind { package, program, .. } = self.kind;
        cargo(&["run", "--profile", "sim", "-p", package, "--bin", program, "--"], arguments)
    }
}

/// Where what is built for simulations goes: the flag would have everything else built anew each time.
pub fn target_folder() -> Result<PathBuf> {
    Ok(ci::target_folder()?.join("ringlog_sim"))
}

/// Cargo with what simulations are built with.
fn cargo(arguments: &[&str], more: &[String]) -> Result<()> {
    ci::run_command(cargo_command(arguments)?.args(more))
}

fn cargo_command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(paths::cargo());
    command.args(arguments).current_dir(paths::root());
    command.env("RUSTFLAGS", FLAGS).env("RUSTDOCFLAGS", FLAGS).env("CARGO_TARGET_DIR", target_folder()?);
    Ok(command)
}
