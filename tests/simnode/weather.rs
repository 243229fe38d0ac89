//! What most goes wrong in a run: weathers of many sorts at a time hide what only one of them shows.

use ringlog_ring::sim::{MS, SECOND, US};

use crate::nemesis::{Fault, Planned};
use crate::plan::{Draws, NodePlan};

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing goes wrong.
    Calm,
    /// A little of everything.
    Mixed,
    /// Power fails again and again, here and everywhere.
    Power,
    /// Processes are killed while their disks are slow.
    Kills,
    /// Nodes are stopped in order, and then the power goes.
    Stops,
    /// Disks fail, get full and lose what wasn't synced; descriptors are short.
    Disks,
    /// Nobody ends: what is sent is late or lost, and whoever waits for it tries again.
    Cuts,
    /// A broker falls silent, or a controller stands still: nothing else, so that it can be told who has to be fenced.
    Silence,
    /// A broker that was down comes back, and before long it is the only one.
    Succession,
    /// Brokers are stopped and started, one after the other.
    Rolling,
    /// A broker reaches the controllers, and is reached by clients, but not by other brokers: nothing else, so that it can be
    /// told who has to leave the replicas in sync.
    Parting,
    /// Connections are reset, and nothing else.
    Resets,
    /// Brokers' disks are slow, hang or are full; now and then a process is killed.
    Slow,
}

impl Weather {
    /// All of them.
    pub const ALL: [Weather; 13] = [
        Weather::Calm,
        Weather::Mixed,
        Weather::Power,
        Weather::Kills,
        Weather::Stops,
        Weather::Disks,
        Weather::Cuts,
        Weather::Silence,
        Weather::Succession,
        Weather::Rolling,
        Weather::Parting,
        Weather::Resets,
        Weather::Slow,
    ];
    /// As a seed draws them for partitions that have several replicas.
    pub(crate) const OF_REPLICAS: [Weather; 14] = [
        Weather::Calm,
        Weather::Kills,
        Weather::Kills,
        Weather::Cuts,
        Weather::Cuts,
        Weather::Stops,
        Weather::Rolling,
        Weather::Succession,
        Weather::Succession,
        Weather::Succession,
        Weather::Parting,
        Weather::Resets,
        Weather::Slow,
        Weather::Slow,
    ];
    /// As a seed draws them.
    pub(crate) const DRAWN: [Weather; 10] = [
        Weather::Mixed,
        Weather::Mixed,
        Weather::Mixed,
        Weather::Power,
        Weather::Power,
        Weather::Kills,
        Weather::Stops,
        Weather::Disks,
        Weather::Cuts,
        Weather::Silence,
    ];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Weather::Calm => "calm",
            Weather::Mixed => "mixed",
            Weather::Power => "power",
            Weather::Kills => "kills",
            Weather::Stops => "stops",
            Weather::Disks => "disks",
            Weather::Cuts => "cuts",
            Weather::Silence => "silence",
            Weather::Succession => "succession",
            Weather::Rolling => "rolling",
            Weather::Parting => "parting",
            Weather::Resets => "resets",
            Weather::Slow => "slow",
        }
    }

    /// Whether nothing happens that a lively broker might be fenced for.
    pub fn is_watched(self) -> bool {
        matches!(self, Weather::Silence | Weather::Parting | Weather::Resets)
    }
}

/// How long somebody is silent: longer than a session, than its end may take to be seen, and than that to be told.
pub(crate) const SILENT_NS: u64 = 12 * SECOND;
const SILENCE_LASTS_NS: u64 = 16 * SECOND;

/// Where a fault may strike.
struct Target {
    node: usize,
    other: usize,
    directory: usize,
}

