//! Creating topics while the cluster loses and regains its controllers, with a record of what was promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::{Client, ClientError, ClientOptions, Connection};
use ringlog_protocol::messages::CreateTopicsResponse;
use ringlog_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_types::{ErrorCode, Uuid};

use crate::wait_until;

/// What a new topic is to be.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each.
    pub replicas: i16,
    /// All partitions are on this broker, alone.
    pub only_on: Option<i32>,
    /// A setting of so many bytes, which makes the metadata log grow.
    pub ballast_bytes: usize,
}

impl TopicPlan {
    /// One partition with so many replicas.
    pub fn replicated(replicas: i16) -> TopicPlan {
        TopicPlan { partitions: 1, replicas, only_on: None, ballast_bytes: 0 }
    }

    /// Partitions that only one broker has.
    pub fn on(broker: i32, partitions: i32) -> TopicPlan {
        TopicPlan { partitions, only_on: Some(broker), ..TopicPlan::replicated(1) }
    }

    fn topic(&self, name: &str) -> CreatableTopic {
        let mut topic = CreatableTopic { name: name.to_owned().into(), ..CreatableTopic::default() };
        if self.ballast_bytes > 0 {
            let value = "0:1,".repeat(self.ballast_bytes / 4) + "0:1";
            let name = "leader.replication.throttled.replicas".into();
            topic.configs.push(CreatableTopicConfig { name, value: Some(value.into()) });
        }
        let Some(broker) = self.only_on else {
            return CreatableTopic { num_partitions: self.partitions, replication_factor: self.replicas, ..topic };
        };
        let assigned = |partition_index| CreatableReplicaAssignment { partition_index, broker_ids: vec![broker] };
        let assignments = (0..self.partitions).map(assigned).collect();
        CreatableTopic { num_partitions: -1, replication_factor: -1, assignments, ..topic }
    }

    fn request(&self, name: &str, timeout: Duration) -> Result<CreateTopicsRequest> {
        let timeout_ms = i32::try_from(timeout.as_millis())?;
        Ok(CreateTopicsRequest { topics: vec![self.topic(name)], timeout_ms, ..CreateTopicsRequest::default() })
    }
}

/// What came of an attempt to create a topic.
#[derive(Debug)]
pub enum Attempt {
    /// It is there now.
    Created(Uuid),
    /// It was there before.
    Exists,
    /// It may be there or not.
    Unknown(String),
}

/// A client that doesn't wait for long.
pub fn hasty_client(bootstrap: &str, patience: Duration) -> Result<Client, ClientError> {
    let options = ClientOptions { connect_timeout: patience, request_timeout: patience, ..ClientOptions::default() };
    Client::connect(bootstrap, options)
}

/// Asks once. Errors are those that asking again won't mend.
pub fn attempt(client: &mut Client, name: &str, plan: &TopicPlan, timeout: Duration) -> Result<Attempt> {
    let outcome = client.send(&plan.request(name, timeout)?);
    understand(name, outcome)
}

/// As [`attempt`], of one node, which may be a controller.
pub fn attempt_on(connection: &mut Connection, name: &str, plan: &TopicPlan, timeout: Duration) -> Result<Attempt> {
    let outcome = connection.call(&plan.request(name, timeout)?);
    understand(name, outcome)
}

fn understand(name: &str, outcome: Result<CreateTopicsResponse, ClientError>) -> Result<Attempt> {
    let response = match outcome {
        Ok(response) => response,
        Err(fault) if fault.is_retriable() => return Ok(Attempt::Unknown(fault.to_string())),
        Err(fault) => return Err(fault.into()),
    };
    let topic = response.topics.first().context("an answer for the topic")?;
    let known = ErrorCode::from_code(topic.error_code).context("a known error code")?;
    if known == ErrorCode::None {
        return Ok(Attempt::Created(topic.topic_id));
    }
    if known == ErrorCode::TopicAlreadyExists {
        return Ok(Attempt::Exists);
    }
    let said = format!("{} ({})", topic.error_message.as_deref().unwrap_or_default(), known.name());
    // Right after their start brokers may not be unfenced yet.
    if known.is_retriable() || known == ErrorCode::InvalidReplicationFactor {
        return Ok(Attempt::Unknown(said));
    }
    bail!("topic {name} can't be created: {said}")
}

/// Creates a topic, asking again until it is there.
pub fn create(bootstrap: &str, name: &str, plan: &TopicPlan, within: Duration) -> Result<()> {
    let mut last = String::new();
    let outcome = wait_until(&format!("topic {name}"), within, || {
        let patience = Duration::from_secs(5);
        match hasty_client(bootstrap, patience) {
            Err(fault) => last = fault.to_string(),
            Ok(mut client) => match attempt(&mut client, name, plan, patience)? {
                Attempt::Created(_) | Attempt::Exists => return Ok(Some(())),
                Attempt::Unknown(said) => last = said,
            },
        }
        Ok(None)
    });
    outcome.with_context(|| format!("the last answer: {last}"))
}

