//! The simulated world, for tests: hosts, processes, faults, time, and ways to look on.
//!
//! ```ignore
//! let world = World::new(Settings { seed: 7, ..Settings::default() });
//! let host = world.add_host(HostSettings::named("n0"));
//! let process = world.start(host, "node", || async { ringlog_ring::sleep_ms(5).await });
//! assert_eq!(world.run_until_exit(process, SECOND), Some(Exit::Returned));
//! ```

use std::any::Any;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::{cell::RefCell, io};

pub use super::disk::device::{DiskFault, DiskOperation};
pub use super::process::Exit;
pub use super::settings::{CoreSettings, DiskSettings, HostSettings, MS, NetworkSettings, Range, SECOND, Settings, US};
pub use super::tcp::network::Link;
pub use super::trace::{Context, Tap, TapKind};

use super::disk::{Content, Disk};
use super::faults;
use super::host::Host;
use super::port::ListeningSocket;
use super::process::Process;
use super::schedule::Event;
use super::tcp::Listener;
use super::tcp::network::PortUse;
use super::world;
use super::{core::Core, trace};
use crate::vocabulary::SocketOptions;

/// A host, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A process, by its number. Numbers aren't used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// A file as readers see it at the moment.
pub struct FileView<'a>(&'a Content);

impl FileView<'_> {
    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks that of a file")]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// What it holds from a position on, at most `len` bytes.
    pub fn read(&self, position: u64, len: u64) -> Vec<u8> {
        self.0.read(position, len)
    }
}

/// A world, the thread's only one. It ends, with all its processes, when this is dropped.
pub struct World(Control);

/// The world, for whoever needs it: also for programs that run in it, by [`control`]. Clones are the same.
#[derive(Clone)]
pub struct Control(Rc<world::World>);

impl World {
    /// A world without hosts.
    pub fn new(settings: Settings) -> World {
        if !cfg!(panic = "unwind") {
            panic!("ends of simulated processes unwind: build tests, or with --profile sim");
        }
        faults::catch_panics();
        World(Control(world::World::begin(settings)))
    }
}

impl Deref for World {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.0.end();
    }
}

/// The world that the calling code runs in.
pub fn control() -> Control {
    Control(world::world())
}

/// Where and when the calling code runs; none outside of a world.
pub fn context() -> Option<Context> {
    world::try_world().map(|_| trace::context())
}

/// Waits until the process is told to stop (SIGTERM) for the `nth` time.
pub async fn signal(nth: u32) {
    let process = world::current().process.clone();
    poll_fn(|context| {
        if process.signals() >= nth {
            return Poll::Ready(());
        }
        process.wait_for_signal(context.waker());
        Poll::Pending
    })
    .await;
}

/// Listens where nobody else may, as programs that don't ask for SO_REUSEPORT do.
pub fn bind_exclusively(address: SocketAddr) -> io::Result<Listener> {
    ListeningSocket::open(address, SocketOptions::default(), PortUse::Exclusive).map(Listener::adopt)
}

/// A number below `bound`, from the stream that is for programs of tests.
pub fn draw(bound: u64) -> u64 {
    world::world().streams.programs.below(bound)
}

/// Waits for a span of the world's time, whatever the host's clock makes of it.
pub async fn sleep_ns(ns: u64) {
    super::timer::sleep_ns(ns).await;
}

/// Time and what happens in it.
impl Control {
    /// Since the world began.
    pub fn now_ns(&self) -> u64 {
        self.0.local_ns()
    }

    /// Lets time go on for so long.
    pub fn run_for(&self, ns: u64) {
        self.0.run_until(self.0.now_ns().saturating_add(ns), || false);
    }

    /// Lets time go on until `is_reached`, at most for so long. Says whether it was. It is asked after each event.
    pub fn run_until(&self, at_most_ns: u64, is_reached: impl FnMut() -> bool) -> bool {
        self.0.run_until(self.0.now_ns().saturating_add(at_most_ns), is_reached)
    }