/// The faults of a run, in the order of time, and how long it lasts.
pub(crate) fn faults(draws: &mut Draws, weather: Weather, nodes: &[NodePlan], lasts_ns: u64) -> (Vec<Planned>, u64) {
    let count = match weather {
        Weather::Calm => 0,
        Weather::Silence => return silence(draws, nodes),
        Weather::Succession => return succession(draws, nodes),
        Weather::Rolling => return rolling(draws, nodes),
        Weather::Parting => return parted(draws, nodes),
        Weather::Resets => return (resets(draws, nodes, lasts_ns), lasts_ns),
        Weather::Slow => return (slow(draws, nodes, lasts_ns), lasts_ns),
        Weather::Mixed => draws.one(&[0, 1, 2, 3, 5, 8]),
        Weather::Power | Weather::Kills | Weather::Disks | Weather::Cuts => draws.one(&[2, 4, 8]),
        Weather::Stops => draws.one(&[1, 2, 4]),
    };
    let mut faults = Vec::new();
    for _ in 0..count {
        let node = draws.0.below(nodes.len() as u64) as usize;
        let other = draws.0.below(nodes.len() as u64) as usize;
        let directory = draws.0.below(nodes[node].log_dirs as u64) as usize;
        let at_ns = draws.0.below(lasts_ns);
        let target = Target { node, other, directory };
        let (fault, for_ns) = match weather {
            Weather::Mixed
            | Weather::Calm
            | Weather::Silence
            | Weather::Succession
            | Weather::Rolling
            | Weather::Parting
            | Weather::Resets
            | Weather::Slow => {
                (any(draws, &target), draws.one(&[200 * US, 20 * MS, 300 * MS, SECOND, 3 * SECOND, 6 * SECOND]))
            }
            Weather::Power => {
                if draws.yes(50) {
                    // What is written, or waits to be synced, is much.
                    faults.extend(slowness(draws, nodes, node, at_ns));
                }
                (power_off(draws, node, 60), draws.one(&[20 * MS, 300 * MS]))
            }
            Weather::Kills => {
                faults.extend(slowness(draws, nodes, node, at_ns));
                let fault = if draws.yes(50) { Fault::KillAll } else { Fault::Kill { node } };
                (fault, draws.one(&[20 * MS, 300 * MS]))
            }
            Weather::Disks => failing(draws, &target),
            Weather::Cuts => (parting(draws, &target), draws.one(&[20 * MS, 300 * MS, SECOND, 3 * SECOND])),
            Weather::Stops => {
                let for_ns = draws.one(&[2, 4]) * SECOND;
                if draws.yes(80) {
                    // Right in the middle of it, or when it has ended.
                    let (least_ms, most_ms) = (draws.one(&[0, 500]), draws.one(&[700, for_ns / MS]));
                    let at_ns = at_ns + draws.between(least_ms, most_ms) * MS;
                    faults.push(Planned { at_ns, for_ns: 20 * MS, fault: Fault::PowerOff { node } });
                }
                if draws.yes(60) {
                    // In its next life.
                    let at_ns = at_ns + for_ns + draws.between(500, 3_000) * MS;
                    faults.push(Planned { at_ns, for_ns: 20 * MS, fault: power_off(draws, node, 50) });
                }
                (Fault::Stop { node }, for_ns)
            }
        };
        faults.push(Planned { at_ns, for_ns, fault });
    }
    faults.sort_by_key(|planned| planned.at_ns);
    (faults, lasts_ns)
}

fn power_off(draws: &mut Draws, node: usize, all_of_a_hundred: u64) -> Fault {
    if draws.yes(all_of_a_hundred) { Fault::PowerOffAll } else { Fault::PowerOff { node } }
}

/// What is under way at a disk when its node is killed: much, since it is slow, or all, since it hangs.
fn slowness(draws: &mut Draws, nodes: &[NodePlan], node: usize, killed_at_ns: u64) -> Vec<Planned> {
    let (before_ns, hangs) = (draws.one(&[100, 400, 1_000]) * MS, draws.yes(40));
    let times = draws.one(&[10, 100]);
    let slow = |directory| match hangs {
        true => Fault::HangingDisk { node, directory },
        false => Fault::SlowDisk { node, directory, times },
    };
    let planned = |directory| Planned {
        at_ns: killed_at_ns.saturating_sub(before_ns),
        for_ns: before_ns + MS,
        fault: slow(directory),
    };
    (0..nodes[node].log_dirs).map(planned).collect()
}

