//! Replicas move between the directories of their broker (AlterReplicaLogDirs, KIP-113), as Kafka's do: the same answers, the
//! same folders, which either finds and goes on with; and nobody who writes or reads meanwhile notices.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_client::{
    Client, ClientOptions, Consumer, ConsumerOptions, NewRecord, Producer, ProducerOptions, StartOffset, Subscription,
};
use ringlog_e2e_tests::jvm::{Jvm, Outcome};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::{cluster, paths, wait_until, wire};
use ringlog_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use ringlog_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use ringlog_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use ringlog_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use ringlog_protocol::records::BatchIter;
use ringlog_types::ErrorCode;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(90);
const TOPIC: &str = "moved";
/// Written before anything moves, in batches of one record.
const RECORDS: usize = 40;
const RECORD_BYTES: usize = 100_000;
const RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

struct Moving {
    node: Node,
}

/// Where a replica lies, and where its copy.
type Places = (Option<PathBuf>, Option<PathBuf>);

impl Moving {
    fn start(name: &str, kind: Kind, partitions: i32) -> Result<Moving> {
        let settings = "log.segment.bytes=1048576\nlog.segment.delete.delay.ms=100";
        let mut node = Node::prepare(name, kind, 1, "data,more", "", settings)?;
        node.set("metadata.log.dir", &node.folder().join("meta").display().to_string())?;
        node.format(&["--standalone"])?;
        node.start()?;
        wire::create_topic(&node, TOPIC, partitions)?;
        Ok(Moving { node })
    }

    fn write(&self) -> Result<()> {
        let mut connection = wire::connect(&self.node, PATIENCE)?;
        for _ in 0..RECORDS {
            let error = wire::produced_to(&mut connection, TOPIC, 0, RECORD_BYTES)?;
            ensure!(error == ringlog_types::ErrorCode::None, "{error}");
        }
        Ok(())
    }

    fn dirs(&self) -> [PathBuf; 2] {
        ["data", "more"].map(|dir| self.node.folder().join(dir))
    }

    /// As DescribeLogDirs has it.
    fn places(&self, partition: i32) -> Result<Places> {
        let mut client = self.node.client()?;
        let mut places = (None, None);
        for dir in client.send(&DescribeLogDirsRequest { topics: None })?.results {
            for found in dir.topics.iter().filter(|topic| topic.name.as_str() == TOPIC).flat_map(|it| &it.partitions) {
                if found.partition_index == partition {
                    let place = if found.is_future_key { &mut places.1 } else { &mut places.0 };
                    *place = Some(PathBuf::from(dir.log_dir.as_str()));
                }
            }
        }
        Ok(places)
    }

    /// Where the replica lies, and the other directory.
    fn dirs_of_move(&self, partition: i32) -> Result<(PathBuf, PathBuf)> {
        let from = self.places(partition)?.0.context("the replica is somewhere")?;
        let to = self.dirs().into_iter().find(|dir| *dir != from).context("there are two")?;
        Ok((from, to))
    }

    /// Error codes by topic and partition.
    fn alter(&self, version: i16, asks: &[(&str, &str, i32)]) -> Result<BTreeMap<(String, i32), i16>> {
        let dir = |(path, topic, partition): &(&str, &str, i32)| AlterReplicaLogDir {
            path: (*path).to_owned().into(),
            topics: vec![AlterReplicaLogDirTopic { name: (*topic).to_owned().into(), partitions: vec![*partition] }],
        };
        let request = AlterReplicaLogDirsRequest { dirs: asks.iter().map(dir).collect() };
        let mut connection = wire::connect(&self.node, PATIENCE)?;
        let response = connection.call_in_version(&request, version, Duration::ZERO)?;
        let mut codes = BTreeMap::new();
        for topic in response.results {
            for partition in topic.partitions {
                codes.insert((topic.topic_name.as_str().to_owned(), partition.partition_index), partition.error_code);
            }
        }
        Ok(codes)
    }

