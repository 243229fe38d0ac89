//! The nodes of a run: their hosts, disks and processes, and whether one may end by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use ringlog_ring::sim::{Control, DiskSettings, Exit, HostId, HostSettings, MS, ProcessId, SECOND};
use ringlog_types::Uuid;

use crate::check::files::{self, Files};
use crate::client::Shared;
use crate::kafka_peer::{self, Disk, Settings};
use crate::node;
use crate::plan::{CLIENT_PORT, NodePlan, Plan};

/// How long a node stays down that has ended by itself.
const AGAIN_AFTER_NS: u64 = 500 * MS;

/// A node.
pub struct Node {
    /// What it is like.
    pub plan: NodePlan,
    /// Where it runs.
    pub host: HostId,
    /// Its process, unless it was taken down.
    pub process: Option<ProcessId>,
    /// It was told to stop.
    pub is_stopping: bool,
    /// It has stopped in order, and nothing failed under it: all that it had is on its disks for good.
    has_stopped: bool,
    /// Something failed under it since it was started: it may end by itself, and directories of it may be offline.
    pub is_excused: bool,
    /// Faults of that kind that still last.
    faults: usize,
    /// Directories that something failed under since then.
    failed: BTreeSet<usize>,
    starts: u64,
    /// How often it got a new disk.
    generation: u64,
    /// What it wrote, where it is Kafka's.
    pub kafka: Option<Rc<Disk>>,
}

impl Node {
    /// It was taken down.
    fn forget_what_is_over(&mut self) {
        self.is_excused = self.faults > 0;
        if !self.is_excused {
            self.failed.clear();
        }
    }

    /// Whether it can't go on: the first directory holds the metadata log, and one at least has to be left.
    fn may_end(&self) -> bool {
        self.is_excused && (self.failed.contains(&0) || self.failed.len() == self.plan.log_dirs)
    }
}

/// See the module's text.
pub struct Cluster {
    /// The world that they are in.
    pub world: Control,
    /// The nodes, as the plan has them.
    pub nodes: Vec<Node>,
    /// Where clients run.
    pub clients: HostId,
    plan: Plan,
    shared: Option<Rc<Shared>>,
}

