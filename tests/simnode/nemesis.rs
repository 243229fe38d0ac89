//! What goes wrong in a run.

use std::path::Path;

use ringlog_ring::sim::{Control, DiskFault, DiskOperation, HostId, Link, SECOND};

use crate::cluster::Cluster;

/// EIO.
const EIO: i32 = 5;
/// How full a disk gets: nothing more fits.
const FULL_BYTES: u64 = 1;

/// A kind of fault. Nodes are named by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum Fault {
    /// SIGKILL.
    Kill { node: usize },
    /// SIGKILL, all nodes.
    KillAll,
    /// The host's power goes.
    PowerOff { node: usize },
    /// The power of all hosts goes.
    PowerOffAll,
    /// SIGTERM.
    Stop { node: usize },
    /// SIGSTOP.
    Pause { node: usize },
    /// One core stands still.
    StandStill { node: usize, core: usize },
    /// Nothing passes from one node to another.
    Cut { from: usize, to: usize, both_ways: bool },
    /// Nothing passes between a node and all others, or clients as well.
    Isolate { node: usize, from_clients: bool },
    /// All connections of a node are reset.
    Reset { node: usize },
    /// Nothing passes between a broker and other brokers that aren't controllers.
    PartFromBrokers { node: usize },
    /// Segments to and from a node get lost.
    Lossy { node: usize, permille: u64 },
    /// A disk takes longer.
    SlowDisk { node: usize, directory: usize, times: u64 },
    /// Nothing that a disk is asked for ends.
    HangingDisk { node: usize, directory: usize },
    /// Operations fail: writes, syncs, reads or names.
    FailingDisk { node: usize, directory: usize, kind: usize },
    /// Nothing more fits.
    FullDisk { node: usize, directory: usize },
    /// Few descriptors are left.
    FewDescriptors { node: usize, spare: usize },
}

impl Fault {
    /// Whether power fails.
    pub fn takes_power(&self) -> bool {
        matches!(self, Fault::PowerOff { .. } | Fault::PowerOffAll)
    }

    /// Whether an answer may get lost without the end of its connection being noticed.
    pub fn loses_answers(&self) -> bool {
        match self {
            Fault::PowerOff { .. }
            | Fault::PowerOffAll
            | Fault::Cut { .. }
            | Fault::Isolate { .. }
            | Fault::PartFromBrokers { .. }
            | Fault::Lossy { .. } => true,
            Fault::Kill { .. }
            | Fault::KillAll
            | Fault::Stop { .. }
            | Fault::Pause { .. }
            | Fault::StandStill { .. }
            | Fault::Reset { .. }
            | Fault::SlowDisk { .. }
            | Fault::HangingDisk { .. }
            | Fault::FailingDisk { .. }
            | Fault::FullDisk { .. }
            | Fault::FewDescriptors { .. } => false,
        }
    }

