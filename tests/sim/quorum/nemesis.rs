//! What goes wrong, and how it is mended.

use ringlog_quorum::durable_mark::{self, DurableMark};
use ringlog_raft::{SnapshotFile, SnapshotId};
use ringlog_types::{Random, Uuid};

use super::device::Pace;
use super::network::Weather;
use super::plan::{Format, Kind, Plan};
use super::shared::Event;
use super::time::{MS, SECOND, Us};
use super::world::World;
use crate::disk::{Crash, Disk};

/// A fault ends, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// All links pass packets again.
    Links,
    /// A link between two groups comes and goes, so many times more.
    Flap { cut: Cut, left: u64 },
    /// The disk is as fast as it was, and has room.
    Disk { node: usize },
    /// The weather of the plan.
    Weather,
    /// The next node of a rolling restart, and whether in order.
    Rolling { next: usize, in_order: bool },
}

/// Which packets don't pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// To and from one node.
    Isolated(usize),
    /// To one node.
    Deaf(usize),
    /// From one node.
    Mute(usize),
    /// Between the nodes of the mask and the others.
    Split(u64),
    /// From one node to another.
    Link(usize, usize),
}

/// Everything that may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Crash,
    CrashStep,
    PowerOfTheDead,
    Stop,
    Rolling,
    AllDie,
    Pause,
    Cut,
    Flap,
    SlowLink,
    SlowDisk,
    FailingSync,
    FullDisk,
    Rot,
    Wipe,
    NewPort,
    Clock,
    Weather,
}

/// How often each happens, by weight.
const TROUBLES: &[(Trouble, u64)] = &[
    (Trouble::Crash, 14),
    (Trouble::CrashStep, 16),
    (Trouble::PowerOfTheDead, 6),
    (Trouble::Stop, 8),
    (Trouble::Rolling, 2),
    (Trouble::AllDie, 2),
    (Trouble::Pause, 8),
    (Trouble::Cut, 16),
    (Trouble::Flap, 4),
    (Trouble::SlowLink, 5),
    (Trouble::SlowDisk, 5),
    (Trouble::FailingSync, 4),
    (Trouble::FullDisk, 3),
    (Trouble::Rot, 6),
    (Trouble::Wipe, 4),
    (Trouble::NewPort, 3),
    (Trouble::Clock, 2),
    (Trouble::Weather, 4),
];

/// Those of a run that is about elections.
const ELECTION_TROUBLES: &[(Trouble, u64)] = &[
    (Trouble::Crash, 30),
    (Trouble::CrashStep, 30),
    (Trouble::PowerOfTheDead, 5),
    (Trouble::Stop, 20),
    (Trouble::Pause, 10),
    (Trouble::Cut, 20),
    (Trouble::SlowDisk, 3),
];

/// See the module's text.
pub(crate) struct Nemesis {
    random: Random,
    kind: Kind,
    is_over: bool,
    last_port_at: Us,
    /// Its disk is to be replaced as soon as that may happen.
    to_wipe: Option<usize>,
}

impl Nemesis {
    pub(crate) fn new(plan: &Plan) -> Nemesis {
        Nemesis { random: plan.stream("faults"), kind: plan.kind, is_over: false, last_port_at: 0, to_wipe: None }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Short times come more often than long ones.
    fn time(&mut self, at_most: Us) -> Us {
        let at_most = at_most >> self.below(4);
        1 + self.random.below(at_most)
    }

    fn trouble(&mut self) -> Trouble {
        let troubles = if self.kind == Kind::Elections { ELECTION_TROUBLES } else { TROUBLES };
        let mut left = self.random.below(troubles.iter().map(|(_, weight)| weight).sum());
        for (trouble, weight) in troubles {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *trouble,
            }
        }
        Trouble::Crash
    }
}

impl World {
    /// The leader as often as all others together.
    fn victim(&mut self) -> usize {
        let nodes = self.hosts.len() as u64;
        let any = self.nemesis.below(nodes) as usize;
        let leader = self.leader().filter(|_| self.nemesis.random.below(2) == 0);
        leader.unwrap_or(any)
    }

