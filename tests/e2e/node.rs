//! A node, Ringlog's or real Kafka's, on directories of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::{Client, ClientOptions, Connection};
use rustix::process::Signal;

use crate::child::{self, Reaper};
use crate::jvm::Jvm;
use crate::place::Place;
use crate::{kafka, paths, wait_until};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of every directory that a test formats.
pub const CLUSTER_ID: &str = "ZTJlLXRlc3QtY2x1c3Rlcg";

/// Which program a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program of this project.
    Ringlog,
    /// Apache Kafka 4.3.1.
    Kafka,
}

impl Kind {
    /// Ringlog, unless `RINGLOG_E2E_NODE=kafka`.
    pub fn under_test() -> Kind {
        match std::env::var("RINGLOG_E2E_NODE").as_deref() {
            Ok("kafka") => Kind::Kafka,
            _ => Kind::Ringlog,
        }
    }

    /// The programs that controllers are, in turn: `RINGLOG_E2E_CONTROLLERS=ringlog,kafka,kafka` makes a mixed quorum.
    pub fn controllers() -> Result<Vec<Kind>> {
        Kind::listed("RINGLOG_E2E_CONTROLLERS")
    }

    /// The programs that brokers are, in turn, by `RINGLOG_E2E_BROKERS`.
    pub fn brokers() -> Result<Vec<Kind>> {
        Kind::listed("RINGLOG_E2E_BROKERS")
    }

    fn listed(variable: &str) -> Result<Vec<Kind>> {
        let Ok(text) = std::env::var(variable) else { return Ok(vec![Kind::under_test()]) };
        let kind = |word| match word {
            "ringlog" => Ok(Kind::Ringlog),
            "kafka" => Ok(Kind::Kafka),
            _ => bail!("{variable} lists `ringlog` and `kafka`, not {word}"),
        };
        text.split(',').map(kind).collect()
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// Only `controller`.
    Controller,
    /// Only `broker`.
    Broker,
    /// `broker,controller`.
    Both,
}

impl Roles {
    /// Whether clients can use it.
    pub fn is_broker(self) -> bool {
        self != Roles::Controller
    }

    /// Whether it may be a voter.
    pub fn is_controller(self) -> bool {
        self != Roles::Broker
    }
}

/// What a node shall be.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// For its folder and its log.
    pub name: String,
    /// Which program.
    pub kind: Kind,
    /// `node.id`.
    pub id: i32,
    /// What it does.
    pub roles: Roles,
    /// Within its folder, separated by commas.
    pub log_dirs: String,
    /// Lines of `server.properties` that come on top of what every node has, or in its place.
    pub settings: String,
    /// Where it runs.
    pub place: Place,
    /// Options for Java; none are what suits a test.
    pub java_options: Vec<String>,
}

/// A node's directories and settings, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    plan: NodePlan,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
    controller_port: u16,
    properties: BTreeMap<String, String>,
    open_files: Option<u64>,
    running: Option<(Child, Reaper)>,
    is_stopping: bool,
}

impl Node {
    /// A node on new, formatted directories, started.
    pub fn start_new(name: &str, kind: Kind, settings: &str) -> Result<Node> {
        let mut node = Node::prepare(name, kind, 1, "data", "", settings)?;
        node.format(&["--standalone"])?;
        node.start()?;
        Ok(node)
    }

    /// The only node of its cluster, neither formatted nor started: `log_dirs` are within its folder, separated by
    /// commas. Without `voters` (`ID@HOST`, the port is added) the quorum is a dynamic one.
    pub fn prepare(name: &str, kind: Kind, id: i32, log_dirs: &str, voters: &str, settings: &str) -> Result<Node> {
        let mut node = Node::new(NodePlan {
            name: name.to_owned(),
            kind,
            id,
            roles: Roles::Both,
            log_dirs: log_dirs.to_owned(),
            settings: settings.to_owned(),
            place: Place::loopback(),
            java_options: Vec::new(),
        })?;
        let port = node.controller_port;
        match voters {
            "" => node.set("controller.quorum.bootstrap.servers", &node.controller())?,
            voters => node.set("controller.quorum.voters", &format!("{voters}:{port}"))?,
        }
        Ok(node)
    }

    /// A node that isn't formatted or started, and hasn't been told yet who the controllers are.
    pub fn new(plan: NodePlan) -> Result<Node> {
        let folder = paths::scratch(&plan.name)?;
        let [port, controller_port] = plan.place.ports()?;
        let logs = paths::work()?.join("logs");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{}.log", plan.name));
        File::create(&log)?;
        let properties = BTreeMap::new();
        let mut node = Node {
            plan,
            folder,
            log,
            port,
            controller_port,
            properties,
            open_files: None,
            running: None,
            is_stopping: false,
        };
        let settings = node.plan.settings.clone();
        node.set_all(&node.common_settings());
        node.set_all(&settings);
        node.write_properties()?;
        Ok(node)
    }

