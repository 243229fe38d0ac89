//! The client programs, all driven alike: produce, consume, be a member of a group.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::child::LineProcess;
use crate::corpus::{self, Record};
use crate::{jvm, paths};

const PATIENCE: Duration = Duration::from_secs(60);

/// Separates kcat's key and value, and its records.
const KCAT_KEY_END: u8 = 1;
const KCAT_RECORD_END: u8 = 2;

/// An implementation of the protocol's client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Kafka's own, idempotent and with acks=all by default.
    Java,
    /// kafka-python.
    Python,
    /// franz-go.
    Go,
    /// librdkafka.
    Kcat,
}

impl Program {
    /// All.
    pub const ALL: [Program; 4] = [Program::Java, Program::Python, Program::Go, Program::Kcat];

    /// For topics and groups.
    pub fn name(self) -> &'static str {
        match self {
            Program::Java => "java",
            Program::Python => "python",
            Program::Go => "go",
            Program::Kcat => "kcat",
        }
    }

    /// Records that it can send.
    pub fn corpus(self) -> Vec<Record> {
        if self == Program::Kcat { corpus::plain() } else { corpus::hard() }
    }

    fn command(self) -> Result<Command> {
        Ok(match self {
            Program::Java => {
                let mut command = jvm::java()?;
                command.arg("Client");
                command
            }
            Program::Python => {
                let mut command = Command::new(paths::python()?);
                command.arg(paths::here().join("clients/python/client.py"));
                command
            }
            Program::Go => Command::new(go_client()?),
            Program::Kcat => Command::new("kcat"),
        })
    }

    /// Sends records; all were acknowledged when this returns.
    pub fn produce(self, bootstrap: &str, topic: &str, codec: &str, records: &[Record]) -> Result<()> {
        if self == Program::Kcat {
            return kcat_produce(bootstrap, topic, codec, records);
        }
        let mut command = self.command()?;
        command.args(["produce", bootstrap, topic, codec]);
        let lines: Vec<String> = records.iter().map(|record| record.to_json().to_string() + "\n").collect();
        run(&mut command, lines.concat().as_bytes()).map(drop)
    }

    /// Reads so many records from the beginning of topics: pairs of topic and record.
    pub fn consume(self, bootstrap: &str, topics: &[String], count: usize) -> Result<Vec<(String, Record)>> {
        if self == Program::Kcat {
            return kcat_consume(bootstrap, topics);
        }
        let mut command = self.command()?;
        command.args(["consume", bootstrap, &count.to_string()]).args(topics);
        let output = run(&mut command, b"")?;
        let mut records = Vec::new();
        for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let shown: Value = serde_json::from_slice(line)?;
            let topic = shown["topic"].as_str().context("a record has a topic")?;
            records.push((topic.to_owned(), Record::from_json(&shown)?));
        }
        Ok(records)
    }

    /// Joins a group.
    pub fn join(self, bootstrap: &str, topic: &str, group: &str) -> Result<Member> {
        let mut command = self.command()?;
        if self == Program::Kcat {
            let settings = ["auto.offset.reset=earliest", "enable.auto.offset.store=true"];
            command.args(["-b", bootstrap, "-u", "-f", "record %p %o\\n", "-X", settings[0], "-X", settings[1]]);
            command.args(["-G", group, topic]);
        } else {
            command.args(["member", bootstrap, topic, group]);
        }
        let process = LineProcess::start(&mut command, self == Program::Kcat)?;
        Ok(Member { program: self, process, assigned: BTreeSet::new(), records: Vec::new() })
    }
}

/// A member of a group, running.
#[derive(Debug)]
pub struct Member {
    program: Program,
    process: LineProcess,
    assigned: BTreeSet<i64>,
    records: Vec<(i64, i64)>,
}

impl Member {
    /// The partitions that it has by now.
    pub fn assigned(&mut self) -> Result<&BTreeSet<i64>> {
        self.take_lines()?;
        Ok(&self.assigned)
    }

    /// Partition and offset of each record that it has got by now.
    pub fn records(&mut self) -> Result<&[(i64, i64)]> {
        self.take_lines()?;
        Ok(&self.records)
    }

    /// Its last lines, for messages.
    pub fn last_lines(&self) -> &[String] {
        self.process.last_lines()
    }

    fn take_lines(&mut self) -> Result<()> {
        for line in self.process.lines_so_far() {
            self.take_line(&line).with_context(|| format!("{:?} said {line}", self.program))?;
        }
        Ok(())
    }

    fn take_line(&mut self, line: &str) -> Result<()> {
        if self.program == Program::Kcat {
            return self.take_kcat_line(line);
        }
        let shown: Value = serde_json::from_str(line)?;
        if let Some(partitions) = shown["assigned"].as_array() {
            self.assigned = partitions.iter().filter_map(Value::as_i64).collect();
        } else {
            let field = |name: &str| shown["record"][name].as_i64().context("a number");
            self.records.push((field("partition")?, field("offset")?));
        }
        Ok(())
    }

