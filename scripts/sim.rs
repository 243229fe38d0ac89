//! Whole nodes (`tests/simnode`) in a simulated, faulty world.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::mutants::{self, PACKAGE, PROGRAM};
use crate::{ci, paths};

/// What switches the simulated back end of the ring on.
pub const FLAGS: &str = "--cfg ringlog_sim";
/// How long fresh seeds run when nothing else is asked for.
const SECONDS: &str = "30";

/// How it is built, unless it is to run for long.
const PROFILE: &str = "sim";

/// Seeds whose runs are compared in two profiles.
const HASHED_SEEDS: &str = "3";

/// Packages whose tests belong to it.
const TESTS: [&str; 4] = ["-p", "ringlog-ring", "-p", PACKAGE];
/// The seeds that run before each change lands. They are the same each time: what a fresh seed finds is to be looked at without
/// holding a change up that it isn't about.
const IN_CI: [&[&str]; 12] = [
    &["nodes", "--from", "1022", "--seeds", "78"],
    &["replicas", "--from", "1", "--seeds", "50"],
    // A follower whose write outlasted its epoch was never fetched for again.
    &["replicas", "--from", "2386", "--seeds", "1"],
    // Topics come and go under the same names while a node catches up, one core ahead of the other.
    &["replicas", "--from", "601605", "--seeds", "1"],
    // A topic that was about to go again had no log, which was taken for a failed disk.
    &["nodes", "--from", "710362", "--seeds", "1"],
    // The marker of the second directory couldn't be read, and the node ended.
    &["nodes", "--from", "710255", "--seeds", "1"],
    // What was fetched before a stop was appended after the log had been closed.
    &["replicas", "--from", "750085", "--seeds", "1"],
    // A stop before logs were claimed kept a high watermark of before a power failure.
    &["stops", "--from", "53", "--seeds", "1"],
    &["mixed-replicas", "--from", "1", "--seeds", "20"],
    &["unclean", "--from", "1", "--seeds", "12"],
    &["faults", "--from", "1", "--seeds", "60"],
    &["elections", "--from", "1", "--seeds", "120"],
];
/// So many that no other state of the code had, some three minutes of two cores.
const FRESH: [(&str, u32); 6] =
    [("nodes", 400), ("replicas", 200), ("faults", 300), ("unclean", 80), ("mixed-replicas", 80), ("elections", 60)];
/// Whose state that is.
const SIMULATED: [&str; 3] = ["src", "shards", "tests/simnode"];
/// What runs when nothing is asked for, each its share of the time.
const SCENARIOS: [&str; 5] = ["nodes", "replicas", "unclean", "faults", "elections"];

/// What of the simulation is to run.
#[derive(clap::Args)]
pub struct Options {
    /// Only these scenarios: `nodes` or one of its weathers, `replicas`, `mixed-replicas`, `unclean`, `faults`,
    /// `elections`.
    scenarios: Vec<String>,
    /// Run elections of the metadata quorum until so many epochs have had a leader.
    #[arg(long)]
    elections: Option<u64>,
    /// With `--seed`: leave out parts of its plan, as in `faults:3,5`.
    #[arg(long, value_name = "PARTS", requires = "seed")]
    without: Vec<String>,
    /// Run the seeds that follow from the state of the code.
    #[arg(long, exclusive = true)]
    fresh: bool,
    /// See that the same seeds give the same runs in a debug build.
    #[arg(long, exclusive = true)]
    profiles: bool,
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
    /// Build with everything that makes it fast, which takes long itself: for hunts of an hour.
    #[arg(long, conflicts_with = "seed")]
    optimised: bool,
    /// See that each deliberate mistake is found; with a text, those that have it in their name.
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
        let without = self.without.iter().map(|parts| ["--without".to_owned(), parts.clone()]);
        let trace = self.trace.then(|| "--trace".to_owned());
        self.scenarios.iter().cloned().chain(numbers.chain(without).flatten()).chain(trace).collect()
    }
}

