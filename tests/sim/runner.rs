//! Runs a scenario from a seed and reports what failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::bug::Bug;
use crate::groups::GroupWorld;
use crate::world::World;
use crate::{Violation, quorum, trace};

/// Actions in a run.
const ACTIONS: u32 = 3_000;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Producers write to one partition.
    Log,
    /// A group coordinator keeps its state in one partition.
    Groups,
    /// A metadata quorum with everything that may go wrong.
    Faults,
    /// Leaders of a metadata quorum come and go.
    Elections,
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
    /// Epochs of the metadata quorum with a leader.
    pub elections: u64,
    /// Processes of the quorum that were killed, and machines that lost their power.
    pub crashes: u64,
    /// Packets between nodes and clients.
    pub packets: u64,
    /// Snapshots that were written or fetched.
    pub snapshots: u64,
    /// Snapshots of other nodes that took a log's place.
    pub snapshots_fetched: u64,
    /// Logs that were cut where they differed from the leader's.
    pub truncations: u64,
    /// How long quorums ran in their own time, in microseconds.
    pub virtual_us: u64,
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
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.packets += other.packets;
        self.snapshots += other.snapshots;
        self.snapshots_fetched += other.snapshots_fetched;
        self.truncations += other.truncations;
        self.virtual_us += other.virtual_us;
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

/// Runs one scenario with one seed. One that fails is run again, for its trace.
pub fn run(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Result<Stats, Box<Failure>> {
    trace::want(std::env::var_os("LIVE").is_some());
    let message = match attempt(scenario, seed, bug) {
        Ok(stats) => return Ok(stats),
        Err(message) => message,
    };
    trace::want(true);
    let again = attempt(scenario, seed, bug);
    let trace = trace::take();
    trace::want(false);
    let message = if again.as_ref().err() == Some(&message) {
        message
    } else {
        format!("{message}; but when run again: {again:?}")
    };
    Err(Box::new(Failure { seed, scenario, message, trace }))
}

fn attempt(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Result<Stats, Violation> {
    let outcome = catch_unwind(AssertUnwindSafe(|| match scenario {
        Scenario::Log => run_log(seed, bug),
        Scenario::Groups => run_groups(seed, bug),
        Scenario::Faults => quorum::run(quorum::Kind::Faults, seed),
        Scenario::Elections => quorum::run(quorum::Kind::Elections, seed),
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    })
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