    /// By way of the broker: a controller that is asked itself takes directories off the list only.
    fn cordon(&self, dirs: &str) -> Result<()> {
        let (name, value) = ("cordoned.log.dirs".to_owned().into(), Some(dirs.to_owned().into()));
        let configs = vec![AlterableConfig { name, config_operation: 0, value }];
        let resource = AlterConfigsResource { resource_type: 4, resource_name: "1".to_owned().into(), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let response = self.node.client()?.send(&request)?;
        let answer = response.responses.first().context("an answer")?;
        ensure!(answer.error_code == 0, "{dirs}: {:?}", answer.error_message);
        Ok(())
    }

    fn move_to(&self, dir: &Path, partition: i32) -> Result<()> {
        let codes = self.alter(2, &[(&dir.display().to_string(), TOPIC, partition)])?;
        ensure!(codes.values().all(|code| *code == 0) && codes.len() == 1, "{codes:?}");
        Ok(())
    }

    fn throttle(&self, rate: &str) -> Result<()> {
        wire::alter_brokers(&self.node, RATE, rate)
    }

    fn wait_until_moved(&self, to: &Path, partition: i32) -> Result<()> {
        let moved = wait_until("the replica to be moved", PATIENCE, || {
            Ok((self.places(partition)? == (Some(to.to_owned()), None)).then_some(()))
        });
        moved.with_context(|| format!("{:?}\n{}", self.places(partition), self.node.explanation()))
    }

    /// Names of folders of the topic, in both directories, with their suffixes only.
    fn folders(&self) -> Result<[Vec<String>; 2]> {
        let names = |dir: PathBuf| -> Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                let name = entry?.file_name().into_string().unwrap_or_default();
                if name.starts_with(TOPIC) {
                    let suffix = name.rsplit_once('-').map_or("", |(_, suffix)| suffix).to_owned();
                    names.push(if name.contains('.') { suffix } else { name });
                }
            }
            names.sort();
            Ok(names)
        };
        let [data, more] = self.dirs().map(names);
        Ok([data?, more?])
    }

    /// All batches of a partition, by the files in the folder of that name.
    fn bytes(&self, dir: &Path, partition: i32) -> Result<Vec<u8>> {
        let folder = dir.join(format!("{TOPIC}-{partition}"));
        let mut names: Vec<PathBuf> =
            fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        names.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        names.sort();
        let mut all = Vec::new();
        for path in names {
            let bytes = fs::read(path)?;
            let len = BatchIter::new(&bytes).map_while(Result::ok).map(|batch| batch.bytes.len()).sum();
            all.extend_from_slice(&bytes[..len]);
        }
        Ok(all)
    }

    /// The tool of that name, with `$FROM` and `$TO` for the directories in what it says.
    fn tool(&self, is_ours: bool, words: &[&str], dirs: &(PathBuf, PathBuf)) -> Result<Outcome> {
        let server = self.node.bootstrap();
        let words = [&["--bootstrap-server", &server], words].concat();
        let outcome = if is_ours {
            let output = Command::new(paths::ringlog()?).arg("reassign-partitions").args(words).output()?;
            Outcome {
                status: output.status.code().unwrap_or(-1),
                output: String::from_utf8(output.stdout)?,
                errors: String::from_utf8(output.stderr)?,
            }
        } else {
            Jvm::shared()?.tool("kafka-reassign-partitions", &words, b"")?
        };
        let plain = |text: String| {
            let text = text.replace(&dirs.0.display().to_string(), "$FROM");
            let is_noise =
                |line: &&str| line.starts_with("\tat ") || line.starts_with("[20") || line.starts_with("WARN ");
            let text = text.replace(&dirs.1.display().to_string(), "$TO");
            text.split_inclusive('\n').filter(|line| !is_noise(line)).collect::<String>()
        };
        Ok(Outcome { status: outcome.status, output: plain(outcome.output), errors: plain(outcome.errors) })
    }
}

