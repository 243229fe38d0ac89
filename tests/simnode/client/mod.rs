//! Clients as simulated programs. They speak the real protocol over simulated sockets and keep no state of the nodes'.

pub mod admin;
pub mod changer;
pub mod committer;
pub mod connection;
pub mod consumer;
pub mod member;
pub mod producer;
pub mod pruner;
pub mod reborn;
pub mod routes;
pub mod rude;
pub mod watcher;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringlog_ring::sim;

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
    /// Nobody may be told of disks that fail unless some have.
    pub disks_fail: Cell<bool>,
}

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
                let (fine_since_ns, within_ns) = match self.plan.faults.is_empty() {
                    true => (0, ANSWERED_WHEN_CALM_WITHIN_NS),
                    false => (healed_at_ns, ANSWERED_WITHIN_NS),
                };
                if now_ns.saturating_sub(*after_ns) > fine_since_ns && *after_ns >= within_ns {
                    self.complain(format!("{who}: no answer for {} s, and nothing fails", after_ns / sim::SECOND));
                }
            }
            CallFault::Connection(_) => {}
        }
    }

    /// An answer has an error: whether that may be. `allowed` are those that the request may get at any time.
    pub fn judge_code(&self, who: &str, code: i16, allowed: &[i16]) {
        /// KAFKA_STORAGE_ERROR.
        const STORAGE: i16 = 56;
        sim::control().note(|| format!("{who} is told error {code}"));
        let is_right = allowed.contains(&code) || (code == STORAGE && self.disks_fail.get());
        if !is_right {
            self.complain(format!("{who}: error {code}"));
        }
    }

    /// The ledger of a partition.
    pub fn with_ledger<T>(&self, place: (usize, i32), work: impl FnOnce(&mut Ledger) -> T) -> T {
        let new = || {
            let topic = &self.plan.workload.topics[place.0];
            Ledger::of(topic.retention, topic.is_append_time)
        };
        work(self.ledgers.borrow_mut().entry(place).or_insert_with(new))
    }
}
