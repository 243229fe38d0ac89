//! The world: time, what happens next, and everything that is in it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use super::core::Core;
use super::host::Host;
use super::process::{Exit, Process};
use super::schedule::{Event, Schedule};
use super::settings::Settings;
use super::streams::Stream;
use super::tcp::network::Network;
use super::trace::Trace;
use super::waker::{self, Woken};

/// See the module's text. Parts that change have cells of their own, so that one that is in use doesn't lock the others.
pub(crate) struct World {
    /// Tells worlds of one thread apart.
    pub number: u64,
    pub settings: Settings,
    pub streams: Streams,
    pub hosts: RefCell<Vec<Rc<Host>>>,
    /// By their ids; those that ended are gone.
    pub processes: RefCell<Vec<Option<Rc<Process>>>>,
    /// Those that ended, for who wants to know whether anything of them is left.
    pub ended: RefCell<Vec<Weak<Process>>>,
    /// How those ended.
    pub exits: RefCell<BTreeMap<u32, Exit>>,
    pub violations: RefCell<Vec<String>>,
    /// By their ids.
    pub cores: RefCell<Vec<Option<Rc<Core>>>>,
    pub network: RefCell<Network>,
    pub trace: Trace,
    now_ns: Cell<u64>,
    /// Where the present call of [`World::run_until`] ends.
    until_ns: Cell<u64>,
    schedule: RefCell<Schedule>,
    events: Cell<u64>,
    events_at_once: Cell<u64>,
    woken: RefCell<Vec<Woken>>,
}

/// One stream for each kind of question.
pub(crate) struct Streams {
    /// Which task, when, for how long.
    pub cores: Stream,
    pub network: Stream,
    /// Seeds of disks.
    pub disks: Stream,
    /// How much others have of it.
    pub memory: Stream,
    /// What programs of tests ask for.
    pub programs: Stream,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    /// Whose code runs.
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    static WORLDS: Cell<u64> = const { Cell::new(0) };
}

/// The world of this thread.
pub(crate) fn world() -> Rc<World> {
    try_world().expect("a simulated world on this thread")
}

pub(crate) fn try_world() -> Option<Rc<World>> {
    WORLD.try_with(|world| world.borrow().clone()).ok().flatten()
}

/// The core whose code runs.
pub(crate) fn current() -> Rc<Core> {
    try_current().expect("code of a simulated process")
}

pub(crate) fn try_current() -> Option<Rc<Core>> {
    CURRENT.try_with(|core| core.borrow().clone()).ok().flatten()
}

/// The core whose code runs, if any, and the time as it has it.
pub(crate) fn moment() -> Option<(Option<u32>, u64)> {
    let now_ns = WORLD.try_with(|world| world.borrow().as_ref().map(|world| world.now_ns.get())).ok().flatten()?;
    Some(match try_current() {
        Some(core) => (Some(core.id), now_ns + core.elapsed_ns()),
        None => (None, now_ns),
    })
}

/// Runs `work` as code of a core.
pub(crate) fn as_code_of<T>(core: &Rc<Core>, work: impl FnOnce() -> T) -> T {
    /// Puts back what was before, also when `work` unwinds.
    struct Before(Option<Rc<Core>>);
    impl Drop for Before {
        fn drop(&mut self) {
            let ended = CURRENT.replace(self.0.take());
            drop(ended);
        }
    }
    let _before = Before(CURRENT.replace(Some(core.clone())));
    work()
}

/// Runs `work` as code of nobody: the kernel's, or the world's.
pub(crate) fn as_nobody<T>(work: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(None);
    let value = work();
    CURRENT.replace(before);
    value
}

impl World {
    /// Makes a world the thread's own. There is one at a time.
    pub fn begin(settings: Settings) -> Rc<World> {
        let number = WORLDS.get() + 1;
        WORLDS.set(number);
        let seed = settings.seed;
        let streams = Streams {
            cores: Stream::new(seed, "cores"),
            network: Stream::new(seed, "network"),
            disks: Stream::new(seed, "disks"),
            memory: Stream::new(seed, "memory"),
            programs: Stream::new(seed, "programs"),
        };
        let world = Rc::new(World {
            number,
            settings,
            streams,
            hosts: RefCell::default(),
            processes: RefCell::default(),
            ended: RefCell::default(),
            exits: RefCell::default(),
            violations: RefCell::default(),
            cores: RefCell::default(),
            network: RefCell::default(),
            trace: Trace::default(),
            now_ns: Cell::new(0),
            until_ns: Cell::new(0),
            schedule: RefCell::default(),
            events: Cell::new(0),
            events_at_once: Cell::new(0),
            woken: RefCell::default(),
        });
        let before = WORLD.replace(Some(world.clone()));
        assert!(before.is_none(), "there is a simulated world on this thread already");
        waker::take_woken(&mut Vec::new());
        world
    }

