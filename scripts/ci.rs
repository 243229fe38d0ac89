//! What must hold before a change lands, one small step after the other.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{e2e, fuzz, hang, mutants, paths, setup, sim, tidy};

/// A named piece of work.
type Step = (&'static str, fn() -> Result<()>);

const FIRST: &[Step] = &[("setup", setup::run), ("tidy", tidy::run), ("format", format)];

/// Then these: compilers that wait for each other, tests that wait for nodes, and what is short …
const STEPS: &[Step] = &[
    ("clippy", clippy),
    ("unit tests", unit_tests),
    ("xtask tests", xtask_tests),
    ("end-to-end tests", || e2e::run(&[])),
    ("hang", hang::run),
    ("fuzz", || fuzz::run(60)),
];

/// … and beside them, with what time they leave, those that do nothing but compute.
const BESIDE: &[Step] =
    &[("simulation", sim::run_in_ci), ("mutants", || mutants::run("")), ("profiles", sim::compare_profiles)];

/// Runs all steps, also after a failed one, and tells how long each took.
pub fn run() -> Result<()> {
    let begin = Instant::now();
    let mut results: Vec<_> = FIRST.iter().map(take).collect();
    thread::scope(|scope| {
        let beside = scope.spawn(|| BESIDE.iter().map(take).collect::<Vec<_>>());
        results.extend(STEPS.iter().map(take));
        results.extend(beside.join().expect("a step doesn't panic"));
    });
    println!("\n=== summary");
    for (name, time, result) in &results {
        println!("{} {name:<20} {}", if result.is_ok() { "ok    " } else { "FAILED" }, seconds(*time));
    }
    println!("       {:<20} {}", "all", seconds(begin.elapsed()));
    let mut failed = Vec::new();
    for (name, _, result) in &results {
        if let Err(error) = result {
            println!("{name}: {error:#}");
            failed.push(*name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Takes a step. Says what it is called, how long it took, and what came of it.
fn take((name, step): &Step) -> (&'static str, Duration, Result<()>) {
    println!("\n=== {name}");
    let begin = Instant::now();
    let result = step();
    if let Err(error) = &result {
        println!("{name} failed: {error:#}");
    }
    (name, begin.elapsed(), result)
}

fn seconds(time: Duration) -> String {
    format!("{:>7.1} s", time.as_secs_f64())
}

/// Cargo in the project's top folder.
pub fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    cargo_in(&paths::root(), arguments)
}

fn cargo_in<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut command = Command::new(paths::cargo());
    command.args(arguments).current_dir(folder);
    run_command(&mut command)
}

/// Runs a command, and fails as it fails. In CI the error repeats what the command called failed.
pub fn run_command(command: &mut Command) -> Result<()> {
    let mut failures = Failures::default();
    let status = if env::var_os("CI").is_some() { run_and_note(command, &mut failures) } else { command.status() };
    let status = status.with_context(|| format!("running {command:?}"))?;
    if status.success() { Ok(()) } else { bail!(failures.told(command, status)) }
}

/// Runs a command beside others: what it prints is printed in one piece, when it has ended.
pub fn run_beside_others(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let mut failures = Failures::default();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().for_each(|line| failures.see(line));
    print!("{}{text}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { bail!(failures.told(command, output.status)) }
}

/// How many lines about failures are repeated at the end, of one command.
const FAILURES_TOLD: usize = 80;
/// How many lines of them are the reasons that one failed test gave: the first ones …
const REASONS_TOLD: usize = 5;
/// … and the last ones, where the cause of causes stands.
const LAST_REASONS_TOLD: usize = 5;

/// What of a command's output is told again.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    reasons_left: usize,
    /// Behind those: the last lines so far.
    last_reasons: VecDeque<String>,
    is_in_reasons: bool,
}

impl Failures {
    fn see(&mut self, line: &str) {
        let is_heading = line.starts_with("---- ") && line.ends_with(" stdout ----");
        if is_heading || line == "failures:" || line.to_lowercase().starts_with("stack backtrace") {
            self.lines.extend(self.last_reasons.drain(..));
            self.is_in_reasons = is_heading;
            self.reasons_left = if is_heading { REASONS_TOLD } else { 0 };
        } else if self.is_in_reasons && self.reasons_left == 0 && !line.is_empty() {
            self.last_reasons.push_back(line.to_owned());
            if self.last_reasons.len() > LAST_REASONS_TOLD {
                self.last_reasons.pop_front();
            }
        }
        // Tests end with the word, simulations begin with it.
        let is_failure = line.ends_with("FAILED") || line.starts_with("FAILED") || line.starts_with("Diff in");
        let is_reason = self.reasons_left > 0 && !line.is_empty();
        self.reasons_left -= usize::from(is_reason);
        if (is_failure || is_reason) && self.lines.len() < FAILURES_TOLD {
            self.lines.push(line.to_owned());
        }
    }

    fn told(self, command: &Command, status: ExitStatus) -> String {
        let ended = format!("{command:?} ended with {status}");
        std::iter::once(ended).chain(self.lines).chain(self.last_reasons).collect::<Vec<_>>().join("\n    ")
    }
}

fn run_and_note(command: &mut Command, failures: &mut Failures) -> io::Result<ExitStatus> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            failures.see(&line);
        }
    }
    child.wait()
}

fn scripts() -> PathBuf {
    paths::root().join("scripts")
}

fn format() -> Result<()> {
    cargo(["fmt", "--all", "--check"])?;
    cargo_in(&scripts(), ["fmt", "--all", "--check"])
}

fn clippy() -> Result<()> {
    cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo_in(&scripts(), ["clippy", "--all-targets", "--", "-D", "warnings"])
}

/// All tests but the end-to-end programs.
fn unit_tests() -> Result<()> {
    let programs = e2e::other_programs()?;
    let named = programs.iter().flat_map(|name| ["--test", name]);
    cargo(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"])?;
    cargo(["test", "--workspace", "--no-fail-fast", "--exclude", e2e::PACKAGE].into_iter().chain(named))?;
    cargo(["test", "--workspace", "--no-fail-fast", "--doc"])
}

fn xtask_tests() -> Result<()> {
    cargo_in(&scripts(), ["test"])
}

/// A command that leaves the machine to others where they have something to do.
pub fn beside(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program);
    command
}

/// Where cargo puts what it builds of the main workspace.
pub fn target_folder() -> Result<PathBuf> {
    let metadata = tidy::metadata()?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names the target folder")?;
    Ok(PathBuf::from(folder))
}