    /// `record P O`, or `% Group G rebalanced (memberid M): assigned: T [0], T [1]`.
    fn take_kcat_line(&mut self, line: &str) -> Result<()> {
        if let Some(record) = line.strip_prefix("record ") {
            let (partition, offset) = record.split_once(' ').context("two numbers")?;
            self.records.push((partition.parse()?, offset.parse()?));
        } else if let Some((_, partitions)) = line.split_once("assigned: ") {
            let numbers = partitions.split('[').skip(1).filter_map(|part| part.split(']').next()?.parse().ok());
            self.assigned = numbers.collect();
        } else if line.contains("revoked: ") {
            self.assigned.clear();
        }
        Ok(())
    }

    /// Leaves the group, having committed what it read.
    pub fn leave(mut self) -> Result<Vec<(i64, i64)>> {
        if self.program == Program::Kcat {
            self.process.terminate()?;
        }
        for line in self.process.finish(PATIENCE)? {
            self.take_line(&line)?;
        }
        Ok(self.records)
    }
}

/// Builds the Go client if its sources have changed.
fn go_client() -> Result<PathBuf> {
    let work = paths::work()?;
    let lock = fs::File::create(work.join("go.lock"))?;
    lock.lock()?;
    let program = work.join("go-client");
    let folder = paths::here().join("clients/go");
    let sources: Vec<PathBuf> = ["main.go", "go.mod", "go.sum"].map(|name| folder.join(name)).into();
    if !jvm::is_newer(&program, &sources)? {
        let output = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(&folder).output();
        let output = output.context("running go (1.26 or later is needed)")?;
        ensure!(output.status.success(), "go build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(program)
}

/// Runs a program to its end; what it wrote.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = format!("{command:?}");
    let begin = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let pid = child.id();
    let mut stdin = child.stdin.take().context("input is piped")?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE * 2) else {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        bail!("{name} had not ended after {:?}", begin.elapsed());
    };
    let _ = writer.join();
    let Output { status, stdout, stderr } = output?;
    ensure!(
        status.success(),
        "{name} ended with {status}:\n{}\n{}",
        String::from_utf8_lossy(&stdout[stdout.len().saturating_sub(2000)..]),
        String::from_utf8_lossy(&stderr)
    );
    Ok(stdout)
}

/// kcat sets the same headers for a whole run, so records are sent in runs of equal headers; and all or no keys.
fn kcat_produce(bootstrap: &str, topic: &str, codec: &str, records: &[Record]) -> Result<()> {
    let alike =
        |left: &Record, right: &Record| left.headers == right.headers && left.key.is_some() == right.key.is_some();
    for run_of_records in records.chunk_by(alike) {
        let first = &run_of_records[0];
        let mut command = Program::Kcat.command()?;
        command.args(["-P", "-b", bootstrap, "-t", topic, "-z", codec, "-X", "enable.idempotence=true"]);
        command.arg("-D").arg(format!("\\x{KCAT_RECORD_END:02x}"));
        if first.key.is_some() {
            command.arg("-K").arg(format!("\\x{KCAT_KEY_END:02x}"));
        }
        for (name, value) in &first.headers {
            let value = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
            command.arg("-H").arg(format!("{name}={value}"));
        }
        let mut input = Vec::new();
        for record in run_of_records {
            if let Some(key) = &record.key {
                input.extend_from_slice(key);
                input.push(KCAT_KEY_END);
            }
            input.extend_from_slice(record.value.as_deref().unwrap_or_default());
            input.push(KCAT_RECORD_END);
        }
        run(&mut command, &input)?;
    }
    Ok(())
}

/// Keys and values with their lengths; headers as kcat writes them, which is exact for plain text only.
fn kcat_consume(bootstrap: &str, topics: &[String]) -> Result<Vec<(String, Record)>> {
    let mut records = Vec::new();
    for topic in topics {
        let mut command = Program::Kcat.command()?;
        command.args(["-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning", "-f", "%K %S %k%s%h\\n"]);
        let output = run(&mut command, b"")?;
        let mut rest = output.as_slice();
        while !rest.is_empty() {
            let (record, after) = kcat_record(rest).with_context(|| format!("kcat wrote {} more bytes", rest.len()))?;
            records.push((topic.clone(), record));
            rest = after;
        }
    }
    Ok(records)
}

fn kcat_record(text: &[u8]) -> Result<(Record, &[u8])> {
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let mut length = || -> Result<Option<usize>> {
        let digits = std::str::from_utf8(parts.next().context("a length")?)?;
        let length: i64 = digits.parse()?;
        Ok(usize::try_from(length).ok())
    };
    let (key_length, value_length) = (length()?, length()?);
    let fields = parts.next().context("fields after the lengths")?;
    let (key, fields) = fields.split_at_checked(key_length.unwrap_or(0)).context("the key")?;
    let (value, fields) = fields.split_at_checked(value_length.unwrap_or(0)).context("the value")?;
    let end = fields.iter().position(|byte| *byte == b'\n').context("the record's end")?;
    // Headers with bytes that need care aren't compared here; a line break in one would end the record too early.
    let headers = String::from_utf8_lossy(&fields[..end]).into_owned();
    let pairs = headers.split(',').filter_map(|pair| pair.split_once('='));
    let headers = pairs.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec()))).collect();
    let record = Record { key: key_length.map(|_| key.to_vec()), value: value_length.map(|_| value.to_vec()), headers };
    Ok((record, &fields[end + 1..]))
}
