//! Clients as simulated programs. They speak the real protocol over simulated sockets and keep no state of the nodes'.

pub mod admin;
pub mod changer;
pub mod committer;
pub mod connection;
pub mod consumer;
pub mod crowd;
pub mod last_reader;
pub mod maker;
pub mod member;
pub mod mover;
pub mod prober;
pub mod producer;
pub mod pruner;
pub mod reborn;
pub mod routes;
pub mod rude;
pub mod sizer;
pub mod watcher;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use ringlog_ring::sim::{self, HostId};

use crate::check::commits::Commits;
use crate::check::configs::Configs;
use crate::check::groups::Groups;
use crate::check::ledger::Ledger;
use crate::check::topics::Topics;
use crate::plan::Plan;
use connection::CallFault;

/// What all clients of a run share with it.
pub struct Shared {
    /// The run's plan.
    pub plan: Plan,
    /// Where brokers listen, by node.
    pub brokers: BTreeMap<i32, SocketAddr>,
    /// Where brokers run, by node.
    pub hosts: BTreeMap<i32, HostId>,
    /// What clients were told and saw, by topic and partition.
    pub ledgers: RefCell<BTreeMap<(usize, i32), Ledger>>,
    /// How far readers have come, by reader and partition.
    pub reached: RefCell<BTreeMap<(usize, i32), i64>>,
    /// Offsets that were committed.
    pub commits: RefCell<Commits>,
    /// Settings that were changed.
    pub configs: RefCell<Configs>,
    /// What members of groups were told.
    pub groups: RefCell<Groups>,
    /// Topics that were made and deleted meanwhile.
    pub topics: RefCell<Topics>,
    /// The wall clock when everything had been read at the end.
    pub read_at_ms: Cell<i64>,
    /// No more faults come, and all of them are healed: since then.
    pub healed_at_ns: Cell<Option<u64>>,
    /// Clients are to come to an end.
    pub is_over: Cell<bool>,
    /// The first fault comes then; nothing is wrong before.
    pub faults_from_ns: Cell<u64>,
    /// Log directories that something failed under, by node and place: nobody may be told that others failed.
    pub failed: RefCell<BTreeSet<(i32, usize)>>,
    /// Disks that are full, and nodes with too few descriptors, at the moment.
    pub shortages: Cell<usize>,
    /// How many of them there have been.
    pub shortages_begun: Cell<u64>,
    /// When a broker last lost its power, and with it what needn't be flushed.
    pub lost_power_ns: Cell<u64>,
    /// How many replicas partitions have at the end, by topic and partition.
    pub replicas: RefCell<BTreeMap<(usize, i32), usize>>,
    /// Where who knows less may come to lead: nobody can any more, as all replicas are in sync and nothing fails.
    pub is_settled: Cell<bool>,
}

/// KAFKA_STORAGE_ERROR.
const STORAGE: i16 = 56;

/// The longest that an answer may take once faults are healed. Longer than any wait that a request may ask for.
const ANSWERED_WITHIN_NS: u64 = 45 * sim::SECOND;

/// The longest that an answer may take that waits for nothing but disks, where nothing ever fails.
const ANSWERED_WHEN_CALM_WITHIN_NS: u64 = 5 * sim::SECOND;

impl Shared {
    /// What no run may show.
    pub fn complain(&self, text: String) {
        sim::control().add_violation(text);
    }

    /// A call failed: whether that may be.
    pub fn judge(&self, who: &str, fault: &CallFault) {
        let now_ns = sim::control().now_ns();
        sim::control().note(|| format!("{who} gets no answer: {fault:?}"));
        match fault {
            CallFault::Nonsense(text) => self.complain(format!("{who}: {text}")),
            CallFault::Timeout(after_ns) => {
                let healed_at_ns = self.healed_at_ns.get().unwrap_or(u64::MAX);
                if self.plan.are_resets_lost() {
                    // A node that was stopped, or that ended, may have said so in vain.
                    return;
                }
                let (fine_since_ns, within_ns) = match self.plan.faults.is_empty() {
                    true => (0, ANSWERED_WHEN_CALM_WITHIN_NS),
                    _ if self.plan.is_always_answered() => (0, ANSWERED_WITHIN_NS),
                    _ => (healed_at_ns, ANSWERED_WITHIN_NS),
                };
                if now_ns.saturating_sub(*after_ns) >= fine_since_ns && *after_ns >= within_ns {
                    self.complain(format!("{who}: no answer for {} s, and nothing fails", after_ns / sim::SECOND));
                }
            }
            CallFault::Connection(_) => {}
        }
    }

    /// Nothing has gone wrong yet.
    pub fn is_calm(&self) -> bool {
        sim::control().now_ns() < self.faults_from_ns.get()
    }

    /// An answer has an error: whether that may be. `allowed` are those that the request may get at any time.
    pub fn judge_code(&self, who: &str, code: i16, allowed: &[i16]) {
        self.judge_error(who, code, allowed, || !self.failed.borrow().is_empty());
    }

    /// The same for an error about a partition, from a node: of disks it may only speak where the one has failed that
    /// the partition lies on.
    pub fn judge_partition(&self, who: &str, code: i16, allowed: &[i16], address: SocketAddr, place: (usize, i32)) {
        self.judge_error(who, code, allowed, || self.may_be_offline(address, place));
    }

    fn judge_error(&self, who: &str, code: i16, allowed: &[i16], may_be_offline: impl Fn() -> bool) {
        sim::control().note(|| format!("{who} is told error {code}"));
        let is_right = allowed.contains(&code) || (code == STORAGE && may_be_offline());
        if !is_right {
            self.complain(format!("{who}: error {code}"));
        }
    }

    fn may_be_offline(&self, address: SocketAddr, (topic, partition): (usize, i32)) -> bool {
        let Some((id, _)) = self.brokers.iter().find(|(_, at)| **at == address) else { return false };
        let Some(node) = self.plan.nodes.iter().find(|node| node.id == *id) else { return false };
        let folder = format!("{}-{partition}", self.plan.topics[topic].name);
        let has_it = |directory: &str| {
            sim::control().list(self.hosts[id], Path::new(directory)).is_ok_and(|names| names.contains(&folder))
        };
        let failed = self.failed.borrow();
        let directories = node.directories();
        let holders: Vec<usize> = (0..directories.len()).filter(|place| has_it(&directories[*place])).collect();
        match holders.is_empty() || self.plan.has_mover {
            // It was to be made there, or has been moved from there since the answer.
            true => failed.iter().any(|(failed, _)| failed == id),
            false => holders.iter().any(|place| failed.contains(&(*id, *place))),
        }
    }

    /// The ledger of a partition.
    pub fn with_ledger<T>(&self, place: (usize, i32), work: impl FnOnce(&mut Ledger) -> T) -> T {
        let new = || {
            let topic = &self.plan.workload.topics[place.0];
            let mut ledger = Ledger::of(topic.retention, topic.is_append_time);
            if self.plan.is_unclean && !self.is_settled.get() {
                ledger.on_loss(u64::MAX);
            }
            ledger
        };
        work(self.ledgers.borrow_mut().entry(place).or_insert_with(new))
    }

    /// Whether a power failure may have taken records of a partition for which nothing was promised.
    pub fn may_have_lost(&self, topic: &str, partition: i32) -> bool {
        let number = self.plan.topics.iter().position(|it| it.name == topic);
        number.is_some_and(|number| self.with_ledger((number, partition), |ledger| ledger.may_have_lost()))
    }
}
