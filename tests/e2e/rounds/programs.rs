//! Other people's clients: Kafka's own in one Java process, and kcat (librdkafka). They run where the thread runs that
//! starts them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use ringlog_e2e_tests::child::LineProcess;
use ringlog_e2e_tests::jvm;
use ringlog_e2e_tests::programs::run;

use super::history::{History, name_in, value_of};
use super::plan::{PARTITIONS, Place};

/// Records a second that Java sends to each partition.
const JAVA_RATE: usize = 10;
/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records one run of kcat sends.
const KCAT_RECORDS: usize = 5;

/// Kafka's own producer, reader and group.
#[derive(Debug)]
pub struct Java {
    process: LineProcess,
    has_stopped: bool,
}

impl Java {
    /// The process of its producer, of its reader, and of its group's members.
    pub const PRODUCER: &str = "java";
    /// See [`Java::PRODUCER`].
    pub const READER: &str = "java-reader";
    /// See [`Java::PRODUCER`].
    pub const MEMBERS: [&str; 2] = ["java-member-1", "java-member-2"];

    /// Starts it.
    pub fn start(bootstrap: &str, topics: &[&str]) -> Result<Java> {
        let mut command = jvm::java()?;
        command.args(["History", bootstrap, &PARTITIONS.to_string(), &JAVA_RATE.to_string()]).args(topics);
        Ok(Java { process: LineProcess::start(&mut command, false)?, has_stopped: false })
    }

    /// Tells the history what it has said by now.
    pub fn listen(&mut self, history: &History) {
        for line in self.process.lines_so_far() {
            self.take(&line, history);
        }
    }

    fn take(&mut self, line: &str, history: &History) {
        match line.split_once(' ') {
            Some((process, event)) => history.tell(process, event),
            None => self.has_stopped |= line == "stopped",
        }
    }

    /// Sends the reader back to the beginning.
    pub fn seek(&mut self) -> Result<()> {
        self.process.send("seek")
    }

    /// Ends the producer.
    pub fn stop_producing(&mut self) -> Result<()> {
        self.process.send("stop")
    }

    /// Whether the producer has ended, and all of its records have.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Ends it all.
    pub fn finish(&mut self, history: &History) -> Result<()> {
        for line in self.process.finish(PATIENCE)? {
            self.take(&line, history);
        }
        Ok(())
    }
}

/// What kcat writes of a record: partition, offset, length and value.
const FORMAT: &str = "%t-%p %o %S %s\\n";

fn kcat(bootstrap: &str, mode: &str) -> Command {
    let mut command = Command::new("kcat");
    command.args([mode, "-q", "-b", bootstrap, "-X", "reconnect.backoff.max.ms=200"]);
    command.args(["-X", "topic.metadata.refresh.interval.ms=2000"]);
    command
}

/// A reader of one topic by librdkafka.
///
/// This librdkafka names no leader epoch when it fetches, and believes any broker's metadata. So it may ask a leader of before,
/// which doesn't know yet that there is another one, for what only the new one has, and is told that the offset is out of range;
/// Kafka's brokers say so, too. Then it is started anew, at the beginning.
#[derive(Debug)]
pub struct KcatReader {
    process: LineProcess,
    bootstrap: String,
    topic: String,
}

impl KcatReader {
    /// Its process in the history.
    pub const NAME: &str = "kcat-reader";

    /// Starts it at the beginning of the topic.
    pub fn start(bootstrap: &str, topic: &str, history: &History) -> Result<KcatReader> {
        history.tell(KcatReader::NAME, "is ok reader");
        let process = KcatReader::begin(bootstrap, topic, history)?;
        Ok(KcatReader { process, bootstrap: bootstrap.to_owned(), topic: topic.to_owned() })
    }

    fn begin(bootstrap: &str, topic: &str, history: &History) -> Result<LineProcess> {
        for partition in 0..PARTITIONS {
            history.tell(KcatReader::NAME, &format!("seek ok {topic}-{partition} 0"));
        }
        let mut command = kcat(bootstrap, "-C");
        command.args(["-u", "-E", "-t", topic, "-o", "beginning", "-X", "auto.offset.reset=error", "-f", FORMAT]);
        LineProcess::start(&mut command, true)
    }