fn failing(draws: &mut Draws, target: &Target) -> (Fault, u64) {
    let Target { node, directory, .. } = *target;
    let fault = match draws.0.below(20) {
        0..=7 => Fault::FailingDisk { node, directory, kind: draws.0.below(4) as usize },
        8..=10 => Fault::FullDisk { node, directory },
        11..=12 => Fault::FewDescriptors { node, spare: draws.0.below(6) as usize },
        13 => Fault::SlowDisk { node, directory, times: draws.one(&[10, 100]) },
        _ => return (power_off(draws, node, 30), draws.one(&[20 * MS, 300 * MS])),
    };
    (fault, draws.one(&[300 * MS, SECOND, 3 * SECOND]))
}

fn parting(draws: &mut Draws, target: &Target) -> Fault {
    let Target { node, other, directory } = *target;
    match draws.0.below(10) {
        0..=4 => Fault::Isolate { node, from_clients: draws.yes(80) },
        5 if node != other => Fault::Cut { from: node, to: other, both_ways: draws.yes(50) },
        5 | 6 => Fault::Lossy { node, permille: draws.one(&[10, 200]) },
        7 => Fault::Pause { node },
        8 => Fault::HangingDisk { node, directory },
        _ => Fault::StandStill { node, core: draws.0.below(5) as usize },
    }
}

/// One thing, after a while in which everything was as it should be.
fn silence(draws: &mut Draws, nodes: &[NodePlan]) -> (Vec<Planned>, u64) {
    let places = |is_it: fn(&NodePlan) -> bool| -> Vec<usize> {
        nodes.iter().enumerate().filter(|(_, node)| is_it(node)).map(|(place, _)| place).collect()
    };
    let brokers = places(|node| !node.is_controller);
    let controllers = places(|node| !node.is_broker);
    let at_ns = draws.between(500, 2_000) * MS;
    let (fault, for_ns) = match controllers.is_empty() || draws.yes(50) {
        true => {
            let node = draws.one(&brokers);
            let fault = match draws.0.below(3) {
                0 => Fault::Kill { node },
                1 => Fault::Pause { node },
                _ => Fault::Isolate { node, from_clients: draws.yes(50) },
            };
            (fault, SILENT_NS)
        }
        // Longer than a session.
        false => (Fault::Pause { node: draws.one(&controllers) }, draws.one(&[2, 5, 8]) * SECOND),
    };
    (vec![Planned { at_ns, for_ns, fault }], SILENCE_LASTS_NS)
}

fn brokers(nodes: &[NodePlan]) -> Vec<usize> {
    nodes.iter().enumerate().filter(|(_, node)| node.is_broker).map(|(place, _)| place).collect()
}

/// Who has missed something leads next, if it may.
fn succession(draws: &mut Draws, nodes: &[NodePlan]) -> (Vec<Planned>, u64) {
    let brokers = brokers(nodes);
    let mut faults = Vec::new();
    let mut at_ns = draws.between(300, 2_000) * MS;
    for _ in 0..draws.one(&[1, 2, 2]) {
        let successor = draws.one(&brokers);
        let down_ns = draws.one(&[500, 1_500, 4_000]) * MS;
        faults.push(Planned { at_ns, for_ns: down_ns, fault: Fault::Kill { node: successor } });
        // While it starts, catches up, or has just done so.
        let most_ms = draws.one(&[50, 300, 1_500]);
        let mut gone_at_ns = at_ns + down_ns + draws.between(0, most_ms) * MS;
        let others: Vec<usize> = brokers.iter().copied().filter(|other| *other != successor).collect();
        // A quorum has to be left, or nobody is elected.
        let alone: Vec<usize> = others.iter().copied().filter(|other| !nodes[*other].is_controller).collect();
        let gone = if alone.len() < others.len() { vec![draws.one(&others)] } else { alone };
        for node in gone {
            faults.push(Planned {
                at_ns: gone_at_ns,
                for_ns: draws.between(1_000, 5_000) * MS,
                fault: Fault::Kill { node },
            });
            gone_at_ns += draws.one(&[0, 0, 30, 800]) * MS;
        }
        at_ns = gone_at_ns + draws.between(1_000, 7_000) * MS;
    }
    faults.sort_by_key(|planned| planned.at_ns);
    (faults, at_ns)
}

