//! One Java process that runs many of Kafka's tools, since starting one costs a second each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::child::LineProcess;
use crate::paths;

/// How long a tool may take.
const TOOL_TIME: Duration = Duration::from_secs(120);

/// What a tool did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status; -1 if it went on running and was given up.
    pub status: i32,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

impl Outcome {
    /// The output, if the status is 0.
    pub fn success(self) -> Result<String> {
        ensure!(self.status == 0, "ended with status {}:\n{}\n{}", self.status, self.output, self.errors);
        Ok(self.output)
    }
}

/// The Java process.
#[derive(Debug)]
pub struct Jvm {
    process: LineProcess,
}

impl Jvm {
    /// The one of this test program.
    pub fn shared() -> Result<MutexGuard<'static, Jvm>> {
        static SHARED: OnceLock<Mutex<Jvm>> = OnceLock::new();
        if SHARED.get().is_none() {
            let _ = SHARED.set(Mutex::new(Jvm::start()?));
        }
        let shared = SHARED.get().context("it was just set")?;
        Ok(shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts one.
    pub fn start() -> Result<Jvm> {
        let process = LineProcess::start(java()?.arg("Runner"), false)?;
        Ok(Jvm { process })
    }

    /// Runs a tool by the name of Kafka's script, such as `kafka-topics`.
    pub fn tool(&mut self, name: &str, arguments: &[&str], input: &[u8]) -> Result<Outcome> {
        let class = tool_class(name).with_context(|| format!("no class is known for {name}"))?;
        self.run(class, arguments, input)
    }

    /// Runs the main method of a class.
    pub fn run(&mut self, class: &str, arguments: &[&str], input: &[u8]) -> Result<Outcome> {
        let mut words = vec![STANDARD.encode(class), STANDARD.encode(input)];
        words.extend(arguments.iter().map(|argument| STANDARD.encode(argument)));
        // An empty word would get lost between blanks.
        let words: Vec<String> =
            words.into_iter().map(|word| if word.is_empty() { "-".into() } else { word }).collect();
        self.process.send(&words.join(" "))?;
        let line = self.process.next_line(TOOL_TIME)?.with_context(|| format!("Java ended within {class}"))?;
        let mut fields = line.split(' ');
        let status = fields.next().and_then(|word| word.parse().ok()).context("a status")?;
        let mut text = || -> Result<String> {
            let word = fields.next().context("an answer has three words")?;
            let bytes = if word == "-" { Vec::new() } else { STANDARD.decode(word)? };
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Outcome { status, output: text()?, errors: text()? })
    }
}

/// A `java` command with Kafka's jars and the programs of `clients/java` in its class path.
pub fn java() -> Result<Command> {
    let kafka = paths::kafka()?;
    let classes = classes()?;
    let mut command = Command::new("java");
    command.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}/log4j2-tools.xml", kafka.display()));
    command.arg("-cp").arg(format!("{}:{}/libs/*", classes.display(), kafka.display()));
    Ok(command)
}

/// Compiles `clients/java` if it is newer than what was compiled; the folder with the classes.
fn classes() -> Result<PathBuf> {
    let work = paths::work()?;
    let lock = fs::File::create(work.join("classes.lock"))?;
    lock.lock()?;
    let folder = work.join("classes");
    let sources: Vec<PathBuf> =
        ["Runner.java", "Client.java", "History.java"].map(|name| paths::here().join("clients/java").join(name)).into();
    if is_newer(&folder.join("Runner.class"), &sources)? {
        return Ok(folder);
    }
    let classpath = format!("{}/libs/*", paths::kafka()?.display());
    let output = Command::new("javac")
        .args(["-nowarn", "-cp", &classpath, "-d"])
        .arg(&folder)
        .args(&sources)
        .output()
        .context("running javac (a JDK of version 17 or later is needed)")?;
    ensure!(output.status.success(), "javac failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder)
}

/// Whether something exists and is newer than all of `sources`.
pub fn is_newer(built: &Path, sources: &[PathBuf]) -> Result<bool> {
    let Ok(built) = built.metadata() else { return Ok(false) };
    let built = built.modified()?;
    for source in sources {
        if source.metadata()?.modified()? >= built {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tool_class(name: &str) -> Option<&'static str> {
    Some(match name {
        "kafka-broker-api-versions" => "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "kafka-cluster" => "org.apache.kafka.tools.ClusterTool",
        "kafka-configs" => "kafka.admin.ConfigCommand",
        "kafka-console-consumer" => "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "kafka-console-producer" => "org.apache.kafka.tools.ConsoleProducer",
        "kafka-consumer-groups" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "kafka-consumer-perf-test" => "org.apache.kafka.tools.ConsumerPerformance",
        "kafka-delete-records" => "org.apache.kafka.tools.DeleteRecordsCommand",
        "kafka-dump-log" => "org.apache.kafka.tools.DumpLogSegments",
        "kafka-features" => "org.apache.kafka.tools.FeatureCommand",
        "kafka-get-offsets" => "org.apache.kafka.tools.GetOffsetShell",
        "kafka-groups" => "org.apache.kafka.tools.GroupsCommand",
        "kafka-leader-election" => "org.apache.kafka.tools.LeaderElectionCommand",
        "kafka-log-dirs" => "org.apache.kafka.tools.LogDirsCommand",
        "kafka-metadata-quorum" => "org.apache.kafka.tools.MetadataQuorumCommand",
        "kafka-producer-perf-test" => "org.apache.kafka.tools.ProducerPerformance",
        "kafka-reassign-partitions" => "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "kafka-replica-verification" => "org.apache.kafka.tools.ReplicaVerificationTool",
        "kafka-storage" => "kafka.tools.StorageTool",
        "kafka-topics" => "org.apache.kafka.tools.TopicCommand",
        _ => return None,
    })
}
