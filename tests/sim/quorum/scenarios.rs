//! The runs.

use ringlog_types::Random;

use super::check::{Checker, Fault};
use super::plan::{Kind, Plan};
use super::shared::Event;
use super::time::{SECOND, Us};
use super::world::World;
use crate::runner::Stats;

/// How long a quorum may take to have a leader once everything is mended.
const ELECTION_US: Us = 15 * SECOND;
/// And to answer, and for everybody to catch up.
const RECOVERY_US: Us = 25 * SECOND;

/// Runs what the seed says.
pub(crate) fn run(kind: Kind, seed: u64) -> Result<Stats, String> {
    let plan = Plan::new(kind, seed);
    crate::trace::note(|| format!("{plan:?}"));
    let mut world = World::new(plan);
    let outcome = match kind {
        Kind::Faults => run_faults(&mut world),
        Kind::Elections => run_elections(&mut world),
    };
    let mut checks = world.shared.checks.borrow_mut();
    checks.stats.virtual_us = world.shared.now();
    checks.stats.packets = world.shared.network.borrow().packets;
    checks.stats.commits = world.clients.answered;
    let stats = checks.stats;
    drop(checks);
    outcome.map(|()| stats).map_err(|fault| format!("[{:?}] {}", fault.checker, fault.text))
}

fn run_faults(world: &mut World) -> Result<(), Fault> {
    world.start_all();
    let first = 1 + Random::from_seed(world.shared.plan.seed).below(5 * SECOND);
    world.shared.post(first, Event::Fault);
    world.run_for(world.shared.plan.trouble_us)?;
    world.heal();
    recover(world)
}

fn run_elections(world: &mut World) -> Result<(), Fault> {
    world.clients.are_quiet = true;
    world.start_all();
    world.shared.post(SECOND, Event::Fault);
    world.run_for(60 * SECOND)?;
    world.heal();
    recover(world)
}

fn dead(world: &World, what: &str) -> Fault {
    let views: Vec<String> = {
        let checks = world.shared.checks.borrow();
        let view = |(node, it): (usize, &super::check::NodeView)| {
            format!(
                "n{node}: running {}, loaded {}, epoch {}, leads {:?}, log {}..{}, high watermark {}, published {}, \
                 rebuilding {}, voters {:?}",
                it.is_running,
                it.is_loaded,
                it.epoch,
                it.leads,
                it.log.start,
                it.log.end(),
                it.high_watermark,
                it.published,
                it.is_rebuilding,
                it.log.voters()
            )
        };
        checks.nodes.iter().enumerate().map(view).collect()
    };
    Fault { checker: Checker::Liveness, text: format!("{what}\n{}", views.join("\n")) }
}

/// After all is mended everything works again, and soon.
fn recover(world: &mut World) -> Result<(), Fault> {
    world.clients.are_quiet = true;
    let is_led = |world: &World| {
        let checks = world.shared.checks.borrow();
        let leader = world.leader();
        leader.is_some_and(|node| checks.nodes[node].high_watermark == checks.committed.end())
    };
    let has_leader = world.run_until(ELECTION_US, is_led)?;
    // Those that start say only then what they have lost.
    if !world.has_possible_majority() {
        return Ok(());
    }
    if !has_leader {
        return Err(dead(world, "there is no leader, though nothing is broken"));
    }
    let committed = world.shared.checks.borrow().committed.end();
    let is_caught_up = move |world: &World| {
        let checks = world.shared.checks.borrow();
        checks.nodes.iter().all(|view| view.is_loaded && !view.is_rebuilding && view.published >= committed - 1)
    };
    if !world.run_until(RECOVERY_US, is_caught_up)? {
        return Err(dead(world, &format!("not everybody has all up to {committed}, though nothing is broken")));
    }
    world.expect_topic("last-topic", RECOVERY_US)?;
    Ok(())
}

impl World {
    /// Whether the voters that are there, unhurt and where the others look for them can elect a leader at all, whichever
    /// of the logs they follow.
    fn has_possible_majority(&self) -> bool {
        let checks = self.shared.checks.borrow();
        // Who has no memory votes among others without any.
        let may_vote = |view: &super::check::NodeView, log: (i32, i64)| {
            !view.is_rebuilding || view.is_blank && view.log.end() == 0 && log == (0, 0)
        };
        let committed = (0, checks.committed.end());
        let is_there = |id: i32, directory: Option<ringlog_types::Uuid>| {
            checks.nodes.iter().any(|view| {
                view.id == id
                    && directory.is_none_or(|directory| directory == view.directory)
                    && may_vote(view, committed)
            })
        };
        // As in Kafka, who isn't a voter by its own log doesn't stand; so a leader that removed itself and restarted before
        // anybody knew may hold the only log that all others would vote for.
        let can_win = |candidate: &super::check::NodeView| {
            let (set, log) = (candidate.log.voters(), (candidate.log.last_epoch(), candidate.log.end()));
            let votes = checks.nodes.iter().filter(|it| {
                set.holds(it.id, it.directory) && may_vote(it, log) && (it.log.last_epoch(), it.log.end()) <= log
            });
            set.holds(candidate.id, candidate.directory) && may_vote(candidate, log) && votes.count() > set.len() / 2
        };
        if !checks.nodes.iter().any(can_win) {
            return false;
        }
        let mut sets: Vec<&super::check::VoterView> = checks.nodes.iter().map(|view| view.log.voters()).collect();
        sets.push(checks.committed.present_voters());
        sets.iter().all(|set| {
            let is_found = |id: i32| {
                let host = self.hosts.iter().find(|host| host.id.0 == id);
                host.zip(set.port(id)).is_some_and(|(host, port)| host.is_port(port))
            };
            let is_good = |(id, directory): &(&i32, &Option<_>)| is_found(**id) && is_there(**id, **directory);
            let there = set.iter().filter(is_good).count();
            there > set.len() / 2 || set.len() == 0
        })
    }

    /// An administrator creates a topic, which has to work.
    fn expect_topic(&mut self, name: &'static str, within: Us) -> Result<(), Fault> {
        let client = self.shared.plan.brokers;
        let until = self.shared.now() + within;
        loop {
            if self.shared.checks.borrow().model.names.contains_key(name) {
                return Ok(());
            }
            if self.shared.now() >= until {
                return Err(dead(self, "no topic can be created, though nothing is broken"));
            }
            self.ask_for_topic(client, name);
            self.run_for(SECOND / 2)?;
        }
    }
}
