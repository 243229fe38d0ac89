//! Runs simulations on all cores: fresh seeds to look for new faults, or given ones to look at old ones. A fresh seed
//! is one number like any other, so whatever fails can be repeated.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use ringlog_sim_tests::{Failure, Scenario, Stats, run, run_aloud};
use ringlog_types::Random;

/// For how long, if nothing else bounds it.
const SECONDS: u64 = 30;
const US_PER_HOUR: f64 = 3.6e9;

/// Looks for faults of the cores in a simulated, faulty world.
#[derive(Parser)]
#[command(name = "hunt")]
struct Options {
    /// What is run, in turn: all, unless told otherwise.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// So many seeds of each scenario.
    #[arg(long)]
    seeds: Option<u64>,
    /// For so many seconds; 30 if nothing else bounds it.
    #[arg(long)]
    seconds: Option<u64>,
    /// Until so many epochs of the `elections` scenario, which alone is run then, have had a leader.
    #[arg(long, conflicts_with = "scenarios")]
    elections: Option<u64>,
    /// Consecutive seeds from this one on, instead of fresh ones.
    #[arg(long)]
    from: Option<u64>,
    /// This one seed; what happened is printed if it fails.
    #[arg(long, conflicts_with_all = ["seeds", "seconds", "elections", "from"])]
    seed: Option<u64>,
    /// Print everything that happens, as it happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Stop at the first failure.
    #[arg(long)]
    first: bool,
    /// How many seeds run at once; as many as there are cores, unless told otherwise.
    #[arg(long)]
    threads: Option<NonZero<usize>>,
}

#[allow(clippy::disallowed_methods, reason = "fresh seeds come from the clock, and it bounds how long they run")]
mod clock {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    pub fn fresh_seed() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    pub fn stopwatch() -> impl Fn() -> f64 + Sync {
        let start = Instant::now();
        move || start.elapsed().as_secs_f64()
    }
}

/// Where seeds come from.
enum Seeds {
    Consecutive(u64),
    Fresh(Random),
}

/// Hands out what to run: with each seed every scenario.
struct Jobs {
    scenarios: Vec<Scenario>,
    seeds: Seeds,
    /// How many more seeds.
    left: Option<u64>,
    /// Scenarios to run with the last seed.
    open: Vec<Scenario>,
    seed: u64,
}

impl Jobs {
    fn next(&mut self) -> Option<(Scenario, u64)> {
        if self.open.is_empty() {
            self.left = match self.left {
                Some(left) => Some(left.checked_sub(1)?),
                None => None,
            };
            self.seed = match &mut self.seeds {
                Seeds::Consecutive(next) => {
                    let seed = *next;
                    *next = next.wrapping_add(1);
                    seed
                }
                Seeds::Fresh(random) => random.next_u64() >> 16,
            };
            self.open = self.scenarios.iter().rev().copied().collect();
        }
        Some((self.open.pop()?, self.seed))
    }
}

/// What came of it all.
#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    stats: Stats,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let totals = match options.seed {
        Some(seed) => repeat(seed, &options),
        None => hunt(&options),
    };
    print_stats(&totals.stats);
    if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_stats(stats: &Stats) {
    if stats.packets > 0 {
        println!(
            "quorums: {} elections, {} crashes, {} truncations, {} snapshots, {} of them fetched, {} answers, {} packets, \
             {:.1} hours of their time",
            stats.elections,
            stats.crashes,
            stats.truncations,
            stats.snapshots,
            stats.snapshots_fetched,
            stats.commits,
            stats.packets,
            stats.virtual_us as f64 / US_PER_HOUR,
        );
    }
    if stats.appends > 0 {
        println!(
            "partitions: {} batches, {} sent twice, {} segments, {} restarts, {} rebalances",
            stats.appends, stats.duplicates, stats.rolls, stats.restarts, stats.rebalances
        );
    }
}

impl Options {
    fn scenarios(&self) -> Vec<Scenario> {
        if self.elections.is_some() {
            vec![Scenario::Elections]
        } else if self.scenarios.is_empty() {
            Scenario::ALL.to_vec()
        } else {
            self.scenarios.clone()
        }
    }
}

/// One seed, to be looked at.
fn repeat(seed: u64, options: &Options) -> Totals {
    let mut totals = Totals::default();
    for scenario in options.scenarios() {
        let outcome = if options.trace { run_aloud(scenario, seed) } else { run(scenario, seed, None) };
        totals.runs += 1;
        match outcome {
            Ok(stats) => {
                println!("{scenario}: seed {seed} passes");
                totals.stats.add(&stats);
            }
            Err(failure) => {
                println!("{failure}");
                totals.failed += 1;
            }
        }
    }
    totals
}

fn hunt(options: &Options) -> Totals {
    let seeds = match options.from {
        Some(from) => Seeds::Consecutive(from),
        None => {
            let first = clock::fresh_seed();
            println!("fresh seeds, drawn from {first}");
            Seeds::Fresh(Random::from_seed(first))
        }
    };
    let is_bounded = options.seeds.is_some() || options.elections.is_some();
    let seconds = options.seconds.or((!is_bounded).then_some(SECONDS)).map_or(f64::INFINITY, |seconds| seconds as f64);
    let jobs = Jobs { scenarios: options.scenarios(), seeds, left: options.seeds, open: Vec::new(), seed: 0 };
    let (jobs, totals, is_over) = (Mutex::new(jobs), Mutex::new(Totals::default()), AtomicBool::new(false));
    let elapsed = clock::stopwatch();
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && elapsed() < seconds {
                    let Some((scenario, seed)) = jobs.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        break;
                    };
                    let outcome = run(scenario, seed, None);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    if totals.take(outcome, options) {
                        is_over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} runs, {} failed, {:.1} s on {threads} threads", totals.runs, totals.failed, elapsed());
    totals
}

impl Totals {
    /// Counts a run. Whether it was the last.
    fn take(&mut self, outcome: Result<Stats, Box<Failure>>, options: &Options) -> bool {
        self.runs += 1;
        match outcome {
            Ok(stats) => {
                self.stats.add(&stats);
                options.elections.is_some_and(|wanted| self.stats.elections >= wanted)
            }
            Err(failure) => {
                println!("FAILED {} seed {}: {}", failure.scenario, failure.seed, failure.message);
                self.failed += 1;
                options.first
            }
        }
    }
}
