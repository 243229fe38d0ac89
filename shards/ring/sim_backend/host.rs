//! A host, and what its processes may ask of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::clock::Clock;
use super::disk::Disk;
use super::process::{Exit, Process};
use super::schedule::Event;
use super::settings::{DiskSettings, HostSettings};
use super::world::{self, World};
use crate::vocabulary::{HostMemory, Refusal, numeric};

/// See the module's text.
pub(crate) struct Host {
    pub number: usize,
    pub clock: Rc<Clock>,
    name: String,
    address: IpAddr,
    cpus: usize,
    descriptors: Cell<usize>,
    has_power: Cell<bool>,
    /// The power is about to go: cores still do what they are in the middle of.
    is_failing: Cell<bool>,
    /// By the folder that they are mounted at; the longest that a path begins with holds it.
    mounts: RefCell<Vec<(PathBuf, Rc<Disk>)>>,
    /// Names that can be looked up here and mean something else than elsewhere: none, or these addresses.
    names: RefCell<Vec<(String, Vec<IpAddr>)>>,
    next_port: Cell<u16>,
}

/// Ports of connections that go out begin here.
const FIRST_PORT: u16 = 32_768;
/// What a host has.
const MEMORY_BYTES: u64 = 1 << 30;
/// A failed lookup takes so long.
const LOOKUP_NS: (u64, u64) = (100_000, 5_000_000);

impl Host {
    pub fn new(world: &World, settings: HostSettings) -> Rc<Host> {
        let number = world.hosts.borrow().len();
        let given = || IpAddr::V4(Ipv4Addr::new(10, 0, (number >> 8) as u8, number as u8 + 1));
        let HostSettings { name, address, cpus, descriptors, monotonic_ns, wall_offset_ms, rate_ppm, disk } = settings;
        let clock = Rc::new(Clock::new(rate_ppm, monotonic_ns, wall_offset_ms));
        let root = Disk::new(&name, disk, world.streams.disks.next(), &clock);
        let host = Rc::new(Host {
            number,
            clock,
            name,
            address: address.unwrap_or_else(given),
            cpus,
            descriptors: Cell::new(descriptors),
            has_power: Cell::new(true),
            is_failing: Cell::new(false),
            mounts: RefCell::new(vec![(PathBuf::from("/"), root)]),
            names: RefCell::default(),
            next_port: Cell::new(FIRST_PORT),
        });
        world.hosts.borrow_mut().push(host.clone());
        host
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address leads here when it is used here.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address == self.address || address.is_loopback()
    }

    pub fn cpus(&self) -> usize {
        self.cpus
    }

    pub fn descriptors(&self) -> usize {
        self.descriptors.get()
    }

    pub fn set_descriptors(&self, limit: usize) {
        self.descriptors.set(limit);
    }

    pub fn has_power(&self) -> bool {
        self.has_power.get()
    }

    pub fn is_failing(&self) -> bool {
        self.is_failing.get()
    }

