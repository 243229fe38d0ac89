//! A run: nodes come up, things go wrong, everything is healed, and then all is well again.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_ring::sim::{MS, SECOND, World};

use super::check::{Checks, Seat};
use super::clients::{self, Known};
use super::nemesis::{Nemesis, Trouble};
use super::plan::{Kind, QuorumPlan};
use crate::cluster::Cluster;
use crate::nemesis::{self, ALL_DESCRIPTORS, Fault};
use crate::node::directory_id;
use crate::plan::{CLIENT_PORT, CONTROLLER_PORT};
use crate::run::Outcome;

/// How often snapshots are looked for, and whether everything goes on.
const LOOK_EVERY_NS: u64 = 100 * MS;
/// How long a quorum may take to have a leader, and everybody to catch up, once everything is mended.
const RECOVERS_WITHIN_NS: u64 = 60 * SECOND;
/// What a disk began while it was slow may end so long after it has been mended.
const SLOW_OPERATION_NS: u64 = 3 * SECOND;

struct Run<'a> {
    plan: &'a QuorumPlan,
    world: &'a World,
    cluster: Cluster,
    checks: Rc<RefCell<Checks>>,
    known: Rc<Known>,
    nemesis: Nemesis,
    steps: Vec<(u64, Step)>,
}

#[derive(Debug)]
enum Step {
    Next,
    End(Fault),
    Start(usize),
    /// And for how long.
    Kill(usize, u64),
    Look,
    Roll(usize),
    Over,
}

/// Carries out a plan. `look` gets the world before anything happens in it.
pub fn run(plan: &QuorumPlan, look: impl FnOnce(&World)) -> Outcome {
    let world = World::new(plan.plan.world());
    look(&world);
    let cluster = Cluster::new(&world, &plan.plan);
    let seats = cluster.nodes.iter().map(|node| Seat {
        id: node.plan.id,
        host: node.host,
        is_controller: node.plan.is_controller,
        is_voter: node.plan.is_controller && (node.plan.id as usize) <= plan.plan.initial_voters,
        directory: directory_id(&plan.plan, node.plan.id, 0, 0),
    });
    let seats: Vec<Seat> = seats.collect();
    let checks = Checks::begin(&world, &seats, plan.plan.has_dynamic_quorum, plan.fetch_timeout_ms);
    let address = |node: &crate::cluster::Node, port| SocketAddr::new(world.address(node.host), port);
    let controllers = cluster.nodes.iter().filter(|node| node.plan.is_controller);
    let brokers = cluster.nodes.iter().filter(|node| node.plan.is_broker);
    let known = Rc::new(Known {
        controllers: controllers.map(|node| (node.plan.id, address(node, CONTROLLER_PORT))).collect(),
        brokers: brokers.map(|node| address(node, CLIENT_PORT)).collect(),
        is_dynamic: plan.plan.has_dynamic_quorum,
        changes_voters_often: plan.changes_voters_often,
        think_ms: plan.think_ms,
        is_over: Cell::new(false),
        checks: checks.clone(),
    });
    let mut run = Run { plan, world: &world, cluster, checks, known, nemesis: Nemesis::new(plan), steps: Vec::new() };
    let _ = run.go_wrong() && run.heal();
    let stats = run.checks.borrow().stats;
    drop(run);
    Outcome {
        trace_hash: world.trace_hash(),
        events: world.events(),
        took_ns: world.now_ns(),
        answers: stats.promises,
        elections: stats.elections,
        violations: world.take_violations(),
    }
}