    /// Takes the world off the thread, with all that is in it.
    pub fn end(&self) {
        for process in self.running() {
            process.end(Exit::Killed);
        }
        // Whatever these hold may post or wake on its end.
        drop(as_nobody(|| self.schedule.take().take_all()));
        drop(self.network.take());
        self.hosts.borrow_mut().clear();
        self.trace.end();
        waker::take_woken(&mut Vec::new());
        drop(WORLD.replace(None));
    }

    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// The time as the code that runs has it.
    pub fn local_ns(&self) -> u64 {
        self.now_ns.get() + try_current().map_or(0, |core| core.elapsed_ns())
    }

    pub fn post(&self, at_ns: u64, event: Event) {
        self.schedule.borrow_mut().post(at_ns.max(self.now_ns.get()), event);
    }

    /// Posts something to happen `after_ns` the time that the code that runs has.
    pub fn post_after(&self, after_ns: u64, event: Event) {
        self.post(self.local_ns().saturating_add(after_ns), event);
    }

    pub fn events(&self) -> u64 {
        self.events.get()
    }

    pub fn process(&self, id: u32) -> Option<Rc<Process>> {
        self.processes.borrow().get(id as usize).cloned().flatten()
    }

    pub fn running(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().flatten().cloned().collect()
    }

    pub fn host_at(&self, address: IpAddr) -> Option<Rc<Host>> {
        self.hosts.borrow().iter().find(|host| host.address() == address).cloned()
    }

    /// Adds a core and gives it its id.
    pub fn add_core(&self, make: impl FnOnce(u32) -> Rc<Core>) -> Rc<Core> {
        let mut cores = self.cores.borrow_mut();
        let core = make(cores.len() as u32);
        cores.push(Some(core.clone()));
        core
    }

    /// Lets time go on until something says that it is enough, at the latest until `until_ns`. Says whether it did.
    pub fn run_until(&self, until_ns: u64, mut is_enough: impl FnMut() -> bool) -> bool {
        self.until_ns.set(until_ns);
        self.settle();
        while !is_enough() {
            let next = self.schedule.borrow_mut().pop(until_ns);
            let Some((at_ns, event)) = next else {
                self.set_now(until_ns.max(self.now_ns.get()));
                return false;
            };
            self.set_now(at_ns);
            self.happen(event);
            self.settle();
            self.count_event();
        }
        true
    }

    fn set_now(&self, now_ns: u64) {
        if now_ns > self.now_ns.get() {
            self.events_at_once.set(0);
        }
        self.now_ns.set(now_ns);
    }

    fn count_event(&self) {
        self.events.set(self.events.get() + 1);
        self.events_at_once.set(self.events_at_once.get() + 1);
        if self.events_at_once.get() > self.settings.cores.spin_limit {
            panic!("the simulated world doesn't get beyond {} ns", self.now_ns.get());
        }
    }

    fn happen(&self, event: Event) {
        match event {
            Event::Run(core) => core.run(self),
            Event::WakeTask(task) => self.enqueue(&task, self.now_ns.get()),
            Event::Wake(waker) => waker.wake(),
            Event::Timer(timer) => timer.fire(),
            Event::Disk(operation) => operation.complete(),
            Event::Stream(event) => event.happen(self),
            Event::Call(work) => work(),
        }
    }

    /// Brings the tasks that were woken to their cores.
    pub fn settle(&self) {
        let mut woken = self.woken.take();
        loop {
            waker::take_woken(&mut woken);
            if woken.is_empty() {
                break;
            }
            for Woken { task, by, at_ns } in woken.drain(..) {
                match by {
                    Some(core) if core != task.core => {
                        let later_ns = self.streams.cores.between(self.settings.cores.between_cores_ns);
                        self.post(at_ns + later_ns, Event::WakeTask(task));
                    }
                    _ => self.enqueue(&task, at_ns),
                }
            }
        }
        self.woken.replace(woken);
    }

    fn enqueue(&self, task: &waker::TaskWaker, at_ns: u64) {
        if task.world != self.number {
            return;
        }
        let core = self.cores.borrow().get(task.core as usize).cloned().flatten();
        if let Some(core) = core {
            core.enqueue(self, task.key, task.serial, at_ns);
        }
    }

    /// Whether nothing happens up to and at `at_ns`, so that a core may go on without asking the schedule.
    pub fn is_quiet_until(&self, at_ns: u64) -> bool {
        at_ns <= self.until_ns.get() && self.schedule.borrow().next_at_ns().is_none_or(|next| next > at_ns)
    }

    /// Goes on to `now_ns`, up to which nothing happens.
    pub fn advance(&self, now_ns: u64) {
        self.set_now(now_ns);
        self.count_event();
    }
}
