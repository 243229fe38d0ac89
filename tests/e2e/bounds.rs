//! What peers can make a node hold, and what it does at the bound: it goes on serving others, and nothing is lost.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringlog_client::Connection;
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::small_disk::SmallDisk;
use ringlog_e2e_tests::{wait_until, wire};
use ringlog_types::ErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn grown_mib(node: &Node, before: u64) -> Result<u64> {
    Ok(node.resident_bytes()?.saturating_sub(before) / MIB)
}

/// Clients that pipeline fetches of 16 MB each and take no answer: what they make a node hold is what it allows.
#[test]
fn fetches_that_nobody_reads() -> Result<()> {
    for shards in [1, 2] {
        let settings = format!(
            "ringlog.shards={shards}\nringlog.response.memory.bytes=16777216\nringlog.frames.memory.bytes=16777216\n"
        );
        let node = Node::start_new(&format!("unread-{shards}"), Kind::Ringlog, &settings)?;
        wire::create_topic(&node, "large", 4)?;
        let mut writer = wire::connect(&node, PATIENCE)?;
        for number in 0..320 {
            let answer = wire::produced_to(&mut writer, "large", number % 4, 900_000)?;
            ensure!(answer == ErrorCode::None, "producing: {answer:?}");
        }
        let before = node.resident_bytes()?;
        let mut unread = Vec::new();
        for _ in 0..8 {
            let mut connection = wire::connect(&node, PATIENCE)?;
            for _ in 0..40 {
                connection.send_request(&wire::fetch("large", 0..4, 16 << 20), wire::FETCH_VERSION)?;
            }
            unread.push(connection);
        }
        // Somebody who reads is served beside them.
        let mut reader = wire::connect(&node, PATIENCE)?;
        for round in 0..40 {
            let data = wire::fetched(&mut reader, "large", round % 4, 1 << 20)?;
            let bytes = data.records.map_or(0, |records| records.into_contiguous().len());
            ensure!(data.error_code == 0 && bytes >= 900_000, "round {round}: {} with {bytes} bytes", data.error_code);
            let grown = grown_mib(&node, before)?;
            ensure!(grown < 120, "eight clients that don't read took {grown} MiB, with {shards} shards");
        }
        drop(unread);
    }
    Ok(())
}

/// Connections beyond what there are descriptors for are closed, and files can be opened all the same.
#[test]
fn as_many_connections_as_there_are_descriptors() -> Result<()> {
    for shards in [1, 2, 4] {
        let mut node = Node::prepare(
            &format!("descriptors-{shards}"),
            Kind::Ringlog,
            1,
            "data",
            "",
            &format!("ringlog.shards={shards}\n"),
        )?;
        node.limit_open_files(150);
        node.format(&["--standalone"])?;
        node.start()?;
        wire::create_topic(&node, "many", 64)?;
        let mut served = Vec::new();
        let mut refused = 0;
        for _ in 0..140 {
            match wire::connect(&node, Duration::from_secs(5)) {
                Ok(connection) => served.push(connection),
                Err(_) => refused += 1,
            }
        }
        ensure!(served.len() >= 10 && refused > 0, "{} are served, {refused} refused", served.len());
        // More files than may be open, by more clients than one.
        let clients = served.len();
        for partition in 0..64 {
            let answer = wire::produced_to(&mut served[partition as usize % clients], "many", partition, 100)?;
            ensure!(answer == ErrorCode::None, "partition {partition}: {answer:?}");
        }
        for partition in 0..64 {
            let data = wire::fetched(&mut served[0], "many", partition, 1 << 20)?;
            ensure!(data.error_code == 0 && data.high_watermark == 1, "partition {partition}: {}", data.error_code);
        }
        let words = node.words()?;
        let said = words.matches("file descriptors").count();
        ensure!(said == 1, "it should say once that there are no descriptors left, not {said} times");
        ensure!(!words.contains("offline"), "a directory went offline:\n{words}");
        // One that ends makes room for another.
        served.truncate(clients / 2);
        let another = || Ok(wire::connect(&node, Duration::from_secs(5)).ok());
        wait_until("a new connection", PATIENCE, another)?;
        drop(served);
        node.stop()?;
    }
    Ok(())
}

/// `max.connections` counts the connections of all cores, and can be changed while the node runs, as can the others.
#[test]
fn connections_beyond_their_limits() -> Result<()> {
    let node = Node::start_new("limited", Kind::Ringlog, "ringlog.shards=2\nmax.connections=12\n")?;
    let connect = || wire::connect(&node, Duration::from_secs(5));
    let count = || -> Result<usize> {
        let mut open: Vec<Connection> = Vec::new();
        while let (Ok(connection), true) = (connect(), open.len() < 40) {
            open.push(connection);
        }
        Ok(open.len())
    };
    let reaches = |what: &str, limit: usize| wait_until(what, PATIENCE, || Ok((count()? == limit).then_some(())));
    reaches("twelve connections", 12)?;
    alter(&node, "max.connections.per.ip", "7")?;
    reaches("seven connections of one address", 7)?;
    alter(&node, "max.connections.per.ip.overrides", "localhost:9,127.0.0.1:9")?;
    reaches("nine connections of an address with its own limit", 9)?;
    alter(&node, "max.connections", "5")?;
    reaches("five connections", 5)?;
    let words = node.words()?;
    ensure!(words.matches("max.connections is reached").count() <= 2, "it says so again and again:\n{words}");
    Ok(())
}

