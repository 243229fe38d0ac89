//! What consumers and members are told when a partition ends under them: its topic is deleted, or made anew, its log
//! directory fails, the node stops. The codes are Kafka's: `RINGLOG_E2E_NODE=kafka` asks for them.
//!
//! `shards/served_tests.rs` has the table of every handler and state, replicated partitions among them.

#![allow(clippy::disallowed_methods, reason = "tests of real programs wait by the clock and run threads")]

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringlog_client::{ClientError, Producer, ProducerOptions};
use ringlog_e2e_tests::fetching::{Part, Topic, Wanted, connect, create, delete, known};
use ringlog_e2e_tests::node::{Kind, Node};
use ringlog_e2e_tests::wait_until;
use ringlog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringlog_protocol::messages::{HeartbeatRequest, JoinGroupRequest, ListOffsetsRequest, list_offsets_request};
use ringlog_types::ErrorCode;

/// Fetches wait for so long at most; only in Kafka's failed directory they do.
const LONG: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// By name to the leader, by name, by id.
const VERSIONS: [i16; 3] = [4, 12, 17];
const GROUP: &str = "g";

/// Two directories for partitions and one for the metadata; the first member of a group waits for others.
fn start(name: &str) -> Result<Node> {
    let settings =
        "offsets.topic.num.partitions=1\ngroup.initial.rebalance.delay.ms=60000\nauto.create.topics.enable=false";
    let mut node = Node::prepare(name, Kind::under_test(), 1, "data,extra", "", settings)?;
    node.set("metadata.log.dir", &node.folder().join("metadata").display().to_string())?;
    node.format(&["--standalone"])?;
    node.start()?;
    Ok(node)
}

/// The answer to a fetch of this partition's end, in words; `None` while there is none.
struct Waiting {
    version: i16,
    thread: JoinHandle<Result<Option<ErrorCode>>>,
}

impl Waiting {
    fn begin(node: &Node, topic: &Topic, partition: i32) -> Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        for version in VERSIONS {
            let mut connection = connect(&node.bootstrap())?;
            let parts = [Part::of(topic, partition, 1)];
            let wanted = Wanted { max_wait: LONG, ..Wanted::at_once(version) };
            connection.send_request(&wanted.request(&parts), version)?;
            let thread = thread::spawn(move || {
                let answer = connection.receive::<ringlog_protocol::messages::FetchRequest>(LONG);
                match answer {
                    Ok(response) => Ok(Some(known(response.responses[0].partitions[0].error_code))),
                    Err(ClientError::Closed { .. }) => Ok(None),
                    Err(fault) => Err(fault.into()),
                }
            });
            waiting.push(Waiting { version, thread });
        }
        Ok(waiting)
    }

    /// Waits for the answer; `None`: the connection was closed without one.
    fn end(self) -> Result<(i16, Option<ErrorCode>)> {
        Ok((self.version, self.thread.join().expect("the thread doesn't panic")?))
    }
}

/// The error of a fetch that comes now.
fn fetch(node: &Node, topic: &Topic, partition: i32, version: i16) -> Result<ErrorCode> {
    let fetched = Wanted::at_once(version).fetch(&mut connect(&node.bootstrap())?, &[Part::of(topic, partition, 1)])?;
    Ok(known(fetched.response.responses[0].partitions[0].error_code))
}

