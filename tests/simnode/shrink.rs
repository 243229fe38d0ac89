//! A failing run made smaller: parts of its plan are left out one after the other, as long as it still fails.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::nemesis::Fault;
use crate::plan::Plan;
use crate::run::run;

/// The most runs that a seed is shrunk by.
const RUNS_MAX: usize = 40;

/// What can be left out of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node: only brokers that come last, with what goes wrong under them.
    Nodes,
    /// A topic, with those who write to it: only the last.
    Topics,
    /// Something that goes wrong.
    Faults,
    /// A producer.
    Producers,
    /// A reader.
    Consumers,
    /// Who commits offsets.
    Committers,
    /// A group.
    Groups,
    /// Who makes topics, who misbehaves, who deletes records, who changes settings, who makes a topic anew, who sends large
    /// batches, a crowd, who tries sequence numbers out, who moves replicas: by these numbers.
    Others,
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::Nodes, "nodes"),
    (Kind::Topics, "topics"),
    (Kind::Faults, "faults"),
    (Kind::Producers, "producers"),
    (Kind::Consumers, "consumers"),
    (Kind::Committers, "committers"),
    (Kind::Groups, "groups"),
    (Kind::Others, "others"),
];

/// Parts of one kind, by their places in the seed's plan: `faults:3,5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    kind: Kind,
    places: BTreeSet<usize>,
}

impl FromStr for Parts {
    type Err = String;

    fn from_str(text: &str) -> Result<Parts, String> {
        let (name, places) = text.split_once(':').ok_or("it reads like faults:3,5")?;
        let kind = KINDS.iter().find(|(_, other)| *other == name).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| format!("one of {:?}", KINDS.map(|(_, name)| name)))?;
        let places: Result<_, _> = places.split(',').map(str::parse).collect();
        Ok(Parts { kind, places: places.map_err(|fault| format!("{fault}"))? })
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        let places: Vec<_> = self.places.iter().map(usize::to_string).collect();
        write!(formatter, "{name}:{}", places.join(","))
    }
}

/// A plan without some parts.
pub fn leave_out(mut plan: Plan, parts: &[Parts]) -> Plan {
    // Faults first: what else goes may take some of them along, and their places are the seed's.
    let mut parts = parts.to_vec();
    parts.sort_by_key(|parts| parts.kind != Kind::Faults);
    for parts in &parts {
        leave_out_kind(&mut plan, parts);
    }
    plan
}

fn leave_out_kind(plan: &mut Plan, Parts { kind, places }: &Parts) {
    let goes = |place: usize| places.contains(&place);
    let least = places.first().copied().unwrap_or(usize::MAX);
    match kind {
        Kind::Nodes => {
            // All controllers, and as many brokers as there are to be replicas.
            let stays = plan.nodes.iter().rposition(|node| node.is_controller).map_or(0, |last| last + 1);
            let wanted = usize::try_from(plan.replicas).unwrap_or(1).max(1);
            let brokers = plan.nodes.iter().enumerate().filter(|(_, node)| node.is_broker).map(|(place, _)| place + 1);
            let enough = brokers.take(wanted).last().unwrap_or(0);
            plan.nodes.truncate(least.max(stays).max(enough));
            let nodes = plan.nodes.len();
            plan.faults.retain(|planned| touches(&planned.fault).into_iter().all(|node| node < nodes));
        }
        Kind::Topics => {
            plan.topics.truncate(least.max(1));
            let topics = plan.topics.len();
            plan.workload.topics.truncate(topics);
            plan.producers.retain(|producer| producer.topic < topics);
            plan.workload.groups.iter_mut().for_each(|group| group.topics.retain(|topic| *topic < topics));
            plan.workload.groups.retain(|group| !group.topics.is_empty());
        }
        Kind::Faults => retain(&mut plan.faults, goes),
        Kind::Producers => retain(&mut plan.producers, goes),
        Kind::Consumers => plan.consumers = plan.consumers.min(least),
        Kind::Committers => plan.committers = plan.committers.min(least),
        Kind::Groups => retain(&mut plan.workload.groups, goes),
        Kind::Others => {
            plan.has_admin &= !goes(0);
            plan.has_rude_client &= !goes(1);
            plan.workload.has_changer &= !goes(3);
            plan.workload.has_reborn_topic &= !goes(4);
            plan.workload.has_sizer &= !goes(5);
            plan.workload.has_prober &= !goes(7);
            plan.workload.crowd = plan.workload.crowd.filter(|_| !goes(6));
            plan.has_mover &= !goes(8);
            if goes(2) {
                plan.workload.topics.iter_mut().for_each(|topic| topic.is_pruned = false);
            }
        }
    }
}

fn retain<T>(parts: &mut Vec<T>, goes: impl Fn(usize) -> bool) {
    let mut place = 0;
    parts.retain(|_| {
        place += 1;
        !goes(place - 1)
    });
}

/// The nodes that a fault is about.
fn touches(fault: &Fault) -> Vec<usize> {
    match fault {
        Fault::KillAll | Fault::PowerOffAll => Vec::new(),
        Fault::Cut { from, to, .. } => vec![*from, *to],
        Fault::Kill { node }
        | Fault::PowerOff { node }
        | Fault::Stop { node }
        | Fault::Pause { node }
        | Fault::StandStill { node, .. }
        | Fault::Isolate { node, .. }
        | Fault::Reset { node }
        | Fault::PartFromBrokers { node }
        | Fault::Lossy { node, .. }
        | Fault::SlowDisk { node, .. }
        | Fault::HangingDisk { node, .. }
        | Fault::FailingDisk { node, .. }
        | Fault::FullDisk { node, .. }
        | Fault::FewDescriptors { node, .. } => vec![*node],
    }
}

/// How many parts of a kind there are.
fn count(plan: &Plan, kind: Kind) -> usize {
    match kind {
        Kind::Nodes => plan.nodes.len(),
        Kind::Topics => plan.topics.len(),
        Kind::Faults => plan.faults.len(),
        Kind::Producers => plan.producers.len(),
        Kind::Consumers => plan.consumers,
        Kind::Committers => plan.committers,
        Kind::Groups => plan.workload.groups.len(),
        Kind::Others => 9,
    }
}

/// What can be left out of a plan that fails so that it still does: all of a kind, or one after the other. Only so many
/// runs are made, and what a run fails with needn't be the same.
pub fn shrink(full: &Plan) -> Vec<Parts> {
    let mut left_out: Vec<Parts> = Vec::new();
    let mut runs = 0;
    let mut fails_without = |parts: &[Parts]| {
        runs += 1;
        runs <= RUNS_MAX && !run(&leave_out(full.clone(), parts), |_| ()).violations.is_empty()
    };
    for (kind, _) in KINDS {
        let first = usize::from(matches!(kind, Kind::Nodes | Kind::Topics));
        let all: BTreeSet<usize> = (first..count(full, kind)).collect();
        if all.is_empty() {
            continue;
        }
        let with = |places: BTreeSet<usize>| [left_out.clone(), vec![Parts { kind, places }]].concat();
        let whole = with(all.clone());
        if fails_without(&whole) {
            left_out = whole;
            continue;
        }
        let mut places = BTreeSet::new();
        // The last first: of some kinds only the last can go.
        for place in all.iter().rev().filter(|_| all.len() > 1) {
            let more: BTreeSet<usize> = places.iter().copied().chain([*place]).collect();
            if fails_without(&with(more.clone())) {
                places = more;
            }
        }
        if !places.is_empty() {
            left_out.push(Parts { kind, places });
        }
    }
    left_out
}