/// What is answered and said, step by step.
fn steps(kind: Kind, whose: &str, is_ours: bool) -> Result<Vec<(String, String)>> {
    let moving = Moving::start(&format!("log-dir-moves-{whose}"), kind, 1)?;
    moving.write()?;
    let dirs = moving.dirs_of_move(0)?;
    let (from, to) = (dirs.0.display().to_string(), dirs.1.display().to_string());
    let before = moving.bytes(&dirs.0, 0)?;
    let mut said = Vec::new();
    let long = "x".repeat(214);
    let short = "x".repeat(213);
    let asks: &[&[(&str, &str, i32)]] = &[
        &[("/nowhere", TOPIC, 0)],
        &[("more", TOPIC, 0)],
        &[(&from, TOPIC, 0)],
        &[(&to, "unknown", 0)],
        &[(&to, TOPIC, 7)],
        &[(&to, TOPIC, -1)],
        &[(&to, &long, 0), (&to, &short, 0)],
        &[("/nowhere", &long, 0)],
        &[("", TOPIC, 0), (&from, TOPIC, 0)],
        &[],
    ];
    for (number, asks) in asks.iter().enumerate() {
        for version in [1, 2] {
            said.push((format!("ask {number} in version {version}"), format!("{:?}", moving.alter(version, asks)?)));
        }
    }
    let folder = paths::scratch("log-dir-moves-files")?;
    let plan = folder.join("plan");
    let partition = |dir| format!(r#"{{"topic":"{TOPIC}","partition":0,"replicas":[1],"log_dirs":["{dir}"]}}"#);
    fs::write(&plan, format!(r#"{{"version":1,"partitions":[{}]}}"#, partition(to.as_str())))?;
    let plan = plan.display().to_string();
    let file = ["--reassignment-json-file", plan.as_str()];
    let mut run = |what: &str, words: &[&str]| -> Result<()> {
        let outcome = moving.tool(is_ours, &[&file[..], words].concat(), &dirs)?;
        said.push((what.to_owned(), format!("{outcome:#?}")));
        Ok(())
    };
    run("before", &["--verify", "--preserve-throttles"])?;
    run("begin", &["--execute", "--replica-alter-log-dirs-throttle", "1"])?;
    let mut states = Vec::new();
    ensure!(moving.places(0)? == (Some(dirs.0.clone()), Some(dirs.1.clone())), "{:?}", moving.places(0)?);
    run("under way", &["--verify", "--preserve-throttles"])?;
    run("again", &["--execute", "--additional", "--replica-alter-log-dirs-throttle", "1"])?;
    states.push(moving.folders()?);
    moving.move_to(&dirs.0, 0)?;
    ensure!(moving.places(0)? == (Some(dirs.0.clone()), None), "{:?}", moving.places(0)?);
    run("taken back", &["--verify", "--preserve-throttles"])?;
    wait_until("the copy to be gone", PATIENCE, || Ok(moving.folders()?.concat().len().eq(&1).then_some(())))?;
    moving.throttle("1000000000")?;
    run("begin anew", &["--execute", "--replica-alter-log-dirs-throttle", "1000000000"])?;
    moving.wait_until_moved(&dirs.1, 0)?;
    run("done", &["--verify"])?;
    wait_until("the old folder to be gone", PATIENCE, || Ok(moving.folders()?.concat().len().eq(&1).then_some(())))?;
    ensure!(moving.bytes(&dirs.1, 0)? == before, "other bytes than before");
    let sorted = |mut folders: [Vec<String>; 2]| {
        folders.sort();
        format!("{folders:?}")
    };
    said.extend(states.into_iter().map(|folders| ("folders".to_owned(), sorted(folders))));
    let mut node = moving.node;
    node.stop()?;
    fs::remove_dir_all(&folder)?;
    Ok(said)
}

#[test]
fn answers_and_tools_say_what_kafkas_say() -> Result<()> {
    let _turn = cluster::turn();
    let kafkas = steps(Kind::Kafka, "kafka", false)?;
    let ours = steps(Kind::under_test(), "ringlog", false)?;
    let own_tool = steps(Kind::under_test(), "tool", true)?;
    let mut differences = String::new();
    for ((what, kafkas), ((_, ours), (_, own_tool))) in kafkas.iter().zip(ours.iter().zip(&own_tool)) {
        if kafkas != ours || kafkas != own_tool {
            differences += &format!("{what}\nkafka: {kafkas}\nringlog: {ours}\nringlog by its own tool: {own_tool}\n");
        }
    }
    ensure!(differences.is_empty() && kafkas.len() == ours.len(), "{differences}");
    for milestone in ["Reassignment of replica moved-0-1 is still in progress.", "completed successfully."] {
        ensure!(kafkas.iter().any(|(_, said)| said.contains(milestone)), "nobody said {milestone}: {kafkas:#?}");
    }
    Ok(())
}

/// Writes with acks=all until it is told to stop, without a second try; what was acknowledged, in order.
fn write_on(bootstrap: String, partitions: i32, is_over: Arc<AtomicBool>) -> Result<Vec<Vec<String>>> {
    let mut client = Client::connect(bootstrap.as_str(), ClientOptions::default())?;
    let mut producer = Producer::new(TOPIC, ProducerOptions { retries: 0, ..ProducerOptions::default() }, 1);
    let mut written = vec![Vec::new(); partitions as usize];
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        for partition in 0..partitions {
            let value = format!("{number} {}", "y".repeat(2_000));
            let record = NewRecord {
                partition: Some(partition),
                value: Some(value.clone().into_bytes()),
                ..NewRecord::default()
            };
            let mut delivered: Vec<_> = producer.append(&mut client, &record)?.into_iter().collect();
            delivered.extend(producer.flush(&mut client));
            ensure!(delivered.iter().all(|delivery| delivery.outcome.is_ok()), "{delivered:?}");
            written[partition as usize].push(value);
            number += 1;
        }
    }
    Ok(written)
}

fn count(found: &[Vec<String>]) -> usize {
    found.iter().map(Vec::len).sum()
}

/// Reads each partition while it is written; what was read, in order.
fn read_on(bootstrap: String, partitions: i32, until: impl Fn(&[Vec<String>]) -> bool) -> Result<Vec<Vec<String>>> {
    let mut client = Client::connect(bootstrap.as_str(), ClientOptions::default())?;
    let from_start = |partition| (TOPIC.to_owned(), partition, StartOffset::Earliest);
    let subscription = Subscription::Partitions((0..partitions).map(from_start).collect());
    let mut consumer = Consumer::new(subscription, ConsumerOptions::default());
    let mut found = vec![Vec::new(); partitions as usize];
    while !until(&found) {
        for record in consumer.poll(&mut client)? {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
            found[record.partition as usize].push(value);
        }
    }
    Ok(found)
}

#[test]
fn nobody_who_writes_or_reads_notices_a_move() -> Result<()> {
    let _turn = cluster::turn();
    const PARTITIONS: i32 = 3;
    let mut moving = Moving::start("log-dir-moves-load", Kind::under_test(), PARTITIONS)?;
    let bootstrap = moving.node.bootstrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (bootstrap, is_over) = (bootstrap.clone(), is_over.clone());
        move || write_on(bootstrap, PARTITIONS, is_over)
    });
    let total = Arc::new(std::sync::OnceLock::new());
    let reader = std::thread::spawn({
        let (bootstrap, total) = (bootstrap.clone(), total.clone());
        move || read_on(bootstrap, PARTITIONS, |found| total.get().is_some_and(|total| count(found) >= *total))
    });
    let moves = || -> Result<()> {
        for _ in 0..4 {
            let mut targets = Vec::new();
            for partition in 0..PARTITIONS {
                let (_, to) = moving.dirs_of_move(partition)?;
                moving.move_to(&to, partition)?;
                targets.push(to);
            }
            for (partition, to) in (0..).zip(&targets) {
                moving.wait_until_moved(to, partition)?;
            }
        }
        Ok(())
    };
    let outcome = moves();
    is_over.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer");
    let _ = total.set(written.as_ref().map_or(0, |written| written.iter().map(Vec::len).sum()));
    let read = reader.join().expect("the reader");
    outcome.with_context(|| moving.node.explanation())?;
    let (written, read) = (written?, read?);
    ensure!(written == read, "{:?} written, {:?} read", counts(&written), counts(&read));
    ensure!(written.iter().all(|of| of.len() > 20), "{:?}", counts(&written));
    moving.node.stop()?;
    // What is on the disk is all of it, too.
    moving.node.start()?;
    let total: usize = written.iter().map(Vec::len).sum();
    let again = read_on(moving.node.bootstrap(), PARTITIONS, |found| count(found) >= total)?;
    ensure!(written == again, "{:?} written, {:?} after a stop", counts(&written), counts(&again));
    moving.node.stop()
}