    fn common_settings(&self) -> String {
        let (broker, controller) = (self.bootstrap(), self.controller());
        let (roles, listeners) = match self.plan.roles {
            Roles::Controller => ("controller", format!("CONTROLLER://{controller}")),
            Roles::Broker => ("broker", format!("PLAINTEXT://{broker}")),
            Roles::Both => ("broker,controller", format!("PLAINTEXT://{broker},CONTROLLER://{controller}")),
        };
        let dirs = self.plan.log_dirs.split(',').map(|dir| self.folder.join(dir).display().to_string());
        format!(
            "process.roles={roles}\nnode.id={}\nlisteners={listeners}\ncontroller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=3\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            self.plan.id,
            dirs.collect::<Vec<_>>().join(",")
        )
    }

    fn set_all(&mut self, lines: &str) {
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        self.properties.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    fn write_properties(&self) -> Result<()> {
        let lines = self.properties.iter().map(|(key, value)| format!("{key}={value}\n"));
        Ok(fs::write(self.properties(), lines.collect::<String>())?)
    }

    /// Changes its configuration, for the next start. An empty value removes the key.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match value {
            "" => self.properties.remove(key),
            value => self.properties.insert(key.to_owned(), value.to_owned()),
        };
        self.write_properties()
    }

    /// It may have no more files open than this, from the next start on.
    pub fn limit_open_files(&mut self, limit: u64) {
        self.open_files = Some(limit);
    }

    /// Gives it other ports, for the next start.
    pub fn change_ports(&mut self) -> Result<()> {
        assert!(self.running.is_none(), "stop the node first");
        [self.port, self.controller_port] = self.plan.place.ports()?;
        let listeners = self.common_settings();
        let listeners = listeners.lines().find_map(|line| line.strip_prefix("listeners=")).context("it listens")?;
        self.set("listeners", listeners)
    }

    /// Formats the directories.
    pub fn format(&self, arguments: &[&str]) -> Result<()> {
        let properties = self.properties().display().to_string();
        let arguments = [&["format", "-t", CLUSTER_ID, "-c", &properties], arguments].concat();
        if self.plan.kind == Kind::Kafka {
            let outcome = Jvm::shared()?.tool("kafka-storage", &arguments, b"")?.success();
            return outcome.map(drop).context("formatting");
        }
        let output = Command::new(paths::ringlog()?).arg("storage").args(arguments).output()?;
        let text = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "formatting failed: {}", String::from_utf8_lossy(&text));
        Ok(())
    }

    /// Starts the node on its directories, and waits until it serves.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Starts the node on its directories, and doesn't wait.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = match self.plan.kind {
            Kind::Ringlog => {
                let mut command = Command::new(paths::ringlog()?);
                command.arg("server");
                command
            }
            Kind::Kafka if self.plan.java_options.is_empty() => {
                let heap = if self.plan.roles == Roles::Both { 768 } else { 256 };
                kafka::server(&kafka::options(heap)?)?
            }
            Kind::Kafka => kafka::server(&self.plan.java_options)?,
        };
        command.arg(self.properties());
        if let Some(limit) = self.open_files {
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={limit}:{limit}")).arg(command.get_program()).args(command.get_args());
            command = limited;
        }
        self.spawn_command(command)
    }

    /// Starts `ringlog dev` on an empty directory of the node's folder.
    pub fn start_dev(name: &str) -> Result<Node> {
        let mut node = Node::prepare(name, Kind::Ringlog, 1, "data", "", "")?;
        let mut command = Command::new(paths::ringlog()?);
        command.arg("dev").arg("--data-dir").arg(node.folder.join("data")).arg("--port").arg(node.port.to_string());
        node.spawn_command(command)?;
        node.wait_until_ready()?;
        Ok(node)
    }

    fn spawn_command(&mut self, command: Command) -> Result<()> {
        ensure!(self.running.is_none(), "the node runs already");
        let log = File::options().append(true).open(&self.log)?;
        let mut command = self.plan.place.command(command);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let reaper = Reaper::new(child.id(), Some(self.folder.as_os_str()))?;
        self.running = Some((child, reaper));
        self.is_stopping = false;
        Ok(())
    }

    /// Waits until it serves: a broker names itself as one that clients can use, a controller speaks.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let address = if self.plan.roles.is_broker() { self.bootstrap() } else { self.controller() };
        let options = ClientOptions { request_timeout: Duration::from_secs(5), ..ClientOptions::default() };
        let ready = wait_until("the node to serve", PATIENCE, || {
            if let Some(status) = self.running.as_mut().context("the node runs")?.0.try_wait()? {
                bail!("the node ended with {status}");
            }
            if TcpStream::connect(&address).is_err() {
                return Ok(None);
            }
            if !self.plan.roles.is_broker() {
                return Ok(Connection::connect(&address, &options).ok().map(drop));
            }
            let Ok(mut client) = Client::connect(&address, options.clone()) else { return Ok(None) };
            let is_known = client.refresh_metadata(Some(&[]), false).is_ok();
            Ok((is_known && client.metadata().brokers.contains_key(&self.plan.id)).then_some(()))
        });
        ready.with_context(|| self.explanation())
    }

    /// The end of the node's log.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(25)..].iter();
        // Some of Kafka's lines are longer than all the rest.
        last.map(|line| line.chars().take(300).collect::<String>() + "\n").collect()
    }

    /// Everything that it has written so far, its earlier lives included.
    pub fn words(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// For messages: which node it is, and what it said last.
    pub fn explanation(&self) -> String {
        let NodePlan { id, kind, roles, .. } = &self.plan;
        format!("last words of node {id} ({kind:?}, {roles:?}; {}):\n{}", self.log.display(), self.last_words())
    }

    /// Stops the node in order.
    pub fn stop(&mut self) -> Result<()> {
        self.ask_to_stop()?;
        self.wait_until_stopped()
    }

    /// Asks it to stop, and doesn't wait.
    pub fn ask_to_stop(&mut self) -> Result<()> {
        self.is_stopping = true;
        self.signal(Signal::TERM)
    }

    /// Whether it was asked to stop, so that it may have ended.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Waits for the end that it was asked for.
    pub fn wait_until_stopped(&mut self) -> Result<()> {
        let status = self.wait_for_end(PATIENCE)?;
        // Java ends with 143 after the signal, in the best of orders.
        ensure!(
            status.success() || (self.plan.kind == Kind::Kafka && status.code() == Some(143)),
            "the node ended with {status}; {}",
            self.explanation()
        );
        Ok(())
    }

    /// Whether it ends within this time, as it was asked to.
    pub fn stops_within(&mut self, time: Duration) -> bool {
        wait_until("the node to stop", time, || Ok((!self.is_alive()).then_some(()))).is_ok()
    }

    /// Waits until its process has ended, for whatever reason; it is killed if that takes too long.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let (mut child, reaper) = self.running.take().context("the node runs")?;
        let status = child::wait_for_end(&mut child, within);
        reaper.dismiss();
        status.with_context(|| self.explanation())
    }

    /// Kills the node without a warning.
    pub fn kill(&mut self) -> Result<()> {
        let (mut child, reaper) = self.running.take().context("the node runs")?;
        child.kill()?;
        child.wait()?;
        reaper.dismiss();
        Ok(())
    }

    /// Makes it stand still (SIGSTOP): its connections stay open, and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Node::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        child::signal(&self.running.as_ref().context("the node runs")?.0, signal)
    }

    /// Makes the next start one of another program.
    pub fn become_kind(&mut self, kind: Kind) {
        assert!(self.running.is_none(), "stop the node first");
        self.plan.kind = kind;
    }

    /// Removes what is in its directories, and formats them anew with these arguments.
    pub fn wipe(&mut self, arguments: &[&str]) -> Result<()> {
        assert!(self.running.is_none(), "stop the node first");
        for dir in self.plan.log_dirs.split(',') {
            fs::remove_dir_all(self.folder.join(dir))?;
        }
        self.format(arguments)
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("{}:{}", self.plan.place.address, self.port)
    }

    /// Where its controller listens.
    pub fn controller(&self) -> String {
        format!("{}:{}", self.plan.place.address, self.controller_port)
    }

    /// Its folder, which the log directories and `server.properties` are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of its metadata log, which is in the first log directory unless a setting says otherwise.
    pub fn metadata_folder(&self) -> PathBuf {
        let dirs = self.properties.get("metadata.log.dir").or_else(|| self.properties.get("log.dirs"));
        let first = dirs.map_or("", String::as_str).split(',').next().unwrap_or_default();
        Path::new(first).join("__cluster_metadata-0")
    }

    /// Its configuration file.
    pub fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    /// Its `node.id`.
    pub fn id(&self) -> i32 {
        self.plan.id
    }

    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// What it does.
    pub fn roles(&self) -> Roles {
        self.plan.roles
    }

    /// Whether it was started and neither stopped nor killed by the test since.
    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(|(child, _)| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("the node runs")?.0.id())
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is told")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// A client of it.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.bootstrap(), ClientOptions::default())?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.kill();
        }
        if std::env::var_os("RINGLOG_E2E_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