    /// A fault begins, and the next one is planned.
    pub(crate) fn on_fault_due(&mut self) {
        if self.nemesis.is_over {
            return;
        }
        let mean = self.shared.plan.fault_every_us;
        let after = 1 + self.nemesis.below(2 * mean);
        self.shared.post(after, Event::Fault);
        let node = self.victim();
        let trouble = self.nemesis.trouble();
        self.shared.note(node, || format!("*** {trouble:?}"));
        if let Some(node) = self.nemesis.to_wipe {
            self.wipe(node);
        }
        match trouble {
            Trouble::Crash => {
                let crash = self.any_crash();
                self.crash_for_a_while(node, crash);
            }
            Trouble::CrashStep => {
                let steps = 1 + self.nemesis.time(300);
                if let Some(process) = &self.hosts[node].process {
                    process.ring.crash_after(steps);
                }
            }
            Trouble::PowerOfTheDead => self.take_power_of_the_dead(),
            Trouble::Stop => self.stop(node),
            Trouble::Rolling => {
                let in_order = self.nemesis.below(2) == 0;
                self.shared.post(1, Event::Mend(Mend::Rolling { next: 0, in_order }));
            }
            Trouble::AllDie => {
                let crash = self.any_crash();
                (0..self.hosts.len()).for_each(|node| self.crash_for_a_while(node, crash));
            }
            Trouble::Pause => self.pause(node),
            Trouble::Cut | Trouble::Flap => self.cut_somewhere(node, trouble == Trouble::Flap),
            Trouble::SlowLink => {
                let (to, slow) = (self.nemesis.below(self.hosts.len() as u64) as usize, self.nemesis.time(800 * MS));
                self.shared.network.borrow_mut().set_slow(node, to, slow);
                let until = self.nemesis.time(5 * SECOND);
                self.shared.post(until, Event::Mend(Mend::Links));
            }
            Trouble::SlowDisk => {
                let sync_us = self.nemesis.time(2 * SECOND);
                self.hosts[node].device.pace.set(Pace { sync_us, ..self.shared.plan.pace });
                self.mend_disk_later(node);
            }
            Trouble::FailingSync => self.hosts[node].device.fails_sync.set(true),
            Trouble::FullDisk => {
                self.hosts[node].device.is_full.set(true);
                self.mend_disk_later(node);
            }
            Trouble::Rot => self.rot(node),
            Trouble::Wipe => self.wipe(node),
            Trouble::NewPort => self.change_port(node),
            Trouble::Clock => {
                let offset_ms = self.nemesis.below(600_000) as i64 - 300_000;
                self.hosts[node].clock.set_wall(offset_ms);
            }
            Trouble::Weather => self.change_weather(),
        }
    }

    fn any_crash(&mut self) -> Crash {
        if self.nemesis.below(3) == 0 { Crash::PowerLoss } else { Crash::Kill }
    }

    fn crash_for_a_while(&mut self, node: usize, crash: Crash) {
        if self.hosts[node].is_running() {
            self.crash(node, crash);
            self.on_process_ended(node);
        }
    }

    /// A process has ended, whatever made it end: somebody starts it again after a while.
    pub(crate) fn on_process_ended(&mut self, node: usize) {
        let after = if self.nemesis.is_over { 100 * MS } else { self.nemesis.time(8 * SECOND) };
        self.shared.post(after, Event::Start { node });
    }

    /// What a killed process left in caches goes with the power.
    fn take_power_of_the_dead(&mut self) {
        let dead: Vec<usize> = (0..self.hosts.len()).filter(|node| !self.hosts[*node].is_running()).collect();
        if let Some(node) = dead.get(self.nemesis.below(dead.len() as u64) as usize) {
            self.lose_power(*node);
        }
    }

    fn pause(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.is_running() && !host.is_paused {
            host.is_paused = true;
            let after = self.nemesis.time(6 * SECOND);
            self.shared.post(after, Event::Resume { node });
        }
    }

    fn cut_somewhere(&mut self, node: usize, flaps: bool) {
        let nodes = self.hosts.len() as u64;
        let cut = match self.nemesis.below(6) {
            0 | 1 => Cut::Isolated(node),
            2 => Cut::Deaf(node),
            3 => Cut::Mute(node),
            4 => Cut::Split(self.nemesis.below(1 << nodes)),
            _ => Cut::Link(node, self.nemesis.below(nodes) as usize),
        };
        self.set_cut(cut, true);
        if flaps {
            let left = 2 * self.nemesis.below(8);
            let after = self.nemesis.time(700 * MS);
            self.shared.post(after, Event::Mend(Mend::Flap { cut, left }));
        } else {
            let after = self.nemesis.time(10 * SECOND);
            self.shared.post(after, Event::Mend(Mend::Links));
        }
    }