    /// A port for a connection that goes out.
    pub fn take_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(if port == u16::MAX { FIRST_PORT } else { port + 1 });
        port
    }

    /// Mounts a file system of its own at `folder`.
    pub fn mount(&self, world: &World, folder: &Path, settings: DiskSettings) -> Rc<Disk> {
        let name = format!("{}:{}", self.name, folder.display());
        let disk = Disk::new(&name, settings, world.streams.disks.next(), &self.clock);
        let mut mounts = self.mounts.borrow_mut();
        mounts.retain(|(mounted, _)| mounted != folder);
        mounts.push((folder.to_path_buf(), disk.clone()));
        mounts.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.as_os_str().len()));
        disk
    }

    pub fn disks(&self) -> Vec<Rc<Disk>> {
        self.mounts.borrow().iter().map(|(_, disk)| disk.clone()).collect()
    }

    /// The disk that holds a path, and the path on it.
    pub fn disk_of(&self, path: &Path) -> (Rc<Disk>, PathBuf) {
        let mut absolute = PathBuf::from("/");
        for part in path.components() {
            match part {
                std::path::Component::ParentDir => drop(absolute.pop()),
                std::path::Component::Normal(name) => absolute.push(name),
                _ => {}
            }
        }
        let mounts = self.mounts.borrow();
        let found = mounts.iter().find_map(|(folder, disk)| {
            absolute.strip_prefix(folder).ok().map(|rest| (disk.clone(), rest.to_path_buf()))
        });
        found.expect("every path begins with /")
    }

    /// What a name means here, whatever it means elsewhere.
    pub fn set_addresses(&self, name: &str, addresses: Vec<IpAddr>) {
        let mut names = self.names.borrow_mut();
        names.retain(|(known, _)| known != name);
        names.push((name.to_owned(), addresses));
    }

    fn addresses_of(&self, world: &World, name: &str) -> Vec<IpAddr> {
        if let Some((_, addresses)) = self.names.borrow().iter().find(|(known, _)| known == name) {
            return addresses.clone();
        }
        if name == "localhost" {
            return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        }
        let hosts = world.hosts.borrow();
        hosts.iter().filter(|host| host.name == name).map(|host| host.address).collect()
    }

    /// The power goes: processes are gone without a word, and what disks hadn't made safe may be, too.
    pub fn power_off(self: &Rc<Self>, world: &World) {
        if !self.has_power.get() {
            return;
        }
        self.is_failing.set(true);
        let processes: Vec<Rc<Process>> =
            world.running().into_iter().filter(|process| Rc::ptr_eq(&process.host, self)).collect();
        processes.iter().for_each(|process| process.request_end(Exit::PowerLost));
        if processes.iter().all(|process| process.has_ended()) {
            return self.on_power_lost(world);
        }
        // Some core was in the middle of something; its process ends when that is done.
        let host = self.clone();
        let again = move || {
            if let Some(world) = world::try_world() {
                host.power_off(&world);
            }
        };
        world.post(world.now_ns() + 1_000, Event::Call(Box::new(again)));
    }

    fn on_power_lost(&self, world: &World) {
        self.has_power.set(false);
        self.is_failing.set(false);
        world.trace.tell(|| format!("{} loses its power", self.name));
        world::as_nobody(|| {
            self.disks().iter().for_each(|disk| disk.lose_power(world));
            world.network.borrow_mut().forget_host(world, self.number);
        });
    }

    pub fn power_on(&self, world: &World) {
        assert!(!self.is_failing.get(), "{} is about to lose its power: let time go on", self.name);
        if !self.has_power.replace(true) {
            world.trace.tell(|| format!("{} has power again", self.name));
        }
    }
}

/// Nothing is refused in a simulation.
pub fn probe() -> Result<(), Refusal> {
    Ok(())
}

/// How much memory there is, and how much of it is left: now and then others have nearly all of it.
pub fn memory() -> Option<HostMemory> {
    let drawn = &world::world().streams.memory;
    let available_bytes = match drawn.below(8) {
        0 => drawn.below(MEMORY_BYTES / 16),
        1 => MEMORY_BYTES / 12,
        _ => MEMORY_BYTES,
    };
    Some(HostMemory { total_bytes: MEMORY_BYTES, available_bytes })
}

/// The limit of open files.
pub fn raise_nofile() -> u64 {
    world::current().process.host.descriptors() as u64
}

/// The CPUs that this process may run on, ascending.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    Ok((0..world::current().process.host.cpus()).collect())
}

/// [`allowed_cpus`].
pub fn usable_cpus() -> io::Result<Vec<usize>> {
    allowed_cpus()
}

/// The host's name.
pub fn hostname() -> String {
    world::current().process.host.name().to_owned()
}

/// The addresses of a name; a number is one. An IPv6 address may stand in brackets.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = numeric(host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let world = world::world();
    super::timer::sleep_ns(world.streams.network.between(LOOKUP_NS)).await;
    let found = world::current().process.host.addresses_of(&world, host);
    if found.is_empty() {
        return Err(io::Error::other(format!("failed to lookup address information: {host} is not known")));
    }
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Ends the process at once: nothing is written out, no destructor runs that matters.
pub fn halt(code: u8) -> ! {
    Process::end_from_within(Exit::Halted(code))
}
