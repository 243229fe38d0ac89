//! The load: topics, created at the active controller itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ringlog_client::{ClientError, ClientOptions, Connection};
use ringlog_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use ringlog_types::ErrorCode;

/// How long a controller may take to answer while others are in front.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions whether somebody answers now.
const PAUSE: Duration = Duration::from_millis(5);

/// Topics to be created.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Their number.
    pub topics: usize,
    /// Partitions of each.
    pub partitions_per_topic: i32,
    /// Replicas of each partition.
    pub replicas: i16,
    /// Connections, each with a thread of its own.
    pub connections: usize,
    /// Unanswered requests per connection; a request creates one topic.
    pub in_flight: usize,
}

impl Load {
    /// Creates them all; how long that took.
    pub fn run(&self, controller: &str) -> Result<Duration> {
        let next = AtomicUsize::new(0);
        let begin = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(|| self.work(controller, &next))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a worker doesn't panic"))
        })?;
        Ok(begin.elapsed())
    }

    fn work(&self, controller: &str, next: &AtomicUsize) -> Result<()> {
        let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
        let mut connection = Connection::connect(controller, &options)?;
        let version = connection.version_of::<CreateTopicsRequest>()?;
        let mut waiting = VecDeque::new();
        loop {
            while waiting.len() < self.in_flight {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.topics {
                    break;
                }
                let name = format!("bench-{number:06}");
                connection.send_request(&request(&name, self.partitions_per_topic, self.replicas), version)?;
                waiting.push_back(name);
            }
            let Some(name) = waiting.pop_front() else { return Ok(()) };
            let response = connection.receive::<CreateTopicsRequest>(Duration::ZERO)?;
            let answer = response.topics.first().context("an answer for the topic")?;
            ClientError::check(answer.error_code, answer.error_message.as_deref(), || name)?;
        }
    }
}

fn request(name: &str, num_partitions: i32, replication_factor: i16) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.to_owned().into(),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    };
    let timeout_ms = PATIENCE.as_millis() as i32;
    CreateTopicsRequest { topics: vec![topic], timeout_ms, ..CreateTopicsRequest::default() }
}

/// Asks these nodes in turn to create a topic until one has done it; its address.
pub fn until_created(nodes: &[String], topic: &str, within: Duration) -> Result<String> {
    let options =
        ClientOptions { connect_timeout: Duration::from_secs(1), request_timeout: within, ..ClientOptions::default() };
    let mut connections: Vec<Option<Connection>> = nodes.iter().map(|_| None).collect();
    let deadline = Instant::now() + within;
    let mut last = String::new();
    while Instant::now() < deadline {
        for (address, connection) in nodes.iter().zip(&mut connections) {
            if connection.is_none() {
                *connection = Connection::connect(address, &options).ok();
            }
            let Some(open) = connection else { continue };
            match open.call(&request(topic, 1, 1)) {
                Err(fault) => {
                    last = fault.to_string();
                    *connection = None;
                }
                Ok(response) => {
                    let answer = response.topics.first().context("an answer for the topic")?;
                    let code = ErrorCode::from_code(answer.error_code).context("a known error code")?;
                    // An attempt that wasn't answered may have been heard.
                    if code == ErrorCode::None || code == ErrorCode::TopicAlreadyExists {
                        return Ok(address.clone());
                    }
                    ensure!(code.is_retriable(), "creating a topic: {answer:?}");
                    last = format!("{answer:?}");
                }
            }
        }
        thread::sleep(PAUSE);
    }
    bail!("nobody created a topic within {within:?}; the last answer: {last}")
}