    /// The node whose disk it is about.
    pub fn disk(&self) -> Option<usize> {
        match self {
            Fault::SlowDisk { node, .. }
            | Fault::HangingDisk { node, .. }
            | Fault::FailingDisk { node, .. }
            | Fault::FullDisk { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Whether nodes end because of it.
    pub fn restarts_nodes(&self) -> bool {
        match self {
            Fault::Kill { .. }
            | Fault::KillAll
            | Fault::PowerOff { .. }
            | Fault::PowerOffAll
            | Fault::Stop { .. }
            | Fault::FailingDisk { .. }
            | Fault::FullDisk { .. }
            | Fault::FewDescriptors { .. } => true,
            Fault::Pause { .. }
            | Fault::StandStill { .. }
            | Fault::Cut { .. }
            | Fault::Isolate { .. }
            | Fault::Reset { .. }
            | Fault::PartFromBrokers { .. }
            | Fault::Lossy { .. }
            | Fault::SlowDisk { .. }
            | Fault::HangingDisk { .. } => false,
        }
    }
}

/// A fault and when it comes and goes.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Since the clients began.
    pub at_ns: u64,
    /// How long it lasts, or until the node is started again.
    pub for_ns: u64,
    /// What.
    pub fault: Fault,
}

/// A fault begins.
pub fn begin(cluster: &mut Cluster, fault: &Fault, for_ns: u64) {
    let world = cluster.world.clone();
    let disk =
        |cluster: &Cluster, node: usize, directory: usize| (cluster.nodes[node].host, format!("/d{}", directory + 1));
    match fault {
        Fault::Kill { node } => cluster.kill(*node),
        Fault::KillAll => (0..cluster.nodes.len()).for_each(|node| cluster.kill(node)),
        Fault::PowerOff { node } => cluster.power_off(*node),
        Fault::PowerOffAll => (0..cluster.nodes.len()).for_each(|node| cluster.power_off(node)),
        Fault::Stop { node } => cluster.stop(*node),
        Fault::Pause { node } => cluster.nodes[*node].process.into_iter().for_each(|process| world.pause(process)),
        Fault::StandStill { node, core } => {
            cluster.nodes[*node].process.into_iter().for_each(|process| world.stand_still(process, *core, for_ns));
        }
        Fault::Cut { .. } | Fault::Isolate { .. } | Fault::PartFromBrokers { .. } | Fault::Lossy { .. } => {
            set_links(cluster, fault, true);
        }
        Fault::Reset { node } => {
            let host = cluster.nodes[*node].host;
            let others = cluster.nodes.iter().map(|node| node.host).chain([cluster.clients]);
            let count: usize =
                others.filter(|other| *other != host).map(|other| world.reset_connections(host, other)).sum();
            world.note(|| format!("{count} connections of {} are reset", world.host_name(host)));
        }
        Fault::SlowDisk { node, directory, times } => {
            let (host, path) = disk(cluster, *node, *directory);
            world.note(|| format!("{}: {path} is {times} times slower", world.host_name(host)));
            world.set_slowness(host, Path::new(&path), *times);
        }
        Fault::HangingDisk { node, directory } => {
            let (host, path) = disk(cluster, *node, *directory);
            world.note(|| format!("{}: {path} hangs", world.host_name(host)));
            world.set_hanging(host, Path::new(&path), true);
        }
        Fault::FailingDisk { node, directory, kind } => {
            let (host, path) = disk(cluster, *node, *directory);
            cluster.excuse(*node, [*directory]);
            let fault = disk_fault(path, *kind);
            if fault.operations.contains(&DiskOperation::Sync) {
                // What a device didn't make safe when it was asked to, it may have lost, as at a power failure.
                cluster.lose_unflushed(world.now_ns() + for_ns);
            }
            world.fail_disk(host, fault);
        }
        Fault::FullDisk { node, directory } => {
            let (host, path) = disk(cluster, *node, *directory);
            cluster.excuse(*node, [*directory]);
            cluster.begin_shortage();
            world.note(|| format!("{}: {path} is full", world.host_name(host)));
            world.change_disk(host, Path::new(&path), |settings| settings.size_bytes = FULL_BYTES);
        }
        Fault::FewDescriptors { node, spare } => {
            cluster.excuse(*node, 0..cluster.nodes[*node].plan.log_dirs);
            cluster.begin_shortage();
            let Some(process) = cluster.nodes[*node].process else { return };
            let limit = world.open_descriptors(process) + spare;
            world.note(|| format!("{limit} descriptors for node {}", cluster.nodes[*node].plan.id));
            world.set_descriptors(cluster.nodes[*node].host, limit);
        }
    }
}

/// It is over. Says whether the nodes that it stopped, if any, are to be started.
pub fn end(cluster: &mut Cluster, fault: &Fault) -> Vec<usize> {
    let world = cluster.world.clone();
    match fault {
        Fault::Kill { node } | Fault::PowerOff { node } | Fault::Stop { node } => return vec![*node],
        Fault::KillAll | Fault::PowerOffAll => return (0..cluster.nodes.len()).collect(),
        Fault::Pause { node } => cluster.nodes[*node].process.into_iter().for_each(|process| world.resume(process)),
        Fault::StandStill { .. } | Fault::Reset { .. } => {}
        Fault::Cut { .. } | Fault::Isolate { .. } | Fault::PartFromBrokers { .. } | Fault::Lossy { .. } => {
            set_links(cluster, fault, false);
        }
        Fault::SlowDisk { node, .. } | Fault::HangingDisk { node, .. } => mend_disks(&world, cluster, *node),
        Fault::FailingDisk { node, .. } => {
            mend_disks(&world, cluster, *node);
            cluster.end_excuse(*node);
        }
        Fault::FullDisk { node, .. } => {
            mend_disks(&world, cluster, *node);
            cluster.end_excuse(*node);
            cluster.end_shortage();
        }
        Fault::FewDescriptors { node, .. } => {
            world.set_descriptors(cluster.nodes[*node].host, ALL_DESCRIPTORS);
            cluster.end_excuse(*node);
            cluster.end_shortage();
        }
    }
    Vec::new()
}

/// As many as anybody wants.
pub const ALL_DESCRIPTORS: usize = 100_000;

/// All disks of a node are as they should be.
pub fn mend_disks(world: &Control, cluster: &Cluster, node: usize) {
    let node = &cluster.nodes[node];
    world.mend_disks(node.host);
    for number in 1..=node.plan.log_dirs {
        let path = format!("/d{number}");
        let path = Path::new(&path);
        world.set_hanging(node.host, path, false);
        world.set_slowness(node.host, path, 0);
        world.change_disk(node.host, path, |settings| settings.size_bytes = 1 << 40);
    }
}

fn disk_fault(path: String, kind: usize) -> DiskFault {
    let (operations, permille, left) = match kind {
        0 => (vec![DiskOperation::Write], 1_000, Some(1)),
        1 => (vec![DiskOperation::Sync], 300, Some(2)),
        2 => (vec![DiskOperation::Read, DiskOperation::Write, DiskOperation::Sync], 1_000, None),
        _ => (vec![DiskOperation::Open, DiskOperation::Rename, DiskOperation::Look], 300, Some(3)),
    };
    DiskFault { under: path.into(), operations, errno: EIO, permille, left }
}

fn set_links(cluster: &Cluster, fault: &Fault, begins: bool) {
    let hosts: Vec<HostId> = cluster.nodes.iter().map(|node| node.host).collect();
    let others = |node: usize| hosts.iter().copied().filter(move |host| *host != cluster.nodes[node].host);
    let cut = Link { is_cut: begins, ..Link::default() };
    let set = |one: HostId, other: HostId, link: Link| cluster.world.set_link(one, other, link);
    match fault {
        Fault::Cut { from, to, both_ways } => {
            set(hosts[*from], hosts[*to], cut);
            if *both_ways {
                set(hosts[*to], hosts[*from], cut);
            }
        }
        Fault::Isolate { node, from_clients } => {
            let clients = from_clients.then_some(cluster.clients);
            for other in others(*node).chain(clients) {
                set(hosts[*node], other, cut);
                set(other, hosts[*node], cut);
            }
        }
        Fault::PartFromBrokers { node } => {
            let is_apart = |other: &&crate::cluster::Node| !other.plan.is_controller;
            let brokers = cluster.nodes.iter().filter(is_apart).map(|other| other.host);
            for other in brokers.filter(|other| *other != hosts[*node]) {
                set(hosts[*node], other, cut);
                set(other, hosts[*node], cut);
            }
        }
        Fault::Lossy { node, permille } => {
            let link = Link { loss_permille: if begins { *permille } else { 0 }, ..Link::default() };
            for other in others(*node).chain([cluster.clients]) {
                set(hosts[*node], other, link);
                set(other, hosts[*node], link);
            }
        }
        _ => {}
    }
}

/// The longest that anything may take to be as it should be once faults are over: a client whose node lost its power waits
/// for as long as it was told to wait for an answer, up to 60 s, before it tries again.
pub const HEALS_WITHIN_NS: u64 = 90 * SECOND;
