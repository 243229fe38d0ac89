//! Runs the simulations. `RINGLOG_SIM_SEED=S` repeats one run, `RINGLOG_SIM_SEEDS=N` takes that many fresh ones, and
//! `RINGLOG_SIM_SECONDS=T` fresh ones for so long; `cargo xtask sim` sets them. Some fixed seeds run before fresh ones.

use std::env;

use ringlog_sim_tests::{Bug, Scenario, Stats, run};
use ringlog_types::Random;

const SCENARIOS: [Scenario; 2] = [Scenario::Log, Scenario::Groups];
/// Seeds that always run.
const FIXED_SEEDS: u64 = 60;
/// Seeds that found a fault once: a finished segment's epochs that a power loss forgot.
const FOUND_SEEDS: [u64; 1] = [104_468_923_833_170];
/// Seeds among which a deliberate mistake must be found; most are in the first.
const MISTAKE_SEEDS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[allow(clippy::disallowed_methods, reason = "fresh seeds come from the clock, and it bounds how long they run")]
mod clock {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    pub fn fresh_seed() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    pub fn stopwatch() -> impl Fn() -> u64 {
        let start = Instant::now();
        move || start.elapsed().as_secs()
    }
}

fn run_both(seed: u64, stats: &mut Stats) {
    for scenario in SCENARIOS {
        match run(scenario, seed, None) {
            Ok(of_run) => stats.add(&of_run),
            Err(failure) => panic!("seed {seed}\n{failure}"),
        }
    }
}

#[test]
fn promises_survive_crashes() {
    let mut stats = Stats::default();
    if let Some(seed) = number("RINGLOG_SIM_SEED") {
        run_both(seed, &mut stats);
        println!("seed {seed}: {stats:?}");
        return;
    }
    (0..FIXED_SEEDS).chain(FOUND_SEEDS).for_each(|seed| run_both(seed, &mut stats));
    assert!(stats.appends > 10_000 && stats.restarts > 100, "the runs do little: {stats:?}");
    assert!(stats.rolls > 100 && stats.duplicates > 100, "the runs do little: {stats:?}");
    assert!(stats.commits > 1_000 && stats.rebalances > 50, "the runs do little: {stats:?}");
    let (count, seconds) = (number("RINGLOG_SIM_SEEDS"), number("RINGLOG_SIM_SECONDS"));
    if count.is_none() && seconds.is_none() {
        return;
    }
    let first = clock::fresh_seed();
    println!("fresh seeds, drawn from {first}");
    let mut seeds = Random::from_seed(first);
    let elapsed = clock::stopwatch();
    let mut runs = 0;
    while runs < count.unwrap_or(u64::MAX) && elapsed() < seconds.unwrap_or(u64::MAX) {
        run_both(seeds.next_u64() >> 16, &mut stats);
        runs += 1;
    }
    println!("{runs} fresh seeds after {FIXED_SEEDS} fixed ones: {stats:?}");
}

#[test]
fn a_seed_repeats_its_run() {
    for scenario in SCENARIOS {
        let stats = run(scenario, 3, None).unwrap();
        assert_eq!(run(scenario, 3, None).unwrap(), stats);
    }
}

/// Each deliberate mistake is found with some seed, which passes without it.
#[test]
fn every_deliberate_mistake_is_found() {
    // A mistake may also run into an assertion of the cores; its message would only be noise here.
    let this_thread = std::thread::current().id();
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() != this_thread {
            others(panic);
        }
    }));
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let find = |scenario: Scenario| (0..MISTAKE_SEEDS).find_map(|seed| run(scenario, seed, Some(*bug)).err());
        match SCENARIOS.into_iter().find_map(find) {
            Some(failure) => {
                println!("{bug:?}: seed {}: {}", failure.seed, failure.message);
                let without = run(failure.scenario, failure.seed, None);
                assert!(without.is_ok(), "seed {} fails without a mistake, too", failure.seed);
            }
            None => missed.push(bug),
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "no checker finds {missed:?}");
}