impl Cluster {
    /// Makes hosts and formats directories.
    pub fn new(world: &Control, plan: &Plan) -> Cluster {
        let clients = world.add_host(HostSettings { cpus: 4, ..HostSettings::named("clients") });
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            let settings =
                HostSettings { cpus: node.cpus, rate_ppm: node.rate_ppm, ..HostSettings::named(&node.host()) };
            let host = world.add_host(settings);
            for number in 1..=node.log_dirs {
                let settings = DiskSettings { slow_permille: plan.slow_permille(), ..DiskSettings::default() };
                world.mount(host, Path::new(&format!("/d{number}")), settings);
            }
            nodes.push(Node {
                plan: node.clone(),
                host,
                process: None,
                is_stopping: false,
                has_stopped: false,
                is_excused: false,
                faults: 0,
                failed: BTreeSet::new(),
                starts: 0,
                generation: 0,
                kafka: node.is_kafka.then(Rc::default),
            });
        }
        let cluster = Cluster { world: world.clone(), nodes, clients, plan: plan.clone(), shared: None };
        for node in cluster.nodes.iter().filter(|node| node.kafka.is_none()) {
            let (all, own) = (plan.clone(), node.plan.clone());
            let formatted = world
                .run_program(node.host, "format", SECOND, move || async move { node::format(&all, &own, 0).await });
            assert!(matches!(formatted, Some(Ok(()))), "{formatted:?}");
        }
        cluster
    }

    /// A node, which must not run, gets a new disk, formatted anew. The id of its directory.
    pub fn replace_disk(&mut self, place: usize) -> Uuid {
        let node = &mut self.nodes[place];
        node.generation += 1;
        if !self.world.has_power(node.host) {
            self.world.power_on(node.host);
        }
        let settings = DiskSettings { slow_permille: self.plan.slow_permille(), ..DiskSettings::default() };
        self.world.mount(node.host, Path::new("/d1"), settings);
        let (all, own, generation) = (self.plan.clone(), node.plan.clone(), node.generation);
        let format = move || async move { node::format(&all, &own, generation).await };
        let formatted = self.world.run_program(self.nodes[place].host, "format", SECOND, format);
        assert!(matches!(formatted, Some(Ok(()))), "{formatted:?}");
        node::directory_id(&self.plan, self.nodes[place].plan.id, 0, generation)
    }

    /// Where brokers listen, by node.
    pub fn brokers(&self) -> impl Iterator<Item = (i32, SocketAddr)> {
        let brokers = self.nodes.iter().filter(|node| node.plan.is_broker);
        brokers.map(|node| (node.plan.id, SocketAddr::new(self.world.address(node.host), CLIENT_PORT)))
    }

    /// From now on there are clients who are told things.
    pub fn tell(&mut self, shared: &Rc<Shared>) {
        self.shared = Some(shared.clone());
    }

    /// Starts a node that doesn't run, and gives it power if it has none.
    pub fn start(&mut self, place: usize) {
        let hosts: Vec<(i32, HostId)> = self.nodes.iter().map(|node| (node.plan.id, node.host)).collect();
        let node = &mut self.nodes[place];
        if node.process.is_some_and(|process| self.world.exit(process).is_none()) {
            return;
        }
        // Its process may have ended for want of power a moment before the host is through with that.
        self.world.run_until(SECOND, || !self.world.is_losing_power(node.host));
        if !self.world.has_power(node.host) {
            self.world.power_on(node.host);
        }
        node.starts += 1;
        self.check_directories(place);
        let node = &mut self.nodes[place];
        let name = node.plan.host();
        node.process = Some(match &node.kafka {
            None => {
                let properties = self.plan.properties(&node.plan);
                let seed = self.plan.seed ^ node.starts << 32 ^ place as u64;
                self.world.start(node.host, &name, move || node::run(properties, seed))
            }
            Some(disk) => {
                let hosts: BTreeMap<i32, HostId> = hosts.into_iter().collect();
                let settings = Settings::of(&self.plan, &node.plan, |id| self.world.address(hosts[&id]));
                let disk = disk.clone();
                self.world.start(node.host, &name, move || kafka_peer::run(settings, disk))
            }
        });
        node.is_stopping = false;
        node.has_stopped = false;
    }

    /// What a node is about to find.
    fn check_directories(&self, place: usize) {
        let node = &self.nodes[place];
        if !node.plan.is_broker || node.kafka.is_some() {
            return;
        }
        for directory in node.plan.directories() {
            self.check_names(node, &directory);
            let rots = self.shared.is_none();
            let checked = self.with_files(node, &directory, |files| {
                files.check_vouched()?;
                if rots { Ok(()) } else { files.check_snapshots() }
            });
            if let Err(fault) = checked {
                self.world.add_violation(format!("{directory} of node {} before a start: {fault}", node.plan.id));
            }
        }
    }

    /// Of a log that has records on the device the topic id is there, too: without it nobody finds them again.
    fn check_names(&self, node: &Node, directory: &str) {
        let list = |path: &Path| self.world.list(node.host, path).unwrap_or_default();
        let is_safe = |path: &Path| self.world.safe_file(node.host, path).is_some_and(|bytes| !bytes.is_empty());
        for name in list(Path::new(directory)) {
            let path = Path::new(directory).join(&name);
            let has_records = || list(&path).iter().any(|file| file.ends_with(".log") && is_safe(&path.join(file)));
            if files::is_log(&name) && has_records() && !is_safe(&path.join("partition.metadata")) {
                let id = node.plan.id;
                self.world
                    .add_violation(format!("{} of node {id} is on the device without its topic id", path.display()));
            }
        }
    }

    /// Looks into one of a node's directories.
    pub fn with_files<T>(&self, node: &Node, directory: &str, look: impl FnOnce(&Files<'_>) -> T) -> T {
        let path = |name: &str| Path::new(directory).join(name);
        let may_have_holes = |log: &str| {
            let (topic, partition) = log.rsplit_once('-').unwrap_or((log, ""));
            let may_have_lost = |partition| self.shared.as_ref().is_some_and(|it| it.may_have_lost(topic, partition));
            partition.parse().is_ok_and(may_have_lost)
        };
        look(&Files {
            list: &|name| self.world.list(node.host, &path(name)).unwrap_or_default(),
            read: &|name| self.world.file(node.host, &path(name)),
            index_interval_bytes: self.plan.index_interval_bytes(),
            may_have_holes: &may_have_holes,
            may_be_cut: self.plan.replicas > 1,
        })
    }

    /// SIGKILL.
    pub fn kill(&mut self, place: usize) {
        if let Some(process) = self.nodes[place].process.take() {
            self.world.kill(process);
            self.world.run_until_exit(process, SECOND);
        }
        self.nodes[place].forget_what_is_over();
        // Where a follower's log starts it saves now and then, as Kafka's does: records that were deleted may be there again
        // when it comes to lead.
        if let Some(shared) = self.shared.as_ref().filter(|_| self.plan.replicas > 1) {
            shared.ledgers.borrow_mut().values_mut().for_each(|ledger| ledger.starts.on_loss());
        }
    }

    /// The power goes.
    pub fn power_off(&mut self, place: usize) {
        let node = &self.nodes[place];
        if node.plan.is_broker && node.kafka.is_none() {
            node.plan.directories().iter().for_each(|directory| self.check_names(node, directory));
        }
        let node = &mut self.nodes[place];
        node.forget_what_is_over();
        let process = node.process.take();
        if !self.world.has_power(node.host) {
            return;
        }
        self.world.power_off(node.host);
        if let Some(process) = process {
            self.world.run_until_exit(process, SECOND);
        }
        if self.nodes[place].has_stopped {
            return;
        }
        if self.nodes[place].plan.is_broker {
            self.lose_unflushed(self.world.now_ns());
        }
    }

    /// What isn't flushed may be lost, and all that is said before `before_ns` is void. Which partitions a node leads isn't
    /// known here: none of those is promised that don't flush.
    pub fn lose_unflushed(&self, before_ns: u64) {
        let Some(shared) = &self.shared else { return };
        for ((topic, _), ledger) in shared.ledgers.borrow_mut().iter_mut() {
            if !self.plan.topics[*topic].flushes {
                ledger.on_loss(before_ns);
            }
        }
        if !self.plan.properties.iter().any(|(key, _)| *key == "log.flush.interval.messages") {
            shared.lost_power_ns.set(before_ns);
            shared.commits.borrow_mut().on_loss(before_ns);
            shared.groups.borrow_mut().on_loss(before_ns);
        }
    }

    /// SIGTERM.
    pub fn stop(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if let Some(process) = node.process {
            node.is_stopping = true;
            self.world.terminate(process);
        }
    }

    /// Something fails under a node, or under some directories of it.
    pub fn excuse(&mut self, place: usize, directories: impl IntoIterator<Item = usize>) {
        self.nodes[place].is_excused = true;
        self.nodes[place].faults += 1;
        let id = self.nodes[place].plan.id;
        let directories: Vec<usize> = directories.into_iter().collect();
        if let Some(shared) = &self.shared {
            shared.failed.borrow_mut().extend(directories.iter().map(|directory| (id, *directory)));
        }
        self.nodes[place].failed.extend(directories);
    }

    /// A disk is full, or descriptors are short: what isn't asked for by a write of its own isn't saved meanwhile.
    pub fn begin_shortage(&self) {
        if let Some(shared) = &self.shared {
            shared.shortages.set(shared.shortages.get() + 1);
            shared.shortages_begun.set(shared.shortages_begun.get() + 1);
        }
    }

    /// That is over.
    pub fn end_shortage(&self) {
        if let Some(shared) = &self.shared {
            shared.shortages.set(shared.shortages.get().saturating_sub(1));
        }
    }

    /// It fails no more; until the node is started again, it may still suffer from it.
    pub fn end_excuse(&mut self, place: usize) {
        self.nodes[place].faults = self.nodes[place].faults.saturating_sub(1);
    }

    /// Looks at nodes that have ended by themselves, and has those started again that may. What no run may show goes to
    /// the world.
    pub fn look_after(&mut self, starts: &mut Vec<(u64, usize)>) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let Some(exit) = node.process.and_then(|process| self.world.exit(process)) else { continue };
            node.process = None;
            node.has_stopped = exit == Exit::Returned && node.is_stopping && !node.is_excused;
            let is_right = match exit {
                Exit::Returned => node.is_stopping,
                Exit::Halted(_) => node.may_end(),
                Exit::Killed | Exit::PowerLost => true,
                Exit::Panicked(_) => false,
            };
            if !is_right {
                self.world.add_violation(format!("node {} ended by itself: {exit:?}", node.plan.id));
            }
            if !node.is_stopping {
                starts.push((self.world.now_ns() + AGAIN_AFTER_NS, place));
            }
        }
    }

    /// Whether some node has ended that nobody has looked at.
    pub fn has_news(&self) -> bool {
        self.nodes.iter().any(|node| node.process.is_some_and(|process| self.world.exit(process).is_some()))
    }
}
