//! A run: the cluster comes up, clients work, things go wrong, everything is healed, and then all that was promised must
//! be there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use ringlog_ring::sim::{self, Exit, MS, ProcessId, SECOND, World};
use ringlog_shards::{Leftovers, LogCut};

use crate::check::Asked;
use crate::check::fenced;
use crate::check::files::{self, Range};
use crate::check::in_sync::{self, Standing, Standings};
use crate::check::replicas::{self, Batches};
use crate::client::{
    Shared, admin, changer, committer, consumer, crowd, last_reader, maker, member, mover, prober, producer, pruner,
    reborn, rude, sizer, watcher,
};
use crate::cluster::Cluster;
use crate::nemesis::{self, ALL_DESCRIPTORS, Fault, HEALS_WITHIN_NS};
use crate::node;
use crate::plan::Plan;
use crate::weather::Weather;

/// The longest that a new cluster may take until its topics are there.
const COMES_UP_WITHIN_NS: u64 = 60 * SECOND;
/// The longest that clients may take to end, and nodes.
const ENDS_WITHIN_NS: u64 = 90 * SECOND;
/// How often it is looked whether everything goes on.
const LOOK_EVERY_NS: u64 = 20 * MS;
/// How often it is looked whether those in sync have what they have to have.
const LOOK_AT_REPLICAS_EVERY_NS: u64 = 300 * MS;
/// The longest that a replica that can't follow may hold up what it is in sync for: one and a half times the time that it may
/// lag, and what a controller and a leader need.
const HELD_UP_WITHIN_NS: u64 = 7 * SECOND;
/// How long clients go on when all replicas are in sync, where nothing was promised before.
const GOES_ON_NS: u64 = 3 * SECOND;
/// How long a process's last events may be on their way.
const SETTLES_NS: u64 = 5 * SECOND;
/// The longest that reading everything may take.
const READ_WITHIN_NS: u64 = 300 * SECOND;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The same for the same seed.
    pub trace_hash: u64,
    /// How much happened.
    pub events: u64,
    /// The world's time at the end.
    pub took_ns: u64,
    /// Batches and commits that were acknowledged.
    pub answers: u64,
    /// Epochs of the quorum that had a leader, where they are counted.
    pub elections: u64,
    /// What no run may show.
    pub violations: Vec<String>,
}

/// A run in progress.
struct Run<'a> {
    plan: &'a Plan,
    world: &'a World,
    cluster: Cluster,
    shared: Rc<Shared>,
    clients: Vec<(String, ProcessId)>,
    /// What is said of partitions.
    standings: Rc<RefCell<Standings>>,
    /// Where partitions started and ended when everything was read, by their folders' names.
    ranges: BTreeMap<String, Range>,
}

/// Carries out a plan. `look` gets the world before anything happens in it.
pub fn run(plan: &Plan, look: impl FnOnce(&World)) -> Outcome {
    let world = World::new(plan.world());
    look(&world);
    let mut cluster = Cluster::new(&world, plan);
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        brokers: cluster.brokers().collect(),
        hosts: cluster.nodes.iter().map(|node| (node.plan.id, node.host)).collect(),
        ledgers: RefCell::default(),
        reached: RefCell::default(),
        commits: RefCell::default(),
        configs: RefCell::default(),
        groups: RefCell::default(),
        read_at_ms: Cell::new(0),
        topics: RefCell::default(),
        healed_at_ns: Cell::new(None),
        is_over: Cell::new(false),
        faults_from_ns: Cell::new(u64::MAX),
        failed: RefCell::default(),
        shortages: Cell::new(0),
        shortages_begun: Cell::new(0),
        lost_power_ns: Cell::new(0),
        replicas: RefCell::default(),
        is_settled: Cell::new(false),
    });
    cluster.tell(&shared);
    let standings = Standings::begin(&world, plan.topics.iter().map(|topic| topic.name.clone()).collect());
    let clients = Vec::new();
    let mut run = Run { plan, world: &world, cluster, shared, clients, standings, ranges: BTreeMap::new() };
    run.watch_cuts();
    run.watch_fencing();
    // What a step finds out makes the next ones pointless.
    let _ = run.come_up() && run.go_wrong() && run.heal() && run.read() && run.end();
    let answers = run.shared.ledgers.borrow().values().map(|ledger| ledger.answers()).sum::<u64>();
    let answers = answers + run.shared.commits.borrow().answers + run.shared.groups.borrow().answers;
    drop(run);
    Outcome {
        trace_hash: world.trace_hash(),
        events: world.events(),
        took_ns: world.now_ns(),
        answers,
        elections: 0,
        violations: world.take_violations(),
    }
}