fn rolling(draws: &mut Draws, nodes: &[NodePlan]) -> (Vec<Planned>, u64) {
    let mut at_ns = draws.between(300, 1_500) * MS;
    let mut faults = Vec::new();
    for node in brokers(nodes) {
        let for_ns = draws.between(500, 3_000) * MS;
        faults.push(Planned { at_ns, for_ns, fault: Fault::Stop { node } });
        at_ns += for_ns + draws.between(0, 3_000) * MS;
    }
    (faults, at_ns)
}

/// So long nothing passes between a broker and others.
const PARTED_NS: u64 = 16 * SECOND;

fn parted(draws: &mut Draws, nodes: &[NodePlan]) -> (Vec<Planned>, u64) {
    let alone: Vec<usize> = brokers(nodes).into_iter().filter(|place| !nodes[*place].is_controller).collect();
    let at_ns = draws.between(500, 2_000) * MS;
    let fault = Fault::PartFromBrokers { node: draws.one(&alone) };
    (vec![Planned { at_ns, for_ns: PARTED_NS, fault }], at_ns + PARTED_NS)
}

fn resets(draws: &mut Draws, nodes: &[NodePlan], lasts_ns: u64) -> Vec<Planned> {
    let reset = |draws: &mut Draws| Planned {
        at_ns: draws.0.below(lasts_ns),
        for_ns: MS,
        fault: Fault::Reset { node: draws.0.below(nodes.len() as u64) as usize },
    };
    let mut faults: Vec<Planned> = (0..draws.one(&[3, 10, 30])).map(|_| reset(draws)).collect();
    faults.sort_by_key(|planned| planned.at_ns);
    faults
}

fn slow(draws: &mut Draws, nodes: &[NodePlan], lasts_ns: u64) -> Vec<Planned> {
    let brokers = brokers(nodes);
    let mut faults = Vec::new();
    for _ in 0..draws.one(&[2, 4, 6]) {
        let node = draws.one(&brokers);
        // Of a controller the first directory holds the metadata log.
        let first = usize::from(nodes[node].is_controller && nodes[node].log_dirs > 1);
        let directory = draws.between(first as u64, nodes[node].log_dirs as u64 - 1) as usize;
        let at_ns = draws.0.below(lasts_ns);
        let for_ns = draws.one(&[500, 2_000, 4_000]) * MS;
        let is_metadata = nodes[node].is_controller && directory == 0;
        let fault = match draws.0.below(10) {
            0..=4 => Fault::SlowDisk { node, directory, times: draws.one(&[10, 100, 300]) },
            5..=6 => Fault::HangingDisk { node, directory },
            7..=8 if !is_metadata => Fault::FullDisk { node, directory },
            _ => Fault::Kill { node },
        };
        faults.push(Planned { at_ns, for_ns, fault });
    }
    faults.sort_by_key(|planned| planned.at_ns);
    faults
}

fn any(draws: &mut Draws, target: &Target) -> Fault {
    let Target { node, other, directory } = *target;
    match draws.0.below(21) {
        0..=3 => Fault::Kill { node },
        4..=7 => Fault::PowerOff { node },
        8 => Fault::PowerOffAll,
        9 => Fault::KillAll,
        10 => Fault::Stop { node },
        11 => Fault::Pause { node },
        12 => Fault::StandStill { node, core: draws.0.below(5) as usize },
        13 if node != other => Fault::Cut { from: node, to: other, both_ways: draws.yes(50) },
        13 | 14 => Fault::Isolate { node, from_clients: draws.yes(50) },
        15 => Fault::Lossy { node, permille: draws.one(&[10, 200]) },
        16 => Fault::SlowDisk { node, directory, times: draws.one(&[10, 100]) },
        17 => Fault::HangingDisk { node, directory },
        18 => Fault::FailingDisk { node, directory, kind: draws.0.below(4) as usize },
        19 => Fault::FullDisk { node, directory },
        _ => Fault::FewDescriptors { node, spare: draws.0.below(6) as usize },
    }
}
