//! Peers that send nonsense, nothing, or never listen: each costs little, is closed alone, and others are served.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringlog_client::{
    Client, Consumer, ConsumerOptions, NewRecord, Producer, ProducerOptions, StartOffset, Subscription,
};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::wait_until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections that send nothing.
const IDLE_CONNECTIONS: usize = 10_000;
/// What may be used in addition by any of these attacks.
const GROWTH_LIMIT_BYTES: u64 = 200 << 20;
/// An idle connection may cost so much.
const IDLE_CONNECTION_BYTES: u64 = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// The tests take turns on one node, so that memory is that of one attack.
struct Turn {
    node: MutexGuard<'static, Node>,
    resident_before: u64,
}

fn turn() -> Result<Turn> {
    static NODE: OnceLock<std::sync::Mutex<Node>> = OnceLock::new();
    static START: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let start = START.lock().unwrap_or_else(PoisonError::into_inner);
    if NODE.get().is_none() {
        raise_open_files()?;
        let _ = NODE.set(std::sync::Mutex::new(Node::start_new("hostile", Kind::under_test(), "")?));
    }
    drop(start);
    let node = NODE.get().context("it was just set")?.lock().unwrap_or_else(PoisonError::into_inner);
    work_normally(&node)?;
    let resident_before = node.resident_bytes()?;
    Ok(Turn { node, resident_before })
}

impl Turn {
    /// The node lives, serves, and has not grown much.
    fn end(mut self) -> Result<()> {
        ensure!(self.node.is_alive(), "the node ended:\n{}", self.node.last_words());
        work_normally(&self.node).context("after the attack")?;
        self.check_growth(GROWTH_LIMIT_BYTES)
    }

    /// Only of Ringlog: Java's memory follows from its settings.
    fn check_growth(&self, limit: u64) -> Result<()> {
        let growth = self.node.resident_bytes()?.saturating_sub(self.resident_before);
        ensure!(self.node.kind() == Kind::Kafka || growth <= limit, "memory grew by {} KiB", growth >> 10);
        Ok(())
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.node.bootstrap())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// The node and this program both hold all of the connections.
fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let wanted = IDLE_CONNECTIONS as u64 + 1000;
    ensure!(limit.maximum.is_none_or(|most| most >= wanted), "{wanted} open files are needed (ulimit -Hn)");
    Ok(())
}

/// A client's work: a record in, and read back.
fn work_normally(node: &Node) -> Result<()> {
    let mut client = node.client()?;
    let mut producer = Producer::new("ordinary", ProducerOptions::default(), 1);
    let record = NewRecord { value: Some(b"ordinary".to_vec()), ..NewRecord::default() };
    producer.append(&mut client, &record)?;
    let deliveries = producer.flush(&mut client);
    let delivery = deliveries.into_iter().next().context("a delivery")?;
    let offset = delivery.outcome?;
    read_back(&mut client, offset)
}

fn read_back(client: &mut Client, offset: i64) -> Result<()> {
    let subscription = Subscription::Partitions(vec![("ordinary".to_owned(), 0, StartOffset::At(offset))]);
    let mut consumer = Consumer::new(subscription, ConsumerOptions::default());
    wait_until("the record", PATIENCE, || Ok(consumer.poll(client)?.first().map(drop)))
}

/// Whether the node closes this connection. It may answer before.
fn is_closed_by_node(stream: &mut TcpStream) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut answer = [0; 4096];
    while Instant::now() < deadline {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return Ok(true);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Writes what the node takes; it may close the connection meanwhile.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// An ApiVersions request of version 0 with a client id.
fn api_versions_request() -> Vec<u8> {
    let mut body = vec![0, 18, 0, 0, 0, 0, 0, 7];
    body.extend_from_slice(&[0, 4]);
    body.extend_from_slice(b"test");
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("tests send small frames");
    [&length.to_be_bytes(), body].concat()
}

/// An answer's body after its size.
fn read_answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut body = vec![0; u32::from_be_bytes(size).try_into()?];
    stream.read_exact(&mut body)?;
    Ok(body)
}

#[test]
fn random_bytes() -> Result<()> {
    let turn = turn()?;
    let mut state = 0x9e37_79b9_u32;
    for attempt in 0..200 {
        let mut stream = turn.connect()?;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_be_bytes()[1]
        })
        .take(2000)
        .collect();
        if attempt % 2 == 0 {
            // A good length, so that the nonsense gets as far as the decoders; and often a good API key.
            bytes[..4].copy_from_slice(&1996_u32.to_be_bytes());
            let (api_key, version) = (bytes[5] % 93, bytes[7] % 12);
            bytes[4..8].copy_from_slice(&[0, api_key, 0, version]);
        }
        write_some(&mut stream, &bytes);
        let _ = stream.shutdown(Shutdown::Write);
        ensure!(is_closed_by_node(&mut stream)?, "attempt {attempt} stays open");
    }
    turn.end()
}

