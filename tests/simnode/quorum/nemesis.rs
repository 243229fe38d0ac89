//! What goes wrong, as it comes: often where the leader is.

use ringlog_ring::sim::{Control, MS};
use ringlog_types::Random;

use super::check::{Checks, Wanted};
use super::disk_log::{FOLDER, snapshot_name};
use super::plan::{Kind, QuorumPlan};
use crate::nemesis::Fault;

/// Where in a batch the leader's epoch stands.
const EPOCH_AT: u64 = 12;

/// Something that is done.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// Some time.
    Fault(Fault, u64),
    /// A node gets a new disk, and is started again after a while.
    Replace(usize, u64),
    /// A byte of a file turns.
    Rot(usize),
    /// Whoever does that next is cut off or taken down at once.
    When(Wanted),
    /// All controllers but the leader are taken down.
    Alone(u64),
    /// All nodes are started again, one after the other.
    Rolling,
}

/// See the module's text.
pub struct Nemesis {
    random: Random,
    kind: Kind,
    nodes: usize,
    controllers: usize,
    may_hurt: bool,
    hurts_often: bool,
}

impl Nemesis {
    /// Whose faults follow from the plan.
    pub fn new(plan: &QuorumPlan) -> Nemesis {
        let nodes = &plan.plan.nodes;
        Nemesis {
            random: Random::from_seed(plan.fault_seed),
            kind: plan.kind,
            nodes: nodes.len(),
            controllers: nodes.iter().filter(|node| node.is_controller).count(),
            may_hurt: plan.may_hurt,
            hurts_often: plan.hurts_often,
        }
    }

    /// What happens to whoever was waited for.
    pub fn strike(&mut self, what: Wanted, node: usize) -> Trouble {
        let isolated_ms = if self.kind == Kind::Elections { 50 + self.below(500) } else { 300 + self.below(3_000) };
        match (what, self.below(4)) {
            (Wanted::Voter, 0 | 1) => Trouble::Fault(Fault::Kill { node }, (1 + self.below(60)) * MS),
            (Wanted::Voter, _) => Trouble::Fault(Fault::PowerOff { node }, (1 + self.below(60)) * MS),
            (Wanted::Leader, 0) => Trouble::Fault(Fault::Kill { node }, (1 + self.below(1_000)) * MS),
            (Wanted::Leader, _) => Trouble::Fault(Fault::Isolate { node, from_clients: false }, isolated_ms * MS),
        }
    }

    /// Below that.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound.max(1))
    }

    /// Short times come more often than long ones.
    fn time_ns(&mut self, at_most_ms: u64) -> u64 {
        let at_most_ms = at_most_ms >> self.below(4);
        (1 + self.below(at_most_ms)) * MS
    }

    /// What is next.
    pub fn next(&mut self, checks: &Checks) -> Trouble {
        let any = self.below(self.nodes as u64) as usize;
        let leader = checks.leader();
        // The leader as often as all others together.
        let node = leader.filter(|_| self.below(2) == 0).unwrap_or(any);
        let other = (node + 1 + self.below(self.nodes.saturating_sub(1) as u64) as usize) % self.nodes;
        let controller = self.below(self.controllers as u64) as usize;
        let is_about_elections = self.kind == Kind::Elections;
        let alone_ms = if is_about_elections { 800 } else { 6_000 };
        let (times, permille) = ([10, 100, 1_000][self.below(3) as usize], [20, 200][self.below(2) as usize]);
        if self.hurts_often && self.below(2) == 0 {
            let rots = self.below(2) == 0;
            return if rots { Trouble::Rot(controller) } else { Trouble::Replace(controller, self.time_ns(1_000)) };
        }
        let fault = match self.below(if is_about_elections { 60 } else { 100 }) {
            0..4 => Fault::Kill { node },
            4..8 => return Trouble::When(Wanted::Voter),
            8..12 => return Trouble::When(Wanted::Leader),
            12..22 => Fault::PowerOff { node },
            22..26 => Fault::Stop { node },
            26..28 => return Trouble::Alone(self.time_ns(alone_ms)),
            28..33 => Fault::Pause { node },
            33..43 => Fault::Isolate { node, from_clients: self.below(4) == 0 },
            43..53 if node != other => Fault::Cut { from: node, to: other, both_ways: self.below(3) == 0 },
            53..57 => Fault::SlowDisk { node, directory: 0, times },
            57..60 => Fault::PowerOffAll,
            60..62 => Fault::KillAll,
            62..65 => Fault::StandStill { node, core: self.below(5) as usize },
            65..69 => Fault::Lossy { node, permille },
            69..72 => Fault::HangingDisk { node, directory: 0 },
            72..76 => Fault::FailingDisk { node, directory: 0, kind: self.below(4) as usize },
            76..78 => Fault::FullDisk { node, directory: 0 },
            78..79 => return Trouble::Rolling,
            79..80 => return Trouble::Alone(self.time_ns(alone_ms)),
            80..88 if self.may_hurt => return Trouble::Replace(controller, self.time_ns(3_000)),
            88..98 if self.may_hurt => return Trouble::Rot(controller),
            _ => Fault::Kill { node },
        };
        Trouble::Fault(fault, self.time_ns(if is_about_elections { 800 } else { 8_000 }))
    }

    /// Turns a bit of the log or of a snapshot that lies there since long. Says of which file, if there was one.
    pub fn rot(&mut self, world: &Control, checks: &Checks, node: usize) -> Option<String> {
        let view = &checks.nodes[node];
        let names = world.list(view.host, FOLDER.as_ref()).unwrap_or_default();
        let wanted = if self.below(3) == 0 { ".checkpoint" } else { ".log" };
        // The one that formatting writes is read by nobody later.
        let is_old = |name: &&String| snapshot_name(name).is_none_or(|(end, _)| end > 0);
        let mut names: Vec<&String> = names.iter().filter(|name| name.ends_with(wanted)).filter(is_old).collect();
        if wanted == ".checkpoint" {
            // Nor are others than the newest.
            names.sort();
            names = names.pop().into_iter().collect();
        }
        let name = *names.get(self.below(names.len() as u64) as usize)?;
        let len = match wanted {
            ".log" => checks.safe_bytes(node, name),
            _ => world.safe_file(view.host, format!("{FOLDER}/{name}").as_ref()).map_or(0, |file| file.len() as u64),
        };
        let (position, mask) = (self.below(len), 1 << self.below(8));
        // No checksum covers a batch's epoch.
        let batches = checks.batches_of(node, name);
        let position = match batches.get(self.below(2 * batches.len() as u64) as usize) {
            Some(begin) if *begin + EPOCH_AT + 4 <= len => begin + EPOCH_AT + self.below(4),
            _ => position,
        };
        let has_rotted = len > 0 && world.rot(view.host, format!("{FOLDER}/{name}").as_ref(), position, mask);
        has_rotted.then(|| name.clone())
    }
}