fn list_offsets(node: &Node, topic: &Topic, partition: i32) -> Result<ErrorCode> {
    let partition = list_offsets_request::ListOffsetsPartition {
        partition_index: partition,
        current_leader_epoch: -1,
        timestamp: -1,
    };
    let topic = list_offsets_request::ListOffsetsTopic { name: topic.name.clone().into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    Ok(known(connect(&node.bootstrap())?.call(&request)?.topics[0].partitions[0].error_code))
}

/// One record in each partition.
fn write(node: &Node, topic: &Topic, partitions: i32) -> Result<()> {
    let mut client = node.client()?;
    let mut producer = Producer::new(&topic.name, ProducerOptions::default(), 1);
    for partition in 0..partitions {
        let record = ringlog_client::NewRecord {
            value: Some(b"one".to_vec()),
            partition: Some(partition),
            ..ringlog_client::NewRecord::default()
        };
        producer.append(&mut client, &record)?;
    }
    for delivery in producer.flush(&mut client) {
        delivery.outcome?;
    }
    Ok(())
}

/// Fetches and joins are with the node by now: it answered what was sent after them, on other connections. Nothing tells
/// for sure that a request waits.
fn let_them_arrive(node: &Node) -> Result<()> {
    for _ in 0..20 {
        connect(&node.bootstrap())?;
    }
    Ok(())
}

fn join() -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: "range".to_owned().into(), ..JoinGroupRequestProtocol::default() };
    JoinGroupRequest {
        group_id: GROUP.to_owned().into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned().into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

/// A member that has joined and waits for the others.
fn begin_join(node: &Node) -> Result<JoinHandle<Result<ErrorCode>>> {
    wait_until("the group's coordinator", PATIENCE, || {
        Ok((heartbeat(node)? == ErrorCode::UnknownMemberId).then_some(()))
    })?;
    let mut connection = connect(&node.bootstrap())?;
    connection.send_request(&join(), 3)?;
    Ok(thread::spawn(move || Ok(known(connection.receive::<JoinGroupRequest>(LONG)?.error_code))))
}

fn heartbeat(node: &Node) -> Result<ErrorCode> {
    let request = HeartbeatRequest {
        group_id: GROUP.to_owned().into(),
        member_id: "stranger".to_owned().into(),
        ..HeartbeatRequest::default()
    };
    Ok(known(connect(&node.bootstrap())?.call(&request)?.error_code))
}

#[test]
fn a_deleted_topic_is_unknown_to_who_waits_at_it() -> Result<()> {
    let mut node = start("deleted")?;
    let address = node.bootstrap();
    let offsets = create(&address, "__consumer_offsets", &[vec![1]], &[])?;
    let gone = create(&address, "gone", &[vec![1]], &[])?;
    let anew = create(&address, "anew", &[vec![1]], &[])?;
    write(&node, &gone, 1)?;
    write(&node, &anew, 1)?;
    let (at_gone, at_anew) = (Waiting::begin(&node, &gone, 0)?, Waiting::begin(&node, &anew, 0)?);
    let joining = begin_join(&node)?;
    let_them_arrive(&node)?;
    for topic in [&gone, &anew, &offsets] {
        delete(&address, topic)?;
    }
    let second = create(&address, "anew", &[vec![1]], &[])?;
    for waiting in at_gone.into_iter().chain(at_anew) {
        let (version, answer) = waiting.end()?;
        match answer {
            Some(ErrorCode::UnknownTopicOrPartition) => {}
            // It may have looked again when the metadata had changed, too.
            Some(ErrorCode::OffsetOutOfRange) if version < 13 => {}
            Some(ErrorCode::UnknownTopicId) if version >= 13 => {}
            other => bail!("a fetch in version {version} that waited at a deleted topic ended with {other:?}"),
        }
    }
    ensure!(joining.join().expect("no panic")? == ErrorCode::NotCoordinator);
    ensure!(heartbeat(&node)? == ErrorCode::NotCoordinator);
    for (topic, version, expected) in [
        (&gone, 4, ErrorCode::UnknownTopicOrPartition),
        (&gone, 12, ErrorCode::UnknownTopicOrPartition),
        (&gone, 17, ErrorCode::UnknownTopicId),
        (&anew, 4, ErrorCode::OffsetOutOfRange),
        (&anew, 12, ErrorCode::OffsetOutOfRange),
        (&anew, 17, ErrorCode::UnknownTopicId),
        (&second, 17, ErrorCode::OffsetOutOfRange),
    ] {
        let found = fetch(&node, topic, 0, version)?;
        ensure!(found == expected, "{} in version {version}: {found}, not {expected}", topic.name);
    }
    node.stop()
}

#[test]
fn a_failed_directory_is_told_of_and_the_other_one_serves() -> Result<()> {
    let mut node = start("failed-directory")?;
    let address = node.bootstrap();
    create(&address, "__consumer_offsets", &[vec![1]], &[])?;
    let topic = create(&address, "t", &vec![vec![1]; 6], &[])?;
    write(&node, &topic, 6)?;
    let lies_in = |directory: &str, name: &str| node.folder().join(directory).join(name).is_dir();
    let failing = ["data", "extra"].into_iter().find(|directory| lies_in(directory, "__consumer_offsets-0"));
    let failing = failing.context("the group's partition lies somewhere")?;
    let lost = (0..6).find(|partition| lies_in(failing, &format!("t-{partition}"))).context("a lost partition")?;
    let kept = (0..6).find(|partition| !lies_in(failing, &format!("t-{partition}"))).context("another")?;
    let waiting = Waiting::begin(&node, &topic, lost)?;
    let joining = begin_join(&node)?;
    let_them_arrive(&node)?;
    fs::rename(node.folder().join(failing), node.folder().join("taken-away"))?;
    for waiting in waiting {
        let (version, answer) = waiting.end()?;
        // Clients of version 5 don't know the other one.
        let expected = if version <= 5 { ErrorCode::NotLeaderOrFollower } else { ErrorCode::KafkaStorageError };
        ensure!(answer == Some(expected), "a fetch in version {version} ended with {answer:?}, not {expected}");
        let later = fetch(&node, &topic, lost, version)?;
        ensure!(later == expected, "a later fetch in version {version}: {later}, not {expected}");
        ensure!(fetch(&node, &topic, kept, version)? == ErrorCode::None, "the other directory serves");
    }
    ensure!(list_offsets(&node, &topic, lost)? == ErrorCode::KafkaStorageError);
    ensure!(joining.join().expect("no panic")? == ErrorCode::NotCoordinator);
    wait_until("the group to have no coordinator", PATIENCE, || {
        Ok((heartbeat(&node)? == ErrorCode::NotCoordinator).then_some(()))
    })?;
    node.kill()
}

#[test]
fn who_waits_when_the_node_stops_is_sent_elsewhere() -> Result<()> {
    let mut node = start("stopping")?;
    let topic = create(&node.bootstrap(), "t", &vec![vec![1]; 4], &[])?;
    write(&node, &topic, 4)?;
    let mut waiting = Vec::new();
    for partition in 0..4 {
        waiting.extend(Waiting::begin(&node, &topic, partition)?);
    }
    let_them_arrive(&node)?;
    node.ask_to_stop()?;
    for waiting in waiting {
        let (version, answer) = waiting.end()?;
        // Kafka lets those wait that may read from any replica, until their connections end.
        let is_cut_off = node.kind() == Kind::Kafka && version >= 11 && answer.is_none();
        ensure!(
            is_cut_off || answer == Some(ErrorCode::NotLeaderOrFollower),
            "a fetch in version {version} ended with {answer:?}"
        );
    }
    node.wait_until_stopped()
}