/// There may be no connection left for a while.
fn alter(node: &Node, key: &str, value: &str) -> Result<()> {
    wait_until("the setting", PATIENCE, || Ok(wire::alter_brokers(node, key, value).ok()))
}

/// One request to so many partitions that their frames don't fit into the memory for them.
#[test]
fn a_produce_to_more_partitions_than_there_is_memory_for() -> Result<()> {
    const PARTITIONS: i32 = 5_000;
    // However slow the disk is at so many files, the broker isn't fenced meanwhile.
    let settings = "ringlog.shards=1\nringlog.frames.memory.bytes=8388608\nbroker.session.timeout.ms=120000\n";
    let mut node = Node::start_new("wide", Kind::Ringlog, settings)?;
    wire::create_topic(&node, "wide", PARTITIONS)?;
    let before = node.resident_bytes()?;
    let mut connection = wire::connect(&node, PATIENCE)?;
    let batch = wire::batch(100);
    let mut request = wire::produce("wide", 0..PARTITIONS, &batch);
    request.timeout_ms = 120_000;
    for round in 1..=2 {
        let answers = wire::produced(&mut connection, &request)?;
        ensure!(answers.len() == PARTITIONS as usize, "{} answers", answers.len());
        for answer in &answers {
            let error = wire::error(answer.error_code)?;
            ensure!(error == ErrorCode::None, "partition {}: {error:?}\n{}", answer.index, node.last_words());
            ensure!(answer.base_offset == round - 1, "partition {} begins at {}", answer.index, answer.base_offset);
        }
    }
    let grown = grown_mib(&node, before)?;
    ensure!(grown < 200, "it took {grown} MiB");
    node.stop()
}

/// While the disk stands still, requests of any size wait at their sockets once there is no memory for more, and none is lost.
#[test]
fn small_requests_while_the_disk_stands_still() -> Result<()> {
    const CONNECTIONS: usize = 300;
    const REQUESTS: usize = 60;
    let Some(disk) = SmallDisk::new("frozen", 1024)? else { return Ok(()) };
    let mut node = Node::prepare("frozen-node", Kind::Ringlog, 1, "meta,data", "", "")?;
    node.set("ringlog.frames.memory.bytes", "8388608")?;
    node.set("socket.request.max.bytes", "1048576")?;
    node.set("queued.max.request.bytes", "8388608")?;
    let data = disk.folder().join("data").display().to_string();
    let meta = node.folder().join("meta").display().to_string();
    node.set("log.dirs", &data)?;
    node.set("metadata.log.dir", &meta)?;
    node.format(&["--standalone"])?;
    node.start()?;
    wire::create_topic(&node, "small", 4)?;
    let batch = wire::batch(50_000);
    let mut clients = (0..CONNECTIONS).map(|_| wire::connect(&node, PATIENCE)).collect::<Result<Vec<_>>>()?;
    let before = node.resident_bytes()?;
    let frozen = Frozen::new(&disk)?;
    for client in &mut clients {
        client.stream().set_nonblocking(true)?;
    }
    let mut sent = vec![0; CONNECTIONS];
    for (place, client) in clients.iter_mut().enumerate() {
        let mut request = wire::produce("small", [place as i32 % 4], &batch);
        request.timeout_ms = 120_000;
        // A socket that takes no more is what we want to see.
        while sent[place] < REQUESTS && client.send_request(&request, wire::PRODUCE_VERSION).is_ok() {
            sent[place] += 1;
        }
    }
    let asked = sent.iter().sum::<usize>() * 50_000 / MIB as usize;
    // Nothing tells when it has read what it will.
    for _ in 0..20 {
        let grown = grown_mib(&node, before)?;
        ensure!(grown < 100, "requests of {asked} MiB took {grown} MiB");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(frozen);
    // A client whose last request was cut off in the middle has nothing more to say; all that arrived whole is answered.
    let mut answered = 0;
    for (client, sent) in clients.iter_mut().zip(sent) {
        client.stream().set_nonblocking(false)?;
        for _ in 0..sent {
            let response = client.receive::<ringlog_protocol::messages::ProduceRequest>(PATIENCE)?;
            ensure!(response.responses[0].partition_responses[0].error_code == 0, "{response:?}");
            answered += 1;
        }
    }
    ensure!(answered > CONNECTIONS, "{answered} answers");
    drop(clients);
    node.stop()
}

/// A file system that takes no writes for now.
struct Frozen<'a>(&'a SmallDisk);

impl Frozen<'_> {
    fn new(disk: &SmallDisk) -> Result<Frozen<'_>> {
        let status = Command::new("fsfreeze").arg("--freeze").arg(disk.folder()).status()?;
        ensure!(status.success(), "the file system can't be frozen");
        Ok(Frozen(disk))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(self.0.folder()).status();
    }
}

/// A connection that is refused doesn't hang: it is closed.
#[test]
fn a_refused_connection_is_closed() -> Result<()> {
    use std::io::Read;
    let node = Node::start_new("refused", Kind::Ringlog, "max.connections=2\n")?;
    let _open = wait_until("two connections", PATIENCE, || {
        let mut open = Vec::new();
        while open.len() < 2 {
            let Ok(connection) = wire::connect(&node, PATIENCE) else { return Ok(None) };
            open.push(connection);
        }
        Ok(Some(open))
    })?;
    let mut stream = TcpStream::connect(node.bootstrap())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let end = stream.read(&mut [0; 1]);
    ensure!(matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    Ok(())
}