/// Runs what is asked for; if nothing is, all fixed seeds and checks of the simulation, and fresh seeds for a while.
pub fn run(options: &Options) -> Result<()> {
    if options.profiles {
        return compare_profiles();
    }
    if options.fresh {
        return run_fresh();
    }
    if let Some(text) = &options.mutants {
        return mutants::run(text);
    }
    let arguments = options.arguments();
    if !arguments.is_empty() {
        return hunt(if options.optimised { "hunt" } else { PROFILE }, &arguments);
    }
    test()?;
    hunt(PROFILE, &fresh(SECONDS))
}

fn fresh(seconds: &str) -> Vec<String> {
    SCENARIOS.iter().chain(&["--seconds", seconds]).map(|argument| (*argument).to_owned()).collect()
}

/// What every change must pass: the checks of the simulation, and the fixed seeds, among them those that once found a fault.
pub fn run_in_ci() -> Result<()> {
    test()?;
    IN_CI.iter().try_for_each(|hunted| hunt(PROFILE, &owned(hunted)))
}

/// Seeds that follow from the state of the code: others for each, the same for whoever runs them again.
fn run_fresh() -> Result<()> {
    let first = first_fresh_seed()?.to_string();
    FRESH.iter().try_for_each(|(scenario, seeds)| {
        hunt(PROFILE, &owned(&[scenario, "--from", &first, "--seeds", &seeds.to_string()]))
    })
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// A number that is another for each state of the code that is simulated.
fn first_fresh_seed() -> Result<u64> {
    let mut files = Vec::new();
    for folder in SIMULATED {
        find_code(&paths::root().join(folder), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in &files {
        digest.update(paths::relative(file).as_os_str().as_encoded_bytes());
        digest.update(fs::read(file)?);
    }
    let bytes = digest.finalize();
    // Far from those that are chosen by hand, and short enough to be written down.
    Ok(bytes[..5].iter().fold(1, |number, byte| number << 8 | u64::from(*byte)))
}

fn find_code(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            find_code(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn test() -> Result<()> {
    cargo(&[&["test", "--profile", PROFILE], &TESTS[..]].concat(), &[])
}

fn hunt(profile: &str, arguments: &[String]) -> Result<()> {
    cargo(&["run", "--profile", profile, "-p", PACKAGE, "--bin", PROGRAM, "--"], arguments)
}

/// Some seeds in both profiles: an assertion that changes something, or a number that overflows, would show.
pub fn compare_profiles() -> Result<()> {
    let hashes = |profile: &str| -> Result<String> {
        let run = ["run", "-q", "--profile", profile, "-p", PACKAGE, "--bin", PROGRAM, "--"];
        let mut command = cargo_command(&run)?;
        command.args(["--hashes", "--from", "1", "--seeds", HASHED_SEEDS]);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{PROGRAM} fails in profile {profile}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let (fast, debug) = (hashes(PROFILE)?, hashes("sim-debug")?);
    ensure!(fast == debug, "the same seeds give other runs in a debug build:\n{fast}\n{debug}");
    print!("the same in both profiles:\n{fast}");
    Ok(())
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
    // In CI other steps wait for nodes that have to answer in time.
    let in_ci = env::var_os("CI").is_some();
    let mut command = if in_ci { ci::beside(paths::cargo()) } else { Command::new(paths::cargo()) };
    prepare(command.args(arguments))?;
    Ok(command)
}

fn prepare(command: &mut Command) -> Result<()> {
    command.current_dir(paths::root());
    command.env("RUSTFLAGS", FLAGS).env("RUSTDOCFLAGS", FLAGS).env("CARGO_TARGET_DIR", target_folder()?);
    // What one run leaves the next one takes: to get memory from the host anew is a fifth of the time.
    command.env("MIMALLOC_PURGE_DELAY", "-1");
    Ok(())
}