    /// Lets time go on until a process has ended, at most for so long.
    pub fn run_until_exit(&self, process: ProcessId, at_most_ns: u64) -> Option<Exit> {
        self.run_until(at_most_ns, || self.exit(process).is_some());
        self.exit(process)
    }

    /// Runs a program on a host to its end, at most for so long, and returns its value.
    pub fn run_program<T, Fut>(
        &self,
        host: HostId,
        name: &str,
        at_most_ns: u64,
        main: impl FnOnce() -> Fut + 'static,
    ) -> Option<T>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        let outcome = Rc::new(RefCell::new(None));
        let given = outcome.clone();
        let process = self.start(host, name, move || async move {
            let value = main().await;
            *given.borrow_mut() = Some(value);
        });
        self.run_until_exit(process, at_most_ns);
        outcome.take()
    }

    /// Has something happen later; not as code of any process.
    pub fn after(&self, ns: u64, work: impl FnOnce(&Control) + 'static) {
        let work = move || {
            if let Some(world) = world::try_world() {
                work(&Control(world));
            }
        };
        self.0.post_after(ns, Event::Call(Box::new(work)));
    }

    /// How much has happened.
    pub fn events(&self) -> u64 {
        self.0.events()
    }
}

/// Hosts.
impl Control {
    /// Adds a host that has power.
    pub fn add_host(&self, settings: HostSettings) -> HostId {
        HostId(Host::new(&self.0, settings).number)
    }

    fn host(&self, host: HostId) -> Rc<Host> {
        self.0.hosts.borrow()[host.0].clone()
    }

    /// How many there are.
    pub fn hosts(&self) -> usize {
        self.0.hosts.borrow().len()
    }

    /// A host's address.
    pub fn address(&self, host: HostId) -> IpAddr {
        self.host(host).address()
    }

    /// A host's name.
    pub fn host_name(&self, host: HostId) -> String {
        self.host(host).name().to_owned()
    }

    /// The power goes: processes are gone, and what disks had not made safe may be. It takes effect once cores have
    /// done what they are in the middle of.
    pub fn power_off(&self, host: HostId) {
        self.host(host).power_off(&self.0);
    }

    /// The power comes back. Nothing is started.
    pub fn power_on(&self, host: HostId) {
        self.host(host).power_on(&self.0);
    }

    /// Whether its power is about to go, and waits for a core that is in the middle of something.
    pub fn is_losing_power(&self, host: HostId) -> bool {
        self.host(host).is_failing()
    }

    /// Whether it has power, and nobody has taken it away.
    pub fn has_power(&self, host: HostId) -> bool {
        self.host(host).has_power() && !self.host(host).is_failing()
    }

    /// Somebody sets the wall clock, so far from the world's.
    pub fn set_wall_clock(&self, host: HostId, offset_ms: i64) {
        self.0.trace.tell(|| format!("the clock of {} is set {offset_ms} ms off", self.host_name(host)));
        self.host(host).clock.set_wall_offset(offset_ms);
    }

    /// Descriptors that each process may have open.
    pub fn set_descriptors(&self, host: HostId, limit: usize) {
        self.host(host).set_descriptors(limit);
    }

    /// What a name means on a host; nothing when there are no addresses.
    pub fn set_addresses(&self, host: HostId, name: &str, addresses: Vec<IpAddr>) {
        self.host(host).set_addresses(name, addresses);
    }

    /// Mounts a disk of its own at a folder. One that is mounted there is gone.
    pub fn mount(&self, host: HostId, folder: &Path, settings: DiskSettings) {
        self.host(host).mount(&self.0, folder, settings);
    }
}

