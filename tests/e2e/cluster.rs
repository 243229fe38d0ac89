//! Several nodes that are one cluster, each of them Ringlog or Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringlog_client::{Client, ClientOptions};

use crate::child::LineProcess;
use crate::jvm::{self, Jvm};
use crate::metadata_log::{self, MetadataLog};
use crate::node::{Kind, Node, NodePlan, Roles};
use crate::place::Place;
use crate::quorum_view::{self, QuorumView};
use crate::wait_until;

/// How long the cluster may take for what it is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a broker may wait for controllers that are about to stop.
const LEAVE: Duration = Duration::from_secs(12);

/// Ids of brokers without the controller role begin here.
pub const FIRST_BROKER: i32 = 11;

/// One cluster at a time: the tests of a program would run all at once otherwise, with more nodes than a small machine
/// has memory and time for.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a cluster's first voters are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voters {
    /// `controller.quorum.voters` on every node; kraft.version 0.
    Static,
    /// All controllers were named to `storage format` (`--initial-controllers`).
    Initial,
    /// The first controller begins alone (`--standalone`), the others are observers until they are added
    /// (`--no-initial-controllers`).
    Standalone,
}

/// What a cluster shall be.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    name: String,
    voters: Voters,
    settings: String,
    java_options: Vec<String>,
    nodes: Vec<(i32, Kind, Roles, Option<Place>)>,
}

impl ClusterPlan {
    /// A cluster without nodes.
    pub fn new(name: &str, voters: Voters) -> ClusterPlan {
        let (settings, java_options) = (String::new(), Vec::new());
        ClusterPlan { name: name.to_owned(), voters, settings, java_options, nodes: Vec::new() }
    }

    /// Lines for every node's `server.properties`.
    pub fn settings(mut self, lines: &str) -> ClusterPlan {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    /// Options for the Java of every Kafka, in place of those for tests.
    pub fn java_options(mut self, options: &[&str]) -> ClusterPlan {
        self.java_options = options.iter().map(|option| (*option).to_owned()).collect();
        self
    }

    /// So many more nodes with the controller role, with ids from 1 on; `kinds` in turn.
    pub fn controllers(self, count: usize, kinds: &[Kind], roles: Roles) -> ClusterPlan {
        self.nodes(count, kinds, roles, 1)
    }

    /// So many more nodes with only the broker role, with ids from [`FIRST_BROKER`] on; `kinds` in turn.
    pub fn brokers(self, count: usize, kinds: &[Kind]) -> ClusterPlan {
        self.nodes(count, kinds, Roles::Broker, FIRST_BROKER)
    }

    fn nodes(mut self, count: usize, kinds: &[Kind], roles: Roles, first: i32) -> ClusterPlan {
        let there = self.nodes.iter().filter(|(.., known, _)| known.is_controller() == roles.is_controller()).count();
        for (id, kind) in (first..).skip(there).zip(kinds.iter().cycle()).take(count) {
            self.nodes.push((id, *kind, roles, None));
        }
        self
    }

    /// Gives the nodes their places, in the order in which they were added.
    pub fn places(mut self, places: Vec<Place>) -> ClusterPlan {
        for (node, place) in self.nodes.iter_mut().zip(places) {
            node.3 = Some(place);
        }
        self
    }

    /// Makes the nodes, configured and formatted.
    pub fn prepare(self) -> Result<Cluster> {
        let nodes = self.nodes.clone();
        let mut cluster = Cluster { plan: self, nodes: BTreeMap::new(), paused: BTreeSet::new() };
        for (id, kind, roles, place) in nodes {
            cluster.insert(id, kind, roles, place)?;
        }
        cluster.configure()?;
        cluster.format()?;
        Ok(cluster)
    }
}

/// The nodes.
#[derive(Debug)]
pub struct Cluster {
    plan: ClusterPlan,
    nodes: BTreeMap<i32, Node>,
    paused: BTreeSet<i32>,
}

impl Cluster {
    fn insert(&mut self, id: i32, kind: Kind, roles: Roles, place: Option<Place>) -> Result<()> {
        let place = match place {
            Some(place) => place,
            None => Place::own_loopback()?,
        };
        let node = Node::new(NodePlan {
            name: format!("{}-{id}", self.plan.name),
            kind,
            id,
            roles,
            log_dirs: "data".to_owned(),
            settings: self.plan.settings.clone(),
            place,
            java_options: self.plan.java_options.clone(),
        })?;
        ensure!(self.nodes.insert(id, node).is_none(), "node {id} is there already");
        Ok(())
    }

