//! The nodes that are measured: started here on an empty directory, or running elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ringlog_bench::usage::{self, Usage};
use ringlog_client::{Client, ClientOptions};
use ringlog_e2e_tests::paths::free_ports;

use ringlog_bench::load::node_id;

/// How long a node may take to answer its first Metadata request.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This project's node.
    Ringlog,
    /// Apache Kafka 4.3.1, from the jars that `cargo xtask kafka` installs.
    Kafka,
}

/// One node, or several that are one cluster.
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// Nodes that run already. What they cost isn't known.
    pub fn attach(bootstrap: &str) -> Nodes {
        let node = |address: &str| Node { bootstrap: address.to_owned(), start_ms: None, process: None };
        Nodes(bootstrap.split(',').map(node).collect())
    }

    /// Starts so many, each on an empty directory.
    pub fn start(kind: Kind, count: usize, data_dir: &Path, ringlog: &Path) -> anyhow::Result<Nodes> {
        let mut places = Vec::new();
        for place in 0..count {
            let name = if kind == Kind::Kafka { "kafka" } else { "ringlog" };
            let directory = data_dir.join(format!("{name}-{}", node_id(place)));
            if directory.exists() {
                fs::remove_dir_all(&directory)?;
            }
            fs::create_dir_all(&directory)?;
            let ports = free_ports("127.0.0.1")?;
            places.push(Place { id: node_id(place), directory: directory.canonicalize()?, ports });
        }
        let voters: Vec<String> =
            places.iter().map(|place| format!("{}@127.0.0.1:{}", place.id, place.ports[1])).collect();
        let voters = voters.join(",");
        for place in &places {
            place.format(kind, ringlog, &voters, count)?;
        }
        let mut nodes = Nodes(Vec::new());
        let begun = Instant::now();
        for place in &places {
            nodes.0.push(place.spawn(kind, ringlog)?);
        }
        for (node, place) in nodes.0.iter_mut().zip(&places) {
            node.start_ms = Some(node.wait_until_it_answers(begun, &place.directory, count)?);
        }
        Ok(nodes)
    }

    /// Where clients connect.
    pub fn addresses(&self) -> Vec<String> {
        self.0.iter().map(|node| node.bootstrap.clone()).collect()
    }

    /// From the start of the processes until all answer.
    pub fn start_ms(&self) -> Option<u64> {
        self.0.iter().map(|node| node.start_ms).max().flatten()
    }

    /// What all of them have used.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for node in &self.0 {
            let usage = node.usage()?;
            sum.cpu_seconds += usage.cpu_seconds;
            sum.memory_bytes += usage.memory_bytes;
        }
        Ok(sum)
    }

    /// Stops them in order, all at a time, and waits.
    pub fn stop(self) -> anyhow::Result<()> {
        let outcomes: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
            let stops: Vec<_> = self.0.into_iter().map(|node| scope.spawn(move || node.stop())).collect();
            stops.into_iter().map(|stop| stop.join().expect("stopping doesn't panic")).collect()
        });
        outcomes.into_iter().collect()
    }
}

/// Where a node is to be.
struct Place {
    id: i32,
    directory: PathBuf,
    ports: [u16; 2],
}

impl Place {
    fn format(&self, kind: Kind, ringlog: &Path, voters: &str, nodes: usize) -> anyhow::Result<()> {
        let properties = self.directory.join("server.properties");
        fs::write(&properties, server_properties(self, voters, nodes))?;
        let mut format = command(kind, ringlog, "storage")?;
        format.args(["format", "-t", "bHCgFSsUR7CMhxFI0zStuQ", "-c"]).arg(&properties);
        let formatted = format.output().with_context(|| format!("can't run {format:?}"))?;
        if !formatted.status.success() {
            bail!("{format:?} failed: {}{}", text(&formatted.stdout), text(&formatted.stderr));
        }
        Ok(())
    }

    fn spawn(&self, kind: Kind, ringlog: &Path) -> anyhow::Result<Node> {
        let log = fs::File::create(self.directory.join("node.log"))?;
        let mut server = command(kind, ringlog, "server")?;
        server.arg(self.directory.join("server.properties"));
        server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = server.spawn().with_context(|| format!("can't run {server:?}"))?;
        let bootstrap = format!("127.0.0.1:{}", self.ports[0]);
        Ok(Node { bootstrap, start_ms: None, process: Some(Mutex::new(child)) })
    }
}

/// A node under measurement.
pub struct Node {
    /// Where clients connect.
    pub bootstrap: String,
    /// From the start of its process to its first answer to Metadata.
    pub start_ms: Option<u64>,
    process: Option<Mutex<Child>>,
}

impl Node {
    /// Waits until it answers, and knows of so many brokers.
    fn wait_until_it_answers(&self, started: Instant, directory: &Path, brokers: usize) -> anyhow::Result<u64> {
        while started.elapsed() < START_LIMIT {
            // Connecting includes a Metadata request.
            if let Ok(client) = Client::connect(&self.bootstrap, ClientOptions::default())
                && client.metadata().brokers.len() == brokers
            {
                return Ok(started.elapsed().as_millis() as u64);
            }
            if let Some(process) = &self.process
                && let Some(status) = process.lock().expect("no panic while locked").try_wait()?
            {
                bail!("the node ended with {status}; see {}", directory.join("node.log").display());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("the node doesn't answer; see {}", directory.join("node.log").display())
    }

    /// What its process has used.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        match &self.process {
            Some(process) => usage::of(process.lock().expect("no panic while locked").id()),
            None => Ok(Usage::default()),
        }
    }

    /// Stops it in order and waits.
    pub fn stop(self) -> anyhow::Result<()> {
        let Some(process) = self.process else { return Ok(()) };
        let mut child = process.into_inner().expect("no panic while locked");
        let asked = Command::new("kill").arg(child.id().to_string()).status();
        let until = Instant::now() + STOP_LIMIT;
        while asked.is_ok() && Instant::now() < until {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let killed = child.kill();
        child.wait()?;
        killed?;
        bail!("the node didn't stop in {} s and was killed", STOP_LIMIT.as_secs())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn server_properties(place: &Place, voters: &str, nodes: usize) -> String {
    let Place { id, directory, ports: [port, controller_port] } = place;
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         offsets.topic.replication.factor={nodes}\n\
         transaction.state.log.replication.factor={nodes}\n\
         transaction.state.log.min.isr={}\n",
        directory.join("data").display(),
        nodes.div_ceil(2),
    )
}

fn command(kind: Kind, ringlog: &Path, tool: &str) -> anyhow::Result<Command> {
    if kind == Kind::Ringlog {
        let mut command = Command::new(ringlog);
        command.arg(tool);
        return Ok(command);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let jars = std::env::var_os("KAFKA_DIR").map_or_else(|| home.join(".cache/kafka-4.3.1"), PathBuf::from);
    if !jars.join("libs").is_dir() {
        bail!("Kafka isn't installed in {}: run `cargo xtask kafka kafka-storage --help` once", jars.display());
    }
    let class = if tool == "server" { "kafka.Kafka" } else { "kafka.tools.StorageTool" };
    let mut java = Command::new("java");
    // The heap that Kafka's own start script sets, and its collector.
    java.args(["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
    java.arg("-cp").arg(format!("{}/libs/*", jars.display())).arg(class);
    Ok(java)
}