/// Processes.
impl Control {
    /// Starts a program on a host, which must have power. It runs on the process's main thread, and may use all of this
    /// crate as on an executor.
    pub fn start<Fut>(&self, host: HostId, name: &str, main: impl FnOnce() -> Fut + 'static) -> ProcessId
    where
        Fut: Future<Output = ()> + 'static,
    {
        let host = self.host(host);
        assert!(host.has_power() && !host.is_failing(), "{} has no power", host.name());
        ProcessId(Process::start(&self.0, &host, name, main).id)
    }

    fn process(&self, process: ProcessId) -> Option<Rc<Process>> {
        self.0.process(process.0)
    }

    /// How it ended, if it did.
    pub fn exit(&self, process: ProcessId) -> Option<Exit> {
        self.0.exits.borrow().get(&process.0).cloned()
    }

    /// SIGKILL. It takes effect once the process's cores have done what they are in the middle of.
    pub fn kill(&self, process: ProcessId) {
        if let Some(process) = self.process(process) {
            process.request_end(Exit::Killed);
        }
    }

    /// SIGTERM; see [`signal`].
    pub fn terminate(&self, process: ProcessId) {
        if let Some(process) = self.process(process) {
            process.signal();
        }
    }

    /// SIGSTOP.
    pub fn pause(&self, process: ProcessId) {
        if let Some(process) = self.process(process) {
            self.0.trace.tell(|| format!("{} is paused", process.name));
            process.stop();
        }
    }

    /// SIGCONT.
    pub fn resume(&self, process: ProcessId) {
        if let Some(process) = self.process(process) {
            self.0.trace.tell(|| format!("{} goes on", process.name));
            process.resume(&self.0);
        }
    }

    /// A core of a process stands still for so long; the main thread is core 0, executors come after it, then helpers.
    pub fn stand_still(&self, process: ProcessId, core: usize, ns: u64) {
        let core = self.process(process).and_then(|process| process.cores.borrow().get(core).cloned());
        if let Some(core) = core {
            self.0.trace.tell(|| format!("{} of {} stands still for {ns} ns", core.name, core.process.name));
            Core::stand_still(&core, self.0.local_ns().saturating_add(ns));
        }
    }

    /// Cores of a process: main thread, executors, helpers.
    pub fn cores(&self, process: ProcessId) -> usize {
        self.process(process).map_or(0, |process| process.cores.borrow().len())
    }

    /// Tasks of a process that haven't ended.
    pub fn tasks(&self, process: ProcessId) -> usize {
        self.process(process).map_or(0, |process| process.cores.borrow().iter().map(|core| core.tasks()).sum())
    }

    /// Descriptors that a process has open.
    pub fn open_descriptors(&self, process: ProcessId) -> usize {
        self.process(process).map_or(0, |process| process.descriptors())
    }

    /// Processes that ended and of which something still holds what the kernel gave them: memory that leaked, unless
    /// events of theirs are on their way.
    pub fn leaked_processes(&self) -> usize {
        self.0.ended.borrow().iter().filter(|process| process.strong_count() > 0).count()
    }

    /// Processes that run.
    pub fn running(&self) -> Vec<ProcessId> {
        self.0.running().iter().map(|process| ProcessId(process.id)).collect()
    }
}

/// The network.
impl Control {
    /// How it is from one host to another.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        self.0.network.borrow().link(from.0, to.0)
    }

    /// Changes that.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        self.0.trace.tell(|| format!("{} to {}: {link:?}", self.host_name(from), self.host_name(to)));
        self.0.network.borrow_mut().set_link(from.0, to.0, link);
    }

    /// Cuts, or mends, one direction.
    pub fn set_cut(&self, from: HostId, to: HostId, is_cut: bool) {
        self.set_link(from, to, Link { is_cut, ..self.link(from, to) });
    }

    /// All links are as they should be.
    pub fn heal_network(&self) {
        self.0.trace.tell(|| "the network is healed".to_owned());
        self.0.network.borrow_mut().heal();
    }

    /// Resets all connections between two hosts; how many there were.
    pub fn reset_connections(&self, one: HostId, other: HostId) -> usize {
        self.0.network.borrow_mut().reset_between(&self.0, one.0, other.0)
    }

    /// Connections that somebody still knows.
    pub fn connections(&self) -> usize {
        self.0.network.borrow().flows.len()
    }
}

/// Disks. Paths are those that processes of the host use.
impl Control {
    fn with_disk<T>(&self, host: HostId, path: &Path, work: impl FnOnce(&Rc<Disk>, &Path) -> T) -> T {
        let (disk, path) = self.host(host).disk_of(path);
        work(&disk, &path)
    }