/// A kill at whatever moment of a move loses nothing that was acknowledged, and leaves each partition in one place.
#[test]
fn a_kill_during_moves_loses_nothing() -> Result<()> {
    let _turn = cluster::turn();
    const PARTITIONS: i32 = 2;
    const KILLS: usize = 6;
    let mut moving = Moving::start("log-dir-moves-kill", Kind::under_test(), PARTITIONS)?;
    let mut acknowledged = vec![Vec::new(); PARTITIONS as usize];
    for kill in 0..KILLS {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let writer = std::thread::spawn({
            let (bootstrap, count) = (moving.node.bootstrap(), count.clone());
            move || write_until_it_fails(&bootstrap, PARTITIONS, kill, &count)
        });
        std::thread::scope(|scope| {
            let (over, inside) = (is_over.clone(), &moving);
            let mover = scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for partition in 0..PARTITIONS {
                        // The node may be gone.
                        let _ = inside.dirs_of_move(partition).and_then(|(_, to)| inside.move_to(&to, partition));
                    }
                }
            });
            let enough = 20 + kill * 7;
            let written =
                wait_until("some records", PATIENCE, || Ok((count.load(Ordering::Relaxed) >= enough).then_some(())));
            let process = Pid::from_raw(moving.node.process_id()? as i32).context("a process")?;
            let killed = kill_process(process, Signal::KILL).map_err(anyhow::Error::from);
            is_over.store(true, Ordering::Relaxed);
            mover.join().expect("the mover");
            written.and(killed)
        })?;
        moving.node.kill()?;
        for (all, new) in acknowledged.iter_mut().zip(writer.join().expect("the writer")?) {
            all.extend(new);
        }
        moving.node.start()?;
    }
    // Some are there beside those that nobody was told of.
    let deadline = Instant::now() + PATIENCE;
    let found = read_on(moving.node.bootstrap(), PARTITIONS, |found| {
        let mut pairs = acknowledged.iter().zip(found);
        let has_last = |(acknowledged, found): (&Vec<String>, &Vec<String>)| {
            acknowledged.last().is_none_or(|last| found.contains(last))
        };
        pairs.all(has_last) || Instant::now() > deadline
    })?;
    for (partition, (acknowledged, found)) in acknowledged.iter().zip(&found).enumerate() {
        let mut rest = found.iter();
        let lost = acknowledged.iter().find(|value| !rest.any(|found| found == *value));
        ensure!(lost.is_none(), "partition {partition} lost {:?}", lost.map(|value| &value[..30]));
    }
    for partition in 0..PARTITIONS {
        wait_until("the moves to end", PATIENCE, || Ok(moving.places(partition)?.1.is_none().then_some(())))?;
    }
    let is_live = |name: &&String| name.starts_with(TOPIC);
    let folders = moving.folders()?.concat();
    ensure!(folders.iter().filter(is_live).count() == PARTITIONS as usize, "{folders:?}");
    moving.node.stop()
}