    /// Cuts links between nodes; clients reach whom they want.
    pub(crate) fn set_cut(&mut self, cut: Cut, is_cut: bool) {
        let nodes = self.hosts.len();
        let mut network = self.shared.network.borrow_mut();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                let is_meant = match cut {
                    Cut::Isolated(node) => from == node || to == node,
                    Cut::Deaf(node) => to == node,
                    Cut::Mute(node) => from == node,
                    Cut::Split(mask) => (mask >> from & 1) != (mask >> to & 1),
                    Cut::Link(a, b) => (from, to) == (a, b),
                };
                if is_meant {
                    network.set_cut(from, to, is_cut);
                }
            }
        }
    }

    fn mend_disk_later(&mut self, node: usize) {
        let after = self.nemesis.time(5 * SECOND);
        self.shared.post(after, Event::Mend(Mend::Disk { node }));
    }

    fn change_weather(&mut self) {
        let mut weather = self.shared.plan.weather;
        match self.nemesis.below(4) {
            0 => weather.lost_permille = 50 + self.nemesis.below(300),
            1 => weather.doubled_permille = 100 + self.nemesis.below(400),
            2 => (weather.late_permille, weather.late_us) = (200, 1 + self.nemesis.time(2 * SECOND)),
            _ => weather.delay_us = (weather.delay_us.0, weather.delay_us.1 + self.nemesis.time(200 * MS)),
        }
        self.shared.network.borrow_mut().weather = weather;
        let after = self.nemesis.time(6 * SECOND);
        self.shared.post(after, Event::Mend(Mend::Weather));
    }

    pub(crate) fn on_mend(&mut self, mend: Mend) {
        match mend {
            Mend::Links => {
                let weather = self.shared.network.borrow().weather;
                self.shared.network.borrow_mut().heal(weather);
            }
            Mend::Flap { cut, left } if !self.nemesis.is_over => {
                self.set_cut(cut, left % 2 == 1);
                if left > 0 {
                    let after = self.nemesis.time(700 * MS);
                    self.shared.post(after, Event::Mend(Mend::Flap { cut, left: left - 1 }));
                }
            }
            Mend::Flap { .. } => {}
            Mend::Disk { node } => self.mend_disk(node),
            Mend::Weather if self.nemesis.is_over => {}
            Mend::Weather => self.shared.network.borrow_mut().weather = self.shared.plan.weather,
            Mend::Rolling { next, in_order } => self.roll_on(next, in_order),
        }
    }

    fn mend_disk(&mut self, node: usize) {
        let device = &self.hosts[node].device;
        device.pace.set(self.shared.plan.pace);
        device.is_full.set(false);
        device.fails_sync.set(false);
    }

    fn roll_on(&mut self, node: usize, in_order: bool) {
        if node >= self.hosts.len() || self.nemesis.is_over {
            return;
        }
        if in_order {
            self.stop(node);
        } else {
            self.crash_for_a_while(node, Crash::Kill);
        }
        let after = 500 * MS + self.nemesis.time(3 * SECOND);
        self.shared.post(after, Event::Mend(Mend::Rolling { next: node + 1, in_order }));
    }

    /// Whether a majority of the voters stays unhurt if this node is hurt, too.
    fn may_hurt(&self, node: usize) -> bool {
        let checks = self.shared.checks.borrow();
        let voters = checks.committed.present_voters();
        // While the voters change it isn't clear whose majority counts.
        if checks.nodes.iter().any(|view| view.is_running && view.log.voters() != voters) {
            return false;
        }
        let is_unhurt = |(id, directory): &(&i32, &Option<Uuid>)| {
            let place = checks.nodes.iter().position(|view| view.id == **id);
            place.is_some_and(|place| {
                let view = &checks.nodes[place];
                let is_same = directory.is_none_or(|directory| directory == view.directory);
                place != node && is_same && !view.is_damaged && !view.is_rebuilding && !view.is_wiped
            })
        };
        let is_voter = voters.holds(checks.nodes[node].id, checks.nodes[node].directory);
        !is_voter || voters.iter().filter(is_unhurt).count() > voters.len() / 2
    }

    /// Whether a voter whom others know by its id alone may come back without any memory. With its records go its vote
    /// and its epoch, of which nobody can tell it again; so this happens while the others have records, and all nodes
    /// know of the leader in office.
    fn may_forget(&self, node: usize) -> bool {
        let checks = self.shared.checks.borrow();
        let Some(epoch) = self.leader().filter(|leader| *leader != node).map(|leader| checks.nodes[leader].epoch)
        else {
            return false;
        };
        let mut others = checks.nodes.iter().enumerate().filter(|(other, view)| *other != node && view.is_controller);
        others.all(|(_, view)| view.log.end() > 0)
            && checks.nodes.iter().all(|view| view.acted_epoch <= epoch && (!view.is_running || view.epoch == epoch))
    }

    /// Bits turn in old bytes of the log, or in a snapshot. Never in what may be torn anyway: that is another matter.
    fn rot(&mut self, node: usize) {
        let host = &self.hosts[node];
        let is_settled = host.process.as_ref().is_none_or(|process| process.inboxes.is_loaded.get());
        if !self.shared.plan.may_rot || !is_settled || !self.may_hurt(node) {
            return;
        }
        let is_snapshot = self.nemesis.below(3) == 0;
        let place = if is_snapshot { self.place_in_snapshot(node) } else { self.place_in_log(node) };
        let Some((file, position)) = place else { return };
        let mask = 1 << self.nemesis.below(8);
        self.shared.note(node, || format!("byte {position} of {file} rots"));
        self.hosts[node].device.disk.borrow_mut().rot(&file, position, mask);
        self.shared.checks.borrow_mut().nodes[node].is_damaged = true;
        if self.nemesis.below(2) == 0 && self.hosts[node].is_running() {
            // Then somebody starts it again, who has seen that something is wrong.
            let crash = self.any_crash();
            self.crash_for_a_while(node, crash);
        }
    }

    fn place_in_snapshot(&mut self, node: usize) -> Option<(String, usize)> {
        let disk = self.hosts[node].device.disk.borrow();
        let is_snapshot = |name: &&str| {
            let parsed = SnapshotId::parse_file_name(name);
            parsed.is_some_and(|(id, state)| id != SnapshotId::BOOTSTRAP && state == SnapshotFile::Complete)
        };
        let files: Vec<&str> = disk.names().filter(is_snapshot).collect();
        let file = *files.get(self.nemesis.random.below(files.len() as u64) as usize)?;
        let len = disk.read(file)?.len() as u64;
        (len > 0).then(|| (file.to_owned(), self.nemesis.random.below(len) as usize))
    }

    fn place_in_log(&mut self, node: usize) -> Option<(String, usize)> {
        let disk = self.hosts[node].device.disk.borrow();
        let mark = disk.read(durable_mark::FILE_NAME).and_then(|bytes| DurableMark::from_json(bytes).ok())?;
        let checks = self.shared.checks.borrow();
        let places = checks.nodes[node].log.places_below(mark.durable_offset.0);
        let (file, position, len) = places.get(self.nemesis.random.below(places.len() as u64) as usize)?.clone();
        let position = position + self.nemesis.random.below(len) as usize;
        (disk.read(&file)?.len() > position).then_some((file, position))
    }

    /// The machine comes back with a new, empty disk.
    fn wipe(&mut self, node: usize) {
        let is_static = self.shared.plan.format == Format::Static;
        if !self.hosts[node].is_controller || !self.may_hurt(node) {
            return;
        }
        self.nemesis.to_wipe = (is_static && !self.may_forget(node)).then_some(node);
        if self.nemesis.to_wipe.is_some() {
            return;
        }
        if self.hosts[node].is_running() {
            self.crash(node, Crash::Kill);
        }
        self.shared.note(node, || "its disk is replaced".to_owned());
        *self.hosts[node].device.disk.borrow_mut() = Disk::default();
        let directory_id = Uuid::random(&mut self.nemesis.random);
        self.hosts[node].directory_id = directory_id;
        self.shared.checks.borrow_mut().on_wiped(node, directory_id);
        self.on_process_ended(node);
    }

    /// The machine moves: it comes back with another port, which the others have to learn.
    fn change_port(&mut self, node: usize) {
        let is_dynamic = matches!(self.shared.plan.format, Format::Dynamic { .. });
        let now = self.shared.now();
        if !is_dynamic || now - self.nemesis.last_port_at < 10 * SECOND || !self.hosts[node].is_running() {
            return;
        }
        self.nemesis.last_port_at = now;
        self.hosts[node].next_port += 1;
        self.stop(node);
    }

    /// Everything is mended, and stays so.
    pub(crate) fn heal(&mut self) {
        crate::trace::note(|| format!("{:4} *** all is mended", self.shared.now() / SECOND));
        self.nemesis.is_over = true;
        self.shared.network.borrow_mut().heal(Weather::CALM);
        for node in 0..self.hosts.len() {
            self.mend_disk(node);
            self.hosts[node].device.pace.set(Pace { read_us: 100, write_us: 200, sync_us: 1_000 });
            self.hosts[node].is_held_down = false;
            // Nobody moves any more.
            self.hosts[node].next_port = self.hosts[node].port;
            if let Some(process) = &self.hosts[node].process {
                process.ring.crash_after(u64::MAX);
            }
            self.shared.post(1, Event::Resume { node });
            // Whoever mended it has an eye on what is broken.
            let is_damaged = self.shared.checks.borrow().nodes[node].is_damaged;
            if is_damaged && self.hosts[node].is_running() {
                self.crash(node, Crash::Kill);
            }
            self.shared.post(50 * MS, Event::Start { node });
        }
    }
}
