//! Runs a scenario from a seed and reports what failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bug::Bug;
use crate::groups::GroupWorld;
use crate::world::World;
use crate::{Violation, trace};

/// Actions in a run.
const ACTIONS: u32 = 3_000;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Producers write to one partition.
    Log,
    /// A group coordinator keeps its state in one partition.
    Groups,
}

/// What happened, to see that a run was worth it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches appended.
    pub appends: u64,
    /// Batches that were sent again and found.
    pub duplicates: u64,
    /// Segments sealed and written.
    pub rolls: u64,
    /// Restarts, in order or not.
    pub restarts: u64,
    /// Offset commits that were answered.
    pub commits: u64,
    /// Rebalances that were completed.
    pub rebalances: u64,
}

impl Stats {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Stats) {
        self.appends += other.appends;
        self.duplicates += other.duplicates;
        self.rolls += other.rolls;
        self.restarts += other.restarts;
        self.commits += other.commits;
        self.rebalances += other.rebalances;
    }
}

/// A run that a checker, or an assertion of the cores, ended.
#[derive(Debug)]
pub struct Failure {
    /// Which run.
    pub seed: u64,
    /// Of which scenario.
    pub scenario: Scenario,
    /// What was found.
    pub message: String,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{:?}: {}", self.scenario, self.message)?;
        write!(f, "once more: cargo xtask sim --seed {}", self.seed)
    }
}

/// Runs one scenario with one seed.
pub fn run(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Result<Stats, Box<Failure>> {
    drop(trace::take());
    let outcome = catch_unwind(AssertUnwindSafe(|| match scenario {
        Scenario::Log => run_log(seed, bug),
        Scenario::Groups => run_groups(seed, bug),
    }));
    let message = match outcome {
        Ok(Ok(stats)) => return Ok(stats),
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without a message"))
        }
    };
    Err(Box::new(Failure { seed, scenario, message, trace: trace::take() }))
}

fn run_log(seed: u64, bug: Option<Bug>) -> Result<Stats, Violation> {
    let mut world = World::new(seed, bug, 3)?;
    for _ in 0..ACTIONS {
        world.step()?;
    }
    world.stop_in_order()?;
    Ok(world.stats)
}

fn run_groups(seed: u64, bug: Option<Bug>) -> Result<Stats, Violation> {
    let mut world = GroupWorld::new(seed, bug)?;
    for _ in 0..ACTIONS {
        world.step()?;
    }
    world.finish()
}