/// Writes until the node is gone; what was acknowledged.
fn write_until_it_fails(
    bootstrap: &str,
    partitions: i32,
    round: usize,
    count: &AtomicUsize,
) -> Result<Vec<Vec<String>>> {
    let mut client = Client::connect(bootstrap, ClientOptions::default())?;
    let mut producer = Producer::new(TOPIC, ProducerOptions { retries: 0, ..ProducerOptions::default() }, 1);
    let mut written = vec![Vec::new(); partitions as usize];
    for number in 0.. {
        for partition in 0..partitions {
            let value = format!("{round} {number} {}", "z".repeat(20_000));
            let record = NewRecord {
                partition: Some(partition),
                value: Some(value.clone().into_bytes()),
                ..NewRecord::default()
            };
            let Ok(delivered) = producer.append(&mut client, &record) else { return Ok(written) };
            let mut delivered: Vec<_> = delivered.into_iter().collect();
            delivered.extend(producer.flush(&mut client));
            if delivered.is_empty() || delivered.iter().any(|delivery| delivery.outcome.is_err()) {
                return Ok(written);
            }
            written[partition as usize].push(value);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(written)
}

fn counts(records: &[Vec<String>]) -> Vec<usize> {
    records.iter().map(Vec::len).collect()
}

/// A move that is interrupted by a stop, or a kill, goes on, whoever begins and whoever goes on.
#[test]
fn a_move_goes_on_after_a_restart() -> Result<()> {
    let _turn = cluster::turn();
    let ours = Kind::under_test();
    for (place, (first, second, is_killed)) in
        [(ours, ours, false), (ours, ours, true), (ours, Kind::Kafka, false), (Kind::Kafka, ours, true)]
            .iter()
            .enumerate()
    {
        let mut moving = Moving::start(&format!("log-dir-moves-restart-{place}"), *first, 1)?;
        moving.write()?;
        let (from, to) = moving.dirs_of_move(0)?;
        let before = moving.bytes(&from, 0)?;
        moving.throttle("1")?;
        moving.move_to(&to, 0)?;
        let index = usize::from(to.ends_with("more"));
        wait_until("some of the copy", PATIENCE, || {
            let mut bytes = 0;
            for entry in fs::read_dir(&to)? {
                let path = entry?.path();
                if path.display().to_string().ends_with("-future") {
                    for file in fs::read_dir(path)? {
                        bytes += file?.metadata()?.len();
                    }
                }
            }
            Ok((bytes > 500_000).then_some(()))
        })?;
        if *is_killed {
            moving.node.kill()?
        } else {
            moving.node.stop()?
        }
        ensure!(moving.folders()?[index] == ["future"], "{:?}", moving.folders()?);
        moving.node.become_kind(*second);
        moving.node.start()?;
        ensure!(moving.places(0)? == (Some(from.clone()), Some(to.clone())), "{:?}", moving.places(0)?);
        moving.throttle("1000000000")?;
        moving.wait_until_moved(&to, 0)?;
        wait_until("the old folder to be gone", PATIENCE, || {
            Ok(moving.folders()?[1 - index].is_empty().then_some(()))
        })?;
        ensure!(moving.bytes(&to, 0)? == before, "other bytes than before, {first:?} {second:?}");
        let mut connection = wire::connect(&moving.node, PATIENCE)?;
        ensure!(wire::produced_to(&mut connection, TOPIC, 0, 100)? == ringlog_types::ErrorCode::None);
        moving.node.stop()?;
    }
    Ok(())
}

/// A topic that is deleted while its replica moves leaves nothing in either directory, and a new replica is made where somebody
/// wanted it before it was there.
#[test]
fn a_deleted_topic_takes_its_copies_along() -> Result<()> {
    let _turn = cluster::turn();
    let mut moving = Moving::start("log-dir-moves-deletion", Kind::under_test(), 1)?;
    moving.write()?;
    let (_, to) = moving.dirs_of_move(0)?;
    moving.throttle("1")?;
    moving.move_to(&to, 0)?;
    wire::delete_topic(&moving.node, TOPIC)?;
    wait_until("all folders to be gone", PATIENCE, || Ok(moving.folders()?.concat().is_empty().then_some(())))?;
    for dir in moving.dirs() {
        moving.alter(2, &[(&dir.display().to_string(), TOPIC, 0)])?;
        wire::create_topic(&moving.node, TOPIC, 1)?;
        ensure!(moving.places(0)? == (Some(dir.clone()), None), "{:?}", moving.places(0)?);
        wire::delete_topic(&moving.node, TOPIC)?;
        wait_until("all folders to be gone", PATIENCE, || Ok(moving.folders()?.concat().is_empty().then_some(())))?;
    }
    moving.node.stop()
}

#[test]
fn cordoned_directories_get_no_new_replicas() -> Result<()> {
    let _turn = cluster::turn();
    let mut moving = Moving::start("cordoned", Kind::Ringlog, 1)?;
    let (second, first) = moving.dirs_of_move(0)?;
    moving.cordon(&first.display().to_string())?;
    wait_until("the directory to be cordoned", PATIENCE, || {
        let described = moving.node.client()?.send(&DescribeLogDirsRequest { topics: None })?;
        let is_it = |dir: &&DescribeLogDirsResult| Path::new(dir.log_dir.as_str()) == first;
        Ok(described.results.iter().find(is_it).is_some_and(|dir| dir.is_cordoned).then_some(()))
    })?;
    wire::create_topic(&moving.node, "elsewhere", 6)?;
    let found = moving.node.client()?.send(&DescribeLogDirsRequest { topics: None })?;
    let has_it = |dir: &&DescribeLogDirsResult| dir.topics.iter().any(|topic| topic.name.as_str() == "elsewhere");
    let holders: Vec<PathBuf> =
        found.results.iter().filter(has_it).map(|dir| PathBuf::from(dir.log_dir.as_str())).collect();
    ensure!(holders == [second], "{holders:?}");
    // Nor any that move.
    let codes = moving.alter(2, &[(&first.display().to_string(), TOPIC, 0)])?;
    ensure!(codes.values().eq([&ErrorCode::InvalidReplicaAssignment.code()]), "{codes:?}");
    // A broker all of whose directories are cordoned gets nothing.
    moving.cordon("*")?;
    let mut tries = 0;
    wait_until("no place to be left", PATIENCE, || {
        tries += 1;
        let refused = wire::create_topic(&moving.node, &format!("nowhere-{tries}"), 1).err();
        Ok(refused.filter(|fault| format!("{fault:#}").contains("InvalidReplicationFactor")).map(drop))
    })?;
    moving.node.stop()
}