/// The topics that a broker knows, with their ids.
pub fn list(bootstrap: &str) -> Result<BTreeMap<String, Uuid>> {
    let mut client = hasty_client(bootstrap, Duration::from_secs(10))?;
    let metadata = client.refresh_metadata(None, false)?;
    let topics = metadata.topics.values().filter(|topic| !topic.is_internal);
    Ok(topics.map(|topic| (topic.name.clone(), topic.id)).collect())
}

/// Creates one topic after the other in the background, whatever happens to the cluster.
#[derive(Debug)]
pub struct Creator {
    prefix: String,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_ending: AtomicBool,
    count: AtomicUsize,
    /// With its id, if it was told with the acknowledgement.
    acknowledged: Mutex<BTreeMap<String, Option<Uuid>>>,
    /// How long the longest topic took.
    longest: Mutex<Duration>,
}

/// A topic that isn't there after so long is a failure.
const CREATOR_PATIENCE: Duration = Duration::from_secs(60);
/// Between two topics, if nothing else is asked for.
pub const CREATOR_PAUSE: Duration = Duration::from_millis(100);

impl Creator {
    /// Starts. Names begin with `prefix`.
    pub fn start(bootstrap: &str, prefix: &str, plan: TopicPlan) -> Creator {
        Creator::start_with_pauses(bootstrap, prefix, plan, CREATOR_PAUSE)
    }

    /// The same with so much time between two topics, for tests of an hour: what all topics say has to fit into every
    /// node's memory.
    pub fn start_with_pauses(bootstrap: &str, prefix: &str, plan: TopicPlan, pause: Duration) -> Creator {
        let shared = Arc::new(Shared::default());
        let (bootstrap, name) = (bootstrap.to_owned(), prefix.to_owned());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let outcome = shared.create_all(&bootstrap, &name, &plan, pause);
                if let Err(error) = &outcome {
                    println!("the creator of topics fails: {error:#}");
                }
                outcome
            }
        });
        Creator { prefix: prefix.to_owned(), shared, thread }
    }

    /// How many were acknowledged by now.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Waits until so many more were acknowledged.
    pub fn wait_for_more(&self, more: usize) -> Result<()> {
        let goal = self.count() + more;
        wait_until("more topics", CREATOR_PATIENCE, || {
            ensure!(!self.thread.is_finished(), "the creator of topics has failed");
            Ok((self.count() >= goal).then_some(()))
        })
    }

    /// Ends, and compares: every acknowledged topic is there under its id, and no other. Their number, and how long the
    /// one took that took longest.
    pub fn finish(self, brokers: &[String]) -> Result<(usize, Duration)> {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        self.thread.join().expect("the creator doesn't panic")?;
        let acknowledged = self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for broker in brokers {
            let compared = wait_until("a broker to know all topics", Duration::from_secs(30), || {
                let there = list(broker)?;
                Ok((there.keys().filter(|name| name.starts_with(&self.prefix)).count() >= acknowledged.len())
                    .then_some(there))
            });
            let there = match compared {
                Ok(there) => there,
                Err(_) => list(broker)?,
            };
            compare(&acknowledged, &there, &self.prefix).with_context(|| format!("at broker {broker}"))?;
        }
        let longest = *self.shared.longest.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((acknowledged.len(), longest))
    }
}

fn compare(acknowledged: &BTreeMap<String, Option<Uuid>>, there: &BTreeMap<String, Uuid>, prefix: &str) -> Result<()> {
    for (name, id) in acknowledged {
        let found = there.get(name).with_context(|| format!("topic {name} was acknowledged and isn't there"))?;
        ensure!(id.is_none_or(|id| id == *found), "topic {name} was acknowledged as {id:?} and is {found:?}");
    }
    let mut others = there.keys().filter(|name| name.starts_with(prefix) && !acknowledged.contains_key(*name));
    ensure!(others.next().is_none(), "topics that were never acknowledged: {:?}", others.collect::<Vec<_>>());
    Ok(())
}

impl Shared {
    fn create_all(&self, bootstrap: &str, prefix: &str, plan: &TopicPlan, pause: Duration) -> Result<()> {
        let patience = Duration::from_secs(2);
        let mut client = None;
        for number in 0.. {
            if self.is_ending.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("{prefix}-{number:05}");
            let begin = Instant::now();
            let id = loop {
                ensure!(begin.elapsed() < CREATOR_PATIENCE, "no answer for topic {name}");
                let Some(connected) = client.as_mut() else {
                    client = hasty_client(bootstrap, patience).ok();
                    thread::sleep(CREATOR_PAUSE);
                    continue;
                };
                match attempt(connected, &name, plan, patience)? {
                    Attempt::Created(id) => break Some(id),
                    // An attempt of before was heard after all, or a broker forwarded this one twice.
                    Attempt::Exists => break None,
                    Attempt::Unknown(_) => client = None,
                }
            };
            let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
            *longest = begin.elapsed().max(*longest);
            drop(longest);
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(name, id);
            self.count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(pause);
        }
        Ok(())
    }
}