impl Run<'_> {
    fn complain(&self, text: String) -> bool {
        self.world.add_violation(text);
        false
    }

    fn is_fine(&self) -> bool {
        !self.world.has_violations()
    }

    /// Starts the nodes, makes the topics, starts the clients.
    fn come_up(&mut self) -> bool {
        (0..self.cluster.nodes.len()).for_each(|place| self.cluster.start(place));
        let made = Rc::new(Cell::new(false));
        let (shared, told) = (self.shared.clone(), made.clone());
        let clients = self.cluster.clients;
        let maker = self.world.start(clients, "maker", move || async move {
            maker::run(&shared).await;
            told.set(true);
        });
        let cluster = &self.cluster;
        self.world.run_until(COMES_UP_WITHIN_NS, || {
            self.world.exit(maker).is_some() || self.world.has_violations() || cluster.has_news()
        });
        self.cluster.look_after(&mut Vec::new());
        if self.is_fine() && !made.get() {
            return self.complain("the cluster doesn't come up".to_owned());
        }
        self.start_clients();
        self.start_rare_clients();
        self.is_fine()
    }

    /// Those that there are in many runs.
    fn start_clients(&mut self) {
        for number in 0..self.plan.producers.len() {
            let shared = self.shared.clone();
            self.start_client(format!("producer-{number}"), move || producer::run(shared, number as u32));
        }
        for number in 0..self.plan.consumers {
            let shared = self.shared.clone();
            self.start_client(format!("reader-{number}"), move || consumer::run(shared, number));
        }
        for number in 0..self.plan.committers {
            let shared = self.shared.clone();
            self.start_client(format!("committer-{number}"), move || committer::run(shared, number));
        }
        for (group, plan) in self.plan.workload.groups.iter().enumerate() {
            for number in 0..plan.members {
                let shared = self.shared.clone();
                self.start_client(format!("member-{group}-{number}"), move || member::run(shared, group, number));
            }
        }
    }

    /// Those that there are in some.
    fn start_rare_clients(&mut self) {
        if self.plan.workload.pruned_topics().next().is_some() {
            let shared = self.shared.clone();
            self.start_client("pruner".to_owned(), move || pruner::run(shared));
        }
        if self.plan.workload.has_changer {
            let shared = self.shared.clone();
            self.start_client("changer".to_owned(), move || changer::run(shared));
        }
        if self.plan.workload.has_reborn_topic {
            let shared = self.shared.clone();
            self.start_client("reborn".to_owned(), move || reborn::run(shared));
        }
        if self.plan.has_admin {
            let shared = self.shared.clone();
            self.start_client("admin".to_owned(), move || admin::run(shared));
        }
        if self.plan.has_mover {
            let shared = self.shared.clone();
            self.start_client("mover".to_owned(), move || mover::run(shared));
        }
        if self.plan.has_rude_client {
            let shared = self.shared.clone();
            self.start_client("rude".to_owned(), move || rude::run(shared));
        }
        if self.plan.workload.has_sizer {
            let shared = self.shared.clone();
            self.start_client("sizer".to_owned(), move || sizer::run(shared));
        }
        if self.plan.workload.has_prober {
            let shared = self.shared.clone();
            self.start_client("prober".to_owned(), move || prober::run(shared));
        }
        if let Some((_, limit)) = self.plan.workload.crowd {
            let shared = self.shared.clone();
            self.start_client("crowd".to_owned(), move || crowd::run(shared, limit));
        }
        if self.plan.weather.is_watched() {
            let shared = self.shared.clone();
            self.start_client("watcher".to_owned(), move || watcher::run(shared));
        }
    }

    fn start_client<Fut>(&mut self, name: String, main: impl FnOnce() -> Fut + 'static)
    where
        Fut: Future<Output = ()> + 'static,
    {
        let process = self.world.start(self.cluster.clients, &name, main);
        self.clients.push((name, process));
    }

    /// Faults come and go.
    fn go_wrong(&mut self) -> bool {
        let begun_ns = self.world.now_ns();
        let first_ns = self.plan.faults.first().map_or(u64::MAX, |planned| begun_ns + planned.at_ns);
        self.shared.faults_from_ns.set(first_ns);
        // By their time: a fault begins, ends; a node is started.
        let mut steps: Vec<(u64, Step)> = Vec::new();
        for (place, planned) in self.plan.faults.iter().enumerate() {
            steps.push((begun_ns + planned.at_ns, Step::Begin(place)));
        }
        steps.push((begun_ns + self.plan.lasts_ns, Step::Over));
        let mut starts = Vec::new();
        while let Some(next) = steps.iter().enumerate().min_by_key(|(_, (at_ns, _))| *at_ns).map(|(index, _)| index) {
            let at_ns = steps[next].0.max(self.world.now_ns());
            let cluster = &self.cluster;
            let look_ns = if self.plan.replicas > 1 { LOOK_AT_REPLICAS_EVERY_NS } else { u64::MAX };
            let for_ns = (at_ns - self.world.now_ns()).min(look_ns);
            self.world.run_until(for_ns, || self.world.has_violations() || cluster.has_news());
            self.check_in_sync();
            self.cluster.look_after(&mut starts);
            steps.extend(starts.drain(..).map(|(at_ns, place)| (at_ns, Step::Start(place))));
            if !self.is_fine() {
                return false;
            }
            if self.world.now_ns() < at_ns {
                continue;
            }
            match steps.remove(next).1 {
                Step::Begin(place) => {
                    let planned = &self.plan.faults[place];
                    nemesis::begin(&mut self.cluster, &planned.fault, planned.for_ns);
                    steps.push((self.world.now_ns() + planned.for_ns, Step::End(place)));
                }
                Step::End(place) => {
                    if let Fault::PartFromBrokers { .. } = self.plan.faults[place].fault {
                        self.check_progress();
                    }
                    for node in nemesis::end(&mut self.cluster, &self.plan.faults[place].fault) {
                        self.cluster.start(node);
                    }
                }
                Step::Start(place) => self.cluster.start(place),
                Step::Over if steps.is_empty() => break,
                // Faults that have begun end first.
                Step::Over => steps.push((steps.iter().map(|(at_ns, _)| *at_ns).max().unwrap_or(at_ns), Step::Over)),
            }
        }
        self.is_fine()
    }

    /// Nothing is wrong any more; before long everything goes on.
    fn heal(&mut self) -> bool {
        self.world.heal_network();
        for place in 0..self.cluster.nodes.len() {
            nemesis::mend_disks(self.world, &self.cluster, place);
            let node = &self.cluster.nodes[place];
            self.world.set_descriptors(node.host, ALL_DESCRIPTORS);
            if let Some(process) = node.process {
                self.world.resume(process);
            }
            // Directories that failed are offline until the node is started again.
            if node.is_excused {
                self.cluster.kill(place);
            }
            self.cluster.start(place);
        }
        self.world.note(|| "nothing is wrong any more".to_owned());
        self.shared.healed_at_ns.set(Some(self.world.now_ns()));
        let before = self.answers_by_partition();
        let commits = self.shared.commits.borrow().answers;
        self.shared.reached.borrow_mut().clear();
        let ends: BTreeMap<_, _> =
            self.shared.ledgers.borrow().iter().map(|(at, ledger)| (*at, ledger.end())).collect();
        let deadline_ns = self.world.now_ns() + HEALS_WITHIN_NS;
        let mut starts = Vec::new();
        loop {
            let cluster = &self.cluster;
            let left_ns = deadline_ns.saturating_sub(self.world.now_ns());
            // Looked at now and then: it isn't cheap.
            let next_look_ns = Cell::new(0);
            let goes_on = || {
                let now_ns = self.world.now_ns();
                now_ns >= next_look_ns.get() && {
                    next_look_ns.set(now_ns + LOOK_EVERY_NS);
                    self.stuck(&before, commits, &ends).is_none()
                }
            };
            let has_all =
                self.world.run_until(left_ns, || self.world.has_violations() || cluster.has_news() || goes_on());
            // One that was told to stop before, or that ended because of what was wrong.
            self.cluster.look_after(&mut starts);
            for (_, place) in starts.drain(..) {
                self.cluster.start(place);
            }
            let down: Vec<usize> =
                (0..self.cluster.nodes.len()).filter(|place| self.cluster.nodes[*place].process.is_none()).collect();
            let is_down = !down.is_empty();
            down.into_iter().for_each(|place| self.cluster.start(place));
            if !self.is_fine() {
                return false;
            }
            if !has_all {
                let what = self.stuck(&before, commits, &ends).unwrap_or_default();
                return self.complain(format!("nothing is wrong, and yet {what}"));
            }
            if !is_down {
                break;
            }
        }
        if self.plan.is_unclean && !self.settle() {
            return false;
        }
        self.shared.is_over.set(true);
        let (world, clients) = (self.world, &self.clients);
        let has_ended = || clients.iter().all(|(_, client)| world.exit(*client).is_some());
        world.run_until(ENDS_WITHIN_NS, || world.has_violations() || has_ended());
        if self.is_fine() && !has_ended() {
            let left = clients.iter().filter(|(_, client)| world.exit(*client).is_none());
            let left: Vec<_> = left.map(|(name, _)| name.as_str()).collect();
            return self.complain(format!("they wait for ever: {left:?}"));
        }
        self.is_fine()
    }

    /// Nobody can come to lead any more who knows less than others: from now on promises count.
    fn settle(&mut self) -> bool {
        let standings = self.standings.clone();
        let are_full = || standings.borrow().are_full();
        if !self.world.run_until(HEALS_WITHIN_NS, || self.world.has_violations() || are_full()) {
            return self.complain(format!("not all replicas get in sync: {:?}", self.standings.borrow().partitions()));
        }
        self.shared.is_settled.set(true);
        let now_ns = self.world.now_ns();
        self.shared.ledgers.borrow_mut().values_mut().for_each(|ledger| ledger.on_loss(now_ns));
        self.world.run_for(GOES_ON_NS);
        self.is_fine()
    }

    /// Nobody is said to be in sync who lacks something that was acknowledged.
    fn check_in_sync(&self) {
        if self.plan.replicas == 1 {
            return;
        }
        let ledgers = self.shared.ledgers.borrow();
        let standings = self.standings.borrow();
        for (at, standing) in standings.partitions() {
            let acknowledged = ledgers.get(at).map_or(0, |ledger| ledger.end());
            if acknowledged == 0 {
                continue;
            }
            let name = format!("{}-{}", self.plan.topics[at.0].name, at.1);
            for node in self.cluster.nodes.iter().filter(|node| standing.in_sync.contains(&node.plan.id)) {
                if let Some(kafka) = &node.kafka {
                    let end = kafka.end_of(&name).unwrap_or(0);
                    self.check_end(&name, node.plan.id, end, acknowledged, standing);
                    continue;
                }
                let list = |folder: &Path| self.world.list(node.host, folder).unwrap_or_default();
                // While a replica changes its directory its folders change their names, one after the other.
                let is_its = |folder: &String| *folder == name || folder.starts_with(&format!("{name}."));
                let folders = node.plan.directories().into_iter().flat_map(|directory| {
                    let names = list(Path::new(&directory)).into_iter().filter(is_its);
                    names.map(|name| Path::new(&directory).join(name)).collect::<Vec<_>>()
                });
                let ends = folders.filter_map(|folder| {
                    in_sync::log_end(&list(&folder), |file, batches_end| {
                        self.world.with_file(node.host, &folder.join(file), batches_end)
                    })
                });
                self.check_end(&name, node.plan.id, ends.max().unwrap_or(0), acknowledged, standing);
            }
        }
    }

    fn check_end(&self, name: &str, id: i32, end: i64, acknowledged: i64, standing: &Standing) {
        if end < acknowledged {
            self.complain(format!("{name} of node {id} ends at {end}, below {acknowledged}: {standing:?}"));
        }
    }

    /// Who can't follow holds nobody up for long.
    fn check_progress(&self) {
        let now_ns = self.world.now_ns();
        for (at, ledger) in self.shared.ledgers.borrow().iter().filter(|(at, _)| self.plan.is_answered(at.0)) {
            let since_ms = now_ns.saturating_sub(ledger.answered_at_ns()) / MS;
            if since_ms > HELD_UP_WITHIN_NS / MS {
                let standing = self.standings.borrow().partitions().get(at).cloned();
                self.complain(format!("nothing is acknowledged in {at:?} for {since_ms} ms: {standing:?}"));
            }
        }
    }

    /// Where nobody else comes to lead, no log is cut.
    fn watch_cuts(&self) {
        if self.plan.weather != Weather::Calm || self.plan.has_mover {
            return;
        }
        let shared = self.shared.clone();
        self.world.observe(move |context, value| {
            // When all nodes stop one leads who lacks what nobody was promised.
            if let Some(cut) = value.downcast_ref::<LogCut>().filter(|_| !shared.is_over.get()) {
                sim::control().add_violation(format!("{}: nothing is wrong, and {cut:?}", context.host));
            }
        });
    }

    /// Where nothing is silent or lost, everybody serves on.
    fn watch_fencing(&self) {
        if self.plan.faults.is_empty() && self.plan.loss_permille == 0 {
            let shared = self.shared.clone();
            fenced::watch(self.world, move || shared.is_over.get());
        }
    }

    /// What doesn't go on, if anything.
    fn stuck(
        &self,
        before: &BTreeMap<(usize, i32), u64>,
        commits: u64,
        ends: &BTreeMap<(usize, i32), i64>,
    ) -> Option<String> {
        if let Some(node) = self.cluster.nodes.iter().find(|node| node.is_stopping && node.process.is_some()) {
            return Some(format!("node {} is about to stop", node.plan.id));
        }
        if self.plan.committers > 0 && self.shared.commits.borrow().answers <= commits {
            return Some("no commit is acknowledged".to_owned());
        }
        let ledgers = self.shared.ledgers.borrow();
        for (at, ledger) in ledgers.iter().filter(|(at, _)| self.plan.is_answered(at.0)) {
            if ledger.answers() <= before.get(at).copied().unwrap_or(0) + 1 {
                return Some(format!("nothing is acknowledged in {at:?}"));
            }
        }
        let reached = self.shared.reached.borrow();
        for number in 0..self.plan.consumers {
            let topic = number % self.plan.topics.len();
            for (at, end) in ends.iter().filter(|(at, _)| at.0 == topic) {
                if reached.get(&(number, at.1)).copied().unwrap_or(0) < *end {
                    return Some(format!("reader {number} doesn't get to {end} of {at:?}"));
                }
            }
        }
        let healed_at_ns = self.shared.healed_at_ns.get().unwrap_or(0);
        let groups = self.shared.groups.borrow();
        let mut plans = self.plan.workload.groups.iter().enumerate();
        let unrest = plans.find_map(|(group, plan)| groups.unrest(group, plan.members, healed_at_ns));
        unrest.or_else(|| self.misplaced()).or_else(|| self.doubled())
    }

    /// A partition with one replica that lies on two nodes: one of them hasn't heard yet that it was deleted, and made anew
    /// elsewhere.
    fn doubled(&self) -> Option<String> {
        let mut places = BTreeSet::new();
        let brokers = self.cluster.nodes.iter().filter(|node| node.plan.is_broker && node.kafka.is_none());
        for node in brokers.filter(|_| self.plan.replicas == 1) {
            for directory in node.plan.directories() {
                let names = self.world.list(node.host, Path::new(&directory)).unwrap_or_default();
                for name in names.into_iter().filter(|name| files::is_log(name)) {
                    if !places.insert(name.clone()) {
                        return Some(format!("{name} lies on two nodes"));
                    }
                }
            }
        }
        None
    }

    /// A replica that lies in another directory than the metadata says.
    fn misplaced(&self) -> Option<String> {
        for (at, standing) in self.standings.borrow().partitions() {
            let name = format!("{}-{}", self.plan.topics[at.0].name, at.1);
            for (id, said) in standing.replicas.iter().zip(&standing.directories) {
                let node = self.cluster.nodes.iter().find(|node| node.plan.id == *id && node.kafka.is_none());
                let Some(node) = node else { continue };
                let is_there =
                    |directory: &String| self.world.list(node.host, &Path::new(directory).join(&name)).is_ok();
                let place = node.plan.directories().iter().position(is_there);
                let actual = place.map(|place| node::directory_id(self.plan, *id, place, 0));
                if actual != Some(*said) {
                    return Some(format!("{name} of node {id} lies in {actual:?}, and is said to lie in {said}"));
                }
            }
        }
        None
    }

    fn answers_by_partition(&self) -> BTreeMap<(usize, i32), u64> {
        self.shared.ledgers.borrow().iter().map(|(at, ledger)| (*at, ledger.answers())).collect()
    }

    /// Everything is read and compared.
    fn read(&mut self) -> bool {
        let shared = self.shared.clone();
        let all = self.world.run_program(self.cluster.clients, "last reader", READ_WITHIN_NS, move || async move {
            last_reader::run(&shared).await
        });
        match all {
            None if self.is_fine() => self.complain("reading everything doesn't come to an end".to_owned()),
            None => false,
            Some(Err(fault)) => self.complain(format!("reading everything: {fault}")),
            Some(Ok(all)) => {
                for (at, start, found) in all {
                    let asked = Asked { opened_at_ns: self.world.now_ns(), sent_at_ns: self.world.now_ns() };
                    let end = start + found.len() as i64;
                    self.ranges.insert(format!("{}-{}", self.plan.topics[at.0].name, at.1), (start, end, end));
                    let checked = self.shared.with_ledger(at, |ledger| {
                        ledger.on_start(asked, (start, end), self.shared.read_at_ms.get())?;
                        ledger.check(at, start, &found)
                    });
                    checked.unwrap_or_else(|fault| self.world.add_violation(format!("partition {at:?}: {fault}")));
                }
                self.is_fine()
            }
        }
    }

    /// All nodes stop in order, and nothing of any process is left.
    fn end(&mut self) -> bool {
        let leftovers = self.watch_leftovers();
        let nodes: Vec<_> = self.cluster.nodes.iter().filter_map(|node| Some((node.plan.id, node.process?))).collect();
        for place in 0..self.cluster.nodes.len() {
            // Brokers first, as an operator does it: they need a controller to leave in order.
            if !self.cluster.nodes[place].plan.is_controller {
                self.cluster.stop(place);
            }
        }
        let world = self.world;
        let brokers: Vec<_> = self.cluster.nodes.iter().filter(|node| !node.plan.is_controller).collect();
        world.run_until(ENDS_WITHIN_NS, || {
            brokers.iter().all(|node| node.process.is_none_or(|process| world.exit(process).is_some()))
        });
        (0..self.cluster.nodes.len()).for_each(|place| self.cluster.stop(place));
        world.run_until(ENDS_WITHIN_NS, || nodes.iter().all(|(_, node)| world.exit(*node).is_some()));
        for (id, node) in nodes {
            let exit = world.exit(node);
            if exit != Some(Exit::Returned) {
                world.add_violation(format!("node {id} was told to stop, and its end is {exit:?}"));
            }
        }
        self.check_leftovers(&leftovers.borrow());
        world.run_for(SETTLES_NS);
        // What got lost on its way is sent again.
        world.run_until(ENDS_WITHIN_NS, || world.connections() == 0);
        let left = (world.leaked_processes(), world.connections());
        if left != (0, 0) {
            let (processes, connections) = left;
            return self
                .complain(format!("{processes} processes that ended hold memory, {connections} connections are left"));
        }
        self.check_files();
        self.is_fine()
    }

    /// What cores that end hold, by their hosts: nobody is connected any more.
    fn watch_leftovers(&self) -> Rc<RefCell<BTreeMap<String, Vec<Leftovers>>>> {
        let all: Rc<RefCell<BTreeMap<String, Vec<Leftovers>>>> = Rc::default();
        let seen = all.clone();
        self.world.observe(move |context, value| {
            if let Some(left) = value.downcast_ref::<Leftovers>() {
                seen.borrow_mut().entry(context.host.clone()).or_default().push(left.clone());
            }
        });
        all
    }

    /// Whoever stops holds nothing more of what was lent to it.
    fn check_leftovers(&self, all: &BTreeMap<String, Vec<Leftovers>>) {
        for (host, cores) in all {
            // Who was cut off on another core may not have been signed out in time.
            let is_cut_off = cores.iter().any(|left| left.connections > 0);
            for left in cores.iter().filter(|left| left.connections == 0) {
                let admitted = if is_cut_off { 0 } else { left.admitted };
                if (left.request_bytes, left.response_bytes, admitted) != (0, 0, 0) {
                    self.complain(format!("a core of {host} ends, and {left:?}"));
                }
            }
        }
    }

    /// How many replicas a partition has, by its folder's name.
    fn replicas_of(&self, name: &str) -> usize {
        let replicas = self.shared.replicas.borrow();
        let is_it =
            |(topic, partition): &(usize, i32)| format!("{}-{partition}", self.plan.topics[*topic].name) == name;
        replicas.iter().find(|(at, _)| is_it(at)).map_or(0, |(_, count)| *count)
    }

    /// What the nodes left on their disks.
    fn check_files(&self) {
        let mut ranges: BTreeMap<String, Vec<Range>> = BTreeMap::new();
        let mut replicas: BTreeMap<String, Vec<Batches>> = BTreeMap::new();
        let is_replicated =
            |name: &str| self.plan.replicas > 1 && ["orders-", "made-", "__"].iter().any(|own| name.starts_with(own));
        for kafka in self.cluster.nodes.iter().filter_map(|node| node.kafka.as_ref()) {
            for (name, range, batches) in kafka.replicas() {
                ranges.entry(name.clone()).or_default().push(range);
                replicas.entry(name).or_default().push(batches);
            }
        }
        for node in self.cluster.nodes.iter().filter(|node| node.plan.is_broker && node.kafka.is_none()) {
            for directory in node.plan.directories() {
                let place = format!("{directory} of node {}", node.plan.id);
                self.cluster.with_files(node, &directory, |files| match files.check() {
                    Ok(found) => {
                        for (name, range) in found {
                            if is_replicated(&name) {
                                let segments = (files.list)(&name);
                                let read = |file: &str| (files.read)(&format!("{name}/{file}"));
                                let batches = replicas::batches(&segments, read);
                                replicas.entry(name.clone()).or_default().push(batches);
                            } else if ranges.contains_key(&name) {
                                self.complain(format!("{place}: {name} is elsewhere, too"));
                            }
                            ranges.entry(name).or_default().push(range);
                        }
                    }
                    Err(fault) => drop(self.complain(format!("{place}: {fault}"))),
                });
            }
        }
        let is_alone = self.plan.replicas == 1;
        for (name, was) in &self.ranges {
            // Who wants no answer may have written since. Of an only replica all that is written is committed.
            let is_right = |is: &Range| is.0 >= was.0 && is.1 >= was.1 && (is.2 == is.1 || !is_alone);
            let found = ranges.get(name).map_or(&[][..], Vec::as_slice);
            let wanted = self.replicas_of(name);
            if found.len() != wanted || !found.iter().all(is_right) {
                self.complain(format!("{name} was read from {} to {}, and is {found:?}", was.0, was.1));
            }
        }
        for (name, replicas) in &replicas {
            for other in &replicas[1..] {
                let compared = replicas::compare(&replicas[0], other);
                if let Err(fault) = compared {
                    self.complain(format!("replicas of {name}: {fault}"));
                }
            }
        }
    }
}

enum Step {
    Begin(usize),
    End(usize),
    Start(usize),
    Over,
}