    /// A file as readers see it.
    pub fn file(&self, host: HostId, path: &Path) -> Option<Vec<u8>> {
        self.with_disk(host, path, |disk, path| disk.content(path))
    }

    /// Looks into a file as readers see it, without all of it in one's hands.
    pub fn with_file<T>(&self, host: HostId, path: &Path, work: impl FnOnce(&FileView<'_>) -> T) -> Option<T> {
        self.with_disk(host, path, |disk, path| disk.with_content(path, |content| work(&FileView(content))))
    }

    /// A file as a power failure would leave it for certain.
    pub fn safe_file(&self, host: HostId, path: &Path) -> Option<Vec<u8>> {
        self.with_disk(host, path, |disk, path| disk.safe_content(path))
    }

    /// The names in a folder.
    pub fn list(&self, host: HostId, path: &Path) -> io::Result<Vec<String>> {
        let entries = self.with_disk(host, path, |disk, path| disk.listed(path))?;
        Ok(entries.into_iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect())
    }

    /// Bits of a byte of a file turn. Says whether there is such a byte.
    pub fn rot(&self, host: HostId, path: &Path, position: u64, mask: u8) -> bool {
        self.0.trace.tell(|| format!("{}: rot at {position} of {}", self.host_name(host), path.display()));
        self.with_disk(host, path, |disk, path| disk.rot(path, position, mask))
    }

    /// Operations fail from now on. `under` is a path as processes use it.
    pub fn fail_disk(&self, host: HostId, fault: DiskFault) {
        self.0.trace.tell(|| format!("{}: {fault:?}", self.host_name(host)));
        let (disk, under) = self.host(host).disk_of(&fault.under);
        disk.add_fault(DiskFault { under, ..fault });
    }

    /// No disk of the host fails, hangs or is slow any more.
    pub fn mend_disks(&self, host: HostId) {
        self.0.trace.tell(|| format!("{}: disks are mended", self.host_name(host)));
        self.host(host).disks().iter().for_each(|disk| disk.mend());
    }

    /// The disk that holds a path hangs: nothing ends until it doesn't hang any more.
    pub fn set_hanging(&self, host: HostId, path: &Path, hangs: bool) {
        self.with_disk(host, path, |disk, _| disk.set_hanging(hangs));
    }

    /// What the disk that holds a path does takes so many times longer.
    pub fn set_slowness(&self, host: HostId, path: &Path, times: u64) {
        self.with_disk(host, path, |disk, _| disk.set_slowness(times));
    }

    /// Changes how the disk that holds a path is.
    pub fn change_disk(&self, host: HostId, path: &Path, change: impl FnOnce(&mut DiskSettings)) {
        self.with_disk(host, path, |disk, _| change(&mut disk.settings.borrow_mut()));
    }
}

/// Looking on.
impl Control {
    /// A hash over all that has happened: the same for the same seed.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.value()
    }

    /// Tells what happens, sentence by sentence.
    pub fn tell(&self, teller: impl FnMut(&Context, &str) + 'static) {
        self.0.trace.set_teller(Some(Box::new(teller)));
    }

    /// Adds a sentence to the story.
    pub fn note(&self, text: impl FnOnce() -> String) {
        self.0.trace.tell(text);
    }

    /// Is shown what programs show by [`crate::observe`].
    pub fn observe(&self, observer: impl FnMut(&Context, &dyn Any) + 'static) {
        self.0.trace.add_observer(Box::new(observer));
    }

    /// Is shown what connections do. It must leave the network alone meanwhile.
    pub fn tap(&self, tapper: impl FnMut(&Tap<'_>) + 'static) {
        self.0.trace.add_tapper(Box::new(tapper));
    }

    /// What no run may show: panics, misuse of disks, and what checkers add. Empties the list.
    pub fn take_violations(&self) -> Vec<String> {
        self.0.violations.take()
    }

    /// Whether there are some.
    pub fn has_violations(&self) -> bool {
        !self.0.violations.borrow().is_empty()
    }

    /// Adds one.
    pub fn add_violation(&self, text: String) {
        faults::note_violation(&self.0, text);
    }
}
