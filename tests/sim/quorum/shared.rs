//! What everything in a run shares: time and what is to happen, streams of random numbers, the network, the checkers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlog_types::Random;

use super::check::Checks;
use super::device::Device;
use super::network::{Network, Packet, Place};
use super::plan::Plan;
use super::time::{Queue, Us};

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process may go on.
    Wake { node: usize, incarnation: u64 },
    /// A packet arrives.
    Deliver { from: Place, to: Place, packet: Box<Packet> },
    /// A machine has power, and its process is started.
    Start { node: usize },
    /// A process that was stopped (SIGSTOP) goes on.
    Resume { node: usize },
    /// The next fault.
    Fault,
    /// A fault ends, or goes on.
    Mend(super::nemesis::Mend),
    /// A client may do something.
    Client { client: usize, turn: u64 },
    /// The checkers look at everything.
    Watch,
}

/// See the module's text.
pub(crate) struct Shared {
    pub plan: Plan,
    now: Cell<Us>,
    queue: RefCell<Queue<Event>>,
    schedule: RefCell<Random>,
    pub workload: RefCell<Random>,
    pub network: RefCell<Network>,
    pub checks: RefCell<Checks>,
    /// By node.
    pub devices: Vec<Rc<Device>>,
}

impl Shared {
    pub(crate) fn new(plan: Plan, network: Network, devices: Vec<Rc<Device>>) -> Rc<Shared> {
        let checks = RefCell::new(Checks::new(&plan));
        Rc::new(Shared {
            now: Cell::new(0),
            queue: RefCell::new(Queue::new()),
            schedule: RefCell::new(plan.stream("schedule")),
            workload: RefCell::new(plan.stream("workload")),
            network: RefCell::new(network),
            checks,
            devices,
            plan,
        })
    }

    pub(crate) fn now(&self) -> Us {
        self.now.get()
    }

    /// What happens next, at the latest at `until`; time goes on to it.
    pub(crate) fn next_event(&self, until: Us) -> Option<Event> {
        let next = self.queue.borrow_mut().pop(until);
        self.now.set(next.as_ref().map_or(until, |(at, _)| *at));
        next.map(|(_, event)| event)
    }

    pub(crate) fn post(&self, after: Us, event: Event) {
        self.post_at(self.now() + after, event);
    }

    pub(crate) fn post_at(&self, at: Us, event: Event) {
        self.queue.borrow_mut().post(at, event);
    }

    /// A number of the schedule's stream.
    pub(crate) fn schedule(&self, bound: u64) -> u64 {
        self.schedule.borrow_mut().below(bound)
    }

    pub(crate) fn schedule_seed(&self) -> u64 {
        self.schedule.borrow_mut().next_u64()
    }

    /// A number of the workload's stream.
    pub(crate) fn work(&self, bound: u64) -> u64 {
        self.workload.borrow_mut().below(bound)
    }

    /// Notes what a node does, for the trace.
    pub(crate) fn note(&self, node: usize, text: impl FnOnce() -> String) {
        crate::trace::note(|| {
            let now = self.now();
            format!("{:4}.{:06} n{node} {}", now / 1_000_000, now % 1_000_000, text())
        });
    }

    /// Hosts are called by their number.
    pub(crate) fn place_of_host(&self, host: &str) -> Option<Place> {
        host.strip_prefix('n')?.parse().ok().filter(|place| *place < self.devices.len())
    }
}