impl Run<'_> {
    fn is_fine(&self) -> bool {
        !self.world.has_violations()
    }

    fn after(&mut self, ns: u64, step: Step) {
        self.steps.push((self.world.now_ns() + ns, step));
    }

    fn start(&mut self, place: usize) {
        if self.cluster.nodes[place].process.is_some_and(|process| self.world.exit(process).is_none()) {
            return;
        }
        self.checks.borrow_mut().on_started(place);
        self.cluster.start(place);
    }

    fn start_clients(&self) {
        let clients = self.cluster.clients;
        for (id, address) in &self.known.controllers {
            let (known, address) = (self.known.clone(), *address);
            self.world.start(clients, &format!("asker-{id}"), move || clients::ask_who_leads(known, address));
        }
        for number in 0..self.plan.admins {
            let known = self.known.clone();
            self.world.start(clients, &format!("admin-{number}"), move || clients::administrate(known));
        }
    }

    fn go_wrong(&mut self) -> bool {
        (0..self.cluster.nodes.len()).for_each(|place| self.start(place));
        self.start_clients();
        let first_ms = self.nemesis.below(3_000);
        self.after(first_ms * MS, Step::Next);
        self.after(LOOK_EVERY_NS, Step::Look);
        self.after(self.plan.trouble_ms * MS, Step::Over);
        let mut starts = Vec::new();
        while let Some(next) = (0..self.steps.len()).min_by_key(|index| self.steps[*index].0) {
            let at_ns = self.steps[next].0.max(self.world.now_ns());
            let (world, cluster, checks) = (self.world, &self.cluster, &self.checks);
            let is_seen = || checks.borrow().seen.is_some();
            world.run_until(at_ns - world.now_ns(), || world.has_violations() || cluster.has_news() || is_seen());
            let seen = self.checks.borrow_mut().seen.take();
            if let Some((what, node)) = seen.filter(|_| self.is_fine()) {
                let trouble = self.nemesis.strike(what, node);
                self.begin(trouble);
            }
            self.cluster.look_after(&mut starts);
            starts.iter().for_each(|(_, place)| self.checks.borrow_mut().on_ended(*place));
            self.steps.extend(starts.drain(..).map(|(at_ns, place)| (at_ns, Step::Start(place))));
            if !self.is_fine() {
                return false;
            }
            if self.world.now_ns() < at_ns {
                continue;
            }
            let (_, step) = self.steps.swap_remove(next);
            if matches!(step, Step::Over) {
                break;
            }
            self.take(step);
        }
        self.is_fine()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Next => {
                let every_ms = self.plan.fault_every_ms;
                let after_ms = 1 + self.nemesis.below(2 * every_ms);
                self.after(after_ms * MS, Step::Next);
                let trouble = self.nemesis.next(&self.checks.borrow());
                self.begin(trouble);
            }
            Step::End(fault) => self.end(&fault),
            Step::Start(place) => self.start(place),
            Step::Kill(node, for_ns) => self.begin(Trouble::Fault(Fault::Kill { node }, for_ns)),
            Step::Look => {
                self.checks.borrow_mut().look_at_snapshots();
                if self.plan.kind == Kind::Faults {
                    self.after(LOOK_EVERY_NS, Step::Look);
                }
            }
            Step::Roll(place) if place < self.cluster.nodes.len() => {
                self.begin(Trouble::Fault(Fault::Stop { node: place }, 500 * MS));
                self.after(2 * SECOND, Step::Roll(place + 1));
            }
            Step::Roll(_) | Step::Over => {}
        }
    }

    /// Nodes that don't notice the time meanwhile.
    fn disturbed(fault: &Fault) -> Option<usize> {
        match fault {
            Fault::Pause { node }
            | Fault::StandStill { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::HangingDisk { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn begin(&mut self, trouble: Trouble) {
        self.world.note(|| format!("*** {trouble:?}"));
        match trouble {
            Trouble::Fault(fault, for_ns) => {
                if let Some(node) = Run::disturbed(&fault) {
                    self.checks.borrow_mut().nodes[node].disturbances += 1;
                }
                if let Fault::StandStill { node, .. } = fault {
                    let view = &mut self.checks.borrow_mut().nodes[node];
                    view.stands_until_ns = view.stands_until_ns.max(self.world.now_ns() + for_ns);
                }
                if let Fault::FailingDisk { node, kind: 1 | 2, .. } = fault {
                    self.checks.borrow_mut().nodes[node].has_failed_to_sync = true;
                }
                if let Fault::Stop { node } = fault {
                    self.checks.borrow_mut().on_ended(node);
                }
                nemesis::begin(&mut self.cluster, &fault, for_ns);
                for (place, node) in self.cluster.nodes.iter().enumerate() {
                    if node.process.is_none() {
                        self.checks.borrow_mut().on_ended(place);
                    }
                }
                self.after(for_ns, Step::End(fault));
            }
            Trouble::Replace(node, for_ns) if self.checks.borrow().may_hurt(node, true) => {
                self.checks.borrow_mut().on_disk_lost(node);
                self.cluster.kill(node);
                let directory = self.cluster.replace_disk(node);
                self.checks.borrow_mut().on_replaced(node, directory);
                self.after(for_ns, Step::Start(node));
                self.take_leader_down();
            }
            Trouble::Rot(node) if self.checks.borrow().may_hurt(node, false) => {
                // What is there is whole so far.
                self.checks.borrow_mut().look_at_snapshots();
                let rotten = self.nemesis.rot(self.world, &self.checks.borrow(), node);
                if let Some(file) = rotten {
                    self.checks.borrow_mut().on_rotten(node, &file);
                    self.cluster.excuse(node, []);
                    self.begin(Trouble::Fault(Fault::Kill { node }, 300 * MS));
                    self.take_leader_down();
                }
            }
            Trouble::When(what) => self.checks.borrow_mut().wanted = Some(what),
            Trouble::Alone(for_ns) => {
                let leader = self.checks.borrow().leader();
                for node in 0..self.cluster.nodes.len() {
                    if leader.is_some() && leader != Some(node) && self.cluster.nodes[node].plan.is_controller {
                        self.begin(Trouble::Fault(Fault::Kill { node }, for_ns));
                    }
                }
            }
            Trouble::Rolling => self.after(0, Step::Roll(0)),
            Trouble::Replace(..) | Trouble::Rot(_) => {}
        }
    }

    /// Somebody has lost records: now and then there is an election before it has them again.
    fn take_leader_down(&mut self) {
        let leader = self.checks.borrow().leader();
        if let Some(node) = leader.filter(|_| self.nemesis.below(2) == 0) {
            let (after_ms, for_ms) = (self.nemesis.below(300), 300 + self.nemesis.below(2_000));
            self.after(after_ms * MS, Step::Kill(node, for_ms * MS));
        }
    }

    fn end(&mut self, fault: &Fault) {
        if let Some(node) = Run::disturbed(fault) {
            let now_ns = self.world.now_ns();
            let view = &mut self.checks.borrow_mut().nodes[node];
            view.disturbances = view.disturbances.saturating_sub(1);
            let is_of_disk = matches!(fault, Fault::SlowDisk { .. });
            view.awake_since_ns = if is_of_disk { now_ns + SLOW_OPERATION_NS } else { now_ns };
        }
        for node in nemesis::end(&mut self.cluster, fault) {
            self.start(node);
        }
    }

    /// Nothing is wrong any more; before long everything is as it should be.
    fn heal(&mut self) -> bool {
        self.world.heal_network();
        let now_ns = self.world.now_ns();
        for place in 0..self.cluster.nodes.len() {
            nemesis::mend_disks(self.world, &self.cluster, place);
            let node = &self.cluster.nodes[place];
            self.world.set_descriptors(node.host, ALL_DESCRIPTORS);
            if let Some(process) = node.process {
                self.world.resume(process);
            }
            if node.is_excused {
                self.cluster.kill(place);
            }
            self.start(place);
            let view = &mut self.checks.borrow_mut().nodes[place];
            let awake_since_ns = if view.disturbances > 0 { now_ns + SLOW_OPERATION_NS } else { now_ns };
            (view.disturbances, view.awake_since_ns) = (0, awake_since_ns.max(view.stands_until_ns));
        }
        self.world.note(|| "nothing is wrong any more".to_owned());
        self.known.is_over.set(true);
        let known = self.known.clone();
        let changer = self.world.start(self.cluster.clients, "changer", || clients::change_something(known));
        let wanted = self.checks.borrow().committed.end();
        let deadline_ns = self.world.now_ns() + RECOVERS_WITHIN_NS;
        let mut starts = Vec::new();
        loop {
            let (world, cluster) = (self.world, &self.cluster);
            let left_ns = deadline_ns.saturating_sub(world.now_ns()).min(LOOK_EVERY_NS);
            world.run_until(left_ns, || world.has_violations() || cluster.has_news());
            self.cluster.look_after(&mut starts);
            starts.clear();
            for place in 0..self.cluster.nodes.len() {
                if self.cluster.nodes[place].process.is_none() {
                    self.start(place);
                }
            }
            if !self.is_fine() {
                return false;
            }
            let is_changed = self.world.exit(changer).is_some();
            let behind = self.checks.borrow().behind(wanted);
            if is_changed && behind.is_none() {
                break;
            }
            if self.world.now_ns() >= deadline_ns {
                if !self.checks.borrow().has_possible_majority() {
                    return true;
                }
                let what = if is_changed { "" } else { "nothing can be changed, " };
                let state = self.checks.borrow().describe();
                let behind = behind.unwrap_or_default();
                self.world.add_violation(format!("nothing is wrong, and yet {what}{behind}\n{state}"));
                return false;
            }
        }
        self.checks.borrow_mut().look_at_snapshots();
        self.checks.borrow_mut().compare_all();
        self.is_fine()
    }
}
