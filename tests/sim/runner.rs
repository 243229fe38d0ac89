//! Runs a scenario from a seed and reports what failed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::bug::Bug;
use crate::groups::GroupWorld;
use crate::trace::Wanted;
use crate::world::World;
use crate::{Violation, quorum, trace};

/// Actions in a run.
const ACTIONS: u32 = 3_000;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 4] = [Scenario::Log, Scenario::Groups, Scenario::Faults, Scenario::Elections];
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scenario::Log => "log",
            Scenario::Groups => "groups",
            Scenario::Faults => "faults",
            Scenario::Elections => "elections",
        })
    }
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
        writeln!(f, "{}: {}", self.scenario, self.message)?;
        write!(f, "once more: cargo xtask sim --seed {} {}", self.seed, self.scenario)
    }
}

/// Runs one scenario with one seed. One that fails is run again, for its trace.
pub fn run(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Result<Stats, Box<Failure>> {
    let message = match attempt(scenario, seed, bug) {
        Ok(stats) => return Ok(stats),
        Err(message) => message,
    };
    trace::want(Wanted::Last);
    let again = attempt(scenario, seed, bug);
    let trace = trace::take();
    trace::want(Wanted::Nothing);
    let message = if again.as_ref().err() == Some(&message) {
        message
    } else {
        format!("{message}; but when run again: {again:?}")
    };
    Err(Box::new(Failure { seed, scenario, message, trace }))
}

/// Runs one scenario with one seed, and prints everything that happens.
pub fn run_aloud(scenario: Scenario, seed: u64) -> Result<Stats, Box<Failure>> {
    trace::want(Wanted::Printed);
    let outcome = attempt(scenario, seed, None);
    trace::want(Wanted::Nothing);
    outcome.map_err(|message| Box::new(Failure { seed, scenario, message, trace: Vec::new() }))
}

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a run was.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of a run is the run's failure, and says nothing of its own accord.
fn quieten_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_RUNNING.get() {
                return others(panic);
            }
            PANICKED_AT.set(panic.location().map(ToString::to_string).unwrap_or_default());
        }));
    });
}

fn attempt(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Result<Stats, Violation> {
    quieten_panics();
    IS_RUNNING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| match scenario {
        Scenario::Log => run_log(seed, bug),
        Scenario::Groups => run_groups(seed, bug),
        Scenario::Faults => quorum::run(quorum::Kind::Faults, seed),
        Scenario::Elections => quorum::run(quorum::Kind::Elections, seed),
    }));
    IS_RUNNING.set(false);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic at {}: {}", PANICKED_AT.take(), text.unwrap_or("without a message")))
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