    /// Tells the nodes where the controllers are.
    fn configure(&mut self) -> Result<()> {
        let (key, value) = match self.plan.voters {
            Voters::Static => ("controller.quorum.voters", self.static_voters()),
            _ => ("controller.quorum.bootstrap.servers", self.controllers().join(",")),
        };
        self.nodes.values_mut().try_for_each(|node| node.set(key, &value))
    }

    /// `ID@HOST:PORT,…`
    pub fn static_voters(&self) -> String {
        let voters = self.controller_nodes().map(|node| format!("{}@{}", node.id(), node.controller()));
        voters.collect::<Vec<_>>().join(",")
    }

    fn format(&self) -> Result<()> {
        let mut initial = Vec::new();
        for node in self.controller_nodes() {
            initial.push(format!("{}@{}:{}", node.id(), node.controller(), random_id()?));
        }
        let initial = initial.join(",");
        for (number, node) in self.controller_nodes().enumerate() {
            match self.plan.voters {
                Voters::Static => node.format(&[])?,
                Voters::Initial => node.format(&["--initial-controllers", &initial])?,
                Voters::Standalone if number == 0 => node.format(&["--standalone"])?,
                Voters::Standalone => node.format(&["--no-initial-controllers"])?,
            }
        }
        self.nodes.values().filter(|node| !node.roles().is_controller()).try_for_each(|node| node.format(&[]))
    }

    /// One more node, configured and formatted; a controller as an observer at first.
    pub fn add(&mut self, id: i32, kind: Kind, roles: Roles) -> Result<()> {
        self.insert(id, kind, roles, None)?;
        self.configure()?;
        let arguments: &[&str] = match self.plan.voters {
            Voters::Static => &[],
            _ if roles.is_controller() => &["--no-initial-controllers"],
            _ => &[],
        };
        self.nodes[&id].format(arguments)
    }

    /// Changes how nodes find the controllers, for their next starts.
    pub fn become_dynamic(&mut self) -> Result<()> {
        self.plan.voters = Voters::Initial;
        self.nodes.values_mut().try_for_each(|node| node.set("controller.quorum.voters", ""))?;
        self.configure()
    }

    /// Starts every node that isn't running, and waits until all serve.
    pub fn start(&mut self) -> Result<()> {
        for node in self.nodes.values_mut().filter(|node| !node.is_started()) {
            node.spawn()?;
        }
        let leader = self.wait_for_leader();
        leader.context("the start of the cluster")?;
        self.nodes.values_mut().try_for_each(Node::wait_until_ready)
    }

    /// Starts one node and waits until it serves.
    pub fn start_node(&mut self, id: i32) -> Result<()> {
        self.node(id)?.start()
    }

    /// Stops every node that runs, in order: first the brokers, since they ask the controllers for leave.
    ///
    /// When nodes that are both stop together, the last may find no majority that could give its broker leave, for which
    /// Kafka waits five minutes: such are killed. Their ids.
    pub fn stop(&mut self) -> Result<BTreeSet<i32>> {
        let mut killed = BTreeSet::new();
        for roles in [Roles::Broker, Roles::Both, Roles::Controller] {
            let mut nodes: Vec<&mut Node> =
                self.nodes.values_mut().filter(|node| node.is_started() && node.roles() == roles).collect();
            nodes.iter_mut().try_for_each(|node| node.ask_to_stop())?;
            for node in nodes {
                if roles != Roles::Both || node.stops_within(LEAVE) {
                    node.wait_until_stopped()?;
                } else {
                    node.kill()?;
                    killed.insert(node.id());
                }
            }
        }
        Ok(killed)
    }

