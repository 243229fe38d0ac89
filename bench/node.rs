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

/// A node under measurement.
pub struct Node {
    /// Where clients connect.
    pub bootstrap: String,
    /// From the start of its process to its first answer to Metadata.
    pub start_ms: Option<u64>,
    process: Option<Mutex<Child>>,
}

impl Node {
    /// A node that runs already. What it costs isn't known.
    pub fn attach(bootstrap: &str) -> Node {
        Node { bootstrap: bootstrap.to_owned(), start_ms: None, process: None }
    }

    /// Formats an empty directory and starts a node on it.
    pub fn start(kind: Kind, data_dir: &Path, ringlog: &Path) -> anyhow::Result<Node> {
        let name = if kind == Kind::Kafka { "kafka" } else { "ringlog" };
        let directory = data_dir.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let directory = directory.canonicalize()?;
        let [port, controller_port] = free_ports("127.0.0.1")?;
        let properties = directory.join("server.properties");
        fs::write(&properties, server_properties(&directory.join("data"), port, controller_port))?;
        let mut format = command(kind, ringlog, "storage")?;
        format.args(["format", "-t", "bHCgFSsUR7CMhxFI0zStuQ", "-c"]).arg(&properties);
        let formatted = format.output().with_context(|| format!("can't run {format:?}"))?;
        if !formatted.status.success() {
            bail!("{format:?} failed: {}{}", text(&formatted.stdout), text(&formatted.stderr));
        }
        let log = fs::File::create(directory.join("node.log"))?;
        let mut server = command(kind, ringlog, "server")?;
        server.arg(&properties).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = server.spawn().with_context(|| format!("can't run {server:?}"))?;
        let bootstrap = format!("127.0.0.1:{port}");
        let mut node = Node { bootstrap, start_ms: None, process: Some(Mutex::new(child)) };
        node.start_ms = Some(node.wait_until_it_answers(started, &directory)?);
        Ok(node)
    }

    fn wait_until_it_answers(&self, started: Instant, directory: &Path) -> anyhow::Result<u64> {
        while started.elapsed() < START_LIMIT {
            // Connecting includes a Metadata request.
            if Client::connect(&self.bootstrap, ClientOptions::default()).is_ok() {
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

fn server_properties(data: &Path, port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n",
        data.display()
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
