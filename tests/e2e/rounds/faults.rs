//! What goes wrong in a round, and how it is mended.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::dice::Dice;
use super::world::World;

/// A fault and its victims, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of one.
    Kill(usize),
    /// `kill -9` of all.
    KillAll,
    /// SIGSTOP.
    Pause(usize),
    /// SIGTERM, and started again.
    Stop(usize),
    /// Two don't hear each other; clients hear both.
    Cut(usize, usize),
    /// The second doesn't hear the first.
    CutOneWay(usize, usize),
    /// One hears none of the others, clients hear it.
    CutFromNodes(usize),
    /// No cable.
    Isolate(usize),
    /// A slow link, with losses.
    Slow(usize),
    /// A cable that is out and in again and again.
    Flaky(usize),
    /// No room on the disk.
    DiskFull(usize),
    /// The file system of the partitions fails, and loses what wasn't on the device.
    DiskFails(usize),
    /// Killed, and everything of its partitions gone when it comes back.
    DiskLost(usize),
}

impl Fault {
    /// For the summary.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill(_) => "kill",
            Fault::KillAll => "kill-all",
            Fault::Pause(_) => "pause",
            Fault::Stop(_) => "stop",
            Fault::Cut(..) => "cut",
            Fault::CutOneWay(..) => "cut-one-way",
            Fault::CutFromNodes(_) => "cut-from-nodes",
            Fault::Isolate(_) => "isolate",
            Fault::Slow(_) => "slow",
            Fault::Flaky(_) => "flaky",
            Fault::DiskFull(_) => "disk-full",
            Fault::DiskFails(_) => "disk-fails",
            Fault::DiskLost(_) => "disk-lost",
        }
    }

    fn victim(self) -> Option<usize> {
        match self {
            Fault::KillAll => None,
            Fault::Cut(one, _) | Fault::CutOneWay(one, _) => Some(one),
            Fault::Kill(one)
            | Fault::Pause(one)
            | Fault::Stop(one)
            | Fault::CutFromNodes(one)
            | Fault::Isolate(one)
            | Fault::Slow(one)
            | Fault::Flaky(one)
            | Fault::DiskFull(one)
            | Fault::DiskFails(one)
            | Fault::DiskLost(one) => Some(one),
        }
    }

    fn is_of_the_network(self) -> bool {
        use Fault::{Cut, CutFromNodes, CutOneWay, Flaky, Isolate, Slow};
        matches!(self, Cut(..) | CutOneWay(..) | CutFromNodes(_) | Isolate(_) | Slow(_) | Flaky(_))
    }

    /// Whether a replica may lose what it had: then all the others have to stay as they are.
    fn is_destructive(self) -> bool {
        matches!(self, Fault::DiskFails(_) | Fault::DiskLost(_))
    }

    /// Whether both may be at the same time: neither of them keeps the other from being healed, or replicas from each other.
    fn goes_with(self, other: Fault) -> bool {
        let both_of_the_network = self.is_of_the_network() && other.is_of_the_network();
        let none_of_the_network = !self.is_of_the_network() && !other.is_of_the_network();
        let kills_all = self == Fault::KillAll || other == Fault::KillAll;
        let is_destructive = self.is_destructive() || other.is_destructive();
        !(is_destructive
            || both_of_the_network
            || none_of_the_network && (kills_all || self.victim() == other.victim()))
    }

    fn draw(dice: &mut Dice, victim: usize, count: usize, has_disks: bool) -> Fault {
        let other = (victim + 1 + dice.below(count - 1)) % count;
        let faults = [
            Fault::Kill(victim),
            Fault::Kill(victim),
            Fault::KillAll,
            Fault::Pause(victim),
            Fault::Pause(victim),
            Fault::Stop(victim),
            Fault::Cut(victim, other),
            Fault::CutOneWay(victim, other),
            Fault::CutFromNodes(victim),
            Fault::Isolate(victim),
            Fault::Slow(victim),
            Fault::Flaky(victim),
            Fault::DiskLost(victim),
            Fault::DiskFull(victim),
            Fault::DiskFails(victim),
        ];
        // The last two need disks.
        dice.pick(&faults[..faults.len() - if has_disks { 0 } else { 2 }])
    }

    /// Makes it so.
    pub fn apply(self, world: &mut World<'_>, dice: &mut Dice) -> Result<()> {
        let network = world.network;
        match self {
            Fault::Kill(victim) => world.kill(victim),
            Fault::KillAll => (0..world.len()).try_for_each(|place| world.kill(place)),
            Fault::Pause(victim) if world.is_running(victim)? => world.node(victim)?.pause(),
            Fault::Stop(victim) if world.is_running(victim)? => world.node(victim)?.ask_to_stop(),
            Fault::Pause(_) | Fault::Stop(_) => Ok(()),
            Fault::Cut(one, other) => network.cut(one, other).and_then(|()| network.cut(other, one)),
            Fault::CutOneWay(from, to) => network.cut(from, to),
            Fault::CutFromNodes(victim) => others(world, victim)
                .try_for_each(|other| network.cut(victim, other).and_then(|()| network.cut(other, victim))),
            Fault::Isolate(victim) => network.unplug(victim),
            Fault::Slow(victim) => {
                let (kilobits_per_s, latency_ms) = dice.pick(&[(300, 300), (1000, 100), (3000, 50)]);
                network.slow(victim, kilobits_per_s, latency_ms)
            }
            Fault::Flaky(victim) => (0..3 + dice.below(4)).try_for_each(|_| {
                network.unplug(victim)?;
                thread::sleep(Duration::from_millis(50 + dice.below(300) as u64));
                network.plug(victim)?;
                thread::sleep(Duration::from_millis(50 + dice.below(300) as u64));
                Ok(())
            }),
            Fault::DiskFull(victim) => {
                world.may_end(victim);
                world.disk(victim).context("a disk")?.fill()
            }
            Fault::DiskFails(victim) => {
                world.may_end(victim);
                world.disk(victim).context("a disk")?.fail()
            }
            Fault::DiskLost(victim) => {
                world.kill(victim)?;
                world.empty(victim)
            }
        }
    }

    /// Undoes it; nodes that don't run are started afterwards.
    pub fn heal(self, world: &mut World<'_>) -> Result<()> {
        let network = world.network;
        match self {
            Fault::Kill(_) | Fault::KillAll | Fault::Stop(_) | Fault::Flaky(_) | Fault::DiskLost(_) => Ok(()),
            Fault::Pause(victim) if world.is_running(victim)? => world.node(victim)?.resume(),
            Fault::Pause(_) => Ok(()),
            Fault::Cut(one, other) => network.mend(one, other).and_then(|()| network.mend(other, one)),
            Fault::CutOneWay(from, to) => network.mend(from, to),
            Fault::CutFromNodes(victim) => others(world, victim)
                .try_for_each(|other| network.mend(victim, other).and_then(|()| network.mend(other, victim))),
            Fault::Isolate(victim) => network.plug(victim),
            Fault::Slow(victim) => network.fast(victim),
            Fault::DiskFull(victim) => world.disk(victim).context("a disk")?.free(),
            Fault::DiskFails(victim) => {
                world.kill(victim)?;
                world.disk(victim).context("a disk")?.mend()
            }
        }
    }
}

fn others(world: &World<'_>, victim: usize) -> impl Iterator<Item = usize> + use<> {
    (0..world.len()).filter(move |place| *place != victim)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Fault::KillAll => f.write_str(name),
            Fault::Cut(one, other) | Fault::CutOneWay(one, other) => write!(f, "{name} {} {}", one + 1, other + 1),
            fault => write!(f, "{name} {}", fault.victim().map_or(0, |victim| victim + 1)),
        }
    }
}

/// The faults of a round: one, or two that go together. `active` is where the active controller is, if that is known.
pub fn draw(dice: &mut Dice, count: usize, has_disks: bool, active: Option<usize>) -> Vec<Fault> {
    let any = dice.below(count);
    let victim = if dice.once_in(3) { active.unwrap_or(any) } else { any };
    let first = Fault::draw(dice, victim, count, has_disks);
    let wants_two = dice.once_in(3);
    let victim = (victim + dice.below(count)) % count;
    let second = Fault::draw(dice, victim, count, has_disks);
    if wants_two && first.goes_with(second) { vec![first, second] } else { vec![first] }
}
