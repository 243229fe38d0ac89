//! A node, Ringlog's or real Kafka's, on directories of its own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::{Client, ClientOptions};
use rustix::process::Signal;

use crate::child::{self, Reaper};
use crate::{jvm, paths, wait_until};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

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
}

/// A node's directories and settings, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    folder: PathBuf,
    log: PathBuf,
    port: u16,
    controller_port: u16,
    running: Option<(Child, Reaper)>,
}

impl Node {
    /// A node on new, formatted directories, started.
    pub fn start_new(name: &str, kind: Kind, settings: &str) -> Result<Node> {
        let mut node = Node::prepare(name, kind, 1, "data", "", settings)?;
        node.format(&["--standalone"])?;
        node.start()?;
        Ok(node)
    }

    /// A node that isn't formatted or started: `log_dirs` are within its folder, separated by commas. Without
    /// `voters` (`ID@HOST`, the port is added) the quorum is a dynamic one.
    pub fn prepare(name: &str, kind: Kind, id: i32, log_dirs: &str, voters: &str, settings: &str) -> Result<Node> {
        let folder = paths::scratch(name)?;
        let [port, controller_port] = paths::free_ports()?;
        let dirs: Vec<String> = log_dirs.split(',').map(|dir| folder.join(dir).display().to_string()).collect();
        let quorum = match voters {
            "" => format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}"),
            voters => format!("controller.quorum.voters={voters}:{controller_port}"),
        };
        let text = format!(
            "process.roles=broker,controller\nnode.id={id}\n{quorum}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=3\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n{settings}\n",
            dirs.join(",")
        );
        fs::write(folder.join("server.properties"), text)?;
        let logs = paths::work()?.join("logs");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        File::create(&log)?;
        Ok(Node { kind, folder, log, port, controller_port, running: None })
    }

    /// Formats the directories with a new cluster id.
    pub fn format(&self, arguments: &[&str]) -> Result<()> {
        let mut command = match self.kind {
            Kind::Ringlog => {
                let mut command = Command::new(paths::ringlog()?);
                command.arg("storage");
                command
            }
            Kind::Kafka => {
                let mut command = jvm::java()?;
                command.arg("kafka.tools.StorageTool");
                command
            }
        };
        command.args(["format", "-t", "ZTJlLXRlc3QtY2x1c3Rlcg", "-c"]).arg(self.properties()).args(arguments);
        let output = command.output().with_context(|| format!("running {command:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "formatting failed: {}", String::from_utf8_lossy(&text));
        Ok(())
    }

    /// Starts the node on its directories, and waits until it serves.
    pub fn start(&mut self) -> Result<()> {
        let command = match self.kind {
            Kind::Ringlog => {
                let mut command = Command::new(paths::ringlog()?);
                command.arg("server");
                command
            }
            Kind::Kafka => {
                let kafka = paths::kafka()?;
                let mut command = Command::new("java");
                command.args(["-Xms256m", "-Xmx768m", "-XX:+UseG1GC"]);
                command.arg(format!("-Dlog4j2.configurationFile={}/log4j2-server.xml", kafka.display()));
                command.arg("-cp").arg(format!("{}/libs/*", kafka.display())).arg("kafka.Kafka");
                command
            }
        };
        let properties = self.properties();
        self.start_with(command, &[properties.as_os_str()])
    }

    /// Starts `ringlog dev` on an empty directory of the node's folder.
    pub fn start_dev(name: &str) -> Result<Node> {
        let mut node = Node::prepare(name, Kind::Ringlog, 1, "data", "", "")?;
        let mut command = Command::new(paths::ringlog()?);
        command.arg("dev").arg("--data-dir").arg(node.folder.join("data"));
        node.start_with(command, &["--port".as_ref(), node.port.to_string().as_ref()])?;
        Ok(node)
    }

    fn start_with(&mut self, mut command: Command, arguments: &[&std::ffi::OsStr]) -> Result<()> {
        ensure!(self.running.is_none(), "the node runs already");
        let log = File::options().append(true).open(&self.log)?;
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let reaper = Reaper::new(child.id(), Some(self.folder.as_os_str()))?;
        self.running = Some((child, reaper));
        self.wait_until_ready()
    }

    /// Ready means: it names itself as a broker that clients can use.
    fn wait_until_ready(&mut self) -> Result<()> {
        let options = ClientOptions { request_timeout: Duration::from_secs(5), ..ClientOptions::default() };
        let ready = wait_until("the node to serve", PATIENCE, || {
            if let Some(status) = self.running.as_mut().context("the node runs")?.0.try_wait()? {
                bail!("the node ended with {status}");
            }
            if TcpStream::connect(self.bootstrap()).is_err() {
                return Ok(None);
            }
            let Ok(mut client) = Client::connect(&self.bootstrap(), options.clone()) else { return Ok(None) };
            if client.refresh_metadata(Some(&[]), false).is_err() || client.metadata().brokers.is_empty() {
                return Ok(None);
            }
            Ok(Some(()))
        });
        ready.with_context(|| format!("the node's last words:\n{}", self.last_words()))
    }

    /// The end of the node's log.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Stops the node in order.
    pub fn stop(&mut self) -> Result<()> {
        let (mut child, reaper) = self.running.take().context("the node runs")?;
        child::signal(&child, Signal::TERM)?;
        let status = child::wait_for_end(&mut child, PATIENCE);
        reaper.dismiss();
        let status = status.with_context(|| format!("the node's last words:\n{}", self.last_words()))?;
        // Java ends with 143 after the signal, in the best of orders.
        ensure!(
            status.success() || (self.kind == Kind::Kafka && status.code() == Some(143)),
            "the node ended with {status}; its last words:\n{}",
            self.last_words()
        );
        Ok(())
    }

    /// Kills the node without a warning.
    pub fn kill(&mut self) -> Result<()> {
        let (mut child, reaper) = self.running.take().context("the node runs")?;
        child.kill()?;
        child.wait()?;
        reaper.dismiss();
        Ok(())
    }

    /// Makes the next start one of another program.
    pub fn become_kind(&mut self, kind: Kind) {
        assert!(self.running.is_none(), "stop the node first");
        self.kind = kind;
    }

    /// Where clients find it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its controller listens.
    pub fn controller(&self) -> String {
        format!("127.0.0.1:{}", self.controller_port)
    }

    /// Its folder, which the log directories and `server.properties` are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration file.
    pub fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(|(child, _)| matches!(child.try_wait(), Ok(None)))
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let (child, _) = self.running.as_ref().context("the node runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
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