    /// A node.
    pub fn node(&mut self, id: i32) -> Result<&mut Node> {
        self.nodes.get_mut(&id).with_context(|| format!("a node {id}"))
    }

    /// All nodes by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The nodes with the controller role.
    pub fn controller_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.roles().is_controller())
    }

    /// The ids of the nodes with the controller role.
    pub fn controller_ids(&self) -> Vec<i32> {
        self.controller_nodes().map(Node::id).collect()
    }

    /// Where the controllers listen.
    pub fn controllers(&self) -> Vec<String> {
        self.controller_nodes().map(Node::controller).collect()
    }

    /// Where each broker listens.
    pub fn brokers(&self) -> Vec<String> {
        self.nodes.values().filter(|node| node.roles().is_broker()).map(Node::bootstrap).collect()
    }

    /// Where clients may begin.
    pub fn bootstrap(&self) -> String {
        self.brokers().join(",")
    }

    /// A client of the brokers.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.bootstrap(), ClientOptions::default())?)
    }

    /// As many replicas as a topic can have here, and as are usual.
    pub fn replicas(&self) -> i16 {
        self.nodes.values().filter(|node| node.roles().is_broker()).count().min(3) as i16
    }

    /// Makes a node stand still.
    pub fn pause(&mut self, id: i32) -> Result<()> {
        self.node(id)?.pause()?;
        self.paused.insert(id);
        Ok(())
    }

    /// Lets a node go on.
    pub fn resume(&mut self, id: i32) -> Result<()> {
        self.node(id)?.resume()?;
        self.paused.remove(&id);
        Ok(())
    }

    /// What the leader says, if there is one; of two, the newer.
    pub fn view(&mut self) -> Result<Option<QuorumView>> {
        let mut newest: Option<QuorumView> = None;
        for node in self.nodes.values_mut().filter(|node| node.roles().is_controller() && node.is_started()) {
            if self.paused.contains(&node.id()) {
                continue;
            }
            ensure!(node.is_stopping() || node.is_alive(), "node {} has ended", node.id());
            let view = quorum_view::ask(&node.controller())?;
            if let Some(view) = view
                && newest.as_ref().is_none_or(|newest| newest.epoch < view.epoch)
            {
                newest = Some(view);
            }
        }
        Ok(newest)
    }

    /// Waits until the leader says what is wanted.
    pub fn wait_for_view(&mut self, what: &str, mut is_so: impl FnMut(&QuorumView) -> bool) -> Result<QuorumView> {
        let mut last = None;
        let outcome = wait_until(what, PATIENCE, || {
            let view = self.view()?;
            last.clone_from(&view);
            Ok(view.filter(&mut is_so))
        });
        outcome.with_context(|| format!("the last view: {last:#?}\n{}", self.explanation()))
    }

    /// Waits until there is a leader whose epoch has a high watermark.
    pub fn wait_for_leader(&mut self) -> Result<QuorumView> {
        self.wait_for_view("a leader", |view| view.high_watermark >= 0)
    }

    /// Waits for a leader of a later epoch.
    pub fn wait_for_leader_after(&mut self, before: &QuorumView) -> Result<QuorumView> {
        let what = format!("a leader after {} in epoch {}", before.leader, before.epoch);
        self.wait_for_view(&what, |view| view.epoch > before.epoch && view.high_watermark >= 0)
    }

    /// Waits until every controller that runs has all that is committed by now. More may be committed when it returns.
    pub fn wait_until_caught_up(&mut self) -> Result<QuorumView> {
        let goal = self.wait_for_leader()?.high_watermark;
        self.wait_until_all_have(goal)
    }

    /// [`Cluster::wait_until_caught_up`]; the offset below which all have everything.
    fn wait_until_all_have_what_is_committed(&mut self) -> Result<i64> {
        let goal = self.wait_for_leader()?.high_watermark;
        self.wait_until_all_have(goal).map(|_| goal)
    }

    /// Waits until every controller that runs has what is below this offset.
    fn wait_until_all_have(&mut self, goal: i64) -> Result<QuorumView> {
        let running: Vec<i32> = self
            .controller_nodes()
            .filter(|node| node.is_started() && !self.paused.contains(&node.id()))
            .map(Node::id)
            .collect();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let what = format!("controllers {running:?} to have offset {goal}");
        self.wait_for_view(&what, |view| running.iter().all(|id| view.has_said(*id, goal, now)))
    }

    /// All controllers that run hold the same bytes up to the high watermark, and `kafka-dump-log` reads them.
    pub fn check_logs(&mut self) -> Result<()> {
        let end = self.wait_until_all_have_what_is_committed()?;
        let running = |node: &&Node| node.is_started() && !self.paused.contains(&node.id());
        self.compare_logs(end, &running)?;
        let folder = crate::paths::scratch("live")?;
        for node in self.controller_nodes().filter(running) {
            let segments = metadata_log::segments(&node.metadata_folder())?;
            let copy = metadata_log::copy_whole(segments.last().context("a segment")?, &folder)?;
            dump(&copy).with_context(|| format!("the log of node {}", node.id()))?;
        }
        Ok(fs::remove_dir_all(&folder)?)
    }

    fn compare_logs(&self, end: i64, is_meant: &dyn Fn(&&Node) -> bool) -> Result<()> {
        let mut logs = Vec::new();
        for node in self.controller_nodes().filter(is_meant) {
            logs.push((node.id(), MetadataLog::read(&node.metadata_folder())?));
        }
        let compared = metadata_log::compare(&logs, end).with_context(|| self.explanation())?;
        ensure!(logs.len() < 2 || compared > 0, "nothing was compared");
        Ok(())
    }

    /// Stops everything in order. What is on the disks then is what Kafka's tools read, to the last byte.
    pub fn stop_and_check(&mut self) -> Result<()> {
        let end = self.wait_until_all_have_what_is_committed()?;
        let killed = self.stop()?;
        self.compare_logs(end, &|_| true)?;
        for node in self.controller_nodes().filter(|node| !killed.contains(&node.id())) {
            for segment in metadata_log::segments(&node.metadata_folder())? {
                dump(&segment).with_context(|| format!("the log of node {}", node.id()))?;
            }
        }
        Ok(())
    }

    /// What `kafka-metadata-quorum` says, asked at the controllers.
    pub fn metadata_quorum(&self, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.controllers().join(",");
        let arguments = [&["--bootstrap-controller", &bootstrap], arguments].concat();
        Jvm::shared()?.tool("kafka-metadata-quorum", &arguments, b"")?.success()
    }

    /// Makes an observer a voter, by the tool, and waits until it is one.
    pub fn add_controller(&mut self, id: i32) -> Result<QuorumView> {
        let what = format!("node {id} to be an observer that has caught up");
        self.wait_for_view(&what, |view| {
            view.observer_ids().contains(&id) && view.has_reached(id, view.high_watermark)
        })?;
        let bootstrap = self.bootstrap_without(id);
        let config = self.node(id)?.properties().display().to_string();
        let arguments = ["--bootstrap-controller", &bootstrap, "--command-config", &config, "add-controller"];
        let said = Jvm::shared()?.tool("kafka-metadata-quorum", &arguments, b"")?.success();
        said.with_context(|| self.explanation())?;
        self.wait_for_view("the new voter", |view| view.voter_ids().contains(&id))
    }

    /// Takes a voter's vote away, by the tool, and waits until it has none.
    pub fn remove_controller(&mut self, id: i32) -> Result<QuorumView> {
        let view = self.wait_for_leader()?;
        let voter = view.voters.iter().find(|voter| voter.id == id).context("a voter")?;
        let (number, directory) = (id.to_string(), voter.directory.to_string());
        let bootstrap = self.bootstrap_without(id);
        let arguments = ["--bootstrap-controller", &bootstrap, "remove-controller"];
        let arguments =
            [&arguments[..], &["--controller-id", &number, "--controller-directory-id", &directory]].concat();
        let said = Jvm::shared()?.tool("kafka-metadata-quorum", &arguments, b"")?.success();
        said.with_context(|| self.explanation())?;
        self.wait_for_view("the voter to be none", |view| !view.voter_ids().contains(&id))
    }

    fn bootstrap_without(&self, id: i32) -> String {
        let others = self.controller_nodes().filter(|node| node.id() != id && node.is_started()).map(Node::controller);
        others.collect::<Vec<_>>().join(",")
    }

    /// The fields of `kafka-metadata-quorum describe --status`, asked at the brokers.
    pub fn quorum_status(&self) -> Result<BTreeMap<String, String>> {
        let bootstrap = self.bootstrap();
        let arguments = ["--bootstrap-server", &bootstrap, "describe", "--status"];
        let output = Jvm::shared()?.tool("kafka-metadata-quorum", &arguments, b"")?.success()?;
        let fields = output.lines().filter_map(|line| line.split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// `kafka-metadata-quorum` says the same as the leader itself: leader, epoch, voters, observers. A new leader comes to
    /// know observers only by and by.
    pub fn check_status(&mut self) -> Result<()> {
        let mut last = String::new();
        let outcome = wait_until("the tool and the leader to agree", PATIENCE, || {
            let Some(view) = self.view()? else { return Ok(None) };
            let status = self.quorum_status()?;
            last = format!("{status:?}\n{view:?}");
            Ok(is_same(&status, &view).with_context(|| last.clone())?.then_some(()))
        });
        outcome.with_context(|| format!("{last}\n{}", self.explanation()))
    }

    /// By `kafka-metadata-quorum describe --replication` the leader, the followers and the observers that run have all
    /// that is committed by now, each under its role.
    pub fn check_replication(&mut self) -> Result<()> {
        let goal = self.wait_until_caught_up()?.high_watermark;
        let running: BTreeSet<i32> = self
            .nodes
            .values()
            .filter(|node| node.is_started() && !self.paused.contains(&node.id()))
            .map(Node::id)
            .collect();
        let mut last = String::new();
        let outcome = wait_until("everybody to have caught up by the tool", PATIENCE, || {
            last = self.metadata_quorum(&["describe", "--replication"])?;
            let Some(view) = self.view()? else { return Ok(None) };
            let rows = last.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let mut there = BTreeSet::new();
            for row in rows {
                let [id, _, log_end, _, _, _, role] = row[..] else { return Ok(None) };
                let (id, log_end): (i32, i64) = (id.parse()?, log_end.parse()?);
                let expected = match id {
                    id if id == view.leader => "Leader",
                    id if view.voter_ids().contains(&id) => "Follower",
                    _ => "Observer",
                };
                if role == expected && log_end >= goal {
                    there.insert(id);
                }
            }
            Ok(running.is_subset(&there).then_some(()))
        });
        outcome.with_context(|| format!("{running:?} and {goal}: {last}\n{}", self.explanation()))
    }

    /// Makes this node the leader: the present one stops in order while the others stand still, and starts again.
    ///
    /// What the leader appended last may not have reached the node by then. It gets no vote for its log from the one
    /// that stops, and none from those that stand still, so the next attempt begins.
    pub fn move_leadership_to(&mut self, id: i32) -> Result<QuorumView> {
        let mut attempts = Vec::new();
        while attempts.len() < 5 {
            let before = self.wait_until_caught_up()?;
            if before.leader == id {
                return Ok(before);
            }
            let running = self.controller_nodes().filter(|node| node.is_started()).map(Node::id);
            let rivals: Vec<i32> = running.filter(|rival| ![id, before.leader].contains(rival)).collect();
            rivals.iter().try_for_each(|rival| self.pause(*rival))?;
            self.node(before.leader)?.ask_to_stop()?;
            let outcome = wait_until("a successor, or the end of the leader", PATIENCE, || {
                let successor = self.view()?.filter(|view| view.epoch > before.epoch).map(|view| view.leader);
                let is_over = successor.is_some() || !self.node(before.leader)?.is_alive();
                Ok(is_over.then_some(successor))
            });
            rivals.iter().try_for_each(|rival| self.resume(*rival))?;
            self.node(before.leader)?.wait_until_stopped()?;
            self.start_node(before.leader)?;
            let successor = outcome?;
            println!("node {} stopped in epoch {}; its successor: {successor:?}", before.leader, before.epoch);
            attempts.push((before.leader, before.epoch, successor));
        }
        let after = self.wait_until_caught_up()?;
        ensure!(after.leader == id, "node {id} was to lead: {attempts:?}; {after:?}\n{}", self.explanation());
        Ok(after)
    }

    /// For messages: what each node said last.
    pub fn explanation(&self) -> String {
        self.nodes.values().map(|node| node.explanation() + "\n").collect()
    }
}

fn is_same(status: &BTreeMap<String, String>, view: &QuorumView) -> Result<bool> {
    let field = |name: &str| status.get(name).map(String::as_str).with_context(|| format!("{name} is told"));
    let ids = |name: &str| -> Result<BTreeSet<i32>> {
        let list: serde_json::Value = serde_json::from_str(field(name)?)?;
        let ids = list.as_array().context("a list")?.iter().map(|one| one["id"].as_i64().context("an id"));
        ids.map(|id| Ok(i32::try_from(id?)?)).collect()
    };
    Ok(field("LeaderId")? == view.leader.to_string()
        && field("LeaderEpoch")? == view.epoch.to_string()
        && ids("CurrentVoters")? == view.voter_ids()
        && ids("CurrentObservers")? == view.observer_ids())
}

/// `kafka-dump-log` reads a segment or snapshot of the metadata log; what it shows.
pub fn dump(file: &Path) -> Result<String> {
    let name = file.display().to_string();
    let arguments = ["--files", &name, "--cluster-metadata-decoder"];
    let shown = Jvm::shared()?.tool("kafka-dump-log", &arguments, b"")?.success()?;
    for bad in ["isvalid: false", "corrupt", "Exception", "Could not"] {
        ensure!(!shown.contains(bad), "{name}: {bad} in\n{}", &shown[shown.len().saturating_sub(1500)..]);
    }
    Ok(shown)
}

/// `kafka-metadata-shell` on a snapshot or segment. It wants nobody else to use the folder, so it gets a copy.
///
/// Now and then it shows nothing, or waits for ever for what it has read already, the sooner the warmer its JVM is; so it
/// gets a cold one, and then others.
pub fn metadata_shell(file: &Path, command: &[&str]) -> Result<String> {
    let folder = crate::paths::scratch("shell")?;
    let partition = folder.join("__cluster_metadata-0");
    fs::create_dir_all(&partition)?;
    let copy = partition.join(file.file_name().context("a file has a name")?);
    fs::copy(file, &copy)?;
    let mut attempts = 0;
    let output = wait_until("kafka-metadata-shell", PATIENCE, || {
        attempts += 1;
        let mut shell = jvm::java()?;
        shell.arg("org.apache.kafka.shell.MetadataShell").arg("--snapshot").arg(&copy).args(command);
        let mut shell = LineProcess::start(&mut shell, false)?;
        match shell.finish(Duration::from_secs(8)) {
            Ok(lines) if !lines.is_empty() => Ok(Some(lines.join("\n"))),
            Ok(_) | Err(_) if attempts < 5 => Ok(None),
            Ok(_) => Ok(Some(String::new())),
            Err(error) => Err(error),
        }
    });
    fs::remove_dir_all(&folder)?;
    output
}

/// A directory id, or any other.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // Tools take an id with `-` in front for an option.
    bytes[0] &= 0x7f;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