    /// Tells the history what it has read by now.
    pub fn listen(&mut self, history: &History) -> Result<()> {
        let lines = self.process.lines_so_far();
        let has_given_up = KcatReader::take(&lines, history)?;
        if has_given_up {
            // Killed, it writes nothing more that would be told as read from the beginning.
            self.process = KcatReader::begin(&self.bootstrap, &self.topic, history)?;
        }
        Ok(())
    }

    /// Whether it has stopped reading.
    fn take(lines: &[String], history: &History) -> Result<bool> {
        let mut has_given_up = false;
        for line in lines {
            if line.starts_with('%') {
                has_given_up |= line.contains("Offset out of range");
                continue;
            }
            let (place, offset, name) = record_of(line)?;
            history.tell(KcatReader::NAME, &format!("poll ok {place} {offset}={name}"));
        }
        Ok(has_given_up)
    }

    /// Ends it.
    pub fn finish(&mut self, history: &History) -> Result<()> {
        self.process.terminate()?;
        let lines = self.process.finish(PATIENCE)?;
        KcatReader::take(&lines, history).map(drop)
    }
}

/// A line that is no record is a complaint.
fn record_of(line: &str) -> Result<(&str, i64, String)> {
    let fields = || -> Option<(&str, i64, String)> {
        let mut words = line.splitn(4, ' ');
        let (place, offset, _length, value) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let offset = offset.parse().ok()?;
        let name = name_in(value.as_bytes()).unwrap_or_else(|| format!("damaged-at-{offset}"));
        Some((place, offset, name))
    };
    fields().with_context(|| format!("kcat said {line}"))
}

/// Sends a few records by kcat to a partition, in a thread of its own; each run is a producer of its own.
pub fn kcat_produce(number: usize, bootstrap: &str, place: &Place, history: &Arc<History>) -> JoinHandle<()> {
    let (history, place, bootstrap) = (history.clone(), place.clone(), bootstrap.to_owned());
    thread::spawn(move || {
        let me = format!("kcat-{number}");
        history.tell(&me, "is ok idempotent");
        let names: Vec<String> = (0..KCAT_RECORDS).map(|number| format!("{me}:{number}")).collect();
        let mut input = Vec::new();
        for name in &names {
            history.tell(&me, &format!("send invoke {place} {name}"));
            input.extend_from_slice(&value_of(name, 100));
            input.push(b'\n');
        }
        let mut command = kcat(&bootstrap, "-P");
        command.args(["-t", &place.topic, "-p", &place.partition.to_string()]);
        for setting in ["enable.idempotence=true", "message.timeout.ms=40000", "request.timeout.ms=3000"] {
            command.args(["-X", setting]);
        }
        // It ends well when all are acknowledged, and doesn't tell where they are.
        let outcome = run(&mut command, &input);
        for name in &names {
            match &outcome {
                Ok(_) => history.tell(&me, &format!("send ok {place} {name} -")),
                Err(_) => history.tell(&me, &format!("send info {place} {name} kcat")),
            }
        }
    })
}

/// Reads everything from the beginning to the ends, by kcat.
pub fn read_all(bootstrap: &str, topics: &[&str], history: &History) -> Result<()> {
    const NAME: &str = "final";
    history.tell(NAME, "is ok final");
    for topic in topics {
        let mut ends: BTreeMap<String, i64> =
            (0..PARTITIONS).map(|partition| (format!("{topic}-{partition}"), 0)).collect();
        ends.keys().for_each(|place| history.tell(NAME, &format!("seek ok {place} 0")));
        let mut command = kcat(bootstrap, "-C");
        command.args(["-e", "-t", topic, "-o", "beginning", "-X", "auto.offset.reset=error", "-f", FORMAT]);
        let output = run(&mut command, b"")?;
        let text = String::from_utf8_lossy(&output);
        for line in text.lines() {
            let (place, offset, name) = record_of(line)?;
            history.tell(NAME, &format!("poll ok {place} {offset}={name}"));
            *ends.get_mut(place).with_context(|| format!("{place} wasn't asked for"))? = offset + 1;
        }
        for (place, end) in ends {
            history.tell(NAME, &format!("end ok {place} {end}"));
        }
    }
    Ok(())
}
