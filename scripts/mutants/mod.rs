//! Deliberate mistakes in what a node is made of, each of which the simulation has to find: whether its checkers and faults
//! are worth anything.
//!
//! The mistakes stand in `tests/simnode/mutants` (`list` reads them). What runs holds nothing of it: a copy of those crates
//! that the simulation needs is made in the target folder, with all mistakes in it, each behind a switch (`copy`). The copy is built once. Then each mistake is switched on in turn, by an environment
//! variable, and seeds run until one fails, which must pass without the mistake.

mod copy;
mod list;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::list::Mutant;
use crate::ci;

/// Which mistake is switched on.
const VARIABLE: &str = "RINGLOG_MUTANT";
/// A mistake must be found within this time, also if it brings a run into an endless loop, and beside other work.
const PATIENCE: Duration = Duration::from_secs(600);
/// What runs seeds.
pub const PACKAGE: &str = "ringlog-simnode-tests";
/// Its program.
pub const PROGRAM: &str = "simnode";
/// Where the lists are.
const FOLDER: &str = "tests/simnode/mutants";
/// What is run when a mistake doesn't say it.
const SCENARIO: &str = "nodes";
/// A mistake must be found with one of so many seeds, of each scenario.
const SEEDS: &str = "600";

/// What a run of seeds came to.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed { scenario: String, seed: u64, message: String },
}

/// Sees that each mistake is found, or each with `text` in its name.
pub fn run(text: &str) -> Result<()> {
    let mutants = list::read(FOLDER)?;
    let begin = Instant::now();
    let program = copy::build(&mutants)?;
    println!("built with {} mistakes in {:.0} s", mutants.len(), begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    let sound = Sound::default();
    let chosen = mutants.iter().enumerate().filter(|(_, mutant)| mutant.name.contains(text));
    let queue = Mutex::new(chosen);
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = queue.lock().expect("no other thread panics").next();
            let Some((index, mutant)) = next else { return };
            if let Err(error) = find(&program, index, mutant, &sound) {
                println!("MISSED {}: {error:#}", mutant.name);
                missed.lock().expect("no other thread panics").push(mutant.name.as_str());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let missed = missed.into_inner().expect("no thread panicked");
    println!("{:.0} s", begin.elapsed().as_secs_f64());
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

/// Finds one mistake, and prints how.
fn find(program: &Path, index: usize, mutant: &Mutant, sound: &Sound) -> Result<()> {
    let begin = Instant::now();
    let from = mutant.from.to_string();
    let mut arguments = vec!["--threads", "1", "--first", "--from", &from, "--seeds", SEEDS];
    arguments.extend(mutant.scenario.as_deref().unwrap_or(SCENARIO).split(' '));
    let Outcome::Failed { scenario, seed, message } = hunt(program, Some(index), &arguments)? else {
        bail!("{SEEDS} seeds pass with it: {}", mutant.text);
    };
    let seconds = begin.elapsed().as_secs_f64();
    sound.see(program, &scenario, seed)?;
    println!("found {} ({scenario}, seed {seed}, {seconds:.1} s): {message}", mutant.name);
    Ok(())
}

/// The seeds that pass without a mistake. Many mistakes are found by the same one.
#[derive(Default)]
struct Sound(Mutex<BTreeSet<(String, u64)>>);

impl Sound {
    fn see(&self, program: &Path, scenario: &str, seed: u64) -> Result<()> {
        let key = (scenario.to_owned(), seed);
        if self.0.lock().expect("no other thread panics").contains(&key) {
            return Ok(());
        }
        let without = hunt(program, None, &["--from", &seed.to_string(), "--seeds", "1", scenario])?;
        ensure!(matches!(without, Outcome::Passed), "its seed fails without it, too: {without:?}");
        self.0.lock().expect("no other thread panics").insert(key);
        Ok(())
    }
}

/// Runs seeds, with a mistake or without.
fn hunt(program: &Path, mutant: Option<usize>, arguments: &[&str]) -> Result<Outcome> {
    let mut command = ci::beside(program);
    command.args(arguments).stdout(Stdio::piped());
    match mutant {
        Some(index) => command.env(VARIABLE, index.to_string()),
        None => command.env_remove(VARIABLE),
    };
    let mut child = command.spawn().with_context(|| format!("running {}", program.display()))?;
    let mut pipe = child.stdout.take().context("the program's output")?;
    let output = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("it runs for longer than {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    };
    let output = output.join().expect("reading doesn't panic")?;
    if status.success() {
        return Ok(Outcome::Passed);
    }
    let failed = output.lines().find_map(|line| line.strip_prefix("FAILED "));
    let failed = failed.with_context(|| format!("it ended with {status} and named no seed:\n{output}"))?;
    let read = || {
        let (run, message) = failed.split_once(": ")?;
        let (scenario, seed) = run.split_once(" seed ")?;
        Some(Outcome::Failed { scenario: scenario.to_owned(), seed: seed.parse().ok()?, message: message.to_owned() })
    };
    read().with_context(|| format!("a line that can't be read: {failed}"))
}