#[test]
fn absurd_lengths() -> Result<()> {
    let turn = turn()?;
    for length in [-1_i32, i32::MIN, i32::MAX, 0, 3, 104_857_601] {
        let mut stream = turn.connect()?;
        write_some(&mut stream, &length.to_be_bytes());
        write_some(&mut stream, &[0; 64]);
        ensure!(is_closed_by_node(&mut stream)?, "a request of {length} bytes is waited for");
    }
    turn.end()
}

/// Promises of the largest request that is allowed, without the request.
#[test]
fn promised_requests_take_no_memory() -> Result<()> {
    let turn = turn()?;
    // Kafka believes them: it takes the memory at once, has none left, and serves nobody any more.
    if turn.node.kind() == Kind::Kafka {
        return Ok(());
    }
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = turn.connect()?;
        stream.write_all(&104_857_600_u32.to_be_bytes())?;
        stream.write_all(&[0, 0, 0, 9, 0, 0, 0, 1])?;
        streams.push(stream);
    }
    work_normally(&turn.node)?;
    turn.check_growth(GROWTH_LIMIT_BYTES)?;
    drop(streams);
    turn.end()
}

/// Array counts that no request can hold.
#[test]
fn absurd_counts_within_requests() -> Result<()> {
    let turn = turn()?;
    for api_key in 0..93_u8 {
        for version in 0..14_u8 {
            let mut body = vec![0, api_key, 0, version, 0, 0, 0, 1, 0xff, 0xff];
            body.extend_from_slice(&[0x7f; 60]);
            let mut stream = turn.connect()?;
            write_some(&mut stream, &framed(&body));
            let _ = stream.shutdown(Shutdown::Write);
            ensure!(is_closed_by_node(&mut stream)?, "API {api_key} version {version} leaves the connection open");
        }
    }
    turn.end()
}

#[test]
fn truncated_requests() -> Result<()> {
    let turn = turn()?;
    let request = api_versions_request();
    for length in 0..request.len() {
        let mut stream = turn.connect()?;
        write_some(&mut stream, &request[..length]);
        stream.shutdown(Shutdown::Write)?;
        ensure!(is_closed_by_node(&mut stream)?, "after {length} bytes the connection stays open");
    }
    turn.end()
}

/// A request in single bytes is a request.
#[test]
fn slow_requests_are_answered() -> Result<()> {
    let turn = turn()?;
    let mut streams = (0..50).map(|_| turn.connect()).collect::<Result<Vec<_>>>()?;
    for byte in api_versions_request() {
        for stream in &mut streams {
            stream.write_all(&[byte])?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    for stream in &mut streams {
        let answer = read_answer(stream)?;
        ensure!(answer.starts_with(&[0, 0, 0, 7]), "the answer's correlation id is {:?}", answer.get(..4));
    }
    turn.end()
}

/// The node stops reading from a client that doesn't take its answers.
#[test]
fn a_client_that_never_reads() -> Result<()> {
    let turn = turn()?;
    let mut stream = turn.connect()?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let requests = api_versions_request().repeat(1000);
    let mut sent = 0_usize;
    while sent < 256 << 20 {
        match stream.write(&requests) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    ensure!(sent < 256 << 20, "the node takes requests without an end");
    work_normally(&turn.node).context("beside a client that never reads")?;
    turn.check_growth(GROWTH_LIMIT_BYTES)?;
    drop(stream);
    turn.end()
}

#[test]
fn ten_thousand_connections_that_send_nothing() -> Result<()> {
    let turn = turn()?;
    let mut streams = Vec::with_capacity(IDLE_CONNECTIONS);
    for number in 0..IDLE_CONNECTIONS {
        streams.push(turn.connect().with_context(|| format!("connection {number}"))?);
    }
    work_normally(&turn.node).context("beside ten thousand idle connections")?;
    turn.check_growth(IDLE_CONNECTION_BYTES * IDLE_CONNECTIONS as u64)?;
    // They are all still served.
    for stream in streams.iter_mut().step_by(997) {
        stream.write_all(&api_versions_request())?;
        ensure!(read_answer(stream)?.starts_with(&[0, 0, 0, 7]), "an idle connection isn't answered");
    }
    drop(streams);
    turn.end()
}
